//! One world: the loop that feeds engines what happens, and the checkers what the engines do.

mod betrayal;
mod checks;
mod faults;
mod links;
pub mod script;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use srcos_lanes::error::StoreError;
use srcos_lanes::ids::{MeshId, Now};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Action, Op, Outcome};
use srcos_replication::engine::{ConnId, Event};

use crate::cluster::{self, Node, Running};
use crate::disk::Image;
use crate::hostile::{Tamperer, Target};
use crate::invariants::bounds::{Bounds, QUEUED_BYTES_MAX};
use crate::invariants::chain::Chains;
use crate::invariants::confined::{Confined, Sending};
use crate::invariants::durable::Durable;
use crate::invariants::marks::Marks;
use crate::invariants::report::HonestReport;
use crate::invariants::tombstones::NoResurrection;
use crate::invariants::{Checked, Excuses, Grown, Violation, durable, peers, unreadable};
use crate::network::{LinkId, Network};
use crate::options::Options;
use crate::plan::{Act, Step};
use crate::scheduler::{Purpose, Scheduler, Streams};
use crate::trace::{Sink, Trace};
use crate::workload::Workload;

/// Lag that a report may have on an idle link, in milliseconds: a digest comes every 30 s.
const REPORT_LAG_MS: u64 = 31_000;
/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Happening {
    /// A node commits what it was given, and its outputs are taken.
    Settle { node: usize, run: u64 },
    /// A node's timer.
    Wake { node: usize, run: u64 },
    /// The next frame from an end of a link reaches the other.
    Arrive { link: LinkId, from: usize, crossed: bool },
    /// An end learns that its link is gone.
    Learn { link: LinkId, side: usize },
    /// A link that has stood still for so long is taken for dead.
    GiveUp { link: LinkId },
    /// A node tries to reach another.
    Dial { node: usize, peer: usize, run: u64 },
    /// A link between two is cut, and again so many times.
    Flap { a: usize, b: usize, left: u64 },
    /// A step of the plan.
    Step(usize),
    /// A node starts again.
    Start { node: usize },
    /// A node's disk works again.
    Mend { node: usize },
    /// A node's power fails.
    Power { node: usize },
    /// A node's backup is put back, with the count of opens or without.
    PutBack { node: usize, whole: bool },
    /// A node that lost its store asks for the roster.
    Rejoin { node: usize },
    /// A device writes a batch that no step planned.
    Work { node: usize },
    /// A member puts another out.
    PutOut { by: usize, target: usize },
    /// A copy is found and destroyed.
    Retire { node: usize },
    /// A member that breaks the rules takes in an accomplice.
    Betray,
    /// A member that breaks the rules is put out.
    Caught,
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

    /// What it is about: two runs that fail alike have the same subject.
    pub const fn subject(&self) -> &'static str {
        match self {
            Self::Pass => "",
            Self::Liveness(_) => "liveness",
            Self::Correctness(violation) => violation.invariant,
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
    pub faults: BTreeMap<String, u64>,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Virtual milliseconds from the end of the faults until all were in step.
    pub converged_in_ms: Option<u64>,
    /// Devices that had to agree in the end.
    pub core: usize,
    /// The hash of the trace.
    pub trace_hash: String,
    /// The last lines of the trace.
    pub last_lines: Vec<String>,
}

impl Report {
    /// The report of a world that could not be set up.
    pub fn of_start(violation: Violation) -> Self {
        Self {
            verdict: Verdict::Correctness(violation),
            ticks: 0,
            events: 0,
            faults: BTreeMap::new(),
            acknowledged: 0,
            converged_in_ms: None,
            core: 0,
            trace_hash: String::new(),
            last_lines: Vec::new(),
        }
    }
}

/// A batch that waits for its commit.
type Written = (LaneId, Vec<Op>, Vec<Outcome>);

/// Devices, their disks and clocks, the network among them, and what watches over all of it.
pub struct World {
    options: Options,
    plan: Vec<Step>,
    scheduler: Scheduler<Happening>,
    network: Network,
    nodes: Vec<Node>,
    workload: Workload,
    trace: Trace,
    streams: Streams,
    settling: BTreeSet<usize>,
    waking: BTreeMap<usize, u64>,
    written: BTreeMap<usize, Vec<Written>>,
    /// Devices of which a backup was taken that is put back, and that work on at once then.
    restless: BTreeSet<usize>,
    images: BTreeMap<usize, (Image, Option<u64>)>,
    dial_failures: BTreeMap<(usize, usize), u32>,
    dialling: BTreeMap<(usize, usize), u64>,
    looked_at_ms: BTreeMap<usize, u64>,
    looks: u64,
    calm: bool,
    calm_at_ms: u64,
    bridged: bool,
    /// The mesh that was begun anew, once nobody was left who could speak for the one before.
    begun_anew: Option<MeshId>,
    finished: Option<Verdict>,
    events: u64,
    converged_in_ms: Option<u64>,
    faults: BTreeMap<String, u64>,
    /// Who said that its store is damaged, and how.
    damage: Vec<(usize, String)>,
    excuses: Excuses,
    grown: Grown,
    core: BTreeSet<usize>,
    chains: Chains,
    marks: Marks,
    durable: Durable,
    confined: Confined,
    resurrection: NoResurrection,
    report: HonestReport,
    bounds: Bounds,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("options", &self.options).finish_non_exhaustive()
    }
}

