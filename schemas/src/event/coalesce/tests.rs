//! Folding: what repeats make one event, and what must not be lost by it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::contracts::Valid;
use crate::event::model::EventId;
use crate::event::when::When;
use crate::time::Timestamp;

/// An expected denial of an actor, at a time in milliseconds.
fn denial(actor: &str, n: u64, at_ms: u64) -> Event {
    let text = include_str!("../../../../examples/events/policy-decision.expected-denial.json");
    let mut event: Event = serde_json::from_str(text).unwrap();
    event.event_id = EventId::new(format!("evt_{actor}_{n}")).unwrap();
    event.actor.actor_id = Text::new(actor).unwrap();
    event.created_at = When::from(Timestamp(1_780_000_000_000 + at_ms));
    event
}

fn fold(settings: Settings, events: impl IntoIterator<Item = Event>) -> (Vec<Event>, Report) {
    let mut coalescer = Coalescer::new(settings);
    let mut out = Vec::new();
    for event in events {
        coalescer.push(event, &mut out);
    }
    coalescer.finish(&mut out);
    (out, coalescer.report())
}

fn noise(event: &Event) -> &crate::event::model::NoiseControl {
    event.noise_control.as_ref().expect("a coalesced event")
}

#[test]
fn an_event_that_is_delivered_again_is_no_repeat() {
    let (out, report) = fold(Settings::default(), (0..50).map(|_| denial("a", 1, 0)));
    assert_eq!(out, [denial("a", 1, 0)]);
    assert_eq!((report.events_in, report.redelivered, report.occurrences_in), (50, 49, 1));
    let (out, report) = fold(Settings::default(), (0..100).map(|n| denial("a", n % 60, n % 60)));
    assert_eq!((noise(&out[0]).count, report.redelivered), (60, 40));
}

#[test]
fn a_coalesced_event_says_the_class_of_what_it_stands_for() {
    let mut events: Vec<Event> = (0..3).map(|n| denial("a", n, n)).collect();
    let (once, _) = fold(Settings::default(), events.drain(..));
    let mut again = once[0].clone();
    again.event_id = EventId::new("evt_again").unwrap();
    let (twice, _) = fold(Settings::default(), [once[0].clone(), again]);
    for event in [&once[0], &twice[0]] {
        let said: Vec<_> = event
            .evidence
            .iter()
            .filter(|item| item.evidence_id.as_str() == CLASS_EVIDENCE)
            .map(|item| item.raw_ref.as_deref())
            .collect();
        assert_eq!(said, [Some("class:policy.decision")]);
    }
}

#[test]
fn repeats_become_one_event_that_keeps_first_last_count_and_samples() {
    let (out, report) = fold(Settings::default(), (0..50).map(|n| denial("a", n, n * 100)));
    let [event] = &out[..] else { panic!("{out:?}") };
    let first = denial("a", 0, 0);
    assert_eq!(event.event_class, EventClass::TelemetryCoalesced);
    assert_eq!(event.causality.root_event_id, first.causality.root_event_id);
    assert_eq!(event.causality.parent_event_id, Some(first.event_id.clone()));
    assert_eq!(event.severity, Severity::Notice);
    assert_eq!(event.outcome, Outcome::BlockedExpected);
    let noise = noise(event);
    assert_eq!((noise.count, noise.suppressed_count), (50, 46));
    assert_eq!(noise.sample_evidence_refs, ["evt_a_0", "evt_a_1", "evt_a_2", "evt_a_3"]);
    assert_eq!(noise.first_seen, first.created_at);
    assert_eq!(noise.last_seen, denial("a", 0, 4900).created_at);
    assert!(
        event.operator_narrative.why.as_str().ends_with("No repeat changed its severity or risk.")
    );
    assert_eq!((report.events_in, report.events_out), (50, 1));
    assert!((report.reduction_ratio - 50.0).abs() < 1e-9);
    Valid::new(event.clone()).expect("it is a valid event");
}

#[test]
fn an_event_without_a_repeat_passes_as_it_is() {
    let events = vec![denial("a", 1, 0), denial("b", 2, 5)];
    let (out, _) = fold(Settings::default(), events.clone());
    assert_eq!(out, events);
}

