//! `index`: one object for each file of a folder, and only differences written.
//!
//! The object's id is the path below the folder, its body `{path, size, mtime, blake3, media_type}`,
//! and its label `index_root` names device and folder. Objects with that label whose file has gone
//! are deleted; objects of other folders or devices never are. A file is read only where its size
//! or time differs from what its object says. A part of the folder that cannot be looked at is
//! reported, and nothing below it counts as gone.
//!
//! Files that cannot be indexed are listed on standard error and counted; the command still exits
//! 0 unless `--strict` was given, because a folder in use always has some.

mod plan;
mod walk;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use srcos_lanes::lane::LaneId;
use srcos_schemas::objects::{ObjectDocument, PAGE_LIMIT_MAX};
use srcos_schemas::peers::PeersDocument;
use tokio::sync::mpsc;

pub use self::plan::{FileFacts, Known, Plan, plan};
pub use self::walk::{Scope, Seen, Unindexed, walk};
use crate::api::ListQuery;
use crate::cli::Session;
use crate::cli::args::IndexArgs;
use crate::error::NodeError;
use crate::render;

/// Label that names the folder an object was made from.
pub const ROOT_LABEL: &str = "index_root";

/// Kind of the objects.
pub const KIND: &str = "file";

/// Files hashed ahead of the batch that is being written.
const HASHED_AHEAD_MAX: usize = 64;

/// Operations in one batch: with paths of the longest sort, all of them escaped, a batch stays within
/// the limit of a request.
const OPS_IN_BATCH_MAX: usize = 500;

/// What one pass over the folder did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct IndexSummary {
    /// Files found.
    pub files: usize,
    /// Files whose object says so already.
    pub unchanged: usize,
    /// Objects written.
    pub written: usize,
    /// Objects deleted, their file being gone.
    pub deleted: usize,
    /// Files and folders that could not be indexed.
    pub failed: usize,
}

/// The folder, and what its objects say.
struct Indexer {
    args: IndexArgs,
    root: PathBuf,
    label: String,
    known: BTreeMap<String, Known>,
}

/// Indexes a folder, and stays with it where asked to.
pub(crate) async fn run(session: &mut Session<'_, '_>, args: IndexArgs) -> Result<(), NodeError> {
    let root = args.path.canonicalize().map_err(|error| NodeError::file(&args.path, &error))?;
    if !root.is_dir() {
        let message = format!("{} is not a folder", root.display());
        return Err(NodeError::usage("not_a_folder", message, "name the folder that holds it"));
    }
    let peers: PeersDocument = session.client.get("/peers").await?;
    let label = root_label(&peers.device, &root);
    let known = known(session, args.lane, &label).await?;
    let mut indexer = Indexer { args, root, label, known };
    // Before the first pass, so that nothing that changes during it is missed.
    let watcher = if indexer.args.watch { Some(watch::Watcher::new(&indexer.root)?) } else { None };
    let summary = indexer.pass(session, &Scope::All).await?;
    session.show(&summary, words)?;
    if let Some(watcher) = watcher {
        indexer.follow(session, watcher).await?;
    }
    if indexer.args.strict && summary.failed > 0 {
        return Err(NodeError::DoesNotHold);
    }
    Ok(())
}

fn words(summary: &IndexSummary, _coloured: bool) -> String {
    let IndexSummary { files, unchanged, written, deleted, failed } = summary;
    let mut text = format!(
        "{files} files: {written} written, {unchanged} unchanged; {deleted} vanished and deleted"
    );
    if *failed > 0 {
        text.push_str(&format!("; {failed} could not be indexed"));
    }
    text
}

/// The same for one folder of one device, always; different for every other.
pub fn root_label(device: &str, root: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"srcos index root 1\0");
    hasher.update(device.as_bytes());
    hasher.update(b"\0");
    hasher.update(root.as_os_str().as_encoded_bytes());
    data_encoding::HEXLOWER.encode(&hasher.finalize().as_bytes()[..8])
}

/// What the objects of a folder say.
async fn known(
    session: &Session<'_, '_>,
    lane: LaneId,
    label: &str,
) -> Result<BTreeMap<String, Known>, NodeError> {
    let mut known = BTreeMap::new();
    let mut query = ListQuery {
        prefix: None,
        kind: Some(KIND.to_owned()),
        labels: BTreeMap::from([(ROOT_LABEL.to_owned(), label.to_owned())]),
        limit: PAGE_LIMIT_MAX,
        after: None,
    };
    loop {
        let page = session.client.list(lane, &query).await?;
        known.extend(page.objects.iter().map(|object| (object.id.clone(), known_of(object))));
        let Some(next) = page.next else {
            return Ok(known);
        };
        query.after = Some(next);
    }
}

/// What an object says of its file. A body that someone else wrote into says nothing, so that the
/// file is read again.
fn known_of(object: &ObjectDocument) -> Known {
    let text = |key: &str| object.body.get(key).and_then(Value::as_str);
    Known {
        size: object.body.get("size").and_then(Value::as_u64),
        mtime: text("mtime").and_then(|time| time.parse().ok()),
        blake3: text("blake3").map(str::to_owned),
    }
}

