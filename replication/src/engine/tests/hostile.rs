//! A member that breaks the protocol: what it sends by hand harms nobody but its own connection.

use proptest::prelude::*;
use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{EntryHash, Incarnation};
use srcos_lanes::journal::{Body, Entry, Header, hash_header, sign_header, write_entry};

use super::*;
use crate::wire::{LaneReceipt, Receipt, frames};

/// Who is attacked, by whom, and who looks on.
const VICTIM: usize = 0;
const MALLORY: usize = 1;
const FRIEND: usize = 2;

/// A mesh in which the friend and mallory are connected to the victim, and mallory wrote three
/// entries that the victim has not seen. Mallory's engine is not asked any more: the test speaks.
struct Attack {
    world: World,
    author: Author,
    /// Mallory's entries, of which the victim holds the first one.
    entries: Vec<Vec<u8>>,
    conn: ConnId,
}

impl Attack {
    fn new() -> Self {
        let mut world = World::mesh(3);
        world.put(VICTIM, "own", json!("of the victim"));
        world.put(MALLORY, "x", json!({ "n": 0 }));
        world.connect(VICTIM, MALLORY);
        world.connect(VICTIM, FRIEND);
        world.run();
        let conn = world.links[0].ends[0].1;
        // The link to mallory carries nothing from here on but what the test puts in.
        world.links.remove(0);
        for n in 1..=3 {
            world.put(MALLORY, "x", json!({ "n": n }));
        }
        let author = world.nodes[MALLORY].store.author();
        let snapshot = world.nodes[MALLORY].store.reader().snapshot().unwrap();
        let entries = snapshot.entries(LaneId::Normal, &author, 1, usize::MAX, 99).unwrap();
        assert_eq!(entries.len(), 4);
        for node in &mut world.nodes {
            node.events.clear();
        }
        Self { world, author, entries, conn }
    }

    fn frame(&mut self, frame: &[u8]) {
        let now = self.world.clock();
        let victim = &mut self.world.nodes[VICTIM];
        victim.engine.handle_frame(&mut victim.store, now, self.conn, frame).unwrap();
        self.world.settle(VICTIM);
    }

    fn say(&mut self, message: &Message<'_>) {
        frames(message.encode()).iter().for_each(|frame| self.frame(frame));
    }

    fn send_run(&mut self, lane: LaneId, author: Author, entries: &[Vec<u8>]) {
        let entries = entries.iter().map(Vec::as_slice).collect();
        self.say(&Message::Run { lane, author, whole: false, entries });
    }

    /// Mallory's receipt for the normal lane.
    fn receipt(&self, held: Frontier, signer: usize) -> Message<'static> {
        self.receipt_of(LaneReceipt { held, ..LaneReceipt::default() }, false, signer)
    }

    /// Mallory's receipt with these words on the normal lane.
    fn receipt_of(&self, said: LaneReceipt, reset: bool, signer: usize) -> Message<'static> {
        let lanes = vec![LaneReceipt { lane: LaneId::Normal.code(), ..said }];
        let mesh = self.world.nodes[VICTIM].engine.roster().mesh();
        let key = &self.world.nodes[signer].key;
        Message::Receipt(Receipt::new(mesh, WallMillis(1), lanes, reset, key))
    }

    fn closed_with(&self) -> Option<AbortReason> {
        self.world.nodes[VICTIM].events.iter().find_map(|event| match event {
            Event::Close { conn, reason, by_peer: false, .. } if *conn == self.conn => {
                Some(*reason)
            }
            _ => None,
        })
    }

    fn refused_with(&self) -> Option<&'static str> {
        self.world.nodes[VICTIM].events.iter().find_map(|event| match event {
            Event::Refused { code, .. } => Some(*code),
            _ => None,
        })
    }

    fn held(&self) -> u64 {
        self.world.nodes[VICTIM].store.frontier(LaneId::Normal).seq(&self.author)
    }

    /// Nothing of it was kept, the friend noticed nothing, and an honest mallory is heard again.
    fn did_no_harm(mut self) {
        assert_eq!(self.held(), 1, "something of a refused run was kept");
        assert_eq!(self.world.body(VICTIM, LaneId::Normal, "x"), Some(json!({ "n": 0 })));
        assert!(self.world.nodes[VICTIM].engine.is_connected(self.world.device(FRIEND)));
        self.world.put(VICTIM, "after", json!(1));
        self.world.run();
        assert_eq!(self.world.body(FRIEND, LaneId::Normal, "after"), Some(json!(1)));
        let now = self.world.clock();
        self.world.nodes[VICTIM].engine.handle_disconnected(now, self.conn);
        self.world.connect(VICTIM, MALLORY);
        self.world.run();
        assert_eq!(self.world.body(VICTIM, LaneId::Normal, "x"), Some(json!({ "n": 3 })));
        self.world.assert_equal();
        let snapshot = self.world.nodes[VICTIM].store.reader().snapshot().unwrap();
        let facts = snapshot.verify_lane(LaneId::Normal).unwrap();
        assert!(facts.journals.iter().all(|journal| journal.damage.is_none()));
    }
}

