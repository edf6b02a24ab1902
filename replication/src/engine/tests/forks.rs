//! A member that writes two histories of its journal, and how all learn of it from one who saw both.

use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::EntryHash;
use srcos_lanes::journal::{Entry, hash_header, sign_header, write_entry};
use srcos_lanes::store::Run;

use super::*;

/// Which node lies.
const LIAR: usize = 0;

/// The entries of the liar's journal, and another history of it that begins to differ at an entry.
struct Two {
    author: Author,
    one: Vec<Vec<u8>>,
    other: Vec<Vec<u8>>,
    /// The first place at which they differ.
    seq: u64,
}

impl Two {
    /// The liar writes some entries; in the other history all from the given one on are others.
    fn written(world: &mut World, entries: u64, seq: u64) -> Self {
        for n in 0..entries {
            world.put(LIAR, "x", json!({ "n": n }));
        }
        let liar = &world.nodes[LIAR];
        let author = liar.store.author();
        let snapshot = liar.store.reader().snapshot().unwrap();
        let one = snapshot.entries(LaneId::Normal, &author, 1, usize::MAX, 99).unwrap();
        let mut before: Option<EntryHash> = None;
        let other = one.iter().map(|bytes| {
            let entry = Entry::read(bytes).unwrap();
            if entry.header.seq < seq {
                return bytes.clone();
            }
            let mut header = entry.header.clone();
            header.wall = WallMillis(header.wall.0 ^ 1);
            header.prev = before.unwrap_or(header.prev);
            let header = header.to_bytes();
            before = Some(hash_header(&header));
            write_entry(&sign_header(&header, &liar.key), &header, &entry.bodies)
        });
        let other = other.collect();
        Self { author, one, other, seq }
    }

    /// A node takes in a history, whoever brought it.
    fn tell(&self, world: &mut World, node: usize, history: &[Vec<u8>]) {
        let run = Run {
            lane: LaneId::Normal,
            author: self.author,
            entries: history.iter().map(Vec::as_slice).collect(),
        };
        let node = &mut world.nodes[node];
        let meshes = node.engine.roster().allowed_meshes(self.author.device);
        // The second history is refused, and kept as a proof.
        let _ = node.store.receive(&run, &meshes, WallMillis(5));
        node.store.commit().unwrap();
    }

    fn knows(&self, world: &World, node: usize) -> bool {
        let store = &world.nodes[node].store;
        let forked = store.journal(LaneId::Normal, &self.author).is_some_and(|row| row.forked);
        let proof = store.fork(LaneId::Normal, &self.author).unwrap();
        assert_eq!(proof.is_some(), forked);
        assert!(proof.is_none_or(|proof| proof.seq == self.seq));
        forked
    }
}

fn told(world: &World, node: usize) -> usize {
    let events = world.nodes[node].events.iter();
    events.filter(|event| matches!(event, Event::Equivocation { .. })).count()
}

/// That nobody was cut off, and nothing refused but what is sent of the journal by who does not know.
fn no_harm(world: &World, nodes: std::ops::Range<usize>) {
    for node in &world.nodes[nodes] {
        let harm = |event: &&Event| match event {
            Event::Refused { code, .. } => *code != "journal_quarantined",
            event => matches!(event, Event::Close { .. }),
        };
        assert_eq!(node.events.iter().find(harm), None);
    }
}

#[test]
fn one_who_saw_both_histories_tells_all_the_others_and_the_rest_is_in_step() {
    // By which history the first and the others hold, and where the two part.
    for (first, seq) in [(true, 1), (true, 3), (false, 1), (false, 3)] {
        let mut world = World::mesh(4);
        let two = Two::written(&mut world, 5, seq);
        let (mine, theirs) = if first { (&two.one, &two.other) } else { (&two.other, &two.one) };
        two.tell(&mut world, 1, mine);
        two.tell(&mut world, 1, theirs);
        two.tell(&mut world, 2, mine);
        two.tell(&mut world, 3, theirs);
        world.put(1, "honest", json!(1));
        // Nobody meets the liar any more, and those who hold different histories do not meet.
        world.connect(1, 2);
        world.connect(1, 3);
        world.run();
        for node in 1..4 {
            assert!(two.knows(&world, node), "n{node}, {first}, {seq}");
            assert_eq!(world.body(node, LaneId::Normal, "honest"), Some(json!(1)));
        }
        assert_eq!((told(&world, 2), told(&world, 3)), (1, 1));
        no_harm(&world, 1..4);
        assert_eq!(world.state(1, LaneId::Normal, 2), LaneState::InSync);
        assert_eq!(world.state(3, LaneId::Normal, 1), LaneState::InSync);
    }
}

