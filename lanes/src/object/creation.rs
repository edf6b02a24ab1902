//! The first change of a new object, written and read without building a document.
//!
//! Most changes create an object, and building a document for each costs twenty times what its
//! bytes need. Writing follows Automerge's own encoding byte for byte, which a property test holds
//! it to. Reading proves itself: what was read is written again, and only if that gives the very
//! bytes is it taken; anything else is left to Automerge.

use automerge::ObjType;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;

use super::chunk::{self, Change, Key, MAKE_LIST, MAKE_MAP, MAKE_TEXT, OpRef, PUT, Scalar};
use super::content::{Content, DEPTH_MAX, LeafType, LeafTypes};
use super::{EncodedChange, pointer, skeleton, write};
use crate::ids::{ChangeHash, WallMillis};

/// The author's place among a change's actors, and the skeleton's.
const AUTHOR: usize = 0;
const SKELETON: usize = 1;
/// The skeleton's operations.
const LABELS: OpRef = (SKELETON, 1);
const BODY: OpRef = (SKELETON, 2);
const START_OP: u64 = 3;

/// An operation that is to be written.
struct Row {
    object: Option<OpRef>,
    /// Where its key lies in the text of all keys, or the element that it follows.
    key: RowKey,
    action: u64,
    meta: u64,
}

enum RowKey {
    Member(std::ops::Range<usize>),
    After(Option<u64>),
}

/// Operations, and bytes of keys and of values, that there is room for from the start: most objects have
/// fewer.
const ROWS_ROOM: usize = 16;
const BYTES_ROOM: usize = 256;

/// Collects the operations of a first change.
struct Encoder {
    rows: Vec<Row>,
    keys: String,
    values: Vec<u8>,
    /// The last element of each list that is being filled.
    last: BTreeMap<u64, u64>,
}

impl Encoder {
    fn new() -> Self {
        Self {
            rows: Vec::with_capacity(ROWS_ROOM),
            keys: String::with_capacity(BYTES_ROOM),
            values: Vec::with_capacity(BYTES_ROOM),
            last: BTreeMap::new(),
        }
    }

    fn row(&mut self, object: Option<OpRef>, key: RowKey, action: u64, meta: u64) -> u64 {
        self.rows.push(Row { object, key, action, meta });
        START_OP + self.rows.len() as u64 - 1
    }

    fn member(&mut self, key: &str) -> RowKey {
        let start = self.keys.len();
        self.keys.push_str(key);
        RowKey::Member(start..self.keys.len())
    }

    /// Lists are filled from their start to their end.
    fn element(&mut self, list: &Option<OpRef>, action: u64, meta: u64) -> u64 {
        let number = list.map_or(0, |(_, number)| number);
        let after = RowKey::After(self.last.get(&number).copied());
        let op = self.row(*list, after, action, meta);
        self.last.insert(number, op);
        op
    }

    /// Appends a value and gives its type and length.
    fn value(&mut self, value: Scalar<'_>) -> u64 {
        let start = self.values.len();
        let kind = match value {
            Scalar::Null => 0,
            Scalar::Bool(false) => 1,
            Scalar::Bool(true) => 2,
            Scalar::Uint(number) => {
                unsigned(&mut self.values, number);
                3
            }
            Scalar::Int(number) => {
                signed(&mut self.values, number);
                4
            }
            Scalar::Float(number) => {
                self.values.extend(number.to_le_bytes());
                5
            }
            Scalar::Str(text) => {
                self.values.extend(text.as_bytes());
                6
            }
            Scalar::Marker => 7,
            Scalar::Counter(number) => {
                signed(&mut self.values, number);
                8
            }
        };
        ((self.values.len() - start) as u64) << 4 | kind
    }
}

impl write::Sink for Encoder {
    type Object = Option<OpRef>;
    type Error = Infallible;

    fn put(
        &mut self,
        object: &Option<OpRef>,
        key: &str,
        value: Scalar<'_>,
    ) -> Result<(), Infallible> {
        let meta = self.value(value);
        let key = self.member(key);
        self.row(*object, key, PUT, meta);
        Ok(())
    }

