//! How commands reach a node: through the daemon's socket, or within this process.
//!
//! Where no daemon runs, the very same router that the daemon serves is called on a node opened
//! directly from the store, so that there is one code path and one behaviour.

mod patience;

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, HOST, IF_MATCH, IF_NONE_MATCH};
use axum::http::{Method, Request, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use srcos_lanes::lane::LaneId;
use srcos_schemas::json::{self, Limits};
use srcos_schemas::objects::{
    BatchResult, ChangeDocument, ContentDocument, ListPage, ObjectDocument, PAGE_BYTES_MAX,
    PatchDocument,
};
use srcos_schemas::status::ErrorDocument;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::api::{ApiError, Cursor, Detail, ErrorKind, Heads, ListQuery, Node, Written};
use crate::asked::{ADDRESS_BYTES_MAX, check_heads, check_list, check_reason};
use crate::http::{Access, CHANGED_HEADER, SOCKET_FILE, router};

use self::patience::Patience;
pub use self::patience::{SIGN_OF_LIFE_AFTER_MS, SIGN_OF_LIFE_MS_MAX, STREAM_SILENCE_MS_MAX};

/// Largest response that is read whole, in bytes: a page of bodies and all that goes with them.
const RESPONSE_BYTES_MAX: usize = PAGE_BYTES_MAX * 4;

/// Most idle connections kept for the next request.
const IDLE_MAX: usize = 4;

/// A way to a node.
#[derive(Clone)]
pub struct Client {
    via: Via,
}

#[derive(Clone)]
enum Via {
    Socket(Arc<Socket>),
    Direct(Router),
}

struct Socket {
    path: PathBuf,
    patience: Patience,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Client {
    /// A client of the daemon of a data directory, or nothing where none runs.
    pub async fn of_daemon(data_dir: &Path) -> Result<Option<Self>, ApiError> {
        Self::of_daemon_with(data_dir, Patience::default()).await
    }

    async fn of_daemon_with(data_dir: &Path, patience: Patience) -> Result<Option<Self>, ApiError> {
        let path = data_dir.join(SOCKET_FILE);
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                let sender = handshake(stream).await?;
                let socket = Socket { path, patience, idle: Mutex::new(vec![sender]) };
                Ok(Some(Self { via: Via::Socket(Arc::new(socket)) }))
            }
            Err(error) if is_nobody(&error, &path) => Ok(None),
            Err(error) => Err(ApiError::new(
                ErrorKind::Unavailable,
                "daemon_unreachable",
                format!("the daemon's socket cannot be used: {error}"),
                "run the command as the user who owns the data directory",
            )
            .at(path.display().to_string())),
        }
    }

    /// A client of a node in this process.
    pub fn direct(node: Arc<dyn Node>) -> Self {
        let app = router(node, Access::Local, CancellationToken::new());
        Self { via: Via::Direct(app) }
    }

    /// Whether the node is a running daemon.
    pub fn is_daemon(&self) -> bool {
        matches!(self.via, Via::Socket(_))
    }

    /// A document of the node.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.document(request(Method::GET, path, None)?).await
    }

    /// Asks the node to do something, and reads what it says of it.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.document(request(Method::POST, path, Some(("application/json", json_bytes(body)?)))?)
            .await
    }

    /// Deletes what a path names.
    pub async fn delete_path<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.document(request(Method::DELETE, path, None)?).await
    }

    /// One object.
    pub async fn get_object(
        &self,
        lane: LaneId,
        id: &str,
        detail: Detail,
    ) -> Result<ObjectDocument, ApiError> {
        let Detail { conflicts, history, automerge } = detail;
        let path = object_path(lane, id);
        let query = format!("conflicts={conflicts}&history={history}&automerge={automerge}");
        self.get(&format!("{path}?{query}")).await
    }

    /// A page of objects.
    pub async fn list(&self, lane: LaneId, query: &ListQuery) -> Result<ListPage, ApiError> {
        check_list(query)?;
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.append_pair("limit", &query.limit.to_string());
        let named = [("prefix", &query.prefix), ("kind", &query.kind), ("after", &query.after)];
        for (key, value) in named {
            if let Some(value) = value {
                text.append_pair(key, value);
            }
        }
        for (key, value) in &query.labels {
            text.append_pair("label", &format!("{key}={value}"));
        }
        self.get(&format!("/lanes/{lane}/objects?{}", text.finish())).await
    }

    /// Creates or replaces an object.
    pub async fn put(
        &self,
        lane: LaneId,
        id: &str,
        content: &ContentDocument,
        if_match: Option<&Heads>,
    ) -> Result<Written, ApiError> {
        let body = ("application/json", json_bytes(content)?);
        self.write(request(Method::PUT, &object_path(lane, id), Some(body))?, if_match).await
    }

    /// Merges a patch into an object.
    pub async fn patch(
        &self,
        lane: LaneId,
        id: &str,
        patch: &PatchDocument,
        if_match: Option<&Heads>,
    ) -> Result<Written, ApiError> {
        let body = ("application/merge-patch+json", json_bytes(patch)?);
        self.write(request(Method::PATCH, &object_path(lane, id), Some(body))?, if_match).await
    }

    /// Starts the deletion of an object.
    pub async fn delete(
        &self,
        lane: LaneId,
        id: &str,
        reason: &str,
        if_match: Option<&Heads>,
    ) -> Result<ObjectDocument, ApiError> {
        check_reason(reason)?;
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("reason", reason).finish();
        let path = format!("{}?{query}", object_path(lane, id));
        Ok(self.write(request(Method::DELETE, &path, None)?, if_match).await?.object)
    }

    /// Applies a batch of operations: `{"ops": [..]}`.
    pub async fn batch(&self, lane: LaneId, ops: &[Value]) -> Result<BatchResult, ApiError> {
        self.post(&format!("/lanes/{lane}/objects:batch"), &serde_json::json!({"ops": ops})).await
    }

    /// Applies a batch of objects to put, given as JSON lines.
    pub async fn batch_lines(&self, lane: LaneId, lines: Bytes) -> Result<BatchResult, ApiError> {
        let path = format!("/lanes/{lane}/objects:batch");
        self.document(request(Method::POST, &path, Some(("application/x-ndjson", lines)))?).await
    }

    /// Follows changes after a cursor, or from now on.
    pub async fn changes(
        &self,
        after: Option<&str>,
        lane: Option<LaneId>,
    ) -> Result<Changes, ApiError> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(after) = after {
            let after: Cursor = after.parse()?;
            query.append_pair("after", &after.to_string());
        }
        if let Some(lane) = lane {
            query.append_pair("lane", lane.name());
        }
        let path = format!("/changes?{}", query.finish());
        let (response, _connection) = self.send(request(Method::GET, &path, None)?).await?;
        let response = refuse_errors(response).await?;
        let patience = self.patience();
        let body = response.into_body();
        Ok(Changes { body, read: BytesMut::new(), patience, _connection })
    }

    fn patience(&self) -> Patience {
        match &self.via {
            Via::Direct(_) => Patience::default(),
            Via::Socket(socket) => socket.patience,
        }
    }

    async fn write(
        &self,
        mut request: Request<Body>,
        if_match: Option<&Heads>,
    ) -> Result<Written, ApiError> {
        check_heads(if_match)?;
        if let Some(Heads(heads)) = if_match {
            let (name, value) = match heads.as_slice() {
                [] => (IF_NONE_MATCH, "*".to_owned()),
                heads => (IF_MATCH, format!("\"{}\"", heads.join(","))),
            };
            let value = value.try_into().map_err(|_| {
                let hint = "give the heads as get shows them, separated by commas";
                let message = "the heads are not hexadecimal text";
                ApiError::new(ErrorKind::BadInput, "condition_malformed", message, hint)
            })?;
            request.headers_mut().insert(name, value);
        }
        let (response, connection) = self.send(request).await?;
        let response = refuse_errors(response).await?;
        debug_assert!(response.headers().contains_key(ETAG), "writes answer with the object");
        let changed =
            response.headers().get(CHANGED_HEADER).is_none_or(|changed| changed == "true");
        let object = self.read(response, connection).await?;
        Ok(Written { object, changed })
    }

    async fn document<T: DeserializeOwned>(&self, request: Request<Body>) -> Result<T, ApiError> {
        let (response, connection) = self.send(request).await?;
        let response = refuse_errors(response).await?;
        self.read(response, connection).await
    }

    /// Reads a response whole, after which its connection is free for the next request.
    async fn read<T: DeserializeOwned>(
        &self,
        response: Response<Body>,
        connection: Option<SendRequest<Body>>,
    ) -> Result<T, ApiError> {
        let bytes = match &self.via {
            Via::Direct(_) => whole(response.into_body()).await?,
            Via::Socket(socket) => {
                socket.patience.wait(&socket.path, whole(response.into_body())).await??
            }
        };
        if let (Via::Socket(socket), Some(connection)) = (&self.via, connection) {
            let mut idle = socket.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
        read_document(&bytes, "a response")
    }

    async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<(Response<Body>, Option<SendRequest<Body>>), ApiError> {
        match &self.via {
            Via::Direct(app) => {
                let response = match app.clone().oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                Ok((response, None))
            }
            Via::Socket(socket) => {
                let mut connection = socket.connection().await?;
                let response = connection.send_request(request);
                let response = socket.patience.wait(&socket.path, response).await?;
                let response = response.map_err(|error| lost(&error))?;
                Ok((response.map(Body::new), Some(connection)))
            }
        }
    }
}

