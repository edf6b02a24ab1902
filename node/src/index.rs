//! `index`: one object for each file of a folder, and only differences written.
//!
//! The object's id is the prefix and the path below the folder, its body `{path, size, mtime, blake3,
//! media_type}`, and its label `index_root` names device, folder and prefix: whose object it is.
//! Objects with that label whose file has gone are deleted. All others stay as they are: a file whose
//! id is taken by an object with another label, or none, is left out and said to be, so that of two
//! folders with equal paths the first keeps the id, on every device alike. `--prefix` keeps them
//! apart; `--take-over` writes over them. A file is read only where its size or time differs from what
//! its object says. A part of the folder that cannot be looked at is reported, and nothing below it
//! counts as gone.
//!
//! Files that cannot be indexed are listed on standard error and counted; the command still exits
//! 0 unless `--strict` was given, because a folder in use always has some.

mod owner;
mod plan;
mod walk;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};
use srcos_lanes::lane::LaneId;
use srcos_schemas::objects::{ObjectDocument, PAGE_LIMIT_MAX};
use srcos_schemas::peers::PeersDocument;
use tokio::sync::mpsc;

pub use self::owner::{ROOT_LABEL, root_label};
pub use self::plan::{FileFacts, Known, Plan, plan};
pub use self::walk::{Rules, Scope, Seen, Unindexed, walk};
use crate::api::{ApiError, ListQuery};
use crate::cli::args::IndexArgs;
use crate::cli::membership::warn_if_out;
use crate::cli::{Session, data_dir};
use crate::data_dir::DataDir;
use crate::error::NodeError;
use crate::render;

/// Kind of the objects.
pub const KIND: &str = "file";

/// Files hashed ahead of the batch that is being written.
const HASHED_AHEAD_MAX: usize = 64;

/// Operations in one batch: with paths of the longest sort, all of them escaped, a batch stays within
/// the limit of a request.
const OPS_IN_BATCH_MAX: usize = 500;

/// Most files that one pass names as left out because their ids are taken; the rest is counted.
const TAKEN_LISTED_MAX: usize = 20;

/// What one pass over the folder did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct IndexSummary {
    /// Files found.
    pub files: usize,
    /// Files whose object says so already.
    pub unchanged: usize,
    /// Objects written.
    pub written: usize,
    /// Objects deleted, their file being gone or ignored.
    pub deleted: usize,
    /// Files whose id is taken by an object that this folder did not make; they are left out.
    pub taken: usize,
    /// Files and folders that could not be indexed.
    pub failed: usize,
}

/// The folder, and what its objects say.
struct Indexer {
    args: IndexArgs,
    root: PathBuf,
    rules: Rules,
    label: String,
    known: BTreeMap<String, Known>,
    /// The folder, when it was last seen to hold anything.
    filled: Option<walk::Identity>,
}

/// Indexes a folder, and stays with it where asked to.
pub(crate) async fn run(session: &mut Session<'_, '_>, args: IndexArgs) -> Result<(), NodeError> {
    let root = args.path.canonicalize().map_err(|error| NodeError::file(&args.path, &error))?;
    if !root.is_dir() {
        let message = format!("{} is not a folder", root.display());
        return Err(NodeError::usage("not_a_folder", message, "name the folder that holds it"));
    }
    let own = DataDir::new(&data_dir(&session.globals)?);
    if root.starts_with(own.path()) {
        let message = format!("{} belongs to the node's data directory", root.display());
        let hint = "index a folder of your own";
        return Err(NodeError::usage("folder_of_the_node", message, hint));
    }
    let rules = Rules { hidden: args.hidden, apart: own.places() };
    let peers: PeersDocument = session.client.get("/peers").await?;
    let label = root_label(&peers.device, &root, &args.prefix);
    let known = known(session, args.lane, &label).await?;
    let mut indexer = Indexer { args, root, rules, label, known, filled: None };
    // Before the first pass, so that nothing that changes during it is missed.
    let watcher = if indexer.args.watch { Some(watch::Watcher::new(&indexer.root)?) } else { None };
    let summary = indexer.pass(session, &Scope::All).await?;
    session.show(&summary, words)?;
    warn_if_out(session).await;
    if let Some(watcher) = watcher {
        indexer.follow(session, watcher).await?;
    }
    if indexer.args.strict && summary.failed + summary.taken > 0 {
        return Err(NodeError::DoesNotHold);
    }
    Ok(())
}

