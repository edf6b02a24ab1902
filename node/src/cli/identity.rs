//! `identity`: whether a service and its launch speak of one product under one name.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;
use srcos_schemas::identity::{AuditFinding, AuditStatus, IdentityAudit, Manifest, audit};

use super::Io;
use super::args::Globals;
use super::reading::{self, FileVerdict, complain, holds, say};
use crate::error::NodeError;

/// `identity`.
#[derive(Subcommand, Debug)]
pub enum IdentityCommand {
    /// Audit a service manifest and its launch manifest together; exit 1 if they do not fit
    Audit {
        /// The service manifest
        #[arg(long, value_name = "FILE")]
        service: PathBuf,
        /// The launch manifest
        #[arg(long, value_name = "FILE")]
        launch: PathBuf,
    },
}

#[derive(Serialize)]
struct Report<'a> {
    service: &'a str,
    launch: &'a str,
    #[serde(flatten)]
    audit: &'a IdentityAudit,
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    IdentityCommand::Audit { service, launch }: IdentityCommand,
) -> Result<(), NodeError> {
    let (service, service_document) = object(globals, io, &service)?;
    let (launch, launch_document) = object(globals, io, &launch)?;
    let audit = audit(&service_document, &launch_document);
    let pass = audit.status == AuditStatus::Pass;
    if globals.json {
        super::json_line(io, &Report { service: &service, launch: &launch, audit: &audit })?;
        return holds(pass);
    }
    let IdentityAudit { errors, warnings, .. } = audit;
    tell(io, [&service, &launch], "", &errors);
    tell(io, [&service, &launch], "warning: ", &warnings);
    if pass {
        say(io, &format!("the identity holds, with {} warnings", warnings.len()))?;
    }
    holds(pass)
}

/// Says findings on standard error.
pub(super) fn tell(
    io: &mut Io<'_>,
    [service, launch]: [&str; 2],
    level: &str,
    findings: &[AuditFinding],
) {
    for found in findings {
        let file = match found.manifest {
            Manifest::Service => service,
            Manifest::Launch => launch,
        };
        complain(io, file, level, &found.finding);
    }
}

/// A document that is an object; nothing else is asked of it here.
fn object(
    globals: &Globals,
    io: &mut Io<'_>,
    path: &std::path::Path,
) -> Result<(String, Value), NodeError> {
    use srcos_schemas::contracts::Finding;
    let named = reading::read(io, path)?;
    let finding = match named.document {
        Ok(document) if document.is_object() => return Ok((named.file, document)),
        Ok(_) => Finding::new("contract.object", "", "a manifest is a JSON object"),
        Err(finding) => finding,
    };
    let verdict = FileVerdict {
        file: named.file,
        schema: None,
        valid: false,
        errors: vec![finding],
        warnings: Vec::new(),
    };
    Err(verdict.refuse(globals.json, io))
}
