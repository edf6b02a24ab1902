//! What is kept beside a data directory: by it a store that was put back is told from the newest one.
//!
//! One line of two numbers. The first counts how often the store was opened; the store has the same
//! count inside, so a store from before the last open shows. The second is how far its feed reached
//! when that was last told to anybody; so a store from after the last open shows too, unless nothing
//! was written since.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How the name of a file ends that takes the place of the one before.
const NEW: &str = "opens.new";

/// The two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outside {
    /// How often the store was opened.
    pub(super) opens: u64,
    /// The number of its next feed row, when that was last noted.
    pub(super) feed_next: u64,
}

impl Outside {
    /// The numbers in a file; `None` when it is lost or cannot be read.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(path).ok()?.take(64).read_to_string(&mut text).ok()?;
        let mut numbers = text.split_whitespace();
        let opens = numbers.next()?.parse().ok()?;
        // Earlier versions kept the first number only.
        let feed_next = numbers.next().map_or(Some(0), |number| number.parse().ok())?;
        Some(Self { opens, feed_next })
    }

    /// Always as long, so that a newer line covers an older one.
    fn line(self) -> String {
        format!("{:020} {:020}\n", self.opens, self.feed_next)
    }

    /// Whether numbers can be put beside a file. Another process may be about to put some into it, so
    /// what is tried is a file of this process alone.
    pub(super) fn probe(path: &Path) -> std::io::Result<()> {
        let own = path.with_extension(format!("opens.{}", std::process::id()));
        begin(&own)?;
        // Two threads that try at once take away the same file.
        let _ = fs::remove_file(own);
        Ok(())
    }

    /// The file that takes the place of the one at a path.
    pub(super) fn new_file(path: &Path) -> PathBuf {
        path.with_extension(NEW)
    }

    /// Puts the numbers into a file, durably.
    pub(super) fn replace(self, path: &Path) -> std::io::Result<()> {
        let new = Self::new_file(path);
        let mut file = begin(&new)?;
        // One that was left behind keeps the mode that it had.
        super::private::close(&new, super::private::FILE_MODE)?;
        file.write_all(self.line().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    }
}

fn begin(new: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(super::private::FILE_MODE);
    options.open(new)
}

/// Notes how far the feed reaches while a store is open.
#[derive(Debug)]
pub struct Mark {
    file: File,
    noted: Outside,
}

impl Mark {
    pub(super) fn open(path: &Path, noted: Outside) -> std::io::Result<Self> {
        Ok(Self { file: OpenOptions::new().write(true).open(path)?, noted })
    }

    /// The feed reaches to here, durably, and nobody has been told yet.
    ///
    /// It is not synced: what ends only this process loses nothing of it, and what ends the machine
    /// may leave a lower number, which never makes a sound store look old.
    pub fn note(&mut self, feed_next: u64) {
        if feed_next <= self.noted.feed_next {
            return;
        }
        self.noted.feed_next = feed_next;
        let line = self.noted.line();
        let at_start = self.file.seek(SeekFrom::Start(0));
        if let Err(error) = at_start.and_then(|_| self.file.write_all(line.as_bytes())) {
            tracing::debug!(%error, "how far the store reaches cannot be noted beside it");
        }
    }
}
