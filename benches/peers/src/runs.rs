//! What is run: for each number of objects, each peer in turn, as often as was asked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::aims;
use crate::interrupt;
use crate::limits;
use crate::machine;
use crate::peers::{Peer, refuse_missing_node};
use crate::process::{ANSWER_TIME_MAX, Process, TooLong};
use crate::report::{DISK, Figure, Report};
use crate::scratch;
use crate::side::Start;
use crate::stats::{median, percentile};

/// Time for what a peer still does after it said that it was done.
const SETTLE_TIME: Duration = Duration::from_millis(700);
/// Changes that each side makes while there is no link.
pub(crate) const AWAY_CHANGES: u64 = 1_000;
/// Objects made on the side that invited while there was no link, on the other, and one by one:
/// their numbers begin here, so that no two objects are the same.
pub(crate) const AWAY_AT_A: u64 = 1_000_000;
pub(crate) const AWAY_AT_B: u64 = 2_000_000;
const ONE_BY_ONE: u64 = 3_000_000;
/// Longest wait for one change to be seen, whatever `--limit` says: as long as that is by default.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(300);
/// Longest time for all changes that are timed: a slow peer is timed with fewer.
const CHANGES_TIME_MAX: Duration = Duration::from_secs(20);
/// A peer that takes longer for one turn, with all that is measured in it, is not asked to repeat it: one
/// run tells enough of it.
const REPEATED_TIME_MAX: Duration = Duration::from_secs(200);
/// A peer that does not finish is asked once more where, by what it took with fewer objects, so many times as
/// long would have been within the limit: it stood still, which it may not do again.
const EXCUSED_TIMES: f64 = 3.0;
/// Bytes that stand for an object before the node was measured.
const OBJECT_BYTES: usize = 330;
/// Disk that is wanted to be free, and how much for each object: a peer with a few files for each
/// object takes that much on both sides.
const FREE_BYTES: u64 = 500_000_000;
const FREE_BYTES_EACH: u64 = 40_000;
/// What a whole run measures, and how often.
const OBJECTS: [u64; 3] = [1_000, 10_000, 100_000];
const RUNS: usize = 3;
const SAMPLES: u64 = 300;
const LIMIT_S: u64 = 300;
/// The small run: what it measures, and how often.
const QUICK_OBJECTS: [u64; 2] = [1_000, 10_000];
const QUICK_RUNS: usize = 2;
const QUICK_SAMPLES: u64 = 100;
const QUICK_PEERS: [Peer; 5] =
    [Peer::Srcos, Peer::SamodOne, Peer::IrohDocs, Peer::AutomergeTcp, Peer::Quic];

/// What to compare.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A run of two minutes, compared with the stored results, which stay as they are
    #[arg(long)]
    quick: bool,
    /// Objects, one table each
    #[arg(long, value_delimiter = ',', default_values_t = OBJECTS)]
    objects: Vec<u64>,
    /// Runs of which the median is taken
    #[arg(long, default_value_t = RUNS)]
    runs: usize,
    /// Changes that are timed one after the other
    #[arg(long, default_value_t = SAMPLES)]
    samples: u64,
    /// Only these peers, besides the node
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// A peer that needs longer than this many seconds has not finished
    #[arg(long, default_value_t = LIMIT_S)]
    limit: u64,
    /// The node's program [default: target/release/srcos-node of the main workspace]
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Put the stores here: a real disk, not memory [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the tables, the JSON lines and the pictures here [default: benches/results for a whole run, with all
    /// peers and nothing else than usual; a part of one is only printed]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Measure nothing: make tables and pictures anew of the lines that are stored
    #[arg(long)]
    again: bool,
}

/// What every turn needs.
struct Turns<'a> {
    scratch: &'a Path,
    node: PathBuf,
    limit: Duration,
    samples: u64,
}