impl Socket {
    /// An idle connection that still works, or a new one.
    async fn connection(&self) -> Result<SendRequest<Body>, ApiError> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = idle else { break };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        handshake(UnixStream::connect(&self.path).await.map_err(|error| lost(&error))?).await
    }
}

async fn handshake(stream: UnixStream) -> Result<SendRequest<Body>, ApiError> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    tokio::spawn(async move {
        // Its end is seen by whoever waits for a response.
        let _ = connection.await;
    });
    Ok(sender)
}

/// Whether an error says that no daemon runs, rather than that it cannot be reached.
fn is_nobody(error: &io::Error, path: &Path) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        // The path is too long for a socket, so no daemon can have made one.
        io::ErrorKind::InvalidInput => true,
        // A socket file that its daemon left behind.
        io::ErrorKind::ConnectionRefused => {
            std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        }
        _ => false,
    }
}

fn lost(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "daemon_lost",
        format!("the connection to the daemon broke: {error}"),
        "see whether it still runs with: srcos-node status",
    )
}

fn request(
    method: Method,
    path: &str,
    body: Option<(&'static str, Bytes)>,
) -> Result<Request<Body>, ApiError> {
    let bytes = path.len();
    if bytes > ADDRESS_BYTES_MAX {
        let message =
            format!("the request's address has {bytes} bytes; the limit is {ADDRESS_BYTES_MAX}");
        let hint = "shorten what is asked for";
        return Err(ApiError::new(ErrorKind::TooLarge, "request_too_long", message, hint));
    }
    let mut builder = Request::builder().method(method).uri(path).header(HOST, "localhost");
    let body = match body {
        Some((content_type, bytes)) => {
            builder = builder.header(CONTENT_TYPE, content_type);
            Body::from(bytes)
        }
        None => Body::empty(),
    };
    builder.body(body).map_err(|error| ApiError::internal(format!("a request is wrong: {error}")))
}

fn json_bytes(value: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| ApiError::internal(format!("a request cannot be written: {error}")))
}

