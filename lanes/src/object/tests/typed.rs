//! Leaves that are texts or counters.

use super::*;

fn typed(body: Value, types: &[(&str, LeafType)]) -> Content {
    let types = types.iter().map(|(at, kind)| ((*at).to_owned(), *kind)).collect();
    Content::typed("note", "private", BTreeMap::new(), body, types).unwrap()
}

const TEXT: (&str, LeafType) = ("/t", LeafType::Text);
const COUNTER: (&str, LeafType) = ("/n", LeafType::Counter);

/// Two devices that share `base`, bring it to other contents apart, and exchange what they wrote.
fn apart(base: &Content, a: &Content, b: &Content) -> View {
    let mut left = Object::new();
    left.set(base, A, NOW).unwrap();
    let mut right = left.clone();
    let from_left = left.set(a, A, NOW).unwrap();
    let from_right = right.set(b, B, NOW).unwrap();
    exchange(left, right, from_left, from_right)
}

#[test]
fn edits_at_two_places_of_a_text_both_stay() {
    let of = |text: &str| typed(json!({ "t": text }), &[TEXT]);
    let view = apart(
        &of("The quick fox jumps."),
        &of("The quick brown fox jumps."),
        &of("The quick fox jumps over the dog."),
    );
    assert_eq!(view.content, of("The quick brown fox jumps over the dog."));
    assert_eq!(view.conflicts, []);
}

#[test]
fn additions_made_apart_are_summed() {
    let of = |number: i64| typed(json!({ "n": number }), &[COUNTER]);
    let view = apart(&of(10), &of(13), &of(5));
    assert_eq!(view.content, of(8));
    assert_eq!(view.conflicts, []);
}

#[test]
fn a_patch_adds_to_a_counter_and_to_nothing_else() {
    let mut object = Object::new();
    object.set(&typed(json!({"n": 1, "m": 1}), &[COUNTER]), A, NOW).unwrap();
    let add =
        |at: &str, by| Patch { add: BTreeMap::from([(at.to_owned(), by)]), ..Patch::default() };
    for _ in 0..3 {
        object.patch(&add("/n", 2), A, NOW).unwrap().unwrap();
    }
    assert_eq!(body(&object), json!({"n": 7, "m": 1}));
    for (at, by) in [("/m", 1), ("/x", 1), ("/n", i64::MAX), ("n", 1)] {
        let error = object.patch(&add(at, by), A, NOW).unwrap_err();
        assert!(matches!(error, WriteError::Content(ContentError::Type { .. })), "{error:?}");
    }
}

#[test]
fn a_counter_that_was_added_to_apart_beyond_its_range_hinders_no_other_field() {
    let of = |number: u64| typed(json!({"n": number, "m": 1}), &[COUNTER]);
    let mut object = Object::new();
    object.set(&of(0), A, NOW).unwrap();
    let mut other = object.clone();
    object.set(&of(COUNTER_MAX), A, NOW).unwrap();
    let apart = other.set(&of(COUNTER_MAX), B, NOW).unwrap().unwrap();
    object.apply(&apart.bytes, apart.hash, B).unwrap();
    object.patch(&Patch { body: Some(json!({"m": 2})), ..Patch::default() }, A, NOW).unwrap();
    let content = object.view().unwrap().content;
    assert_eq!(content.body(), &json!({"n": 2 * COUNTER_MAX, "m": 2}));
    assert_eq!(content.types().get("/n"), Some(&LeafType::Counter));
    let add = |by| Patch { add: BTreeMap::from([("/n".to_owned(), by)]), ..Patch::default() };
    object.patch(&add(1), A, NOW).unwrap_err();
    object.patch(&add(-(COUNTER_MAX as i64)), A, NOW).unwrap();
    assert_eq!(body(&object), json!({"n": COUNTER_MAX, "m": 2}));
}

#[test]
fn a_type_stays_with_its_leaf_until_its_value_is_of_another_sort() {
    let mut object = Object::new();
    object.set(&typed(json!({"n": 1, "t": "a"}), &[COUNTER, TEXT]), A, NOW).unwrap();
    let patch = |body: Value| Patch { body: Some(body), ..Patch::default() };
    object.patch(&patch(json!({"n": 2, "t": "ab"})), A, NOW).unwrap();
    let types = |object: &Object| object.view().unwrap().content.types().clone();
    assert_eq!(types(&object).len(), 2);
    object.patch(&patch(json!({"n": 2.5})), A, NOW).unwrap();
    object.patch(&patch(json!({"t": null})), A, NOW).unwrap();
    assert_eq!(types(&object), LeafTypes::new());
    object.patch(&patch(json!({"n": 2})), A, NOW).unwrap();
    assert_eq!(types(&object), LeafTypes::new(), "what is plain stays so");
    let asked = AskedTypes::from([("/n".to_owned(), Some(LeafType::Counter))]);
    object.patch(&Patch { types: asked, ..Patch::default() }, A, NOW).unwrap();
    assert_eq!(types(&object), LeafTypes::from([("/n".to_owned(), LeafType::Counter)]));
    let asked = AskedTypes::from([("/n".to_owned(), None)]);
    assert!(object.patch(&Patch { types: asked, ..Patch::default() }, A, NOW).unwrap().is_some());
    assert_eq!(types(&object), LeafTypes::new());
    assert_eq!(body(&object), json!({"n": 2}));
}

