//! What a scenario does with a world, in words.

use std::collections::BTreeSet;

use serde_json::Value;
use srcos_lanes::ids::WallMillis;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Action, Op, PutContent, Visibility};
use srcos_replication::peers::LaneState;

use super::{Happening, Report, Verdict, World};
use crate::disk::Io;
use crate::faults::Fault;
use crate::hostile::Trick;
use crate::invariants::{Checked, Violation, converged};
use crate::network::Carried;
use crate::scheduler::Stream;
use crate::workload::Work;

/// Entries that are handed over at once: whoever has the first of them can take the rest.
const SMUGGLED_ENTRIES_MAX: u64 = 8;

/// What a scenario claims of its own.
pub const CLAIM: &str = "scenario.claim";

impl World {
    /// Lets time pass.
    pub fn pass(&mut self, ms: u64) -> Checked {
        let until = self.now_ms() + ms;
        while self.scheduler.next_at().is_some_and(|at| at <= until) {
            let Some(happening) = self.scheduler.pop() else { break };
            self.happen(happening)?;
        }
        self.scheduler.advance_to(until);
        Ok(())
    }

    /// A device puts an object and commits.
    pub fn put(&mut self, node: usize, lane: LaneId, id: &str, body: Value) -> Checked {
        self.put_as(node, lane, id, PutContent { body, ..PutContent::default() })
    }

    /// A device puts an object with more than a body, and commits.
    pub fn put_as(&mut self, node: usize, lane: LaneId, id: &str, put: PutContent) -> Checked {
        let op = Op { id: id.to_owned(), action: Action::Put(put), if_heads: None };
        self.write(node, Work { lane, ops: vec![op] })?;
        self.settle(node)
    }

    /// A device deletes an object and commits.
    pub fn delete(&mut self, node: usize, lane: LaneId, id: &str) -> Checked {
        let action = Action::Delete { reason: "done with".into() };
        let op = Op { id: id.to_owned(), action, if_heads: None };
        self.write(node, Work { lane, ops: vec![op] })?;
        self.settle(node)
    }

    /// A device writes batches drawn from the seed.
    pub fn work(&mut self, node: usize, batches: u64, salt: u64) -> Checked {
        let mut stream = Stream::new(self.options.seed, "script", salt);
        for _ in 0..batches {
            let size = if stream.percent(15) { stream.between(2, 5) } else { 1 };
            let work = self.workload.batch(&mut stream, node, size);
            self.write(node, work)?;
            self.pass(50)?;
        }
        Ok(())
    }

    /// The body that a device shows, if it shows the object.
    pub fn shows(&self, node: usize, lane: LaneId, id: &str) -> Option<Value> {
        let running = self.nodes[node].running.as_ref()?;
        let snapshot = running.store.reader().snapshot().ok()?;
        match snapshot.object(lane, id, WallMillis(0)).ok()? {
            Visibility::Shown(object) => serde_json::from_str(&object.row.body).ok(),
            _ => None,
        }
    }

    /// What all links carried so far.
    pub fn carried(&self) -> Carried {
        self.network.carried
    }

    /// Something that the scenario is about.
    pub fn claim(&self, holds: bool, what: &str) -> Checked {
        if holds {
            return Ok(());
        }
        Err(Violation { invariant: CLAIM, what: what.to_owned() })
    }

    /// Cuts one side off from the others for good.
    pub fn part(&mut self, side: &[usize]) {
        self.split(&BTreeSet::from_iter(side.iter().copied()), false, false, u64::MAX);
    }

    /// What one side sends no longer reaches the others.
    pub fn part_one_way(&mut self, side: &[usize]) {
        self.split(&BTreeSet::from_iter(side.iter().copied()), true, true, u64::MAX);
    }

    /// Mends the network.
    pub fn mend_network(&mut self) {
        self.release();
    }

    /// Lets something go wrong, at a place drawn from the seed.
    pub fn hit(&mut self, fault: Fault, salt: u64) -> Checked {
        let mut stream = Stream::new(self.options.seed, "hit", salt);
        self.strike(fault, &mut stream)
    }

    /// A device is stopped and does not come back until it is told to.
    pub fn take_away(&mut self, node: usize) -> Checked {
        self.nodes[node].away_until_ms = u64::MAX;
        self.stop(node)
    }

    /// A device that was taken away is started.
    pub fn bring_back(&mut self, node: usize) -> Checked {
        self.nodes[node].away_until_ms = 0;
        self.start(node)
    }

    /// The power of a device fails in the middle of its next commits.
    pub fn cut_power_soon(&mut self, node: usize, operations: u64) {
        self.nodes[node].disk.fail_power_after(operations);
    }

    /// The next sync of a device fails, and loses these of the writes that it was for, by their number.
    pub fn fail_sync(&mut self, node: usize, lost: u64) {
        self.nodes[node].disk.fail_after(Io::Sync, 0, false, lost);
    }

