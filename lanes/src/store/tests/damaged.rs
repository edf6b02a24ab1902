//! A bit that flipped in one row: that object alone is out of reach, and all else goes on.

use super::*;
use crate::object::{Content, Object};

impl Device {
    /// Flips a bit of a value under its seal.
    pub(super) fn flip(&mut self, table: tables::Bytes, key: &[u8]) {
        self.store()
            .with_turn(|_, turn| {
                let mut table = turn.open_table(table)?;
                let mut bytes = redb::ReadableTable::get(&table, key)?.unwrap().value().to_vec();
                bytes[0] ^= 1;
                table.insert(key, bytes.as_slice())?;
                Ok(())
            })
            .unwrap();
        self.store().commit().unwrap();
        self.store().documents.clear();
    }

    fn read_of(&mut self, id: &str) -> Result<Visibility, StoreError> {
        let now = self.now().wall;
        self.store().reader().snapshot().unwrap().object(LaneId::Normal, id, now)
    }

    fn listed(&mut self) -> Vec<(String, bool)> {
        let snapshot = self.store().reader().snapshot().unwrap();
        let query = Query { limit: 10, ..Query::default() };
        let page = snapshot.list(LaneId::Normal, &query, WallMillis(5_000)).unwrap();
        let shown = page.objects.into_iter();
        shown.map(|object| (object.id, object.row.state == RowState::Live)).collect()
    }
}

#[test]
fn a_damaged_row_stops_its_object_alone() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!({"n": 1})).unwrap();
    a.put("y", json!({"n": 1})).unwrap();
    b.pull(&mut a);
    b.flip(tables::OBJECTS, &tables::object_key(LaneId::Normal, "x", 1));
    a.write(LaneId::Normal, &[put_op("x", json!({"n": 2})), put_op("y", json!({"n": 2}))]).unwrap();
    b.pull(&mut a);
    let by_a = a.store().author();
    for _ in 0..2 {
        assert_eq!(b.store().latched(), None);
        // What came is kept, and said to be.
        let row = *b.store().journal(LaneId::Normal, &by_a).unwrap();
        assert_eq!((row.held, row.applied), (3, 3));
        assert_eq!(b.body("y"), Some(json!({"n": 2})));
        let read = b.read_of("x");
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
        assert_eq!(b.listed()[..2], [("x".into(), false), ("y".into(), true)]);
        for refused in [b.put("x", json!(3)).map(drop), b.delete("x").map(drop)] {
            assert!(matches!(refused, Err(WriteError::Damaged { .. })), "{refused:?}");
        }
        assert!(b.put("z", json!(1)).is_ok());
        b.store.take().unwrap().close().unwrap();
        let opens = b.opens_inside();
        b.reopen(Some(opens)).unwrap();
    }
    // A deletion that comes from elsewhere puts it away, and the id is of use again.
    a.delete("x").unwrap();
    a.put("x", json!({"n": 3})).unwrap();
    b.pull(&mut a);
    assert_eq!(b.body("x"), Some(json!({"n": 3})));
}

impl Device {
    fn opens_inside(&self) -> u64 {
        let snapshot = Reader::open(&self.path()).unwrap().snapshot().unwrap();
        snapshot.meta(tables::meta::OPENS, u64::from_be_bytes).unwrap().unwrap()
    }
}

#[test]
fn a_damaged_grave_keeps_what_it_hides_hidden_and_stops_nothing() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    a.put("y", json!(1)).unwrap();
    b.pull(&mut a);
    b.delete("x").unwrap();
    b.flip(tables::TOMBSTONES, &tables::object_key(LaneId::Normal, "x", 1));
    // It is deleted apart as well, and changed.
    a.write(LaneId::Normal, &[put_op("x", json!(2)), put_op("y", json!(2))]).unwrap();
    a.delete("x").unwrap();
    b.pull(&mut a);
    assert_eq!(b.store().latched(), None);
    assert_eq!(b.body("y"), Some(json!(2)));
    let read = b.read_of("x");
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    assert_eq!(b.put("x", json!(3)).unwrap().life, 2);
    assert_eq!(b.body("x"), Some(json!(3)));
}

