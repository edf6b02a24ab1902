//! The event commands, as people and scripts call them: what was acknowledged is there after a kill,
//! writers do not disturb each other, and every damage is named by its line.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use srcos_lanes::policy::Rule;
use srcos_schemas::contracts::{Options, Profile, validate};
use srcos_schemas::explanation;
use tempfile::TempDir;

use crate::binary::{Running, Said, binary, cli, cli_with, run};
use crate::support::{SLOW_TESTS, read};

/// Kills in a slow run and in a fast one.
const KILLS: (u64, u64) = (200, 12);

fn event(id: &str) -> Value {
    let text = read("examples/events/policy-decision.expected-denial.json");
    let mut event: Value = serde_json::from_str(&text).expect("an example is JSON");
    event["event_id"] = json!(id);
    event
}

fn lines(ids: impl IntoIterator<Item = String>) -> String {
    ids.into_iter().map(|id| format!("{}\n", event(&id))).collect()
}

/// A data directory with a key, and a store beside it.
struct Place {
    _dir: TempDir,
    data: PathBuf,
    store: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let (data, store) = (dir.path().join("data"), dir.path().join("events.jsonl"));
    cli(&data, &["init", "--name", "desk"]).is(0);
    Place { _dir: dir, data, store }
}

impl Place {
    /// A command of `events` on the store.
    fn events(&self, args: &[&str]) -> Said {
        self.events_with(args, "")
    }

    fn events_with(&self, args: &[&str], input: &str) -> Said {
        let store = self.store.to_str().expect("paths are text");
        let all = [&["events"], args, &["--store", store]].concat();
        cli_with(&self.data, &all, input.as_bytes())
    }

    fn write(&self, ids: impl IntoIterator<Item = String>) -> Vec<Value> {
        let said = self.events_with(&["write", "-"], &lines(ids));
        said.is(0);
        said.lines()
    }

    fn text(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.store).expect("the store is text");
        text.lines().map(str::to_owned).collect()
    }

    fn put(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.store, text).expect("the store can be written");
    }
}

fn ids(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| format!("evt_{n}"))
}

