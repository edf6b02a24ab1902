//! `process`: provenance of processes judged, observed, and turned into events.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;
use srcos_schemas::date_time::DateTime;
use srcos_schemas::event::rules::EVENT;
use srcos_schemas::json::Wide;
use srcos_schemas::process::{PROCESS_PROVENANCE, ProcessProvenance, events};

use super::Io;
use super::args::Globals;
use super::reading::{self, Depth, Named, Unread, print_json, say};
use crate::error::NodeError;
use crate::observe::{self, Observation};
use crate::render::plain;

/// `process`.
#[derive(Subcommand, Debug)]
pub enum ProcessCommand {
    /// Check provenance of processes; exit 1 if one is invalid
    Validate {
        /// Documents, or folders of them; - for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Count warnings as errors
        #[arg(long)]
        strict: bool,
    },
    /// Turn the provenance of a process into canonical events: its launch and, if seen, its end
    EmitEvents {
        /// The document, or - for standard input
        file: PathBuf,
        /// When the events are said to have happened (RFC 3339) [default: now]
        #[arg(long, value_name = "TIME", value_parser = time)]
        created_at: Option<String>,
        /// Write each event into this folder, under its id, instead of printing them
        #[arg(long, value_name = "DIR")]
        out_dir: Option<PathBuf>,
    },
    /// Observe a process that runs now; what cannot be found out is unknown, and it is said why
    Observe {
        /// The number of the process
        pid: u32,
    },
}

fn time(text: &str) -> Result<String, String> {
    match text.parse::<DateTime>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    command: ProcessCommand,
) -> Result<(), NodeError> {
    match command {
        ProcessCommand::Validate { files, strict } => validate(globals, io, &files, strict),
        ProcessCommand::EmitEvents { file, created_at, out_dir } => {
            let created_at = created_at.unwrap_or_else(|| super::incidents::now().to_string());
            emit(globals, io, &file, &created_at, out_dir.as_deref())
        }
        ProcessCommand::Observe { pid } => observe(globals, io, pid),
    }
}

fn validate(
    globals: &Globals,
    io: &mut Io<'_>,
    paths: &[PathBuf],
    strict: bool,
) -> Result<(), NodeError> {
    let depth = if strict { Depth::Strict } else { Depth::Rules };
    let mut valid = true;
    let mut unread = Unread::default();
    for path in reading::files(paths)? {
        let named = reading::read_to_judge(io, &path);
        let Some(named) = unread.pass(io, globals.json, named)? else { continue };
        let verdict = named.judge(&PROCESS_PROVENANCE, depth);
        valid &= verdict.valid;
        if globals.json {
            super::json_line(io, &verdict)?;
            continue;
        }
        verdict.complain(io);
        if verdict.valid {
            say(io, &format!("{}: the provenance holds", plain(&verdict.file)))?;
        }
    }
    unread.end(valid)
}

fn emit(
    globals: &Globals,
    io: &mut Io<'_>,
    path: &Path,
    created_at: &str,
    out_dir: Option<&Path>,
) -> Result<(), NodeError> {
    let named = reading::read(io, path)?;
    let tuple: ProcessProvenance = match named.typed(Depth::Rules) {
        Ok(tuple) => tuple,
        Err(verdict) => return Err(verdict.refuse(globals.json, io)),
    };
    let events = events::events(&tuple, created_at);
    // The events are held to their contract before anybody sees one.
    for event in &events {
        let judged =
            Named { file: named.file.clone(), document: Ok(event.clone()), wide: Wide::default() };
        let verdict = judged.judge(&EVENT, Depth::Rules);
        if !verdict.valid {
            return Err(verdict.refuse(globals.json, io));
        }
    }
    let Some(dir) = out_dir else { return print_json(io, globals.json, &events) };
    let mut written = Vec::new();
    for event in &events {
        let id = event.get("event_id").and_then(Value::as_str).unwrap_or_default();
        written.push(super::stored::put(dir, id, event)?.display().to_string());
    }
    if globals.json {
        return super::json_line(io, &written);
    }
    say(io, &written.iter().map(|path| plain(path)).collect::<Vec<_>>().join("\n"))
}

fn observe(globals: &Globals, io: &mut Io<'_>, pid: u32) -> Result<(), NodeError> {
    let Observation { provenance, unknown } = observe::observe(pid)?;
    if globals.json {
        super::json_line(io, &provenance)?;
    } else {
        print_json(io, false, &provenance)?;
    }
    if !globals.quiet {
        for (member, why) in unknown {
            // The document has no place for reasons, and standard output none for anything else.
            let _ = writeln!(io.errors, "unknown: {member}: {}", plain(&why));
        }
    }
    Ok(())
}
