//! Folds repeats of one event into one event, so that people read what happened and not how often.
//!
//! Two events are the same when host, actor, target class, decision, rule and outcome are: see
//! [`fingerprint`]. Repeats within a window become one event of class `telemetry.coalesced`, which
//! says how many there were, when the first and the last was, and names samples. Nothing is lost
//! silently: what is not shown is counted, and the counts of what goes in and what comes out agree.
//!
//! Repetition never raises a severity. A repeat whose risk is higher does, and the event says which
//! repeat it was. An expected denial stays a notice, whatever is repeated.
//!
//! The memory that this takes does not depend on the stream: [`GROUPS_MAX`] groups, [`SOURCES_MAX`]
//! sources. When there are more, the oldest group is told early. There is no clock in here: time is
//! what the events say, and one with a wrong time cannot hold up the others.

mod budget;
mod group;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use self::budget::Budgets;
pub use self::budget::SOURCES_MAX;
use self::group::Group;
pub use self::group::{CLASS_EVIDENCE, CLASS_REF, EVIDENCE_MAX, IDS_MAX, SAMPLES_MAX};
use super::model::{Event, Text};
use super::vocabulary::{EventClass, Outcome, Risk, Severity};

/// Most groups that are open at once: at some 5 kB each, 20 MiB; more distinct events at one time
/// are a flood, and then the oldest group is told early.
pub const GROUPS_MAX: usize = 4096;

/// Groups looked at, with each event, for whether their window has passed: enough that all are seen
/// long before they are full, few enough to cost nothing.
const SWEPT_PER_EVENT: usize = 4;

/// Sources that a report lists, those with the most events first: what a person reads.
pub const SOURCES_SHOWN_MAX: usize = 20;

/// How a coalescer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Length of a window, in milliseconds, at least 1.
    pub window_ms: u64,
    /// Samples named in a coalesced event, at most [`SAMPLES_MAX`].
    pub samples: usize,
    /// Events that one source may show in one window; what is beyond is counted in one event. What is
    /// critical or looks like an attack is always shown. Nothing means no such bound.
    pub budget: Option<u64>,
}

impl Default for Settings {
    /// Windows of a minute, four samples, no budget.
    fn default() -> Self {
        Self { window_ms: 60_000, samples: 4, budget: None }
    }
}

/// Folds a stream of events.
#[derive(Debug)]
pub struct Coalescer {
    settings: Settings,
    groups: BTreeMap<Fingerprint, Group>,
    /// The groups by age.
    by_age: BTreeMap<u64, Fingerprint>,
    next_age: u64,
    swept_to: u64,
    budgets: Budgets,
    report: Report,
}

/// What counts as the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

/// How fingerprints of this coalescer begin in documents; one that begins so is taken as it is, so
/// that coalesced events can be coalesced again.
const FINGERPRINT_PREFIX: &str = "fp_c1_";

impl Fingerprint {
    fn of(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(bytes)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(FINGERPRINT_PREFIX)?;
        let plain = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        plain.then(|| u128::from_str_radix(digits, 16).ok())?.map(|n| Self(n.to_be_bytes()))
    }

