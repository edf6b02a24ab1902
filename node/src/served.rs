//! The node behind its boundary: [`Node`] over a running daemon, or over a store opened for one
//! command while no daemon runs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use srcos_lanes::error::WriteError;
use srcos_lanes::ids::{DeviceId, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::ReplicationPolicy;
use srcos_lanes::store::{self, Action, Op, Query, Reader, Snapshot};
use srcos_lanes::tables::AbsentRow;
use srcos_replication::peers::{remembered, remembered_seen_at};
use srcos_replication::roster::{Roster, RosterError};
use srcos_schemas::json::BODY_BYTES_MAX;
use srcos_schemas::lanes::LanesStatus;
use srcos_schemas::objects::{
    BatchOp, BatchResult, ChangeDocument, ListPage, ObjectDocument, PAGE_BYTES_MAX,
};
use srcos_schemas::peers::{
    InviteDocument, InviteStatus, JoinDocument, NetworkDocument, PeerDocument, PeersDocument,
};
use srcos_schemas::provenance::{
    ContentState, LaneVerification, ProvenanceChange, ProvenanceLog, ProvenanceVerify,
};
use srcos_schemas::status::{
    DaemonDocument, Diagnosis, MetricFact, MetricKind, PeerCounts, Readiness, ReadyState, Severity,
    StatusDocument,
};
use tokio::sync::watch;

use crate::api::{
    ApiError, Cursor, Detail, ErrorKind, Heads, ListQuery, Node, PatchRequest, PutRequest, Written,
};
use crate::core::{self, Core};
use crate::data_dir::{Clock, DataDir, store_error};
use crate::diagnosis;
use crate::documents::{self, LaneFacts};
use crate::runtime::Handle;

/// A node that answers.
pub struct Served {
    dir: DataDir,
    clock: Clock,
    source: Source,
}

enum Source {
    Daemon(Handle),
    Store(Mutex<Direct>),
}

/// A store that a command opened for itself: for reading, until something is to be written.
enum Direct {
    Reading(Reader),
    Writing(Box<Core>),
    Closed,
}

impl Drop for Served {
    fn drop(&mut self) {
        let Source::Store(direct) = &mut self.source else { return };
        let direct = direct.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Direct::Writing(core) = std::mem::replace(direct, Direct::Closed)
            && let Err(error) = core.store.close()
        {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
    }
}

impl Served {
    /// The node of a running daemon.
    pub fn daemon(dir: DataDir, handle: Handle) -> Self {
        Self { dir, clock: handle.clock(), source: Source::Daemon(handle) }
    }

    /// The store of a directory, opened without creating or repairing anything.
    pub fn direct(dir: DataDir) -> Result<Self, ApiError> {
        let reader = dir.open_reader()?;
        let source = Source::Store(Mutex::new(Direct::Reading(reader)));
        Ok(Self { dir, clock: Clock::start(), source })
    }

    fn now(&self) -> WallMillis {
        self.clock.now().wall
    }

    /// What was committed, as it is now.
    fn snapshot(&self) -> Result<Snapshot, ApiError> {
        let reader = match &self.source {
            Source::Daemon(handle) => handle.reader(),
            Source::Store(direct) => {
                match &*direct.lock().unwrap_or_else(PoisonError::into_inner) {
                    Direct::Reading(reader) => reader.clone(),
                    Direct::Writing(core) => core.store.reader(),
                    Direct::Closed => return Err(ApiError::internal("the store is closed")),
                }
            }
        };
        reader.snapshot().map_err(store_error)
    }

    /// Runs work on the one writer; its answer comes back after the commit.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let direct = match &self.source {
            Source::Daemon(handle) => return handle.call(work),
            Source::Store(direct) => direct,
        };
        let mut direct = direct.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*direct, Direct::Reading(_)) {
            // The reader's lock on the file goes first.
            *direct = Direct::Closed;
            *direct = Direct::Writing(Box::new(Core::open(self.clock, &self.dir)?));
        }
        let Direct::Writing(core) = &mut *direct else {
            return Err(ApiError::internal("the store is closed"));
        };
        let result = work(core);
        core.commit()?;
        result
    }

    fn handle(&self, what: &str) -> Result<&Handle, ApiError> {
        match &self.source {
            Source::Daemon(handle) => Ok(handle),
            Source::Store(_) => Err(ApiError::needs_daemon(what)),
        }
    }

    fn roster(&self, snapshot: &Snapshot) -> Result<Roster, ApiError> {
        Roster::from_records(snapshot.roster_records().map_err(store_error)?)
            .map_err(|error| crate::data_dir::roster_error(&error))
    }

    fn shown(&self, lane: LaneId, id: &str, detail: Detail) -> Result<ObjectDocument, ApiError> {
        let snapshot = self.snapshot()?;
        let visibility = snapshot.object(lane, id, self.now()).map_err(store_error)?;
        let shown = documents::visible(lane, id, visibility)?;
        documents::object(&snapshot, &shown, detail)
    }

    fn write_one(&self, lane: LaneId, op: Op) -> Result<Written, ApiError> {
        let id = op.id.clone();
        let must_be_new = op.if_heads.as_ref().is_some_and(Vec::is_empty);
        let changed = self.call(move |core| {
            let now = core.now();
            let outcomes = core.engine.write(&mut core.store, now, lane, &[op]).map_err(
                |error| match error {
                    WriteError::Stale { lane, id } if must_be_new => exists_already(lane, &id),
                    error => documents::write_error(error),
                },
            )?;
            Ok(outcomes.first().is_some_and(|outcome| outcome.changed))
        })?;
        Ok(Written { object: self.shown(lane, &id, Detail::default())?, changed })
    }

    /// The lanes without a daemon: what the store says, and what it remembers of peers.
    fn remembered_lanes(&self, only: Option<LaneId>) -> Result<LanesStatus, ApiError> {
        let snapshot = self.snapshot()?;
        let roster = self.roster(&snapshot)?;
        let names = core::names(&roster);
        let own = snapshot.device().map_err(store_error)?;
        let policy = ReplicationPolicy::default();
        let now = self.now();
        let mut lanes = Vec::new();
        for lane in LaneId::ALL.into_iter().filter(|lane| only.is_none_or(|only| only == *lane)) {
            let facts = LaneFacts {
                lane,
                counts: snapshot.counts(lane).map_err(store_error)?,
                journals: snapshot
                    .journals(lane)
                    .map_err(store_error)?
                    .into_iter()
                    .map(|(_, row)| row)
                    .collect(),
                peers: remembered(&snapshot, &roster, &policy, own, lane).map_err(store_error)?,
            };
            lanes.push(documents::lane_status(&facts, &names, now));
        }
        Ok(LanesStatus {
            device: own.to_string(),
            mesh: roster.mesh().to_string(),
            generated_at: documents::time(now),
            lanes,
        })
    }

    fn ready_state(&self) -> Readiness {
        let (state, reason) = match &self.source {
            Source::Daemon(handle) => {
                let wrong: Vec<String> =
                    [handle.not_a_member(), handle.forked()].into_iter().flatten().collect();
                match handle.failure() {
                    Some(why) => (ReadyState::Unsafe, why),
                    None if !wrong.is_empty() => (ReadyState::Degraded, wrong.join("; ")),
                    None => (ReadyState::Healthy, "the store is open and takes writes".to_owned()),
                }
            }
            Source::Store(_) => {
                (ReadyState::Unknown, "no daemon runs; only the store was looked at".to_owned())
            }
        };
        Readiness { state, reason }
    }
}

