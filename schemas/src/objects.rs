//! Objects, lists of them, writes to them and the changes that are followed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::{BODY_BYTES_MAX, DEPTH_MAX, Limits, canonical};
use crate::time::Timestamp;

/// The limits of the JSON text of one object's content.
pub const CONTENT_LIMITS: Limits =
    // The content is one level around the body.
    Limits { bytes_max: CONTENT_BYTES_MAX, depth_max: DEPTH_MAX + 1 };

/// Longest object id, in bytes of UTF-8: long enough for a path, short enough for a store key.
pub const ID_BYTES_MAX: usize = 512;

/// Longest import line or `PUT` request, in bytes: a body of the largest size, and what goes with it.
pub const CONTENT_BYTES_MAX: usize = BODY_BYTES_MAX + (64 << 10);

/// Most labels on one object: each is an index entry.
pub const LABELS_MAX: usize = 64;

/// Longest kind, in bytes: it is a key of indexes.
pub const KIND_BYTES_MAX: usize = 64;

/// Longest data class, in bytes: it is a key of policies.
pub const CLASS_BYTES_MAX: usize = 64;

/// Longest key of a label, in bytes: it is part of an index key.
pub const LABEL_KEY_BYTES_MAX: usize = 128;

/// Longest value of a label, in bytes: it is part of an index key.
pub const LABEL_VALUE_BYTES_MAX: usize = 1024;

/// Most operations in one batch: one journal entry carries no more.
pub const BATCH_OPS_MAX: usize = 1000;

/// Largest batch request, in bytes: a bound on what one request makes the node hold.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Most objects or changes in one page.
pub const PAGE_LIMIT_MAX: usize = 1000;

/// Bytes of bodies after which a page ends early, whatever number was asked for: a page of the
/// largest objects must not fill memory. A page always holds at least one object.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// Largest saved Automerge document that is handed out, in bytes: it is a part of one answer, which
/// both ends hold whole.
pub const AUTOMERGE_BYTES_MAX: usize = 16 << 20;

/// Objects in a page whose reader asked for no number.
pub const PAGE_LIMIT_DEFAULT: usize = 100;

/// How a leaf of a body takes edits that were made apart. A leaf that is of none is *plain*: it is
/// written whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafType {
    /// A string that is edited in place: both edits stay.
    Text,
    /// An integer that is added to: both sums stay.
    Counter,
}

impl LeafType {
    /// Its name, as documents and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Counter => "counter",
        }
    }

    /// The type of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Text, Self::Counter].into_iter().find(|kind| kind.name() == name)
    }
}

/// Types of leaves by their JSON pointer in the body.
pub type LeafTypes = BTreeMap<String, LeafType>;

/// Types to give to leaves by their JSON pointer in the body, or with `None` to take from them.
pub type AskedTypes = BTreeMap<String, Option<LeafType>>;

/// An object as `get`, `list`, `export`, HTTP and changes show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectDocument {
    /// Name of the lane.
    pub lane: String,
    /// The object's id, unique in its lane.
    pub id: String,
    /// What sort of record it is.
    pub kind: String,
    /// Its data class.
    pub class: String,
    /// Labels, for finding it.
    pub labels: BTreeMap<String, String>,
    /// The record itself.
    pub body: Value,
    /// Which leaves of the body are texts or counters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: LeafTypes,
    /// The device that made the change shown, in hexadecimal.
    pub author: String,
    /// When that change was made, by its author's clock.
    pub updated_at: Timestamp,
    /// How often the id has been created: 1, and one more after each deletion.
    pub life: u32,
    /// Hashes of the latest changes; two where devices wrote apart.
    pub heads: Vec<String>,
    /// When the object goes by itself, in a lane whose objects expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Fields for which devices wrote different values while apart; only where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<Vec<ConflictDocument>>,
    /// The changes that made the object, oldest first; only where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<HistoryDocument>>,
    /// The object's Automerge document as that saves it, in base64; only where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automerge: Option<String>,
}

/// One field that holds several values, written concurrently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictDocument {
    /// The field, as a JSON pointer into the object (`/body/title`).
    pub path: String,
    /// Every value, the one that is shown first.
    pub values: Vec<ConflictValue>,
}

/// One of the values of a field in conflict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictValue {
    /// The value.
    pub value: Value,
    /// The device that wrote it, in hexadecimal.
    pub author: String,
    /// Whether this is the value that reads show.
    pub shown: bool,
}

