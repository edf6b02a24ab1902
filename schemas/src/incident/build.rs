//! A bundle from events: what of a store belongs to one fault, how it hangs together, and what it says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{ExportPolicy, Incident, IncidentClass, IncidentPrivacy, SCHEMA_VERSION};
use crate::canonical;
use crate::contracts::{InvalidDocument, Valid};
use crate::event::vocabulary::{RedactionPolicy, Risk, Tier};
use crate::process::events::failed_end;
use crate::time::Timestamp;

/// Fewest denials of one kind that are a storm, counted with those that were suppressed: what a service
/// manifest of the estate allows in a minute.
pub const STORM_DENIALS_MIN: u64 = 20;

/// Fewest wakes of one cause that are an anomaly even where each was allowed.
pub const WAKES_MIN: u64 = 10;

/// Most events that a bundle lists; it says how many there were. Enough to see how they hang together,
/// few enough to read and to send.
pub const EVENTS_MAX: usize = 200;

/// Most services, rules and causes that a bundle lists of each.
const LISTED_MAX: usize = 100;

/// Longest text that a bundle takes over from an event, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// Why there is no bundle.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BuildError {
    /// No bundle of this class is made of events.
    #[error("an incident of class {0} is not made from events: use {known}", known = known())]
    NotFromEvents(IncidentClass),
    /// No event speaks of such a fault.
    #[error("of {looked_at} events none speaks of an incident of class {class}")]
    NothingFound {
        /// The class asked for.
        class: IncidentClass,
        /// How many events there were.
        looked_at: usize,
    },
    /// The events say something that makes no valid bundle.
    #[error(transparent)]
    Invalid(#[from] InvalidDocument),
}

/// Classes of incident that can be made from events.
pub const FROM_EVENTS: [IncidentClass; 5] = [
    IncidentClass::Crash,
    IncidentClass::DenialStorm,
    IncidentClass::WakeAnomaly,
    IncidentClass::IdentityMismatch,
    IncidentClass::ParserFault,
];

fn known() -> String {
    FROM_EVENTS.map(IncidentClass::as_str).join(", ")
}

/// Makes the bundle of one class from canonical events, in the order in which they were stored.
///
/// The same events always make a bundle of the same id. Nothing in it is allowed to leave the device:
/// that is for a person to decide.
pub fn build(
    class: IncidentClass,
    events: &[Value],
    now: Timestamp,
) -> Result<Valid<Incident>, BuildError> {
    if !FROM_EVENTS.contains(&class) {
        return Err(BuildError::NotFromEvents(class));
    }
    let chosen = select(class, events);
    if chosen.is_empty() {
        return Err(BuildError::NothingFound { class, looked_at: events.len() });
    }
    let ids: BTreeSet<&str> = chosen.iter().map(|event| text(event, "/event_id")).collect();

    let tier = strictest_tier(&chosen);
    let causes = causes(class, &chosen);
    let mut causal_graph = graph(events, &chosen, tier);
    causal_graph.insert("suspected_causes".to_owned(), json!(causes));
    let sealed = tier == Tier::SealedSecret;
    let redaction =
        if sealed { RedactionPolicy::Sealed } else { RedactionPolicy::PreserveCausality };
    Ok(Valid::new(Incident {
        schema_version: SCHEMA_VERSION.to_owned(),
        incident_id: canonical::derived_id(&format!("inc_{class}_"), &json!(ids), 20),
        incident_class: class,
        created_at: now.to_string(),
        summary: summary(class, &chosen),
        risk: risk(&chosen),
        causal_graph,
        affected_services: services(&chosen),
        policy_context: policy(&chosen),
        resource_context: Some(counts(&chosen)),
        privacy: IncidentPrivacy {
            tier: tier.to_string(),
            redaction_policy: redaction.to_string(),
            extra: Map::new(),
        },
        export_policy: ExportPolicy {
            exportable: false,
            requires_approval: true,
            extra: Map::new(),
        },
        extra: Map::new(),
    })?)
}

/// The events that speak of a fault.
fn select(class: IncidentClass, events: &[Value]) -> Vec<&Value> {
    if class == IncidentClass::DenialStorm {
        return largest_storm(events);
    }
    events.iter().filter(|event| speaks_of(class, event)).collect()
}

fn speaks_of(class: IncidentClass, event: &Value) -> bool {
    let (kind, lane) = (text(event, "/event_class"), text(event, "/lane"));
    let bad = is_bad(event);
    match class {
        IncidentClass::Crash => kind == "process.exit" && (bad || failed_end(event).is_some()),
        IncidentClass::WakeAnomaly => {
            let wakes = matches!(kind, "power.wake" | "power.sleep" | "network.keepalive");
            wakes && (bad || occurrences(event) >= WAKES_MIN)
        }
        IncidentClass::IdentityMismatch => {
            let invalid = text(event, "/trust/signature_state") == "invalid";
            kind == "app.identity_mismatch"
                || invalid
                || (matches!(lane, "identity" | "product_identity") && bad)
        }
        IncidentClass::ParserFault => {
            (kind == "parser.worker" || kind == "schema.validation" || lane == "parser") && bad
        }
        _ => false,
    }
}

