//! One roster record: its canonical bytes, its id, its signature and its limits.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use srcos_lanes::canonical::is_canonical;
use srcos_lanes::ids::{DeviceId, EntryHash, Incarnation, MeshId, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::signature::{Signature, Signer, verify};

use super::RosterError;

/// The form of a record. A record of another version is refused, never guessed at.
const VERSION: u8 = 1;

/// Most bytes of one record with its signature: a frame must be able to carry a few of them.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Most parents that a record names: more heads than devices are a sign of abuse, and each parent
/// costs every reader a walk.
pub const PARENTS_MAX: usize = 256;

/// Most journals that one frontier names: eleven lanes of about ninety incarnations, 47 kB.
pub const MARKS_MAX: usize = 1024;

/// Most bytes of a device's name: it has to fit into a line of a table.
pub const NAME_BYTES_MAX: usize = 64;

/// Most bytes of the reason for a revocation: a sentence or two.
pub const REASON_BYTES_MAX: usize = 512;

/// Sets these signatures apart from everything else that a device signs.
const SIGNED: &[u8] = b"srcos roster record 1\0";

const SIGNATURE_BYTES: usize = 64;

/// A record: the BLAKE3 hash of its bytes without the signature.
///
/// The signature is left out, so that a device which signs the same record twice has still written
/// one record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(pub [u8; 32]);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({})", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// A signed record as stores and frames carry it: the body and 64 bytes of signature.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordBytes(pub Vec<u8>);

impl AsRef<[u8]> for RecordBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RecordBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordBytes({} bytes)", self.0.len())
    }
}

/// How far one journal of a revoked device is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct JournalMark {
    /// The lane of the journal.
    pub lane: LaneId,
    /// Which incarnation of the device wrote it.
    pub incarnation: Incarnation,
    /// The last entry that is known.
    pub seq: u64,
    /// The hash of that entry, which fixes all entries before it.
    pub hash: EntryHash,
}

/// What a record does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Act {
    /// Starts a mesh with its author as the only member.
    Found {
        /// The founder's name.
        name: String,
        /// Sets two meshes of one founder apart.
        nonce: [u8; 16],
    },
    /// Takes a device into the mesh.
    Admit {
        /// Who is taken in.
        device: DeviceId,
        /// Its name.
        name: String,
        /// The mesh of one that it had before, whose entries it brings along.
        prior_mesh: Option<MeshId>,
    },
    /// Puts a device out of the mesh; of oneself: leaves it.
    Revoke {
        /// Who is put out.
        device: DeviceId,
        /// Why, for people.
        reason: String,
        /// How far the author holds the device's journals.
        frontier: Vec<JournalMark>,
    },
    /// Says how far its author held a revoked device's journals when it learned of the revocation.
    Witness {
        /// The revocation.
        revocation: RecordId,
        /// What the author held.
        frontier: Vec<JournalMark>,
    },
    /// Names a device anew.
    Rename {
        /// Which device.
        device: DeviceId,
        /// Its new name.
        name: String,
    },
}

/// A record without its signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Record {
    /// The form of the record.
    pub version: u8,
    /// The mesh; absent only in the record that founds it, whose id is the mesh.
    pub mesh: Option<MeshId>,
    /// The heads of the set that the author knew, ascending.
    pub parents: Vec<RecordId>,
    /// Who wrote and signed it.
    pub by: DeviceId,
    /// When, by the author's clock. Shown to people; decides nothing but a tie between two names.
    pub at: WallMillis,
    /// What it does.
    pub act: Act,
}

impl Record {
    /// A record of the present version.
    pub(super) fn new(
        mesh: Option<MeshId>,
        parents: Vec<RecordId>,
        by: DeviceId,
        at: WallMillis,
        act: Act,
    ) -> Self {
        Self { version: VERSION, mesh, parents, by, at, act }
    }

    /// Whether this record starts a mesh.
    pub fn is_founding(&self) -> bool {
        matches!(self.act, Act::Found { .. })
    }

    /// The device that this record makes a member, if it counts.
    pub(super) fn admits(&self) -> Option<DeviceId> {
        match &self.act {
            Act::Found { .. } => Some(self.by),
            Act::Admit { device, .. } => Some(*device),
            Act::Revoke { .. } | Act::Witness { .. } | Act::Rename { .. } => None,
        }
    }

    /// The device that this record puts out, if it counts.
    pub(super) fn revokes(&self) -> Option<DeviceId> {
        match &self.act {
            Act::Revoke { device, .. } => Some(*device),
            Act::Found { .. } | Act::Admit { .. } | Act::Witness { .. } | Act::Rename { .. } => {
                None
            }
        }
    }

