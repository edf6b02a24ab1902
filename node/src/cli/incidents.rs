//! `incidents`: bundles explained, and made from the events of a store.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use srcos_schemas::incident::build::{BuildError, build};
use srcos_schemas::incident::explain::explain;
use srcos_schemas::incident::{Incident, IncidentClass};
use srcos_schemas::time::Timestamp;

use super::Io;
use super::args::Globals;
use super::reading::{self, Depth, print_json, say};
use crate::api::{ApiError, ErrorKind};
use crate::data_dir::Clock;
use crate::error::NodeError;
use crate::render::plain;

/// `incidents`.
#[derive(Subcommand, Debug)]
pub enum IncidentsCommand {
    /// Explain an incident bundle in words
    Explain {
        /// The bundle, or - for standard input
        file: PathBuf,
    },
    /// Make a bundle from the events of a store; exit 1 if none speaks of such a fault
    Build {
        /// The fault: crash, denial_storm, wake_anomaly, identity_mismatch or parser_fault
        #[arg(long, value_parser = class, value_name = "CLASS")]
        class: IncidentClass,
        /// The event store (JSON lines), or - for standard input
        #[arg(long, value_name = "FILE")]
        store: PathBuf,
        /// Write the bundle into this folder, under its id, instead of printing it
        #[arg(long, value_name = "DIR")]
        out_dir: Option<PathBuf>,
    },
}

fn class(text: &str) -> Result<IncidentClass, String> {
    let known = || IncidentClass::ALL.iter().map(|class| class.as_str()).collect::<Vec<_>>();
    IncidentClass::from_word(&text.replace('-', "_"))
        .ok_or_else(|| format!("must be one of {}", known().join(", ")))
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    command: IncidentsCommand,
) -> Result<(), NodeError> {
    match command {
        IncidentsCommand::Explain { file } => {
            let incident: Incident = match reading::read(io, &file)?.typed(Depth::Rules) {
                Ok(incident) => incident,
                Err(verdict) => return Err(verdict.refuse(globals.json, io)),
            };
            let explanation = explain(&incident);
            if globals.json {
                return super::json_line(io, &explanation);
            }
            let lines: Vec<String> = explanation.text().lines().map(plain).collect();
            say(io, &lines.join("\n"))
        }
        IncidentsCommand::Build { class, store, out_dir } => {
            bundle(globals, io, class, &store, out_dir.as_deref())
        }
    }
}

fn bundle(
    globals: &Globals,
    io: &mut Io<'_>,
    class: IncidentClass,
    store: &Path,
    out_dir: Option<&Path>,
) -> Result<(), NodeError> {
    let events = super::stored::events(io, store)?;
    let incident = build(class, &events, now()).map_err(|error| unbuilt(&error))?;
    match out_dir {
        None => print_json(io, globals.json, &incident),
        Some(dir) => {
            let path = super::stored::put(dir, &incident.incident_id, &incident.to_value())?;
            say(io, &plain(&path.display().to_string()))
        }
    }
}

fn unbuilt(error: &BuildError) -> ApiError {
    let message = error.to_string();
    match error {
        BuildError::NothingFound { .. } => ApiError::new(
            ErrorKind::NotFound,
            "no_such_fault",
            message,
            "list the events of the store, or ask for another class",
        ),
        BuildError::NotFromEvents(_) => ApiError::new(
            ErrorKind::BadInput,
            "class_not_from_events",
            message,
            "ask for a class that events speak of",
        ),
        BuildError::Invalid(_) => ApiError::new(
            ErrorKind::DoesNotHold,
            "bundle_invalid",
            message,
            "verify the events of the store",
        ),
    }
}

/// The time of this device.
pub(super) fn now() -> Timestamp {
    Timestamp(Clock::start().now().wall.0)
}