/// An entry with another header, signed by whoever writes it.
fn forge(bytes: &[u8], signer: &SigningKey, change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let entry = Entry::read(bytes).unwrap();
    let mut header = entry.header.clone();
    change(&mut header);
    let header = header.to_bytes();
    write_entry(&sign_header(&header, signer), &header, &entry.bodies)
}

#[test]
fn malformed_messages_end_the_connection() {
    let good = Message::Digest([7; 32]).encode();
    let mut cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("an empty frame", vec![vec![]]),
        ("no known kind of frame", vec![vec![9, 1, 2]]),
        ("no known kind of message", vec![vec![0, 200]]),
        ("a truncated message", vec![[&[0], &good[..20]].concat()]),
        ("bytes after the end", vec![[&[0], &good[..], &[1]].concat()]),
        ("an oversized frame", vec![vec![0; crate::wire::FRAME_BYTES_MAX + 2]]),
        ("a last part without a first", vec![vec![2, 1, 2, 3], vec![2, 1, 2, 3]]),
        ("a hello in the middle", vec![[&[0], &Message::ProofNeeded.encode()[..]].concat()]),
    ];
    let part = vec![1; crate::wire::FRAME_BYTES_MAX];
    cases.push(("parts without end", vec![part; 8]));
    for (what, frames) in cases {
        let mut attack = Attack::new();
        frames.iter().for_each(|frame| attack.frame(frame));
        assert_eq!(attack.closed_with(), Some(AbortReason::Protocol), "{what}");
        attack.did_no_harm();
    }
}

#[test]
fn runs_that_are_not_what_they_say_are_refused() {
    type Forge = fn(&Attack) -> Vec<Vec<u8>>;
    let cases: [(&str, Forge, &str); 6] = [
        (
            "a wrong signature",
            |attack| {
                let mut entries = attack.entries[1..].to_vec();
                entries[2][5] ^= 1;
                entries
            },
            "invalid_entries",
        ),
        (
            "a broken chain",
            |attack| vec![attack.entries[1].clone(), attack.entries[3].clone()],
            "invalid_entries",
        ),
        (
            "entries in another order",
            |attack| vec![attack.entries[2].clone(), attack.entries[1].clone()],
            "invalid_entries",
        ),
        (
            "a body that is not the one that was signed",
            |attack| {
                let mut entries = attack.entries[1..].to_vec();
                let last = entries[0].len() - 3;
                entries[0][last] ^= 1;
                entries
            },
            "invalid_entries",
        ),
        (
            "a change under the key of another object",
            |attack| {
                let key = &attack.world.nodes[MALLORY].key;
                vec![forge(&attack.entries[1], key, |header| header.items[0].key.0[0] ^= 1)]
            },
            "invalid_entries",
        ),
        (
            "an entry of another mesh",
            |attack| {
                let key = &attack.world.nodes[MALLORY].key;
                vec![forge(&attack.entries[1], key, |header| header.mesh = MeshId([9; 32]))]
            },
            "other_mesh",
        ),
    ];
    for (what, forge, code) in cases {
        let mut attack = Attack::new();
        let entries = forge(&attack);
        attack.send_run(LaneId::Normal, attack.author, &entries);
        assert_eq!(attack.refused_with(), Some(code), "{what}");
        let ends = (code == "invalid_entries").then_some(AbortReason::InvalidEntries);
        assert_eq!(attack.closed_with(), ends, "{what}");
        attack.did_no_harm();
    }
}