fn exists_already(lane: LaneId, id: &str) -> ApiError {
    ApiError::new(
        ErrorKind::PreconditionFailed,
        "heads_differ",
        format!("object {id:?} in lane {lane} exists already"),
        "write without the condition to change it, or choose another id",
    )
}

fn no_name(device: &DeviceId) -> String {
    device.short()
}

impl Node for Served {
    fn status(&self) -> Result<StatusDocument, ApiError> {
        let lanes = self.lanes_status(None)?;
        let snapshot = self.snapshot()?;
        let roster = self.roster(&snapshot)?;
        let own = snapshot.device().map_err(store_error)?;
        let members = roster.members().keys().filter(|device| **device != own).count();
        let names = core::names(&roster);
        let membership = diagnosis::of_membership(&roster, own);
        let out = membership.is_some();
        let mut diagnosis: Vec<Diagnosis> = membership.into_iter().collect();
        diagnosis.extend(diagnosis::of_waiting(&snapshot, &lanes, &names).map_err(store_error)?);
        diagnosis.extend(diagnosis::of_lanes(&lanes));
        let (daemon, peers, refused_by) = match &self.source {
            Source::Store(_) => {
                (None, PeerCounts { members, connected: 0, in_sync: 0 }, BTreeSet::new())
            }
            Source::Daemon(_) => self.call(|core| {
                let facts = core.daemon.clone();
                let daemon = facts.map(|facts| DaemonDocument {
                    pid: std::process::id(),
                    started_at: documents::time(facts.started_at),
                    listen: core.network.listen.iter().cloned().collect(),
                    http: facts.http,
                    offline: core.network.offline,
                    discovery: core.network.discovery,
                });
                Ok((daemon, core.peer_counts(), core.network.refused_by.clone()))
            })?,
        };
        let mut readiness = self.ready_state();
        if let Some(daemon) = &daemon {
            if daemon.offline {
                diagnosis.push(Diagnosis {
                    severity: Severity::Warning,
                    code: "network_offline".into(),
                    message: "all links are cut on purpose".into(),
                    hint: "restore them with: srcos-node network online".into(),
                });
            } else if !out && !refused_by.is_empty() {
                diagnosis.extend(diagnosis::of_refusals(&refused_by, &names));
            } else if !out && members > 0 && peers.connected == 0 {
                diagnosis.push(Diagnosis {
                    severity: Severity::Warning,
                    code: "no_peer_connected".into(),
                    message: "no other device is connected".into(),
                    hint: "see why with: srcos-node peers".into(),
                });
            }
        }
        let worst = diagnosis.iter().map(|found| found.severity).max();
        if readiness.state == ReadyState::Healthy && worst >= Some(Severity::Warning) {
            readiness.state = ReadyState::Degraded;
            readiness.reason = diagnosis
                .iter()
                .filter(|found| Some(found.severity) == worst)
                .map(|found| found.message.clone())
                .collect::<Vec<_>>()
                .join("; ");
        }
        Ok(StatusDocument {
            device: own.to_string(),
            name: names.get(&own).cloned().unwrap_or_else(|| no_name(&own)),
            mesh: roster.mesh().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generated_at: documents::time(self.now()),
            data_dir: self.dir.path().display().to_string(),
            daemon,
            readiness,
            peers,
            lanes: core::summaries(&lanes),
            diagnosis,
        })
    }

