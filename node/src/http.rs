//! The local HTTP interface: one router over a [`Node`], served on a unix socket and on loopback.
//!
//! The command line uses the same router, over the socket or, where no daemon runs, within its own
//! process. What a caller may do depends on how it came: see [`Access`].

mod admin;
mod guards;
mod metrics;
mod openapi;
mod reply;
mod routes;
mod serve;
mod stream;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::guards::{Access, TcpAccess};
pub(crate) use self::reply::read_json;
pub(crate) use self::routes::read_line;
pub use self::serve::{
    CONNECTIONS_MAX, SOCKET_FILE, ServeError, SocketFile, bind_tcp, bind_unix, serve_tcp,
    serve_unix,
};
pub(crate) use self::stream::KEEP_ALIVE_MS;
pub use self::token::{TOKEN_FILE, Token, TokenError};
use crate::api::{ApiError, Node};
use crate::contain::contained;

/// Header of a write's response: whether anything was written.
pub const CHANGED_HEADER: &str = "srcos-changed";

/// Most requests worked on at once; further ones wait for their turn. Each may hold a body of
/// `BATCH_BYTES_MAX` and a thread.
const REQUESTS_MAX: usize = 32;

/// Most change streams at once: each holds a connection for as long as its reader likes.
const STREAMS_MAX: usize = 64;

/// What every handler shares.
#[derive(Clone)]
struct Shared {
    node: Arc<dyn Node>,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Ends the change streams, which would otherwise keep a shutdown waiting.
    stop: CancellationToken,
}

impl Shared {
    /// A place among the requests worked on at once.
    async fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.requests).acquire_owned().await;
        place.map_err(|_| ApiError::internal("the request semaphore is closed"))
    }

    /// Does blocking work on a thread made for it.
    async fn ask<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Node) -> Result<T, ApiError> + Send + 'static,
    {
        let node = Arc::clone(&self.node);
        match tokio::task::spawn_blocking(move || contained(|| work(&*node))).await {
            Ok(result) => result,
            Err(error) => Err(ApiError::internal(format!("a request was not finished: {error}"))),
        }
    }
}

/// The routes that callers with this access have, with its guards around them. Change streams end
/// when `stop` is cancelled.
pub fn router(node: Arc<dyn Node>, access: Access, stop: CancellationToken) -> Router {
    let shared = Shared {
        node,
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        stop,
    };
    let mut router = routes::public();
    if matches!(access, Access::Local) {
        router = router.merge(admin::routes());
    }
    router
        .fallback(routes::unknown_route)
        .method_not_allowed_fallback(routes::method_not_allowed)
        .layer(from_fn_with_state(Arc::new(access), guards::check))
        .with_state(shared)
}

#[cfg(test)]
mod tests;
