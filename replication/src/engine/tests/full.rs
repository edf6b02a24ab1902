//! A link that takes less than there is to say.

use super::*;

#[test]
fn receipts_for_a_full_link_wait_until_it_takes_more_and_then_say_it_once() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.run();
    let conn = world.links[0].ends[0].1;
    world.nodes[0].engine.handle_blocked(conn, true);
    let mut waits = Vec::new();
    for n in 0..100 {
        world.put(2, &format!("x{n}"), json!(n));
        world.run();
        let now = world.clock();
        let due = world.nodes[0].engine.poll_timeout(now);
        assert!(due.is_none_or(|due| due > now.mono), "it would wake for nothing");
        waits.push(world.nodes[0].engine.sessions[&conn].outbox_bytes());
        world.now += DIGEST_EVERY_MS / 200;
    }
    // Nothing but digests.
    assert!(waits.iter().all(|bytes| *bytes < 1024), "{waits:?}");
    let before = world.bytes;
    world.nodes[0].engine.handle_blocked(conn, false);
    world.step();
    assert!(world.bytes > before, "it goes at once");
    world.run();
    world.assert_equal();
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
    assert_eq!(world.state(1, LaneId::Normal, 0), LaneState::InSync);
}

#[test]
fn a_request_to_send_again_waits_for_a_full_link_too_and_is_not_forgotten() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run();
    let receiver = world.links[0].ends[1].1;
    world.put(0, "a", json!(1));
    let now = world.clock();
    // What it sent is lost on the way, as when the other's store failed and started again.
    world.links[0].queues[1].clear();
    let node = &mut world.nodes[1];
    node.engine.handle_blocked(receiver, true);
    for _ in 0..10 {
        node.engine.send_receipt(&node.store, now, receiver, true, true);
    }
    assert_eq!(node.engine.sessions[&receiver].outbox_bytes(), 0);
    node.engine.handle_blocked(receiver, false);
    world.run();
    assert_eq!(world.body(1, LaneId::Normal, "a"), Some(json!(1)));
}
