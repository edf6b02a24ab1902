//! A disk that fails in every way, and redb on it through [`OneSync`].

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};

use redb::{Builder, Database, Durability, ReadableDatabase, TableDefinition};

use super::*;

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");

/// A disk that keeps, of what was not synced when power fails, some sectors and not others.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    syncs: usize,
    /// Syncs until one fails, and what it was to write is shown from then on and never written.
    syncs_left: Option<u64>,
    /// Sectors that cannot be read until they are written.
    unreadable: BTreeSet<usize>,
    /// Reads beyond the first page until one fails.
    reads_left: Option<u64>,
    /// Writes until one fails.
    writes_left: Option<u64>,
    /// Writes and syncs until power fails.
    left: Option<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn works(&self) -> Result<MutexGuard<'_, Platter>> {
        let mut platter = self.lock();
        match &mut platter.left {
            Some(0) => return Err(Error::other("power has failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(platter)
    }

    /// The process is gone: nothing more is written, not even to close the file. What it wrote is still shown.
    fn kill(&self, db: Database) {
        self.lock().left = Some(0);
        drop(db);
        self.lock().left = None;
    }

    /// Power fails. Of what was not synced each sector is kept by chance.
    fn cut(&self, random: &mut Random) {
        let mut platter = self.lock();
        let (mut image, percent) = (platter.durable.clone(), [0, 10, 50, 90, 100][random.below(5)]);
        for change in std::mem::take(&mut platter.unsynced) {
            match change {
                Change::Length(len) if random.below(100) < percent => image.resize(len, 0),
                Change::Length(_) => {}
                Change::Bytes(at, bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if random.below(100) < percent {
                            put(&mut image, at + n * SECTOR_BYTES, sector);
                        }
                    }
                }
            }
        }
        // A sector that was being written may be lost, and one that would be as it was is taken for whole.
        for at in (PAGE_BYTES as usize..image.len()).step_by(SECTOR_BYTES) {
            let sector = |image: &[u8]| image.get(at..at + SECTOR_BYTES).map(<[u8]>::to_vec);
            let touched = sector(&platter.live) != sector(&platter.durable);
            if touched && sector(&image) == sector(&platter.durable) && random.below(8) == 0 {
                platter.unreadable.insert(at / SECTOR_BYTES);
            }
        }
        platter.live.clone_from(&image);
        platter.durable = image;
        (platter.left, platter.syncs_left, platter.writes_left) = (None, None, None);
    }
}

