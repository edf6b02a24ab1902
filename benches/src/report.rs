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
    is_interrupted: bool,
    results: Option<Results>,
}

/// Where what is measured is written, as it is measured.
struct Results {
    dir: PathBuf,
    name: &'static str,
    lines: File,
    /// All lines, where a disk that is full for a while takes some of them only later.
    said: String,
    /// Why a line could not be written.
    unwritten: Option<String>,
}

impl Results {
    fn file(&self, end: &str) -> PathBuf {
        self.dir.join(format!("{}.{end}", self.name))
    }

    /// Writes one line, at once; a disk that does not take it is told of, and asked again at the end.
    fn say(&mut self, line: &str) {
        self.said += line;
        if self.unwritten.is_none()
            && let Err(error) = self.lines.write_all(line.as_bytes())
        {
            let file = self.file("partial.jsonl");
            complain(&format!("warning: {} cannot be written: {error}", file.display()));
            self.unwritten = Some(error.to_string());
        }
    }

    /// Writes the table, and what could not be written before; gives both their names when they are whole.
    fn keep(&mut self, table: &str, complete: bool) -> std::io::Result<()> {
        let (lines, tables) = (self.file("partial.jsonl"), self.file("partial.md"));
        if self.unwritten.is_some() {
            self.lines = File::create(&lines)?;
            self.lines.write_all(self.said.as_bytes())?;
        }
        self.lines.sync_data()?;
        let mut file = File::create(&tables)?;
        file.write_all(table.as_bytes())?;
        file.sync_data()?;
        if complete {
            std::fs::rename(lines, self.file("jsonl"))?;
            std::fs::rename(tables, self.file("md"))?;
        }
        Ok(())
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
            let (dir, said) = (dir.to_owned(), String::new());
            Ok::<_, anyhow::Error>(Results { dir, name, lines, said, unwritten: None })
        });
        let results = results.transpose()?;
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let (rows, failed) = (Vec::new(), Vec::new());
        let mut report = Self { rows, failed, is_interrupted: false, results };
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
        if let Some(results) = &mut self.results {
            results.say(&format!("{document}\n"));
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
        if self.is_interrupted {
            return;
        }
        let measured = if interrupt::is_told() { Ok(()) } else { measure(self) };
        if interrupt::is_told() {
            // Whatever it says: its nodes were told to stop as well.
            self.is_interrupted = true;
            self.say(&json!({"figure": name, "failed": "interrupted", "partial": true}));
            self.failed.push(format!("{name}, and all that would have followed: interrupted"));
        } else if let Err(error) = measured {
            self.say(&json!({"figure": name, "failed": format!("{error:#}"), "partial": true}));
            self.failed.push(format!("{name}: {error:#}"));
        }
    }

    /// Prints the table, and keeps it beside the lines; returns whether everything was measured, and kept. A part
    /// does not take the place of what is whole.
    pub(crate) fn finish(&mut self) -> anyhow::Result<bool> {
        let (table, complete) = (self.table(), self.failed.is_empty());
        // Nobody may be reading any more; the exit code still says how it went.
        let _ = std::io::stdout().write_all(table.as_bytes());
        let Some(results) = &mut self.results else { return Ok(complete) };
        let kept = results.keep(&table, complete);
        kept.with_context(|| format!("cannot keep the results in {}", results.dir.display()))?;
        if !complete {
            let file = results.file("partial.jsonl");
            complain(&format!("partial results: {}", file.display()));
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

/// A line for people.
pub(crate) fn complain(line: &str) {
    // Nobody may be reading any more.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn output(program: &str, args: &[&str]) -> String {
    let here = env!("CARGO_MANIFEST_DIR");
    let said = Command::new(program).args(args).current_dir(here).output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    said.unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: &Path) -> Report {
        let program = Program { path: "/bin/true".into() };
        Report::new(&program, Some((results, "figures"))).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = dir.read_dir().unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn whole_run_takes_its_place_and_a_part_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut whole = report(dir.path());
        whole.part("a", |report| {
            report.add("a", "first", 1.0, "ms", None);
            Ok(())
        });
        assert!(whole.finish().unwrap());
        assert_eq!(names(dir.path()), ["figures.jsonl", "figures.md"]);
        let kept = std::fs::read_to_string(dir.path().join("figures.jsonl")).unwrap();
        assert!(kept.contains("first") && kept.ends_with('\n'), "{kept}");

        let mut part = report(dir.path());
        part.part("a", |_| anyhow::bail!("no node"));
        part.part("b", |report| {
            report.add("b", "second", 1.0, "ms", None);
            Ok(())
        });
        assert!(!part.finish().unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("figures.jsonl")).unwrap(), kept);
        let lines = std::fs::read_to_string(dir.path().join("figures.partial.jsonl")).unwrap();
        assert!(lines.contains("no node") && lines.contains("second"), "{lines}");
        let table = std::fs::read_to_string(dir.path().join("figures.partial.md")).unwrap();
        assert!(table.contains("PARTIAL") && table.contains("a: no node"), "{table}");
    }

    #[test]
    fn disk_that_was_full_for_a_while_has_all_lines_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("figures.partial.jsonl");
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        let mut report = report(dir.path());
        report.part("a", |report| {
            report.add("a", "first", 1.0, "ms", None);
            Ok(())
        });
        std::fs::remove_file(&file).unwrap();
        assert!(report.finish().unwrap());
        let kept = std::fs::read_to_string(dir.path().join("figures.jsonl")).unwrap();
        assert!(kept.contains("machine") && kept.contains("first"), "{kept}");
    }
}
