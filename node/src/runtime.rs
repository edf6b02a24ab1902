//! The daemon's loop: one thread owns engine and store, and everything that can wake it is one
//! `Input`.
//!
//! Each turn takes what has happened, up to a bound, commits once, and only then answers callers,
//! sends frames and dials. So nobody is told of anything that a crash could take back, and many
//! small writes share one sync of the disk.

mod candidates;
mod found;
mod membership;
mod network;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use srcos_lanes::ids::{DeviceId, Now};
use srcos_lanes::store::Reader;
use srcos_replication::dialer::{Dial, Dialer};
use srcos_replication::wire::bytes_when_read;
use srcos_schemas::peers::{InviteDocument, InviteStatus, JoinDocument, NetworkDocument};
use tokio::sync::{mpsc, oneshot, watch};

use self::candidates::Candidates;
use crate::api::{ApiError, ErrorKind};
use crate::contain::contained;
use crate::core::Core;
use crate::data_dir::{Clock, internal, store_error};
use crate::discovery::{self, Candidate, Discovery};
use crate::documents;
use crate::keys::{device_of_peer, random};
use crate::pairing::{PairingInput, Pairings};
use crate::transport::{self, ConnId as LinkId, Events, SendError, Transport};

#[cfg(test)]
mod tests;

/// Calls that may wait for the writer: beyond that callers wait for a place.
const CALLS_MAX: usize = 1_024;
/// Inputs of one turn: enough to share a sync among many, few enough to stay responsive.
const TURN_INPUTS_MAX: usize = 256;
/// Bytes of frames of one turn.
const TURN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time in milliseconds before which the loop does not wake by itself once the store has failed: what
/// cannot be read now is not tried as fast as the processor goes.
const FAILED_AGAIN_MS: u64 = 1_000;

/// What runs after the commit, with its outcome.
type Done = Box<dyn FnOnce(Result<(), ApiError>) + Send>;
/// Work for the writer.
type Call = Box<dyn FnOnce(&mut Daemon) -> Done + Send>;

/// Everything that can wake the loop.
enum Input {
    Network(transport::Event),
    Discovery(discovery::Event),
    Pairing(PairingInput),
    Call(Call),
    Timeout,
    Stop,
}

/// A handle on the running daemon. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
    stop: mpsc::Sender<()>,
    reader: Reader,
    applied: watch::Receiver<u64>,
    failure: Arc<Mutex<Option<String>>>,
    not_a_member: Arc<Mutex<Option<String>>>,
    forked: Arc<Mutex<Option<String>>>,
    clock: Clock,
}

impl Handle {
    /// Runs work on the writer; the answer comes back after the commit. Blocks.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.call_daemon(move |daemon| work(&mut daemon.core))
    }

    fn call_daemon<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Daemon) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |daemon| {
            let result = work(daemon);
            Box::new(move |commit| {
                // A caller that went away does not want the answer.
                let _ = answer.send(commit.and(result));
            })
        });
        self.calls.blocking_send(call).map_err(|_| stopped())?;
        answered.blocking_recv().map_err(|_| stopped())?
    }

    /// Reads what was committed.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The cursor of the last applied change, and each one after it.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Why nothing can be written any more, if so.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why this device is no member of its mesh, if so.
    pub fn not_a_member(&self) -> Option<String> {
        self.not_a_member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// In which lanes a journal has two histories, in words, if in any.
    pub fn forked(&self) -> Option<String> {
        self.forked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Asks the daemon to end.
    pub fn shutdown(&self) {
        // Full means that it was asked already.
        let _ = self.stop.try_send(());
    }

    /// Opens an invitation, which is taken back when it is `watched` and nobody asks after it any more.
    pub fn pair_invite(
        &self,
        ttl_ms: Option<u64>,
        watched: bool,
    ) -> Result<InviteDocument, ApiError> {
        self.call_daemon(move |daemon| {
            let now = daemon.core.now();
            let addresses = daemon.core.network.listen.iter().cloned().collect();
            let document = daemon.pairings.invite(&daemon.core, now, ttl_ms, watched, addresses)?;
            daemon.announce();
            Ok(document)
        })
    }

    /// How far an invitation has come.
    pub fn pair_invite_status(&self, id: &str) -> Result<InviteStatus, ApiError> {
        let id = id.to_owned();
        self.call_daemon(move |daemon| {
            let now = daemon.core.now();
            daemon.pairings.invite_status(now, &id)
        })
    }

    /// Takes an invitation back.
    pub fn pair_cancel(&self, id: &str) -> Result<InviteStatus, ApiError> {
        let id = id.to_owned();
        self.call_daemon(move |daemon| {
            let status = daemon.pairings.cancel(&id)?;
            daemon.announce();
            Ok(status)
        })
    }

    /// Starts to join a mesh.
    pub fn pair_join(&self, secret: &str, addrs: &[String]) -> Result<JoinDocument, ApiError> {
        let (secret, addrs) = (secret.to_owned(), addrs.to_vec());
        self.call_daemon(move |daemon| {
            let now = daemon.core.now();
            let seen = || daemon.candidates.iter().cloned().collect::<Vec<Candidate>>();
            let seen = daemon.discovery.is_some().then(seen);
            daemon.pairings.join(&daemon.core, now, &secret, &addrs, seen.as_deref())
        })
    }

    /// How far joining has come.
    pub fn pair_join_status(&self, id: &str) -> Result<JoinDocument, ApiError> {
        let id = id.to_owned();
        self.call_daemon(move |daemon| daemon.pairings.join_status(&id))
    }

    /// Cuts all links, or lets them come back.
    pub fn network_offline(&self, offline: bool) -> Result<NetworkDocument, ApiError> {
        self.call_daemon(move |daemon| {
            daemon.set_offline(offline)?;
            daemon.core.keep_offline(offline)?;
            let network = &daemon.core.network;
            Ok(NetworkDocument {
                offline,
                listen: network.listen.iter().cloned().collect(),
                connected: if offline { 0 } else { network.links.len() },
            })
        })
    }
}

fn stopped() -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "shutting_down",
        "the daemon is shutting down",
        "start it again with: srcos-node run",
    )
}

