//! Looking at a folder: which files there are, and what is in one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ignore::{DirEntry, WalkBuilder};
use srcos_schemas::objects::ID_BYTES_MAX;
use srcos_schemas::time::Timestamp;

use super::plan::FileFacts;

/// How much of a file is in memory while it is hashed, in bytes.
const READ_BYTES: usize = 128 << 10;

/// How often a file that changes while it is read is read again.
const READ_TRIES: usize = 3;

/// Which part of a folder to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    All,
    /// These files and folders, by absolute path, and what is below them.
    Touched(BTreeSet<PathBuf>),
}

/// What of a folder is taken, beyond what its ignore rules say.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Hidden files too.
    pub hidden: bool,
    /// What the node itself writes, by canonical paths: to index it would make it grow, for ever.
    pub apart: Vec<PathBuf>,
}

/// A file or folder that was not indexed, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unindexed {
    /// Its name is no text, so it can be no part of an id.
    #[error("{0:?} is not indexed: its name is not UTF-8")]
    NotUtf8(PathBuf),
    /// Its path is too long for an id.
    #[error("{0:?} is not indexed: its path is over the limit of {ID_BYTES_MAX} bytes for an id")]
    TooLong(PathBuf),
    /// It cannot be read.
    #[error("{path:?} is not indexed: {source}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is as empty as the place where a disk is mounted is without it.
    #[error(
        "{0:?} is empty, as it is where a disk is not mounted: no object is deleted; where it is empty \
         on purpose, say --emptied"
    )]
    Empty(PathBuf),
    /// A part of the folder cannot be walked.
    #[error("a part of the folder is not indexed: {0}")]
    Walk(#[from] ignore::Error),
    /// It is written to all the time.
    #[error("{0:?} is not indexed: it changes while it is read")]
    Unsteady(PathBuf),
}

impl Unindexed {
    /// Whether the file is simply gone since it was seen.
    pub fn is_vanished(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Its path below the folder.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The time of its last change.
    pub mtime: Timestamp,
}

/// What was seen of a folder.
#[derive(Debug, Default)]
pub struct Seen {
    /// The files, by the id of their object.
    pub files: BTreeMap<String, SeenFile>,
    /// Ids that were looked at, with all below; the empty id is the whole folder.
    pub looked_at: Vec<String>,
    /// Ids that could not be looked at, nor what is below.
    pub not_looked_at: Vec<String>,
    /// What is not indexed.
    pub faults: Vec<Unindexed>,
}

impl Seen {
    /// Whether a file of this id would have been seen, were it there.
    pub fn was_looked_at(&self, id: &str) -> bool {
        let covers = |prefix: &String| {
            prefix.is_empty()
                || id
                    .strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.looked_at.iter().any(covers) && !self.not_looked_at.iter().any(covers)
    }
}

/// By which a folder is told from another that lies at the same path: device and inode.
pub(super) type Identity = (u64, u64);

/// What may stand in the place of a folder: where its disk is not mounted, an empty folder does.
pub(super) fn stand_in(root: &Path) -> io::Result<(Identity, bool)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(root)?;
    let empty = std::fs::read_dir(root)?.next().is_none();
    Ok(((meta.dev(), meta.ino()), empty))
}

/// Why an object is deleted whose file is not there.
pub(super) const VANISHED: &str = "its file has vanished";

const NO_FILE: &str = "it is no longer a file";

/// Why the object of a path below a folder is deleted, which a walk did not come upon.
pub(super) fn why_gone(root: &Path, below: &str) -> &'static str {
    match std::fs::symlink_metadata(root.join(below)) {
        Ok(meta) if meta.is_file() => "its file is ignored or hidden now",
        Ok(_) => NO_FILE,
        Err(_) => VANISHED,
    }
}

