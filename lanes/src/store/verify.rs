//! Verification: what the journals say against what their hashes and signatures prove. Facts only.

use super::read::parse;
use super::{Snapshot, Store};
use crate::error::StoreError;
use crate::ids::{Author, EntryHash};
use crate::journal::Body;
use crate::lane::LaneId;
use crate::tables::{self, JournalRow};

/// What verification found about one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneFacts {
    /// One for each journal.
    pub journals: Vec<JournalFacts>,
}

/// What verification found about one journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalFacts {
    /// Whose it is.
    pub author: Author,
    /// Entries that were looked at.
    pub entries: u64,
    /// Changes whose bodies are here and match their headers.
    pub changes: u64,
    /// Entries whose own signature verifies.
    pub signed: u64,
    /// Bodies that are absent for a stated reason.
    pub absent: u64,
    /// The first thing that is wrong, if any; nothing after it was looked at.
    pub damage: Option<Damage>,
}

/// Something that is not as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The entry.
    pub seq: u64,
    /// What is wrong with it.
    pub what: String,
}

impl Snapshot {
    /// Verifies every entry of a lane: chain, bodies, and signatures.
    pub fn verify_lane(&self, lane: LaneId) -> Result<LaneFacts, StoreError> {
        let authors = self.authors()?;
        let mut facts = LaneFacts::default();
        for ((_, number), row) in self.journal_rows()?.range((lane, 0)..=(lane, u32::MAX)) {
            let author = authors.get(*number as usize).copied().ok_or_else(|| {
                StoreError::inconsistent("authors-1", format!("author {number} is missing"))
            })?;
            facts.journals.push(self.verify_journal(lane, author, *number, row, 1, true)?);
        }
        Ok(facts)
    }

    /// Verifies the last entries of every journal, as after an unclean stop: their chain, and the
    /// signature of the last, which vouches for all before it.
    pub(super) fn verify_tails(&self, store: &Store, entries: u64) -> Result<(), StoreError> {
        for (lane, number, row) in store.journals.iter() {
            let Some(author) = store.authors.get(number) else { continue };
            let from = row.held.saturating_sub(entries) + 1;
            let facts = self.verify_journal(lane, author, number, row, from, false)?;
            if let Some(damage) = facts.damage {
                return Err(StoreError::inconsistent(
                    format!("lane {lane}, journal of {}, entry {}", author.device, damage.seq),
                    damage.what,
                ));
            }
        }
        Ok(())
    }

    fn verify_journal(
        &self,
        lane: LaneId,
        author: Author,
        number: u32,
        row: &JournalRow,
        from: u64,
        count_signed: bool,
    ) -> Result<JournalFacts, StoreError> {
        let mut facts =
            JournalFacts { author, entries: 0, changes: 0, signed: 0, absent: 0, damage: None };
        let table = self.table(tables::ENTRIES)?;
        let mut prev: Option<EntryHash> = (from == 1).then_some(EntryHash::NONE);
        for seq in from..=row.held {
            let last = seq == row.held;
            let key = tables::entry_key(lane, number, seq);
            let end = last.then_some(row);
            let signed = count_signed || last;
            let checked = match tables::read_with(&table, tables::ENTRIES, &key, <[u8]>::to_vec) {
                Ok(Some(bytes)) => {
                    let at = Place { lane, author, seq, prev, end };
                    check_entry(at, signed, &bytes, &mut facts)
                }
                Ok(None) => Err("it is missing".to_owned()),
                Err(StoreError::Damaged { what, .. }) => Err(what),
                Err(error) => return Err(error),
            };
            match checked {
                Ok(hash) => prev = Some(hash),
                Err(what) => {
                    facts.damage = Some(Damage { seq, what });
                    return Ok(facts);
                }
            }
        }
        Ok(facts)
    }
}

/// Where an entry should be.
struct Place<'r> {
    lane: LaneId,
    author: Author,
    seq: u64,
    /// The entry before it, where that is known.
    prev: Option<EntryHash>,
    /// The journal's row, for the last one.
    end: Option<&'r JournalRow>,
}

/// Checks one entry against the one before it; for the last one, against the journal's row. Whether
/// its own signature holds is looked at only when asked for.
fn check_entry(
    at: Place<'_>,
    signed: bool,
    bytes: &[u8],
    facts: &mut JournalFacts,
) -> Result<EntryHash, String> {
    let Place { lane, author, seq, prev, end } = at;
    let entry = parse(lane, seq, bytes).map_err(|error| error.to_string())?;
    let header = &entry.header;
    if (header.lane, header.author, header.seq) != (lane, author, seq) {
        return Err("it belongs elsewhere".into());
    }
    if prev.is_some_and(|prev| header.prev != prev) {
        return Err("it does not follow the entry before it".into());
    }
    entry.check_bodies().map_err(|error| error.to_string())?;
    let signed = signed && entry.verify_signature();
    if let Some(row) = end {
        if !signed {
            return Err("the signature of the journal's last entry does not verify".into());
        }
        if entry.hash != row.held_hash {
            return Err("it is not the last entry that the journal's row names".into());
        }
    }
    facts.entries += 1;
    facts.signed += u64::from(signed);
    for body in &entry.bodies {
        match body {
            Body::Here(_) => facts.changes += 1,
            _ => facts.absent += 1,
        }
    }
    Ok(entry.hash)
}
