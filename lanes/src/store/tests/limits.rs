//! What a reader would refuse is never signed.

use super::*;
use crate::journal::{ENTRY_AFTER_MAX, Entry};

/// Writes an object in each of as many journals, since each has its own incarnation.
fn scatter(device: &mut Device, ids: std::ops::Range<usize>) {
    let (now, key) = (device.now(), device.key.clone());
    for id in ids {
        device.store().begin_incarnation(id as u32).unwrap();
        let op = put_op(&format!("o{id}"), json!({ "by": device.key.device().to_string() }));
        device.store().write(LaneId::Normal, &[op], now, &key).unwrap();
    }
    device.store().commit().unwrap();
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
    let mut here = Device::new(99);
    // Each object by two devices.
    for (n, ids) in (0..OBJECTS).collect::<Vec<_>>().chunks(DEVICE_JOURNALS_MAX).enumerate() {
        for n in [2 * n as u8 + 1, 2 * n as u8 + 2] {
            let mut there = Device::new(n);
            scatter(&mut there, ids[0]..ids[ids.len() - 1] + 1);
            here.pull(&mut there);
        }
    }
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

#[test]
fn journal_that_nobody_would_take_is_not_begun() {
    let mut a = Device::new(1);
    scatter(&mut a, 0..DEVICE_JOURNALS_MAX);
    // The last one goes on.
    a.put("o0", json!(1)).unwrap();
    a.store().begin_incarnation(0).unwrap();
    let refused = a.put("o1", json!(1));
    assert!(matches!(refused, Err(WriteError::JournalsSpent { .. })), "{refused:?}");
    let device = a.key.device();
    assert_eq!(a.store().device_journals(LaneId::Normal, device), DEVICE_JOURNALS_MAX);
    // Another lane has its own, and what stays on the device is nobody else's to refuse.
    a.write(LaneId::Memory, &[put_op("m", json!(1))]).unwrap();
    let refused = a.delete("o1");
    assert!(refused.is_ok(), "a deletion is written to the tombstone lane: {refused:?}");
}

#[test]
fn an_id_that_nobody_could_name_is_taken_in_no_lane_but_that_of_deletions() {
    let m = Device::new(2);
    let author = m.store.as_ref().unwrap().author();
    let content = crate::object::Content::of(json!(1)).unwrap();
    let change = crate::object::Object::create(&content, author.actor(), WallMillis(1));
    let (max, more) = (crate::journal::OBJECT_ID_BYTES_MAX, crate::journal::ENTRY_ID_BYTES_MAX);
    for (lane, len, taken) in [
        (LaneId::Normal, max, true),
        (LaneId::Normal, max + 1, false),
        (LaneId::Tombstone, max + 1, true),
        (LaneId::Tombstone, more, true),
        (LaneId::Tombstone, more + 1, false),
    ] {
        let id = "i".repeat(len);
        let entries = misled::signed(&m.key, author, lane, Vec::new(), &[vec![(&id, 1, &change)]]);
        let entries = entries.iter().map(Vec::as_slice).collect();
        let run = Run { lane, author, entries };
        let mut a = Device::new(1);
        let received = a.store().receive(&run, &[MESH], WallMillis(9));
        assert_eq!(received.is_ok(), taken, "{lane} {len}: {received:?}");
    }
}