/// How far a report may lag behind what a peer does: until a dead link is noticed, or until the
/// word of it has crossed a full link behind a full outbox.
fn report_lag_ms(options: &Options) -> u64 {
    let shape = options.links;
    let ahead = (shape.in_flight_bytes_max + QUEUED_BYTES_MAX) as u64 / shape.bytes_per_ms;
    let skewed = REPORT_LAG_MS + REPORT_LAG_MS * options.clocks.drift_ppm_max / 1_000_000;
    options.detect_ms_max + options.dead_link_ms + shape.latency_ms_max + skewed + ahead
}

impl World {
    /// A world at its first tick: members in one mesh, outsiders each in their own, and a plan.
    pub fn new(options: Options, plan: Vec<Step>, sink: Option<Sink>) -> Result<Self, Violation> {
        let seed = options.seed;
        let mut trace = Trace::new(sink);
        trace.line(0, "options", format!("{options:?}"));
        let nodes: Vec<Node> =
            (0..options.all_devices()).map(|n| Node::new(seed, n, options.clocks)).collect();
        let mut world = Self {
            scheduler: Scheduler::default(),
            network: Network::new(options.links),
            nodes,
            workload: Workload::new(&options),
            trace,
            streams: Streams::new(seed),
            settling: BTreeSet::new(),
            waking: BTreeMap::new(),
            written: BTreeMap::new(),
            restless: BTreeSet::new(),
            images: BTreeMap::new(),
            dial_failures: BTreeMap::new(),
            dialling: BTreeMap::new(),
            looked_at_ms: BTreeMap::new(),
            looks: 0,
            calm: false,
            calm_at_ms: options.safety_ms,
            bridged: false,
            begun_anew: None,
            finished: None,
            events: 0,
            converged_in_ms: None,
            faults: BTreeMap::new(),
            damage: Vec::new(),
            excuses: Excuses::default(),
            grown: Grown::default(),
            core: BTreeSet::new(),
            chains: Chains::default(),
            marks: Marks::default(),
            durable: Durable::default(),
            confined: Confined::default(),
            resurrection: NoResurrection::default(),
            report: HonestReport::new(report_lag_ms(&options)),
            bounds: Bounds::default(),
            plan,
            options,
        };
        world.set_up()?;
        Ok(world)
    }

    fn set_up(&mut self) -> Checked {
        for number in 0..self.nodes.len() {
            let started = self.nodes[number].start(0).map(|_| ());
            started.map_err(|failure| unreadable(number, &failure.0))?;
        }
        self.nodes[0].joined = true;
        self.nodes[0].home = self.nodes[0].mesh();
        for other in 1..self.options.devices {
            cluster::pair(&mut self.nodes, 0, other, 0)
                .map_err(|error| unreadable(other, &error))?;
        }
        let breaks_rules = self.options.hostile().or(self.options.faulty());
        if let (Some(number), Some(mesh)) = (breaks_rules, self.nodes[0].mesh()) {
            let node = &mut self.nodes[number];
            let tricks = self.options.tricks.clone();
            let key = node.key().clone();
            node.tamperer = Some(Tamperer::new(key, mesh, tricks, self.options.seed));
        }
        self.excuses.faulty = self.options.faulty().map(|number| self.nodes[number].device());
        if let Some(hostile) = self.options.hostile() {
            let node = &self.nodes[hostile];
            self.excuses.hostile.insert(node.device());
            self.excuses.forks.insert(node.device());
            self.plan_betrayal();
        }
        for number in 0..self.nodes.len() {
            self.settle_soon(number);
            self.dial_all(number, 0);
        }
        for (index, step) in self.plan.iter().enumerate() {
            self.scheduler.at(step.at_ms, Happening::Step(index));
        }
        self.scheduler.at(checks::LOOK_EVERY_MS, Happening::Look);
        Ok(())
    }