#[test]
fn a_damaged_entry_that_waits_stops_its_journal_alone() {
    let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    a.put("x", json!({"a": 1})).unwrap();
    b.pull(&mut a);
    b.put("x", json!({"a": 1, "b": 1})).unwrap();
    let (by_a, by_b) = (a.store().author(), b.store().author());
    let entries = |from: &mut Device, author: &Author| {
        let snapshot = from.store().reader().snapshot().unwrap();
        snapshot.entries(LaneId::Normal, author, 1, usize::MAX, usize::MAX).unwrap()
    };
    c.take_of(LaneId::Normal, by_b, &entries(&mut b, &by_b));
    let number = c.store().authors.number(&by_b).unwrap();
    c.flip(tables::ENTRIES, &tables::entry_key(LaneId::Normal, number, 1));
    a.put("y", json!(1)).unwrap();
    c.take_of(LaneId::Normal, by_a, &entries(&mut a, &by_a));
    assert_eq!(c.store().latched(), None);
    assert_eq!(c.body("y"), Some(json!(1)));
    let row = *c.store().journal(LaneId::Normal, &by_b).unwrap();
    assert_eq!((row.held, row.applied), (1, 0));
    let waiting = c.store().reader().snapshot().unwrap().waiting(LaneId::Normal, 9).unwrap();
    assert_eq!(waiting.iter().map(|w| (w.author, w.wants)).collect::<Vec<_>>(), [(by_b, None)]);
    let facts = c.store().reader().snapshot().unwrap().verify_lane(LaneId::Normal).unwrap();
    assert_eq!(facts.journals.iter().filter(|journal| journal.damage.is_some()).count(), 1);
}

#[test]
fn entries_are_read_up_to_a_damaged_one_and_what_overlaps_it_is_taken() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    for n in 1..=4 {
        a.put("x", json!(n)).unwrap();
    }
    let by_a = a.store().author();
    let read = |of: &mut Device, from| {
        let snapshot = of.store().reader().snapshot().unwrap();
        snapshot.entries(LaneId::Normal, &by_a, from, usize::MAX, usize::MAX)
    };
    let whole = read(&mut a, 1).unwrap();
    b.take_of(LaneId::Normal, by_a, &whole[..3]);
    let number = b.store().authors.number(&by_a).unwrap();
    b.flip(tables::ENTRIES, &tables::entry_key(LaneId::Normal, number, 3));
    assert_eq!(read(&mut b, 1).unwrap(), whole[..2]);
    assert!(matches!(read(&mut b, 3), Err(StoreError::Damaged { .. })));
    b.take_of(LaneId::Normal, by_a, &whole[2..]);
    assert_eq!(b.body("x"), Some(json!(4)));
}

#[test]
fn a_damaged_proof_of_two_histories_leaves_the_journal_quarantined_and_opens() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    let by_a = a.store().author();
    b.pull(&mut a);
    let mut other = Device::new(1);
    other.store().incarnation = by_a.incarnation;
    other.put("x", json!(2)).unwrap();
    let of_other = other.store().reader().snapshot().unwrap();
    let entry = of_other.entry(LaneId::Normal, &by_a, 1).unwrap().unwrap();
    let run = Run { lane: LaneId::Normal, author: by_a, entries: vec![&entry] };
    b.store().receive(&run, &[MESH], WallMillis(9)).unwrap_err();
    b.store().commit().unwrap();
    b.flip(tables::EVIDENCE, &0_u64.to_be_bytes());
    let read = b.store().fork(LaneId::Normal, &by_a);
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    b.store.take().unwrap().close().unwrap();
    b.reopen(None).unwrap();
    assert!(b.store().journal(LaneId::Normal, &by_a).unwrap().forked);
    assert_eq!(b.store().fork_seq(LaneId::Normal, &by_a), None);
    assert_eq!(b.store().fork(LaneId::Normal, &by_a).unwrap(), None);
}

impl Device {
    fn first_key(&mut self, table: tables::Bytes) -> Vec<u8> {
        self.store()
            .with_turn(|_, turn| {
                let table = turn.open_table(table)?;
                let first = redb::ReadableTable::first(&table)?;
                Ok(first.unwrap().0.value().to_vec())
            })
            .unwrap()
    }
}

