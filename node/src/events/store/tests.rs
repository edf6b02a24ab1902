//! What is added is durable, once, and never behind damage.

use std::fs;

use proptest::prelude::*;
use serde_json::json;
use srcos_lanes::ids::DeviceId;
use tempfile::TempDir;

use super::*;
use crate::events::verify::{Expected, HeadState, StoreReport, verify};

fn event(n: u64) -> Value {
    let text = include_str!("../../../../examples/events/policy-decision.expected-denial.json");
    let mut event: Value = serde_json::from_str(text).unwrap();
    event["event_id"] = json!(format!("evt_{n}"));
    event
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    (dir, path)
}

fn fill(path: &Path, numbers: std::ops::Range<u64>) -> Vec<Added> {
    let mut writer = Writer::open(path, Some(key())).unwrap();
    writer.add(&numbers.map(event).collect::<Vec<_>>()).unwrap()
}

fn check(path: &Path) -> StoreReport {
    verify(path, open_quiet(path).unwrap(), Expected::Anybody).unwrap()
}

#[test]
fn what_is_added_verifies_and_is_signed_at_its_head() {
    let (_dir, path) = place();
    assert_eq!(fill(&path, 0..3), [Added::New(1), Added::New(2), Added::New(3)]);
    assert_eq!(fill(&path, 3..5), [Added::New(4), Added::New(5)]);
    let report = check(&path);
    assert!(report.valid, "{report:?}");
    assert_eq!((report.events, report.linked, report.head), (5, 5, HeadState::Signed));
    assert_eq!(report.signed_by.len(), 1);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(report.digest, crate::events::link::hash_text(&sha256(&bytes)));
    let device = DeviceId(key().verifying_key().to_bytes());
    assert!(verify(&path, open_quiet(&path).unwrap(), Expected::Device(device)).unwrap().valid);
    let other =
        verify(&path, open_quiet(&path).unwrap(), Expected::Device(DeviceId([1; 32]))).unwrap();
    assert!(!other.valid && other.findings[0].code == "other_device", "{other:?}");
}

#[test]
fn adding_twice_adds_once_and_another_event_of_the_same_name_is_refused() {
    let (_dir, path) = place();
    fill(&path, 0..100);
    assert!(fill(&path, 0..100).iter().all(|added| *added == Added::Already));
    let mut changed = event(7);
    changed["severity"] = json!("debug");
    let mut writer = Writer::open(&path, Some(key())).unwrap();
    let refused = writer.add(&[event(200), changed.clone()]).unwrap_err();
    assert!(matches!(refused, EventStoreError::Conflict { ref event_id } if event_id == "evt_7"));
    let twice = writer.add(&[event(201), event(201)]).unwrap();
    assert_eq!(twice, [Added::New(101), Added::Already]);
    drop(writer);
    let report = check(&path);
    assert!(report.valid && report.events == 101, "a refused batch adds nothing: {report:?}");
}

#[test]
fn ids_are_found_again_without_their_table() {
    let (_dir, path) = place();
    fill(&path, 0..500);
    fs::remove_file(Ids::file(&path)).unwrap();
    assert_eq!(fill(&path, 250..251), [Added::Already]);
    fs::write(Ids::file(&path), b"not a table").unwrap();
    assert_eq!(fill(&path, 250..251), [Added::Already]);
    assert_eq!(fill(&path, 500..501), [Added::New(501)]);
}

