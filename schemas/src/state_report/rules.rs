//! What the schema of a state integrity report cannot say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Pressure, ratio};
use crate::contracts::{Findings, Origin, Rule, escape};
use crate::iso_time::is_iso_time;
use crate::json::{Integer, Wide};
use crate::lanes::LANE_NAMES;

pub(super) static RULES: [Rule; 12] = [
    Rule {
        name: "report.times-readable",
        says: "generated_at and every member of runtime that ends in _at is a time that the \
            estate's checker reads",
        origin: Origin::Estate,
        check: times_are_readable,
    },
    Rule {
        name: "report.integers-written-whole",
        says: "counts and sizes are written without a decimal point",
        origin: Origin::Estate,
        check: integers_are_written_whole,
    },
    Rule {
        name: "report.unique-stores",
        says: "no two stores have the same name",
        origin: Origin::Estate,
        check: |report, findings| names_are_unique(report, "stores", findings),
    },
    Rule {
        name: "report.unique-lanes",
        says: "no two lanes have the same name",
        origin: Origin::Estate,
        check: |report, findings| names_are_unique(report, "lanes", findings),
    },
    Rule {
        name: "report.flags-agree",
        says: "flags_hex is flags_raw in hexadecimal",
        origin: Origin::Estate,
        check: flags_agree,
    },
    Rule {
        name: "report.journal-counters",
        says: "the counters of a lane's journal are whole numbers that are not negative",
        origin: Origin::Estate,
        check: journal_counters_count,
    },
    Rule {
        name: "report.free-within-total",
        says: "no more bytes of the disk are free than it has",
        origin: Origin::Estate,
        check: free_is_within_total,
    },
    Rule {
        name: "report.free-ratio-agrees",
        says: "free_ratio is free_bytes by total_bytes",
        origin: Origin::Ours,
        check: free_ratio_agrees,
    },
    Rule {
        name: "report.pressure-agrees",
        says: "the pressure of the disk follows from free_ratio",
        origin: Origin::Ours,
        check: pressure_agrees,
    },
    Rule {
        name: "report.known-lanes",
        says: "lanes are among the eleven lanes of the estate",
        origin: Origin::Ours,
        check: lanes_are_known,
    },
    Rule {
        name: "report.diagnosis-follows",
        says: "the diagnosis is not better than the invariants are",
        origin: Origin::Ours,
        check: diagnosis_follows,
    },
    Rule {
        name: "report.attestation-complete",
        says: "a signed report says who signed it, with which key and algorithm, and the signature",
        origin: Origin::Ours,
        check: attestation_is_complete,
    },
];

/// Members of a lane's journal that count something.
const JOURNAL_COUNTERS: [&str; 7] = [
    "segment_count",
    "total_bytes",
    "max_segment_bytes",
    "oldest_unapplied_event_age_ms",
    "replay_lag_events",
    "replay_lag_bytes",
    "replay_eta_ms",
];

fn items<'a>(report: &'a Value, list: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    report.get(list).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn members<'a>(value: &'a Value, object: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(object).and_then(Value::as_object).into_iter().flatten()
}

fn times_are_readable(report: &Value, findings: &mut Findings) {
    let mut check = |path: &str, value: &Value| {
        if value.as_str().is_none_or(|text| !is_iso_time(text)) {
            let message = "this is no time that every reader of reports knows: write it like \
                2026-05-04T10:20:30Z";
            findings.add(path, message);
        }
    };
    if let Some(value) = report.get("generated_at") {
        check("/generated_at", value);
    }
    for (name, value) in members(report, "runtime") {
        if name.ends_with("_at") && !value.is_null() {
            check(&format!("/runtime/{}", escape(name)), value);
        }
    }
}

/// The schema takes `675.0` for an integer; the estate's checker does not.
fn integers_are_written_whole(report: &Value, findings: &mut Findings) {
    let mut check = |path: &str, value: Option<&Value>| {
        if value.is_some_and(Value::is_f64) {
            findings.add(
                path,
                "it is written with a decimal point or an exponent: write a plain whole number",
            );
        }
    };
    for path in ["/identity/pid", "/resources/disk/free_bytes", "/resources/disk/total_bytes"] {
        check(path, report.pointer(path));
    }
    for (index, store) in items(report, "stores") {
        check(&format!("/stores/{index}/flags_raw"), store.get("flags_raw"));
    }
    for (index, lane) in items(report, "lanes") {
        for object in ["sla", "objects"] {
            for (name, value) in members(lane, object) {
                check(&format!("/lanes/{index}/{object}/{}", escape(name)), Some(value));
            }
        }
    }
    if let Some(policy) = report.get("policy") {
        for (name, value) in members(policy, "policy_decisions") {
            check(&format!("/policy/policy_decisions/{}", escape(name)), Some(value));
        }
    }
}

fn names_are_unique(report: &Value, list: &str, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, item) in items(report, list) {
        let Some(name) = item.get("name").and_then(Value::as_str) else { continue };
        if !seen.insert(name) {
            let message =
                format!("{name:?} is there twice in {list}: give each its own name, or join them");
            findings.add(format!("/{list}/{index}/name"), message);
        }
    }
}

