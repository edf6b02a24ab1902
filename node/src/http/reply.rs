//! Requests read and responses written: bodies, content types, entity tags, errors.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde_json::Value;
use srcos_schemas::json::{self, JsonErrorKind, Limits};
use srcos_schemas::objects::ObjectDocument;

use super::CHANGED_HEADER;
use crate::api::{ApiError, ErrorKind, Heads, Written};
use crate::asked::check_heads;

/// Longest time that a request body may take to arrive, in milliseconds: a slow sender must not
/// hold a request's place for ever.
const BODY_READ_MS_MAX: u64 = 30_000;

/// The content type of JSON lines.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// An error on its way out, with a status that may be more precise than its kind's.
pub(super) struct Failure {
    error: ApiError,
    status: u16,
}

impl Failure {
    pub(super) fn with_status(status: u16, error: ApiError) -> Self {
        Self { error, status }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { status: error.kind.http_status(), error }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> axum::response::Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if self.error.kind == ErrorKind::Internal {
            tracing::error!(code = self.error.code, "{}", self.error.message);
        }
        document(status, &self.error.document())
    }
}

/// What every handler returns.
pub(super) type Reply = Result<axum::response::Response, Failure>;

/// A JSON document as a response.
pub(super) fn document<T: Serialize>(status: StatusCode, value: &T) -> axum::response::Response {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            response
        }
        Err(error) => {
            tracing::error!("a document cannot be written: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A JSON document with status 200.
pub(super) fn ok<T: Serialize>(value: &T) -> Reply {
    Ok(document(StatusCode::OK, value))
}

/// An object with its entity tag.
pub(super) fn object(object: &ObjectDocument) -> Reply {
    let mut response = document(StatusCode::OK, object);
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", object.heads.join(","))) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

/// An object after a write.
pub(super) fn written(written: &Written) -> Reply {
    let mut response = object(&written.object)?;
    let changed = HeaderValue::from_static(if written.changed { "true" } else { "false" });
    response.headers_mut().insert(CHANGED_HEADER, changed);
    Ok(response)
}

/// The heads on which a write is conditional: `If-Match` with the `ETag` of a read, or
/// `If-None-Match: *` for an object that must not exist.
pub(super) fn condition(headers: &HeaderMap) -> Result<Option<Heads>, ApiError> {
    let bad = |header: &str| {
        ApiError::new(
            ErrorKind::BadInput,
            "condition_malformed",
            format!("the {header} header is not one that this node understands"),
            "send If-Match with one ETag as it was given, or If-None-Match: *",
        )
    };
    if let Some(value) = headers.get(IF_NONE_MATCH) {
        if value.as_bytes() != b"*" || headers.contains_key(IF_MATCH) {
            return Err(bad("If-None-Match"));
        }
        return Ok(Some(Heads::default()));
    }
    let mut values = headers.get_all(IF_MATCH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let tag = value.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"'));
    let heads: Option<Vec<String>> = tag.map(|tag| tag.split(',').map(str::to_owned).collect());
    match (heads, values.next()) {
        (Some(heads), None) => {
            let heads = Heads(heads);
            check_heads(Some(&heads)).map_err(|_| bad("If-Match"))?;
            Ok(Some(heads))
        }
        _ => Err(bad("If-Match")),
    }
}

/// The content type of a request, without its parameters.
pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// Refuses a write whose content type is none of those expected: a form in a web page cannot
/// send any of them without asking first.
pub(super) fn require_type(headers: &HeaderMap, allowed: &[&str]) -> Result<(), Failure> {
    let found = content_type(headers).unwrap_or("none");
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(found)) {
        return Ok(());
    }
    let found: String = found.chars().take(80).collect();
    Err(Failure::with_status(
        415,
        ApiError::new(
            ErrorKind::BadInput,
            "content_type_unsupported",
            format!("content type {found:?} is not accepted here"),
            format!("send it as {}", allowed.join(" or ")),
        ),
    ))
}

/// A request's body, if it is within the limit and arrives in time.
pub(super) async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let too_large = |size: &str| {
        let message = format!("the request body{size} is over the limit of {bytes_max} bytes");
        ApiError::new(ErrorKind::TooLarge, "body_too_large", message, "send less at once")
    };
    if let Some(size) = body.size_hint().exact()
        && size > bytes_max as u64
    {
        return Err(too_large(&format!(" of {size} bytes")));
    }
    let reading = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(Duration::from_millis(BODY_READ_MS_MAX), reading).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large("")),
        Ok(Err(error)) => Err(ApiError::new(
            ErrorKind::BadInput,
            "body_incomplete",
            format!("the request body did not arrive whole: {error}"),
            "send the request again",
        )),
        Err(_elapsed) => Err(ApiError::new(
            ErrorKind::BadInput,
            "body_too_slow",
            format!("the request body did not arrive within {BODY_READ_MS_MAX} ms"),
            "send the request again",
        )),
    }
}

/// A text from outside, read strictly.
pub(crate) fn read_json(bytes: &[u8], limits: Limits) -> Result<Value, ApiError> {
    json::parse(bytes, limits).map_err(|error| {
        let (kind, code) = match error.kind {
            JsonErrorKind::TooLarge { .. } => (ErrorKind::TooLarge, "json_too_large"),
            JsonErrorKind::TooDeep { .. } => (ErrorKind::BadInput, "json_too_deep"),
            JsonErrorKind::DuplicateKey { .. } => (ErrorKind::BadInput, "json_duplicate_key"),
            JsonErrorKind::NotUtf8 => (ErrorKind::BadInput, "json_not_utf8"),
            _ => (ErrorKind::BadInput, "json_invalid"),
        };
        let message = match error.kind {
            JsonErrorKind::TooLarge { .. } => error.kind.to_string(),
            _ => format!("not valid JSON: {error}"),
        };
        let hint = match kind {
            ErrorKind::TooLarge => "keep large data in a file, and its hash in the object",
            _ => "mend the JSON and try again",
        };
        ApiError::new(kind, code, message, hint)
    })
}
