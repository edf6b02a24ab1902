//! A disk in memory under redb, with two images: what a running node reads back, and what a power
//! cut leaves for certain.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::scheduler::Stream;

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A disk that outlives the node that uses it. Clones of the handle are the same disk.
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
    /// Operations that fail, when that is planned.
    failing: Option<Failing>,
    /// Writes fail for want of space.
    full: bool,
    /// Syncs return without doing anything.
    lies: bool,
    /// Why an operation failed since the disk was opened, if one did.
    failed: Option<&'static str>,
    syncs: u64,
}

/// An operation of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// Reading bytes.
    Read,
    /// Writing bytes, or a length.
    Write,
    /// Making writes durable.
    Sync,
}

/// Operations that are to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Failing {
    io: Io,
    /// Operations of the kind that still work.
    left: u64,
    /// All after it fail too, and those of other kinds.
    for_ever: bool,
}

/// The bytes of a disk at one moment, as a backup has them.
#[derive(Clone, Debug)]
pub struct Image(Vec<u8>);

#[derive(Debug)]
enum Change {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Length(len) => image.resize(*len as usize, 0),
            Self::Bytes(offset, bytes) => put(image, *offset, bytes),
        }
    }

    /// Applies the first sectors of a write only.
    fn tear(&self, image: &mut Vec<u8>, chance: &mut Stream) {
        if let Self::Bytes(offset, bytes) = self {
            let sectors = chance.index(bytes.len().div_ceil(SECTOR_BYTES));
            put(image, *offset, &bytes[..sectors * SECTOR_BYTES]);
        }
    }
}

fn put(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + bytes.len());
    if image.len() < to {
        image.resize(to, 0);
    }
    image[from..to].copy_from_slice(bytes);
}

impl Disk {
    /// A handle for one run of a node. Handles given before are dead from now on.
    pub fn open(&self) -> DiskHandle {
        let mut state = self.lock();
        state.generation += 1;
        state.dark = false;
        state.power_left = None;
        state.failed = None;
        DiskHandle { disk: self.clone(), generation: state.generation }
    }

    /// The process is gone: its handle is dead, what it wrote stays with the system.
    pub fn detach(&self) {
        self.lock().generation += 1;
    }

    /// Plans a power cut: the operation after this many fails, and all after it.
    pub fn fail_power_after(&self, operations: u64) {
        self.lock().power_left = Some(operations);
    }

    /// Plans a failure: this many operations of a kind still work, then one fails, or all do.
    pub fn fail_after(&self, io: Io, operations: u64, for_ever: bool) {
        self.lock().failing = Some(Failing { io, left: operations, for_ever });
    }

    /// There is no more room, or there is again.
    pub fn fill(&self, full: bool) {
        self.lock().full = full;
    }

    /// Cuts the power. Of what was not synced, everything, nothing or each write by chance reaches
    /// the disk, and some only in part.
    pub fn cut_power(&self, chance: &mut Stream) {
        let mut state = self.lock();
        let kept_percent = chance.pick(&[0, 0, 50, 90, 100]);
        let torn_percent = chance.pick(&[0, 20, 100]);
        let mut image = std::mem::take(&mut state.durable);
        for change in std::mem::take(&mut state.unsynced) {
            if chance.percent(kept_percent) {
                change.apply(&mut image);
            } else if chance.percent(torn_percent) {
                change.tear(&mut image, chance);
            }
        }
        state.live.clone_from(&image);
        state.durable = image;
        state.dark = true;
        state.failed = Some("the power failed");
    }