/// What the loop is made of.
pub struct Parts {
    /// Engine, store and clocks.
    pub core: Core,
    /// The network.
    pub transport: Transport,
    /// What the network reports.
    pub network: Events,
    /// Discovery, if it is wanted.
    pub discovery: Option<(Discovery, mpsc::Receiver<discovery::Event>)>,
    /// Addresses that a person gave.
    pub peers: Vec<Multiaddr>,
    /// Addresses that are listened on already.
    pub listen: Vec<Multiaddr>,
}

/// The loop and all it owns.
pub struct Daemon {
    core: Core,
    transport: Transport,
    discovery: Option<Discovery>,
    dialer: Dialer,
    pairings: Pairings,
    candidates: Candidates,
    /// Each link, and the address of this host from which it was made.
    links: BTreeMap<LinkId, (transport::Connected, Option<IpAddr>)>,
    held: BTreeMap<LinkId, Bytes>,
    /// What the store holds of where each device may be.
    kept_addresses: BTreeMap<DeviceId, Vec<String>>,
    peers: Vec<Multiaddr>,
    listen: BTreeSet<Multiaddr>,
    applied: watch::Sender<u64>,
    /// A turn could not be committed: nothing is written or told any more.
    write_failed: bool,
    failure: Arc<Mutex<Option<String>>>,
    not_a_member: Arc<Mutex<Option<String>>>,
    forked: Arc<Mutex<Option<String>>>,
    untold: Untold,
}

/// What the network or discovery was too busy to be told, and is told in a later turn.
#[derive(Default)]
struct Untold {
    members: bool,
    announcement: bool,
}

/// Starts the loop on a thread of its own. The receiver ends with the loop, and says how it ended.
pub fn start(parts: Parts) -> Result<(Handle, oneshot::Receiver<Result<(), ApiError>>), ApiError> {
    let (calls, called) = mpsc::channel(CALLS_MAX);
    let (stop, stopping) = mpsc::channel(1);
    let offline = parts.core.is_kept_offline()?;
    let (mut daemon, network, discovery, pairing) = Daemon::new(parts)?;
    // Known before anybody can ask.
    daemon.note_membership();
    daemon.note_forks();
    let handle = Handle {
        calls,
        stop,
        reader: daemon.core.store.reader(),
        applied: daemon.applied.subscribe(),
        failure: Arc::clone(&daemon.failure),
        not_a_member: Arc::clone(&daemon.not_a_member),
        forked: Arc::clone(&daemon.forked),
        clock: daemon.core.clock,
    };
    let inputs = Inputs { network, discovery, pairing, calls: called, stopping };
    let (ended, end) = oneshot::channel();
    let tokio = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("srcos-writer".to_owned())
        .spawn(move || {
            if offline {
                tracing::warn!("all links are cut on purpose, until: srcos-node network online");
            }
            daemon.members_changed();
            daemon.announce();
            // Only now is there anybody to hear of a link: `run` listens with all links cut.
            let cut = daemon.set_offline(offline);
            daemon.note_failure(cut);
            let result = contained(|| daemon.run(&tokio, inputs));
            // Nobody waits for the end when the process goes anyway.
            let _ = ended.send(result);
        })
        .map_err(internal)?;
    Ok((handle, end))
}

