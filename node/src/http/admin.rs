//! The routes that only the owner of the data directory finds: what the command line needs beyond
//! the others.

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::header::HeaderMap;
use axum::http::request::Parts;
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use srcos_schemas::json::Limits;

use super::Shared;
use super::reply::{Failure, Reply, ok, read_body, require_type};
use super::routes::{JSON, Object, bad_path, from_json, query, read_lane};

/// Largest body of a request that carries no objects, in bytes.
const SMALL_BODY_BYTES_MAX: usize = 64 << 10;

/// What only the owner of the data directory finds.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/admin/status", get(status))
        .route("/admin/provenance/log/{lane}/{*id}", get(provenance_log))
        .route("/admin/provenance/verify", get(provenance_verify))
        .route("/admin/peers/revoke", post(revoke))
        .route("/admin/peers/rename", post(rename))
        .route("/admin/pair/invites", post(invite))
        .route("/admin/pair/invites/{id}", get(invite_status).delete(invite_cancel))
        .route("/admin/pair/joins", post(join))
        .route("/admin/pair/joins/{id}", get(join_status))
        .route("/admin/network", post(network))
        .route("/admin/shutdown", post(shutdown))
}

async fn status(State(shared): State<Shared>) -> Reply {
    ok(&shared.ask(|node| node.status()).await?)
}

async fn provenance_log(State(shared): State<Shared>, Object(lane, id): Object) -> Reply {
    ok(&shared.ask(move |node| node.provenance_log(lane, &id)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaneQuery {
    lane: Option<String>,
}

async fn provenance_verify(State(shared): State<Shared>, RawQuery(text): RawQuery) -> Reply {
    let LaneQuery { lane } = query(text.as_deref())?;
    let lane = lane.as_deref().map(read_lane).transpose()?;
    ok(&shared.ask(move |node| node.provenance_verify(lane)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeRequest {
    device: String,
    reason: String,
    #[serde(default)]
    leave: bool,
}

async fn revoke(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Reply {
    let RevokeRequest { device, reason, leave } = small_body(&headers, body).await?;
    ok(&shared.ask(move |node| node.revoke(&device, &reason, leave)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameRequest {
    device: String,
    name: String,
}

async fn rename(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Reply {
    let RenameRequest { device, name } = small_body(&headers, body).await?;
    ok(&shared.ask(move |node| node.rename(&device, &name)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteRequest {
    ttl_ms: Option<u64>,
    #[serde(default)]
    watched: bool,
}

async fn invite(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Reply {
    let InviteRequest { ttl_ms, watched } = small_body(&headers, body).await?;
    ok(&shared.ask(move |node| node.pair_invite(ttl_ms, watched)).await?)
}

async fn invite_status(State(shared): State<Shared>, Text(id): Text) -> Reply {
    ok(&shared.ask(move |node| node.pair_invite_status(&id)).await?)
}

async fn invite_cancel(State(shared): State<Shared>, Text(id): Text) -> Reply {
    ok(&shared.ask(move |node| node.pair_cancel(&id)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinRequest {
    code: String,
    #[serde(default)]
    addrs: Vec<String>,
}

async fn join(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Reply {
    let JoinRequest { code, addrs } = small_body(&headers, body).await?;
    ok(&shared.ask(move |node| node.pair_join(&code, &addrs)).await?)
}

async fn join_status(State(shared): State<Shared>, Text(id): Text) -> Reply {
    ok(&shared.ask(move |node| node.pair_join_status(&id)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkRequest {
    offline: bool,
}

async fn network(State(shared): State<Shared>, headers: HeaderMap, body: Body) -> Reply {
    let NetworkRequest { offline } = small_body(&headers, body).await?;
    ok(&shared.ask(move |node| node.network_offline(offline)).await?)
}

async fn shutdown(State(shared): State<Shared>) -> Reply {
    shared.ask(|node| node.shutdown()).await?;
    ok(&json!({"stopping": true}))
}

async fn small_body<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Failure> {
    require_type(headers, &[JSON])?;
    let bytes = read_body(body, SMALL_BODY_BYTES_MAX).await?;
    let limits = Limits { bytes_max: SMALL_BODY_BYTES_MAX, depth_max: 8 };
    Ok(from_json(&bytes, limits)?)
}

/// The last part of a path.
struct Text(String);

impl<S: Send + Sync> FromRequestParts<S> for Text {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|rejection| bad_path(&rejection))?;
        Ok(Self(text))
    }
}
