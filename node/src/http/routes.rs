//! The routes that every caller finds, and what each does.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::header::HeaderMap;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use srcos_lanes::lane::LaneId;
use srcos_schemas::json::{DEPTH_MAX, Limits};
use srcos_schemas::objects::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, BatchOp, BatchRequest, CONTENT_LIMITS, ContentDocument,
    PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, check_id,
};

use super::reply::{
    Failure, NDJSON, Reply, condition, content_type, document, object, ok, read_body, read_json,
    require_type, written,
};
use super::{Shared, metrics, openapi, stream};
use crate::api::{ApiError, Detail, ErrorKind, ListQuery, PatchRequest, PutRequest};
use crate::asked::{check_list, check_reason};

pub(super) const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// What every caller finds; the guards decide who may use it.
pub(super) fn public() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/openapi.json", get(async || ok(&openapi::document())))
        .route("/lanes", get(lanes))
        .route("/lanes/{lane}", get(lane))
        .route("/lanes/{lane}/objects", get(list_objects))
        .route("/lanes/{lane}/objects:batch", post(batch))
        .route(
            "/lanes/{lane}/objects/{*id}",
            get(get_object).put(put_object).patch(patch_object).delete(delete_object),
        )
        .route("/changes", get(changes))
        .route("/peers", get(peers))
}

pub(super) async fn unknown_route(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!("there is nothing at {path}");
    let hint = "see /openapi.json for what there is";
    Failure::from(ApiError::new(ErrorKind::NotFound, "route_unknown", message, hint))
}

pub(super) async fn method_not_allowed(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!("{path} does not have this method");
    let hint = "see /openapi.json for the methods of each route";
    Failure::with_status(
        405,
        ApiError::new(ErrorKind::BadInput, "method_not_allowed", message, hint),
    )
}

async fn healthz() -> Reply {
    ok(&json!({"alive": true}))
}

async fn readyz(State(shared): State<Shared>) -> Reply {
    let readiness = shared.ask(|node| Ok(node.readiness())).await?;
    let ready = readiness.state.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(document(status, &readiness))
}

async fn metrics_text(State(shared): State<Shared>) -> Reply {
    let facts = shared.ask(|node| Ok(node.metrics())).await?;
    Ok(metrics::response(&facts))
}

async fn lanes(State(shared): State<Shared>) -> Reply {
    ok(&shared.ask(|node| node.lanes_status(None)).await?)
}

async fn lane(State(shared): State<Shared>, Lane(lane): Lane) -> Reply {
    ok(&shared.ask(move |node| node.lanes_status(Some(lane))).await?)
}

async fn list_objects(
    State(shared): State<Shared>,
    Lane(lane): Lane,
    RawQuery(query): RawQuery,
) -> Reply {
    let query = list_query(query.as_deref().unwrap_or_default())?;
    ok(&shared.ask(move |node| node.list(lane, &query)).await?)
}

/// Reads the conditions of a list; `label` may be given several times.
fn list_query(text: &str) -> Result<ListQuery, ApiError> {
    let mut query = ListQuery {
        prefix: None,
        kind: None,
        labels: BTreeMap::new(),
        limit: PAGE_LIMIT_DEFAULT,
        after: None,
    };
    require_utf8(text)?;
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        let value = value.into_owned();
        match &*key {
            "prefix" => query.prefix = Some(value),
            "kind" => query.kind = Some(value),
            "after" => query.after = Some(value),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=PAGE_LIMIT_MAX).contains(limit));
                query.limit = limit.ok_or_else(|| {
                    let message = format!("limit must be 1 to {PAGE_LIMIT_MAX}");
                    bad_input("limit_invalid", message, "ask for less, and page with after")
                })?;
            }
            "label" => match value.split_once('=') {
                Some((label, value)) => {
                    query.labels.insert(label.to_owned(), value.to_owned());
                }
                None => {
                    let message = "label must have the form KEY=VALUE";
                    return Err(bad_input("label_invalid", message, "write label=KEY%3DVALUE"));
                }
            },
            _ => return Err(unknown_parameter(&key)),
        }
    }
    check_list(&query)?;
    Ok(query)
}

