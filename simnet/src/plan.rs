//! What happens to a world from outside, drawn before the run: writes and faults, each with a time and
//! a salt of its own. A step can be left out without changing what the others do, which is what makes
//! shrinking work.

use serde::{Deserialize, Serialize};

use crate::faults::Fault;
use crate::options::Options;
use crate::scheduler::Stream;

/// Most steps of one kind of fault in a run, besides a last revocation, so that a rare run does not take for ever.
const STEPS_OF_A_KIND_MAX: usize = 120;

/// One thing that happens from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// When, in milliseconds of virtual time.
    pub at_ms: u64,
    /// What.
    pub act: Act,
    /// What its own choices are drawn from.
    pub salt: u64,
}

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A device writes a batch of so many operations.
    Write(u64),
    /// Something goes wrong.
    Fault(Fault),
}

impl Step {
    /// The stream of the step's own choices.
    pub fn stream(&self, seed: u64) -> Stream {
        Stream::new(seed, "step", self.salt)
    }
}

/// The steps of a run, in the order of their times.
pub fn draw(options: &Options) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut writes = Stream::new(options.seed, "writes", 0);
    let mut salt = 0;
    // People write in bursts: most of the time nothing, then several in a second.
    let mut left = options.operations;
    while left > 0 {
        let burst = writes.between(1, 12);
        let mut at = writes.below(options.safety_ms.max(1));
        for _ in 0..burst {
            if left == 0 {
                break;
            }
            salt += 1;
            let several = writes.percent(options.mix.batches_percent);
            let size = if several { writes.between(2, 5).min(left) } else { 1 };
            left -= size;
            steps.push(Step { at_ms: at.min(options.safety_ms), act: Act::Write(size), salt });
            at += writes.pick(&[0, 1, 30, 500, 5_000]);
        }
    }
    for (fault, every_ms) in &options.faults {
        let mut stream = Stream::new(options.seed, &fault.name(), 1);
        let mut at = stream.between(1, 2 * every_ms);
        for number in 0..STEPS_OF_A_KIND_MAX {
            if at >= options.safety_ms {
                break;
            }
            // Salts do not overlap, so that a kind that is added or left out moves no other.
            let salt = ((*fault as u64 + 1) << 32) + number as u64;
            steps.push(Step { at_ms: at, act: Act::Fault(*fault), salt });
            at += stream.between(1, 2 * every_ms);
        }
    }
    if options.faults.contains_key(&Fault::Revoke) {
        // What goes wrong then must not be mended by the next link: the last of them is near the end.
        let mut stream = Stream::new(options.seed, "last revocation", 0);
        let before_ms = 2_000 + 3 * options.links.latency_ms_max + stream.below(3_000);
        let salt = ((Fault::Revoke as u64 + 1) << 32) + STEPS_OF_A_KIND_MAX as u64;
        if stream.percent(60) {
            let at_ms = options.safety_ms.saturating_sub(before_ms);
            steps.push(Step { at_ms, act: Act::Fault(Fault::Revoke), salt });
        }
    }
    steps.sort_by_key(|step| (step.at_ms, step.salt));
    steps
}
