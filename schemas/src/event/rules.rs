//! The contracts of the event and of its legacy form, with the rules that their schemas cannot say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::model::{EVENT_V0_1, Event};
use super::vocabulary::{Outcome, Severity};
use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule};
use crate::date_time::DateTime;
use crate::explanation;

/// The strict event. It is meant where a document names the contract that both forms share.
pub static EVENT: Contract = Contract {
    name: "event",
    urn: "urn:srcos:schema:event:v0.1",
    file: "sourceos.event.v0.1.schema.json",
    schema: include_str!("../../sourceos.event.v0.1.schema.json"),
    discriminator: Discriminator::Member("schema_version", EVENT_V0_1),
    profiled: false,
    rules: &[
        Rule {
            name: "event.expected-denial-is-quiet",
            says: "an event with outcome blocked_expected is no louder than notice",
            origin: Origin::Estate,
            check: expected_denial_is_quiet,
        },
        Rule {
            name: "event.decision-agrees",
            says: "the decision's semantic_outcome is the event's outcome",
            origin: Origin::Ours,
            check: decision_agrees,
        },
        Rule {
            name: "event.explanation-known",
            says: "the explanation code is in the registry",
            origin: Origin::Ours,
            check: explanation_is_known,
        },
        Rule {
            name: "event.explanation-agrees",
            says: "result and outcome of the decision are those of its explanation code",
            origin: Origin::Ours,
            check: explanation_agrees,
        },
        Rule {
            name: "event.noise-counts",
            says: "no more occurrences were suppressed than there were",
            origin: Origin::Ours,
            check: noise_counts,
        },
        Rule {
            name: "event.noise-times",
            says: "the last occurrence is not before the first",
            origin: Origin::Ours,
            check: noise_times,
        },
        Rule {
            name: "event.root-stable",
            says: "an event without a parent is the root of its chain, and none is its own parent",
            origin: Origin::Ours,
            check: root_is_stable,
        },
        Rule {
            name: "event.evidence-ids",
            says: "evidence ids are unique, and the narrative's references are among them",
            origin: Origin::Ours,
            check: evidence_ids,
        },
        Rule {
            name: "event.no-silent-lookup",
            says: "where trust is judged on the host only, the network was not asked",
            origin: Origin::Ours,
            check: no_silent_lookup,
        },
        Rule {
            name: "event.sealed-stays",
            says: "what is sealed is not exportable and is copied nowhere",
            origin: Origin::Ours,
            check: sealed_stays,
        },
    ],
    compiled: Contract::not_compiled(),
};

/// The wider form that older programs write.
pub static EVENT_LEGACY: Contract = Contract {
    name: "event-legacy",
    urn: "urn:srcos:schema:event-legacy:v0.1",
    file: "sourceos-event.schema.json",
    schema: include_str!("../../sourceos-event.schema.json"),
    discriminator: Discriminator::Member("schema_version", EVENT_V0_1),
    profiled: false,
    rules: &[
        Rule {
            name: "event-legacy.expected-denial-is-quiet",
            says: "an event with outcome blocked_expected is no louder than notice",
            origin: Origin::Estate,
            check: expected_denial_is_quiet,
        },
        Rule {
            name: "event-legacy.says-something",
            says: "root event, trace and the texts of the narrative are not empty",
            origin: Origin::Estate,
            check: says_something,
        },
        Rule {
            name: "event-legacy.noise-counts",
            says: "no more occurrences were suppressed than there were",
            origin: Origin::Ours,
            check: noise_counts,
        },
        Rule {
            name: "event-legacy.noise-times",
            says: "the last occurrence is not before the first",
            origin: Origin::Ours,
            check: noise_times,
        },
    ],
    compiled: Contract::not_compiled(),
};

impl Document for Event {
    const CONTRACT: &'static Contract = &EVENT;
}

impl Document for super::legacy::LegacyEvent {
    const CONTRACT: &'static Contract = &EVENT_LEGACY;
}

fn text<'a>(document: &'a Value, path: &str) -> Option<&'a str> {
    document.pointer(path).and_then(Value::as_str)
}

fn expected_denial_is_quiet(event: &Value, findings: &mut Findings) {
    let outcome = text(event, "/outcome").and_then(Outcome::from_word);
    let severity = text(event, "/severity").and_then(Severity::from_word);
    if let (Some(outcome), Some(severity)) = (outcome, severity)
        && severity > outcome.severity_max()
    {
        let message = format!(
            "{severity} is too loud for {outcome}: what was expected alarms nobody; use {} or less, \
             or another outcome if it was not expected",
            outcome.severity_max()
        );
        findings.add("/severity", message);
    }
}

fn decision_agrees(event: &Value, findings: &mut Findings) {
    if let (Some(outcome), Some(decided)) =
        (text(event, "/outcome"), text(event, "/decision/semantic_outcome"))
        && outcome != decided
    {
        let message =
            format!("{decided:?} differs from the event's outcome {outcome:?}: make them one");
        findings.add("/decision/semantic_outcome", message);
    }
}

