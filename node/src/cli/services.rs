//! `services`: manifests judged, and the graph that they make.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use srcos_schemas::service::graph::ServiceGraph;
use srcos_schemas::service::{SERVICE, ServiceManifest};

use super::Io;
use super::args::Globals;
use super::reading::{self, Depth, FileVerdict, Unread, print_json, say};
use crate::error::NodeError;

/// `services`.
#[derive(Subcommand, Debug)]
pub enum ServicesCommand {
    /// Check service manifests: schema, then what a manifest must say; exit 1 if one is invalid
    Validate {
        /// Manifests, or folders of manifests; - for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Count warnings as errors
        #[arg(long)]
        strict: bool,
    },
    /// Show which service needs, uses and refuses which capability
    Graph {
        /// Manifests, or folders of manifests; - for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The form [default: text, or json with --json]
        #[arg(long)]
        format: Option<GraphFormat>,
    },
}

/// Forms of a graph.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphFormat {
    /// One line a service.
    Text,
    /// The document.
    Json,
    /// The language of Graphviz.
    Dot,
    /// The language of Mermaid.
    Mermaid,
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    command: ServicesCommand,
) -> Result<(), NodeError> {
    match command {
        ServicesCommand::Validate { files, strict } => validate(globals, io, &files, strict),
        ServicesCommand::Graph { files, format } => graph(globals, io, &files, format),
    }
}

#[derive(Serialize)]
struct ServicesVerdict {
    valid: bool,
    manifests: usize,
    warnings: usize,
    files: Vec<FileVerdict>,
}

fn validate(
    globals: &Globals,
    io: &mut Io<'_>,
    paths: &[PathBuf],
    strict: bool,
) -> Result<(), NodeError> {
    let depth = if strict { Depth::Strict } else { Depth::Rules };
    let mut files = Vec::new();
    let mut unread = Unread::default();
    for path in reading::files(paths)? {
        let named = reading::read_to_judge(io, &path);
        if let Some(named) = unread.pass(io, globals.json, named)? {
            files.push(named.judge(&SERVICE, depth));
        }
    }
    let valid = files.iter().all(|file| file.valid);
    let warnings = files.iter().map(|file| file.warnings.len()).sum();
    let verdict = ServicesVerdict { valid, manifests: files.len(), warnings, files };
    if globals.json {
        super::json_line(io, &verdict)?;
        return unread.end(valid);
    }
    for file in &verdict.files {
        file.complain(io);
    }
    if valid {
        let ServicesVerdict { manifests, warnings, .. } = verdict;
        say(io, &format!("{manifests} service manifests hold, with {warnings} warnings"))?;
    }
    unread.end(valid)
}

fn graph(
    globals: &Globals,
    io: &mut Io<'_>,
    paths: &[PathBuf],
    format: Option<GraphFormat>,
) -> Result<(), NodeError> {
    let mut manifests: Vec<(String, ServiceManifest)> = Vec::new();
    let mut refused = None;
    for path in reading::files(paths)? {
        let named = reading::read(io, &path)?;
        // What a manifest must say beyond its shape is no matter of the graph.
        match named.typed::<ServiceManifest>(Depth::Shape) {
            Ok(manifest) => {
                let before =
                    manifests.iter().find(|(_, known)| known.service_id == manifest.service_id);
                let Some((file, known)) = before else {
                    manifests.push((named.file, manifest));
                    continue;
                };
                if *known != manifest {
                    let message = format!(
                        "{file} and {} are different manifests of {}",
                        named.file, manifest.service_id
                    );
                    let hint = "give one of each service";
                    return Err(NodeError::usage("service_twice", message, hint));
                }
            }
            Err(verdict) => refused = Some(verdict.refuse(globals.json, io)),
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    let graph = ServiceGraph::of(manifests.iter().map(|(file, manifest)| (&**file, manifest)));
    let default = if globals.json { GraphFormat::Json } else { GraphFormat::Text };
    match format.unwrap_or(default) {
        GraphFormat::Text => say(io, &graph.text()),
        GraphFormat::Json => print_json(io, globals.json, &graph),
        GraphFormat::Dot => say(io, &graph.dot()),
        GraphFormat::Mermaid => say(io, &graph.mermaid()),
    }
}
