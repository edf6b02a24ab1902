//! `contracts`, run as from a shell.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{ApiError, Node};
use crate::cli::args::{DemoArgs, Globals, RunArgs};
use crate::cli::{Backend, Io, run};

/// No node at all: these commands need none.
struct Nothing;

impl Backend for Nothing {
    fn init(
        &self,
        _: &Path,
        _: Option<&str>,
    ) -> Result<srcos_schemas::status::InitDocument, ApiError> {
        Err(ApiError::internal("asked for a node"))
    }

    fn open(&self, _: &Path) -> Result<Arc<dyn Node>, ApiError> {
        Err(ApiError::internal("asked for a node"))
    }

    fn run(&self, _: &Path, _: &Globals, _: RunArgs) -> Result<(), ApiError> {
        Err(ApiError::internal("asked for a node"))
    }

    fn demo(&self, _: &Globals, _: DemoArgs) -> Result<(), ApiError> {
        Err(ApiError::internal("asked for a node"))
    }
}

struct Outcome {
    code: u8,
    out: String,
    err: String,
}

fn shell(arguments: &[&str], mut input: &[u8]) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { input: &mut input, output: &mut out, errors: &mut err };
    let all = ["srcos-node", "--data-dir", "/nowhere"].into_iter().chain(arguments.iter().copied());
    let code = run(all, &Nothing, &mut io);
    let code = (0..=255).find(|number| {
        // `ExitCode` can be compared only by how it prints.
        format!("{code:?}") == format!("{:?}", ExitCode::from(*number))
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: code.unwrap(), out: text(out), err: text(err) }
}

