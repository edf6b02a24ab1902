//! A node that reports a peer as in step is right, but for what the peer did a moment ago.
//!
//! Precisely: when n reports m as in step in a lane, m holds all that n holds there, and what m
//! holds besides is there for no longer than the lag. Only a peer that lost what it had, or found a
//! second history, may lack something for as long. And of whom it has heard nothing for long it does not say
//! so at all, whatever is true.

use std::collections::{BTreeMap, VecDeque};

use srcos_lanes::frontier::Frontier;
use srcos_lanes::ids::DeviceId;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;
use srcos_replication::engine::SILENCE_MS_MAX;
use srcos_replication::peers::{LanePeer, LaneState};

use super::{Checked, Excuses, violated};
use crate::cluster::{Node, shared_lanes};

/// The invariant's name.
pub const NAME: &str = "report.honest";

/// Time after which a node that has heard nothing of a peer no longer calls it in step: what the engine
/// allows, by a clock that may be a twentieth slow.
const HEARD_MS_MAX: u64 = SILENCE_MS_MAX + SILENCE_MS_MAX / 10;

/// What each node held, and since when.
#[derive(Debug)]
pub struct HonestReport {
    lag_ms_max: u64,
    /// What each node held of each lane, with the time since when.
    history: BTreeMap<(usize, LaneId), VecDeque<(u64, Frontier)>>,
    /// When each node last heard of each device.
    heard_ms: BTreeMap<(usize, DeviceId), u64>,
    /// Since when n says of m that it is in step while m lacks something.
    wrong_since_ms: BTreeMap<(usize, usize, LaneId), u64>,
    /// How often something that a node holds changed, or a roster.
    changes: u64,
    /// After how many of these changes a node held just what all its peers hold.
    alike_at: BTreeMap<usize, u64>,
    /// Until when nobody can be expected to know: everything slept.
    pub excused_until_ms: u64,
}

impl HonestReport {
    /// A checker that allows this lag.
    pub fn new(lag_ms_max: u64) -> Self {
        Self {
            lag_ms_max,
            history: BTreeMap::new(),
            heard_ms: BTreeMap::new(),
            wrong_since_ms: BTreeMap::new(),
            changes: 0,
            alike_at: BTreeMap::new(),
            excused_until_ms: 0,
        }
    }

    /// A node's commit returned, which changed these lanes.
    pub fn on_commit(&mut self, now_ms: u64, node: usize, store: &Store, changed: &[LaneId]) {
        for lane in shared_lanes().filter(|lane| changed.contains(lane)) {
            let held = store.frontier(lane);
            let history = self.history.entry((node, lane)).or_default();
            if history.back().is_some_and(|(_, last)| *last == held) {
                continue;
            }
            self.changes += 1;
            history.push_back((now_ms, held));
            // One older than the lag is enough: it says what was held all that time ago.
            while history.get(1).is_some_and(|(at, _)| at + self.lag_ms_max < now_ms) {
                history.pop_front();
            }
        }
    }

    /// The roster of a node changed, and with it of whom it reports.
    pub fn on_roster(&mut self) {
        self.changes += 1;
    }

    /// A node lost what it had, by no fault of its own.
    pub fn on_lost(&mut self, node: usize) {
        self.changes += 1;
        self.history.retain(|(of, _), _| *of != node);
    }

    /// A node was given what a device sent.
    pub fn on_heard(&mut self, now_ms: u64, node: usize, of: DeviceId) {
        self.heard_ms.insert((node, of), now_ms);
    }

    /// A look at whether a node says "in step", now, of a device that it has not heard for long.
    pub fn on_silence(&self, now_ms: u64, number: usize, node: &Node) -> Checked {
        let Some(running) = &node.running else { return Ok(()) };
        let heard =
            self.heard_ms.range((number, DeviceId([0; 32]))..=(number, DeviceId([255; 32])));
        for ((_, device), at_ms) in heard {
            if at_ms + HEARD_MS_MAX > now_ms || !running.engine.is_connected(*device) {
                continue;
            }
            for lane in shared_lanes() {
                let peers = running.engine.lane_peers_at(&running.store, lane, node.now(now_ms));
                let said =
                    |peer: &LanePeer| peer.device == *device && peer.state == LaneState::InSync;
                if peers.iter().any(said) {
                    let (of, silent) = (device.short(), now_ms - at_ms);
                    let what =
                        format!("n{number} calls {of} in step in {lane}, {silent} ms silent");
                    return violated(NAME, what);
                }
            }
        }
        Ok(())
    }

