//! Process provenance: who launched a process, which executable it runs, and where that came from.
//!
//! What could not be found out is `unknown` or absent, never guessed: a record that says less is
//! worth more than one that says what nobody saw.

pub mod events;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule};
use crate::event::model::{Causality, Privacy};
use crate::event::vocabulary::{
    NetworkLookup, PackageOrigin, SignatureState, TrustMode, vocabulary,
};
use crate::json::Integer;

/// `schema_version` of process provenance.
pub const SCHEMA_VERSION: &str = "sourceos.process-provenance.v0.1";

/// The contract.
pub static PROCESS_PROVENANCE: Contract = Contract {
    name: "process-provenance",
    urn: "urn:srcos:schema:process-provenance:v0.1",
    file: "sourceos.process-provenance.v0.1.schema.json",
    schema: include_str!("../sourceos.process-provenance.v0.1.schema.json"),
    discriminator: Discriminator::Member("schema_version", SCHEMA_VERSION),
    profiled: false,
    rules: &[
        Rule {
            name: "process-provenance.end-was-seen",
            says: "how a process ended is told only where its end was observed",
            origin: Origin::Ours,
            check: end_was_seen,
        },
        Rule {
            name: "process-provenance.code-or-signal",
            says: "a process ended with a code or by a signal, not both",
            origin: Origin::Ours,
            check: code_or_signal,
        },
        Rule {
            name: "process-provenance.own-parent",
            says: "no process is its own parent",
            origin: Origin::Ours,
            check: not_its_own_parent,
        },
        Rule {
            name: "process-provenance.valid-has-hash",
            says: "a signature is called valid only with the hash of what was signed",
            origin: Origin::Ours,
            check: valid_has_hash,
        },
        Rule {
            name: "process-provenance.local-stays-local",
            says: "where trust is local only, the network is not asked",
            origin: Origin::Ours,
            check: local_stays_local,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn word<'a>(tuple: &'a Value, path: &str) -> Option<&'a str> {
    tuple.pointer(path).and_then(Value::as_str)
}

fn end_was_seen(tuple: &Value, findings: &mut Findings) {
    let Some(exit) = tuple.pointer("/process_identity/exit") else { return };
    if exit.get("observed") != Some(&Value::Bool(false)) {
        return;
    }
    for member in ["exit_code", "signal", "runtime_ms", "termination_reason"] {
        if exit.get(member).is_some_and(|said| !said.is_null()) {
            let path = format!("/process_identity/exit/{member}");
            findings.add(path, "nobody saw the process end: leave this null, or say observed");
        }
    }
}

fn code_or_signal(tuple: &Value, findings: &mut Findings) {
    let Some(exit) = tuple.pointer("/process_identity/exit") else { return };
    let said = |member: &str| exit.get(member).is_some_and(|said| !said.is_null());
    if said("exit_code") && said("signal") {
        let message = "what a signal ended has no code of its own: leave one of the two null";
        findings.add("/process_identity/exit/signal", message);
    }
}

fn not_its_own_parent(tuple: &Value, findings: &mut Findings) {
    let wide = findings.wide();
    let number = |path: &str| wide.integer(tuple, path);
    let (pid, ppid) = (number("/process_identity/pid"), number("/process_identity/ppid"));
    if pid.as_ref().is_some_and(Integer::is_positive) && pid == ppid {
        let message = "this is the process's own number: name its parent, or leave it null";
        findings.add("/process_identity/ppid", message);
    }
}

fn valid_has_hash(tuple: &Value, findings: &mut Findings) {
    let path = "/executable_identity/content_hash";
    let valid = word(tuple, "/executable_identity/signature_state") == Some("valid");
    if valid && word(tuple, path).is_none_or(str::is_empty) {
        findings.add(path, "a valid signature of what? give the hash, or call it unknown");
    }
}

fn local_stays_local(tuple: &Value, findings: &mut Findings) {
    let path = "/executable_identity/network_lookup";
    let local = word(tuple, "/executable_identity/trust_mode") == Some("local_only");
    if local && matches!(word(tuple, path), Some("allowed" | "failed" | "succeeded")) {
        let message = "trust is local only and yet the network was asked: one of the two is wrong";
        findings.add(path, message);
    }
}

/// Where a process comes from.
///
/// Numbers are kept as they are written: to JSON, `675.0` is an integer too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessProvenance {
    /// Kind of document: [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// The process, and what launched it.
    pub process_identity: ProcessIdentity,
    /// The file that runs.
    pub executable_identity: ExecutableIdentity,
    /// Where the launch stands among other events.
    pub causality: Causality,
    /// Who may see the record.
    pub privacy: Privacy,
}

