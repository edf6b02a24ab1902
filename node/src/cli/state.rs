//! Commands that show how things are: status, lanes, provenance.

use srcos_lanes::lane::LaneId;
use srcos_schemas::lanes::{LanePeerState, LaneState, LanesStatus, ReplicationMode};
use srcos_schemas::provenance::{ProvenanceLog, ProvenanceVerify};
use srcos_schemas::status::StatusDocument;

use super::args::{Globals, ProvenanceCommand};
use super::hints::Hints;
use super::{Io, Session};
use crate::client::encode;
use crate::error::NodeError;
use crate::render;

pub(super) async fn status(session: &mut Session<'_, '_>) -> Result<(), NodeError> {
    let mut status: StatusDocument = session.client.get("/admin/status").await?;
    let hints = Hints::of(&session.globals);
    for found in &mut status.diagnosis {
        found.hint = hints.complete(&found.hint);
    }
    session.show(&status, render::status)?;
    holds(status.readiness.state.is_ready())
}

pub(super) async fn lanes_status(
    session: &mut Session<'_, '_>,
    lane: Option<LaneId>,
) -> Result<(), NodeError> {
    let path = lane.map_or_else(|| "/lanes".to_owned(), |lane| format!("/lanes/{lane}"));
    let status: LanesStatus = session.client.get(&path).await?;
    session.show(&status, render::lanes_status)?;
    holds(in_step(&status))
}

/// Whether every lane is as agreed, and proven equal with every peer that shares it. A lane that
/// stays on its device is as agreed when it does.
pub(super) fn in_step(status: &LanesStatus) -> bool {
    status.lanes.iter().all(|lane| {
        matches!(lane.status, LaneState::Active | LaneState::Dormant | LaneState::Retired)
            && lane.replication.peers.iter().all(|peer| {
                let stays = lane.replication.mode != ReplicationMode::Replicated;
                peer.state == LanePeerState::InSync
                    || (stays && peer.state == LanePeerState::Blocked)
            })
    })
}

pub(super) fn lanes_list(globals: &Globals, io: &mut Io<'_>) -> Result<(), NodeError> {
    let lanes: Vec<_> = LaneId::ALL.into_iter().map(crate::api::describe).collect();
    super::show(globals, io, &lanes, render::lane_list)
}

pub(super) async fn provenance(
    session: &mut Session<'_, '_>,
    command: ProvenanceCommand,
) -> Result<(), NodeError> {
    match command {
        ProvenanceCommand::Log { lane, id } => {
            super::objects::check(lane, &id)?;
            let path = format!("/admin/provenance/log/{lane}/{}", encode(&id));
            let log: ProvenanceLog = session.client.get(&path).await?;
            session.show(&log, render::provenance_log)?;
            holds(log.changes.iter().all(|change| change.verified))
        }
        ProvenanceCommand::Verify { lane } => {
            let query = lane.map(|lane| format!("?lane={lane}")).unwrap_or_default();
            let progress = session.shows_progress().then(|| render::spinner("verifying"));
            let path = format!("/admin/provenance/verify{query}");
            let verified = session.client.get::<ProvenanceVerify>(&path).await;
            if let Some(progress) = progress {
                progress.finish_and_clear();
            }
            let verified = verified?;
            session.show(&verified, render::provenance_verify)?;
            holds(verified.verified)
        }
    }
}

fn holds(holds: bool) -> Result<(), NodeError> {
    if holds { Ok(()) } else { Err(NodeError::DoesNotHold) }
}
