//! Shows an event to a reader of a given clearance.
//!
//! Whatever is held back, these stay understandable: what sort of actor acted, on which class of
//! thing, by which rule, with which outcome, and what led to it. What is shown is itself a valid
//! event.
//!
//! | member | `public_summary` | `user_private` | `admin_forensic` | `sealed_secret` |
//! |---|---|---|---|---|
//! | host | pseudonym, unless its zone is public | as its zone allows | shown | shown |
//! | actor's user and session | left out | shown | shown | shown |
//! | actor's name | scrubbed; a person's a pseudonym | shown | shown | shown |
//! | subject | pseudonym, text scrubbed | shown | shown | shown |
//! | content hash | left out | shown | shown | shown |
//! | evidence | scrubbed, without raw reference | without raw reference | shown | shown |
//! | narrative | scrubbed | shown | shown | shown |
//! | operation, bundle and name of the decision | scrubbed | shown | shown | shown |
//! | members named in `secret_fields` | left out | left out | left out | shown |
//!
//! `secret_fields` names members by name (`uid`), by path (`actor.uid`, `/actor/uid`) or all of a part
//! (`actor`). Ids that must stay there are pseudonyms then, and texts are those of the registry.
//!
//! An event above the reader's clearance is shown as its shape only: no text that its author wrote
//! freely beside target class and rule, ids as pseudonyms beside those of events, and of its evidence only
//! how much there is.

use std::net::{IpAddr, SocketAddr};

use sha2::{Digest as _, Sha256};

use super::model::{Event, EventId, Evidence, Text};
use super::narrative;
use super::vocabulary::{ActorType, RedactionPolicy, Tier};

/// Shows events to one reader. Pseudonyms are the same for the same salt: within one listing a
/// reader can tell that two events concern the same host, and nothing more.
#[derive(Debug, Clone)]
pub struct Renderer {
    reader: Tier,
    salt: [u8; 16],
}

/// What stands where something was held back.
const WITHHELD: &str = "withheld";

impl Renderer {
    /// For a reader of a clearance. The salt should be fresh and random for each listing.
    pub fn new(reader: Tier, salt: [u8; 16]) -> Self {
        Self { reader, salt }
    }

    /// The event as the reader may see it.
    pub fn render(&self, event: &Event) -> Event {
        let mut shown = event.clone();
        if self.reader == Tier::SealedSecret {
            return shown;
        }
        self.hold_back_secrets(&mut shown);
        if self.reader < event.host.privacy_zone || self.reader == Tier::PublicSummary {
            if self.reader < event.host.privacy_zone {
                shown.host.host_id = self.pseudonym("host", event.host.host_id.as_str());
            }
            shown.host.kernel = None;
        }
        let cleared = self.reader >= event.privacy.tier;
        if self.reader < Tier::AdminForensic || !cleared {
            for item in &mut shown.evidence {
                item.raw_ref = None;
            }
        }
        if self.reader == Tier::PublicSummary || !cleared {
            self.make_public(&mut shown);
        }
        if !cleared {
            self.keep_shape(event, &mut shown);
        }
        shown
    }

    /// Members that the event itself calls secret, by their name, their path or a path above them. What
    /// sort of actor, which class of thing, which rule and how it ended is never left out.
    fn hold_back_secrets(&self, event: &mut Event) {
        let secrets = Secrets::of(event);
        if secrets.0.is_empty() {
            return;
        }
        let is = |path: &str| secrets.cover(path);
        let text = |text: &mut Text, path: &str, instead: &str| {
            if is(path) {
                *text = Text::or(instead, WITHHELD);
            }
        };
        let id = |text: &mut Text, path: &str, what: &str| {
            if is(path) {
                *text = self.pseudonym(what, text.as_str());
            }
        };
        id(&mut event.host.host_id, "host.host_id", "host");
        text(&mut event.host.platform, "host.platform", WITHHELD);
        event.host.kernel.take_if(|_| is("host.kernel"));
        let actor = &mut event.actor;
        id(&mut actor.actor_id, "actor.actor_id", "actor");
        text(&mut actor.display_name, "actor.display_name", actor.actor_type.as_str());
        actor.uid.take_if(|_| is("actor.uid"));
        actor.session_id.take_if(|_| is("actor.session_id"));
        actor.authority_domain.take_if(|_| is("actor.authority_domain"));
        let causes = &mut event.causality;
        if let Some(parent) = &mut causes.parent_event_id
            && is("causality.parent_event_id")
        {
            *parent = self.other_id(parent);
        }
        if is("causality.root_event_id") {
            causes.root_event_id = self.other_id(&causes.root_event_id);
        }
        id(&mut causes.trace_id, "causality.trace_id", "trace");
        id(&mut causes.span_id, "causality.span_id", "span");
        id(&mut event.subject.id, "subject.id", "subject");
        text(&mut event.subject.display, "subject.display", event.subject.subject_type.as_str());
        if let Some(decision) = &mut event.decision {
            id(&mut decision.decision_id, "decision.decision_id", "decision");
            text(&mut decision.policy_bundle, "decision.policy_bundle", WITHHELD);
            text(&mut decision.operation, "decision.operation", WITHHELD);
        }
        if let Some(trust) = &mut event.trust {
            trust.content_hash.take_if(|_| is("trust.content_hash"));
            trust.degradation_reason.take_if(|_| is("trust.degradation_reason"));
        }
        if let Some(noise) = &mut event.noise_control {
            id(&mut noise.event_fingerprint, "noise_control.event_fingerprint", "fp");
            if is("noise_control.sample_evidence_refs") {
                noise.sample_evidence_refs.clear();
            }
        }
        for (index, item) in event.evidence.iter_mut().enumerate() {
            text(&mut item.evidence_id, "evidence.evidence_id", &format!("ev_{}", index + 1));
            item.raw_ref.take_if(|_| is("evidence.raw_ref"));
            text(&mut item.summary, "evidence.summary", WITHHELD);
        }
        let generic = narrative::generic(event);
        let told = &mut event.operator_narrative;
        for (path, text, instead) in [
            ("operator_narrative.summary", &mut told.summary, generic.summary),
            ("operator_narrative.why", &mut told.why, generic.why),
            ("operator_narrative.next_action", &mut told.next_action, generic.next_action),
        ] {
            if is(path) {
                *text = instead;
            }
        }
        if is("operator_narrative.drilldown_refs") || is("evidence.evidence_id") {
            told.drilldown_refs.clear();
        }
    }

