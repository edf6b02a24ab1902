//! What the node's one writer holds: engine, store, and what is known of the network.
//!
//! The daemon's runtime owns a core on its thread; without a daemon, a command opens one for itself.
//! Either way, work comes as closures, and their answers leave after the commit.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::ids::{DeviceId, Now, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::ReplicationPolicy;
use srcos_lanes::store::Store;
use srcos_replication::engine::{Engine, EngineConfig, StartError};
use srcos_replication::peers::LaneState as Standing;
use srcos_replication::roster::Roster;
use srcos_schemas::lanes::LanesStatus;
use srcos_schemas::peers::{
    LinkDocument, Membership, PeerDocument, PeersDocument, RevocationDocument,
};
use srcos_schemas::status::{LaneSummary, PeerCounts};

use crate::api::{ApiError, ErrorKind};
use crate::data_dir::{Clock, DataDir, Mark, internal, store_error};
use crate::documents::{LaneFacts, lane_status, time};
use crate::keys::{DeviceKey, random};

/// The name under which it is kept of this device that its links are to be cut.
const OFFLINE: &str = "offline-1";

/// The one writer.
pub struct Core {
    /// The clocks.
    pub clock: Clock,
    /// The device's key.
    pub key: DeviceKey,
    /// The conversation with peers.
    pub engine: Engine,
    /// The store.
    pub store: Store,
    /// What is known of the network.
    pub network: Network,
    /// Set while a daemon runs.
    pub daemon: Option<DaemonFacts>,
    /// Where it is noted how far the store reaches.
    pub mark: Option<Mark>,
}

/// What a running daemon says of itself.
#[derive(Clone, Debug)]
pub struct DaemonFacts {
    /// When it started.
    pub started_at: WallMillis,
    /// Where its HTTP interface is.
    pub http: Option<String>,
}

/// What is known of the network.
#[derive(Debug, Default)]
pub struct Network {
    /// Cut on purpose.
    pub offline: bool,
    /// Discovery is proven to work.
    pub discovery: bool,
    /// Why discovery does not work, when it was tried.
    pub discovery_why: Option<String>,
    /// Where peers can reach us.
    pub listen: BTreeSet<String>,
    /// The links that are open.
    pub links: BTreeMap<DeviceId, Link>,
    /// The last thing that went wrong with a device.
    pub errors: BTreeMap<DeviceId, String>,
    /// Members that turned this device away as revoked and did not prove it.
    pub refused_by: BTreeSet<DeviceId>,
    /// Counters since the start, by name and label.
    pub counters: BTreeMap<(&'static str, String), u64>,
}

/// An open link.
#[derive(Clone, Debug)]
pub struct Link {
    /// "quic" or "tcp".
    pub transport: &'static str,
    /// Where the device is seen.
    pub address: String,
    /// Since when.
    pub since: WallMillis,
}

impl Network {
    /// Adds one to a counter.
    pub fn count(&mut self, name: &'static str, label: impl Into<String>) {
        self.add(name, label, 1);
    }

    /// Adds to a counter.
    pub fn add(&mut self, name: &'static str, label: impl Into<String>, n: u64) {
        *self.counters.entry((name, label.into())).or_default() += n;
    }
}

impl Core {
    /// A core over an open store.
    pub fn new(clock: Clock, key: DeviceKey, mut store: Store) -> Result<Self, ApiError> {
        let config = EngineConfig {
            signer: Box::new(key.signing().clone()),
            policy: ReplicationPolicy::default(),
            seed: random().map_err(internal)?,
        };
        let engine = Engine::new(config, &mut store).map_err(|error| match error {
            StartError::Store(error) => store_error(error),
            StartError::Roster(error) => ApiError::new(
                ErrorKind::StoreDamaged,
                "roster_damaged",
                format!("the roster in the store cannot be read: {error}"),
                "put back a backup, or make a new data directory and pair it",
            ),
        })?;
        let network = Network::default();
        Ok(Self { clock, key, engine, store, network, daemon: None, mark: None })
    }

    /// A core over the store of a data directory.
    pub fn open(clock: Clock, dir: &DataDir) -> Result<Self, ApiError> {
        let (key, store) = dir.open()?;
        let mark = dir.mark(&store)?;
        Ok(Self { mark, ..Self::new(clock, key, store)? })
    }

    /// Both clocks, now.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Whether all links were to be cut when this was last asked for.
    pub fn is_kept_offline(&self) -> Result<bool, ApiError> {
        let snapshot = self.store.reader().snapshot().map_err(store_error)?;
        let kept = snapshot.peer_fact(self.key.device(), OFFLINE).map_err(store_error)?;
        Ok(kept.is_some_and(|kept| kept == [1]))
    }

    /// Keeps, with the turn, whether all links are to be cut: a restart must not undo what was asked
    /// for until it is taken back.
    pub fn keep_offline(&mut self, offline: bool) -> Result<(), ApiError> {
        let device = self.key.device();
        self.store.put_peer_fact(device, OFFLINE, &[u8::from(offline)]).map_err(store_error)
    }

    /// Makes the turn durable.
    pub fn commit(&mut self) -> Result<(), ApiError> {
        let now = self.now();
        self.engine.commit(&mut self.store, now).map_err(store_error)?;
        // Before anybody is told: else a store from before this commit would not be known to be old.
        if let Some(mark) = &mut self.mark {
            mark.note(self.store.feed_next());
        }
        Ok(())
    }

