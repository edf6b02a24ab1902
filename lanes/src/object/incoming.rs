//! Taking in changes from elsewhere.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use automerge::{ChangeHash as Hash, ReadDoc};

use super::chunk::{Change, OPS_MAX};
use super::elements::Elements;
use super::error::DocumentError;
use super::graph::Graph;
use super::past::Past;
use super::{Object, refused as refused_by, schema};
use crate::ids::ChangeHash;

/// A change that comes from elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// Its bytes.
    pub change: &'a [u8],
    /// The hash under which it was announced.
    pub hash: ChangeHash,
    /// The actor of the entry's author.
    pub actor: [u8; 16],
}

/// What became of changes of which each was taken in that can be.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The object with them.
    pub object: Object,
    /// Those that it took in now, by their place, in order.
    pub new: Vec<usize>,
    /// Those that cannot be part of it, by their place, and why.
    pub refused: Vec<(usize, DocumentError)>,
    /// Whether one of them was refused because there would be more than an object can hold. Then
    /// the others are refused as well, and so shall be all that come later.
    pub is_full: bool,
}

/// Changes that are checked and taken in at once: each is compared with all before it.
const STEP_CHANGES_MAX: usize = 4_096;

impl Object {
    /// Takes in a change from elsewhere. A change that is there already is no error.
    pub fn apply(
        &mut self,
        change: &[u8],
        expected: ChangeHash,
        expected_actor: [u8; 16],
    ) -> Result<(), DocumentError> {
        let incoming = Incoming { change, hash: expected, actor: expected_actor };
        let taken = self.with_each(&[incoming], &BTreeMap::new());
        match taken.refused.into_iter().next() {
            Some((_, error)) => Err(error),
            None => {
                *self = taken.object;
                Ok(())
            }
        }
    }

