//! A deterministic world around replication engines and their real stores.
//!
//! It runs the shipped code: [`srcos_replication::engine::Engine`] over
//! [`srcos_lanes::store::Store`]. Simulated are the clocks, the network below the frames and the
//! disk below redb. All choices come from one seed, so a failure is found once and then repeated
//! at will. `docs/SIMULATION.md` is the guide; in short:
//!
//! ```text
//! simnet run --seed 4711 --trace          a run, with a line for each thing that happened
//! simnet sweep --seeds 0..1000            many seeds; stops at the first that fails
//! simnet explain --seed 4711 --out a.html what happened, as a picture
//! simnet list                             the scenarios
//! ```
//!
//! A run has two phases. First *safety*: devices write while the steps of a plan strike links, disks,
//! clocks and membership; invariants are checked as things happen. Then *liveness*: faults and
//! writes end, and the devices that belong together must come in step within a budget of virtual
//! time. If they do not, the report says who waits for what.
//!
//! | to find | look in |
//! |---|---|
//! | what a seed decides | [`options`] |
//! | what happens from outside, step by step | [`plan`] |
//! | every kind of fault, and why it is survivable | [`faults`] |
//! | the loop, and what each fault does | [`world`] |
//! | time, queue, random streams | [`scheduler`], [`clock`] |
//! | links | [`network`] |
//! | disks | [`disk`] |
//! | devices | [`cluster`] |
//! | members that break the rules | [`hostile`] |
//! | what devices write | [`workload`] |
//! | what must hold | [`invariants`] |
//! | the record of a run | [`trace`] |
//! | what a change costs many devices | [`growth`] |
//!
//! Nothing here reads a clock, draws from the system's randomness, or iterates over a hash map.

pub mod bite;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod explain;
pub mod faults;
pub mod growth;
pub mod hostile;
pub mod invariants;
pub mod network;
pub mod options;
pub mod plan;
pub mod scenarios;
pub mod scheduler;
pub mod shrink;
pub mod trace;
pub mod workload;
pub mod world;

/// Runs a seed with everything drawn from it.
pub fn run_random(seed: u64) -> world::Report {
    let options = options::Options::random(seed);
    let plan = plan::draw(&options);
    run(options, plan, None)
}

/// Runs a plan to its end.
pub fn run(
    options: options::Options,
    plan: Vec<plan::Step>,
    sink: Option<trace::Sink>,
) -> world::Report {
    match world::World::new(options, plan, sink) {
        Ok(world) => world.run(),
        Err(violation) => world::Report::of_start(violation),
    }
}
