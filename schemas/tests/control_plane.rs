//! Services, launches, processes and incidents judged: what the tools of the control plane answer, on
//! the project's own examples and on changes of them.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use srcos_schemas::contracts::{self, Options, Valid};
use srcos_schemas::control_plane::{ControlPlane, misfits};
use srcos_schemas::event::coalesce::{Coalescer, Settings};
use srcos_schemas::event::rules::{EVENT, EVENT_LEGACY};
use srcos_schemas::event::vocabulary::Risk;
use srcos_schemas::identity::{AuditStatus, audit};
use srcos_schemas::incident::build::{BuildError, EVENTS_MAX, FROM_EVENTS, build};
use srcos_schemas::incident::explain::explain;
use srcos_schemas::incident::{Incident, IncidentClass};
use srcos_schemas::launch::LaunchManifest;
use srcos_schemas::process::ProcessProvenance;
use srcos_schemas::process::events::events;
use srcos_schemas::service::gates::gates;
use srcos_schemas::service::graph::ServiceGraph;
use srcos_schemas::service::{AuthorityDomain, Owner, SERVICE, ServiceManifest};
use srcos_schemas::time::Timestamp;

const NOW: Timestamp = Timestamp(1_777_900_000_000);

fn example(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn lantern() -> Value {
    example("services/lantern.service.json")
}

fn lantern_launch() -> Value {
    example("launch/lantern.launch-manifest.json")
}

/// A copy with the member at a pointer set, or removed where the value is nothing.
#[track_caller]
fn with(document: &Value, path: &str, value: Option<Value>) -> Value {
    let mut changed = document.clone();
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).and_then(Value::as_object_mut).unwrap();
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => parent.remove(name),
    };
    changed
}

fn service(document: Value) -> ServiceManifest {
    serde_json::from_value(document).unwrap()
}

// Gates.

/// The names of the gates that a manifest does not pass.
fn shut(document: &Value) -> Vec<&'static str> {
    let list = gates(&service(document.clone()));
    assert_eq!(
        list.iter().map(|gate| gate.number).collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    assert!(list.iter().all(|gate| gate.pass == gate.missing.is_none()));
    list.into_iter().filter(|gate| !gate.pass).map(|gate| gate.name).collect()
}

#[test]
fn each_gate_shuts_when_what_it_demands_is_taken_away() {
    let lantern = lantern();
    assert!(shut(&lantern).is_empty());
    let check = |path: &str, value: Option<Value>, gate: &str| {
        assert_eq!(shut(&with(&lantern, path, value.clone())), [gate], "{path} = {value:?}");
    };
    check("/schema_version", Some(json!("")), "manifest");
    check("/observability/emits_events", Some(json!(false)), "events");
    check("/capabilities/required", Some(json!([])), "capabilities");
    for value in [None, Some(json!("")), Some(json!(false)), Some(Value::Null)] {
        check("/release_gates/hermetic_launch_manifest", value, "hermetic-launch");
    }
    check("/observability/incident_bundle", Some(json!(false)), "incident-bundle");
    let some = json!(["crashes", "denial-storms", "wake-anomalies", "identity-mismatches"]);
    for value in [None, Some(some), Some(json!("crashes")), Some(json!(["crash"]))] {
        check("/release_gates/incident_fault_classes", value, "incident-bundle");
    }
    check(
        "/capabilities/denied",
        Some(json!(["identity.product.upstream_leak"])),
        "remote-telemetry",
    );
    for (member, gate) in [
        ("no_silent_remote_trust", "remote-trust"),
        ("coalesces_expected_denials", "coalescing"),
        ("privacy_causal_structure", "privacy"),
    ] {
        for value in [None, Some(json!("true")), Some(json!(1)), Some(json!(false))] {
            check(&format!("/release_gates/{member}"), value, gate);
        }
    }
    for value in [None, Some(json!("")), Some(json!(0)), Some(json!([]))] {
        check("/release_gates/delivery_excellence_metric", value, "metric");
    }
}

#[test]
fn an_exemption_opens_the_gate_of_events_and_only_that() {
    let silent = with(&lantern(), "/observability/emits_events", Some(json!(false)));
    assert_eq!(shut(&silent), ["events"]);
    let exempt =
        with(&silent, "/events_exemption", Some(json!("It runs before there are events.")));
    assert!(shut(&exempt).is_empty());
    let verdict = contracts::validate(&exempt, &Options::default());
    assert_eq!(verdict.errors[0].rule, "service.emits-events");
}

