//! No secret reaches a reader below its clearance, and what matters stays understandable.

use proptest::prelude::*;

use super::*;
use crate::contracts::Valid;
use crate::event::model::Uid;
use crate::event::vocabulary::Outcome;

const SALT: [u8; 16] = [7; 16];

/// An event with a secret in every place that holds free text.
fn telling(tier: Tier) -> Event {
    let text = include_str!("../../../../examples/events/policy-decision.expected-denial.json");
    let mut event: Event = serde_json::from_str(text).unwrap();
    let secret = |what: &str| Text::new(format!("/home/mallory/{what}")).unwrap();
    event.privacy.tier = tier;
    event.host.host_id = secret("host");
    event.host.kernel = Some("/home/mallory/kernel".to_owned());
    event.actor.display_name = secret("actor");
    event.actor.uid = Some(Uid::Name("mallory".to_owned()));
    event.actor.session_id = Some("mallory-1".to_owned());
    event.host.platform = secret("platform");
    event.actor.authority_domain = Some("/home/mallory/domain".to_owned());
    event.causality.trace_id = secret("trace");
    event.causality.span_id = secret("span");
    let decision = event.decision.as_mut().unwrap();
    decision.decision_id = secret("decision");
    decision.policy_bundle = secret("bundle");
    decision.operation = secret("operation");
    event.subject.id = secret("subject");
    event.subject.display = secret("display");
    event.evidence[0].summary = secret("evidence");
    event.evidence[0].raw_ref = Some("/home/mallory/raw".to_owned());
    event.operator_narrative.summary = secret("summary");
    event.operator_narrative.why = secret("why");
    event.operator_narrative.next_action = secret("next");
    event
}

#[test]
fn what_is_secret_reaches_no_reader_below_its_clearance() {
    for tier in &Tier::ALL[1..] {
        for reader in Tier::ALL.iter().filter(|reader| *reader < tier) {
            let shown = Renderer::new(*reader, SALT).render(&telling(*tier));
            let text = serde_json::to_string(&shown).unwrap();
            // The host follows its own zone, which is private to the user here.
            let host = text.matches("/home/mallory/host").count();
            assert_eq!(
                host,
                usize::from(*reader >= Tier::UserPrivate),
                "{tier} to {reader}: {text}"
            );
            let shown_text =
                text.replace("/home/mallory/host", "").replace("/home/mallory/kernel", "");
            assert!(!shown_text.contains("mallory"), "{tier} to {reader}: {text}");
        }
    }
}

#[test]
fn actor_class_rule_and_outcome_stay_understandable_at_every_clearance() {
    for tier in Tier::ALL {
        for reader in Tier::ALL {
            let whole = telling(*tier);
            let shown = Renderer::new(*reader, SALT).render(&whole);
            assert_eq!(shown.actor.actor_type, whole.actor.actor_type);
            let (shown_to, decided) =
                (shown.decision.as_ref().unwrap(), whole.decision.as_ref().unwrap());
            assert_eq!(shown_to.policy_rule, decided.policy_rule);
            assert_eq!(shown_to.target_class, decided.target_class);
            assert_eq!(shown_to.result, decided.result);
            assert_eq!(shown_to.explanation_code, decided.explanation_code);
            assert_eq!(shown.outcome, Outcome::BlockedExpected);
            let (led, causes) = (&shown.causality, &whole.causality);
            assert_eq!(led.parent_event_id, causes.parent_event_id);
            assert_eq!(led.root_event_id, causes.root_event_id);
            assert_eq!(shown.evidence.len(), whole.evidence.len());
            let narrative = &shown.operator_narrative;
            assert!(narrative.summary.as_str().len() > 5, "{narrative:?}");
            Valid::read(serde_json::to_value(&shown).unwrap()).map(|_: Valid<Event>| ()).unwrap();
        }
    }
}

#[test]
fn narrative_of_a_withheld_event_is_that_of_its_code() {
    let shown = Renderer::new(Tier::PublicSummary, SALT).render(&telling(Tier::SealedSecret));
    let summary = shown.operator_narrative.summary.as_str();
    assert!(summary.contains("withheld on package_binary"), "{summary}");
    assert!(shown.operator_narrative.why.as_str().contains("indexer.metadata-only"));
    assert_eq!(shown.privacy.redaction_policy, RedactionPolicy::Sealed);
}

#[test]
fn members_that_the_event_calls_secret_are_for_sealed_readers_only() {
    let mut event = telling(Tier::UserPrivate);
    event.privacy.secret_fields = vec!["raw_ref".to_owned(), "actor.uid".to_owned()];
    let shown = Renderer::new(Tier::AdminForensic, SALT).render(&event);
    assert_eq!((shown.evidence[0].raw_ref.as_ref(), shown.actor.uid.as_ref()), (None, None));
    assert_eq!(shown.privacy.secret_fields, event.privacy.secret_fields);
    let sealed = Renderer::new(Tier::SealedSecret, SALT).render(&event);
    assert_eq!(sealed, event);
}

