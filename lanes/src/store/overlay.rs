//! The objects that a step touches: read once, changed in memory, written once.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use super::{Open, Snapshot, Store};
use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash, DeviceId, WallMillis};
use crate::journal::Body;
use crate::lane::LaneId;
use crate::object::{Conflict, ConflictValue, Object, View};
use crate::tables::{
    self, ConflictRow, ConflictValueRow, CountsRow, FeedRow, HeadRow, Loc, ObjectRow, RowState,
    TombstoneRow,
};

/// Objects by key, as a step leaves them.
#[derive(Default)]
pub(super) struct Overlay {
    touched: BTreeMap<Vec<u8>, Touched>,
    /// Deletions that the step records, by the key of what they delete.
    graves: BTreeMap<Vec<u8>, TombstoneRow>,
    /// Lives whose time has come by these deletions.
    come: Vec<Vec<u8>>,
    /// How many lives of an id have ended at least, by the key of its life 0: no deletion is undone.
    pub(super) ended: BTreeMap<Vec<u8>, u32>,
    /// Lives that were walked over to find out.
    pub(super) walked: usize,
    /// Bytes of changes, rows and documents that it holds, about.
    bytes: usize,
}

/// Bytes of changes, rows and documents after which a step is written.
pub(super) const STEP_BYTES_TARGET: usize = 4 * 1024 * 1024;
/// Objects after which it is.
const STEP_OBJECTS_TARGET: usize = 4_096;

/// One object within a step.
pub(super) struct Touched {
    /// What it counted as before the step.
    before: CountsRow,
    /// The row as it is now.
    pub(super) row: Option<ObjectRow>,
    /// Changes that the step added, by their number.
    pub(super) tail: Vec<(u32, Loc)>,
    /// The document, when it was needed; it agrees with the row.
    pub(super) document: Option<Object>,
    /// Changes that the row does not show yet. They are applied before the step is written.
    pub(super) pending: Vec<Pending>,
    /// What is wrong with its row as it lies in the store: it is neither used nor written.
    pub(super) damaged: Option<String>,
}

/// What became of a step that was written.
pub(super) struct Written {
    /// Changes that are left for another call.
    pub(super) left: Vec<Loc>,
    /// Lives that came to light.
    pub(super) shown: Vec<Vec<u8>>,
}

/// A change that arrives at an object.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) hash: ChangeHash,
    pub(super) loc: Loc,
    pub(super) wall: WallMillis,
    pub(super) confined: bool,
}

/// A change that waits to be applied together with others of its object.
pub(super) struct Pending {
    pub(super) arrival: Arrival,
    pub(super) author: Author,
    /// Its class by its entry's header.
    pub(super) class: String,
    pub(super) change: Vec<u8>,
}

impl Overlay {
    /// The object under a key.
    pub(super) fn touch(
        &mut self,
        open: &Open<'_>,
        key: &[u8],
    ) -> Result<&mut Touched, StoreError> {
        if !self.touched.contains_key(key) {
            let read = tables::read_row::<ObjectRow>(&open.objects, tables::OBJECTS, key);
            let (row, damaged) = match read {
                Ok(row) => (row, None),
                // One object that cannot be read is no reason to stop all others.
                Err(StoreError::Damaged { place, what }) => {
                    (None, Some(format!("{place}: {what}")))
                }
                Err(error) => return Err(error),
            };
            let before = match damaged {
                None => count_at(&open.tombstones, key, row.as_ref())?,
                Some(_) => count_damaged(&open.tombstones, key)?,
            };
            self.bytes += row.as_ref().map_or(0, row_bytes) + key.len();
            let (tail, pending) = (Vec::new(), Vec::new());
            let touched = Touched { before, row, tail, document: None, pending, damaged };
            self.touched.insert(key.to_vec(), touched);
        }
        // Inserted above when it was not there.
        Ok(self.touched.get_mut(key).expect("the key is present"))
    }

