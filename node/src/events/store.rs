//! Adds events to a store.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use srcos_schemas::json::canonical;

use super::head::Head;
use super::ids::{Ids, store_mark};
use super::link::{Hash, LINE_START, Link, Parts, event_text, parts, sha256};
use super::scan::{BlockKind, Blocks};
use super::{EVENT_BYTES_MAX, EventStoreError, LINE_BYTES_MAX};

/// What became of an event that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is the line of this number now.
    New(u64),
    /// The store held it already, and nothing was added.
    Already,
}

/// A store open for adding; other processes wait until it is dropped.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    ids: Ids,
    key: Option<SigningKey>,
    /// Lines, bytes, and what the next line links to.
    count: u64,
    bytes: u64,
    last: Hash,
    /// Whether a line is linked already.
    linked: bool,
}

/// Opens a file for reading and writing, makes it if there is none, readable by the user only.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

impl Writer {
    /// Opens a store, making it where there is none, once no other process adds to it. What is added
    /// is signed where there is a key. Only the end of the store is read; damage there is an error, and
    /// nothing is added behind it.
    pub fn open(path: &Path, key: Option<SigningKey>) -> Result<Self, EventStoreError> {
        let io = |what| EventStoreError::io(what, path);
        let file = create(path).map_err(io("open"))?;
        file.lock().map_err(io("lock"))?;
        let bytes = file.metadata().map_err(io("examine"))?.len();
        let end = End::find(path, &file, bytes)?;
        if end.bytes < bytes {
            // Nobody was told that this line is there: it has no end, and the head does not reach it.
            file.set_len(end.bytes).map_err(io("cut"))?;
        }
        let ids = open_ids(path, &file, end.bytes).map_err(io("index"))?;
        let End { count, bytes, last, linked } = end;
        Ok(Self { path: path.to_owned(), file, ids, key, count, bytes, last, linked })
    }

