//! The strict event and its parts. Reading one this way refuses all that its schema refuses, apart
//! from the conditions between blocks, which [`Event::missing_block`] has.

use serde::{Deserialize, Deserializer, Serialize};

use super::vocabulary::{
    ActorType, AttestationState, DecisionResult, EventClass, EventLane, EvidenceSource,
    NetworkLookup, Outcome, PackageOrigin, RedactionPolicy, ReplicationPolicy, RetentionClass,
    Risk, Severity, SignatureState, SubjectType, Tier, TrustMode,
};
use super::when::When;
use crate::contracts::constant_text;

/// The contract's name, in every event.
pub const EVENT_V0_1: &str = "sourceos.event.v0.1";

/// Text that a document's member may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {wanted}")]
pub struct BadText {
    /// What stands there, shortened when it is long.
    pub found: String,
    /// What must.
    pub wanted: &'static str,
}

/// A text type that checks its form when it is made.
macro_rules! checked_text {
    ($(#[$meta:meta])* $name:ident, $wanted:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes text that has the form.
            pub fn new(text: impl Into<String>) -> Result<Self, BadText> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    return Ok(Self(text));
                }
                Err(BadText { found: text.chars().take(80).collect(), wanted: $wanted })
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadText;

            fn try_from(text: String) -> Result<Self, BadText> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text! {
    /// The name of an event: `evt_` and at least one of letters, digits, `.`, `_`, `:` and `-`.
    EventId, "evt_ followed by letters, digits, '.', '_', ':' or '-'", is_event_id
}

checked_text! {
    /// Text that is not empty.
    Text, "text of at least one character", |text| !text.is_empty()
}

checked_text! {
    /// A code of the explanation registry: capital letters, digits and `_`.
    ExplanationCode, "capital letters, digits and '_'", |text| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    }
}

checked_text! {
    /// A SHA-256 hash as `sha256:` and 64 hexadecimal digits, or nothing at all.
    ContentHash, "sha256: and 64 hexadecimal digits, or empty", |text| {
        text.is_empty()
            || text.strip_prefix("sha256:").is_some_and(|digits| {
                digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
            })
    }
}

impl Text {
    /// Text for people, with something in its place where there is none.
    pub fn or(text: impl Into<String>, instead: &str) -> Self {
        let text = text.into();
        match (text.is_empty(), instead.is_empty()) {
            (false, _) => Self(text),
            (true, false) => Self(instead.to_owned()),
            (true, true) => Self("unknown".to_owned()),
        }
    }
}

/// Whether text has the form of an event's name.
pub fn is_event_id(text: &str) -> bool {
    text.strip_prefix("evt_").is_some_and(|rest| {
        !rest.is_empty()
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
    })
}

/// Reads a member that may be absent and may not be null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

constant_text! {
    /// The strict contract's name; no other is read.
    EventSchema = EVENT_V0_1
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The contract.
    pub schema_version: EventSchema,
    /// Its name.
    pub event_id: EventId,
    /// What sort of happening.
    pub event_class: EventClass,
    /// Its subject area.
    pub lane: EventLane,
    /// How loudly to tell.
    pub severity: Severity,
    /// How it ended.
    pub outcome: Outcome,
    /// When it happened.
    pub created_at: When,
    /// The host's monotonic clock then, in nanoseconds.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub observed_at_monotonic_ns: Option<u64>,
    /// Where.
    pub host: Host,
    /// Who.
    pub actor: Actor,
    /// What led to it.
    pub causality: Causality,
    /// What it was done to.
    pub subject: Subject,
    /// What policy decided.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Where code came from.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// How many occurrences it stands for.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub noise_control: Option<NoiseControl>,
    /// Who may read it.
    pub privacy: Privacy,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What it means, in words.
    pub operator_narrative: Narrative,
    /// Where it may travel.
    pub sync: Sync,
}

impl Event {
    /// The block that the event's class demands and that is not there.
    pub fn missing_block(&self) -> Option<&'static str> {
        match self.event_class {
            EventClass::PolicyDecision if self.decision.is_none() => Some("decision"),
            EventClass::TrustEvaluation if self.trust.is_none() => Some("trust"),
            EventClass::TelemetryCoalesced if self.noise_control.is_none() => Some("noise_control"),
            _ => None,
        }
    }
}

/// Where an event happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Name or pseudonym of the host.
    pub host_id: Text,
    /// Operating system or environment.
    pub platform: Text,
    /// Kernel name or version.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Most open tier at which the host may be named.
    pub privacy_zone: Tier,
}

/// Who did it. Members that may be null are written as null where there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Stays the same from event to event.
    pub actor_id: Text,
    /// What sort of actor.
    pub actor_type: ActorType,
    /// As people know it.
    pub display_name: Text,
    /// User under which it acted.
    #[serde(default)]
    pub uid: Option<Uid>,
    /// Login session in which it acted.
    #[serde(default)]
    pub session_id: Option<String>,
    /// Domain whose rules bind it.
    #[serde(default)]
    pub authority_domain: Option<String>,
}