    /// The object once it has taken in those of these changes that can be, each after those that it
    /// follows, for the price of few copies of the document. One that is refused is left out as if
    /// it had never come, and with it the later ones of its author; so are the changes of those
    /// who are `stalled`, by the change of theirs that is left out. So the same follows from the
    /// same changes, whichever of them come together.
    pub fn with_each(
        &self,
        changes: &[Incoming<'_>],
        stalled: &BTreeMap<[u8; 16], ChangeHash>,
    ) -> Taken {
        let mut object = self.clone();
        let (mut new, mut refused) = (Vec::new(), Vec::new());
        let mut stalled = stalled.clone();
        let mut left = vec![(0, changes.len())];
        let mut is_full = false;
        while let Some((from, to)) = left.pop() {
            if from == to {
                continue;
            }
            // Reads of a document that others wrote may panic as much as writes to it.
            let step = catch_unwind(AssertUnwindSafe(|| object.step(changes, from..to, &stalled)));
            match step.unwrap_or_else(|_| Err((usize::midpoint(from, to), DocumentError::Poisoned)))
            {
                Ok(step) => {
                    new.extend(step.members);
                    refused.extend(step.refused);
                    (object, stalled) = (step.object, step.stalled);
                    if step.is_full {
                        is_full = true;
                        let rest =
                            (step.next..changes.len()).filter(|at| !object.has(changes[*at].hash));
                        refused.extend(rest.map(|at| (at, DocumentError::Full)));
                        break;
                    }
                    left.push((step.next, to));
                }
                Err((_, error)) if to - from == 1 => {
                    stalled.entry(changes[from].actor).or_insert(changes[from].hash);
                    refused.push((from, error));
                }
                Err((at, _)) => {
                    let at = at.clamp(from + 1, to - 1);
                    left.extend([(at, to), (from, at)]);
                }
            }
        }
        Taken { object, new, refused, is_full }
    }

    /// Where the elements of its lists are, found out once.
    pub(super) fn elements(&self) -> &Elements {
        self.elements.get_or_init(|| Arc::new(Elements::of(&self.doc)))
    }

    /// Its changes and what they follow, found out once.
    pub(super) fn graph(&self) -> &Graph {
        self.graph.get_or_init(|| Arc::new(Graph::of(&self.doc)))
    }

    /// Takes in those of a range that are right by themselves; fails where Automerge cannot take
    /// them, with where to divide the range.
    fn step(
        &self,
        changes: &[Incoming<'_>],
        range: Range<usize>,
        stalled: &BTreeMap<[u8; 16], ChangeHash>,
    ) -> Result<Step, (usize, DocumentError)> {
        let mut past = Past::new(self);
        let (mut members, mut refused) = (Vec::new(), Vec::new());
        let mut stalled = stalled.clone();
        let mut ops = 0;
        let (mut size, mut is_full) = (self.size, false);
        let mut next = range.end;
        for at in range.clone() {
            if members.len() >= STEP_CHANGES_MAX {
                next = at;
                break;
            }
            let incoming = &changes[at];
            if past.has(incoming.hash) || self.has(incoming.hash) {
                continue;
            }
            let mut check = || {
                if let Some(change) = stalled.get(&incoming.actor) {
                    return Err(DocumentError::Stalled(*change));
                }
                let change = Change::read(incoming.change, incoming.hash, incoming.actor)?;
                ops += change.ops.len();
                schema::check(&change)?;
                let size = size.with(incoming.hash, &change);
                past.add(incoming.hash, change)?;
                Ok(size)
            };
            let checked = check();
            if (ops > OPS_MAX || past.is_full()) && !members.is_empty() {
                // The rest another time, so that what is read at once stays bounded.
                next = at;
                break;
            }
            match checked {
                Ok(grown) if grown.check().is_err() => {
                    // Asked of no change but those that are right, by Automerge as well: so it is
                    // the same everywhere. It is tried alone.
                    next = at;
                    is_full = members.is_empty();
                    if is_full {
                        members.push(at);
                    }
                    break;
                }
                Ok(grown) => {
                    size = grown;
                    members.push(at);
                }
                Err(error) => {
                    stalled.entry(incoming.actor).or_insert(incoming.hash);
                    refused.push((at, error));
                }
            }
        }
        if members.is_empty() {
            return Ok(Step { object: self.clone(), members, refused, stalled, next, is_full });
        }
        let middle = usize::midpoint(range.start, range.end);
        let mut parsed = Vec::with_capacity(members.len());
        for at in &members {
            let change = automerge::Change::try_from(changes[*at].change);
            let error = DocumentError::Undecodable("automerge cannot read it");
            parsed.push(change.map_err(|_| (*at, error))?);
        }
        let mut doc = self.doc.clone();
        doc.apply_changes(parsed).map_err(|error| (middle, refused_by(error)))?;
        for at in &members {
            // Whatever else Automerge might make of it: it must give the bytes back.
            let stored = doc.get_change_by_hash(&Hash(changes[*at].hash.0));
            if stored.is_none_or(|stored| stored.raw_bytes() != changes[*at].change) {
                return Err((*at, DocumentError::Unfaithful));
            }
        }
        if is_full {
            let members = Vec::new();
            return Ok(Step { object: self.clone(), members, refused, stalled, next, is_full });
        }
        let bytes: usize = members.iter().map(|at| changes[*at].change.len()).sum();
        let mut elements = self.elements.clone();
        let mut graph = self.graph.clone();
        // The last that was looked at may be left for another time.
        let taken = || past.members().take(members.len());
        if let Some(elements) = elements.get_mut() {
            taken().for_each(|change| Arc::make_mut(elements).add(change));
        }
        if let Some(graph) = graph.get_mut() {
            let hashes = members.iter().map(|at| Hash(changes[*at].hash.0));
            hashes.zip(taken()).for_each(|(hash, change)| Arc::make_mut(graph).add(hash, change));
        }
        let object = Self { doc, bytes: self.bytes + bytes, size, elements, graph };
        Ok(Step { object, members, refused, stalled, next, is_full })
    }
}

/// What became of a range of changes.
struct Step {
    object: Object,
    members: Vec<usize>,
    refused: Vec<(usize, DocumentError)>,
    stalled: BTreeMap<[u8; 16], ChangeHash>,
    /// Where the rest begins.
    next: usize,
    /// The first of the rest is more than the object can hold.
    is_full: bool,
}
