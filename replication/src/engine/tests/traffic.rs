//! What a change costs on the wire: each device gets it once, and says once that it has it.

use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{EntryHash, Incarnation};

use super::*;
use crate::wire::{LaneReceipt, Receipt};

/// Messages that went over the links, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    runs: usize,
    receipts: usize,
    /// Journals that receipts named.
    named: usize,
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
                Message::Receipt(receipt) => {
                    self.receipts += 1;
                    self.named += receipt.lanes.iter().map(|lane| lane.held.0.len()).sum::<usize>();
                }
                _ => {}
            }
        }
        world.step()
    }
}

/// Delivers and passes time until nothing is left to do, and counts what goes over the links.
fn count(world: &mut World) -> Count {
    let mut count = Count::default();
    world.run_by(|world| count.step(world));
    count
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
            assert_eq!(count.named, count.receipts, "and names the one journal that changed");
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
    assert_eq!(count(&mut world), Count { runs: 2, receipts: 1, named: 1 });
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

/// Delivers the next frame from one node to another, without anything else.
fn deliver_one(world: &mut World, from: usize, to: usize) -> bool {
    world.settle(from);
    let now = world.clock();
    for link in &mut world.links {
        for end in 0..2 {
            if (link.ends[1 - end].0, link.ends[end].0) == (from, to)
                && let Some(frame) = link.queues[end].pop_front()
            {
                let node = &mut world.nodes[to];
                node.engine.handle_frame(&mut node.store, now, link.ends[end].1, &frame).unwrap();
                world.settle(to);
                return true;
            }
        }
    }
    false
}

fn confirmed_at(world: &World, node: usize, peer: usize) -> Option<WallMillis> {
    let peers = world.nodes[node].engine.lane_peers(&world.nodes[node].store, LaneId::Normal);
    let device = world.device(peer);
    peers.iter().find(|peer| peer.device == device).unwrap().confirmed_at
}

#[test]
fn first_part_of_much_that_was_written_does_not_look_like_all_of_it() {
    let mut world = World::mesh(2);
    connect_all(&mut world);
    let before = confirmed_at(&world, 1, 0);
    for n in 0..100 {
        let put = PutContent { body: json!("x".repeat(300)), ..PutContent::default() };
        let op = Op { id: format!("o{n}"), action: Action::Put(put), if_heads: None };
        let now = world.clock();
        let at = &mut world.nodes[0];
        at.engine.write(&mut at.store, now, LaneId::Normal, &[op]).unwrap();
    }
    world.now += 1;
    let held = |world: &World, node: usize| {
        world.nodes[node].store.frontier(LaneId::Normal).seq(&world.nodes[0].store.author())
    };
    let (had, all) = (held(&world, 1), held(&world, 0));
    while held(&world, 1) == had {
        assert!(deliver_one(&mut world, 0, 1));
    }
    assert!(held(&world, 1) < all, "a run has a part of it");
    assert_eq!(world.state(1, LaneId::Normal, 0), LaneState::Behind);
    assert_eq!(confirmed_at(&world, 1, 0), before);
    world.run();
    assert_all_in_sync(&world);
}

#[test]
fn run_of_a_peer_that_has_just_taken_in_something_else_does_not_look_like_all() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.run();
    for node in 0..3 {
        world.put(node, &format!("first-{node}"), json!(0));
        world.run();
    }
    // The third's change waits at the first to be relayed, which writes one of its own.
    world.put(2, "z", json!(1));
    while world.body(0, LaneId::Normal, "z").is_none() {
        assert!(deliver_one(&mut world, 2, 0));
    }
    world.now += RELAY_AT_ONCE_MS;
    world.put(0, "x", json!(1));
    while world.body(1, LaneId::Normal, "x").is_none() {
        assert!(deliver_one(&mut world, 0, 1));
    }
    if world.body(1, LaneId::Normal, "z").is_none() {
        assert_eq!(world.state(1, LaneId::Normal, 0), LaneState::Behind);
    }
    world.run();
    assert_equal_and_in_sync(&world, &[(0, 1), (0, 2)]);
}

fn assert_equal_and_in_sync(world: &World, links: &[(usize, usize)]) {
    world.assert_equal();
    for (a, b) in links {
        assert_eq!(world.state(*a, LaneId::Normal, *b), LaneState::InSync);
        assert_eq!(world.state(*b, LaneId::Normal, *a), LaneState::InSync);
    }
}

