//! Events out of a store that lies in a file, and documents put into a folder.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use srcos_schemas::json::{DEPTH_MAX, Limits, parse};

use super::Io;
use super::reading::DOCUMENT_BYTES_MAX;
use crate::error::NodeError;

/// Most text of events that is kept at once, in bytes: about a hundred thousand events, which take a few
/// times as much memory once they are read.
pub const EVENTS_BYTES_MAX: usize = 256 << 20;

/// The newest events of a store, in order: one a line. A line that is none ends the reading with its
/// number. Where there is more than fits, the oldest are left out, and that is said.
pub(super) fn events(io: &mut Io<'_>, store: &Path) -> Result<Vec<Value>, NodeError> {
    let (events, left_out) = if store.as_os_str() == "-" {
        lines(store, &mut *io.input, EVENTS_BYTES_MAX)?
    } else {
        let file = super::reading::open(store).map_err(|error| NodeError::file(store, &error))?;
        lines(store, file, EVENTS_BYTES_MAX)?
    };
    if left_out > 0 {
        // Where not even standard error can be written, there is nobody to tell.
        let _ = writeln!(io.errors, "warning: the {left_out} oldest events are left out");
    }
    Ok(events)
}

fn lines(
    store: &Path,
    source: impl Read,
    bytes_max: usize,
) -> Result<(Vec<Value>, usize), NodeError> {
    let mut source = BufReader::new(source);
    let mut events = VecDeque::new();
    let (mut kept_bytes, mut left_out) = (0_usize, 0_usize);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = (&mut source).take(DOCUMENT_BYTES_MAX as u64 + 1);
        let length =
            limited.read_until(b'\n', &mut line).map_err(|error| NodeError::file(store, &error))?;
        if length == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let limits = Limits { bytes_max: DOCUMENT_BYTES_MAX, depth_max: DEPTH_MAX };
        let mut event =
            parse(&line, limits).map_err(|error| broken(store, number, &error.to_string()))?;
        // In an event store of this program each line has a link besides, which is no part of the event.
        if let Some(members) = event.as_object_mut() {
            members.remove("_link");
        }
        if !event.get("event_id").is_some_and(Value::is_string) {
            return Err(broken(store, number, "this is no event"));
        }
        kept_bytes += length;
        events.push_back((event, length));
        while kept_bytes > bytes_max
            && let Some((_, length)) = events.pop_front()
        {
            kept_bytes -= length;
            left_out += 1;
        }
    }
    Ok((events.into_iter().map(|(event, _)| event).collect(), left_out))
}

fn broken(store: &Path, number: usize, why: &str) -> NodeError {
    let message = format!("line {number} of {} cannot be used: {why}", store.display());
    NodeError::usage("store_line", message, "check the store with events verify-store")
}

/// Writes a document into a folder as `<name>.json`, whole or not at all, and says where it lies. The
/// folder is made where there is none.
pub(super) fn put(dir: &Path, name: &str, document: &Value) -> Result<PathBuf, NodeError> {
    let failed = |error: std::io::Error| NodeError::file(dir, &error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let path = dir.join(format!("{name}.json"));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    writeln!(file, "{text}").map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, bytes_max: usize) -> Result<(Vec<Value>, usize), NodeError> {
        lines(Path::new("events.jsonl"), text.as_bytes(), bytes_max)
    }

    #[test]
    fn lines_become_events_without_their_links() {
        let text = "{\"event_id\":\"evt_1\",\"_link\":{\"line\":1}}\n\n{\"event_id\":\"evt_2\"}";
        let (events, left_out) = read(text, 1000).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].as_object().unwrap().len(), 1);
        assert_eq!(left_out, 0);
    }

    #[test]
    fn a_line_that_is_no_event_is_named_by_its_number() {
        for broken in ["{", "[1]", "7", "{}", "{\"event_id\":7}", "\u{0}"] {
            let text = format!("{{\"event_id\":\"evt_1\"}}\n{broken}\n");
            let error = read(&text, 1000).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{broken}: {error}");
        }
    }

    #[test]
    fn of_more_than_fits_the_newest_are_kept() {
        let text: String = (0..10).map(|n| format!("{{\"event_id\":\"evt_{n}\"}}\n")).collect();
        let (events, left_out) = read(&text, text.len() / 2).unwrap();
        assert_eq!(left_out, 5);
        assert_eq!(events[0]["event_id"], "evt_5");
    }
}