    /// A look at what a node reports.
    pub fn on_look(
        &mut self,
        now_ms: u64,
        number: usize,
        nodes: &[Node],
        excuses: &Excuses,
    ) -> Checked {
        let Some(running) = &nodes[number].running else { return Ok(()) };
        // Most of the time nothing happens: then nothing can have become wrong.
        if self.alike_at.get(&number) == Some(&self.changes) {
            return Ok(());
        }
        // Every lane reports the same peers.
        let mut peers = Vec::new();
        for peer in running.engine.lane_peers(&running.store, LaneId::Normal) {
            let Some(other) = nodes.iter().position(|node| node.device() == peer.device) else {
                return violated(NAME, format!("n{number} reports a device unknown"));
            };
            peers.push((peer.device, other));
        }
        let mut all_alike = true;
        for lane in shared_lanes() {
            let ours = running.store.frontier(lane);
            let differs = |other| self.held(other, lane).is_some_and(|held| *held != ours);
            if !peers.iter().any(|(_, other)| differs(*other)) {
                // Whatever it says of them in this lane, "in step" would be true of each.
                self.wrong_since_ms.retain(|(of, _, at), _| (*of, *at) != (number, lane));
                continue;
            }
            all_alike = false;
            for peer in running.engine.lane_peers(&running.store, lane) {
                let other = peers.iter().find(|(device, _)| *device == peer.device);
                let Some((_, other)) = other else { continue };
                let in_step = peer.state == LaneState::InSync;
                self.on_report(now_ms, (number, *other, lane), in_step, &ours, nodes, excuses)?;
            }
        }
        if all_alike {
            self.alike_at.insert(number, self.changes);
        }
        Ok(())
    }

    /// What a node held of a lane at its last commit.
    fn held(&self, node: usize, lane: LaneId) -> Option<&Frontier> {
        self.history.get(&(node, lane))?.back().map(|(_, held)| held)
    }

    /// What n reports of m in a lane.
    fn on_report(
        &mut self,
        now_ms: u64,
        key: (usize, usize, LaneId),
        in_step: bool,
        ours: &Frontier,
        nodes: &[Node],
        excuses: &Excuses,
    ) -> Checked {
        let (number, other, lane) = key;
        let copied = nodes.iter().any(|node| node.copy_of == Some(other));
        if !in_step || nodes[other].breaks_rules() || copied {
            self.wrong_since_ms.remove(&key);
            return Ok(());
        }
        let Some(history) = self.history.get(&(other, lane)) else { return Ok(()) };
        let Some((_, theirs)) = history.back() else { return Ok(()) };
        let told = || format!("n{number} reports n{other} in step in {lane}");
        if ours.difference(theirs).missing_there > 0 {
            let shrunk = excuses.lost(other) || !excuses.forks.is_empty();
            let since = *self.wrong_since_ms.entry(key).or_insert(now_ms);
            if !shrunk || (now_ms > since + self.lag_ms_max && now_ms > self.excused_until_ms) {
                return violated(NAME, format!("{}, but it lacks entries", told()));
            }
            return Ok(());
        }
        self.wrong_since_ms.remove(&key);
        // What it holds now and we lack: since when, without a break.
        let lacking = |held: &Frontier| ours.difference(held).missing_here > 0;
        let ahead = history.iter().rev().take_while(|(_, held)| lacking(held)).last();
        if let Some((since, _)) = ahead
            && since + self.lag_ms_max < now_ms
            && now_ms > self.excused_until_ms
        {
            let lag = now_ms - since;
            return violated(NAME, format!("{}, but lags {lag} ms behind it", told()));
        }
        Ok(())
    }
}
