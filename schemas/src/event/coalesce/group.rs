//! One group of equal events, and the event that it becomes.

use std::collections::VecDeque;

use sha2::{Digest as _, Sha256};

use super::{Fingerprint, occurrences};
use crate::event::model::{Event, EventId, Evidence, NoiseControl, Text};
use crate::event::vocabulary::{EventClass, EvidenceSource, Risk, Severity, Tier};
use crate::event::when::When;

/// Most samples that one coalesced event names: a person looks at a handful.
pub const SAMPLES_MAX: usize = 32;

/// Most pieces of evidence that a coalesced event takes over from its first occurrence.
pub const EVIDENCE_MAX: usize = 16;

/// Most names of held-back fields that a coalesced event takes over from all occurrences.
const SECRET_FIELDS_MAX: usize = 64;

/// Most ids that a group remembers, to know an event that is delivered again: what is delivered twice
/// comes soon after, and all groups together take 8 MiB for this.
pub const IDS_MAX: usize = 256;

/// A short form of an id; a good hash, so that nobody can choose ids that are taken for each other.
fn short(id: &EventId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Sha256::digest(id.as_str())[..8]);
    u64::from_be_bytes(bytes)
}

/// What a repeat changed.
#[derive(Debug, Clone)]
struct Raise {
    event_id: EventId,
    risk: Option<(Risk, Risk)>,
    severity: (Severity, Severity),
}

/// Events that count as the same, within one window.
#[derive(Debug)]
pub(super) struct Group {
    key: Fingerprint,
    age: u64,
    /// When the window opened, in milliseconds.
    opened: i64,
    first: Event,
    first_seen: When,
    last_seen: When,
    last_id: EventId,
    members: u64,
    count: u64,
    samples: Vec<String>,
    severity: Severity,
    risk: Risk,
    next_action: Text,
    raise: Option<Raise>,
    tier: Tier,
    secret_fields: Vec<String>,
    /// The loudest that it may become.
    severity_max: Severity,
    /// Whether its events have different classes.
    is_mixed: bool,
    /// Short forms of the ids that came last, at most [`IDS_MAX`].
    ids: VecDeque<u64>,
}

impl Group {
    /// A group of one event.
    pub(super) fn new(key: Fingerprint, age: u64, first: Event, samples_max: usize) -> Self {
        let mut samples = Vec::new();
        take_samples(&mut samples, &first, samples_max);
        let (first_seen, last_seen) = span(&first);
        Self {
            key,
            age,
            opened: first.created_at.millis(),
            first_seen,
            last_seen,
            last_id: first.event_id.clone(),
            members: 1,
            count: occurrences(&first),
            samples,
            severity: first.severity,
            risk: first.operator_narrative.risk,
            next_action: first.operator_narrative.next_action.clone(),
            raise: None,
            tier: first.privacy.tier,
            secret_fields: first.privacy.secret_fields.clone(),
            severity_max: first.outcome.severity_max(),
            is_mixed: false,
            ids: VecDeque::from([short(&first.event_id)]),
            first,
        }
    }

    /// The same, for events that need not have the same outcome.
    pub(super) fn mixed(mut self) -> Self {
        self.severity_max = Severity::Critical;
        self.is_mixed = true;
        self
    }

    /// Whether an event is one of those that came last: it was delivered again, and is no repeat.
    pub(super) fn has(&self, event: &Event) -> bool {
        self.ids.contains(&short(&event.event_id))
    }

    /// Its place in the order of age.
    pub(super) fn age(&self) -> u64 {
        self.age
    }

    /// Whether something that happened then belongs into its window. What is a little older than the
    /// first does: streams are not quite in order.
    pub(super) fn takes(&self, at: i64, window_ms: u64) -> bool {
        at.abs_diff(self.opened) < window_ms
    }