    fn put_list(&mut self, object: &Option<OpRef>, key: &str) -> Result<Option<OpRef>, Infallible> {
        let key = self.member(key);
        Ok(Some((AUTHOR, self.row(*object, key, MAKE_LIST, 0))))
    }

    fn put_text(
        &mut self,
        object: &Option<OpRef>,
        key: &str,
        text: &str,
    ) -> Result<(), Infallible> {
        let key = self.member(key);
        let made = Some((AUTHOR, self.row(*object, key, MAKE_TEXT, 0)));
        for character in text.chars() {
            let meta = self.value(Scalar::Str(character.encode_utf8(&mut [0; 4])));
            self.element(&made, PUT, meta);
        }
        Ok(())
    }

    fn insert(
        &mut self,
        list: &Option<OpRef>,
        _index: usize,
        value: Scalar<'_>,
    ) -> Result<(), Infallible> {
        let meta = self.value(value);
        self.element(list, PUT, meta);
        Ok(())
    }

    fn insert_container(
        &mut self,
        list: &Option<OpRef>,
        _index: usize,
        kind: ObjType,
    ) -> Result<Option<OpRef>, Infallible> {
        let action = if kind == ObjType::List { MAKE_LIST } else { MAKE_MAP };
        Ok(Some((AUTHOR, self.element(list, action, 0))))
    }
}

/// The change by which `actor` creates an object.
pub(super) fn create(content: &Content, actor: [u8; 16], now: WallMillis) -> EncodedChange {
    let body = body(content, actor, super::time(now));
    let mut bytes = Vec::with_capacity(body.len() + 16);
    bytes.extend(chunk::MAGIC);
    bytes.extend([0; 4]);
    bytes.push(chunk::CHUNK_CHANGE);
    unsigned(&mut bytes, body.len() as u64);
    bytes.extend(body);
    let hash: [u8; 32] = Sha256::digest(&bytes[8..]).into();
    bytes[4..8].copy_from_slice(&hash[..4]);
    EncodedChange { hash: ChangeHash(hash), bytes, deps: Vec::new() }
}

/// The bytes of a creating change after its header.
fn body(content: &Content, actor: [u8; 16], time: i64) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let Ok(()) = write::fill(&mut encoder, [&None, &Some(LABELS), &Some(BODY)], content);
    let mut body = Vec::with_capacity(256 + encoder.keys.len() + encoder.values.len());
    body.push(1);
    body.extend(skeleton().hash.0);
    body.push(16);
    body.extend(actor);
    unsigned(&mut body, 1);
    unsigned(&mut body, START_OP);
    signed(&mut body, time);
    body.push(0);
    body.push(1);
    body.push(16);
    body.extend(skeleton().actor);
    encoder.columns(&mut body);
    body
}

