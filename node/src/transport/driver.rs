//! The task that owns the swarm: it dials, admits, settles doubled connections and starts links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, ListenerId, OrTransport, Transport as _};
use libp2p::core::{ConnectedPoint, upgrade};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionError, ConnectionId, DialError, NetworkBehaviour, Stream, Swarm, SwarmEvent,
};
use libp2p::{
    Multiaddr, PeerId, connection_limits, identify, identity, memory_connection_limits, noise,
    ping, quic, tcp, yamux,
};
use srcos_lanes::ids::DeviceId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::behaviour::{Gate, OpenError, Purpose, StreamEvent, Streams};
use super::dial::{Attempt, DialErrorKind, attempts, chain, without_peer};
use super::events::EventSender;
use super::link::{Link, LinkShared, Stop};
use super::pairing::Pairing;
use super::{
    ACCEPT_TIMEOUT, AGENT, Command, Config, ConnId, Connected, DisconnectReason, Event, GRACE,
    Links, PAIRING_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, QUIC_CONNECTION_WINDOW_BYTES,
    QUIC_IDLE_TIMEOUT, QUIC_STREAM_WINDOW_BYTES, StartError, lock,
};
use crate::keys::{DeviceKey, device_of_peer, peer_of_device};

/// Addresses that one dial tries: a laptop with VPN and containers has about ten.
const DIAL_ADDRESSES_MAX: usize = 16;

/// Dials of one device under way at once: one at the addresses that were known, and a few at addresses
/// that were learned meanwhile.
const DIALS_PER_DEVICE_MAX: usize = 4;

/// Addresses that are believed of one peer's own account.
const PEER_ADDRESSES_MAX: usize = 16;

/// How long a dial and the proof of identity may take, all layers together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// Connections that have not yet proven who they are. Beyond, newcomers wait for the next attempt.
const PENDING_MAX: u32 = 64;

/// Established connections in all: a mesh has a few devices, and this is far above.
const CONNECTIONS_MAX: u32 = 256;

/// Connections of one device that is no member. Two would do for devices that dial each other at once,
/// but a dial that races several addresses may complete on more before it drops all but one.
const CONNECTIONS_PER_STRANGER_MAX: u32 = 4;

/// Streams of one TCP connection: sync, pairing, identify, ping, and room for retries.
const YAMUX_STREAMS_MAX: usize = 32;

/// Streams of one connection that are being negotiated.
const NEGOTIATING_MAX: usize = 8;

/// Two connections that come up within this time are taken for a dial from both ends at once; a later
/// one says that its dialler has lost the earlier. It covers a round trip on any usable network.
const SETTLE_WINDOW: Duration = Duration::from_secs(5);

/// How long closing the connections may take at the end, after the links have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Events that the driver holds while the runtime is slow, before it stops looking at the network.
const HELD_EVENTS_MAX: usize = 256;

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    streams: Streams,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A dial under way.
struct Dialling {
    purpose: Purpose,
    device: Option<DeviceId>,
    addrs: Vec<Multiaddr>,
    failed: Vec<Attempt>,
}

/// An established connection.
struct Conn {
    device: DeviceId,
    addr: Multiaddr,
    outbound: bool,
    stage: Stage,
    /// Bytes received when a ping last failed: a busy line delays pings, but it is not dead.
    bytes_in_at_ping_failure: Option<u64>,
}

enum Stage {
    /// No stream yet.
    Opening {
        purpose: Option<Purpose>,
        deadline: Instant,
    },
    /// A pairing stream was handed up.
    Pairing { deadline: Instant },
    /// A link runs, or has run.
    Linked(ConnId),
    /// It is to close.
    Closing,
}

/// The link of a device.
struct Current {
    connection: ConnectionId,
    /// Who dialled it.
    dialler: DeviceId,
    since: Instant,
    shared: Arc<LinkShared>,
    done: Option<oneshot::Receiver<()>>,
}

pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    device: DeviceId,
    commands: mpsc::Receiver<Command>,
    events: EventSender,
    held: VecDeque<Event>,
    links: Arc<Links>,
    gate: Arc<Gate>,
    members: BTreeSet<DeviceId>,
    listeners: BTreeMap<ListenerKey, Multiaddr>,
    dials: BTreeMap<ConnectionId, Dialling>,
    conns: BTreeMap<ConnectionId, Conn>,
    current: BTreeMap<DeviceId, Current>,
    ended: mpsc::UnboundedReceiver<ConnectionId>,
    ends: mpsc::UnboundedSender<ConnectionId>,
    running: usize,
    next_conn: u64,
}

/// `ListenerId` has no order, but its text is a number of its own.
type ListenerKey = String;

impl Driver {
    pub(super) fn new(
        config: &Config,
        key: &DeviceKey,
        commands: mpsc::Receiver<Command>,
        events: EventSender,
        links: Arc<Links>,
        gate: Arc<Gate>,
    ) -> Result<Self, StartError> {
        let (ends, ended) = mpsc::unbounded_channel();
        Ok(Self {
            swarm: swarm(config, &key.network(), gate.clone())?,
            device: key.device(),
            commands,
            events,
            held: VecDeque::new(),
            links,
            gate,
            members: BTreeSet::new(),
            listeners: BTreeMap::new(),
            dials: BTreeMap::new(),
            conns: BTreeMap::new(),
            current: BTreeMap::new(),
            ended,
            ends,
            running: 0,
            next_conn: 1,
        })
    }

    pub(super) async fn run(mut self) {
        let events = self.events.clone();
        let finished = loop {
            let deadline = self.next_deadline();
            let held = self.held.len();
            tokio::select! {
                room = events.reserve(), if held > 0 => {
                    let Some(room) = room else { break None };
                    if let Some(event) = self.held.pop_front() {
                        room.fill(event);
                    }
                }
                command = self.commands.recv(), if held < HELD_EVENTS_MAX => match command {
                    Some(Command::Shutdown(done)) => break Some(done),
                    Some(command) => self.on_command(command),
                    // Every handle is gone, so nobody can want anything more.
                    None => break None,
                },
                Some(connection) = self.ended.recv() => self.on_link_ended(connection),
                event = self.swarm.select_next_some(), if held < HELD_EVENTS_MAX => {
                    self.on_swarm_event(event);
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.on_deadline(Instant::now());
                }
            }
        };
        self.finish().await;
        // The sockets are free and commands refused before anyone is told of the end.
        drop(self);
        if let Some(done) = finished {
            // Whoever asked may have gone meanwhile.
            let _ = done.send(());
        }
    }

