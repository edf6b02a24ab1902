//! Two-phase commits with one sync of the disk (ADR 0022).
//!
//! redb commits in two phases: it writes new pages and a second root, syncs, flips the byte of its header
//! that says which root counts, and syncs again. The first sync orders: should power fail, the flip must
//! not be on the disk before what it points to. Here the flip is held back, and a *record* is written in
//! its place, in a part of the first page that redb leaves empty: the new header, and a hash of all that
//! was written for this commit. One sync makes the pages and the record durable, in any order. A record
//! whose pages are not all there counts for nothing, and the one before it does.
//!
//! The first page:
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 320 | redb's header. While the records count it is an old one, whose checksums are inverted |
//! | 320 to 344 | while the records count, a mark and the number of the first that does; zeros else |
//! | 512 to 2048, 2048 to 3584 | two records, written in turns |
//! | 3584 to 3624 | the number of the last record that was synced, itself not synced at once |
//!
//! When a store is opened, the mark is set in the same sector as the header; when it is closed, the header is
//! written as redb wants it, and the mark goes. Then the file is as redb alone writes it.
//!
//! What this takes from redb, and checks: the form of its header, and that no page that the last durable
//! commit reaches is written to before the next one is durable. A page that the last record names and no
//! root reaches may be; then the record is replaced first by one that names none.
//!
//! After a sync that failed nothing is known of what was written before it: the system may show it and
//! never write it. So nothing works any more after that, and who opens the file again writes all once
//! more that its record names, before anything is built on it.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use redb::{BackendError, StorageBackend};

use crate::bug::{self, Bug};

/// Pages that one record names, at most: what fits into it.
const RANGES_MAX: usize = 180;
/// Bytes that one record vouches for, at most. Hashing more takes longer than the sync that it saves.
const BYTES_MAX: u64 = 512 * 1024;

/// No record has such a number or a higher one.
const NUMBER_END: u64 = 1 << 63;

const PAGE_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 320;
const RECORDS_AT: u64 = 512;
const RECORD_BYTES: usize = 1536;
const NOTE_AT: u64 = RECORDS_AT + 2 * RECORD_BYTES as u64;
const NOTE_BYTES: usize = NUMBER_BYTES + HASH_BYTES;
const HASH_BYTES: usize = 32;
const NUMBER_BYTES: usize = 8;
/// A record: its number, the header, a hash of what it names, how many ranges, and the ranges of pages
/// (number of the first and how many). Its last bytes are its own hash.
const RANGES_AT: usize = NUMBER_BYTES + HEADER_BYTES + HASH_BYTES + 2;
const RANGE_BYTES: usize = 6;
const _: () = assert!(RANGES_AT + RANGES_MAX * RANGE_BYTES + HASH_BYTES <= RECORD_BYTES);
const _: () = assert!(NOTE_AT + NOTE_BYTES as u64 <= PAGE_BYTES);

/// What says that the records count, after the header and in its sector.
const MARK: [u8; 16] = *b"srcos one sync 1";
const SECTOR_BYTES: usize = 512;

/// redb's header, as far as it is looked at: <https://github.com/cberner/redb/blob/master/docs/design.md>.
const MAGIC: [u8; 9] = [b'r', b'e', b'd', b'b', 0x1a, 0x0a, 0xa9, 0x0d, 0x0a];
const FLAGS_AT: usize = 9;
const PRIMARY: u8 = 1;
const OPEN: u8 = 2;
/// Magic, flags, and what never changes.
const FIXED: std::ops::Range<usize> = 0..24;
const SLOTS_AT: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;
const CHECKSUM_BYTES: usize = 16;
const FORMAT_VERSION: u8 = 3;

type Header = [u8; HEADER_BYTES];

/// A file, or what stands for one, under redb.
#[derive(Debug)]
pub(super) struct OneSync<B> {
    inner: B,
    state: Mutex<Option<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What redb reads: the last that it wrote. `None` in a file that has none yet.
    header: Option<Header>,
    /// The header that counts should power fail now.
    durable: Option<Header>,
    /// The records count, and not the header on the disk.
    records_count: bool,
    /// The number of the last record, and which of the two it is.
    last: (u64, usize),
    /// The bytes that the last record names, by where they begin: where they end.
    named: BTreeMap<u64, u64>,
    /// What was written since the last sync.
    written: Written,
    /// A sync failed.
    failed: bool,
}

