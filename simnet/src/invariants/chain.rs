//! Each journal that a node holds is one chain, and no two nodes hold different entries for one place of
//! it: looked at when a commit returns, entry by entry, in what was committed.

use std::collections::BTreeMap;

use srcos_lanes::frontier::Tip;
use srcos_lanes::ids::{Author, EntryHash};
use srcos_lanes::journal::Entry;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Snapshot, Store};

use super::{Checked, Excuses, Violation, peers, snapshot, unreadable, violated};

/// Bytes of entries that are read at once.
const READ_BYTES: usize = 1024 * 1024;
/// Entries that are read at once.
const READ_ENTRIES: usize = 1_000;
/// The end of a journal of which nothing is held.
const NOTHING: Tip = Tip { seq: 0, hash: EntryHash::NONE };

/// What lies where in the journals of a run.
#[derive(Debug, Default)]
pub struct Chains {
    /// How far each node's copy of each journal was followed.
    followed: BTreeMap<(usize, LaneId, Author), Tip>,
    /// The entry at each place, as the first node had it that committed it.
    entries: BTreeMap<(LaneId, Author, u64), EntryHash>,
}

impl Chains {
    /// A node's commit returned, which changed these lanes.
    pub fn on_commit(
        &mut self,
        node: usize,
        store: &Store,
        changed: &[LaneId],
        excuses: &Excuses,
    ) -> Checked {
        let mut opened = None;
        for lane in changed.iter().copied() {
            for (author, row) in store.journals(lane) {
                let from = self.followed.get(&(node, lane, author)).copied().unwrap_or(NOTHING);
                let alone = excuses.forks.contains(&author.device);
                let journal = Journal { node, lane, author, alone };
                if row.held == from.seq && row.held_hash != from.hash {
                    return journal.violated(from.seq, "is another than it was");
                }
                // That something was lost is for another checker to say.
                if row.held <= from.seq {
                    continue;
                }
                let snapshot = match &mut opened {
                    Some(snapshot) => snapshot,
                    none => none.insert(snapshot(node, store)?),
                };
                let end = self.follow(&journal, snapshot, from, row.held)?;
                if end.hash != row.held_hash {
                    return journal.violated(end.seq, "is not the one that its row names");
                }
                self.followed.insert((node, lane, author), end);
            }
        }
        Ok(())
    }

    /// A node lost what it had, by no fault of its own.
    pub fn on_lost(&mut self, node: usize) {
        self.followed.retain(|(of, _, _), _| *of != node);
    }

    fn follow(
        &mut self,
        journal: &Journal,
        snapshot: &Snapshot,
        from: Tip,
        held: u64,
    ) -> Result<Tip, Violation> {
        let Journal { node, lane, author, alone } = *journal;
        let mut at = from;
        while at.seq < held {
            let next = at.seq + 1;
            let read = snapshot.entries(lane, &author, next, READ_BYTES, READ_ENTRIES);
            let read = read.map_err(|error| unreadable(node, &error))?;
            if read.is_empty() {
                return journal.violated(next, "is not there");
            }
            for bytes in read.iter().take((held - at.seq) as usize) {
                let next = at.seq + 1;
                let Ok(entry) = Entry::read(bytes) else {
                    return journal.violated(next, "is none");
                };
                let header = &entry.header;
                if (header.lane, header.author, header.seq) != (lane, author, next) {
                    return journal.violated(next, "belongs elsewhere");
                }
                if header.prev != at.hash {
                    return journal.violated(next, "does not follow the one before it");
                }
                if !alone {
                    let known = *self.entries.entry((lane, author, next)).or_insert(entry.hash);
                    if known != entry.hash {
                        return journal
                            .violated(next, "is not the one that another node has there");
                    }
                }
                at = Tip { seq: next, hash: entry.hash };
            }
        }
        Ok(at)
    }
}

/// A node's copy of a journal.
struct Journal {
    node: usize,
    lane: LaneId,
    author: Author,
    /// Its author may have written several histories.
    alone: bool,
}

impl Journal {
    fn violated<T>(&self, seq: u64, what: &str) -> Result<T, Violation> {
        let Self { node, lane, author, .. } = self;
        let by = author.device.short();
        violated(peers::NAME, format!("entry {seq} of {lane} by {by} at n{node} {what}"))
    }
}