/// Counts down. Whether it has come to the end, once.
fn is_over(left: &mut Option<u64>) -> bool {
    let over = *left == Some(0);
    *left = left.and_then(|left| left.checked_sub(1));
    over
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    image.resize(image.len().max(at + bytes.len()), 0);
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let at = offset as usize;
        let mut platter = self.lock();
        let failing = offset >= PAGE_BYTES && is_over(&mut platter.reads_left);
        let sectors = at / SECTOR_BYTES..(at + out.len()).div_ceil(SECTOR_BYTES);
        if failing || platter.unreadable.range(sectors).next().is_some() {
            return Err(Error::other("a sector cannot be read"));
        }
        let bytes = platter.live.get(at..at + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut platter = self.works()?;
        platter.live.resize(len as usize, 0);
        platter.unsynced.push(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut platter = self.works()?;
        platter.syncs += 1;
        let changes = std::mem::take(&mut platter.unsynced);
        if is_over(&mut platter.syncs_left) {
            return Err(Error::other("a sync has failed"));
        }
        for change in changes {
            match change {
                Change::Length(len) => platter.durable.resize(len, 0),
                Change::Bytes(at, bytes) => put(&mut platter.durable, at, &bytes),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut platter = self.works()?;
        if is_over(&mut platter.writes_left) {
            return Err(Error::other("a write has failed"));
        }
        let at = offset as usize;
        for sector in at.div_ceil(SECTOR_BYTES)..(at + data.len()) / SECTOR_BYTES {
            platter.unreadable.remove(&sector);
        }
        put(&mut platter.live, at, data);
        platter.unsynced.push(Change::Bytes(offset as usize, data.to_vec()));
        Ok(())
    }
}

/// Numbers from a seed.
struct Random(blake3::OutputReader);

impl Random {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % end as u64).unwrap()
    }
}

fn open(disk: &Disk) -> std::result::Result<Database, redb::DatabaseError> {
    // Small, so that pages leave it before the commit.
    Builder::new().set_cache_size(64 * 1024).create_with_backend(OneSync::new(disk.clone()))
}

type Rows = BTreeMap<u64, Vec<u8>>;

fn rows(db: &Database) -> Rows {
    let read = db.begin_read().unwrap();
    let Ok(table) = read.open_table(TABLE) else { return Rows::new() };
    let row = |row: std::result::Result<
        (redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>),
        _,
    >| {
        let (key, value) = row.unwrap();
        (key.value(), value.value().to_vec())
    };
    redb::ReadableTable::iter(&table).unwrap().map(row).collect()
}

/// Changes some rows and commits, unless the disk fails. What is committed then is in the rows.
fn commit(
    db: &Database,
    rows: &mut Rows,
    random: &mut Random,
) -> std::result::Result<(), redb::Error> {
    let mut turn = db.begin_write()?;
    turn.set_two_phase_commit(true);
    let changes = [1, 1, 2, 5, 40][random.below(5)];
    let bytes = [10, 200, 5_000, 60_000][random.below(4)];
    {
        let mut table = turn.open_table(TABLE)?;
        for _ in 0..changes {
            let (key, byte) = (random.below(60) as u64, random.below(256) as u8);
            if random.below(4) == 0 {
                table.remove(key)?;
                rows.remove(&key);
            } else {
                let value = vec![byte; random.below(bytes)];
                table.insert(key, &*value)?;
                rows.insert(key, value);
            }
        }
    }
    turn.commit()?;
    Ok(())
}

/// Lets power, a sync or a write fail after some more of them.
fn plan(disk: &Disk, random: &mut Random) {
    let mut platter = disk.lock();
    match random.below(4) {
        0 => platter.syncs_left = Some(random.below(25) as u64),
        1 => platter.writes_left = Some(random.below(150) as u64),
        _ => platter.left = Some(random.below(200) as u64),
    }
}

#[test]
fn whatever_fails_all_of_the_last_commit_is_there_or_of_the_one_that_was_cut_short() {
    for seed in 0..250 {
        let (disk, mut random) = (Disk::default(), Random::new(seed));
        let mut known = Rows::new();
        for _ in 0..6 {
            let db = open(&disk).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            assert_eq!(rows(&db), known, "seed {seed}");
            plan(&disk, &mut random);
            let mut next = known.clone();
            loop {
                // A reader lets redb write pages before the commit, and swallow what fails then.
                let reader = (random.below(3) == 0).then(|| db.begin_read().unwrap());
                if commit(&db, &mut next, &mut random).is_err() {
                    break;
                }
                drop(reader);
                known.clone_from(&next);
                if random.below(12) == 0 {
                    break;
                }
            }
            // Closed, or not: that fails as well then.
            drop(db);
            // The process begins anew, or the machine, and what fails fails again while that is mended.
            let mut cuts = random.below(3) > 0;
            loop {
                if cuts {
                    disk.cut(&mut random);
                }
                if random.below(3) == 0 {
                    break;
                }
                disk.lock().left = Some(random.below(40) as u64);
                if random.below(2) == 0 {
                    disk.lock().syncs_left = Some(random.below(6) as u64);
                }
                drop(open(&disk));
                cuts = true;
            }
            // What was cut short may be there, and if it is, it stays.
            let mut platter = disk.lock();
            (platter.left, platter.syncs_left, platter.writes_left) = (None, None, None);
            drop(platter);
            let db = open(&disk).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            let found = rows(&db);
            assert!(found == known || found == next, "seed {seed}");
            known = found;
            let mut again = known.clone();
            commit(&db, &mut again, &mut random).unwrap();
            known = again;
            // Not closed, and not cut off: the next one finds it so.
            if random.below(2) == 0 {
                disk.kill(db);
                disk.cut(&mut random);
            }
        }
    }
}

/// A sync fails in a commit or when the file is closed, and the process begins anew: it is shown what is not on
/// the disk, and power fails while it mends that.
#[test]
fn what_a_failed_sync_left_is_made_durable_before_anything_takes_its_place() {
    for seed in 0..1_500 {
        let (disk, mut random) = (Disk::default(), Random::new(seed));
        let opened = || Builder::new().create_with_backend(OneSync::new(disk.clone()));
        let db = opened().unwrap();
        let mut known = Rows::new();
        let put =
            |db: &Database, rows: &mut Rows, key: u64| -> std::result::Result<(), redb::Error> {
                let mut turn = db.begin_write()?;
                turn.set_two_phase_commit(true);
                turn.open_table(TABLE)?.insert(key, &[key as u8; 9][..])?;
                turn.commit()?;
                rows.insert(key, vec![key as u8; 9]);
                Ok(())
            };
        for key in 0..2 + random.below(3) as u64 {
            put(&db, &mut known, key).unwrap();
        }
        disk.lock().syncs_left = Some(random.below(5) as u64);
        let mut next = known.clone();
        next.insert(50, vec![50; 9]);
        if random.below(2) == 0 {
            let done = put(&db, &mut known, 50);
            assert!(done.is_ok() || !known.contains_key(&50));
            disk.kill(db);
        } else {
            drop(db.close());
        }
        let mut platter = disk.lock();
        (platter.syncs_left, platter.left) = (None, Some(random.below(16) as u64));
        drop(platter);
        drop(opened());
        disk.cut(&mut random);
        let db = opened().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let found = rows(&db);
        assert!(found == known || found == next, "seed {seed}: {found:?}");
    }
}

#[test]
fn small_commit_is_one_sync_and_a_large_one_two() {
    let (disk, mut random) = (Disk::default(), Random::new(1));
    let db = Builder::new().create_with_backend(OneSync::new(disk.clone())).unwrap();
    // Room for all that follows.
    let write = |bytes: usize| {
        let mut turn = db.begin_write().unwrap();
        turn.set_two_phase_commit(true);
        let value = vec![random.below(256) as u8; bytes];
        turn.open_table(TABLE).unwrap().insert(1, &*value).unwrap();
        let before = disk.lock().syncs;
        turn.commit().unwrap();
        disk.lock().syncs - before
    };
    let mut write = write;
    write(2 * BYTES_MAX as usize);
    write(1);
    for _ in 0..50 {
        assert_eq!(write(20_000), 1);
    }
    assert_eq!(write(2 * BYTES_MAX as usize), 2);
}

#[test]
fn closed_file_is_as_redb_alone_would_have_written_it() {
    let (disk, mut random) = (Disk::default(), Random::new(2));
    let mut known = Rows::new();
    for round in 0..6 {
        let db = match round % 2 {
            0 => open(&disk).unwrap(),
            _ => Builder::new().create_with_backend(disk.clone()).unwrap(),
        };
        assert_eq!(rows(&db), known);
        commit(&db, &mut known, &mut random).unwrap();
        commit(&db, &mut known, &mut random).unwrap();
        let sector = |disk: &Disk| disk.lock().durable[HEADER_BYTES..SECTOR_BYTES].to_vec();
        assert_eq!(sector(&disk).iter().any(|byte| *byte > 0), round % 2 == 0);
        db.close().unwrap();
        assert!(sector(&disk).iter().all(|byte| *byte == 0));
    }
    // Also where redb alone did not close it.
    let db = Builder::new().create_with_backend(disk.clone()).unwrap();
    commit(&db, &mut known, &mut random).unwrap();
    disk.kill(db);
    disk.cut(&mut random);
    // And that is told from records of before, which are still there.
    for _ in 0..3 {
        let db = open(&disk).unwrap();
        assert_eq!(rows(&db), known);
        commit(&db, &mut known, &mut random).unwrap();
        db.close().unwrap();
        let db = Builder::new().create_with_backend(disk.clone()).unwrap();
        commit(&db, &mut known, &mut random).unwrap();
        disk.kill(db);
        disk.cut(&mut random);
    }
    assert_eq!(rows(&open(&disk).unwrap()), known);
}

#[test]
fn redb_alone_refuses_a_file_that_was_not_closed() {
    let (disk, mut random) = (Disk::default(), Random::new(6));
    let db = open(&disk).unwrap();
    let mut known = Rows::new();
    for _ in 0..3 {
        commit(&db, &mut known, &mut random).unwrap();
    }
    disk.kill(db);
    disk.cut(&mut random);
    let before = disk.lock().live.clone();
    let alone = Builder::new().create_with_backend(disk.clone());
    assert!(matches!(alone, Err(redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)))));
    let reader = Builder::new().open_read_only_with_backend(disk.clone());
    assert!(matches!(reader, Err(redb::DatabaseError::RepairAborted)));
    assert!(disk.lock().live == before, "nothing is changed");
    assert_eq!(rows(&open(&disk).unwrap()), known);
}

