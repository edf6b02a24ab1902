//! From what the store says to the documents that people and programs see.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::Value;
use srcos_lanes::error::{StoreError, WriteError};
use srcos_lanes::ids::{ChangeHash, DeviceId, WallMillis};
use srcos_lanes::lane::{LaneId, Replication};
use srcos_lanes::object::Patch;
use srcos_lanes::store::{
    Action, Applied, AppliedOp, HistoryEntry, Op, PutContent, ShownObject, Snapshot, Visibility,
};
use srcos_lanes::tables::{AbsentRow, CountsRow, JournalRow};
use srcos_replication::peers::{LanePeer as PeerStanding, LaneState as Standing};
use srcos_schemas::json::canonical;
use srcos_schemas::lanes::{
    AbsentBodies, JournalState, LanePeer, LanePeerState, LaneState, LaneStatus, ObjectCounts,
    ReplicationMode, ReplicationState,
};
use srcos_schemas::objects::{
    AUTOMERGE_BYTES_MAX, BatchOp, ChangeDocument, ChangeOp, ConflictDocument, ConflictValue,
    ContentDocument, HistoryDocument, ObjectDocument, PatchDocument,
};
use srcos_schemas::time::Timestamp;

use crate::api::{ApiError, Cursor, Detail, ErrorKind, Heads};
use crate::data_dir::store_error;

/// Changes that a history shows, at most: the latest.
pub const HISTORY_MAX: usize = 1_000;

/// Feed rows have at most this many changes: two for each item of an entry.
const CHANGES_PER_ROW: u64 = 4_096;

/// The cursor of a place in the feed.
pub fn cursor((row, index): (u64, u32)) -> Cursor {
    Cursor(row * CHANGES_PER_ROW + u64::from(index) + 1)
}

/// The place in the feed of a cursor; `None` is before the first.
pub fn place(cursor: Cursor) -> Option<(u64, u32)> {
    let at = cursor.0.checked_sub(1)?;
    Some((at / CHANGES_PER_ROW, (at % CHANGES_PER_ROW) as u32))
}

/// In how many feed rows a change may lie that is after one cursor and not after another.
pub fn rows_between(after: Cursor, last: Cursor) -> u64 {
    last.0.saturating_sub(after.0).div_ceil(CHANGES_PER_ROW)
}

/// The cursor behind everything before a feed row.
pub fn cursor_before(row: u64) -> Cursor {
    match row.checked_sub(1) {
        None => Cursor(0),
        Some(last) => Cursor((last + 1) * CHANGES_PER_ROW),
    }
}

/// Wall time as documents write it.
pub fn time(at: WallMillis) -> Timestamp {
    Timestamp(at.0)
}

fn hex(hash: &ChangeHash) -> String {
    HEXLOWER.encode(&hash.0)
}

fn json(lane: LaneId, id: &str, text: &str) -> Result<Value, ApiError> {
    // The same reader as for input: serde_json refuses a body of the greatest depth allowed.
    let limits = srcos_schemas::json::Limits::STORED;
    srcos_schemas::json::parse(text.as_bytes(), limits).map_err(|error| {
        store_error(StoreError::Damaged {
            place: format!("objects-1 {lane} {id:?}"),
            what: error.to_string(),
        })
    })
}

/// An object as every face shows it.
pub fn object(
    snapshot: &Snapshot,
    shown: &ShownObject,
    detail: Detail,
) -> Result<ObjectDocument, ApiError> {
    let row = &shown.row;
    let (lane, id) = (shown.lane, shown.id.as_str());
    let mut document = ObjectDocument {
        lane: lane.name().to_owned(),
        id: id.to_owned(),
        kind: row.kind.clone(),
        class: row.class.clone(),
        labels: row.labels.clone(),
        body: json(lane, id, &row.body)?,
        types: row.types.clone(),
        author: shown.author.to_string(),
        updated_at: time(row.updated_at),
        life: shown.life,
        heads: shown.heads().iter().map(hex).collect(),
        expires_at: row.expires_at.map(time),
        conflicts: None,
        history: None,
        automerge: None,
    };
    if detail.conflicts {
        let mut conflicts = Vec::new();
        for conflict in &row.conflicts {
            let mut values = Vec::new();
            for value in &conflict.values {
                let author = snapshot.device_of_actor(&value.actor).map_err(store_error)?;
                values.push(ConflictValue {
                    value: json(lane, id, &value.json)?,
                    author: author.map_or_else(|| "unknown".to_owned(), |a| a.to_string()),
                    shown: value.shown,
                });
            }
            conflicts.push(ConflictDocument { path: conflict.path.clone(), values });
        }
        document.conflicts = Some(conflicts);
    }
    if detail.history {
        let history = snapshot.history(lane, id, shown.life, HISTORY_MAX).map_err(store_error)?;
        document.history = Some(history.iter().map(history_document).collect());
    }
    if detail.automerge {
        document.automerge = Some(automerge(snapshot, shown)?);
    }
    Ok(document)
}

