//! The eleven index lanes and what each promises by default.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::ParseIdError;

/// One of the eleven lanes. Ordered by the code that stores and wire use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
#[serde(try_from = "u8", into = "u8")]
pub enum LaneId {
    /// Everyday state.
    Normal,
    /// State that overtakes everything else.
    Priority,
    /// State that stays on its device unless a policy grants otherwise.
    Secure,
    /// State with a bounded time to live.
    Ephemeral,
    /// What agents and people want remembered.
    Memory,
    /// Decisions of policy.
    Policy,
    /// The append-only record of what happened.
    Audit,
    /// Records of deletions.
    Tombstone,
    /// State that is being moved from one generation to another.
    Migration,
    /// Quarantine: damaged or disputed state.
    Repair,
    /// State kept for long and read seldom.
    Archive,
}

use LaneId::{
    Archive, Audit, Ephemeral, Memory, Migration, Normal, Policy, Priority, Repair, Secure,
    Tombstone,
};

impl LaneId {
    /// Every lane, in the order in which people list them.
    pub const ALL: [Self; 11] = [
        Normal, Priority, Secure, Ephemeral, Memory, Policy, Audit, Tombstone, Migration, Repair,
        Archive,
    ];

    /// Every lane, in the order in which they are sent: what must not wait comes first, and
    /// deletions come before what they delete.
    pub const BY_URGENCY: [Self; 11] = [
        Priority, Policy, Tombstone, Audit, Memory, Normal, Secure, Repair, Migration, Ephemeral,
        Archive,
    ];

    /// The byte that stands for the lane in stores and on the wire. Never reused.
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The lane of a byte.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// The lane's name.
    pub const fn name(self) -> &'static str {
        match self {
            Normal => "normal",
            Priority => "priority",
            Secure => "secure",
            Ephemeral => "ephemeral",
            Memory => "memory",
            Policy => "policy",
            Audit => "audit",
            Tombstone => "tombstone",
            Migration => "migration",
            Repair => "repair",
            Archive => "archive",
        }
    }

    /// What the lane promises by default.
    pub fn definition(self) -> &'static LaneDefinition {
        &DEFINITIONS[self as usize]
    }
}

impl From<LaneId> for u8 {
    fn from(lane: LaneId) -> Self {
        lane.code()
    }
}

impl TryFrom<u8> for LaneId {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        Self::from_code(code).ok_or_else(|| format!("no lane has code {code}"))
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for LaneId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Self::ALL.into_iter().find(|lane| lane.name() == text).ok_or_else(|| ParseIdError {
            what: "a lane",
            expected: "one of normal, priority, secure, ephemeral, memory, policy, audit, \
                       tombstone, migration, repair, archive",
            found: text.chars().take(80).collect(),
        })
    }
}

/// Whether a lane's objects leave the device, before any policy file has a say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replication {
    /// To every member of the mesh, confined classes excepted.
    Members,
    /// To nobody without a grant; a grant may open the lane.
    DeniedByDefault,
    /// To nobody: the lane's meaning is local.
    LocalOnly,
}

/// How late a lane may be before it is reported as outside its agreement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sla {
    /// Longest time without a sign of life of the lane, in milliseconds.
    pub heartbeat_age_ms_max: u64,
    /// Most entries that may be held but not applied.
    pub replay_lag_entries_max: u64,
    /// Longest time for which an entry may be held but not applied, in milliseconds.
    pub replay_lag_ms_max: u64,
}

/// Bounds of the time that an object of an expiring lane lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeToLive {
    /// Given to an object that asks for none, in milliseconds.
    pub default_ms: u64,
    /// The most that an object may ask for, in milliseconds.
    pub max_ms: u64,
}

/// What a lane is for and how it treats what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneDefinition {
    /// The lane.
    pub lane: LaneId,
    /// What belongs in it, in a sentence.
    pub purpose: &'static str,
    /// Whether its objects are found by search, in words.
    pub searchable: &'static str,
    /// Whether agents see its objects, in words.
    pub agent_visible: &'static str,
    /// Whether its objects leave the device.
    pub replication: Replication,
    /// How long its objects are kept, in words.
    pub retention: &'static str,
    /// When it is compacted, in words.
    pub compaction: &'static str,
    /// When what was deleted is purged, in words.
    pub purge: &'static str,
    /// How late it may be.
    pub sla: Sla,
    /// Set for the lane whose objects expire.
    pub ttl: Option<TimeToLive>,
    /// An object, once written, is never changed or deleted by a person or program.
    pub append_only: bool,
    /// Only the node itself writes to the lane.
    pub node_writes_only: bool,
}

const SLA: Sla =
    Sla { heartbeat_age_ms_max: 30_000, replay_lag_entries_max: 100, replay_lag_ms_max: 10_000 };

const STANDARD: LaneDefinition = LaneDefinition {
    lane: Normal,
    purpose: "everyday state: file metadata, notes, records of apps",
    searchable: "yes",
    agent_visible: "as policy allows",
    replication: Replication::Members,
    retention: "standard",
    compaction: "when there is an opportunity",
    purge: "driven by policy",
    sla: SLA,
    ttl: None,
    append_only: false,
    node_writes_only: false,
};