    fn readiness(&self) -> Readiness {
        self.ready_state()
    }

    fn lanes_status(&self, lane: Option<LaneId>) -> Result<LanesStatus, ApiError> {
        match &self.source {
            Source::Daemon(_) => self.call(move |core| Ok(core.lanes_status(lane))),
            Source::Store(_) => self.remembered_lanes(lane),
        }
    }

    fn get(&self, lane: LaneId, id: &str, detail: Detail) -> Result<ObjectDocument, ApiError> {
        self.shown(lane, id, detail)
    }

    fn list(&self, lane: LaneId, query: &ListQuery) -> Result<ListPage, ApiError> {
        let snapshot = self.snapshot()?;
        let query = Query {
            prefix: query.prefix.clone().unwrap_or_default(),
            kind: query.kind.clone(),
            labels: query.labels.clone(),
            limit: query.limit,
            after: query.after.clone(),
        };
        let page = snapshot.list(lane, &query, self.now()).map_err(store_error)?;
        let mut shown = ListPage { objects: Vec::new(), next: page.next };
        let mut bytes = 0;
        for object in &page.objects {
            bytes += object.row.body.len() + object.id.len();
            if bytes > PAGE_BYTES_MAX && !shown.objects.is_empty() {
                shown.next = shown.objects.last().map(|last: &ObjectDocument| last.id.clone());
                break;
            }
            shown.objects.push(documents::object(&snapshot, object, Detail::default())?);
        }
        Ok(shown)
    }

    fn put(&self, lane: LaneId, id: &str, request: PutRequest) -> Result<Written, ApiError> {
        let if_heads = documents::heads(request.if_match.as_ref())?;
        let action = Action::Put(documents::put_content(request.content));
        self.write_one(lane, Op { id: id.to_owned(), action, if_heads })
    }

    fn patch(&self, lane: LaneId, id: &str, request: PatchRequest) -> Result<Written, ApiError> {
        let if_heads = documents::heads(request.if_match.as_ref())?;
        let patch = documents::patch(request.patch);
        check_patched(self, lane, id, &patch)?;
        self.write_one(lane, Op { id: id.to_owned(), action: Action::Patch(patch), if_heads })
    }

