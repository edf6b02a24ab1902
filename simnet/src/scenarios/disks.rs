//! Stories about crashes, disks and backups.

use serde_json::json;
use srcos_lanes::lane::LaneId::Normal;

use super::Scenario;
use crate::invariants::Checked;
use crate::scheduler::Stream;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "crash-in-first-sync",
        "both devices lose power in the middle of their first exchange",
        2,
        crash_in_first_sync,
    ),
    Scenario::new(
        "backup-restored",
        "an old store is put back: a new incarnation starts, and the lost writes come back",
        2,
        backup_restored,
    ),
    Scenario::new(
        "backup-restored-alone",
        "an old store is put back, and writes before it meets anybody: its journal has one history",
        2,
        backup_restored_alone,
    ),
    Scenario::new(
        "machine-restored",
        "store and count of opens are put back together: peers notice, or two histories are found",
        3,
        machine_restored,
    ),
    Scenario::new(
        "cloned-device",
        "a copied device writes beside its original; the two histories are found",
        3,
        cloned_device,
    ),
    Scenario::new(
        "disk-full",
        "writes fail while the disk is full, and nothing acknowledged is lost",
        2,
        disk_full,
    ),
    Scenario::new(
        "bit-rot-in-a-body",
        "a flipped bit in a body is reported, never shown or sent",
        2,
        |world| bit_rot(world, Part::Body),
    ),
    Scenario::new(
        "bit-rot-in-a-header",
        "a flipped bit in an entry's header is reported",
        2,
        |world| bit_rot(world, Part::Header),
    ),
    Scenario::new(
        "bit-rot-in-an-object-row",
        "a flipped bit in an object's row is reported, never shown",
        2,
        |world| bit_rot(world, Part::Row),
    ),
    Scenario::new(
        "lost-with-both-disks",
        "two disks are lost one after the other, the second before the first has all back: nobody says in step",
        2,
        lost_with_both_disks,
    )
    .shaped(|options| options.links.bytes_per_ms = 20),
    Scenario::new(
        "record-without-its-pages",
        "power fails in a commit: the disk has its record and lacks its pages",
        2,
        record_without_its_pages,
    ),
    Scenario::new(
        "sync-loses",
        "a sync fails and loses what it was for, which is read back all the same; power fails after that",
        2,
        sync_loses,
    ),
    Scenario::new(
        "restart-in-every-state",
        "a device restarts after each of its commits, cleanly and not",
        2,
        restart_in_every_state,
    ),
];

fn crash_in_first_sync(world: &mut World) -> Checked {
    world.part(&[0]);
    for node in 0..2 {
        world.work(node, 15, node as u64)?;
        world.put(node, Normal, &format!("by/{node}"), json!(node))?;
    }
    world.mend_network();
    world.cut_power_soon(0, 7);
    world.cut_power_soon(1, 9);
    let starts = [0, 1].map(|node| world.starts(node));
    world.pass(60_000)?;
    let failed = (0..2).all(|node| world.starts(node) > starts[node]);
    world.claim(failed, "power failed on both")?;
    world.come_to_rest()?;
    world.claim(world.shows(0, Normal, "by/1") == Some(json!(1)), "each has what the other wrote")
}