    fn text(self) -> Text {
        Text::or(self.to_string(), FINGERPRINT_PREFIX)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{FINGERPRINT_PREFIX}{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The fingerprint of an event: its host, actor, target class, decision, rule and outcome. Where
/// nothing was decided, the subject's type and the event's class stand for class and rule.
pub fn fingerprint(event: &Event) -> Fingerprint {
    if event.event_class == EventClass::TelemetryCoalesced
        && let Some(noise) = &event.noise_control
        && let Some(known) = Fingerprint::parse(noise.event_fingerprint.as_str())
    {
        return known;
    }
    let (target, result, rule) = match &event.decision {
        Some(decision) => (
            decision.target_class.as_str(),
            decision.result.as_str(),
            decision.policy_rule.as_str(),
        ),
        None => (event.subject.subject_type.as_str(), "", event.event_class.as_str()),
    };
    let actor = &event.actor;
    Fingerprint::of(&[
        event.host.host_id.as_str(),
        actor.actor_id.as_str(),
        actor.actor_type.as_str(),
        target,
        result,
        rule,
        event.outcome.as_str(),
    ])
}

/// Whether an event is shown whatever its source has shown already.
pub fn is_always_shown(event: &Event) -> bool {
    event.severity == Severity::Critical
        || event.outcome == Outcome::BlockedAttackLike
        || matches!(event.operator_narrative.risk, Risk::High | Risk::Critical)
}

/// What a coalescer did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Events that came in.
    pub events_in: u64,
    /// Those of them that were there already, by their id, and are no repeat of anything.
    #[serde(default)]
    pub redelivered: u64,
    /// Occurrences that the others stand for.
    pub occurrences_in: u64,
    /// Events that went out.
    pub events_out: u64,
    /// Occurrences that those stand for; equal to those that came in once the stream has ended.
    pub occurrences_out: u64,
    /// Events in for each event out; 1 when nothing was saved, 0 before anything came out.
    pub reduction_ratio: f64,
    /// Groups that were told before their window had passed, because there were too many.
    pub told_early: u64,
    /// Events that were folded because their source had spent its budget.
    pub over_budget: u64,
    /// Events that were shown although their source had spent its budget.
    pub always_shown: u64,
    /// The sources with the most events, at most [`SOURCES_SHOWN_MAX`].
    pub sources: Vec<SourceReport>,
}

/// What came from one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Host and actor, as `host/actor`; `*` for all sources beyond [`SOURCES_MAX`].
    pub source: String,
    /// Events that came in.
    pub events_in: u64,
    /// Events that went out.
    pub events_out: u64,
    /// Events in for each event out.
    pub reduction_ratio: f64,
}

fn ratio(events_in: u64, events_out: u64) -> f64 {
    if events_out == 0 { 0.0 } else { events_in as f64 / events_out as f64 }
}

impl Coalescer {
    /// A coalescer that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        let settings = Settings {
            window_ms: settings.window_ms.max(1),
            samples: settings.samples.min(SAMPLES_MAX),
            // A source of which nothing may be shown could not be told of at all.
            budget: settings.budget.map(|budget| budget.max(1)),
        };
        Self {
            settings,
            groups: BTreeMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
            swept_to: 0,
            budgets: Budgets::new(settings),
            report: Report::default(),
        }
    }

    /// Takes an event; what is ready to be told goes to `out`.
    pub fn push(&mut self, event: Event, out: &mut Vec<Event>) {
        let at = event.created_at.millis();
        let key = fingerprint(&event);
        self.report.events_in += 1;
        if self.groups.get(&key).is_some_and(|group| group.has(&event)) {
            self.report.redelivered += 1;
            return;
        }
        self.report.occurrences_in = self.report.occurrences_in.saturating_add(occurrences(&event));
        self.budgets.saw(&event);
        self.sweep(at, out);
        if let Some(group) = self.groups.get_mut(&key) {
            if group.takes(at, self.settings.window_ms) {
                group.absorb(&event, self.settings.samples);
                return;
            }
            self.close(key, out);
        }
        if self.groups.len() >= GROUPS_MAX
            && let Some((_, oldest)) = self.by_age.first_key_value()
        {
            self.report.told_early += 1;
            self.close(*oldest, out);
        }
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, key);
        self.groups.insert(key, Group::new(key, age, event, self.settings.samples));
    }

    /// Tells all that is still open. The coalescer can go on afterwards.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        while let Some((_, oldest)) = self.by_age.first_key_value() {
            self.close(*oldest, out);
        }
        let from = out.len();
        self.budgets.finish(out);
        for event in &out[from..] {
            count(&mut self.report, event);
        }
    }

    /// What it did so far.
    pub fn report(&self) -> Report {
        let report = self.report.clone();
        Report {
            reduction_ratio: ratio(report.events_in, report.events_out),
            sources: self.budgets.report(),
            ..report
        }
    }

    /// Groups that are open.
    pub fn open_groups(&self) -> usize {
        self.groups.len()
    }

    /// Closes what has passed, of the next few groups.
    fn sweep(&mut self, at: i64, out: &mut Vec<Event>) {
        let seen: Vec<(u64, Fingerprint)> = self
            .by_age
            .range(self.swept_to..)
            .take(SWEPT_PER_EVENT)
            .map(|(age, key)| (*age, *key))
            .collect();
        self.swept_to = match seen.last() {
            Some((age, _)) if seen.len() == SWEPT_PER_EVENT => age + 1,
            _ => 0,
        };
        for (_, key) in seen {
            if self.groups.get(&key).is_some_and(|group| !group.takes(at, self.settings.window_ms))
            {
                self.close(key, out);
            }
        }
    }

    fn close(&mut self, key: Fingerprint, out: &mut Vec<Event>) {
        let Some(group) = self.groups.remove(&key) else { return };
        self.by_age.remove(&group.age());
        let from = out.len();
        let spent = self.budgets.pass(group.into_event(self.settings.window_ms), out);
        self.report.over_budget += u64::from(spent == budget::Passed::Folded);
        self.report.always_shown += u64::from(spent == budget::Passed::ShownAnyway);
        for event in &out[from..] {
            count(&mut self.report, event);
        }
    }
}

fn count(report: &mut Report, event: &Event) {
    report.events_out += 1;
    report.occurrences_out = report.occurrences_out.saturating_add(occurrences(event));
}

/// How many occurrences an event stands for.
pub fn occurrences(event: &Event) -> u64 {
    event.noise_control.as_ref().map_or(1, |noise| noise.count.max(1))
}

#[cfg(test)]
mod tests;
