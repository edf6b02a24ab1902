//! The shape of the workspace, as tests: who may depend on whom, what the pure crates know nothing of,
//! and what every file has. `docs/ARCHITECTURE.md` gives the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::support::{files, read, root};

/// Which crates of the workspace each one may name. `tests` and `benches` may name any.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("srcos-schemas", &[]),
    ("srcos-lanes", &["srcos-schemas"]),
    ("srcos-replication", &["srcos-schemas", "srcos-lanes"]),
    ("srcos-node", &["srcos-schemas", "srcos-lanes", "srcos-replication"]),
    ("srcos-simnet", &["srcos-schemas", "srcos-lanes", "srcos-replication"]),
];

/// Crates that name others and that nobody names.
const OUTERMOST: [&str; 4] = ["srcos-node", "srcos-simnet", "srcos-tests", "srcos-benches"];

/// Which outside crates the inner ones may name. A new one is argued for in review, and added here.
const OUTSIDE: [(&str, &[&str]); 3] = [
    ("srcos-schemas", &["jsonschema", "serde", "serde_json", "sha2", "thiserror"]),
    (
        "srcos-lanes",
        &[
            "automerge",
            "blake3",
            "data-encoding",
            "ed25519-dalek",
            "lru",
            "postcard",
            "redb",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
        ],
    ),
    (
        "srcos-replication",
        &[
            "blake3",
            "data-encoding",
            "ed25519-dalek",
            "lz4_flex",
            "postcard",
            "rand_core",
            "serde",
            "spake2",
            "subtle",
            "thiserror",
            "tracing",
        ],
    ),
];

/// What the pure crates must not contain, not even through something else.
const IMPURE: [&str; 12] = [
    "tokio",
    "async-std",
    "smol",
    "mio",
    "libp2p",
    "libp2p-core",
    "axum",
    "hyper",
    "mdns-sd",
    "clap",
    "socket2",
    "notify",
];

/// Lines of a file that is no test, at most: a file holds one concept.
const LINES_MAX: usize = 800;

/// The folders of Rust code that is the product's own.
const SOURCES: [&str; 7] = [
    "schemas/src",
    "lanes/src",
    "replication/src",
    "node/src",
    "simnet/src",
    "benches/src",
    "tests",
];

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args)
        .arg("--offline")
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {} failed: {errors}", args.join(" "));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// What each package of the workspace names, of the workspace and of the outside; what only its own
/// tests name is in `dev`.
#[derive(Default)]
struct Names {
    inside: BTreeSet<String>,
    outside: BTreeSet<String>,
    dev_inside: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Names> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&text).expect("cargo metadata writes JSON");
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages is a list") {
        let mut names = Names::default();
        for dependency in package["dependencies"].as_array().expect("dependencies is a list") {
            let name = dependency["name"].as_str().expect("a name is text").to_owned();
            let inside = name.starts_with("srcos-");
            match (dependency["kind"].as_str(), inside) {
                (Some("dev"), true) => names.dev_inside.insert(name),
                (Some("dev"), false) => true,
                (_, true) => names.inside.insert(name),
                (_, false) => names.outside.insert(name),
            };
        }
        packages.insert(package["name"].as_str().expect("a name is text").to_owned(), names);
    }
    packages
}

