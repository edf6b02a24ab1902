//! The node itself: its release binary, driven over its socket as any program would drive it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::http::Client;
use crate::node::{Node, Program};
use crate::peers::wait;
use crate::side::{Side, Start};
use crate::workload;

const LANE: &str = "normal";
const LISTEN: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Longest wait for the stream of changes to begin.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(10);

/// Says how to build the program, if it is not there.
pub(crate) fn refuse_missing(node: &Path) -> anyhow::Result<()> {
    ensure!(
        node.is_file(),
        "no node at {}: build it with `cargo build --release`, or name one with --node",
        node.display()
    );
    let debug = node.components().any(|part| part.as_os_str() == "debug");
    ensure!(!debug, "{} is a debug build: figures need a release one", node.display());
    Ok(())
}

/// Ids of changes that were seen since somebody began to look.
type Seen = Arc<(Mutex<BTreeSet<String>>, Condvar)>;

/// A device.
pub(crate) struct Srcos {
    node: Node,
    client: Client,
    dir: PathBuf,
    invited: bool,
    followed: Option<Seen>,
    expected: String,
}

impl Srcos {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let program = Program { path: start.node.clone() };
        let dir = start.dir.join("node");
        let args = ["--init", "--listen", LISTEN, "--transport=quic"];
        let node = match &start.invitation {
            None => Node::start(&program, &dir, &[args.as_slice(), &["--name", "a"]].concat())?,
            Some(invitation) => {
                let (ticket, address) = invitation.split_once(' ').context("half an invitation")?;
                let more = ["--name", "b", "--peer", address];
                let node = Node::start(&program, &dir, &[args.as_slice(), &more].concat())?;
                node.run(&["pair", "join", ticket, "--addr", address])?;
                node.offline(true)?;
                node
            }
        };
        let client = node.client()?;
        let invited = start.invitation.is_some();
        let (dir, expected) = (start.dir.clone(), String::new());
        Ok(Self { node, client, dir, invited, followed: None, expected })
    }

    /// Follows the changes of the lane from now on. The thread ends with the node.
    fn follow(&mut self) -> anyhow::Result<Seen> {
        if let Some(seen) = &self.followed {
            return Ok(Arc::clone(seen));
        }
        let seen = Seen::default();
        let (ready, is_ready) = mpsc::channel();
        let (client, told) = (self.node.client()?, Arc::clone(&seen));
        std::thread::spawn(move || {
            // When the stream ends, what is expected is not seen, and that is said.
            let _ = client.follow(
                LANE,
                move || ready.send(()).unwrap_or_default(),
                |id| {
                    if let Ok(mut ids) = told.0.lock() {
                        ids.insert(id.to_owned());
                    }
                    told.1.notify_all();
                    true
                },
            );
        });
        is_ready.recv_timeout(FOLLOW_TIME_MAX).context("the node does not tell of changes")?;
        self.followed = Some(Arc::clone(&seen));
        Ok(seen)
    }
}

impl Side for Srcos {
    fn invitation(&mut self) -> anyhow::Result<String> {
        if self.invited {
            return Ok(String::new());
        }
        let invite = self.node.run(&["pair", "invite", "--no-wait"])?;
        let ticket = invite["ticket"].as_str().context("the invite has no ticket")?;
        Ok(format!("{ticket} {}", self.node.address()?))
    }

    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()> {
        if numbers.end - numbers.start == 1 {
            let number = numbers.start;
            return self.client.put(LANE, &workload::id("bench", number), &workload::body(number));
        }
        let file = self.dir.join("objects.jsonl");
        crate::write_objects(&file, numbers)?;
        let path = file.to_str().context("the directory's path is not UTF-8")?;
        self.node.run(&["import", LANE, path])?;
        Ok(std::fs::remove_file(&file)?)
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        if self.invited { self.node.offline(false) } else { Ok(()) }
    }

    fn disconnect(&mut self) -> anyhow::Result<()> {
        if self.invited { self.node.offline(true) } else { Ok(()) }
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        let status = self.client.get(&format!("/lanes/{LANE}"))?;
        status["lanes"][0]["objects"]["live"].as_u64().context("no count of objects in the status")
    }

    /// The status is told by the writer, which takes objects in; a list is read beside it.
    fn may_hold(&mut self, number: u64) -> anyhow::Result<bool> {
        let id = workload::id("bench", number);
        let page = self.client.get(&format!("/lanes/{LANE}/objects?limit=1&prefix={id}"))?;
        let objects = page["objects"].as_array().context("a list without objects")?;
        Ok(!objects.is_empty())
    }

    fn expect(&mut self, number: u64) -> anyhow::Result<()> {
        self.expected = workload::id("bench", number);
        self.follow()?;
        Ok(())
    }

    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let seen = self.follow()?;
        wait(&seen, limit, |ids| ids.remove(&self.expected))
    }

    fn peak_memory_bytes(&self) -> anyhow::Result<u64> {
        Ok((self.node.memory_mb("VmHWM")? * 1e6) as u64)
    }
}
