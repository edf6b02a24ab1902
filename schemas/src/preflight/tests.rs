//! Preflight of components: which may start, with what, and what a refusal says.

use proptest::prelude::*;

use super::*;
use crate::contracts::{self, Options};

const NOW: Timestamp = Timestamp(1_777_900_000_000);

/// A browser's child that wants two things of the session.
fn contract() -> Value {
    json!({
        "id": "urn:srcos:capability-contract:heron-page", "type": "CapabilityContract",
        "specVersion": "v0.1", "componentRef": "urn:srcos:component:heron-page",
        "componentKind": "browser-child",
        "declaredCapabilities": [
            {"capability": "pasteboard", "requiredFor": "copy and paste", "fallback": "skip"},
            {"capability": "network", "requiredFor": "loading pages", "fallback": "unavailable"},
        ],
        "requiredBrokers": ["urn:srcos:broker:pasteboard", "urn:srcos:broker:launch-services"],
        "minimumBootPhase": "unlocked-user-session", "degradedModePolicy": "refuse-start",
    })
}

fn phase(phase: &str, verdict: &str) -> Value {
    json!({
        "id": "urn:srcos:boot-session-phase:a", "type": "BootSessionPhaseState",
        "specVersion": "v0.1", "observedAt": "2026-05-04T10:20:30Z", "bootId": "boot-1",
        "sessionId": "session-1", "phase": phase, "phaseVerdict": verdict,
        "allowedComponents": [], "blockedComponents": [],
    })
}

fn grants(decisions: &[(&str, &str)]) -> Value {
    let states: Vec<Value> = decisions
        .iter()
        .map(|(name, decision)| json!({"capability": name, "decision": decision}))
        .collect();
    json!({
        "id": "urn:srcos:capability-grant-state:b", "type": "CapabilityGrantState",
        "specVersion": "v0.1", "contractRef": "urn:srcos:capability-contract:heron-page",
        "observedAt": "2026-05-04T10:20:00Z", "bootId": "boot-1", "sessionId": "session-1",
        "permissionEpoch": "7", "capabilityStates": states,
    })
}

const ALL_GRANTED: [(&str, &str); 2] = [("pasteboard", "granted"), ("network", "granted")];

fn ask(contract: &Value, phase: &Value, grants: &Value) -> Preflight {
    let answer = preflight(contract, phase, grants, NOW);
    let held = contracts::find("capability-grant-state");
    let options = Options { contract: held, strict: true, ..Options::default() };
    let verdict = contracts::validate(&answer.grant_state, &options);
    assert!(held.is_none() || verdict.is_valid(), "{:#?}", verdict.errors);
    answer
}

fn state<'a>(answer: &'a Preflight, name: &str) -> &'a Value {
    let mut states = items(&answer.grant_state, "capabilityStates");
    states.find(|state| text(state, "capability") == name).unwrap()
}

fn unlocked() -> Value {
    phase("unlocked-user-session", "ready")
}

#[test]
fn a_component_with_every_grant_is_ready_in_its_phase() {
    let answer = ask(&contract(), &unlocked(), &grants(&ALL_GRANTED));
    assert_eq!(answer.outcome, Outcome::Ready);
    assert_eq!(state(&answer, "network")["decision"], "granted");
}

#[test]
fn a_component_before_its_phase_is_ineligible_and_told_what_to_do() {
    for early in ["sealed-boot", "pre-login", "post-login-locked"] {
        let answer = ask(&contract(), &phase(early, "ready"), &grants(&ALL_GRANTED));
        let Outcome::PhaseIneligible(refusal) = &answer.outcome else {
            panic!("{early}: {:?}", answer.outcome)
        };
        assert!(refusal.hint.contains("unlock"), "{refusal:?}");
        for name in ["network", "pasteboard"] {
            let state = state(&answer, name);
            assert_eq!(state["decision"], "unavailable", "nobody has denied it");
            assert_eq!(state["policyRuleRef"], PHASE_RULE);
            assert!(text(state, "remediationHint").contains("phase-ineligible"), "{state}");
        }
    }
}

#[test]
fn a_phase_that_nobody_knows_lets_nobody_start() {
    for verdict in ["ready", "unknown"] {
        let answer = ask(&contract(), &phase("unknown", verdict), &grants(&ALL_GRANTED));
        assert!(matches!(answer.outcome, Outcome::PhaseIneligible(_)), "{:?}", answer.outcome);
    }
}

