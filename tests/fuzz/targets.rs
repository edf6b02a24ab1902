//! What each fuzz target does with bytes from outside. The fuzzers call these functions, and so does
//! the ordinary test that replays seeds and crashers, so that they are exercised without a fuzzer.
//!
//! A function says whether it took the bytes. It panics where a promise is broken: bytes that were
//! taken read back the same, and no bytes at all make a reader panic.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;
use sha2::{Digest, Sha256};
use srcos_lanes::ids::{ChangeHash, WallMillis};
use srcos_lanes::journal::{Entry, check_id};
use srcos_lanes::object::{Content, DocumentError, EncodedChange, Incoming, LeafType, Object};
use srcos_node::events::head::Head;
use srcos_node::events::store::{Writer, open_quiet};
use srcos_node::events::verify::{Expected, StoreReport, verify};
use srcos_replication::pairing::Code;
use srcos_replication::ticket::Ticket;
use srcos_replication::wire::{Assembler, Message, frames};
use srcos_schemas::canonical::{estate, rfc8785};
use srcos_schemas::contracts::{self, Contract, Document, FINDINGS_MAX, Options};
use srcos_schemas::event::coalesce::{Coalescer, Settings, occurrences};
use srcos_schemas::event::model::Event;
use srcos_schemas::event::rules::EVENT;
use srcos_schemas::event::storm::{Outlook, storm};
use srcos_schemas::identity::{AuditStatus, audit};
use srcos_schemas::incident::build::{BuildError, build};
use srcos_schemas::incident::explain::explain;
use srcos_schemas::incident::{Incident, IncidentClass};
use srcos_schemas::json::{Limits, canonical, parse, parse_to_judge};
use srcos_schemas::objects::{CONTENT_LIMITS, ContentDocument};
use srcos_schemas::preflight::preflight;
use srcos_schemas::process::{ProcessProvenance, events};
use srcos_schemas::service::ServiceManifest;
use srcos_schemas::service::gates::gates;
use srcos_schemas::service::graph::ServiceGraph;
use srcos_schemas::time::Timestamp;
use srcos_schemas::truth;

/// A target: whether it took the bytes.
pub(crate) type Target = fn(&[u8]) -> bool;

/// The targets by name.
pub(crate) const ALL: [(&str, Target); 9] = [
    ("wire_frame", wire_frame),
    ("entry", entry),
    ("change", change),
    ("ticket", ticket),
    ("json_line", json_line),
    ("contract", contract),
    ("event_store", event_store),
    ("event_stream", event_stream),
    ("tools", tools),
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
    // Its author as far as it can be told: the first whom it does not contradict.
    let authors = AUTHORS.iter().chain([&[3; 16]]);
    let taken_by = |object: &Object, actor: [u8; 16]| {
        let mut object = object.clone();
        object.apply(&bytes, hash, actor).map(|()| object)
    };
    let fits =
        |actor: &&[u8; 16]| !matches!(taken_by(&Object::new(), **actor), Err(DocumentError::Actor));
    let Some(actor) = authors.copied().find(|actor| fits(&actor)) else { return false };
    let takes = |object: &Object| taken_by(object, actor);
    let incoming = |(change, actor): &'static (EncodedChange, [u8; 16])| Incoming {
        change: &change.bytes,
        hash: change.hash,
        actor: *actor,
    };
    let mut object = Object::new();
    let mut first = None;
    for (at, change) in PAST.iter().enumerate() {
        // Beside its author's own later changes it would be another history.
        let alone = PAST[at..].iter().all(|(_, author)| *author != actor);
        if first.is_none() && alone {
            first = match takes(&object) {
                Err(DocumentError::MissingDeps(_)) => None,
                verdict => Some(verdict),
            };
        }
        object = object.with_each(&[incoming(change)], &BTreeMap::new()).object;
    }
    let last = takes(&object);
    if let Some(first) = first {
        assert_eq!(
            first.is_ok(),
            last.is_ok(),
            "{first:?} before what it does not follow, {last:?}"
        );
    }
    let Ok(alone) = last else { return false };
    let mut together: Vec<Incoming<'_>> = PAST.iter().map(incoming).collect();
    together.push(Incoming { change: &bytes, hash, actor });
    let together = Object::new().with_each(&together, &BTreeMap::new()).object;
    assert_eq!(together.heads(), alone.heads(), "together as one by one");
    let view = alone.view();
    let seen = matches!(view, Ok(_) | Err(DocumentError::Unshown));
    assert!(seen, "what was taken can be seen, or is too much: {view:?}");
    assert_eq!(together.view(), view, "together as one by one");
    let saved = Object::load(&alone.save()).expect("what was taken can be saved");
    assert_eq!(saved.view(), view, "what was saved reads back");
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
    let judged = parse_to_judge(bytes, Limits::BODY).expect("who judges takes no less");
    assert!(judged.1.is_empty(), "no integer is too wide here");
    for contract in contracts::ALL {
        let options = Options { contract: Some(contract), strict: true, ..Options::default() };
        let verdict = contracts::validate(&document, &options);
        assert!(verdict.errors.len() <= FINDINGS_MAX && verdict.warnings.is_empty());
    }
    contracts::validate(&document, &Options::default()).is_valid()
}

fn holds(contract: &'static Contract, document: &Value) -> bool {
    let options = Options { contract: Some(contract), ..Options::default() };
    contracts::validate(document, &options).is_valid()
}

