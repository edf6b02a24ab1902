//! Reading the bytes of one Automerge change under bounds, before Automerge sees them.
//!
//! Automerge's own reader expands whatever run lengths say: sixty bytes can ask for 2^60
//! operations, and a compressed change can inflate a thousandfold. This reader knows the same
//! format, takes uncompressed changes only, and stops at named limits.

use sha2::{Digest, Sha256};

use super::error::DocumentError;
use crate::ids::ChangeHash;

/// Most operations in a change. A write of the largest content over three others of that size,
/// which a merge may have left, fits.
pub const OPS_MAX: usize = 4 * super::PLACES_MAX;
/// Highest number of an operation: what an object can take in over one life, since its view and its
/// row are made of all of it. A text typed letter by letter has one for each.
pub const OPS_IN_LIFE_MAX: u64 = 1 << 21;
/// Largest change in bytes: the largest content over three others of that size.
pub const CHANGE_BYTES_MAX: usize = 4 * super::FLAT_BYTES_MAX + (4 << 20);
/// Most changes that one change may follow directly: one for each device that wrote apart.
const DEPS_MAX: u64 = 1_024;
/// Most actors that a change may name: one for each device and incarnation it overwrites.
const ACTORS_MAX: u64 = 4_096;

pub(super) const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
pub(super) const CHUNK_CHANGE: u8 = 1;

pub(super) const OBJ_ACTOR: u64 = 0x01;
pub(super) const OBJ_COUNTER: u64 = 0x02;
pub(super) const KEY_ACTOR: u64 = 0x11;
pub(super) const KEY_COUNTER: u64 = 0x13;
pub(super) const KEY_STRING: u64 = 0x15;
pub(super) const INSERT: u64 = 0x34;
pub(super) const ACTION: u64 = 0x42;
pub(super) const VALUE_META: u64 = 0x56;
pub(super) const VALUE: u64 = 0x57;
pub(super) const PRED_COUNT: u64 = 0x70;
pub(super) const PRED_ACTOR: u64 = 0x71;
pub(super) const PRED_COUNTER: u64 = 0x73;

pub(super) const MAKE_MAP: u64 = 0;
pub(super) const PUT: u64 = 1;
pub(super) const MAKE_LIST: u64 = 2;
pub(super) const DELETE: u64 = 3;
pub(super) const MAKE_TEXT: u64 = 4;
pub(super) const INCREMENT: u64 = 5;

/// An operation's number and the index of its actor among the change's actors.
pub(super) type OpRef = (usize, u64);

/// Where an operation writes within its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'a> {
    /// A member of a map.
    Member(&'a str),
    /// The start of a list.
    Head,
    /// An element of a list.
    Element(OpRef),
}

/// A value as its bytes are typed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Uint(u64),
    Int(i64),
    Float(f64),
    Str(&'a str),
    /// Where a counter starts.
    Counter(i64),
    /// The empty byte string, which marks an object.
    Marker,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Op<'a> {
    /// `None` is the document's root.
    pub(super) object: Option<OpRef>,
    pub(super) key: Key<'a>,
    pub(super) insert: bool,
    pub(super) action: u64,
    pub(super) value: Scalar<'a>,
    /// Which of the change's overwritten operations are its own; see [`Change::overwritten`].
    overwritten: (usize, usize),
}

impl Op<'_> {
    /// Whether it overwrites nothing.
    pub(super) fn overwrites_nothing(&self) -> bool {
        self.overwritten.0 == self.overwritten.1
    }
}

/// A change, read.
pub(super) struct Change<'a> {
    pub(super) deps: Vec<ChangeHash>,
    /// The author first.
    pub(super) actors: Vec<&'a [u8]>,
    pub(super) start_op: u64,
    pub(super) seq: u64,
    pub(super) time: i64,
    pub(super) ops: Vec<Op<'a>>,
    /// What its operations overwrite, one operation's after the other's.
    overwritten: Vec<OpRef>,
    /// All of it after the header.
    pub(super) body: &'a [u8],
}

type Result<T> = std::result::Result<T, DocumentError>;

fn bad<T>(what: &'static str) -> Result<T> {
    Err(DocumentError::Undecodable(what))
}

/// A position in bytes.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        match usize::try_from(count).ok().and_then(|count| self.0.split_at_checked(count)) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => bad("it ends too early"),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn unsigned(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return bad("a number is too large");
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bad("a number is too long")
    }

    fn signed(&mut self) -> Result<i64> {
        let mut value = 0_i64;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return bad("a number is too large");
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                if shift < 64 && byte & 0x40 != 0 {
                    value |= -1 << shift;
                }
                return Ok(value);
            }
            if shift > 63 {
                return bad("a number is too long");
            }
        }
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.unsigned()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).or_else(|_| bad("text is not UTF-8"))
    }
}

