//! Documents of other implementations, with the verdicts that they must get, through the command line.
//!
//! They are not part of the project. The environment variable `SRCOS_CONFORMANCE` names the folder in
//! which they lie: one folder for each family, and `verdicts.tsv` (family, file without `.json`,
//! verdict, note). Without it nothing is compared, and the test says so.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;
use srcos_node::cli::{Io, run};
use srcos_node::run::Real;

/// Runs a command and gives its exit code and what it printed.
fn command(arguments: &[&str]) -> (u8, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut io = Io { input: &mut std::io::empty(), output: &mut out, errors: &mut err };
    let all = ["srcos-node", "--data-dir", "/nowhere"].into_iter().chain(arguments.iter().copied());
    let code = run(all, &Real, &mut io);
    // `ExitCode` can be compared only by how it prints.
    let code =
        (0..=255).find(|number| format!("{code:?}") == format!("{:?}", ExitCode::from(*number)));
    let text = [out, err].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (code.expect("an exit code is a byte"), text)
}

/// What the families are called here, where that differs.
fn contract(family: &str) -> &str {
    match family {
        "event-v0.1" => "event",
        "service-manifest" => "service",
        "trust-decision" => "agent-trust-decision",
        family => family,
    }
}

/// Whether this project takes a document of a family.
fn takes(family: &str, path: &Path) -> (bool, String) {
    let file = path.to_str().expect("a path of the folder is text");
    let (code, said) = match family {
        "identity-audit" => audit(path),
        "service-release-gates" => command(&["release", "check", "--service", file]),
        family => {
            let schema = contract(family);
            command(&[
                "contracts",
                "validate",
                "--json",
                "--profile",
                "published",
                "--schema",
                schema,
                file,
            ])
        }
    };
    assert!(code < 2, "{file}: exit {code}: {said}");
    (code == 0, said)
}

/// A pair of manifests in one file, each of which the command wants in a file of its own.
fn audit(path: &Path) -> (u8, String) {
    let text = std::fs::read(path).expect("a file of the folder can be read");
    let pair: Value = serde_json::from_slice(&text).expect("a pair is JSON");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [service, launch] = ["service", "launch"].map(|part| {
        let file = folder.path().join(part);
        std::fs::write(&file, pair[part].to_string()).expect("a temporary file");
        file.to_str().expect("a temporary path is text").to_owned()
    });
    command(&["identity", "audit", "--service", &service, "--launch", &launch])
}

#[test]
fn documents_of_other_implementations_get_the_verdicts_that_they_must() {
    let Some(folder) = std::env::var_os("SRCOS_CONFORMANCE").map(PathBuf::from) else {
        println!("skipped: SRCOS_CONFORMANCE names no folder of documents");
        return;
    };
    let verdicts = std::fs::read_to_string(folder.join("verdicts.tsv"))
        .unwrap_or_else(|error| panic!("{}: verdicts.tsv: {error}", folder.display()));
    let mut judged: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in verdicts.lines().skip(1).filter(|line| !line.is_empty()) {
        let mut columns = line.split('\t');
        let mut next = || columns.next().unwrap_or_default();
        let (family, file, verdict) = (next(), next(), next());
        assert!(["valid", "invalid"].contains(&verdict), "no verdict: {line}");
        let path = folder.join(family).join(format!("{file}.json"));
        let (taken, said) = takes(family, &path);
        *judged.entry(family).or_default() += 1;
        if taken != (verdict == "valid") {
            wrong.push(format!("{family}/{file} is {verdict}: {said}"));
        }
    }
    println!("{} documents of {} families", judged.values().sum::<usize>(), judged.len());
    assert!(!judged.is_empty(), "verdicts.tsv lists nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
