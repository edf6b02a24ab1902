//! What a document holds at each place of a body, with everything that was written concurrently.

use std::cell::Cell;
use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash as Hash, ObjId, ObjType, ROOT, ReadDoc};
use automerge::{ScalarValueRef, ValueRef};
use serde_json::{Number, Value};

use super::content::{DEPTH_MAX, FLAT_BYTES_MAX, PLACES_MAX};
use super::error::DocumentError;
use super::pointer;

/// What one operation wrote.
#[derive(Debug, Clone)]
pub(super) enum Leaf {
    Scalar(Value),
    /// A string that is edited in place.
    Text(String),
    /// A number that is added to, as it stands.
    Counter(i64),
    /// The place is an object, made of what lies beneath.
    Marker,
    List(Vec<Register>),
    /// An object that is an element of a list; a flat map of its own.
    Element(Box<Place>),
}

/// What one operation wrote, and which operation it was.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) leaf: Leaf,
    /// The operation: of a list or element, also the name of its container.
    pub(super) id: ObjId,
}

/// Everything that holds at one place; the last is shown. Never empty.
#[derive(Debug, Clone)]
pub(super) struct Register {
    pub(super) shown: Entry,
    /// In the order of their operations, all before the one that is shown.
    pub(super) others: Vec<Entry>,
}

/// A place of a body: what was written there, and what lies beneath.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) register: Option<Register>,
    pub(super) children: BTreeMap<String, Self>,
}

/// Room for what is read of a document. Members may make one that says far more than any of them
/// wrote: a list of a few bytes can have a hundred thousand elements. One writer may write
/// [`PLACES_MAX`] places and [`FLAT_BYTES_MAX`] bytes; several, apart, have room for some times that.
pub(super) struct Room {
    places: Cell<usize>,
    bytes: Cell<usize>,
}

/// Places that are read of one document: values, what lies between, and conflicting ones.
const ROOM_PLACES: usize = 20 * PLACES_MAX;
/// Bytes that are read of one document, keys and paths in full for each place.
const ROOM_BYTES: usize = 8 * FLAT_BYTES_MAX;

impl Default for Room {
    fn default() -> Self {
        Self { places: Cell::new(ROOM_PLACES), bytes: Cell::new(ROOM_BYTES) }
    }
}

impl Room {
    /// Takes some of it; whether there is any left.
    pub(super) fn take(&self, places: usize, bytes: usize) -> bool {
        self.places.set(self.places.get().saturating_sub(places));
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        self.is_left()
    }

    pub(super) fn is_left(&self) -> bool {
        self.places.get() > 0 && self.bytes.get() > 0
    }

    /// Fails if it did not suffice, so that what was read is not all.
    pub(super) fn check(&self) -> Result<(), DocumentError> {
        if self.is_left() { Ok(()) } else { Err(DocumentError::Unshown) }
    }
}

/// Reads a document as it is, or as it was at some heads, as long as there is room.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    doc: &'a Automerge,
    heads: Option<&'a [Hash]>,
    pub(super) room: &'a Room,
}

impl<'a> Reader<'a> {
    pub(super) fn new(doc: &'a Automerge, heads: Option<&'a [Hash]>, room: &'a Room) -> Self {
        Self { doc, heads, room }
    }

    /// The register of a key of the root.
    pub(super) fn root_text(&self, key: &str) -> Option<Register> {
        self.members(&ROOT, key, None, 0)
    }

    /// The labels, each with its register.
    pub(super) fn labels(&self, labels: &ObjId) -> BTreeMap<String, Register> {
        let mut found = BTreeMap::new();
        self.each_member(labels, 0, |key, register| {
            found.insert(key.to_owned(), register);
        });
        found
    }

    /// A flat map: the body, or an element of a list. `depth` is how deep its root lies.
    pub(super) fn flat(&self, object: &ObjId, depth: usize) -> Place {
        let mut root = Place::default();
        self.each_member(object, depth, |key, register| {
            let Some(tokens) = pointer::tokens(key) else {
                return;
            };
            let mut place = &mut root;
            for token in tokens {
                if !place.children.contains_key(&*token) {
                    if !self.room.take(1, 0) {
                        return;
                    }
                    place.children.insert(token.clone().into_owned(), Place::default());
                }
                let Some(child) = place.children.get_mut(&*token) else {
                    return;
                };
                place = child;
            }
            place.register = Some(register);
        });
        root
    }

    fn each_member(&self, object: &ObjId, depth: usize, mut found: impl FnMut(&str, Register)) {
        let range = match self.heads {
            Some(heads) => self.doc.map_range_at(object, .., heads),
            None => self.doc.map_range(object, ..),
        };
        for item in range {
            // What lies too deep is not shown; no device writes it.
            if !self.room.take(1, item.key.len()) {
                return;
            }
            let depth = depth + item.key.bytes().filter(|byte| *byte == b'/').count();
            if depth > DEPTH_MAX {
                continue;
            }
            let register = if item.conflict {
                self.members(object, &item.key, None, depth)
            } else {
                self.leaf(&item.value, || item.id(), depth)
                    .map(|leaf| Entry { leaf, id: item.id() })
                    .map(|shown| Register { shown, others: Vec::new() })
            };
            if let Some(register) = register {
                found(&item.key, register);
            }
        }
    }

