//! What `status` says of a device in trouble, and that it says it no longer once that is over.

use std::time::Duration;

use serde_json::{Value, json};
use srcos_lanes::ids::{DeviceId, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Run;
use srcos_node::data_dir::DataDir;
use srcos_node::transport::{Config, Event, spawn as spawn_transport};
use srcos_replication::wire::{AbortReason, Message, frames};

use crate::binary::eventually;
use crate::process::{ALONE, Node, converge, pair, pair_of, place};

const MINUTE: Duration = Duration::from_secs(60);

/// Each diagnosis of a node: its code, and its message.
fn diagnoses(node: &Node) -> Vec<(String, String)> {
    let status = node.cli(&["status"]).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = status["diagnosis"].as_array().expect("a diagnosis is a list");
    found.iter().map(|one| (text(&one["code"]), text(&one["message"]))).collect()
}

/// Entries that build on what is not here, from a device that has it, while nobody is there who does.
#[test]
fn lane_that_waits_is_late_and_says_for_which_entry_of_whom() {
    let place = place();
    let (mut a, mut b) = pair_of(place.path(), &ALONE);
    let mut c = Node::start(place.path(), "tablet", &ALONE);
    pair(&b, &c);
    converge(&[&a, &b, &c], MINUTE);
    a.stop();
    c.put("normal", "x", &json!({"by": "tablet"}));
    b.shows("normal", "x", &json!({"by": "tablet"}));
    b.put("normal", "x", &json!({"by": "desktop"}));
    converge(&[&b, &c], MINUTE);
    b.stop();
    c.stop();

    let by_b: DeviceId = b.device().parse().expect("the ready line names the device");
    let (_, of_b) = DataDir::new(&b.dir).open().expect("it can be opened");
    let author = of_b.author();
    assert_eq!(author.device, by_b);
    let entries = of_b.entries(LaneId::Normal, &author, 1, usize::MAX, usize::MAX);
    let entries = entries.expect("they can be read");
    let mesh = of_b.mesh().expect("it has a mesh");
    of_b.close().expect("it can be closed");
    let (_, mut of_a) = DataDir::new(&a.dir).open().expect("it can be opened");
    let entries = entries.iter().map(Vec::as_slice).collect();
    let run = Run { lane: LaneId::Normal, author, entries };
    of_a.receive(&run, &[mesh], WallMillis(1)).expect("they are whole");
    of_a.commit().expect("it can be written");
    of_a.close().expect("it can be closed");

    a.run();
    let found = diagnoses(&a);
    let late = found.iter().find(|(code, _)| code == "lane_late").expect("it says so");
    let waits = format!(
        "entry 1 of desktop ({}) waits for entry 1 of tablet ({})",
        &b.device()[..8],
        &c.device()[..8]
    );
    assert!(late.1.contains(&waits), "{late:?}");
    assert!(late.1.starts_with("lane normal is late: 1 entries are held"), "{late:?}");
    assert_eq!(a.body("normal", "x"), None);

    // Both are elsewhere now, and no multicast tells where.
    b.set_args(&[&ALONE[..], &["--peer", &a.address()]].concat());
    b.run();
    eventually("what it waits for comes", || {
        (!diagnoses(&a).iter().any(|(code, _)| code == "lane_late")).then_some(())
    });
    a.shows("normal", "x", &json!({"by": "desktop"}));
}

/// A member that turns this device away and does not show why: that is its word, and no more.
#[test]
fn refusal_without_proof_is_told_as_such_until_the_member_talks_again() {
    let place = place();
    let (a, mut b) = pair_of(place.path(), &ALONE);
    let device: DeviceId = a.device().parse().expect("the ready line names the device");
    b.stop();
    let key = DataDir::new(&b.dir).key().expect("it can be read");
    let refusal = Message::Abort { reason: AbortReason::Revoked, detail: String::new() };
    let tokio = tokio::runtime::Runtime::new().expect("a runtime starts");
    tokio.block_on(async {
        let (transport, mut events) = spawn_transport(&Config::default(), &key).unwrap();
        transport.set_members([device].into()).unwrap();
        transport.dial(device, vec![a.address().parse().unwrap()]).unwrap();
        let talk = async {
            loop {
                match events.recv().await.expect("the transport lives") {
                    Event::Connected(link) => {
                        transport.accept(link.conn);
                        for frame in frames(refusal.encode()) {
                            transport.try_send(link.conn, frame.into()).unwrap();
                        }
                    }
                    Event::Disconnected { .. } => return,
                    Event::DialFailed { attempts, .. } => panic!("{attempts:?}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(MINUTE, talk).await.expect("the link ends in time");
        transport.shutdown().await;
    });
    let told = || diagnoses(&a).into_iter().find(|(code, _)| code == "refused_as_revoked");
    let (_, message) = eventually("it is told", told);
    assert_eq!(message, "desktop refuses this device as revoked, and showed no proof of it");
    b.run();
    converge(&[&a, &b], MINUTE);
    assert_eq!(diagnoses(&a), []);
}

/// Two copies of one device wrote, and what both signed reached a third.
#[test]
fn journal_with_two_histories_is_told_by_status_and_readiness_alike() {
    let place = place();
    let (mut a, mut b) = pair_of(place.path(), &ALONE);
    converge(&[&a, &b], MINUTE);
    a.stop();
    b.stop();
    // The whole disk: what lies beside the directory tells a copy from the newest store.
    let name = b.dir.file_name().expect("it has a name").to_string_lossy().into_owned();
    let beside = b.dir.with_file_name(format!(".{name}.opens"));
    let copy = place.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(&b.dir).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    let opens = std::fs::read(&beside).expect("it lies there");
    let mut runs = Vec::new();
    for body in ["1", "2"] {
        assert_eq!(b.cli(&["put", "normal", "x", body]).code, 0);
        let (_, of_b) = DataDir::new(&b.dir).open().expect("it can be opened");
        let author = of_b.author();
        let entries = of_b.entries(LaneId::Normal, &author, 1, usize::MAX, usize::MAX);
        runs.push((author, of_b.mesh().expect("it has a mesh"), entries.expect("they are read")));
        of_b.close().expect("it can be closed");
        std::fs::rename(&b.dir, place.path().join(format!("wrote {body}"))).expect("it moves");
        if body == "1" {
            std::fs::rename(&copy, &b.dir).expect("it moves");
            std::fs::write(&beside, &opens).expect("it can be written");
        }
    }
    assert_eq!(runs[0].0, runs[1].0, "both wrote under one incarnation");
    let (_, mut of_a) = DataDir::new(&a.dir).open().expect("it can be opened");
    for (n, (author, mesh, entries)) in runs.iter().enumerate() {
        let entries = entries.iter().map(Vec::as_slice).collect();
        let run = Run { lane: LaneId::Normal, author: *author, entries };
        // Of the second history only the proof is kept.
        let whole = of_a.receive(&run, &[*mesh], WallMillis(1)).is_ok();
        assert_eq!(whole, n == 0);
        of_a.commit().expect("it can be written");
    }
    of_a.close().expect("it can be closed");

    a.run();
    let said = "in lane normal a device signed two different histories";
    assert!(diagnoses(&a).contains(&("journal_forked".to_owned(), said.to_owned())));
    // The other journals are as sound as before: it goes on taking work.
    let ready = a.caller().get("/readyz").is(200).json();
    assert_eq!((&ready["state"], &ready["reason"]), (&json!("degraded"), &json!(said)));
    assert_eq!(a.cli(&["status"]).json()["readiness"]["state"], "degraded");
}
