//! Named scenarios.

use crate::invariants::Checked;
use crate::options::Options;
use crate::trace::Sink;
use crate::world::{Report, World};

/// A short story with a claim.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Devices that are members from the start.
    devices: usize,
    /// What differs from a quiet world.
    shape: fn(&mut Options),
    /// What happens.
    script: fn(&mut World) -> Checked,
}

/// Every scenario.
pub const ALL: [Scenario; 0] = [];

/// The scenario of a name.
pub fn find(name: &str) -> Option<Scenario> {
    ALL.into_iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// Its world.
    pub fn options(&self, seed: u64) -> Options {
        let mut options = Options::quiet(self.name, seed, self.devices);
        (self.shape)(&mut options);
        options
    }

    /// Runs it.
    pub fn run(&self, options: Options, sink: Option<Sink>) -> Report {
        match World::new(options, Vec::new(), sink) {
            Ok(mut world) => {
                let ended = (self.script)(&mut world);
                world.close_with(ended)
            }
            Err(violation) => Report::of_start(violation),
        }
    }
}
