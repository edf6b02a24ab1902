//! Runtime registry integrity records: whether what the system has on record about a component is whole.
//!
//! The contract was published in two forms that no one record satisfies. [`RuntimeRegistry`] is the one
//! model; it is written in the published form, and [`RuntimeRegistry::proposal`] and
//! [`RuntimeRegistry::from_proposal`] are the way to the other and back (ADR 0011).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::contract::SpecVersion;
use super::{list, text};
use crate::contracts::{
    self, Contract, Discriminator, Document, Findings, InvalidDocument, Options, Origin, Profile,
    Rule, Valid, constant_text,
};

/// The contract.
pub static RUNTIME_REGISTRY: Contract = Contract {
    name: "runtime-registry-integrity-record",
    urn: "urn:srcos:schema:runtime-registry-integrity-record:v0.1",
    file: "RuntimeRegistryIntegrityRecord.json",
    schema: include_str!("../../RuntimeRegistryIntegrityRecord.json"),
    discriminator: Discriminator::TypeOrId(
        "RuntimeRegistryIntegrityRecord",
        "urn:srcos:runtime-registry-integrity:",
    ),
    profiled: true,
    rules: &[Rule {
        name: "registry.verdict-follows",
        says: "the verdict is not better than the records are",
        origin: Origin::Ours,
        check: verdict_follows,
    }],
    compiled: Contract::not_compiled(),
};

fn verdict_follows(record: &Value, findings: &mut Findings) {
    if text(record, "verificationVerdict") != Some("valid") {
        return;
    }
    let lists = ["registryRecords", "extensionRecords", "brokerRecords"];
    let states = lists
        .into_iter()
        .flat_map(|name| list(record, name))
        .filter_map(|(_, item)| text(item, "state"));
    let worst = states.chain(text(record, "receiptState")).find(|state| *state != "present");
    if let Some(state) = worst {
        let message =
            format!("it says valid, and a record is {state}: say what the records amount to");
        findings.add("/verificationVerdict", message);
    }
}

constant_text! {
    /// Says that a document is a runtime registry integrity record.
    RegistryKind = "RuntimeRegistryIntegrityRecord"
}

/// A runtime registry integrity record, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeRegistry {
    /// Names it: a URN.
    pub id: String,
    /// Kind of document.
    #[serde(rename = "type")]
    pub kind: RegistryKind,
    /// Version.
    #[serde(with = "super::any_version")]
    pub spec_version: SpecVersion,
    /// When it was looked at: an RFC 3339 time.
    pub observed_at: String,
    /// Which component it is about.
    pub component_ref: String,
    /// Names the package that it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_or_package_identity: Option<String>,
    /// Digest of the package's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// How it is in all.
    pub verification_verdict: RegistryVerdict,
    /// The records that were looked at.
    pub registry_records: Vec<RegistryRecord>,
    /// Names of what this rests on.
    #[serde(default)]
    pub evidence_refs: Vec<String>,
    /// The whole in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_summary: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_hint: Option<String>,
}

impl Document for RuntimeRegistry {
    const CONTRACT: &'static Contract = &RUNTIME_REGISTRY;
}

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryRecord {
    /// What sort of record it is.
    pub record_kind: RecordKind,
    /// Names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_ref: Option<String>,
    /// How it was found.
    pub state: RecordState,
    /// A stable code for what is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// What a person notices of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_impact: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_hint: Option<String>,
}

/// A sort of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// Of an installation.
    Receipt,
    /// Of an extension.
    ExtensionRecord,
    /// Of a place for extensions.
    ExtensionPoint,
    /// Of a broker.
    BrokerRecord,
    /// The manifest of a package.
    PackageManifest,
    /// Of a start.
    LaunchRecord,
    /// Of a profile.
    ProfileRecord,
    /// Of a namespace.
    NamespaceDescriptor,
    /// Not known.
    Unknown,
}

/// How a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordState {
    /// There and whole.
    Present,
    /// Not there.
    Missing,
    /// There and wrong.
    Invalid,
    /// There and old.
    Stale,
    /// Set apart.
    Quarantined,
    /// Not known.
    Unknown,
}

