//! The tools of the control plane from the outside: what they print, and the exit codes by which
//! scripts know it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Running, Said, binary, run};
use crate::support::{read, root};

/// Runs the binary in the folder of the workspace.
#[track_caller]
fn tool(args: &[&str]) -> Said {
    let mut command = Command::new(binary());
    command.args(args).current_dir(root());
    run(command, b"")
}

/// The same with `--json`.
#[track_caller]
fn tool_json(args: &[&str]) -> Said {
    tool(&[&["--json"], args].concat())
}

#[track_caller]
fn out(said: &Said, code: i32) -> Value {
    assert_eq!(said.code, code, "{said:?}");
    serde_json::from_str(said.out.trim()).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn example(path: &str) -> Value {
    serde_json::from_str(&read(&format!("examples/{path}"))).unwrap()
}

/// Puts a document where a command can read it.
fn put(dir: &TempDir, name: &str, document: &Value) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, document.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn services_that_hold_exit_0_and_others_1_with_file_and_place() {
    let good = tool(&["services", "validate", "examples/services"]);
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.out.contains("2 service manifests hold, with 0 warnings"), "{good:?}");
    let bad = tool(&["services", "validate", "examples/services/invalid/silent.service.json"]);
    assert_eq!((bad.code, bad.out.as_str()), (1, ""), "{bad:?}");
    assert!(bad.err.contains("silent.service.json: observability.emits_events:"), "{bad:?}");
    // What only warns is an error when asked for strictly.
    let warned = "examples/services/invalid/no-health.service.json";
    let lenient = out(&tool_json(&["services", "validate", warned]), 0);
    assert_eq!((&lenient["valid"], &lenient["warnings"]), (&json!(true), &json!(1)));
    assert_eq!(tool(&["services", "validate", "--strict", warned]).code, 1);
}

#[test]
fn broken_bytes_are_invalid_and_absent_files_are_bad_input() {
    let dir = dir();
    let path = dir.path().join("x.json");
    for broken in ["", "{", "{\"a\":1,\"a\":2}", "\u{0}", &"[".repeat(1000)] {
        std::fs::write(&path, broken).unwrap();
        let said = tool_json(&["services", "validate", path.to_str().unwrap()]);
        let verdict = out(&said, 1);
        assert_eq!(verdict["files"][0]["errors"][0]["rule"], "json", "{broken:?}");
    }
    assert_eq!(tool(&["services", "validate", "/nowhere/x.json"]).code, 2);
    assert_eq!(tool(&["services", "validate", dir.path().join("y").to_str().unwrap()]).code, 2);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(tool(&["services", "validate", dir.path().to_str().unwrap()]).code, 2);
    assert_eq!(tool(&["services", "validate"]).code, 2);
}

#[test]
fn the_graph_comes_in_four_forms() {
    let graph =
        |format: &str| tool(&["services", "graph", "--format", format, "examples/services"]);
    assert!(graph("text").out.starts_with("2 services\n"));
    assert_eq!(out(&graph("json"), 0)["service_count"], 2);
    assert!(graph("dot").out.starts_with("digraph services {"));
    assert!(graph("mermaid").out.starts_with("flowchart LR\n"));
    let document = out(&tool_json(&["services", "graph", "examples/services"]), 0);
    assert_eq!(document["schema_version"], "sourceos.service-graph.v0.1");
    // The graph asks for the shape of a manifest and no more.
    let silent = "examples/services/invalid/silent.service.json";
    assert_eq!(tool(&["services", "graph", silent]).code, 0);
    let unknown = "examples/services/invalid/unknown-domain.service.json";
    assert_eq!(tool(&["services", "graph", unknown]).code, 1);
}

