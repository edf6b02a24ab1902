//! The state and the definitions of lanes.

mod contract;

use serde::{Deserialize, Serialize};

pub use self::contract::{LANE, LANE_NAMES, LANES_STATUS};

use crate::time::Timestamp;

/// `lanes status`: the state of each lane here and against each peer.
///
/// It is written with its contract in a member `schema`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schema", rename = "sourceos.lanes-status/v1alpha1")]
pub struct LanesStatus {
    /// This device, in hexadecimal.
    pub device: String,
    /// The mesh, in hexadecimal.
    pub mesh: String,
    /// When the state was looked at.
    pub generated_at: Timestamp,
    /// The lanes, in their usual order.
    pub lanes: Vec<LaneStatus>,
}

/// The state of one lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// The lane's name.
    pub name: String,
    /// How it is.
    pub status: LaneState,
    /// What it holds.
    pub objects: ObjectCounts,
    /// Its journals, all devices' together.
    pub journal: JournalState,
    /// How it stands against each peer.
    pub replication: ReplicationState,
}

/// How a lane is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// In use, and as agreed.
    Active,
    /// Nothing was ever written to it.
    Dormant,
    /// Outside its agreement: late, or with something quarantined.
    Degraded,
    /// Being repaired.
    Repairing,
    /// No longer written to.
    Retired,
    /// What it holds must not be relied on.
    Unsafe,
}

/// What a lane holds, in objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObjectCounts {
    /// Objects that reads show.
    pub live: u64,
    /// Deleted or expired objects whose record is kept.
    pub hidden: u64,
    /// Live objects with a field in conflict.
    pub conflicted: u64,
    /// Objects set apart because something about them is wrong.
    pub quarantined: u64,
}

/// The journals of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JournalState {
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Entries held but not applied, because what they build on is not held yet.
    pub unapplied_entries: u64,
    /// For how long the oldest of those has been held, in milliseconds; null where there is none.
    pub oldest_unapplied_ms: Option<u64>,
    /// Bodies of held entries that are not here: an object that has any may be another one elsewhere.
    /// Absent where they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_bodies: Option<AbsentBodies>,
}

/// Bodies of held entries that are not here, by the reason why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AbsentBodies {
    /// Kept on other devices by their policy: the class of the object does not leave them.
    pub withheld: u64,
    /// Removed after a deletion.
    pub purged: u64,
    /// Missing.
    pub missing: u64,
}

impl AbsentBodies {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.withheld + self.purged + self.missing
    }
}

/// How a lane stands against each peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicationState {
    /// Whether it leaves the device.
    pub mode: ReplicationMode,
    /// The peers; empty where it does not leave the device.
    pub peers: Vec<LanePeer>,
}

/// Whether a lane leaves the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicationMode {
    /// To the members of the mesh.
    Replicated,
    /// Never: its meaning is local.
    LocalOnly,
    /// Not without a grant.
    Denied,
}

/// How one lane stands against one peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LanePeer {
    /// The peer, in hexadecimal.
    pub device: String,
    /// Its name.
    pub name: String,
    /// How the lane stands.
    pub state: LanePeerState,
    /// Entries that the peer has and this device lacks; null where not known.
    pub missing_here: Option<u64>,
    /// Entries that this device has and the peer lacks; null where not known.
    pub missing_there: Option<u64>,
    /// When this was last learned from the peer itself; null if never.
    pub confirmed_at: Option<Timestamp>,
}

/// How one lane stands against one peer, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LanePeerState {
    /// Equality was proven since the last change.
    InSync,
    /// The peer has entries that this device lacks.
    Behind,
    /// This device has entries that the peer lacks.
    Ahead,
    /// Each has entries that the other lacks.
    Diverged,
    /// Something other than distance keeps entries from going over.
    Blocked,
    /// There is no connection to the peer.
    Unreachable,
    /// Not looked at since the last change.
    Unknown,
}

/// `lanes list` and `lanes describe`: what a lane is for and how it treats what it holds.
///
/// It is written with its contract in a member `schema`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schema", rename = "sourceos.lane/v1alpha1")]
pub struct LaneDescription {
    /// The lane's name.
    pub name: String,
    /// What belongs in it.
    pub purpose: String,
    /// Whether it leaves the device by default.
    pub replication: ReplicationMode,
    /// The same, in words.
    pub replication_words: String,
    /// Whether its objects are found by search, in words.
    pub searchable: String,
    /// Whether agents see its objects, in words.
    pub agent_visible: String,
    /// How long its objects are kept, in words.
    pub retention: String,
    /// When it is compacted, in words.
    pub compaction: String,
    /// When what was deleted is purged, in words.
    pub purge: String,
    /// How late it may be before it is degraded.
    pub sla: SlaDocument,
    /// Bounds of the time to live, in a lane whose objects expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlDocument>,
    /// Whether an object, once written, is never changed.
    pub append_only: bool,
    /// Whether only the node itself writes to it.
    pub node_writes_only: bool,
}

/// How late a lane may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaDocument {
    /// Longest time without a sign of life, in milliseconds.
    pub heartbeat_age_ms_max: u64,
    /// Most entries held but not applied.
    pub replay_lag_entries_max: u64,
    /// Longest time for which an entry may be held but not applied, in milliseconds.
    pub replay_lag_ms_max: u64,
}

/// Bounds of the time to live of a lane's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtlDocument {
    /// Given to an object that asks for none, in milliseconds.
    pub default_ms: u64,
    /// The most that an object may ask for, in milliseconds.
    pub max_ms: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lanes_status_has_the_fields_that_scripts_rely_on() {
        let status = LanesStatus {
            device: "d".into(),
            mesh: "m".into(),
            generated_at: Timestamp(0),
            lanes: vec![LaneStatus {
                name: "normal".into(),
                status: LaneState::Active,
                objects: ObjectCounts { live: 1, ..ObjectCounts::default() },
                journal: JournalState::default(),
                replication: ReplicationState {
                    mode: ReplicationMode::Replicated,
                    peers: vec![LanePeer {
                        device: "p".into(),
                        name: "desktop".into(),
                        state: LanePeerState::InSync,
                        missing_here: Some(0),
                        missing_there: Some(0),
                        confirmed_at: None,
                    }],
                },
            }],
        };
        let shown = json!({
            "schema": "sourceos.lanes-status/v1alpha1",
            "device": "d", "mesh": "m", "generated_at": "1970-01-01T00:00:00.000Z",
            "lanes": [{
                "name": "normal", "status": "active",
                "objects": {"live": 1, "hidden": 0, "conflicted": 0, "quarantined": 0},
                "journal": {
                    "entries": 0, "bytes": 0, "unapplied_entries": 0, "oldest_unapplied_ms": null
                },
                "replication": {"mode": "replicated", "peers": [{
                    "device": "p", "name": "desktop", "state": "in_sync",
                    "missing_here": 0, "missing_there": 0, "confirmed_at": null
                }]}
            }]
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), shown);
        assert_eq!(serde_json::from_value::<LanesStatus>(shown).unwrap(), status);
    }
}
