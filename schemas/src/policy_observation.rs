//! Policy observations: what an enforcement point saw, and the policy-decision event that it becomes.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};
use crate::event::build::{BuildError, Essentials, EventBuilder};
use crate::event::model::{
    Actor, BadText, Causality, Decision, Event, EventId, Evidence, ExplanationCode, Host,
    Narrative, NoiseControl, Privacy, Subject, Text, Trust, is_event_id,
};
use crate::event::vocabulary::{
    DecisionResult, EventClass, EventLane, EvidenceSource, Outcome, RedactionPolicy, Risk,
    Severity, Tier,
};
use crate::event::when::When;
use crate::explanation::{self, Explanation, ExplanationRegistry, contradictions};

/// `schema_version` of an observation.
const SCHEMA_VERSION: &str = "sourceos.policy-observation.v0.1";

/// The contract.
pub static POLICY_OBSERVATION: Contract = Contract {
    name: "policy-observation",
    urn: "urn:srcos:schema:policy-observation:v0.1",
    file: "sourceos.policy-observation.v0.1.schema.json",
    schema: include_str!("../sourceos.policy-observation.v0.1.schema.json"),
    discriminator: Discriminator::Member("schema_version", SCHEMA_VERSION),
    profiled: false,
    rules: &[
        Rule {
            name: "policy-observation.code-known",
            says: "the explanation code is in the registry",
            origin: Origin::Estate,
            check: code_is_known,
        },
        Rule {
            name: "policy-observation.code-agrees",
            says: "result, outcome, severity, risk, operation and target class are those of the code",
            origin: Origin::Estate,
            check: code_agrees,
        },
        Rule {
            name: "policy-observation.id-names-an-event",
            says: "the observation's id has only characters that an event's id may have",
            origin: Origin::Ours,
            check: id_names_an_event,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn code(observation: &Value) -> Option<&str> {
    observation.get("explanation_code").and_then(Value::as_str)
}

fn code_is_known(observation: &Value, findings: &mut Findings) {
    if let Some(code) = code(observation)
        && explanation::find(code).is_none()
    {
        let message = format!("{code:?} is in no registry: add it there, or use a code that is");
        findings.add("/explanation_code", message);
    }
}

fn code_agrees(observation: &Value, findings: &mut Findings) {
    let Some(known) = code(observation).and_then(explanation::find) else { return };
    for (path, message) in contradictions(observation, known) {
        findings.add(path, message);
    }
}

fn id_names_an_event(observation: &Value, findings: &mut Findings) {
    if let Some(id) = observation.get("observation_id").and_then(Value::as_str)
        && !is_event_id(&event_id_text(id))
    {
        let message =
            "no event can be named after it: use letters, digits, '.', '_', ':' and '-' only";
        findings.add("/observation_id", message);
    }
}

constant_text! {
    /// The contract's name; no other is read.
    ObservationSchema = SCHEMA_VERSION
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyObservation {
    /// The contract.
    pub schema_version: ObservationSchema,
    /// Its name.
    pub observation_id: Text,
    /// What it means.
    pub explanation_code: ExplanationCode,
    /// Set of rules in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_bundle: Option<Text>,
    /// Rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_rule: Option<Text>,
    /// Who.
    pub actor: Actor,
    /// To what.
    pub subject: Subject,
    /// What was asked for.
    pub operation: Text,
    /// Class of the thing it was asked for.
    pub target_class: Text,
    /// The answer.
    pub result: DecisionResult,
    /// Whether it was to be expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantic_outcome: Option<Outcome>,
    /// How loudly to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// How much harm it may mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// What happened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What to do now.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next_action: String,
    /// What led to it, as far as known.
    #[serde(default)]
    pub causality: ObservedCausality,
    /// Who may read it.
    #[serde(default)]
    pub privacy: ObservedPrivacy,
    /// What it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<ObservedEvidence>,
}

impl Document for PolicyObservation {
    const CONTRACT: &'static Contract = &POLICY_OBSERVATION;
}

/// What led to an observation, as far as known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedCausality {
    /// The event that directly caused it.
    #[serde(default, deserialize_with = "crate::event::model::optional_id")]
    pub parent_event_id: Option<EventId>,
    /// First event of the chain.
    #[serde(default, deserialize_with = "crate::event::model::optional_id")]
    pub root_event_id: Option<EventId>,
    /// Groups the events of one activity.
    #[serde(default, deserialize_with = "some_text")]
    pub trace_id: Option<Text>,
    /// Names the step within the trace.
    #[serde(default, deserialize_with = "some_text")]
    pub span_id: Option<Text>,
}

/// Reads text, null, or empty text, which means null.
fn some_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Text>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.and_then(|text| Text::new(text).ok()))
}

/// Who may read an observation, as far as said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedPrivacy {
    /// Least clearance for the whole of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What redaction must preserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction_policy: Option<RedactionPolicy>,
    /// Names of what is held back.
    #[serde(default)]
    pub secret_fields: Vec<String>,
}

/// One thing seen; its source is in the words of who saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedEvidence {
    /// Its name.
    pub evidence_id: Text,
    /// Where it comes from.
    pub source: Text,
    /// Where the raw record lies.
    #[serde(default)]
    pub raw_ref: Option<String>,
    /// In one sentence.
    pub summary: Text,
}

