//! What is known of each peer: what it last said it holds, when, and whether that equals ours.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use srcos_lanes::bug::{self, Bug};
use srcos_lanes::frontier::{Difference, Frontier, Tip};
use srcos_lanes::ids::{Author, DeviceId, Now, WallMillis};
use srcos_lanes::lane::LaneId;

use crate::engine::{RECEIPT_AUTHORS_MAX, SILENCE_MS_MAX};

/// What a peer last said about one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LaneView {
    /// How far it holds each journal.
    pub held: Frontier,
    /// Journals that it had not applied as far as it held them.
    pub unapplied: Vec<(Author, u64)>,
    /// When it said so, by our clock.
    pub heard_at: WallMillis,
    /// When our frontier and its were last proven equal, by our clock.
    pub confirmed_at: Option<WallMillis>,
}

/// How a peer stands to us in one lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LaneState {
    /// Both frontiers are equal, by the peer's own words since the last change known here.
    InSync,
    /// The peer has entries that we lack.
    Behind,
    /// We have entries that the peer lacks.
    Ahead,
    /// Each lacks entries of the other, or a journal has two histories.
    Diverged,
    /// Policy keeps the lane from the peer.
    Blocked,
    /// There is no connection.
    Unreachable,
    /// The peer has not said anything about the lane, or nothing at all for too long.
    Unknown,
}

impl LaneState {
    /// The stable word for the state.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
            Self::Diverged => "diverged",
            Self::Blocked => "blocked",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }
}

/// How a peer stands to us in one lane, with figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LanePeer {
    /// The peer.
    pub device: DeviceId,
    /// How it stands.
    pub state: LaneState,
    /// The code of the rule, when policy blocks.
    pub rule: &'static str,
    /// Entries that it had and we lack, by its last words; `None` when it never spoke of the lane.
    pub missing_here: Option<u64>,
    /// Entries that we have and it lacked, by its last words; `None` when it never spoke of the lane.
    pub missing_there: Option<u64>,
    /// When equality was last proven.
    pub confirmed_at: Option<WallMillis>,
}

/// Whether a peer can be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contact {
    /// There is no connection.
    None,
    /// There is one, over which it has not spoken for too long.
    Silent,
    /// It speaks.
    Live,
}

/// What is remembered of one device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) lanes: BTreeMap<LaneId, LaneView>,
    /// Something changed since it was last written to the store.
    pub(crate) unsaved: bool,
    /// When it was last connected.
    pub(crate) seen_at: Option<WallMillis>,
    /// When it last spoke of its lanes on the present connection.
    pub(crate) spoke_at: Option<Now>,
    /// Lanes of which it has spoken on the present connection: what it said before is a memory, which
    /// proves nothing of what it has done since.
    pub(crate) spoke_of: BTreeSet<LaneId>,
    /// Lanes of which it holds more than it said, or other things: it was seen to, and will say what.
    pub(crate) more: BTreeSet<LaneId>,
}

impl Peer {
    /// A new connection: what it said before is a memory.
    pub(crate) fn begin(&mut self, now: Now) {
        self.seen_at = Some(now.wall);
        self.spoke_of.clear();
        self.more.clear();
        self.spoke_at = None;
    }

    /// Whether it has not spoken for too long, by either clock: one of them stands still while the
    /// machine sleeps, and the other may be set.
    pub(crate) fn is_silent(&self, now: Now) -> bool {
        let Some(at) = self.spoke_at else { return true };
        if bug::active(Bug::IgnoreSilence) {
            return false;
        }
        now.mono.0.saturating_sub(at.mono.0) >= SILENCE_MS_MAX
            || now.wall.0.saturating_sub(at.wall.0) >= SILENCE_MS_MAX
    }

    /// What the peer said that it holds of a lane, on the present connection.
    pub(crate) fn says(&self, lane: LaneId) -> Option<&Frontier> {
        self.spoke_of
            .contains(&lane)
            .then(|| self.lanes.get(&lane).map(|view| &view.held))
            .flatten()
    }

    /// Takes in what the peer says of a lane.
    pub(crate) fn hear(
        &mut self,
        lane: LaneId,
        held: &Frontier,
        unapplied: &[(Author, u64)],
        at: WallMillis,
    ) {
        self.spoke_of.insert(lane);
        self.more.remove(&lane);
        let view = self.lanes.entry(lane).or_default();
        // What only repeats need not be kept or written again.
        if view.held != *held || view.unapplied != unapplied {
            self.unsaved = true;
            view.held.clone_from(held);
            view.unapplied = unapplied.to_vec();
        }
        view.heard_at = at;
    }

