//! A reference model of bodies without lists, in plain Rust: a set of operations, of which those
//! that no other overwrites are live. Held against documents by random edits and deliveries.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::chunk::{Change, DELETE, Key, Scalar};
use super::super::*;

/// What an operation wrote: a scalar, or with `None` the marker of an object.
type Leaf = Option<Value>;
/// A number and an actor; the higher is shown.
type OpId = (u64, u8);

/// One operation: it writes, or with `None` deletes, and overwrites what its author saw there.
#[derive(Debug, Clone)]
struct Op {
    at: String,
    wrote: Option<Leaf>,
    over: BTreeSet<OpId>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    ops: BTreeMap<OpId, Op>,
}

fn beneath<'a>(at: &str, all: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    all.into_iter().filter(|other| other.starts_with(&format!("{at}/"))).collect()
}

fn flatten(value: &Value, at: String, into: &mut BTreeMap<String, Leaf>) {
    if let Value::Object(members) = value {
        for (key, value) in members {
            flatten(value, format!("{at}/{key}"), into);
        }
        into.insert(at, None);
    } else {
        into.insert(at, Some(value.clone()));
    }
}

impl Model {
    fn live(&self) -> BTreeMap<String, BTreeMap<OpId, Leaf>> {
        let dead: BTreeSet<OpId> = self.ops.values().flat_map(|op| op.over.clone()).collect();
        let mut live: BTreeMap<String, BTreeMap<OpId, Leaf>> = BTreeMap::new();
        for (id, op) in &self.ops {
            if let (Some(leaf), false) = (&op.wrote, dead.contains(id)) {
                live.entry(op.at.clone()).or_default().insert(*id, leaf.clone());
            }
        }
        live
    }

    /// What is written and deleted to show `target`.
    fn difference(&self, target: &Value) -> BTreeMap<String, Option<Leaf>> {
        let live = self.live();
        let winner = |at: &str| live.get(at).and_then(|all| all.values().next_back());
        let mut flat = BTreeMap::new();
        flatten(target, String::new(), &mut flat);
        let implied = |at: &str| winner(at).is_none() && !beneath(at, live.keys()).is_empty();
        let mut changes: BTreeMap<String, Option<Leaf>> = BTreeMap::new();
        for (at, leaf) in &flat {
            if winner(at) != Some(leaf) && !(leaf.is_none() && implied(at)) {
                changes.insert(at.clone(), Some(leaf.clone()));
            }
        }
        let written: BTreeSet<String> = changes.keys().cloned().collect();
        for at in live.keys().filter(|at| !flat.contains_key(*at)) {
            let stays_hidden = flat.iter().any(|(over, leaf)| {
                leaf.is_some() && at.starts_with(&format!("{over}/")) && !written.contains(over)
            });
            if !stays_hidden {
                changes.insert(at.clone(), None);
            }
        }
        for (at, _) in flat.iter().filter(|(at, leaf)| leaf.is_none() && implied(at)) {
            if !beneath(at, changes.keys()).is_empty() {
                changes.insert(at.clone(), Some(None));
            }
        }
        changes
    }

    /// What is shown, and at each shown place the set of distinct values, if there are several.
    fn view(&self) -> (Value, BTreeMap<String, BTreeSet<String>>) {
        let live = self.live();
        let mut conflicts = BTreeMap::new();
        if live.is_empty() {
            return (json!({}), conflicts);
        }
        let shown = show(&live, "", &mut Some(&mut conflicts));
        (shown, conflicts)
    }
}

fn show(
    live: &BTreeMap<String, BTreeMap<OpId, Leaf>>,
    at: &str,
    conflicts: &mut Option<&mut BTreeMap<String, BTreeSet<String>>>,
) -> Value {
    let nothing = BTreeMap::new();
    let here = live.get(at).unwrap_or(&nothing);
    let object = |conflicts: &mut Option<&mut BTreeMap<String, BTreeSet<String>>>| {
        let keys: BTreeSet<&str> = beneath(at, live.keys())
            .into_iter()
            .filter_map(|other| other[at.len() + 1..].split('/').next())
            .collect();
        let members = keys
            .into_iter()
            .map(|key| (key.to_owned(), show(live, &format!("{at}/{key}"), conflicts)));
        Value::Object(members.collect::<Map<_, _>>())
    };
    let is_object = here.values().any(Option::is_none) || !beneath(at, live.keys()).is_empty();
    let shown = match here.values().next_back() {
        Some(Some(scalar)) => scalar.clone(),
        _ => object(conflicts),
    };
    if let Some(conflicts) = conflicts {
        let mut values: BTreeSet<String> =
            here.values().flatten().map(ToString::to_string).collect();
        if is_object {
            values.insert(object(&mut None).to_string());
        }
        if values.len() > 1 {
            conflicts.insert(format!("/body{at}"), values);
        }
    }
    shown
}

fn small_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(json!(1)),
        Just(json!(1.0)),
        Just(json!("x")),
        Just(json!(null)),
        Just(json!(false))
    ];
    scalar.prop_recursive(3, 8, 3, |inner| {
        prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), inner, 0..3)
            .prop_map(|members| {
                Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            })
    })
}

#[derive(Debug, Clone)]
enum Step {
    Replace(usize, Value),
    Merge(usize, Value),
    Deliver(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            1 => (any::<usize>(), small_json()).prop_map(|(at, to)| Step::Replace(at, to)),
            3 => (any::<usize>(), small_json()).prop_map(|(at, by)| Step::Merge(at, by)),
            5 => (any::<usize>(), any::<usize>()).prop_map(|(at, what)| Step::Deliver(at, what)),
        ],
        1..40,
    )
}

