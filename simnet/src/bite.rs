//! Deliberate bugs in lanes and replication, and how soon runs find each.
//!
//! Each is looked for twice: in the named scenarios, with one seed each, and in random seeds from 1 on. A
//! run that fails without any bug would prove nothing, so every run that finds a bug is repeated without it
//! and must pass.

use srcos_lanes::bug::Bug;

/// Where the table starts in a document.
pub const TABLE_BEGIN: &str = "<!-- bite: begin -->";
/// Where it ends.
pub const TABLE_END: &str = "<!-- bite: end -->";
/// The seed with which each named scenario is tried.
const SCENARIO_SEED: u64 = 1;
/// The name of worlds that are drawn whole.
const RANDOM: &str = "random";

/// What became of one bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The bug.
    pub bug: Bug,
    /// The first named scenario that finds it.
    pub story: Option<Found>,
    /// The first random seed that finds it; they are tried from 1 on.
    pub random: Option<Found>,
}

/// A run that found a bug.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The scenario, or `random`.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The invariant, `liveness` or `panic`.
    pub broke: String,
}

impl Row {
    /// The runs that found it.
    pub fn found(&self) -> impl Iterator<Item = &Found> {
        self.story.iter().chain(&self.random)
    }

    /// Whether any run found it.
    pub fn is_found(&self) -> bool {
        self.found().next().is_some()
    }
}

/// The rows as a table of a document.
pub fn table(rows: &[Row]) -> String {
    let mut table = "| bug | what it does | story | what broke | random seed | what broke |\n\
                     |---|---|---|---|---:|---|\n"
        .to_owned();
    for row in rows {
        let (name, what) = (row.bug.name(), row.bug.what());
        let cells = |found: Option<&Found>, by: &dyn Fn(&Found) -> String| match found {
            Some(found) => format!("{} | `{}`", by(found), found.broke),
            None if row.is_found() => "- | -".to_owned(),
            None => "**not found** | -".to_owned(),
        };
        let story = cells(row.story.as_ref(), &|found| format!("`{}`", found.scenario));
        let random = cells(row.random.as_ref(), &|found| found.seed.to_string());
        table += &format!("| `{name}` | {what} | {story} | {random} |\n");
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
        let [_, name, _, story, broke, seed, broke_random, _] = cells.as_slice() else {
            return None;
        };
        let bug = Bug::ALL.iter().find(|bug| bug.name() == name.trim_matches('`'))?;
        let found = |scenario: &str, seed, broke: &str| {
            let (scenario, broke) = (scenario.to_owned(), broke.trim_matches('`').to_owned());
            Found { scenario, seed, broke }
        };
        let story = story.strip_prefix('`').and_then(|story| story.strip_suffix('`'));
        let story = story.map(|story| found(story, SCENARIO_SEED, broke));
        let random = seed.parse().ok().map(|seed| found(RANDOM, seed, broke_random));
        Some(Row { bug: *bug, story, random })
    });
    rows.filter(Row::is_found).collect()
}

/// What became of a bug of the table when it was tried again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Again {
    /// The runs that the table names find it still.
    AsNamed,
    /// One of them does, and this one finds nothing any more.
    Partly(Found),
    /// Those runs find nothing any more, and another does.
    Elsewhere(Row),
    /// Neither they nor a new search find it.
    Lost,
}

impl Again {
    /// Whether anything finds it.
    pub fn is_found(&self) -> bool {
        !matches!(self, Self::Lost)
    }
}

/// Tries what the table names for a bug, and searches anew when none of it finds anything: a seed means
/// another world as soon as anything draws differently.
pub fn again(
    bug: Bug,
    table: &[Row],
    confirm: impl Fn(Bug, &Found) -> Result<bool, String>,
    hunt: impl FnOnce(Bug) -> Result<Row, String>,
) -> Result<Again, String> {
    let (mut finds, mut lost) = (false, None);
    for found in table.iter().filter(|row| row.bug == bug).flat_map(Row::found) {
        match confirm(bug, found)? {
            true => finds = true,
            false => lost = Some(found.clone()),
        }
    }
    Ok(match (finds, lost) {
        (true, None) => Again::AsNamed,
        (true, Some(lost)) => Again::Partly(lost),
        (false, _) => match hunt(bug)? {
            row if row.is_found() => Again::Elsewhere(row),
            _ => Again::Lost,
        },
    })
}

/// Looks for a bug.
#[cfg(not(srcos_bug))]
pub fn hunt(_: Bug, _: u64) -> Result<Row, String> {
    Err("this build has no deliberate bugs; `just bite` makes one that has".into())
}

/// Whether the run that found a bug finds it still, and nothing without it.
#[cfg(not(srcos_bug))]
pub fn confirm(_: Bug, _: &Found) -> Result<bool, String> {
    Err("this build has no deliberate bugs; `just bite` makes one that has".into())
}

