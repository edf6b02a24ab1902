//! What holds of reports beyond what the examples show.

use serde_json::json;

use super::*;
use crate::contracts::{Options, Valid, validate};

fn example() -> Value {
    let text = include_str!("../../../examples/health/healthy.snapshot.json");
    serde_json::from_str(text).unwrap()
}

fn rules_broken(report: &Value) -> Vec<String> {
    let options = Options { contract: Some(&STATE_REPORT), strict: true, ..Options::default() };
    validate(report, &options).errors.into_iter().map(|finding| finding.rule.into_owned()).collect()
}

#[test]
fn a_report_reads_into_its_type_and_back_unchanged() {
    for text in [
        include_str!("../../../examples/health/healthy.snapshot.json"),
        include_str!("../../../examples/health/degraded.snapshot.json"),
    ] {
        let value: Value = serde_json::from_str(text).unwrap();
        let report = Valid::<StateReport>::read(value.clone()).unwrap();
        assert_eq!(report.to_value(), value);
        assert_eq!(*Valid::new(report.clone().into_inner()).unwrap(), *report);
    }
}

#[test]
fn flags_agree_whatever_way_the_number_is_written() {
    let check = |raw: u64, hex: &str, agree: bool| {
        let mut report = example();
        report["stores"][0]["flags_raw"] = json!(raw);
        report["stores"][0]["flags_hex"] = json!(hex);
        assert_eq!(rules_broken(&report).is_empty(), agree, "{raw} {hex}");
    };
    check(0, "0x0", true);
    check(0, "0x0000", true);
    check(171, "0xaB", true);
    check(171, "0x00000000000000000000000ab", true);
    check(u64::MAX, "0xffffffffffffffff", true);
    check(171, "0xac", false);
    check(0, "0x10000000000000000", false);
    check(1, "0x10000000000000000000000000000000000000001", false);
}

#[test]
fn disk_pressure_has_its_steps() {
    let words = |free: u64| Disk::new(None, free, 1000).pressure.word();
    let all = [0, 50, 51, 100, 101, 200, 201, 1000].map(words);
    assert_eq!(
        all,
        ["critical", "critical", "warning", "warning", "watch", "watch", "none", "none"]
    );
}

#[test]
fn unknown_times_of_the_runtime_may_be_any_that_the_estate_reads() {
    let mut report = example();
    report["runtime"]["moved_house_at"] = json!("2026-05-04");
    assert!(rules_broken(&report).is_empty());
    report["runtime"]["moved_house_at"] = json!("in May");
    assert_eq!(rules_broken(&report), ["report.times-readable"]);
    report["runtime"]["moved_house_at"] = json!(20260504);
    assert_eq!(rules_broken(&report), ["report.times-readable"]);
}