#[test]
fn a_release_is_refused_by_the_gate_that_is_shut() {
    let good = out(
        &tool_json(&[
            "release",
            "check",
            "--service",
            "examples/services/lantern.service.json",
            "--launch",
            "examples/launch/lantern.launch-manifest.json",
            "--incident",
            "examples/incidents/lantern-parser-fault.incident.json",
        ]),
        0,
    );
    assert_eq!(good["gates"].as_array().unwrap().len(), 10);
    assert_eq!(good["launch"]["identity"]["status"], "pass");
    let dir = dir();
    let mut open = example("services/lantern.service.json");
    open["release_gates"]["no_silent_remote_trust"] = json!("yes");
    let path = put(&dir, "open.json", &open);
    let refused = out(&tool_json(&["release", "check", "--service", &path]), 1);
    let shut: Vec<&Value> =
        refused["gates"].as_array().unwrap().iter().filter(|gate| gate["pass"] == false).collect();
    assert_eq!(shut.len(), 1);
    assert_eq!((&shut[0]["number"], &shut[0]["name"]), (&json!(6), &json!("remote-trust")));
    let words = tool(&["release", "check", "--service", &path]);
    assert!(
        words.out.contains("FAIL  6 remote-trust") && words.out.contains("must not be released")
    );
    // Ten gates passed do not help a launch that does not fit, or a bundle that does not hold.
    let service = "examples/services/lantern.service.json";
    let leak = "examples/launch/invalid/lantern-shows-engine.launch-manifest.json";
    assert_eq!(tool(&["release", "check", "--service", service, "--launch", leak]).code, 1);
    let bad = "examples/incidents/invalid/bad-id.incident.json";
    assert_eq!(tool(&["release", "check", "--service", service, "--incident", bad]).code, 1);
}

#[test]
fn the_identity_audit_names_the_surface_on_standard_error() {
    let service = "examples/services/lantern.service.json";
    let pair = |launch: &str| {
        ["identity", "audit", "--service", service, "--launch", launch].map(str::to_owned)
    };
    let run = |launch: &str, json: bool| {
        let args = pair(launch);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if json { tool_json(&args) } else { tool(&args) }
    };
    let good = "examples/launch/lantern.launch-manifest.json";
    assert_eq!(out(&run(good, true), 0)["status"], "pass");
    let leak = "examples/launch/invalid/lantern-shows-engine.launch-manifest.json";
    let report = out(&run(leak, true), 1);
    assert_eq!(report["status"], "fail");
    assert_eq!(report["launch"], leak);
    let said = run(leak, false);
    assert!(said.err.contains("upstream identity webkit") && said.out.is_empty(), "{said:?}");
    let shell = "examples/launch/invalid/inherits-shell.launch-manifest.json";
    assert!(run(shell, false).err.contains("inherit_user_shell"));
    let dir = dir();
    let list = put(&dir, "list.json", &json!([1]));
    assert_eq!(run(&list, true).code, 1);
}