#[test]
fn run_of_a_lane_that_is_not_shared_ends_the_connection() {
    let mut attack = Attack::new();
    let entries = attack.entries.clone();
    attack.send_run(LaneId::Secure, attack.author, &entries);
    assert_eq!(attack.closed_with(), Some(AbortReason::Protocol));
    attack.did_no_harm();
}

#[test]
fn entries_of_a_stranger_are_refused_whoever_brings_them() {
    let mut attack = Attack::new();
    let stranger = SigningKey::from_bytes(&[99; 32]);
    let author = Author { device: stranger.device(), incarnation: Incarnation(1) };
    let entry = forge(&attack.entries[0], &stranger, |header| header.author = author);
    attack.send_run(LaneId::Normal, author, &[entry]);
    assert_eq!(attack.refused_with(), Some("author_not_admitted"));
    let frontier = attack.world.nodes[VICTIM].store.frontier(LaneId::Normal);
    assert_eq!(frontier.seq(&author), 0);
    attack.did_no_harm();
}

#[test]
fn future_sequence_is_not_kept_but_asked_for_from_where_we_are() {
    let mut attack = Attack::new();
    let entries = attack.entries[2..].to_vec();
    // However often it comes, it is asked for again once a second at most.
    for _ in 0..5 {
        attack.send_run(LaneId::Normal, attack.author, &entries);
    }
    assert_eq!(attack.closed_with(), None);
    assert_eq!(attack.refused_with(), None);
    attack.did_no_harm();
}

#[test]
fn replayed_and_duplicated_runs_change_nothing() {
    let mut attack = Attack::new();
    let first = attack.entries[..1].to_vec();
    for _ in 0..3 {
        attack.send_run(LaneId::Normal, attack.author, &first);
    }
    assert_eq!((attack.closed_with(), attack.refused_with()), (None, None));
    attack.did_no_harm();
}

#[test]
fn second_history_is_kept_as_proof_and_quarantines_that_journal_alone() {
    let mut attack = Attack::new();
    let mut world = std::mem::replace(&mut attack.world, World::mesh(0));
    let key = world.nodes[MALLORY].key.clone();
    let other = forge(&attack.entries[0], &key, |header| header.wall = WallMillis(777));
    attack.world = world;
    attack.send_run(LaneId::Normal, attack.author, &[other]);
    world = attack.world;
    let found = world.nodes[VICTIM].events.iter().any(|event| {
        matches!(event, Event::Equivocation { seq: 1, author, .. } if *author == attack.author)
    });
    assert!(found, "{:?}", world.nodes[VICTIM].events);
    world.put(FRIEND, "of a friend", json!(1));
    world.run();
    assert_eq!(world.body(VICTIM, LaneId::Normal, "of a friend"), Some(json!(1)));
    assert_eq!(world.body(VICTIM, LaneId::Normal, "x"), Some(json!({ "n": 0 })));
}

#[test]
fn forged_receipt_ends_the_connection_and_proves_nothing() {
    let mut attack = Attack::new();
    let everything = attack.world.nodes[VICTIM].store.frontier(LaneId::Normal);
    let forged = attack.receipt(everything, FRIEND);
    attack.say(&forged);
    assert_eq!(attack.closed_with(), Some(AbortReason::Protocol));
    attack.did_no_harm();
}

#[test]
fn receipt_that_asks_for_all_and_names_a_part_ends_the_connection() {
    let mut attack = Attack::new();
    let part = LaneReceipt { part: true, ..LaneReceipt::default() };
    let receipt = attack.receipt_of(part, true, MALLORY);
    attack.say(&receipt);
    assert_eq!(attack.closed_with(), Some(AbortReason::Protocol));
    attack.did_no_harm();
}

