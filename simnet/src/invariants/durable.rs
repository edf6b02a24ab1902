//! What a node committed, and so may have told, is there after every crash; and what it says is what
//! was last acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use srcos_lanes::frontier::Tip;
use srcos_lanes::ids::Author;
use srcos_lanes::journal::Entry;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Action, Op, Outcome, Snapshot, Store, Visibility};

use super::{Checked, Excuses, look, running, snapshot, tombstones, unreadable, violated};
use crate::cluster::{Node, shared_lanes};
use crate::workload::owner;

/// The invariant's name.
pub const NAME: &str = "journal.durable_before_told";

type Journals = BTreeMap<(LaneId, Author), Tip>;

/// What must be found under an id that one device alone writes.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// The body of the last acknowledged write; `None` after a deletion.
    acknowledged: Option<Value>,
    /// What was written later and never acknowledged: each may be there or not.
    perhaps: Vec<Option<Value>>,
}

/// The oracle of acknowledged writes.
#[derive(Debug, Default)]
pub struct Durable {
    told: BTreeMap<usize, Journals>,
    /// The latest life that each node deleted.
    deleted: BTreeMap<(usize, LaneId, String), u32>,
    own: BTreeMap<(LaneId, String), Expected>,
    /// How many writes were acknowledged.
    pub acknowledged: u64,
}

/// What an operation leaves under its id.
fn left(op: &Op) -> Option<Value> {
    match &op.action {
        Action::Put(put) => Some(put.body.clone()),
        _ => None,
    }
}

impl Durable {
    /// A node's commit returned, which changed these lanes.
    pub fn on_commit(&mut self, node: usize, store: &Store, changed: &[LaneId]) {
        let told = self.told.entry(node).or_default();
        for lane in changed.iter().copied() {
            for (author, row) in store.journals(lane).filter(|(_, row)| row.held > 0) {
                told.insert((lane, author), Tip { seq: row.held, hash: row.held_hash });
            }
        }
    }

    /// A batch was written and is not committed yet.
    pub fn on_write(&mut self, lane: LaneId, ops: &[Op]) {
        for op in ops.iter().filter(|op| owner(&op.id).is_some()) {
            self.own.entry((lane, op.id.clone())).or_default().perhaps.push(left(op));
        }
    }

    /// A batch was acknowledged.
    pub fn on_acknowledged(&mut self, node: usize, lane: LaneId, ops: &[Op], outcomes: &[Outcome]) {
        for (op, outcome) in ops.iter().zip(outcomes) {
            self.acknowledged += 1;
            if matches!(op.action, Action::Delete { .. }) {
                let life = self.deleted.entry((node, lane, op.id.clone())).or_default();
                *life = (*life).max(outcome.life);
            }
            if owner(&op.id).is_some() {
                let expected = Expected { acknowledged: left(op), perhaps: Vec::new() };
                self.own.insert((lane, op.id.clone()), expected);
            }
        }
    }

    /// A node lost what it had, by no fault of its own: what it has now is what counts.
    pub fn on_lost(&mut self, node: usize) {
        self.told.remove(&node);
    }

    /// A node was started again.
    pub fn on_start(&self, node: usize, store: &Store, excuses: &Excuses) -> Checked {
        if let Some(told) = self.told.get(&node) {
            Self::holds(node, store, told, excuses)?;
        }
        if excuses.lost(node) {
            return Ok(());
        }
        let snapshot = snapshot(node, store)?;
        let own = self.own.iter().filter(|((_, id), _)| owner(id) == Some(node));
        for ((lane, id), expected) in own {
            Self::says(node, &snapshot, *lane, id, expected)?;
        }
        Ok(())
    }

    /// The run is over and the devices of the core are in step: what any of them acknowledged is
    /// everywhere.
    pub fn finish(
        &self,
        nodes: &[Node],
        core: &BTreeSet<usize>,
        skipped: &BTreeSet<LaneId>,
        confined: &BTreeSet<(LaneId, String)>,
        excuses: &Excuses,
    ) -> Checked {
        let shared: BTreeSet<LaneId> = shared_lanes().collect();
        for (number, running) in running(nodes, core) {
            for (by, told) in self.told.iter().filter(|(by, _)| core.contains(by)) {
                let mut told = told.clone();
                told.retain(|(lane, author), _| {
                    let goes = shared.contains(lane) && !excuses.void.contains(&author.device);
                    *by == number || goes
                });
                Self::holds(number, &running.store, &told, excuses)?;
            }
            let snapshot = snapshot(number, &running.store)?;
            let hidden = |lane: LaneId, id: &String| {
                !shared.contains(&lane)
                    || skipped.contains(&lane)
                    || skipped.contains(&LaneId::Tombstone)
                    || confined.contains(&(lane, id.clone()))
            };
            for ((by, lane, id), life) in &self.deleted {
                if !core.contains(by) || hidden(*lane, id) {
                    continue;
                }
                match look(number, &snapshot, *lane, id)? {
                    Visibility::Shown(object) if object.life <= *life && excuses.is_clean() => {
                        let found = object.life;
                        let what = format!("n{number} shows {lane} {id:?} life {found} of {life}");
                        return violated(tombstones::NAME, what);
                    }
                    _ => {}
                }
            }
            for ((lane, id), expected) in self.own.iter().filter(|((l, id), _)| !hidden(*l, id)) {
                // Of a device that lost writes, or is out, what it said last is not known.
                let known = owner(id).is_some_and(|o| core.contains(&o) && !excuses.lost(o));
                if known && !excuses.forks.contains(&nodes[owner(id).unwrap_or(0)].device()) {
                    Self::says(number, &snapshot, *lane, id, expected)?;
                }
            }
        }
        Ok(())
    }

    fn says(
        node: usize,
        snapshot: &Snapshot,
        lane: LaneId,
        id: &str,
        expected: &Expected,
    ) -> Checked {
        if lane.definition().ttl.is_some() {
            return Ok(());
        }
        let found = match look(node, snapshot, lane, id)? {
            Visibility::Shown(object) => serde_json::from_str::<Value>(&object.row.body).ok(),
            _ => None,
        };
        if found == expected.acknowledged || expected.perhaps.contains(&found) {
            return Ok(());
        }
        let text = |value: &Option<Value>| {
            value
                .as_ref()
                .map_or("nothing".to_owned(), |value| value.to_string().chars().take(120).collect())
        };
        let what = format!(
            "n{node} shows {} under {lane} {id:?}, acknowledged was {}",
            text(&found),
            text(&expected.acknowledged),
        );
        violated(NAME, what)
    }

    fn holds(node: usize, store: &Store, told: &Journals, excuses: &Excuses) -> Checked {
        let snapshot = snapshot(node, store)?;
        for ((lane, author), tip) in told {
            if excuses.forks.contains(&author.device) {
                continue;
            }
            let bytes =
                snapshot.entry(*lane, author, tip.seq).map_err(|error| unreadable(node, &error))?;
            let same = bytes.as_deref().and_then(|bytes| Some(Entry::read(bytes).ok()?.hash));
            if same != Some(tip.hash) {
                let by = author.device.short();
                let held = store.frontier(*lane).seq(author);
                return violated(
                    NAME,
                    format!("n{node} lost entry {} of {lane} by {by}: holds {held}", tip.seq),
                );
            }
        }
        Ok(())
    }
}

impl Excuses {
    /// Whether every acknowledged deletion must have reached everyone: none was lost with a device.
    pub fn is_clean(&self) -> bool {
        self.forks.is_empty() && self.shrunk_at_ms.is_empty() && self.revoked.is_empty()
    }
}
