//! Every table of the store: its key, its value, and how the bytes are made.
//!
//! Keys and values are bytes under this module's own encoding, because redb makes the names of Rust
//! types part of its file format. Table names carry a version. Integers in keys are big-endian, so
//! that byte order is number order. Every value ends with eight bytes of a BLAKE3 hash over table
//! name, key and value: a flipped bit is found where it is, and a value under a wrong key too.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta-1` | name | see [`meta`] |
//! | `authors-1` | author number (4) | [`Author`] |
//! | `journals-1` | lane (1), author number (4) | [`JournalRow`] |
//! | `entries-1` | lane (1), author number (4), seq (8) | entry bytes, see [`crate::journal`] |
//! | `objects-1` | lane (1), id, 0, life (4) | [`ObjectRow`] |
//! | `documents-1` | as `objects-1` | a saved Automerge document |
//! | `tails-1` | as `objects-1`, then change number (4) | [`Loc`] of a change, from the second on |
//! | `tombstones-1` | as `objects-1` | [`TombstoneRow`] |
//! | `feed-1` | number (8) | [`FeedRow`] |
//! | `expiry-1` | wall time (8), then as `objects-1` | nothing |
//! | `counts-1` | lane (1) | [`CountsRow`] |
//! | `peers-1` | device (32), name | what the layer above keeps about a peer |
//! | `roster-1` | number (4) | a roster record |
//! | `evidence-1` | number (8) | [`EvidenceRow`] |

use std::collections::BTreeMap;

use redb::{ReadableTable, Table, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::frontier::Tip;
use crate::ids::{Author, ChangeHash, EntryHash, ObjectKey, WallMillis};
use crate::journal::Body;
use crate::lane::LaneId;
use crate::object::LeafTypes;

/// A table of this store.
pub type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Facts about the store itself.
pub const META: Bytes = TableDefinition::new("meta-1");
/// The authors whose journals are held, by a short number.
pub const AUTHORS: Bytes = TableDefinition::new("authors-1");
/// The state of each journal.
pub const JOURNALS: Bytes = TableDefinition::new("journals-1");
/// The entries of all journals.
pub const ENTRIES: Bytes = TableDefinition::new("entries-1");
/// The materialised objects that reads use.
pub const OBJECTS: Bytes = TableDefinition::new("objects-1");
/// Saved documents of objects with more than a few changes.
pub const DOCUMENTS: Bytes = TableDefinition::new("documents-1");
/// Where each change of an object is, from the second on.
pub const TAILS: Bytes = TableDefinition::new("tails-1");
/// Deleted lives of objects.
pub const TOMBSTONES: Bytes = TableDefinition::new("tombstones-1");
/// What was applied, in the order of applying.
pub const FEED: Bytes = TableDefinition::new("feed-1");
/// When which object expires.
pub const EXPIRY: Bytes = TableDefinition::new("expiry-1");
/// Counters of each lane.
pub const COUNTS: Bytes = TableDefinition::new("counts-1");
/// What the layer above remembers of peers.
pub const PEERS: Bytes = TableDefinition::new("peers-1");
/// The roster's records, parents first.
pub const ROSTER: Bytes = TableDefinition::new("roster-1");
/// Proofs of misbehaviour.
pub const EVIDENCE: Bytes = TableDefinition::new("evidence-1");
/// Changes of applied entries that are not in their objects: [`left_out_key`] to the change's hash.
pub const LEFT_OUT: Bytes = TableDefinition::new("left-out-1");
/// Authors whose next changes of an object wait for one of theirs that is left out:
/// [`stalled_key`] to its hash.
pub const STALLED: Bytes = TableDefinition::new("stalled-1");

/// All of them, so that a new store has each from the start.
pub const ALL: [Bytes; 16] = [
    META, AUTHORS, JOURNALS, ENTRIES, OBJECTS, DOCUMENTS, TAILS, TOMBSTONES, FEED, EXPIRY, COUNTS,
    PEERS, ROSTER, EVIDENCE, LEFT_OUT, STALLED,
];

/// Keys of the `meta-1` table.
pub mod meta {
    /// The store's version, u32 big-endian.
    pub const VERSION: &str = "version";
    /// The device that owns the store, 32 bytes.
    pub const DEVICE: &str = "device";
    /// The mesh, 32 bytes; absent until there is one.
    pub const MESH: &str = "mesh";
    /// The present incarnation, u64 big-endian.
    pub const INCARNATION: &str = "incarnation";
    /// How often the store was opened for writing, u64 big-endian.
    pub const OPENS: &str = "opens";
    /// One byte: 1 when the store was closed cleanly.
    pub const CLEAN: &str = "clean";
}

/// The state of one journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalRow {
    /// Up to which entry it is held.
    pub held: u64,
    /// The hash of that entry.
    pub held_hash: EntryHash,
    /// Up to which entry it is applied.
    pub applied: u64,
    /// Bytes of its entries.
    pub bytes: u64,
    /// When the first entry that is held but not applied came; meaningless when there is none.
    pub waiting_since: WallMillis,
    /// Its author signed two different entries for one place: nothing more is taken from it.
    pub forked: bool,
}