/// Whatever an event calls secret stays with readers of all, how ever its path is written.
#[test]
fn every_member_that_an_event_calls_secret_is_left_out() {
    let names = [
        ("host.host_id", "/home/mallory/host"),
        ("/host/platform", "/home/mallory/platform"),
        ("kernel", "/home/mallory/kernel"),
        ("actor.display_name", "/home/mallory/actor"),
        ("authority_domain", "/home/mallory/domain"),
        ("causality.trace_id", "/home/mallory/trace"),
        ("span_id", "/home/mallory/span"),
        ("decision.decision_id", "/home/mallory/decision"),
        ("$.decision.policy_bundle", "/home/mallory/bundle"),
        ("operation", "/home/mallory/operation"),
        ("subject", "/home/mallory/subject"),
        ("subject", "/home/mallory/display"),
        ("evidence[0].raw_ref", "/home/mallory/raw"),
        ("evidence", "/home/mallory/evidence"),
        ("operator_narrative", "/home/mallory/summary"),
        ("operator_narrative.why", "/home/mallory/why"),
        ("next_action", "/home/mallory/next"),
        ("noise_control.event_fingerprint", "/home/mallory/fingerprint"),
        ("sample_evidence_refs", "/home/mallory/sample"),
        ("actor.actor_id", "/home/mallory/id"),
    ];
    for (named, secret) in names {
        let mut event = telling(Tier::UserPrivate);
        event.actor.actor_id = Text::new("/home/mallory/id").unwrap();
        let at = event.created_at.clone();
        let fingerprint = Text::new("/home/mallory/fingerprint").unwrap();
        let mut noise = crate::event::model::NoiseControl::single(fingerprint, &at);
        noise.sample_evidence_refs = vec!["/home/mallory/sample".to_owned()];
        event.noise_control = Some(noise);
        event.privacy.secret_fields = vec![named.to_owned()];
        for reader in &Tier::ALL[..3] {
            let shown = Renderer::new(*reader, SALT).render(&event);
            let text = serde_json::to_string(&shown).unwrap();
            assert!(!text.contains(&format!("{secret}\"")), "{named} to {reader}: {text}");
            Valid::read(serde_json::to_value(&shown).unwrap()).map(|_: Valid<Event>| ()).unwrap();
        }
        assert_eq!(Renderer::new(Tier::SealedSecret, SALT).render(&event), event);
    }
}

#[test]
fn the_causes_that_an_event_calls_secret_are_pseudonyms() {
    let mut event = telling(Tier::UserPrivate);
    event.causality.parent_event_id = Some(event.causality.root_event_id.clone());
    event.privacy.secret_fields = vec!["causality".to_owned(), "my own diary".to_owned()];
    let shown = Renderer::new(Tier::AdminForensic, SALT).render(&event);
    let (parent, root) = (shown.causality.parent_event_id.unwrap(), shown.causality.root_event_id);
    assert_eq!(parent, root, "one event, one pseudonym");
    assert_ne!(root, event.causality.root_event_id);
    let above = Renderer::new(Tier::PublicSummary, SALT).render(&event);
    assert_eq!(above.privacy.secret_fields, ["causality"]);
}

#[test]
fn the_summary_alone_is_that_of_the_whole() {
    let secrets = ["", "summary", "operation", "operator_narrative", "decision"];
    for secret in secrets {
        for tier in Tier::ALL {
            for reader in Tier::ALL {
                let mut event = telling(*tier);
                event.privacy.secret_fields = vec![secret.to_owned()];
                for decision in [event.decision.clone(), None] {
                    event.decision = decision;
                    let renderer = Renderer::new(*reader, SALT);
                    let whole = renderer.render(&event).operator_narrative.summary;
                    assert_eq!(
                        renderer.summary(&event),
                        whole.as_str(),
                        "{secret} {tier} {reader}"
                    );
                }
            }
        }
    }
}

#[test]
fn pseudonyms_hold_within_one_listing_and_not_beyond() {
    let event = telling(Tier::SealedSecret);
    let reader = Renderer::new(Tier::PublicSummary, SALT);
    let other = Renderer::new(Tier::PublicSummary, [8; 16]);
    assert_eq!(reader.render(&event).host, reader.render(&event).host);
    assert_ne!(reader.render(&event).host, other.render(&event).host);
}

#[test]
fn scrubbing_takes_paths_addresses_and_tokens() {
    let check = |text: &str, expected: &str| assert_eq!(scrub(text), expected);
    check("read (/etc/passwd), twice.", "read ([path]), twice.");
    check("from ann@example.org at 10.0.0.7:443", "from [address] at [address]");
    check("peer fe80::1 went", "peer [address] went");
    check("key 9f86d081884c7d659a2feaa0c55ad015.", "key [token].");
    check("C:\\Users\\ann opened ~ann", "[path] opened [path]");
    check("The photo indexer asked 120 times.", "The photo indexer asked 120 times.");
}

proptest! {
    #[test]
    fn no_text_makes_scrubbing_panic(text in any::<String>()) {
        let _ = scrub(&text);
    }

    #[test]
    fn no_path_survives(before in "[a-z ]{0,20}", path in "/[a-z]{1,8}/[a-z]{1,8}", after in "[.,;) ]{0,3}") {
        let scrubbed = scrub(&format!("{before} {path}{after}"));
        prop_assert!(!scrubbed.contains(&path), "{}", scrubbed);
    }
}
