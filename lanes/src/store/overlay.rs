//! The objects that a step touches: read once, changed in memory, written once.

use std::collections::BTreeMap;

use super::{Open, Store};
use crate::error::StoreError;
use crate::ids::{ChangeHash, WallMillis};
use crate::lane::LaneId;
use crate::object::{Object, View};
use crate::tables::{
    self, ConflictRow, ConflictValueRow, CountsRow, HeadRow, Loc, ObjectRow, RowState, TombstoneRow,
};

/// Objects by key, as a step leaves them.
#[derive(Default)]
pub(super) struct Overlay {
    touched: BTreeMap<Vec<u8>, Touched>,
    /// Deletions that the step records, by the key of what they delete.
    graves: BTreeMap<Vec<u8>, TombstoneRow>,
}

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
}

/// A change that became part of an object.
pub(super) struct Absorbed<'a> {
    pub(super) hash: ChangeHash,
    pub(super) loc: Loc,
    pub(super) wall: WallMillis,
    pub(super) confined: bool,
    /// The document's heads after it.
    pub(super) heads: &'a [ChangeHash],
    pub(super) view: &'a View,
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
            let touched = Touched { before, row, tail: Vec::new(), document: None };
            self.touched.insert(key.to_vec(), touched);
        }
        // Inserted above when it was not there.
        Ok(self.touched.get_mut(key).expect("the key is present"))
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
    /// Takes a change in: the row shows the view from now on.
    pub(super) fn absorb(
        &mut self,
        devices: impl Fn(u32) -> Option<crate::ids::DeviceId>,
        change: &Absorbed<'_>,
    ) {
        let mut head_rows: Vec<HeadRow> = self
            .row
            .iter()
            .flat_map(|row| row.heads.iter().copied())
            .filter(|head| change.heads.contains(&head.hash))
            .collect();
        head_rows.push(HeadRow { hash: change.hash, loc: change.loc });
        head_rows.sort_by_key(|head| head.hash);
        let (author, updated_at) = match &self.row {
            // The same on every device, in whatever order changes arrive.
            Some(row)
                if (row.updated_at, devices(row.author))
                    > (change.wall, devices(change.loc.author)) =>
            {
                (row.author, row.updated_at)
            }
            _ => (change.loc.author, change.wall),
        };
        let changes = self.row.as_ref().map_or(0, |row| row.changes) + 1;
        self.tail.push((changes, change.loc));
        let content = &change.view.content;
        self.row = Some(ObjectRow {
            state: self.row.as_ref().map_or(RowState::Live, |row| row.state.clone()),
            kind: content.kind().to_owned(),
            class: content.class().to_owned(),
            labels: content.labels().clone(),
            body: content.body().to_string(),
            conflicts: change
                .view
                .conflicts
                .iter()
                .map(|conflict| ConflictRow {
                    path: conflict.path.clone(),
                    values: conflict
                        .values
                        .iter()
                        .map(|value| ConflictValueRow {
                            json: value.value.to_string(),
                            actor: value.actor,
                            shown: value.shown,
                        })
                        .collect(),
                })
                .collect(),
            author,
            updated_at,
            confined: change.confined || self.row.as_ref().is_some_and(|row| row.confined),
            heads: head_rows,
            first: self.row.as_ref().map_or(change.loc, |row| row.first),
            changes,
            saved_changes: self.row.as_ref().map_or(0, |row| row.saved_changes),
            expires_at: self.row.as_ref().and_then(|row| row.expires_at),
            types: content.types().clone(),
        });
    }
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