impl Indexer {
    /// Looks at the folder, or a part of it, and writes what differs.
    async fn pass(
        &mut self,
        session: &mut Session<'_, '_>,
        scope: &Scope,
    ) -> Result<IndexSummary, NodeError> {
        let (root, prefix, hidden) =
            (self.root.clone(), self.args.prefix.clone(), self.args.hidden);
        let looked_at = scope.clone();
        let seen =
            tokio::task::spawn_blocking(move || walk(&root, &prefix, hidden, &looked_at)).await;
        let seen = seen.map_err(|error| crate::api::ApiError::internal(error.to_string()))?;
        let mut summary = IndexSummary { files: seen.files.len(), ..IndexSummary::default() };
        for fault in &seen.faults {
            summary.failed += 1;
            session.warn(&fault.to_string());
        }
        let plan = plan(&self.known, &seen);
        summary.unchanged = plan.unchanged;
        let progress = session.shows_progress() && plan.read.len() > HASHED_AHEAD_MAX;
        let bar = progress.then(|| render::count_bar(plan.read.len() as u64, "indexing"));

        let mut hashed = hash_files(self.root.clone(), &plan, seen);
        let mut batch = Batch::default();
        while let Some((id, outcome)) = hashed.recv().await {
            if let Some(bar) = &bar {
                bar.inc(1);
            }
            match outcome {
                Ok(facts) => batch.put(id, &facts, &self.label, &self.args.prefix),
                Err(fault) if fault.is_vanished() => {
                    if self.known.contains_key(&id) {
                        batch.delete(id);
                    }
                }
                Err(fault) => {
                    summary.failed += 1;
                    session.warn(&fault.to_string());
                }
            }
            if batch.ops.len() == OPS_IN_BATCH_MAX {
                self.write(session, &mut batch, &mut summary).await?;
            }
        }
        for id in plan.gone {
            batch.delete(id);
            if batch.ops.len() == OPS_IN_BATCH_MAX {
                self.write(session, &mut batch, &mut summary).await?;
            }
        }
        self.write(session, &mut batch, &mut summary).await?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(summary)
    }

    async fn write(
        &mut self,
        session: &Session<'_, '_>,
        batch: &mut Batch,
        summary: &mut IndexSummary,
    ) -> Result<(), NodeError> {
        let Batch { ops, known } = std::mem::take(batch);
        if ops.is_empty() {
            return Ok(());
        }
        session.client.batch(self.args.lane, &ops).await?;
        for (id, known) in known {
            match known {
                Some(known) => {
                    summary.written += 1;
                    self.known.insert(id, known);
                }
                None => {
                    summary.deleted += 1;
                    self.known.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// Stays with the folder until interrupted.
    async fn follow(
        &mut self,
        session: &mut Session<'_, '_>,
        mut watcher: watch::Watcher,
    ) -> Result<(), NodeError> {
        loop {
            let scope = tokio::select! {
                scope = watcher.next() => scope,
                _interrupted = tokio::signal::ctrl_c() => return Ok(()),
            };
            for fault in watcher.take_faults() {
                session.warn(&fault);
            }
            // A node that is away for a moment must not end the watch: the next pass finds what
            // this one could not write.
            match self.pass(session, &scope).await {
                Ok(summary) if summary.written + summary.deleted > 0 => {
                    session.show(&summary, words)?;
                }
                Ok(_) => {}
                Err(error @ NodeError::OutputClosed) => return Err(error),
                Err(error) => {
                    session.warn(&format!("this change is not written yet: {error}"));
                    watcher.look_again();
                    // Perhaps an object was deleted by someone else in the meantime.
                    if let Ok(known) = known(session, self.args.lane, &self.label).await {
                        self.known = known;
                    }
                }
            }
        }
    }
}

/// Operations to send, and what will be known when they are done.
#[derive(Default)]
struct Batch {
    ops: Vec<Value>,
    known: Vec<(String, Option<Known>)>,
}

impl Batch {
    fn put(&mut self, id: String, facts: &FileFacts, label: &str, prefix: &str) {
        let path = id.strip_prefix(prefix).unwrap_or(&id);
        let media_type = mime_guess::from_path(path).first_or_octet_stream();
        self.ops.push(json!({
            "op": "put",
            "id": id,
            "kind": KIND,
            "labels": {ROOT_LABEL: label},
            "body": {
                "path": path,
                "size": facts.size,
                "mtime": facts.mtime,
                "blake3": facts.blake3,
                "media_type": media_type.essence_str(),
            },
        }));
        let known = Known {
            size: Some(facts.size),
            mtime: Some(facts.mtime),
            blake3: Some(facts.blake3.clone()),
        };
        self.known.push((id, Some(known)));
    }

    fn delete(&mut self, id: String) {
        self.ops.push(json!({"op": "delete", "id": id, "reason": "its file has vanished"}));
        self.known.push((id, None));
    }
}

type Hashed = (String, Result<FileFacts, Unindexed>);

/// Reads the files of a plan on a thread of its own, not far ahead of whoever takes the results.
fn hash_files(root: PathBuf, plan: &Plan, mut seen: Seen) -> mpsc::Receiver<Hashed> {
    let (sender, receiver) = mpsc::channel(HASHED_AHEAD_MAX);
    let files: Vec<(String, PathBuf)> = plan
        .read
        .iter()
        .filter_map(|id| seen.files.remove(id).map(|file| (id.clone(), file.path)))
        .collect();
    tokio::task::spawn_blocking(move || {
        for (id, path) in files {
            let outcome = walk::read_facts(&root.join(path));
            if sender.blocking_send((id, outcome)).is_err() {
                return;
            }
        }
    });
    receiver
}
