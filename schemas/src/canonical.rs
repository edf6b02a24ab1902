//! One text for one JSON value, for hashes, signatures and derived ids.
//!
//! There are two forms. [`rfc8785`] is the standard one, for what this project signs. [`estate`] is the
//! form from which ids and digests of published documents derive, which other tools of the estate
//! compute with Python's `json.dumps`: it differs in the order of keys beyond U+FFFF, in escapes, and
//! in that `1` and `1.0` stay different. [`estate_spaced`] is the same with spaces after separators,
//! which some older ids derive from.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};
use sha2::{Digest as _, Sha256};

use crate::contracts::escape;
use crate::json::Wide;

/// Largest integer that every reader of RFC 8785 texts holds exactly: 2^53.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// A value that has no RFC 8785 text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// An integer that a 64-bit float does not hold exactly.
    #[error(
        "integer {0} is beyond 2^53, so RFC 8785 has no exact text for it: write it as a string"
    )]
    IntegerTooLarge(String),
}

/// The text of a value after RFC 8785 (JSON Canonicalization Scheme).
pub fn rfc8785(value: &Value) -> Result<String, CanonicalError> {
    let mut out = String::new();
    write_rfc8785(value, &mut out)?;
    Ok(out)
}

/// The text of a value from which digests and ids of the estate derive: no spaces.
pub fn estate(value: &Value) -> String {
    estate_of(value, &Wide::default())
}

/// The same of a value that is judged, with the digits of its integers beyond 64 bits.
fn estate_of(value: &Value, wide: &Wide) -> String {
    let mut text = EstateText { wide, pointer: String::new(), out: String::new() };
    text.write(value, Separators { item: ",", key: ":" });
    text.out
}

/// The same with a space after each comma and colon.
pub fn estate_spaced(value: &Value) -> String {
    let wide = &Wide::default();
    let mut text = EstateText { wide, pointer: String::new(), out: String::new() };
    text.write(value, Separators { item: ", ", key: ": " });
    text.out
}

/// The digest of a document: `sha256:` and the hash of its [`estate`] text, in hexadecimal.
pub fn digest(value: &Value) -> String {
    format!("sha256:{}", hash_hex(&estate(value)))
}

/// The same of a value that is judged, with the digits of its integers beyond 64 bits.
pub fn digest_judged(value: &Value, wide: &Wide) -> String {
    format!("sha256:{}", hash_hex(&estate_of(value, wide)))
}

/// An id derived from a value: prefix, and so many hexadecimal digits of the hash of its
/// [`estate`] text.
pub fn derived_id(prefix: &str, value: &Value, digits: usize) -> String {
    format!("{prefix}{}", cut(&hash_hex(&estate(value)), digits))
}

/// The same over the [`estate_spaced`] text.
pub fn derived_id_spaced(prefix: &str, value: &Value, digits: usize) -> String {
    format!("{prefix}{}", cut(&hash_hex(&estate_spaced(value)), digits))
}

/// The SHA-256 hash of a text, in hexadecimal.
pub fn hash_hex(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Holds: a String never refuses text.
        write!(hex, "{byte:02x}").expect("a String is writable");
    }
    hex
}

fn cut(hex: &str, digits: usize) -> &str {
    &hex[..digits.min(hex.len())]
}

fn write_rfc8785(value: &Value, out: &mut String) -> Result<(), CanonicalError> {
    match value {
        Value::Number(number) => out.push_str(&rfc8785_number(number)?),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_rfc8785(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(key, Escapes::Needed, out);
                out.push(':');
                write_rfc8785(value, out)?;
            }
            out.push('}');
        }
        Value::String(text) => write_string(text, Escapes::Needed, out),
        Value::Bool(_) | Value::Null => out.push_str(&value.to_string()),
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Separators {
    item: &'static str,
    key: &'static str,
}

/// The estate's text in the making.
struct EstateText<'a> {
    wide: &'a Wide,
    /// The pointer of the present place; kept only where there are integers beyond 64 bits.
    pointer: String,
    out: String,
}