    /// Ends all planned failures: the disk works from now on.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.power_left = None;
        state.failing = None;
        state.full = false;
        state.lies = false;
    }

    /// Why an operation failed since the disk was opened, if one did.
    pub fn failed(&self) -> Option<&'static str> {
        self.lock().failed
    }

    /// Whether the power failed and the disk was not opened since.
    pub fn is_dark(&self) -> bool {
        self.lock().dark
    }

    /// Lets syncs do nothing from now on, or do their work again.
    pub fn lie(&self, lies: bool) {
        self.lock().lies = lies;
    }

    /// What a backup of the durable bytes holds.
    pub fn image(&self) -> Image {
        Image(self.lock().durable.clone())
    }

    /// Puts a backup back. Handles given before are dead.
    pub fn restore(&self, image: &Image) {
        let mut state = self.lock();
        state.live.clone_from(&image.0);
        state.durable.clone_from(&image.0);
        state.unsynced.clear();
        state.generation += 1;
    }

    /// Flips bits in both images. Returns where the first one was, when there are any bytes.
    pub fn rot(&self, bits: u64, chance: &mut Stream) -> Option<u64> {
        let mut state = self.lock();
        let len = state.durable.len().min(state.live.len());
        let mut first = None;
        // Most of the file is zeros that nobody reads: what holds something is worth more.
        for _ in 0..bits {
            let at =
                (0..64).map(|_| chance.index(len.max(1))).find(|at| state.live.get(*at) > Some(&0));
            let Some(at) = at else { continue };
            let bit = 1 << chance.below(8);
            state.live[at] ^= bit;
            state.durable[at] ^= bit;
            first.get_or_insert(at as u64);
        }
        first
    }

    /// Flips one bit in every place that holds these bytes, in both images: redb leaves old pages
    /// behind, and nobody knows from outside which one is read.
    pub fn rot_at(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let mut found = false;
        let state = &mut *state;
        for image in [&mut state.live, &mut state.durable] {
            let places = image.windows(bytes.len()).enumerate();
            let places: Vec<usize> =
                places.filter(|(_, window)| *window == bytes).map(|(at, _)| at).collect();
            for at in places {
                image[at] ^= 1;
                found = true;
            }
        }
        found
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
    /// The state, if the handle is alive and this operation is not to fail.
    fn works(&self, io: Io) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("the simulated disk belongs to a later run"));
        }
        if io != Io::Read {
            match &mut state.power_left {
                Some(0) => state.dark = true,
                Some(left) => *left -= 1,
                None => {}
            }
        }
        if state.dark {
            state.failed = Some("the power failed");
            return Err(io::Error::other("the simulated power failed"));
        }
        if let Some(failing) = &mut state.failing
            && (failing.io == io || (failing.for_ever && failing.left == 0))
        {
            if failing.left > 0 {
                failing.left -= 1;
            } else {
                if !failing.for_ever {
                    state.failing = None;
                }
                state.failed = Some("an operation failed");
                return Err(io::Error::other("the simulated disk failed"));
            }
        }
        if io == Io::Write && state.full {
            state.failed = Some("the disk was full");
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(state)
    }
}

impl StorageBackend for DiskHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.works(Io::Read)?.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.works(Io::Read)?;
        let from = offset as usize;
        let found = state.live.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.works(Io::Write)?;
        let change = Change::Length(len);
        change.apply(&mut state.live);
        state.unsynced.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.works(Io::Sync)?;
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
        let mut state = self.works(Io::Write)?;
        put(&mut state.live, offset, data);
        state.unsynced.push(Change::Bytes(offset, data.to_vec()));
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
    fn torn_write_keeps_whole_sectors_from_its_start() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = Disk::default();
            let handle = disk.open();
            handle.write(0, &[0; 4 * SECTOR_BYTES]).unwrap();
            handle.sync_data().unwrap();
            handle.write(0, &[1; 4 * SECTOR_BYTES]).unwrap();
            disk.cut_power(&mut Stream::new(seed, "test", 0));
            let kept = read(&disk, 4 * SECTOR_BYTES);
            let ones = kept.iter().take_while(|byte| **byte == 1).count();
            assert!(kept[ones..].iter().all(|byte| *byte == 0));
            lengths.insert(ones);
        }
        assert!(lengths.iter().all(|len| len % SECTOR_BYTES == 0));
        assert!(lengths.len() > 3, "{lengths:?}");
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

    #[test]
    fn one_failure_is_one_and_a_dead_disk_stays_dead_until_it_is_mended() {
        let disk = Disk::default();
        let handle = disk.open();
        disk.fail_after(Io::Write, 1, false);
        handle.write(0, b"a").unwrap();
        assert!(handle.write(0, b"b").is_err() && disk.failed().is_some());
        handle.write(0, b"c").unwrap();
        disk.fail_after(Io::Sync, 0, true);
        assert!(handle.sync_data().is_err() && handle.write(0, b"d").is_err());
        assert!(disk.open().len().is_err());
        disk.mend();
        assert_eq!(read(&disk, 1), b"c");
    }
}
