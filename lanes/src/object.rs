//! One life of one object, as one Automerge document.
//!
//! The document's root has `kind` and `class` (text), `labels` (text by key) and `body`. The body
//! is JSON, kept flat: each place is a key, its RFC 6901 pointer, whose value is the scalar, a
//! marker for an object, a list, or on request a text or a counter. So two devices that create or edit the same object apart end
//! with the union of their fields at every depth, and each place is a register that keeps what
//! was written concurrently. ADR 0002 tells why, and what holds where those registers meet.
//!
//! [`Object::create`] and [`Object::read_creation`] handle the first change of an object without
//! a document. For all else: [`Object::load`] or [`Object::new`], then [`Object::set`] for writes
//! made here and [`Object::apply`] for changes made elsewhere, then [`Object::view`]. A call that
//! fails leaves the object as it was.
//!
//! This module knows nothing of clocks, of randomness, of lanes, or of who may write what.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, OnceLock};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ChangeHash as Hash, ObjId, ObjType, ROOT, ReadDoc};

use crate::ids::{ChangeHash, WallMillis};

mod chunk;
mod content;
mod creation;
mod elements;
mod error;
mod graph;
mod incoming;
mod past;
mod place;
mod pointer;
mod schema;
mod size;
mod text;
mod view;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use chunk::{CHANGE_BYTES_MAX, OPS_IN_LIFE_MAX, OPS_MAX};
pub(crate) use content::types_after;
pub use content::{
    AskedTypes, CLASS_BYTES_MAX, CLASS_DEFAULT, COUNTER_MAX, Content, DEPTH_MAX, FLAT_BYTES_MAX,
    INCREMENT_MAX, KIND_BYTES_MAX, KIND_DEFAULT, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX,
    LABELS_MAX, LeafType, LeafTypes, PLACES_MAX, Patch,
};
use elements::Elements;
pub use error::{ContentError, DocumentError, WriteError};
pub(crate) use error::{FULL, UNSHOWN};
pub use incoming::{Incoming, Taken};
pub use size::OPS_IN_OBJECT_MAX;
pub use text::TEXT_EDITS_MAX;
pub use view::{Conflict, ConflictValue, View};
pub use write::LIST_CELLS_MAX;

/// What every document starts with: a change that makes `labels` and `body`, the same everywhere.
/// It is never sent, and no list of predecessors names it.
struct Skeleton {
    doc: Automerge,
    hash: ChangeHash,
    actor: [u8; 16],
    labels: ObjId,
    body: ObjId,
}

fn skeleton() -> &'static Skeleton {
    static SKELETON: LazyLock<Skeleton> = LazyLock::new(|| {
        let actor = *b"srcos skeleton 1";
        let mut doc = Automerge::new().with_actor(ActorId::from(&actor[..]));
        let mut tx = doc.transaction();
        // A root can always be given two maps.
        let labels = tx.put_object(&ROOT, "labels", ObjType::Map).unwrap_or(ROOT);
        let body = tx.put_object(&ROOT, "body", ObjType::Map).unwrap_or(ROOT);
        let (hash, _) = tx.commit_with(CommitOptions::default().with_time(0));
        let hash = ChangeHash(hash.map_or([0; 32], |hash| hash.0));
        Skeleton { doc, hash, actor, labels, body }
    });
    &SKELETON
}

/// A change to an object, as a journal carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedChange {
    /// Its hash, which covers all of it.
    pub hash: ChangeHash,
    /// The uncompressed bytes of the Automerge change.
    pub bytes: Vec<u8>,
    /// The changes that it follows directly, sorted; empty if it creates the object.
    pub deps: Vec<ChangeHash>,
}

/// A change in the past of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryItem {
    /// The change.
    pub hash: ChangeHash,
    /// Who made it.
    pub actor: [u8; 16],
    /// When, by its author's clock.
    pub time: WallMillis,
    /// What the object said to the author just after it.
    pub content: Content,
}

