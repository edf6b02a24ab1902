//! What can go wrong below the engine, one type per kind of operation.

use crate::ids::DeviceId;
use crate::journal::{EntryError, IdError};
use crate::lane::LaneId;
use crate::object::{ContentError, DocumentError};
use crate::tables::Bytes;

/// The store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No file is there.
    #[error("no store at {0}; create one with `srcos-node init`")]
    Absent(String),
    /// Another process has it open.
    #[error("the store is locked: another node has it open; stop that node or talk to it")]
    Locked,
    /// It was not closed cleanly, and this open may not repair it.
    #[error("the store was not closed cleanly; `srcos-node run` recovers it by itself")]
    NeedsRecovery,
    /// A later version wrote it.
    #[error("the store has version {found}, this node reads up to {known}; update this node")]
    Newer {
        /// Version in the file.
        found: u32,
        /// Latest version that this node knows.
        known: u32,
    },
    /// It belongs to another device.
    #[error("the store belongs to device {found}, but the key is of {key}; restore the key file")]
    OtherDevice {
        /// Device in the store.
        found: DeviceId,
        /// Device of the key.
        key: DeviceId,
    },
    /// Bytes are not what was written.
    #[error("the store is damaged at {place}: {what}; restore a backup, or pair this device anew")]
    Damaged {
        /// Table and key.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The disk failed.
    #[error("the store's disk failed: {0}; check space and permissions, then restart the node")]
    Io(String),
    /// An earlier write failed, so nothing more is written until the store is opened again.
    #[error("an earlier write failed ({0}); nothing is written until the node is restarted")]
    Latched(String),
}

impl StoreError {
    /// A value that does not carry its seal or does not decode.
    pub(crate) fn damaged_value(table: Bytes, key: &[u8]) -> Self {
        use redb::TableHandle;
        Self::Damaged {
            place: format!("{} {}", table.name(), data_encoding::HEXLOWER.encode(key)),
            what: "the value is not the one that was written".into(),
        }
    }

    /// A fact that the store's own invariants rule out.
    pub(crate) fn inconsistent(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged { place: place.into(), what: what.into() }
    }
}

impl From<redb::StorageError> for StoreError {
    fn from(error: redb::StorageError) -> Self {
        match error {
            redb::StorageError::Corrupted(what) => Self::Damaged { place: "file".into(), what },
            redb::StorageError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Self::Damaged { place: "file".into(), what: error.to_string() }
            }
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<redb::TableError> for StoreError {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => error.into(),
            other => Self::Damaged { place: "tables".into(), what: other.to_string() },
        }
    }
}

impl From<redb::TransactionError> for StoreError {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<redb::CommitError> for StoreError {
    fn from(error: redb::CommitError) -> Self {
        match error {
            redb::CommitError::Storage(error) => error.into(),
            other => Self::Io(other.to_string()),
        }
    }
}

impl From<redb::DatabaseError> for StoreError {
    fn from(error: redb::DatabaseError) -> Self {
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::Locked,
            redb::DatabaseError::RepairAborted => Self::NeedsRecovery,
            redb::DatabaseError::Storage(error) => error.into(),
            other => Self::Damaged { place: "file".into(), what: other.to_string() },
        }
    }
}

