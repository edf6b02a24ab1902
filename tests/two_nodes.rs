//! Two and three real node processes on loopback: pairing, what both see, and what happens apart.

use std::time::Duration;

use serde_json::{Value, json};

use crate::binary::eventually;
use crate::process::{
    ALONE, ALONE_TCP, Node, converge, equal, import_lines, invite, pair, pair_of, place, spawn,
};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn devices_paired_by_code_and_address_see_each_others_objects() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    a.put("normal", "note", &json!({"title": "from a", "deep": {"x": [1, 2.5, null, "é"]}}));
    b.put("memory", "fact", &json!({"n": 9_223_372_036_854_775_807_i64}));
    b.shows("normal", "note", &json!({"title": "from a", "deep": {"x": [1, 2.5, null, "é"]}}));
    a.shows("memory", "fact", &json!({"n": 9_223_372_036_854_775_807_i64}));
    converge(&[&a, &b], MINUTE);
    equal(&[&a, &b]);
    a.verifies();
    b.verifies();

    // What the command line says of it.
    let object = b.cli(&["get", "normal", "note"]).json();
    assert_eq!(object["author"], a.device());
    b.cli(&["lanes", "status"]).is(0);
    b.cli(&["status"]).is(0);
    let peers = b.cli(&["peers"]).json();
    let names = |peers: &Value| -> Vec<String> {
        let peers = peers["peers"].as_array().expect("peers is a list");
        peers.iter().map(|peer| peer["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&peers).len(), 2, "{peers}");
    let log = a.cli(&["provenance", "log", "memory", "fact"]).json();
    assert_eq!(log["changes"][0]["author"], b.device(), "{log}");
    assert_eq!(log["changes"][0]["verified"], true, "{log}");
}

#[test]
fn lanes_and_classes_that_are_confined_never_arrive() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    for lane in ["secure", "ephemeral", "repair", "migration"] {
        a.put(lane, "kept", &json!({"lane": lane}));
    }
    a.cli(&["put", "normal", "password", r#"{"p":1}"#, "--class", "credential"]).is(0);
    a.cli(&["put", "normal", "diary", r#"{"p":1}"#, "--class", "secret"]).is(0);
    a.put("normal", "last", &json!(1));
    b.shows("normal", "last", &json!(1));
    converge(&[&a, &b], MINUTE);
    for lane in ["secure", "ephemeral", "repair", "migration"] {
        assert_eq!(b.body(lane, "kept"), None, "{lane}");
    }
    assert_eq!(b.live("normal"), 1);
    assert_eq!(a.live("normal"), 3);
    a.verifies();
    b.verifies();

    // In step, and not alike: what was kept back is said where it is missing.
    let normal = b.cli(&["lanes", "status", "normal"]).json();
    let absent = &normal["lanes"][0]["journal"]["absent_bodies"];
    assert_eq!(absent, &json!({"withheld": 2, "purged": 0, "missing": 0}), "{normal}");
    let verified = b.cli(&["provenance", "verify", "normal"]).json();
    assert_eq!(&verified["lanes"][0]["absent_bodies"], absent, "{verified}");
    assert_eq!(verified["lanes"][0]["rows"], 1, "{verified}");
}

#[test]
fn ticket_alone_is_enough_to_join() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    let b = Node::start(place.path(), "desktop", &ALONE);
    let invite = invite(&a);
    let ticket = invite["ticket"].as_str().expect("an invitation has a ticket");
    let joined = b.cli(&["pair", "join", ticket]).json();
    assert_eq!(joined["admitted_by"]["name"], "laptop");
    a.put("normal", "x", &json!(1));
    b.shows("normal", "x", &json!(1));
    // Used up: nobody else gets in with it.
    let c = Node::start(place.path(), "third", &ALONE);
    c.cli(&["pair", "join", ticket]).refused(4, "invite_closed");
    assert_eq!(c.live("normal"), 0);
}

#[test]
fn invite_that_waits_says_who_joined() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    let b = Node::start(place.path(), "desktop", &ALONE);
    let shown = place.path().join("invite.out");
    let mut waiting = spawn(&a, &["pair", "invite"], &shown);
    let read = || std::fs::read_to_string(&shown).unwrap_or_default();
    let first = eventually("the code is shown at once", || {
        read().lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok())
    });
    let code = first["code"].as_str().expect("an invitation has a code");
    b.cli(&["pair", "join", code, "--addr", &a.address()]).is(0);
    let status = eventually("the invitation ends", || waiting.0.try_wait().ok().flatten());
    assert!(status.success());
    let second: Value = serde_json::from_str(read().lines().nth(1).unwrap_or_default()).unwrap();
    assert_eq!(second, json!({"joined": {"device": b.device(), "name": "desktop"}}));
}

#[test]
fn wrong_code_burns_the_invite() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    let b = Node::start(place.path(), "desktop", &ALONE);
    let invite = invite(&a);
    let code = invite["code"].as_str().expect("an invitation has a code");
    let mut words: Vec<&str> = code.split('-').collect();
    words.swap(1, 2);
    let wrong = words.join("-");
    assert_ne!(wrong, code, "two equal words: as likely as a lottery");
    let join = |code: &str| b.cli(&["pair", "join", code, "--addr", &a.address()]);
    join(&wrong).refused(4, "join_refused");
    join(code).refused(4, "invite_closed");
    let peers = a.cli(&["peers"]).json();
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(1), "{peers}");
    // A new invitation works: the burned one left nothing behind.
    pair(&a, &b);
}

