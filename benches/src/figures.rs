//! The figures, one function each.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::interrupt;
use crate::latency::Probe;
use crate::node::{Node, Program};
use crate::pair::{LANE, Link, Pair, import, prepare, scratch, start};
use crate::report::{Goal, Report};
use crate::stats::median;
use crate::workload;

/// Objects in the small lane that a large one is compared with.
const SMALL: u64 = 1_000;
/// Clients that put at once.
const CLIENTS: usize = 8;
/// How long they put.
const PUT_TIME: Duration = Duration::from_secs(5);
/// How long an idle pair is watched.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Time for the last receipts after a link came back.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// `figures`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Objects of first_sync, reconnect and import
    #[arg(long, default_value_t = 100_000)]
    objects: u64,
    /// Objects of the large lane in change_latency and start_to_ready
    #[arg(long, default_value_t = 1_000_000)]
    large: u64,
    /// Changes that are timed one after the other
    #[arg(long, default_value_t = 1_000)]
    samples: u64,
    /// Runs of which the median is taken, where a run is a matter of seconds
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only this figure; may repeat
    #[arg(long, value_name = "NAME")]
    only: Vec<Figure>,
    /// Measure this program instead of building target/release/srcos-node
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Put the data directories here: a real disk, not memory [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the table and the JSON lines here [default: they are only printed]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
enum Figure {
    FirstSync,
    ChangeLatency,
    Reconnect,
    LocalWrites,
    StartToReady,
    Idle,
}

impl Options {
    fn wants(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }

    /// The most objects that any figure which is asked for has at the same time.
    fn most_objects(&self) -> u64 {
        let wants = |figures: &[Figure]| figures.iter().any(|figure| self.wants(*figure));
        let objects = wants(&[Figure::FirstSync, Figure::Reconnect, Figure::LocalWrites]);
        let large = wants(&[Figure::ChangeLatency, Figure::StartToReady]);
        let most = [(true, SMALL), (objects, self.objects), (large, self.large)];
        most.into_iter()
            .filter(|(wanted, _)| *wanted)
            .map(|(_, objects)| objects)
            .max()
            .unwrap_or(0)
    }

    fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }
}

/// Measures; returns whether everything could be measured.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let program = Program::locate(options.node.as_deref())?;
    prepare(options.dir(), options.most_objects())?;
    let results = options.results.as_deref().map(|results| (results, "figures"));
    let mut report = Report::new(&program, results)?;
    if options.wants(Figure::LocalWrites) {
        report.part("local_writes", |report| local_writes(options, &program, report));
    }
    let (syncs, reconnects) = (options.wants(Figure::FirstSync), options.wants(Figure::Reconnect));
    if syncs || reconnects {
        for link in [Link::Quic, Link::Tcp] {
            if syncs || link == Link::Quic {
                report.part("first_sync", |report| first_sync(options, &program, report, link));
            }
        }
    }
    if reconnects || options.wants(Figure::Idle) {
        report.part("small lane", |report| {
            let (pair, _) = Pair::filled(&program, options.dir(), Link::Quic, SMALL)?;
            if reconnects {
                reconnect(&pair, report, options, SMALL)?;
            }
            if options.wants(Figure::Idle) {
                idle(&pair, report)?;
            }
            Ok(())
        });
    }
    if options.wants(Figure::ChangeLatency) {
        report.part("change_latency", |report| change_latency(options, &program, report));
    }
    if options.wants(Figure::StartToReady) {
        report.part("start_to_ready", |report| start_to_ready(options, &program, report));
    }
    report.finish()
}

fn local_writes(options: &Options, program: &Program, report: &mut Report) -> anyhow::Result<()> {
    let mut rates = Vec::new();
    for _ in 0..options.runs {
        let scratch = scratch(options.dir())?;
        let node = start(program, scratch.path(), "a", Link::Quic, None)?;
        let took = import(&node, scratch.path(), options.objects)?;
        rates.push(options.objects as f64 / took.as_secs_f64());
    }
    let what = format!("import of {} objects", options.objects);
    report.add("local_writes", what, median(&rates), "objects/s", Some(Goal::AtLeast(15_000.0)));

    let mut rates = Vec::new();
    for _ in 0..options.runs {
        let scratch = scratch(options.dir())?;
        let node = start(program, scratch.path(), "a", Link::Quic, None)?;
        rates.push(puts_per_second(&node)?);
    }
    let what = format!("durable single puts, {CLIENTS} clients");
    report.add("local_writes", what, median(&rates), "puts/s", Some(Goal::AtLeast(500.0)));
    Ok(())
}

