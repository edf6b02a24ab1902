//! A running process as its provenance: what the system's process files say of it, and what they do not.
//!
//! Nothing is guessed. What cannot be read, or can be read in more than one way, is `unknown`, and
//! [`Observation::unknown`] says why. The same process always gets the same event id, so observing it
//! again starts no second chain of causes; a parent event is never made up.

mod classify;
mod packages;
mod procfs;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Number;
use sha2::{Digest as _, Sha256};
use srcos_schemas::contracts::{InvalidDocument, Valid};
use srcos_schemas::event::model::{Causality, EventId, Privacy, Text};
use srcos_schemas::event::vocabulary::{
    NetworkLookup, PackageOrigin, RedactionPolicy, SignatureState, Tier, TrustMode,
};
use srcos_schemas::process::{
    EnvironmentClass, ExecutableIdentity, GidClass, LaunchReason, ParentClass, PathClass,
    ProcessIdentity, ProcessProvenance, SCHEMA_VERSION, UidClass,
};

use self::procfs::{Fault, ProcessFiles, Stat};
use crate::api::{ApiError, ErrorKind};

/// Largest executable that is hashed, in bytes: beyond it the wait would be longer than a person's
/// patience, and no program that is known is so large.
pub const EXECUTABLE_BYTES_MAX: u64 = 2 << 30;

/// A process as it was found.
#[derive(Debug)]
pub struct Observation {
    /// What is known of it.
    pub provenance: Valid<ProcessProvenance>,
    /// What is not known, as the member of the document, and why.
    pub unknown: Vec<(&'static str, String)>,
}

/// Why a process was not observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The system shows no processes as files.
    #[error("this system does not show its processes as files under {0}")]
    Unsupported(PathBuf),
    /// There is no such process.
    #[error("there is no process {0}")]
    Absent(u32),
    /// It is there, and cannot be looked at.
    #[error("process {pid} cannot be looked at: {why}")]
    Hidden {
        /// The process.
        pid: u32,
        /// Why not.
        why: String,
    },
    /// It ended, or its number was given to another process, while it was looked at.
    #[error("process {0} ended while it was looked at")]
    Ended(u32),
    /// What was found makes no valid document.
    #[error(transparent)]
    Invalid(#[from] InvalidDocument),
}

impl From<ObserveError> for crate::error::NodeError {
    fn from(error: ObserveError) -> Self {
        let (kind, code, hint) = match &error {
            ObserveError::Unsupported(_) => {
                (ErrorKind::Unavailable, "no_process_files", "observe on a system that shows them")
            }
            ObserveError::Absent(_) | ObserveError::Ended(_) => {
                (ErrorKind::NotFound, "process_absent", "list the processes that run now")
            }
            ObserveError::Hidden { .. } => {
                (ErrorKind::Unavailable, "process_hidden", "ask as the user that it runs as")
            }
            ObserveError::Invalid(_) => {
                (ErrorKind::Internal, "provenance_invalid", "report this with the process's name")
            }
        };
        ApiError::new(kind, code, error.to_string(), hint).into()
    }
}

/// Observes a process of this system.
pub fn observe(pid: u32) -> Result<Observation, ObserveError> {
    observe_in(Path::new("/proc"), Path::new("/"), pid)
}

/// Observes a process in given folders: that of the process files, and the root of the file system, in
/// which package databases lie.
pub fn observe_in(processes: &Path, system: &Path, pid: u32) -> Result<Observation, ObserveError> {
    if !processes.join("self").exists() && !processes.join("stat").exists() {
        return Err(ObserveError::Unsupported(processes.to_owned()));
    }
    let files = ProcessFiles::of(processes, pid);
    let stat = files.stat().map_err(|fault| match fault {
        Fault::Absent => ObserveError::Absent(pid),
        fault => ObserveError::Hidden { pid, why: fault.to_string() },
    })?;
    let mut facts = Facts { files: &files, processes, system, stat: &stat, unknown: Vec::new() };
    let provenance = facts.provenance(pid);
    let unknown = facts.unknown;
    // Numbers are used again: what was read belongs together only if it is still the same process.
    match files.stat() {
        Ok(again) if again.started == stat.started => {}
        _ => return Err(ObserveError::Ended(pid)),
    }
    Ok(Observation { provenance: Valid::new(provenance)?, unknown })
}

/// What is being found out of one process.
struct Facts<'a> {
    files: &'a ProcessFiles,
    processes: &'a Path,
    system: &'a Path,
    stat: &'a Stat,
    unknown: Vec<(&'static str, String)>,
}

impl Facts<'_> {
    fn lacks(&mut self, member: &'static str, why: impl Into<String>) {
        self.unknown.push((member, why.into()));
    }

