//! What a network state or a registry record says, told apart: two faults that look alike to a person,
//! and need different things done, have different names here.

use serde::Serialize;
use serde_json::Value;

use crate::authority::network::{NetworkTruth, Reachability};

/// A fault, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Which it is.
    pub code: &'static str,
    /// Whether something is wrong.
    pub is_fault: bool,
    /// What it is, in words.
    pub what: String,
    /// What to do.
    pub hint: String,
}

fn told(code: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Told {
    Told { code, is_fault: true, what: what.into(), hint: hint.into() }
}

fn fine(code: &'static str, what: &str) -> Vec<Told> {
    let hint = "Nothing has to be done.".to_owned();
    vec![Told { code, is_fault: false, what: what.to_owned(), hint }]
}

/// What is wrong with a network, from a network truth state in either profile: the lowest layer that is
/// known to be broken, since nothing above it can work.
pub fn network(state: &Value) -> Vec<Told> {
    let mut state = state.clone();
    if let Some(members) = state.as_object_mut() {
        // What the proposal's profile does not ask for.
        members.entry("type").or_insert_with(|| "NetworkTruthState".into());
        members.entry("specVersion").or_insert_with(|| "v0.1".into());
    }
    let Ok(state) = serde_json::from_value::<NetworkTruth>(state) else {
        return vec![told("unknown", "This is no network truth state.", "Have it made again.")];
    };
    let Some(code) = state.fault() else {
        return match state.internet_reachability {
            Reachability::Reachable => {
                fine("online", "Nothing is wrong on any layer that was looked at.")
            }
            Reachability::Degraded => vec![told(
                "internet-degraded",
                "The internet is reached, but badly.",
                "Put off large transfers.",
            )],
            _ => vec![told(
                "unknown",
                "No layer is known to be broken, and whether the internet is reached is not known.",
                "Have it looked at again.",
            )],
        };
    };
    let (what, hint) = match code {
        "radio-off" => ("The radio is off.", "Switch it on."),
        "not-associated" => ("The radio is on, and no network is joined.", "Join a network."),
        "no-address" => (
            "A network is joined, and has given no address.",
            "Join it again, or give an address by hand.",
        ),
        "no-route" => (
            "The radio is on, and no route leads out.",
            "Look at the gateway and at conflicting routes.",
        ),
        "captive-portal" => {
            ("The network wants a person to log in first.", "Open its page and log in.")
        }
        "no-dns" => ("There is a route, and names are not resolved.", "Set another name server."),
        "mesh-only" => (
            "Devices nearby are reached, and the internet is not.",
            "Go on with what needs nearby devices only.",
        ),
        _ => (
            "Route and names are there, and the internet is not reached.",
            "Ask who provides the network.",
        ),
    };
    vec![told(code, what, hint)]
}

/// What is wrong with the registries of a component, from a runtime registry integrity record in either
/// profile.
pub fn registry(record: &Value) -> Vec<Told> {
    let mut list: Vec<Told> = Vec::new();
    for entry in items(record, "registryRecords") {
        list.extend(registry_entry(text(entry, "recordKind"), entry));
    }
    // The proposal's profile has a member for each kind, and no shape for what lies in the lists.
    if let Some(state) = record.get("receiptState").and_then(Value::as_str) {
        list.extend(registry_fault("receipt", state, "the component", ""));
    }
    for (member, kind) in
        [("extensionRecords", "extension-record"), ("brokerRecords", "broker-record")]
    {
        for entry in items(record, member) {
            list.extend(registry_entry(kind, entry));
        }
    }
    let verdict = text(record, "verificationVerdict");
    match (list.is_empty(), verdict) {
        (true, "valid") => fine("valid", "Every record is present and valid."),
        (true, verdict) => vec![told(
            "unexplained-verdict",
            format!("The verdict is {verdict}, and no record says why."),
            "Have the registries looked at again.",
        )],
        (false, "valid") => {
            list.push(told(
                "verdict-contradicts-records",
                "The verdict is valid, and the records say otherwise.",
                "Trust the records, and have the verdict made again.",
            ));
            list
        }
        (false, _) => list,
    }
}

fn registry_entry(kind: &str, entry: &Value) -> Option<Told> {
    let name = match (entry.as_str(), text(entry, "recordRef")) {
        (Some(name), _) => name,
        (None, "") => "(unnamed)",
        (None, name) => name,
    };
    registry_fault(kind, text(entry, "state"), name, text(entry, "remediationHint"))
}

fn registry_fault(kind: &str, state: &str, name: &str, said: &str) -> Option<Told> {
    let (code, what, hint) = match (kind, state) {
        (_, "present" | "valid" | "") => return None,
        ("receipt", "missing") => (
            "missing-receipt",
            format!("There is no record that {name} was installed."),
            "Install it again from where it came.",
        ),
        ("package-manifest", "invalid") => (
            "invalid-manifest",
            format!("The manifest {name} does not hold."),
            "Do not start it; install it again.",
        ),
        ("extension-record" | "extension-point", "missing") => (
            "missing-extension-record",
            format!("The extension {name} is not registered."),
            "Register it again before it is looked for.",
        ),
        ("extension-record" | "extension-point", "quarantined") => (
            "quarantined-plugin",
            format!("The plugin {name} was put in quarantine."),
            "Leave it there until it is known why.",
        ),
        (kind, state) => (
            "registry-fault",
            format!("The {kind} {name} is {state}."),
            "Have this registry looked at, and mended.",
        ),
    };
    Some(told(code, what, if said.is_empty() { hint } else { said }))
}

fn text<'a>(document: &'a Value, member: &str) -> &'a str {
    document.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(document: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    document.get(member).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn codes(list: &[Told]) -> Vec<&'static str> {
        list.iter().map(|told| told.code).collect()
    }

    #[test]
    fn networks_that_fail_on_different_layers_are_told_apart() {
        let whole = json!({
            "id": "urn:srcos:network-truth:a", "observedAt": "2026-05-04T10:20:30Z",
            "networkEpoch": "1", "radioState": "on", "associationState": "associated",
            "dhcpState": "leased", "dnsState": "configured", "routeState": "route-present",
            "internetReachability": "reachable", "localMeshReachability": "unreachable",
        });
        let check = |changes: &[(&str, &str)], expected: &str| {
            let mut state = whole.clone();
            for (member, word) in changes {
                state[*member] = json!(word);
            }
            let list = network(&state);
            assert_eq!(codes(&list), [expected], "{changes:?}");
            assert_eq!(list[0].is_fault, expected != "online");
            assert!(!list[0].what.is_empty() && !list[0].hint.is_empty());
        };
        let cut = ("internetReachability", "unreachable");
        check(&[], "online");
        check(&[cut, ("radioState", "off")], "radio-off");
        check(&[cut, ("associationState", "not-associated")], "not-associated");
        check(&[cut, ("routeState", "no-route")], "no-route");
        check(&[cut, ("dnsState", "failed")], "no-dns");
        check(&[cut], "no-internet");
        check(&[cut, ("localMeshReachability", "reachable")], "mesh-only");
        check(&[("internetReachability", "degraded")], "internet-degraded");
        check(&[("internetReachability", "unknown")], "unknown");
    }

    #[test]
    fn registries_that_fail_in_different_ways_are_told_apart() {
        let check = |kind: &str, state: &str, expected: &str| {
            let record = json!({
                "verificationVerdict": "degraded",
                "registryRecords": [
                    {"recordKind": "launch-record", "state": "present"},
                    {"recordKind": kind, "recordRef": "x", "state": state},
                ],
            });
            assert_eq!(codes(&registry(&record)), [expected], "{kind} {state}");
        };
        check("receipt", "missing", "missing-receipt");
        check("package-manifest", "invalid", "invalid-manifest");
        check("extension-record", "missing", "missing-extension-record");
        check("extension-record", "quarantined", "quarantined-plugin");
        check("namespace-descriptor", "stale", "registry-fault");
        let proposal = json!({
            "verificationVerdict": "missing", "receiptState": "missing",
            "extensionRecords": [{"recordRef": "y", "state": "quarantined"}], "brokerRecords": [],
        });
        assert_eq!(codes(&registry(&proposal)), ["missing-receipt", "quarantined-plugin"]);
    }

    #[test]
    fn a_verdict_that_its_records_do_not_bear_out_is_named() {
        let valid = json!({"verificationVerdict": "valid", "registryRecords": []});
        assert_eq!(codes(&registry(&valid)), ["valid"]);
        let bare = json!({"verificationVerdict": "quarantined"});
        assert_eq!(codes(&registry(&bare)), ["unexplained-verdict"]);
        let both = json!({"verificationVerdict": "valid", "receiptState": "missing"});
        assert_eq!(codes(&registry(&both)), ["missing-receipt", "verdict-contradicts-records"]);
    }
}
