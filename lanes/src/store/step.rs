//! How much one call applies, and what goes on at the next.
//!
//! A change of two hundred bytes may touch an object of two million operations, and an entry may
//! name a thousand of them. So a call works on as much as [`WORK_BYTES_TARGET`] says, and leaves the
//! rest for another, so that others are served in between. Entries of which something is left are
//! held and not applied; which of their items are left is kept in memory. After a restart such an
//! entry is gone through from its start, which changes nothing of what is done already.

use std::collections::{BTreeMap, BTreeSet};

use redb::WriteTransaction;

use super::overlay::{Overlay, Written};
use super::{Open, Store};
use crate::error::StoreError;
use crate::ids::WallMillis;
use crate::journal::Entry;
use crate::lane::LaneId;
use crate::tables::{self, FeedRow};

/// What one call of [`Store::receive`], [`Store::advance`] or [`Store::expire`] reads and makes of
/// objects, by the estimated bytes of their rows, documents and entries, after which it leaves the rest for another call: so
/// that others are not kept waiting long. One object may be more by itself.
pub const WORK_BYTES_TARGET: usize = 32 * 1024 * 1024;

/// What [`Store::advance`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Advanced {
    /// Entries that are applied now.
    pub entries: usize,
    /// There may be more whose time has come.
    pub more: bool,
}

/// An entry that is held, and of which some changes are in their objects already.
#[derive(Debug)]
pub(super) struct Begun {
    number: u32,
    seq: u64,
    /// The items whose changes are not.
    items: BTreeSet<u16>,
    /// Lives that came to light in the step that began it: told of once more after it.
    shown: Vec<Vec<u8>>,
}

/// An entry that a call applies.
struct Marked {
    number: u32,
    seq: u64,
    /// Where the applied mark of its journal was moved over it: since when it had waited.
    waited_since: Option<WallMillis>,
    /// Lives to tell of once it is fed.
    shown: Vec<Vec<u8>>,
}

/// The entries of one lane that a call applies, and the objects that they touch.
pub(super) struct Step {
    lane: LaneId,
    now: WallMillis,
    pub(super) overlay: Overlay,
    /// In order.
    entries: Vec<Marked>,
    /// Items that are left for another call.
    left: BTreeMap<(u32, u64), BTreeSet<u16>>,
    /// Lives that came to light.
    shown: Vec<Vec<u8>>,
}

impl Step {
    pub(super) fn new(lane: LaneId, now: WallMillis) -> Self {
        let (overlay, entries) = (Overlay::default(), Vec::new());
        Self { lane, now, overlay, entries, left: BTreeMap::new(), shown: Vec::new() }
    }

    /// Entries that it has looked at.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Store {
    /// What a call may work on is counted from here.
    pub(super) fn begin_call(&mut self) {
        self.work_left = self.work_target;
        self.settled = false;
    }

    /// Whether the call has worked as much as one may.
    pub(super) fn is_tired(&self) -> bool {
        self.work_left == 0
    }

    /// Notes so many bytes of rows and documents as worked on.
    pub(super) fn work(&mut self, bytes: usize) {
        self.work_left = self.work_left.saturating_sub(bytes);
    }

    /// Moves the applied mark of a journal over an entry and makes its changes part of their objects:
    /// these items, as far as the call may still work. The entry is held and ready.
    pub(super) fn apply_entry(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        step: &mut Step,
        number: u32,
        entry: &Entry<'_>,
        items: impl IntoIterator<Item = u16>,
    ) -> Result<(), StoreError> {
        let seq = entry.header.seq;
        // At once, so that those are ready which build on it.
        let waited_since = Some(self.journal_row(step.lane, number).waiting_since);
        self.note_applied(step.lane, number, step.now);
        step.entries.push(Marked { number, seq, waited_since, shown: Vec::new() });
        for item in items {
            if self.is_tired() {
                step.left.entry((number, seq)).or_default().insert(item);
                continue;
            }
            self.apply_item(turn, open, &mut step.overlay, number, entry, item)?;
            if step.overlay.is_full() {
                self.write_out(open, step)?;
            }
        }
        if step.overlay.is_full() {
            self.write_out(open, step)?;
        }
        Ok(())
    }

    /// Goes on with entries that an earlier call began.
    pub(super) fn resume(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        step: &mut Step,
    ) -> Result<(), StoreError> {
        for Begun { number, seq, items, shown } in self.begun.remove(&step.lane).unwrap_or_default()
        {
            if self.is_tired() {
                step.entries.push(Marked { number, seq, waited_since: None, shown });
                if !items.is_empty() {
                    step.left.insert((number, seq), items);
                }
                continue;
            }
            let key = tables::entry_key(step.lane, number, seq);
            let bytes = tables::read_with(&open.entries, tables::ENTRIES, &key, <[u8]>::to_vec);
            let Ok(Some(bytes)) = bytes else { break };
            let Ok(entry) = super::entries::read_stored(&key, &bytes) else { break };
            self.apply_entry(turn, open, step, number, &entry, items)?;
            if let Some(marked) = step.entries.last_mut() {
                marked.shown = shown;
            }
        }
        Ok(())
    }

    /// Writes what the step has in memory.
    fn write_out(&mut self, open: &mut Open<'_>, step: &mut Step) -> Result<(), StoreError> {
        let Written { left, shown } =
            self.write_overlay(open, std::mem::take(&mut step.overlay))?;
        for loc in left {
            step.left.entry((loc.author, loc.seq)).or_default().insert(loc.item);
        }
        step.shown.extend(shown);
        Ok(())
    }

    /// Writes the step. Its entries are applied as far as all of them and of those before them is
    /// done; the others go on at the next call.
    pub(super) fn finish(
        &mut self,
        open: &mut Open<'_>,
        mut step: Step,
    ) -> Result<Advanced, StoreError> {
        self.write_out(open, &mut step)?;
        let lane = step.lane;
        let is_left = |entry: &Marked| step.left.contains_key(&(entry.number, entry.seq));
        let done = step.entries.iter().position(is_left).unwrap_or(step.entries.len());
        let mut later = step.entries.split_off(done);
        for Marked { number, seq, waited_since, shown } in step.entries {
            if waited_since.is_none() {
                self.note_applied(lane, number, step.now);
            }
            self.feed(open, &FeedRow::Entry { lane, author: number, seq })?;
            self.feed_shown(open, shown)?;
        }
        // At once, since what is begun is not remembered over a restart; and again after the entry
        // that brought the deletion of the life before, since followers may hear of that later.
        if let Some(last) = later.last_mut() {
            last.shown.extend(step.shown.iter().cloned());
        }
        self.feed_shown(open, step.shown)?;
        // The last first, so that of each journal the first says since when it waits.
        for Marked { number, waited_since, .. } in later.iter().rev() {
            let Some(waiting_since) = *waited_since else { continue };
            let mut row = self.journal_row(lane, *number);
            row.applied -= 1;
            row.waiting_since = waiting_since;
            self.set_journal_row(lane, *number, row);
        }
        let begun: Vec<Begun> = later
            .into_iter()
            .map(|Marked { number, seq, shown, .. }| {
                let items = step.left.remove(&(number, seq)).unwrap_or_default();
                Begun { number, seq, items, shown }
            })
            .collect();
        if !begun.is_empty() {
            self.begun.entry(lane).or_default().extend(begun);
        }
        Ok(Advanced { entries: done, more: self.is_tired() || self.begun.contains_key(&lane) })
    }
}
