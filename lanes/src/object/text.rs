//! What differs between two strings, in bounded work: the edits that a text leaf is given.
//!
//! Myers' greedy comparison finds the fewest edits, in time that grows with their number. So it is
//! stopped at [`TEXT_EDITS_MAX`]. Two texts that differ in more are compared line by line, and each
//! stretch of lines that differs once more by characters; what is still too different is replaced.

use std::collections::BTreeMap;
use std::ops::Range;

/// Most characters, or lines, that are taken out and put in before the comparison is given up:
/// half a mebibyte of memory, and at the longest texts a tenth of a second.
pub const TEXT_EDITS_MAX: usize = 512;

/// A stretch that is replaced: characters of the one text by characters of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) from: Range<usize>,
    pub(super) with: Range<usize>,
}

/// The edits that make `old` into `new`, in their order. Applied from the last to the first, the
/// places of each are right.
pub(super) fn edits(old: &[char], new: &[char]) -> Vec<Edit> {
    by_characters(old, new).unwrap_or_else(|| by_lines(old, new))
}

fn by_characters(old: &[char], new: &[char]) -> Option<Vec<Edit>> {
    compare(old.len(), new.len(), |a, b| old[a] == new[b])
}

fn by_lines(old: &[char], new: &[char]) -> Vec<Edit> {
    let mut names = BTreeMap::new();
    let old_lines = Lines::of(old, &mut names);
    let new_lines = Lines::of(new, &mut names);
    let same = |a: usize, b: usize| old_lines.names[a] == new_lines.names[b];
    let found = compare(old_lines.names.len(), new_lines.names.len(), same);
    let whole = || vec![Edit { from: 0..old_lines.names.len(), with: 0..new_lines.names.len() }];
    let mut edits = Vec::new();
    for stretch in found.unwrap_or_else(whole) {
        let from = old_lines.characters(&stretch.from);
        let with = new_lines.characters(&stretch.with);
        match by_characters(&old[from.clone()], &new[with.clone()]) {
            Some(finer) => edits.extend(finer.into_iter().map(|edit| Edit {
                from: edit.from.start + from.start..edit.from.end + from.start,
                with: edit.with.start + with.start..edit.with.end + with.start,
            })),
            None => edits.push(Edit { from, with }),
        }
    }
    edits
}

/// The lines of a text: a number for each, the same for the same line, and where it starts.
struct Lines {
    names: Vec<usize>,
    starts: Vec<usize>,
}

impl Lines {
    fn of<'t>(text: &'t [char], names: &mut BTreeMap<&'t [char], usize>) -> Self {
        let mut lines = Self { names: Vec::new(), starts: vec![0] };
        for line in text.split_inclusive(|character| *character == '\n') {
            let next = names.len();
            lines.names.push(*names.entry(line).or_insert(next));
            lines.starts.push(lines.starts[lines.starts.len() - 1] + line.len());
        }
        lines
    }

    fn characters(&self, lines: &Range<usize>) -> Range<usize> {
        self.starts[lines.start]..self.starts[lines.end]
    }
}

/// The fewest edits between two sequences, or `None` when they are more than are looked for.
fn compare(old: usize, new: usize, same: impl Fn(usize, usize) -> bool) -> Option<Vec<Edit>> {
    let start = (0..old.min(new)).take_while(|at| same(*at, *at)).count();
    let rest = old.min(new) - start;
    let end = (1..=rest).take_while(|back| same(old - back, new - back)).count();
    let (n, m) = (old - start - end, new - start - end);
    let at = |x: usize, y: usize| same(start + x, start + y);
    let mut edits: Vec<Edit> = Vec::new();
    // From the end of both to their start; steps that touch are one edit.
    let mut note = |from: Range<usize>, with: Range<usize>| {
        let (from, with) =
            (from.start + start..from.end + start, with.start + start..with.end + start);
        match edits.last_mut() {
            Some(last) if last.from.start == from.end && last.with.start == with.end => {
                last.from.start = from.start;
                last.with.start = with.start;
            }
            _ => edits.push(Edit { from, with }),
        }
    };
    if n == 0 || m == 0 {
        if n + m > 0 {
            note(0..n, 0..m);
        }
        return Some(edits);
    }
    let trace = furthest(n, m, at)?;
    let (mut x, mut y) = (n, m);
    for d in (1..trace.len()).rev() {
        let before = &trace[d - 1];
        // On which diagonal the step to this one began: k = x - y, kept at (k + d) / 2.
        let k = x as isize - y as isize;
        let reach = |k: isize| before.get(usize::try_from((k + d as isize - 1) / 2).ok()?).copied();
        let below = (k + 1 < d as isize).then(|| reach(k + 1)).flatten();
        let left = (k - 1 > -(d as isize)).then(|| reach(k - 1)).flatten();
        let down = match (left, below) {
            (None, _) => true,
            (Some(left), Some(below)) => left < below,
            (Some(_), None) => false,
        };
        if down {
            let from_x = below.unwrap_or(0);
            let from_y = (from_x as isize - (k + 1)) as usize;
            note(from_x..from_x, from_y..from_y + 1);
            (x, y) = (from_x, from_y);
        } else {
            let from_x = left.unwrap_or(0);
            let from_y = (from_x as isize - (k - 1)) as usize;
            note(from_x..from_x + 1, from_y..from_y);
            (x, y) = (from_x, from_y);
        }
    }
    edits.reverse();
    Some(edits)
}

