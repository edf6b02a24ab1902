//! Commands that hints name, as the user has to type them.
//!
//! Hints are written where nobody knows how the program was called. Someone who named a data directory
//! has to name it again, or the command would look at another device.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::args::{Cli, Globals};
use crate::api::ApiError;
use crate::error::NodeError;

const PROGRAM: &str = "srcos-node ";

/// What a user has to add to each command that a hint names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    data_dir: Option<PathBuf>,
}

impl Hints {
    /// Those of a user who gave these options. What came from the environment is there again.
    pub(crate) fn of(globals: &Globals) -> Self {
        let from_environment = std::env::var_os("SRCOS_DATA_DIR").map(PathBuf::from);
        Self {
            data_dir: globals.data_dir.clone().filter(|dir| Some(dir) != from_environment.as_ref()),
        }
    }

    /// The text with the option in each command that it names.
    pub(crate) fn complete(&self, text: &str) -> String {
        let Some(dir) = &self.data_dir else { return text.to_owned() };
        let mut complete = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(PROGRAM) {
            let (before, after) = rest.split_at(at + PROGRAM.len());
            complete.push_str(before);
            if is_command(after) {
                complete.push_str(&format!("--data-dir {} ", quoted(dir)));
            }
            rest = after;
        }
        complete + rest
    }

    pub(crate) fn complete_error(&self, error: NodeError) -> NodeError {
        error.map(|error| ApiError {
            message: self.complete(&error.message),
            hint: self.complete(&error.hint),
            ..error
        })
    }
}

/// Whether a text goes on with a command on this device's node.
fn is_command(text: &str) -> bool {
    let word = text.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap_or_default();
    // That one is for the other device.
    !text.starts_with("pair join") && Cli::command().find_subcommand(word).is_some()
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@%".contains(c);
    if !text.is_empty() && text.chars().all(harmless) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_a_hint_names_gets_the_directory_that_the_user_gave() {
        let hints = Hints { data_dir: Some("/d/it's".into()) };
        let dir = "--data-dir '/d/it'\\''s'";
        for (text, complete) in [
            ("start it with: srcos-node run", format!("start it with: srcos-node {dir} run")),
            ("`srcos-node run` recovers", format!("`srcos-node {dir} run` recovers")),
            (
                "srcos-node init, srcos-node run",
                format!("srcos-node {dir} init, srcos-node {dir} run"),
            ),
            ("a bug in srcos-node; report it", "a bug in srcos-node; report it".to_owned()),
            ("update srcos-node on this device", "update srcos-node on this device".to_owned()),
            ("there: srcos-node pair join 7-a", "there: srcos-node pair join 7-a".to_owned()),
        ] {
            assert_eq!(hints.complete(text), complete);
            assert_eq!(Hints::default().complete(text), text);
        }
        assert_eq!(quoted(Path::new("/tmp/a-b_c.d")), "/tmp/a-b_c.d");
        assert_eq!(quoted(Path::new("/tmp/a b")), "'/tmp/a b'");
    }
}