#[test]
fn what_is_written_is_listed_shown_explained_and_verified() {
    let place = place();
    let added = place.write(ids(0..3));
    assert_eq!(added.len(), 3);
    assert!(added.iter().all(|line| line["added"] == true && line["signed"] == true), "{added:?}");
    let listed = place.events(&["list"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(3));
    assert_eq!(listed[1]["event_id"], "evt_1");
    assert_eq!(place.events(&["list", "--limit", "1"]).json().as_array().map(Vec::len), Some(1));
    assert_eq!(place.events(&["list", "--severity", "error"]).json(), json!([]));
    assert_eq!(place.events(&["show", "evt_2"]).json(), event("evt_2"));
    let told = place.events(&["explain", "evt_2"]).json();
    assert_eq!(told["why"], event("evt_2")["operator_narrative"]["why"]);
    let verified = place.events(&["verify-store"]).json();
    assert_eq!((&verified["valid"], &verified["events"]), (&json!(true), &json!(3)));
    assert_eq!(verified["head"], "signed");
    place.events(&["show", "evt_9"]).refused(1, "event_absent");
    // In words, as other tools of the estate print them.
    let mut command = Command::new(binary());
    command.args(["events", "verify-store", "--store"]).arg(&place.store);
    let said = run(command, b"");
    assert!(said.is(0).out.contains("verified 3 events sha256:"), "{said:?}");
    let mut command = Command::new(binary());
    command.args(["events", "list", "--store"]).arg(&place.store);
    let said = run(command, b"");
    assert_eq!(said.is(0).out.lines().next().map(|line| line.split('\t').count()), Some(6));
}

#[test]
fn events_that_are_not_of_the_contract_are_listed_as_they_are() {
    let place = place();
    let mut legacy = event("evt_1");
    legacy["outcome"] = json!("repaired");
    legacy["severity"] = json!(4);
    place.put(&[legacy.to_string(), "{}".to_owned()]);
    let listed = place.events(&["list"]).json();
    assert_eq!((&listed[0]["outcome"], &listed[0]["severity"]), (&json!("repaired"), &json!("4")));
    assert_eq!((&listed[1]["event_id"], &listed[1]["summary"]), (&json!("<missing>"), &json!("")));
    assert_eq!(place.events(&["list", "--severity", "trace"]).json(), json!([]));
    place.put(&[legacy.to_string(), "[]".to_owned()]);
    let stopped = place.events(&["list"]);
    assert!(stopped.err.contains("event_store_line"), "{stopped:?}");
    let listed: Value = serde_json::from_str(&stopped.out).expect("a whole document");
    assert_eq!((stopped.code, listed.as_array().map(Vec::len)), (1, Some(1)));
}

#[test]
fn an_event_is_added_once_and_never_changed() {
    let place = place();
    place.write(ids(0..2));
    let again = place.write(ids(0..2));
    assert!(again.iter().all(|line| line["added"] == false), "{again:?}");
    let mut other = event("evt_1");
    other["severity"] = json!("info");
    place.events_with(&["write", "-"], &other.to_string()).refused(1, "event_id_taken");
    let mut invalid = event("evt_5");
    invalid["severity"] = json!("alarming");
    place.events_with(&["write", "-"], &invalid.to_string()).refused(1, "event_invalid");
    place.events_with(&["write", "-"], "{").refused(1, "event_invalid");
    assert_eq!(place.text().len(), 2);
    // A document over many lines is one event.
    let text = serde_json::to_string_pretty(&event("evt_7")).expect("an event is JSON");
    place.events_with(&["write", "-"], &text).is(0);
    assert_eq!(place.text().len(), 3);
}

#[test]
fn every_damage_is_named_by_its_line() {
    let place = place();
    place.write(ids(0..9));
    let whole = place.text();
    let check = |what: &str, line: u64, code: &str, change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        place.put(&lines);
        let said = place.events(&["verify-store"]);
        let report = said.is(1).document();
        let found = report["findings"].as_array().expect("findings is a list");
        let named = found.iter().any(|found| found["line"] == line && found["code"] == code);
        assert!(named && found.len() == 1, "{what}: {report:#}");
    };
    check("changed", 4, "changed", &|lines| {
        lines[3] = lines[3].replacen("photo indexer", "video indexer", 1);
    });
    check("missing", 5, "missing", &|lines| drop(lines.remove(4)));
    check("reordered", 7, "reordered", &|lines| lines.swap(5, 6));
    check("truncated", 9, "truncated", &|lines| lines.truncate(8));
    let bytes: String = whole.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&place.store, &bytes[..bytes.len() - 100]).expect("it can be written");
    let report = place.events(&["verify-store"]).is(1).document();
    assert_eq!(report["findings"][0]["line"], 9, "{report:#}");
    assert_eq!(report["findings"][0]["code"], "truncated", "{report:#}");
    // Nothing is added behind the damage, and what is whole can still be read.
    place.events_with(&["write", "-"], &lines(ids(20..21))).refused(5, "event_store_damaged");
    place.events(&["show", "evt_3"]).is(0);
    place.put(&whole);
    place.events(&["verify-store"]).is(0);
}

#[test]
fn one_event_is_verified_with_what_led_to_it() {
    let place = place();
    place.write(ids(0..3));
    let report = place.events(&["verify", "evt_1"]).is(1).document();
    let findings = report["findings"].to_string();
    assert!(findings.contains("evt_indexer_started is not in the store"), "{report}");
    let cause = read("examples/events/process-exec.indexer.json");
    place.events_with(&["write", "-"], &cause).is(0);
    let report = place.events(&["verify", "evt_1"]).json();
    assert_eq!((&report["valid"], &report["signed"]), (&json!(true), &json!(true)));
    let mut changed = place.text();
    changed[1] = changed[1].replacen("photo indexer", "video indexer", 1);
    place.put(&changed);
    place.events(&["verify", "evt_1"]).is(1);
    place.events(&["verify", "evt_0"]).is(0);
}

