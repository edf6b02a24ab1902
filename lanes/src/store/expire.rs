//! The end of objects that have a time to live: row, document and bodies go, headers stay.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use super::apply::ITEM_WORK_BYTES;
use super::entries::{read_stored, without_bodies};
use super::{Open, Store};
use crate::error::StoreError;
use crate::ids::WallMillis;
use crate::journal::Body;
use crate::lane::LaneId;
use crate::tables::{self, FeedRow, Loc, ObjectRow};

/// Bodies to remove, by entry: an entry is written anew once, however many of its bodies go.
type Purge = BTreeMap<(LaneId, u32, u64), BTreeSet<u16>>;

/// How far one object has come.
enum Ended {
    /// Nothing of it is left.
    Removed,
    /// It lives on, by a later time.
    Kept,
    /// The call has worked enough; the rest of its changes are for another.
    Later,
}

impl Store {
    /// When the next object expires, as the open turn leaves it.
    pub fn next_expiry(&self) -> Result<Option<WallMillis>, StoreError> {
        let Some(turn) = &self.turn else { return self.reader().snapshot()?.next_expiry() };
        let table = turn.open_table(tables::EXPIRY)?;
        let first = table.first()?;
        Ok(first.and_then(|(key, _)| time_of(key.value())))
    }

    /// Removes objects whose time has come, at most `limit`, and as far as one call may work; what is
    /// left is for the next. Returns how many it removed.
    pub fn expire(&mut self, now: WallMillis, limit: usize) -> Result<usize, StoreError> {
        self.with_turn(|store, turn| {
            let mut open = Open::new(turn)?;
            store.begin_call();
            let end = now.0.saturating_add(1).to_be_bytes();
            let mut due = Vec::new();
            for row in open.expiry.range::<&[u8]>(..end.as_slice())?.take(limit) {
                due.push(row?.0.value().to_vec());
            }
            let (mut purge, mut removed) = (Purge::new(), 0);
            for key in due {
                match store.expire_one(&mut open, &key, now, &mut purge)? {
                    Ended::Removed => removed += 1,
                    Ended::Kept => {}
                    Ended::Later => break,
                }
                open.expiry.remove(key.as_slice())?;
            }
            store.purge(&mut open, &purge)?;
            Ok(removed)
        })
    }

    fn expire_one(
        &mut self,
        open: &mut Open<'_>,
        expiry: &[u8],
        now: WallMillis,
        purge: &mut Purge,
    ) -> Result<Ended, StoreError> {
        // Each call brings it further, so that it comes to an end.
        if self.is_tired() && !purge.is_empty() {
            return Ok(Ended::Later);
        }
        let Some(key) = expiry.get(8..) else { return Ok(Ended::Kept) };
        let Some((lane, id, life)) = tables::split_object_key(key) else { return Ok(Ended::Kept) };
        let row: Option<ObjectRow> = match tables::read_row(&open.objects, tables::OBJECTS, key) {
            // An object that was put again lives until its later time.
            Ok(row) => {
                match row.filter(|row: &ObjectRow| row.expires_at.is_some_and(|at| at <= now)) {
                    Some(row) => Some(row),
                    None => return Ok(Ended::Kept),
                }
            }
            // What cannot be read is of no use until a later time either.
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        self.work(ITEM_WORK_BYTES);
        // Nothing is written on top of what is gone in part: from here on it cannot be built.
        self.documents.take(key);
        open.documents.remove(key)?;
        let mut gone = Vec::new();
        let mut later = false;
        let (first, last) = (tables::tail_key(key, 0), tables::tail_key(key, u32::MAX));
        for tail in open.tails.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
            let (tail, value) = tail?;
            if self.is_tired() && !purge.is_empty() {
                later = true;
                break;
            }
            let loc = tables::unseal(tables::TAILS, tail.value(), value.value())
                .and_then(|bytes| tables::decode(tables::TAILS, tail.value(), bytes));
            // What is damaged cannot be removed by what it says, and is no reason to keep the rest.
            if let Ok(loc) = loc {
                self.note_purge(open, lane, loc, purge)?;
            }
            gone.push(tail.value().to_vec());
        }
        for tail in gone {
            open.tails.remove(tail.as_slice())?;
        }
        if later {
            return Ok(Ended::Later);
        }
        if let Some(row) = &row {
            self.note_purge(open, lane, row.first, purge)?;
        }
        self.uncount(open, key, row.as_ref())?;
        open.objects.remove(key)?;
        self.feed(open, &FeedRow::Expired { lane, id: id.to_owned(), life })?;
        Ok(Ended::Removed)
    }

    /// Notes a body that is to be removed.
    fn note_purge(
        &mut self,
        open: &Open<'_>,
        lane: LaneId,
        loc: Loc,
        purge: &mut Purge,
    ) -> Result<(), StoreError> {
        let items = purge.entry((lane, loc.author, loc.seq)).or_default();
        if items.is_empty() {
            let key = tables::entry_key(lane, loc.author, loc.seq);
            let entry = open.entries.get(key.as_slice())?;
            self.work(entry.map_or(0, |entry| entry.value().len()));
        }
        items.insert(loc.item);
        self.work(ITEM_WORK_BYTES);
        Ok(())
    }

    /// Removes bodies from their entries; the headers and the chains stay as they are.
    fn purge(&mut self, open: &mut Open<'_>, purge: &Purge) -> Result<(), StoreError> {
        for ((lane, author, seq), items) in purge {
            let key = tables::entry_key(*lane, *author, *seq);
            let bytes = tables::read_with(&open.entries, tables::ENTRIES, &key, <[u8]>::to_vec);
            let bytes = match bytes {
                Ok(Some(bytes)) => bytes,
                Ok(None) | Err(StoreError::Damaged { .. }) => continue,
                Err(error) => return Err(error),
            };
            let Ok(entry) = read_stored(&key, &bytes) else { continue };
            let goes = |at: usize| {
                let here = matches!(entry.bodies.get(at), Some(Body::Here(_)));
                here && u16::try_from(at).is_ok_and(|at| items.contains(&at))
            };
            let purged = without_bodies(&entry, |at| goes(at).then_some(Body::Purged));
            tables::insert(&mut open.entries, tables::ENTRIES, &key, &purged)?;
            let count = (0..entry.bodies.len()).filter(|at| goes(*at)).count();
            self.count_absent(*lane, &vec![Body::Purged; count]);
            let mut row = self.journal_row(*lane, *author);
            row.bytes = row.bytes.saturating_sub((bytes.len() - purged.len()) as u64);
            self.set_journal_row(*lane, *author, row);
        }
        Ok(())
    }
}

/// When the object of an expiry row expires.
pub(super) fn time_of(key: &[u8]) -> Option<WallMillis> {
    Some(WallMillis(u64::from_be_bytes(*key.first_chunk::<8>()?)))
}