#[test]
fn a_line_without_an_end_that_nobody_was_told_of_is_taken_away() {
    let (_dir, path) = place();
    fill(&path, 0..3);
    let whole = fs::read(&path).unwrap();
    let line = whole.split(|byte| *byte == b'\n').next().unwrap();
    for length in [1, 5, 12, line.len()] {
        fs::write(&path, [&whole[..], &line[..length]].concat()).unwrap();
        let report = check(&path);
        assert!(report.valid && report.events == 3, "{length}: {report:?}");
        assert!(report.notes[0].contains("line 4"), "{report:?}");
        drop(Writer::open(&path, Some(key())).unwrap());
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn lines_written_before_their_head_are_kept() {
    let (_dir, path) = place();
    fill(&path, 0..2);
    let head = fs::read(Head::file(&path)).unwrap();
    fill(&path, 2..4);
    fs::write(Head::file(&path), &head).unwrap();
    let report = check(&path);
    assert!(report.valid && report.events == 4, "{report:?}");
    assert_eq!(fill(&path, 4..5), [Added::New(5)]);
}

#[test]
fn without_its_head_a_store_does_not_hold_and_nothing_is_added() {
    for (key, text) in [(Some(key()), "signed"), (None, "unsigned")] {
        let (_dir, path) = place();
        let events: Vec<Value> = (0..10).map(event).collect();
        Writer::open(&path, key.clone()).unwrap().add(&events).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let cut: String = whole.split_inclusive('\n').take(5).collect();
        fs::write(&path, &cut).unwrap();
        fs::remove_file(Head::file(&path)).unwrap();
        let report = check(&path);
        let codes: Vec<_> = report.findings.iter().map(|f| (f.line, f.code)).collect();
        assert_eq!((report.head, codes), (HeadState::Missing, vec![(1, "head_missing")]), "{text}");
        let refused = Writer::open(&path, key).unwrap_err();
        assert!(refused.to_string().contains("head is missing"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), cut, "nothing is changed");
    }
}

/// Whatever moment of the first write a program is killed in, what is left holds and goes on.
#[test]
fn a_first_write_that_was_cut_short_leaves_a_store_that_holds() {
    for plain in ["", "\n", &format!("{}\n", event(50))] {
        let (_dir, path) = place();
        fs::write(&path, plain).unwrap();
        fill(&path, 0..2);
        let whole = fs::read_to_string(&path).unwrap();
        let line = whole[plain.len()..].split('\n').next().unwrap();
        for length in [0, 1, 12, line.len(), line.len() + 1, whole.len() - plain.len()] {
            fs::write(&path, &whole[..plain.len() + length]).unwrap();
            Head::begin(&path, sha256(line.as_bytes()), Some(&key())).unwrap();
            let report = check(&path);
            assert!(report.valid, "{plain:?} {length}: {report:?}");
            assert_eq!(report.head, HeadState::Signed);
            let kept = whole[plain.len()..][..length].matches('\n').count() as u64;
            let before = plain.matches('\n').count() as u64;
            assert_eq!(fill(&path, 7..8), [Added::New(before + kept + 1)], "{plain:?} {length}");
            assert!(check(&path).valid, "{plain:?} {length}");
        }
    }
}

#[test]
fn the_beginning_of_another_store_stands_for_no_lines() {
    let (_dir, path) = place();
    fill(&path, 0..10);
    let whole = fs::read_to_string(&path).unwrap();
    let cut: String = whole.split_inclusive('\n').take(5).collect();
    fs::write(&path, &cut).unwrap();
    Head::begin(&path, sha256(b"the first line of another"), Some(&key())).unwrap();
    let report = check(&path);
    assert_eq!((report.valid, report.findings[0].code), (false, "changed"), "{report:?}");
    assert!(matches!(Writer::open(&path, Some(key())), Err(EventStoreError::Damaged { .. })));
}

#[test]
fn nothing_is_added_behind_damage_at_the_end() {
    let (_dir, path) = place();
    fill(&path, 0..4);
    let whole = fs::read(&path).unwrap();
    let damages: [Vec<u8>; 3] = [
        whole[..whole.len() - 1].to_vec(),
        whole[..whole.len() - 200].to_vec(),
        [&whole[..], b"{\"event_id\":\"evt_foreign\"}\n"].concat(),
    ];
    for damaged in damages {
        fs::write(&path, &damaged).unwrap();
        let refused = Writer::open(&path, Some(key())).unwrap_err();
        assert!(matches!(refused, EventStoreError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "nothing is changed");
    }
}

#[test]
fn a_store_of_another_program_is_read_as_it_is_and_linked_from_there_on() {
    let (_dir, path) = place();
    let plain = format!("{}\n{}\n", event(1), event(2));
    fs::write(&path, &plain).unwrap();
    let report = check(&path);
    assert!(report.valid && (report.events, report.linked) == (2, 0), "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("not linked")), "{report:?}");
    assert_eq!(fill(&path, 2..4), [Added::Already, Added::New(3)]);
    let report = check(&path);
    assert!(report.valid && (report.events, report.linked) == (3, 1), "{report:?}");
    // From then on also the lines of the other program are held.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("photo indexer", "video indexer", 1)).unwrap();
    let report = check(&path);
    assert!(!report.valid && report.findings[0].code == "changed", "{report:?}");
    // A last line without an end is not ours to take away.
    let (_dir, path) = place();
    fs::write(&path, plain.trim_end()).unwrap();
    assert!(check(&path).valid && check(&path).events == 2);
    assert!(matches!(Writer::open(&path, None), Err(EventStoreError::Damaged { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), plain.trim_end());
}

#[test]
fn an_event_that_is_too_long_is_refused() {
    let (_dir, path) = place();
    let mut long = event(1);
    long["operator_narrative"]["why"] = json!("x".repeat(EVENT_BYTES_MAX));
    let refused = Writer::open(&path, None).unwrap().add(&[long]).unwrap_err();
    assert!(matches!(refused, EventStoreError::TooLong { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn without_a_key_the_store_says_that_it_is_unsigned() {
    let (_dir, path) = place();
    Writer::open(&path, None).unwrap().add(&[event(1), event(2)]).unwrap();
    let report = check(&path);
    assert!(report.valid && report.head == HeadState::Unsigned, "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("no line is signed")), "{report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one byte of the file becomes, it is found, at its line or the next.
    #[test]
    fn any_changed_byte_is_found_at_its_line(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let (_dir, path) = place();
        fill(&path, 0..4);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        let report = check(&path);
        prop_assert!(!report.valid);
        let near = report.findings.iter().any(|finding| finding.line.abs_diff(line) <= 1);
        prop_assert!(near, "line {}: {:?}", line, report.findings);
    }

    #[test]
    fn whatever_the_files_hold_they_are_checked_without_a_panic(store in any::<Vec<u8>>(), head in any::<Option<Vec<u8>>>()) {
        let (_dir, path) = place();
        fs::write(&path, &store).unwrap();
        if let Some(head) = head {
            fs::write(Head::file(&path), head).unwrap();
        }
        let _ = verify(&path, open_quiet(&path).unwrap(), Expected::Anybody);
        if let Ok(mut writer) = Writer::open(&path, None) {
            let _ = writer.add(&[event(1)]);
        }
    }
}