    fn provenance(&mut self, pid: u32) -> ProcessProvenance {
        let (uid_class, gid_class) = self.ids();
        let environment_class = self.environment();
        let parent_command_class = self.parent(environment_class);
        let has_terminal = self.stat.terminal != 0;
        let launch_reason = classify::launch_reason(parent_command_class, has_terminal);
        if launch_reason == LaunchReason::Unknown {
            self.lacks("process_identity.launch_reason", "who launched it does not say why");
        }
        let executable_identity = self.executable(environment_class);
        ProcessProvenance {
            schema_version: SCHEMA_VERSION.to_owned(),
            process_identity: ProcessIdentity {
                pid: Some(Number::from(pid)),
                ppid: Some(Number::from(self.stat.parent)),
                uid_class,
                gid_class,
                parent_command_class,
                environment_class,
                launch_reason,
                // It runs: nobody has seen it end.
                exit: None,
            },
            executable_identity,
            causality: self.causality(pid),
            privacy: Privacy {
                tier: Tier::UserPrivate,
                redaction_policy: RedactionPolicy::PreserveCausality,
                secret_fields: ["exact_executable_path", "command_arguments", "environment"]
                    .map(str::to_owned)
                    .to_vec(),
            },
        }
    }

    fn ids(&mut self) -> (UidClass, GidClass) {
        match self.files.ids() {
            Ok((uid, gid)) => (classify::uid(uid), classify::gid(gid)),
            Err(fault) => {
                self.lacks("process_identity.uid_class", fault.to_string());
                self.lacks("process_identity.gid_class", fault.to_string());
                (UidClass::Unknown, GidClass::Unknown)
            }
        }
    }

    fn environment(&mut self) -> EnvironmentClass {
        let groups = self.files.text("cgroup");
        let text = groups.as_deref().unwrap_or_default();
        let found =
            classify::environment(text, self.files.is_in_container(), self.stat.terminal != 0);
        if found == EnvironmentClass::Unknown {
            let why = match groups {
                Ok(_) => {
                    "its control group names neither a service, a session nor a container".into()
                }
                Err(fault) => fault.to_string(),
            };
            self.lacks("process_identity.environment_class", why);
        }
        found
    }

    fn parent(&mut self, environment: EnvironmentClass) -> ParentClass {
        let has_terminal = self.stat.terminal != 0;
        let parent = ProcessFiles::of(self.processes, self.stat.parent).stat();
        let (found, why) = match (self.stat.parent, parent) {
            (0, _) => (ParentClass::Unknown, "it was launched by the kernel".to_owned()),
            // Whoever loses its parent is adopted, so being a child of the first process says nothing.
            (1, _) if environment == EnvironmentClass::SystemService => {
                (ParentClass::SystemService, String::new())
            }
            (1, _) => (
                ParentClass::Unknown,
                "its parent is the first process, which also adopts orphans".to_owned(),
            ),
            (_, Ok(parent)) => (
                classify::parent(&parent.name, has_terminal),
                format!("its parent {:?} may have many reasons", parent.name),
            ),
            (_, Err(fault)) => (ParentClass::Unknown, format!("its parent: {fault}")),
        };
        if found == ParentClass::Unknown {
            self.lacks("process_identity.parent_command_class", why);
        }
        found
    }

