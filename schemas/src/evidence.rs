//! Evidence envelopes: a document with its digest, so that it can be shown later what was known.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::canonical::{derived_id, digest, digest_judged};
use crate::contracts::{
    self, Contract, Discriminator, Document, Findings, InvalidDocument, Options, Origin, Rule,
    Valid, constant_text,
};

/// The contract.
pub static EVIDENCE: Contract = Contract {
    name: "evidence-envelope",
    urn: "urn:srcos:schema:evidence-envelope:v1alpha1",
    file: "sourceos.lampstand-evidence.v1alpha1.schema.json",
    schema: include_str!("../sourceos.lampstand-evidence.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", SCHEMA),
    profiled: false,
    rules: &[
        Rule {
            name: "evidence.digest-matches",
            says: "artifact_digest is the digest of the artifact",
            origin: Origin::Estate,
            check: digest_matches,
        },
        Rule {
            name: "evidence.id-derives",
            says: "evidence_id derives from writer, type, subject and digest",
            origin: Origin::Ours,
            check: id_derives,
        },
        Rule {
            name: "evidence.artifact-holds",
            says: "the artifact is of the type that is named, and holds under its own contract",
            origin: Origin::Ours,
            check: artifact_holds,
        },
        Rule {
            name: "evidence.signature-present",
            says: "there is a signature exactly when the envelope says that it is signed",
            origin: Origin::Ours,
            check: signature_is_present,
        },
    ],
    compiled: Contract::not_compiled(),
};

const SCHEMA: &str = "sourceos.lampstand-evidence/v1alpha1";

fn digest_matches(envelope: &Value, findings: &mut Findings) {
    let Some(artifact) = envelope.get("artifact").filter(|artifact| artifact.is_object()) else {
        return;
    };
    let Some(said) = envelope.get("artifact_digest").and_then(Value::as_str) else { return };
    let due = digest_judged(artifact, &findings.wide().under("/artifact"));
    if said != due {
        let message = format!(
            "the artifact has the digest {due}: it was changed, or the digest is another's"
        );
        findings.add("/artifact_digest", message);
    }
}

fn id(artifact_digest: &Value, evidence_type: &Value, subject: &Value, writer: &Value) -> String {
    let members = json!({
        "artifact_digest": artifact_digest, "evidence_type": evidence_type, "subject": subject,
        "writer": writer,
    });
    derived_id("evidence-", &members, 20)
}

fn id_derives(envelope: &Value, findings: &mut Findings) {
    let get = |name: &str| envelope.get(name);
    let (Some(digest), Some(kind), Some(subject), Some(writer)) =
        (get("artifact_digest"), get("evidence_type"), get("subject"), get("writer"))
    else {
        return;
    };
    let due = id(digest, kind, subject, writer);
    if get("evidence_id").and_then(Value::as_str).is_some_and(|said| said != due) {
        findings
            .add("/evidence_id", format!("what the envelope says makes the id {due}: write that"));
    }
}

fn artifact_holds(envelope: &Value, findings: &mut Findings) {
    let Some(kind) = envelope.get("evidence_type").and_then(Value::as_str) else { return };
    let Some(artifact) = envelope.get("artifact").filter(|artifact| artifact.is_object()) else {
        return;
    };
    // Types and contracts have the same names; a summary of local state has no contract.
    let Some(contract) = contracts::find(kind).filter(|_| kind != EVIDENCE.name) else { return };
    let options = Options { contract: Some(contract), ..Options::default() };
    let wide = findings.wide().under("/artifact");
    for error in contracts::validate_judged(artifact, &wide, &options).errors {
        findings
            .add(format!("/artifact{}", error.path), format!("{}: {}", error.rule, error.message));
    }
}

fn signature_is_present(envelope: &Value, findings: &mut Findings) {
    let Some(attestation) = envelope.get("attestation") else { return };
    let signature = attestation.get("signature");
    let message = match (attestation.get("signed"), signature) {
        (Some(Value::Bool(true)), Some(Value::Null)) => {
            "the envelope says that it is signed, and has no signature: add it, or say signed: \
                false"
        }
        (Some(Value::Bool(false)), Some(Value::Object(_))) => {
            "there is a signature, and the envelope says that it is not signed: say signed: true"
        }
        _ => return,
    };
    findings.add("/attestation/signature", message);
}

constant_text! {
    /// Contract and version of an envelope.
    EvidenceSchema = SCHEMA
}