fn record_without_its_pages(world: &mut World) -> Checked {
    world.put(0, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.part(&[0]);
    // The record is in the first page.
    let kept: [fn(u64) -> bool; 4] = [
        |page| page == 0,
        |page| page == 0,
        |page| page.is_multiple_of(2),
        |page| page == 0 || !page.is_multiple_of(2),
    ];
    let mut known = None;
    for (round, kept) in kept.into_iter().enumerate() {
        let before = format!("before/{round}");
        world.put(0, Normal, &before, json!(1))?;
        world.fail_sync(0, 0);
        world.put(0, Normal, "during", json!(round))?;
        world.claim(!world.runs(0), "a node whose sync fails stops")?;
        world.cut_power_keeping(0, kept);
        world.pass(60_000)?;
        world.claim(world.runs(0), "it starts again")?;
        let there = world.shows(0, Normal, &before) == Some(json!(1));
        world.claim(there, "the commit before it counts")?;
        let shown = world.shows(0, Normal, "during");
        let counts = shown == Some(json!(round));
        world.claim(counts || shown == known, "it counts, or it does not")?;
        world.claim(round > 1 || !counts, "a record whose pages are lost counts for nothing")?;
        known = shown;
    }
    world.mend_network();
    world.put(0, Normal, "after", json!(1))?;
    world.come_to_rest()
}

fn sync_loses(world: &mut World) -> Checked {
    world.put(0, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.part(&[0]);
    world.fail_sync(0, u64::MAX);
    world.put(0, Normal, "during", json!(1))?;
    world.claim(!world.runs(0), "a node whose sync fails stops")?;
    world.claim(world.has_lost(0), "what is read back is not on the disk")?;
    world.pass(60_000)?;
    let read_back = world.shows(0, Normal, "during").is_some();
    world.claim(read_back, "it is read back all the same")?;
    world.cut_power_keeping(0, |_| false);
    world.pass(60_000)?;
    world.claim(world.shows(0, Normal, "during").is_some(), "it was written again")?;
    world.mend_network();
    world.come_to_rest()
}

fn backup_restored(world: &mut World) -> Checked {
    world.put(0, Normal, "old", json!(1))?;
    world.pass(2_000)?;
    world.take_backup(0);
    world.take_away(0)?;
    world.bring_back(0)?;
    world.put(0, Normal, "new", json!(2))?;
    world.pass(5_000)?;
    world.restore(0, false);
    world.pass(60_000)?;
    world.put(0, Normal, "newer", json!(3))?;
    world.come_to_rest()?;
    world.claim(world.incarnations(1, 0, Normal) == 2, "it writes as a new incarnation")?;
    world.claim(world.shows(0, Normal, "new") == Some(json!(2)), "what the peer had came back")
}

fn backup_restored_alone(world: &mut World) -> Checked {
    world.put(0, Normal, "old", json!(1))?;
    world.pass(2_000)?;
    world.take_backup(0);
    world.take_away(0)?;
    world.bring_back(0)?;
    world.put(0, Normal, "new", json!(2))?;
    world.pass(5_000)?;
    world.part(&[0]);
    world.restore(0, false);
    world.pass(60_000)?;
    world.put(0, Normal, "newer", json!(3))?;
    world.mend_network();
    world.pass(60_000)?;
    world.come_to_rest()?;
    world.claim(world.shows(0, Normal, "new") == Some(json!(2)), "what the peer had came back")?;
    world.claim(world.shows(1, Normal, "newer") == Some(json!(3)), "what came later is taken")
}

fn machine_restored(world: &mut World) -> Checked {
    world.put(0, Normal, "old", json!(1))?;
    world.pass(2_000)?;
    world.take_backup(0);
    world.put(0, Normal, "new", json!(2))?;
    world.pass(5_000)?;
    world.part(&[0]);
    world.restore(0, true);
    world.pass(60_000)?;
    // Nothing on the device can tell that this place in its journal is taken.
    world.put(0, Normal, "other", json!(3))?;
    world.mend_network();
    world.pass(60_000)?;
    let found = (0..3).any(|node| world.has_proof_against(node, 0));
    world.claim(found, "the two histories are found and kept as evidence")?;
    world.come_to_rest()
}

fn cloned_device(world: &mut World) -> Checked {
    world.put(0, Normal, "before", json!(1))?;
    world.pass(2_000)?;
    world.duplicate(0, 40_000);
    world.pass(100)?;
    let copy = 3;
    world.part(&[0, 1]);
    world.put(0, Normal, "original", json!(1))?;
    world.put(copy, Normal, "copy", json!(2))?;
    world.pass(20_000)?;
    world.mend_network();
    world.pass(90_000)?;
    let found = (0..3).any(|node| world.has_proof_against(node, 0));
    world.claim(found, "the two histories are found and kept as evidence")?;
    world.come_to_rest()
}

fn disk_full(world: &mut World) -> Checked {
    world.put(0, Normal, "before", json!(1))?;
    world.fill_disk(0, true);
    world.put(0, Normal, "during", json!(1))?;
    world.claim(!world.runs(0), "a node whose writes fail stops")?;
    world.pass(120_000)?;
    world.fill_disk(0, false);
    world.pass(60_000)?;
    world.claim(world.runs(0), "with room it starts again")?;
    world.claim(world.shows(0, Normal, "before").is_some(), "what was acknowledged is there")?;
    world.put(0, Normal, "after", json!(1))?;
    world.come_to_rest()
}

/// Where a bit flips.
enum Part {
    Body,
    Header,
    Row,
}

fn bit_rot(world: &mut World, part: Part) -> Checked {
    world.put(0, Normal, "treasured", json!({ "text": "what-rots-in-the-row" }))?;
    world.put(1, Normal, "other", json!(1))?;
    world.pass(10_000)?;
    let entry = world.newest_entry(0, Normal).unwrap_or_default();
    // 64 bytes of signature and 4 of length come before the header; the body is last.
    let bytes = match part {
        Part::Header => entry.get(100..132).unwrap_or_default().to_vec(),
        Part::Body => entry.get(entry.len().saturating_sub(24)..).unwrap_or_default().to_vec(),
        Part::Row => br#"{"text":"what-rots-in-the-row"}"#.to_vec(),
    };
    world.rot(0, &bytes)?;
    world.pass(120_000)?;
    world.come_to_rest()?;
    let place = match part {
        Part::Header | Part::Body => "entry",
        Part::Row => "objects",
    };
    let told = world.reported_damage(0).unwrap_or("nothing");
    world.claim(told.contains(place), &format!("the damage in {place} is reported: {told}"))?;
    world.claim(world.reported_damage(1).is_none(), "who is whole reports none")?;
    let shown = world.shows(0, Normal, "treasured");
    let expected = json!({ "text": "what-rots-in-the-row" });
    world.claim(shown == Some(expected), "the mesh gave back what was lost")
}

fn lost_with_both_disks(world: &mut World) -> Checked {
    let mut stream = Stream::new(1, "bulk", 0);
    world.put(1, Normal, "base", json!({ "n": 1 }))?;
    for n in 0..40 {
        world.put(1, Normal, &format!("bulk/{n}"), json!(stream.text(8_000)))?;
    }
    world.pass(60_000)?;
    world.put(0, Normal, "base", json!({ "n": 2 }))?;
    world.pass(5_000)?;
    world.lose(1);
    world.pass(60_000)?;
    world.take_in(0, 1)?;
    // Each device sends first what it wrote itself.
    let mut waited_ms = 0;
    while world.incarnations(1, 0, Normal) == 0 && waited_ms < 120_000 {
        world.pass(20)?;
        waited_ms += 20;
    }
    let halfway = world.incarnations(1, 0, Normal) == 1 && world.incarnations(1, 1, Normal) == 0;
    world.claim(halfway, "what the first had written is still on its way")?;
    world.lose(0);
    world.pass(60_000)?;
    world.take_in(1, 0)?;
    world.pass(60_000)?;
    world.come_to_rest()?;
    world.claim(world.shows(1, Normal, "base").is_none(), "it builds on what is nowhere")?;
    let in_step = world.says_in_step(0, 1, Normal) || world.says_in_step(1, 0, Normal);
    world.claim(!in_step, "nobody says that all is well")
}

fn restart_in_every_state(world: &mut World) -> Checked {
    for round in 0..12 {
        world.work(0, 1, round)?;
        world.work(1, 1, 100 + round)?;
        if round % 2 == 0 {
            world.take_away(0)?;
            world.bring_back(0)?;
        } else {
            world.cut_power_soon(0, round * 3);
        }
        world.pass(30_000)?;
    }
    world.come_to_rest()
}
