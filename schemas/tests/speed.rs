//! How fast documents are judged, on one thread. Run it with the optimiser on to see the figure that
//! counts: `cargo test --release -p srcos-schemas --test speed -- --nocapture`.

#![expect(clippy::print_stdout, reason = "the figure is the point")]

use std::time::Instant;

use serde_json::{Value, json};
use srcos_schemas::contracts::{Options, validate};
use srcos_schemas::json::{Limits, parse};

/// Documents of about two kilobytes, each another event.
fn events(count: usize) -> Vec<String> {
    let text = include_str!("../../examples/events/policy-decision.expected-denial.json");
    let mut event: Value = serde_json::from_str(text).unwrap();
    while event.to_string().len() < 2100 {
        let longer = format!("{} more", event["operator_narrative"]["why"].as_str().unwrap());
        event["operator_narrative"]["why"] = json!(longer);
    }
    (0..count)
        .map(|index| {
            event["event_id"] = json!(format!("evt_speed_{index}"));
            event.to_string()
        })
        .collect()
}

#[test]
fn ten_thousand_events_of_two_kilobytes_are_valid() {
    let events = events(10_000);
    let bytes: usize = events.iter().map(String::len).sum();
    assert!(bytes / events.len() >= 2000);
    let begin = Instant::now();
    for event in &events {
        let document = parse(event.as_bytes(), Limits::BODY).unwrap();
        let verdict = validate(&document, &Options::default());
        assert!(verdict.is_valid(), "{:?}", verdict.errors);
    }
    let took = begin.elapsed();
    println!("{} events of {} bytes: {took:?}", events.len(), bytes / events.len());
}
