//! The event store: a file of JSON lines that is only ever added to.
//!
//! Each line is one event with a member `_link`, which holds the line's number, the SHA-256 of the
//! line before, and a signature by the device key. So a line that is changed, taken out, moved or
//! added is found. Beside the file lies its head, which pins how long the file is: without it lines
//! cut off at the end would not be missed. `docs/adr/0013-event-store.md` gives the reasons.
//!
//! | file | what |
//! |---|---|
//! | `FILE` | the lines |
//! | `FILE.head` | how many lines there are and the hash of the last, signed |
//! | `FILE.ids` | where each event id stands, so that adding costs the same however long the file is; made anew when it is missing or wrong |
//!
//! Several processes can add at once: each holds the file's lock while it does. A process that is
//! killed leaves at most a line without an end, which nobody was told of; the next one takes it away.
//! A file that another program wrote, without links, is read as it is, and said to be unlinked.

pub mod head;
pub mod ids;
pub mod link;
pub mod scan;
pub mod store;
pub mod verify;

/// Longest line of a store, in bytes: an event of [`EVENT_BYTES_MAX`] and its link.
pub const LINE_BYTES_MAX: usize = EVENT_BYTES_MAX + 1024;

/// Longest event that a store takes, in bytes of its canonical text: events are records of some
/// kilobytes, and what is longer is evidence, which belongs elsewhere.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// Why a store could not be read or added to.
#[derive(Debug, thiserror::Error)]
pub enum EventStoreError {
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what was written to it.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another event has the name already.
    #[error("the store holds another event with the id {event_id}")]
    Conflict {
        /// The name.
        event_id: String,
    },
    /// The event is over the limit.
    #[error("event {event_id} has {bytes} bytes, the limit is {EVENT_BYTES_MAX}")]
    TooLong {
        /// The event's name.
        event_id: String,
        /// Its length, in bytes.
        bytes: usize,
    },
}

impl EventStoreError {
    fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// A file beside another: the same name and something after it.
fn beside(path: &std::path::Path, end: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