#[test]
fn no_first_page_is_too_strange_to_be_read() {
    let (disk, mut random) = (Disk::default(), Random::new(7));
    let db = open(&disk).unwrap();
    let mut known = Rows::new();
    commit(&db, &mut known, &mut random).unwrap();
    disk.kill(db);
    let good = disk.lock().live.clone();
    // Records with hashes that fit, of numbers and ranges that nobody wrote.
    for number in [0, 1, u64::from(u32::MAX), NUMBER_END - 1, NUMBER_END, u64::MAX] {
        for ranges in [
            vec![],
            vec![(0, PAGE_BYTES)],
            vec![(u64::from(u32::MAX) * PAGE_BYTES, 1 << 44)],
            vec![(8192, 12288), (4096, 8192)],
            vec![(4096, 4096)],
        ] {
            let mut page = good[..PAGE_BYTES as usize].to_vec();
            let header = Record::decode(&page, 0).or(Record::decode(&page, 1)).unwrap().header;
            let record = Record { number, header, contents: [0; HASH_BYTES], ranges };
            page[RECORDS_AT as usize..][..RECORD_BYTES].copy_from_slice(&record.encode());
            page[NOTE_AT as usize..][..NOTE_BYTES].copy_from_slice(&note(number));
            disk.lock().live.clone_from(&good);
            disk.lock().live[..page.len()].copy_from_slice(&page);
            drop(open(&disk));
        }
    }
    for _ in 0..2_000 {
        disk.lock().live.clone_from(&good);
        for _ in 0..1 + random.below(4) {
            disk.lock().live[random.below(PAGE_BYTES as usize)] = random.below(256) as u8;
        }
        let opened = std::panic::catch_unwind(|| open(&disk).map(|db| rows(&db)));
        // What of redb's own header is damaged may count as it stands; what counts of ours may not.
        if let Ok(Ok(found)) = opened {
            assert_eq!(found, known);
        }
    }
}

