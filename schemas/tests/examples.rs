//! Every file under `examples/` is a test case.
//!
//! A document that lies in no folder `invalid` must hold, strictly, under the contract that it says
//! it follows. What lies in a folder `invalid` is named in that folder's `EXPECTED.tsv`, one line each:
//! file, contract (or `auto`), the rule that it must break, and the JSON pointer at which. The rule
//! `valid` says that the contract holds and that a tool refuses the document; that tool's test shows
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use srcos_schemas::contracts::{self, Options, Profile};
use srcos_schemas::json::{Limits, parse};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("examples")
}

/// Every file under a folder that ends in `.json`, in order.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|end| end == "json") {
            found.push(path);
        }
    }
}

fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    documents(&root(), &mut found);
    found
}

fn is_invalid(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("invalid"))
}

fn read(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap();
    parse(&bytes, Limits::BODY).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a folder `invalid` says of each of its files.
fn expected(folder: &Path) -> BTreeMap<String, [String; 3]> {
    let path = folder.join("EXPECTED.tsv");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut expected = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut columns = line.split('\t').map(str::to_owned);
        let name = columns.next().unwrap();
        let mut next = || columns.next().unwrap_or_default();
        let row = [next(), next(), next()];
        assert!(expected.insert(name, row).is_none(), "{}: {line} is twice there", path.display());
    }
    expected
}

#[test]
fn every_example_holds_strictly_under_the_contract_that_it_names() {
    let valid: Vec<PathBuf> = all().into_iter().filter(|path| !is_invalid(path)).collect();
    assert!(!valid.is_empty());
    for path in valid {
        let verdict =
            contracts::validate(&read(&path), &Options { strict: true, ..Options::default() });
        assert!(verdict.is_valid(), "{}: {:#?}", path.display(), verdict.errors);
        let contract = verdict.contract.unwrap();
        // Of the registry record no one form satisfies both profiles (ADR 0011).
        if contract.profiled && contract.name != "runtime-registry-integrity-record" {
            assert_eq!(verdict.profiles, Profile::ALL, "{}", path.display());
        }
    }
}

/// Invalid examples that cannot break one rule alone: what the schema refuses of them, or what they lack,
/// is what the other rules go by.
const MANY: [&str; 3] = ["result-of-nobody.json", "no-digest.json", "other-record.decision.json"];

#[test]
fn every_invalid_example_breaks_the_rule_that_it_is_there_for() {
    let mut folders = BTreeMap::new();
    for path in all().into_iter().filter(|path| is_invalid(path)) {
        let folder = path.parent().unwrap().to_owned();
        let rows = folders.entry(folder.clone()).or_insert_with(|| expected(&folder));
        let name = path.file_name().unwrap().to_str().unwrap();
        let row = rows.remove(name);
        let Some([contract, rule, place]) = row else {
            panic!("EXPECTED.tsv does not say which rule {} breaks", path.display());
        };
        let contract = match contract.as_str() {
            "auto" => None,
            name => Some(contracts::find(name).unwrap_or_else(|| panic!("no contract {name}"))),
        };
        let verdict = contracts::validate(
            &read(&path),
            &Options { contract, strict: true, ..Options::default() },
        );
        if rule == "valid" {
            assert!(verdict.is_valid(), "{}: {:#?}", path.display(), verdict.errors);
            continue;
        }
        let found = verdict.errors.iter().any(|error| error.rule == rule && error.path == place);
        assert!(found, "{}: no {rule} at {place:?}: {:#?}", path.display(), verdict.errors);
        let only = verdict.errors.iter().all(|error| error.rule == rule);
        assert!(only || MANY.contains(&name), "{}: {:#?}", path.display(), verdict.errors);
    }
    for (folder, rows) in folders {
        let absent: Vec<_> = rows.keys().collect();
        assert!(absent.is_empty(), "{}: EXPECTED.tsv names {absent:?}", folder.display());
    }
}

#[test]
fn every_contract_has_an_example() {
    let named: BTreeSet<&str> = all()
        .iter()
        .filter(|path| !is_invalid(path))
        .filter_map(|path| contracts::detect(&read(path)).ok())
        .map(|contract| contract.name)
        .collect();
    // The legacy event shares its discriminator with the event, so no example can name it.
    let all = contracts::ALL.iter().map(|contract| contract.name);
    let without: Vec<&str> =
        all.filter(|name| !named.contains(name) && *name != "event-legacy").collect();
    assert!(without.is_empty(), "no example of {without:?}");
}