/// What discovery finds, where it runs.
type Found = Option<mpsc::Receiver<discovery::Event>>;

/// Where inputs come from.
struct Inputs {
    network: Events,
    discovery: Found,
    pairing: mpsc::Receiver<PairingInput>,
    calls: mpsc::Receiver<Call>,
    stopping: mpsc::Receiver<()>,
}

impl Inputs {
    /// Waits for the next input.
    async fn next(&mut self, timeout: Option<tokio::time::Instant>) -> Input {
        let sleep = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let discovery = async {
            match &mut self.discovery {
                Some(discovery) => discovery.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.stopping.recv() => Input::Stop,
            Some(call) = self.calls.recv() => Input::Call(call),
            event = self.network.recv() => event.map_or(Input::Stop, Input::Network),
            Some(input) = self.pairing.recv() => Input::Pairing(input),
            Some(event) = discovery => Input::Discovery(event),
            () = sleep => Input::Timeout,
        }
    }

    /// The next input, if one waits.
    fn ready(&mut self) -> Option<Input> {
        if let Ok(call) = self.calls.try_recv() {
            return Some(Input::Call(call));
        }
        if let Some(event) = self.network.try_recv() {
            return Some(Input::Network(event));
        }
        if let Ok(input) = self.pairing.try_recv() {
            return Some(Input::Pairing(input));
        }
        let discovery = self.discovery.as_mut()?.try_recv().ok()?;
        Some(Input::Discovery(discovery))
    }
}

impl Daemon {
    /// The daemon at rest, and what it is to hear. Must be called inside the tokio runtime.
    fn new(parts: Parts) -> Result<(Self, Events, Found, mpsc::Receiver<PairingInput>), ApiError> {
        let Parts { core, transport, network, discovery, peers, listen } = parts;
        let (discovery, found) = discovery.unzip();
        let (pairing, paired) = mpsc::channel(64);
        let daemon = Self {
            dialer: Dialer::new(random().map_err(internal)?),
            pairings: Pairings::new(transport.clone(), pairing),
            applied: watch::Sender::new(documents::cursor_before(core.store.feed_next()).0),
            core,
            transport,
            discovery,
            candidates: Candidates::default(),
            links: BTreeMap::new(),
            held: BTreeMap::new(),
            kept_addresses: BTreeMap::new(),
            peers,
            listen: listen.into_iter().collect(),
            write_failed: false,
            failure: Arc::new(Mutex::new(None)),
            not_a_member: Arc::new(Mutex::new(None)),
            forked: Arc::new(Mutex::new(None)),
            untold: Untold::default(),
        };
        Ok((daemon, network, found, paired))
    }

    fn run(mut self, tokio: &tokio::runtime::Handle, mut inputs: Inputs) -> Result<(), ApiError> {
        loop {
            let timeout = self.next_timeout();
            let first = tokio.block_on(inputs.next(timeout));
            let mut done = Vec::new();
            let mut stop = false;
            let mut bytes = 0;
            let mut input = Some(first);
            let mut taken = 0;
            while let Some(next) = input {
                taken += 1;
                match next {
                    Input::Stop => stop = true,
                    Input::Call(call) => done.push(call(&mut self)),
                    Input::Network(event) => {
                        if let transport::Event::Frame { bytes: frame, .. } = &event {
                            bytes += bytes_when_read(frame);
                        }
                        self.handle_network(event);
                    }
                    Input::Discovery(event) => self.handle_discovery(event),
                    Input::Pairing(pairing) => self.pairings.handle(self.core.now(), pairing),
                    Input::Timeout => {}
                }
                if stop || taken >= TURN_INPUTS_MAX || bytes >= TURN_BYTES_MAX {
                    break;
                }
                input = inputs.ready();
            }
            let now = self.core.now();
            let timed = self.core.engine.handle_timeout(&mut self.core.store, now);
            self.note_failure(timed.map_err(store_error));
            self.pair(now);
            self.settle(done);
            if stop {
                return self.stop(tokio);
            }
        }
    }