    /// The signed bytes and the id of this record.
    pub(super) fn seal(&self, signer: &dyn Signer) -> Result<(RecordId, RecordBytes), RosterError> {
        self.check()?;
        let mut bytes = postcard::to_stdvec(self).map_err(|_| RosterError::Malformed)?;
        let id = RecordId(*blake3::hash(&bytes).as_bytes());
        bytes.extend_from_slice(&signer.sign(&signed_message(id)).0);
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RosterError::TooLarge { bytes: bytes.len() });
        }
        Ok((id, RecordBytes(bytes)))
    }

    /// Reads a record and checks its form and its signature; not whether its author may write it.
    pub(super) fn open(bytes: &[u8]) -> Result<(RecordId, Self), RosterError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RosterError::TooLarge { bytes: bytes.len() });
        }
        let (body, signature) =
            bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(RosterError::Malformed)?;
        let record: Self = postcard::from_bytes(body).map_err(|_| RosterError::Malformed)?;
        // One record has one form: no longer number, no byte left over.
        if !is_canonical(&record, body) {
            return Err(RosterError::Malformed);
        }
        record.check()?;
        let id = Self::id_of(bytes).ok_or(RosterError::Malformed)?;
        if !verify(record.by, &signed_message(id), &Signature(*signature)) {
            return Err(RosterError::WrongSignature { record: id, by: record.by });
        }
        Ok((id, record))
    }

    /// The id that bytes have if they are a record. Checks nothing.
    pub(super) fn id_of(bytes: &[u8]) -> Option<RecordId> {
        let (body, _) = bytes.split_last_chunk::<SIGNATURE_BYTES>()?;
        Some(RecordId(*blake3::hash(body).as_bytes()))
    }

    fn check(&self) -> Result<(), RosterError> {
        if self.version != VERSION {
            return Err(RosterError::Version { found: self.version });
        }
        let founding = self.is_founding();
        if founding != self.mesh.is_none() || founding != self.parents.is_empty() {
            return Err(RosterError::Malformed);
        }
        let ascending = self.parents.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.parents.len() > PARENTS_MAX {
            return Err(RosterError::Malformed);
        }
        match &self.act {
            Act::Found { name, .. } | Act::Admit { name, .. } | Act::Rename { name, .. } => {
                check_name(name)
            }
            Act::Revoke { reason, frontier, .. } => {
                check_reason(reason)?;
                check_frontier(frontier)
            }
            Act::Witness { frontier, .. } => check_frontier(frontier),
        }
    }
}

fn signed_message(id: RecordId) -> Vec<u8> {
    [SIGNED, &id.0].concat()
}

/// Whether a device may have this name: 1 to 64 bytes, no control characters.
pub fn check_name(name: &str) -> Result<(), RosterError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(RosterError::Name { found: name.chars().take(80).collect() });
    }
    Ok(())
}

fn check_reason(reason: &str) -> Result<(), RosterError> {
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(RosterError::Reason { bytes: reason.len() });
    }
    Ok(())
}

fn check_frontier(frontier: &[JournalMark]) -> Result<(), RosterError> {
    let key = |mark: &JournalMark| (mark.lane, mark.incarnation);
    let ascending = frontier.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]));
    if !ascending || frontier.len() > MARKS_MAX || frontier.iter().any(|mark| mark.seq == 0) {
        return Err(RosterError::Frontier { marks: frontier.len() });
    }
    Ok(())
}

/// One mark for each journal, the furthest, in the order that records want; empty journals left out.
pub(super) fn tidy_frontier(frontier: Vec<JournalMark>) -> Vec<JournalMark> {
    let mut furthest = BTreeMap::new();
    for mark in frontier.into_iter().filter(|mark| mark.seq > 0) {
        let held = furthest.entry((mark.lane, mark.incarnation)).or_insert(mark);
        if (mark.seq, mark.hash) > (held.seq, held.hash) {
            *held = mark;
        }
    }
    furthest.into_values().collect()
}

/// Checks that `bytes` found a mesh: gives the mesh and its founder.
///
/// With this a device proves, when it joins another mesh, which mesh of one it had before.
pub fn read_founding(bytes: &[u8]) -> Result<(MeshId, DeviceId), RosterError> {
    let (id, record) = Record::open(bytes)?;
    if !record.is_founding() {
        return Err(RosterError::NotFounding);
    }
    Ok((MeshId(id.0), record.by))
}
