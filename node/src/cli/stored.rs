//! Events out of a store that lies in a file, and documents put into a folder.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use srcos_schemas::json::{DEPTH_MAX, Limits, parse};

use super::Io;
use super::reading::DOCUMENT_BYTES_MAX;
use crate::error::NodeError;

/// Most events of a store that are read at once: what fits in memory beside everything else.
const EVENTS_MAX: usize = 1_000_000;

/// The events of a store, in order: one JSON document a line, an event or a record that holds one in
/// its member `event`. A line that is neither ends the reading with its number.
pub(super) fn events(io: &mut Io<'_>, store: &Path) -> Result<Vec<Value>, NodeError> {
    if store.as_os_str() == "-" {
        return lines(store, &mut *io.input);
    }
    let file = std::fs::File::open(store).map_err(|error| NodeError::file(store, &error))?;
    lines(store, file)
}

fn lines(store: &Path, source: impl Read) -> Result<Vec<Value>, NodeError> {
    let mut source = BufReader::new(source);
    let mut events = Vec::new();
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
        if events.len() >= EVENTS_MAX {
            return Err(broken(store, number, &format!("there are over {EVENTS_MAX} events")));
        }
        let limits = Limits { bytes_max: DOCUMENT_BYTES_MAX, depth_max: DEPTH_MAX };
        let document =
            parse(&line, limits).map_err(|error| broken(store, number, &error.to_string()))?;
        let mut event = document;
        if event.get("event_id").is_none()
            && let Some(inner) = event.get_mut("event")
        {
            event = inner.take();
        }
        // In an event store of this program each line has a link besides, which is no part of the event.
        if let Some(members) = event.as_object_mut() {
            members.remove("_link");
        }
        if !event.get("event_id").is_some_and(Value::is_string) {
            return Err(broken(store, number, "this is no event"));
        }
        events.push(event);
    }
    Ok(events)
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
