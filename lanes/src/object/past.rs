//! What a change may name: only what lies in its own past, and where it lies.
//!
//! Whether a change can be taken in must follow from the change and its past alone. If it depended
//! on what else a device happens to hold, or on which changes arrive together, one device would
//! take it in and another not, and they would differ for ever. Automerge looks names up in all that
//! a document has, and marks what is overwritten wherever its walk meets it. So before Automerge
//! sees a change, this module holds it to what every honest writer does:
//!
//! - It follows the last change of its own author in the object.
//! - What it writes into, inserts after or overwrites is an earlier operation of its own, or one of
//!   a change in its past.
//! - What it overwrites was written to the same key, or the same list, and was not overwritten
//!   before.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use automerge::{ActorId, Automerge, ChangeHash as Hash, ObjId, ObjType, ROOT, ReadDoc};

use super::chunk::{Change, INCREMENT, Key, MAKE_LIST, MAKE_MAP, MAKE_TEXT, Op, OpRef};
use super::error::DocumentError;
use super::skeleton;
use crate::ids::ChangeHash;

/// Changes of the document that the changes taken in together may name as their past, before the
/// rest is left for another time: the memory that their pasts take.
const BASES_MAX: usize = 16_384;

type Actor = [u8; 16];
/// Changes of the document, sorted, that have all of the document's part of a past in theirs.
type Base = Rc<[Hash]>;
/// An operation: its author and its number.
type OpId = (Actor, u64);
type Result<T> = std::result::Result<T, DocumentError>;

/// A document, and changes that it shall take in, each with its past.
pub(super) struct Past<'d, 'c> {
    doc: &'d Automerge,
    heads: BTreeSet<Hash>,
    members: Vec<Member<'c>>,
    by_hash: BTreeMap<ChangeHash, usize>,
    /// Members by author and number of their first operation.
    by_op: BTreeMap<OpId, usize>,
    /// The last member of each author.
    last_of: BTreeMap<Actor, usize>,
    /// Which members overwrite an operation.
    overwritten_by: BTreeMap<OpId, Vec<usize>>,
    /// What of the document is not in a past, by that past's base.
    apart: BTreeMap<Base, Rc<Apart>>,
    /// What a list shows at a base.
    shown: BTreeMap<(Base, OpId), Rc<BTreeSet<OpId>>>,
    bases: usize,
}

/// A change that was found right.
struct Member<'c> {
    change: Change<'c>,
    base: Base,
    /// The members in its past and itself.
    members: Bits,
}

/// Changes of the document that are not in a past.
#[derive(Default)]
struct Apart {
    /// The last operation of each, by author and first operation.
    ops: BTreeMap<OpId, u64>,
    authors: BTreeSet<Actor>,
}

impl Apart {
    fn has(&self, op: OpId) -> bool {
        let before = self.ops.range((op.0, 0)..=op).next_back();
        before.is_some_and(|(_, last)| op.1 <= *last)
    }
}

/// A set of small numbers.
#[derive(Clone, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, at: usize) {
        if self.0.len() <= at / 64 {
            self.0.resize(at / 64 + 1, 0);
        }
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn add_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }
}

/// The past of a change that is being looked at.
struct Own<'p> {
    base: Base,
    /// The base is the whole document.
    whole: bool,
    members: Bits,
    apart: Rc<Apart>,
    actors: &'p [Actor],
}

impl<'d, 'c> Past<'d, 'c> {
    pub(super) fn new(doc: &'d Automerge) -> Self {
        Self {
            doc,
            heads: doc.get_heads().into_iter().collect(),
            members: Vec::new(),
            by_hash: BTreeMap::new(),
            by_op: BTreeMap::new(),
            last_of: BTreeMap::new(),
            overwritten_by: BTreeMap::new(),
            apart: BTreeMap::new(),
            shown: BTreeMap::new(),
            bases: 0,
        }
    }

    /// Whether the change is one of the members.
    pub(super) fn has(&self, hash: ChangeHash) -> bool {
        self.by_hash.contains_key(&hash)
    }

