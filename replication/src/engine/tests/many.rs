//! A member that begins journals without end parts nobody: what is kept differs and is said to, and
//! revoking it brings all together again.

use std::collections::BTreeSet;

use srcos_lanes::ids::{ChangeHash, Incarnation, ObjectKey};
use srcos_lanes::journal::{
    Body, BodyParts, HEADER_VERSION, Header, Item, change_hash, sign_header, write_entry,
};
use srcos_lanes::object::{Content, Object};
use srcos_lanes::store::DEVICE_JOURNALS_MAX;

use super::*;

const MALLORY: usize = 2;
const JOURNALS: u64 = 1_100;

/// The only entry of a journal: one object of its own, which differs by device and incarnation.
fn entry(key: &SigningKey, mesh: MeshId, n: u64) -> (Author, Vec<u8>) {
    let author = Author { device: key.device(), incarnation: Incarnation(n) };
    let id = format!("m{n}-{}", key.device().short());
    let change = Object::create(&Content::of(json!(n)).unwrap(), author.actor(), WallMillis(n));
    let change_hash: ChangeHash = change_hash(&change.bytes).unwrap();
    let body = BodyParts { life: 1, id: &id, change: &change.bytes }.write();
    let header = Header {
        version: HEADER_VERSION,
        mesh,
        lane: LaneId::Normal,
        author,
        seq: 1,
        prev: srcos_lanes::ids::EntryHash::NONE,
        wall: WallMillis(n),
        after: vec![],
        classes: vec!["internal".into()],
        items: vec![Item {
            key: ObjectKey::new(LaneId::Normal, &id, 1),
            change: change_hash,
            body_len: body.len() as u32,
            class: 0,
            confined: false,
        }],
    }
    .to_bytes();
    (author, write_entry(&sign_header(&header, key), &header, &[Body::Here(&body)]))
}

impl World {
    /// Mallory tells a node of these journals, over a connection of its own.
    fn flood(&mut self, node: usize, journals: impl Iterator<Item = u64>) {
        let (key, mesh) =
            (self.nodes[MALLORY].key.clone(), self.nodes[node].engine.roster().mesh());
        self.connect(node, MALLORY);
        self.run();
        let link = self.links.pop().unwrap();
        let (conn, now) = (link.ends[0].1, self.clock());
        for n in journals {
            let (author, entry) = entry(&key, mesh, n);
            let message =
                Message::Run { lane: LaneId::Normal, author, whole: false, entries: vec![&entry] };
            let at = &mut self.nodes[node];
            for frame in crate::wire::frames(message.encode()) {
                at.engine.handle_frame(&mut at.store, now, conn, &frame).unwrap();
            }
        }
        self.settle(node);
        let now = self.clock();
        assert!(self.nodes[node].engine.is_connected(key.device()), "it may be an honest relay");
        self.nodes[node].engine.handle_disconnected(now, conn);
        self.nodes[MALLORY].engine.handle_disconnected(now, link.ends[1].1);
    }

    /// Digests pass, and what follows from them.
    fn pass(&mut self, digests: u64) {
        for _ in 0..digests {
            self.now += DIGEST_EVERY_MS;
            self.timeouts();
            self.run();
        }
    }

    fn refused_codes(&self, node: usize) -> BTreeSet<&'static str> {
        let codes = self.nodes[node].events.iter().filter_map(|event| match event {
            Event::Refused { code, .. } => Some(*code),
            _ => None,
        });
        codes.collect()
    }

    fn closes(&self) -> usize {
        let events = self.nodes[..MALLORY].iter().flat_map(|node| &node.events);
        events.filter(|event| matches!(event, Event::Close { .. })).count()
    }
}

