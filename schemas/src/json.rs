//! Strict reading and canonical writing of JSON.
//!
//! What comes from outside is read by [`parse`], which refuses what readers commonly let pass and
//! then understand differently: duplicate keys, integers that do not fit 64 bits, numbers that
//! overflow a float, unpaired surrogates, bytes that are not UTF-8, and anything after the value.
//! Floats are read exactly (the nearest double), so a canonical text reads back byte for byte.

mod wide;

use std::borrow::Cow;

use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::contracts::escape;

pub use self::wide::{INTEGER_DIGITS_MAX, Integer, WIDE_LISTED_MAX, WIDE_MAX, Wide};

/// Largest JSON text of one body or one import line, in bytes: an object is to stay well within one
/// journal entry and one wire frame.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of arrays and objects that is read: deep enough for real documents, shallow
/// enough that reading recursively never exhausts a stack.
pub const DEPTH_MAX: usize = 128;

/// What a reader of JSON accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest text, in bytes.
    pub bytes_max: usize,
    /// Deepest nesting: `[[1]]` has depth 2.
    pub depth_max: usize,
}

impl Limits {
    /// The limits of one object's body, and of one request that carries it.
    pub const BODY: Self = Self { bytes_max: BODY_BYTES_MAX, depth_max: DEPTH_MAX };

    /// The limits of documents that this program wrote itself: as deep as a body of the greatest
    /// depth with a page of objects around it. What bounds their size is whoever reads them.
    pub const STORED: Self = Self { bytes_max: usize::MAX, depth_max: DEPTH_MAX + 8 };
}

/// Why a text is not acceptable JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at line {line} column {column}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Line of the offending character, from 1.
    pub line: usize,
    /// Column of the offending character in its line, in characters, from 1.
    pub column: usize,
}

/// What can be wrong with a JSON text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The text is longer than the limit.
    #[error("JSON text of {size} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Arrays and objects are nested deeper than the limit.
    #[error("nested deeper than the limit of {limit} levels")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// The bytes are not UTF-8.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// One object has the same key twice.
    #[error("duplicate key {key:?}")]
    DuplicateKey {
        /// The key, shortened when it is long.
        key: String,
    },
    /// An integer fits neither a signed nor an unsigned 64-bit number.
    #[error(
        "integer {digits} does not fit 64 bits; write it as a string, or as a float with a point"
    )]
    IntegerTooLarge {
        /// The integer as written, shortened when it is long.
        digits: String,
    },
    /// A number is beyond the range of a 64-bit float.
    #[error("number {digits} is beyond the range of a 64-bit float")]
    FloatTooLarge {
        /// The number as written, shortened when it is long.
        digits: String,
    },
    /// A number is not written as JSON numbers are.
    #[error("malformed number")]
    MalformedNumber,
    /// A `\u` escape names half of a surrogate pair.
    #[error("unpaired surrogate in a \\u escape")]
    LoneSurrogate,
    /// An escape that JSON does not have.
    #[error("invalid escape in a string")]
    InvalidEscape,
    /// A control character stands unescaped in a string.
    #[error("unescaped control character in a string")]
    ControlCharacter,
    /// The text ends in the middle of a value.
    #[error("the text ends in the middle of a value")]
    UnexpectedEnd,
    /// A character stands where something else must.
    #[error("expected {expected}, found {found:?}")]
    Unexpected {
        /// What would have been right.
        expected: &'static str,
        /// What was there.
        found: char,
    },
    /// There is more after the value.
    #[error("unexpected {found:?} after the end of the value")]
    TrailingText {
        /// The first character after the value.
        found: char,
    },
}

/// Reads one JSON value, strictly: see the module's documentation for what is refused.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Value, JsonError> {
    read(bytes, limits, None)
}

/// Reads one JSON value that is only to be judged: an integer that does not fit 64 bits, which some
/// readers have and no contract forbids, is taken for the one next to it that fits, and what was written
/// is kept beside the value. What is kept, hashed or written is read with [`parse`].
pub fn parse_to_judge(bytes: &[u8], limits: Limits) -> Result<(Value, Wide), JsonError> {
    let mut aside = Aside::default();
    let value = read(bytes, limits, Some(&mut aside))?;
    let Aside { mut wide, faults, .. } = aside;
    wide.listed = faults.into_iter().map(|fault| locate(bytes, fault)).collect();
    Ok((value, wide))
}

/// What a reader keeps that takes integers beyond 64 bits.
#[derive(Default)]
struct Aside {
    wide: Wide,
    faults: Vec<Fault>,
    /// The pointer of the present place.
    pointer: String,
}

