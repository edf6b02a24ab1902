//! Delivery scorecards: how fit for delivery a component is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::canonical::derived_id;
use crate::contracts::{
    Contract, Discriminator, Document, Findings, InvalidDocument, Origin, Rule, Valid,
    constant_text,
};
use crate::state_report::CheckStatus;
use crate::trust_decision::digest_is_complete;

/// The contract.
pub static SCORECARD: Contract = Contract {
    name: "delivery-scorecard",
    urn: "urn:srcos:schema:delivery-scorecard:v1alpha1",
    file: "sourceos.delivery-scorecard.v1alpha1.schema.json",
    schema: include_str!("../sourceos.delivery-scorecard.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", SCHEMA),
    profiled: false,
    rules: &[
        Rule {
            name: "scorecard.score-written-whole",
            says: "score is written without a decimal point",
            origin: Origin::Estate,
            check: score_is_written_whole,
        },
        Rule {
            name: "scorecard.status-follows",
            says: "status follows from the gates and the score",
            origin: Origin::Ours,
            check: status_follows,
        },
        Rule {
            name: "scorecard.id-derives",
            says: "scorecard_id derives from digest, component and status",
            origin: Origin::Ours,
            check: id_derives,
        },
        Rule {
            name: "scorecard.digest-complete",
            says: "report_digest is a whole SHA-256 digest",
            origin: Origin::Ours,
            check: |scorecard, findings| digest_is_complete(scorecard, "report_digest", findings),
        },
    ],
    compiled: Contract::not_compiled(),
};

const SCHEMA: &str = "sourceos.delivery-scorecard/v1alpha1";

/// The schema takes `95.0` for an integer; the estate's checker does not.
fn score_is_written_whole(scorecard: &Value, findings: &mut Findings) {
    if scorecard.get("score").is_some_and(Value::is_f64) {
        findings.add(
            "/score",
            "it is written with a decimal point or an exponent: write a plain whole number",
        );
    }
}

fn status_follows(scorecard: &Value, findings: &mut Findings) {
    let Some(status) = scorecard.get("status").and_then(Value::as_str) else { return };
    let Some(score) = scorecard.get("score").and_then(Value::as_u64) else { return };
    let Some(gates) = scorecard.get("gates").and_then(Value::as_array) else { return };
    let failed =
        gates.iter().any(|gate| gate.get("status").and_then(Value::as_str) == Some("fail"));
    let due = ScoreStatus::of(score, failed).word();
    if status != due {
        let because =
            if failed { "a gate fails".to_owned() } else { format!("the score is {score}") };
        findings.add(
            "/status",
            format!("it says {status}, and {because}, which makes it {due}: say that"),
        );
    }
}

fn id(report_digest: &Value, component: &Value, status: &Value) -> String {
    let members = json!({
        "report_digest": report_digest, "component": component, "status": status
    });
    derived_id("scorecard-", &members, 20)
}

fn id_derives(scorecard: &Value, findings: &mut Findings) {
    let get = |name: &str| scorecard.get(name);
    let (Some(digest), Some(component), Some(status)) =
        (get("report_digest"), get("component"), get("status"))
    else {
        return;
    };
    let due = id(digest, component, status);
    if get("scorecard_id").and_then(Value::as_str).is_some_and(|said| said != due) {
        findings.add(
            "/scorecard_id",
            format!("what the scorecard says makes the id {due}: write that"),
        );
    }
}

constant_text! {
    /// Contract and version of a scorecard.
    ScorecardSchema = SCHEMA
}

/// A scorecard, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scorecard {
    /// Contract and version.
    pub schema: ScorecardSchema,
    /// Names it.
    pub scorecard_id: String,
    /// When it was made: an RFC 3339 time.
    pub generated_at: String,
    /// Who computed it.
    pub engine: String,
    /// What it is about.
    pub component: String,
    /// The verdict.
    pub status: ScoreStatus,
    /// From 0 to 100.
    pub score: u64,
    /// Digest of the report that it rests on.
    pub report_digest: String,
    /// The verdict in a sentence.
    pub summary: String,
    /// The figures behind the score.
    pub dimensions: Map<String, Value>,
    /// What must hold for delivery.
    pub gates: Vec<Gate>,
}

impl Document for Scorecard {
    const CONTRACT: &'static Contract = &SCORECARD;
}

impl Scorecard {
    /// Gives the scorecard the status that follows from gates and score, and the id that derives from
    /// it, and checks it.
    pub fn seal(mut self) -> Result<Valid<Self>, InvalidDocument> {
        let failed = self.gates.iter().any(|gate| gate.status == CheckStatus::Fail);
        self.status = ScoreStatus::of(self.score, failed);
        self.scorecard_id =
            id(&json!(self.report_digest), &json!(self.component), &json!(self.status));
        Valid::new(self)
    }
}

/// The verdict on a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreStatus {
    /// It can be delivered.
    Ready,
    /// It can be, with an eye on it.
    Watch,
    /// Too much is amiss.
    Degraded,
    /// A gate fails.
    Blocked,
}

impl ScoreStatus {
    /// The verdict on a score, and on whether a gate fails.
    pub fn of(score: u64, gate_failed: bool) -> Self {
        match score {
            _ if gate_failed => Self::Blocked,
            90.. => Self::Ready,
            70.. => Self::Watch,
            _ => Self::Degraded,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Watch => "watch",
            Self::Degraded => "degraded",
            Self::Blocked => "blocked",
        }
    }
}

/// One thing that must hold for delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Names it.
    pub id: String,
    /// Whether it holds.
    pub status: CheckStatus,
    /// What was looked at.
    pub evidence: Map<String, Value>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_id_of_a_sealed_scorecard_follow_from_the_rest() {
        let text = include_str!("../../examples/scorecards/degraded.scorecard.json");
        let value: Value = serde_json::from_str(text).unwrap();
        let scorecard = Valid::<Scorecard>::read(value.clone()).unwrap().into_inner();
        let wrong = Scorecard { status: ScoreStatus::Ready, ..scorecard.clone() };
        assert!(Valid::new(wrong.clone()).is_err());
        assert_eq!(wrong.seal().unwrap().to_value(), value);
        let beyond = Scorecard { score: 101, ..scorecard };
        assert_eq!(beyond.seal().unwrap_err().findings[0].rule, "schema.maximum");
    }

    #[test]
    fn the_verdict_has_its_steps() {
        let words = [100, 90, 89, 70, 69, 0].map(|score| ScoreStatus::of(score, false).word());
        assert_eq!(words, ["ready", "ready", "watch", "watch", "degraded", "degraded"]);
        assert_eq!(ScoreStatus::of(100, true), ScoreStatus::Blocked);
    }
}
