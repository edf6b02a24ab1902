//! Policy files: rules about what may be done with the objects of which lane, by whom.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};

/// The contract.
pub static POLICY_FILE: Contract = Contract {
    name: "policy",
    urn: "urn:srcos:schema:policy:v1alpha1",
    file: "sourceos.lane-policy.v1alpha1.schema.json",
    schema: include_str!("../sourceos.lane-policy.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", SCHEMA),
    profiled: false,
    rules: &[
        Rule {
            name: "policy.unique-rules",
            says: "no two rules have the same id",
            origin: Origin::Estate,
            check: ids_are_unique,
        },
        Rule {
            name: "policy.confined-classes-by-name",
            says: "what opens a confined class to others names for whom",
            origin: Origin::Estate,
            check: confined_classes_are_opened_by_name,
        },
        Rule {
            name: "policy.local-lanes-stay",
            says: "no rule lets a lane leave the device whose meaning is local",
            origin: Origin::Estate,
            check: local_lanes_stay,
        },
        Rule {
            name: "policy.no-shadowed-rules",
            says: "no rule stands behind one that fits all that it fits",
            origin: Origin::Ours,
            check: no_rule_is_shadowed,
        },
    ],
    compiled: Contract::not_compiled(),
};

const SCHEMA: &str = "sourceos.lane-policy/v1alpha1";

/// Data classes that stay on the device, and from agents, unless a rule names for whom not.
pub const CONFINED_CLASSES: [&str; 2] = ["secret", "credential"];

/// Lanes whose meaning is local, so that no rule can let them leave the device.
pub const LOCAL_LANES: [&str; 3] = ["ephemeral", "migration", "repair"];

/// Most rules of which each pair is compared: enough for any policy that people write, and little
/// enough that a hostile one does not take minutes.
const COMPARED_MAX: usize = 500;

fn rules(policy: &Value) -> impl Iterator<Item = (usize, &Value)> {
    policy.get("rules").and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn texts<'a>(rule: &'a Value, member: &str) -> Option<BTreeSet<&'a str>> {
    Some(rule.get(member)?.as_array()?.iter().filter_map(Value::as_str).collect())
}

fn allows(rule: &Value) -> bool {
    rule.get("decision").and_then(Value::as_str) == Some("allowed")
}

fn ids_are_unique(policy: &Value, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, rule) in rules(policy) {
        let id = rule.get("id").and_then(Value::as_str);
        if let Some(id) = id.filter(|id| !seen.insert(*id)) {
            let message = format!(
                "there are two rules {id:?}: give each its own id, so that decisions can name it"
            );
            findings.add(format!("/rules/{index}/id"), message);
        }
    }
}

fn confined_classes_are_opened_by_name(policy: &Value, findings: &mut Findings) {
    for (index, rule) in rules(policy).filter(|(_, rule)| allows(rule)) {
        let actions = texts(rule, "actions").unwrap_or_default();
        let opens = actions.contains("replicate") || actions.contains("agent_access");
        let classes = texts(rule, "classes").unwrap_or_default();
        let confined = CONFINED_CLASSES.into_iter().find(|class| classes.contains(class));
        if let Some(class) = confined.filter(|_| opens && rule.get("subjects").is_none()) {
            let message =
                format!("it opens {class} to everybody: name the subjects for whom it is meant");
            findings.add(format!("/rules/{index}"), message);
        }
    }
}

fn local_lanes_stay(policy: &Value, findings: &mut Findings) {
    for (index, rule) in rules(policy).filter(|(_, rule)| allows(rule)) {
        let lanes = texts(rule, "lanes").unwrap_or_default();
        let replicates =
            texts(rule, "actions").is_some_and(|actions| actions.contains("replicate"));
        if let Some(lane) = LOCAL_LANES.into_iter().find(|lane| replicates && lanes.contains(lane))
        {
            let message = format!("lane {lane} never leaves the device: take it out of the rule");
            findings.add(format!("/rules/{index}/lanes"), message);
        }
    }
}

fn no_rule_is_shadowed(policy: &Value, findings: &mut Findings) {
    let rules: Vec<&Value> = rules(policy).map(|(_, rule)| rule).take(COMPARED_MAX).collect();
    for (later, rule) in rules.iter().enumerate() {
        let covers = |earlier: &&Value| {
            let within = |member: &str, open: bool| {
                match (texts(rule, member), texts(earlier, member)) {
                    (Some(narrow), Some(wide)) => narrow.is_subset(&wide),
                    // A member that is missing fits all, but for the confined classes.
                    (_, None) => open,
                    (None, Some(_)) => false,
                }
            };
            let confined = texts(rule, "classes").is_some_and(|classes| {
                CONFINED_CLASSES.into_iter().any(|class| classes.contains(class))
            });
            earlier.get("expires_at").is_none()
                && within("lanes", false)
                && within("actions", false)
                && within("classes", !confined)
                && within("subjects", true)
        };
        if let Some(earlier) = rules[..later].iter().position(covers) {
            let message = format!(
                "rule {earlier} before it fits all that it fits, so that it never decides: move \
                    or remove it"
            );
            findings.add(format!("/rules/{later}"), message);
        }
    }
}

constant_text! {
    /// Contract and version of a policy file.
    PolicySchema = SCHEMA
}

/// A policy file, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Contract and version.
    pub schema: PolicySchema,
    /// Names this state of the policy.
    pub version: String,
    /// What the policy is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The rules; the first that fits decides.
    pub rules: Vec<PolicyRule>,
}

impl Document for PolicyFile {
    const CONTRACT: &'static Contract = &POLICY_FILE;
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// Names it.
    pub id: String,
    /// In which lanes it holds.
    pub lanes: Vec<String>,
    /// For which actions.
    pub actions: Vec<PolicyAction>,
    /// For which data classes; all but the confined ones where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// For whom; all where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subjects: Option<Vec<String>>,
    /// What it decides.
    pub decision: PolicyEffect,
    /// Why, for people.
    pub reason: String,
    /// When it ends: an RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// Something that policy is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyAction {
    /// Make it found by search.
    Index,
    /// Keep it.
    Retain,
    /// Send it to another device.
    Replicate,
    /// Show it to an agent.
    AgentAccess,
    /// Show what a repair would do.
    RepairPreview,
    /// Show what a purge would do.
    PurgePreview,
    /// Read it.
    Read,
    /// Write it.
    Write,
}

/// What a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyEffect {
    /// It may be done.
    Allowed,
    /// It may not.
    Denied,
    /// It may be done with the content left out.
    Redacted,
    /// It is decided later.
    Deferred,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::Valid;

    #[test]
    fn a_policy_reads_into_its_type_and_back_unchanged() {
        let text = include_str!("../../examples/policies/household.policy.json");
        let value: Value = serde_json::from_str(text).unwrap();
        let policy = Valid::<PolicyFile>::read(value.clone()).unwrap();
        assert_eq!(policy.to_value(), value);
        Valid::new(policy.into_inner()).unwrap();
    }
}
