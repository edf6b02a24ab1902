//! The network: authenticated connections to devices, frames in and out, and no policy.
//!
//! [`spawn`] starts a task that owns the libp2p swarm and gives a [`Transport`], by which the runtime
//! commands it, and [`Events`], which the runtime must keep taking. What holds:
//!
//! - **Order.** For each connection: `Connected`, then its frames and `Writable`s, then exactly one
//!   `Disconnected`. `PeerAddresses` keeps no order with them.
//! - **One link per device.** At most one connection to a device is handed up at a time. When both ends
//!   dial at once and both connections come up, both ends keep the one that the device with the smaller
//!   id dialled. If the loser was handed up already, its `Disconnected` (reason `Superseded`) comes
//!   before the winner's `Connected`; frames handed up stay handed up, frames that were only queued are
//!   gone, as with any lost connection. A device that dials anew while its old connection is still
//!   thought alive replaces it in the same way; [`Transport::dial_anew`] does so on purpose.
//! - **Answers.** Each `dial` ends in a `Connected` of that device, or in one `DialFailed`; a dial to a
//!   device that is connected already, or with `dial_anew` was connected after it, is dropped in
//!   silence. Each `open_pairing` ends in `Pairing` or
//!   `PairingFailed`.
//! - **Strangers.** Anyone may connect and open the sync stream, since a new member may not be known here
//!   yet. Until [`Transport::accept`] a link is read no further than [`UNACCEPTED_BYTES_MAX`] and lives no
//!   longer than [`ACCEPT_TIMEOUT`]. There are [`STRANGERS_MAX`] at most: when another comes, one of those
//!   goes that come from where most come from. Membership is decided above; [`Transport::set_members`]
//!   only exempts members from limits on strangers.
//! - **Bounds.** Every queue is bounded. A full send queue is reported ([`SendError::Full`], later
//!   `Writable`); a runtime that takes no events makes the reading stop, and so the peers' writing.
//! - **Dead peers.** Pings every [`PING_INTERVAL`]; a dead peer is noticed within 40 s on TCP
//!   and 30 s on QUIC. Silence of the layers above never closes a healthy link.

mod behaviour;
mod dial;
mod driver;
mod events;
mod link;
mod pairing;
mod queue;
mod setup;
mod strangers;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use libp2p::Multiaddr;
use srcos_lanes::ids::DeviceId;
use tokio::sync::{mpsc, oneshot};

use self::behaviour::Gate;
pub use self::dial::{Attempt, DialErrorKind};
pub use self::events::Events;
use self::link::{LinkShared, Stop};
pub use self::pairing::{
    Hold, PAIRING_FRAME_BYTES_MAX, Pairing, PairingError, PairingReader, PairingWriter,
};
pub use self::strangers::{Origin, makes_room};
use crate::keys::DeviceKey;

/// The largest frame: a body of 1 MiB and generous room for what is said about it.
pub const FRAME_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Bytes that may wait to be written to one connection: two runs of entries, so that a bulk transfer
/// never stalls, and little enough that an urgent frame behind it waits only for moments. A larger
/// frame is taken when nothing waits.
pub const SEND_QUEUE_BYTES_MAX: usize = 512 << 10;

/// Frames that may wait to be written to one connection, so that empty frames are bounded too.
pub const SEND_QUEUE_FRAMES_MAX: usize = 4096;

/// Events that may wait for the runtime. Enough to keep it busy while it commits a batch.
pub const EVENTS_MAX: usize = 1024;

/// Bytes of frames that may wait for the runtime, over all connections: a seventh of the node's memory
/// goal at most.
pub const EVENTS_BYTES_MAX: usize = 16 << 20;

/// Commands that may wait for the transport's task, which handles each in microseconds.
pub const COMMANDS_MAX: usize = 256;

/// Bytes read from a link before it is accepted: room for a hello and a roster.
pub const UNACCEPTED_BYTES_MAX: usize = 256 << 10;

/// How long a link may live without being accepted, and a connection without a stream.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Inbound connections of devices that are neither members nor accepted, at one time: enough for a few
/// people who pair at once, and little enough that their buffers cannot matter. Beyond, one from where
/// most come makes room for the newcomer.
pub const STRANGERS_MAX: usize = 16;

/// Inbound connections that have yet to prove who they are, over QUIC and over TCP each: far more than
/// a mesh brings about, and little enough that their buffers cannot matter.
pub const PENDING_MAX: usize = 64;

