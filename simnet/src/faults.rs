//! Every kind of fault, and why a node must survive it, or what it must say when it cannot.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that goes wrong, or that happens to a mesh in the course of a year.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A link breaks; frames on the way are lost.
    Cut,
    /// A link carries nothing in both directions for a while, without breaking.
    Clog,
    /// A link carries nothing in one direction for a while.
    OneWay,
    /// The devices fall into two sides.
    Split,
    /// One side no longer hears the other, which still hears it.
    SplitOneWay,
    /// One device is cut off.
    Isolate,
    /// A link breaks again and again.
    Flap,
    /// All links of a device break and are dialled again at once.
    Storm,
    /// Both ends dial each other at the same moment.
    DoubleDial,
    /// The process is killed; the disk keeps what it was given.
    Kill,
    /// The power fails: what was not synced is lost, kept, or torn.
    PowerCut,
    /// The device is stopped as it should be.
    CleanStop,
    /// The count of opens beside the store is lost in a power cut.
    CountLost,
    /// One sync fails.
    SyncFails,
    /// One write fails.
    WriteFails,
    /// One read fails.
    ReadFails,
    /// The disk fails from now on, until somebody mends it.
    DiskDead,
    /// The disk is full, until somebody makes room.
    DiskFull,
    /// Syncs do nothing, then the power fails.
    SyncLost,
    /// A bit of the store flips while the node is down.
    BitRot,
    /// The store is put back from a backup; the count of opens beside it is not.
    Restore,
    /// The whole machine is put back from a backup, the count of opens too.
    RestoreAll,
    /// The store is lost, the key is not.
    Wipe,
    /// The device is copied with its key, and both run for a while.
    Clone,
    /// A wall clock jumps.
    WallJump,
    /// A device stands still for a while, as a laptop that sleeps.
    Freeze,
    /// Everything sleeps for days or months.
    Sleep,
    /// A device is away for a large part of the run.
    Away,
    /// A device that has a mesh of its own joins.
    Join,
    /// A member is revoked, mostly while it works; where the kind is on, often shortly before faults end too.
    Revoke,
    /// Two devices open the secure lane to each other, or one closes it again.
    Regrant,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 31] = [
        Self::Cut,
        Self::Clog,
        Self::OneWay,
        Self::Split,
        Self::SplitOneWay,
        Self::Isolate,
        Self::Flap,
        Self::Storm,
        Self::DoubleDial,
        Self::Kill,
        Self::PowerCut,
        Self::CleanStop,
        Self::CountLost,
        Self::SyncFails,
        Self::WriteFails,
        Self::ReadFails,
        Self::DiskDead,
        Self::DiskFull,
        Self::SyncLost,
        Self::BitRot,
        Self::Restore,
        Self::RestoreAll,
        Self::Wipe,
        Self::Clone,
        Self::WallJump,
        Self::Freeze,
        Self::Sleep,
        Self::Away,
        Self::Join,
        Self::Revoke,
        Self::Regrant,
    ];

    /// How rare it is: the mean time between two of a kind is a small multiple of this, in minutes.
    pub const fn rarity_min(self) -> u64 {
        match self {
            Self::Cut | Self::Clog | Self::OneWay | Self::Flap | Self::DoubleDial => 1,
            Self::Split | Self::SplitOneWay | Self::Isolate | Self::Storm => 2,
            Self::Kill | Self::PowerCut | Self::CleanStop | Self::WallJump | Self::Freeze => 3,
            Self::SyncFails | Self::WriteFails | Self::ReadFails => 5,
            Self::CountLost | Self::DiskDead | Self::DiskFull | Self::Sleep | Self::Regrant => 10,
            Self::SyncLost
            | Self::BitRot
            | Self::Restore
            | Self::RestoreAll
            | Self::Wipe
            | Self::Clone
            | Self::Away
            | Self::Join
            | Self::Revoke => 20,
        }
    }

    /// Its name in options, results and documents.
    pub fn name(self) -> String {
        kebab(&format!("{self:?}"))
    }

    /// Why it must be survivable, or what the node must say when it is not.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Cut => "wireless links break all day; a cut costs one frontier exchange",
            Self::Clog => "a full queue on the way is no end; nothing may be lost or sent twice",
            Self::OneWay => "a wrong route or firewall lets one direction through only",
            Self::Split => "both sides work on alone, for weeks if need be, and merge",
            Self::SplitOneWay => "the side that hears must not believe that it is heard",
            Self::Isolate => "a device alone is a device that works",
            Self::Flap => "a link at the edge of its range must not cost more each time",
            Self::Storm => "a restarted router makes every peer dial at once",
            Self::DoubleDial => "both ends discover each other at the same time; one link remains",
            Self::Kill => "a process can be killed at any instruction",
            Self::PowerCut => "what was acknowledged was synced; what was not may be torn",
            Self::CleanStop => "the usual end of a day; peers are told",
            Self::CountLost => {
                "without the count the node cannot know its store is the newest: it \
                                must start a new incarnation"
            }
            Self::SyncFails => {
                "the write is not acknowledged, the store latches, a restart is enough, also \
                                where what it was for is lost and read back all the same"
            }
            Self::WriteFails => "as a failed sync; nothing after it is written",
            Self::ReadFails => "a read that fails once must not be taken for damage for ever",
            Self::DiskDead => "the node stops rather than go on in memory; mended, it goes on",
            Self::DiskFull => "nothing acknowledged is lost, and room brings the node back",
            Self::SyncLost => {
                "not survivable alone: acknowledged writes can go. The node must \
                               report damage or hold a consistent older state, and peers give back \
                               what they have"
            }
            Self::BitRot => {
                "not survivable alone: the node must say that the store is damaged, and \
                             never show or send other bytes than were written"
            }
            Self::Restore => {
                "people put back backups; the count of opens tells, a new incarnation \
                              starts before the first write"
            }
            Self::RestoreAll => {
                "nothing on the device can tell. Peers do, by what they hold of its \
                                 journal; what it wrote before it met them is a second history, \
                                 which must be found and kept as evidence, never picked from"
            }
            Self::Wipe => "a lost disk under a kept key; the mesh gives back what left the device",
            Self::Clone => {
                "as a machine put back, with both running; second histories must be found"
            }
            Self::WallJump => {
                "time servers, batteries and people set clocks; order must not need them"
            }
            Self::Freeze => "lids are closed in mid-transfer; a peer may be long gone after",
            Self::Sleep => "nothing may depend on being awake; what is old is still deleted",
            Self::Away => "a device in a drawer comes back and must neither resurrect nor be lost",
            Self::Join => "a mesh grows while it works; what the device brings is kept",
            Self::Revoke => "a stolen device is put out; what was accepted before stays accepted",
            Self::Regrant => {
                "policy changes while entries are on their way; from then on nothing goes that it denies"
            }
        }
    }

    /// Whether it makes a device lose writes it had acknowledged, by no fault of the node.
    pub const fn loses(self) -> bool {
        matches!(
            self,
            Self::SyncLost | Self::BitRot | Self::Restore | Self::RestoreAll | Self::Wipe
        )
    }
}

/// The name of a kind in lists and files, of its name in code.
pub(crate) fn kebab(name: &str) -> String {
    name.chars().fold(String::new(), |mut name, letter| {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
        name
    })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_with_a_name_and_a_reason() {
        let names: std::collections::BTreeSet<String> =
            Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        assert!(names.contains("split-one-way"));
        assert!(Fault::ALL.iter().all(|fault| fault.why().len() > 20));
        let json = serde_json::to_string(&Fault::SplitOneWay).unwrap();
        assert_eq!(json, "\"split-one-way\"");
    }
}
