//! Commands on the mesh: pair, peers, network.

use std::time::Duration;

use serde_json::json;
use srcos_schemas::peers::{
    InviteDocument, InviteStatus, JoinDocument, JoinStatus, Membership, NetworkDocument,
    PeerDocument, PeersDocument,
};
use tokio::signal::unix::{SignalKind, signal};

use super::Session;
use super::args::{NetworkCommand, PairCommand, PeersArgs, PeersCommand};
use super::hints::Hints;
use crate::api::{ApiError, ErrorKind};
use crate::client::encode;
use crate::data_dir::internal;
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
    // From before there is an invitation: one that nobody waits for must not stay open.
    let interrupted = (!no_wait).then(told_to_end).transpose()?;
    let body = json!({"ttl_ms": ttl_ms, "watched": !no_wait});
    let invite: InviteDocument = session.client.post("/admin/pair/invites", &body).await?;
    session.show(&invite, render::invite)?;
    session.io.output.flush().map_err(|error| NodeError::output(&error))?;
    let Some(interrupted) = interrupted else { return Ok(()) };
    let mut interrupted = std::pin::pin!(interrupted);
    let path = format!("/admin/pair/invites/{}", encode(&invite.id));
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
            () = interrupted.as_mut() => {
                // Where this cannot be said any more, the daemon notices that nobody asks.
                session.client.delete_path::<InviteStatus>(&path).await?;
                break ("invite_cancelled", "the invitation was taken back".to_owned());
            }
        }
    };
    let hint = "invite again with: srcos-node pair invite";
    Err(ApiError::new(ErrorKind::DoesNotHold, code, message, hint).into())
}

/// Ends when this process is told to end: by a person, by who started it, or with its terminal.
fn told_to_end() -> Result<impl Future<Output = ()>, ApiError> {
    let on = |kind| signal(kind).map_err(internal);
    let (mut interrupt, mut terminate, mut hangup) =
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
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
    let mut told = String::new();
    let ended = loop {
        let step = render::join_step(&join.status);
        match &progress {
            Some(progress) => progress.set_message(step),
            // Without a terminal a line for each step: a minute of silence looks like a hang.
            None if step != told && !join.is_over() => {
                session.note(&step);
                told = step;
            }
            None => {}
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
        Some(PeersCommand::Revoke { device, reason, leave }) => {
            let body = json!({"device": device, "reason": reason, "leave": leave});
            let peer: PeerDocument = session.client.post("/admin/peers/revoke", &body).await?;
            session.show(&peer, |peer, _| {
                let end = if peer.this_device { "has left the mesh" } else { "is revoked" };
                format!("{} ({}) {end}", render::plain(&peer.name), render::short(&peer.device))
            })
        }
        Some(PeersCommand::Rename { device, name }) => {
            let body = json!({"device": device, "name": name});
            let peer: PeerDocument = session.client.post("/admin/peers/rename", &body).await?;
            session.show(&peer, |peer, _| {
                let name = render::plain(&peer.name);
                format!("{} is now named {name}", render::short(&peer.device))
            })
        }
    }
}

/// Whether this device is a member of its mesh: what others write comes here, and what is written here
/// goes to others. Where that cannot be learned nothing is claimed.
pub(super) async fn is_member(session: &mut Session<'_, '_>) -> bool {
    let peers = session.client.get::<PeersDocument>("/peers").await;
    let Ok(peers) = peers else { return true };
    let own = peers.peers.iter().filter(|peer| peer.this_device);
    own.map(|peer| peer.membership).any(|membership| membership == Membership::Member)
}

/// Says, after a write on a device that was put out of its mesh, that it goes nowhere.
pub(crate) async fn warn_if_out(session: &mut Session<'_, '_>) {
    if !is_member(session).await {
        warn_out(session);
    }
}

/// Says that nothing which is written here goes anywhere.
pub(super) fn warn_out(session: &mut Session<'_, '_>) {
    session.warn(
        "this device is no member of its mesh any more: nothing that is written here is sent to \
         others; see: srcos-node status",
    );
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
