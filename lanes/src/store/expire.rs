//! The end of objects that have a time to live: row, document and bodies go, headers stay.

use redb::ReadableTable;

use super::entries::{read_stored, without_bodies};
use super::{Open, Store};
use crate::error::StoreError;
use crate::ids::WallMillis;
use crate::journal::Body;
use crate::lane::LaneId;
use crate::tables::{self, FeedRow, Loc, ObjectRow};

impl Store {
    /// When the next object expires.
    pub fn next_expiry(&self) -> Result<Option<WallMillis>, StoreError> {
        self.reader().snapshot()?.next_expiry()
    }

    /// Removes objects whose time has come, at most `limit`. Returns how many it removed.
    pub fn expire(&mut self, now: WallMillis, limit: usize) -> Result<usize, StoreError> {
        self.with_turn(|store, turn| {
            let mut open = Open::new(turn)?;
            let mut due = Vec::new();
            for row in open.expiry.range::<&[u8]>(..=now.0.to_be_bytes().as_slice())?.take(limit) {
                due.push(row?.0.value().to_vec());
            }
            // The bound above has no object behind the time, so it leaves out what is due right now.
            let exactly = now.0.to_be_bytes();
            for row in open.expiry.range::<&[u8]>(exactly.as_slice()..)?.take(limit) {
                let key = row?.0.value().to_vec();
                if !key.starts_with(&exactly) || due.len() >= limit {
                    break;
                }
                due.push(key);
            }
            let mut removed = 0;
            for key in due {
                open.expiry.remove(key.as_slice())?;
                removed += usize::from(store.expire_one(&mut open, &key, now)?);
            }
            Ok(removed)
        })
    }

    fn expire_one(
        &mut self,
        open: &mut Open<'_>,
        expiry: &[u8],
        now: WallMillis,
    ) -> Result<bool, StoreError> {
        let Some(key) = expiry.get(8..) else { return Ok(false) };
        let row: Option<ObjectRow> =
            unless_damaged(tables::read_row(&open.objects, tables::OBJECTS, key))?;
        // An object that was put again lives until its later time.
        let Some(row) = row.filter(|row| row.expires_at.is_some_and(|at| at <= now)) else {
            return Ok(false);
        };
        let Some((lane, id, life)) = tables::split_object_key(key) else { return Ok(false) };
        for n in 1..=row.changes {
            let tail = tables::tail_key(key, n);
            let loc: Option<Loc> = if n == 1 {
                Some(row.first)
            } else {
                unless_damaged(tables::read_row(&open.tails, tables::TAILS, &tail))?
            };
            if let Some(loc) = loc {
                if unless_damaged(purge_body(open, lane, loc).map(Some))?.is_some() {
                    self.count_absent(lane, &[Body::Purged]);
                }
            }
            open.tails.remove(tail.as_slice())?;
        }
        open.documents.remove(key)?;
        self.documents.take(key);
        self.uncount(open, key, &row)?;
        open.objects.remove(key)?;
        let fed = FeedRow::Expired { lane, id: id.to_owned(), life };
        self.feed(open, &fed)?;
        Ok(true)
    }
}

/// What is damaged cannot be removed by what it says, and is no reason to keep all else for longer.
fn unless_damaged<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Damaged { .. }) => Ok(None),
        other => other,
    }
}

/// Removes one body from its entry; the header and the chain stay as they are.
fn purge_body(open: &mut Open<'_>, lane: LaneId, loc: Loc) -> Result<(), StoreError> {
    let key = tables::entry_key(lane, loc.author, loc.seq);
    let Some(bytes) = tables::read_with(&open.entries, tables::ENTRIES, &key, <[u8]>::to_vec)?
    else {
        return Ok(());
    };
    let entry = read_stored(&key, &bytes)?;
    let purged =
        without_bodies(&entry, |index| (index == usize::from(loc.item)).then_some(Body::Purged));
    tables::insert(&mut open.entries, tables::ENTRIES, &key, &purged)
}
