//! The HTTP interface of a running daemon, over TCP with its token.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::binary::eventually;
use crate::caller::Caller;
use crate::process::{Node, place};

const ARGS: [&str; 5] =
    ["--no-mdns", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];

const JSON: (&str, &str) = ("content-type", "application/json");

fn token(node: &Node) -> String {
    let token = std::fs::read_to_string(node.dir.join("http.token")).expect("there is a token");
    format!("Bearer {}", token.trim())
}

fn with_token(node: &Node) -> Caller {
    let caller = Caller::tcp(node.http()).expect("the daemon listens");
    caller.set("authorization", &token(node))
}

#[test]
fn only_public_routes_answer_without_the_token() {
    let place = place();
    let node = Node::start(place.path(), "n", &ARGS);
    let mut nobody = Caller::tcp(node.http()).unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        nobody.get(path).is(200);
    }
    for path in ["/lanes", "/lanes/normal", "/lanes/normal/objects", "/peers", "/changes"] {
        nobody.get(path).refused(401, "token_required");
    }
    let put = nobody.ask("PUT", "/lanes/normal/objects/x", &[JSON], r#"{"body":1}"#).unwrap();
    put.refused(401, "token_required");
    let mut wrong = Caller::tcp(node.http()).unwrap().set("authorization", "Bearer 0000");
    wrong.get("/lanes").refused(401, "token_required");
    // What only the owner's socket serves does not exist here, with the token or without.
    with_token(&node).get("/admin/status").is(404);
    let lanes = with_token(&node).get("/lanes").is(200);
    assert_eq!(lanes.header("cache-control"), Some("no-store"));
    assert_eq!(lanes.json()["lanes"].as_array().map(Vec::len), Some(11));

    use std::os::unix::fs::PermissionsExt as _;
    for file in ["http.token", "device.key", "node.sock"] {
        let mode =
            std::fs::metadata(node.dir.join(file)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is the owner's alone");
    }
}

#[test]
fn other_hosts_and_origins_are_refused_even_with_the_token() {
    let place = place();
    let node = Node::start(place.path(), "n", &ARGS);
    let port = node.http().port();
    with_token(&node).set("host", "evil.example").get("/lanes").refused(403, "host_refused");
    let other_port = format!("127.0.0.1:{}", port ^ 1);
    with_token(&node).set("host", &other_port).get("/healthz").refused(403, "host_refused");
    with_token(&node).set("host", &format!("localhost:{port}")).get("/lanes").is(200);
    for origin in ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"] {
        with_token(&node).set("origin", origin).get("/lanes").refused(403, "origin_refused");
    }
    let own = format!("http://127.0.0.1:{port}");
    with_token(&node).set("origin", &own).get("/lanes").is(200);
    // A form in a page can send this type without asking.
    let text = [("content-type", "text/plain")];
    let mut caller = with_token(&node);
    let put = caller.ask("PUT", "/lanes/normal/objects/x", &text, r#"{"body":1}"#).unwrap();
    put.refused(415, "content_type_unsupported");
}

#[test]
fn entity_tags_give_compare_and_set() {
    let place = place();
    let node = Node::start(place.path(), "n", &ARGS);
    let mut caller = with_token(&node);
    let path = "/lanes/normal/objects/folder%2Fnote%20%C3%A9";
    let absent = [JSON, ("if-none-match", "*")];
    let made = caller.ask("PUT", path, &absent, r#"{"body":{"n":1}}"#).unwrap().is(200);
    assert_eq!(made.json()["id"], "folder/note é");
    let tag = made.header("etag").expect("an object has a tag").to_owned();
    assert_eq!(caller.get(path).is(200).header("etag"), Some(tag.as_str()));
    let again = caller.ask("PUT", path, &absent, r#"{"body":{"n":2}}"#).unwrap();
    again.refused(412, "heads_differ");

    let matching = [JSON, ("if-match", tag.as_str())];
    let second = caller.ask("PUT", path, &matching, r#"{"body":{"n":2}}"#).unwrap().is(200);
    assert_ne!(second.header("etag"), Some(tag.as_str()));
    for (method, target) in [("PUT", path.to_owned()), ("DELETE", format!("{path}?reason=old"))] {
        let late = caller.ask(method, &target, &matching, r#"{"body":{"n":3}}"#).unwrap();
        late.refused(412, "heads_differ");
    }
    let patch = [("content-type", "application/merge-patch+json")];
    let patched = caller.ask("PATCH", path, &patch, r#"{"body":{"m":1}}"#).unwrap().is(200);
    assert_eq!(patched.json()["body"], json!({"n": 2, "m": 1}));
    let typed = r#"{"types":{"/n":"counter"},"add":{"/n":5}}"#;
    let patched = caller.ask("PATCH", path, &patch, typed).unwrap().is(200).json();
    assert_eq!((&patched["body"]["n"], &patched["types"]), (&json!(7), &json!({"/n": "counter"})));
    let list = r#"{"body":{"l":[1]},"types":{"/l/0":"counter"}}"#;
    caller.ask("PATCH", path, &patch, list).unwrap().refused(400, "content_invalid");
    caller.ask("DELETE", path, &[], "").unwrap().is(400);
    caller.ask("DELETE", &format!("{path}?reason=done"), &[], "").unwrap().is(200);
    caller.get(path).refused(404, "object_hidden");
    caller.get("/lanes/nolane/objects/x").refused(404, "lane_unknown");
    caller.get("/lanes/normal/objects?limit=0").refused(400, "limit_invalid");
}

#[test]
fn batch_is_applied_whole_or_not_at_all() {
    let place = place();
    let node = Node::start(place.path(), "n", &ARGS);
    let mut caller = with_token(&node);
    let mut batch = |ops: Value| {
        let body = json!({ "ops": ops }).to_string();
        caller.ask("POST", "/lanes/normal/objects:batch", &[JSON], &body).unwrap()
    };
    let bad = batch(json!([
        {"op": "put", "id": "one", "body": 1},
        {"op": "put", "id": "", "body": 2},
    ]));
    assert_eq!(bad.refused(400, "id_invalid").json()["error"]["path"], "ops/1");
    let bad = batch(json!([
        {"op": "put", "id": "one", "body": 1},
        {"op": "delete", "id": "nothing", "reason": "x"},
    ]));
    bad.is(404);
    assert_eq!(node.live("normal"), 0);
    let good =
        batch(json!([{"op": "put", "id": "a", "body": 1}, {"op": "put", "id": "b", "body": 2}]));
    assert_eq!(good.is(200).json(), json!({"ops": 2, "changed": 2}));
    assert_eq!(node.live("normal"), 2);
}

#[test]
fn changes_are_followed_and_resumed_across_a_restart() {
    let place = place();
    let mut node = Node::start(place.path(), "n", &ARGS);
    node.put("normal", "a", &json!(1));
    node.put("memory", "m", &json!(1));
    let mut events = with_token(&node).follow("/changes?after=0&lane=normal");
    let first = events.next().expect("a change");
    assert_eq!((&first["id"], &first["op"]), (&json!("a"), &json!("put")));
    // One that comes while somebody waits.
    node.put("normal", "b", &json!(2));
    let second = events.next().expect("a change");
    assert_eq!(second["id"], "b");
    node.terminate();
    assert_eq!(events.next(), None, "a stream ends with the daemon");
    assert_eq!(node.ended(), 0);

    node.run();
    node.cli(&["delete", "normal", "a", "--reason", "test"]).is(0);
    let cursor = second["cursor"].as_str().expect("a change has a cursor");
    let mut events = with_token(&node).follow(&format!("/changes?after={cursor}&lane=normal"));
    let third = events.next().expect("a change");
    assert_eq!((&third["id"], &third["op"]), (&json!("a"), &json!("delete")));
    with_token(&node).get("/changes?after=x").refused(400, "cursor_malformed");
}

#[test]
fn metrics_are_prometheus_text_and_count() {
    let place = place();
    let node = Node::start(place.path(), "n", &ARGS);
    node.put("normal", "a", &json!(1));
    let metrics = || Caller::tcp(node.http()).unwrap().get("/metrics").is(200).body;
    let text = metrics();
    let mut typed = BTreeSet::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_owned()), "{name} is declared twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            let name = series.split('{').next().unwrap_or_default();
            assert!(typed.contains(name), "{name} has no type");
            assert!(series.contains('{') == series.ends_with('}'), "{line}");
            value.parse::<f64>().unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    assert!(!typed.is_empty());
    let counts = |text: &str| {
        let line =
            text.lines().find(|line| line.contains("lane=\"normal\"") && line.ends_with(" 1"));
        line.is_some().then_some(())
    };
    eventually("the object is counted", || counts(&metrics()));
}

#[test]
fn every_route_that_is_described_is_served() {
    let place = place();
    let node = Node::start(place.path(), "n", &ARGS);
    node.put("normal", "x", &json!(1));
    let described = with_token(&node).get("/openapi.json").is(200).json();
    assert!(described["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let paths = described["paths"].as_object().expect("paths is an object");
    let wanted = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/lanes",
        "/lanes/{lane}",
        "/lanes/{lane}/objects",
        "/lanes/{lane}/objects/{id}",
        "/lanes/{lane}/objects:batch",
        "/changes",
        "/peers",
    ];
    for path in wanted {
        assert!(paths.contains_key(path), "{path} is not described");
    }
    for (path, operations) in paths {
        let target = path.replace("{lane}", "normal").replace("{id}", "x");
        let operations = operations.as_object().expect("operations is an object");
        for method in operations.keys().filter(|method| *method != "parameters") {
            if path == "/changes" {
                with_token(&node).follow(&format!("{target}?after=0"));
                continue;
            }
            let method = method.to_uppercase();
            let answer = with_token(&node).ask(&method, &target, &[JSON], "").unwrap();
            assert!(![404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
        }
        let unknown = with_token(&node).ask("TRACE", &target, &[], "").unwrap();
        assert_eq!(unknown.status, 405, "{path}");
    }
}
