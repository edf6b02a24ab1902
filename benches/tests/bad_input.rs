//! What the benchmarks do with what is missing, full or interrupted: a clear line, nothing called whole that is
//! a part, and nothing left behind.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for something that takes no time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A process that is not there: beyond what Linux gives to any.
const NO_PROCESS: u32 = 4_194_305;

/// A place for stores, results, and a program in place of the node.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(node: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.stores()).unwrap();
        std::fs::create_dir(place.results()).unwrap();
        let script = format!("#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'none 0'\n{node}\n");
        std::fs::write(place.node(), script).unwrap();
        std::fs::set_permissions(place.node(), PermissionsExt::from_mode(0o755)).unwrap();
        place
    }

    fn stores(&self) -> PathBuf {
        self.dir.path().join("stores")
    }

    fn results(&self) -> PathBuf {
        self.dir.path().join("results")
    }

    fn node(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    fn figures(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srcos-benches"));
        command.args(["figures", "--only", "local_writes", "--objects", "10", "--large", "10"]);
        command.arg("--node").arg(self.node());
        command.arg("--dir").arg(self.stores()).arg("--results").arg(self.results());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = dir.read_dir().unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What was said on both outputs, by a run that did not succeed.
fn refused(output: &Output) -> String {
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert_eq!(output.status.code(), Some(1), "{said:?}");
    said.concat()
}

#[test]
fn node_that_is_missing_is_named_and_nothing_is_left() {
    let place = Place::new("exit 1");
    std::fs::remove_file(place.node()).unwrap();
    let said = refused(&place.figures().output().unwrap());
    assert!(said.contains(&format!("no {}", place.node().display())), "{said}");
    assert!(names(&place.stores()).is_empty() && names(&place.results()).is_empty());
}

#[test]
fn debug_build_is_refused() {
    let place = Place::new("exit 1");
    let debug = place.dir.path().join("debug");
    std::fs::create_dir(&debug).unwrap();
    std::fs::copy(place.node(), debug.join("node")).unwrap();
    let mut figures = Command::new(env!("CARGO_BIN_EXE_srcos-benches"));
    let output = figures.arg("figures").arg("--node").arg(debug.join("node")).output().unwrap();
    let said = refused(&output);
    assert!(said.contains("is a debug build"), "{said}");
}

#[test]
fn node_that_does_not_start_makes_the_run_a_part_and_leaves_nothing() {
    let place = Place::new("echo broken >&2; exit 1");
    std::fs::write(place.results().join("figures.jsonl"), "the whole of before").unwrap();
    let said = refused(&place.figures().output().unwrap());
    assert!(said.contains("PARTIAL") && said.contains("broken"), "{said}");
    assert!(names(&place.stores()).is_empty());
    let kept = std::fs::read_to_string(place.results().join("figures.jsonl")).unwrap();
    assert_eq!(kept, "the whole of before");
    let partial = std::fs::read_to_string(place.results().join("figures.partial.jsonl")).unwrap();
    assert!(partial.lines().last().unwrap().contains("\"partial\":true"), "{partial}");
}

#[test]
fn interrupted_run_is_a_part_and_leaves_nothing() {
    let place = Place::new("exec sleep 600");
    let mut command = place.figures();
    // As a terminal does, all that the run has started is interrupted.
    let run = command.process_group(0).spawn().unwrap();
    let began = Instant::now();
    // Its log is there as soon as the node is started.
    let started = || {
        names(&place.stores()).first().is_some_and(|name| {
            place.stores().join(name).join("a.log").exists() && sleeps(run.id())
        })
    };
    while !started() {
        assert!(began.elapsed() < TIMEOUT, "no node was started");
        std::thread::yield_now();
    }
    let group = format!("-{}", run.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let said = refused(&run.wait_with_output().unwrap());
    assert!(said.contains("PARTIAL") && said.contains("interrupted"), "{said}");
    assert!(names(&place.stores()).is_empty());
    assert_eq!(names(&place.results()), ["figures.partial.jsonl", "figures.partial.md"]);
}

/// Whether a process has a child that sleeps.
fn sleeps(parent: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    children.unwrap_or_default().split_whitespace().any(|child| {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        name.trim() == "sleep"
    })
}

#[test]
fn results_that_find_no_room_are_told_of_and_what_was_there_stays() {
    let place = Place::new("exit 1");
    let full = place.results().join("figures.partial.jsonl");
    std::os::unix::fs::symlink("/dev/full", full).unwrap();
    std::fs::write(place.results().join("figures.md"), "the whole of before").unwrap();
    let said = refused(&place.figures().output().unwrap());
    assert!(said.contains("the results cannot be written: No space left on device"), "{said}");
    let kept = std::fs::read_to_string(place.results().join("figures.md")).unwrap();
    assert_eq!(kept, "the whole of before");
}

#[test]
fn what_a_killed_run_left_is_gone_after_the_next_start() {
    let place = Place::new("exit 1");
    let left = place.stores().join(format!("srcos-bench-{NO_PROCESS}-x"));
    std::fs::create_dir_all(left.join("a")).unwrap();
    std::fs::create_dir(place.stores().join("mine")).unwrap();
    refused(&place.figures().output().unwrap());
    assert_eq!(names(&place.stores()), ["mine"]);
}

#[test]
fn disk_without_room_is_refused_before_anything_is_written() {
    let place = Place::new("exit 1");
    let mut huge = Command::new(env!("CARGO_BIN_EXE_srcos-benches"));
    // No disk has room for so many.
    huge.args(["figures", "--objects", "1000000000000000", "--node"]).arg(place.node());
    let output = huge.arg("--dir").arg(place.stores()).output().unwrap();
    let said = refused(&output);
    assert!(said.contains("make room, or name another disk"), "{said}");
    assert!(names(&place.stores()).is_empty());
}
