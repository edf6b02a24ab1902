//! Import and export of a lane's objects as JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use srcos_lanes::lane::LaneId;
use srcos_schemas::objects::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, BatchResult, CONTENT_BYTES_MAX, ObjectDocument, PAGE_LIMIT_MAX,
};
use tokio::task::JoinHandle;

use super::Session;
use super::args::{ExportArgs, ExportFormat, ImportArgs};
use super::membership::warn_if_out;
use crate::api::{ApiError, Detail, ErrorKind, ListQuery};
use crate::client::Client;
use crate::error::NodeError;
use crate::http::read_line;
use crate::render;

/// Most wrong lines that are listed one by one; the rest is counted.
const LISTED_MAX: u64 = 20;

/// What an import did.
#[derive(Serialize)]
struct ImportSummary {
    lane: &'static str,
    lines: u64,
    changed: u64,
    unchanged: u64,
    skipped: u64,
}

pub(super) async fn import(
    session: &mut Session<'_, '_>,
    args: ImportArgs,
) -> Result<(), NodeError> {
    let mut file = open(session, &args.file)?;
    let size = file.metadata().map_err(|error| NodeError::file(&args.file, &error))?.len();
    let progress = session.shows_progress();
    let bar = |what| progress.then(|| render::byte_bar(size, what));

    let checking = bar("checking");
    let skipped = check_lines(session, &file, &args, checking.as_ref())?;
    if let Some(bar) = checking {
        bar.finish_and_clear();
    }
    file.rewind().map_err(|error| NodeError::file(&args.file, &error))?;

    let writing = bar("writing");
    let done = write_lines(session, &file, &args, writing.as_ref()).await;
    if let Some(bar) = writing {
        bar.finish_and_clear();
    }
    let BatchResult { ops, changed } = done?;
    let (lines, changed) = (ops as u64, changed as u64);
    let unchanged = lines.saturating_sub(changed);
    let summary = ImportSummary { lane: args.lane.name(), lines, changed, unchanged, skipped };
    session.show(&summary, |summary, _| {
        let ImportSummary { lane, lines, changed, unchanged, skipped } = summary;
        let words =
            |number: u64, one| render::count(usize::try_from(number).unwrap_or(usize::MAX), one);
        format!(
            "{lane}: {} imported, {changed} changed, {unchanged} already so, {} skipped",
            words(*lines, "object"),
            words(*skipped, "line")
        )
    })?;
    warn_if_out(session).await;
    Ok(())
}

/// The input as a file that can be read twice.
fn open(session: &mut Session<'_, '_>, path: &Path) -> Result<File, NodeError> {
    let fault = |error: io::Error| NodeError::file(path, &error);
    if path != Path::new("-") {
        let file = File::open(path).map_err(fault)?;
        if file.metadata().map_err(fault)?.is_file() {
            return Ok(file);
        }
        return spool(&mut { file }).map_err(fault);
    }
    spool(session.io.input).map_err(fault)
}

