//! Named scenarios: each a short story that ends in agreement, with a claim of its own.

mod canaries;
mod disks;
mod hostile;
mod mesh;
mod network;

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
    /// How it must end: a canary breaks something on purpose, so that the alarm is tested.
    pub exit_code: u8,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Scenario {
    /// A scenario of a quiet world that must pass.
    const fn new(
        name: &'static str,
        purpose: &'static str,
        devices: usize,
        script: fn(&mut World) -> Checked,
    ) -> Self {
        Self { name, purpose, devices, shape: |_| {}, script, exit_code: 0 }
    }

    const fn shaped(mut self, shape: fn(&mut Options)) -> Self {
        self.shape = shape;
        self
    }

    const fn ends_with(mut self, exit_code: u8) -> Self {
        self.exit_code = exit_code;
        self
    }

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

/// Every scenario.
pub fn all() -> impl Iterator<Item = Scenario> {
    [network::ALL, hostile::ALL, disks::ALL, mesh::ALL, canaries::ALL]
        .into_iter()
        .flatten()
        .copied()
}

/// The scenario of a name.
pub fn find(name: &str) -> Option<Scenario> {
    all().find(|scenario| scenario.name == name)
}
