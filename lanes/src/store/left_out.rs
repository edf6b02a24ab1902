//! Changes that came to an object and cannot be part of it, now or ever.
//!
//! A change is in its object exactly if those that it follows are, if it does what objects do (see
//! `object/past.rs`), and if its author's earlier changes of the object are in it. The rest is left
//! out: listed under the change that it waits for, or behind the change of its author that waits,
//! and tried again when that is taken in. What was refused is listed under itself, since another
//! entry may carry the same change rightly. So what an object holds follows from the entries that
//! are applied, in whatever order they came; and nobody waits for a change but those who build on
//! it, in that one object.

use std::collections::BTreeMap;

use super::overlay::{Arrival, Pending, Touched};
use super::{Open, Store};
use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash, ObjectKey, WallMillis};
use crate::object::{DocumentError, FULL, Incoming, UNSHOWN, View};
use crate::tables::{self, Loc, ObjectRow, RowState};

/// Changes of one author that are taken off the list at once, when they no longer wait: so few are
/// read in vain when the author waits again.
const AWAKE_MAX: usize = 256;

/// What became of the changes that came to an object.
#[derive(Default)]
struct Settled {
    taken: Vec<Arrival>,
    /// Why a change was left out. It may have been taken in since.
    why: Option<String>,
    /// What is damaged.
    damage: Option<StoreError>,
    is_full: bool,
}

/// A change that is left out.
struct Row {
    key: Vec<u8>,
    loc: Loc,
    hash: ChangeHash,
}

impl Store {
    /// Applies the changes that came to an object through its document, and those that waited for
    /// them. Where changes are left out the object is quarantined, and keeps what it holds. So it is
    /// where what is kept of it is damaged; all else goes on.
    pub(super) fn settle(
        &mut self,
        open: &mut Open<'_>,
        touched: &mut Touched,
        key: &[u8],
    ) -> Result<(), StoreError> {
        let mut queue = std::mem::take(&mut touched.pending);
        let Some((lane, id, life)) = tables::split_object_key(key) else { return Ok(()) };
        if queue.is_empty() {
            return Ok(());
        }
        let object = ObjectKey::new(lane, id, life);
        if touched.row.as_ref().is_some_and(|row| says(row, FULL)) {
            return self.leave_all_out(open, object, &queue, &DocumentError::Full);
        }
        let mut settled = Settled::default();
        let mut drained = BTreeMap::new();
        while !queue.is_empty() {
            let damage = &mut settled.damage;
            let mut stalled = self.stalled_authors(open, object, &queue, damage)?;
            let document = self.document(open, touched, key);
            let Some(document) = unless_damaged(document, damage)? else {
                self.leave_all_out(open, object, &queue, &DocumentError::Poisoned)?;
                break;
            };
            stalled.retain(|_, change| !document.has(*change));
            let incoming: Vec<Incoming<'_>> = queue
                .iter()
                .map(|pending| Incoming {
                    change: &pending.change,
                    hash: pending.arrival.hash,
                    actor: pending.author.actor(),
                })
                .collect();
            let taken = document.with_each(&incoming, &stalled);
            let arrivals: Vec<Arrival> = taken.new.iter().map(|at| queue[*at].arrival).collect();
            for (at, error) in &taken.refused {
                let pending = &queue[*at];
                if taken.object.has(pending.arrival.hash) {
                    // Another entry carries it rightly.
                    continue;
                }
                self.leave_out(open, object, pending, error)?;
                self.tell_of(touched, pending);
                let device = pending.author.device;
                settled.why = Some(format!("change by {device} is left out: {error}"));
            }
            touched.document = Some(taken.object);
            settled.is_full = taken.is_full;
            queue = Vec::new();
            if self.leaves_out && !settled.is_full {
                let damage = &mut settled.damage;
                queue = self.wake(open, object, key, &arrivals, &mut drained, damage)?;
            }
            settled.taken.extend(arrivals);
        }
        let leaves_out = self.has_left_out(open, object)?;
        self.show(touched, settled, leaves_out);
        Ok(())
    }