    /// Whether it is time to write the step and to begin another.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= STEP_BYTES_TARGET || self.touched.len() >= STEP_OBJECTS_TARGET
    }

    /// Notes that it holds so many bytes more.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Bytes of changes, rows and documents that it holds, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The object under a key that was touched before.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Touched> {
        self.touched.get_mut(key)
    }

    /// The record of an object's deletion, if it was deleted.
    pub(super) fn grave(
        &self,
        open: &Open<'_>,
        key: &[u8],
    ) -> Result<Option<TombstoneRow>, StoreError> {
        match self.graves.get(key) {
            Some(grave) => Ok(Some(grave.clone())),
            None => tables::read_row(&open.tombstones, tables::TOMBSTONES, key),
        }
    }

    /// Whether an object was deleted, also where the record of it is damaged.
    pub(super) fn is_buried(&self, open: &Open<'_>, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.buries(key) || open.tombstones.get(key)?.is_some())
    }

    /// Whether the step itself deletes an object.
    pub(super) fn buries(&self, key: &[u8]) -> bool {
        self.graves.contains_key(key)
    }

    /// Records a deletion.
    pub(super) fn bury(&mut self, key: Vec<u8>, grave: TombstoneRow) {
        self.graves.insert(key, grave);
    }

    /// Notes that a life is the one that is shown from here on.
    pub(super) fn note_come(&mut self, key: Vec<u8>) {
        self.come.push(key);
    }

    /// The latest life of an object that the step itself has touched, and 0 if none.
    pub(super) fn latest_life(&self, lane: LaneId, id: &str) -> u32 {
        let mut found = self.touched.range(lives(lane, id)).rev();
        latest(found.find(|(_, touched)| touched.row.is_some()).map(|(key, _)| key))
    }

    /// The latest life of an object that the step itself deletes, and 0 if none.
    pub(super) fn latest_grave(&self, lane: LaneId, id: &str) -> u32 {
        latest(self.graves.range(lives(lane, id)).next_back().map(|(key, _)| key))
    }
}

fn lives(lane: LaneId, id: &str) -> std::ops::RangeInclusive<Vec<u8>> {
    tables::object_key(lane, id, 0)..=tables::object_key(lane, id, u32::MAX)
}

fn latest(key: Option<&Vec<u8>>) -> u32 {
    key.and_then(|key| Some(tables::split_object_key(key)?.2)).unwrap_or(0)
}

impl Touched {
    /// Takes changes in, in the order in which they were applied: the row shows the view that
    /// they led to, and the document has these heads.
    pub(super) fn absorb(
        &mut self,
        devices: impl Fn(u32) -> Option<DeviceId>,
        arrivals: &[Arrival],
        heads: &[ChangeHash],
        view: &View,
    ) {
        let Some(first) = arrivals.first() else { return };
        let before = self.row.take();
        let (mut author, mut updated_at) = match &before {
            // A row without a change says who was refused first, not who wrote.
            Some(row) if row.changes > 0 => (row.author, row.updated_at),
            _ => (first.loc.author, first.wall),
        };
        let mut changes = before.as_ref().map_or(0, |row| row.changes);
        // What was refused says nothing of what is in it.
        let mut confined = before.as_ref().is_some_and(|row| row.changes > 0 && row.confined);
        for arrival in arrivals {
            // The same on every device, in whatever order changes arrive.
            let later =
                (updated_at, devices(author)) <= (arrival.wall, devices(arrival.loc.author));
            if later || bug::active(Bug::WinnerByArrival) {
                (author, updated_at) = (arrival.loc.author, arrival.wall);
            }
            changes += 1;
            confined |= arrival.confined;
            self.tail.push((changes, arrival.loc));
        }
        let heads: BTreeSet<&ChangeHash> = heads.iter().collect();
        let known = before.iter().flat_map(|row| row.heads.iter().copied());
        let arrived =
            arrivals.iter().map(|arrival| HeadRow { hash: arrival.hash, loc: arrival.loc });
        let mut head_rows: Vec<HeadRow> =
            known.chain(arrived).filter(|head| heads.contains(&head.hash)).collect();
        head_rows.sort_by_key(|head| head.hash);
        head_rows.dedup_by_key(|head| head.hash);
        let content = &view.content;
        self.row = Some(ObjectRow {
            state: before
                .as_ref()
                .filter(|_| !bug::active(Bug::ShowHidden))
                .map_or(RowState::Live, |row| row.state.clone()),
            kind: content.kind().to_owned(),
            class: content.class().to_owned(),
            labels: content.labels().clone(),
            body: json(content.body()),
            conflicts: view.conflicts.iter().map(conflict_row).collect(),
            author,
            updated_at,
            confined,
            heads: head_rows,
            first: before.as_ref().filter(|row| row.changes > 0).map_or(first.loc, |row| row.first),
            changes,
            saved_changes: before.as_ref().map_or(0, |row| row.saved_changes),
            expires_at: before.as_ref().and_then(|row| row.expires_at),
            types: content.types().clone(),
        });
    }
}

