//! Events in a store: added, listed, shown and checked.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use srcos_schemas::contracts::{Options, validate};
use srcos_schemas::event::rules::EVENT;
use srcos_schemas::json::{DEPTH_MAX, JsonError, JsonErrorKind, Limits, parse};

use super::args::{ShowArgs, VerifyArgs, VerifyStoreArgs, WriteArgs};
use super::{device, device_key, shown_to, store_error, store_path};
use crate::api::{ApiError, ErrorKind};
use crate::cli::Io;
use crate::cli::args::Globals;
use crate::cli::reading::{DOCUMENT_BYTES_MAX, complain, holds, open, print_json, say};
use crate::error::NodeError;
use crate::events::link::{Parts, event_text, parts, sha256};
use crate::events::scan::{Block, BlockKind, Blocks};
use crate::events::store::{Added, Writer, open_quiet};
use crate::events::verify::{Expected, StoreReport, verify};
use crate::keys::DeviceKey;
use crate::render::plain;

/// Most events that are made durable together: some hundred kilobytes.
const BATCH_EVENTS_MAX: usize = 256;

/// Where events are read from: one document, or one a line.
pub(super) struct Source<'a>(BufReader<Box<dyn Read + 'a>>, String);

/// What reading comes upon.
pub(super) enum Step {
    /// An event, or why a line is none, with the line's number.
    Event(u64, Result<Value, String>),
    /// Nothing more is there at the moment.
    Pause,
}

impl<'a> Source<'a> {
    pub(super) fn open(path: &Path, input: &'a mut dyn Read) -> Result<Self, NodeError> {
        let source: Box<dyn Read + 'a> = if path.as_os_str() == "-" {
            Box::new(input)
        } else {
            Box::new(open(path).map_err(|error| NodeError::file(path, &error))?)
        };
        Ok(Self(BufReader::with_capacity(1 << 16, source), path.display().to_string()))
    }
}

/// How events are read.
const LIMITS: Limits = Limits { bytes_max: DOCUMENT_BYTES_MAX, depth_max: DEPTH_MAX };

/// Reads events one a line, or one over many lines, and hands each on. A line of a store is taken
/// without its link.
pub(super) fn each_event(
    source: &mut Source<'_>,
    mut step: impl FnMut(Step) -> Result<(), NodeError>,
) -> Result<(), NodeError> {
    let Source(reader, name) = source;
    let mut line = Vec::new();
    let mut first = true;
    for number in 1.. {
        line.clear();
        let mut limited = (&mut *reader).take(DOCUMENT_BYTES_MAX as u64 + 1);
        let failed = |error| NodeError::file(Path::new(name.as_str()), &error);
        if limited.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return step(Step::Pause);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let mut read = parse(&line, LIMITS);
        let cut = |read: &Result<_, JsonError>| {
            read.as_ref().is_err_and(|error| error.kind == JsonErrorKind::UnexpectedEnd)
        };
        if std::mem::take(&mut first) && cut(&read) {
            // No line by itself: the whole may be one document.
            let length = line.len();
            let most = (DOCUMENT_BYTES_MAX + 1).saturating_sub(length) as u64;
            (&mut *reader).take(most).read_to_end(&mut line).map_err(failed)?;
            let whole = parse(&line, LIMITS);
            if whole.is_ok() || !is_of_lines(&line[length..]) {
                read = whole;
            } else {
                // The first of many lines is broken, and the others are what they are.
                let nothing = BufReader::new(Box::new(std::io::empty()) as Box<dyn Read>);
                let rest = std::io::Cursor::new(line.split_off(length));
                let source = rest.chain(std::mem::replace(reader, nothing));
                *reader = BufReader::with_capacity(1 << 16, Box::new(source));
            }
        }
        let event = read.map_err(|error| error.to_string()).map(|mut event| {
            if let Some(members) = event.as_object_mut() {
                members.remove("_link");
            }
            event
        });
        step(Step::Event(number, event))?;
        if !reader.buffer().contains(&b'\n') {
            step(Step::Pause)?;
        }
    }
    Ok(())
}

/// Whether a text begins with a line that is a document by itself.
fn is_of_lines(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.find(|line| !line.iter().all(u8::is_ascii_whitespace));
    first.is_some_and(|line| parse(line, LIMITS).is_ok_and(|value| value.is_object()))
}

/// What is said of an event that was to be added.
#[derive(Serialize)]
struct AddedDocument<'a> {
    event_id: &'a str,
    /// Whether it was added; false where the store held it already.
    added: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    store: &'a str,
    /// Whether the store's head is signed.
    signed: bool,
}

