//! Loading and saving the Automerge documents of objects, with a bounded cache of loaded ones.
//!
//! An object's changes live in entries. The document is built from its first change and the tail of
//! locations after it; when the tail outgrows what is saved, the whole document is saved, so that
//! loading stays cheap and saving costs a constant share of each change.

use std::collections::BTreeMap;

use lru::LruCache;
use redb::ReadableTable;

use super::entries::body_change;
use super::{Open, Store};
use crate::error::StoreError;
use crate::ids::{Author, ChangeHash};
use crate::object::{Incoming, Object};
use crate::tables::{self, Loc, ObjectRow};

/// Memory for loaded documents, in bytes, by their own estimate.
const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Memory for those that are larger than that, in bytes, so that they push out no others. One with a
/// hundred thousand edits takes seconds to build.
pub const LARGE_DOCUMENTS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Changes that may follow a saved document before it is saved again, at least.
const TAIL_CHANGES_MIN: u32 = 16;

/// Bytes of changes that are read and applied at once.
const APPLIED_BYTES_TARGET: usize = 1024 * 1024;

/// The document of an object as its row says it is: the one that was saved, and the changes after
/// it.
///
/// Its heads must be those of the row. They name all changes before them by their hashes, so that
/// not one of them can be another than it was, nor be left out.
pub(super) fn rebuild(
    documents: &impl ReadableTable<&'static [u8], &'static [u8]>,
    tails: &impl ReadableTable<&'static [u8], &'static [u8]>,
    entries: &impl ReadableTable<&'static [u8], &'static [u8]>,
    author: &dyn Fn(u32) -> Result<Author, StoreError>,
    key: &[u8],
    row: &ObjectRow,
) -> Result<Object, StoreError> {
    let damaged = |why: &dyn std::fmt::Display| {
        StoreError::inconsistent(
            format!("documents-1 {}", data_encoding::HEXLOWER.encode(key)),
            format!("the document cannot be rebuilt: {why}"),
        )
    };
    let mut object = match tables::read_with(documents, tables::DOCUMENTS, key, Object::load)? {
        Some(loaded) => loaded.map_err(|error| damaged(&error))?,
        None => Object::new(),
    };
    let mut read: Vec<(ChangeHash, Vec<u8>, [u8; 16])> = Vec::new();
    let mut bytes = 0;
    for n in row.saved_changes + 1..=row.changes {
        let loc: Loc = if n == 1 {
            row.first
        } else {
            tables::read_row(tails, tables::TAILS, &tables::tail_key(key, n))?
                .ok_or_else(|| damaged(&format!("change {n} is not listed")))?
        };
        let (hash, change) = body_change(entries, key, loc)?
            .ok_or_else(|| damaged(&format!("change {n} is not held, or damaged")))?;
        bytes += change.len();
        read.push((hash, change, author(loc.author)?.actor()));
        if bytes >= APPLIED_BYTES_TARGET || n == row.changes {
            let changes: Vec<_> = std::mem::take(&mut read);
            bytes = 0;
            let incoming: Vec<Incoming<'_>> = changes
                .iter()
                .map(|(hash, change, actor)| Incoming { change, hash: *hash, actor: *actor })
                .collect();
            let taken = object.with_each(&incoming, &BTreeMap::new());
            if let Some((_, error)) = taken.refused.first() {
                return Err(damaged(error));
            }
            object = taken.object;
        }
    }
    if !object.heads().iter().eq(row.heads.iter().map(|head| &head.hash)) {
        return Err(damaged(&"its changes do not lead to the heads of its row"));
    }
    Ok(object)
}

/// Documents that were used lately, by the memory that they take.
struct Lately {
    documents: LruCache<Vec<u8>, (Object, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl Lately {
    fn new(bytes_max: usize) -> Self {
        Self { documents: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    fn take(&mut self, key: &[u8]) -> Option<Object> {
        let (object, bytes) = self.documents.pop(key)?;
        self.bytes -= bytes;
        Some(object)
    }

    fn put(&mut self, key: Vec<u8>, object: Object, bytes: usize) {
        if bytes > self.bytes_max {
            // It would push out all others, and then itself.
            return;
        }
        self.bytes += bytes;
        if let Some((_, (_, old))) = self.documents.push(key, (object, bytes)) {
            self.bytes -= old;
        }
        while self.bytes > self.bytes_max {
            let Some((_, (_, old))) = self.documents.pop_lru() else { break };
            self.bytes -= old;
        }
    }
}

/// Documents that were used lately.
pub(super) struct DocumentCache {
    small: Lately,
    /// Those that would push out all others.
    large: Lately,
}

impl std::fmt::Debug for DocumentCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { small, large } = self;
        let of = |lately: &Lately| format!("{} in {} bytes", lately.documents.len(), lately.bytes);
        write!(f, "DocumentCache({}, large: {})", of(small), of(large))
    }
}

impl DocumentCache {
    pub(super) fn new() -> Self {
        Self { small: Lately::new(CACHE_BYTES_MAX), large: Lately::new(LARGE_DOCUMENTS_BYTES_MAX) }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes a document out; the taker puts it back when it is still the committed one.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Object> {
        self.small.take(key).or_else(|| self.large.take(key))
    }

    pub(super) fn put(&mut self, key: Vec<u8>, object: Object) {
        // It may have grown from one to the other.
        self.take(&key);
        let bytes = object.size_estimate();
        let of_its_size = if bytes > CACHE_BYTES_MAX { &mut self.large } else { &mut self.small };
        of_its_size.put(key, object, bytes);
    }
}

impl Store {
    /// The document of an object as its row says it is.
    pub(super) fn load_document(
        &mut self,
        open: &Open<'_>,
        key: &[u8],
        row: &ObjectRow,
    ) -> Result<Object, StoreError> {
        if let Some(object) = self.documents.take(key) {
            return Ok(object);
        }
        let author = |number| {
            let found = self.authors.get(number);
            found.ok_or_else(|| StoreError::inconsistent("authors-1", "an author is missing"))
        };
        rebuild(&open.documents, &open.tails, &open.entries, &author, key, row)
    }

    /// Lists the changes that were added, and saves the document when it is due. The list is kept
    /// whole: it is the object's history, and what a purge must find.
    pub(super) fn save_document(
        &mut self,
        open: &mut Open<'_>,
        key: &[u8],
        row: &mut ObjectRow,
        tail: &[(u32, Loc)],
        object: Option<&Object>,
    ) -> Result<(), StoreError> {
        for (n, loc) in tail.iter().filter(|(n, _)| *n > 1) {
            tables::insert_row(&mut open.tails, tables::TAILS, &tables::tail_key(key, *n), loc)?;
        }
        let unsaved = row.changes - row.saved_changes;
        let Some(object) = object else { return Ok(()) };
        if unsaved <= row.saved_changes.max(TAIL_CHANGES_MIN) {
            return Ok(());
        }
        tables::insert(&mut open.documents, tables::DOCUMENTS, key, &object.save())?;
        row.saved_changes = row.changes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_the_memory_for_all_pushes_out_nothing() {
        let mut lately = Lately::new(1_000);
        lately.put(b"a".to_vec(), Object::new(), 400);
        lately.put(b"b".to_vec(), Object::new(), 600);
        lately.put(b"too large".to_vec(), Object::new(), 1_001);
        assert!(lately.take(b"too large").is_none());
        lately.put(b"c".to_vec(), Object::new(), 1);
        assert!(lately.take(b"a").is_none(), "used least lately");
        assert!(lately.take(b"b").is_some() && lately.take(b"c").is_some());
        assert_eq!(lately.bytes, 0);
    }
}
