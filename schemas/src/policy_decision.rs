//! Policy decisions: one answer of a policy engine about one lane and action.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};
use crate::event::model::Text;
use crate::event::vocabulary::vocabulary;
use crate::event::when::When;

/// `schema` of a decision.
const SCHEMA: &str = "sourceos.policy-decision/v1alpha1";

/// The contract. Another record of the estate has the same name in prose and other members; it is a
/// contract of its own and is not read here.
pub static POLICY_DECISION: Contract = Contract {
    name: "policy-decision",
    urn: "urn:srcos:schema:policy-decision:v1alpha1",
    file: "sourceos.policy-decision.v1alpha1.schema.json",
    schema: include_str!("../sourceos.policy-decision.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", SCHEMA),
    profiled: false,
    rules: &[Rule {
        name: "policy-decision.claims-no-effect",
        says: "a decision boundary, where there is one, claims that nothing was done",
        origin: Origin::Estate,
        check: claims_no_effect,
    }],
    compiled: Contract::not_compiled(),
};

/// What a decision boundary may not claim.
const EFFECTS: [&str; 4] = [
    "runtime_effect_performed",
    "authority_mutation_performed",
    "state_repair_performed",
    "ledger_write_performed",
];

fn claims_no_effect(decision: &Value, findings: &mut Findings) {
    for effect in EFFECTS {
        let path = format!("/decision_boundary/{effect}");
        if decision.pointer(&path) == Some(&Value::Bool(true)) {
            findings.add(path, "a decision does nothing by itself: say false, and record the effect where it is done");
        }
    }
}

constant_text! {
    /// The contract's name; no other is read.
    PolicyDecisionSchema = SCHEMA
}

vocabulary! {
    /// What was asked of a policy engine.
    PolicyAction {
        Index = "index",
        Retain = "retain",
        Replicate = "replicate",
        AgentAccess = "agent_access",
        RepairPreview = "repair_preview",
        PurgePreview = "purge_preview",
        Read = "read",
        Write = "write",
    }
}

vocabulary! {
    /// What a policy engine answered.
    PolicyStatus {
        Allowed = "allowed",
        Denied = "denied",
        Redacted = "redacted",
        Deferred = "deferred",
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDecision {
    /// The contract.
    pub schema: PolicyDecisionSchema,
    /// Its name.
    pub decision_id: Text,
    /// When it was decided.
    pub generated_at: When,
    /// Which engine decided.
    pub engine: Text,
    /// What was asked for.
    pub action: PolicyAction,
    /// In which lane.
    pub lane: Text,
    /// The answer.
    pub status: PolicyStatus,
    /// Token of the rule that decided.
    pub reason: Text,
    /// Who asked.
    pub subject: Text,
    /// Class of the data.
    pub data_class: Text,
    /// The one object that it is about.
    #[serde(default)]
    pub object_id: Option<String>,
    /// Says that nothing was done yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_boundary: Option<DecisionBoundary>,
}

impl Document for PolicyDecision {
    const CONTRACT: &'static Contract = &POLICY_DECISION;
}

/// Says that a decision is only a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionBoundary {
    /// Always the same.
    pub decision_scope: DecisionScope,
    /// Whether something was done at run time.
    pub runtime_effect_performed: bool,
    /// Whether anybody's authority was changed.
    pub authority_mutation_performed: bool,
    /// Whether state was repaired.
    pub state_repair_performed: bool,
    /// Whether a ledger was written.
    pub ledger_write_performed: bool,
    /// What acts on the decision later.
    pub downstream_refs: Vec<String>,
}

constant_text! {
    /// What a decision reaches: itself.
    DecisionScope = "policy-only"
}

impl Default for DecisionBoundary {
    /// Nothing was done, and nobody waits for it.
    fn default() -> Self {
        Self {
            decision_scope: DecisionScope,
            runtime_effect_performed: false,
            authority_mutation_performed: false,
            state_repair_performed: false,
            ledger_write_performed: false,
            downstream_refs: Vec::new(),
        }
    }
}
