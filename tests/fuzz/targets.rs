//! What each fuzz target does with bytes from outside. The fuzzers call these functions, and so does
//! the ordinary test that replays seeds and crashers, so that they are exercised without a fuzzer.
//!
//! A function says whether it took the bytes. It panics where a promise is broken: bytes that were
//! taken read back the same, and no bytes at all make a reader panic.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use srcos_lanes::ids::{ChangeHash, WallMillis};
use srcos_lanes::journal::{Entry, check_id};
use srcos_lanes::object::{Content, DocumentError, EncodedChange, Incoming, LeafType, Object};
use srcos_replication::pairing::Code;
use srcos_replication::ticket::Ticket;
use srcos_replication::wire::{Assembler, Message, frames};
use srcos_schemas::canonical::{estate, rfc8785};
use srcos_schemas::contracts::{self, FINDINGS_MAX, Options};
use srcos_schemas::json::{Limits, canonical, parse};
use srcos_schemas::objects::{CONTENT_LIMITS, ContentDocument};

/// A target: whether it took the bytes.
pub(crate) type Target = fn(&[u8]) -> bool;

/// The targets by name.
pub(crate) const ALL: [(&str, Target); 6] = [
    ("wire_frame", wire_frame),
    ("entry", entry),
    ("change", change),
    ("ticket", ticket),
    ("json_line", json_line),
    ("contract", contract),
];

/// Who wrote the past of the object that changes are tried on, in the order of its changes.
const AUTHORS: [[u8; 16]; 2] = [[1; 16], [2; 16]];

/// An object that two devices edited apart, and brought together, and edited again.
static PAST: LazyLock<Vec<(EncodedChange, [u8; 16])>> = LazyLock::new(|| {
    let content = |n: i64| {
        let body = serde_json::json!({
            "n": n, "list": [1, n, {"x": n}], "text": format!("some {n} text"), "count": n,
        });
        let types = [("/text".into(), LeafType::Text), ("/count".into(), LeafType::Counter)];
        let content = Content::typed("note", "internal", [].into(), body, types.into());
        content.expect("the content is within its limits")
    };
    let mut past = Vec::new();
    let mut write = |object: &mut Object, n: i64, who: usize| {
        let change = object.set(&content(n), AUTHORS[who], WallMillis(7)).expect("it is written");
        past.push((change.expect("it differs"), AUTHORS[who]));
        past[past.len() - 1].0.clone()
    };
    let mut one = Object::new();
    write(&mut one, 1, 0);
    let mut other = one.clone();
    write(&mut one, 2, 0);
    let apart = write(&mut other, 3, 1);
    one.apply(&apart.bytes, apart.hash, AUTHORS[1]).expect("what is written is taken");
    write(&mut one, 4, 0);
    past
});

/// Changes that are taken: one of a third author that follows all of the past, and the past's own.
pub(crate) fn change_seeds() -> Vec<Vec<u8>> {
    let mut object = Object::new();
    let mut bodies = Vec::new();
    let after_length = |bytes: &[u8]| {
        let length = bytes[9..].iter().position(|byte| byte & 0x80 == 0).map_or(0, |at| at + 1);
        bytes[9 + length..].to_vec()
    };
    for (change, actor) in PAST.iter() {
        object.apply(&change.bytes, change.hash, *actor).expect("the past is taken");
        bodies.push(after_length(&change.bytes));
    }
    let body = serde_json::json!({"n": 4, "list": [0, {"x": 4}, 9], "text": "so text", "count": 9});
    let types = [("/text".into(), LeafType::Text), ("/count".into(), LeafType::Counter)];
    let content = Content::typed("note", "internal", [].into(), body, types.into());
    let content = content.expect("the content is within its limits");
    let change = object.set(&content, [3; 16], WallMillis(8)).expect("it is written");
    bodies.extend(change.map(|change| after_length(&change.bytes)));
    bodies
}

/// The bytes of a change after its length, over an object with a past: whether it is taken in does
/// not depend on what of that past is there, as long as its own is, nor on what comes with it.
pub(crate) fn change(body: &[u8]) -> bool {
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(body);
    let hash: [u8; 32] = Sha256::digest(&bytes[8..]).into();
    bytes[4..8].copy_from_slice(&hash[..4]);
    let hash = ChangeHash(hash);
    // Its author as far as it can be told: the first that fits.
    let takes = |object: &Object| {
        let mut taken = Err(DocumentError::Actor);
        for actor in AUTHORS.iter().chain([&[3; 16]]) {
            let mut object = object.clone();
            taken = object.apply(&bytes, hash, *actor).map(|()| (object, *actor));
            if !matches!(taken, Err(DocumentError::Actor)) {
                break;
            }
        }
        taken
    };
    let incoming = |(change, actor): &'static (EncodedChange, [u8; 16])| Incoming {
        change: &change.bytes,
        hash: change.hash,
        actor: *actor,
    };
    let mut object = Object::new();
    let mut first = None;
    for change in PAST.iter() {
        if first.is_none() {
            first = match takes(&object) {
                Err(DocumentError::MissingDeps(_)) => None,
                verdict => Some(verdict),
            };
        }
        let taken = object.with_each(&[incoming(change)], &BTreeMap::new());
        object = taken.expect("an object can be read").object;
    }
    let last = takes(&object);
    if let Some(first) = first {
        assert_eq!(
            first.is_ok(),
            last.is_ok(),
            "{first:?} before what it does not follow, {last:?}"
        );
    }
    let Ok((alone, actor)) = last else { return false };
    let mut together: Vec<Incoming<'_>> = PAST.iter().map(incoming).collect();
    together.push(Incoming { change: &bytes, hash, actor });
    let together = Object::new().with_each(&together, &BTreeMap::new());
    let together = together.expect("an object can be read").object;
    assert_eq!(together.heads(), alone.heads(), "together as one by one");
    let view = alone.view().expect("what was taken can be seen");
    assert_eq!(together.view().expect("so can this"), view, "together as one by one");
    let saved = Object::load(&alone.save()).expect("what was taken can be saved");
    assert_eq!(saved.view().expect("and loaded"), view, "what was saved reads back");
    true
}

