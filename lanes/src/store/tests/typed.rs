//! Texts and counters through the store.

use super::*;
use crate::object::{AskedTypes, LeafType, LeafTypes};

fn asked(types: &[(&str, LeafType)]) -> AskedTypes {
    types.iter().map(|(at, kind)| ((*at).to_owned(), Some(*kind))).collect()
}

fn put_typed(id: &str, body: Value, types: &[(&str, LeafType)]) -> Op {
    let action = Action::Put(PutContent { body, types: asked(types), ..PutContent::default() });
    Op { id: id.into(), action, if_heads: None }
}

fn shown_types(device: &mut Device, id: &str) -> LeafTypes {
    match device.see(LaneId::Normal, id) {
        Visibility::Shown(object) => object.row.types,
        other => panic!("not shown: {other:?}"),
    }
}

#[test]
fn edits_of_one_text_and_one_counter_apart_both_stay() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    let types = [("/t", LeafType::Text), ("/n", LeafType::Counter)];
    a.write(LaneId::Normal, &[put_typed("x", json!({"t": "one two", "n": 1}), &types)]).unwrap();
    b.pull(&mut a);
    assert_eq!(shown_types(&mut b, "x").len(), 2);
    for n in 0..40 {
        // A plain put and a patch: what is not named keeps its type.
        a.put("x", json!({"t": format!("zero {n} one two"), "n": 2 + n})).unwrap();
        let patch = Patch { body: Some(json!({"t": "one two three"})), ..Patch::default() };
        let add = Patch { add: [("/n".to_owned(), 10)].into(), ..Patch::default() };
        for patch in [patch, add] {
            let op = Op { id: "x".into(), action: Action::Patch(patch), if_heads: None };
            b.write(LaneId::Normal, &[op]).unwrap();
        }
    }
    a.pull(&mut b);
    b.pull(&mut a);
    let both = json!({"t": "zero 39 one two three", "n": 1 + 40 + 400});
    assert_eq!(a.body("x"), Some(both));
    assert_eq!(a.see(LaneId::Normal, "x"), b.see(LaneId::Normal, "x"));
    // The document was saved meanwhile, and is rebuilt from there.
    b.store().documents.clear();
    b.store.take().unwrap().close().unwrap();
    b.reopen(Some(1)).unwrap();
    b.put("x", json!({"t": "zero 39 one two three!", "n": 440})).unwrap();
    a.pull(&mut b);
    assert_eq!(a.body("x"), Some(json!({"t": "zero 39 one two three!", "n": 440})));
    assert_eq!(shown_types(&mut a, "x").len(), 2);
}

#[test]
fn a_text_that_a_merge_made_too_long_can_still_be_shortened() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    let types = [("/t", LeafType::Text)];
    a.write(LaneId::Normal, &[put_typed("x", json!({"t": ""}), &types)]).unwrap();
    b.pull(&mut a);
    a.put("x", json!({"t": "a".repeat(30_000)})).unwrap();
    b.put("x", json!({"t": "b".repeat(30_000)})).unwrap();
    a.pull(&mut b);
    assert_eq!(a.body("x").unwrap()["t"].as_str().map(str::len), Some(60_000));
    let refused = a.put("x", json!({"t": "c".repeat(50_001)})).unwrap_err();
    assert!(refused.to_string().contains("store a plain string"), "{refused}");
    a.put("x", json!({"t": "short"})).unwrap();
    b.pull(&mut a);
    assert_eq!(b.body("x"), Some(json!({"t": "short"})));
}
