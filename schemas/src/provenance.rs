//! Who wrote what, when, with which signature.

use serde::{Deserialize, Serialize};

use crate::lanes::AbsentBodies;
use crate::time::Timestamp;

/// `provenance log`: the changes of one object, with the entries that carry them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvenanceLog {
    /// Name of the lane.
    pub lane: String,
    /// The object.
    pub id: String,
    /// Its changes, oldest first.
    pub changes: Vec<ProvenanceChange>,
}

/// One change and the signed entry that carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvenanceChange {
    /// Which life of the object.
    pub life: u32,
    /// The change's hash.
    pub change: String,
    /// The device that signed, in hexadecimal.
    pub author: String,
    /// The author's name in the roster, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author_name: Option<String>,
    /// The author's incarnation.
    pub incarnation: String,
    /// The entry's place in its journal.
    pub seq: u64,
    /// The entry's hash.
    pub entry: String,
    /// When it was written, by the author's clock.
    pub at: Timestamp,
    /// The ed25519 signature that covers the entry, in hexadecimal.
    pub signature: String,
    /// Whether that signature verifies.
    pub verified: bool,
    /// Whether the change's content is held here, or why not.
    pub content: ContentState,
}

/// Whether a change's content is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentState {
    /// It is.
    Held,
    /// Its author's policy keeps it back.
    Withheld,
    /// It was removed after a deletion.
    Purged,
    /// It should be held and is not.
    Missing,
}

/// `provenance verify`: all that is held, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProvenanceVerify {
    /// Whether nothing wrong was found in what is here.
    pub verified: bool,
    /// When the check ended.
    pub checked_at: Timestamp,
    /// What was checked, lane by lane.
    pub lanes: Vec<LaneVerification>,
}

/// What was checked in one lane, and what was found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LaneVerification {
    /// The lane's name.
    pub name: String,
    /// Journals walked from their first entry.
    pub journals: u64,
    /// Entries whose chain was checked.
    pub entries: u64,
    /// Signatures checked.
    pub signatures: u64,
    /// Change bodies whose hash was checked.
    pub bodies: u64,
    /// Bodies that are not here and could not be checked.
    #[serde(default)]
    pub absent_bodies: AbsentBodies,
    /// Rows of objects, saved documents and tombstones that read as they were written. That they were
    /// made rightly from the entries is not part of the check.
    #[serde(default)]
    pub rows: u64,
    /// What is wrong.
    pub findings: Vec<VerifyFinding>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyFinding {
    /// A stable code.
    pub code: String,
    /// The journal's author, in hexadecimal, where one is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The entry's place in its journal, where one is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The object, where one is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is wrong, in words.
    pub message: String,
}