struct Sent {
    change: EncodedChange,
    actor: u8,
    ops: BTreeMap<OpId, Op>,
}

#[derive(Default)]
struct Replica {
    object: Object,
    model: Model,
    held: BTreeSet<ChangeHash>,
}

impl Replica {
    fn edit(&mut self, actor: u8, target: Value) -> Option<Sent> {
        let content = Content::of(target).unwrap();
        let fresh = self.held.is_empty();
        let expected = self.model.difference(content.body());
        let change = self.object.set(&content, [actor; 16], WallMillis(7)).unwrap();
        assert_eq!(self.object.view().unwrap().content, content, "what was set is shown");
        let Some(change) = change else {
            assert!(expected.is_empty() && !fresh, "nothing was written, but {expected:?} is due");
            return None;
        };
        assert_eq!(self.object.set(&content, [actor; 16], WallMillis(8)).unwrap(), None);
        let live = self.model.live();
        let read = Change::read(&change.bytes, change.hash, [actor; 16]).unwrap();
        let mut ops = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (number, op) in (read.start_op..).zip(&read.ops) {
            let Key::Member(at) = op.key else { panic!("no lists here") };
            if op.object.is_none() {
                assert!(fresh, "kind and class stay as they are");
                continue;
            }
            let wrote = (op.action != DELETE).then_some(match op.value {
                Scalar::Marker => None,
                Scalar::Null => Some(json!(null)),
                Scalar::Bool(value) => Some(json!(value)),
                Scalar::Int(value) => Some(json!(value)),
                Scalar::Float(value) => Some(json!(value)),
                Scalar::Str(value) => Some(json!(value)),
                Scalar::Uint(value) => Some(json!(value)),
            });
            let over = live.get(at).map(|all| all.keys().copied().collect()).unwrap_or_default();
            found.insert(at.to_owned(), wrote.clone());
            ops.insert((number, actor), Op { at: at.to_owned(), wrote, over });
        }
        assert_eq!(found, expected, "only the difference is written");
        self.model.ops.extend(ops.clone());
        self.held.insert(change.hash);
        Some(Sent { change, actor, ops })
    }

    /// Whether it could be taken in.
    fn deliver(&mut self, sent: &Sent) -> bool {
        let before = self.object.view().unwrap();
        let (change, actor) = (&sent.change, [sent.actor; 16]);
        match self.object.apply(&change.bytes, change.hash, actor) {
            Ok(()) => {
                self.model.ops.extend(sent.ops.clone());
                self.held.insert(change.hash);
                true
            }
            Err(DocumentError::MissingDeps(missing)) => {
                let lacking = change.deps.iter().filter(|dep| !self.held.contains(dep));
                assert_eq!(missing, lacking.copied().collect::<Vec<_>>());
                assert_eq!(self.object.view().unwrap(), before);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self) {
        let view = self.object.view().unwrap();
        let (body, conflicts) = self.model.view();
        assert_eq!(view.content.body().to_string(), body.to_string());
        let found: BTreeMap<String, BTreeSet<String>> = view
            .conflicts
            .iter()
            .map(|conflict| {
                assert!(conflict.values[0].shown && !conflict.values[1].shown);
                let values = conflict.values.iter().map(|value| value.value.to_string());
                (conflict.path.clone(), values.collect())
            })
            .collect();
        assert_eq!(found, conflicts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_agree_with_the_model_and_each_other_in_any_order(
        count in 2_usize..=5,
        steps in steps(),
        order in prop::collection::vec(any::<usize>(), 64),
    ) {
        let mut replicas: Vec<Replica> = (0..count).map(|_| Replica::default()).collect();
        let mut sent: Vec<Sent> = Vec::new();
        for step in steps {
            match step {
                Step::Replace(at, target) => {
                    let at = at % count;
                    sent.extend(replicas[at].edit(at as u8 + 1, target));
                }
                Step::Merge(at, by) => {
                    let at = at % count;
                    let shown = replicas[at].object.view().unwrap().content;
                    let patch = Patch { body: Some(by), ..Patch::default() };
                    let target = patch.applied_to(&shown).unwrap().into_parts().3;
                    sent.extend(replicas[at].edit(at as u8 + 1, target));
                }
                Step::Deliver(at, what) if !sent.is_empty() => {
                    let what = what % sent.len();
                    replicas[at % count].deliver(&sent[what]);
                }
                Step::Deliver(..) => {}
            }
        }
        for (at, replica) in replicas.iter_mut().enumerate() {
            replica.check();
            let mut waiting: Vec<usize> = (0..sent.len()).collect();
            waiting.sort_by_key(|what| order[(what * 7 + at * 13) % order.len()]);
            while !waiting.is_empty() {
                let before = waiting.len();
                waiting.retain(|what| !replica.deliver(&sent[*what]));
                assert!(waiting.len() < before, "causes come before effects");
            }
            replica.check();
        }
        for replica in &replicas[1..] {
            prop_assert_eq!(replica.object.view().unwrap(), replicas[0].object.view().unwrap());
            prop_assert_eq!(replica.object.heads(), replicas[0].object.heads());
            let hashes = |object: &Object| -> Vec<_> {
                object.history(usize::MAX).unwrap().into_iter().map(|item| item.hash).collect()
            };
            prop_assert_eq!(hashes(&replica.object), hashes(&replicas[0].object));
            let loaded = Object::load(&replica.object.save()).unwrap();
            prop_assert_eq!(loaded.view().unwrap(), replicas[0].object.view().unwrap());
        }
    }
}