    fn executable(&mut self, environment: EnvironmentClass) -> ExecutableIdentity {
        const SIGNATURE: &str =
            "executables of this system carry no signature that could be checked";
        self.lacks("executable_identity.signature_state", SIGNATURE);
        let path = self.files.executable();
        let content_hash = self.content_hash();
        let (path_class, display_path) = match &path {
            Ok(path) => {
                let file_system = self.files.file_system_of(path);
                let class = classify::path(path, file_system.as_deref(), environment);
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                (class, name.unwrap_or_else(|| path.display().to_string()))
            }
            // Kernel threads have none. The name is what the process calls itself, so in brackets.
            Err(_) => (PathClass::Unknown, format!("[{}]", self.stat.name)),
        };
        if path_class == PathClass::Unknown {
            let why = match &path {
                Ok(_) => {
                    "it lies where neither system, packages nor users keep programs".to_owned()
                }
                Err(fault) => fault.to_string(),
            };
            self.lacks("executable_identity.path_class", why);
        }
        let (package_origin, package_receipt_ref) = self.origin(path.ok().as_deref(), path_class);
        ExecutableIdentity {
            path_class,
            display_path,
            exact_path_ref: None,
            content_hash,
            package_origin,
            package_receipt_ref,
            signature_state: SignatureState::Unknown,
            signer_display: None,
            trust_mode: TrustMode::LocalFirst,
            network_lookup: NetworkLookup::NotAttempted,
        }
    }

    /// The hash of what runs, even where the file was replaced or removed since.
    fn content_hash(&mut self) -> Option<String> {
        let mut hash = Sha256::new();
        let read = self.files.open_executable().and_then(|file| {
            let mut limited = file.take(EXECUTABLE_BYTES_MAX);
            let length = std::io::copy(&mut limited, &mut HashWriter(&mut hash))
                .map_err(|error| Fault::from(&error))?;
            Ok(length)
        });
        match read {
            Ok(length) if length < EXECUTABLE_BYTES_MAX => {
                let hex: String =
                    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                Some(format!("sha256:{hex}"))
            }
            Ok(_) => {
                let why = format!("it is over {EXECUTABLE_BYTES_MAX} bytes");
                self.lacks("executable_identity.content_hash", why);
                None
            }
            Err(fault) => {
                self.lacks("executable_identity.content_hash", fault.to_string());
                None
            }
        }
    }

    fn origin(&mut self, path: Option<&Path>, class: PathClass) -> (PackageOrigin, Option<String>) {
        let by_place = classify::origin_of_place(class);
        let receipt = match path {
            None => Err("its path is not known".to_owned()),
            // The databases here say nothing of files in another view of the file system.
            Some(_) if !self.files.shares_files_with_us() => {
                Err("it may see other files than this command".to_owned())
            }
            Some(path) => packages::receipt(self.system, path),
        };
        match receipt {
            Ok(Some(receipt)) => (PackageOrigin::PackageManager, Some(receipt)),
            Ok(None) if by_place != PackageOrigin::Unknown => (by_place, None),
            Ok(None) => {
                self.lacks("executable_identity.package_origin", "no package database knows it");
                (PackageOrigin::Unknown, None)
            }
            Err(_) if by_place != PackageOrigin::Unknown => (by_place, None),
            Err(why) => {
                self.lacks("executable_identity.package_origin", why);
                (PackageOrigin::Unknown, None)
            }
        }
    }

    /// Ids that are the same whenever this process is observed, and those of no other process.
    fn causality(&self, pid: u32) -> Causality {
        let boot = procfs::boot_id(self.processes).unwrap_or_else(|| "boot".to_owned());
        let name = format!("{boot}_{pid}_{}", self.stat.started);
        Causality {
            trace_id: Text::or(format!("trace_process_{name}"), "unknown"),
            // Holds: the name has letters, digits and underscores only.
            root_event_id: EventId::new(format!("evt_process_{name}")).expect("it is an id"),
            parent_event_id: None,
            span_id: Text::or(format!("span_process_{name}"), "unknown"),
        }
    }
}

/// Feeds a hash.
struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