fn flags_agree(report: &Value, findings: &mut Findings) {
    for (index, store) in items(report, "stores") {
        let wide = findings.wide();
        let raw = wide.integer(report, &format!("/stores/{index}/flags_raw"));
        let hex = store.get("flags_hex").and_then(Value::as_str);
        let (Some(raw), Some(hex)) = (raw, hex) else { continue };
        let (Some(due), Some(digits)) = (raw.hex(), hex.strip_prefix("0x")) else { continue };
        let said = digits.trim_start_matches('0');
        if !said.eq_ignore_ascii_case(due.trim_start_matches('0')) {
            let message =
                format!("it says {hex}, and flags_raw is {raw}, which is 0x{due}: make them agree");
            findings.add(format!("/stores/{index}/flags_hex"), message);
        }
    }
}

fn journal_counters_count(report: &Value, findings: &mut Findings) {
    for (index, lane) in items(report, "lanes") {
        for counter in JOURNAL_COUNTERS {
            let value = lane.get("journal").and_then(|journal| journal.get(counter));
            // The estate's checker takes true for 1.
            if value.is_some_and(|value| !value.is_u64() && !value.is_boolean()) {
                let message =
                    "it must be a whole number, at least 0: leave it out where it is not known";
                findings.add(format!("/lanes/{index}/journal/{counter}"), message);
            }
        }
    }
}

/// Free bytes and bytes in all, where both are integers.
fn disk_bytes<'a>(report: &Value, wide: &'a Wide) -> Option<(Integer<'a>, Integer<'a>)> {
    let of = |name: &str| wide.integer(report, &format!("/resources/disk/{name}"));
    Some((of("free_bytes")?, of("total_bytes")?))
}

fn free_is_within_total(report: &Value, findings: &mut Findings) {
    if let Some((free, total)) = disk_bytes(report, &findings.wide())
        && free > total
    {
        let message =
            format!("{free} bytes are free of {total} in all: correct the one or the other");
        findings.add("/resources/disk/free_bytes", message);
    }
}

fn free_ratio(report: &Value) -> Option<f64> {
    report.pointer("/resources/disk/free_ratio")?.as_f64()
}

fn free_ratio_agrees(report: &Value, findings: &mut Findings) {
    // Other reporters round to three or four places.
    const TOLERANCE: f64 = 0.001;
    let wide = findings.wide();
    let (Some((free, total)), Some(said)) = (disk_bytes(report, &wide), free_ratio(report)) else {
        return;
    };
    let due = match (free.as_u64(), total.as_u64()) {
        (Some(free), Some(total)) => ratio(free, total),
        _ => free.as_f64() / total.as_f64(),
    };
    if total.is_positive() && free <= total && (due - said).abs() > TOLERANCE {
        let message = format!("it says {said}, and the bytes make it {due}: say that");
        findings.add("/resources/disk/free_ratio", message);
    }
}

fn pressure_agrees(report: &Value, findings: &mut Findings) {
    let path = "/resources/disk/pressure";
    let (Some(ratio), Some(said)) = (free_ratio(report), report.pointer(path)) else { return };
    let due = Pressure::of(ratio).word();
    if said.as_str().is_some_and(|said| said != due && said != Pressure::Unknown.word()) {
        findings.add(path, format!("it says {said}, and with {ratio} free it is {due}: say that"));
    }
}

fn lanes_are_known(report: &Value, findings: &mut Findings) {
    for (index, lane) in items(report, "lanes") {
        let name = lane.get("name").and_then(Value::as_str);
        if let Some(name) = name.filter(|name| !LANE_NAMES.contains(name)) {
            let message =
                format!("{name:?} is no lane of the estate: they are {}", LANE_NAMES.join(", "));
            findings.add(format!("/lanes/{index}/name"), message);
        }
    }
}

fn diagnosis_follows(report: &Value, findings: &mut Findings) {
    let Some(said) = report.pointer("/diagnosis/status").and_then(Value::as_str) else { return };
    let not_passed = |status: &str, severity: Option<&str>| {
        items(report, "invariants").any(|(_, invariant)| {
            let is =
                |name: &str, text: &str| invariant.get(name).and_then(Value::as_str) == Some(text);
            is("status", status) && severity.is_none_or(|severity| is("severity", severity))
        })
    };
    let worst = if not_passed("fail", Some("critical")) {
        "unsafe"
    } else if not_passed("fail", None) || not_passed("warn", None) {
        "degraded"
    } else {
        return;
    };
    let better = said == "healthy" || (said == "degraded" && worst == "unsafe");
    if better {
        let message = format!(
            "it says {said}, and an invariant does not hold, which makes it {worst}: say that"
        );
        findings.add("/diagnosis/status", message);
    }
}

fn attestation_is_complete(report: &Value, findings: &mut Findings) {
    let Some(attestation) = report.get("attestation") else { return };
    if attestation.get("signed") != Some(&Value::Bool(true)) {
        return;
    }
    for member in ["signer", "key_id", "algorithm", "signature"] {
        let said = attestation.get(member);
        if said.is_none_or(|value| value.is_null() || value.as_str() == Some("")) {
            let message = format!(
                "the report says that it is signed and has no {member}: add it, or say signed: \
                    false"
            );
            findings.add("/attestation", message);
        }
    }
}
