//! Frames that carry a run compressed: what changes of like objects repeat is sent once.
//!
//! LZ4 blocks, each by itself: nothing is shared between messages, so what one journal holds says nothing
//! about the length of another. The secure lane is left as it is: how well a text compresses tells who
//! watches the link something about it (ADR 0019).
//!
//! Only runs come compressed: of them no more is read than credit allows, and how much one may be is
//! bounded. The tag is not in the block, so nothing else can come of one. Whoever counts bytes for credit
//! counts those of the message, not of the frame: it is the message that a reader must hold.

use srcos_lanes::lane::LaneId;

use super::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, PACKED, WireError, tag};

/// Bytes below which a message is not worth compressing.
pub(super) const PACK_BYTES_MIN: usize = 256;
/// Most bytes that come of one byte of an LZ4 block. The format allows no more, so a frame that claims
/// more is refused before anything is reserved for it.
const EXPANDS_MAX: usize = 255;
/// Bytes before the block: the kind of the frame, and the length of the message without its tag.
const HEAD_BYTES: usize = 5;

/// The frame of a message, if it is a run that may be compressed and gets shorter by it.
pub(super) fn pack(message: &[u8]) -> Option<Vec<u8>> {
    let (tag::RUN, body) = message.split_first().map(|(tag, body)| (*tag, body))? else {
        return None;
    };
    if *body.first()? == LaneId::Secure.code() || message.len() < PACK_BYTES_MIN {
        return None;
    }
    let mut frame = vec![0; HEAD_BYTES + lz4_flex::block::get_maximum_output_size(body.len())];
    let len = lz4_flex::block::compress_into(body, &mut frame[HEAD_BYTES..]).ok()?;
    if HEAD_BYTES + len > message.len() || HEAD_BYTES - 1 + len > FRAME_BYTES_MAX {
        return None;
    }
    frame[0] = PACKED;
    frame[1..HEAD_BYTES].copy_from_slice(&u32::try_from(body.len()).ok()?.to_be_bytes());
    frame.truncate(HEAD_BYTES + len);
    Some(frame)
}

/// The run in a compressed frame, without the frame's first byte.
pub(super) fn unpack(payload: &[u8]) -> Result<Vec<u8>, WireError> {
    let (claimed, block) = claimed(payload).ok_or(WireError("a compressed frame is cut short"))?;
    if claimed >= MESSAGE_BYTES_MAX {
        return Err(WireError("a message is too large"));
    }
    if claimed > block.len().saturating_mul(EXPANDS_MAX) {
        return Err(WireError("a compressed frame claims more than it can hold"));
    }
    let mut message = vec![0; 1 + claimed];
    message[0] = tag::RUN;
    match lz4_flex::block::decompress_into(block, &mut message[1..]) {
        Ok(len) if len == claimed => Ok(message),
        Ok(_) => Err(WireError("a compressed frame claims another length than it has")),
        Err(_) => Err(WireError("a compressed frame cannot be read")),
    }
}

/// The length that a run has by its frame's own words, without its tag, and the block.
pub(super) fn claimed(payload: &[u8]) -> Option<(usize, &[u8])> {
    let (len, block) = payload.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_be_bytes(*len)).ok()?, block))
}