    /// The members, in the order in which they came.
    pub(super) fn members(&self) -> impl Iterator<Item = &Change<'c>> {
        self.members.iter().map(|member| &member.change)
    }

    /// Checks a change against its past, and makes it a member.
    pub(super) fn add(&mut self, hash: ChangeHash, change: Change<'c>) -> Result<()> {
        if change.deps.is_empty() {
            return Err(DocumentError::Order("it follows nothing"));
        }
        let actors = change.actors.iter().map(|actor| Actor::try_from(*actor));
        let actors: std::result::Result<Vec<Actor>, _> = actors.collect();
        let actors = actors.map_err(|_| DocumentError::Undecodable("an actor has no 16 bytes"))?;
        let own = self.past_of(&change, &actors)?;
        for (at, op) in change.ops.iter().enumerate() {
            if let Err(reason) = self.check_op(&change, &own, at, op) {
                return Err(DocumentError::Schema { op: at, reason });
            }
        }
        let Own { base, mut members, .. } = own;
        let number = self.members.len();
        members.set(number);
        self.by_hash.insert(hash, number);
        self.by_op.insert((actors[0], change.start_op), number);
        self.last_of.insert(actors[0], number);
        for op in change.ops.iter().filter(|op| op.action != INCREMENT) {
            for (actor, counter) in change.overwritten(op) {
                let op = (actors[*actor], *counter);
                self.overwritten_by.entry(op).or_default().push(number);
            }
        }
        self.members.push(Member { change, base, members });
        Ok(())
    }

    fn past_of<'p>(&mut self, change: &Change<'_>, actors: &'p [Actor]) -> Result<Own<'p>> {
        let (mut missing, mut named) = (Vec::new(), BTreeSet::new());
        let (mut members, mut last_op) = (Bits::default(), 0);
        let mut shared: Option<Base> = None;
        let in_document: Vec<Hash> = change
            .deps
            .iter()
            .filter(|dep| !self.by_hash.contains_key(dep))
            .map(|dep| Hash(dep.0))
            .collect();
        missing.extend(self.doc.get_missing_deps(&in_document));
        if !missing.is_empty() {
            return Err(DocumentError::MissingDeps(super::without_skeleton(&missing)));
        }
        for dep in &change.deps {
            if let Some(member) = self.by_hash.get(dep).map(|number| &self.members[*number]) {
                members.add_all(&member.members);
                named.extend(member.base.iter().copied());
                shared = Some(Rc::clone(&member.base));
                last_op = last_op.max(member.change.last_op());
            } else {
                let dep = Hash(dep.0);
                named.insert(dep);
                let meta = self.doc.get_change_meta_by_hash(&dep);
                last_op = last_op.max(meta.map_or(0, |meta| meta.max_op));
            }
        }
        if change.start_op != last_op + 1 {
            return Err(DocumentError::Order("its operations do not follow its predecessors'"));
        }
        let whole = self.heads.iter().all(|head| named.contains(head));
        let base = match shared.filter(|base| base.iter().eq(&named)) {
            Some(base) => base,
            None => {
                self.bases += named.len();
                if self.bases > BASES_MAX && !self.members.is_empty() {
                    return Err(DocumentError::Order("too many pasts for one time"));
                }
                named.into_iter().collect()
            }
        };
        let apart = if whole { Rc::default() } else { self.apart(&base) };
        let last = self.last_of.get(&actors[0]);
        if apart.authors.contains(&actors[0]) || last.is_some_and(|last| !members.has(*last)) {
            return Err(DocumentError::Order("it does not follow its author's last change"));
        }
        Ok(Own { base, whole, members, apart, actors })
    }

    /// What of the document is not in the past of these changes of it.
    fn apart(&mut self, base: &Base) -> Rc<Apart> {
        if let Some(known) = self.apart.get(base) {
            return Rc::clone(known);
        }
        let mut apart = Apart::default();
        for change in self.doc.get_changes_meta(base) {
            // A document's actors are 16 bytes long; see `Object::load`.
            let Ok(actor) = Actor::try_from(change.actor.to_bytes()) else { continue };
            apart.ops.insert((actor, change.start_op), change.max_op);
            apart.authors.insert(actor);
        }
        let apart = Rc::new(apart);
        self.apart.insert(Rc::clone(base), Rc::clone(&apart));
        apart
    }

    fn check_op(
        &mut self,
        change: &Change<'_>,
        own: &Own<'_>,
        at: usize,
        op: &Op<'_>,
    ) -> std::result::Result<(), &'static str> {
        if op.insert && !op.overwrites_nothing() {
            return Err("it inserts, and overwrites what was there");
        }
        let object = op.object.map(|object| self.object(change, own, at, object)).transpose()?;
        let is_list = object.as_ref().is_some_and(|object| object.kind != ObjType::Map);
        match op.key {
            Key::Member(_) if is_list => return Err("it writes to a member of a list"),
            Key::Head | Key::Element(_) if !is_list => {
                return Err("it writes to an element of a map");
            }
            Key::Element(element) => self.check_element(change, own, at, op, element)?,
            Key::Member(_) | Key::Head => {}
        }
        if op.overwrites_nothing() {
            return Ok(());
        }
        let mut shown = None;
        for overwritten in change.overwritten(op) {
            if Key::Element(*overwritten) == op.key {
                continue;
            }
            match self.find(change, own, at, *overwritten)? {
                Found::Own(index) => {
                    let other = &change.ops[index];
                    if other.object != op.object || !is_same_key(op.key, other.key) {
                        return Err(ELSEWHERE);
                    }
                }
                Found::Member(number, index) => {
                    let id = own.id(*overwritten);
                    let theirs = &self.members[number].change;
                    let other = &theirs.ops[index];
                    let same_object = match (op.object, other.object) {
                        (None, None) => true,
                        (Some(a), Some(b)) => own.id(a) == id_in(theirs, b),
                        _ => false,
                    };
                    if !same_object || !is_same_key(op.key, other.key) {
                        return Err(ELSEWHERE);
                    }
                    self.check_not_overwritten(own, id)?;
                }
                Found::Document => {
                    let id = own.id(*overwritten);
                    let ids = match &shown {
                        Some(ids) => ids,
                        None => {
                            shown.insert(self.shown_at(own, op.object, object.as_ref(), op.key))
                        }
                    };
                    if !ids.contains(&id) {
                        return Err(ELSEWHERE);
                    }
                    self.check_not_overwritten(own, id)?;
                }
            }
        }
        Ok(())
    }

    /// Refuses what a member in the past has overwritten.
    fn check_not_overwritten(
        &self,
        own: &Own<'_>,
        op: OpId,
    ) -> std::result::Result<(), &'static str> {
        let by = self.overwritten_by.get(&op);
        match by.is_some_and(|by| by.iter().any(|number| own.members.has(*number))) {
            true => Err(ELSEWHERE),
            false => Ok(()),
        }
    }

    /// The container that an operation writes into.
    fn object(
        &self,
        change: &Change<'_>,
        own: &Own<'_>,
        at: usize,
        object: OpRef,
    ) -> std::result::Result<Container, &'static str> {
        let (actor, counter) = own.id(object);
        let id = ObjId::Id(counter, ActorId::from(&actor[..]), 0);
        if actor == skeleton().actor {
            // Its first two operations make the maps of an object.
            return match counter {
                1 | 2 => Ok(Container { id, kind: ObjType::Map, in_document: true }),
                _ => Err(NOT_THERE),
            };
        }
        let made = |op: &Op<'_>| match op.action {
            MAKE_MAP => Ok(ObjType::Map),
            MAKE_LIST => Ok(ObjType::List),
            MAKE_TEXT => Ok(ObjType::Text),
            _ => Err("it writes into what is no container"),
        };
        let (kind, in_document) = match self.find(change, own, at, object)? {
            Found::Own(index) => (made(&change.ops[index])?, false),
            Found::Member(number, index) => (made(&self.members[number].change.ops[index])?, false),
            Found::Document => (self.doc.object_type(&id).map_err(|_| NOT_THERE)?, true),
        };
        Ok(Container { id, kind, in_document })
    }

    /// The element that an operation inserts after or writes to. Whether one of the document lies
    /// in this list is left to Automerge, which finds it there or fails.
    fn check_element(
        &self,
        change: &Change<'_>,
        own: &Own<'_>,
        at: usize,
        op: &Op<'_>,
        element: OpRef,
    ) -> std::result::Result<(), &'static str> {
        let right = match self.find(change, own, at, element)? {
            Found::Own(index) => change.ops[index].insert && change.ops[index].object == op.object,
            Found::Member(number, index) => {
                let theirs = &self.members[number].change;
                let other = &theirs.ops[index];
                let list = other.object.map(|object| id_in(theirs, object));
                other.insert && list == op.object.map(|object| own.id(object))
            }
            Found::Document => true,
        };
        if right { Ok(()) } else { Err(ELSEWHERE) }
    }

    /// Where an operation is that one of a change names.
    fn find(
        &self,
        change: &Change<'_>,
        own: &Own<'_>,
        at: usize,
        named: OpRef,
    ) -> std::result::Result<Found, &'static str> {
        let id @ (_, counter) = own.id(named);
        if counter >= change.start_op {
            let index = usize::try_from(counter - change.start_op).unwrap_or(usize::MAX);
            // The first actor is the author.
            return if named.0 == 0 && index < at {
                Ok(Found::Own(index))
            } else {
                Err("it names an operation that was not there before it")
            };
        }
        let before = self.by_op.range((id.0, 0)..=id).next_back();
        if let Some((first, number)) = before
            && self.members[*number].change.last_op() >= counter
        {
            return if own.members.has(*number) {
                Ok(Found::Member(*number, (counter - first.1) as usize))
            } else {
                Err(NOT_ITS_PAST)
            };
        }
        if own.apart.has(id) { Err(NOT_ITS_PAST) } else { Ok(Found::Document) }
    }

    /// The operations of the document that are shown, as of the past's base, at a key of a map, or
    /// anywhere in a list: Automerge gives each back with the element at which it found it.
    fn shown_at(
        &mut self,
        own: &Own<'_>,
        named: Option<OpRef>,
        object: Option<&Container>,
        key: Key<'_>,
    ) -> Rc<BTreeSet<OpId>> {
        let heads = (!own.whole).then_some(&*own.base);
        let root = Container { id: ROOT, kind: ObjType::Map, in_document: true };
        let object = object.unwrap_or(&root);
        if !object.in_document {
            return Rc::default();
        }
        if let Key::Member(key) = key {
            let all = match heads {
                Some(heads) => self.doc.get_all_at(&object.id, key, heads),
                None => self.doc.get_all(&object.id, key),
            };
            return Rc::new(all.into_iter().flatten().filter_map(|(_, id)| op_id(&id)).collect());
        }
        let Some(list) = named.map(|named| own.id(named)) else { return Rc::default() };
        let name = (Rc::clone(&own.base), list);
        if let Some(known) = self.shown.get(&name) {
            return Rc::clone(known);
        }
        let range = match heads {
            Some(heads) => self.doc.list_range_at(&object.id, .., heads),
            None => self.doc.list_range(&object.id, ..),
        };
        let mut ids = BTreeSet::new();
        for item in range {
            ids.extend(op_id(&item.id()));
            if item.conflict {
                let all = match heads {
                    Some(heads) => self.doc.get_all_at(&object.id, item.index, heads),
                    None => self.doc.get_all(&object.id, item.index),
                };
                ids.extend(all.into_iter().flatten().filter_map(|(_, id)| op_id(&id)));
            }
        }
        let ids = Rc::new(ids);
        self.shown.insert(name, Rc::clone(&ids));
        ids
    }
}

