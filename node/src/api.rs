//! The boundary between the faces of the node (command line, HTTP) and what does the work.
//!
//! [`Node`] is implemented twice over one store: by the daemon, which also has peers, and by a
//! store opened directly while no daemon runs, which answers [`ApiError::needs_daemon`] where a
//! daemon is needed. Its methods block, on disk and on locks; async callers run them on a
//! thread made for blocking. Everything that goes in or out is checked for form before it comes
//! here (ids, limits, JSON); whether it is *allowed* is decided behind the boundary.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use srcos_lanes::lane::{LaneId, Replication};
use srcos_schemas::lanes::{
    LaneDescription, LanesStatus, ReplicationMode, SlaDocument, TtlDocument,
};
use srcos_schemas::objects::{
    BatchOp, BatchResult, ChangeDocument, ContentDocument, ListPage, ObjectDocument, PatchDocument,
};
use srcos_schemas::peers::{
    InviteDocument, InviteStatus, JoinDocument, NetworkDocument, PeerDocument, PeersDocument,
};
use srcos_schemas::provenance::{ProvenanceLog, ProvenanceVerify};
use srcos_schemas::status::{ErrorBody, ErrorDocument, MetricFact, Readiness, StatusDocument};
use tokio::sync::watch;

/// What the faces of the node ask of it. Every method may block.
pub trait Node: Send + Sync + 'static {
    /// The node as a whole.
    fn status(&self) -> Result<StatusDocument, ApiError>;

    /// Whether the node can be relied on; cheap enough to be asked every second.
    fn readiness(&self) -> Readiness;

    /// The state of one lane, or of all.
    fn lanes_status(&self, lane: Option<LaneId>) -> Result<LanesStatus, ApiError>;

    /// One object. What is absent, hidden or purged is an [`ErrorKind::NotFound`] whose code says
    /// which (`object_absent`, `object_hidden`, `object_purged`).
    fn get(&self, lane: LaneId, id: &str, detail: Detail) -> Result<ObjectDocument, ApiError>;

    /// A page of a lane's live objects, by id. It ends early at `PAGE_BYTES_MAX`; whether there is
    /// more is said by `next` alone.
    fn list(&self, lane: LaneId, query: &ListQuery) -> Result<ListPage, ApiError>;

    /// Creates or replaces an object; the difference to the present one becomes the change. What
    /// is equal already writes nothing, and `changed` is false.
    fn put(&self, lane: LaneId, id: &str, request: PutRequest) -> Result<Written, ApiError>;

    /// Merges a patch into an object that exists.
    fn patch(&self, lane: LaneId, id: &str, request: PatchRequest) -> Result<Written, ApiError>;

    /// Starts the deletion of an object that exists, and returns it as it was.
    fn delete(
        &self,
        lane: LaneId,
        id: &str,
        reason: &str,
        if_match: Option<&Heads>,
    ) -> Result<ObjectDocument, ApiError>;

    /// Applies all of the operations, or none. The path of an error is `ops/N` (N from 0).
    fn batch(&self, lane: LaneId, ops: Vec<BatchOp>) -> Result<BatchResult, ApiError>;

    /// Changes applied here after `after`, oldest first, at most `limit` and at most about
    /// `PAGE_BYTES_MAX`; empty only where there are none. A cursor that this store never gave out
    /// is an [`ErrorKind::BadInput`] with code `cursor_unknown`.
    fn changes(&self, after: Cursor, limit: usize) -> Result<Vec<ChangeDocument>, ApiError>;

    /// Holds the cursor of the last change applied, and ticks with each.
    fn subscribe(&self) -> watch::Receiver<u64>;

    /// Every device that the mesh knows.
    fn peers(&self) -> Result<PeersDocument, ApiError>;

    /// Ends the membership of a device, named by id, name, or the unique start of either. This very
    /// device leaves the mesh only where `leave` says that this is meant.
    fn revoke(&self, device: &str, reason: &str, leave: bool) -> Result<PeerDocument, ApiError>;

    /// Gives a device (named as for [`Node::revoke`]) another name.
    fn rename(&self, device: &str, name: &str) -> Result<PeerDocument, ApiError>;

    /// Opens an invitation for `ttl_ms`, or the default time. One that is `watched` is taken back when
    /// nobody asks after it any more.
    fn pair_invite(&self, ttl_ms: Option<u64>, watched: bool) -> Result<InviteDocument, ApiError>;

    /// How far an invitation has come.
    fn pair_invite_status(&self, id: &str) -> Result<InviteStatus, ApiError>;

    /// Takes an invitation back.
    fn pair_cancel(&self, id: &str) -> Result<InviteStatus, ApiError>;

    /// Starts to join the mesh of whoever gave out the code or ticket, looking at the addresses
    /// given (multiaddresses) besides those in the ticket and those discovered.
    fn pair_join(&self, code_or_ticket: &str, addrs: &[String]) -> Result<JoinDocument, ApiError>;

    /// How far joining has come.
    fn pair_join_status(&self, id: &str) -> Result<JoinDocument, ApiError>;

    /// Cuts all links and keeps them cut (`true`), or lets them come back.
    fn network_offline(&self, offline: bool) -> Result<NetworkDocument, ApiError>;

    /// Who wrote an object, change by change.
    fn provenance_log(&self, lane: LaneId, id: &str) -> Result<ProvenanceLog, ApiError>;

    /// Checks every chain, signature and body of a lane, or of all. Takes as long as it takes.
    fn provenance_verify(&self, lane: Option<LaneId>) -> Result<ProvenanceVerify, ApiError>;

    /// What can be counted or measured, values of one name together.
    fn metrics(&self) -> Vec<MetricFact>;

    /// Asks the daemon to end; returns before it has.
    fn shutdown(&self) -> Result<(), ApiError>;
}