    /// All that holds at a key, or at an index, of which the schema knows.
    fn members(
        &self,
        object: &ObjId,
        key: &str,
        index: Option<usize>,
        depth: usize,
    ) -> Option<Register> {
        let all = match (self.heads, index) {
            (Some(heads), Some(index)) => self.doc.get_all_at(object, index, heads),
            (None, Some(index)) => self.doc.get_all(object, index),
            (Some(heads), None) => self.doc.get_all_at(object, key, heads),
            (None, None) => self.doc.get_all(object, key),
        };
        let mut entries: Vec<Entry> = all
            .unwrap_or_default()
            .into_iter()
            .take_while(|_| self.room.take(1, key.len()))
            .filter_map(|(value, id)| {
                let value = match &value {
                    automerge::Value::Object(kind) => ValueRef::Object(*kind),
                    automerge::Value::Scalar(scalar) => ValueRef::Scalar(scalar_ref(scalar)),
                };
                Some(Entry { leaf: self.leaf(&value, || id.clone(), depth)?, id })
            })
            .collect();
        let shown = entries.pop()?;
        Some(Register { shown, others: entries })
    }

    /// What a value means, or `None` if the schema does not know it.
    fn leaf(&self, value: &ValueRef<'_>, id: impl FnOnce() -> ObjId, depth: usize) -> Option<Leaf> {
        Some(match value {
            ValueRef::Object(ObjType::List) => Leaf::List(self.list(&id(), depth)),
            ValueRef::Object(ObjType::Map) => Leaf::Element(Box::new(self.flat(&id(), depth))),
            ValueRef::Object(ObjType::Text) => Leaf::Text(self.text(&id())),
            ValueRef::Object(_) => return None,
            ValueRef::Scalar(ScalarValueRef::Counter(number)) => Leaf::Counter(*number),
            ValueRef::Scalar(ScalarValueRef::Bytes(bytes)) if bytes.is_empty() => Leaf::Marker,
            ValueRef::Scalar(scalar) => {
                if let ScalarValueRef::Str(text) = scalar {
                    self.room.take(0, text.len());
                }
                Leaf::Scalar(json(scalar)?)
            }
        })
    }

    fn text(&self, text: &ObjId) -> String {
        let length = match self.heads {
            Some(heads) => self.doc.length_at(text, heads),
            None => self.doc.length(text),
        };
        // A character has up to four bytes, and each is a place.
        if !self.room.take(length, 4 * length) {
            return String::new();
        }
        let found = match self.heads {
            Some(heads) => self.doc.text_at(text, heads),
            None => self.doc.text(text),
        };
        // It is a text: its type was just read.
        found.unwrap_or_default()
    }

    fn list(&self, list: &ObjId, depth: usize) -> Vec<Register> {
        if depth >= DEPTH_MAX {
            return Vec::new();
        }
        let range = match self.heads {
            Some(heads) => self.doc.list_range_at(list, .., heads),
            None => self.doc.list_range(list, ..),
        };
        range
            .take_while(|_| self.room.take(1, 0))
            .map(|item| {
                let known = if item.conflict {
                    self.members(list, "", Some(item.index), depth + 1)
                } else {
                    self.leaf(&item.value, || item.id(), depth + 1)
                        .map(|leaf| Entry { leaf, id: item.id() })
                        .map(|shown| Register { shown, others: Vec::new() })
                };
                // An element that the schema does not know still counts as one.
                known.unwrap_or_else(|| Register {
                    shown: Entry { leaf: Leaf::Scalar(Value::Null), id: item.id() },
                    others: Vec::new(),
                })
            })
            .collect()
    }
}

fn scalar_ref(scalar: &automerge::ScalarValue) -> ScalarValueRef<'_> {
    use automerge::ScalarValue as Owned;
    match scalar {
        Owned::Bytes(bytes) => ScalarValueRef::Bytes(bytes.as_slice().into()),
        Owned::Str(text) => ScalarValueRef::Str(text.as_str().into()),
        Owned::Int(number) => ScalarValueRef::Int(*number),
        Owned::Uint(number) => ScalarValueRef::Uint(*number),
        Owned::F64(number) => ScalarValueRef::F64(*number),
        Owned::Boolean(value) => ScalarValueRef::Boolean(*value),
        Owned::Null => ScalarValueRef::Null,
        Owned::Counter(counter) => ScalarValueRef::Counter(counter.into()),
        Owned::Timestamp(_) | Owned::Unknown { .. } => {
            ScalarValueRef::Unknown { type_code: 0x0f, bytes: (&[][..]).into() }
        }
    }
}

/// The JSON of a scalar that the schema knows.
fn json(scalar: &ScalarValueRef<'_>) -> Option<Value> {
    Some(match scalar {
        ScalarValueRef::Null => Value::Null,
        ScalarValueRef::Boolean(value) => Value::Bool(*value),
        ScalarValueRef::Int(number) => Value::from(*number),
        ScalarValueRef::Uint(number) => Value::from(*number),
        ScalarValueRef::F64(number) => Value::Number(Number::from_f64(*number)?),
        ScalarValueRef::Str(text) => Value::String(text.clone().into_owned()),
        ScalarValueRef::Bytes(_)
        | ScalarValueRef::Counter(_)
        | ScalarValueRef::Timestamp(_)
        | ScalarValueRef::Unknown { .. } => return None,
    })
}