    fn delete(
        &self,
        lane: LaneId,
        id: &str,
        reason: &str,
        if_match: Option<&Heads>,
    ) -> Result<ObjectDocument, ApiError> {
        let before = self.shown(lane, id, Detail::default())?;
        let action = Action::Delete { reason: reason.to_owned() };
        let op = Op { id: id.to_owned(), action, if_heads: documents::heads(if_match)? };
        self.call(move |core| {
            let now = core.now();
            core.engine.write(&mut core.store, now, lane, &[op]).map_err(documents::write_error)
        })?;
        Ok(before)
    }

    fn batch(&self, lane: LaneId, ops: Vec<BatchOp>) -> Result<BatchResult, ApiError> {
        let count = ops.len();
        let ids: Vec<String> = ops.iter().map(|op| op.id().to_owned()).collect();
        let ops: Vec<Op> = ops.into_iter().map(documents::op).collect();
        let changed = self.call(move |core| {
            let now = core.now();
            let outcomes = core.engine.write(&mut core.store, now, lane, &ops);
            let outcomes = outcomes.map_err(|error| {
                let place = refused_place(&error, &ids);
                let error = documents::write_error(error);
                match place {
                    Some(place) => error.at(format!("ops/{place}")),
                    None => error,
                }
            })?;
            Ok(outcomes.iter().filter(|outcome| outcome.changed).count())
        })?;
        Ok(BatchResult { ops: count, changed })
    }

