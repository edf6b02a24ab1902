//! Replays what fuzzers start from and what they found, through the functions that they call; and
//! holds the bytes of entries, messages, tickets and event stores to those that are committed.
//!
//! `tests/fuzz/seeds/TARGET` has inputs that must be taken (`valid-*`) or refused (`invalid-*`);
//! `tests/fuzz/crashers/TARGET` has what once broke a reader, and must not again. A crasher that a
//! fuzzer finds is copied there under a name that says what it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serde_json::json;
use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, DeviceId, EntryHash, Incarnation, MeshId, ObjectKey, WallMillis};
use srcos_lanes::journal::{
    Body, BodyParts, HEADER_VERSION, Header, Item, sign_header, write_entry,
};
use srcos_lanes::lane::LaneId;
use srcos_lanes::object::{Content, Object};
use srcos_lanes::signature::Signer as _;
use srcos_node::events::head::Head;
use srcos_node::events::store::Writer;
use srcos_replication::roster::RecordId;
use srcos_replication::ticket::Ticket;
use srcos_replication::wire::{
    AbortReason, Hello, LaneReceipt, Message, PROTOCOL_VERSION, Receipt, frames,
};

use crate::support::{read, root, skips_slow};

#[path = "fuzz/targets.rs"]
mod targets;

/// Mutations of a target's seeds in an ordinary run, and in a slow one, shared out evenly.
const MUTATIONS: usize = 1_500;
const MUTATIONS_SLOW: usize = 60_000;

fn folder(kind: &str, target: &str) -> PathBuf {
    root().join("tests/fuzz").join(kind).join(target)
}

fn inputs(kind: &str, target: &str) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder(kind, target)) else { return BTreeMap::new() };
    entries
        .map(|entry| {
            let entry = entry.expect("a folder entry can be read");
            let name = entry.file_name().into_string().expect("names are text");
            (name, std::fs::read(entry.path()).expect("a seed can be read"))
        })
        .collect()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn author() -> Author {
    Author { device: key().device(), incarnation: Incarnation::first(7) }
}

fn entry_bytes(withheld: bool) -> Vec<u8> {
    let content = Content::new(
        "note",
        "internal",
        [("topic".to_owned(), "seed".to_owned())].into(),
        json!({"text": "hello", "n": [1, 2.5, null, {"deep": true}], "empty": {}}),
    );
    let content = content.expect("the content is within its limits");
    let change = Object::create(&content, author().actor(), WallMillis(1_700_000_000_000));
    let body = BodyParts { life: 1, id: "note/1", change: &change.bytes }.write();
    let header = Header {
        version: HEADER_VERSION,
        mesh: MeshId([2; 32]),
        lane: LaneId::Memory,
        author: author(),
        seq: 1,
        prev: EntryHash::NONE,
        wall: WallMillis(1_700_000_000_000),
        after: Vec::new(),
        classes: vec!["internal".to_owned()],
        items: vec![Item {
            key: ObjectKey::new(LaneId::Memory, "note/1", 1),
            change: change.hash,
            body_len: body.len() as u32,
            class: 0,
            confined: false,
        }],
    };
    let header = header.to_bytes();
    let body = if withheld { Body::Withheld } else { Body::Here(&body) };
    write_entry(&sign_header(&header, &key()), &header, &[body])
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let mesh = MeshId([2; 32]);
    let entry = entry_bytes(false);
    let tip = Tip { seq: 3, hash: EntryHash([4; 32]) };
    let lanes = vec![LaneReceipt {
        lane: LaneId::Memory.code(),
        held: Frontier([(author(), tip)].into()),
        unapplied: vec![(author(), 2)],
        part: true,
    }];
    let hello = Hello {
        version: PROTOCOL_VERSION,
        mesh,
        lanes: vec![LaneId::Normal, LaneId::Memory],
        roster: vec![RecordId([5; 32])],
        digest: [6; 32],
        credit: 4 << 20,
    };
    let run = Message::Run {
        lane: LaneId::Memory,
        author: author(),
        whole: true,
        entries: vec![&entry, &entry],
    };
    let receipt = Receipt::new(mesh, WallMillis(1_700_000_000_000), lanes, true, &key());
    let abort = Message::Abort { reason: AbortReason::Revoked, detail: "sold".into() };
    [
        ("hello", Message::Hello(hello)),
        ("proof-needed", Message::ProofNeeded),
        ("roster", Message::Roster(Vec::new())),
        ("receipt", Message::Receipt(receipt)),
        ("run", run),
        ("credit", Message::Credit(2 << 20)),
        ("digest", Message::Digest([8; 32])),
        ("abort", abort),
    ]
    .into_iter()
    .map(|(name, message)| (name, frames(message.encode()).swap_remove(0)))
    .collect()
}

