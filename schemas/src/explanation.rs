//! The registry of explanation codes: what each code means, so that a denial reads the same wherever
//! it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};
use crate::event::model::{ExplanationCode, Text};
use crate::event::vocabulary::{DecisionResult, Outcome, Risk, Severity, vocabulary};

/// `schema_version` of a registry.
const SCHEMA_VERSION: &str = "sourceos.policy-explanation-registry.v0.1";

/// The contract.
pub static POLICY_EXPLANATION_REGISTRY: Contract = Contract {
    name: "policy-explanation-registry",
    urn: "urn:srcos:schema:policy-explanation-registry:v0.1",
    file: "sourceos.policy-explanation-registry.v0.1.schema.json",
    schema: include_str!("../sourceos.policy-explanation-registry.v0.1.schema.json"),
    discriminator: Discriminator::Member("schema_version", SCHEMA_VERSION),
    profiled: false,
    rules: &[
        Rule {
            name: "policy-explanation-registry.codes-once",
            says: "no code stands twice, also where its entries differ",
            origin: Origin::Estate,
            check: codes_stand_once,
        },
        Rule {
            name: "policy-explanation-registry.expected-denial-is-quiet",
            says: "a code with outcome blocked_expected is no louder than notice",
            origin: Origin::Ours,
            check: expected_denials_are_quiet,
        },
    ],
    compiled: Contract::not_compiled(),
};

/// The registry that this program knows: the codes of the estate and those that the node emits.
pub static REGISTRY: LazyLock<ExplanationRegistry> = LazyLock::new(|| {
    // Holds: the file is part of the program, and a test holds it to its contract.
    serde_json::from_str(REGISTRY_TEXT).expect("the embedded registry is a registry")
});

/// The text of [`REGISTRY`].
pub const REGISTRY_TEXT: &str = include_str!("../../policy/explanation-codes.v0.1.json");

static BY_CODE: LazyLock<BTreeMap<&'static str, &'static Explanation>> = LazyLock::new(|| {
    REGISTRY.codes.iter().map(|explanation| (explanation.code.as_str(), explanation)).collect()
});

/// What the registry of this program says of a code.
pub fn find(code: &str) -> Option<&'static Explanation> {
    BY_CODE.get(code).copied()
}

/// A registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplanationRegistry {
    /// The contract.
    pub schema_version: RegistrySchema,
    /// The codes.
    pub codes: Vec<Explanation>,
}

impl Document for ExplanationRegistry {
    const CONTRACT: &'static Contract = &POLICY_EXPLANATION_REGISTRY;
}

impl ExplanationRegistry {
    /// What it says of a code.
    pub fn find(&self, code: &str) -> Option<&Explanation> {
        self.codes.iter().find(|explanation| explanation.code.as_str() == code)
    }
}

constant_text! {
    /// The contract's name; no other is read.
    RegistrySchema = SCHEMA_VERSION
}

vocabulary! {
    /// The area that a code belongs to.
    Domain {
        Filesystem = "filesystem",
        Network = "network",
        Trust = "trust",
        Identity = "identity",
        Ipc = "ipc",
        Sync = "sync",
        Agent = "agent",
        Package = "package",
        Power = "power",
        Generic = "generic",
    }
}

/// One code, and all that it fixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// The code.
    pub code: ExplanationCode,
    /// As a short heading.
    pub title: Text,
    /// The area it belongs to.
    pub domain: Domain,
    /// What a rule that gives it answers.
    pub result: DecisionResult,
    /// Whether that answer is to be expected.
    pub semantic_outcome: Outcome,
    /// How loudly to tell.
    pub severity: Severity,
    /// How much harm it may mean.
    pub risk: Risk,
    /// What happened, where nothing better is said.
    pub default_summary: Text,
    /// Why, where nothing better is said.
    pub default_why: Text,
    /// What to do, where nothing better is said.
    pub default_next_action: Text,
    /// Operations that may carry it; `*` stands for any.
    pub allowed_operation_classes: Vec<String>,
    /// Target classes that may carry it; `*` stands for any.
    pub allowed_target_classes: Vec<String>,
    /// Whether an observation may be louder than it says.
    #[serde(default = "yes")]
    pub allow_stricter_severity: bool,
    /// For those who maintain the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
}