/// Looks at a folder or a part of it. Ignore rules of git are honoured, links are not followed,
/// hidden files are passed over unless wanted, and the inside of `.git` always is.
pub fn walk(root: &Path, prefix: &str, rules: &Rules, scope: &Scope) -> Seen {
    let mut seen = Seen::default();
    // A folder that is not there for the moment has not lost its files. Of one whose disk is not
    // mounted an empty one stays behind: see `stand_in`.
    if let Err(source) = std::fs::read_dir(root) {
        seen.faults.push(Unindexed::Unreadable { path: root.to_owned(), source });
        return seen;
    }
    match scope {
        Scope::All => seen.looked_at.push(String::new()),
        Scope::Touched(paths) => {
            for path in paths {
                let below = path.strip_prefix(root).ok();
                if let Some(id) = below.and_then(|below| id_of(prefix, below)) {
                    // The folder itself stands for all of it.
                    let all = below.is_some_and(|below| below.as_os_str().is_empty());
                    seen.looked_at.push(if all { String::new() } else { id });
                }
            }
        }
    }
    let (wanted, apart) = (scope.clone(), rules.apart.clone());
    let walker = WalkBuilder::new(root)
        .hidden(!rules.hidden)
        .follow_links(false)
        .require_git(false)
        .filter_entry(move |entry| {
            let own = apart.iter().any(|apart| apart == entry.path());
            entry.file_name() != ".git" && !own && is_wanted(entry, &wanted)
        })
        .build();
    for entry in walker {
        match entry {
            Ok(entry) => see(&mut seen, root, prefix, &entry),
            Err(error) => {
                let below = path_of(&error).and_then(|path| path.strip_prefix(root).ok());
                match below.and_then(|below| id_of(prefix, below)) {
                    Some(id) if below.is_some_and(|below| !below.as_os_str().is_empty()) => {
                        seen.not_looked_at.push(id);
                    }
                    // Where is not known, so nothing may count as gone.
                    _ => seen.not_looked_at.push(String::new()),
                }
                // What vanished between being listed and being looked at is no fault.
                if error.io_error().is_none_or(|error| error.kind() != io::ErrorKind::NotFound) {
                    seen.faults.push(error.into());
                }
            }
        }
    }
    seen
}

/// Whether an entry is within the scope, or on the way to it.
fn is_wanted(entry: &DirEntry, scope: &Scope) -> bool {
    match scope {
        Scope::All => true,
        Scope::Touched(paths) => {
            let path = entry.path();
            path.ancestors().any(|above| paths.contains(above))
                || paths.range(path.to_owned()..).next().is_some_and(|next| next.starts_with(path))
        }
    }
}

fn see(seen: &mut Seen, root: &Path, prefix: &str, entry: &DirEntry) {
    if !entry.file_type().is_some_and(|kind| kind.is_file()) {
        return;
    }
    let Ok(path) = entry.path().strip_prefix(root) else {
        return;
    };
    let Some(id) = id_of(prefix, path) else {
        return seen.faults.push(Unindexed::NotUtf8(path.to_owned()));
    };
    if id.len() > ID_BYTES_MAX {
        return seen.faults.push(Unindexed::TooLong(path.to_owned()));
    }
    match entry.metadata() {
        Ok(meta) => {
            let (size, mtime) = (meta.len(), mtime(&meta));
            seen.files.insert(id, SeenFile { path: path.to_owned(), size, mtime });
        }
        Err(error) => {
            let vanished =
                error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
            if !vanished {
                seen.not_looked_at.push(id);
                seen.faults.push(error.into());
            }
        }
    }
}

/// The id of a path below the folder, with `/` between its parts.
fn id_of(prefix: &str, below: &Path) -> Option<String> {
    let mut id = prefix.to_owned();
    for (place, part) in below.components().enumerate() {
        if place > 0 {
            id.push('/');
        }
        id.push_str(part.as_os_str().to_str()?);
    }
    Some(id)
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            path_of(err)
        }
        _ => None,
    }
}

