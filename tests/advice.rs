//! What is said when something is wrong names what is wrong, and what helps.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::binary::{binary, cli, cli_with, run};
use crate::process::{ALONE, Node, place};

fn text<'a>(error: &'a Value, field: &str) -> &'a str {
    error[field].as_str().unwrap_or_default()
}

#[test]
fn store_that_is_no_store_is_called_damaged_by_every_command() {
    let place = place();
    let dir = place.path().join("n");
    cli(&dir, &["init"]).is(0);
    cli(&dir, &["put", "normal", "x", "1"]).is(0);
    let store = dir.join("store.redb");
    let good = std::fs::read(&store).expect("there is a store");
    let mut other_magic = good.clone();
    other_magic[..4].copy_from_slice(b"XXXX");
    let cut = |bytes: usize| good[..bytes].to_vec();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("another magic", other_magic),
        ("zeros", vec![0; good.len()]),
        ("cut in its head", cut(100)),
        ("cut after its head", cut(4096)),
        ("cut in half", cut(good.len() / 2)),
        ("cut at its end", cut(good.len() - 4096)),
    ] {
        std::fs::write(&store, &bytes).expect("it can be written");
        for command in [
            &["list", "normal"][..],
            &["get", "normal", "x"],
            &["status"],
            &["put", "normal", "y", "1"],
            &["provenance", "verify"],
            &["run", "--http", "off", "--no-mdns"],
        ] {
            let error = cli(&dir, command).refused(5, "store_damaged");
            assert!(text(&error, "hint").contains("backup"), "{what}, {command:?}: {error}");
        }
        assert_eq!(std::fs::read(&store).expect("it is there"), bytes, "{what}: it is not touched");
    }
    std::fs::write(&store, &good).expect("it can be written");
    cli(&dir, &["get", "normal", "x"]).is(0);
}

#[test]
fn lost_key_is_to_be_restored_and_not_made_anew() {
    let place = place();
    let dir = place.path().join("n");
    cli(&dir, &["init"]).is(0);
    std::fs::remove_file(dir.join("device.key")).expect("there is a key");
    let error = cli(&dir, &["put", "normal", "x", "1"]).refused(5, "key_unusable");
    assert!(text(&error, "hint").contains("backup"), "{error}");
    assert!(!text(&error, "message").contains("init"), "{error}");
}

#[test]
fn path_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let place = place();
    let dir = place.path().join("d".repeat(120));
    let error = cli(&dir, &["init"]).refused(2, "data_dir_path_too_long");
    assert!(text(&error, "message").contains("limit"), "{error}");
    assert!(!dir.exists());
    cli(&dir, &["run", "--init"]).refused(2, "data_dir_path_too_long");
    // A store that came there in another way can be read all the same.
    let short = place.path().join("n");
    cli(&short, &["init"]).is(0);
    std::fs::rename(&short, &dir).expect("it can be moved");
    cli(&dir, &["list", "normal"]).is(0);
    cli(&dir, &["run", "--http", "off"]).refused(2, "data_dir_path_too_long");
}

#[test]
fn address_that_is_taken_is_bad_input_whichever_it_is() {
    let place = place();
    let dir = place.path().join("n");
    cli(&dir, &["init"]).is(0);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let error = cli(&dir, &["run", "--no-mdns", "--http", "off", "--listen", &listen])
        .refused(2, "cannot_listen");
    let message = text(&error, "message");
    assert!(message.contains("in use") && !message.contains(": :"), "{error}");
    let http = format!("127.0.0.1:{port}");
    let error = cli(&dir, &["run", "--no-mdns", "--http", &http]).refused(2, "interface_unusable");
    assert!(text(&error, "hint").contains("--http"), "{error}");
    let peer = "/ip4/192.0.2.7/udp/4101/quic-v1";
    cli(&dir, &["run", "--http", "off", "--transport", "tcp", "--peer", peer])
        .refused(2, "transport_not_used");
}