#[cfg(srcos_bug)]
pub use hunting::{confirm, hunt};

#[cfg(srcos_bug)]
mod hunting {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use srcos_lanes::bug::{self, Bug};

    use super::{Found, RANDOM, Row, SCENARIO_SEED};
    use crate::scenarios;
    use crate::shrink::Case;

    /// Looks for a bug: in the named scenarios, and in so many random seeds.
    pub fn hunt(bug: Bug, seeds: u64) -> Result<Row, String> {
        let found = |scenario: &str, seed| {
            let broke = finds(bug, scenario, seed)?;
            Some(Found { scenario: scenario.to_owned(), seed, broke })
        };
        let named = scenarios::all().filter(|scenario| scenario.exit_code == 0);
        let story = named.map(|scenario| scenario.name).find_map(|name| found(name, SCENARIO_SEED));
        let random = (1..=seeds).find_map(|seed| found(RANDOM, seed));
        Ok(Row { bug, story, random })
    }

    /// Whether a run that found a bug finds it still, and nothing without it.
    pub fn confirm(bug: Bug, found: &Found) -> Result<bool, String> {
        Ok(finds(bug, &found.scenario, found.seed).is_some())
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

    fn found(scenario: &str, seed: u64) -> Found {
        Found { scenario: scenario.into(), seed, broke: "liveness".into() }
    }

    fn row(bug: Bug, seed: u64) -> Row {
        Row { bug, story: Some(found("forged-entry", 1)), random: Some(found("random", seed)) }
    }

    #[test]
    fn table_replaces_what_stands_between_the_markers_and_is_read_again() {
        let text = format!("a\n{TABLE_BEGIN}\nold\n{TABLE_END}\nb\n");
        let rows = [
            row(Bug::SkipSignature, 7),
            Row { story: None, ..row(Bug::SkipSeal, 9) },
            Row { random: None, ..row(Bug::IgnoreGap, 0) },
        ];
        let new = put_table(&text, &table(&rows)).unwrap();
        assert_eq!(read_table(&new), rows);
        assert!(new.contains("| `skip-signature` |") && !new.contains("old"), "{new}");
        assert!(new.ends_with("b\n") && !new.contains("not found"), "{new}");
        let none = Row { bug: Bug::IgnoreGap, story: None, random: None };
        let text = table(&[none]);
        assert!(text.contains("**not found**") && read_table(&text).is_empty(), "{text}");
        assert!(put_table("no markers", "").is_err());
    }

    #[test]
    fn bug_that_its_row_finds_no_more_is_searched_anew_and_only_then() {
        let table = [row(Bug::SkipSignature, 7), row(Bug::SkipSeal, 9), row(Bug::SkipBodies, 5)];
        let stale = found("random", 9);
        // Of the second row the story is left, of the third nothing.
        let named = |bug, found: &Found| Ok(bug != Bug::SkipBodies && *found != stale);
        let none = |_| -> Result<Row, String> { panic!("there was no need to search") };
        assert_eq!(again(Bug::SkipSignature, &table, named, none), Ok(Again::AsNamed));
        assert_eq!(again(Bug::SkipSeal, &table, named, none), Ok(Again::Partly(stale.clone())));
        // The last has no row.
        for bug in [Bug::SkipBodies, Bug::IgnoreGap] {
            let elsewhere = again(bug, &table, named, |bug| Ok(row(bug, 3))).unwrap();
            assert_eq!(elsewhere, Again::Elsewhere(row(bug, 3)));
            assert!(elsewhere.is_found());
            let empty = |bug| Ok(Row { bug, story: None, random: None });
            let lost = again(bug, &table, named, empty).unwrap();
            assert!(lost == Again::Lost && !lost.is_found());
        }
        let fails = |_, _: &Found| Err("no bugs in this build".to_owned());
        assert!(again(Bug::SkipSeal, &table, fails, none).is_err());
    }

    /// With the bugs themselves: `RUSTC_WORKSPACE_WRAPPER="$PWD/simnet/with-bugs" cargo test -p
    /// srcos-simnet bite`.
    #[cfg(srcos_bug)]
    #[test]
    fn search_finds_a_bug_whose_row_names_a_run_that_finds_nothing() {
        // The quiet scenario that secrets stay in knows nothing of seals.
        let stale = found("secrets-stay", 1);
        assert_eq!(confirm(Bug::SkipSeal, &stale), Ok(false));
        let stale = Row { bug: Bug::SkipSeal, story: Some(stale), random: None };
        let found = again(Bug::SkipSeal, &[stale], confirm, |bug| hunt(bug, 0)).unwrap();
        assert!(matches!(found, Again::Elsewhere(row) if row.story.is_some()));
    }
}