    /// Whether a device would read other bytes from its disk if its power failed.
    pub fn has_lost(&self, node: usize) -> bool {
        self.nodes[node].disk.has_lost()
    }

    /// The power of a device fails, whether it runs or not. Of what was not synced, lengths stay, and writes that
    /// begin in these pages.
    pub fn cut_power_keeping(&mut self, node: usize, kept: impl Fn(u64) -> bool) {
        self.line("power", format!("n{node}"));
        self.nodes[node].disk.cut_power_keeping(kept);
        self.nodes[node].disk.lie(false);
        if self.nodes[node].running.take().is_some() {
            self.leave(node);
        }
    }

    /// A device's process stands still for a while, and its machine goes on taking in what arrives.
    pub fn freeze_for(&mut self, node: usize, ms: u64) {
        let until_ms = self.now_ms() + ms;
        self.freeze(node, until_ms);
    }

    /// Nothing passes on the links of a device for a while.
    pub fn clog_for(&mut self, node: usize, ms: u64) {
        let until_ms = self.now_ms() + ms;
        for (link, _) in self.network.links_of(node) {
            (0..2).for_each(|from| self.stick(link, from, until_ms));
        }
    }

    /// Everything sleeps for days.
    pub fn sleep_days(&mut self, days: u64) {
        self.sleep(days * 24 * 3_600_000);
    }

    /// A wall clock jumps.
    pub fn jump_clock(&mut self, node: usize, ms: i64) {
        self.nodes[node].clock.jump(ms);
    }

    /// A backup of a device's store is taken.
    pub fn take_backup(&mut self, node: usize) {
        self.back_up(node);
    }

    /// The backup is put back, with the count of opens or without.
    pub fn restore(&mut self, node: usize, whole: bool) {
        self.put_back(node, whole);
    }

    /// A device is copied, and both run for a while.
    pub fn duplicate(&mut self, node: usize, for_ms: u64) {
        self.copy(node, self.now_ms() + for_ms);
    }

    /// A member puts another out.
    pub fn put_out(&mut self, by: usize, target: usize) -> Checked {
        self.revoke(by, target)
    }

    /// A device has grants for one other and no one else from now on: lanes, and confined classes in them.
    pub fn grant(&mut self, node: usize, to: usize, opened: &[(LaneId, Option<&str>)]) -> Checked {
        let owned = |(lane, class): &(LaneId, Option<&str>)| (*lane, class.map(str::to_owned));
        self.set_grants(node, to, &opened.iter().map(owned).collect::<Vec<_>>())
    }

    /// A member takes an outsider in.
    pub fn take_in(&mut self, by: usize, other: usize) -> Checked {
        self.excuses.late.insert(self.nodes[other].device());
        self.pair(by, other)
    }

    /// The member that breaks the rules takes in an accomplice and tells nobody. The accomplice's number.
    pub fn take_in_unseen(&mut self) -> Result<usize, Violation> {
        self.betray()?;
        self.claim(!self.excuses.accomplices.is_empty(), "the accomplice is taken in")?;
        Ok(self.nodes.len() - 1)
    }

    /// Whether a device takes another for a member.
    pub fn takes_for_member(&self, node: usize, other: usize) -> bool {
        let device = self.nodes[other].device();
        let running = self.nodes[node].running.as_ref();
        running.is_some_and(|running| running.engine.roster().is_member(device))
    }

    /// A device loses its store but not its key, and works on by itself in a new mesh.
    pub fn lose(&mut self, node: usize) {
        self.replace(node);
        let node = &mut self.nodes[node];
        (node.joined, node.homeless, node.home) = (false, false, None);
    }

    /// Power fails, and the number outside the store is lost: the device goes on with a journal of its own.
    pub fn lose_count(&mut self, node: usize) {
        self.lose_power(node);
        self.nodes[node].opens_outside = None;
    }

    /// A device loses its store but not its key, and asks for the mesh again.
    pub fn wipe(&mut self, node: usize) {
        self.replace(node);
    }

    /// A device's disk is full, or has room again.
    pub fn fill_disk(&mut self, node: usize, full: bool) {
        self.nodes[node].disk.fill(full);
    }

    /// Flips a bit of each place on a device's disk that holds these bytes, while it is down.
    pub fn rot(&mut self, node: usize, bytes: &[u8]) -> Checked {
        self.stop(node)?;
        let found = self.nodes[node].disk.rot_at(bytes);
        self.claim(found, "the bytes to rot are not on the disk")?;
        self.may_lose(node, true);
        Ok(())
    }

    /// What a node said was damaged in its store, if it said so.
    pub fn reported_damage(&self, node: usize) -> Option<&str> {
        let (_, what) = self.damage.iter().find(|(by, _)| *by == node)?;
        Some(what)
    }

    /// How often something went wrong, by its name.
    pub fn happened(&self, fault: &str) -> u64 {
        self.faults.get(fault).copied().unwrap_or_default()
    }

