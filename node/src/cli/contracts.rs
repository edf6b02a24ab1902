//! `contracts`: the published contracts, and any document held to its own.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::Value;
use srcos_schemas::contracts::{self, ALL, Contract, Finding, Options, Origin, Profile};
use srcos_schemas::json::{DEPTH_MAX, JsonError, Limits, parse_to_judge};

use super::Io;
use super::args::Globals;
use super::reading::{
    DOCUMENT_BYTES_MAX, Unread, complain, files, no_document, open, say, too_wide,
};
use crate::error::NodeError;
use crate::render::plain;

/// `contracts`.
#[derive(Subcommand, Debug)]
pub enum ContractsCommand {
    /// List the contracts, each with what it is for
    List,
    /// Show one contract: its JSON Schema, or its rules
    Show {
        /// Its name, the name of its file, its URN, or what its documents say that they follow
        name: String,
        /// Show the rules beyond the schema instead
        #[arg(long)]
        rules: bool,
    },
    /// Hold documents to their contract: schema and rules; exit 1 if one is invalid
    Validate(ValidateArgs),
}

/// `contracts validate`.
#[derive(Args, Debug, Clone)]
pub struct ValidateArgs {
    /// Documents, files of JSON lines (.jsonl, .ndjson), or folders of .json files; - for standard
    /// input, which may hold one document or JSON lines
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The contract to hold them to; auto takes the one that each document says it follows
    #[arg(long, value_name = "NAME|auto", default_value = "auto")]
    pub schema: String,
    /// Which form must hold, of the contracts that were published in two
    #[arg(long, default_value = "any")]
    pub profile: ProfileChoice,
    /// Count warnings as errors
    #[arg(long)]
    pub strict: bool,
}

/// Which form of a contract must hold.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileChoice {
    /// The estate's published schemas.
    Published,
    /// The proposal of the family.
    Proposal,
    /// The one or the other.
    Any,
}

/// What is said of one document.
#[derive(Serialize)]
struct Judged<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    schema: Option<&'static str>,
    valid: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profiles: Option<Vec<Profile>>,
}

/// What is said of one contract.
#[derive(Serialize)]
struct Listed {
    name: &'static str,
    title: Value,
    description: Value,
    urn: &'static str,
    file: &'static str,
    discriminator: Value,
    profiles: &'static [Profile],
    rules: Vec<ListedRule>,
}

#[derive(Serialize)]
struct ListedRule {
    name: &'static str,
    says: &'static str,
    /// What breaking it is: an error, or a warning that `--strict` makes one.
    severity: &'static str,
}

pub(super) fn run(
    globals: &Globals,
    io: &mut Io<'_>,
    command: ContractsCommand,
) -> Result<(), NodeError> {
    match command {
        ContractsCommand::List => list(globals, io),
        ContractsCommand::Show { name, rules } => show(globals, io, &name, rules),
        ContractsCommand::Validate(args) => validate(globals, io, &args),
    }
}

fn list(globals: &Globals, io: &mut Io<'_>) -> Result<(), NodeError> {
    let listed: Vec<Listed> = ALL.iter().map(|contract| listed(contract)).collect();
    if globals.json {
        return super::json_line(io, &listed);
    }
    let width = listed.iter().map(|contract| contract.name.len()).max().unwrap_or_default();
    for Listed { name, description, .. } in &listed {
        let description = description.as_str().unwrap_or_default();
        say(io, &format!("{name:width$}  {description}"))?;
    }
    Ok(())
}

fn listed(contract: &'static Contract) -> Listed {
    let schema = contract.document();
    let (member, text) = contract.discriminator.member();
    let rule = |rule: &contracts::Rule| {
        let severity = if rule.origin == Origin::Estate { "error" } else { "warning" };
        ListedRule { name: rule.name, says: rule.says, severity }
    };
    Listed {
        name: contract.name,
        title: schema["title"].clone(),
        description: schema["description"].clone(),
        urn: contract.urn,
        file: contract.file,
        discriminator: serde_json::json!({ member: text }),
        profiles: if contract.profiled { &Profile::ALL } else { &[] },
        rules: contract.rules.iter().map(rule).collect(),
    }
}

fn show(globals: &Globals, io: &mut Io<'_>, name: &str, rules: bool) -> Result<(), NodeError> {
    let contract = find(name)?;
    if rules {
        let rules = listed(contract).rules;
        if globals.json {
            return super::json_line(io, &rules);
        }
        for ListedRule { name, says, severity } in rules {
            say(io, &format!("{severity:7}  {name}: {says}"))?;
        }
        return Ok(());
    }
    if globals.json {
        return super::json_line(io, &contract.document());
    }
    say(io, contract.schema)
}