#[test]
fn a_service_that_is_no_app_needs_no_launch_manifest_but_denies_remote_telemetry() {
    let node = example("services/node.service.json");
    assert!(shut(&node).is_empty());
    let open = with(&node, "/capabilities/denied", Some(json!(["network.trust.silent"])));
    assert_eq!(shut(&open), ["remote-telemetry"]);
    // What the gate demands of all, the manifest's rules demand of apps only, and then as a warning.
    let verdict = contracts::validate(&open, &Options::default());
    assert!(verdict.is_valid() && verdict.warnings.is_empty(), "{verdict:?}");
    let app =
        with(&lantern(), "/capabilities/denied", Some(json!(["identity.product.upstream_leak"])));
    let verdict = contracts::validate(&app, &Options::default());
    assert!(verdict.is_valid());
    assert_eq!(verdict.warnings[0].rule, "service.denies-remote-telemetry");
}

// Graph.

#[test]
fn the_graph_says_who_needs_uses_and_refuses_what() {
    let manifests = [
        ("a.json", service(lantern())),
        ("b.json", service(example("services/node.service.json"))),
    ];
    let graph = ServiceGraph::of(manifests.iter().map(|(file, manifest)| (*file, manifest)));
    let document = serde_json::to_value(&graph).unwrap();
    assert_eq!(document["schema_version"], "sourceos.service-graph.v0.1");
    assert_eq!(document["service_count"], 2);
    assert_eq!(document["authority_domains"]["app"], json!(["org.example.lantern"]));
    assert_eq!(document["owners"]["srcos/srcos-node"], json!(["dev.srcos.node"]));
    let leak = &document["capability_index"]["identity.product.upstream_leak"];
    assert_eq!(leak["denied_by"], json!(["dev.srcos.node", "org.example.lantern"]));
    assert_eq!(leak["required_by"], json!([]));
    assert_eq!(document["services"][0]["manifest"], "a.json");
    let text = graph.text();
    assert_eq!(text.lines().count(), 3);
    assert!(
        text.contains("org.example.lantern domain=app owner=example/lantern required=2 denied=3")
    );
}

#[test]
fn lists_of_the_graph_are_sorted_and_name_each_once() {
    let twice = with(&lantern(), "/capabilities/required", Some(json!(["b.b", "a.a", "b.b"])));
    let manifest = service(twice);
    let graph = ServiceGraph::of([("x", &manifest)]);
    let required =
        serde_json::to_value(&graph).unwrap()["services"][0]["capabilities"]["required"].clone();
    assert_eq!(required, json!(["a.a", "b.b"]));
}

proptest! {
    /// Whatever names say, a drawing holds as many lines as it has parts, and no name ends its label.
    #[test]
    fn names_never_become_commands_of_a_drawing(name in ".{0,20}", capability in ".{0,20}") {
        let changed = with(&lantern(), "/display_name", Some(json!(name)));
        let changed = with(&changed, "/capabilities/required", Some(json!([capability])));
        let manifest = service(changed);
        let graph = ServiceGraph::of([("x", &manifest)]);
        let parts = graph.capability_index.len();
        let dot = graph.dot();
        let edges = dot.matches(" -> ").count();
        prop_assert!(edges >= 6, "{}", dot);
        for line in dot.lines().filter(|line| line.contains("label=\"")) {
            // Between its quotes a label has no quote that is not escaped.
            let label = line.split_once("label=\"").unwrap().1.rsplit_once("\"").unwrap().0;
            let mut escaped = false;
            for letter in label.chars() {
                prop_assert!(escaped || letter != '"', "{}", line);
                escaped = !escaped && letter == '\\';
            }
            prop_assert!(!escaped, "{}", line);
        }
        let mermaid = graph.mermaid();
        // A head, a group with its end and one service, a node for each capability, six edges.
        prop_assert_eq!(mermaid.lines().count(), 4 + parts + 6, "{}", mermaid);
        for line in mermaid.lines().filter(|line| line.contains("[\"")) {
            let label = line.split_once("[\"").unwrap().1.rsplit_once("\"]").unwrap().0;
            prop_assert!(!label.contains(['"', '<', '>', '`']), "{}", line);
        }
    }
}

// Identity.

#[test]
fn the_pair_of_examples_passes_without_a_word() {
    let audit = audit(&lantern(), &lantern_launch());
    assert_eq!(audit.status, AuditStatus::Pass);
    assert!(audit.errors.is_empty() && audit.warnings.is_empty(), "{audit:#?}");
}

