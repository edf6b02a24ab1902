//! How much one call does, and what is told of what it leaves.

use super::misled::signed;
use super::overlay::STEP_BYTES_TARGET;
use super::*;
use crate::object::{Content, EncodedChange, Object};

const OBJECTS: usize = 40;

fn id(n: usize) -> String {
    format!("o{n:02}")
}

/// A device that holds objects of some size, and entries of another's that change each of them.
fn ahead() -> (Device, Author, Vec<Vec<u8>>) {
    let (mut a, mut c) = (Device::new(1), Device::new(3));
    let by_a = a.store().author();
    let body = |n: usize| json!({"n": n, "long": vec![Value::Null; 500]});
    let ops: Vec<Op> = (0..OBJECTS).map(|n| put_op(&id(n), body(n))).collect();
    a.write(LaneId::Normal, &ops).unwrap();
    c.pull(&mut a);
    let ops: Vec<Op> = (0..OBJECTS).map(|n| put_op(&id(n), body(n + 1))).collect();
    a.write(LaneId::Normal, &ops).unwrap();
    a.put("last", json!(1)).unwrap();
    let snapshot = a.store().reader().snapshot().unwrap();
    let entries = snapshot.entries(LaneId::Normal, &by_a, 2, usize::MAX, usize::MAX).unwrap();
    assert_eq!(entries.len(), 2);
    // One object is what a call may work on.
    c.store().documents.clear();
    c.store().work_target = 1_000;
    (c, by_a, entries)
}

/// Objects that say what the entry brought.
fn changed(device: &mut Device) -> usize {
    device.store().commit().unwrap();
    let mut new = |n: usize| device.body(&id(n)).unwrap()["n"] == json!(n + 1);
    (0..OBJECTS).filter(|n| new(*n)).count()
}

fn receive(device: &mut Device, author: Author, entries: &[Vec<u8>]) -> Received {
    let entries = entries.iter().map(Vec::as_slice).collect();
    let run = Run { lane: LaneId::Normal, author, entries };
    device.store().receive(&run, &[MESH], WallMillis(9)).unwrap()
}

fn fed(device: &mut Device, author: &Author) -> Vec<u64> {
    let number = device.store().authors.number(author).unwrap();
    let snapshot = device.store().reader().snapshot().unwrap();
    let feed = snapshot.table(tables::FEED).unwrap();
    let rows = redb::ReadableTable::iter(feed).unwrap().filter_map(|row| {
        let (key, value) = row.unwrap();
        let bytes = tables::unseal(tables::FEED, key.value(), value.value()).unwrap();
        match tables::decode(tables::FEED, key.value(), bytes).unwrap() {
            tables::FeedRow::Entry { author, seq, .. } if author == number => Some(seq),
            _ => None,
        }
    });
    rows.collect()
}

#[test]
fn an_entry_that_touches_much_is_applied_in_several_calls_and_others_go_on_between() {
    let (mut c, by_a, entries) = ahead();
    let mut b = Device::new(2);
    let received = receive(&mut c, by_a, &entries);
    assert_eq!((received.entries, received.waiting), (2, 2));
    let mut calls = 0;
    let mut before = changed(&mut c);
    loop {
        let row = *c.store().journal(LaneId::Normal, &by_a).unwrap();
        // What is not done is told of to nobody, though it is held.
        assert_eq!((row.held, row.applied), (3, 1));
        assert_eq!(fed(&mut c, &by_a), [1]);
        assert_eq!(c.store().frontier(LaneId::Normal).seq(&by_a), 3);
        // Another lane, and another member in this one, do not wait for it.
        let other = format!("other{calls}");
        b.write(LaneId::Priority, &[put_op(&other, json!(calls))]).unwrap();
        b.put(&other, json!(calls)).unwrap();
        for lane in [LaneId::Priority, LaneId::Normal] {
            let by_b = b.store().author();
            let snapshot = b.store().reader().snapshot().unwrap();
            let entries = snapshot.entries(lane, &by_b, calls + 1, usize::MAX, 9).unwrap();
            let run =
                Run { lane, author: by_b, entries: entries.iter().map(Vec::as_slice).collect() };
            let received = c.store().receive(&run, &[MESH], WallMillis(9)).unwrap();
            assert_eq!((received.entries, received.waiting), (1, 0));
        }
        assert!(c.put(&other, json!({"mine": calls})).is_ok());
        calls += 1;
        let advanced = c.store().advance(LaneId::Normal, WallMillis(9), usize::MAX).unwrap();
        let now = changed(&mut c);
        assert!((1..=3).contains(&(now - before)), "a call worked on {} objects", now - before);
        before = now;
        if now == OBJECTS {
            break;
        }
        assert!(advanced.more);
    }
    assert!(calls > OBJECTS as u64 / 4);
    while c.store().advance(LaneId::Normal, WallMillis(9), usize::MAX).unwrap().more {}
    c.store().commit().unwrap();
    assert_eq!(c.store().journal(LaneId::Normal, &by_a).unwrap().applied, 3);
    assert_eq!(fed(&mut c, &by_a), [1, 2, 3]);
    assert_eq!(c.body("last"), Some(json!(1)));
}

