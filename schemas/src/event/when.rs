//! Times as other programs write them: RFC 3339 with any offset and any number of digits.

use serde::{Deserialize, Serialize};

use crate::date_time::DateTime;
use crate::time::Timestamp;

/// A time as it was written, and what it means.
///
/// The text is kept: an event that is passed on says when it happened as its author said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct When {
    text: String,
    millis: i64,
}

/// Text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no RFC 3339 time; write it as 2026-05-04T10:20:30Z or with an offset as +02:00")]
pub struct NotATime(String);

impl When {
    /// Reads a time.
    pub fn parse(text: &str) -> Result<Self, NotATime> {
        match millis(text) {
            Some(millis) => Ok(Self { text: text.to_owned(), millis }),
            None => Err(NotATime(text.chars().take(80).collect())),
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; negative before that. Finer digits are cut.
    pub fn millis(&self) -> i64 {
        self.millis
    }

    /// The time as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<Timestamp> for When {
    fn from(at: Timestamp) -> Self {
        let text = at.to_string();
        // What is shown stops at the end of the year 9999, and so does what is meant.
        let millis = millis(&text).unwrap_or(i64::MAX);
        Self { text, millis }
    }
}

impl TryFrom<String> for When {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Self, NotATime> {
        match millis(&text) {
            Some(millis) => Ok(Self { text, millis }),
            None => Err(NotATime(text.chars().take(80).collect())),
        }
    }
}

impl From<When> for String {
    fn from(when: When) -> Self {
        when.text
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Milliseconds since 1970 of a time; finer digits are cut towards the past.
fn millis(text: &str) -> Option<i64> {
    let at: DateTime = text.parse().ok()?;
    Some(at.seconds * 1000 + i64::from(at.nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offsets_and_digits_mean_what_they_say() {
        let same = ["2026-05-04T19:21:58.394-04:00", "2026-05-04t23:21:58.394999z"];
        for text in same {
            assert_eq!(millis(text), Some(1_777_936_918_394), "{text}");
        }
        assert_eq!(millis("1969-12-31T23:59:59Z"), Some(-1000));
    }

    proptest! {
        #[test]
        fn our_own_stamps_read_back(at in 0..253_402_300_799_999_u64) {
            prop_assert_eq!(When::from(Timestamp(at)).millis(), at as i64);
        }
    }
}
