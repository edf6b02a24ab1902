//! Stores that an earlier version wrote.

use super::*;

/// Makes a closed store what version 1 would have left.
fn age(device: &Device) {
    let db = redb::Database::open(device.path()).unwrap();
    let turn = db.begin_write().unwrap();
    turn.delete_table(tables::LEFT_OUT).unwrap();
    turn.delete_table(tables::STALLED).unwrap();
    {
        let mut table = turn.open_table(tables::META).unwrap();
        let version = tables::meta::VERSION.as_bytes();
        tables::insert(&mut table, tables::META, version, &1_u32.to_be_bytes()).unwrap();
    }
    turn.commit().unwrap();
}

#[test]
fn a_store_of_version_1_is_brought_up_to_now() {
    let mut a = Device::new(1);
    a.put("x", json!(1)).unwrap();
    a.store.take().unwrap().close().unwrap();
    age(&a);
    assert!(Reader::open(&a.path()).is_ok(), "who only reads need not wait for the node");
    a.reopen(Some(1)).unwrap();
    a.put("x", json!(2)).unwrap();
    assert_eq!(a.body("x"), Some(json!(2)));
    let snapshot = a.store().reader().snapshot().unwrap();
    let version = snapshot.meta(tables::meta::VERSION, u32::from_be_bytes).unwrap();
    assert_eq!(version, Some(STORE_VERSION));
}

#[test]
fn a_quarantine_of_version_1_does_not_lapse_with_the_next_change() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!({"n": 1})).unwrap();
    a.put("y", json!({"n": 1})).unwrap();
    b.pull(&mut a);
    // Version 1 said so of an object, and kept nothing of the change that it refused.
    let key = tables::object_key(LaneId::Normal, "x", 1);
    b.store()
        .with_turn(|_, turn| {
            let mut objects = turn.open_table(tables::OBJECTS)?;
            let row: Option<tables::ObjectRow> = tables::read_row(&objects, tables::OBJECTS, &key)?;
            let mut row = row.unwrap();
            row.state = RowState::Quarantined("a change was refused".into());
            tables::insert_row(&mut objects, tables::OBJECTS, &key, &row)
        })
        .unwrap();
    b.store.take().unwrap().close().unwrap();
    age(&b);
    b.reopen(Some(1)).unwrap();
    a.put("x", json!({"n": 2})).unwrap();
    a.put("y", json!({"n": 2})).unwrap();
    b.pull(&mut a);
    let Visibility::Shown(x) = b.see(LaneId::Normal, "x") else { panic!("x is not shown") };
    assert!(matches!(x.row.state, RowState::Quarantined(_)), "{:?}", x.row.state);
    assert!(matches!(b.put("x", json!(3)), Err(WriteError::Quarantined { .. })));
    let Visibility::Shown(y) = b.see(LaneId::Normal, "y") else { panic!("y is not shown") };
    assert_eq!(y.row.state, RowState::Live);
    // Deleted and put again it is whole.
    b.delete("x").unwrap();
    assert_eq!(b.put("x", json!(4)).unwrap().life, 2);
    assert_eq!(b.body("x"), Some(json!(4)));
}
