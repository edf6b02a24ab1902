//! The published contracts: which documents there are, how one is recognised, and whether it holds.
//!
//! A contract is a JSON Schema file (in the folder `schemas/`, embedded here) and the rules that a
//! schema cannot say. [`validate`] asks both and answers with a [`Verdict`]. Nothing is read, fetched
//! or remembered between two documents, except that each schema is compiled once.
//!
//! To add a contract: write its schema file, write a module with a `static` [`Contract`] and its
//! [`Rule`]s, add it to [`ALL`], and put examples under `examples/`. A rule that other tools of the
//! estate enforce too is [`Origin::Estate`] and makes a document invalid. A rule that only this
//! project has is [`Origin::Ours`]: a warning, and an error under [`Options::strict`], so that
//! documents interchange.

mod constant;
mod detect;
mod document;
mod finding;
mod schema;

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::constant::constant_text;
pub use self::detect::{Discriminator, Unrecognised, detect, find};
pub use self::document::{Document, InvalidDocument, Valid, read_typed};
pub use self::finding::{FINDINGS_MAX, Finding, Findings, MESSAGE_CHARS_MAX, Origin, Rule, escape};
use self::schema::Compiled;
use crate::json::Wide;

/// Every contract, in the order in which they are listed. Where two share a discriminator, the
/// first one is meant by it.
pub static ALL: &[&Contract] = &[
    // One line each.
    &crate::state_report::STATE_REPORT,
    &crate::repair_plan::REPAIR_PLAN,
    &crate::event::rules::EVENT,
    &crate::event::rules::EVENT_LEGACY,
    &crate::service::SERVICE,
    &crate::capability::CAPABILITY,
    &crate::launch::LAUNCH_MANIFEST,
    &crate::incident::INCIDENT,
    &crate::process::PROCESS_PROVENANCE,
    &crate::policy_decision::POLICY_DECISION,
    &crate::policy_observation::POLICY_OBSERVATION,
    &crate::explanation::POLICY_EXPLANATION_REGISTRY,
    &crate::trust_decision::TRUST_DECISION,
    &crate::scorecard::SCORECARD,
    &crate::evidence::EVIDENCE,
    &crate::authority::contract::CAPABILITY_CONTRACT,
    &crate::authority::grant::CAPABILITY_GRANT_STATE,
    &crate::authority::storm::DIAGNOSTIC_STORM,
    &crate::authority::network::NETWORK_TRUTH,
    &crate::authority::registry::RUNTIME_REGISTRY,
    &crate::authority::phase::BOOT_PHASE,
    &crate::lanes::LANE,
    &crate::policy_file::POLICY_FILE,
    &crate::lanes::LANES_STATUS,
];

/// One published contract.
#[derive(Debug)]
pub struct Contract {
    /// What people call it: `repair-plan`.
    pub name: &'static str,
    /// The schema's `$id`, under `urn:srcos:schema:`.
    pub urn: &'static str,
    /// The schema's file, in the folder `schemas/`.
    pub file: &'static str,
    /// The schema: a document of JSON Schema, Draft 2020-12.
    pub schema: &'static str,
    /// By what a document says that it is one of these.
    pub discriminator: Discriminator,
    /// Whether the schema has the profile `proposal` besides, in `$defs`.
    pub profiled: bool,
    /// What the schema cannot say.
    pub rules: &'static [Rule],
    /// The compiled schema: starts as `OnceLock::new()`.
    pub compiled: OnceLock<Compiled>,
}

impl Contract {
    /// The schema as a document.
    pub fn document(&self) -> Value {
        // Holds: the schemas are part of the program, and a test reads each one.
        serde_json::from_str(self.schema).expect("an embedded schema is JSON")
    }
}

/// Two contracts are the same where their names are.
impl PartialEq for Contract {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// A reading of a contract that was published in two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The estate's published schemas, version 2.
    Published,
    /// The members that the proposal of the family asks for.
    Proposal,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 2] = [Self::Published, Self::Proposal];
}

/// How to judge a document.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The contract to hold it to; recognised by its discriminator where none is given.
    pub contract: Option<&'static Contract>,
    /// The profile that must hold; any one of them where none is given. Only contracts with profiles
    /// look at it.
    pub profile: Option<Profile>,
    /// Whether a rule that only this project has makes a document invalid.
    pub strict: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The contract that the document was held to; none where it could not be recognised.
    pub contract: Option<&'static Contract>,
    /// What makes it invalid, at most [`FINDINGS_MAX`].
    pub errors: Vec<Finding>,
    /// What is unwise but makes it not invalid, at most [`FINDINGS_MAX`].
    pub warnings: Vec<Finding>,
    /// Which profiles hold, of a contract that has any.
    pub profiles: Vec<Profile>,
}

impl Verdict {
    /// Whether nothing makes the document invalid.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Holds a document to its contract: schema and rules.
pub fn validate(document: &Value, options: &Options) -> Verdict {
    validate_judged(document, &Wide::default(), options)
}

/// The same of a document that was read with [`crate::json::parse_to_judge`], going by the digits of
/// its integers beyond 64 bits.
pub fn validate_judged(document: &Value, wide: &Wide, options: &Options) -> Verdict {
    let contract = match options.contract.map_or_else(|| detect(document), Ok) {
        Ok(contract) => contract,
        Err(unrecognised) => {
            let errors = vec![unrecognised.finding()];
            return Verdict { contract: None, errors, warnings: Vec::new(), profiles: Vec::new() };
        }
    };
    let compiled = contract.compiled();
    let (schema_errors, profiles) = if contract.profiled {
        let profiles: Vec<Profile> = Profile::ALL
            .into_iter()
            .filter(|profile| compiled.of(*profile).is_valid(document))
            .collect();
        let held = options.profile.map_or(!profiles.is_empty(), |asked| profiles.contains(&asked));
        let shown = options.profile.unwrap_or(Profile::Published);
        (if held { Vec::new() } else { compiled.errors(shown, document) }, profiles)
    } else {
        (compiled.errors(Profile::Published, document), Vec::new())
    };
    let wide = Arc::new(wide.clone());
    let mut errors = Findings::new(schema_errors, Arc::clone(&wide));
    let mut warnings = Findings::new(Vec::new(), wide);
    for rule in contract.rules {
        let graver = options.strict || rule.origin == Origin::Estate;
        let findings = if graver { &mut errors } else { &mut warnings };
        findings.run(rule, document);
    }
    let (errors, warnings) = (errors.into_vec(), warnings.into_vec());
    Verdict { contract: Some(contract), errors, warnings, profiles }
}

#[cfg(test)]
mod tests;
