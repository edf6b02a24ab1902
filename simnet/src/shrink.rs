//! Making a failing run smaller: fewer steps, fewer devices, plainer links, as long as it still fails
//! in the same way.

use serde::{Deserialize, Serialize};

use crate::clock::ClockShape;
use crate::options::{Options, Topology};
use crate::plan::{self, Step};
use crate::scenarios;
use crate::trace::Sink;
use crate::world::Report;

/// A run as a file can hold it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Case {
    /// What was drawn.
    pub options: Options,
    /// What happens from outside. Empty for named scenarios.
    pub plan: Vec<Step>,
}

impl Case {
    /// What a seed makes of a scenario; `None` when there is no such scenario.
    pub fn draw(seed: u64, scenario: &str) -> Option<Self> {
        if scenario == "random" {
            let options = Options::random(seed);
            let plan = plan::draw(&options);
            return Some(Self { options, plan });
        }
        let options = scenarios::find(scenario)?.options(seed);
        Some(Self { options, plan: Vec::new() })
    }

    /// Runs it.
    pub fn run(&self, sink: Option<Sink>) -> Report {
        match scenarios::find(&self.options.scenario) {
            Some(scenario) => scenario.run(self.options.clone(), sink),
            None => crate::run(self.options.clone(), self.plan.clone(), sink),
        }
    }
}

/// The smallest case found within so many tries that still fails.
pub fn shrink(case: Case, tries: u64, fails: impl Fn(&Case) -> bool) -> Case {
    let mut shrinker = Shrinker { best: case, left: tries, fails };
    shrinker.steps();
    shrinker.options();
    shrinker.tricks();
    shrinker.steps();
    shrinker.time();
    shrinker.best
}

struct Shrinker<F> {
    best: Case,
    left: u64,
    fails: F,
}

impl<F: Fn(&Case) -> bool> Shrinker<F> {
    fn attempt(&mut self, case: Case) -> bool {
        if self.left == 0 || case == self.best {
            return false;
        }
        self.left -= 1;
        let still = (self.fails)(&case);
        if still {
            self.best = case;
        }
        still
    }

    /// Leaves out ever smaller parts of the plan.
    fn steps(&mut self) {
        let mut size = self.best.plan.len().div_ceil(2);
        while size > 0 && self.left > 0 {
            let mut from = 0;
            while from < self.best.plan.len() && self.left > 0 {
                let mut case = self.best.clone();
                let to = (from + size).min(case.plan.len());
                case.plan.drain(from..to);
                if !self.attempt(case) {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Leaves out one trick after the other.
    fn tricks(&mut self) {
        for trick in self.best.options.tricks.keys().copied().collect::<Vec<_>>() {
            let mut case = self.best.clone();
            case.options.tricks.remove(&trick);
            self.attempt(case);
        }
    }

    /// Ends the run with its last step.
    fn time(&mut self) {
        let Some(last) = self.best.plan.last() else { return };
        let mut case = self.best.clone();
        case.options.safety_ms = case.options.safety_ms.min(last.at_ms + 1);
        self.attempt(case);
    }

    /// Makes each choice plainer, one after the other.
    fn options(&mut self) {
        let plainer: [fn(&mut Options); 11] = [
            |options| options.clocks = ClockShape::default(),
            |options| options.topology = Topology::Mesh,
            |options| options.outsiders = 0,
            |options| options.turn_ms = 0,
            |options| options.large_permille = 0,
            |options| options.secret_percent = 0,
            |options| options.ids = 1,
            |options| options.links.bytes_per_ms = 100_000,
            |options| options.links.in_flight_bytes_max = 1_048_576,
            |options| options.links.latency_ms_max = options.links.latency_ms_min,
            |options| options.detect_ms_max = 0,
        ];
        for plain in plainer {
            let mut case = self.best.clone();
            plain(&mut case.options);
            self.attempt(case);
        }
        while self.best.options.devices > 2 && self.left > 0 {
            let mut case = self.best.clone();
            case.options.devices -= 1;
            if !self.attempt(case) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Act;

    #[test]
    fn shrinking_keeps_only_the_steps_that_the_failure_needs() {
        let case = Case::draw(5, "random").unwrap();
        let needed: Vec<Step> = case.plan.iter().copied().skip(3).step_by(70).take(3).collect();
        let fails = |case: &Case| needed.iter().all(|step| case.plan.contains(step));
        let small = shrink(case, 2_000, fails);
        assert_eq!(small.plan, needed);
        assert_eq!(small.options.devices, 2);
        assert!(small.options.tricks.is_empty());
        assert!(small.options.safety_ms <= needed.last().unwrap().at_ms + 1);
        assert!(needed.iter().any(|step| matches!(step.act, Act::Write(_))));
    }

    #[test]
    fn case_passes_through_a_file() {
        let case = Case::draw(5, "random").unwrap();
        let text = serde_json::to_string(&case).unwrap();
        assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case);
    }
}