/// A local write is refused. Nothing of its batch was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The object's id is not allowed.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The content is not allowed.
    #[error("object {id:?}: {source}")]
    Content {
        /// The object.
        id: String,
        /// What is wrong.
        source: ContentError,
    },
    /// There is no such object to patch or delete.
    #[error("no object {id:?} in lane {lane}")]
    NotFound {
        /// The lane.
        lane: LaneId,
        /// The object.
        id: String,
    },
    /// The object is no longer as the caller saw it.
    #[error("object {id:?} in lane {lane} was changed since it was read; read it again")]
    Stale {
        /// The lane.
        lane: LaneId,
        /// The object.
        id: String,
    },
    /// Only the node writes to this lane.
    #[error("lane {0} is written by the node alone; delete objects to write tombstones")]
    NodeOnly(LaneId),
    /// The lane only grows.
    #[error(
        "lane {lane} is append-only: what it holds, like {id:?}, is neither changed nor deleted"
    )]
    AppendOnly {
        /// The lane.
        lane: LaneId,
        /// The object.
        id: String,
    },
    /// Its earlier changes stayed on this device, so later ones could not be read elsewhere.
    #[error(
        "object {id:?} has class {class:?}, which does not leave this device, and cannot be \
         loosened; delete it and create it again"
    )]
    ClassLoosened {
        /// The object.
        id: String,
        /// Its present class.
        class: String,
    },
    /// A time to live that the lane does not allow.
    #[error("time to live of {asked_ms} ms is not allowed in lane {lane}: {why}")]
    TimeToLive {
        /// The lane.
        lane: LaneId,
        /// What was asked for.
        asked_ms: u64,
        /// Why not.
        why: String,
    },
    /// The object cannot be changed because part of it could not be read.
    #[error("object {id:?} is quarantined: {why}; its last good state can still be read")]
    Quarantined {
        /// The object.
        id: String,
        /// Why.
        why: String,
    },
    /// What this store keeps of the object is damaged, so that not even its class is known.
    #[error(
        "object {id:?} is damaged in this store: {what}; restore a backup, or delete the object: on \
         another device, or here if its lane stays on this device"
    )]
    Damaged {
        /// The object.
        id: String,
        /// What is damaged.
        what: String,
    },
    /// Its document cannot be read.
    #[error("object {id:?} cannot be loaded: {source}")]
    Document {
        /// The object.
        id: String,
        /// Why.
        source: DocumentError,
    },
    /// The id was deleted and created as often as numbers go.
    #[error("object id {id:?} in lane {lane} has had its last life; choose another id")]
    LivesSpent {
        /// The lane.
        lane: LaneId,
        /// The object.
        id: String,
    },
    /// The device has begun as many journals in the lane as others take.
    #[error(
        "this device has begun {max} journals in lane {lane}, and other devices take no more of it; \
         nothing more is written there: pair it anew under another key"
    )]
    JournalsSpent {
        /// The lane.
        lane: LaneId,
        /// The limit.
        max: usize,
    },
    /// What would be signed is nothing that a device would take.
    #[error("the entry would be refused by every device, and is not written: {0}")]
    Entry(EntryError),
    /// The change itself is too large, though its result need not be.
    #[error(
        "the change to object {id:?} takes {found} bytes, at most {max} are allowed; change it in \
         steps, or delete it and create it again"
    )]
    ChangeTooLarge {
        /// The object.
        id: String,
        /// Bytes of the change.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The batch has too many operations.
    #[error("batch has {found} operations, at most {max} are allowed")]
    BatchTooLarge {
        /// How many it has.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The device belongs to no mesh yet.
    #[error("the store has no mesh; run `srcos-node init`")]
    NoMesh,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Entries from a peer are refused. Nothing of the run was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// An entry is not valid.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// It is of a mesh that this author does not write in.
    #[error("entry {seq} belongs to another mesh")]
    OtherMesh {
        /// The entry's place in its journal.
        seq: u64,
    },
    /// The run does not belong to the journal that it was sent for.
    #[error("entry {seq} belongs to another journal")]
    OtherJournal {
        /// The entry's place in its journal.
        seq: u64,
    },
    /// Entries between what is held and what came are missing.
    #[error("entry {found} came, but {expected} is next")]
    Gap {
        /// The next place.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The run goes on from another entry than the last one that is held, and is signed: there are two
    /// histories, and what came does not show where they part.
    #[error("entry {seq} does not follow what is held of its journal")]
    OtherHistory {
        /// The entry's place in its journal.
        seq: u64,
    },
    /// A body is left out that every member may have. A header does not say whether it is there, so
    /// who relays could leave out what others then build on.
    #[error("entry {seq} comes without a body that every member may have; ask another peer for it")]
    BodyLeftOut {
        /// The entry's place in its journal.
        seq: u64,
    },
    /// The author signed another history before: both are kept as evidence.
    #[error("the author signed two different entries {seq}; its journal is quarantined")]
    Equivocation {
        /// The first place that differs.
        seq: u64,
    },
    /// The device has begun more journals than are taken in.
    #[error(
        "device {device} has {max} journals in lane {lane} and no more are taken; an honest device \
         has a few: look at it, revoke it, and pair it anew under another key"
    )]
    TooManyJournals {
        /// Whose they are.
        device: DeviceId,
        /// The lane.
        lane: LaneId,
        /// The limit.
        max: usize,
    },
    /// The journal is quarantined after an equivocation.
    #[error("the journal is quarantined: its author signed two histories")]
    Quarantined,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