#[test]
fn who_gets_an_entry_from_elsewhere_is_no_longer_relayed_to_at_once() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(1, 2);
    world.run();
    for n in 0..2 {
        world.put(0, "x", json!({ "n": n }));
        world.run();
    }
    let relays = |world: &World| {
        let sessions = world.nodes[1].engine.sessions.values();
        sessions.map(|session| session.only_here.len()).sum::<usize>()
    };
    assert_eq!(relays(&world), 1);
    world.connect(0, 2);
    world.run();
    // The author is as quick as the relay; once it is quicker, the relay waits again.
    world.put(0, "x", json!({ "n": 2 }));
    while world.body(2, LaneId::Normal, "x") != Some(json!({ "n": 2 })) {
        assert!(deliver_one(&mut world, 0, 2));
    }
    world.now += RECEIPT_DELAY_MS;
    world.timeouts();
    while deliver_one(&mut world, 2, 1) {}
    world.run();
    assert_eq!(relays(&world), 0);
    world.put(0, "x", json!({ "n": 3 }));
    world.run();
    assert_eq!(relays(&world), 0);
    assert_equal_and_in_sync(&world, &[(0, 1), (1, 2), (0, 2)]);
}

#[test]
fn compressed_run_before_the_hello_ends_the_connection_unread() {
    let mut world = World::mesh(1);
    let stranger = world.add_node(9);
    world.connect(0, stranger);
    let key = SigningKey::from_bytes(&[9; 32]);
    let author = Author { device: key.device(), incarnation: Incarnation(1) };
    let entry = vec![7; 5_000_000];
    let run = Message::Run { lane: LaneId::Normal, author, whole: true, entries: vec![&entry] };
    let frames = crate::wire::frames(run.encode());
    assert!(frames.len() == 1 && frames[0].len() < 25_000);
    let now = world.clock();
    let conn = world.links[0].ends[0].1;
    let node = &mut world.nodes[0];
    node.engine.handle_frame(&mut node.store, now, conn, &frames[0]).unwrap();
    world.settle(0);
    let closed = |event: &Event| {
        matches!(event, Event::Close { reason: AbortReason::Protocol, detail, .. }
            if detail.contains("before both said hello"))
    };
    assert!(world.nodes[0].events.iter().any(closed));
}

/// A member names journals that nobody wrote, in runs that are refused each by itself.
#[test]
fn refused_runs_of_ever_other_journals_take_no_memory() {
    let mut world = World::mesh(2);
    connect_all(&mut world);
    let entry = {
        let node = &world.nodes[1];
        node.store.entries(LaneId::Normal, &node.store.author(), 1, 100_000, 1).unwrap().remove(0)
    };
    let conn = world.links[0].ends.iter().find(|end| end.0 == 0).unwrap().1;
    let device = world.device(1);
    let now = world.clock();
    for n in 0..RECEIPT_AUTHORS_MAX + 500 {
        let mut stranger = [0; 32];
        stranger[..8].copy_from_slice(&n.to_be_bytes());
        let author = Author { device: DeviceId(stranger), incarnation: Incarnation(n as u64) };
        let run = Message::Run { lane: LaneId::Normal, author, whole: true, entries: vec![&entry] };
        for frame in crate::wire::frames(run.encode()) {
            let node = &mut world.nodes[0];
            node.engine.handle_frame(&mut node.store, now, conn, &frame).unwrap();
        }
        while world.nodes[0].engine.poll_event().is_some() {}
    }
    let view = &world.nodes[0].engine.peers[&device].lanes[&LaneId::Normal];
    assert_eq!(view.held.0.len(), RECEIPT_AUTHORS_MAX);
    assert_ne!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
}

#[test]
fn devices_in_step_say_nothing_but_digests() {
    let mut world = World::mesh(2);
    connect_all(&mut world);
    world.cut_all();
    world.run();
    world.connect(0, 1);
    assert_eq!(count(&mut world), Count::default(), "equal digests say it all");
    for _ in 0..3 {
        let before = world.bytes;
        world.now += DIGEST_EVERY_MS;
        world.timeouts();
        assert_eq!(count(&mut world), Count::default());
        assert_eq!(world.bytes - before, 2 * 34, "a digest each");
    }
    assert_all_in_sync(&world);
}

#[test]
fn entries_lost_twice_within_a_second_are_asked_for_with_the_next_digest() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run();
    world.put(0, "a", json!(1));
    lose(&mut world, 1);
    world.put(0, "b", json!(2));
    // It does not follow: asked for again, and what is sent again is lost too.
    for _ in 0..20 {
        world.step();
        world.settle(0);
        if !world.links[0].queues[1].is_empty() {
            break;
        }
    }
    lose(&mut world, 1);
    world.put(0, "c", json!(3));
    world.run();
    assert_eq!(world.body(1, LaneId::Normal, "c"), None, "too soon to ask again");
    world.now += DIGEST_EVERY_MS;
    world.timeouts();
    world.run();
    for (id, number) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(world.body(1, LaneId::Normal, id), Some(json!(number)));
    }
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
}

