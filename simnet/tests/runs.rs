//! Whole runs: the scenarios, some seeds, determinism, and alarms that must go off.

use srcos_simnet::options::{Options, Scenario};
use srcos_simnet::simulation::{Report, Verdict, run};

fn run_seed(scenario: Scenario, seed: u64) -> Report {
    run(&Options::draw(scenario, seed), None)
}

#[track_caller]
fn assert_passes(scenario: Scenario, seed: u64) -> Report {
    let report = run_seed(scenario, seed);
    assert_eq!(
        report.verdict,
        Verdict::Pass,
        "simnet run --seed {seed} --scenario {}\n{}",
        scenario.name(),
        report.last_lines.join("\n")
    );
    report
}

#[test]
fn partition_and_heal_ends_with_equal_devices() {
    let report = assert_passes(Scenario::PartitionAndHeal, 1);
    assert_eq!(report.faults.get("partition"), Some(&1));
    assert!(report.acknowledged > 100, "{}", report.acknowledged);
}

#[test]
fn twenty_random_seeds_hold_every_invariant() {
    let mut faults = 0;
    let mut acknowledged = 0;
    for seed in 0..20 {
        let report = assert_passes(Scenario::Random, seed);
        faults += report.faults.values().sum::<u64>();
        acknowledged += report.acknowledged;
    }
    // They are no test if nothing went wrong or nothing was written.
    assert!(faults > 30, "{faults}");
    assert!(acknowledged > 1_000, "{acknowledged}");
}

#[test]
fn same_seed_gives_the_same_trace_and_another_seed_another() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in [2, 7, 8, 11, 14] {
        let (first, second) = (run_seed(Scenario::Random, seed), run_seed(Scenario::Random, seed));
        assert_eq!(first, second, "seed {seed}");
        hashes.insert(first.trace_hash);
    }
    assert_eq!(hashes.len(), 5);
}

#[test]
fn node_whose_frames_vanish_is_reported_as_a_liveness_failure() {
    let report = run_seed(Scenario::CanaryMute, 1);
    let Verdict::Liveness(waits) = &report.verdict else { panic!("{:?}", report.verdict) };
    assert!(waits.iter().any(|wait| wait.starts_with("n0 lacks") && wait.contains("of n1")));
    assert_eq!(report.verdict.exit_code(), 3);
}

#[test]
fn disk_that_only_pretends_to_sync_is_reported_as_lost_writes() {
    let report = run_seed(Scenario::CanaryLyingDisk, 1);
    let Verdict::Correctness(violation) = &report.verdict else { panic!("{:?}", report.verdict) };
    assert_eq!(violation.invariant, "journal.durable_before_told");
    assert_eq!(report.verdict.exit_code(), 4);
}