/// Values that a column is given room for before it is read: most changes have fewer operations, so that
/// memory is asked for once.
const ROOM: usize = 16;

/// Expands a run-length encoded column to at most `limit` values.
fn run_lengths<'a, T: Clone>(
    column: &'a [u8],
    limit: usize,
    mut read: impl FnMut(&mut Cursor<'a>) -> Result<T>,
) -> Result<Vec<Option<T>>> {
    let mut cursor = Cursor(column);
    let mut values = Vec::with_capacity(if column.is_empty() { 0 } else { limit.min(ROOM) });
    while !cursor.0.is_empty() {
        let count = cursor.signed()?;
        let (count, run) = match count {
            0 => (cursor.unsigned()?, Some(None)),
            1.. => (count.unsigned_abs(), Some(Some(read(&mut cursor)?))),
            _ => (count.unsigned_abs(), None),
        };
        if count == 0 {
            return bad("a run is empty");
        }
        match usize::try_from(count) {
            Ok(count) if count <= limit - values.len() => match run {
                Some(value) => values.resize(values.len() + count, value),
                None => {
                    for _ in 0..count {
                        values.push(Some(read(&mut cursor)?));
                    }
                }
            },
            _ => return Err(DocumentError::TooManyOps { limit: OPS_MAX }),
        }
    }
    Ok(values)
}

/// Turns differences into numbers.
fn summed(mut values: Vec<Option<i64>>) -> Result<Vec<Option<i64>>> {
    let mut sum = 0_i64;
    for value in values.iter_mut().flatten() {
        match sum.checked_add(*value) {
            Some(next) => sum = next,
            None => return bad("a number is too large"),
        }
        *value = sum;
    }
    Ok(values)
}

fn booleans(column: &[u8], limit: usize) -> Result<Vec<bool>> {
    let mut cursor = Cursor(column);
    let mut values = Vec::with_capacity(limit.min(ROOM));
    let mut value = false;
    while !cursor.0.is_empty() {
        let count = cursor.unsigned()?;
        match usize::try_from(count) {
            Ok(count) if count <= limit - values.len() => {
                values.resize(values.len() + count, value);
            }
            _ => return Err(DocumentError::TooManyOps { limit: OPS_MAX }),
        }
        value = !value;
    }
    Ok(values)
}

impl<'a> Change<'a> {
    /// Reads a change and checks that it is the one expected, by the author expected.
    pub(super) fn read(bytes: &'a [u8], expected: ChangeHash, actor: [u8; 16]) -> Result<Self> {
        if bytes.len() > CHANGE_BYTES_MAX {
            let bytes = bytes.len();
            return Err(DocumentError::TooLarge { bytes, limit: CHANGE_BYTES_MAX });
        }
        let mut cursor = Cursor(bytes);
        if cursor.take(4)? != MAGIC {
            return bad("it does not start as a change does");
        }
        let checksum = cursor.take(4)?;
        let hashed = cursor.0;
        if cursor.byte()? != CHUNK_CHANGE {
            return bad("it is not an uncompressed change");
        }
        let length = cursor.unsigned()?;
        if u64::try_from(cursor.0.len()).ok() != Some(length) {
            return bad("its length is not what it says");
        }
        let hash = ChangeHash(Sha256::digest(hashed).into());
        if hash != expected {
            return Err(DocumentError::Hash { expected, found: hash });
        }
        if hash.0[..4] != *checksum {
            return bad("its checksum is wrong");
        }
        Self::read_body(cursor, actor)
    }

    fn read_body(mut cursor: Cursor<'a>, actor: [u8; 16]) -> Result<Self> {
        let body = cursor.0;
        let count = cursor.unsigned()?;
        if count > DEPS_MAX {
            return bad("it follows too many changes");
        }
        let mut deps = Vec::new();
        for _ in 0..count {
            let mut dep = [0; 32];
            dep.copy_from_slice(cursor.take(32)?);
            deps.push(ChangeHash(dep));
        }
        let length = cursor.unsigned()?;
        let mut actors = vec![cursor.take(length)?];
        if actors[0] != actor {
            return Err(DocumentError::Actor);
        }
        let (seq, start_op, time) = (cursor.unsigned()?, cursor.unsigned()?, cursor.signed()?);
        if time < 0 {
            // Automerge keeps the differences of all times; so none is out of its range.
            return bad("its time is before 1970");
        }
        if cursor.unsigned()? != 0 {
            return bad("it carries a message");
        }
        let count = cursor.unsigned()?;
        if count > ACTORS_MAX {
            return bad("it names too many actors");
        }
        for _ in 0..count {
            let length = cursor.unsigned()?;
            if length != 16 {
                return bad("an actor is not 16 bytes long");
            }
            actors.push(cursor.take(length)?);
        }
        let columns = Columns::read(&mut cursor)?;
        if !cursor.0.is_empty() {
            return bad("it carries further bytes");
        }
        let (ops, overwritten) = columns.ops(actors.len())?;
        let highest = u64::try_from(ops.len()).ok().and_then(|ops| start_op.checked_add(ops));
        if start_op == 0 {
            return Err(DocumentError::Order("its operations' numbers are out of range"));
        }
        if highest.is_none_or(|highest| highest > OPS_IN_LIFE_MAX) {
            return Err(DocumentError::Spent { what: "operations", limit: OPS_IN_LIFE_MAX });
        }
        Ok(Self { deps, actors, start_op, seq, time, ops, overwritten, body })
    }

