//! `events`: what happened, kept so that a change would be found, folded and explained.

pub mod args;
mod emit;
mod fold;
mod kept;
mod listed;

use std::path::{Path, PathBuf};

use serde_json::Value;
use srcos_lanes::ids::DeviceId;
use srcos_schemas::contracts::read_typed;
use srcos_schemas::event::model::Event;
use srcos_schemas::event::privacy::Renderer;
use srcos_schemas::event::rules::{EVENT, EVENT_LEGACY};
use srcos_schemas::event::vocabulary::Tier;

use self::args::{EventsCommand, ExplainArgs, ValidateArgs};
use super::Io;
use super::args::Globals;
use super::reading::{self, Depth, Unread, say};
use crate::api::{ApiError, ErrorKind};
use crate::data_dir::{DataDir, internal};
use crate::error::NodeError;
use crate::events::EventStoreError;
use crate::keys::{DeviceKey, KeyError};
use crate::render::plain;

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    command: EventsCommand,
) -> Result<(), NodeError> {
    match command {
        EventsCommand::Validate(args) => validate(globals, io, &args),
        EventsCommand::Explain(args) => explain(globals, io, &args),
        EventsCommand::Emit(args) => emit::emit(globals, io, *args),
        EventsCommand::EmitPolicyDecision(args) => emit::decision(globals, io, *args),
        EventsCommand::Normalize(args) => emit::normalize(globals, io, args),
        EventsCommand::Write(args) => kept::write(globals, io, &args),
        EventsCommand::List(args) => listed::list(globals, io, &args),
        EventsCommand::Show(args) => kept::show(globals, io, &args),
        EventsCommand::Coalesce(args) => fold::coalesce(globals, io, &args),
        EventsCommand::Verify(args) => kept::verify_one(globals, io, &args),
        EventsCommand::VerifyStore(args) => kept::verify_store(globals, io, &args),
    }
}

fn validate(globals: &Globals, io: &mut Io<'_>, args: &ValidateArgs) -> Result<(), NodeError> {
    let contract = if args.legacy { &EVENT_LEGACY } else { &EVENT };
    let depth = if args.strict { Depth::Strict } else { Depth::Rules };
    let mut all = true;
    let mut unread = Unread::default();
    for path in reading::files(&args.files)? {
        let named = reading::read_to_judge(io, &path);
        let Some(named) = unread.pass(io, globals.json, named)? else { continue };
        let verdict = named.judge(contract, depth);
        all &= verdict.valid;
        if globals.json {
            super::json_line(io, &verdict)?;
            continue;
        }
        verdict.complain(io);
        let word = if verdict.valid { "valid" } else { "invalid" };
        say(io, &format!("{}: {word}, {}", plain(&verdict.file), contract.name))?;
    }
    unread.end(all)
}

fn explain(globals: &Globals, io: &mut Io<'_>, args: &ExplainArgs) -> Result<(), NodeError> {
    let path = PathBuf::from(&args.event);
    let event = if args.event.starts_with("evt_") && !path.exists() {
        kept::stored(globals, args.store.store.as_deref(), &args.event)?
    } else {
        let named = reading::read(io, &path)?;
        match named.document {
            Ok(event) if event.is_object() => event,
            _ => return Err(named.judge(&EVENT, Depth::Rules).refuse(globals.json, io)),
        }
    };
    let event = match args.tier {
        Some(tier) => shown_to(tier, event)?,
        None => event,
    };
    let told = |member: &str, otherwise: &str| {
        let told = event.pointer(&format!("/operator_narrative/{member}")).and_then(Value::as_str);
        told.filter(|text| !text.is_empty()).unwrap_or(otherwise).to_owned()
    };
    let (summary, risk) =
        (told("summary", "Nothing is told of this event."), told("risk", "unknown"));
    let (why, next) = (told("why", "not told"), told("next_action", "not told"));
    if globals.json {
        let id = event.get("event_id").cloned().unwrap_or_default();
        return super::json_line(
            io,
            &serde_json::json!({
                "event_id": id, "summary": summary, "risk": risk, "why": why, "next_action": next,
            }),
        );
    }
    let (summary, risk, why, next) = (plain(&summary), plain(&risk), plain(&why), plain(&next));
    say(io, &format!("{summary}\n\nRisk: {risk}\nWhy: {why}\nNext action: {next}"))
}

/// An event as a reader of a clearance may see it.
fn shown_to(tier: Tier, event: Value) -> Result<Value, NodeError> {
    let event: Event = read_typed(&event).map_err(|error| {
        let message = format!("the event cannot be redacted: {error}");
        NodeError::usage(
            "event_invalid",
            message,
            "see what is wrong with: srcos-node events validate",
        )
    })?;
    let shown = renderer(tier)?.render(&event);
    Ok(serde_json::to_value(&shown).map_err(internal)?)
}

/// Shows events to a reader of a clearance, under pseudonyms of this one run.
fn renderer(tier: Tier) -> Result<Renderer, NodeError> {
    Ok(Renderer::new(tier, crate::keys::random().map_err(internal)?))
}

/// The store that the options name, and the data directory's where they name none.
fn store_path(globals: &Globals, store: Option<&Path>) -> Result<PathBuf, NodeError> {
    if let Some(store) = store {
        return Ok(store.to_owned());
    }
    let dir = DataDir::new(&super::data_dir(globals)?);
    if !dir.is_initialised() {
        let message = format!("{} has no store", dir.path().display());
        let hint = "make one with: srcos-node init, or name an event store with --store FILE";
        return Err(ApiError::new(ErrorKind::NotFound, "not_initialised", message, hint).into());
    }
    Ok(dir.path().join("events.jsonl"))
}

/// The device's key, where there is one.
fn device_key(globals: &Globals) -> Result<Option<DeviceKey>, NodeError> {
    let Ok(dir) = super::data_dir(globals) else { return Ok(None) };
    match DeviceKey::load(&DataDir::new(&dir).key_file()) {
        Ok(key) => Ok(Some(key)),
        Err(KeyError::Missing { .. }) => Ok(None),
        Err(error) => {
            let hint = "the key is the device's identity; put back the right file, mode 0600";
            let kind = ErrorKind::StoreDamaged;
            Err(ApiError::new(kind, "key_unusable", error.to_string(), hint).into())
        }
    }
}

/// A device by its id in hexadecimal.
fn device(text: &str) -> Result<DeviceId, NodeError> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(DeviceId).ok_or_else(|| {
        let hint = "take it whole from: srcos-node status --json";
        NodeError::usage("device_invalid", format!("{text:?} is no device's id"), hint)
    })
}

/// A failure of an event store, as callers see it.
fn store_error(error: &EventStoreError) -> NodeError {
    let (kind, code, hint) = match error {
        EventStoreError::Io { .. } => (
            ErrorKind::StoreDamaged,
            "event_store_failed",
            "check the path, the disk and its permissions",
        ),
        EventStoreError::Damaged { .. } => (
            ErrorKind::StoreDamaged,
            "event_store_damaged",
            "see which lines with: srcos-node events verify-store; then go on in a new file",
        ),
        EventStoreError::Conflict { .. } => (
            ErrorKind::PreconditionFailed,
            "event_id_taken",
            "an event is never changed: give the new one an id of its own",
        ),
        EventStoreError::TooLong { .. } => {
            (ErrorKind::TooLarge, "event_too_long", "keep what is long elsewhere and refer to it")
        }
    };
    ApiError::new(kind, code, error.to_string(), hint).into()
}
