//! Finding devices on the local network by multicast DNS.
//!
//! What is heard is unauthenticated: a [`Candidate`] is a hint where to dial, no more, and `PeerLost` is
//! no reason to drop a connection. A record names no device. It carries a salt and a short hash of salt
//! and device id, so that only those who know the device already recognise it, and only while one
//! process of it lives.

mod record;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use libp2p::Multiaddr;
use mdns_sd::{DaemonEvent, IfKind, Receiver, ServiceDaemon, ServiceEvent};
use srcos_lanes::ids::DeviceId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

pub use self::record::{Announcement, Ports, Tag};
use self::record::{Identity, read};
use self::table::Table;
use crate::keys::{RandomError, random};

/// The service type, this project's own.
pub const SERVICE_TYPE: &str = "_srcos._udp.local.";

/// The port of multicast DNS.
pub const MDNS_PORT: u16 = 5353;

/// Candidates that are remembered. A home or an office has a few; a flood of invented ones pushes out
/// only other unknown ones.
pub const CANDIDATES_MAX: usize = 64;

/// Addresses that one candidate may bring: both families and transports on a few interfaces.
pub const ADDRESSES_PER_CANDIDATE_MAX: usize = 16;

/// How often one candidate may be reported at most, so that a record that changes all the time costs
/// nothing above.
pub const CANDIDATE_EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Reports of devices that are not known, in one [`CANDIDATE_EVENT_INTERVAL`].
pub const UNKNOWN_EVENTS_MAX: usize = 32;

/// Events that may wait for the runtime; beyond, reports wait in the table.
pub const EVENTS_MAX: usize = 128;

/// How long our own announcement may take to come back to us. Probing and the first announcements are
/// over after one second.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(6);

/// How often the interfaces are looked at, in seconds: a cable that is put back is noticed soon.
pub const INTERFACE_CHECK_S: u32 = 2;

/// How long after a change of interfaces everything is announced and asked anew, so that a burst of
/// changes counts as one.
pub const REFRESH_DELAY: Duration = Duration::from_millis(300);

/// How long after a change what we announce is announced once more: the daemon leaves out an
/// announcement that follows another within a second (RFC 6762, section 6), and peers would keep the
/// old one until they ask.
pub const REPEAT_DELAY: Duration = Duration::from_millis(1_300);

/// How often a change is announced once more: the first repeat may still fall into the second after
/// the announcement of a service that has only just been probed.
pub const REPEATS: u32 = 3;

/// How long to wait before multicast is tried again from the start.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long the goodbye may take at shutdown.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

/// How discovery is to work.
#[derive(Clone, Debug)]
pub struct Config {
    /// Over the loopback interface, and no other: for a node that listens only there. It has nothing to
    /// tell the network, and its addresses elsewhere would lead nowhere.
    pub loopback: bool,
    /// The UDP port: [`MDNS_PORT`], save in tests that must not meet other nodes.
    pub port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { loopback: false, port: MDNS_PORT }
    }
}

/// Somebody who announces this service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// By which those who know the device recognise it.
    pub tag: Tag,
    /// Where it says it listens, without peer ids.
    pub addrs: Vec<Multiaddr>,
    /// The number of the invitation that is open there, if one is.
    pub nameplate: Option<String>,
}

/// What discovery reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Somebody is there, or what it announces has changed.
    PeerSeen(Candidate),
    /// Somebody said goodbye or was not heard for long. A hint only.
    PeerLost(Tag),
    /// Multicast is proven to work on this machine: we hear ourselves, or a peer.
    Working,
    /// Multicast does not work, or is not known to.
    NotWorking {
        /// What was seen, for people.
        why: String,
    },
}

enum Command {
    Announce(Announcement),
    Know(BTreeSet<DeviceId>),
    Shutdown(oneshot::Sender<()>),
}

/// Why a command was not taken: discovery has ended, or too many commands wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("discovery does not take commands now; it is busy or has ended")]
pub struct NotTaken;

/// Commands discovery. Cheap to clone; no call waits.
#[derive(Clone)]
pub struct Discovery {
    commands: mpsc::Sender<Command>,
}

/// Starts looking for devices on the current tokio runtime. It announces nothing yet.
///
/// # Panics
/// If called outside a tokio runtime.
pub fn spawn(
    config: Config,
    device: DeviceId,
) -> Result<(Discovery, mpsc::Receiver<Event>), RandomError> {
    const COMMANDS_MAX: usize = 32;
    let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
    let (events, reported) = mpsc::channel(EVENTS_MAX);
    let task = Task {
        config,
        identity: Identity::new(device, random()?, random()?),
        announcement: Announcement::default(),
        commands: commanded,
        events,
        table: Table::default(),
        working: None,
        proven: false,
    };
    tokio::spawn(task.run());
    Ok((Discovery { commands }, reported))
}

