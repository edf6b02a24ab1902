//! The contracts of lane definitions and of the state of lanes, and what their schemas cannot say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{LaneDescription, LanesStatus};
use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule};

/// Names of the lanes, in their usual order.
pub const LANE_NAMES: [&str; 11] = [
    "normal",
    "priority",
    "secure",
    "ephemeral",
    "memory",
    "policy",
    "audit",
    "tombstone",
    "migration",
    "repair",
    "archive",
];

/// The contract of a lane definition.
pub static LANE: Contract = Contract {
    name: "lane",
    urn: "urn:srcos:schema:lane:v1alpha1",
    file: "sourceos.lane.v1alpha1.schema.json",
    schema: include_str!("../../sourceos.lane.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", "sourceos.lane/v1alpha1"),
    profiled: false,
    rules: &[Rule {
        name: "lane.default-within-maximum",
        says: "the default time to live is not longer than the longest one",
        origin: Origin::Estate,
        check: default_is_within_maximum,
    }],
    compiled: Contract::not_compiled(),
};

/// The contract of the state of lanes.
pub static LANES_STATUS: Contract = Contract {
    name: "lanes-status",
    urn: "urn:srcos:schema:lanes-status:v1alpha1",
    file: "sourceos.lanes-status.v1alpha1.schema.json",
    schema: include_str!("../../sourceos.lanes-status.v1alpha1.schema.json"),
    discriminator: Discriminator::Member("schema", "sourceos.lanes-status/v1alpha1"),
    profiled: false,
    rules: &[
        Rule {
            name: "lanes-status.unique-names",
            says: "each lane, and each peer of a lane, is there once",
            origin: Origin::Estate,
            check: names_are_unique,
        },
        Rule {
            name: "lanes-status.state-agrees",
            says: "in sync, behind, ahead and diverged agree with the numbers of missing entries",
            origin: Origin::Estate,
            check: state_agrees,
        },
        Rule {
            name: "lanes-status.waiting-agrees",
            says: "there is an age of the oldest waiting entry exactly when entries wait",
            origin: Origin::Estate,
            check: waiting_agrees,
        },
    ],
    compiled: Contract::not_compiled(),
};

impl Document for LaneDescription {
    const CONTRACT: &'static Contract = &LANE;
}

impl Document for LanesStatus {
    const CONTRACT: &'static Contract = &LANES_STATUS;
}

fn default_is_within_maximum(lane: &Value, findings: &mut Findings) {
    let of = |path: &str| lane.pointer(path).and_then(Value::as_u64);
    if let (Some(default), Some(max)) = (of("/ttl/default_ms"), of("/ttl/max_ms"))
        && default > max
    {
        let message =
            format!("the default of {default} ms is over the maximum of {max} ms: lower it");
        findings.add("/ttl/default_ms", message);
    }
}

fn lanes(status: &Value) -> impl Iterator<Item = (usize, &Value)> {
    status.get("lanes").and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn peers(lane: &Value) -> impl Iterator<Item = (usize, &Value)> {
    let peers = lane.pointer("/replication/peers").and_then(Value::as_array);
    peers.into_iter().flatten().enumerate()
}

fn names_are_unique(status: &Value, findings: &mut Findings) {
    let mut names = BTreeSet::new();
    for (index, lane) in lanes(status) {
        let name = lane.get("name").and_then(Value::as_str);
        if name.is_some_and(|name| !names.insert(name)) {
            findings.add(format!("/lanes/{index}/name"), "this lane is there twice: keep one");
        }
        let mut devices = BTreeSet::new();
        for (peer_index, peer) in peers(lane) {
            let device = peer.get("device").and_then(Value::as_str);
            if device.is_some_and(|device| !devices.insert(device)) {
                let path = format!("/lanes/{index}/replication/peers/{peer_index}/device");
                findings.add(path, "this peer is there twice in the lane: keep one");
            }
        }
    }
}

fn state_agrees(status: &Value, findings: &mut Findings) {
    for (index, lane) in lanes(status) {
        for (peer_index, peer) in peers(lane) {
            let Some(state) = peer.get("state").and_then(Value::as_str) else { continue };
            let missing = |name| peer.get(name).and_then(Value::as_u64);
            let (here, there) = (missing("missing_here"), missing("missing_there"));
            let some = |count: Option<u64>| count.is_some_and(|count| count > 0);
            let wrong = match state {
                "in_sync" => some(here) || some(there),
                "behind" => here == Some(0) || some(there),
                "ahead" => there == Some(0) || some(here),
                "diverged" => here == Some(0) || there == Some(0),
                _ => false,
            };
            if wrong {
                let path = format!("/lanes/{index}/replication/peers/{peer_index}/state");
                let message = format!(
                    "the numbers of missing entries do not make it {state}: say what they make it"
                );
                findings.add(path, message);
            }
        }
    }
}

fn waiting_agrees(status: &Value, findings: &mut Findings) {
    for (index, lane) in lanes(status) {
        let waiting = lane.pointer("/journal/unapplied_entries").and_then(Value::as_u64);
        let oldest = lane.pointer("/journal/oldest_unapplied_ms");
        if let (Some(waiting), Some(oldest)) = (waiting, oldest)
            && (waiting == 0) != oldest.is_null()
        {
            let message = format!(
                "{waiting} entries wait, and the age of the oldest is {oldest}: correct one"
            );
            findings.add(format!("/lanes/{index}/journal/oldest_unapplied_ms"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::{Valid, detect};

    #[test]
    fn documents_name_their_contract_when_they_are_written() {
        let text = include_str!("../../../examples/lanes/two-devices.lanes-status.json");
        let value: Value = serde_json::from_str(text).unwrap();
        let status = Valid::<LanesStatus>::read(value.clone()).unwrap();
        assert_eq!(status.to_value(), value);
        assert_eq!(detect(&status.to_value()), Ok(&LANES_STATUS));

        let text = include_str!("../../../examples/lanes/ephemeral.lane.json");
        let value: Value = serde_json::from_str(text).unwrap();
        let lane = Valid::<LaneDescription>::read(value.clone()).unwrap();
        assert_eq!(lane.to_value(), value);
        assert_eq!(detect(&lane.to_value()), Ok(&LANE));
    }

    #[test]
    fn a_document_without_its_contracts_name_holds_where_the_contract_is_given() {
        let text = include_str!("../../../examples/lanes/two-devices.lanes-status.json");
        let mut value: Value = serde_json::from_str(text).unwrap();
        value.as_object_mut().unwrap().remove("schema");
        assert!(detect(&value).is_err());
        assert!(Valid::<LanesStatus>::read(value).is_ok());
    }
}