/// The rules that a changed pair breaks: errors, and warnings.
fn broken(service: &Value, launch: &Value) -> (Vec<String>, Vec<String>) {
    let audit = audit(service, launch);
    assert_eq!(audit.status == AuditStatus::Fail, !audit.errors.is_empty());
    let names = |list: Vec<srcos_schemas::identity::AuditFinding>| -> Vec<String> {
        list.into_iter().map(|found| found.finding.rule.into_owned()).collect()
    };
    (names(audit.errors), names(audit.warnings))
}

#[test]
fn each_rule_of_the_identity_audit_fails_alone() {
    let (service, launch) = (lantern(), lantern_launch());
    let of_launch = |path: &str, value: Option<Value>, errors: &[&str], warnings: &[&str]| {
        let found = broken(&service, &with(&launch, path, value.clone()));
        assert_eq!(found.0, errors, "{path} = {value:?}");
        assert_eq!(found.1, warnings, "{path} = {value:?}");
    };
    of_launch("/schema_version", Some(json!("x")), &["identity.version"], &[]);
    for surface in ["dock_name", "menu_name", "crash_report_name", "helper_prefix"] {
        let path = format!("/identity_invariants/{surface}");
        for value in [None, Some(json!("lantern")), Some(json!("Lantern "))] {
            of_launch(&path, value, &["identity.surface-shows-product"], &[]);
        }
    }
    let surface = ["identity.surface-shows-product"];
    of_launch("/bundle_identity/expected_process_name", Some(json!("lantern")), &surface, &[]);
    for path in ["/product_id", "/bundle_identity/bundle_id"] {
        of_launch(path, Some(json!("org.example.torch")), &["identity.id-names-product"], &[]);
        of_launch(path, Some(json!("ORG.Example.Lan-ter_n")), &[], &[]);
    }
    for value in [None, Some(json!(true)), Some(json!(0)), Some(Value::Null)] {
        of_launch("/environment/inherit_user_shell", value, &["identity.hermetic"], &[]);
    }
    of_launch("/environment/path", Some(json!(["/bin", "/bin"])), &["identity.path-once"], &[]);
    of_launch("/environment/path", Some(json!(["/bin", "/bin/"])), &[], &[]);
    for value in [json!("/bin:/bin"), json!(7), json!([["/bin"]]), json!([{}])] {
        of_launch("/environment/path", Some(value), &["identity.list"], &[]);
    }
    for value in [None, Some(Value::Null), Some(json!("")), Some(json!([])), Some(json!({}))] {
        of_launch("/environment/path", value, &[], &[]);
    }
    of_launch("/environment/path", Some(json!([7, "/bin"])), &[], &["identity.path-of-text"]);
    let user = &["identity.path-of-user"];
    of_launch("/environment/path", Some(json!(["/nix/store/x/bin"])), &[], user);
    of_launch("/environment/path", Some(json!(["/opt/Homebrew/bin"])), &[], user);
    let variables = &["identity.tool-variables"];
    for value in
        [None, Some(Value::Null), Some(json!([])), Some(json!("NIX_PATH")), Some(json!({}))]
    {
        of_launch("/environment/denied_variables", value, &[], variables);
    }
    for value in [json!(7), json!([["NIX_PATH"]])] {
        let errors = &["identity.list"];
        of_launch("/environment/denied_variables", Some(value), errors, variables);
    }
    of_launch("/environment/denied_variables", Some(json!(["NIX_PATH"])), &[], variables);
    let policy = "/identity_invariants/profile_path_policy";
    of_launch(policy, Some(json!("It names Lantern.")), &[], &["identity.profile-path"]);
    of_launch(policy, Some(json!("It must not name more.")), &[], &[]);
    for value in [None, Some(Value::Null), Some(json!(7)), Some(json!([""]))] {
        of_launch(policy, value, &[], &["identity.profile-path"]);
    }
    let engine = "/bundle_identity/upstream_engine";
    of_launch(engine, Some(json!("anything")), &[], &["identity.upstream-engine"]);
    of_launch(engine, Some(json!(7)), &[], &["identity.upstream-engine"]);
    for value in [json!(""), Value::Null, json!(false), json!({})] {
        of_launch(engine, Some(value), &[], &[]);
    }

    let of_service = |path: &str, value: Option<Value>, errors: &[&str]| {
        let found = broken(&with(&service, path, value.clone()), &launch);
        assert_eq!(found.0, errors, "{path} = {value:?}");
    };
    of_service("/schema_version", None, &["identity.version"]);
    of_service("/display_name", Some(json!("Lamp")), &["identity.one-name"]);
    of_service("/service_id", Some(json!("org.example.lamp")), &["identity.id-names-product"]);
    of_service("/capabilities/denied", Some(json!([])), &["identity.denies-upstream-leak"]);
    of_service("/capabilities", None, &["identity.denies-upstream-leak"]);
}

