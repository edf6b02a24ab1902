//! samod with a document for each object, and an index document that names them, as applications
//! on automerge-repo do it. Both sides follow the index and open every document that it names.

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr as _;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use automerge::transaction::Transactable as _;
use automerge::{Automerge, ChangeHash, PatchAction, ROOT, Value};
use futures::{StreamExt as _, TryStreamExt as _};
use samod::{DocHandle, DocumentId, Repo};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::document;
use crate::peers::samod_link::Link;
use crate::peers::wait;
use crate::side::{Side, Start};
use crate::workload;

/// Documents that are made or asked for at once.
const AT_ONCE: usize = 64;
/// Time after which a document that nobody had is asked for again.
const AGAIN_TIME: Duration = Duration::from_millis(50);

/// Ids of objects whose documents are here.
type Here = Arc<(Mutex<BTreeSet<String>>, Condvar)>;

/// A repo that holds the documents that an index names.
pub(crate) struct SamodMany {
    runtime: Runtime,
    repo: Repo,
    link: Link,
    wanted: DocumentId,
    index: Option<DocHandle>,
    here: Here,
    expected: String,
}

impl SamodMany {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let runtime = crate::runtime()?;
        let (repo, link, theirs) = runtime.block_on(Link::open(start))?;
        let here = Here::default();
        let (wanted, index) = match theirs {
            Some(id) => (DocumentId::from_str(&id)?, None),
            None => {
                let handle = runtime.block_on(repo.create(Automerge::new()))?;
                runtime.spawn(follow(repo.clone(), handle.clone(), Arc::clone(&here)));
                (handle.document_id().clone(), Some(handle))
            }
        };
        Ok(Self { runtime, repo, link, wanted, index, here, expected: String::new() })
    }
}

fn arrived(here: &Here, id: String) {
    if let Ok(mut ids) = here.0.lock() {
        ids.insert(id);
    }
    here.1.notify_all();
}

fn is_here(here: &Here, id: &str) -> bool {
    here.0.lock().is_ok_and(|ids| ids.contains(id))
}

/// Opens every document that the index names, now and later.
async fn follow(repo: Repo, index: DocHandle, here: Here) {
    let mut changes = index.changes();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut looked: Vec<ChangeHash> = Vec::new();
    loop {
        for (id, document) in index.with_document(|doc| named_since(doc, &mut looked)) {
            if is_here(&here, &id) {
                continue;
            }
            let (repo, here, at_once) = (repo.clone(), Arc::clone(&here), Arc::clone(&at_once));
            tokio::spawn(async move {
                let Ok(_turn) = at_once.acquire().await else { return };
                loop {
                    match repo.find(document.clone()).await {
                        Ok(Some(_)) => return arrived(&here, id),
                        Ok(None) => tokio::time::sleep(AGAIN_TIME).await,
                        Err(_) => return,
                    }
                }
            });
        }
        if changes.next().await.is_none() {
            return;
        }
    }
}

/// What the index names that it did not name when it was looked at last.
fn named_since(doc: &Automerge, looked: &mut Vec<ChangeHash>) -> Vec<(String, DocumentId)> {
    let heads = doc.get_heads();
    let patches = doc.diff(looked, &heads);
    *looked = heads;
    let mut named = Vec::new();
    for patch in patches {
        if let PatchAction::PutMap { key, value: (Value::Scalar(value), _), .. } = patch.action
            && let Some(Ok(document)) = value.as_str().map(DocumentId::from_str)
        {
            named.push((key, document));
        }
    }
    named
}

impl Side for SamodMany {
    fn invitation(&mut self) -> anyhow::Result<String> {
        Ok(self.link.invitation(&self.wanted))
    }

    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()> {
        let index = self.index.as_ref().context("the index is not here yet")?;
        document::in_batches(numbers, |batch| {
            let (repo, here) = (&self.repo, &self.here);
            let made = futures::stream::iter(batch).map(|number| async move {
                let mut doc = Automerge::new();
                doc.transact(|tx| document::fill(tx, &ROOT, number))
                    .map_err(|failure| failure.error)?;
                let id = workload::id("bench", number);
                let handle = repo.create(doc).await?;
                arrived(here, id.clone());
                anyhow::Ok((id, handle.document_id().to_string()))
            });
            let made = made.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>();
            let made = self.runtime.block_on(made)?;
            index.with_document(|doc| {
                doc.transact(|tx| {
                    made.iter()
                        .try_for_each(|(id, document)| tx.put(ROOT, id.as_str(), document.as_str()))
                })
                .map(drop)
                .map_err(|failure| failure.error)
            })?;
            Ok(())
        })
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        self.runtime.block_on(self.link.connect(&self.repo))?;
        if self.index.is_none() {
            let found = self.runtime.block_on(self.repo.find(self.wanted.clone()))?;
            let index = found.context("the other side says that it has no index")?;
            self.runtime.spawn(follow(self.repo.clone(), index.clone(), Arc::clone(&self.here)));
            self.index = Some(index);
        }
        Ok(())
    }

    fn disconnect(&mut self) -> anyhow::Result<()> {
        self.link.disconnect();
        Ok(())
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        let here = self.here.0.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        Ok(here.len() as u64)
    }

    fn expect(&mut self, number: u64) -> anyhow::Result<()> {
        self.expected = workload::id("bench", number);
        Ok(())
    }

    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool> {
        wait(&self.here, limit, |ids| ids.contains(&self.expected))
    }
}
