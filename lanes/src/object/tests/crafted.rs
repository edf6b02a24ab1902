//! Changes that no honest writer makes, operation by operation, and that all devices judge alike.

use std::collections::BTreeSet;

use super::super::chunk::{
    ACTION, Change, DELETE, INCREMENT, INSERT, KEY_ACTOR, KEY_COUNTER, KEY_STRING, Key, MAKE_LIST,
    MAKE_MAP, MAKE_TEXT, OBJ_ACTOR, OBJ_COUNTER, PRED_ACTOR, PRED_COUNT, PRED_COUNTER, PUT, VALUE,
    VALUE_META,
};
use super::super::creation::{booleans, run_lengths, signed, unsigned};
use super::super::elements::{Actor, OpId};
use super::super::*;
use super::hostile::sealed;
use super::past::{C, Made, Step, history, left, made, steps, takes};
use super::*;

/// Who crafts.
const D: Actor = [4; 16];

/// Where a crafted operation writes.
#[derive(Debug, Clone, PartialEq)]
enum At {
    Member(String),
    Head,
    Element(OpId),
}

/// A crafted operation: in which object (`None` is the root), where, inserting or not, what it does
/// and writes, and over what.
#[derive(Debug, Clone)]
struct Crafted {
    object: Option<OpId>,
    at: At,
    insert: bool,
    action: u64,
    value: Option<i64>,
    over: Vec<OpId>,
}

/// The values that crafted operations write, as bytes and their type: nothing, a number, a counter
/// or a character.
fn value_of(op: &Crafted) -> (u64, Vec<u8>) {
    let mut bytes = Vec::new();
    match (op.action, op.value) {
        (PUT, Some(number @ 0..10)) => {
            signed(&mut bytes, number);
            ((bytes.len() as u64) << 4 | 4, bytes)
        }
        (INCREMENT, Some(number)) => {
            signed(&mut bytes, number);
            ((bytes.len() as u64) << 4 | 4, bytes)
        }
        (PUT, Some(number @ 10..20)) => {
            signed(&mut bytes, number);
            ((bytes.len() as u64) << 4 | 8, bytes)
        }
        (PUT, Some(_)) => (1 << 4 | 6, b"x".to_vec()),
        _ => (0, bytes),
    }
}

/// The bytes of a change with these operations.
fn craft(deps: &[ChangeHash], seq: u64, start: u64, ops: &[Crafted]) -> Made {
    craft_as((D, 0), deps, seq, start, ops)
}

