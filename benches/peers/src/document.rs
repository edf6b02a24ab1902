//! One Automerge document that holds all objects: a map from id to object.

use std::ops::Range;

use anyhow::Context as _;
use automerge::transaction::Transactable as _;
use automerge::{Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc as _};

use crate::workload;

const OBJECTS: &str = "objects";
/// Objects that are made while the document is held, each with a change of its own.
const BATCH: u64 = 1_000;

/// A document without objects.
pub(crate) fn empty() -> anyhow::Result<Automerge> {
    let mut doc = Automerge::new();
    doc.transact(|tx| tx.put_object(ROOT, OBJECTS, ObjType::Map).map(drop))
        .map_err(|failure| failure.error)?;
    Ok(doc)
}

fn objects(doc: &Automerge) -> Option<ObjId> {
    Some(doc.get(ROOT, OBJECTS).ok()??.1)
}

/// Makes these objects.
pub(crate) fn add(doc: &mut Automerge, numbers: Range<u64>) -> anyhow::Result<()> {
    let objects = objects(doc).context("the document has no map of objects")?;
    for number in numbers {
        doc.transact(|tx| {
            let object = tx.put_object(&objects, workload::id("bench", number), ObjType::Map)?;
            fill(tx, &object, number)
        })
        .map_err(|failure| failure.error)?;
    }
    Ok(())
}

/// Writes the fields of an object.
pub(crate) fn fill(
    tx: &mut automerge::transaction::Transaction<'_>,
    object: &ObjId,
    number: u64,
) -> Result<(), AutomergeError> {
    tx.put(object, "kind", "file")?;
    let body = workload::body(number);
    for (name, value) in body.as_object().into_iter().flatten() {
        match value.as_i64() {
            Some(value) => tx.put(object, name.as_str(), value)?,
            None => tx.put(object, name.as_str(), value.as_str().unwrap_or_default())?,
        }
    }
    Ok(())
}

/// How many objects there are.
pub(crate) fn count(doc: &Automerge) -> u64 {
    objects(doc).map_or(0, |objects| doc.length(&objects) as u64)
}

/// Whether there is an object with this number.
pub(crate) fn has(doc: &Automerge, number: u64) -> bool {
    let id = workload::id("bench", number);
    objects(doc).is_some_and(|objects| matches!(doc.get(&objects, id), Ok(Some(_))))
}

/// Does something in batches.
pub(crate) fn in_batches(
    numbers: Range<u64>,
    mut act: impl FnMut(Range<u64>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut first = numbers.start;
    while first < numbers.end {
        let end = numbers.end.min(first + BATCH);
        act(first..end)?;
        first = end;
    }
    Ok(())
}