impl JournalRow {
    /// How far it is held, as it is told to others.
    pub fn tip(&self) -> Tip {
        if self.forked { Tip::TWO_HISTORIES } else { Tip { seq: self.held, hash: self.held_hash } }
    }
}

/// Where a change is: an item of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loc {
    /// The author's number.
    pub author: u32,
    /// The entry.
    pub seq: u64,
    /// The item in it.
    pub item: u16,
}

/// A change that nothing follows yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeadRow {
    /// Its hash.
    pub hash: ChangeHash,
    /// Where it is.
    pub loc: Loc,
}

/// Whether an object is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RowState {
    /// It is.
    Live,
    /// A tombstone hides it.
    Hidden,
    /// A change to it could not be applied; what it held before is kept, and this is why.
    Quarantined(String),
}

/// A materialised object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectRow {
    /// Whether it is shown.
    pub state: RowState,
    /// Its kind.
    pub kind: String,
    /// Its data class.
    pub class: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its body as canonical JSON.
    pub body: String,
    /// Concurrent values.
    pub conflicts: Vec<ConflictRow>,
    /// The author of its latest change, by wall time and then by device.
    pub author: u32,
    /// The wall time of that change.
    pub updated_at: WallMillis,
    /// It once had a class that is confined to its device: none of its later changes leaves.
    pub confined: bool,
    /// The changes that nothing follows.
    pub heads: Vec<HeadRow>,
    /// Its first change.
    pub first: Loc,
    /// How many changes were applied.
    pub changes: u32,
    /// How many of them the saved document covers; 0 when there is none.
    pub saved_changes: u32,
    /// When it expires.
    pub expires_at: Option<WallMillis>,
    /// Which leaves of the body are texts or counters. Last, and left out where there is none, so
    /// that rows written before there were types read as they are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "types_if_any")]
    pub types: LeafTypes,
}

/// What follows the end of a row that has no types is nothing at all.
fn types_if_any<'de, D: serde::Deserializer<'de>>(row: D) -> Result<LeafTypes, D::Error> {
    Ok(LeafTypes::deserialize(row).unwrap_or_default())
}

/// Concurrent values of one field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictRow {
    /// Which field, as a JSON pointer below the object.
    pub path: String,
    /// Its values.
    pub values: Vec<ConflictValueRow>,
}

/// One of several concurrent values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConflictValueRow {
    /// The value as canonical JSON.
    pub json: String,
    /// The Automerge actor that wrote it.
    pub actor: [u8; 16],
    /// It is the one that reads show.
    pub shown: bool,
}

/// A deleted life of an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TombstoneRow {
    /// Who asked.
    pub author: u32,
    /// When.
    pub requested_at: WallMillis,
    /// Why.
    pub reason: String,
}