/// The same by another author, at a time.
fn craft_as(
    (author, time): (Actor, i64),
    deps: &[ChangeHash],
    seq: u64,
    start: u64,
    ops: &[Crafted],
) -> Made {
    let named = |op: &Crafted| {
        let element = match op.at {
            At::Element(element) => Some(element),
            _ => None,
        };
        op.object.into_iter().chain(element).chain(op.over.iter().copied()).collect::<Vec<_>>()
    };
    let others: BTreeSet<Actor> = ops.iter().flat_map(named).map(|op| op.0).collect();
    let others: Vec<Actor> = others.into_iter().filter(|actor| *actor != author).collect();
    let index = |actor: Actor| {
        others.iter().position(|other| *other == actor).map_or(0, |at| at as u64 + 1)
    };
    let mut body = vec![deps.len() as u8];
    body.extend(deps.iter().flat_map(|dep| dep.0));
    body.push(16);
    body.extend(author);
    unsigned(&mut body, seq);
    unsigned(&mut body, start);
    signed(&mut body, time);
    body.push(0);
    unsigned(&mut body, others.len() as u64);
    for other in &others {
        body.push(16);
        body.extend(other);
    }
    let number = |out: &mut Vec<u8>, value: &u64| unsigned(out, *value);
    let difference = |out: &mut Vec<u8>, value: &i64| signed(out, *value);
    let deltas = |values: Vec<Option<u64>>| {
        let mut last = 0;
        values
            .into_iter()
            .map(|value| {
                value.map(|value| {
                    let value = value as i64;
                    value - std::mem::replace(&mut last, value)
                })
            })
            .collect::<Vec<_>>()
    };
    let mut columns: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut column = |spec: u64, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        if !bytes.is_empty() {
            columns.push((spec, bytes));
        }
    };
    let element = |op: &Crafted| match op.at {
        At::Element((actor, counter)) => Some((Some(index(actor)), counter)),
        At::Head => Some((None, 0)),
        At::Member(_) => None,
    };
    let over = || ops.iter().flat_map(|op| op.over.iter().copied());
    column(OBJ_ACTOR, &|out| {
        run_lengths(out, ops.iter().map(|op| op.object.map(|id| index(id.0))), number);
    });
    column(OBJ_COUNTER, &|out| {
        run_lengths(out, ops.iter().map(|op| op.object.map(|id| id.1)), number);
    });
    column(KEY_ACTOR, &|out| {
        run_lengths(out, ops.iter().map(|op| element(op).and_then(|key| key.0)), number);
    });
    column(KEY_COUNTER, &|out| {
        let counters = ops.iter().map(|op| element(op).map(|key| key.1)).collect();
        run_lengths(out, deltas(counters).into_iter(), difference);
    });
    column(KEY_STRING, &|out| {
        let keys = ops.iter().map(|op| match &op.at {
            At::Member(key) => Some(key.as_str()),
            _ => None,
        });
        run_lengths(out, keys, |out, key| {
            unsigned(out, key.len() as u64);
            out.extend(key.as_bytes());
        });
    });
    column(INSERT, &|out| booleans(out, ops.iter().map(|op| op.insert)));
    column(ACTION, &|out| run_lengths(out, ops.iter().map(|op| Some(op.action)), number));
    column(VALUE_META, &|out| {
        run_lengths(out, ops.iter().map(|op| Some(value_of(op).0)), number);
    });
    column(VALUE, &|out| ops.iter().for_each(|op| out.extend(value_of(op).1)));
    column(PRED_COUNT, &|out| {
        run_lengths(out, ops.iter().map(|op| Some(op.over.len() as u64)), number);
    });
    column(PRED_ACTOR, &|out| run_lengths(out, over().map(|id| Some(index(id.0))), number));
    column(PRED_COUNTER, &|out| {
        run_lengths(out, deltas(over().map(|id| Some(id.1)).collect()).into_iter(), difference);
    });
    unsigned(&mut body, columns.len() as u64);
    for (spec, bytes) in &columns {
        unsigned(&mut body, *spec);
        unsigned(&mut body, bytes.len() as u64);
    }
    body.extend(columns.into_iter().flat_map(|(_, bytes)| bytes));
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    unsigned(&mut bytes, body.len() as u64);
    bytes.extend(body);
    let (bytes, hash) = sealed(bytes);
    made(bytes, hash, author)
}

fn put(object: OpId, key: &str, value: i64, over: &[OpId]) -> Crafted {
    let at = At::Member(key.into());
    let (action, value) = (PUT, Some(value));
    Crafted { object: Some(object), at, insert: false, action, value, over: over.to_vec() }
}

fn body_object() -> OpId {
    (skeleton().actor, 2)
}

/// All operations of some changes, with what they write to.
fn ops_of(changes: &[Made]) -> Vec<(OpId, Crafted)> {
    let mut ops = Vec::new();
    for Made { change, actor } in changes {
        let read = Change::read(&change.bytes, change.hash, *actor).unwrap();
        let id = |op: (usize, u64)| (Actor::try_from(read.actors[op.0]).unwrap(), op.1);
        for (number, op) in (read.start_op..).zip(&read.ops) {
            let at = match op.key {
                Key::Member(key) => At::Member(key.to_owned()),
                Key::Head => At::Head,
                Key::Element(element) => At::Element(id(element)),
            };
            let (object, over) = (op.object.map(id), read.overwritten(op));
            let over = over.iter().map(|op| id(*op)).collect();
            let (insert, action) = (op.insert, op.action);
            let crafted = Crafted { object, at, insert, action, value: None, over };
            ops.push(((*actor, number), crafted));
        }
    }
    ops
}

fn verdicts_agree(base: &[Made], crafted: &[Made]) {
    let all: Vec<&Made> = base.iter().chain(crafted).collect();
    let singly = left(&all, 1);
    for at_once in [2, 3, usize::MAX] {
        assert_eq!(left(&all, at_once), singly, "{at_once} at once");
    }
}

