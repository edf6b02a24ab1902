//! Local writes: a batch of operations becomes signed entries, all of it or nothing.

use std::collections::{BTreeMap, BTreeSet};

use redb::WriteTransaction;
use serde_json::Value;
use srcos_schemas::json::{self, Limits};

use super::apply::TombstoneBody;
use super::overlay::{Arrival, Overlay, Pending};
use super::{DEVICE_JOURNALS_MAX, Open, Store};
use crate::error::{StoreError, WriteError};
use crate::ids::{Author, ChangeHash, MeshId, Now, ObjectKey, WallMillis};
use crate::journal::{
    self, After, BODY_BYTES_MAX, Body, BodyParts, ENTRY_AFTER_MAX, ENTRY_BODIES_BYTES_TARGET,
    ENTRY_CHANGES_MAX, HEADER_VERSION, Header, Item, check_id, hash_header, sign_header,
    write_entry,
};
use crate::lane::{LaneId, Replication};
use crate::object::{
    AskedTypes, Content, EncodedChange, LeafTypes, Object, Patch, View, types_after,
};
use crate::policy::is_confined;
use crate::signature::{Signature, Signer};
use crate::tables::{self, FeedRow, Loc, ObjectRow, RowState};

/// Most operations in one batch.
pub use srcos_schemas::objects::BATCH_OPS_MAX;
const _: () = assert!(BATCH_OPS_MAX <= ENTRY_CHANGES_MAX, "one entry carries a batch");

/// Longest reason of a deletion, in bytes: a sentence or two, kept for ever.
pub const REASON_BYTES_MAX: usize = 1024;

/// One operation on one object.
#[derive(Clone, PartialEq, Debug)]
pub struct Op {
    /// The object's id.
    pub id: String,
    /// What to do.
    pub action: Action,
    /// Do it only when these are the object's heads; empty: only when there is no such object.
    pub if_heads: Option<Vec<ChangeHash>>,
}

/// What an operation does.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Creates the object or brings it to this content; only differences are written.
    Put(PutContent),
    /// Changes parts of it.
    Patch(Patch),
    /// Starts its deletion.
    Delete {
        /// Why, for people and for the record.
        reason: String,
    },
}

/// New content of an object. What is `None` keeps its present value, or gets the default.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PutContent {
    /// The kind.
    pub kind: Option<String>,
    /// The data class.
    pub class: Option<String>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The body.
    pub body: Value,
    /// Types to give to leaves of the body, and with `None` to take from them. What is not named
    /// keeps the type that it has, if its value is still of the sort.
    pub types: AskedTypes,
    /// Time to live in milliseconds, in a lane whose objects expire.
    pub ttl_ms: Option<u64>,
}

/// What became of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The lane.
    pub lane: LaneId,
    /// The object.
    pub id: String,
    /// Its life.
    pub life: u32,
    /// Something was written; false when it was as asked already.
    pub changed: bool,
}

impl Store {
    /// Performs operations on a lane in order. When one is refused, none is done.
    ///
    /// Nothing is durable before [`Store::commit`].
    pub fn write(
        &mut self,
        lane: LaneId,
        ops: &[Op],
        now: Now,
        signer: &dyn Signer,
    ) -> Result<Vec<Outcome>, WriteError> {
        if ops.len() > BATCH_OPS_MAX {
            return Err(WriteError::BatchTooLarge { found: ops.len(), max: BATCH_OPS_MAX });
        }
        if lane.definition().node_writes_only {
            return Err(WriteError::NodeOnly(lane));
        }
        let mesh = self.mesh.ok_or(WriteError::NoMesh)?;
        let mut refused = None;
        let outcomes = self.with_turn(|store, turn| {
            let number = store.author_number(turn, store.author())?;
            let mut batch = Batch::new(store, lane, number, mesh, now.wall, signer);
            let mut open = Open::new(turn)?;
            let mut outcomes = Vec::with_capacity(ops.len());
            for op in ops {
                match store.plan(turn, &mut open, &mut batch, lane, op) {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(WriteError::Store(error)) => return Err(error),
                    Err(error) => {
                        refused = Some(error);
                        return Ok(Vec::new());
                    }
                }
            }
            // Before anything is written: what readers would refuse is not signed.
            if let Err(error) = batch.seal_all().and_then(|()| store.check_room(&batch)) {
                refused = Some(error);
                return Ok(Vec::new());
            }
            store.write_batch(&mut open, batch)?;
            Ok(outcomes)
        })?;
        match refused {
            Some(error) => Err(error),
            None => Ok(outcomes),
        }
    }

