//! What a device may still have and say whose admission turns out to be void, and what many records at
//! once, or a large roster, cost and hinder.

use srcos_lanes::tables::RowState;

use super::*;
use crate::roster::{JournalMark, judged};

/// Who founds the mesh, a device that is stolen, one that is away, and the accomplice of the thief.
const DESKTOP: usize = 0;
const STOLEN: usize = 1;
const LAPTOP: usize = 2;
const ACCOMPLICE: usize = 3;

/// The stolen device admits an accomplice. The desktop, which has not heard of that, revokes the stolen
/// device; the laptop has not heard of this.
fn stolen() -> World {
    let mut world = World::mesh(3);
    world.connect(DESKTOP, STOLEN);
    world.connect(DESKTOP, LAPTOP);
    world.run();
    world.cut_all();
    world.add_node(9);
    world.admit(STOLEN, ACCOMPLICE);
    let (gone, now) = (world.device(STOLEN), world.clock());
    let node = &mut world.nodes[DESKTOP];
    node.engine.revoke(&mut node.store, now, gone, "stolen").unwrap();
    world.settle(DESKTOP);
    world
}

fn closed_with(world: &World, node: usize, other: usize) -> Option<AbortReason> {
    let other = world.device(other);
    world.nodes[node].events.iter().find_map(|event| match event {
        Event::Close { device, reason, by_peer: false, .. } if *device == other => Some(*reason),
        _ => None,
    })
}

#[test]
fn device_whose_admission_becomes_void_is_sent_nothing_more() {
    let mut world = stolen();
    world.connect(ACCOMPLICE, LAPTOP);
    world.run();
    let (accomplice, conn) = (world.device(ACCOMPLICE), world.links[0].ends[1].1);
    assert!(world.nodes[LAPTOP].engine.is_connected(accomplice));
    // What waits for its link when the laptop hears of the revocation was meant for a member.
    world.nodes[LAPTOP].engine.handle_blocked(conn, true);
    world.put(LAPTOP, "queued", json!("secret"));
    world.now += RECEIPT_DELAY_MS;
    world.timeouts();
    world.connect(DESKTOP, LAPTOP);
    world.run();
    assert!(!world.nodes[LAPTOP].engine.roster().is_member(accomplice));
    assert_eq!(closed_with(&world, LAPTOP, ACCOMPLICE), Some(AbortReason::NotAMember));
    assert!(!world.nodes[LAPTOP].engine.is_connected(accomplice));
    world.put(LAPTOP, "later", json!("secret"));
    world.run();
    for id in ["queued", "later"] {
        assert_eq!(world.body(DESKTOP, LaneId::Normal, id), Some(json!("secret")));
        assert_eq!(world.body(ACCOMPLICE, LaneId::Normal, id), None, "{id}");
    }
    let roster = world.nodes[ACCOMPLICE].engine.roster();
    assert!(roster.is_member(world.device(STOLEN)), "it learns nothing of what came later");
}

#[test]
fn device_whose_admission_becomes_void_before_it_said_hello_is_not_served() {
    let mut world = stolen();
    world.connect(ACCOMPLICE, LAPTOP);
    world.run();
    world.cut_all();
    world.put(LAPTOP, "x", json!("secret"));
    // The laptop knows it by now, and says hello. Before the answer comes it hears of the revocation.
    world.connect(ACCOMPLICE, LAPTOP);
    let conn = world.links[0].ends[1].1;
    let node = &mut world.nodes[ACCOMPLICE];
    let (_, hello) = node.engine.poll_transmit(&node.store).unwrap().unwrap();
    world.links.clear();
    world.connect(DESKTOP, LAPTOP);
    while world.step() {}
    let now = world.clock();
    let node = &mut world.nodes[LAPTOP];
    node.engine.handle_frame(&mut node.store, now, conn, &hello).unwrap();
    world.settle(LAPTOP);
    assert!(!world.nodes[LAPTOP].engine.is_connected(world.device(ACCOMPLICE)));
    assert_eq!(closed_with(&world, LAPTOP, ACCOMPLICE), Some(AbortReason::NotAMember));
}

