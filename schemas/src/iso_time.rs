//! Times as the estate's report checker reads them: ISO 8601 in the forms that Python 3.11 knows.
//!
//! It is wider than RFC 3339 in most things (dates alone, no zone, no dashes) and narrower in one:
//! a zone `z` in lower case is not known to it. See ADR 0010.

use crate::date_time::{days_since_1970, digits, seconds_of_day};

/// Whether the checker reads this text as a time.
pub(crate) fn is_iso_time(text: &str) -> bool {
    let text = match text.strip_suffix('Z') {
        Some(local) => format!("{local}+00:00"),
        None => text.to_owned(),
    };
    is_moment(&text).is_some()
}

fn is_moment(text: &str) -> Option<()> {
    let bytes = text.as_bytes();
    let date_length = date_length(bytes)?;
    is_date(bytes.get(..date_length)?)?;
    let rest = text.get(date_length..)?;
    if rest.is_empty() {
        return Some(());
    }
    // Whatever one character stands between date and time.
    let mut letters = rest.chars();
    letters.next();
    is_clock_with_zone(letters.as_str().as_bytes())
}

/// How long the date is at the beginning, from how it goes on.
fn date_length(text: &[u8]) -> Option<usize> {
    let at = |index: usize| text.get(index).copied();
    let digit = |index: usize| at(index).is_some_and(|byte| byte.is_ascii_digit());
    let length = match (at(4)?, text.len()) {
        (_, 7) => 7,
        (b'-', _) if at(5) != Some(b'W') => 10,
        (b'-', _) if at(8) == Some(b'-') && digit(9) && (text.len() == 10 || !digit(10)) => 10,
        (b'-', _) => 8,
        (b'W', _) => {
            let week_end = (7..text.len()).find(|index| !digit(*index)).unwrap_or(text.len());
            // A separator that is a digit cannot be told from a day of the week.
            match week_end {
                0..9 => week_end,
                _ if week_end % 2 == 0 => 7,
                _ => 8,
            }
        }
        _ => 8,
    };
    Some(length)
}

fn is_date(date: &[u8]) -> Option<()> {
    let year = digits(date.get(..4)?)?;
    let week = |week: &[u8], day: &[u8]| {
        let week = digits(week)?;
        let day = if day.is_empty() { 1 } else { digits(day)? };
        let there = (1..=9999).contains(&year)
            && (1..=7).contains(&day)
            && (1..=weeks(year)?).contains(&week);
        there.then_some(())
    };
    match (date.get(4)?, date.len()) {
        (b'-', 10) if date[5] == b'W' && date[8] == b'-' => week(&date[6..8], &date[9..]),
        (b'-', 8) if date[5] == b'W' => week(&date[6..8], &[]),
        (b'W', 7) => week(&date[5..7], &[]),
        (b'W', 8) => week(&date[5..7], &date[7..]),
        (b'-', 10) if date[7] == b'-' => {
            days_since_1970(year, digits(&date[5..7])?, digits(&date[8..])?).map(|_| ())
        }
        (_, 8) => days_since_1970(year, digits(&date[4..6])?, digits(&date[6..])?).map(|_| ()),
        _ => None,
    }
}

/// Weeks of a year by ISO 8601: 53 where it begins on a Thursday, or on a Wednesday and is a leap year.
fn weeks(year: i64) -> Option<i64> {
    // 1970-01-01 was a Thursday; 0 is Monday here.
    let first_day = (days_since_1970(year, 1, 1)? + 3).rem_euclid(7);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    Some(if first_day == 3 || (first_day == 2 && leap) { 53 } else { 52 })
}

fn is_clock_with_zone(text: &[u8]) -> Option<()> {
    let zone_at = text.iter().position(|byte| matches!(byte, b'+' | b'-' | b'Z'));
    let clock = Clock::read(text, zone_at.unwrap_or(text.len()))?;
    let [hour, minute, second] = clock.parts;
    seconds_of_day(hour, minute, second)?;
    let Some(zone_at) = zone_at else { return clock.to_the_end.then_some(()) };
    let zone = &text[zone_at + 1..];
    if text[zone_at] == b'Z' {
        return zone.is_empty().then_some(());
    }
    let zone = Clock::read(zone, zone.len())?;
    let [hours, minutes, seconds] = zone.parts;
    // Minutes and seconds of a zone may be any two digits, as long as they do not add up to a day.
    (zone.to_the_end && hours * 3600 + minutes * 60 + seconds < 86_400).then_some(())
}

