//! When the checkers look, and how a run comes to its end.

use std::collections::BTreeSet;

use srcos_lanes::lane::LaneId;
use srcos_replication::roster::Roster;

use super::{Verdict, World};
use crate::cluster::{Node, shared_lanes};
use crate::invariants::converged::Comparison;
use crate::invariants::{Checked, bounds, links, list, provenance};
use crate::scheduler::Purpose;

/// Time between two looks at everything, in milliseconds.
pub(super) const LOOK_EVERY_MS: u64 = 10_000;
/// Time between two looks at one node's reports, in milliseconds.
pub(super) const LOOK_AGAIN_MS: u64 = 500;
/// Time between two looks for the end, in milliseconds.
const LOOK_FOR_END_MS: u64 = 500;
/// Looks between two at all objects.
const LOOKS_PER_FULL: u64 = 30;

impl World {
    pub(super) fn look(&mut self) -> super::Checked {
        self.looks += 1;
        if !self.calm || self.looks.is_multiple_of(LOOK_EVERY_MS / LOOK_FOR_END_MS) {
            self.bounds.on_look()?;
            for number in 0..self.nodes.len() {
                self.look_at_bounds(number)?;
                self.look_at_links(number)?;
                self.report.on_silence(self.now_ms(), number, &self.nodes[number])?;
                self.look_at_report(number)?;
                if self.looks.is_multiple_of(LOOKS_PER_FULL) {
                    self.look_at_objects(number)?;
                }
            }
        }
        let next = if self.calm { LOOK_FOR_END_MS } else { LOOK_EVERY_MS };
        self.scheduler.after(next, super::Happening::Look);
        if self.calm { self.look_for_the_end() } else { Ok(()) }
    }

    /// Whether a checker may look at a node: it is awake, and what it holds is committed. One that
    /// wakes in this moment has yet to learn what it missed.
    fn is_visible(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        let settled = node.running.as_ref().is_some_and(|running| !running.store.in_turn());
        let awake = node.frozen_until_ms == 0 || node.frozen_until_ms < self.now_ms();
        settled && !node.disk.is_dark() && awake
    }

    pub(super) fn look_at_report(&mut self, number: usize) -> Checked {
        if !self.is_visible(number) || !self.nodes[number].is_honest() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        self.report.on_look(now_ms, number, &self.nodes, &self.excuses)
    }

    fn look_at_bounds(&self, number: usize) -> Checked {
        let Some(running) = &self.nodes[number].running else { return Ok(()) };
        for (link, side) in self.network.links_of(number) {
            let conn = self.network.link(link).map(|link| link.ends[side].conn);
            let queued = conn.map_or(0, |conn| running.engine.queued_bytes(conn));
            bounds::on_queue(number, queued)?;
        }
        let devices = self.nodes.iter().map(Node::device);
        devices.into_iter().try_for_each(|of| bounds::on_journals(number, running, of))
    }

    fn look_at_links(&self, number: usize) -> Checked {
        // Of what was frozen, or stood still, until now nothing can be said yet.
        if self.calm {
            return Ok(());
        }
        links::on_look(self.now_ms(), number, &self.nodes, &self.network)
    }

    fn look_at_objects(&mut self, number: usize) -> Checked {
        if !self.is_visible(number) || self.nodes[number].disk.failed().is_some() {
            return Ok(());
        }
        let Some(running) = &self.nodes[number].running else { return Ok(()) };
        let seen = self.resurrection.on_look(number, &running.store, &self.workload.known);
        self.tolerate(number, seen)
    }