fn puts_per_second(node: &Node) -> anyhow::Result<f64> {
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let puts = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let over = &over;
                scope.spawn(move || -> anyhow::Result<u64> {
                    let mut http = node.client()?;
                    let mut done = 0;
                    while !over.load(Ordering::Relaxed) {
                        let id = workload::id(&format!("client-{client}"), done);
                        http.put(LANE, &id, &workload::body(done))?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        std::thread::sleep(PUT_TIME);
        over.store(true, Ordering::Relaxed);
        clients.into_iter().try_fold(0, |sum, client| {
            let done = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            Ok::<_, anyhow::Error>(sum + done?)
        })
    })?;
    Ok(puts as f64 / began.elapsed().as_secs_f64())
}

fn first_sync(
    options: &Options,
    program: &Program,
    report: &mut Report,
    link: Link,
) -> anyhow::Result<()> {
    let name = link.name();
    let runs = if options.wants(Figure::FirstSync) { options.runs } else { 1 };
    let (mut rates, mut links) = (Vec::new(), Vec::new());
    let (mut memory_a, mut memory_b) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..runs {
        let (pair, sync) = Pair::filled(program, options.dir(), link, options.objects)?;
        rates.push(options.objects as f64 / sync.transfer().as_secs_f64());
        links.push(sync.linked.as_secs_f64() * 1e3);
        memory_a.push(pair.a.memory_mb("VmHWM")?);
        memory_b.push(pair.b.memory_mb("VmHWM")?);
        last = Some(pair);
    }
    if options.wants(Figure::FirstSync) {
        let quic = link == Link::Quic;
        let rate = quic.then_some(Goal::AtLeast(30_000.0));
        let memory = quic.then_some(Goal::Under(150.0));
        let mut add = |what: String, values: &[f64], unit, goal| {
            report.add("first_sync", what, median(values), unit, goal);
        };
        let objects = options.objects;
        add(format!("{name}, {objects} objects, link to in step"), &rates, "objects/s", rate);
        add(format!("{name}, online to link"), &links, "ms", None);
        add(format!("{name}, peak memory of the sender, import included"), &memory_a, "MB", memory);
        add(format!("{name}, peak memory of the receiver"), &memory_b, "MB", memory);
    }
    if link == Link::Quic
        && options.wants(Figure::Reconnect)
        && let Some(pair) = last
    {
        reconnect(&pair, report, options, options.objects)?;
    }
    Ok(())
}

fn reconnect(
    pair: &Pair,
    report: &mut Report,
    options: &Options,
    objects: u64,
) -> anyhow::Result<()> {
    let (mut bytes, mut packets, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        pair.cut()?;
        let before = pair.frame_bytes()?;
        let packets_before = loopback_bytes()?;
        let sync = pair.rejoin(objects)?;
        interrupt::wait(SETTLE_TIME)?;
        bytes.push(pair.frame_bytes()? - before);
        packets.push(loopback_bytes()? - packets_before);
        times.push(sync.in_step.as_secs_f64() * 1e3);
    }
    let what = format!("bytes of frames, both ways, {objects} objects");
    report.add("reconnect", what, median(&bytes), "bytes", Some(Goal::Under(4_000.0)));
    let what = format!("all packets on loopback, handshake included, {objects} objects");
    report.add("reconnect", what, median(&packets), "bytes", None);
    let what = format!("online to in step, {objects} objects");
    report.add("reconnect", what, median(&times), "ms", None);
    Ok(())
}

fn change_latency(options: &Options, program: &Program, report: &mut Report) -> anyhow::Result<()> {
    let (small, _) = Pair::filled(program, options.dir(), Link::Quic, SMALL)?;
    let (large, _) = Pair::filled(program, options.dir(), Link::Quic, options.large)?;
    let mut probes = [Probe::new(&small, SMALL)?, Probe::new(&large, options.large)?];
    // In turns, so that what else the machine does falls on both alike; one after the other, a
    // change of load between them would pass for a difference between the lanes.
    for _ in 0..options.samples {
        for probe in &mut probes {
            probe.sample()?;
        }
    }
    for probe in &probes {
        probe.tell(report);
    }
    let ratio = probes[1].p50() / probes[0].p50();
    let what = format!("p50 with {} objects / with {SMALL}, in turns", options.large);
    report.add("change_latency", what, ratio, "", Some(Goal::Under(1.3)));
    Ok(())
}

fn start_to_ready(options: &Options, program: &Program, report: &mut Report) -> anyhow::Result<()> {
    let scratch = scratch(options.dir())?;
    let mut node = start(program, scratch.path(), "a", Link::Quic, None)?;
    import(&node, scratch.path(), options.large)?;
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        node.stop()?;
        node = start(program, scratch.path(), "a", Link::Quic, None)?;
        times.push(node.ready_after.as_secs_f64() * 1e3);
        memory.push(node.memory_mb("VmHWM")?);
    }
    let objects = options.large;
    let what = format!("exec to the ready line, {objects} objects");
    report.add("start_to_ready", what, median(&times), "ms", Some(Goal::Under(300.0)));
    let what = format!("peak memory then, {objects} objects");
    report.add("start_to_ready", what, median(&memory), "MB", Some(Goal::Under(80.0)));
    Ok(())
}

fn idle(pair: &Pair, report: &mut Report) -> anyhow::Result<()> {
    interrupt::wait(SETTLE_TIME)?;
    let cpu = || Ok::<_, anyhow::Error>((pair.a.cpu_seconds()?, pair.b.cpu_seconds()?));
    let bytes = pair.frame_bytes()?;
    let before = cpu()?;
    let began = Instant::now();
    interrupt::wait(IDLE_TIME)?;
    let after = cpu()?;
    let seconds = began.elapsed().as_secs_f64();
    let bytes = pair.frame_bytes()? - bytes;
    let share = |before: [f64; 2], after: [f64; 2]| {
        f64::max(after[0] - before[0], after[1] - before[1]) / seconds * 100.0
    };
    let goal = Some(Goal::Under(0.5));
    report.add("idle", "processor of A", share(before.0, after.0), "% of a core", goal);
    report.add("idle", "processor of B", share(before.1, after.1), "% of a core", goal);
    report.add("idle", "frames, both ways", bytes / seconds * 60.0, "bytes/min", None);
    Ok(())
}

/// Bytes of all packets that the loopback interface has carried, headers included, whoever sent
/// them: only the nodes', where the benchmark runs in a network namespace of its own.
pub(crate) fn loopback_bytes() -> anyhow::Result<f64> {
    let interfaces = std::fs::read_to_string("/proc/net/dev")?;
    let found = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let received = found.and_then(|counts| counts.split_whitespace().next()?.parse().ok());
    received.context("no loopback interface in /proc/net/dev")
}
