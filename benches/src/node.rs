//! Nodes as processes of the release build.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::http::Client;
use crate::interrupt;

/// Longest wait for a node to end after it was told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks at whether this run is to stop, while a node starts.
const LOOK_TIME: Duration = Duration::from_millis(50);
/// Ticks a second in `/proc/PID/stat`: Linux gives user space 100 on every architecture it runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The program that is measured.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
}

impl Program {
    /// Builds the release binary, unless one is named, and refuses any other.
    pub(crate) fn locate(named: Option<&Path>) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
                    .args(["build", "--release", "-p", "srcos-node"])
                    .current_dir(root)
                    .status()
                    .context("cannot run cargo")?;
                ensure!(built.success(), "the release build of srcos-node failed");
                let target = std::env::var_os("CARGO_TARGET_DIR");
                let target = target.map_or_else(|| root.join("target"), PathBuf::from);
                target.join("release/srcos-node")
            }
        };
        let path = path.canonicalize().with_context(|| format!("no {}", path.display()))?;
        let debug = path.components().any(|part| part.as_os_str() == "debug");
        ensure!(!debug, "{} is a debug build: figures need a release one", path.display());
        Ok(Self { path })
    }

    /// Runs a command of the program to its end.
    pub(crate) fn run(&self, dir: &Path, args: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(&self.path)
            .args(["--json", "--data-dir"])
            .arg(dir)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed: {}", args.join(" "), said.trim());
        let first = output.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice(first).with_context(|| format!("{}: no JSON", args.join(" ")))
    }

    /// What it says of its version.
    pub(crate) fn version(&self) -> String {
        let said = Command::new(&self.path).arg("--version").output();
        let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
        said.unwrap_or_default()
    }
}

/// A running node. It is killed when dropped.
pub(crate) struct Node {
    program: Program,
    pub(crate) dir: PathBuf,
    child: Child,
    pub(crate) ready: Value,
    /// From exec to the ready line.
    pub(crate) ready_after: Duration,
}

impl Node {
    pub(crate) fn start(program: &Program, dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let log = std::fs::File::create(dir.with_extension("log"))?;
        let began = Instant::now();
        let mut child = Command::new(&program.path)
            .args(["--json", "--data-dir"])
            .arg(dir)
            .args(["run", "--no-mdns", "--http", "off"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.path.display()))?;
        let stdout = child.stdout.take();
        let mut node = Self {
            program: program.clone(),
            dir: dir.to_owned(),
            child,
            ready: Value::Null,
            ready_after: Duration::ZERO,
        };
        let line = first_line(stdout.context("no output")?)?;
        node.ready_after = began.elapsed();
        let log = || std::fs::read_to_string(dir.with_extension("log")).unwrap_or_default();
        node.ready = serde_json::from_str(&line)
            .with_context(|| format!("the node did not get ready: {}", log()))?;
        Ok(node)
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.dir.join("node.sock"))
    }

    pub(crate) fn run(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.program.run(&self.dir, args)
    }

    pub(crate) fn address(&self) -> anyhow::Result<String> {
        Ok(self.ready["listen"][0].as_str().context("the node listens nowhere")?.to_owned())
    }

    pub(crate) fn device(&self) -> anyhow::Result<String> {
        Ok(self.ready["device"].as_str().context("the node has no device id")?.to_owned())
    }

    pub(crate) fn offline(&self, offline: bool) -> anyhow::Result<()> {
        let body = serde_json::json!({"offline": offline});
        self.client()?.request("POST", "/admin/network", Some(&body))?;
        Ok(())
    }

    /// Ends it as a service manager would, and waits.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(told.success(), "the node is gone already");
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the node ended with {status}");
                return Ok(());
            }
            ensure!(began.elapsed() < STOP_TIMEOUT, "the node did not end in {STOP_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of the store's file.
    pub(crate) fn store_bytes(&self) -> anyhow::Result<f64> {
        let file = self.dir.join("store.redb");
        let facts = std::fs::metadata(&file);
        Ok(facts.with_context(|| format!("no {}", file.display()))?.len() as f64)
    }

    /// A line of `/proc/PID/status` in MB: `VmHWM` is the peak, `VmRSS` the present.
    pub(crate) fn memory_mb(&self, line: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kb = found.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
        Ok(kb.with_context(|| format!("no {line}"))? * 1024.0 / 1e6)
    }

    /// Processor time so far in seconds, by two accounts: of the process, in steps of 10 ms; and
    /// of its living threads, in nanoseconds. What grew more between two looks is what it used.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<[f64; 2]> {
        let mut nanoseconds = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let Ok(account) = std::fs::read_to_string(thread?.path().join("schedstat")) else {
                // It ended between the listing and the reading.
                continue;
            };
            let ran = account.split(' ').next().and_then(|ran| ran.parse::<f64>().ok());
            nanoseconds += ran.context("no processor time in schedstat")?;
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold spaces; what follows does not.
        let (_, rest) = stat.rsplit_once(')').context("no stat")?;
        let field = |place: usize| rest.split_whitespace().nth(place)?.parse::<f64>().ok();
        match (field(11), field(12)) {
            (Some(user), Some(system)) => {
                Ok([(user + system) / TICKS_PER_SECOND, nanoseconds / 1e9])
            }
            _ => bail!("no processor time in stat"),
        }
    }
}

/// The first line that a process says, or as much of it as it said before it ended. Who waits for it can be
/// told to stop.
fn first_line(output: ChildStdout) -> anyhow::Result<String> {
    let (said, heard) = mpsc::channel();
    // It ends with the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        // Nobody listens any more when the run was interrupted.
        let _ = said.send(read.map(|_| line));
    });
    loop {
        match heard.recv_timeout(LOOK_TIME) {
            Ok(line) => return Ok(line?),
            Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            Err(RecvTimeoutError::Disconnected) => bail!("the output could not be read"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and waiting returns at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
