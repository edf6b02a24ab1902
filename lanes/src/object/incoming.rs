//! Taking in changes from elsewhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use automerge::{ChangeHash as Hash, ReadDoc};

use super::chunk::{self, Change, OPS_MAX};
use super::elements::Elements;
use super::error::DocumentError;
use super::past::Past;
use super::{Object, View, refused, schema};
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

/// Why changes were not taken in together. Those before the one that failed can be, without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of them failed; `None` if that does not show. One that is not the first may have
    /// failed only for the company that it came in: try it again as the first.
    pub at: Option<usize>,
    /// Why.
    pub error: DocumentError,
}

/// What became of changes of which each was taken in that can be.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The object with them.
    pub object: Object,
    /// What it says.
    pub view: View,
    /// Which of them can never be part of it, by their place, and why.
    pub refused: Vec<(usize, DocumentError)>,
}

impl Object {
    /// Takes in a change from elsewhere. A change that is there already is no error.
    pub fn apply(
        &mut self,
        change: &[u8],
        expected: ChangeHash,
        expected_actor: [u8; 16],
    ) -> Result<(), DocumentError> {
        let incoming = Incoming { change, hash: expected, actor: expected_actor };
        *self = self.with(&[incoming]).map_err(|refusal| refusal.error)?;
        Ok(())
    }

    /// The object once it has taken in these changes, each after those that it follows: as
    /// [`Object::apply`] with each, for the price of one copy of the document. Several together
    /// may have at most [`OPS_MAX`] operations, so that what is read of them stays bounded.
    pub fn with(&self, changes: &[Incoming<'_>]) -> Result<Self, Refusal> {
        // Reads of a document that others wrote may panic as much as writes to it.
        let taken = catch_unwind(AssertUnwindSafe(|| self.take_in(changes)));
        taken.unwrap_or(Err(Refusal { at: None, error: DocumentError::Poisoned }))
    }

    /// The object once it has taken in those of these changes that can be. One that is refused is
    /// left out as if it had never come: so the same follows from the same changes, whichever of
    /// them come together. Fails only if the object itself cannot be read.
    pub fn with_each(&self, changes: &[Incoming<'_>]) -> Result<Taken, DocumentError> {
        let (mut object, mut view) = (None, None);
        let mut refused = Vec::new();
        let mut left = vec![(0, changes.len())];
        while let Some((from, to)) = left.pop() {
            if from == to {
                continue;
            }
            let before = object.as_ref().unwrap_or(self);
            let refusal = match before.with(&changes[from..to]) {
                Ok(next) => match next.view() {
                    Ok(shown) => {
                        (object, view) = (Some(next), Some(shown));
                        continue;
                    }
                    Err(error) => Refusal { at: None, error },
                },
                Err(refusal) => refusal,
            };
            if to - from == 1 {
                refused.push((from, refusal.error));
                continue;
            }
            // Where it does not show which one it was, the half that has it is looked for.
            let at = from + refusal.at.unwrap_or((to - from) / 2).max(1);
            left.extend([(at, to), (from, at)]);
        }
        let view = view.map_or_else(|| self.view(), Ok)?;
        Ok(Taken { object: object.unwrap_or_else(|| self.clone()), view, refused })
    }

    /// Where the elements of its lists are, found out once.
    pub(super) fn elements(&self) -> &Elements {
        self.elements.get_or_init(|| Arc::new(Elements::of(&self.doc)))
    }

    fn take_in(&self, changes: &[Incoming<'_>]) -> Result<Self, Refusal> {
        let mut past = Past::new(self);
        let mut new: Vec<(usize, &Incoming<'_>)> = Vec::new();
        let mut ops = 0;
        for (at, incoming) in changes.iter().enumerate() {
            let mut check = || {
                let change = Change::read(incoming.change, incoming.hash, incoming.actor)?;
                if past.has(incoming.hash) || self.has(incoming.hash) {
                    return Ok(false);
                }
                ops += change.ops.len();
                if ops > OPS_MAX {
                    return Err(DocumentError::TooManyOps { limit: OPS_MAX });
                }
                schema::check(&change)?;
                past.add(incoming.hash, change)?;
                Ok(true)
            };
            match check() {
                Ok(true) => new.push((at, incoming)),
                Ok(false) => {}
                Err(error) => return Err(Refusal { at: Some(at), error }),
            }
        }
        if new.is_empty() {
            return Ok(self.clone());
        }
        let mut parsed = Vec::with_capacity(new.len());
        for (at, incoming) in &new {
            let change = automerge::Change::try_from(incoming.change);
            let error = DocumentError::Undecodable("automerge cannot read it");
            parsed.push(change.map_err(|_| Refusal { at: Some(*at), error })?);
        }
        let mut doc = self.doc.clone();
        let applied = doc.apply_changes(parsed).map_err(refused);
        applied.map_err(|error| Refusal { at: None, error })?;
        for (at, incoming) in &new {
            // Whatever else Automerge might make of it: it must give the bytes back.
            let stored = doc.get_change_by_hash(&Hash(incoming.hash.0));
            if stored.is_none_or(|stored| stored.raw_bytes() != incoming.change) {
                return Err(Refusal { at: Some(*at), error: DocumentError::Unfaithful });
            }
        }
        let bytes: usize = new.iter().map(|(_, incoming)| incoming.change.len()).sum();
        let mut elements = self.elements.clone();
        if let Some(elements) = elements.get_mut() {
            past.members().for_each(|change| Arc::make_mut(elements).add(change));
        }
        Ok(Self { doc, bytes: self.bytes + bytes, elements })
    }
}

/// The changes that a change follows directly, of which an object does not start by itself; `None`
/// if its bytes cannot be read so far.
pub(crate) fn deps(change: &[u8]) -> Option<Vec<ChangeHash>> {
    let mut deps = chunk::deps(change)?;
    deps.retain(|dep| *dep != super::skeleton().hash);
    Some(deps)
}
