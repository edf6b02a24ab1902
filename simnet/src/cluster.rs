//! Devices: each an engine over its real store on a simulated disk, started and stopped at will.

use ed25519_dalek::SigningKey;
use srcos_lanes::error::StoreError;
use srcos_lanes::ids::{DeviceId, MeshId, Now};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::{Grant, ReplicationPolicy};
use srcos_lanes::signature::Signer as _;
use srcos_lanes::store::{OpenOptions, Store};
use srcos_replication::engine::{Engine, EngineConfig, StartError};
use srcos_replication::roster::Roster;

use crate::clock::{Clock, ClockShape};
use crate::disk::Disk;
use crate::hostile::Tamperer;
use crate::invariants::confined;
use crate::scheduler::Stream;

/// A device that runs.
#[derive(Debug)]
pub struct Running {
    /// Its store.
    pub store: Store,
    /// Its engine.
    pub engine: Engine,
}

/// A device, running or not.
#[derive(Debug)]
pub struct Node {
    key: SigningKey,
    /// Its disk.
    pub disk: Disk,
    /// What runs on it; `None` while it is stopped.
    pub running: Option<Running>,
    /// How often it was started; tells events for an earlier run from those for this one.
    pub run: u64,
    /// The count of opens that is kept beside the store.
    pub opens_outside: Option<u64>,
    /// Its clocks.
    pub clock: Clock,
    /// What it opens to others.
    pub grants: Vec<Grant>,
    /// What alters its frames, if it breaks the rules.
    pub tamperer: Option<Tamperer>,
    /// The device of which it is a copy.
    pub copy_of: Option<usize>,
    /// It is gone for good.
    pub retired: bool,
    /// It does nothing before this time.
    pub frozen_until_ms: u64,
    /// It does not start before this time.
    pub away_until_ms: u64,
    /// Its store lost its mesh and it waits to be given the roster again.
    pub homeless: bool,
    /// It is in the mesh of the run, as far as anybody arranged.
    pub joined: bool,
    /// The mesh that it was taken into. A backup from before that knows another.
    pub home: Option<MeshId>,
    /// Its disk may have lost or changed bytes that were synced.
    pub suspect: bool,
    stream: Stream,
}

/// The device cannot be started.
#[derive(Debug)]
pub struct StartFailure(pub StoreError);

impl From<StoreError> for StartFailure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

fn odd(error: impl std::fmt::Display) -> StartFailure {
    StartFailure(StoreError::Io(error.to_string()))
}

impl Node {
    /// A new device.
    pub fn new(seed: u64, number: usize, clocks: ClockShape) -> Self {
        let mut stream = Stream::new(seed, "node", number as u64);
        Self {
            key: SigningKey::from_bytes(&stream.bytes()),
            disk: Disk::default(),
            running: None,
            run: 0,
            opens_outside: Some(0),
            clock: Clock::draw(clocks, &mut Stream::new(seed, "clock", number as u64)),
            grants: Vec::new(),
            tamperer: None,
            copy_of: None,
            retired: false,
            frozen_until_ms: 0,
            away_until_ms: 0,
            homeless: false,
            joined: false,
            home: None,
            suspect: false,
            stream,
        }
    }

    /// A copy of the whole machine as it is now.
    pub fn copied(&self, of: usize, seed: u64, number: usize) -> Self {
        let mut copy = Self::new(seed, number, ClockShape::default());
        copy.key = self.key.clone();
        copy.clock = self.clock.clone();
        copy.disk.restore(&self.disk.image());
        copy.opens_outside = self.opens_outside;
        copy.copy_of = Some(of);
        copy.joined = self.joined;
        copy.home = self.home;
        copy.suspect = self.suspect;
        copy
    }

    /// The device.
    pub fn device(&self) -> DeviceId {
        self.key.device()
    }

    /// Its key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Both clocks of the device.
    pub fn now(&self, at_ms: u64) -> Now {
        self.clock.now(at_ms)
    }

    /// What it lets go to whom.
    pub fn policy(&self) -> ReplicationPolicy {
        ReplicationPolicy::with_grants(self.grants.iter().cloned())
    }

    /// Whether it keeps the rules and is the only one of its kind.
    pub fn is_honest(&self) -> bool {
        !self.breaks_rules() && self.copy_of.is_none() && !self.retired
    }

    /// Whether it means ill: a faulty program does not.
    pub fn breaks_rules(&self) -> bool {
        self.tamperer.as_ref().is_some_and(|tamperer| !tamperer.is_by_fault())
    }

