//! A device that was away while the other wrote a hundred thousand entries catches up with all of
//! them, one by one, and both prove that they hold the same.

use std::time::Duration;

use serde_json::json;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Action, Op, PutContent};
use srcos_node::data_dir::DataDir;

use crate::process::{ALONE, converge, equal, pair_of, place};
use crate::support::skips_slow;

/// Entries written while the other device is away, each with one change.
const ENTRIES: u64 = 100_000;
/// Entries that share a commit while they are made: the test is about catching up.
const ENTRIES_PER_COMMIT: u64 = 1_000;
/// How long catching up may take in a build that is not optimised.
const TIMEOUT: Duration = Duration::from_secs(600);

#[test]
fn device_that_was_away_for_a_hundred_thousand_entries_catches_up() {
    if skips_slow("device_that_was_away_for_a_hundred_thousand_entries_catches_up") {
        return;
    }
    let place = place();
    let (mut a, mut b) = pair_of(place.path(), &ALONE);
    b.stop();
    a.stop();
    {
        let dir = DataDir::new(&a.dir);
        let (key, mut store) = dir.open().expect("the node that had the store open has ended");
        let clock = srcos_node::data_dir::Clock::start();
        for n in 0..ENTRIES {
            let body = json!({"n": n, "text": "written while the other was away"});
            let action = Action::Put(PutContent { body, ..PutContent::default() });
            let op = Op { id: format!("away/{n:06}"), action, if_heads: None };
            store.write(LaneId::Normal, &[op], clock.now(), key.signing()).expect("it is allowed");
            if n % ENTRIES_PER_COMMIT == 0 {
                store.commit().expect("the disk takes it");
            }
        }
        store.close().expect("it closes");
    }
    a.run();
    let peer = a.address();
    b.set_args(&[&ALONE[..], &["--peer", &peer]].concat());
    b.run();
    converge(&[&a, &b], TIMEOUT);
    assert_eq!(b.live("normal"), ENTRIES);
    equal(&[&a, &b]);
    b.verifies();
}
