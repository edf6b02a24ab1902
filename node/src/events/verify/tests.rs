//! Every damage is found, at its line.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::events::link;
use crate::events::store::{Writer, open_quiet};

const LINES: u64 = 6;

/// A store of six lines, with each line's text.
fn store(key: Option<SigningKey>) -> (TempDir, PathBuf, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let text = include_str!("../../../../examples/events/policy-decision.expected-denial.json");
    let event: Value = serde_json::from_str(text).unwrap();
    let events: Vec<Value> = (1..=LINES)
        .map(|n| {
            let mut event = event.clone();
            event["event_id"] = json!(format!("evt_{n}"));
            event
        })
        .collect();
    Writer::open(&path, key).unwrap().add(&events).unwrap();
    let lines = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    (dir, path, lines)
}

fn keys() -> [Option<SigningKey>; 2] {
    [Some(SigningKey::from_bytes(&[5; 32])), None]
}

/// What is found after a change of the lines: line and code.
fn found(change: impl Fn(&mut Vec<String>), key: Option<SigningKey>) -> Vec<(u64, &'static str)> {
    let (_dir, path, mut lines) = store(key);
    change(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&path, text).unwrap();
    let report = verify(&path, open_quiet(&path).unwrap(), Expected::Anybody).unwrap();
    assert_eq!(report.valid, report.findings.is_empty());
    report.findings.iter().map(|finding| (finding.line, finding.code)).collect()
}

#[test]
fn a_changed_line_is_named() {
    for key in keys() {
        for n in 1..=LINES {
            let change = |lines: &mut Vec<String>| {
                let line = &mut lines[n as usize - 1];
                *line = line.replacen("photo indexer", "video indexer", 1);
            };
            assert_eq!(found(change, key.clone()), [(n, "changed")], "{}", key.is_some());
        }
    }
}

#[test]
fn a_line_whose_link_was_changed_is_named() {
    let [signed, _] = keys();
    for n in 2..=LINES {
        let change = |lines: &mut Vec<String>| {
            let line = &mut lines[n as usize - 1];
            let at = line.find("sha256:").unwrap() + 7;
            let other = if line.as_bytes()[at] == b'0' { "1" } else { "0" };
            line.replace_range(at..=at, other);
        };
        let found = found(change, signed.clone());
        assert!(found.contains(&(n, "changed")), "{n}: {found:?}");
        assert!(found.iter().all(|(line, _)| line.abs_diff(n) <= 1), "{n}: {found:?}");
    }
}

#[test]
fn a_line_that_says_another_number_is_named_as_changed() {
    for key in keys() {
        for n in 1..=LINES {
            let change = |lines: &mut Vec<String>| {
                let line = &mut lines[n as usize - 1];
                *line = line.replacen(&format!("\"n\":{n},"), "\"n\":77,", 1);
            };
            // Nothing comes before the first, and without a signature it may be of anywhere.
            if n > 1 || key.is_some() {
                assert_eq!(found(change, key.clone()), [(n, "changed")], "{}", key.is_some());
            }
        }
    }
}

#[test]
fn a_missing_line_is_named() {
    for key in keys() {
        for n in 1..LINES {
            let change = |lines: &mut Vec<String>| drop(lines.remove(n as usize - 1));
            let found = found(change, key.clone());
            let expected = (n, "missing");
            assert_eq!(found, [expected], "{}", key.is_some());
        }
    }
}

#[test]
fn lines_cut_off_at_the_end_are_named() {
    for key in keys() {
        let cut = |kept: usize| move |lines: &mut Vec<String>| lines.truncate(kept);
        assert_eq!(found(cut(5), key.clone()), [(6, "truncated")]);
        assert_eq!(found(cut(2), key.clone()), [(3, "truncated")]);
        assert_eq!(found(cut(0), key.clone()), [(1, "truncated")]);
    }
}

#[test]
fn a_last_line_that_is_cut_short_is_named() {
    for key in keys() {
        let (_dir, path, _) = store(key);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 40]).unwrap();
        let report = verify(&path, open_quiet(&path).unwrap(), Expected::Anybody).unwrap();
        let found: Vec<_> = report.findings.iter().map(|f| (f.line, f.code)).collect();
        assert_eq!(found, [(6, "truncated")]);
    }
}

#[test]
fn reordered_lines_are_named() {
    for key in keys() {
        for n in 1..LINES as usize - 1 {
            let found = found(|lines| lines.swap(n, n + 1), key.clone());
            assert_eq!(found, [(n as u64 + 2, "reordered")], "{}", key.is_some());
        }
        let found = found(|lines| lines.swap(0, 1), key);
        assert!(found.contains(&(2, "reordered")), "{found:?}");
    }
}