    /// Adds a repeat.
    pub(super) fn absorb(&mut self, event: &Event, samples_max: usize) {
        self.members += 1;
        if self.ids.len() >= IDS_MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(short(&event.event_id));
        self.count = self.count.saturating_add(occurrences(event));
        let (first_seen, last_seen) = span(event);
        if first_seen.millis() < self.first_seen.millis() {
            self.first_seen = first_seen;
        }
        if last_seen.millis() >= self.last_seen.millis() {
            self.last_seen = last_seen;
        }
        self.last_id = event.event_id.clone();
        take_samples(&mut self.samples, event, samples_max);
        self.tier = self.tier.max(event.privacy.tier);
        for field in &event.privacy.secret_fields {
            if self.secret_fields.len() < SECRET_FIELDS_MAX && !self.secret_fields.contains(field) {
                self.secret_fields.push(field.clone());
            }
        }
        self.weigh(event, samples_max);
    }

    /// Whether the repeat is graver than what came before: by its risk, or by its own severity. How
    /// often it came has no part in it.
    fn weigh(&mut self, event: &Event, samples_max: usize) {
        let risk = event.operator_narrative.risk;
        let risen = rank(risk) > rank(self.risk);
        let mut severity = self.severity.max(event.severity);
        if risen {
            severity = severity.max(risk.severity());
        }
        // An expected denial stays quiet; its risk is shown as what it is.
        severity = severity.min(self.severity_max).max(self.severity);
        if !risen && severity == self.severity {
            return;
        }
        self.raise = Some(Raise {
            event_id: event.event_id.clone(),
            risk: risen.then_some((self.risk, risk)),
            severity: (self.severity, severity),
        });
        self.severity = severity;
        if risen {
            self.risk = risk;
            self.next_action = event.operator_narrative.next_action.clone();
        }
        // What changed the picture is always among the samples.
        let id = event.event_id.as_str();
        if samples_max > 0 && !self.samples.iter().any(|sample| sample == id) {
            self.samples.truncate(samples_max - 1);
            self.samples.push(id.to_owned());
        }
    }

    /// The event that tells of the group; the event itself where it was alone.
    pub(super) fn into_event(self, window_ms: u64) -> Event {
        if self.members == 1 {
            return self.first;
        }
        let event_id = self.event_id();
        let summary = format!(
            "{} ({} occurrences from {} to {})",
            base_summary(&self.first),
            self.count,
            self.first_seen,
            self.last_seen
        );
        let why = format!("{} {}", base_why(&self.first), self.verdict());
        let mut evidence: Vec<Evidence> =
            self.first.evidence.iter().take(EVIDENCE_MAX).cloned().collect();
        if let Some(raise) = &self.raise {
            evidence.retain(|item| item.evidence_id.as_str() != RAISE_EVIDENCE);
            evidence.push(Evidence {
                evidence_id: Text::or(RAISE_EVIDENCE, RAISE_EVIDENCE),
                source: EvidenceSource::PolicyEngine,
                raw_ref: Some(raise.event_id.to_string()),
                summary: Text::or(self.verdict(), RAISE_EVIDENCE),
            });
        }
        if self.first.event_class != EventClass::TelemetryCoalesced && !self.is_mixed {
            // First, so that it is kept however often this is coalesced again.
            evidence.insert(0, class_evidence(self.first.event_class));
        }
        let kept = self.samples.len() as u64;
        let mut event = self.first;
        // Coalesced again, an event keeps pointing at the first occurrence, not at its own kind.
        if event.event_class != EventClass::TelemetryCoalesced {
            event.causality.parent_event_id = Some(event.event_id.clone());
        }
        event.event_id = event_id;
        event.event_class = EventClass::TelemetryCoalesced;
        event.severity = self.severity;
        event.noise_control = Some(NoiseControl {
            event_fingerprint: self.key.text(),
            first_seen: self.first_seen,
            last_seen: self.last_seen.clone(),
            count: self.count,
            suppressed_count: self.count.saturating_sub(kept),
            coalesce_window_ms: window_ms,
            sample_evidence_refs: self.samples,
        });
        event.created_at = self.last_seen;
        event.privacy.tier = self.tier;
        event.privacy.secret_fields = self.secret_fields;
        event.evidence = evidence;
        event.operator_narrative.summary = Text::or(summary, "coalesced");
        event.operator_narrative.why = Text::or(why, "coalesced");
        event.operator_narrative.risk = self.risk;
        event.operator_narrative.next_action = self.next_action;
        event
    }