/// Each dead address takes the transport some nine seconds to give up: in turn, they would use up the
/// minute that a joiner looks for the inviter.
#[test]
fn addresses_that_never_answer_do_not_hold_up_pairing() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    let b = Node::start(place.path(), "desktop", &ALONE);
    let invite = invite(&a);
    let code = invite["code"].as_str().expect("an invitation has a code");
    let silent: Vec<std::net::UdpSocket> = (0..7)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a port can be bound"))
        .collect();
    let mut args = vec!["pair".to_owned(), "join".to_owned(), code.to_owned()];
    for socket in &silent {
        let port = socket.local_addr().expect("it is bound").port();
        args.extend(["--addr".to_owned(), format!("/ip4/127.0.0.1/udp/{port}/quic-v1")]);
    }
    args.extend(["--addr".to_owned(), a.address()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(b.cli(&args).json()["admitted_by"]["name"], "laptop");
}

#[test]
fn code_that_is_none_is_refused_before_anyone_is_asked() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    for code in ["", "hello", "12-", "99999-abandon-abandon-abandon", "12-nosuchword-a-b"] {
        a.cli(&["pair", "join", "--", code]).refused(2, "code_malformed");
    }
    a.cli(&["pair", "join", "srcos1abc"]).refused(2, "code_malformed");
}

#[test]
fn expired_invite_admits_nobody() {
    let place = place();
    let a = Node::start(place.path(), "laptop", &ALONE);
    let b = Node::start(place.path(), "desktop", &ALONE);
    let said = a.cli(&["pair", "invite", "--ttl", "1"]);
    said.is(1);
    let shown: Value = serde_json::from_str(said.out.lines().next().unwrap_or_default()).unwrap();
    let last: Value = serde_json::from_str(said.err.lines().last().unwrap_or_default()).unwrap();
    assert_eq!(last["error"]["code"], "invite_expired", "{said:?}");
    let code = shown["code"].as_str().expect("an invitation has a code");
    b.cli(&["pair", "join", code, "--addr", &a.address()]).refused(4, "invite_closed");
    let ticket = shown["ticket"].as_str().expect("an invitation has a ticket");
    b.cli(&["pair", "join", ticket]).refused(4, "invite_closed");
}

