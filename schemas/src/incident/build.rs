//! A bundle from events: what of a store belongs to one fault, how it hangs together, and what it says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{ExportPolicy, Incident, IncidentClass, IncidentPrivacy, SCHEMA_VERSION};
use crate::canonical;
use crate::contracts::{InvalidDocument, Valid};
use crate::date_time::DateTime;
use crate::event::coalesce::{CLASS_EVIDENCE, CLASS_REF};
use crate::event::vocabulary::{RedactionPolicy, Risk, Tier};
use crate::event::when::When;
use crate::json::Wide;
use crate::process::events::failed_end;
use crate::time::Timestamp;

/// Fewest denials of one kind within [`WINDOW_MS`] that are a storm, counted with those that were
/// suppressed: what a service manifest of the estate allows in a minute.
pub const STORM_DENIALS_MIN: u64 = 20;

/// Fewest wakes of one cause within [`WINDOW_MS`] that are an anomaly even where each was allowed.
pub const WAKES_MIN: u64 = 10;

/// How long denials or wakes may be apart, the first from the last, to be counted together, in
/// milliseconds: an hour. A night in which something wakes the device every six minutes is in it, and
/// what comes up once a day is not.
pub const WINDOW_MS: i64 = 3_600_000;

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
        let denials = events.iter().filter(|event| is_denial(event));
        let storms = crowds(denials, STORM_DENIALS_MIN).into_iter();
        return storms.max_by_key(|(count, _)| *count).map_or_else(Vec::new, |(_, storm)| storm);
    }
    if class == IncidentClass::WakeAnomaly {
        let crowds = crowds(events.iter().filter(|event| is_wake(event)), WAKES_MIN);
        let often: BTreeSet<*const Value> =
            crowds.into_iter().flat_map(|(_, crowd)| crowd).map(std::ptr::from_ref).collect();
        let chosen = |event: &&Value| {
            is_wake(event) && (is_bad(event) || often.contains(&std::ptr::from_ref(*event)))
        };
        return events.iter().filter(chosen).collect();
    }
    events.iter().filter(|event| speaks_of(class, event)).collect()
}

fn is_wake(event: &Value) -> bool {
    matches!(class_of(event), "power.wake" | "power.sleep" | "network.keepalive")
}

fn is_denial(event: &Value) -> bool {
    text(event, "/decision/result") == "deny" || text(event, "/outcome").starts_with("blocked_")
}

/// The class of an event; of a coalesced one, that of what was coalesced.
fn class_of(event: &Value) -> &str {
    let class = text(event, "/event_class");
    if class != "telemetry.coalesced" {
        return class;
    }
    let evidence = event.get("evidence").and_then(Value::as_array).into_iter().flatten();
    let said = |item: &&Value| text(item, "/evidence_id") == CLASS_EVIDENCE;
    let raw = evidence.filter(said).find_map(|item| item.get("raw_ref")?.as_str());
    raw.and_then(|raw| raw.strip_prefix(CLASS_REF)).unwrap_or(class)
}

fn speaks_of(class: IncidentClass, event: &Value) -> bool {
    let (kind, lane) = (class_of(event), text(event, "/lane"));
    let bad = is_bad(event);
    match class {
        IncidentClass::Crash => kind == "process.exit" && (bad || failed_end(event).is_some()),
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
    count(event, "/noise_control/count").unwrap_or(1).max(1)
}

/// A count, also where it is written `120.0`.
fn count(event: &Value, path: &str) -> Option<u64> {
    Wide::default().integer(event, path)?.as_u64()
}

/// What makes events one crowd: where, who, on what, by which rule, whatever their source called it.
type Key<'a> = [&'a str; 6];

fn key(event: &Value) -> Key<'_> {
    [
        text(event, "/host/host_id"),
        text(event, "/actor/actor_id"),
        if is_denial(event) { "" } else { class_of(event) },
        text(event, "/decision/target_class"),
        text(event, "/decision/policy_rule"),
        if event.get("decision").is_some() { "" } else { text(event, "/subject/id") },
    ]
}

/// Events of one key, of which at least so many occurrences lie within [`WINDOW_MS`], with the
/// occurrences in all.
fn crowds<'a>(events: impl Iterator<Item = &'a Value>, min: u64) -> Vec<(u64, Vec<&'a Value>)> {
    let mut by_key: BTreeMap<Key<'a>, Vec<(i64, u64, &Value)>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for event in events {
        let (at, weight) = weight(event);
        by_key.entry(key(event)).or_default().push((at, weight, event));
        ids.insert(text(event, "/event_id"));
    }
    let mut crowds = Vec::new();
    for mut list in by_key.into_values() {
        // Where what was coalesced is here too, it is not counted twice.
        let coalesced = |event: &Value| {
            text(event, "/event_class") == "telemetry.coalesced"
                && ids.contains(text(event, "/causality/parent_event_id"))
        };
        if list.iter().any(|(.., event)| !coalesced(event)) {
            let sum = |of: bool| -> u64 {
                let chosen = list.iter().filter(|(.., event)| coalesced(event) == of);
                chosen.map(|(_, weight, _)| *weight).fold(0, u64::saturating_add)
            };
            let fewer = sum(true) < sum(false);
            list.retain(|(.., event)| coalesced(event) != fewer);
        }
        list.sort_by_key(|(at, ..)| *at);
        let (mut first, mut within, mut taken) = (0, 0_u64, 0);
        let (mut total, mut crowd) = (0_u64, Vec::new());
        for (index, (at, weight, _)) in list.iter().enumerate() {
            within = within.saturating_add(*weight);
            while at.saturating_sub(list[first].0) >= WINDOW_MS {
                within = within.saturating_sub(list[first].1);
                first += 1;
            }
            if within >= min {
                for (.., event) in &list[first.max(taken)..=index] {
                    total = total.saturating_add(occurrences(event));
                    crowd.push(*event);
                }
                taken = index + 1;
            }
        }
        if !crowd.is_empty() {
            crowds.push((total, crowd));
        }
    }
    crowds
}

/// When the first occurrence of an event was, in milliseconds, and how many of them lie in one window:
/// of those that are spread over more than one, its share.
fn weight(event: &Value) -> (i64, u64) {
    let moment = |path: &str| When::parse(text(event, path)).ok().map(|when| when.millis());
    let at = moment("/created_at").unwrap_or(0);
    let count = occurrences(event);
    let (Some(first), Some(last)) =
        (moment("/noise_control/first_seen"), moment("/noise_control/last_seen"))
    else {
        return (at, count);
    };
    if count == 1 {
        return (at, count);
    }
    let spread = u128::from(last.saturating_sub(first).max(0).unsigned_abs());
    let window = u128::from(WINDOW_MS.unsigned_abs());
    if spread < window {
        return (first, count);
    }
    // Holds: a share of a number of 64 bits is one too.
    let share = u64::try_from(u128::from(count) * window / spread).unwrap_or(count);
    (first, share.max(1))
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
                class_of(event),
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
        .filter_map(|event| count(event, "/noise_control/suppressed_count"))
        .fold(0_u64, u64::saturating_add);
    let seen = |path: &'static str| {
        chosen.iter().map(move |event| {
            let seen = text(event, path);
            if seen.is_empty() { text(event, "/created_at") } else { seen }
        })
    };
    // Compared as moments: the same moment can be written in many zones.
    let moment = |text: &&str| text.parse::<DateTime>().ok();
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