/// A user, by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Uid {
    /// By number.
    Number(i64),
    /// By name.
    Name(String),
}

/// What led to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Causality {
    /// The event that directly caused it.
    #[serde(default, deserialize_with = "optional_id")]
    pub parent_event_id: Option<EventId>,
    /// First event of the chain.
    pub root_event_id: EventId,
    /// Groups the events of one activity.
    pub trace_id: Text,
    /// Names the step within the trace.
    pub span_id: Text,
}

/// Reads an id, null, or empty text, which means null.
pub(crate) fn optional_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<EventId>, D::Error> {
    match Option::<String>::deserialize(from)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => EventId::new(text).map(Some).map_err(serde::de::Error::custom),
    }
}

/// What was acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What sort of thing.
    #[serde(rename = "type")]
    pub subject_type: SubjectType,
    /// Stays the same from event to event.
    pub id: Text,
    /// As people know it.
    pub display: Text,
}

/// What policy decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Name of the decision.
    pub decision_id: Text,
    /// Set of rules in force.
    pub policy_bundle: Text,
    /// Rule that decided.
    pub policy_rule: Text,
    /// What was asked for.
    pub operation: Text,
    /// Class of the thing it was asked for.
    pub target_class: Text,
    /// The answer.
    pub result: DecisionResult,
    /// Whether it was to be expected.
    pub semantic_outcome: Outcome,
    /// The registry's code for it.
    pub explanation_code: ExplanationCode,
}

/// What is known of where code came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Whether it is judged here alone.
    pub mode: TrustMode,
    /// What checking the signature gave.
    pub signature_state: SignatureState,
    /// Which channel it came by.
    pub package_origin: PackageOrigin,
    /// Hash of the content.
    #[serde(default)]
    pub content_hash: Option<ContentHash>,
    /// Whether it is vouched for.
    pub attestation_state: AttestationState,
    /// Whether the network was asked.
    pub network_lookup: NetworkLookup,
    /// Why less could be checked than wanted.
    #[serde(default)]
    pub degradation_reason: Option<String>,
}

impl Trust {
    /// What an event says that is not about code: judged here, and nothing was looked up.
    pub fn not_applicable() -> Self {
        Self {
            mode: TrustMode::LocalFirst,
            signature_state: SignatureState::NotApplicable,
            package_origin: PackageOrigin::Unknown,
            content_hash: None,
            attestation_state: AttestationState::NotApplicable,
            network_lookup: NetworkLookup::NotAttempted,
            degradation_reason: None,
        }
    }
}

/// How many occurrences an event stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseControl {
    /// Equal for occurrences that count as the same.
    pub event_fingerprint: Text,
    /// When the first was.
    pub first_seen: When,
    /// When the last was.
    pub last_seen: When,
    /// All of them.
    #[serde(deserialize_with = "at_least_one")]
    pub count: u64,
    /// Those of which no sample was kept.
    pub suppressed_count: u64,
    /// Length of the window, in milliseconds.
    #[serde(deserialize_with = "at_least_one")]
    pub coalesce_window_ms: u64,
    /// Those that were kept.
    #[serde(default)]
    pub sample_evidence_refs: Vec<String>,
}

impl NoiseControl {
    /// What an event says that stands for itself alone.
    pub fn single(fingerprint: Text, at: &When) -> Self {
        Self {
            event_fingerprint: fingerprint,
            first_seen: at.clone(),
            last_seen: at.clone(),
            count: 1,
            suppressed_count: 0,
            coalesce_window_ms: 1,
            sample_evidence_refs: Vec::new(),
        }
    }
}

fn at_least_one<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        0 => Err(serde::de::Error::custom("0 is less than 1")),
        number => Ok(number),
    }
}

/// Who may read an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// Least clearance for the whole of it.
    pub tier: Tier,
    /// What redaction must preserve.
    pub redaction_policy: RedactionPolicy,
    /// Names of what is held back.
    pub secret_fields: Vec<String>,
}

/// One observation that an event rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Its name.
    pub evidence_id: Text,
    /// Where it comes from.
    pub source: EvidenceSource,
    /// Where the raw record lies.
    #[serde(default)]
    pub raw_ref: Option<String>,
    /// In one sentence.
    pub summary: Text,
}

/// An event in words, for a person who has to act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrative {
    /// What happened.
    pub summary: Text,
    /// How much harm it may mean.
    pub risk: Risk,
    /// Why.
    pub why: Text,
    /// What to do now.
    pub next_action: Text,
    /// Evidence to read on.
    #[serde(default)]
    pub drilldown_refs: Vec<String>,
}

/// Where an event may travel and how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    /// How far it may be copied.
    pub replication_policy: ReplicationPolicy,
    /// How long it is kept.
    pub retention_class: RetentionClass,
    /// Whether it may leave the estate.
    pub exportable: bool,
}

impl Default for Sync {
    /// Stays on the host.
    fn default() -> Self {
        Self {
            replication_policy: ReplicationPolicy::LocalOnly,
            retention_class: RetentionClass::Standard,
            exportable: false,
        }
    }
}

#[cfg(test)]
mod tests;
