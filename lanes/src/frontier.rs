//! Frontiers: how far each journal of a lane is held, and what two of them differ by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Author, DeviceId, EntryHash, Incarnation};

/// The last entry held of a journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Tip {
    /// Its place in the journal.
    pub seq: u64,
    /// Its hash.
    pub hash: EntryHash,
}

impl Tip {
    /// What stands for a quarantined journal: its author signed two histories, and more of either is
    /// not taken. Which of them is held is not said, since devices may differ in that for ever.
    pub const TWO_HISTORIES: Self = Self { seq: 0, hash: EntryHash::NONE };

    /// Whether it says that the journal has two histories.
    pub fn has_two_histories(&self) -> bool {
        self.seq == 0
    }
}

/// How far each journal of one lane is held. A journal that is not named is not held at all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Frontier(pub BTreeMap<Author, Tip>);

/// How one frontier stands to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Difference {
    /// Entries that the other has and this one lacks.
    pub missing_here: u64,
    /// Entries that this one has and the other lacks.
    pub missing_there: u64,
    /// Journals whose last common entry is known to differ, or of which one side alone says that there
    /// are two histories.
    pub forked: u64,
}

impl Frontier {
    /// The sequence number up to which a journal is held, 0 when it is not.
    pub fn seq(&self, author: &Author) -> u64 {
        self.0.get(author).map_or(0, |tip| tip.seq)
    }

    /// The journals of one device.
    pub fn of_device(&self, device: DeviceId) -> impl DoubleEndedIterator<Item = (&Author, &Tip)> {
        let author = |n| Author { device, incarnation: Incarnation(n) };
        self.0.range(author(0)..=author(u64::MAX))
    }

    /// Takes the further of both tips for each journal; that it has two histories is the last word.
    pub fn join(&mut self, other: &Self) {
        for (author, tip) in &other.0 {
            let mine = self.0.entry(*author).or_insert(*tip);
            if tip.has_two_histories() || (tip.seq > mine.seq && !mine.has_two_histories()) {
                *mine = *tip;
            }
        }
    }

    /// What the two differ by. Equal sequence numbers with unequal hashes are a fork.
    pub fn difference(&self, other: &Self) -> Difference {
        let mut difference = Difference::default();
        // The usual case, and much cheaper than looking up each.
        if self == other {
            return difference;
        }
        for (author, tip) in &self.0 {
            match other.0.get(author) {
                Some(theirs) if theirs.seq == tip.seq => {
                    difference.forked += u64::from(theirs.hash != tip.hash);
                }
                theirs if tip.has_two_histories() || theirs.is_some_and(Tip::has_two_histories) => {
                    difference.forked += 1;
                }
                theirs => {
                    let theirs = theirs.map_or(0, |tip| tip.seq);
                    let (there, here) =
                        (&mut difference.missing_there, &mut difference.missing_here);
                    *there = there.saturating_add(tip.seq.saturating_sub(theirs));
                    *here = here.saturating_add(theirs.saturating_sub(tip.seq));
                }
            }
        }
        for (_, tip) in other.0.iter().filter(|(author, _)| !self.0.contains_key(author)) {
            difference.forked += u64::from(tip.has_two_histories());
            // A peer may say any number: a sum that wraps could say that nothing is missing.
            difference.missing_here = difference.missing_here.saturating_add(tip.seq);
        }
        difference
    }

    /// A hash of the whole frontier; equal exactly when the frontiers are.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"srcos frontier 1\0");
        for (author, tip) in &self.0 {
            hasher.update(&author.device.0);
            hasher.update(&author.incarnation.0.to_be_bytes());
            hasher.update(&tip.seq.to_be_bytes());
            hasher.update(&tip.hash.0);
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From 0 on, some journals have two histories.
    fn frontier(from: u64) -> impl Strategy<Value = Frontier> {
        proptest::collection::btree_map(0u8..4, from..6, 0..4).prop_map(|map| {
            let tips = map.into_iter().map(|(device, seq)| {
                let author = Author { device: DeviceId([device; 32]), incarnation: Incarnation(0) };
                // One history: the hash follows from author and place.
                let tip = Tip { seq, hash: EntryHash([device ^ seq as u8; 32]) };
                (author, if seq == 0 { Tip::TWO_HISTORIES } else { tip })
            });
            Frontier(tips.collect())
        })
    }

    fn join(a: &Frontier, b: &Frontier) -> Frontier {
        let mut joined = a.clone();
        joined.join(b);
        joined
    }

    proptest! {
        #[test]
        fn join_is_a_semilattice(a in frontier(0), b in frontier(0), c in frontier(0)) {
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&a, &a), a.clone());
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        }

        #[test]
        fn difference_is_what_join_adds(a in frontier(1), b in frontier(1)) {
            let sum = |f: &Frontier| f.0.values().map(|tip| tip.seq).sum::<u64>();
            let joined = sum(&join(&a, &b));
            let difference = a.difference(&b);
            prop_assert_eq!(difference.missing_here, joined - sum(&a));
            prop_assert_eq!(difference.missing_there, joined - sum(&b));
            prop_assert_eq!(difference.forked, 0);
        }

        #[test]
        fn digests_are_equal_exactly_when_frontiers_are(a in frontier(0), b in frontier(0)) {
            prop_assert_eq!(a.digest() == b.digest(), a == b);
        }
    }

    #[test]
    fn numbers_that_a_liar_says_do_not_wrap() {
        let author = |n| Author { device: DeviceId([n; 32]), incarnation: Incarnation(0) };
        let tip = Tip { seq: u64::MAX, hash: EntryHash([1; 32]) };
        let theirs = Frontier([(author(1), tip), (author(2), tip)].into());
        assert_eq!(Frontier::default().difference(&theirs).missing_here, u64::MAX);
        assert_eq!(theirs.difference(&Frontier::default()).missing_there, u64::MAX);
    }

    #[test]
    fn same_place_with_another_hash_is_a_fork() {
        let author = Author { device: DeviceId([1; 32]), incarnation: Incarnation(0) };
        let at = |hash| Frontier([(author, Tip { seq: 3, hash: EntryHash([hash; 32]) })].into());
        assert_eq!(at(1).difference(&at(2)).forked, 1);
        assert_eq!(at(1).difference(&at(1)), Difference::default());
    }

    #[test]
    fn two_histories_that_one_side_alone_knows_of_are_a_difference_and_no_missing_entries() {
        let author = Author { device: DeviceId([1; 32]), incarnation: Incarnation(0) };
        let knows = Frontier([(author, Tip::TWO_HISTORIES)].into());
        let does_not = Frontier([(author, Tip { seq: 3, hash: EntryHash([1; 32]) })].into());
        let only = Difference { forked: 1, ..Difference::default() };
        for other in [does_not, Frontier::default()] {
            assert_eq!((knows.difference(&other), other.difference(&knows)), (only, only));
        }
        assert_eq!(knows.difference(&knows.clone()), Difference::default());
    }
}
