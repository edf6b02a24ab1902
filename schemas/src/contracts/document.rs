//! Typed documents that are known to be valid.

use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Contract, Finding, Options, validate};

/// The type of a document that has a contract.
pub trait Document: Serialize + DeserializeOwned {
    /// The contract.
    const CONTRACT: &'static Contract;
}

/// A document that was held to its contract, in full and strictly: there is no other way to make one.
///
/// What it holds cannot be changed; take it out with [`Valid::into_inner`], change it, and have it
/// checked again.
#[derive(Debug, Clone, PartialEq)]
pub struct Valid<T>(T);

/// A document that breaks its contract.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the document is no valid {contract}: {}", first(findings))]
pub struct InvalidDocument {
    /// The contract.
    pub contract: &'static str,
    /// What is wrong, worst first; never empty.
    pub findings: Vec<Finding>,
}

fn first(findings: &[Finding]) -> String {
    findings.first().map_or_else(String::new, |finding| {
        let Finding { path, message, .. } = finding;
        let place = if path.is_empty() { "document" } else { path };
        format!("{place}: {message}")
    })
}

impl<T: Document> Valid<T> {
    /// Checks a document that was made here: every rule is an error, whoever has it.
    pub fn new(document: T) -> Result<Self, InvalidDocument> {
        let value = serde_json::to_value(&document).map_err(|error| unreadable::<T>(&error))?;
        check::<T>(&value, true)?;
        Ok(Self(document))
    }

    /// Reads a document from outside: only what the estate's tools refuse too is refused.
    pub fn read(value: Value) -> Result<Self, InvalidDocument> {
        check::<T>(&value, false)?;
        read_typed(&value).map(Self).map_err(|error| unreadable::<T>(&error))
    }

    /// The document, for changing.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// The document as JSON.
    pub fn to_value(&self) -> Value {
        // Holds: what is in here was written as JSON, or read from it, when it was checked.
        serde_json::to_value(&self.0).expect("a checked document is writable")
    }
}

impl<T> Deref for Valid<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Serialize> Serialize for Valid<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

fn check<T: Document>(value: &Value, strict: bool) -> Result<(), InvalidDocument> {
    let options = Options { contract: Some(T::CONTRACT), profile: None, strict };
    let verdict = validate(value, &options);
    if verdict.is_valid() {
        return Ok(());
    }
    Err(InvalidDocument { contract: T::CONTRACT.name, findings: verdict.errors })
}

/// Reads a document as its type. A schema takes `2.0` and `1e3` for integers, a type does not; so where
/// the type refuses the document, floats that are whole are integers.
pub fn read_typed<T: DeserializeOwned>(document: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(document).or_else(|error| {
        let mut document = document.clone();
        if !make_whole(&mut document) {
            return Err(error);
        }
        T::deserialize(document)
    })
}

/// Makes floats that are whole, and fit, integers; whether there were any.
fn make_whole(value: &mut Value) -> bool {
    /// From here on not every integer is a float, so what a float means is a guess.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0);
            let Some(whole) = whole.filter(|float| float.abs() <= EXACT_MAX) else { return false };
            *number = (whole as i64).into();
            true
        }
        Value::Array(items) => items.iter_mut().map(make_whole).filter(|made| *made).count() > 0,
        Value::Object(members) => {
            members.values_mut().map(make_whole).filter(|made| *made).count() > 0
        }
        _ => false,
    }
}

/// The schema lets pass what the type does not, such as an integer beyond 64 bits.
fn unreadable<T: Document>(error: &serde_json::Error) -> InvalidDocument {
    let message = format!("it cannot be read: {error}");
    let finding = super::finding::finding("contract.readable".into(), "", &message);
    InvalidDocument { contract: T::CONTRACT.name, findings: vec![finding] }
}
