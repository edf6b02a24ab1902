//! Checks a store from its first line to its head, and names the line at which something is wrong.

mod line;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use srcos_lanes::ids::DeviceId;

use self::line::{Facts, examine};
use super::head::Head;
use super::link::{Hash, Link, hash_text, sha256};
use super::scan::{BlockKind, Blocks};
use super::{EventStoreError, LINE_BYTES_MAX};

/// Most findings that a report lists; all are counted. A store with more is lost, not mendable.
pub const FINDINGS_MAX: usize = 1000;

/// Most threads that a check uses: it is to be quick, and not to take a machine from its user.
const THREADS_MAX: usize = 4;

/// Lines that a thread takes at once: few enough that all threads end together, many enough that
/// taking them costs nothing.
const SHARE_LINES: usize = 64;

/// What checking a store gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreReport {
    /// Whether nothing wrong was found.
    pub valid: bool,
    /// Events that the file holds.
    pub events: u64,
    /// Those of them that are linked.
    pub linked: u64,
    /// SHA-256 of the whole file.
    pub digest: String,
    /// The head beside the file.
    pub head: HeadState,
    /// Devices whose signatures are in the store, at most [`SIGNERS_MAX`].
    pub signed_by: Vec<String>,
    /// What is wrong, in the order of lines, at most [`FINDINGS_MAX`].
    pub findings: Vec<StoreFinding>,
    /// How much is wrong.
    pub findings_total: u64,
    /// What is not wrong and should be known.
    pub notes: Vec<String>,
}

/// Most devices that a report names: a store has one, or a few after a change of keys.
pub const SIGNERS_MAX: usize = 16;

/// What is known of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadState {
    /// Signed by the device that was expected, or by one that nobody was expected to be.
    Signed,
    /// There, and signed by nobody.
    Unsigned,
    /// Not there. With lines of this program that is a finding: lines cut off at the end would not be
    /// missed.
    Missing,
    /// There, and wrong.
    Wrong,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreFinding {
    /// The line of the file, from 1; for what is missing, the line that should have been there.
    pub line: u64,
    /// A stable code.
    pub code: &'static str,
    /// What is wrong, in words.
    pub message: String,
}

/// Whose store it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anybody's: signatures must hold, whoever made them.
    Anybody,
    /// What is signed must be signed by this device.
    Device(DeviceId),
    /// Signed by this device, its head at least.
    SignedBy(DeviceId),
}

/// Checks a store that nobody adds to at the moment.
pub fn verify(
    path: &Path,
    file: Option<File>,
    expected: Expected,
) -> Result<StoreReport, EventStoreError> {
    let mut check = Check::new(expected);
    match Head::read(path) {
        Ok(head) => check.head = head,
        Err(EventStoreError::Damaged { .. }) => check.head_unreadable = true,
        Err(error) => return Err(error),
    }
    if let Some(file) = file {
        let io = |error| EventStoreError::io("read", path)(error);
        let mut blocks = Blocks::new(file, 0, 1);
        while let Some(block) = blocks.next_block().map_err(io)? {
            match block.kind {
                BlockKind::Lines => {
                    let lines: Vec<&[u8]> = block.lines().collect();
                    check.lines(block.first_line, block.bytes, &lines);
                    check.bytes += block.bytes.len() as u64;
                }
                BlockKind::TooLong => {
                    let message = format!("the line has more than {LINE_BYTES_MAX} bytes");
                    check.broken(block.first_line, "unreadable", message);
                    check.whole = false;
                }
                BlockKind::Unended => check.unended(block.first_line, block.bytes),
            }
        }
    }
    Ok(check.finish())
}

/// What is known while lines are read in order.
struct Check {
    device: Option<DeviceId>,
    must_be_signed: bool,
    head: Option<Head>,
    head_unreadable: bool,
    digest: Sha256,
    /// Whether all bytes went into the digest.
    whole: bool,
    bytes: u64,
    events: u64,
    linked: u64,
    /// The line that should come next, and the last one that was there.
    next: u64,
    last: Option<Last>,
    /// Lines that were broken since the last good one: they stand for lines that seem missing.
    broken_since: u64,
    /// Lines passed over, as first and one beyond last: missing, unless they turn up later.
    gaps: BTreeMap<u64, u64>,
    /// Empty lines before the first linked one, at most [`FINDINGS_MAX`].
    blanks: Vec<u64>,
    /// The hash of the line at which the head ends, and of the first linked one.
    at_head: Option<Hash>,
    first_linked: Option<(u64, Hash)>,
    /// The last line that stands in its place and says another number.
    misnumbered: Option<u64>,
    torn: Option<u64>,
    ids: HashMap<u128, u64>,
    signers: Vec<DeviceId>,
    findings: BTreeMap<(u64, u64), StoreFinding>,
    total: u64,
    notes: Vec<String>,
}

