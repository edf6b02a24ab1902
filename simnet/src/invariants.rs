//! What must hold in every run: one checker for each invariant, fed while the run goes on.
//!
//! A checker looks at what it is shown and at what the shipped code can be asked; none of them
//! takes a part in what the nodes do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use srcos_lanes::error::StoreError;
use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, WallMillis};
use srcos_lanes::journal::{Body, Entry};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::is_confined;
use srcos_lanes::store::{LIST_OBJECTS_MAX, Outcome, Query, ShownObject, Store, Visibility};
use srcos_lanes::tables::RowState;
use srcos_replication::engine::{EVENTS_MAX, Event};
use srcos_replication::peers::LaneState;
use srcos_replication::wire::{AbortReason, Assembler, FRAME_BYTES_MAX, Message};

use crate::cluster::{Node, shared_lanes};
use crate::workload::NEEDLE;

/// An invariant that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

/// What a checker says.
pub type Checked = Result<(), Violation>;

fn violated<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, what: what.into() })
}

/// A store that cannot be read although its disk works.
pub fn unreadable(node: usize, error: &StoreError) -> Violation {
    Violation { invariant: DurableBeforeTold::NAME, what: format!("n{node} cannot read: {error}") }
}

type Journals = BTreeMap<(LaneId, Author), Tip>;
/// What a node shows, as text.
type Shown = BTreeMap<(LaneId, String), String>;

/// What a node committed, and so may have told, is there after every crash.
#[derive(Debug, Default)]
pub struct DurableBeforeTold {
    told: BTreeMap<usize, Journals>,
    deleted: BTreeMap<(LaneId, String), u32>,
}

impl DurableBeforeTold {
    /// The invariant's name.
    pub const NAME: &'static str = "journal.durable_before_told";

    /// A node's commit returned.
    pub fn on_commit(&mut self, node: usize, store: &Store) {
        let told = self.told.entry(node).or_default();
        for lane in LaneId::ALL {
            let tips = store.frontier(lane).0.into_iter();
            told.extend(tips.map(|(author, tip)| ((lane, author), tip)));
        }
    }

    /// A deletion was acknowledged.
    pub fn on_delete(&mut self, outcome: &Outcome) {
        let life = self.deleted.entry((outcome.lane, outcome.id.clone())).or_default();
        *life = (*life).max(outcome.life);
    }

    /// A node was started again.
    pub fn on_start(&self, node: usize, store: &Store) -> Checked {
        let Some(told) = self.told.get(&node) else { return Ok(()) };
        Self::holds(node, store, told)
    }