    fn changes(&self, after: Cursor, limit: usize) -> Result<Vec<ChangeDocument>, ApiError> {
        let snapshot = self.snapshot()?;
        let end = documents::cursor_before(snapshot.feed_next().map_err(store_error)?);
        if after > end {
            return Err(ApiError::new(
                ErrorKind::BadInput,
                "cursor_unknown",
                format!("this store never gave out the cursor {after}; its last is {end}"),
                "start from 0, or from a cursor that this device showed",
            ));
        }
        let place = documents::place(after);
        let applied = snapshot.feed(place, limit, self.now()).map_err(store_error)?;
        let mut changes = Vec::new();
        let mut bytes = 0;
        for applied in applied.iter().take(limit) {
            let change = documents::change(&snapshot, applied)?;
            bytes += applied.object.as_ref().map_or(64, |shown| shown.row.body.len());
            changes.push(change);
            if bytes > PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(changes)
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        match &self.source {
            Source::Daemon(handle) => handle.subscribe(),
            Source::Store(_) => {
                let next = self.snapshot().and_then(|s| s.feed_next().map_err(store_error));
                watch::channel(documents::cursor_before(next.unwrap_or(0)).0).1
            }
        }
    }

    fn peers(&self) -> Result<PeersDocument, ApiError> {
        if let Source::Daemon(_) = &self.source {
            return self.call(|core| Ok(core.peers()));
        }
        let snapshot = self.snapshot()?;
        let roster = self.roster(&snapshot)?;
        let own = snapshot.device().map_err(store_error)?;
        let seen = |device| remembered_seen_at(&snapshot, device).ok().flatten();
        Ok(core::peers(&roster, own, seen))
    }

    fn revoke(&self, device: &str, reason: &str, leave: bool) -> Result<PeerDocument, ApiError> {
        let (device, reason) = (device.to_owned(), reason.to_owned());
        self.call(move |core| {
            let device = core::find_device(core.engine.roster(), &device)?;
            if device == core.key.device() && !leave {
                return Err(ApiError::new(
                    ErrorKind::BadInput,
                    "revokes_itself",
                    "this is the device itself: it would leave the mesh, and its store could join no \
                     other one",
                    "to leave all the same, say so with: --leave",
                ));
            }
            let now = core.now();
            core.engine.revoke(&mut core.store, now, device, &reason).map_err(mesh_error)?;
            peer_document(core, device)
        })
    }

    fn rename(&self, device: &str, name: &str) -> Result<PeerDocument, ApiError> {
        let (device, name) = (device.to_owned(), name.to_owned());
        self.call(move |core| {
            let device = core::find_device(core.engine.roster(), &device)?;
            let now = core.now();
            core.engine.rename(&mut core.store, now, device, &name).map_err(mesh_error)?;
            peer_document(core, device)
        })
    }

    fn pair_invite(&self, ttl_ms: Option<u64>, watched: bool) -> Result<InviteDocument, ApiError> {
        self.handle("an invitation")?.pair_invite(ttl_ms, watched)
    }

    fn pair_invite_status(&self, id: &str) -> Result<InviteStatus, ApiError> {
        self.handle("an invitation")?.pair_invite_status(id)
    }

    fn pair_cancel(&self, id: &str) -> Result<InviteStatus, ApiError> {
        self.handle("an invitation")?.pair_cancel(id)
    }

    fn pair_join(&self, code_or_ticket: &str, addrs: &[String]) -> Result<JoinDocument, ApiError> {
        self.handle("joining")?.pair_join(code_or_ticket, addrs)
    }

    fn pair_join_status(&self, id: &str) -> Result<JoinDocument, ApiError> {
        self.handle("joining")?.pair_join_status(id)
    }

    fn network_offline(&self, offline: bool) -> Result<NetworkDocument, ApiError> {
        self.handle("the network")?.network_offline(offline)
    }

    fn provenance_log(&self, lane: LaneId, id: &str) -> Result<ProvenanceLog, ApiError> {
        let snapshot = self.snapshot()?;
        let visibility = snapshot.object(lane, id, self.now()).map_err(store_error)?;
        let shown = documents::visible(lane, id, visibility)?;
        let names = core::names(&self.roster(&snapshot)?);
        let history =
            snapshot.history(lane, id, shown.life, documents::HISTORY_MAX).map_err(store_error)?;
        let changes = history.iter().map(|change| ProvenanceChange {
            life: shown.life,
            change: HEXLOWER.encode(&change.change.0),
            author: change.author.device.to_string(),
            author_name: names.get(&change.author.device).cloned(),
            incarnation: change.author.incarnation.to_string(),
            seq: change.seq,
            entry: change.entry.to_string(),
            at: documents::time(change.wall),
            signature: HEXLOWER.encode(&change.signature.0),
            verified: change.verified,
            content: ContentState::Held,
        });
        Ok(ProvenanceLog {
            lane: lane.name().to_owned(),
            id: id.to_owned(),
            changes: changes.collect(),
        })
    }

    fn provenance_verify(&self, lane: Option<LaneId>) -> Result<ProvenanceVerify, ApiError> {
        let snapshot = self.snapshot()?;
        let mut lanes = Vec::new();
        for lane in LaneId::ALL.into_iter().filter(|of| lane.is_none_or(|lane| lane == *of)) {
            let facts = snapshot.verify_lane(lane).map_err(store_error)?;
            lanes.push(verification(lane, &facts));
        }
        Ok(ProvenanceVerify {
            verified: lanes.iter().all(|lane| lane.findings.is_empty()),
            checked_at: documents::time(self.now()),
            lanes,
        })
    }

    fn metrics(&self) -> Vec<MetricFact> {
        let facts = self.call(|core| Ok(metrics(core)));
        // A node that cannot answer has nothing to measure; /readyz says why.
        facts.unwrap_or_default()
    }

    fn shutdown(&self) -> Result<(), ApiError> {
        self.handle("shutting down")?.shutdown();
        Ok(())
    }
}

/// Holds a patched body to the same limit as a put one.
fn check_patched(
    node: &Served,
    lane: LaneId,
    id: &str,
    patch: &srcos_lanes::object::Patch,
) -> Result<(), ApiError> {
    let Some(change) = &patch.body else { return Ok(()) };
    let before = node.shown(lane, id, Detail::default())?;
    let after = srcos_schemas::merge::merge_patch(before.body, change.clone());
    let bytes = documents::body_bytes(&after);
    if bytes <= BODY_BYTES_MAX {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorKind::TooLarge,
        "body_too_large",
        format!("the patched body would have {bytes} bytes; the limit is {BODY_BYTES_MAX}"),
        "split the object",
    )
    .at(format!("{lane}/{id}")))
}

/// Which operation of a batch an error is about.
fn refused_place(error: &srcos_lanes::error::WriteError, ids: &[String]) -> Option<usize> {
    use srcos_lanes::error::WriteError as E;
    let id = match error {
        E::Content { id, .. }
        | E::NotFound { id, .. }
        | E::Stale { id, .. }
        | E::AppendOnly { id, .. }
        | E::ClassLoosened { id, .. }
        | E::Quarantined { id, .. }
        | E::Document { id, .. } => id,
        E::Id(_) => return ids.iter().position(|id| srcos_lanes::journal::check_id(id).is_err()),
        _ => return None,
    };
    ids.iter().position(|of| of == id)
}

