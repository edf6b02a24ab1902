//! Members that sign what misleads: what it does to the store of those who take it in.

use super::*;
use crate::journal::*;
use crate::object::{Content, EncodedChange, Object};

/// One change of one life of an object, as an entry carries it.
pub(super) type Signed<'a> = (&'a str, u32, &'a EncodedChange);

/// Entries of a journal of a lane, which name no others, after those that it has.
pub(super) fn signed(
    key: &SigningKey,
    author: Author,
    lane: LaneId,
    journal: Vec<Vec<u8>>,
    entries: &[Vec<Signed<'_>>],
) -> Vec<Vec<u8>> {
    signed_after(key, author, lane, journal, entries, Vec::new())
}

/// Such entries, of which the first comes after those of others.
pub(super) fn signed_after(
    key: &SigningKey,
    author: Author,
    lane: LaneId,
    mut journal: Vec<Vec<u8>>,
    entries: &[Vec<Signed<'_>>],
    mut after: Vec<After>,
) -> Vec<Vec<u8>> {
    let mut prev = journal.last().map_or(EntryHash::NONE, |bytes| Entry::read(bytes).unwrap().hash);
    for (seq, items) in (journal.len() as u64 + 1..).zip(entries) {
        let bodies: Vec<Vec<u8>> = items
            .iter()
            .map(|(id, life, change)| BodyParts { life: *life, id, change: &change.bytes }.write())
            .collect();
        let item = |((id, life, change), body): (&Signed<'_>, &Vec<u8>)| Item {
            key: crate::ids::ObjectKey::new(lane, id, *life),
            change: change.hash,
            body_len: body.len() as u32,
            class: 0,
            confined: false,
        };
        let header = Header {
            version: HEADER_VERSION,
            mesh: MESH,
            lane,
            author,
            seq,
            prev,
            wall: WallMillis(seq),
            after: std::mem::take(&mut after),
            classes: vec!["internal".into()],
            items: items.iter().zip(&bodies).map(item).collect(),
        }
        .to_bytes();
        prev = hash_header(&header);
        let bodies: Vec<Body<'_>> = bodies.iter().map(|body| Body::Here(body)).collect();
        journal.push(write_entry(&sign_header(&header, key), &header, &bodies));
    }
    journal
}

/// A journal with entries of one change of one object each.
pub(super) fn journal(
    key: &SigningKey,
    author: Author,
    id: &str,
    changes: &[EncodedChange],
    entries: Vec<Vec<u8>>,
) -> Vec<Vec<u8>> {
    let items: Vec<_> = changes.iter().map(|change| vec![(id, 1, change)]).collect();
    signed(key, author, LaneId::Normal, entries, &items)
}

impl Device {
    pub(super) fn journal(&self, id: &str, changes: &[EncodedChange]) -> Vec<Vec<u8>> {
        self.journal_after(id, changes, Vec::new())
    }

    /// More entries of this device's journal, after these.
    fn journal_after(
        &self,
        id: &str,
        changes: &[EncodedChange],
        before: Vec<Vec<u8>>,
    ) -> Vec<Vec<u8>> {
        journal(&self.key, self.store.as_ref().unwrap().author(), id, changes, before)
    }
}

fn content(n: u64) -> Content {
    Content::of(json!({"n": n})).unwrap()
}

impl Device {
    /// Takes in a journal, commits, and applies what is ready.
    fn take(&mut self, author: Author, entries: &[Vec<u8>]) {
        self.take_of(LaneId::Normal, author, entries);
    }

    pub(super) fn take_of(&mut self, lane: LaneId, author: Author, entries: &[Vec<u8>]) {
        let entries = entries.iter().map(Vec::as_slice).collect();
        let run = Run { lane, author, entries };
        self.store().receive(&run, &[MESH], WallMillis(9)).unwrap();
        while self.store().advance(lane, WallMillis(9), usize::MAX).unwrap().more {}
        self.store().commit().unwrap();
    }

    fn applied(&mut self, author: &Author) -> u64 {
        self.store().journal(LaneId::Normal, author).map_or(0, |row| row.applied)
    }

    /// Makes an entry another one than was written.
    fn damage(&mut self, author: &Author, seq: u64, damage: fn(&mut Vec<u8>)) {
        let number = self.store().authors.number(author).unwrap();
        let key = tables::entry_key(LaneId::Normal, number, seq);
        self.store()
            .with_turn(|_, turn| {
                let mut entries = turn.open_table(tables::ENTRIES)?;
                let mut bytes =
                    tables::read_with(&entries, tables::ENTRIES, &key, <[u8]>::to_vec)?.unwrap();
                damage(&mut bytes);
                tables::insert(&mut entries, tables::ENTRIES, &key, &bytes)
            })
            .unwrap();
        self.store().commit().unwrap();
        self.store().documents.clear();
    }

    fn row(&mut self, id: &str) -> Option<tables::ObjectRow> {
        match self.see(LaneId::Normal, id) {
            Visibility::Shown(object) => Some(object.row),
            _ => None,
        }
    }
}

/// Changes of one object by A, and one by B that follows them.
fn followed() -> (Device, Device, Vec<EncodedChange>, EncodedChange) {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    let (by_a, by_b) = (a.store().author().actor(), b.store().author().actor());
    let mut object = Object::new();
    let mut changes = Vec::new();
    for n in 1..=3 {
        changes.push(object.set(&content(n), by_a, WallMillis(n)).unwrap().unwrap());
    }
    let follows = object.set(&content(100), by_b, WallMillis(9)).unwrap().unwrap();
    (a, b, changes, follows)
}

#[test]
fn a_change_whose_entry_names_too_little_waits_for_what_it_follows() {
    let (mut a, mut b, changes, follows) = followed();
    let (first, then) = (a.journal("x", &changes), b.journal("x", &[follows]));
    let (by_a, by_b) = (a.store().author(), b.store().author());
    let (mut early, mut late) = (Device::new(3), Device::new(4));
    late.take(by_a, &first);
    late.take(by_b, &then);
    early.take(by_b, &then);
    assert_eq!(early.applied(&by_b), 1);
    assert!(matches!(early.row("x").unwrap().state, RowState::Quarantined(_)));
    // A part of what it follows is not enough, and a restart forgets nothing.
    early.take(by_a, &first[..2]);
    assert_eq!(early.body("x"), Some(json!({"n": 2})));
    assert!(matches!(early.row("x").unwrap().state, RowState::Quarantined(_)));
    early.store.take().unwrap().close().unwrap();
    early.reopen(Some(1)).unwrap();
    early.take(by_a, &first[2..]);
    assert_eq!(early.body("x"), Some(json!({"n": 100})));
    let (early, late) = (early.row("x").unwrap(), late.row("x").unwrap());
    assert_eq!((&early.state, &late.state), (&RowState::Live, &RowState::Live));
    assert_eq!((early.body, early.changes), (late.body, late.changes));
    assert_eq!(early.heads[0].hash, late.heads[0].hash);
}

#[test]
fn a_change_that_follows_what_nobody_has_quarantines_its_object_alone() {
    let (mut a, mut b, _, follows) = followed();
    let mut c = Device::new(3);
    let by_b = b.store().author();
    let mut entries = b.journal("x", &[follows]);
    let more = Object::create(&content(7), by_b.actor(), WallMillis(7));
    entries = b.journal_after("y", &[more], entries);
    c.take(by_b, &entries);
    // What else its author wrote is applied.
    assert_eq!(c.applied(&by_b), 2);
    assert_eq!(c.body("y"), Some(json!({"n": 7})));
    assert_eq!(c.store().counts(LaneId::Normal).quarantined, 1);
    assert!(matches!(c.put("x", json!(1)), Err(WriteError::Quarantined { .. })));
    a.put("z", json!(2)).unwrap();
    c.pull(&mut a);
    assert_eq!(c.body("z"), Some(json!(2)));
}

#[test]
fn a_change_that_waits_within_one_step_alone_leaves_its_object_as_if_it_had_not() {
    // M's change follows A's second, which comes in the same step and after it.
    let (mut a, m, mut gate) = (Device::new(1), Device::new(2), Device::new(3));
    let (by_a, by_m) = (a.store().author(), m.store.as_ref().unwrap().author());
    let mut object = Object::new();
    let mut set = |n, author: Author| {
        object.set(&content(n), author.actor(), WallMillis(n)).unwrap().unwrap()
    };
    let of_a = [set(1, by_a), set(2, by_a)];
    let follows = set(3, by_m);
    let other = Object::create(&content(1), by_m.actor(), WallMillis(1));
    gate.put("gate", json!(1)).unwrap();
    let by_gate = gate.store().author();
    let after = vec![After { author: by_gate, seq: 1 }];
    let next = |of: &Device, by, journal, change| {
        let items = [vec![("x", 1, change)]];
        signed_after(&of.key, by, LaneId::Normal, journal, &items, after.clone())
    };
    let of_m = next(&m, by_m, m.journal("y", &[other]), &follows);
    let of_a = next(&a, by_a, a.journal("x", &of_a[..1]), &of_a[1]);
    let mut c = Device::new(4);
    c.take(by_m, &of_m[..1]);
    c.take(by_a, &of_a);
    c.take(by_m, &of_m[1..]);
    assert_eq!((c.applied(&by_m), c.applied(&by_a)), (1, 1));
    c.pull(&mut gate);
    let row = c.row("x").unwrap();
    assert_eq!((row.body.as_str(), row.changes), (r#"{"n":3}"#, 3));
    assert_eq!(row.state, RowState::Live);
    c.put("x", json!({"n": 4})).unwrap();
}

#[test]
fn a_change_that_can_never_be_applied_quarantines_its_object_alone() {
    let a = Device::new(1);
    let mut c = Device::new(3);
    let by_a = a.store.as_ref().unwrap().author();
    // It is numbered as if nothing went before it, and so is what follows it.
    let mut object = Object::new();
    let mut bad = object.set(&content(1), by_a.actor(), WallMillis(1)).unwrap().unwrap();
    let follows = object.set(&content(2), by_a.actor(), WallMillis(2)).unwrap().unwrap();
    let at = bad.bytes.windows(16).position(|bytes| bytes == by_a.actor()).unwrap() + 17;
    assert_eq!(bad.bytes[at], 3);
    bad.bytes[at] = 4;
    let (bytes, hash) = crate::object::tests::hostile::sealed(bad.bytes);
    (bad.bytes, bad.hash) = (bytes, hash);
    let changes = [bad.clone(), follows_with(&follows, hash)];
    c.take(by_a, &a.journal("x", &changes));
    // What was refused is known to be, so that what follows it does not wait for it.
    assert_eq!(c.applied(&by_a), 2);
    assert_eq!(c.store().counts(LaneId::Normal).quarantined, 1);
    assert!(matches!(c.row("x").unwrap().state, RowState::Quarantined(_)));
    c.put("y", json!(1)).unwrap();
    assert_eq!(c.body("y"), Some(json!(1)));
    assert!(matches!(c.put("x", json!(1)), Err(WriteError::Quarantined { .. })));
}

/// The change as if it followed another one.
fn follows_with(change: &EncodedChange, dep: crate::ids::ChangeHash) -> EncodedChange {
    let mut bytes = change.bytes.clone();
    let at = bytes.windows(32).position(|bytes| bytes == change.deps[0].0).unwrap();
    bytes[at..at + 32].copy_from_slice(&dep.0);
    let (bytes, hash) = crate::object::tests::hostile::sealed(bytes);
    EncodedChange { hash, bytes, deps: vec![dep] }
}

#[test]
fn an_object_whose_own_changes_are_damaged_is_quarantined_and_others_go_on() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!({"n": 1})).unwrap();
    a.put("x", json!({"n": 2})).unwrap();
    b.pull(&mut a);
    let by_a = a.store().author();
    // The body is no longer the one that was written.
    b.damage(&by_a, 1, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let refused = b.put("x", json!({"n": 9}));
    assert!(matches!(refused, Err(WriteError::Quarantined { .. })), "{refused:?}");
    a.put("x", json!({"n": 3})).unwrap();
    a.put("y", json!({"n": 4})).unwrap();
    b.pull(&mut a);
    assert_eq!(b.store().latched(), None);
    let row = b.row("x").unwrap();
    assert!(matches!(row.state, RowState::Quarantined(_)));
    assert_eq!(row.body, r#"{"n":2}"#);
    assert_eq!(b.body("y"), Some(json!({"n": 4})));
}

#[test]
fn a_change_that_waited_and_is_damaged_quarantines_its_object_and_others_go_on() {
    let (mut a, mut b, changes, follows) = followed();
    let (first, then) = (a.journal("x", &changes), b.journal("x", &[follows]));
    let (by_a, by_b) = (a.store().author(), b.store().author());
    let mut early = Device::new(3);
    early.take(by_b, &then);
    early.damage(&by_b, 1, |bytes| bytes.truncate(70));
    early.take(by_a, &first);
    assert_eq!(early.store().latched(), None);
    let row = early.row("x").unwrap();
    assert_eq!(row.body, r#"{"n":3}"#);
    let RowState::Quarantined(why) = row.state else { panic!("{:?}", row.state) };
    assert!(why.contains("entries"), "{why}");
    early.put("y", json!(1)).unwrap();
    assert_eq!(early.body("y"), Some(json!(1)));
}

#[test]
fn two_histories_are_told_apart_within_one_turn() {
    let (mut a, mut c) = (Device::new(1), Device::new(3));
    let by_a = a.store().author();
    let change = |n| Object::new().set(&content(n), by_a.actor(), WallMillis(n)).unwrap().unwrap();
    let (one, other) = (a.journal("x", &[change(1)]), a.journal("x", &[change(2)]));
    let receive = |c: &mut Device, entries: &[Vec<u8>]| {
        let entries = entries.iter().map(Vec::as_slice).collect();
        let run = Run { lane: LaneId::Normal, author: by_a, entries };
        c.store().receive(&run, &[MESH], WallMillis(9))
    };
    receive(&mut c, &one).unwrap();
    assert!(c.store().in_turn());
    assert_eq!(receive(&mut c, &one).unwrap().entries, 0);
    let refused = receive(&mut c, &other);
    assert!(matches!(refused, Err(ReceiveError::Equivocation { seq: 1 })), "{refused:?}");
    c.store().commit().unwrap();
    assert!(c.store().journal(LaneId::Normal, &by_a).unwrap().forked);
    assert_eq!(c.store().reader().snapshot().unwrap().evidence_len().unwrap(), 1);
}

#[test]
fn a_body_that_every_member_may_have_cannot_be_left_out() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    a.write(LaneId::Normal, &[put_class("s", "secret", json!(2))]).unwrap();
    let by_a = a.store().author();
    let entries =
        a.store().reader().snapshot().unwrap().entries(LaneId::Normal, &by_a, 1, usize::MAX, 9);
    let entries = entries.unwrap();
    let without = |bytes: &[u8], state: Body<'static>| {
        let mut entry = Entry::read(bytes).unwrap();
        entry.bodies[0] = state;
        entry.write()
    };
    let mut receive = |entries: &[Vec<u8>]| {
        let entries = entries.iter().map(Vec::as_slice).collect();
        let run = Run { lane: LaneId::Normal, author: by_a, entries };
        b.store().receive(&run, &[MESH], WallMillis(9))
    };
    for state in [Body::Withheld, Body::Purged, Body::Missing] {
        let refused = receive(&[without(&entries[0], state)]);
        assert!(matches!(refused, Err(ReceiveError::BodyLeftOut { seq: 1 })), "{refused:?}");
    }
    receive(&[entries[0].clone(), without(&entries[1], Body::Withheld)]).unwrap();
}

#[test]
fn what_follows_a_change_that_is_withheld_here_quarantines_its_object_alone() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    let (by_a, by_b) = (a.store().author(), b.store().author());
    let mut object = Object::new();
    let one = object.set(&content(1), by_a.actor(), WallMillis(1)).unwrap().unwrap();
    let follows = object.set(&content(2), by_b.actor(), WallMillis(2)).unwrap().unwrap();
    // A says that its change is confined, which B's entry does not.
    let entry = a.journal("x", &[one]);
    let mut header = Entry::read(&entry[0]).unwrap().header;
    header.items[0].confined = true;
    let header = header.to_bytes();
    let withheld = write_entry(&sign_header(&header, &a.key), &header, &[Body::Withheld]);
    let mut c = Device::new(3);
    c.take(by_b, &b.journal("x", &[follows]));
    c.take(by_a, &[withheld]);
    assert_eq!((c.applied(&by_a), c.applied(&by_b)), (1, 1));
    assert!(matches!(c.row("x").unwrap().state, RowState::Quarantined(_)));
}

#[test]
fn an_object_of_which_all_was_refused_is_told_of_alike_in_any_order() {
    let (a, b) = (Device::new(1), Device::new(2));
    let bad = |device: &Device, class: &str| {
        let author = device.store.as_ref().unwrap().author();
        let content = Content::new("note", class, BTreeMap::new(), json!(1)).unwrap();
        let mut object = Object::new();
        let mut change = object.set(&content, author.actor(), WallMillis(1)).unwrap().unwrap();
        let at = change.bytes.windows(16).position(|bytes| bytes == author.actor()).unwrap() + 17;
        change.bytes[at] += 1;
        let (bytes, hash) = crate::object::tests::hostile::sealed(change.bytes);
        (author, device.journal("x", &[EncodedChange { hash, bytes, deps: vec![] }]))
    };
    let (one, other) = (bad(&a, "internal"), bad(&b, "public"));
    let mut rows = Vec::new();
    for order in [[&one, &other], [&other, &one]] {
        let mut c = Device::new(3);
        for (author, entries) in order {
            c.take(*author, entries);
        }
        let object = match c.see(LaneId::Normal, "x") {
            Visibility::Shown(object) => object,
            other => panic!("{other:?}"),
        };
        rows.push((object.author, object.row.class, object.row.updated_at, object.row.confined));
    }
    assert_eq!(rows[0], rows[1]);
}

#[test]
fn what_another_signs_of_a_change_is_no_word_about_it() {
    let (mut a, mut b, changes, follows) = followed();
    let h = Device::new(4);
    let (by_a, by_b, by_h) =
        (a.store().author(), b.store().author(), h.store.as_ref().unwrap().author());
    // H puts its name to A's first change, with its bytes and without, and says it is confined.
    let copied = h.journal("x", &changes[..1]);
    let mut header = Entry::read(&copied[0]).unwrap().header;
    header.items[0].confined = true;
    let header = header.to_bytes();
    let signed = |bodies| vec![write_entry(&sign_header(&header, &h.key), &header, bodies)];
    let withheld = signed(&[Body::Withheld]);
    let confined = signed(&[Entry::read(&copied[0]).unwrap().bodies[0]]);
    let (first, then) = (a.journal("x", &changes), b.journal("x", &[follows]));
    for said in [&copied, &withheld, &confined] {
        let orders = [
            [(by_h, said), (by_b, &then), (by_a, &first)],
            [(by_a, &first), (by_h, said), (by_b, &then)],
            [(by_b, &then), (by_a, &first), (by_h, said)],
        ];
        for order in orders {
            let mut c = Device::new(3);
            for (author, entries) in order {
                c.take(author, entries);
            }
            let row = c.row("x").unwrap();
            assert_eq!((row.state, row.changes), (RowState::Live, 4));
            assert_eq!((row.body.as_str(), row.confined), (r#"{"n":100}"#, false));
        }
    }
}

#[test]
fn what_waits_behind_many_is_taken_in_when_each_has_what_it_follows() {
    // A's changes follow one of B's now and then, which come later and in any order.
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    let (by_a, by_b) = (a.store().author(), b.store().author());
    let mut object = Object::new();
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for n in 0..700 {
        let (changes, author) = match n % 200 {
            1 => (&mut of_b, by_b),
            _ => (&mut of_a, by_a),
        };
        changes.push(object.set(&content(n), author.actor(), WallMillis(n)).unwrap().unwrap());
    }
    let of_a = a.journal("x", &of_a);
    let of_b = b.journal("x", &of_b);
    let mut c = Device::new(3);
    c.take(by_a, &of_a);
    assert_eq!(c.body("x"), Some(json!({"n": 0})));
    for (n, entry) in of_b.into_iter().enumerate() {
        assert!(matches!(c.row("x").unwrap().state, RowState::Quarantined(_)));
        c.take(by_b, &[entry]);
        let last = 200 * (n as u64 + 1);
        assert_eq!(c.body("x"), Some(json!({"n": last.min(699)})));
    }
    let row = c.row("x").unwrap();
    assert_eq!((row.state, row.changes), (RowState::Live, 700));
}

#[test]
fn an_object_that_was_given_too_much_shows_nothing_in_any_order_and_can_be_deleted() {
    let (mut a, m) = (Device::new(1), Device::new(2));
    let (by_a, by_m) = (a.store().author(), m.store.as_ref().unwrap().author());
    a.put("x", json!({"n": 1})).unwrap();
    let creation = {
        let mut object = Object::new();
        object.set(&content(1), by_a.actor(), WallMillis(1)).unwrap().unwrap()
    };
    // Hashes that Automerge would list by the square of their number.
    let rare = crate::object::tests::crafted::rare(by_m.actor(), 2_100);
    let (mut of_a, of_m) = (a.journal("x", &[creation]), m.journal("x", &rare));
    // It is the latest of all, and has no place where it comes last.
    let entry = Entry::read(&of_a[0]).unwrap();
    let header = Header { wall: WallMillis(1 << 40), ..entry.header.clone() }.to_bytes();
    of_a = vec![write_entry(&sign_header(&header, &a.key), &header, &entry.bodies)];
    let mut told = Vec::new();
    for order in [[(by_a, &of_a), (by_m, &of_m)], [(by_m, &of_m), (by_a, &of_a)]] {
        let mut c = Device::new(3);
        for (author, entries) in order {
            for entries in entries.chunks(500) {
                c.take(author, entries);
            }
        }
        let Visibility::Shown(object) = c.see(LaneId::Normal, "x") else { panic!("not shown") };
        let row = object.row;
        told.push((row.state, row.body, row.heads, row.changes, object.author, row.updated_at));
        assert!(matches!(told[0].0, RowState::Quarantined(_)), "{:?}", told[0]);
        c.delete("x").unwrap();
        c.put("x", json!(2)).unwrap();
        assert_eq!(c.body("x"), Some(json!(2)));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!((told[0].1.as_str(), told[0].3), ("null", 0));
}

#[test]
fn nobody_waits_for_a_journal_that_is_forked() {
    let (mut a, m) = (Device::new(1), Device::new(2));
    let by_m = m.store.as_ref().unwrap().author();
    let mut c = Device::new(3);
    let fork = |n| {
        let change = Object::create(&content(n), by_m.actor(), WallMillis(n));
        m.journal("m", &[change])
    };
    let (one, other) = (fork(1), fork(2));
    c.take(by_m, &one);
    // A has the other history, and builds on what follows in it.
    a.take(by_m, &other);
    a.put("m", json!({"n": 5})).unwrap();
    a.put("y", json!(1)).unwrap();
    let refused = {
        let entries = other.iter().map(Vec::as_slice).collect();
        let run = Run { lane: LaneId::Normal, author: by_m, entries };
        c.store().receive(&run, &[MESH], WallMillis(9))
    };
    assert!(matches!(refused, Err(ReceiveError::Equivocation { .. })));
    let by_a = a.store().author();
    let snapshot = a.store().reader().snapshot().unwrap();
    let entries = snapshot.entries(LaneId::Normal, &by_a, 1, usize::MAX, 9).unwrap();
    c.take(by_a, &entries);
    assert_eq!(c.applied(&by_a), 2);
    assert_eq!(c.body("y"), Some(json!(1)));
    assert!(matches!(c.row("m").unwrap().state, RowState::Quarantined(_)));
}
