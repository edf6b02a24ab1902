//! Agent trust decisions: whether an agent may rely on the state that a report describes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::canonical::derived_id;
use crate::contracts::{
    Contract, Discriminator, Document, Findings, InvalidDocument, Origin, Rule, Valid,
    constant_text,
};

/// The contract.
pub static TRUST_DECISION: Contract = Contract {
    name: "agent-trust-decision",
    urn: "urn:srcos:schema:agent-trust-decision:v1alpha1",
    file: "sourceos.agent-trust-decision.v1alpha1.schema.json",
    schema: include_str!("../sourceos.agent-trust-decision.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", SCHEMA),
    profiled: false,
    rules: &[
        Rule {
            name: "trust.id-derives",
            says: "decision_id derives from what was decided",
            origin: Origin::Ours,
            check: id_derives,
        },
        Rule {
            name: "trust.status-follows",
            says: "the answer does not go against the evidence that it is given with",
            origin: Origin::Ours,
            check: status_follows,
        },
        Rule {
            name: "trust.digest-complete",
            says: "report_digest is a whole SHA-256 digest",
            origin: Origin::Ours,
            check: |decision, findings| digest_is_complete(decision, "report_digest", findings),
        },
    ],
    compiled: Contract::not_compiled(),
};

const SCHEMA: &str = "sourceos.agent-trust-decision/v1alpha1";

/// Members from which the id of a decision derives.
const ID_MEMBERS: [&str; 8] = [
    "subject",
    "action",
    "lane",
    "status",
    "reason",
    "report_digest",
    "allow_degraded",
    "require_attestation",
];

/// The id of a decision with these members; nothing where one is missing.
fn id_of(decision: &Value) -> Option<String> {
    let members: Option<Map<String, Value>> = ID_MEMBERS
        .into_iter()
        .map(|name| Some((name.to_owned(), decision.get(name)?.clone())))
        .collect();
    Some(derived_id("trust-", &Value::Object(members?), 20))
}

fn id_derives(decision: &Value, findings: &mut Findings) {
    let said = decision.get("decision_id").and_then(Value::as_str);
    if let (Some(said), Some(due)) = (said, id_of(decision))
        && said != due
    {
        findings.add("/decision_id", format!("what was decided makes the id {due}: write that"));
    }
}

fn status_follows(decision: &Value, findings: &mut Findings) {
    let text = |path: &str| decision.pointer(path).and_then(Value::as_str);
    let is = |path: &str, said: bool| decision.pointer(path) == Some(&Value::Bool(said));
    let Some(status @ ("allowed" | "degraded_allowed")) = text("/status") else { return };
    let lanes = decision.pointer("/evidence/available_lanes").and_then(Value::as_array);
    let errors = decision.pointer("/evidence/contract_errors").and_then(Value::as_array);
    let lane = decision.get("lane").unwrap_or(&Value::Null);
    let against = if errors.is_some_and(|errors| !errors.is_empty()) {
        "the report breaks its contract"
    } else if lanes.is_some_and(|lanes| !lanes.contains(lane)) {
        "the report does not speak of the lane"
    } else if is("/require_attestation", true) && is("/evidence/attestation_signed", false) {
        "attestation is asked for, and the report is not signed"
    } else if matches!(text("/report_status"), Some("unsafe" | "stale" | "unknown")) {
        "the report is neither healthy nor degraded"
    } else if status == "allowed" && text("/report_status") == Some("degraded") {
        "the report is degraded: if that is accepted, the status is degraded_allowed"
    } else if status == "degraded_allowed" && is("/allow_degraded", false) {
        "degraded state is not accepted"
    } else {
        return;
    };
    findings.add(
        "/status",
        format!("it says {status}, and {against}: say blocked, or correct the evidence"),
    );
}

/// Whether a member is `sha256:` and 64 hexadecimal digits.
pub(crate) fn digest_is_complete(document: &Value, member: &str, findings: &mut Findings) {
    let Some(digest) = document.get(member).and_then(Value::as_str) else { return };
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = "it is not sha256: and 64 hexadecimal digits: write the whole digest";
        findings.add(format!("/{member}"), message);
    }
}

constant_text! {
    /// Contract and version of a decision.
    TrustSchema = SCHEMA
}

/// A decision, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustDecision {
    /// Contract and version.
    pub schema: TrustSchema,
    /// Names it.
    pub decision_id: String,
    /// When it was decided: an RFC 3339 time.
    pub generated_at: String,
    /// Who decided.
    pub engine: String,
    /// Who wants to rely on the state.
    pub subject: String,
    /// What it wants to do.
    pub action: String,
    /// In which lane.
    pub lane: String,
    /// The answer.
    pub status: TrustStatus,
    /// The rule that decided.
    pub reason: String,
    /// Digest of the report that was asked.
    pub report_digest: String,
    /// What the report amounts to.
    pub report_status: String,
    /// Whether the asker accepts degraded state.
    pub allow_degraded: bool,
    /// Whether the asker wants a signed report.
    pub require_attestation: bool,
    /// What the decision rests on.
    pub evidence: TrustEvidence,
}

impl Document for TrustDecision {
    const CONTRACT: &'static Contract = &TRUST_DECISION;
}

impl TrustDecision {
    /// Gives the decision the id that derives from it, and checks it.
    pub fn seal(mut self) -> Result<Valid<Self>, InvalidDocument> {
        let members = json!({
            "subject": self.subject, "action": self.action, "lane": self.lane,
            "status": self.status, "reason": self.reason, "report_digest": self.report_digest,
            "allow_degraded": self.allow_degraded,
            "require_attestation": self.require_attestation,
        });
        self.decision_id = derived_id("trust-", &members, 20);
        Valid::new(self)
    }
}

/// The answer to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustStatus {
    /// It may.
    Allowed,
    /// It may, knowing that the state is degraded.
    DegradedAllowed,
    /// It may not.
    Blocked,
    /// It could not be decided.
    Unknown,
}

/// What a decision rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrustEvidence {
    /// In what the report breaks its contract.
    pub contract_errors: Vec<String>,
    /// What the report amounts to, computed anew.
    pub diagnosis: Map<String, Value>,
    /// Whether the report is signed.
    pub attestation_signed: bool,
    /// Names of the lanes that the report speaks of.
    pub available_lanes: Vec<String>,
    /// How many decisions of which outcome the report counts.
    pub policy_counts: BTreeMap<String, u64>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_decision_has_its_derived_id() {
        let text = include_str!("../../examples/trust/normal-read.allowed.json");
        let value: Value = serde_json::from_str(text).unwrap();
        let decision = Valid::<TrustDecision>::read(value.clone()).unwrap().into_inner();
        let unnamed = TrustDecision { decision_id: "x".to_owned(), ..decision };
        assert_eq!(unnamed.clone().seal().unwrap().to_value(), value);
        assert!(Valid::new(unnamed).is_err());
    }

    #[test]
    fn a_decision_against_its_evidence_cannot_be_made() {
        let text = include_str!("../../examples/trust/degraded.blocked.json");
        let mut decision: TrustDecision = serde_json::from_str(text).unwrap();
        decision.status = TrustStatus::DegradedAllowed;
        let refused = decision.seal().unwrap_err();
        assert_eq!(refused.findings[0].rule, "trust.status-follows");
    }
}
