//! What kind of run it is: every choice is drawn from the seed and printed before the first tick.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::ClockShape;
use crate::faults::Fault;
use crate::hostile::Trick;
use crate::network::LinkShape;
use crate::scheduler::Stream;
use crate::workload::Mix;

/// Who dials whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Everyone.
    Mesh,
    /// Each the next.
    Chain,
    /// All the first.
    Star,
    /// Two halves in which everyone meets, joined by one device of each.
    Islands,
}

impl Topology {
    /// Whether two of so many devices ever meet.
    pub fn joins(self, a: usize, b: usize, devices: usize) -> bool {
        let (low, high) = (a.min(b), a.max(b));
        let half = devices / 2;
        match self {
            Self::Mesh => low != high,
            Self::Chain => high - low == 1,
            Self::Star => low == 0 && high > 0,
            Self::Islands if low == high => false,
            Self::Islands => (low < half) == (high < half) || (low + 1 == half && high == half),
        }
    }
}

/// The choices of a run. Times are in milliseconds of virtual time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// What all else is drawn from.
    pub seed: u64,
    /// The named scenario, `random` for a drawn run.
    pub scenario: String,
    /// Devices that are members from the start.
    pub devices: usize,
    /// Devices with a mesh of their own, which may join later.
    pub outsiders: usize,
    /// Who dials whom.
    pub topology: Topology,
    /// Both ends dial; otherwise the lower one does.
    pub both_dial: bool,
    /// How links behave.
    pub links: LinkShape,
    /// Most time until an end learns that its link was cut.
    pub detect_ms_max: u64,
    /// Time after which a silent link is taken for dead.
    pub dead_link_ms: u64,
    /// Inputs that come within this time are one turn of a node.
    pub turn_ms: u64,
    /// Operations that the workload tries, alone and in batches.
    pub operations: u64,
    /// What they are.
    pub mix: Mix,
    /// Ids per lane: few of them make many conflicts.
    pub ids: u64,
    /// How many writes of a thousand carry a large text.
    pub large_permille: u64,
    /// How many writes of a hundred are secret.
    pub secret_percent: u64,
    /// How clocks behave.
    pub clocks: ClockShape,
    /// Mean time between two faults of a kind; kinds that are off are left out.
    pub faults: BTreeMap<Fault, u64>,
    /// What the last member does to the frames it sends; empty when it keeps the rules.
    pub tricks: BTreeMap<Trick, u64>,
    /// The member that does it by a fault of its program, which is mended when faults end: no enemy, and in
    /// the end it must agree with all others. `None` when it is the last one, and means it.
    pub by_fault_of: Option<usize>,
    /// Least and most time that a partition or another outage lasts.
    pub outage_ms: (u64, u64),
    /// How long faults and writes go on.
    pub safety_ms: u64,
    /// How long convergence may take after that, besides the time that the links need for the data.
    pub liveness_ms: u64,
}

const MINUTE_MS: u64 = 60_000;

impl Options {
    /// A run in which nothing goes wrong by itself: what scenarios start from.
    pub fn quiet(scenario: &str, seed: u64, devices: usize) -> Self {
        Self {
            seed,
            scenario: scenario.to_owned(),
            devices,
            outsiders: 0,
            topology: Topology::Mesh,
            both_dial: true,
            links: LinkShape {
                latency_ms_min: 2,
                latency_ms_max: 20,
                bytes_per_ms: 5_000,
                in_flight_bytes_max: 262_144,
            },
            detect_ms_max: 1_000,
            dead_link_ms: 35_000,
            turn_ms: 0,
            operations: 0,
            mix: Mix::default(),
            ids: 4,
            large_permille: 0,
            secret_percent: 0,
            clocks: ClockShape::default(),
            faults: BTreeMap::new(),
            tricks: BTreeMap::new(),
            by_fault_of: None,
            outage_ms: (1_000, 20_000),
            safety_ms: 0,
            liveness_ms: 20 * MINUTE_MS,
        }
    }

    /// The choices that a seed makes for a random run.
    pub fn random(seed: u64) -> Self {
        let mut stream = Stream::new(seed, "options", 0);
        let latency_ms_min = stream.pick(&[0, 1, 5, 30, 150]);
        let safety_min = stream.pick(&[15, 60, 60, 60, 120]);
        let clocks = ClockShape {
            skew_ms_max: stream.pick(&[0, 1_000, 3_600_000, 40_000_000_000]),
            drift_ppm_max: stream.pick(&[0, 50, 2_000, 50_000]),
            swing_ms_max: stream.pick(&[0, 0, 2_000, 600_000]),
        };
        // Cost grows with the square of the devices, and most faults need few of them: large worlds are
        // one in ten.
        let devices = match stream.below(20) {
            0..5 => 2,
            5..9 => 3,
            9..16 => 4,
            16..18 => 5,
            18 => 6,
            _ => stream.between(7, 12) as usize,
        };
        let outsiders = stream.pick(&[0, 0, 1, 2]).min(devices - 2);
        let mut options = Self {
            devices: devices - outsiders,
            outsiders,
            topology: stream.pick(&[
                Topology::Mesh,
                Topology::Mesh,
                Topology::Chain,
                Topology::Star,
                Topology::Islands,
            ]),
            both_dial: stream.percent(50),
            links: LinkShape {
                latency_ms_min,
                latency_ms_max: latency_ms_min + stream.pick(&[0, 5, 50, 1_000]),
                bytes_per_ms: stream.pick(&[20, 200, 2_000, 100_000]),
                in_flight_bytes_max: stream.pick(&[4_096, 65_536, 1_048_576]),
            },
            detect_ms_max: stream.pick(&[0, 100, 5_000]),
            turn_ms: stream.pick(&[0, 0, 1, 10]),
            operations: stream.pick(&[60, 120, 200, 200, 200, 240, 400]),
            ids: stream.between(1, 12),
            large_permille: stream.pick(&[0, 0, 5, 20]),
            secret_percent: stream.pick(&[0, 5, 15]),
            clocks,
            outage_ms: stream.pick(&[(500, 10_000), (1_000, 60_000), (30_000, 600_000)]),
            safety_ms: safety_min * MINUTE_MS,
            ..Self::quiet("random", seed, devices)
        };
        options.draw_mix(&mut Stream::new(seed, "mix", 0));
        // Of the shipped node it is 35 s; what replicates must not depend on it.
        let dead_links = &mut Stream::new(seed, "dead links", 0);
        options.dead_link_ms = dead_links.pick(&[10_000, 35_000, 35_000, 60_000]);
        options.draw_faults(&mut Stream::new(seed, "fault kinds", 0));
        options.draw_tricks(&mut Stream::new(seed, "tricks", 0));
        options.draw_a_faulty_one(&mut Stream::new(seed, "faulty program", 0));
        options
    }

