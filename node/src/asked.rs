//! Bounds on the words of a request that go into its address or its head. Who asks checks them, so
//! that the answer is plain, and so does who answers.

use srcos_lanes::store::REASON_BYTES_MAX;
use srcos_schemas::objects::{
    ID_BYTES_MAX, KIND_BYTES_MAX, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX,
};

use crate::api::{ApiError, ErrorKind, Heads, ListQuery};

/// Most labels that a list can be narrowed by: with the longest of them the address of the request is
/// still within its limit.
pub const LIST_LABELS_MAX: usize = 8;

/// Most heads that a condition can name: each is 65 bytes of a header, and an object has no more heads
/// than devices wrote to it at once.
pub const HEADS_MAX: usize = 256;

/// Longest address of a request, in bytes: half of what a server of this node reads as its head.
pub const ADDRESS_BYTES_MAX: usize = 32 << 10;

fn refused(code: &'static str, message: String, hint: &str) -> ApiError {
    ApiError::new(ErrorKind::BadInput, code, message, hint)
}

fn within(what: &str, text: &str, bytes_max: usize) -> Result<(), ApiError> {
    let bytes = text.len();
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!("the {what} has {bytes} bytes; the limit is {bytes_max}");
    Err(refused("argument_too_long", message, "nothing that is longer can match; shorten it"))
}

/// Whether a list may be asked for so.
pub fn check_list(query: &ListQuery) -> Result<(), ApiError> {
    let parts = [
        ("prefix", &query.prefix, ID_BYTES_MAX),
        ("cursor", &query.after, ID_BYTES_MAX),
        ("kind", &query.kind, KIND_BYTES_MAX),
    ];
    for (what, text, bytes_max) in parts {
        within(what, text.as_deref().unwrap_or_default(), bytes_max)?;
    }
    for (key, value) in &query.labels {
        within("key of a label", key, LABEL_KEY_BYTES_MAX)?;
        within("value of a label", value, LABEL_VALUE_BYTES_MAX)?;
    }
    let labels = query.labels.len();
    if labels > LIST_LABELS_MAX {
        let message = format!("{labels} labels are over the limit of {LIST_LABELS_MAX} for a list");
        return Err(refused("labels_too_many", message, "narrow the list by fewer labels"));
    }
    Ok(())
}

/// Whether an object may be deleted for this reason.
pub fn check_reason(reason: &str) -> Result<(), ApiError> {
    if reason.trim().is_empty() {
        let message = "a deletion needs a reason".to_owned();
        return Err(refused("reason_missing", message, "say in a few words why"));
    }
    let bytes = reason.len();
    if bytes > REASON_BYTES_MAX {
        let message = format!("the reason has {bytes} bytes; the limit is {REASON_BYTES_MAX}");
        return Err(refused(
            "reason_too_long",
            message,
            "say it in a sentence; it is kept for ever",
        ));
    }
    Ok(())
}

/// Whether a write may be conditional on these heads.
pub fn check_heads(heads: Option<&Heads>) -> Result<(), ApiError> {
    let Some(Heads(heads)) = heads else { return Ok(()) };
    let hint = "give the heads as get shows them, separated by commas";
    if heads.len() > HEADS_MAX {
        let message = format!("{} heads are over the limit of {HEADS_MAX}", heads.len());
        return Err(refused("condition_malformed", message, hint));
    }
    let is_head = |head: &String| head.len() <= 64 && head.bytes().all(|b| b.is_ascii_hexdigit());
    if heads.iter().all(|head| !head.is_empty() && is_head(head)) {
        return Ok(());
    }
    Err(refused("condition_malformed", "the heads are not hexadecimal text".to_owned(), hint))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn longest_list_that_is_allowed_fits_into_an_address() {
        let long = |bytes: usize| "é".repeat(bytes / 2);
        let label = |n: usize| {
            let key = format!("{n}{}", long(LABEL_KEY_BYTES_MAX - 2));
            (key, long(LABEL_VALUE_BYTES_MAX))
        };
        let mut query = ListQuery {
            prefix: Some(long(ID_BYTES_MAX)),
            kind: Some(long(KIND_BYTES_MAX)),
            labels: (0..LIST_LABELS_MAX).map(label).collect::<BTreeMap<_, _>>(),
            limit: 1000,
            after: Some(long(ID_BYTES_MAX)),
        };
        check_list(&query).unwrap();
        // Each byte is three in an address.
        let bytes = 2 * ID_BYTES_MAX
            + KIND_BYTES_MAX
            + LIST_LABELS_MAX * (LABEL_KEY_BYTES_MAX + LABEL_VALUE_BYTES_MAX);
        assert!(bytes * 3 + 1000 <= ADDRESS_BYTES_MAX);
        query.labels.insert("one more".into(), String::new());
        assert_eq!(check_list(&query).unwrap_err().code, "labels_too_many");
    }
}
