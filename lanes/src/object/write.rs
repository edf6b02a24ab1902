//! Writing the difference between what a document shows and what it shall show.

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ObjType, ROOT, ScalarValue};
use serde_json::{Number, Value};
use std::collections::{BTreeMap, BTreeSet};

use super::chunk::Scalar;
use super::content::{Content, INCREMENT_MAX, LeafType, LeafTypes, same};
use super::place::{Leaf, Place, Reader, Register};
use super::pointer;
use super::skeleton;
use super::text;
use super::view::show_item;

/// Most cells of the table with which two lists are compared, between their common start and end:
/// 1 MiB of memory. Beyond it, elements are paired by position.
pub const LIST_CELLS_MAX: usize = 1 << 18;

type Result = std::result::Result<(), AutomergeError>;

/// Where new values are written: an Automerge transaction, or the encoder of new objects.
pub(super) trait Sink {
    /// Names a container.
    type Object;
    /// What may go wrong.
    type Error;
    /// Writes a scalar at a key.
    fn put(
        &mut self,
        object: &Self::Object,
        key: &str,
        value: Scalar<'_>,
    ) -> std::result::Result<(), Self::Error>;
    /// Writes an empty list at a key.
    fn put_list(
        &mut self,
        object: &Self::Object,
        key: &str,
    ) -> std::result::Result<Self::Object, Self::Error>;
    /// Writes a text at a key.
    fn put_text(
        &mut self,
        object: &Self::Object,
        key: &str,
        text: &str,
    ) -> std::result::Result<(), Self::Error>;
    /// Inserts a scalar into a list.
    fn insert(
        &mut self,
        list: &Self::Object,
        index: usize,
        value: Scalar<'_>,
    ) -> std::result::Result<(), Self::Error>;
    /// Inserts an empty map or list into a list.
    fn insert_container(
        &mut self,
        list: &Self::Object,
        index: usize,
        kind: ObjType,
    ) -> std::result::Result<Self::Object, Self::Error>;
}

impl Sink for Transaction<'_> {
    type Object = ObjId;
    type Error = AutomergeError;

    fn put(&mut self, object: &ObjId, key: &str, value: Scalar<'_>) -> Result {
        Transactable::put(self, object, key, owned(value))
    }

    fn put_list(
        &mut self,
        object: &ObjId,
        key: &str,
    ) -> std::result::Result<ObjId, AutomergeError> {
        self.put_object(object, key, ObjType::List)
    }

    fn put_text(&mut self, object: &ObjId, key: &str, text: &str) -> Result {
        let made = self.put_object(object, key, ObjType::Text)?;
        self.splice_text(&made, 0, 0, text)
    }

    fn insert(&mut self, list: &ObjId, index: usize, value: Scalar<'_>) -> Result {
        Transactable::insert(self, list, index, owned(value))
    }

    fn insert_container(
        &mut self,
        list: &ObjId,
        index: usize,
        kind: ObjType,
    ) -> std::result::Result<ObjId, AutomergeError> {
        self.insert_object(list, index, kind)
    }
}

/// The scalar that keeps a number's kind.
fn number(number: &Number) -> Scalar<'static> {
    if let Some(int) = number.as_i64() {
        Scalar::Int(int)
    } else if let Some(uint) = number.as_u64() {
        Scalar::Uint(uint)
    } else {
        // A number of serde_json is one of the three.
        Scalar::Float(number.as_f64().unwrap_or_default())
    }
}

/// The scalar of a value that is no container; containers are never asked for.
fn scalar(value: &Value) -> Scalar<'_> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => Scalar::Null,
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Number(value) => number(value),
        Value::String(text) => Scalar::Str(text),
    }
}

fn owned(scalar: Scalar<'_>) -> ScalarValue {
    match scalar {
        Scalar::Null => ScalarValue::Null,
        Scalar::Bool(value) => ScalarValue::Boolean(value),
        Scalar::Uint(number) => ScalarValue::Uint(number),
        Scalar::Int(number) => ScalarValue::Int(number),
        Scalar::Float(number) => ScalarValue::F64(number),
        Scalar::Str(text) => ScalarValue::Str(text.into()),
        Scalar::Counter(number) => ScalarValue::counter(number),
        // No JSON value is a byte string, so nothing else is mistaken for it.
        Scalar::Marker => ScalarValue::Bytes(Vec::new()),
    }
}

/// The members of an object in the order of their keys, whatever order its map keeps.
fn sorted(members: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    sorted
}

