//! An incident in words: what happened, why, whom it touches, what to do, and whether it may leave.

use serde::Serialize;
use serde_json::Value;

use super::{Incident, IncidentClass};
use crate::event::vocabulary::Risk;

/// Most causes that an explanation lists: the bundle has them all.
const CAUSES_MAX: usize = 20;

/// An incident in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Names the incident.
    pub incident_id: String,
    /// What sort of incident it is.
    pub incident_class: IncidentClass,
    /// What happened.
    pub summary: String,
    /// How much harm is to be feared.
    pub risk: Risk,
    /// What is thought to have caused it.
    pub why: Vec<String>,
    /// Services that it touches.
    pub affected_services: Vec<String>,
    /// What to do next.
    pub next_action: String,
    /// Who may see it, and whether it may leave the device.
    pub sharing: String,
    /// Where to look further: the event with which it began.
    pub root_event_id: Option<String>,
}

/// Explains an incident.
pub fn explain(incident: &Incident) -> Explanation {
    let causes = incident.causal_graph.get("suspected_causes").and_then(Value::as_array);
    let mut why: Vec<String> = causes
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .take(CAUSES_MAX)
        .map(str::to_owned)
        .collect();
    if why.is_empty() {
        why.push("No cause was recorded; the root event is the place to look.".to_owned());
    }
    let root = incident.causal_graph.get("root_event_id").and_then(Value::as_str);
    Explanation {
        incident_id: incident.incident_id.clone(),
        incident_class: incident.incident_class,
        summary: incident.summary.clone(),
        risk: incident.risk,
        why,
        affected_services: incident.affected_services.clone(),
        next_action: next_action(incident.incident_class).to_owned(),
        sharing: sharing(incident),
        root_event_id: root.filter(|root| !root.is_empty()).map(str::to_owned),
    }
}

fn next_action(class: IncidentClass) -> &'static str {
    match class {
        IncidentClass::Crash => {
            "See whether it was started again, and read its last events before the end."
        }
        IncidentClass::Hang => "End it if it holds up others, and read what it waited for.",
        IncidentClass::DenialStorm => {
            "Leave the denial as it is; make the component stop asking, or give it the capability."
        }
        IncidentClass::WakeAnomaly => {
            "Find what asked for the wake, and deny it or move it to when the device is awake."
        }
        IncidentClass::Repair => "Check that what the repair promised holds.",
        IncidentClass::IdentityMismatch => {
            "Do not release or trust it until the identity audit of its manifests passes."
        }
        IncidentClass::ParserFault => {
            "Keep the input aside, do not open it again, and read it in a sandbox only."
        }
        IncidentClass::TelemetryPolicy => {
            "Stop what was sending, and look at what has left already."
        }
        IncidentClass::SecuritySuspicion => {
            "Change nothing yet, keep the evidence, and ask who is responsible for security."
        }
    }
}

fn sharing(incident: &Incident) -> String {
    let policy = &incident.export_policy;
    let leaves = match (policy.exportable, policy.requires_approval) {
        (false, _) => "it must not leave this device",
        (true, true) => "it may leave this device when a person approves",
        (true, false) => "it may leave this device",
    };
    format!("For {}; {leaves}.", incident.privacy.tier)
}

impl Explanation {
    /// In words, one thing a line.
    pub fn text(&self) -> String {
        let services = match self.affected_services.as_slice() {
            [] => "none named".to_owned(),
            names => names.join(", "),
        };
        let mut text = format!("{} ({})\n\n", self.summary, self.incident_class);
        text.push_str(&format!("Risk: {}\n", self.risk));
        for cause in &self.why {
            text.push_str(&format!("Why: {cause}\n"));
        }
        text.push_str(&format!("Services: {services}\n"));
        text.push_str(&format!("Next action: {}\n", self.next_action));
        text.push_str(&format!("Sharing: {}\n", self.sharing));
        if let Some(root) = &self.root_event_id {
            text.push_str(&format!("Began with: {root}\n"));
        }
        text
    }
}
