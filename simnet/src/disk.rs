//! A disk in memory under redb: what a running node reads back, and what takes back all that was not
//! synced, as a power cut may.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::scheduler::Stream;

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Bytes of a page: of the store's file, and of the memory in which the system keeps it.
const PAGE_BYTES: u64 = 4_096;

/// A disk that outlives the node that uses it. Clones of the handle are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What a running node reads back.
    live: Vec<u8>,
    /// What was asked since the last sync, in order, as what takes it back. Syncs are many and power
    /// cuts few, so a sync only forgets this, and a cut has the work.
    unsynced: Vec<Undo>,
    /// What is on the disk, since a sync failed and lost some of it: until power fails, what is read back is
    /// not what is there.
    apart: Option<Vec<u8>>,
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
    /// Which writes a failed sync loses, by their number modulo 64; the others reach the disk. With none, all
    /// wait for the next sync.
    lost: u64,
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
    /// Makes the change. Returns what takes it back.
    fn apply(&self, image: &mut Vec<u8>) -> Undo {
        let before = image.len();
        match self {
            Self::Length(len) => {
                let at = (*len as usize).min(before);
                let bytes = image.split_off(at);
                image.resize(*len as usize, 0);
                Undo { before, at, bytes, written: None }
            }
            Self::Bytes(offset, new) => write(image, *offset, new),
        }
    }

    /// Makes the first sectors of a write only.
    fn tear(&self, image: &mut Vec<u8>, chance: &mut Stream) {
        if let Self::Bytes(offset, bytes) = self {
            let sectors = chance.index(bytes.len().div_ceil(SECTOR_BYTES));
            put(image, *offset, &bytes[..sectors * SECTOR_BYTES]);
        }
    }
}

/// What takes one change of an image back.
#[derive(Debug)]
struct Undo {
    /// The length of the image before.
    before: usize,
    /// Where the bytes were that the change replaced or cut off.
    at: usize,
    /// These bytes.
    bytes: Vec<u8>,
    /// How many bytes a write put there; `None` when the change set the length.
    written: Option<usize>,
}

impl Undo {
    /// Takes the last change of an image back. Returns the change.
    fn apply(&self, image: &mut Vec<u8>) -> Change {
        let change = match self.written {
            Some(len) => Change::Bytes(self.at as u64, image[self.at..self.at + len].to_vec()),
            None => Change::Length(image.len() as u64),
        };
        image.resize(self.before, 0);
        // Beyond the end there was nothing to take back.
        if let Some(place) = image.get_mut(self.at..self.at + self.bytes.len()) {
            place.copy_from_slice(&self.bytes);
        }
        change
    }

    /// Makes the change on the disk, as all changes since have left it: whole pages are written.
    fn redo(&self, live: &[u8], disk: &mut Vec<u8>) {
        const PAGE: usize = PAGE_BYTES as usize;
        let pages = match self.written {
            Some(0) => return,
            Some(len) => self.at - self.at % PAGE..(self.at + len).next_multiple_of(PAGE),
            None => {
                disk.resize(self.at, 0);
                self.at..live.len()
            }
        };
        let end = pages.end.min(live.len());
        put(disk, pages.start as u64, live.get(pages.start..end).unwrap_or_default());
    }
}

/// Writes bytes into an image. Returns what takes it back.
fn write(image: &mut Vec<u8>, offset: u64, new: &[u8]) -> Undo {
    let (before, at) = (image.len(), offset as usize);
    let old = image.get(at..(at + new.len()).min(before)).unwrap_or_default().to_vec();
    put(image, offset, new);
    Undo { before, at, bytes: old, written: Some(new.len()) }
}

impl State {
    /// What a power cut leaves for certain, and the changes that it may lose, in order.
    fn rewound(&self) -> (Vec<u8>, Vec<Change>) {
        let mut image = self.live.clone();
        let mut changes: Vec<Change> =
            self.unsynced.iter().rev().map(|undo| undo.apply(&mut image)).collect();
        changes.reverse();
        (self.apart.clone().unwrap_or(image), changes)
    }

    /// How long the image is that a power cut leaves for certain.
    fn durable_len(&self) -> usize {
        let rewound = || self.unsynced.first().map_or(self.live.len(), |undo| undo.before);
        self.apart.as_ref().map_or_else(rewound, Vec::len)
    }

    /// The byte that a power cut would leave at a place, where it is another than the live one.
    fn durable_byte(&mut self, at: usize) -> Option<&mut u8> {
        if let Some(apart) = &mut self.apart {
            return apart.get_mut(at);
        }
        let holds = |undo: &&mut Undo| (undo.at..undo.at + undo.bytes.len()).contains(&at);
        let undo = self.unsynced.iter_mut().find(holds)?;
        undo.bytes.get_mut(at - undo.at)
    }

