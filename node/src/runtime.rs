//! The daemon's loop: one thread owns engine and store, and everything that can wake it is one
//! `Input`.
//!
//! Each turn takes what has happened, up to a bound, commits once, and only then answers callers,
//! sends frames and dials. So nobody is told of anything that a crash could take back, and many
//! small writes share one sync of the disk.

mod membership;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use srcos_lanes::ids::{DeviceId, Now};
use srcos_lanes::store::Reader;
use srcos_replication::dialer::{Dial, Dialer, Source};
use srcos_replication::engine::{ConnId, Event};
use srcos_replication::wire::AbortReason;
use srcos_schemas::peers::{InviteDocument, InviteStatus, JoinDocument, NetworkDocument};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{ApiError, ErrorKind};
use crate::contain::contained;
use crate::core::{Core, Link};
use crate::data_dir::{Clock, internal, store_error};
use crate::discovery::{self, Announcement, Candidate, Discovery, Ports, Tag};
use crate::documents;
use crate::keys::{device_of_peer, random};
use crate::pairing::{PairingInput, Pairings};
use crate::roaming;
use crate::transport::{self, ConnId as LinkId, Events, SendError, Transport};

#[cfg(test)]
mod tests;

/// Calls that may wait for the writer: beyond that callers wait for a place.
const CALLS_MAX: usize = 1_024;
/// Inputs of one turn: enough to share a sync among many, few enough to stay responsive.
const TURN_INPUTS_MAX: usize = 256;
/// Bytes of frames of one turn.
const TURN_BYTES_MAX: usize = 4 * 1024 * 1024;

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
            let seen = || daemon.candidates.values().cloned().collect::<Vec<Candidate>>();
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
    candidates: BTreeMap<Tag, Candidate>,
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
}