/// The change that makes an object which says this, and the number after its operations.
fn base(body: Value) -> (Vec<Made>, u64) {
    let mut object = Object::new();
    let types = [("/c".to_owned(), LeafType::Counter)];
    let content = Content::typed("note", "private", BTreeMap::new(), body, types.into()).unwrap();
    let change = object.set(&content, A, NOW).unwrap().unwrap();
    let base = vec![made(change.bytes, change.hash, A)];
    let next = ops_of(&base).last().unwrap().0.1 + 1;
    (base, next)
}

fn op_at(base: &[Made], key: &str) -> OpId {
    let found = |op: &Crafted| op.at == At::Member(key.into());
    ops_of(base).into_iter().find(|(_, op)| found(op)).unwrap().0
}

/// Changes, each after the one before, whose hashes begin with a zero byte.
pub(crate) fn rare(author: Actor, count: u64) -> Vec<EncodedChange> {
    let (mut deps, mut over) = (vec![skeleton().hash], Vec::new());
    let mut changes = Vec::new();
    for seq in 1..=count {
        // The skeleton has two operations.
        let number = seq + 2;
        let op = [put(body_object(), "/n", 1, &over)];
        let made = (0..).map(|time| craft_as((author, time), &deps, seq, number, &op));
        let mut change = made.map(|made| made.change).find(|change| change.hash.0[0] == 0).unwrap();
        (deps, over) = (vec![change.hash], vec![(author, number)]);
        change.deps.retain(|dep| *dep != skeleton().hash);
        changes.push(change);
    }
    changes
}

#[test]
fn an_addition_is_not_there_to_be_overwritten() {
    let (base, next) = base(json!({"c": 1}));
    let counter = op_at(&base, "/c");
    let mut add = put(body_object(), "/c", 1, &[counter]);
    add.action = INCREMENT;
    let first = craft(&[base[0].change.hash], 1, next, &[add]);
    let over = put(body_object(), "/c", 1, &[(D, next)]);
    let second = craft(&[first.change.hash], 2, next + 1, &[over]);
    verdicts_agree(&base, &[first, second]);
}

#[test]
fn what_is_no_counter_cannot_be_added_to_beside_one() {
    let (base, next) = base(json!({"c": 1}));
    let plain = put(body_object(), "/c", 25, &[]);
    let mut add = put(body_object(), "/c", 1, &[(D, next)]);
    add.action = INCREMENT;
    let first = craft(&[base[0].change.hash], 1, next, &[plain, add]);
    let over = put(body_object(), "/c", 1, &[(D, next)]);
    let second = craft(&[first.change.hash], 2, next + 2, &[over]);
    verdicts_agree(&base, &[first, second]);
}

#[test]
fn an_element_of_another_list_is_not_written_to() {
    let (base, next) = base(json!({"c": 1, "l": [1], "m": [2]}));
    let ops = ops_of(&base);
    let (l, m) = (op_at(&base, "/l"), op_at(&base, "/m"));
    let in_m = ops.iter().find(|(_, op)| op.object == Some(m)).unwrap().0;
    let in_l = ops.iter().find(|(_, op)| op.object == Some(l)).unwrap().0;
    let at = |object, element, over: &[OpId]| Crafted {
        object: Some(object),
        at: At::Element(element),
        insert: false,
        action: PUT,
        value: Some(1),
        over: over.to_vec(),
    };
    for bad in [in_m, (A, next + 100), l] {
        let wrong = at(l, bad, &[]);
        let right = at(m, in_m, &[in_m]);
        let both = craft(&[base[0].change.hash], 1, next, &[wrong.clone(), right.clone()]);
        verdicts_agree(&base, std::slice::from_ref(&both));
        takes(&Object::new(), &[&base[0], &both]).unwrap_err();
        let first = craft(&[base[0].change.hash], 1, next, &[right]);
        let second = craft(&[first.change.hash], 2, next + 1, &[wrong]);
        verdicts_agree(&base, &[first, second]);
    }
    let right = craft(&[base[0].change.hash], 1, next, &[at(l, in_l, &[in_l])]);
    takes(&Object::new(), &[&base[0], &right]).unwrap();
}