/// Those of them from one network of IPv6, where a host has as many addresses as it likes: it leaves
/// half of the places to others.
pub const PENDING_PER_NET_MAX: usize = 32;

/// Those of them from one host: as many as a device that joins begins at once.
pub const PENDING_PER_HOST_MAX: usize = 8;

/// How long a write may make no progress before the link is given up.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a pairing connection may live: machines talk for moments, but a person may have to compare
/// words on two screens.
pub const PAIRING_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a graceful end waits for the peer to have read everything.
pub const GRACE: Duration = Duration::from_secs(2);

/// How often a peer is pinged. Two lost pings end the connection.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long a ping may take.
pub const PING_TIMEOUT: Duration = Duration::from_secs(9);

/// How long a peer may take to answer when it is asked whether it is there: a few round trips on any
/// usable network, and less than a person waits for.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a QUIC connection may hear nothing at all.
pub const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What one QUIC stream may send ahead of our reading: the delay-bandwidth product of a gigabit link at
/// 30 ms, and little enough that a stranger's buffer cannot hurt.
pub const QUIC_STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same for all streams of one connection; pairing, identify and ping need next to nothing.
pub const QUIC_CONNECTION_WINDOW_BYTES: u32 = 5 << 20;

/// What the node calls itself to whom it connects. It names the software, never the device.
pub const AGENT: &str = concat!("srcos-node/", env!("CARGO_PKG_VERSION"));

/// The transports to listen and dial with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transports {
    /// QUIC over UDP.
    pub quic: bool,
    /// TCP with Noise and Yamux.
    pub tcp: bool,
}

impl Transports {
    /// QUIC and TCP.
    pub const ALL: Self = Self { quic: true, tcp: true };

    /// Every interface, both address families, ports chosen by the system.
    pub fn listen_anywhere(self) -> Vec<Multiaddr> {
        let quic = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/0/quic-v1"];
        let tcp = ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"];
        let texts = self.quic.then_some(quic).into_iter().chain(self.tcp.then_some(tcp)).flatten();
        // These texts are addresses, as a test shows.
        texts.filter_map(|text| text.parse().ok()).collect()
    }
}

/// How the network is to be set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which transports.
    pub transports: Transports,
    /// How long a connection without any stream of ours is kept.
    pub idle_timeout: Duration,
    /// No new connection is made or admitted while the process uses more memory than this.
    pub memory_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            transports: Transports::ALL,
            idle_timeout: Duration::from_secs(10),
            // Far above what a healthy node uses, far below what hurts a desktop.
            memory_bytes_max: 1 << 30,
        }
    }
}

/// The number of one connection, never used again while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}

/// A link that has come up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connected {
    /// Its number.
    pub conn: ConnId,
    /// The device at the other end; the connection has proven that it holds this key.
    pub device: DeviceId,
    /// Where the device is seen.
    pub addr: Multiaddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// Whether it runs over QUIC, else TCP.
    pub quic: bool,
}

/// Why a link ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DisconnectReason {
    /// [`Transport::disconnect`] asked for it.
    #[error("closed by this node")]
    Local,
    /// [`Transport::set_offline`] asked for it.
    #[error("this node went offline by command")]
    Offline,
    /// The transport is shutting down.
    #[error("this node is shutting down")]
    Shutdown,
    /// Another connection to the same device takes its place.
    #[error("superseded by another connection to the same device")]
    Superseded,
    /// It was not accepted in time.
    #[error("not accepted within {} s", ACCEPT_TIMEOUT.as_secs())]
    NotAccepted,
    /// The peer announced a frame over the limit.
    #[error("the peer announced a frame of {bytes} bytes; the limit is {FRAME_BYTES_MAX}")]
    FrameTooLarge {
        /// What it announced.
        bytes: u64,
    },
    /// The peer took nothing for too long.
    #[error("the peer took nothing for {} s", WRITE_TIMEOUT.as_secs())]
    WriteTimeout,
    /// The peer answered no ping.
    #[error("the peer answered no ping")]
    PingTimeout,
    /// The peer ended the stream in order.
    #[error("closed by the peer")]
    PeerClosed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Network(String),
}

