//! What can be wrong with a record, or with what was asked of the roster.

use srcos_lanes::ids::{DeviceId, MeshId};

use super::ORPHANS_MAX;
use super::record::{MARKS_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX, RECORD_BYTES_MAX, RecordId};

/// What is wrong with a record, or with what was asked of the roster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Bytes that are no record in its one canonical form.
    #[error("bytes are no roster record: truncated, damaged or not in canonical form")]
    Malformed,
    /// A record of a version that this node does not know.
    #[error("roster record has version {found}, this node knows version 1: update the node")]
    Version {
        /// What the record says.
        found: u8,
    },
    /// A record over the limit.
    #[error("roster record has {bytes} bytes, at most {RECORD_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A signature that its author's key did not make.
    #[error("roster record {record} is not signed by {by}: it was damaged or forged")]
    WrongSignature {
        /// The record.
        record: RecordId,
        /// Who it claims wrote it.
        by: DeviceId,
    },
    /// A name out of bounds.
    #[error("device name {found:?} must have 1 to {NAME_BYTES_MAX} bytes, no control characters")]
    Name {
        /// The first characters of the name.
        found: String,
    },
    /// A reason out of bounds.
    #[error(
        "reason of {bytes} bytes must have at most {REASON_BYTES_MAX}, and no control characters"
    )]
    Reason {
        /// Its size.
        bytes: usize,
    },
    /// A frontier out of bounds or out of order.
    #[error(
        "frontier of {marks} journals must name each once, in order, from seq 1, at most {MARKS_MAX}"
    )]
    Frontier {
        /// How many it names.
        marks: usize,
    },
    /// A record of another mesh.
    #[error("roster record belongs to another mesh than {mesh}")]
    OtherMesh {
        /// The mesh of this roster.
        mesh: MeshId,
    },
    /// A record whose author was never admitted in the record's past.
    #[error("roster record is by {by}, whom nothing before it admits")]
    Stranger {
        /// Its author.
        by: DeviceId,
    },
    /// A record that should found a mesh and does not.
    #[error("record founds no mesh")]
    NotFounding,
    /// Records of none or of several meshes where one is needed.
    #[error("{found} of the records found a mesh, exactly one must")]
    Foundings {
        /// How many do.
        found: usize,
    },
    /// Records whose parents are missing.
    #[error("{missing} parents of the records are missing: ask the sender for all records")]
    Incomplete {
        /// How many parents are missing.
        missing: usize,
    },
    /// No room for another record.
    #[error(
        "roster is full with {records} records of {bytes} bytes: see who wrote them, revoke or \
         found a new mesh"
    )]
    Full {
        /// Records held.
        records: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// No room for another record without its parents.
    #[error("{ORPHANS_MAX} roster records wait for their parents already: send parents first")]
    OrphansFull,
    /// The signer may not write into this roster.
    #[error("{device} is no member of this mesh and cannot change who is: pair it first")]
    NotAuthorised {
        /// Who wanted to write.
        device: DeviceId,
    },
    /// The device that a record is about is no member.
    #[error("{device} is no member of this mesh: list the members with their ids")]
    NotMember {
        /// The device.
        device: DeviceId,
    },
    /// The device to be admitted is a member.
    #[error("{device} is a member of this mesh already")]
    AlreadyMember {
        /// The device.
        device: DeviceId,
    },
    /// The only member wants to leave.
    #[error("{device} is the only member: a mesh without members cannot be joined again")]
    LastMember {
        /// The device.
        device: DeviceId,
    },
    /// A revocation that is not held or does not hold.
    #[error("{revocation} is no revocation that holds in this mesh")]
    NoRevocation {
        /// What was named.
        revocation: RecordId,
    },
}
