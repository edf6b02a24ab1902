//! Commands on objects: put, patch, get, list, delete, watch.

use std::io::Read as _;

use serde_json::Value;
use srcos_lanes::lane::{LaneId, Replication};
use srcos_lanes::policy::is_confined;
use srcos_schemas::json::{BODY_BYTES_MAX, Limits};
use srcos_schemas::objects::{ContentDocument, ObjectDocument, PatchDocument, check_id};

use super::Session;
use super::args::{DeleteArgs, GetArgs, ListArgs, PatchArgs, PutArgs, WatchArgs};
use super::membership::{is_member, warn_if_out, warn_out};
use crate::api::{ApiError, Detail, ErrorKind, Heads, ListQuery};
use crate::error::NodeError;
use crate::http::read_json;
use crate::render;

pub(super) async fn put(session: &mut Session<'_, '_>, args: PutArgs) -> Result<(), NodeError> {
    check(args.lane, &args.id)?;
    let body = match (&args.file, &args.json_body) {
        (Some(path), _) => {
            let mut file =
                std::fs::File::open(path).map_err(|error| NodeError::file(path, &error))?;
            let bytes = bounded(&mut file).map_err(|error| NodeError::file(path, &error))?;
            read_json(&bytes, Limits::BODY).map_err(|error| error.at(path.display().to_string()))?
        }
        (None, text) => argument(session, text.as_deref().unwrap_or("-"))
            .map_err(|error| error.map(|error| about(error, args.lane, &args.id)))?,
    };
    let content = ContentDocument {
        kind: args.kind,
        class: args.class,
        labels: (!args.label.is_empty()).then(|| args.label.into_iter().collect()),
        body,
        types: args.leaf_type.into_iter().collect(),
        ttl_ms: args.ttl.map(|seconds| seconds.saturating_mul(1000)),
    };
    let heads = if args.if_absent { Some(Heads::default()) } else { heads(args.if_match) };
    let written = session.client.put(args.lane, &args.id, &content, heads.as_ref()).await;
    let written = written.map_err(|error| about(error, args.lane, &args.id))?;
    tell_written(session, &written)?;
    warn_if_out(session).await;
    Ok(())
}

pub(super) async fn patch(session: &mut Session<'_, '_>, args: PatchArgs) -> Result<(), NodeError> {
    check(args.lane, &args.id)?;
    let body = match &args.json_patch {
        Some(text) => argument(session, text)
            .map_err(|error| error.map(|error| about(error, args.lane, &args.id)))?,
        None => Value::Object(serde_json::Map::new()),
    };
    let types = args.leaf_type.into_iter().collect();
    let add = args.add.into_iter().collect();
    let patch = PatchDocument { body, types, add, ..PatchDocument::default() };
    let heads = heads(args.if_match);
    let written = session.client.patch(args.lane, &args.id, &patch, heads.as_ref()).await;
    let written = written.map_err(|error| about(error, args.lane, &args.id))?;
    tell_written(session, &written)?;
    warn_if_out(session).await;
    Ok(())
}

/// An error with the object that it is about, unless it names something nearer.
fn about(error: ApiError, lane: LaneId, id: &str) -> ApiError {
    if error.path.is_some() { error } else { error.at(format!("{lane}/{id}")) }
}

/// What became of an object that was deleted: others hear of it only if they may have had it.
fn deleted(lane: LaneId, object: &ObjectDocument, member: bool) -> String {
    if lane.definition().replication != Replication::Members {
        return format!("deleted; lane {lane} does not leave this device");
    }
    if is_confined(&object.class) {
        return format!("deleted; class {} does not leave this device", object.class);
    }
    let then = if member { "; peers follow as they connect" } else { "" };
    format!("deleted here{then}")
}

fn tell_written(
    session: &mut Session<'_, '_>,
    written: &crate::api::Written,
) -> Result<(), NodeError> {
    if session.globals.json {
        return session.json_line(&written.object);
    }
    let object = &written.object;
    let what = if written.changed { "written" } else { "already so; nothing written" };
    session.say(&format!("{}/{}: {what}", object.lane, object.id))
}

pub(super) async fn get(session: &mut Session<'_, '_>, args: GetArgs) -> Result<(), NodeError> {
    check(args.lane, &args.id)?;
    let detail = Detail { conflicts: args.conflicts, history: args.history, automerge: false };
    let object = session.client.get_object(args.lane, &args.id, detail).await?;
    session.show(&object, render::object)
}

pub(super) async fn list(session: &mut Session<'_, '_>, args: ListArgs) -> Result<(), NodeError> {
    let query = ListQuery {
        prefix: args.prefix,
        kind: args.kind,
        labels: args.label.into_iter().collect(),
        limit: usize::from(args.limit),
        after: args.after,
    };
    let page = session.client.list(args.lane, &query).await?;
    session.show(&page, render::list)
}

pub(super) async fn delete(
    session: &mut Session<'_, '_>,
    args: DeleteArgs,
) -> Result<(), NodeError> {
    check(args.lane, &args.id)?;
    let heads = heads(args.if_match);
    let object = session.client.delete(args.lane, &args.id, &args.reason, heads.as_ref()).await?;
    let member = is_member(session).await;
    if session.globals.json {
        session.json_line(&object)?;
    } else {
        let what = deleted(args.lane, &object, member);
        session.say(&format!("{}/{}: {what}", args.lane, args.id))?;
    }
    if !member {
        warn_out(session);
    }
    Ok(())
}

pub(super) async fn watch(session: &mut Session<'_, '_>, args: WatchArgs) -> Result<(), NodeError> {
    if !session.client.is_daemon() {
        return Err(ApiError::needs_daemon("watch").into());
    }
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut changes = session.client.changes(args.after.as_deref(), args.lane).await?;
    while left > 0 {
        let next = tokio::select! {
            next = changes.next() => next?,
            _interrupted = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(change) = next else {
            let hint = "start it again, then watch with --after and the last cursor";
            let message = "the daemon has stopped";
            return Err(ApiError::new(ErrorKind::Unavailable, "daemon_lost", message, hint).into());
        };
        session.json_line(&change)?;
        left -= 1;
    }
    Ok(())
}

/// Whether an id can be one at all.
pub(super) fn check(lane: LaneId, id: &str) -> Result<(), ApiError> {
    check_id(id).map_err(|error| {
        let hint = "use an id of 1 to 512 bytes";
        ApiError::new(ErrorKind::BadInput, "id_invalid", error.to_string(), hint)
            .at(lane.name().to_owned())
    })
}

fn heads(heads: Vec<String>) -> Option<Heads> {
    (!heads.is_empty()).then_some(Heads(heads))
}

/// JSON given as an argument, or on standard input for `-`.
fn argument(session: &mut Session<'_, '_>, text: &str) -> Result<Value, NodeError> {
    if text != "-" {
        return Ok(read_json(text.as_bytes(), Limits::BODY)?);
    }
    let bytes = bounded(session.io.input).map_err(|error| {
        let message = format!("standard input cannot be read: {error}");
        NodeError::usage("input_failed", message, "give the JSON as an argument, or --file")
    })?;
    Ok(read_json(&bytes, Limits::BODY)?)
}

/// Reads all, but no more than is needed to know that it is too much by far.
fn bounded(source: &mut (impl std::io::Read + ?Sized)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(16 * BODY_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
