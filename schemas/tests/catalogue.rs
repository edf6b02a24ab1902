//! `schemas/README.md` is the catalogue of contracts: held here to the contracts and files that there
//! are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use srcos_schemas::contracts::ALL;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rows of the catalogue: the cells of each, without the marks of code.
fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder().join("README.md")).unwrap();
    // The first table of the file is the catalogue.
    let catalogue = text.split("\n## Ids").next().unwrap_or_default();
    catalogue
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

#[test]
fn the_catalogue_has_one_full_row_for_each_contract_in_their_order() {
    let rows = rows();
    let names: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let contracts: Vec<&str> = ALL.iter().map(|contract| contract.name).collect();
    assert_eq!(names, contracts);
    for (row, contract) in rows.iter().zip(ALL) {
        let (member, text) = contract.discriminator.member();
        assert_eq!(row.len(), 7, "{}: name, URN, file, says, purpose, producer, consumers", row[0]);
        assert_eq!(row[1], contract.urn);
        assert_eq!(row[2], contract.file);
        assert_eq!(row[3], format!("{member}: {text}"));
        for cell in &row[4..] {
            assert!(cell.len() > 3, "{}: {row:?}", contract.name);
        }
    }
}

#[test]
fn every_schema_file_belongs_to_a_contract() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    let named: BTreeSet<String> = ALL.iter().map(|contract| contract.file.to_owned()).collect();
    assert_eq!(files, named);
}

/// The URN prefixes of ids that the catalogue lists, held to the schemas.
#[test]
fn the_catalogue_lists_every_urn_prefix_of_ids() {
    let text = fs::read_to_string(folder().join("README.md")).unwrap();
    for contract in ALL {
        let schema = contract.document();
        let pattern = schema.pointer("/properties/id/pattern").and_then(|pattern| pattern.as_str());
        if let Some(prefix) = pattern.and_then(|pattern| pattern.strip_prefix('^')) {
            let prefix = prefix.trim_end_matches(".+");
            assert!(
                text.contains(&format!("`{prefix}`")),
                "{}: {prefix} is not listed",
                contract.name
            );
        }
    }
}
