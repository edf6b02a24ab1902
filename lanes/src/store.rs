//! The store: journals, objects and everything else that a node keeps, in one redb file.
//!
//! A [`Store`] is the one writer. Its calls gather in a *turn*; [`Store::commit`] makes the turn
//! durable, all of it or nothing, with one sync, or two when it is large. What a turn produced must not be told to anyone
//! before its commit returned. [`Reader`]s see what was committed, and never wait for the writer.
//!
//! After a failed write the store latches: every later write is refused until it is opened again,
//! because what is in memory may no longer be what is on disk.
//!
//! The bytes are described in [`crate::tables`], the promises in `docs/STORAGE.md`.

mod apply;
mod barred;
mod documents;
mod entries;
mod expire;
mod forks;
mod journals;
mod left_out;
mod lives;
mod one_sync;
mod open;
mod overlay;
mod parked;
mod read;
mod receive;
mod step;
mod verify;
mod waiting;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::{Database, Table, WriteTransaction};

pub use documents::LARGE_DOCUMENTS_BYTES_MAX;
pub use journals::{DEVICE_JOURNALS_MAX, REVOKED_JOURNALS_MAX};
pub use open::{CACHE_BYTES, OpenOptions, STORE_VERSION, VERIFY_TAIL_ENTRIES};
pub use read::{
    Applied, AppliedOp, HistoryEntry, LIST_OBJECTS_MAX, LIST_ROWS_MAX, Page, Query, Reader,
    ShownObject, Snapshot, Visibility,
};
pub use receive::{Received, Run};
pub use step::{Advanced, WORK_BYTES_TARGET};
pub use verify::{DAMAGED_SHOWN_MAX, Damage, JournalFacts, LaneFacts};
pub use waiting::Waiting;
pub use write::{Action, BATCH_OPS_MAX, Op, Outcome, PutContent, REASON_BYTES_MAX};

use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::frontier::Frontier;
use crate::ids::{Author, DeviceId, EntryHash, Incarnation, MeshId, WallMillis};
use crate::lane::{LaneId, Replication};
use crate::tables::{self, CountsRow, JournalRow};
use documents::DocumentCache;
use forks::Forks;
use journals::Journals;
use parked::Parked;
use step::Begun;

/// The one writer of a store.
pub struct Store {
    db: Arc<Database>,
    device: DeviceId,
    mesh: Option<MeshId>,
    incarnation: Incarnation,
    authors: Authors,
    journals: Journals,
    forks: Forks,
    counts: BTreeMap<LaneId, CountsRow>,
    feed_next: u64,
    documents: DocumentCache,
    /// Journals whose next entry waits, and for which entry of which author.
    parked: Parked,
    barred: BTreeSet<DeviceId>,
    /// Entries that a call has begun to apply, in order.
    begun: BTreeMap<LaneId, Vec<Begun>>,
    /// Bytes of rows and documents that one call may work on: [`WORK_BYTES_TARGET`], but in tests.
    work_target: usize,
    /// How many of them are left to the present call.
    work_left: usize,
    /// The present call has brought changes to an object, as each must, however large that is.
    settled: bool,
    /// The most bytes that a step had in memory when it was written.
    #[cfg(test)]
    fullest: usize,
    /// Whether any change is left out of its object.
    leaves_out: bool,
    turn: Option<WriteTransaction>,
    /// How often a journal of each lane changed since the store was opened.
    versions: BTreeMap<LaneId, u64>,
    changed_journals: BTreeSet<(LaneId, u32)>,
    changed_counts: BTreeSet<LaneId>,
    latched: Option<String>,
}

/// The short numbers by which rows name authors.
#[derive(Debug, Default)]
struct Authors {
    by_number: Vec<Author>,
    numbers: BTreeMap<Author, u32>,
}

impl Authors {
    fn get(&self, number: u32) -> Option<Author> {
        self.by_number.get(number as usize).copied()
    }

    fn number(&self, author: &Author) -> Option<u32> {
        self.numbers.get(author).copied()
    }