const NOT_THERE: &str = "it names what is not there";
const NOT_ITS_PAST: &str = "it names what its author did not have";
const ELSEWHERE: &str = "it overwrites or follows what is not at that place";

/// What an operation writes into.
struct Container {
    id: ObjId,
    kind: ObjType,
    /// It is the document's, and not made by the changes that come with it.
    in_document: bool,
}

/// Where a named operation is.
enum Found {
    /// In the change itself, at this index.
    Own(usize),
    /// In a member, at this index.
    Member(usize, usize),
    /// In the past's part of the document, or nowhere.
    Document,
}

impl Own<'_> {
    fn id(&self, op: OpRef) -> OpId {
        // A change's names are checked against its actors when it is read.
        (self.actors[op.0], op.1)
    }
}

fn id_in(change: &Change<'_>, op: OpRef) -> OpId {
    (change.actors[op.0].try_into().unwrap_or_default(), op.1)
}

fn op_id(id: &ObjId) -> Option<OpId> {
    match id {
        ObjId::Id(counter, actor, _) => Some((actor.to_bytes().try_into().ok()?, *counter)),
        ObjId::Root => None,
    }
}

/// Whether two operations of one object write to the same place, as far as it matters here: which
/// element of a list was meant is told by Automerge, which meets all of them in one walk.
fn is_same_key(one: Key<'_>, other: Key<'_>) -> bool {
    match (one, other) {
        (Key::Member(one), Key::Member(other)) => one == other,
        (Key::Member(_), _) | (_, Key::Member(_)) => false,
        _ => true,
    }
}
