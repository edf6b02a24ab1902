//! The libp2p behaviour that opens and accepts this protocol's streams, and guards the door.
//!
//! `libp2p-stream` is not used: it drops inbound streams in a burst, and cannot say on which of two
//! connections to one peer a stream was opened, which settling a simultaneous dial depends on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use super::strangers::{Full, Origin, Pending, Strangers};
use super::{PENDING_MAX, PROBE_TIMEOUT, STRANGERS_MAX};

/// What a stream is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The one long-lived stream on which two devices exchange frames.
    Sync,
    /// A short exchange by which a device joins a mesh.
    Pairing,
    /// Nothing: whatever the peer answers to its being opened, even that it does not speak it, shows
    /// that it is there.
    Probe,
}

impl Purpose {
    pub(super) fn protocol(self) -> StreamProtocol {
        match self {
            Self::Sync => StreamProtocol::new("/srcos/sync/1"),
            Self::Pairing => StreamProtocol::new("/srcos/pair/1"),
            Self::Probe => StreamProtocol::new("/srcos/probe/1"),
        }
    }

    /// How long its opening may take.
    fn timeout(self) -> Duration {
        match self {
            Self::Sync | Self::Pairing => OPEN_TIMEOUT,
            Self::Probe => PROBE_TIMEOUT,
        }
    }

    /// The purpose of a stream that the peer opened: nobody accepts a probe.
    fn of(protocol: &StreamProtocol) -> Self {
        if *protocol == Self::Pairing.protocol() { Self::Pairing } else { Self::Sync }
    }
}

/// How long the peer may take to answer the opening of a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The most connections of one device, members included. Two are needed when both ends dial at once,
/// and a dial that tries several addresses may complete on a few of them before it drops the rest.
const CONNECTIONS_PER_DEVICE_MAX: usize = 8;

/// Why the door stayed shut.
#[derive(Debug, thiserror::Error)]
pub(super) enum Shut {
    #[error("this node is offline by command")]
    Offline,
    #[error("{STRANGERS_MAX} connections of unknown devices are open already")]
    Strangers,
    #[error("too many connections have yet to prove who they are; {PENDING_MAX} may at most")]
    Pending,
    #[error("{CONNECTIONS_PER_DEVICE_MAX} connections of this device are open already")]
    PerDevice,
}

/// What the handle, the driver and the behaviour share.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// No connection is made or admitted.
    pub(super) offline: AtomicBool,
    /// Anyone may open a pairing stream.
    pub(super) pairing: AtomicBool,
    /// Inbound connections that are neither of members nor accepted. Whom we dial ourselves is not
    /// counted: nobody can make us dial.
    strangers: Mutex<Strangers>,
}

impl Gate {
    pub(super) fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This connection is no stranger's any more.
    pub(super) fn accept(&self, connection: ConnectionId) {
        self.strangers().remove(connection);
    }
}

/// A stream was opened or could not be.
#[derive(Debug)]
pub(super) struct StreamEvent {
    pub(super) connection: ConnectionId,
    pub(super) purpose: Purpose,
    pub(super) outcome: Result<Stream, OpenError>,
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the peer does not speak {0}")]
    Unsupported(StreamProtocol),
    #[error("the peer did not answer the opening of a stream")]
    Timeout,
    #[error("{0}")]
    Io(std::io::Error),
}

/// Opens and accepts streams.
pub(super) struct Streams {
    gate: Arc<Gate>,
    members: BTreeSet<PeerId>,
    per_device: BTreeMap<PeerId, usize>,
    pending: Pending,
    out: VecDeque<ToSwarm<StreamEvent, Purpose>>,
    waker: Option<Waker>,
}

