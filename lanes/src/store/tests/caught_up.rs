//! Many changes of few objects at once, and what is read of them later.

use super::*;

/// Hands over all entries of a journal, so many in a run.
fn hand(from: &mut Device, to: &mut Device, author: Author, entries_in_a_run: usize) {
    let snapshot = from.store().reader().snapshot().unwrap();
    let entries = snapshot.entries(LaneId::Normal, &author, 1, usize::MAX, usize::MAX).unwrap();
    for run in entries.chunks(entries_in_a_run) {
        let entries = run.iter().map(Vec::as_slice).collect();
        let run = Run { lane: LaneId::Normal, author, entries };
        to.store().receive(&run, &[MESH], WallMillis(50)).unwrap();
        to.store().advance(LaneId::Normal, WallMillis(50), usize::MAX).unwrap();
        to.store().commit().unwrap();
    }
}

fn shown(device: &mut Device, id: &str) -> tables::ObjectRow {
    match device.see(LaneId::Normal, id) {
        Visibility::Shown(object) => object.row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn many_changes_in_a_run_give_what_each_by_itself_gives() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    for n in 0..60 {
        let ops: Vec<Op> = (0..10)
            .map(|m| put_op(&format!("x{}", m % 3), json!({"n": n, "m": m, "a": {"deep": n}})))
            .collect();
        a.write(LaneId::Normal, &ops).unwrap();
        if n == 20 {
            b.pull(&mut a);
        }
    }
    b.put("x1", json!({"n": -1, "b": true})).unwrap();
    let (by_a, by_b) = (a.store().author(), b.store().author());
    let (mut whole, mut single) = (Device::new(3), Device::new(4));
    hand(&mut a, &mut whole, by_a, usize::MAX);
    hand(&mut a, &mut single, by_a, 1);
    for device in [&mut whole, &mut single] {
        hand(&mut b, device, by_b, usize::MAX);
        assert_eq!(device.store().counts(LaneId::Normal).live, 3);
    }
    for id in ["x0", "x1", "x2"] {
        let (whole, single) = (shown(&mut whole, id), shown(&mut single, id));
        assert_eq!((&whole.heads, &whole.body), (&single.heads, &single.body));
        assert_eq!((whole.changes, whole.updated_at), (single.changes, single.updated_at));
        assert_eq!((whole.first, &whole.conflicts), (single.first, &single.conflicts));
    }
    assert!(!shown(&mut whole, "x1").conflicts.is_empty());
    a.pull(&mut b);
    assert_eq!(a.body("x1"), whole.body("x1"));
    // What was saved and listed on the way can be rebuilt, and written to.
    whole.store().documents.clear();
    whole.put("x2", json!({"n": 0})).unwrap();
    assert_eq!(whole.body("x2"), Some(json!({"n": 0})));
}

#[test]
fn a_bad_change_among_good_ones_is_left_out_alike_in_any_company() {
    let mut a = Device::new(1);
    let author = a.store().author();
    let content = |n: u64| crate::object::Content::of(json!({"n": n})).unwrap();
    let mut object = crate::object::Object::new();
    let mut changes = Vec::new();
    let mut fork = None;
    for n in 1..=8 {
        if n == 4 {
            fork = Some(object.clone());
        }
        changes.push(object.set(&content(n), author.actor(), WallMillis(n)).unwrap().unwrap());
    }
    // What its author wrote in another history of the object.
    let foreign = fork.unwrap().set(&content(101), author.actor(), WallMillis(2)).unwrap().unwrap();
    changes.insert(5, foreign);
    let entries = a.journal("x", &changes);
    let mut rows = Vec::new();
    for entries_in_a_run in [1, 4, 9] {
        let mut b = Device::new(2);
        for run in entries.chunks(entries_in_a_run) {
            let entries = run.iter().map(Vec::as_slice).collect();
            let run = Run { lane: LaneId::Normal, author, entries };
            b.store().receive(&run, &[MESH], WallMillis(9)).unwrap();
            b.store().commit().unwrap();
        }
        rows.push(shown(&mut b, "x"));
    }
    // And with it what its author did to the object after it.
    assert_eq!(rows[0].body, r#"{"n":5}"#);
    assert_eq!(rows[0].changes, 5);
    assert!(matches!(rows[0].state, RowState::Quarantined(_)));
    assert!(rows.iter().all(|row| *row == rows[0]));
}

#[test]
fn no_flipped_bit_of_an_entry_reaches_a_document() {
    let mut a = Device::new(1);
    let ops: Vec<Op> = (0..4).map(|n| put_op(&format!("x{}", n % 2), json!({"n": n}))).collect();
    a.write(LaneId::Normal, &ops).unwrap();
    a.put("x0", json!({"n": 9})).unwrap();
    let document = |store: &Store| {
        let snapshot = store.reader().snapshot().unwrap();
        snapshot.document(LaneId::Normal, "x0", 1).map(|found| found.unwrap().view().unwrap())
    };
    let whole = document(a.store()).unwrap();
    let key = tables::entry_key(LaneId::Normal, 0, 1);
    let entries = |store: &Store| {
        let snapshot = store.reader().snapshot().unwrap();
        let table = snapshot.table(tables::ENTRIES).unwrap();
        redb::ReadableTable::get(table, key.as_slice()).unwrap().unwrap().value().to_vec()
    };
    let good = entries(a.store());
    let (mut found, mut harmless) = (0, 0);
    for at in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        a.store()
            .with_turn(|_, turn| {
                turn.open_table(tables::ENTRIES)?.insert(key.as_slice(), bad.as_slice())?;
                Ok(())
            })
            .unwrap();
        a.store().commit().unwrap();
        match document(a.store()) {
            Ok(view) => {
                // It lies in the header, in another object's body, or in the seal.
                assert_eq!(view, whole);
                harmless += 1;
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
                found += 1;
            }
        }
        let snapshot = a.store().reader().snapshot().unwrap();
        let facts = snapshot.verify_lane(LaneId::Normal).unwrap();
        let by_last = snapshot.verify_lane_by_last_signatures(LaneId::Normal).unwrap();
        assert_eq!(by_last.journals[0].damage, facts.journals[0].damage);
        assert_eq!(facts.journals[0].damage.as_ref().unwrap().seq, 1, "verification finds each");
    }
    assert!(found > 50 && harmless > 50, "{found} found, {harmless} elsewhere");
}