/// For each number of edits, how far each diagonal is reached with so many; the last reaches the
/// end of both.
fn furthest(n: usize, m: usize, same: impl Fn(usize, usize) -> bool) -> Option<Vec<Vec<usize>>> {
    let mut trace: Vec<Vec<usize>> = Vec::new();
    for d in 0..=TEXT_EDITS_MAX.min(n + m) {
        let mut reached = Vec::with_capacity(d + 1);
        for step in 0..=d {
            let k = 2 * step as isize - d as isize;
            // One edit fewer, from the diagonal above or from the one below.
            let (left, below) = match trace.last() {
                None => (None, Some(0)),
                Some(before) => {
                    (step.checked_sub(1).map(|at| before[at]), before.get(step).copied())
                }
            };
            let mut x = match (left, below) {
                (Some(left), Some(below)) if left < below => below,
                (None, Some(below)) => below,
                (Some(left), _) => left + 1,
                (None, None) => 0,
            };
            // Beyond the edge: a place that no edit reaches, kept so that numbers stay in order.
            let mut y = x as isize - k;
            while x < n && (0..m as isize).contains(&y) && same(x, y as usize) {
                (x, y) = (x + 1, y + 1);
            }
            reached.push(x);
            if x >= n && y >= m as isize {
                trace.push(reached);
                return Some(trace);
            }
        }
        trace.push(reached);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(old: &str, new: &str) -> (String, usize) {
        let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
        let edits = edits(&old, &new);
        let mut made = old;
        let mut touched = 0;
        for edit in edits.iter().rev() {
            touched += edit.from.len() + edit.with.len();
            made.splice(edit.from.clone(), new[edit.with.clone()].iter().copied());
        }
        (made.into_iter().collect(), touched)
    }

    #[test]
    fn edits_are_as_few_as_can_be() {
        assert_eq!(applied("abcabba", "cbabac"), ("cbabac".into(), 5));
        assert_eq!(applied("", "abc"), ("abc".into(), 3));
        assert_eq!(applied("abc", ""), (String::new(), 3));
        assert_eq!(applied("same", "same"), ("same".into(), 0));
        let long = "word ".repeat(9_000);
        let changed = format!("first {long}last");
        assert_eq!(applied(&long, &changed), (changed.clone(), 10));
    }

    #[test]
    fn texts_that_differ_much_keep_the_lines_that_are_the_same() {
        let line = |n: usize, word: &str| format!("{word} number {n} of a long text\n");
        let old: String = (0..900).map(|n| line(n, "line")).collect();
        let new: String =
            (0..900).map(|n| line(n, if n % 9 == 0 { "something else" } else { "line" })).collect();
        let (made, touched) = applied(&old, &new);
        assert_eq!(made, new);
        assert!(touched < 100 * 2 * "something else".len(), "{touched}");
    }

    proptest! {
        #[test]
        fn edits_make_the_one_text_into_the_other(old in "[ab\n]{0,40}", new in "[ab\né]{0,40}") {
            prop_assert_eq!(applied(&old, &new).0, new);
        }

        #[test]
        fn texts_beyond_the_bound_are_made_into_each_other(
            old in "[a-e\n]{600,900}",
            new in "[a-e\n]{600,900}",
        ) {
            prop_assert_eq!(applied(&old, &new).0, new);
        }
    }
}