impl Document for ProcessProvenance {
    const CONTRACT: &'static Contract = &PROCESS_PROVENANCE;
}

/// A process, and what launched it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    /// Number of the process.
    pub pid: Option<Number>,
    /// Number of its parent.
    pub ppid: Option<Number>,
    /// What sort of user it runs as.
    pub uid_class: UidClass,
    /// What sort of group it runs as.
    pub gid_class: GidClass,
    /// What sort of command launched it.
    pub parent_command_class: ParentClass,
    /// In what sort of surroundings it runs.
    pub environment_class: EnvironmentClass,
    /// Why it was launched.
    pub launch_reason: LaunchReason,
    /// How it ended, where that was observed.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Whether the end was observed.
    pub observed: bool,
    /// Code that it ended with.
    #[serde(default)]
    pub exit_code: Option<Number>,
    /// Name of the signal that ended it.
    #[serde(default)]
    pub signal: Option<String>,
    /// How long it ran, in milliseconds.
    #[serde(default)]
    pub runtime_ms: Option<Number>,
    /// Why it ended, as a short word.
    #[serde(default)]
    pub termination_reason: Option<String>,
}

/// The file that runs, and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutableIdentity {
    /// In what sort of place the file lies.
    pub path_class: PathClass,
    /// How it is shown to people.
    pub display_path: String,
    /// Reference under which the exact path is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_path_ref: Option<String>,
    /// `sha256:` and the hash of the file's bytes.
    pub content_hash: Option<String>,
    /// Who put the file there.
    pub package_origin: PackageOrigin,
    /// Reference to the record of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package_receipt_ref: Option<String>,
    /// What is known of its signature.
    pub signature_state: SignatureState,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer_display: Option<String>,
    /// Where trust in it may be looked up.
    pub trust_mode: TrustMode,
    /// Whether the network was asked about it.
    pub network_lookup: NetworkLookup,
}

vocabulary! {
    /// What sort of user a process runs as.
    UidClass {
        /// The superuser.
        Root = "root",
        /// A person.
        User = "user",
        /// A service.
        Service = "service",
        /// An agent.
        Agent = "agent",
        /// It could not be found out.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// What sort of group a process runs as.
    GidClass {
        /// Those who administer the device.
        Admin = "admin",
        /// People.
        Staff = "staff",
        /// Services.
        Service = "service",
        /// Agents.
        Agent = "agent",
        /// It could not be found out.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// What sort of command launched a process.
    ParentClass {
        /// A shell with a person at it.
        InteractiveShell = "interactive_shell",
        /// A service of the system.
        SystemService = "system_service",
        /// An agent.
        AgentAction = "agent_action",
        /// A package manager.
        PackageHook = "package_hook",
        /// A timer.
        ScheduledJob = "scheduled_job",
        /// A session from elsewhere.
        RemoteSession = "remote_session",
        /// It could not be found out.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// In what sort of surroundings a process runs.
    EnvironmentClass {
        /// A person's session.
        UserInteractive = "user_interactive",
        /// A service of the system.
        SystemService = "system_service",
        /// An agent's sandbox.
        AgentSandbox = "agent_sandbox",
        /// A container.
        Container = "container",
        /// A system that is being repaired.
        Recovery = "recovery",
        /// It could not be found out.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// Why a process was launched.
    LaunchReason {
        /// A person asked for it.
        Interactive = "interactive",
        /// It was time.
        Scheduled = "scheduled",
        /// A service was needed.
        ServiceActivation = "service_activation",
        /// An agent asked for it.
        AgentDispatch = "agent_dispatch",
        /// A package asked for it.
        PackageScript = "package_script",
        /// The system was starting.
        Boot = "boot",
        /// A repair asked for it.
        Repair = "repair",
        /// Synchronisation asked for it.
        Sync = "sync",
        /// It could not be found out.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// In what sort of place an executable lies.
    PathClass {
        /// Where the system keeps its programs.
        System = "system",
        /// Where a package manager keeps its own.
        PackageManager = "package_manager",
        /// Where a user put it.
        UserLocal = "user_local",
        /// In a container's image.
        Container = "container",
        /// On another machine.
        RemoteMount = "remote_mount",
        /// Where files do not stay.
        EphemeralTmp = "ephemeral_tmp",
        /// It could not be found out.
        Unknown = "unknown",
    }
}