fn example(path: &str) -> String {
    format!("{}/../examples/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn verdicts(outcome: &Outcome) -> Vec<Value> {
    outcome.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_contract_is_listed_and_can_be_shown() {
    let listed = shell(&["contracts", "list", "--json"], b"");
    let contracts: Value = serde_json::from_str(&listed.out).unwrap();
    let names: Vec<&str> =
        contracts.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in [
        "state-integrity-report",
        "repair-plan",
        "event",
        "event-legacy",
        "service",
        "capability",
        "launch-manifest",
        "incident",
        "process-provenance",
        "policy-decision",
        "policy-observation",
        "policy-explanation-registry",
        "agent-trust-decision",
        "delivery-scorecard",
        "evidence-envelope",
        "capability-contract",
        "capability-grant-state",
        "diagnostic-storm-record",
        "network-truth-state",
        "runtime-registry-integrity-record",
        "boot-session-phase-state",
        "lane",
        "policy",
        "lanes-status",
    ] {
        assert!(names.contains(&name), "{name}");
        let shown = shell(&["contracts", "show", name], b"");
        assert_eq!(shown.code, 0);
        let schema: Value = serde_json::from_str(&shown.out).unwrap();
        assert!(schema["$id"].as_str().unwrap().starts_with("urn:srcos:schema:"));
        assert_eq!(shell(&["contracts", "show", name, "--rules"], b"").code, 0);
    }
    assert!(shell(&["contracts", "list"], b"").out.lines().count() == names.len());
    let unknown = shell(&["contracts", "show", "no-such"], b"");
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("contracts list"));
}

#[test]
fn a_valid_document_ends_with_0_and_an_invalid_one_with_1_and_the_rule() {
    let plan = example("health/repair-plan.json");
    let good = shell(&["contracts", "validate", &plan, "--json"], b"");
    assert_eq!(good.code, 0, "{}", good.out);
    let verdict = &verdicts(&good)[0];
    assert_eq!(verdict["file"], plan.as_str());
    assert_eq!(verdict["schema"], "repair-plan");
    assert_eq!(verdict["valid"], true);
    assert_eq!(verdict["errors"], json!([]));

    let path = example("health/invalid/step-order.repair-plan.json");
    let bad = shell(&["contracts", "validate", &path, "--json"], b"");
    assert_eq!(bad.code, 1);
    let error = &verdicts(&bad)[0]["errors"][0];
    assert_eq!(error["path"], "/steps/1/order");
    assert_eq!(error["rule"], "repair-plan.step-order");
    assert!(error["message"].is_string());

    let words = shell(&["contracts", "validate", &path], b"");
    assert_eq!(words.code, 1);
    assert!(words.err.contains("steps.1.order"), "{}", words.err);
}

#[test]
fn a_rule_of_this_project_alone_warns_and_is_an_error_when_strict() {
    let path = example("health/invalid/undeclared.repair-plan.json");
    let lenient = shell(&["contracts", "validate", &path, "--json"], b"");
    assert_eq!(lenient.code, 0);
    assert_eq!(
        verdicts(&lenient)[0]["warnings"][0]["rule"],
        "repair-plan.destructive-steps-declared"
    );
    let strict = shell(&["contracts", "validate", &path, "--json", "--strict"], b"");
    assert_eq!(strict.code, 1);
}

#[test]
fn a_folder_stands_for_its_documents() {
    let folder = example("health");
    let outcome = shell(&["contracts", "validate", &folder, "--json"], b"");
    assert_eq!(outcome.code, 0, "{}", outcome.out);
    assert_eq!(verdicts(&outcome).len(), 3);
    let words = shell(&["contracts", "validate", &folder], b"");
    assert!(words.out.contains("3 valid, 0 invalid"), "{}", words.out);
}

#[test]
fn standard_input_may_hold_one_document_or_lines() {
    let plan = std::fs::read(example("health/repair-plan.json")).unwrap();
    let whole = shell(&["contracts", "validate", "-", "--json"], &plan);
    assert_eq!(whole.code, 0, "{}", whole.out);
    assert_eq!(verdicts(&whole)[0]["file"], "-");

    let line: Value = serde_json::from_slice(&plan).unwrap();
    let line = line.to_string();
    let alone = shell(&["contracts", "validate", "-", "--json"], line.as_bytes());
    assert_eq!((alone.code, verdicts(&alone).len()), (0, 1));

    let lines = format!("{line}\n\n{{\"schema\": 1}}\n{{\"a\":\n{line}");
    let outcome = shell(&["contracts", "validate", "-", "--json"], lines.as_bytes());
    assert_eq!(outcome.code, 1);
    let verdicts = verdicts(&outcome);
    let said: Vec<(u64, bool)> = verdicts
        .iter()
        .map(|verdict| (verdict["line"].as_u64().unwrap(), verdict["valid"].as_bool().unwrap()))
        .collect();
    assert_eq!(said, [(1, true), (3, false), (4, false), (5, true)]);
    assert_eq!(verdicts[1]["errors"][0]["rule"], "contract.known");
    let message = verdicts[2]["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("line 4 column"), "{message}");
}

#[test]
fn broken_json_is_named_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8], said: &str| {
        let path = folder.path().join("broken.json");
        std::fs::write(&path, bytes).unwrap();
        let outcome = shell(&["contracts", "validate", path.to_str().unwrap(), "--json"], b"");
        assert_eq!(outcome.code, 1);
        let error = &verdicts(&outcome)[0]["errors"][0];
        assert_eq!(error["rule"], "json");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    };
    check(b"{\n  \"a\": 1,\n  \"a\": 2\n}", "duplicate key \"a\" at line 3 column 3");
    check(b"{\n  \"a\": ]\n}", "at line 2 column 8");
    check(b"", "ends in the middle");
    check(b"\xff", "UTF-8");
    check(&b"[".repeat(129), "128 levels");
    check(&vec![b' '; (16 << 20) + 1], "limit of 16777216 bytes");
}

#[test]
fn a_line_that_is_too_long_does_not_hide_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut bytes = vec![b' '; 17 << 20];
    bytes.extend(b"\n{}\n");
    std::fs::write(&path, bytes).unwrap();
    let outcome = shell(&["contracts", "validate", path.to_str().unwrap(), "--json"], b"");
    let verdicts = verdicts(&outcome);
    assert_eq!(verdicts.last().unwrap()["line"], 2);
    assert_eq!(verdicts.last().unwrap()["errors"][0]["rule"], "contract.named");
}

#[test]
fn what_cannot_be_used_at_all_ends_with_2() {
    for arguments in [
        ["contracts", "validate", "/no/such/file.json"].as_slice(),
        &["contracts", "validate", "--schema", "no-such", "-"],
        &["contracts", "validate", "--profile", "no-such", "-"],
        &["contracts", "validate"],
    ] {
        assert_eq!(shell(arguments, b"").code, 2, "{arguments:?}");
    }
}

#[test]
fn the_profile_that_is_asked_for_must_hold() {
    let path = example("capability-authority/registry.proposal.json");
    let any = shell(&["contracts", "validate", &path, "--json"], b"");
    assert_eq!((any.code, &verdicts(&any)[0]["profiles"]), (0, &json!(["proposal"])));
    let published =
        shell(&["contracts", "validate", &path, "--json", "--profile", "published"], b"");
    assert_eq!(published.code, 1);
    assert!(!verdicts(&published)[0]["errors"].as_array().unwrap().is_empty());
}