#[test]
fn a_blocked_component_hears_the_reason_and_the_hint_of_the_list() {
    let mut blocked = unlocked();
    blocked["blockedComponents"] = json!([{
        "componentRef": "urn:srcos:component:heron-page", "requiredPhase": "recovery-session",
        "state": "quarantined", "reason": "it crashed nine times",
        "remediationHint": "send the crash report, then release it",
    }]);
    blocked["allowedComponents"] =
        json!([{"componentRef": "urn:srcos:component:heron-page", "state": "allowed"}]);
    let answer = ask(&contract(), &blocked, &grants(&ALL_GRANTED));
    let Outcome::PhaseIneligible(refusal) = answer.outcome else { panic!() };
    assert!(refusal.why.contains("quarantined") && refusal.why.contains("nine times"));
    assert_eq!(refusal.hint, "send the crash report, then release it");
}

#[test]
fn a_phase_that_is_not_ready_is_open_only_to_those_it_allows() {
    let mut waiting = phase("unlocked-user-session", "not-ready");
    let shut = ask(&contract(), &waiting, &grants(&ALL_GRANTED));
    assert!(matches!(shut.outcome, Outcome::PhaseIneligible(_)));
    waiting["allowedComponents"] =
        json!([{"componentRef": "urn:srcos:component:heron-page", "state": "allowed"}]);
    let open = ask(&contract(), &waiting, &grants(&ALL_GRANTED));
    assert_eq!(open.outcome, Outcome::Ready);
}

#[test]
fn a_browser_child_that_is_denied_falls_back_to_a_broker() {
    let denied = grants(&[("pasteboard", "denied"), ("network", "granted")]);
    let answer = ask(&contract(), &unlocked(), &denied);
    assert_eq!(answer.outcome, Outcome::Ready, "through a broker it has all that it declares");
    let pasteboard = state(&answer, "pasteboard");
    assert_eq!(pasteboard["decision"], "degraded");
    assert_eq!(pasteboard["grantSource"], "broker");
    assert_eq!(pasteboard["policyRuleRef"], BROKER_RULE);
    let hint = text(pasteboard, "remediationHint");
    assert!(hint.contains("urn:srcos:broker:pasteboard") && !hint.contains("launch-services"));
}

#[test]
fn what_a_broker_denied_itself_stays_denied() {
    let mut denied = grants(&[("pasteboard", "denied"), ("network", "granted")]);
    denied["capabilityStates"][0]["grantSource"] = json!("broker");
    let answer = ask(&contract(), &unlocked(), &denied);
    assert_eq!(state(&answer, "pasteboard")["decision"], "denied");
    assert_eq!(answer.outcome, Outcome::Ready, "its contract says that it goes on without");
}

#[test]
fn an_app_is_given_no_broker_that_is_not_meant_for_what_it_wants() {
    let mut app = contract();
    app["componentKind"] = json!("app");
    let denied = grants(&[("pasteboard", "granted"), ("network", "denied")]);
    let answer = ask(&app, &unlocked(), &denied);
    assert_eq!(state(&answer, "network")["decision"], "denied");
    assert!(matches!(answer.outcome, Outcome::Incomplete(_)));
}

#[test]
fn the_contract_decides_what_happens_without_a_capability() {
    let nothing = grants(&[("pasteboard", "granted")]);
    let mut contract = contract();
    let refused = ask(&contract, &unlocked(), &nothing);
    let Outcome::Incomplete(refusal) = refused.outcome else { panic!() };
    assert!(refusal.why.contains("network") && refusal.why.contains("refuse-start"), "{refusal:?}");
    assert!(!refusal.hint.is_empty());
    contract["degradedModePolicy"] = json!("continue-limited");
    let limited = ask(&contract, &unlocked(), &nothing);
    assert!(matches!(limited.outcome, Outcome::Limited(_)));
    assert_eq!(state(&limited, "network")["decision"], "unknown");
}

#[test]
fn grants_of_another_boot_session_or_contract_grant_nothing() {
    for (member, other) in
        [("bootId", "boot-0"), ("sessionId", "session-0"), ("contractRef", "urn:srcos:x")]
    {
        let mut stale = grants(&ALL_GRANTED);
        stale[member] = json!(other);
        let answer = ask(&contract(), &unlocked(), &stale);
        assert!(matches!(answer.outcome, Outcome::Incomplete(_)), "{member}");
        assert_eq!(state(&answer, "network")["decision"], "unknown", "{member}");
    }
}

