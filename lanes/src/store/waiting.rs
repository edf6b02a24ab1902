//! Journals whose next entry waits: for which entry of whom.

use super::{DEVICE_JOURNALS_MAX, Snapshot};
use crate::error::StoreError;
use crate::ids::{Author, WallMillis};
use crate::journal::Entry;
use crate::lane::LaneId;

/// A journal that is held further than it is applied, and what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Whose journal.
    pub author: Author,
    /// Its first entry that is not applied.
    pub seq: u64,
    /// Since when nothing more of it was applied.
    pub since: WallMillis,
    /// The entry that must be applied before: whose, and which. `None` where the entry that waits is
    /// damaged here, so that nothing more of the journal is applied.
    pub wants: Option<(Author, u64)>,
}

impl Snapshot {
    /// The journals of a lane that wait for entries of others, longest first, at most `limit`.
    pub fn waiting(&self, lane: LaneId, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        let journals = self.journals(lane)?;
        let applied = |author: &Author, seq: u64| {
            let row = journals.iter().find(|(of, _)| of == author);
            match row {
                Some((_, row)) => row.applied >= seq || row.forked,
                // Of a device that has too many none is taken, and nothing waits for it.
                None => {
                    let same = journals.iter().filter(|(of, _)| of.device == author.device);
                    same.count() >= DEVICE_JOURNALS_MAX
                }
            }
        };
        let mut late: Vec<_> =
            journals.iter().filter(|(_, row)| row.applied < row.held && !row.forked).collect();
        late.sort_by_key(|(author, row)| (row.waiting_since, *author));
        let mut waiting = Vec::new();
        for (author, row) in late.into_iter().take(limit) {
            let seq = row.applied + 1;
            let bytes = match self.entry(lane, author, seq) {
                Ok(bytes) => bytes,
                Err(StoreError::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            let wants = match bytes.as_deref().map(Entry::read) {
                Some(Ok(Entry { header, .. })) => {
                    let late = header.after.iter().find(|after| !applied(&after.author, after.seq));
                    // One that wants nothing more is applied with the next turn.
                    let Some(after) = late else { continue };
                    Some((after.author, after.seq))
                }
                _ => None,
            };
            waiting.push(Waiting { author: *author, seq, since: row.waiting_since, wants });
        }
        Ok(waiting)
    }
}
