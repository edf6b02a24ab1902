//! What an object says: kind, class, labels and a JSON body, within limits, parsed once.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::error::ContentError;
use super::pointer;

/// The kind of an object that names none.
pub const KIND_DEFAULT: &str = "object";
/// The data class of an object that names none.
pub const CLASS_DEFAULT: &str = "internal";
/// Longest kind, in bytes: it is a key of indexes.
pub const KIND_BYTES_MAX: usize = 64;
/// Longest data class, in bytes: it is a key of policies.
pub const CLASS_BYTES_MAX: usize = 64;
/// Most labels: each is a row of the label index.
pub const LABELS_MAX: usize = 64;
/// Longest key of a label, in bytes: it is part of an index key.
pub const LABEL_KEY_BYTES_MAX: usize = 128;
/// Longest value of a label, in bytes: it is part of an index key.
pub const LABEL_VALUE_BYTES_MAX: usize = 1024;
/// Deepest nesting of a body, in arrays and objects around a value: every reader recurses, and
/// must do so on a small stack.
pub const DEPTH_MAX: usize = 128;
/// Largest body, in bytes of pointers and values together: a body with long keys repeats them for
/// every place beneath, so 1 MiB of JSON could otherwise grow to gigabytes.
pub const FLAT_BYTES_MAX: usize = 4 << 20;
/// Most values in a body, containers included: a change may write each in a few bits, but reading
/// it takes about 200 bytes for each.
pub const PLACES_MAX: usize = 50_000;

/// What an object says at one moment.
///
/// A constructed one is within the limits of this module. One that a [`View`](super::View) shows
/// may exceed them, because a union of two contents can be larger than either.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    pub(super) kind: String,
    pub(super) class: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) body: Value,
}

impl Content {
    /// Content within the limits.
    pub fn new(
        kind: impl Into<String>,
        class: impl Into<String>,
        labels: BTreeMap<String, String>,
        body: Value,
    ) -> Result<Self, ContentError> {
        let content = Self { kind: kind.into(), class: class.into(), labels, body };
        text("/kind", &content.kind, KIND_BYTES_MAX)?;
        text("/class", &content.class, CLASS_BYTES_MAX)?;
        if content.labels.len() > LABELS_MAX {
            let count = content.labels.len();
            return Err(ContentError::TooManyLabels { count, limit: LABELS_MAX });
        }
        for (key, value) in &content.labels {
            text("/labels (a key)", key, LABEL_KEY_BYTES_MAX)?;
            if value.len() > LABEL_VALUE_BYTES_MAX {
                return Err(ContentError::TooLong {
                    path: pointer::child("/labels", key),
                    bytes: value.len(),
                    limit: LABEL_VALUE_BYTES_MAX,
                });
            }
        }
        let mut measure = Measure { bytes: 0, places: 0, path: Vec::new() };
        measure.place(&content.body, 0, 0)?;
        Ok(content)
    }

    /// Content of the default kind and class without labels.
    pub fn of(body: Value) -> Result<Self, ContentError> {
        Self::new(KIND_DEFAULT, CLASS_DEFAULT, BTreeMap::new(), body)
    }

    /// What sort of record it is.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its data class, of which policies speak.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Its body.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Kind, class, labels and body.
    pub fn into_parts(self) -> (String, String, BTreeMap<String, String>, Value) {
        (self.kind, self.class, self.labels, self.body)
    }
}

fn text(path: &str, text: &str, limit: usize) -> Result<(), ContentError> {
    if text.is_empty() {
        return Err(ContentError::Empty { path: path.to_owned() });
    }
    if text.len() > limit {
        let bytes = text.len();
        return Err(ContentError::TooLong { path: path.to_owned(), bytes, limit });
    }
    Ok(())
}

/// Adds up what a body takes when it is flattened.
struct Measure<'a> {
    bytes: usize,
    places: usize,
    path: Vec<Token<'a>>,
}

enum Token<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Measure<'a> {
    fn place(
        &mut self,
        value: &'a Value,
        pointer: usize,
        depth: usize,
    ) -> Result<(), ContentError> {
        if depth > DEPTH_MAX {
            return Err(ContentError::TooDeep { path: self.shown_path(), limit: DEPTH_MAX });
        }
        self.places += 1;
        if self.places > PLACES_MAX {
            return Err(ContentError::TooManyPlaces { path: self.shown_path(), limit: PLACES_MAX });
        }
        let size = match value {
            Value::String(text) => text.len(),
            Value::Number(_) => 8,
            _ => 1,
        };
        self.bytes += pointer + size;
        if self.bytes > FLAT_BYTES_MAX {
            return Err(ContentError::TooLarge { path: self.shown_path(), limit: FLAT_BYTES_MAX });
        }
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.path.push(Token::Key(key));
                    self.place(value, pointer + 1 + pointer::escaped_len(key), depth + 1)?;
                    self.path.pop();
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.path.push(Token::Index(index));
                    self.place(value, 0, depth + 1)?;
                    self.path.pop();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn shown_path(&self) -> String {
        const SHOWN_CHARS: usize = 120;
        let mut path = String::from("/body");
        for token in &self.path {
            match token {
                Token::Key(key) => pointer::push(&mut path, key),
                Token::Index(index) => pointer::push(&mut path, &index.to_string()),
            }
            if path.chars().count() > SHOWN_CHARS {
                return path.chars().take(SHOWN_CHARS).chain("...".chars()).collect();
            }
        }
        path
    }
}

/// A change to a part of what an object says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    /// A new kind.
    pub kind: Option<String>,
    /// A new class.
    pub class: Option<String>,
    /// Labels to set, and with `None` to remove.
    pub labels: BTreeMap<String, Option<String>>,
    /// An RFC 7396 merge patch of the body.
    pub body: Option<Value>,
}

impl Patch {
    /// What `content` becomes under this patch.
    pub fn applied_to(&self, content: &Content) -> Result<Content, ContentError> {
        let (mut kind, mut class, mut labels, mut body) = content.clone().into_parts();
        if let Some(new) = &self.kind {
            kind.clone_from(new);
        }
        if let Some(new) = &self.class {
            class.clone_from(new);
        }
        for (key, value) in &self.labels {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
        }
        if let Some(patch) = &self.body {
            merge(&mut body, patch);
        }
        Content::new(kind, class, labels, body)
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// Whether two values are written alike: 1 and 1.0 are not, nor are 0.0 and -0.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    a == b && a.as_f64().map(f64::to_bits) == b.as_f64().map(f64::to_bits)
}
