//! Who belongs, as people meet it: devices that leave, are put out, come back, or go elsewhere.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use srcos_lanes::ids::{DeviceId, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_node::keys::DeviceKey;
use srcos_node::transport::{Config, Event, spawn as spawn_transport};
use srcos_replication::roster::Roster;
use srcos_replication::ticket::Ticket;
use srcos_replication::wire::{Assembler, Hello, Message, PROTOCOL_VERSION, frames};

use crate::binary::{Running, binary, eventually};
use crate::process::{ALONE, Node, converge, invite, pair, pair_of, place};

const MINUTE: Duration = Duration::from_secs(60);

/// What a command says to a person: standard output, and standard error.
fn words(node: &Node, args: &[&str]) -> (String, String) {
    let output = Command::new(binary()).arg("--data-dir").arg(&node.dir).args(args).output();
    let output = output.expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn ticket(inviter: &Node) -> String {
    invite(inviter)["ticket"].as_str().expect("an invitation has a ticket").to_owned()
}

/// Who belongs, by the words of one device: each id, and what it is.
fn members(node: &Node) -> Vec<(String, String)> {
    let peers = node.cli(&["peers"]).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let peers = peers["peers"].as_array().expect("peers is a list");
    peers.iter().map(|peer| (text(&peer["device"]), text(&peer["membership"]))).collect()
}

fn is_revoked(node: &Node, device: &str) -> bool {
    members(node).contains(&(device.to_owned(), "revoked".to_owned()))
}

fn codes(status: &Value) -> Vec<&str> {
    let found = status["diagnosis"].as_array().expect("diagnosis is a list");
    found.iter().filter_map(|found| found["code"].as_str()).collect()
}

/// It did: what it wrote there built on entries of the mesh that it came from, and waited for ever.
#[test]
fn device_that_left_a_mesh_takes_its_store_into_no_other() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    let other = Node::start(place.path(), "other", &ALONE);
    a.put("normal", "x", &json!({"a": 1}));
    b.shows("normal", "x", &json!({"a": 1}));
    b.put("normal", "x", &json!({"a": 1, "b": 2}));
    a.shows("normal", "x", &json!({"a": 1, "b": 2}));
    b.cli(&["pair", "join", &ticket(&other)]).refused(4, "already_in_a_mesh");

    // To leave is said twice.
    let leave = ["peers", "revoke", b.device(), "--reason", "moves"];
    b.cli(&leave).refused(2, "revokes_itself");
    b.cli(&[&leave[..], &["--leave"]].concat()).is(0);
    eventually("the other knows that it left", || is_revoked(&a, b.device()).then_some(()));
    b.cli(&["pair", "join", &ticket(&other)]).refused(4, "store_of_another_mesh");
    let code = invite(&other)["code"].as_str().unwrap_or_default().to_owned();
    let by_code = ["pair", "join", &code, "--addr", &other.address()];
    b.cli(&by_code).refused(4, "store_of_another_mesh");
    assert_eq!(members(&other).len(), 1, "nobody was admitted and then lost");

    // It says that it is out, and its objects go the way that the error names.
    let status = b.cli(&["status"]).json();
    assert_eq!(codes(&status), ["device_revoked"], "{status}");
    let fresh = Node::start(place.path(), "fresh", &ALONE);
    let lines = b.cli(&["export", "normal"]).is(0).out.clone();
    fresh.cli_with(&["import", "normal", "-"], lines.as_bytes()).is(0);
    pair(&other, &fresh);
    other.shows("normal", "x", &json!({"a": 1, "b": 2}));
}

