//! What was measured, as JSON lines while it runs and as a table at the end.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::json;

use crate::interrupt;
use crate::node::Program;

/// Where and on what was measured.
pub(crate) struct Report {
    rows: Vec<Row>,
    failed: Vec<String>,
    results: Option<Results>,
}

/// Where what is measured is written, as it is measured.
struct Results {
    dir: PathBuf,
    name: &'static str,
    lines: File,
}

impl Results {
    fn file(&self, end: &str) -> PathBuf {
        self.dir.join(format!("{}.{end}", self.name))
    }
}

struct Row {
    figure: &'static str,
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
}

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    Under(f64),
}

impl Goal {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::Under(bound) => value < bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::Under(bound) => format!("< {bound}"),
        }
    }
}

impl Report {
    /// A report that is kept in a directory under this name, if one is named: as a part until it is whole.
    pub(crate) fn new(
        program: &Program,
        results: Option<(&Path, &'static str)>,
    ) -> anyhow::Result<Self> {
        let results = results.map(|(dir, name)| {
            let file = dir.join(format!("{name}.partial.jsonl"));
            let made = std::fs::create_dir_all(dir).and_then(|()| File::create(&file));
            let lines = made.with_context(|| format!("cannot write {}", file.display()))?;
            Ok::<_, anyhow::Error>(Results { dir: dir.to_owned(), name, lines })
        });
        let results = results.transpose()?;
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let mut report = Self { rows: Vec::new(), failed: Vec::new(), results };
        report.say(&json!({
            "machine": {
                "cpu": model.map_or("unknown", |(_, name)| name),
                "cores": std::thread::available_parallelism().map_or(0, usize::from),
                "kernel": output("uname", &["-sr"]),
                "load_before": load.split(' ').next().unwrap_or_default(),
            },
            "program": program.path.display().to_string(),
            "version": program.version(),
            "node_sha256": output("sha256sum", &[program.path.to_string_lossy().as_ref()])
                .split(' ').next(),
            "date": output("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
            "commit": output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            "rustc": output("rustc", &["--version"]),
        }));
        Ok(report)
    }

    fn say(&mut self, document: &serde_json::Value) {
        say(document);
        let Some(Results { lines, .. }) = &mut self.results else { return };
        if let Err(error) = writeln!(lines, "{document}") {
            // Once is enough: the rest would fail alike.
            self.results = None;
            self.failed.push(format!("the results cannot be written: {error}"));
        }
    }

    pub(crate) fn add(
        &mut self,
        figure: &'static str,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Option<Goal>,
    ) {
        let what = what.into();
        self.say(&json!({
            "figure": figure, "what": what, "value": value, "unit": unit,
            "goal": goal.map(Goal::text), "met": goal.map(|goal| goal.holds(value)),
        }));
        self.rows.push(Row { figure, what, value, unit, goal });
    }

    /// Remembers that a part could not be measured; the others go on.
    pub(crate) fn part(
        &mut self,
        name: &'static str,
        measure: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) {
        if self.is_over() {
            return;
        }
        let measured = measure(self);
        if interrupt::is_told() {
            // Whatever it says: its nodes were told to stop as well.
            self.say(&json!({"figure": name, "failed": "interrupted", "partial": true}));
            self.failed.push(format!("{name}, and all that would have followed: interrupted"));
        } else if let Err(error) = measured {
            self.say(&json!({"figure": name, "failed": format!("{error:#}"), "partial": true}));
            self.failed.push(format!("{name}: {error:#}"));
        }
    }

    /// Whether this process was told to stop, so that nothing is left to do but to tell.
    pub(crate) fn is_over(&self) -> bool {
        interrupt::is_told()
    }

    /// Prints the table, and keeps it beside the lines; returns whether everything was measured, and kept. A part
    /// does not take the place of what is whole.
    pub(crate) fn finish(&self) -> anyhow::Result<bool> {
        let (table, complete) = (self.table(), self.failed.is_empty());
        let mut out = std::io::stdout().lock();
        // Nobody may be reading any more; the exit code still says how it went.
        let _ = out.write_all(table.as_bytes());
        let Some(results) = &self.results else { return Ok(complete) };
        let kept = || {
            results.lines.sync_data()?;
            if complete {
                std::fs::rename(results.file("partial.jsonl"), results.file("jsonl"))?;
            }
            std::fs::write(results.file(if complete { "md" } else { "partial.md" }), &table)
        };
        kept().with_context(|| format!("cannot keep the results in {}", results.dir.display()))?;
        if !complete {
            let _ = writeln!(out, "partial results: {}", results.file("partial.jsonl").display());
        }
        Ok(complete)
    }

    fn table(&self) -> String {
        let mut text = String::new();
        if !self.failed.is_empty() {
            text += "\nPARTIAL: see below the table what was not measured.\n";
        }
        text += "\n| figure | what | value | goal | |\n|---|---|---:|---:|---|\n";
        for Row { figure, what, value, unit, goal } in &self.rows {
            let met = match goal {
                Some(goal) if goal.holds(*value) => "met",
                Some(_) => "missed",
                None => "",
            };
            let goal = goal.map_or_else(String::new, Goal::text);
            let value = shown(*value);
            text += &format!("| {figure} | {what} | {value} {unit} | {goal} | {met} |\n");
        }
        for failed in &self.failed {
            text += &format!("NOT MEASURED (rows above may be partial): {failed}\n");
        }
        text
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One JSON document on a line.
pub(crate) fn say(document: &serde_json::Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{document}").and_then(|()| out.flush());
}

fn output(program: &str, args: &[&str]) -> String {
    let here = env!("CARGO_MANIFEST_DIR");
    let said = Command::new(program).args(args).current_dir(here).output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    said.unwrap_or_else(|_| "unknown".to_owned())
}
