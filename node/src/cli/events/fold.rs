//! A stream of events, folded.

use std::io::Write as _;

use serde_json::Value;
use srcos_schemas::contracts::read_typed;
use srcos_schemas::event::coalesce::{Coalescer, Report, Settings};
use srcos_schemas::event::model::Event;
use srcos_schemas::event::storm::{Outlook, storm};

use super::args::CoalesceArgs;
use super::kept::{Source, Step, each_event};
use crate::cli::Io;
use crate::cli::args::Globals;
use crate::data_dir::Clock;
use crate::error::NodeError;
use crate::render::plain;

pub(super) fn coalesce(
    globals: &Globals,
    io: &mut Io<'_>,
    args: &CoalesceArgs,
) -> Result<(), NodeError> {
    let mut coalescer = Coalescer::new(Settings {
        window_ms: args.window_ms,
        samples: usize::try_from(args.samples).unwrap_or(0),
        budget: args.budget,
    });
    let mut out = Vec::new();
    let mut skipped = 0_u64;
    let Io { input, output, errors } = io;
    let mut source = Source::open(&args.file, &mut **input)?;
    each_event(&mut source, |step| {
        let (line, event) = match step {
            Step::Pause => return Ok(()),
            Step::Event(line, event) => (line, event),
        };
        let event: Result<Event, String> =
            event.and_then(|event| match read_typed::<Event>(&event) {
                Ok(event) => match event.missing_block() {
                    Some(block) => Err(format!("its class needs a {block} block")),
                    None => Ok(event),
                },
                Err(error) => Err(error.to_string()),
            });
        match event {
            Ok(event) => coalescer.push(event, &mut out),
            Err(why) if args.skip_invalid => {
                skipped += 1;
                let _ = writeln!(errors, "warning: line {line} is no event: {}", plain(&why));
            }
            Err(why) => {
                let message = format!("line {line} of {} is no event: {why}", args.file.display());
                let hint = "mend it, or pass over it with --skip-invalid";
                return Err(NodeError::usage("event_invalid", message, hint));
            }
        }
        tell(args, &mut **output, &mut out)
    })?;
    coalescer.finish(&mut out);
    tell(args, &mut **output, &mut out)?;
    let report = coalescer.report();
    // What was folded is on standard output; how much is beside it.
    let _ = match globals.json {
        true => {
            writeln!(errors, "{}", serde_json::json!({ "coalesced": report, "skipped": skipped }))
        }
        false if globals.quiet => Ok(()),
        false => writeln!(errors, "{}", words(&report, skipped)),
    };
    Ok(())
}

fn tell(
    args: &CoalesceArgs,
    output: &mut dyn std::io::Write,
    out: &mut Vec<Event>,
) -> Result<(), NodeError> {
    for event in out.drain(..) {
        let document: Value = if args.storms {
            let now_ms = i64::try_from(Clock::start().now().wall.0).unwrap_or(i64::MAX);
            let incident = args.incident.as_deref();
            let outlook = Outlook { now_ms, incident, count_min: args.storm_min, mended: false };
            match storm(&event, outlook) {
                Some(record) => serde_json::to_value(&record).unwrap_or_default(),
                None => continue,
            }
        } else {
            serde_json::to_value(&event).unwrap_or_default()
        };
        writeln!(output, "{document}").map_err(|error| NodeError::output(&error))?;
    }
    Ok(())
}

fn words(report: &Report, skipped: u64) -> String {
    let mut words = format!(
        "{} events in, {} out ({:.1} to 1), {} occurrences",
        report.events_in, report.events_out, report.reduction_ratio, report.occurrences_in
    );
    if report.redelivered > 0 {
        words.push_str(&format!("; {} came twice", report.redelivered));
    }
    if report.told_early > 0 {
        words.push_str(&format!("; {} told early, for want of room", report.told_early));
    }
    if report.over_budget > 0 {
        words.push_str(&format!("; {} over their source's budget", report.over_budget));
    }
    if skipped > 0 {
        words.push_str(&format!("; {skipped} lines were no event"));
    }
    words
}