impl Streams {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            members: BTreeSet::new(),
            per_device: BTreeMap::new(),
            pending: Pending::default(),
            out: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a stream on an established connection; a [`StreamEvent`] tells the outcome.
    pub(super) fn open(&mut self, peer_id: PeerId, connection: ConnectionId, purpose: Purpose) {
        self.tell(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: purpose,
        });
    }

    fn tell(&mut self, event: ToSwarm<StreamEvent, Purpose>) {
        self.out.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn set_members(&mut self, members: BTreeSet<PeerId>) {
        self.members = members;
    }

    fn check_offline(&self) -> Result<(), ConnectionDenied> {
        if self.gate.offline.load(Ordering::Relaxed) {
            return Err(ConnectionDenied::new(Shut::Offline));
        }
        Ok(())
    }

    fn check_device(&self, peer: &PeerId) -> Result<(), ConnectionDenied> {
        self.check_offline()?;
        if self.per_device.get(peer).is_some_and(|n| *n >= CONNECTIONS_PER_DEVICE_MAX) {
            return Err(ConnectionDenied::new(Shut::PerDevice));
        }
        Ok(())
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamEvent;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.check_offline()?;
        let admitted = self.pending.admit(connection, from);
        admitted.map_err(|Full| ConnectionDenied::new(Shut::Pending))
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(connection);
        self.check_device(&peer)?;
        if !self.members.contains(&peer) {
            let admitted = self.gate.strangers().admit(connection, peer, Origin::of(from));
            let closed = admitted.map_err(|Full| ConnectionDenied::new(Shut::Strangers))?;
            if let Some((peer_id, closed)) = closed {
                tracing::debug!(%peer_id, "a stranger's connection makes room for another");
                let connection = CloseConnection::One(closed);
                self.tell(ToSwarm::CloseConnection { peer_id, connection });
            }
        }
        Ok(Handler::new(Some(self.gate.clone())))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.check_offline()?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check_device(&peer)?;
        Ok(Handler::new(None))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, .. }) => {
                *self.per_device.entry(peer_id).or_default() += 1
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(connection_id);
                self.gate.accept(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.gate.accept(connection_id);
                if let Some(n) = self.per_device.get_mut(&peer_id) {
                    *n -= 1;
                    if *n == 0 {
                        self.per_device.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        connection: ConnectionId,
        (purpose, outcome): THandlerOutEvent<Self>,
    ) {
        let event = StreamEvent { connection, purpose, outcome };
        self.out.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One connection: the dialler opens one stream, the listener accepts one of each purpose.
pub(super) struct Handler {
    /// Set on the listening side, which alone accepts streams.
    listens: Option<Arc<Gate>>,
    to_open: Option<Purpose>,
    sync_taken: bool,
    pairing_taken: bool,
    /// Keeps the connection up until its first stream is; the driver closes it if none comes.
    waits: bool,
    out: VecDeque<(Purpose, Result<Stream, OpenError>)>,
}

impl Handler {
    fn new(listens: Option<Arc<Gate>>) -> Self {
        Self {
            listens,
            to_open: None,
            sync_taken: false,
            pairing_taken: false,
            waits: true,
            out: VecDeque::new(),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Purpose;
    type ToBehaviour = (Purpose, Result<Stream, OpenError>);
    type InboundProtocol = Raw;
    type OutboundProtocol = Raw;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Purpose;

    fn listen_protocol(&self) -> SubstreamProtocol<Raw> {
        let protocols = match &self.listens {
            None => Vec::new(),
            Some(gate) if gate.pairing.load(Ordering::Relaxed) => {
                vec![Purpose::Sync.protocol(), Purpose::Pairing.protocol()]
            }
            Some(_) => vec![Purpose::Sync.protocol()],
        };
        SubstreamProtocol::new(Raw(protocols), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.waits
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Raw, Purpose, Self::ToBehaviour>> {
        if let Some(event) = self.out.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(purpose) = self.to_open.take() {
            let protocol = SubstreamProtocol::new(Raw(vec![purpose.protocol()]), purpose)
                .with_timeout(purpose.timeout());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        // The connection polls its handler again after it has given it an event.
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, purpose: Purpose) {
        self.to_open = Some(purpose);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Raw, Raw, (), Purpose>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => {
                let purpose = Purpose::of(&protocol);
                let taken = match purpose {
                    Purpose::Sync => &mut self.sync_taken,
                    Purpose::Pairing | Purpose::Probe => &mut self.pairing_taken,
                };
                // A second stream of one purpose is against the protocol; dropping it resets it.
                if !std::mem::replace(taken, true) {
                    self.waits = false;
                    self.out.push_back((purpose, Ok(stream)));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info: purpose,
            }) => {
                self.waits = false;
                self.out.push_back((purpose, Ok(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: purpose, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => OpenError::Timeout,
                    StreamUpgradeError::NegotiationFailed => {
                        OpenError::Unsupported(purpose.protocol())
                    }
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.out.push_back((purpose, Err(error)));
            }
            _ => {}
        }
    }
}

/// An upgrade that hands the stream over as it is.
#[derive(Debug)]
pub(super) struct Raw(Vec<StreamProtocol>);

impl UpgradeInfo for Raw {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Raw {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Raw {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
