//! Bytes that no device of this version writes.

use std::collections::BTreeMap;

use automerge::transaction::Transaction;
use automerge::{AutomergeError, ScalarValue};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::*;
use super::{A, B, NOW, any_content, content, set};

/// The change that another program makes on top of the skeleton.
fn foreign(
    write: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> automerge::Change {
    let mut doc = skeleton().doc.clone().with_actor(ActorId::from(&B[..]));
    let mut tx = doc.transaction();
    write(&mut tx).unwrap();
    let (hash, _) = tx.commit_with(CommitOptions::default().with_time(1));
    doc.get_change_by_hash(&hash.unwrap()).unwrap()
}

fn refusal(change: &automerge::Change) -> DocumentError {
    let mut object = Object::new();
    set(&mut object, json!({"a": [1]}), A);
    let before = object.view().unwrap();
    let hash = ChangeHash(change.hash().0);
    let error = object.apply(change.raw_bytes(), hash, B).unwrap_err();
    assert_eq!(object.view().unwrap(), before);
    assert_eq!(Object::read_creation(change.raw_bytes(), hash, B), Err(error.clone()));
    error
}

/// Puts the right checksum and hash on a changed body.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> (Vec<u8>, ChangeHash) {
    let hash: [u8; 32] = Sha256::digest(&bytes[8..]).into();
    bytes[4..8].copy_from_slice(&hash[..4]);
    (bytes, ChangeHash(hash))
}

#[test]
fn operations_outside_the_schema_are_refused() {
    let (labels, body) = (&skeleton().labels, &skeleton().body);
    let cases = [
        foreign(|tx| tx.put(&ROOT, "other", 1)),
        foreign(|tx| tx.put(&ROOT, "kind", 1)),
        foreign(|tx| tx.put_object(&ROOT, "body", ObjType::Map).map(|_| ())),
        foreign(|tx| tx.delete(&ROOT, "body")),
        foreign(|tx| tx.put(labels, "x", 1)),
        foreign(|tx| tx.put(labels, "k".repeat(200), "v")),
        foreign(|tx| tx.put_object(&ROOT, "kind", ObjType::Text).map(|_| ())),
        foreign(|tx| tx.put_object(labels, "x", ObjType::Text).map(|_| ())),
        foreign(|tx| tx.put(labels, "x", ScalarValue::counter(1))),
        foreign(|tx| tx.put(body, "/a", ScalarValue::counter(1 << 54))),
        foreign(|tx| {
            let list = tx.put_object(body, "/l", ObjType::List)?;
            tx.insert(&list, 0, ScalarValue::counter(1))
        }),
        foreign(|tx| {
            let list = tx.put_object(body, "/l", ObjType::List)?;
            tx.insert_object(&list, 0, ObjType::Text).map(|_| ())
        }),
        foreign(|tx| {
            let list = tx.put_object(body, "/l", ObjType::List)?;
            let element = tx.insert_object(&list, 0, ObjType::Map)?;
            tx.put(&element, "/n", ScalarValue::counter(1))
        }),
        foreign(|tx| tx.put_object(body, "/a", ObjType::Map).map(|_| ())),
        foreign(|tx| tx.put(body, "a", 1)),
        foreign(|tx| tx.put(body, "/~2", 1)),
        foreign(|tx| tx.put(body, "/a".repeat(DEPTH_MAX + 1), 1)),
        foreign(|tx| tx.put(body, "/a", f64::NAN)),
    ];
    for change in &cases {
        assert!(matches!(refusal(change), DocumentError::Schema { .. }), "{:?}", refusal(change));
    }
    let cases = [
        foreign(|tx| tx.put(body, "/a", ScalarValue::Timestamp(1))),
        foreign(|tx| tx.put(body, "/a", ScalarValue::Bytes(vec![1]))),
    ];
    for change in &cases {
        assert!(matches!(refusal(change), DocumentError::Undecodable(_)));
    }
}

#[test]
fn a_compressed_change_is_refused_unread() {
    let mut change = foreign(|tx| tx.put(&skeleton().body, "/a", "x".repeat(10_000)));
    let bytes = change.bytes().into_owned();
    assert!(bytes.len() < 1_000);
    let error = Object::new().apply(&bytes, ChangeHash(change.hash().0), B).unwrap_err();
    assert_eq!(error, DocumentError::Undecodable("it is not an uncompressed change"));
}