/// Whether an event tells of something that went wrong, unexpectedly.
fn is_bad(event: &Value) -> bool {
    let outcome = text(event, "/outcome");
    matches!(outcome, "blocked_unexpected" | "blocked_attack_like" | "degraded" | "failed")
        || matches!(text(event, "/severity"), "warning" | "error" | "critical")
}

/// How often what an event tells of happened.
fn occurrences(event: &Value) -> u64 {
    event.pointer("/noise_control/count").and_then(Value::as_u64).unwrap_or(1)
}

/// The denials of the fingerprint that occurred most often, if they are a storm.
fn largest_storm(events: &[Value]) -> Vec<&Value> {
    let mut storms: BTreeMap<[&str; 4], (u64, Vec<&Value>)> = BTreeMap::new();
    for event in events {
        let denied = text(event, "/decision/result") == "deny"
            || text(event, "/outcome").starts_with("blocked_");
        if !denied {
            continue;
        }
        // Who, on what, by which rule: what makes denials one storm, whatever their source called it.
        let key = [
            text(event, "/actor/actor_id"),
            text(event, "/decision/target_class"),
            text(event, "/decision/policy_rule"),
            if event.get("decision").is_some() { "" } else { text(event, "/subject/id") },
        ];
        let storm = storms.entry(key).or_default();
        storm.0 = storm.0.saturating_add(occurrences(event));
        storm.1.push(event);
    }
    let largest = storms.into_values().max_by_key(|(count, _)| *count);
    largest.filter(|(count, _)| *count >= STORM_DENIALS_MIN).map_or_else(Vec::new, |(_, list)| list)
}

/// The chosen events, those that they follow from, and the steps from one to the next.
fn graph(events: &[Value], chosen: &[&Value], tier: Tier) -> Map<String, Value> {
    let by_id: BTreeMap<&str, &Value> =
        events.iter().map(|event| (text(event, "/event_id"), event)).collect();
    let mut listed: BTreeMap<&str, &Value> = BTreeMap::new();
    for event in chosen {
        let mut at = Some(*event);
        // Ends: each step lists an event that was not listed yet.
        while let Some(event) = at {
            let id = text(event, "/event_id");
            if listed.len() >= EVENTS_MAX || listed.insert(id, event).is_some() {
                break;
            }
            let parent = text(event, "/causality/parent_event_id");
            at = by_id.get(parent).copied().filter(|_| !parent.is_empty());
        }
    }
    let edges: Vec<Value> = listed
        .values()
        .filter_map(|event| {
            let parent = text(event, "/causality/parent_event_id");
            (!parent.is_empty()).then(|| json!({"from": parent, "to": text(event, "/event_id")}))
        })
        .collect();
    let rows: Vec<Value> = listed.values().map(|event| row(event, tier)).collect();
    // Holds: a bundle has at least one chosen event.
    let root = chosen.first().map_or("", |event| text(event, "/causality/root_event_id"));
    let roots: BTreeSet<&str> = chosen
        .iter()
        .map(|event| text(event, "/causality/root_event_id"))
        .take(LISTED_MAX)
        .collect();
    let mut graph = Map::new();
    graph.insert("root_event_id".to_owned(), json!(root));
    graph.insert("root_event_ids".to_owned(), json!(roots));
    graph.insert("events".to_owned(), json!(rows));
    graph.insert("events_total".to_owned(), json!(chosen.len()));
    graph.insert("edges".to_owned(), json!(edges));
    graph
}

/// An event in the graph: who, what and how it ended stay; words of a sealed one do not.
fn row(event: &Value, tier: Tier) -> Value {
    let mut row = json!({
        "event_id": text(event, "/event_id"),
        "event_class": text(event, "/event_class"),
        "created_at": text(event, "/created_at"),
        "actor_id": cut(text(event, "/actor/actor_id")),
        "subject_type": text(event, "/subject/type"),
        "outcome": text(event, "/outcome"),
        "count": occurrences(event),
    });
    if tier != Tier::SealedSecret {
        row["summary"] = json!(cut(text(event, "/operator_narrative/summary")));
    }
    row
}