    /// Whether a node runs.
    pub fn runs(&self, node: usize) -> bool {
        self.nodes[node].running.is_some()
    }

    /// How often a device was started.
    pub fn starts(&self, node: usize) -> u64 {
        self.nodes[node].run
    }

    /// The bytes of the newest entry of a device's own journal, as its disk has them.
    pub fn newest_entry(&self, node: usize, lane: LaneId) -> Option<Vec<u8>> {
        let running = self.nodes[node].running.as_ref()?;
        let author = running.store.author();
        let seq = running.store.frontier(lane).seq(&author);
        running.store.reader().snapshot().ok()?.entry(lane, &author, seq).ok()?
    }

    /// The member that breaks the rules gets hold of the newest entries of a device's own journal.
    pub fn smuggle(&mut self, from: usize, lane: LaneId) {
        let Some(running) = &self.nodes[from].running else { return };
        let author = running.store.author();
        let held = running.store.frontier(lane).seq(&author);
        let Ok(snapshot) = running.store.reader().snapshot() else { return };
        let first = held.saturating_sub(SMUGGLED_ENTRIES_MAX - 1).max(1);
        let entries = (first..=held).map(|seq| snapshot.entry(lane, &author, seq).ok().flatten());
        let Some(entries) = entries.collect::<Option<Vec<_>>>() else { return };
        for tamperer in self.nodes.iter_mut().filter_map(|node| node.tamperer.as_mut()) {
            tamperer.take_contraband(lane, author, &entries);
        }
    }

    /// Whether a device says, if it is asked now, that it is in step with another in a lane.
    pub fn says_in_step(&self, node: usize, other: usize, lane: LaneId) -> bool {
        let device = self.nodes[other].device();
        let now = self.nodes[node].now(self.now_ms());
        self.nodes[node].running.as_ref().is_some_and(|running| {
            let peers = running.engine.lane_peers_at(&running.store, lane, now);
            peers.iter().any(|peer| peer.device == device && peer.state == LaneState::InSync)
        })
    }

    /// Whether a device keeps the proof that a journal of another has two histories.
    pub fn has_proof_against(&self, node: usize, author: usize) -> bool {
        let device = self.nodes[author].device();
        self.nodes[node].running.as_ref().is_some_and(|running| {
            LaneId::ALL.into_iter().any(|lane| {
                running.store.journals(lane).any(|(by, row)| by.device == device && row.forked)
            })
        })
    }

    /// The faulty program of a device makes no more faults, until it is mended.
    pub fn spare(&mut self, node: usize) {
        if let Some(tamperer) = &mut self.nodes[node].tamperer {
            tamperer.rest();
        }
    }

    /// Whether a member has played a trick.
    pub fn has_played(&self, node: usize, trick: Trick) -> bool {
        let tamperer = self.nodes[node].tamperer.as_ref();
        tamperer.is_some_and(|tamperer| tamperer.played.contains_key(&trick))
    }

    /// Claims that a member has played every trick that it was to play.
    pub fn claim_all_played(&self, node: usize) -> Checked {
        let idle = self.options.tricks.keys().find(|trick| !self.has_played(node, **trick));
        self.claim(idle.is_none(), &format!("all tricks were played, but for {idle:?}"))
    }

    /// How many journals of a lane a device has for another: one for each incarnation.
    pub fn incarnations(&self, node: usize, of: usize, lane: LaneId) -> usize {
        let device = self.nodes[of].device();
        let running = self.nodes[node].running.as_ref();
        running.map_or(0, |running| {
            running.store.journals(lane).filter(|(by, _)| by.device == device).count()
        })
    }

    /// A node's frames vanish from now on.
    pub fn mute(&mut self, node: usize) {
        self.network.mute = Some(node);
    }

    /// A disk only pretends to sync, and nobody is told.
    pub fn lie_silently(&mut self, node: usize) {
        self.nodes[node].disk.lie(true);
    }

    /// Ends all faults and waits until all are in step.
    pub fn come_to_rest(&mut self) -> Checked {
        self.calm_down()?;
        match self.until_the_end() {
            Verdict::Pass => Ok(()),
            Verdict::Correctness(violation) => Err(violation),
            Verdict::Liveness(waits) => {
                let what = waits.join("; ");
                self.finished = Some(Verdict::Liveness(waits));
                Err(Violation { invariant: converged::NAME, what })
            }
        }
    }

    /// The report of a scenario that ended so.
    pub fn close_with(mut self, ended: Checked) -> Report {
        let verdict = match (self.finished.take(), ended) {
            (Some(verdict), Err(_)) => verdict,
            (_, Err(violation)) => Verdict::Correctness(violation),
            (_, Ok(())) => Verdict::Pass,
        };
        self.into_report(verdict)
    }

    /// Plans what happens when nobody else does: the run of a script may end in a plan.
    pub fn let_calm_come(&mut self, after_ms: u64) {
        self.scheduler.after(after_ms, Happening::Calm);
    }
}
