//! A deterministic world around replication engines and their real stores.
//!
//! It runs the shipped code: [`srcos_replication::engine::Engine`] over
//! [`srcos_lanes::store::Store`]. Simulated are the clocks, the network below the frames and the
//! disk below redb. All choices come from one seed, so a failure is found once and then repeated
//! at will.
//!
//! # How to reproduce a failure
//!
//! ```text
//! simnet run --seed 4711 --trace          the run again, with a line for each thing that happened
//! simnet sweep --seeds 0..1000            many seeds; prints those that fail
//! simnet list                             the scenarios
//! ```
//!
//! A run has two phases. First *safety*: devices write while links are cut, the network falls
//! apart, nodes crash and clocks jump; invariants are checked all the time. Then *liveness*:
//! faults and writes end, and the devices must come in step within a budget of virtual time. If
//! they do not, the report says who waits for what.
//!
//! | to find | look in |
//! |---|---|
//! | what a seed decides | [`options`] |
//! | the loop, and every fault | [`simulation`] |
//! | clocks, queue, random streams | [`scheduler`] |
//! | links | [`network`] |
//! | disks | [`disk`] |
//! | devices | [`cluster`] |
//! | what they write | [`workload`] |
//! | what must hold | [`invariants`] |
//! | the record of a run | [`trace`] |
//!
//! Nothing here reads a clock, draws from the system's randomness, or iterates over a hash map.

pub mod cluster;
pub mod disk;
pub mod invariants;
pub mod network;
pub mod options;
pub mod scheduler;
pub mod simulation;
pub mod trace;
pub mod workload;
