//! A reference model of bodies without lists, in plain Rust: a set of operations, of which those
//! that no other overwrites are live, with counters and texts. Held against documents by random edits and deliveries.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::chunk::{Change, DELETE, INCREMENT, Key, MAKE_TEXT, OpRef, Scalar};
use super::super::*;

/// What a place holds: a value with its type, or with `None` the marker of an object.
type Leaf = Option<(Value, Option<LeafType>)>;
/// A number and an actor; the higher is shown.
type OpId = (u64, u8);
type Live = BTreeMap<String, BTreeMap<OpId, Leaf>>;

/// One operation at a place, and what of it its author saw there.
#[derive(Debug, Clone)]
struct Op {
    at: String,
    did: Did,
    over: BTreeSet<OpId>,
}

/// What an operation did.
#[derive(Debug, Clone)]
enum Did {
    /// Wrote what is there from now on. Of a text it is the empty one.
    Wrote(Leaf),
    /// Removed what it is over.
    Deleted,
    /// Added to the counters that it is over.
    Added(i64),
    /// Put a character into a text, behind another or at its start.
    Inserted { text: OpId, behind: Option<OpId>, character: char },
}

/// What a write is expected to do at a place.
#[derive(Debug, Clone, PartialEq)]
enum Expected {
    Wrote(Leaf),
    Deleted,
    Added(i64),
    /// So many characters are inserted into and removed from a text.
    Edited(usize),
}

#[derive(Debug, Clone, Default)]
struct Model {
    ops: BTreeMap<OpId, Op>,
}

fn beneath<'a>(at: &str, all: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    all.into_iter().filter(|other| other.starts_with(&format!("{at}/"))).collect()
}

fn flatten(value: &Value, types: &LeafTypes, at: String, into: &mut BTreeMap<String, Leaf>) {
    if let Value::Object(members) = value {
        for (key, value) in members {
            flatten(value, types, format!("{at}/{key}"), into);
        }
        into.insert(at, None);
    } else {
        let kind = types.get(&at).copied();
        into.insert(at, Some((value.clone(), kind)));
    }
}

/// The fewest characters to insert and remove.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let best = if x == y { corner } else { row[j].min(row[j + 1]) + 1 };
            corner = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

impl Model {
    fn live(&self) -> Live {
        let ending = self.ops.values().filter(|op| !matches!(op.did, Did::Added(_)));
        let dead: BTreeSet<OpId> = ending.flat_map(|op| op.over.clone()).collect();
        let mut live = Live::new();
        for (id, op) in &self.ops {
            if let (Did::Wrote(leaf), false) = (&op.did, dead.contains(id)) {
                let leaf = self.value(*id, leaf, &dead);
                live.entry(op.at.clone()).or_default().insert(*id, leaf);
            }
        }
        live
    }

    fn value(&self, id: OpId, leaf: &Leaf, dead: &BTreeSet<OpId>) -> Leaf {
        let Some((start, kind)) = leaf else { return None };
        let value = match kind {
            None => start.clone(),
            Some(LeafType::Text) => {
                let mut text = String::new();
                self.read_text(id, None, dead, &mut text);
                json!(text)
            }
            Some(LeafType::Counter) => {
                let added = self.ops.values().filter(|op| op.over.contains(&id));
                let added = added.filter_map(|op| match op.did {
                    Did::Added(by) => Some(by),
                    _ => None,
                });
                json!(start.as_i64().unwrap() + added.sum::<i64>())
            }
        };
        Some((value, *kind))
    }

    /// What stands behind a character: of several, the one inserted last comes first.
    fn read_text(&self, of: OpId, after: Option<OpId>, dead: &BTreeSet<OpId>, into: &mut String) {
        for (id, op) in self.ops.iter().rev() {
            if let Did::Inserted { text, behind, character } = op.did
                && (text, behind) == (of, after)
            {
                if !dead.contains(id) {
                    into.push(character);
                }
                self.read_text(of, Some(*id), dead, into);
            }
        }
    }