    /// Lets the links say goodbye, then closes every connection.
    async fn finish(&mut self) {
        self.gate.offline.store(true, Ordering::Relaxed);
        for link in lock(&self.links).values() {
            link.stop(Stop::Gracefully(DisconnectReason::Shutdown));
        }
        let deadline = Instant::now() + GRACE + CLOSE_TIMEOUT;
        let mut closing = false;
        while Instant::now() < deadline {
            if self.running == 0 && !closing {
                closing = true;
                let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
                for peer in peers {
                    // An error says that the connection is gone already.
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            if closing && self.swarm.network_info().num_peers() == 0 {
                break;
            }
            tokio::select! {
                Some(connection) = self.ended.recv() => self.on_link_ended(connection),
                event = self.swarm.select_next_some() => {
                    if let SwarmEvent::ConnectionClosed { connection_id, .. } = event {
                        self.lost(connection_id, DisconnectReason::Shutdown);
                    }
                }
                () = sleep_until(deadline) => {}
            }
        }
        for link in lock(&self.links).values() {
            link.stop(Stop::Now(DisconnectReason::Shutdown));
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Listen(addr) => match self.swarm.listen_on(addr.clone()) {
                Ok(id) => {
                    self.listeners.insert(listener_key(id), addr);
                }
                Err(error) => {
                    let error = chain(&error);
                    self.held.push_back(Event::ListenFailed {
                        addr: Some(addr),
                        error,
                    });
                }
            },
            Command::Dial { device, addrs } => self.dial(device, addrs),
            Command::OpenPairing { addr, device } => self.open_pairing(addr, device),
            Command::SetMembers(members) => self.set_members(members),
            Command::Offline => self.go_offline(),
            // `run` has taken this one.
            Command::Shutdown(_) => {}
        }
    }

    fn set_members(&mut self, members: BTreeSet<DeviceId>) {
        let behaviour = self.swarm.behaviour_mut();
        for peer in self.members.difference(&members).filter_map(peer_of_device) {
            behaviour.limits.remove_peer_id(&peer);
        }
        for peer in members.difference(&self.members).filter_map(peer_of_device) {
            behaviour.limits.bypass_peer_id(&peer);
        }
        behaviour
            .streams
            .set_members(members.iter().filter_map(peer_of_device).collect());
        self.members = members;
    }

    fn go_offline(&mut self) {
        for link in lock(&self.links).values() {
            link.stop(Stop::Now(DisconnectReason::Offline));
        }
        let others: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| !matches!(conn.stage, Stage::Linked(_)))
            .map(|(id, _)| *id)
            .collect();
        for connection in others {
            self.refuse(
                connection,
                DialErrorKind::Offline,
                "this node went offline by command",
            );
        }
    }

    fn dial(&mut self, device: DeviceId, addrs: Vec<Multiaddr>) {
        if self.current.contains_key(&device) {
            return;
        }
        let mut addrs: Vec<_> = addrs.iter().map(without_peer).collect();
        addrs.sort();
        addrs.dedup();
        let mut under_way = 0;
        for dial in self.dials.values().filter(|d| d.device == Some(device)) {
            under_way += 1;
            addrs.retain(|addr| !dial.addrs.contains(addr));
        }
        if under_way > 0 && (addrs.is_empty() || under_way >= DIALS_PER_DEVICE_MAX) {
            // The dial under way answers for this one.
            return;
        }
        addrs.truncate(DIAL_ADDRESSES_MAX);
        self.start(Dialling {
            purpose: Purpose::Sync,
            device: Some(device),
            addrs,
            failed: Vec::new(),
        });
    }

    fn open_pairing(&mut self, addr: Multiaddr, device: Option<DeviceId>) {
        let addrs = vec![without_peer(&addr)];
        self.start(Dialling {
            purpose: Purpose::Pairing,
            device,
            addrs,
            failed: Vec::new(),
        });
    }

    fn start(&mut self, mut dial: Dialling) {
        let opts = match dial.device {
            Some(device) => match peer_of_device(&device) {
                Some(peer) => DialOpts::peer_id(peer)
                    .condition(PeerCondition::Always)
                    .addresses(dial.addrs.clone())
                    .build(),
                None => {
                    let error = format!("{device} is not an ed25519 key");
                    dial.failed.extend(dial.addrs.iter().map(|addr| Attempt {
                        addr: addr.clone(),
                        kind: DialErrorKind::WrongPeer,
                        error: error.clone(),
                    }));
                    return self.dial_failed(dial);
                }
            },
            None => {
                let addr = dial.addrs.first().cloned().unwrap_or_else(Multiaddr::empty);
                DialOpts::unknown_peer_id().address(addr).build()
            }
        };
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.insert(connection, dial);
            }
            Err(error) => {
                dial.failed.extend(attempts(&error, &dial.addrs));
                self.dial_failed(dial);
            }
        }
    }

    fn dial_failed(&mut self, dial: Dialling) {
        let Dialling {
            purpose,
            device,
            addrs,
            mut failed,
        } = dial;
        // libp2p leaves our own listen addresses out without a word.
        for addr in &addrs {
            if !failed.iter().any(|attempt| attempt.addr == *addr) {
                let own = self
                    .swarm
                    .listeners()
                    .any(|listens| without_peer(listens) == *addr);
                let (kind, error) = if own {
                    (DialErrorKind::OwnAddress, "this node itself listens there")
                } else {
                    (DialErrorKind::Other, "the address was not dialled")
                };
                failed.push(Attempt {
                    addr: addr.clone(),
                    kind,
                    error: error.to_owned(),
                });
            }
        }
        self.held.push_back(match (purpose, device) {
            (Purpose::Sync, Some(device)) => Event::DialFailed {
                device,
                attempts: failed,
            },
            _ => Event::PairingFailed(failed.into_iter().next().unwrap_or_else(|| Attempt {
                addr: Multiaddr::empty(),
                kind: DialErrorKind::Other,
                error: "there was no address to dial".to_owned(),
            })),
        });
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                self.held.push_back(Event::Listening {
                    addr: without_peer(&address),
                });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.held.push_back(Event::NotListening {
                    addr: without_peer(&address),
                });
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                let addr = self.listeners.remove(&listener_key(listener_id));
                for address in addresses {
                    self.held.push_back(Event::NotListening {
                        addr: without_peer(&address),
                    });
                }
                if let Err(error) = reason {
                    self.held.push_back(Event::ListenFailed {
                        addr,
                        error: chain(&error),
                    });
                }
            }
            SwarmEvent::ListenerError { listener_id, error } => {
                let addr = self.listeners.get(&listener_key(listener_id)).cloned();
                self.held.push_back(Event::ListenFailed {
                    addr,
                    error: chain(&error),
                });
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.on_established(connection_id, peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                connection_id,
                cause,
                ..
            } => {
                self.lost(connection_id, closed_reason(cause));
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                self.on_dial_error(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                tracing::debug!(%send_back_addr, %error, "an inbound connection was not made");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => self.on_stream(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                info,
                ..
            })) => self.on_identified(connection_id, info),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(event),
            _ => {}
        }
    }

    fn on_dial_error(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(mut dial) = self.dials.remove(&connection) else {
            return;
        };
        let failed = attempts(error, &dial.addrs);
        dial.addrs
            .retain(|addr| !failed.iter().any(|attempt| attempt.addr == *addr));
        dial.failed.extend(failed);
        // Where an address now belongs to another device, libp2p gives up on the rest with it.
        let misled = matches!(
            error,
            DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. }
        );
        let wanted = dial
            .device
            .is_some_and(|device| !self.current.contains_key(&device));
        if misled && wanted && !dial.addrs.is_empty() {
            self.start(dial);
        } else {
            self.dial_failed(dial);
        }
    }

    fn on_established(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        endpoint: &ConnectedPoint,
    ) {
        let dial = self.dials.remove(&connection);
        let outbound = endpoint.is_dialer();
        let addr = without_peer(endpoint.get_remote_address());
        let Some(device) = device_of_peer(&peer) else {
            self.swarm.close_connection(connection);
            if let Some(mut dial) = dial {
                let error = format!("{peer} answered, whose key is not ed25519");
                dial.failed.push(Attempt {
                    addr,
                    kind: DialErrorKind::WrongPeer,
                    error,
                });
                self.dial_failed(dial);
            }
            return;
        };
        let purpose = dial.map(|dial| dial.purpose);
        let deadline = Instant::now() + ACCEPT_TIMEOUT;
        let mut stage = Stage::Opening { purpose, deadline };
        match purpose {
            // The peer was quicker: its connection is up and in use, so ours is not needed.
            Some(Purpose::Sync) if self.current.contains_key(&device) => {
                self.swarm.close_connection(connection);
                stage = Stage::Closing;
            }
            Some(purpose) => self
                .swarm
                .behaviour_mut()
                .streams
                .open(peer, connection, purpose),
            None => {}
        }
        let conn = Conn {
            device,
            addr,
            outbound,
            stage,
            bytes_in_at_ping_failure: None,
        };
        self.conns.insert(connection, conn);
    }

    fn on_stream(&mut self, event: StreamEvent) {
        let StreamEvent {
            connection,
            purpose,
            outcome,
        } = event;
        let Some(conn) = self.conns.get_mut(&connection) else {
            return;
        };
        let stream = match outcome {
            Ok(stream) => stream,
            Err(error) => {
                let kind = match error {
                    OpenError::Unsupported(_) => DialErrorKind::Unsupported,
                    OpenError::Timeout => DialErrorKind::Timeout,
                    OpenError::Io(_) => DialErrorKind::Other,
                };
                return self.refuse(connection, kind, &error.to_string());
            }
        };
        // One stream per connection: whatever comes after the first is dropped.
        if !matches!(conn.stage, Stage::Opening { .. }) {
            return;
        }
        match purpose {
            Purpose::Pairing => {
                conn.stage = Stage::Pairing {
                    deadline: Instant::now() + PAIRING_TIMEOUT,
                };
                let pairing = Pairing::new(conn.device, conn.addr.clone(), conn.outbound, stream);
                self.held.push_back(Event::Pairing(pairing));
            }
            Purpose::Sync => self.settle(connection, stream),
        }
    }

    /// Starts a link on a connection, unless the device has a better one.
    fn settle(&mut self, connection: ConnectionId, stream: Stream) {
        let Some(conn) = self.conns.get_mut(&connection) else {
            return;
        };
        let device = conn.device;
        let dialler = if conn.outbound { self.device } else { device };
        if let Some(current) = self.current.get(&device) {
            let stale = current.dialler == dialler || current.since.elapsed() >= SETTLE_WINDOW;
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
            replaced
                .shared
                .stop(Stop::Now(DisconnectReason::Superseded));
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

    fn on_link_ended(&mut self, connection: ConnectionId) {
        self.running = self.running.saturating_sub(1);
        self.current
            .retain(|_, current| current.connection != connection);
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
    fn lost(&mut self, connection: ConnectionId, reason: DisconnectReason) {
        let Some(conn) = self.conns.remove(&connection) else {
            return;
        };
        match conn.stage {
            Stage::Linked(id) => {
                if let Some(link) = lock(&self.links).get(&id) {
                    link.stop(Stop::Lost(reason));
                }
            }
            Stage::Opening {
                purpose: Some(purpose),
                ..
            } => {
                let kind = DialErrorKind::Other;
                self.opening_failed(&conn, purpose, kind, &reason.to_string());
            }
            Stage::Opening { purpose: None, .. } | Stage::Pairing { .. } | Stage::Closing => {}
        }
    }

    /// Closes a connection that has no link; if we dialled it, the dial has failed.
    fn refuse(&mut self, connection: ConnectionId, kind: DialErrorKind, why: &str) {
        self.swarm.close_connection(connection);
        let Some(conn) = self.conns.get_mut(&connection) else {
            return;
        };
        let stage = std::mem::replace(&mut conn.stage, Stage::Closing);
        if let Stage::Opening {
            purpose: Some(purpose),
            ..
        } = stage
            && let Some(conn) = self.conns.get(&connection)
        {
            let conn = Conn {
                addr: conn.addr.clone(),
                stage: Stage::Closing,
                ..*conn
            };
            self.opening_failed(&conn, purpose, kind, why);
        }
    }

    fn opening_failed(&mut self, conn: &Conn, purpose: Purpose, kind: DialErrorKind, why: &str) {
        // The peer may have closed ours because its own connection to us was first.
        if purpose == Purpose::Sync && self.current.contains_key(&conn.device) {
            return;
        }
        let attempt = Attempt {
            addr: conn.addr.clone(),
            kind,
            error: why.to_owned(),
        };
        self.dial_failed(Dialling {
            purpose,
            device: Some(conn.device),
            addrs: Vec::new(),
            failed: vec![attempt],
        });
    }

    fn on_identified(&mut self, connection: ConnectionId, info: identify::Info) {
        let Some(conn) = self.conns.get(&connection) else {
            return;
        };
        let addrs = info.listen_addrs.iter().filter(|addr| is_dialable(addr));
        self.held.push_back(Event::PeerAddresses {
            device: conn.device,
            addrs: addrs.map(without_peer).take(PEER_ADDRESSES_MAX).collect(),
            observed: without_peer(&info.observed_addr),
        });
    }

    fn on_ping(&mut self, event: ping::Event) {
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

    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.conns.values().filter_map(|conn| match conn.stage {
            Stage::Opening { deadline, .. } | Stage::Pairing { deadline } => Some(deadline),
            Stage::Linked(_) | Stage::Closing => None,
        });
        deadlines.min()
    }

    fn on_deadline(&mut self, now: Instant) {
        let due = |conn: &Conn| match conn.stage {
            Stage::Opening { deadline, .. } | Stage::Pairing { deadline } => deadline <= now,
            Stage::Linked(_) | Stage::Closing => false,
        };
        let late: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| due(conn))
            .map(|(id, _)| *id)
            .collect();
        for connection in late {
            self.refuse(
                connection,
                DialErrorKind::Timeout,
                "no stream was opened in time",
            );
        }
    }
}

fn listener_key(id: ListenerId) -> ListenerKey {
    id.to_string()
}

fn closed_reason(cause: Option<ConnectionError>) -> DisconnectReason {
    match cause {
        None => DisconnectReason::Local,
        Some(error) => DisconnectReason::Network(chain(&error)),
    }
}

/// Whether a peer's account of its own address is of a form that we dial.
fn is_dialable(addr: &Multiaddr) -> bool {
    let addr = without_peer(addr);
    let parts: Vec<_> = addr.iter().collect();
    let host = match parts.first() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified(),
        _ => false,
    };
    host && match &parts[1..] {
        [Protocol::Tcp(port)] => *port != 0,
        [Protocol::Udp(port), Protocol::QuicV1] => *port != 0,
        _ => false,
    }
}

