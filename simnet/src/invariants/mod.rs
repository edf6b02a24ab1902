//! What must hold in every run: one checker for each invariant, fed while the run goes on.
//!
//! A checker looks at what it is shown and at what the shipped code can be asked; none of them
//! takes a part in what the nodes do.
//!
//! | invariant | checker |
//! |---|---|
//! | `journal.durable_before_told` | [`durable`] |
//! | `journal.chain_intact` | [`chain`]: what is committed; [`peers`]: nobody who keeps the rules is accused of breaking them |
//! | `lane.converged` | [`converged`] |
//! | `policy.confined` | [`confined`] |
//! | `tombstone.no_resurrection` | [`tombstones`] |
//! | `report.honest` | [`report`]: what a node says of its peers |
//! | `provenance.verifiable` | [`provenance`]; [`marks`]: nobody holds more of a device that was put out than somebody held who heard of it |
//! | `bounds.held` | [`bounds`] |
//! | `network.truth` | [`links`]: whom a node calls connected |
//!
//! `sim.deterministic` is a test: seeds run twice. `tombstone.purge_after_propagation` has no subject yet,
//! as nothing is purged.

pub mod bounds;
pub mod chain;
pub mod confined;
pub mod converged;
pub mod durable;
pub mod links;
pub mod marks;
pub mod peers;
pub mod provenance;
pub mod report;
pub mod tombstones;

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::error::StoreError;
use srcos_lanes::ids::{Author, DeviceId, EntryHash, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{
    DEVICE_JOURNALS_MAX, LIST_OBJECTS_MAX, Query, ShownObject, Snapshot, Store, Visibility,
};
use srcos_lanes::tables::RowState;

use crate::cluster::Node;

/// An invariant that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

impl Violation {
    /// Whether it is only that a node's store could not be read.
    pub fn is_unreadable(&self) -> bool {
        self.what.contains(UNREADABLE)
    }
}

/// What a checker says.
pub type Checked = Result<(), Violation>;

pub(crate) fn violated<T>(
    invariant: &'static str,
    what: impl Into<String>,
) -> Result<T, Violation> {
    Err(Violation { invariant, what: what.into() })
}

const UNREADABLE: &str = "cannot read:";

/// A store that cannot be read although its disk works.
pub fn unreadable(node: usize, error: &StoreError) -> Violation {
    let what = format!("n{node} {UNREADABLE} {error}");
    Violation { invariant: durable::NAME, what }
}

/// What happened in a run that no node can be blamed for. Each entry is made at the moment of the
/// fault, and takes away exactly the demands that the fault makes impossible.
#[derive(Debug, Default)]
pub struct Excuses {
    /// Devices that may have written two histories: put back whole, copied, or hostile.
    pub forks: BTreeSet<DeviceId>,
    /// Devices that lost what they had acknowledged, and when: put back, wiped, or on a lying disk.
    pub shrunk_at_ms: BTreeMap<usize, u64>,
    /// The device whose program loses and swaps runs, if there is one.
    pub faulty: Option<DeviceId>,
    /// Devices that break the rules: a member, and those that it took in unseen.
    pub hostile: BTreeSet<DeviceId>,
    /// Devices that such a member took in. Who believed that, while it did not know of the revocation
    /// that made it void, keeps what they wrote, and it goes to nobody else (ADR 0003).
    pub accomplices: BTreeSet<DeviceId>,
    /// Devices whose admission is void, by all records that any device holds in the end: accomplices, and
    /// whoever was taken in by one that was put out by somebody who had not heard of it.
    pub void: BTreeSet<DeviceId>,
    /// Lanes in which somebody held entries of an accomplice, or of another whose admission is void in the
    /// end. What others built on them is left out where they are not held, and the object says so there
    /// (ADR 0017).
    entangled: BTreeSet<LaneId>,
    /// Lanes in which the first held entries of the second, which joined while the run went on.
    held_of_late: BTreeSet<(DeviceId, DeviceId, LaneId)>,
    /// Lanes in which the member that took them in holds such entries. What it builds on them is left out
    /// by everyone, and the object says so everywhere.
    tainted: BTreeSet<LaneId>,
    /// Lanes in which a member has as many journals as anybody takes. Others may have taken other ones, so
    /// that an object is whole there and not here, until the member is revoked (ADR 0018).
    flooded: BTreeSet<LaneId>,
    /// Who changed what it grants to whom.
    pub regranted: BTreeSet<(DeviceId, DeviceId)>,
    /// Devices that somebody revoked.
    pub revoked: BTreeSet<DeviceId>,
    /// Devices that joined while the run went on, or came back with an empty store.
    pub late: BTreeSet<DeviceId>,
    /// Lanes in which a device that may have written two histories really did, so that no two devices
    /// need agree on what to show. The proof of it may be lost with a disk; what was built on one of
    /// the histories is not, and waits for it for ever.
    pub disputed: BTreeSet<LaneId>,
    /// The entries at the ends of journals of such devices, as they were seen.
    tips: BTreeMap<(LaneId, Author, u64), EntryHash>,
}

impl Excuses {
    /// A node's commit returned.
    pub fn on_commit(&mut self, store: &Store) {
        for of in self.late.iter().filter(|of| **of != store.device()) {
            let held = LaneId::ALL.into_iter().filter(|lane| store.device_journals(*lane, *of) > 0);
            self.held_of_late.extend(held.map(|lane| (store.device(), *of, lane)));
        }
        if self.forks.is_empty() {
            return;
        }
        self.on_hostile(store);
        for lane in LaneId::ALL {
            for (author, row) in store.journals(lane) {
                if !self.forks.contains(&author.device) {
                    continue;
                }
                let known = *self.tips.entry((lane, author, row.held)).or_insert(row.held_hash);
                if row.forked || known != row.held_hash {
                    self.disputed.insert(lane);
                }
            }
        }
    }

    fn on_hostile(&mut self, store: &Store) {
        if self.accomplices.contains(&store.device()) {
            return;
        }
        let is_thief = self.hostile.contains(&store.device());
        for lane in LaneId::ALL {
            let has = |device: &DeviceId| store.device_journals(lane, *device) > 0;
            if self.accomplices.iter().any(has) {
                let lanes = if is_thief { &mut self.tainted } else { &mut self.entangled };
                lanes.insert(lane);
            }
            if is_thief {
                continue;
            }
            let full =
                |device: &DeviceId| store.device_journals(lane, *device) >= DEVICE_JOURNALS_MAX;
            if self.hostile.iter().any(full) {
                self.flooded.insert(lane);
            }
        }
    }

    /// By all records that any device holds in the end these are void: who believed them before keeps what
    /// they wrote, and it goes to nobody else (ADR 0003).
    pub fn note_void(&mut self, void: BTreeSet<DeviceId>) {
        for (by, of, lane) in &self.held_of_late {
            if void.contains(of) && !void.contains(by) {
                let is_thief = self.hostile.contains(by);
                let lanes = if is_thief { &mut self.tainted } else { &mut self.entangled };
                lanes.insert(*lane);
            }
        }
        self.void = void;
    }

    /// Whether somebody hands on what a device writes, although nobody should take it.
    pub fn is_unwelcome(&self, device: DeviceId) -> bool {
        self.revoked.contains(&device) || self.accomplices.contains(&device)
    }

    /// Whether an object of a lane may be quarantined for now, since somebody lacks what it builds on and
    /// cannot get it: it was written to one of two histories, by a device whose admission is void, or to a
    /// journal beyond those that are taken of a device.
    pub fn may_be_incomplete(&self, lane: LaneId) -> bool {
        let apart = [&self.disputed, &self.entangled, &self.flooded];
        self.may_be_tainted(lane) || apart.iter().any(|lanes| lanes.contains(&lane))
    }

    /// Whether an object of a lane may be quarantined everywhere.
    pub fn may_be_tainted(&self, lane: LaneId) -> bool {
        self.tainted.contains(&lane)
    }

    /// Whether somebody took more journals of a device that breaks the rules than are taken of a member.
    pub fn is_flooded(&self) -> bool {
        !self.flooded.is_empty()
    }

    /// Whether the proof of every second history must reach everyone: only the member that breaks the rules
    /// wrote any, no disk lost a proof, and nobody put that member out, with a mark perhaps before the
    /// place where its histories part.
    pub fn proof_is_due(&self) -> bool {
        let lost = !self.shrunk_at_ms.is_empty();
        !lost && self.forks.is_subset(&self.hostile) && self.revoked.is_disjoint(&self.hostile)
    }

    /// Lanes in which devices hold and report alike in the end, and need not show alike.
    pub fn shown_apart(&self) -> BTreeSet<LaneId> {
        match self.void.is_empty() {
            true => self.disputed.clone(),
            false => self.disputed.union(&self.entangled).copied().collect(),
        }
    }

    /// The device that was put out while its program was faulty: what that had not sent by then nobody gets.
    pub fn put_out_faulty(&self) -> Option<DeviceId> {
        self.faulty.filter(|device| self.revoked.contains(device))
    }

    /// Whether a node's own acknowledged writes may be gone.
    pub fn lost(&self, node: usize) -> bool {
        self.shrunk_at_ms.contains_key(&node)
    }
}

/// Which lanes of each node changed since the checkers last looked at what it committed: most commits
/// touch one lane of eleven.
#[derive(Debug, Default)]
pub struct Grown(BTreeMap<(usize, LaneId), u64>);

impl Grown {
    /// The lanes in which a node's journals are not what they were when this was asked last.
    pub fn since_last(&mut self, node: usize, store: &Store) -> Vec<LaneId> {
        let versions = LaneId::ALL.into_iter().map(|lane| (lane, store.lane_version(lane)));
        let changed =
            versions.filter(|(lane, now)| self.0.insert((node, *lane), *now) != Some(*now));
        changed.map(|(lane, _)| lane).collect()
    }

    /// A node opened its store anew, which begins to count anew, or its checkers forgot what it held.
    pub fn forget(&mut self, node: usize) {
        self.0.retain(|(of, _), _| *of != node);
    }
}

/// The devices of the final comparison: by number, with what runs on them.
pub fn running<'n>(
    nodes: &'n [Node],
    core: &'n BTreeSet<usize>,
) -> impl Iterator<Item = (usize, &'n crate::cluster::Running)> {
    core.iter().filter_map(|number| Some((*number, nodes[*number].running.as_ref()?)))
}

/// What a node has committed, to look at.
pub(crate) fn snapshot(node: usize, store: &Store) -> Result<Snapshot, Violation> {
    store.reader().snapshot().map_err(|error| unreadable(node, &error))
}

pub(crate) fn look(
    node: usize,
    snapshot: &Snapshot,
    lane: LaneId,
    id: &str,
) -> Result<Visibility, Violation> {
    snapshot.object(lane, id, WallMillis(0)).map_err(|error| unreadable(node, &error))
}

pub(crate) fn list(
    node: usize,
    store: &Store,
    lane: LaneId,
) -> Result<Vec<ShownObject>, Violation> {
    let mut objects = Vec::new();
    let mut query = Query { limit: LIST_OBJECTS_MAX, ..Query::default() };
    loop {
        let snapshot = snapshot(node, store)?;
        let page = snapshot.list(lane, &query, WallMillis(0));
        let page = page.map_err(|error| unreadable(node, &error))?;
        let is_quarantined = |object: &&ShownObject| object.row.state != RowState::Live;
        for object in page.objects.iter().filter(is_quarantined) {
            // In place of one that cannot be read, a list only says so.
            look(node, &snapshot, lane, &object.id)?;
        }
        objects.extend(page.objects);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(objects),
        }
    }
}