impl Encoder {
    fn columns(&self, out: &mut Vec<u8>) {
        let rows = &self.rows;
        let mut data = Vec::with_capacity(64 + self.keys.len() + self.values.len());
        let mut lengths = [(0_u64, 0_usize); 10];
        let mut count = 0;
        let mut column = |spec, data: &mut Vec<u8>, write: &mut dyn FnMut(&mut Vec<u8>)| {
            let start = data.len();
            write(data);
            if data.len() > start {
                lengths[count] = (spec, data.len() - start);
                count += 1;
            }
        };
        let number = |out: &mut Vec<u8>, number: &u64| unsigned(out, *number);
        column(chunk::OBJ_ACTOR, &mut data, &mut |out| {
            run_lengths(out, rows.iter().map(|row| row.object.map(|(a, _)| a as u64)), number);
        });
        column(chunk::OBJ_COUNTER, &mut data, &mut |out| {
            run_lengths(out, rows.iter().map(|row| row.object.map(|(_, number)| number)), number);
        });
        column(chunk::KEY_ACTOR, &mut data, &mut |out| {
            let actors = rows.iter().map(|row| match row.key {
                RowKey::After(Some(_)) => Some(AUTHOR as u64),
                _ => None,
            });
            run_lengths(out, actors, number);
        });
        column(chunk::KEY_COUNTER, &mut data, &mut |out| {
            let mut last = 0;
            let numbers = rows.iter().map(|row| match row.key {
                RowKey::After(after) => {
                    // Operations are numbered below 2^32.
                    let number = after.unwrap_or(0) as i64;
                    let difference = number - last;
                    last = number;
                    Some(difference)
                }
                RowKey::Member(_) => None,
            });
            run_lengths(out, numbers, |out, number| signed(out, *number));
        });
        column(chunk::KEY_STRING, &mut data, &mut |out| {
            let keys = rows.iter().map(|row| match &row.key {
                RowKey::Member(range) => Some(&self.keys[range.clone()]),
                RowKey::After(_) => None,
            });
            run_lengths(out, keys, |out, key| {
                unsigned(out, key.len() as u64);
                out.extend(key.as_bytes());
            });
        });
        column(chunk::INSERT, &mut data, &mut |out| {
            booleans(out, rows.iter().map(|row| matches!(row.key, RowKey::After(_))));
        });
        column(chunk::ACTION, &mut data, &mut |out| {
            run_lengths(out, rows.iter().map(|row| Some(row.action)), number);
        });
        column(chunk::VALUE_META, &mut data, &mut |out| {
            run_lengths(out, rows.iter().map(|row| Some(row.meta)), number);
        });
        column(chunk::VALUE, &mut data, &mut |out| out.extend(&self.values));
        column(chunk::PRED_COUNT, &mut data, &mut |out| {
            run_lengths(out, rows.iter().map(|_| Some(0)), number);
        });
        unsigned(out, count as u64);
        for (spec, length) in lengths.into_iter().take(count) {
            unsigned(out, spec);
            unsigned(out, length as u64);
        }
        out.extend(data);
    }
}