fn swarm(
    config: &Config,
    key: &identity::Keypair,
    gate: Arc<Gate>,
) -> Result<Swarm<Behaviour>, StartError> {
    let peer = key.public().to_peer_id();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_STRANGER_MAX));
    let identify = identify::Config::new("/srcos/1".to_owned(), key.public())
        .with_agent_version(AGENT.to_owned())
        .with_push_listen_addr_updates(true)
        .with_cache_size(0);
    let ping = ping::Config::new()
        .with_interval(PING_INTERVAL)
        .with_timeout(PING_TIMEOUT);
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        memory: memory_connection_limits::Behaviour::with_max_bytes(config.memory_bytes_max),
        streams: Streams::new(gate),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
    };
    let settings = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(config.idle_timeout)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        .with_smart_dial();
    Ok(Swarm::new(
        transport(config, key)?,
        behaviour,
        peer,
        settings,
    ))
}

type Muxed = Boxed<(PeerId, StreamMuxerBox)>;

fn transport(config: &Config, key: &identity::Keypair) -> Result<Muxed, StartError> {
    let tcp = config
        .transports
        .tcp
        .then(|| tcp_transport(key))
        .transpose()?;
    let quic = config.transports.quic.then(|| quic_transport(key));
    match (quic, tcp) {
        (Some(quic), Some(tcp)) => Ok(OrTransport::new(quic, tcp)
            .map(|either, _| either.into_inner())
            .boxed()),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => Err(StartError::NoTransport),
    }
}

fn tcp_transport(key: &identity::Keypair) -> Result<Muxed, StartError> {
    let noise =
        noise::Config::new(key).map_err(|error| StartError::Encryption(error.to_string()))?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(YAMUX_STREAMS_MAX);
    Ok(
        tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux)
            .timeout(HANDSHAKE_TIMEOUT)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    )
}

fn quic_transport(key: &identity::Keypair) -> Muxed {
    let mut config = quic::Config::new(key);
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    config.max_idle_timeout = QUIC_IDLE_TIMEOUT.as_millis() as u32;
    config.keep_alive_interval = PING_INTERVAL;
    config.max_concurrent_stream_limit = YAMUX_STREAMS_MAX as u32;
    config.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
    config.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
    quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}
