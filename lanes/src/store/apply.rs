//! Applying entries that are held: in causal order, one entry whole, into rows that reads use.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use super::overlay::{Arrival, Overlay, Pending, Touched};
use super::{DEVICE_JOURNALS_MAX, Open, Store};
use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::ids::{Author, DeviceId, WallMillis};
use crate::journal::{After, BodyParts, Entry, Header};
use crate::lane::LaneId;
use crate::object::{Object, View};
use crate::tables::{self, FeedRow, Loc, RowState, TombstoneRow};

/// The body of an object in the tombstone lane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct TombstoneBody {
    pub(super) lane: String,
    pub(super) id: String,
    pub(super) life: u32,
    pub(super) reason: String,
}

impl TombstoneBody {
    /// The id of the tombstone object: one for each deleted life.
    pub(super) fn id_of(lane: LaneId, id: &str, life: u32) -> String {
        format!("{lane}/{life}/{id}")
    }
}

impl Store {
    /// Applies entries of a lane that are held and whose time has come, at most `limit` of them.
    /// Returns how many it applied; when that is the limit, there may be more.
    pub fn advance(
        &mut self,
        lane: LaneId,
        now: WallMillis,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let waiting: Vec<u32> = self.journals.waiting(lane).collect();
        // What is parked is looked at again when what it waits for is here.
        if waiting.iter().all(|number| self.parked.has(lane, *number)) {
            return Ok(0);
        }
        self.with_turn(|store, turn| {
            let mut open = Open::new(turn)?;
            let mut overlay = Overlay::default();
            let mut applied = 0;
            let mut progress = true;
            while progress && applied < limit {
                progress = false;
                for number in &waiting {
                    while applied < limit
                        && store.apply_next(turn, &mut open, &mut overlay, lane, *number, now)?
                    {
                        if overlay.is_full() {
                            store.flush(&mut open, std::mem::take(&mut overlay))?;
                        }
                        applied += 1;
                        progress = true;
                    }
                }
            }
            store.flush(&mut open, overlay)?;
            Ok(applied)
        })
    }

    /// Applies the next entry of a journal, if there is one and what it builds on is applied.
    fn apply_next(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        overlay: &mut Overlay,
        lane: LaneId,
        number: u32,
        now: WallMillis,
    ) -> Result<bool, StoreError> {
        let row = self.journal_row(lane, number);
        if row.applied >= row.held || self.parked.has(lane, number) {
            return Ok(false);
        }
        let key = tables::entry_key(lane, number, row.applied + 1);
        let bytes = tables::read_with(&open.entries, tables::ENTRIES, &key, <[u8]>::to_vec)?;
        let bytes = bytes.ok_or_else(|| StoreError::damaged_value(tables::ENTRIES, &key))?;
        let entry = super::entries::read_stored(&key, &bytes)?;
        if !self.is_ready(number, &entry.header) {
            return Ok(false);
        }
        self.apply_entry(turn, open, overlay, number, &entry)?;
        self.note_applied(lane, number, now);
        Ok(true)
    }

    /// Whether the entries that an entry's header names are applied. Of a forked journal no more
    /// will be, nor of one that is refused because its device has too many, so that nothing waits for
    /// it. The header is its author's word and may name too little; what then is missing is seen when
    /// its changes come to their objects.
    pub(super) fn is_ready(&mut self, number: u32, header: &Header) -> bool {
        if bug::active(Bug::ApplyEarly) {
            return true;
        }
        let lane = header.lane;
        let applied = |after: &After| match self.journal(lane, &after.author) {
            Some(row) => row.applied >= after.seq || row.forked,
            None => self.device_journals(lane, after.author.device) >= DEVICE_JOURNALS_MAX,
        };
        let missing = header.after.iter().find(|after| !applied(after));
        if let Some(after) = missing {
            self.parked.park(lane, number, after.author, after.seq);
        }
        missing.is_none()
    }

    /// Moves the applied mark of a journal by one.
    pub(super) fn note_applied(&mut self, lane: LaneId, number: u32, now: WallMillis) {
        let mut row = self.journal_row(lane, number);
        row.applied += 1;
        row.waiting_since = now;
        self.set_journal_row(lane, number, row);
        self.unpark(lane, number);
    }

    /// Makes an entry's changes part of the objects of a step, which must be written in the same
    /// turn. The entry is held and ready.
    pub(super) fn apply_entry(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        overlay: &mut Overlay,
        number: u32,
        entry: &Entry<'_>,
    ) -> Result<(), StoreError> {
        let header = &entry.header;
        for (index, item) in header.items.iter().enumerate() {
            // An entry has at most ENTRY_CHANGES_MAX items, which fits 16 bits.
            let loc = Loc { author: number, seq: header.seq, item: index as u16 };
            let Some(parts) = entry.parts(index) else { continue };
            self.apply_item(turn, open, overlay, header, item, loc, &parts)?;
        }
        self.feed(open, &FeedRow::Entry { lane: header.lane, author: number, seq: header.seq })
    }

