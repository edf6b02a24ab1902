//! One run: the loop that feeds engines what happens, and the checkers what the engines do.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::error::{StoreError, WriteError};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Action, Outcome};
use srcos_replication::engine::{ConnId, Event};
use srcos_replication::wire::MESSAGE_BYTES_MAX;

use crate::cluster::{self, Node};
use crate::invariants::{
    Bounds, Checked, Confined, Converged, DurableBeforeTold, HonestPeers, HonestReport,
    NoResurrection, Violation, unreadable,
};
use crate::network::{LinkId, Network};
use crate::options::{Options, Scenario};
use crate::scheduler::{Scheduler, Stream};
use crate::trace::{Sink, Trace};
use crate::workload::{Work, Workload};

/// Time between two looks of the checkers, in milliseconds.
const LOOK_EVERY_MS: u64 = 250;
/// Lag that a report may have on an idle link, in milliseconds: a digest comes every 30 s.
const REPORT_LAG_MS: u64 = 31_000;
/// Bytes that an engine queues for a link before a receipt, at most: its outbox and one message.
const QUEUED_BYTES_MAX: usize = 512 * 1024 + MESSAGE_BYTES_MAX;
/// Time until a node dials again, at most, in milliseconds.
const REDIAL_MS_MAX: u64 = 2_000;
/// Time for which a partition or a stop lasts, at most, in milliseconds.
const OUTAGE_MS_MAX: u64 = 6_000;

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Happening {
    /// A node commits what it was given, and its outputs are taken.
    Settle { node: usize, run: u64 },
    /// A node's timer.
    Wake { node: usize, run: u64 },
    /// The next frame from an end of a link reaches the other.
    Arrive { link: LinkId, from: usize },
    /// An end learns that its link is gone.
    Learn { link: LinkId, side: usize },
    /// A node tries to reach another.
    Dial { node: usize, peer: usize, run: u64 },
    /// Someone writes.
    Write,
    /// A link is cut.
    Cut,
    /// The network falls apart.
    Partition,
    /// It is whole again.
    Heal,
    /// A node stops.
    Stop,
    /// It starts again.
    Start { node: usize },
    /// A wall clock jumps.
    ClockJump,
    /// The checkers look.
    Look,
    /// Faults and writes end.
    Calm,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All held.
    Pass,
    /// The devices did not come in step in time; who waits for what.
    Liveness(Vec<String>),
    /// An invariant did not hold.
    Correctness(Violation),
}

impl Verdict {
    /// Its word in the result.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Liveness(_) => "liveness",
            Self::Correctness(_) => "correctness",
        }
    }

    /// The exit code of a run that ended so.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Liveness(_) => 3,
            Self::Correctness(_) => 4,
        }
    }
}

/// The result of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// Virtual milliseconds that passed.
    pub ticks: u64,
    /// Things that happened.
    pub events: u64,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Virtual milliseconds from the end of the faults until all were in step.
    pub converged_in_ms: Option<u64>,
    /// The hash of the trace.
    pub trace_hash: String,
    /// The last lines of the trace.
    pub last_lines: Vec<String>,
}

/// Runs a seed to its end.
pub fn run(options: &Options, sink: Option<Sink>) -> Report {
    let mut trace = Trace::new(sink);
    trace.line(0, "options", &format!("{options:?}"));
    let nodes = match cluster::mesh(options.seed, options.nodes) {
        Ok(nodes) => nodes,
        Err(error) => {
            let what = format!("a new device cannot start: {}", error.0);
            let violation = Violation { invariant: DurableBeforeTold::NAME, what };
            return Simulation::new(options, Vec::new(), trace)
                .report(Verdict::Correctness(violation));
        }
    };
    let mut simulation = Simulation::new(options, nodes, trace);
    let verdict = match simulation.go() {
        Ok(verdict) => verdict,
        Err(violation) => Verdict::Correctness(violation),
    };
    simulation.report(verdict)
}

