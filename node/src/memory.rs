//! A node in memory, for tests of the faces: it keeps objects and changes, and nothing else.

use std::collections::BTreeMap;
use std::sync::Mutex;

use srcos_lanes::lane::LaneId;
use srcos_schemas::lanes::{
    JournalState, LaneState, LaneStatus, LanesStatus, ObjectCounts, ReplicationState,
};
use srcos_schemas::merge::merge_patch;
use srcos_schemas::objects::{
    BatchOp, BatchResult, ChangeDocument, ChangeOp, ListPage, ObjectDocument,
};
use srcos_schemas::peers::{
    InviteDocument, InviteStatus, JoinDocument, JoinedDevice, Membership, NetworkDocument,
    PeerDocument, PeersDocument,
};
use srcos_schemas::provenance::{ProvenanceLog, ProvenanceVerify};
use srcos_schemas::status::{
    MetricFact, MetricKind, PeerCounts, Readiness, ReadyState, StatusDocument,
};
use srcos_schemas::time::Timestamp;
use tokio::sync::watch;

use crate::api::*;

#[derive(Default)]
struct State {
    objects: BTreeMap<(LaneId, String), ObjectDocument>,
    changes: Vec<ChangeDocument>,
    reasons: BTreeMap<String, String>,
    looks: u32,
}

pub(crate) struct MemoryNode {
    state: Mutex<State>,
    ticks: watch::Sender<u64>,
    pub(crate) ready: ReadyState,
}

impl MemoryNode {
    pub(crate) fn new() -> Self {
        let ticks = watch::channel(0).0;
        Self { state: Mutex::default(), ticks, ready: ReadyState::Healthy }
    }

    fn put_in(
        &self,
        state: &mut State,
        lane: LaneId,
        id: &str,
        request: PutRequest,
    ) -> Result<Written, ApiError> {
        if lane.definition().node_writes_only {
            let message = "only the node writes to this lane";
            return Err(ApiError::new(ErrorKind::Refused, "lane_closed", message, "use another"));
        }
        let key = (lane, id.to_owned());
        let present = state.objects.get(&key).cloned();
        if let Some(Heads(wanted)) = &request.if_match {
            let heads = present.as_ref().map(|object| object.heads.clone()).unwrap_or_default();
            if *wanted != heads {
                let message = "the object has changed";
                let hint = "read it again";
                return Err(ApiError::new(
                    ErrorKind::PreconditionFailed,
                    "heads_differ",
                    message,
                    hint,
                ));
            }
        }
        let content = request.content;
        let mut object = present.clone().unwrap_or_else(|| ObjectDocument {
            lane: lane.name().to_owned(),
            id: id.to_owned(),
            kind: "object".to_owned(),
            class: "internal".to_owned(),
            labels: BTreeMap::new(),
            body: content.body.clone(),
            types: BTreeMap::new(),
            author: "ab".repeat(32),
            updated_at: Timestamp(0),
            life: 1,
            heads: Vec::new(),
            expires_at: None,
            conflicts: None,
            history: None,
            automerge: None,
        });
        object.body = content.body;
        object.kind = content.kind.unwrap_or(object.kind);
        object.class = content.class.unwrap_or(object.class);
        object.labels = content.labels.unwrap_or(object.labels);
        for (at, kind) in content.types {
            match kind {
                Some(kind) => object.types.insert(at, kind),
                None => object.types.remove(&at),
            };
        }
        if present.as_ref() == Some(&object) {
            return Ok(Written { object, changed: false });
        }
        let number = state.changes.len() as u64 + 1;
        object.heads = vec![format!("{number:064x}")];
        state.objects.insert(key, object.clone());
        self.tell(state, ChangeOp::Put, &object, Some(object.clone()));
        Ok(Written { object, changed: true })
    }

    /// Why an object was deleted.
    pub(crate) fn reason(&self, id: &str) -> String {
        self.state.lock().unwrap().reasons.get(id).cloned().unwrap_or_default()
    }

    fn delete_in(
        &self,
        state: &mut State,
        lane: LaneId,
        id: &str,
        reason: &str,
    ) -> Result<ObjectDocument, ApiError> {
        state.reasons.insert(id.to_owned(), reason.to_owned());
        let object =
            state.objects.remove(&(lane, id.to_owned())).ok_or_else(|| absent(lane, id))?;
        self.tell(state, ChangeOp::Delete, &object, None);
        Ok(object)
    }

