//! Commands on the mesh: pair, peers, network.

use std::time::Duration;

use serde_json::json;
use srcos_schemas::peers::{
    InviteDocument, InviteStatus, JoinDocument, JoinStatus, NetworkDocument, PeerDocument,
    PeersDocument,
};

use super::Session;
use super::args::{NetworkCommand, PairCommand, PeersArgs, PeersCommand};
use super::hints::Hints;
use crate::api::{ApiError, ErrorKind};
use crate::client::encode;
use crate::error::NodeError;
use crate::render;

/// Time between two looks at a pairing, in milliseconds: short for a person who waits.
const POLL_MS: u64 = 200;

pub(super) async fn pair(
    session: &mut Session<'_, '_>,
    command: PairCommand,
) -> Result<(), NodeError> {
    if !session.client.is_daemon() {
        return Err(ApiError::needs_daemon("pairing").into());
    }
    match command {
        PairCommand::Invite { ttl, no_wait } => invite(session, ttl, no_wait).await,
        PairCommand::Join { code, addr } => join(session, &code, &addr).await,
    }
}

async fn invite(
    session: &mut Session<'_, '_>,
    ttl: Option<u64>,
    no_wait: bool,
) -> Result<(), NodeError> {
    let ttl_ms = ttl.map(|seconds| seconds.saturating_mul(1000));
    let invite: InviteDocument =
        session.client.post("/admin/pair/invites", &json!({"ttl_ms": ttl_ms})).await?;
    session.show(&invite, render::invite)?;
    session.io.output.flush().map_err(|error| NodeError::output(&error))?;
    if no_wait {
        return Ok(());
    }
    let path = format!("/admin/pair/invites/{}", encode(&invite.id));
    let interrupted = tokio::signal::ctrl_c();
    let mut interrupted = std::pin::pin!(interrupted);
    let (code, message) = loop {
        match session.client.get::<InviteStatus>(&path).await? {
            InviteStatus::Waiting => {}
            InviteStatus::Joined { joined } => {
                if session.globals.json {
                    return session.json_line(&json!({"joined": joined}));
                }
                let id = render::short(&joined.device);
                return session.say(&format!("{} ({id}) joined the mesh", joined.name));
            }
            InviteStatus::Expired => break ("invite_expired", "nobody joined in time".to_owned()),
            InviteStatus::Cancelled => {
                break ("invite_cancelled", "the invitation was taken back".to_owned());
            }
            InviteStatus::Failed { reason } => break ("invite_failed", reason),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(POLL_MS)) => {}
            _ = interrupted.as_mut() => {
                // An invitation that nobody waits for must not stay open.
                session.client.delete_path::<InviteStatus>(&path).await?;
                break ("invite_cancelled", "the invitation was taken back".to_owned());
            }
        }
    };
    let hint = "invite again with: srcos-node pair invite";
    Err(ApiError::new(ErrorKind::DoesNotHold, code, message, hint).into())
}

async fn join(
    session: &mut Session<'_, '_>,
    code: &str,
    addrs: &[String],
) -> Result<(), NodeError> {
    let body = json!({"code": code, "addrs": addrs});
    let mut join: JoinDocument = session.client.post("/admin/pair/joins", &body).await?;
    let path = format!("/admin/pair/joins/{}", encode(&join.id));
    let progress = session.shows_progress().then(|| render::spinner("joining"));
    let ended = loop {
        if let Some(progress) = &progress {
            progress.set_message(render::join_step(&join.status));
        }
        match join.status {
            JoinStatus::Joined { .. } => break Ok(join),
            JoinStatus::Failed { error } => break Err(ApiError::from(error)),
            JoinStatus::Searching
            | JoinStatus::Connecting { .. }
            | JoinStatus::Authenticating
            | JoinStatus::Receiving => {}
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        join = match session.client.get(&path).await {
            Ok(join) => join,
            Err(error) => break Err(error),
        };
    };
    if let Some(progress) = progress {
        progress.finish_and_clear();
    }
    session.show(&ended?, render::join)
}

pub(super) async fn peers(session: &mut Session<'_, '_>, args: PeersArgs) -> Result<(), NodeError> {
    match args.command {
        None => {
            let peers: PeersDocument = session.client.get("/peers").await?;
            session.show(&peers, render::peers)
        }
        Some(PeersCommand::Revoke { device, reason }) => {
            let body = json!({"device": device, "reason": reason});
            let peer: PeerDocument = session.client.post("/admin/peers/revoke", &body).await?;
            session.show(&peer, |peer, _| {
                format!("{} ({}) is revoked", peer.name, render::short(&peer.device))
            })
        }
        Some(PeersCommand::Rename { device, name }) => {
            let body = json!({"device": device, "name": name});
            let peer: PeerDocument = session.client.post("/admin/peers/rename", &body).await?;
            session.show(&peer, |peer, _| {
                format!("{} is now named {}", render::short(&peer.device), peer.name)
            })
        }
    }
}

pub(super) async fn network(
    session: &mut Session<'_, '_>,
    command: NetworkCommand,
) -> Result<(), NodeError> {
    let body = json!({"offline": command == NetworkCommand::Offline});
    let network: NetworkDocument = session.client.post("/admin/network", &body).await?;
    if session.globals.json {
        return session.json_line(&network);
    }
    let text = match network.connected {
        _ if network.offline => {
            "offline: all links are cut, over a restart too, until: srcos-node network online"
                .into()
        }
        // Links take a moment to come back, so that there is none yet says nothing.
        0 => "online: links come back as peers are found; see: srcos-node peers".to_owned(),
        connected => format!("online: {} connected", render::count(connected, "peer")),
    };
    session.say(&Hints::of(&session.globals).complete(&text))
}