#[test]
fn receipts_that_together_name_more_journals_than_any_may_end_the_connection() {
    let mut attack = Attack::new();
    let device = attack.world.device(MALLORY);
    let journals = |from: u64, count: u64| {
        let author = |n| Author { device, incarnation: Incarnation(n) };
        let tip = Tip { seq: 1, hash: EntryHash([1; 32]) };
        Frontier((from..from + count).map(|n| (author(n), tip)).collect())
    };
    let all = attack.receipt(journals(0, RECEIPT_AUTHORS_MAX as u64), MALLORY);
    attack.say(&all);
    assert_eq!(attack.closed_with(), None);
    let held = journals(RECEIPT_AUTHORS_MAX as u64, 1);
    let part = LaneReceipt { held, part: true, ..LaneReceipt::default() };
    let part = attack.receipt_of(part, false, MALLORY);
    attack.say(&part);
    assert_eq!(attack.closed_with(), Some(AbortReason::Protocol));
    attack.did_no_harm();
}

/// A device that was restored from a backup learns so from a peer that holds more of its journal. A
/// peer may lie; then one incarnation is spent, not one for each lie.
#[test]
fn claims_of_entries_that_we_never_wrote_cost_one_incarnation_at_most() {
    let mut attack = Attack::new();
    for n in 0..20 {
        let own = attack.world.nodes[VICTIM].store.author();
        let tip = Tip { seq: 1_000 + n, hash: EntryHash([n as u8; 32]) };
        let lie = attack.receipt(Frontier([(own, tip)].into()), MALLORY);
        attack.say(&lie);
        attack.world.put(VICTIM, "own", json!(n));
    }
    let started = attack.world.nodes[VICTIM]
        .events
        .iter()
        .filter(|event| matches!(event, Event::IncarnationStarted { .. }));
    assert_eq!(started.count(), 1);
    assert_eq!(attack.refused_with(), Some("entries_never_written"));
    attack.did_no_harm();
}

impl Attack {
    /// Mallory claims to hold what the victim never wrote, and the victim writes on. Says whether that
    /// made it begin an incarnation.
    fn lie(&mut self) -> bool {
        let own = self.world.nodes[VICTIM].store.author();
        let tip = Tip { seq: u64::MAX, hash: EntryHash([1; 32]) };
        let lie = self.receipt(Frontier([(own, tip)].into()), MALLORY);
        self.say(&lie);
        self.world.put(VICTIM, "own", json!(self.world.now));
        self.world.nodes[VICTIM].store.author() != own
    }

    fn own_journals(&self) -> usize {
        let device = self.world.device(VICTIM);
        self.world.nodes[VICTIM].store.device_journals(LaneId::Normal, device)
    }
}

#[test]
fn each_lie_of_a_peer_is_believed_half_as_soon_as_the_one_before_it() {
    let mut attack = Attack::new();
    assert!(attack.lie());
    let mut wait_ms = RENEW_EVERY_MS;
    for _ in 0..4 {
        attack.world.now += wait_ms - 10;
        assert!(!attack.lie(), "after {wait_ms} ms less a few");
        attack.world.now += 10;
        assert!(attack.lie(), "after {wait_ms} ms");
        wait_ms *= 2;
    }
    // What it is worth is remembered over restarts, and doubted for as long again.
    let mallory = attack.world.device(MALLORY);
    let node = &mut attack.world.nodes[VICTIM];
    let config = EngineConfig {
        signer: Box::new(node.key.clone()),
        policy: ReplicationPolicy::default(),
        seed: [79; 32],
    };
    node.engine = Engine::new(config, &mut node.store).unwrap();
    assert_eq!(node.engine.claims.unproven(mallory), 5);
    attack.world.links.clear();
    attack.world.connect(VICTIM, MALLORY);
    attack.world.run();
    attack.conn = attack.world.links.remove(0).ends[0].1;
    assert!(!attack.lie());
    attack.world.now += RENEW_EVERY_MS * 16;
    assert!(attack.lie());
}

