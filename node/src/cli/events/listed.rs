//! The events of a store, one a line.

use std::borrow::Cow;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use srcos_schemas::contracts::read_typed;
use srcos_schemas::event::model::Event;
use srcos_schemas::event::privacy::Renderer;
use srcos_schemas::event::vocabulary::Severity;

use super::args::ListArgs;
use super::kept::each_block;
use super::{renderer, store_path};
use crate::api::{ApiError, ErrorKind};
use crate::cli::Io;
use crate::cli::args::Globals;
use crate::cli::reading::holds;
use crate::error::NodeError;
use crate::events::link::{event_text, parts};
use crate::render::plain;

/// Most threads that read a listing: it is to be quick, and not to take a machine from its user.
const THREADS_MAX: usize = 4;

/// Lines that a thread takes at once.
const SHARE_LINES: usize = 64;

/// What `list` reads of an event; the rest is passed over.
#[derive(Deserialize)]
struct Summary<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
    #[serde(borrow)]
    event_class: Cow<'a, str>,
    #[serde(borrow)]
    severity: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow)]
    operator_narrative: SummaryNarrative<'a>,
}

#[derive(Deserialize)]
struct SummaryNarrative<'a> {
    #[serde(borrow)]
    summary: Cow<'a, str>,
}

impl<'a> Summary<'a> {
    /// Of any object: a store of another program may hold events that are not of the contract.
    fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        // The link is one more member that is passed over.
        serde_json::from_slice(line).or_else(|_| {
            let event: Map<String, Value> = serde_json::from_slice(line)?;
            let told = |value: Option<&Value>, otherwise: &'static str| match value {
                None => Cow::Borrowed(otherwise),
                Some(Value::String(text)) => text.clone().into(),
                Some(value) => value.to_string().into(),
            };
            let member = |name: &str| told(event.get(name), "<missing>");
            let narrative = event.get("operator_narrative");
            let summary = told(narrative.and_then(|told| told.get("summary")), "");
            Ok(Self {
                event_id: member("event_id"),
                created_at: member("created_at"),
                event_class: member("event_class"),
                severity: member("severity"),
                outcome: member("outcome"),
                operator_narrative: SummaryNarrative { summary },
            })
        })
    }

    /// As a reader of a clearance may see it.
    fn shown(line: &[u8], renderer: &Renderer) -> Result<Self, serde_json::Error> {
        let text = event_text(line, &parts(line));
        let event: Event = serde_json::from_slice(&text)
            .or_else(|_| read_typed(&serde_json::from_slice(&text)?))?;
        let summary = renderer.summary(&event).into();
        Ok(Self {
            event_id: String::from(event.event_id).into(),
            created_at: String::from(event.created_at).into(),
            event_class: event.event_class.as_str().into(),
            severity: event.severity.as_str().into(),
            outcome: event.outcome.as_str().into(),
            operator_narrative: SummaryNarrative { summary },
        })
    }
}

#[derive(Serialize)]
struct ListedEvent<'a> {
    event_id: &'a str,
    created_at: &'a str,
    event_class: &'a str,
    severity: &'a str,
    outcome: &'a str,
    summary: &'a str,
}

/// What is wanted, and how it is shown.
struct Listing<'a> {
    path: &'a Path,
    args: &'a ListArgs,
    json: bool,
    renderer: Option<Renderer>,
}

