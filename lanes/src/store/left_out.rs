//! Changes that came to an object and cannot be part of it, now or ever.
//!
//! A change is in its object exactly if those that it follows are, if it does what objects do (see
//! `object/past.rs`), and if its author's earlier changes of the object are in it. The rest is left
//! out: listed under the change that it waits for, and tried again when that is taken in. What was
//! refused is listed under itself, since another entry may carry the same change rightly. So what an
//! object holds follows from the entries that are applied, in whatever order they came; and nobody
//! waits for a change but those who build on it, in that one object.

use std::collections::BTreeMap;

use super::overlay::{Arrival, Pending, Touched};
use super::{Open, Store};
use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash, ObjectKey, WallMillis};
use crate::object::{DocumentError, Incoming};
use crate::tables::{self, Loc, ObjectRow, RowState};

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
        let mut why = None;
        while !queue.is_empty() {
            let document = match self.document(open, touched, key) {
                Ok(document) => document,
                Err(error @ StoreError::Damaged { .. }) => {
                    quarantine(touched, error.to_string());
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let mut stalled: BTreeMap<[u8; 16], ChangeHash> = BTreeMap::new();
            for Pending { author, arrival, .. } in &queue {
                let waits_for = self.stalled(open, object, arrival.loc.author)?;
                stalled.extend(waits_for.map(|change| (author.actor(), change)));
            }
            stalled.retain(|_, change| !document.has(*change));
            let incoming: Vec<Incoming<'_>> = queue
                .iter()
                .map(|pending| Incoming {
                    change: &pending.change,
                    hash: pending.arrival.hash,
                    actor: pending.author.actor(),
                })
                .collect();
            let taken = match document.with_each(&incoming, &stalled) {
                Ok(taken) => taken,
                Err(error) => {
                    quarantine(touched, error.to_string());
                    return Ok(());
                }
            };
            let arrivals: Vec<Arrival> = taken.new.iter().map(|at| queue[*at].arrival).collect();
            if !arrivals.is_empty() {
                touched.absorb(
                    |n| self.device_of(n),
                    &arrivals,
                    &taken.object.heads(),
                    &taken.view,
                );
            }
            for (at, error) in &taken.refused {
                let pending = &queue[*at];
                if taken.object.has(pending.arrival.hash) {
                    // Another entry carries it rightly.
                    continue;
                }
                self.leave_out(open, object, pending, error)?;
                self.tell_of(touched, pending);
                why = Some(format!("change by {} is left out: {error}", pending.author.device));
            }
            touched.document = Some(taken.object);
            queue = match self.leaves_out {
                true => self.wake(open, object, key, &arrivals)?,
                false => Vec::new(),
            };
        }
        if self.has_left_out(open, object)? {
            let known = "changes of it wait for others that are not here".to_owned();
            let said = touched.row.as_ref().map(|row| &row.state);
            if why.is_some() || !matches!(said, Some(RowState::Quarantined(_))) {
                quarantine(touched, why.unwrap_or(known));
            }
        } else if let Some(row) = &mut touched.row
            && matches!(row.state, RowState::Quarantined(_))
        {
            row.state = RowState::Live;
        }
        Ok(())
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
            DocumentError::Stalled(change) => *change,
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
        self.tell_of(touched, pending);
        quarantine(touched, format!("change by {} is left out: {error}", pending.author.device));
        Ok(())
    }

    /// Takes those who waited for these changes off the list: in the order of their journals.
    fn wake(
        &self,
        open: &mut Open<'_>,
        object: ObjectKey,
        key: &[u8],
        taken: &[Arrival],
    ) -> Result<Vec<Pending>, StoreError> {
        let mut awake = Vec::new();
        if bug::active(Bug::ApplyEarly) {
            return Ok(awake);
        }
        for Arrival { hash: waited, .. } in taken {
            for row in rows_waiting(open, &[&object.0[..], &waited.0].concat())? {
                let loc = tables::left_out_loc(&row)
                    .ok_or_else(|| StoreError::damaged_value(tables::LEFT_OUT, &row))?;
                let hash: Option<ChangeHash> =
                    tables::read_row(&open.left_out, tables::LEFT_OUT, &row)?;
                open.left_out.remove(row.as_slice())?;
                let stalled_key = tables::stalled_key(object, loc.author);
                let stalled = tables::read_row(&open.stalled, tables::STALLED, &stalled_key)?;
                if stalled == hash {
                    open.stalled.remove(stalled_key.as_slice())?;
                }
                if hash != Some(*waited) {
                    awake.push(self.pending_at(open, key, loc)?);
                }
            }
        }
        awake.sort_by_key(|pending| {
            let loc = pending.arrival.loc;
            (loc.author, loc.seq, loc.item)
        });
        Ok(awake)
    }

    /// A change of an applied entry as it came.
    fn pending_at(&self, open: &Open<'_>, key: &[u8], loc: Loc) -> Result<Pending, StoreError> {
        let damaged = || StoreError::damaged_value(tables::OBJECTS, key);
        let (lane, _, _) = tables::split_object_key(key).ok_or_else(damaged)?;
        let entry_key = tables::entry_key(lane, loc.author, loc.seq);
        let bytes = tables::read_with(&open.entries, tables::ENTRIES, &entry_key, <[u8]>::to_vec)?;
        let bytes = bytes.ok_or_else(|| StoreError::damaged_value(tables::ENTRIES, &entry_key))?;
        let entry = super::entries::read_stored(&entry_key, &bytes)?;
        let header = &entry.header;
        let item = header.items.get(usize::from(loc.item)).ok_or_else(damaged)?;
        let parts = entry.parts(usize::from(loc.item)).ok_or_else(damaged)?;
        let (hash, confined, wall) = (item.change, item.confined, header.wall);
        Ok(Pending {
            arrival: Arrival { hash, loc, wall, confined },
            author: header.author,
            class: header.classes.get(usize::from(item.class)).cloned().unwrap_or_default(),
            change: parts.change.to_vec(),
        })
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
        if let Some(row) = &mut touched.row {
            row.confined |= confined;
        }
    }
}

/// Keys of the rows of left-out changes that begin so.
fn rows_waiting(open: &Open<'_>, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut rows = Vec::new();
    for row in redb::ReadableTable::range::<&[u8]>(&open.left_out, prefix..)? {
        let (key, _) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        rows.push(key.value().to_vec());
    }
    Ok(rows)
}

/// Keeps what an object shows, and says why it is not all. What is deleted stays so.
fn quarantine(touched: &mut Touched, why: String) {
    if let Some(row) = &mut touched.row
        && row.state != RowState::Hidden
    {
        row.state = RowState::Quarantined(why);
    }
}
