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
//! - An element that it names lies in the list that it writes to.
//! - What it overwrites was written to the same key, or the same list, and was still shown there;
//!   an element's own insertion may be overwritten again. What it adds to is a counter.
//!
//! All of this is asked of the past alone, be it in the document already or among the changes that
//! come together, with the same answer.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use automerge::{ActorId, Automerge, ChangeHash as Hash, ObjId, ObjType, PatchLog, ROOT, ReadDoc};

use super::chunk::{
    Change, DELETE, INCREMENT, Key, MAKE_LIST, MAKE_MAP, MAKE_TEXT, Op, OpRef, PUT, Scalar,
};
use super::elements::{Actor, OpId};
use super::error::DocumentError;
use super::graph::Apart;
use super::schema::is_text_op;
use super::{Object, skeleton};
use crate::ids::ChangeHash;

/// What may be looked up for the pasts of changes taken in together, in changes and operations of
/// the document, before the rest is left for another time: their memory and time. The pasts of
/// honest changes are few; the first of several is always looked at.
const LOOKED_UP_MAX: usize = 1 << 20;

/// Changes of the document, sorted, that have all of the document's part of a past in theirs; by a
/// number, since there may be many of them.
type Base = usize;
type Result<T> = std::result::Result<T, DocumentError>;

/// A document, and changes that it shall take in, each with its past.
pub(super) struct Past<'d, 'c> {
    object: &'d Object,
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
    bases: Vec<Rc<[Hash]>>,
    base_numbers: BTreeMap<Rc<[Hash]>, Base>,
    /// What of the document is not in a past, by that past's base.
    apart: BTreeMap<Base, Rc<Apart>>,
    /// What a key of a map, or a list, shows at a base.
    shown: BTreeMap<Place, Rc<Shown>>,
    /// A copy of the document in which it is read as it was at a base.
    then: Option<Automerge>,
    looked_up: usize,
}

/// A base, an object (`None` is the root) and a key of it; of a list all keys are one.
type Place = (Base, Option<OpId>, Option<String>);
/// Operations of the document that are shown somewhere, and whether each is a counter.
type Shown = BTreeMap<OpId, bool>;

