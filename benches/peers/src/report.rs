//! What was measured: JSON lines while it runs, tables and pictures at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::aims;
use crate::machine;
use crate::peers::{Peer, locked};
use crate::plot::{Series, log_log};
use crate::stats::{median, percentile};

/// The name of the limit that the disk sets.
pub(crate) const DISK: &str = "redb alone";
/// Shares of the changes that took longer, which a distribution is kept as.
const SLOWER: [f64; 12] = [0.99, 0.9, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02, 0.01, 0.005];

/// What is measured of a pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Figure {
    WriteS,
    FirstSyncS,
    FirstSyncBytes,
    PutP50Ms,
    PutP99Ms,
    ChangeP50Ms,
    ChangeP99Ms,
    ReconnectS,
    ReconnectBytes,
    MemoryAMb,
    MemoryBMb,
}

impl Figure {
    pub(crate) const ALL: [Self; 11] = [
        Self::WriteS,
        Self::FirstSyncS,
        Self::FirstSyncBytes,
        Self::PutP50Ms,
        Self::PutP99Ms,
        Self::ChangeP50Ms,
        Self::ChangeP99Ms,
        Self::ReconnectS,
        Self::ReconnectBytes,
        Self::MemoryAMb,
        Self::MemoryBMb,
    ];

    /// Its name in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WriteS => "write_s",
            Self::FirstSyncS => "first_sync_s",
            Self::FirstSyncBytes => "first_sync_bytes",
            Self::PutP50Ms => "put_p50_ms",
            Self::PutP99Ms => "put_p99_ms",
            Self::ChangeP50Ms => "change_p50_ms",
            Self::ChangeP99Ms => "change_p99_ms",
            Self::ReconnectS => "reconnect_s",
            Self::ReconnectBytes => "reconnect_bytes",
            Self::MemoryAMb => "memory_a_mb",
            Self::MemoryBMb => "memory_b_mb",
        }
    }

    /// Its heading in tables.
    fn heading(self) -> &'static str {
        match self {
            Self::WriteS => "write, s",
            Self::FirstSyncS => "first sync, s",
            Self::FirstSyncBytes => "bytes an object",
            Self::PutP50Ms => "change p50, ms",
            Self::PutP99Ms => "p99, ms",
            Self::ChangeP50Ms => "from commit p50, ms",
            Self::ChangeP99Ms => "p99, ms",
            Self::ReconnectS => "reconnect, s",
            Self::ReconnectBytes => "reconnect, kB",
            Self::MemoryAMb => "memory A, MB",
            Self::MemoryBMb => "memory B, MB",
        }
    }

    /// As it stands in tables.
    fn shown(self, value: f64, objects: u64) -> String {
        let value = match self {
            Self::FirstSyncBytes => value / objects as f64,
            Self::ReconnectBytes => value / 1e3,
            _ => value,
        };
        shown(value)
    }
}