/// One life of one object.
#[derive(Debug, Clone)]
pub struct Object {
    /// Apart, since it is large and objects are moved often.
    doc: Box<Automerge>,
    /// Bytes of the snapshot and of all changes since.
    bytes: usize,
    size: size::Size,
    /// Where the elements of its lists are, once a change from elsewhere asked for it.
    elements: OnceLock<Arc<Elements>>,
    /// Its changes and what they follow, once a change that was made apart asked for it.
    graph: OnceLock<Arc<graph::Graph>>,
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

/// Automerge's time of a commit.
fn time(now: WallMillis) -> i64 {
    i64::try_from(now.0).unwrap_or(i64::MAX)
}

/// Runs Automerge on what others wrote. It must not touch anything that is kept if it panics.
fn guarded<T>(run: impl FnOnce() -> Result<T, DocumentError>) -> Result<T, DocumentError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(DocumentError::Poisoned))
}

#[expect(clippy::needless_pass_by_value, reason = "shape of map_err")]
fn refused(error: automerge::AutomergeError) -> DocumentError {
    DocumentError::Automerge(error.to_string())
}

impl Object {
    /// An object to which nothing was written yet.
    pub fn new() -> Self {
        let doc = skeleton().doc.clone();
        Self {
            doc: Box::new(doc),
            bytes: 0,
            size: size::Size::default(),
            elements: OnceLock::new(),
            graph: OnceLock::new(),
        }
    }

    /// An object as [`Object::save`] wrote it. For bytes from this device's own store: they are
    /// expanded without bounds.
    pub fn load(snapshot: &[u8]) -> Result<Self, DocumentError> {
        let doc = guarded(|| Automerge::load(snapshot).map_err(refused))?;
        let hash = Hash(skeleton().hash.0);
        if !doc.get_missing_deps(&[hash]).is_empty() {
            return Err(DocumentError::Snapshot("it does not start as objects do"));
        }
        let mut size = size::Size::default();
        for change in doc.get_changes_meta(&[]) {
            if change.actor.to_bytes().len() != 16 {
                return Err(DocumentError::Snapshot("an actor is not 16 bytes long"));
            }
            if change.hash != hash {
                let ops = (change.max_op + 1).saturating_sub(change.start_op);
                size = size.with_ops(ChangeHash(change.hash.0), ops);
            }
        }
        Ok(Self {
            doc: Box::new(doc),
            bytes: snapshot.len(),
            size,
            elements: OnceLock::new(),
            graph: OnceLock::new(),
        })
    }

    /// All of it, its history included, for [`Object::load`].
    pub fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// The changes that no other follows, sorted; none if nothing was written yet.
    pub fn heads(&self) -> Vec<ChangeHash> {
        without_skeleton(&self.doc.get_heads())
    }

    /// Whether the change is part of the object.
    pub fn has(&self, change: ChangeHash) -> bool {
        self.doc.get_missing_deps(&[Hash(change.0)]).is_empty()
    }

