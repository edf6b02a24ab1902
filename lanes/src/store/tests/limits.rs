//! What a reader would refuse is never signed.

use super::*;
use crate::journal::{ENTRY_AFTER_MAX, Entry};

/// A device whose every object has a journal of its own, since each has its own incarnation.
fn scattered(n: u8, objects: usize, field: &str) -> Device {
    let mut device = Device::new(n);
    let (now, key) = (device.now(), device.key.clone());
    for object in 0..objects {
        device.store().begin_incarnation(object as u32).unwrap();
        let op = put_op(&format!("o{object}"), json!({ field: object }));
        device.store().write(LaneId::Normal, &[op], now, &key).unwrap();
    }
    device.store().commit().unwrap();
    device
}

/// The entries that a device wrote itself, in its present incarnation.
fn own_entries(device: &mut Device) -> Vec<Vec<u8>> {
    let author = device.store().author();
    let snapshot = device.store().reader().snapshot().unwrap();
    snapshot.entries(LaneId::Normal, &author, 1, usize::MAX, usize::MAX).unwrap()
}

#[test]
fn batch_that_builds_on_more_journals_than_an_entry_may_name_becomes_several_entries() {
    const OBJECTS: usize = ENTRY_AFTER_MAX / 2 + 1;
    let mut there = scattered(1, OBJECTS, "a");
    let mut other = scattered(2, OBJECTS, "b");
    let mut here = Device::new(3);
    here.pull(&mut there);
    here.pull(&mut other);
    let ops: Vec<Op> = (0..OBJECTS).map(|n| put_op(&format!("o{n}"), json!({"c": n}))).collect();
    here.write(LaneId::Normal, &ops).unwrap();
    let entries = own_entries(&mut here);
    assert_eq!(entries.len(), 2);
    // Reading an entry holds it to all limits of readers.
    let waits: Vec<usize> =
        entries.iter().map(|bytes| Entry::read(bytes).unwrap().header.after.len()).collect();
    // Each names what its own changes build on, and no more.
    assert_eq!(waits.iter().sum::<usize>(), 2 * OBJECTS);
}