fn ticket_text() -> String {
    let addresses = vec!["/ip4/192.0.2.7/udp/4101/quic-v1".to_owned()];
    let expires_at = WallMillis(1_700_000_300_000);
    let ticket =
        Ticket::new(MeshId([2; 32]), DeviceId(key().device().0), [3; 32], expires_at, addresses);
    ticket.expect("the addresses are sound").to_text()
}

/// A store of three events: the first ones as another program wrote them.
fn store_bytes(foreign: usize, signing: Option<SigningKey>) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let path = dir.path().join("events.jsonl");
    let text = read("examples/events/policy-decision.expected-denial.json");
    let mut event: serde_json::Value = serde_json::from_str(&text).expect("an example is JSON");
    let events: Vec<_> = (1..=3)
        .map(|n| {
            event["event_id"] = json!(format!("evt_{n}"));
            event.clone()
        })
        .collect();
    let lines: String = events[..foreign].iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(&path, lines).expect("lines can be written");
    let mut writer = Writer::open(&path, signing).expect("the store can be opened");
    writer.add(&events[foreign..]).expect("events can be added");
    let file = |path: &Path| std::fs::read(path).expect("the store can be read");
    [&file(&Head::file(&path))[..], b"\0", &file(&path)].concat()
}

/// The seeds that this version writes: target, name, bytes.
fn written() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds: Vec<_> = messages()
        .into_iter()
        .map(|(name, frame)| ("wire_frame", format!("valid-{name}"), frame))
        .collect();
    seeds.push(("entry", "valid-one-object".into(), entry_bytes(false)));
    seeds.push(("entry", "valid-withheld".into(), entry_bytes(true)));
    for (n, body) in targets::change_seeds().into_iter().enumerate() {
        seeds.push(("change", format!("valid-{n}"), body));
    }
    seeds.push(("event_store", "valid-signed".into(), store_bytes(0, Some(key()))));
    seeds.push(("event_store", "valid-foreign-first".into(), store_bytes(2, None)));
    seeds.push(("ticket", "valid-ticket".into(), ticket_text().into_bytes()));
    seeds
}

/// With `SRCOS_WRITE_SEEDS=1` it writes them anew: after a change of a format that is meant, with a
/// new version number in it.
#[test]
fn entries_messages_tickets_and_stores_have_the_bytes_that_are_committed() {
    let write = std::env::var_os("SRCOS_WRITE_SEEDS").is_some();
    for (target, name, bytes) in written() {
        let path = folder("seeds", target).join(&name);
        if write {
            std::fs::create_dir_all(folder("seeds", target)).expect("the folder can be made");
            std::fs::write(&path, &bytes).expect("a seed can be written");
        }
        let committed = std::fs::read(&path).unwrap_or_default();
        assert!(committed == bytes, "{target}/{name}: the format has changed");
    }
}

#[test]
fn seeds_are_taken_or_refused_as_their_names_say() {
    for (target, run) in targets::ALL {
        let seeds = inputs("seeds", target);
        assert!(seeds.len() >= 3, "{target} has hardly any seeds");
        for (name, bytes) in seeds {
            let taken = run(&bytes);
            let valid = name.starts_with("valid-");
            assert!(valid || name.starts_with("invalid-"), "{target}/{name} says neither");
            assert_eq!(taken, valid, "{target}/{name}");
        }
    }
}

#[test]
fn what_once_broke_a_reader_breaks_none_now() {
    for (target, run) in targets::ALL {
        for (name, bytes) in inputs("crashers", target) {
            let ended = std::panic::catch_unwind(|| run(&bytes));
            assert!(ended.is_ok(), "{target}/{name} panics again");
        }
    }
}

/// A small generator of its own, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn mutated(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.below(256) as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.below(256) as u8),
            4 => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

fn mutate_all(mutations: usize) {
    for (target, run) in targets::ALL {
        let seeds = inputs("seeds", target);
        let of_each = mutations / seeds.len().max(1);
        for (name, seed) in seeds {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for n in 0..of_each {
                let bytes = mutated(&seed, &mut random);
                let ended = std::panic::catch_unwind(|| run(&bytes));
                assert!(ended.is_ok(), "{target}/{name}, mutation {n} panics: {bytes:?}");
            }
        }
    }
}

#[test]
fn damaged_input_makes_no_reader_panic() {
    mutate_all(MUTATIONS);
}

#[test]
fn much_damaged_input_makes_no_reader_panic() {
    if skips_slow("many mutations of every seed") {
        return;
    }
    mutate_all(MUTATIONS_SLOW);
}