    /// Makes the row say what the document says now.
    fn show(&self, touched: &mut Touched, settled: Settled, leaves_out: bool) {
        if settled.is_full {
            (touched.document, touched.tail) = (None, Vec::new());
            if let Some(row) = &mut touched.row {
                empty(row);
            }
            quarantine(touched, FULL.to_owned());
            return;
        }
        let mut unshown = touched.row.as_ref().is_some_and(|row| says(row, UNSHOWN));
        if let Some(document) = touched.document.as_ref().filter(|_| !settled.taken.is_empty()) {
            let (view, heads) = (document.view(), document.heads());
            unshown = view.is_err();
            let view = view.unwrap_or_else(|_| View::nothing());
            touched.absorb(|n| self.device_of(n), &settled.taken, &heads, &view);
        }
        if unshown {
            quarantine(touched, UNSHOWN.to_owned());
        } else if leaves_out || settled.damage.is_some() {
            let known = "changes of it wait for others that are not here".to_owned();
            let said = touched.row.as_ref().map(|row| &row.state);
            let why = settled.damage.map(|error| error.to_string()).or(settled.why);
            if why.is_some() || !matches!(said, Some(RowState::Quarantined(_))) {
                quarantine(touched, why.unwrap_or(known));
            }
        } else if let Some(row) = &mut touched.row
            && matches!(row.state, RowState::Quarantined(_))
        {
            row.state = RowState::Live;
        }
    }

    fn leave_all_out(
        &mut self,
        open: &mut Open<'_>,
        object: ObjectKey,
        queue: &[Pending],
        error: &DocumentError,
    ) -> Result<(), StoreError> {
        queue.iter().try_for_each(|pending| self.leave_out(open, object, pending, error))
    }

    /// Whether any change of an object is left out.
    pub(super) fn has_left_out(
        &self,
        open: &Open<'_>,
        object: ObjectKey,
    ) -> Result<bool, StoreError> {
        if !self.leaves_out {
            return Ok(false);
        }
        let first = redb::ReadableTable::range::<&[u8]>(&open.left_out, &object.0[..]..)?.next();
        Ok(first.transpose()?.is_some_and(|(key, _)| key.value().starts_with(&object.0)))
    }

    /// The change that this author's next ones wait for at an object.
    fn stalled(
        &self,
        open: &Open<'_>,
        object: ObjectKey,
        author: u32,
    ) -> Result<Option<ChangeHash>, StoreError> {
        if !self.leaves_out {
            return Ok(None);
        }
        let key = tables::stalled_key(object, author);
        tables::read_row(&open.stalled, tables::STALLED, &key)
    }

    /// What the authors of changes wait for at an object. Where that is damaged, an author waits for
    /// ever, and no other does.
    fn stalled_authors(
        &self,
        open: &Open<'_>,
        object: ObjectKey,
        queue: &[Pending],
        damage: &mut Option<StoreError>,
    ) -> Result<BTreeMap<[u8; 16], ChangeHash>, StoreError> {
        let mut stalled = BTreeMap::new();
        for Pending { author, arrival, .. } in queue {
            if !stalled.contains_key(&author.actor()) {
                let number = arrival.loc.author;
                let waits_for = self.stalled(open, object, number);
                let waits_for = unless_damaged(waits_for, damage)?.unwrap_or(Some(behind(number)));
                stalled.extend(waits_for.map(|change| (author.actor(), change)));
            }
        }
        Ok(stalled)
    }

    fn leave_out(
        &mut self,
        open: &mut Open<'_>,
        object: ObjectKey,
        pending: &Pending,
        error: &DocumentError,
    ) -> Result<(), StoreError> {
        let Arrival { hash, loc, .. } = pending.arrival;
        let waits_for = match error {
            DocumentError::MissingDeps(missing) => missing.first().copied().unwrap_or(hash),
            DocumentError::Stalled(_) => behind(loc.author),
            _ => hash,
        };
        let key = tables::left_out_key(object, waits_for, loc);
        tables::insert_row(&mut open.left_out, tables::LEFT_OUT, &key, &hash)?;
        if !matches!(error, DocumentError::Stalled(_)) {
            let key = tables::stalled_key(object, loc.author);
            tables::insert_row(&mut open.stalled, tables::STALLED, &key, &hash)?;
        }
        self.leaves_out = true;
        Ok(())
    }

