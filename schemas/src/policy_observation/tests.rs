//! Observations become events by what their code says.

use super::*;
use crate::contracts::Valid;
use crate::explanation::REGISTRY;
use crate::time::Timestamp;

fn observation(text: &str) -> PolicyObservation {
    serde_json::from_str(text).unwrap()
}

fn denial() -> PolicyObservation {
    observation(include_str!("../../../examples/policy-observations/expected-denial.json"))
}

fn probe() -> PolicyObservation {
    observation(include_str!("../../../examples/policy-observations/probe-of-keys.json"))
}

fn event(of: PolicyObservation) -> Result<Event, NormalizeError> {
    let span = Text::new("span_given").unwrap();
    normalize(of, &REGISTRY, When::from(Timestamp(1_780_000_000_000)), &span)
}

#[test]
fn what_an_observation_does_not_say_comes_from_its_code() {
    let event = event(denial()).unwrap();
    assert_eq!(event.event_id.as_str(), "evt_indexer_read_binary");
    assert_eq!(event.severity, Severity::Notice);
    assert_eq!(event.outcome, Outcome::BlockedExpected);
    assert_eq!(event.causality.root_event_id, event.event_id);
    assert_eq!(event.causality.trace_id.as_str(), "trace_indexer_read_binary");
    assert_eq!(event.causality.span_id.as_str(), "span_given");
    let decision = event.decision.as_ref().unwrap();
    assert_eq!(decision.decision_id.as_str(), "dec_indexer_read_binary");
    let noise = event.noise_control.as_ref().unwrap();
    assert_eq!(
        noise.event_fingerprint.as_str(),
        "fp_policy_expected_metadata_boundary_file.read.data_package_binary"
    );
    assert_eq!(event.evidence[0].source, EvidenceSource::RawLog, "an unknown source is a raw log");
    assert_eq!(event.operator_narrative.drilldown_refs, ["ev_audit"]);
    Valid::new(event).unwrap();
}

#[test]
fn what_an_observation_says_is_kept() {
    let event = event(probe()).unwrap();
    assert_eq!(event.event_id.as_str(), "evt_agent_reached_for_keys", "a name of an event is kept");
    assert_eq!(event.privacy.tier, Tier::AdminForensic);
    assert_eq!(event.host.privacy_zone, Tier::AdminForensic);
    assert_eq!(event.causality.trace_id.as_str(), "trace_trip");
    assert!(event.operator_narrative.summary.as_str().starts_with("The travel agent"));
    let decision = event.decision.as_ref().unwrap();
    assert_eq!(
        decision.policy_rule.as_str(),
        "sourceos.policy.policy_attack_like_privilege_boundary_probe"
    );
    assert_eq!(event.evidence[0].evidence_id.as_str(), "ev_evt_agent_reached_for_keys");
    Valid::new(event).unwrap();
}

#[test]
fn what_contradicts_its_code_becomes_no_event() {
    let refused = event(PolicyObservation { risk: Some(Risk::High), ..denial() }).unwrap_err();
    assert!(matches!(refused, NormalizeError::Contradiction { path: "/risk", .. }), "{refused}");
    let unknown = ExplanationCode::new("POLICY_OF_NOBODY").unwrap();
    let refused = event(PolicyObservation { explanation_code: unknown, ..denial() }).unwrap_err();
    assert!(matches!(refused, NormalizeError::UnknownCode(_)), "{refused}");
    let id = Text::new("two words").unwrap();
    let refused = event(PolicyObservation { observation_id: id, ..denial() }).unwrap_err();
    assert!(matches!(refused, NormalizeError::Name(_)), "{refused}");
}
