//! What a document shows: one content, and the conflicts that it hides.

use std::collections::BTreeMap;

use automerge::ObjId;
use serde_json::{Map, Value};

use super::content::{CLASS_DEFAULT, Content, KIND_DEFAULT, LeafType, LeafTypes, same};
use super::error::DocumentError;
use super::place::{Entry, Leaf, Place, Reader, Register, Room};
use super::pointer;
use super::skeleton;

/// What an object says, and what else was written concurrently.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// What is shown.
    pub content: Content,
    /// The places at which devices disagreed, in the order of their paths.
    pub conflicts: Vec<Conflict>,
}

impl View {
    /// The view of an object that cannot be shown.
    pub(crate) fn nothing() -> Self {
        let content = Content {
            kind: KIND_DEFAULT.to_owned(),
            class: CLASS_DEFAULT.to_owned(),
            labels: BTreeMap::new(),
            body: Value::Null,
            types: LeafTypes::default(),
        };
        Self { content, conflicts: Vec::new() }
    }
}

/// A place that was given different values concurrently.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// A JSON pointer into the object: `/kind`, `/class`, `/labels/x` or `/body/a/b`.
    pub path: String,
    /// The distinct values; the one that is shown comes first, then the later ones first.
    pub values: Vec<ConflictValue>,
}

/// One of the values at a place.
#[derive(Debug, Clone, PartialEq)]
pub struct ConflictValue {
    /// The value. Of an object, what is shown of it.
    pub value: Value,
    /// Who wrote it. Of an object without a marker, who last wrote beneath it.
    pub actor: [u8; 16],
    /// Whether the view shows this value.
    pub shown: bool,
}

/// What is noted of places that are shown.
pub(super) struct Notes<'a> {
    room: &'a Room,
    conflicts: Vec<Conflict>,
    types: LeafTypes,
}

/// Where paths in the body begin.
const BODY: &str = "/body";

/// The view of a document as the reader sees it; fails if there is more of it than room.
pub(super) fn view(reader: Reader<'_>) -> Result<View, DocumentError> {
    let skeleton = skeleton();
    let mut notes = Notes { room: reader.room, conflicts: Vec::new(), types: LeafTypes::default() };
    let mut text = |path: String, register: Option<Register>| {
        let values = texts(&register?);
        note(&path, &values, &mut notes);
        match &values.first()?.value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        }
    };
    let kind = text("/kind".into(), reader.root_text("kind"));
    let class = text("/class".into(), reader.root_text("class"));
    let labels: BTreeMap<String, String> = reader
        .labels(&skeleton.labels)
        .into_iter()
        .filter_map(|(key, register)| {
            let path = pointer::child("/labels", &key);
            Some((key, text(path, Some(register))?))
        })
        .collect();
    let body = reader.flat(&skeleton.body, 0);
    let body = if body.register.is_none() && body.children.is_empty() {
        Value::Object(Map::new())
    } else {
        show(&body, &mut String::from(BODY), Some(&mut notes))
    };
    let Notes { mut conflicts, types, .. } = notes;
    reader.room.check()?;
    conflicts.sort_by(|a, b| a.path.cmp(&b.path));
    let content = Content {
        kind: kind.unwrap_or_else(|| KIND_DEFAULT.to_owned()),
        class: class.unwrap_or_else(|| CLASS_DEFAULT.to_owned()),
        labels,
        body,
        types,
    };
    Ok(View { content, conflicts })
}

/// The texts of a register of the root or the labels, the shown one first.
fn texts(register: &Register) -> Vec<ConflictValue> {
    [&register.shown]
        .into_iter()
        .chain(register.others.iter().rev())
        .filter_map(|entry| match &entry.leaf {
            Leaf::Scalar(value @ Value::String(_)) => Some(value_of(entry, value.clone())),
            _ => None,
        })
        .collect()
}

fn value_of(entry: &Entry, value: Value) -> ConflictValue {
    ConflictValue { value, actor: actor_of(&entry.id), shown: false }
}

/// The actor of an operation. Every actor of a document is 16 bytes long: loading and applying
/// see to it.
pub(super) fn actor_of(id: &ObjId) -> [u8; 16] {
    match id {
        ObjId::Root => [0; 16],
        ObjId::Id(_, actor, _) => actor.to_bytes().try_into().unwrap_or([0; 16]),
    }
}

/// Notes a conflict if the values differ. The first is the one shown.
fn note(path: &str, values: &[ConflictValue], notes: &mut Notes<'_>) {
    let bytes: usize = values.iter().map(|value| bytes_of(&value.value)).sum();
    if !notes.room.take(values.len(), path.len() + bytes) {
        return;
    }
    let mut distinct: Vec<ConflictValue> = Vec::new();
    for value in values {
        if !distinct.iter().any(|other| same(&other.value, &value.value)) {
            distinct.push(value.clone());
        }
    }
    if distinct.len() > 1 {
        distinct[0].shown = true;
        notes.conflicts.push(Conflict { path: path.to_owned(), values: distinct });
    }
}

