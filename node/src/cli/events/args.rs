//! The arguments of `events`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use srcos_schemas::event::coalesce::SAMPLES_MAX;
use srcos_schemas::event::storm::STORM_COUNT_MIN;
use srcos_schemas::event::vocabulary::{
    ActorType, DecisionResult, EventClass, EventLane, Outcome, Risk, Severity, SubjectType, Tier,
};
use srcos_schemas::event::when::When;

/// `events`.
#[derive(Subcommand, Debug)]
pub enum EventsCommand {
    /// Hold events to their contract: schema and rules; exit 1 if one is invalid
    Validate(ValidateArgs),
    /// Explain an event in words: what happened, how risky it is, why, and what to do
    Explain(ExplainArgs),
    /// Make an event, and print it or add it to a store
    Emit(Box<EmitArgs>),
    /// Make the event of a policy decision, and print it or add it to a store
    EmitPolicyDecision(Box<DecisionArgs>),
    /// Make the event of a policy observation, and print it or add it to a store
    Normalize(NormalizeArgs),
    /// Add events to a store; what it holds already is not added again
    Write(WriteArgs),
    /// List the events of a store: id, time, class, severity, outcome and summary
    List(ListArgs),
    /// Show one event of a store
    Show(ShowArgs),
    /// Fold repeats in a stream of events; one event a line, in and out
    Coalesce(CoalesceArgs),
    /// Check one event of a store: its line, its link, and what led to it; exit 1 if anything is wrong
    Verify(VerifyArgs),
    /// Check a whole store, and name each line that was changed, moved, cut or taken out; exit 1 if one was
    VerifyStore(VerifyStoreArgs),
}

/// Which store.
#[derive(Args, Debug, Clone)]
pub struct StoreArgs {
    /// The store, a file of JSON lines [default: events.jsonl in the data directory]
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
}

/// `events validate`.
#[derive(Args, Debug, Clone)]
pub struct ValidateArgs {
    /// Files with one event each, folders of them, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Hold them to the wider form that older programs write
    #[arg(long)]
    pub legacy: bool,
    /// Count warnings as errors
    #[arg(long)]
    pub strict: bool,
}

/// `events explain`.
#[derive(Args, Debug, Clone)]
pub struct ExplainArgs {
    /// A file with one event, - for standard input, or the id of an event in the store
    #[arg(value_name = "FILE|ID")]
    pub event: String,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Explain it to a reader of this clearance
    #[arg(long, value_name = "TIER")]
    pub tier: Option<Tier>,
}

/// Who, to what, and in which words: what all made events have.
#[derive(Args, Debug, Clone)]
pub struct MadeArgs {
    /// Who did it, as people know it
    #[arg(long, value_name = "NAME")]
    pub actor: String,
    /// Name of the actor that stays the same
    #[arg(long, value_name = "ID", default_value = "actor_local")]
    pub actor_id: String,
    /// What sort of actor
    #[arg(long, value_name = "TYPE", default_value = "service")]
    pub actor_type: ActorType,
    /// Domain whose rules bind the actor
    #[arg(long, value_name = "DOMAIN", default_value = "system")]
    pub authority_domain: String,
    /// Login session of the actor
    #[arg(long, value_name = "ID")]
    pub session_id: Option<String>,
    /// Name or pseudonym of the host
    #[arg(long, value_name = "ID", default_value = "host_local")]
    pub host_id: String,
    /// Name of the subject that stays the same
    #[arg(long, value_name = "ID", default_value = "subject_local")]
    pub subject_id: String,
    /// What sort of subject
    #[arg(long, value_name = "TYPE", default_value = "ipc_service")]
    pub subject_type: SubjectType,
    /// What happened, in a sentence
    #[arg(long, value_name = "TEXT")]
    pub summary: String,
    /// Why, in a sentence
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// What to do now
    #[arg(long, value_name = "TEXT")]
    pub next_action: String,
    /// How much harm it may mean
    #[arg(long, default_value = "low")]
    pub risk: Risk,
    /// The event that directly caused it
    #[arg(long, value_name = "ID", alias = "parent-id")]
    pub parent_event_id: Option<String>,
    /// First event of the chain [default: this one]
    #[arg(long, value_name = "ID", alias = "root-id")]
    pub root_event_id: Option<String>,
    /// The activity that it belongs to [default: a new one]
    #[arg(long, value_name = "ID")]
    pub trace_id: Option<String>,
    /// Add it to this store instead of printing it
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
}

/// `events emit`.
#[derive(Args, Debug, Clone)]
pub struct EmitArgs {
    /// What sort of happening
    #[arg(long)]
    pub class: EventClass,
    /// Its subject area
    #[arg(long)]
    pub lane: EventLane,
    /// How it ended
    #[arg(long, default_value = "observed")]
    pub outcome: Outcome,
    /// How loudly to tell [default: by outcome]
    #[arg(long)]
    pub severity: Option<Severity>,
    /// The subject, as people know it
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// Clearance that a reader needs
    #[arg(long, default_value = "user_private")]
    pub tier: Tier,
    /// Who and in which words.
    #[command(flatten)]
    pub made: MadeArgs,
}

