//! What a change costs on the wire: each device gets it once, and says once that it has it.

use super::*;
use crate::session::RELAY_AT_ONCE_MS;

/// Messages that went over the links, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    runs: usize,
    receipts: usize,
}

impl Count {
    /// Delivers one frame each way on each link, and counts them. Says if there was one.
    fn step(&mut self, world: &mut World) -> bool {
        for index in 0..world.nodes.len() {
            world.settle(index);
        }
        let next = world.links.iter().flat_map(|link| &link.queues).filter_map(VecDeque::front);
        for frame in next {
            let message = crate::wire::Assembler::default().push(frame).unwrap().unwrap();
            match Message::decode(&message).unwrap() {
                Message::Run { .. } => self.runs += 1,
                Message::Receipt(_) => self.receipts += 1,
                _ => {}
            }
        }
        world.step()
    }
}

/// Delivers and passes time until nothing is left to do, and counts what goes over the links.
fn count(world: &mut World) -> Count {
    let mut count = Count::default();
    loop {
        if count.step(world) {
            continue;
        }
        let now = world.clock();
        let due = world.nodes.iter().filter_map(|node| node.engine.poll_timeout(now)).min();
        match due {
            Some(due) if due.0 < world.now + HANDSHAKE_MS => {
                world.now = world.now.max(due.0);
                world.timeouts();
            }
            _ => return count,
        }
    }
}

fn assert_all_in_sync(world: &World) {
    world.assert_equal();
    for here in 0..world.nodes.len() {
        for there in (0..world.nodes.len()).filter(|there| *there != here) {
            assert_eq!(world.state(here, LaneId::Normal, there), LaneState::InSync);
        }
    }
}

fn connect_all(world: &mut World) {
    for a in 0..world.nodes.len() {
        for b in 0..a {
            world.connect(a, b);
        }
    }
    world.run();
    // Digests that are equal tell nobody that the other knows it too: the first words are said in full.
    for node in 0..world.nodes.len() {
        world.put(node, &format!("first-{node}"), json!(0));
        world.run();
    }
}

#[test]
fn change_crosses_each_link_of_its_author_once_and_no_other() {
    for devices in [2, 4, 8] {
        let mut world = World::mesh(devices);
        connect_all(&mut world);
        let others = usize::from(devices) - 1;
        for n in 0..5 {
            world.put(usize::from(n % devices), "x", json!({ "n": n }));
            let count = count(&mut world);
            assert_eq!(count.runs, others, "{devices} devices");
            assert_eq!(count.receipts, others * others, "each who got it tells all: {devices}");
            assert_all_in_sync(&world);
        }
    }
}

#[test]
fn author_knows_and_is_known_to_be_in_step_without_a_receipt_of_its_own() {
    let mut world = World::mesh(2);
    connect_all(&mut world);
    world.put(0, "x", json!(1));
    world.put(0, "y", json!(2));
    assert_eq!(count(&mut world), Count { runs: 2, receipts: 1 });
    assert_all_in_sync(&world);
    let peers = world.nodes[1].engine.lane_peers(&world.nodes[1].store, LaneId::Normal);
    assert!(peers[0].confirmed_at.is_some_and(|at| at.0 + 1_000 > world.now));
}

#[test]
fn chain_relays_late_once_and_then_at_once() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(1, 2);
    world.run();
    let mut took = Vec::new();
    for n in 0..3 {
        world.put(0, "x", json!({ "n": n }));
        let put_at = world.now;
        while world.body(2, LaneId::Normal, "x") != Some(json!({ "n": n })) {
            if !world.step() {
                world.now += 1;
                world.timeouts();
            }
        }
        took.push(world.now - put_at);
        world.run();
        world.assert_equal();
    }
    assert!((RECEIPT_DELAY_MS..=3 * RECEIPT_DELAY_MS).contains(&took[0]), "{took:?} ms");
    assert!(took[1..].iter().all(|took| *took <= 1), "{took:?} ms");
    // Where it was not needed for long, it is seen to be needed anew.
    world.now += RELAY_AT_ONCE_MS;
    world.timeouts();
    world.put(0, "y", json!(1));
    assert_eq!(count(&mut world).runs, 2);
    world.assert_equal();
}

#[test]
fn relay_does_not_wait_for_who_asks_to_send_again_or_comes_back() {
    let mut world = World::mesh(3);
    world.put(0, "x", json!(1));
    world.connect(0, 1);
    world.run();
    let before = world.now;
    world.connect(1, 2);
    while world.step() {}
    assert_eq!(world.body(2, LaneId::Normal, "x"), Some(json!(1)));
    assert_eq!(world.now, before, "what was held before the link is not waited with");
}

#[test]
fn entries_that_a_peer_gets_from_their_author_in_a_stream_are_never_relayed() {
    let mut world = World::mesh(3);
    connect_all(&mut world);
    let mut counted = Count::default();
    for n in 0..60 {
        world.put(0, &format!("o{n}"), json!(n));
        // The author's links deliver, time passes, and nobody comes to rest.
        for _ in 0..10 {
            counted.step(&mut world);
        }
        world.now += RECEIPT_DELAY_MS / 2;
        world.timeouts();
    }
    let rest = count(&mut world);
    world.assert_equal();
    assert_eq!(counted.runs + rest.runs, 2 * 60);
}