/// One change in an object's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryDocument {
    /// The change's hash.
    pub change: String,
    /// The device that made it, in hexadecimal.
    pub author: String,
    /// When, by its clock.
    pub at: Timestamp,
    /// Place of the entry that carries it in its author's journal of the lane.
    pub seq: u64,
    /// Whether the change's content is held here; what was withheld or purged is not.
    pub held: bool,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ListPage {
    /// The objects, by id.
    pub objects: Vec<ObjectDocument>,
    /// Where the next page starts (`after=`); absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The content of a write: what `PUT` carries and what a line of an import holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ContentDocument {
    /// The kind; absent keeps the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The data class; absent keeps the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The labels, all of them; absent keeps the present ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The body, whole.
    pub body: Value,
    /// Types to give to leaves of the body, or with null to take from them. What is not named keeps
    /// its type, as long as its value is of the sort.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: AskedTypes,
    /// Time to live in milliseconds, in a lane whose objects expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// What is wrong with the content of a write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// It is not an object.
    #[error("an object with \"id\" and \"body\" is expected, not {found}")]
    NotAnObject {
        /// The JSON type found.
        found: &'static str,
    },
    /// A member is absent.
    #[error("\"{field}\" is missing")]
    Missing {
        /// The member.
        field: &'static str,
    },
    /// A member is not known.
    #[error("unknown field {field:?}")]
    Unknown {
        /// The member.
        field: String,
    },
    /// A member is of the wrong type.
    #[error("\"{field}\" must be {expected}, not {found}")]
    WrongType {
        /// The member.
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
        /// The JSON type found.
        found: &'static str,
    },
    /// An id of no characters.
    #[error("an id must not be empty")]
    EmptyId,
    /// A text is too long.
    #[error("{field} of {size} bytes is over the limit of {limit} bytes")]
    TooLong {
        /// The member.
        field: &'static str,
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// There are too many labels.
    #[error("{count} labels are over the limit of {LABELS_MAX}")]
    TooManyLabels {
        /// Labels found.
        count: usize,
    },
}

/// The JSON type of a value, for messages.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether a text may name an object: not empty, and at most [`ID_BYTES_MAX`] bytes.
pub fn check_id(id: &str) -> Result<(), ContentError> {
    if id.is_empty() {
        return Err(ContentError::EmptyId);
    }
    check_length("id", id, ID_BYTES_MAX)
}

fn check_length(field: &'static str, text: &str, limit: usize) -> Result<(), ContentError> {
    if text.len() > limit {
        return Err(ContentError::TooLong { field, size: text.len(), limit });
    }
    Ok(())
}

impl ContentDocument {
    /// Whether the body's canonical text is within [`BODY_BYTES_MAX`], given the length of the
    /// text that it was read from.
    pub fn check_body(&self, text_bytes: usize) -> Result<(), ContentError> {
        // Canonical text is at most five times as long (`1e15` becomes `1000000000000000.0`), so
        // most bodies need not be written out to be measured.
        const GROWTH_MAX: usize = 8;
        if text_bytes <= BODY_BYTES_MAX / GROWTH_MAX {
            return Ok(());
        }
        let size = canonical(&self.body).len();
        if size > BODY_BYTES_MAX {
            return Err(ContentError::TooLong { field: "body", size, limit: BODY_BYTES_MAX });
        }
        Ok(())
    }

    /// Reads the content of a `PUT`: kind, class, labels, `ttl_ms` and the body.
    pub fn from_value(value: Value) -> Result<Self, ContentError> {
        let (id, content) = read_members(value)?;
        match id {
            None => Ok(content),
            Some(_) => Err(ContentError::Unknown { field: "id".to_owned() }),
        }
    }

    /// Reads a line of an import, which has an id besides. What `export` writes is accepted: the
    /// members that the node itself sets are passed over.
    pub fn line_from_value(value: Value) -> Result<(String, Self), ContentError> {
        let (id, content) = read_members(value)?;
        let id = id.ok_or(ContentError::Missing { field: "id" })?;
        check_id(&id)?;
        Ok((id, content))
    }

    /// Whether kind, class and labels are within their limits.
    pub fn check(&self) -> Result<(), ContentError> {
        check_length("kind", self.kind.as_deref().unwrap_or_default(), KIND_BYTES_MAX)?;
        check_length("class", self.class.as_deref().unwrap_or_default(), CLASS_BYTES_MAX)?;
        let Some(labels) = &self.labels else {
            return Ok(());
        };
        if labels.len() > LABELS_MAX {
            return Err(ContentError::TooManyLabels { count: labels.len() });
        }
        for (key, value) in labels {
            check_length("a label's key", key, LABEL_KEY_BYTES_MAX)?;
            check_length("a label's value", value, LABEL_VALUE_BYTES_MAX)?;
        }
        Ok(())
    }
}

fn read_members(value: Value) -> Result<(Option<String>, ContentDocument), ContentError> {
    let Value::Object(members) = value else {
        return Err(ContentError::NotAnObject { found: type_name(&value) });
    };
    let (mut id, mut body, mut content) = (None, None, ContentDocument::default());
    for (key, value) in members {
        match key.as_str() {
            "id" => id = Some(text("id", value)?),
            "body" => body = Some(value),
            "kind" => content.kind = Some(text("kind", value)?),
            "class" => content.class = Some(text("class", value)?),
            "labels" => content.labels = Some(texts(value)?),
            "types" => content.types = types(value)?,
            "ttl_ms" => {
                let found = type_name(&value);
                let expected = "a number of milliseconds";
                content.ttl_ms = Some(value.as_u64().ok_or(ContentError::WrongType {
                    field: "ttl_ms",
                    expected,
                    found,
                })?);
            }
            "lane" | "author" | "updated_at" | "life" | "heads" | "expires_at" | "conflicts"
            | "history" | "automerge" => {}
            _ => {
                return Err(ContentError::Unknown { field: key.chars().take(80).collect() });
            }
        }
    }
    content.body = body.ok_or(ContentError::Missing { field: "body" })?;
    content.check()?;
    Ok((id, content))
}

fn text(field: &'static str, value: Value) -> Result<String, ContentError> {
    match value {
        Value::String(text) => Ok(text),
        other => {
            Err(ContentError::WrongType { field, expected: "a string", found: type_name(&other) })
        }
    }
}

fn texts(value: Value) -> Result<BTreeMap<String, String>, ContentError> {
    let Value::Object(members) = value else {
        let expected = "an object of strings";
        return Err(ContentError::WrongType {
            field: "labels",
            expected,
            found: type_name(&value),
        });
    };
    members.into_iter().map(|(key, value)| Ok((key, text("labels", value)?))).collect()
}

fn types(value: Value) -> Result<AskedTypes, ContentError> {
    let expected = "an object of \"text\", \"counter\" or null by pointer";
    let wrong = |found| ContentError::WrongType { field: "types", expected, found };
    let Value::Object(members) = value else {
        return Err(wrong(type_name(&value)));
    };
    let mut types = AskedTypes::new();
    for (pointer, value) in members {
        let kind = match &value {
            Value::Null => None,
            Value::String(name) => {
                Some(LeafType::from_name(name).ok_or_else(|| wrong("another string"))?)
            }
            other => return Err(wrong(type_name(other))),
        };
        types.insert(pointer, kind);
    }
    Ok(types)
}

/// A merge patch (RFC 7396) of an object as it is shown: `{"body": {..}, "labels": {..}}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchDocument {
    /// A new kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A new data class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Labels to set, or to remove where null.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
    /// The merge patch of the body; empty changes nothing.
    #[serde(default = "empty_object")]
    pub body: Value,
    /// Types to give to leaves of the body, or with null to take from them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: AskedTypes,
    /// What to add to counters, by their JSON pointer in the body.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, i64>,
}