    /// Leaves a change out that nothing can make right, and says so of its object.
    pub(super) fn refuse(
        &mut self,
        open: &mut Open<'_>,
        touched: &mut Touched,
        object: ObjectKey,
        pending: &Pending,
        error: &DocumentError,
    ) -> Result<(), StoreError> {
        self.leave_out(open, object, pending, error)?;
        if touched.row.as_ref().is_some_and(|row| says(row, FULL) || says(row, UNSHOWN)) {
            return Ok(());
        }
        self.tell_of(touched, pending);
        quarantine(touched, format!("change by {} is left out: {error}", pending.author.device));
        Ok(())
    }

    /// Takes those who waited for these changes off the list, in the order of their journals, and
    /// those behind them some at a time, until their author waits again: so the rest of a long
    /// journal is not looked at. What is damaged, or lies in a damaged entry, stays on the list,
    /// which is told.
    fn wake(
        &self,
        open: &mut Open<'_>,
        object: ObjectKey,
        key: &[u8],
        taken: &[Arrival],
        drained: &mut BTreeMap<u32, usize>,
        damage: &mut Option<StoreError>,
    ) -> Result<Vec<Pending>, StoreError> {
        let mut awake = Vec::new();
        if bug::active(Bug::ApplyEarly) {
            return Ok(awake);
        }
        for Arrival { hash: waited, .. } in taken {
            let rows = rows_waiting(open, object, *waited, usize::MAX, damage)?;
            for rows in rows.chunk_by(of_one_entry) {
                // What is listed under itself was refused before, and is in the object now.
                let locs = rows.iter().filter(|row| row.hash != *waited).map(|row| row.loc);
                let pending = self.pending_at(open, key, &locs.collect::<Vec<_>>());
                let Some(pending) = unless_damaged(pending, damage)? else { continue };
                awake.extend(pending);
                for Row { key: row, loc, hash } in rows {
                    open.left_out.remove(row.as_slice())?;
                    let stalled = self.stalled(open, object, loc.author);
                    if unless_damaged(stalled, damage)?.flatten() == Some(*hash) {
                        let stalled_key = tables::stalled_key(object, loc.author);
                        open.stalled.remove(stalled_key.as_slice())?;
                        drained.insert(loc.author, 1);
                    }
                }
            }
        }
        for author in drained.keys().copied().collect::<Vec<_>>() {
            let count = drained.get(&author).copied().unwrap_or(1);
            let rows = match unless_damaged(self.stalled(open, object, author), damage)? {
                Some(None) => rows_waiting(open, object, behind(author), count, damage)?,
                // It waits, or for what is not known.
                Some(Some(_)) | None => Vec::new(),
            };
            if rows.is_empty() {
                drained.remove(&author);
                continue;
            }
            drained.insert(author, AWAKE_MAX.min(2 * count));
            for rows in rows.chunk_by(of_one_entry) {
                let locs: Vec<Loc> = rows.iter().map(|row| row.loc).collect();
                let pending = self.pending_at(open, key, &locs);
                let Some(pending) = unless_damaged(pending, damage)? else {
                    // The author waits for this one from now on.
                    let stalled_key = tables::stalled_key(object, author);
                    let hash = &rows[0].hash;
                    tables::insert_row(&mut open.stalled, tables::STALLED, &stalled_key, hash)?;
                    break;
                };
                awake.extend(pending);
                for row in rows {
                    open.left_out.remove(row.key.as_slice())?;
                }
            }
        }
        awake.sort_by_key(|pending: &Pending| {
            let loc = pending.arrival.loc;
            (loc.author, loc.seq, loc.item)
        });
        Ok(awake)
    }

    /// Changes of one applied entry as they came.
    fn pending_at(
        &self,
        open: &Open<'_>,
        key: &[u8],
        locs: &[Loc],
    ) -> Result<Vec<Pending>, StoreError> {
        let Some(Loc { author, seq, .. }) = locs.first() else { return Ok(Vec::new()) };
        let damaged = || StoreError::damaged_value(tables::OBJECTS, key);
        let (lane, _, _) = tables::split_object_key(key).ok_or_else(damaged)?;
        let entry_key = tables::entry_key(lane, *author, *seq);
        let bytes = tables::read_with(&open.entries, tables::ENTRIES, &entry_key, <[u8]>::to_vec)?;
        let bytes = bytes.ok_or_else(|| StoreError::damaged_value(tables::ENTRIES, &entry_key))?;
        let entry = super::entries::read_stored(&entry_key, &bytes)?;
        let header = &entry.header;
        let one = |loc: &Loc| {
            let item = header.items.get(usize::from(loc.item))?;
            let (hash, confined, wall) = (item.change, item.confined, header.wall);
            Some(Pending {
                arrival: Arrival { hash, loc: *loc, wall, confined },
                author: header.author,
                class: header.classes.get(usize::from(item.class)).cloned().unwrap_or_default(),
                change: entry.parts(usize::from(loc.item))?.change.to_vec(),
            })
        };
        locs.iter().map(|loc| one(loc).ok_or_else(damaged)).collect()
    }