/// Refuses a query string that is not UTF-8 once it is decoded: whoever reads it would put other
/// characters in the place of what is none.
fn require_utf8(text: &str) -> Result<(), ApiError> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let (byte, rest) = match (first, digit(rest.first()), digit(rest.get(1))) {
            // Two digits of sixteen make a byte.
            (b'%', Some(high), Some(low)) => ((high << 4 | low) as u8, &rest[2..]),
            _ => (*first, rest),
        };
        decoded.push(byte);
        bytes = rest;
    }
    if std::str::from_utf8(&decoded).is_ok() {
        return Ok(());
    }
    let message = "the query string is not UTF-8";
    Err(bad_input("query_invalid", message, "percent-encode UTF-8 text"))
}

fn unknown_parameter(key: &str) -> ApiError {
    let key: String = key.chars().take(80).collect();
    let message = format!("unknown query parameter {key:?}");
    bad_input("parameter_unknown", message, "see /openapi.json for the parameters")
}

/// Reads a query string into the parameters that a route has.
pub(super) fn query<T: DeserializeOwned>(text: Option<&str>) -> Result<T, ApiError> {
    require_utf8(text.unwrap_or_default())?;
    serde_urlencoded::from_str(text.unwrap_or_default()).map_err(|error| {
        let message = format!("the query string is not right: {error}");
        bad_input("query_invalid", message, "see /openapi.json for the parameters")
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DetailQuery {
    #[serde(default)]
    conflicts: bool,
    #[serde(default)]
    history: bool,
    #[serde(default)]
    automerge: bool,
}

async fn get_object(
    State(shared): State<Shared>,
    Object(lane, id): Object,
    RawQuery(text): RawQuery,
) -> Reply {
    let DetailQuery { conflicts, history, automerge } = query(text.as_deref())?;
    let detail = Detail { conflicts, history, automerge };
    object(&shared.ask(move |node| node.get(lane, &id, detail)).await?)
}

async fn put_object(
    State(shared): State<Shared>,
    Object(lane, id): Object,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    require_type(&headers, &[JSON])?;
    let if_match = condition(&headers)?;
    let _place = shared.place().await?;
    let bytes = read_body(body, CONTENT_LIMITS.bytes_max).await?;
    let write = move |node: &dyn crate::api::Node| {
        let content = ContentDocument::from_value(read_json(&bytes, CONTENT_LIMITS)?)
            .and_then(|content| content.check_body(bytes.len()).map(|()| content))
            .map_err(|error| bad_content(&error))?;
        node.put(lane, &id, PutRequest { content, if_match })
    };
    written(&shared.ask(write).await?)
}

async fn patch_object(
    State(shared): State<Shared>,
    Object(lane, id): Object,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    require_type(&headers, &[MERGE_PATCH, JSON])?;
    let if_match = condition(&headers)?;
    let _place = shared.place().await?;
    let bytes = read_body(body, CONTENT_LIMITS.bytes_max).await?;
    let write = move |node: &dyn crate::api::Node| {
        let patch = from_json(&bytes, CONTENT_LIMITS)?;
        node.patch(lane, &id, PatchRequest { patch, if_match })
    };
    written(&shared.ask(write).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    reason: String,
}

async fn delete_object(
    State(shared): State<Shared>,
    Object(lane, id): Object,
    headers: HeaderMap,
    RawQuery(text): RawQuery,
) -> Reply {
    let DeleteQuery { reason } = query(text.as_deref())?;
    let if_match = condition(&headers)?;
    check_reason(&reason)?;
    object(&shared.ask(move |node| node.delete(lane, &id, &reason, if_match.as_ref())).await?)
}

async fn batch(
    State(shared): State<Shared>,
    Lane(lane): Lane,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    require_type(&headers, &[JSON, NDJSON])?;
    let lines = content_type(&headers).is_some_and(|found| found.eq_ignore_ascii_case(NDJSON));
    let _place = shared.place().await?;
    let bytes = read_body(body, BATCH_BYTES_MAX).await?;
    let write = move |node: &dyn crate::api::Node| {
        let ops = if lines { ops_of_lines(&bytes)? } else { ops_of_document(&bytes)? };
        if ops.len() > BATCH_OPS_MAX {
            let message = format!("{} operations are over the limit of {BATCH_OPS_MAX}", ops.len());
            let hint = "send them in several batches";
            return Err(ApiError::new(ErrorKind::TooLarge, "batch_too_large", message, hint));
        }
        node.batch(lane, ops)
    };
    ok(&shared.ask(write).await?)
}

fn ops_of_document(bytes: &[u8]) -> Result<Vec<BatchOp>, ApiError> {
    // The batch is three levels around a body.
    let limits = Limits { bytes_max: BATCH_BYTES_MAX, depth_max: DEPTH_MAX + 3 };
    let request: BatchRequest = from_json(bytes, limits)?;
    for (place, op) in request.ops.iter().enumerate() {
        let checked = check_id(op.id()).and_then(|()| match op {
            BatchOp::Put { content, .. } => {
                content.check().and_then(|()| content.check_body(bytes.len()))
            }
            BatchOp::Patch { .. } | BatchOp::Delete { .. } => Ok(()),
        });
        let checked = checked.map_err(|error| bad_content(&error)).and_then(|()| match op {
            BatchOp::Delete { reason, .. } => check_reason(reason),
            BatchOp::Put { .. } | BatchOp::Patch { .. } => Ok(()),
        });
        checked.map_err(|error| error.at(format!("ops/{place}")))?;
    }
    Ok(request.ops)
}

/// The lines of an import, each an object to put: the form that costs least to read.
fn ops_of_lines(bytes: &[u8]) -> Result<Vec<BatchOp>, ApiError> {
    let mut ops = Vec::new();
    for (place, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (id, content) = read_line(line).map_err(|error| error.at(format!("ops/{place}")))?;
        ops.push(BatchOp::Put { id, content });
    }
    Ok(ops)
}

/// One line of an import: the object's id and what it is to become.
pub(crate) fn read_line(line: &[u8]) -> Result<(String, ContentDocument), ApiError> {
    ContentDocument::line_from_value(read_json(line, CONTENT_LIMITS)?)
        .and_then(|(id, content)| content.check_body(line.len()).map(|()| (id, content)))
        .map_err(|error| bad_content(&error))
}

async fn changes(
    State(shared): State<Shared>,
    headers: HeaderMap,
    RawQuery(text): RawQuery,
) -> Reply {
    stream::response(shared, query(text.as_deref())?, &headers).await
}

async fn peers(State(shared): State<Shared>) -> Reply {
    ok(&shared.ask(|node| node.peers()).await?)
}

pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8], limits: Limits) -> Result<T, ApiError> {
    let value = read_json(bytes, limits)?;
    serde_json::from_value(value).map_err(|error| {
        let message = format!("the request is not what this route takes: {error}");
        bad_input("request_invalid", message, "see /openapi.json for what it takes")
    })
}

fn bad_input(code: &'static str, message: impl Into<String>, hint: &str) -> ApiError {
    ApiError::new(ErrorKind::BadInput, code, message, hint)
}

fn bad_content(error: &srcos_schemas::objects::ContentError) -> ApiError {
    use srcos_schemas::objects::ContentError;
    let hint = "write {\"id\", \"kind\"?, \"class\"?, \"labels\"?, \"body\"}";
    match error {
        ContentError::TooLong { field: "body", .. } => {
            let hint = "keep large data in a file, and its hash in the object";
            ApiError::new(ErrorKind::TooLarge, "body_too_large", error.to_string(), hint)
        }
        ContentError::EmptyId | ContentError::TooLong { field: "id", .. } => {
            bad_input("id_invalid", error.to_string(), "use an id of 1 to 512 bytes")
        }
        _ => bad_input("object_invalid", error.to_string(), hint),
    }
}

pub(super) fn read_lane(text: &str) -> Result<LaneId, ApiError> {
    text.parse().map_err(|error: srcos_lanes::ids::ParseIdError| {
        let hint = "see the lanes with: srcos-node lanes list";
        ApiError::new(ErrorKind::NotFound, "lane_unknown", error.to_string(), hint)
    })
}

pub(super) fn bad_path(rejection: &PathRejection) -> ApiError {
    let message = format!("the path cannot be read: {rejection}");
    bad_input("path_invalid", message, "percent-encode UTF-8 text")
}

/// The lane that a path names.
struct Lane(LaneId);

impl<S: Send + Sync> FromRequestParts<S> for Lane {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| bad_path(&rejection))?;
        Ok(Self(read_lane(&name)?))
    }
}

/// The lane and the object that a path names. Slashes in an id may be encoded or not.
pub(super) struct Object(pub(super) LaneId, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Object {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path((lane, id)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| bad_path(&rejection))?;
        let lane = read_lane(&lane)?;
        check_id(&id).map_err(|error| bad_content(&error))?;
        Ok(Self(lane, id))
    }
}