/// `HH`, `HH:MM`, `HH:MM:SS` or the same without colons, and a fraction of whichever stands last.
struct Clock {
    parts: [i64; 3],
    /// Whether nothing stands behind it.
    to_the_end: bool,
}

impl Clock {
    /// Reads the clock at the beginning of a text, up to its end or its zone. As the checker does it,
    /// one letter behind the last pair of digits, or letters behind the sixth digit of a fraction, are
    /// passed over where a zone follows.
    fn read(text: &[u8], end: usize) -> Option<Self> {
        let mut parts = [0; 3];
        let mut at = 0;
        let mut colons = true;
        for (index, part) in parts.iter_mut().enumerate() {
            *part = digits(text.get(at..at + 2)?)?;
            let next = text.get(at + 2).copied();
            at += 3;
            if index == 0 {
                colons = next == Some(b':');
            }
            if at >= end {
                return Some(Self { parts, to_the_end: next.is_none() });
            }
            match next {
                Some(b':') if colons => {}
                Some(b'.' | b',') => break,
                _ if !colons => at -= 1,
                _ => return None,
            }
        }
        let fraction = &text[at..end];
        if !fraction.iter().take(FRACTION_DIGITS_MAX).all(u8::is_ascii_digit) {
            return None;
        }
        let to_the_end = end == text.len() && fraction.iter().all(u8::is_ascii_digit);
        Some(Self { parts, to_the_end })
    }
}

/// Digits of a fraction that the checker looks at: microseconds.
const FRACTION_DIGITS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::date_time::DateTime;

    #[test]
    fn what_the_estates_checker_takes_is_taken() {
        for text in [
            "2026-05-04T10:20:30Z",
            "2026-05-04t10:20:30Z",
            "2026-05-04 10:20:30+02:00",
            "2026-05-04T10:20:30.123456789-0230",
            "2026-05-04T10:20",
            "2026-05-04T10",
            "2026-05-04",
            "20260504",
            "20260504T102030Z",
            "20260504T102030,5",
            "2026-W19",
            "2026-W19-1",
            "2026W191T10:20",
            "2026-05-04T10:20:30+05:30:15",
            "2026-05-04T10:20:30.1+00:00:00.5",
            "2026-05-04T10:20.5",
            "2026-05-04T10,5Z",
            "2026-05-04T10:20:30+04:60",
            "2026-05-04T10:20:30-22:99:99",
            "2026-05-04T10:20:30.123456x+00:00",
        ] {
            assert!(is_iso_time(text), "{text}");
        }
    }

    #[test]
    fn what_the_estates_checker_refuses_is_refused() {
        for text in [
            "",
            "now",
            "2026",
            "2026-05",
            "2026-05-04T",
            "2026-05-04T10:20:30z",
            "2026-05-04T10:20:30ZZ",
            "2026-05-04T10:20:30.",
            "2026-05-04T102030.",
            "2026-05-04T10:20:60Z",
            "2026-05-04T24:00:00Z",
            "2026-02-29",
            "2026-13-01",
            "2026-W54",
            "0000-01-01",
            "2026-05-04T10:2030",
            "2026-05-04T1020:30",
            "2026-05-04T10:20:30+24:00",
            "2026-05-04T10:20:30+23:60",
            "2026-05-04T10:20:30+04:00.x",
            "2026-05-04T10:20x30",
            "2026-05-04T10:20:30.12345x+00:00",
            "2026-05-04T10:20:30.123456x",
            "2026-05-04T10:20:30é",
        ] {
            assert!(!is_iso_time(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in any::<String>()) {
            let _ = is_iso_time(&text);
        }

        #[test]
        fn no_near_miss_makes_reading_panic(text in "[0-9]{4}[-0-9WTZ:+.é,]{0,24}") {
            let _ = is_iso_time(&text);
        }

        #[test]
        fn rfc_3339_times_in_capitals_are_among_them(text in "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9])") {
            if text.parse::<DateTime>().is_ok() {
                prop_assert!(is_iso_time(&text));
            }
        }
    }
}