#[test]
fn the_name_of_an_engine_on_a_surface_is_found_in_any_case_and_within_words() {
    let manifest = LaunchManifest::hermetic("MyGECKOview", "org.example.mygeckoview", "/opt/x");
    let launch = serde_json::to_value(manifest).unwrap();
    let service = with(&lantern(), "/display_name", Some(json!("MyGECKOview")));
    let service = with(&service, "/service_id", Some(json!("org.example.mygeckoview")));
    let (errors, _) = broken(&service, &launch);
    // Both names shown, the process, the launcher, the menu, the crash report and the helpers.
    assert_eq!(errors, ["identity.upstream-leak"; 7]);
    // Where engines may be named: ids and paths.
    let quiet =
        with(&lantern_launch(), "/entrypoint/absolute_path", Some(json!("/opt/webkit/run")));
    assert!(broken(&lantern(), &quiet).0.is_empty());
}

#[test]
fn an_example_that_holds_alone_can_fail_the_audit() {
    let leak = example("launch/invalid/lantern-shows-engine.launch-manifest.json");
    assert!(contracts::validate(&leak, &Options::default()).is_valid());
    let (errors, _) = broken(&lantern(), &leak);
    assert!(errors.contains(&"identity.upstream-leak".to_owned()), "{errors:?}");
}

proptest! {
    #[test]
    fn no_pair_whatever_makes_the_audit_panic(text in ".{0,12}", which in 0..6_usize) {
        let odd = [json!(null), json!([text]), json!({text.as_str(): 1}), json!(text), json!(7), json!(true)];
        let odd = &odd[which];
        prop_assert!(audit(odd, odd).status == AuditStatus::Fail);
        let launch = with(&lantern_launch(), "/environment", Some(odd.clone()));
        prop_assert!(audit(&lantern(), &launch).status == AuditStatus::Fail);
        let service = with(&lantern(), "/display_name", Some(odd.clone()));
        prop_assert!(audit(&service, &lantern_launch()).status == AuditStatus::Fail);
    }
}

// Processes.

fn tuple(name: &str) -> ProcessProvenance {
    let value = example(&format!("process-provenance/{name}.provenance.json"));
    Valid::<ProcessProvenance>::read(value).unwrap().into_inner()
}

#[test]
fn a_process_becomes_its_launch_and_if_seen_its_end() {
    let list = events(&tuple("backup-copy"), "2026-05-04T10:20:30Z");
    assert_eq!(list.len(), 2);
    let (exec, exit) = (&list[0], &list[1]);
    assert_eq!(exec["event_id"], "evt_backup_20260504");
    assert_eq!(exec["event_class"], "process.exec");
    assert_eq!(exec["actor"]["actor_id"], "actor_process_4711");
    assert_eq!(exec["actor"]["uid"], "user");
    assert_eq!(exec["subject"]["id"], "proc_4711");
    assert_eq!(exec["trust"]["attestation_state"], "missing");
    assert_eq!(exec["evidence"][0]["evidence_id"], "ev_process_provenance_process_exec");
    assert_eq!(exit["event_id"], "evt_backup_20260504_exit");
    assert_eq!(exit["causality"]["parent_event_id"], "evt_backup_20260504");
    assert_eq!(exit["causality"]["root_event_id"], exec["causality"]["root_event_id"]);
    assert_eq!(exit["causality"]["span_id"], "span_backup_copy_exit");
    assert_eq!(exit["evidence"][1]["raw_ref"], "process-provenance-tuple.exit");
    let summary = exit["evidence"][1]["summary"].as_str().unwrap();
    for said in ["observed=true", "exit_code=0", "signal=null", "runtime_ms=2140"] {
        assert!(summary.contains(said), "{summary}");
    }
}

