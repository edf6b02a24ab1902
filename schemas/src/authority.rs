//! The capability-authority family: contracts, grants, storms, network, registry, phases.
//!
//! The family was published in two forms: the estate's schemas (profile `published`) and the proposal that
//! asked for them (profile `proposal`). What this project writes satisfies both, but for the registry
//! record, of which no one form satisfies both (ADR 0011).

pub mod contract;
pub mod grant;
pub mod network;
pub mod phase;
pub mod registry;
pub mod storm;

use serde_json::Value;

use crate::date_time::DateTime;

fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value.get(member)?.as_str()
}

fn moment(value: &Value, member: &str) -> Option<DateTime> {
    text(value, member)?.parse().ok()
}

fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.get(member).and_then(Value::as_array).into_iter().flatten().enumerate()
}

/// Four of the six take any version; `v0.1` is written, which all six take.
mod any_version {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::contract::SpecVersion;

    pub(super) fn serialize<S: Serializer>(
        version: &SpecVersion,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        version.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SpecVersion, D::Error> {
        String::deserialize(from).map(|_| SpecVersion)
    }
}

#[cfg(test)]
mod tests;