/// `events emit-policy-decision`.
#[derive(Args, Debug, Clone)]
pub struct DecisionArgs {
    /// The subject, as people know it
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// Set of rules in force
    #[arg(long, value_name = "NAME", default_value = "sourceos.baseline")]
    pub policy_bundle: String,
    /// Rule that decided
    #[arg(long, value_name = "NAME")]
    pub policy_rule: String,
    /// What was asked for
    #[arg(long, value_name = "NAME")]
    pub operation: String,
    /// Class of the thing it was asked for
    #[arg(long, value_name = "NAME")]
    pub target_class: String,
    /// The answer
    #[arg(long, default_value = "deny")]
    pub result: DecisionResult,
    /// Whether the answer was to be expected
    #[arg(long, default_value = "blocked_expected")]
    pub outcome: Outcome,
    /// How loudly to tell
    #[arg(long, default_value = "notice")]
    pub severity: Severity,
    /// The registry's code for it
    #[arg(long, value_name = "CODE")]
    pub explanation_code: String,
    /// What counts as the same decision
    #[arg(long, value_name = "TEXT", default_value = "fp_local_policy_decision")]
    pub fingerprint: String,
    /// Who and in which words.
    #[command(flatten)]
    pub made: MadeArgs,
}

/// `events normalize`.
#[derive(Args, Debug, Clone)]
pub struct NormalizeArgs {
    /// The observation, or - for standard input
    pub file: PathBuf,
    /// Explanation codes to go by [default: those that this program knows]
    #[arg(long, value_name = "FILE")]
    pub registry: Option<PathBuf>,
    /// When it was decided, as an RFC 3339 time [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub created_at: Option<When>,
    /// Add it to this store instead of printing it
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
}

fn time(text: &str) -> Result<When, String> {
    When::parse(text).map_err(|error| error.to_string())
}

/// `events write`.
#[derive(Args, Debug, Clone)]
pub struct WriteArgs {
    /// Files with one event or one event a line, or - for standard input
    #[arg(required = true, value_name = "FILE|-")]
    pub files: Vec<PathBuf>,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `events list`.
#[derive(Args, Debug, Clone)]
pub struct ListArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Only this class
    #[arg(long)]
    pub class: Option<EventClass>,
    /// Only this severity and louder
    #[arg(long, value_name = "SEVERITY")]
    pub severity: Option<Severity>,
    /// Only this outcome
    #[arg(long)]
    pub outcome: Option<Outcome>,
    /// Most events to list, the first ones
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Show them as to a reader of this clearance
    #[arg(long, value_name = "TIER")]
    pub tier: Option<Tier>,
    /// Exit 1 if the store holds no event
    #[arg(long)]
    pub fail_empty: bool,
}

/// `events show`.
#[derive(Args, Debug, Clone)]
pub struct ShowArgs {
    /// The event's id
    pub event_id: String,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Show it as to a reader of this clearance
    #[arg(long, value_name = "TIER")]
    pub tier: Option<Tier>,
}

/// `events coalesce`.
#[derive(Args, Debug, Clone)]
pub struct CoalesceArgs {
    /// Events, one a line, or an event store; - for standard input
    #[arg(default_value = "-", value_name = "FILE|-")]
    pub file: PathBuf,
    /// Length of a window, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub window_ms: u64,
    /// Samples that a folded event names
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(..=SAMPLES_MAX as u64))]
    pub samples: u64,
    /// Events that one source may show in one window; more are counted in one event
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub budget: Option<u64>,
    /// Print the records of storms instead: of what was folded often enough
    #[arg(long)]
    pub storms: bool,
    /// Fewest occurrences that make a storm
    #[arg(long, value_name = "N", default_value_t = STORM_COUNT_MIN)]
    pub storm_min: u64,
    /// Incident to which the storms belong
    #[arg(long, value_name = "ID", requires = "storms")]
    pub incident: Option<String>,
    /// Pass over lines that are no valid event, naming them, instead of ending there
    #[arg(long)]
    pub skip_invalid: bool,
}

/// `events verify`.
#[derive(Args, Debug, Clone)]
pub struct VerifyArgs {
    /// The event's id
    pub event_id: String,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Device that must have signed, or any [default: this one, where it has a key]
    #[arg(long, value_name = "ID|any")]
    pub device: Option<String>,
}

/// `events verify-store`.
#[derive(Args, Debug, Clone)]
pub struct VerifyStoreArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Device that must have signed, or any [default: this one, where it has a key]
    #[arg(long, value_name = "ID|any")]
    pub device: Option<String>,
    /// Exit 1 if the store holds no event
    #[arg(long)]
    pub fail_empty: bool,
}