/// Writes all of a content into a document that holds nothing but the skeleton.
pub(super) fn fill<S: Sink>(
    sink: &mut S,
    [root, labels, body]: [&S::Object; 3],
    content: &Content,
) -> std::result::Result<(), S::Error> {
    sink.put(root, "kind", Scalar::Str(&content.kind))?;
    sink.put(root, "class", Scalar::Str(&content.class))?;
    for (key, value) in &content.labels {
        sink.put(labels, key, Scalar::Str(value))?;
    }
    fill_place(sink, body, &mut String::new(), &content.body, &content.types)
}

/// The types of what lies in a list: it has none.
const PLAIN: &LeafTypes = &LeafTypes::new();

/// Writes a value and all beneath it at a place where nothing is.
fn fill_place<S: Sink>(
    sink: &mut S,
    object: &S::Object,
    at: &mut String,
    value: &Value,
    types: &LeafTypes,
) -> std::result::Result<(), S::Error> {
    match value {
        Value::Object(members) => {
            sink.put(object, at, Scalar::Marker)?;
            fill_members(sink, object, at, members, types)
        }
        Value::Array(items) => {
            let list = sink.put_list(object, at)?;
            fill_list(sink, &list, items)
        }
        value => match (types.get(at), value) {
            (Some(LeafType::Text), Value::String(text)) => sink.put_text(object, at, text),
            (Some(LeafType::Counter), value) if value.is_i64() => {
                sink.put(object, at, Scalar::Counter(value.as_i64().unwrap_or_default()))
            }
            _ => sink.put(object, at, scalar(value)),
        },
    }
}

fn fill_members<S: Sink>(
    sink: &mut S,
    object: &S::Object,
    at: &mut String,
    members: &serde_json::Map<String, Value>,
    types: &LeafTypes,
) -> std::result::Result<(), S::Error> {
    let length = at.len();
    for (key, value) in sorted(members) {
        pointer::push(at, key);
        fill_place(sink, object, at, value, types)?;
        at.truncate(length);
    }
    Ok(())
}

fn fill_list<S: Sink>(
    sink: &mut S,
    list: &S::Object,
    items: &[Value],
) -> std::result::Result<(), S::Error> {
    for (index, item) in items.iter().enumerate() {
        fill_item(sink, list, index, item)?;
    }
    Ok(())
}

fn fill_item<S: Sink>(
    sink: &mut S,
    list: &S::Object,
    index: usize,
    item: &Value,
) -> std::result::Result<(), S::Error> {
    match item {
        Value::Object(members) => {
            let element = sink.insert_container(list, index, ObjType::Map)?;
            fill_members(sink, &element, &mut String::new(), members, PLAIN)
        }
        Value::Array(items) => {
            let inner = sink.insert_container(list, index, ObjType::List)?;
            fill_list(sink, &inner, items)
        }
        item => sink.insert(list, index, scalar(item)),
    }
}

/// What a document shows, read before it is written to.
pub(super) struct Before {
    kind: Option<Register>,
    class: Option<Register>,
    labels: BTreeMap<String, Register>,
    body: Place,
}

impl Before {
    pub(super) fn read(reader: Reader<'_>) -> Self {
        Self {
            kind: reader.root_text("kind"),
            class: reader.root_text("class"),
            labels: reader.labels(&skeleton().labels),
            body: reader.flat(&skeleton().body, 0),
        }
    }

    /// Writes what differs.
    pub(super) fn change_to(&self, tx: &mut Transaction<'_>, content: &Content) -> Result {
        let texts = [("kind", &self.kind, &content.kind), ("class", &self.class, &content.class)];
        for (key, before, text) in texts {
            if !shows_text(before.as_ref(), text) {
                Transactable::put(tx, &ROOT, key, text.as_str())?;
            }
        }
        let labels = &skeleton().labels;
        let keys: BTreeSet<&String> = self.labels.keys().chain(content.labels.keys()).collect();
        for key in keys {
            match content.labels.get(key) {
                Some(text) if shows_text(self.labels.get(key), text) => {}
                Some(text) => Transactable::put(tx, labels, key.as_str(), text.as_str())?,
                None => tx.delete(labels, key.as_str())?,
            }
        }
        let object = &skeleton().body;
        let mut at = String::new();
        if self.body.register.is_none() && self.body.children.is_empty() {
            fill_place(tx, object, &mut at, &content.body, &content.types)
        } else {
            change_place(tx, object, &mut at, &self.body, &content.body, &content.types)
        }
    }
}

fn shows_text(before: Option<&Register>, text: &str) -> bool {
    match before.map(|register| &register.shown.leaf) {
        Some(Leaf::Scalar(Value::String(shown))) => shown == text,
        _ => false,
    }
}

