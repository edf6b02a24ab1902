//! The changes of a document, and which of them lie in a past.

use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash as Hash};

use super::chunk::Change;
use super::elements::{Actor, OpId};

/// Every change of a document with those that it follows. Each is added after those.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    changes: Vec<Node>,
    numbers: BTreeMap<Hash, u32>,
    authors: Vec<Actor>,
    author_numbers: BTreeMap<Actor, u32>,
    /// The last operation of each author.
    last_ops: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Node {
    author: u32,
    last_op: u64,
    follows: Box<[u32]>,
}

/// What of a document is not in a past: the later changes of some authors, since those of one
/// author follow one another.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// By author, the last operation in the past and the last of all. Only of those that differ.
    later: BTreeMap<Actor, (u64, u64)>,
}

impl Apart {
    /// Whether an operation of the document is not in the past.
    pub(super) fn has(&self, (author, number): OpId) -> bool {
        self.later.get(&author).is_some_and(|(past, last)| (past + 1..=*last).contains(&number))
    }

    /// Whether an author has changes that are not in the past.
    pub(super) fn has_any_of(&self, author: &Actor) -> bool {
        self.later.contains_key(author)
    }
}

impl Graph {
    /// That of a document.
    pub(super) fn of(doc: &Automerge) -> Self {
        let mut graph = Self::default();
        let mut changes = doc.get_changes_meta(&[]);
        // Each is numbered after those that it follows.
        changes.sort_by_key(|change| change.max_op);
        for change in changes {
            // A document's actors are 16 bytes long; see `Object::load`.
            let Ok(author) = Actor::try_from(change.actor.to_bytes()) else { continue };
            graph.push(change.hash, author, change.max_op, &change.deps);
        }
        graph
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Adds a change that follows changes which are there.
    pub(super) fn add(&mut self, hash: Hash, change: &Change<'_>) {
        let deps: Vec<Hash> = change.deps.iter().map(|dep| Hash(dep.0)).collect();
        let author = change.actors[0].try_into().unwrap_or_default();
        self.push(hash, author, change.last_op(), &deps);
    }

    fn push(&mut self, hash: Hash, author: Actor, last_op: u64, deps: &[Hash]) {
        let author = *self.author_numbers.entry(author).or_insert_with(|| {
            self.authors.push(author);
            self.last_ops.push(0);
            self.authors.len() as u32 - 1
        });
        let last = &mut self.last_ops[author as usize];
        *last = (*last).max(last_op);
        let follows = deps.iter().filter_map(|dep| self.numbers.get(dep).copied()).collect();
        self.numbers.insert(hash, self.changes.len() as u32);
        self.changes.push(Node { author, last_op, follows });
    }

    /// What is not in the past of these changes, them included.
    pub(super) fn apart(&self, changes: &[Hash]) -> Apart {
        let mut past = vec![0; self.authors.len()];
        let mut seen = vec![false; self.changes.len()];
        let mut left: Vec<u32> =
            changes.iter().filter_map(|change| self.numbers.get(change).copied()).collect();
        while let Some(number) = left.pop() {
            let at = number as usize;
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let Node { author, last_op, follows } = &self.changes[at];
            let furthest: &mut u64 = &mut past[*author as usize];
            *furthest = (*furthest).max(*last_op);
            left.extend(follows.iter().filter(|number| !seen[**number as usize]));
        }
        let all = self.authors.iter().zip(past.into_iter().zip(self.last_ops.iter().copied()));
        let later = all.filter(|(_, (past, last))| past < last);
        Apart { later: later.map(|(author, ops)| (*author, ops)).collect() }
    }

    /// About how many bytes of memory it takes.
    pub(super) fn size_estimate(&self) -> usize {
        self.changes.len() * 160 + self.authors.len() * 96
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Object;
    use super::super::tests::past::{history, steps, takes};
    use super::*;

    const AUTHORS: [Actor; 3] = [[1; 16], [2; 16], [3; 16]];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_lies_apart_is_what_automerge_says(
            steps in steps(),
            named in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
            known in any::<prop::sample::Index>(),
        ) {
            let changes = history(&steps, AUTHORS);
            prop_assume!(!changes.is_empty());
            // A part first, so that the rest is added to a graph that is there.
            let all: Vec<_> = changes.iter().collect();
            let (early, late) = all.split_at(known.index(all.len()));
            let object = takes(&Object::new(), early).unwrap();
            object.graph();
            let object = takes(&object, late).unwrap();
            let loaded = Object::load(&object.save()).unwrap();
            let base: Vec<Hash> =
                named.iter().map(|at| Hash(changes[at.index(changes.len())].change.hash.0)).collect();
            let expected = object.doc.get_changes_meta(&base);
            for object in [&object, &loaded] {
                prop_assert_eq!(object.graph().len(), all.len() + 1);
                let apart = object.graph().apart(&base);
                for change in object.doc.get_changes_meta(&[]) {
                    let author = Actor::try_from(change.actor.to_bytes()).unwrap();
                    let is_apart = expected.iter().any(|other| other.hash == change.hash);
                    for number in [change.start_op, change.max_op] {
                        prop_assert_eq!(apart.has((author, number)), is_apart);
                    }
                }
                for author in AUTHORS {
                    let any = expected.iter().any(|change| change.actor.to_bytes() == author);
                    prop_assert_eq!(apart.has_any_of(&author), any);
                }
            }
        }
    }
}
