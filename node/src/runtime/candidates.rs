//! Who announces itself near here, bounded: all of it is hearsay, and anybody can invent more.

use std::collections::BTreeMap;

use crate::discovery::{CANDIDATES_MAX, Candidate, Tag};

#[derive(Debug, Default)]
pub(super) struct Candidates {
    by_tag: BTreeMap<Tag, Kept>,
    /// Counts up with each that is heard, so that the oldest can be found.
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    candidate: Candidate,
    member: bool,
    heard: u64,
}

impl Candidates {
    /// Keeps what was heard, and hands back what it takes the place of. That somebody is gone may go
    /// unheard, so beyond the limit the one heard longest ago goes, members last.
    pub(super) fn heard(&mut self, candidate: Candidate, member: bool) -> Option<Candidate> {
        self.clock += 1;
        if self.by_tag.len() >= CANDIDATES_MAX && !self.by_tag.contains_key(&candidate.tag) {
            let oldest = self.by_tag.iter().min_by_key(|(_, kept)| (kept.member, kept.heard));
            if let Some(tag) = oldest.map(|(tag, _)| *tag) {
                self.by_tag.remove(&tag);
            }
        }
        let tag = candidate.tag;
        let kept = Kept { candidate, member, heard: self.clock };
        self.by_tag.insert(tag, kept).map(|before| before.candidate)
    }

    pub(super) fn lost(&mut self, tag: Tag) {
        self.by_tag.remove(&tag);
    }

    /// Says anew who of them is a member.
    pub(super) fn judge(&mut self, mut is_member: impl FnMut(&Candidate) -> bool) {
        for kept in self.by_tag.values_mut() {
            kept.member = is_member(&kept.candidate);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.by_tag.values().map(|kept| &kept.candidate)
    }
}
