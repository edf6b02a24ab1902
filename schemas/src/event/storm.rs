//! Diagnostic storms: a coalesced event as a record of the storm that it stands for.
//!
//! Nothing of first, last and count is lost on the way, and what started the storm stays linked.

use super::coalesce::{SAMPLES_MAX, occurrences};
use super::model::Event;
use super::vocabulary::{EventLane, Outcome, Severity, SubjectType};
use crate::authority::contract::SpecVersion;
use crate::authority::storm::{
    DiagnosticStorm, FailureClass, StormKind, StormSample, StormSeverity, Suppression,
    TerminalState,
};

/// Fewest occurrences that make a storm, unless told otherwise: what comes up less often than this in
/// one window a person can read one by one.
pub const STORM_COUNT_MIN: u64 = 10;

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

/// What is known of a storm beside its event.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// When it is looked at, in milliseconds since 1970.
    pub now_ms: i64,
    /// The incident that it belongs to.
    pub incident: Option<&'a str>,
    /// Fewest occurrences that make a storm.
    pub count_min: u64,
    /// Whether it is known that its cause was mended.
    pub mended: bool,
}

/// The record of the storm that a coalesced event stands for; nothing where there are too few
/// occurrences for one.
///
/// A storm is still active while its last occurrence is less than a window ago. What looks like an
/// attack is escalated, whenever it was. Silence alone is not taken for a mended cause.
pub fn storm(event: &Event, outlook: Outlook<'_>) -> Option<DiagnosticStorm> {
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
        _ if outlook.mended => TerminalState::Resolved,
        // An expected denial needs no mending: it goes on being denied, and being counted.
        (false, true, Outcome::BlockedExpected) => TerminalState::Suppressed,
        (false, true, _) => TerminalState::Unknown,
    };
    let template = template(event);
    let samples = noise.sample_evidence_refs.iter().take(SAMPLES_MAX).map(|sample| StormSample {
        event_ref: sample.clone(),
        message_template: template.clone(),
        observed_at: None,
    });
    let cause = event.causality.parent_event_id.as_ref().unwrap_or(&event.causality.root_event_id);
    let length = noise.last_seen.millis().saturating_sub(noise.first_seen.millis()).max(0);
    Some(DiagnosticStorm {
        id: format!("urn:srcos:diagnostic-storm:{}", event.event_id),
        kind: StormKind,
        spec_version: SpecVersion,
        signature: noise.event_fingerprint.to_string(),
        source_component: event.actor.display_name.to_string(),
        normalized_failure_class: failure_class(event),
        first_seen: noise.first_seen.to_string(),
        last_seen: noise.last_seen.to_string(),
        repeat_count: count,
        // The occurrences themselves are gone; neither is claimed that was not measured.
        median_interval_ms: (count == 2).then_some(length as f64),
        max_events_per_second: None,
        severity: event.severity.into(),
        sample_events: samples.collect(),
        suppression_policy: match (attack, noise.suppressed_count) {
            (true, _) => Suppression::Escalate,
            (false, 0) => Suppression::None,
            (false, _) => Suppression::Summarize,
        },
        terminal_state,
        // The proposal wants the member, the published form wants a text: empty is what both take.
        linked_incident_ref: Some(outlook.incident.unwrap_or_default().to_owned()),
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
