//! Laws that hold for any set of records, in any order of arrival.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use srcos_lanes::ids::{DeviceId, EntryHash, Incarnation, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::signature::Signer;

use super::*;

const DEVICES: u8 = 6;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number + 1; 32])
}

fn id(number: u8) -> DeviceId {
    key(number).device()
}

/// One record to write: by whom, what, about whom, and on top of which of the records so far.
#[derive(Debug, Clone)]
struct Step {
    by: u8,
    act: u8,
    whom: u8,
    parents: Vec<prop::sample::Index>,
    keep_heads: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let parents = prop::collection::vec(any::<prop::sample::Index>(), 1..4);
    (0..DEVICES, 0..8u8, 0..DEVICES, parents, any::<bool>()).prop_map(
        |(by, act, whom, parents, keep_heads)| Step { by, act, whom, parents, keep_heads },
    )
}

/// A random set of records: honest ones on top of all heads, and ones dated back at will.
fn build(steps: &[Step]) -> Roster {
    let mut roster = Roster::found("founder", [0; 16], WallMillis(1), &key(0)).unwrap();
    let mut revocations = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let ids: Vec<RecordId> = roster.nodes.iter().map(|node| node.id).collect();
        let mut parents = if step.keep_heads {
            roster.heads()
        } else {
            step.parents.iter().map(|at| *at.get(&ids)).collect()
        };
        parents.sort();
        parents.dedup();
        let device = id(step.whom);
        let frontier = vec![JournalMark {
            lane: LaneId::Normal,
            incarnation: Incarnation(1),
            seq: number as u64 + 1,
            hash: EntryHash([number as u8; 32]),
        }];
        let act = match step.act {
            0..3 => Act::Admit { device, name: format!("n{number}"), prior_mesh: None },
            3..6 => Act::Revoke { device, reason: String::new(), frontier },
            6 if !revocations.is_empty() => {
                let revocation = revocations[number % revocations.len()];
                Act::Witness { revocation, frontier }
            }
            _ => Act::Rename { device, name: format!("n{number}") },
        };
        let revokes = matches!(act, Act::Revoke { .. });
        let at = WallMillis(number as u64);
        let record = Record::new(Some(roster.mesh()), parents, id(step.by), at, act);
        let (record, bytes) = record.seal(&key(step.by)).unwrap();
        if matches!(roster.insert(&bytes.0), Ok(Inserted::New(_))) && revokes {
            revocations.push(record);
        }
    }
    roster
}

/// Everything that others may ask of a roster.
fn said(roster: &Roster) -> impl PartialEq + std::fmt::Debug + use<> {
    let counts: BTreeMap<RecordId, bool> =
        roster.places.keys().map(|id| (*id, roster.counts(*id))).collect();
    let frontiers: Vec<_> = (0..DEVICES).map(|n| roster.accepted_frontier(id(n))).collect();
    let meshes: Vec<_> = (0..DEVICES).map(|n| roster.allowed_meshes(id(n))).collect();
    (
        roster.members().clone(),
        roster.revoked().clone(),
        (roster.digest(), roster.heads()),
        (counts, frontiers, meshes),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn same_records_say_the_same_in_any_order_of_arrival(
        steps in prop::collection::vec(step(), 1..40),
        order in prop::collection::vec(any::<u32>(), 40),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let roster = build(&steps);
        let mut records: Vec<Vec<u8>> =
            roster.records_in_order().skip(1).map(|bytes| bytes.0.clone()).collect();
        let doubles: Vec<_> =
            again.iter().filter(|_| !records.is_empty()).map(|at| at.get(&records).clone()).collect();
        records.extend(doubles);
        let mut keyed: Vec<_> = records
            .into_iter()
            .enumerate()
            .map(|(at, bytes)| (order.get(at % order.len()).copied().unwrap_or(0), at, bytes))
            .collect();
        keyed.sort();
        let mut other = Roster::from_records([roster.founding()]).unwrap();
        for (_, _, bytes) in &keyed {
            other.insert(bytes).unwrap();
        }
        prop_assert_eq!(said(&roster), said(&other));
        let shuffled = keyed.iter().map(|(_, _, bytes)| bytes).chain([&roster.founding().0]);
        let read = Roster::from_records(shuffled).unwrap();
        prop_assert_eq!(said(&roster), said(&read));
    }

    #[test]
    fn what_holds_is_consistent(steps in prop::collection::vec(step(), 1..60)) {
        let roster = build(&steps);
        let judgement = roster.judgement();
        // A revocation that holds was written by somebody whose writing counts.
        for revocation in &judgement.revocations {
            prop_assert!(roster.counts(*revocation));
        }
        for (place, node) in roster.nodes.iter().enumerate() {
            // Every revocation that counts holds: none is forgotten.
            if node.record.revokes().is_some() {
                prop_assert_eq!(judgement.counts[place], judgement.revocations.contains(&node.id));
            }
        }
        for revocation in &judgement.revocations {
            let at = roster.places[revocation];
            let Some(target) = roster.nodes[at].record.revokes() else { continue };
            // Nothing that its device wrote unknown to it counts, save after a readmission.
            for (place, node) in roster.nodes.iter().enumerate() {
                let unknown = place != at && !roster.nodes[at].past.has(place);
                let readmitted = roster.nodes.iter().enumerate().any(|(other, admission)| {
                    admission.record.admits() == Some(target)
                        && judgement.counts[other]
                        && admission.past.has(at)
                        && node.past.has(other)
                });
                if node.record.by == target && unknown && judgement.counts[place] {
                    prop_assert!(readmitted);
                }
            }
            // The device is in only by an admission that knew.
            if let Some(member) = roster.members().get(&target) {
                let admission = roster.places[&member.admission];
                prop_assert!(roster.nodes[admission].past.has(at));
            }
        }
        for device in roster.members().keys() {
            prop_assert!(!roster.revoked().contains_key(device));
        }
    }

    #[test]
    fn any_bytes_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut roster = build(&[]);
        prop_assert!(roster.insert(&bytes).is_err());
        prop_assert!(read_founding(&bytes).is_err());
        prop_assert!(Roster::from_records([&bytes]).is_err());
    }
}