/// Measures; returns whether everything could be measured.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let stored_results = root.join("benches/results");
    if options.again {
        let results = options.results.as_ref().unwrap_or(&stored_results);
        return Report::load(&results.join("peers.jsonl"))?.show(results);
    }
    let node = options.node.clone();
    let node = node.unwrap_or_else(|| root.join("target/release/srcos-node"));
    refuse_missing_node(&node)?;
    let node = node.canonicalize()?;
    let quick = options.quick;
    let asked = |peer: &Peer| match (quick, options.peers.is_empty()) {
        (_, false) => *peer == Peer::Srcos || options.peers.contains(peer),
        (true, true) => QUICK_PEERS.contains(peer),
        (false, true) => true,
    };
    let versions = Peer::ALL.into_iter().filter(asked).map(|peer| (peer, peer.version(&node)));
    let versions: Vec<_> = versions.collect();
    // What is stored is what the small run compares with, so a part does not take the place of the whole.
    let whole = versions.len() == Peer::ALL.len()
        && versions.iter().all(|(_, version)| version.is_ok())
        && options.objects == OBJECTS
        && (options.runs, options.samples, options.limit) == (RUNS, SAMPLES, LIMIT_S);
    let results = match &options.results {
        _ if quick => None,
        Some(results) => Some(results.as_path()),
        None => whole.then_some(stored_results.as_path()),
    };
    let objects = if quick { &QUICK_OBJECTS } else { options.objects.as_slice() };
    let runs = if quick { QUICK_RUNS } else { options.runs };
    let samples = if quick { QUICK_SAMPLES } else { options.samples };
    ensure!(!objects.is_empty() && runs > 0 && samples > 0, "nothing to measure");

    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    scratch::remove_left_behind(&parent, SCRATCH)?;
    let most = objects.iter().max().copied().unwrap_or_default();
    scratch::refuse_full_disk(
        &parent,
        FREE_BYTES.saturating_add(most.saturating_mul(FREE_BYTES_EACH)),
    )?;
    let stores = scratch::make(&parent, SCRATCH)?;

    let compared = options.results.as_ref().unwrap_or(&stored_results);
    let stored = quick.then(|| Report::load(&compared.join("peers.jsonl"))).transpose()?;
    let mut report = Report::new(results, &node)?;
    let mut peers = Vec::new();
    for (peer, version) in versions {
        match version {
            Ok(version) => {
                report.version(peer.name(), &version)?;
                peers.push(peer);
            }
            Err(error) => report.left_out(peer.name(), &format!("{error:#}"))?,
        }
    }
    let limit = Duration::from_secs(options.limit);
    let turns = Turns { scratch: stores.path(), node, limit, samples };
    let outcome = all(&turns, objects, runs, &peers, &mut report);
    // What was measured before something went wrong is told all the same.
    let complete = report.finish(outcome.as_ref().err().map(|error| format!("{error:#}")))?;
    if results.is_none() && !quick {
        println!("not stored, since it is a part of the comparison: --results DIR stores it there");
    }
    if let Some(stored) = stored {
        print!("{}", aims::moved(&stored, &report));
    }
    scratch::close(stores)?;
    outcome.map(|()| complete)
}

fn all(
    turns: &Turns<'_>,
    objects: &[u64],
    runs: usize,
    peers: &[Peer],
    report: &mut Report,
) -> anyhow::Result<()> {
    // Who did not finish is not asked again, nor for more.
    let mut given_up = BTreeSet::new();
    let mut fewer = None;
    for &objects in objects {
        let mut slow = BTreeSet::new();
        // Who did not finish, and by what it did with fewer should have.
        let mut excused = BTreeSet::new();
        for run in 0..runs {
            // There and back, so that nobody always follows the same one. The node begins: what the limits
            // write and send is as much as it did.
            let mut order = peers.to_vec();
            if run % 2 == 1 {
                order.reverse();
            }
            for peer in order {
                if given_up.contains(&peer) || slow.contains(&peer) {
                    continue;
                }
                scratch::refuse_full_disk(turns.scratch, FREE_BYTES)?;
                // What the one before has not synced is not written during this turn.
                rustix::fs::sync();
                report.load_now(machine::busy()?)?;
                let began = Instant::now();
                let turn = turns.turn(peer, objects, run, report);
                if began.elapsed() > REPEATED_TIME_MAX {
                    slow.insert(peer);
                }
                if let Err(error) = turn {
                    interrupt::check()?;
                    let late = error.chain().any(|cause| cause.is::<TooLong>());
                    let how = if late { "did not finish" } else { "failed" };
                    let why = format!("{how} in run {}: {error:#}", run + 1);
                    report.ended(peer.name(), objects, run, &why)?;
                    let again = late && turns.should_finish(peer, fewer, objects, report);
                    if again && excused.insert(peer) {
                        slow.remove(&peer);
                    } else {
                        given_up.insert(peer);
                    }
                    // Without the node there is nothing to compare.
                    ensure!(peer != Peer::Srcos, "the node with {objects} objects {why}");
                }
            }
            rustix::fs::sync();
            disk(turns, objects, run, report)?;
        }
        fewer = Some(objects);
    }
    for peer in &given_up {
        let more = objects.iter().filter(|objects| !report.tried(peer.name(), **objects));
        let more: Vec<u64> = more.copied().collect();
        for objects in more {
            report.ended(peer.name(), objects, 0, "not tried: did not finish with fewer")?;
        }
    }
    Ok(())
}

