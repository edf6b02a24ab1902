//! Input that is wrong, stores that are damaged, disks that are full: each gets a clear error with
//! its exit code, and nothing that was there is lost.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::binary::{binary, cli, cli_with, run};
use crate::process::{ALONE, Node, import_lines, place};
use crate::support::skips_slow;

/// Runs commands on a store without a daemon, and again through a daemon.
fn both_ways(check: impl Fn(&Path)) {
    let place = place();
    let dir = place.path().join("direct");
    cli(&dir, &["init"]).is(0);
    check(&dir);
    let node = Node::start(place.path(), "daemon", &ALONE);
    check(&node.dir);
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn json_that_is_wrong_is_refused_with_what_is_wrong() {
    both_ways(|dir| {
        let put = |body: &str| cli_with(dir, &["put", "normal", "x", "-"], body.as_bytes());
        for wrong in ["", "{", "nul", "{\"a\":1,}", "1 2", "\"\u{1}\"", "NaN", "'x'", "\"\\ud800\""]
        {
            put(wrong).refused(2, "json_invalid");
        }
        cli_with(dir, &["put", "normal", "x", "-"], b"\"\xff\"").refused(2, "json_not_utf8");
        let error = put(r#"{"a":{"twice":1,"twice":2}}"#).refused(2, "json_duplicate_key");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("twice")), "{error}");

        put(&nested(128)).is(0);
        for read in [&["get", "normal", "x"][..], &["list", "normal"], &["export", "normal"]] {
            assert!(cli(dir, read).is(0).out.contains(&nested(128)), "{read:?}");
        }
        put(r#"{"replaced":true}"#).is(0);
        let error = put(&nested(129)).refused(2, "json_too_deep");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("128")), "{error}");
        put(&nested(100_000)).refused(2, "json_too_deep");

        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        put(&text(1 << 20)).is(0);
        let error = put(&text((1 << 20) + 1)).refused(2, "json_too_large");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("1048576") && message.contains("1048577"), "{error}");
        // What was there is there.
        let object = cli(dir, &["get", "normal", "x"]).json();
        assert_eq!(object["body"].as_str().map(str::len), Some((1 << 20) - 2));
    });
}

#[test]
fn numbers_and_texts_come_back_as_they_were() {
    both_ways(|dir| {
        let body = r#"{"":[],"a":{},"big":18446744073709551615,"f":1.0,"low":-9223372036854775808,"n":null,"u":"\u0000é😀","z":-0.0}"#;
        cli(dir, &["put", "normal", "x", body]).is(0);
        let shown = cli(dir, &["get", "normal", "x"]).is(0).out.clone();
        for exact in ["18446744073709551615", "-9223372036854775808", "\"f\":1.0", "\"z\":-0.0"] {
            assert!(shown.contains(exact), "{exact}: {shown}");
        }
        let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
        assert_eq!(shown["body"], serde_json::from_str::<Value>(body).expect("it is JSON"));
    });
}

#[test]
fn ids_and_lanes_that_are_wrong_are_refused() {
    both_ways(|dir| {
        let long = "é".repeat(256);
        cli(dir, &["put", "normal", &long, "1"]).is(0);
        for id in ["".to_owned(), "x".repeat(513), "é".repeat(256) + "x"] {
            for command in [&["put", "normal", &id, "1"][..], &["get", "normal", &id]] {
                cli(dir, command).refused(2, "id_invalid");
            }
        }
        cli(dir, &["put", "nolane", "x", "1"]).refused(2, "usage");
        cli(dir, &["get", "normal", "nothing"]).refused(1, "object_absent");
        cli(dir, &["patch", "normal", "nothing", "{}"]).refused(1, "object_absent");
        cli(dir, &["put", "normal", "x", "1", "--label", "novalue"]).refused(2, "usage");
        cli(dir, &["frobnicate"]).refused(2, "usage");

        let mut command = Command::new(binary());
        command.arg("--json").arg("--data-dir").arg(dir).args(["put", "normal"]);
        command.arg(OsStr::from_bytes(b"\xff\xfe")).arg("1");
        run(command, b"").refused(2, "usage");
    });
}