    /// The run is over and the devices are in step: what anyone acknowledged is everywhere.
    pub fn finish(&self, nodes: &[Node], confined: &BTreeSet<(LaneId, String)>) -> Checked {
        let shared: BTreeSet<LaneId> = shared_lanes().collect();
        for (number, node) in nodes.iter().enumerate() {
            let Some(running) = &node.running else { continue };
            for (by, told) in &self.told {
                let mut told = told.clone();
                told.retain(|(lane, _), _| *by == number || shared.contains(lane));
                Self::holds(number, &running.store, &told)?;
            }
            for ((lane, id), life) in &self.deleted {
                if !shared.contains(lane) || confined.contains(&(*lane, id.clone())) {
                    continue;
                }
                match look(number, &running.store, *lane, id)? {
                    Visibility::Shown(object) if object.life <= *life => {
                        return violated(
                            NoResurrection::NAME,
                            format!("n{number} shows {lane} {id:?} life {} of {life}", object.life),
                        );
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn holds(node: usize, store: &Store, told: &Journals) -> Checked {
        let snapshot = store.reader().snapshot().map_err(|error| unreadable(node, &error))?;
        for ((lane, author), tip) in told {
            let bytes =
                snapshot.entry(*lane, author, tip.seq).map_err(|error| unreadable(node, &error))?;
            let same = bytes.as_deref().and_then(|bytes| Some(Entry::read(bytes).ok()?.hash));
            if same != Some(tip.hash) {
                let by = author.device.short();
                let held = store.frontier(*lane).seq(author);
                return violated(
                    Self::NAME,
                    format!("n{node} lost entry {} of {lane} by {by}: holds {held}", tip.seq),
                );
            }
        }
        Ok(())
    }
}

/// Devices that keep the rules never accuse each other of breaking them.
#[derive(Debug, Default)]
pub struct HonestPeers;

impl HonestPeers {
    /// The invariant's name.
    pub const NAME: &'static str = "journal.chain_intact";

    /// A node's engine said something.
    pub fn on_event(&self, node: usize, event: &Event) -> Checked {
        let accused = match event {
            Event::Refused { .. } | Event::Equivocation { .. } => true,
            // No store is ever put back in a run, so no peer can hold more of it.
            Event::IncarnationStarted { .. } => true,
            Event::Close { reason, .. } => !matches!(
                reason,
                AbortReason::Replaced
                    | AbortReason::ShuttingDown
                    | AbortReason::HandshakeTimeout
                    | AbortReason::NotAMember
            ),
            Event::Opened { .. }
            | Event::RosterChanged
            | Event::InSync { .. }
            | Event::Applied { .. } => false,
        };
        if accused { violated(Self::NAME, format!("n{node}: {event:?}")) } else { Ok(()) }
    }
}

/// No frame carries a body that must not leave its device.
#[derive(Debug, Default)]
pub struct Confined {
    assemblers: BTreeMap<(usize, u64), Assembler>,
}

impl Confined {
    /// The invariant's name.
    pub const NAME: &'static str = "policy.confined";

    /// A frame was sent on a connection.
    pub fn on_frame(&mut self, node: usize, conn: u64, frame: &[u8]) -> Checked {
        if frame.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes()) {
            return violated(Self::NAME, format!("a frame of n{node} holds a secret text"));
        }
        let assembler = self.assemblers.entry((node, conn)).or_default();
        let message = match assembler.push(frame) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => return violated(HonestPeers::NAME, format!("n{node} sent {}", error.0)),
        };
        match Message::decode(&message) {
            Ok(Message::Run { lane, entries, .. }) => Self::on_run(node, lane, &entries),
            Ok(_) => Ok(()),
            Err(error) => violated(HonestPeers::NAME, format!("n{node} sent {}", error.0)),
        }
    }

    fn on_run(node: usize, lane: LaneId, entries: &[&[u8]]) -> Checked {
        for bytes in entries {
            let Ok(entry) = Entry::read(bytes) else {
                return violated(HonestPeers::NAME, format!("n{node} sent a broken entry"));
            };
            if !shared_lanes().any(|shared| shared == lane) {
                return violated(Self::NAME, format!("n{node} sent entries of lane {lane}"));
            }
            for (item, body) in entry.header.items.iter().zip(&entry.bodies) {
                let class = entry.header.classes.get(usize::from(item.class));
                let confined = item.confined || class.is_some_and(|class| is_confined(class));
                if confined && matches!(body, Body::Here(_)) {
                    let seq = entry.header.seq;
                    return violated(
                        Self::NAME,
                        format!("n{node} sent a confined body in entry {seq} of {lane}"),
                    );
                }
            }
        }
        Ok(())
    }

    /// A connection is gone.
    pub fn on_closed(&mut self, node: usize, conn: u64) {
        self.assemblers.remove(&(node, conn));
    }
}

/// What a node once showed as deleted it never shows again, under the same life.
#[derive(Debug, Default)]
pub struct NoResurrection {
    /// The latest life that a node showed, and the latest that it showed and then hid.
    lives: BTreeMap<(usize, LaneId, String), (u32, u32)>,
}

impl NoResurrection {
    /// The invariant's name.
    pub const NAME: &'static str = "tombstone.no_resurrection";

    /// A look at what a node shows.
    pub fn on_look(
        &mut self,
        node: usize,
        store: &Store,
        known: &BTreeSet<(LaneId, String)>,
    ) -> Checked {
        for (lane, id) in known {
            let seen = look(node, store, *lane, id)?;
            let (shown, gone) = self.lives.entry((node, *lane, id.clone())).or_default();
            match seen {
                Visibility::Shown(object) => {
                    if object.life <= *gone {
                        let life = object.life;
                        let what = format!("n{node} shows {lane} {id:?} life {life} again");
                        return violated(Self::NAME, what);
                    }
                    *shown = (*shown).max(object.life);
                }
                Visibility::Deleted { .. } => *gone = (*gone).max(*shown),
                // Nothing but a deletion or its expiry takes away what was shown.
                Visibility::Absent if *shown > 0 && lane.definition().ttl.is_none() => {
                    let what = format!("n{node} lost {lane} {id:?} life {shown}");
                    return violated(DurableBeforeTold::NAME, what);
                }
                Visibility::Absent | Visibility::Expired => {}
            }
        }
        Ok(())
    }
}

/// A node that reports a peer as in step is right, but for what the peer did a moment ago.
///
/// Precisely: when n reports m as in step in a lane, m holds all that n holds there, and what m
/// holds besides is there for no longer than `lag_ms_max`.
#[derive(Debug)]
pub struct HonestReport {
    lag_ms_max: u64,
    /// What each node held of each lane, with the time since when.
    history: BTreeMap<(usize, LaneId), VecDeque<(u64, Frontier)>>,
}

impl HonestReport {
    /// The invariant's name.
    pub const NAME: &'static str = "report.honest";

    /// A checker that allows this lag.
    pub fn new(lag_ms_max: u64) -> Self {
        Self { lag_ms_max, history: BTreeMap::new() }
    }

    /// A node's commit returned.
    pub fn on_commit(&mut self, now_ms: u64, node: usize, store: &Store) {
        for lane in shared_lanes() {
            let held = store.frontier(lane);
            let history = self.history.entry((node, lane)).or_default();
            if history.back().is_some_and(|(_, last)| *last == held) {
                continue;
            }
            history.push_back((now_ms, held));
            // One older than the lag is enough: it says what was held all that time ago.
            while history.get(1).is_some_and(|(at, _)| at + self.lag_ms_max < now_ms) {
                history.pop_front();
            }
        }
    }

    /// A look at what a node reports.
    pub fn on_look(&self, now_ms: u64, number: usize, nodes: &[Node]) -> Checked {
        let Some(running) = &nodes[number].running else { return Ok(()) };
        for lane in shared_lanes() {
            let ours = running.store.frontier(lane);
            for peer in running.engine.lane_peers(&running.store, lane) {
                if peer.state != LaneState::InSync {
                    continue;
                }
                let Some(other) = nodes.iter().position(|node| node.device() == peer.device) else {
                    return violated(Self::NAME, format!("n{number} reports a device unknown"));
                };
                let Some(history) = self.history.get(&(other, lane)) else { continue };
                let told = format!("n{number} reports n{other} in step in {lane}");
                let Some((_, theirs)) = history.back() else { continue };
                if ours.difference(theirs).missing_there > 0 {
                    return violated(Self::NAME, format!("{told}, but it lacks entries"));
                }
                let ahead = history.iter().find(|(_, held)| ours.difference(held).missing_here > 0);
                if let Some((since, _)) = ahead
                    && since + self.lag_ms_max < now_ms
                {
                    let lag = now_ms - since;
                    return violated(Self::NAME, format!("{told}, but lags {lag} ms behind it"));
                }
            }
        }
        Ok(())
    }
}

/// Frames, events and timers stay below their limits.
#[derive(Debug, Default)]
pub struct Bounds {
    due_at_once: BTreeMap<usize, u64>,
}

/// Timeouts in a row that are due again at once, before it counts as a busy loop: a node that
/// applies 256 entries at each still catches up with 100,000.
const DUE_AT_ONCE_MAX: u64 = 400;

impl Bounds {
    /// The invariant's name.
    pub const NAME: &'static str = "bounds.held";

    /// A frame was sent.
    pub fn on_frame(&self, node: usize, frame: &[u8]) -> Checked {
        if frame.len() > FRAME_BYTES_MAX {
            return violated(Self::NAME, format!("n{node} sent a frame of {} bytes", frame.len()));
        }
        Ok(())
    }

    /// A node's events were drained.
    pub fn on_events(&self, node: usize, events: usize) -> Checked {
        // Each drain follows a handful of inputs, so as many events as may wait are too many.
        if events > EVENTS_MAX {
            return violated(Self::NAME, format!("n{node} had {events} events waiting"));
        }
        Ok(())
    }

    /// A node said when it wants to be woken.
    pub fn on_timer(&mut self, node: usize, now_ms: u64, due_ms: Option<u64>) -> Checked {
        let row = self.due_at_once.entry(node).or_default();
        *row = if due_ms.is_some_and(|due| due <= now_ms) { *row + 1 } else { 0 };
        if *row > DUE_AT_ONCE_MAX {
            return violated(Self::NAME, format!("n{node} wants to be woken {row} times at once"));
        }
        Ok(())
    }
}

/// After faults end, devices hold the same and show the same.
#[derive(Debug, Default)]
pub struct Converged;

impl Converged {
    /// The invariant's name.
    pub const NAME: &'static str = "lane.converged";

    /// What keeps the devices from being in step: who waits for what. Empty when they are.
    pub fn waits(&self, nodes: &[Node], joined: impl Fn(usize, usize) -> bool) -> Vec<String> {
        let mut waits = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let Some(running) = &node.running else {
                waits.push(format!("n{number} does not run"));
                continue;
            };
            for lane in shared_lanes() {
                for (author, row) in running.store.journals(lane) {
                    if row.applied < row.held {
                        let (by, lag) = (author.device.short(), row.held - row.applied);
                        waits.push(format!("n{number} has {lag} of {lane} by {by} unapplied"));
                    }
                }
                let ours = running.store.frontier(lane);
                let reports = running.engine.lane_peers(&running.store, lane);
                for (other, peer) in nodes.iter().enumerate() {
                    let Some(theirs) = &peer.running else { continue };
                    let lacks = ours.difference(&theirs.store.frontier(lane)).missing_here;
                    if lacks > 0 {
                        waits
                            .push(format!("n{number} lacks {lacks} entries of n{other} in {lane}"));
                    }
                    let state = reports.iter().find(|report| report.device == peer.device());
                    let state = state.map_or("no member", |report| report.state.name());
                    if joined(number, other) && state != LaneState::InSync.name() {
                        waits.push(format!("n{number} reports n{other} {state} in {lane}"));
                    }
                }
            }
        }
        waits
    }

    /// The run is over and the devices are in step: they show the same.
    pub fn finish(
        &self,
        nodes: &[Node],
        known: &BTreeSet<(LaneId, String)>,
        confined: &BTreeSet<(LaneId, String)>,
    ) -> Checked {
        let mut first: Option<(usize, Shown)> = None;
        for (number, node) in nodes.iter().enumerate() {
            let Some(running) = &node.running else { continue };
            let shown = self.shown(number, &running.store, known, confined)?;
            let Some((reference, expected)) = &first else {
                first = Some((number, shown));
                continue;
            };
            let names: BTreeSet<_> = shown.keys().chain(expected.keys()).collect();
            for name in names {
                let (ours, theirs) = (shown.get(name), expected.get(name));
                if ours != theirs {
                    let (lane, id) = name;
                    return violated(
                        Self::NAME,
                        format!(
                            "{lane} {id:?} differs\n  n{number}: {}\n  n{reference}: {}",
                            ours.map_or("absent", String::as_str),
                            theirs.map_or("absent", String::as_str),
                        ),
                    );
                }
            }
        }
        Ok(())
    }

    /// All that a node shows in shared lanes, as text that is alike on every node.
    fn shown(
        &self,
        node: usize,
        store: &Store,
        known: &BTreeSet<(LaneId, String)>,
        confined: &BTreeSet<(LaneId, String)>,
    ) -> Result<Shown, Violation> {
        let mut shown = BTreeMap::new();
        let mut listed = BTreeSet::new();
        for lane in shared_lanes() {
            for object in list(node, store, lane)? {
                if let RowState::Quarantined(why) = &object.row.state {
                    let what = format!("n{node} quarantined {lane} {:?}: {why}", object.id);
                    return violated(Self::NAME, what);
                }
                let name = (lane, object.id.clone());
                if lane == LaneId::Tombstone {
                    if !stays(&object.id, confined) {
                        shown.insert(name, describe(&object));
                    }
                    continue;
                }
                if !known.contains(&name) {
                    return violated(Self::NAME, format!("n{node} made up {lane} {:?}", object.id));
                }
                listed.insert(name);
            }
        }
        for name in known.iter().filter(|(lane, _)| shared_lanes().any(|shared| shared == *lane)) {
            let seen = look(node, store, name.0, &name.1)?;
            let is_shown = matches!(seen, Visibility::Shown(_));
            if is_shown != listed.contains(name) {
                let what = format!("n{node} lists {} {:?} unlike it gets it", name.0, name.1);
                return violated(Self::NAME, what);
            }
            if confined.contains(name) {
                continue;
            }
            let text = match seen {
                Visibility::Shown(object) => describe(&object),
                other => format!("{other:?}"),
            };
            shown.insert(name.clone(), text);
        }
        Ok(shown)
    }
}

/// Whether a tombstone stays on its device, as what it deletes did: see the form of its id.
fn stays(tombstone: &str, confined: &BTreeSet<(LaneId, String)>) -> bool {
    let mut parts = tombstone.splitn(3, '/');
    let lane = parts.next().and_then(|lane| lane.parse::<LaneId>().ok());
    let (Some(lane), Some(id)) = (lane, parts.nth(1)) else { return false };
    !shared_lanes().any(|shared| shared == lane) || confined.contains(&(lane, id.to_owned()))
}

/// An object as text that is alike on every node, so without the numbers that a store gives.
fn describe(object: &ShownObject) -> String {
    let row = &object.row;
    let mut heads = object.heads();
    heads.sort();
    format!(
        "life {} by {} at {} {:?} {} {:?} {} confined {} heads {heads:?} conflicts {:?} changes {}",
        object.life,
        object.author.short(),
        row.updated_at.0,
        row.kind,
        row.class,
        row.labels,
        row.body,
        row.confined,
        row.conflicts,
        row.changes,
    )
}

fn look(node: usize, store: &Store, lane: LaneId, id: &str) -> Result<Visibility, Violation> {
    let found = store.reader().snapshot().and_then(|s| s.object(lane, id, WallMillis(0)));
    found.map_err(|error| unreadable(node, &error))
}

fn list(node: usize, store: &Store, lane: LaneId) -> Result<Vec<ShownObject>, Violation> {
    let mut objects = Vec::new();
    let mut query = Query { limit: LIST_OBJECTS_MAX, ..Query::default() };
    loop {
        let page = store.reader().snapshot().and_then(|s| s.list(lane, &query, WallMillis(0)));
        let page = page.map_err(|error| unreadable(node, &error))?;
        objects.extend(page.objects);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(objects),
        }
    }
}
