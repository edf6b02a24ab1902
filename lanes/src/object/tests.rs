//! What objects promise.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

pub(crate) mod crafted;
pub(crate) mod hostile;
mod model;
pub(crate) mod past;
mod typed;

const A: [u8; 16] = [1; 16];
const B: [u8; 16] = [2; 16];
const NOW: WallMillis = WallMillis(1_763_000_000_000);

fn content(body: Value) -> Content {
    Content::of(body).unwrap()
}

fn labelled(labels: &[(&str, &str)], body: Value) -> Content {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Content::new("note", "private", labels, body).unwrap()
}

fn set(object: &mut Object, body: Value, actor: [u8; 16]) -> Option<EncodedChange> {
    object.set(&content(body), actor, NOW).unwrap()
}

fn body(object: &Object) -> Value {
    object.view().unwrap().content.into_parts().3
}

/// Two devices that share `base`, edit apart, and then exchange what they wrote.
fn edited_apart(base: Value, a: Value, b: Value) -> View {
    let mut left = Object::new();
    set(&mut left, base, A);
    let mut right = left.clone();
    let from_left = set(&mut left, a, A);
    let from_right = set(&mut right, b, B);
    exchange(left, right, from_left, from_right)
}

fn created_apart(a: Value, b: Value) -> View {
    let (mut left, mut right) = (Object::new(), Object::new());
    let from_left = set(&mut left, a, A);
    let from_right = set(&mut right, b, B);
    exchange(left, right, from_left, from_right)
}

fn exchange(
    mut left: Object,
    mut right: Object,
    from_left: Option<EncodedChange>,
    from_right: Option<EncodedChange>,
) -> View {
    if let Some(change) = from_right {
        left.apply(&change.bytes, change.hash, B).unwrap();
    }
    if let Some(change) = from_left {
        right.apply(&change.bytes, change.hash, A).unwrap();
    }
    assert_eq!(left.view().unwrap(), right.view().unwrap());
    assert_eq!(left.heads(), right.heads());
    left.view().unwrap()
}

fn values(view: &View, path: &str) -> Vec<(Value, [u8; 16])> {
    let conflict = view.conflicts.iter().find(|conflict| conflict.path == path);
    let values = &conflict.unwrap_or_else(|| panic!("no conflict at {path}: {view:?}")).values;
    assert!(values[0].shown && values[1..].iter().all(|value| !value.shown));
    values.iter().map(|value| (value.value.clone(), value.actor)).collect()
}

#[test]
fn devices_that_create_an_object_apart_end_with_the_union_at_every_depth() {
    let view = created_apart(
        json!({"name": "a", "size": {"w": 1, "deep": {"x": 1}}, "only a": {}}),
        json!({"name": "b", "size": {"h": 2, "deep": {"y": 2}}, "only b": [1]}),
    );
    let expected = json!({
        "name": "b", "size": {"w": 1, "h": 2, "deep": {"x": 1, "y": 2}}, "only a": {}, "only b": [1]
    });
    assert_eq!(view.content.body(), &expected);
    assert_eq!(view.conflicts.len(), 1);
    assert_eq!(values(&view, "/body/name"), [(json!("b"), B), (json!("a"), A)]);
}