    /// Runs the plan, then lets everything come to rest.
    pub fn run(mut self) -> Report {
        self.scheduler.at(self.options.safety_ms, Happening::Calm);
        let verdict = self.until_the_end();
        self.into_report(verdict)
    }

    fn until_the_end(&mut self) -> Verdict {
        while let Some(happening) = self.scheduler.pop() {
            if let Err(violation) = self.happen(happening) {
                return Verdict::Correctness(violation);
            }
            if let Some(verdict) = self.finished.take() {
                return verdict;
            }
        }
        // The checkers' looks go on until there is a verdict, so the queue never empties.
        Verdict::Liveness(vec!["nothing happens any more".into()])
    }

    fn into_report(mut self, verdict: Verdict) -> Report {
        match &verdict {
            Verdict::Pass => {}
            Verdict::Liveness(waits) => self.line("VIOLATION", waits.join("; ")),
            Verdict::Correctness(Violation { invariant, what }) => {
                self.line("VIOLATION", format_args!("{invariant}: {what}"));
            }
        }
        for number in 0..self.nodes.len() {
            self.count_tricks(number);
        }
        let faults = self.faults;
        Report {
            verdict,
            ticks: self.scheduler.now_ms(),
            events: self.events,
            faults,
            acknowledged: self.durable.acknowledged,
            converged_in_ms: self.converged_in_ms,
            core: self.core.len(),
            trace_hash: self.trace.hash(),
            last_lines: self.trace.last().map(str::to_owned).collect(),
        }
    }