#[test]
fn events_of_every_example_hold_under_the_contract_of_events() {
    for name in ["backup-copy", "nothing-known", "decoder-crash"] {
        for event in events(&tuple(name), "2026-05-04T10:20:30Z") {
            for contract in [&EVENT, &EVENT_LEGACY] {
                let options = Options { contract: Some(contract), ..Options::default() };
                let verdict = contracts::validate(&event, &options);
                assert!(verdict.is_valid(), "{name} {}: {:#?}", contract.name, verdict.errors);
            }
            // Observed is not judged: not even a crash raises severity or outcome.
            assert_eq!(event["severity"], "info");
            assert_eq!(event["outcome"], "allowed");
        }
    }
    assert_eq!(events(&tuple("nothing-known"), "2026-05-04T10:20:30Z").len(), 1);
    let unseen = events(&tuple("nothing-known"), "2026-05-04T10:20:30Z").remove(0);
    assert_eq!(unseen["causality"]["parent_event_id"], Value::Null);
}

#[test]
fn a_number_with_a_point_is_an_integer_to_a_schema_and_here_too() {
    let value = example("process-provenance/backup-copy.provenance.json");
    let value = with(&value, "/process_identity/pid", Some(json!(675.0)));
    let tuple = Valid::<ProcessProvenance>::read(value).unwrap();
    assert_eq!(events(&tuple, "2026-05-04T10:20:30Z").len(), 2);
}

// Incidents.

/// An event of a denial, the `n`-th.
fn denial(n: usize, actor: &str, tier: &str) -> Value {
    let mut event = example("events/policy-decision.expected-denial.json");
    event["event_id"] = json!(format!("evt_denial_{n}"));
    event["causality"]["root_event_id"] = json!("evt_denial_0");
    event["causality"]["parent_event_id"] = json!((n > 0).then(|| format!("evt_denial_{}", n - 1)));
    event["actor"]["actor_id"] = json!(actor);
    event["actor"]["actor_type"] = json!("service");
    event["privacy"]["tier"] = json!(tier);
    event
}

fn crash() -> Vec<Value> {
    events(&tuple("decoder-crash"), "2026-05-04T10:20:30Z")
}

fn other(class: &str, lane: &str, outcome: &str) -> Value {
    let mut event = example("events/process-exec.indexer.json");
    event["event_id"] = json!(format!("evt_{class}_{outcome}"));
    event["event_class"] = json!(class);
    event["lane"] = json!(lane);
    event["outcome"] = json!(outcome);
    event
}

#[test]
fn each_class_of_fault_becomes_a_bundle_and_nothing_else_does() {
    let storm: Vec<Value> = (0..25).map(|n| denial(n, "svc_indexer", "user_private")).collect();
    let wake = vec![other("power.wake", "power", "blocked_unexpected")];
    let mismatch = vec![other("app.identity_mismatch", "product_identity", "observed")];
    let parser = vec![other("parser.worker", "parser", "failed")];
    let calm = vec![
        other("power.wake", "power", "allowed"),
        other("parser.worker", "parser", "allowed"),
        denial(0, "svc_indexer", "user_private"),
        events(&tuple("backup-copy"), "2026-05-04T10:20:30Z").remove(1),
    ];
    let cases = [
        (IncidentClass::Crash, crash()),
        (IncidentClass::DenialStorm, storm),
        (IncidentClass::WakeAnomaly, wake),
        (IncidentClass::IdentityMismatch, mismatch),
        (IncidentClass::ParserFault, parser),
    ];
    for (class, faulty) in &cases {
        let mut all = calm.clone();
        all.extend(faulty.iter().cloned());
        let incident = build(*class, &all, NOW).unwrap();
        assert_eq!(incident.incident_class, *class);
        assert!(!incident.export_policy.exportable && incident.export_policy.requires_approval);
        let again = build(*class, &all, Timestamp(NOW.0 + 1)).unwrap();
        assert_eq!(incident.incident_id, again.incident_id, "the same events, the same incident");
        let words = explain(&incident).text();
        assert!(words.contains(&incident.summary) && words.contains("Next action:"), "{words}");
        let none = build(*class, &calm, NOW);
        assert!(matches!(none, Err(BuildError::NothingFound { looked_at: 4, .. })), "{class}");
    }
    assert_eq!(cases.len(), FROM_EVENTS.len());
    assert!(matches!(
        build(IncidentClass::Hang, &crash(), NOW),
        Err(BuildError::NotFromEvents(IncidentClass::Hang))
    ));
}