/// Copies what can be read only once into a file of its own, which has no name.
fn spool(input: &mut (impl io::Read + ?Sized)) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(input, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// The first pass: every line is read as the node will read it, and nothing is written.
fn check_lines(
    session: &mut Session<'_, '_>,
    file: &File,
    args: &ImportArgs,
    bar: Option<&indicatif::ProgressBar>,
) -> Result<u64, NodeError> {
    let mut lines = Lines::new(file);
    let mut wrong = 0;
    let mut first = None;
    while let Some(line) = lines.next().map_err(|error| NodeError::file(&args.file, &error))? {
        if let Some(bar) = bar.filter(|_| line.number % 1024 == 0) {
            bar.set_position(line.end);
        }
        let Err(error) = line.check() else { continue };
        wrong += 1;
        if args.skip_invalid {
            session.warn(&format!("line {} is skipped: {}", line.number, error.message));
        } else if first.is_none() {
            first = Some((line.number, error));
        } else if wrong <= LISTED_MAX {
            session.warn(&format!("line {}: {}", line.number, error.message));
        }
    }
    let Some((number, error)) = first else {
        return Ok(wrong);
    };
    let others = match wrong {
        1 => String::new(),
        2 => " (1 more line is wrong)".to_owned(),
        wrong => format!(" ({} more lines are wrong)", wrong - 1),
    };
    let message = format!("line {number}: {}{others}; nothing was imported", error.message);
    let hint = "mend the lines, or pass over them with --skip-invalid".to_owned();
    let path = format!("{}:{number}", args.file.display());
    Err(ApiError { message, hint, path: Some(path), ..error }.into())
}

/// The second pass: batches go out one after the other, the next being put together while one is
/// on its way.
async fn write_lines(
    session: &mut Session<'_, '_>,
    file: &File,
    args: &ImportArgs,
    bar: Option<&indicatif::ProgressBar>,
) -> Result<BatchResult, NodeError> {
    let mut lines = Lines::new(file);
    let mut total = BatchResult::default();
    let mut in_flight: Option<InFlight> = None;
    let mut batch = Batch::default();
    let mut applied_to = 0;
    loop {
        let next = lines.next().map_err(|error| NodeError::file(&args.file, &error))?;
        let ended = next.is_none();
        let full =
            next.as_ref().is_some_and(|line| !batch.has_room(line.bytes.map_or(0, <[u8]>::len)));
        if (ended && !batch.numbers.is_empty()) || full {
            if let Some(sent) = in_flight.take() {
                applied_to = sent.finish(&mut total, applied_to, args).await?;
                if let Some(bar) = bar {
                    bar.set_position(next.as_ref().map_or(0, |line| line.end));
                }
            }
            in_flight = Some(std::mem::take(&mut batch).send(&session.client, args.lane));
        }
        let Some(line) = next else { break };
        if args.skip_invalid && line.check().is_err() {
            continue;
        }
        batch.push(&line);
    }
    if let Some(sent) = in_flight {
        sent.finish(&mut total, applied_to, args).await?;
    }
    Ok(total)
}

#[derive(Default)]
struct Batch {
    bytes: BytesMut,
    numbers: Vec<u64>,
}

impl Batch {
    fn has_room(&self, line_bytes: usize) -> bool {
        self.numbers.len() < BATCH_OPS_MAX && self.bytes.len() + line_bytes < BATCH_BYTES_MAX
    }

    fn push(&mut self, line: &Line<'_>) {
        if let Ok(bytes) = line.bytes {
            self.bytes.extend_from_slice(bytes);
            self.bytes.extend_from_slice(b"\n");
            self.numbers.push(line.number);
        }
    }

    fn send(self, client: &Client, lane: LaneId) -> InFlight {
        let (client, bytes) = (client.clone(), Bytes::from(self.bytes));
        let answer = tokio::spawn(async move { client.batch_lines(lane, bytes).await });
        InFlight { answer, numbers: self.numbers }
    }
}

struct InFlight {
    answer: JoinHandle<Result<BatchResult, ApiError>>,
    numbers: Vec<u64>,
}

impl InFlight {
    /// Waits for the answer; returns the last line that is applied now.
    async fn finish(
        self,
        total: &mut BatchResult,
        applied_to: u64,
        args: &ImportArgs,
    ) -> Result<u64, NodeError> {
        let answer = self.answer.await;
        let answer = answer.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())));
        let done = answer.map_err(|error| {
            let place = error.path.as_deref().and_then(|path| path.strip_prefix("ops/"));
            let number = place.and_then(|place| self.numbers.get(place.parse::<usize>().ok()?));
            let (from, at) = (self.numbers.first().copied().unwrap_or(0), number.copied());
            let message = match at {
                Some(at) => format!("line {at}: {}", error.message),
                None => format!("the batch that starts at line {from}: {}", error.message),
            };
            // Whether a node that does not answer took it is not known.
            let perhaps = ["daemon_lost", "daemon_silent"].contains(&&*error.code);
            let message = match applied_to {
                0 if perhaps => format!("{message}; perhaps it was imported all the same"),
                line if perhaps => {
                    format!(
                        "{message}; the lines up to {line} were imported, and perhaps this batch"
                    )
                }
                0 => format!("{message}; nothing was imported"),
                line => format!("{message}; the lines up to {line} were imported"),
            };
            let path = format!("{}:{}", args.file.display(), at.unwrap_or(from));
            ApiError { message, path: Some(path), ..error }
        })?;
        total.ops += done.ops;
        total.changed += done.changed;
        Ok(self.numbers.last().copied().unwrap_or(applied_to))
    }
}