/// An envelope, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Contract and version.
    pub schema: EvidenceSchema,
    /// Names it.
    pub evidence_id: String,
    /// When it was made: an RFC 3339 time.
    pub generated_at: String,
    /// Who made it.
    pub writer: String,
    /// What sort of document is in it.
    pub evidence_type: EvidenceType,
    /// What the document is about.
    pub subject: String,
    /// Digest of the document.
    pub artifact_digest: String,
    /// The document.
    pub artifact: Map<String, Value>,
    /// Whether it is signed, and by what.
    pub attestation: Attestation,
}

impl Document for Evidence {
    const CONTRACT: &'static Contract = &EVIDENCE;
}

/// What goes into an envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrapped {
    /// When: an RFC 3339 time.
    pub generated_at: String,
    /// Who wraps it.
    pub writer: String,
    /// What sort of document it is.
    pub evidence_type: EvidenceType,
    /// What it is about.
    pub subject: String,
    /// The document.
    pub artifact: Map<String, Value>,
    /// Whether it is signed, and by what.
    pub attestation: Attestation,
}

impl Evidence {
    /// Wraps a document: digest and id derive from it, and it is held to its own contract.
    pub fn wrap(wrapped: Wrapped) -> Result<Valid<Self>, InvalidDocument> {
        let Wrapped { generated_at, writer, evidence_type, subject, artifact, attestation } =
            wrapped;
        let artifact_digest = digest(&Value::Object(artifact.clone()));
        let evidence_id =
            id(&json!(artifact_digest), &json!(evidence_type), &json!(subject), &json!(writer));
        Valid::new(Self {
            schema: EvidenceSchema,
            evidence_id,
            generated_at,
            writer,
            evidence_type,
            subject,
            artifact_digest,
            artifact,
            attestation,
        })
    }
}

/// What sort of document is in an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceType {
    /// A state integrity report.
    StateIntegrityReport,
    /// A repair plan.
    RepairPlan,
    /// A policy decision.
    PolicyDecision,
    /// A summary of what is held locally; it has no contract.
    LocalStateSummary,
    /// An agent trust decision.
    AgentTrustDecision,
    /// A delivery scorecard.
    DeliveryScorecard,
}

/// Whether an envelope is signed, and by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attestation {
    /// Whether there is a signature.
    pub signed: bool,
    /// The signature, and what is needed to check it.
    pub signature: Option<Map<String, Value>>,
    /// Why it is signed or not, as a short token.
    pub reason: String,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Limits, parse_to_judge};

    fn example() -> (Value, Evidence) {
        let text = include_str!("../../examples/evidence/repair-plan.evidence.json");
        let value: Value = serde_json::from_str(text).unwrap();
        let evidence = Valid::<Evidence>::read(value.clone()).unwrap().into_inner();
        (value, evidence)
    }

    fn wrapped(evidence: Evidence) -> Wrapped {
        let Evidence {
            generated_at, writer, evidence_type, subject, artifact, attestation, ..
        } = evidence;
        Wrapped { generated_at, writer, evidence_type, subject, artifact, attestation }
    }

    #[test]
    fn wrapping_gives_digest_and_id() {
        let (value, evidence) = example();
        assert_eq!(Evidence::wrap(wrapped(evidence)).unwrap().to_value(), value);
    }

    /// What Python makes of it, which reads integers of any size.
    #[test]
    fn the_digest_goes_by_the_digits_of_integers_beyond_64_bits() {
        let (mut value, _) = example();
        value["evidence_type"] = json!("local-state-summary");
        value["artifact"] = json!({"b": ["<>"], "a": 1.0});
        let canonical = r#"{"a":1.0,"b":[1180591620717411303424]}"#;
        value["artifact_digest"] =
            json!(format!("sha256:{}", crate::canonical::hash_hex(canonical)));
        let text = value.to_string().replace("\"<>\"", "1180591620717411303424");
        let (value, wide) = parse_to_judge(text.as_bytes(), Limits::BODY).unwrap();
        let verdict = contracts::validate_judged(&value, &wide, &Options::default());
        assert!(verdict.is_valid(), "{:?}", verdict.errors);
        let clamped = contracts::validate(&value, &Options::default());
        assert!(!clamped.is_valid());
    }

    #[test]
    fn a_document_that_breaks_its_own_contract_is_not_wrapped() {
        let (_, mut evidence) = example();
        evidence.artifact.insert("status".to_owned(), json!("finished"));
        let refused = Evidence::wrap(wrapped(evidence)).unwrap_err();
        assert_eq!(refused.findings[0].path, "/artifact/status");
    }

    #[test]
    fn a_summary_of_local_state_may_be_anything() {
        let (_, mut evidence) = example();
        evidence.evidence_type = EvidenceType::LocalStateSummary;
        evidence.artifact.insert("anything".to_owned(), json!([1.0, 1e-7, "é"]));
        assert!(Evidence::wrap(wrapped(evidence)).is_ok());
    }
}
