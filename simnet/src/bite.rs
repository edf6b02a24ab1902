//! Deliberate bugs in lanes and replication, and how soon a run finds each.
//!
//! Named scenarios are tried first, each with one seed, then random seeds. A run that fails without
//! any bug would prove nothing, so every run that finds a bug is repeated without it and must pass.

use srcos_lanes::bug::Bug;

/// Where the table starts in a document.
pub const TABLE_BEGIN: &str = "<!-- bite: begin -->";
/// Where it ends.
pub const TABLE_END: &str = "<!-- bite: end -->";
/// The seed with which each named scenario is tried.
const SCENARIO_SEED: u64 = 1;

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

/// The rows of a document's table that say how a bug was found.
pub fn read_table(text: &str) -> Vec<Row> {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, by, _, broke, _] = cells.as_slice() else { return None };
        let bug = Bug::ALL.iter().find(|bug| bug.name() == name.trim_matches('`'))?;
        let (scenario, seed) = match by.strip_prefix("random, seed ") {
            Some(seed) => ("random".to_owned(), seed.parse().ok()?),
            None => (by.strip_prefix('`')?.strip_suffix('`')?.to_owned(), SCENARIO_SEED),
        };
        let broke = broke.trim_matches('`').to_owned();
        let seeds = if scenario == "random" { seed } else { 0 };
        Some(Row { bug: *bug, found: Some(Found { scenario, seed, seeds, broke }) })
    });
    rows.collect()
}

/// What became of a bug of the table when it was tried again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Again {
    /// The run that the table names finds it still.
    AsNamed,
    /// That run finds nothing any more, and another does.
    Elsewhere(Found),
    /// Neither that run nor a new search finds it.
    Lost,
}

impl Again {
    /// Whether anything finds it.
    pub fn is_found(&self) -> bool {
        !matches!(self, Self::Lost)
    }
}

/// Tries what the table names for a bug, and searches anew when that finds nothing: a seed means another
/// world as soon as anything draws differently.
pub fn again(
    bug: Bug,
    table: &[Row],
    confirm: impl FnOnce(&Row) -> Result<bool, String>,
    hunt: impl FnOnce(Bug) -> Result<Row, String>,
) -> Result<Again, String> {
    let row = table.iter().find(|row| row.bug == bug);
    if row.map_or(Ok(false), confirm)? {
        return Ok(Again::AsNamed);
    }
    Ok(hunt(bug)?.found.map_or(Again::Lost, Again::Elsewhere))
}

/// Looks for a bug.
#[cfg(not(srcos_bug))]
pub fn hunt(_: Bug, _: u64) -> Result<Row, String> {
    Err("this build has no deliberate bugs; `just bite` makes one that has".into())
}

/// Whether the run that found a bug finds it still, and nothing without it.
#[cfg(not(srcos_bug))]
pub fn confirm(_: &Row) -> Result<bool, String> {
    Err("this build has no deliberate bugs; `just bite` makes one that has".into())
}

#[cfg(srcos_bug)]
pub use hunting::{confirm, hunt};

#[cfg(srcos_bug)]
mod hunting {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use srcos_lanes::bug::{self, Bug};

    use super::{Found, Row, SCENARIO_SEED};
    use crate::scenarios;
    use crate::shrink::Case;

    /// Looks for a bug: in every named scenario, then in so many random seeds.
    pub fn hunt(bug: Bug, seeds: u64) -> Result<Row, String> {
        let named = scenarios::all().filter(|scenario| scenario.exit_code == 0);
        let named = named.map(|scenario| (scenario.name.to_owned(), SCENARIO_SEED, 0));
        let random = (1..=seeds).map(|seed| ("random".to_owned(), seed, seed));
        let found = named.chain(random).find_map(|(scenario, seed, seeds)| {
            let broke = finds(bug, &scenario, seed)?;
            Some(Found { scenario, seed, seeds, broke })
        });
        Ok(Row { bug, found })
    }

    /// Whether the run that found a bug finds it still, and nothing without it.
    pub fn confirm(row: &Row) -> Result<bool, String> {
        let Some(found) = &row.found else { return Ok(false) };
        Ok(finds(row.bug, &found.scenario, found.seed).is_some())
    }

    /// What a bug breaks in a run that passes without it.
    fn finds(bug: Bug, scenario: &str, seed: u64) -> Option<String> {
        let case = Case::draw(seed, scenario)?;
        let broke = broken(&case, Some(bug))?;
        broken(&case, None).is_none().then_some(broke)
    }

    /// What breaks in a case, with a bug or without.
    fn broken(case: &Case, selected: Option<Bug>) -> Option<String> {
        bug::select(selected);
        let report = catch_unwind(AssertUnwindSafe(|| case.run(None)));
        bug::select(None);
        match report {
            Err(_) => Some("panic".into()),
            Ok(report) => Some(report.verdict.subject().to_owned()).filter(|what| !what.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bug: Bug, seed: u64) -> Row {
        let found =
            Found { scenario: "random".into(), seed, seeds: seed, broke: "liveness".into() };
        Row { bug, found: Some(found) }
    }

    #[test]
    fn table_replaces_what_stands_between_the_markers() {
        let text = format!("a\n{TABLE_BEGIN}\nold\n{TABLE_END}\nb\n");
        let row = row(Bug::SkipSignature, 7);
        let new = put_table(&text, &table(std::slice::from_ref(&row))).unwrap();
        assert_eq!(read_table(&new), [row]);
        assert!(new.contains("| `skip-signature` |") && !new.contains("old"), "{new}");
        assert!(new.contains("random, seed 7") && new.ends_with("b\n"));
        assert!(put_table("no markers", "").is_err());
    }

    #[test]
    fn bug_that_its_row_finds_no_more_is_searched_anew_and_only_then() {
        let table = [row(Bug::SkipSignature, 7), row(Bug::SkipSeal, 9)];
        let named = |row: &Row| Ok(row.bug == Bug::SkipSignature);
        let none = |_| -> Result<Row, String> { panic!("there was no need to search") };
        assert_eq!(again(Bug::SkipSignature, &table, named, none), Ok(Again::AsNamed));
        // Its row finds nothing any more, or it has none.
        for bug in [Bug::SkipSeal, Bug::IgnoreGap] {
            let elsewhere = again(bug, &table, named, |bug| Ok(row(bug, 3))).unwrap();
            assert_eq!(elsewhere, Again::Elsewhere(row(bug, 3).found.unwrap()));
            assert!(elsewhere.is_found());
            let lost = again(bug, &table, named, |bug| Ok(Row { bug, found: None })).unwrap();
            assert!(lost == Again::Lost && !lost.is_found());
        }
        let fails = |_: &Row| Err("no bugs in this build".to_owned());
        assert!(again(Bug::SkipSeal, &table, fails, none).is_err());
    }

    /// With the bugs themselves: `RUSTC_WORKSPACE_WRAPPER="$PWD/simnet/with-bugs" cargo test -p
    /// srcos-simnet bite`.
    #[cfg(srcos_bug)]
    #[test]
    fn search_finds_a_bug_whose_row_names_a_run_that_finds_nothing() {
        // The quiet scenario that secrets stay in knows nothing of seals.
        let mut stale = row(Bug::SkipSeal, 1);
        stale.found.as_mut().unwrap().scenario = "secrets-stay".into();
        assert_eq!(confirm(&stale), Ok(false));
        let found = again(Bug::SkipSeal, &[stale], confirm, |bug| hunt(bug, 0)).unwrap();
        assert!(matches!(found, Again::Elsewhere(found) if found.seeds == 0));
    }
}