#[test]
fn a_crash_is_known_by_its_signal_though_its_event_alarms_nobody() {
    let incident = build(IncidentClass::Crash, &crash(), NOW).unwrap();
    let causes = &incident.causal_graph["suspected_causes"];
    assert_eq!(causes, &json!(["actor_process_4711 ended by signal SIGSEGV"]));
    assert_eq!(incident.causal_graph["root_event_id"], "evt_lantern_decode_17");
    // The launch that it follows from is in the graph, and the step from one to the other.
    let edges = incident.causal_graph["edges"].as_array().unwrap();
    assert!(
        edges.contains(
            &json!({"from": "evt_lantern_decode_17", "to": "evt_lantern_decode_17_exit"})
        )
    );
}

#[test]
fn a_storm_counts_what_was_suppressed_and_raises_no_risk() {
    let mut one = denial(0, "svc_indexer", "user_private");
    one["noise_control"] = json!({
        "event_fingerprint": "fp", "first_seen": "2026-05-04T10:00:00Z",
        "last_seen": "2026-05-04T13:00:00+02:00", "count": 480, "suppressed_count": 476,
        "coalesce_window_ms": 3_600_000,
    });
    let incident = build(IncidentClass::DenialStorm, &[one.clone()], NOW).unwrap();
    let counts = incident.resource_context.as_ref().unwrap();
    assert_eq!(counts["occurrences"], 480);
    assert_eq!(counts["suppressed_occurrences"], 476);
    assert_eq!(counts["first_seen"], "2026-05-04T10:00:00Z");
    assert_eq!(counts["last_seen"], "2026-05-04T13:00:00+02:00");
    let risk = one["operator_narrative"]["risk"].as_str().unwrap();
    assert_eq!(Some(incident.risk), Risk::from_word(risk));
    assert_eq!(incident.affected_services, ["svc_indexer"]);
}

/// A wake of the mail program, at a minute of 2026-05-04.
fn wake(minute: u64) -> Value {
    let mut event = example("events/power-wake.mail.json");
    event["event_id"] = json!(format!("evt_wake_{minute}"));
    event["causality"]["root_event_id"] = event["event_id"].clone();
    event["created_at"] = json!(format!("2026-05-04T{:02}:{:02}:00Z", minute / 60, minute % 60));
    event["outcome"] = json!("allowed");
    event["severity"] = json!("info");
    event.as_object_mut().unwrap().remove("noise_control");
    event
}

#[test]
fn wakes_of_one_cause_are_counted_over_events_and_within_an_hour() {
    let anomaly = |events: &[Value]| build(IncidentClass::WakeAnomaly, events, NOW);
    let each_minute: Vec<Value> = (0..59).map(wake).collect();
    let incident = anomaly(&each_minute).unwrap();
    assert_eq!(incident.resource_context.as_ref().unwrap()["occurrences"], 59);
    let each_hour: Vec<Value> = (0..20).map(|hour| wake(hour * 60)).collect();
    assert!(anomaly(&each_hour).is_err());
    let mut elsewhere = each_minute[..18].to_vec();
    for event in elsewhere.iter_mut().step_by(2) {
        event["host"]["host_id"] = json!("another");
    }
    assert!(anomaly(&elsewhere).is_err(), "two hosts are not one");
    let mut coalescer = Coalescer::new(Settings { window_ms: 3_600_000, ..Settings::default() });
    let mut folded = Vec::new();
    for event in &each_minute {
        coalescer.push(serde_json::from_value(event.clone()).unwrap(), &mut folded);
    }
    coalescer.finish(&mut folded);
    let folded: Vec<Value> =
        folded.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert_eq!(folded[0]["event_class"], "telemetry.coalesced");
    let incident = anomaly(&folded).unwrap();
    assert_eq!(incident.resource_context.as_ref().unwrap()["occurrences"], 59);
    // Kept beside what it stands for, it is not counted again.
    let few: Vec<Value> = each_minute[..6].to_vec();
    let mut coalescer = Coalescer::new(Settings { window_ms: 3_600_000, ..Settings::default() });
    let mut all = Vec::new();
    for event in &few {
        coalescer.push(serde_json::from_value(event.clone()).unwrap(), &mut all);
    }
    coalescer.finish(&mut all);
    let mut all: Vec<Value> =
        all.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    all.extend(few);
    assert!(anomaly(&all).is_err(), "six wakes are six");
}

