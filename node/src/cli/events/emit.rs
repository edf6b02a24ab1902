//! Events made from the command line, and from policy observations.

use std::path::Path;

use data_encoding::HEXLOWER;
use srcos_schemas::event::build::{BuildError, Essentials, EventBuilder};
use srcos_schemas::event::model::{
    Actor, BadText, Causality, Decision, Event, EventId, ExplanationCode, Host, Narrative,
    NoiseControl, Privacy, Subject, Text, Trust,
};
use srcos_schemas::event::vocabulary::{
    EventClass, EventLane, Outcome, RedactionPolicy, Severity, Tier,
};
use srcos_schemas::event::when::When;
use srcos_schemas::explanation::{self, ExplanationRegistry, REGISTRY};
use srcos_schemas::policy_observation::{PolicyObservation, normalize as normalized};
use srcos_schemas::time::Timestamp;

use super::args::{DecisionArgs, EmitArgs, MadeArgs, NormalizeArgs};
use super::kept;
use crate::cli::Io;
use crate::cli::args::Globals;
use crate::cli::reading::{self, Depth, print_json};
use crate::data_dir::{Clock, internal};
use crate::error::NodeError;

/// A name that nothing else has.
fn fresh<const BYTES: usize>(prefix: &str) -> Result<String, NodeError> {
    let random: [u8; BYTES] = crate::keys::random().map_err(internal)?;
    Ok(format!("{prefix}{}", HEXLOWER.encode(&random)))
}

fn now() -> When {
    When::from(Timestamp(Clock::start().now().wall.0))
}

fn option<T>(name: &str, made: Result<T, BadText>) -> Result<T, NodeError> {
    made.map_err(|error| {
        let message = format!("--{name}: {error}");
        NodeError::usage("usage", message, "see: srcos-node events --help")
    })
}

/// What an event is about, beside who and in which words.
struct About {
    class: EventClass,
    lane: EventLane,
    outcome: Outcome,
    severity: Severity,
    subject: String,
    tier: Tier,
}

/// The beginnings of an event: all but the blocks of its class.
fn begin(about: About, made: &MadeArgs) -> Result<EventBuilder, NodeError> {
    let text = |name: &str, text: &str| option(name, Text::new(text));
    let event_id = option("event-id", EventId::new(fresh::<16>("evt_")?))?;
    let narrative = Narrative {
        summary: text("summary", &made.summary)?,
        risk: made.risk,
        why: text("why", &made.why)?,
        next_action: text("next-action", &made.next_action)?,
        drilldown_refs: Vec::new(),
    };
    let id = |name: &str, id: &Option<String>| {
        id.as_ref().map(|id| option(name, EventId::new(id.as_str()))).transpose()
    };
    let trace = match &made.trace_id {
        Some(trace) => trace.clone(),
        None => fresh::<16>("trace_")?,
    };
    let causality = Causality {
        parent_event_id: id("parent-event-id", &made.parent_event_id)?,
        root_event_id: id("root-event-id", &made.root_event_id)?
            .unwrap_or_else(|| event_id.clone()),
        trace_id: text("trace-id", &trace)?,
        span_id: text("span-id", &fresh::<6>("span_")?)?,
    };
    let essentials = Essentials {
        event_id,
        created_at: now(),
        class: about.class,
        lane: about.lane,
        outcome: about.outcome,
        host: Host {
            host_id: text("host-id", &made.host_id)?,
            platform: text("platform", "sourceos")?,
            kernel: Some("unknown".to_owned()),
            privacy_zone: about.tier,
        },
        actor: Actor {
            actor_id: text("actor-id", &made.actor_id)?,
            actor_type: made.actor_type,
            display_name: text("actor", &made.actor)?,
            uid: None,
            session_id: made.session_id.clone(),
            authority_domain: Some(made.authority_domain.clone()),
        },
        subject: Subject {
            subject_type: made.subject_type,
            id: text("subject-id", &made.subject_id)?,
            display: text("subject", &about.subject)?,
        },
        narrative,
    };
    let privacy = Privacy {
        tier: about.tier,
        redaction_policy: RedactionPolicy::PreserveCausality,
        secret_fields: Vec::new(),
    };
    let builder = EventBuilder::new(essentials).severity(about.severity);
    Ok(builder.causality(causality).privacy(privacy).monotonic_ns(0))
}