fn mtime(meta: &Metadata) -> Timestamp {
    // Times before 1970, and systems that keep none, are shown as 1970.
    let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Timestamp(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// Size, time and hash of a file that stays the same while it is read.
pub(super) fn read_facts(path: &Path) -> Result<FileFacts, Unindexed> {
    let unreadable = |source| Unindexed::Unreadable { path: path.to_owned(), source };
    for _ in 0..READ_TRIES {
        // It may have become something else since it was seen: to open a pipe would wait for ever.
        let kind = std::fs::symlink_metadata(path).map_err(unreadable)?.file_type();
        if !kind.is_file() {
            return Err(unreadable(io::Error::other(NO_FILE)));
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let before = file.metadata().map_err(unreadable)?;
        if !before.is_file() {
            return Err(unreadable(io::Error::other(NO_FILE)));
        }
        let blake3 = hash(&mut file).map_err(unreadable)?;
        let after = file.metadata().map_err(unreadable)?;
        let (size, time) = (after.len(), mtime(&after));
        if before.len() == size && mtime(&before) == time {
            return Ok(FileFacts { size, mtime: time, blake3 });
        }
    }
    Err(Unindexed::Unsteady(path.to_owned()))
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn ids(seen: &Seen) -> Vec<&str> {
        seen.files.keys().map(String::as_str).collect()
    }

    #[test]
    fn ignore_rules_are_honoured_and_hidden_files_and_git_passed_over() {
        let dir = folder(&[
            (".gitignore", "*.o\nbuild/\n"),
            ("a.c", "a"),
            ("a.o", "o"),
            ("build/x", "x"),
            ("src/b.c", "b"),
            (".git/HEAD", "h"),
            (".secret", "s"),
        ]);
        let root = dir.path();
        assert_eq!(ids(&walk(root, "", &Rules::default(), &Scope::All)), ["a.c", "src/b.c"]);
        let with_hidden = walk(root, "p/", &Rules { hidden: true, apart: vec![] }, &Scope::All);
        assert_eq!(ids(&with_hidden), ["p/.gitignore", "p/.secret", "p/a.c", "p/src/b.c"]);
    }

    #[test]
    fn a_touched_path_is_looked_at_under_the_rules_of_the_whole() {
        let dir = folder(&[
            (".gitignore", "build/\n"),
            ("a", ""),
            ("build/deep/x", ""),
            ("src/b", ""),
            ("src/sub/c", ""),
        ]);
        let touched = |paths: &[&str]| {
            Scope::Touched(paths.iter().map(|path| dir.path().join(path)).collect())
        };
        let look = |paths: &[&str]| walk(dir.path(), "", &Rules::default(), &touched(paths));
        assert_eq!(ids(&look(&["src/sub"])), ["src/sub/c"]);
        assert_eq!(ids(&look(&["src", "a"])), ["a", "src/b", "src/sub/c"]);
        assert_eq!(ids(&look(&["build/deep/x"])), Vec::<&str>::new());
        let gone = look(&["src/none"]);
        assert!(gone.was_looked_at("src/none") && !gone.was_looked_at("src/b"));
    }

    #[test]
    fn the_data_directory_is_passed_over_wherever_it_lies() {
        let own = [("d/store/journal", ""), ("d/.store.opens", ""), ("d/.store.opens.new", "")];
        let others = [("a", ""), ("d/b", ""), ("storehouse", "")];
        let dir = folder(&[&own[..], &others].concat());
        let apart = crate::data_dir::DataDir::new(&dir.path().join("d/store")).places();
        let rules = Rules { hidden: true, apart: apart.clone() };
        let look = |scope: &Scope| walk(dir.path(), "", &rules, scope);
        assert_eq!(ids(&look(&Scope::All)), ["a", "d/b", "storehouse"]);
        let inside = [vec![apart[0].join("journal")], apart].concat().into_iter().collect();
        assert_eq!(ids(&look(&Scope::Touched(inside))), Vec::<&str>::new());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = folder(&[("a", "a")]);
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
        assert_eq!(ids(&walk(dir.path(), "", &Rules::default(), &Scope::All)), ["a"]);
    }

    #[test]
    fn names_that_can_be_no_id_are_reported() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = folder(&[]);
        let name = std::ffi::OsStr::from_bytes(b"bad\xff");
        fs::write(dir.path().join(name), "").unwrap();
        let deep = format!("{}/{}/{}", "x".repeat(200), "y".repeat(200), "z".repeat(200));
        fs::create_dir_all(dir.path().join(&deep)).unwrap();
        fs::write(dir.path().join(deep).join("f"), "").unwrap();
        let seen = walk(dir.path(), "", &Rules::default(), &Scope::All);
        assert!(seen.files.is_empty());
        let mut faults: Vec<String> = seen.faults.iter().map(ToString::to_string).collect();
        faults.sort();
        assert!(faults[0].contains("bad\\xFF") && faults[0].contains("not UTF-8"), "{faults:?}");
        assert!(faults[1].contains("over the limit of 512 bytes"), "{faults:?}");
    }

    #[test]
    fn a_folder_that_is_away_has_not_lost_its_files() {
        let seen = walk(Path::new("/nonexistent/folder"), "", &Rules::default(), &Scope::All);
        assert_eq!(seen.faults.len(), 1);
        assert!(!seen.was_looked_at("a"));
    }

    #[test]
    fn facts_are_those_of_the_content() {
        let dir = folder(&[("a", "hello")]);
        let facts = read_facts(&dir.path().join("a")).unwrap();
        assert_eq!(facts.size, 5);
        assert_eq!(facts.blake3, blake3::hash(b"hello").to_hex().to_string());
        assert!(read_facts(&dir.path().join("none")).unwrap_err().is_vanished());
        assert!(!read_facts(dir.path()).unwrap_err().is_vanished());
        // To open a pipe would wait for whoever writes into it.
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read_facts(&pipe).unwrap_err().to_string().contains("no longer a file"));
    }
}