#[test]
fn denials_are_a_storm_only_when_they_come_together() {
    let mut yearly: Vec<Value> = (0..20).map(|n| denial(n, "svc_a", "user_private")).collect();
    for (n, event) in yearly.iter_mut().enumerate() {
        event["created_at"] = json!(format!("{}-05-04T10:00:00Z", 2000 + n));
    }
    assert!(build(IncidentClass::DenialStorm, &yearly, NOW).is_err());
    let mut hosts: Vec<Value> = (0..30).map(|n| denial(n, "svc_a", "user_private")).collect();
    for event in hosts.iter_mut().step_by(2) {
        event["host"]["host_id"] = json!("another");
    }
    assert!(build(IncidentClass::DenialStorm, &hosts, NOW).is_err());
    let mut counted = denial(0, "svc_a", "user_private");
    counted["noise_control"] = json!({"count": 120.0, "suppressed_count": 116.0});
    let incident = build(IncidentClass::DenialStorm, &[counted], NOW).unwrap();
    let counts = incident.resource_context.as_ref().unwrap();
    assert_eq!(
        (&counts["occurrences"], &counts["suppressed_occurrences"]),
        (&json!(120), &json!(116))
    );
}

#[test]
fn two_quiet_services_make_no_storm_together() {
    let events: Vec<Value> = (0..30)
        .map(|n| denial(n, if n % 2 == 0 { "svc_a" } else { "svc_b" }, "user_private"))
        .collect();
    assert!(build(IncidentClass::DenialStorm, &events, NOW).is_err());
}

#[test]
fn a_bundle_is_as_private_as_its_most_private_event() {
    let mut storm: Vec<Value> =
        (0..25).map(|n| denial(n, "svc_indexer", "public_summary")).collect();
    let open = build(IncidentClass::DenialStorm, &storm, NOW).unwrap();
    assert_eq!(open.privacy.tier, "public_summary");
    storm[24]["privacy"]["tier"] = json!("sealed_secret");
    storm[24]["operator_narrative"]["summary"] = json!("the secret word is rosebud");
    let sealed = build(IncidentClass::DenialStorm, &storm, NOW).unwrap();
    assert_eq!(sealed.privacy.tier, "sealed_secret");
    assert_eq!(sealed.privacy.redaction_policy, "sealed");
    assert!(!sealed.to_value().to_string().contains("rosebud"));
    storm[24]["privacy"]["tier"] = json!("friends");
    let unknown = build(IncidentClass::DenialStorm, &storm, NOW).unwrap();
    assert_eq!(unknown.privacy.tier, "sealed_secret", "a tier that nobody knows is for nobody");
}

#[test]
fn a_bundle_stays_small_whatever_the_store_holds() {
    let storm: Vec<Value> = (0..5_000).map(|n| denial(n, "svc_indexer", "user_private")).collect();
    let incident = build(IncidentClass::DenialStorm, &storm, NOW).unwrap();
    assert_eq!(incident.causal_graph["events"].as_array().unwrap().len(), EVENTS_MAX);
    assert_eq!(incident.causal_graph["events_total"], 5_000);
    assert!(incident.to_value().to_string().len() < 200_000);
}

#[test]
fn an_incident_of_another_tool_is_explained_by_what_it_says() {
    let incident: Incident =
        serde_json::from_value(example("incidents/lantern-parser-fault.incident.json")).unwrap();
    let said = explain(&incident);
    assert_eq!(said.why.len(), 2);
    assert!(said.sharing.contains("must not leave"));
    let bare = with(
        &example("incidents/lantern-parser-fault.incident.json"),
        "/causal_graph",
        Some(json!({})),
    );
    let said = explain(&serde_json::from_value(bare).unwrap());
    assert_eq!(said.why.len(), 1);
    assert_eq!(said.root_event_id, None);
}

proptest! {
    #[test]
    fn no_events_whatever_make_a_bundle_that_does_not_hold(
        texts in prop::collection::vec(".{0,8}", 1..6),
        which in 0..FROM_EVENTS.len(),
    ) {
        let mut list = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            let mut event = denial(n, text, text);
            event["causality"]["parent_event_id"] = json!(format!("evt_denial_{}", (n + 1) % texts.len()));
            event["noise_control"]["count"] = json!(u64::MAX);
            event["outcome"] = json!("failed");
            event["event_class"] = json!(["process.exit", "power.wake", "parser.worker"][n % 3]);
            event["operator_narrative"]["risk"] = json!(text);
            list.push(event);
        }
        list.push(json!({"event_id": texts[0]}));
        list.push(json!([1]));
        match build(FROM_EVENTS[which], &list, NOW) {
            Ok(incident) => prop_assert!(!incident.incident_id.is_empty()),
            Err(error) => {
                let nothing = matches!(error, BuildError::NothingFound { .. });
                prop_assert!(nothing, "{}", error);
            }
        }
    }
}

