//! Capability definitions: what one capability permits, how it is decided and recorded.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule};
use crate::event::vocabulary::vocabulary;
use crate::service::AuthorityDomain;

/// `schema_version` of a capability definition.
pub const SCHEMA_VERSION: &str = "sourceos.capability.v0.1";

/// The contract.
pub static CAPABILITY: Contract = Contract {
    name: "capability",
    urn: "urn:srcos:schema:capability:v0.1",
    file: "sourceos-capability.schema.json",
    schema: include_str!("../sourceos-capability.schema.json"),
    discriminator: Discriminator::Member("schema_version", SCHEMA_VERSION),
    profiled: false,
    rules: &[
        Rule {
            name: "capability.known-domains",
            says: "compatible authority domains are ones that services can have",
            origin: Origin::Ours,
            check: domains_are_known,
        },
        Rule {
            name: "capability.consent-is-asked",
            says: "what needs a person's consent is not allowed by default",
            origin: Origin::Ours,
            check: consent_is_asked,
        },
        Rule {
            name: "capability.private-use-is-recorded",
            says: "use of what can reveal much about a person is recorded",
            origin: Origin::Ours,
            check: private_use_is_recorded,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn domains_are_known(definition: &Value, findings: &mut Findings) {
    let domains = definition.get("compatible_authority_domains").and_then(Value::as_array);
    for (place, domain) in domains.into_iter().flatten().enumerate() {
        if let Some(domain) = domain.as_str()
            && AuthorityDomain::from_word(domain).is_none()
        {
            let known: Vec<&str> =
                AuthorityDomain::ALL.iter().map(|known| known.as_str()).collect();
            let message = format!("no service can have this domain: use {}", known.join(", "));
            findings.add(format!("/compatible_authority_domains/{place}"), message);
        }
    }
}

fn consent_is_asked(definition: &Value, findings: &mut Findings) {
    let needs_consent = definition.get("requires_user_consent") == Some(&Value::Bool(true));
    let default = definition.get("default_decision").and_then(Value::as_str);
    if needs_consent && default == Some("allow") {
        let message = "consent is required and yet it is allowed by default: say prompt or deny";
        findings.add("/default_decision", message);
    }
}

fn private_use_is_recorded(definition: &Value, findings: &mut Findings) {
    let word = |name: &str| definition.get(name).and_then(Value::as_str);
    if matches!(word("privacy_impact"), Some("high" | "sealed")) && word("audit") == Some("never") {
        let message = "what can reveal much about a person is never recorded: say on_use or always";
        findings.add("/audit", message);
    }
}

/// One capability that services can be given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapabilityDefinition {
    /// Kind of document: [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// Its name, in segments divided by points.
    pub capability: String,
    /// Which part of the system it opens.
    pub class: CapabilityClass,
    /// What it permits.
    pub description: String,
    /// What is decided where no policy says otherwise.
    pub default_decision: DefaultDecision,
    /// When its use is recorded.
    pub audit: Audit,
    /// How much it can reveal about a person.
    pub privacy_impact: PrivacyImpact,
    /// Whether a person must agree first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires_user_consent: Option<bool>,
    /// Authority domains in which it makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatible_authority_domains: Option<Vec<String>>,
    /// What to do when it is denied and should not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<String>,
    /// What else the document says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl CapabilityDefinition {
    /// A definition that denies, records every use, and presumes the worst for privacy: loosen what
    /// is known to be harmless.
    pub fn new(capability: &str, class: CapabilityClass, description: &str) -> Self {
        Self {
            schema_version: SCHEMA_VERSION.to_owned(),
            capability: capability.to_owned(),
            class,
            description: description.to_owned(),
            default_decision: DefaultDecision::Deny,
            audit: Audit::Always,
            privacy_impact: PrivacyImpact::High,
            requires_user_consent: None,
            compatible_authority_domains: None,
            remediation: None,
            extra: Map::new(),
        }
    }
}

impl Document for CapabilityDefinition {
    const CONTRACT: &'static Contract = &CAPABILITY;
}

vocabulary! {
    /// Which part of the system a capability opens.
    CapabilityClass {
        /// Messages between processes.
        Ipc = "ipc",
        /// Files.
        Filesystem = "filesystem",
        /// The network.
        Network = "network",
        /// Who somebody is.
        Identity = "identity",
        /// Counts and measures.
        Telemetry = "telemetry",
        /// What helps to find faults.
        Diagnostics = "diagnostics",
        /// Sleep and waking.
        Power = "power",
        /// Readers of foreign formats.
        Parser = "parser",
        /// Browsers and their helpers.
        Browser = "browser",
        /// Inference.
        Ai = "ai",
        /// Updates.
        Update = "update",
        /// Policy itself.
        Policy = "policy",
        /// Tools of developers.
        Developer = "developer",
    }
}

vocabulary! {
    /// What is decided where no policy says otherwise.
    DefaultDecision {
        /// It is given.
        Allow = "allow",
        /// It is not given.
        Deny = "deny",
        /// A person is asked.
        Prompt = "prompt",
        /// It is given, and recorded.
        Audit = "audit",
    }
}

vocabulary! {
    /// When use of a capability is recorded.
    Audit {
        /// Each time it is asked for.
        Always = "always",
        /// When it is denied.
        OnDeny = "on_deny",
        /// When it is used.
        OnUse = "on_use",
        /// Never.
        Never = "never",
    }
}

vocabulary! {
    /// How much a capability can reveal about a person.
    PrivacyImpact {
        /// Nothing.
        None = "none",
        /// Little.
        Low = "low",
        /// Something.
        Medium = "medium",
        /// Much.
        High = "high",
        /// What must stay sealed.
        Sealed = "sealed",
    }
}
