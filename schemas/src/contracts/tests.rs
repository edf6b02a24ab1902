//! What holds of every contract, whichever it is.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::schema::Compiled;
use super::*;

#[test]
fn every_schema_compiles_and_has_the_id_of_its_contract() {
    for contract in ALL {
        let compiled = Compiled::new(contract.schema, contract.profiled);
        assert!(compiled.is_ok(), "{}: {}", contract.name, compiled.unwrap_err());
        let schema: Value = serde_json::from_str(contract.schema).unwrap();
        assert_eq!(schema["$id"], contract.urn, "{}", contract.name);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(contract.urn.starts_with("urn:srcos:schema:"), "{}", contract.urn);
        let (member, text) = contract.discriminator.member();
        let fixed = &schema["properties"][member]["const"];
        assert_eq!(fixed, text, "{}: its discriminator is not what the schema says", contract.name);
    }
}

#[test]
fn names_files_urns_and_rules_are_used_once() {
    let mut seen = BTreeSet::new();
    for contract in ALL {
        for text in [contract.name, contract.urn, contract.file] {
            assert!(seen.insert(text), "{text} is used twice");
            assert_eq!(find(text), Some(*contract));
        }
        for rule in contract.rules {
            assert!(seen.insert(rule.name), "{} is used twice", rule.name);
            assert!(rule.name.contains('.') && !rule.says.is_empty(), "{}", rule.name);
        }
    }
}

/// Calls `see` for each subschema of a schema that describes something in a document.
fn walk(schema: &Value, path: &str, see: &mut dyn FnMut(&str, &Value)) {
    let Some(members) = schema.as_object() else { return };
    for (keyword, value) in members {
        let path = format!("{path}/{keyword}");
        match (keyword.as_str(), value) {
            ("properties" | "$defs" | "patternProperties", Value::Object(named)) => {
                for (name, schema) in named {
                    let path = format!("{path}/{name}");
                    see(&path, schema);
                    walk(schema, &path, see);
                }
            }
            ("items" | "additionalProperties", Value::Object(_)) => {
                see(&path, value);
                walk(value, &path, see);
            }
            _ => {}
        }
    }
}

#[test]
fn every_member_of_every_schema_has_a_title_and_a_description() {
    for contract in ALL {
        let schema: Value = serde_json::from_str(contract.schema).unwrap();
        let mut see = |path: &str, schema: &Value| {
            for said in ["title", "description"] {
                let text = schema[said].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{}: {path} has no {said}", contract.file);
            }
        };
        see("", &schema);
        walk(&schema, "", &mut see);
    }
}

#[test]
fn a_document_of_no_known_contract_is_named_as_such() {
    let check = |document: Value, rule: &str, said: &str| {
        let verdict = validate(&document, &Options::default());
        assert_eq!(verdict.contract, None);
        assert_eq!(verdict.errors.len(), 1);
        assert_eq!(verdict.errors[0].rule, rule, "{document}");
        assert!(verdict.errors[0].message.contains(said), "{}", verdict.errors[0].message);
    };
    check(json!([1]), "contract.object", "an array");
    check(json!({"a": 1}), "contract.named", "--schema");
    check(json!({"schema": 7}), "contract.known", "a number");
    check(json!({"schema": "sourceos.surprise/v1"}), "contract.known", "surprise");
    check(json!({"schema": "sourceos.repair-plan/v2"}), "contract.known-version", "v1alpha1");
    check(
        json!({"schema": "sourceos.repair-plan/v1alpha10"}),
        "contract.known-version",
        "repair-plan",
    );
    let long = "x".repeat(1 << 20);
    check(json!({"schema": long}), "contract.known", "...");
}

#[test]
fn findings_of_a_hostile_document_stay_few_and_short() {
    let long = "k".repeat(1 << 20);
    let steps: Vec<Value> = (0..100_000).map(|_| json!({&long[..20]: 1})).collect();
    let document = json!({
        "schema": "sourceos.repair-plan/v1alpha1", long.as_str(): 1, "steps": steps, "status": long
    });
    let verdict = validate(&document, &Options { strict: true, ..Options::default() });
    assert!(!verdict.is_valid());
    assert!(verdict.errors.len() <= FINDINGS_MAX);
    for finding in verdict.errors {
        assert!(finding.message.chars().count() <= MESSAGE_CHARS_MAX + 3);
        assert!(finding.path.chars().count() <= MESSAGE_CHARS_MAX + 3);
    }
}

/// Any JSON value, with names and words that contracts use.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["preview", "0x1", "2026-05-04T10:20:30Z", "2026-05-04"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Members of a schema's root, so that generated documents reach the rules.
fn members(contract: &Contract) -> Vec<String> {
    let schema: Value = serde_json::from_str(contract.schema).unwrap();
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

proptest! {
    #[test]
    fn no_value_whatever_makes_a_contract_panic(
        which in 0..ALL.len(),
        values in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 0..12),
        strict in any::<bool>(),
    ) {
        let contract = ALL[which];
        let names = members(contract);
        let mut document = serde_json::Map::new();
        for (index, value) in values {
            document.insert(index.get(&names).clone(), value);
        }
        let options = Options { contract: Some(contract), profile: None, strict };
        let verdict = validate(&Value::Object(document), &options);
        prop_assert_eq!(verdict.contract, Some(contract));
    }

    #[test]
    fn no_value_whatever_makes_recognition_panic(document in any_json()) {
        let _ = validate(&document, &Options::default());
    }
}