    fn add(&mut self, author: Author) -> u32 {
        let number = self.by_number.len() as u32;
        self.by_number.push(author);
        self.numbers.insert(author, number);
        number
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("author", &self.author())
            .field("feed_next", &self.feed_next)
            .field("in_turn", &self.in_turn())
            .field("latched", &self.latched)
            .finish_non_exhaustive()
    }
}

/// What a commit made durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Committed {
    /// Journals that grew.
    pub journals: BTreeSet<(LaneId, Author)>,
    /// The number of the next feed row: what is below it can be read.
    pub feed_next: u64,
}

type BytesTable<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// The tables that writing and applying use, open in a turn.
struct Open<'t> {
    entries: BytesTable<'t>,
    objects: BytesTable<'t>,
    documents: BytesTable<'t>,
    tails: BytesTable<'t>,
    tombstones: BytesTable<'t>,
    feed: BytesTable<'t>,
    expiry: BytesTable<'t>,
    left_out: BytesTable<'t>,
    stalled: BytesTable<'t>,
}

impl<'t> Open<'t> {
    fn new(turn: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            entries: turn.open_table(tables::ENTRIES)?,
            objects: turn.open_table(tables::OBJECTS)?,
            documents: turn.open_table(tables::DOCUMENTS)?,
            tails: turn.open_table(tables::TAILS)?,
            tombstones: turn.open_table(tables::TOMBSTONES)?,
            feed: turn.open_table(tables::FEED)?,
            expiry: turn.open_table(tables::EXPIRY)?,
            left_out: turn.open_table(tables::LEFT_OUT)?,
            stalled: turn.open_table(tables::STALLED)?,
        })
    }
}

impl Store {
    /// The device that owns the store.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Who local writes are signed as.
    pub fn author(&self) -> Author {
        Author { device: self.device, incarnation: self.incarnation }
    }

    /// The mesh that local writes belong to.
    pub fn mesh(&self) -> Option<MeshId> {
        self.mesh
    }

