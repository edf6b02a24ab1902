//! Why content, a change or a document is refused.

use crate::ids::ChangeHash;

/// Content that an object may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Text that must not be empty is.
    #[error("{path} is empty; give it at least one character")]
    Empty {
        /// Where.
        path: String,
    },
    /// Text is too long.
    #[error("{path} is {bytes} bytes long, the limit is {limit}; shorten it")]
    TooLong {
        /// Where.
        path: String,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// There are too many labels.
    #[error("/labels has {count} labels, the limit is {limit}; keep fewer or use the body")]
    TooManyLabels {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The body is nested too deeply.
    #[error("{path} is nested more than {limit} levels deep; flatten the body")]
    TooDeep {
        /// The first characters of the place.
        path: String,
        /// The limit in levels.
        limit: usize,
    },
    /// The body has too many values.
    #[error(
        "{path} is where the body exceeds {limit} values, characters of texts among them; split the object or store a plain string"
    )]
    TooManyPlaces {
        /// The first characters of the place.
        path: String,
        /// The limit.
        limit: usize,
    },
    /// A place cannot be of the type that is asked for.
    #[error("{path} cannot be a {kind}: {why}")]
    Type {
        /// The place.
        path: String,
        /// The type.
        kind: &'static str,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// Pointers and values together are too large.
    #[error(
        "{path} is where the body, written as one pointer and value for each place, exceeds \
         {limit} bytes; shorten long keys or split the object"
    )]
    TooLarge {
        /// The first characters of the place.
        path: String,
        /// The limit in bytes.
        limit: usize,
    },
}

/// What is said of an object that was given too much.
pub(crate) const FULL: &str =
    "it was given more than an object can hold, and shows nothing; delete it and put it anew";
/// What is said of an object that says too much.
pub(crate) const UNSHOWN: &str =
    "it says more than an object can show, and shows nothing; delete it and put it anew";

/// Why a change or a document is refused. What was there before stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The bytes are no change as this version writes them.
    #[error("the change cannot be read: {0}; fetch it again")]
    Undecodable(&'static str),
    /// The bytes are another change than the one that was announced.
    #[error("the change is {found}, not {expected} as announced; fetch it again")]
    Hash {
        /// What the header names.
        expected: ChangeHash,
        /// What the bytes are.
        found: ChangeHash,
    },
    /// The change was made by another actor than its entry's author.
    #[error("the change names another author than the entry that carries it; refuse the entry")]
    Actor,
    /// The change has more operations than [`OPS_MAX`](super::OPS_MAX).
    #[error("the change has more than {limit} operations; refuse it")]
    TooManyOps {
        /// The limit.
        limit: usize,
    },
    /// The object has had as many operations or changes as one can; see
    /// [`OPS_IN_LIFE_MAX`](super::OPS_IN_LIFE_MAX).
    #[error(
        "the object would have more than {limit} {what} in its past; delete it and put it anew"
    )]
    Spent {
        /// What there would be too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// With the change the object would hold more than any can, by what several wrote apart; see
    /// [`OPS_IN_OBJECT_MAX`](super::OPS_IN_OBJECT_MAX).
    #[error("{FULL}")]
    Full,
    /// What the object says is larger than what is shown of any.
    #[error("{UNSHOWN}")]
    Unshown,
    /// The change is larger than [`CHANGE_BYTES_MAX`](super::CHANGE_BYTES_MAX).
    #[error("the change is {bytes} bytes long, the limit is {limit}; refuse it")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Changes that this one follows are not there yet.
    #[error("the change follows {} that are not here yet; apply those first", .0.len())]
    MissingDeps(Vec<ChangeHash>),
    /// An earlier change of its author is not in the object.
    #[error("an earlier change of its author, {0}, is not in the object; apply that first")]
    Stalled(ChangeHash),
    /// The object's lane only grows, and the change does not create a record of it.
    #[error("a record of this lane is written once, and the change is of one that is there")]
    WrittenOnce,
    /// The change's numbers do not follow those of its predecessors.
    #[error("the change is numbered wrongly: {0}; refuse it")]
    Order(&'static str),
    /// An operation does something that objects do not do.
    #[error("operation {op} of the change is not one of an object's: {reason}; refuse it")]
    Schema {
        /// Which operation, from 0.
        op: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Automerge cannot give back the change that it was given.
    #[error("the change does not survive being stored: what it names is not there; refuse it")]
    Unfaithful,
    /// Automerge refused.
    #[error("automerge refuses: {0}")]
    Automerge(String),
    /// Automerge panicked; nothing of what it was doing is kept.
    #[error("automerge panicked on these bytes; quarantine them")]
    Poisoned,
    /// The bytes are no saved object.
    #[error("the saved object cannot be used: {0}; rebuild it from its changes")]
    Snapshot(&'static str),
}

/// Why a write is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The content is not allowed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The document cannot take it.
    #[error(transparent)]
    Document(#[from] DocumentError),
}
