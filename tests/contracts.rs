//! Contracts and the crates that they are about: what is said in two places is the same.

use srcos_lanes::lane::{LaneId, Replication};
use srcos_lanes::policy::CONFINED_CLASSES;
use srcos_schemas::contracts::Valid;
use srcos_schemas::{lanes, policy_file};

#[test]
fn contracts_name_the_lanes_that_there_are() {
    let names: Vec<&str> = LaneId::ALL.into_iter().map(LaneId::name).collect();
    assert_eq!(names, lanes::LANE_NAMES);
    let local = LaneId::ALL
        .into_iter()
        .filter(|lane| lane.definition().replication == Replication::LocalOnly)
        .map(LaneId::name);
    assert_eq!(local.collect::<Vec<_>>(), policy_file::LOCAL_LANES);
    assert_eq!(CONFINED_CLASSES, policy_file::CONFINED_CLASSES);
}

#[test]
fn every_lane_is_described_as_its_contract_says() {
    for lane in LaneId::ALL {
        let description = srcos_node::api::describe(lane);
        assert!(Valid::new(description).is_ok(), "{}", lane.name());
    }
}