    /// Whether it takes itself for a member, while it runs.
    pub fn thinks_itself_a_member(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.engine.roster().is_member(self.device()))
    }

    /// Opens the store and makes an engine over it.
    pub fn start(&mut self, at_ms: u64) -> Result<&mut Running, StartFailure> {
        let mut store = self.open()?;
        if store.mesh().is_none() {
            self.found(&mut store, at_ms)?;
        }
        self.homeless |= self.home.is_some() && store.mesh() != self.home;
        let config = EngineConfig {
            signer: Box::new(self.key.clone()),
            policy: self.policy(),
            seed: self.stream.bytes(),
        };
        let engine = Engine::new(config, &mut store).map_err(|error| match error {
            StartError::Store(error) => StartFailure(error),
            // A roster that cannot be read back is damage like any other.
            StartError::Roster(error) => StartFailure(StoreError::Damaged {
                place: "roster".into(),
                what: error.to_string(),
            }),
        })?;
        self.run += 1;
        Ok(self.running.insert(Running { store, engine }))
    }

    fn open(&mut self) -> Result<Store, StartFailure> {
        let options = OpenOptions {
            device: self.key.device(),
            opens_outside: self.opens_outside,
            random: self.stream.bits(),
        };
        let store = Store::open_backend(self.disk.open(), &options)?;
        self.opens_outside = Some(store.opens()?);
        Ok(store)
    }

    /// A new device starts as the only member of its own mesh.
    fn found(&mut self, store: &mut Store, at_ms: u64) -> Result<(), StartFailure> {
        let wall = self.now(at_ms).wall;
        let nonce = self.stream.bytes();
        let roster = Roster::found("device", nonce, wall, &self.key).map_err(odd)?;
        store.set_mesh(roster.mesh())?;
        store.put_roster_record(&roster.founding().0)?;
        store.commit()?;
        self.homeless = self.joined;
        Ok(())
    }

    /// The power fails: what runs is gone, and so is what was not synced.
    pub fn cut_power(&mut self, chance: &mut Stream) {
        self.disk.cut_power(chance);
        self.running = None;
    }

    /// The process is gone; what it wrote stays with the system.
    pub fn kill(&mut self) {
        self.disk.detach();
        self.running = None;
    }

    /// Closes the store as a clean stop does. The engine has said its goodbyes.
    pub fn close(&mut self) -> Result<(), StoreError> {
        match self.running.take() {
            Some(running) => running.store.close(),
            None => Ok(()),
        }
    }

    /// A new disk with nothing on it.
    pub fn wipe(&mut self) {
        self.running = None;
        self.disk = Disk::default();
        self.opens_outside = None;
        self.suspect = false;
    }

    /// The mesh of its roster, while it runs.
    pub fn mesh(&self) -> Option<MeshId> {
        Some(self.running.as_ref()?.engine.roster().mesh())
    }
}

/// `by` takes `other` into its mesh, as pairing would when it has come to its end.
pub fn pair(nodes: &mut [Node], by: usize, other: usize, at_ms: u64) -> Result<(), StoreError> {
    let odd = |error: &dyn std::fmt::Display| StoreError::Io(error.to_string());
    let now = nodes[by].now(at_ms);
    let Some(joins) = &nodes[other].running else { return Ok(()) };
    let (device, prior) = (joins.engine.device(), joins.engine.roster().mesh());
    let Some(first) = &mut nodes[by].running else { return Ok(()) };
    if first.engine.roster().needs_admission(device, Some(prior)) {
        let admitted = first.engine.admit(&mut first.store, now, device, "joined", Some(prior));
        admitted.map_err(|error| odd(&error))?;
        first.engine.commit(&mut first.store, now)?;
    }
    let records: Vec<Vec<u8>> =
        first.engine.roster().records_in_order().map(|record| record.0.clone()).collect();
    let now = nodes[other].now(at_ms);
    let Some(joins) = &mut nodes[other].running else { return Ok(()) };
    joins.engine.join(&mut joins.store, now, &records).map_err(|error| odd(&error))?;
    joins.engine.commit(&mut joins.store, now)?;
    nodes[other].home = nodes[by].mesh();
    nodes[other].joined = true;
    nodes[other].homeless = false;
    Ok(())
}

/// The lanes that all members exchange, whatever they open to each other.
pub fn shared_lanes() -> impl Iterator<Item = LaneId> {
    LaneId::ALL.into_iter().filter(|lane| confined::is_shared(*lane))
}
