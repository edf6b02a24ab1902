//! What is compared: a file for each peer.

mod automerge_tcp;
mod iroh_docs;
mod quic;
mod samod_link;
mod samod_many;
mod samod_one;
mod srcos;
mod syncthing;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::side::{Side, Start};
pub(crate) use srcos::refuse_missing as refuse_missing_node;

/// Who is measured.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[value(rename_all = "snake_case")]
pub(crate) enum Peer {
    /// The node of this repository
    Srcos,
    /// samod, one document that holds all objects
    SamodOne,
    /// samod, a document for each object
    SamodMany,
    /// iroh-docs
    IrohDocs,
    /// Automerge's own sync protocol over TCP
    AutomergeTcp,
    /// automerge-repo on Node.js, one document that holds all objects
    AutomergeRepo,
    /// Syncthing, a file for each object
    Syncthing,
    /// A bare QUIC stream with as many bytes: no store, a physical limit
    Quic,
}

/// Where the peer in JavaScript is.
pub(crate) fn js_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("js")
}

impl Peer {
    pub(crate) const ALL: [Self; 8] = [
        Self::Srcos,
        Self::SamodOne,
        Self::SamodMany,
        Self::IrohDocs,
        Self::AutomergeTcp,
        Self::AutomergeRepo,
        Self::Syncthing,
        Self::Quic,
    ];

    /// Its name in files and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Srcos => "srcos-node",
            Self::SamodOne => "samod, one document",
            Self::SamodMany => "samod, a document per object",
            Self::IrohDocs => "iroh-docs",
            Self::AutomergeTcp => "Automerge sync over TCP",
            Self::AutomergeRepo => "automerge-repo (Node.js)",
            Self::Syncthing => "Syncthing",
            Self::Quic => "bare QUIC stream",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.name() == name)
    }

    /// How it is set up, and what it does that the others do not, or does not that others do.
    pub(crate) fn remarks(self) -> &'static str {
        match self {
            Self::Srcos => {
                "QUIC. Every entry signed, policy asked for every object, every write synced to \
                 disk before it is answered or acknowledged"
            }
            Self::SamodOne => {
                "TCP, file storage. No signatures, no encryption, no policy on objects, no fsync, \
                 errors of the disk are not reported; a write is answered before it is stored"
            }
            Self::SamodMany => {
                "as samod with one document; an index document names the others, and both sides \
                 open each one. Documents run where they do by default, on the runtime: with a \
                 pool of threads the first sync of 1,000 took 2.2 s, and 1.9 without"
            }
            Self::IrohDocs => {
                "QUIC, file stores. Entries signed by author and namespace; last writer wins, no \
                 policy on objects; a write is answered before it is synced to disk (at most \
                 500 ms later)"
            }
            Self::AutomergeTcp => {
                "TCP, one document, changes appended to a file and synced before a write is \
                 answered, sync state kept between links. No signatures, no encryption, no policy"
            }
            Self::AutomergeRepo => {
                "WebSocket over TCP, file storage, one document. No signatures, no encryption, no \
                 fsync, no policy on objects; a write is answered before it is stored"
            }
            Self::Syncthing => {
                "TLS over TCP, a file per object, no compression of its index; told of each write \
                 (by itself it looks after 10 s). Devices are authenticated, authors are not; \
                 files, not records"
            }
            Self::Quic => "nothing is stored, looked at or signed: what the network alone takes",
        }
    }

    /// Starts one device of it, in this process.
    pub(crate) fn start(self, start: &Start) -> anyhow::Result<Box<dyn Side>> {
        Ok(match self {
            Self::Srcos => Box::new(srcos::Srcos::start(start)?),
            Self::SamodOne => Box::new(samod_one::SamodOne::start(start)?),
            Self::SamodMany => Box::new(samod_many::SamodMany::start(start)?),
            Self::IrohDocs => Box::new(iroh_docs::IrohDocs::start(start)?),
            Self::AutomergeTcp => Box::new(automerge_tcp::AutomergeTcp::start(start)?),
            Self::AutomergeRepo => anyhow::bail!("it is started as a process of node"),
            Self::Syncthing => Box::new(syncthing::Syncthing::start(start)?),
            Self::Quic => Box::new(quic::Quic::start(start)?),
        })
    }

    /// Its version as it is here, or why it cannot be measured here.
    pub(crate) fn version(self, node: &Path) -> anyhow::Result<String> {
        match self {
            Self::Srcos => said(node, &["--version"]),
            Self::SamodOne | Self::SamodMany => locked("samod"),
            Self::IrohDocs => locked("iroh-docs"),
            Self::AutomergeTcp => locked("automerge"),
            Self::Quic => locked("quinn"),
            Self::Syncthing => said(Path::new("syncthing"), &["--version"])
                .context("Syncthing is not installed (apt-get install syncthing)"),
            Self::AutomergeRepo => {
                let node = said(Path::new("node"), &["--version"])
                    .context("Node.js is not installed (node is not on the path)")?;
                let package = "node_modules/@automerge/automerge-repo/package.json";
                let package = std::fs::read(js_dir().join(package)).context(
                    "automerge-repo is not installed (npm install --no-save --omit=optional --prefix benches/peers/js)",
                )?;
                let package: serde_json::Value = serde_json::from_slice(&package)?;
                let version = package["version"].as_str().unwrap_or("of no version");
                Ok(format!("automerge-repo {version}, node {node}"))
            }
        }
    }
}

/// The first line that a program says.
fn said(program: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The version of a crate that this program was built with.
pub(crate) fn locked(name: &str) -> anyhow::Result<String> {
    let wanted = format!("name = \"{name}\"");
    let mut lines = include_str!("../Cargo.lock").lines();
    lines.find(|line| *line == wanted).with_context(|| format!("{name} is not in Cargo.lock"))?;
    let version = lines.next().and_then(|line| line.split('"').nth(1)).unwrap_or_default();
    Ok(format!("{name} {version}"))
}

/// Waits until something shared is as wanted; false if it was not in that time.
fn wait<T>(
    shared: &(Mutex<T>, Condvar),
    limit: Duration,
    mut wanted: impl FnMut(&mut T) -> bool,
) -> anyhow::Result<bool> {
    let panicked = || anyhow::anyhow!("a thread of this side panicked");
    let began = Instant::now();
    let mut guard = shared.0.lock().map_err(|_| panicked())?;
    while !wanted(&mut guard) {
        let Some(left) = limit.checked_sub(began.elapsed()) else { return Ok(false) };
        guard = shared.1.wait_timeout(guard, left).map_err(|_| panicked())?.0;
    }
    Ok(true)
}