    /// Works out one operation in memory; nothing is written yet.
    fn plan(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        batch: &mut Batch<'_>,
        lane: LaneId,
        op: &Op,
    ) -> Result<Outcome, WriteError> {
        check_id(&op.id)?;
        let current = batch.overlay.current_life(open, lane, &op.id)?;
        let key = tables::object_key(lane, &op.id, current);
        let touched = batch.overlay.touch(open, &key)?;
        if let Some(what) = &touched.damaged {
            // No other device can delete it where its lane stays here.
            let here_only = lane.definition().replication == Replication::LocalOnly;
            return match &op.action {
                Action::Delete { reason } if here_only && op.if_heads.is_none() => {
                    self.plan_delete(turn, open, batch, lane, &op.id, current, reason, true)?;
                    Ok(Outcome { lane, id: op.id.clone(), life: current, changed: true })
                }
                _ => Err(WriteError::Damaged { id: op.id.clone(), what: what.clone() }),
            };
        }
        let present = touched.row.as_ref().filter(|row| {
            row.state != RowState::Hidden && row.expires_at.is_none_or(|at| at > batch.wall)
        });
        if let Some(wanted) = &op.if_heads {
            let heads: Vec<_> =
                present.iter().flat_map(|row| row.heads.iter().map(|head| head.hash)).collect();
            if heads != *wanted {
                return Err(WriteError::Stale { lane, id: op.id.clone() });
            }
        }
        if let Some(ObjectRow { state: RowState::Quarantined(why), .. }) = present
            && !matches!(op.action, Action::Delete { .. })
        {
            return Err(WriteError::Quarantined { id: op.id.clone(), why: why.clone() });
        }
        if lane.definition().append_only
            && let Some(row) = present
        {
            // What is there already is not written again, and so not refused.
            let old = row_content(lane, &op.id, row)?;
            let same = |put: &PutContent| put_content(put, Some(&old)).is_ok_and(|new| new == old);
            return match &op.action {
                Action::Put(put) if same(put) => {
                    Ok(Outcome { lane, id: op.id.clone(), life: current, changed: false })
                }
                _ => Err(WriteError::AppendOnly { lane, id: op.id.clone() }),
            };
        }
        // What expired and is not swept up yet is never written over.
        let spent = touched.row.is_some() && present.is_none();
        let life = current.saturating_add(u32::from(spent));
        if life > journal::LIFE_MAX {
            return Err(WriteError::LivesSpent { lane, id: op.id.clone() });
        }
        let not_found = || WriteError::NotFound { lane, id: op.id.clone() };
        let content = |error| WriteError::Content { id: op.id.clone(), source: error };
        let outcome = |changed| Outcome { lane, id: op.id.clone(), life, changed };
        match &op.action {
            Action::Delete { reason } => {
                let row = present.ok_or_else(not_found)?;
                let confined = row.confined;
                self.plan_delete(turn, open, batch, lane, &op.id, life, reason, confined)?;
                Ok(outcome(true))
            }
            Action::Patch(patch) => {
                let row = present.ok_or_else(not_found)?;
                let new = patch.applied_to(&row_content(lane, &op.id, row)?).map_err(content)?;
                let expires_at = row.expires_at;
                let changed =
                    self.plan_content(open, batch, lane, &op.id, life, &new, expires_at)?;
                Ok(outcome(changed))
            }
            Action::Put(put) => {
                let old = present.map(|row| row_content(lane, &op.id, row)).transpose()?;
                let new = put_content(put, old.as_ref()).map_err(content)?;
                let expires_at = expiry(lane, put.ttl_ms, present, batch.wall)?;
                let changed =
                    self.plan_content(open, batch, lane, &op.id, life, &new, expires_at)?;
                Ok(outcome(changed))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one operation in its full context")]
    fn plan_content(
        &mut self,
        open: &mut Open<'_>,
        batch: &mut Batch<'_>,
        lane: LaneId,
        id: &str,
        life: u32,
        content: &Content,
        expires_at: Option<WallMillis>,
    ) -> Result<bool, WriteError> {
        let key = tables::object_key(lane, id, life);
        let actor = batch.author.actor();
        let wall = batch.wall;
        let touched = batch.overlay.touch(open, &key)?;
        if let Some(what) = &touched.damaged {
            return Err(WriteError::Damaged { id: id.to_owned(), what: what.clone() });
        }
        let Some(row) = &touched.row else {
            let confined = Batch::confines(lane, content.class(), false);
            let change = Object::create(content, actor, wall);
            let view = View { content: content.clone(), conflicts: Vec::new() };
            let heads = [change.hash];
            let class = content.class();
            let after = BTreeMap::new();
            batch.add(lane, &key, id, life, &change, after, class, confined, &heads, &view)?;
            batch.set_expiry(open, &key, expires_at)?;
            return Ok(true);
        };
        let expiry_changed = row.expires_at != expires_at;
        if row.confined && !is_confined(content.class()) && is_confined(&row.class) {
            return Err(WriteError::ClassLoosened { id: id.to_owned(), class: row.class.clone() });
        }
        let confined = Batch::confines(lane, content.class(), row.confined);
        let row = row.clone();
        let mut document = match touched.document.take() {
            Some(document) => document,
            None if touched.tail.is_empty() => {
                let loaded = self.load_document(open, &key, &row);
                loaded.map_err(|error| unloadable(id, error))?
            }
            None => batch.replay(self, open, &key, lane)?,
        };
        let unreadable = |source| WriteError::Document { id: id.to_owned(), source };
        let change = document.set(content, actor, wall).map_err(unreadable)?;
        let Some(change) = change else {
            batch.overlay.touch(open, &key)?.document = Some(document);
            if expiry_changed {
                batch.set_expiry(open, &key, expires_at)?;
            }
            return Ok(expiry_changed);
        };
        let after = batch.builds_on(self, row.heads.iter().map(|head| head.loc));
        let heads = document.heads();
        let view = document.view().map_err(unreadable)?;
        let class = content.class();
        batch.add(lane, &key, id, life, &change, after, class, confined, &heads, &view)?;
        batch.overlay.touch(open, &key)?.document = Some(document);
        if expiry_changed {
            batch.set_expiry(open, &key, expires_at)?;
        }
        Ok(true)
    }

    #[expect(clippy::too_many_arguments, reason = "one operation in its full context")]
    fn plan_delete(
        &mut self,
        turn: &WriteTransaction,
        open: &mut Open<'_>,
        batch: &mut Batch<'_>,
        lane: LaneId,
        id: &str,
        life: u32,
        reason: &str,
        confined: bool,
    ) -> Result<(), WriteError> {
        let mut reason_end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(reason_end) {
            reason_end -= 1;
        }
        let target = TombstoneBody {
            lane: lane.name().to_owned(),
            id: id.to_owned(),
            life,
            reason: reason[..reason_end].to_owned(),
        };
        let tombstone_id = TombstoneBody::id_of(lane, id, life);
        let body = serde_json::to_value(&target)
            .map_err(|error| StoreError::inconsistent("tombstone", error.to_string()))?;
        let content = Content::new("tombstone", "internal", BTreeMap::new(), body)
            .map_err(|source| WriteError::Content { id: id.to_owned(), source })?;
        let key = tables::object_key(LaneId::Tombstone, &tombstone_id, 1);
        let change = Object::create(&content, batch.author.actor(), batch.wall);
        // A deletion is told to those who may have been told of the object.
        let confined = confined || lane.definition().replication != Replication::Members;
        let (class, after) = ("internal", BTreeMap::new());
        let touched = batch.overlay.touch(open, &key)?;
        let free = touched.row.is_none() && touched.damaged.is_none();
        let object = ObjectKey::new(LaneId::Tombstone, &tombstone_id, 1);
        let free = free && !self.has_left_out(open, object)?;
        let arrival =
            batch.add_item(LaneId::Tombstone, &tombstone_id, 1, &change, after, class, confined)?;
        let touched = batch.overlay.touch(open, &key)?;
        if free {
            let view = View { content, conflicts: Vec::new() };
            touched.absorb(|n| self.device_of(n), &[arrival], &[change.hash], &view);
        } else {
            // Another member may have taken the name. What deletes is the creation that an entry
            // carries, so that it is signed all the same; what the record shows is seen here as it
            // is on every other device.
            let (author, class, change) = (batch.author, class.to_owned(), change.bytes);
            touched.pending.push(Pending { arrival, author, class, change });
        }
        let author = batch.author;
        self.entomb(turn, open, &mut batch.overlay, &target, author, batch.wall)?;
        Ok(())
    }

    /// Refuses to begin a journal that other devices would not take.
    fn check_room(&self, batch: &Batch<'_>) -> Result<(), WriteError> {
        let mut begun = batch.sealed.iter().filter(|sealed| sealed.seq == 1);
        match begun.find(|sealed| self.journals_spent(sealed.lane)) {
            Some(sealed) => {
                Err(WriteError::JournalsSpent { lane: sealed.lane, max: DEVICE_JOURNALS_MAX })
            }
            None => Ok(()),
        }
    }

    /// Writes the entries and objects of a batch that was worked out without refusal.
    fn write_batch(&mut self, open: &mut Open<'_>, mut batch: Batch<'_>) -> Result<(), StoreError> {
        let number = batch.number;
        for sealed in std::mem::take(&mut batch.sealed) {
            let mut row = self.journal_row(sealed.lane, number);
            let key = tables::entry_key(sealed.lane, number, sealed.seq);
            tables::insert(&mut open.entries, tables::ENTRIES, &key, &sealed.bytes)?;
            row.applied += u64::from(row.applied == row.held);
            row.held = sealed.seq;
            row.held_hash = sealed.hash;
            row.bytes += sealed.bytes.len() as u64;
            self.set_journal_row(sealed.lane, number, row);
            // Whoever waited for what is written here is looked at again.
            self.unpark(sealed.lane, number);
            let fed = FeedRow::Entry { lane: sealed.lane, author: number, seq: sealed.seq };
            self.feed(open, &fed)?;
        }
        for (at, key) in std::mem::take(&mut batch.expiries) {
            tables::insert(&mut open.expiry, tables::EXPIRY, &tables::expiry_key(at, &key), &[])?;
        }
        self.flush(open, batch.overlay)
    }
}

/// Entries in the making.
struct Batch<'s> {
    mesh: MeshId,
    author: Author,
    number: u32,
    wall: WallMillis,
    signer: &'s dyn Signer,
    overlay: Overlay,
    builders: BTreeMap<LaneId, Builder>,
    sealed: Vec<Sealed>,
    expiries: BTreeSet<(WallMillis, Vec<u8>)>,
    devices: Vec<Author>,
}

struct Builder {
    seq: u64,
    prev: crate::ids::EntryHash,
    after: BTreeMap<Author, u64>,
    classes: Vec<String>,
    items: Vec<Item>,
    bodies: Vec<Vec<u8>>,
    bodies_len: usize,
}

struct Sealed {
    lane: LaneId,
    seq: u64,
    hash: crate::ids::EntryHash,
    bytes: Vec<u8>,
}

impl<'s> Batch<'s> {
    fn new(
        store: &Store,
        lane: LaneId,
        number: u32,
        mesh: MeshId,
        wall: WallMillis,
        signer: &'s dyn Signer,
    ) -> Self {
        let builders = [lane, LaneId::Tombstone].into_iter().map(|lane| {
            let row = store.journal_row(lane, number);
            let builder = Builder {
                seq: row.held + 1,
                prev: row.held_hash,
                after: BTreeMap::new(),
                classes: Vec::new(),
                items: Vec::new(),
                bodies: Vec::new(),
                bodies_len: 0,
            };
            (lane, builder)
        });
        Self {
            mesh,
            author: store.author(),
            number,
            wall,
            signer,
            overlay: Overlay::default(),
            builders: builders.collect(),
            sealed: Vec::new(),
            expiries: BTreeSet::new(),
            devices: store.authors.by_number.clone(),
        }
    }

    fn confines(lane: LaneId, class: &str, already: bool) -> bool {
        already || is_confined(class) || lane.definition().replication == Replication::LocalOnly
    }

    /// The entries of others at these places: a change that builds on them comes after them.
    fn builds_on(&self, store: &Store, locs: impl Iterator<Item = Loc>) -> BTreeMap<Author, u64> {
        let mut after = BTreeMap::new();
        for loc in locs.filter(|loc| loc.author != self.number) {
            let Some(author) = store.authors.get(loc.author) else { continue };
            let seq = after.entry(author).or_insert(0);
            *seq = loc.seq.max(*seq);
        }
        after
    }

    /// Adds a change to the entry under construction, and to its object.
    #[expect(clippy::too_many_arguments, reason = "one change in its full context")]
    fn add(
        &mut self,
        lane: LaneId,
        key: &[u8],
        id: &str,
        life: u32,
        change: &EncodedChange,
        after: BTreeMap<Author, u64>,
        class: &str,
        confined: bool,
        heads: &[ChangeHash],
        view: &View,
    ) -> Result<(), WriteError> {
        let arrival = self.add_item(lane, id, life, change, after, class, confined)?;
        let devices = &self.devices;
        let Some(touched) = self.overlay.get_mut(key) else { return Ok(()) };
        let device = |n: u32| devices.get(n as usize).map(|author| author.device);
        touched.absorb(device, &[arrival], heads, view);
        Ok(())
    }

    /// Adds a change to the entry under construction.
    #[expect(clippy::too_many_arguments, reason = "one change in its full context")]
    fn add_item(
        &mut self,
        lane: LaneId,
        id: &str,
        life: u32,
        change: &EncodedChange,
        after: BTreeMap<Author, u64>,
        class: &str,
        confined: bool,
    ) -> Result<Arrival, WriteError> {
        let body = BodyParts { life, id, change: &change.bytes }.write();
        if body.len() > BODY_BYTES_MAX {
            let (found, max) = (body.len(), BODY_BYTES_MAX);
            return Err(WriteError::ChangeTooLarge { id: id.to_owned(), found, max });
        }
        let builder = self.builder(lane)?;
        let more = after.keys().filter(|author| !builder.after.contains_key(author)).count();
        let full = builder.items.len() >= ENTRY_CHANGES_MAX
            || builder.bodies_len + body.len() > ENTRY_BODIES_BYTES_TARGET
            || builder.classes.len() >= 255
            || builder.after.len() + more > ENTRY_AFTER_MAX;
        if full {
            self.seal(lane)?;
        }
        let number = self.number;
        let builder = self.builder(lane)?;
        for (author, seq) in after {
            let waits = builder.after.entry(author).or_insert(0);
            *waits = seq.max(*waits);
        }
        let class_index = match builder.classes.iter().position(|known| known == class) {
            Some(index) => index,
            None => {
                builder.classes.push(class.to_owned());
                builder.classes.len() - 1
            }
        };
        let loc = Loc { author: number, seq: builder.seq, item: builder.items.len() as u16 };
        builder.items.push(Item {
            key: ObjectKey::new(lane, id, life),
            change: change.hash,
            body_len: body.len() as u32,
            class: class_index as u8,
            confined,
        });
        builder.bodies_len += body.len();
        builder.bodies.push(body);
        Ok(Arrival { hash: change.hash, loc, wall: self.wall, confined })
    }

    fn builder(&mut self, lane: LaneId) -> Result<&mut Builder, StoreError> {
        let builder = self.builders.get_mut(&lane);
        builder.ok_or_else(|| StoreError::inconsistent("batch", "it has no such lane"))
    }

    fn set_expiry(
        &mut self,
        open: &Open<'_>,
        key: &[u8],
        at: Option<WallMillis>,
    ) -> Result<(), StoreError> {
        if let Some(row) = &mut self.overlay.touch(open, key)?.row {
            row.expires_at = at;
        }
        if let Some(at) = at {
            self.expiries.insert((at, key.to_vec()));
        }
        Ok(())
    }

    /// The document of an object that this batch created, from the bodies that are not written yet.
    fn replay(
        &mut self,
        store: &Store,
        open: &Open<'_>,
        key: &[u8],
        lane: LaneId,
    ) -> Result<Object, WriteError> {
        let broken = |what: String| StoreError::inconsistent("batch", what);
        let locs: Vec<Loc> =
            self.overlay.touch(open, key)?.tail.iter().map(|(_, loc)| *loc).collect();
        let mut document = Object::new();
        for loc in locs {
            let sealed = self.sealed.iter().find(|s| s.lane == lane && s.seq == loc.seq);
            let change = match sealed {
                Some(sealed) => journal::Entry::read(&sealed.bytes)
                    .ok()
                    .and_then(|entry| Some(entry.parts(loc.item.into())?.change.to_vec())),
                None => self
                    .builders
                    .get(&lane)
                    .and_then(|builder| builder.bodies.get(usize::from(loc.item)))
                    .and_then(|body| Some(BodyParts::read(body)?.change.to_vec())),
            };
            let change = change.ok_or_else(|| broken("a change of the batch is lost".into()))?;
            let hash = journal::change_hash(&change)
                .ok_or_else(|| broken("a change of the batch has no hash".into()))?;
            document
                .apply(&change, hash, store.author().actor())
                .map_err(|error| broken(error.to_string()))?;
        }
        Ok(document)
    }

    fn seal_all(&mut self) -> Result<(), WriteError> {
        self.builders.keys().copied().collect::<Vec<_>>().into_iter().try_for_each(|l| self.seal(l))
    }

    /// Finishes the entry under construction of a lane, if it has items.
    fn seal(&mut self, lane: LaneId) -> Result<(), WriteError> {
        let Some(builder) = self.builders.get_mut(&lane) else { return Ok(()) };
        if builder.items.is_empty() {
            return Ok(());
        }
        let header = Header {
            version: HEADER_VERSION,
            mesh: self.mesh,
            lane,
            author: self.author,
            seq: builder.seq,
            prev: builder.prev,
            wall: self.wall,
            after: std::mem::take(&mut builder.after)
                .into_iter()
                .map(|(author, seq)| After { author, seq })
                .collect(),
            classes: std::mem::take(&mut builder.classes),
            items: std::mem::take(&mut builder.items),
        };
        header.check().map_err(WriteError::Entry)?;
        let header = header.to_bytes();
        let hash = hash_header(&header);
        let signature: Signature = sign_header(&header, self.signer);
        let bodies = std::mem::take(&mut builder.bodies);
        let here: Vec<Body<'_>> = bodies.iter().map(|body| Body::Here(body)).collect();
        let bytes = write_entry(&signature, &header, &here);
        self.sealed.push(Sealed { lane, seq: builder.seq, hash, bytes });
        builder.seq += 1;
        builder.prev = hash;
        builder.bodies_len = 0;
        Ok(())
    }
}

/// One object that cannot be read is no reason to stop writing all others.
fn unloadable(id: &str, error: StoreError) -> WriteError {
    match error {
        StoreError::Damaged { .. } => {
            WriteError::Quarantined { id: id.to_owned(), why: error.to_string() }
        }
        other => other.into(),
    }
}

fn row_content(lane: LaneId, id: &str, row: &ObjectRow) -> Result<Content, WriteError> {
    let damaged = |what: String| StoreError::inconsistent(format!("objects-1 {lane} {id:?}"), what);
    // The same reader as for input: serde_json refuses a body of the greatest depth allowed.
    let body = json::parse(row.body.as_bytes(), Limits::STORED)
        .map_err(|error| damaged(error.to_string()))?;
    let (kind, class) = (row.kind.clone(), row.class.clone());
    Ok(Content::unchecked(kind, class, row.labels.clone(), body, row.types.clone()))
}

fn put_content(
    put: &PutContent,
    old: Option<&Content>,
) -> Result<Content, crate::object::ContentError> {
    use crate::object::{CLASS_DEFAULT, KIND_DEFAULT};
    let kind = put.kind.as_deref().or(old.map(Content::kind)).unwrap_or(KIND_DEFAULT);
    let class = put.class.as_deref().or(old.map(Content::class)).unwrap_or(CLASS_DEFAULT);
    let labels = put.labels.as_ref().or(old.map(Content::labels)).cloned().unwrap_or_default();
    let none = LeafTypes::new();
    let types = types_after(old.map_or(&none, Content::types), &put.body, &put.types);
    Content::typed(kind, class, labels, put.body.clone(), types)
}

/// When an object that is put expires.
fn expiry(
    lane: LaneId,
    ttl_ms: Option<u64>,
    present: Option<&ObjectRow>,
    now: WallMillis,
) -> Result<Option<WallMillis>, WriteError> {
    match (lane.definition().ttl, ttl_ms) {
        (None, None) => Ok(None),
        (None, Some(asked_ms)) => Err(WriteError::TimeToLive {
            lane,
            asked_ms,
            why: "its objects do not expire; leave the time to live out".into(),
        }),
        (Some(ttl), Some(asked_ms)) if asked_ms == 0 || asked_ms > ttl.max_ms => {
            let why = format!("ask for 1 to {} ms", ttl.max_ms);
            Err(WriteError::TimeToLive { lane, asked_ms, why })
        }
        (Some(_), Some(asked_ms)) => Ok(Some(WallMillis(now.0.saturating_add(asked_ms)))),
        (Some(ttl), None) => Ok(Some(
            present
                .and_then(|row| row.expires_at)
                .unwrap_or(WallMillis(now.0.saturating_add(ttl.default_ms))),
        )),
    }
}