#[test]
fn edits_made_apart_keep_both_values_and_other_fields() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    a.put("normal", "note", &json!({"title": "t", "tags": {"x": 1}}));
    b.shows("normal", "note", &json!({"title": "t", "tags": {"x": 1}}));
    converge(&[&a, &b], MINUTE);

    a.cli(&["network", "offline"]).is(0);
    a.put("normal", "note", &json!({"title": "by a", "tags": {"x": 1, "a": 1}}));
    b.put("normal", "note", &json!({"title": "by b", "tags": {"x": 1, "b": 1}}));
    // The same new id on both: the union of the fields.
    a.put("normal", "born-apart", &json!({"from a": {"deep": 1}, "both": {"a": 1}}));
    b.put("normal", "born-apart", &json!({"from b": 2, "both": {"b": 1}}));
    a.cli(&["lanes", "status", "normal"]).is(1);
    a.cli(&["network", "online"]).is(0);
    converge(&[&a, &b], MINUTE);
    equal(&[&a, &b]);

    let union = json!({"from a": {"deep": 1}, "from b": 2, "both": {"a": 1, "b": 1}});
    assert_eq!(a.body("normal", "born-apart"), Some(union));
    for node in [&a, &b] {
        let object = node.cli(&["get", "normal", "note", "--conflicts"]).json();
        assert_eq!(object["body"]["tags"], json!({"x": 1, "a": 1, "b": 1}));
        let conflicts = object["conflicts"].as_array().expect("conflicts are listed");
        assert_eq!(conflicts.len(), 1, "{object}");
        assert_eq!(conflicts[0]["path"], "/body/title");
        let values = conflicts[0]["values"].as_array().expect("values is a list");
        let mut found: Vec<(&Value, &Value)> =
            values.iter().map(|value| (&value["value"], &value["author"])).collect();
        found.sort_by_key(|(value, _)| value.to_string());
        let (by_a, by_b) = (json!(a.device()), json!(b.device()));
        assert_eq!(found, [(&json!("by a"), &by_a), (&json!("by b"), &by_b)]);
        assert_eq!(values[0]["shown"], true);
        assert_eq!(values[0]["value"], object["body"]["title"]);
    }
    // Writing over it resolves it, everywhere.
    a.put("normal", "note", &json!({"title": "agreed", "tags": {"x": 1}}));
    b.shows("normal", "note", &json!({"title": "agreed", "tags": {"x": 1}}));
    let object = b.cli(&["get", "normal", "note", "--conflicts"]).json();
    assert_eq!(object["conflicts"], json!([]));
}

#[test]
fn deletion_hides_everywhere_and_a_new_life_begins_everywhere() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    a.put("normal", "x", &json!({"life": 1, "old": true}));
    b.shows("normal", "x", &json!({"life": 1, "old": true}));
    b.cli(&["delete", "normal", "x", "--reason", "not needed"]).is(0);
    a.hides("normal", "x");
    a.cli(&["get", "normal", "x"]).refused(1, "object_hidden");
    a.cli(&["delete", "normal", "x", "--reason", "again"]).refused(1, "object_hidden");
    a.put("normal", "x", &json!({"life": 2}));
    b.shows("normal", "x", &json!({"life": 2}));
    assert_eq!(b.cli(&["get", "normal", "x"]).json()["life"], 2);
    converge(&[&a, &b], MINUTE);
    equal(&[&a, &b]);
}

