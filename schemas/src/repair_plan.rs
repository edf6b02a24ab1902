//! Repair plans: what a repair would do, before anybody does it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};

/// The contract.
pub static REPAIR_PLAN: Contract = Contract {
    name: "repair-plan",
    urn: "urn:srcos:schema:repair-plan:v1alpha1",
    file: "sourceos.repair-plan.v1alpha1.schema.json",
    schema: include_str!("../sourceos.repair-plan.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", SCHEMA),
    profiled: false,
    rules: &[
        Rule {
            name: "repair-plan.step-order",
            says: "steps are numbered 1, 2, 3 and so on, in the order in which they stand",
            origin: Origin::Estate,
            check: steps_are_in_order,
        },
        Rule {
            name: "repair-plan.preview-is-harmless",
            says: "a preview holds no destructive step",
            origin: Origin::Estate,
            check: preview_is_harmless,
        },
        Rule {
            name: "repair-plan.destructive-steps-declared",
            says: "the policy says that destructive steps are present exactly when one is",
            origin: Origin::Ours,
            check: destructive_steps_are_declared,
        },
    ],
    compiled: Contract::not_compiled(),
};

const SCHEMA: &str = "sourceos.repair-plan/v1alpha1";

fn steps(plan: &Value) -> impl Iterator<Item = (usize, &Value)> {
    plan.get("steps").and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn is_destructive(step: &Value) -> bool {
    step.get("destructive") == Some(&Value::Bool(true))
}

fn steps_are_in_order(plan: &Value, findings: &mut Findings) {
    for (index, step) in steps(plan) {
        let Some(order) = step.get("order").filter(|order| order.is_number()) else { continue };
        if order.as_f64() != Some((index + 1) as f64) {
            let message = format!(
                "order is {order} at place {0}: number the steps 1, 2, 3 and so on; here {0}",
                index + 1
            );
            findings.add(format!("/steps/{index}/order"), message);
        }
    }
}

fn preview_is_harmless(plan: &Value, findings: &mut Findings) {
    if plan.get("status").and_then(Value::as_str) != Some("preview") {
        return;
    }
    for (index, _) in steps(plan).filter(|(_, step)| is_destructive(step)) {
        let message =
            "a preview must not hold a destructive step: move it to blocked_steps with a reason";
        findings.add(format!("/steps/{index}/destructive"), message);
    }
}

fn destructive_steps_are_declared(plan: &Value, findings: &mut Findings) {
    let present = steps(plan).any(|(_, step)| is_destructive(step));
    let path = "/policy/destructive_actions_present";
    if let Some(Value::Bool(declared)) = plan.pointer(path)
        && *declared != present
    {
        let message =
            format!("it says {declared}, but of the steps this is {present}: say {present}");
        findings.add(path, message);
    }
}

/// A plan, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepairPlan {
    /// Contract and version.
    pub schema: PlanSchema,
    /// When the plan was made: an RFC 3339 time.
    pub generated_at: String,
    /// The report from which it was derived.
    pub source_report: SourceReport,
    /// Names the plan.
    pub plan_id: String,
    /// How far it has come.
    pub status: PlanStatus,
    /// How grave the state is that it mends.
    pub severity: PlanSeverity,
    /// The plan in a sentence.
    pub summary: String,
    /// Which permissions it needs.
    pub policy: PlanPolicy,
    /// What must hold before the first step.
    pub preconditions: Vec<Precondition>,
    /// What is put aside before the first step.
    pub checkpoint: Checkpoint,
    /// What is done, in order.
    pub steps: Vec<PlanStep>,
    /// What was considered and is not done.
    pub blocked_steps: Vec<BlockedStep>,
    /// How the steps are undone.
    pub rollback: Rollback,
    /// What must hold after the last step.
    pub postconditions: Vec<String>,
}

impl Document for RepairPlan {
    const CONTRACT: &'static Contract = &REPAIR_PLAN;
}

constant_text! {
    /// Contract and version of a plan.
    PlanSchema = SCHEMA
}

/// The report from which a plan was derived.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SourceReport {
    /// What the report's own member `schema` says, where that is known.
    pub schema: Option<String>,
    /// The component that the report is about, where that is known.
    pub component: Option<String>,
    /// When the report was made: an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_at: Option<String>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How far a plan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStatus {
    /// It is only shown.
    Preview,
    /// It may be run.
    Approved,
    /// It is being run.
    Running,
    /// It was run, and what it promised holds.
    Complete,
    /// It was run, and something went wrong.
    Failed,
    /// It was undone.
    RolledBack,
}

/// How grave the state is that a plan mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanSeverity {
    /// Good to know.
    Info,
    /// Needs attention.
    Warning,
    /// Something failed.
    Error,
    /// Needs attention now.
    Critical,
}

/// Which permissions a plan needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanPolicy {
    /// Who is asked.
    pub engine: String,
    /// Grants that the steps need.
    pub required_grants: Vec<String>,
    /// Grants without which nothing destructive may be done.
    pub destructive_grants_required: Vec<String>,
    /// Whether a step is destructive.
    pub destructive_actions_present: bool,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Something that must hold before the first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Precondition {
    /// Names it.
    pub id: String,
    /// Whether it is required, met and so on.
    pub status: String,
    /// How it is found out whether it holds.
    pub check: String,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What is put aside before the first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whether no step may be taken without it.
    pub required: bool,
    /// Which sort it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether making it is recorded for audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_audit_record: Option<bool>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Its place, from 1.
    pub order: u64,
    /// Names it.
    pub id: String,
    /// What sort of work it is.
    pub kind: String,
    /// What is done, for people.
    pub description: String,
    /// Whether it removes or overwrites state.
    pub destructive: bool,
    /// What holds afterwards.
    pub expected_result: String,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One thing that is not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockedStep {
    /// Names it.
    pub id: String,
    /// Why not.
    pub reason: String,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How the steps are undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// Whether there is a way back.
    pub available: bool,
    /// How it is done.
    pub strategy: String,
    /// Whether a person must approve it first.
    pub requires_operator_approval: bool,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