#[test]
fn an_integer_that_not_every_reader_can_hold_is_a_warning_and_an_error_in_strict() {
    let text = std::fs::read_to_string(example("health/repair-plan.json")).unwrap();
    let mut plan: Value = serde_json::from_str(&text).unwrap();
    plan["checkpoint"]["generation"] = json!("wide");
    let text = plan.to_string().replace("\"wide\"", "18446744073709551616");
    let judged = shell(&["contracts", "validate", "--json", "-"], text.as_bytes());
    let [verdict] = &verdicts(&judged)[..] else { panic!("one verdict: {}", judged.out) };
    assert_eq!((judged.code, &verdict["valid"]), (0, &json!(true)), "{verdict}");
    assert_eq!(verdict["warnings"][0]["rule"], "json.integer-range");
    let strict = shell(&["contracts", "validate", "--strict", "--json", "-"], text.as_bytes());
    assert_eq!(strict.code, 1);
    assert_eq!(verdicts(&strict)[0]["errors"][0]["rule"], "json.integer-range");
}

#[test]
fn lines_on_standard_input_are_lines_whatever_the_first_one_is() {
    let text = std::fs::read_to_string(example("health/repair-plan.json")).unwrap();
    let plan = serde_json::from_str::<Value>(&text).unwrap().to_string();
    let lines = |input: String| -> Vec<(Value, Value)> {
        let judged = shell(&["contracts", "validate", "--json", "-"], input.as_bytes());
        verdicts(&judged).iter().map(|said| (said["line"].clone(), said["valid"].clone())).collect()
    };
    let two = |first: u64, valid: bool| {
        vec![(json!(first), json!(valid)), (json!(first + 1), json!(true))]
    };
    assert_eq!(lines(format!("{plan}\n{plan}\n")), two(1, true));
    assert_eq!(lines(format!("\n \n{plan}\n{plan}\n")), two(3, true));
    assert_eq!(lines(format!("{{\"a\": tru\n{plan}\n")), two(1, false));
    assert_eq!(lines(format!("{{\"a\":\n{plan}")), two(1, false));
    assert_eq!(lines(format!("\n{{\"a\"\n{plan}\n")), two(2, false));
    // One document over several lines stays one.
    assert_eq!(lines(format!("\n\n{text}")), [(Value::Null, json!(true))]);
    assert_eq!(lines(format!("{{\"a\":\n{plan}\n}}")), [(Value::Null, json!(false))]);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::copy(example("health/repair-plan.json"), at("good.json")).unwrap();
    std::os::unix::fs::symlink(at("nowhere"), at("dangling.json")).unwrap();
    std::os::unix::fs::symlink(at("loop.json"), at("loop.json")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at("pipe.json")).status().unwrap();
    assert!(made.success());
    let folder = dir.path().display().to_string();
    let judged = shell(&["contracts", "validate", &folder], b"");
    assert_eq!(judged.code, 2, "{}", judged.err);
    for name in ["dangling.json", "loop.json", "pipe.json"] {
        assert_eq!(judged.err.matches(&at(name)).count(), 1, "{}", judged.err);
    }
    assert!(judged.out.contains("good.json: valid"), "{}", judged.out);
    let (missing, good) = (at("missing.json"), at("good.json"));
    for command in [["contracts", "validate"], ["events", "validate"], ["process", "validate"]] {
        let judged = shell(&[&command[..], &[&missing, &good]].concat(), b"");
        assert_eq!(judged.code, 2, "{}", judged.err);
        let said = format!("{}{}", judged.out, judged.err);
        assert!(said.contains(&missing) && said.contains(&good), "{command:?}: {said}");
    }
}

#[test]
fn json_that_cannot_be_taken_is_not_called_no_json() {
    for text in ["{\"a\": 1e400}", "{\"a\": \"\\ud800\"}"] {
        let judged = shell(&["contracts", "validate", "-"], text.as_bytes());
        assert_eq!(judged.code, 1);
        assert!(!judged.err.contains("no JSON"), "{}", judged.err);
    }
    let long = vec![b'x'; crate::cli::DOCUMENT_BYTES_MAX + 4];
    let judged = shell(&["contracts", "validate", "-"], &long);
    assert!(judged.err.contains("over the limit of 16777216 bytes"), "{}", judged.err);
}