/// Three figures that count.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Of whom, with how many objects, and what.
type Key = (String, u64, &'static str);

/// What was measured so far.
#[derive(Default)]
pub(crate) struct Report {
    /// Where it goes, and the file that it grows in.
    results: Option<(PathBuf, File)>,
    node: PathBuf,
    head: Value,
    versions: Vec<(String, String)>,
    left_out: Vec<(String, String)>,
    rows: BTreeMap<Key, Vec<f64>>,
    ended: BTreeMap<(String, u64), String>,
    /// Of the last run of each: milliseconds by the share that was slower.
    distributions: BTreeMap<(String, u64), Vec<f64>>,
    loads: Vec<(String, f64)>,
    /// How many changes were timed one by one, in the run that had the fewest.
    samples: BTreeMap<(String, u64), u64>,
}

impl Report {
    /// A report on this node that grows in a file of this directory, if there is one.
    pub(crate) fn new(results: Option<&Path>, node: &Path) -> anyhow::Result<Self> {
        let mut report = Self::default();
        if let Some(results) = results {
            std::fs::create_dir_all(results)?;
            let file = results.join("peers.partial.jsonl");
            let file =
                File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
            report.results = Some((results.to_owned(), file));
        }
        report.node = node.to_owned();
        report.head = json!({
            "cpu": machine::processor(),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "memory": memory_total(),
            "kernel": machine::output("uname", &["-sr"]),
            "date": machine::output("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
            "commit": machine::output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            "node_sha256": machine::sha256(node),
            "rustc": machine::output("rustc", &["--version"]),
            "load_before": machine::load(),
            "bytes": if machine::own_network() { "of a network namespace of its own" }
                else { "of all on the loopback interface, others' too" },
        });
        let head = report.head.clone();
        report.say(&json!({"machine": head}))?;
        report.version(DISK, &locked("redb")?)?;
        Ok(report)
    }

    /// Reads what an earlier run stored.
    pub(crate) fn load(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!("no {}: a whole run has to be stored first", file.display())
        })?;
        let mut report = Self::default();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)?;
            if let Some(head) = line.get("machine") {
                report.head = head.clone();
            }
            report.take(&line);
        }
        ensure!(!report.rows.is_empty(), "{} holds no results", file.display());
        Ok(report)
    }

    /// Takes a line of an earlier run.
    fn take(&mut self, line: &Value) {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        if let (Some(load), Some(busy)) = (text("load"), line["busy_with_others"].as_f64()) {
            self.loads.push((load, busy));
        }
        let Some(peer) = text("peer") else { return };
        if let Some(version) = text("version") {
            self.versions.push((peer, version));
            return;
        }
        if let Some(why) = text("left_out") {
            self.left_out.push((peer, why));
            return;
        }
        let Some(objects) = line["objects"].as_u64() else { return };
        let figure = Figure::ALL.into_iter().find(|figure| line["figure"] == figure.name());
        if let (Some(figure), Some(value)) = (figure, line["value"].as_f64()) {
            self.rows.entry((peer.clone(), objects, figure.name())).or_default().push(value);
        }
        if let Some(why) = text("ended") {
            self.note_end(&peer, objects, why);
        }
        if let (Some(samples), Some(by_share)) =
            (line["samples"].as_u64(), line["put_ms"].as_array())
        {
            let by_share = by_share.iter().filter_map(Value::as_f64).collect();
            self.note_samples(peer, objects, samples, by_share);
        }
    }

    fn note_samples(&mut self, peer: String, objects: u64, samples: u64, by_share: Vec<f64>) {
        let fewest = self.samples.entry((peer.clone(), objects)).or_insert(u64::MAX);
        *fewest = samples.min(*fewest);
        self.distributions.insert((peer, objects), by_share);
    }

    /// Prints and writes the tables and pictures of an earlier run.
    pub(crate) fn show(&self, results: &Path) -> anyhow::Result<bool> {
        let tables = self.tables(None);
        print!("{tables}");
        std::fs::write(results.join("peers.md"), &tables)?;
        self.pictures(results)?;
        Ok(true)
    }

    fn say(&mut self, line: &Value) -> anyhow::Result<()> {
        println!("{line}");
        if let Some((_, file)) = &mut self.results {
            writeln!(file, "{line}").context("cannot write the results")?;
        }
        Ok(())
    }

    pub(crate) fn version(&mut self, peer: &str, version: &str) -> anyhow::Result<()> {
        self.say(&json!({"peer": peer, "version": version}))?;
        self.versions.push((peer.to_owned(), version.to_owned()));
        Ok(())
    }

    pub(crate) fn left_out(&mut self, peer: &str, why: &str) -> anyhow::Result<()> {
        self.say(&json!({"peer": peer, "left_out": why}))?;
        self.left_out.push((peer.to_owned(), why.to_owned()));
        Ok(())
    }

    /// How busy others keep the machine, before a turn.
    pub(crate) fn load_now(&mut self, busy: f64) -> anyhow::Result<()> {
        let load = machine::load();
        self.say(&json!({"load": load, "busy_with_others": (busy * 1e3).round() / 1e3}))?;
        self.loads.push((load, busy));
        Ok(())
    }

    pub(crate) fn add(
        &mut self,
        peer: &str,
        objects: u64,
        run: usize,
        figure: Figure,
        value: f64,
    ) -> anyhow::Result<()> {
        // Microseconds, bytes and kilobytes are as fine as it is measured.
        let value = (value * 1e6).round() / 1e6;
        let name = figure.name();
        self.say(&json!({
            "peer": peer, "objects": objects, "run": run, "figure": name, "value": value,
        }))?;
        self.rows.entry((peer.to_owned(), objects, name)).or_default().push(value);
        Ok(())
    }

    pub(crate) fn distribution(
        &mut self,
        peer: &str,
        objects: u64,
        run: usize,
        samples_ms: &[f64],
    ) -> anyhow::Result<()> {
        let by_share =
            SLOWER.map(|slower| (percentile(samples_ms, 1.0 - slower) * 1e3).round() / 1e3);
        self.say(&json!({
            "peer": peer, "objects": objects, "run": run, "samples": samples_ms.len(),
            "share_slower": SLOWER, "put_ms": by_share,
        }))?;
        let samples = samples_ms.len() as u64;
        self.note_samples(peer.to_owned(), objects, samples, by_share.to_vec());
        Ok(())
    }

    pub(crate) fn ended(
        &mut self,
        peer: &str,
        objects: u64,
        run: usize,
        why: &str,
    ) -> anyhow::Result<()> {
        self.say(&json!({"peer": peer, "objects": objects, "run": run, "ended": why}))?;
        self.note_end(peer, objects, why.to_owned());
        Ok(())
    }

    /// A peer that did not finish may have been asked once more.
    fn note_end(&mut self, peer: &str, objects: u64, why: String) {
        let known = self.ended.entry((peer.to_owned(), objects));
        known.and_modify(|known| *known += &format!("; {why}")).or_insert(why);
    }

    pub(crate) fn tried(&self, peer: &str, objects: u64) -> bool {
        self.ended.contains_key(&(peer.to_owned(), objects))
            || self.rows.keys().any(|(name, count, _)| name == peer && *count == objects)
    }

    pub(crate) fn values(&self, peer: &str, objects: u64, figure: Figure) -> Vec<f64> {
        let key = (peer.to_owned(), objects, figure.name());
        self.rows.get(&key).cloned().unwrap_or_default()
    }

    /// The middle of the runs.
    pub(crate) fn median(&self, peer: &str, objects: u64, figure: Figure) -> Option<f64> {
        let values = self.values(peer, objects, figure);
        (!values.is_empty()).then(|| median(&values))
    }

    /// How it ended, where it did not finish.
    pub(crate) fn end_of(&self, peer: &str, objects: u64) -> Option<&str> {
        self.ended.get(&(peer.to_owned(), objects)).map(String::as_str)
    }

    /// Numbers of objects that were measured.
    pub(crate) fn counts(&self) -> Vec<u64> {
        let mut counts: Vec<u64> = self.rows.keys().map(|(_, objects, _)| *objects).collect();
        counts.sort_unstable();
        counts.dedup();
        counts
    }

    /// Names of who was measured, in the order of the tables.
    pub(crate) fn names(&self) -> Vec<&str> {
        let names = Peer::ALL.into_iter().map(Peer::name).chain([DISK]);
        let known = |name: &str| {
            self.rows.keys().any(|(peer, _, _)| peer == name)
                || self.ended.keys().any(|(peer, _)| peer == name)
        };
        names.filter(|name| known(name)).collect()
    }

    /// Prints the tables and stores all; returns whether all was measured.
    pub(crate) fn finish(&mut self, interrupted: Option<String>) -> anyhow::Result<bool> {
        let same = self.head["node_sha256"] == machine::sha256(&self.node);
        let changed = || "the node's program was another in the end".to_owned();
        let interrupted = interrupted.or_else(|| (!same).then(changed));
        let end = match &interrupted {
            Some(why) => json!({"partial": true, "why": why, "load_after": machine::load()}),
            None => json!({"complete": true, "load_after": machine::load()}),
        };
        let tables = self.tables(interrupted.as_deref());
        // First: the disk may be what failed.
        print!("\n{tables}");
        if let Err(error) = self.say(&end) {
            let why = interrupted.unwrap_or_else(|| "all was measured".to_owned());
            return Err(error.context(why));
        }
        if let Some((results, file)) = &self.results {
            file.sync_data().context("cannot write the results")?;
            let (from, stem) = (results.join("peers.partial.jsonl"), results.join("peers"));
            if interrupted.is_some() {
                std::fs::write(results.join("peers.partial.md"), &tables)?;
                println!("partial results are in {}", from.display());
                return Ok(false);
            }
            std::fs::rename(from, stem.with_extension("jsonl"))?;
            std::fs::write(stem.with_extension("md"), &tables)?;
            self.pictures(results)?;
        }
        let failed = self.ended.values().any(|why| why.contains("failed in run"));
        Ok(interrupted.is_none() && !failed)
    }

    fn tables(&self, interrupted: Option<&str>) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if let Some(why) = interrupted {
            let _ = writeln!(text, "**PARTIAL: {why}. What is missing was not measured.**\n");
        }
        let head = &self.head;
        let field = |name: &str| head[name].as_str().unwrap_or_default();
        let _ = writeln!(
            text,
            "{}, commit {}, node {}, {} cores ({}), {}, {}. Load before: {}; before each pair {}. Bytes: {}.\n",
            field("date"),
            field("commit"),
            field("node_sha256").get(..12).unwrap_or("of no hash"),
            head["cores"],
            field("cpu"),
            field("kernel"),
            field("rustc"),
            field("load_before"),
            self.loads(),
            field("bytes"),
        );
        for objects in self.counts() {
            text += &self.table(objects);
        }
        text += &aims::table(self);
        text += "\n| who | version | set up as its documentation says; what it does less or more |\n|---|---|---|\n";
        for (peer, version) in &self.versions {
            let remarks = Peer::named(peer).map_or(
                "a row for each object, as many bytes as the node sends, commits of up to 4 MiB, \
                 each synced: what the disk alone takes",
                Peer::remarks,
            );
            let _ = writeln!(text, "| {peer} | {version} | {remarks} |");
        }
        for (peer, why) in &self.left_out {
            let _ = writeln!(text, "\nNOT MEASURED: {peer}: {why}");
        }
        text
    }

    fn loads(&self) -> String {
        let ones = self.loads.iter().filter_map(|(load, _)| load.split(' ').next()?.parse().ok());
        let ones: Vec<f64> = ones.collect();
        let busy: Vec<f64> = self.loads.iter().map(|(_, busy)| busy * 100.0).collect();
        format!(
            "{} to {}, and others used {:.0} % of the processors (median; at most {:.0} %)",
            shown(percentile(&ones, 0.0)),
            shown(percentile(&ones, 1.0)),
            median(&busy),
            percentile(&busy, 1.0),
        )
    }

    /// Medians, and what the runs lay between.
    fn table(&self, objects: u64) -> String {
        let mut text = format!("### {objects} objects\n\n| |");
        for figure in Figure::ALL {
            let _ = write!(text, " {} |", figure.heading());
        }
        text += "\n|---|";
        text += &"---:|".repeat(Figure::ALL.len());
        text += "\n";
        for name in self.names() {
            let _ = write!(text, "| {name} |");
            for figure in Figure::ALL {
                let values = self.values(name, objects, figure);
                let at = |share| figure.shown(percentile(&values, share), objects);
                let middle = figure.shown(median(&values), objects);
                let cell = match values.len() {
                    0 => String::new(),
                    1 => middle,
                    _ => format!("{middle} ({}-{})", at(0.0), at(1.0)),
                };
                let _ = write!(text, " {cell} |");
            }
            text += "\n";
        }
        // The last figure of a turn that went to its end.
        let whole = |name| self.values(name, objects, Figure::ReconnectBytes).len();
        let node = Peer::Srcos.name();
        let most = self.samples.get(&(node.to_owned(), objects)).copied().unwrap_or_default();
        for name in self.names().into_iter().filter(|name| *name != DISK) {
            if let Some(why) = self.end_of(name, objects) {
                let _ = writeln!(text, "\n{name}: {why}.");
            }
            if whole(name) < whole(node) {
                let _ =
                    writeln!(text, "\n{name}: {} whole runs, not {}.", whole(name), whole(node));
            }
            match self.samples.get(&(name.to_owned(), objects)) {
                Some(samples) if *samples < most => {
                    let _ =
                        writeln!(text, "\n{name}: {samples} single changes in a run, not {most}.");
                }
                _ => {}
            }
        }
        text += "\n";
        text
    }

    fn pictures(&self, results: &Path) -> anyhow::Result<()> {
        let pictures = [
            ("first-sync", "First sync, seconds", Figure::FirstSyncS),
            ("change", "One change: told to A until visible on B, p50, ms", Figure::PutP50Ms),
            (
                "reconnect",
                "Reconnect after 1,000 changes on each side, seconds",
                Figure::ReconnectS,
            ),
            ("reconnect-bytes", "The same, bytes on the wire", Figure::ReconnectBytes),
            ("memory", "Peak memory of the receiver, MB", Figure::MemoryBMb),
        ];
        for (stem, title, figure) in pictures {
            let series = self.names().into_iter().map(|name| {
                let at = |objects| Some((objects as f64, self.median(name, objects, figure)?));
                let points = self.counts().into_iter().filter_map(at).collect();
                Series { name: name.to_owned(), points }
            });
            let series: Vec<Series> = series.filter(|series| !series.points.is_empty()).collect();
            let svg = log_log(title, "objects", &series);
            std::fs::write(results.join(format!("peers-{stem}.svg")), svg)?;
        }
        for objects in self.counts() {
            let series = self.distributions.iter().filter(|((_, count), _)| *count == objects);
            let series = series.map(|((name, _), by_share)| Series {
                name: name.clone(),
                points: by_share.iter().copied().zip(SLOWER).collect(),
            });
            let title = format!("One change with {objects} objects: the share that took longer");
            let svg = log_log(&title, "milliseconds", &series.collect::<Vec<_>>());
            std::fs::write(results.join(format!("peers-latency-{objects}.svg")), svg)?;
        }
        Ok(())
    }
}

fn memory_total() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("MemTotal:").trim().to_owned()
}
