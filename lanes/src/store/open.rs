//! Opening and closing: creation, locking, recovery after a crash, rollback detection, migrations.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend};

use super::one_sync::OneSync;
use super::{Authors, DocumentCache, Journals, Parked, Reader, Store, WORK_BYTES_TARGET};
use crate::bug::{self, Bug};
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash, DeviceId, Incarnation, MeshId, ObjectKey};
use crate::tables::{self, ObjectRow, RowState, meta};

/// The version of the store's tables; `migrate` brings older ones up to it.
pub const STORE_VERSION: u32 = 2;
/// Memory for cached pages, in bytes: enough for the hot paths of a million objects, small enough
/// for a background service.
pub const CACHE_BYTES: usize = 24 * 1024 * 1024;
/// Entries at the end of each journal that are verified after an unclean stop.
pub const VERIFY_TAIL_ENTRIES: u64 = 32;

/// What opening a store needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// The device whose key the caller holds.
    pub device: DeviceId,
    /// The count of opens kept outside the store; `None` when that is lost. When it differs from
    /// the count inside, the store was restored or cloned, and a new incarnation starts.
    pub opens_outside: Option<u64>,
    /// Random bits for a new incarnation.
    pub random: u32,
}

impl Store {
    /// Creates a store in a new file. Fails when the file exists.
    pub fn create(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Io(format!("{} exists already", path.display())));
        }
        let backend = file(path, std::fs::OpenOptions::new().create_new(true))?;
        let db = guarded(|| builder().create_with_backend(backend))?;
        Self::set_up(db, options)
    }

    /// Opens the store in a file for writing.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        let size = std::fs::metadata(path);
        match size {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::Absent(path.display().to_string()));
            }
            Err(error) => return Err(StoreError::Io(format!("{}: {error}", path.display()))),
            Ok(size) if size.len() == 0 => {
                return Err(StoreError::inconsistent("file", "it is empty"));
            }
            Ok(_) => {}
        }
        let backend = file(path, &mut std::fs::OpenOptions::new())?;
        let db = guarded(|| builder().create_with_backend(backend))?;
        Self::load(db, options)
    }

    /// Opens or creates a store on any storage, such as a simulated disk.
    pub fn open_backend(
        backend: impl StorageBackend,
        options: &OpenOptions,
    ) -> Result<Self, StoreError> {
        let empty = backend.len().map_err(|error| StoreError::Io(error.to_string()))? == 0;
        let db = guarded(|| builder().create_with_backend(OneSync::new(backend)))?;
        if empty { Self::set_up(db, options) } else { Self::load(db, options) }
    }

    /// The count of opens inside; the caller keeps the same number outside, after each open.
    pub fn opens(&self) -> Result<u64, StoreError> {
        let snapshot = self.reader().snapshot()?;
        let opens = snapshot.meta(meta::OPENS, u64::from_be_bytes)?;
        opens.ok_or_else(|| StoreError::inconsistent("meta-1", "the count of opens is missing"))
    }

    /// Commits what is open, marks the store clean and closes the file.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.put_meta(meta::CLEAN, &[1])?;
        self.commit()?;
        let Self { db, .. } = self;
        match Arc::try_unwrap(db) {
            Ok(db) => Ok(db.close()?),
            // A reader still holds the file; redb closes it when the last one goes.
            Err(_) => Ok(()),
        }
    }

    fn set_up(db: Database, options: &OpenOptions) -> Result<Self, StoreError> {
        let mut turn = db.begin_write()?;
        turn.set_two_phase_commit(true);
        {
            for table in tables::ALL {
                turn.open_table(table)?;
            }
            let mut table = turn.open_table(tables::META)?;
            let mut put = |name: &str, value: &[u8]| {
                tables::insert(&mut table, tables::META, name.as_bytes(), value)
            };
            put(meta::VERSION, &STORE_VERSION.to_be_bytes())?;
            put(meta::DEVICE, &options.device.0)?;
            let incarnation = Incarnation::first(options.random);
            put(meta::INCARNATION, &incarnation.0.to_be_bytes())?;
            put(meta::OPENS, &options.opens_outside.unwrap_or(0).to_be_bytes())?;
            put(meta::CLEAN, &[1])?;
        }
        turn.commit()?;
        Self::load(db, options)
    }

    fn load(db: Database, options: &OpenOptions) -> Result<Self, StoreError> {
        // Damage that redb itself does not expect makes it panic rather than return an error.
        let loaded = catch_unwind(AssertUnwindSafe(|| Self::load_tables(db, options)));
        loaded.unwrap_or_else(|_| {
            Err(StoreError::inconsistent("file", "its pages contradict each other"))
        })
    }

    fn load_tables(db: Database, options: &OpenOptions) -> Result<Self, StoreError> {
        let db = Arc::new(db);
        let snapshot = Reader::new(Arc::clone(&db)).snapshot()?;
        let missing = |name| StoreError::inconsistent("meta-1", format!("{name} is missing"));
        let version = snapshot
            .meta(meta::VERSION, u32::from_be_bytes)?
            .ok_or_else(|| missing(meta::VERSION))?;
        if version > STORE_VERSION {
            return Err(StoreError::Newer { found: version, known: STORE_VERSION });
        }
        migrate(&db, version)?;
        let found =
            DeviceId(snapshot.meta(meta::DEVICE, |id| id)?.ok_or_else(|| missing(meta::DEVICE))?);
        if found != options.device {
            return Err(StoreError::OtherDevice { found, key: options.device });
        }
        let incarnation = Incarnation(
            snapshot
                .meta(meta::INCARNATION, u64::from_be_bytes)?
                .ok_or_else(|| missing(meta::INCARNATION))?,
        );
        let opens =
            snapshot.meta(meta::OPENS, u64::from_be_bytes)?.ok_or_else(|| missing(meta::OPENS))?;
        let clean = snapshot.meta(meta::CLEAN, |[clean]: [u8; 1]| clean == 1)?;
        let mut authors = Authors::default();
        for author in snapshot.authors()? {
            authors.add(author);
        }
        let counts = snapshot.counts_rows()?;
        // What was damaged, and is counted anew, is written again.
        let changed_counts = counts.keys().copied().collect();
        let mut store = Self {
            mesh: snapshot.meta(meta::MESH, MeshId)?,
            journals: Journals::new(snapshot.journal_rows()?, &authors),
            forks: snapshot.forks(&authors)?,
            counts,
            feed_next: snapshot.feed_next()?,
            db,
            device: found,
            incarnation,
            authors,
            documents: DocumentCache::new(),
            parked: Parked::default(),
            barred: BTreeSet::new(),
            begun: BTreeMap::new(),
            work_target: WORK_BYTES_TARGET,
            work_left: 0,
            settled: false,
            #[cfg(test)]
            fullest: 0,
            leaves_out: false,
            turn: None,
            versions: BTreeMap::new(),
            changed_journals: BTreeSet::new(),
            changed_counts,
            latched: None,
        };
        if clean != Some(true) {
            snapshot.verify_tails(&store, VERIFY_TAIL_ENTRIES)?;
        }
        // It is of before the migration, and keeps pages from being used again.
        drop(snapshot);
        let snapshot = store.reader().snapshot()?;
        let left_out = snapshot.table(tables::LEFT_OUT)?;
        store.leaves_out = !redb::ReadableTableMetadata::is_empty(left_out)?;
        drop(snapshot);
        if bug::active(Bug::ForgetTombstones) {
            store.with_turn(|_, turn| Ok(turn.delete_table(tables::TOMBSTONES).map(drop)?))?;
            store.with_turn(|_, turn| Ok(turn.open_table(tables::TOMBSTONES).map(drop)?))?;
        }
        if options.opens_outside != Some(opens) && !bug::active(Bug::ReuseSequence) {
            store.begin_incarnation(options.random)?;
        }
        store.put_meta(meta::OPENS, &(opens + 1).to_be_bytes())?;
        store.put_meta(meta::CLEAN, &[0])?;
        store.commit()?;
        Ok(store)
    }
}