fn change_place(
    tx: &mut Transaction<'_>,
    object: &ObjId,
    at: &mut String,
    place: &Place,
    target: &Value,
    types: &LeafTypes,
) -> Result {
    let shown = place.register.as_ref().map(|register| &register.shown);
    match (target, shown.map(|entry| &entry.leaf)) {
        (Value::Object(members), None) => {
            // An object without a marker, since what lies beneath outlived its deletion. It gets
            // one if something beneath it changes, lest it go when that is deleted.
            let before = tx.pending_ops();
            change_members(tx, object, at, place, members, types)?;
            if tx.pending_ops() > before {
                Transactable::put(tx, object, at.as_str(), owned(Scalar::Marker))?;
            }
            Ok(())
        }
        (Value::Object(members), Some(leaf)) => {
            if !matches!(leaf, Leaf::Marker) {
                Transactable::put(tx, object, at.as_str(), owned(Scalar::Marker))?;
            }
            change_members(tx, object, at, place, members, types)
        }
        (Value::Array(items), Some(Leaf::List(before))) => {
            // The name of a list is that of the operation which made it.
            match shown.map(|entry| &entry.id) {
                Some(list) => change_list(tx, list, before, items),
                None => Ok(()),
            }
        }
        (Value::Array(items), _) => {
            let list = tx.put_object(object, at.as_str(), ObjType::List)?;
            fill_list(tx, &list, items)?;
            delete_beneath(tx, object, at, place)
        }
        (target, leaf) => {
            let edited = match (types.get(at), &place.register) {
                (None, _) => matches!(leaf, Some(Leaf::Scalar(shown)) if same(target, shown)),
                (Some(LeafType::Text), Some(register)) => edit_text(tx, register, target)?,
                (Some(LeafType::Counter), Some(register)) => {
                    add_to_counter(tx, object, at, register, target)?
                }
                (Some(_), None) => false,
            };
            if edited {
                return Ok(());
            }
            if only_the_sign_of_zero_differs(leaf, target) || matches!(leaf, Some(Leaf::Counter(_)))
            {
                tx.delete(object, at.as_str())?;
            }
            fill_place(tx, object, at, target, types)?;
            delete_beneath(tx, object, at, place)
        }
    }
}

/// Edits a text in place; false where none is shown. As with a list, what else was written there
/// concurrently stays a conflict.
fn edit_text(
    tx: &mut Transaction<'_>,
    register: &Register,
    target: &Value,
) -> std::result::Result<bool, AutomergeError> {
    let (Leaf::Text(shown), Value::String(target)) = (&register.shown.leaf, target) else {
        return Ok(false);
    };
    if shown == target {
        return Ok(true);
    }
    let (old, new): (Vec<char>, Vec<char>) = (shown.chars().collect(), target.chars().collect());
    // From the end, so that the places before stay what they are.
    for text::Edit { from, with } in text::edits(&old, &new).into_iter().rev() {
        let with: String = new[with].iter().collect();
        // A text has far fewer characters than an isize counts.
        tx.splice_text(&register.shown.id, from.start, from.len() as isize, &with)?;
    }
    Ok(true)
}

