//! Listeners and the connections that they take.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Name of the unix socket in the data directory.
pub const SOCKET_FILE: &str = "node.sock";

/// Most connections open at once on one listener. For one more, the oldest goes that has not yet shown
/// that it may ask; where all have, it waits.
pub const CONNECTIONS_MAX: usize = 256;

/// Longest time for the head of a request to arrive, in milliseconds; also how long an idle
/// connection is kept.
const HEAD_READ_MS_MAX: u64 = 30_000;

/// Most headers in a request.
const HEADERS_MAX: usize = 64;

/// Largest head of a request and read buffer of a connection, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Time that requests in progress have to finish once the server is to stop, in milliseconds.
const FINISH_MS_MAX: u64 = 5_000;

/// Wait after a failed accept, in milliseconds: where descriptors have run out, trying again at
/// once would only burn the processor.
const ACCEPT_RETRY_MS: u64 = 100;

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is not a loopback address.
    #[error("{0} is not a loopback address; the node serves HTTP on this machine only")]
    NotLoopback(SocketAddr),
    /// The address cannot be bound.
    #[error("HTTP cannot be served on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Another process answers on the socket.
    #[error("another node serves {0}")]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("the socket {path} cannot be made: {source}")]
    Socket {
        /// The socket file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket's file; removed when dropped, if it is still this one.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            // A file that stays behind is found stale at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket of a data directory, mode 0600. A socket file on which nobody answers is
/// replaced. The caller must hold the lock of the store, so that no two nodes do this at once.
pub fn bind_unix(data_dir: &Path) -> Result<(UnixListener, SocketFile), ServeError> {
    let path = data_dir.join(SOCKET_FILE);
    match std::os::unix::net::UnixStream::connect(&path) {
        Ok(_answers) => return Err(ServeError::InUse(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_stale) => tracing::debug!("replacing a stale socket file"),
    }
    let bind = || {
        // Made under another name and renamed, so that it is never open to others, not even
        // between its making and the change of its mode.
        let draft = data_dir.join(".node.sock");
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&draft)?;
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::symlink_metadata(&draft)?.ino();
        std::fs::rename(&draft, &path)?;
        Ok((listener, inode))
    };
    match bind() {
        Ok((listener, inode)) => Ok((listener, SocketFile { path, inode })),
        Err(source) => Err(ServeError::Socket { path, source }),
    }
}

/// Listens on a loopback address; any other is refused.
pub async fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback(address));
    }
    let fault = |source| ServeError::Address { address, source };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}

/// Serves the socket until `stop` is cancelled and the requests in progress are done.
pub async fn serve_unix(listener: UnixListener, app: Router, stop: CancellationToken) {
    serve(listener, app, stop).await;
}

/// Serves a loopback address until `stop` is cancelled and the requests in progress are done.
pub async fn serve_tcp(listener: TcpListener, app: Router, stop: CancellationToken) {
    serve(listener, app, stop).await;
}

trait Listener: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // Answers are small and waited for; a socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

async fn serve(listener: impl Listener, app: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut strangers = Strangers::default();
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                continue;
            }
        };
        if places.available_permits() == 0 {
            strangers.end_oldest();
        }
        let place = tokio::select! {
            // The semaphore is never closed.
            place = Arc::clone(&places).acquire_owned() => place.ok(),
            () = stop.cancelled() => break,
        };
        let caller = strangers.add();
        let (app, stop) = (app.clone().layer(Extension(caller.clone())), stop.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = serve_connection(stream, app, stop) => {}
                () = caller.0.ended.cancelled() => {
                    tracing::debug!("a connection that had not shown a token made room for another");
                }
            }
            drop(place);
        });
    }
    tracker.close();
    if tokio::time::timeout(Duration::from_millis(FINISH_MS_MAX), tracker.wait()).await.is_err() {
        tracing::warn!(open = tracker.len(), "requests were still in progress at shutdown");
    }
}

/// Who is at the other end of a connection: nobody known, until a request of it may pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller(Arc<CallerState>);

#[derive(Debug, Default)]
struct CallerState {
    known: AtomicBool,
    ended: CancellationToken,
}

impl Caller {
    /// It has shown that it may ask for what is not public.
    pub(super) fn is_known_now(&self) {
        self.0.known.store(true, Ordering::Relaxed);
    }
}

/// The connections that have not shown that they may ask, the oldest first. Programs on this machine all
/// come from one address, so that is all that tells one from another.
#[derive(Debug, Default)]
struct Strangers(VecDeque<Weak<CallerState>>);

impl Strangers {
    fn add(&mut self) -> Caller {
        let stranger = |state: Arc<CallerState>| !state.known.load(Ordering::Relaxed);
        // As many as there are places stay, and those that ended or are known go.
        if self.0.len() >= 2 * CONNECTIONS_MAX {
            self.0.retain(|state| state.upgrade().is_some_and(stranger));
        }
        let caller = Caller::default();
        self.0.push_back(Arc::downgrade(&caller.0));
        caller
    }

    fn end_oldest(&mut self) {
        while let Some(state) = self.0.pop_front() {
            if let Some(state) = state.upgrade()
                && !state.known.load(Ordering::Relaxed)
            {
                return state.ended.cancel();
            }
        }
    }
}

async fn serve_connection<S>(stream: S, app: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_READ_MS_MAX))
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Callers go away as they please; that is not the node's trouble.
        tracing::debug!("a connection ended early: {error}");
    }
}