#[test]
fn what_a_call_left_is_done_after_a_restart_as_well() {
    let (mut whole, by_a, entries) = ahead();
    whole.store().work_target = usize::MAX;
    assert_eq!(receive(&mut whole, by_a, &entries).waiting, 0);
    whole.store().commit().unwrap();
    let (mut c, _, _) = ahead();
    receive(&mut c, by_a, &entries);
    c.store().advance(LaneId::Normal, WallMillis(9), usize::MAX).unwrap();
    let done = changed(&mut c);
    assert!((1..OBJECTS).contains(&done));
    c.store.take().unwrap().close().unwrap();
    c.reopen(Some(1)).unwrap();
    c.store().work_target = 1_000;
    assert_eq!(changed(&mut c), done);
    while c.store().advance(LaneId::Normal, WallMillis(9), usize::MAX).unwrap().more {}
    assert_eq!(changed(&mut c), OBJECTS);
    assert_eq!(fed(&mut c, &by_a), [1, 2, 3]);
    assert_eq!(c.store().counts(LaneId::Normal), whole.store().counts(LaneId::Normal));
    for n in 0..OBJECTS {
        assert_eq!(c.see(LaneId::Normal, &id(n)), whole.see(LaneId::Normal, &id(n)));
    }
}

#[test]
fn small_changes_that_make_large_rows_are_not_gathered_in_memory() {
    let a = Device::new(1);
    let author = a.store.as_ref().unwrap().author();
    let content = Content::of(json!(vec![Value::Null; 20_000])).unwrap();
    let change: EncodedChange = Object::create(&content, author.actor(), WallMillis(1));
    assert!(change.bytes.len() < 1_000);
    let ids: Vec<String> = (0..100).map(id).collect();
    let items = ids.iter().map(|id| (id.as_str(), 1, &change)).collect();
    let entries = signed(&a.key, author, LaneId::Normal, Vec::new(), &[items]);
    let mut c = Device::new(3);
    receive(&mut c, author, &entries);
    c.store().commit().unwrap();
    assert_eq!(c.store().counts(LaneId::Normal).live, 100);
    let fullest = c.store().fullest;
    assert!(fullest >= STEP_BYTES_TARGET, "the test shows nothing: {fullest} bytes");
    assert!(fullest < STEP_BYTES_TARGET + 300_000, "{fullest} bytes were held at once");
    // Nor are those that are only read.
    let follows = |n: usize| {
        let mut object = Object::new();
        object.apply(&change.bytes, change.hash, author.actor()).unwrap();
        let content = Content::new("note", "internal", BTreeMap::new(), content.body().clone());
        object.set(&content.unwrap(), author.actor(), WallMillis(n as u64)).unwrap().unwrap()
    };
    let follows = follows(2);
    let items = ids.iter().map(|id| (id.as_str(), 1, &follows)).collect();
    let entries = signed(&a.key, author, LaneId::Normal, entries, &[items]);
    c.store().fullest = 0;
    receive(&mut c, author, &entries);
    let fullest = c.store().fullest;
    assert!(fullest < STEP_BYTES_TARGET + 300_000, "{fullest} bytes were held at once");
}

#[test]
fn a_large_document_stays_and_pushes_out_no_small_one() {
    let mut a = Device::new(1);
    a.put("small", json!(1)).unwrap();
    a.put("small", json!(2)).unwrap();
    let small = tables::object_key(LaneId::Normal, "small", 1);
    let object = a.store().documents.take(&small).unwrap();
    a.store().documents.put(small.clone(), object);
    let mut large = Object::new();
    let author = a.store().author();
    for n in 0..10 {
        let text = n.to_string().repeat(2_000_000);
        let content = Content::of(json!({ "text": text })).unwrap();
        large.set(&content, author.actor(), WallMillis(n)).unwrap();
    }
    let cache = &mut a.store().documents;
    cache.put(b"large".to_vec(), large);
    let large = cache.take(b"large").expect("it would take seconds to build");
    assert!(cache.take(b"large").is_none());
    // One that shrank is not there twice.
    cache.put(b"small".to_vec(), large.clone());
    cache.put(b"small".to_vec(), Object::new());
    assert!(cache.take(b"small").is_some_and(|object| object.heads().is_empty()));
    assert!(cache.take(b"small").is_none());
    // Beyond the memory for large ones the one goes that was used least lately.
    let most = crate::store::LARGE_DOCUMENTS_BYTES_MAX / large.size_estimate();
    for n in 0..=most {
        cache.put(format!("large {n}").into_bytes(), large.clone());
    }
    assert!(cache.take(b"large 0").is_none());
    assert!((1..=most).all(|n| cache.take(format!("large {n}").as_bytes()).is_some()));
    assert!(cache.take(&small).is_some());
}