#[test]
fn revoked_device_says_so_and_comes_back_with_a_ticket_of_its_mesh() {
    let place = place();
    let (a, mut b) = pair_of(place.path(), &ALONE);
    let http = ["--no-mdns", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--http", "127.0.0.1:0"];
    b.stop();
    b.set_args(&[&http[..], &["--peer", &a.address()]].concat());
    b.run();
    converge(&[&a, &b], MINUTE);
    b.put("normal", "before", &json!(1));
    a.shows("normal", "before", &json!(1));
    let out = words(&b, &["put", "normal", "said", "1"]);
    assert!(!out.1.contains("no member"), "{out:?}");

    a.cli(&["peers", "revoke", b.device(), "--reason", "looked lost"]).is(0);
    let what = format!("it learns of it\n{}", b.log());
    eventually(&what, || is_revoked(&b, b.device()).then_some(()));
    let knows = |b: &Node| {
        let status = b.cli(&["status"]).json();
        assert_eq!(codes(&status), ["device_revoked"], "{status}");
        assert_eq!(status["readiness"]["state"], "degraded", "{status}");
        let message = status["diagnosis"][0]["message"].as_str().unwrap_or_default();
        assert!(message.contains("revoked by laptop"), "{status}");
        assert!(message.contains("looked lost"), "{status}");
        let ready = b.caller().get("/readyz").is(200).json();
        assert_eq!(ready["state"], "degraded", "{ready}");
        let (out, _) = words(b, &["peers"]);
        assert!(out.contains("this device, revoked"), "{out}");
    };
    knows(&b);
    // Also after a restart, without asking anybody.
    b.stop();
    b.set_args(&http);
    b.run();
    knows(&b);
    b.cli(&["pair", "invite", "--no-wait"]).refused(4, "device_revoked");
    let list = place.path().join("list.jsonl");
    std::fs::write(&list, "{\"id\": \"listed\", \"body\": 1}\n").expect("it can be written");
    let folder = place.path().join("folder");
    std::fs::create_dir(&folder).expect("it can be made");
    let [list, folder] = [list, folder].map(|path| path.display().to_string());
    for write in [
        &["put", "normal", "between", "2"][..],
        &["patch", "normal", "between", "3"],
        &["delete", "normal", "said", "--reason", "test"],
        &["import", "normal", &list],
        &["index", &folder],
    ] {
        let (out, err) = words(&b, write);
        assert_eq!(err.matches("no member").count(), 1, "{err}");
        assert!(!out.contains("peers follow"), "{out}");
    }

    // A code does not say of which mesh it is.
    let shown = invite(&a);
    let code = shown["code"].as_str().expect("an invitation has a code");
    let by_code = b.cli(&["pair", "join", code, "--addr", &a.address()]);
    let error = by_code.refused(4, "store_of_another_mesh");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("ticket")), "{error}");
    let joined = b.cli(&["pair", "join", shown["ticket"].as_str().unwrap_or_default()]).json();
    assert_eq!(joined["state"], "joined", "{joined}");
    assert!(!is_revoked(&b, b.device()) && !is_revoked(&a, b.device()));
    a.shows("normal", "between", &json!(3));
    a.hides("normal", "said");
    a.put("normal", "after", &json!(4));
    b.shows("normal", "after", &json!(4));
    converge(&[&a, &b], MINUTE);
    assert_eq!(codes(&b.cli(&["status"]).json()), Vec::<&str>::new());
    let ready = b.caller().get("/readyz").is(200).json();
    assert_eq!(ready["state"], "healthy", "{ready}");
    a.verifies();
    b.verifies();
}

#[test]
fn names_and_reasons_that_cannot_be_are_bad_input() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    for name in ["", "two\nlines", &"x".repeat(200)] {
        a.cli(&["peers", "rename", "laptop", "--", name]).refused(2, "name_invalid");
    }
    a.cli(&["peers", "rename", "laptop", "kitchen"]).is(0);
    assert_eq!(a.cli(&["peers"]).json()["peers"][0]["name"], "kitchen");
}