/// The files of an event store: its head and a NUL, or none of both, and its lines.
pub(crate) fn event_store(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let path = dir.path().join("events.jsonl");
    let head = bytes.iter().position(|byte| *byte == 0);
    if let Some(end) = head {
        std::fs::write(Head::file(&path), &bytes[..end]).expect("a head can be written");
    }
    let lines = &bytes[head.map_or(0, |end| end + 1)..];
    std::fs::write(&path, lines).expect("lines can be written");
    let check = || -> StoreReport {
        let file = open_quiet(&path).expect("the store can be opened");
        verify(&path, file, Expected::Anybody).expect("the store can be read")
    };
    let report = check();
    assert_eq!(report.valid, report.findings_total == 0);
    assert!(report.findings.len() as u64 <= report.findings_total);
    let event: Value = serde_json::from_str(EXAMPLE_EVENT).expect("an example is JSON");
    let added = Writer::open(&path, None).and_then(|mut writer| writer.add(&[event]));
    if !report.valid {
        return false;
    }
    // To a line without an end that another program left nothing is added.
    if !lines.is_empty() && !lines.ends_with(b"\n") && added.is_err() {
        return true;
    }
    added.expect("a store that holds can be added to");
    let after = check();
    assert!(after.valid, "it holds no more: {:?}", after.findings);
    assert!(after.events >= report.events, "an event was lost");
    true
}

const EXAMPLE_EVENT: &str = include_str!("../../examples/events/power-wake.mail.json");

/// A stream of events, one a line, folded and made into records of storms and incidents.
pub(crate) fn event_stream(bytes: &[u8]) -> bool {
    let mut all = true;
    let mut stream: Vec<Event> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event = parse(line, Limits::BODY).ok().and_then(|event| {
            let event: Event = serde_json::from_value(event).ok()?;
            event.missing_block().is_none().then_some(event)
        });
        all &= event.is_some();
        stream.extend(event);
    }
    let documents: Vec<Value> =
        stream.iter().map(|event| serde_json::to_value(event).expect("an event is JSON")).collect();
    let all_hold = documents.iter().all(|event| holds(&EVENT, event));
    let count = |events: &[Event]| events.iter().map(occurrences).fold(0, u64::saturating_add);
    for budget in [None, Some(1)] {
        let mut coalescer = Coalescer::new(Settings { window_ms: 1000, samples: 2, budget });
        let mut folded = Vec::new();
        for event in &stream {
            coalescer.push(event.clone(), &mut folded);
        }
        coalescer.finish(&mut folded);
        assert_eq!(count(&folded), count(&stream), "what goes in comes out");
        for event in &folded {
            let document = serde_json::to_value(event).expect("an event is JSON");
            assert_eq!(
                serde_json::from_value::<Event>(document.clone()).as_ref().ok(),
                Some(event)
            );
            assert!(!all_hold || holds(&EVENT, &document), "{document}");
            let outlook = Outlook { now_ms: 0, incident: None, count_min: 2, mended: false };
            if let Some(record) = storm(event, outlook) {
                let record = serde_json::to_value(&record).expect("a record is JSON");
                assert!(!all_hold || contracts::validate(&record, &Options::default()).is_valid());
            }
        }
    }
    for class in IncidentClass::ALL {
        let built = build(*class, &documents, Timestamp(0));
        assert!(!all_hold || !matches!(built, Err(BuildError::Invalid(_))), "{built:?}");
    }
    all && !stream.is_empty()
}

/// A document, where it holds: as its type, which takes no less than its contract.
fn typed<T: Document>(document: &Value) -> Option<T> {
    let typed = || serde_json::from_value(document.clone());
    holds(T::CONTRACT, document).then(|| typed().expect("what holds is read as its type"))
}

/// The documents of the control-plane tools, as members of one object. Taken where all of those hold
/// of which the tools ask that.
pub(crate) fn tools(bytes: &[u8]) -> bool {
    let Ok(all) = parse(bytes, Limits::BODY) else { return false };
    let member = |name: &str| all.get(name).unwrap_or(&Value::Null);
    let service: Option<ServiceManifest> = typed(member("service"));
    if let Some(service) = &service {
        assert_eq!(gates(service).len(), 10);
        let graph = ServiceGraph::of([("service.json", service)]);
        let _ = (graph.text(), graph.dot(), graph.mermaid());
    }
    let said = audit(member("service"), member("launch"));
    assert_eq!(said.status == AuditStatus::Pass, said.errors.is_empty());
    let process: Option<ProcessProvenance> = typed(member("process"));
    if let Some(process) = &process {
        for event in events::events(process, "2026-05-04T10:20:30Z") {
            assert!(holds(&EVENT, &event), "{event}");
        }
    }
    let incident: Option<Incident> = typed(member("incident"));
    if let Some(incident) = &incident {
        assert!(!explain(incident).text().is_empty());
    }
    let asked = ["contract", "phase", "grants"].map(member);
    let preflights =
        asked.iter().all(|document| contracts::validate(document, &Options::default()).is_valid());
    let answer = preflight(asked[0], asked[1], asked[2], Timestamp(0)).grant_state;
    if preflights {
        assert!(contracts::validate(&answer, &Options::default()).is_valid(), "{answer}");
    }
    let _ = (truth::network(member("network")), truth::registry(member("registry")));
    service.is_some() && process.is_some() && incident.is_some() && preflights
}