    /// The state of one lane, or of all.
    pub fn lanes_status(&self, only: Option<LaneId>) -> LanesStatus {
        let now = self.now();
        let names = names(self.engine.roster());
        let lanes = LaneId::ALL.into_iter().filter(|lane| only.is_none_or(|only| only == *lane));
        LanesStatus {
            device: self.key.device().to_string(),
            mesh: self.engine.roster().mesh().to_string(),
            generated_at: time(now.wall),
            lanes: lanes
                .map(|lane| {
                    let facts = LaneFacts {
                        lane,
                        counts: self.store.counts(lane),
                        journals: self.store.journals(lane).map(|(_, row)| *row).collect(),
                        peers: self.engine.lane_peers_at(&self.store, lane, now),
                    };
                    lane_status(&facts, &names, now.wall)
                })
                .collect(),
        }
    }

    /// Every device that the mesh knows.
    pub fn peers(&self) -> PeersDocument {
        let seen = |device| self.engine.seen_at(device);
        let mut document = peers(self.engine.roster(), self.key.device(), seen);
        for peer in &mut document.peers {
            let Ok(device) = peer.device.parse::<DeviceId>() else { continue };
            if self.engine.is_connected(device) {
                peer.link = self.network.links.get(&device).map(|link| LinkDocument {
                    transport: link.transport.to_owned(),
                    address: link.address.clone(),
                    since: time(link.since),
                    rtt_ms: None,
                });
                peer.last_seen_at = Some(time(self.now().wall));
            }
            peer.last_error = self.network.errors.get(&device).cloned();
        }
        document
    }

    /// How many peers there are, and how they stand.
    pub fn peer_counts(&self) -> PeerCounts {
        let own = self.key.device();
        let others: Vec<DeviceId> =
            self.engine.roster().members().keys().copied().filter(|d| *d != own).collect();
        let now = self.now();
        let standing: Vec<_> = LaneId::ALL
            .into_iter()
            .flat_map(|lane| self.engine.lane_peers_at(&self.store, lane, now))
            .filter(|peer| peer.state != Standing::Blocked)
            .collect();
        let in_sync = |device: &DeviceId| {
            let mut of = standing.iter().filter(|peer| peer.device == *device).peekable();
            of.peek().is_some() && of.all(|peer| peer.state == Standing::InSync)
        };
        PeerCounts {
            members: others.len(),
            connected: others.iter().filter(|d| self.engine.is_connected(**d)).count(),
            in_sync: others.iter().filter(|device| in_sync(device)).count(),
        }
    }
}

/// The lanes of a status in short.
pub fn summaries(status: &LanesStatus) -> Vec<LaneSummary> {
    use srcos_schemas::lanes::LanePeerState;
    let summary = |lane: &srcos_schemas::lanes::LaneStatus| {
        let shared =
            lane.replication.peers.iter().filter(|peer| peer.state != LanePeerState::Blocked);
        LaneSummary {
            name: lane.name.clone(),
            status: lane.status,
            live: lane.objects.live,
            unapplied_entries: lane.journal.unapplied_entries,
            peers_in_sync: shared
                .clone()
                .filter(|peer| peer.state == LanePeerState::InSync)
                .count(),
            peers: shared.count(),
        }
    };
    status.lanes.iter().map(summary).collect()
}

/// The names of all devices that the roster knows.
pub fn names(roster: &Roster) -> BTreeMap<DeviceId, String> {
    let members = roster.members().iter().map(|(device, member)| (*device, member.name.clone()));
    let revoked = roster.revoked().iter().map(|(device, gone)| (*device, gone.name.clone()));
    revoked.chain(members).collect()
}

/// Every device of a roster.
pub fn peers(
    roster: &Roster,
    own: DeviceId,
    seen_at: impl Fn(DeviceId) -> Option<WallMillis>,
) -> PeersDocument {
    let members = roster.members().iter().map(|(device, member)| PeerDocument {
        device: device.to_string(),
        name: member.name.clone(),
        membership: Membership::Member,
        this_device: *device == own,
        link: None,
        last_seen_at: seen_at(*device).map(time),
        admitted_at: time(member.admitted_at),
        admitted_by: member.by.to_string(),
        revoked: None,
        last_error: None,
    });
    let revoked = roster.revoked().iter().map(|(device, gone)| PeerDocument {
        device: device.to_string(),
        name: gone.name.clone(),
        membership: Membership::Revoked,
        this_device: *device == own,
        link: None,
        last_seen_at: seen_at(*device).map(time),
        admitted_at: time(gone.at),
        admitted_by: gone.by.to_string(),
        revoked: Some(RevocationDocument {
            at: time(gone.at),
            by: gone.by.to_string(),
            reason: gone.reason.clone(),
        }),
        last_error: None,
    });
    PeersDocument {
        device: own.to_string(),
        mesh: roster.mesh().to_string(),
        peers: members.chain(revoked).collect(),
    }
}

/// The device that a person means: by id, by name, or by the unique start of either.
pub fn find_device(roster: &Roster, text: &str) -> Result<DeviceId, ApiError> {
    let names = names(roster);
    let exact: Vec<_> = names
        .iter()
        .filter(|(device, name)| device.to_string() == text || name.as_str() == text)
        .collect();
    let by_start: Vec<_> = names
        .iter()
        .filter(|(device, name)| device.to_string().starts_with(text) || name.starts_with(text))
        .collect();
    let candidates = if exact.is_empty() { by_start } else { exact };
    let hint = "see the devices with: srcos-node peers";
    match candidates.as_slice() {
        [(device, _)] if !text.is_empty() => Ok(**device),
        [] => Err(ApiError::new(
            ErrorKind::NotFound,
            "device_unknown",
            format!("no device of this mesh is called {text:?}"),
            hint,
        )),
        _ => Err(ApiError::new(
            ErrorKind::BadInput,
            "device_ambiguous",
            format!("{text:?} could mean several devices"),
            hint,
        )),
    }
}
