//! What each fuzz target does with bytes from outside. The fuzzers call these functions, and so does
//! the ordinary test that replays seeds and crashers, so that they are exercised without a fuzzer.
//!
//! A function says whether it took the bytes. It panics where a promise is broken: bytes that were
//! taken read back the same, and no bytes at all make a reader panic.

use srcos_lanes::ids::WallMillis;
use srcos_lanes::journal::{Entry, check_id};
use srcos_lanes::object::{Content, Object};
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
pub(crate) const ALL: [(&str, Target); 5] = [
    ("wire_frame", wire_frame),
    ("entry", entry),
    ("ticket", ticket),
    ("json_line", json_line),
    ("contract", contract),
];

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
