//! After faults end, devices hold the same and show the same; if they do not, who waits for what.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::frontier::Frontier;
use srcos_lanes::ids::Author;
use srcos_lanes::journal::{Entry, Header};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{ShownObject, Store, Visibility};
use srcos_lanes::tables::RowState;
use srcos_replication::peers::LaneState;

use super::confined::may_hear;
use super::{Checked, Excuses, Violation, list, look, running, snapshot, violated};
use crate::cluster::{Node, Running, shared_lanes};

/// The invariant's name.
pub const NAME: &str = "lane.converged";

/// What a node shows, as text.
type Shown = BTreeMap<(LaneId, String), String>;

/// What a node holds, as far as others must hold the same.
struct Held {
    /// The digest of its roster.
    records: [u8; 32],
    lanes: BTreeMap<LaneId, Frontier>,
    /// The journals with two histories, where the proof of them must reach everyone.
    forked: BTreeSet<(LaneId, Author)>,
}

/// What the final comparison is about.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'c> {
    /// All nodes.
    pub nodes: &'c [Node],
    /// Those that must agree.
    pub core: &'c BTreeSet<usize>,
    /// Lanes in which somebody wrote two histories: the devices need not agree there.
    pub skipped: &'c BTreeSet<LaneId>,
    /// What cannot be demanded.
    pub excuses: &'c Excuses,
}

