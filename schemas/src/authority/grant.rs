//! Capability grant states: which capabilities a component was granted, and what came of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contract::{Fallback, SpecVersion};
use super::{list, text};
use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};

/// The contract.
pub static CAPABILITY_GRANT_STATE: Contract = Contract {
    name: "capability-grant-state",
    urn: "urn:srcos:schema:capability-grant-state:v0.1",
    file: "CapabilityGrantState.json",
    schema: include_str!("../../CapabilityGrantState.json"),
    discriminator: Discriminator::TypeOrId(
        "CapabilityGrantState",
        "urn:srcos:capability-grant-state:",
    ),
    profiled: true,
    rules: &[
        Rule {
            name: "grant-state.one-answer",
            says: "the same request of the same subject has one answer",
            origin: Origin::Ours,
            check: each_request_has_one_answer,
        },
        Rule {
            name: "grant-state.refusal-explained",
            says: "what is not granted says what was done instead and what a person can do",
            origin: Origin::Ours,
            check: refusals_are_explained,
        },
        Rule {
            name: "grant-state.granted-without-fallback",
            says: "what is granted has no fallback",
            origin: Origin::Ours,
            check: granted_has_no_fallback,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn each_request_has_one_answer(grants: &Value, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, state) in list(grants, "capabilityStates") {
        let Some(capability) = text(state, "capability") else { continue };
        let of = |name| text(state, name).unwrap_or_default();
        if !seen.insert((capability, of("requestedOperation"), of("subjectRef"), of("objectRef"))) {
            let message = format!(
                "{capability:?} is answered twice for the same request: keep the later answer"
            );
            findings.add(format!("/capabilityStates/{index}"), message);
        }
    }
}

fn refusals_are_explained(grants: &Value, findings: &mut Findings) {
    for (index, state) in list(grants, "capabilityStates") {
        let Some("denied" | "unavailable" | "degraded") = text(state, "decision") else { continue };
        for member in ["fallback", "remediationHint"] {
            if text(state, member).is_none_or(str::is_empty) {
                let message =
                    format!("it is not granted in full, and there is no {member}: add it");
                findings.add(format!("/capabilityStates/{index}"), message);
            }
        }
    }
}

fn granted_has_no_fallback(grants: &Value, findings: &mut Findings) {
    for (index, state) in list(grants, "capabilityStates") {
        if text(state, "decision") == Some("granted") && state.get("fallback").is_some() {
            let message = "it is granted, so nothing is done instead: remove it, or say degraded";
            findings.add(format!("/capabilityStates/{index}/fallback"), message);
        }
    }
}

constant_text! {
    /// Says that a document is a capability grant state.
    GrantKind = "CapabilityGrantState"
}

/// A capability grant state, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapabilityGrantState {
    /// Names it: a URN.
    pub id: String,
    /// Kind of document.
    #[serde(rename = "type")]
    pub kind: GrantKind,
    /// Version.
    pub spec_version: SpecVersion,
    /// The capability contract that it is about.
    pub contract_ref: String,
    /// When it was so: an RFC 3339 time.
    pub observed_at: String,
    /// Names the boot of the machine.
    pub boot_id: String,
    /// Names the session of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Names the state of all permissions at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_epoch: Option<String>,
    /// One state for each capability that was asked for.
    pub capability_states: Vec<CapabilityState>,
}

impl Document for CapabilityGrantState {
    const CONTRACT: &'static Contract = &CAPABILITY_GRANT_STATE;
}

/// State of one capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapabilityState {
    /// Which one.
    pub capability: String,
    /// What was to be done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_operation: Option<String>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_ref: Option<String>,
    /// For what it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<String>,
    /// From where the answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_source: Option<GrantSource>,
    /// The answer.
    pub decision: GrantDecision,
    /// The rule that gave the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_rule_ref: Option<String>,
    /// What was done instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// What a person notices of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_impact: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_hint: Option<String>,
}

/// From where an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantSource {
    /// From policy.
    Policy,
    /// A person was asked.
    UserConsent,
    /// From a broker that acts for the component.
    Broker,
    /// The host allows it to all.
    AmbientHost,
    /// From the kernel.
    Kernel,
    /// From a portal.
    Portal,
    /// From the process that started it.
    Inherited,
    /// From nowhere: nobody answered.
    Unavailable,
}

/// An answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantDecision {
    /// Yes.
    Granted,
    /// No.
    Denied,
    /// A person must be asked.
    Ask,
    /// In part.
    Degraded,
    /// It is not there.
    Unavailable,
    /// Not known.
    Unknown,
}
