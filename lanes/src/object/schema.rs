//! Whether a change does only what objects do.

use super::chunk::{
    Change, DELETE, INCREMENT, Key, MAKE_LIST, MAKE_MAP, MAKE_TEXT, Op, OpRef, PUT, Scalar,
};
use super::content::{
    CLASS_BYTES_MAX, COUNTER_MAX, DEPTH_MAX, INCREMENT_MAX, KIND_BYTES_MAX, LABEL_KEY_BYTES_MAX,
    LABEL_VALUE_BYTES_MAX,
};
use super::error::DocumentError;
use super::{pointer, skeleton};

/// What an operation writes to, as far as the change alone tells.
enum Target {
    Root,
    Labels,
    Body,
    /// A list or an element of one.
    Inner,
}

/// Refuses a change with an operation that no device of this version writes.
pub(super) fn check(change: &Change<'_>) -> Result<(), DocumentError> {
    if change.ops.is_empty() {
        return Err(DocumentError::Schema { op: 0, reason: "there is none" });
    }
    let target = |object: Option<OpRef>| match object {
        None => Target::Root,
        Some((actor, number)) if change.actors[actor] == skeleton().actor => match number {
            1 => Target::Labels,
            2 => Target::Body,
            _ => Target::Inner,
        },
        Some(_) => Target::Inner,
    };
    for (at, op) in change.ops.iter().enumerate() {
        if let Err(reason) = check_op(&target(op.object), op) {
            return Err(DocumentError::Schema { op: at, reason });
        }
    }
    Ok(())
}

/// Whether an operation does what is done to texts: their elements are single characters.
pub(super) fn is_text_op(op: &Op<'_>) -> bool {
    match (op.action, op.value) {
        (DELETE, _) => true,
        (PUT, Scalar::Str(text)) => op.insert && text.chars().count() == 1,
        _ => false,
    }
}

fn check_op(target: &Target, op: &Op<'_>) -> Result<(), &'static str> {
    if op.action > INCREMENT {
        return Err("it is of an unknown sort");
    }
    if !matches!(op.action, PUT | INCREMENT) && op.value != Scalar::Null {
        return Err("it carries a value but writes none");
    }
    if op.action == DELETE && (op.insert || op.overwrites_nothing()) {
        return Err("it deletes nothing");
    }
    if let Scalar::Float(number) = op.value
        && !number.is_finite()
    {
        return Err("a number is not finite");
    }
    match (target, op.key) {
        (Target::Root, Key::Member("kind")) => check_text(op, KIND_BYTES_MAX, false),
        (Target::Root, Key::Member("class")) => check_text(op, CLASS_BYTES_MAX, false),
        (Target::Root, _) => Err("the root has no such key"),
        (Target::Labels, Key::Member(key)) if (1..=LABEL_KEY_BYTES_MAX).contains(&key.len()) => {
            check_text(op, LABEL_VALUE_BYTES_MAX, true)
        }
        (Target::Labels, _) => Err("a label's key is empty, too long, or none"),
        (Target::Body, Key::Member("")) => check_leaf(op),
        (Target::Body | Target::Inner, Key::Member(key)) => {
            if key.is_empty() || pointer::tokens(key).is_none() {
                return Err("a key is no pointer");
            }
            if key.bytes().filter(|byte| *byte == b'/').count() > DEPTH_MAX {
                return Err("a place lies too deep");
            }
            if matches!(target, Target::Body) { check_leaf(op) } else { check_place(op) }
        }
        (Target::Body, _) => Err("the body is no list"),
        (Target::Inner, Key::Head) if !op.insert => Err("it writes to no element"),
        (Target::Inner, _) if op.value == Scalar::Marker => Err("a marker is no element"),
        (Target::Inner, _) => check_plain(op),
    }
}

/// A place of the body itself, which may be a text or a counter.
fn check_leaf(op: &Op<'_>) -> Result<(), &'static str> {
    match (op.action, op.value) {
        (MAKE_TEXT, _) | (PUT, Scalar::Counter(_)) | (INCREMENT, _) if op.insert => {
            Err("it inserts into a map")
        }
        (MAKE_TEXT, _) => Ok(()),
        (PUT, Scalar::Counter(start)) if start.unsigned_abs() <= COUNTER_MAX => Ok(()),
        (PUT, Scalar::Counter(_)) => Err("a counter starts too far from 0"),
        (INCREMENT, _) if op.overwrites_nothing() => Err("it adds to nothing"),
        (INCREMENT, Scalar::Int(by)) if by.unsigned_abs() <= INCREMENT_MAX => Ok(()),
        (INCREMENT, _) => Err("it adds what is no integer, or too much"),
        _ => check_place(op),
    }
}

/// Texts and counters lie outside lists.
fn check_plain(op: &Op<'_>) -> Result<(), &'static str> {
    match (op.action, op.value) {
        (MAKE_TEXT | INCREMENT, _) | (_, Scalar::Counter(_)) => {
            Err("a text or counter lies in a list")
        }
        _ => Ok(()),
    }
}

/// A place of a flat map: lists and scalars, but no maps; those are flat.
fn check_place(op: &Op<'_>) -> Result<(), &'static str> {
    if op.insert {
        return Err("it inserts into a map");
    }
    check_plain(op)?;
    match op.action {
        MAKE_MAP => Err("a map lies in a map"),
        MAKE_LIST | PUT | DELETE => Ok(()),
        _ => Err("it is of an unknown sort"),
    }
}

fn check_text(op: &Op<'_>, limit: usize, may_go: bool) -> Result<(), &'static str> {
    match (op.action, op.value) {
        (DELETE, _) if may_go => Ok(()),
        (PUT, Scalar::Str(text)) if !op.insert && text.len() <= limit => Ok(()),
        _ => Err("it is no text, or one that is too long"),
    }
}
