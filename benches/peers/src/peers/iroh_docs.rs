//! iroh-docs as its documentation sets it up, with file stores: an entry for each object, whose
//! content is the object as JSON. An object is here when its entry and its content are.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use iroh::endpoint::presets;
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::{BlobsProtocol, Hash};
use iroh_docs::api::Doc;
use iroh_docs::api::protocol::{AddrInfoOptions, ShareMode};
use iroh_docs::engine::LiveEvent;
use iroh_docs::protocol::Docs;
use iroh_docs::{AuthorId, ContentStatus, DocTicket};
use iroh_gossip::net::Gossip;
use tokio::runtime::Runtime;

use crate::peers::wait;
use crate::side::{Side, Start};
use crate::workload;

/// Entries that are written at once.
const AT_ONCE: usize = 64;

/// What events have told.
#[derive(Default)]
struct Told {
    /// The first bytes of the hash of each content that is here: an event may tell of one again.
    held: HashSet<[u8; 8]>,
    expected: Vec<u8>,
    /// The content of the expected entry, which came before it.
    awaited: Option<Hash>,
    seen: bool,
}

type Shared = Arc<(Mutex<Told>, Condvar)>;

impl Told {
    fn hold(&mut self, hash: Hash) {
        self.held.extend(hash.as_bytes().first_chunk::<8>());
    }

    fn take(&mut self, event: LiveEvent) {
        match event {
            LiveEvent::InsertLocal { entry } => self.hold(entry.content_hash()),
            LiveEvent::InsertRemote { entry, content_status, .. } => {
                let expected = !self.expected.is_empty() && entry.key() == self.expected;
                if content_status == ContentStatus::Complete {
                    self.hold(entry.content_hash());
                    self.seen |= expected;
                } else if expected {
                    self.awaited = Some(entry.content_hash());
                }
            }
            LiveEvent::ContentReady { hash } => {
                self.hold(hash);
                self.seen |= self.awaited == Some(hash);
            }
            _ => {}
        }
    }
}

/// A device.
pub(crate) struct IrohDocs {
    runtime: Runtime,
    /// Kept, because it answers the other side.
    _router: Router,
    author: AuthorId,
    doc: Doc,
    address: EndpointAddr,
    /// Whom to dial.
    peers: Vec<EndpointAddr>,
    told: Shared,
}

impl IrohDocs {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let runtime = crate::runtime()?;
        let opened = Self::open(start);
        let (router, author, doc, address, peers, told) = runtime.block_on(opened)?;
        Ok(Self { runtime, _router: router, author, doc, address, peers, told })
    }

    async fn open(
        start: &Start,
    ) -> anyhow::Result<(Router, AuthorId, Doc, EndpointAddr, Vec<EndpointAddr>, Shared)> {
        // No relay and no address lookup: both sides are on this machine.
        let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
        let endpoint = builder.bind_addr("127.0.0.1:0")?.bind().await?;
        let socket = endpoint.bound_sockets().into_iter().find(|socket| socket.is_ipv4());
        let socket = socket.context("the endpoint listens nowhere")?;
        let address = EndpointAddr::new(endpoint.id()).with_ip_addr(socket);

        let blobs = FsStore::load(start.dir.join("blobs")).await.map_err(anyhow::Error::from)?;
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let replicas = start.dir.join("docs");
        std::fs::create_dir_all(&replicas)?;
        let docs = Docs::persistent(replicas)
            .spawn(endpoint.clone(), (*blobs).clone(), gossip.clone())
            .await?;
        let router = Router::builder(endpoint)
            .accept(iroh_blobs::ALPN, BlobsProtocol::new(&blobs, None))
            .accept(iroh_gossip::ALPN, gossip)
            .accept(iroh_docs::ALPN, docs.clone())
            .spawn();

        let author = docs.author_default().await?;
        let (doc, peers) = match &start.invitation {
            None => (docs.create().await?, Vec::new()),
            Some(ticket) => {
                let ticket: DocTicket = ticket.parse()?;
                (docs.import_namespace(ticket.capability).await?, ticket.nodes)
            }
        };
        let told = Shared::default();
        let (mut events, shared) = (doc.subscribe().await?, Arc::clone(&told));
        tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if let Ok(mut told) = shared.0.lock() {
                    told.take(event);
                }
                shared.1.notify_all();
            }
        });
        Ok((router, author, doc, address, peers, told))
    }
}

impl Side for IrohDocs {
    fn invitation(&mut self) -> anyhow::Result<String> {
        let shared = self.doc.share(ShareMode::Write, AddrInfoOptions::Id);
        let mut ticket = self.runtime.block_on(shared)?;
        ticket.nodes = vec![self.address.clone()];
        Ok(ticket.to_string())
    }

    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()> {
        let (doc, author) = (&self.doc, self.author);
        let written = futures::stream::iter(numbers).map(|number| async move {
            let object = workload::body(number).to_string();
            doc.set_bytes(author, workload::id("bench", number), object).await.map(drop)
        });
        self.runtime.block_on(written.buffer_unordered(AT_ONCE).try_collect::<()>())
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        self.runtime.block_on(self.doc.start_sync(self.peers.clone()))
    }

    fn disconnect(&mut self) -> anyhow::Result<()> {
        self.runtime.block_on(self.doc.leave())
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        Ok(self.told.0.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.held.len() as u64)
    }

    fn expect(&mut self, number: u64) -> anyhow::Result<()> {
        let mut told = self.told.0.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        told.expected = workload::id("bench", number).into_bytes();
        (told.awaited, told.seen) = (None, false);
        Ok(())
    }

    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool> {
        wait(&self.told, limit, |told| told.seen)
    }
}
