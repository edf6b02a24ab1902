//! Taking in entries from a peer: every check before the first write, then durable, then applied.

use super::step::Step;
use super::{DEVICE_JOURNALS_MAX, Open, REVOKED_JOURNALS_MAX, Store};
use crate::bug::{self, Bug};
use crate::error::{ReceiveError, StoreError};
use crate::ids::{Author, MeshId, WallMillis};
use crate::journal::{Body, Entry};
use crate::lane::{LaneId, Replication};
use crate::policy::is_confined;
use crate::tables::{self, EvidenceRow};

/// Consecutive entries of one journal, as a peer sent them.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The lane.
    pub lane: LaneId,
    /// Whose journal.
    pub author: Author,
    /// Entry bytes; see [`crate::journal`].
    pub entries: Vec<&'a [u8]>,
}

/// What a run brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Entries that were new.
    pub entries: u64,
    /// Items of them.
    pub items: u64,
    /// The last entry of the run, new or not.
    pub last: u64,
    /// New entries that wait for others.
    pub waiting: u64,
}

impl Store {
    /// Checks a run, keeps what is new of it, and applies what is ready, as far as one call may
    /// work; [`Store::advance`] goes on with the rest.
    ///
    /// `meshes` are those in which the author may have written. The signature of the last entry
    /// vouches, through the chain, for all before it. A refused run leaves the store as it was,
    /// but for the evidence of an equivocation. Of one device at most [`DEVICE_JOURNALS_MAX`]
    /// journals are taken in.
    pub fn receive(
        &mut self,
        run: &Run<'_>,
        meshes: &[MeshId],
        now: WallMillis,
    ) -> Result<Received, ReceiveError> {
        self.take(run, meshes, now, DEVICE_JOURNALS_MAX)
    }

    /// As [`Store::receive`], for a run of a revoked device that members testify to: at most
    /// [`REVOKED_JOURNALS_MAX`] journals are taken in, since other members may have kept other ones.
    pub fn receive_of_revoked(
        &mut self,
        run: &Run<'_>,
        meshes: &[MeshId],
        now: WallMillis,
    ) -> Result<Received, ReceiveError> {
        self.take(run, meshes, now, REVOKED_JOURNALS_MAX)
    }

    fn take(
        &mut self,
        run: &Run<'_>,
        meshes: &[MeshId],
        now: WallMillis,
        journals_max: usize,
    ) -> Result<Received, ReceiveError> {
        let mut entries = Vec::with_capacity(run.entries.len());
        for bytes in &run.entries {
            entries.push(Entry::read(bytes)?);
        }
        let Some(last) = entries.last() else { return Ok(Received::default()) };
        check_run(run, &entries, meshes)?;
        let last_seq = last.header.seq;
        let journal = self.journal(run.lane, &run.author).copied();
        if journal.is_some_and(|row| row.forked) {
            return Err(ReceiveError::Quarantined);
        }
        let unsigned = || !last.verify_signature() && !bug::active(Bug::SkipSignature);
        let device = run.author.device;
        if journal.is_none() && self.device_journals(run.lane, device) >= journals_max {
            // Before a gap is looked for: what is refused is not asked for from its beginning.
            return Err(match unsigned() {
                true => crate::journal::EntryError::Signature { seq: last_seq }.into(),
                false => {
                    ReceiveError::TooManyJournals { device, lane: run.lane, max: journals_max }
                }
            });
        }
        let held = journal.map_or(0, |row| row.held);
        let first_seq = entries[0].header.seq;
        if first_seq > held + 1 {
            return Err(ReceiveError::Gap { expected: held + 1, found: first_seq });
        }
        self.check_overlap(run, &entries, held, now)?;
        let new = &entries[(held + 1 - first_seq).min(entries.len() as u64) as usize..];
        let Some(first_new) = new.first() else {
            return Ok(Received { last: last_seq, ..Received::default() });
        };
        if unsigned() {
            return Err(crate::journal::EntryError::Signature { seq: last_seq }.into());
        }
        if journal.is_some_and(|row| row.held > 0 && first_new.header.prev != row.held_hash) {
            // The run starts after our last entry, and continues another one: a fork before it.
            return Err(ReceiveError::OtherHistory { seq: held + 1 });
        }
        for entry in new.iter().filter(|_| !bug::active(Bug::SkipBodies)) {
            entry.check_bodies()?;
            check_presence(entry)?;
        }
        let raw = &run.entries[entries.len() - new.len()..];
        let kept = new.len() - usize::from(bug::active(Bug::DropLastOfRun) && new.len() > 1);
        let new = &new[..kept];
        let received = self.keep(run, new, raw, now)?;
        Ok(Received { last: last_seq, ..received })
    }

