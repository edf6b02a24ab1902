//! What kind of run it is: every choice is drawn from the seed and printed before the first tick.

use std::fmt;

use crate::network::LinkShape;
use crate::scheduler::Stream;

/// A kind of run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Everything is drawn from the seed.
    Random,
    /// Three devices; one is cut off, all write, the network heals.
    PartitionAndHeal,
    /// One node's frames vanish for ever: must be found by the liveness check.
    CanaryMute,
    /// One node's disk only pretends to sync: must be found by the durability check.
    CanaryLyingDisk,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 4] =
        [Self::Random, Self::PartitionAndHeal, Self::CanaryMute, Self::CanaryLyingDisk];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::PartitionAndHeal => "partition-and-heal",
            Self::CanaryMute => "canary-mute",
            Self::CanaryLyingDisk => "canary-lying-disk",
        }
    }

    /// What it is for.
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::Random => "devices, links, faults and work all drawn from the seed",
            Self::PartitionAndHeal => "three devices; one is cut off, all write, the network heals",
            Self::CanaryMute => "broken on purpose, must end with 3: one node's frames vanish",
            Self::CanaryLyingDisk => "broken on purpose, must end with 4: a disk that never syncs",
        }
    }

    /// The scenario of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }
}

/// Who dials whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// Everyone.
    Full,
    /// Each the next.
    Chain,
    /// All the first.
    Star,
}

impl Topology {
    /// Whether two nodes ever meet.
    pub fn joins(self, a: usize, b: usize) -> bool {
        match self {
            Self::Full => a != b,
            Self::Chain => a.abs_diff(b) == 1,
            Self::Star => (a == 0) != (b == 0),
        }
    }
}

/// The choices of a run. Times are in milliseconds of virtual time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The kind of run.
    pub scenario: Scenario,
    /// What all else is drawn from.
    pub seed: u64,
    /// Devices.
    pub nodes: usize,
    /// Who dials whom.
    pub topology: Topology,
    /// Both ends dial; otherwise the lower one does.
    pub both_dial: bool,
    /// How links behave.
    pub shape: LinkShape,
    /// Most time until an end learns that its link was cut.
    pub detect_ms_max: u64,
    /// Inputs that come within this time are one turn of a node.
    pub turn_ms: u64,
    /// Most time between two writes, anywhere.
    pub write_every_ms: u64,
    /// Ids per lane: few of them make many conflicts.
    pub ids: u64,
    /// How many writes of a hundred carry a large text.
    pub large_percent: u64,
    /// How many writes of a hundred are secret.
    pub secret_percent: u64,
    /// How far a node's wall clock may be off, either way.
    pub skew_ms_max: u64,
    /// Mean time between cuts of one link; 0 for none.
    pub cut_every_ms: u64,
    /// Mean time between partitions; 0 for none.
    pub partition_every_ms: u64,
    /// Mean time between stops of a node; 0 for none.
    pub stop_every_ms: u64,
    /// How many stops of a hundred are clean ones.
    pub clean_stop_percent: u64,
    /// How many crashes of a hundred lose the count of opens that is kept beside the store.
    pub count_lost_percent: u64,
    /// Mean time between jumps of a node's wall clock; 0 for none.
    pub clock_jump_every_ms: u64,
    /// How long faults and writes go on.
    pub safety_ms: u64,
    /// How long convergence may take after that, besides the time that the links need for the data.
    pub liveness_ms: u64,
}

impl Options {
    /// The choices that a seed makes for a scenario.
    pub fn draw(scenario: Scenario, seed: u64) -> Self {
        let mut stream = Stream::new(seed, "options", 0);
        let drawn = Self::random(scenario, seed, &mut stream);
        match scenario {
            Scenario::Random => drawn,
            Scenario::PartitionAndHeal => Self {
                nodes: 3,
                topology: Topology::Full,
                cut_every_ms: 0,
                stop_every_ms: 0,
                clock_jump_every_ms: 0,
                partition_every_ms: 0,
                write_every_ms: 80,
                safety_ms: 20_000,
                ..drawn
            },
            Scenario::CanaryMute => Self {
                nodes: 3,
                cut_every_ms: 0,
                stop_every_ms: 0,
                partition_every_ms: 0,
                safety_ms: 10_000,
                liveness_ms: 60_000,
                ..drawn
            },
            Scenario::CanaryLyingDisk => Self {
                nodes: 2,
                write_every_ms: 100,
                partition_every_ms: 0,
                stop_every_ms: 3_000,
                clean_stop_percent: 0,
                safety_ms: 20_000,
                ..drawn
            },
        }
    }

    fn random(scenario: Scenario, seed: u64, stream: &mut Stream) -> Self {
        // Each fault is left out of some runs, so that it cannot hide what the others would show.
        let mut sometimes = |percent: u64, from: u64, to: u64| {
            let every = stream.between(from, to);
            if stream.percent(percent) { every } else { 0 }
        };
        let cut_every_ms = sometimes(80, 300, 8_000);
        let partition_every_ms = sometimes(60, 3_000, 15_000);
        let stop_every_ms = sometimes(70, 1_500, 12_000);
        let clock_jump_every_ms = sometimes(40, 2_000, 20_000);
        let skew_ms_max = sometimes(60, 1, 3_600_000);
        let latency_ms_min = stream.between(0, 30);
        Self {
            scenario,
            seed,
            nodes: stream.between(2, 5) as usize,
            topology: stream.pick(&[Topology::Full, Topology::Chain, Topology::Star]),
            both_dial: stream.percent(50),
            shape: LinkShape {
                latency_ms_min,
                latency_ms_max: latency_ms_min + stream.between(0, 200),
                bytes_per_ms: stream.pick(&[20, 200, 2_000, 100_000]),
                in_flight_bytes_max: stream.pick(&[4_096, 65_536, 1_048_576]),
            },
            detect_ms_max: stream.pick(&[0, 100, 5_000]),
            turn_ms: stream.pick(&[0, 0, 1, 10]),
            write_every_ms: stream.between(20, 500),
            ids: stream.between(1, 8),
            large_percent: stream.pick(&[0, 2, 10]),
            secret_percent: stream.pick(&[0, 5, 15]),
            skew_ms_max,
            cut_every_ms,
            partition_every_ms,
            stop_every_ms,
            clean_stop_percent: stream.between(0, 50),
            count_lost_percent: stream.pick(&[0, 10]),
            clock_jump_every_ms,
            safety_ms: stream.between(4_000, 15_000),
            liveness_ms: 300_000,
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The derived form names every field, so none can be forgotten here.
        write!(f, "{self:#?}")
    }
}
