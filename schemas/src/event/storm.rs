//! Diagnostic storms: a coalesced event as a record of the storm that it stands for.
//!
//! Nothing of first, last and count is lost on the way, and what started the storm stays linked.

use serde::{Deserialize, Serialize};

use super::coalesce::{SAMPLES_MAX, occurrences};
use super::model::Event;
use super::vocabulary::{EventLane, Outcome, Severity, SubjectType, vocabulary};
use super::when::When;

/// Fewest occurrences that make a storm, unless told otherwise: what comes up less often than this in
/// one window a person can read one by one.
pub const STORM_COUNT_MIN: u64 = 10;

/// The name and version that a record carries; the version is the one that all contracts of the
/// capability-authority family take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StormType {
    /// The only one.
    #[default]
    #[serde(rename = "DiagnosticStormRecord")]
    DiagnosticStormRecord,
}

vocabulary! {
    /// How loudly a storm is told; other words than those of events.
    StormSeverity {
        Debug = "debug",
        Info = "info",
        Warn = "warn",
        Error = "error",
        Critical = "critical",
    }
}

impl From<Severity> for StormSeverity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Trace | Severity::Debug => Self::Debug,
            Severity::Info | Severity::Notice => Self::Info,
            Severity::Warning => Self::Warn,
            Severity::Error => Self::Error,
            Severity::Critical => Self::Critical,
        }
    }
}

vocabulary! {
    /// What failed again and again.
    FailureClass {
        CapabilityDenial = "capability-denial",
        NetworkObserverFailure = "network-observer-failure",
        SecurityVerdictUnavailable = "security-verdict-unavailable",
        RegistryIntegrityFailure = "registry-integrity-failure",
        MaintenanceSweepFailure = "maintenance-sweep-failure",
        BrowserLaunchFailure = "browser-launch-failure",
        IdentityResolutionFailure = "identity-resolution-failure",
        BootPhaseGateFailure = "boot-phase-gate-failure",
        Unknown = "unknown",
    }
}

vocabulary! {
    /// What was done about the repeats.
    SuppressionPolicy {
        None = "none",
        Deduplicate = "deduplicate",
        Summarize = "summarize",
        Suppress = "suppress",
        Quarantine = "quarantine",
        Escalate = "escalate",
        Unknown = "unknown",
    }
}

vocabulary! {
    /// How the storm stands.
    TerminalState {
        Resolved = "resolved",
        StillActive = "still-active",
        Suppressed = "suppressed",
        Quarantined = "quarantined",
        Escalated = "escalated",
        Unknown = "unknown",
    }
}

/// One occurrence that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StormSample {
    /// The event.
    pub event_ref: String,
    /// What it says, without particulars.
    pub message_template: String,
    /// When it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<When>,
}

/// The record of a storm, in the form that both readings of its contract take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiagnosticStormRecord {
    /// `urn:srcos:diagnostic-storm:` and a name.
    pub id: String,
    /// The contract.
    #[serde(rename = "type")]
    pub record_type: StormType,
    /// Its version.
    pub spec_version: String,
    /// Equal for storms that are the same.
    pub signature: String,
    /// What the storm came from.
    pub source_component: String,
    /// What failed.
    pub normalized_failure_class: FailureClass,
    /// When the first occurrence was.
    pub first_seen: When,
    /// When the last was.
    pub last_seen: When,
    /// How many there were.
    pub repeat_count: u64,
    /// Time between two occurrences if they were evenly spread, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_interval_ms: Option<f64>,
    /// Most occurrences in one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_events_per_second: Option<u64>,
    /// How loudly to tell.
    pub severity: StormSeverity,
    /// Occurrences that were kept, at most [`SAMPLES_MAX`].
    #[serde(default)]
    pub sample_events: Vec<StormSample>,
    /// What was done about the repeats.
    pub suppression_policy: SuppressionPolicy,
    /// How it stands.
    pub terminal_state: TerminalState,
    /// The incident that it belongs to; empty for none, because the contract wants a text.
    pub linked_incident_ref: String,
    /// What started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal_parent_ref: Option<String>,
    /// What it rests on.
    #[serde(default)]
    pub evidence_refs: Vec<String>,
    /// The storm in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_summary: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_hint: Option<String>,
}

/// What is known of a storm beside its event.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// When it is looked at, in milliseconds since 1970.
    pub now_ms: i64,
    /// The incident that it belongs to.
    pub incident: Option<&'a str>,
    /// Fewest occurrences that make a storm.
    pub count_min: u64,
}