fn empty_object() -> Value {
    Value::Object(Map::new())
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum BatchOp {
    /// Creates or replaces an object.
    Put {
        /// The object.
        id: String,
        /// What it becomes.
        #[serde(flatten)]
        content: ContentDocument,
    },
    /// Merges a patch into an object.
    Patch {
        /// The object.
        id: String,
        /// The patch of the object as it is shown.
        patch: PatchDocument,
    },
    /// Deletes an object.
    Delete {
        /// The object.
        id: String,
        /// Why, for the record.
        reason: String,
    },
}

impl BatchOp {
    /// The object that the operation is about.
    pub fn id(&self) -> &str {
        match self {
            Self::Put { id, .. } | Self::Patch { id, .. } | Self::Delete { id, .. } => id,
        }
    }
}

/// Several writes to one lane, all of which are applied, or none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// The writes, in order; at most [`BATCH_OPS_MAX`].
    pub ops: Vec<BatchOp>,
}

/// What a batch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BatchResult {
    /// Operations in the batch.
    pub ops: usize,
    /// How many of them changed anything.
    pub changed: usize,
}

/// What a change did to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOp {
    /// It was created or edited.
    Put,
    /// It was deleted.
    Delete,
    /// Its time to live ended.
    Expire,
    /// What happened cannot be read, since the store is damaged there: `id` is empty. Whoever keeps a
    /// copy of the lane lists it anew.
    Damaged,
}

/// One applied change, as `watch` and `/changes` deliver it, once and in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeDocument {
    /// Where to resume after this change (`--after`, `after=`). Of this device only.
    pub cursor: String,
    /// What happened.
    pub op: ChangeOp,
    /// Name of the lane.
    pub lane: String,
    /// The object.
    pub id: String,
    /// Which life of it.
    pub life: u32,
    /// The object after the change; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectDocument>,
}

#[cfg(test)]
mod tests;
