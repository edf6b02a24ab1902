//! What the benchmarks do with what is missing, full or interrupted: a clear line, nothing called whole that is
//! a part, and nothing left behind.

use std::fs::Permissions;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
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
        std::fs::set_permissions(place.node(), Permissions::from_mode(0o755)).unwrap();
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
fn interrupted_run_is_a_part_and_leaves_nothing_and_nobody() {
    let place = Place::new("echo $$ > \"$(dirname \"$3\")/pid\"; exec sleep 600");
    let mut run = Run(place.figures().spawn().unwrap());
    // What stands in for the node says who it is, and then never that it is ready.
    let pid = || {
        let dir = place.stores().join(names(&place.stores()).pop()?);
        let pid = std::fs::read_to_string(dir.join("pid")).ok()?;
        pid.ends_with('\n').then(|| pid.trim().to_owned())
    };
    let node = within(pid);
    assert!(Path::new("/proc").join(&node).exists());
    let told = Command::new("kill").arg(run.0.id().to_string()).status().unwrap();
    assert!(told.success());
    let status = within(|| run.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    run.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("PARTIAL") && said.contains("interrupted"), "{said}");
    assert!(names(&place.stores()).is_empty());
    assert!(!Path::new("/proc").join(node).exists());
    assert_eq!(names(&place.results()), ["figures.partial.jsonl", "figures.partial.md"]);
}

/// A run that does not outlive its test.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something that takes no time.
fn within<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < TIMEOUT, "it did not happen within {TIMEOUT:?}");
        std::thread::yield_now();
    }
}

#[test]
fn results_that_find_no_room_are_told_of() {
    let place = Place::new("exit 1");
    let full = place.results().join("figures.partial.jsonl");
    std::os::unix::fs::symlink("/dev/full", full).unwrap();
    let said = refused(&place.figures().output().unwrap());
    assert!(said.contains("cannot keep the results"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
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
