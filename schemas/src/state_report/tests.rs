//! What holds of reports beyond what the examples show.

use serde_json::json;

use super::*;
use crate::contracts::{self, Options, Valid, validate};
use crate::json::{Limits, parse_to_judge};

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

/// Whether a report holds with other texts in the place of two numbers.
fn holds_with(changes: &[(&str, &str)]) -> (bool, Vec<String>) {
    let text = include_str!("../../../examples/health/healthy.snapshot.json");
    let mut report: Value = serde_json::from_str(text).unwrap();
    for (path, _) in changes {
        *report.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = json!(format!("<{path}>"));
    }
    let mut text = report.to_string();
    for (path, number) in changes {
        text = text.replace(&format!("\"<{path}>\""), number);
    }
    let (report, wide) = parse_to_judge(text.as_bytes(), Limits::BODY).unwrap();
    let verdict = contracts::validate_judged(&report, &wide, &Options::default());
    let rules = verdict.errors.iter().map(|error| format!("{}: {}", error.rule, error.message));
    (verdict.is_valid(), rules.collect())
}

#[test]
fn integers_beyond_64_bits_are_judged_by_their_digits() {
    let (raw, hex) = ("/stores/0/flags_raw", "/stores/0/flags_hex");
    let two70 = "1180591620717411303424";
    let agree = holds_with(&[(raw, two70), (hex, r#""0x400000000000000000""#)]);
    assert!(agree.0, "{agree:?}");
    let differ = holds_with(&[(raw, two70), (hex, r#""0xffffffffffffffff""#)]);
    assert!(!differ.0 && differ.1[0].contains(two70), "{differ:?}");
    let (free, total) = ("/resources/disk/free_bytes", "/resources/disk/total_bytes");
    let two71 = "2361183241434822606848";
    let more = holds_with(&[(free, two71), (total, two70)]);
    assert!(!more.0 && more.1[0].starts_with("report.free-within-total"), "{more:?}");
    assert!(holds_with(&[(free, two70), (total, two71)]).0);
}
