//! What several test modules need: where the workspace is, its files, and the switch for slow tests.

use std::path::{Path, PathBuf};

/// The variable that turns on tests that take long or need root. CI sets it.
pub(crate) const SLOW_TESTS: &str = "SRCOS_SLOW_TESTS";

/// Whether a slow test is to be skipped; says so, so that a skipped test is never taken for a passed
/// one. With the switch set a test that cannot run must fail: it has no other way out.
#[must_use]
#[expect(clippy::print_stderr, reason = "the person who runs the tests must see it")]
pub(crate) fn skips_slow(what: &str) -> bool {
    let skips = std::env::var_os(SLOW_TESTS).is_none_or(|value| value.is_empty() || value == "0");
    if skips {
        eprintln!("skipped: {what}; it runs with {SLOW_TESTS}=1");
    }
    skips
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in the workspace").to_owned()
}

/// A file of the workspace as text.
pub(crate) fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files with an extension beneath a folder of the workspace, as paths from its root, sorted.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("a folder entry can be read").path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() {
                if name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let below = path.strip_prefix(&root).expect("it lies in the workspace");
                found.push(below.to_str().expect("names are text").to_owned());
            }
        }
    }
    found.sort();
    found
}