pub(super) fn write(globals: &Globals, io: &mut Io<'_>, args: &WriteArgs) -> Result<(), NodeError> {
    let path = store_path(globals, args.store.store.as_deref())?;
    let key = key_or_warning(globals, io)?;
    let Io { input, output, errors } = io;
    for file in &args.files {
        let mut source = Source::open(file, &mut **input)?;
        let mut batch: Vec<Value> = Vec::new();
        let mut nothing = std::io::empty();
        let mut io = Io { input: &mut nothing, output: &mut **output, errors: &mut **errors };
        each_event(&mut source, |step| {
            match step {
                Step::Event(line, Ok(event)) => {
                    check(&mut io, &file.display().to_string(), line, &event)?;
                    batch.push(event);
                    if batch.len() < BATCH_EVENTS_MAX {
                        return Ok(());
                    }
                }
                Step::Event(line, Err(why)) => {
                    // What was read before is kept, and told.
                    add(globals, &mut io, &path, key.as_ref(), &std::mem::take(&mut batch))?;
                    let message = format!("line {line} of {}: {why}", file.display());
                    return Err(invalid(message, "mend it there"));
                }
                Step::Pause => {}
            }
            add(globals, &mut io, &path, key.as_ref(), &std::mem::take(&mut batch))
        })?;
    }
    Ok(())
}

/// Adds one event that was made here.
pub(super) fn add_one(
    globals: &Globals,
    io: &mut Io<'_>,
    store: &Path,
    event: Value,
) -> Result<(), NodeError> {
    let key = key_or_warning(globals, io)?;
    add(globals, io, store, key.as_ref(), &[event])
}

fn key_or_warning(globals: &Globals, io: &mut Io<'_>) -> Result<Option<DeviceKey>, NodeError> {
    let key = device_key(globals)?;
    if key.is_none() && !globals.quiet && !globals.json {
        let said = "no device key is at hand, so the store's head is unsigned";
        let _ = writeln!(io.errors, "warning: {said}; name a data directory with --data-dir");
    }
    Ok(key)
}

/// Refuses an event that is not valid.
fn check(io: &mut Io<'_>, file: &str, line: u64, event: &Value) -> Result<(), NodeError> {
    let verdict = validate(event, &Options { contract: Some(&EVENT), ..Options::default() });
    let Some(first) = verdict.errors.first() else { return Ok(()) };
    for error in verdict.errors.iter().skip(1) {
        complain(io, file, "", error);
    }
    let place = if first.path.is_empty() { "the event" } else { first.path.as_str() };
    let message = format!("line {line} of {file}: {place}: {} [{}]", first.message, first.rule);
    Err(invalid(message, "see all of it with: srcos-node events validate"))
}

fn invalid(message: String, hint: &str) -> NodeError {
    ApiError::new(ErrorKind::DoesNotHold, "event_invalid", message, hint).into()
}

fn add(
    globals: &Globals,
    io: &mut Io<'_>,
    path: &Path,
    key: Option<&DeviceKey>,
    events: &[Value],
) -> Result<(), NodeError> {
    if events.is_empty() {
        return Ok(());
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| NodeError::file(folder, &error))?;
    }
    // Opened for each batch, so that others who add wait for no longer than one takes.
    let signing = key.map(|key| key.signing().clone());
    let added = Writer::open(path, signing)
        .and_then(|mut writer| writer.add(events))
        .map_err(|error| store_error(&error))?;
    let store = path.display().to_string();
    let mut lines = String::new();
    for (event, added) in events.iter().zip(added) {
        let id = event.get("event_id").and_then(Value::as_str).unwrap_or_default();
        let line = match added {
            Added::New(line) => Some(line),
            Added::Already => None,
        };
        if globals.json {
            let (added, signed) = (line.is_some(), key.is_some());
            let document = AddedDocument { event_id: id, added, line, store: &store, signed };
            lines.push_str(&serde_json::to_string(&document).unwrap_or_default());
            lines.push('\n');
        } else {
            match line {
                Some(line) => lines.push_str(&format!("{id}: line {line} of {}\n", plain(&store))),
                None => lines.push_str(&format!("{id}: already there; nothing added\n")),
            }
        }
    }
    io.output
        .write_all(lines.as_bytes())
        .and_then(|()| io.output.flush())
        .map_err(|error| NodeError::output(&error))
}