/// How the records of a component are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryVerdict {
    /// Whole.
    Valid,
    /// Something is amiss.
    Degraded,
    /// What must be there is not.
    Missing,
    /// What must be right is wrong.
    Invalid,
    /// It is set apart.
    Quarantined,
    /// Not known.
    Unknown,
}

impl RegistryVerdict {
    /// The verdict that follows from records: a missing receipt, an invalid manifest, a missing extension
    /// record and a quarantined plugin are told apart by the records, and here by how much they weigh.
    pub fn of(records: &[RegistryRecord]) -> Self {
        let any = |state: RecordState, kinds: &[RecordKind]| {
            let fits = |kind| kinds.is_empty() || kinds.contains(&kind);
            records.iter().any(|record| record.state == state && fits(record.record_kind))
        };
        let all_known = records.iter().all(|record| record.state != RecordState::Unknown);
        if any(RecordState::Quarantined, &[]) {
            Self::Quarantined
        } else if any(RecordState::Invalid, &[RecordKind::PackageManifest, RecordKind::Receipt]) {
            Self::Invalid
        } else if any(RecordState::Missing, &[RecordKind::PackageManifest, RecordKind::Receipt]) {
            Self::Missing
        } else if records
            .iter()
            .any(|record| !matches!(record.state, RecordState::Present | RecordState::Unknown))
        {
            Self::Degraded
        } else if all_known && !records.is_empty() {
            Self::Valid
        } else {
            Self::Unknown
        }
    }
}

impl RuntimeRegistry {
    /// The same in the form of the proposal: the receipt's state by itself, extensions and brokers in lists
    /// of their own. What that form has no place for (other records, the time) is left out; what it requires and
    /// is not known here is empty, and the state of a receipt that was not looked at is unknown. A verdict
    /// that is not known is `degraded` there: that form has no other word for what is not whole for sure.
    pub fn proposal(&self) -> Value {
        let of = |kinds: &[RecordKind]| -> Vec<&RegistryRecord> {
            self.registry_records
                .iter()
                .filter(|record| kinds.contains(&record.record_kind))
                .collect()
        };
        let receipt =
            of(&[RecordKind::Receipt]).first().map_or(RecordState::Unknown, |record| record.state);
        json!({
            "id": self.id,
            "type": self.kind,
            "specVersion": self.spec_version,
            "componentRef": self.component_ref,
            "bundleOrPackageIdentity": self.bundle_or_package_identity.as_deref().unwrap_or_default(),
            "manifestDigest": self.manifest_digest.as_deref().unwrap_or_default(),
            "verificationVerdict": match self.verification_verdict {
                RegistryVerdict::Unknown => RegistryVerdict::Degraded,
                known => known,
            },
            "remediationHint": self.remediation_hint.as_deref().unwrap_or_default(),
            "receiptState": receipt,
            "extensionRecords": of(&[RecordKind::ExtensionRecord, RecordKind::ExtensionPoint]),
            "brokerRecords": of(&[RecordKind::BrokerRecord]),
            "evidenceRefs": self.evidence_refs,
        })
    }