/// Why an observation cannot become an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NormalizeError {
    /// Its code is in no registry.
    #[error("{0:?} is not in the registry: add it there, or use a code that is")]
    UnknownCode(String),
    /// It contradicts its code.
    #[error("{}: {message}", path.trim_start_matches('/'))]
    Contradiction {
        /// Where, as a JSON pointer.
        path: &'static str,
        /// What is wrong.
        message: String,
    },
    /// No event can be named after it.
    #[error("no event can be named after the observation: {0}")]
    Name(#[from] BadText),
    /// Its parts do not make an event.
    #[error(transparent)]
    Build(#[from] BuildError),
}

fn event_id_text(observation_id: &str) -> String {
    if observation_id.starts_with("evt_") {
        observation_id.to_owned()
    } else {
        format!("evt_{observation_id}")
    }
}

/// The policy-decision event of an observation. `span` names the step where the observation does
/// not, and `at` is when it was made.
pub fn normalize(
    observation: PolicyObservation,
    registry: &ExplanationRegistry,
    at: When,
    span: &Text,
) -> Result<Event, NormalizeError> {
    let code = observation.explanation_code.as_str();
    let known = registry.find(code).ok_or_else(|| NormalizeError::UnknownCode(code.to_owned()))?;
    // A document of ours is writable; what is not would only be checked less.
    let value = serde_json::to_value(&observation).unwrap_or_default();
    let mut found = contradictions(&value, known).into_iter();
    if let Some((path, mut message)) = found.next() {
        for (path, more) in found {
            message.push_str(&format!("; {path}: {more}"));
        }
        return Err(NormalizeError::Contradiction { path, message });
    }
    let event_id = EventId::new(event_id_text(observation.observation_id.as_str()))?;
    let tier = observation.privacy.tier.unwrap_or(Tier::UserPrivate);
    let evidence = evidence(&observation);
    let narrative = narrative(&observation, known, &evidence);
    let id = observation.observation_id;
    let outcome = observation.semantic_outcome.unwrap_or(known.semantic_outcome);
    let named = |prefix: &str| Text::or(format!("{prefix}{id}"), prefix);
    let decision = Decision {
        decision_id: named("dec_"),
        policy_bundle: observation
            .policy_bundle
            .unwrap_or_else(|| Text::or("", "sourceos.baseline")),
        policy_rule: observation.policy_rule.unwrap_or_else(|| {
            Text::or(format!("sourceos.policy.{}", code.to_ascii_lowercase()), code)
        }),
        operation: observation.operation.clone(),
        target_class: observation.target_class.clone(),
        result: observation.result,
        semantic_outcome: outcome,
        explanation_code: observation.explanation_code.clone(),
    };
    let fingerprint = format!(
        "fp_{}_{}_{}",
        code.to_ascii_lowercase(),
        observation.operation,
        observation.target_class
    );
    let causality = Causality {
        parent_event_id: observation.causality.parent_event_id,
        root_event_id: observation.causality.root_event_id.unwrap_or_else(|| event_id.clone()),
        trace_id: observation.causality.trace_id.unwrap_or_else(|| named("trace_")),
        span_id: observation.causality.span_id.unwrap_or_else(|| span.clone()),
    };
    let host = Host {
        host_id: Text::or("", "host_local_pseudonym"),
        platform: Text::or("", "sourceos"),
        kernel: Some("unknown".to_owned()),
        privacy_zone: tier,
    };
    let essentials = Essentials {
        event_id,
        created_at: at.clone(),
        class: EventClass::PolicyDecision,
        lane: EventLane::Policy,
        outcome,
        host,
        actor: observation.actor,
        subject: observation.subject,
        narrative,
    };
    let event = EventBuilder::new(essentials)
        .severity(observation.severity.unwrap_or(known.severity))
        .monotonic_ns(0)
        .causality(causality)
        .decision(decision)
        .trust(Trust::not_applicable())
        .noise(NoiseControl::single(Text::or(fingerprint, "fp"), &at))
        .privacy(Privacy {
            tier,
            redaction_policy: observation
                .privacy
                .redaction_policy
                .unwrap_or(RedactionPolicy::PreserveCausality),
            secret_fields: observation.privacy.secret_fields,
        })
        .evidence(evidence)
        .build()?;
    Ok(event)
}

fn evidence(observation: &PolicyObservation) -> Vec<Evidence> {
    if observation.evidence.is_empty() {
        let id = &observation.observation_id;
        return vec![Evidence {
            evidence_id: Text::or(format!("ev_{id}"), "ev"),
            source: EvidenceSource::PolicyEngine,
            raw_ref: Some(id.to_string()),
            summary: Text::or("", "The observation of the policy engine itself."),
        }];
    }
    let items = observation.evidence.iter().map(|item| Evidence {
        evidence_id: item.evidence_id.clone(),
        source: EvidenceSource::from_word(item.source.as_str()).unwrap_or(EvidenceSource::RawLog),
        raw_ref: item.raw_ref.clone(),
        summary: item.summary.clone(),
    });
    items.collect()
}

fn narrative(
    observation: &PolicyObservation,
    known: &Explanation,
    evidence: &[Evidence],
) -> Narrative {
    Narrative {
        summary: Text::or(observation.summary.as_str(), known.default_summary.as_str()),
        risk: observation.risk.unwrap_or(known.risk),
        why: Text::or(observation.why.as_str(), known.default_why.as_str()),
        next_action: Text::or(observation.next_action.as_str(), known.default_next_action.as_str()),
        drilldown_refs: evidence.iter().map(|item| item.evidence_id.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests;