/// The last line that was in its place.
struct Last {
    facts: Facts,
    text: Vec<u8>,
}

impl Last {
    fn signature_holds(&self) -> Option<bool> {
        self.facts.signature_holds(&self.text)
    }
}

impl Check {
    fn new(expected: Expected) -> Self {
        let (device, must_be_signed) = match expected {
            Expected::Anybody => (None, false),
            Expected::Device(device) => (Some(device), false),
            Expected::SignedBy(device) => (Some(device), true),
        };
        Self {
            device,
            must_be_signed,
            head: None,
            head_unreadable: false,
            digest: Sha256::new(),
            whole: true,
            bytes: 0,
            events: 0,
            linked: 0,
            next: 1,
            last: None,
            broken_since: 0,
            gaps: BTreeMap::new(),
            blanks: Vec::new(),
            at_head: None,
            first_linked: None,
            misnumbered: None,
            torn: None,
            ids: HashMap::new(),
            signers: Vec::new(),
            findings: BTreeMap::new(),
            total: 0,
            notes: Vec::new(),
        }
    }

    fn found(&mut self, line: u64, code: &'static str, message: impl Into<String>) {
        self.total += 1;
        if self.findings.len() < FINDINGS_MAX {
            let finding = StoreFinding { line, code, message: message.into() };
            self.findings.insert((line, self.total), finding);
        }
    }

    /// Whether something was found at a line already.
    fn is_known(&self, line: u64) -> bool {
        self.findings.range((line, 0)..=(line, u64::MAX)).next().is_some()
    }

    fn broken(&mut self, line: u64, code: &'static str, message: impl Into<String>) {
        self.found(line, code, message);
        self.broken_since += 1;
    }

