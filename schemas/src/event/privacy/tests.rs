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
            assert_eq!(shown.decision, whole.decision);
            assert_eq!(shown.outcome, Outcome::BlockedExpected);
            assert_eq!(shown.causality, whole.causality);
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
    assert!(summary.contains("file.read.data on package_binary"), "{summary}");
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