// All together.

fn plane() -> ControlPlane {
    let definition = |name: &str| {
        let file = format!("capabilities/{name}.capability.json");
        (file.clone(), serde_json::from_value(example(&file)).unwrap())
    };
    let wanted = with(&lantern(), "/capabilities/optional", Some(json!([])));
    ControlPlane {
        services: vec![("lantern".to_owned(), service(wanted.clone()))],
        service_documents: [("lantern".to_owned(), wanted)].into(),
        capabilities: vec![
            definition("parser-image-spawn"),
            definition("filesystem-pictures-read"),
        ],
        launches: vec![("launch".to_owned(), lantern_launch())],
        incidents: vec![(
            "incident".to_owned(),
            serde_json::from_value(example("incidents/lantern-parser-fault.incident.json"))
                .unwrap(),
        )],
    }
}

#[test]
fn documents_that_fit_together_are_left_alone() {
    assert_eq!(misfits(&plane()), []);
}

#[test]
fn what_does_not_fit_together_is_named() {
    let check = |change: fn(&mut ControlPlane), rule: &str, path: &str| {
        let mut plane = plane();
        change(&mut plane);
        let found = misfits(&plane);
        let rules: Vec<(&str, &str)> =
            found.iter().map(|misfit| (&*misfit.finding.rule, &*misfit.finding.path)).collect();
        assert!(rules.contains(&(rule, path)), "{rules:?}");
    };
    check(
        |plane| {
            plane.capabilities.remove(0);
        },
        "control-plane.capability-defined",
        "/capabilities/required/1",
    );
    check(
        |plane| {
            plane.capabilities[0].1.compatible_authority_domains = Some(vec!["system".to_owned()]);
        },
        "control-plane.capability-fits-domain",
        "/capabilities/required/1",
    );
    check(
        |plane| plane.services.push(("again".to_owned(), plane.services[0].1.clone())),
        "control-plane.service-once",
        "/service_id",
    );
    check(
        |plane| plane.capabilities.push(("again".to_owned(), plane.capabilities[0].1.clone())),
        "control-plane.capability-once",
        "/capability",
    );
    check(
        |plane| plane.launches[0].1["display_name"] = json!("Torch"),
        "control-plane.app-has-launch",
        "/display_name",
    );
    check(
        |plane| plane.launches[0].1["environment"]["inherit_user_shell"] = json!(true),
        "identity.hermetic",
        "/environment/inherit_user_shell",
    );
    check(
        |plane| plane.incidents[0].1.affected_services.push("org.example.nobody".to_owned()),
        "control-plane.incident-service",
        "/affected_services/1",
    );
}

#[test]
fn what_a_builder_makes_holds_strictly_or_is_not_made() {
    let launch = LaunchManifest::hermetic("Lantern", "org.example.lantern", "/opt/lantern/lantern");
    assert!(Valid::new(launch.clone()).is_ok());
    let mut relative = launch;
    relative.entrypoint.absolute_path = "lantern".to_owned();
    assert!(Valid::new(relative).is_err());
    let owner = Owner { org: "example".into(), repo: "x".into(), team: None, extra: Map::new() };
    let mut made = ServiceManifest::new("org.example.x", "X", owner, AuthorityDomain::App);
    let unsaid = Valid::new(made.clone()).unwrap_err();
    assert!(unsaid.findings.iter().any(|finding| finding.rule == "service.requires-something"));
    made.capabilities.required.push("filesystem.x.read".into());
    made.data_classes.push("x".into());
    made.launch_triggers.push("user.launch".into());
    made.resource_budget.insert("memory_mb_soft".into(), json!(64));
    made.observability.health_endpoint = Some("unix:x/health".into());
    assert!(Valid::new(made).is_ok());
    let mut silent = service(lantern());
    assert!(Valid::new(silent.clone()).is_ok());
    silent.observability.health_endpoint = None;
    let error = Valid::new(silent).unwrap_err();
    assert_eq!(error.findings[0].rule, "service.health-endpoint");
    assert_eq!(error.contract, SERVICE.name);
}
