//! One side of a pair: a process that holds one device of one peer and does what it is told.
//!
//! The program starts itself again for each side (`side`), and talks with it over its standard
//! input and output: a command on a line, and an answer on a line, `ok TEXT` or `error TEXT`. The
//! peer in JavaScript speaks the same lines (`js/side.mjs`).

use std::io::{BufRead as _, Write as _};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::peers::Peer;

/// Shortest time between two looks at how much a side holds.
const LOOK_TIME_MIN: Duration = Duration::from_micros(500);
/// Pause after a look, in times of what looks take.
const PAUSE_LOOKS: u32 = 4;
/// Longest time between two looks.
const LOOK_TIME_MAX: Duration = Duration::from_millis(20);

/// A device of a peer, with a durable store in a directory of its own.
pub(crate) trait Side {
    /// What the other side is given so that it can join: one line.
    fn invitation(&mut self) -> anyhow::Result<String>;
    /// Makes these objects, each with a change of its own. Returns when the peer says that they are
    /// written, whatever it means by that.
    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()>;
    /// Lets the link be: the side that invited accepts, the side that joined dials.
    fn connect(&mut self) -> anyhow::Result<()>;
    /// Cuts the link.
    fn disconnect(&mut self) -> anyhow::Result<()>;
    /// How many objects can be read here.
    fn held(&mut self) -> anyhow::Result<u64>;
    /// Whether this object can be read here, where that is said sooner than how many can: who looks must not
    /// have to wait for a peer that is busy with what is looked for.
    fn may_hold(&mut self, _number: u64) -> anyhow::Result<bool> {
        Ok(true)
    }
    /// Begins to look out for an object.
    fn expect(&mut self, number: u64) -> anyhow::Result<()>;
    /// Waits until the expected object can be read here; false if it could not in that time.
    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool>;
    /// The most memory that the peer's process ever had, in bytes.
    fn peak_memory_bytes(&self) -> anyhow::Result<u64> {
        peak_memory_bytes(std::process::id())
    }
}

/// What a side is started with.
#[derive(clap::Args, Clone)]
pub(crate) struct Start {
    /// Which peer
    #[arg(value_enum)]
    pub(crate) peer: Peer,
    /// The directory of its store
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// What the other side said; without it, this one invites
    #[arg(long)]
    pub(crate) invitation: Option<String>,
    /// The node's program
    #[arg(long)]
    pub(crate) node: PathBuf,
    /// Bytes that stand for one object, where there are no objects
    #[arg(long)]
    pub(crate) object_bytes: usize,
}

/// Serves commands until the standard input ends.
pub(crate) fn serve(start: &Start) -> anyhow::Result<()> {
    let commands = commands();
    match start.peer.start(start).and_then(|mut side| Ok((side.invitation()?, side))) {
        Ok((invitation, mut side)) => {
            answer(Ok(invitation));
            for line in commands {
                answer(obey(side.as_mut(), &line).with_context(|| line.clone()));
            }
        }
        Err(error) => answer(Err(error)),
    }
    Ok(())
}

/// The commands, read by a thread of their own: when the program that started this one is gone,
/// however it ended, the input ends, and at once so does this process with all that it started.
fn commands() -> Receiver<String> {
    let (heard, commands) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if heard.send(line).is_err() {
                break;
            }
        }
        let me = rustix::process::getpid();
        if rustix::process::getpgrp() == me {
            // It can only fail if there is nobody to kill.
            let _ = rustix::process::kill_process_group(me, rustix::process::Signal::KILL);
        }
    });
    commands
}

fn answer(result: anyhow::Result<String>) {
    let text = match result {
        Ok(text) => format!("ok {text}"),
        Err(error) => format!("error {error:#}").replace('\n', " "),
    };
    let mut out = std::io::stdout().lock();
    // Who does not read any more has ended, and so does this process.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn obey(side: &mut dyn Side, line: &str) -> anyhow::Result<String> {
    let mut words = line.split(' ');
    let command = words.next().unwrap_or_default();
    let mut number = || -> anyhow::Result<u64> { Ok(words.next().context("no number")?.parse()?) };
    let mut told = String::new();
    match command {
        "write" => {
            let (first, count) = (number()?, number()?);
            side.write(first..first + count)?;
        }
        "connect" => side.connect()?,
        "disconnect" => side.disconnect()?,
        "hold" => {
            let (count, last, limit) = (number()?, number()?, Duration::from_millis(number()?));
            told = hold(side, count, last, limit)?.to_string();
        }
        "expect" => side.expect(number()?)?,
        "seen" => told = side.seen(Duration::from_millis(number()?))?.to_string(),
        "memory" => told = side.peak_memory_bytes()?.to_string(),
        other => bail!("no command {other:?}"),
    }
    Ok(told)
}

/// Waits until a side holds so many objects, of which this one comes last, and tells how many it holds then.
///
/// Looks rarely: at first it takes a fifth of a processor, and later less. After 1 % of the time that has passed, or
/// [`PAUSE_LOOKS`] times what a look takes. That is the quicker of the last two: one that had to wait for a
/// processor seems dear and is not, and a pause after it would make the quickest peer seem slow.
fn hold(side: &mut dyn Side, count: u64, last: u64, limit: Duration) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut last_look = Duration::MAX;
    loop {
        let looked = Instant::now();
        let late = began.elapsed() >= limit;
        if late || side.may_hold(last)? {
            let held = side.held()?;
            if late || held >= count {
                return Ok(held);
            }
        }
        let look = looked.elapsed();
        let takes = look.min(std::mem::replace(&mut last_look, look));
        let pause = (began.elapsed() / 100).max(takes * PAUSE_LOOKS);
        std::thread::sleep(pause.clamp(LOOK_TIME_MIN, LOOK_TIME_MAX));
    }
}

/// The most memory that a process ever had, in bytes.
pub(crate) fn peak_memory_bytes(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kb: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kb * 1024)
}
