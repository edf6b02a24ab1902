//! The files in which a system shows its processes, read with limits.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest process file that is read, in bytes: a system with a thousand mounts stays below.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why something of a process cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It is not there.
    #[error("there is none")]
    Absent,
    /// It is not for us.
    #[error("permission denied")]
    Denied,
    /// It does not look as such files do.
    #[error("its {0} file cannot be understood")]
    Malformed(&'static str),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl From<&std::io::Error> for Fault {
    fn from(error: &std::io::Error) -> Self {
        // A process that ended while its file was open answers "no such process".
        const NO_SUCH_PROCESS: i32 = 3;
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Absent,
            std::io::ErrorKind::PermissionDenied => Self::Denied,
            _ if error.raw_os_error() == Some(NO_SUCH_PROCESS) => Self::Absent,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// What the file `stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// What the process calls itself, at most 15 characters.
    pub(super) name: String,
    /// Number of its parent.
    pub(super) parent: u32,
    /// Number of its terminal; zero where it has none.
    pub(super) terminal: i64,
    /// When it was started, in clock ticks since the boot.
    pub(super) started: u64,
}

impl Stat {
    /// Reads the line. The name stands in brackets and may itself hold brackets and spaces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (before, after) = text.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        Some(Self {
            name: name.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The files of one process.
pub(super) struct ProcessFiles {
    dir: PathBuf,
    own: PathBuf,
}

impl ProcessFiles {
    pub(super) fn of(processes: &Path, pid: u32) -> Self {
        Self { dir: processes.join(pid.to_string()), own: processes.join("self") }
    }

    /// A file as text; bytes that are none are replaced.
    pub(super) fn text(&self, name: &str) -> Result<String, Fault> {
        read_text(&self.dir.join(name))
    }

    pub(super) fn stat(&self) -> Result<Stat, Fault> {
        Stat::parse(&self.text("stat")?).ok_or(Fault::Malformed("stat"))
    }

    /// The user and group as which it acts.
    pub(super) fn ids(&self) -> Result<(u32, u32), Fault> {
        let status = self.text("status")?;
        let effective = |name: &str| -> Option<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        effective("Uid:").zip(effective("Gid:")).ok_or(Fault::Malformed("status"))
    }

    /// The path of what runs, as it was when it was started.
    pub(super) fn executable(&self) -> Result<PathBuf, Fault> {
        let path = std::fs::read_link(self.dir.join("exe")).map_err(|error| Fault::from(&error))?;
        let text = path.to_string_lossy();
        Ok(text.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or_else(|| path.clone()))
    }

    /// What runs, as a file; it can be read even where the path leads elsewhere by now.
    pub(super) fn open_executable(&self) -> Result<File, Fault> {
        File::open(self.dir.join("exe")).map_err(|error| Fault::from(&error))
    }

    /// Whether its root has the mark that builders of containers leave.
    pub(super) fn is_in_container(&self) -> bool {
        [".dockerenv", "run/.containerenv"]
            .iter()
            .any(|mark| self.dir.join("root").join(mark).exists())
    }

    /// Whether it sees the same files as this command: only then do paths mean the same.
    pub(super) fn shares_files_with_us(&self) -> bool {
        let view = |dir: &Path| std::fs::read_link(dir.join("ns").join("mnt")).ok();
        let root = std::fs::read_link(self.dir.join("root")).ok();
        root.as_deref() == Some(Path::new("/"))
            && view(&self.dir).is_some_and(|mounts| Some(mounts) == view(&self.own))
    }

    /// The kind of file system that a path lies on.
    pub(super) fn file_system_of(&self, path: &Path) -> Option<String> {
        let mounts = self.text("mountinfo").ok()?;
        let mut best: Option<(usize, &str)> = None;
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let point = before.split(' ').nth(4).map(unescaped);
            let (Some(point), Some(kind)) = (point, after.split(' ').next()) else { continue };
            // Of two mounts at one point the later one is what is seen.
            if path.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
                best = Some((point.len(), kind));
            }
        }
        best.map(|(_, kind)| kind.to_owned())
    }
}

/// The first part of the name of this boot.
pub(super) fn boot_id(processes: &Path) -> Option<String> {
    let text = read_text(&processes.join("sys/kernel/random/boot_id")).ok()?;
    let id: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
    (!id.is_empty()).then_some(id)
}

fn read_text(path: &Path) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|error| Fault::from(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A mount point as the file has it: spaces and the like are written in octal.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (written, meant)| text.replace(written, meant))
}