/// The lines of a file, none of which is held beyond the limit.
struct Lines<'a> {
    reader: BufReader<&'a File>,
    line: Vec<u8>,
    number: u64,
    end: u64,
}

struct Line<'a> {
    number: u64,
    /// Where the line ends in the file.
    end: u64,
    /// The line, or its length where that is over the limit.
    bytes: Result<&'a [u8], usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a File) -> Self {
        let reader = BufReader::with_capacity(256 << 10, file);
        Self { reader, line: Vec::new(), number: 0, end: 0 }
    }

    /// The next line that is not blank.
    fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            let limit = CONTENT_BYTES_MAX as u64 + 2;
            let read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.end += read as u64;
            let whole = self.line.last() == Some(&b'\n') || (read as u64) < limit;
            let over = if whole { 0 } else { skip_line(&mut self.reader)? };
            self.end += over as u64;
            if !whole {
                let bytes = Err(read + over);
                return Ok(Some(Line { number: self.number, end: self.end, bytes }));
            }
            if !self.line.trim_ascii().is_empty() {
                let bytes = Ok(self.line.trim_ascii());
                return Ok(Some(Line { number: self.number, end: self.end, bytes }));
            }
        }
    }
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<usize> {
    let mut skipped = 0;
    loop {
        let available = reader.fill_buf()?;
        let newline = available.iter().position(|byte| *byte == b'\n');
        let used = newline.map_or(available.len(), |place| place + 1);
        reader.consume(used);
        skipped += used;
        if used == 0 || newline.is_some() {
            return Ok(skipped);
        }
    }
}

impl Line<'_> {
    fn check(&self) -> Result<(), ApiError> {
        match self.bytes {
            Ok(bytes) => read_line(bytes).map(|_| ()),
            Err(size) => Err(ApiError::new(
                ErrorKind::TooLarge,
                "line_too_large",
                format!("a line of {size} bytes is over the limit of {CONTENT_BYTES_MAX} bytes"),
                "keep large data in a file, and its hash in the object",
            )),
        }
    }
}

pub(super) async fn export(
    session: &mut Session<'_, '_>,
    args: ExportArgs,
) -> Result<(), NodeError> {
    let mut query = ListQuery {
        prefix: None,
        kind: None,
        labels: Default::default(),
        limit: PAGE_LIMIT_MAX,
        after: None,
    };
    loop {
        let page = session.client.list(args.lane, &query).await?;
        // A page at a time: standard output would otherwise be written line by line.
        let mut text = Vec::new();
        for listed in &page.objects {
            match args.format {
                ExportFormat::Jsonl => push_line(&mut text, listed)?,
                ExportFormat::Automerge => {
                    let Some(object) = with_document(session, &args, &listed.id).await? else {
                        continue;
                    };
                    push_line(&mut text, &object)?;
                    // Histories have no bound of their own, so not a page of them at a time.
                    write(session, &std::mem::take(&mut text))?;
                }
            }
        }
        write(session, &text)?;
        let Some(next) = page.next else { return Ok(()) };
        query.after = Some(next);
    }
}

/// The object with its Automerge document; nothing when it has gone since it was listed.
async fn with_document(
    session: &Session<'_, '_>,
    args: &ExportArgs,
    id: &str,
) -> Result<Option<ObjectDocument>, ApiError> {
    let detail = Detail { automerge: true, ..Detail::default() };
    match session.client.get_object(args.lane, id, detail).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn push_line(text: &mut Vec<u8>, object: &ObjectDocument) -> Result<(), ApiError> {
    serde_json::to_writer(&mut *text, object)
        .map_err(|error| ApiError::internal(format!("an object is not JSON: {error}")))?;
    text.push(b'\n');
    Ok(())
}

fn write(session: &mut Session<'_, '_>, text: &[u8]) -> Result<(), NodeError> {
    session.io.output.write_all(text).map_err(|error| NodeError::output(&error))
}