impl Listing<'_> {
    /// One line of the listing, where the event is wanted.
    fn row(&self, number: u64, line: &[u8]) -> Result<Option<String>, NodeError> {
        let read = match &self.renderer {
            None => Summary::read(line),
            Some(renderer) => Summary::shown(line, renderer),
        };
        let event = read.map_err(|error| unreadable(self.path, number, &error))?;
        let args = self.args;
        let severity = Severity::from_word(&event.severity);
        let wanted = args.class.is_none_or(|class| class.as_str() == event.event_class)
            && args.severity.is_none_or(|least| severity.is_some_and(|found| found >= least))
            && args.outcome.is_none_or(|outcome| outcome.as_str() == event.outcome);
        if !wanted {
            return Ok(None);
        }
        let summary = &event.operator_narrative.summary;
        if self.json {
            let document = ListedEvent {
                event_id: &event.event_id,
                created_at: &event.created_at,
                event_class: &event.event_class,
                severity: &event.severity,
                outcome: &event.outcome,
                summary,
            };
            return Ok(Some(serde_json::to_string(&document).unwrap_or_default()));
        }
        let (id, class) = (plain(&event.event_id), plain(&event.event_class));
        let (at, summary) = (plain(&event.created_at), plain(summary));
        let (severity, outcome) = (plain(&event.severity), plain(&event.outcome));
        Ok(Some(format!("{id}\t{at}\t{class}\t{severity}\t{outcome}\t{summary}\n")))
    }

    /// The rows of lines, in order, up to the first that is no event.
    fn rows(&self, lines: &[(u64, &[u8])]) -> Vec<Result<String, NodeError>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let threads = threads.min(lines.len().div_ceil(SHARE_LINES));
        let next = AtomicUsize::new(0);
        let take = || {
            let mut taken = Vec::new();
            loop {
                let first = next.fetch_add(SHARE_LINES, Ordering::Relaxed);
                let Some(rest) = lines.get(first..).filter(|rest| !rest.is_empty()) else { break };
                let share = rest.iter().take(SHARE_LINES);
                let rows = share.filter_map(|(number, line)| self.row(*number, line).transpose());
                taken.push((first, rows.collect::<Vec<_>>()));
            }
            taken
        };
        let mut shares = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
            let mut all = take();
            for other in others {
                // Holds: reading a line never panics, whatever it holds.
                all.extend(other.join().expect("a line is read"));
            }
            all
        });
        shares.sort_unstable_by_key(|(first, _)| *first);
        shares.into_iter().flat_map(|(_, rows)| rows).collect()
    }
}

pub(super) fn list(globals: &Globals, io: &mut Io<'_>, args: &ListArgs) -> Result<(), NodeError> {
    let path = store_path(globals, args.store.store.as_deref())?;
    let renderer = args.tier.map(renderer).transpose()?;
    let listing = Listing { path: &path, args, json: globals.json, renderer };
    let mut listed = 0_u64;
    let mut any = false;
    let mut output = std::io::BufWriter::with_capacity(1 << 16, &mut *io.output);
    let failed = |error: std::io::Error| NodeError::output(&error);
    let put = |output: &mut dyn std::io::Write, text: &str| {
        output.write_all(text.as_bytes()).map_err(failed)
    };
    if globals.json {
        put(&mut output, "[")?;
    }
    let gone_over = each_block(&path, |lines| {
        any |= !lines.is_empty();
        for row in listing.rows(lines) {
            let row = row?;
            if args.limit.is_some_and(|most| listed >= most) {
                return Ok(false);
            }
            if globals.json && listed > 0 {
                put(&mut output, ",")?;
            }
            put(&mut output, &row)?;
            listed += 1;
        }
        Ok(args.limit.is_none_or(|most| listed < most))
    });
    // What was listed before a bad line is a whole document too.
    if globals.json {
        put(&mut output, "]\n")?;
    }
    std::io::Write::flush(&mut output).map_err(failed)?;
    gone_over?;
    holds(any || !args.fail_empty)
}

fn unreadable(path: &Path, line: u64, error: &serde_json::Error) -> NodeError {
    // The text that was read is one line, so the line that the error names is always the first.
    let said = error.to_string();
    let why = said.split(" at line ").next().unwrap_or_default();
    let message = format!("line {line} of {} is no event: {why}", path.display());
    let hint = "see what is wrong with: srcos-node events verify-store";
    ApiError::new(ErrorKind::DoesNotHold, "event_store_line", message, hint).into()
}
