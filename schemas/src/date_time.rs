//! Times as other tools write them: RFC 3339 with any zone and any fraction.
//!
//! [`crate::time::Timestamp`] is the one form in which the node itself writes times. Documents from
//! elsewhere have zones, finer fractions and times before 1970; here they are read and compared.

use std::str::FromStr;

/// A point in time with a zone, as RFC 3339 writes it.
///
/// Date and time are separated by `T` or `t`; seconds and zone must be there (`Z`, `z` or `+hh:mm`).
/// A leap second (`:60`) is refused, as the estate's tools refuse it. Ordered by the moment meant;
/// fractions are compared to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// What is beyond, in nanoseconds, cut.
    pub nanos: u32,
}

/// Text that is no RFC 3339 time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time must look like 2026-05-04T10:20:30Z or 2026-05-04T12:20:30.5+02:00")]
pub struct NoDateTime;

impl FromStr for DateTime {
    type Err = NoDateTime;

    fn from_str(text: &str) -> Result<Self, NoDateTime> {
        read(text.as_bytes()).ok_or(NoDateTime)
    }
}

fn read(text: &[u8]) -> Option<DateTime> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let (clock, rest) = (rest.get(1..9)?, rest.get(9..)?);
    if !matches!(text[10], b'T' | b't')
        || [date[4], date[7]] != *b"--"
        || [clock[2], clock[5]] != *b"::"
    {
        return None;
    }
    let days = days_since_1970(digits(&date[..4])?, digits(&date[5..7])?, digits(&date[8..])?)?;
    let seconds =
        seconds_of_day(digits(&clock[..2])?, digits(&clock[3..5])?, digits(&clock[6..])?)?;
    let (nanos, zone) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (fraction(&rest[..length])?, &rest[length..])
        }
        None => (0, rest),
    };
    let offset = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), hour @ .., b':', _, _] if hour.len() == 2 => {
            let minute = &zone[4..];
            let offset = seconds_of_day(digits(hour)?, digits(minute)?, 0)?;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    Some(DateTime { seconds: days * 86_400 + seconds - offset, nanos })
}

/// A number of nothing but digits.
pub(crate) fn digits(text: &[u8]) -> Option<i64> {
    let add = |sum: i64, byte: &u8| {
        byte.is_ascii_digit().then(|| sum.checked_mul(10)?.checked_add(i64::from(byte - b'0')))?
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, add) }
}

/// Nanoseconds of a fraction's digits, of which there is at least one.
fn fraction(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    let nine = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    Some(nine.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

/// Seconds since midnight of a clock that exists.
pub(crate) fn seconds_of_day(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a day that exists, in the proleptic Gregorian calendar, from year 1.
pub(crate) fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last day of one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn seconds(text: &str) -> i64 {
        text.parse::<DateTime>().expect(text).seconds
    }

    #[test]
    fn zones_and_letters_of_either_case_mean_the_same_moment() {
        // Taken from `date -u -d TIME +%s`.
        assert_eq!(seconds("2026-05-04T10:20:30Z"), 1_777_890_030);
        assert_eq!(seconds("2026-05-04t10:20:30z"), 1_777_890_030);
        assert_eq!(seconds("2026-05-04T12:50:30+02:30"), 1_777_890_030);
        assert_eq!(seconds("2026-05-03T22:20:30.999999999999-12:00"), 1_777_890_030);
        assert_eq!(seconds("0001-01-01T00:00:00Z"), -62_135_596_800);
        let parse = |text: &str| text.parse::<DateTime>().expect(text);
        assert!(parse("2026-05-04T10:20:30.2Z") > parse("2026-05-04T10:20:30.19Z"));
    }

    #[test]
    fn what_is_no_rfc_3339_time_is_refused() {
        for text in [
            "",
            "2026-05-04",
            "2026-05-04 10:20:30Z",
            "2026-05-04T10:20Z",
            "2026-05-04T10:20:30",
            "2026-05-04T10:20:30+0400",
            "2026-05-04T10:20:30+04",
            "2026-05-04T10:20:30+24:00",
            "2026-05-04T10:20:30+04:60",
            "2026-05-04T10:20:30.Z",
            "2026-05-04T10:20:30,5Z",
            "2026-05-04T10:20:60Z",
            "2016-12-31T23:59:60Z",
            "2026-05-04T24:00:00Z",
            "2026-02-29T10:20:30Z",
            "2026-13-01T10:20:30Z",
            "2026-00-01T10:20:30Z",
            "2026-01-00T10:20:30Z",
            "0000-01-01T10:20:30Z",
            "2026-05-04T10:20:30Zé",
            "2026-05-04T10:20:30Z\n",
            "２026-05-04T10:20:30Z",
            "2026-5-04T10:20:30.0Z",
            "yesterday at ten o'clock",
        ] {
            assert_eq!(text.parse::<DateTime>(), Err(NoDateTime), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in any::<String>()) {
            let _ = text.parse::<DateTime>();
        }

        #[test]
        fn no_near_miss_makes_reading_panic(text in "[0-9TZtz:+.é-]{8,30}") {
            let _ = text.parse::<DateTime>();
        }

        #[test]
        fn it_agrees_with_the_times_that_the_node_writes(millis in 0..253_402_300_799_999_u64) {
            let written = Timestamp(millis).to_string();
            let read = written.parse::<DateTime>().unwrap();
            prop_assert_eq!(read.seconds as u64 * 1000 + u64::from(read.nanos) / 1_000_000, millis);
        }
    }
}