#[test]
fn devices_that_hold_other_journals_of_a_member_say_so_and_go_on_until_it_is_revoked() {
    let mut world = World::mesh(3);
    world.flood(0, 0..JOURNALS);
    world.flood(1, (0..JOURNALS).rev());
    let device = world.device(MALLORY);
    for node in [0, 1] {
        let held = world.nodes[node].store.frontier(LaneId::Normal);
        assert_eq!(held.of_device(device).count(), DEVICE_JOURNALS_MAX);
        assert_eq!(world.refused_codes(node), ["too_many_journals"].into());
        world.nodes[node].events.clear();
    }
    world.connect(0, 1);
    world.run();
    // Each knows that the other has as many as it takes, and tells it of no more.
    assert_eq!(world.closes(), 0);
    assert!(world.refused_codes(0).is_empty() && world.refused_codes(1).is_empty());
    let bytes = world.bytes;
    world.pass(3);
    assert!(world.bytes - bytes < 200_000, "{} bytes in 90 s", world.bytes - bytes);
    for (here, there) in [(0, 1), (1, 0)] {
        assert_eq!(world.state(here, LaneId::Normal, there), LaneState::Diverged);
        let told = world.nodes[here].engine.lane_peers(&world.nodes[here].store, LaneId::Normal);
        let peer = told.iter().find(|peer| peer.device == world.device(there)).unwrap();
        let most = DEVICE_JOURNALS_MAX as u64;
        assert_eq!((peer.missing_here, peer.missing_there), (Some(most), Some(most)));
        let claims = world.nodes[here].events.iter().any(|e| matches!(e, Event::InSync { .. }));
        assert!(!claims);
    }
    world.put(0, "x", json!(1));
    world.put(1, "y", json!(2));
    world.run();
    assert_eq!(world.body(1, LaneId::Normal, "x"), Some(json!(1)));
    assert_eq!(world.body(0, LaneId::Normal, "y"), Some(json!(2)));

    // What any member held is then taken by all.
    let now = world.clock();
    let node = &mut world.nodes[0];
    node.engine.revoke(&mut node.store, now, device, "floods us").unwrap();
    world.run();
    world.pass(2);
    for (here, there) in [(0, 1), (1, 0)] {
        let held = world.nodes[here].store.frontier(LaneId::Normal);
        assert_eq!(held.of_device(device).count(), 2 * DEVICE_JOURNALS_MAX);
        assert_eq!(world.state(here, LaneId::Normal, there), LaneState::InSync);
    }
    assert_eq!(world.closes(), 0);
}

/// A device that was away meets one that is full, and one that is not.
#[test]
fn journal_that_is_refused_is_asked_for_no_more() {
    let mut world = World::mesh(3);
    world.flood(0, 0..DEVICE_JOURNALS_MAX as u64);
    world.flood(1, DEVICE_JOURNALS_MAX as u64 - 1..DEVICE_JOURNALS_MAX as u64 + 9);
    world.nodes[0].events.clear();
    world.connect(0, 1);
    world.run();
    // The second took in all but those for which it has no room, and sent the first none.
    let device = world.device(MALLORY);
    let held = world.nodes[1].store.frontier(LaneId::Normal);
    assert_eq!(held.of_device(device).count(), DEVICE_JOURNALS_MAX);
    assert_eq!(world.closes(), 0);
    let frames = world.frames;
    world.now += RESET_EVERY_MS * 5;
    world.timeouts();
    world.run();
    assert!(world.frames - frames <= 2, "{} frames", world.frames - frames);
    let refused = |world: &World, node: usize| {
        let events = world.nodes[node].events.iter();
        events.filter(|event| matches!(event, Event::Refused { .. })).count()
    };
    assert!(refused(&world, 0) == 0 && refused(&world, 1) <= 9, "{}", refused(&world, 1));
}

/// Stores may hold more journals than a receipt names: it is then shorter, and digests are of all.
#[test]
fn more_journals_than_a_receipt_names_part_nobody() {
    let mut world = World::mesh(2);
    let (now, mesh) = (world.clock(), world.nodes[0].engine.roster().mesh());
    let devices = RECEIPT_AUTHORS_MAX / DEVICE_JOURNALS_MAX + 1;
    for n in 0..devices {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        let key = SigningKey::from_bytes(&seed);
        let node = &mut world.nodes[0];
        let name = format!("m{n}");
        node.engine.admit(&mut node.store, now, key.device(), &name, None).unwrap();
        for n in 0..DEVICE_JOURNALS_MAX as u64 {
            let (author, entry) = entry(&key, mesh, n);
            for node in &mut world.nodes {
                let run = Run { lane: LaneId::Normal, author, entries: vec![&entry] };
                node.store.receive(&run, &[mesh], WallMillis(1)).unwrap();
            }
        }
    }
    for node in [0, 1] {
        world.settle(node);
    }
    world.put(0, "x", json!(1));
    world.put(1, "y", json!(2));
    world.connect(0, 1);
    world.run();
    world.pass(1);
    let held = world.nodes[0].store.frontier(LaneId::Normal);
    assert!(held.0.len() > RECEIPT_AUTHORS_MAX);
    let closed = |node: &Node| node.events.iter().any(|e| matches!(e, Event::Close { .. }));
    assert!(!world.nodes.iter().any(closed), "{:?}", world.nodes[0].events);
    assert_eq!(world.body(1, LaneId::Normal, "x"), Some(json!(1)));
    assert_eq!(world.body(0, LaneId::Normal, "y"), Some(json!(2)));
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
    assert_eq!(world.state(1, LaneId::Normal, 0), LaneState::InSync);
}