fn causes(class: IncidentClass, chosen: &[&Value]) -> Vec<String> {
    let mut causes = BTreeSet::new();
    for event in chosen {
        let actor = cut(text(event, "/actor/actor_id"));
        causes.insert(match class {
            IncidentClass::Crash => match failed_end(event) {
                Some(how) => format!("{actor} ended by {how}"),
                None => format!("{actor} ended as {}", text(event, "/outcome")),
            },
            IncidentClass::DenialStorm => format!(
                "{actor} asks again and again for {} and rule {} denies it each time",
                cut(text(event, "/decision/target_class")),
                cut(text(event, "/decision/policy_rule")),
            ),
            IncidentClass::WakeAnomaly => format!(
                "{} by {actor} was {}, {} time(s)",
                text(event, "/event_class"),
                text(event, "/outcome"),
                occurrences(event)
            ),
            IncidentClass::IdentityMismatch => format!(
                "{actor} shows an identity that was {} (signature {})",
                text(event, "/outcome"),
                or_unknown(text(event, "/trust/signature_state")),
            ),
            _ => format!("{actor} could not read its input: {}", text(event, "/outcome")),
        });
        if causes.len() >= LISTED_MAX {
            break;
        }
    }
    causes.into_iter().collect()
}

fn summary(class: IncidentClass, chosen: &[&Value]) -> String {
    let times = total(chosen);
    let actors: BTreeSet<&str> =
        chosen.iter().map(|event| text(event, "/actor/actor_id")).collect();
    let who = match (actors.len(), actors.first()) {
        (1, Some(actor)) => cut(actor),
        (count, _) => format!("{count} actors"),
    };
    match class {
        IncidentClass::Crash => format!("{who} ended unexpectedly, {times} time(s)."),
        IncidentClass::DenialStorm => format!("{who} was denied the same thing {times} times."),
        IncidentClass::WakeAnomaly => {
            format!("{who} woke the device without need, {times} time(s).")
        }
        IncidentClass::IdentityMismatch => {
            format!("{who} showed an identity that does not hold, {times} time(s).")
        }
        _ => format!("{who} failed to read what it was given, {times} time(s)."),
    }
}

/// The greatest risk that an event tells of. That something happens often does not raise it.
fn risk(chosen: &[&Value]) -> Risk {
    let told =
        chosen.iter().filter_map(|event| Risk::from_word(text(event, "/operator_narrative/risk")));
    told.filter(|risk| *risk != Risk::Unknown).max().unwrap_or(Risk::Unknown)
}

fn strictest_tier(chosen: &[&Value]) -> Tier {
    // An event that names no tier that is known is for nobody.
    let tier = |event: &&Value| {
        Tier::from_word(text(event, "/privacy/tier")).unwrap_or(Tier::SealedSecret)
    };
    chosen.iter().map(tier).max().unwrap_or(Tier::SealedSecret)
}

fn services(chosen: &[&Value]) -> Vec<String> {
    let mut ids = BTreeSet::new();
    for event in chosen {
        if text(event, "/actor/actor_type") == "service" {
            ids.insert(cut(text(event, "/actor/actor_id")));
        }
        if matches!(text(event, "/subject/type"), "service" | "ipc_service") {
            ids.insert(cut(text(event, "/subject/id")));
        }
    }
    ids.into_iter().take(LISTED_MAX).collect()
}

fn policy(chosen: &[&Value]) -> Map<String, Value> {
    let of = |path: &str| -> Vec<String> {
        let said: BTreeSet<&str> =
            chosen.iter().map(|event| text(event, path)).filter(|said| !said.is_empty()).collect();
        said.into_iter().take(LISTED_MAX).map(cut).collect()
    };
    let members = [
        ("policy_rules", of("/decision/policy_rule")),
        ("explanation_codes", of("/decision/explanation_code")),
        ("operations", of("/decision/operation")),
        ("target_classes", of("/decision/target_class")),
    ];
    members.into_iter().map(|(name, list)| (name.to_owned(), json!(list))).collect()
}

fn counts(chosen: &[&Value]) -> Map<String, Value> {
    let suppressed = chosen
        .iter()
        .filter_map(|event| event.pointer("/noise_control/suppressed_count")?.as_u64())
        .fold(0_u64, u64::saturating_add);
    let seen = |path: &'static str| {
        chosen.iter().map(move |event| {
            let seen = text(event, path);
            if seen.is_empty() { text(event, "/created_at") } else { seen }
        })
    };
    // Compared as moments: the same moment can be written in many zones.
    let moment = |text: &&str| text.parse::<crate::date_time::DateTime>().ok();
    let members = [
        ("occurrences", json!(total(chosen))),
        ("suppressed_occurrences", json!(suppressed)),
        ("first_seen", json!(seen("/noise_control/first_seen").min_by_key(moment))),
        ("last_seen", json!(seen("/noise_control/last_seen").max_by_key(moment))),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn total(chosen: &[&Value]) -> u64 {
    chosen.iter().map(|event| occurrences(event)).fold(0, u64::saturating_add)
}

fn text<'a>(event: &'a Value, path: &str) -> &'a str {
    event.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