/// A value as JSON: as its `Display` says it, without the detour through a formatter.
fn json(value: &serde_json::Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| value.to_string())
}

fn conflict_row(conflict: &Conflict) -> ConflictRow {
    let value = |value: &ConflictValue| ConflictValueRow {
        json: value.value.to_string(),
        actor: value.actor,
        shown: value.shown,
    };
    ConflictRow { path: conflict.path.clone(), values: conflict.values.iter().map(value).collect() }
}

/// About how many bytes of memory a row takes.
pub(super) fn row_bytes(row: &ObjectRow) -> usize {
    const FIXED_BYTES: usize = 256;
    let labels: usize = row.labels.iter().map(|(key, value)| key.len() + value.len() + 48).sum();
    let value = |value: &ConflictValueRow| value.json.len() + 48;
    let conflict =
        |row: &ConflictRow| row.path.len() + row.values.iter().map(value).sum::<usize>() + 48;
    let conflicts: usize = row.conflicts.iter().map(conflict).sum();
    let types: usize = row.types.keys().map(|path| path.len() + 32).sum();
    let heads = row.heads.len() * size_of::<HeadRow>();
    FIXED_BYTES + row.body.len() + row.class.len() + labels + conflicts + types + heads
}

/// What one object adds to the counters of its lane, by the deletions that are stored. A life whose
/// time has not come is not shown, and counts for nothing.
fn count_at(
    graves: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    row: Option<&ObjectRow>,
) -> Result<CountsRow, StoreError> {
    let counts = count(row);
    let hidden = row.is_none_or(|row| row.state == RowState::Hidden);
    if hidden || super::lives::has_come(graves, key)? {
        return Ok(counts);
    }
    Ok(count(None))
}