/// Two sides of a peer.
struct Pair {
    a: Process,
    b: Process,
}

impl Turns<'_> {
    /// Whether a peer should finish with so many objects, by what it took with fewer: well within the limit.
    /// One that stands still for once is asked once more, and what it did is told.
    fn should_finish(&self, peer: Peer, fewer: Option<u64>, objects: u64, report: &Report) -> bool {
        let took = |fewer| {
            let of = |figure| report.median(peer.name(), fewer, figure);
            let took = of(Figure::WriteS)?.max(of(Figure::FirstSyncS)?);
            Some(took * objects as f64 / fewer as f64)
        };
        fewer.and_then(took).is_some_and(|took| took * EXCUSED_TIMES < self.limit.as_secs_f64())
    }

    /// One pair, from its start to its end.
    fn turn(
        &self,
        peer: Peer,
        objects: u64,
        run: usize,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let dir = tempfile::Builder::new().prefix("pair-").tempdir_in(self.scratch)?;
        let mut start = Start {
            peer,
            dir: dir.path().join("a"),
            invitation: None,
            node: self.node.clone(),
            object_bytes: object_bytes(report, objects),
        };
        let a = Process::start(&start)?;
        start.dir = dir.path().join("b");
        start.invitation = Some(a.invitation.clone());
        let b = Process::start(&start)?;
        let mut pair = Pair { a, b };
        let measured = self.measure(&mut pair, peer, objects, run, report);
        // Also of one that did not finish: that is what it took until then.
        let memory = memory(&mut pair, peer, objects, run, report);
        drop(pair);
        scratch::close(dir)?;
        measured.and(memory)
    }

    fn measure(
        &self,
        pair: &mut Pair,
        peer: Peer,
        objects: u64,
        run: usize,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let name = peer.name();
        let began = Instant::now();
        pair.a.ask(&format!("write 0 {objects}"), self.limit).context("writing")?;
        report.add(name, objects, run, Figure::WriteS, began.elapsed().as_secs_f64())?;
        settle()?;

        let (took, bytes) =
            pair.link(objects, [objects - 1; 2], self.limit).context("first sync")?;
        report.add(name, objects, run, Figure::FirstSyncS, took.as_secs_f64())?;
        report.add(name, objects, run, Figure::FirstSyncBytes, bytes)?;

        let latency = pair.latency(self.samples)?;
        for (figure, samples, share) in [
            (Figure::ChangeP50Ms, &latency.committed_ms, 0.5),
            (Figure::ChangeP99Ms, &latency.committed_ms, 0.99),
            (Figure::PutP50Ms, &latency.sent_ms, 0.5),
            (Figure::PutP99Ms, &latency.sent_ms, 0.99),
        ] {
            report.add(name, objects, run, figure, percentile(samples, share))?;
        }
        report.distribution(name, objects, run, &latency.sent_ms)?;

        pair.b.ask("disconnect", ANSWER_TIME_MAX)?;
        pair.a.ask("disconnect", ANSWER_TIME_MAX)?;
        pair.a.ask(&format!("write {AWAY_AT_A} {AWAY_CHANGES}"), self.limit)?;
        pair.b.ask(&format!("write {AWAY_AT_B} {AWAY_CHANGES}"), self.limit)?;
        settle()?;
        let there = objects + latency.sent_ms.len() as u64 + 2 * AWAY_CHANGES;
        let last = [AWAY_AT_B, AWAY_AT_A].map(|first| first + AWAY_CHANGES - 1);
        let (took, bytes) = pair.link(there, last, self.limit).context("reconnect")?;
        report.add(name, objects, run, Figure::ReconnectS, took.as_secs_f64())?;
        report.add(name, objects, run, Figure::ReconnectBytes, bytes)
    }
}

/// How long changes took, one after the other.
struct Latency {
    /// From the answer that a change is committed on A until it is visible on B.
    committed_ms: Vec<f64>,
    /// From telling A to make the change.
    sent_ms: Vec<f64>,
}