fn find(name: &str) -> Result<&'static Contract, NodeError> {
    contracts::find(name).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|contract| contract.name).collect();
        let message = format!("there is no contract {name:?}; there are {}", names.join(", "));
        NodeError::usage("unknown_contract", message, "see: srcos-node contracts list")
    })
}

fn validate(globals: &Globals, io: &mut Io<'_>, args: &ValidateArgs) -> Result<(), NodeError> {
    let contract = match args.schema.as_str() {
        "auto" => None,
        name => Some(find(name)?),
    };
    let profile = match args.profile {
        ProfileChoice::Published => Some(Profile::Published),
        ProfileChoice::Proposal => Some(Profile::Proposal),
        ProfileChoice::Any => None,
    };
    let options = Options { contract, profile, strict: args.strict };
    let mut judge = Judge { json: globals.json, options, valid: 0, invalid: 0 };
    let mut unread = Unread::default();
    for path in files(&args.files)? {
        let judged = judge.file(io, &path);
        unread.pass(io, globals.json, judged)?;
    }
    let Judge { valid, invalid, .. } = judge;
    if !globals.json && valid + invalid != 1 {
        say(io, &format!("{valid} valid, {invalid} invalid"))?;
    }
    unread.end(invalid == 0)
}

/// Holds documents to their contract as they are read.
struct Judge {
    json: bool,
    options: Options,
    valid: u64,
    invalid: u64,
}

impl Judge {
    fn file(&mut self, io: &mut Io<'_>, path: &Path) -> Result<(), NodeError> {
        let name = path.display().to_string();
        let read = if path.as_os_str() == "-" {
            let Io { input, output, errors } = io;
            let nothing = &mut std::io::empty();
            let mut io = Io { input: nothing, output: &mut **output, errors: &mut **errors };
            self.stream(&mut io, &name, &mut BufReader::new(&mut **input))
        } else {
            let of_lines = path.extension().is_some_and(|end| end == "jsonl" || end == "ndjson");
            open(path).map_err(Stopped::Reading).and_then(|file| {
                let source = &mut BufReader::new(file);
                if of_lines {
                    self.lines(io, &name, source, 0)
                } else {
                    self.whole(io, &name, source, Vec::new())
                }
            })
        };
        read.map_err(|stopped| match stopped {
            Stopped::Reading(error) => NodeError::file(path, &error),
            Stopped::Writing(error) => error,
        })
    }

    /// One document, or JSON lines. These are lines: a first line that is a document by itself, and more
    /// after it; and a first line that is broken, before one that is a document by itself, where the
    /// whole is none.
    fn stream(
        &mut self,
        io: &mut Io<'_>,
        name: &str,
        source: &mut dyn BufRead,
    ) -> Result<(), Stopped> {
        let (mut first, mut blank) = (Vec::new(), 0);
        while read_line(source, &mut first)? && first.iter().all(u8::is_ascii_whitespace) {
            blank += 1;
        }
        let parsed = parse_to_judge(&first, LIMITS);
        if parsed.as_ref().is_ok_and(|(document, _)| document.is_object()) && has_more(source)? {
            self.one(io, name, Some(blank + 1), &first)?;
            return self.lines(io, name, source, blank + 1);
        }
        let whole = parsed.is_ok();
        // Empty lines in front count in what is said of places.
        let mut bytes = vec![b'\n'; usize::try_from(blank).unwrap_or(0).min(BYTES_READ_MAX)];
        let before = bytes.len();
        bytes.extend(first);
        let most = BYTES_READ_MAX.saturating_sub(bytes.len()) as u64;
        (&mut *source).take(most).read_to_end(&mut bytes)?;
        let document = |line: &[u8]| {
            parse_to_judge(line, LIMITS).is_ok_and(|(document, _)| document.is_object())
        };
        let mut rest = bytes[before..].split(|byte| *byte == b'\n').skip(1);
        let second = rest.find(|line| !line.iter().all(u8::is_ascii_whitespace));
        if whole || !second.is_some_and(document) || parse_to_judge(&bytes, LIMITS).is_ok() {
            return self.one(io, name, None, &bytes);
        }
        self.lines(io, name, &mut (&bytes[before..]).chain(source), blank)
    }

