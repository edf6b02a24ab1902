//! Every change that is held has an author whose signature vouches for it.

use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use super::{Checked, unreadable, violated};

/// The invariant's name.
pub const NAME: &str = "provenance.verifiable";

/// Verifies every entry that a node holds: chains, bodies, and the signatures that vouch for them.
pub fn on_end(node: usize, store: &Store) -> Checked {
    let snapshot = store.reader().snapshot().map_err(|error| unreadable(node, &error))?;
    for lane in LaneId::ALL {
        let facts = snapshot
            .verify_lane_by_last_signatures(lane)
            .map_err(|error| unreadable(node, &error))?;
        for journal in facts.journals {
            if let Some(damage) = journal.damage {
                let by = journal.author.device.short();
                let what = format!("n{node} {lane} by {by}, entry {}: {}", damage.seq, damage.what);
                return violated(NAME, what);
            }
        }
    }
    Ok(())
}
