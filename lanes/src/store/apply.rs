//! Applying entries that are held: in causal order, one entry whole, into rows that reads use.

use std::collections::BTreeSet;

use redb::WriteTransaction;
use serde::{Deserialize, Serialize};

use super::overlay::{Arrival, Overlay, Pending, Touched};
use super::{Open, Store, WaitsFor};
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash, DeviceId, ObjectKey, WallMillis};
use crate::journal::{After, BodyParts, Entry, Header};
use crate::lane::LaneId;
use crate::object::{self, DocumentError, Incoming, Object, View};
use crate::tables::{self, FeedRow, Loc, ObjectRow, RowState, TombstoneRow};

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
        let waiting: Vec<u32> = self
            .lane_journals(lane)
            .filter(|(_, row)| row.applied < row.held)
            .map(|(number, _)| number)
            .collect();
        // What is parked is looked at again when what it waits for is here.
        if waiting.iter().all(|number| self.parked.contains_key(&(lane, *number))) {
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
        if row.applied >= row.held || self.parked.contains_key(&(lane, number)) {
            return Ok(false);
        }
        let key = tables::entry_key(lane, number, row.applied + 1);
        let bytes = tables::read_with(&open.entries, tables::ENTRIES, &key, <[u8]>::to_vec)?;
        let bytes = bytes.ok_or_else(|| StoreError::damaged_value(tables::ENTRIES, &key))?;
        let entry = super::entries::read_stored(&key, &bytes)?;
        if !self.is_ready(open, overlay, number, &entry)? {
            return Ok(false);
        }
        self.apply_entry(turn, open, overlay, number, &entry)?;
        self.note_applied(lane, number, now);
        Ok(true)
    }

    /// Whether all that an entry builds on is here: the entries that its header names, and the
    /// changes that its own changes follow. A header is its author's word, and may name too little.
    /// An entry that came too early waits, and its journal with it, so that every device applies
    /// the same changes in the end, whatever came first.
    pub(super) fn is_ready(
        &mut self,
        open: &Open<'_>,
        overlay: &mut Overlay,
        number: u32,
        entry: &Entry<'_>,
    ) -> Result<bool, StoreError> {
        let lane = entry.header.lane;
        let applied = |after: &After| {
            self.journal(lane, &after.author).is_some_and(|row| row.applied >= after.seq)
        };
        if let Some(after) = entry.header.after.iter().find(|after| !applied(after)) {
            self.parked.insert((lane, number), WaitsFor::Entry(after.author, after.seq));
            return Ok(false);
        }
        let mut earlier: BTreeSet<(ObjectKey, ChangeHash)> = BTreeSet::new();
        for (index, item) in entry.header.items.iter().enumerate() {
            let Some(parts) = entry.parts(index) else { continue };
            let key = tables::object_key(lane, parts.id, parts.life);
            // What cannot be read builds on nothing; it is refused when it is applied.
            for dep in object::deps(parts.change).unwrap_or_default() {
                if !earlier.contains(&(item.key, dep))
                    && !self.is_known(open, overlay, &key, item.key, dep)?
                {
                    self.parked.insert((lane, number), WaitsFor::Change(item.key, dep));
                    return Ok(false);
                }
            }
            if entry.header.items.len() > 1 {
                earlier.insert((item.key, item.change));
            }
        }
        Ok(true)
    }

    /// Whether an object has a change, or is known never to have it.
    fn is_known(
        &mut self,
        open: &Open<'_>,
        overlay: &mut Overlay,
        key: &[u8],
        object: ObjectKey,
        change: ChangeHash,
    ) -> Result<bool, StoreError> {
        let touched = overlay.touch(open, key)?;
        if touched.knows(change) {
            return Ok(true);
        }
        if touched.row.as_ref().is_some_and(|row| row.changes > 0) {
            let has = match self.document(open, touched, key) {
                Ok(document) => {
                    let has = document.has(change);
                    if touched.tail.is_empty() {
                        // As it was committed: it need not be held until the step is written.
                        self.documents.put(key.to_vec(), document);
                    } else {
                        touched.document = Some(document);
                    }
                    has
                }
                // It is quarantined when the change is applied.
                Err(StoreError::Damaged { .. }) => true,
                Err(error) => return Err(error),
            };
            if has {
                return Ok(true);
            }
        }
        overlay.is_left_out(open, object, change)
    }

    /// Moves the applied mark of a journal by one.
    pub(super) fn note_applied(&mut self, lane: LaneId, number: u32, now: WallMillis) {
        let mut row = self.journal_row(lane, number);
        row.applied += 1;
        row.waiting_since = now;
        self.set_journal_row(lane, number, row);
        self.unpark_entry(lane, number, row.applied);
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
            let Some(parts) = entry.parts(index) else {
                // It was not sent here. What follows it is not to wait for it.
                overlay.leave_out(item.key, item.change, loc);
                self.unpark_change(item.key, item.change);
                continue;
            };
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
        self.unpark_change(item.key, item.change);
        let class = header.classes.get(usize::from(item.class)).cloned().unwrap_or_default();
        let pending = || Pending { arrival, author, class, change: parts.change.to_vec() };
        let touched = overlay.touch(open, &key)?;
        if touched.row.is_some() && header.lane != LaneId::Tombstone {
            // With what else comes for this object, when the step is written.
            touched.leave(pending());
            return Ok(());
        }
        let first = touched.row.is_none();
        let read = || Object::read_creation(parts.change, item.change, author.actor());
        match if first { read() } else { Ok(None) } {
            Ok(Some(view)) => {
                touched.absorb(|n| self.device_of(n), &[arrival], &[item.change], &view);
            }
            _ => self.apply_to_document(open, touched, &key, &[pending()])?,
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

    /// The journal that waits for an entry of this one is looked at again.
    fn unpark_entry(&mut self, lane: LaneId, number: u32, applied: u64) {
        let Some(author) = self.authors.get(number).filter(|_| !self.parked.is_empty()) else {
            return;
        };
        self.parked.retain(|(of, _), waits| match waits {
            WaitsFor::Entry(waited, seq) => *of != lane || *waited != author || *seq > applied,
            WaitsFor::Change(..) => true,
        });
    }

    /// Journals that wait for this change are looked at again.
    fn unpark_change(&mut self, object: ObjectKey, change: ChangeHash) {
        if !self.parked.is_empty() {
            self.parked.retain(|_, waits| *waits != WaitsFor::Change(object, change));
        }
    }

    /// The document of an object as the step has left it.
    fn document(
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

    /// Applies changes through the document. One that can never be applied is left out, and
    /// quarantines the object. So does damage to what is kept of it: it keeps what it showed, and
    /// all else goes on.
    pub(super) fn apply_to_document(
        &mut self,
        open: &Open<'_>,
        touched: &mut Touched,
        key: &[u8],
        pending: &[Pending],
    ) -> Result<(), StoreError> {
        if pending.is_empty() {
            return Ok(());
        }
        let document = match self.document(open, touched, key) {
            Ok(document) => document,
            Err(error @ StoreError::Damaged { .. }) => {
                quarantine(touched, error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let incoming: Vec<Incoming<'_>> = pending
            .iter()
            .map(|pending| Incoming {
                change: &pending.change,
                hash: pending.arrival.hash,
                actor: pending.author.actor(),
            })
            .collect();
        let taken = match document.with_each(&incoming) {
            Ok(taken) => taken,
            Err(error) => {
                quarantine(touched, error.to_string());
                return Ok(());
            }
        };
        let unfit: BTreeSet<usize> = taken.refused.iter().map(|(at, _)| *at).collect();
        let fit = pending.iter().enumerate().filter(|(at, _)| !unfit.contains(at));
        let arrivals: Vec<Arrival> = fit.map(|(_, one)| one.arrival).collect();
        if !arrivals.is_empty() {
            touched.absorb(|n| self.device_of(n), &arrivals, &taken.object.heads(), &taken.view);
        }
        for (at, error) in taken.refused {
            self.refuse(touched, &pending[at], &error);
        }
        touched.document = Some(taken.object);
        Ok(())
    }

    /// Keeps what an object held before a change that can never be applied, and says so. Where
    /// nothing else of it is known, who wrote when and in which class is told of the refused change
    /// that came first by its author's clock: the same everywhere. The reason is what was found here.
    fn refuse(&self, touched: &mut Touched, refused: &Pending, error: &DocumentError) {
        let Arrival { hash, loc, wall, confined } = refused.arrival;
        touched.refused.push((hash, loc));
        touched.arrived.insert(hash);
        let place = |wall, loc: Loc| (wall, self.authors.get(loc.author), loc.seq, loc.item);
        let known = touched.row.as_ref();
        if known.is_none_or(|row| {
            row.changes == 0 && place(wall, loc) < place(row.updated_at, row.first)
        }) {
            touched.row = Some(ObjectRow {
                state: known.map_or(RowState::Live, |row| row.state.clone()),
                kind: String::new(),
                class: refused.class.clone(),
                labels: Default::default(),
                body: "null".into(),
                conflicts: Vec::new(),
                author: loc.author,
                updated_at: wall,
                confined: known.is_some_and(|row| row.confined),
                heads: Vec::new(),
                first: loc,
                changes: 0,
                saved_changes: 0,
                expires_at: None,
                types: Default::default(),
            });
        }
        if let Some(row) = &mut touched.row {
            row.confined |= confined;
        }
        let by = refused.author.device;
        quarantine(touched, format!("change by {by} could not be applied: {error}"));
    }

    fn device_of(&self, number: u32) -> Option<DeviceId> {
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
        if overlay.grave(open, &key)?.is_none_or(|known| asked(&grave) < asked(&known)) {
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

/// Keeps what an object shows, and says why it shows no more. What is deleted stays so.
fn quarantine(touched: &mut Touched, why: String) {
    if let Some(row) = &mut touched.row
        && row.state != RowState::Hidden
    {
        row.state = RowState::Quarantined(why);
    }
}
