//! The words that members of an event can take, each set as an enum.

use serde::{Deserialize, Serialize};

/// An enum whose values are fixed words in documents.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum $name {
            $(
                $(#[$doc])*
                ///
                #[doc = concat!("Written `", $text, "`.")]
                #[serde(rename = $text)]
                $variant,
            )+
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in documents.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The value of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::event::vocabulary::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Self::from_word(word).ok_or_else(|| $crate::event::vocabulary::UnknownWord {
                    word: word.chars().take(80).collect(),
                    known: Self::ALL.iter().map(|value| value.as_str()).collect(),
                })
            }
        }
    };
}
pub(crate) use vocabulary;

/// A word that the contract does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of {}", known.join(", "))]
pub struct UnknownWord {
    /// The word found, shortened when it is long.
    pub word: String,
    /// The words that there are.
    pub known: Vec<&'static str>,
}

vocabulary! {
    /// What sort of happening an event is.
    EventClass {
        ProcessExec = "process.exec",
        ProcessExit = "process.exit",
        PolicyDecision = "policy.decision",
        TrustEvaluation = "trust.evaluation",
        TelemetryCoalesced = "telemetry.coalesced",
        OperatorNarrative = "operator.narrative",
        SyncReplication = "sync.replication",
        ObjectRepair = "object.repair",
        SchemaValidation = "schema.validation",
        AgentAction = "agent.action",
        PowerWake = "power.wake",
    }
}

vocabulary! {
    /// The subject area by which events are routed; not an index lane.
    EventLane {
        Security = "security",
        Policy = "policy",
        ProcessLifecycle = "process_lifecycle",
        Identity = "identity",
        Trust = "trust",
        PackageProvenance = "package_provenance",
        Sync = "sync",
        DeveloperDiagnostics = "developer_diagnostics",
        HardwareUi = "hardware_ui",
        Analytics = "analytics",
        Power = "power",
    }
}

vocabulary! {
    /// How loudly an event is told, quietest first.
    Severity {
        Trace = "trace",
        Debug = "debug",
        Info = "info",
        Notice = "notice",
        Warning = "warning",
        Error = "error",
        Critical = "critical",
    }
}

vocabulary! {
    /// How what happened ended.
    Outcome {
        Allowed = "allowed",
        BlockedExpected = "blocked_expected",
        BlockedUnexpected = "blocked_unexpected",
        BlockedAttackLike = "blocked_attack_like",
        Degraded = "degraded",
        Failed = "failed",
        Observed = "observed",
    }
}

impl Outcome {
    /// How loudly an event with this outcome is told unless something else is said.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Allowed | Self::Observed => Severity::Info,
            Self::BlockedExpected => Severity::Notice,
            Self::BlockedUnexpected | Self::Degraded => Severity::Warning,
            Self::Failed => Severity::Error,
            Self::BlockedAttackLike => Severity::Critical,
        }
    }

    /// The loudest that an event with this outcome may be: what was expected alarms nobody.
    pub const fn severity_max(self) -> Severity {
        match self {
            Self::BlockedExpected => Severity::Notice,
            _ => Severity::Critical,
        }
    }
}

vocabulary! {
    /// Clearance that a reader needs, most open first.
    Tier {
        PublicSummary = "public_summary",
        UserPrivate = "user_private",
        AdminForensic = "admin_forensic",
        SealedSecret = "sealed_secret",
    }
}

vocabulary! {
    /// What redaction must preserve.
    RedactionPolicy {
        PreserveCausality = "preserve_causality",
        Sealed = "sealed",
        RawForensic = "raw_forensic",
    }
}

vocabulary! {
    /// What sort of actor acted.
    ActorType {
        Process = "process",
        Agent = "agent",
        User = "user",
        Service = "service",
        Kernel = "kernel",
        PolicyEngine = "policy_engine",
    }
}