/// Adds the difference to a counter; false where none is shown, or where it must be written anew.
/// Counters that were created apart at one place are all added to, and stay a conflict.
fn add_to_counter(
    tx: &mut Transaction<'_>,
    object: &ObjId,
    at: &str,
    register: &Register,
    target: &Value,
) -> std::result::Result<bool, AutomergeError> {
    let (Leaf::Counter(shown), Some(target)) = (&register.shown.leaf, target.as_i64()) else {
        return Ok(false);
    };
    if *shown == target {
        return Ok(true);
    }
    // To what is no counter, Automerge's addition is an overwriting at one device and none at
    // another.
    let addable = register.others.iter().all(|entry| matches!(entry.leaf, Leaf::Counter(_)));
    match target.checked_sub(*shown) {
        Some(by) if addable && by.unsigned_abs() <= INCREMENT_MAX => {
            tx.increment(object, at, by)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Automerge leaves out a write of what is equal, and to it 0.0 and -0.0 are.
fn only_the_sign_of_zero_differs(leaf: Option<&Leaf>, target: &Value) -> bool {
    matches!(leaf, Some(Leaf::Scalar(shown)) if shown == target && !same(shown, target))
}

fn change_members(
    tx: &mut Transaction<'_>,
    object: &ObjId,
    at: &mut String,
    place: &Place,
    members: &serde_json::Map<String, Value>,
    types: &LeafTypes,
) -> Result {
    let keys: BTreeSet<&String> = place.children.keys().chain(members.keys()).collect();
    let length = at.len();
    for key in keys {
        pointer::push(at, key);
        match (place.children.get(key), members.get(key)) {
            (Some(child), Some(target)) => change_place(tx, object, at, child, target, types)?,
            (Some(child), None) => {
                if child.register.is_some() {
                    tx.delete(object, at.as_str())?;
                }
                delete_beneath(tx, object, at, child)?;
            }
            (None, Some(target)) => fill_place(tx, object, at, target, types)?,
            (None, None) => {}
        }
        at.truncate(length);
    }
    Ok(())
}

fn delete_beneath(
    tx: &mut Transaction<'_>,
    object: &ObjId,
    at: &mut String,
    place: &Place,
) -> Result {
    let length = at.len();
    for (key, child) in &place.children {
        pointer::push(at, key);
        if child.register.is_some() {
            tx.delete(object, at.as_str())?;
        }
        delete_beneath(tx, object, at, child)?;
        at.truncate(length);
    }
    Ok(())
}

/// A stretch of a list that is replaced: so many elements from `from` by `with`.
struct Replaced {
    from: usize,
    count: usize,
    with: std::ops::Range<usize>,
}

fn change_list(
    tx: &mut Transaction<'_>,
    list: &ObjId,
    before: &[Register],
    target: &[Value],
) -> Result {
    let shown: Vec<Value> =
        before.iter().map(|item| show_item(item, &mut String::new(), None)).collect();
    // From the end, so that the indexes before stay what they are.
    for Replaced { from, count, with } in differences(&shown, target).into_iter().rev() {
        let paired = count.min(with.len());
        for index in (paired..count).rev() {
            tx.delete(list, from + index)?;
        }
        for index in paired..with.len() {
            fill_item(tx, list, from + index, &target[with.start + index])?;
        }
        for index in 0..paired {
            let (item, target) = (&before[from + index], &target[with.start + index]);
            change_item(tx, list, from + index, item, target)?;
        }
    }
    Ok(())
}

fn change_item(
    tx: &mut Transaction<'_>,
    list: &ObjId,
    index: usize,
    item: &Register,
    target: &Value,
) -> Result {
    match (target, &item.shown.leaf) {
        (Value::Object(members), Leaf::Element(place)) => {
            change_members(tx, &item.shown.id, &mut String::new(), place, members, PLAIN)
        }
        (Value::Array(items), Leaf::List(before)) => change_list(tx, &item.shown.id, before, items),
        (Value::Object(members), _) => {
            let element = tx.put_object(list, index, ObjType::Map)?;
            fill_members(tx, &element, &mut String::new(), members, PLAIN)
        }
        (Value::Array(items), _) => {
            let inner = tx.put_object(list, index, ObjType::List)?;
            fill_list(tx, &inner, items)
        }
        (target, Leaf::Scalar(shown)) if same(target, shown) => Ok(()),
        (target, leaf) if only_the_sign_of_zero_differs(Some(leaf), target) => {
            tx.delete(list, index)?;
            Transactable::insert(tx, list, index, owned(scalar(target)))
        }
        (target, _) => Transactable::put(tx, list, index, owned(scalar(target))),
    }
}

/// The stretches in which two lists differ, by a longest common subsequence where that is cheap.
fn differences(before: &[Value], target: &[Value]) -> Vec<Replaced> {
    let start = before.iter().zip(target).take_while(|(a, b)| same(a, b)).count();
    let (old, new) = (&before[start..], &target[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| same(a, b)).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let whole = || vec![Replaced { from: start, count: old.len(), with: start..start + new.len() }];
    if old.is_empty() && new.is_empty() {
        return Vec::new();
    }
    let width = new.len() + 1;
    let cells = (old.len() + 1).checked_mul(width);
    if old.is_empty() || new.is_empty() || cells.is_none_or(|cells| cells > LIST_CELLS_MAX) {
        return whole();
    }
    // lengths[i * width + j]: the longest common subsequence of old[i..] and new[j..].
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = if same(&old[i], &new[j]) {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let mut stretches = Vec::new();
    let (mut i, mut j) = (0, 0);
    let (mut from, mut with) = (0, 0);
    loop {
        let common = i < old.len() && j < new.len() && same(&old[i], &new[j]);
        let over = i == old.len() && j == new.len();
        if common || over {
            if from < i || with < j {
                let with = start + with..start + j;
                stretches.push(Replaced { from: start + from, count: i - from, with });
            }
            if over {
                return stretches;
            }
            (i, j) = (i + 1, j + 1);
            (from, with) = (i, j);
        } else if j == new.len()
            || (i < old.len() && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])
        {
            i += 1;
        } else {
            j += 1;
        }
    }
}