/// A change that was found right.
struct Member<'c> {
    change: Change<'c>,
    base: Base,
    /// The members in its past and itself.
    members: Bits,
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
    pub(super) fn new(object: &'d Object) -> Self {
        let doc = &object.doc;
        Self {
            object,
            doc,
            heads: doc.get_heads().into_iter().collect(),
            members: Vec::new(),
            by_hash: BTreeMap::new(),
            by_op: BTreeMap::new(),
            last_of: BTreeMap::new(),
            overwritten_by: BTreeMap::new(),
            bases: Vec::new(),
            base_numbers: BTreeMap::new(),
            apart: BTreeMap::new(),
            shown: BTreeMap::new(),
            then: None,
            looked_up: 0,
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
        self.look_up(&change, &own)?;
        let mut written = BTreeSet::new();
        for (at, op) in change.ops.iter().enumerate() {
            // So there are never more values at a place than changes that were made apart.
            if op.action != DELETE && !op.insert && !written.insert((op.object, op.key)) {
                let reason = "it writes twice to one place";
                return Err(DocumentError::Schema { op: at, reason });
            }
            let checked = self.check_op(&change, &own, at, op);
            checked.map_err(|reason| DocumentError::Schema { op: at, reason })?;
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
        let in_document: Vec<Hash> = change
            .deps
            .iter()
            .filter(|dep| !self.by_hash.contains_key(dep))
            .map(|dep| Hash(dep.0))
            .collect();
        let missing = self.doc.get_missing_deps(&in_document);
        if !missing.is_empty() {
            return Err(DocumentError::MissingDeps(super::without_skeleton(&missing)));
        }
        let (mut members, mut last_op) = (Bits::default(), 0);
        // One author's changes follow one another, so the last of each has the others in its past.
        let mut last_by: BTreeMap<Actor, (u64, Hash)> = BTreeMap::new();
        let mut direct: BTreeSet<Actor> = BTreeSet::new();
        let mut looked_up = 0;
        for dep in &change.deps {
            let member = self.by_hash.get(dep).map(|number| &self.members[*number]);
            let author = match member {
                Some(member) => {
                    members.add_all(&member.members);
                    last_op = last_op.max(member.change.last_op());
                    let base = &self.bases[member.base];
                    for dep in base.iter() {
                        self.name(&mut last_by, *dep);
                    }
                    looked_up += base.len();
                    member.change.actors[0].try_into().unwrap_or_default()
                }
                None => {
                    let (author, last) = self.name(&mut last_by, Hash(dep.0));
                    last_op = last_op.max(last);
                    author
                }
            };
            if !direct.insert(author) {
                return Err(DocumentError::Order("it follows two changes of one author"));
            }
        }
        self.looked_up += looked_up;
        if change.start_op != last_op + 1 {
            return Err(DocumentError::Order("its operations do not follow its predecessors'"));
        }
        let named: BTreeSet<Hash> = last_by.into_values().map(|(_, hash)| hash).collect();
        let whole = self.heads.iter().all(|head| named.contains(head));
        let shared = self.members.last().map(|member| member.base);
        let base = match shared.filter(|base| self.bases[*base].iter().eq(&named)) {
            Some(base) => base,
            None => self.base(named.into_iter().collect()),
        };
        let apart = if whole { Rc::default() } else { self.apart(base) };
        let last = self.last_of.get(&actors[0]);
        if apart.has_any_of(&actors[0]) || last.is_some_and(|last| !members.has(*last)) {
            return Err(DocumentError::Order("it does not follow its author's last change"));
        }
        Ok(Own { base, whole, members, apart, actors })
    }

    /// Keeps a change of the document if it is the last of its author so far; its author and last
    /// operation.
    fn name(&self, last_by: &mut BTreeMap<Actor, (u64, Hash)>, change: Hash) -> (Actor, u64) {
        let meta = self.doc.get_change_meta_by_hash(&change);
        let (author, last) = meta.map_or(([0; 16], 0), |meta| {
            (meta.actor.to_bytes().try_into().unwrap_or_default(), meta.max_op)
        });
        let kept = last_by.entry(author).or_insert((last, change));
        *kept = (*kept).max((last, change));
        (author, last)
    }

    /// Whether so much was looked up that the rest is left for another time.
    pub(super) fn is_full(&self) -> bool {
        self.looked_up > LOOKED_UP_MAX
    }

    /// The number of a base.
    fn base(&mut self, changes: Rc<[Hash]>) -> Base {
        self.looked_up += changes.len();
        *self.base_numbers.entry(changes).or_insert_with_key(|changes| {
            self.bases.push(Rc::clone(changes));
            self.bases.len() - 1
        })
    }

    /// What of the document is not in the past of these changes of it.
    fn apart(&mut self, base: Base) -> Rc<Apart> {
        if let Some(known) = self.apart.get(&base) {
            return Rc::clone(known);
        }
        let graph = self.object.graph();
        let apart = graph.apart(&self.bases[base]);
        self.looked_up += graph.len() / 64;
        let apart = Rc::new(apart);
        self.apart.insert(base, Rc::clone(&apart));
        apart
    }

    fn check_op(
        &self,
        change: &Change<'_>,
        own: &Own<'_>,
        at: usize,
        op: &Op<'_>,
    ) -> std::result::Result<(), &'static str> {
        if op.insert && !op.overwrites_nothing() {
            return Err("it inserts, and overwrites what was there");
        }
        let kind = op.object.map(|object| self.object(change, own, at, object)).transpose()?;
        let is_list = kind.is_some_and(|kind| kind != ObjType::Map);
        if kind == Some(ObjType::Text) && !is_text_op(op) {
            return Err("a text is made of single characters");
        }
        match op.key {
            Key::Member(_) if is_list => {
                return Err("it writes to a member of a list");
            }
            Key::Head | Key::Element(_) if !is_list => {
                return Err("it writes to an element of a map");
            }
            Key::Element(element) => self.check_element(change, own, at, op, element)?,
            Key::Member(_) | Key::Head => {}
        }
        let mut shown: Option<Rc<Shown>> = None;
        for overwritten in change.overwritten(op) {
            if Key::Element(*overwritten) == op.key {
                continue;
            }
            let id = own.id(*overwritten);
            let is_counter = match self.find(change, own, at, *overwritten)? {
                Found::Own(index) => {
                    let other = &change.ops[index];
                    let same = other.object == op.object && is_same_key(op.key, other.key);
                    is_counter(other).filter(|_| same)
                }
                Found::Member(number, index) => {
                    let theirs = &self.members[number].change;
                    let other = &theirs.ops[index];
                    let object = other.object.map(|object| id_in(theirs, object));
                    let same = object == op.object.map(|object| own.id(object))
                        && is_same_key(op.key, other.key);
                    let shown = !self.is_overwritten(own, id);
                    is_counter(other).filter(|_| same && shown)
                }
                Found::Document => {
                    let shown = match &shown {
                        Some(shown) => shown,
                        None => shown.insert(self.shown_at(own, op)),
                    };
                    shown.get(&id).copied().filter(|_| !self.is_overwritten(own, id))
                }
            };
            match is_counter {
                None => return Err(ELSEWHERE),
                Some(false) if op.action == INCREMENT => {
                    return Err("it adds to what is no counter");
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether a member in the past has overwritten it.
    fn is_overwritten(&self, own: &Own<'_>, op: OpId) -> bool {
        let by = self.overwritten_by.get(&op);
        by.is_some_and(|by| by.iter().any(|number| own.members.has(*number)))
    }

    /// The container that an operation writes into.
    fn object(
        &self,
        change: &Change<'_>,
        own: &Own<'_>,
        at: usize,
        object: OpRef,
    ) -> std::result::Result<ObjType, &'static str> {
        let (actor, counter) = own.id(object);
        if actor == skeleton().actor {
            // Its first two operations make the maps of an object.
            return match counter {
                1 | 2 => Ok(ObjType::Map),
                _ => Err(NOT_THERE),
            };
        }
        let made = |op: &Op<'_>| match op.action {
            MAKE_MAP => Ok(ObjType::Map),
            MAKE_LIST => Ok(ObjType::List),
            MAKE_TEXT => Ok(ObjType::Text),
            _ => Err("it writes into what is no container"),
        };
        match self.find(change, own, at, object)? {
            Found::Own(index) => made(&change.ops[index]),
            Found::Member(number, index) => made(&self.members[number].change.ops[index]),
            Found::Document => {
                let id = ObjId::Id(counter, ActorId::from(&actor[..]), 0);
                self.doc.object_type(&id).map_err(|_| NOT_THERE)
            }
        }
    }

    /// The element that an operation inserts after or writes to.
    fn check_element(
        &self,
        change: &Change<'_>,
        own: &Own<'_>,
        at: usize,
        op: &Op<'_>,
        element: OpRef,
    ) -> std::result::Result<(), &'static str> {
        let list = match self.find(change, own, at, element)? {
            Found::Own(index) => {
                let other = &change.ops[index];
                other.object.filter(|_| other.insert).map(|object| own.id(object))
            }
            Found::Member(number, index) => {
                let theirs = &self.members[number].change;
                let other = &theirs.ops[index];
                other.object.filter(|_| other.insert).map(|object| id_in(theirs, object))
            }
            Found::Document => self.object.elements().list_of(own.id(element)),
        };
        match list.is_some() && list == op.object.map(|object| own.id(object)) {
            true => Ok(()),
            false => Err(ELSEWHERE),
        }
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

    /// Finds out what is shown, as of the past's base, at all places of the document where a change
    /// overwrites. The past is worked out once for all of them: with many heads it costs more than
    /// what is read there.
    fn look_up(&mut self, change: &Change<'_>, own: &Own<'_>) -> Result<()> {
        let mut places = BTreeSet::new();
        for op in &change.ops {
            let of_others =
                |named: &OpRef| named.1 < change.start_op && Key::Element(*named) != op.key;
            if change.overwritten(op).iter().any(of_others) {
                let place = place(own, op);
                if !self.shown.contains_key(&place) {
                    places.insert(place);
                }
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let mut found = Vec::with_capacity(places.len());
        if own.whole {
            found.extend(places.iter().map(|place| shown_in(self.doc, place)));
        } else {
            // Nothing is written. All pasts have what this actor made, so that no new one is needed.
            let copy = || self.doc.clone().with_actor(ActorId::from(&skeleton().actor[..]));
            let then = self.then.get_or_insert_with(copy);
            let then = then.transaction_at(PatchLog::inactive(), &self.bases[own.base]);
            let then = then.map_err(|_| DocumentError::Poisoned)?;
            found.extend(places.iter().map(|place| shown_in(&then, place)));
        }
        for (place, shown) in places.into_iter().zip(found) {
            self.looked_up += shown.len() + 1;
            self.shown.insert(place, Rc::new(shown));
        }
        Ok(())
    }

    /// What was found where an operation writes.
    fn shown_at(&self, own: &Own<'_>, op: &Op<'_>) -> Rc<Shown> {
        self.shown.get(&place(own, op)).map(Rc::clone).unwrap_or_default()
    }
}

/// Where an operation writes.
fn place(own: &Own<'_>, op: &Op<'_>) -> Place {
    let key = match op.key {
        Key::Member(key) => Some(key.to_owned()),
        Key::Head | Key::Element(_) => None,
    };
    (own.base, op.object.map(|object| own.id(object)), key)
}

/// The operations of a document that are shown at a key of a map, or anywhere in a list: Automerge
/// gives each back with the element at which it found it. Nothing is shown in what is not there.
fn shown_in(doc: &impl ReadDoc, (_, object, key): &Place) -> Shown {
    let object =
        object.map_or(ROOT, |(actor, counter)| ObjId::Id(counter, ActorId::from(&actor[..]), 0));
    let mut shown = Shown::new();
    let is_map = doc.object_type(&object).ok().map(|kind| kind == ObjType::Map);
    if is_map != Some(key.is_some()) {
        return shown;
    }
    if let Some(key) = key {
        let all = doc.get_all(&object, key.as_str());
        shown.extend(all.into_iter().flatten().filter_map(shown_value));
        return shown;
    }
    for item in doc.list_range(&object, ..) {
        if item.conflict {
            let all = doc.get_all(&object, item.index);
            shown.extend(all.into_iter().flatten().filter_map(shown_value));
        } else {
            // Counters lie outside lists.
            shown.extend(op_id(&item.id()).map(|id| (id, false)));
        }
    }
    shown
}

fn shown_value((value, id): (automerge::Value<'_>, ObjId)) -> Option<(OpId, bool)> {
    Some((op_id(&id)?, value.is_counter()))
}

/// Whether what an operation writes is a counter; `None` if it writes nothing that is shown.
fn is_counter(op: &Op<'_>) -> Option<bool> {
    match op.action {
        PUT => Some(matches!(op.value, Scalar::Counter(_))),
        MAKE_MAP | MAKE_LIST | MAKE_TEXT => Some(false),
        _ => None,
    }
}

const NOT_THERE: &str = "it names what is not there";
const NOT_ITS_PAST: &str = "it names what its author did not have";
const ELSEWHERE: &str = "it overwrites or follows what is not at that place";

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