#[test]
fn a_repeated_or_foreign_line_is_named() {
    for key in keys() {
        let again = |lines: &mut Vec<String>| {
            let line = lines[1].clone();
            lines.insert(3, line);
        };
        assert_eq!(found(again, key.clone()), [(4, "duplicate_id"), (4, "repeated")]);
        let empty = |lines: &mut Vec<String>| lines.insert(3, String::new());
        assert_eq!(found(empty, key.clone()), [(4, "foreign")]);
        let unlinked = |lines: &mut Vec<String>| {
            let link = lines[3].find("},").unwrap();
            lines[3].replace_range(..link + 2, "{");
        };
        assert_eq!(found(unlinked, key.clone()), [(4, "unlinked")], "{}", key.is_some());
        let all = |lines: &mut Vec<String>| {
            for line in lines {
                let link = line.find("},").unwrap();
                line.replace_range(..link + 2, "{");
            }
        };
        assert_eq!(found(all, key.clone()), [(1, "unlinked")], "{}", key.is_some());
        let torn = |lines: &mut Vec<String>| lines[3].truncate(300);
        assert_eq!(found(torn, key), [(4, "unreadable")]);
    }
}

#[test]
fn empty_lines_of_another_program_are_held_by_the_first_line_of_ours() {
    let (_other, other, lines) = store(None);
    let event = |line: &str| link::event_text(line.as_bytes(), &link::parts(line.as_bytes()));
    let foreign = String::from_utf8(event(&lines[0])).unwrap();
    fs::remove_file(Head::file(&other)).unwrap();
    fs::write(&other, format!("\n{foreign}\n\n")).unwrap();
    let check = |text: &str| {
        fs::write(&other, text).unwrap();
        verify(&other, open_quiet(&other).unwrap(), Expected::Anybody).unwrap()
    };
    let ours: Value = serde_json::from_slice(&event(&lines[1])).unwrap();
    Writer::open(&other, None).unwrap().add(&[ours]).unwrap();
    let text = fs::read_to_string(&other).unwrap();
    let report = check(&text);
    assert_eq!((report.valid, report.events, report.linked), (true, 2, 1), "{report:?}");
    let report = check(&text[1..]);
    assert!(!report.valid, "an empty line was taken out");
    let report = check(&format!("\n{text}"));
    assert!(report.findings.iter().any(|finding| finding.code == "foreign"), "{report:?}");
}

#[test]
fn a_store_written_anew_by_somebody_else_is_not_taken_for_ours() {
    let own = SigningKey::from_bytes(&[5; 32]);
    let (_dir, path, _) = store(Some(SigningKey::from_bytes(&[6; 32])));
    let device = DeviceId(own.verifying_key().to_bytes());
    let report = verify(&path, open_quiet(&path).unwrap(), Expected::Device(device)).unwrap();
    assert!(!report.valid);
    assert!(report.findings.iter().all(|finding| finding.code == "other_device"), "{report:?}");
}

#[test]
fn a_forged_head_is_found() {
    let (_dir, path, _) = store(Some(SigningKey::from_bytes(&[5; 32])));
    let file = Head::file(&path);
    let text = fs::read_to_string(&file).unwrap().replace("\"count\":6", "\"count\":5");
    fs::write(&file, text).unwrap();
    let report = verify(&path, open_quiet(&path).unwrap(), Expected::Anybody).unwrap();
    assert_eq!((report.head, report.findings[0].code), (HeadState::Wrong, "head_wrong"));
    fs::write(&file, "nothing").unwrap();
    let report = verify(&path, open_quiet(&path).unwrap(), Expected::Anybody).unwrap();
    assert_eq!((report.head, report.valid), (HeadState::Wrong, false));
}

#[test]
fn an_invalid_event_is_named_with_its_rule() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let loud = include_str!("../../../../examples/events/invalid/expected-denial-too-loud.json");
    let loud: Value = serde_json::from_str(loud).unwrap();
    fs::write(&path, format!("{loud}\n[1]\nnot json\n")).unwrap();
    let report = verify(&path, open_quiet(&path).unwrap(), Expected::Anybody).unwrap();
    let codes: Vec<_> = report.findings.iter().map(|f| (f.line, f.code)).collect();
    assert_eq!(codes, [(1, "invalid"), (2, "invalid"), (3, "unreadable")]);
    assert!(report.findings[0].message.contains("event.expected-denial-is-quiet"), "{report:?}");
}

#[test]
fn numbers_beyond_all_reason_are_findings_and_no_panic() {
    for n in [0, 2, u64::MAX - 1, u64::MAX] {
        let (_dir, path, mut lines) = store(None);
        let event = link::event_text(lines[0].as_bytes(), &link::parts(lines[0].as_bytes()));
        let event = String::from_utf8(event).unwrap().replace("evt_1", "evt_x");
        for at in [0, 3, 6] {
            lines.insert(at, link::Link::new(n, [0; 32], event.as_bytes(), None).line(&event));
        }
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        for count in [0, 5, u64::MAX] {
            Head::new(count, count, [0; 32], None).write(&path).unwrap();
            let report = verify(&path, open_quiet(&path).unwrap(), Expected::Anybody).unwrap();
            assert!(!report.valid, "{n} {count}");
            let _ = Writer::open(&path, None);
        }
    }
}