    /// Reads the form of the proposal. It has no time, so that comes from the caller; a record that is a mere
    /// name is taken for one whose state is not known.
    pub fn from_proposal(
        proposal: &Value,
        observed_at: &str,
    ) -> Result<Valid<Self>, InvalidDocument> {
        let options = Options {
            contract: Some(&RUNTIME_REGISTRY),
            profile: Some(Profile::Proposal),
            strict: false,
        };
        let verdict = contracts::validate(proposal, &options);
        if !verdict.is_valid() {
            return Err(InvalidDocument {
                contract: RUNTIME_REGISTRY.name,
                findings: verdict.errors,
            });
        }
        let mut members = proposal.as_object().cloned().unwrap_or_default();
        let receipt = members.remove("receiptState").unwrap_or_default();
        let mut records = vec![json!({"recordKind": RecordKind::Receipt, "state": receipt})];
        let lists = [
            ("extensionRecords", RecordKind::ExtensionRecord),
            ("brokerRecords", RecordKind::BrokerRecord),
        ];
        for (name, kind) in lists {
            let Some(Value::Array(items)) = members.remove(name) else { continue };
            records.extend(items.into_iter().map(|item| match item {
                Value::String(name) => {
                    json!({"recordKind": kind, "recordRef": name, "state": RecordState::Unknown})
                }
                item => item,
            }));
        }
        let fixed = Map::from_iter([
            ("type".to_owned(), json!(RegistryKind)),
            ("specVersion".to_owned(), json!(SpecVersion)),
            ("observedAt".to_owned(), json!(observed_at)),
            ("registryRecords".to_owned(), Value::Array(records)),
        ]);
        members.extend(fixed);
        Valid::read(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> RuntimeRegistry {
        let text = include_str!("../../../examples/capability-authority/registry.published.json");
        let value: Value = serde_json::from_str(text).unwrap();
        Valid::<RuntimeRegistry>::read(value).unwrap().into_inner()
    }

    #[test]
    fn no_record_satisfies_both_forms_and_each_projection_satisfies_its_own() {
        let registry = example();
        let held = |document: &Value| contracts::validate(document, &Options::default()).profiles;
        assert_eq!(held(&serde_json::to_value(&registry).unwrap()), [Profile::Published]);
        assert_eq!(held(&registry.proposal()), [Profile::Proposal]);
    }

    #[test]
    fn the_proposal_has_no_word_for_a_verdict_that_is_not_known() {
        let mut registry = example();
        registry.verification_verdict = RegistryVerdict::Unknown;
        let held = |document: &Value| contracts::validate(document, &Options::default()).profiles;
        assert_eq!(held(&serde_json::to_value(&registry).unwrap()), [Profile::Published]);
        let mut proposal = registry.proposal();
        assert_eq!(held(&proposal), [Profile::Proposal]);
        proposal["verificationVerdict"] = json!("unknown");
        assert_eq!(held(&proposal), []);
    }

    #[test]
    fn what_the_proposal_has_a_place_for_survives_the_way_there_and_back() {
        let registry = example();
        let back =
            RuntimeRegistry::from_proposal(&registry.proposal(), &registry.observed_at).unwrap();
        let kept = [RecordKind::Receipt, RecordKind::ExtensionRecord, RecordKind::BrokerRecord];
        let of = |registry: &RuntimeRegistry| -> Vec<(RecordKind, RecordState)> {
            let records = registry
                .registry_records
                .iter()
                .filter(|record| kept.contains(&record.record_kind));
            records.map(|record| (record.record_kind, record.state)).collect()
        };
        assert_eq!(of(&back), of(&registry));
        assert_eq!(back.id, registry.id);
        assert_eq!(back.proposal(), registry.proposal());
    }

    #[test]
    fn faults_of_a_registry_are_told_apart() {
        let record = |record_kind, state| RegistryRecord {
            record_kind,
            record_ref: None,
            state,
            error_code: None,
            user_visible_impact: None,
            remediation_hint: None,
        };
        let check = |kind, state, verdict| {
            let records =
                [record(RecordKind::ProfileRecord, RecordState::Present), record(kind, state)];
            assert_eq!(RegistryVerdict::of(&records), verdict, "{kind:?} {state:?}");
        };
        check(RecordKind::Receipt, RecordState::Missing, RegistryVerdict::Missing);
        check(RecordKind::PackageManifest, RecordState::Invalid, RegistryVerdict::Invalid);
        check(RecordKind::ExtensionRecord, RecordState::Missing, RegistryVerdict::Degraded);
        check(RecordKind::ExtensionRecord, RecordState::Quarantined, RegistryVerdict::Quarantined);
        check(RecordKind::ExtensionRecord, RecordState::Present, RegistryVerdict::Valid);
        check(RecordKind::ExtensionRecord, RecordState::Unknown, RegistryVerdict::Unknown);
        assert_eq!(RegistryVerdict::of(&[]), RegistryVerdict::Unknown);
    }
}