#[test]
fn the_proof_goes_at_once_to_those_who_are_connected() {
    let mut world = World::mesh(4);
    let two = Two::written(&mut world, 3, 2);
    for node in 1..4 {
        two.tell(&mut world, node, &two.one);
    }
    world.connect(1, 2);
    world.connect(2, 3);
    world.run();
    let before = world.now;
    let now = world.clock();
    let run = Run {
        lane: LaneId::Normal,
        author: two.author,
        entries: two.other.iter().map(Vec::as_slice).collect(),
    };
    let node = &mut world.nodes[1];
    let meshes = node.engine.roster().allowed_meshes(two.author.device);
    node.store.receive(&run, &meshes, now.wall).unwrap_err();
    // Nothing but the frames that follow from it: no digest, no timer.
    while world.step() {}
    assert_eq!(world.now, before);
    assert!((1..4).all(|node| two.knows(&world, node)));
    no_harm(&world, 1..4);
}

#[test]
fn who_has_not_come_to_where_the_histories_part_is_told_when_it_does() {
    let mut world = World::mesh(3);
    let two = Two::written(&mut world, 4, 3);
    two.tell(&mut world, 1, &two.one);
    two.tell(&mut world, 1, &two.other);
    two.tell(&mut world, 2, &two.other[..2]);
    world.connect(1, 2);
    world.run();
    assert!(two.knows(&world, 2));
    no_harm(&world, 1..3);
}

#[test]
fn a_device_that_comes_later_gets_the_journal_the_proof_and_what_builds_on_it() {
    // Where the two part, and whether anybody built on the journal.
    for (seq, builds) in [(1, false), (1, true), (4, false), (4, true)] {
        let mut world = World::mesh(4);
        let two = Two::written(&mut world, 5, seq);
        two.tell(&mut world, 1, &two.one);
        if builds {
            world.put(1, "x", json!({ "n": 0, "more": 1 }));
        }
        two.tell(&mut world, 1, &two.other);
        world.connect(1, 2);
        world.run();
        world.cut_all();
        // It passes on what it has.
        world.connect(2, 3);
        world.run();
        let shown = world.body(1, LaneId::Normal, "x");
        assert!(shown.is_some());
        for node in 1..4 {
            assert!(two.knows(&world, node), "n{node}, {seq}, {builds}");
            let row = *world.nodes[node].store.journal(LaneId::Normal, &two.author).unwrap();
            assert!(row.held >= seq, "n{node}, {seq}, {builds}");
            assert!(!builds || world.nodes[node].store.journals(LaneId::Normal).count() == 2);
            let stuck = world.nodes[node].store.journals(LaneId::Normal);
            let stuck = stuck.filter(|(_, row)| row.applied < row.held && !row.forked);
            assert_eq!(stuck.count(), 0, "n{node}, {seq}, {builds}");
        }
        assert_eq!(world.state(2, LaneId::Normal, 3), LaneState::InSync);
        assert_eq!(world.state(3, LaneId::Normal, 2), LaneState::InSync);
        no_harm(&world, 1..4);
    }
}

/// What the manual says to do of a device that signed two histories: the mark is what the one held who
/// revoked it, and the proof lies beyond it.
#[test]
fn a_device_that_comes_after_the_revocation_is_shown_the_proof_too() {
    for seq in [1, 3, 5] {
        let mut world = World::mesh(3);
        // Admissions that nobody heard of would end with who made them.
        world.connect(1, 2);
        world.run();
        world.cut_all();
        let two = Two::written(&mut world, 5, seq);
        two.tell(&mut world, 1, &two.one);
        two.tell(&mut world, 1, &two.other);
        let (liar, now) = (world.device(LIAR), world.clock());
        let node = &mut world.nodes[1];
        node.engine.revoke(&mut node.store, now, liar, "two of them").unwrap();
        node.store.commit().unwrap();
        world.connect(1, 2);
        world.run();
        assert!(two.knows(&world, 2), "{seq}");
        assert_eq!(world.state(1, LaneId::Normal, 2), LaneState::InSync);
        assert_eq!(world.state(2, LaneId::Normal, 1), LaneState::InSync);
        let refused = |event: &&Event| matches!(event, Event::Refused { .. });
        assert_eq!(world.nodes[2].events.iter().find(refused), None);
    }
}