fn read(bytes: &[u8], limits: Limits, wide: Option<&mut Aside>) -> Result<Value, JsonError> {
    if bytes.len() > limits.bytes_max {
        let kind = JsonErrorKind::TooLarge { size: bytes.len(), limit: limits.bytes_max };
        return Err(JsonError { kind, line: 1, column: 1 });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            return Err(locate(bytes, Fault(JsonErrorKind::NotUtf8, error.valid_up_to())));
        }
    };
    let mut reader = Reader { text, bytes, at: 0, depth_left: limits.depth_max, limits, wide };
    reader.document().map_err(|fault| locate(bytes, *fault))
}

/// The canonical text of a value: keys in byte order, no spaces, number kinds kept (`1` and `1.0`
/// are different values and different texts).
///
/// Two values are equal exactly when their canonical texts are; hashes and signatures are made over
/// this text.
pub fn canonical(value: &Value) -> String {
    // Holds: a `Value` has string keys and finite numbers only, and a String never refuses bytes.
    serde_json::to_string(value).expect("a JSON value is always writable")
}

/// A fault and the byte at which it is.
struct Fault(JsonErrorKind, usize);

/// Boxed, because the good path should not carry the size of an error it never meets.
type Step<T> = Result<T, Box<Fault>>;

fn locate(bytes: &[u8], Fault(kind, offset): Fault) -> JsonError {
    let before = &bytes[..offset.min(bytes.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    // Continuation bytes do not start a character.
    let column = before[line_start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1;
    JsonError { kind, line, column }
}

/// The first characters of what was found, for an error: hostile input must not fill a log.
fn shortened(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth_left: usize,
    limits: Limits,
    /// Where integers beyond 64 bits are told, by a reader that takes them.
    wide: Option<&'a mut Aside>,
}

impl Reader<'_> {
    fn document(&mut self) -> Step<Value> {
        self.skip_spaces();
        let value = self.value()?;
        self.skip_spaces();
        if self.at < self.bytes.len() {
            return self.fail(JsonErrorKind::TrailingText { found: self.current() });
        }
        Ok(value)
    }

    fn value(&mut self) -> Step<Value> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => self.expected("a value"),
        }
    }

    fn object(&mut self) -> Step<Value> {
        self.enter()?;
        let mut map = Map::new();
        self.skip_spaces();
        if self.take(b'}') {
            self.depth_left += 1;
            return Ok(Value::Object(map));
        }
        loop {
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return self.expected("a key in double quotes");
            }
            let key = self.string()?;
            self.skip_spaces();
            if !self.take(b':') {
                return self.expected("':' after a key");
            }
            self.skip_spaces();
            match map.entry(key) {
                Entry::Vacant(place) => {
                    let outer = self.step_into(|| escape(place.key()));
                    let value = self.value()?;
                    self.step_out(outer);
                    place.insert(value);
                }
                Entry::Occupied(place) => {
                    let key = shortened(place.key());
                    return Err(Box::new(Fault(JsonErrorKind::DuplicateKey { key }, key_at)));
                }
            }
            self.skip_spaces();
            if self.take(b'}') {
                self.depth_left += 1;
                return Ok(Value::Object(map));
            }
            if !self.take(b',') {
                return self.expected("',' or '}'");
            }
            self.skip_spaces();
        }
    }

    fn array(&mut self) -> Step<Value> {
        self.enter()?;
        let mut items = Vec::new();
        self.skip_spaces();
        if self.take(b']') {
            self.depth_left += 1;
            return Ok(Value::Array(items));
        }
        loop {
            let outer = self.step_into(|| items.len().to_string().into());
            items.push(self.value()?);
            self.step_out(outer);
            self.skip_spaces();
            if self.take(b']') {
                self.depth_left += 1;
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return self.expected("',' or ']'");
            }
            self.skip_spaces();
        }
    }

    /// Notes the place of a member or item, where places are noted; gives what to go back to.
    fn step_into<'k>(&mut self, name: impl FnOnce() -> Cow<'k, str>) -> usize {
        let Some(Aside { pointer, .. }) = &mut self.wide else { return 0 };
        let outer = pointer.len();
        pointer.push('/');
        pointer.push_str(&name());
        outer
    }

    fn step_out(&mut self, outer: usize) {
        if let Some(aside) = &mut self.wide {
            aside.pointer.truncate(outer);
        }
    }

    /// Steps over the bracket that opens a container.
    fn enter(&mut self) -> Step<()> {
        if self.depth_left == 0 {
            return self.fail(JsonErrorKind::TooDeep { limit: self.limits.depth_max });
        }
        self.depth_left -= 1;
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Step<String> {
        self.at += 1;
        let mut read = String::new();
        loop {
            let run_at = self.at;
            while let Some(byte) = self.peek() {
                if byte == b'"' || byte == b'\\' || byte < 0x20 {
                    break;
                }
                self.at += 1;
            }
            // Both ends are at ASCII bytes or at the end of the text, so on character boundaries.
            let run = &self.text[run_at..self.at];
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    if read.is_empty() {
                        return Ok(run.to_owned());
                    }
                    read.push_str(run);
                    return Ok(read);
                }
                Some(b'\\') => {
                    read.push_str(run);
                    read.push(self.escape()?);
                }
                Some(_) => return self.fail(JsonErrorKind::ControlCharacter),
                None => return self.fail(JsonErrorKind::UnexpectedEnd),
            }
        }
    }

    fn escape(&mut self) -> Step<char> {
        let start = self.at;
        self.at += 1;
        let Some(byte) = self.peek() else {
            return self.fail(JsonErrorKind::UnexpectedEnd);
        };
        self.at += 1;
        let read = match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(start),
            _ => return Err(Box::new(Fault(JsonErrorKind::InvalidEscape, start))),
        };
        Ok(read)
    }

    /// Reads the rest of a `\u` escape whose backslash is at `start`.
    fn unicode_escape(&mut self, start: usize) -> Step<char> {
        let first = self.hex4(start)?;
        let code = match first {
            0xd800..=0xdbff => {
                if !(self.take(b'\\') && self.take(b'u')) {
                    return Err(Box::new(Fault(JsonErrorKind::LoneSurrogate, start)));
                }
                let second = self.hex4(start)?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(Box::new(Fault(JsonErrorKind::LoneSurrogate, start)));
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| Box::new(Fault(JsonErrorKind::LoneSurrogate, start)))
    }

    fn hex4(&mut self, start: usize) -> Step<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(byte) = self.peek() else {
                return self.fail(JsonErrorKind::UnexpectedEnd);
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(Box::new(Fault(JsonErrorKind::InvalidEscape, start)));
            };
            code = code << 4 | digit;
            self.at += 1;
        }
        Ok(code)
    }

    fn number(&mut self) -> Step<Number> {
        let start = self.at;
        let negative = self.take(b'-');
        let zero_first = self.peek() == Some(b'0');
        let integer_digits = self.digits();
        if integer_digits == 0 || (zero_first && integer_digits > 1) {
            return Err(Box::new(Fault(JsonErrorKind::MalformedNumber, start)));
        }
        let mut integer = true;
        if self.take(b'.') {
            integer = false;
            if self.digits() == 0 {
                return Err(Box::new(Fault(JsonErrorKind::MalformedNumber, start)));
            }
        }
        if self.take(b'e') || self.take(b'E') {
            integer = false;
            let _signed = self.take(b'+') || self.take(b'-');
            if self.digits() == 0 {
                return Err(Box::new(Fault(JsonErrorKind::MalformedNumber, start)));
            }
        }
        let written = &self.text[start..self.at];
        // Minus zero has no integer; as a float it keeps its sign. Who judges takes it for zero.
        if integer && (written != "-0" || self.wide.is_some()) {
            let number = if negative {
                written.parse::<i64>().map(Number::from)
            } else {
                written.parse::<u64>().map(Number::from)
            };
            return number.or_else(|_| {
                let digits = shortened(written);
                let fault = Fault(JsonErrorKind::IntegerTooLarge { digits }, start);
                let Some(aside) = &mut self.wide else { return Err(Box::new(fault)) };
                let Aside { wide, faults, pointer } = &mut **aside;
                if wide.numbers.len() >= WIDE_MAX
                    || pointer.len() > wide::POINTER_BYTES_MAX
                    || written.len() > INTEGER_DIGITS_MAX
                {
                    return Err(Box::new(fault));
                }
                if faults.len() < WIDE_LISTED_MAX {
                    faults.push(fault);
                }
                wide.numbers.insert(pointer.clone(), written.to_owned());
                Ok(if negative { Number::from(i64::MIN) } else { Number::from(u64::MAX) })
            });
        }
        written.parse::<f64>().ok().and_then(Number::from_f64).ok_or_else(|| {
            let digits = shortened(written);
            Box::new(Fault(JsonErrorKind::FloatTooLarge { digits }, start))
        })
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn word(&mut self, word: &'static str, value: Value) -> Step<Value> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(value);
        }
        if word.as_bytes().starts_with(&self.bytes[self.at..]) {
            self.at = self.bytes.len();
        }
        self.expected("a value")
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The character at the present place; the caller knows that there is one.
    fn current(&self) -> char {
        self.text.get(self.at..).and_then(|rest| rest.chars().next()).unwrap_or('\u{fffd}')
    }

    fn expected<T>(&self, expected: &'static str) -> Step<T> {
        if self.at >= self.bytes.len() {
            return self.fail(JsonErrorKind::UnexpectedEnd);
        }
        self.fail(JsonErrorKind::Unexpected { expected, found: self.current() })
    }

    fn fail<T>(&self, kind: JsonErrorKind) -> Step<T> {
        Err(Box::new(Fault(kind, self.at)))
    }
}

#[cfg(test)]
mod tests;