    /// Adds events. On return they are durable: all of them, or, where this fails, none.
    ///
    /// An event that is there already is not added again. Another event with the same id is refused.
    pub fn add(&mut self, events: &[Value]) -> Result<Vec<Added>, EventStoreError> {
        let mut added = Vec::new();
        let mut lines: Vec<u8> = Vec::new();
        let mut new: Vec<(String, u64, String)> = Vec::new();
        let (mut count, mut last) = (self.count, self.last);
        for event in events {
            let id = event.get("event_id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let text = canonical(event);
            if text.len() > EVENT_BYTES_MAX {
                return Err(EventStoreError::TooLong { event_id: id, bytes: text.len() });
            }
            let in_batch = new.iter().find(|(known, ..)| *known == id).map(|(.., text)| text);
            let there = match in_batch {
                Some(text) => Some(text.clone()),
                None => self.find(&id)?,
            };
            if let Some(there) = there {
                if there != text {
                    return Err(EventStoreError::Conflict { event_id: id });
                }
                added.push(Added::Already);
                continue;
            }
            count += 1;
            let link = Link::new(count, last, text.as_bytes(), self.key.as_ref());
            let line = link.line(&text);
            new.push((id, self.bytes + lines.len() as u64, text));
            last = sha256(line.as_bytes());
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
            added.push(Added::New(count));
        }
        if !new.is_empty() {
            if !self.linked {
                let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
                Head::begin(&self.path, sha256(first), self.key.as_ref())?;
            }
            self.write(&lines)?;
            self.linked = true;
            if self.bytes == 0 {
                let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
                self.ids
                    .adopt(store_mark(first))
                    .map_err(EventStoreError::io("index", &self.path))?;
            }
            (self.count, self.last) = (count, last);
            self.bytes += lines.len() as u64;
            Head::new(self.count, self.bytes, self.last, self.key.as_ref()).write(&self.path)?;
            self.note(&new).map_err(EventStoreError::io("index", &self.path))?;
        }
        Ok(added)
    }

    /// Writes lines at the end, durably; where that fails the file is as it was.
    fn write(&mut self, lines: &[u8]) -> Result<(), EventStoreError> {
        let written =
            self.file.write_all_at(lines, self.bytes).and_then(|()| self.file.sync_data());
        written.map_err(|source| {
            // Where this fails too, the next writer finds lines that the head does not reach.
            let _ = self.file.set_len(self.bytes);
            EventStoreError::Io { what: "write", path: self.path.clone(), source }
        })
    }

    fn note(&mut self, new: &[(String, u64, String)]) -> io::Result<()> {
        for (id, offset, _) in new {
            self.ids.insert(id, *offset)?;
        }
        self.ids.cover(self.bytes, self.count)
    }

    /// The canonical text of the event with an id, if the store holds one.
    fn find(&mut self, id: &str) -> Result<Option<String>, EventStoreError> {
        let io = |what| EventStoreError::io(what, &self.path);
        for offset in self.ids.find(id).map_err(io("index"))? {
            let line = line_at(&self.file, offset, self.bytes).map_err(io("read"))?;
            let event: Option<Value> =
                serde_json::from_slice(&event_text(&line, &parts(&line))).ok();
            match event {
                Some(event) if event.get("event_id").and_then(Value::as_str) == Some(id) => {
                    return Ok(Some(canonical(&event)));
                }
                // Another id with the same hash, or a line that was changed: verification tells.
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The line that begins at an offset, without its end.
fn line_at(file: &File, offset: u64, file_bytes: u64) -> io::Result<Vec<u8>> {
    const FIRST_BYTES: usize = 8192;
    let left = usize::try_from(file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut wanted = FIRST_BYTES;
    loop {
        let mut line = vec![0; wanted.min(left)];
        file.read_exact_at(&mut line, offset)?;
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() == left || wanted > LINE_BYTES_MAX {
            return Ok(line);
        }
        wanted *= 8;
    }
}

/// Where the store ends, as far as it was told to anybody or is whole.
struct End {
    count: u64,
    bytes: u64,
    last: Hash,
    /// Whether a line is linked.
    linked: bool,
}

impl End {
    fn find(path: &Path, file: &File, bytes: u64) -> Result<Self, EventStoreError> {
        let damaged = |why: String| EventStoreError::Damaged { path: path.to_owned(), why };
        let head = Head::read(path)?;
        let from = match head {
            None => Self { count: 0, bytes: 0, last: sha256(b""), linked: false },
            Some(Head { count: 0, bytes: 0, .. }) => {
                Self { count: 0, bytes: 0, last: sha256(b""), linked: false }
            }
            Some(head) if head.count > head.bytes => {
                return Err(damaged("its head contradicts itself".to_owned()));
            }
            Some(head) if head.bytes > bytes => {
                let lost = head.bytes - bytes;
                return Err(damaged(format!("{lost} bytes are missing at its end")));
            }
            Some(head) => {
                Self::check_head(file, &head).map_err(EventStoreError::io("read", path))?.map_err(
                    |line| damaged(format!("its last line {line} is not the one that was written")),
                )?;
                Self { count: head.count, bytes: head.bytes, last: head.last, linked: true }
            }
        };
        if from.bytes == bytes {
            return Ok(from);
        }
        from.follow(path, file, head)
    }

    /// Whether the line at which a head ends is the head's.
    fn check_head(file: &File, head: &Head) -> io::Result<Result<(), u64>> {
        if head.bytes == 0 {
            return Ok(Ok(()));
        }
        let mut tail = Vec::new();
        // The usual line is short: a few kilobytes of the end hold it whole.
        for length in [8192, LINE_BYTES_MAX as u64 + 1] {
            let start = head.bytes.saturating_sub(length);
            tail = vec![0; usize::try_from(head.bytes - start).unwrap_or(0)];
            file.read_exact_at(&mut tail, start)?;
            let body = &tail[..tail.len().saturating_sub(1)];
            let begin = body.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            if let Some(begin) = begin.or((start == 0).then_some(0)) {
                tail.drain(..begin);
                break;
            }
        }
        let line = tail.strip_suffix(b"\n").unwrap_or_default();
        Ok(if sha256(line) == head.last { Ok(()) } else { Err(head.count) })
    }

    /// Goes on over what was written after the head: whole lines that link to each other, and at most
    /// one without an end.
    fn follow(self, path: &Path, file: &File, head: Option<Head>) -> Result<Self, EventStoreError> {
        let io = |what| EventStoreError::io(what, path);
        let damaged = |why: String| EventStoreError::Damaged { path: path.to_owned(), why };
        let mut source = file;
        source.seek(SeekFrom::Start(self.bytes)).map_err(io("read"))?;
        let mut blocks = Blocks::new(source, self.bytes, self.count + 1);
        let mut end = self;
        // Lines of another program may stand before the first that is linked.
        let mut plain = (!end.linked).then(Sha256::new);
        const NO_HEAD: &str =
            "its head is missing, so lines cut off at its end would not be missed: put it back";
        while let Some(block) = blocks.next_block().map_err(io("read"))? {
            match block.kind {
                BlockKind::Unended if !is_begun(block.bytes) => {
                    let n = end.count + 1;
                    return Err(damaged(format!(
                        "line {n} has no end, and this program did not begin it"
                    )));
                }
                BlockKind::Unended if head.is_none() => return Err(damaged(NO_HEAD.to_owned())),
                BlockKind::Unended => break,
                BlockKind::TooLong => {
                    return Err(damaged(format!("line {} is too long", block.first_line)));
                }
                BlockKind::Lines => {}
            }
            for line in block.lines() {
                let n = end.count + 1;
                match (parts(line), &mut plain) {
                    (Parts::Linked(link, _), _) if link.n == n && link.prev == end.last => {
                        let Some(head) = head else { return Err(damaged(NO_HEAD.to_owned())) };
                        end.last = sha256(line);
                        if plain.take().is_some() && head.last != end.last {
                            let why = format!("line {n} is not the first that its head names");
                            return Err(damaged(why));
                        }
                        end.linked = true;
                    }
                    (Parts::Plain, Some(before)) => {
                        before.update(line);
                        before.update(b"\n");
                        end.last = before.clone().finalize().into();
                    }
                    _ => return Err(damaged(format!("line {n} does not link to the one before"))),
                }
                end.count = n;
                end.bytes += line.len() as u64 + 1;
            }
        }
        Ok(end)
    }
}

/// Whether bytes are the beginning of a line of ours.
fn is_begun(bytes: &[u8]) -> bool {
    let length = bytes.len().min(LINE_START.len());
    bytes[..length] == LINE_START[..length]
}

/// The table of ids, brought up to the end of the store.
fn open_ids(path: &Path, file: &File, bytes: u64) -> io::Result<Ids> {
    let mark = store_mark(&line_at(file, 0, bytes)?);
    let mut ids = match Ids::open(path, mark, bytes)? {
        Some(ids) => ids,
        None => Ids::create(path, mark)?,
    };
    let (from, lines) = ids.covered();
    let mut source = file;
    source.seek(SeekFrom::Start(from))?;
    let mut blocks = Blocks::new(source.take(bytes - from), from, lines + 1);
    let mut end = (from, lines);
    while let Some(block) = blocks.next_block()? {
        let mut offset = block.offset;
        for line in block.lines() {
            if let Some(id) = event_id(line) {
                ids.insert(&id, offset)?;
            }
            offset += line.len() as u64 + 1;
            end = (offset, end.1 + 1);
        }
    }
    ids.cover(end.0, end.1)?;
    Ok(ids)
}

/// The id of a line's event, if it has one.
fn event_id(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        event_id: String,
    }
    // The link is one more member that is passed over.
    serde_json::from_slice::<Named>(line).ok().map(|named| named.event_id)
}

/// Opens a store for reading, once nobody adds to it; nothing where there is none. Nothing is made or
/// changed.
pub fn open_quiet(path: &Path) -> Result<Option<File>, EventStoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(EventStoreError::io("open", path))?,
    };
    match file.lock_shared() {
        // Without locks what is read may be the middle of a write, and a second look tells.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        locked => locked.map_err(EventStoreError::io("lock", path))?,
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests;