#[test]
fn wrong_import_line_is_named_and_nothing_of_the_file_is_applied() {
    both_ways(|dir| {
        let file = dir.with_extension("jsonl");
        let mut lines: Vec<String> = import_lines("i", 1500).lines().map(str::to_owned).collect();
        lines[1233] = r#"{"id":"i","bodi":1}"#.to_owned();
        std::fs::write(&file, lines.join("\n")).expect("it can be written");
        let path = file.to_str().expect("paths are text");
        let error = cli(dir, &["import", "normal", path]).refused(2, "object_invalid");
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains("line 1234")),
            "{error}"
        );
        assert_eq!(error["path"], format!("{path}:1234"));
        assert_eq!(cli(dir, &["export", "normal"]).is(0).out, "");

        let said = cli(dir, &["import", "normal", path, "--skip-invalid"]);
        assert!(said.err.contains("line 1234"), "{said:?}");
        let summary = said.json();
        assert_eq!((&summary["lines"], &summary["skipped"]), (&json!(1499), &json!(1)));
        assert_eq!(cli(dir, &["export", "normal"]).is(0).out.lines().count(), 1499);
        // Again: nothing differs.
        let summary = cli(dir, &["import", "normal", path, "--skip-invalid"]).json();
        assert_eq!(summary["changed"], 0);
        cli(dir, &["import", "normal", "/no/such/file"]).refused(2, "file_unusable");
    });
}

#[test]
fn commands_without_a_store_say_how_to_make_one_and_make_none() {
    let place = place();
    let dir = place.path().join("nothing");
    for command in [&["status"][..], &["list", "normal"], &["put", "normal", "x", "1"], &["run"]] {
        let error = cli(&dir, command).refused(1, "not_initialised");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("init")), "{error}");
        assert!(!dir.exists(), "{command:?} made something");
    }
    cli(&dir, &["init"]).is(0);
    cli(&dir, &["init"]).refused(2, "already_initialised");
    for command in [&["pair", "invite"][..], &["watch", "normal"], &["network", "offline"]] {
        let error = cli(&dir, command).refused(3, "needs_daemon");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("run")), "{error}");
    }
    let file = place.path().join("file");
    std::fs::write(&file, "x").expect("it can be written");
    cli(&file, &["init"]).refused(5, "data_dir_unusable");
    cli(&file.join("below"), &["init"]).refused(5, "data_dir_unusable");
}

