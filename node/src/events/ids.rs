//! Where each event id stands in a store: a hash table in a file of its own.
//!
//! It is derived from the store and never trusted: what it says is looked up in the store, and it is
//! made anew when it is missing or wrong. It only saves reading the whole store for each event added.
//!
//! The header says how far into the store the table reaches for sure, also after a power cut. What is
//! beyond is read again, at most [`SYNC_LINES`] lines.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::beside;
use super::link::sha256;

/// How the file begins, with the version of its form.
const MAGIC: &[u8; 8] = b"srcosid1";
const HEADER_BYTES: u64 = 40;
const SLOT_BYTES: u64 = 16;

/// Slots of a new table; it doubles when it is half full.
const SLOTS_MIN: u64 = 1024;

/// Most slots that a table may claim to have, 2 TiB of them: a claim beyond it is damage.
const SLOTS_MAX: u64 = 1 << 37;

/// Lines added before the table is made durable: reading so many again takes about a millisecond, and
/// making it durable with each line would take longer.
pub const SYNC_LINES: u64 = 64;

/// The table of a store that is open for adding.
#[derive(Debug)]
pub struct Ids {
    file: File,
    path: PathBuf,
    slots: u64,
    used: u64,
    /// How far the store is covered durably: bytes and lines.
    covered: (u64, u64),
    /// The beginning of the store that this is the table of.
    store: [u8; 8],
}

/// What tells one store from another: the hash of its first line.
pub fn store_mark(first_line: &[u8]) -> [u8; 8] {
    let hash = sha256(first_line);
    [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]
}

impl Ids {
    /// The file of a store's table.
    pub fn file(store: &Path) -> PathBuf {
        beside(store, ".ids")
    }

