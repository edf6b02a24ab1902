//! The frames of a pairing, as bytes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{JoinRequest, Refusal};

/// Most bytes of one frame, so that a stranger can make nobody hold more.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// How much of the roster one frame carries; the rest of the frame is its code and its lengths.
pub(super) const PIECE_BYTES: usize = 48 * 1024;

/// The version of the protocol that is spoken here.
pub(super) const VERSION: u16 = 1;

/// Which secret the joiner has.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum Offer {
    Code { nameplate: u16 },
    Ticket,
}

/// What goes over the stream.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum Frame {
    /// Joiner: which secret, and a share of the key.
    Hello { version: u16, offer: Offer, share: Vec<u8> },
    /// Inviter: its share of the key.
    Answer { share: Vec<u8> },
    /// Joiner: has the key. It comes first, so that a stranger who guesses learns nothing before
    /// the inviter has counted the guess.
    Confirm { mac: [u8; 32] },
    /// Inviter: has the key.
    Confirmed { mac: [u8; 32] },
    /// Either, from then on: a [`Sealed`], and the code that proves whose and the how manieth.
    Sealed { body: Vec<u8>, mac: [u8; 32] },
    /// Either: ends the exchange.
    Refused { reason: u8 },
}

/// What goes over the stream once both have the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(super) enum Sealed {
    /// Joiner: who it is.
    Request(JoinRequest),
    /// Inviter: the next piece of the roster; the last one says so.
    Roster { piece: Vec<u8>, last: bool },
    /// Joiner: has stored it all.
    Stored,
}

/// The bytes of a frame or of what is sealed in one.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain data into memory: nothing here can fail to encode.
    postcard::to_stdvec(value).unwrap_or_default()
}

/// Reads bytes in their one canonical form.
pub(super) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    let value = postcard::from_bytes(bytes).map_err(|_| Refusal::Malformed)?;
    if encode(&value) == bytes { Ok(value) } else { Err(Refusal::Malformed) }
}