#[test]
fn labels_kind_and_class_merge_by_key_and_keep_their_conflicts() {
    let (mut left, mut right) = (Object::new(), Object::new());
    let from_left = left.set(&labelled(&[("x", "1"), ("y", "1")], json!({})), A, NOW).unwrap();
    let other = Content::new(
        "file",
        "private",
        [("x", "2"), ("z", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        json!({}),
    );
    let from_right = right.set(&other.unwrap(), B, NOW).unwrap();
    let view = exchange(left, right, from_left, from_right);
    assert_eq!(view.content.labels().keys().collect::<Vec<_>>(), ["x", "y", "z"]);
    assert_eq!(view.content.class(), "private");
    assert_eq!(view.conflicts.len(), 2);
    assert_eq!(values(&view, "/kind"), [(json!("file"), B), (json!("note"), A)]);
    assert_eq!(values(&view, "/labels/x"), [(json!("2"), B), (json!("1"), A)]);
}

#[test]
fn edits_of_different_nested_fields_both_survive() {
    let view = edited_apart(
        json!({"a": {"x": 1, "y": 1}, "b": {"c": {"d": 0}}}),
        json!({"a": {"x": 2, "y": 1}, "b": {"c": {"d": 0, "e": 5}}}),
        json!({"a": {"x": 1, "y": 3}, "b": {"c": {}}}),
    );
    assert_eq!(view.content.body(), &json!({"a": {"x": 2, "y": 3}, "b": {"c": {"e": 5}}}));
    assert_eq!(view.conflicts, []);
}

#[test]
fn edits_of_one_field_keep_both_values_until_someone_decides() {
    let mut left = Object::new();
    set(&mut left, json!({"n": 0, "m": 0}), A);
    let mut right = left.clone();
    set(&mut left, json!({"n": 1, "m": 0}), A);
    let change = set(&mut right, json!({"n": 2, "m": 0}), B).unwrap();
    left.apply(&change.bytes, change.hash, B).unwrap();
    assert_eq!(values(&left.view().unwrap(), "/body/n"), [(json!(2), B), (json!(1), A)]);
    set(&mut left, json!({"n": 2, "m": 9}), A).unwrap();
    assert_eq!(left.view().unwrap().conflicts.len(), 1, "a write elsewhere decides nothing");
    set(&mut left, json!({"n": 3, "m": 9}), A).unwrap();
    assert_eq!(left.view().unwrap().conflicts, []);
}

#[test]
fn the_same_value_written_twice_is_no_conflict_but_another_kind_of_number_is() {
    assert_eq!(created_apart(json!({"n": 1}), json!({"n": 1})).conflicts, []);
    let view = created_apart(json!({"n": 1}), json!({"n": 1.0}));
    assert_eq!(values(&view, "/body/n").len(), 2);
}

#[test]
fn a_scalar_against_an_object_is_a_conflict_that_shows_one_and_lists_the_other() {
    let view = created_apart(json!({"p": {"x": {"y": 1}}}), json!({"p": 5}));
    assert_eq!(view.content.body(), &json!({"p": 5}));
    assert_eq!(values(&view, "/body/p"), [(json!(5), B), (json!({"x": {"y": 1}}), A)]);
    let view = created_apart(json!({"p": 5}), json!({"p": {"x": 1}}));
    assert_eq!(values(&view, "/body/p"), [(json!({"x": 1}), B), (json!(5), A)]);
}

#[test]
fn a_field_written_while_its_object_is_deleted_brings_the_object_back() {
    let base = json!({"p": {"x": 1, "y": 1}});
    let view = edited_apart(base, json!({}), json!({"p": {"x": 1, "y": 2}}));
    assert_eq!(view.content.body(), &json!({"p": {"y": 2}}));
    assert_eq!(view.conflicts, []);
}

#[test]
fn a_field_written_while_its_object_is_replaced_is_listed_as_a_conflict() {
    let base = json!({"p": {"x": 1, "y": 1}});
    let view = edited_apart(base.clone(), json!({"p": 7}), json!({"p": {"x": 1, "y": 2}}));
    assert_eq!(view.content.body(), &json!({"p": 7}));
    assert_eq!(values(&view, "/body/p"), [(json!(7), A), (json!({"y": 2}), B)]);
    let view = edited_apart(base, json!({"p": [7]}), json!({"p": {"x": 1, "y": 2}}));
    assert_eq!(values(&view, "/body/p"), [(json!([7]), A), (json!({"y": 2}), B)]);
}

#[test]
fn an_object_that_came_back_stays_when_its_last_field_goes() {
    let mut left = Object::new();
    set(&mut left, json!({"p": {"x": 1}}), A);
    let mut right = left.clone();
    set(&mut left, json!({}), A);
    let change = set(&mut right, json!({"p": {"x": 2}}), B).unwrap();
    left.apply(&change.bytes, change.hash, B).unwrap();
    assert_eq!(set(&mut left, json!({"p": {"x": 2}}), A), None);
    set(&mut left, json!({"p": {}}), A).unwrap();
    assert_eq!(body(&left), json!({"p": {}}));
}

#[test]
fn inserts_at_two_places_of_a_list_both_survive() {
    let view = edited_apart(
        json!({"l": [1, 2, 3, 4]}),
        json!({"l": [1, "a", 2, 3, 4]}),
        json!({"l": [1, 2, 3, "b", 4, "c"]}),
    );
    assert_eq!(view.content.body(), &json!({"l": [1, "a", 2, 3, "b", 4, "c"]}));
}

#[test]
fn an_edit_within_an_element_survives_edits_around_it() {
    let view = edited_apart(
        json!([{"id": 1, "t": {"done": false}}, {"id": 2, "t": {}}, 3]),
        json!([{"id": 1, "t": {"done": true}}, {"id": 2, "t": {}}, 3]),
        json!(["new", {"id": 1, "t": {"done": false, "by": "b"}}, 3]),
    );
    // Both edit the first element; the right one inserts before it and removes the second.
    let shown = view.content.body().to_string();
    assert!(shown.contains("\"new\"") && !shown.contains("\"id\":2"), "{shown}");
}

#[test]
fn only_the_difference_is_written() {
    let size = |from: Value, to: Value| {
        let mut object = Object::new();
        set(&mut object, from, A);
        let change = set(&mut object, to.clone(), A).unwrap();
        assert_eq!(body(&object), to);
        chunk::Change::read(&change.bytes, change.hash, A).unwrap().ops.len()
    };
    assert_eq!(size(json!({"a": 1, "b": {"c": 2}}), json!({"a": 1, "b": {"c": 3}})), 1);
    assert_eq!(size(json!([1, 2, 3]), json!([1, 3])), 1);
    assert_eq!(size(json!([1, 2, 3]), json!([0, 1, 2, 9, 3])), 2);
    assert_eq!(size(json!([{"a": 1}, 2]), json!([{"a": 2}, 2])), 1);
    assert_eq!(size(json!({"a": {"b": {"c": 1}}}), json!({"a": 1})), 3);
}

#[test]
fn the_sign_of_zero_is_written_in_maps_and_lists() {
    let mut object = Object::new();
    for zero in [json!(0.0), json!(-0.0), json!(0.0)] {
        assert!(set(&mut object, json!({"m": zero, "l": [zero, 1]}), A).is_some());
        let expected = json!({"l": [zero, 1], "m": zero}).to_string();
        assert_eq!(body(&object).to_string(), expected);
    }
}

#[test]
fn a_patch_changes_what_it_names() {
    let mut object = Object::new();
    let from = labelled(&[("x", "1"), ("y", "2")], json!({"a": {"b": 1, "c": 2}, "d": [1]}));
    object.set(&from, A, NOW).unwrap();
    let patch = Patch {
        labels: BTreeMap::from([("x".into(), None), ("z".into(), Some("3".into()))]),
        body: Some(json!({"a": {"b": null, "e": {"f": null}}, "d": [2]})),
        ..Patch::default()
    };
    assert!(object.patch(&patch, A, NOW).unwrap().is_some());
    let to = labelled(&[("y", "2"), ("z", "3")], json!({"a": {"c": 2, "e": {}}, "d": [2]}));
    assert_eq!(object.view().unwrap().content, to);
    assert_eq!(object.patch(&Patch::default(), A, NOW).unwrap(), None);
}

#[test]
fn history_tells_who_wrote_what_when() {
    let mut object = Object::new();
    for n in 0..4 {
        object.set(&content(json!({"n": n})), A, WallMillis(1000 + n)).unwrap();
    }
    let history = object.history(2).unwrap();
    let told: Vec<_> =
        history.iter().map(|item| (item.time.0, item.actor, item.content.body())).collect();
    assert_eq!(told, [(1002, A, &json!({"n": 2})), (1003, A, &json!({"n": 3}))]);
    assert_eq!(vec![history[1].hash], object.heads());
    assert_eq!(object.history(usize::MAX).unwrap().len(), 4);
}

#[test]
fn content_beyond_a_limit_is_refused_with_its_place_and_limit() {
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    assert!(Content::of(nested(DEPTH_MAX)).is_ok());
    let refused = |body: Value| Content::of(body).unwrap_err();
    assert!(matches!(refused(nested(DEPTH_MAX + 1)), ContentError::TooDeep { limit: 128, .. }));
    let many = json!({"a": vec![0; PLACES_MAX]});
    assert!(matches!(refused(many), ContentError::TooManyPlaces { .. }));
    let members = (0..5_000).map(|n| (n.to_string(), json!(n)));
    let long = json!({"k".repeat(1_000): Value::Object(members.collect())});
    assert!(matches!(refused(long), ContentError::TooLarge { .. }));
    let labels = BTreeMap::from([("a/b".to_owned(), "v".repeat(LABEL_VALUE_BYTES_MAX + 1))]);
    let error = Content::new("k", "c", labels, json!({})).unwrap_err();
    let text = "/labels/a~1b is 1025 bytes long, the limit is 1024; shorten it";
    assert_eq!(error.to_string(), text);
    let error = Content::new("k", "", BTreeMap::new(), json!({})).unwrap_err();
    assert_eq!(error, ContentError::Empty { path: "/class".into() });
}

#[test]
fn the_largest_content_is_written_read_and_replaced() {
    let list = content(json!({"l": vec![7; PLACES_MAX - 2]}));
    let members = (0..PLACES_MAX - 1).map(|n| (n.to_string(), Value::Null));
    let map = content(Value::Object(members.collect()));
    let mut object = Object::new();
    let first = Object::create(&list, A, NOW);
    let view = Object::read_creation(&first.bytes, first.hash, A).unwrap().unwrap();
    assert_eq!(view.content, list);
    object.apply(&first.bytes, first.hash, A).unwrap();
    let second = object.clone().set(&map, B, NOW).unwrap().unwrap();
    object.apply(&second.bytes, second.hash, B).unwrap();
    assert_eq!(object.view().unwrap().content, map);
}

/// Any JSON that a body may be.
fn any_json() -> impl Strategy<Value = Value> {
    let key = || prop_oneof![Just(String::new()), "[a-c/~é]{0,3}", ".{0,6}"];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |n| n.is_finite().then(|| Value::from(n))),
        prop::sample::select(vec![0.0, -0.0, 1.0, 1e300]).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(key(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_content() -> impl Strategy<Value = Content> {
    let labels = prop::collection::btree_map(".{1,5}", ".{0,5}", 0..4);
    ("[a-z]{1,8}", "[a-z]{1,8}", labels, any_json(), any::<u64>()).prop_map(
        |(kind, class, labels, body, typed)| {
            let mut types = LeafTypes::new();
            types_by(&body, String::new(), &mut { typed }, &mut types);
            Content::typed(kind, class, labels, body, types).unwrap()
        },
    )
}

/// Makes a text or a counter of each leaf that can be one and whose bit is set.
fn types_by(value: &Value, at: String, bits: &mut u64, types: &mut LeafTypes) {
    *bits = bits.rotate_right(1);
    let kind = match value {
        Value::Object(members) => {
            for (key, value) in members {
                types_by(value, pointer::child(&at, key), bits, types);
            }
            return;
        }
        Value::String(_) => LeafType::Text,
        Value::Number(n) if n.as_i64().is_some_and(|n| n.unsigned_abs() <= COUNTER_MAX) => {
            LeafType::Counter
        }
        _ => return,
    };
    if *bits & 1 == 1 {
        types.insert(at, kind);
    }
}

fn text(view: &View) -> String {
    let content = &view.content;
    let (labels, types) = (content.labels(), content.types());
    format!("{} {} {labels:?} {types:?} {}", content.kind(), content.class(), content.body())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn creation_without_a_document_is_automerges_own_byte_for_byte(
        content in any_content(),
        actor in any::<[u8; 16]>(),
        now in any::<u64>(),
    ) {
        let mut object = Object::new();
        let change = object.set(&content, actor, WallMillis(now)).unwrap().unwrap();
        prop_assert_eq!(&Object::create(&content, actor, WallMillis(now)), &change);
        let fast = Object::read_creation(&change.bytes, change.hash, actor).unwrap().unwrap();
        let mut other = Object::new();
        other.apply(&change.bytes, change.hash, actor).unwrap();
        let slow = other.view().unwrap();
        prop_assert_eq!(text(&fast), text(&slow));
        prop_assert_eq!(text(&fast), text(&View { content, conflicts: vec![] }));
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn bodies_are_replaced_exactly_and_twice_is_once(
        first in any_content(),
        second in any_content(),
    ) {
        let mut object = Object::new();
        object.set(&first, A, NOW).unwrap();
        let mut other = Object::load(&object.save()).unwrap();
        if let Some(change) = object.set(&second, B, NOW).unwrap() {
            other.apply(&change.bytes, change.hash, B).unwrap();
            prop_assert_eq!(Object::read_creation(&change.bytes, change.hash, B).unwrap(), None);
        }
        prop_assert_eq!(object.set(&second, A, NOW).unwrap(), None);
        prop_assert_eq!(text(&object.view().unwrap()), text(&View { content: second, conflicts: vec![] }));
        prop_assert_eq!(text(&other.view().unwrap()), text(&object.view().unwrap()));
    }

    #[test]
    fn three_replicas_with_lists_converge_and_survive_saving(
        base in any_json(),
        edits in prop::collection::vec((0_usize..3, any_json()), 1..6),
    ) {
        let mut first = Object::new();
        set(&mut first, base, [9; 16]);
        let mut replicas = vec![first.clone(), first.clone(), first];
        let mut sent = Vec::new();
        for (at, edit) in edits {
            let actor = [at as u8 + 1; 16];
            sent.extend(set(&mut replicas[at], edit, actor).map(|change| (change, actor)));
        }
        for (at, replica) in replicas.iter_mut().enumerate() {
            let count = sent.len();
            for turn in 0..count {
                // Each author's changes stay in order; the authors' turns differ by replica.
                let mut turns: Vec<_> = (0..count).collect();
                turns.sort_by_key(|what| (usize::from(sent[*what].1[0]) + at) % 3);
                let (change, actor) = &sent[turns[turn]];
                replica.apply(&change.bytes, change.hash, *actor).unwrap();
            }
        }
        let view = replicas[0].view().unwrap();
        for replica in &replicas {
            prop_assert_eq!(&replica.view().unwrap(), &view);
            prop_assert_eq!(&Object::load(&replica.save()).unwrap().view().unwrap(), &view);
        }
    }
}
