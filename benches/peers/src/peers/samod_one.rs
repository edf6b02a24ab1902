//! samod with one document: a map from id to object, one change for each object.

use std::ops::Range;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use samod::{DocHandle, DocumentId, Repo};
use tokio::runtime::Runtime;

use crate::document;
use crate::peers::samod_link::Link;
use crate::side::{Side, Start};

/// A repo with its document, once it has it.
pub(crate) struct SamodOne {
    runtime: Runtime,
    repo: Repo,
    link: Link,
    wanted: DocumentId,
    document: Option<DocHandle>,
    expected: u64,
}

impl SamodOne {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let runtime = crate::runtime()?;
        let (repo, link, theirs) = runtime.block_on(Link::open(start))?;
        let (wanted, document) = match theirs {
            Some(id) => (DocumentId::from_str(&id)?, None),
            None => {
                let handle = runtime.block_on(repo.create(document::empty()?))?;
                (handle.document_id().clone(), Some(handle))
            }
        };
        Ok(Self { runtime, repo, link, wanted, document, expected: 0 })
    }
}

impl Side for SamodOne {
    fn invitation(&mut self) -> anyhow::Result<String> {
        Ok(self.link.invitation(&self.wanted))
    }

    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()> {
        let document = self.document.as_ref().context("the document is not here yet")?;
        document::in_batches(numbers, |batch| {
            document.with_document(|doc| document::add(doc, batch))
        })
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        self.runtime.block_on(self.link.connect(&self.repo))?;
        if self.document.is_none() {
            let found = self.runtime.block_on(self.repo.find(self.wanted.clone()))?;
            self.document = Some(found.context("the other side says that it has no document")?);
        }
        Ok(())
    }

    fn disconnect(&mut self) -> anyhow::Result<()> {
        self.link.disconnect();
        Ok(())
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        Ok(self
            .document
            .as_ref()
            .map_or(0, |document| document.with_document(|doc| document::count(doc))))
    }

    fn expect(&mut self, number: u64) -> anyhow::Result<()> {
        self.expected = number;
        Ok(())
    }

    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let document = self.document.as_ref().context("the document is not here yet")?;
        let number = self.expected;
        let mut changes = document.changes();
        let all = async {
            while !document.with_document(|doc| document::has(doc, number)) {
                changes.next().await.context("samod stopped")?;
            }
            anyhow::Ok(())
        };
        match self.runtime.block_on(async { tokio::time::timeout(limit, all).await }) {
            Ok(seen) => seen.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}
