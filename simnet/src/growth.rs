//! What a change costs a mesh, by the number of its devices: in virtual time, so for more of them than a
//! machine can run.

use serde_json::json;
use srcos_lanes::lane::LaneId;

use crate::invariants::Violation;
use crate::network::Carried;
use crate::options::Options;
use crate::world::World;

/// Changes of which the mean is taken.
pub const CHANGES: u64 = 10;
/// Time in which all devices find each other, in milliseconds.
const MEET_MS: u64 = 15_000;
/// Time for the last receipts of a change, in milliseconds.
const SETTLE_MS: u64 = 2_000;
/// Longest time for a change to be everywhere, in milliseconds.
const SHOWN_MS_MAX: u64 = 10_000;

/// What one change cost in a mesh of so many devices, as a mean.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cost {
    /// Devices, all connected with all.
    pub devices: usize,
    /// Frames that all links carried for it.
    pub frames: f64,
    /// Bytes of them.
    pub bytes: f64,
    /// Milliseconds of virtual time until all show it; links take 2 to 20 of them.
    pub shown_ms: f64,
}

/// Measures it, in a world in which nothing goes wrong.
pub fn measure(devices: usize, seed: u64) -> Result<Cost, Violation> {
    let mut world = World::new(Options::quiet("growth", seed, devices), Vec::new(), None)?;
    world.pass(MEET_MS)?;
    // The first words on each link are said in full.
    for node in 0..devices {
        world.put(node, LaneId::Normal, &format!("first-{node}"), json!(0))?;
        world.pass(SETTLE_MS)?;
    }
    let (mut carried, mut shown_ms) = (Carried::default(), 0);
    for change in 0..CHANGES {
        let writer = change as usize % devices;
        let body = json!({ "change": change });
        let before = world.carried();
        world.put(writer, LaneId::Normal, "x", body.clone())?;
        let put_at = world.now_ms();
        let shown =
            |world: &World, node| world.shows(node, LaneId::Normal, "x").as_ref() == Some(&body);
        while !(0..devices).all(|node| shown(&world, node)) {
            world
                .claim(world.now_ms() < put_at + SHOWN_MS_MAX, "the change is shown everywhere")?;
            world.pass(1)?;
        }
        shown_ms += world.now_ms() - put_at;
        world.pass(SETTLE_MS)?;
        let after = world.carried();
        carried.frames += after.frames - before.frames;
        carried.bytes += after.bytes - before.bytes;
    }
    let mean = |sum: u64| sum as f64 / CHANGES as f64;
    let (frames, bytes) = (mean(carried.frames), mean(carried.bytes));
    Ok(Cost { devices, frames, bytes, shown_ms: mean(shown_ms) })
}

/// The exponent with which a cost grew between two numbers of devices.
pub fn exponent(few: (usize, f64), many: (usize, f64)) -> f64 {
    (many.1 / few.1).ln() / (many.0 as f64 / few.0 as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_link_carries_a_change_or_a_receipt_once_each_way_and_little_else() {
        let costs = [2, 4, 6].map(|devices| measure(devices, 1).unwrap());
        for cost in costs {
            let others = cost.devices as f64 - 1.0;
            // A run to each other device; from each of these a receipt and credit, and receipts to the rest.
            let most = others + others * (others + 1.0);
            assert!(cost.frames >= others && cost.frames <= 1.2 * most, "{cost:?}, {most}");
            assert!(cost.bytes > 300.0 * others && cost.shown_ms <= 25.0, "{cost:?}");
        }
        assert_eq!(measure(4, 1).unwrap(), costs[1], "a seed gives one answer");
        assert!((exponent((2, 3.0), (4, 12.0)) - 2.0).abs() < 1e-9);
    }
}
