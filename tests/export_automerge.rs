//! What `export --format automerge` writes, read by Automerge itself and a reader of its own.

use automerge::{Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::process::{ALONE, Node, place};

/// The body as docs/OPERATING.md says to read it.
fn body(doc: &Automerge) -> Value {
    let (_, flat) = doc.get(&ROOT, "body").unwrap().expect("there is a body");
    read_flat(doc, &flat)
}

fn read_flat(doc: &Automerge, flat: &ObjId) -> Value {
    let mut root = json!({});
    // Keys come in their order, so that a place comes before what lies beneath it.
    for key in doc.keys(flat) {
        let (value, id) = doc.get(flat, &key).unwrap().unwrap();
        let leaf = read(doc, &value, &id);
        let tokens: Vec<String> =
            key.split('/').skip(1).map(|t| t.replace("~1", "/").replace("~0", "~")).collect();
        let mut at = Some(&mut root);
        for token in &tokens {
            at = at
                .and_then(Value::as_object_mut)
                .map(|members| members.entry(token.clone()).or_insert_with(|| json!({})));
        }
        if let (Some(at), Some(leaf)) = (at, leaf) {
            *at = leaf;
        }
    }
    root
}

/// A value; nothing for the mark of an object.
fn read(doc: &Automerge, value: &automerge::Value<'_>, id: &ObjId) -> Option<Value> {
    Some(match value {
        automerge::Value::Object(ObjType::Text) => Value::String(doc.text(id).unwrap()),
        automerge::Value::Object(ObjType::List) => {
            let items = (0..doc.length(id)).map(|index| {
                let (value, id) = doc.get(id, index).unwrap().unwrap();
                read(doc, &value, &id).unwrap_or_else(|| json!({}))
            });
            Value::Array(items.collect())
        }
        automerge::Value::Object(_) => read_flat(doc, id),
        automerge::Value::Scalar(scalar) => match &**scalar {
            ScalarValue::Bytes(_) => return None,
            ScalarValue::Str(text) => json!(text.as_str()),
            ScalarValue::Int(number) => json!(number),
            ScalarValue::Uint(number) => json!(number),
            ScalarValue::F64(number) => json!(number),
            ScalarValue::Counter(counter) => json!(i64::from(counter)),
            ScalarValue::Boolean(value) => json!(value),
            ScalarValue::Null => Value::Null,
            other => panic!("no body holds {other:?}"),
        },
    })
}

fn check(line: &str, changes: usize) {
    let object: Map<String, Value> = serde_json::from_str(line).unwrap();
    let bytes = BASE64.decode(object["automerge"].as_str().unwrap().as_bytes()).unwrap();
    let doc = Automerge::load(&bytes).unwrap();
    assert_eq!(body(&doc).to_string(), object["body"].to_string());
    for word in ["kind", "class"] {
        let (found, _) = doc.get(&ROOT, word).unwrap().unwrap();
        assert_eq!(found.as_str(), object[word].as_str());
    }
    // Every document begins with one change that is the same everywhere.
    assert_eq!(doc.get_changes(&[]).len(), changes + 1, "{line}");
}

#[test]
fn each_exported_document_is_loaded_by_automerge_and_reads_the_same() {
    let place = place();
    let mut node = Node::start(place.path(), "n", &ALONE);
    let deep = json!({
        "a": {"b": {"c": [1, 2.5, {"x/y": {"~": null}}, [], {}]}, "": true}, "a-b": {}, "u": u64::MAX
    });
    node.put("normal", "deep/é", &deep);
    node.put("normal", "list", &json!([[{"n": 1}], "two"]));
    for n in 0..40 {
        node.put(
            "normal",
            "often",
            &json!({"n": n, "old": if n < 39 { json!(1) } else { json!({}) }}),
        );
    }
    let typed = ["--type", "/t=text", "--type", "/n=counter"];
    let put = ["put", "normal", "typed", r#"{"t":"one","n":1}"#];
    node.cli(&[&put[..], &typed[..]].concat()).is(0);
    node.cli(&["patch", "normal", "typed", r#"{"t":"one two"}"#, "--add", "/n=4"]).is(0);
    let export = ["export", "normal", "--format", "automerge"];
    let running = node.cli(&export).is(0).out.clone();
    let lines: Vec<&str> = running.lines().collect();
    assert_eq!(lines.len(), 4);
    for (line, changes) in lines.iter().zip([1, 1, 40, 2]) {
        check(line, changes);
    }
    node.stop();
    assert_eq!(node.cli(&export).is(0).out, running, "the same without the daemon");

    let other = Node::start(place.path(), "other", &ALONE);
    let file = place.path().join("lines.jsonl");
    std::fs::write(&file, &running).unwrap();
    other.cli(&["import", "normal", file.to_str().unwrap()]).is(0);
    assert_eq!(other.body("normal", "deep/é"), Some(deep));
    let typed = other.cli(&["get", "normal", "typed"]).json();
    assert_eq!(typed["types"], json!({"/n": "counter", "/t": "text"}));
}
