//! Reading what was committed, beside the writer and without Automerge.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use redb::{Database, ReadTransaction, ReadableTable, ReadableTableMetadata, TableHandle};
use serde::Deserialize;

use super::apply::TombstoneBody;
use super::entries::read_stored;
use super::open::ReadSource;
use super::peer_key;
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash, DeviceId, EntryHash, WallMillis};
use crate::journal::{BodyParts, Entry};
use crate::lane::LaneId;
use crate::object::{FULL, Object};
use crate::tables::{
    self, Bytes, CountsRow, FeedRow, JournalRow, Loc, ObjectRow, RowState, TombstoneRow,
};

/// Rows that one page of a list looks at, at most: a page that finds little ends all the same.
pub const LIST_ROWS_MAX: usize = 20_000;
/// Objects on one page of a list, at most.
pub const LIST_OBJECTS_MAX: usize = 1_000;

/// Who is shown as the author of what shows nothing.
const NOBODY: DeviceId = DeviceId([0; 32]);

/// A handle that reads what was committed. Cheap to clone; never waits for the writer.
#[derive(Clone, Debug)]
pub struct Reader {
    source: ReadSource,
}

/// The store as it was at one commit.
pub struct Snapshot {
    txn: ReadTransaction,
    /// Tables that were opened, in the order of [`tables::ALL`].
    opened: [OnceLock<ReadTable>; tables::ALL.len()],
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

/// An object as reads show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShownObject {
    /// Its lane.
    pub lane: LaneId,
    /// Its id.
    pub id: String,
    /// Its life.
    pub life: u32,
    /// The device that changed it last; nought where it shows nothing.
    pub author: DeviceId,
    /// What it says.
    pub row: ObjectRow,
}

impl ShownObject {
    /// The hashes of the changes that nothing follows, in order.
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.row.heads.iter().map(|head| head.hash).collect()
    }
}

/// Why an object is not shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// There never was one here.
    Absent,
    /// It was deleted.
    Deleted {
        /// By whom.
        by: DeviceId,
        /// When.
        at: WallMillis,
        /// Why.
        reason: String,
    },
    /// Its time to live has ended.
    Expired,
    /// It is shown.
    Shown(Box<ShownObject>),
}

/// Which objects a list is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// Ids that begin so.
    pub prefix: String,
    /// Objects of this kind only.
    pub kind: Option<String>,
    /// Objects with all of these labels only.
    pub labels: BTreeMap<String, String>,
    /// Objects on the page, at most [`LIST_OBJECTS_MAX`].
    pub limit: usize,
    /// Ids after this one only: the cursor of the page before.
    pub after: Option<String>,
}

/// A part of a list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Its objects, by id.
    pub objects: Vec<ShownObject>,
    /// Where the next page starts; `None` when this was the last.
    pub next: Option<String>,
}

/// What an applied change did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppliedOp {
    /// It created or changed an object.
    Put,
    /// It deleted one.
    Delete,
    /// The object's time to live ended.
    Expire,
    /// What it did cannot be read any more, since the store is damaged there: it may have been
    /// anything, to any object of the lane. The id is empty.
    Damaged,
}

/// One applied change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Where it stands: feed row and place in it.
    pub cursor: (u64, u32),
    /// What it did.
    pub op: AppliedOp,
    /// The object's lane.
    pub lane: LaneId,
    /// The object's id.
    pub id: String,
    /// The object's life.
    pub life: u32,
    /// The object as it is now, when it is shown.
    pub object: Option<ShownObject>,
}

/// One change of an object, with the entry that carries it.
#[derive(Clone, PartialEq, Debug)]
pub struct HistoryEntry {
    /// The change.
    pub change: ChangeHash,
    /// Who wrote it.
    pub author: Author,
    /// The entry's place in the journal.
    pub seq: u64,
    /// The entry's hash.
    pub entry: EntryHash,
    /// The author's wall clock.
    pub wall: WallMillis,
    /// The entry's signature.
    pub signature: crate::signature::Signature,
    /// The entry's own signature verifies, and its header names this very change.
    pub verified: bool,
}

impl Reader {
    pub(super) fn new(db: Arc<Database>) -> Self {
        Self { source: ReadSource::Writer(db) }
    }

    pub(super) fn new_read_only(db: Arc<redb::ReadOnlyDatabase>) -> Self {
        Self { source: ReadSource::ReadOnly(db) }
    }