#[test]
fn a_window_ends_and_the_next_begins() {
    let settings = Settings { window_ms: 1000, ..Settings::default() };
    let (out, _) = fold(settings, (0..30).map(|n| denial("a", n, n * 100)));
    let counts: Vec<u64> = out.iter().map(occurrences).collect();
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn repetition_never_raises_a_severity() {
    for count in [2, 10, 1000] {
        let (out, _) = fold(Settings::default(), (0..count).map(|n| denial("a", n, n)));
        assert_eq!(out[0].severity, Severity::Notice, "{count} repeats");
        assert_eq!(out[0].operator_narrative.risk, Risk::Low);
    }
}

/// The same denial, but not an expected one.
fn unexpected(n: u64, at_ms: u64, risk: Risk, severity: Severity) -> Event {
    let mut event = denial("a", n, at_ms);
    event.outcome = Outcome::BlockedUnexpected;
    event.decision = None;
    event.event_class = EventClass::AgentAction;
    event.operator_narrative.risk = risk;
    event.severity = severity;
    event
}

#[test]
fn a_repeat_that_changes_the_risk_raises_the_severity_and_is_named() {
    let events = vec![
        unexpected(0, 0, Risk::Low, Severity::Notice),
        unexpected(1, 10, Risk::Low, Severity::Notice),
        unexpected(2, 20, Risk::High, Severity::Notice),
        unexpected(3, 30, Risk::Low, Severity::Notice),
    ];
    let settings = Settings { samples: 2, ..Settings::default() };
    let (out, _) = fold(settings, events);
    let [event] = &out[..] else { panic!("{out:?}") };
    assert_eq!(event.severity, Severity::Error);
    assert_eq!(event.operator_narrative.risk, Risk::High);
    let why = event.operator_narrative.why.as_str();
    assert!(why.contains("raised from notice to error; repeat evt_a_2"), "{why}");
    assert!(why.contains("from low to high"), "{why}");
    assert!(noise(event).sample_evidence_refs.contains(&"evt_a_2".to_owned()));
    let refs = event.evidence.iter().filter_map(|item| item.raw_ref.as_deref());
    assert!(refs.into_iter().any(|reference| reference == "evt_a_2"));
}

#[test]
fn an_expected_denial_stays_a_notice_whatever_its_repeats_say() {
    let mut risky = denial("a", 1, 5);
    risky.operator_narrative.risk = Risk::Critical;
    risky.severity = Severity::Critical;
    let (out, _) = fold(Settings::default(), [denial("a", 0, 0), risky]);
    assert_eq!(out[0].severity, Severity::Notice);
    assert_eq!(out[0].operator_narrative.risk, Risk::Critical);
    let why = out[0].operator_narrative.why.as_str();
    assert!(why.contains("stays notice") && why.contains("from low to critical"), "{why}");
}

#[test]
fn a_louder_repeat_is_not_hidden_behind_a_quiet_first() {
    let events = vec![
        unexpected(0, 0, Risk::Low, Severity::Notice),
        unexpected(1, 10, Risk::Low, Severity::Warning),
    ];
    let (out, _) = fold(Settings::default(), events);
    assert_eq!(out[0].severity, Severity::Warning);
    assert!(
        out[0].operator_narrative.why.as_str().contains("repeat evt_a_1 was itself reported so")
    );
}

#[test]
fn the_most_private_repeat_decides_who_may_read() {
    let mut sealed = denial("a", 1, 5);
    sealed.privacy.tier = crate::event::vocabulary::Tier::SealedSecret;
    sealed.privacy.secret_fields = vec!["token".to_owned()];
    let (out, _) = fold(Settings::default(), [denial("a", 0, 0), sealed]);
    assert_eq!(out[0].privacy.tier, crate::event::vocabulary::Tier::SealedSecret);
    assert_eq!(out[0].privacy.secret_fields, ["exact_path", "token"]);
}

#[test]
fn one_event_with_a_wrong_time_does_not_stop_the_folding() {
    let mut far = denial("a", 0, 0);
    far.created_at = When::parse("9999-12-31T23:59:59Z").unwrap();
    far.actor.actor_id = Text::new("liar").unwrap();
    let events = std::iter::once(far).chain((0..100).map(|n| denial("a", n, n)));
    let (out, _) = fold(Settings::default(), events);
    assert_eq!(out.len(), 2, "{out:?}");
}

#[test]
fn a_flood_of_distinct_events_takes_no_more_than_its_room_and_loses_nothing() {
    const FLOOD: u64 = 20_000;
    let mut coalescer = Coalescer::new(Settings::default());
    let mut out = Vec::new();
    let (mut told, mut repeats) = (0_u64, 0_u64);
    for n in 0..FLOOD {
        coalescer.push(denial(&format!("actor{n}"), n, 0), &mut out);
        if n % 10 == 0 {
            coalescer.push(denial("steady", n, 0), &mut out);
            repeats += 1;
        }
        assert!(coalescer.open_groups() <= GROUPS_MAX);
        told += out.drain(..).map(|event| occurrences(&event)).sum::<u64>();
    }
    coalescer.finish(&mut out);
    told += out.drain(..).map(|event| occurrences(&event)).sum::<u64>();
    assert_eq!(told, FLOOD + repeats);
    let report = coalescer.report();
    assert!(report.told_early > 0);
    assert_eq!(report.sources.len(), SOURCES_SHOWN_MAX);
    assert!(report.sources.iter().any(|source| source.source == "*"), "{report:?}");
}

#[test]
fn a_source_over_its_budget_is_counted_and_what_is_critical_is_still_shown() {
    let mut events: Vec<Event> = Vec::new();
    for n in 0..20 {
        let mut event = denial("noisy", n, n);
        event.decision.as_mut().unwrap().target_class = Text::new(format!("class{n}")).unwrap();
        events.push(event);
    }
    let mut attack = unexpected(99, 21, Risk::Critical, Severity::Critical);
    attack.actor.actor_id = Text::new("noisy").unwrap();
    attack.outcome = Outcome::BlockedAttackLike;
    events.push(attack.clone());
    let settings = Settings { budget: Some(3), ..Settings::default() };
    let (out, report) = fold(settings, events);
    assert!(out.contains(&attack));
    assert_eq!(out.len(), 5, "three, the attack, and one that counts the rest: {out:?}");
    let rest = out.iter().find(|event| occurrences(event) > 1).expect("the rest is counted");
    assert_eq!(occurrences(rest), 17);
    assert_eq!(rest.outcome, Outcome::Observed);
    Valid::new(rest.clone()).expect("it is a valid event");
    assert_eq!(report.occurrences_in, report.occurrences_out);
    assert_eq!((report.over_budget, report.always_shown), (17, 1));
}

fn streams() -> impl Strategy<Value = Vec<Event>> {
    let event = (0..4_u8, 0..3_u8, 0..3_u8, 0..5_000_u64);
    prop::collection::vec(event, 0..60).prop_map(|parts| {
        parts
            .into_iter()
            .enumerate()
            .map(|(n, (actor, class, risk, at))| {
                let mut event = denial(&format!("actor{actor}"), n as u64, at);
                let decision = event.decision.as_mut().unwrap();
                decision.target_class = Text::new(format!("class{class}")).unwrap();
                event.operator_narrative.risk = Risk::ALL[usize::from(risk)];
                event
            })
            .collect()
    })
}

/// Occurrences by fingerprint, and the times that they span.
fn sums(events: &[Event]) -> BTreeMap<Fingerprint, (u64, i64, i64)> {
    let mut sums = BTreeMap::new();
    for event in events {
        let (first, last) = match &event.noise_control {
            Some(noise) if noise.count > 1 => (noise.first_seen.millis(), noise.last_seen.millis()),
            _ => (event.created_at.millis(), event.created_at.millis()),
        };
        let sum = sums.entry(fingerprint(event)).or_insert((0, i64::MAX, i64::MIN));
        *sum = (sum.0 + occurrences(event), sum.1.min(first), sum.2.max(last));
    }
    sums
}

proptest! {
    #[test]
    fn nothing_is_lost_and_what_comes_out_is_valid(events in streams(), window_ms in 1..6_000_u64) {
        let settings = Settings { window_ms, ..Settings::default() };
        let expected = sums(&events);
        let (out, report) = fold(settings, events);
        prop_assert_eq!(sums(&out), expected);
        prop_assert_eq!(report.occurrences_in, report.occurrences_out);
        for event in out {
            prop_assert!(event.severity <= Severity::Notice);
            if let Some(noise) = &event.noise_control {
                prop_assert!(noise.suppressed_count < noise.count);
            }
            prop_assert!(Valid::new(event).is_ok());
        }
    }

    #[test]
    fn folding_in_two_steps_counts_as_folding_in_one(events in streams(), cut in 0..60_usize) {
        // A window that nothing ends.
        let settings = Settings { window_ms: 1 << 40, ..Settings::default() };
        let (once, _) = fold(settings, events.clone());
        let cut = cut.min(events.len());
        let (mut parts, _) = fold(settings, events[..cut].to_vec());
        parts.extend(fold(settings, events[cut..].to_vec()).0);
        let (twice, _) = fold(settings, parts);
        prop_assert_eq!(sums(&twice), sums(&once));
        prop_assert_eq!(twice.len(), once.len());
    }

    #[test]
    fn folding_twice_gives_the_same_names(events in streams()) {
        let settings = Settings::default();
        prop_assert_eq!(fold(settings, events.clone()).0, fold(settings, events).0);
    }
}