/// The object's Automerge document as that saves it, in base64.
fn automerge(snapshot: &Snapshot, shown: &ShownObject) -> Result<String, ApiError> {
    let place = || format!("{}/{}", shown.lane, shown.id);
    let found = snapshot.document(shown.lane, &shown.id, shown.life).map_err(store_error)?;
    let document = found.ok_or_else(|| {
        let message = "the object has no document: no change of it could be applied";
        let hint = "delete it and create it again";
        ApiError::new(ErrorKind::Refused, "object_quarantined", message, hint).at(place())
    })?;
    let saved = document.save();
    if saved.len() > AUTOMERGE_BYTES_MAX {
        let bytes = saved.len();
        let message = format!("the document has {bytes} bytes; the limit is {AUTOMERGE_BYTES_MAX}");
        let hint = "export the lane as jsonl; that has all but the history";
        return Err(
            ApiError::new(ErrorKind::TooLarge, "document_too_large", message, hint).at(place())
        );
    }
    Ok(BASE64.encode(&saved))
}

fn history_document(change: &HistoryEntry) -> HistoryDocument {
    HistoryDocument {
        change: hex(&change.change),
        author: change.author.device.to_string(),
        at: time(change.wall),
        seq: change.seq,
        held: true,
    }
}

/// The object, or the error that says why it is not shown.
pub fn visible(
    lane: LaneId,
    id: &str,
    visibility: Visibility,
) -> Result<Box<ShownObject>, ApiError> {
    let (code, message, hint) = match visibility {
        Visibility::Shown(shown) => return Ok(shown),
        Visibility::Absent => (
            "object_absent",
            format!("there is no object {id:?} in lane {lane}"),
            "see what there is with: srcos-node list".to_owned(),
        ),
        Visibility::Deleted { by, at, reason } => (
            "object_hidden",
            format!(
                "object {id:?} in lane {lane} was deleted by {} at {}: {reason}",
                by.short(),
                time(at)
            ),
            "put it again to start its next life".to_owned(),
        ),
        Visibility::Expired => (
            "object_expired",
            format!("object {id:?} in lane {lane} has reached the end of its time to live"),
            "put it again if it is still needed".to_owned(),
        ),
    };
    Err(ApiError::new(ErrorKind::NotFound, code, message, hint).at(format!("{lane}/{id}")))
}

/// An applied change as `watch` and `/changes` deliver it.
pub fn change(snapshot: &Snapshot, applied: &Applied) -> Result<ChangeDocument, ApiError> {
    let shown = applied.object.as_ref();
    Ok(ChangeDocument {
        cursor: cursor(applied.cursor).to_string(),
        op: match applied.op {
            AppliedOp::Put => ChangeOp::Put,
            AppliedOp::Delete => ChangeOp::Delete,
            AppliedOp::Expire => ChangeOp::Expire,
            AppliedOp::Damaged => ChangeOp::Damaged,
        },
        lane: applied.lane.name().to_owned(),
        id: applied.id.clone(),
        life: applied.life,
        object: shown.map(|shown| object(snapshot, shown, Detail::default())).transpose()?,
    })
}

/// What a put asks of the store.
pub fn put_content(content: ContentDocument) -> PutContent {
    PutContent {
        kind: content.kind,
        class: content.class,
        labels: content.labels,
        body: content.body,
        types: content.types,
        ttl_ms: content.ttl_ms,
    }
}

/// What a patch asks of the store.
pub fn patch(patch: PatchDocument) -> Patch {
    let PatchDocument { kind, class, labels, body, types, add } = patch;
    Patch { kind, class, labels, body: Some(body), types, add }
}

