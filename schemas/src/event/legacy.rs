//! The wider form of an event, which older programs write: named members are held to their types,
//! and all others are kept as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::{EventId, EventSchema};
use super::vocabulary::{ActorType, ReplicationPolicy, RetentionClass, Risk, Severity, Tier};

/// Members that the contract does not name.
pub type Others = BTreeMap<String, Value>;

/// One event in the legacy form. Class, lane, outcome and the blocks that need not be there are read
/// as JSON: their words are wider than those of the strict event, and the schema holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacyEvent {
    /// The contract, the same as that of the strict event.
    pub schema_version: EventSchema,
    /// Its name.
    pub event_id: EventId,
    /// What sort of happening.
    pub event_class: String,
    /// Its subject area.
    pub lane: String,
    /// How loudly to tell.
    pub severity: Severity,
    /// How it ended.
    pub outcome: String,
    /// When it happened: an RFC 3339 time.
    pub created_at: String,
    /// Where.
    pub host: LegacyHost,
    /// Who.
    pub actor: LegacyActor,
    /// What led to it.
    pub causality: LegacyCausality,
    /// What it was done to.
    pub subject: LegacySubject,
    /// Who may read it.
    pub privacy: LegacyPrivacy,
    /// What it means, in words.
    pub operator_narrative: LegacyNarrative,
    /// Where it may travel.
    pub sync: LegacySync,
    /// All other members: decision, trust, noise control, evidence, and what the contract does not name.
    #[serde(flatten)]
    pub others: Others,
}

/// Where a legacy event happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacyHost {
    /// Name or pseudonym of the host.
    pub host_id: String,
    /// Operating system or environment.
    pub platform: String,
    /// Most open tier at which the host may be named.
    pub privacy_zone: Tier,
    /// All other members.
    #[serde(flatten)]
    pub others: Others,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacyActor {
    /// Stays the same from event to event.
    pub actor_id: String,
    /// What sort of actor.
    pub actor_type: ActorType,
    /// As people know it.
    pub display_name: String,
    /// All other members.
    #[serde(flatten)]
    pub others: Others,
}

/// What led to a legacy event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacyCausality {
    /// First event of the chain.
    pub root_event_id: String,
    /// Groups the events of one activity.
    pub trace_id: String,
    /// All other members: parent and span among them.
    #[serde(flatten)]
    pub others: Others,
}

/// What was acted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacySubject {
    /// What sort of thing.
    #[serde(rename = "type")]
    pub subject_type: String,
    /// Stays the same from event to event.
    pub id: String,
    /// As people know it.
    pub display: String,
    /// All other members.
    #[serde(flatten)]
    pub others: Others,
}

/// Who may read a legacy event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacyPrivacy {
    /// Least clearance for the whole of it.
    pub tier: Tier,
    /// What redaction must preserve.
    pub redaction_policy: String,
    /// All other members: names of what is held back among them.
    #[serde(flatten)]
    pub others: Others,
}

/// A legacy event in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacyNarrative {
    /// What happened.
    pub summary: String,
    /// How much harm it may mean.
    pub risk: Risk,
    /// Why.
    pub why: String,
    /// What to do now.
    pub next_action: String,
    /// All other members.
    #[serde(flatten)]
    pub others: Others,
}

/// Where a legacy event may travel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LegacySync {
    /// How far it may be copied.
    pub replication_policy: ReplicationPolicy,
    /// How long it is kept.
    pub retention_class: RetentionClass,
    /// Whether it may leave the estate.
    pub exportable: bool,
    /// All other members.
    #[serde(flatten)]
    pub others: Others,
}