    /// Counts among the faults what a member that broke the rules did. It keeps them from now on.
    fn count_tricks(&mut self, number: usize) {
        let Some(tamperer) = self.nodes[number].tamperer.take() else { return };
        for (trick, count) in tamperer.played {
            *self.faults.entry(format!("trick {trick:?}")).or_default() += count;
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.scheduler.now_ms()
    }

    fn line(&mut self, what: &str, detail: impl std::fmt::Display) {
        self.trace.line(self.scheduler.now_ms(), what, detail);
    }

    fn fault(&mut self, name: &str, detail: &str) {
        *self.faults.entry(name.to_owned()).or_default() += 1;
        self.line(name, detail);
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        self.events += 1;
        match happening {
            Happening::Settle { node, run }
            | Happening::Wake { node, run }
            | Happening::Dial { node, run, .. }
                if run != self.nodes[node].run =>
            {
                // For an earlier run of the node.
                Ok(())
            }
            Happening::Settle { node, .. }
            | Happening::Wake { node, .. }
            | Happening::Dial { node, .. }
                if self.nodes[node].frozen_until_ms > self.now_ms() =>
            {
                let thaws = self.nodes[node].frozen_until_ms;
                if matches!(happening, Happening::Wake { .. }) {
                    self.waking.insert(node, thaws);
                }
                self.scheduler.at(thaws, happening);
                Ok(())
            }
            Happening::Settle { node, .. } => self.settle(node),
            Happening::Wake { node, .. } => self.wake(node),
            Happening::Dial { node, peer, .. } => {
                if self.dialling.get(&(node, peer)) == Some(&self.now_ms()) {
                    self.dialling.remove(&(node, peer));
                }
                self.dial(node, peer);
                Ok(())
            }
            Happening::Arrive { link, from, crossed } => self.arrive(link, from, crossed),
            Happening::Learn { link, side } => {
                self.learn(link, side);
                Ok(())
            }
            Happening::GiveUp { link } => {
                self.give_up(link);
                Ok(())
            }
            Happening::Flap { a, b, left } => {
                self.flap(a, b, left);
                Ok(())
            }
            Happening::Step(index) => self.step(self.plan[index]),
            Happening::Start { node } => self.start(node),
            Happening::Mend { node } => {
                self.nodes[node].disk.mend();
                Ok(())
            }
            Happening::Power { node } => {
                self.lose_power(node);
                Ok(())
            }
            Happening::PutBack { node, whole } => {
                self.put_back(node, whole);
                Ok(())
            }
            Happening::Rejoin { node } => self.rejoin(node),
            Happening::Work { node } => self.work_on(node),
            Happening::PutOut { by, target } => self.put_out_now(by, target),
            Happening::Retire { node } => {
                self.retire(node);
                Ok(())
            }
            Happening::Betray => self.betray(),
            Happening::Caught => self.catch(),
            Happening::Look => self.look(),
            Happening::Calm => self.calm_down(),
        }
    }

    fn step(&mut self, step: Step) -> Checked {
        if self.calm {
            return Ok(());
        }
        self.bounds.on_step();
        let mut stream = step.stream(self.options.seed);
        match step.act {
            Act::Write(size) => {
                let number = stream.index(self.nodes.len());
                let mut work = self.workload.batch(&mut stream, number, size);
                // Where an accomplice deletes, nothing that anybody shows can be compared in the end. So in
                // half of the worlds it does not.
                let spares = self.excuses.accomplices.contains(&self.nodes[number].device())
                    && self.options.seed % 2 == 1;
                work.ops.retain(|op| !spares || !matches!(op.action, Action::Delete { .. }));
                if work.ops.is_empty() { Ok(()) } else { self.write(number, work) }
            }
            Act::Fault(fault) => self.strike(fault, &mut stream),
        }
    }

    // ---- nodes ----

    /// Calls into a node. What redb panics on in a store whose bytes were changed is damage, as the
    /// shipped node says too.
    fn call<T>(
        &mut self,
        number: usize,
        call: impl FnOnce(&mut Running, Now) -> Result<T, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        let now_ms = self.now_ms();
        let node = &mut self.nodes[number];
        let now = node.now(now_ms);
        let suspect = node.suspect;
        let running = node.running.as_mut()?;
        if !suspect {
            return Some(call(running, now));
        }
        let contained = catch_unwind(AssertUnwindSafe(|| call(running, now)));
        Some(contained.unwrap_or_else(|_| {
            Err(StoreError::Damaged { place: "file".into(), what: "it panicked".into() })
        }))
    }

    fn settle_soon(&mut self, node: usize) {
        if self.nodes[node].running.is_some() && self.settling.insert(node) {
            let delay = match self.options.turn_ms {
                0 => 0,
                turn => self.streams.of(Purpose::Turn, node).between(0, turn),
            };
            let run = self.nodes[node].run;
            self.scheduler.after(delay, Happening::Settle { node, run });
        }
    }

    /// Commits a node's turn and takes its outputs.
    fn settle(&mut self, number: usize) -> Checked {
        self.settling.remove(&number);
        let now_ms = self.now_ms();
        let committed = self.call(number, |running, now| {
            let had_turn = running.store.in_turn();
            running.engine.commit(&mut running.store, now)?;
            Ok(had_turn)
        });
        let had_turn = match committed {
            None => return Ok(()),
            Some(Ok(had_turn)) => had_turn,
            Some(Err(error)) => return self.store_failed(number, &error),
        };
        for (lane, ops, outcomes) in self.written.remove(&number).unwrap_or_default() {
            self.durable.on_acknowledged(number, lane, &ops, &outcomes);
            if self.excuses.is_unwelcome(self.nodes[number].device()) {
                self.smuggle(number, lane);
            }
        }
        if had_turn {
            self.committed(number)?;
        }
        let Some(running) = &mut self.nodes[number].running else { return Ok(()) };
        let events: Vec<Event> = std::iter::from_fn(|| running.engine.poll_event()).collect();
        self.bounds.on_events(number, events.len())?;
        let mut closes = Vec::new();
        for event in &events {
            self.line("event", format_args!("n{number} {event:?}"));
            if !self.nodes[number].breaks_rules() {
                peers::on_event(number, &self.nodes, event, &self.excuses)?;
            }
            match event {
                Event::Close { conn, .. } => closes.push(*conn),
                // As the shipped node does, which then knows whom it may dial.
                Event::RosterChanged => {
                    self.report.on_roster();
                    self.dial_all(number, 500);
                }
                _ => {}
            }
        }
        if let Some(error) = self.transmit(number)? {
            return self.store_failed(number, &error);
        }
        for conn in closes {
            self.close(number, conn);
        }
        self.set_timer(number, now_ms)
    }

    fn committed(&mut self, number: usize) -> Checked {
        let now_ms = self.now_ms();
        let Some(running) = &self.nodes[number].running else { return Ok(()) };
        let changed = self.grown.since_last(number, &running.store);
        // A copy shares the device of its original, and has its own disk.
        if self.nodes[number].copy_of.is_none() {
            self.durable.on_commit(number, &running.store, &changed);
        }
        self.excuses.on_commit(&running.store);
        // A store that may be damaged is verified as a whole, in the end.
        let chained = match self.nodes[number].suspect {
            true => Ok(()),
            false => self.chains.on_commit(number, &running.store, &changed, &self.excuses),
        };
        let marked =
            self.marks.on_commit(number, &running.store, running.engine.roster(), &changed);
        self.report.on_commit(now_ms, number, &running.store, &changed);
        let seen = self.resurrection.on_commit(number, &running.store);
        self.tolerate(number, chained.and(marked).and(seen))?;
        if self.looked_at_ms.get(&number).is_none_or(|at| at + checks::LOOK_AGAIN_MS <= now_ms) {
            self.looked_at_ms.insert(number, now_ms);
            self.look_at_report(number)?;
        }
        Ok(())
    }

    fn set_timer(&mut self, number: usize, now_ms: u64) -> Checked {
        let node = &self.nodes[number];
        let Some(running) = &node.running else { return Ok(()) };
        let now = node.now(now_ms);
        let due = running.engine.poll_timeout(now);
        self.bounds.on_timer(number, due.is_some_and(|due| due <= now.mono))?;
        let Some(due) = due else { return Ok(()) };
        let due = node.clock.when(due).max(now_ms + 1);
        if self.waking.get(&number).is_none_or(|at| *at > due || *at <= now_ms) {
            self.waking.insert(number, due);
            self.scheduler.at(due, Happening::Wake { node: number, run: node.run });
        }
        Ok(())
    }

    /// Moves what a node wants sent onto its links.
    fn transmit(&mut self, number: usize) -> Result<Option<StoreError>, Violation> {
        let mut sent = 0;
        loop {
            let polled =
                self.call(number, |running, _| running.engine.poll_transmit(&running.store));
            let (conn, frame) = match polled {
                Some(Ok(Some(sent))) => sent,
                None | Some(Ok(None)) => return Ok(None),
                Some(Err(error)) => return Ok(Some(error)),
            };
            sent += 1;
            self.bounds.on_frame(number, &frame, sent)?;
            let found = self.network.find(number, conn);
            let peer =
                found.and_then(|(link, side)| Some(self.network.link(link)?.ends[1 - side].node));
            let to = peer.map(|peer| self.nodes[peer].device());
            let node = &mut self.nodes[number];
            let (now_ms, hash) = (self.scheduler.now_ms(), blake3::hash(&frame).to_hex());
            let text = format_args!("n{number} {conn:?} {} {}", frame.len(), &hash[..8]);
            self.trace.line(now_ms, "frame", text);
            if let Some(to) = to.filter(|_| !node.breaks_rules()) {
                let Some(running) = &node.running else { return Ok(None) };
                let (grants, roster) = (&node.grants, running.engine.roster());
                let sending = Sending { node: number, conn: conn.0, to, grants, roster };
                self.confined.on_frame(sending, &frame)?;
            }
            let frames = match (&mut node.tamperer, peer, to) {
                (Some(tamperer), Some(peer), Some(device)) => {
                    tamperer.send(Target { conn: conn.0, device, peer }, frame)
                }
                (None, _, Some(_)) => vec![frame],
                _ => Vec::new(),
            };
            let Some((link, side)) = found else { continue };
            frames.into_iter().for_each(|frame| self.put_on_link(link, side, frame));
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
        if self.waking.get(&number) != Some(&self.now_ms()) {
            return Ok(());
        }
        self.waking.remove(&number);
        let woken = self
            .call(number, |running, now| running.engine.handle_timeout(&mut running.store, now));
        if let Some(Err(error)) = woken {
            return self.store_failed(number, &error);
        }
        self.settle_soon(number);
        Ok(())
    }

    /// A store call failed: right after the disk failed, or in a store whose bytes were changed.
    fn store_failed(&mut self, number: usize, error: &StoreError) -> Checked {
        let node = &mut self.nodes[number];
        match node.disk.failed() {
            Some(_) if node.disk.is_dark() => {
                self.fault("power failed", &format!("n{number} {error}"));
                self.nodes[number].cut_power(self.streams.of(Purpose::Power, number));
            }
            Some(why) => {
                self.fault("disk failed", &format!("n{number} {why}: {error}"));
                self.nodes[number].kill();
            }
            None if node.suspect => {
                self.damaged(number, format!("n{number} {error}"));
                return Ok(());
            }
            None => return Err(unreadable(number, error)),
        }
        self.leave(number);
        Ok(())
    }

    /// That a checker cannot read from a node is excused while its disk fails, and where its bytes were
    /// changed: then the node has said so.
    fn tolerate(&mut self, number: usize, found: Checked) -> Checked {
        match found {
            Err(violation) if violation.is_unreadable() => {
                let node = &mut self.nodes[number];
                if node.disk.failed().is_some() {
                    node.kill();
                    self.fault("disk failed", &violation.what);
                    self.leave(number);
                } else if node.suspect {
                    self.damaged(number, violation.what);
                } else {
                    return Err(violation);
                }
                Ok(())
            }
            other => other,
        }
    }

    fn start(&mut self, number: usize) -> Checked {
        let now_ms = self.now_ms();
        let node = &mut self.nodes[number];
        if node.running.is_some() || node.retired {
            return Ok(());
        }
        if node.away_until_ms > now_ms {
            self.scheduler.at(node.away_until_ms, Happening::Start { node: number });
            return Ok(());
        }
        if let Err(failure) = node.start(now_ms).map(|_| ()) {
            let error = failure.0;
            if node.disk.failed().is_none() && !node.suspect {
                let what = format!("n{number} does not start again: {error}");
                return Err(Violation { invariant: durable::NAME, what });
            }
            return self.store_failed(number, &error);
        }
        if self.nodes[number].suspect {
            // What it acknowledged while its syncs did nothing may be gone.
            self.may_lose(number, true);
        }
        self.grown.forget(number);
        let Some(running) = &self.nodes[number].running else { return Ok(()) };
        let incarnation = running.store.author().incarnation;
        let kept = self.durable.on_start(number, &running.store, &self.excuses);
        self.tolerate(number, kept)?;
        let Some(running) = &self.nodes[number].running else { return Ok(()) };
        let seen = self.resurrection.on_look(number, &running.store, &self.workload.known);
        self.tolerate(number, seen)?;
        self.line("start", format!("n{number} {incarnation}"));
        // A commit whose last sync failed can be there all the same.
        self.committed(number)?;
        self.settle_soon(number);
        self.dial_all(number, 500);
        if self.restless.contains(&number) && !self.images.contains_key(&number) {
            self.restless.remove(&number);
            self.work_soon(number);
        }
        if self.nodes[number].homeless && self.nodes[number].joined {
            self.excuses.late.insert(self.nodes[number].device());
            self.scheduler.after(1_000, Happening::Rejoin { node: number });
        }
        Ok(())
    }

    /// A node is gone: its links break, and it starts again after a while.
    fn leave(&mut self, number: usize) {
        self.forget(number);
        let pause = if self.calm { 10 } else { self.outage(number) };
        self.scheduler.after(pause, Happening::Start { node: number });
    }

    fn forget(&mut self, number: usize) {
        self.settling.remove(&number);
        self.waking.remove(&number);
        self.written.remove(&number);
        self.dialling.retain(|(node, _), _| *node != number);
        for (link, side) in self.network.links_of(number) {
            self.cut(link);
            self.learn_own(link, side);
        }
    }

    fn outage(&mut self, number: usize) -> u64 {
        let (least, most) = self.options.outage_ms;
        self.streams.of(Purpose::Outage, number).between(least, most)
    }

    fn close(&mut self, node: usize, conn: ConnId) {
        self.close_link(node, conn);
        self.confined.on_closed(node, conn.0);
    }
}
