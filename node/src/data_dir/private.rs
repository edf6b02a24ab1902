//! Whose files the files of a data directory are: their owner's, and nobody else's.
//!
//! The store holds what every object holds, secrets included, so whoever can read the file has read
//! them. Files are therefore 0600 and the directory 0700: made so, and brought back to it by whoever
//! opens the store for writing. Who only reads changes nothing.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

/// The mode of the directory.
pub(super) const DIR_MODE: u32 = 0o700;

/// The mode of every file in it.
pub(super) const FILE_MODE: u32 = 0o600;

/// How the names of the files begin that belong into a data directory.
const OURS: [&str; 5] = ["device.key", "store.redb", "events.jsonl", "http.token", "node.sock"];

/// What anybody but the owner may do.
const OTHERS: u32 = 0o077;

/// Makes a directory that only its owner may enter, and those above it that are missing. One that is
/// there is closed to others, unless something else lies in it that may be meant for them: then it
/// stays as it is, and the answer is false.
pub(super) fn make_dir(path: &Path) -> io::Result<bool> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)?;
    if !is_open(path)? {
        return Ok(true);
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !OURS.iter().any(|ours| name.as_encoded_bytes().starts_with(ours.as_bytes())) {
            return Ok(false);
        }
    }
    fs::set_permissions(path, Permissions::from_mode(DIR_MODE))?;
    Ok(true)
}

/// Whether anybody but its owner may do something with a file or directory.
pub(super) fn is_open(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & OTHERS != 0)
}

/// Takes away what others may do with a file or directory that is there; says whether it was anything.
pub(super) fn close(path: &Path, mode: u32) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        // What a link leads to was put elsewhere on purpose, and is not ours to change.
        Ok(meta) if meta.is_symlink() || meta.permissions().mode() & OTHERS == 0 => Ok(false),
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(mode)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