const DEFINITIONS: [LaneDefinition; 11] = [
    STANDARD,
    LaneDefinition {
        lane: Priority,
        purpose: "state that must not wait; it overtakes every other lane",
        retention: "short to standard, by domain",
        compaction: "preemptive",
        purge: "conservative",
        sla: Sla {
            heartbeat_age_ms_max: 30_000,
            replay_lag_entries_max: 0,
            replay_lag_ms_max: 1_000,
        },
        ..STANDARD
    },
    LaneDefinition {
        lane: Secure,
        purpose: "state that stays on its device unless a policy grants otherwise",
        searchable: "redacted or off, unless policy allows",
        agent_visible: "denied by default",
        replication: Replication::DeniedByDefault,
        retention: "by explicit policy only",
        compaction: "encrypted and checkpointed",
        purge: "audited",
        ..STANDARD
    },
    LaneDefinition {
        lane: Ephemeral,
        purpose: "state of the moment, gone when its time to live ends",
        searchable: "no",
        agent_visible: "in the local session only",
        replication: Replication::LocalOnly,
        retention: "a bounded time to live",
        compaction: "usually none",
        purge: "aggressive; the first lane to go under pressure",
        ttl: Some(TimeToLive { default_ms: 60 * 60 * 1000, max_ms: 24 * 60 * 60 * 1000 }),
        ..STANDARD
    },
    LaneDefinition {
        lane: Memory,
        purpose: "what people and agents want remembered",
        searchable: "yes, as policy allows",
        agent_visible: "as trust allows",
        retention: "explicit for each class of memory",
        compaction: "semantic and structural",
        purge: "aware of tombstones",
        ..STANDARD
    },
    LaneDefinition {
        lane: Policy,
        purpose: "decisions of policy and their grounds",
        searchable: "limited",
        agent_visible: "to explain, unless mutation is allowed",
        retention: "aligned with audit",
        compaction: "conservative",
        purge: "rare, attested",
        ..STANDARD
    },
    LaneDefinition {
        lane: Audit,
        purpose: "the append-only record of what happened",
        searchable: "metadata; content as policy allows",
        agent_visible: "to explain only",
        retention: "long",
        compaction: "append-only segments only",
        purge: "exceptional, attested",
        append_only: true,
        ..STANDARD
    },
    LaneDefinition {
        lane: Tombstone,
        purpose: "the record of each deletion and how far it has come",
        searchable: "metadata only",
        agent_visible: "to explain only",
        retention: "until propagation and audit are satisfied",
        compaction: "after proof",
        purge: "only when policy authorises it",
        node_writes_only: true,
        ..STANDARD
    },
    LaneDefinition {
        lane: Migration,
        purpose: "state on its way from one generation to another",
        searchable: "no, until activated",
        agent_visible: "health only",
        replication: Replication::LocalOnly,
        retention: "until verified complete",
        compaction: "after cutover",
        purge: "after the rollback window",
        ..STANDARD
    },
    LaneDefinition {
        lane: Repair,
        purpose: "quarantine: damaged or disputed state, until it is settled",
        searchable: "no",
        agent_visible: "diagnosis only",
        replication: Replication::LocalOnly,
        retention: "until closed out",
        compaction: "after verification",
        purge: "after checkpoint and attestation",
        ..STANDARD
    },
    LaneDefinition {
        lane: Archive,
        purpose: "state kept for long and read seldom; sent after everything else",
        searchable: "metadata first, content on demand",
        retention: "long",
        compaction: "the first lane to be compacted, at high compression",
        purge: "driven by retention",
        ..STANDARD
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_its_definition_code_and_name() {
        for lane in LaneId::ALL {
            assert_eq!(lane.definition().lane, lane);
            assert_eq!(LaneId::from_code(lane.code()), Some(lane));
            assert_eq!(lane.name().parse::<LaneId>().unwrap(), lane);
        }
        assert_eq!(LaneId::from_code(0), None);
        assert_eq!(LaneId::from_code(12), None);
    }

    #[test]
    fn urgency_names_every_lane_once_with_tombstones_before_what_they_delete() {
        let mut urgency = LaneId::BY_URGENCY;
        urgency.sort();
        let mut all = LaneId::ALL;
        all.sort();
        assert_eq!(urgency, all);
        let place = |lane| LaneId::BY_URGENCY.iter().position(|l| *l == lane).unwrap();
        assert_eq!(place(Priority), 0);
        assert!(place(Tombstone) < place(Normal));
        assert_eq!(place(Archive), 10);
    }

    #[test]
    fn secure_ephemeral_repair_and_migration_stay_on_the_device_by_default() {
        for lane in LaneId::ALL {
            let stays = matches!(lane, Secure | Ephemeral | Repair | Migration);
            assert_eq!(lane.definition().replication != Replication::Members, stays, "{lane}");
        }
    }
}
