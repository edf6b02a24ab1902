//! Pairing: how a device that nobody knows yet becomes a member, over a stream that may end at a
//! stranger.
//!
//! The transport has encrypted the stream and proved a device key at each end; whether the device at
//! the other end is the one on the other desk, it cannot know. That is what the secret is for: a
//! short [`Code`] that a person reads out, or a [`Ticket`](crate::ticket::Ticket). Both sides prove
//! to each other that they know it, bound to the two device keys, without showing it: somebody in
//! between has keys of his own, so his proof does not fit. A wrong guess burns the invite.
//!
//! ```text
//! joiner                                    inviter
//!   Hello     which secret, share of key  ->
//!                                         <-  Answer     share of key
//!   Confirm   has the key                 ->             wrong: burnt, one guess was one guess
//!                                         <-  Confirmed  has the key
//!   Request   name, own mesh of one       ->             asks its owner to admit
//!                                         <-  Roster     all records, in pieces
//!   Stored    has it durably              ->             only now: joined
//! ```
//!
//! [`Inviter`] and [`Joiner`] are pure. Give them frames as they come and the time; after each call
//! send what `poll_transmit` has, heed what `poll_event` has, and come back at `poll_timeout`.
//! The grounds for all this are in `docs/adr/0004-pairing.md`.

mod code;
mod inviter;
mod joiner;
mod keys;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use srcos_lanes::ids::DeviceId;

pub use code::{CODE_CHARS_MAX, CODE_WORDS, Code, CodeError, NAMEPLATE_MAX};
pub use inviter::{InviteError, InviteState, Inviter, InviterEvent};
pub use joiner::{JoinError, Joiner, JoinerEvent, Secret};
pub use wire::FRAME_BYTES_MAX;

use crate::roster::RecordBytes;

/// How long an invite holds when nobody says otherwise, in milliseconds: time to walk to the other
/// room.
pub const INVITE_MS_DEFAULT: u64 = 5 * 60 * 1000;

/// How long an invite may hold at most, in milliseconds: a code on a screen is seen by others.
pub const INVITE_MS_MAX: u64 = 60 * 60 * 1000;

/// How long one side waits for the other's next frame, in milliseconds: a slow link may take this
/// for a large roster.
pub const STEP_MS_MAX: u64 = 30 * 1000;

/// Devices that have said hello and have yet to show that they know the secret, at once: one is the
/// right one, and strangers that begin and say nothing more must not keep it waiting.
pub const UNPROVEN_MAX: usize = 8;

/// Most bytes of a founding record: a name, a key, a signature and some numbers are under 250.
pub const FOUNDING_BYTES_MAX: usize = 1024;

/// A stream over which somebody pairs, as the transport knows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stream {
    /// The caller's number of it, never used twice.
    pub id: u64,
    /// The device at the other end, as the transport has proved it.
    pub device: DeviceId,
}

/// A frame to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Over which stream.
    pub stream: Stream,
    /// The frame, at most [`FRAME_BYTES_MAX`] bytes.
    pub frame: Vec<u8>,
    /// Whether the stream is to be closed once the frame has gone.
    pub last: bool,
}

/// What a device says of itself when it asks to be admitted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct JoinRequest {
    /// Its name.
    pub name: String,
    /// The record that founded its mesh of one, whose entries it brings along.
    pub founding: Option<RecordBytes>,
    /// Where it may be reached.
    pub addresses: Vec<String>,
}