fn explanation_is_known(event: &Value, findings: &mut Findings) {
    if let Some(code) = text(event, "/decision/explanation_code")
        && explanation::find(code).is_none()
    {
        let message = format!("{code:?} is in no registry: add it there, or use a code that is");
        findings.add("/decision/explanation_code", message);
    }
}

fn explanation_agrees(event: &Value, findings: &mut Findings) {
    let code = text(event, "/decision/explanation_code");
    let Some(known) = code.and_then(explanation::find) else { return };
    let held = [
        ("/decision/result", known.result.as_str()),
        ("/decision/semantic_outcome", known.semantic_outcome.as_str()),
    ];
    for (path, wanted) in held {
        if let Some(found) = text(event, path)
            && found != wanted
        {
            let message = format!(
                "{found:?} is not what {} means: say {wanted:?}, or use another code",
                known.code
            );
            findings.add(path, message);
        }
    }
}

fn noise_counts(event: &Value, findings: &mut Findings) {
    let wide = findings.wide();
    let number = |path: &str| wide.integer(event, path);
    if let (Some(count), Some(suppressed)) =
        (number("/noise_control/count"), number("/noise_control/suppressed_count"))
        && suppressed > count
    {
        let message =
            format!("{suppressed} of {count} cannot have been suppressed: mend either number");
        findings.add("/noise_control/suppressed_count", message);
    }
}

fn noise_times(event: &Value, findings: &mut Findings) {
    let time = |path: &str| text(event, path).and_then(|text| text.parse::<DateTime>().ok());
    if let (Some(first), Some(last)) =
        (time("/noise_control/first_seen"), time("/noise_control/last_seen"))
        && last < first
    {
        findings.add("/noise_control/last_seen", "it is before first_seen: mend either time");
    }
}

fn root_is_stable(event: &Value, findings: &mut Findings) {
    let Some(id) = text(event, "/event_id") else { return };
    let parent = text(event, "/causality/parent_event_id").filter(|parent| !parent.is_empty());
    if parent == Some(id) {
        findings.add(
            "/causality/parent_event_id",
            "an event does not cause itself: name another, or null",
        );
    }
    if let Some(root) = text(event, "/causality/root_event_id")
        && parent.is_none()
        && root != id
    {
        let message = "the event has no parent, so it is the root itself: name its own id, or the parent that it has";
        findings.add("/causality/root_event_id", message);
    }
}

fn evidence_ids(event: &Value, findings: &mut Findings) {
    let items = event.get("evidence").and_then(Value::as_array);
    let mut known = BTreeSet::new();
    for (index, item) in items.into_iter().flatten().enumerate() {
        let Some(id) = text(item, "/evidence_id") else { continue };
        if !known.insert(id) {
            findings.add(format!("/evidence/{index}/evidence_id"), "this id is taken: use another");
        }
        if findings.is_full() {
            return;
        }
    }
    let refs = event.pointer("/operator_narrative/drilldown_refs").and_then(Value::as_array);
    for (index, reference) in refs.into_iter().flatten().enumerate() {
        if let Some(id) = reference.as_str()
            && !known.contains(id)
        {
            let message =
                format!("no evidence has the id {id:?}: add it, or take the reference away");
            findings.add(format!("/operator_narrative/drilldown_refs/{index}"), message);
        }
        if findings.is_full() {
            return;
        }
    }
}

fn no_silent_lookup(event: &Value, findings: &mut Findings) {
    let asked = text(event, "/trust/network_lookup");
    if text(event, "/trust/mode") == Some("local_only")
        && matches!(asked, Some("allowed" | "failed" | "succeeded"))
    {
        let message = "the network was asked although trust is judged on the host only: say so in the mode, \
             or not_attempted";
        findings.add("/trust/network_lookup", message);
    }
}

fn sealed_stays(event: &Value, findings: &mut Findings) {
    if text(event, "/privacy/tier") != Some("sealed_secret") {
        return;
    }
    if event.pointer("/sync/exportable") == Some(&Value::Bool(true)) {
        findings.add("/sync/exportable", "a sealed event must not be exportable: say false");
    }
    if let Some(policy) = text(event, "/sync/replication_policy")
        && policy != "local_only"
    {
        findings
            .add("/sync/replication_policy", "a sealed event stays where it is: say local_only");
    }
}

fn says_something(event: &Value, findings: &mut Findings) {
    for path in [
        "/causality/root_event_id",
        "/causality/trace_id",
        "/operator_narrative/summary",
        "/operator_narrative/why",
        "/operator_narrative/next_action",
    ] {
        if text(event, path) == Some("") {
            findings.add(path, "it is empty: say what it is");
        }
    }
}