#[test]
fn damage_to_the_last_commit_is_told_and_no_earlier_one_takes_its_place() {
    let disk = Disk::default();
    // Nothing is written but what is committed.
    let db = Builder::new().create_with_backend(OneSync::new(disk.clone())).unwrap();
    let mut known = Rows::new();
    for n in 0..9 {
        let mut turn = db.begin_write().unwrap();
        turn.set_two_phase_commit(true);
        turn.open_table(TABLE).unwrap().insert(n, &[1, 2, 3][..]).unwrap();
        turn.commit().unwrap();
        known.insert(n, vec![1, 2, 3]);
    }
    // The process is gone, and the disk has all.
    disk.kill(db);
    let good = disk.lock().live.clone();
    let newest = [0, 1].map(|place| Record::decode(&good, place).unwrap().number);
    let place = usize::from(newest[1] > newest[0]);
    let record = Record::decode(&good, place).unwrap();
    let at = RECORDS_AT as usize + place * RECORD_BYTES;
    let mut places = vec![at, at + 100, at + RECORD_BYTES - 1];
    places.extend(
        record.ranges.iter().map(|(from, to)| usize::midpoint(*from as usize, *to as usize)),
    );
    assert!(places.len() > 4);
    for at in places {
        disk.lock().live.clone_from(&good);
        disk.lock().live[at] ^= 1;
        let Err(why) = open(&disk) else { panic!("damage at {at} is not seen") };
        let why = crate::error::StoreError::from(why);
        assert!(matches!(why, crate::error::StoreError::Damaged { .. }), "{why}");
    }
    disk.lock().live = good;
    assert_eq!(rows(&open(&disk).unwrap()), known);
}

