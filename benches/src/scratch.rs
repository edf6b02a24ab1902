//! Directories for stores: on a disk that has room for them, and gone at the end. What a run left that was
//! killed before it could clean up is gone at the start of the next.

use std::path::Path;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

/// A new directory of this process, below one that is there.
pub(crate) fn make(parent: &Path, prefix: &str) -> anyhow::Result<TempDir> {
    let prefix = format!("{prefix}{}-", std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent);
    made.with_context(|| format!("cannot make a directory in {}", parent.display()))
}

/// Removes the directories of runs that were killed before they could.
pub(crate) fn remove_left_behind(parent: &Path, prefix: &str) -> anyhow::Result<()> {
    let listing = parent.read_dir().with_context(|| format!("no {}", parent.display()))?;
    for entry in listing {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
        // What has another name, or is a file, somebody else made.
        let Some(process) = rest.and_then(|rest| rest.parse::<u32>().ok()) else { continue };
        if entry.file_type()?.is_dir() && !Path::new("/proc").join(process.to_string()).exists() {
            match std::fs::remove_dir_all(entry.path()) {
                // Another run was quicker.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => {
                    removed.with_context(|| format!("cannot remove {}", entry.path().display()))?
                }
            }
        }
    }
    Ok(())
}

/// Refuses a disk that a run would fill.
pub(crate) fn refuse_full_disk(dir: &Path, bytes: u64) -> anyhow::Result<()> {
    let facts = rustix::fs::statvfs(dir).with_context(|| format!("no {}", dir.display()))?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    ensure!(
        free >= bytes,
        "{} MB are free in {}, and this takes up to {} MB: make room, or name another disk with \
         --dir",
        free / 1_000_000,
        dir.display(),
        bytes / 1_000_000
    );
    Ok(())
}

/// Removes a directory, and says so if it cannot.
pub(crate) fn close(dir: TempDir) -> anyhow::Result<()> {
    let path = dir.path().to_owned();
    dir.close().with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_processes_that_are_gone_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        // Beyond what Linux gives to any process.
        let gone = parent.path().join("scratch-4194305-x");
        let lives = parent.path().join(format!("scratch-{}-x", std::process::id()));
        let others = ["scratch-notes", "other-4194305-x"].map(|name| parent.path().join(name));
        for dir in others.iter().chain([&gone, &lives]) {
            std::fs::create_dir(dir).unwrap();
        }
        remove_left_behind(parent.path(), "scratch-").unwrap();
        assert!(!gone.exists() && lives.exists() && others.iter().all(|other| other.exists()));
    }

    #[test]
    fn disk_without_room_is_refused_with_what_is_wanted() {
        let parent = tempfile::tempdir().unwrap();
        refuse_full_disk(parent.path(), 1).unwrap();
        let refused = refuse_full_disk(parent.path(), u64::MAX).unwrap_err().to_string();
        assert!(refused.contains("--dir") && refused.contains("MB"), "{refused}");
    }
}
