//! Capability contracts: what a component may ask for, declared before it runs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::phase::BootPhase;
use super::{list, text};
use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};

/// The contract.
pub static CAPABILITY_CONTRACT: Contract = Contract {
    name: "capability-contract",
    urn: "urn:srcos:schema:capability-contract:v0.1",
    file: "CapabilityContract.json",
    schema: include_str!("../../CapabilityContract.json"),
    discriminator: Discriminator::TypeOrId("CapabilityContract", "urn:srcos:capability-contract:"),
    profiled: true,
    rules: &[Rule {
        name: "capability-contract.unique-capabilities",
        says: "no capability is declared twice",
        origin: Origin::Ours,
        check: capabilities_are_unique,
    }],
    compiled: Contract::not_compiled(),
};

fn capabilities_are_unique(contract: &Value, findings: &mut Findings) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, declared) in list(contract, "declaredCapabilities") {
        let Some(name) = declared.as_str().or_else(|| text(declared, "capability")) else {
            continue;
        };
        if !seen.insert(name) {
            let message =
                format!("{name:?} is declared twice: join the two, so that one fallback holds");
            findings.add(format!("/declaredCapabilities/{index}"), message);
        }
    }
}

constant_text! {
    /// Says that a document is a capability contract.
    ContractKind = "CapabilityContract"
}

constant_text! {
    /// Version of the family's documents: the one that every member of it takes.
    SpecVersion = "v0.1"
}

/// A capability contract, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapabilityContract {
    /// Names it: a URN.
    pub id: String,
    /// Kind of document.
    #[serde(rename = "type")]
    pub kind: ContractKind,
    /// Version.
    pub spec_version: SpecVersion,
    /// Which component it is for.
    pub component_ref: String,
    /// What sort of component that is.
    pub component_kind: ComponentKind,
    /// Every capability that the component may ask for.
    pub declared_capabilities: Vec<DeclaredCapability>,
    /// Brokers that can act in its place.
    #[serde(default)]
    pub required_brokers: Vec<String>,
    /// The earliest phase in which it may be active.
    pub minimum_boot_phase: BootPhase,
    /// What it does where a capability is not granted.
    pub degraded_mode_policy: DegradedMode,
    /// What a person notices of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_impact: Option<String>,
    /// Names of what this rests on.
    #[serde(default)]
    pub evidence_refs: Vec<String>,
}

impl Document for CapabilityContract {
    const CONTRACT: &'static Contract = &CAPABILITY_CONTRACT;
}

/// One capability that a component may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeclaredCapability {
    /// Which one.
    pub capability: String,
    /// What the component needs it for.
    pub required_for: String,
    /// What the component does without it.
    pub fallback: Fallback,
    /// What a person notices of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_impact: Option<String>,
}

/// A sort of component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentKind {
    /// A program with a face.
    App,
    /// A program without one.
    Daemon,
    /// A program that acts for a person on its own.
    Agent,
    /// A confined process of a browser.
    BrowserChild,
    /// A helper of a terminal.
    TerminalHelper,
    /// Something that looks at the network.
    NetworkObserver,
    /// Something that looks at files.
    FileMonitor,
    /// Something that runs extensions.
    ExtensionHost,
    /// Something that indexes.
    Indexer,
    /// Something that acts in the place of others.
    Broker,
}

/// What is done without a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// The same, with less.
    Degraded,
    /// What needs it is not there.
    Unavailable,
    /// What needs it is passed over.
    Skip,
}

/// What a component does where a capability is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DegradedMode {
    /// It goes on with what it has.
    ContinueLimited,
    /// It does not start.
    RefuseStart,
    /// It says so in a receipt, and ends.
    EmitReceiptAndExit,
}