/// What was written: bytes of pages, by where they begin.
#[derive(Debug, Default)]
struct Written {
    pages: BTreeMap<u64, Vec<u8>>,
    bytes: u64,
    /// There are more than a record can name, or they overlap.
    too_much: bool,
}

/// What a sync of redb is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// What was written must be durable.
    Pages,
    /// What was written must be durable before what comes next.
    First,
    /// The new root counts.
    Second,
    /// Something else of the header changes.
    Other,
}

impl<B: StorageBackend> OneSync<B> {
    /// Nothing is read before redb has locked the file.
    pub(super) fn new(inner: B) -> Self {
        Self { inner, state: Mutex::new(None) }
    }

    fn with<T>(&self, work: impl FnOnce(&B, &mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match &mut *state {
            Some(state) => state,
            empty => empty.insert(State::read(&self.inner)?),
        };
        work(&self.inner, state)
    }
}

impl State {
    /// What the first page says. What counts of it is durable then.
    fn read(inner: &impl StorageBackend) -> Result<Self> {
        let mut page = [0; PAGE_BYTES as usize];
        let len = usize::try_from(inner.len()?).unwrap_or(usize::MAX).min(page.len());
        let mut state = Self::default();
        if len < HEADER_BYTES {
            return Ok(state);
        }
        inner.read(0, &mut page[..len])?;
        let mut records: Vec<(usize, Record)> = [0, 1]
            .into_iter()
            .filter_map(|place| Some((place, Record::decode(&page, place)?)))
            .collect();
        records.sort_by_key(|(_, record)| record.number);
        // Numbers go on above what is there, whether it counts or not.
        let newest = records.last().map_or(0, |(_, record)| record.number);
        let synced = synced(&page);
        state.last = (newest.max(synced.unwrap_or(0)), 1);
        let (mark, rest) = page[HEADER_BYTES..SECTOR_BYTES].split_at(MARK.len());
        if mark == [0; MARK.len()] {
            state.last.1 = records.last().map_or(1, |(place, _)| *place);
            state.header = Some(take(&page, 0));
            state.durable = state.header;
            if page.starts_with(&MAGIC) && len >= SECTOR_BYTES {
                inner.write(0, &page[..SECTOR_BYTES])?;
                inner.sync_data()?;
            }
            return Ok(state);
        }
        let (first, rest) = rest.split_at(NUMBER_BYTES);
        if mark != MARK || rest.iter().any(|byte| *byte > 0) {
            return Err(damaged());
        }
        let first = u64::from_le_bytes(take(first, 0));
        records.retain(|(_, record)| record.number >= first);
        let found = Found::of(inner, records, synced)?;
        let header = found.record.header;
        let open = header[FLAGS_AT] & OPEN > 0 && is_known(&header);
        if !open || synced.is_some_and(|synced| found.record.number < synced) {
            return Err(damaged());
        }
        state.last.1 = found.place;
        state.header = Some(header);
        state.durable = state.header;
        state.adopt(inner, found)?;
        Ok(state)
    }

    /// Makes durable what was found. It was read, and that says nothing of the disk where a sync had failed.
    fn adopt(&mut self, inner: &impl StorageBackend, found: Found) -> Result<()> {
        if bug::active(Bug::TrustRead) {
            return self.begin_records(inner, &found.record.header);
        }
        // The record too, before another is written over the one before it, which may be all that the disk has.
        inner.write(place_of(found.place), &found.record.encode())?;
        let mut from = 0;
        for (at, end) in &found.record.ranges {
            let to = from + (end - at) as usize;
            inner.write(*at, &found.contents[from..to])?;
            from = to;
        }
        inner.sync_data()?;
        // The disk works, and a newer record is written over next, if its pages still cannot be read. If they
        // can, it was not the pages that failed: that record is left as it is, for who opens the store again.
        if let Some((record, why)) = found.unread
            && record.contents(inner).is_ok()
        {
            return Err(why);
        }
        self.begin_records(inner, &found.record.header)
    }

