//! State integrity reports: whether the state of one component is whole.

mod rules;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contracts::{Contract, Discriminator, Document, constant_text};
use crate::lanes::LaneState;

/// The contract.
pub static STATE_REPORT: Contract = Contract {
    name: "state-integrity-report",
    urn: "urn:srcos:schema:state-integrity-report:v1alpha1",
    file: "sourceos.state-integrity-report.v1alpha1.schema.json",
    schema: include_str!("../sourceos.state-integrity-report.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", SCHEMA),
    profiled: false,
    rules: &rules::RULES,
    compiled: Contract::not_compiled(),
};

const SCHEMA: &str = "sourceos.state-integrity-report/v1alpha1";

constant_text! {
    /// Contract and version of a report.
    ReportSchema = SCHEMA
}

/// A report, as it is written and read. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateReport {
    /// Contract and version.
    pub schema: ReportSchema,
    /// When it was made.
    pub generated_at: String,
    /// Which component it is about.
    pub identity: Identity,
    /// How it came about, and what could not be looked at.
    pub collection: Collection,
    /// When the component did what.
    pub runtime: Runtime,
    /// The stores that it keeps.
    pub stores: Vec<Store>,
    /// The lanes that it keeps.
    pub lanes: Vec<Lane>,
    /// How many requests came to which stage.
    pub pipeline: Map<String, Value>,
    /// What it has to live on.
    pub resources: Resources,
    /// Who decides, and how often which answer was given.
    pub policy: PolicyCounts,
    /// What must hold, and whether it does.
    pub invariants: Vec<Invariant>,
    /// What it means in all.
    pub diagnosis: Map<String, Value>,
    /// What can be done about it.
    pub controls: Vec<Map<String, Value>>,
    /// Who signed it, with what.
    pub attestation: Map<String, Value>,
}

impl Document for StateReport {
    const CONTRACT: &'static Contract = &STATE_REPORT;
}

/// Which component on which device a report is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the component.
    pub component: String,
    /// Where its source lies.
    pub repo: String,
    /// Number of its process.
    pub pid: u64,
    /// Name of its process.
    pub process_name: String,
    /// A digest that stands for the device and does not reveal its name.
    pub node_id_hash: String,
    /// Names the boot of the machine, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Version of the component.
    pub version: String,
    /// Commit that it was built from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How it was built, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_provenance: Option<String>,
    /// Which system it runs on.
    pub platform: Platform,
    /// What starts and stops it.
    pub service_manager: ServiceManager,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A system that components run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Platform {
    /// Linux.
    Linux,
    /// macOS.
    Darwin,
    /// Windows.
    Windows,
    /// Not known.
    Unknown,
}

/// What starts and stops a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceManager {
    /// systemd.
    Systemd,
    /// launchd.
    Launchd,
    /// The service control manager of Windows.
    WindowsService,
    /// A person, or another program.
    Manual,
    /// Not known.
    Unknown,
}

/// How a report came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collection {
    /// Whether all was looked at.
    pub status: CollectionStatus,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What went wrong while looking.
    pub errors: Vec<String>,
    /// Members left out for privacy.
    pub redacted_fields: Vec<String>,
    /// Members that could not be looked at for want of permission.
    pub permission_denied_fields: Vec<String>,
    /// Members that took too long.
    pub timed_out_fields: Vec<String>,
    /// Members for which there is nothing to look at here.
    pub unavailable_fields: Vec<String>,
}

/// Whether all was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectionStatus {
    /// All of it.
    Complete,
    /// Not all; the lists say what not.
    Partial,
    /// Nothing that could be relied on.
    Failed,
}

/// When a component did what; nothing where it never did, or that is not known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Runtime {
    /// Its process was started.
    pub process_started_at: Option<String>,
    /// It could first serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_ready_at: Option<String>,
    /// Its store was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_opened_at: Option<String>,
    /// It began to apply what was held and not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_started_at: Option<String>,
    /// That was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_completed_at: Option<String>,
    /// It first gave a sign of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_heartbeat_at: Option<String>,
    /// It last gave a sign of life.
    pub last_heartbeat_at: Option<String>,
    /// It was last stopped in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_clean_shutdown_at: Option<String>,
    /// A store was last opened that had not been closed in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_dirty_open_at: Option<String>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// Names it.
    pub name: String,
    /// What it is for at present.
    pub role: StoreRole,
    /// What keeps the bytes.
    pub backend: String,
    /// Version of how it is laid out.
    pub schema_version: String,
    /// Version of the program that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by_version: Option<String>,
    /// Version of the program that has it open.
    pub runtime_version: String,
    /// Version of the program that had it open before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_runtime_version: Option<String>,
    /// How far a move to another layout has come.
    pub migration_state: MigrationState,
    /// Number of the generation in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_generation: Option<u64>,
    /// Number of the last generation that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_good_generation: Option<u64>,
    /// Whether a second copy is kept beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_present: Option<bool>,
    /// Whether the file is there that lists its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_present: Option<bool>,
    /// Whether the bytes are those that were written.
    pub checksum_state: ChecksumState,
    /// The flag bits.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<StoreFlags>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The flag bits of a store, as number and text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreFlags {
    /// As a number.
    pub flags_raw: u64,
    /// In hexadecimal: `0x` and digits.
    pub flags_hex: String,
    /// Names of the set bits that are known.
    #[serde(default)]
    pub flags_decoded: Vec<String>,
    /// Set bits without a known name.
    #[serde(default)]
    pub unknown_flags: Vec<String>,
}

