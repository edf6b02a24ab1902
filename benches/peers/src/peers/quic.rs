//! A bare QUIC stream: as many bytes as the node sends for as many objects, and nothing else. It is
//! no peer but what the network alone takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::peers::wait;
use crate::side::{Side, Start};

/// Bytes written or read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// What comes first over a stream.
const HELLO: u8 = 0;

/// What has gone over the link.
#[derive(Default)]
struct Counts {
    /// Bytes that came in.
    taken: u64,
    /// Bytes written here, whether sent or not.
    own: u64,
    /// Of them, those that were not sent.
    unsent: u64,
    /// The way out, while there is a link.
    out: Option<UnboundedSender<u64>>,
    link: Option<Connection>,
}

type Shared = Arc<(Mutex<Counts>, Condvar)>;

/// A side of the stream.
pub(crate) struct Quic {
    runtime: Runtime,
    endpoint: Endpoint,
    shared: Shared,
    object_bytes: u64,
    /// Whom to dial.
    peer: Option<SocketAddr>,
    invitation: String,
    expected: u64,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    ensure!(text.is_ascii() && text.len().is_multiple_of(2), "no hex");
    let digits = |place: usize| Ok(u8::from_str_radix(&text[place..place + 2], 16)?);
    (0..text.len()).step_by(2).map(digits).collect()
}

impl Quic {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let runtime = crate::runtime()?;
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        // An endpoint belongs to the runtime in which it is made.
        let entered = runtime.enter();
        let (endpoint, peer, invitation) = match &start.invitation {
            None => {
                let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
                let certificate = CertificateDer::from(key.cert);
                let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
                let config =
                    ServerConfig::with_single_cert(vec![certificate.clone()], secret.into())?;
                let endpoint = Endpoint::server(config, here)?;
                let address = endpoint.local_addr()?;
                (endpoint, None, format!("{address} {}", hex(&certificate)))
            }
            Some(invitation) => {
                let (address, certificate) =
                    invitation.split_once(' ').context("half an invitation")?;
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from(unhex(certificate)?))?;
                let mut endpoint = Endpoint::client(here)?;
                endpoint.set_default_client_config(ClientConfig::with_root_certificates(
                    Arc::new(roots),
                )?);
                (endpoint, Some(address.parse()?), String::new())
            }
        };
        drop(entered);
        let shared = Shared::default();
        if peer.is_none() {
            let (endpoint, shared) = (endpoint.clone(), Arc::clone(&shared));
            runtime.spawn(async move {
                while let Some(incoming) = endpoint.accept().await {
                    let Ok(connection) = incoming.await else { continue };
                    let Ok((send, mut receive)) = connection.accept_bi().await else { continue };
                    if receive.read_exact(&mut [HELLO]).await.is_err() {
                        continue;
                    }
                    run(&shared, connection, send, receive);
                }
            });
        }
        let object_bytes = start.object_bytes as u64;
        Ok(Self { runtime, endpoint, shared, object_bytes, peer, invitation, expected: 0 })
    }
}

/// Runs a link: both ways at once.
fn run(shared: &Shared, connection: Connection, send: SendStream, receive: RecvStream) {
    let (out, to_send) = unbounded_channel();
    if let Ok(mut counts) = shared.0.lock() {
        // It cannot fail: the receiver is below.
        let _ = out.send(std::mem::take(&mut counts.unsent));
        counts.out = Some(out);
        counts.link = Some(connection);
    }
    tokio::spawn(pump_out(send, to_send));
    tokio::spawn(pump_in(receive, Arc::clone(shared)));
}

async fn pump_out(mut send: SendStream, mut to_send: UnboundedReceiver<u64>) {
    let chunk = [0x5a; CHUNK_BYTES];
    while let Some(mut left) = to_send.recv().await {
        while left > 0 {
            let length = left.min(CHUNK_BYTES as u64);
            if send.write_all(&chunk[..length as usize]).await.is_err() {
                return;
            }
            left -= length;
        }
    }
}

async fn pump_in(mut receive: RecvStream, shared: Shared) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(Some(length)) = receive.read(&mut chunk).await {
        if let Ok(mut counts) = shared.0.lock() {
            counts.taken += length as u64;
        }
        shared.1.notify_all();
    }
}

fn panicked<T>(_: T) -> anyhow::Error {
    anyhow::anyhow!("a thread of this side panicked")
}

impl Side for Quic {
    fn invitation(&mut self) -> anyhow::Result<String> {
        Ok(self.invitation.clone())
    }

    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()> {
        let bytes = (numbers.end - numbers.start) * self.object_bytes;
        let mut counts = self.shared.0.lock().map_err(panicked)?;
        counts.own += bytes;
        match &counts.out {
            Some(out) => out.send(bytes).map_err(|_| anyhow::anyhow!("the link is gone"))?,
            None => counts.unsent += bytes,
        }
        Ok(())
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        let Some(peer) = self.peer else { return Ok(()) };
        self.runtime.block_on(async {
            let connection = self.endpoint.connect(peer, "localhost")?.await?;
            let (mut send, receive) = connection.open_bi().await?;
            // The other side sees a stream when something comes over it.
            send.write_all(&[HELLO]).await?;
            run(&self.shared, connection, send, receive);
            Ok(())
        })
    }

    fn disconnect(&mut self) -> anyhow::Result<()> {
        let mut counts = self.shared.0.lock().map_err(panicked)?;
        counts.out = None;
        if let Some(link) = counts.link.take() {
            link.close(0_u8.into(), b"");
        }
        Ok(())
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        let counts = self.shared.0.lock().map_err(panicked)?;
        Ok((counts.own + counts.taken) / self.object_bytes)
    }

    fn expect(&mut self, _number: u64) -> anyhow::Result<()> {
        let counts = self.shared.0.lock().map_err(panicked)?;
        self.expected = counts.taken + self.object_bytes;
        Ok(())
    }

    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool> {
        wait(&self.shared, limit, |counts| counts.taken >= self.expected)
    }
}