impl DisconnectReason {
    /// A short code that scripts and events can rely on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Offline => "offline",
            Self::Shutdown => "shutdown",
            Self::Superseded => "superseded",
            Self::NotAccepted => "not_accepted",
            Self::FrameTooLarge { .. } => "frame_too_large",
            Self::WriteTimeout => "write_timeout",
            Self::PingTimeout => "ping_timeout",
            Self::PeerClosed => "peer_closed",
            Self::Network(_) => "network",
        }
    }
}

/// What the transport reports.
#[derive(Debug)]
pub enum Event {
    /// Peers can reach us at an address. Ports are real, wildcards are resolved.
    Listening {
        /// The address.
        addr: Multiaddr,
    },
    /// An address is gone: an interface went away, or a listener closed.
    NotListening {
        /// The address.
        addr: Multiaddr,
    },
    /// A listener could not be opened, or failed.
    ListenFailed {
        /// What was to be listened on, where it is known.
        addr: Option<Multiaddr>,
        /// What the system said.
        error: String,
    },
    /// A link is up.
    Connected(Connected),
    /// Whether the peer at the other end of a link was there when it was asked.
    Probed {
        /// Which link.
        conn: ConnId,
        /// Whether it answered, or sent anything, within [`PROBE_TIMEOUT`].
        alive: bool,
    },
    /// A frame came in.
    Frame {
        /// On which link.
        conn: ConnId,
        /// The frame.
        bytes: Bytes,
    },
    /// A link whose queue was full takes frames again.
    Writable {
        /// Which link.
        conn: ConnId,
    },
    /// A link has ended.
    Disconnected {
        /// Which link.
        conn: ConnId,
        /// To which device.
        device: DeviceId,
        /// Why.
        reason: DisconnectReason,
    },
    /// None of a dial's addresses led to the device.
    DialFailed {
        /// Which device.
        device: DeviceId,
        /// What became of each address.
        attempts: Vec<Attempt>,
    },
    /// A device tells where it can be reached. A hint: not verified.
    PeerAddresses {
        /// Which device.
        device: DeviceId,
        /// Where it listens, as it says itself.
        addrs: Vec<Multiaddr>,
        /// Where it sees us.
        observed: Multiaddr,
    },
    /// A pairing stream is open.
    Pairing(Pairing),
    /// A pairing stream could not be opened.
    PairingFailed {
        /// The number under which it was asked for.
        attempt: u64,
        /// What became of its address.
        why: Attempt,
    },
}

/// Why a command was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// Too many commands wait.
    #[error("{COMMANDS_MAX} commands wait for the network already; try again")]
    Busy,
    /// The transport has ended.
    #[error("the network has been shut down")]
    Stopped,
}

/// Why a frame was not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The queue is full. The frame comes back, and an [`Event::Writable`] follows.
    #[error("the queue of the connection is full")]
    Full(Bytes),
    /// The link has ended, or is ending.
    #[error("the connection has ended")]
    Gone,
    /// The frame is over the limit.
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// Why the transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No transport was chosen.
    #[error("neither QUIC nor TCP is enabled; enable one of them")]
    NoTransport,
    /// The encryption could not be set up.
    #[error("cannot set up the encryption of connections: {0}")]
    Encryption(String),
}

/// What has passed over one link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes handed to the network.
    pub bytes_out: u64,
    /// Bytes that wait to be.
    pub bytes_queued: usize,
}

enum Command {
    Listen(Multiaddr),
    Dial { device: DeviceId, addrs: Vec<Multiaddr>, anew: bool },
    Probe(ConnId),
    OpenPairing { attempt: u64, addr: Multiaddr, device: Option<DeviceId> },
    SetMembers(BTreeSet<DeviceId>),
    Offline,
    Shutdown(oneshot::Sender<()>),
}

type Links = Mutex<BTreeMap<ConnId, Arc<LinkShared>>>;

/// Commands the network. Cheap to clone; no call waits.
#[derive(Clone)]
pub struct Transport {
    commands: mpsc::Sender<Command>,
    links: Arc<Links>,
    gate: Arc<Gate>,
    device: DeviceId,
}

/// Starts the network on the current tokio runtime. It listens nowhere yet.
///
/// # Panics
/// If called outside a tokio runtime.
pub fn spawn(config: &Config, key: &DeviceKey) -> Result<(Transport, Events), StartError> {
    let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
    let (sender, events) = events::channel();
    let links = Arc::new(Links::default());
    let gate = Arc::new(Gate::default());
    let driver = driver::Driver::new(config, key, commanded, sender, links.clone(), gate.clone())?;
    tokio::spawn(driver.run());
    Ok((Transport { commands, links, gate, device: key.device() }, events))
}

