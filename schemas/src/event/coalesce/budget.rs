//! How much each source may show, and what it was saved.

use std::collections::BTreeMap;

use super::group::Group;
use super::{
    Fingerprint, SOURCES_SHOWN_MAX, Settings, SourceReport, is_always_shown, occurrences, ratio,
};
use crate::event::model::{Event, Text};
use crate::event::vocabulary::Outcome;

/// Most sources that are counted apart: some hundred bytes each. What comes from others is counted
/// together, as the source `*`.
pub const SOURCES_MAX: usize = 4096;

/// The source that stands for all beyond [`SOURCES_MAX`].
const OTHERS: &str = "*";

/// Longest name of a source, in characters: an actor's id can be as long as a document.
const NAME_CHARS_MAX: usize = 200;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// It was shown.
    Shown,
    /// It was shown although its source had spent its budget.
    ShownAnyway,
    /// It is counted in an event about its source.
    Folded,
}

#[derive(Debug, Default)]
struct Source {
    events_in: u64,
    events_out: u64,
    /// When its window opened, in milliseconds.
    opened: i64,
    shown: u64,
    over: Option<Box<Group>>,
}

#[derive(Debug)]
pub(super) struct Budgets {
    settings: Settings,
    sources: BTreeMap<String, Source>,
}

impl Budgets {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, sources: BTreeMap::new() }
    }

    /// Counts an event that came in.
    pub(super) fn saw(&mut self, event: &Event) {
        self.source(event).1.events_in += 1;
    }

    /// Shows an event, or folds it into what its source has too much of.
    pub(super) fn pass(&mut self, event: Event, out: &mut Vec<Event>) -> Passed {
        let settings @ Settings { window_ms, samples, budget } = self.settings;
        let (name, source) = self.source(&event);
        let Some(budget) = budget else {
            source.events_out += 1;
            out.push(event);
            return Passed::Shown;
        };
        let at = event.created_at.millis();
        if source.shown == 0 || at.abs_diff(source.opened) >= window_ms {
            source.tell(&name, settings, out);
            source.opened = at;
            source.shown = 0;
        }
        if source.shown < budget || is_always_shown(&event) {
            let within = source.shown < budget;
            source.shown = source.shown.saturating_add(1);
            source.events_out += 1;
            out.push(event);
            return if within { Passed::Shown } else { Passed::ShownAnyway };
        }
        match &mut source.over {
            Some(over) => over.absorb(&event, samples),
            none => {
                let key = Fingerprint::of(&["over budget", &name]);
                *none = Some(Box::new(Group::new(key, 0, event, samples).mixed()));
            }
        }
        Passed::Folded
    }

    /// Tells of all that was too much.
    pub(super) fn finish(&mut self, out: &mut Vec<Event>) {
        let settings = self.settings;
        for (name, source) in &mut self.sources {
            source.tell(name, settings, out);
            source.shown = 0;
        }
    }

    /// The sources with the most events.
    pub(super) fn report(&self) -> Vec<SourceReport> {
        let mut reports: Vec<SourceReport> = self
            .sources
            .iter()
            .map(|(name, source)| SourceReport {
                source: name.clone(),
                events_in: source.events_in,
                events_out: source.events_out,
                reduction_ratio: ratio(source.events_in, source.events_out),
            })
            .collect();
        reports.sort_by(|a, b| b.events_in.cmp(&a.events_in).then(a.source.cmp(&b.source)));
        reports.truncate(SOURCES_SHOWN_MAX);
        reports
    }

    fn source(&mut self, event: &Event) -> (String, &mut Source) {
        let whole = format!("{}/{}", event.host.host_id, event.actor.actor_id);
        let name: String = whole.chars().take(NAME_CHARS_MAX).collect();
        let known = self.sources.contains_key(&name) || self.sources.len() < SOURCES_MAX;
        let name = if known { name } else { OTHERS.to_owned() };
        let source = self.sources.entry(name.clone()).or_default();
        (name, source)
    }
}

impl Source {
    /// Tells of what was too much since its window opened.
    fn tell(&mut self, name: &str, settings: Settings, out: &mut Vec<Event>) {
        let Some(over) = self.over.take() else { return };
        let mut event = over.into_event(settings.window_ms);
        if occurrences(&event) > 1 {
            // They are alike in their source only: what was decided about one says nothing of another.
            event.decision = None;
            event.outcome = Outcome::Observed;
            event.operator_narrative.summary = Text::or(
                format!(
                    "{} further occurrences from {name} were counted and not shown one by one.",
                    occurrences(&event)
                ),
                name,
            );
            event.operator_narrative.why = Text::or(
                "The source had shown as many events as its noise budget allows in one window.",
                name,
            );
        }
        self.events_out += 1;
        out.push(event);
    }
}
