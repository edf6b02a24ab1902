//! Which life of an id is shown.
//!
//! Any member may sign any life of any id, and the deletion of any. So a life counts for no more than
//! the deletions of all lives before it: the one that is shown is the first that is not known to be
//! deleted. That follows from the entries that are applied, in whatever order they came, and it only
//! ever moves forward. A life that nobody has reached yet hides nothing; it is kept, and shown once
//! its time comes.
//!
//! Where objects expire, nothing tells of a life that has ended. Such a lane never leaves its device,
//! so that there the last life is the one.

use redb::ReadableTable;

use super::overlay::Overlay;
use super::{Open, Snapshot};
use crate::error::StoreError;
use crate::lane::LaneId;
use crate::tables;

/// How many lives of an id were deleted, from the first on and without a gap, when so many are known
/// to be. Takes a step for each further one.
fn ended(
    graves: &impl ReadableTable<&'static [u8], &'static [u8]>,
    lane: LaneId,
    id: &str,
    known: u32,
) -> Result<u32, StoreError> {
    let first = tables::object_key(lane, id, known.saturating_add(1));
    let last = tables::object_key(lane, id, u32::MAX);
    let mut ended = known;
    for row in graves.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
        match life_of(row?.0.value()) {
            Some(life) if life - 1 == ended => ended = life,
            _ => break,
        }
    }
    Ok(ended)
}

/// The highest life of an id that a table has a row for, and 0 if none.
fn highest(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    lane: LaneId,
    id: &str,
) -> Result<u32, StoreError> {
    let first = tables::object_key(lane, id, 1);
    let last = tables::object_key(lane, id, u32::MAX);
    let found =
        table.range::<&[u8]>(first.as_slice()..=last.as_slice())?.next_back().transpose()?;
    Ok(found.and_then(|(key, _)| life_of(key.value())).unwrap_or(0))
}

fn life_of(key: &[u8]) -> Option<u32> {
    Some(tables::split_object_key(key)?.2)
}

/// Whether all lives before that of an object are deleted, so that it counts.
pub(super) fn has_come(
    graves: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<bool, StoreError> {
    let Some((lane, id, life)) = tables::split_object_key(key) else { return Ok(false) };
    if life <= 1 || lane.definition().ttl.is_some() {
        return Ok(true);
    }
    // Of a far life it is known at once.
    let before = tables::object_key(lane, id, life - 1);
    Ok(graves.get(before.as_slice())?.is_some() && ended(graves, lane, id, 0)? >= life - 1)
}

impl Snapshot {
    /// The life of an id that is shown, or would be.
    pub(super) fn current_life(&self, lane: LaneId, id: &str) -> Result<u32, StoreError> {
        let graves = self.table(tables::TOMBSTONES)?;
        if lane.definition().ttl.is_some() {
            let deleted = highest(graves, lane, id)?;
            let last = highest(self.table(tables::OBJECTS)?, lane, id)?;
            return Ok(last.max(deleted.saturating_add(1)));
        }
        Ok(ended(graves, lane, id, 0)?.saturating_add(1))
    }
}

impl Overlay {
    /// The life of an id that is shown, or would be, as the step leaves it. The lives of one id are
    /// walked over once in a step.
    pub(super) fn current_life(
        &mut self,
        open: &Open<'_>,
        lane: LaneId,
        id: &str,
    ) -> Result<u32, StoreError> {
        if lane.definition().ttl.is_some() {
            let deleted = highest(&open.tombstones, lane, id)?.max(self.latest_grave(lane, id));
            let last = highest(&open.objects, lane, id)?.max(self.latest_life(lane, id));
            return Ok(last.max(deleted.saturating_add(1)));
        }
        let name = tables::object_key(lane, id, 0);
        let mut known = self.ended.get(&name).copied().unwrap_or(0);
        let from = known;
        loop {
            known = ended(&open.tombstones, lane, id, known)?;
            if !self.buries(&tables::object_key(lane, id, known.saturating_add(1))) {
                break;
            }
            known += 1;
        }
        self.walked += (known - from) as usize;
        self.ended.insert(name, known);
        Ok(known.saturating_add(1))
    }
}
