//! How each cost grows: with objects, with the history of one object, with days away, with devices.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::figures::loopback_bytes;
use crate::interrupt;
use crate::latency::Probe;
use crate::node::{Node, Program};
use crate::pair::{LANE, Link, Pair, import, prepare, scratch, start};
use crate::plot::{self, Series};
use crate::report::{Report, complain};
use crate::stats::{growth, median};
use crate::workload;

/// Time for the last receipts, and for memory to be given back, before an idle node is looked at.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// How long an idle pair is watched: what it says every 30 s is in it.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Times that a quick answer is asked for, and that a command is run.
const ASKS: usize = 50;
const COMMANDS: usize = 10;
/// A point that takes longer is the last one of its row.
const POINT_TIME_MAX: Duration = Duration::from_secs(300);
/// Edits of one object are timed for no longer: there are fewer of slow ones.
const SAMPLES_TIME_MAX: Duration = Duration::from_secs(20);
/// Objects in the lane of a device that is away.
const AWAY_OBJECTS: u64 = 10_000;
/// Changes that the other device makes on each day away, all of objects that both have.
const CHANGES_A_DAY: u64 = 1_000;
/// Longest wait until all of a mesh have a change.
const MESH_TIMEOUT: Duration = Duration::from_secs(60);

/// What a whole run measures.
const OBJECTS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const EDITS: [u64; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
const DAYS: [u64; 4] = [1, 7, 30, 100];
const DEVICES: [usize; 3] = [2, 4, 8];
const SAMPLES: u64 = 1_000;

/// `scale`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Objects in the lane, one point each
    #[arg(long, value_delimiter = ',', default_values_t = OBJECTS)]
    objects: Vec<u64>,
    /// Edits of one object, one point each
    #[arg(long, value_delimiter = ',', default_values_t = EDITS)]
    edits: Vec<u64>,
    /// Days away, with a thousand changes on each, one point each
    #[arg(long, value_delimiter = ',', default_values_t = DAYS)]
    days: Vec<u64>,
    /// Devices of a mesh on this machine, one point each
    #[arg(long, value_delimiter = ',', default_values_t = DEVICES)]
    devices: Vec<usize>,
    /// Changes that are timed one after the other at each point
    #[arg(long, default_value_t = SAMPLES)]
    samples: u64,
    /// Measure this program instead of building target/release/srcos-node
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Put the data directories here: a real disk, not memory [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the table, the JSON lines and the pictures here [default: benches/results for a whole run; a part of
    /// one is only printed]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

/// Points of one cost: how much of something there was, and what it cost.
struct Costs {
    by: &'static str,
    rows: Vec<Cost>,
}

struct Cost {
    what: String,
    unit: &'static str,
    points: Vec<(f64, f64)>,
}

impl Costs {
    fn new(by: &'static str) -> Self {
        Self { by, rows: Vec::new() }
    }

    fn add(&mut self, report: &mut Report, at: f64, what: &str, value: f64, unit: &'static str) {
        report.add(self.by, format!("{what}, {at} {}", self.by), value, unit, None);
        match self.rows.iter_mut().find(|cost| cost.what == what) {
            Some(cost) => cost.points.push((at, value)),
            None => {
                let (what, points) = (what.to_owned(), vec![(at, value)]);
                self.rows.push(Cost { what, unit, points });
            }
        }
    }

    /// The exponent of each cost.
    fn growth(&self, report: &mut Report) {
        for Cost { what, points, .. } in &self.rows {
            if let Some(exponent) = growth(points) {
                let what = format!("{what}: exponent over {}", self.by);
                report.add("growth", what, exponent, "", None);
            }
            // Over all, a cost that begins to grow at the end seems flat.
            if let [_, .., before, last] = points[..]
                && let Some(exponent) = growth(&[before, last])
            {
                let what = format!("{what}: exponent from {} to {} {}", before.0, last.0, self.by);
                report.add("growth", what, exponent, "", None);
            }
        }
    }

    /// A picture of all of them.
    fn draw(&self, results: &Path) -> anyhow::Result<()> {
        let series = self.rows.iter().map(|Cost { what, unit, points }| Series {
            name: format!("{what} ({unit})"),
            points: points.clone(),
        });
        let series: Vec<Series> = series.collect();
        let file = results.join(format!("scale-{}.svg", self.by.replace(' ', "-")));
        let svg = plot::log_log(&format!("cost by {}", self.by), self.by, &series);
        write(&file, &svg)
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Measures; returns whether everything could be measured.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let program = Program::locate(options.node.as_deref())?;
    // What is stored is whole: a part of it does not take its place.
    let whole = (&options.objects[..], &options.edits[..]) == (&OBJECTS[..], &EDITS[..])
        && (&options.days[..], &options.devices[..]) == (&DAYS[..], &DEVICES[..])
        && options.samples == SAMPLES;
    let stored = || Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let results = options.results.clone().or_else(|| whole.then(stored));
    let most = options.objects.iter().chain(&options.edits).max().copied().unwrap_or_default();
    prepare(options.dir.as_deref(), most)?;
    let mut report = Report::new(&program, results.as_deref().map(|results| (results, "scale")))?;
    let mut by_objects = Costs::new("objects");
    let mut latencies = Vec::new();
    for objects in &options.objects {
        report.part("objects", |report| {
            with_objects(options, &program, report, &mut by_objects, &mut latencies, *objects)
        });
    }
    let mut by_edits = Costs::new("edits");
    for edits in &options.edits {
        let began = Instant::now();
        report.part("edits", |report| with_edits(options, &program, report, &mut by_edits, *edits));
        if began.elapsed() > POINT_TIME_MAX {
            break;
        }
    }
    let mut by_days = Costs::new("days away");
    for days in &options.days {
        report.part("days away", |report| away(options, &program, report, &mut by_days, *days));
    }
    let mut by_devices = Costs::new("devices");
    for devices in &options.devices {
        report.part("devices", |report| {
            with_devices(options, &program, report, &mut by_devices, *devices)
        });
    }
    let costs = [by_objects, by_edits, by_days, by_devices];
    costs.iter().for_each(|costs| costs.growth(&mut report));
    // The table first: the disk may be what failed.
    let complete = report.finish()?;
    if results.is_none() {
        complain("not stored, since it is a part of a run: --results DIR stores it there");
    }
    let Some(results) = results.filter(|_| complete) else { return Ok(complete) };
    for costs in costs.iter().filter(|costs| !costs.rows.is_empty()) {
        costs.draw(&results)?;
    }
    if !latencies.is_empty() {
        let across = "the slowest change of so many (10: the slowest tenth)";
        let svg = plot::log_log("committed on A to visible on B, ms", across, &latencies);
        write(&results.join("scale-latency.svg"), &svg)?;
    }
    Ok(true)
}

fn with_objects(
    options: &Options,
    program: &Program,
    report: &mut Report,
    costs: &mut Costs,
    latencies: &mut Vec<Series>,
    objects: u64,
) -> anyhow::Result<()> {
    let mut pair = Pair::new(program, options.dir.as_deref(), Link::Quic)?;
    let n = objects as f64;
    let mut add = |report: &mut Report, what: &str, value, unit| {
        costs.add(report, n, what, value, unit);
    };
    pair.cut()?;
    let took = import(&pair.a, pair.scratch.path(), objects)?;
    add(report, "import", took.as_secs_f64() * 1e6 / n, "us/object");
    let (frames, packets) = (pair.frame_bytes()?, loopback_bytes()?);
    let sync = pair.rejoin(objects)?;
    let packets = loopback_bytes()? - packets;
    add(report, "first sync", sync.transfer().as_secs_f64() * 1e6 / n, "us/object");
    add(report, "frames of the first sync", (pair.frame_bytes()? - frames) / n, "bytes/object");
    add(report, "packets of the first sync, on loopback", packets / n, "bytes/object");
    for (name, node) in [("sender", &pair.a), ("receiver", &pair.b)] {
        let peak = node.memory_mb("VmHWM")?;
        add(report, &format!("peak memory of the {name}"), peak, "MB");
    }
    let mut probe = Probe::new(&pair, objects)?;
    for _ in 0..options.samples {
        probe.sample()?;
    }
    add(report, "change visible, p50", probe.p50(), "ms");
    add(report, "change visible, p99", probe.p99(), "ms");
    latencies
        .push(Series { name: format!("{objects} objects (ms)"), points: probe.distribution() });
    let objects = objects + options.samples;
    pair.wait_in_step(objects)?;

    pair.cut()?;
    let (frames, packets) = (pair.frame_bytes()?, loopback_bytes()?);
    let sync = pair.rejoin(objects)?;
    interrupt::wait(SETTLE_TIME)?;
    add(report, "frames of a reconnect", pair.frame_bytes()? - frames, "bytes");
    add(report, "packets of a reconnect, on loopback", loopback_bytes()? - packets, "bytes");
    add(report, "reconnect", sync.in_step.as_secs_f64() * 1e3, "ms");
    add(report, "lanes status", asked(&pair.a, "/lanes")?, "ms");
    add(report, "lanes status, the command", commanded(&pair.a, &["lanes", "status"])?, "ms");
    add(report, "status, the command", commanded(&pair.a, &["status"])?, "ms");
    for (name, node) in [("sender", &pair.a), ("receiver", &pair.b)] {
        let present = node.memory_mb("VmRSS")?;
        add(report, &format!("idle memory of the {name}"), present, "MB");
        let stored = node.store_bytes()?;
        add(report, &format!("store of the {name}"), stored / objects as f64, "bytes/object");
    }
    let cpu = || Ok::<_, anyhow::Error>([pair.a.cpu_seconds()?, pair.b.cpu_seconds()?]);
    let (before, frames) = (cpu()?, pair.frame_bytes()?);
    interrupt::wait(IDLE_TIME)?;
    for ((name, before), after) in ["sender", "receiver"].into_iter().zip(before).zip(cpu()?) {
        let used = f64::max(after[0] - before[0], after[1] - before[1]);
        let share = used / IDLE_TIME.as_secs_f64() * 100.0;
        add(report, &format!("idle processor of the {name}"), share, "% of a core");
    }
    let per_minute = (pair.frame_bytes()? - frames) / IDLE_TIME.as_secs_f64() * 60.0;
    add(report, "idle frames", per_minute, "bytes/min");
    pair.restart_a()?;
    add(report, "start to ready", pair.a.ready_after.as_secs_f64() * 1e3, "ms");
    Ok(())
}

/// The time of an answer, in milliseconds.
fn asked(node: &Node, path: &str) -> anyhow::Result<f64> {
    let mut client = node.client()?;
    timed(ASKS, || client.get(path).map(drop))
}

/// The time of a command, from its start to its end, in milliseconds.
fn commanded(node: &Node, args: &[&str]) -> anyhow::Result<f64> {
    timed(COMMANDS, || node.run(args).map(drop))
}

/// The median time of something that is done so many times, in milliseconds.
fn timed(times: usize, mut act: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        act()?;
        taken.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&taken))
}

fn with_edits(
    options: &Options,
    program: &Program,
    report: &mut Report,
    costs: &mut Costs,
    edits: u64,
) -> anyhow::Result<()> {
    let pair = Pair::new(program, options.dir.as_deref(), Link::Quic)?;
    let n = edits as f64;
    pair.cut()?;
    // Lines of one id: each is an edit of the same object.
    let file = pair.scratch.path().join("edits.jsonl");
    let mut lines = String::new();
    for number in 0..edits {
        let line = json!({"id": "edited", "kind": "file", "body": workload::body(number)});
        writeln!(lines, "{line}")?;
    }
    std::fs::write(&file, lines)?;
    let path = file.to_str().context("the directory's path is not UTF-8")?;
    let began = Instant::now();
    pair.a.run(&["import", LANE, path])?;
    costs.add(report, n, "import", began.elapsed().as_secs_f64() * 1e6 / n, "us/edit");
    let sync = pair.rejoin(1)?;
    costs.add(report, n, "sync", sync.transfer().as_secs_f64() * 1e6 / n, "us/edit");
    costs.add(report, n, "store", pair.b.store_bytes()? / n, "bytes/edit");
    costs.add(report, n, "get", asked(&pair.b, &format!("/lanes/{LANE}/objects/edited"))?, "ms");
    let mut client = pair.a.client()?;
    let mut times = Vec::new();
    let first = Instant::now();
    for number in 0..options.samples.min(200) {
        if first.elapsed() > SAMPLES_TIME_MAX {
            break;
        }
        let began = Instant::now();
        client.put(LANE, "edited", &workload::body(edits + number))?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    costs.add(report, n, "one more edit, committed, p50", median(&times), "ms");
    costs.add(report, n, "peak memory of the receiver", pair.b.memory_mb("VmHWM")?, "MB");
    Ok(())
}

/// A device that comes back after days on which the other one changed what both have.
fn away(
    options: &Options,
    program: &Program,
    report: &mut Report,
    costs: &mut Costs,
    days: u64,
) -> anyhow::Result<()> {
    let (pair, _) = Pair::filled(program, options.dir.as_deref(), Link::Quic, AWAY_OBJECTS)?;
    let changes = days * CHANGES_A_DAY;
    pair.cut()?;
    let file = pair.scratch.path().join("changes.jsonl");
    let mut lines = String::new();
    for number in 0..changes {
        // Spread over all objects; each change makes another body than the last.
        let id = workload::id("bench", number * 7_919 % AWAY_OBJECTS);
        let line = json!({"id": id, "kind": "file", "body": workload::body(AWAY_OBJECTS + number)});
        writeln!(lines, "{line}")?;
    }
    std::fs::write(&file, lines)?;
    let path = file.to_str().context("the directory's path is not UTF-8")?;
    pair.a.run(&["import", LANE, path])?;
    let frames = pair.frame_bytes()?;
    let sync = pair.rejoin(AWAY_OBJECTS)?;
    let n = days as f64;
    costs.add(report, n, "coming back", sync.transfer().as_secs_f64(), "s");
    let frames = (pair.frame_bytes()? - frames) / changes as f64;
    costs.add(report, n, "frames of coming back", frames, "bytes/change");
    costs.add(report, n, "peak memory of who was away", pair.b.memory_mb("VmHWM")?, "MB");
    Ok(())
}

fn with_devices(
    options: &Options,
    program: &Program,
    report: &mut Report,
    costs: &mut Costs,
    devices: usize,
) -> anyhow::Result<()> {
    let scratch = scratch(options.dir.as_deref())?;
    let first = start(program, scratch.path(), "d0", Link::Quic, None)?;
    let address = first.address()?;
    let mut nodes = vec![first];
    let began = Instant::now();
    for number in 1..devices {
        // Each knows the first; all others are told through it.
        let name = format!("d{number}");
        let node = start(program, scratch.path(), &name, Link::Quic, Some(&address))?;
        let invite = nodes[0].run(&["pair", "invite", "--no-wait"])?;
        let ticket = invite["ticket"].as_str().context("the invite has no ticket")?;
        node.run(&["pair", "join", ticket, "--addr", &address])?;
        nodes.push(node);
    }
    let n = devices as f64;
    costs.add(report, n, "pairing all", began.elapsed().as_secs_f64(), "s");
    let mut clients = nodes.iter().map(Node::client).collect::<anyhow::Result<Vec<_>>>()?;
    let used = || nodes.iter().map(|node| Ok(node.cpu_seconds()?[1])).sum::<anyhow::Result<f64>>();
    interrupt::wait(SETTLE_TIME)?;
    let (packets, processor) = (loopback_bytes()?, used()?);
    let mut times = Vec::new();
    for number in 0..options.samples.min(200) {
        interrupt::check()?;
        let id = workload::id("mesh", number);
        let began = Instant::now();
        clients[0].put(LANE, &id, &workload::body(number))?;
        let path = format!("/lanes/{LANE}");
        for client in &mut clients[1..] {
            loop {
                let live = client.get(&path)?["lanes"][0]["objects"]["live"].as_u64();
                if live.is_some_and(|live| live > number) {
                    break;
                }
                ensure!(began.elapsed() < MESH_TIMEOUT, "a change did not reach all devices");
            }
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    costs.add(report, n, "put to seen by all, p50", median(&times), "ms");
    // The last receipts belong to it.
    interrupt::wait(SETTLE_TIME)?;
    let changes = times.len() as f64;
    let packets = (loopback_bytes()? - packets) / changes;
    costs.add(report, n, "packets of a change, on loopback", packets, "bytes/change");
    let processor = (used()? - processor) / changes * 1e3;
    costs.add(report, n, "processor of all for a change", processor, "ms/change");
    let peaks = nodes.iter().map(|node| node.memory_mb("VmHWM"));
    let peaks = peaks.collect::<anyhow::Result<Vec<_>>>()?;
    costs.add(report, n, "peak memory, median", median(&peaks), "MB");
    Ok(())
}