fn words(summary: &IndexSummary, _coloured: bool) -> String {
    let IndexSummary { files, unchanged, written, deleted, taken, failed } = summary;
    let files = render::count(*files, "file");
    let mut text = format!("{files}: {written} written, {unchanged} unchanged; {deleted} deleted");
    if *taken > 0 {
        text.push_str(&format!("; {taken} left out, their ids being taken"));
    }
    if *failed > 0 {
        text.push_str(&format!("; {failed} could not be indexed"));
    }
    text
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
        let (root, prefix, rules) =
            (self.root.clone(), self.args.prefix.clone(), self.rules.clone());
        let looked_at = scope.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // Before and after, for a disk may be mounted meanwhile.
            let before = walk::stand_in(&root).ok();
            let seen = walk(&root, &prefix, &rules, &looked_at);
            let after = walk::stand_in(&root).ok();
            (seen, before.filter(|before| Some(*before) == after))
        });
        let (mut seen, stand_in) =
            looked.await.map_err(|error| ApiError::internal(error.to_string()))?;
        self.doubt_emptiness(&mut seen, stand_in);
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
                        batch.delete(id, walk::VANISHED);
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
            let why =
                walk::why_gone(&self.root, id.strip_prefix(&*self.args.prefix).unwrap_or(&id));
            batch.delete(id, why);
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

    /// An empty folder may be what is left of one whose disk is not mounted: then nothing has gone. That
    /// it is the same that held files before tells it from that.
    fn doubt_emptiness(&mut self, seen: &mut Seen, found: Option<(walk::Identity, bool)>) {
        let Some((identity, empty)) = found else {
            // It was another folder before than after: the next pass says what has gone.
            seen.not_looked_at.push(String::new());
            return;
        };
        if !empty {
            self.filled = Some(identity);
            return;
        }
        // What a person says of the folder holds for how it is found, not for as long as it is watched.
        let on_purpose = self.filled.map_or(self.args.emptied, |filled| filled == identity);
        if !on_purpose && !self.known.is_empty() {
            seen.not_looked_at.push(String::new());
            seen.faults.push(Unindexed::Empty(self.root.clone()));
        }
    }

    async fn write(
        &mut self,
        session: &mut Session<'_, '_>,
        batch: &mut Batch,
        summary: &mut IndexSummary,
    ) -> Result<(), NodeError> {
        let mut batch = std::mem::take(batch);
        self.leave_taken(session, &mut batch, summary).await?;
        let Batch { ops, known } = batch;
        if ops.is_empty() {
            return Ok(());
        }
        let written = session.client.batch(self.args.lane, &ops).await;
        written.map_err(|error| name_object(error, self.args.lane, &known))?;
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

    /// Takes those out of a batch whose ids are objects of somebody else, also if they were this
    /// folder's once: a watch may be long, and others write meanwhile.
    async fn leave_taken(
        &mut self,
        session: &mut Session<'_, '_>,
        batch: &mut Batch,
        summary: &mut IndexSummary,
    ) -> Result<(), NodeError> {
        let ids = batch.ids(self.args.take_over);
        let taken = owner::taken(&session.client, self.args.lane, &ids, &self.label).await?;
        for id in &taken {
            self.known.remove(id);
            // Nothing is left out of a file that has gone.
            if !batch.writes(id) {
                continue;
            }
            summary.taken += 1;
            if summary.taken <= TAKEN_LISTED_MAX {
                let lane = self.args.lane;
                session.warn(&format!(
                    "{id} is left out: {lane}/{id} is an object that this folder did not make; keep \
                     them apart with --prefix, or write over it with --take-over"
                ));
            } else if summary.taken == TAKEN_LISTED_MAX + 1 {
                session.warn("more files are left out for the same reason");
            }
        }
        batch.leave_out(&taken);
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
    /// The ids in order: all, or those to be deleted.
    fn ids(&self, deleted_only: bool) -> Vec<&str> {
        let of = self.known.iter().filter(|(_, written)| !deleted_only || written.is_none());
        let mut ids: Vec<&str> = of.map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        ids
    }

    fn writes(&self, id: &str) -> bool {
        self.known.iter().any(|(known, written)| known == id && written.is_some())
    }

    fn leave_out(&mut self, ids: &BTreeSet<String>) {
        let kept: Vec<bool> = self.known.iter().map(|(id, _)| !ids.contains(id)).collect();
        // Operations and what is known of them lie side by side.
        let (mut of_ops, mut of_known) = (kept.iter(), kept.iter());
        self.ops.retain(|_| of_ops.next().copied().unwrap_or(true));
        self.known.retain(|_| of_known.next().copied().unwrap_or(true));
    }

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

    fn delete(&mut self, id: String, why: &str) {
        self.ops.push(json!({"op": "delete", "id": id, "reason": why}));
        self.known.push((id, None));
    }
}

/// The error of a batch, with the object that it is about in the place of its number.
fn name_object(error: ApiError, lane: LaneId, written: &[(String, Option<Known>)]) -> ApiError {
    let place = error.path.as_deref().and_then(|path| path.strip_prefix("ops/"));
    match place.and_then(|place| written.get(place.parse::<usize>().ok()?)) {
        Some((id, _)) => error.at(format!("{lane}/{id}")),
        None => error,
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use clap::Parser as _;

    use super::*;
    use crate::api::Detail;
    use crate::cli::Io;
    use crate::cli::args::{Cli, Command};
    use crate::client::Client;
    use crate::memory::MemoryNode;

    /// A folder that is watched, and the passes that the watch makes.
    struct Watched {
        client: Client,
        indexer: Indexer,
        folder: tempfile::TempDir,
    }

    impl Watched {
        fn new(more: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            let cli = ["srcos-node", "index", "."].iter().chain(more);
            let Command::Index(args) = Cli::parse_from(cli).command else { panic!("index") };
            let (label, known) = ("this folder".to_owned(), BTreeMap::new());
            let rules = Rules::default();
            let indexer = Indexer { args, root, rules, label, known, filled: None };
            Self { client: Client::direct(Arc::new(MemoryNode::new())), indexer, folder }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join(name), text).unwrap();
        }

        async fn pass(&mut self) -> (IndexSummary, String) {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut io = Io { input: &mut &b""[..], output: &mut out, errors: &mut err };
            let globals = Cli::parse_from(["srcos-node", "status"]).globals;
            let mut session = Session { globals, client: self.client.clone(), io: &mut io };
            let summary = self.indexer.pass(&mut session, &Scope::All).await.unwrap();
            (summary, String::from_utf8(err).unwrap())
        }

        /// Another device makes these objects its own.
        async fn take(&self, ids: &[&str]) {
            let put = |id: &&str| {
                let labels = json!({ROOT_LABEL: "another folder"});
                json!({"op": "put", "id": id, "kind": KIND, "labels": labels, "body": {"of": "other"}})
            };
            let ops: Vec<Value> = ids.iter().map(put).collect();
            self.client.batch(LaneId::Normal, &ops).await.unwrap();
        }

        async fn is_of_other(&self, id: &str) -> bool {
            let object = self.client.get_object(LaneId::Normal, id, Detail::default()).await;
            object.is_ok_and(|object| object.body == json!({"of": "other"}))
        }
    }

    #[tokio::test]
    async fn a_watch_neither_deletes_nor_overwrites_what_others_took_over_since_it_began() {
        let mut watched = Watched::new(&[]);
        for name in ["changed", "gone", "mine", "own gone"] {
            watched.write(name, "1");
        }
        assert_eq!(watched.pass().await.0.written, 4);
        watched.take(&["changed", "gone"]).await;
        for name in ["gone", "own gone"] {
            fs::remove_file(watched.folder.path().join(name)).unwrap();
        }
        for name in ["changed", "mine"] {
            watched.write(name, "22");
        }
        let (summary, said) = watched.pass().await;
        assert_eq!((summary.written, summary.deleted, summary.taken), (1, 1, 1), "{said}");
        assert!(said.contains("changed is left out") && !said.contains("gone"), "{said}");
        assert!(watched.is_of_other("changed").await && watched.is_of_other("gone").await);
    }

    #[tokio::test]
    async fn to_take_over_is_to_write_and_not_to_delete() {
        let mut watched = Watched::new(&["--take-over"]);
        watched.write("changed", "1");
        watched.write("gone", "1");
        assert_eq!(watched.pass().await.0.written, 2);
        watched.take(&["changed", "gone"]).await;
        watched.write("changed", "22");
        fs::remove_file(watched.folder.path().join("gone")).unwrap();
        let (summary, said) = watched.pass().await;
        assert_eq!((summary.written, summary.deleted, summary.taken), (1, 0, 0), "{said}");
        assert!(!watched.is_of_other("changed").await && watched.is_of_other("gone").await);
    }

    #[tokio::test]
    async fn a_folder_whose_disk_is_not_mounted_has_not_lost_its_files() {
        let mut watched = Watched::new(&[]);
        watched.write("a", "1");
        watched.write("b", "1");
        assert_eq!(watched.pass().await.0.written, 2);
        // What lies where the disk is mounted is another folder.
        let disk = watched.indexer.root.clone();
        let aside = PathBuf::from(format!("{}-aside", disk.display()));
        fs::rename(&disk, &aside).unwrap();
        fs::create_dir(&disk).unwrap();
        let (summary, said) = watched.pass().await;
        assert_eq!((summary.deleted, summary.failed), (0, 1));
        assert!(said.contains("--emptied"), "{said}");
        // It is back, and emptied file by file by a person.
        fs::remove_dir(&disk).unwrap();
        fs::rename(&aside, &disk).unwrap();
        assert_eq!(watched.pass().await.0.unchanged, 2);
        for name in ["a", "b"] {
            fs::remove_file(disk.join(name)).unwrap();
        }
        assert_eq!(watched.pass().await.0.deleted, 2);
    }

    #[tokio::test]
    async fn a_folder_that_is_empty_on_purpose_says_so() {
        let mut watched = Watched::new(&[]);
        watched.write("a", "1");
        assert_eq!(watched.pass().await.0.written, 1);
        fs::remove_file(watched.folder.path().join("a")).unwrap();
        // A new command knows nothing of what it was.
        watched.indexer.filled = None;
        assert_eq!(watched.pass().await.0.deleted, 0);
        watched.indexer.args.emptied = true;
        assert_eq!(watched.pass().await.0.deleted, 1);
    }
}
