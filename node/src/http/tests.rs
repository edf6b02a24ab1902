//! Guards, routes and streams, over a node in memory.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use srcos_schemas::status::ReadyState;
use tower::ServiceExt as _;

use super::*;
use crate::memory::MemoryNode;

const ADDRESS: &str = "127.0.0.1:8765";

struct Face {
    app: Router,
    token: String,
    _dir: tempfile::TempDir,
}

/// The router as a loopback port shows it.
fn tcp() -> Face {
    let dir = tempfile::tempdir().unwrap();
    let token = Token::load_or_create(dir.path()).unwrap();
    let text = token.text().to_owned();
    let access = Access::Tcp(TcpAccess::new(ADDRESS.parse().unwrap(), token));
    let app = router(Arc::new(MemoryNode::new()), access, CancellationToken::new());
    Face { app, token: text, _dir: dir }
}

fn local() -> Router {
    router(Arc::new(MemoryNode::new()), Access::Local, CancellationToken::new())
}

async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

async fn document(response: Response<Body>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

async fn code(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let code = document(response).await["error"]["code"].as_str().unwrap().to_owned();
    (status, code)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    let builder =
        headers.iter().fold(builder, |builder, (key, value)| builder.header(*key, *value));
    builder.body(Body::from(body.to_owned())).unwrap()
}

fn put(path: &str, body: &str) -> Request<Body> {
    request("PUT", path, &[("content-type", "application/json")], body)
}

#[tokio::test]
async fn a_loopback_port_shows_only_the_public_summary_without_the_token() {
    let face = tcp();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let response = send(&face.app, request("GET", path, &[("host", ADDRESS)], "")).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
    let bearer = format!("Bearer {}", face.token);
    for path in ["/lanes", "/peers", "/lanes/normal/objects", "/changes", "/openapi.json", "/x"] {
        let bare = send(&face.app, request("GET", path, &[("host", ADDRESS)], "")).await;
        assert_eq!(bare.headers()["cache-control"], "no-store");
        assert_eq!(code(bare).await, (401, "token_required".to_owned()), "{path}");
        let wrong = [("host", ADDRESS), ("authorization", "Bearer wrong")];
        assert_eq!(send(&face.app, request("GET", path, &wrong, "")).await.status(), 401);
        let right = [("host", ADDRESS), ("authorization", &*bearer)];
        assert_ne!(send(&face.app, request("GET", path, &right, "")).await.status(), 401);
    }
}

#[tokio::test]
async fn a_host_that_is_not_this_listener_is_refused_even_for_public_routes() {
    let face = tcp();
    let ask = async |headers: &[(&str, &str)]| {
        send(&face.app, request("GET", "/healthz", headers, "")).await.status().as_u16()
    };
    for host in ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765"] {
        assert_eq!(ask(&[("host", host)]).await, 200, "{host}");
    }
    for host in
        ["evil.example", "evil.example:8765", "127.0.0.1", "localhost", "127.0.0.1:80", "[::1]", ""]
    {
        assert_eq!(ask(&[("host", host)]).await, 403, "{host}");
    }
    assert_eq!(ask(&[]).await, 403);
    assert_eq!(ask(&[("host", ADDRESS), ("host", "evil.example")]).await, 403);
    let absolute = request("GET", "http://evil.example/healthz", &[("host", ADDRESS)], "");
    assert_eq!(send(&face.app, absolute).await.status(), 403);
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let face = tcp();
    for (origin, status) in [
        ("http://127.0.0.1:8765", 200),
        ("http://localhost:8765", 403),
        ("https://127.0.0.1:8765", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ] {
        let headers = [("host", ADDRESS), ("origin", origin)];
        let response = send(&face.app, request("GET", "/healthz", &headers, "")).await;
        assert_eq!(response.status(), status, "{origin}");
        assert!(!response.headers().contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn what_only_the_owner_may_do_is_not_on_a_loopback_port() {
    let face = tcp();
    let bearer = format!("Bearer {}", face.token);
    let headers =
        [("host", ADDRESS), ("authorization", &*bearer), ("content-type", "application/json")];
    let response = send(&face.app, request("POST", "/admin/shutdown", &headers, "")).await;
    assert_eq!(code(response).await, (404, "route_unknown".to_owned()));
    let response = send(&local(), request("POST", "/admin/shutdown", &[], "")).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_write_needs_a_content_type_that_no_form_can_send() {
    let app = local();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [("content-type", content_type)];
        let response = send(&app, request("PUT", "/lanes/normal/objects/a", &headers, "{}")).await;
        let refused = (415, "content_type_unsupported".to_owned());
        assert_eq!(code(response).await, refused, "{content_type}");
    }
    let headers = [("content-type", "application/json; charset=utf-8")];
    let body = r#"{"body":1}"#;
    let response = send(&app, request("PUT", "/lanes/normal/objects/a", &headers, body)).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn ids_go_through_a_path_whatever_they_hold() {
    let app = local();
    let ids = ["a", "dir/file.txt", "/leading", "a//b", "ü ?#%&+", "..", "a/../b", ":batch", "\n"];
    for id in ids {
        let path = crate::client::object_path(srcos_lanes::lane::LaneId::Normal, id);
        let written = send(&app, put(&path, r#"{"body":{"n":1.0}}"#)).await;
        assert_eq!(written.status(), 200, "{id:?}");
        assert_eq!(document(written).await["id"], id);
        let read = document(send(&app, request("GET", &path, &[], "")).await).await;
        assert_eq!((&read["id"], &read["body"]), (&json!(id), &json!({"n": 1.0})));
    }
    let plain = send(&app, request("GET", "/lanes/normal/objects/dir/file.txt", &[], "")).await;
    assert_eq!(document(plain).await["id"], "dir/file.txt");
    let bad = send(&app, request("GET", "/lanes/normal/objects/%ff", &[], "")).await;
    assert_eq!(code(bad).await, (400, "path_invalid".to_owned()));
    let long = format!("/lanes/normal/objects/{}", "x".repeat(513));
    let long = send(&app, request("GET", &long, &[], "")).await;
    assert_eq!(code(long).await, (400, "id_invalid".to_owned()));
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let app = local();
    let cases = [
        (put("/lanes/none/objects/a", "{}"), 404, "lane_unknown"),
        (put("/lanes/normal/objects/a", "{\"body\":1,\"body\":2}"), 400, "json_duplicate_key"),
        (put("/lanes/normal/objects/a", "{}"), 400, "object_invalid"),
        (put("/lanes/normal/objects/a", "{\"body\":1,\"x\":2}"), 400, "object_invalid"),
        (put("/lanes/tombstone/objects/a", "{\"body\":1}"), 403, "lane_closed"),
        (request("GET", "/lanes/normal/objects?limit=0", &[], ""), 400, "limit_invalid"),
        (request("GET", "/lanes/normal/objects?limit=1001", &[], ""), 400, "limit_invalid"),
        (request("GET", "/lanes/normal/objects?lable=a", &[], ""), 400, "parameter_unknown"),
        (request("GET", "/lanes/normal/objects/a?x=1", &[], ""), 400, "query_invalid"),
        (request("GET", "/lanes/normal/objects/none", &[], ""), 404, "object_absent"),
        (request("DELETE", "/lanes/normal/objects/a", &[], ""), 400, "query_invalid"),
        (request("DELETE", "/lanes/normal/objects/a?reason=+", &[], ""), 400, "reason_missing"),
        (request("GET", "/changes?after=x", &[], ""), 400, "cursor_malformed"),
        (request("GET", "/changes?after=99", &[], ""), 400, "cursor_unknown"),
        (request("GET", "/changes", &[("last-event-id", "x")], ""), 400, "cursor_malformed"),
        (request("GET", "/changes", &[("last-event-id", "")], ""), 400, "cursor_malformed"),
        (request("GET", "/changes", &[("last-event-id", "99")], ""), 400, "cursor_unknown"),
        (
            request("GET", "/changes", &[("last-event-id", "0"), ("last-event-id", "0")], ""),
            400,
            "cursor_malformed",
        ),
        (request("GET", "/lanes/normal/objects?prefix=%ff", &[], ""), 400, "query_invalid"),
        (request("GET", "/lanes/normal/objects?prefix=a%C3", &[], ""), 400, "query_invalid"),
        (request("DELETE", "/lanes/normal/objects/a?reason=%ff", &[], ""), 400, "query_invalid"),
        (request("GET", "/none", &[], ""), 404, "route_unknown"),
        (request("POST", "/lanes", &[], ""), 405, "method_not_allowed"),
    ];
    for (request, status, expected) in cases {
        let asked = format!("{} {}", request.method(), request.uri());
        let response = send(&app, request).await;
        assert_eq!(code(response).await, (status, expected.to_owned()), "{asked}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_limit_and_size() {
    let app = local();
    let over = format!("{{\"body\":\"{}\"}}", "x".repeat(1 << 20));
    let response = send(&app, put("/lanes/normal/objects/a", &over)).await;
    assert_eq!(response.status(), 413);
    let message = document(response).await["error"]["message"].to_string();
    assert!(message.contains("1048578 bytes") && message.contains("1048576 bytes"), "{message}");
    let far_over = format!("{{\"body\":\"{}\"}}", "x".repeat(2 << 20));
    let response = send(&app, put("/lanes/normal/objects/a", &far_over)).await;
    assert_eq!(response.status(), 413);
    let deep = format!("{{\"body\":{}1{}}}", "[".repeat(128), "]".repeat(128));
    assert_eq!(send(&app, put("/lanes/normal/objects/a", &deep)).await.status(), 200);
    let deep = format!("{{\"body\":{}1{}}}", "[".repeat(129), "]".repeat(129));
    let response = send(&app, put("/lanes/normal/objects/a", &deep)).await;
    assert_eq!(code(response).await, (400, "json_too_deep".to_owned()));
}

#[tokio::test]
async fn a_write_can_be_conditional_on_the_entity_tag() {
    let app = local();
    let path = "/lanes/normal/objects/a";
    let write = async |condition: (&str, &str), body: &str| {
        let headers = [("content-type", "application/json"), condition];
        send(&app, request("PUT", path, &headers, body)).await
    };
    let created = write(("if-none-match", "*"), "{\"body\":1}").await;
    assert_eq!(
        (created.status().as_u16(), &created.headers()[CHANGED_HEADER]),
        (200, &"true".parse().unwrap())
    );
    let tag = created.headers()["etag"].to_str().unwrap().to_owned();
    let again = write(("if-none-match", "*"), "{\"body\":1}").await;
    assert_eq!(code(again).await, (412, "heads_differ".to_owned()));
    let same = write(("if-match", &tag), "{\"body\":1}").await;
    assert_eq!(same.headers()[CHANGED_HEADER], "false");
    assert_eq!(write(("if-match", &tag), "{\"body\":2}").await.status(), 200);
    let late = write(("if-match", &tag), "{\"body\":3}").await;
    assert_eq!(code(late).await, (412, "heads_differ".to_owned()));
    for malformed in ["*", "abc", "\"\"", "\"x\"", "W/\"ab\""] {
        let response = write(("if-match", malformed), "{\"body\":3}").await;
        assert_eq!(code(response).await, (400, "condition_malformed".to_owned()), "{malformed}");
    }
}

#[tokio::test]
async fn a_batch_takes_a_document_or_lines_and_names_the_place_of_a_fault() {
    let app = local();
    let path = "/lanes/normal/objects:batch";
    let json = [("content-type", "application/json")];
    let lines = [("content-type", "application/x-ndjson")];
    let ops = json!({"ops": [{"op":"put","id":"a","body":{"n":1}}, {"op":"delete","id":"a","reason":"r"}]});
    let done = send(&app, request("POST", path, &json, &ops.to_string())).await;
    assert_eq!(document(done).await, json!({"ops": 2, "changed": 2}));
    let text = "{\"id\":\"b\",\"body\":1}\n\n{\"id\":\"c\",\"body\":2}\n";
    let done = send(&app, request("POST", path, &lines, text)).await;
    assert_eq!(document(done).await, json!({"ops": 2, "changed": 2}));
    let text = "{\"id\":\"d\",\"body\":1}\n{\"id\":\"\",\"body\":2}\n";
    let fault = document(send(&app, request("POST", path, &lines, text)).await).await;
    assert_eq!(
        (&fault["error"]["code"], &fault["error"]["path"]),
        (&json!("id_invalid"), &json!("ops/1"))
    );
    let many = "{\"id\":\"e\",\"body\":1}\n".repeat(1001);
    let response = send(&app, request("POST", path, &lines, &many)).await;
    assert_eq!(code(response).await, (413, "batch_too_large".to_owned()));
}

#[tokio::test]
async fn readiness_decides_the_status() {
    for (ready, status) in
        [(ReadyState::Degraded, 200), (ReadyState::Unsafe, 503), (ReadyState::Unknown, 503)]
    {
        let mut node = MemoryNode::new();
        node.ready = ready;
        let app = router(Arc::new(node), Access::Local, CancellationToken::new());
        let response = send(&app, request("GET", "/readyz", &[], "")).await;
        assert_eq!(response.status(), status, "{ready:?}");
    }
}

#[tokio::test]
async fn every_operation_of_the_description_is_there() {
    let app = local();
    send(&app, put("/lanes/normal/objects/x", "{\"body\":1}")).await;
    for operation in openapi::OPERATIONS {
        let path = operation.path.replace("{lane}", "normal").replace("{id}", "x");
        let method = operation.method.to_uppercase();
        let response = send(&app, request(&method, &path, &[], "")).await;
        // Without its body or parameters it may be refused, but not for being unknown.
        let status = response.status().as_u16();
        assert!(matches!(status, 200 | 400 | 415), "{method} {path}: {status}");
    }
}

#[tokio::test]
async fn changes_arrive_once_in_order_and_resume_after_a_cursor() {
    let client = crate::client::Client::direct(Arc::new(MemoryNode::new()));
    let lane = srcos_lanes::lane::LaneId::Normal;
    let lines = |range: std::ops::Range<u32>| {
        range.map(|n| format!("{{\"id\":\"{n}\",\"body\":{n}}}\n")).collect::<String>()
    };
    client.batch_lines(lane, lines(0..200).into()).await.unwrap();
    let mut changes = client.changes(Some("50"), None).await.unwrap();
    let mut seen = Vec::new();
    for _ in 50..200 {
        seen.push(changes.next().await.unwrap().unwrap().id);
    }
    let wanted: Vec<String> = (50..200).map(|n| n.to_string()).collect();
    assert_eq!(seen, wanted);
    // The stream waits now; what is written next arrives, in the lane asked for only.
    let mut memory = client.changes(None, Some(srcos_lanes::lane::LaneId::Memory)).await.unwrap();
    client.batch_lines(lane, lines(300..301).into()).await.unwrap();
    client.batch_lines(srcos_lanes::lane::LaneId::Memory, lines(301..302).into()).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().id, "300");
    assert_eq!(changes.next().await.unwrap().unwrap().id, "301");
    assert_eq!(memory.next().await.unwrap().unwrap().id, "301");
}

#[tokio::test]
async fn who_follows_one_lane_hears_where_it_stands_while_others_are_passed_over() {
    let app = local();
    for n in 0..200 {
        send(&app, put(&format!("/lanes/normal/objects/{n}"), r#"{"body": 1}"#)).await;
    }
    let follow = request("GET", "/changes?after=0&lane=memory", &[], "");
    let mut body = send(&app, follow).await.into_body();
    let mut heard = String::new();
    while !heard.contains("id: 200") {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame());
        let frame = frame.await.expect("a sign of life").unwrap().unwrap();
        heard.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    assert!(!heard.contains("data:"), "{heard}");
}

#[tokio::test]
async fn reader_that_comes_back_goes_on_after_the_last_event_that_it_saw() {
    let node: Arc<MemoryNode> = Arc::new(MemoryNode::new());
    let client = crate::client::Client::direct(node.clone());
    let app = router(node, Access::Local, CancellationToken::new());
    let lines: String = (0..20).map(|n| format!("{{\"id\":\"{n}\",\"body\":{n}}}\n")).collect();
    client.batch_lines(srcos_lanes::lane::LaneId::Normal, lines.into()).await.unwrap();
    for (path, seen, starts) in [
        ("/changes", "5", "5"),
        // A reader that reconnects by itself repeats its first address.
        ("/changes?after=0", "7", "7"),
        ("/changes?after=9", "7", "9"),
    ] {
        let response = send(&app, request("GET", path, &[("last-event-id", seen)], "")).await;
        assert_eq!(response.status(), 200, "{path}");
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(format!("retry: 1000\nid: {starts}\n").as_bytes()), "{first:?}");
        let next = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let wanted = starts.parse::<u64>().unwrap() + 1;
        assert!(next.starts_with(format!("id: {wanted}\n").as_bytes()), "{next:?}");
    }
}

#[tokio::test]
async fn a_daemon_is_reached_through_its_socket_and_leaves_none_behind() {
    let dir = tempfile::tempdir().unwrap();
    assert!(crate::client::Client::of_daemon(dir.path()).await.unwrap().is_none());
    let (listener, file) = bind_unix(dir.path()).unwrap();
    let path = dir.path().join(SOCKET_FILE);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(bind_unix(dir.path()), Err(ServeError::InUse(_))));
    let stop = CancellationToken::new();
    let app = router(Arc::new(MemoryNode::new()), Access::Local, stop.clone());
    let serving = tokio::spawn(serve_unix(listener, app, stop.clone()));

    let client = crate::client::Client::of_daemon(dir.path()).await.unwrap().unwrap();
    let lane = srcos_lanes::lane::LaneId::Normal;
    let mut changes = client.changes(None, None).await.unwrap();
    client.batch_lines(lane, "{\"id\":\"a\",\"body\":1}\n".into()).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().id, "a");
    let object = client.get_object(lane, "a", crate::api::Detail::default()).await.unwrap();
    assert_eq!(object.body, 1);

    stop.cancel();
    serving.await.unwrap();
    assert!(changes.next().await.unwrap().is_none(), "a shutdown ends the streams");
    drop(file);
    assert!(!path.exists());
}

#[tokio::test]
async fn connections_without_a_token_make_room_for_others() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let dir = tempfile::tempdir().unwrap();
    let token = Token::load_or_create(dir.path()).unwrap();
    let bearer = token.text().to_owned();
    let (listener, address) = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let access = Access::Tcp(TcpAccess::new(address, token));
    let stop = CancellationToken::new();
    let app = router(Arc::new(MemoryNode::new()), access, stop.clone());
    let serving = tokio::spawn(serve_tcp(listener, app, stop.clone()));
    let text =
        format!("GET /lanes HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {bearer}\r\n\r\n");
    let ask = async |stream: &mut tokio::net::TcpStream| {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    };
    // One that has shown the token stays, whatever comes after it.
    let mut known = tokio::net::TcpStream::connect(address).await.unwrap();
    ask(&mut known).await;
    let mut halves = Vec::new();
    for _ in 0..CONNECTIONS_MAX + 100 {
        let mut half = tokio::net::TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /lanes HTTP/1.1\r\nhost:").await.unwrap();
        halves.push(half);
    }
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        ask(&mut stream).await;
    });
    answer.await.expect("it is answered while others say nothing");
    let mut rest = [0; 1];
    let gone = tokio::time::timeout(std::time::Duration::from_secs(10), halves[0].read(&mut rest));
    assert!(matches!(gone.await.unwrap(), Ok(0) | Err(_)), "the oldest made room");
    // What it was still being sent is read first.
    let mut answer = vec![0; 64 << 10];
    assert!(known.read(&mut answer).await.unwrap() > 0);
    ask(&mut known).await;
    drop(halves);
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(SOCKET_FILE);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(crate::client::Client::of_daemon(dir.path()).await.unwrap().is_none());
    let (_listener, _file) = bind_unix(dir.path()).unwrap();
}

#[tokio::test]
async fn only_loopback_addresses_are_served() {
    for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let refused = bind_tcp(address.parse().unwrap()).await;
        assert!(matches!(refused, Err(ServeError::NotLoopback(_))), "{address}");
    }
    let (_listener, bound) = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert_ne!(bound.port(), 0);
}