#[test]
fn leaves_created_apart_are_a_conflict_and_every_addition_after_it_counts() {
    let of = |number: i64| typed(json!({ "n": number }), &[COUNTER]);
    let (mut left, mut right) = (Object::new(), Object::new());
    let from_left = left.set(&of(1), A, NOW).unwrap().unwrap();
    let from_right = right.set(&of(5), B, NOW).unwrap().unwrap();
    left.apply(&from_right.bytes, from_right.hash, B).unwrap();
    right.apply(&from_left.bytes, from_left.hash, A).unwrap();
    assert_eq!(values(&left.view().unwrap(), "/body/n"), [(json!(5), B), (json!(1), A)]);
    let from_left = left.set(&of(6), A, NOW).unwrap();
    let from_right = right.set(&of(7), B, NOW).unwrap();
    let view = exchange(left, right, from_left, from_right);
    assert_eq!(values(&view, "/body/n"), [(json!(8), B), (json!(4), A)]);
}

#[test]
fn a_text_against_a_plain_value_is_a_conflict_of_which_one_is_shown() {
    let base = content(json!({"t": "old"}));
    let text = Content::typed(
        KIND_DEFAULT,
        CLASS_DEFAULT,
        BTreeMap::new(),
        json!({"t": "text"}),
        LeafTypes::from([("/t".to_owned(), LeafType::Text)]),
    );
    let view = apart(&base, &text.unwrap(), &content(json!({"t": 7})));
    assert_eq!(values(&view, "/body/t").len(), 2);
    let shows_text = view.content.body() == &json!({"t": "text"});
    assert_eq!(view.content.types().len(), usize::from(shows_text));
}

#[test]
fn a_deletion_wins_over_edits_within_a_leaf() {
    let both = &[COUNTER, TEXT];
    let view = apart(
        &typed(json!({"n": 1, "t": "a"}), both),
        &typed(json!({}), &[]),
        &typed(json!({"n": 2, "t": "ab"}), both),
    );
    assert_eq!(view.content, typed(json!({}), &[]));
}

#[test]
fn types_are_refused_where_they_cannot_be() {
    let refused = |body: Value, at: &str, kind| {
        let types = LeafTypes::from([(at.to_owned(), kind)]);
        Content::typed("k", "c", BTreeMap::new(), body, types).unwrap_err().to_string()
    };
    let counter = LeafType::Counter;
    let text = refused(json!({"l": [{"n": 1}]}), "/l/0/n", counter);
    let expected =
        "/body/l/0/n cannot be a counter: it lies in a list, where places have no lasting name";
    assert_eq!(text, expected);
    assert!(refused(json!({"n": 1.0}), "/n", counter).contains("no integer"));
    assert!(refused(json!({"n": 1_u64 << 54}), "/n", counter).contains("2^53"));
    assert!(refused(json!({"n": 1}), "/n", LeafType::Text).contains("no string"));
    assert!(refused(json!({"n": 1}), "/m", LeafType::Text).contains("nothing there"));
    assert!(refused(json!({"n": 1}), "n", counter).contains("no JSON pointer"));
    let long = "x".repeat(PLACES_MAX);
    assert!(refused(json!({ "t": long }), "/t", LeafType::Text).contains("50000 values"));
    let long = "é".repeat(PLACES_MAX - 2);
    assert_eq!(typed(json!({ "t": long }), &[TEXT]).types().len(), 1);
}

#[test]
fn the_longest_text_is_created_edited_and_replaced() {
    let of = |text: String| typed(json!({ "t": text }), &[TEXT]);
    let first = of("ab ".repeat(16_000));
    let second = of("cd\n".repeat(16_000));
    let mut object = Object::new();
    let created = Object::create(&first, A, NOW);
    let view = Object::read_creation(&created.bytes, created.hash, A).unwrap().unwrap();
    assert_eq!(view.content, first);
    object.apply(&created.bytes, created.hash, A).unwrap();
    let replaced = object.clone().set(&second, B, NOW).unwrap().unwrap();
    object.apply(&replaced.bytes, replaced.hash, B).unwrap();
    assert_eq!(object.view().unwrap().content, second);
    let loaded = Object::load(&object.save()).unwrap();
    assert_eq!(loaded.view().unwrap().content, second);
}
