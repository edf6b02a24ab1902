//! The objects that a step touches: read once, changed in memory, written once.

use std::collections::BTreeMap;

use super::{Open, Store};
use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash, DeviceId, WallMillis};
use crate::lane::LaneId;
use crate::object::{Conflict, ConflictValue, Object, View};
use crate::tables::{
    self, ConflictRow, ConflictValueRow, CountsRow, HeadRow, Loc, ObjectRow, RowState, TombstoneRow,
};

/// Objects by key, as a step leaves them.
#[derive(Default)]
pub(super) struct Overlay {
    touched: BTreeMap<Vec<u8>, Touched>,
    /// Deletions that the step records, by the key of what they delete.
    graves: BTreeMap<Vec<u8>, TombstoneRow>,
    /// Bytes of changes that came to it.
    bytes: usize,
}

/// Bytes of changes after which a step is written: what is held of them is some times as much.
const STEP_BYTES_TARGET: usize = 1024 * 1024;
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
            let row: Option<ObjectRow> = tables::read_row(&open.objects, tables::OBJECTS, key)?;
            let before = count(row.as_ref());
            let touched =
                Touched { before, row, tail: Vec::new(), document: None, pending: Vec::new() };
            self.touched.insert(key.to_vec(), touched);
        }
        // Inserted above when it was not there.
        Ok(self.touched.get_mut(key).expect("the key is present"))
    }

    /// Whether it is time to write the step and to begin another.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= STEP_BYTES_TARGET || self.touched.len() >= STEP_OBJECTS_TARGET
    }

    /// Notes that so many bytes of changes came to it.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
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

    /// Records a deletion.
    pub(super) fn bury(&mut self, key: Vec<u8>, grave: TombstoneRow) {
        self.graves.insert(key, grave);
    }

    /// The latest life of an object that the step itself has touched.
    pub(super) fn latest_life(&self, lane: LaneId, id: &str) -> Option<u32> {
        let range = tables::object_key(lane, id, 0)..=tables::object_key(lane, id, u32::MAX);
        self.touched
            .range(range)
            .rev()
            .find(|(_, touched)| touched.row.is_some())
            .and_then(|(key, _)| Some(tables::split_object_key(key)?.2))
    }
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
            body: content.body().to_string(),
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

fn conflict_row(conflict: &Conflict) -> ConflictRow {
    let value = |value: &ConflictValue| ConflictValueRow {
        json: value.value.to_string(),
        actor: value.actor,
        shown: value.shown,
    };
    ConflictRow { path: conflict.path.clone(), values: conflict.values.iter().map(value).collect() }
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
    }
}

impl Store {
    /// Writes what a step touched.
    pub(super) fn flush(
        &mut self,
        open: &mut Open<'_>,
        overlay: Overlay,
    ) -> Result<(), StoreError> {
        for (key, grave) in overlay.graves {
            tables::insert_row(&mut open.tombstones, tables::TOMBSTONES, &key, &grave)?;
        }
        for (key, mut touched) in overlay.touched {
            self.settle(open, &mut touched, &key)?;
            if let Some(row) = &mut touched.row {
                let document = touched.document.as_ref();
                self.save_document(open, &key, row, &touched.tail, document)?;
                tables::insert_row(&mut open.objects, tables::OBJECTS, &key, row)?;
            }
            if let Some((lane, _, _)) = tables::split_object_key(&key) {
                self.recount(lane, touched.before, count(touched.row.as_ref()));
            }
            if let Some(document) = touched.document {
                self.documents.put(key, document);
            }
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

    /// Takes an object out of the counters of its lane.
    pub(super) fn uncount(&mut self, lane: LaneId, row: &ObjectRow) {
        self.recount(lane, count(Some(row)), CountsRow::default());
    }
}