    #[expect(clippy::too_many_arguments, reason = "one item in its full context")]
    fn apply_item(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        overlay: &mut Overlay,
        header: &Header,
        item: &crate::journal::Item,
        loc: Loc,
        parts: &BodyParts<'_>,
    ) -> Result<(), StoreError> {
        let key = tables::object_key(header.lane, parts.id, parts.life);
        let author = header.author;
        let arrival =
            Arrival { hash: item.change, loc, wall: header.wall, confined: item.confined };
        overlay.grow(parts.change.len());
        let class = header.classes.get(usize::from(item.class)).cloned().unwrap_or_default();
        let pending = || Pending { arrival, author, class, change: parts.change.to_vec() };
        let touched = overlay.touch(open, &key)?;
        if touched.row.is_some() && header.lane != LaneId::Tombstone {
            // With what else comes for this object, when the step is written.
            touched.pending.push(pending());
            return Ok(());
        }
        let first = touched.row.is_none();
        let read = || Object::read_creation(parts.change, item.change, author.actor());
        let free = first && !self.has_left_out(open, item.key)?;
        match if free { read() } else { Ok(None) } {
            Ok(Some(view)) => {
                touched.absorb(|n| self.device_of(n), &[arrival], &[item.change], &view);
            }
            _ => {
                touched.pending.push(pending());
                self.settle(open, touched, &key)?;
            }
        }
        if first {
            Self::hide_if_deleted(open, overlay, &key)?;
        }
        if header.lane == LaneId::Tombstone
            && let Ok(Some(view)) = read()
        {
            // Where another device recorded the same deletion, who asked first is looked at anew.
            self.delete_target(turn, open, overlay, header, &view)?;
        }
        Ok(())
    }

    /// Journals that wait for an entry of this one are looked at again.
    pub(super) fn unpark(&mut self, lane: LaneId, number: u32) {
        let Some(author) = self.authors.get(number) else { return };
        let row = self.journal_row(lane, number);
        self.parked.wake(lane, author, if row.forked { u64::MAX } else { row.applied });
    }

    /// The document of an object as the step has left it.
    pub(super) fn document(
        &mut self,
        open: &Open<'_>,
        touched: &mut Touched,
        key: &[u8],
    ) -> Result<Object, StoreError> {
        match (touched.document.take(), &touched.row) {
            (Some(document), _) => Ok(document),
            (None, None) => Ok(Object::new()),
            (None, Some(row)) if row.changes == 0 => Ok(Object::new()),
            (None, Some(row)) if touched.tail.is_empty() => self.load_document(open, key, row),
            (None, Some(_)) => self.replay(open, touched, key),
        }
    }

    pub(super) fn device_of(&self, number: u32) -> Option<DeviceId> {
        self.authors.get(number).map(|author| author.device)
    }

    /// The document of an object that this step created without building one.
    fn replay(&self, open: &Open<'_>, touched: &Touched, key: &[u8]) -> Result<Object, StoreError> {
        let missing =
            |what: &str| StoreError::inconsistent(tables::shown_key(key), what.to_owned());
        let mut document = Object::new();
        for (_, loc) in &touched.tail {
            let (hash, change) = super::entries::body_change(&open.entries, key, *loc)?
                .ok_or_else(|| missing("a change of this step is not held, or damaged"))?;
            let author = self
                .authors
                .get(loc.author)
                .ok_or_else(|| missing("an author of this step is unknown"))?;
            document
                .apply(&change, hash, author.actor())
                .map_err(|error| missing(&error.to_string()))?;
        }
        Ok(document)
    }

    /// Hides a new object that a tombstone already names.
    fn hide_if_deleted(
        open: &Open<'_>,
        overlay: &mut Overlay,
        key: &[u8],
    ) -> Result<(), StoreError> {
        if overlay.grave(open, key)?.is_some()
            && let Some(row) = &mut overlay.touch(open, key)?.row
        {
            row.state = RowState::Hidden;
        }
        Ok(())
    }

    /// Deletes what a tombstone names; what is no tombstone deletes nothing.
    fn delete_target(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        overlay: &mut Overlay,
        header: &Header,
        view: &View,
    ) -> Result<(), StoreError> {
        let Ok(target) = TombstoneBody::deserialize(view.content.body()) else { return Ok(()) };
        self.entomb(turn, open, overlay, &target, header.author, header.wall)
    }

    /// Records a deletion and hides what it names.
    pub(super) fn entomb(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        overlay: &mut Overlay,
        target: &TombstoneBody,
        author: Author,
        at: WallMillis,
    ) -> Result<(), StoreError> {
        let Ok(lane) = target.lane.parse::<LaneId>() else { return Ok(()) };
        let definition = lane.definition();
        if definition.append_only || definition.node_writes_only {
            // Nobody may delete there, whoever signed it.
            return Ok(());
        }
        let named = crate::journal::check_id(&target.id).is_ok()
            && (1..=crate::journal::LIFE_MAX).contains(&target.life);
        if !named {
            // It names nothing that can exist.
            return Ok(());
        }
        let key = tables::object_key(lane, &target.id, target.life);
        let grave = TombstoneRow {
            author: self.author_number(turn, author)?,
            requested_at: at,
            reason: target.reason.clone(),
        };
        // Of several who deleted it apart, every device names the one who asked first.
        let asked = |grave: &TombstoneRow| (grave.requested_at, self.authors.get(grave.author));
        let first = overlay.grave(open, &key)?.is_none_or(|known| asked(&grave) < asked(&known));
        if first || bug::active(Bug::LatestGrave) {
            overlay.bury(key.clone(), grave);
        }
        let touched = overlay.touch(open, &key)?;
        if let Some(row) = &mut touched.row {
            row.state = RowState::Hidden;
        }
        Ok(())
    }

    /// Adds to the feed of what was applied.
    pub(super) fn feed(&mut self, open: &mut Open<'_>, row: &FeedRow) -> Result<(), StoreError> {
        let number = self.feed_next;
        tables::insert_row(&mut open.feed, tables::FEED, &number.to_be_bytes(), row)?;
        self.feed_next += 1;
        Ok(())
    }
}