/// One frame as it comes from a link.
pub(crate) fn wire_frame(frame: &[u8]) -> bool {
    let Ok(Some(bytes)) = Assembler::default().push(frame) else { return false };
    let Ok(message) = Message::decode(&bytes) else { return false };
    let again = message.encode();
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message), "a message reads back");
    let mut assembler = Assembler::default();
    let mut whole = None;
    for frame in frames(again.clone()) {
        assert!(whole.is_none(), "nothing follows the last frame");
        whole = assembler.push(&frame).expect("own frames are taken");
    }
    assert_eq!(whole, Some(again), "a message survives its frames");
    true
}

/// The bytes of a journal entry, and each change in it.
pub(crate) fn entry(bytes: &[u8]) -> bool {
    let Ok(entry) = Entry::read(bytes) else { return false };
    assert_eq!(entry.write(), bytes, "an entry has one form");
    let _ = entry.verify_signature();
    if entry.check_bodies().is_err() {
        return false;
    }
    for (index, item) in entry.header.items.iter().enumerate() {
        let Some(parts) = entry.parts(index) else { continue };
        let actor = entry.header.author.actor();
        let fast = Object::read_creation(parts.change, item.change, actor);
        let mut object = Object::new();
        let applied = object.apply(parts.change, item.change, actor);
        if let (Ok(Some(fast)), Ok(())) = (fast, applied) {
            let slow = object.view().expect("what was applied can be seen");
            assert_eq!(fast, slow, "both ways of reading a first change agree");
        }
    }
    true
}

/// Text that somebody pastes or types in to join a mesh.
pub(crate) fn ticket(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if let Ok(code) = text.parse::<Code>() {
        assert_eq!(code.to_string().parse::<Code>(), Ok(code), "a code reads back");
        return true;
    }
    let Ok(ticket) = text.parse::<Ticket>() else { return false };
    assert_eq!(ticket.to_text().parse::<Ticket>(), Ok(ticket), "a ticket reads back");
    true
}

/// A line of an import, up to the change that it becomes.
pub(crate) fn json_line(line: &[u8]) -> bool {
    let Ok(value) = parse(line, CONTENT_LIMITS) else { return false };
    let text = canonical(&value);
    let again = parse(text.as_bytes(), CONTENT_LIMITS).expect("canonical JSON is JSON");
    assert_eq!(canonical(&again), text, "canonical JSON is canonical");
    let Ok((id, content)) = ContentDocument::line_from_value(value) else { return false };
    if check_id(&id).is_err() || content.check_body(line.len()).is_err() || content.check().is_err()
    {
        return false;
    }
    let kind = content.kind.as_deref().unwrap_or("object");
    let class = content.class.as_deref().unwrap_or("internal");
    let labels = content.labels.clone().unwrap_or_default();
    let Ok(content) = Content::new(kind, class, labels, content.body) else { return false };
    let actor = [7; 16];
    let change = Object::create(&content, actor, WallMillis(1));
    let read = Object::read_creation(&change.bytes, change.hash, actor);
    let view = read.expect("an own change is read").expect("and read without a document");
    assert_eq!(canonical(view.content.body()), canonical(content.body()), "a body reads back");
    true
}

/// A document, held to the contract that it names and to every other.
pub(crate) fn contract(bytes: &[u8]) -> bool {
    let Ok(document) = parse(bytes, Limits::BODY) else { return false };
    let text = estate(&document);
    let again = parse(text.as_bytes(), Limits::STORED).expect("canonical JSON is JSON");
    assert_eq!(again, document, "a canonical text reads back");
    let _ = rfc8785(&document);
    for contract in contracts::ALL {
        let options = Options { contract: Some(contract), strict: true, ..Options::default() };
        let verdict = contracts::validate(&document, &options);
        assert!(verdict.errors.len() <= FINDINGS_MAX && verdict.warnings.is_empty());
    }
    contracts::validate(&document, &Options::default()).is_valid()
}
