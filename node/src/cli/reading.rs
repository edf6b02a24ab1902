//! Reading the documents that a command names, and saying what is wrong with them.

use std::fs::File;
use std::io::{self, Read};
#[cfg(unix)]
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use srcos_schemas::contracts::{self, Contract, Finding, Options};
use srcos_schemas::json::{
    DEPTH_MAX, JsonError, JsonErrorKind, Limits, Wide, parse, parse_to_judge,
};

use super::Io;
use crate::error::NodeError;
use crate::render::plain;

/// Largest document that is read, in bytes: sixteen times the largest object, and little enough to hold
/// in memory a few times over.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Most documents of one folder that are read: a folder with more is hardly the one that was meant.
const FOLDER_FILES_MAX: usize = 100_000;

/// A document, and what it was called on the command line.
pub(super) struct Named {
    /// Its path, as it was given; `-` for standard input.
    pub(super) file: String,
    /// The document, or why its bytes are none.
    pub(super) document: Result<Value, Finding>,
    /// Its integers beyond 64 bits.
    pub(super) wide: Wide,
}

/// What is to be said of one document.
#[derive(Debug, Serialize)]
pub(super) struct FileVerdict {
    /// Its path, as it was given.
    pub(super) file: String,
    /// The contract that it was held to.
    pub(super) schema: Option<&'static str>,
    /// Whether no error was found.
    pub(super) valid: bool,
    /// What makes it invalid.
    pub(super) errors: Vec<Finding>,
    /// What is unwise.
    pub(super) warnings: Vec<Finding>,
}

/// How much of a contract a document is held to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The schema alone.
    Shape,
    /// The schema, and the rules that the estate's tools have.
    Rules,
    /// All of it: what would be a warning is an error.
    Strict,
}

/// Reads one document. A file that cannot be read is an error; bytes that are no document are not.
pub(super) fn read(io: &mut Io<'_>, path: &Path) -> Result<Named, NodeError> {
    named(io, path, |bytes| parse(bytes, LIMITS).map(|document| (document, Wide::default())))
}

/// Reads one document that is judged and not used: integers may be wider than 64 bits.
pub(super) fn read_to_judge(io: &mut Io<'_>, path: &Path) -> Result<Named, NodeError> {
    named(io, path, |bytes| parse_to_judge(bytes, LIMITS))
}

/// How documents are read.
const LIMITS: Limits = Limits { bytes_max: DOCUMENT_BYTES_MAX, depth_max: DEPTH_MAX };

/// A document, and its integers beyond 64 bits.
type Parsed = Result<(Value, Wide), JsonError>;