#[test]
fn a_store_without_a_key_says_that_it_is_unsigned() {
    let place = place();
    let keyless = place.data.with_file_name("nothing-here");
    let store = place.store.to_str().expect("paths are text");
    let write = ["events", "write", "-", "--store", store];
    let said = cli_with(&keyless, &write, lines(ids(0..2)).as_bytes());
    assert_eq!(said.is(0).lines()[0]["signed"], false);
    let report = cli(&keyless, &["events", "verify-store", "--store", store]).json();
    assert_eq!((&report["valid"], &report["head"]), (&json!(true), &json!("unsigned")));
    assert!(!keyless.exists(), "only init makes a data directory");
    cli(&keyless, &["events", "list"]).refused(1, "not_initialised");
    let strict = place.events(&["verify-store", "--device", &"00".repeat(32)]);
    assert_eq!(strict.is(1).document()["findings"][0]["code"], "unsigned");
}

#[test]
fn writers_at_the_same_time_do_not_disturb_each_other() {
    const WRITERS: u64 = 5;
    const EACH: u64 = 60;
    let place = place();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let place = &place;
            scope.spawn(move || {
                // Half of what each writes the next one writes too.
                let from = writer * EACH / 2;
                for n in (from..from + EACH).step_by(20) {
                    place.write(ids(n..n + 20));
                }
            });
        }
    });
    let report = place.events(&["verify-store"]).json();
    assert_eq!(report["valid"], true, "{report:#}");
    assert_eq!(report["events"], (WRITERS + 1) * EACH / 2, "{report:#}");
}

/// A writer that is killed at a moment drawn from a seed, and what it had acknowledged until then.
fn killed(place: &Place, from: u64, life: Duration, acknowledged: &mut BTreeSet<String>) {
    let mut command = Command::new(binary());
    command
        .args(["--json", "--data-dir"])
        .arg(&place.data)
        .args(["events", "write", "-", "--store"]);
    command.arg(&place.store).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running(command.spawn().expect("the command starts"));
    let mut input = child.0.stdin.take().expect("it is piped");
    let output = child.0.stdout.take().expect("it is piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for id in ids(from..from + 100_000) {
                if input.write_all(format!("{}\n", event(&id)).as_bytes()).is_err() {
                    return;
                }
            }
        });
        let reader = scope.spawn(|| {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            let told = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            told.filter_map(|line| line["event_id"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        });
        // The moment of death is what is tested here: it is time that passes, not a wait.
        let (_hold, nothing) = std::sync::mpsc::channel::<()>();
        let _ = nothing.recv_timeout(life);
        let _ = child.0.kill();
        let _ = child.0.wait();
        acknowledged.extend(reader.join().expect("reading does not panic"));
    });
}

#[test]
fn what_was_acknowledged_is_there_however_often_writers_are_killed() {
    let place = place();
    let slow = std::env::var_os(SLOW_TESTS).is_some_and(|value| !value.is_empty() && value != "0");
    let kills = if slow { KILLS.0 } else { KILLS.1 };
    let mut acknowledged = BTreeSet::new();
    let mut draw = 7_u64;
    for kill in 0..kills {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let life = Duration::from_millis(20 + (draw >> 33) % 300);
        killed(&place, kill * 1_000_000, life, &mut acknowledged);
        let report = place.events(&["verify-store"]);
        assert_eq!(report.code, 0, "after kill {kill}: {report:?}");
    }
    assert!(acknowledged.len() > 10, "hardly anything was written: {}", acknowledged.len());
    // And the next writer goes on by itself.
    place.write(["evt_last".to_owned()]);
    let listed = place.events(&["list"]).json();
    let there: BTreeSet<String> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|event| event["event_id"].as_str().map(str::to_owned))
        .collect();
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert_eq!(place.events(&["verify-store"]).json()["valid"], true);
}

const DECISION: [&str; 18] = [
    "emit-policy-decision",
    "--actor",
    "mail helper",
    "--policy-rule",
    "mail.no-keys",
    "--operation",
    "ipc.lookup.example",
    "--target-class",
    "example_ipc_service",
    "--explanation-code",
    "POLICY_EXPECTED_TEST_BOUNDARY",
    "--summary",
    "It asked and was refused.",
    "--why",
    "It needs no keys.",
    "--next-action",
    "Nothing.",
    "--subject=key service",
];

