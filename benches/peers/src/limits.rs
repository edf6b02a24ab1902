//! What the disk alone takes: redb with as many bytes as the node sends, with one sync for each commit:
//! the node has one for small commits, and two for large ones.
//! What the network alone takes is measured as a peer (`peers/quic.rs`).

use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Database, TableDefinition};

use crate::interrupt;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Bytes of a commit: the most that a turn of the node takes in before it commits.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// As the node's store has it.
const CACHE_BYTES: usize = 24 * 1024 * 1024;

/// What redb took.
pub(crate) struct Disk {
    /// For all objects, a row each, in commits as large as the node's.
    pub(crate) write: Duration,
    /// For a row and its commit, each, in milliseconds.
    pub(crate) commits_ms: Vec<f64>,
}

/// Writes so many rows, and then single ones.
pub(crate) fn disk(dir: &Path, objects: u64, bytes: usize, singles: u64) -> anyhow::Result<Disk> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let db = builder.create(dir.join("limit.redb"))?;
    let began = Instant::now();
    let per_commit = (COMMIT_BYTES / bytes).max(1) as u64;
    let mut first = 0;
    while first < objects {
        interrupt::check()?;
        let end = objects.min(first + per_commit);
        commit(&db, first..end, bytes)?;
        first = end;
    }
    let write = began.elapsed();
    let mut commits_ms = Vec::new();
    for number in objects..objects + singles {
        let began = Instant::now();
        commit(&db, number..number + 1, bytes)?;
        commits_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Disk { write, commits_ms })
}

fn commit(db: &Database, numbers: std::ops::Range<u64>, bytes: usize) -> anyhow::Result<()> {
    let turn = db.begin_write()?;
    {
        let mut rows = turn.open_table(ROWS)?;
        let mut value = vec![0x5a; bytes];
        for number in numbers {
            // Spread over the keys, as hashes are.
            let key = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            value[..8.min(bytes)].copy_from_slice(&key[..8.min(bytes)]);
            rows.insert(key.as_slice(), value.as_slice())?;
        }
    }
    Ok(turn.commit()?)
}