/// What one operation of a batch asks of the store.
pub fn op(op: BatchOp) -> Op {
    let (id, action) = match op {
        BatchOp::Put { id, content } => (id, Action::Put(put_content(content))),
        BatchOp::Patch { id, patch: document } => (id, Action::Patch(patch(document))),
        BatchOp::Delete { id, reason } => (id, Action::Delete { reason }),
    };
    Op { id, action, if_heads: None }
}

/// The heads that a caller saw, as the store knows them.
pub fn heads(heads: Option<&Heads>) -> Result<Option<Vec<ChangeHash>>, ApiError> {
    let Some(heads) = heads else { return Ok(None) };
    let decode = |text: &String| {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        Some(ChangeHash(bytes.try_into().ok()?))
    };
    let mut decoded = heads.0.iter().map(decode).collect::<Option<Vec<_>>>().ok_or_else(|| {
        ApiError::new(
            ErrorKind::BadInput,
            "heads_malformed",
            "the condition does not name heads of an object",
            "use the \"heads\" of the object, or its ETag",
        )
    })?;
    decoded.sort();
    Ok(Some(decoded))
}

/// A refused write as callers see it.
pub fn write_error(error: WriteError) -> ApiError {
    let message = error.to_string();
    let (kind, code, hint) = match error {
        WriteError::Store(error) => return store_error(error),
        WriteError::Id(_) => {
            (ErrorKind::BadInput, "id_invalid", "use 1 to 512 bytes of UTF-8 as the id")
        }
        WriteError::Content { .. } => {
            (ErrorKind::BadInput, "content_invalid", "mend the content where it says")
        }
        WriteError::NotFound { .. } => {
            (ErrorKind::NotFound, "object_absent", "see what there is with: srcos-node list")
        }
        WriteError::Stale { .. } => {
            (ErrorKind::PreconditionFailed, "heads_differ", "read the object again and decide anew")
        }
        WriteError::NodeOnly(_) => {
            (ErrorKind::Refused, "lane_written_by_node", "delete objects to write tombstones")
        }
        WriteError::AppendOnly { .. } => {
            (ErrorKind::Refused, "lane_append_only", "write a new object instead")
        }
        WriteError::ClassLoosened { .. } => {
            (ErrorKind::Refused, "class_cannot_be_loosened", "delete it and create it again")
        }
        WriteError::TimeToLive { .. } => {
            (ErrorKind::BadInput, "ttl_not_allowed", "see: srcos-node lanes describe")
        }
        WriteError::Quarantined { .. } | WriteError::Document { .. } => (
            ErrorKind::Refused,
            "object_quarantined",
            "delete it and create it again; what it held can still be read",
        ),
        WriteError::Damaged { .. } => (
            ErrorKind::Refused,
            "object_damaged",
            "restore a backup, or delete it, on another device if its lane is shared, and create it again",
        ),
        WriteError::LivesSpent { .. } => {
            (ErrorKind::Refused, "lives_spent", "choose another id for the object")
        }
        WriteError::JournalsSpent { .. } => {
            (ErrorKind::Refused, "journals_spent", "pair this device anew under another key")
        }
        WriteError::ChangeTooLarge { .. } => (
            ErrorKind::TooLarge,
            "change_too_large",
            "change the object in steps, or delete it and create it again",
        ),
        WriteError::BatchTooLarge { .. } => {
            (ErrorKind::TooLarge, "batch_too_large", "send it in parts")
        }
        WriteError::NoMesh => (ErrorKind::Refused, "no_mesh", "run: srcos-node init"),
        _ => (ErrorKind::Internal, "internal", "please report this with the log"),
    };
    ApiError::new(kind, code, message, hint)
}

/// Everything that a lane's status is made of.
pub struct LaneFacts {
    /// The lane.
    pub lane: LaneId,
    /// Its counters.
    pub counts: CountsRow,
    /// Its journals.
    pub journals: Vec<JournalRow>,
    /// How each other member stands.
    pub peers: Vec<PeerStanding>,
}