#[test]
fn emitted_events_are_valid_and_what_cannot_be_is_refused() {
    let place = place();
    let made = cli(&place.data, &[&["events"], &DECISION[..]].concat()).json();
    let verdict = validate(&made, &Options { strict: true, ..Options::default() });
    assert!(verdict.is_valid(), "{:?}", verdict.errors);
    assert_eq!(made["noise_control"]["event_fingerprint"], "fp_local_policy_decision");
    assert_eq!(made["causality"]["root_event_id"], made["event_id"]);
    assert_eq!(made["severity"], "notice");
    let added = place.events(&DECISION).json();
    assert_eq!(added["line"], 1);
    place.events(&[&DECISION[..], &["--severity", "error"]].concat()).refused(2, "event_invalid");
    place.events(&[&DECISION[..], &["--outcome", "maybe"]].concat()).refused(2, "usage");
    let words = ["--summary", "A.", "--why", "B.", "--next-action", "C.", "--actor", "D"];
    let emit = ["emit", "--class", "sync.replication", "--lane", "sync", "--subject", "a peer"];
    let added = place.events(&[&emit[..], &words].concat()).json();
    assert_eq!(added["line"], 2);
    let folded =
        ["emit", "--class", "telemetry.coalesced", "--lane", "sync", "--subject", "a peer"];
    place.events(&[&folded[..], &words].concat()).refused(2, "usage");
    assert_eq!(place.events(&["verify-store"]).json()["valid"], true);
}

#[test]
fn observations_become_events_or_are_refused() {
    let place = place();
    for name in ["expected-denial", "probe-of-keys", "degraded-trust-louder"] {
        let file = format!("{}/examples/policy-observations/{name}.json", root());
        let made = cli(&place.data, &["events", "normalize", &file]).json();
        let verdict = validate(&made, &Options { strict: true, ..Options::default() });
        assert!(verdict.is_valid(), "{name}: {:?}", verdict.errors);
        place.events(&["normalize", &file]).is(0);
    }
    let file = format!("{}/examples/policy-observations/invalid/other-risk.json", root());
    cli(&place.data, &["events", "normalize", &file]).is(1);
    let registry = format!("{}/examples/policy-explanations/one-code.registry.json", root());
    let file = format!("{}/examples/policy-observations/expected-denial.json", root());
    cli(&place.data, &["events", "normalize", &file, "--registry", &registry])
        .refused(1, "observation_invalid");
}

fn root() -> String {
    crate::support::root().to_str().expect("paths are text").to_owned()
}

#[test]
fn a_stream_is_folded_and_storms_are_recorded() {
    let place = place();
    let input = lines(ids(0..40));
    let said = cli_with(&place.data, &["events", "coalesce"], input.as_bytes());
    let folded = said.is(0).lines();
    assert_eq!(folded.len(), 1, "{said:?}");
    assert_eq!(folded[0]["noise_control"]["count"], 40);
    assert_eq!(folded[0]["severity"], "notice");
    let report: Value = serde_json::from_str(said.err.trim()).expect("the report is JSON");
    assert_eq!(report["coalesced"]["reduction_ratio"], 40.0);
    assert_eq!(report["coalesced"]["occurrences_out"], 40);
    // The same out of a store, as records of storms.
    place.write(ids(0..40));
    let store = place.store.to_str().expect("paths are text");
    let said = cli(&place.data, &["events", "coalesce", store, "--storms"]);
    let storms = said.is(0).lines();
    assert_eq!(storms[0]["repeatCount"], 40);
    assert_eq!(storms[0]["causalParentRef"], "evt_0");
    let verdict = validate(&storms[0], &Options { strict: true, ..Options::default() });
    assert!(verdict.is_valid() && verdict.profiles == Profile::ALL, "{verdict:?}");
    let broken = format!("{input}nonsense\n");
    cli_with(&place.data, &["events", "coalesce"], broken.as_bytes()).is(2);
    let skipped =
        cli_with(&place.data, &["events", "coalesce", "--skip-invalid"], broken.as_bytes());
    assert!(skipped.is(0).err.contains("line 41 is no event"), "{skipped:?}");
}

