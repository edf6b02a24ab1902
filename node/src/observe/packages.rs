//! Which package a file belongs to, asked of the databases that lie as plain text on this system.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Most bytes of a package database that are read: ten times that of a desktop with everything.
const DATABASE_BYTES_MAX: u64 = 256 << 20;

/// Longest list of one package, in bytes.
const LIST_BYTES_MAX: u64 = 32 << 20;

/// A reference to the record by which a file was installed. Nothing where the databases here do not
/// know it; why not, where there is no database that can be read.
pub(super) fn receipt(system: &Path, path: &Path) -> Result<Option<String>, String> {
    let Some(path) = path.to_str() else { return Ok(None) };
    let lists = system.join("var/lib/dpkg/info");
    let installed = system.join("lib/apk/db/installed");
    if lists.is_dir() {
        return Ok(in_lists(&lists, path)?.map(|package| format!("pkg:deb/{package}")));
    }
    if installed.is_file() {
        return Ok(in_records(&installed, path)?.map(|package| format!("pkg:apk/{package}")));
    }
    Err("there is no package database here that can be read".to_owned())
}

/// A folder with a file for each package, that has a path on each line.
fn in_lists(folder: &Path, path: &str) -> Result<Option<String>, String> {
    let names = spellings(path);
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut left = DATABASE_BYTES_MAX;
    for entry in entries.flatten() {
        let file = entry.path();
        if file.extension().is_none_or(|end| end != "list") {
            continue;
        }
        let text = text(&file, LIST_BYTES_MAX.min(left)).unwrap_or_default();
        left = left.saturating_sub(text.len() as u64);
        if left == 0 {
            return Err("the package database is too large to be searched".to_owned());
        }
        if text.lines().any(|line| names.iter().any(|name| name == line)) {
            let package = file.file_stem().map(|name| name.to_string_lossy().into_owned());
            // The name can end in the architecture, after a colon.
            return Ok(package.map(|name| name.split(':').next().unwrap_or(&name).to_owned()));
        }
    }
    Ok(None)
}

/// One file of records: a package `P:`, then its folders `F:` and in each its files `R:`.
fn in_records(file: &Path, path: &str) -> Result<Option<String>, String> {
    let text = text(file, DATABASE_BYTES_MAX).map_err(|error| error.to_string())?;
    let names = spellings(path);
    let (mut package, mut folder) = ("", "");
    for line in text.lines() {
        match line.split_once(':') {
            Some(("P", name)) => package = name,
            Some(("F", name)) => folder = name,
            Some(("R", name)) => {
                let found = format!("/{folder}/{name}");
                if names.contains(&found) {
                    return Ok(Some(package.to_owned()));
                }
            }
            _ => {}
        }
    }
    Ok(None)
}

/// A path with and without `/usr`: on merged systems both lead to one file, and databases have either.
fn spellings(path: &str) -> Vec<String> {
    let mut names = vec![path.to_owned()];
    match path.strip_prefix("/usr/") {
        Some(rest) => names.push(format!("/{rest}")),
        None => names.push(format!("/usr{path}")),
    }
    names
}

fn text(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
