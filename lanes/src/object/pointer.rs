//! RFC 6901 JSON pointers, the keys under which a body's places are kept.

use std::borrow::Cow;

/// The length of a token once it is escaped.
pub(super) fn escaped_len(token: &str) -> usize {
    token.len() + token.bytes().filter(|byte| matches!(byte, b'~' | b'/')).count()
}

/// Appends a token.
pub(super) fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    if token.bytes().any(|byte| matches!(byte, b'~' | b'/')) {
        for character in token.chars() {
            match character {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                other => pointer.push(other),
            }
        }
    } else {
        pointer.push_str(token);
    }
}

/// The pointer of a member.
pub(super) fn child(pointer: &str, token: &str) -> String {
    let mut child = String::with_capacity(pointer.len() + 1 + token.len());
    child.push_str(pointer);
    push(&mut child, token);
    child
}

/// The tokens of a pointer, or `None` if it is none.
pub(super) fn tokens(pointer: &str) -> Option<impl Iterator<Item = Cow<'_, str>>> {
    let rest = if pointer.is_empty() { None } else { Some(pointer.strip_prefix('/')?) };
    let bytes = pointer.as_bytes();
    let escapes_hold = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte != b'~' || matches!(bytes.get(at + 1), Some(b'0' | b'1')));
    if !escapes_hold {
        return None;
    }
    Some(rest.into_iter().flat_map(|rest| rest.split('/')).map(|token| {
        if token.contains('~') {
            // In this order, so that "~01" is "~1" and not "/".
            Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
        } else {
            Cow::Borrowed(token)
        }
    }))
}