/// Of a device's journals others take a bounded number: lies must not use them up.
#[test]
fn lies_of_many_years_use_up_few_journals() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let mut attack = Attack::new();
    for _ in 0..365 {
        attack.world.now += DAY_MS;
        attack.lie();
    }
    let in_a_year = attack.own_journals();
    assert!(in_a_year <= 24, "{in_a_year} in a year");
    for _ in 0..100 {
        attack.world.now += RENEW_WAIT_MS_MAX;
        attack.lie();
    }
    assert_eq!(attack.own_journals(), CLAIM_JOURNALS_MAX);
}

#[test]
fn device_without_a_journal_to_begin_says_so() {
    let mut world = World::mesh(1);
    for n in 0..srcos_lanes::store::DEVICE_JOURNALS_MAX {
        world.nodes[0].store.begin_incarnation(n as u32).unwrap();
        world.put(0, "x", json!(n));
    }
    let (now, device) = (world.clock(), world.device(0));
    let node = &mut world.nodes[0];
    node.engine.renew(&mut node.store, device).unwrap();
    let action = Action::Put(PutContent { body: json!(1), ..PutContent::default() });
    let op = Op { id: "y".into(), action, if_heads: None };
    let refused = node.engine.write(&mut node.store, now, LaneId::Normal, &[op]);
    assert!(matches!(refused, Err(WriteError::JournalsSpent { .. })), "{refused:?}");
    world.settle(0);
    let told = |event: &Event| matches!(event, Event::Refused { code: "journals_spent", .. });
    assert!(world.nodes[0].events.iter().any(told));
}

#[test]
fn credit_without_end_is_bounded() {
    let mut attack = Attack::new();
    for _ in 0..100 {
        attack.say(&Message::Credit(u32::MAX));
    }
    assert_eq!(attack.closed_with(), None);
    let session = &attack.world.nodes[VICTIM].engine.sessions[&attack.conn];
    assert!(session.credit <= i64::from(CREDIT_BYTES) * 4);
    attack.did_no_harm();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Honest messages with bytes flipped, cut short, repeated, or in another order.
    #[test]
    fn mangled_messages_never_harm(
        mangles in prop::collection::vec((0..4_usize, any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut attack = Attack::new();
        let entries = attack.entries.clone();
        let author = attack.author;
        let run = |from: usize| Message::Run {
            lane: LaneId::Normal,
            author,
            whole: false,
            entries: entries[from..].iter().map(Vec::as_slice).collect(),
        };
        let receipt = attack.receipt(Frontier::default(), MALLORY);
        let honest: Vec<Vec<u8>> = [run(2), run(3), receipt, Message::Digest([1; 32]), Message::Credit(5)]
            .iter()
            .flat_map(|message| frames(message.encode()))
            .collect();
        for (which, at, byte) in mangles {
            let mut frame = honest[at.index(honest.len())].clone();
            let place = at.index(frame.len());
            match which {
                0 => frame[place] ^= byte | 1,
                1 => frame.truncate(place),
                2 => frame.insert(place, byte),
                _ => {}
            }
            attack.frame(&frame);
        }
        attack.did_no_harm();
    }
}

#[test]
fn bodies_that_every_member_may_have_cannot_be_left_out() {
    let mut attack = Attack::new();
    let withheld: Vec<Vec<u8>> = attack.entries[1..]
        .iter()
        .map(|bytes| {
            let mut entry = Entry::read(bytes).unwrap();
            assert_eq!(entry.hash, hash_header(entry.header_bytes));
            entry.bodies.iter_mut().for_each(|body| *body = Body::Withheld);
            entry.write()
        })
        .collect();
    attack.send_run(LaneId::Normal, attack.author, &withheld);
    // The chain verifies all the same; but what others build on these bodies would wait for ever.
    assert_eq!(attack.closed_with(), Some(AbortReason::InvalidEntries));
    assert_eq!(attack.refused_with(), Some("invalid_entries"));
    assert_eq!(attack.held(), 1);
    assert_eq!(attack.world.body(VICTIM, LaneId::Normal, "x"), Some(json!({ "n": 0 })));
}