vocabulary! {
    /// What sort of thing was acted on.
    SubjectType {
        Process = "process",
        File = "file",
        Socket = "socket",
        IpcService = "ipc_service",
        Object = "object",
        Schema = "schema",
        Replica = "replica",
        Policy = "policy",
        TrustRoot = "trust_root",
        Package = "package",
        PowerState = "power_state",
    }
}

vocabulary! {
    /// What a policy rule answers.
    DecisionResult {
        Allow = "allow",
        Deny = "deny",
        Defer = "defer",
        Degrade = "degrade",
    }
}

vocabulary! {
    /// How much harm something may mean. `unknown` stands last and has no rank.
    Risk {
        None = "none",
        Low = "low",
        Medium = "medium",
        High = "high",
        Critical = "critical",
        Unknown = "unknown",
    }
}

impl Risk {
    /// The place on the scale from none to critical; nothing for what is unknown.
    pub const fn rank(self) -> Option<u8> {
        match self {
            Self::None => Some(0),
            Self::Low => Some(1),
            Self::Medium => Some(2),
            Self::High => Some(3),
            Self::Critical => Some(4),
            Self::Unknown => None,
        }
    }

    /// The least severity at which something of this risk is told once its risk has risen.
    pub const fn severity(self) -> Severity {
        match self {
            Self::None | Self::Unknown => Severity::Info,
            Self::Low => Severity::Notice,
            Self::Medium => Severity::Warning,
            Self::High => Severity::Error,
            Self::Critical => Severity::Critical,
        }
    }
}

vocabulary! {
    /// Whether trust is judged on the host alone.
    TrustMode {
        LocalFirst = "local_first",
        LocalOnly = "local_only",
        RemoteAllowed = "remote_allowed",
        RemoteRequired = "remote_required",
    }
}

vocabulary! {
    /// What checking a code signature gave.
    SignatureState {
        Valid = "valid",
        Unsigned = "unsigned",
        AdHoc = "ad_hoc",
        Unknown = "unknown",
        Invalid = "invalid",
        NotApplicable = "not_applicable",
    }
}

vocabulary! {
    /// Which channel code came by.
    PackageOrigin {
        PackageManager = "package_manager",
        System = "system",
        UserLocal = "user_local",
        Container = "container",
        Remote = "remote",
        Unknown = "unknown",
    }
}

vocabulary! {
    /// Whether code is vouched for.
    AttestationState {
        Verified = "verified",
        Degraded = "degraded",
        Missing = "missing",
        Failed = "failed",
        NotApplicable = "not_applicable",
    }
}

vocabulary! {
    /// Whether the network was asked.
    NetworkLookup {
        NotAttempted = "not_attempted",
        BlockedByPolicy = "blocked_by_policy",
        Allowed = "allowed",
        Failed = "failed",
        Succeeded = "succeeded",
    }
}

vocabulary! {
    /// Where an observation comes from.
    EvidenceSource {
        Kernel = "kernel",
        PolicyEngine = "policy-engine",
        TrustEngine = "trust-engine",
        PackageDb = "package-db",
        ProcessMonitor = "process-monitor",
        SyncEngine = "sync-engine",
        Operator = "operator",
        Agent = "agent",
        RawLog = "raw-log",
        UploadedMacosLog = "uploaded-macos-log",
        UploadedAirportLog = "uploaded-airport-log",
        UploadedConsoleLog = "uploaded-console-log",
        UploadedCrashReport = "uploaded-crash-report",
    }
}

vocabulary! {
    /// How far an event may be copied.
    ReplicationPolicy {
        LocalOnly = "local_only",
        PrivateMesh = "private_mesh",
        OrgControlled = "org_controlled",
        PublicDemo = "public_demo",
    }
}

vocabulary! {
    /// How long an event is kept.
    RetentionClass {
        Ephemeral = "ephemeral",
        Standard = "standard",
        Forensic = "forensic",
        Sealed = "sealed",
    }
}
