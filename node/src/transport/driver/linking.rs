//! Streams become links: one per device, from the settling of doubled connections to the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::ping;
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Current, Driver, Goal, Stage};
use crate::keys::peer_of_device;
use crate::transport::behaviour::{OpenError, Purpose, StreamEvent};
use crate::transport::dial::DialErrorKind;
use crate::transport::link::{Link, LinkShared, Stop};
use crate::transport::pairing::{Hold, Pairing};
use crate::transport::{ConnId, Connected, DisconnectReason, Event, PAIRING_TIMEOUT, lock};

/// Two connections that come up within this time are taken for a dial from both ends at once; a later
/// one says that its dialler has lost the earlier. It covers a round trip on any usable network.
const SETTLE_WINDOW: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn on_stream(&mut self, event: StreamEvent) {
        let StreamEvent { connection, purpose, outcome } = event;
        if purpose == Purpose::Probe {
            return self.probed(connection, &outcome);
        }
        let Some(conn) = self.conns.get_mut(&connection) else {
            return;
        };
        let stream = match outcome {
            Ok(stream) => stream,
            Err(error) => {
                let kind = match error {
                    OpenError::Unsupported(_) => DialErrorKind::NotSpoken,
                    OpenError::Timeout => DialErrorKind::Timeout,
                    OpenError::Io(_) => DialErrorKind::Other,
                };
                return self.refuse(connection, kind, &error.to_string());
            }
        };
        // One stream per connection: whatever comes after the first is dropped.
        let Stage::Opening { goal, .. } = conn.stage else { return };
        match purpose {
            Purpose::Pairing => {
                conn.stage = Stage::Pairing { deadline: Instant::now() + PAIRING_TIMEOUT };
                let attempt = match goal {
                    Some(Goal::Pairing(attempt)) => Some(attempt),
                    Some(Goal::Sync(_)) | None => None,
                };
                let hold = Hold::new(self.gate.clone(), connection);
                let pairing = Pairing::new(conn.device, conn.addr.clone(), attempt, stream, hold);
                self.held.push_back(Event::Pairing(pairing));
            }
            Purpose::Sync => self.settle(connection, stream),
            // Taken above.
            Purpose::Probe => {}
        }
    }

    /// Asks over a link whether the peer is there, by a stream that it need not accept.
    pub(super) fn probe(&mut self, conn: ConnId) {
        let Some(link) = lock(&self.links).get(&conn).cloned() else { return };
        let connection = link.connection;
        let Some(conn) = self.conns.get_mut(&connection) else { return };
        let Some(peer) = peer_of_device(&conn.device) else { return };
        if conn.bytes_in_at_probe.is_none() {
            conn.bytes_in_at_probe = Some(link.bytes_in.load(Ordering::Relaxed));
            self.swarm.behaviour_mut().streams.open(peer, connection, Purpose::Probe);
        }
    }

    fn probed(&mut self, connection: ConnectionId, outcome: &Result<Stream, OpenError>) {
        let Some(conn) = self.conns.get_mut(&connection) else { return };
        let (Some(before), Stage::Linked(id)) = (conn.bytes_in_at_probe.take(), &conn.stage) else {
            return;
        };
        let Some(link) = lock(&self.links).get(id).cloned() else { return };
        let answered = matches!(outcome, Ok(_) | Err(OpenError::Unsupported(_)));
        // A busy line may hold an answer up, but it is not dead.
        let alive = answered || link.bytes_in.load(Ordering::Relaxed) > before;
        self.held.push_back(Event::Probed { conn: *id, alive });
    }

    /// Starts a link on a connection, unless the device has a better one.
    pub(super) fn settle(&mut self, connection: ConnectionId, stream: Stream) {
        let Some(conn) = self.conns.get_mut(&connection) else {
            return;
        };
        let device = conn.device;
        let dialler = if conn.outbound { self.device } else { device };
        if let Some(current) = self.current.get(&device) {
            let stale = current.dialler == dialler
                || current.since.elapsed() >= SETTLE_WINDOW
                || current.is_ending();
            if !stale && dialler != device.min(self.device) {
                conn.stage = Stage::Closing;
                self.swarm.close_connection(connection);
                return;
            }
        }
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        conn.stage = Stage::Linked(id);
        let connected = Connected {
            conn: id,
            device,
            addr: conn.addr.clone(),
            outbound: conn.outbound,
            quic: conn.addr.iter().any(|part| part == Protocol::QuicV1),
        };
        let shared = Arc::new(LinkShared::new(connection));
        let (done, is_done) = oneshot::channel();
        let replaced = self.current.insert(
            device,
            Current {
                connection,
                dialler,
                since: Instant::now(),
                shared: shared.clone(),
                done: Some(is_done),
            },
        );
        let predecessor = replaced.and_then(|mut replaced| {
            replaced.shared.stop(Stop::Now(DisconnectReason::Superseded));
            replaced.done.take()
        });
        lock(&self.links).insert(id, shared.clone());
        self.running += 1;
        let link = Link {
            connected,
            stream,
            shared,
            events: self.events.clone(),
            predecessor,
            ended: self.ends.clone(),
        };
        tokio::spawn(link.run(done));
    }

    pub(super) fn on_link_ended(&mut self, connection: ConnectionId) {
        self.running = self.running.saturating_sub(1);
        self.current.retain(|_, current| current.connection != connection);
        if let Some(conn) = self.conns.get_mut(&connection) {
            if let Stage::Linked(id) = conn.stage {
                lock(&self.links).remove(&id);
            }
            conn.stage = Stage::Closing;
            self.swarm.close_connection(connection);
        } else {
            lock(&self.links).retain(|_, link| link.connection != connection);
        }
    }

    /// A connection is gone.
    pub(super) fn lost(&mut self, connection: ConnectionId, reason: DisconnectReason) {
        let Some(conn) = self.conns.remove(&connection) else {
            return;
        };
        match conn.stage {
            Stage::Linked(id) => {
                if let Some(link) = lock(&self.links).get(&id) {
                    link.stop(Stop::Lost(reason));
                }
            }
            Stage::Opening { goal: Some(goal), .. } => {
                let kind = DialErrorKind::Other;
                self.opening_failed(&conn, goal, kind, &reason.to_string());
            }
            Stage::Opening { goal: None, .. } | Stage::Pairing { .. } | Stage::Closing => {}
        }
    }

    pub(super) fn on_ping(&mut self, event: ping::Event) {
        let connection = event.connection;
        let Some(conn) = self.conns.get_mut(&connection) else {
            return;
        };
        let failure = match event.result {
            Ok(_) => {
                conn.bytes_in_at_ping_failure = None;
                return;
            }
            // Rude, but it says that the peer is there.
            Err(ping::Failure::Unsupported) => return,
            Err(failure) => failure,
        };
        let Stage::Linked(id) = conn.stage else {
            return;
        };
        let Some(link) = lock(&self.links).get(&id).cloned() else {
            return;
        };
        let bytes_in = link.bytes_in.load(Ordering::Relaxed);
        let before = conn.bytes_in_at_ping_failure.replace(bytes_in);
        if before.is_some_and(|before| before < bytes_in) {
            return;
        }
        tracing::debug!(device = %conn.device.short(), %failure, "no answer to pings");
        link.stop(Stop::Now(DisconnectReason::PingTimeout));
    }
}