#[test]
fn records_of_one_message_are_judged_once() {
    let mut world = World::mesh(3);
    world.connect(1, 2);
    world.run();
    let (of, now) = (world.device(2), world.clock());
    for n in 0..60 {
        let node = &mut world.nodes[0];
        node.engine.rename(&mut node.store, now, of, &format!("name {n}")).unwrap();
        node.engine.roster().members();
    }
    world.connect(0, 1);
    let before = judged();
    world.run();
    assert_eq!(judged() - before, 2, "one on each device that did not have them");
    for node in 0..3 {
        assert_eq!(world.nodes[node].engine.roster().members()[&of].name, "name 59");
    }
}

#[test]
fn who_holds_what_several_revoked_devices_wrote_testifies_to_all_of_it_at_once() {
    let mut world = World::mesh(4);
    for gone in [2, 3] {
        world.put(gone, &format!("of-{gone}"), json!(gone));
        world.connect(1, gone);
    }
    world.run();
    world.cut_all();
    let now = world.clock();
    for gone in [2, 3] {
        let device = world.device(gone);
        let node = &mut world.nodes[0];
        node.engine.revoke(&mut node.store, now, device, "lost").unwrap();
    }
    world.connect(0, 1);
    world.run();
    for gone in [2, 3] {
        assert_eq!(world.body(0, LaneId::Normal, &format!("of-{gone}")), Some(json!(gone)));
    }
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
    assert_eq!(world.state(1, LaneId::Normal, 0), LaneState::InSync);
}

/// Writes records of a revoked device until a roster has so many bytes.
fn fatten(world: &mut World, node: usize, bytes: usize) {
    let now = world.clock();
    let at = &mut world.nodes[node];
    let gone = SigningKey::from_bytes(&[77; 32]).device();
    if !at.engine.roster().revoked().contains_key(&gone) {
        at.engine.admit(&mut at.store, now, gone, "gone", None).unwrap();
        at.engine.revoke(&mut at.store, now, gone, "lost").unwrap();
    }
    let mut seq = bytes as u64;
    let size = |engine: &Engine| -> usize {
        engine.roster().records_in_order().map(|record| record.0.len()).sum()
    };
    while size(&at.engine) < bytes {
        let marks = (0..MARKS_MAX as u64).map(|n| JournalMark {
            lane: LaneId::Normal,
            incarnation: srcos_lanes::ids::Incarnation(seq + n),
            seq: 1,
            hash: srcos_lanes::ids::EntryHash([7; 32]),
        });
        let roster = at.engine.roster();
        let of = roster.revoked()[&gone].revocation;
        let record = roster.witness(of, marks.collect(), now.wall, &at.key).unwrap();
        at.engine.add_own_record(&mut at.store, now, &record.0).unwrap();
        seq += MARKS_MAX as u64;
    }
    world.settle(node);
}

#[test]
fn new_member_proves_itself_however_large_the_roster_is() {
    // What is in it came before the new member, or after; who is asked has the former.
    for (before, after) in [(600_000, 0), (0, 600_000), (600_000, 1_200_000)] {
        let mut world = World::mesh(2);
        fatten(&mut world, 0, before);
        world.connect(0, 1);
        world.run();
        world.cut_all();
        let new = world.add_node(9);
        world.admit(0, new);
        if after > 0 {
            fatten(&mut world, 0, after);
            world.connect(0, new);
            world.run();
            world.cut_all();
        }
        world.put(1, "x", json!(1));
        world.connect(new, 1);
        world.run();
        assert_eq!(closed_with(&world, 1, new), None, "{before} and {after}");
        assert_eq!(world.body(new, LaneId::Normal, "x"), Some(json!(1)));
        let digest = |node: usize| world.nodes[node].engine.roster().digest();
        assert_eq!(digest(1), digest(0), "the rest of the roster followed");
    }
}

/// The laptop takes in what the accomplice wrote, builds on it, and writes of its own; then it hears that
/// it was no member.
fn built_on(links_before: bool) -> World {
    let mut world = stolen();
    world.put(ACCOMPLICE, "theirs", json!({ "n": 1 }));
    world.put(ACCOMPLICE, "theirs", json!({ "n": 2 }));
    world.connect(ACCOMPLICE, LAPTOP);
    world.run();
    world.put(LAPTOP, "theirs", json!({ "n": 2, "laptop": true }));
    world.put(LAPTOP, "own", json!(1));
    world.run();
    world.cut_all();
    if links_before {
        // The desktop learns of the laptop's entries before it hears of what they build on.
        let author = world.nodes[LAPTOP].store.author();
        let snapshot = world.nodes[LAPTOP].store.reader().snapshot().unwrap();
        let entries = snapshot.entries(LaneId::Normal, &author, 1, usize::MAX, 99).unwrap();
        let node = &mut world.nodes[DESKTOP];
        let meshes = node.engine.roster().allowed_meshes(author.device);
        let entries = entries.iter().map(Vec::as_slice).collect();
        let run = Run { lane: LaneId::Normal, author, entries };
        node.store.receive(&run, &meshes, WallMillis(1)).unwrap();
        world.settle(DESKTOP);
        assert_eq!(world.body(DESKTOP, LaneId::Normal, "own"), None, "it waits");
    }
    world.connect(DESKTOP, LAPTOP);
    world.run();
    world
}