    /// What is done to show `target`.
    fn difference(&self, target: &Value, types: &LeafTypes) -> BTreeMap<String, Expected> {
        let live = self.live();
        let winner = |at: &str| live.get(at).and_then(|all| all.values().next_back());
        let mut flat = BTreeMap::new();
        flatten(target, types, String::new(), &mut flat);
        let implied = |at: &str| winner(at).is_none() && !beneath(at, live.keys()).is_empty();
        let mut changes: BTreeMap<String, Expected> = BTreeMap::new();
        for (at, leaf) in &flat {
            if winner(at) == Some(leaf) || (leaf.is_none() && implied(at)) {
                continue;
            }
            let counters =
                || live[at].values().all(|leaf| matches!(leaf, Some((_, Some(LeafType::Counter)))));
            let change = match (winner(at).cloned().flatten(), leaf) {
                (Some((from, Some(LeafType::Text))), Some((to, Some(LeafType::Text)))) => {
                    Expected::Edited(distance(from.as_str().unwrap(), to.as_str().unwrap()))
                }
                (Some((from, Some(LeafType::Counter))), Some((to, Some(LeafType::Counter))))
                    if counters() =>
                {
                    Expected::Added(to.as_i64().unwrap() - from.as_i64().unwrap())
                }
                _ => Expected::Wrote(leaf.clone()),
            };
            changes.insert(at.clone(), change);
        }
        let wrote = |change: &Expected| matches!(change, Expected::Wrote(_));
        let written: BTreeSet<String> =
            changes.iter().filter(|(_, change)| wrote(change)).map(|(at, _)| at.clone()).collect();
        for at in live.keys().filter(|at| !flat.contains_key(*at)) {
            let stays_hidden = flat.iter().any(|(over, leaf)| {
                leaf.is_some() && at.starts_with(&format!("{over}/")) && !written.contains(over)
            });
            if !stays_hidden {
                changes.insert(at.clone(), Expected::Deleted);
            }
        }
        for (at, _) in flat.iter().filter(|(at, leaf)| leaf.is_none() && implied(at)) {
            if !beneath(at, changes.keys()).is_empty() {
                changes.insert(at.clone(), Expected::Wrote(None));
            }
        }
        changes
    }

    /// What is shown, and what is noted of it.
    fn view(&self) -> (Value, Notes) {
        let live = self.live();
        let mut notes = Notes::default();
        if live.is_empty() {
            return (json!({}), notes);
        }
        let shown = show(&live, "", &mut Some(&mut notes));
        (shown, notes)
    }
}

/// Of each shown place: its type, and the set of distinct values if there are several.
#[derive(Debug, Default)]
struct Notes {
    types: LeafTypes,
    conflicts: BTreeMap<String, BTreeSet<String>>,
}

fn show(live: &Live, at: &str, notes: &mut Option<&mut Notes>) -> Value {
    let nothing = BTreeMap::new();
    let here = live.get(at).unwrap_or(&nothing);
    let object = |notes: &mut Option<&mut Notes>| {
        let keys: BTreeSet<&str> = beneath(at, live.keys())
            .into_iter()
            .filter_map(|other| other[at.len() + 1..].split('/').next())
            .collect();
        let members =
            keys.into_iter().map(|key| (key.to_owned(), show(live, &format!("{at}/{key}"), notes)));
        Value::Object(members.collect::<Map<_, _>>())
    };
    let is_object = here.values().any(Option::is_none) || !beneath(at, live.keys()).is_empty();
    let shown = match here.values().next_back() {
        Some(Some((scalar, kind))) => {
            if let (Some(kind), Some(notes)) = (kind, notes.as_deref_mut()) {
                notes.types.insert(at.to_owned(), *kind);
            }
            scalar.clone()
        }
        _ => object(notes),
    };
    if let Some(notes) = notes {
        let mut values: BTreeSet<String> =
            here.values().flatten().map(|(value, _)| value.to_string()).collect();
        if is_object {
            values.insert(object(&mut None).to_string());
        }
        if values.len() > 1 {
            notes.conflicts.insert(format!("/body{at}"), values);
        }
    }
    shown
}

fn small_json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        (0_i64..4).prop_map(|number| json!(number)),
        Just(json!(1.0)),
        "[xyé]{0,4}".prop_map(|text| json!(text)),
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
    Replace(usize, Value, Typing),
    Merge(usize, Value, Typing),
    Deliver(usize, usize),
}

/// Which leaves a write wants as texts and counters.
#[derive(Debug, Clone, Copy)]
enum Typing {
    Keep,
    None,
    All,
}

impl Typing {
    fn of(self, before: &LeafTypes, target: &Value) -> LeafTypes {
        let mut flat = BTreeMap::new();
        flatten(target, &LeafTypes::new(), String::new(), &mut flat);
        let all = flat.iter().filter_map(|(at, leaf)| match leaf {
            Some((Value::String(_), _)) => Some((at.clone(), Some(LeafType::Text))),
            Some((Value::Number(number), _)) if !number.is_f64() => {
                Some((at.clone(), Some(LeafType::Counter)))
            }
            _ => None,
        });
        match self {
            Self::Keep => types_after(before, target, &AskedTypes::new()),
            Self::None => LeafTypes::new(),
            Self::All => types_after(before, target, &all.collect()),
        }
    }
}

