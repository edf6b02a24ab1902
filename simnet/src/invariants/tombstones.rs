//! What a node once showed as deleted it never shows again, under the same life.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::ids::WallMillis;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{AppliedOp, ShownObject, Store, Visibility};

use super::{Checked, durable, look, snapshot, unreadable, violated};

/// The invariant's name.
pub const NAME: &str = "tombstone.no_resurrection";

/// Changes of the feed that one look reads.
const FEED_ROWS: usize = 500;

/// What each node showed and hid.
#[derive(Debug, Default)]
pub struct NoResurrection {
    /// The latest life that a node showed, and those that it knew to be deleted.
    lives: BTreeMap<(usize, LaneId, String), (u32, BTreeSet<u32>)>,
    /// How far a node's feed was followed.
    cursors: BTreeMap<usize, (u64, u32)>,
    /// Nodes of whose feed there was more than one look reads, perhaps of the last row.
    cut: BTreeSet<usize>,
}

impl NoResurrection {
    /// A look at all that a node shows.
    pub fn on_look(
        &mut self,
        node: usize,
        store: &Store,
        known: &BTreeSet<(LaneId, String)>,
    ) -> Checked {
        let snapshot = snapshot(node, store)?;
        for (lane, id) in known {
            self.saw(node, *lane, id, look(node, &snapshot, *lane, id)?)?;
        }
        Ok(())
    }

    /// A look at what a node's last commits changed.
    pub fn on_commit(&mut self, node: usize, store: &Store) -> Checked {
        let cursor = self.cursors.get(&node).copied();
        let seen = cursor.map_or(0, |(row, _)| row + 1) >= store.feed_next();
        if seen && !self.cut.contains(&node) {
            return Ok(());
        }
        let snapshot = snapshot(node, store)?;
        let fed = snapshot.feed(cursor, FEED_ROWS, WallMillis(0));
        let fed = fed.map_err(|error| unreadable(node, &error))?;
        if fed.len() < FEED_ROWS {
            self.cut.remove(&node);
        } else {
            self.cut.insert(node);
        }
        // What the feed shows of an object is what the same snapshot shows of it: read once.
        let mut touched: BTreeMap<(LaneId, &str), Option<&ShownObject>> = BTreeMap::new();
        for fed in fed.iter().filter(|fed| fed.lane != LaneId::Tombstone) {
            let shown = touched.entry((fed.lane, &fed.id)).or_default();
            *shown = shown.or(fed.object.as_ref());
        }
        if let Some(last) = fed.last() {
            self.cursors.insert(node, last.cursor);
        }
        for fed in fed.iter().filter(|fed| fed.op == AppliedOp::Delete) {
            let (_, gone) = self.lives.entry((node, fed.lane, fed.id.clone())).or_default();
            gone.insert(fed.life);
        }
        for ((lane, id), shown) in touched {
            let seen = match shown {
                Some(shown) => Visibility::Shown(Box::new(shown.clone())),
                None => look(node, &snapshot, lane, id)?,
            };
            self.saw(node, lane, id, seen)?;
        }
        Ok(())
    }

    /// A node lost what it had, by no fault of its own.
    pub fn on_lost(&mut self, node: usize) {
        self.lives.retain(|(of, _, _), _| *of != node);
        self.cursors.remove(&node);
        self.cut.remove(&node);
    }

    fn saw(&mut self, node: usize, lane: LaneId, id: &str, seen: Visibility) -> Checked {
        let (shown, gone) = self.lives.entry((node, lane, id.to_owned())).or_default();
        match seen {
            Visibility::Shown(object) => {
                if gone.contains(&object.life) {
                    let (life, row) = (object.life, object.row);
                    let what = format!(
                        "n{node} shows {lane} {id:?} life {life} again: {:?}, {} changes, {gone:?} are gone",
                        row.state, row.changes,
                    );
                    return violated(NAME, what);
                }
                *shown = (*shown).max(object.life);
            }
            // An id whose latest life has expired shows the deletion of an earlier one.
            Visibility::Deleted { .. } if lane.definition().ttl.is_none() => {
                gone.insert(*shown);
            }
            // Nothing but a deletion or its expiry takes away what was shown.
            Visibility::Absent if *shown > 0 && lane.definition().ttl.is_none() => {
                return violated(durable::NAME, format!("n{node} lost {lane} {id:?} life {shown}"));
            }
            Visibility::Absent | Visibility::Expired | Visibility::Deleted { .. } => {}
        }
        Ok(())
    }
}