    /// A handle that reads what was committed.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.db))
    }

    /// How far each journal of a lane is held; of a quarantined one only that it has two histories.
    /// Barred devices are left out.
    pub fn frontier(&self, lane: LaneId) -> Frontier {
        let rows = self.journals.of_lane(lane).filter(|(_, row)| row.held > 0);
        let tips = rows.filter_map(|(number, row)| Some((self.authors.get(number)?, row.tip())));
        Frontier(tips.filter(|(author, _)| !self.is_barred(&author.device)).collect())
    }

    /// A number that grows whenever [`Store::frontier`] or [`Store::journals`] of a lane change. It
    /// starts anew each time the store is opened.
    pub fn lane_version(&self, lane: LaneId) -> u64 {
        self.versions.get(&lane).copied().unwrap_or(0)
    }

    /// The state of one journal.
    pub fn journal(&self, lane: LaneId, author: &Author) -> Option<&JournalRow> {
        self.journals.get(lane, self.authors.number(author)?)
    }

    /// The journals of a lane with their authors.
    pub fn journals(&self, lane: LaneId) -> impl Iterator<Item = (Author, &JournalRow)> {
        let rows = self.journals.of_lane(lane);
        rows.filter_map(|(number, row)| Some((self.authors.get(number)?, row)))
    }

    /// How many journals a device has in a lane; see [`DEVICE_JOURNALS_MAX`].
    pub fn device_journals(&self, lane: LaneId, device: DeviceId) -> usize {
        self.journals.of_device(lane, device)
    }

    /// Whether this device has no journal left to begin in a lane: it can go on in the present one, if
    /// it has begun that.
    pub fn journals_spent(&self, lane: LaneId) -> bool {
        lane.definition().replication != Replication::LocalOnly
            && self.device_journals(lane, self.device) >= DEVICE_JOURNALS_MAX
    }

    /// Whether entries of a lane are held that are not applied yet.
    pub fn waits(&self, lane: LaneId) -> bool {
        self.journals.waiting(lane).next().is_some()
    }

    /// The counters of a lane.
    pub fn counts(&self, lane: LaneId) -> CountsRow {
        self.counts.get(&lane).copied().unwrap_or_default()
    }

    /// The number of the next feed row.
    pub fn feed_next(&self) -> u64 {
        self.feed_next
    }

    /// Why writing is refused, once a write has failed.
    pub fn latched(&self) -> Option<&str> {
        self.latched.as_deref()
    }

    /// Whether something waits for [`Store::commit`].
    pub fn in_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Whether a write failed: nothing is written any more, and nothing held in memory may be told.
    pub fn is_latched(&self) -> bool {
        self.latched.is_some()
    }

    /// Makes the turn durable. Without a turn it does nothing. After a failed write it fails.
    pub fn commit(&mut self) -> Result<Committed, StoreError> {
        // What a failed step dropped must not be told as done by a commit of nothing.
        if let Some(why) = &self.latched {
            return Err(StoreError::Latched(why.clone()));
        }
        let mut committed = Committed { feed_next: self.feed_next, ..Committed::default() };
        let Some(mut turn) = self.turn.take() else { return Ok(committed) };
        if bug::active(Bug::CommitWithoutSync) {
            let _ = turn.set_durability(redb::Durability::None);
        }
        self.latching(|store| {
            // A turn may be about neither, and to open a table takes a while too.
            let mut changed = std::mem::take(&mut store.changed_journals);
            if !changed.is_empty() {
                let mut journals = turn.open_table(tables::JOURNALS)?;
                while bug::active(Bug::LoseJournalRow) && changed.len() > 1 {
                    changed.pop_last();
                }
                for (lane, number) in changed {
                    let Some(row) = store.journals.get(lane, number) else { continue };
                    let key = tables::journal_key(lane, number);
                    tables::insert_row(&mut journals, tables::JOURNALS, &key, row)?;
                    committed.journals.extend(store.authors.get(number).map(|a| (lane, a)));
                }
            }
            let changed = std::mem::take(&mut store.changed_counts);
            if !changed.is_empty() {
                let mut counts = turn.open_table(tables::COUNTS)?;
                for lane in changed {
                    let row = store.counts.get(&lane).copied().unwrap_or_default();
                    tables::insert_row(&mut counts, tables::COUNTS, &[lane.code()], &row)?;
                }
            }
            turn.commit()?;
            Ok(())
        })?;
        Ok(committed)
    }

    /// Sets the mesh that local writes belong to.
    pub fn set_mesh(&mut self, mesh: MeshId) -> Result<(), StoreError> {
        self.put_meta(tables::meta::MESH, &mesh.0)?;
        self.mesh = Some(mesh);
        Ok(())
    }

    /// Starts a new incarnation: local writes go to new journals from here on.
    ///
    /// Needed as soon as a peer holds more of this device's own journal than this store does. Where
    /// [`Store::journals_spent`], the next write is refused.
    pub fn begin_incarnation(&mut self, random: u32) -> Result<(), StoreError> {
        let next = self.incarnation.next(random);
        self.put_meta(tables::meta::INCARNATION, &next.0.to_be_bytes())?;
        self.incarnation = next;
        Ok(())
    }

    /// Adds a record to the roster. The caller has checked it.
    pub fn put_roster_record(&mut self, record: &[u8]) -> Result<(), StoreError> {
        self.with_turn(|_, turn| {
            let mut roster = turn.open_table(tables::ROSTER)?;
            let next = match redb::ReadableTable::last(&roster)? {
                Some((key, _)) => {
                    key.value().try_into().map_or(0, |key| u32::from_be_bytes(key) + 1)
                }
                None => 0,
            };
            tables::insert(&mut roster, tables::ROSTER, &next.to_be_bytes(), record)
        })
    }

    /// Replaces the roster: the device has joined another mesh.
    pub fn replace_roster(&mut self, records: &[Vec<u8>]) -> Result<(), StoreError> {
        self.with_turn(|_, turn| {
            turn.delete_table(tables::ROSTER)?;
            let mut roster = turn.open_table(tables::ROSTER)?;
            for (number, record) in records.iter().enumerate() {
                let key = (number as u32).to_be_bytes();
                tables::insert(&mut roster, tables::ROSTER, &key, record)?;
            }
            Ok(())
        })
    }

    /// Remembers something about a peer under a name.
    pub fn put_peer_fact(
        &mut self,
        peer: DeviceId,
        name: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.with_turn(|_, turn| {
            let mut peers = turn.open_table(tables::PEERS)?;
            tables::insert(&mut peers, tables::PEERS, &peer_key(peer, name), value)
        })
    }

    fn put_meta(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.with_turn(|_, turn| {
            let mut meta = turn.open_table(tables::META)?;
            tables::insert(&mut meta, tables::META, name.as_bytes(), value)
        })
    }

    /// Runs a step inside the turn, beginning one if there is none.
    fn with_turn<T>(
        &mut self,
        step: impl FnOnce(&mut Self, &WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.latching(|store| {
            let turn = match store.turn.take() {
                Some(turn) => turn,
                None => {
                    let mut turn = store.db.begin_write()?;
                    // Peers choose our bytes, so a checksum alone must not decide what is whole.
                    turn.set_two_phase_commit(true);
                    turn
                }
            };
            let result = step(store, &turn)?;
            store.turn = Some(turn);
            Ok(result)
        })
    }

    /// Runs a step that touches the disk; if it fails, nothing is written any more.
    fn latching<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(why) = &self.latched {
            return Err(StoreError::Latched(why.clone()));
        }
        let result = step(self);
        if let Err(error) = &result {
            self.latched = Some(error.to_string());
            self.turn = None;
            self.documents.clear();
            self.begun.clear();
            self.forget_uncommitted();
        }
        result
    }

    /// Goes back to what the disk has, as far as it can still be read: what is told of journals and
    /// counts from here on is what is durable.
    fn forget_uncommitted(&mut self) {
        self.changed_journals.clear();
        self.changed_counts.clear();
        let Ok(snapshot) = self.reader().snapshot() else { return };
        if let Ok(counts) = snapshot.counts_rows() {
            self.counts = counts;
        }
        if let Ok(feed_next) = snapshot.feed_next() {
            self.feed_next = feed_next;
        }
        if let Ok(mesh) = snapshot.meta(tables::meta::MESH, MeshId) {
            self.mesh = mesh;
        }
        if let Ok(Some(incarnation)) = snapshot.meta(tables::meta::INCARNATION, u64::from_be_bytes)
        {
            self.incarnation = Incarnation(incarnation);
        }
        if let Ok(authors) = snapshot.authors() {
            self.authors = Authors::default();
            for author in authors {
                self.authors.add(author);
            }
        }
        if let Ok(journals) = snapshot.journal_rows() {
            self.journals = Journals::new(journals, &self.authors);
            for lane in LaneId::ALL {
                *self.versions.entry(lane).or_default() += 1;
            }
        }
    }

    /// The number of an author, given on first sight.
    fn author_number(
        &mut self,
        turn: &WriteTransaction,
        author: Author,
    ) -> Result<u32, StoreError> {
        if let Some(number) = self.authors.number(&author) {
            return Ok(number);
        }
        let number = self.authors.add(author);
        let mut authors = turn.open_table(tables::AUTHORS)?;
        tables::insert_row(&mut authors, tables::AUTHORS, &number.to_be_bytes(), &author)?;
        Ok(number)
    }

    fn journal_row(&self, lane: LaneId, number: u32) -> JournalRow {
        self.journals.get(lane, number).copied().unwrap_or(JournalRow {
            held: 0,
            held_hash: EntryHash::NONE,
            applied: 0,
            bytes: 0,
            waiting_since: WallMillis(0),
            forked: false,
        })
    }

    fn set_journal_row(&mut self, lane: LaneId, number: u32, row: JournalRow) {
        if let Some(device) = self.journals.set(lane, number, row, &self.authors) {
            // No other journal of it is taken in: who waits for one would wait for ever.
            let (journals, authors) = (&self.journals, &self.authors);
            let unknown = |author: &Author| {
                authors.number(author).is_none_or(|number| journals.get(lane, number).is_none())
            };
            self.parked.wake_device(lane, device, unknown);
        }
        *self.versions.entry(lane).or_default() += 1;
        self.changed_journals.insert((lane, number));
    }
}

fn peer_key(peer: DeviceId, name: &str) -> Vec<u8> {
    [&peer.0, name.as_bytes()].concat()
}

#[cfg(test)]
mod tests;