/// About how much memory a value takes, in bytes.
fn bytes_of(value: &Value) -> usize {
    const NODE_BYTES: usize = 32;
    NODE_BYTES
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(bytes_of).sum(),
            Value::Object(members) => {
                members.iter().map(|(key, value)| key.len() + bytes_of(value)).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// What a place shows. Notes types and conflicts at and beneath it, unless the place itself is hidden.
pub(super) fn show(place: &Place, path: &mut String, mut notes: Option<&mut Notes<'_>>) -> Value {
    let Some(register) = &place.register else {
        return Value::Object(members(place, path, notes));
    };
    let shown = match &register.shown.leaf {
        Leaf::Marker => Value::Object(members(place, path, notes.as_deref_mut())),
        leaf => show_leaf(leaf, path, notes.as_deref_mut()),
    };
    let Some(notes) = notes else {
        return shown;
    };
    if register.others.is_empty() && (place.children.is_empty() || is_marker(&register.shown)) {
        return shown;
    }
    let mut values = vec![value_of(&register.shown, shown.clone())];
    let mut hidden: Vec<(&ObjId, Value)> = register
        .others
        .iter()
        .filter(|entry| !is_marker(entry))
        .map(|entry| (&entry.id, show_leaf(&entry.leaf, path, None)))
        .collect();
    if !is_marker(&register.shown) {
        let marker = register.others.iter().rfind(|entry| is_marker(entry));
        if let Some(id) = marker.map(|entry| &entry.id).or_else(|| last_beneath(place)) {
            hidden.push((id, Value::Object(members(place, path, None))));
        }
    }
    hidden.sort_by(|a, b| b.0.cmp(a.0));
    values.extend(hidden.into_iter().map(|(id, value)| ConflictValue {
        value,
        actor: actor_of(id),
        shown: false,
    }));
    note(path, &values, notes);
    shown
}

pub(super) fn is_marker(entry: &Entry) -> bool {
    matches!(entry.leaf, Leaf::Marker)
}

/// The latest operation beneath a place.
fn last_beneath(place: &Place) -> Option<&ObjId> {
    place
        .children
        .values()
        .flat_map(|child| {
            let own = child.register.as_ref().map(|register| &register.shown.id);
            own.into_iter().chain(last_beneath(child))
        })
        .max()
}

fn members(
    place: &Place,
    path: &mut String,
    mut notes: Option<&mut Notes<'_>>,
) -> Map<String, Value> {
    let length = path.len();
    let mut members = Map::new();
    for (key, child) in &place.children {
        pointer::push(path, key);
        members.insert(key.clone(), show(child, path, notes.as_deref_mut()));
        path.truncate(length);
    }
    members
}

fn note_type(path: &str, kind: LeafType, notes: Option<&mut Notes<'_>>) {
    if let (Some(notes), Some(at)) = (notes, path.strip_prefix(BODY)) {
        notes.types.insert(at.to_owned(), kind);
    }
}

fn show_leaf(leaf: &Leaf, path: &mut String, mut notes: Option<&mut Notes<'_>>) -> Value {
    match leaf {
        Leaf::Scalar(value) => value.clone(),
        Leaf::Text(text) => {
            note_type(path, LeafType::Text, notes);
            Value::String(text.clone())
        }
        Leaf::Counter(number) => {
            note_type(path, LeafType::Counter, notes);
            Value::from(*number)
        }
        Leaf::Marker => Value::Object(Map::new()),
        Leaf::Element(place) => Value::Object(members(place, path, notes)),
        Leaf::List(items) => {
            let length = path.len();
            let mut values = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                pointer::push(path, &index.to_string());
                values.push(show_item(item, path, notes.as_deref_mut()));
                path.truncate(length);
            }
            Value::Array(values)
        }
    }
}

/// What an element of a list shows.
pub(super) fn show_item(
    item: &Register,
    path: &mut String,
    mut notes: Option<&mut Notes<'_>>,
) -> Value {
    let shown = show_leaf(&item.shown.leaf, path, notes.as_deref_mut());
    if let Some(notes) = notes
        && !item.others.is_empty()
    {
        let mut values = vec![value_of(&item.shown, shown.clone())];
        for entry in item.others.iter().rev() {
            values.push(value_of(entry, show_leaf(&entry.leaf, path, None)));
        }
        note(path, &values, notes);
    }
    shown
}