impl Pair {
    /// Lets the link be, and waits until both hold so much; also the bytes that it took.
    /// `last` is the object that comes last to A, and to B.
    fn link(
        &mut self,
        objects: u64,
        last: [u64; 2],
        limit: Duration,
    ) -> anyhow::Result<(Duration, f64)> {
        self.a.ask("connect", ANSWER_TIME_MAX)?;
        let bytes = machine::loopback_bytes()?;
        let began = self.b.tell("connect")?;
        self.b.answer(limit)?;
        let left = limit.saturating_sub(began.elapsed());
        let hold = |last| format!("hold {objects} {last} {}", left.as_millis());
        self.b.tell(&hold(last[1]))?;
        self.a.tell(&hold(last[0]))?;
        let (b_at, b_held) = self.b.answer(left + ANSWER_TIME_MAX)?;
        let (a_at, a_held) = self.a.answer(left + ANSWER_TIME_MAX)?;
        let held = b_held.parse::<u64>()?.min(a_held.parse()?);
        if held < objects {
            let short = format!("{held} of {objects} objects were there");
            return Err(anyhow::Error::new(TooLong(limit)).context(short));
        }
        let took = a_at.max(b_at).duration_since(began);
        // The last acknowledgements belong to it.
        settle()?;
        Ok((took, machine::loopback_bytes()? - bytes))
    }

    fn latency(&mut self, samples: u64) -> anyhow::Result<Latency> {
        let mut latency = Latency { committed_ms: Vec::new(), sent_ms: Vec::new() };
        let began = Instant::now();
        for number in ONE_BY_ONE..ONE_BY_ONE + samples {
            if began.elapsed() > CHANGES_TIME_MAX {
                break;
            }
            self.b.ask(&format!("expect {number}"), ANSWER_TIME_MAX)?;
            self.b.tell(&format!("seen {}", CHANGE_TIME_MAX.as_millis()))?;
            let sent = self.a.tell(&format!("write {number} 1"))?;
            let (committed, _) = self.a.answer(CHANGE_TIME_MAX).context("one change")?;
            let (seen, told) = self.b.answer(CHANGE_TIME_MAX * 2).context("one change")?;
            if told != "true" {
                let error = anyhow::Error::new(TooLong(CHANGE_TIME_MAX));
                return Err(error.context("a change was not seen"));
            }
            // B may see it before A says that it is committed: then that took no time at all.
            let after = seen.saturating_duration_since(committed);
            latency.committed_ms.push(after.as_secs_f64() * 1e3);
            latency.sent_ms.push(seen.duration_since(sent).as_secs_f64() * 1e3);
        }
        Ok(latency)
    }
}

fn memory(
    pair: &mut Pair,
    peer: Peer,
    objects: u64,
    run: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sides = [(&mut pair.a, Figure::MemoryAMb), (&mut pair.b, Figure::MemoryBMb)];
    // One that does not answer is no reason not to ask the other.
    let asked = sides.map(|(side, figure)| {
        let bytes: f64 = side.ask("memory", ANSWER_TIME_MAX)?.parse()?;
        report.add(peer.name(), objects, run, figure, bytes / 1e6)
    });
    asked.into_iter().collect()
}

/// The limit of the disk.
fn disk(turns: &Turns<'_>, objects: u64, run: usize, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("disk-").tempdir_in(turns.scratch)?;
    let bytes = object_bytes(report, objects);
    let disk = limits::disk(dir.path(), objects, bytes, turns.samples)?;
    report.add(DISK, objects, run, Figure::WriteS, disk.write.as_secs_f64())?;
    report.add(DISK, objects, run, Figure::PutP50Ms, percentile(&disk.commits_ms, 0.5))?;
    report.add(DISK, objects, run, Figure::PutP99Ms, percentile(&disk.commits_ms, 0.99))?;
    scratch::close(dir)
}

/// Bytes that the node sends for an object in a first sync, as measured in this run.
fn object_bytes(report: &Report, objects: u64) -> usize {
    let measured = report.values(Peer::Srcos.name(), objects, Figure::FirstSyncBytes);
    if measured.is_empty() {
        return OBJECT_BYTES;
    }
    (median(&measured) / objects as f64).ceil() as usize
}

fn settle() -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < SETTLE_TIME {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// How directories of stores begin; the process that made one follows.
const SCRATCH: &str = "srcos-peers-";