    pub(super) fn calm_down(&mut self) -> Checked {
        let now_ms = self.now_ms();
        self.calm = true;
        self.calm_at_ms = now_ms;
        self.line("calm", "faults and writes are over");
        // A faulty program is mended while it runs: links stay, and what was said on them.
        if let Some(number) = self.options.faulty() {
            self.count_tricks(number);
        }
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            node.disk.mend();
            node.clock.steady();
            node.frozen_until_ms = 0;
            node.away_until_ms = 0;
            if node.copy_of.is_some() {
                self.retire(number);
            }
        }
        for number in 0..self.nodes.len() {
            self.start(number)?;
            self.inspect(number)?;
        }
        self.release();
        self.sleep(0);
        self.end_flood()?;
        self.find_core();
        Ok(())
    }

    /// What a person does with a store that may be damaged: has all of it verified.
    fn inspect(&mut self, number: usize) -> Checked {
        if !self.nodes[number].suspect {
            return Ok(());
        }
        self.settle(number)?;
        let checked = self.call(number, |running, _| {
            let mut checked = provenance::on_end(number, &running.store);
            for lane in LaneId::ALL {
                checked = checked.and_then(|()| list(number, &running.store, lane).map(|_| ()));
            }
            Ok(checked)
        });
        match checked {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(violation))) => {
                self.damaged(number, violation.what);
                Ok(())
            }
            Some(Err(error)) => self.store_failed(number, &error),
        }
    }

    /// The roster by all records that any device holds of the mesh in which those are that keep the rules. `None`
    /// where all of them lost it: then it is begun anew, whatever a thief, or who was put out of the one before,
    /// still knows of that.
    pub(super) fn roster_of_all(&self) -> Option<Roster> {
        let members = || self.nodes.iter().filter(|node| node.joined && !node.homeless);
        let first = || members().filter(|node| node.is_honest()).find_map(Node::mesh);
        let mesh = self.begun_anew.or_else(first)?;
        let records: BTreeSet<Vec<u8>> = members()
            .filter(|node| node.mesh() == Some(mesh))
            .filter_map(|node| node.running.as_ref())
            .flat_map(|running| running.engine.roster().records_in_order())
            .map(|record| record.0.clone())
            .collect();
        Roster::from_records(&records).ok()
    }

    /// Who must agree in the end: the members by all records that any device holds.
    pub(super) fn find_core(&mut self) {
        let roster = self.roster_of_all();
        let is_member =
            |device| roster.as_ref().is_some_and(|roster: &Roster| roster.is_member(device));
        self.core = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].is_honest() && self.nodes[*n].joined)
            .filter(|n| {
                let node = &self.nodes[*n];
                let due = node.homeless && (self.begun_anew.is_some() || roster.is_none());
                let revoked = self.excuses.revoked.contains(&node.device());
                is_member(node.device()) || (due && !revoked)
            })
            .collect();
        let mut void = roster.as_ref().map(Roster::void).unwrap_or_default();
        let accomplices = self.excuses.accomplices.iter().copied();
        void.extend(accomplices.filter(|device| !is_member(*device)));
        if !void.is_empty() {
            self.fault("admission void", "nobody takes it for a member");
        }
        self.excuses.note_void(void);
        let text = format!("{:?}", self.core);
        self.line("core", &text);
        self.bridged = !self.core_is_connected();
        for number in self.core.clone() {
            self.dial_all(number, 500);
        }
    }

    /// Whether every device of the core can get word of every other. Two that know nothing of each other say
    /// nothing to each other, though each be admitted: a roster is no stranger's business.
    fn core_is_connected(&self) -> bool {
        let knows = |a: usize, b: usize| {
            let device = self.nodes[b].device();
            let running = self.nodes[a].running.as_ref();
            // Who lost the mesh is given it by a person.
            self.nodes[a].homeless
                || running.is_some_and(|running| running.engine.roster().is_member(device))
        };
        let Some(first) = self.core.first() else { return true };
        let mut reached = BTreeSet::from([*first]);
        // What one of them knows, all of them hear.
        let meets = |reached: &BTreeSet<usize>, to: usize| {
            let told = reached.iter().any(|from| knows(*from, to));
            reached.iter().any(|from| self.joins(*from, to) && (told || knows(to, *from)))
        };
        while let Some(to) =
            self.core.iter().find(|to| !reached.contains(to) && meets(&reached, **to))
        {
            reached.insert(*to);
        }
        reached.len() == self.core.len()
    }

    /// The time that a link needs for all that a device holds: no protocol can be in step before a
    /// device that lacks it could have got it. A link of 20 kB/s needs minutes for some workloads.
    fn passage_ms(&self) -> u64 {
        let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
        let held = running.map(|running| -> u64 {
            let rows = shared_lanes().flat_map(|lane| running.store.journals(lane));
            rows.map(|(_, row)| row.bytes).sum()
        });
        held.max().unwrap_or(0) / self.options.links.bytes_per_ms
    }

    fn look_for_the_end(&mut self) -> Checked {
        let now_ms = self.now_ms();
        self.end_flood()?;
        for running in self.nodes.iter().filter_map(|node| node.running.as_ref()) {
            self.excuses.on_commit(&running.store);
        }
        let skipped = self.excuses.disputed.clone();
        let comparison = Comparison {
            nodes: &self.nodes,
            core: &self.core,
            skipped: &skipped,
            excuses: &self.excuses,
        };
        let waits = |most| comparison.waits(|a, b| self.joins(a, b), most);
        let open = self.core.iter().any(|number| !self.is_visible(*number));
        if open || !waits(1).is_empty() {
            let due_ms = self.calm_at_ms + self.options.liveness_ms;
            if now_ms > due_ms && now_ms > due_ms + self.passage_ms() {
                self.finished = Some(Verdict::Liveness(waits(usize::MAX)));
            }
            return Ok(());
        }
        self.converged_in_ms = Some(now_ms - self.calm_at_ms);
        comparison.finish(&self.workload.known, &self.workload.confined)?;
        let confined = &self.workload.confined;
        self.durable.finish(&self.nodes, &self.core, &skipped, confined, &self.excuses)?;
        for number in self.core.clone() {
            self.look_at_objects(number)?;
        }
        let verified =
            self.core.iter().nth(self.streams.of(Purpose::Verify, 0).index(self.core.len()));
        if let Some(number) = verified.copied()
            && let Some(running) = &self.nodes[number].running
        {
            let found = provenance::on_end(number, &running.store);
            self.tolerate(number, found)?;
        }
        self.line("in step", "all");
        self.finished = Some(Verdict::Pass);
        Ok(())
    }
}