/// Loses what is on its way to one end of the link between two devices. No link does: a program at its end may.
fn lose(world: &mut World, end: usize) {
    let lost = std::mem::take(&mut world.links[0].queues[end]);
    assert!(!lost.is_empty());
}

/// Bytes that do not pack.
fn noise(bytes: usize) -> String {
    (0..bytes as u64 / 32)
        .map(|n| blake3::hash(&n.to_le_bytes()).to_hex()[..32].to_owned())
        .collect()
}

/// Lets the time pass in which each sends a digest.
fn pass_a_digest(world: &mut World) {
    world.now += DIGEST_EVERY_MS;
    world.timeouts();
    world.run();
}

#[test]
fn run_larger_than_the_window_that_is_lost_is_asked_for_when_two_digests_differ() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run();
    world.put(0, "small", json!(0));
    world.run();
    world.put(0, "large", json!(noise(512 * 1024)));
    lose(&mut world, 1);
    // Its sender waits for credit.
    world.put(0, "after", json!(2));
    world.run();
    for _ in 0..2 {
        assert_eq!(world.body(1, LaneId::Normal, "after"), None, "the window is full");
        pass_a_digest(&mut world);
    }
    assert!(world.body(1, LaneId::Normal, "large").is_some());
    assert_eq!(world.body(1, LaneId::Normal, "after"), Some(json!(2)));
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
}

#[test]
fn last_run_that_is_lost_is_asked_for_when_two_digests_differ() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run();
    world.put(0, "a", json!(1));
    lose(&mut world, 1);
    for _ in 0..2 {
        assert_eq!(world.body(1, LaneId::Normal, "a"), None);
        pass_a_digest(&mut world);
    }
    assert_eq!(world.body(1, LaneId::Normal, "a"), Some(json!(1)));
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
}

#[test]
fn what_is_lost_each_time_is_asked_for_ever_more_seldom() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run();
    world.put(0, "a", json!(1));
    lose(&mut world, 1);
    let mut asked = Vec::new();
    for digest in 1..=40 {
        world.now += DIGEST_EVERY_MS;
        world.timeouts();
        world.run_by(|world| {
            for index in 0..2 {
                world.settle(index);
            }
            world.links[0].queues[1].retain(|frame| {
                let message = crate::wire::Assembler::default().push(frame).unwrap().unwrap();
                let is_run = matches!(Message::decode(&message), Ok(Message::Run { .. }));
                asked.extend(is_run.then_some(digest));
                !is_run
            });
            world.step()
        });
    }
    assert_eq!(asked, [2, 4, 8, 16, 32]);
    assert_eq!(world.state(1, LaneId::Normal, 0), LaneState::Behind);
}

#[test]
fn what_was_refused_is_not_asked_for_by_digests() {
    let mut world = World::mesh(2);
    connect_all(&mut world);
    let store = &world.nodes[1].store;
    let entry = store.entries(LaneId::Normal, &store.author(), 1, 100_000, 1).unwrap().remove(0);
    let author = |device| Author { device, incarnation: Incarnation(7) };
    let (stranger, member) = (author(DeviceId([9; 32])), author(world.device(1)));
    let refused =
        Message::Run { lane: LaneId::Normal, author: stranger, whole: true, entries: vec![&entry] };
    let said = LaneReceipt {
        lane: LaneId::Normal.code(),
        held: Frontier([(member, Tip { seq: 1, hash: EntryHash([1; 32]) })].into()),
        unapplied: vec![],
        part: true,
    };
    let mesh = world.nodes[1].engine.roster().mesh();
    let said = Receipt::new(mesh, world.clock().wall, vec![said], false, &world.nodes[1].key);
    let digest = |n| Message::Digest([n; 32]);
    // What is refused, of which nothing more is awaited, and what is only said.
    let mut asked = Vec::new();
    for message in std::iter::once(refused)
        .chain((1..=4).map(digest))
        .chain([Message::Receipt(said)])
        .chain((5..=8).map(digest))
    {
        world.now += DIGEST_EVERY_MS;
        let (conn, now) = (world.links[0].ends[1].1, world.clock());
        let node = &mut world.nodes[0];
        for frame in crate::wire::frames(message.encode()) {
            node.engine.handle_frame(&mut node.store, now, conn, &frame).unwrap();
        }
        while let Some((_, frame)) = node.engine.poll_transmit(&node.store).unwrap() {
            let bytes = crate::wire::Assembler::default().push(&frame).unwrap().unwrap();
            let asks = matches!(Message::decode(&bytes), Ok(Message::Receipt(r)) if r.reset);
            asked.extend(asks.then(|| message.encode()));
        }
    }
    assert_eq!(asked, [digest(8).encode()]);
}
