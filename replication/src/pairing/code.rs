//! The short code that one person reads out and the other types in.

use std::fmt;
use std::str::FromStr;

use super::words::{WORD_COUNT, WORDS};

/// How many words a code has. Three carry 30 bits: with one guess for an invite, a stranger's chance
/// is one in a thousand million.
pub const CODE_WORDS: usize = 3;

/// Most characters of a code as typed in, so that nothing longer is looked at.
pub const CODE_CHARS_MAX: usize = 120;

/// The highest nameplate: four digits.
pub const NAMEPLATE_MAX: u16 = 9999;

/// Text that is no pairing code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not a number and three words.
    #[error("a pairing code is a number and three words, like 42-{}-{}-{}", WORDS[0], WORDS[1], WORDS[2])]
    Form,
    /// A word that is in no code.
    #[error("pairing codes have no word {word:?}{}", did_you_mean(*.instead))]
    Word {
        /// What was typed.
        word: String,
        /// The nearest word that codes have, if one is near.
        instead: Option<&'static str>,
    },
}

fn did_you_mean(instead: Option<&str>) -> String {
    instead.map_or_else(String::new, |word| format!(", did you mean {word:?}?"))
}

/// A pairing code: a public number by which the invite is found, and three secret words.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    nameplate: u16,
    words: [&'static str; CODE_WORDS],
}

impl Code {
    /// The code that these random bytes choose: two digits and three words.
    pub(super) fn choose(random: [u8; 8]) -> Self {
        let pick = |at: usize| usize::from(u16::from_be_bytes([random[at], random[at + 1]]));
        // The number of words divides 2^16, so every word is as likely as every other. The
        // nameplate is no secret.
        let word = |at: usize| WORDS[pick(at) % WORD_COUNT];
        let nameplate = 10 + u16::from_be_bytes([random[0], random[1]]) % 90;
        Self { nameplate, words: [word(2), word(4), word(6)] }
    }

    /// The number by which the invite is found. Not a secret.
    pub fn nameplate(&self) -> u16 {
        self.nameplate
    }

    /// The bytes that both sides must know.
    pub(super) fn password(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.words;
        write!(f, "{}-{a}-{b}-{c}", self.nameplate)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-..)", self.nameplate)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// Forgives case, and any mix of spaces, dashes, dots and underscores between the parts.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        if text.len() > CODE_CHARS_MAX {
            return Err(CodeError::Form);
        }
        let text = text.to_lowercase();
        let between = |c: char| {
            c.is_whitespace() || matches!(c, '-' | '_' | '.' | ',' | '\u{2010}'..='\u{2015}')
        };
        let mut parts = text.split(between).filter(|part| !part.is_empty());
        let number = parts.next().ok_or(CodeError::Form)?;
        if number.len() > 4 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CodeError::Form);
        }
        let nameplate = number.parse().map_err(|_| CodeError::Form)?;
        let typed: Vec<&str> = parts.collect();
        let [a, b, c] = typed[..] else {
            return Err(CodeError::Form);
        };
        Ok(Self { nameplate, words: [find(a)?, find(b)?, find(c)?] })
    }
}

fn find(word: &str) -> Result<&'static str, CodeError> {
    if let Ok(at) = WORDS.binary_search(&word) {
        return Ok(WORDS[at]);
    }
    let nearest = WORDS.iter().map(|known| (distance(word, known), *known)).min();
    let instead = nearest.filter(|(distance, _)| *distance <= 2).map(|(_, known)| known);
    Err(CodeError::Word { word: word.to_owned(), instead })
}

/// How many letters must be put in, taken out or changed to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn code_is_read_whatever_stands_between_its_parts() {
        let code = Code::choose([0, 32, 0, 1, 2, 3, 4, 5]);
        let text = code.to_string();
        assert!(text.starts_with("42-"), "{text}");
        for form in [
            text.clone(),
            text.to_uppercase(),
            text.replace('-', " "),
            text.replace('-', " - "),
            format!("  {}\n", text.replace('-', "_")),
            text.replace('-', "\u{2013}"),
        ] {
            assert_eq!(form.parse::<Code>().unwrap(), code, "{form:?}");
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let [a, b, c] = [WORDS[1], WORDS[2], WORDS[3]];
        for text in [
            String::new(),
            "42".into(),
            format!("{a}-{b}-{c}"),
            format!("12345-{a}-{b}-{c}"),
            format!("+4-{a}-{b}-{c}"),
            format!("42-{a}-{b}"),
            format!("42-{a}-{b}-{c}-{c}"),
            "x".repeat(CODE_CHARS_MAX + 1),
        ] {
            assert_eq!(text.parse::<Code>().unwrap_err(), CodeError::Form, "{text:?}");
        }
    }

    #[test]
    fn mistyped_word_is_named_with_the_nearest_one() {
        let error = "42-zebrra-across-acorn".parse::<Code>().unwrap_err();
        assert_eq!(error, CodeError::Word { word: "zebrra".into(), instead: Some("zebra") });
        assert_eq!(
            error.to_string(),
            "pairing codes have no word \"zebrra\", did you mean \"zebra\"?"
        );
        let error = "42-qqqqqq-across-acorn".parse::<Code>().unwrap_err();
        assert_eq!(error, CodeError::Word { word: "qqqqqq".into(), instead: None });
    }

    #[test]
    fn secret_words_are_not_printed_for_debugging() {
        let code = "42-zebra-across-acorn".parse::<Code>().unwrap();
        assert_eq!(format!("{code:?}"), "Code(42-..)");
    }

    proptest! {
        #[test]
        fn every_chosen_code_reads_back(random in any::<[u8; 8]>()) {
            let code = Code::choose(random);
            prop_assert_eq!(code.to_string().parse::<Code>().unwrap(), code);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,130}") {
            let _ = text.parse::<Code>();
        }
    }
}