/// What an object whose row is damaged adds to the counters of its lane: what it most likely did
/// before it was. So its deletion counts, and its next life is not counted beside it.
fn count_damaged(
    graves: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<CountsRow, StoreError> {
    let hidden = graves.get(key)?.is_some();
    let live = !hidden && super::lives::has_come(graves, key)?;
    let (live, hidden) = (u64::from(live), u64::from(hidden));
    Ok(CountsRow { live, hidden, ..CountsRow::default() })
}

/// What one object adds to the counters of its lane.
fn count(row: Option<&ObjectRow>) -> CountsRow {
    let Some(row) = row else { return CountsRow::default() };
    let live = u64::from(row.state == RowState::Live);
    CountsRow {
        live,
        hidden: u64::from(row.state == RowState::Hidden),
        conflicted: live * u64::from(!row.conflicts.is_empty()),
        quarantined: u64::from(matches!(row.state, RowState::Quarantined(_))),
        ..CountsRow::default()
    }
}

impl Snapshot {
    /// The counters of a lane, from its objects. Bodies that are not here are not counted.
    pub(super) fn count_anew(&self, lane: LaneId) -> Result<CountsRow, StoreError> {
        let graves = self.table(tables::TOMBSTONES)?;
        let mut total = CountsRow { absent: None, ..CountsRow::default() };
        for row in self.table(tables::OBJECTS)?.range::<&[u8]>([lane.code()].as_slice()..)? {
            let (key, value) = row?;
            let key = key.value();
            if key.first() != Some(&lane.code()) {
                break;
            }
            let row = tables::unseal(tables::OBJECTS, key, value.value())
                .and_then(|bytes| tables::decode::<ObjectRow>(tables::OBJECTS, key, bytes));
            let one = match row {
                Ok(row) => count_at(graves, key, Some(&row))?,
                Err(_) => count_damaged(graves, key)?,
            };
            total.live += one.live;
            total.hidden += one.hidden;
            total.conflicted += one.conflicted;
            total.quarantined += one.quarantined;
        }
        Ok(total)
    }
}

impl Store {
    /// Writes what a step touched, all of it.
    pub(super) fn flush(
        &mut self,
        open: &mut Open<'_>,
        overlay: Overlay,
    ) -> Result<(), StoreError> {
        self.work_left = usize::MAX;
        let written = self.write_overlay(open, overlay)?;
        self.feed_shown(open, written.shown)
    }

    /// Writes what a step touched. Where the call has worked enough, changes of what is there are
    /// left for another.
    pub(super) fn write_overlay(
        &mut self,
        open: &mut Open<'_>,
        overlay: Overlay,
    ) -> Result<Written, StoreError> {
        #[cfg(test)]
        {
            self.fullest = self.fullest.max(overlay.bytes);
        }
        let Overlay { touched, graves, come, .. } = overlay;
        for (key, grave) in graves {
            tables::insert_row(&mut open.tombstones, tables::TOMBSTONES, &key, &grave)?;
        }
        let mut written = Written { left: Vec::new(), shown: Vec::new() };
        for (key, mut touched) in touched {
            let lane = tables::split_object_key(&key).map(|(lane, _, _)| lane);
            if touched.damaged.is_some() {
                let after = count_damaged(&open.tombstones, &key)?;
                lane.into_iter().for_each(|lane| self.recount(lane, touched.before, after));
                continue;
            }
            if self.is_tired() && self.settled {
                written.left.extend(touched.pending.drain(..).map(|pending| pending.arrival.loc));
            } else if !touched.pending.is_empty() {
                self.settle(open, &mut touched, &key)?;
                self.settled = true;
                self.work(touched.document.as_ref().map_or(0, Object::size_estimate));
            }
            if let Some(row) = &mut touched.row {
                let document = touched.document.as_ref();
                self.save_document(open, &key, row, &touched.tail, document)?;
                tables::insert_row(&mut open.objects, tables::OBJECTS, &key, row)?;
            }
            if let Some(lane) = lane {
                let after = count_at(&open.tombstones, &key, touched.row.as_ref())?;
                self.recount(lane, touched.before, after);
            }
            if let Some(document) = touched.document {
                self.documents.put(key, document);
            }
        }
        for key in come {
            let row = tables::read_row::<ObjectRow>(&open.objects, tables::OBJECTS, &key);
            if let Ok(Some(row)) = row
                && row.state != RowState::Hidden
            {
                written.shown.push(key);
            }
        }
        Ok(written)
    }

    /// Tells of lives that came to light: what was fed when they came did not show them.
    pub(super) fn feed_shown(
        &mut self,
        open: &mut Open<'_>,
        shown: Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        for key in shown {
            let Some((lane, id, life)) = tables::split_object_key(&key) else { continue };
            self.feed(open, &FeedRow::Shown { lane, id: id.to_owned(), life })?;
        }
        Ok(())
    }

    /// Replaces one object's share in the counters of its lane.
    pub(super) fn recount(&mut self, lane: LaneId, before: CountsRow, after: CountsRow) {
        if before == after {
            return;
        }
        let total = self.counts.entry(lane).or_default();
        total.live = (total.live + after.live).saturating_sub(before.live);
        total.hidden = (total.hidden + after.hidden).saturating_sub(before.hidden);
        total.conflicted = (total.conflicted + after.conflicted).saturating_sub(before.conflicted);
        total.quarantined =
            (total.quarantined + after.quarantined).saturating_sub(before.quarantined);
        self.changed_counts.insert(lane);
    }

    /// Takes an object out of the counters of its lane; without a row it is a damaged one.
    pub(super) fn uncount(
        &mut self,
        open: &Open<'_>,
        key: &[u8],
        row: Option<&ObjectRow>,
    ) -> Result<(), StoreError> {
        let Some((lane, _, _)) = tables::split_object_key(key) else { return Ok(()) };
        let before = match row {
            Some(row) => count_at(&open.tombstones, key, Some(row))?,
            None => count_damaged(&open.tombstones, key)?,
        };
        self.recount(lane, before, count(None));
        Ok(())
    }

    /// Counts the bodies of a new entry that are not here.
    pub(super) fn count_absent(&mut self, lane: LaneId, bodies: &[Body<'_>]) {
        if bodies.iter().all(|body| matches!(body, Body::Here(_))) {
            return;
        }
        if let Some(absent) = &mut self.counts.entry(lane).or_default().absent {
            bodies.iter().for_each(|body| absent.add(body));
            self.changed_counts.insert(lane);
        }
    }
}
