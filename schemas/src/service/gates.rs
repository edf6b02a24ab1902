//! The ten gates that a service must pass before it is released. What a manifest does not say counts
//! as not fulfilled.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::{AuthorityDomain, REMOTE_TELEMETRY, ServiceManifest};

/// Faults for which a service must be able to leave an incident bundle.
pub const FAULT_CLASSES: [&str; 5] =
    ["crashes", "denial-storms", "wake-anomalies", "identity-mismatches", "parser-faults"];

/// One gate and whether the manifest passes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// Number of the gate, from 1.
    pub number: usize,
    /// Name of the gate.
    pub name: &'static str,
    /// Whether the manifest passes.
    pub pass: bool,
    /// JSON pointer to what the gate looks at.
    pub path: &'static str,
    /// What the gate demands.
    pub demands: &'static str,
    /// What is missing; nothing where the gate is passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The ten gates, in their order.
pub fn gates(service: &ServiceManifest) -> Vec<Gate> {
    let member = |name: &str| service.release_gates.as_ref().and_then(|gates| gates.get(name));
    let is_true = |name: &str| member(name) == Some(&Value::Bool(true));
    let says = |name: &str| member(name).is_some_and(says_something);
    let unless = |holds: bool, missing: &str| (!holds).then(|| missing.to_owned());
    let capabilities = &service.capabilities;
    let is_app = service.authority_domain == AuthorityDomain::App;
    let exempt = service.events_exemption.as_ref().is_some_and(says_something);

    let list = [
        (
            "manifest",
            "/schema_version",
            "a manifest that names its version",
            unless(!service.schema_version.is_empty(), "schema_version is empty"),
        ),
        (
            "events",
            "/observability/emits_events",
            "canonical events, or a recorded exemption",
            unless(
                service.observability.emits_events || exempt,
                "emits_events is not true and events_exemption says nothing",
            ),
        ),
        (
            "capabilities",
            "/capabilities",
            "capabilities that are required, optional and denied",
            match (capabilities.required.is_empty(), capabilities.denied.is_empty()) {
                (false, false) => None,
                (true, _) => Some("no capability is required".to_owned()),
                (false, true) => Some("no capability is denied".to_owned()),
            },
        ),
        (
            "hermetic-launch",
            "/release_gates/hermetic_launch_manifest",
            "for an app, a hermetic launch manifest",
            unless(
                !is_app || says("hermetic_launch_manifest"),
                "an app names no hermetic_launch_manifest",
            ),
        ),
        (
            "incident-bundle",
            "/release_gates/incident_fault_classes",
            "an incident bundle for each class of fault",
            bundle_missing(service.observability.incident_bundle, member("incident_fault_classes")),
        ),
        (
            "remote-trust",
            "/release_gates/no_silent_remote_trust",
            "no trust check that asks the network silently",
            unless(is_true("no_silent_remote_trust"), "no_silent_remote_trust is not true"),
        ),
        (
            "remote-telemetry",
            "/capabilities/denied",
            "remote telemetry denied by default",
            unless(
                capabilities.denied.iter().any(|name| name == REMOTE_TELEMETRY),
                "capabilities.denied lacks telemetry.emit.remote.default",
            ),
        ),
        (
            "coalescing",
            "/release_gates/coalesces_expected_denials",
            "expected denials that are told once and counted",
            unless(is_true("coalesces_expected_denials"), "coalesces_expected_denials is not true"),
        ),
        (
            "privacy",
            "/release_gates/privacy_causal_structure",
            "redaction that keeps who, what, which rule and how it ended",
            unless(is_true("privacy_causal_structure"), "privacy_causal_structure is not true"),
        ),
        (
            "metric",
            "/release_gates/delivery_excellence_metric",
            "a metric by which delivery is judged",
            unless(says("delivery_excellence_metric"), "no delivery_excellence_metric is named"),
        ),
    ];
    list.into_iter()
        .enumerate()
        .map(|(place, (name, path, demands, missing))| {
            let pass = missing.is_none();
            Gate { number: place + 1, name, pass, path, demands, missing }
        })
        .collect()
}

fn bundle_missing(incident_bundle: bool, classes: Option<&Value>) -> Option<String> {
    if !incident_bundle {
        return Some("observability.incident_bundle is not true".to_owned());
    }
    let classes = classes.and_then(Value::as_array).into_iter().flatten();
    let named: BTreeSet<&str> = classes.filter_map(Value::as_str).collect();
    let lacks: Vec<&str> =
        FAULT_CLASSES.into_iter().filter(|fault| !named.contains(fault)).collect();
    (!lacks.is_empty()).then(|| format!("incident_fault_classes lacks {}", lacks.join(", ")))
}

/// Whether a member says something: it is not null, false, zero or empty.
pub(crate) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(said) => *said,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}
