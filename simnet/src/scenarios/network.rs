//! Stories about links and partitions.

use serde_json::json;
use srcos_lanes::lane::LaneId::{Archive, Normal, Priority};

use super::Scenario;
use crate::faults::Fault;
use crate::invariants::Checked;
use crate::scheduler::Stream;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "edit-through-a-partition",
        "laptop and desktop edit the same note apart; both edits are kept",
        2,
        edit_through_a_partition,
    ),
    Scenario::new(
        "three-way-split",
        "three devices fall apart and meet again in another order",
        3,
        three_way_split,
    ),
    Scenario::new(
        "frozen-when-it-arrived",
        "a process is frozen when something arrives, and its link clogged when it thaws: it reads that all the same",
        2,
        frozen_when_it_arrived,
    ),
    Scenario::new(
        "silent-for-long",
        "a link says nothing for minutes without breaking: nobody goes on calling the other in step",
        2,
        silent_for_long,
    )
    .shaped(|options| options.dead_link_ms = 600_000),
    Scenario::new(
        "asymmetric-cut",
        "one direction is dead for long; nobody claims to be in step, and nothing is lost",
        2,
        asymmetric_cut,
    ),
    Scenario::new(
        "flapping-link",
        "a link breaks thirty times during a transfer, which ends all the same",
        2,
        flapping_link,
    ),
    Scenario::new(
        "priority-overtakes-bulk",
        "an urgent change arrives before a bulk transfer that began earlier has ended",
        2,
        priority_overtakes_bulk,
    )
    .shaped(|options| {
        options.links.bytes_per_ms = 100;
        options.links.in_flight_bytes_max = 16_384;
    }),
    Scenario::new(
        "both-dial-at-once",
        "both ends dial each other at the same moment, again and again",
        3,
        both_dial_at_once,
    ),
];

fn edit_through_a_partition(world: &mut World) -> Checked {
    world.put(0, Normal, "note", json!({ "title": "plan", "text": "first" }))?;
    world.pass(5_000)?;
    world.claim(world.says_in_step(0, 1, Normal), "they are in step at the start")?;
    world.part(&[0]);
    world.pass(10_000)?;
    world.claim(!world.says_in_step(0, 1, Normal), "who is cut off is not in step")?;
    world.put(0, Normal, "note", json!({ "title": "plan", "text": "first", "laptop": 1 }))?;
    world.put(1, Normal, "note", json!({ "title": "plan", "text": "first", "desktop": 1 }))?;
    world.pass(3_600_000)?;
    world.mend_network();
    world.come_to_rest()?;
    let both = json!({ "title": "plan", "text": "first", "laptop": 1, "desktop": 1 });
    world.claim(world.shows(0, Normal, "note") == Some(both), "both edits are kept")
}

fn three_way_split(world: &mut World) -> Checked {
    world.pass(2_000)?;
    world.part(&[0]);
    world.part(&[1]);
    for node in 0..3 {
        world.put(node, Normal, &format!("by/{node}"), json!(node))?;
        world.put(node, Normal, "shared", json!({ format!("{node}"): node }))?;
        world.work(node, 8, node as u64)?;
    }
    world.pass(60_000)?;
    // Another pair meets first than would have without the split.
    world.mend_network();
    world.part(&[0]);
    world.pass(60_000)?;
    world.claim(world.shows(1, Normal, "by/2") == Some(json!(2)), "the first two have met")?;
    world.claim(world.shows(0, Normal, "by/2").is_none(), "the third has met nobody")?;
    world.mend_network();
    world.come_to_rest()?;
    let all = json!({ "0": 0, "1": 1, "2": 2 });
    world.claim(world.shows(1, Normal, "shared") == Some(all), "the edits of all three are kept")
}

fn frozen_when_it_arrived(world: &mut World) -> Checked {
    world.put(0, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.freeze_for(0, 10_000);
    world.put(1, Normal, "arrived", json!(1))?;
    world.pass(5_000)?;
    world.claim(world.shows(0, Normal, "arrived").is_none(), "who is frozen reads nothing")?;
    world.clog_for(0, 20_000);
    world.pass(8_000)?;
    let read = world.shows(0, Normal, "arrived") == Some(json!(1));
    world.claim(read, "what had arrived is read, whatever became of the link")?;
    world.come_to_rest()
}

fn silent_for_long(world: &mut World) -> Checked {
    world.put(0, Normal, "before", json!(1))?;
    world.pass(60_000)?;
    world.claim(world.says_in_step(1, 0, Normal), "who speaks is in step")?;
    world.clog_for(0, 240_000);
    world.pass(130_000)?;
    world.claim(!world.says_in_step(1, 0, Normal), "who has not spoken for long is not")?;
    world.pass(150_000)?;
    world.claim(world.says_in_step(1, 0, Normal), "who speaks again is again")?;
    world.come_to_rest()
}

fn asymmetric_cut(world: &mut World) -> Checked {
    world.put(0, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.part_one_way(&[0]);
    world.put(0, Normal, "unheard", json!(1))?;
    world.put(1, Normal, "heard", json!(1))?;
    world.pass(2_000)?;
    world.claim(world.shows(0, Normal, "heard").is_some(), "the live direction still works")?;
    world.claim(world.shows(1, Normal, "unheard").is_none(), "the dead one does not")?;
    world.pass(90_000)?;
    world.claim(!world.says_in_step(1, 0, Normal), "a dead direction is noticed within 90 s")?;
    world.mend_network();
    world.come_to_rest()?;
    world.claim(world.shows(1, Normal, "unheard").is_some(), "nothing was lost")
}

fn flapping_link(world: &mut World) -> Checked {
    for number in 0..60 {
        let text = Stream::new(number, "page", 0).text(20_000);
        world.put(0, Archive, &format!("page/{number}"), json!({ "n": number, "text": text }))?;
    }
    for number in 0..30 {
        world.hit(Fault::Cut, number)?;
        world.pass(700)?;
    }
    world.come_to_rest()?;
    world.claim(world.shows(1, Archive, "page/59").is_some(), "the transfer has ended")
}

fn priority_overtakes_bulk(world: &mut World) -> Checked {
    for number in 0..100 {
        let text = Stream::new(number, "page", 0).text(12_000);
        let body = json!({ "n": number, "text": text });
        world.put(0, Archive, &format!("page/{number}"), body)?;
    }
    world.pass(1_000)?;
    world.put(0, Priority, "alarm", json!("now"))?;
    let mut waited_ms = 0;
    while world.shows(1, Priority, "alarm").is_none() && waited_ms < 120_000 {
        world.pass(100)?;
        waited_ms += 100;
    }
    let bulk_left = world.shows(1, Archive, "page/99").is_none();
    world.claim(bulk_left, "the alarm arrives while the bulk is still on its way")?;
    world.come_to_rest()
}

fn both_dial_at_once(world: &mut World) -> Checked {
    for round in 0..20 {
        world.hit(Fault::DoubleDial, round)?;
        world.work((round % 3) as usize, 1, round)?;
        world.pass(200)?;
    }
    world.come_to_rest()
}
