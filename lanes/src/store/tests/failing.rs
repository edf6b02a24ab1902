//! A disk that fails: what the store says from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;

/// A disk in memory whose writes and syncs fail once it is told so.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<InMemoryBackend>,
    fails: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> std::io::Result<()> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("the disk is broken")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.bytes.write(offset, data)
    }
}

#[test]
fn after_a_failed_commit_no_commit_says_done_and_what_was_durable_is_read() {
    let (disk, key) = (Disk::default(), SigningKey::from_bytes(&[1; 32]));
    let options = OpenOptions { device: key.device(), opens_outside: Some(0), random: 7 };
    let mut store = Store::open_backend(disk.clone(), &options).unwrap();
    store.set_mesh(MESH).unwrap();
    let now = Now { mono: MonoMillis(1), wall: WallMillis(1) };
    store.write(LaneId::Normal, &[put_op("kept", json!(1))], now, &key).unwrap();
    store.commit().unwrap();

    disk.fails.store(true, Ordering::Relaxed);
    store.write(LaneId::Normal, &[put_op("lost", json!(2))], now, &key).unwrap();
    assert_eq!(store.counts(LaneId::Normal).live, 2);
    assert!(store.commit().is_err());
    assert!(store.is_latched() && !store.in_turn());
    // What is told of it is what is durable.
    assert_eq!(store.counts(LaneId::Normal).live, 1);
    assert_eq!(store.frontier(LaneId::Normal).seq(&store.author()), 1);
    // With the disk mended, what is in memory may still not be what is on disk.
    disk.fails.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        assert!(matches!(store.commit(), Err(StoreError::Latched(_))));
        let refused = store.write(LaneId::Normal, &[put_op("more", json!(3))], now, &key);
        assert!(matches!(refused, Err(WriteError::Store(StoreError::Latched(_)))));
        assert!(matches!(store.set_mesh(MESH), Err(StoreError::Latched(_))));
    }
    let read =
        |id| store.reader().snapshot().unwrap().object(LaneId::Normal, id, now.wall).unwrap();
    assert!(matches!(read("kept"), Visibility::Shown(_)));
    assert_eq!(read("lost"), Visibility::Absent);
    let snapshot = store.reader().snapshot().unwrap();
    assert_eq!(snapshot.frontier(LaneId::Normal).unwrap().seq(&store.author()), 1);
}
