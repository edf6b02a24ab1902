//! samod's repo and its TCP link, as its documentation sets them up.

use std::convert::Infallible;

use anyhow::Context as _;
use samod::storage::TokioFilesystemStorage;
use samod::{AcceptorHandle, BackoffConfig, DialerHandle, DocumentId, Repo, Transport, Url};
use tokio::net::TcpListener;

use crate::side::Start;

/// How one side reaches the other, or is reached.
pub(crate) struct Link {
    address: String,
    dials: bool,
    dialer: Option<DialerHandle<Infallible>>,
    /// Kept, because links end when it goes.
    _acceptor: Option<AcceptorHandle>,
}

impl Link {
    /// Opens a repo. The last of the three is the document that the invitation names.
    pub(crate) async fn open(start: &Start) -> anyhow::Result<(Repo, Self, Option<String>)> {
        let storage = TokioFilesystemStorage::new(start.dir.join("samod"));
        let repo = Repo::build_tokio().with_storage(storage).load().await;
        if let Some(invitation) = &start.invitation {
            let (address, document) = invitation.split_once(' ').context("half an invitation")?;
            let link =
                Self { address: address.to_owned(), dials: true, dialer: None, _acceptor: None };
            return Ok((repo, link, Some(document.to_owned())));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = format!("tcp://{}", listener.local_addr()?);
        let acceptor = repo.make_acceptor(Url::parse(&address)?)?;
        let accepting = acceptor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if accepting.accept(Transport::from_tokio_io(stream)).is_err() {
                    return;
                }
            }
        });
        Ok((repo, Self { address, dials: false, dialer: None, _acceptor: Some(acceptor) }, None))
    }

    pub(crate) fn invitation(&self, document: &DocumentId) -> String {
        format!("{} {document}", self.address)
    }

    pub(crate) async fn connect(&mut self, repo: &Repo) -> anyhow::Result<()> {
        if self.dials {
            let dialer = repo.dial_tcp(Url::parse(&self.address)?, BackoffConfig::default());
            let dialer = dialer.context("samod does not dial")?;
            dialer.established().await.context("samod does not connect")?;
            self.dialer = Some(dialer);
        }
        Ok(())
    }

    pub(crate) fn disconnect(&mut self) {
        if let Some(dialer) = self.dialer.take() {
            dialer.close();
        }
    }
}