/// What to show of an object besides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// Fields in conflict.
    pub conflicts: bool,
    /// The changes that made it.
    pub history: bool,
    /// Its Automerge document.
    pub automerge: bool,
}

/// Which objects a list shows. All conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only ids that start so.
    pub prefix: Option<String>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only objects with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Most objects in the page: 1 to `PAGE_LIMIT_MAX`.
    pub limit: usize,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// The content of an object to be, and on what condition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PutRequest {
    /// What it becomes. Absent kind, class and labels stay as they are; on a new object they are
    /// the defaults.
    pub content: ContentDocument,
    /// The heads that the object must have now; no condition where absent.
    pub if_match: Option<Heads>,
}

/// What to change in an object, and on what condition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PatchRequest {
    /// The change.
    pub patch: PatchDocument,
    /// The heads that the object must have now; no condition where absent.
    pub if_match: Option<Heads>,
}

/// The heads of an object as a caller last saw them; an empty set means "does not exist". Heads
/// that differ are an [`ErrorKind::PreconditionFailed`] with code `heads_differ`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads(pub Vec<String>);

/// An object after a write.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The object as it is now.
    pub object: ObjectDocument,
    /// Whether anything was written.
    pub changed: bool,
}

/// A place in the sequence of changes applied on this device; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor(pub u64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        // Digits only: `parse` alone would also take a plus sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            ApiError::new(
                ErrorKind::BadInput,
                "cursor_malformed",
                format!("{shown:?} is not a cursor"),
                "use the \"cursor\" of a change that this device showed, or 0 for the beginning",
            )
        })
    }
}

/// The sort of an error: decides the exit code and the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// What was asked about does not hold (not in sync, does not verify, not ready).
    DoesNotHold,
    /// The object is not in the state on which the write was conditional.
    PreconditionFailed,
    /// The request is malformed.
    BadInput,
    /// The request is over a limit.
    TooLarge,
    /// A daemon or a peer is needed and not there.
    Unavailable,
    /// Too much is being asked at once.
    Busy,
    /// Policy, or the rules of the lane, do not allow it.
    Refused,
    /// The caller has not shown that it may ask.
    Unauthorised,
    /// The store is damaged or cannot be written.
    StoreDamaged,
    /// Another process holds the store.
    StoreLocked,
    /// A fault of the node.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::NotFound,
        Self::DoesNotHold,
        Self::PreconditionFailed,
        Self::BadInput,
        Self::TooLarge,
        Self::Unavailable,
        Self::Busy,
        Self::Refused,
        Self::Unauthorised,
        Self::StoreDamaged,
        Self::StoreLocked,
        Self::Internal,
    ];

    /// The name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::DoesNotHold => "does_not_hold",
            Self::PreconditionFailed => "precondition_failed",
            Self::BadInput => "bad_input",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Unauthorised => "unauthorised",
            Self::StoreDamaged => "store_damaged",
            Self::StoreLocked => "store_locked",
            Self::Internal => "internal",
        }
    }

    /// The process exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NotFound | Self::DoesNotHold | Self::PreconditionFailed => 1,
            Self::BadInput | Self::TooLarge => 2,
            Self::Unavailable | Self::Busy => 3,
            Self::Refused | Self::Unauthorised => 4,
            Self::StoreDamaged | Self::StoreLocked => 5,
            Self::Internal => 70,
        }
    }

    /// The HTTP status.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::DoesNotHold => 409,
            Self::PreconditionFailed => 412,
            Self::BadInput => 400,
            Self::TooLarge => 413,
            Self::Unavailable | Self::StoreLocked | Self::StoreDamaged => 503,
            Self::Busy => 429,
            Self::Refused => 403,
            Self::Unauthorised => 401,
            Self::Internal => 500,
        }
    }
}

