//! The type of an event and its schema agree, and the builder makes nothing invalid.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::contracts::{Options, validate};
use crate::event::build::{BuildError, Essentials, EventBuilder};
use crate::event::rules::EVENT;

const EXAMPLES: [&str; 6] = [
    include_str!("../../../../examples/events/policy-decision.expected-denial.json"),
    include_str!("../../../../examples/events/power-wake.mail.json"),
    include_str!("../../../../examples/events/process-exec.indexer.json"),
    include_str!("../../../../examples/events/sync-replication.withheld.json"),
    include_str!("../../../../examples/events/telemetry-coalesced.expected-denials.json"),
    include_str!("../../../../examples/events/trust-evaluation.local-first.json"),
];

fn holds_by_schema(document: &Value) -> bool {
    let verdict = validate(document, &Options { contract: Some(&EVENT), ..Options::default() });
    !verdict.errors.iter().any(|error| error.rule.starts_with("schema."))
}

fn reads(document: &Value) -> bool {
    serde_json::from_value::<Event>(document.clone()).is_ok_and(|e| e.missing_block().is_none())
}

/// Every place in a document, as a JSON pointer.
fn places(document: &Value, at: &str, found: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            for (name, value) in members {
                found.push(format!("{at}/{name}"));
                places(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                found.push(format!("{at}/{index}"));
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn remove(document: &mut Value, place: &str) {
    let (parent, name) = place.rsplit_once('/').unwrap();
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => drop(members.remove(name)),
        Some(Value::Array(items)) => drop(items.remove(name.parse().unwrap())),
        _ => {}
    }
}

/// The type is what store verification reads events by, so it must refuse what the schema refuses.
#[test]
fn what_the_type_reads_the_schema_accepts_and_little_else_is_refused() {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(""),
        json!("x"),
        json!("evt_x"),
        json!("sha256:00"),
        json!("2026-05-04T10:20:30Z"),
        json!("low"),
        json!("notice"),
        json!("allowed"),
        json!("user_private"),
        json!([]),
        json!(["x"]),
        json!([1]),
        json!({}),
        json!({"x": 1}),
        json!(u64::MAX),
        json!("POLICY.X"),
    ];
    for text in EXAMPLES {
        let whole: Value = serde_json::from_str(text).unwrap();
        assert!(reads(&whole) && holds_by_schema(&whole));
        let mut all = Vec::new();
        places(&whole, "", &mut all);
        let check = |changed: &Value, what: &str| {
            assert_eq!(reads(changed), holds_by_schema(changed), "{what}: {changed}");
        };
        for place in &all {
            let mut without = whole.clone();
            remove(&mut without, place);
            check(&without, &format!("without {place}"));
            for value in &values {
                let mut changed = whole.clone();
                *changed.pointer_mut(place).unwrap() = value.clone();
                // The type holds users by number in 64 bits with a sign.
                if place == "/actor/uid" && value.is_number() {
                    continue;
                }
                check(&changed, &format!("{value} at {place}"));
            }
            if let Some(Value::Object(_)) = whole.pointer(place) {
                let mut more = whole.clone();
                more.pointer_mut(place).unwrap()["of_nobody"] = json!(1);
                check(&more, &format!("one more in {place}"));
            }
        }
    }
}

#[test]
fn an_event_that_was_read_is_written_with_the_same_meaning() {
    for text in EXAMPLES {
        let event: Event = serde_json::from_str(text).unwrap();
        let again: Event = serde_json::from_value(serde_json::to_value(&event).unwrap()).unwrap();
        assert_eq!(again, event);
    }
}

fn essentials(class: EventClass, outcome: Outcome) -> Essentials {
    let event: Event = serde_json::from_str(EXAMPLES[0]).unwrap();
    Essentials {
        event_id: event.event_id,
        created_at: event.created_at,
        class,
        lane: event.lane,
        outcome,
        host: event.host,
        actor: event.actor,
        subject: event.subject,
        narrative: Narrative { drilldown_refs: Vec::new(), ..event.operator_narrative },
    }
}

proptest! {
    #[test]
    fn whatever_the_builder_makes_holds_strictly(
        class in prop::sample::select(EventClass::ALL),
        outcome in prop::sample::select(Outcome::ALL),
        severity in prop::sample::select(Severity::ALL),
        with in any::<[bool; 3]>(),
    ) {
        let given: Event = serde_json::from_str(EXAMPLES[4]).unwrap();
        let mut builder = EventBuilder::new(essentials(class, outcome)).severity(severity);
        if with[0] {
            builder = builder.decision(given.decision.unwrap());
        }
        if with[1] {
            builder = builder.trust(Trust::not_applicable());
        }
        if with[2] {
            builder = builder.noise(given.noise_control.unwrap());
        }
        if let Ok(event) = builder.build() {
            let value = serde_json::to_value(&event).unwrap();
            let verdict = validate(&value, &Options { strict: true, ..Options::default() });
            prop_assert!(verdict.is_valid(), "{:?}", verdict.errors);
        }
    }

    #[test]
    fn no_text_makes_reading_an_event_panic(text in "\\PC{0,200}") {
        let _ = serde_json::from_str::<Event>(&text);
    }
}

#[test]
fn builder_says_what_is_missing_or_too_loud() {
    let missing =
        EventBuilder::new(essentials(EventClass::PolicyDecision, Outcome::Observed)).build();
    assert!(
        matches!(missing, Err(BuildError::MissingBlock { block: "decision", .. })),
        "{missing:?}"
    );
    let loud = EventBuilder::new(essentials(EventClass::AgentAction, Outcome::BlockedExpected))
        .severity(Severity::Warning)
        .build();
    assert!(matches!(loud, Err(BuildError::TooLoud { .. })), "{loud:?}");
}