/// A creating change with these columns, whatever they hold.
fn handmade(columns: &[(u64, &[u8])]) -> (Vec<u8>, ChangeHash) {
    let mut body = vec![1];
    body.extend(skeleton().hash.0);
    body.push(16);
    body.extend(A);
    // Sequence number, first operation, time, no message, no further actors.
    body.extend([1, 3, 0, 0, 0]);
    body.push(columns.len() as u8);
    for (spec, data) in columns {
        body.extend([*spec as u8, data.len() as u8]);
    }
    for (_, data) in columns {
        body.extend(*data);
    }
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    match u8::try_from(body.len()) {
        Ok(length @ ..0x80) => bytes.push(length),
        _ => bytes.extend([body.len() as u8 | 0x80, (body.len() >> 7) as u8]),
    }
    bytes.extend(body);
    sealed(bytes)
}

#[test]
fn a_few_bytes_cannot_ask_for_much_work() {
    // 2^55, as a run's length and as a count.
    const MANY: [u8; 8] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    let many = |rest: &[u8]| [&MANY[..], rest].concat();
    let one = [0x7f, 1];
    let columns = |change: (u64, &[u8])| {
        let mut columns: Vec<(u64, Vec<u8>)> = vec![
            (chunk::KEY_STRING, b"\x7f\x04kind".to_vec()),
            (chunk::INSERT, vec![1]),
            (chunk::ACTION, one.to_vec()),
            (chunk::VALUE_META, vec![0x7f, 0x16]),
            (chunk::VALUE, b"x".to_vec()),
            (chunk::PRED_COUNT, vec![0x7f, 0]),
        ];
        columns.retain(|(spec, _)| *spec != change.0);
        columns.push((change.0, change.1.to_vec()));
        columns.sort();
        let columns: Vec<(u64, &[u8])> = columns.iter().map(|(s, data)| (*s, &data[..])).collect();
        let (bytes, hash) = handmade(&columns);
        Object::new().apply(&bytes, hash, A)
    };
    assert_eq!(columns((chunk::ACTION, &one)), Ok(()), "the frame of this test is sound");
    let refused = Err(DocumentError::TooManyOps { limit: OPS_MAX });
    assert_eq!(columns((chunk::ACTION, &many(&[1]))), refused);
    assert_eq!(columns((chunk::INSERT, &MANY)), refused);
    assert_eq!(columns((chunk::OBJ_ACTOR, &[&[0][..], &MANY].concat())), refused);
    assert_eq!(columns((chunk::PRED_COUNT, &[&[0x7f][..], &MANY].concat())), refused);
    assert!(matches!(
        columns((chunk::VALUE_META, &[&[0x7f][..], &MANY].concat())),
        Err(DocumentError::Undecodable(_))
    ));
}

#[test]
fn what_is_overwritten_must_be_there() {
    // One operation that overwrites operation 1 of the skeleton at a key where it is not.
    let (bytes, hash) = handmade(&[
        (chunk::KEY_STRING, b"\x7f\x04kind"),
        (chunk::INSERT, &[1]),
        (chunk::ACTION, &[0x7f, 1]),
        (chunk::VALUE_META, &[0x7f, 0x16]),
        (chunk::VALUE, b"x"),
        (chunk::PRED_COUNT, &[0x7f, 1]),
        (chunk::PRED_ACTOR, &[0x7f, 0]),
        (chunk::PRED_COUNTER, &[0x7f, 2]),
    ]);
    let mut object = Object::new();
    // Automerge would take it in, and then either give back another change or panic.
    let error = object.apply(&bytes, hash, A).unwrap_err();
    assert!(matches!(error, DocumentError::Schema { op: 0, .. }), "{error}");
    assert_eq!(object.heads(), []);
}

#[test]
fn numbers_that_leave_no_room_for_later_changes_are_refused() {
    let (mut bytes, _) = handmade(&[
        (chunk::KEY_STRING, b"\x7f\x04kind"),
        (chunk::INSERT, &[1]),
        (chunk::ACTION, &[0x7f, 1]),
        (chunk::VALUE_META, &[0x7f, 0x16]),
        (chunk::VALUE, b"x"),
        (chunk::PRED_COUNT, &[0x7f, 0]),
    ]);
    // The number of the first operation follows the header, one dependency and the author.
    let at = bytes.windows(16).position(|window| window == A).unwrap() + 17;
    assert_eq!(bytes[at], 3);
    bytes[at] = 100;
    let (bytes, hash) = sealed(bytes);
    assert!(matches!(Object::new().apply(&bytes, hash, A), Err(DocumentError::Order(_))));
}