/// Goes over the lines of a store: each line without its end, and its number.
fn each_line(
    path: &Path,
    mut look: impl FnMut(u64, &[u8]) -> Result<bool, NodeError>,
) -> Result<(), NodeError> {
    each_block(path, |lines| {
        for (number, line) in lines {
            if !look(*number, line)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// The same, many lines at once.
pub(super) fn each_block(
    path: &Path,
    mut look: impl FnMut(&[(u64, &[u8])]) -> Result<bool, NodeError>,
) -> Result<(), NodeError> {
    let file = match open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|error| NodeError::file(path, &error))?,
    };
    let mut blocks = Blocks::new(file, 0, 1);
    while let Some(block) = blocks.next_block().map_err(|error| NodeError::file(path, &error))? {
        let Block { first_line, kind, .. } = block;
        let lines = block.lines().enumerate().filter(|(_, line)| {
            // A line of ours without an end is being written, or never was.
            let begun = kind == BlockKind::Unended && line.starts_with(b"{\"_link\":");
            !begun && !line.iter().all(u8::is_ascii_whitespace)
        });
        let lines: Vec<(u64, &[u8])> =
            lines.map(|(index, line)| (first_line + index as u64, line)).collect();
        if !look(&lines)? {
            return Ok(());
        }
    }
    Ok(())
}

/// The event of a store with an id, and its line.
fn find(path: &Path, id: &str) -> Result<Option<(u64, Value)>, NodeError> {
    let mut found = None;
    let text = memchr::memmem::Finder::new(id.as_bytes());
    each_line(path, |number, line| {
        // Ids are never written with escapes, so a line without the text is not looked at closer.
        if text.find(line).is_none() {
            return Ok(true);
        }
        // A line that cannot be read is passed over here; verification names it.
        let event: Option<Value> = serde_json::from_slice(&event_text(line, &parts(line))).ok();
        let same = |event: &Value| event.get("event_id").and_then(Value::as_str) == Some(id);
        if let Some(event) = event.filter(same) {
            found = Some((number, event));
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

fn absent(path: &Path, id: &str) -> NodeError {
    let message = format!("{} holds no event {id}", path.display());
    let hint = "see which there are with: srcos-node events list";
    ApiError::new(ErrorKind::NotFound, "event_absent", message, hint).at(id).into()
}

/// The event of a store with an id.
pub(super) fn stored(
    globals: &Globals,
    store: Option<&Path>,
    id: &str,
) -> Result<Value, NodeError> {
    let path = store_path(globals, store)?;
    find(&path, id)?.map(|(_, event)| event).ok_or_else(|| absent(&path, id))
}

pub(super) fn show(globals: &Globals, io: &mut Io<'_>, args: &ShowArgs) -> Result<(), NodeError> {
    let event = stored(globals, args.store.store.as_deref(), &args.event_id)?;
    let event = match args.tier {
        Some(tier) => shown_to(tier, event)?,
        None => event,
    };
    print_json(io, globals.json, &event)
}

/// Whose store it is to be: as the options say, or else this device's where it has a key. A store in
/// the data directory must be signed by it; another may also be unsigned, and then that is said.
fn expected(
    globals: &Globals,
    option: Option<&str>,
    elsewhere: bool,
) -> Result<Expected, NodeError> {
    match (option, device_key(globals)?) {
        (Some("any"), _) => Ok(Expected::Anybody),
        (Some(text), _) => Ok(Expected::SignedBy(device(text)?)),
        (None, Some(key)) if elsewhere => Ok(Expected::Device(key.device())),
        (None, Some(key)) => Ok(Expected::SignedBy(key.device())),
        (None, None) => Ok(Expected::Anybody),
    }
}

fn checked(
    globals: &Globals,
    store: Option<&Path>,
    device: Option<&str>,
) -> Result<(std::path::PathBuf, StoreReport), NodeError> {
    let path = store_path(globals, store)?;
    let expected = expected(globals, device, store.is_some())?;
    let file = open_quiet(&path).map_err(|error| store_error(&error))?;
    let there = file.is_some();
    let mut report = verify(&path, file, expected).map_err(|error| store_error(&error))?;
    if !there {
        report.notes.push(format!("there is no file {}", path.display()));
    }
    Ok((path, report))
}

pub(super) fn verify_store(
    globals: &Globals,
    io: &mut Io<'_>,
    args: &VerifyStoreArgs,
) -> Result<(), NodeError> {
    let (path, report) = checked(globals, args.store.store.as_deref(), args.device.as_deref())?;
    if globals.json {
        crate::cli::json_line(io, &report)?;
    } else {
        say(io, &words(&path, &report))?;
    }
    holds(report.valid && (report.events > 0 || !args.fail_empty))
}

fn words(path: &Path, report: &StoreReport) -> String {
    let mut words = String::new();
    if report.valid {
        words = format!("verified {} events {}\n", report.events, report.digest);
        let signers: Vec<String> =
            report.signed_by.iter().map(|id| crate::render::short(id)).collect();
        if !signers.is_empty() {
            words.push_str(&format!(
                "{} linked, signed by {}\n",
                report.linked,
                signers.join(", ")
            ));
        }
    }
    let name = plain(&path.display().to_string());
    for finding in &report.findings {
        let message = plain(&finding.message);
        words.push_str(&format!("{name}: line {}: {message} [{}]\n", finding.line, finding.code));
    }
    let more = report.findings_total - report.findings.len() as u64;
    if more > 0 {
        words.push_str(&format!("{name}: and {more} more\n"));
    }
    for note in &report.notes {
        words.push_str(&format!("note: {}\n", plain(note)));
    }
    words
}

/// What checking one event of a store gave.
#[derive(Serialize)]
struct EventReport {
    event_id: String,
    line: u64,
    valid: bool,
    /// Whether the line is signed.
    signed: bool,
    findings: Vec<String>,
}

pub(super) fn verify_one(
    globals: &Globals,
    io: &mut Io<'_>,
    args: &VerifyArgs,
) -> Result<(), NodeError> {
    let store = args.store.store.as_deref();
    let path = store_path(globals, store)?;
    let id = args.event_id.as_str();
    let (line, event) = find(&path, id)?.ok_or_else(|| absent(&path, id))?;
    let wanted = expected(globals, args.device.as_deref(), store.is_some())?;
    let mut findings: Vec<String> = if vouches_for_itself(&path, line, wanted)? {
        Vec::new()
    } else {
        let (_, whole) = checked(globals, store, args.device.as_deref())?;
        let of_line = whole.findings.into_iter().filter(|finding| finding.line == line);
        of_line.map(|finding| finding.message).collect()
    };
    let verdict = validate(&event, &Options { contract: Some(&EVENT), ..Options::default() });
    for error in verdict.errors {
        findings.push(format!("{}: {}", error.path, error.message));
    }
    for (what, member) in [("parent", "parent_event_id"), ("root", "root_event_id")] {
        let cause = event.pointer(&format!("/causality/{member}")).and_then(Value::as_str);
        if let Some(cause) = cause.filter(|cause| !cause.is_empty() && *cause != id)
            && find(&path, cause)?.is_none()
        {
            findings.push(format!("its {what} {cause} is not in the store"));
        }
    }
    let report = EventReport {
        event_id: id.to_owned(),
        line,
        valid: findings.is_empty(),
        signed: is_signed(&path, line)?,
        findings,
    };
    if globals.json {
        crate::cli::json_line(io, &report)?;
    } else if report.valid {
        let signed = if report.signed { "signed" } else { "not signed" };
        say(io, &format!("{id}: line {line} is as it was written; {signed}"))?;
    } else {
        for finding in &report.findings {
            say(io, &format!("{id}: {}", plain(finding)))?;
        }
    }
    holds(report.valid)
}

/// Whether a line stands where its own signature says, signed by who is to have signed it, so that the
/// others need not be asked.
fn vouches_for_itself(path: &Path, wanted: u64, by: Expected) -> Result<bool, NodeError> {
    let mut before = (0, sha256(b""));
    let mut holds = false;
    each_line(path, |number, line| {
        if number + 1 == wanted {
            before = (number, sha256(line));
        }
        let taken = parts(line);
        if number == wanted
            && let Parts::Linked(link, _) = &taken
        {
            let signer = link.signed.map(|(device, _)| device);
            let by = match by {
                Expected::Anybody => true,
                Expected::Device(device) | Expected::SignedBy(device) => signer == Some(device),
            };
            holds = by
                && link.n == wanted
                && (before.0 + 1, before.1) == (link.n, link.prev)
                && link.verifies(&sha256(&event_text(line, &taken))) == Some(true);
        }
        Ok(number < wanted)
    })?;
    Ok(holds)
}

fn is_signed(path: &Path, wanted: u64) -> Result<bool, NodeError> {
    let mut signed = false;
    each_line(path, |number, line| {
        if number == wanted {
            signed = matches!(parts(line), Parts::Linked(link, _) if link.signed.is_some());
        }
        Ok(number < wanted)
    })?;
    Ok(signed)
}
