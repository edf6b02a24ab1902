//! Of a device that was put out nobody holds more than somebody held who heard of it.
//!
//! Whoever hears that a device was put out names what it holds of that device's journals, and up to there its
//! entries are accepted (ADR 0003). So the most that any device held when it heard is the most that anybody
//! may ever hold. What the records name is not asked, nor the node's roster what they allow: only whom it takes for
//! put out, and what its store holds.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::ids::{Author, DeviceId};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;
use srcos_replication::roster::Roster;

use super::{Checked, provenance, violated};

/// What devices held when they heard.
#[derive(Debug, Default)]
pub struct Marks {
    /// Who is put out, by what each node had heard when it last committed.
    heard: BTreeMap<usize, BTreeSet<DeviceId>>,
    /// The most that any of them held of a journal when it heard.
    most: BTreeMap<(LaneId, Author), u64>,
}

impl Marks {
    /// A node's commit returned, in which these lanes changed.
    pub fn on_commit(
        &mut self,
        node: usize,
        store: &Store,
        roster: &Roster,
        changed: &[LaneId],
    ) -> Checked {
        let out: BTreeSet<DeviceId> = roster.revoked().keys().copied().collect();
        let before = self.heard.insert(node, out.clone()).unwrap_or_default();
        // What it wrote itself it keeps, and nobody takes its word for it.
        for device in out.iter().filter(|device| **device != store.device()) {
            let hears = !before.contains(device);
            let lanes = if hears { LaneId::ALL.as_slice() } else { changed };
            for lane in lanes.iter().copied() {
                for (author, row) in store.journals(lane).filter(|(by, _)| by.device == *device) {
                    let most = self.most.entry((lane, author)).or_default();
                    if hears {
                        *most = row.held.max(*most);
                    } else if row.held > *most {
                        let (by, held, most) = (device.short(), row.held, *most);
                        let what = format!(
                            "n{node} holds {held} entries of {lane} by {by}, which was put out when nobody \
                             held more than {most}"
                        );
                        return violated(provenance::NAME, what);
                    }
                }
            }
        }
        Ok(())
    }
}
