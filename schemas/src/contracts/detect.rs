//! Which contract a document says that it follows. It is read from the document's own discriminator and
//! never guessed from its shape.

use serde_json::Value;

use super::finding::{Finding, cut, finding};
use super::{ALL, Contract};

/// Longest quotation of a discriminator, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// By what a document says that it follows a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discriminator {
    /// A member at the root with a fixed text: name and text. The text ends in the version.
    Member(&'static str, &'static str),
    /// A member `type` with a fixed text; where there is none, an `id` that begins with a URN prefix.
    TypeOrId(&'static str, &'static str),
}

impl Discriminator {
    /// The member that tells, and what it must be.
    pub fn member(&self) -> (&'static str, &'static str) {
        match *self {
            Self::Member(name, text) => (name, text),
            Self::TypeOrId(name, _) => ("type", name),
        }
    }

    fn fits(&self, document: &Value) -> bool {
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        match self {
            Self::Member(name, fixed) => text(name) == Some(fixed),
            Self::TypeOrId(name, prefix) => match document.get("type") {
                Some(kind) => kind.as_str() == Some(name),
                None => text("id").is_some_and(|id| id.starts_with(prefix)),
            },
        }
    }
}

/// Why a document was not recognised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrecognised {
    /// It is an array, a text or the like.
    #[error(
        "a document is a JSON object, and this is {0}: give each document on its own or as a \
            line of its own"
    )]
    NoObject(&'static str),
    /// It has no member that tells.
    #[error(
        "nothing says which contract this follows: give it a member schema, schema_version or \
            type, or name the contract with --schema"
    )]
    Silent,
    /// The contract is known, and this version of it is not.
    #[error(
        "{member} says {found:?}, a version of {name} that is not known here: known is {known:?}"
    )]
    UnknownVersion {
        /// The member that tells.
        member: &'static str,
        /// What it says, shortened.
        found: String,
        /// The contract.
        name: &'static str,
        /// What it says in the known version.
        known: &'static str,
    },
    /// The contract is not known.
    #[error(
        "{member} says {found}, a contract that is not known here: `contracts list` shows those \
            that are"
    )]
    UnknownContract {
        /// The member that tells.
        member: &'static str,
        /// What it says, shortened, as JSON.
        found: String,
    },
}

impl Unrecognised {
    /// The same, as what is wrong with the document.
    pub fn finding(&self) -> Finding {
        let (rule, path) = match self {
            Self::NoObject(_) => ("contract.object", String::new()),
            Self::Silent => ("contract.named", String::new()),
            Self::UnknownVersion { member, .. } => ("contract.known-version", format!("/{member}")),
            Self::UnknownContract { member, .. } => ("contract.known", format!("/{member}")),
        };
        finding(rule.into(), &path, &self.to_string())
    }
}

/// The contract that a document says it follows.
pub fn detect(document: &Value) -> Result<&'static Contract, Unrecognised> {
    if !document.is_object() {
        return Err(Unrecognised::NoObject(kind(document)));
    }
    if let Some(found) = ALL.iter().find(|contract| contract.discriminator.fits(document)) {
        return Ok(found);
    }
    for member in ["schema", "schema_version", "type"] {
        let Some(said) = document.get(member) else { continue };
        let text = said.as_str().unwrap_or_default();
        let kin = ALL.iter().find_map(|contract| {
            let (name, known) = contract.discriminator.member();
            (name == member && same_family(known, text)).then_some((contract.name, known))
        });
        let found = cut(text, SHOWN_CHARS_MAX);
        return Err(match kin {
            Some((name, known)) => Unrecognised::UnknownVersion { member, found, name, known },
            None => {
                let found = if said.is_string() { format!("{found:?}") } else { kind(said).into() };
                Unrecognised::UnknownContract { member, found }
            }
        });
    }
    Err(Unrecognised::Silent)
}

/// The contract of a name: its own, its file's, its URN, or what its discriminator says.
pub fn find(name: &str) -> Option<&'static Contract> {
    let named = |contract: &&&Contract| {
        let file = contract.file;
        let stem = file.strip_suffix(".schema.json").or(file.strip_suffix(".json"));
        [contract.name, contract.urn, file, contract.discriminator.member().1].contains(&name)
            || stem == Some(name)
    };
    ALL.iter().find(|contract| contract.name == name).or_else(|| ALL.iter().find(named)).copied()
}

/// Whether two discriminators name the same contract, whatever the version: `x/v1` and `x/v2beta`,
/// `x.v0.1` and `x.v0.2`.
fn same_family(known: &str, said: &str) -> bool {
    let split = |text: &str| -> Option<usize> {
        let versioned = |(at, _): &(usize, &str)| {
            text[at + 2..].starts_with(|digit: char| digit.is_ascii_digit())
        };
        ["/v", ".v"]
            .into_iter()
            .flat_map(|mark| text.match_indices(mark))
            .filter(versioned)
            .map(|(at, _)| at)
            .min()
    };
    match (split(known), split(said)) {
        (Some(known_at), Some(said_at)) => known[..known_at] == said[..said_at],
        _ => false,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
