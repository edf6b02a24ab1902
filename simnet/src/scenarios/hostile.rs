//! Stories about a member that breaks the rules: always the last one.

use std::collections::BTreeMap;

use serde_json::json;
use srcos_lanes::lane::LaneId::Normal;

use super::Scenario;
use crate::hostile::Trick;
use crate::invariants::Checked;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "hostile-member",
        "a member plays every trick; the others agree in spite of it",
        4,
        hostile_member,
    )
    .shaped(|options| {
        // Its own journal has one history here; the other trick has a story of its own.
        let others = Trick::ALL.into_iter().filter(|trick| *trick != Trick::Equivocate);
        options.tricks = others.map(|trick| (trick, 5)).collect();
    }),
    Scenario::new(
        "equivocating-member",
        "a member shows two histories; both are kept as evidence by those who see both",
        4,
        equivocating_member,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Equivocate, 1)])),
    Scenario::new(
        "forged-entry",
        "a member goes on with the journal of another, under its own signature: nobody takes it",
        3,
        forged_entry,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Forge, 1)])),
    Scenario::new(
        "withheld-entries",
        "a member leaves out frames: what was left out is asked for again",
        3,
        withheld_entries,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Withhold, 4)])),
    Scenario::new(
        "smuggled-entries",
        "a member hands on what a device wrote after it was put out: nobody takes it",
        4,
        smuggled_entries,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Smuggle, 1)])),
];

fn hostile_member(world: &mut World) -> Checked {
    for round in 0..12 {
        for node in 0..4 {
            world.work(node, 2, round * 4 + node as u64)?;
        }
        world.pass(5_000)?;
    }
    world.come_to_rest()
}

fn equivocating_member(world: &mut World) -> Checked {
    // Only the second device is shown the other history, so it must hear of it before the first one.
    world.part(&[1, 3]);
    world.put(3, Normal, "two-faced", json!({ "to": "everyone" }))?;
    world.put(0, Normal, "honest", json!(1))?;
    // Not so long that a digest shows the member its own other history.
    world.pass(10_000)?;
    world.mend_network();
    world.part(&[1]);
    world.pass(60_000)?;
    world.mend_network();
    world.pass(60_000)?;
    let proofs = (0..3).filter(|node| world.has_proof_against(*node, 3)).count();
    world.claim(proofs > 0, "somebody keeps the proof of two histories")?;
    world.come_to_rest()
}

fn forged_entry(world: &mut World) -> Checked {
    world.part(&[0]);
    world.put(1, Normal, "note", json!(1))?;
    world.pass(5_000)?;
    // Now the first hears of the note from the third only.
    world.mend_network();
    world.part(&[1]);
    world.pass(60_000)?;
    world.claim(world.shows(0, Normal, "note") == Some(json!(1)), "the note is handed on")?;
    world.mend_network();
    world.put(1, Normal, "another", json!(2))?;
    world.pass(60_000)?;
    world.come_to_rest()
}

fn withheld_entries(world: &mut World) -> Checked {
    for number in 0..20 {
        world.put(2, Normal, &format!("page/{number}"), json!(number))?;
        world.pass(1_000)?;
    }
    // Of what is left out last, no later entry tells.
    world.claim(world.shows(0, Normal, "page/10") == Some(json!(10)), "the gap was filled")?;
    world.come_to_rest()
}

fn smuggled_entries(world: &mut World) -> Checked {
    world.put(2, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.part(&[2]);
    world.put_out(0, 2)?;
    world.pass(5_000)?;
    world.put(2, Normal, "after", json!(2))?;
    world.smuggle(2, Normal);
    world.put(3, Normal, "harmless", json!(3))?;
    world.pass(60_000)?;
    world.claim(world.shows(0, Normal, "harmless").is_some(), "the member is heard")?;
    world.claim(world.shows(0, Normal, "after").is_none(), "what was smuggled in is not taken")?;
    world.come_to_rest()
}
