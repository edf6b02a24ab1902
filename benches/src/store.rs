//! The store alone: what writing, receiving, committing and reading cost without network and HTTP.

use std::path::PathBuf;
use std::time::Instant;

use ed25519_dalek::SigningKey;
use serde_json::json;
use srcos_lanes::ids::{MeshId, MonoMillis, Now, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::object::LeafType;
use srcos_lanes::signature::Signer as _;
use srcos_lanes::store::{Action, BATCH_OPS_MAX, Op, OpenOptions, PutContent, Query, Run, Store};
use tempfile::TempDir;

use crate::interrupt;
use crate::pair::prepare;
use crate::report::say;
use crate::workload;

const MESH: MeshId = MeshId([9; 32]);
/// Bytes of entries taken in at once: about what a turn of the daemon takes.
const RECEIVE_BYTES: usize = 1 << 20;
/// Entries taken in at once.
const RECEIVE_ENTRIES: usize = 64;
/// Objects that are committed one by one.
const SINGLES: u64 = 300;
/// Objects that are edited over and over, and how often each.
const EDITED: u64 = 200;
const EDITS_OF_EACH: u64 = 100;
/// Pairs of stores that hold all objects at the same time, at most.
const PAIRS: u64 = 2;
/// Objects that are read one by one.
const READS: u64 = 100_000;

/// `store`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Objects to create
    #[arg(long, default_value_t = 100_000)]
    objects: u64,
    /// Put the stores here: a real disk, not memory [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

struct Device {
    key: SigningKey,
    store: Store,
    wall: u64,
}

impl Device {
    fn create(scratch: &TempDir, seed: u8) -> anyhow::Result<Self> {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let options = OpenOptions { device: key.device(), opens_outside: Some(0), random: 7 };
        let path = scratch.path().join(format!("{seed}.redb"));
        let mut store = Store::create(&path, &options)?;
        store.set_mesh(MESH)?;
        store.commit()?;
        Ok(Self { key, store, wall: 1_000 })
    }

    fn now(&mut self) -> Now {
        self.wall += 1;
        Now { mono: MonoMillis(self.wall), wall: WallMillis(self.wall) }
    }

    fn write(&mut self, ops: &[Op]) -> anyhow::Result<()> {
        let now = self.now();
        self.store.write(LaneId::Normal, ops, now, &self.key)?;
        Ok(())
    }
}

/// Runs all of it, one JSON line each.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    prepare(options.dir.as_deref(), options.objects.saturating_mul(PAIRS))?;
    let scratch = crate::pair::scratch(options.dir.as_deref())?;
    let mut a = Device::create(&scratch, 1)?;
    let objects = options.objects;

    let (mut writing, mut committing) = (0.0, 0.0);
    let began = Instant::now();
    for first in (0..objects).step_by(BATCH_OPS_MAX) {
        let last = (first + BATCH_OPS_MAX as u64).min(objects);
        let ops: Vec<Op> = (first..last).map(|number| op("bench", number)).collect();
        writing += timed(|| a.write(&ops))?;
        committing += timed(|| Ok(a.store.commit().map(drop)?))?;
    }
    let all = began.elapsed().as_secs_f64();
    tell("write, batches of 1,000, a commit each", objects, all);
    tell("  of it in Store::write", objects, writing);
    tell("  of it in Store::commit", objects, committing);

    // Seed 1 is A's.
    receive(&mut a, &scratch, 2, objects, 1, "receive, a commit for each run")?;
    receive(&mut a, &scratch, 3, objects, 4, "receive, a commit for every 4 runs")?;
    edits(&scratch)?;
    text(&scratch)?;

    let mut commits = Vec::new();
    for number in 0..SINGLES {
        let one = [op("single", number)];
        let took = timed(|| {
            a.write(&one)?;
            Ok(a.store.commit().map(drop)?)
        })?;
        commits.push(took * 1e3);
    }
    say(&json!({
        "what": "write and commit of one object",
        "p50_ms": crate::stats::percentile(&commits, 0.5),
        "p99_ms": crate::stats::percentile(&commits, 0.99),
    }));
    let changed: Vec<Op> = (0..objects.min(BATCH_OPS_MAX as u64))
        .map(|number| Op { action: put(number + 1), ..op("bench", number) })
        .collect();
    let took = timed(|| a.write(&changed))?;
    a.store.commit()?;
    tell("write, 1,000 changes of objects that exist", changed.len() as u64, took);

    let now = a.now().wall;
    let snapshot = a.store.reader().snapshot()?;
    let took = timed(|| {
        for read in 0..READS {
            let number = read.wrapping_mul(0x9e37_79b9) % objects;
            snapshot.object(LaneId::Normal, &workload::id("bench", number), now)?;
        }
        Ok(())
    })?;
    tell("read, by id, spread over the lane, one snapshot", READS, took);
    let mut listed = 0;
    let took = timed(|| {
        let mut after = None;
        loop {
            let query = Query { limit: 1_000, after, ..Query::default() };
            let page = snapshot.list(LaneId::Normal, &query, now)?;
            listed += page.objects.len() as u64;
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    })?;
    tell("list, pages of 1,000", listed, took);
    Ok(())
}

/// Many edits of few objects, and what a device that was away needs to catch up on them.
fn edits(scratch: &TempDir) -> anyhow::Result<()> {
    for (seed, batch, how) in [(4, BATCH_OPS_MAX as u64, "batches of 1,000"), (6, 1, "one by one")]
    {
        let mut a = Device::create(scratch, seed)?;
        let all = EDITED * EDITS_OF_EACH;
        let took = timed(|| {
            for first in (0..all).step_by(batch as usize) {
                interrupt::check()?;
                // Each object is changed several times in a batch.
                let few = |number: u64| number / 5 % EDITED;
                let change = |number| Op { action: put(number), ..op("edited", few(number)) };
                a.write(&(first..first + batch).map(change).collect::<Vec<Op>>())?;
            }
            Ok(a.store.commit().map(drop)?)
        })?;
        tell(&format!("write, edits of {EDITED} objects, {how}"), all, took);
        let what = format!("receive, edits of {EDITED} objects, {how}");
        receive(&mut a, scratch, seed + 1, all, 4, &what)?;
    }
    Ok(())
}

/// The longest text that is allowed: created, edited at both ends, and written anew.
fn text(scratch: &TempDir) -> anyhow::Result<()> {
    let mut a = Device::create(scratch, 8)?;
    let long = "ab ".repeat(16_000);
    let contents = [
        ("create a text of 48,000 characters", long.clone()),
        ("edit it at both ends", format!("first {long}last")),
        ("replace all of it", "cd\n".repeat(16_000)),
    ];
    for (what, text) in contents {
        let put = PutContent {
            body: json!({"text": text}),
            types: [("/text".to_owned(), Some(LeafType::Text))].into(),
            ..PutContent::default()
        };
        let op = Op { id: "text".into(), action: Action::Put(put), if_heads: None };
        tell(what, 1, timed(|| a.write(&[op]))?);
    }
    Ok(())
}

/// Hands everything that `a` holds, so many changes, to a new store.
fn receive(
    a: &mut Device,
    scratch: &TempDir,
    seed: u8,
    changes: u64,
    runs_per_commit: usize,
    what: &str,
) -> anyhow::Result<()> {
    let mut b = Device::create(scratch, seed)?;
    let author = a.store.author();
    let snapshot = a.store.reader().snapshot()?;
    let (mut reading, mut receiving, mut committing) = (0.0, 0.0, 0.0);
    let began = Instant::now();
    let mut open = 0;
    loop {
        let held = b.store.frontier(LaneId::Normal).seq(&author);
        let mut entries = Vec::new();
        reading += timed(|| {
            let lane = LaneId::Normal;
            entries = snapshot.entries(lane, &author, held + 1, RECEIVE_BYTES, RECEIVE_ENTRIES)?;
            Ok(())
        })?;
        if !entries.is_empty() {
            let entries = entries.iter().map(Vec::as_slice).collect();
            let run = Run { lane: LaneId::Normal, author, entries };
            let now = b.now().wall;
            receiving += timed(|| Ok(b.store.receive(&run, &[MESH], now).map(drop)?))?;
            open += 1;
        }
        if open >= runs_per_commit || entries.is_empty() {
            committing += timed(|| Ok(b.store.commit().map(drop)?))?;
            open = 0;
        }
        if entries.is_empty() {
            break;
        }
    }
    let all = began.elapsed().as_secs_f64();
    let (live, wanted) = (b.store.counts(LaneId::Normal).live, a.store.counts(LaneId::Normal).live);
    anyhow::ensure!(live == wanted, "{live} of {wanted} objects were applied");
    tell(what, changes, all);
    tell("  of it reading the sender's entries", changes, reading);
    tell("  of it in Store::receive", changes, receiving);
    tell("  of it in Store::commit", changes, committing);
    Ok(())
}

fn op(prefix: &str, number: u64) -> Op {
    Op { id: workload::id(prefix, number), action: put(number), if_heads: None }
}

fn put(number: u64) -> Action {
    let body = workload::body(number);
    Action::Put(PutContent { kind: Some("file".to_owned()), body, ..PutContent::default() })
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    interrupt::check()?;
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

fn tell(what: &str, objects: u64, seconds: f64) {
    let rate = (objects as f64 / seconds).round();
    let micros = seconds * 1e6 / objects as f64;
    say(
        &json!({"what": what, "objects_per_s": rate, "us_per_object": (micros * 100.0).round() / 100.0}),
    );
}