    /// The operations that one of its operations overwrites.
    pub(super) fn overwritten(&self, op: &Op<'_>) -> &[OpRef] {
        // Made from these very columns.
        &self.overwritten[op.overwritten.0..op.overwritten.1]
    }

    /// The number of its last operation.
    pub(super) fn last_op(&self) -> u64 {
        self.start_op + self.ops.len() as u64 - 1
    }
}

/// The columns of a change, by what they hold; an absent one is empty.
#[derive(Default)]
struct Columns<'a> {
    obj_actor: &'a [u8],
    obj_counter: &'a [u8],
    key_actor: &'a [u8],
    key_counter: &'a [u8],
    key_string: &'a [u8],
    insert: &'a [u8],
    action: &'a [u8],
    value_meta: &'a [u8],
    value: &'a [u8],
    pred_count: &'a [u8],
    pred_actor: &'a [u8],
    pred_counter: &'a [u8],
}

impl<'a> Columns<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self> {
        const COLUMNS_MAX: u64 = 12;
        let count = cursor.unsigned()?;
        if count > COLUMNS_MAX {
            return bad("it has columns that objects do not have");
        }
        let mut specs = [(0, 0); COLUMNS_MAX as usize];
        let mut last = 0;
        for spec in specs.iter_mut().take(count as usize) {
            *spec = (cursor.unsigned()?, cursor.unsigned()?);
            if spec.0 <= last {
                return bad("its columns are out of order");
            }
            last = spec.0;
        }
        let mut columns = Self::default();
        for (spec, length) in specs.into_iter().take(count as usize) {
            let column = match spec {
                OBJ_ACTOR => &mut columns.obj_actor,
                OBJ_COUNTER => &mut columns.obj_counter,
                KEY_ACTOR => &mut columns.key_actor,
                KEY_COUNTER => &mut columns.key_counter,
                KEY_STRING => &mut columns.key_string,
                INSERT => &mut columns.insert,
                ACTION => &mut columns.action,
                VALUE_META => &mut columns.value_meta,
                VALUE => &mut columns.value,
                PRED_COUNT => &mut columns.pred_count,
                PRED_ACTOR => &mut columns.pred_actor,
                PRED_COUNTER => &mut columns.pred_counter,
                _ => return bad("it has columns that objects do not have"),
            };
            *column = cursor.take(length)?;
        }
        Ok(columns)
    }

    fn ops(&self, actors: usize) -> Result<(Vec<Op<'a>>, Vec<OpRef>)> {
        let actions = run_lengths(self.action, OPS_MAX, |cursor| cursor.unsigned())?;
        let count = actions.len();
        let obj_actor = run_lengths(self.obj_actor, count, |cursor| cursor.unsigned())?;
        let obj_counter = run_lengths(self.obj_counter, count, |cursor| cursor.unsigned())?;
        let key_actor = run_lengths(self.key_actor, count, |cursor| cursor.unsigned())?;
        let key_counter = summed(run_lengths(self.key_counter, count, |c| c.signed())?)?;
        let key_string = run_lengths(self.key_string, count, |cursor| cursor.text())?;
        // A run says one key many times, and those who read the operations look at it each time.
        let key_bytes: usize = key_string.iter().flatten().map(|key| key.len()).sum();
        if key_bytes > CHANGE_BYTES_MAX {
            return Err(DocumentError::TooLarge { bytes: key_bytes, limit: CHANGE_BYTES_MAX });
        }
        let insert = booleans(self.insert, count)?;
        let meta = run_lengths(self.value_meta, count, |cursor| cursor.unsigned())?;
        let (counts, overwritten) = self.overwritten(count, actors)?;
        for length in [obj_actor.len(), obj_counter.len(), key_actor.len()]
            .into_iter()
            .chain([key_counter.len(), key_string.len()])
        {
            if length != 0 && length != count {
                return bad("its columns differ in length");
            }
        }
        if insert.len() != count || meta.len() != count || counts.len() != count {
            return bad("its columns differ in length");
        }
        let mut values = Cursor(self.value);
        let mut first = 0;
        let mut ops = Vec::with_capacity(count);
        for (at, action) in actions.into_iter().enumerate() {
            let Some(action) = action else {
                return bad("an operation has no action");
            };
            let object = match (value_at(&obj_actor, at), value_at(&obj_counter, at)) {
                (None, None) => None,
                (Some(actor), Some(counter)) => Some(op_ref(actor, counter, actors)?),
                _ => return bad("an object's name is incomplete"),
            };
            let key = (value_at(&key_string, at), value_at(&key_actor, at));
            let key = match (key.0, key.1, value_at(&key_counter, at)) {
                (Some(member), None, None) => Key::Member(member),
                (None, None, Some(0)) => Key::Head,
                (None, Some(actor), Some(counter)) => match u64::try_from(counter) {
                    Ok(counter) => Key::Element(op_ref(actor, counter, actors)?),
                    Err(_) => return bad("an element's number is negative"),
                },
                _ => return bad("a key is incomplete"),
            };
            let Some(meta) = meta[at] else {
                return bad("a value has no type");
            };
            let overwritten = (first, first + counts[at]);
            first = overwritten.1;
            let insert = insert[at];
            let value = scalar(meta, &mut values)?;
            ops.push(Op { object, key, insert, action, value, overwritten });
        }
        if !values.0.is_empty() {
            return bad("values are left over");
        }
        Ok((ops, overwritten))
    }

    /// How many operations each operation overwrites, and which they are.
    fn overwritten(&self, count: usize, actors: usize) -> Result<(Vec<usize>, Vec<OpRef>)> {
        let counts = run_lengths(self.pred_count, count, |cursor| cursor.unsigned())?;
        let Some(counts) = counts.into_iter().collect::<Option<Vec<u64>>>() else {
            return bad("a count is missing");
        };
        let too_many = || DocumentError::TooManyOps { limit: OPS_MAX };
        let counts: Option<Vec<usize>> =
            counts.into_iter().map(|count| usize::try_from(count).ok()).collect();
        let counts = counts.ok_or_else(too_many)?;
        let total = counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(*count));
        let total = total.ok_or_else(too_many)?;
        if total > OPS_MAX {
            return Err(DocumentError::TooManyOps { limit: OPS_MAX });
        }
        let pred_actor = run_lengths(self.pred_actor, total, |cursor| cursor.unsigned())?;
        let pred_counter = summed(run_lengths(self.pred_counter, total, |c| c.signed())?)?;
        if pred_actor.len() != total || pred_counter.len() != total {
            return bad("its columns differ in length");
        }
        let mut overwritten = Vec::with_capacity(total);
        for (actor, counter) in pred_actor.into_iter().zip(pred_counter) {
            overwritten.push(match (actor, counter.map(u64::try_from)) {
                (Some(actor), Some(Ok(counter))) => op_ref(actor, counter, actors)?,
                _ => return bad("an overwritten operation's name is incomplete"),
            });
        }
        Ok((counts, overwritten))
    }
}

