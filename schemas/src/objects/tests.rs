//! What the content of a write may be.

use serde_json::json;

use super::*;

fn check(line: Value, error: &str) {
    let found = ContentDocument::line_from_value(line.clone()).unwrap_err().to_string();
    assert_eq!(found, error, "{line}");
}

#[test]
fn a_line_with_a_fault_says_which() {
    check(json!([]), "an object with \"id\" and \"body\" is expected, not an array");
    check(json!({"id":"a"}), "\"body\" is missing");
    check(json!({"body":1}), "\"id\" is missing");
    check(json!({"id":"","body":1}), "an id must not be empty");
    check(json!({"id":7,"body":1}), "\"id\" must be a string, not a number");
    check(json!({"id":"a","body":1,"lable":{}}), "unknown field \"lable\"");
    check(json!({"id":"a","body":1,"labels":{"a":1}}), "\"labels\" must be a string, not a number");
    check(json!({"id":"x".repeat(513),"body":1}), "id of 513 bytes is over the limit of 512 bytes");
    let labels: BTreeMap<String, String> =
        (0..65).map(|n| (n.to_string(), String::new())).collect();
    check(json!({"id":"a","body":1,"labels":labels}), "65 labels are over the limit of 64");
}

#[test]
fn what_is_exported_can_be_imported() {
    let object = ObjectDocument {
        lane: "normal".into(),
        id: "a".into(),
        kind: "note".into(),
        class: "internal".into(),
        labels: BTreeMap::from([("k".into(), "v".into())]),
        body: json!({"n": 1.0, "t": "x"}),
        types: LeafTypes::from([("/t".into(), LeafType::Text)]),
        author: "00".into(),
        updated_at: Timestamp(5),
        life: 1,
        heads: vec!["h".into()],
        expires_at: None,
        conflicts: None,
        history: None,
        automerge: Some("AA==".into()),
    };
    let line = serde_json::to_value(&object).unwrap();
    let (id, content) = ContentDocument::line_from_value(line).unwrap();
    assert_eq!(id, object.id);
    assert_eq!(content.kind, Some(object.kind));
    assert_eq!(content.labels, Some(object.labels));
    assert_eq!(content.body, object.body);
    assert_eq!(content.types, AskedTypes::from([("/t".into(), Some(LeafType::Text))]));
}

#[test]
fn types_are_text_counter_or_null() {
    let of = |types: Value| ContentDocument::from_value(json!({"body": {}, "types": types}));
    let types = of(json!({"/a": "counter", "/b": null})).unwrap().types;
    assert_eq!(
        types,
        AskedTypes::from([("/a".into(), Some(LeafType::Counter)), ("/b".into(), None)])
    );
    for wrong in [json!("text"), json!({"/a": 1}), json!({"/a": "number"}), json!([])] {
        let error = of(wrong).unwrap_err().to_string();
        assert!(error.starts_with("\"types\" must be an object of \"text\""), "{error}");
    }
}

#[test]
fn batch_operations_are_told_apart_by_op() {
    let op: BatchOp =
        serde_json::from_value(json!({"op":"put","id":"a","body":{"n":1.0}})).unwrap();
    let content = ContentDocument { body: json!({"n": 1.0}), ..ContentDocument::default() };
    assert_eq!(op, BatchOp::Put { id: "a".into(), content });
    let op: BatchOp = serde_json::from_value(json!({"op":"delete","id":"a","reason":"r"})).unwrap();
    assert_eq!(op.id(), "a");
    assert!(serde_json::from_value::<BatchOp>(json!({"op":"drop","id":"a"})).is_err());
}