    /// The same for the same group, so that folding a stream twice gives the same names.
    fn event_id(&self) -> EventId {
        let mut hash = Sha256::new();
        hash.update(self.key.0);
        for part in [self.first.event_id.as_str(), self.last_id.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(self.count.to_be_bytes());
        let digest = hash.finalize();
        let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        // Holds: the prefix and hexadecimal digits are what an id is made of.
        EventId::new(format!("evt_coalesced_{digits}")).expect("an id of digits")
    }

    /// Whether any repeat changed how grave it is, in a sentence.
    fn verdict(&self) -> String {
        let Some(raise) = &self.raise else {
            return UNCHANGED.to_owned();
        };
        let (from, to) = raise.severity;
        let severity = if from == to {
            format!("{SEVERITY_STAYS} {to}")
        } else {
            format!("{SEVERITY_RAISED} from {from} to {to}")
        };
        match raise.risk {
            Some((from, to)) => format!(
                "{severity}; repeat {} changed the risk class from {from} to {to}.",
                raise.event_id
            ),
            None => format!("{severity}; repeat {} was itself reported so.", raise.event_id),
        }
    }
}

/// The piece of evidence that names the repeat which changed the severity.
const RAISE_EVIDENCE: &str = "ev_coalesce_raise";
/// The piece of evidence that names the class of what was coalesced: the event's own class says only
/// that it was.
pub const CLASS_EVIDENCE: &str = "ev_coalesced_class";
/// What its raw reference begins with; the class follows.
pub const CLASS_REF: &str = "class:";

fn class_evidence(class: EventClass) -> Evidence {
    Evidence {
        evidence_id: Text::or(CLASS_EVIDENCE, CLASS_EVIDENCE),
        source: EvidenceSource::PolicyEngine,
        raw_ref: Some(format!("{CLASS_REF}{class}")),
        summary: Text::or(format!("Each occurrence was an event of class {class}."), CLASS_REF),
    }
}

/// What a coalesced event says when repetition is all there was.
const UNCHANGED: &str = "No repeat changed its severity or risk.";
const SEVERITY_RAISED: &str = "Severity was raised";
const SEVERITY_STAYS: &str = "Severity stays";

/// The scale on which risks are compared; what is unknown is above none and below all that is known
/// to be a risk.
fn rank(risk: Risk) -> u8 {
    match risk {
        Risk::None => 0,
        Risk::Unknown => 1,
        known => known.rank().unwrap_or(0) + 1,
    }
}

/// First and last occurrence that an event stands for.
fn span(event: &Event) -> (When, When) {
    match &event.noise_control {
        Some(noise) if noise.count > 1 => (noise.first_seen.clone(), noise.last_seen.clone()),
        _ => (event.created_at.clone(), event.created_at.clone()),
    }
}

fn take_samples(samples: &mut Vec<String>, event: &Event, max: usize) {
    let add = |samples: &mut Vec<String>, sample: &str| {
        if samples.len() < max && !samples.iter().any(|known| known == sample) {
            samples.push(sample.to_owned());
        }
    };
    match &event.noise_control {
        Some(noise) if noise.count > 1 && !noise.sample_evidence_refs.is_empty() => {
            for sample in &noise.sample_evidence_refs {
                add(samples, sample);
            }
        }
        _ => add(samples, event.event_id.as_str()),
    }
}

/// The summary without what coalescing added to it before.
fn base_summary(event: &Event) -> &str {
    let summary = event.operator_narrative.summary.as_str();
    let coalesced = event.event_class == EventClass::TelemetryCoalesced;
    let added = || summary.ends_with(')').then(|| summary.rfind(" ("))?;
    match added() {
        Some(at) if coalesced && summary[at..].contains(" occurrences from ") => &summary[..at],
        _ => summary,
    }
}

fn base_why(event: &Event) -> &str {
    let why = event.operator_narrative.why.as_str();
    let added = [UNCHANGED, SEVERITY_RAISED, SEVERITY_STAYS];
    let at = added.iter().filter_map(|text| why.rfind(text)).max();
    match at {
        Some(at) if event.event_class == EventClass::TelemetryCoalesced => why[..at].trim_end(),
        _ => why,
    }
}
