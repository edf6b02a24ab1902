//! What a store can tell of itself: what is not here, what waits and for whom, and which rows are damaged.

use super::*;
use crate::journal::{Body, Entry};
use crate::tables::AbsentRow;

fn entries(of: &mut Device) -> Vec<Vec<u8>> {
    let author = of.store().author();
    let snapshot = of.store().reader().snapshot().unwrap();
    snapshot.entries(LaneId::Normal, &author, 1, usize::MAX, usize::MAX).unwrap()
}

fn receive(to: &mut Device, author: Author, entries: &[Vec<u8>]) -> Received {
    let entries = entries.iter().map(Vec::as_slice).collect();
    let now = to.now().wall;
    let run = Run { lane: LaneId::Normal, author, entries };
    let received = to.store().receive(&run, &[MESH], now).unwrap();
    to.store().commit().unwrap();
    received
}

#[test]
fn bodies_that_did_not_come_are_counted_and_still_after_a_restart() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    let kept = put_class("x", "secret", json!({"hidden": true}));
    a.write(LaneId::Normal, &[put_op("open", json!(1)), kept]).unwrap();
    let confined: Vec<Vec<u8>> = entries(&mut a)
        .iter()
        .map(|bytes| {
            let mut entry = Entry::read(bytes).unwrap();
            for (item, body) in entry.header.items.iter().zip(&mut entry.bodies) {
                let class = &entry.header.classes[usize::from(item.class)];
                if class == "secret" {
                    *body = Body::Withheld;
                }
            }
            entry.write()
        })
        .collect();
    let author = a.store().author();
    receive(&mut b, author, &confined);
    let one = AbsentRow { withheld: 1, ..AbsentRow::default() };
    assert_eq!(b.store().counts(LaneId::Normal).absent, Some(one));
    // The same again is nothing new.
    receive(&mut b, author, &confined);
    assert_eq!(b.store().counts(LaneId::Normal).absent, Some(one));
    let facts = b.store().reader().snapshot().unwrap().verify_lane(LaneId::Normal).unwrap();
    assert_eq!((facts.journals[0].absent, facts.journals[0].changes), (one, 1));
    b.store.take().unwrap().close().unwrap();
    b.reopen(Some(1)).unwrap();
    assert_eq!(b.store().counts(LaneId::Normal).absent, Some(one));
    assert_eq!(a.store().counts(LaneId::Normal).absent, Some(AbsentRow::default()));
}

#[test]
fn journal_that_waits_says_for_which_entry_of_whom() {
    let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    a.put("x", json!({"a": 1})).unwrap();
    b.pull(&mut a);
    b.put("x", json!({"a": 1, "b": 2})).unwrap();
    b.put("x", json!({"a": 1, "b": 3})).unwrap();
    let (of_a, of_b) = (a.store().author(), b.store().author());
    let run = entries(&mut b);
    assert_eq!(receive(&mut c, of_b, &run).waiting, 2);
    let since = c.now().wall;
    let waiting = |c: &mut Device, limit| {
        c.store().reader().snapshot().unwrap().waiting(LaneId::Normal, limit).unwrap()
    };
    let expected = Waiting { author: of_b, seq: 1, since, wants: Some((of_a, 1)) };
    assert_eq!(waiting(&mut c, 9), [expected]);
    assert_eq!(waiting(&mut c, 0), []);
    c.pull(&mut a);
    assert_eq!(waiting(&mut c, 9), []);
    assert_eq!(c.body("x"), Some(json!({"a": 1, "b": 3})));
}

/// The entries are whole; only what reads use is not.
#[test]
fn flipped_byte_in_the_row_of_an_object_is_found_by_verification() {
    let mut a = Device::new(1);
    let body = json!({"phrase": "correct horse battery"});
    a.put("x", body.clone()).unwrap();
    a.put("y", json!(1)).unwrap();
    a.store.take().unwrap().close().unwrap();
    let mut bytes = std::fs::read(a.path()).unwrap();
    let needle = body.to_string();
    let places: Vec<_> = (0..bytes.len() - needle.len())
        .filter(|at| bytes[*at..].starts_with(needle.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 3] ^= 1;
    }
    std::fs::write(a.path(), &bytes).unwrap();
    a.reopen(Some(1)).unwrap();
    let facts = a.store().reader().snapshot().unwrap().verify_lane(LaneId::Normal).unwrap();
    assert_eq!(facts.journals[0].damage, None);
    assert_eq!((facts.damaged_rows, facts.rows), (1, 1), "{facts:?}");
    assert_eq!(facts.damaged[0].0, "x");
}