impl Reader {
    /// Opens the store in a file for reading only. Changes nothing: a store that was not closed
    /// cleanly is refused, and so is one that a node has open.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Absent(path.display().to_string()));
        }
        let db = guarded(|| builder().open_read_only(path))?;
        let reader = Self::new_read_only(Arc::new(db));
        let version = reader.snapshot()?.meta(meta::VERSION, u32::from_be_bytes)?;
        match version {
            Some(found) if found > STORE_VERSION => {
                Err(StoreError::Newer { found, known: STORE_VERSION })
            }
            Some(_) => Ok(reader),
            None => Err(StoreError::inconsistent("meta-1", "version is missing")),
        }
    }
}

/// Brings an older store up to [`STORE_VERSION`], step by numbered step, all in one commit.
///
/// 2: the tables of changes that are not in their objects. Version 1 kept nothing of a change that it
/// refused, so that nobody can tell any more what its object lacks: a change without a hash stands for
/// it, and holds the object in quarantine until it is deleted. Version 0 was never written.
fn migrate(db: &Database, from: u32) -> Result<(), StoreError> {
    match from {
        STORE_VERSION => return Ok(()),
        1 => {}
        other => {
            let what = format!("version {other} was never written");
            return Err(StoreError::inconsistent("meta-1", what));
        }
    }
    let mut turn = db.begin_write()?;
    turn.set_two_phase_commit(true);
    turn.open_table(tables::STALLED)?;
    {
        let mut left_out = turn.open_table(tables::LEFT_OUT)?;
        let objects = turn.open_table(tables::OBJECTS)?;
        for row in objects.iter()? {
            let (key, value) = row?;
            let key = key.value();
            let row = tables::unseal(tables::OBJECTS, key, value.value())
                .and_then(|bytes| tables::decode::<ObjectRow>(tables::OBJECTS, key, bytes));
            // A damaged row is found, and told of, where it is used.
            let Ok(ObjectRow { state: RowState::Quarantined(_), first, .. }) = row else {
                continue;
            };
            let Some((lane, id, life)) = tables::split_object_key(key) else { continue };
            // No change has such a hash, nor such a place in the list.
            let unknown = ChangeHash([0xff; 32]);
            let key = tables::left_out_key(ObjectKey::new(lane, id, life), unknown, first);
            tables::insert_row(&mut left_out, tables::LEFT_OUT, &key, &unknown)?;
        }
    }
    {
        let mut table = turn.open_table(tables::META)?;
        let version = STORE_VERSION.to_be_bytes();
        tables::insert(&mut table, tables::META, meta::VERSION.as_bytes(), &version)?;
    }
    Ok(turn.commit()?)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// A file to write to.
fn file(
    path: &Path,
    options: &mut std::fs::OpenOptions,
) -> Result<OneSync<FileBackend>, StoreError> {
    let file = options.read(true).write(true).open(path);
    let file = file.map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?;
    Ok(OneSync::new(FileBackend::new(file)?))
}

/// Runs an open that panics on some damaged files.
fn guarded<D>(open: impl FnOnce() -> Result<D, redb::DatabaseError>) -> Result<D, StoreError> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::inconsistent("file", "its pages contradict each other")),
    }
}