#[test]
fn a_damaged_row_of_what_waits_stops_its_object_alone() {
    let (waiting, stalled) = (tables::LEFT_OUT, tables::STALLED);
    for damaged in [&[waiting][..], &[stalled], &[waiting, stalled]] {
        let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
        let (by_a, by_b) = (a.store().author(), b.store().author());
        let mut object = Object::new();
        let mut set = |n: u64, author: &Author| {
            let content = Content::of(json!({"n": n})).unwrap();
            object.set(&content, author.actor(), WallMillis(n)).unwrap().unwrap()
        };
        let first = [set(1, &by_a), set(2, &by_a)];
        let following = [set(3, &by_b), set(4, &by_b)];
        let other = Object::create(&Content::of(json!(1)).unwrap(), by_a.actor(), WallMillis(1));
        let of_a = [vec![("x", 1, &first[0])], vec![("x", 1, &first[1])], vec![("y", 1, &other)]];
        let of_a = misled::signed(&a.key, by_a, LaneId::Normal, Vec::new(), &of_a);
        let of_b = b.journal("x", &following);
        // What follows comes first, without saying so.
        c.take_of(LaneId::Normal, by_b, &of_b[..1]);
        for table in damaged {
            let key = c.first_key(*table);
            c.flip(*table, &key);
        }
        c.take_of(LaneId::Normal, by_a, &of_a);
        c.take_of(LaneId::Normal, by_b, &of_b[1..]);
        assert_eq!(c.store().latched(), None);
        assert_eq!(c.body("y"), Some(json!(1)));
        assert_eq!(c.body("x"), Some(json!({"n": 2})), "what is whole is shown");
        assert_eq!(c.listed(), [("x".into(), false), ("y".into(), true)]);
    }
}

#[test]
fn an_expiry_of_a_damaged_row_stops_no_other() {
    let mut a = Device::new(1);
    for id in ["x", "y"] {
        let put = PutContent { body: json!(1), ttl_ms: Some(1_000), ..PutContent::default() };
        let op = Op { id: id.into(), action: Action::Put(put), if_heads: None };
        a.write(LaneId::Ephemeral, &[op]).unwrap();
    }
    a.flip(tables::OBJECTS, &tables::object_key(LaneId::Ephemeral, "x", 1));
    assert_eq!(a.store().expire(WallMillis(5_000), 10).unwrap(), 2);
    a.store().commit().unwrap();
    assert_eq!(a.store().latched(), None);
    assert_eq!(a.see(LaneId::Ephemeral, "y"), Visibility::Absent);
    assert_eq!(a.store().next_expiry().unwrap(), None);
}

#[test]
fn a_damaged_row_of_who_waits_holds_up_no_other_author() {
    let (mut a, mut p, mut q) = (Device::new(1), Device::new(2), Device::new(3));
    let (by_a, by_p, by_q) = (a.store().author(), p.store().author(), q.store().author());
    let mut object = Object::new();
    let set = |object: &mut Object, body: Value, author: &Author| {
        let content = Content::of(body).unwrap();
        object.set(&content, author.actor(), WallMillis(1)).unwrap().unwrap()
    };
    let of_a = [set(&mut object, json!({"n": 1}), &by_a), set(&mut object, json!({"n": 2}), &by_a)];
    // Both follow the second.
    let of_p = set(&mut object.clone(), json!({"n": 2, "p": 1}), &by_p);
    let of_q = set(&mut object, json!({"n": 2, "q": 1}), &by_q);
    let (of_a, of_p) = (a.journal("x", &of_a), p.journal("x", &[of_p]));
    let of_q = q.journal("x", &[of_q]);
    let mut c = Device::new(4);
    c.take_of(LaneId::Normal, by_a, &of_a[..1]);
    c.take_of(LaneId::Normal, by_p, &of_p);
    c.take_of(LaneId::Normal, by_q, &of_q);
    let number = c.store().authors.number(&by_p).unwrap();
    let object = crate::ids::ObjectKey::new(LaneId::Normal, "x", 1);
    let key = tables::stalled_key(object, number);
    c.flip(tables::STALLED, &key);
    c.take_of(LaneId::Normal, by_a, &of_a[1..]);
    assert_eq!(c.body("x"), Some(json!({"n": 2, "q": 1})));
    assert_eq!(c.listed(), [("x".into(), false)], "what P wrote is not in it");
    // What is damaged is not written over in silence.
    let mut waits_for = None;
    c.store()
        .with_turn(|_, turn| {
            let table = turn.open_table(tables::STALLED)?;
            waits_for =
                Some(tables::read_row::<crate::ids::ChangeHash>(&table, tables::STALLED, &key));
            Ok(())
        })
        .unwrap();
    assert!(matches!(waits_for, Some(Err(StoreError::Damaged { .. }))), "{waits_for:?}");
}