    /// Looks at lines that follow each other: each on its own first, by several threads, and then how
    /// they go together.
    fn lines(&mut self, first_line: u64, bytes: &[u8], lines: &[&[u8]]) {
        let mut number = first_line;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let threads = threads.min(lines.len().div_ceil(SHARE_LINES));
        // Up to the first linked line it matters what came before each one.
        let mut digest = (self.linked > 0).then(|| self.digest.clone());
        let next = AtomicUsize::new(0);
        let look = || {
            let mut looked_at = Vec::new();
            loop {
                let first = next.fetch_add(SHARE_LINES, Ordering::Relaxed);
                let Some(rest) = lines.get(first..).filter(|rest| !rest.is_empty()) else { break };
                let share = rest.iter().take(SHARE_LINES).map(|line| examine(line));
                looked_at.push((first, share.collect::<Vec<Facts>>()));
            }
            looked_at
        };
        let mut examined = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(look)).collect();
            if let Some(digest) = &mut digest {
                digest.update(bytes);
            }
            let mut all = look();
            for other in others {
                // Holds: looking at a line never panics, which a property test shows.
                all.extend(other.join().expect("a line is looked at"));
            }
            all
        });
        examined.sort_unstable_by_key(|(first, _)| *first);
        let examined = examined.into_iter().flat_map(|(_, facts)| facts);
        for (line, facts) in lines.iter().zip(examined) {
            let before = (self.linked == 0).then(|| self.digest.clone());
            if digest.is_none() {
                self.digest.update(line);
                self.digest.update(b"\n");
            }
            self.line(number, line, facts, before);
            number += 1;
        }
        if let Some(digest) = digest {
            self.digest = digest;
        }
    }

    fn line(&mut self, line: u64, text: &[u8], mut facts: Facts, before: Option<Sha256>) {
        if facts.blank {
            match self.linked {
                0 if self.blanks.len() < FINDINGS_MAX => self.blanks.push(line),
                0 => {}
                _ => self.found(line, "foreign", EMPTY),
            }
            return;
        }
        if let Some((code, message)) = &facts.problem {
            self.broken(line, code, message.clone());
        }
        if let Some(id) = facts.id {
            self.events += 1;
            match self.ids.get(&id) {
                Some(first) => {
                    let message = format!("line {first} has the same event id");
                    self.found(line, "duplicate_id", message);
                }
                None => {
                    self.ids.insert(id, line);
                }
            }
        }
        let Some(mut link) = facts.link else {
            if facts.problem.is_none() {
                self.plain(line);
            }
            return;
        };
        self.first_linked.get_or_insert((line, facts.hash));
        if link.n != self.next && self.is_misnumbered(&facts, text) {
            let message = "the line was changed: its number is not the one that was written";
            self.found(line, "changed", message);
            self.misnumbered = Some(line);
            link.n = self.next.saturating_add(self.broken_since);
            facts.link = Some(link);
        }
        if let Some((device, _)) = link.signed
            && !self.signers.contains(&device)
            && self.signers.len() < SIGNERS_MAX
        {
            self.signers.push(device);
        }
        if self.linked == 0 && link.n == line {
            self.linked = 1;
            // It holds all before it, empty lines of others too.
            self.blanks.clear();
            let before: Hash = before.unwrap_or_default().finalize().into();
            if link.prev != before {
                let message = "something before this line, the first that is linked, was changed";
                self.found(line, "changed", message);
            }
        } else {
            self.linked += 1;
            self.follow(line, text, &facts);
        }
        if self.head.is_some_and(|head| head.count == link.n) {
            self.at_head = Some(facts.hash);
        }
        if link.n >= self.next {
            // The end of a run of one signer vouches for the run.
            let last = self.last.take();
            if let Some(last) = &last
                && last.facts.signer() != facts.signer()
            {
                self.check_signature(last, link.n - 1);
            }
            self.next = link.n.saturating_add(1);
            let mut kept = last.map(|last| last.text).unwrap_or_default();
            kept.clear();
            kept.extend_from_slice(text);
            self.last = Some(Last { facts, text: kept });
            self.broken_since = 0;
        }
    }

    /// Whether a line stands in its place and only says another number.
    fn is_misnumbered(&self, facts: &Facts, text: &[u8]) -> bool {
        let prev = facts.link.map(|link| link.prev);
        let follows = self.last.as_ref().is_some_and(|last| Some(last.facts.hash) == prev);
        // Asked of as many as are listed: a signature takes a while.
        let few = self.findings.len() + self.gaps.len() < FINDINGS_MAX;
        follows || (few && facts.signature_holds(text) == Some(false))
    }

    /// A line that another program wrote. Before the first line of ours it may stand: that one holds
    /// all before it.
    fn plain(&mut self, line: u64) {
        if self.linked > 0 {
            self.found(line, "unlinked", UNLINKED);
            self.broken_since += 1;
        } else {
            self.next = line + 1;
        }
    }

    /// Whether a line goes with the one before.
    fn follow(&mut self, line: u64, text: &[u8], facts: &Facts) {
        let Some(Link { n, prev, .. }) = facts.link else { return };
        if n > self.next {
            // Lines that are there and cannot be read are not missing besides.
            let from = self.next + self.broken_since.min(n - self.next);
            if from < n && self.gaps.len() < FINDINGS_MAX {
                self.gaps.insert(from, n);
            }
            return;
        }
        if n < self.next {
            let gap = self.gaps.range(..=n).next_back().map(|(from, to)| (*from, *to));
            match gap {
                Some((from, to)) if n < to => {
                    self.gaps.remove(&from);
                    for (from, to) in [(from, n), (n + 1, to)] {
                        if from < to {
                            self.gaps.insert(from, to);
                        }
                    }
                    let message = format!("line {n} stands here: the lines were reordered");
                    self.found(line, "reordered", message);
                }
                _ => self.found(line, "repeated", format!("line {n} stands here again")),
            }
            return;
        }
        let Some(last) = &self.last else { return };
        // Whatever was done to the number, the next line links to the line as it was.
        if last.facts.hash == prev || self.misnumbered == Some(line - 1) {
            return;
        }
        // One of the two was changed: their own signatures tell which. Without them it is the one
        // before, because a change of the one after would be seen at its own successor.
        let (before_holds, this_holds) = match self.findings.len() < FINDINGS_MAX {
            true => (last.signature_holds(), facts.signature_holds(text)),
            false => (None, None),
        };
        match (before_holds, this_holds) {
            (Some(true), Some(false)) => {
                self.found(line, "changed", "the line was changed: its signature does not hold");
            }
            (Some(true), Some(true)) => {
                let message = format!(
                    "the line does not follow line {}: one of them is of another store",
                    n - 1
                );
                self.found(line, "changed", message);
            }
            // A line that cannot be read was changed, and that was said.
            _ if self.is_known(line - 1) => {}
            _ => {
                let message = "the line was changed: it is not the one that the next line links to";
                self.found(line - 1, "changed", message);
            }
        }
    }

    fn check_signature(&mut self, last: &Last, line: u64) {
        match last.signature_holds() {
            Some(false) if !self.is_known(line) => {
                self.found(line, "changed", "the line was changed: its signature does not hold");
            }
            Some(true) if self.device.is_some() && last.facts.signer() != self.device => {
                self.found(line, "other_device", "the line is signed by another device");
            }
            _ => {}
        }
    }

    /// The last line has no end.
    fn unended(&mut self, line: u64, bytes: &[u8]) {
        self.digest.update(bytes);
        let facts = examine(bytes);
        match self.head {
            Some(head) if head.bytes <= self.bytes => {
                self.notes.push(format!(
                    "line {line} was being written when its program ended; nobody was told of it, and the next write takes it away"
                ));
                self.torn = Some(line);
            }
            None if facts.link.is_none() && facts.problem.is_none() && self.linked == 0 => {
                self.line(line, bytes, facts, None);
            }
            _ => {
                self.broken(line, "truncated", "the line is cut short");
                self.torn = Some(line);
            }
        }
    }

    fn finish(mut self) -> StoreReport {
        for (from, to) in std::mem::take(&mut self.gaps) {
            let message = match to - from {
                1 => format!("line {from} is missing"),
                many => format!("lines {from} to {} are missing ({many})", to - 1),
            };
            self.found(from, "missing", message);
        }
        if let Some(last) = self.last.take() {
            let n = last.facts.link.map_or(0, |link| link.n);
            self.check_signature(&last, n);
            self.last = Some(last);
        }
        if self.linked > 0 || self.head.is_some_and(|head| head.count > 0) {
            for line in std::mem::take(&mut self.blanks) {
                self.found(line, "foreign", EMPTY);
            }
        }
        let head = self.check_head();
        if self.linked > 0 && self.signers.is_empty() {
            self.notes
                .push("no line is signed: who can write the file can write it anew".to_owned());
        }
        if self.events > self.linked && self.total == 0 {
            let unlinked = self.events - self.linked;
            self.notes.push(format!(
                "{unlinked} events are not linked: another program wrote them, and a change of theirs would not be found"
            ));
        }
        if !self.whole {
            self.notes.push("the digest leaves out lines that are too long".to_owned());
        }
        StoreReport {
            valid: self.total == 0,
            events: self.events,
            linked: self.linked,
            digest: hash_text(&self.digest.finalize().into()),
            head,
            signed_by: self.signers.iter().map(|device| HEXLOWER.encode(&device.0)).collect(),
            findings: self.findings.into_values().collect(),
            findings_total: self.total,
            notes: self.notes,
        }
    }

    fn check_head(&mut self) -> HeadState {
        if self.head_unreadable {
            self.found(self.next, "head_wrong", "the head beside the store cannot be read");
            return HeadState::Wrong;
        }
        let Some(head) = self.head else {
            if let Some((line, _)) = self.first_linked {
                self.found(line, "head_missing", HEAD_MISSING);
            }
            return HeadState::Missing;
        };
        if self.linked == 0 && self.events > 0 && head.count > 0 {
            self.found(1, "unlinked", UNLINKED);
        }
        let holds = head.verifies();
        if holds == Some(false) {
            self.found(head.count, "head_wrong", "the head's signature does not hold");
            return HeadState::Wrong;
        }
        let signer = head.signed.map(|(device, _)| device);
        if holds == Some(true) && self.device.is_some() && signer != self.device {
            self.found(head.count, "other_device", "the head is signed by another device");
            return HeadState::Wrong;
        }
        let there = self.next - 1;
        let cut = self.torn == Some(self.next) && self.total > 0;
        let told = there.saturating_add(self.broken_since);
        if head.count > told {
            let from = told + 1;
            let message = match head.count - from + 1 {
                1 => format!("line {from} is missing at the end: the file was truncated"),
                many => format!(
                    "lines {from} to {} are missing at the end ({many}): the file was truncated",
                    head.count
                ),
            };
            self.found(from, "truncated", message);
        } else if head.count == 0 {
            if let Some((line, first)) = self.first_linked
                && first != head.last
                && !self.is_known(line)
            {
                let message = "the line is not the first that the head names";
                self.found(line, "changed", message);
            }
            self.note_beyond(self.linked);
        } else if !cut && head.count <= there {
            match self.at_head {
                Some(hash) if hash == head.last => {}
                Some(_) => {
                    let line = head.count;
                    if !self.is_known(line) {
                        self.found(line, "changed", "the line is not the one that the head names");
                    }
                }
                // It is broken, out of its place or missing, and that was said.
                None => {}
            }
            self.note_beyond(there - head.count);
        }
        if holds.is_some() {
            return HeadState::Signed;
        }
        if self.must_be_signed {
            let message = "the head is unsigned, and this device signs: the file was written anew";
            self.found(head.count, "unsigned", message);
        }
        HeadState::Unsigned
    }

    fn note_beyond(&mut self, lines: u64) {
        if lines > 0 {
            self.notes.push(format!(
                "{lines} lines came after the head: their program ended before it wrote a new one"
            ));
        }
    }
}

const HEAD_MISSING: &str =
    "the head beside the store is missing: lines cut off at the end would not be missed";

const EMPTY: &str = "the line is empty; this program writes no empty lines";
const UNLINKED: &str = "the line has no link: another program wrote it, or its link was taken away";

/// A short form of an event id, for finding duplicates in little memory.
fn id_key(id: &str) -> u128 {
    let hash = sha256(id.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests;
