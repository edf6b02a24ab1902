//! How long to wait for a daemon: as long as it takes, while it shows that it is alive.
//!
//! Some requests take minutes (verifying all signatures, a batch behind others on a slow disk), so none
//! has a deadline of its own. But a daemon that was stopped or hangs takes connections and never
//! answers. So when an answer is late, the daemon is asked for a sign of life on another connection,
//! and only when that does not come either is it given up.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use tokio::net::UnixStream;

use crate::api::{ApiError, ErrorKind};

/// Wait for an answer before asking for a sign of life, and between two of them, in milliseconds: most
/// answers take a few.
pub const SIGN_OF_LIFE_AFTER_MS: u64 = 5_000;

/// Longest wait for a sign of life, in milliseconds: giving one takes neither the disk nor the writer.
pub const SIGN_OF_LIFE_MS_MAX: u64 = 10_000;

/// Longest silence on a stream of changes, in milliseconds: four times the time after which the daemon
/// says on a quiet one that it is there.
pub const STREAM_SILENCE_MS_MAX: u64 = 4 * crate::http::KEEP_ALIVE_MS;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Before asking for a sign of life.
    pub(super) after: Duration,
    /// For the sign of life.
    pub(super) sign: Duration,
    /// For anything on a stream.
    pub(super) stream: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            after: Duration::from_millis(SIGN_OF_LIFE_AFTER_MS),
            sign: Duration::from_millis(SIGN_OF_LIFE_MS_MAX),
            stream: Duration::from_millis(STREAM_SILENCE_MS_MAX),
        }
    }
}

impl Patience {
    /// Waits for what the daemon behind a socket is to do, and gives up when it shows no life.
    pub(super) async fn wait<T>(
        &self,
        socket: &Path,
        work: impl Future<Output = T>,
    ) -> Result<T, ApiError> {
        let mut work = std::pin::pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(self.after, work.as_mut()).await {
                return Ok(done);
            }
            let sign = tokio::time::timeout(self.sign, sign_of_life(socket));
            tokio::select! {
                // What was waited for may come meanwhile.
                done = work.as_mut() => return Ok(done),
                sign = sign => match sign {
                    // A connection that is refused says what became of the work soon enough.
                    Ok(_) => {}
                    Err(_elapsed) => return Err(silent(self.after + self.sign)),
                },
            }
        }
    }
}

async fn sign_of_life(socket: &Path) -> Result<(), ApiError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| super::lost(&error))?;
    let mut connection = super::handshake(stream).await?;
    let request = super::request(Method::GET, "/healthz", None::<(&str, bytes::Bytes)>)?;
    connection.send_request(request).await.map(drop).map_err(|error| super::lost(&error))
}

/// The error of a daemon that shows no life.
pub(super) fn silent(waited: Duration) -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "daemon_silent",
        format!("the daemon takes connections and answers none (waited {} s)", waited.as_secs()),
        "see whether its process is stopped (continue it with kill -CONT) or hangs; what was asked \
         may still be done",
    )
}

/// Whether the next frame of a stream comes before the silence is too long.
pub(super) async fn next_frame(
    body: &mut Body,
    patience: Patience,
) -> Result<Option<Result<http_body::Frame<bytes::Bytes>, axum::Error>>, ApiError> {
    use http_body_util::BodyExt as _;
    let next = tokio::time::timeout(patience.stream, body.frame()).await;
    next.map_err(|_elapsed| silent(patience.stream))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::routing::get;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::client::Client;
    use crate::http::{SOCKET_FILE, bind_unix, serve_unix};

    const SHORT: Patience = Patience {
        after: Duration::from_millis(20),
        sign: Duration::from_millis(500),
        stream: Duration::from_millis(300),
    };

    #[tokio::test]
    async fn daemon_that_takes_connections_and_answers_none_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_FILE));
        let client = Client::of_daemon_with(dir.path(), SHORT).await.unwrap().unwrap();
        let error = client.get::<serde_json::Value>("/lanes").await.unwrap_err();
        assert_eq!((error.code.as_str(), error.kind.exit_code()), ("daemon_silent", 3));
        let error = client.changes(None, None).await.err().unwrap();
        assert_eq!(error.code, "daemon_silent");
    }

    #[tokio::test]
    async fn slow_answer_of_a_daemon_that_lives_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, _file) = bind_unix(dir.path()).unwrap();
        let release = Arc::new(tokio::sync::Notify::new());
        let (asked, signs) = (Arc::clone(&release), Arc::new(tokio::sync::Semaphore::new(0)));
        let counted = Arc::clone(&signs);
        let app = Router::new()
            .route(
                "/slow",
                get(async move || {
                    asked.notified().await;
                    "7"
                }),
            )
            .route(
                "/healthz",
                get(async move || {
                    counted.add_permits(1);
                    "{}"
                }),
            );
        let serving = tokio::spawn(serve_unix(listener, app, CancellationToken::new()));
        let client = Client::of_daemon_with(dir.path(), SHORT).await.unwrap().unwrap();
        let answer = tokio::spawn(async move { client.get::<u64>("/slow").await });
        // It was asked for several signs of life, and went on waiting.
        let _several = signs.acquire_many(3).await.unwrap();
        release.notify_one();
        assert_eq!(answer.await.unwrap().unwrap(), 7);
        serving.abort();
    }
}