    fn tell(
        &self,
        state: &mut State,
        op: ChangeOp,
        of: &ObjectDocument,
        object: Option<ObjectDocument>,
    ) {
        let cursor = state.changes.len() as u64 + 1;
        let (lane, id, life) = (of.lane.clone(), of.id.clone(), of.life);
        let change = ChangeDocument { cursor: cursor.to_string(), op, lane, id, life, object };
        state.changes.push(change);
        self.ticks.send_replace(cursor);
    }
}

fn absent(lane: LaneId, id: &str) -> ApiError {
    let message = "there is no such object";
    ApiError::new(ErrorKind::NotFound, "object_absent", message, "see: srcos-node list")
        .at(format!("{lane}/{id}"))
}

impl Node for MemoryNode {
    fn status(&self) -> Result<StatusDocument, ApiError> {
        Ok(StatusDocument {
            device: "ab".repeat(32),
            name: "laptop".to_owned(),
            mesh: "cd".repeat(32),
            version: "0.0.0".to_owned(),
            generated_at: Timestamp(0),
            data_dir: "/d".to_owned(),
            daemon: None,
            readiness: self.readiness(),
            peers: PeerCounts::default(),
            lanes: Vec::new(),
            diagnosis: Vec::new(),
        })
    }

    fn readiness(&self) -> Readiness {
        Readiness { state: self.ready, reason: "as the test says".to_owned() }
    }

    fn lanes_status(&self, lane: Option<LaneId>) -> Result<LanesStatus, ApiError> {
        let lanes = LaneId::ALL.into_iter().filter(|l| lane.is_none_or(|lane| lane == *l));
        let lanes = lanes.map(|lane| LaneStatus {
            name: lane.name().to_owned(),
            status: LaneState::Active,
            objects: ObjectCounts::default(),
            journal: JournalState::default(),
            replication: ReplicationState { mode: describe(lane).replication, peers: Vec::new() },
        });
        Ok(LanesStatus {
            device: "ab".repeat(32),
            mesh: "cd".repeat(32),
            generated_at: Timestamp(0),
            lanes: lanes.collect(),
        })
    }

    fn get(&self, lane: LaneId, id: &str, _detail: Detail) -> Result<ObjectDocument, ApiError> {
        let state = self.state.lock().unwrap();
        state.objects.get(&(lane, id.to_owned())).cloned().ok_or_else(|| absent(lane, id))
    }

    fn list(&self, lane: LaneId, query: &ListQuery) -> Result<ListPage, ApiError> {
        let state = self.state.lock().unwrap();
        let mut found = state.objects.iter().filter(|((of, id), object)| {
            *of == lane
                && query.prefix.as_ref().is_none_or(|prefix| id.starts_with(prefix))
                && query.kind.as_ref().is_none_or(|kind| object.kind == *kind)
                && query.labels.iter().all(|(key, value)| object.labels.get(key) == Some(value))
                && query.after.as_ref().is_none_or(|after| id > after)
        });
        let objects: Vec<_> =
            found.by_ref().take(query.limit).map(|(_, object)| object.clone()).collect();
        let next = found.next().and_then(|_| objects.last().map(|last| last.id.clone()));
        Ok(ListPage { objects, next })
    }

    fn put(&self, lane: LaneId, id: &str, request: PutRequest) -> Result<Written, ApiError> {
        self.put_in(&mut self.state.lock().unwrap(), lane, id, request)
    }

    fn patch(&self, lane: LaneId, id: &str, request: PatchRequest) -> Result<Written, ApiError> {
        let present = self.get(lane, id, Detail::default())?;
        let content = srcos_schemas::objects::ContentDocument {
            body: merge_patch(present.body, request.patch.body),
            types: request.patch.types,
            ..Default::default()
        };
        self.put(lane, id, PutRequest { content, if_match: request.if_match })
    }

    fn delete(
        &self,
        lane: LaneId,
        id: &str,
        reason: &str,
        _if_match: Option<&Heads>,
    ) -> Result<ObjectDocument, ApiError> {
        self.delete_in(&mut self.state.lock().unwrap(), lane, id, reason)
    }