impl EstateText<'_> {
    fn write(&mut self, value: &Value, separators: Separators) {
        match value {
            Value::Number(number) => match self.wide.digits(&self.pointer) {
                Some(digits) => self.out.push_str(digits),
                None => self.out.push_str(&estate_number(number)),
            },
            Value::Array(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.out.push_str(if index > 0 { separators.item } else { "" });
                    self.write_at(&index.to_string(), item, separators);
                }
                self.out.push(']');
            }
            Value::Object(members) => {
                self.out.push('{');
                for (index, (key, value)) in by_code_point(members).into_iter().enumerate() {
                    self.out.push_str(if index > 0 { separators.item } else { "" });
                    write_string(key, Escapes::AllButAscii, &mut self.out);
                    self.out.push_str(separators.key);
                    self.write_at(key, value, separators);
                }
                self.out.push('}');
            }
            Value::String(text) => write_string(text, Escapes::AllButAscii, &mut self.out),
            Value::Bool(_) | Value::Null => self.out.push_str(&value.to_string()),
        }
    }

    fn write_at(&mut self, name: &str, value: &Value, separators: Separators) {
        let outer = self.pointer.len();
        if !self.wide.is_empty() {
            self.pointer.push('/');
            self.pointer.push_str(&escape(name));
        }
        self.write(value, separators);
        self.pointer.truncate(outer);
    }
}

/// Members sorted by code point, which is the order of their UTF-8 bytes.
fn by_code_point(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    sorted
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// What JSON must escape.
    Needed,
    /// Everything but printable ASCII.
    AllButAscii,
}

fn write_string(text: &str, escapes: Escapes, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            ' '..='~' => out.push(letter),
            _ if letter < ' ' || escapes == Escapes::AllButAscii => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    // Holds: a String never refuses text.
                    write!(out, "\\u{unit:04x}").expect("a String is writable");
                }
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// A float as its shortest digits and the power of ten of the first one: 1234.5 is ("12345", 3).
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i32,
}

impl Decimal {
    /// The digits come from serde_json: of two shortest texts that are equally near, it takes the even
    /// one, as ECMAScript and Python do and as `{:e}` does not.
    fn of(number: &Number) -> Self {
        let text = number.to_string();
        let negative = text.starts_with('-');
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
        let mantissa = mantissa.trim_start_matches('-');
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let zeros = digits.bytes().take_while(|digit| *digit == b'0').count();
        let significant = digits[zeros..].trim_end_matches('0');
        if significant.is_empty() {
            return Self { negative, digits: "0".to_owned(), exponent: 0 };
        }
        // Holds: a float's text is short, and its exponent a small number.
        let exponent: i32 = exponent.parse().expect("a float has a small exponent");
        let exponent = exponent + whole.len() as i32 - zeros as i32 - 1;
        Self { negative, digits: significant.to_owned(), exponent }
    }

    fn sign(&self) -> &'static str {
        if self.negative { "-" } else { "" }
    }

    /// Written out, without a point where it is whole.
    fn plain(&self) -> String {
        let sign = self.sign();
        let digits = &self.digits;
        if self.exponent < 0 {
            let zeros = "0".repeat(self.exponent.unsigned_abs() as usize - 1);
            return format!("{sign}0.{zeros}{digits}");
        }
        let whole = self.exponent as usize + 1;
        if digits.len() <= whole {
            return format!("{sign}{digits}{}", "0".repeat(whole - digits.len()));
        }
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }

    /// With an exponent of at least so many digits.
    fn scientific(&self, exponent_digits: usize) -> String {
        let (first, rest) = self.digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let (sign, exponent) = (self.sign(), self.exponent.unsigned_abs());
        let exponent_sign = if self.exponent < 0 { '-' } else { '+' };
        format!("{sign}{first}{point}{rest}e{exponent_sign}{exponent:0exponent_digits$}")
    }
}

/// A number as ECMAScript writes it.
fn rfc8785_number(number: &Number) -> Result<String, CanonicalError> {
    if let Some(integer) = number.as_i64().map(i64::unsigned_abs).or(number.as_u64()) {
        if integer > EXACT_INTEGER_MAX {
            return Err(CanonicalError::IntegerTooLarge(number.to_string()));
        }
        return Ok(number.to_string());
    }
    if number.as_f64() == Some(0.0) {
        return Ok("0".to_owned());
    }
    let decimal = Decimal::of(number);
    let plain = (-6..21).contains(&decimal.exponent);
    Ok(if plain { decimal.plain() } else { decimal.scientific(1) })
}

/// A number as Python writes it.
fn estate_number(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let decimal = Decimal::of(number);
    if !(-4..16).contains(&decimal.exponent) {
        return decimal.scientific(2);
    }
    let plain = decimal.plain();
    if plain.contains('.') { plain } else { plain + ".0" }
}

#[cfg(test)]
mod tests;