    /// Takes in what the peer says has changed of a lane: of the rest stands what it said before. Refused,
    /// with the reason, where it said nothing before on this connection, or names too much with that.
    pub(crate) fn hear_part(
        &mut self,
        lane: LaneId,
        changed: &Frontier,
        unapplied: &[(Author, u64)],
        at: WallMillis,
    ) -> Result<(), &'static str> {
        if !self.spoke_of.contains(&lane) {
            return Err("a receipt names a part of what was not said");
        }
        let view = self.lanes.entry(lane).or_default();
        let new = changed.0.keys().filter(|author| !view.held.0.contains_key(author)).count();
        if view.held.0.len() + new > RECEIPT_AUTHORS_MAX {
            return Err("receipts name more journals than any may");
        }
        self.more.remove(&lane);
        for (author, tip) in &changed.0 {
            self.unsaved |= view.held.0.insert(*author, *tip) != Some(*tip);
        }
        if view.unapplied != unapplied {
            self.unsaved = true;
            view.unapplied = unapplied.to_vec();
        }
        view.heard_at = at;
        Ok(())
    }

    /// Takes in that the peer sent a journal up to here, which it holds so far. With what it said before
    /// that is all, if it says so.
    pub(crate) fn hear_run(
        &mut self,
        lane: LaneId,
        author: Author,
        tip: Tip,
        whole: bool,
        at: WallMillis,
    ) {
        let view = self.lanes.entry(lane).or_default();
        if view.held.0.len() >= RECEIPT_AUTHORS_MAX && !view.held.0.contains_key(&author) {
            // More than a receipt names is not kept either, whatever runs name.
            self.more.insert(lane);
            return;
        }
        self.unsaved |= view.held.seq(&author) < tip.seq;
        view.held.join(&Frontier([(author, tip)].into()));
        view.heard_at = at;
        if whole {
            self.more.remove(&lane);
        } else {
            self.more.insert(lane);
        }
    }

    /// Notes equality, if what the peer last said is what we hold.
    pub(crate) fn compare(&mut self, lane: LaneId, ours: &Frontier, at: WallMillis) -> bool {
        let Some(view) = self.lanes.get_mut(&lane) else { return false };
        let equal = view.held == *ours && view.unapplied.is_empty() && !self.more.contains(&lane);
        if equal {
            self.unsaved |= view.confirmed_at.is_none();
            view.confirmed_at = Some(at);
        }
        equal
    }

    /// How the peer stands to us in a lane.
    pub(crate) fn state(
        &self,
        lane: LaneId,
        ours: &Frontier,
        contact: Contact,
    ) -> (LaneState, Difference, Option<WallMillis>) {
        let Some(view) = self.lanes.get(&lane) else {
            let state = match contact {
                Contact::None => LaneState::Unreachable,
                Contact::Silent | Contact::Live => LaneState::Unknown,
            };
            return (state, Difference::default(), None);
        };
        let difference = ours.difference(&view.held);
        let state = match difference {
            _ if contact == Contact::None => LaneState::Unreachable,
            _ if bug::active(Bug::OldDigest) && view.confirmed_at.is_some() => LaneState::InSync,
            _ if contact == Contact::Silent => LaneState::Unknown,
            _ if !self.spoke_of.contains(&lane) => LaneState::Unknown,
            Difference { forked: 1.., .. } => LaneState::Diverged,
            Difference { missing_here: 0, missing_there: 0, .. } if self.more.contains(&lane) => {
                LaneState::Behind
            }
            Difference { missing_here: 0, missing_there: 0, .. } => {
                if view.unapplied.is_empty() {
                    LaneState::InSync
                } else {
                    LaneState::Ahead
                }
            }
            Difference { missing_there: 0, .. } => LaneState::Behind,
            Difference { missing_here: 0, .. } => LaneState::Ahead,
            _ => LaneState::Diverged,
        };
        (state, difference, view.confirmed_at)
    }
}

/// How each other member last stood to us in a lane, from what the store remembers: for a node that
/// does not run, and so reaches nobody.
pub fn remembered(
    snapshot: &srcos_lanes::store::Snapshot,
    roster: &crate::roster::Roster,
    policy: &srcos_lanes::policy::ReplicationPolicy,
    own: DeviceId,
    lane: LaneId,
) -> Result<Vec<LanePeer>, srcos_lanes::error::StoreError> {
    let mut ours = snapshot.frontier(lane)?;
    let void = roster.void();
    ours.0.retain(|author, _| !void.contains(&author.device));
    let mut peers = Vec::new();
    for device in roster.members().keys().copied().filter(|device| *device != own) {
        let peer = Peer::load(snapshot, device)?;
        peers.push(peer.stands(device, lane, &ours, policy, Contact::None));
    }
    Ok(peers)
}