/// Starts the loop on a thread of its own. The receiver ends with the loop, and says how it ended.
pub fn start(parts: Parts) -> Result<(Handle, oneshot::Receiver<Result<(), ApiError>>), ApiError> {
    let (calls, called) = mpsc::channel(CALLS_MAX);
    let (stop, stopping) = mpsc::channel(1);
    let offline = parts.core.is_kept_offline()?;
    let (mut daemon, network, discovery, pairing) = Daemon::new(parts)?;
    // Known before anybody can ask.
    daemon.note_membership();
    let handle = Handle {
        calls,
        stop,
        reader: daemon.core.store.reader(),
        applied: daemon.applied.subscribe(),
        failure: Arc::clone(&daemon.failure),
        not_a_member: Arc::clone(&daemon.not_a_member),
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
                let cut = daemon.set_offline(true);
                daemon.note_failure(cut);
            }
            daemon.members_changed();
            daemon.announce();
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
            candidates: BTreeMap::new(),
            links: BTreeMap::new(),
            held: BTreeMap::new(),
            kept_addresses: BTreeMap::new(),
            peers,
            listen: listen.into_iter().collect(),
            write_failed: false,
            failure: Arc::new(Mutex::new(None)),
            not_a_member: Arc::new(Mutex::new(None)),
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
                            bytes += frame.len();
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
        while let Some(event) = self.core.engine.poll_event() {
            self.handle_engine(event);
        }
        // Handling events may have opened a turn: what was learned of a peer is kept.
        let kept = self.core.commit();
        self.note_failure(kept);
        self.transmit();
        let now = self.core.now();
        // Only now: the dialer takes addresses of members, and the events made them members.
        for (device, addresses) in self.pairings.take_addresses() {
            for address in addresses {
                self.dialer.address(device, &address, Source::Learned, now.mono);
            }
        }
        while let Some(Dial { device, addresses, anew }) = self.dialer.poll(now.mono) {
            let addrs: Vec<Multiaddr> =
                addresses.iter().filter_map(|address| address.parse().ok()).collect();
            self.core.network.count("srcos_dials_total", "");
            let dialled = match anew {
                true => self.transport.dial_anew(device, addrs),
                false => self.transport.dial(device, addrs),
            };
            if dialled.is_err() {
                self.dialer.failed(device, now.mono);
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
                            self.held.insert(link, frame);
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
        let now = self.core.now();
        let due = [
            self.core.engine.poll_timeout(now),
            self.dialer.poll_timeout(),
            self.pairings.poll_timeout(),
        ];
        let at = due.into_iter().flatten().min()?;
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

    // ---- the network ----

    fn handle_network(&mut self, event: transport::Event) {
        let now = self.core.now();
        match event {
            transport::Event::Listening { addr } => {
                tracing::info!(%addr, "listening");
                self.core.network.listen.insert(addr.to_string());
                self.listen.insert(addr);
                self.announce();
            }
            transport::Event::NotListening { addr } => {
                tracing::info!(%addr, "no longer listening");
                self.core.network.listen.remove(&addr.to_string());
                self.listen.remove(&addr);
                self.announce();
                self.doubt(now, |link, source| roaming::loses(&link.addr, source, &addr));
            }
            transport::Event::ListenFailed { addr, error } => {
                let addr = addr.map(|addr| addr.to_string()).unwrap_or_default();
                tracing::warn!(addr, error, "cannot listen");
            }
            transport::Event::Connected(connected) => {
                let conn = ConnId(connected.conn.0);
                let device = connected.device;
                let dialled = connected.outbound.then(|| bare(&connected.addr).to_string());
                self.dialer.connected(device, dialled.as_deref(), now.mono);
                let source = roaming::source_towards(&connected.addr);
                self.links.insert(connected.conn, (connected, source));
                self.core.engine.handle_connected(&self.core.store, now, conn, device);
            }
            transport::Event::Frame { conn, bytes } => {
                self.core.network.add("srcos_frame_bytes_in_total", "", bytes.len() as u64);
                if let Some((link, _)) = self.links.get(&conn) {
                    self.dialer.heard(link.device, now.mono);
                }
                let handled = self.core.engine.handle_frame(
                    &mut self.core.store,
                    now,
                    ConnId(conn.0),
                    &bytes,
                );
                self.note_failure(handled.map_err(store_error));
            }
            transport::Event::Probed { conn, alive } => {
                self.doubt(now, |link, _| !alive && link.conn == conn);
            }
            transport::Event::Writable { conn } => self.writable(conn),
            transport::Event::Disconnected { conn, device, reason } => {
                self.disconnected(now, conn, device, &reason);
            }
            transport::Event::DialFailed { device, attempts } => {
                self.dialer.failed(device, now.mono);
                let why: Vec<String> = attempts
                    .iter()
                    .map(|attempt| format!("{}: {}", attempt.addr, attempt.error))
                    .collect();
                tracing::debug!(%device, attempts = why.join("; "), "dial failed");
                self.core.network.count("srcos_dials_failed_total", "");
                // A link in doubt that was dialled anew in vain may well be alive.
                if !self.core.network.links.contains_key(&device) {
                    let why = format!("dial failed: {}", why.join("; "));
                    self.core.network.errors.insert(device, why);
                }
            }
            transport::Event::PeerAddresses { device, addrs, .. } => {
                for addr in addrs {
                    self.dialer.address(
                        device,
                        &bare(&addr).to_string(),
                        Source::Learned,
                        now.mono,
                    );
                }
                self.keep_addresses(device);
            }
            transport::Event::Pairing(pairing) => {
                self.pairings.opened(&self.core, now, pairing);
            }
            transport::Event::PairingFailed { attempt, why } => {
                self.pairings.not_opened(now, attempt, &why);
            }
        }
    }

    fn writable(&mut self, conn: LinkId) {
        if let Some(frame) = self.held.remove(&conn)
            && let Err(SendError::Full(frame)) = self.transport.try_send(conn, frame)
        {
            self.held.insert(conn, frame);
            return;
        }
        self.core.engine.handle_blocked(ConnId(conn.0), false);
    }

    fn disconnected(
        &mut self,
        now: Now,
        conn: LinkId,
        device: DeviceId,
        reason: &transport::DisconnectReason,
    ) {
        self.core.engine.handle_disconnected(now, ConnId(conn.0));
        self.held.remove(&conn);
        self.links.remove(&conn);
        if self.links.values().any(|(link, _)| link.device == device) {
            return;
        }
        tracing::info!(%device, %reason, "link closed");
        self.core.network.links.remove(&device);
        self.core.network.count("srcos_links_closed_total", reason.code());
        // That it was turned away says more than that the link is gone.
        if !self.core.network.refused_by.contains(&device) {
            self.core.network.errors.insert(device, format!("link closed: {reason}"));
        }
        self.dialer.disconnected(device, now.mono);
    }

    /// Dials the devices of some links anew: an address changed, and they may be dead.
    fn doubt(
        &mut self,
        now: Now,
        in_doubt: impl Fn(&transport::Connected, Option<IpAddr>) -> bool,
    ) {
        for (link, source) in self.links.values().filter(|(link, source)| in_doubt(link, *source)) {
            tracing::info!(device = %link.device, addr = %link.addr, ?source, "link in doubt: an address changed");
            self.dialer.doubt(link.device, now.mono);
        }
    }

    fn set_offline(&mut self, offline: bool) -> Result<(), ApiError> {
        let now = self.core.now();
        self.transport.set_offline(offline).map_err(internal)?;
        self.dialer.set_offline(offline, now.mono);
        self.core.network.offline = offline;
        Ok(())
    }

    // ---- discovery ----

    fn handle_discovery(&mut self, event: discovery::Event) {
        let now = self.core.now();
        match event {
            discovery::Event::PeerSeen(candidate) => {
                self.dial_candidate(&candidate, now);
                self.pairings.seen(now, &candidate);
                let before = self.candidates.insert(candidate.tag, candidate.clone());
                let before = before.map(|before| before.addrs).unwrap_or_default();
                for (link, _) in self.links.values() {
                    // Anybody on the network can say so: the peer is asked first. If that cannot be
                    // done now, pings ask it soon.
                    if candidate.tag.find([&link.device]).is_some()
                        && roaming::moved(&link.addr, &before, &candidate.addrs)
                    {
                        let _ = self.transport.probe(link.conn);
                    }
                }
            }
            discovery::Event::PeerLost(tag) => {
                self.candidates.remove(&tag);
            }
            discovery::Event::Working => {
                tracing::info!("discovery on the local network works");
                self.core.network.discovery = true;
                self.core.network.discovery_why = None;
            }
            discovery::Event::NotWorking { why } => {
                tracing::warn!(why, "discovery on the local network does not work");
                self.core.network.discovery = false;
                self.core.network.discovery_why = Some(why);
            }
        }
    }

    fn dial_candidate(&mut self, candidate: &Candidate, now: Now) {
        let members = self.core.engine.roster().members();
        let Some(device) = candidate.tag.find(members.keys()).copied() else { return };
        for addr in &candidate.addrs {
            self.dialer.address(device, &addr.to_string(), Source::Discovery, now.mono);
        }
    }

    /// Tells the local network where we are, and which invitation is open.
    fn announce(&mut self) {
        let nameplate = self.pairings.nameplate();
        self.transport.set_pairing_open(self.pairings.is_open());
        let Some(discovery) = &self.discovery else { return };
        let ports = Ports::of(&self.listen);
        if discovery.announce(Announcement { ports, nameplate }).is_err() {
            tracing::warn!("discovery is busy; the announcement was not renewed");
        }
    }

    // ---- the engine ----

    fn handle_engine(&mut self, event: Event) {
        match event {
            Event::Opened { conn, device } => self.opened(conn, device),
            Event::Close { conn, device, reason, detail, by_peer } => {
                let who = if by_peer { "the peer" } else { "this node" };
                tracing::info!(%device, reason = reason.code(), detail, who, "closing a link");
                self.core.network.count("srcos_closes_total", reason.code());
                if reason == AbortReason::Revoked && by_peer {
                    self.refused(device);
                } else if reason != AbortReason::ShuttingDown {
                    let why = format!("{who} ended the link: {}", reason.code());
                    self.core.network.errors.insert(device, why);
                }
                self.transport.disconnect(LinkId(conn.0));
            }
            Event::Refused { from, lane, author, code, why } => {
                tracing::warn!(%from, %lane, author = %author.device, code, why, "entries refused");
                self.core.network.count("srcos_entries_refused_total", code);
                self.core.network.errors.insert(from, format!("entries refused ({code}): {why}"));
            }
            Event::Equivocation { lane, author, seq } => {
                tracing::error!(
                    %lane, author = %author.device, seq,
                    "a device signed two histories; its journal is quarantined, the proof is kept"
                );
                self.core.network.count("srcos_equivocations_total", "");
            }
            Event::Unreadable { lane, author, why } => {
                tracing::error!(%lane, author = %author.device, why, "entries cannot be sent on");
                self.core.network.count("srcos_journals_unreadable_total", "");
            }
            Event::IncarnationStarted { told_by } => {
                tracing::warn!(
                    %told_by,
                    "a peer holds more of this device's journal than this store: it was put back; \
                     writing goes on under a new incarnation"
                );
            }
            Event::RosterChanged => self.members_changed(),
            Event::InSync { device } => tracing::info!(%device, "in sync"),
            Event::Applied { feed_next } => {
                self.applied.send_replace(documents::cursor_before(feed_next).0);
            }
        }
    }

    fn opened(&mut self, conn: ConnId, device: DeviceId) {
        let link_id = LinkId(conn.0);
        self.transport.accept(link_id);
        self.dialer.opened(device);
        self.core.network.errors.remove(&device);
        self.core.network.refused_by.remove(&device);
        self.core.network.count("srcos_links_opened_total", "");
        let Some((link, _)) = self.links.get(&link_id) else { return };
        tracing::info!(%device, addr = %link.addr, "link open");
        let open = Link {
            transport: if link.quic { "quic" } else { "tcp" },
            address: link.addr.to_string(),
            since: self.core.now().wall,
        };
        self.core.network.links.insert(device, open);
        self.keep_addresses(device);
    }

    // ---- pairing ----

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
