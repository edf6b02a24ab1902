//! A control plane as a whole: whether its services, capabilities, launches and incidents speak of each
//! other.
//!
//! Each document is judged by its contract beforehand; here is what only shows when they lie side by
//! side.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::capability::CapabilityDefinition;
use crate::contracts::{Finding, Origin};
use crate::identity::{Manifest, audit};
use crate::incident::Incident;
use crate::service::{AuthorityDomain, ServiceManifest};

/// The documents of a control plane, each with the name of its file.
#[derive(Debug, Default)]
pub struct ControlPlane {
    /// Service manifests.
    pub services: Vec<(String, ServiceManifest)>,
    /// The same as they are written, for the identity audit.
    pub service_documents: BTreeMap<String, Value>,
    /// Capability definitions.
    pub capabilities: Vec<(String, CapabilityDefinition)>,
    /// Launch manifests, as they are written.
    pub launches: Vec<(String, Value)>,
    /// Incident bundles.
    pub incidents: Vec<(String, Incident)>,
}

/// Something that does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// The file in which it shows.
    pub file: String,
    /// Where in it, by which rule, and how to mend it.
    #[serde(flatten)]
    pub finding: Finding,
    /// Who else has the rule: what only this project has is a warning.
    #[serde(skip)]
    pub origin: Origin,
}

/// What does not fit together.
pub fn misfits(plane: &ControlPlane) -> Vec<Misfit> {
    let mut found = Vec::new();
    ids_are_used_once(plane, &mut found);
    capabilities_are_defined(plane, &mut found);
    apps_launch_under_their_name(plane, &mut found);
    incidents_touch_known_services(plane, &mut found);
    found
}

fn add(found: &mut Vec<Misfit>, file: &str, rule: &'static str, path: &str, message: &str) {
    let finding = Finding::new(rule, path, message);
    found.push(Misfit { file: file.to_owned(), finding, origin: Origin::Ours });
}

fn ids_are_used_once(plane: &ControlPlane, found: &mut Vec<Misfit>) {
    let mut services = BTreeMap::new();
    for (file, service) in &plane.services {
        if let Some(first) = services.insert(&service.service_id, file) {
            let message = format!("{first} has this id too: give each service its own");
            add(found, file, "control-plane.service-once", "/service_id", &message);
        }
    }
    let mut capabilities = BTreeMap::new();
    for (file, definition) in &plane.capabilities {
        if let Some(first) = capabilities.insert(&definition.capability, file) {
            let message = format!("{first} defines this too: define each capability once");
            add(found, file, "control-plane.capability-once", "/capability", &message);
        }
    }
}

fn capabilities_are_defined(plane: &ControlPlane, found: &mut Vec<Misfit>) {
    // A plane that defines none has its definitions elsewhere.
    if plane.capabilities.is_empty() {
        return;
    }
    let defined: BTreeMap<&str, &CapabilityDefinition> = plane
        .capabilities
        .iter()
        .map(|(_, definition)| (definition.capability.as_str(), definition))
        .collect();
    for (file, service) in &plane.services {
        let lists = [
            ("required", &service.capabilities.required),
            ("optional", &service.capabilities.optional),
        ];
        for (list, names) in lists {
            for (place, name) in names.iter().enumerate() {
                let path = format!("/capabilities/{list}/{place}");
                let Some(definition) = defined.get(name.as_str()) else {
                    let message = format!("{name} is defined nowhere here: add its definition");
                    add(found, file, "control-plane.capability-defined", &path, &message);
                    continue;
                };
                let domains = definition.compatible_authority_domains.as_ref();
                let domain = service.authority_domain;
                if domains.is_some_and(|all| all.iter().all(|known| known != domain.as_str())) {
                    let message = format!(
                        "{name} is not for services of the domain {domain}: ask for another"
                    );
                    add(found, file, "control-plane.capability-fits-domain", &path, &message);
                }
            }
        }
    }
}

fn apps_launch_under_their_name(plane: &ControlPlane, found: &mut Vec<Misfit>) {
    if plane.launches.is_empty() {
        return;
    }
    let named =
        |launch: &Value| launch.get("display_name").and_then(Value::as_str).map(str::to_owned);
    let mut paired = BTreeSet::new();
    for (file, service) in &plane.services {
        if service.authority_domain != AuthorityDomain::App {
            continue;
        }
        let name = Some(service.display_name.clone());
        let launches = || plane.launches.iter().filter(|(_, launch)| named(launch) == name);
        if launches().next().is_none() {
            let message = "no launch manifest here has this app's name: add one";
            add(found, file, "control-plane.app-has-launch", "/display_name", message);
        }
        let Some(document) = plane.service_documents.get(file) else { continue };
        for (launch_file, launch) in launches() {
            paired.insert(launch_file);
            for error in audit(document, launch).errors {
                let file = match error.manifest {
                    Manifest::Service => file,
                    Manifest::Launch => launch_file,
                };
                // The estate audits pairs too, so this makes the plane invalid.
                found.push(Misfit {
                    file: file.clone(),
                    finding: error.finding,
                    origin: Origin::Estate,
                });
            }
        }
    }
    for (file, _) in &plane.launches {
        if !paired.contains(file) {
            let message = "no app here has this name: add its service manifest";
            add(found, file, "control-plane.launch-has-app", "/display_name", message);
        }
    }
}

fn incidents_touch_known_services(plane: &ControlPlane, found: &mut Vec<Misfit>) {
    if plane.services.is_empty() {
        return;
    }
    let known: BTreeSet<&str> =
        plane.services.iter().map(|(_, service)| service.service_id.as_str()).collect();
    for (file, incident) in &plane.incidents {
        for (place, service) in incident.affected_services.iter().enumerate() {
            if !known.contains(service.as_str()) {
                let path = format!("/affected_services/{place}");
                let message =
                    format!("{service} is no service of this control plane: check the id");
                add(found, file, "control-plane.incident-service", &path, &message);
            }
        }
    }
}
