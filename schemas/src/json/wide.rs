//! Integers beyond 64 bits: a value that is judged holds the nearest one that fits, and what was written
//! is kept beside it, so that rules and digests go by the digits and not by the stand-in.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use super::{JsonError, shortened};

/// Most digits of an integer that is judged: the estate's readers refuse longer ones too, and turning
/// one into hexadecimal stays quick.
pub const INTEGER_DIGITS_MAX: usize = 4300;

/// Most integers beyond 64 bits in one document: real ones have a few, and each is kept with its place.
pub const WIDE_MAX: usize = 1024;

/// Longest pointer under which one is kept, in bytes: keys of a hostile document can be megabytes long.
pub(super) const POINTER_BYTES_MAX: usize = 1024;

/// Most of which a reader is told where they stand.
pub const WIDE_LISTED_MAX: usize = 8;

/// The integers of one document that do not fit 64 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wide {
    pub(super) numbers: BTreeMap<String, String>,
    pub(super) listed: Vec<JsonError>,
}

impl Wide {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The first of them, at most [`WIDE_LISTED_MAX`], each as what a strict reader says of it.
    pub fn listed(&self) -> &[JsonError] {
        &self.listed
    }

    /// What was written at a JSON pointer, if that is one of them.
    pub fn digits(&self, pointer: &str) -> Option<&str> {
        if self.numbers.is_empty() { None } else { self.numbers.get(pointer).map(String::as_str) }
    }

    /// Those below a pointer, as they stand in the value there.
    #[must_use]
    pub fn under(&self, pointer: &str) -> Self {
        let numbers = self.numbers.iter().filter_map(|(at, digits)| {
            let rest = at.strip_prefix(pointer).filter(|rest| rest.starts_with('/'))?;
            Some((rest.to_owned(), digits.clone()))
        });
        Self { numbers: numbers.collect(), listed: Vec::new() }
    }

    /// The integer at a pointer of the document, whatever its size; `2.0` is one too.
    pub fn integer(&self, document: &Value, pointer: &str) -> Option<Integer<'_>> {
        let number = document.pointer(pointer)?.as_number()?;
        let written = match self.digits(pointer) {
            Some(digits) => Cow::Borrowed(digits),
            None if number.is_f64() => {
                let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
                Cow::Owned(format!("{float:.0}"))
            }
            None => Cow::Owned(number.to_string()),
        };
        Some(Integer::read(written))
    }
}

/// An integer of any size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integer<'a> {
    negative: bool,
    /// Without zeros in front.
    digits: Cow<'a, str>,
}

impl<'a> Integer<'a> {
    /// Takes what JSON writes of an integer.
    fn read(written: Cow<'a, str>) -> Self {
        let negative = written.starts_with('-') && written != "-0";
        let digits = match written {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_start_matches('-')),
            Cow::Owned(text) => Cow::Owned(text.trim_start_matches('-').to_owned()),
        };
        Self { negative, digits }
    }

    /// Whether it is greater than zero.
    pub fn is_positive(&self) -> bool {
        !self.negative && self.digits != "0"
    }

    /// The same, where it fits.
    pub fn as_u64(&self) -> Option<u64> {
        if self.negative { None } else { self.digits.parse().ok() }
    }

    /// The nearest float.
    pub fn as_f64(&self) -> f64 {
        let size: f64 = self.digits.parse().unwrap_or(f64::INFINITY);
        if self.negative { -size } else { size }
    }

    /// Its hexadecimal digits, without zeros in front; nothing where it is negative.
    pub fn hex(&self) -> Option<String> {
        if self.negative {
            return None;
        }
        if let Some(small) = self.as_u64() {
            return Some(format!("{small:x}"));
        }
        // Parts of 32 bits, the least first; a decimal digit after the other goes in.
        let mut parts: Vec<u32> = Vec::new();
        for digit in self.digits.bytes() {
            let mut carry = u64::from(digit.wrapping_sub(b'0'));
            for part in &mut parts {
                let sum = u64::from(*part) * 10 + carry;
                *part = (sum & u64::from(u32::MAX)) as u32;
                carry = sum >> 32;
            }
            if carry > 0 {
                parts.push(carry as u32);
            }
        }
        let hex: String = parts.iter().rev().map(|part| format!("{part:08x}")).collect();
        Some(hex.trim_start_matches('0').to_owned())
    }
}

impl Ord for Integer<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |of: &Self| (of.digits.len(), of.digits.to_string());
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
        }
    }
}

impl PartialOrd for Integer<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Integer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        write!(f, "{sign}{}", shortened(&self.digits))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::json::{Limits, parse_to_judge};

    fn integer(text: &str) -> Integer<'_> {
        Integer::read(Cow::Borrowed(text))
    }

    #[test]
    fn what_was_written_is_found_again_at_its_pointer() {
        let two70 = "1180591620717411303424";
        let text = format!(r#"{{"a":[1,{two70}],"b/c":{{"~":-{two70}}},"d":7,"e":120.0}}"#);
        let (value, wide) = parse_to_judge(text.as_bytes(), Limits::BODY).unwrap();
        assert_eq!(value["a"], json!([1, u64::MAX]));
        assert_eq!((wide.digits("/a/1"), wide.digits("/a/0")), (Some(two70), None));
        assert_eq!(wide.digits("/b~1c/~0"), Some(&*format!("-{two70}")));
        assert_eq!(wide.under("/a").digits("/1"), Some(two70));
        assert!(wide.under("/d").is_empty());
        assert_eq!(wide.integer(&value, "/a/1").unwrap().hex().unwrap(), "400000000000000000");
        assert!(wide.integer(&value, "/b~1c/~0").unwrap() < wide.integer(&value, "/d").unwrap());
        assert_eq!(wide.integer(&value, "/e").unwrap().as_u64(), Some(120));
        assert_eq!(wide.integer(&value, "/a"), None);
    }

    #[test]
    fn more_than_can_be_kept_is_refused() {
        let wide = u128::MAX.to_string();
        let many = |count: usize| format!("[{}0]", format!("{wide},").repeat(count));
        assert!(parse_to_judge(many(WIDE_MAX).as_bytes(), Limits::BODY).is_ok());
        assert!(parse_to_judge(many(WIDE_MAX + 1).as_bytes(), Limits::BODY).is_err());
        let long = |digits: usize| parse_to_judge("9".repeat(digits).as_bytes(), Limits::BODY);
        assert!(long(INTEGER_DIGITS_MAX).is_ok() && long(INTEGER_DIGITS_MAX + 1).is_err());
        let deep = format!(r#"{{"{}":{wide}}}"#, "k".repeat(POINTER_BYTES_MAX));
        assert!(parse_to_judge(deep.as_bytes(), Limits::BODY).is_err());
    }

    proptest! {
        #[test]
        fn integers_compare_and_turn_hexadecimal_as_they_should(a in any::<i128>(), b in any::<i128>()) {
            let (x, y) = (a.to_string(), b.to_string());
            prop_assert_eq!(integer(&x).cmp(&integer(&y)), a.cmp(&b));
            prop_assert_eq!(integer(&x).hex(), (a >= 0).then(|| format!("{a:x}")));
        }
    }
}