    /// What the sync that is asked for is for.
    fn step(&self) -> Result<Step> {
        let (Some(header), Some(durable)) = (&self.header, &self.durable) else {
            return Ok(if self.header.is_some() { Step::Other } else { Step::Pages });
        };
        if header == durable {
            return Ok(Step::Pages);
        }
        if !self.records_count {
            return Ok(Step::Other);
        }
        let primary = primary(durable);
        let mut flipped = *durable;
        flipped[FLAGS_AT] ^= PRIMARY;
        let mut changed = (0..HEADER_BYTES).filter(|at| header[*at] != durable[*at]);
        let of_slots = |at: usize| at >= SLOTS_AT[0] && !primary.contains(&at);
        Ok(if header[FIXED] == durable[FIXED] && changed.any(of_slots) {
            match header[primary.clone()] == durable[primary] {
                true => Step::First,
                false => Step::Other,
            }
        } else if header[FIXED] == flipped[FIXED] {
            Step::Second
        } else {
            Step::Other
        })
    }

    fn sync(&mut self, inner: &impl StorageBackend) -> Result<()> {
        let (step, header) = match (self.step()?, self.header) {
            // Nothing of this commit counts before its record does.
            (Step::First, _) => return Ok(()),
            (step, header) => (step, header.filter(|_| step != Step::Pages)),
        };
        let open = header.is_some_and(|header| header[FLAGS_AT] & OPEN > 0);
        if open && !header.is_some_and(|header| is_known(&header)) {
            return Err(Error::new(ErrorKind::Unsupported, "redb's header has another form"));
        }
        let mut pages = BTreeMap::new();
        if step == Step::Second && !self.written.too_much {
            pages = std::mem::take(&mut self.written.pages);
        } else {
            inner.sync_data()?;
        }
        self.written = Written::default();
        let Some(header) = header else { return Ok(()) };
        if !open {
            self.end_records(inner, &header)?;
        } else if self.records_count {
            self.record(inner, &header, &pages)?;
        } else {
            self.begin_records(inner, &header)?;
        }
        self.durable = Some(header);
        Ok(())
    }

    /// From here on the records count. All that the header reaches is durable.
    fn begin_records(&mut self, inner: &impl StorageBackend, header: &Header) -> Result<()> {
        self.record(inner, header, &BTreeMap::new())?;
        let mut sector = [0; SECTOR_BYTES];
        sector[..HEADER_BYTES].copy_from_slice(header);
        // redb alone would take what was there when the file was opened for what is there now.
        for slot in SLOTS_AT {
            let end = slot + SLOT_BYTES;
            sector[end - CHECKSUM_BYTES..end].iter_mut().for_each(|byte| *byte ^= 0xff);
        }
        let mark = [&MARK[..], &self.last.0.to_le_bytes()].concat();
        sector[HEADER_BYTES..HEADER_BYTES + mark.len()].copy_from_slice(&mark);
        inner.write(0, &sector)?;
        inner.sync_data()?;
        self.records_count = true;
        Ok(())
    }

    /// From here on the header counts, and the file is as redb alone would have written it.
    fn end_records(&mut self, inner: &impl StorageBackend, header: &Header) -> Result<()> {
        let mut sector = [0; SECTOR_BYTES];
        sector[..HEADER_BYTES].copy_from_slice(header);
        inner.write(0, &sector)?;
        inner.sync_data()?;
        self.records_count = false;
        self.named.clear();
        Ok(())
    }

    /// Writes a record over the last but one, and syncs.
    fn record(
        &mut self,
        inner: &impl StorageBackend,
        header: &Header,
        pages: &BTreeMap<u64, Vec<u8>>,
    ) -> Result<()> {
        let (number, place) = (self.last.0 + 1, 1 - self.last.1);
        if number >= NUMBER_END {
            return Err(damaged());
        }
        let ranges = pages.iter().map(|(from, page)| (*from, from + page.len() as u64)).collect();
        // In one piece, of which many parts are hashed at once.
        let pages = pages.values().map(Vec::as_slice).collect::<Vec<_>>().concat();
        let contents = *blake3::hash(&pages).as_bytes();
        let record = Record { number, header: *header, contents, ranges };
        inner.write(place_of(place), &record.encode())?;
        inner.sync_data()?;
        self.last = (number, place);
        self.named = record.ranges.into_iter().collect();
        // That it was synced need not be durable at once. Where it is known, a commit that power cut short
        // is told from one that was damaged later.
        inner.write(NOTE_AT, &note(number))
    }