/// Why a pairing was refused. Sent as a number, so that both sides know the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Refusal {
    /// The other side speaks another version.
    #[error("the other device speaks another version of pairing")]
    Unsupported,
    /// No invite with this number.
    #[error("the other device has no invite of this kind or number")]
    UnknownInvite,
    /// The invite is too old.
    #[error("the invite has expired")]
    Expired,
    /// The invite was used, burnt or withdrawn.
    #[error("the invite was used already")]
    Spent,
    /// Too many others are pairing.
    #[error("the other device is pairing with others at this moment")]
    Busy,
    /// The two sides do not have the same secret, or somebody stands between them.
    #[error("the code does not match, or somebody stands between the two devices")]
    WrongCode,
    /// Bytes that are no frame.
    #[error("a frame was damaged or in no known form")]
    Malformed,
    /// A frame that does not belong here.
    #[error("a frame came out of order")]
    OutOfOrder,
    /// A frame that the other side did not send, or not now.
    #[error("a frame was changed, repeated or left out on its way")]
    Tampered,
    /// A request with a bad name, address or founding record.
    #[error("the request to join names something that it may not")]
    InvalidRequest,
    /// The inviter's owner declined.
    #[error("the inviting device did not admit this one")]
    NotAdmitted,
    /// The records that were sent are no sound roster.
    #[error("the records of the mesh are not sound")]
    InvalidRoster,
    /// The roster is not that of the mesh on the ticket.
    #[error("the mesh is another one than the ticket names")]
    WrongMesh,
    /// The inviter, the joiner, or what the joiner brought is missing in the roster.
    #[error("the records of the mesh do not name both devices and what they bring")]
    NotMember,
    /// Nothing came for too long.
    #[error("the other device did not answer in time")]
    TimedOut,
    /// The stream ended.
    #[error("the connection was lost")]
    Disconnected,
    /// Its owner called it off.
    #[error("pairing was cancelled")]
    Cancelled,
    /// The joiner could not store the roster.
    #[error("the joining device could not store the records of the mesh")]
    NotStored,
    /// A number from a newer version.
    #[error("the other device refused for reason {0}, which this version does not know")]
    Other(u8),
}

use Refusal::{
    Busy, Cancelled, Disconnected, Expired, InvalidRequest, InvalidRoster, Malformed, NotAdmitted,
    NotMember, NotStored, OutOfOrder, Spent, Tampered, TimedOut, UnknownInvite, Unsupported,
    WrongCode, WrongMesh,
};

impl Refusal {
    /// All that have a number of their own. The order is the wire's: only ever add at the end.
    pub const ALL: [Self; 18] = [
        Unsupported,
        UnknownInvite,
        Expired,
        Spent,
        Busy,
        WrongCode,
        Malformed,
        OutOfOrder,
        Tampered,
        InvalidRequest,
        NotAdmitted,
        InvalidRoster,
        WrongMesh,
        NotMember,
        TimedOut,
        Disconnected,
        Cancelled,
        NotStored,
    ];

    /// The number on the wire.
    pub fn number(self) -> u8 {
        if let Self::Other(number) = self {
            return number;
        }
        let at = Self::ALL.iter().position(|refusal| *refusal == self);
        // Every other variant is in the list, which a test holds; 0 is no reason at all.
        at.map_or(0, |at| at as u8 + 1)
    }

    /// The refusal with a number.
    pub fn from_number(number: u8) -> Self {
        let at = usize::from(number).checked_sub(1);
        at.and_then(|at| Self::ALL.get(at).copied()).unwrap_or(Self::Other(number))
    }

    /// What a person can do about it.
    pub const fn hint(self) -> &'static str {
        match self {
            Unsupported | Self::Other(_) => "update srcos-node on both devices",
            UnknownInvite => "check the number in front of the code, or make a new invite",
            Expired | Spent | Cancelled => "make a new invite on the other device",
            Busy => "wait until it is done and try again",
            WrongCode => "make a new invite and type its code in again; the old one is burnt",
            Malformed | OutOfOrder | Tampered => {
                "make a new invite; if this happens again, look for who is in between"
            }
            InvalidRequest => "check the device's name, and that its store is its own",
            NotAdmitted => "see the inviting device for the reason",
            InvalidRoster | NotMember => "verify the store of the inviting device",
            WrongMesh => "check that the ticket came from the device that you mean",
            TimedOut | Disconnected => "bring the devices onto one network and try again",
            NotStored => "see the joining device's disk, then make a new invite",
        }
    }
}