/// How far a report may lag behind what a peer does: until a dead link is noticed, or until the
/// word of it has crossed a full link behind a full outbox.
fn report_lag_ms(options: &Options) -> u64 {
    let shape = options.shape;
    let ahead = (shape.in_flight_bytes_max + QUEUED_BYTES_MAX) as u64 / shape.bytes_per_ms;
    options.detect_ms_max + shape.latency_ms_max + REPORT_LAG_MS + ahead
}

struct Simulation<'o> {
    options: &'o Options,
    scheduler: Scheduler<Happening>,
    network: Network,
    nodes: Vec<Node>,
    workload: Workload,
    trace: Trace,
    latency: Stream,
    chance: Stream,
    /// Whether a node will settle, and when it will be woken.
    settling: BTreeSet<usize>,
    waking: BTreeMap<usize, u64>,
    /// What a node wrote since its last commit.
    unacknowledged: BTreeMap<usize, Vec<(Outcome, bool)>>,
    calm: bool,
    finished: Option<Verdict>,
    events: u64,
    acknowledged: u64,
    converged_in_ms: Option<u64>,
    faults: BTreeMap<&'static str, u64>,
    durable: DurableBeforeTold,
    peers: HonestPeers,
    confined: Confined,
    resurrection: NoResurrection,
    report: HonestReport,
    bounds: Bounds,
    converged: Converged,
}

impl<'o> Simulation<'o> {
    fn new(options: &'o Options, nodes: Vec<Node>, trace: Trace) -> Self {
        let seed = options.seed;
        let workload =
            Workload::new(seed, options.ids, options.large_percent, options.secret_percent);
        Self {
            options,
            scheduler: Scheduler::default(),
            network: Network::new(options.shape),
            nodes,
            workload,
            trace,
            latency: Stream::new(seed, "latency", 0),
            chance: Stream::new(seed, "faults", 0),
            settling: BTreeSet::new(),
            waking: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            calm: false,
            finished: None,
            events: 0,
            acknowledged: 0,
            converged_in_ms: None,
            faults: BTreeMap::new(),
            durable: DurableBeforeTold::default(),
            peers: HonestPeers,
            confined: Confined::default(),
            resurrection: NoResurrection::default(),
            report: HonestReport::new(report_lag_ms(options)),
            bounds: Bounds::default(),
            converged: Converged,
        }
    }

    fn report(self, verdict: Verdict) -> Report {
        Report {
            verdict,
            ticks: self.scheduler.now_ms(),
            events: self.events,
            faults: self.faults,
            acknowledged: self.acknowledged,
            converged_in_ms: self.converged_in_ms,
            trace_hash: self.trace.hash(),
            last_lines: self.trace.last().map(str::to_owned).collect(),
        }
    }

    fn go(&mut self) -> Result<Verdict, Violation> {
        self.plan();
        while let Some(happening) = self.scheduler.pop() {
            self.events += 1;
            self.happen(happening)?;
            if let Some(verdict) = self.finished.take() {
                return Ok(verdict);
            }
        }
        // The checkers' looks go on until there is a verdict, so the queue never empties.
        Ok(Verdict::Liveness(vec!["nothing happens any more".into()]))
    }

    fn plan(&mut self) {
        for node in 0..self.nodes.len() {
            if self.options.skew_ms_max > 0 {
                let skew = self.chance.between(0, 2 * self.options.skew_ms_max) as i64;
                self.nodes[node].skew_ms = skew - self.options.skew_ms_max as i64;
            }
            if self.options.scenario == Scenario::CanaryLyingDisk && node == 1 {
                self.nodes[node].disk.lie(true);
            }
            self.settle_soon(node);
            self.dial_all(node, 0);
        }
        if self.options.scenario == Scenario::CanaryMute {
            self.network.mute = Some(1);
        }
        if self.options.scenario == Scenario::PartitionAndHeal {
            self.scheduler.at(self.options.safety_ms / 4, Happening::Partition);
        }
        self.scheduler.at(1, Happening::Write);
        for (every, happening) in [
            (self.options.cut_every_ms, Happening::Cut),
            (self.options.partition_every_ms, Happening::Partition),
            (self.options.stop_every_ms, Happening::Stop),
            (self.options.clock_jump_every_ms, Happening::ClockJump),
        ] {
            self.again(every, happening);
        }
        self.scheduler.at(LOOK_EVERY_MS, Happening::Look);
        self.scheduler.at(self.options.safety_ms, Happening::Calm);
    }

