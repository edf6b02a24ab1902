//! The canonical events of a process: that it was launched and, where that was observed, that it ended.

use serde_json::{Value, json};

use super::{Exit, ProcessProvenance};
use crate::event::vocabulary::SignatureState;

/// What stands for the host in these events: the record does not say on which device it was made.
const HOST_ID: &str = "host_local_pseudonym";

/// The launch of a process, and its end where that was observed, as canonical events of version 0.1.
///
/// `created_at` is an RFC 3339 time. The events say what was observed and judge nothing: that a process
/// ended by a signal or came from a doubtful place raises neither severity nor outcome.
pub fn events(tuple: &ProcessProvenance, created_at: &str) -> Vec<Value> {
    let mut list = vec![exec(tuple, created_at)];
    if let Some(exit) = tuple.process_identity.exit.as_ref().filter(|exit| exit.observed) {
        list.push(end(tuple, exit, created_at));
    }
    list
}

fn exec(tuple: &ProcessProvenance, created_at: &str) -> Value {
    let causality = &tuple.causality;
    let shown = &tuple.executable_identity.display_path;
    let evidence = json!([{
        "evidence_id": "ev_process_provenance_process_exec",
        "source": "process-monitor",
        "raw_ref": "process-provenance-tuple",
        "summary": format!("The provenance of {shown} was recorded at its launch."),
    }]);
    let causality = json!({
        "root_event_id": causality.root_event_id,
        "parent_event_id": causality.parent_event_id,
        "trace_id": causality.trace_id,
        "span_id": causality.span_id,
    });
    let narrative = [
        format!("{shown} was launched."),
        format!(
            "Launched by {} ({}), from a {} path.",
            spaced(tuple.process_identity.parent_command_class.as_str()),
            spaced(tuple.process_identity.launch_reason.as_str()),
            spaced(tuple.executable_identity.path_class.as_str()),
        ),
        "Nothing has to be done.".to_owned(),
    ];
    let id = tuple.causality.root_event_id.to_string();
    event(tuple, id, "process.exec", created_at, causality, evidence, narrative)
}

fn end(tuple: &ProcessProvenance, exit: &Exit, created_at: &str) -> Value {
    let root = &tuple.causality.root_event_id;
    let shown = &tuple.executable_identity.display_path;
    let evidence = json!([
        {
            "evidence_id": "ev_process_provenance_process_exit",
            "source": "process-monitor",
            "raw_ref": "process-provenance-tuple",
            "summary": format!("The provenance of {shown} was recorded at its end."),
        },
        {
            "evidence_id": "ev_process_exit_status",
            "source": "process-monitor",
            "raw_ref": "process-provenance-tuple.exit",
            "summary": exit_summary(exit),
        },
    ]);
    let causality = json!({
        "root_event_id": root,
        "parent_event_id": root,
        "trace_id": tuple.causality.trace_id,
        "span_id": format!("{}_exit", tuple.causality.span_id),
    });
    let how = match (&exit.signal, &exit.exit_code) {
        (Some(signal), _) => format!("by signal {signal}"),
        (None, Some(code)) => format!("with exit code {code}"),
        (None, None) => "in a way that was not recorded".to_owned(),
    };
    let narrative = [
        format!("{shown} ended {how}."),
        exit.termination_reason.as_ref().map_or_else(
            || "No reason was recorded.".to_owned(),
            |reason| format!("The recorded reason is {reason}."),
        ),
        "Nothing has to be done, unless it should still run.".to_owned(),
    ];
    event(tuple, format!("{root}_exit"), "process.exit", created_at, causality, evidence, narrative)
}

fn event(
    tuple: &ProcessProvenance,
    event_id: String,
    class: &str,
    created_at: &str,
    causality: Value,
    evidence: Value,
    [summary, why, next_action]: [String; 3],
) -> Value {
    let (process, file) = (&tuple.process_identity, &tuple.executable_identity);
    let pid = process.pid.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let attested = file.signature_state == SignatureState::Valid;
    let refs: Vec<&Value> =
        evidence.as_array().into_iter().flatten().map(|item| &item["evidence_id"]).collect();
    json!({
        "schema_version": "sourceos.event.v0.1",
        "event_id": event_id,
        "event_class": class,
        "lane": "process_lifecycle",
        "severity": "info",
        "outcome": "allowed",
        "created_at": created_at,
        "host": {
            "host_id": HOST_ID,
            "platform": "sourceos",
            "kernel": "unknown",
            "privacy_zone": tuple.privacy.tier,
        },
        "actor": {
            "actor_id": format!("actor_process_{pid}"),
            "actor_type": "process",
            "display_name": file.display_path,
            "uid": process.uid_class,
            "session_id": null,
            "authority_domain": process.environment_class,
        },
        "causality": causality,
        "subject": {
            "type": "process",
            "id": format!("proc_{pid}"),
            "display": file.display_path,
        },
        "trust": {
            "mode": file.trust_mode,
            "signature_state": file.signature_state,
            "package_origin": file.package_origin,
            "content_hash": file.content_hash,
            "attestation_state": if attested { "verified" } else { "missing" },
            "network_lookup": file.network_lookup,
            "degradation_reason": null,
        },
        "privacy": tuple.privacy,
        "operator_narrative": {
            "summary": summary,
            "risk": "low",
            "why": why,
            "next_action": next_action,
            "drilldown_refs": refs,
        },
        "evidence": evidence,
        "sync": {
            "replication_policy": "local_only",
            "retention_class": "standard",
            "exportable": false,
        },
    })
}

/// How a process ended, as members of one text: the envelope has no place of its own for them.
fn exit_summary(exit: &Exit) -> String {
    let number = |number: &Option<serde_json::Number>| {
        number.as_ref().map_or_else(|| "null".to_owned(), ToString::to_string)
    };
    format!(
        "observed={} exit_code={} signal={} runtime_ms={} termination_reason={}",
        exit.observed,
        number(&exit.exit_code),
        exit.signal.as_deref().unwrap_or("null"),
        number(&exit.runtime_ms),
        exit.termination_reason.as_deref().unwrap_or("null"),
    )
}

/// What an event of a process's end says of it: a signal or an exit code other than zero, as evidence
/// has it in its text.
pub(crate) fn failed_end(event: &Value) -> Option<String> {
    let evidence = event.get("evidence")?.as_array()?;
    let status = evidence.iter().find(|item| item["evidence_id"] == "ev_process_exit_status")?;
    let said = |name: &str| {
        let words = status["summary"].as_str()?.split([' ', ',', ';']);
        words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name)
    };
    let known =
        |(_, value): (&str, &str)| (value != "null" && value != "None").then(|| value.to_owned());
    if let Some(signal) = said("signal").and_then(known) {
        return Some(format!("signal {signal}"));
    }
    let code = said("exit_code").and_then(known)?;
    (code != "0").then(|| format!("exit code {code}"))
}

fn spaced(word: &str) -> String {
    word.replace('_', " ")
}
