//! A storm's record keeps what its event says.

use super::*;
use crate::contracts::{Options, Profile, validate};

fn coalesced() -> Event {
    let text =
        include_str!("../../../../examples/events/telemetry-coalesced.expected-denials.json");
    serde_json::from_str(text).unwrap()
}

fn outlook(now_ms: i64) -> Outlook<'static> {
    Outlook { now_ms, incident: None, count_min: STORM_COUNT_MIN, mended: false }
}

#[test]
fn storm_keeps_first_last_count_and_what_started_it() {
    let event = coalesced();
    let noise = event.noise_control.clone().unwrap();
    let record = storm(&event, outlook(noise.last_seen.millis())).unwrap();
    assert_eq!(record.first_seen, noise.first_seen.to_string());
    assert_eq!(record.last_seen, noise.last_seen.to_string());
    assert_eq!(record.repeat_count, 120);
    assert_eq!(record.causal_parent_ref.as_deref(), Some("evt_indexer_denied_binary"));
    assert_eq!(record.normalized_failure_class, FailureClass::CapabilityDenial);
    assert_eq!(record.severity, StormSeverity::Info);
    assert_eq!(record.suppression_policy, Suppression::Summarize);
    assert_eq!(record.sample_events.len(), 2);
    let value = serde_json::to_value(&record).unwrap();
    let verdict = validate(&value, &Options { strict: true, ..Options::default() });
    assert!(verdict.is_valid(), "{:?}", verdict.errors);
    assert_eq!(verdict.profiles, Profile::ALL, "both readings of the contract take it");
}

#[test]
fn too_few_occurrences_are_no_storm() {
    let mut event = coalesced();
    event.noise_control.as_mut().unwrap().count = STORM_COUNT_MIN - 1;
    assert_eq!(storm(&event, outlook(0)), None);
    event.noise_control = None;
    assert_eq!(storm(&event, outlook(0)), None);
}

#[test]
fn storm_is_active_until_its_window_has_passed_and_an_attack_is_escalated() {
    let mut event = coalesced();
    let last = event.noise_control.as_ref().unwrap().last_seen.millis();
    let state = |event: &Event, now| storm(event, outlook(now)).unwrap().terminal_state;
    assert_eq!(state(&event, last + 59_999), TerminalState::StillActive);
    assert_eq!(state(&event, last + 60_000), TerminalState::Suppressed);
    event.outcome = Outcome::Failed;
    assert_eq!(state(&event, last + 60_000), TerminalState::Unknown, "silence mends nothing");
    let mended = Outlook { mended: true, ..outlook(last + 60_000) };
    assert_eq!(storm(&event, mended).unwrap().terminal_state, TerminalState::Resolved);
    event.outcome = Outcome::BlockedAttackLike;
    assert_eq!(state(&event, last + 60_000), TerminalState::Escalated);
}

#[test]
fn samples_of_a_storm_are_bounded() {
    let mut event = coalesced();
    let samples = (0..10_000).map(|n| format!("evt_{n}")).collect();
    event.noise_control.as_mut().unwrap().sample_evidence_refs = samples;
    assert_eq!(storm(&event, outlook(0)).unwrap().sample_events.len(), SAMPLES_MAX);
}