    fn batch(&self, lane: LaneId, ops: Vec<BatchOp>) -> Result<BatchResult, ApiError> {
        let mut state = self.state.lock().unwrap();
        let mut result = BatchResult { ops: ops.len(), changed: 0 };
        for (place, op) in ops.into_iter().enumerate() {
            let done = match op {
                BatchOp::Put { id, content } => self
                    .put_in(&mut state, lane, &id, PutRequest { content, if_match: None })
                    .map(|written| written.changed),
                BatchOp::Delete { id, reason } => {
                    self.delete_in(&mut state, lane, &id, &reason).map(|_| true)
                }
                BatchOp::Patch { id, .. } => Err(absent(lane, &id)),
            };
            result.changed += usize::from(done.map_err(|error| error.at(format!("ops/{place}")))?);
        }
        Ok(result)
    }

    fn changes(&self, after: Cursor, limit: usize) -> Result<Vec<ChangeDocument>, ApiError> {
        let state = self.state.lock().unwrap();
        if after.0 > state.changes.len() as u64 {
            let message = "this store never gave out that cursor";
            return Err(ApiError::new(ErrorKind::BadInput, "cursor_unknown", message, "use 0"));
        }
        Ok(state.changes.iter().skip(after.0 as usize).take(limit).cloned().collect())
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.ticks.subscribe()
    }

    fn peers(&self) -> Result<PeersDocument, ApiError> {
        let (device, mesh) = ("ab".repeat(32), "cd".repeat(32));
        let own = PeerDocument {
            device: device.clone(),
            name: "laptop".to_owned(),
            membership: Membership::Member,
            this_device: true,
            link: None,
            last_seen_at: None,
            admitted_at: Timestamp(0),
            admitted_by: device.clone(),
            revoked: None,
            last_error: None,
        };
        Ok(PeersDocument { device, mesh, peers: vec![own] })
    }

    fn revoke(&self, device: &str, _reason: &str, _leave: bool) -> Result<PeerDocument, ApiError> {
        Err(absent(LaneId::Normal, device))
    }

    fn rename(&self, device: &str, _name: &str) -> Result<PeerDocument, ApiError> {
        Err(absent(LaneId::Normal, device))
    }

    fn pair_invite(
        &self,
        _ttl_ms: Option<u64>,
        _watched: bool,
    ) -> Result<InviteDocument, ApiError> {
        Ok(InviteDocument {
            id: "1".to_owned(),
            code: "7-alpha".to_owned(),
            ticket: "ticket".to_owned(),
            expires_at: Timestamp(0),
        })
    }

    fn pair_invite_status(&self, _id: &str) -> Result<InviteStatus, ApiError> {
        let mut state = self.state.lock().unwrap();
        state.looks += 1;
        Ok(match state.looks {
            1 => InviteStatus::Waiting,
            _ => InviteStatus::Joined {
                joined: JoinedDevice { device: "ef".repeat(32), name: "desktop".to_owned() },
            },
        })
    }

    fn pair_cancel(&self, _id: &str) -> Result<InviteStatus, ApiError> {
        Ok(InviteStatus::Cancelled)
    }

    fn pair_join(&self, _code: &str, _addrs: &[String]) -> Result<JoinDocument, ApiError> {
        Err(ApiError::needs_daemon("joining"))
    }

    fn pair_join_status(&self, _id: &str) -> Result<JoinDocument, ApiError> {
        Err(ApiError::needs_daemon("joining"))
    }

    fn network_offline(&self, offline: bool) -> Result<NetworkDocument, ApiError> {
        Ok(NetworkDocument { offline, listen: Vec::new(), connected: 0 })
    }

    fn provenance_log(&self, lane: LaneId, id: &str) -> Result<ProvenanceLog, ApiError> {
        Ok(ProvenanceLog { lane: lane.name().to_owned(), id: id.to_owned(), changes: Vec::new() })
    }

    fn provenance_verify(&self, _lane: Option<LaneId>) -> Result<ProvenanceVerify, ApiError> {
        Ok(ProvenanceVerify { verified: false, checked_at: Timestamp(0), lanes: Vec::new() })
    }

    fn metrics(&self) -> Vec<MetricFact> {
        vec![MetricFact {
            name: "srcos_up".to_owned(),
            help: "1".to_owned(),
            kind: MetricKind::Gauge,
            labels: BTreeMap::new(),
            value: 1.0,
        }]
    }

    fn shutdown(&self) -> Result<(), ApiError> {
        Ok(())
    }
}
