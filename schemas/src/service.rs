//! Service manifests: what a service owns, what it may and must not do, how it reports; and what a
//! manifest must say beyond its shape.

pub mod gates;
pub mod graph;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule};
use crate::event::vocabulary::vocabulary;

/// `schema_version` of a service manifest.
pub const SCHEMA_VERSION: &str = "sourceos.service.v0.1";

/// The capability to show the name of what a product is built on. No product may have it.
pub const UPSTREAM_LEAK: &str = "identity.product.upstream_leak";

/// The capability to send telemetry away without being asked.
pub const REMOTE_TELEMETRY: &str = "telemetry.emit.remote.default";

/// The contract.
pub static SERVICE: Contract = Contract {
    name: "service",
    urn: "urn:srcos:schema:service:v0.1",
    file: "sourceos-service.schema.json",
    schema: include_str!("../sourceos-service.schema.json"),
    discriminator: Discriminator::Member("schema_version", SCHEMA_VERSION),
    profiled: false,
    rules: &[
        Rule {
            name: "service.required-or-denied",
            says: "no capability is both required and denied",
            origin: Origin::Estate,
            check: |service, findings| overlap(service, "required", findings),
        },
        Rule {
            name: "service.optional-or-denied",
            says: "no capability is both optional and denied",
            origin: Origin::Ours,
            check: |service, findings| overlap(service, "optional", findings),
        },
        Rule {
            name: "service.requires-something",
            says: "at least one capability is required",
            origin: Origin::Estate,
            check: |service, findings| {
                let hint = "name what the service cannot do without";
                not_empty(service, "/capabilities/required", hint, findings);
            },
        },
        Rule {
            name: "service.denies-something",
            says: "at least one capability is denied",
            origin: Origin::Ours,
            check: |service, findings| {
                let hint = "name what the service must never be given";
                not_empty(service, "/capabilities/denied", hint, findings);
            },
        },
        Rule {
            name: "service.data-classes",
            says: "the classes of data that the service touches are named",
            origin: Origin::Estate,
            check: |service, findings| {
                not_empty(service, "/data_classes", "name each class of data", findings);
            },
        },
        Rule {
            name: "service.launch-triggers",
            says: "what launches the service is named",
            origin: Origin::Estate,
            check: |service, findings| {
                not_empty(service, "/launch_triggers", "name each trigger", findings);
            },
        },
        Rule {
            name: "service.resource-budget",
            says: "the service has a budget of resources",
            origin: Origin::Estate,
            check: |service, findings| {
                not_empty(service, "/resource_budget", "name at least one limit", findings);
            },
        },
        Rule {
            name: "service.emits-events",
            says: "the service emits canonical events",
            origin: Origin::Estate,
            check: |service, findings| {
                must_be_true(service, "/observability/emits_events", findings)
            },
        },
        Rule {
            name: "service.incident-bundle",
            says: "the service leaves an incident bundle when it fails",
            origin: Origin::Estate,
            check: |service, findings| {
                must_be_true(service, "/observability/incident_bundle", findings);
            },
        },
        Rule {
            name: "service.health-endpoint",
            says: "the health of the service can be asked for",
            origin: Origin::Ours,
            check: health_endpoint,
        },
        Rule {
            name: "service.denies-upstream-leak",
            says: "an app denies itself to show the name of what it is built on",
            origin: Origin::Estate,
            check: |service, findings| app_denies(service, UPSTREAM_LEAK, findings),
        },
        Rule {
            name: "service.denies-remote-telemetry",
            says: "an app denies itself to send telemetry away without being asked",
            origin: Origin::Ours,
            check: |service, findings| app_denies(service, REMOTE_TELEMETRY, findings),
        },
        Rule {
            name: "service.owner",
            says: "somebody answers for the service",
            origin: Origin::Estate,
            check: owner_is_named,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn names<'a>(service: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    let list = service.get("capabilities").and_then(|lists| lists.get(list));
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn overlap(service: &Value, list: &str, findings: &mut Findings) {
    let mut denied: BTreeSet<&str> = names(service, "denied").collect();
    for (place, name) in names(service, list).enumerate() {
        // Each is told once, however often it stands there.
        if denied.remove(name) {
            let path = format!("/capabilities/{list}/{place}");
            findings.add(path, format!("{name} is {list} and denied: take it out of one list"));
        }
    }
}

fn not_empty(service: &Value, path: &str, hint: &str, findings: &mut Findings) {
    let empty = match service.pointer(path) {
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        _ => false,
    };
    if empty {
        findings.add(path, format!("nothing is named here: {hint}"));
    }
}

fn must_be_true(service: &Value, path: &str, findings: &mut Findings) {
    if service.pointer(path) == Some(&Value::Bool(false)) {
        findings.add(path, "a service must do this: make it so, and say true");
    }
}

fn health_endpoint(service: &Value, findings: &mut Findings) {
    let path = "/observability/health_endpoint";
    if let Some(Value::Null) = service.pointer(path) {
        findings.add(path, "the health of the service cannot be asked for: name an endpoint");
    }
    if service.pointer(path).and_then(Value::as_str) == Some("") {
        findings
            .add(path, "the endpoint is empty: name where the service's health can be asked for");
    }
}

fn app_denies(service: &Value, capability: &str, findings: &mut Findings) {
    let is_app = service.get("authority_domain").and_then(Value::as_str) == Some("app");
    if is_app && !names(service, "denied").any(|name| name == capability) {
        let message = format!("an app must not be given {capability}: add it here");
        findings.add("/capabilities/denied", message);
    }
}

fn owner_is_named(service: &Value, findings: &mut Findings) {
    for path in ["/owner/org", "/owner/repo"] {
        if service.pointer(path).and_then(Value::as_str) == Some("") {
            findings.add(path, "nobody answers for this service: name who maintains it");
        }
    }
}

/// What one service owns, may do, must not do, and how it reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceManifest {
    /// Kind of document: [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// Name for programs.
    pub service_id: String,
    /// Name for people.
    pub display_name: String,
    /// What the service is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Owner,
    /// On whose authority it runs.
    pub authority_domain: AuthorityDomain,
    /// How it starts and ends.
    pub lifecycle: Lifecycle,
    /// What it needs, can use, and must never have.
    pub capabilities: Capabilities,
    /// Classes of data that it touches.
    pub data_classes: Vec<String>,
    /// What may cause a launch.
    pub launch_triggers: Vec<String>,
    /// Limits that it keeps to; each member names its unit.
    pub resource_budget: Map<String, Value>,
    /// How it says what it does.
    pub observability: Observability,
    /// What a release must prove; read by [`gates`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_gates: Option<Value>,
    /// Why the service emits no events, where it has a reason; read by [`gates`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_exemption: Option<Value>,
    /// What else the document says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ServiceManifest {
    /// A manifest of a service that emits events, leaves incident bundles, and denies itself what no
    /// product may have. What only its maker knows is empty: a manifest without it does not hold, so
    /// [`crate::contracts::Valid::new`] makes none.
    pub fn new(
        service_id: &str,
        display_name: &str,
        owner: Owner,
        domain: AuthorityDomain,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION.to_owned(),
            service_id: service_id.to_owned(),
            display_name: display_name.to_owned(),
            description: None,
            owner,
            authority_domain: domain,
            lifecycle: Lifecycle {
                start_mode: StartMode::Demand,
                restart_policy: RestartPolicy::OnFailure,
                disable_policy: None,
                extra: Map::new(),
            },
            capabilities: Capabilities {
                denied: vec![UPSTREAM_LEAK.to_owned(), REMOTE_TELEMETRY.to_owned()],
                ..Capabilities::default()
            },
            data_classes: Vec::new(),
            launch_triggers: Vec::new(),
            resource_budget: Map::new(),
            observability: Observability {
                emits_events: true,
                health_endpoint: None,
                incident_bundle: true,
                extra: Map::new(),
            },
            release_gates: None,
            events_exemption: None,
            extra: Map::new(),
        }
    }
}

impl Document for ServiceManifest {
    const CONTRACT: &'static Contract = &SERVICE;
}

/// Who answers for a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    /// Organisation.
    pub org: String,
    /// Repository.
    pub repo: String,
    /// Team within the organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

vocabulary! {
    /// On whose authority a service runs.
    AuthorityDomain {
        /// The system.
        System = "system",
        /// One user.
        User = "user",
        /// One session of a user.
        Session = "session",
        /// A product with a name of its own.
        App = "app",
        /// A container.
        Container = "container",
        /// A sandbox.
        Sandbox = "sandbox",
        /// A layer that stands in for another system.
        Compatibility = "compatibility",
        /// An agent.
        Agent = "agent",
        /// A developer at work.
        Developer = "developer",
    }
}

vocabulary! {
    /// What starts a service.
    StartMode {
        /// The boot.
        Boot = "boot",
        /// The first use.
        Demand = "demand",
        /// A person.
        Manual = "manual",
        /// A point in time.
        Timer = "timer",
        /// A connection to a socket.
        Socket = "socket",
        /// A message.
        Ipc = "ipc",
        /// An agent.
        Agent = "agent",
    }
}

vocabulary! {
    /// When a service is started again.
    RestartPolicy {
        /// Never.
        Never = "never",
        /// After a failure.
        OnFailure = "on_failure",
        /// However it ended.
        Always = "always",
        /// As policy decides.
        Policy = "policy",
    }
}

/// How a service starts, and what happens when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// What starts it.
    pub start_mode: StartMode,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// Who may switch it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_policy: Option<String>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a service needs, can use, and must never have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Without these it does not work.
    pub required: Vec<String>,
    /// These it uses where it is given them.
    pub optional: Vec<String>,
    /// These it must never be given.
    pub denied: Vec<String>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How a service says what it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observability {
    /// Whether it emits canonical events.
    pub emits_events: bool,
    /// Where its health can be asked for.
    pub health_endpoint: Option<String>,
    /// Whether it leaves an incident bundle when it fails.
    pub incident_bundle: bool,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