#[test]
fn page_that_cannot_be_read_costs_only_a_commit_that_nobody_was_told_of() {
    let disk = Disk::default();
    let db = Builder::new().create_with_backend(OneSync::new(disk.clone())).unwrap();
    let (mut known, mut before) = (Rows::new(), Rows::new());
    for n in 0..9 {
        before.clone_from(&known);
        let mut turn = db.begin_write().unwrap();
        turn.set_two_phase_commit(true);
        turn.open_table(TABLE).unwrap().insert(n, &[1, 2, 3][..]).unwrap();
        turn.commit().unwrap();
        known.insert(n, vec![1, 2, 3]);
    }
    disk.kill(db);
    let good = disk.lock().live.clone();
    let records = [0, 1].map(|place| Record::decode(&good, place).unwrap());
    let record = records.into_iter().max_by_key(|record| record.number).unwrap();
    assert!(record.ranges.len() > 1);
    let unnoted = {
        let mut image = good.clone();
        put(&mut image, NOTE_AT as usize, &note(record.number - 1));
        image
    };
    let refused = |image: &[u8]| {
        disk.lock().live = image.to_vec();
        let Err(why) = open(&disk) else { panic!("it is opened") };
        let why = crate::error::StoreError::from(why);
        assert!(matches!(why, crate::error::StoreError::Io(_)), "{why}");
    };
    for (from, _) in &record.ranges {
        let sector = *from as usize / SECTOR_BYTES;
        // It was synced, and that is known, or it is not known what was: nothing is changed.
        for zeros in [false, true] {
            let mut image = good.clone();
            if zeros {
                put(&mut image, NOTE_AT as usize, &[0; NOTE_BYTES]);
            }
            disk.lock().unreadable.insert(sector);
            refused(&image);
            assert!(disk.lock().live == image);
            disk.lock().unreadable.clear();
            assert_eq!(rows(&open(&disk).unwrap()), known);
        }
        // It is not known to have been synced: power cut it short.
        disk.lock().live.clone_from(&unnoted);
        disk.lock().unreadable.insert(sector);
        assert_eq!(rows(&open(&disk).unwrap()), before);
        disk.lock().unreadable.clear();
    }
    // The disk failed for a moment: what it holds is found the next time.
    disk.lock().reads_left = Some(0);
    refused(&unnoted);
    assert_eq!(rows(&open(&disk).unwrap()), known);
}

