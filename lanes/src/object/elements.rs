//! Which list or text the elements of a document lie in.
//!
//! Automerge looks for an element while it walks the one list that is written to. What it does not
//! meet there it may put elsewhere, depending on what comes along. So where an element lies is
//! known before a change that names it is handed over.

use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash as Hash};

use super::chunk::Change;
use crate::ids::ChangeHash;

/// An author of changes.
pub(super) type Actor = [u8; 16];
/// An operation: its author and its number.
pub(super) type OpId = (Actor, u64);

/// The elements that were ever inserted, deleted ones included: stretches of one author's numbers,
/// by the first, with the last and the list. Most changes add one, whatever they insert.
#[derive(Debug, Clone, Default)]
pub(super) struct Elements(BTreeMap<OpId, (u64, OpId)>);

impl Elements {
    /// Those of a document, from all of its changes.
    pub(super) fn of(doc: &Automerge) -> Self {
        let mut elements = Self::default();
        for change in doc.get_changes(&[] as &[Hash]) {
            let hash = ChangeHash(change.hash().0);
            let Ok(actor) = Actor::try_from(change.actor_id().to_bytes()) else { continue };
            // It was read so before it became part of the document.
            if let Ok(change) = Change::read(change.raw_bytes(), hash, actor) {
                elements.add(&change);
            }
        }
        elements
    }

    /// Adds those that a change inserts.
    pub(super) fn add(&mut self, change: &Change<'_>) {
        let id = |op: (usize, u64)| (change.actors[op.0].try_into().unwrap_or_default(), op.1);
        let author = id((0, 0)).0;
        let mut stretch: Option<(u64, u64, OpId)> = None;
        for (number, op) in (change.start_op..).zip(&change.ops) {
            let list = op.object.filter(|_| op.insert).map(id);
            stretch = match (stretch, list) {
                (Some((first, last, of)), Some(list)) if of == list && last + 1 == number => {
                    Some((first, number, of))
                }
                (before, list) => {
                    if let Some((first, last, of)) = before {
                        self.0.insert((author, first), (last, of));
                    }
                    list.map(|list| (number, number, list))
                }
            };
        }
        if let Some((first, last, of)) = stretch {
            self.0.insert((author, first), (last, of));
        }
    }

    /// The list that an operation inserted an element into; `None` if it is no such operation.
    pub(super) fn list_of(&self, op: OpId) -> Option<OpId> {
        let (_, (last, list)) = self.0.range((op.0, 0)..=op).next_back()?;
        (op.1 <= *last).then_some(*list)
    }

    /// About how many bytes of memory it takes.
    pub(super) fn size_estimate(&self) -> usize {
        self.0.len() * 96
    }
}