fn yes() -> bool {
    true
}

/// Where an observation contradicts what its code means: JSON pointer, and what is wrong.
///
/// Asked about any value whatever; what is not there, or of another type, is passed over.
pub fn contradictions(observation: &Value, code: &Explanation) -> Vec<(&'static str, String)> {
    let text = |member: &str| observation.get(member).and_then(Value::as_str);
    let mut found = Vec::new();
    let mut must_be = |member: &'static str, wanted: &str| {
        if let Some(said) = text(member.trim_start_matches('/'))
            && said != wanted
        {
            let message = format!(
                "{said:?} is not what {} means: say {wanted:?}, leave it out where that is allowed, or use \
                 another code",
                code.code
            );
            found.push((member, message));
        }
    };
    must_be("/result", code.result.as_str());
    must_be("/semantic_outcome", code.semantic_outcome.as_str());
    must_be("/risk", code.risk.as_str());
    if !code.allow_stricter_severity {
        must_be("/severity", code.severity.as_str());
    } else if let Some(severity) = text("severity").and_then(Severity::from_word)
        && severity < code.severity
    {
        let message = format!(
            "{severity} is quieter than {}, which {} means: say that, or something louder",
            code.severity, code.code
        );
        found.push(("/severity", message));
    }
    let classes = [
        ("/operation", &code.allowed_operation_classes),
        ("/target_class", &code.allowed_target_classes),
    ];
    for (member, allowed) in classes {
        if let Some(said) = text(member.trim_start_matches('/'))
            && !allowed.iter().any(|class| class == "*" || class == said)
        {
            let message = format!(
                "{said:?} does not go with {}, which allows {}: use one of them, or another code",
                code.code,
                allowed.join(", ")
            );
            found.push((member, message));
        }
    }
    found
}

fn codes(registry: &Value) -> impl Iterator<Item = (usize, &Value)> {
    registry.get("codes").and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn codes_stand_once(registry: &Value, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, entry) in codes(registry) {
        let Some(code) = entry.get("code").and_then(Value::as_str) else { continue };
        if !seen.insert(code) {
            let message = format!("{code:?} stands twice: keep one of the two");
            findings.add(format!("/codes/{index}/code"), message);
        }
    }
}

fn expected_denials_are_quiet(registry: &Value, findings: &mut Findings) {
    for (index, entry) in codes(registry) {
        let text = |member: &str| entry.get(member).and_then(Value::as_str);
        let outcome = text("semantic_outcome").and_then(Outcome::from_word);
        let severity = text("severity").and_then(Severity::from_word);
        if let (Some(outcome), Some(severity)) = (outcome, severity)
            && severity > outcome.severity_max()
        {
            let max = outcome.severity_max();
            let message = format!("{severity} is too loud for {outcome}: say {max} or less");
            findings.add(format!("/codes/{index}/severity"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::{Options, validate};

    #[test]
    fn embedded_registry_holds_strictly_and_says_each_code_once() {
        let value: Value = serde_json::from_str(REGISTRY_TEXT).unwrap();
        let verdict = validate(&value, &Options { strict: true, ..Options::default() });
        assert!(verdict.is_valid(), "{:?}", verdict.errors);
        assert_eq!(BY_CODE.len(), REGISTRY.codes.len());
    }

    #[test]
    fn registry_has_the_codes_that_the_estate_published() {
        for code in [
            "POLICY_EXPECTED_METADATA_BOUNDARY",
            "POLICY_EXPECTED_NETWORK_DISABLED",
            "POLICY_UNEXPECTED_FILE_READ",
            "POLICY_ATTACK_LIKE_PRIVILEGE_BOUNDARY_PROBE",
            "POLICY_DEGRADED_TRUST_LOCAL_ONLY",
            "POLICY_EXPECTED_ENTITLEMENT_BOUNDARY",
            "POWER_DARKWAKE_NETWORK_KEEPALIVE_ALLOWED",
            "POLICY_EXPECTED_TEST_BOUNDARY",
        ] {
            assert!(find(code).is_some(), "{code}");
        }
        assert!(find("POLICY_OF_NOBODY").is_none());
    }
}
