//! A side as a process, from the outside: started, asked, and killed whatever happens.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;
use crate::peers::{Peer, js_dir};
use crate::side::Start;

/// Longest wait for a side to start, and for an answer that needs no work.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Time between two looks whether the run was interrupted.
const LOOK_TIME: Duration = Duration::from_millis(50);
/// Bytes of what a side said on its standard error that are shown when it fails.
const LOG_BYTES_SHOWN: usize = 400;

/// Said of a wait that was too long, so that it can be told from a failure.
#[derive(Debug)]
pub(crate) struct TooLong(pub(crate) Duration);

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer in {:.0} s", self.0.as_secs_f64())
    }
}

impl std::error::Error for TooLong {}

/// A running side. It and all that it started are killed when it is dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    commands: ChildStdin,
    answers: Receiver<(Instant, String)>,
    /// Answers that are still to come.
    owed: u32,
    log: PathBuf,
    pub(crate) invitation: String,
}

impl Process {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&start.dir)?;
        let log = start.dir.with_extension("log");
        let letter = if start.invitation.is_none() { "A" } else { "B" };
        let name = format!("{}, side {letter}", start.peer.name());
        let mut child = command(start)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            // A group of its own: it is killed with all that it started, and the Ctrl-C of a
            // terminal goes to this program alone, which then ends things in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (heard, answers) = mpsc::channel();
        let Some((commands, output)) = pipes else {
            let _ = child.kill();
            bail!("{name} has no pipes");
        };
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if heard.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let invitation = String::new();
        // The first answer is the invitation.
        let mut process = Self { name, child, commands, answers, owed: 1, log, invitation };
        process.invitation = process.answer(ANSWER_TIME_MAX)?.1;
        Ok(process)
    }

    /// Sends a command, and tells when.
    pub(crate) fn tell(&mut self, command: &str) -> anyhow::Result<Instant> {
        let at = Instant::now();
        let sent = self.commands.write_all(format!("{command}\n").as_bytes());
        if sent.is_err() {
            bail!("{} is gone{}", self.name, last_words(&self.log));
        }
        self.owed += 1;
        Ok(at)
    }

    /// Waits for the answer, and tells when it came.
    pub(crate) fn answer(&mut self, limit: Duration) -> anyhow::Result<(Instant, String)> {
        let began = Instant::now();
        loop {
            interrupt::check()?;
            match self.answers.recv_timeout(LOOK_TIME) {
                Ok((at, line)) => {
                    let (verdict, text) = line.split_once(' ').unwrap_or((&line, ""));
                    ensure!(verdict == "ok" || verdict == "error", "{} said {line:?}", self.name);
                    self.owed -= 1;
                    ensure!(verdict == "ok", "{}: {text}", self.name);
                    return Ok((at, text.to_owned()));
                }
                Err(RecvTimeoutError::Timeout) if began.elapsed() < limit => {}
                Err(RecvTimeoutError::Timeout) => return Err(TooLong(limit).into()),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended{}", self.name, last_words(&self.log));
                }
            }
        }
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask(&mut self, command: &str, limit: Duration) -> anyhow::Result<String> {
        // What answers an earlier command, for which nobody waited to the end, says nothing of this one.
        while self.owed > 0 {
            let owed = self.owed;
            let answer = self.answer(limit);
            if self.owed == owed {
                answer.context("waiting for the answer to an earlier command")?;
            }
        }
        self.tell(command)?;
        let (_, text) = self.answer(limit).with_context(|| command.to_owned())?;
        Ok(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nobody to kill.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program again as a side; or Node.js, for the peer that is written for it.
fn command(start: &Start) -> anyhow::Result<Command> {
    let mut command = if start.peer == Peer::AutomergeRepo {
        let mut command = Command::new("node");
        command.arg(js_dir().join("side.mjs"));
        command
    } else {
        let mut command = Command::new(std::env::current_exe().context("where am I?")?);
        let name = clap::ValueEnum::to_possible_value(&start.peer);
        command.arg("side").arg(name.context("a peer without a name")?.get_name());
        command
    };
    command.arg("--dir").arg(&start.dir).arg("--node").arg(&start.node);
    command.arg("--object-bytes").arg(start.object_bytes.to_string());
    if let Some(invitation) = &start.invitation {
        command.arg("--invitation").arg(invitation);
    }
    Ok(command)
}

/// The end of what a side said on its standard error.
fn last_words(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_BYTES_SHOWN)..]);
    let text = text.trim().replace('\n', " | ");
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