#[test]
fn after_a_failed_sync_nothing_works() {
    let disk = Disk::default();
    let db = open(&disk).unwrap();
    let backend = OneSync::new(disk.clone());
    drop(db);
    backend.write(PAGE_BYTES, &[1; PAGE_BYTES as usize]).unwrap();
    disk.lock().syncs_left = Some(0);
    assert!(backend.sync_data().is_err());
    assert!(backend.sync_data().is_err());
    assert!(backend.write(PAGE_BYTES, &[1; PAGE_BYTES as usize]).is_err());
    assert!(backend.set_len(1 << 20).is_err());
}

#[test]
fn page_that_could_not_be_written_is_in_no_record() {
    let disk = Disk::default();
    let db = open(&disk).unwrap();
    let mut known = Rows::new();
    commit(&db, &mut known, &mut Random::new(8)).unwrap();
    disk.kill(db);
    let backend = OneSync::new(disk.clone());
    let mut header: Header = [0; HEADER_BYTES];
    backend.read(0, &mut header).unwrap();
    let end = backend.len().unwrap();
    disk.lock().writes_left = Some(0);
    assert!(backend.write(end - PAGE_BYTES, &[9; PAGE_BYTES as usize]).is_err());
    // As if redb let the page go, and committed.
    header[FLAGS_AT] ^= PRIMARY;
    backend.write(0, &header).unwrap();
    let before = disk.lock().syncs;
    backend.sync_data().unwrap();
    assert_eq!(disk.lock().syncs - before, 2, "what was written before is synced first");
    drop(backend);
    OneSync::new(disk.clone()).read(0, &mut header).unwrap();
}

#[test]
fn note_of_an_earlier_time_takes_nothing_for_damaged() {
    let (disk, mut random) = (Disk::default(), Random::new(9));
    let db = open(&disk).unwrap();
    let mut known = Rows::new();
    for _ in 0..5 {
        commit(&db, &mut known, &mut random).unwrap();
    }
    db.close().unwrap();
    disk.lock().live[RECORDS_AT as usize..NOTE_AT as usize].fill(0);
    let stale = disk.lock().live[NOTE_AT as usize..][..NOTE_BYTES].to_vec();
    let db = open(&disk).unwrap();
    commit(&db, &mut known, &mut random).unwrap();
    disk.kill(db);
    // Power failed, and newer ones were lost.
    disk.lock().live[NOTE_AT as usize..][..NOTE_BYTES].copy_from_slice(&stale);
    assert_eq!(rows(&open(&disk).unwrap()), known);
}

#[test]
fn page_that_the_last_record_names_is_written_to_only_after_a_record_that_names_none() {
    let (disk, mut random) = (Disk::default(), Random::new(4));
    let db = open(&disk).unwrap();
    let mut known = Rows::new();
    commit(&db, &mut known, &mut random).unwrap();
    disk.kill(db);
    let named = |disk: &Disk| {
        let page = disk.lock().durable[..PAGE_BYTES as usize].to_vec();
        let records = [0, 1].into_iter().filter_map(|place| Record::decode(&page, place));
        records.max_by_key(|record| record.number).unwrap().ranges
    };
    let (first, _) = named(&disk)[0];
    let backend = OneSync::new(disk.clone());
    backend.write(first, &[7; PAGE_BYTES as usize]).unwrap();
    assert_eq!(named(&disk), [], "durable before the page is");
}

#[test]
fn what_is_not_durable_changes_no_root() {
    let (disk, mut random) = (Disk::default(), Random::new(5));
    let db = open(&disk).unwrap();
    let mut known = Rows::new();
    commit(&db, &mut known, &mut random).unwrap();
    let mut turn = db.begin_write().unwrap();
    turn.set_durability(Durability::None).unwrap();
    turn.open_table(TABLE).unwrap().insert(99, &[1][..]).unwrap();
    turn.commit().unwrap();
    disk.kill(db);
    disk.cut(&mut random);
    assert_eq!(rows(&open(&disk).unwrap()), known);
}
