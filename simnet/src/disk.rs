//! A disk in memory under redb: what was synced survives a power cut, of the rest some or none.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::scheduler::Stream;

/// A disk that outlives the node that uses it. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a running node reads back.
    live: Vec<u8>,
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    /// What was asked since the last sync, in order.
    unsynced: Vec<Change>,
    /// Counts the times the disk was opened: a handle of an earlier time is dead.
    generation: u64,
    /// Operations until the power fails, when that is planned.
    power_left: Option<u64>,
    /// The power has failed; nothing works until the disk is opened again.
    dark: bool,
    /// Syncs return without doing anything: what no disk may do, to test the alarm.
    lies: bool,
    syncs: u64,
}

#[derive(Debug)]
enum Change {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Length(len) => image.resize(*len as usize, 0),
            Self::Bytes(offset, bytes) => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                if image.len() < to {
                    image.resize(to, 0);
                }
                image[from..to].copy_from_slice(bytes);
            }
        }
    }
}

impl Disk {
    /// A handle for one run of a node. Handles given before are dead from now on.
    pub fn open(&self) -> DiskHandle {
        let mut state = self.lock();
        state.generation += 1;
        state.dark = false;
        state.power_left = None;
        DiskHandle { disk: self.clone(), generation: state.generation }
    }

    /// Plans a power cut: the operation after this many fails, and all after it.
    pub fn fail_power_after(&self, operations: u64) {
        self.lock().power_left = Some(operations);
    }

    /// Cuts the power. Of what was not synced, everything, nothing or each write by chance
    /// reaches the disk.
    pub fn cut_power(&self, chance: &mut Stream) {
        let mut state = self.lock();
        let kept_percent = chance.pick(&[0, 0, 50, 90, 100]);
        let mut image = std::mem::take(&mut state.durable);
        for change in std::mem::take(&mut state.unsynced) {
            if chance.percent(kept_percent) {
                change.apply(&mut image);
            }
        }
        state.live.clone_from(&image);
        state.durable = image;
        state.dark = true;
    }

    /// Forgets a planned power cut that has not come yet.
    pub fn keep_power(&self) {
        self.lock().power_left = None;
    }

    /// Whether the power failed and the disk was not opened since.
    pub fn is_dark(&self) -> bool {
        self.lock().dark
    }

    /// Lets syncs do nothing from now on, or do their work again.
    pub fn lie(&self, lies: bool) {
        self.lock().lies = lies;
    }

    /// How many syncs were asked for.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One run's access to a disk.
#[derive(Debug)]
pub struct DiskHandle {
    disk: Disk,
    generation: u64,
}

impl DiskHandle {
    /// The state, if the handle is alive and there is power for one more operation.
    fn powered(&self, costs: u64) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("the simulated disk belongs to a later run"));
        }
        match &mut state.power_left {
            Some(left) if *left < costs => state.dark = true,
            Some(left) => *left -= costs,
            None => {}
        }
        if state.dark {
            return Err(io::Error::other("the simulated power failed"));
        }
        Ok(state)
    }
}

impl StorageBackend for DiskHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.powered(0)?.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.powered(0)?;
        let from = offset as usize;
        let found = state.live.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.powered(1)?;
        let change = Change::Length(len);
        change.apply(&mut state.live);
        state.unsynced.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.powered(1)?;
        state.syncs += 1;
        if !state.lies {
            let state = &mut *state;
            for change in state.unsynced.drain(..) {
                change.apply(&mut state.durable);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.powered(1)?;
        let change = Change::Bytes(offset, data.to_vec());
        change.apply(&mut state.live);
        state.unsynced.push(change);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &Disk, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        disk.open().read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn power_cut_keeps_what_was_synced_and_never_more_than_was_written() {
        for seed in 0..40 {
            let disk = Disk::default();
            let handle = disk.open();
            handle.set_len(3).unwrap();
            handle.write(0, b"aaa").unwrap();
            handle.sync_data().unwrap();
            handle.write(1, b"b").unwrap();
            disk.cut_power(&mut Stream::new(seed, "test", 0));
            assert!(handle.write(0, b"x").is_err());
            assert!([b"aaa", b"aba"].contains(&read(&disk, 3).as_slice().try_into().unwrap()));
        }
    }

    #[test]
    fn planned_power_cut_comes_after_that_many_operations_and_a_new_handle_works() {
        let disk = Disk::default();
        let handle = disk.open();
        disk.fail_power_after(2);
        handle.set_len(1).unwrap();
        handle.write(0, b"a").unwrap();
        assert!(handle.sync_data().is_err());
        assert!(handle.len().is_err());
        disk.cut_power(&mut Stream::new(1, "test", 0));
        let next = disk.open();
        next.set_len(1).unwrap();
        assert!(handle.set_len(9).is_err(), "the old run is over");
        assert_eq!(next.len().unwrap(), 1);
    }
}