impl StoreFlags {
    /// The flags of a number: so number and text cannot disagree.
    pub fn new(raw: u64, decoded: Vec<String>, unknown: Vec<String>) -> Self {
        let flags_hex = format!("{raw:#x}");
        Self { flags_raw: raw, flags_hex, flags_decoded: decoded, unknown_flags: unknown }
    }
}

/// What a store is for at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreRole {
    /// Read and written.
    Active,
    /// A second copy.
    Shadow,
    /// Being built to take over.
    Migration,
    /// Kept, not written.
    Archive,
    /// Being repaired.
    Repair,
    /// No longer used.
    Retired,
    /// Set apart because something about it is wrong.
    Quarantined,
    /// Being built anew from what it is derived from.
    Rebuilding,
}

/// How far a move to another layout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// There is none.
    None,
    /// It has not begun.
    Pending,
    /// It happens as records are touched.
    Lazy,
    /// It is under way.
    Running,
    /// It is done.
    Complete,
    /// It went wrong.
    Failed,
    /// It is done, and there is a way back.
    RollbackAvailable,
}

/// Whether the bytes of a store are those that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChecksumState {
    /// They were checked and are.
    Verified,
    /// They were not checked.
    Unverified,
    /// They were checked and are not.
    Mismatch,
    /// The store keeps nothing to check them by.
    Unsupported,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// Names it.
    pub name: String,
    /// How it is.
    pub status: LaneState,
    /// How late it may be.
    pub sla: BTreeMap<String, u64>,
    /// How many objects of which sort it holds.
    pub objects: BTreeMap<String, u64>,
    /// State of its journals.
    pub journal: Map<String, Value>,
    /// When it was last compacted, purged and repaired.
    pub maintenance: Map<String, Value>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a component has to live on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// The file system on which the stores lie.
    pub disk: Disk,
    /// What is known of memory.
    pub memory: Map<String, Value>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The file system on which the stores lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Which file system it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// What part of it is free, from 0 to 1.
    pub free_ratio: f64,
    /// How short the space is.
    pub pressure: Pressure,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Disk {
    /// The state of a file system: part and pressure follow from the bytes, so that they agree. A file
    /// system of no bytes has an unknown pressure.
    pub fn new(filesystem: Option<String>, free_bytes: u64, total_bytes: u64) -> Self {
        let free_bytes = free_bytes.min(total_bytes);
        let total_bytes = total_bytes.max(1);
        let free_ratio = ratio(free_bytes, total_bytes);
        let pressure = if total_bytes == 1 { Pressure::Unknown } else { Pressure::of(free_ratio) };
        Self { filesystem, free_bytes, total_bytes, free_ratio, pressure, extra: Map::new() }
    }
}

/// Which part one number is of another, to four places.
fn ratio(part: u64, whole: u64) -> f64 {
    (part as f64 / whole as f64 * 10_000.0).round() / 10_000.0
}

/// How short the space on a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pressure {
    /// There is enough.
    None,
    /// A fifth or less is free.
    Watch,
    /// A tenth or less is free.
    Warning,
    /// A twentieth or less is free.
    Critical,
    /// Not known.
    Unknown,
}

impl Pressure {
    /// The pressure where such a part of the disk is free.
    pub fn of(free_ratio: f64) -> Self {
        match free_ratio {
            free if free <= 0.05 => Self::Critical,
            free if free <= 0.10 => Self::Warning,
            free if free <= 0.20 => Self::Watch,
            _ => Self::None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Watch => "watch",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// Who decides, and how often which answer was given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyCounts {
    /// Who decides.
    pub policy_engine: String,
    /// How many decisions of which outcome.
    pub policy_decisions: BTreeMap<String, u64>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invariant {
    /// Names it.
    pub id: String,
    /// Whether it holds.
    pub status: CheckStatus,
    /// How grave it is if it does not.
    pub severity: Gravity,
    /// What was looked at, and what was seen.
    pub evidence: Map<String, Value>,
    /// What to do if it does not hold.
    pub remediation: String,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It does.
    Pass,
    /// Not quite.
    Warn,
    /// It does not.
    Fail,
}

/// How grave something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gravity {
    /// Good to know.
    Info,
    /// Needs attention.
    Warning,
    /// Something failed.
    Error,
    /// Needs attention now.
    Critical,
}

#[cfg(test)]
mod tests;
