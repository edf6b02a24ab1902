//! Seeds of random worlds: the same run each time, and those that once failed.

use srcos_simnet::run_random;
use srcos_simnet::world::Verdict;

/// Seeds that found something, with what it was.
const FAILED_ONCE: [(u64, &str); 2] = [
    (74, "a peer that came back was called in step before it had spoken"),
    (1135, "frames queued for a device were sent after its revocation was known"),
];

#[test]
fn seed_run_twice_gives_one_trace() {
    for seed in 0..50 {
        let (first, second) = (run_random(seed), run_random(seed));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
        assert_eq!(first.verdict, Verdict::Pass, "seed {seed}");
    }
}

#[test]
fn seeds_that_once_failed_pass() {
    for (seed, what) in FAILED_ONCE {
        let report = run_random(seed);
        assert_eq!(report.verdict, Verdict::Pass, "seed {seed}, {what}");
    }
}