#[test]
fn another_hash_or_author_than_announced_is_refused() {
    let change = Object::create(&content(json!({})), A, NOW);
    let other = ChangeHash([7; 32]);
    let error = Object::new().apply(&change.bytes, other, A).unwrap_err();
    assert_eq!(error, DocumentError::Hash { expected: other, found: change.hash });
    let error = Object::new().apply(&change.bytes, change.hash, B).unwrap_err();
    assert_eq!(error, DocumentError::Actor);
    assert_eq!(Object::read_creation(&change.bytes, change.hash, B), Err(DocumentError::Actor));
}

#[test]
fn a_second_change_under_a_used_number_is_refused() {
    let one = Object::create(&content(json!({"a": 1})), A, NOW);
    let two = Object::create(&content(json!({"a": 2})), A, NOW);
    let mut object = Object::new();
    object.apply(&one.bytes, one.hash, A).unwrap();
    assert!(matches!(object.apply(&two.bytes, two.hash, A), Err(DocumentError::Order(_))));
    object.apply(&one.bytes, one.hash, A).unwrap();
    assert_eq!(object.heads(), [one.hash]);
}

#[test]
fn deeply_nested_foreign_lists_neither_overflow_the_stack_nor_are_shown() {
    let change = foreign(|tx| {
        let mut list = tx.put_object(&skeleton().body, "", ObjType::List)?;
        for _ in 0..3_000 {
            list = tx.insert_object(&list, 0, ObjType::List)?;
        }
        Ok(())
    });
    let (bytes, hash) = (change.raw_bytes(), ChangeHash(change.hash().0));
    assert_eq!(Object::read_creation(bytes, hash, B).unwrap(), None);
    let mut object = Object::new();
    object.apply(bytes, hash, B).unwrap();
    let mut view = object.view().unwrap().content.into_parts().3;
    let mut depth = 0;
    while let Some(inner) = view.as_array().and_then(|items| items.first()) {
        (view, depth) = (inner.clone(), depth + 1);
    }
    assert_eq!(depth, DEPTH_MAX);
}

