//! Two paired nodes, A and B, and what is waited for between them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::http::Client;
use crate::interrupt;
use crate::node::{Node, Program};
use crate::scratch;
use crate::workload;

/// The lane that is measured in.
pub(crate) const LANE: &str = "normal";
/// Longest wait for two nodes to be in step.
const SYNC_TIMEOUT: Duration = Duration::from_secs(900);
/// Time between two looks at a link that is awaited.
const LINK_POLL: Duration = Duration::from_millis(2);
/// Time between two looks at a transfer: the finest step that costs the nodes nothing.
const SYNC_POLL: Duration = Duration::from_millis(20);

/// How nodes reach each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Quic,
    Tcp,
}

impl Link {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }

    fn listen(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
        }
    }
}

/// How directories of nodes begin; the process that made one follows.
const SCRATCH: &str = "srcos-bench-";
/// Disk that is wanted to be free.
const FREE_BYTES: u64 = 500_000_000;
/// The same for each object: two stores, the file that is imported, and what a commit needs besides.
const FREE_BYTES_EACH: u64 = 4_000;

/// A directory for nodes, removed at the end.
pub(crate) fn scratch(parent: Option<&Path>) -> anyhow::Result<TempDir> {
    scratch::make(&dir(parent), SCRATCH)
}

/// Looks at the disk before a run that has so many objects at most: it must have room, and what an earlier
/// run left that was killed is removed.
pub(crate) fn prepare(parent: Option<&Path>, objects: u64) -> anyhow::Result<()> {
    let dir = dir(parent);
    scratch::remove_left_behind(&dir, SCRATCH)?;
    let bytes = FREE_BYTES.saturating_add(objects.saturating_mul(FREE_BYTES_EACH));
    scratch::refuse_full_disk(&dir, bytes)
}

fn dir(parent: Option<&Path>) -> PathBuf {
    parent.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// Starts one node in a new directory.
pub(crate) fn start(
    program: &Program,
    dir: &Path,
    name: &str,
    link: Link,
    peer: Option<&str>,
) -> anyhow::Result<Node> {
    let transport = format!("--transport={}", link.name());
    let mut args = vec!["--init", "--name", name, "--listen", link.listen(), &transport];
    if let Some(peer) = peer {
        args.extend(["--peer", peer]);
    }
    Node::start(program, &dir.join(name), &args)
}

/// Imports so many objects into a node; returns how long that took from start to end.
pub(crate) fn import(node: &Node, scratch: &Path, objects: u64) -> anyhow::Result<Duration> {
    let file: PathBuf = scratch.join("objects.jsonl");
    workload::write_lines(&file, "bench", objects)?;
    let path = file.to_str().context("the directory's path is not UTF-8")?;
    let began = Instant::now();
    node.run(&["import", LANE, path])?;
    let took = began.elapsed();
    std::fs::remove_file(&file)?;
    Ok(took)
}

/// Two nodes that are members of one mesh.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) scratch: TempDir,
    program: Program,
    link: Link,
}

/// When a link came up and when all was over it, counted from when it was let.
#[derive(Clone, Copy)]
pub(crate) struct Sync {
    pub(crate) linked: Duration,
    pub(crate) in_step: Duration,
}

impl Sync {
    /// From the link to both in step.
    pub(crate) fn transfer(self) -> Duration {
        self.in_step.saturating_sub(self.linked)
    }
}

impl Pair {
    /// Pairs two new nodes and waits until they are in step, with nothing in the lane.
    pub(crate) fn new(
        program: &Program,
        parent: Option<&Path>,
        link: Link,
    ) -> anyhow::Result<Self> {
        let scratch = scratch(parent)?;
        let a = start(program, scratch.path(), "a", link, None)?;
        let address = a.address()?;
        let b = start(program, scratch.path(), "b", link, Some(&address))?;
        let invite = a.run(&["pair", "invite", "--no-wait"])?;
        let ticket = invite["ticket"].as_str().context("the invite has no ticket")?;
        b.run(&["pair", "join", ticket, "--addr", &address])?;
        let pair = Self { a, b, scratch, program: program.clone(), link };
        pair.wait_linked(true)?;
        Ok(pair)
    }

    /// Cuts the link, and waits until both know.
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        self.b.offline(true)?;
        self.wait_linked(false)?;
        Ok(())
    }

    /// Lets the link come back and waits until both hold so many objects and know it.
    pub(crate) fn rejoin(&self, objects: u64) -> anyhow::Result<Sync> {
        let began = Instant::now();
        self.b.offline(false)?;
        self.wait_linked(true)?;
        let linked = began.elapsed();
        self.wait_in_step(objects)?;
        Ok(Sync { linked, in_step: began.elapsed() })
    }

    /// A pair in step with so many objects, imported on A while the link was cut.
    pub(crate) fn filled(
        program: &Program,
        parent: Option<&Path>,
        link: Link,
        objects: u64,
    ) -> anyhow::Result<(Self, Sync)> {
        let pair = Self::new(program, parent, link)?;
        pair.cut()?;
        import(&pair.a, pair.scratch.path(), objects)?;
        let sync = pair.rejoin(objects)?;
        Ok((pair, sync))
    }

    /// Bytes of frames that both nodes have taken in so far.
    pub(crate) fn frame_bytes(&self) -> anyhow::Result<f64> {
        let of = |node: &Node| node.client()?.metric("srcos_frame_bytes_in_total");
        Ok(of(&self.a)? + of(&self.b)?)
    }

    fn wait_linked(&self, linked: bool) -> anyhow::Result<()> {
        let wanted = if linked { 1.0 } else { 0.0 };
        let began = Instant::now();
        for node in [&self.b, &self.a] {
            let mut client = node.client()?;
            while client.metric("srcos_peers_connected")? != wanted {
                let late = began.elapsed() > SYNC_TIMEOUT;
                ensure!(!late, "the link did not come to {wanted} in {SYNC_TIMEOUT:?}");
                interrupt::check()?;
                std::thread::sleep(LINK_POLL);
            }
        }
        Ok(())
    }

    /// Stops A and starts it again in its directory.
    pub(crate) fn restart_a(&mut self) -> anyhow::Result<()> {
        self.a.stop()?;
        self.a = start(&self.program, self.scratch.path(), "a", self.link, None)?;
        Ok(())
    }

    /// Waits until both hold so many objects and know it.
    pub(crate) fn wait_in_step(&self, objects: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        let (mut a, mut b) = (self.a.client()?, self.b.client()?);
        let devices = [self.a.device()?, self.b.device()?];
        loop {
            let states =
                [in_step(&mut b, &devices[0], objects)?, in_step(&mut a, &devices[1], objects)?];
            if states == [true, true] {
                return Ok(());
            }
            let late = began.elapsed() > SYNC_TIMEOUT;
            ensure!(!late, "the nodes were not in step after {SYNC_TIMEOUT:?}");
            interrupt::check()?;
            std::thread::sleep(SYNC_POLL);
        }
    }
}

/// Whether a node holds so many objects and has proven that the peer holds the same.
fn in_step(client: &mut Client, peer: &str, objects: u64) -> anyhow::Result<bool> {
    let status = client.get(&format!("/lanes/{LANE}"))?;
    let lane = &status["lanes"][0];
    let peers = lane["replication"]["peers"].as_array().context("no peers in the status")?;
    let proven = peers.iter().any(|at| at["device"] == peer && at["state"] == "in_sync");
    Ok(proven && lane["objects"]["live"] == objects)
}
