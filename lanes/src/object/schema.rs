//! Whether a change does only what objects do.

use super::chunk::{Change, DELETE, Key, MAKE_LIST, MAKE_MAP, Op, OpRef, PUT, Scalar};
use super::content::{
    CLASS_BYTES_MAX, DEPTH_MAX, KIND_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX,
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

fn check_op(target: &Target, op: &Op<'_>) -> Result<(), &'static str> {
    if op.action > DELETE {
        return Err("it is of an unknown sort");
    }
    if op.action != PUT && op.value != Scalar::Null {
        return Err("it carries a value but writes none");
    }
    if op.action == DELETE && (op.insert || op.overwrites == 0) {
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
        (Target::Body, Key::Member("")) => check_place(op),
        (Target::Body | Target::Inner, Key::Member(key)) => {
            if key.is_empty() || pointer::tokens(key).is_none() {
                return Err("a key is no pointer");
            }
            if key.bytes().filter(|byte| *byte == b'/').count() > DEPTH_MAX {
                return Err("a place lies too deep");
            }
            check_place(op)
        }
        (Target::Body, _) => Err("the body is no list"),
        (Target::Inner, Key::Head) if !op.insert => Err("it writes to no element"),
        (Target::Inner, _) if op.value == Scalar::Marker => Err("a marker is no element"),
        (Target::Inner, _) => Ok(()),
    }
}

/// A place of a flat map: lists and scalars, but no maps; those are flat.
fn check_place(op: &Op<'_>) -> Result<(), &'static str> {
    if op.insert {
        return Err("it inserts into a map");
    }
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
