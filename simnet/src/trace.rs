//! The record of a run: one line for each thing that happened, and one hash over all of them.

use std::collections::VecDeque;
use std::fmt::{Display, Write as _};

/// Lines that are kept for a report of a failure: enough to see what led to it.
pub const LINES_KEPT: usize = 60;
/// Bytes of lines that are hashed at once: a hash of many bytes costs a fraction of many of few.
const HASHED_BYTES: usize = 64 * 1024;

/// Takes lines as they come.
pub type Sink = Box<dyn FnMut(&str)>;

/// The record of a run.
pub struct Trace {
    hasher: blake3::Hasher,
    /// What is still to be hashed.
    unhashed: String,
    last: VecDeque<String>,
    lines: u64,
    sink: Option<Sink>,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl Trace {
    /// A record that also hands each line to a sink, if there is one.
    pub fn new(sink: Option<Sink>) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            unhashed: String::with_capacity(HASHED_BYTES),
            last: VecDeque::new(),
            lines: 0,
            sink,
        }
    }

    /// Adds a line: when, what, and more about it.
    pub fn line(&mut self, at_ms: u64, what: &str, detail: impl Display) {
        // The room of the line that is forgotten is used again: there are a hundred thousand of them.
        let full = self.last.len() >= LINES_KEPT;
        let mut line = full.then(|| self.last.pop_front()).flatten().unwrap_or_default();
        line.clear();
        let (seconds, ms) = (at_ms / 1_000, at_ms % 1_000);
        // Writing to a text has no way to fail.
        let _ = write!(line, "{seconds:>8}.{ms:03} {what:<12} {detail}");
        self.unhashed.push_str(&line);
        self.unhashed.push('\n');
        if self.unhashed.len() >= HASHED_BYTES {
            self.hasher.update(self.unhashed.as_bytes());
            self.unhashed.clear();
        }
        if let Some(sink) = &mut self.sink {
            sink(&line);
        }
        self.last.push_back(line);
        self.lines += 1;
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines.
    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    /// The hash of all lines: equal for two runs exactly when they were the same run.
    pub fn hash(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(self.unhashed.as_bytes());
        hasher.finalize().to_hex().to_string()
    }
}