    /// Plans the next fault of a kind, if there are any of it.
    fn again(&mut self, every_ms: u64, happening: Happening) {
        if every_ms > 0 && !self.calm {
            let delay = self.chance.between(1, 2 * every_ms);
            self.scheduler.after(delay, happening);
        }
    }

    fn line(&mut self, what: &str, detail: &str) {
        self.trace.line(self.scheduler.now_ms(), what, detail);
    }

    fn fault(&mut self, name: &'static str, detail: &str) {
        *self.faults.entry(name).or_default() += 1;
        self.line(name, detail);
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Settle { node, run } if run == self.nodes[node].run => self.settle(node),
            Happening::Wake { node, run } if run == self.nodes[node].run => self.wake(node),
            Happening::Dial { node, peer, run } if run == self.nodes[node].run => {
                self.dial(node, peer);
                Ok(())
            }
            // For an earlier run of the node.
            Happening::Settle { .. } | Happening::Wake { .. } | Happening::Dial { .. } => Ok(()),
            Happening::Arrive { link, from } => self.arrive(link, from),
            Happening::Learn { link, side } => {
                self.learn(link, side);
                Ok(())
            }
            Happening::Write => self.write(),
            Happening::Cut => {
                self.cut_one();
                self.again(self.options.cut_every_ms, Happening::Cut);
                Ok(())
            }
            Happening::Partition => {
                self.partition();
                self.again(self.options.partition_every_ms, Happening::Partition);
                Ok(())
            }
            Happening::Heal => {
                self.network.heal();
                self.line("heal", "");
                Ok(())
            }
            Happening::Stop => {
                let stopped = self.stop();
                self.again(self.options.stop_every_ms, Happening::Stop);
                stopped
            }
            Happening::Start { node } => self.start(node),
            Happening::ClockJump => {
                self.clock_jump();
                self.again(self.options.clock_jump_every_ms, Happening::ClockJump);
                Ok(())
            }
            Happening::Look => self.look(),
            Happening::Calm => self.calm_down(),
        }
    }

    // ---- nodes ----

    fn settle_soon(&mut self, node: usize) {
        if self.nodes[node].running.is_some() && self.settling.insert(node) {
            let delay = if self.options.turn_ms == 0 {
                0
            } else {
                self.latency.between(0, self.options.turn_ms)
            };
            let run = self.nodes[node].run;
            self.scheduler.after(delay, Happening::Settle { node, run });
        }
    }

    /// Commits a node's turn and takes its outputs.
    fn settle(&mut self, number: usize) -> Checked {
        self.settling.remove(&number);
        let now_ms = self.scheduler.now_ms();
        let now = self.nodes[number].now(now_ms);
        let Some(running) = &mut self.nodes[number].running else { return Ok(()) };
        if let Err(error) = running.engine.commit(&mut running.store, now) {
            return self.store_failed(number, &error);
        }
        self.durable.on_commit(number, &running.store);
        self.report.on_commit(now_ms, number, &running.store);
        let mut events = Vec::new();
        while let Some(event) = running.engine.poll_event() {
            events.push(event);
        }
        for (outcome, deletes) in self.unacknowledged.remove(&number).unwrap_or_default() {
            self.acknowledged += 1;
            if deletes {
                self.durable.on_delete(&outcome);
            }
        }
        self.bounds.on_events(number, events.len())?;
        let mut closes = Vec::new();
        for event in &events {
            self.line("event", &format!("n{number} {event:?}"));
            self.peers.on_event(number, event)?;
            if let Event::Close { conn, .. } = event {
                closes.push(*conn);
            }
        }
        if let Some(error) = self.transmit(number)? {
            return self.store_failed(number, &error);
        }
        for conn in closes {
            self.close(number, conn);
        }
        let Some(running) = &self.nodes[number].running else { return Ok(()) };
        let due_ms = running.engine.poll_timeout(now).map(|due| due.0);
        self.bounds.on_timer(number, now_ms, due_ms)?;
        if let Some(due) = due_ms {
            let due = due.max(now_ms + 1);
            if self.waking.get(&number).is_none_or(|at| *at > due || *at <= now_ms) {
                self.waking.insert(number, due);
                let run = self.nodes[number].run;
                self.scheduler.at(due, Happening::Wake { node: number, run });
            }
        }
        Ok(())
    }

    /// Moves what a node wants sent onto its links.
    fn transmit(&mut self, number: usize) -> Result<Option<StoreError>, Violation> {
        let now_ms = self.scheduler.now_ms();
        loop {
            let Some(running) = &mut self.nodes[number].running else { return Ok(None) };
            let (conn, frame) = match running.engine.poll_transmit(&running.store) {
                Ok(Some(sent)) => sent,
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            };
            self.bounds.on_frame(number, &frame)?;
            self.confined.on_frame(number, conn.0, &frame)?;
            let hash = blake3::hash(&frame).to_hex();
            self.line("frame", &format!("n{number} {conn:?} {} {}", frame.len(), &hash[..8]));
            let Some((link, side)) = self.network.find(number, conn) else { continue };
            let shape = self.options.shape;
            let latency = self.latency.between(shape.latency_ms_min, shape.latency_ms_max);
            if let Some(at) = self.network.send(link, side, frame, now_ms, latency) {
                self.scheduler.at(at, Happening::Arrive { link, from: side });
            }
            if self.network.is_full(link, side)
                && let Some(running) = &mut self.nodes[number].running
                && let Some(link) = self.network.link_mut(link)
            {
                link.blocked[side] = true;
                running.engine.handle_blocked(conn, true);
            }
        }
    }

    fn wake(&mut self, number: usize) -> Checked {
        let now_ms = self.scheduler.now_ms();
        if self.waking.get(&number) != Some(&now_ms) {
            return Ok(());
        }
        self.waking.remove(&number);
        let now = self.nodes[number].now(now_ms);
        let Some(running) = &mut self.nodes[number].running else { return Ok(()) };
        if let Err(error) = running.engine.handle_timeout(&mut running.store, now) {
            return self.store_failed(number, &error);
        }
        self.settle_soon(number);
        Ok(())
    }

    fn write(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        let delay = self.chance.between(1, self.options.write_every_ms);
        self.scheduler.after(delay, Happening::Write);
        let number = self.chance.index(self.nodes.len());
        let Work { lane, ops } = self.workload.batch();
        let now = self.nodes[number].now(self.scheduler.now_ms());
        let Some(running) = &mut self.nodes[number].running else { return Ok(()) };
        match running.engine.write(&mut running.store, now, lane, &ops) {
            Ok(outcomes) => {
                let waiting = self.unacknowledged.entry(number).or_default();
                for (outcome, op) in outcomes.into_iter().zip(&ops) {
                    waiting.push((outcome, matches!(op.action, Action::Delete { .. })));
                }
                let ids: Vec<_> = ops.iter().map(|op| op.id.as_str()).collect();
                self.line("write", &format!("n{number} {lane} {ids:?}"));
                self.settle_soon(number);
                Ok(())
            }
            Err(WriteError::Store(error)) => self.store_failed(number, &error),
            Err(error) => self.refused(number, lane, &error),
        }
    }

    /// A write was refused: right for some, a fault of the node for others.
    fn refused(&mut self, number: usize, lane: LaneId, error: &WriteError) -> Checked {
        let expected = matches!(
            error,
            WriteError::NotFound { .. }
                | WriteError::AppendOnly { .. }
                | WriteError::ClassLoosened { .. }
        );
        self.line("refused", &format!("n{number} {lane} {error}"));
        // A refused batch may have opened a turn.
        self.settle_soon(number);
        if expected {
            return Ok(());
        }
        let what = format!("n{number} cannot write to {lane}: {error}");
        Err(Violation { invariant: Converged::NAME, what })
    }

    /// A store call failed: right after a power cut, wrong otherwise.
    fn store_failed(&mut self, number: usize, error: &StoreError) -> Checked {
        if !self.nodes[number].disk.is_dark() {
            return Err(unreadable(number, error));
        }
        self.fault("power", &format!("n{number} {error}"));
        self.crash(number);
        Ok(())
    }

    fn crash(&mut self, number: usize) {
        let count_lost = self.chance.percent(self.options.count_lost_percent);
        self.nodes[number].crash(&mut self.chance, count_lost);
        self.leave(number);
    }

    /// A node is gone: its links break, and it starts again after a while.
    fn leave(&mut self, number: usize) {
        self.settling.remove(&number);
        self.waking.remove(&number);
        self.unacknowledged.remove(&number);
        for (link, side) in self.network.links_of(number) {
            self.cut(link);
            self.learn_own(link, side);
        }
        let pause = if self.calm { 0 } else { self.chance.between(1, OUTAGE_MS_MAX) };
        self.scheduler.after(pause, Happening::Start { node: number });
    }

    fn stop(&mut self) -> Checked {
        let number = self.chance.index(self.nodes.len());
        let Some(running) = &mut self.nodes[number].running else { return Ok(()) };
        if !self.chance.percent(self.options.clean_stop_percent) {
            if self.chance.percent(70) {
                // In the midst of some commit soon.
                let operations = self.chance.below(30);
                self.nodes[number].disk.fail_power_after(operations);
                self.line("power plan", &format!("n{number} after {operations} operations"));
            } else {
                self.fault("crash", &format!("n{number}"));
                self.crash(number);
            }
            return Ok(());
        }
        let error = running.engine.shut_down(&mut running.store).err();
        self.fault("clean stop", &format!("n{number}"));
        if let Some(error) = error {
            return self.store_failed(number, &error);
        }
        self.settle(number)?;
        if self.nodes[number].running.is_some() {
            if let Err(error) = self.nodes[number].close() {
                return self.store_failed(number, &error);
            }
            self.leave(number);
        }
        Ok(())
    }

    fn start(&mut self, number: usize) -> Checked {
        if self.nodes[number].running.is_some() {
            return Ok(());
        }
        let running = match self.nodes[number].start() {
            Ok(running) => running,
            Err(error) => {
                let what = format!("n{number} does not start again: {}", error.0);
                return Err(Violation { invariant: DurableBeforeTold::NAME, what });
            }
        };
        self.durable.on_start(number, &running.store)?;
        self.resurrection.on_look(number, &running.store, &self.workload.known)?;
        let author = running.store.author();
        self.line("start", &format!("n{number} {}", author.incarnation));
        self.settle_soon(number);
        self.dial_all(number, 500);
        Ok(())
    }

    fn clock_jump(&mut self) {
        let number = self.chance.index(self.nodes.len());
        let jump = self.chance.between(0, 7_200_000) as i64 - 3_600_000;
        self.nodes[number].skew_ms += jump;
        self.fault("clock jump", &format!("n{number} {jump} ms"));
    }

    // ---- links ----

    fn dials(&self, node: usize, peer: usize) -> bool {
        self.options.topology.joins(node, peer) && (self.options.both_dial || node < peer)
    }

    fn dial_all(&mut self, node: usize, within_ms: u64) {
        for peer in 0..self.nodes.len() {
            if self.dials(node, peer) {
                let delay = self.latency.between(0, within_ms);
                let run = self.nodes[node].run;
                self.scheduler.after(delay, Happening::Dial { node, peer, run });
            }
            // A node that waits to be dialled was missed while it was away.
            if self.dials(peer, node) && !self.dials(node, peer) {
                self.dial_soon(peer, node);
            }
        }
    }

    fn dial_soon(&mut self, node: usize, peer: usize) {
        if self.dials(node, peer) {
            let delay = self.latency.between(20, REDIAL_MS_MAX);
            let run = self.nodes[node].run;
            self.scheduler.after(delay, Happening::Dial { node, peer, run });
        }
    }

    fn dial(&mut self, node: usize, peer: usize) {
        if self.nodes[node].running.is_none() {
            return;
        }
        let linked = self.network.links_of(node).into_iter().any(|(link, side)| {
            self.network.link(link).is_some_and(|link| link.ends[1 - side].node == peer)
        });
        if linked {
            return;
        }
        if self.nodes[peer].running.is_none() || !self.network.reaches(node, peer) {
            self.dial_soon(node, peer);
            return;
        }
        let now_ms = self.scheduler.now_ms();
        let link = self.network.connect(node, peer);
        self.line("connect", &format!("n{node} n{peer} {link:?}"));
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return };
        for (end, other) in [(ends[0], peer), (ends[1], node)] {
            let device = self.nodes[other].device();
            let now = self.nodes[end.node].now(now_ms);
            if let Some(running) = &mut self.nodes[end.node].running {
                running.engine.handle_connected(&running.store, now, end.conn, device);
            }
            self.settle_soon(end.node);
        }
    }

    fn arrive(&mut self, link: LinkId, from: usize) -> Checked {
        let Some(frame) = self.network.arrive(link, from) else { return Ok(()) };
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return Ok(()) };
        let (sender, receiver) = (ends[from], ends[1 - from]);
        if self.network.has_room(link, from)
            && let Some(link) = self.network.link_mut(link)
            && std::mem::take(&mut link.blocked[from])
        {
            if let Some(running) = &mut self.nodes[sender.node].running {
                running.engine.handle_blocked(sender.conn, false);
            }
            self.settle_soon(sender.node);
        }
        let now = self.nodes[receiver.node].now(self.scheduler.now_ms());
        let Some(running) = &mut self.nodes[receiver.node].running else { return Ok(()) };
        let handled = running.engine.handle_frame(&mut running.store, now, receiver.conn, &frame);
        if let Err(error) = handled {
            return self.store_failed(receiver.node, &error);
        }
        self.settle_soon(receiver.node);
        Ok(())
    }

    /// A node's engine wants a connection closed.
    fn close(&mut self, node: usize, conn: ConnId) {
        let Some((link, side)) = self.network.find(node, conn) else { return };
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return };
        if let Some(at) = self.network.close(link, side, self.scheduler.now_ms()) {
            self.scheduler.at(at, Happening::Learn { link, side: 1 - side });
        }
        self.confined.on_closed(node, conn.0);
        self.dial_soon(node, ends[1 - side].node);
    }

    /// Breaks a link; each end learns of it in its time.
    fn cut(&mut self, link: LinkId) {
        if !self.network.cut(link) {
            return;
        }
        for side in 0..2 {
            let delay = self.chance.between(0, self.options.detect_ms_max);
            self.scheduler.after(delay, Happening::Learn { link, side });
        }
    }

    fn learn(&mut self, link: LinkId, side: usize) {
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return };
        if !self.network.learn(link, side) {
            return;
        }
        let (end, other) = (ends[side], ends[1 - side]);
        self.line("link gone", &format!("n{} {:?}", end.node, end.conn));
        let now = self.nodes[end.node].now(self.scheduler.now_ms());
        if let Some(running) = &mut self.nodes[end.node].running {
            running.engine.handle_disconnected(now, end.conn);
        }
        self.confined.on_closed(end.node, end.conn.0);
        self.settle_soon(end.node);
        self.dial_soon(end.node, other.node);
    }

    /// A node that is gone takes its end of a link along.
    fn learn_own(&mut self, link: LinkId, side: usize) {
        let end = self.network.link(link).map(|link| link.ends[side]);
        self.network.learn(link, side);
        if let Some(end) = end {
            self.confined.on_closed(end.node, end.conn.0);
        }
    }

    fn cut_one(&mut self) {
        let links: Vec<LinkId> = self.network.healthy().map(|(id, _)| id).collect();
        if links.is_empty() {
            return;
        }
        let link = self.chance.pick(&links);
        self.fault("cut", &format!("{link:?}"));
        self.cut(link);
    }

    fn partition(&mut self) {
        if !self.network.is_whole() {
            return;
        }
        let len = self.nodes.len();
        let alone = self.chance.index(len);
        let mut side = BTreeSet::from([alone]);
        for node in 0..len {
            if side.len() + 1 < len && self.chance.percent(30) {
                side.insert(node);
            }
        }
        self.fault("partition", &format!("{side:?} from the others"));
        self.network.partition(len, &side);
        let links: Vec<LinkId> = self
            .network
            .healthy()
            .filter(|(_, link)| {
                side.contains(&link.ends[0].node) != side.contains(&link.ends[1].node)
            })
            .map(|(id, _)| id)
            .collect();
        for link in links {
            self.cut(link);
        }
        let lasts = match self.options.scenario {
            Scenario::PartitionAndHeal => self.options.safety_ms / 2,
            _ => self.chance.between(100, OUTAGE_MS_MAX),
        };
        self.scheduler.after(lasts, Happening::Heal);
    }

    // ---- checks ----

    fn calm_down(&mut self) -> Checked {
        self.calm = true;
        self.line("calm", "faults and writes are over");
        self.network.heal();
        for number in 0..self.nodes.len() {
            self.nodes[number].disk.keep_power();
            self.start(number)?;
        }
        Ok(())
    }

    fn look(&mut self) -> Checked {
        let now_ms = self.scheduler.now_ms();
        for number in 0..self.nodes.len() {
            let Some(running) = &self.nodes[number].running else { continue };
            if running.store.in_turn() || self.nodes[number].disk.is_dark() {
                continue;
            }
            self.report.on_look(now_ms, number, &self.nodes)?;
            self.resurrection.on_look(number, &running.store, &self.workload.known)?;
        }
        self.scheduler.after(LOOK_EVERY_MS, Happening::Look);
        if self.calm {
            self.look_for_the_end()?;
        }
        Ok(())
    }

    /// The time that a link needs for all that a device holds: no protocol can be in step before a
    /// device that lacks it could have got it. A link of 20 kB/s needs minutes for some workloads.
    fn passage_ms(&self) -> u64 {
        let running = self.nodes.iter().flat_map(|node| &node.running);
        let held = running.map(|running| -> u64 {
            let lanes = cluster::shared_lanes();
            let rows =
                lanes.flat_map(|lane| running.store.journals(lane)).map(|(_, row)| row.bytes);
            rows.sum()
        });
        held.max().unwrap_or(0) / self.options.shape.bytes_per_ms
    }

    fn look_for_the_end(&mut self) -> Checked {
        let now_ms = self.scheduler.now_ms();
        let topology = self.options.topology;
        let waits = self.converged.waits(&self.nodes, |a, b| topology.joins(a, b));
        let open = self.nodes.iter().flat_map(|node| &node.running).any(|r| r.store.in_turn());
        if waits.is_empty() && !open {
            self.converged_in_ms = Some(now_ms - self.options.safety_ms);
            self.line("in step", "all");
            self.converged.finish(&self.nodes, &self.workload.known, &self.workload.confined)?;
            self.durable.finish(&self.nodes, &self.workload.confined)?;
            self.finished = Some(Verdict::Pass);
        } else if now_ms > self.options.safety_ms + self.options.liveness_ms + self.passage_ms() {
            self.finished = Some(Verdict::Liveness(waits));
        }
        Ok(())
    }
}
