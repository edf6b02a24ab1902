//! Makes events that cannot be invalid: the parts check their own form, and [`EventBuilder::build`]
//! the conditions between them.

use super::model::{
    Actor, Causality, Decision, Event, EventId, EventSchema, Evidence, Host, Narrative,
    NoiseControl, Privacy, Subject, Sync, Text, Trust,
};
use super::vocabulary::{EventClass, EventLane, Outcome, RedactionPolicy, Severity, Tier};
use super::when::When;

/// Why no event can be made of the given parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The class needs a block that was not given.
    #[error("an event of class {class} needs a {block} block; give one")]
    MissingBlock {
        /// The event's class.
        class: EventClass,
        /// The block.
        block: &'static str,
    },
    /// An expected denial would be told too loudly.
    #[error(
        "an event with outcome {outcome} may be no louder than {max}, not {severity}: what was \
         expected alarms nobody"
    )]
    TooLoud {
        /// The event's outcome.
        outcome: Outcome,
        /// The severity asked for.
        severity: Severity,
        /// The loudest that is right.
        max: Severity,
    },
    /// The decision block contradicts the event.
    #[error("the decision says {decision}, the event {event}; they must agree")]
    OutcomesDiffer {
        /// Outcome in the decision.
        decision: Outcome,
        /// Outcome of the event.
        event: Outcome,
    },
    /// The noise block contradicts itself.
    #[error("the noise block {0}")]
    Noise(&'static str),
}

/// What every event must have.
#[derive(Debug, Clone)]
pub struct Essentials {
    /// Its name.
    pub event_id: EventId,
    /// When it happened.
    pub created_at: When,
    /// What sort of happening.
    pub class: EventClass,
    /// Its subject area.
    pub lane: EventLane,
    /// How it ended.
    pub outcome: Outcome,
    /// Where.
    pub host: Host,
    /// Who.
    pub actor: Actor,
    /// To what.
    pub subject: Subject,
    /// What it means, in words.
    pub narrative: Narrative,
}

/// An event in the making.
#[derive(Debug, Clone)]
pub struct EventBuilder {
    event: Event,
}

impl EventBuilder {
    /// An event with what it must have. The rest begins as: severity by outcome, its own root, no
    /// parent, private to the user, kept on the host.
    pub fn new(of: Essentials) -> Self {
        let id = of.event_id.as_str();
        let causality = Causality {
            parent_event_id: None,
            root_event_id: of.event_id.clone(),
            trace_id: Text::or(id.replacen("evt_", "trace_", 1), "trace"),
            span_id: Text::or(id.replacen("evt_", "span_", 1), "span"),
        };
        let privacy = Privacy {
            tier: Tier::UserPrivate,
            redaction_policy: RedactionPolicy::PreserveCausality,
            secret_fields: Vec::new(),
        };
        let event = Event {
            schema_version: EventSchema,
            event_id: of.event_id,
            event_class: of.class,
            lane: of.lane,
            severity: of.outcome.severity(),
            outcome: of.outcome,
            created_at: of.created_at,
            observed_at_monotonic_ns: None,
            host: of.host,
            actor: of.actor,
            causality,
            subject: of.subject,
            decision: None,
            trust: None,
            noise_control: None,
            privacy,
            evidence: Vec::new(),
            operator_narrative: of.narrative,
            sync: Sync::default(),
        };
        Self { event }
    }

    /// Tells it this loudly.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.event.severity = severity;
        self
    }

    /// Reading of the host's monotonic clock, in nanoseconds.
    #[must_use]
    pub fn monotonic_ns(mut self, nanoseconds: u64) -> Self {
        self.event.observed_at_monotonic_ns = Some(nanoseconds);
        self
    }

    /// What led to it.
    #[must_use]
    pub fn causality(mut self, causality: Causality) -> Self {
        self.event.causality = causality;
        self
    }

    /// What policy decided.
    #[must_use]
    pub fn decision(mut self, decision: Decision) -> Self {
        self.event.decision = Some(decision);
        self
    }

    /// Where code came from.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.event.trust = Some(trust);
        self
    }

    /// How many occurrences it stands for.
    #[must_use]
    pub fn noise(mut self, noise: NoiseControl) -> Self {
        self.event.noise_control = Some(noise);
        self
    }

    /// Who may read it.
    #[must_use]
    pub fn privacy(mut self, privacy: Privacy) -> Self {
        self.event.privacy = privacy;
        self
    }

    /// What it rests on.
    #[must_use]
    pub fn evidence(mut self, evidence: Vec<Evidence>) -> Self {
        self.event.evidence = evidence;
        self
    }

    /// Where it may travel.
    #[must_use]
    pub fn sync(mut self, sync: Sync) -> Self {
        self.event.sync = sync;
        self
    }

    /// The event, if its parts agree.
    pub fn build(self) -> Result<Event, BuildError> {
        let event = self.event;
        if let Some(block) = event.missing_block() {
            return Err(BuildError::MissingBlock { class: event.event_class, block });
        }
        let (severity, outcome) = (event.severity, event.outcome);
        let max = outcome.severity_max();
        if severity > max {
            return Err(BuildError::TooLoud { outcome, severity, max });
        }
        if let Some(decision) = &event.decision
            && decision.semantic_outcome != outcome
        {
            let decision = decision.semantic_outcome;
            return Err(BuildError::OutcomesDiffer { decision, event: outcome });
        }
        if let Some(noise) = &event.noise_control {
            if noise.last_seen.millis() < noise.first_seen.millis() {
                return Err(BuildError::Noise("ends before it begins"));
            }
            if noise.count < noise.suppressed_count {
                return Err(BuildError::Noise("suppressed more than there were"));
            }
            if noise.count == 0 || noise.coalesce_window_ms == 0 {
                return Err(BuildError::Noise("counts nothing, or in no window"));
            }
        }
        Ok(event)
    }
}
