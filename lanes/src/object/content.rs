//! What an object says: kind, class, labels and a JSON body, within limits, parsed once.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::error::ContentError;
use super::pointer;
/// Deepest nesting of a body, in arrays and objects around a value.
pub use srcos_schemas::json::DEPTH_MAX;
pub use srcos_schemas::objects::{
    AskedTypes, CLASS_BYTES_MAX, KIND_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX,
    LABELS_MAX, LeafType, LeafTypes,
};

/// The kind of an object that names none.
pub const KIND_DEFAULT: &str = "object";
/// The data class of an object that names none.
pub const CLASS_DEFAULT: &str = "internal";
/// Largest body, in bytes of pointers and values together: a body with long keys repeats them for
/// every place beneath, so 1 MiB of JSON could otherwise grow to gigabytes.
pub const FLAT_BYTES_MAX: usize = 4 << 20;
/// Most values in a body, containers and the characters of texts included: a change may write each
/// in a few bits, but reading it takes about 200 bytes for each.
pub const PLACES_MAX: usize = 50_000;
/// How far from 0 a counter may be written: up to here every reader of JSON is exact.
pub const COUNTER_MAX: u64 = 1 << 53;
/// Most that one change adds to a counter: from one end of what can be written to the other.
pub const INCREMENT_MAX: u64 = 2 * COUNTER_MAX;

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
    pub(super) types: LeafTypes,
}

impl Content {
    /// Content within the limits.
    pub fn new(
        kind: impl Into<String>,
        class: impl Into<String>,
        labels: BTreeMap<String, String>,
        body: Value,
    ) -> Result<Self, ContentError> {
        Self::typed(kind, class, labels, body, LeafTypes::new())
    }

    /// Content within the limits, some leaves of which are texts or counters.
    pub fn typed(
        kind: impl Into<String>,
        class: impl Into<String>,
        labels: BTreeMap<String, String>,
        body: Value,
        types: LeafTypes,
    ) -> Result<Self, ContentError> {
        let content = Self::unchecked(kind.into(), class.into(), labels, body, types);
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
        for (at, kind) in &content.types {
            let characters = check_type(&content.body, at, *kind)?;
            measure.places += characters;
            if measure.places > PLACES_MAX {
                let path = shortened(format!("/body{at}"));
                return Err(ContentError::TooManyPlaces { path, limit: PLACES_MAX });
            }
        }
        Ok(content)
    }

    /// Content that an object has already, which a union may have brought over the limits.
    pub(crate) fn unchecked(
        kind: String,
        class: String,
        labels: BTreeMap<String, String>,
        body: Value,
        types: LeafTypes,
    ) -> Self {
        Self { kind, class, labels, body, types }
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

    /// Which leaves of the body are texts or counters, by their pointer.
    pub fn types(&self) -> &LeafTypes {
        &self.types
    }

    /// Kind, class, labels and body.
    pub fn into_parts(self) -> (String, String, BTreeMap<String, String>, Value) {
        (self.kind, self.class, self.labels, self.body)
    }
}

/// Whether a leaf can be of a type. Returns how many values that adds to the body.
fn check_type(body: &Value, at: &str, kind: LeafType) -> Result<usize, ContentError> {
    let refused = |why| {
        let path = shortened(format!("/body{at}"));
        Err(ContentError::Type { path, kind: kind.name(), why })
    };
    let mut place = body;
    let Some(tokens) = pointer::tokens(at) else {
        return refused("that is no JSON pointer; write it as /a/b");
    };
    for token in tokens {
        let next = match place {
            Value::Object(members) => members.get(&*token),
            Value::Array(_) => {
                return refused("it lies in a list, where places have no lasting name");
            }
            _ => None,
        };
        match next {
            Some(next) => place = next,
            None => return refused("the body has nothing there; write a value with it"),
        }
    }
    match (kind, place) {
        (LeafType::Text, Value::String(text)) => Ok(text.chars().count()),
        (LeafType::Text, _) => refused("its value is no string"),
        (LeafType::Counter, Value::Number(number)) => match number.as_i64() {
            Some(number) if number.unsigned_abs() <= COUNTER_MAX => Ok(0),
            _ => refused("its value is no integer from -2^53 to 2^53; make it plain"),
        },
        (LeafType::Counter, _) => refused("its value is no integer"),
    }
}

/// The types that leaves of `body` have once `asked` is done: what is not named keeps the type
/// that it had, if its value is still of the sort.
pub(crate) fn types_after(old: &LeafTypes, body: &Value, asked: &AskedTypes) -> LeafTypes {
    let mut types = old.clone();
    types.retain(|at, kind| match (kind, leaf(body, at)) {
        (LeafType::Text, Some(Value::String(_))) => true,
        (LeafType::Counter, Some(Value::Number(number))) => !number.is_f64(),
        _ => false,
    });
    for (at, kind) in asked {
        match kind {
            Some(kind) => types.insert(at.clone(), *kind),
            None => types.remove(at),
        };
    }
    types
}

/// The value at a pointer that leads through no list.
fn leaf<'v>(body: &'v Value, at: &str) -> Option<&'v Value> {
    pointer::tokens(at)?.try_fold(body, |place, token| place.as_object()?.get(&*token))
}

/// The first characters of a path, for messages.
fn shortened(path: String) -> String {
    const SHOWN_CHARS: usize = 120;
    match path.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &path[..end]),
        None => path,
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
        let mut path = String::from("/body");
        for token in &self.path {
            match token {
                Token::Key(key) => pointer::push(&mut path, key),
                Token::Index(index) => pointer::push(&mut path, &index.to_string()),
            }
        }
        shortened(path)
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
    /// Types to give to leaves of the body, and with `None` to take from them.
    pub types: AskedTypes,
    /// What to add to counters of the body, after the merge patch.
    pub add: BTreeMap<String, i64>,
}

impl Patch {
    /// What `content` becomes under this patch.
    pub fn applied_to(&self, content: &Content) -> Result<Content, ContentError> {
        let Content { mut kind, mut class, mut labels, mut body, types } = content.clone();
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
        let mut types = types_after(&types, &body, &self.types);
        for (at, by) in &self.add {
            add(&mut body, &types, at, *by)?;
        }
        // What was added apart may be beyond the range of one addition; that hinders no other field.
        let beyond: LeafTypes = content
            .types
            .iter()
            .filter(|(at, kind)| {
                types.get(*at) == Some(kind)
                    && leaf(&body, at) == leaf(&content.body, at)
                    && matches!(check_type(&body, at, **kind), Err(ContentError::Type { .. }))
            })
            .map(|(at, kind)| (at.clone(), *kind))
            .collect();
        types.retain(|at, _| !beyond.contains_key(at));
        let mut content = Content::typed(kind, class, labels, body, types)?;
        content.types.extend(beyond);
        Ok(content)
    }
}

fn add(body: &mut Value, types: &LeafTypes, at: &str, by: i64) -> Result<(), ContentError> {
    let place = if types.get(at) == Some(&LeafType::Counter) { body.pointer_mut(at) } else { None };
    let refused = |why| {
        let path = shortened(format!("/body{at}"));
        Err(ContentError::Type { path, kind: "counter", why })
    };
    let Some((place, number)) = place.and_then(|p| p.as_i64().map(|number| (p, number))) else {
        return refused("nothing can be added where no counter is; give it the type");
    };
    match number.checked_add(by) {
        Some(sum) => *place = sum.into(),
        None => return refused("the sum is no integer from -2^53 to 2^53"),
    }
    Ok(())
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