#[test]
fn a_snapshot_of_something_else_is_refused() {
    let mut doc = Automerge::new().with_actor(ActorId::from(&A[..]));
    let mut tx = doc.transaction();
    tx.put(&ROOT, "kind", "x").unwrap();
    tx.commit();
    assert!(matches!(Object::load(&doc.save()), Err(DocumentError::Snapshot(_))));
    assert!(Object::load(b"no document").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (mut object, hash) = (Object::new(), ChangeHash([0; 32]));
        prop_assert!(object.apply(&bytes, hash, A).is_err());
        prop_assert!(Object::read_creation(&bytes, hash, A).is_err());
        let mut bytes = [&[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1], &bytes[..]].concat();
        if let Ok(length) = u8::try_from(bytes.len() - 9) && length < 128 {
            bytes.insert(9, length);
        }
        let (bytes, hash) = sealed(bytes);
        prop_assert!(object.apply(&bytes, hash, A).is_err());
    }

    /// A member with a good key may sign whatever it likes, so the flipped change is announced
    /// with its true hash.
    #[test]
    fn a_flipped_change_is_refused_or_taken_alike_by_all(
        first in any_content(),
        second in any_content(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        creation in any::<bool>(),
    ) {
        let mut object = Object::new();
        let mut change = object.set(&first, A, NOW).unwrap().unwrap();
        let base = if creation { Object::new() } else { object.clone() };
        if !creation {
            let Some(next) = object.set(&second, A, NOW).unwrap() else { return Ok(()) };
            change = next;
        }
        let mut bytes = change.bytes;
        for (at, to) in flips {
            let at = 9 + at.index(bytes.len() - 9);
            bytes[at] = to;
        }
        let (bytes, hash) = sealed(bytes);
        let mut taken = base.clone();
        let before = base.view().unwrap();
        let fast = Object::read_creation(&bytes, hash, A);
        match taken.apply(&bytes, hash, A) {
            Err(_) => {
                prop_assert_eq!(&taken.view().unwrap(), &before);
                prop_assert!(!creation || !matches!(fast, Ok(Some(_))));
            }
            Ok(()) => {
                let view = taken.view().unwrap();
                prop_assert_eq!(&Object::load(&taken.save()).unwrap().view().unwrap(), &view);
                if creation && let Ok(Some(fast)) = fast {
                    prop_assert_eq!(fast, view);
                }
                // Whatever it is, it can be written over.
                taken.set(&first, B, NOW).unwrap();
                prop_assert_eq!(taken.view().unwrap().content, first);
            }
        }
    }
}

/// The refusal of what another program writes at a place where honest devices wrote.
fn refused_after(
    object: &Object,
    write: impl FnOnce(&mut Transaction<'_>, &Automerge) -> Result<(), AutomergeError>,
) -> DocumentError {
    let before = object.view().unwrap();
    let seen = object.doc.clone();
    let mut doc = object.doc.clone().with_actor(ActorId::from(&B[..]));
    let mut tx = doc.transaction();
    write(&mut tx, &seen).unwrap();
    let (hash, _) = tx.commit_with(CommitOptions::default().with_time(1));
    let change = doc.get_change_by_hash(&hash.unwrap()).unwrap();
    let mut object = object.clone();
    let error = object.apply(change.raw_bytes(), ChangeHash(change.hash().0), B).unwrap_err();
    assert_eq!(object.view().unwrap(), before);
    error
}

#[test]
fn texts_take_single_characters_and_counters_bounded_sums_only() {
    let types =
        LeafTypes::from([("/t".to_owned(), LeafType::Text), ("/n".to_owned(), LeafType::Counter)]);
    let whole = json!({"t": "text", "n": 1, "p": 1});
    let content = Content::typed("k", "c", BTreeMap::new(), whole, types).unwrap();
    let mut object = Object::new();
    object.set(&content, A, NOW).unwrap();
    let body = &skeleton().body;
    let text = |doc: &Automerge| doc.get(body, "/t").unwrap().unwrap().1;
    let errors = [
        refused_after(&object, |tx, doc| tx.insert(text(doc), 0, "two")),
        refused_after(&object, |tx, doc| tx.insert(text(doc), 0, "")),
        refused_after(&object, |tx, doc| tx.insert(text(doc), 0, 1)),
        refused_after(&object, |tx, doc| tx.put(text(doc), 0, "x")),
        refused_after(&object, |tx, doc| tx.insert_object(text(doc), 0, ObjType::List).map(|_| ())),
        refused_after(&object, |tx, _| tx.increment(body, "/n", i64::MAX)),
        refused_after(&object, |tx, _| {
            tx.put(body, "/q", ScalarValue::counter(1))?;
            tx.increment(body, "/q", 1)
        }),
    ];
    for error in errors {
        assert!(matches!(error, DocumentError::Schema { .. }), "{error:?}");
    }
}

#[test]
fn an_addition_to_what_is_no_counter_is_refused() {
    let typed = |n: u8| {
        let types = LeafTypes::from([("/n".to_owned(), LeafType::Counter)]);
        Content::typed("k", "c", BTreeMap::new(), json!({ "n": n }), types).unwrap()
    };
    let mut left = Object::new();
    left.set(&typed(1), A, NOW).unwrap();
    let mut right = left.clone();
    left.set(&content(json!({"n": 1})), A, NOW).unwrap();
    let counter = right.set(&typed(5), [3; 16], NOW).unwrap().unwrap();
    // Apart they are as they should be: the addition is of no account, since it is overwritten.
    left.apply(&counter.bytes, counter.hash, [3; 16]).unwrap();
    assert_eq!(left.view().unwrap().content.body(), &json!({"n": 1}));
    assert_eq!(left.view().unwrap().content.types(), &LeafTypes::new());
    let mut other = Object::new();
    let other_first = other.set(&typed(7), [4; 16], NOW).unwrap().unwrap();
    left.apply(&other_first.bytes, other_first.hash, [4; 16]).unwrap();
    // A plain value and a counter meet: who adds to both overwrites the one that is plain.
    let error = refused_after(&left, |tx, _| tx.increment(&skeleton().body, "/n", 1));
    assert!(matches!(error, DocumentError::Schema { .. }), "{error:?}");
    let settled = left.set(&typed(9), A, NOW).unwrap();
    assert!(settled.is_some());
    assert_eq!(left.view().unwrap().conflicts, []);
}