/// A request that was not done: what failed and why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The sort of error.
    pub kind: ErrorKind,
    /// A stable code in `snake_case`, for scripts.
    pub code: String,
    /// What failed, with what it concerns, and why.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The lane, object, file or field concerned.
    pub path: Option<String>,
}

impl ApiError {
    /// An error that concerns no path.
    pub fn new(
        kind: ErrorKind,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (message, hint) = (message.into(), hint.into());
        Self { kind, code: code.to_owned(), message, hint, path: None }
    }

    /// The same error, naming what it concerns.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    /// What is asked for needs the daemon, and none runs.
    pub fn needs_daemon(what: &str) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "needs_daemon",
            format!("{what} needs the daemon, and none runs on this data directory"),
            "start it with: srcos-node run",
        )
    }

    /// A fault of the node itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Internal,
            "internal",
            message,
            "this is a bug in srcos-node; please report it with the log",
        )
    }

    /// The error as a document.
    pub fn document(&self) -> ErrorDocument {
        ErrorDocument { error: self.body() }
    }

    /// What the document says.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            kind: self.kind.name().to_owned(),
            code: self.code.clone(),
            message: self.message.clone(),
            hint: self.hint.clone(),
            path: self.path.clone(),
        }
    }
}

impl From<ErrorBody> for ApiError {
    /// Reads back what another process of this program wrote; a kind that is not known is a fault.
    fn from(body: ErrorBody) -> Self {
        let kind = ErrorKind::ALL.into_iter().find(|kind| kind.name() == body.kind);
        Self {
            kind: kind.unwrap_or(ErrorKind::Internal),
            code: body.code,
            message: body.message,
            hint: body.hint,
            path: body.path,
        }
    }
}

/// A lane's definition as a document.
pub fn describe(lane: LaneId) -> LaneDescription {
    let definition = lane.definition();
    let (replication, words) = match definition.replication {
        Replication::Members => (
            ReplicationMode::Replicated,
            "to every member of the mesh, except classes that are confined to their device",
        ),
        Replication::DeniedByDefault => {
            (ReplicationMode::Denied, "to nobody without a grant; a policy may open the lane")
        }
        Replication::LocalOnly => {
            (ReplicationMode::LocalOnly, "to nobody; what the lane means is local")
        }
    };
    LaneDescription {
        name: lane.name().to_owned(),
        purpose: definition.purpose.to_owned(),
        replication,
        replication_words: words.to_owned(),
        searchable: definition.searchable.to_owned(),
        agent_visible: definition.agent_visible.to_owned(),
        retention: definition.retention.to_owned(),
        compaction: definition.compaction.to_owned(),
        purge: definition.purge.to_owned(),
        sla: SlaDocument {
            heartbeat_age_ms_max: definition.sla.heartbeat_age_ms_max,
            replay_lag_entries_max: definition.sla.replay_lag_entries_max,
            replay_lag_ms_max: definition.sla.replay_lag_ms_max,
        },
        ttl: definition
            .ttl
            .map(|ttl| TtlDocument { default_ms: ttl.default_ms, max_ms: ttl.max_ms }),
        append_only: definition.append_only,
        node_writes_only: definition.node_writes_only,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_cross_a_process_boundary_unchanged() {
        for kind in ErrorKind::ALL {
            let error = ApiError::new(kind, "some_code", "message", "hint").at("normal/a");
            let text = serde_json::to_string(&error.document()).unwrap();
            let document: ErrorDocument = serde_json::from_str(&text).unwrap();
            assert_eq!(ApiError::from(document.error), error);
        }
    }

    #[test]
    fn a_cursor_is_digits_and_nothing_else() {
        assert_eq!("17".parse::<Cursor>().unwrap(), Cursor(17));
        for text in ["", "+1", "-1", "x", "1.0", "18446744073709551616"] {
            assert_eq!(text.parse::<Cursor>().unwrap_err().kind.exit_code(), 2, "{text}");
        }
    }
}