    /// The table of a store, or nothing where it is missing, of another store or not whole.
    pub fn open(store: &Path, mark: [u8; 8], store_bytes: u64) -> io::Result<Option<Self>> {
        let path = Self::file(store);
        let file = match fs::OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut header = [0; HEADER_BYTES as usize];
        let length = file.metadata()?.len();
        if length < HEADER_BYTES {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (slots, covered) = (number(16), (number(24), number(32)));
        let fits = header[..8] == *MAGIC
            && header[8..16] == mark
            && slots.is_power_of_two()
            && (SLOTS_MIN..=SLOTS_MAX).contains(&slots)
            && length == HEADER_BYTES + slots * SLOT_BYTES
            && covered.0 <= store_bytes
            && covered.1 <= slots;
        // What was added after the header was written is added again and found there.
        Ok(fits.then_some(Self { file, path, slots, used: covered.1, covered, store: mark }))
    }

    /// An empty table in the place of whatever is there.
    pub fn create(store: &Path, mark: [u8; 8]) -> io::Result<Self> {
        Self::create_with(Self::file(store), mark, SLOTS_MIN)
    }

    fn create_with(path: PathBuf, mark: [u8; 8], slots: u64) -> io::Result<Self> {
        let new = beside(&path, ".new");
        let file = super::store::create(&new)?;
        file.set_len(0)?;
        file.set_len(HEADER_BYTES + slots * SLOT_BYTES)?;
        let table = Self { file, path, slots, used: 0, covered: (0, 0), store: mark };
        table.write_header()?;
        fs::rename(&new, &table.path)?;
        Ok(table)
    }

    /// Says that the store has a first line now.
    pub fn adopt(&mut self, mark: [u8; 8]) -> io::Result<()> {
        self.store = mark;
        self.write_header()
    }

    /// How far the store is covered: bytes and lines.
    pub fn covered(&self) -> (u64, u64) {
        self.covered
    }

    /// The places at which a line with this id may begin.
    pub fn find(&self, id: &str) -> io::Result<Vec<u64>> {
        let hash = key(id);
        let mut found = Vec::new();
        for at in self.probe(hash) {
            match self.slot(at)? {
                (_, 0) => return Ok(found),
                (known, offset) if known == hash => found.push(offset - 1),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Notes that a line with this id begins at an offset. Noting it twice does no harm.
    pub fn insert(&mut self, id: &str, offset: u64) -> io::Result<()> {
        if self.used * 2 >= self.slots {
            self.grow()?;
        }
        self.put(key(id), offset + 1)
    }

    fn put(&mut self, hash: u64, place: u64) -> io::Result<()> {
        for at in self.probe(hash) {
            match self.slot(at)? {
                (known, there) if (known, there) == (hash, place) => return Ok(()),
                (_, 0) => {
                    let mut bytes = [0; SLOT_BYTES as usize];
                    bytes[..8].copy_from_slice(&hash.to_le_bytes());
                    bytes[8..].copy_from_slice(&place.to_le_bytes());
                    self.file.write_all_at(&bytes, HEADER_BYTES + at * SLOT_BYTES)?;
                    self.used += 1;
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(io::Error::other("the table of ids is full"))
    }

    /// Says how far the store is covered now; durable every [`SYNC_LINES`] lines.
    pub fn cover(&mut self, bytes: u64, lines: u64) -> io::Result<()> {
        if lines >= self.covered.1 + SYNC_LINES || lines < self.covered.1 {
            self.file.sync_data()?;
            self.covered = (bytes, lines);
            self.write_header()?;
        }
        Ok(())
    }

    fn grow(&mut self) -> io::Result<()> {
        let path = self.path.clone();
        let mut larger = Self::create_with(path, self.store, self.slots * 2)?;
        const SLOTS_AT_ONCE: u64 = 4096;
        let mut bytes = vec![0; (SLOTS_AT_ONCE * SLOT_BYTES) as usize];
        let mut at = 0;
        while at < self.slots {
            let length = (self.slots - at).min(SLOTS_AT_ONCE) * SLOT_BYTES;
            let bytes = &mut bytes[..length as usize];
            self.file.read_exact_at(bytes, HEADER_BYTES + at * SLOT_BYTES)?;
            for slot in bytes.chunks_exact(SLOT_BYTES as usize) {
                let (hash, place) = read_slot(slot);
                if place != 0 {
                    larger.put(hash, place)?;
                }
            }
            at += SLOTS_AT_ONCE;
        }
        larger.file.sync_data()?;
        larger.covered = self.covered;
        larger.write_header()?;
        *self = larger;
        Ok(())
    }

    fn write_header(&self) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.store);
        header[16..24].copy_from_slice(&self.slots.to_le_bytes());
        header[24..32].copy_from_slice(&self.covered.0.to_le_bytes());
        header[32..].copy_from_slice(&self.covered.1.to_le_bytes());
        self.file.write_all_at(&header, 0)
    }

    /// Slots in the order in which a hash is looked for.
    fn probe(&self, hash: u64) -> impl Iterator<Item = u64> + use<> {
        let slots = self.slots;
        (0..slots).map(move |step| hash.wrapping_add(step) & (slots - 1))
    }

    fn slot(&self, at: u64) -> io::Result<(u64, u64)> {
        let mut bytes = [0; SLOT_BYTES as usize];
        self.file.read_exact_at(&mut bytes, HEADER_BYTES + at * SLOT_BYTES)?;
        Ok(read_slot(&bytes))
    }
}

fn read_slot(bytes: &[u8]) -> (u64, u64) {
    let number = |from: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[from..from + 8]);
        u64::from_le_bytes(number)
    };
    (number(0), number(8))
}

/// The hash of an id; a good one, so that nobody can choose ids that fall on one slot.
fn key(id: &str) -> u64 {
    u64::from_le_bytes(store_mark(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_finds_what_was_noted_also_after_it_grew_and_was_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("events.jsonl");
        let mark = store_mark(b"first");
        let mut ids = Ids::create(&store, mark).unwrap();
        let all = || (0..5000_u64).map(|n| (format!("evt_{n}"), n * 100));
        for (n, (id, offset)) in all().enumerate() {
            ids.insert(&id, offset).unwrap();
            ids.insert(&id, offset).unwrap();
            ids.cover(offset + 100, n as u64 + 1).unwrap();
        }
        let check = |ids: &Ids| {
            for (id, offset) in all() {
                assert_eq!(ids.find(&id).unwrap(), [offset], "{id}");
            }
            assert!(ids.find("evt_5000").unwrap().is_empty());
        };
        check(&ids);
        let (bytes, lines) = ids.covered();
        assert!(5000 - lines < SYNC_LINES && bytes == lines * 100);
        check(&Ids::open(&store, mark, 500_000).unwrap().unwrap());
        assert!(Ids::open(&store, store_mark(b"other"), 500_000).unwrap().is_none());
        assert!(Ids::open(&store, mark, bytes - 1).unwrap().is_none(), "the store was cut");
    }

    #[test]
    fn whatever_the_file_holds_it_is_read_without_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("events.jsonl");
        for length in [0, 1, 39, 40, 41, 40 + 16 * 1024] {
            fs::write(Ids::file(&store), vec![0xff; length]).unwrap();
            assert!(Ids::open(&store, [0xff; 8], 1 << 40).unwrap().is_none(), "{length}");
        }
    }
}