/// Opens a file. A named pipe is refused: with nobody at its other end opening it would wait for ever.
/// Those that a shell makes of `<(command)` lie in `/dev`, and somebody is there.
pub(super) fn open(path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    if std::fs::metadata(path)?.file_type().is_fifo()
        && !["/dev", "/proc"].iter().any(|shell| path.starts_with(shell))
    {
        let message = "it is a named pipe: give what comes out of it on standard input, as -";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    File::open(path)
}

fn named(io: &mut Io<'_>, path: &Path, parse: fn(&[u8]) -> Parsed) -> Result<Named, NodeError> {
    let bytes = if path.as_os_str() == "-" {
        read_at_most(io.input)
    } else {
        open(path).and_then(|mut file| read_at_most(&mut file))
    }
    .map_err(|error| NodeError::file(path, &error))?;
    let file = path.display().to_string();
    Ok(match parse(&bytes) {
        Ok((document, wide)) => Named { file, document: Ok(document), wide },
        Err(error) => Named { file, document: Err(no_document(&error)), wide: Wide::default() },
    })
}

/// What is wrong with bytes that are no document.
pub(super) fn no_document(error: &JsonError) -> Finding {
    let message = match &error.kind {
        // No more than that was read.
        JsonErrorKind::TooLarge { limit, .. } => {
            format!("the document is over the limit of {limit} bytes")
        }
        JsonErrorKind::IntegerTooLarge { .. }
        | JsonErrorKind::FloatTooLarge { .. }
        | JsonErrorKind::LoneSurrogate => {
            format!("readers understand this JSON document differently: {error}: mend it there")
        }
        _ => format!("this is no JSON document: {error}: mend it there"),
    };
    Finding::new("json", "", &message)
}

/// Files that a command goes over and cannot read. It says which, does the rest, and ends with the last.
#[derive(Default)]
pub(super) struct Unread(Option<NodeError>);

impl Unread {
    /// What came of one file, where it could be read.
    pub(super) fn pass<T>(
        &mut self,
        io: &mut Io<'_>,
        json: bool,
        done: Result<T, NodeError>,
    ) -> Result<Option<T>, NodeError> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(NodeError::Api(error)) if error.code == "file_unusable" => {
                if let Some(before) = self.0.replace(NodeError::Api(error)) {
                    let _ = before.report(json, &mut *io.errors);
                }
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// The end of the command: whether all was read, and then whether it holds.
    pub(super) fn end(self, all_hold: bool) -> Result<(), NodeError> {
        self.0.map_or_else(|| holds(all_hold), Err)
    }
}

/// What is unwise about an integer that not every reader can hold.
pub(super) fn too_wide(error: JsonError) -> Finding {
    Finding::new("json.integer-range", "", &format!("not every reader can read this: {error}"))
}

fn read_at_most(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than may be there, so that a document that is too large is told from one that fits.
    source.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files that paths stand for: a folder stands for the `.json` files that lie directly in it.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, NodeError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = files_of_folder(path)?;
            if found.is_empty() {
                let message = format!("there is no .json file in {}", path.display());
                let hint = "name the folder in which the documents lie, or the files";
                return Err(NodeError::usage("no_documents", message, hint));
            }
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// What is called `.json` and lies directly in a folder, in order. What cannot be read as a file, such as
/// a link to nowhere, is among it, so that it is named and not passed over.
pub(super) fn files_of_folder(folder: &Path) -> Result<Vec<PathBuf>, NodeError> {
    let entries = std::fs::read_dir(folder).map_err(|error| NodeError::file(folder, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| NodeError::file(folder, &error))?.path();
        if path.extension().is_some_and(|end| end == "json") && !path.is_dir() {
            files.push(path);
        }
        if files.len() > FOLDER_FILES_MAX {
            let message =
                format!("{} holds more than {FOLDER_FILES_MAX} documents", folder.display());
            return Err(NodeError::usage("too_many_documents", message, "name them in parts"));
        }
    }
    files.sort();
    Ok(files)
}

impl Named {
    /// Holds the document to a contract.
    pub(super) fn judge(&self, contract: &'static Contract, depth: Depth) -> FileVerdict {
        let (mut errors, mut warnings) = match &self.document {
            Err(finding) => (vec![finding.clone()], Vec::new()),
            Ok(document) => {
                let strict = depth == Depth::Strict;
                let options = Options { contract: Some(contract), strict, ..Options::default() };
                let verdict = contracts::validate_judged(document, &self.wide, &options);
                (verdict.errors, verdict.warnings)
            }
        };
        let graver = if depth == Depth::Strict { &mut errors } else { &mut warnings };
        graver.extend(self.wide.listed().iter().cloned().map(too_wide));
        if depth == Depth::Shape {
            errors.retain(is_of_shape);
            warnings.clear();
        }
        let file = self.file.clone();
        let schema = Some(contract.name);
        FileVerdict { file, schema, valid: errors.is_empty(), errors, warnings }
    }

    /// The typed document, where it is valid to that depth; what is wrong otherwise.
    pub(super) fn typed<T: contracts::Document + DeserializeOwned>(
        &self,
        depth: Depth,
    ) -> Result<T, FileVerdict> {
        let mut verdict = self.judge(T::CONTRACT, depth);
        let (true, Ok(document)) = (verdict.valid, &self.document) else { return Err(verdict) };
        contracts::read_typed(document).map_err(|error| {
            let message = format!("the document cannot be read: {error}");
            verdict.valid = false;
            verdict.errors.push(Finding::new("contract.readable", "", &message));
            verdict
        })
    }
}

/// Whether a finding is about bytes, contract or schema, and not about a rule beyond them.
fn is_of_shape(finding: &Finding) -> bool {
    finding.rule == "json"
        || finding.rule.starts_with("schema.")
        || finding.rule.starts_with("contract.")
}

impl FileVerdict {
    /// Says each finding on standard error, on a line of its own: file, place, what is wrong.
    pub(super) fn complain(&self, io: &mut Io<'_>) {
        for error in &self.errors {
            complain(io, &self.file, "", error);
        }
        for warning in &self.warnings {
            complain(io, &self.file, "warning: ", warning);
        }
    }

    /// Ends a command that needs the document and cannot have it.
    pub(super) fn refuse(&self, json: bool, io: &mut Io<'_>) -> NodeError {
        if json {
            return match super::json_line(io, self) {
                Ok(()) => NodeError::DoesNotHold,
                Err(error) => error,
            };
        }
        self.complain(io);
        NodeError::DoesNotHold
    }
}

/// Says a finding on standard error.
pub(super) fn complain(io: &mut Io<'_>, file: &str, level: &str, finding: &Finding) {
    let place = if finding.path.is_empty() {
        "<root>".to_owned()
    } else {
        finding.path.trim_start_matches('/').replace('/', ".")
    };
    let (file, place, message) = (plain(file), plain(&place), plain(&finding.message));
    // Where not even standard error can be written, the exit code still tells.
    let _ = writeln!(io.errors, "{file}: {place}: {level}{message} [{}]", finding.rule);
}

/// What a check ends with.
pub(super) fn holds(holds: bool) -> Result<(), NodeError> {
    if holds { Ok(()) } else { Err(NodeError::DoesNotHold) }
}

/// Prints a document: on one line where `json`, indented otherwise.
pub(super) fn print_json(
    io: &mut Io<'_>,
    json: bool,
    document: &impl Serialize,
) -> Result<(), NodeError> {
    if json {
        return super::json_line(io, document);
    }
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    writeln!(io.output, "{text}").map_err(|error| NodeError::output(&error))
}

/// Prints text.
pub(super) fn say(io: &mut Io<'_>, text: &str) -> Result<(), NodeError> {
    writeln!(io.output, "{}", text.trim_end()).map_err(|error| NodeError::output(&error))
}
