//! A wire between two nodes that a test can stop and let go on.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Takes connections at an address and passes on what comes over them, while it is open. It loses
/// nothing: what came while it was shut goes on afterwards.
pub(crate) struct Proxy {
    pub(crate) addr: Multiaddr,
    open: watch::Sender<bool>,
}

impl Proxy {
    /// A wire to a node's TCP address.
    pub(crate) async fn to(target: &Multiaddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let addr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        let target = target.iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let target = target.expect("it is a TCP address");
        let open = watch::Sender::new(true);
        let opened = open.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = socket.accept().await {
                let far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let (near, far) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near.0, far.1, opened.clone()));
                tokio::spawn(pass(far.0, near.1, opened.clone()));
            }
        });
        Self { addr, open }
    }

    /// Lets bytes pass, or holds them up.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut bytes = [0; 16 << 10];
    while let Ok(n) = from.read(&mut bytes).await
        && n > 0
        && open.wait_for(|open| *open).await.is_ok()
        && to.write_all(&bytes[..n]).await.is_ok()
    {}
}
