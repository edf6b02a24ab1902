//! Signals at the worst moments: a node that is told to stop stops cleanly, whenever that is.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::binary::{Running, Said, binary, cli, eventually, run};
use crate::process::{ALONE, Node, place};

/// Starts a node and signals it with no time between its `ready` and the signal: the shell that reads
/// the line sends the signal itself.
const SIGNAL_WHEN_READY: &str = r#"
    signal=$1 dir=$2 pipe=$2.pipe; shift 2
    rm -f "$pipe"; mkfifo "$pipe"
    "$@" --data-dir "$dir" run --no-mdns --http off --listen /ip4/127.0.0.1/tcp/0 > "$pipe" &
    pid=$!
    read line < "$pipe"
    kill -"$signal" "$pid"
    wait "$pid"
"#;

#[track_caller]
fn is_clean(dir: &Path, what: &str) {
    // Who only reads recovers nothing, so a store that was left open is refused.
    let said = cli(dir, &["list", "normal"]);
    assert_eq!(said.code, 0, "{what}: {said:?}");
}

#[test]
fn signal_that_comes_with_the_ready_line_ends_the_node_cleanly() {
    let place = place();
    let dir = place.path().join("n");
    cli(&dir, &["init"]).is(0);
    for round in 0..5 {
        for signal in ["TERM", "INT", "HUP"] {
            // Whoever runs the tests under nohup has SIGHUP ignored, which a node leaves as it is.
            let mut command = Command::new("env");
            command.args(["--default-signal=HUP", "sh", "-c", SIGNAL_WHEN_READY, "sh", signal]);
            command.arg(&dir).arg(binary());
            let said: Said = run(command, b"");
            assert_eq!(said.code, 0, "{signal}, round {round}: {said:?}");
            is_clean(&dir, signal);
        }
    }
}

#[test]
fn signal_that_comes_before_the_store_is_open_ends_the_node_cleanly() {
    let place = place();
    let dir = place.path().join("n");
    cli(&dir, &["init"]).is(0);
    for _ in 0..5 {
        let mut command = Command::new(binary());
        command.arg("--data-dir").arg(&dir).args(["run", "--no-mdns", "--http", "off"]);
        command.env_remove("RUST_LOG").env_remove("SRCOS_DATA_DIR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut node = Running(command.spawn().expect("the binary starts"));
        let pid = node.0.id().to_string();
        // The first moment at which the process takes the signal itself.
        let status = format!("/proc/{pid}/status");
        eventually("the node takes SIGTERM", || {
            let status = std::fs::read_to_string(&status).ok()?;
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
            (mask >> 14 & 1 == 1).then_some(())
        });
        let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(killed.success(), "it has not ended before it was told to");
        let ended = eventually("the node ends", || node.0.try_wait().ok().flatten());
        assert_eq!(ended.code(), Some(0), "{ended}");
        is_clean(&dir, "before the store was open");
    }
}

#[test]
fn links_that_were_cut_on_purpose_stay_cut_over_a_restart() {
    let place = place();
    let mut node = Node::start(place.path(), "n", &ALONE);
    let offline = |node: &Node| node.cli(&["status"]).document()["daemon"]["offline"].clone();
    node.cli(&["network", "offline"]).is(0);
    assert_eq!(offline(&node), true);
    node.stop();
    node.run();
    assert_eq!(offline(&node), true);
    node.kill();
    node.run();
    assert_eq!(offline(&node), true, "what was answered is durable");
    node.cli(&["network", "online"]).is(0);
    node.kill();
    node.run();
    assert_eq!(offline(&node), false);
}
