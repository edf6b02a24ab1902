//! What a node committed, and so may have told, is there after every crash; and what it says is what
//! was last acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};
use srcos_lanes::frontier::Tip;
use srcos_lanes::ids::Author;
use srcos_lanes::journal::Entry;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Action, Op, Outcome, Snapshot, Store, Visibility};

use super::{
    Checked, Excuses, Violation, look, running, snapshot, tombstones, unreadable, violated,
};
use crate::cluster::{Node, shared_lanes};
use crate::workload::owner;

/// The invariant's name.
pub const NAME: &str = "journal.durable_before_told";

type Journals = BTreeMap<(LaneId, Author), Tip>;

/// What must be found under an id that one device alone writes.
#[derive(Clone, Debug)]
struct Expected {
    /// What the last acknowledged write left; nothing before the first, and after a deletion.
    acknowledged: Option<Value>,
    /// What was written since and is not acknowledged: each may be there, with all before it, or not.
    written: VecDeque<Action>,
}

impl Expected {
    /// All that may be found.
    fn possible(&self) -> impl Iterator<Item = Option<Value>> {
        let mut at = self.acknowledged.clone();
        let later = self.written.iter().map(move |action| {
            at = left(action, at.take());
            at.clone()
        });
        std::iter::once(self.acknowledged.clone()).chain(later)
    }
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
fn left(action: &Action, before: Option<Value>) -> Option<Value> {
    match action {
        Action::Put(put) => Some(put.body.clone()),
        Action::Patch(patch) => before.map(|body| match &patch.body {
            Some(patch) => merged(body, patch),
            None => body,
        }),
        Action::Delete { .. } => None,
    }
}

/// A merge patch (RFC 7396) applied.
fn merged(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut members = match target {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (key, value) in patch {
        if value.is_null() {
            members.remove(key);
        } else {
            let before = members.remove(key).unwrap_or_default();
            members.insert(key.clone(), merged(before, value));
        }
    }
    Value::Object(members)
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
            let nothing = Expected { acknowledged: None, written: VecDeque::new() };
            let expected = self.own.entry((lane, op.id.clone())).or_insert(nothing);
            expected.written.push_back(op.action.clone());
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
            if let Some(expected) = self.own.get_mut(&(lane, op.id.clone())) {
                // The oldest that waits: batches are acknowledged in the order in which they were written.
                expected.written.pop_front();
                expected.acknowledged = left(&op.action, expected.acknowledged.take());
            }
        }
    }

    /// A node lost what it had, by no fault of its own: what it has now is what counts.
    pub fn on_lost(&mut self, node: usize) {
        self.told.remove(&node);
    }

    /// A node was started again. What it shows of its own then is what it goes on from.
    pub fn on_start(&mut self, node: usize, store: &Store, excuses: &Excuses) -> Checked {
        if let Some(told) = self.told.get(&node) {
            Self::holds(node, store, told, excuses)?;
        }
        let snapshot = snapshot(node, store)?;
        let own = self.own.iter_mut().filter(|((_, id), _)| owner(id) == Some(node));
        for ((lane, id), expected) in own {
            if !excuses.lost(node) {
                Self::says(node, &snapshot, *lane, id, expected)?;
            }
            expected.acknowledged = shown(node, &snapshot, *lane, id)?;
            expected.written.clear();
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
        let found = shown(node, snapshot, lane, id)?;
        if expected.possible().any(|possible| possible == found) {
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

/// The body that a node shows under an id.
fn shown(
    node: usize,
    snapshot: &Snapshot,
    lane: LaneId,
    id: &str,
) -> Result<Option<Value>, Violation> {
    Ok(match look(node, snapshot, lane, id)? {
        Visibility::Shown(object) => serde_json::from_str::<Value>(&object.row.body).ok(),
        _ => None,
    })
}

impl Excuses {
    /// Whether every acknowledged deletion must have reached everyone: none was lost with a device.
    pub fn is_clean(&self) -> bool {
        self.forks.is_empty() && self.shrunk_at_ms.is_empty() && self.revoked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // From RFC 7396, appendix A.
    #[test]
    fn merge_patch_does_what_its_standard_says() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merged(target, &patch), result);
        }
    }

    #[test]
    fn unacknowledged_writes_are_there_in_their_order_or_not() {
        let patch = |body: Value| {
            Action::Patch(srcos_lanes::object::Patch { body: Some(body), ..Default::default() })
        };
        let expected = Expected {
            acknowledged: Some(json!({"a": 1})),
            written: [patch(json!({"b": 2})), patch(json!({"a": null}))].into(),
        };
        let possible: Vec<_> = expected.possible().flatten().collect();
        assert_eq!(possible, [json!({"a": 1}), json!({"a": 1, "b": 2}), json!({"b": 2})]);
    }
}
