//! The journals of a store in memory: their rows, which of them wait, and how many each device has.
//!
//! A device begins a journal in each lane with each of its incarnations, and a new incarnation costs
//! it nothing. So the journals of one device in one lane are bounded (ADR 0018): what every member
//! keeps and names in its receipts must not be for one member to make endless.

use std::collections::{BTreeMap, BTreeSet};

use super::Authors;
use crate::ids::DeviceId;
use crate::lane::LaneId;
use crate::tables::JournalRow;

/// Journals of one device in one lane, at most. A device has one for each time that its store was put
/// back or cloned, which is a few; and what is kept of all eleven lanes must fit into one revocation.
pub const DEVICE_JOURNALS_MAX: usize = 93;
/// Journals of one revoked device in one lane, at most. Others may have kept other ones than this store,
/// and what they held is accepted everywhere: eleven devices that all kept different ones.
pub const REVOKED_JOURNALS_MAX: usize = 1_024;

/// The rows of all journals, by lane and author number.
#[derive(Default)]
pub(super) struct Journals {
    rows: BTreeMap<(LaneId, u32), JournalRow>,
    /// Journals that are held further than they are applied.
    waiting: BTreeSet<(LaneId, u32)>,
    per_device: BTreeMap<(LaneId, DeviceId), usize>,
}

impl Journals {
    pub(super) fn new(rows: BTreeMap<(LaneId, u32), JournalRow>, authors: &Authors) -> Self {
        let mut journals = Self::default();
        for ((lane, number), row) in rows {
            journals.set(lane, number, row, authors);
        }
        journals
    }

    pub(super) fn get(&self, lane: LaneId, number: u32) -> Option<&JournalRow> {
        self.rows.get(&(lane, number))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LaneId, u32, &JournalRow)> {
        self.rows.iter().map(|((lane, number), row)| (*lane, *number, row))
    }

    pub(super) fn of_lane(&self, lane: LaneId) -> impl Iterator<Item = (u32, &JournalRow)> {
        self.rows.range((lane, 0)..=(lane, u32::MAX)).map(|((_, number), row)| (*number, row))
    }

    /// The journals of a lane that are held further than they are applied.
    pub(super) fn waiting(&self, lane: LaneId) -> impl Iterator<Item = u32> {
        self.waiting.range((lane, 0)..=(lane, u32::MAX)).map(|(_, number)| *number)
    }

    /// How many journals a device has in a lane.
    pub(super) fn of_device(&self, lane: LaneId, device: DeviceId) -> usize {
        self.per_device.get(&(lane, device)).copied().unwrap_or(0)
    }

    /// Sets a row. Returns whose it is, when with it the device has as many journals in the lane as are
    /// taken in, and had not before.
    pub(super) fn set(
        &mut self,
        lane: LaneId,
        number: u32,
        row: JournalRow,
        authors: &Authors,
    ) -> Option<DeviceId> {
        if row.applied < row.held {
            self.waiting.insert((lane, number));
        } else {
            self.waiting.remove(&(lane, number));
        }
        if self.rows.insert((lane, number), row).is_some() {
            return None;
        }
        let device = authors.get(number)?.device;
        let count = self.per_device.entry((lane, device)).or_default();
        *count += 1;
        (*count == DEVICE_JOURNALS_MAX).then_some(device)
    }
}