#[test]
fn invitation_ends_with_the_command_that_waits_for_it() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    let b = Node::start(place.path(), "desktop", &ALONE);
    for signal in ["-TERM", "-HUP", "-KILL"] {
        let mut waiting = Command::new(binary());
        waiting.arg("--json").arg("--data-dir").arg(&a.dir).args(["pair", "invite"]);
        waiting.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut waiting = Running(waiting.spawn().expect("the binary starts"));
        let mut line = String::new();
        let out = waiting.0.stdout.take().expect("it is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let shown: Value = serde_json::from_str(&line).expect("the first line is the invitation");
        let id = waiting.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        eventually("it ends", || waiting.0.try_wait().ok().flatten());
        // Whoever is told to end says so; who is killed cannot, and is missed.
        let path = format!("/admin/pair/invites/{}", shown["id"].as_str().unwrap_or_default());
        if signal == "-KILL" {
            eventually("it is missed", || {
                a.log().contains("nobody waits for the invitation").then_some(())
            });
        }
        let status = a.caller().get(&path).is(200).json();
        assert_eq!(status["state"], "cancelled", "{signal}: {status}");
        let code = shown["code"].as_str().expect("an invitation has a code");
        b.cli(&["pair", "join", code, "--addr", &a.address()]).refused(4, "invite_closed");
    }
}

#[test]
fn join_that_cannot_find_anybody_is_refused_at_once_and_one_that_can_says_what_it_does() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    let b = Node::start(place.path(), "desktop", &ALONE);
    let shown = invite(&a);
    let code = shown["code"].as_str().expect("an invitation has a code");
    b.cli(&["pair", "join", code]).refused(2, "inviter_nowhere_to_look");
    let (out, err) = words(&b, &["pair", "join", code, "--addr", &a.address()]);
    assert!(out.contains("joined mesh"), "{out} {err}");
    assert!(err.contains("looking for") || err.contains("connecting to"), "{err}");
}

/// A stranger who speaks the protocol of members, and even knows the mesh, which a ticket tells.
#[test]
fn stranger_who_speaks_the_sync_protocol_hears_not_even_the_names_of_lanes() {
    let place = place();
    let (a, _b) = pair_of(place.path(), &ALONE);
    a.put("normal", "private", &json!("for members"));
    let ticket: Ticket = ticket(&a).parse().expect("a ticket can be read");
    let device: DeviceId = a.device().parse().expect("the ready line names the device");
    let key = |n: u8| DeviceKey::from_seed([n; 32]);
    let own = Roster::found("stranger", [6; 16], WallMillis(1), key(60).signing()).unwrap();
    let hello = Message::Hello(Hello {
        version: PROTOCOL_VERSION,
        mesh: ticket.mesh,
        lanes: LaneId::ALL.into(),
        roster: Vec::new(),
        credit: u32::MAX,
        digest: [0; 32],
    });
    let roster = Message::Roster(own.records_in_order().cloned().collect());
    let tokio = tokio::runtime::Runtime::new().expect("a runtime starts");
    tokio.block_on(async {
        let mut answered = 0;
        let talks = [&[&hello, &roster][..], &[&hello, &hello], &[&roster]];
        for (words, n) in talks.into_iter().zip(60..) {
            let (transport, mut events) = spawn_transport(&Config::default(), &key(n)).unwrap();
            transport.set_members([device].into()).unwrap();
            transport.dial(device, vec![a.address().parse().unwrap()]).unwrap();
            let mut heard = Vec::new();
            let talk = async {
                let mut assembler = Assembler::default();
                loop {
                    match events.recv().await.expect("the transport lives") {
                        Event::Connected(link) => {
                            transport.accept(link.conn);
                            let frames = words.iter().flat_map(|word| frames(word.encode()));
                            frames.for_each(|frame| {
                                transport.try_send(link.conn, frame.into()).unwrap();
                            });
                        }
                        Event::Frame { bytes, .. } => {
                            heard.extend(assembler.push(&bytes).expect("frames are whole"));
                        }
                        Event::Disconnected { .. } => return,
                        Event::DialFailed { attempts, .. } => panic!("{attempts:?}"),
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(MINUTE, talk).await.expect("it is sent away in time");
            let said: Vec<_> = heard.iter().map(|bytes| Message::decode(bytes).unwrap()).collect();
            let harmless = said
                .iter()
                .all(|said| matches!(said, Message::ProofNeeded | Message::Abort { .. }));
            assert!(harmless, "{said:?}");
            answered += said.len();
            transport.shutdown().await;
        }
        // The last word may be lost with the connection, but not all of them.
        assert!(answered > 0, "the stranger was heard");
    });
}
