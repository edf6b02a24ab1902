//! Hosts on one virtual network: each in a network namespace, all on one switch. Discovery by
//! multicast DNS alone, a cable that is pulled in the middle of a transfer, and a stranger who is
//! there all the time and gets nothing. Needs root and `ip`.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use srcos_node::core::Core;
use srcos_node::data_dir::{Clock, DataDir};

use crate::binary::{eventually, eventually_within};
use crate::process::{Node, converge, equal, import_lines, invite, place};
use crate::support::skips_slow;

/// Objects of the transfer that is cut.
const OBJECTS: usize = 20_000;
/// Longest time until hosts that were apart are in step: an idle link must be noticed as dead.
const HEAL_TIMEOUT: Duration = Duration::from_secs(180);

/// Longest time until hosts that moved meet again: they must not wait until pings show that the old link
/// is dead, which takes half a minute.
const ROAM_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of frames that turn a stranger away: "proof needed", and a reason with no more words.
const REFUSAL_BYTES_MAX: u64 = 16;

/// A switch in a namespace of its own, and hosts on it. All of it goes with the value.
struct Lan {
    switch: String,
    hosts: Vec<String>,
}

impl Lan {
    fn new(hosts: usize) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let id = format!("srcos-{}-{made}", std::process::id());
        let names = (1..=hosts).map(|host| format!("{id}-h{host}")).collect();
        let lan = Self { switch: format!("{id}-sw"), hosts: names };
        ip(&["netns", "add", &lan.switch]);
        // Without a querier a switch that snoops forgets who listens to multicast.
        lan.at_switch(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        lan.at_switch(&["link", "set", "br0", "up"]);
        for (n, host) in lan.hosts.iter().enumerate() {
            let port = port(n);
            ip(&["netns", "add", host]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
            let cable =
                ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", host];
            lan.at_switch(&cable);
            lan.at_switch(&["link", "set", &port, "master", "br0", "up"]);
            ip(&["-n", host, "addr", "add", &format!("10.77.0.{}/24", n + 1), "dev", "eth0"]);
            ip(&["-n", host, "link", "set", "eth0", "up"]);
        }
        lan
    }

    fn at_switch(&self, args: &[&str]) {
        ip(&[&["-n", &self.switch], args].concat());
    }

    /// Moves a host to another subnet, as when a person takes it to another network.
    fn roam(&self, host: usize, address: &str) {
        let host = &self.hosts[host];
        ip(&["-n", host, "addr", "flush", "dev", "eth0", "scope", "global"]);
        ip(&["-n", host, "addr", "add", address, "dev", "eth0"]);
    }

    /// Pulls a host's cable, or puts it back.
    fn cable(&self, host: usize, state: &str) {
        self.at_switch(&["link", "set", &port(host), state]);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in self.hosts.iter().chain([&self.switch]) {
            // One that was never made cannot be taken away.
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

fn port(host: usize) -> String {
    format!("port{host}")
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs the ip command: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {} (needs root): {errors}", args.join(" "));
}

fn address_on_lan(node: &Node) -> String {
    let found = node.addresses().into_iter().find(|address| address.contains("/10.77.0."));
    found.expect("it listens on the network")
}

fn check(args: &[&str]) {
    let lan = Lan::new(3);
    let place = place();
    let start =
        |n: usize, name: &str| Node::start_in(Some(&lan.hosts[n]), place.path(), name, args);
    let (a, b, mut stranger) = (start(0, "laptop"), start(1, "desktop"), start(2, "stranger"));
    stranger.put("normal", "stranger-own", &json!(1));

    // Nothing but the code: where the other one is, discovery says.
    let invite = invite(&a);
    let code = invite["code"].as_str().expect("an invitation has a code");
    b.cli(&["pair", "join", code]).is(0);
    converge(&[&a, &b], Duration::from_secs(60));

    // A transfer, and the cable is pulled in the middle of it.
    b.cli(&["network", "offline"]).is(0);
    let lines = import_lines("object-of-the-mesh-", OBJECTS);
    a.cli_with(&["import", "normal", "-"], lines.as_bytes()).is(0);
    a.put("normal", "edited-on-both", &json!({"title": "before", "tags": {}}));
    b.cli(&["network", "online"]).is(0);
    eventually("the transfer runs", || (b.live("normal") > 0).then_some(()));
    lan.cable(0, "down");
    let arrived = b.live("normal");
    assert!(arrived < OBJECTS as u64, "the transfer was over before it was cut: {arrived}");

    // Both write: the same object, new ones, and the same new one.
    a.put("normal", "edited-on-both", &json!({"title": "by a", "tags": {"a": 1}}));
    b.put("normal", "edited-on-both", &json!({"title": "by b", "tags": {"b": 1}}));
    for n in 0..50 {
        a.put("memory", &format!("a{n}"), &json!(n));
        b.put("memory", &format!("b{n}"), &json!(n));
    }
    a.put("normal", "born-apart", &json!({"from a": 1}));
    b.put("normal", "born-apart", &json!({"from b": 2}));
    a.cli(&["delete", "normal", "object-of-the-mesh-000007", "--reason", "test"]).is(0);
    let what = format!("the cut is noticed\n{}", a.log());
    eventually_within(Duration::from_secs(90), &what, || {
        (!a.in_step(&[b.device()]) && !b.in_step(&[a.device()])).then_some(())
    });
    assert!(b.live("normal") < OBJECTS as u64, "nothing goes through a cable that is pulled");

    lan.cable(0, "up");
    let all = OBJECTS as u64 + 1;
    let what = format!("all has arrived\n{}\n--\n{}", a.log(), b.log());
    eventually_within(HEAL_TIMEOUT, &what, || {
        [&a, &b].iter().all(|node| node.live("normal") == all).then_some(())
    });
    converge(&[&a, &b], HEAL_TIMEOUT);
    equal(&[&a, &b]);
    assert_eq!(b.body("normal", "born-apart"), Some(json!({"from a": 1, "from b": 2})));
    assert_eq!(b.body("normal", "object-of-the-mesh-000007"), None);
    for node in [&a, &b] {
        let object = node.cli(&["get", "normal", "edited-on-both", "--conflicts"]).json();
        let conflict = &object["conflicts"][0];
        assert_eq!(conflict["path"], "/body/title", "{object}");
        assert_eq!(conflict["values"].as_array().map(Vec::len), Some(2), "{object}");
        node.verifies();
    }
    gets_nothing(place.path(), &mut stranger, args, &[&a, &b]);
}

/// Makes a stranger claim, in a mesh of its own, that these are its members: its node then dials them and
/// speaks to them as to members.
fn claims(stranger: &mut Node, args: &[&str], mesh: &[&Node]) {
    stranger.stop();
    let mut core =
        Core::open(Clock::start(), &DataDir::new(&stranger.dir)).expect("its store opens");
    for member in mesh {
        let device = member.device().parse().expect("the ready line names the device");
        let now = core.now();
        core.engine.admit(&mut core.store, now, device, "claimed", None).expect("its own mesh");
    }
    core.commit().expect("it is kept");
    core.store.close().expect("it is closed");
    let addresses: Vec<String> = mesh.iter().map(|member| address_on_lan(member)).collect();
    let peers = addresses.iter().flat_map(|address| ["--peer", address]);
    stranger.set_args(&args.iter().copied().chain(peers).collect::<Vec<_>>());
    stranger.run();
}

/// A figure that a node counts.
fn figure(node: &Node, name: &str) -> u64 {
    let metrics = node.caller().get("/metrics").is(200).body.clone();
    let text = metrics;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    line.unwrap_or(0.0) as u64
}

/// That a node which was on the same network all the time knows nothing of a mesh.
fn gets_nothing(place: &Path, stranger: &mut Node, args: &[&str], mesh: &[&Node]) {
    assert_eq!(stranger.live("normal"), 1);
    assert_eq!(stranger.live("memory"), 0);
    let peers = stranger.cli(&["peers"]).json();
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(1), "{peers}");
    for member in mesh {
        let known = member.cli(&["peers"]).json();
        let known = known["peers"].as_array().expect("peers is a list").len();
        assert_eq!(known, mesh.len());
    }
    // Not by asking either: nobody invites.
    for member in mesh {
        let address = address_on_lan(member);
        let guess = ["pair", "join", "7-walnut-opera-tiger", "--addr", &address];
        let code = stranger.cli(&guess).code;
        assert!([2, 4].contains(&code), "a stranger joined or hung: {code}");
    }
    // Nor by speaking to them as to members: it is asked for proof and sent away. A hello, with the
    // names of lanes and a digest, would be far longer than these words.
    claims(stranger, args, mesh);
    let refused = "srcos_closes_total{reason=\"not_a_member\"}";
    let what = format!("all turn it away\n{}", stranger.log());
    eventually(&what, || (figure(stranger, refused) >= 2 * mesh.len() as u64).then_some(()));
    let heard = figure(stranger, "srcos_frame_bytes_in_total");
    let turned_away = figure(stranger, refused);
    assert!(heard > 0, "they answered");
    assert!(heard <= turned_away * REFUSAL_BYTES_MAX + 64, "{heard} bytes in {turned_away} talks");
    let lanes = stranger.cli(&["lanes", "status"]).is(1).document();
    for lane in lanes["lanes"].as_array().expect("lanes is a list") {
        for peer in lane["replication"]["peers"].as_array().expect("peers is a list") {
            let known = [&peer["missing_here"], &peer["missing_there"], &peer["confirmed_at"]];
            assert!(known.iter().all(|known| known.is_null()), "{peer}");
        }
    }
    let store = std::fs::read(place.join("stranger").join("store.redb")).expect("it has a store");
    let log = stranger.log();
    for secret in ["object-of-the-mesh", "edited-on-both", "born-apart", "forty characters"] {
        let found = store.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert!(!found, "{secret} is in the store of a stranger");
        assert!(!log.contains(secret), "{secret} is in the log of a stranger");
    }
    let own = store.windows(12).any(|bytes| bytes == b"stranger-own");
    assert!(own, "the store can be searched: its own object is found");
}

#[test]
fn hosts_find_each_other_survive_a_pulled_cable_and_tell_strangers_nothing() {
    if skips_slow("two hosts on a virtual network (root)") {
        return;
    }
    check(&["--http", "off"]);
}

#[test]
fn hosts_do_the_same_on_tcp_only() {
    if skips_slow("two hosts on a virtual network, TCP only (root)") {
        return;
    }
    check(&["--http", "off", "--transport", "tcp"]);
}

/// Both change their address, and no address that either knows of the other holds any more.
#[test]
fn addresses_that_change_are_learned_again() {
    if skips_slow("two hosts that change their addresses (root)") {
        return;
    }
    let lan = Lan::new(2);
    let place = place();
    let start = |n: usize, name: &str| {
        Node::start_in(Some(&lan.hosts[n]), place.path(), name, &["--http", "off"])
    };
    let (a, b) = (start(0, "laptop"), start(1, "desktop"));
    let invite = invite(&a);
    let code = invite["code"].as_str().expect("an invitation has a code");
    b.cli(&["pair", "join", code]).is(0);
    a.put("normal", "before", &json!(1));
    b.shows("normal", "before", &json!(1));
    converge(&[&a, &b], Duration::from_secs(60));

    lan.roam(0, "10.78.0.7/24");
    lan.roam(1, "10.78.0.8/24");
    a.put("normal", "moved", &json!({"from a": 1}));
    b.put("normal", "moved", &json!({"from b": 2}));
    let both = json!({"from a": 1, "from b": 2});
    let what = format!("they meet at their new addresses\n{}\n--\n{}", a.log(), b.log());
    eventually_within(ROAM_TIMEOUT, &what, || {
        [&a, &b].iter().all(|node| node.body("normal", "moved") == Some(both.clone())).then_some(())
    });
    converge(&[&a, &b], HEAL_TIMEOUT);
    equal(&[&a, &b]);
}