/// Something that was applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FeedRow {
    /// An entry with all its items.
    Entry {
        /// Its lane.
        lane: LaneId,
        /// Its author's number.
        author: u32,
        /// Its place in the journal.
        seq: u64,
    },
    /// An object that expired.
    Expired {
        /// Its lane.
        lane: LaneId,
        /// Its id.
        id: String,
        /// Its life.
        life: u32,
    },
    /// A life that came before its time, and is shown since those before it were deleted.
    Shown {
        /// Its lane.
        lane: LaneId,
        /// Its id.
        id: String,
        /// Its life.
        life: u32,
    },
}

impl FeedRow {
    /// The lane of what was applied.
    pub fn lane(&self) -> LaneId {
        match self {
            Self::Entry { lane, .. } | Self::Expired { lane, .. } | Self::Shown { lane, .. } => {
                *lane
            }
        }
    }
}

/// Counters of one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CountsRow {
    /// Objects that are shown.
    pub live: u64,
    /// Objects that a tombstone hides.
    pub hidden: u64,
    /// Shown objects with concurrent values.
    pub conflicted: u64,
    /// Objects with a change that could not be applied.
    pub quarantined: u64,
    /// Bodies of held entries that are not here. Last, and absent from rows that were written before
    /// they were counted: then the number is not known.
    #[serde(deserialize_with = "absent_if_counted")]
    pub absent: Option<AbsentRow>,
}

impl Default for CountsRow {
    /// A lane in which nothing is.
    fn default() -> Self {
        let absent = Some(AbsentRow::default());
        Self { live: 0, hidden: 0, conflicted: 0, quarantined: 0, absent }
    }
}

/// Bodies that are not here, by the reason that their place in the entry states.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AbsentRow {
    /// Kept back by the policy of who sent them.
    pub withheld: u64,
    /// Removed after a deletion.
    pub purged: u64,
    /// Missing.
    pub missing: u64,
}

impl AbsentRow {
    /// Counts a body, if it is not here.
    pub fn add(&mut self, body: &Body<'_>) {
        match body {
            Body::Here(_) => {}
            Body::Withheld => self.withheld += 1,
            Body::Purged => self.purged += 1,
            Body::Missing => self.missing += 1,
        }
    }

    /// Counts those of another count too.
    pub fn add_all(&mut self, more: &Self) {
        self.withheld += more.withheld;
        self.purged += more.purged;
        self.missing += more.missing;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.withheld + self.purged + self.missing
    }
}

/// What follows the end of a row that counts no absent bodies is nothing at all.
fn absent_if_counted<'de, D: serde::Deserializer<'de>>(
    row: D,
) -> Result<Option<AbsentRow>, D::Error> {
    Ok(Option::deserialize(row).unwrap_or_default())
}

/// Two signed histories of one journal that differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EvidenceRow {
    /// Its lane.
    pub lane: LaneId,
    /// Its author.
    pub author: Author,
    /// The first place at which the two differ.
    pub seq: u64,
    /// When it was found.
    pub found_at: WallMillis,
    /// Entry bytes of the history that is held: headers and signatures, bodies left out.
    pub held: Vec<Vec<u8>>,
    /// Entry bytes of the other history.
    pub other: Vec<Vec<u8>>,
}

/// Key of a journal.
pub fn journal_key(lane: LaneId, author: u32) -> [u8; 5] {
    let mut key = [lane.code(); 5];
    key[1..].copy_from_slice(&author.to_be_bytes());
    key
}

/// Key of an entry.
pub fn entry_key(lane: LaneId, author: u32, seq: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&journal_key(lane, author));
    key[5..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// Key of one life of an object.
pub fn object_key(lane: LaneId, id: &str, life: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.len() + 6);
    key.push(lane.code());
    key.extend_from_slice(id.as_bytes());
    key.push(0);
    key.extend_from_slice(&life.to_be_bytes());
    key
}