    /// The store as it is now.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let opened = std::array::from_fn(|_| OnceLock::new());
        Ok(Snapshot { txn: self.source.begin_read()?, opened })
    }
}

type ReadTable = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

impl Snapshot {
    pub(super) fn table(&self, table: Bytes) -> Result<&ReadTable, StoreError> {
        let is = |known: &Bytes| known.name() == table.name();
        // Every table is listed there.
        let at = tables::ALL.iter().position(is).expect("the table is known");
        if let Some(opened) = self.opened[at].get() {
            return Ok(opened);
        }
        let table = self.txn.open_table(table)?;
        Ok(self.opened[at].get_or_init(|| table))
    }

    /// One object, or why it is not shown.
    pub fn object(
        &self,
        lane: LaneId,
        id: &str,
        now: WallMillis,
    ) -> Result<Visibility, StoreError> {
        let life = self.current_life(lane, id)?;
        let key = tables::object_key(lane, id, life);
        let objects = self.table(tables::OBJECTS)?;
        let row: Option<ObjectRow> = tables::read_row(objects, tables::OBJECTS, &key)?;
        let Some(row) = row else {
            return self.grave(&tables::object_key(lane, id, life - 1));
        };
        if row.state == RowState::Hidden {
            return self.grave(&key);
        }
        if is_expired(&row, now) {
            return Ok(Visibility::Expired);
        }
        Ok(Visibility::Shown(Box::new(self.show(&key, row)?)))
    }

    fn grave(&self, key: &[u8]) -> Result<Visibility, StoreError> {
        let graves = self.table(tables::TOMBSTONES)?;
        let row: Option<TombstoneRow> = tables::read_row(graves, tables::TOMBSTONES, key)?;
        let Some(row) = row else { return Ok(Visibility::Absent) };
        let by = self.author(row.author)?.device;
        Ok(Visibility::Deleted { by, at: row.requested_at, reason: row.reason })
    }

    fn show(&self, key: &[u8], row: ObjectRow) -> Result<ShownObject, StoreError> {
        let (lane, id, life) = tables::split_object_key(key)
            .ok_or_else(|| StoreError::damaged_value(tables::OBJECTS, key))?;
        // What came first to an object that has no room is not the same on every device.
        let is_full = matches!(&row.state, RowState::Quarantined(why) if why == FULL);
        let author = if is_full { NOBODY } else { self.author(row.author)?.device };
        Ok(ShownObject { lane, id: id.to_owned(), life, author, row })
    }