    /// The summary of an event as [`Renderer::render`] shows it, without rendering the rest.
    pub fn summary(&self, event: &Event) -> String {
        let told = &event.operator_narrative.summary;
        if self.reader == Tier::SealedSecret {
            return told.to_string();
        }
        let secrets = Secrets::of(event);
        let cleared = self.reader >= event.privacy.tier;
        let shown = if cleared && !secrets.cover("operator_narrative.summary") {
            told.to_string()
        } else {
            let withheld = !cleared || secrets.cover("decision.operation");
            narrative::generic_summary(event, withheld.then_some(WITHHELD)).into()
        };
        if cleared && self.reader == Tier::PublicSummary {
            return Text::or(scrub(&shown), WITHHELD).into();
        }
        shown
    }

    /// What anybody may read.
    fn make_public(&self, event: &mut Event) {
        let actor = &mut event.actor;
        actor.uid = None;
        actor.session_id = None;
        if actor.actor_type == ActorType::User {
            actor.actor_id = self.pseudonym("user", actor.actor_id.as_str());
            actor.display_name = Text::or("", "a user");
        } else {
            actor.actor_id = scrubbed(&actor.actor_id);
            actor.display_name = scrubbed(&actor.display_name);
        }
        actor.authority_domain = actor.authority_domain.as_deref().map(scrub);
        event.host.platform = scrubbed(&event.host.platform);
        event.subject.id = self.pseudonym("subject", event.subject.id.as_str());
        event.subject.display = scrubbed(&event.subject.display);
        for text in [&mut event.causality.trace_id, &mut event.causality.span_id] {
            *text = scrubbed(text);
        }
        if let Some(decision) = &mut event.decision {
            for text in
                [&mut decision.decision_id, &mut decision.policy_bundle, &mut decision.operation]
            {
                *text = scrubbed(text);
            }
        }
        if let Some(trust) = &mut event.trust {
            trust.content_hash = None;
            trust.degradation_reason = trust.degradation_reason.as_deref().map(scrub);
        }
        for item in &mut event.evidence {
            item.summary = scrubbed(&item.summary);
        }
        let told = &mut event.operator_narrative;
        told.summary = scrubbed(&told.summary);
        told.why = scrubbed(&told.why);
        told.next_action = scrubbed(&told.next_action);
    }