    /// About how many bytes of memory the object takes, for a cache's budget.
    pub fn size_estimate(&self) -> usize {
        /// Of an empty document, and of each operation and change in one, measured.
        const EMPTY_BYTES: usize = 8_500;
        const OP_BYTES: usize = 48;
        const CHANGE_BYTES: usize = 300;
        let stats = self.doc.stats();
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX / 1_000);
        EMPTY_BYTES
            + count(stats.num_ops) * OP_BYTES
            + count(stats.num_changes) * CHANGE_BYTES
            + self.bytes
            + self.elements.get().map_or(0, |elements| elements.size_estimate())
            + self.graph.get().map_or(0, |graph| graph.size_estimate())
    }

    /// What the object says now.
    pub fn view(&self) -> Result<View, DocumentError> {
        guarded(|| view::view(place::Reader::new(&self.doc, None, &place::Room::default())))
    }

    /// Makes the object say this, by a change that holds only the difference to what it shows;
    /// `None` if there is none. What was written concurrently to places that are left alone stays
    /// a conflict.
    pub fn set(
        &mut self,
        content: &Content,
        actor: [u8; 16],
        now: WallMillis,
    ) -> Result<Option<EncodedChange>, DocumentError> {
        let written = guarded(|| {
            let room = place::Room::default();
            let before = write::Before::read(place::Reader::new(&self.doc, None, &room));
            room.check()?;
            let mut doc = self.doc.clone();
            doc.set_actor(ActorId::from(&actor[..]));
            let mut tx = doc.transaction();
            before.change_to(&mut tx, content).map_err(refused)?;
            if tx.pending_ops() == 0 {
                return Ok(None);
            }
            if tx.pending_ops() > OPS_MAX {
                return Err(DocumentError::TooManyOps { limit: OPS_MAX });
            }
            let (hash, _) = tx.commit_with(CommitOptions::default().with_time(time(now)));
            let change = hash.and_then(|hash| doc.get_change_by_hash(&hash));
            Ok(change.map(|change| (doc, change)))
        })?;
        let Some((doc, change)) = written else {
            return Ok(None);
        };
        let bytes = change.raw_bytes().to_vec();
        if bytes.len() > CHANGE_BYTES_MAX {
            let bytes = bytes.len();
            return Err(DocumentError::TooLarge { bytes, limit: CHANGE_BYTES_MAX });
        }
        // What others would refuse is not signed: an object with very many heads, for example.
        let hash = ChangeHash(change.hash().0);
        let read = chunk::Change::read(&bytes, hash, actor)?;
        schema::check(&read)?;
        let size = self.size.with(hash, &read);
        size.check_written()?;
        guarded(|| past::Past::new(self).add(hash, read))?;
        let read = chunk::Change::read(&bytes, hash, actor)?;
        if let Some(elements) = self.elements.get_mut() {
            Arc::make_mut(elements).add(&read);
        }
        if let Some(graph) = self.graph.get_mut() {
            Arc::make_mut(graph).add(Hash(hash.0), &read);
        }
        self.doc = doc;
        self.size = size;
        self.bytes += bytes.len();
        let deps = without_skeleton(change.deps());
        Ok(Some(EncodedChange { hash, bytes, deps }))
    }

    /// Changes a part of what the object says, as [`Object::set`] does.
    pub fn patch(
        &mut self,
        patch: &Patch,
        actor: [u8; 16],
        now: WallMillis,
    ) -> Result<Option<EncodedChange>, WriteError> {
        let content = patch.applied_to(&self.view()?.content)?;
        Ok(self.set(&content, actor, now)?)
    }

    /// The change that creates an object which says this: what [`Object::set`] on a new one
    /// gives, without building a document.
    pub fn create(content: &Content, actor: [u8; 16], now: WallMillis) -> EncodedChange {
        creation::create(content, actor, now)
    }

    /// What a change that creates an object says, without building a document: the view that
    /// [`Object::apply`] to a new object would give. `None` if the change creates no object or
    /// not in the usual way; then apply it.
    pub fn read_creation(
        change: &[u8],
        expected: ChangeHash,
        expected_actor: [u8; 16],
    ) -> Result<Option<View>, DocumentError> {
        let read = chunk::Change::read(change, expected, expected_actor)?;
        schema::check(&read)?;
        let content = creation::read(&read, expected_actor);
        Ok(content.map(|content| View { content, conflicts: Vec::new() }))
    }

    /// The last `limit` changes, the oldest first, in an order that all devices share.
    pub fn history(&self, limit: usize) -> Result<Vec<HistoryItem>, DocumentError> {
        guarded(|| {
            let mut changes = self.doc.get_changes_meta(&[]);
            changes.retain(|change| change.hash.0 != skeleton().hash.0);
            changes.sort_by(|a, b| (a.max_op, &a.actor).cmp(&(b.max_op, &b.actor)));
            let skipped = changes.len().saturating_sub(limit);
            let items = changes.iter().skip(skipped).map(|change| {
                let heads = [change.hash];
                let room = place::Room::default();
                let reader = place::Reader::new(&self.doc, Some(&heads), &room);
                Ok(HistoryItem {
                    hash: ChangeHash(change.hash.0),
                    actor: change.actor.to_bytes().try_into().unwrap_or([0; 16]),
                    time: WallMillis(u64::try_from(change.timestamp).unwrap_or(0)),
                    content: view::view(reader)?.content,
                })
            });
            items.collect()
        })
    }
}

/// Hashes other than the skeleton's, sorted.
fn without_skeleton(hashes: &[Hash]) -> Vec<ChangeHash> {
    let mut hashes: Vec<_> = hashes.iter().map(|hash| ChangeHash(hash.0)).collect();
    hashes.retain(|hash| *hash != skeleton().hash);
    hashes.sort();
    hashes
}
