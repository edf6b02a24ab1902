//! Reading and rewriting entries as they lie in the store.

use redb::ReadableTable;

use crate::error::StoreError;
use crate::ids::ChangeHash;
use crate::journal::{BodyParts, Entry, change_hash, write_entry};
use crate::tables::{self, Loc};

/// The change at a location and its hash; `None` when its body is not held, or is of another
/// object than the key names.
///
/// The entry's seal is not checked: it lies over all of the entry, and a body may be a thousandth
/// of it. What was read is known by its hash instead, and the caller holds the hashes of all
/// changes together to the heads in the object's sealed row. Verification checks the seals.
pub(super) fn body_change(
    entries: &impl ReadableTable<&'static [u8], &'static [u8]>,
    object: &[u8],
    loc: Loc,
) -> Result<Option<(ChangeHash, Vec<u8>)>, StoreError> {
    let Some((lane, id, life)) = tables::split_object_key(object) else { return Ok(None) };
    let key = tables::entry_key(lane, loc.author, loc.seq);
    let Some(sealed) = entries.get(key.as_slice())? else { return Ok(None) };
    let change = body_at(sealed.value(), usize::from(loc.item))
        .and_then(BodyParts::read)
        .filter(|parts| parts.id == id && parts.life == life)
        .and_then(|parts| Some((change_hash(parts.change)?, parts.change.to_vec())));
    Ok(change)
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
