//! What this node says of each lane in receipts and digests, kept until a journal of the lane changes:
//! it is asked for at every message, and changes only with writes and runs.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use crate::wire::{LaneReceipt, lanes_digest};

/// One lane, at one state of the store.
pub(super) struct HeldLane {
    version: u64,
    /// What a receipt says of it.
    pub(super) receipt: LaneReceipt,
    /// Its digest.
    pub(super) digest: [u8; 32],
}

/// What this node holds of each lane.
#[derive(Default)]
pub(super) struct Held(BTreeMap<LaneId, HeldLane>);

impl Held {
    /// What is held of a lane now, and what of it is not applied yet.
    pub(super) fn lane(&mut self, store: &Store, lane: LaneId) -> &HeldLane {
        let version = store.lane_version(lane);
        let held = self.0.entry(lane).or_insert_with(|| read(store, lane, version));
        if held.version != version {
            *held = read(store, lane, version);
        }
        held
    }

    /// The digest of what is held of some lanes.
    pub(super) fn digest(&mut self, store: &Store, lanes: &BTreeSet<LaneId>) -> [u8; 32] {
        lanes_digest(lanes.iter().map(|lane| self.lane(store, *lane).digest))
    }
}

fn read(store: &Store, lane: LaneId, version: u64) -> HeldLane {
    let unapplied = store.journals(lane).filter(|(_, row)| row.applied < row.held && !row.forked);
    let mut unapplied: Vec<_> = unapplied.map(|(author, row)| (author, row.applied)).collect();
    // The same on every device that holds the same.
    unapplied.sort_unstable();
    let receipt = LaneReceipt { lane: lane.code(), held: store.frontier(lane), unapplied };
    HeldLane { version, digest: receipt.digest(), receipt }
}
