//! What can be said of one line without the others.

use serde_json::Value;
use srcos_lanes::ids::DeviceId;
use srcos_schemas::contracts::{Options, validate};
use srcos_schemas::event::model::Event;
use srcos_schemas::event::rules::EVENT;
use srcos_schemas::json::{self, Limits};

use super::id_key;
use crate::events::EVENT_BYTES_MAX;
use crate::events::link::{Hash, Link, Parts, event_text, parts, sha256};

/// What a stored event may be: as long as a line, as deep as a document.
const LIMITS: Limits = Limits { bytes_max: EVENT_BYTES_MAX + 2048, depth_max: json::DEPTH_MAX };

/// What one line says.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Whether there is nothing in it.
    pub(super) blank: bool,
    /// Its hash, to which the next line links.
    pub(super) hash: Hash,
    /// Its link, where it has one that can be read.
    pub(super) link: Option<Link>,
    /// The short form of its event's id.
    pub(super) id: Option<u128>,
    /// What is wrong with it: a code and words.
    pub(super) problem: Option<(&'static str, String)>,
}

impl Facts {
    /// Who signed it.
    pub(super) fn signer(&self) -> Option<DeviceId> {
        self.link.and_then(|link| link.signed).map(|(device, _)| device)
    }

    /// Whether its signature holds, given the line itself; nothing where there is none. The hash of
    /// its event, which is what is signed, is asked of few lines and so not made for all.
    pub(super) fn signature_holds(&self, line: &[u8]) -> Option<bool> {
        let link = self.link.filter(|link| link.signed.is_some())?;
        link.verifies(&sha256(&event_text(line, &parts(line))))
    }
}

/// Looks at one line.
pub(super) fn examine(line: &[u8]) -> Facts {
    let parts = parts(line);
    let event = event_text(line, &parts);
    let blank = line.iter().all(|byte| byte.is_ascii_whitespace());
    let (id, problem) = match (blank, &parts) {
        (true, _) => (None, None),
        (_, Parts::Broken) => (
            None,
            Some(("unreadable", "the line's link cannot be read: the line was changed".to_owned())),
        ),
        _ => judge(&event),
    };
    Facts {
        blank,
        hash: sha256(line),
        link: match parts {
            Parts::Linked(link, _) => Some(link),
            Parts::Plain | Parts::Broken => None,
        },
        id,
        problem,
    }
}

/// The id of an event, and what is wrong with it. Nearly every event is read as its type, which is
/// several times as fast as asking its schema and refuses no less; the schema is asked about the rest.
fn judge(text: &[u8]) -> (Option<u128>, Option<(&'static str, String)>) {
    // Whether it is UTF-8 is asked of the whole at once, which costs less than asking it of each text.
    if let Ok(text) = std::str::from_utf8(text)
        && let Ok(event) = serde_json::from_str::<Event>(text)
        && event.missing_block().is_none()
        && event.severity <= event.outcome.severity_max()
    {
        return (Some(id_key(event.event_id.as_str())), None);
    }
    let event = match json::parse(text, LIMITS) {
        Ok(event) => event,
        Err(error) => {
            let message =
                format!("the line is no JSON ({} at column {})", error.kind, error.column);
            return (None, Some(("unreadable", message)));
        }
    };
    let id = event.get("event_id").and_then(Value::as_str).map(id_key);
    let verdict = validate(&event, &Options { contract: Some(&EVENT), ..Options::default() });
    let problem = verdict.errors.first().map(|error| {
        let place = if error.path.is_empty() { "the event" } else { error.path.as_str() };
        ("invalid", format!("{place}: {} ({})", error.message, error.rule))
    });
    (id, problem)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_line_makes_looking_at_it_panic(line in any::<Vec<u8>>()) {
            let _ = examine(&line);
        }

        #[test]
        fn no_text_makes_looking_at_it_panic(line in r#"(\{"_link":\{"n":1,"prev":"sha256:00"\},)?[\{\["a-z:0-9,\}\]]{0,60}"#) {
            let _ = examine(line.as_bytes());
        }
    }
}