fn unbuildable(error: &BuildError) -> NodeError {
    NodeError::usage("event_invalid", error.to_string(), "see: srcos-node events --help")
}

/// Adds an event to a store where one is named, and prints it otherwise.
fn deliver(
    globals: &Globals,
    io: &mut Io<'_>,
    event: &Event,
    store: Option<&Path>,
) -> Result<(), NodeError> {
    let event = serde_json::to_value(event).map_err(internal)?;
    match store {
        Some(store) => kept::add_one(globals, io, store, event),
        None => print_json(io, globals.json, &event),
    }
}

pub(super) fn emit(globals: &Globals, io: &mut Io<'_>, args: EmitArgs) -> Result<(), NodeError> {
    let instead = match args.class {
        EventClass::PolicyDecision => Some("emit-policy-decision"),
        EventClass::TelemetryCoalesced => Some("coalesce"),
        _ => None,
    };
    if let Some(instead) = instead {
        let message = format!("an event of class {} is not made by emit", args.class);
        let hint = format!("use: srcos-node events {instead}");
        return Err(NodeError::usage("usage", message, hint));
    }
    let about = About {
        class: args.class,
        lane: args.lane,
        outcome: args.outcome,
        severity: args.severity.unwrap_or(args.outcome.severity()),
        subject: args.subject,
        tier: args.tier,
    };
    let builder = begin(about, &args.made)?.trust(Trust::not_applicable());
    let event = builder.build().map_err(|error| unbuildable(&error))?;
    deliver(globals, io, &event, args.made.store.as_deref())
}

pub(super) fn decision(
    globals: &Globals,
    io: &mut Io<'_>,
    args: DecisionArgs,
) -> Result<(), NodeError> {
    let text = |name: &str, text: &str| option(name, Text::new(text));
    let code = option("explanation-code", ExplanationCode::new(args.explanation_code))?;
    if explanation::find(code.as_str()).is_none() {
        let _ = writeln!(io.errors, "warning: {code} is in no registry");
    }
    let decision = Decision {
        decision_id: text("decision-id", &fresh::<16>("dec_")?)?,
        policy_bundle: text("policy-bundle", &args.policy_bundle)?,
        policy_rule: text("policy-rule", &args.policy_rule)?,
        operation: text("operation", &args.operation)?,
        target_class: text("target-class", &args.target_class)?,
        result: args.result,
        semantic_outcome: args.outcome,
        explanation_code: code,
    };
    let about = About {
        class: EventClass::PolicyDecision,
        lane: EventLane::Policy,
        outcome: args.outcome,
        severity: args.severity,
        subject: args.subject,
        tier: Tier::UserPrivate,
    };
    let fingerprint = text("fingerprint", &args.fingerprint)?;
    let at = now();
    let builder = begin(about, &args.made)?
        .decision(decision)
        .trust(Trust::not_applicable())
        .noise(NoiseControl::single(fingerprint, &at));
    let mut event = builder.build().map_err(|error| unbuildable(&error))?;
    event.created_at = at;
    deliver(globals, io, &event, args.made.store.as_deref())
}

pub(super) fn normalize(
    globals: &Globals,
    io: &mut Io<'_>,
    args: NormalizeArgs,
) -> Result<(), NodeError> {
    let given: ExplanationRegistry;
    let registry: &ExplanationRegistry = match &args.registry {
        None => &REGISTRY,
        Some(path) => match reading::read(io, path)?.typed(Depth::Rules) {
            Ok(registry) => {
                given = registry;
                &given
            }
            Err(verdict) => return Err(verdict.refuse(globals.json, io)),
        },
    };
    // Another registry knows other codes, so the rules that go by ours are left to what follows.
    let depth = if args.registry.is_some() { Depth::Shape } else { Depth::Rules };
    let observation: PolicyObservation = match reading::read(io, &args.file)?.typed(depth) {
        Ok(observation) => observation,
        Err(verdict) => return Err(verdict.refuse(globals.json, io)),
    };
    let span = option("span-id", Text::new(fresh::<6>("span_")?))?;
    let at = args.created_at.unwrap_or_else(now);
    let event = normalized(observation, registry, at, &span).map_err(|error| {
        let hint = "mend the observation; its code says what it must be";
        NodeError::from(crate::api::ApiError::new(
            crate::api::ErrorKind::DoesNotHold,
            "observation_invalid",
            error.to_string(),
            hint,
        ))
    })?;
    deliver(globals, io, &event, args.store.as_deref())
}