#[test]
fn a_process_becomes_events_that_the_contract_takes() {
    let file = "examples/process-provenance/decoder-crash.provenance.json";
    assert_eq!(tool(&["process", "validate", "examples/process-provenance"]).code, 0);
    let time = "2026-05-04T12:20:30.5+02:00";
    let said = tool(&["process", "emit-events", file, "--created-at", time]);
    let events = out(&said, 0);
    assert_eq!(events.as_array().unwrap().len(), 2);
    assert_eq!(events[0]["created_at"], time);
    let dir = dir();
    let folder = dir.path().join("events");
    let folder = folder.to_str().unwrap();
    let said = tool_json(&["process", "emit-events", file, "--out-dir", folder]);
    assert_eq!(out(&said, 0).as_array().unwrap().len(), 2);
    let judged = tool_json(&["contracts", "validate", "--schema", "event", folder]);
    assert_eq!(judged.code, 0, "{judged:?}");
    assert_eq!(judged.out.lines().count(), 2);
    for wrong in ["2026-05-04", "2026-05-04 12:20:30Z", "yesterday"] {
        assert_eq!(tool(&["process", "emit-events", file, "--created-at", wrong]).code, 2);
    }
    let invalid = "examples/process-provenance/invalid/unknown-path-class.provenance.json";
    assert_eq!(tool(&["process", "emit-events", invalid]).code, 1);
    assert_eq!(tool(&["process", "validate", invalid]).code, 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_running_process_is_observed_and_the_record_holds() {
    let mut cat = Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = Running(cat.spawn().unwrap());
    let pid = child.0.id().to_string();
    let said = tool_json(&["process", "observe", &pid]);
    let tuple = out(&said, 0);
    assert_eq!(tuple["process_identity"]["pid"], child.0.id());
    assert_eq!(tuple["process_identity"]["ppid"], std::process::id());
    assert!(tuple["executable_identity"]["content_hash"].as_str().unwrap().starts_with("sha256:"));
    assert!(said.err.contains("unknown: executable_identity.signature_state:"), "{said:?}");
    let dir = dir();
    let file = put(&dir, "seen.json", &tuple);
    assert_eq!(tool(&["process", "validate", "--strict", &file]).code, 0);
    let events = out(&tool(&["process", "emit-events", &file]), 0);
    assert_eq!(events.as_array().unwrap().len(), 1, "nobody has seen it end");
    let _ = child.0.kill();
    let _ = child.0.wait();
    tool_json(&["process", "observe", &pid]).refused(1, "process_absent");
}

#[test]
fn an_incident_is_built_from_a_store_and_explained() {
    let dir = dir();
    let file = "examples/process-provenance/decoder-crash.provenance.json";
    let events = out(&tool(&["process", "emit-events", file]), 0);
    let lines: String =
        events.as_array().unwrap().iter().map(|event| format!("{event}\n")).collect();
    let store = dir.path().join("events.jsonl");
    std::fs::write(&store, lines).unwrap();
    let store = store.to_str().unwrap();
    let built = tool_json(&["incidents", "build", "--class", "crash", "--store", store]);
    let incident = out(&built, 0);
    assert_eq!(incident["incident_class"], "crash");
    assert_eq!(incident["export_policy"]["exportable"], false);
    let path = put(&dir, "incident.json", &incident);
    let words = tool(&["incidents", "explain", &path]);
    assert_eq!(words.code, 0);
    for said in ["SIGSEGV", "Risk:", "Why:", "Next action:", "must not leave"] {
        assert!(words.out.contains(said), "{said}: {words:?}");
    }
    let folder = dir.path().join("incidents");
    let args = ["incidents", "build", "--class", "crash", "--store", store, "--out-dir"];
    let written = tool(&[&args[..], &[folder.to_str().unwrap()]].concat());
    assert!(Path::new(written.out.trim()).is_file(), "{written:?}");
    tool_json(&["incidents", "build", "--class", "parser-fault", "--store", store])
        .refused(1, "no_such_fault");
    tool_json(&["incidents", "build", "--class", "hang", "--store", store])
        .refused(2, "class_not_from_events");
    assert_eq!(tool(&["incidents", "build", "--class", "luck", "--store", store]).code, 2);
    std::fs::write(dir.path().join("broken.jsonl"), "{\"event_id\":\"evt_1\"}\nnot json\n")
        .unwrap();
    let broken = dir.path().join("broken.jsonl");
    let args = ["incidents", "build", "--class", "crash", "--store", broken.to_str().unwrap()];
    tool_json(&args).refused(2, "store_line");
    let invalid = "examples/incidents/invalid/no-time.incident.json";
    assert_eq!(tool(&["incidents", "explain", invalid]).code, 1);
}

#[test]
fn the_whole_control_plane_of_the_examples_holds() {
    let said = tool_json(&["control-plane", "validate", "."]);
    let verdict = out(&said, 0);
    assert!(verdict["documents"].as_u64().unwrap() > 10);
    assert_eq!(verdict["together"]["errors"], json!([]));
    let dir = dir();
    let copy = |from: &str, to: &str| {
        let to = dir.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(root().join("examples").join(from), to).unwrap();
    };
    let here = dir.path().to_str().unwrap().to_owned();
    assert_eq!(tool(&["control-plane", "validate", &here]).code, 2, "there is nothing");
    copy("services/lantern.service.json", "services/lantern.json");
    copy("launch/lantern.launch-manifest.json", "launch/lantern.json");
    assert_eq!(tool(&["control-plane", "validate", &here]).code, 0);
    // Each holds alone; the identity audit refuses the two together.
    copy("launch/invalid/inherits-shell.launch-manifest.json", "launch/lantern.json");
    let misfit = out(&tool_json(&["control-plane", "validate", &here]), 1);
    assert_eq!(misfit["together"]["errors"][0]["rule"], "identity.hermetic");
    copy("launch/lantern.launch-manifest.json", "launch/lantern.json");
    copy("events/invalid/expected-denial-too-loud.json", "events/loud.json");
    let loud = tool(&["control-plane", "validate", &here]);
    assert_eq!(loud.code, 1, "{loud:?}");
    assert!(loud.err.contains("loud.json"), "{loud:?}");
}

/// The three documents of a preflight, as paths.
struct Asked {
    contract: String,
    phase: String,
    grants: String,
}

impl Asked {
    fn page_renderer() -> Self {
        let path = |name: &str| format!("examples/capability-authority/{name}.json");
        Self {
            contract: path("page-renderer.contract"),
            phase: path("unlocked.phase"),
            grants: path("page-renderer.grants"),
        }
    }

    #[track_caller]
    fn ask(&self) -> Said {
        let Self { contract, phase, grants } = self;
        tool_json(&[
            "capabilities",
            "preflight",
            "--contract",
            contract,
            "--phase",
            phase,
            "--grants",
            grants,
        ])
    }
}

/// That a grant state holds strictly, in both of its forms.
#[track_caller]
fn holds_in_both_forms(dir: &TempDir, state: &Value) {
    let path = put(dir, "state.json", state);
    for profile in ["published", "proposal"] {
        let said = tool(&["contracts", "validate", "--strict", "--profile", profile, &path]);
        assert_eq!(said.code, 0, "{profile}: {said:?}");
    }
}

#[test]
fn a_component_before_its_phase_is_refused_with_a_hint_a_person_can_act_on() {
    let dir = dir();
    let mut asked = Asked::page_renderer();
    asked.phase = "examples/capability-authority/locked.phase.json".to_owned();
    let said = asked.ask();
    let state = out(&said, 4);
    holds_in_both_forms(&dir, &state);
    for capability in state["capabilityStates"].as_array().unwrap() {
        assert_eq!(capability["decision"], "unavailable", "nobody has denied it");
        assert!(capability["remediationHint"].as_str().unwrap().contains("unlock"), "{capability}");
    }
    let error: Value = serde_json::from_str(said.err.trim()).unwrap();
    assert_eq!(error["error"]["code"], "phase_ineligible");
    assert!(error["error"]["hint"].as_str().unwrap().contains("unlock"), "{error}");
}

#[test]
fn a_browser_child_that_is_denied_goes_by_its_broker() {
    let dir = dir();
    let mut asked = Asked::page_renderer();
    let mut grants = example("capability-authority/page-renderer.grants.json");
    for state in grants["capabilityStates"].as_array_mut().unwrap() {
        state["decision"] = json!("denied");
        state["grantSource"] = json!("policy");
    }
    asked.grants = put(&dir, "grants.json", &grants);
    let state = out(&asked.ask(), 0);
    holds_in_both_forms(&dir, &state);
    let capabilities = state["capabilityStates"].as_array().unwrap();
    for (capability, broker) in capabilities.iter().zip(["pasteboard-broker", "launch-broker"]) {
        assert_eq!(capability["decision"], "degraded");
        assert_eq!(capability["grantSource"], "broker");
        assert!(capability["remediationHint"].as_str().unwrap().contains(broker), "{capability}");
    }
    assert_eq!(capabilities.len(), 2);
}

#[test]
fn a_contract_that_refuses_to_start_with_less_is_refused() {
    let dir = dir();
    let mut asked = Asked::page_renderer();
    let mut contract = example("capability-authority/page-renderer.contract.json");
    contract["degradedModePolicy"] = json!("refuse-start");
    asked.contract = put(&dir, "contract.json", &contract);
    let mut grants = example("capability-authority/page-renderer.grants.json");
    grants["bootId"] = json!("boot-of-yesterday");
    asked.grants = put(&dir, "grants.json", &grants);
    let said = asked.ask();
    let state = out(&said, 4);
    assert_eq!(state["capabilityStates"][0]["decision"], "unknown");
    assert!(
        said.err.contains("capability_lacking") && said.err.contains("another boot"),
        "{said:?}"
    );
    // A document that does not hold is no answer to anything.
    asked.grants = "examples/capability-authority/invalid/epoch-in-figures.grants.json".to_owned();
    assert_eq!(asked.ask().code, 1);
}

#[test]
fn records_that_look_alike_to_a_person_are_told_apart() {
    let check = |name: &str, code: &str, exit: i32| {
        let path = format!("examples/capability-authority/{name}.json");
        let list = out(&tool_json(&["capabilities", "explain", &path]), exit);
        assert_eq!(list[0]["code"], code, "{name}: {list}");
    };
    check("all-well.network", "online", 0);
    check("radio-on-no-route.network", "no-route", 1);
    check("no-dns.network", "no-dns", 1);
    check("no-internet.network", "no-internet", 1);
    check("mesh-only.network", "mesh-only", 1);
    check("missing-receipt.registry", "missing-receipt", 1);
    check("invalid-manifest.registry", "invalid-manifest", 1);
    check("missing-extension.registry", "missing-extension-record", 1);
    check("quarantined-plugin.registry", "quarantined-plugin", 1);
    let other = ["capabilities", "explain", "examples/services/lantern.service.json"];
    assert_eq!(tool(&other).code, 2);
}
