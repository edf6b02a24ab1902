//! The task that owns the swarm: it dials, admits, settles doubled connections and starts links.

mod dialling;
mod linking;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionError, ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify};
use srcos_lanes::ids::DeviceId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::behaviour::{Gate, Purpose};
use super::dial::{Attempt, DialErrorKind, chain, without_peer};
use super::events::EventSender;
use super::link::{LinkShared, Stop};
use super::setup::{Behaviour, BehaviourEvent, swarm};
use super::{
    ACCEPT_TIMEOUT, Command, Config, ConnId, DisconnectReason, Event, GRACE, Links, StartError,
    lock,
};
use crate::keys::{DeviceKey, device_of_peer, peer_of_device};
use crate::roaming::host;

/// Addresses that are believed of one peer's own account.
const PEER_ADDRESSES_MAX: usize = 16;

/// How long closing the connections may take at the end, after the links have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Events that the driver holds while the runtime is slow, before it stops looking at the network.
const HELD_EVENTS_MAX: usize = 256;

/// What a connection is dialled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    /// A link. With a time, also where the device has one that is older.
    Sync(Option<Instant>),
    /// A pairing stream, asked for under this number.
    Pairing(u64),
}

impl Goal {
    fn purpose(self) -> Purpose {
        match self {
            Self::Sync(_) => Purpose::Sync,
            Self::Pairing(_) => Purpose::Pairing,
        }
    }
}

/// A dial under way.
struct Dialling {
    goal: Goal,
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
    /// Bytes received when the peer was asked whether it is there, while it has not answered.
    bytes_in_at_probe: Option<u64>,
}

enum Stage {
    /// No stream yet.
    Opening { goal: Option<Goal>, deadline: Instant },
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

impl Current {
    /// Nothing more is sent over it; its end is handed up soon, or was.
    fn is_ending(&self) -> bool {
        self.shared.queue.is_closed()
    }
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
                    self.held.push_back(Event::ListenFailed { addr: Some(addr), error });
                }
            },
            Command::Dial { device, addrs, anew } => self.dial(device, addrs, anew),
            Command::Probe(conn) => self.probe(conn),
            Command::OpenPairing { attempt, addr, device } => {
                self.open_pairing(attempt, addr, device);
            }
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
        behaviour.streams.set_members(members.iter().filter_map(peer_of_device).collect());
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
            self.refuse(connection, DialErrorKind::Offline, "this node went offline by command");
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                self.held.push_back(Event::Listening { addr: without_peer(&address) });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.held.push_back(Event::NotListening { addr: without_peer(&address) });
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                let addr = self.listeners.remove(&listener_key(listener_id));
                for address in addresses {
                    self.held.push_back(Event::NotListening { addr: without_peer(&address) });
                }
                if let Err(error) = reason {
                    self.held.push_back(Event::ListenFailed { addr, error: chain(&error) });
                }
            }
            SwarmEvent::ListenerError { listener_id, error } => {
                let addr = self.listeners.get(&listener_key(listener_id)).cloned();
                self.held.push_back(Event::ListenFailed { addr, error: chain(&error) });
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(connection_id, peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                self.lost(connection_id, closed_reason(cause));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
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
                dial.failed.push(Attempt { addr, kind: DialErrorKind::WrongPeer, error });
                self.dial_failed(dial);
            }
            return;
        };
        let goal = dial.map(|dial| dial.goal);
        let deadline = Instant::now() + ACCEPT_TIMEOUT;
        let mut stage = Stage::Opening { goal, deadline };
        match goal {
            // The peer was quicker: its connection is up and in use, so ours is not needed.
            Some(Goal::Sync(anew)) if !self.needs_link(device, anew) => {
                self.swarm.close_connection(connection);
                stage = Stage::Closing;
            }
            Some(goal) => {
                self.swarm.behaviour_mut().streams.open(peer, connection, goal.purpose());
            }
            None => {}
        }
        let conn = Conn {
            device,
            addr,
            outbound,
            stage,
            bytes_in_at_ping_failure: None,
            bytes_in_at_probe: None,
        };
        self.conns.insert(connection, conn);
    }

    fn on_identified(&mut self, connection: ConnectionId, info: identify::Info) {
        let Some(conn) = self.conns.get(&connection) else {
            return;
        };
        let here = host(&conn.addr).is_some_and(|ip| ip.is_loopback());
        let addrs = info.listen_addrs.iter().filter(|addr| is_dialable(addr, here));
        self.held.push_back(Event::PeerAddresses {
            device: conn.device,
            addrs: addrs.map(without_peer).take(PEER_ADDRESSES_MAX).collect(),
            observed: without_peer(&info.observed_addr),
        });
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
        let late: Vec<_> =
            self.conns.iter().filter(|(_, conn)| due(conn)).map(|(id, _)| *id).collect();
        for connection in late {
            self.refuse(connection, DialErrorKind::Timeout, "no stream was opened in time");
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

/// Whether a peer's account of its own address is one that we dial. Its loopback interface is ours only
/// where it is on this machine (`here`), and a link-local address of IPv6 means nothing elsewhere.
fn is_dialable(addr: &Multiaddr, here: bool) -> bool {
    let addr = without_peer(addr);
    let parts: Vec<_> = addr.iter().collect();
    let leads_there = host(&addr).is_some_and(|ip| {
        let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        !ip.is_unspecified() && !link_local && (here || !ip.is_loopback())
    });
    leads_there
        && match &parts[1..] {
            [Protocol::Tcp(port)] => *port != 0,
            [Protocol::Udp(port), Protocol::QuicV1] => *port != 0,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_here_is_not_taken_from_a_peers_own_account() {
        let taken = |text: &str, here| is_dialable(&text.parse().unwrap(), here);
        for (text, from_elsewhere, from_here) in [
            ("/ip4/192.0.2.7/tcp/1", true, true),
            ("/ip6/2001:db8::1/udp/1/quic-v1", true, true),
            ("/ip4/127.0.0.1/tcp/1", false, true),
            ("/ip6/::1/udp/1/quic-v1", false, true),
            ("/ip6/fe80::1/tcp/1", false, false),
            ("/ip4/0.0.0.0/tcp/1", false, false),
            ("/ip4/192.0.2.7/tcp/0", false, false),
            ("/dns4/x/tcp/1", false, false),
        ] {
            assert_eq!(taken(text, false), from_elsewhere, "{text}");
            assert_eq!(taken(text, true), from_here, "{text}");
        }
    }
}