#[test]
fn hints_name_the_data_directory_that_was_given() {
    let place = place();
    let dir = place.path().join("a b");
    let named = format!("--data-dir '{}'", dir.display());
    let error = cli(&dir, &["list", "normal"]).refused(1, "not_initialised");
    assert!(text(&error, "hint").ends_with(&format!("srcos-node {named} init")), "{error}");
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(&dir).arg("init");
    let said = run(command, b"");
    assert!(said.out.contains(&format!("srcos-node {named} run")), "{said:?}");
    let error = cli(&dir, &["watch"]).refused(3, "needs_daemon");
    assert!(text(&error, "hint").contains(&named), "{error}");
}

#[test]
fn demo_refuses_what_it_cannot_start_with() {
    let place = place();
    let demo = |folder: &Path, args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["--json", "demo"]).args(args).current_dir(folder);
        run(command, b"")
    };
    let empty = place.path().join("empty");
    std::fs::create_dir(&empty).expect("it can be made");
    let error = demo(&empty, &[]).refused(2, "folder_unusable");
    assert!(text(&error, "hint").contains("--objects"), "{error}");
    demo(&empty, &["--objects", "0"]).refused(2, "usage");
    let kept = place.path().join("kept");
    std::fs::create_dir_all(kept.join("desktop")).expect("it can be made");
    let kept = kept.to_str().expect("paths are text");
    let error = demo(&empty, &["--objects", "1", "--keep", kept]).refused(2, "folder_in_use");
    assert!(text(&error, "hint").contains("--keep"), "{error}");
}

#[test]
fn lines_that_are_there_already_can_be_imported_again_where_nothing_may_change() {
    let place = place();
    let dir = place.path().join("n");
    cli(&dir, &["init"]).is(0);
    let lines = b"{\"id\":\"a\",\"body\":{\"n\":1}}\n{\"id\":\"b\",\"body\":[1.0]}\n";
    let import = |lines: &[u8]| cli_with(&dir, &["import", "audit", "-"], lines);
    assert_eq!(import(lines).json()["changed"], 2);
    let again = import(&[lines, &b"{\"id\":\"c\",\"body\":1}\n"[..]].concat()).json();
    assert_eq!((&again["changed"], &again["unchanged"]), (&json!(1), &json!(2)));
    let error = import(b"{\"id\":\"a\",\"body\":{\"n\":2}}\n").refused(4, "lane_append_only");
    assert!(text(&error, "message").contains("line 1"), "{error}");
    let error =
        cli(&dir, &["delete", "audit", "a", "--reason", "x"]).refused(4, "lane_append_only");
    assert!(text(&error, "message").contains("neither changed nor deleted"), "{error}");
}

#[test]
fn condition_that_does_not_hold_is_named_for_what_it_is() {
    let place = place();
    let node = Node::start(place.path(), "n", &ALONE);
    node.cli(&["put", "normal", "x", "1", "--if-absent"]).is(0);
    let error = node.cli(&["put", "normal", "x", "2", "--if-absent"]).refused(1, "heads_differ");
    assert!(text(&error, "message").contains("exists already"), "{error}");
    assert_eq!(error["path"], "normal/x");
    let heads = "00".repeat(32);
    let error =
        node.cli(&["put", "normal", "x", "2", "--if-match", &heads]).refused(1, "heads_differ");
    assert!(text(&error, "message").contains("was changed"), "{error}");
}

#[test]
fn reason_that_a_peer_wrote_cannot_drive_the_terminal() {
    let place = place();
    let dir = place.path().join("n");
    cli(&dir, &["init"]).is(0);
    cli(&dir, &["put", "normal", "x", "1"]).is(0);
    cli(&dir, &["delete", "normal", "x", "--reason", "\u{1b}[2J\u{9b}1m\u{202e}gone\r"]).is(0);
    let mut command = Command::new(binary());
    command.arg("--data-dir").arg(&dir).args(["get", "normal", "x"]);
    let said = run(command, b"");
    assert!(said.is(1).err.contains("gone"), "{said:?}");
    assert!(!said.err.contains(|c: char| c != '\n' && c.is_control()), "{said:?}");
}
