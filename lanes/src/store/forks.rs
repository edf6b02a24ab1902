//! Journals with two histories: where the proof of each is kept, and from where on the two differ.
//!
//! Proofs are looked for whenever a peer names such a journal, and one may be megabytes long. So their
//! places are kept in memory, and a proof is read only to be shown.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::{Authors, Snapshot, Store};
use crate::error::StoreError;
use crate::ids::Author;
use crate::lane::LaneId;
use crate::tables::{self, EVIDENCE, EvidenceRow};

/// Where the proof of a fork is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// The number of its row.
    row: u64,
    /// The first place at which the histories differ.
    seq: u64,
}

/// The proofs that are kept, by lane and author number.
#[derive(Default, Debug)]
pub(super) struct Forks(BTreeMap<(LaneId, u32), Kept>);

impl Forks {
    /// The first proof of a journal is the one that counts.
    pub(super) fn add(&mut self, number: u32, row: u64, evidence: &EvidenceRow) {
        let kept = Kept { row, seq: evidence.seq };
        self.0.entry((evidence.lane, number)).or_insert(kept);
    }
}

impl Snapshot {
    /// Looks through all proofs. A damaged one proves nothing; its journal stays quarantined.
    pub(super) fn forks(&self, authors: &Authors) -> Result<Forks, StoreError> {
        let mut forks = Forks::default();
        for row in self.table(EVIDENCE)?.iter()? {
            let (key, value) = row?;
            let Ok(number) = key.value().try_into().map(u64::from_be_bytes) else { continue };
            let evidence = tables::unseal(EVIDENCE, key.value(), value.value())
                .and_then(|bytes| tables::decode::<EvidenceRow>(EVIDENCE, key.value(), bytes));
            let Ok(evidence) = evidence else { continue };
            if let Some(author) = authors.number(&evidence.author) {
                forks.add(author, number, &evidence);
            }
        }
        Ok(forks)
    }
}

impl Store {
    /// From where on the two histories of a journal differ, where a proof of it is kept.
    pub fn fork_seq(&self, lane: LaneId, author: &Author) -> Option<u64> {
        Some(self.forks.0.get(&(lane, self.authors.number(author)?))?.seq)
    }

    /// The proof that a journal has two histories, where one is kept and committed.
    pub fn fork(&self, lane: LaneId, author: &Author) -> Result<Option<EvidenceRow>, StoreError> {
        let number = self.authors.number(author);
        let kept = number.and_then(|number| self.forks.0.get(&(lane, number)));
        let Some(Kept { row, .. }) = kept else { return Ok(None) };
        let snapshot = self.reader().snapshot()?;
        let table = snapshot.table(EVIDENCE)?;
        tables::read_row(table, EVIDENCE, &row.to_be_bytes())
    }
}