#[test]
fn times_that_are_far_apart_are_judged_alike() {
    let (base, next) = base(json!({"c": 1}));
    let op = [put(body_object(), "/n", 1, &[])];
    let deps = [base[0].change.hash];
    let late = craft_as((D, i64::MAX), &deps, 1, next, &op);
    verdicts_agree(&base, std::slice::from_ref(&late));
    takes(&Object::new(), &[&base[0], &late]).unwrap();
    for time in [i64::MIN, -1] {
        let early = craft_as((C, time), &deps, 1, next, &op);
        verdicts_agree(&base, &[early.clone(), late.clone()]);
        takes(&Object::new(), &[&base[0], &early]).unwrap_err();
    }
}

#[test]
fn a_key_that_is_said_again_and_again_counts_each_time() {
    let (base, next) = base(json!({"c": 1, "l": []}));
    let list = op_at(&base, "/l");
    let make = |from: u64| Crafted {
        object: Some(list),
        at: if from == 0 { At::Head } else { At::Element((D, next + from - 1)) },
        insert: true,
        action: MAKE_MAP,
        value: None,
        over: vec![],
    };
    let change = |maps: u64, key: &str| {
        let mut ops: Vec<Crafted> = (0..maps).map(make).collect();
        ops.extend((0..maps).map(|map| put((D, next + map), key, 1, &[])));
        craft(&[base[0].change.hash], 1, next, &ops)
    };
    let key = format!("/{}", "k".repeat(99_999));
    takes(&Object::new(), &[&base[0], &change(20, &key)]).unwrap();
    let maps = (CHANGE_BYTES_MAX / key.len()) as u64 + 1;
    let large = change(maps, &key);
    assert!(large.change.bytes.len() < 200_000);
    let refused = takes(&Object::new(), &[&base[0], &large]).unwrap_err().error;
    assert!(matches!(refused, DocumentError::TooLarge { .. }), "{refused}");
}

#[test]
fn what_says_more_than_can_be_shown_says_so() {
    let (mut changes, next) = base(json!({"c": 1, "l": []}));
    let list = op_at(&changes, "/l");
    let key = format!("/{}", "k".repeat(499_999));
    let maps = 35;
    for author in [B, C] {
        let mut ops: Vec<Crafted> = (0..maps)
            .map(|map| Crafted {
                object: Some(list),
                at: if map == 0 { At::Head } else { At::Element((author, next + map - 1)) },
                insert: true,
                action: MAKE_MAP,
                value: None,
                over: vec![],
            })
            .collect();
        ops.extend((0..maps).map(|map| put((author, next + map), &key, 1, &[])));
        let change = craft_as((author, 0), &[changes[0].change.hash], 1, next, &ops);
        changes.push(change);
    }
    let shown = takes(&Object::new(), &[&changes[0], &changes[1]]).unwrap();
    shown.view().unwrap();
    let both = takes(&shown, &[&changes[2]]).unwrap();
    assert_eq!(both.view().unwrap_err(), DocumentError::Unshown);
    let mut both = both;
    let content = Content::of(json!(1)).unwrap();
    assert_eq!(both.set(&content, A, NOW).unwrap_err(), DocumentError::Unshown);
}

/// One step of crafting: which operation is mimicked, and how.
#[derive(Debug, Clone)]
struct Mimic {
    which: prop::sample::Index,
    object: Option<prop::sample::Index>,
    element: Option<prop::sample::Index>,
    over: Vec<prop::sample::Index>,
    own_over: bool,
    action: u8,
    value: i64,
    insert: u8,
}

fn mimic() -> impl Strategy<Value = Mimic> {
    let index = any::<prop::sample::Index>;
    (
        index(),
        prop::option::weighted(0.15, index()),
        prop::option::weighted(0.3, index()),
        prop::collection::vec(index(), 0..2),
        any::<bool>(),
        0..10_u8,
        0..30_i64,
        0..8_u8,
    )
        .prop_map(|(which, object, element, over, own_over, action, value, insert)| Mimic {
            which,
            object,
            element,
            over,
            own_over,
            action,
            value,
            insert,
        })
}