/// Names of everything that a package contains in a normal build.
fn tree(package: &str) -> BTreeSet<String> {
    let text = cargo(&["tree", "-p", package, "-e", "normal", "--prefix", "none"]);
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn crates_depend_in_one_direction_only() {
    let packages = packages();
    for (package, allowed) in ALLOWED {
        let names = &packages[package];
        for name in names.inside.union(&names.dev_inside) {
            assert!(allowed.contains(&name.as_str()), "{package} must not name {name}");
        }
    }
    for (package, names) in &packages {
        for name in names.inside.union(&names.dev_inside) {
            let tests = ["srcos-tests", "srcos-benches"].contains(&package.as_str());
            assert!(tests || !OUTERMOST.contains(&name.as_str()), "{package} must not name {name}");
        }
    }
}

#[test]
fn inner_crates_name_only_the_outside_crates_that_were_argued_for() {
    let packages = packages();
    for (package, allowed) in OUTSIDE {
        for name in &packages[package].outside {
            assert!(allowed.contains(&name.as_str()), "{package} names {name}: see {}", file!());
        }
    }
}

#[test]
fn lanes_and_replication_contain_no_runtime_no_network_and_no_command_line() {
    for package in ["srcos-schemas", "srcos-lanes", "srcos-replication"] {
        let tree = tree(package);
        assert!(tree.contains(package), "cargo tree says nothing about {package}");
        for impure in IMPURE {
            assert!(!tree.contains(impure), "{package} contains {impure}");
        }
    }
    let simnet = tree("srcos-simnet");
    for absent in ["srcos-node", "tokio", "libp2p", "axum", "mdns-sd"] {
        assert!(!simnet.contains(absent), "srcos-simnet contains {absent}");
    }
    let node = tree("srcos-node");
    assert!(!node.contains("srcos-simnet"));
    // The check itself: these are what the node is made of, so a tree that lacks them is no tree.
    for there in ["tokio", "libp2p", "axum", "mdns-sd", "clap"] {
        assert!(node.contains(there), "srcos-node has lost {there}");
    }
}

#[test]
fn every_module_says_what_it_is() {
    for path in SOURCES.iter().flat_map(|folder| files(folder, "rs")) {
        let text = read(&path);
        let first = text.lines().find(|line| !line.starts_with("#![") && !line.is_empty());
        let says = first.and_then(|line| line.strip_prefix("//!")).unwrap_or_default().trim();
        assert!(says.len() >= 8 && says != "placeholder", "{path} must begin with a //! sentence");
    }
}

#[test]
fn no_file_holds_more_than_one_can_keep_in_mind() {
    for path in SOURCES.iter().flat_map(|folder| files(folder, "rs")) {
        if path.starts_with("tests/") || path.contains("/tests") {
            continue;
        }
        let text = read(&path);
        let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines, at most {LINES_MAX}: split it");
    }
}

#[test]
fn runner_lists_every_module_of_the_tests() {
    let runner = read("tests/runner.rs");
    let listed: BTreeSet<&str> = runner
        .lines()
        .filter_map(|line| line.trim().strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let there: BTreeSet<String> = std::fs::read_dir(root().join("tests"))
        .expect("the tests have a folder")
        .filter_map(|entry| {
            let name = entry.expect("a folder entry can be read").file_name();
            Some(name.to_str()?.strip_suffix(".rs")?.to_owned())
        })
        .filter(|name| name != "runner")
        .collect();
    let listed: BTreeSet<String> = listed.into_iter().map(str::to_owned).collect();
    assert_eq!(listed, there);
}

#[test]
fn every_crate_takes_the_workspace_lints_and_its_licence() {
    for package in ["schemas", "lanes", "replication", "node", "simnet", "tests", "benches"] {
        let manifest = read(&format!("{package}/Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{package} has lints of its own");
        assert!(manifest.contains("license.workspace = true"), "{package} names no licence");
        assert!(manifest.contains("publish.workspace = true"), "{package} could be published");
    }
    // A crate's own clippy.toml replaces the root's, so each repeats the root's bans.
    let bans = |path: &str| -> BTreeSet<String> {
        read(path)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("{ path = \"")?.split('"').next())
            .map(str::to_owned)
            .collect()
    };
    let everywhere = bans("clippy.toml");
    assert!(!everywhere.is_empty());
    for package in ["lanes", "replication", "simnet"] {
        let own = bans(&format!("{package}/clippy.toml"));
        assert!(own.is_superset(&everywhere), "{package}/clippy.toml lost a ban of the root's");
        assert!(
            own.contains("std::time::Instant::now") && own.contains("std::collections::HashMap")
        );
    }
}