impl super::Snapshot {
    pub(super) fn meta<const N: usize, T>(
        &self,
        name: &str,
        read: impl FnOnce([u8; N]) -> T,
    ) -> Result<Option<T>, StoreError> {
        let table = self.table(tables::META)?;
        let value = tables::read_with(table, tables::META, name.as_bytes(), |bytes| {
            <[u8; N]>::try_from(bytes)
        })?;
        match value {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(read(value))),
            Some(Err(_)) => {
                Err(StoreError::inconsistent("meta-1", format!("{name} has the wrong length")))
            }
        }
    }

    pub(super) fn authors(&self) -> Result<Vec<Author>, StoreError> {
        let table = self.table(tables::AUTHORS)?;
        let mut authors = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            let bytes = tables::unseal(tables::AUTHORS, key.value(), value.value())?;
            authors.push(tables::decode(tables::AUTHORS, key.value(), bytes)?);
        }
        Ok(authors)
    }
}

impl ReadSource {
    pub(super) fn begin_read(&self) -> Result<redb::ReadTransaction, StoreError> {
        Ok(match self {
            Self::Writer(db) => db.begin_read()?,
            Self::ReadOnly(db) => db.begin_read()?,
        })
    }
}

impl std::fmt::Debug for ReadSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Writer(_) => "the writer's database",
            Self::ReadOnly(_) => "a read-only database",
        })
    }
}

/// What a reader reads from.
#[derive(Clone)]
pub(super) enum ReadSource {
    /// The database that this process writes.
    Writer(Arc<Database>),
    /// A database that nobody writes.
    ReadOnly(Arc<redb::ReadOnlyDatabase>),
}