#[test]
fn watch_gives_each_change_once_and_resumes_after_a_restart() {
    let place = place();
    let (a, mut b) = pair_of(place.path(), &ALONE);
    let peer = a.address();
    b.set_args(&[&ALONE[..], &["--peer", &peer]].concat());
    let ids = |changes: &[Value]| -> Vec<String> {
        changes.iter().map(|change| change["id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for n in 0..10 {
        a.put("normal", &format!("w{n}"), &json!(n));
    }
    let first = b.cli(&["watch", "normal", "--after", "0", "--count", "10"]).lines();
    let expected: Vec<String> = (0..10).map(|n| format!("w{n}")).collect();
    assert_eq!(ids(&first), expected);
    let cursor = first[9]["cursor"].as_str().expect("a change has a cursor").to_owned();

    b.stop();
    a.put("normal", "while-away", &json!(1));
    a.cli(&["delete", "normal", "w3", "--reason", "test"]).is(0);
    b.run();
    b.put("normal", "own", &json!(1));
    let rest = b.cli(&["watch", "normal", "--after", &cursor, "--count", "3"]).lines();
    let mut found = ids(&rest);
    found.sort();
    assert_eq!(found, ["own", "w3", "while-away"]);
    // From the beginning again: the same sequence, each once.
    let all = b.cli(&["watch", "normal", "--after", "0", "--count", "13"]).lines();
    // An object is shown as it is now, so only what happened is compared.
    let happened = |changes: &[Value]| -> Vec<Value> {
        let what = |c: &Value| json!([c["cursor"], c["lane"], c["id"], c["life"], c["op"]]);
        changes.iter().map(what).collect()
    };
    assert_eq!(happened(&all[..10]), happened(&first));
    assert_eq!(happened(&all[10..]), happened(&rest));
    let cursors: Vec<u64> =
        all.iter().filter_map(|change| change["cursor"].as_str()?.parse().ok()).collect();
    assert!(cursors.len() == 13 && cursors.is_sorted_by(|a, b| a < b), "{cursors:?}");
    b.cli(&["watch", "--after", "999999", "--count", "1"]).refused(2, "cursor_unknown");
    b.cli(&["watch", "--after", "soon", "--count", "1"]).refused(2, "cursor_malformed");
}

#[test]
fn revoked_device_is_cut_off_and_what_it_writes_later_never_appears() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    let c = Node::start(place.path(), "tablet", &[&ALONE[..], &["--peer", &a.address()]].concat());
    pair(&b, &c);
    converge(&[&a, &b, &c], MINUTE);
    c.put("normal", "before", &json!(1));
    a.shows("normal", "before", &json!(1));
    b.shows("normal", "before", &json!(1));
    converge(&[&a, &b, &c], MINUTE);

    a.cli(&["peers", "revoke", c.device(), "--reason", "lost"]).is(0);
    let revoked_at = |node: &Node| {
        let peers = node.cli(&["peers"]).json();
        let peers = peers["peers"].as_array().expect("peers is a list").clone();
        peers.iter().any(|peer| peer["device"] == c.device() && peer["membership"] == "revoked")
    };
    for node in [&a, &b] {
        eventually("the revocation is known", || revoked_at(node).then_some(()));
    }
    c.put("normal", "after", &json!("must not be seen"));
    c.put("normal", "before", &json!("must not be seen"));
    a.put("normal", "news", &json!("not for c"));
    b.shows("normal", "news", &json!("not for c"));
    converge(&[&a, &b], MINUTE);
    for node in [&a, &b] {
        assert_eq!(node.body("normal", "after"), None);
        assert_eq!(node.body("normal", "before"), Some(json!(1)));
        node.verifies();
    }
    assert_eq!(c.body("normal", "news"), None);

    a.cli(&["lanes", "status"]).is(0);
}

#[test]
fn network_taken_away_on_purpose_comes_back_on_purpose() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    let off = b.cli(&["network", "offline"]).json();
    assert_eq!((&off["offline"], &off["connected"]), (&json!(true), &json!(0)));
    eventually("a notices", || (!a.in_step(&[b.device()])).then_some(()));
    a.put("normal", "one", &json!(1));
    b.put("normal", "two", &json!(2));
    assert_eq!(b.body("normal", "one"), None);
    b.cli(&["network", "online"]).is(0);
    b.shows("normal", "one", &json!(1));
    a.shows("normal", "two", &json!(2));
    converge(&[&a, &b], MINUTE);
}

