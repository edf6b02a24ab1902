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
//! | members named in `secret_fields` | left out | left out | left out | shown |
//!
//! An event above the reader's clearance is shown as its shape only: no text that its author wrote
//! freely, and of its evidence only how much there is.

use std::net::{IpAddr, SocketAddr};

use sha2::{Digest as _, Sha256};

use super::model::{Event, Evidence, Text};
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

    /// Members that the event itself calls secret, by their name or by their path.
    fn hold_back_secrets(&self, event: &mut Event) {
        let secrets = std::mem::take(&mut event.privacy.secret_fields);
        let is_secret = |path: &str| {
            let name = path.rsplit('.').next().unwrap_or(path);
            secrets.iter().any(|secret| secret == path || secret == name)
        };
        if is_secret("actor.uid") {
            event.actor.uid = None;
        }
        if is_secret("actor.session_id") {
            event.actor.session_id = None;
        }
        if is_secret("actor.display_name") {
            event.actor.display_name = Text::or(event.actor.actor_type.as_str(), WITHHELD);
        }
        if is_secret("host.host_id") {
            event.host.host_id = self.pseudonym("host", event.host.host_id.as_str());
        }
        if is_secret("subject.id") {
            event.subject.id = self.pseudonym("subject", event.subject.id.as_str());
        }
        if is_secret("subject.display") {
            event.subject.display = Text::or(event.subject.subject_type.as_str(), WITHHELD);
        }
        if is_secret("trust.content_hash")
            && let Some(trust) = &mut event.trust
        {
            trust.content_hash = None;
        }
        for item in &mut event.evidence {
            if is_secret("evidence.raw_ref") {
                item.raw_ref = None;
            }
            if is_secret("evidence.summary") {
                item.summary = Text::or("", WITHHELD);
            }
        }
        event.privacy.secret_fields = secrets;
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
        event.subject.id = self.pseudonym("subject", event.subject.id.as_str());
        event.subject.display = scrubbed(&event.subject.display);
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
        shown.operator_narrative = narrative::generic(whole);
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