    /// Commits, then answers callers and does what the engine wants done.
    fn settle(&mut self, done: Vec<Done>) {
        if self.write_failed {
            // Since then every write fails by itself; what was only read is answered.
            done.into_iter().for_each(|done| done(Ok(())));
            return;
        }
        let committed = self.core.commit();
        for done in done {
            done(committed.clone());
        }
        self.write_failed = committed.is_err();
        self.note_failure(committed);
        if self.write_failed {
            return;
        }
        // Before links are closed: the reason of an end goes out before the end.
        self.transmit();
        while let Some(event) = self.core.engine.poll_event() {
            self.handle_engine(event);
        }
        // Handling events may have opened a turn: what was learned of a peer is kept.
        let kept = self.core.commit();
        self.note_failure(kept);
        self.transmit();
        self.tell_again();
        let now = self.core.now();
        // Only now: the dialer takes addresses of members, and the events made them members.
        for (device, addresses) in self.pairings.take_addresses() {
            for (address, source) in addresses {
                self.dialer.address(device, &address, source, now.mono);
            }
        }
        self.dial(now);
    }

    /// Dials whom it is time to dial.
    fn dial(&mut self, now: Now) {
        while let Some(Dial { device, addresses, anew }) = self.dialer.poll(now.mono) {
            let addrs: Vec<Multiaddr> =
                addresses.iter().filter_map(|address| address.parse().ok()).collect();
            self.core.network.count("srcos_dials_total", "");
            let dialled = match anew {
                true => self.transport.dial_anew(device, addrs),
                false => self.transport.dial(device, addrs),
            };
            if dialled.is_err() {
                self.dialer.failed(device, &[], now.mono);
            }
        }
    }

    /// Sends what the engine has for the links, as far as they take it.
    fn transmit(&mut self) {
        loop {
            match self.core.engine.poll_transmit(&self.core.store) {
                Ok(Some((conn, frame))) => {
                    let link = LinkId(conn.0);
                    match self.transport.try_send(link, Bytes::from(frame)) {
                        Ok(()) => {}
                        Err(SendError::Full(frame)) => {
                            // The end of a blocked link: what was cut before it comes first.
                            self.held.entry(link).or_insert(frame);
                            self.core.engine.handle_blocked(conn, true);
                        }
                        // Its end is reported, or was.
                        Err(SendError::Gone) => {}
                        Err(error @ SendError::TooLarge { .. }) => {
                            tracing::error!(%error, "a frame was cut too large");
                        }
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.note_failure(Err(store_error(error)));
                    return;
                }
            }
        }
    }

    fn next_timeout(&self) -> Option<tokio::time::Instant> {
        // What is due can not be done any more, so it would stay due.
        if self.write_failed {
            return None;
        }
        let now = self.core.now();
        let due = [
            self.core.engine.poll_timeout(now),
            self.dialer.poll_timeout(),
            self.pairings.poll_timeout(),
        ];
        let mut at = due.into_iter().flatten().min()?;
        // What fails stays due.
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            at = at.max(now.mono.after_ms(FAILED_AGAIN_MS));
        }
        Some(tokio::time::Instant::from_std(self.core.clock.instant(at)))
    }

    fn stop(mut self, tokio: &tokio::runtime::Handle) -> Result<(), ApiError> {
        let told = self.core.engine.shut_down(&mut self.core.store);
        self.note_failure(told.map_err(store_error));
        self.settle(Vec::new());
        tokio.block_on(async {
            self.transport.shutdown().await;
            if let Some(discovery) = &self.discovery {
                discovery.shutdown().await;
            }
        });
        self.core.store.close().map_err(store_error)
    }

    /// Remembers that the store failed: the node says so, and writes nothing more.
    fn note_failure(&mut self, result: Result<(), ApiError>) {
        let Err(error) = result else { return };
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            tracing::error!(code = error.code, "{error}; {}", error.hint);
            *failure = Some(error.message);
        }
    }

    fn pair(&mut self, now: Now) {
        let was_open = self.pairings.is_open();
        let result = self.pairings.step(&mut self.core, now);
        self.note_failure(result);
        if was_open != self.pairings.is_open() {
            self.announce();
        }
    }
}

/// The address without the peer id at its end.
pub fn bare(addr: &Multiaddr) -> Multiaddr {
    addr.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// The device that an address names at its end.
pub fn peer_device(addr: &Multiaddr) -> Option<DeviceId> {
    addr.iter().find_map(|part| match part {
        Protocol::P2p(peer) => device_of_peer(&peer),
        _ => None,
    })
}

/// How long a clean end may take before the process goes anyway.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
