//! Every named scenario of the simulator ends as it must.

use srcos_simnet::scenarios;
use srcos_simnet::world::Verdict;

#[test]
fn every_scenario_ends_as_it_must() {
    for scenario in scenarios::all() {
        let report = scenario.run(scenario.options(1), None);
        let code = report.verdict.exit_code();
        assert_eq!(code, scenario.exit_code, "{}: {:#?}", scenario.name, report);
    }
}

#[test]
fn scenarios_hold_for_other_seeds_too() {
    for scenario in scenarios::all().filter(|scenario| scenario.exit_code == 0) {
        for seed in 2..5 {
            let report = scenario.run(scenario.options(seed), None);
            assert_eq!(report.verdict, Verdict::Pass, "{} seed {seed}: {report:#?}", scenario.name);
        }
    }
}

/// What a canary reports.
fn canary(name: &str) -> Verdict {
    let scenario = scenarios::find(name).unwrap();
    scenario.run(scenario.options(1), None).verdict
}

#[test]
fn node_whose_frames_vanish_is_named_in_the_report() {
    let Verdict::Liveness(waits) = canary("canary-mute") else { panic!("it passed") };
    assert!(waits.iter().any(|wait| wait.starts_with("n0 lacks") && wait.contains("of n1")));
}

#[test]
fn disk_that_only_pretends_to_sync_is_reported_as_lost_writes() {
    let Verdict::Correctness(violation) = canary("canary-lying-disk") else { panic!("it passed") };
    assert_eq!(violation.invariant, "journal.durable_before_told");
}