/// When a device was last connected, from what the store remembers.
pub fn remembered_seen_at(
    snapshot: &srcos_lanes::store::Snapshot,
    device: DeviceId,
) -> Result<Option<WallMillis>, srcos_lanes::error::StoreError> {
    Ok(Peer::load(snapshot, device)?.seen_at)
}

/// The name under which what is known of a peer is kept in the store.
pub(crate) const FACT: &str = "views-1";

impl Peer {
    /// What the store remembers of a peer. What is damaged is forgotten: it is only a memory.
    pub(crate) fn load(
        snapshot: &srcos_lanes::store::Snapshot,
        device: DeviceId,
    ) -> Result<Self, srcos_lanes::error::StoreError> {
        let mut peer = Self::default();
        let bytes = match snapshot.peer_fact(device, FACT) {
            Err(srcos_lanes::error::StoreError::Damaged { .. }) => None,
            read => read?,
        };
        // What an older version wrote differently is forgotten too; the peer will say it again.
        if let Some(Ok((seen_at, lanes))) = bytes.as_deref().map(postcard::from_bytes) {
            (peer.seen_at, peer.lanes) = (seen_at, lanes);
        }
        Ok(peer)
    }

    /// How the peer stands to us in a lane, policy included.
    pub(crate) fn stands(
        &self,
        device: DeviceId,
        lane: LaneId,
        ours: &Frontier,
        policy: &srcos_lanes::policy::ReplicationPolicy,
        contact: Contact,
    ) -> LanePeer {
        let decision = policy.lane(lane, device);
        let (state, difference, confirmed_at) = if decision.allows() {
            self.state(lane, ours, contact)
        } else {
            (LaneState::Blocked, Difference::default(), None)
        };
        let spoke = decision.allows() && self.lanes.contains_key(&lane);
        LanePeer {
            device,
            state,
            rule: decision.rule().code(),
            missing_here: spoke.then_some(difference.missing_here),
            missing_there: spoke.then_some(difference.missing_there),
            confirmed_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use srcos_lanes::ids::{EntryHash, Incarnation};

    use super::*;

    const LANE: LaneId = LaneId::Normal;
    const AT: WallMillis = WallMillis(1);

    fn author(n: u64) -> Author {
        Author { device: DeviceId([1; 32]), incarnation: Incarnation(n) }
    }

    fn tip(seq: u64) -> Tip {
        Tip { seq, hash: EntryHash([seq as u8; 32]) }
    }

    fn tips<const N: usize>(tips: [(u64, Tip); N]) -> Frontier {
        Frontier(tips.map(|(n, tip)| (author(n), tip)).into())
    }

    #[test]
    fn part_adds_to_what_was_said_on_this_connection() {
        let mut peer = Peer::default();
        peer.hear(LANE, &tips([(1, tip(5)), (2, tip(5))]), &[], AT);
        peer.hear_part(LANE, &tips([(1, tip(7))]), &[(author(1), 6)], AT).unwrap();
        let both = tips([(1, tip(7)), (2, tip(5))]);
        assert_eq!(peer.says(LANE), Some(&both));
        assert!(!peer.compare(LANE, &both, AT), "it has not applied all of it");
        peer.hear_part(LANE, &tips([(1, Tip::TWO_HISTORIES)]), &[], AT).unwrap();
        assert!(peer.compare(LANE, &tips([(1, Tip::TWO_HISTORIES), (2, tip(5))]), AT));
    }

    #[test]
    fn part_of_what_was_said_on_an_earlier_connection_is_refused() {
        let mut peer = Peer::default();
        let known = tips([(1, tip(5)), (2, tip(5))]);
        peer.hear(LANE, &known, &[], AT);
        // It may have lost that since.
        peer.begin(Now { mono: srcos_lanes::ids::MonoMillis(1), wall: AT });
        assert!(peer.hear_part(LANE, &tips([(2, tip(6))]), &[], AT).is_err());
        assert_eq!(peer.says(LANE), None);
        assert_eq!(peer.lanes[&LANE].held, known);
    }

    #[test]
    fn parts_name_no_more_journals_together_than_a_receipt_may() {
        let mut peer = Peer::default();
        let most = RECEIPT_AUTHORS_MAX as u64;
        let all = Frontier((0..most).map(|n| (author(n), tip(1))).collect());
        peer.hear(LANE, &all, &[], AT);
        assert!(peer.hear_part(LANE, &tips([(0, tip(2)), (most, tip(1))]), &[], AT).is_err());
        assert_eq!(peer.says(LANE), Some(&all));
        peer.hear_part(LANE, &tips([(0, tip(2))]), &[], AT).unwrap();
    }
}
