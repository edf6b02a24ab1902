//! Deliberate bugs in lanes and replication, and how soon a run finds each.
//!
//! Named scenarios are tried first, each with one seed, then random seeds. A run that fails without
//! any bug would prove nothing, so every run that finds a bug is repeated without it and must pass.

use srcos_lanes::bug::Bug;

/// Where the table starts in a document.
pub const TABLE_BEGIN: &str = "<!-- bite: begin -->";
/// Where it ends.
pub const TABLE_END: &str = "<!-- bite: end -->";

/// What became of one bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The bug.
    pub bug: Bug,
    /// The scenario that found it, after how many runs of that kind, and what broke.
    pub found: Option<Found>,
}

/// How a bug was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The scenario, or `random`.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Random seeds that were run until then.
    pub seeds: u64,
    /// The invariant, `liveness` or `panic`.
    pub broke: String,
}

/// The rows as a table of a document.
pub fn table(rows: &[Row]) -> String {
    let mut table =
        "| bug | what it does | found by | after random seeds | what broke |\n|---|---|---|---|---|\n"
            .to_owned();
    for Row { bug, found } in rows {
        let (by, seeds, broke) = match found {
            Some(found) if found.seeds == 0 => {
                (format!("`{}`", found.scenario), "-".to_owned(), found.broke.as_str())
            }
            Some(found) => (
                format!("random, seed {}", found.seed),
                found.seeds.to_string(),
                found.broke.as_str(),
            ),
            None => ("**not found**".into(), "-".into(), "-"),
        };
        let (name, what) = (bug.name(), bug.what());
        table += &format!("| `{name}` | {what} | {by} | {seeds} | `{broke}` |\n");
    }
    table
}

/// A document with the table between its markers.
pub fn put_table(text: &str, table: &str) -> Result<String, String> {
    let missing = || format!("the document has no {TABLE_BEGIN} and {TABLE_END}");
    let (before, rest) = text.split_once(TABLE_BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(TABLE_END).ok_or_else(missing)?;
    Ok(format!("{before}{TABLE_BEGIN}\n{table}{TABLE_END}{after}"))
}

/// Looks for each bug, or for one.
#[cfg(not(srcos_bug))]
pub fn hunt(_: u64, _: Option<&str>, _: impl Fn(&str)) -> Result<Vec<Row>, String> {
    Err("this build has no deliberate bugs; `just bite` makes one that has".into())
}

/// Looks for each bug, or for one.
#[cfg(srcos_bug)]
pub fn hunt(seeds: u64, only: Option<&str>, say: impl Fn(&str)) -> Result<Vec<Row>, String> {
    let chosen: Vec<Bug> =
        Bug::ALL.iter().copied().filter(|bug| only.is_none_or(|name| name == bug.name())).collect();
    if chosen.is_empty() {
        return Err("no such bug".into());
    }
    Ok(chosen
        .into_iter()
        .map(|bug| {
            let found = find(bug, seeds);
            say(&format!("{}: {found:?}", bug.name()));
            Row { bug, found }
        })
        .collect())
}

#[cfg(srcos_bug)]
fn find(bug: Bug, seeds: u64) -> Option<Found> {
    let named = crate::scenarios::all().filter(|scenario| scenario.exit_code == 0);
    let named = named.map(|scenario| (scenario.name.to_owned(), 1, 0));
    let random = (1..=seeds).map(|seed| ("random".to_owned(), seed, seed));
    named.chain(random).find_map(|(scenario, seed, tried)| {
        let case = crate::shrink::Case::draw(seed, &scenario)?;
        let broke = broken(&case, Some(bug))?;
        broken(&case, None).is_none().then_some(Found { scenario, seed, seeds: tried, broke })
    })
}

/// What breaks in a case, with a bug or without.
#[cfg(srcos_bug)]
fn broken(case: &crate::shrink::Case, bug: Option<Bug>) -> Option<String> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    srcos_lanes::bug::select(bug);
    let report = catch_unwind(AssertUnwindSafe(|| case.run(None)));
    srcos_lanes::bug::select(None);
    match report {
        Err(_) => Some("panic".into()),
        Ok(report) => Some(report.verdict.subject().to_owned()).filter(|what| !what.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_replaces_what_stands_between_the_markers() {
        let text = format!("a\n{TABLE_BEGIN}\nold\n{TABLE_END}\nb\n");
        let found =
            Found { scenario: "random".into(), seed: 7, seeds: 7, broke: "liveness".into() };
        let row = Row { bug: Bug::SkipSignature, found: Some(found) };
        let new = put_table(&text, &table(&[row])).unwrap();
        assert!(new.contains("| `skip-signature` |") && !new.contains("old"), "{new}");
        assert!(new.contains("random, seed 7") && new.ends_with("b\n"));
        assert!(put_table("no markers", "").is_err());
    }
}