fn typing() -> impl Strategy<Value = Typing> {
    prop_oneof![3 => Just(Typing::Keep), 1 => Just(Typing::None), 3 => Just(Typing::All)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            1 => (any::<usize>(), small_json(), typing())
                .prop_map(|(at, to, typing)| Step::Replace(at, to, typing)),
            3 => (any::<usize>(), small_json(), typing())
                .prop_map(|(at, by, typing)| Step::Merge(at, by, typing)),
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
    fn edit(&mut self, actor: u8, target: Value, typing: Typing) -> Option<Sent> {
        let before = self.object.view().unwrap().content;
        let types = typing.of(before.types(), &target);
        let content = Content::typed("object", "internal", BTreeMap::new(), target, types).unwrap();
        let fresh = self.held.is_empty();
        let expected = self.model.difference(content.body(), content.types());
        let change = self.object.set(&content, [actor; 16], WallMillis(7)).unwrap();
        assert_eq!(self.object.view().unwrap().content, content, "what was set is shown");
        let Some(change) = change else {
            assert!(expected.is_empty() && !fresh, "nothing was written, but {expected:?} is due");
            return None;
        };
        assert_eq!(self.object.set(&content, [actor; 16], WallMillis(8)).unwrap(), None);
        let (ops, found) = self.read(&change, actor);
        assert_eq!(found, expected, "only the difference is written");
        self.model.ops.extend(ops.clone());
        self.held.insert(change.hash);
        Some(Sent { change, actor, ops })
    }

    /// The operations of a change, and what they do at each place.
    fn read(
        &self,
        change: &EncodedChange,
        actor: u8,
    ) -> (BTreeMap<OpId, Op>, BTreeMap<String, Expected>) {
        let live = self.model.live();
        let read = Change::read(&change.bytes, change.hash, [actor; 16]).unwrap();
        let id_of = |(actor, number): OpRef| (number, read.actors[actor][0]);
        let mut ops: BTreeMap<OpId, Op> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (number, op) in (read.start_op..).zip(&read.ops) {
            let Some(object) = op.object else { continue };
            let Key::Member(at) = op.key else {
                let text = id_of(object);
                let element = match op.key {
                    Key::Element(element) => Some(id_of(element)),
                    _ => None,
                };
                let (did, over) = match op.value {
                    Scalar::Str(part) => {
                        let character = part.chars().next().unwrap();
                        (Did::Inserted { text, behind: element, character }, BTreeSet::new())
                    }
                    _ => (Did::Deleted, element.into_iter().collect()),
                };
                if let Some(known) = self.model.ops.get(&text) {
                    let edited = found.entry(known.at.clone()).or_insert(Expected::Edited(0));
                    let Expected::Edited(count) = edited else { panic!("also {edited:?}") };
                    *count += 1;
                }
                ops.insert((number, actor), Op { at: String::new(), did, over });
                continue;
            };
            let leaf = match op.value {
                Scalar::Marker => None,
                Scalar::Null => Some((json!(null), None)),
                Scalar::Bool(value) => Some((json!(value), None)),
                Scalar::Int(value) => Some((json!(value), None)),
                Scalar::Float(value) => Some((json!(value), None)),
                Scalar::Str(value) => Some((json!(value), None)),
                Scalar::Uint(value) => Some((json!(value), None)),
                Scalar::Counter(value) => Some((json!(value), Some(LeafType::Counter))),
            };
            let did = match (op.action, op.value) {
                (DELETE, _) => Did::Deleted,
                (INCREMENT, Scalar::Int(by)) => Did::Added(by),
                (MAKE_TEXT, _) => Did::Wrote(Some((json!(""), Some(LeafType::Text)))),
                _ => Did::Wrote(leaf),
            };
            let over = live.get(at).map(|all| all.keys().copied().collect()).unwrap_or_default();
            ops.insert((number, actor), Op { at: at.to_owned(), did, over });
        }
        for op in ops.values() {
            let expected = match &op.did {
                Did::Wrote(Some((_, Some(LeafType::Text)))) => {
                    let whole = Model { ops: ops.clone() };
                    let live = whole.live();
                    Expected::Wrote(live[&op.at].values().next_back().unwrap().clone())
                }
                Did::Wrote(leaf) => Expected::Wrote(leaf.clone()),
                Did::Deleted
                    if op.over.iter().any(|id| live.values().any(|all| all.contains_key(id))) =>
                {
                    Expected::Deleted
                }
                Did::Added(by) => Expected::Added(*by),
                _ => continue,
            };
            found.insert(op.at.clone(), expected);
        }
        (ops, found)
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
        let (body, Notes { types, conflicts }) = self.model.view();
        assert_eq!(view.content.body().to_string(), body.to_string());
        assert_eq!(view.content.types(), &types);
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
                Step::Replace(at, target, typing) => {
                    let at = at % count;
                    sent.extend(replicas[at].edit(at as u8 + 1, target, typing));
                }
                Step::Merge(at, by, typing) => {
                    let at = at % count;
                    let shown = replicas[at].object.view().unwrap().content;
                    let patch = Patch { body: Some(by), ..Patch::default() };
                    let target = patch.applied_to(&shown).unwrap().into_parts().3;
                    sent.extend(replicas[at].edit(at as u8 + 1, target, typing));
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