impl Transport {
    /// The device that we are.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Listens on an address; port 0 lets the system choose. Answered by `Listening` for each interface,
    /// or by `ListenFailed`.
    pub fn listen(&self, addr: Multiaddr) -> Result<(), CommandError> {
        self.command(Command::Listen(addr))
    }

    /// Dials a device at all of these addresses: QUIC first, TCP a moment later, the first to
    /// succeed is kept. More than 16 addresses are not tried.
    pub fn dial(&self, device: DeviceId, addrs: Vec<Multiaddr>) -> Result<(), CommandError> {
        self.command(Command::Dial { device, addrs, anew: false })
    }

    /// The same for a device whose link may be dead: where an address leads to it, the new link takes
    /// the place of the old one, unless the device has made a newer one meanwhile.
    pub fn dial_anew(&self, device: DeviceId, addrs: Vec<Multiaddr>) -> Result<(), CommandError> {
        self.command(Command::Dial { device, addrs, anew: true })
    }

    /// Asks the peer at the other end of a link whether it is there. Answered by `Probed`, unless the
    /// link ends first, or is being asked already: then that answer is for this one too.
    pub fn probe(&self, conn: ConnId) -> Result<(), CommandError> {
        self.command(Command::Probe(conn))
    }

    /// Opens a pairing stream to whoever answers at an address, or to one device only. The answer
    /// bears the number `attempt`, which is the caller's.
    pub fn open_pairing(
        &self,
        attempt: u64,
        addr: Multiaddr,
        device: Option<DeviceId>,
    ) -> Result<(), CommandError> {
        self.command(Command::OpenPairing { attempt, addr, device })
    }

    /// Names the devices that limits on strangers do not concern.
    pub fn set_members(&self, members: BTreeSet<DeviceId>) -> Result<(), CommandError> {
        self.command(Command::SetMembers(members))
    }

    /// While true, every connection is closed and none is made or admitted. Listeners stay.
    pub fn set_offline(&self, offline: bool) -> Result<(), CommandError> {
        let before = self.gate.offline.swap(offline, Ordering::Relaxed);
        let told = if offline { self.command(Command::Offline) } else { Ok(()) };
        // What was not done must not be half done.
        told.inspect_err(|_| self.gate.offline.store(before, Ordering::Relaxed))
    }

    /// Whether strangers may open pairing streams.
    pub fn set_pairing_open(&self, open: bool) {
        self.gate.pairing.store(open, Ordering::Relaxed);
    }

    /// Accepts a link: it is no stranger's any more.
    pub fn accept(&self, conn: ConnId) {
        if let Some(link) = self.link(conn) {
            link.accepted.send_replace(true);
            self.gate.accept(link.connection);
        }
    }

    /// Queues a frame; it goes out at once if nothing waits before it.
    pub fn try_send(&self, conn: ConnId, frame: Bytes) -> Result<(), SendError> {
        self.link(conn).ok_or(SendError::Gone)?.queue.push(frame)
    }

    /// Ends a link after what is queued has been written; answered by `Disconnected`.
    pub fn disconnect(&self, conn: ConnId) {
        if let Some(link) = self.link(conn) {
            link.stop(Stop::Gracefully(DisconnectReason::Local));
        }
    }

    /// What has passed over a link that is up.
    pub fn traffic(&self, conn: ConnId) -> Option<Traffic> {
        self.link(conn).map(|link| Traffic {
            bytes_in: link.bytes_in.load(Ordering::Relaxed),
            bytes_out: link.bytes_out.load(Ordering::Relaxed),
            bytes_queued: link.queue.bytes(),
        })
    }

    /// Writes out what is queued, for at most [`GRACE`], closes everything and ends the task.
    /// Frames that come in meanwhile are dropped.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        // Both errors say that the task has ended already.
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    fn command(&self, command: Command) -> Result<(), CommandError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Stopped,
        })
    }

    fn link(&self, conn: ConnId) -> Option<Arc<LinkShared>> {
        lock(&self.links).get(&conn).cloned()
    }
}

fn lock(links: &Links) -> MutexGuard<'_, BTreeMap<ConnId, Arc<LinkShared>>> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}
