//! `capabilities`: may a component start now; and what records of networks and registries mean.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;
use srcos_schemas::contracts::{self, Contract};
use srcos_schemas::preflight::{Outcome, Refusal, preflight};
use srcos_schemas::truth::{self, Told};

use super::Io;
use super::args::Globals;
use super::reading::{self, Depth, Named, holds, print_json, say};
use crate::api::{ApiError, ErrorKind};
use crate::error::NodeError;
use crate::render::plain;

/// `capabilities`.
#[derive(Subcommand, Debug)]
pub enum CapabilitiesCommand {
    /// Say whether a component may start in this phase, and with what; exit 4 if it may not
    ///
    /// Prints a grant state that says of every declared capability what holds, why, and what a person
    /// can do.
    Preflight {
        /// What the component declares: a capability contract
        #[arg(long, value_name = "FILE")]
        contract: PathBuf,
        /// How far boot and session have come: a boot and session phase state
        #[arg(long, value_name = "FILE")]
        phase: PathBuf,
        /// What was granted so far: a capability grant state
        #[arg(long, value_name = "FILE")]
        grants: PathBuf,
    },
    /// Say what a network truth state or a runtime registry integrity record means; exit 1 if
    /// something is wrong
    Explain {
        /// The document, or - for standard input
        file: PathBuf,
    },
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    command: CapabilitiesCommand,
) -> Result<(), NodeError> {
    match command {
        CapabilitiesCommand::Preflight { contract, phase, grants } => {
            let contract = document(globals, io, &contract, "capability-contract")?;
            let phase = document(globals, io, &phase, "boot-session-phase-state")?;
            let grants = document(globals, io, &grants, "capability-grant-state")?;
            let answer = preflight(&contract, &phase, &grants, super::incidents::now());
            print_json(io, globals.json, &answer.grant_state)?;
            ended(globals, io, answer.outcome)
        }
        CapabilitiesCommand::Explain { file } => explain(globals, io, &file),
    }
}

fn ended(globals: &Globals, io: &mut Io<'_>, outcome: Outcome) -> Result<(), NodeError> {
    let (code, Refusal { why, hint }) = match outcome {
        Outcome::Ready => return Ok(()),
        Outcome::Limited(why) => {
            if !globals.json && !globals.quiet {
                // Where not even standard error can be written, the grant state still tells.
                let _ = writeln!(io.errors, "it may start with less: {}", plain(&why));
            }
            return Ok(());
        }
        Outcome::PhaseIneligible(refusal) => ("phase_ineligible", refusal),
        Outcome::Incomplete(refusal) => ("capability_lacking", refusal),
    };
    Err(ApiError::new(ErrorKind::Refused, code, why, hint).into())
}

/// A document that holds under a contract, in either of its profiles.
fn document(
    globals: &Globals,
    io: &mut Io<'_>,
    path: &Path,
    contract: &str,
) -> Result<Value, NodeError> {
    let named = reading::read(io, path)?;
    let contract = contracts::find(contract)
        .ok_or_else(|| ApiError::internal(format!("there is no contract {contract}")))?;
    held(globals, io, named, contract)
}

fn held(
    globals: &Globals,
    io: &mut Io<'_>,
    named: Named,
    contract: &'static Contract,
) -> Result<Value, NodeError> {
    let verdict = named.judge(contract, Depth::Rules);
    match named.document {
        Ok(document) if verdict.valid => Ok(document),
        _ => Err(verdict.refuse(globals.json, io)),
    }
}

fn explain(globals: &Globals, io: &mut Io<'_>, path: &Path) -> Result<(), NodeError> {
    let named = reading::read(io, path)?;
    let said = named.document.as_ref().ok().and_then(|document| contracts::detect(document).ok());
    type Tell = fn(&Value) -> Vec<Told>;
    let (contract, tell): (_, Tell) = match said.map(|contract| (contract, contract.name)) {
        Some((contract, "network-truth-state")) => (contract, truth::network),
        Some((contract, "runtime-registry-integrity-record")) => (contract, truth::registry),
        _ => {
            let message =
                format!("{} is neither a network state nor a registry record", named.file);
            let hint = "use incidents explain, health explain or contracts validate";
            return Err(NodeError::usage("not_explained", message, hint));
        }
    };
    let document = held(globals, io, named, contract)?;
    let list = tell(&document);
    let well = list.iter().all(|told| !told.is_fault);
    if globals.json {
        super::json_line(io, &list)?;
        return holds(well);
    }
    for told in &list {
        say(io, &format!("{} ({})\n  try: {}", plain(&told.what), told.code, plain(&told.hint)))?;
    }
    holds(well)
}