impl Mimic {
    fn craft(&self, pool: &[(OpId, Crafted)]) -> Crafted {
        let (id, like) = &pool[self.which.index(pool.len())];
        let mut op = like.clone();
        let any = |index: &prop::sample::Index| pool[index.index(pool.len())].0;
        if let Some(object) = &self.object {
            op.object = Some(any(object));
        }
        if op.insert {
            // At the element that the other one inserted.
            op.at = At::Element(*id);
        }
        if let (Some(element), At::Element(_) | At::Head) = (&self.element, &op.at) {
            op.at = At::Element(any(element));
        }
        op.insert = matches!(op.at, At::Element(_) | At::Head) && self.insert < 3;
        op.action = match self.action {
            0..6 => PUT,
            6 => DELETE,
            7 => INCREMENT,
            8 => MAKE_LIST,
            _ => [MAKE_MAP, MAKE_TEXT][usize::from(self.insert % 2)],
        };
        op.value = matches!(op.action, PUT | INCREMENT).then_some(self.value);
        op.over = match (self.own_over, op.insert) {
            (_, true) => vec![],
            (true, false) => vec![*id],
            (false, false) => self.over.iter().map(any).collect(),
        };
        op.over.sort();
        op.over.dedup();
        op
    }
}

/// Two changes, the second of which follows the first. They follow a part of these, and may name
/// all of them.
fn two_crafted(
    author: Actor,
    times: (i64, i64),
    changes: &[Made],
    past: prop::sample::Index,
    first: &[Mimic],
    second: &[Mimic],
) -> (usize, Made, Made) {
    let known = 1 + past.index(changes.len());
    let part: Vec<&Made> = changes[..known].iter().collect();
    let seen = takes(&Object::new(), &part).unwrap();
    let mut pool = ops_of(changes);
    let start = ops_of(&changes[..known]).iter().map(|(id, _)| id.1).max().unwrap() + 1;
    let ops: Vec<Crafted> = first.iter().map(|mimic| mimic.craft(&pool)).collect();
    let one = craft_as((author, times.0), &seen.heads(), 1, start, &ops);
    pool.extend((start..).zip(ops).map(|(number, op)| ((author, number), op)));
    let next = start + first.len() as u64;
    let ops: Vec<Crafted> = second.iter().map(|mimic| mimic.craft(&pool)).collect();
    let two = craft_as((author, times.1), &[one.change.hash], 2, next, &ops);
    (known, one, two)
}

/// Times of two changes, far from each other at times.
fn times() -> impl Strategy<Value = (i64, i64)> {
    let time = || prop_oneof![3 => Just(0), 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    (time(), time())
}

/// A history by three authors, and two changes that a fourth one crafts.
pub(crate) fn with_crafted(actors: [Actor; 4]) -> impl Strategy<Value = Vec<Made>> {
    let some = || prop::collection::vec(mimic(), 1..4);
    (steps(), any::<prop::sample::Index>(), times(), some(), some()).prop_map(
        move |(steps, past, times, first, second): (Vec<Step>, _, _, _, _)| {
            let [a, b, c, d] = actors;
            let mut changes = history(&steps, [a, b, c]);
            if !changes.is_empty() {
                let (_, one, two) = two_crafted(d, times, &changes, past, &first, &second);
                changes.extend([one, two]);
            }
            changes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn crafted_changes_are_judged_alike_in_any_order_and_company(
        steps in steps(),
        past in any::<prop::sample::Index>(),
        times in times(),
        first in prop::collection::vec(mimic(), 1..4),
        second in prop::collection::vec(mimic(), 1..4),
    ) {
        let changes = history(&steps, [A, B, C]);
        prop_assume!(!changes.is_empty());
        let (known, one, two) = two_crafted(D, times, &changes, past, &first, &second);
        // As early as it can be, or as late, singly, or together.
        let mut early: Vec<&Made> = changes.iter().collect();
        early.splice(known..known, [&one, &two]);
        let mut late: Vec<&Made> = changes.iter().collect();
        late.extend([&one, &two]);
        let expected = left(&early, 1);
        for order in [&early, &late] {
            for at_once in [1, 2, 5, usize::MAX] {
                prop_assert_eq!(&left(order, at_once), &expected);
            }
        }
    }
}
