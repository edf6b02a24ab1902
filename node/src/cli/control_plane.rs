//! `control-plane`: every document of a control plane, and whether they fit together.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;
use srcos_schemas::capability::CAPABILITY;
use srcos_schemas::contracts::{Contract, Document, Origin, detect, read_typed};
use srcos_schemas::control_plane::{ControlPlane, Misfit, misfits};
use srcos_schemas::event::rules::{EVENT, EVENT_LEGACY};
use srcos_schemas::incident::INCIDENT;
use srcos_schemas::launch::LAUNCH_MANIFEST;
use srcos_schemas::process::PROCESS_PROVENANCE;
use srcos_schemas::service::SERVICE;

use super::Io;
use super::args::Globals;
use super::reading::{self, Depth, FileVerdict, Named, Unread, complain, say};
use crate::error::NodeError;

/// `control-plane`.
#[derive(Subcommand, Debug)]
pub enum ControlPlaneCommand {
    /// Check all documents of a control plane, alone and together; exit 1 if anything is wrong
    ///
    /// The documents lie in the folders events, services, capabilities, launch, incidents,
    /// process-provenance, health, policy-observations and capability-authority of DIR, or of the folder
    /// examples in it.
    Validate {
        /// The folder
        #[arg(default_value = ".", value_name = "DIR")]
        dir: PathBuf,
        /// Count warnings as errors
        #[arg(long)]
        strict: bool,
    },
}

/// Folders whose documents have one contract.
const FOLDERS: [(&str, &Contract); 5] = [
    ("services", &SERVICE),
    ("capabilities", &CAPABILITY),
    ("launch", &LAUNCH_MANIFEST),
    ("incidents", &INCIDENT),
    ("process-provenance", &PROCESS_PROVENANCE),
];

/// Folders in which each document names its own contract.
const NAMING: [&str; 3] = ["health", "policy-observations", "capability-authority"];

#[derive(Serialize)]
struct PlaneVerdict {
    dir: String,
    valid: bool,
    documents: usize,
    warnings: usize,
    files: Vec<FileVerdict>,
    together: Together,
}

/// What does not fit together.
#[derive(Serialize)]
struct Together {
    errors: Vec<Misfit>,
    warnings: Vec<Misfit>,
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    ControlPlaneCommand::Validate { dir, strict }: ControlPlaneCommand,
) -> Result<(), NodeError> {
    let inner = dir.join("examples");
    let base = if inner.is_dir() { inner } else { dir.clone() };
    let depth = if strict { Depth::Strict } else { Depth::Rules };
    let mut files = Vec::new();
    let mut plane = ControlPlane::default();
    let mut unread = Unread::default();
    for named in folder(io, globals.json, &mut unread, &base, "events")? {
        files.push(judge_event(&named, depth));
    }
    for (name, contract) in FOLDERS {
        for named in folder(io, globals.json, &mut unread, &base, name)? {
            let verdict = named.judge(contract, depth);
            if verdict.valid {
                keep(&mut plane, named, contract);
            }
            files.push(verdict);
        }
    }
    for name in NAMING {
        for named in folder(io, globals.json, &mut unread, &base, name)? {
            files.push(judge_named(&named, depth));
        }
    }
    if files.is_empty() {
        unread.end(true)?;
        let message = match base.is_dir() {
            true => format!("there is no document of a control plane in {}", base.display()),
            false => format!("there is no folder {}", base.display()),
        };
        let hint = "name a folder with folders such as services or events in it";
        return Err(NodeError::usage("no_documents", message, hint));
    }
    let (errors, warnings): (Vec<Misfit>, Vec<Misfit>) =
        misfits(&plane).into_iter().partition(|misfit| strict || misfit.origin == Origin::Estate);
    let verdict = PlaneVerdict {
        dir: dir.display().to_string(),
        valid: errors.is_empty() && files.iter().all(|file| file.valid),
        documents: files.len(),
        warnings: warnings.len() + files.iter().map(|file| file.warnings.len()).sum::<usize>(),
        files,
        together: Together { errors, warnings },
    };
    if globals.json {
        super::json_line(io, &verdict)?;
    } else {
        tell(io, &verdict)?;
    }
    unread.end(verdict.valid)
}

/// The documents that lie directly in a folder; none where there is no such folder.
fn folder(
    io: &mut Io<'_>,
    json: bool,
    unread: &mut Unread,
    base: &Path,
    name: &str,
) -> Result<Vec<Named>, NodeError> {
    let folder = base.join(name);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let files = reading::files_of_folder(&folder)?;
    let mut documents = Vec::new();
    for file in files {
        let named = reading::read_to_judge(io, &file);
        documents.extend(unread.pass(io, json, named)?);
    }
    Ok(documents)
}

/// A document of a folder that holds several contracts, under the one that it names.
fn judge_named(named: &Named, depth: Depth) -> FileVerdict {
    let finding = match named.document.as_ref().map(detect) {
        Ok(Ok(contract)) => return named.judge(contract, depth),
        Ok(Err(unrecognised)) => unrecognised.finding(),
        Err(finding) => finding.clone(),
    };
    let file = named.file.clone();
    FileVerdict { file, schema: None, valid: false, errors: vec![finding], warnings: Vec::new() }
}

/// An event holds when it holds in either of the two forms that are in use. Where it holds in neither,
/// what is wrong is said of the strict one.
fn judge_event(named: &Named, depth: Depth) -> FileVerdict {
    let strict = named.judge(&EVENT, depth);
    if strict.valid {
        return strict;
    }
    let legacy = named.judge(&EVENT_LEGACY, depth);
    if legacy.valid { legacy } else { strict }
}

fn keep(plane: &mut ControlPlane, named: Named, contract: &Contract) {
    let Named { file, document: Ok(document), .. } = named else { return };
    if contract == &LAUNCH_MANIFEST {
        return plane.launches.push((file, document));
    }
    if contract == &SERVICE {
        plane.service_documents.insert(file.clone(), document.clone());
        plane.services.extend(read(document).map(|service| (file, service)));
    } else if contract == &CAPABILITY {
        plane.capabilities.extend(read(document).map(|definition| (file, definition)));
    } else if contract == &INCIDENT {
        plane.incidents.extend(read(document).map(|incident| (file, incident)));
    }
}

/// A document that holds, as its type.
fn read<T: Document>(document: Value) -> Option<T> {
    read_typed(&document).ok()
}

fn tell(io: &mut Io<'_>, verdict: &PlaneVerdict) -> Result<(), NodeError> {
    for file in &verdict.files {
        file.complain(io);
    }
    for misfit in &verdict.together.errors {
        complain(io, &misfit.file, "", &misfit.finding);
    }
    for misfit in &verdict.together.warnings {
        complain(io, &misfit.file, "warning: ", &misfit.finding);
    }
    if !verdict.valid {
        return Ok(());
    }
    let PlaneVerdict { documents, warnings, .. } = verdict;
    say(io, &format!("{documents} documents hold and fit together, with {warnings} warnings"))
}