    /// Before a page is written that the last record names: that record is durable, and one that names
    /// nothing takes its place.
    fn settle(&mut self, inner: &impl StorageBackend, from: u64, to: u64) -> Result<()> {
        let before = self.named.range(..to).next_back();
        if before.is_none_or(|(_, end)| *end <= from) {
            return Ok(());
        }
        let Some(durable) = self.durable else { return Ok(()) };
        self.record(inner, &durable, &BTreeMap::new())
    }

    /// Does what may sync. Where it fails, nothing works from then on.
    fn latching(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.failed {
            return Err(Error::other("an earlier write to the store's file failed"));
        }
        self.failed = true;
        let done = work(self);
        self.failed = done.is_err();
        done
    }
}

impl Written {
    fn add(&mut self, from: u64, data: &[u8]) {
        let to = from + data.len() as u64;
        let aligned = from.is_multiple_of(PAGE_BYTES) && to.is_multiple_of(PAGE_BYTES);
        let fits = from / PAGE_BYTES <= u64::from(u32::MAX)
            && (data.len() as u64) / PAGE_BYTES <= u64::from(u16::MAX);
        // The same again takes the place of what was there.
        let same = self.pages.get(&from).is_some_and(|page| page.len() == data.len());
        let before = self.pages.range(..to).next_back();
        let apart = before.is_none_or(|(at, page)| at + page.len() as u64 <= from);
        if !same {
            self.bytes += data.len() as u64;
        }
        self.too_much |= !aligned || !fits || (!same && !apart) || self.bytes > BYTES_MAX;
        if !self.too_much {
            self.pages.insert(from, data.to_vec());
            self.too_much = self.pages.len() > RANGES_MAX;
        }
        if self.too_much {
            self.pages.clear();
        }
    }
}

/// What stands for a commit.
#[derive(Debug)]
struct Record {
    number: u64,
    header: Header,
    /// The hash of what the ranges held when it was written.
    contents: [u8; HASH_BYTES],
    /// Bytes of the file: from, and up to.
    ranges: Vec<(u64, u64)>,
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.header);
        bytes.extend(self.contents);
        bytes.extend((self.ranges.len() as u16).to_le_bytes());
        for (from, to) in &self.ranges {
            bytes.extend(((from / PAGE_BYTES) as u32).to_le_bytes());
            bytes.extend((((to - from) / PAGE_BYTES) as u16).to_le_bytes());
        }
        bytes.resize(RECORD_BYTES - HASH_BYTES, 0);
        bytes.extend(blake3::hash(&bytes).as_bytes());
        take(&bytes, 0)
    }

    /// The record in a place, if it is whole.
    fn decode(page: &[u8], place: usize) -> Option<Self> {
        let at = RECORDS_AT as usize + place * RECORD_BYTES;
        let (fields, hash) = page.get(at..at + RECORD_BYTES)?.split_at(RECORD_BYTES - HASH_BYTES);
        if blake3::hash(fields).as_bytes() != hash {
            return None;
        }
        let count = usize::from(u16::from_le_bytes(take(fields, RANGES_AT - 2)));
        let ranges = fields[RANGES_AT..].chunks_exact(RANGE_BYTES).take(count).map(|range| {
            let from = u64::from(u32::from_le_bytes(take(range, 0))) * PAGE_BYTES;
            (from, from + u64::from(u16::from_le_bytes(take(range, 4))) * PAGE_BYTES)
        });
        let ranges: Vec<(u64, u64)> = ranges.collect();
        let number = u64::from_le_bytes(take(fields, 0));
        // As they are written: in order, apart, and none of the first page.
        let ends = [PAGE_BYTES].into_iter().chain(ranges.iter().map(|(_, to)| *to));
        let sound =
            ranges.iter().zip(ends).all(|((from, to), before)| before <= *from && from < to)
                && count == ranges.len()
                && count <= RANGES_MAX
                && number < NUMBER_END;
        let header = take(fields, NUMBER_BYTES);
        let contents = take(fields, NUMBER_BYTES + HEADER_BYTES);
        sound.then_some(Self { number, header, contents, ranges })
    }

    /// What its ranges hold, one after the other, if that is what they should.
    fn contents(&self, inner: &impl StorageBackend) -> Result<Option<Vec<u8>>> {
        let bytes: u64 = self.ranges.iter().map(|(from, to)| to - from).sum();
        let end = self.ranges.last().map_or(0, |(_, to)| *to);
        if bytes > BYTES_MAX || end > inner.len()? {
            return Ok(None);
        }
        let (mut contents, mut at) = (vec![0; bytes as usize], 0);
        for (from, to) in &self.ranges {
            let next = at + (to - from) as usize;
            inner.read(*from, &mut contents[at..next])?;
            at = next;
        }
        let fits =
            *blake3::hash(&contents).as_bytes() == self.contents || bug::active(Bug::TrustRecord);
        Ok(fits.then_some(contents))
    }
}