impl Comparison<'_> {
    fn lanes(&self) -> impl Iterator<Item = LaneId> {
        shared_lanes().filter(|lane| !self.skipped.contains(lane))
    }

    /// What keeps the devices from being in step: who waits for what, so many at most. Empty when they
    /// are in step.
    pub fn waits(&self, joined: impl Fn(usize, usize) -> bool, most: usize) -> Vec<String> {
        let known: BTreeMap<usize, Held> = running(self.nodes, self.core)
            .map(|(number, running)| (number, self.held(running)))
            .collect();
        let mut waits = Vec::new();
        for number in self.core {
            match (&self.nodes[*number].running, known.get(number)) {
                (Some(running), Some(held)) => {
                    self.node_lacks(*number, held, &known, &mut waits);
                    if waits.len() < most {
                        self.node_waits(*number, running, &joined, &mut waits);
                    }
                }
                _ => waits.push(format!("n{number} does not run")),
            }
            if waits.len() >= most {
                break;
            }
        }
        waits
    }

    /// In a disputed lane, what others than the disputed devices wrote must still reach everyone.
    fn held(&self, node: &Running) -> Held {
        let frontier = |lane: LaneId| {
            if self.skipped.contains(&lane) {
                self.undisputed(lane, node)
            } else {
                node.store.frontier(lane)
            }
        };
        let forked = |lane: LaneId| {
            let journals = node.store.journals(lane).filter(|(_, row)| row.forked);
            journals.map(move |(author, _)| (lane, author))
        };
        let is_due = self.excuses.proof_is_due();
        Held {
            records: node.engine.roster().digest(),
            lanes: shared_lanes().map(|lane| (lane, frontier(lane))).collect(),
            forked: shared_lanes().filter(|_| is_due).flat_map(forked).collect(),
        }
    }

    fn node_lacks(
        &self,
        number: usize,
        ours: &Held,
        known: &BTreeMap<usize, Held>,
        waits: &mut Vec<String>,
    ) {
        for (other, theirs) in known {
            if theirs.records != ours.records {
                waits.push(format!("n{number} and n{other} hold other records of the roster"));
            }
            for (lane, author) in theirs.forked.difference(&ours.forked) {
                let by = author.device.short();
                waits.push(format!("n{number} lacks the proof of n{other} against {by} in {lane}"));
            }
            for (lane, held) in &ours.lanes {
                // Both name every shared lane.
                let lacks = held.difference(&theirs.lanes[lane]).missing_here;
                if lacks > 0 {
                    waits.push(format!("n{number} lacks {lacks} entries of n{other} in {lane}"));
                }
            }
        }
    }

    fn node_waits(
        &self,
        number: usize,
        node: &Running,
        joined: &impl Fn(usize, usize) -> bool,
        waits: &mut Vec<String>,
    ) {
        for lane in self.lanes() {
            let stuck = self.stuck(lane, node);
            for (author, row) in node.store.journals(lane) {
                // Nobody waits for what is held of a device whose admission is void.
                let waits_for_nothing =
                    self.excuses.void.contains(&author.device) || stuck.contains(&author);
                if row.applied < row.held && !waits_for_nothing {
                    let (by, lag) = (author.device.short(), row.held - row.applied);
                    let mut wait = format!("n{number} has {lag} of {lane} by {by} unapplied");
                    let next = next_to_apply(lane, node, &author, row.applied);
                    for after in next.iter().flat_map(|next| &next.after) {
                        let held =
                            node.store.journal(lane, &after.author).map_or(0, |row| row.held);
                        if held < after.seq {
                            let (of, seq) = (after.author.device.short(), after.seq);
                            wait += &format!(", which waits for {seq} of {of}");
                        }
                    }
                    waits.push(wait);
                }
            }
        }
        for lane in self.lanes().chain([LaneId::Secure]) {
            let reports = node.engine.lane_peers(&node.store, lane);
            for other in self.core.iter().copied().filter(|other| joined(number, *other)) {
                let Some(peer) = &self.nodes[other].running else { continue };
                if lane == LaneId::Secure {
                    if !self.exchange(lane, number, other) {
                        continue;
                    }
                    let ours = self.undisputed(lane, node);
                    let lacks = ours.difference(&self.undisputed(lane, peer)).missing_here;
                    if lacks > 0 {
                        waits
                            .push(format!("n{number} lacks {lacks} entries of n{other} in {lane}"));
                    }
                    // Entries may wait for ever for those of a device that closed the lane again.
                    let stranded = node.store.waits(lane) || peer.store.waits(lane);
                    if stranded || self.skipped.contains(&lane) {
                        continue;
                    }
                }
                let device = self.nodes[other].device();
                let stuck = !self.stuck(lane, peer).is_empty();
                let wanted = if stuck { LaneState::Ahead } else { LaneState::InSync };
                let state = reports.iter().find(|report| report.device == device);
                let state = state.map_or("no member", |report| report.state.name());
                if state != wanted.name() {
                    waits.push(format!("n{number} reports n{other} {state} in {lane}"));
                }
            }
        }
    }

    /// Journals of a lane that wait for what went with the disks of all that held it, or with a device that was
    /// put out before its faulty program had sent it. Who was given the first part of a store by one device
    /// before that lost its disk has such, and must not be called in step.
    fn stuck(&self, lane: LaneId, node: &Running) -> BTreeSet<Author> {
        let mut stuck = BTreeSet::new();
        let waiting = || node.store.journals(lane).filter(|(_, row)| row.applied < row.held);
        let gone = self.excuses.put_out_faulty();
        let may_be_lost = !self.excuses.shrunk_at_ms.is_empty() || gone.is_some();
        if !may_be_lost || waiting().next().is_none() {
            return stuck;
        }
        let held = |author: &Author, seq: u64| {
            let nodes = self.nodes.iter().filter(|node| Some(node.device()) != gone);
            let stores = nodes.filter_map(|node| node.running.as_ref());
            stores.filter_map(|node| node.store.journal(lane, author)).any(|row| row.held >= seq)
        };
        let applied =
            |author: &Author| node.store.journal(lane, author).map_or(0, |row| row.applied);
        loop {
            let before = stuck.len();
            for (author, row) in waiting() {
                let lost = next_to_apply(lane, node, &author, row.applied).is_some_and(|next| {
                    next.after.iter().any(|after| {
                        let (of, seq) = (after.author, after.seq);
                        !held(&of, seq) || (stuck.contains(&of) && seq > applied(&of))
                    })
                });
                if lost {
                    stuck.insert(author);
                }
            }
            if stuck.len() == before {
                return stuck;
            }
        }
    }

    /// Whether each of two devices opened a lane to the other.
    fn exchange(&self, lane: LaneId, a: usize, b: usize) -> bool {
        let gives = |from: usize, to: usize| {
            may_hear(&self.nodes[from].grants, lane, self.nodes[to].device())
        };
        gives(a, b) && gives(b, a)
    }

    /// How far the journals of a lane are held whose authors have one history.
    fn undisputed(&self, lane: LaneId, node: &Running) -> Frontier {
        let mut frontier = node.store.frontier(lane);
        frontier.0.retain(|author, _| !self.excuses.forks.contains(&author.device));
        frontier
    }

    /// The run is over and the devices are in step: they show the same.
    pub fn finish(
        &self,
        known: &BTreeSet<(LaneId, String)>,
        confined: &BTreeSet<(LaneId, String)>,
    ) -> Checked {
        let mut first: Option<(usize, Shown)> = None;
        for (number, running) in running(self.nodes, self.core) {
            let shown = self.shown(number, &running.store, known, confined)?;
            let Some((reference, expected)) = &first else {
                first = Some((number, shown));
                continue;
            };
            let names: BTreeSet<_> = shown.keys().chain(expected.keys()).collect();
            for name in names {
                let (ours, theirs) = (shown.get(name), expected.get(name));
                if ours != theirs {
                    let (lane, id) = name;
                    return violated(
                        NAME,
                        format!(
                            "{lane} {id:?} differs\n  n{number}: {}\n  n{reference}: {}",
                            ours.map_or("absent", String::as_str),
                            theirs.map_or("absent", String::as_str),
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// All that a node shows in shared lanes, as text that is alike on every node.
    fn shown(
        &self,
        node: usize,
        store: &Store,
        known: &BTreeSet<(LaneId, String)>,
        confined: &BTreeSet<(LaneId, String)>,
    ) -> Result<Shown, Violation> {
        let apart = self.excuses.shown_apart();
        // A deletion in a lane whose tombstones are disputed is disputed too.
        if apart.contains(&LaneId::Tombstone) {
            return Ok(Shown::new());
        }
        let mut shown = BTreeMap::new();
        let mut listed = BTreeSet::new();
        let lanes: BTreeSet<LaneId> = shared_lanes().filter(|lane| !apart.contains(lane)).collect();
        for lane in lanes.iter().copied() {
            for object in list(node, store, lane)? {
                if let RowState::Quarantined(why) = &object.row.state
                    && !self.excuses.may_be_tainted(lane)
                {
                    let what = format!("n{node} quarantined {lane} {:?}: {why}", object.id);
                    return violated(NAME, what);
                }
                let name = (lane, object.id.clone());
                if lane == LaneId::Tombstone {
                    if !stays(&object.id, confined) {
                        shown.insert(name, describe(&object));
                    }
                    continue;
                }
                if !known.contains(&name) {
                    return violated(NAME, format!("n{node} made up {lane} {:?}", object.id));
                }
                listed.insert(name);
            }
        }
        let snapshot = snapshot(node, store)?;
        for name in known.iter().filter(|(lane, _)| lanes.contains(lane)) {
            let seen = look(node, &snapshot, name.0, &name.1)?;
            let is_shown = matches!(seen, Visibility::Shown(_));
            if is_shown != listed.contains(name) {
                let what = format!("n{node} lists {} {:?} unlike it gets it", name.0, name.1);
                return violated(NAME, what);
            }
            if confined.contains(name) {
                continue;
            }
            let text = match seen {
                Visibility::Shown(object) => describe(&object),
                other => format!("{other:?}"),
            };
            shown.insert(name.clone(), text);
        }
        Ok(shown)
    }
}

/// Whether a tombstone stays on its device, as what it deletes did: see the form of its id.
fn stays(tombstone: &str, confined: &BTreeSet<(LaneId, String)>) -> bool {
    let mut parts = tombstone.splitn(3, '/');
    let lane = parts.next().and_then(|lane| lane.parse::<LaneId>().ok());
    let (Some(lane), Some(id)) = (lane, parts.nth(1)) else { return false };
    !shared_lanes().any(|shared| shared == lane) || confined.contains(&(lane, id.to_owned()))
}

/// An object as text that is alike on every node, so without the numbers that a store gives.
fn describe(object: &ShownObject) -> String {
    let row = &object.row;
    let mut heads = object.heads();
    heads.sort();
    format!(
        "life {} by {} at {} {:?} {} {:?} {} confined {} heads {heads:?} conflicts {:?} changes {}",
        object.life,
        object.author.short(),
        row.updated_at.0,
        row.kind,
        row.class,
        row.labels,
        row.body,
        row.confined,
        row.conflicts,
        row.changes,
    )
}

/// The first entry of a journal that is held and not applied.
fn next_to_apply(lane: LaneId, node: &Running, author: &Author, applied: u64) -> Option<Header> {
    let next = node.store.entries(lane, author, applied + 1, 1, 1).ok()?;
    Some(Entry::read(next.first()?).ok()?.header)
}