    /// One document, of which the beginning was read already.
    fn whole(
        &mut self,
        io: &mut Io<'_>,
        name: &str,
        source: &mut dyn BufRead,
        mut bytes: Vec<u8>,
    ) -> Result<(), Stopped> {
        let most = (BYTES_READ_MAX - bytes.len().min(BYTES_READ_MAX)) as u64;
        source.take(most).read_to_end(&mut bytes)?;
        self.one(io, name, None, &bytes)
    }

    /// Documents line by line, after so many lines that were read already.
    fn lines(
        &mut self,
        io: &mut Io<'_>,
        name: &str,
        source: &mut dyn BufRead,
        mut line: u64,
    ) -> Result<(), Stopped> {
        let mut bytes = Vec::new();
        while read_line(source, &mut bytes)? {
            line += 1;
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                self.one(io, name, Some(line), &bytes)?;
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        io: &mut Io<'_>,
        file: &str,
        line: Option<u64>,
        bytes: &[u8],
    ) -> Result<(), Stopped> {
        let judged = match parse_to_judge(bytes, LIMITS) {
            Ok((document, wide)) => {
                let mut verdict = contracts::validate_judged(&document, &wide, &self.options);
                let graver = self.options.strict;
                let findings = if graver { &mut verdict.errors } else { &mut verdict.warnings };
                let wide = wide.listed().iter().cloned();
                findings.extend(wide.map(|error| too_wide(on_line(error, line))));
                let profiled = verdict.contract.filter(|contract| contract.profiled);
                Judged {
                    file,
                    line,
                    schema: verdict.contract.map(|contract| contract.name),
                    valid: verdict.is_valid(),
                    profiles: profiled.map(|_| verdict.profiles),
                    errors: verdict.errors,
                    warnings: verdict.warnings,
                }
            }
            Err(error) => {
                let finding = no_document(&on_line(error, line));
                let schema = self.options.contract.map(|contract| contract.name);
                let (errors, warnings) = (vec![finding], Vec::new());
                Judged { file, line, schema, valid: false, errors, warnings, profiles: None }
            }
        };
        *if judged.valid { &mut self.valid } else { &mut self.invalid } += 1;
        self.tell(io, &judged).map_err(Stopped::Writing)
    }

    fn tell(&self, io: &mut Io<'_>, judged: &Judged<'_>) -> Result<(), NodeError> {
        if self.json {
            return super::json_line(io, judged);
        }
        let place = match judged.line {
            Some(line) => format!("{}:{line}", judged.file),
            None => judged.file.to_owned(),
        };
        for error in &judged.errors {
            complain(io, &place, "", error);
        }
        for warning in &judged.warnings {
            complain(io, &place, "warning: ", warning);
        }
        let schema = judged.schema.unwrap_or("no known contract");
        let word = if judged.valid { "valid" } else { "invalid" };
        say(io, &format!("{}: {word}, {schema}", plain(&place)))
    }
}

/// How a document is read.
const LIMITS: Limits = Limits { bytes_max: DOCUMENT_BYTES_MAX, depth_max: DEPTH_MAX };

/// One byte more than a document may have, so that one that is too large is told from one that fits.
const BYTES_READ_MAX: usize = DOCUMENT_BYTES_MAX + 1;

/// Why reading and judging one file ended early.
enum Stopped {
    Reading(std::io::Error),
    Writing(NodeError),
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::Reading(error)
    }
}

/// Reads a line, or as much of it as tells that it is too long; what is beyond that is passed over.
/// Whether there was one.
fn read_line(source: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool, std::io::Error> {
    line.clear();
    source.take(BYTES_READ_MAX as u64).read_until(b'\n', line)?;
    if line.len() == BYTES_READ_MAX && !line.ends_with(b"\n") {
        loop {
            let buffer = source.fill_buf()?;
            let (end, length) = (buffer.iter().position(|byte| *byte == b'\n'), buffer.len());
            source.consume(end.map_or(length, |end| end + 1));
            if end.is_some() || length == 0 {
                break;
            }
        }
    }
    Ok(!line.is_empty())
}

/// Whether there is anything but spaces to come; passes over the spaces.
fn has_more(source: &mut dyn BufRead) -> Result<bool, std::io::Error> {
    loop {
        let buffer = source.fill_buf()?;
        let (length, spaces) =
            (buffer.len(), buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count());
        if length == 0 || spaces < length {
            return Ok(length > 0);
        }
        source.consume(spaces);
    }
}

/// An error of a text that is a line of a file.
fn on_line(mut error: JsonError, line: Option<u64>) -> JsonError {
    if let Some(line) = line {
        error.line = usize::try_from(line).unwrap_or(usize::MAX);
    }
    error
}

#[cfg(test)]
mod tests;
