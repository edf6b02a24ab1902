//! The end of objects that have a time to live: when it is known, and what it costs.

use super::*;
use crate::journal::{Body, Entry};

fn put(id: &str, body: Value, ttl_ms: u64) -> Op {
    let put = PutContent { body, ttl_ms: Some(ttl_ms), ..PutContent::default() };
    Op { id: id.into(), action: Action::Put(put), if_heads: None }
}

#[test]
fn the_time_of_an_object_is_known_before_it_is_committed() {
    let mut a = Device::new(1);
    let (now, key) = (a.now(), a.key.clone());
    a.store().write(LaneId::Ephemeral, &[put("e", json!(1), 1_000)], now, &key).unwrap();
    assert!(a.store().in_turn());
    let due = WallMillis(now.wall.0 + 1_000);
    assert_eq!(a.store().next_expiry().unwrap(), Some(due));
    a.store().commit().unwrap();
    assert_eq!(a.store().next_expiry().unwrap(), Some(due));
}

/// How many bodies of this device's entries are here, and how many are not.
fn bodies(of: &mut Device) -> (usize, usize) {
    let author = of.store().author();
    let snapshot = of.store().reader().snapshot().unwrap();
    let entries = snapshot.entries(LaneId::Ephemeral, &author, 1, usize::MAX, usize::MAX).unwrap();
    let mut found = (0, 0);
    for bytes in &entries {
        for body in Entry::read(bytes).unwrap().bodies {
            match body {
                Body::Here(_) => found.0 += 1,
                _ => found.1 += 1,
            }
        }
    }
    found
}

#[test]
fn one_call_of_expiry_works_only_so_much_and_the_next_goes_on() {
    let mut a = Device::new(1);
    for n in 0..40 {
        a.write(LaneId::Ephemeral, &[put("long", json!({"n": n}), 1_000)]).unwrap();
    }
    let many: Vec<Op> = (0..20).map(|n| put(&format!("o{n}"), json!(n), 1_000)).collect();
    a.write(LaneId::Ephemeral, &many).unwrap();
    assert_eq!(bodies(&mut a), (60, 0));
    a.store().work_target = 4_096;
    let due = WallMillis(a.wall + 1_000);
    a.wall = due.0;
    let (mut calls, mut removed) = (0, 0);
    while a.store().next_expiry().unwrap().is_some() {
        let before = bodies(&mut a).1;
        removed += a.store().expire(due, 256).unwrap();
        a.store().commit().unwrap();
        // Nothing of what has ended is shown meanwhile, and what is put is another life.
        assert!(!matches!(a.see(LaneId::Ephemeral, "long"), Visibility::Shown(_)));
        assert!(bodies(&mut a).1 - before <= 10, "one call did {}", bodies(&mut a).1 - before);
        calls += 1;
        assert!(calls < 100, "it comes to an end");
    }
    assert_eq!((removed, bodies(&mut a)), (21, (0, 60)));
    assert!(calls > 5, "{calls} calls");
    let author = a.store().author();
    let row = *a.store().journal(LaneId::Ephemeral, &author).unwrap();
    let snapshot = a.store().reader().snapshot().unwrap();
    let entries = snapshot.entries(LaneId::Ephemeral, &author, 1, usize::MAX, usize::MAX).unwrap();
    assert_eq!(row.bytes, entries.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert_eq!(a.store().counts(LaneId::Ephemeral).absent.unwrap().purged, 60);
    assert_eq!(a.store().counts(LaneId::Ephemeral).live, 0);
}

#[test]
fn an_expiry_of_a_damaged_row_removes_it_and_frees_its_id() {
    let mut a = Device::new(1);
    for n in 0..3 {
        a.write(LaneId::Ephemeral, &[put("x", json!({"n": n}), 1_000)]).unwrap();
    }
    a.flip(tables::OBJECTS, &tables::object_key(LaneId::Ephemeral, "x", 1));
    a.wall += 5_000;
    let now = a.now().wall;
    while a.store().next_expiry().unwrap().is_some() {
        a.store().expire(now, 10).unwrap();
        a.store().commit().unwrap();
    }
    assert_eq!(a.see(LaneId::Ephemeral, "x"), Visibility::Absent);
    assert_eq!(a.store().counts(LaneId::Ephemeral).live, 0);
    // Where its first change lies is not known any more.
    assert_eq!(bodies(&mut a), (1, 2));
    a.write(LaneId::Ephemeral, &[put("x", json!("again"), 1_000)]).unwrap();
    assert!(matches!(a.see(LaneId::Ephemeral, "x"), Visibility::Shown(_)));
}

#[test]
fn a_damaged_object_of_a_lane_that_stays_here_can_be_deleted() {
    for lane in [LaneId::Ephemeral, LaneId::Migration, LaneId::Repair] {
        let mut a = Device::new(1);
        a.write(lane, &[put_op("x", json!(1))]).unwrap();
        a.flip(tables::OBJECTS, &tables::object_key(lane, "x", 1));
        let refused = a.write(lane, &[put_op("x", json!(2))]);
        assert!(matches!(refused, Err(WriteError::Damaged { .. })), "{refused:?}");
        let action = Action::Delete { reason: "damaged".into() };
        a.write(lane, &[Op { id: "x".into(), action, if_heads: None }]).unwrap();
        assert!(matches!(a.see(lane, "x"), Visibility::Deleted { .. }));
        assert_eq!((a.store().counts(lane).live, a.store().counts(lane).hidden), (0, 1));
        a.write(lane, &[put_op("x", json!(3))]).unwrap();
        assert!(matches!(a.see(lane, "x"), Visibility::Shown(_)));
    }
}
