//! Worlds that are broken on purpose, so that the alarm is tested.

use serde_json::json;
use srcos_lanes::lane::LaneId::Normal;

use super::Scenario;
use crate::invariants::Checked;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    Scenario::new("canary-mute", "must end with 3: one node's frames vanish for ever", 3, mute)
        .ends_with(3),
    Scenario::new(
        "canary-lying-disk",
        "must end with 4: a disk only pretends to sync, and nobody is told",
        2,
        lying_disk,
    )
    .ends_with(4),
];

fn mute(world: &mut World) -> Checked {
    world.mute(1);
    world.put(1, Normal, "unheard", json!(1))?;
    world.come_to_rest()
}

fn lying_disk(world: &mut World) -> Checked {
    world.pass(1_000)?;
    world.lie_silently(0);
    for round in 0..20 {
        world.put(0, Normal, &format!("note/{round}"), json!(round))?;
        world.pass(500)?;
        world.cut_power_soon(0, 3);
        world.work(0, 2, round)?;
        world.pass(30_000)?;
    }
    world.come_to_rest()
}