/// The record of the storm that a coalesced event stands for; nothing where there are too few
/// occurrences for one.
///
/// A storm is still active while its last occurrence is less than a window ago; after that it is
/// over. What looks like an attack is escalated, whenever it was.
pub fn storm(event: &Event, outlook: Outlook<'_>) -> Option<DiagnosticStormRecord> {
    let noise = event.noise_control.as_ref()?;
    let count = occurrences(event);
    if count < outlook.count_min.max(2) {
        return None;
    }
    let attack = event.outcome == Outcome::BlockedAttackLike;
    let since_last = outlook.now_ms.saturating_sub(noise.last_seen.millis());
    let over = since_last >= i64::try_from(noise.coalesce_window_ms).unwrap_or(i64::MAX);
    let terminal_state = match (attack, over, event.outcome) {
        (true, _, _) => TerminalState::Escalated,
        (false, false, _) => TerminalState::StillActive,
        // An expected denial does not get resolved: it goes on being denied, and being counted.
        (false, true, Outcome::BlockedExpected) => TerminalState::Suppressed,
        (false, true, _) => TerminalState::Resolved,
    };
    let template = template(event);
    let samples = noise.sample_evidence_refs.iter().take(SAMPLES_MAX).map(|sample| StormSample {
        event_ref: sample.clone(),
        message_template: template.clone(),
        observed_at: None,
    });
    let cause = event.causality.parent_event_id.as_ref().unwrap_or(&event.causality.root_event_id);
    let length = noise.last_seen.millis().saturating_sub(noise.first_seen.millis()).max(0);
    Some(DiagnosticStormRecord {
        id: format!("urn:srcos:diagnostic-storm:{}", event.event_id),
        record_type: StormType::DiagnosticStormRecord,
        spec_version: "v0.1".to_owned(),
        signature: noise.event_fingerprint.to_string(),
        source_component: event.actor.display_name.to_string(),
        normalized_failure_class: failure_class(event),
        first_seen: noise.first_seen.clone(),
        last_seen: noise.last_seen.clone(),
        repeat_count: count,
        // The occurrences themselves are gone; neither is claimed that was not measured.
        median_interval_ms: (count == 2).then_some(length as f64),
        max_events_per_second: None,
        severity: event.severity.into(),
        sample_events: samples.collect(),
        suppression_policy: match (attack, noise.suppressed_count) {
            (true, _) => SuppressionPolicy::Escalate,
            (false, 0) => SuppressionPolicy::None,
            (false, _) => SuppressionPolicy::Summarize,
        },
        terminal_state,
        linked_incident_ref: outlook.incident.unwrap_or_default().to_owned(),
        causal_parent_ref: Some(cause.to_string()),
        evidence_refs: event.evidence.iter().map(|item| item.evidence_id.to_string()).collect(),
        user_visible_summary: Some(event.operator_narrative.summary.to_string()),
        remediation_hint: Some(event.operator_narrative.next_action.to_string()),
    })
}

/// What every occurrence says: operation, target class and rule, or class and outcome.
fn template(event: &Event) -> String {
    match &event.decision {
        Some(decision) => format!(
            "{} on {}: {} by {}",
            decision.operation, decision.target_class, decision.result, decision.policy_rule
        ),
        None => {
            format!("{} on {}: {}", event.event_class, event.subject.subject_type, event.outcome)
        }
    }
}

/// What failed, as far as the event tells; a guess is never made of its free text.
fn failure_class(event: &Event) -> FailureClass {
    let blocked = matches!(
        event.outcome,
        Outcome::BlockedExpected | Outcome::BlockedUnexpected | Outcome::BlockedAttackLike
    );
    let operation = event.decision.as_ref().map_or("", |decision| decision.operation.as_str());
    let network = operation.starts_with("network.");
    match (event.lane, event.outcome) {
        (EventLane::Identity, Outcome::Failed | Outcome::Degraded) => {
            FailureClass::IdentityResolutionFailure
        }
        (EventLane::Trust | EventLane::Security, Outcome::Failed | Outcome::Degraded) => {
            FailureClass::SecurityVerdictUnavailable
        }
        (_, Outcome::Failed | Outcome::Degraded) if network => FailureClass::NetworkObserverFailure,
        (EventLane::PackageProvenance, Outcome::Failed) => FailureClass::RegistryIntegrityFailure,
        (_, Outcome::Failed) if event.subject.subject_type == SubjectType::Schema => {
            FailureClass::RegistryIntegrityFailure
        }
        _ if blocked && event.decision.is_some() => FailureClass::CapabilityDenial,
        _ => FailureClass::Unknown,
    }
}

#[cfg(test)]
mod tests;