#[test]
fn key_that_is_not_the_devices_own_or_not_private_is_refused() {
    let place = place();
    let (dir, other) = (place.path().join("a"), place.path().join("b"));
    cli(&dir, &["init"]).is(0);
    cli(&other, &["init"]).is(0);
    let key = dir.join("device.key");
    let good = std::fs::read(&key).expect("there is a key");
    let write = |bytes: &[u8], mode: u32| {
        std::fs::write(&key, bytes).expect("it can be written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    let refused = |code: &str| {
        cli(&dir, &["run", "--http", "off"]).refused(5, code);
        cli(&dir, &["put", "normal", "x", "1"]).refused(5, code);
    };
    write(&good, 0o644);
    refused("key_unusable");
    write(&good[..good.len() / 2], 0o600);
    refused("key_unusable");
    write(b"", 0o600);
    refused("key_unusable");
    let foreign = std::fs::read(other.join("device.key")).expect("there is a key");
    write(&foreign, 0o600);
    refused("store_of_other_device");
    std::fs::remove_file(&key).expect("it is ours");
    refused("key_unusable");
    write(&good, 0o600);
    cli(&dir, &["put", "normal", "x", "1"]).is(0);
}

#[test]
fn second_node_on_one_directory_is_refused_and_the_first_goes_on() {
    let place = place();
    let node = Node::start(place.path(), "n", &ALONE);
    node.cli(&[&["run"], &ALONE[..]].concat()).refused(5, "store_locked");
    node.put("normal", "x", &json!(1));
    assert_eq!(node.body("normal", "x"), Some(json!(1)));
}

/// A store with objects, closed cleanly; its file, and what it holds.
fn filled(place: &Path) -> (PathBuf, PathBuf, String) {
    let dir = place.join("n");
    cli(&dir, &["init"]).is(0);
    cli_with(&dir, &["import", "normal", "-"], import_lines("s", 400).as_bytes()).is(0);
    cli(&dir, &["delete", "normal", "s000007", "--reason", "test"]).is(0);
    let held = cli(&dir, &["export", "normal"]).is(0).out.clone();
    assert_eq!(held.lines().count(), 399);
    (dir.clone(), dir.join("store.redb"), held)
}

/// A node on a damaged store either refuses with an error that helps, or shows all that it holds,
/// or finds the damage when asked to verify. It never shows something else as if it were whole.
fn refuses_or_holds(dir: &Path, held: &str, what: &str) {
    let export = cli(dir, &["export", "normal"]);
    if export.code != 0 {
        assert_eq!(export.code, 5, "{what}: {export:?}");
        let last = export.err.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).expect("an error is a document");
        let code = error["error"]["code"].as_str().unwrap_or_default();
        assert!(code.starts_with("store_"), "{what}: {export:?}");
        return;
    }
    let verify = cli(dir, &["provenance", "verify"]);
    match verify.code {
        0 => assert_eq!(export.out, held, "{what}: damage that nobody noticed"),
        1 => assert_eq!(verify.document()["verified"], false, "{what}"),
        5 => {}
        _ => panic!("{what}: {verify:?}"),
    }
}

#[test]
fn truncated_store_is_refused_by_every_command_and_left_as_it_is() {
    let place = place();
    let (dir, store, held) = filled(place.path());
    let good = std::fs::read(&store).expect("there is a store");
    for length in
        [0, 1, 320, 4096, 8192, good.len() / 3, good.len() / 2, good.len() - 4096, good.len() - 1]
    {
        std::fs::write(&store, &good[..length]).expect("it can be written");
        let what = format!("cut to {length} of {} bytes", good.len());
        refuses_or_holds(&dir, &held, &what);
        if length <= good.len() / 2 {
            let said = cli(&dir, &["run", "--http", "off", "--no-mdns"]);
            assert_eq!(said.code, 5, "{what}: {said:?}");
            let after = std::fs::read(&store).expect("there is a store");
            assert_eq!(after.len(), length, "{what}: a store that is refused is not touched");
        }
    }
    std::fs::write(&store, &good).expect("it can be written");
    assert_eq!(cli(&dir, &["export", "normal"]).is(0).out, held);
    cli(&dir, &["provenance", "verify"]).is(0);
}

#[test]
fn flipped_bits_are_found_or_harmless() {
    let place = place();
    let (dir, store, held) = filled(place.path());
    let good = std::fs::read(&store).expect("there is a store");
    let key = "s000123".as_bytes();
    let mut places: Vec<usize> =
        good.windows(key.len()).enumerate().filter(|(_, w)| *w == key).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the store holds what was imported");
    places.truncate(6);
    // The head of the file, both commit slots, and places all over it.
    places.extend([0, 9, 12, 64, 70, 100, 192, 200, 260]);
    places.extend((1..24).map(|n| good.len() / 24 * n + 37 * n));
    for at in places {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&store, &bytes).expect("it can be written");
        refuses_or_holds(&dir, &held, &format!("bit flipped in byte {at} of {}", good.len()));
    }
}