/// The state of a lane.
pub fn lane_status(
    facts: &LaneFacts,
    names: &BTreeMap<DeviceId, String>,
    now: WallMillis,
) -> LaneStatus {
    let waiting = facts.journals.iter().filter(|row| row.applied < row.held);
    let unapplied: u64 = waiting.clone().map(|row| row.held - row.applied).sum();
    let since = waiting.map(|row| row.waiting_since).min();
    let oldest = since.map(|since| now.0.saturating_sub(since.0));
    let entries = facts.journals.iter().map(|row| row.held).sum();
    let definition = facts.lane.definition();
    let journal = JournalState {
        entries,
        bytes: facts.journals.iter().map(|row| row.bytes).sum(),
        unapplied_entries: unapplied,
        oldest_unapplied_ms: oldest,
        absent_bodies: facts.counts.absent.map(absent_bodies),
    };
    let status = if facts.journals.iter().any(|row| row.forked) {
        LaneState::Unsafe
    } else if facts.counts.quarantined > 0 || is_late(facts.lane, &journal) {
        LaneState::Degraded
    } else if entries == 0 {
        LaneState::Dormant
    } else {
        LaneState::Active
    };
    let mode = match definition.replication {
        Replication::Members => ReplicationMode::Replicated,
        Replication::LocalOnly => ReplicationMode::LocalOnly,
        Replication::DeniedByDefault => ReplicationMode::Denied,
    };
    LaneStatus {
        name: facts.lane.name().to_owned(),
        status,
        objects: ObjectCounts {
            live: facts.counts.live,
            hidden: facts.counts.hidden,
            conflicted: facts.counts.conflicted,
            quarantined: facts.counts.quarantined,
        },
        journal,
        replication: ReplicationState {
            mode,
            peers: facts.peers.iter().map(|peer| lane_peer(peer, names)).collect(),
        },
    }
}

/// Bodies that are not here, as documents count them.
pub fn absent_bodies(absent: AbsentRow) -> AbsentBodies {
    let AbsentRow { withheld, purged, missing } = absent;
    AbsentBodies { withheld, purged, missing }
}

/// Whether more entries wait than agreed, or one for longer than agreed: either is late.
pub fn is_late(lane: LaneId, journal: &JournalState) -> bool {
    let sla = lane.definition().sla;
    journal.unapplied_entries > sla.replay_lag_entries_max
        || journal.oldest_unapplied_ms.is_some_and(|age| age > sla.replay_lag_ms_max)
}

fn lane_peer(peer: &PeerStanding, names: &BTreeMap<DeviceId, String>) -> LanePeer {
    LanePeer {
        device: peer.device.to_string(),
        name: names.get(&peer.device).cloned().unwrap_or_default(),
        state: match peer.state {
            Standing::InSync => LanePeerState::InSync,
            Standing::Behind => LanePeerState::Behind,
            Standing::Ahead => LanePeerState::Ahead,
            Standing::Diverged => LanePeerState::Diverged,
            Standing::Blocked => LanePeerState::Blocked,
            Standing::Unreachable => LanePeerState::Unreachable,
            Standing::Unknown => LanePeerState::Unknown,
        },
        missing_here: peer.missing_here,
        missing_there: peer.missing_there,
        confirmed_at: peer.confirmed_at.map(time),
    }
}

/// A body as it is measured against its limit.
pub fn body_bytes(body: &Value) -> usize {
    canonical(body).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_is_late_by_entries_or_by_time_alone() {
        let lane = LaneId::Normal;
        let sla = lane.definition().sla;
        let state = |entries, age: Option<u64>| {
            let row = |n: u64| JournalRow {
                held: n,
                held_hash: srcos_lanes::ids::EntryHash::NONE,
                applied: 0,
                bytes: 1,
                waiting_since: WallMillis(100_000 - age.unwrap_or(0)),
                forked: false,
            };
            let journals = if entries == 0 { Vec::new() } else { vec![row(entries)] };
            let facts =
                LaneFacts { lane, counts: CountsRow::default(), journals, peers: Vec::new() };
            lane_status(&facts, &BTreeMap::new(), WallMillis(100_000)).status
        };
        let (many, long) = (sla.replay_lag_entries_max + 1, sla.replay_lag_ms_max + 1);
        assert_eq!(state(many - 1, Some(long - 1)), LaneState::Active);
        assert_eq!(state(many, Some(0)), LaneState::Degraded);
        assert_eq!(state(1, Some(long)), LaneState::Degraded, "three wait for ever");
    }

    #[test]
    fn cursors_name_places_and_grow_with_them() {
        for at in [(0, 0), (0, 1), (1, 0), (77, 1_999)] {
            assert_eq!(place(cursor(at)), Some(at));
        }
        assert_eq!(place(Cursor(0)), None);
        assert!(cursor((3, 1_999)) < cursor_before(4));
        assert!(cursor_before(4) < cursor((4, 0)));
        assert_eq!(cursor_before(0), Cursor(0));
    }
}