    /// Tells of an object of which nothing else is known what the first change says that was left
    /// out, by its author's clock: the same on every device.
    fn tell_of(&self, touched: &mut Touched, pending: &Pending) {
        let Arrival { loc, wall, confined, .. } = pending.arrival;
        let place = |wall: WallMillis, loc: Loc| -> (WallMillis, Option<Author>, u64, u16) {
            (wall, self.authors.get(loc.author), loc.seq, loc.item)
        };
        let known = touched.row.as_ref();
        if known.is_none_or(|row| {
            row.changes == 0 && place(wall, loc) < place(row.updated_at, row.first)
        }) {
            touched.row = Some(ObjectRow {
                state: known.map_or(RowState::Live, |row| row.state.clone()),
                kind: String::new(),
                class: pending.class.clone(),
                labels: BTreeMap::new(),
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
                types: BTreeMap::new(),
            });
        }
        if let Some(row) = touched.row.as_mut().filter(|row| row.changes == 0) {
            row.confined |= confined;
        }
    }
}

/// What changes are listed under that wait behind another one of their author.
fn behind(author: u32) -> ChangeHash {
    // No change has a hash of so many zeros.
    let mut name = [0; 32];
    name[28..].copy_from_slice(&author.to_be_bytes());
    ChangeHash(name)
}

/// The first changes that wait for this one, up to one that is damaged: those after it may follow it.
fn rows_waiting(
    open: &Open<'_>,
    object: ObjectKey,
    waits_for: ChangeHash,
    limit: usize,
    damage: &mut Option<StoreError>,
) -> Result<Vec<Row>, StoreError> {
    let prefix = [&object.0[..], &waits_for.0].concat();
    let mut rows = Vec::new();
    for row in redb::ReadableTable::range::<&[u8]>(&open.left_out, &*prefix..)? {
        let (key, _) = row?;
        let key = key.value();
        if !key.starts_with(&prefix) || rows.len() == limit {
            break;
        }
        let damaged = || StoreError::damaged_value(tables::LEFT_OUT, key);
        let read = || {
            let loc = tables::left_out_loc(key).ok_or_else(damaged)?;
            let hash = tables::read_row(&open.left_out, tables::LEFT_OUT, key)?;
            Ok((loc, hash.ok_or_else(damaged)?))
        };
        let Some((loc, hash)) = unless_damaged(read(), damage)? else { break };
        rows.push(Row { key: key.to_vec(), loc, hash });
    }
    Ok(rows)
}

/// What was read, or nothing where it is damaged, which is noted: damage concerns one object.
fn unless_damaged<T>(
    read: Result<T, StoreError>,
    damage: &mut Option<StoreError>,
) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ StoreError::Damaged { .. }) => {
            damage.get_or_insert(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn of_one_entry(one: &Row, other: &Row) -> bool {
    (one.loc.author, one.loc.seq) == (other.loc.author, other.loc.seq)
}

/// Whether an object is quarantined for this reason.
fn says(row: &ObjectRow, why: &str) -> bool {
    matches!(&row.state, RowState::Quarantined(said) if said == why)
}

/// Makes an object show nothing, and hold no changes.
fn empty(row: &mut ObjectRow) {
    let content = View::nothing().content;
    row.kind = content.kind().to_owned();
    row.class = content.class().to_owned();
    row.body = content.body().to_string();
    (row.labels, row.types) = (BTreeMap::new(), content.types().clone());
    (row.conflicts, row.heads) = (Vec::new(), Vec::new());
    (row.changes, row.saved_changes, row.confined) = (0, 0, false);
    row.updated_at = WallMillis(0);
}

/// Keeps what an object shows, and says why it is not all. What is deleted stays so.
fn quarantine(touched: &mut Touched, why: String) {
    if let Some(row) = &mut touched.row
        && row.state != RowState::Hidden
    {
        row.state = RowState::Quarantined(why);
    }
}