    fn draw_mix(&mut self, stream: &mut Stream) {
        self.mix = Mix {
            batches_percent: stream.pick(&[0, 15, 15, 50]),
            patches_percent: stream.pick(&[5, 30, 30, 50]),
            deletes_percent: stream.pick(&[3, 20, 20, 45]),
        };
    }

    /// Each kind is left out of half of the runs, so that it cannot hide what the others would show,
    /// and comes at rates that lie far apart.
    fn draw_faults(&mut self, stream: &mut Stream) {
        for fault in Fault::ALL {
            let factor = stream.pick(&[1, 3, 10, 30]);
            let on = stream.percent(45);
            if on {
                self.faults.insert(fault, fault.rarity_min() * factor * MINUTE_MS);
            }
        }
        if self.outsiders > 0 {
            self.faults.insert(Fault::Join, self.safety_ms / 4);
        }
    }

    fn draw_tricks(&mut self, stream: &mut Stream) {
        if self.devices < 3 || !stream.percent(35) {
            return;
        }
        for trick in Trick::ALL.into_iter().filter(|trick| !Trick::FAULTS.contains(trick)) {
            let every = stream.pick(&[5, 20, 100]);
            // Hundreds of journals cost as much as ten other worlds.
            let likely = if trick == Trick::Journals { 4 } else { 40 };
            if stream.percent(likely) {
                self.tricks.insert(trick, every);
            }
        }
        // There is something to smuggle where somebody was put out.
        if self.tricks.contains_key(&Trick::Smuggle) {
            let every_ms = Fault::Revoke.rarity_min() * MINUTE_MS;
            self.faults.entry(Fault::Revoke).or_insert(every_ms);
        }
        // Of two histories everyone must keep the proof, where no disk loses it: so in half of these worlds
        // disks keep what they have.
        if self.tricks.keys().any(|trick| trick.is_steady()) && stream.percent(50) {
            self.faults.retain(|fault, _| !fault.loses() && *fault != Fault::Clone);
        }
    }

    /// In a sixth of the worlds without an enemy some member loses runs, and swaps them with what follows.
    fn draw_a_faulty_one(&mut self, stream: &mut Stream) {
        if self.devices < 3 || !self.tricks.is_empty() || !stream.percent(16) {
            return;
        }
        self.by_fault_of = Some(stream.index(self.devices));
        for trick in Trick::FAULTS {
            self.tricks.insert(trick, stream.pick(&[3, 10, 40]));
        }
    }

    /// The device that breaks the rules, if there is one.
    pub fn hostile(&self) -> Option<usize> {
        let means_it = !self.tricks.is_empty() && self.by_fault_of.is_none();
        (means_it && self.devices > 1).then(|| self.devices - 1)
    }

    /// The device whose program is faulty, if there is one.
    pub fn faulty(&self) -> Option<usize> {
        self.by_fault_of.filter(|number| *number < self.devices && !self.tricks.is_empty())
    }

    /// All devices, members or not.
    pub fn all_devices(&self) -> usize {
        self.devices + self.outsiders
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The derived form names every field, so none can be forgotten here.
        write!(f, "{self:#?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topology_joins_all_devices_however_many() {
        for topology in [Topology::Mesh, Topology::Chain, Topology::Star, Topology::Islands] {
            for devices in 2..=12 {
                let mut reached = std::collections::BTreeSet::from([0]);
                for _ in 0..devices {
                    for a in 0..devices {
                        for b in 0..devices {
                            assert_eq!(
                                topology.joins(a, b, devices),
                                topology.joins(b, a, devices)
                            );
                            if topology.joins(a, b, devices) && reached.contains(&a) {
                                reached.insert(b);
                            }
                        }
                    }
                }
                assert_eq!(reached.len(), devices, "{topology:?} of {devices}");
            }
        }
    }

    #[test]
    fn median_world_is_four_devices_two_hundred_operations_and_an_hour() {
        let median = |of: fn(&Options) -> u64| {
            let mut all: Vec<u64> = (0..999).map(|seed| of(&Options::random(seed))).collect();
            all.sort_unstable();
            all[all.len() / 2]
        };
        assert_eq!(median(|options| options.all_devices() as u64), 4);
        assert_eq!(median(|options| options.operations), 200);
        assert_eq!(median(|options| options.safety_ms / MINUTE_MS), 60);
    }

    #[test]
    fn seeds_differ_and_repeat_and_pass_through_json() {
        let drawn = Options::random(7);
        assert_eq!(drawn, Options::random(7));
        assert_ne!(drawn, Options { seed: 7, ..Options::random(8) });
        let json = serde_json::to_string(&drawn).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&json).unwrap(), drawn);
    }
}