pub(super) fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn signed(out: &mut Vec<u8>, mut number: i64) {
    loop {
        let byte = number as u8 & 0x7f;
        number >>= 7;
        if (number == 0 && byte & 0x40 == 0) || (number == -1 && byte & 0x40 != 0) {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

/// Writes a column: runs of equal values, runs of nothing, and stretches without repetition. A
/// column that holds nothing is left out.
pub(super) fn run_lengths<T: PartialEq>(
    out: &mut Vec<u8>,
    values: impl Iterator<Item = Option<T>>,
    write: impl Fn(&mut Vec<u8>, &T),
) {
    let mut values = values.peekable();
    let mut written = false;
    // It takes no room until something is put into it.
    let mut literal: Vec<T> = Vec::new();
    let flush = |out: &mut Vec<u8>, literal: &mut Vec<T>| {
        if !literal.is_empty() {
            signed(out, -(literal.len() as i64));
            literal.drain(..).for_each(|value| write(out, &value));
        }
    };
    while let Some(value) = values.next() {
        let mut run = 1_u64;
        while values.next_if(|next| *next == value).is_some() {
            run += 1;
        }
        match value {
            None => {
                if !written && literal.is_empty() && values.peek().is_none() {
                    return;
                }
                flush(out, &mut literal);
                signed(out, 0);
                unsigned(out, run);
            }
            Some(value) if run == 1 => {
                if literal.capacity() == 0 {
                    literal.reserve(ROWS_ROOM);
                }
                literal.push(value);
            }
            Some(value) => {
                flush(out, &mut literal);
                signed(out, run as i64);
                write(out, &value);
            }
        }
        written = true;
    }
    flush(out, &mut literal);
}

pub(super) fn booleans(out: &mut Vec<u8>, values: impl Iterator<Item = bool>) {
    let (mut current, mut run) = (false, 0);
    for value in values {
        if value != current {
            unsigned(out, run);
            (current, run) = (value, 0);
        }
        run += 1;
    }
    unsigned(out, run);
}

/// What a creating change says, or `None` if it must be left to Automerge.
pub(super) fn read(change: &Change<'_>, actor: [u8; 16]) -> Option<Content> {
    if change.seq != 1 || change.start_op != START_OP || change.deps != [skeleton().hash] {
        return None;
    }
    let mut ops = Ops { change, at: 0, depth: 0, types: LeafTypes::new() };
    let [kind, class] = ["kind", "class"].map(|key| match ops.next_of(None)? {
        (Key::Member(found), PUT, Scalar::Str(text), _) if found == key => Some(text),
        _ => None,
    });
    let mut labels = BTreeMap::new();
    while let Some((Key::Member(key), PUT, Scalar::Str(text), _)) = ops.next_of(Some(LABELS)) {
        labels.insert(key.to_owned(), text.to_owned());
    }
    let mut shown = match ops.next_of(Some(BODY))? {
        (Key::Member(""), action, value, number) => {
            ops.note_type("", action, value);
            ops.value(action, value, number)?
        }
        _ => return None,
    };
    ops.members(BODY, &mut shown)?;
    let content = Content::typed(kind?, class?, labels, shown, ops.types).ok()?;
    // The proof: these bytes are what this content gives, and no others.
    (body(&content, actor, change.time) == change.body).then_some(content)
}

struct Ops<'c, 'a> {
    change: &'c Change<'a>,
    at: usize,
    /// How many lists and elements of lists are being read.
    depth: usize,
    types: LeafTypes,
}

impl<'a> Ops<'_, 'a> {
    /// The next operation if it writes to this object: its key, action, value and number.
    fn next_of(&mut self, object: Option<OpRef>) -> Option<(Key<'a>, u64, Scalar<'a>, u64)> {
        let op = self.change.ops.get(self.at)?;
        if op.object != object {
            return None;
        }
        self.at += 1;
        Some((op.key, op.action, op.value, START_OP + self.at as u64 - 1))
    }

    /// What an operation writes. Content is checked for its depth only once it is read, so the
    /// depth of lists is bounded here.
    fn value(&mut self, action: u64, value: Scalar<'a>, number: u64) -> Option<Value> {
        match action {
            PUT => Some(match value {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => Value::Bool(value),
                Scalar::Uint(number) => number.into(),
                Scalar::Int(number) => number.into(),
                Scalar::Float(number) => Value::Number(Number::from_f64(number)?),
                Scalar::Str(text) => Value::String(text.to_owned()),
                Scalar::Marker => Value::Object(Map::new()),
                Scalar::Counter(number) => number.into(),
            }),
            MAKE_TEXT => {
                let mut text = String::new();
                while let Some((_, PUT, Scalar::Str(part), _)) =
                    self.next_of(Some((AUTHOR, number)))
                {
                    text.push_str(part);
                }
                Some(Value::String(text))
            }
            MAKE_MAP | MAKE_LIST if self.depth < DEPTH_MAX => {
                self.depth += 1;
                let made = self.made(action, (AUTHOR, number));
                self.depth -= 1;
                made
            }
            _ => None,
        }
    }

    fn note_type(&mut self, at: &str, action: u64, value: Scalar<'a>) {
        let kind = match (action, value) {
            (MAKE_TEXT, _) => LeafType::Text,
            (PUT, Scalar::Counter(_)) => LeafType::Counter,
            _ => return,
        };
        self.types.insert(at.to_owned(), kind);
    }

    /// What lies in the map or list that an operation made.
    fn made(&mut self, action: u64, object: OpRef) -> Option<Value> {
        if action == MAKE_MAP {
            let mut element = Value::Object(Map::new());
            self.members(object, &mut element)?;
            return Some(element);
        }
        let mut items = Vec::new();
        while let Some((_, action, value, number)) = self.next_of(Some(object)) {
            items.push(self.value(action, value, number)?);
        }
        Some(Value::Array(items))
    }

    /// The members of a flat map, each put into its parent.
    fn members(&mut self, object: OpRef, root: &mut Value) -> Option<()> {
        while let Some((Key::Member(at), action, value, number)) = self.next_of(Some(object)) {
            if object == BODY {
                self.note_type(at, action, value);
            }
            let value = self.value(action, value, number)?;
            let (parent, _) = at.rsplit_once('/')?;
            let mut place = &mut *root;
            for token in pointer::tokens(parent)? {
                place = place.as_object_mut()?.get_mut(&*token)?;
            }
            let key = pointer::tokens(&at[parent.len()..])?.next()?.into_owned();
            place.as_object_mut()?.insert(key, value);
        }
        Some(())
    }
}