    /// Takes away all that the author wrote freely.
    fn keep_shape(&self, whole: &Event, shown: &mut Event) {
        let tier = whole.privacy.tier;
        shown.privacy.tier = self.reader;
        shown.privacy.redaction_policy = match tier {
            Tier::SealedSecret => RedactionPolicy::Sealed,
            _ => RedactionPolicy::PreserveCausality,
        };
        // The author named these freely too; those that name members say nothing.
        shown.privacy.secret_fields.retain(|field| NAMED.contains(&path_of(field).as_str()));
        shown.host.platform = Text::or("", WITHHELD);
        shown.host.kernel = None;
        shown.causality.trace_id = self.pseudonym("trace", whole.causality.trace_id.as_str());
        shown.causality.span_id = self.pseudonym("span", whole.causality.span_id.as_str());
        if let (Some(shown), Some(whole)) = (&mut shown.decision, &whole.decision) {
            shown.decision_id = self.pseudonym("decision", whole.decision_id.as_str());
            shown.policy_bundle = Text::or("", WITHHELD);
            shown.operation = Text::or("", WITHHELD);
        }
        shown.actor.uid = None;
        shown.actor.session_id = None;
        shown.actor.authority_domain = None;
        shown.actor.actor_id = self.pseudonym("actor", whole.actor.actor_id.as_str());
        shown.actor.display_name = Text::or(format!("a {}", whole.actor.actor_type), WITHHELD);
        shown.subject.display = Text::or(format!("a {}", whole.subject.subject_type), WITHHELD);
        if let Some(trust) = &mut shown.trust {
            trust.degradation_reason = None;
        }
        let summary = format!("Withheld: needs the clearance {tier}.");
        for (index, item) in shown.evidence.iter_mut().enumerate() {
            *item = Evidence {
                evidence_id: Text::or(format!("ev_{}", index + 1), WITHHELD),
                source: item.source,
                raw_ref: None,
                summary: Text::or(summary.as_str(), WITHHELD),
            };
        }
        if let Some(noise) = &mut shown.noise_control {
            noise.sample_evidence_refs = Vec::new();
            noise.event_fingerprint = self.pseudonym("fp", noise.event_fingerprint.as_str());
        }
        shown.operator_narrative = narrative::generic(shown);
    }

    /// Another name for an event, the same for the same event within one listing.
    fn other_id(&self, id: &EventId) -> EventId {
        let name = format!("evt_{}", self.pseudonym("cause", id.as_str()));
        // Holds: a word, `_` and hexadecimal digits are what an id is made of.
        EventId::new(name).expect("an id of digits")
    }

    fn pseudonym(&self, what: &str, of: &str) -> Text {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(what);
        hash.update(of);
        let digest = hash.finalize();
        let digits: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Text::or(format!("{what}_{digits}"), what)
    }
}

/// What an event calls secret, as paths with points.
struct Secrets(Vec<String>);

/// Members that can be held back, by name and by path. A name in `secret_fields` that is none of these
/// is not shown above its reader's clearance.
const NAMED: [&str; 36] = [
    "host",
    "host.host_id",
    "host.platform",
    "host.kernel",
    "actor",
    "actor.actor_id",
    "actor.display_name",
    "actor.uid",
    "actor.session_id",
    "actor.authority_domain",
    "causality",
    "causality.trace_id",
    "causality.span_id",
    "subject",
    "subject.id",
    "subject.display",
    "decision",
    "decision.operation",
    "decision.policy_bundle",
    "trust.content_hash",
    "noise_control",
    "evidence",
    "evidence.raw_ref",
    "evidence.summary",
    "operator_narrative",
    "operator_narrative.summary",
    "operator_narrative.why",
    "operator_narrative.next_action",
    "host_id",
    "uid",
    "session_id",
    "display_name",
    "content_hash",
    "raw_ref",
    "summary",
    "operation",
];

impl Secrets {
    fn of(event: &Event) -> Self {
        Self(event.privacy.secret_fields.iter().map(|field| path_of(field)).collect())
    }

    /// Whether a member is secret: it, its name, or something that it is part of.
    fn cover(&self, path: &str) -> bool {
        let name = path.rsplit('.').next().unwrap_or(path);
        self.0.iter().any(|secret| {
            secret == name
                || path.strip_prefix(secret.as_str()).is_some_and(|rest| {
                    !secret.is_empty() && (rest.is_empty() || rest.starts_with('.'))
                })
        })
    }
}

/// A path with points and without places in lists, however its author wrote it: `/evidence/0/raw_ref`,
/// `$.evidence[*].raw_ref` and `evidence.raw_ref` are the same.
fn path_of(field: &str) -> String {
    let steps = field.split(['.', '/', '[', ']']).filter(|step| {
        !step.is_empty()
            && !matches!(*step, "$" | "*")
            && !step.bytes().all(|byte| byte.is_ascii_digit())
    });
    steps.collect::<Vec<_>>().join(".")
}

fn scrubbed(text: &Text) -> Text {
    Text::or(scrub(text.as_str()), WITHHELD)
}

/// Takes paths, addresses and tokens out of a text. It is better that a harmless word goes than that a
/// telling one stays.
pub fn scrub(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation() && !"/\\~@".contains(c));
        match kind_of(bare) {
            Some(kind) => word.replace(bare, kind),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn kind_of(word: &str) -> Option<&'static str> {
    /// Longest run of letters and digits that is a word and no token.
    const WORD_CHARS_MAX: usize = 19;
    if word.contains(['/', '\\', '~', '\n', '\t']) {
        return Some("[path]");
    }
    if word.contains('@') || word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok() {
        return Some("[address]");
    }
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let longest = word.split(|c: char| !c.is_alphanumeric()).map(str::len).max().unwrap_or(0);
    (longest > WORD_CHARS_MAX && digits > 2).then_some("[token]")
}

#[cfg(test)]
mod tests;