#[test]
fn those_who_know_send_each_other_nothing_of_the_journal() {
    let mut world = World::mesh(3);
    let two = Two::written(&mut world, 5, 3);
    for node in 1..3 {
        two.tell(&mut world, node, &two.one);
        two.tell(&mut world, node, &two.other);
    }
    world.put(1, "honest", json!(1));
    world.connect(1, 2);
    world.run();
    assert_eq!(world.body(2, LaneId::Normal, "honest"), Some(json!(1)));
    let refused = |event: &&Event| matches!(event, Event::Refused { .. });
    assert!(world.nodes.iter().all(|node| !node.events.iter().any(|event| refused(&event))));
    assert_eq!((told(&world, 1), told(&world, 2)), (0, 0));
}

#[test]
fn a_fork_that_comes_between_a_receipt_and_a_run_ends_no_connection() {
    let mut world = World::mesh(3);
    let two = Two::written(&mut world, 10, 3);
    two.tell(&mut world, 1, &two.one[..5]);
    world.put(1, "honest", json!(1));
    world.connect(1, 2);
    // Until the second has heard how far the first holds the journal, and has none of it yet.
    let (first, second) = (world.device(1), 2);
    let heard = |world: &World| {
        let peer = &world.nodes[second].engine.peers[&first];
        let view = peer.lanes.get(&LaneId::Normal);
        view.is_some_and(|view| view.held.seq(&two.author) == 5)
    };
    while !heard(&world) {
        assert!(world.step());
    }
    assert!(world.nodes[second].store.journal(LaneId::Normal, &two.author).is_none());
    let now = world.clock();
    let run = Run {
        lane: LaneId::Normal,
        author: two.author,
        entries: two.other.iter().map(Vec::as_slice).collect(),
    };
    let node = &mut world.nodes[second];
    let meshes = node.engine.roster().allowed_meshes(two.author.device);
    node.store.receive(&run, &meshes, now.wall).unwrap();
    world.run();
    no_harm(&world, 1..3);
    assert!(two.knows(&world, 1) && two.knows(&world, 2));
    assert_eq!(world.body(2, LaneId::Normal, "honest"), Some(json!(1)));
    assert_eq!(world.state(1, LaneId::Normal, 2), LaneState::InSync);
}

#[test]
fn journals_that_a_peer_holds_too_little_of_do_not_stand_before_those_it_can_be_shown() {
    let mut world = World::mesh(3);
    let all: Vec<Two> = (0..FORKS_SHOWN_MAX as u32 + 2)
        .map(|n| {
            world.nodes[LIAR].store.begin_incarnation(n).unwrap();
            Two::written(&mut world, 4, 3)
        })
        .collect();
    for two in &all {
        two.tell(&mut world, 1, &two.one);
        two.tell(&mut world, 1, &two.other);
    }
    let mut ends = all.iter().collect::<Vec<_>>();
    ends.sort_by_key(|two| two.author);
    for (at, two) in ends.iter().enumerate() {
        let held = if at < FORKS_SHOWN_MAX { 1 } else { 4 };
        two.tell(&mut world, 2, &two.one[..held]);
    }
    world.connect(1, 2);
    while world.step() {}
    for two in &ends[FORKS_SHOWN_MAX..] {
        assert!(two.knows(&world, 2));
    }
    world.run();
    world.now += DIGEST_EVERY_MS;
    world.timeouts();
    world.run();
    assert!(all.iter().all(|two| two.knows(&world, 2)));
    no_harm(&world, 1..3);
    assert_eq!(world.state(1, LaneId::Normal, 2), LaneState::InSync);
}

#[test]
fn a_proof_that_rotted_hinders_no_commit_and_no_other_proof() {
    let mut world = World::mesh(4);
    let lost = Two::written(&mut world, 3, 2);
    world.nodes[LIAR].store.begin_incarnation(1).unwrap();
    let kept = Two::written(&mut world, 3, 2);
    for two in [&lost, &kept] {
        two.tell(&mut world, 1, &two.one);
        two.tell(&mut world, 2, &two.one);
    }
    lost.tell(&mut world, 1, &lost.other);
    world.damage(1, srcos_lanes::tables::EVIDENCE, |_| true);
    world.connect(1, 2);
    world.run();
    let run = Run {
        lane: LaneId::Normal,
        author: kept.author,
        entries: kept.other.iter().map(Vec::as_slice).collect(),
    };
    let now = world.clock();
    let node = &mut world.nodes[1];
    let meshes = node.engine.roster().allowed_meshes(kept.author.device);
    node.store.receive(&run, &meshes, now.wall).unwrap_err();
    world.run();
    assert!(kept.knows(&world, 1) && kept.knows(&world, 2));
    // It still says that there are two, and to whom holds nothing of it, it gives what it has.
    world.connect(1, 3);
    world.run();
    assert_eq!(world.nodes[3].store.journal(LaneId::Normal, &lost.author).unwrap().held, 3);
    assert_eq!(world.state(1, LaneId::Normal, 2), LaneState::Diverged);
    no_harm(&world, 1..4);
}