#[test]
fn of_two_grants_for_one_capability_the_stricter_holds() {
    let both = grants(&[("pasteboard", "granted"), ("network", "granted"), ("network", "denied")]);
    let mut app = contract();
    app["requiredBrokers"] = json!([]);
    let answer = ask(&app, &unlocked(), &both);
    assert_eq!(state(&answer, "network")["decision"], "denied");
}

#[test]
fn a_degraded_phase_gives_everything_in_part() {
    let mut contract = contract();
    contract["degradedModePolicy"] = json!("continue-limited");
    let degraded = phase("unlocked-user-session", "degraded");
    let answer = ask(&contract, &degraded, &grants(&ALL_GRANTED));
    assert!(matches!(answer.outcome, Outcome::Limited(_)));
    assert_eq!(state(&answer, "network")["decision"], "degraded");
}

#[test]
fn a_degraded_session_is_not_an_unlocked_one() {
    let degraded = phase("degraded-session", "ready");
    let check = |minimum: &str, may: bool| {
        let mut contract = contract();
        contract["minimumBootPhase"] = json!(minimum);
        let answer = ask(&contract, &degraded, &grants(&ALL_GRANTED));
        assert_eq!(answer.outcome == Outcome::Ready, may, "{minimum}: {:?}", answer.outcome);
    };
    check("post-login-locked", true);
    check("degraded-session", true);
    check("unlocked-user-session", false);
}

#[test]
fn a_recovery_session_is_for_what_was_made_for_it() {
    let recovery = phase("recovery-session", "ready");
    let check = |minimum: &str, may: bool| {
        let mut contract = contract();
        contract["minimumBootPhase"] = json!(minimum);
        let answer = ask(&contract, &recovery, &grants(&ALL_GRANTED));
        assert_eq!(answer.outcome == Outcome::Ready, may, "{minimum}: {:?}", answer.outcome);
    };
    check("recovery-session", true);
    check("sealed-boot", true);
    check("pre-login", false);
    check("unlocked-user-session", false);
}

proptest! {
    /// Whatever is granted, nothing starts before its phase, and nothing is called granted there.
    #[test]
    fn no_grant_opens_a_phase(
        decisions in prop::collection::vec(
            (
                prop::sample::select(vec!["pasteboard", "network", "other"]),
                prop::sample::select(vec![
                    "granted", "denied", "ask", "degraded", "unavailable", "unknown",
                ]),
            ),
            0..6,
        ),
        early in prop::sample::select(vec!["sealed-boot", "pre-login", "post-login-locked"]),
    ) {
        let answer = preflight(&contract(), &phase(early, "ready"), &grants(&decisions), NOW);
        prop_assert!(matches!(answer.outcome, Outcome::PhaseIneligible(_)));
        for state in items(&answer.grant_state, "capabilityStates") {
            prop_assert_eq!(&state["decision"], "unavailable");
        }
    }

    /// What is ready has, of everything that it cannot skip, a grant or a broker.
    #[test]
    fn ready_means_served(
        decisions in prop::collection::vec(
            (
                prop::sample::select(vec!["pasteboard", "network"]),
                prop::sample::select(vec![
                    "granted", "denied", "ask", "degraded", "unavailable", "unknown",
                ]),
            ),
            0..6,
        ),
    ) {
        let answer = preflight(&contract(), &unlocked(), &grants(&decisions), NOW);
        let network = state(&answer, "network");
        if answer.outcome == Outcome::Ready {
            prop_assert!(is_served(network), "{}", network);
        }
    }
}

#[test]
fn the_hint_leads_out_of_the_phase_that_there_is() {
    let check = |phase: &str, verdict: &str, said: &str| {
        let (mut contract, mut state) = (json!({}), json!({}));
        contract["componentRef"] = json!("urn:srcos:component:a");
        contract["minimumBootPhase"] = json!("unlocked-user-session");
        state["phase"] = json!(phase);
        state["phaseVerdict"] = json!(verdict);
        let Gate::Shut(Refusal { hint, .. }) = gate(&contract, &state) else {
            panic!("{phase} {verdict} is open")
        };
        assert!(hint.contains(said), "{phase} {verdict}: {hint}");
    };
    check("recovery-session", "ready", "finish the recovery");
    check("degraded-session", "ready", "what degrades the session");
    check("unknown", "ready", "find out which phase");
    check("post-login-locked", "ready", "unlock");
    check("unlocked-user-session", "recovery-only", "finish the recovery");
    check("unlocked-user-session", "unknown", "find out which phase");
    check("unlocked-user-session", "not-ready", "wait until the phase is ready");
}
