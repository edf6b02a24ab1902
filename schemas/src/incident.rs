//! Incident bundles: what went wrong, why, whom it touches and whether it may leave the device.

pub mod build;
pub mod explain;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule};
use crate::event::vocabulary::{Risk, Tier, vocabulary};

/// `schema_version` of an incident bundle.
pub const SCHEMA_VERSION: &str = "sourceos.incident.v0.1";

/// The contract.
pub static INCIDENT: Contract = Contract {
    name: "incident",
    urn: "urn:srcos:schema:incident:v0.1",
    file: "sourceos-incident.schema.json",
    schema: include_str!("../sourceos-incident.schema.json"),
    discriminator: Discriminator::Member("schema_version", SCHEMA_VERSION),
    profiled: false,
    rules: &[
        Rule {
            name: "incident.known-tier",
            says: "the privacy tier is one that documents can be shown under",
            origin: Origin::Ours,
            check: tier_is_known,
        },
        Rule {
            name: "incident.root-event",
            says: "the causal graph names the event with which it began",
            origin: Origin::Ours,
            check: root_event_is_named,
        },
        Rule {
            name: "incident.private-stays",
            says: "what is not for everybody leaves the device only with a person's approval",
            origin: Origin::Ours,
            check: private_stays,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn tier_is_known(incident: &Value, findings: &mut Findings) {
    let path = "/privacy/tier";
    if let Some(tier) = incident.pointer(path).and_then(Value::as_str)
        && Tier::from_word(tier).is_none()
    {
        let known: Vec<&str> = Tier::ALL.iter().map(|tier| tier.as_str()).collect();
        findings.add(path, format!("nobody knows who may see this: use {}", known.join(", ")));
    }
}

fn root_event_is_named(incident: &Value, findings: &mut Findings) {
    let Some(graph) = incident.get("causal_graph").and_then(Value::as_object) else { return };
    let named = graph.get("root_event_id").and_then(Value::as_str);
    if named.is_none_or(str::is_empty) {
        let message = "what came first is not said: name an event in root_event_id";
        findings.add("/causal_graph", message);
    }
}

fn private_stays(incident: &Value, findings: &mut Findings) {
    let is = |path: &str, said: bool| incident.pointer(path) == Some(&Value::Bool(said));
    let tier = incident.pointer("/privacy/tier").and_then(Value::as_str);
    let private = tier.is_some_and(|tier| tier != Tier::PublicSummary.as_str());
    if private && is("/export_policy/exportable", true) {
        if tier == Some(Tier::SealedSecret.as_str()) {
            let message = "what is sealed must not leave the device: say false";
            findings.add("/export_policy/exportable", message);
        } else if is("/export_policy/requires_approval", false) {
            let message = "it may leave the device and nobody is asked: say true";
            findings.add("/export_policy/requires_approval", message);
        }
    }
}

/// An incident, its causes and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Kind of document: [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// Names the incident.
    pub incident_id: String,
    /// What sort of incident it is.
    pub incident_class: IncidentClass,
    /// When the bundle was made: an RFC 3339 time.
    pub created_at: String,
    /// What happened.
    pub summary: String,
    /// How much harm is to be feared.
    pub risk: Risk,
    /// Events of the incident and how they follow from each other.
    pub causal_graph: Map<String, Value>,
    /// Services that it touches.
    pub affected_services: Vec<String>,
    /// Rules and decisions that it is about.
    pub policy_context: Map<String, Value>,
    /// State of resources at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_context: Option<Map<String, Value>>,
    /// Who may see the bundle.
    pub privacy: IncidentPrivacy,
    /// Whether it may leave the device.
    pub export_policy: ExportPolicy,
    /// What else the document says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Document for Incident {
    const CONTRACT: &'static Contract = &INCIDENT;
}

vocabulary! {
    /// What sort of incident it is.
    IncidentClass {
        /// A process ended that should not have.
        Crash = "crash",
        /// A process does nothing any more.
        Hang = "hang",
        /// The same denial over and over.
        DenialStorm = "denial_storm",
        /// The device woke, or stayed awake, without need.
        WakeAnomaly = "wake_anomaly",
        /// A repair.
        Repair = "repair",
        /// Something shows under another name than its own.
        IdentityMismatch = "identity_mismatch",
        /// A reader of a foreign format failed.
        ParserFault = "parser_fault",
        /// Telemetry against policy.
        TelemetryPolicy = "telemetry_policy",
        /// It may be an attack.
        SecuritySuspicion = "security_suspicion",
    }
}

/// Who may see a bundle, and what was removed from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentPrivacy {
    /// For whom the content is meant; other tools may use words of their own here.
    pub tier: String,
    /// How values are removed.
    pub redaction_policy: String,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Whether a bundle may leave the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExportPolicy {
    /// Whether it may leave at all.
    pub exportable: bool,
    /// Whether a person must agree each time.
    pub requires_approval: bool,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
