//! Applying entries that are held: in causal order, one entry whole, into rows that reads use.

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use super::overlay::{Arrival, Overlay, Pending, Touched, row_bytes};
use super::step::{Advanced, Step};
use super::{DEVICE_JOURNALS_MAX, Open, Store};
use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::ids::{Author, DeviceId, WallMillis};
use crate::journal::{After, Entry, Header};
use crate::lane::{LaneId, Replication};
use crate::object::{DocumentError, Object, View};
use crate::tables::{self, FeedRow, Loc, RowState, TombstoneRow};

/// What an item counts as by itself, in bytes of work: its hash is computed and rows are looked up.
pub(super) const ITEM_WORK_BYTES: usize = 512;
/// What a deleted life counts as that is walked over, in bytes of work.
const LIFE_WORK_BYTES: usize = 16;

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
    /// Applies entries of a lane that are held and whose time has come, at most `limit` of them and
    /// as far as one call may work.
    pub fn advance(
        &mut self,
        lane: LaneId,
        now: WallMillis,
        limit: usize,
    ) -> Result<Advanced, StoreError> {
        let waiting: Vec<u32> = self.journals.waiting(lane).collect();
        // What is parked is looked at again when what it waits for is here.
        let parked = waiting.iter().all(|number| self.parked.has(lane, *number));
        if limit == 0 || (parked && !self.begun.contains_key(&lane)) {
            return Ok(Advanced { entries: 0, more: limit == 0 && !parked });
        }
        self.with_turn(|store, turn| {
            let mut open = Open::new(turn)?;
            let mut step = Step::new(lane, now);
            store.begin_call();
            store.resume(turn, &mut open, &mut step)?;
            let mut progress = true;
            while progress && step.len() < limit && !store.is_tired() {
                progress = false;
                for number in &waiting {
                    while step.len() < limit
                        && !store.is_tired()
                        && store.apply_next(turn, &mut open, &mut step, lane, *number)?
                    {
                        progress = true;
                    }
                }
            }
            let full = step.len() >= limit;
            let advanced = store.finish(&mut open, step)?;
            Ok(Advanced { more: advanced.more || full, ..advanced })
        })
    }

    /// Applies the next entry of a journal, if there is one and what it builds on is applied.
    fn apply_next(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        step: &mut Step,
        lane: LaneId,
        number: u32,
    ) -> Result<bool, StoreError> {
        let row = self.journal_row(lane, number);
        if row.applied >= row.held || self.parked.has(lane, number) {
            return Ok(false);
        }
        let key = tables::entry_key(lane, number, row.applied + 1);
        let bytes = tables::read_with(&open.entries, tables::ENTRIES, &key, <[u8]>::to_vec);
        let bytes = match bytes {
            Ok(Some(bytes)) => bytes,
            // A damaged entry stops its journal, which stays behind for all to see, and no other.
            Ok(None) | Err(StoreError::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok(entry) = super::entries::read_stored(&key, &bytes) else { return Ok(false) };
        if !self.is_ready(number, &entry.header) {
            return Ok(false);
        }
        let items = 0..entry.bodies.len() as u16;
        self.apply_entry(turn, open, step, number, &entry, items)?;
        Ok(true)
    }

    /// Whether the entries that an entry's header names are applied. Of a forked journal no more
    /// will be, nor of one that is refused because its device has too many or is barred, so that
    /// nothing waits for it. The header is its author's word and may name too little; what then is
    /// missing is seen when its changes come to their objects.
    pub(super) fn is_ready(&mut self, number: u32, header: &Header) -> bool {
        if bug::active(Bug::ApplyEarly) {
            return true;
        }
        let lane = header.lane;
        let applied = |after: &After| match self.journal(lane, &after.author) {
            _ if self.is_barred(&after.author.device) => true,
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

    /// Makes the change of an item part of its object.
    pub(super) fn apply_item(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        overlay: &mut Overlay,
        number: u32,
        entry: &Entry<'_>,
        index: u16,
    ) -> Result<(), StoreError> {
        let (held, walked) = (overlay.bytes(), overlay.walked);
        self.materialise(turn, open, overlay, number, entry, index)?;
        let lives = (overlay.walked - walked) * LIFE_WORK_BYTES;
        self.work(overlay.bytes() - held + lives + ITEM_WORK_BYTES);
        Ok(())
    }

    fn materialise(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        overlay: &mut Overlay,
        number: u32,
        entry: &Entry<'_>,
        index: u16,
    ) -> Result<(), StoreError> {
        let header = &entry.header;
        let at = usize::from(index);
        let (Some(item), Some(parts)) = (header.items.get(at), entry.parts(at)) else {
            return Ok(());
        };
        let key = tables::object_key(header.lane, parts.id, parts.life);
        let loc = Loc { author: number, seq: header.seq, item: index };
        let arrival =
            Arrival { hash: item.change, loc, wall: header.wall, confined: item.confined };
        let pending = || Pending {
            arrival,
            author: header.author,
            class: header.classes.get(usize::from(item.class)).cloned().unwrap_or_default(),
            change: parts.change.to_vec(),
        };
        let (once, grave) =
            (header.lane.definition().append_only, header.lane == LaneId::Tombstone);
        let touched = overlay.touch(open, &key)?;
        let first = touched.row.is_none() && touched.damaged.is_none();
        let free = first && !self.has_left_out(open, item.key)?;
        let creation = if free || once || grave {
            Object::read_creation(parts.change, item.change, header.author.actor()).ok().flatten()
        } else {
            None
        };
        if touched.damaged.is_some() {
            // The entry is kept; what becomes of the object is told where it is read.
        } else if once && creation.is_none() {
            // After what its author wrote before, which it must not hold up.
            self.settle(open, touched, &key)?;
            self.refuse(open, touched, item.key, &pending(), &DocumentError::WrittenOnce)?;
            let bytes = touched.document.as_ref().map_or(0, Object::size_estimate);
            overlay.grow(bytes);
        } else if touched.row.is_some() && !grave {
            // With what else comes for this object, when the step is written.
            touched.pending.push(pending());
            overlay.grow(parts.change.len());
        } else {
            match &creation {
                Some(view) if free => {
                    touched.absorb(|n| self.device_of(n), &[arrival], &[item.change], view);
                }
                _ => {
                    touched.pending.push(pending());
                    self.settle(open, touched, &key)?;
                }
            }
            let bytes = touched.row.as_ref().map_or(0, row_bytes)
                + touched.document.as_ref().map_or(0, Object::size_estimate);
            overlay.grow(bytes);
        }
        if first {
            Self::hide_if_deleted(open, overlay, &key)?;
        }
        if let Some(view) = creation.filter(|_| grave) {
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
        if overlay.is_buried(open, key)?
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
        if definition.replication == Replication::LocalOnly && author.device != self.device {
            // What is there concerns nobody else.
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
        let known = overlay.is_buried(open, &key)?;
        let first = match overlay.grave(open, &key) {
            Ok(grave_known) => grave_known.is_none_or(|known| asked(&grave) < asked(&known)),
            // It is deleted all the same; by whom is not told any more.
            Err(StoreError::Damaged { .. }) => false,
            Err(error) => return Err(error),
        };
        // Whether it is the life that is shown: of a far one it is known at once that it is not.
        let before = tables::object_key(lane, &target.id, target.life - 1);
        let shown = !known
            && (target.life == 1 || overlay.is_buried(open, &before)?)
            && overlay.current_life(open, lane, &target.id)? == target.life;
        if first || bug::active(Bug::LatestGrave) {
            overlay.bury(key.clone(), grave);
        }
        let touched = overlay.touch(open, &key)?;
        if let Some(row) = &mut touched.row {
            row.state = RowState::Hidden;
        }
        if shown {
            // A later life may have waited for this.
            let next = overlay.current_life(open, lane, &target.id)?;
            let key = tables::object_key(lane, &target.id, next);
            overlay.touch(open, &key)?;
            overlay.note_come(key);
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