impl Discovery {
    /// Announces these ports and this invitation from now on, instead of what was before.
    pub fn announce(&self, announcement: Announcement) -> Result<(), NotTaken> {
        self.command(Command::Announce(announcement))
    }

    /// Names the devices that no flood of strangers may push out.
    pub fn set_known(&self, devices: BTreeSet<DeviceId>) -> Result<(), NotTaken> {
        self.command(Command::Know(devices))
    }

    /// Says goodbye on the network and ends the task.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        // Both errors say that the task has ended already.
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    fn command(&self, command: Command) -> Result<(), NotTaken> {
        self.commands.try_send(command).map_err(|_| NotTaken)
    }
}

struct Task {
    config: Config,
    identity: Identity,
    announcement: Announcement,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    table: Table,
    /// What was last reported of multicast.
    working: Option<Result<(), String>>,
    /// We were heard, by ourselves, since the interfaces last changed.
    proven: bool,
}

/// Why a run of the daemon ended.
enum End {
    /// Start it anew.
    Failed(String),
    /// Somebody asked for the end, and may wait for it.
    Asked(Option<oneshot::Sender<()>>),
}

impl Task {
    async fn run(mut self) {
        let done = self.run_until_asked().await;
        // Commands are refused before anyone is told of the end.
        drop(self);
        if let Some(done) = done {
            // Whoever asked may have gone meanwhile.
            let _ = done.send(());
        }
    }

