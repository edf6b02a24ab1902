//! Rules, and what they find.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::json::Wide;

/// Most findings of one sort that a verdict holds: enough to mend a document by, few enough that a
/// hostile one of 16 MiB cannot fill a memory with them.
pub const FINDINGS_MAX: usize = 100;

/// Longest message of a finding, in characters: what it quotes of the document is cut to fit.
pub const MESSAGE_CHARS_MAX: usize = 400;

/// Longest path of a finding, in characters: keys of a hostile document can be megabytes long.
const PATH_CHARS_MAX: usize = 400;

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where, as a JSON pointer (RFC 6901); empty for the whole document.
    pub path: String,
    /// The rule that is broken. Keywords of the schema are rules named `schema.<keyword>`.
    pub rule: Cow<'static, str>,
    /// What is wrong, and how to mend it.
    pub message: String,
}

/// Who else has a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Other tools of the estate enforce it, or the contract is this project's own: breaking it is an
    /// error.
    Estate,
    /// Only this project has it: breaking it is a warning, and an error under `--strict`.
    Ours,
}

/// Something that a schema cannot say.
#[derive(Debug)]
pub struct Rule {
    /// Its name, for people and scripts: `repair-plan.step-order`.
    pub name: &'static str,
    /// What must hold, in a sentence, for the catalogue.
    pub says: &'static str,
    /// Who else has it.
    pub origin: Origin,
    /// Adds a finding for each place that breaks it. It is asked about any JSON value whatever, also
    /// about one that breaks the schema: what is not there, or of another type, it passes over.
    pub check: fn(&Value, &mut Findings),
}

/// What was found so far, and for which rule.
#[derive(Debug, Default)]
pub struct Findings {
    rule: Cow<'static, str>,
    found: Vec<Finding>,
    wide: Arc<Wide>,
}

impl Findings {
    pub(super) fn new(found: Vec<Finding>, wide: Arc<Wide>) -> Self {
        Self { rule: Cow::Borrowed(""), found, wide }
    }

    /// The integers of the document beyond 64 bits: a rule that compares numbers goes by these.
    pub fn wide(&self) -> Arc<Wide> {
        Arc::clone(&self.wide)
    }

    /// Asks one rule about a document.
    pub(super) fn run(&mut self, rule: &'static Rule, document: &Value) {
        self.rule = Cow::Borrowed(rule.name);
        (rule.check)(document, self);
    }

    /// Adds what is wrong at a path. The message says how to mend it, too.
    pub fn add(&mut self, path: impl AsRef<str>, message: impl AsRef<str>) {
        if !self.is_full() {
            self.found.push(finding(self.rule.clone(), path.as_ref(), message.as_ref()));
        }
    }

    /// Whether more findings would be dropped; a rule with a long loop may end it then.
    pub fn is_full(&self) -> bool {
        self.found.len() >= FINDINGS_MAX
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.found
    }
}

/// A finding whose texts are cut to their limits.
pub(super) fn finding(rule: Cow<'static, str>, path: &str, message: &str) -> Finding {
    let path = cut(path, PATH_CHARS_MAX);
    Finding { path, rule, message: cut(message, MESSAGE_CHARS_MAX) }
}

/// The first characters of a text.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A member's name as a part of a JSON pointer.
pub fn escape(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        return Cow::Owned(name.replace('~', "~0").replace('/', "~1"));
    }
    Cow::Borrowed(name)
}

impl Finding {
    /// A finding of a check that is no rule of a contract; long texts are cut to their limits.
    pub fn new(rule: &'static str, path: &str, message: &str) -> Self {
        finding(Cow::Borrowed(rule), path, message)
    }
}