    fn keep(
        &mut self,
        run: &Run<'_>,
        new: &[Entry<'_>],
        raw: &[&[u8]],
        now: WallMillis,
    ) -> Result<Received, StoreError> {
        self.with_turn(|store, turn| {
            let number = store.author_number(turn, run.author)?;
            let mut received = Received::default();
            {
                let mut open = Open::new(turn)?;
                let mut step = Step::new(run.lane, now);
                store.begin_call();
                for (entry, bytes) in new.iter().zip(raw) {
                    let mut row = store.journal_row(run.lane, number);
                    let caught_up = row.applied == row.held;
                    let key = tables::entry_key(run.lane, number, entry.header.seq);
                    tables::insert(&mut open.entries, tables::ENTRIES, &key, bytes)?;
                    row.held = entry.header.seq;
                    row.held_hash = entry.hash;
                    row.bytes += bytes.len() as u64;
                    if caught_up {
                        row.waiting_since = now;
                    }
                    store.set_journal_row(run.lane, number, row);
                    store.count_absent(run.lane, &entry.bodies);
                    received.entries += 1;
                    received.items += entry.header.items.len() as u64;
                    let go_on = caught_up && !store.is_tired();
                    if go_on && store.is_ready(number, &entry.header) {
                        let items = 0..entry.bodies.len() as u16;
                        store.apply_entry(turn, &mut open, &mut step, number, entry, items)?;
                    }
                }
                let applied = store.finish(&mut open, step)?.entries as u64;
                received.waiting = received.entries - applied;
            }
            Ok(received)
        })
    }

    /// Compares entries that are held already with those that came. A difference that both carry
    /// a valid signature for is kept as evidence and quarantines the journal.
    fn check_overlap(
        &mut self,
        run: &Run<'_>,
        entries: &[Entry<'_>],
        held: u64,
        now: WallMillis,
    ) -> Result<(), ReceiveError> {
        if bug::active(Bug::IgnoreFork) {
            return Ok(());
        }
        let overlap = entries.iter().take_while(|entry| entry.header.seq <= held).count();
        let Some(last_common) = overlap.checked_sub(1).map(|index| &entries[index]) else {
            return Ok(());
        };
        // Chains: when the last common entries are equal, so are all before them.
        if self.holds(run, last_common)? {
            return Ok(());
        }
        if !entries.last().is_some_and(Entry::verify_signature) {
            let seq = entries.last().map_or(0, |entry| entry.header.seq);
            return Err(crate::journal::EntryError::Signature { seq }.into());
        }
        let mut first = overlap - 1;
        for (at, entry) in entries[..overlap].iter().enumerate() {
            if !self.holds(run, entry)? {
                first = at;
                break;
            }
        }
        let seq = entries[first].header.seq;
        // On both sides, up to the first signature that vouches for where they differ.
        let mut evidence = EvidenceRow {
            lane: run.lane,
            author: run.author,
            seq,
            found_at: now,
            held: Vec::new(),
            other: Vec::new(),
        };
        for seq in seq..=held {
            let bytes = match self.held_entry(run, seq) {
                // What rotted vouches for nothing; the other history is evidence enough to stop.
                Err(StoreError::Damaged { .. }) => break,
                bytes => bytes?,
            };
            let Some(bytes) = bytes else { break };
            evidence.held.push(bare(&bytes));
            if Entry::read(&bytes).is_ok_and(|entry| entry.verify_signature()) {
                break;
            }
        }
        for entry in &entries[first..] {
            evidence.other.push(bare(&entry.write()));
            if entry.verify_signature() {
                break;
            }
        }
        self.quarantine_journal(evidence)?;
        Err(ReceiveError::Equivocation { seq })
    }

    /// Whether this very entry is the one that is held in its place.
    fn holds(&self, run: &Run<'_>, entry: &Entry<'_>) -> Result<bool, StoreError> {
        let mine = match self.held_entry(run, entry.header.seq) {
            // What cannot be compared accuses nobody; what follows must continue what is held anyway.
            Err(StoreError::Damaged { .. }) => return Ok(true),
            mine => mine?,
        };
        Ok(mine.is_some_and(|bytes| Entry::read(&bytes).is_ok_and(|mine| mine.hash == entry.hash)))
    }

    /// An entry of the run's journal as it is held, also if it came in this very turn.
    fn held_entry(&self, run: &Run<'_>, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(number) = self.authors.number(&run.author) else { return Ok(None) };
        let key = tables::entry_key(run.lane, number, seq);
        let read = <[u8]>::to_vec;
        match &self.turn {
            Some(turn) => {
                tables::read_with(&turn.open_table(tables::ENTRIES)?, tables::ENTRIES, &key, read)
            }
            None => {
                let snapshot = self.reader().snapshot()?;
                let table = snapshot.table(tables::ENTRIES)?;
                tables::read_with(table, tables::ENTRIES, &key, read)
            }
        }
    }

    /// Keeps the evidence of two signed histories and takes nothing more from that journal.
    fn quarantine_journal(&mut self, evidence: EvidenceRow) -> Result<(), StoreError> {
        self.with_turn(|store, turn| {
            let number = store.author_number(turn, evidence.author)?;
            let mut row = store.journal_row(evidence.lane, number);
            row.forked = true;
            store.set_journal_row(evidence.lane, number, row);
            store.unpark(evidence.lane, number);
            let mut table = turn.open_table(tables::EVIDENCE)?;
            let next = redb::ReadableTable::last(&table)?
                .and_then(|(key, _)| Some(u64::from_be_bytes(key.value().try_into().ok()?) + 1))
                .unwrap_or(0);
            tables::insert_row(&mut table, tables::EVIDENCE, &next.to_be_bytes(), &evidence)?;
            store.forks.add(number, next, &evidence);
            Ok(())
        })
    }
}

/// An entry with its bodies left out: enough to prove what was signed.
fn bare(bytes: &[u8]) -> Vec<u8> {
    match Entry::read(bytes) {
        Ok(entry) => {
            super::entries::without_bodies(&entry, |_| Some(crate::journal::Body::Missing))
        }
        Err(_) => bytes.to_vec(),
    }
}

/// Refuses an entry without a body that policy keeps from no member.
fn check_presence(entry: &Entry<'_>) -> Result<(), ReceiveError> {
    let header = &entry.header;
    if header.lane.definition().replication != Replication::Members {
        return Ok(());
    }
    for (item, body) in header.items.iter().zip(&entry.bodies) {
        let class = header.classes.get(usize::from(item.class)).map_or("", String::as_str);
        let may_be_withheld = item.confined || is_confined(class);
        if !may_be_withheld && !matches!(body, Body::Here(_)) {
            return Err(ReceiveError::BodyLeftOut { seq: header.seq });
        }
    }
    Ok(())
}

/// Checks that the entries are one chain of the journal that the run names.
fn check_run(run: &Run<'_>, entries: &[Entry<'_>], meshes: &[MeshId]) -> Result<(), ReceiveError> {
    for (index, entry) in entries.iter().enumerate() {
        let header = &entry.header;
        let seq = header.seq;
        if header.lane != run.lane || header.author != run.author {
            return Err(ReceiveError::OtherJournal { seq });
        }
        if !meshes.contains(&header.mesh) {
            return Err(ReceiveError::OtherMesh { seq });
        }
        let Some(before) = index.checked_sub(1).map(|index| &entries[index]) else { continue };
        if seq != before.header.seq + 1 || header.prev != before.hash {
            return Err(crate::journal::EntryError::Chain { seq }.into());
        }
    }
    Ok(())
}
