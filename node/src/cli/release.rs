//! `release`: the ten gates of a service, and what is given as proof of them.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use srcos_schemas::identity::{AuditStatus, IdentityAudit, audit};
use srcos_schemas::incident::INCIDENT;
use srcos_schemas::launch::LAUNCH_MANIFEST;
use srcos_schemas::service::ServiceManifest;
use srcos_schemas::service::gates::{Gate, gates};

use super::Io;
use super::args::Globals;
use super::reading::{self, Depth, FileVerdict, holds, say};
use crate::error::NodeError;

/// `release`.
#[derive(Subcommand, Debug)]
pub enum ReleaseCommand {
    /// Check whether a service may be released: ten gates; exit 1 unless all are passed
    Check {
        /// The service manifest
        #[arg(long, value_name = "FILE")]
        service: PathBuf,
        /// The hermetic launch manifest: it must hold, and the identity audit must pass
        #[arg(long, value_name = "FILE")]
        launch: Option<PathBuf>,
        /// An incident bundle that the service left, which must hold; may repeat
        #[arg(long, value_name = "FILE")]
        incident: Vec<PathBuf>,
    },
}

#[derive(Serialize)]
struct ReleaseVerdict {
    service: String,
    service_id: String,
    pass: bool,
    gates: Vec<Gate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    launch: Option<LaunchProof>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incidents: Vec<FileVerdict>,
}

/// The launch manifest that was given, judged alone and with the service.
#[derive(Serialize)]
struct LaunchProof {
    #[serde(flatten)]
    verdict: FileVerdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityAudit>,
}

impl LaunchProof {
    fn holds(&self) -> bool {
        let passes = |audit: &IdentityAudit| audit.status == AuditStatus::Pass;
        self.verdict.valid && self.identity.as_ref().is_some_and(passes)
    }
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    ReleaseCommand::Check { service, launch, incident }: ReleaseCommand,
) -> Result<(), NodeError> {
    let named = reading::read(io, &service)?;
    let manifest: ServiceManifest = match named.typed(Depth::Shape) {
        Ok(manifest) => manifest,
        Err(verdict) => return Err(verdict.refuse(globals.json, io)),
    };
    let launch = match launch {
        None => None,
        Some(path) => {
            let launch = reading::read(io, &path)?;
            let identity = match (&named.document, &launch.document) {
                (Ok(service), Ok(launch)) => Some(audit(service, launch)),
                _ => None,
            };
            Some(LaunchProof { verdict: launch.judge(&LAUNCH_MANIFEST, Depth::Rules), identity })
        }
    };
    let mut incidents = Vec::new();
    for path in &incident {
        incidents.push(reading::read(io, path)?.judge(&INCIDENT, Depth::Rules));
    }
    let gates = gates(&manifest);
    let pass = gates.iter().all(|gate| gate.pass)
        && launch.as_ref().is_none_or(LaunchProof::holds)
        && incidents.iter().all(|incident| incident.valid);
    let service_id = manifest.service_id;
    let verdict =
        ReleaseVerdict { service: named.file, service_id, pass, gates, launch, incidents };
    if globals.json {
        super::json_line(io, &verdict)?;
    } else {
        tell(io, &verdict)?;
    }
    holds(pass)
}

fn tell(io: &mut Io<'_>, verdict: &ReleaseVerdict) -> Result<(), NodeError> {
    let mut text = String::new();
    for Gate { number, name, pass, demands, missing, .. } in &verdict.gates {
        let word = if *pass { "pass" } else { "FAIL" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{word} {number:>2} {name:<16} {demands}");
        if let Some(missing) = missing {
            let _ = writeln!(text, "        {missing}");
        }
    }
    if let Some(launch) = &verdict.launch {
        launch.verdict.complain(io);
        if let Some(identity) = &launch.identity {
            let files = [&*verdict.service, &*launch.verdict.file];
            super::identity::tell(io, files, "", &identity.errors);
            super::identity::tell(io, files, "warning: ", &identity.warnings);
        }
        let word = if launch.holds() { "pass" } else { "FAIL" };
        let _ =
            writeln!(text, "{word}    launch           a launch manifest that fits the service");
    }
    for incident in &verdict.incidents {
        incident.complain(io);
        let word = if incident.valid { "pass" } else { "FAIL" };
        let _ =
            writeln!(text, "{word}    incident         {}", crate::render::plain(&incident.file));
    }
    text.push_str(if verdict.pass { "may be released" } else { "must not be released" });
    say(io, &text)
}