    /// A sync did its work.
    fn make_durable(&mut self) {
        if let Some(disk) = &mut self.apart {
            self.unsynced.iter().for_each(|undo| undo.redo(&self.live, disk));
        }
        self.unsynced.clear();
    }

    /// A sync failed. What it loses is still read back, and reaches the disk only with something that is written
    /// in the same page again, as on Linux. There the old bytes may be read again too, once memory is short: that
    /// is not played. Lengths are not lost: they are in the file system's journal.
    fn lose(&mut self, lost: u64) {
        if lost == 0 {
            return;
        }
        let (mut disk, changes) = self.rewound();
        for (n, change) in changes.iter().enumerate() {
            let is_lost = matches!(change, Change::Bytes(..)) && lost >> (n % 64) & 1 == 1;
            if !is_lost {
                drop(change.apply(&mut disk));
            }
        }
        self.unsynced.clear();
        self.apart = Some(disk);
    }

    /// Power has failed, and left this.
    fn darken(&mut self, image: Vec<u8>) {
        (self.live, self.apart) = (image, None);
        self.unsynced.clear();
        self.dark = true;
        self.failed = Some("the power failed");
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

    /// Plans a failure: this many operations of a kind still work, then one fails, or all do. A sync that fails
    /// loses these of the writes that it was for, by their number modulo 64.
    pub fn fail_after(&self, io: Io, operations: u64, for_ever: bool, lost: u64) {
        self.lock().failing = Some(Failing { io, left: operations, for_ever, lost });
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
        let (mut image, changes) = state.rewound();
        for change in changes {
            if chance.percent(kept_percent) {
                drop(change.apply(&mut image));
            } else if chance.percent(torn_percent) {
                change.tear(&mut image, chance);
            }
        }
        state.darken(image);
    }

    /// What is read back is not what is on the disk.
    pub fn has_lost(&self) -> bool {
        let state = self.lock();
        state.apart.as_ref().is_some_and(|disk| *disk != state.live)
    }

    /// Cuts the power. Of what was not synced, lengths reach the disk, and what begins in a page that is kept.
    pub fn cut_power_keeping(&self, kept: impl Fn(u64) -> bool) {
        let mut state = self.lock();
        let (mut image, changes) = state.rewound();
        for change in changes {
            let reaches = match &change {
                Change::Length(_) => true,
                Change::Bytes(at, _) => kept(at / PAGE_BYTES),
            };
            if reaches {
                drop(change.apply(&mut image));
            }
        }
        state.darken(image);
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
        Image(self.lock().rewound().0)
    }

    /// Puts a backup back. Handles given before are dead.
    pub fn restore(&self, image: &Image) {
        let mut state = self.lock();
        state.live.clone_from(&image.0);
        state.apart = None;
        state.unsynced.clear();
        state.generation += 1;
    }

    /// Flips bits in what is read back and in what a power cut leaves. Returns where the first one was, when there are any bytes.
    pub fn rot(&self, bits: u64, chance: &mut Stream) -> Option<u64> {
        let mut state = self.lock();
        let len = state.durable_len().min(state.live.len());
        let mut first = None;
        // Most of the file is zeros that nobody reads: what holds something is worth more.
        for _ in 0..bits {
            let at = (0..64)
                .map(|_| chance.index(len.max(1)))
                .find(|at| *at < len && state.live[*at] > 0);
            let Some(at) = at else { continue };
            let bit = 1 << chance.below(8);
            state.live[at] ^= bit;
            state.durable_byte(at).into_iter().for_each(|byte| *byte ^= bit);
            first.get_or_insert(at as u64);
        }
        first
    }

    /// Flips one bit in every place that holds these bytes, in what is read back and in what a power cut
    /// leaves: redb leaves old pages behind, and nobody knows from outside which one is read.
    pub fn rot_at(&self, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let places = |image: &[u8]| -> BTreeSet<usize> {
            let windows = image.windows(bytes.len()).enumerate();
            windows.filter(|(_, window)| *window == bytes).map(|(at, _)| at).collect()
        };
        let (mut live, durable) = (places(&state.live), places(&state.rewound().0));
        let found = !live.is_empty() || !durable.is_empty();
        for at in durable {
            if let Some(byte) = state.durable_byte(at) {
                *byte ^= 1;
            } else {
                live.insert(at);
            }
        }
        live.into_iter().for_each(|at| state.live[at] ^= 1);
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
                let Failing { for_ever, lost, .. } = *failing;
                if !for_ever {
                    state.failing = None;
                }
                if io == Io::Sync {
                    state.lose(lost);
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
        let undo = Change::Length(len).apply(&mut state.live);
        state.unsynced.push(undo);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.works(Io::Sync)?;
        state.syncs += 1;
        if !state.lies {
            state.make_durable();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.works(Io::Write)?;
        let undo = write(&mut state.live, offset, data);
        state.unsynced.push(undo);
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
    fn what_is_rewound_is_what_was_there_at_the_last_sync_and_replays_to_what_is_now() {
        for seed in 0..300 {
            let mut stream = Stream::new(seed, "test", 1);
            let (disk, mut durable) = (Disk::default(), Vec::new());
            let (mut live, mut apart) = (Vec::new(), false);
            let mut pending: Vec<Change> = Vec::new();
            let handle = disk.open();
            for _ in 0..stream.between(1, 25) {
                match stream.below(9) {
                    0 => {
                        handle.sync_data().unwrap();
                        let wrote = pending.iter().any(
                            |change| matches!(change, Change::Bytes(_, new) if !new.is_empty()),
                        );
                        pending.drain(..).for_each(|change| drop(change.apply(&mut durable)));
                        if apart && wrote {
                            // All of it is one page.
                            durable.clone_from(&live);
                        }
                    }
                    1 => {
                        let lost = u64::from(stream.bits()) << 1 | 1;
                        apart = true;
                        disk.fail_after(Io::Sync, 0, false, lost);
                        assert!(handle.sync_data().is_err());
                        for (n, change) in pending.drain(..).enumerate() {
                            if matches!(change, Change::Length(_)) || lost >> (n % 64) & 1 == 0 {
                                drop(change.apply(&mut durable));
                            }
                        }
                    }
                    2 | 3 => {
                        let len = stream.below(40);
                        handle.set_len(len).unwrap();
                        live.resize(len as usize, 0);
                        pending.push(Change::Length(len));
                    }
                    _ => {
                        let new: [u8; 9] = stream.bytes();
                        let (at, new) = (stream.below(40), &new[..stream.index(10)]);
                        handle.write(at, new).unwrap();
                        put(&mut live, at, new);
                        pending.push(Change::Bytes(at, new.to_vec()));
                    }
                }
            }
            let (mut image, changes) = disk.lock().rewound();
            assert_eq!(image, durable, "seed {seed}");
            assert_eq!(disk.lock().durable_len(), durable.len());
            changes.iter().for_each(|change| drop(change.apply(&mut image)));
            let mut replayed = durable.clone();
            pending.iter().for_each(|change| drop(change.apply(&mut replayed)));
            assert_eq!(image, replayed, "seed {seed}");
            assert_eq!(disk.lock().live, live, "seed {seed}");
            assert!(apart || image == live, "seed {seed}");
            // What rots, rots in both.
            if let Some(at) = disk.rot(1, &mut stream) {
                let at = at as usize;
                assert_ne!(disk.lock().live[at], live[at], "seed {seed}");
                assert_ne!(disk.lock().rewound().0[at], durable[at], "seed {seed}");
            }
        }
    }

    #[test]
    fn what_a_failed_sync_lost_is_read_back_until_power_fails_unless_its_page_is_written_again() {
        let disk = Disk::default();
        let (handle, far) = (disk.open(), PAGE_BYTES);
        let both = |disk: &Disk| {
            let image = disk.lock().live.clone();
            [&image[..4], &image[far as usize..][..4]].concat()
        };
        for at in [0, far] {
            handle.write(at, b"aaaa").unwrap();
        }
        handle.sync_data().unwrap();
        disk.fail_after(Io::Sync, 0, false, u64::MAX);
        for at in [0, far] {
            handle.write(at, b"bbbb").unwrap();
        }
        assert!(handle.sync_data().is_err() && disk.has_lost());
        let next = disk.open();
        next.write(1, b"cc").unwrap();
        next.sync_data().unwrap();
        assert_eq!(both(&disk), b"bccbbbbb");
        disk.cut_power(&mut Stream::new(1, "test", 0));
        assert_eq!(both(&disk), b"bccbaaaa");
        assert!(!disk.has_lost());
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
        disk.fail_after(Io::Write, 1, false, 0);
        handle.write(0, b"a").unwrap();
        assert!(handle.write(0, b"b").is_err() && disk.failed().is_some());
        handle.write(0, b"c").unwrap();
        disk.fail_after(Io::Sync, 0, true, 0);
        assert!(handle.sync_data().is_err() && handle.write(0, b"d").is_err());
        assert!(disk.open().len().is_err());
        disk.mend();
        assert_eq!(read(&disk, 1), b"c");
    }
}