#[test]
fn store_of_a_newer_version_is_refused_untouched() {
    use srcos_lanes::tables;
    let place = place();
    let (dir, store, held) = filled(place.path());
    let set = |version: u32| {
        let db = redb::Database::open(&store).expect("redb opens it");
        let turn = db.begin_write().expect("nobody else writes");
        {
            let mut meta = turn.open_table(tables::META).expect("there is the table");
            let key = tables::meta::VERSION.as_bytes();
            tables::insert(&mut meta, tables::META, key, &version.to_be_bytes())
                .expect("it writes");
        }
        turn.commit().expect("it commits");
    };
    set(srcos_lanes::store::STORE_VERSION + 1);
    for command in
        [&["run", "--http", "off"][..], &["list", "normal"], &["put", "normal", "x", "1"]]
    {
        let error = cli(&dir, command).refused(5, "store_newer");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("update")), "{error}");
    }
    set(srcos_lanes::store::STORE_VERSION);
    assert_eq!(cli(&dir, &["export", "normal"]).is(0).out, held);
}

/// Something mounted for a test. Needs root.
struct Mount(PathBuf);

impl Mount {
    fn new(args: &[&str], at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("it can be made");
        let output = Command::new("mount").args(args).arg(at).output().expect("mount runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mount {} (needs root): {errors}", args.join(" "));
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn full_disk_fails_puts_with_a_clear_error_and_loses_nothing_acknowledged() {
    if skips_slow("a full disk (mounts a small file system: root)") {
        return;
    }
    let place = place();
    let disk = place.path().join("disk");
    let mount = Mount::new(&["-t", "tmpfs", "-o", "size=12m", "tmpfs"], &disk);
    let mut node = Node::start(&disk, "n", &ALONE);
    let filler = disk.join("filler");
    std::fs::write(&filler, vec![0; 6 << 20]).expect("there is room");
    let text = "x".repeat(50_000);
    let mut acknowledged = 0;
    let mut caller = node.caller();
    let refused = loop {
        let answer = caller.put("normal", &format!("o{acknowledged}"), &json!(text));
        let answer = answer.expect("the node answers");
        if answer.status != 200 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "the disk is not full yet");
    };
    refused.refused(503, "store_failed");
    assert!(acknowledged > 0);
    node.cli(&["put", "normal", "another", "1"]).refused(5, "store_failed");
    let ready = node.caller().get("/readyz").is(503).json();
    assert_eq!(ready["state"], "unsafe", "{ready}");
    node.cli(&["status"]).is(1);
    // What is there can be read all the same.
    assert_eq!(node.body("normal", "o0"), Some(json!(text)));
    node.terminate();
    let code = node.ended();
    assert!([0, 5].contains(&code), "{code}: {}", node.log());

    std::fs::remove_file(&filler).expect("it is ours");
    node.run();
    node.caller().get("/readyz").is(200);
    for n in 0..acknowledged {
        assert_eq!(node.body("normal", &format!("o{n}")), Some(json!(text)));
    }
    node.put("normal", "another", &json!(1));
    node.verifies();
    node.stop();
    drop(mount);
}

#[test]
fn read_only_directory_can_be_read_and_refuses_the_rest_clearly() {
    if skips_slow("a read-only data directory (mounts: root)") {
        return;
    }
    let place = place();
    let (dir, _, held) = filled(place.path());
    let path = dir.to_str().expect("paths are text");
    let seen = place.path().join("seen");
    let mount = Mount::new(&["--bind", path], &seen);
    let status = Command::new("mount").args(["-o", "remount,ro,bind"]).arg(&seen).status();
    assert!(status.is_ok_and(|status| status.success()), "a bind mount can be made read-only");
    assert_eq!(cli(&seen, &["export", "normal"]).is(0).out, held);
    for command in [&["run", "--http", "off", "--no-mdns"][..], &["put", "normal", "x", "1"]] {
        let said = cli(&seen, command);
        assert_eq!(said.code, 5, "{said:?}");
        let last = said.err.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).expect("an error is a document");
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(message.to_lowercase().contains("read-only"), "{said:?}");
    }
    drop(mount);
    assert_eq!(cli(&dir, &["export", "normal"]).is(0).out, held);
}