/// The lane, id and life of an object's key.
pub fn split_object_key(key: &[u8]) -> Option<(LaneId, &str, u32)> {
    let (lane, rest) = key.split_first()?;
    let (rest, life) = rest.split_last_chunk::<4>()?;
    let (zero, id) = rest.split_last()?;
    if *zero != 0 {
        return None;
    }
    Some((LaneId::from_code(*lane)?, std::str::from_utf8(id).ok()?, u32::from_be_bytes(*life)))
}

/// The key of an object as messages name it.
pub fn shown_key(key: &[u8]) -> String {
    match split_object_key(key) {
        Some((lane, id, _)) => format!("objects-1 {lane} {id:?}"),
        None => format!("objects-1 {}", data_encoding::HEXLOWER.encode(key)),
    }
}

/// Key of the `n`-th change of an object.
pub fn tail_key(object: &[u8], n: u32) -> Vec<u8> {
    [object, &n.to_be_bytes()].concat()
}

/// Key of a change that is not in its object: the change that it waits for, which is itself where it
/// was refused, and where it is.
pub fn left_out_key(object: ObjectKey, waits_for: ChangeHash, loc: Loc) -> Vec<u8> {
    let (author, seq, item) = (loc.author.to_be_bytes(), loc.seq.to_be_bytes(), loc.item);
    [&object.0[..], &waits_for.0, &author, &seq, &item.to_be_bytes()].concat()
}

/// Where a left-out change is, by its key.
pub fn left_out_loc(key: &[u8]) -> Option<Loc> {
    let (author, rest) = key.get(64..)?.split_first_chunk::<4>()?;
    let (seq, item) = rest.split_first_chunk::<8>()?;
    let (author, seq) = (u32::from_be_bytes(*author), u64::from_be_bytes(*seq));
    Some(Loc { author, seq, item: u16::from_be_bytes(item.try_into().ok()?) })
}

/// Key of an author who waits at an object.
pub fn stalled_key(object: ObjectKey, author: u32) -> Vec<u8> {
    [&object.0[..], &author.to_be_bytes()].concat()
}

/// Key of an object's expiry.
pub fn expiry_key(at: WallMillis, object: &[u8]) -> Vec<u8> {
    [&at.0.to_be_bytes(), object].concat()
}

const SEAL_BYTES: usize = 8;

fn seal(table: Bytes, key: &[u8], value: &[u8]) -> [u8; SEAL_BYTES] {
    use redb::TableHandle;
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.name().as_bytes());
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut seal = [0; SEAL_BYTES];
    seal.copy_from_slice(&hasher.finalize().as_bytes()[..SEAL_BYTES]);
    seal
}

/// The value under a seal, or the error that names the damaged place.
pub fn unseal<'a>(table: Bytes, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let damaged = || StoreError::damaged_value(table, key);
    let (value, found) = sealed.split_last_chunk::<SEAL_BYTES>().ok_or_else(damaged)?;
    let whole = *found == seal(table, key, value) || bug::active(Bug::SkipSeal);
    if whole { Ok(value) } else { Err(damaged()) }
}

/// Writes a value under its seal.
pub fn insert(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    definition: Bytes,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    let seal = seal(definition, key, value);
    let mut place = table.insert_reserve(key, value.len() + SEAL_BYTES)?;
    let bytes = place.as_mut();
    bytes[..value.len()].copy_from_slice(value);
    bytes[value.len()..].copy_from_slice(&seal);
    Ok(())
}

/// Encodes and writes a row.
pub fn insert_row<T: Serialize>(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    definition: Bytes,
    key: &[u8],
    row: &T,
) -> Result<(), StoreError> {
    insert(table, definition, key, &encode(row))
}

/// Reads a value, checks its seal, and hands it to `read`.
pub fn read_with<T>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    definition: Bytes,
    key: &[u8],
    read: impl FnOnce(&[u8]) -> T,
) -> Result<Option<T>, StoreError> {
    let Some(guard) = table.get(key)? else { return Ok(None) };
    Ok(Some(read(unseal(definition, key, guard.value())?)))
}