fn value_at<T: Copy>(column: &[Option<T>], at: usize) -> Option<T> {
    column.get(at).copied().flatten()
}

fn op_ref(actor: u64, counter: u64, actors: usize) -> Result<OpRef> {
    match usize::try_from(actor) {
        Ok(actor) if actor < actors && (1..=u64::from(u32::MAX)).contains(&counter) => {
            Ok((actor, counter))
        }
        _ => bad("an operation's name is out of range"),
    }
}

fn scalar<'a>(meta: u64, values: &mut Cursor<'a>) -> Result<Scalar<'a>> {
    let mut bytes = Cursor(values.take(meta >> 4)?);
    let value = match meta & 0x0f {
        0 => Scalar::Null,
        1 => Scalar::Bool(false),
        2 => Scalar::Bool(true),
        3 => Scalar::Uint(bytes.unsigned()?),
        4 => Scalar::Int(bytes.signed()?),
        5 => match <[u8; 8]>::try_from(bytes.take(8)?) {
            Ok(bytes) => Scalar::Float(f64::from_le_bytes(bytes)),
            Err(_) => return bad("a float is not 8 bytes long"),
        },
        6 => match std::str::from_utf8(std::mem::take(&mut bytes.0)) {
            Ok(text) => Scalar::Str(text),
            Err(_) => return bad("text is not UTF-8"),
        },
        7 => Scalar::Marker,
        8 => Scalar::Counter(bytes.signed()?),
        _ => return bad("a value has a type that objects do not have"),
    };
    if !bytes.0.is_empty() {
        return bad("a value is longer than its type");
    }
    Ok(value)
}
