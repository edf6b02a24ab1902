//! Reading and rewriting entries as they lie in the store.

use redb::ReadableTable;

use crate::error::StoreError;
use crate::journal::{BodyParts, Entry, write_entry};
use crate::lane::LaneId;
use crate::tables::{self, Loc};

/// The change at a location; `None` when its body is not held.
pub(super) fn body_change(
    entries: &impl ReadableTable<&'static [u8], &'static [u8]>,
    lane: LaneId,
    loc: Loc,
) -> Result<Option<Vec<u8>>, StoreError> {
    let key = tables::entry_key(lane, loc.author, loc.seq);
    let change = tables::read_with(entries, tables::ENTRIES, &key, |bytes| {
        let body = body_at(bytes, usize::from(loc.item))?;
        Some(BodyParts::read(body)?.change.to_vec())
    })?;
    Ok(change.flatten())
}

/// The body of an item, found without decoding the header.
fn body_at(entry: &[u8], item: usize) -> Option<&[u8]> {
    let (header_len, rest) = entry.get(64..)?.split_first_chunk::<4>()?;
    let mut rest = rest.get(u32::from_be_bytes(*header_len) as usize..)?;
    for index in 0..=item {
        let (state, after) = rest.split_first_chunk::<5>()?;
        let len = u32::from_be_bytes([state[1], state[2], state[3], state[4]]) as usize;
        let (body, after) = after.split_at_checked(len)?;
        if index == item {
            return (state[0] == 0).then_some(body);
        }
        rest = after;
    }
    None
}

/// Reads an entry of this store, where a damaged one is an error of the store.
pub(super) fn read_stored<'a>(key: &[u8], bytes: &'a [u8]) -> Result<Entry<'a>, StoreError> {
    Entry::read(bytes).map_err(|error| {
        StoreError::inconsistent(
            format!("entries-1 {}", data_encoding::HEXLOWER.encode(key)),
            error.to_string(),
        )
    })
}

/// The same entry with some bodies replaced by a state.
pub(super) fn without_bodies(
    entry: &Entry<'_>,
    replace: impl Fn(usize) -> Option<crate::journal::Body<'static>>,
) -> Vec<u8> {
    let bodies: Vec<_> = entry
        .bodies
        .iter()
        .enumerate()
        .map(|(index, body)| replace(index).unwrap_or(*body))
        .collect();
    write_entry(&entry.signature, entry.header_bytes, &bodies)
}