#[test]
fn a_reader_sees_what_its_clearance_allows() {
    let place = place();
    let mut secret = event("evt_secret");
    secret["privacy"]["tier"] = json!("admin_forensic");
    secret["subject"]["display"] = json!("/home/ann/diary.txt");
    place.events_with(&["write", "-"], &secret.to_string()).is(0);
    assert_eq!(place.events(&["show", "evt_secret"]).json(), secret);
    for command in [&["show", "evt_secret"][..], &["list"], &["explain", "evt_secret"]] {
        let said = place.events(&[command, &["--tier", "public_summary"]].concat());
        assert!(!said.is(0).out.contains("ann"), "{said:?}");
        assert!(said.out.contains("package_binary") || said.out.contains("blocked_expected"));
    }
}

#[test]
fn validate_says_what_is_wrong_in_each_file() {
    let place = place();
    let check = |path: &str, code: i32, args: &[&str]| {
        let file = format!("{}/examples/events/{path}", root());
        let said = cli(&place.data, &[&["events", "validate", &file], args].concat());
        assert_eq!(said.code, code, "{path}: {said:?}");
        said.document()
    };
    check("process-exec.indexer.json", 0, &["--strict"]);
    let judged = check("invalid/expected-denial-too-loud.json", 1, &[]);
    assert_eq!(judged["errors"][0]["path"], "/severity");
    check("invalid/code-of-nobody.json", 0, &[]);
    check("invalid/code-of-nobody.json", 1, &["--strict"]);
    check("invalid/decision-without-block.json", 1, &[]);
    check("invalid/decision-without-block.json", 0, &["--legacy"]);
    cli(&place.data, &["events", "validate", "nowhere.json"]).refused(2, "file_unusable");
}

#[test]
fn every_rule_by_which_the_node_decides_has_an_explanation_code() {
    let all = [
        Rule::LaneReplicates,
        Rule::Granted,
        Rule::LaneIsLocal,
        Rule::LaneNeedsGrant,
        Rule::ClassNeedsGrant,
    ];
    for rule in all {
        // A new rule does not compile here until it is in the list above.
        match rule {
            Rule::LaneReplicates
            | Rule::Granted
            | Rule::LaneIsLocal
            | Rule::LaneNeedsGrant
            | Rule::ClassNeedsGrant => {}
        }
        let code = format!("POLICY_{}", rule.code().to_ascii_uppercase());
        assert!(explanation::find(&code).is_some(), "the registry lacks {code}");
    }
}

#[test]
fn adding_costs_the_same_however_long_the_store_is() {
    let place = place();
    place.write(ids(0..100));
    let short = reads_of_an_append(&place, "evt_a");
    place.write(ids(100..3_000));
    let long = reads_of_an_append(&place, "evt_b");
    // Counted in bytes read and not in time: a busy machine must not decide.
    assert!(long < short * 3 + 64 * 1024, "{short} bytes were read at first, {long} later");
}

/// Bytes that a process read of files while it added one event.
fn reads_of_an_append(place: &Place, id: &str) -> u64 {
    let mut command = Command::new(binary());
    command
        .args(["--json", "--data-dir"])
        .arg(&place.data)
        .args(["events", "write", "-", "--store"]);
    command.arg(&place.store).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running(command.spawn().expect("the command starts"));
    let mut input = child.0.stdin.take().expect("it is piped");
    let output = child.0.stdout.take().expect("it is piped");
    input.write_all(format!("{}\n", event(id)).as_bytes()).expect("it reads");
    let mut told = String::new();
    BufReader::new(output).read_line(&mut told).expect("it tells");
    let io = Path::new("/proc").join(child.0.id().to_string()).join("io");
    let io = std::fs::read_to_string(io).expect("the system counts what processes read");
    drop(input);
    child.0.wait().expect("it ends");
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.and_then(|bytes| bytes.parse().ok()).expect("a number of bytes")
}