/// The record that counts, in a file that was not closed.
struct Found {
    place: usize,
    record: Record,
    /// What its ranges hold, as it was read once.
    contents: Vec<u8>,
    /// A newer one, whose ranges could not be read, and why.
    unread: Option<(Record, Error)>,
}

impl Found {
    /// Of some records, in order: the last one of which all is there. The note says which was synced.
    fn of(
        inner: &impl StorageBackend,
        mut records: Vec<(usize, Record)>,
        synced: Option<u64>,
    ) -> Result<Self> {
        // Where power failed within the sync of one, the one before it was synced, and nothing that it names
        // or reaches was written to since.
        let mut unread = None;
        while let Some((place, record)) = records.pop() {
            // What power cut short may be unreadable, but what is known to have been synced was not cut short.
            let cut = unread.is_none() && synced.is_some_and(|synced| record.number > synced);
            match record.contents(inner) {
                Ok(Some(contents)) => return Ok(Self { place, record, contents, unread }),
                Ok(None) => {}
                Err(why) if cut => unread = Some((record, why)),
                Err(why) => return Err(why),
            }
        }
        Err(unread.map_or_else(damaged, |(_, why)| why))
    }
}

/// Where a record lies.
fn place_of(place: usize) -> u64 {
    RECORDS_AT + (place * RECORD_BYTES) as u64
}

fn damaged() -> Error {
    let why = "what records the last commit, or a part of that commit, is damaged";
    Error::new(ErrorKind::InvalidData, why)
}

/// Where the root is that counts.
fn primary(header: &Header) -> std::ops::Range<usize> {
    let at = SLOTS_AT[usize::from(header[FLAGS_AT] & PRIMARY)];
    at..at + SLOT_BYTES
}

fn is_known(header: &Header) -> bool {
    header.starts_with(&MAGIC) && header[primary(header).start] == FORMAT_VERSION
}

/// That a record was synced.
fn note(number: u64) -> Vec<u8> {
    let number = number.to_le_bytes();
    [&number[..], blake3::hash(&number).as_bytes()].concat()
}

/// The last record that is known to have been synced.
fn synced(page: &[u8]) -> Option<u64> {
    let (number, hash) = page.get(NOTE_AT as usize..)?.get(..NOTE_BYTES)?.split_at(NUMBER_BYTES);
    let synced = u64::from_le_bytes(take(number, 0));
    (blake3::hash(number).as_bytes() == hash && synced < NUMBER_END).then_some(synced)
}

/// So many bytes of a longer slice.
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl<B: StorageBackend> StorageBackend for OneSync<B> {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if offset >= PAGE_BYTES {
            return self.inner.read(offset, out);
        }
        self.with(|inner, state| {
            inner.read(offset, out)?;
            if let Some(header) = state.header {
                let from = offset as usize;
                let of_header = header.get(from..).unwrap_or_default();
                out.iter_mut().zip(of_header).for_each(|(out, byte)| *out = *byte);
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.with(|inner, state| {
            state.latching(|state| state.settle(inner, len, u64::MAX))?;
            // What is cut off and comes back is zero.
            state.written.too_much |=
                state.written.pages.iter().any(|(from, page)| from + page.len() as u64 > len);
            inner.set_len(len)
        })
    }

    fn sync_data(&self) -> Result<()> {
        self.with(|inner, state| state.latching(|state| state.sync(inner)))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.with(|inner, state| {
            if offset >= PAGE_BYTES {
                let to = offset + data.len() as u64;
                state.latching(|state| state.settle(inner, offset, to))?;
                let written = inner.write(offset, data);
                state.written.add(offset, data);
                // redb may let a page go that could not be written, and never write it again.
                state.written.too_much |= written.is_err();
                return written;
            }
            match (offset, data.try_into()) {
                (0, Ok(header)) => state.header = Some(header),
                _ => return Err(Error::new(ErrorKind::Unsupported, "redb's header is longer")),
            }
            Ok(())
        })
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }

    fn try_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests;