fn mesh_error(error: srcos_replication::engine::MeshError) -> ApiError {
    use srcos_replication::engine::MeshError;
    match error {
        MeshError::Roster(error @ RosterError::Name { .. }) => ApiError::new(
            ErrorKind::BadInput,
            "name_invalid",
            error.to_string(),
            "choose another name",
        ),
        MeshError::Roster(error @ RosterError::Reason { .. }) => ApiError::new(
            ErrorKind::BadInput,
            "reason_invalid",
            error.to_string(),
            "say it in fewer words, on one line",
        ),
        MeshError::Roster(error) => crate::data_dir::roster_error(&error),
        MeshError::Store(error) => store_error(error),
    }
}

fn peer_document(core: &Core, device: DeviceId) -> Result<PeerDocument, ApiError> {
    let text = device.to_string();
    let mut peers = core.peers().peers.into_iter();
    peers
        .find(|peer| peer.device == text)
        .ok_or_else(|| ApiError::internal(format!("device {text} is not in the roster")))
}

fn verification(lane: LaneId, facts: &store::LaneFacts) -> LaneVerification {
    let mut verification =
        LaneVerification { name: lane.name().to_owned(), ..LaneVerification::default() };
    let mut absent = AbsentRow::default();
    for journal in &facts.journals {
        verification.journals += 1;
        verification.entries += journal.entries;
        verification.signatures += journal.signed;
        verification.bodies += journal.changes;
        absent.add_all(&journal.absent);
        if let Some(damage) = &journal.damage {
            verification.findings.push(srcos_schemas::provenance::VerifyFinding {
                code: "entry_damaged".to_owned(),
                author: Some(journal.author.device.to_string()),
                seq: Some(damage.seq),
                id: None,
                message: damage.what.clone(),
            });
        }
    }
    verification.absent_bodies = documents::absent_bodies(absent);
    verification.rows = facts.rows;
    let mut damaged = |id: Option<String>, message: String| {
        verification.findings.push(srcos_schemas::provenance::VerifyFinding {
            code: "row_damaged".to_owned(),
            author: None,
            seq: None,
            id,
            message,
        });
    };
    for (id, what) in &facts.damaged {
        damaged(Some(id.clone()), what.clone());
    }
    let more = facts.damaged_rows - facts.damaged.len() as u64;
    if more > 0 {
        damaged(None, format!("{more} more rows are damaged"));
    }
    verification
}

/// What can be counted or measured.
fn metrics(core: &Core) -> Vec<MetricFact> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, help: &str, kind, label: Option<(&str, &str)>, value: f64| {
        facts.push(MetricFact {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            labels: label.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            value,
        });
    };
    type OfLane = fn(&Core, LaneId) -> u64;
    let gauges: [(&str, &str, OfLane); 6] = [
        ("srcos_lane_objects_live", "Objects that are shown.", |core, lane| {
            core.store.counts(lane).live
        }),
        ("srcos_lane_objects_hidden", "Objects that a tombstone hides.", |core, lane| {
            core.store.counts(lane).hidden
        }),
        ("srcos_lane_objects_conflicted", "Shown objects with concurrent values.", |core, lane| {
            core.store.counts(lane).conflicted
        }),
        (
            "srcos_lane_objects_quarantined",
            "Objects with a change that could not be applied.",
            |core, lane| core.store.counts(lane).quarantined,
        ),
        ("srcos_lane_entries", "Entries that are held.", |core, lane| {
            core.store.journals(lane).map(|(_, row)| row.held).sum()
        }),
        ("srcos_lane_entries_unapplied", "Entries that wait for others.", |core, lane| {
            core.store.journals(lane).map(|(_, row)| row.held - row.applied).sum()
        }),
    ];
    for (name, help, value) in gauges {
        for lane in LaneId::ALL {
            let labels = Some(("lane", lane.name()));
            fact(name, help, MetricKind::Gauge, labels, value(core, lane) as f64);
        }
    }
    let peers = core.peer_counts();
    let counts = [
        ("srcos_peers_members", "Other members of the mesh.", peers.members),
        ("srcos_peers_connected", "Members with an open link.", peers.connected),
        ("srcos_peers_in_sync", "Members proven equal in every shared lane.", peers.in_sync),
    ];
    for (name, help, value) in counts {
        fact(name, help, MetricKind::Gauge, None, value as f64);
    }
    for ((name, label), value) in &core.network.counters {
        let labels = (!label.is_empty()).then_some(("reason", label.as_str()));
        fact(name, "Counted since the daemon started.", MetricKind::Counter, labels, *value as f64);
    }
    facts
}