#[test]
fn a_damaged_row_is_counted_as_what_it_was_until_it_is_deleted() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    b.pull(&mut a);
    a.flip(tables::OBJECTS, &tables::object_key(LaneId::Normal, "x", 1));
    b.put("x", json!(2)).unwrap();
    a.pull(&mut b);
    let counts = |of: &mut Device| {
        let counts = of.store().counts(LaneId::Normal);
        (counts.live, counts.hidden)
    };
    assert_eq!(counts(&mut a), (1, 0));
    b.delete("x").unwrap();
    a.pull(&mut b);
    assert_eq!(counts(&mut a), (0, 1));
    a.put("x", json!(3)).unwrap();
    assert_eq!(counts(&mut a), (1, 1));
}

#[test]
fn a_damaged_row_of_the_feed_and_a_damaged_entry_in_it_stop_no_follower() {
    let mut a = Device::new(1);
    for id in ["x", "y", "z", "last"] {
        a.put(id, json!(1)).unwrap();
    }
    a.flip(tables::FEED, &1_u64.to_be_bytes());
    let author = a.store().author();
    let number = a.store().authors.number(&author).unwrap();
    a.flip(tables::ENTRIES, &tables::entry_key(LaneId::Normal, number, 3));
    let feed = |a: &mut Device, after, limit| {
        a.store().reader().snapshot().unwrap().feed(after, limit, WallMillis(5_000)).unwrap()
    };
    let all = feed(&mut a, None, 100);
    let told: Vec<_> = all.iter().map(|fed| (fed.op, fed.lane, fed.id.as_str())).collect();
    let damaged = |lane| (AppliedOp::Damaged, lane, "");
    let mut expected = vec![(AppliedOp::Put, LaneId::Normal, "x")];
    expected.extend(LaneId::ALL.map(damaged));
    expected.push(damaged(LaneId::Normal));
    expected.push((AppliedOp::Put, LaneId::Normal, "last"));
    assert_eq!(told, expected);
    // From each place in it the rest is told, and nothing twice.
    for (at, fed) in all.iter().enumerate() {
        assert_eq!(feed(&mut a, Some(fed.cursor), 100), all[at + 1..]);
    }
}

#[test]
fn damaged_counters_are_counted_anew() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!({"n": 1})).unwrap();
    a.put("y", json!({"n": 1})).unwrap();
    a.put("z", json!({"n": 1})).unwrap();
    b.pull(&mut a);
    a.put("x", json!({"n": 2})).unwrap();
    b.put("x", json!({"n": 3})).unwrap();
    b.delete("y").unwrap();
    a.pull(&mut b);
    let before = a.store().counts(LaneId::Normal);
    assert_eq!((before.live, before.hidden, before.conflicted), (2, 1, 1));
    a.flip(tables::COUNTS, &[LaneId::Normal.code()]);
    let anew = CountsRow { absent: None, ..before };
    let read = |a: &mut Device| a.store().reader().snapshot().unwrap().counts(LaneId::Normal);
    assert_eq!(read(&mut a).unwrap(), anew);
    a.store.take().unwrap().close().unwrap();
    a.reopen(Some(1)).unwrap();
    assert_eq!((a.store().counts(LaneId::Normal), read(&mut a).unwrap()), (anew, anew));
    a.put("w", json!(1)).unwrap();
    assert_eq!(read(&mut a).unwrap().live, 3);
}