    /// A page of objects in the order of their ids.
    pub fn list(&self, lane: LaneId, query: &Query, now: WallMillis) -> Result<Page, StoreError> {
        let objects = self.table(tables::OBJECTS)?;
        let mut start = vec![lane.code()];
        start.extend_from_slice(query.prefix.as_bytes());
        if let Some(after) = &query.after {
            let after = tables::object_key(lane, after, u32::MAX);
            start = start.max(after);
        }
        let mut page = Page::default();
        let limit = query.limit.clamp(1, LIST_OBJECTS_MAX);
        let mut from = Bound::Excluded(start);
        let mut last_id = String::new();
        let mut looked = 0;
        // Only one life of an id is shown; where others lie before or after it, they are passed over.
        'passed: loop {
            let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
            for found in objects.range::<&[u8]>(range)? {
                let (key, value) = found?;
                let key = key.value();
                let Some((found_lane, id, life)) = tables::split_object_key(key) else {
                    return Err(StoreError::damaged_value(tables::OBJECTS, key));
                };
                if found_lane != lane || !id.starts_with(&query.prefix) {
                    return Ok(page);
                }
                if id != last_id {
                    if page.objects.len() >= limit || looked >= LIST_ROWS_MAX {
                        page.next = Some(last_id);
                        return Ok(page);
                    }
                    last_id = id.to_owned();
                }
                looked += 1;
                let row: Result<ObjectRow, StoreError> =
                    tables::unseal(tables::OBJECTS, key, value.value())
                        .and_then(|bytes| tables::decode(tables::OBJECTS, key, bytes));
                // A first life that is not hidden is the one, and most are.
                let is_hidden = |row: &ObjectRow| row.state == RowState::Hidden;
                if life > 1 || row.as_ref().map_or(true, is_hidden) {
                    let current = self.current_life(lane, id)?;
                    if life < current {
                        from = Bound::Included(tables::object_key(lane, id, current));
                        continue 'passed;
                    }
                    if life > current {
                        from = Bound::Excluded(tables::object_key(lane, id, u32::MAX));
                        continue 'passed;
                    }
                }
                let object = match row {
                    Ok(row) if is_hidden(&row) || is_expired(&row, now) => continue,
                    Ok(row) => self.show(key, row)?,
                    // It is told of in its place; all others are shown.
                    Err(error) => damaged_object(lane, id, life, error.to_string()),
                };
                let row = &object.row;
                if query.kind.as_ref().is_none_or(|kind| *kind == row.kind)
                    && query.labels.iter().all(|(name, value)| row.labels.get(name) == Some(value))
                {
                    page.objects.push(object);
                }
            }
            return Ok(page);
        }
    }

    /// What was applied after a cursor, oldest first: about `limit` changes.
    pub fn feed(
        &self,
        after: Option<(u64, u32)>,
        limit: usize,
        now: WallMillis,
    ) -> Result<Vec<Applied>, StoreError> {
        let feed = self.table(tables::FEED)?;
        let start = after.map_or(0, |(row, _)| row);
        let mut applied = Vec::new();
        for found in feed.range::<&[u8]>(start.to_be_bytes().as_slice()..)? {
            if applied.len() >= limit {
                break;
            }
            let (key, value) = found?;
            let number = key.value().try_into().map(u64::from_be_bytes);
            let number =
                number.map_err(|_| StoreError::damaged_value(tables::FEED, key.value()))?;
            let row = tables::unseal(tables::FEED, key.value(), value.value())
                .and_then(|bytes| tables::decode::<FeedRow>(tables::FEED, key.value(), bytes));
            let lanes = row.as_ref().map_or(LaneId::ALL.to_vec(), |row| vec![row.lane()]);
            let of_row = |row| self.feed_row(number, &row, now, after, limit, &mut applied);
            match row.and_then(of_row) {
                Ok(()) => {}
                // Whoever follows the feed goes on, and knows that something was missed.
                Err(StoreError::Damaged { .. }) => {
                    let damaged = (0..).zip(lanes).map(|(index, lane)| Applied {
                        cursor: (number, index),
                        op: AppliedOp::Damaged,
                        lane,
                        id: String::new(),
                        life: 0,
                        object: None,
                    });
                    applied.extend(damaged.filter(|applied| after < Some(applied.cursor)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(applied)
    }

    fn feed_row(
        &self,
        number: u64,
        row: &FeedRow,
        now: WallMillis,
        after: Option<(u64, u32)>,
        limit: usize,
        applied: &mut Vec<Applied>,
    ) -> Result<(), StoreError> {
        let (lane, author, seq) = match row {
            FeedRow::Shown { lane, id, life } => {
                let (op, id, cursor) = (AppliedOp::Put, id.clone(), (number, 0));
                if after >= Some(cursor) {
                    return Ok(());
                }
                let object = self.shown_life(*lane, &id, *life, now)?;
                applied.push(Applied { cursor, op, lane: *lane, id, life: *life, object });
                return Ok(());
            }
            FeedRow::Expired { lane, id, life } => {
                let (op, id) = (AppliedOp::Expire, id.clone());
                let cursor = (number, 0);
                if after >= Some(cursor) {
                    return Ok(());
                }
                applied.push(Applied { cursor, op, lane: *lane, id, life: *life, object: None });
                return Ok(());
            }
            FeedRow::Entry { lane, author, seq } => (*lane, *author, *seq),
        };
        let entries = self.table(tables::ENTRIES)?;
        let key = tables::entry_key(lane, author, seq);
        let bytes = tables::read_with(entries, tables::ENTRIES, &key, <[u8]>::to_vec)?;
        let Some(bytes) = bytes else { return Ok(()) };
        let entry = read_stored(&key, &bytes)?;
        for index in 0..entry.bodies.len() {
            let Some(BodyParts { life, id, .. }) = entry.parts(index) else { continue };
            // What was delivered already need not be read again.
            if after >= Some((number, 2 * index as u32 + 1)) {
                continue;
            }
            // The next read begins within the row.
            if applied.len() >= limit {
                return Ok(());
            }
            let object = self.shown_life(lane, id, life, now)?;
            let cursor = (number, 2 * index as u32);
            let target = (lane == LaneId::Tombstone).then(|| deletion(&entry, index)).flatten();
            let id = id.to_owned();
            if after < Some(cursor) {
                applied.push(Applied { cursor, op: AppliedOp::Put, lane, id, life, object });
            }
            if let Some(target) = target
                && let Ok(lane) = target.lane.parse()
                && self.is_buried(lane, &target)?
            {
                applied.push(Applied {
                    cursor: (number, 2 * index as u32 + 1),
                    op: AppliedOp::Delete,
                    lane,
                    id: target.id,
                    life: target.life,
                    object: None,
                });
            }
        }
        Ok(())
    }

    /// An object as it is now, if this life of it is shown.
    fn shown_life(
        &self,
        lane: LaneId,
        id: &str,
        life: u32,
        now: WallMillis,
    ) -> Result<Option<ShownObject>, StoreError> {
        Ok(match self.object(lane, id, now) {
            Ok(Visibility::Shown(object)) if object.life == life => Some(*object),
            // Whoever follows the feed is not stopped by one object that cannot be read.
            Ok(_) | Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        })
    }

    /// Whether what a tombstone names was deleted by it: not everything may be.
    fn is_buried(&self, lane: LaneId, target: &TombstoneBody) -> Result<bool, StoreError> {
        let key = tables::object_key(lane, &target.id, target.life);
        Ok(self.table(tables::TOMBSTONES)?.get(key.as_slice())?.is_some())
    }

    /// The number of the next feed row.
    pub fn feed_next(&self) -> Result<u64, StoreError> {
        let feed = self.table(tables::FEED)?;
        let Some((key, _)) = feed.last()? else { return Ok(0) };
        let number = key.value().try_into().map(u64::from_be_bytes);
        Ok(number.map_err(|_| StoreError::damaged_value(tables::FEED, key.value()))? + 1)
    }

    /// The bytes of one entry.
    pub fn entry(
        &self,
        lane: LaneId,
        author: &Author,
        seq: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(number) = self.author_number(author)? else { return Ok(None) };
        let entries = self.table(tables::ENTRIES)?;
        let key = tables::entry_key(lane, number, seq);
        tables::read_with(entries, tables::ENTRIES, &key, <[u8]>::to_vec)
    }

    /// Consecutive entries of a journal from one place on: at least one if there is one, then as
    /// many as stay below `bytes_target` and `entries_max`. They end before a damaged one, which is
    /// an error where it is the first.
    pub fn entries(
        &self,
        lane: LaneId,
        author: &Author,
        from: u64,
        bytes_target: usize,
        entries_max: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        match self.author_number(author)? {
            Some(number) => self.entries_of(lane, number, from, bytes_target, entries_max),
            None => Ok(Vec::new()),
        }
    }

    fn entries_of(
        &self,
        lane: LaneId,
        number: u32,
        from: u64,
        bytes_target: usize,
        entries_max: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let entries = self.table(tables::ENTRIES)?;
        let first = tables::entry_key(lane, number, from);
        let last = tables::entry_key(lane, number, u64::MAX);
        let mut found = Vec::new();
        let mut bytes_sum = 0;
        for row in entries.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
            let (key, value) = row?;
            let bytes = match tables::unseal(tables::ENTRIES, key.value(), value.value()) {
                Ok(bytes) => bytes,
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            };
            bytes_sum += bytes.len();
            if !found.is_empty() && (bytes_sum > bytes_target || found.len() >= entries_max) {
                break;
            }
            found.push(bytes.to_vec());
        }
        Ok(found)
    }

    /// The changes of an object, in the order in which they were applied here, the last `limit`.
    pub fn history(
        &self,
        lane: LaneId,
        id: &str,
        life: u32,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut history = Vec::new();
        for loc in self.change_locs(lane, id, life, limit)? {
            let entries = self.table(tables::ENTRIES)?;
            let key = tables::entry_key(lane, loc.author, loc.seq);
            let bytes = tables::read_with(entries, tables::ENTRIES, &key, <[u8]>::to_vec)?;
            let bytes = bytes.ok_or_else(|| StoreError::damaged_value(tables::ENTRIES, &key))?;
            let entry = read_stored(&key, &bytes)?;
            let item = entry
                .header
                .items
                .get(usize::from(loc.item))
                .ok_or_else(|| StoreError::damaged_value(tables::ENTRIES, &key))?;
            history.push(HistoryEntry {
                change: item.change,
                author: entry.header.author,
                seq: entry.header.seq,
                entry: entry.hash,
                wall: entry.header.wall,
                signature: entry.signature,
                verified: entry.verify_signature()
                    && entry.check_bodies().is_ok()
                    && item.key == crate::ids::ObjectKey::new(lane, id, life),
            });
        }
        Ok(history)
    }

    /// The document of an object, with its past.
    pub fn document(
        &self,
        lane: LaneId,
        id: &str,
        life: u32,
    ) -> Result<Option<Object>, StoreError> {
        let key = tables::object_key(lane, id, life);
        let objects = self.table(tables::OBJECTS)?;
        let row: Option<ObjectRow> = tables::read_row(objects, tables::OBJECTS, &key)?;
        let Some(row) = row.filter(|row| row.changes > 0) else { return Ok(None) };
        let documents = self.table(tables::DOCUMENTS)?;
        let (tails, entries) = (self.table(tables::TAILS)?, self.table(tables::ENTRIES)?);
        let author = |number| self.author(number);
        super::documents::rebuild(documents, tails, entries, &author, &key, &row).map(Some)
    }

    fn change_locs(
        &self,
        lane: LaneId,
        id: &str,
        life: u32,
        limit: usize,
    ) -> Result<Vec<Loc>, StoreError> {
        let key = tables::object_key(lane, id, life);
        let objects = self.table(tables::OBJECTS)?;
        let row: Option<ObjectRow> = tables::read_row(objects, tables::OBJECTS, &key)?;
        let Some(row) = row else { return Ok(Vec::new()) };
        let tails = self.table(tables::TAILS)?;
        let from = row.changes - row.changes.min(u32::try_from(limit).unwrap_or(u32::MAX)) + 1;
        let mut locs = Vec::new();
        for n in from..=row.changes {
            locs.push(if n == 1 {
                row.first
            } else {
                let tail = tables::tail_key(&key, n);
                tables::read_row(tails, tables::TAILS, &tail)?
                    .ok_or_else(|| StoreError::damaged_value(tables::TAILS, &tail))?
            });
        }
        Ok(locs)
    }

    /// The device that made the changes of an Automerge actor.
    pub fn device_of_actor(&self, actor: &[u8; 16]) -> Result<Option<DeviceId>, StoreError> {
        Ok(self.authors()?.iter().find(|author| author.actor() == *actor).map(|a| a.device))
    }

    /// The roster's records, parents first.
    pub fn roster_records(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let roster = self.table(tables::ROSTER)?;
        let mut records = Vec::new();
        for row in roster.iter()? {
            let (key, value) = row?;
            records.push(tables::unseal(tables::ROSTER, key.value(), value.value())?.to_vec());
        }
        Ok(records)
    }

    /// What is remembered about a peer under a name.
    pub fn peer_fact(&self, peer: DeviceId, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let peers = self.table(tables::PEERS)?;
        tables::read_with(peers, tables::PEERS, &peer_key(peer, name), <[u8]>::to_vec)
    }

    /// How many proofs of equivocation are kept.
    pub fn evidence_len(&self) -> Result<u64, StoreError> {
        Ok(self.table(tables::EVIDENCE)?.len()?)
    }

    /// How far each journal of a lane is held, as [`super::Store::frontier`] says it.
    pub fn frontier(&self, lane: LaneId) -> Result<crate::frontier::Frontier, StoreError> {
        let journals = self.journals(lane)?.into_iter();
        let held = journals.filter(|(_, row)| row.held > 0);
        Ok(crate::frontier::Frontier(held.map(|(author, row)| (author, row.tip())).collect()))
    }

    /// The journals of a lane with their authors.
    pub fn journals(&self, lane: LaneId) -> Result<Vec<(Author, JournalRow)>, StoreError> {
        let authors = self.authors()?;
        let rows = self.journal_rows()?;
        let rows = rows.range((lane, 0)..=(lane, u32::MAX));
        Ok(rows
            .filter_map(|((_, number), row)| Some((*authors.get(*number as usize)?, *row)))
            .collect())
    }

    /// The counters of a lane.
    pub fn counts(&self, lane: LaneId) -> Result<CountsRow, StoreError> {
        Ok(self.counts_row(lane)?.unwrap_or_default())
    }

    /// The counters of a lane as they are kept. Where they are damaged they are made anew.
    fn counts_row(&self, lane: LaneId) -> Result<Option<CountsRow>, StoreError> {
        let table = self.table(tables::COUNTS)?;
        match tables::read_row(table, tables::COUNTS, &[lane.code()]) {
            Err(StoreError::Damaged { .. }) => self.count_anew(lane).map(Some),
            read => read,
        }
    }

    /// The device that owns the store.
    pub fn device(&self) -> Result<DeviceId, StoreError> {
        let device = self.meta(tables::meta::DEVICE, DeviceId)?;
        device.ok_or_else(|| StoreError::inconsistent("meta-1", "device is missing"))
    }

    pub(super) fn journal_rows(&self) -> Result<BTreeMap<(LaneId, u32), JournalRow>, StoreError> {
        let table = self.table(tables::JOURNALS)?;
        let mut rows = BTreeMap::new();
        for row in table.iter()? {
            let (key, value) = row?;
            let key = key.value();
            let bytes = tables::unseal(tables::JOURNALS, key, value.value())?;
            let name = key
                .split_first()
                .and_then(|(lane, number)| {
                    Some((LaneId::from_code(*lane)?, u32::from_be_bytes(number.try_into().ok()?)))
                })
                .ok_or_else(|| StoreError::damaged_value(tables::JOURNALS, key))?;
            rows.insert(name, tables::decode(tables::JOURNALS, key, bytes)?);
        }
        Ok(rows)
    }

    pub(super) fn counts_rows(&self) -> Result<BTreeMap<LaneId, CountsRow>, StoreError> {
        let mut rows = BTreeMap::new();
        for lane in LaneId::ALL {
            rows.extend(self.counts_row(lane)?.map(|row| (lane, row)));
        }
        Ok(rows)
    }

    pub(super) fn next_expiry(&self) -> Result<Option<WallMillis>, StoreError> {
        let table = self.table(tables::EXPIRY)?;
        let first = table.first()?;
        Ok(first.and_then(|(key, _)| super::expire::time_of(key.value())))
    }

    fn author(&self, number: u32) -> Result<Author, StoreError> {
        let table = self.table(tables::AUTHORS)?;
        let key = number.to_be_bytes();
        tables::read_row(table, tables::AUTHORS, &key)?
            .ok_or_else(|| StoreError::damaged_value(tables::AUTHORS, &key))
    }

    fn author_number(&self, author: &Author) -> Result<Option<u32>, StoreError> {
        // There are few authors: devices times restores.
        Ok(self.authors()?.iter().position(|known| known == author).map(|number| number as u32))
    }
}

/// What an item of an entry deletes. Its record may say something else by now, since every member
/// can write there; what was deleted stays so.
fn deletion(entry: &Entry<'_>, index: usize) -> Option<TombstoneBody> {
    let (item, parts) = (entry.header.items.get(index)?, entry.parts(index)?);
    let actor = entry.header.author.actor();
    let view = Object::read_creation(parts.change, item.change, actor).ok().flatten()?;
    TombstoneBody::deserialize(view.content.body()).ok()
}

/// What stands in a list for an object whose row is damaged.
fn damaged_object(lane: LaneId, id: &str, life: u32, why: String) -> ShownObject {
    let row = ObjectRow {
        state: RowState::Quarantined(why),
        kind: String::new(),
        class: String::new(),
        labels: BTreeMap::new(),
        body: "null".to_owned(),
        conflicts: Vec::new(),
        author: 0,
        updated_at: WallMillis(0),
        confined: true,
        heads: Vec::new(),
        first: Loc { author: 0, seq: 0, item: 0 },
        changes: 0,
        saved_changes: 0,
        expires_at: None,
        types: BTreeMap::new(),
    };
    ShownObject { lane, id: id.to_owned(), life, author: NOBODY, row }
}

impl super::Store {
    /// What was committed of a journal, as [`Snapshot::entries`] gives it.
    pub fn entries(
        &self,
        lane: LaneId,
        author: &Author,
        from: u64,
        bytes_target: usize,
        entries_max: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        // The writer knows the authors' numbers, for which a snapshot looks through them all.
        match self.authors.number(author) {
            Some(number) => {
                let snapshot = self.reader().snapshot()?;
                snapshot.entries_of(lane, number, from, bytes_target, entries_max)
            }
            None => Ok(Vec::new()),
        }
    }
}

fn is_expired(row: &ObjectRow, now: WallMillis) -> bool {
    row.expires_at.is_some_and(|at| at <= now)
}

/// Reads entry bytes that a snapshot returned.
pub(super) fn parse<'a>(lane: LaneId, seq: u64, bytes: &'a [u8]) -> Result<Entry<'a>, StoreError> {
    Entry::read(bytes).map_err(|error| {
        StoreError::inconsistent(format!("entries-1 {lane} entry {seq}"), error.to_string())
    })
}
