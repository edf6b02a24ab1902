//! How a command ends when it fails: what is printed, and the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::api::{ApiError, ErrorKind};
use crate::render::plain;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What was asked for was not done.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Nobody reads the output any more, so there is nothing left to do.
    #[error("the reader of the output has gone")]
    OutputClosed,
    /// The command said on its output that what was asked about does not hold.
    #[error("what was asked about does not hold")]
    DoesNotHold,
}

impl NodeError {
    /// An output that cannot be written.
    pub fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        let hint = "see whether the disk that it goes to is full";
        let message = format!("the output cannot be written: {error}");
        ApiError::new(ErrorKind::BadInput, "output_failed", message, hint).into()
    }

    /// A file that cannot be read or written.
    pub fn file(path: &std::path::Path, error: &io::Error) -> Self {
        let message = format!("{} cannot be used: {error}", path.display());
        ApiError::new(ErrorKind::BadInput, "file_unusable", message, "check the path and its mode")
            .at(path.display().to_string())
            .into()
    }

    /// The same with another error of the node, if it is one.
    pub fn map(self, change: impl FnOnce(ApiError) -> ApiError) -> Self {
        match self {
            Self::Api(error) => Self::Api(change(error)),
            other => other,
        }
    }

    /// A request that is not right.
    pub fn usage(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        ApiError::new(ErrorKind::BadInput, code, message, hint).into()
    }

    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Api(error) => error.kind.exit_code(),
            Self::OutputClosed => 0,
            Self::DoesNotHold => 1,
        }
    }

    /// Says on standard error what failed, why and what to do next; as one JSON document where
    /// `json`.
    pub fn report(&self, json: bool, errors: &mut dyn Write) -> ExitCode {
        if let Self::Api(error) = self {
            // Where not even standard error can be written, the exit code still tells.
            let _ = if json {
                writeln!(errors, "{}", serde_json::to_string(&error.document()).unwrap_or_default())
            } else {
                // An error may quote what a peer wrote: an id, a reason, a name.
                let message = plain(&error.message);
                match &error.path {
                    Some(path) if !error.message.contains(path.as_str()) => {
                        writeln!(errors, "error: {}: {message}", plain(path))
                    }
                    _ => writeln!(errors, "error: {message}"),
                }
                .and_then(|()| writeln!(errors, "  try: {}", plain(&error.hint)))
            };
        }
        ExitCode::from(self.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_exit_code() {
        let codes: Vec<(&str, u8)> =
            ErrorKind::ALL.into_iter().map(|kind| (kind.name(), kind.exit_code())).collect();
        assert_eq!(
            codes,
            [
                ("not_found", 1),
                ("does_not_hold", 1),
                ("precondition_failed", 1),
                ("bad_input", 2),
                ("too_large", 2),
                ("unavailable", 3),
                ("busy", 3),
                ("refused", 4),
                ("unauthorised", 4),
                ("store_damaged", 5),
                ("store_locked", 5),
                ("internal", 70),
            ]
        );
    }

    #[test]
    fn what_an_error_quotes_cannot_drive_the_terminal() {
        let error: NodeError =
            ApiError::new(ErrorKind::NotFound, "x", "gone: \u{1b}[2J\u{9b}1m\nfake", "get \u{7}\r")
                .at("normal/\u{1b}]0;t\u{7}")
                .into();
        let mut printed = Vec::new();
        error.report(false, &mut printed);
        let printed = String::from_utf8(printed).unwrap();
        assert_eq!(printed.lines().count(), 2, "{printed:?}");
        assert!(!printed.chars().any(|c| c.is_control() && c != '\n'), "{printed:?}");
    }

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let error: NodeError =
            ApiError::new(ErrorKind::NotFound, "object_absent", "not there", "list the lane")
                .at("normal/a")
                .into();
        let mut printed = Vec::new();
        error.report(false, &mut printed);
        assert_eq!(
            String::from_utf8(printed).unwrap(),
            "error: normal/a: not there\n  try: list the lane\n"
        );
        let mut printed = Vec::new();
        error.report(true, &mut printed);
        assert_eq!(
            String::from_utf8(printed).unwrap(),
            "{\"error\":{\"kind\":\"not_found\",\"code\":\"object_absent\",\"message\":\"not there\",\
             \"hint\":\"list the lane\",\"path\":\"normal/a\"}}\n"
        );
    }
}
