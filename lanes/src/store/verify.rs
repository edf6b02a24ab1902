//! Verification: what the journals say against what their hashes and signatures prove. Facts only.

use redb::TableHandle;

use super::read::parse;
use super::{Snapshot, Store};
use crate::error::StoreError;
use crate::ids::{Author, EntryHash};
use crate::journal::Body;
use crate::lane::LaneId;
use crate::tables::{self, AbsentRow, Bytes, JournalRow, ObjectRow};

/// Damaged rows of one lane that are named, at most: a broken disk may have hit all of them.
pub const DAMAGED_SHOWN_MAX: usize = 100;

/// What verification found about one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneFacts {
    /// One for each journal.
    pub journals: Vec<JournalFacts>,
    /// Rows of objects, saved documents and tombstones whose seals hold.
    pub rows: u64,
    /// Objects that have a row which is damaged, with what is wrong: the first of them.
    pub damaged: Vec<(String, String)>,
    /// How many rows are damaged.
    pub damaged_rows: u64,
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
    /// Entries whose own signature verifies, of those whose signature was checked.
    pub signed: u64,
    /// Bodies that are absent, by the stated reason.
    pub absent: AbsentRow,
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
        self.verify(lane, true)
    }

    /// As [`Snapshot::verify_lane`], but of each journal only the last signature is checked. That one
    /// vouches for all before it, so the same damage is found; [`JournalFacts::signed`] says less.
    pub fn verify_lane_by_last_signatures(&self, lane: LaneId) -> Result<LaneFacts, StoreError> {
        self.verify(lane, false)
    }

    fn verify(&self, lane: LaneId, count_signed: bool) -> Result<LaneFacts, StoreError> {
        let authors = self.authors()?;
        let mut facts = LaneFacts::default();
        for ((_, number), row) in self.journal_rows()?.range((lane, 0)..=(lane, u32::MAX)) {
            let author = authors.get(*number as usize).copied().ok_or_else(|| {
                StoreError::inconsistent("authors-1", format!("author {number} is missing"))
            })?;
            facts.journals.push(self.verify_journal(
                lane,
                author,
                *number,
                row,
                1,
                count_signed,
            )?);
        }
        self.verify_rows(lane, &mut facts)?;
        Ok(facts)
    }

    /// Reads every row that is kept of a lane's objects. Its seal shows that it is as it was written;
    /// that it was made rightly from the entries is not looked at.
    fn verify_rows(&self, lane: LaneId, facts: &mut LaneFacts) -> Result<(), StoreError> {
        for definition in [tables::OBJECTS, tables::DOCUMENTS, tables::TAILS, tables::TOMBSTONES] {
            let is = |table: Bytes| definition.name() == table.name();
            let table = self.table(definition)?;
            for row in table.range::<&[u8]>([lane.code()].as_slice()..)? {
                let (key, value) = row?;
                let key = key.value();
                if key.first() != Some(&lane.code()) {
                    break;
                }
                let whole = tables::unseal(definition, key, value.value()).and_then(|bytes| {
                    if is(tables::OBJECTS) {
                        tables::decode::<ObjectRow>(definition, key, bytes)?;
                    }
                    Ok(())
                });
                let Err(error) = whole else {
                    facts.rows += 1;
                    continue;
                };
                facts.damaged_rows += 1;
                if facts.damaged.len() < DAMAGED_SHOWN_MAX {
                    // A row of a change is under its object's key and a number.
                    let more = if is(tables::TAILS) { 4 } else { 0 };
                    let object = key.get(..key.len().saturating_sub(more)).unwrap_or(key);
                    let id = tables::split_object_key(object).map_or("", |(_, id, _)| id);
                    facts.damaged.push((id.to_owned(), error.to_string()));
                }
            }
        }
        Ok(())
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
        let absent = AbsentRow::default();
        let mut facts =
            JournalFacts { author, entries: 0, changes: 0, signed: 0, absent, damage: None };
        let table = self.table(tables::ENTRIES)?;
        let mut prev: Option<EntryHash> = (from == 1).then_some(EntryHash::NONE);
        for seq in from..=row.held {
            let last = seq == row.held;
            let key = tables::entry_key(lane, number, seq);
            let end = last.then_some(row);
            let signed = count_signed || last;
            let checked = match tables::read_with(table, tables::ENTRIES, &key, <[u8]>::to_vec) {
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
        facts.changes += u64::from(matches!(body, Body::Here(_)));
        facts.absent.add(body);
    }
    Ok(entry.hash)
}