#[test]
fn nobody_waits_for_what_a_device_wrote_whose_admission_is_void() {
    for links_before in [false, true] {
        let mut world = built_on(links_before);
        assert_eq!(world.body(DESKTOP, LaneId::Normal, "own"), Some(json!(1)));
        let snapshot = world.nodes[DESKTOP].store.reader().snapshot().unwrap();
        let object = snapshot.object(LaneId::Normal, "theirs", WallMillis(world.now)).unwrap();
        let Visibility::Shown(object) = object else { panic!("what builds on it is told of") };
        assert!(matches!(object.row.state, RowState::Quarantined(_)), "{:?}", object.row.state);
        assert_eq!(object.row.changes, 0, "nothing of theirs is taken in");
        let refused = |world: &World| {
            let events = world.nodes.iter().flat_map(|node| &node.events);
            events.filter(|event| matches!(event, Event::Refused { .. })).count()
        };
        let (frames, before) = (world.frames, refused(&world));
        for _ in 0..3 {
            world.now += DIGEST_EVERY_MS;
            world.timeouts();
            world.run();
        }
        // Both tell the same of what both take: digests, and nothing else.
        assert_eq!(world.frames - frames, 6);
        assert_eq!(refused(&world), before);
        for (here, there) in [(DESKTOP, LAPTOP), (LAPTOP, DESKTOP)] {
            assert_eq!(world.state(here, LaneId::Normal, there), LaneState::InSync);
        }
        // And so it is after a restart.
        world.cut_all();
        for node in [DESKTOP, LAPTOP] {
            let at = &mut world.nodes[node];
            let config = EngineConfig {
                signer: Box::new(at.key.clone()),
                policy: ReplicationPolicy::default(),
                seed: [70; 32],
            };
            at.engine = Engine::new(config, &mut at.store).unwrap();
        }
        world.connect(DESKTOP, LAPTOP);
        world.run();
        assert_eq!(world.state(DESKTOP, LaneId::Normal, LAPTOP), LaneState::InSync);
        assert_eq!(refused(&world), before);
    }
}

#[test]
fn device_whose_admission_was_void_and_that_is_admitted_again_converges_with_all() {
    // Who meets whom first: the new admission reaches a device that holds its entries, or one that does
    // not.
    for first in [DESKTOP, LAPTOP] {
        let mut world = built_on(first == LAPTOP);
        world.put(ACCOMPLICE, "later", json!(3));
        let (back, now) = (world.device(ACCOMPLICE), world.clock());
        let node = &mut world.nodes[DESKTOP];
        node.engine.admit(&mut node.store, now, back, "honest", None).unwrap();
        let records: Vec<Vec<u8>> =
            node.engine.roster().records_in_order().map(|record| record.0.clone()).collect();
        world.run();
        let node = &mut world.nodes[ACCOMPLICE];
        node.engine.join(&mut node.store, now, &records).unwrap();
        world.settle(ACCOMPLICE);
        // What the laptop kept goes to the desktop at once.
        let theirs = json!({ "n": 2, "laptop": true });
        assert_eq!(world.body(DESKTOP, LaneId::Normal, "theirs"), Some(theirs.clone()));
        world.connect(ACCOMPLICE, first);
        world.run();
        for node in [DESKTOP, LAPTOP, ACCOMPLICE] {
            let held = world.nodes[node].store.frontier(LaneId::Normal);
            assert_eq!(held, world.nodes[LAPTOP].store.frontier(LaneId::Normal), "n{node}");
            assert_eq!(world.body(node, LaneId::Normal, "theirs"), Some(theirs.clone()));
            assert_eq!(world.body(node, LaneId::Normal, "later"), Some(json!(3)));
        }
        assert_eq!(world.state(DESKTOP, LaneId::Normal, LAPTOP), LaneState::InSync);
    }
}