/// Reads and decodes a row.
pub fn read_row<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    definition: Bytes,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    let row = read_with(table, definition, key, |bytes| decode(definition, key, bytes))?;
    row.transpose()
}

/// Room for a row that is encoded: most are shorter.
const ROW_ROOM_BYTES: usize = 512;

/// Encodes a row.
pub fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    // Encoding plain data into a Vec has no way to fail.
    postcard::to_extend(row, Vec::with_capacity(ROW_ROOM_BYTES)).expect("a row encodes")
}

/// Decodes a row.
pub fn decode<T: DeserializeOwned>(
    table: Bytes,
    key: &[u8],
    bytes: &[u8],
) -> Result<T, StoreError> {
    postcard::from_bytes(bytes).map_err(|_| StoreError::damaged_value(table, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_keys_sort_by_id_then_life_and_split_again() {
        let keys = [("a", 1), ("a", 2), ("a/b", 1), ("ab", 1), ("b", 1)];
        let encoded: Vec<_> =
            keys.iter().map(|(id, life)| object_key(LaneId::Normal, id, *life)).collect();
        assert!(encoded.is_sorted());
        for (key, (id, life)) in encoded.iter().zip(keys) {
            assert_eq!(split_object_key(key), Some((LaneId::Normal, id, life)));
        }
    }

    #[test]
    fn rows_without_types_are_written_as_before_there_were_any() {
        let loc = Loc { author: 1, seq: 2, item: 3 };
        let mut row = ObjectRow {
            state: RowState::Live,
            kind: "k".into(),
            class: "c".into(),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            body: "{}".into(),
            conflicts: Vec::new(),
            author: 1,
            updated_at: WallMillis(5),
            confined: false,
            heads: vec![HeadRow { hash: ChangeHash([7; 32]), loc }],
            first: loc,
            changes: 1,
            saved_changes: 0,
            expires_at: Some(WallMillis(9)),
            types: LeafTypes::new(),
        };
        let old = encode(&(
            (&row.state, &row.kind, &row.class, &row.labels, &row.body, &row.conflicts),
            (row.author, row.updated_at, row.confined, &row.heads, row.first),
            (row.changes, row.saved_changes, row.expires_at),
        ));
        assert_eq!(encode(&row), old);
        assert_eq!(decode::<ObjectRow>(OBJECTS, b"k", &old).unwrap(), row);
        row.types.insert("/n".into(), crate::object::LeafType::Counter);
        let typed = encode(&row);
        assert!(typed.starts_with(&old) && typed.len() > old.len());
        assert_eq!(decode::<ObjectRow>(OBJECTS, b"k", &typed).unwrap(), row);
    }

    #[test]
    fn counts_written_before_absent_bodies_were_counted_do_not_say_none_are() {
        let row = CountsRow { live: 3, hidden: 2, conflicted: 1, quarantined: 0, absent: None };
        let old = encode(&(3u64, 2u64, 1u64, 0u64));
        assert_eq!(decode::<CountsRow>(COUNTS, b"k", &old).unwrap(), row);
        for absent in [None, Some(AbsentRow { withheld: 1, purged: 2, missing: 3 })] {
            let row = CountsRow { absent, ..row };
            assert_eq!(decode::<CountsRow>(COUNTS, b"k", &encode(&row)).unwrap(), row);
        }
    }

    #[test]
    fn seal_finds_a_flipped_bit_and_a_wrong_key() {
        let mut sealed = b"value".to_vec();
        sealed.extend_from_slice(&seal(META, b"k", b"value"));
        assert_eq!(unseal(META, b"k", &sealed).unwrap(), b"value");
        assert!(unseal(META, b"j", &sealed).is_err());
        assert!(unseal(ROSTER, b"k", &sealed).is_err());
        sealed[2] ^= 1;
        assert!(unseal(META, b"k", &sealed).is_err());
    }
}