#[test]
fn the_author_that_is_a_copy_of_itself_learns_it_and_begins_anew() {
    let mut world = World::mesh(2);
    let two = Two::written(&mut world, 3, 2);
    two.tell(&mut world, 1, &two.one);
    two.tell(&mut world, 1, &two.other);
    world.connect(LIAR, 1);
    world.run();
    assert!(two.knows(&world, LIAR));
    assert_ne!(world.nodes[LIAR].store.author(), two.author);
    world.put(LIAR, "new", json!(1));
    world.run();
    assert_eq!(world.body(1, LaneId::Normal, "new"), Some(json!(1)));
}

#[test]
fn a_peer_that_names_the_journal_again_and_again_is_shown_each_history_once() {
    // An entry that nobody knows, and the one that it holds by its own word.
    for unknown in [true, false] {
        let mut world = World::mesh(3);
        let two = Two::written(&mut world, 3, 2);
        two.tell(&mut world, 1, &two.one);
        two.tell(&mut world, 1, &two.other);
        two.tell(&mut world, 2, &two.one);
        world.connect(1, 2);
        world.run();
        assert!(two.knows(&world, 2));
        let hash = match unknown {
            true => EntryHash([9; 32]),
            false => Entry::read(&two.one[1]).unwrap().hash,
        };
        // It goes on as if it had learned nothing.
        let spent = two.name_again(&mut world, Tip { seq: 2 + u64::from(unknown), hash });
        assert!(spent[1..].iter().all(|credit| *credit == spent[1]), "{spent:?}");
        let (at, conn) = world.links[0].ends[0];
        assert_eq!(world.nodes[at].engine.sessions[&conn].forks_shown.len(), 2);
    }
}

#[test]
fn a_peer_that_names_the_journal_before_the_place_where_the_two_part_has_no_proof_looked_for() {
    let mut world = World::mesh(3);
    let two = Two::written(&mut world, 3, 2);
    two.tell(&mut world, 1, &two.one);
    two.tell(&mut world, 1, &two.other);
    world.connect(1, 2);
    world.run();
    let (at, conn) = world.links[0].ends[0];
    let node = &mut world.nodes[at];
    let peer = node.engine.sessions[&conn].device;
    let hash = Entry::read(&two.one[0]).unwrap().hash;
    for (tip, found) in [
        (Tip::TWO_HISTORIES, 0),
        (Tip { seq: 1, hash }, 0),
        (Tip { seq: 3, hash: EntryHash([9; 32]) }, 1),
    ] {
        let held = Frontier([(two.author, tip)].into());
        let peer = node.engine.peers.get_mut(&peer).unwrap();
        peer.hear(LaneId::Normal, &held, &[], WallMillis(1));
        node.engine.sessions.get_mut(&conn).unwrap().forks_shown.clear();
        assert_eq!(node.engine.forked(&node.store, conn, LaneId::Normal).len(), found, "{tip:?}");
    }
}

impl Two {
    /// The second node names the journal to the first, ten times. The credit that the first has left.
    fn name_again(&self, world: &mut World, tip: Tip) -> Vec<i64> {
        let (at, conn) = world.links[0].ends[0];
        let held = Frontier([(self.author, tip)].into());
        let lane = crate::wire::LaneReceipt {
            lane: LaneId::Normal.code(),
            held,
            ..crate::wire::LaneReceipt::default()
        };
        let mesh = world.nodes[at].engine.roster().mesh();
        let key = &world.nodes[2].key;
        let receipt = crate::wire::Receipt::new(mesh, WallMillis(1), vec![lane], false, key);
        let mut spent = Vec::new();
        for _ in 0..10 {
            for frame in crate::wire::frames(Message::Receipt(receipt.clone()).encode()) {
                let now = world.clock();
                let node = &mut world.nodes[at];
                node.engine.handle_frame(&mut node.store, now, conn, &frame).unwrap();
            }
            world.settle(at);
            spent.push(world.nodes[at].engine.sessions[&conn].credit);
        }
        spent
    }
}