    /// Returns whom to tell when all is over.
    async fn run_until_asked(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            match self.run_daemon().await {
                End::Failed(why) => self.not_working(why).await,
                End::Asked(done) => return done,
            }
            let again = sleep(RETRY_INTERVAL);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = &mut again => break,
                    command = self.commands.recv() => match command {
                        Some(Command::Announce(announcement)) => self.announcement = announcement,
                        Some(Command::Know(devices)) => self.table.know(devices),
                        Some(Command::Shutdown(done)) => return Some(done),
                        None => return None,
                    },
                }
            }
        }
    }

    /// Runs one daemon until it fails or is not wanted any more.
    async fn run_daemon(&mut self) -> End {
        let daemon = match self.start_daemon() {
            Ok(daemon) => daemon,
            Err(error) => return End::Failed(format!("multicast DNS cannot start: {error}")),
        };
        let end = self.serve(&daemon).await;
        if let Ok(gone) = daemon.unregister(&self.identity.fullname()) {
            // A goodbye that cannot be said is made up for by the record's expiry.
            let _ = timeout(GOODBYE_TIMEOUT, gone.recv_async()).await;
        }
        if let Ok(ended) = daemon.shutdown() {
            let _ = timeout(GOODBYE_TIMEOUT, ended.recv_async()).await;
        }
        end
    }

    fn start_daemon(&self) -> mdns_sd::Result<ServiceDaemon> {
        let daemon = ServiceDaemon::new_with_port(self.config.port)?;
        daemon.set_ip_check_interval(INTERFACE_CHECK_S)?;
        let loopback = vec![IfKind::LoopbackV4, IfKind::LoopbackV6];
        if self.config.loopback {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(loopback)?;
        } else {
            daemon.disable_interface(loopback)?;
        }
        Ok(daemon)
    }

    async fn serve(&mut self, daemon: &ServiceDaemon) -> End {
        let started = daemon.monitor().and_then(|monitor| {
            if self.announcement.ports.any() {
                daemon.register(self.identity.service(&self.announcement)?)?;
            }
            Ok((monitor, daemon.browse(SERVICE_TYPE)?))
        });
        let (monitor, mut found) = match started {
            Ok(started) => started,
            Err(error) => return End::Failed(format!("multicast DNS cannot start: {error}")),
        };
        let mut tick = interval(CANDIDATE_EVENT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Nothing comes back before something was announced.
        let mut proof_due = self.announcement.ports.any().then(|| Instant::now() + PROOF_TIMEOUT);
        let mut trouble = None;
        let mut refresh_due: Option<Instant> = None;
        let mut repeat_due: Option<Instant> = None;
        let mut repeats_left = 0;
        self.proven = false;
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Announce(announcement)) => {
                        if announcement == self.announcement {
                            continue;
                        }
                        self.announcement = announcement;
                        if let Err(error) = self.register(daemon) {
                            return End::Failed(format!("cannot announce this device: {error}"));
                        }
                        proof_due = proof_due.or(Some(Instant::now() + PROOF_TIMEOUT));
                        repeat_due = Some(Instant::now() + REPEAT_DELAY);
                        repeats_left = REPEATS;
                    }
                    Some(Command::Know(devices)) => self.table.know(devices),
                    Some(Command::Shutdown(done)) => return End::Asked(Some(done)),
                    None => return End::Asked(None),
                },
                event = found.recv_async() => match event {
                    Ok(event) => self.on_event(event).await,
                    // The daemon closes a receiver that was too slow, without a word.
                    Err(_) => match self.browse_again(daemon).await {
                        Ok(again) => found = again,
                        Err(error) => return End::Failed(format!("cannot listen: {error}")),
                    },
                },
                event = monitor.recv_async() => match event {
                    Ok(DaemonEvent::Error(error)) => trouble = Some(error.to_string()),
                    Ok(DaemonEvent::IpAdd(_) | DaemonEvent::IpDel(_)) => {
                        refresh_due = Some(Instant::now() + REFRESH_DELAY);
                    }
                    Ok(_) => {}
                    Err(_) => return End::Failed("multicast DNS has ended".to_owned()),
                },
                () = sleep_until(refresh_due.unwrap_or_else(Instant::now)),
                    if refresh_due.is_some() =>
                {
                    // The daemon asks less and less often, and what held for the old interfaces need
                    // not hold for the new: ask, announce, and prove anew.
                    refresh_due = None;
                    self.proven = false;
                    let again = self.register(daemon).and_then(|()| daemon.browse(SERVICE_TYPE));
                    match again {
                        Ok(again) => found = again,
                        Err(error) => return End::Failed(format!("cannot listen: {error}")),
                    }
                    if self.announcement.ports.any() {
                        proof_due = Some(Instant::now() + PROOF_TIMEOUT);
                    }
                }
                () = sleep_until(repeat_due.unwrap_or_else(Instant::now)),
                    if repeat_due.is_some() =>
                {
                    repeats_left -= 1;
                    repeat_due = (repeats_left > 0).then(|| Instant::now() + REPEAT_DELAY);
                    if let Err(error) = self.register(daemon) {
                        return End::Failed(format!("cannot announce this device: {error}"));
                    }
                }
                _ = tick.tick(), if self.table.has_due() => self.report_due(),
                () = sleep_until(proof_due.unwrap_or_else(Instant::now)), if proof_due.is_some() => {
                    proof_due = None;
                    if !self.proven {
                        self.not_working(no_proof(trouble.take())).await;
                    }
                }
            }
        }
    }

    fn register(&self, daemon: &ServiceDaemon) -> mdns_sd::Result<()> {
        if self.announcement.ports.any() {
            daemon.register(self.identity.service(&self.announcement)?)
        } else {
            daemon.unregister(&self.identity.fullname()).map(|_| ())
        }
    }

    async fn browse_again(
        &self,
        daemon: &ServiceDaemon,
    ) -> mdns_sd::Result<Receiver<ServiceEvent>> {
        // Whoever floods us shall not make us spin.
        sleep(CANDIDATE_EVENT_INTERVAL).await;
        daemon.browse(SERVICE_TYPE)
    }

    async fn on_event(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                if service.fullname == self.identity.fullname() {
                    return self.proven().await;
                }
                if let Some(candidate) = read(&service, self.config.loopback) {
                    self.proven().await;
                    if let Some(tag) = self.table.seen(service.fullname, candidate) {
                        self.lost(tag);
                    }
                    self.report_due();
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                if let Some(tag) = self.table.lost(&name) {
                    self.lost(tag);
                }
            }
            _ => {}
        }
    }

    fn lost(&self, tag: Tag) {
        // A hint; when the runtime is too slow it can do without.
        let _ = self.events.try_send(Event::PeerLost(tag));
    }

    /// Reports what is due, as far as there is room; the rest waits for the next tick.
    fn report_due(&mut self) {
        let now = Instant::now();
        while let Ok(room) = self.events.try_reserve() {
            match self.table.next_due(now) {
                Some(candidate) => room.send(Event::PeerSeen(candidate)),
                None => return,
            }
        }
    }

    async fn proven(&mut self) {
        self.proven = true;
        if self.working != Some(Ok(())) {
            self.working = Some(Ok(()));
            // An error says that nobody listens; the next command ends the task.
            let _ = self.events.send(Event::Working).await;
        }
    }

    async fn not_working(&mut self, why: String) {
        if self.working != Some(Err(why.clone())) {
            self.working = Some(Err(why.clone()));
            let _ = self.events.send(Event::NotWorking { why }).await;
        }
    }
}

fn no_proof(trouble: Option<String>) -> String {
    let seconds = PROOF_TIMEOUT.as_secs();
    let detail = trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
    format!(
        "our own announcement did not come back within {seconds} s{detail}: no interface carries \
         multicast, or a firewall blocks UDP port 5353; devices can still be reached by address"
    )
}
