//! Loading and saving the Automerge documents of objects, with a bounded cache of loaded ones.
//!
//! An object's changes live in entries. The document is built from its first change and the tail of
//! locations after it; when the tail outgrows what is saved, the whole document is saved, so that
//! loading stays cheap and saving costs a constant share of each change.

use lru::LruCache;

use super::entries::body_change;
use super::{Open, Store};
use crate::error::StoreError;
use crate::object::Object;
use crate::tables::{self, Loc, ObjectRow};

/// Memory for loaded documents, in bytes, by their own estimate.
const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Changes that may follow a saved document before it is saved again, at least.
const TAIL_CHANGES_MIN: u32 = 16;

/// Documents that were used lately.
pub(super) struct DocumentCache {
    documents: LruCache<Vec<u8>, (Object, usize)>,
    bytes: usize,
}

impl std::fmt::Debug for DocumentCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DocumentCache({} documents, {} bytes)", self.documents.len(), self.bytes)
    }
}

impl DocumentCache {
    pub(super) fn new() -> Self {
        Self { documents: LruCache::unbounded(), bytes: 0 }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes a document out; the taker puts it back when it is still the committed one.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<Object> {
        let (object, bytes) = self.documents.pop(key)?;
        self.bytes -= bytes;
        Some(object)
    }

    pub(super) fn put(&mut self, key: Vec<u8>, object: Object) {
        let bytes = object.size_estimate();
        self.bytes += bytes;
        if let Some((_, (_, old))) = self.documents.push(key, (object, bytes)) {
            self.bytes -= old;
        }
        while self.bytes > CACHE_BYTES_MAX {
            let Some((_, (_, old))) = self.documents.pop_lru() else { break };
            self.bytes -= old;
        }
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
        let lane = tables::split_object_key(key)
            .map(|(lane, _, _)| lane)
            .ok_or_else(|| StoreError::damaged_value(tables::OBJECTS, key))?;
        let damaged = |error: &dyn std::fmt::Display| {
            StoreError::inconsistent(
                format!("documents-1 {}", data_encoding::HEXLOWER.encode(key)),
                format!("the document cannot be rebuilt: {error}"),
            )
        };
        let mut object =
            match tables::read_with(&open.documents, tables::DOCUMENTS, key, Object::load)? {
                Some(loaded) => loaded.map_err(|error| damaged(&error))?,
                None => Object::new(),
            };
        for n in row.saved_changes + 1..=row.changes {
            let loc: Loc = if n == 1 {
                row.first
            } else {
                tables::read_row(&open.tails, tables::TAILS, &tables::tail_key(key, n))?
                    .ok_or_else(|| damaged(&format!("change {n} is not listed")))?
            };
            let author = self
                .authors
                .get(loc.author)
                .ok_or_else(|| damaged(&format!("author {} is unknown", loc.author)))?;
            let change = body_change(&open.entries, lane, loc)?
                .ok_or_else(|| damaged(&format!("change {n} is not held")))?;
            let hash = crate::journal::change_hash(&change)
                .ok_or_else(|| damaged(&format!("change {n} is damaged")))?;
            object.apply(&change, hash, author.actor()).map_err(|error| damaged(&error))?;
        }
        Ok(object)
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
