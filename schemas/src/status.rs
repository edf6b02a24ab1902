//! The node as a whole: status, readiness, errors, metrics, and the line printed when ready.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lanes::LaneState;
use crate::time::Timestamp;

/// `status`: one screen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// This device, in hexadecimal.
    pub device: String,
    /// Its name.
    pub name: String,
    /// The mesh, in hexadecimal.
    pub mesh: String,
    /// Version of the program that answers.
    pub version: String,
    /// When the state was looked at.
    pub generated_at: Timestamp,
    /// The data directory.
    pub data_dir: String,
    /// The daemon; null when none runs and the store was opened directly.
    pub daemon: Option<DaemonDocument>,
    /// How the node is, and why.
    pub readiness: Readiness,
    /// Members of the mesh besides this device.
    pub peers: PeerCounts,
    /// Each lane in brief.
    pub lanes: Vec<LaneSummary>,
    /// What is wrong or unusual, worst first, each with what to do.
    pub diagnosis: Vec<Diagnosis>,
}

/// The running daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonDocument {
    /// Its process id.
    pub pid: u32,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// Addresses on which peers can reach it, as multiaddresses.
    pub listen: Vec<String>,
    /// Its HTTP address; null when off.
    pub http: Option<String>,
    /// Whether all links are kept cut on purpose.
    pub offline: bool,
    /// Whether devices are looked for on the local network.
    pub discovery: bool,
}

/// Other members of the mesh, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerCounts {
    /// Members.
    pub members: usize,
    /// Members connected now.
    pub connected: usize,
    /// Members with which every shared lane is proven in sync.
    pub in_sync: usize,
}

/// One lane in brief.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneSummary {
    /// The lane's name.
    pub name: String,
    /// How it is.
    pub status: LaneState,
    /// Objects that reads show.
    pub live: u64,
    /// Entries held but not applied.
    pub unapplied_entries: u64,
    /// Members proven in sync.
    pub peers_in_sync: usize,
    /// Members with which the lane is shared.
    pub peers: usize,
}

/// Something wrong or unusual, and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code.
    pub code: String,
    /// What is so, in a sentence.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Needs attention.
    Warning,
    /// Needs it now.
    Critical,
}

/// Whether the node can be relied on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// How it is.
    pub state: ReadyState,
    /// Why, in a sentence.
    pub reason: String,
}

/// Whether the node can be relied on, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyState {
    /// All that was looked at is well.
    Healthy,
    /// It works, with something outside its agreement.
    Degraded,
    /// It must not be relied on.
    Unsafe,
    /// There is no data directory yet.
    Uninitialised,
    /// Not everything has been looked at.
    Unknown,
}

impl ReadyState {
    /// Whether to send work to the node: only where it is known to work.
    pub fn is_ready(self) -> bool {
        match self {
            Self::Healthy | Self::Degraded => true,
            Self::Unsafe | Self::Uninitialised | Self::Unknown => false,
        }
    }
}

/// The line that `run` prints when it is ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadyDocument {
    /// Always true.
    pub ready: bool,
    /// This device, in hexadecimal.
    pub device: String,
    /// Addresses on which peers can reach it, as multiaddresses.
    pub listen: Vec<String>,
    /// Its HTTP address; null when off.
    pub http: Option<String>,
}

/// An error, as HTTP and `--json` show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// The error.
    pub error: ErrorBody,
}

/// What an error says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The sort of error, which decides exit code and HTTP status.
    pub kind: String,
    /// A stable code for scripts.
    pub code: String,
    /// What failed and why.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The lane, object, file or field concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// One measured fact, for `/metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricFact {
    /// Name in Prometheus style: `srcos_journal_entries`.
    pub name: String,
    /// What is counted, in a sentence.
    pub help: String,
    /// Whether it only ever grows.
    pub kind: MetricKind,
    /// What tells values of one name apart: `lane="normal"`.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// Whether a metric only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// It does, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// `init`: what was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitDocument {
    /// This device, in hexadecimal.
    pub device: String,
    /// Its name.
    pub name: String,
    /// The mesh, founded with this device as its only member, in hexadecimal.
    pub mesh: String,
    /// The data directory.
    pub data_dir: String,
}
