//! Who was heard, bounded, and what of it is to be reported.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::ids::DeviceId;
use tokio::time::Instant;

use super::{CANDIDATE_EVENT_INTERVAL, CANDIDATES_MAX, Candidate, Tag, UNKNOWN_EVENTS_MAX};

#[derive(Debug, Default)]
pub(super) struct Table {
    known: BTreeSet<DeviceId>,
    /// By the name of the record.
    heard: BTreeMap<String, Heard>,
    /// Counts up with each record that is new or changed, so that the oldest can be found.
    clock: u64,
    /// Reports of unknown devices in the interval that began then.
    unknown_reports: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Heard {
    candidate: Candidate,
    known: bool,
    changed: u64,
    due: bool,
    reported: Option<Instant>,
}

impl Table {
    /// Names the devices that no flood may push out; what was heard of them is reported again.
    pub(super) fn know(&mut self, devices: BTreeSet<DeviceId>) {
        self.known = devices;
        for heard in self.heard.values_mut() {
            let known = heard.candidate.tag.find(&self.known).is_some();
            heard.due |= known && !heard.known;
            heard.known = known;
        }
    }

    /// A record was heard. Returns whom it took the place of, where that one had been reported.
    pub(super) fn seen(&mut self, name: String, candidate: Candidate) -> Option<Tag> {
        self.clock += 1;
        if let Some(heard) = self.heard.get_mut(&name) {
            if heard.candidate == candidate {
                return None;
            }
            let before = heard.reported.map(|_| heard.candidate.tag);
            let before = before.filter(|tag| *tag != candidate.tag);
            heard.known = candidate.tag.find(&self.known).is_some();
            heard.candidate = candidate;
            heard.changed = self.clock;
            heard.due = true;
            return before;
        }
        let known = candidate.tag.find(&self.known).is_some();
        let mut gone = None;
        if self.heard.len() >= CANDIDATES_MAX {
            gone = Some(self.push_out(known)?);
        }
        let heard = Heard { candidate, known, changed: self.clock, due: true, reported: None };
        self.heard.insert(name, heard);
        gone.filter(|gone| gone.reported.is_some()).map(|gone| gone.candidate.tag)
    }

    /// Makes room: the unknown record that changed longest ago goes, or for a known device any.
    fn push_out(&mut self, for_known: bool) -> Option<Heard> {
        let oldest = self
            .heard
            .iter()
            .filter(|(_, heard)| for_known || !heard.known)
            .min_by_key(|(_, heard)| (heard.known, heard.changed))
            .map(|(name, _)| name.clone());
        self.heard.remove(&oldest?)
    }

    /// A record is gone.
    pub(super) fn lost(&mut self, name: &str) -> Option<Tag> {
        self.heard.remove(name).map(|heard| heard.candidate.tag)
    }

    /// Whether something waits to be reported.
    pub(super) fn has_due(&self) -> bool {
        self.heard.values().any(|heard| heard.due)
    }

    /// The next candidate to report, known devices first, or `None` if nothing may be reported now.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Candidate> {
        let reports = match self.unknown_reports {
            Some((since, reports)) if now - since < CANDIDATE_EVENT_INTERVAL => reports,
            _ => {
                self.unknown_reports = Some((now, 0));
                0
            }
        };
        let may = |heard: &Heard| {
            let rested = |at: Instant| now - at >= CANDIDATE_EVENT_INTERVAL;
            heard.due
                && heard.reported.is_none_or(rested)
                && (heard.known || reports < UNKNOWN_EVENTS_MAX)
        };
        let next = self
            .heard
            .values_mut()
            .filter(|heard| may(heard))
            .min_by_key(|heard| (!heard.known, heard.changed))?;
        next.due = false;
        next.reported = Some(now);
        if !next.known
            && let Some((_, reports)) = &mut self.unknown_reports
        {
            *reports += 1;
        }
        Some(next.candidate.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u16) -> DeviceId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        DeviceId(bytes)
    }

    fn candidate(n: u16, port: u16) -> Candidate {
        Candidate {
            tag: Tag::new([1; 8], &device(n)),
            addrs: vec![format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()],
            nameplate: None,
        }
    }

    fn drain(table: &mut Table, now: Instant) -> Vec<Candidate> {
        std::iter::from_fn(|| table.next_due(now)).collect()
    }

    #[test]
    fn a_flood_is_bounded_and_cannot_push_out_or_silence_a_known_device() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.know([device(1)].into());
        table.seen("known".into(), candidate(1, 1));
        for n in 2..1000 {
            table.seen(format!("flood {n}"), candidate(n, 1));
        }
        assert_eq!(table.heard.len(), CANDIDATES_MAX);
        let first = drain(&mut table, now);
        assert_eq!(first.len(), 1 + UNKNOWN_EVENTS_MAX);
        assert_eq!(first[0], candidate(1, 1));
        // A known device gets in while all places are taken.
        table.know([device(1), device(2000)].into());
        table.seen("second".into(), candidate(2000, 1));
        assert_eq!(table.heard.len(), CANDIDATES_MAX);
        assert_eq!(drain(&mut table, now), [candidate(2000, 1)]);
    }

    #[test]
    fn a_record_that_changes_all_the_time_is_reported_at_a_bounded_rate_and_at_last_truly() {
        let (mut table, mut now) = (Table::default(), Instant::now());
        let mut reports = Vec::new();
        for port in 1..=1000 {
            table.seen("x".into(), candidate(1, port));
            reports.extend(drain(&mut table, now));
            now += CANDIDATE_EVENT_INTERVAL / 100;
        }
        assert!((9..=11).contains(&reports.len()), "{}", reports.len());
        assert!(table.has_due());
        let last = drain(&mut table, now + CANDIDATE_EVENT_INTERVAL);
        assert_eq!(last, [candidate(1, 1000)]);
        assert!(!table.has_due());
    }

    #[test]
    fn the_same_record_again_is_no_news_until_it_was_lost() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.seen("x".into(), candidate(1, 1));
        assert_eq!(drain(&mut table, now).len(), 1);
        table.seen("x".into(), candidate(1, 1));
        assert!(!table.has_due());
        assert_eq!(table.lost("x"), Some(candidate(1, 1).tag));
        assert_eq!(table.lost("x"), None);
        table.seen("x".into(), candidate(1, 1));
        assert_eq!(drain(&mut table, now).len(), 1);
    }

    #[test]
    fn what_takes_the_place_of_another_tells_who_is_gone() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.seen("x".into(), candidate(1, 1));
        assert_eq!(table.seen("x".into(), candidate(2, 1)), None, "it was never reported");
        drain(&mut table, now);
        assert_eq!(table.seen("x".into(), candidate(2, 2)), None, "only its port changed");
        assert_eq!(table.seen("x".into(), candidate(3, 1)), Some(candidate(2, 1).tag));
        drain(&mut table, now + CANDIDATE_EVENT_INTERVAL);
        let gone = (4..=300).filter_map(|n| table.seen(format!("{n}"), candidate(n, 1)));
        assert_eq!(gone.collect::<Vec<_>>(), [candidate(3, 1).tag]);
    }

    #[test]
    fn a_device_that_becomes_known_is_reported_again() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.seen("x".into(), candidate(1, 1));
        drain(&mut table, now);
        table.know([device(1)].into());
        assert_eq!(drain(&mut table, now + CANDIDATE_EVENT_INTERVAL), [candidate(1, 1)]);
    }
}
