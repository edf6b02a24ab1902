//! Times as other programs write them: RFC 3339 with any offset and any number of digits.

use serde::{Deserialize, Serialize};

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

/// Reads an RFC 3339 time as milliseconds since 1970; nothing for anything else. Seconds and zone
/// are required, a leap second is refused, and `T` or `t` stands between day and time.
pub fn millis(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0_i64, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
        })
    };
    let is = |place: usize, wanted: &[u8]| bytes.get(place).is_some_and(|b| wanted.contains(b));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":");
    if !separated || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut milli = 0;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|digit| digit.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let scale = [0, 100, 10, 1][digits.min(3)];
        milli = number(at + 1, at + 1 + digits.min(3))? * scale;
        at += 1 + digits;
    }
    let offset_minutes = if is(at, b"Zz") {
        at += 1;
        0
    } else if is(at, b"+-") && is(at + 3, b":") {
        let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let sign = if bytes[at] == b'-' { -1 } else { 1 };
        at += 6;
        sign * (hours * 60 + minutes)
    } else {
        return None;
    };
    if at != bytes.len() {
        return None;
    }
    let minutes = days_from_civil(year, month, day)? * 1440 + hour * 60 + minute - offset_minutes;
    Some(minutes * 60_000 + second * 1000 + milli)
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar; nothing for a day that is not
/// in it. Years start in March here, so that the leap day is the last day of a year.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if day < 1 || day > days_in_month {
        return None;
    }
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
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
        assert_eq!(millis("0000-02-29T00:00:00Z"), Some(-62_162_121_600_000));
    }

    #[test]
    fn what_is_no_rfc_3339_time_is_refused() {
        for text in [
            "2026-05-04 19:21:58Z",
            "2026-05-04T19:21:58",
            "2026-05-04T19:21Z",
            "2026-05-04T19:21:60Z",
            "2026-05-04T24:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-05-04T19:21:58+0400",
            "2026-05-04T19:21:58+24:00",
            "2026-05-04T19:21:58.Z",
            "2026-05-04T19:21:58Z ",
            "2026-05-04",
            "20260504T192158Z",
            "",
            "２026-05-04T19:21:58Z",
        ] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn our_own_stamps_read_back(at in 0..253_402_300_799_999_u64) {
            prop_assert_eq!(When::from(Timestamp(at)).millis(), at as i64);
        }

        #[test]
        fn no_text_makes_reading_panic(text in any::<String>()) {
            let _ = millis(&text);
        }

        #[test]
        fn no_near_time_makes_reading_panic(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}[.]?[0-9]{0,20}[Zz+-]?[0-9:]{0,6}") {
            let _ = millis(&text);
        }
    }
}
