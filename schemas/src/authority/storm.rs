//! Diagnostic storm records: many messages with one cause, told once.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contract::SpecVersion;
use super::{list, moment};
use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};

/// The contract.
pub static DIAGNOSTIC_STORM: Contract = Contract {
    name: "diagnostic-storm-record",
    urn: "urn:srcos:schema:diagnostic-storm-record:v0.1",
    file: "DiagnosticStormRecord.json",
    schema: include_str!("../../DiagnosticStormRecord.json"),
    discriminator: Discriminator::TypeOrId("DiagnosticStormRecord", "urn:srcos:diagnostic-storm:"),
    profiled: true,
    rules: &[
        Rule {
            name: "storm.last-not-before-first",
            says: "lastSeen is not before firstSeen",
            origin: Origin::Ours,
            check: last_is_not_before_first,
        },
        Rule {
            name: "storm.samples-within",
            says: "samples were seen between firstSeen and lastSeen, and are no more than there \
                were messages",
            origin: Origin::Ours,
            check: samples_are_within,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn last_is_not_before_first(storm: &Value, findings: &mut Findings) {
    if let (Some(first), Some(last)) = (moment(storm, "firstSeen"), moment(storm, "lastSeen"))
        && last < first
    {
        findings.add("/lastSeen", "it is before firstSeen: exchange the two, or correct the zone");
    }
}

fn samples_are_within(storm: &Value, findings: &mut Findings) {
    let bounds = (moment(storm, "firstSeen"), moment(storm, "lastSeen"));
    let mut count: u64 = 0;
    for (index, sample) in list(storm, "sampleEvents") {
        count += 1;
        if let ((Some(first), Some(last)), Some(at)) = (bounds, moment(sample, "observedAt"))
            && (at < first || at > last)
        {
            let message =
                "it is not between firstSeen and lastSeen: widen these, or drop the sample";
            findings.add(format!("/sampleEvents/{index}/observedAt"), message);
        }
    }
    if let Some(repeats) = storm.get("repeatCount").and_then(Value::as_u64)
        && count > repeats
    {
        let message =
            format!("there are {count} samples of {repeats} message(s): correct repeatCount");
        findings.add("/sampleEvents", message);
    }
}

constant_text! {
    /// Says that a document is a diagnostic storm record.
    StormKind = "DiagnosticStormRecord"
}

/// A diagnostic storm record, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiagnosticStorm {
    /// Names it: a URN.
    pub id: String,
    /// Kind of document.
    #[serde(rename = "type")]
    pub kind: StormKind,
    /// Version.
    #[serde(with = "super::any_version")]
    pub spec_version: SpecVersion,
    /// What the repeated messages have in common.
    pub signature: String,
    /// Which component they come from.
    pub source_component: String,
    /// What sort of failure they tell of.
    pub normalized_failure_class: FailureClass,
    /// When the first one was seen: an RFC 3339 time.
    pub first_seen: String,
    /// When the last one was seen: an RFC 3339 time.
    pub last_seen: String,
    /// How many there were.
    pub repeat_count: u64,
    /// Median of the time between two, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_interval_ms: Option<f64>,
    /// Most messages in one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_events_per_second: Option<u64>,
    /// How grave it is.
    pub severity: StormSeverity,
    /// A few of the messages.
    #[serde(default)]
    pub sample_events: Vec<StormSample>,
    /// What is done about the repetition.
    pub suppression_policy: Suppression,
    /// How it ended, or that it has not.
    pub terminal_state: TerminalState,
    /// The incident that it belongs to; empty where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked_incident_ref: Option<String>,
    /// The event that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal_parent_ref: Option<String>,
    /// Names of what this rests on.
    #[serde(default)]
    pub evidence_refs: Vec<String>,
    /// The whole in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_summary: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_hint: Option<String>,
}

impl Document for DiagnosticStorm {
    const CONTRACT: &'static Contract = &DIAGNOSTIC_STORM;
}

/// One of the messages of a storm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StormSample {
    /// Names the event.
    pub event_ref: String,
    /// What it said, without what differs each time.
    pub message_template: String,
    /// When it was seen: an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<String>,
}

/// A sort of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// A capability was denied.
    CapabilityDenial,
    /// Something that looks at the network could not.
    NetworkObserverFailure,
    /// A verdict on security was not to be had.
    SecurityVerdictUnavailable,
    /// A record is missing or wrong.
    RegistryIntegrityFailure,
    /// Maintenance could not be done.
    MaintenanceSweepFailure,
    /// A browser could not be started.
    BrowserLaunchFailure,
    /// It could not be told who somebody is.
    IdentityResolutionFailure,
    /// Something asked before its phase.
    BootPhaseGateFailure,
    /// Not known.
    Unknown,
}

/// How grave a storm is, in the words of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StormSeverity {
    /// For developers.
    Debug,
    /// Good to know.
    Info,
    /// Needs attention.
    Warn,
    /// Something failed.
    Error,
    /// Needs attention now.
    Critical,
}

/// What is done about repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suppression {
    /// Nothing.
    None,
    /// Equal messages are told once.
    Deduplicate,
    /// A summary is told.
    Summarize,
    /// Nothing more is told.
    Suppress,
    /// The source is set apart.
    Quarantine,
    /// A person is told.
    Escalate,
    /// Not known.
    Unknown,
}

/// How a storm ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TerminalState {
    /// Its cause was mended.
    Resolved,
    /// It has not ended.
    StillActive,
    /// It is no longer told.
    Suppressed,
    /// Its source was set apart.
    Quarantined,
    /// A person was told.
    Escalated,
    /// Not known.
    Unknown,
}
