//! Devices: each an engine over its real store on a simulated disk, started and stopped at will.

use ed25519_dalek::SigningKey;
use srcos_lanes::error::StoreError;
use srcos_lanes::ids::{DeviceId, MonoMillis, Now, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::ReplicationPolicy;
use srcos_lanes::signature::Signer as _;
use srcos_lanes::store::{OpenOptions, Store};
use srcos_replication::engine::{Engine, EngineConfig};
use srcos_replication::roster::Roster;

use crate::disk::Disk;
use crate::scheduler::Stream;

/// The wall clock at the start: 2025-01-01T00:00:00Z in milliseconds.
pub const WALL_START_MS: u64 = 1_735_689_600_000;

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
    /// Its key.
    key: SigningKey,
    /// Its disk.
    pub disk: Disk,
    /// What runs on it; `None` while it is stopped.
    pub running: Option<Running>,
    /// How often it was started; tells events for an earlier run from those for this one.
    pub run: u64,
    /// The count of opens that is kept beside the store.
    pub opens_outside: Option<u64>,
    /// How far its wall clock is off, in milliseconds.
    pub skew_ms: i64,
    stream: Stream,
}

/// The device cannot be started.
#[derive(Debug)]
pub struct StartFailure(pub String);

impl Node {
    fn new(seed: u64, number: usize) -> Self {
        let mut stream = Stream::new(seed, "node", number as u64);
        Self {
            key: SigningKey::from_bytes(&stream.bytes()),
            disk: Disk::default(),
            running: None,
            run: 0,
            opens_outside: Some(0),
            skew_ms: 0,
            stream,
        }
    }

    /// The device.
    pub fn device(&self) -> DeviceId {
        self.key.device()
    }

    /// Both clocks of the device.
    pub fn now(&self, now_ms: u64) -> Now {
        let wall = (WALL_START_MS + now_ms).saturating_add_signed(self.skew_ms);
        Now { mono: MonoMillis(now_ms), wall: WallMillis(wall) }
    }

    /// Opens the store and makes an engine over it.
    pub fn start(&mut self) -> Result<&mut Running, StartFailure> {
        let mut store = self.open()?;
        if store.mesh().is_none() {
            self.found(&mut store).map_err(|error| StartFailure(error.to_string()))?;
        }
        let config = EngineConfig {
            signer: Box::new(self.key.clone()),
            policy: ReplicationPolicy::default(),
            seed: self.stream.bytes(),
        };
        let engine =
            Engine::new(config, &store).map_err(|error| StartFailure(error.to_string()))?;
        self.run += 1;
        Ok(self.running.insert(Running { store, engine }))
    }

    fn open(&mut self) -> Result<Store, StartFailure> {
        let options = OpenOptions {
            device: self.key.device(),
            opens_outside: self.opens_outside,
            random: self.stream.bits(),
        };
        let failed = |error: StoreError| StartFailure(error.to_string());
        let store = Store::open_backend(self.disk.open(), &options).map_err(failed)?;
        self.opens_outside = Some(store.opens().map_err(failed)?);
        Ok(store)
    }

    /// A new device starts as the only member of its own mesh.
    fn found(&mut self, store: &mut Store) -> Result<(), StoreError> {
        let wall = self.now(0).wall;
        let nonce = self.stream.bytes();
        let roster = Roster::found("device", nonce, wall, &self.key)
            .map_err(|error| StoreError::Io(error.to_string()))?;
        store.set_mesh(roster.mesh())?;
        store.put_roster_record(&roster.founding().0)?;
        store.commit()?;
        Ok(())
    }

    /// The power fails: what runs is gone, and so is what was not synced.
    pub fn crash(&mut self, chance: &mut Stream, count_lost: bool) {
        self.disk.cut_power(chance);
        self.running = None;
        if count_lost {
            self.opens_outside = None;
        }
    }

    /// Closes the store as a clean stop does. The engine has said its goodbyes.
    pub fn close(&mut self) -> Result<(), StoreError> {
        match self.running.take() {
            Some(running) => running.store.close(),
            None => Ok(()),
        }
    }
}

/// Starts devices and makes one mesh of them: the first admits the others, as pairing would.
pub fn mesh(seed: u64, nodes: usize) -> Result<Vec<Node>, StartFailure> {
    let mut nodes: Vec<Node> = (0..nodes).map(|number| Node::new(seed, number)).collect();
    for node in &mut nodes {
        node.start()?;
    }
    let Some((founder, others)) = nodes.split_first_mut() else { return Ok(nodes) };
    let now = founder.now(0);
    for other in others {
        let (Some(first), Some(joins)) = (&mut founder.running, &mut other.running) else {
            continue;
        };
        let prior = joins.engine.roster().mesh();
        let device = joins.engine.device();
        let failed = |error: &dyn std::fmt::Display| StartFailure(error.to_string());
        first
            .engine
            .admit(&mut first.store, now, device, "joined", Some(prior))
            .map_err(|error| failed(&error))?;
        first.engine.commit(&mut first.store, now).map_err(|error| failed(&error))?;
        let records: Vec<Vec<u8>> =
            first.engine.roster().records_in_order().map(|record| record.0.clone()).collect();
        joins.engine.join(&mut joins.store, &records).map_err(|error| failed(&error))?;
        joins.engine.commit(&mut joins.store, now).map_err(|error| failed(&error))?;
    }
    Ok(nodes)
}

/// The lanes that members exchange under the default policy.
pub fn shared_lanes() -> impl Iterator<Item = LaneId> {
    let anyone = DeviceId([0; 32]);
    let policy = ReplicationPolicy::default();
    LaneId::ALL.into_iter().filter(move |lane| policy.lane(*lane, anyone).allows())
}