/// The path of an object; everything in the id that could mean something else is encoded.
pub fn object_path(lane: LaneId, id: &str) -> String {
    format!("/lanes/{lane}/objects/{}", encode(id))
}

/// A text as one part of a path.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                encoded.push('%');
                encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
                encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
            }
        }
    }
    encoded
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, RESPONSE_BYTES_MAX).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) => Err(lost(&*error)),
    }
}

async fn refuse_errors(response: Response<Body>) -> Result<Response<Body>, ApiError> {
    // `/readyz` answers 503 with a document that is no error; no command asks it.
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let bytes = whole(response.into_body()).await?;
    match serde_json::from_slice::<ErrorDocument>(&bytes) {
        Ok(document) => Err(document.error.into()),
        // What the server refuses before it has a request to answer.
        Err(_) if matches!(status.as_u16(), 400 | 413 | 414 | 431) => {
            let message = format!("the daemon did not take the request ({status})");
            let hint = "shorten what is asked for";
            Err(ApiError::new(ErrorKind::TooLarge, "request_too_long", message, hint))
        }
        Err(_) => Err(ApiError::internal(format!("the daemon answered {status} without a reason"))),
    }
}

/// Changes as they come.
pub struct Changes {
    body: Body,
    read: BytesMut,
    patience: Patience,
    /// Kept, because dropping it would end the stream.
    _connection: Option<SendRequest<Body>>,
}

impl Changes {
    /// The next change; nothing when the node has ended the stream.
    pub async fn next(&mut self) -> Result<Option<ChangeDocument>, ApiError> {
        loop {
            while let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let block = self.read.split_to(end + 2);
                if let Some(change) = read_event(&block)? {
                    return Ok(Some(change));
                }
            }
            if self.read.len() > RESPONSE_BYTES_MAX {
                return Err(ApiError::internal("an event of the daemon has no end"));
            }
            match patience::next_frame(&mut self.body, self.patience).await? {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(lost(&error)),
                None => return Ok(None),
            }
        }
    }
}

/// Reads one block of a stream of events; comments and the like are nothing.
fn read_event(block: &[u8]) -> Result<Option<ChangeDocument>, ApiError> {
    let field =
        |name: &[u8]| block.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
    let Some(data) = field(b"data: ") else {
        return Ok(None);
    };
    if field(b"event: ") == Some(b"error") {
        let document: ErrorDocument = serde_json::from_slice(data)
            .map_err(|error| ApiError::internal(format!("an event cannot be read: {error}")))?;
        return Err(document.error.into());
    }
    read_document(data, "an event").map(Some)
}

/// Reads what the node wrote. Not serde_json's own reader: bodies may be deeper than it goes.
fn read_document<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ApiError> {
    let value = json::parse(bytes, Limits::STORED);
    let value =
        value.map_err(|error| ApiError::internal(format!("{what} cannot be read: {error}")));
    serde_json::from_value(value?)
        .map_err(|error| ApiError::internal(format!("{what} cannot be read: {error}")))
}
