//! Compiled schemas, and their errors in words.

use std::sync::OnceLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::Value;

use super::finding::{FINDINGS_MAX, Finding, finding};
use super::{Contract, Profile};
use crate::date_time::DateTime;

/// Most values of an enumeration, or names of members, that a message lists.
const LISTED_MAX: usize = 16;

/// The schema of a contract, ready to judge.
#[derive(Debug)]
pub struct Compiled {
    published: Validator,
    proposal: Option<Validator>,
}

impl Contract {
    /// The schema, compiled at the first call.
    pub(super) fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            // Holds: the schemas are part of the program, and a test compiles each one.
            Compiled::new(self.schema, self.profiled).expect("an embedded schema is a schema")
        })
    }

    /// A contract's compiled schema, before it is compiled: what a `static` starts with.
    pub const fn not_compiled() -> OnceLock<Compiled> {
        OnceLock::new()
    }
}

impl Compiled {
    pub(super) fn new(schema: &str, profiled: bool) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
        jsonschema::draft202012::meta::validate(&schema).map_err(|error| error.to_string())?;
        let proposal = if profiled { Some(compile(&proposal(&schema)?)?) } else { None };
        Ok(Self { published: compile(&schema)?, proposal })
    }

    /// The schema of a profile; a contract without profiles has only the published one.
    pub(super) fn of(&self, profile: Profile) -> &Validator {
        match (profile, &self.proposal) {
            (Profile::Proposal, Some(proposal)) => proposal,
            _ => &self.published,
        }
    }

    pub(super) fn errors(&self, profile: Profile, document: &Value) -> Vec<Finding> {
        let validator = self.of(profile);
        // Most documents are valid, and to know just that is several times as fast.
        if validator.is_valid(document) {
            return Vec::new();
        }
        validator.iter_errors(document).take(FINDINGS_MAX).map(|error| in_words(&error)).collect()
    }
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        // One reading of times in the whole estate, whatever the library holds of leap seconds.
        .with_format("date-time", |text: &str| text.parse::<DateTime>().is_ok())
        .build(schema)
        .map_err(|error| error.to_string())
}

/// The profile `proposal` of a schema: what `$defs/proposal` requires is required instead of what the
/// root does, and its definitions of members stand for those of the root, or beside them.
fn proposal(schema: &Value) -> Result<Value, String> {
    let profile = schema.pointer("/$defs/proposal").ok_or("there is no $defs/proposal")?;
    let (required, members) = (&profile["required"], profile["properties"].as_object());
    let mut proposal = schema.clone();
    proposal["required"] = required.clone();
    let root = proposal["properties"].as_object_mut().ok_or("the schema has no properties")?;
    root.extend(members.into_iter().flatten().map(|(name, member)| (name.clone(), member.clone())));
    Ok(proposal)
}

/// An error of the schema as a finding: what is wrong and how to mend it. What the document holds is
/// quoted only where that is short.
fn in_words(error: &ValidationError<'_>) -> Finding {
    use ValidationErrorKind as Kind;
    let message = match error.kind() {
        Kind::AdditionalProperties { unexpected } => {
            let names = listed(unexpected.iter().map(|name| format!("{name:?}")));
            format!(
                "{names}: no such member here, and none may be added: remove it, or check its \
                    spelling"
            )
        }
        Kind::Required { property } => {
            format!("the member {property} is missing: add it")
        }
        Kind::Type { kind } => {
            let kinds = match kind {
                TypeKind::Single(kind) => kind.to_string(),
                TypeKind::Multiple(kinds) => {
                    kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or ")
                }
            };
            format!("{} is not of the right type: it must be {kinds}", shown(error.instance()))
        }
        Kind::Constant { expected_value } => {
            format!("{} must be {expected_value}", shown(error.instance()))
        }
        Kind::Enum { options } => {
            let options = options.as_array().into_iter().flatten().map(ToString::to_string);
            format!("{} must be one of {}", shown(error.instance()), listed(options))
        }
        Kind::Pattern { pattern } => {
            format!("{} must match the pattern {pattern}", shown(error.instance()))
        }
        Kind::Format { format } if format == "date-time" => format!(
            "{} is no RFC 3339 time: write it like 2026-05-04T10:20:30Z, with a zone",
            shown(error.instance())
        ),
        Kind::Minimum { limit } => {
            format!("{} is too small: at least {limit}", shown(error.instance()))
        }
        Kind::Maximum { limit } => {
            format!("{} is too large: at most {limit}", shown(error.instance()))
        }
        Kind::MinLength { limit } => {
            format!("the text is too short: at least {limit} character(s)")
        }
        Kind::MinItems { limit } => format!("the list is too short: at least {limit} item(s)"),
        Kind::UniqueItems => "the list holds the same item twice: remove one".to_owned(),
        Kind::FalseSchema => "this must not be here: remove it".to_owned(),
        _ => format!("{} breaks the keyword {}", shown(error.instance()), error.kind().keyword()),
    };
    let rule = format!("schema.{}", error.kind().keyword());
    finding(rule.into(), error.instance_path().as_str(), &message)
}

/// A value where it is short, and otherwise what sort of value it is.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() > 80 => {
            format!("a text of {} characters", text.chars().count())
        }
        Value::Array(items) => format!("an array of {} item(s)", items.len()),
        Value::Object(members) => format!("an object of {} member(s)", members.len()),
        short => short.to_string(),
    }
}

fn listed(mut items: impl Iterator<Item = String>) -> String {
    let first: Vec<String> = items.by_ref().take(LISTED_MAX).collect();
    let more = if items.next().is_some() { ", and more" } else { "" };
    format!("{}{more}", first.join(", "))
}