#[test]
fn texts_and_counters_edited_apart_keep_both_edits() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE);
    let body = json!({"text": "one two", "seen": 1});
    let typed = ["--type", "/text=text", "--type", "/seen=counter"];
    let put = ["put", "normal", "note", &body.to_string()];
    a.cli(&[&put[..], &typed[..]].concat()).is(0);
    b.shows("normal", "note", &body);
    let types = json!({"/text": "text", "/seen": "counter"});
    assert_eq!(b.cli(&["get", "normal", "note"]).json()["types"], types);
    a.cli(&["network", "offline"]).is(0);
    a.put("normal", "note", &json!({"text": "zero one two", "seen": 5}));
    b.cli(&["patch", "normal", "note", r#"{"text":"one two three"}"#, "--add", "/seen=10"]).is(0);
    b.cli(&["patch", "normal", "note", "--add", "/text=1"]).refused(2, "content_invalid");
    a.cli(&["network", "online"]).is(0);
    let both = json!({"text": "zero one two three", "seen": 15});
    a.shows("normal", "note", &both);
    b.shows("normal", "note", &both);
    converge(&[&a, &b], MINUTE);
    equal(&[&a, &b]);
    b.cli(&["patch", "normal", "note", "--type", "/seen=plain"]).is(0);
    assert_eq!(b.cli(&["get", "normal", "note"]).json()["types"], json!({"/text": "text"}));
}

#[test]
fn three_in_a_chain_converge() {
    let place = place();
    let a = Node::start(place.path(), "a", &ALONE);
    let b = Node::start(place.path(), "b", &ALONE);
    pair(&b, &a);
    converge(&[&a, &b], MINUTE);
    let c = Node::start(place.path(), "c", &ALONE);
    pair(&b, &c);
    converge(&[&a, &b, &c], MINUTE);
    a.cli_with(&["import", "normal", "-"], import_lines("a", 1500).as_bytes()).is(0);
    c.cli_with(&["import", "normal", "-"], import_lines("c", 1500).as_bytes()).is(0);
    b.put("normal", "b", &json!("b"));
    eventually("all have all", || {
        [&a, &b, &c].iter().all(|node| node.live("normal") == 3001).then_some(())
    });
    converge(&[&a, &b, &c], MINUTE);
    equal(&[&a, &b, &c]);
    c.verifies();
}

#[test]
fn tcp_alone_carries_everything() {
    let place = place();
    let (a, b) = pair_of(place.path(), &ALONE_TCP);
    assert!(a.address().contains("/tcp/"));
    a.cli_with(&["import", "normal", "-"], import_lines("n", 3000).as_bytes()).is(0);
    b.put("priority", "p", &json!(1));
    a.shows("priority", "p", &json!(1));
    converge(&[&a, &b], MINUTE);
    assert_eq!(b.live("normal"), 3000);
    equal(&[&a, &b]);
}

#[test]
fn either_device_that_starts_again_elsewhere_finds_the_other() {
    let place = place();
    let (mut a, mut b) = pair_of(place.path(), &ALONE);
    for _ in 0..2 {
        for which in [0, 1] {
            let node = [&mut a, &mut b].into_iter().nth(which).expect("there are two");
            // Any port was asked for, so it is another one.
            node.stop();
            node.run();
            converge(&[&a, &b], MINUTE);
        }
    }
}

/// Objects of an import that is cut short: a thousand go into one turn, so that it has several turns to go
/// when it is seen to be under way; and few enough that all of it is soon imported again. (40,000 took two
/// minutes where other builds had the machine, which is as long as a command may take.)
const LOAD: usize = 12_000;

#[test]
fn told_to_stop_under_load_ends_clean_and_loses_nothing_acknowledged() {
    let place = place();
    let (mut a, b) = pair_of(place.path(), &ALONE);
    let file = place.path().join("load.jsonl");
    std::fs::write(&file, import_lines("load", LOAD)).expect("it can be written");
    let path = file.to_str().expect("paths are text");
    // Single puts, each acknowledged or not, and beside them an import.
    let stopping = std::sync::atomic::AtomicBool::new(false);
    let (acknowledged, mut import) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let Ok(mut caller) = crate::caller::Caller::unix(&a.dir) else { return 0 };
            for n in 0..100_000 {
                match caller.put("priority", &format!("p{n}"), &json!({"n": n})) {
                    Ok(answer) if answer.status == 200 => {}
                    answer => {
                        let stopping = stopping.load(std::sync::atomic::Ordering::SeqCst);
                        assert!(stopping, "a put fails before the end: {answer:?}");
                        return n;
                    }
                }
            }
            100_000
        });
        // The import has an end: it begins when enough was put, so that nothing but its own first objects
        // is waited for while it runs.
        eventually("some are put", || (a.live("priority") >= 20).then_some(()));
        let import = spawn(&a, &["import", "normal", path], &place.path().join("import.out"));
        eventually("it is in the middle of it", || (a.live("normal") >= 2_000).then_some(()));
        stopping.store(true, std::sync::atomic::Ordering::SeqCst);
        a.terminate();
        (writer.join().expect("no put failed before the end"), import)
    });
    assert_eq!(a.ended(), 0, "{}", a.log());
    let status = eventually("the import ends", || import.0.try_wait().ok().flatten());
    assert!(!status.success(), "the import was cut short, and says so");
    assert!(acknowledged >= 20);

    a.run();
    for n in 0..acknowledged {
        assert_eq!(a.body("priority", &format!("p{n}")), Some(json!({"n": n})));
    }
    let kept = a.live("normal");
    assert!((2_000..LOAD as u64).contains(&kept), "{kept}");
    assert!(!a.log().contains("recover"), "a clean end needs no recovery: {}", a.log());
    // The same import goes on where it was cut.
    a.cli(&["import", "normal", path]).is(0);
    assert_eq!(a.live("normal"), LOAD as u64);
    converge(&[&a, &b], 2 * MINUTE);
    equal(&[&a, &b]);
}
