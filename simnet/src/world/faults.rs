//! What each kind of fault does to a world. Why each must be survivable is written at [`Fault`].

use std::collections::BTreeSet;

use srcos_lanes::ids::{DeviceId, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::Grant;
use srcos_lanes::store::Visibility;

use super::{Happening, World};
use crate::cluster::{self, Node};
use crate::disk::Io;
use crate::faults::Fault;
use crate::invariants::{Checked, Violation, peers};
use crate::network::LinkId;
use crate::scheduler::{Purpose, Stream};

/// Bytes of a body that is to rot, at least: fewer are found in many places.
const TREASURED_BYTES_MIN: usize = 12;
/// Time from the first entry of a device that is to be put out at its work until the others of them, in
/// milliseconds: by then whoever relays knows that it is the only one.
const PUT_OUT_AFTER_MS: u64 = 1_500;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

impl World {
    /// Lets something go wrong.
    pub(super) fn strike(&mut self, fault: Fault, stream: &mut Stream) -> Checked {
        let now_ms = self.now_ms();
        let (least, most) = self.options.outage_ms;
        let until_ms = now_ms + stream.between(least, most);
        match fault {
            Fault::Cut
            | Fault::Clog
            | Fault::OneWay
            | Fault::Flap
            | Fault::Split
            | Fault::SplitOneWay
            | Fault::Isolate
            | Fault::Storm
            | Fault::DoubleDial => {
                self.strike_network(fault, stream, until_ms);
                return Ok(());
            }
            Fault::Sleep => {
                let days = stream.pick(&[1, 10, 100, 400]);
                self.fault("sleep", &format!("everything, for {days} days"));
                self.sleep(days * DAY_MS);
                return Ok(());
            }
            Fault::Join => return self.join_one(stream),
            Fault::Revoke => return self.revoke_one(stream),
            _ => {}
        }
        let number = stream.index(self.nodes.len());
        if !self.nodes[number].is_honest() {
            return Ok(());
        }
        let name = fault.name();
        let running = self.nodes[number].running.is_some();
        match fault {
            Fault::WallJump => {
                let most = stream.pick(&[5_000, 3_600_000, 400 * DAY_MS]);
                let jump = stream.between(0, 2 * most) as i64 - most as i64;
                self.fault(&name, &format!("n{number} {jump} ms"));
                self.nodes[number].clock.jump(jump);
            }
            _ if !running => {}
            Fault::Regrant => self.regrant(number, stream)?,
            Fault::Freeze => {
                self.fault(&name, &format!("n{number} until {until_ms}"));
                self.freeze(number, until_ms);
            }
            Fault::Kill => {
                self.fault(&name, &format!("n{number}"));
                self.nodes[number].kill();
                self.leave(number);
            }
            Fault::PowerCut if stream.percent(70) => {
                // In the midst of some commit soon.
                let operations = stream.below(60);
                self.fault(&name, &format!("n{number} after {operations} operations"));
                self.nodes[number].disk.fail_power_after(operations);
            }
            Fault::PowerCut => {
                self.fault(&name, &format!("n{number}"));
                self.lose_power(number);
            }
            Fault::CountLost => {
                self.fault(&name, &format!("n{number}"));
                self.lose_count(number);
            }
            Fault::CleanStop => {
                self.fault(&name, &format!("n{number}"));
                self.stop(number)?;
            }
            Fault::Away => {
                let back_ms = now_ms + stream.between(1, self.options.safety_ms / 2 + 1);
                self.fault(&name, &format!("n{number} until {back_ms}"));
                self.nodes[number].away_until_ms = back_ms;
                self.stop(number)?;
            }
            Fault::SyncFails => {
                let after = stream.below(6);
                self.plan_io(&name, number, (Io::Sync, after), false, lost(stream));
            }
            Fault::WriteFails => {
                self.plan_io(&name, number, (Io::Write, stream.below(60)), false, 0)
            }
            Fault::ReadFails => self.plan_io(&name, number, (Io::Read, stream.below(60)), false, 0),
            Fault::DiskDead => {
                let io = stream.pick(&[Io::Read, Io::Write, Io::Sync]);
                let after = stream.below(20);
                self.plan_io(&name, number, (io, after), true, lost(stream));
                self.scheduler.at(until_ms, Happening::Mend { node: number });
            }
            Fault::DiskFull => {
                self.fault(&name, &format!("n{number} until {until_ms}"));
                self.nodes[number].disk.fill(true);
                self.scheduler.at(until_ms, Happening::Mend { node: number });
            }
            Fault::SyncLost => {
                self.fault(&name, &format!("n{number} until {until_ms}"));
                self.nodes[number].disk.lie(true);
                self.may_lose(number, true);
                self.scheduler.at(until_ms, Happening::Power { node: number });
            }
            Fault::BitRot => {
                let bits = stream.pick(&[1, 1, 3, 20]);
                let sound = !self.nodes[number].suspect;
                let treasured = match sound && stream.percent(50) {
                    true => self.shown_body(number, stream),
                    false => None,
                };
                if let Some(bytes) = treasured {
                    // A store that was not closed is verified as it opens, whoever reads it then.
                    self.stop(number)?;
                    if !self.nodes[number].homeless && self.nodes[number].disk.rot_at(&bytes) {
                        self.fault(&name, &format!("n{number} in what it shows"));
                        self.may_lose(number, true);
                    }
                    return Ok(());
                }
                self.nodes[number].kill();
                let at = self.nodes[number].disk.rot(bits, stream);
                self.fault(&name, &format!("n{number} {bits} bits, the first at {at:?}"));
                // A header that is hit can hide the last commit, and nothing on the device tells.
                self.may_lose(number, true);
                self.leave(number);
            }
            Fault::Restore | Fault::RestoreAll => {
                self.back_up(number);
                // What is written after a backup is gone with it, and who puts it back works on at once: nobody
                // has told the device yet what it wrote.
                self.restless.insert(number);
                self.work_soon(number);
                let later = now_ms + stream.between(MINUTE_MS, 15 * MINUTE_MS);
                let whole = fault == Fault::RestoreAll;
                self.scheduler.at(later, Happening::PutBack { node: number, whole });
            }
            Fault::Wipe => {
                self.fault(&name, &format!("n{number}"));
                self.replace(number);
            }
            Fault::Clone => {
                self.copy(number, now_ms + stream.between(MINUTE_MS / 6, 10 * MINUTE_MS));
            }
            _ => {}
        }
        Ok(())
    }

    /// The bytes in which a device keeps the body of some object that it shows: most of a store is read by
    /// nobody for long.
    fn shown_body(&self, number: usize, stream: &mut Stream) -> Option<Vec<u8>> {
        let running = self.nodes[number].running.as_ref()?;
        let snapshot = running.store.reader().snapshot().ok()?;
        let known = self.workload.known.iter();
        let from = stream.index(self.workload.known.len().max(1));
        known.clone().skip(from).chain(known.take(from)).find_map(|(lane, id)| {
            let Ok(Visibility::Shown(object)) = snapshot.object(*lane, id, WallMillis(0)) else {
                return None;
            };
            let body = object.row.body.into_bytes();
            (body.len() >= TREASURED_BYTES_MIN).then_some(body)
        })
    }

    fn strike_network(&mut self, fault: Fault, stream: &mut Stream, until_ms: u64) {
        let name = fault.name();
        let links: Vec<LinkId> = self.network.healthy().map(|(id, _)| id).collect();
        match fault {
            Fault::Cut | Fault::Clog | Fault::OneWay | Fault::Flap if !links.is_empty() => {
                let link = stream.pick(&links);
                self.fault(&name, &format!("{link:?} until {until_ms}"));
                match fault {
                    Fault::Cut => self.cut(link),
                    Fault::OneWay => self.stick(link, stream.index(2), until_ms),
                    Fault::Clog => (0..2).for_each(|from| self.stick(link, from, until_ms)),
                    _ => {
                        let ends = self.network.link(link).map(|link| link.ends);
                        if let Some([a, b]) = ends {
                            self.flap(a.node, b.node, stream.between(3, 20));
                        }
                    }
                }
            }
            Fault::Split | Fault::SplitOneWay | Fault::Isolate => {
                let len = self.nodes.len();
                let mut side = BTreeSet::from([stream.index(len)]);
                for node in 0..len {
                    if fault != Fault::Isolate && side.len() + 1 < len && stream.percent(40) {
                        side.insert(node);
                    }
                }
                let one_way = fault == Fault::SplitOneWay;
                self.fault(&name, &format!("{side:?} until {until_ms}"));
                self.split(&side, one_way, stream.percent(50), until_ms);
            }
            Fault::Storm => {
                let number = stream.index(self.nodes.len());
                self.fault(&name, &format!("n{number}"));
                for (link, _) in self.network.links_of(number) {
                    self.cut(link);
                }
                for peer in 0..self.nodes.len() {
                    let delays = (stream.below(30), stream.below(30));
                    self.dial_at(number, peer, self.options.detect_ms_max + delays.0);
                    self.dial_at(peer, number, self.options.detect_ms_max + delays.1);
                }
            }
            Fault::DoubleDial => {
                let (a, b) = (stream.index(self.nodes.len()), stream.index(self.nodes.len()));
                let up = |n: usize| self.nodes[n].running.is_some();
                if self.joins(a, b) && up(a) && up(b) && self.network.reaches(a, b, self.now_ms()) {
                    self.fault(&name, &format!("n{a} n{b}"));
                    self.connect(a, b);
                    self.connect(b, a);
                }
            }
            _ => {}
        }
    }

    /// Severs one side from the rest; links across are broken at once, or stand still first.
    pub(super) fn split(
        &mut self,
        side: &BTreeSet<usize>,
        one_way: bool,
        silent: bool,
        until_ms: u64,
    ) {
        let others: Vec<usize> = (0..self.nodes.len()).filter(|n| !side.contains(n)).collect();
        for inside in side {
            for outside in &others {
                self.network.sever(*inside, *outside, until_ms);
                if !one_way {
                    self.network.sever(*outside, *inside, until_ms);
                }
            }
        }
        for (link, _) in self.network.between(side) {
            if silent {
                self.watch(link, until_ms);
            } else {
                self.cut(link);
            }
        }
    }

    fn plan_io(
        &mut self,
        name: &str,
        number: usize,
        (io, operations): (Io, u64),
        for_ever: bool,
        lost: u64,
    ) {
        self.fault(name, &format!("n{number} {io:?} after {operations}, losing {lost:x}"));
        self.nodes[number].disk.fail_after(io, operations, for_ever, lost);
    }

    pub(super) fn freeze(&mut self, number: usize, until_ms: u64) {
        let frozen = &mut self.nodes[number].frozen_until_ms;
        // What waits for the end of an earlier one waits until then.
        *frozen = (*frozen).max(until_ms);
        for (link, _) in self.network.links_of(number) {
            self.watch(link, until_ms);
        }
    }

    /// Everything sleeps; when it wakes, all clocks have moved on and every timer is due.
    pub(super) fn sleep(&mut self, ms: u64) {
        let now_ms = self.now_ms();
        let lag_ms = super::report_lag_ms(&self.options);
        self.report.excused_until_ms = now_ms + lag_ms;
        for number in 0..self.nodes.len() {
            self.nodes[number].clock.sleep(ms);
            if self.nodes[number].running.is_some() {
                self.waking.insert(number, now_ms + 1);
                let run = self.nodes[number].run;
                self.scheduler.at(now_ms + 1, Happening::Wake { node: number, run });
            }
        }
    }

    pub(super) fn lose_power(&mut self, number: usize) {
        if self.nodes[number].running.is_none() {
            return;
        }
        self.line("power", format!("n{number}"));
        self.nodes[number].cut_power(self.streams.of(Purpose::Power, number));
        self.nodes[number].disk.lie(false);
        self.leave(number);
    }

    /// Stops a node as it should be.
    pub(super) fn stop(&mut self, number: usize) -> Checked {
        let told = self.call(number, |running, _| running.engine.shut_down(&mut running.store));
        if let Some(Err(error)) = told {
            return self.store_failed(number, &error);
        }
        self.settle(number)?;
        if self.nodes[number].running.is_some() {
            if let Err(error) = self.nodes[number].close() {
                return self.store_failed(number, &error);
            }
            self.leave(number);
        }
        Ok(())
    }

    /// From now on a device may lose what it acknowledged; perhaps without being able to tell.
    pub(super) fn may_lose(&mut self, number: usize, unnoticed: bool) {
        let now_ms = self.now_ms();
        self.nodes[number].suspect = true;
        self.excuses.shrunk_at_ms.insert(number, now_ms);
        self.grown.forget(number);
        self.chains.on_lost(number);
        self.durable.on_lost(number);
        self.report.on_lost(number);
        self.resurrection.on_lost(number);
        if unnoticed {
            self.excuses.forks.insert(self.nodes[number].device());
        }
    }

    pub(super) fn back_up(&mut self, number: usize) {
        let image = self.nodes[number].disk.image();
        self.images.insert(number, (image, self.nodes[number].opens_outside));
        self.line("backup", format!("n{number}"));
    }

    /// Puts the last backup back.
    pub(super) fn put_back(&mut self, number: usize, whole: bool) {
        let Some((image, opens)) = self.images.remove(&number) else { return };
        if self.calm || !self.nodes[number].is_honest() {
            return;
        }
        let name = if whole { "restore-all" } else { "restore" };
        let node = &mut self.nodes[number];
        // Without a restart since the backup the count of opens says nothing.
        let unnoticed = whole || node.opens_outside == opens;
        self.fault(name, &format!("n{number} unnoticed {unnoticed}"));
        let node = &mut self.nodes[number];
        let was_running = node.running.is_some();
        node.kill();
        node.disk.restore(&image);
        if whole {
            node.opens_outside = opens;
        }
        let suspect = node.suspect;
        self.may_lose(number, unnoticed);
        // Its bytes are what was written once.
        self.nodes[number].suspect = suspect;
        if was_running {
            self.leave(number);
        }
    }

    /// A device says that its store is damaged, which a person answers with a new disk.
    pub(super) fn damaged(&mut self, number: usize, what: String) {
        self.fault("damage reported", &what);
        self.damage.push((number, what));
        self.replace(number);
    }

    /// A device gets a new, empty disk under its old key.
    pub(super) fn replace(&mut self, number: usize) {
        self.nodes[number].wipe();
        self.may_lose(number, false);
        self.nodes[number].suspect = false;
        self.nodes[number].homeless = true;
        self.excuses.late.insert(self.nodes[number].device());
        self.images.remove(&number);
        self.leave(number);
    }

    /// A device that lost its store is given the roster by a member.
    pub(super) fn rejoin(&mut self, number: usize) -> Checked {
        let node = &self.nodes[number];
        if !node.homeless || node.retired || node.running.is_none() {
            return Ok(());
        }
        let device = node.device();
        let now_ms = self.now_ms();
        // A mesh that was begun anew knows nobody yet.
        let anew = self.begun_anew.is_some() && !self.excuses.revoked.contains(&device);
        let helper = (0..self.nodes.len()).find(|helper| {
            let Some(running) = &self.nodes[*helper].running else { return false };
            self.may_vouch(*helper)
                && self.network.reaches(*helper, number, now_ms)
                && (running.engine.roster().is_member(device) || anew)
        });
        match helper {
            Some(helper) => {
                self.pair(helper, number)?;
                // The helper's disk can fail in the middle of it.
                if self.nodes[number].homeless {
                    self.scheduler.after(5_000, Happening::Rejoin { node: number });
                }
                Ok(())
            }
            // Then a person begins anew, with the first of those that lost their stores.
            None if self.is_mesh_lost() && self.first_homeless() == Some(number) => {
                self.fault("mesh lost", &format!("begun anew by n{number}"));
                self.nodes[number].homeless = false;
                self.begun_anew = self.nodes[number].mesh();
                self.nodes[number].home = self.begun_anew;
                Ok(())
            }
            None => {
                self.scheduler.after(5_000, Happening::Rejoin { node: number });
                Ok(())
            }
        }
    }

    /// Whether nobody who could speak for the mesh is left, running or not.
    fn is_mesh_lost(&self) -> bool {
        !self.nodes.iter().any(|node| {
            let member = node.joined && !node.homeless && node.is_honest();
            member && !self.is_out(node.device())
        })
    }

    /// Whether a device was put out, by all records that any device holds: a revocation may be void.
    fn is_out(&self, device: DeviceId) -> bool {
        self.excuses.revoked.contains(&device)
            && self.roster_of_all().is_none_or(|roster| !roster.is_member(device))
    }

    fn first_homeless(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.joined && node.homeless && node.is_honest())
    }

    /// Whether a device can speak for the mesh.
    pub(super) fn may_vouch(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        node.joined
            && !node.homeless
            && node.is_honest()
            && node.running.is_some()
            && node.frozen_until_ms <= self.now_ms()
            && node.thinks_itself_a_member()
            && !self.is_out(node.device())
    }

    fn join_one(&mut self, stream: &mut Stream) -> Checked {
        let outsiders: Vec<usize> = (0..self.nodes.len())
            .filter(|n| !self.nodes[*n].joined && self.nodes[*n].running.is_some())
            .collect();
        let members: Vec<usize> = (0..self.nodes.len()).filter(|n| self.may_vouch(*n)).collect();
        if outsiders.is_empty() || members.is_empty() {
            return Ok(());
        }
        let (by, other) = (stream.pick(&members), stream.pick(&outsiders));
        self.fault("join", &format!("n{other} by n{by}"));
        self.excuses.late.insert(self.nodes[other].device());
        self.pair(by, other)
    }

    /// A member takes a device in.
    pub(super) fn pair(&mut self, by: usize, other: usize) -> Checked {
        // What waits for a commit gets its own first.
        self.settle(by)?;
        self.settle(other)?;
        let now_ms = self.now_ms();
        let paired = cluster::pair(&mut self.nodes, by, other, now_ms);
        self.line("pair", format!("n{by} takes in n{other}"));
        if let Err(error) = paired {
            let failed = |n: usize| self.nodes[n].disk.failed().is_some() || self.nodes[n].suspect;
            if !failed(by) && !failed(other) {
                let what = format!("n{by} cannot take in n{other}: {error}");
                return Err(Violation { invariant: peers::NAME, what });
            }
            let number = if failed(by) { by } else { other };
            return self.store_failed(number, &error);
        }
        self.committed(by)?;
        self.committed(other)?;
        self.settle(by)?;
        self.settle(other)?;
        self.dial_all(other, 500);
        Ok(())
    }

    fn revoke_one(&mut self, stream: &mut Stream) -> Checked {
        let members: Vec<usize> = (0..self.nodes.len()).filter(|n| self.may_vouch(*n)).collect();
        // With a member that breaks the rules one other is enough to be told lies.
        if members.len() < 2 || (members.len() == 2 && self.options.hostile().is_none()) {
            return Ok(());
        }
        let (mut by, target) = (stream.pick(&members), stream.pick(&members));
        if stream.percent(30) {
            return if by == target { Ok(()) } else { self.revoke(by, target) };
        }
        // Who is put out does not know yet, and works on: its entries and the word cross where they are
        // handed on, most of all where the two never meet.
        let far: Vec<usize> =
            members.iter().copied().filter(|n| *n != target && !self.joins(*n, target)).collect();
        if !far.is_empty() {
            by = stream.pick(&far);
        }
        if by == target {
            return Ok(());
        }
        let cross_ms = 2 * self.options.links.latency_ms_max + 20;
        self.scheduler.after(0, Happening::Work { node: target });
        for _ in 0..stream.between(3, 8) {
            let at_ms = PUT_OUT_AFTER_MS + stream.below(cross_ms);
            self.scheduler.after(at_ms, Happening::Work { node: target });
        }
        self.scheduler.after(PUT_OUT_AFTER_MS + cross_ms - 20, Happening::PutOut { by, target });
        Ok(())
    }

    /// A member that could speak for the mesh when this was planned puts another out.
    pub(super) fn put_out_now(&mut self, by: usize, target: usize) -> Checked {
        if self.calm || !self.may_vouch(by) || self.is_out(self.nodes[target].device()) {
            self.line("not put out", format!("n{target} by n{by}"));
            return Ok(());
        }
        self.revoke(by, target)
    }

    /// A device writes some batches within a moment, besides what is planned.
    pub(super) fn work_soon(&mut self, number: usize) {
        for _ in 0..3 {
            let after_ms = self.streams.of(Purpose::Burst, number).below(300);
            self.scheduler.after(after_ms, Happening::Work { node: number });
        }
    }

    /// A device writes a batch, besides what is planned.
    pub(super) fn work_on(&mut self, number: usize) -> Checked {
        if self.calm {
            return Ok(());
        }
        let work = self.workload.batch(self.streams.of(Purpose::Burst, number), number, 1);
        self.write(number, work)
    }

    pub(super) fn revoke(&mut self, by: usize, target: usize) -> Checked {
        let device: DeviceId = self.nodes[target].device();
        self.excuses.revoked.insert(device);
        self.fault("revoke", &format!("n{target} by n{by}"));
        let mut refused = None;
        let done = self.call(by, |running, now| {
            use srcos_replication::engine::MeshError;
            match running.engine.revoke(&mut running.store, now, device, "lost") {
                Ok(()) => Ok(()),
                Err(MeshError::Store(error)) => Err(error),
                // It may have been revoked itself, and know it.
                Err(MeshError::Roster(error)) => {
                    refused = Some(error.to_string());
                    Ok(())
                }
            }
        });
        if let Some(why) = refused {
            self.line("refused", format!("n{by} {why}"));
        }
        if let Some(Err(error)) = done {
            return self.store_failed(by, &error);
        }
        self.settle(by)
    }

    /// Two devices open the secure lane to each other, or one closes it again.
    fn regrant(&mut self, number: usize, stream: &mut Stream) -> Checked {
        let other = stream.index(self.nodes.len());
        let closes = other == number || !self.nodes[other].is_honest() || stream.percent(40);
        // A policy changes while the node runs, or while it is stopped.
        let stops = [stream.percent(50), stream.percent(50)];
        if stops[0] {
            self.stop(number)?;
        }
        if closes {
            return self.set_grants(number, number, &[]);
        }
        if stops[1] {
            self.stop(other)?;
        }
        // No classes: what was withheld before a grant is not sent after it yet, so what builds on it
        // would have to wait.
        let opened = [(LaneId::Secure, None)];
        self.set_grants(number, other, &opened)?;
        self.set_grants(other, number, &opened)
    }

    /// A device has grants for one other and no one else from now on.
    pub(super) fn set_grants(
        &mut self,
        number: usize,
        to: usize,
        opened: &[(LaneId, Option<String>)],
    ) -> Checked {
        let device = self.nodes[to].device();
        let grant = |(lane, class): &(LaneId, Option<String>)| Grant {
            lane: *lane,
            class: class.clone(),
            to: device,
        };
        let grants: Vec<Grant> = opened.iter().map(grant).collect();
        let now_ms = self.now_ms();
        let node = &mut self.nodes[number];
        // Whose process stands still changes nothing.
        if node.grants == grants || node.frozen_until_ms > now_ms {
            return Ok(());
        }
        let own = node.device();
        let before = std::mem::replace(&mut node.grants, grants.clone());
        let others = before.iter().chain(&grants).map(|grant| grant.to);
        self.excuses.regranted.extend(others.map(|other| (own, other)));
        self.fault("regrant", &format!("n{number} opens {opened:?} to n{to}"));
        let policy = self.nodes[number].policy();
        let changed = self.call(number, |running, _| {
            running.engine.set_policy(policy);
            Ok(())
        });
        if changed.is_some() { self.settle(number) } else { Ok(()) }
    }

    pub(super) fn copy(&mut self, number: usize, until_ms: u64) {
        if self.nodes.iter().any(|node| node.copy_of.is_some() && !node.retired) {
            return;
        }
        let copy = self.nodes.len();
        self.fault("clone", &format!("n{number} is copied as n{copy} until {until_ms}"));
        let node = Node::copied(&self.nodes[number], number, self.options.seed, copy);
        self.excuses.forks.insert(node.device());
        self.excuses.shrunk_at_ms.insert(number, self.now_ms());
        self.nodes.push(node);
        self.scheduler.after(1, Happening::Start { node: copy });
        self.scheduler.at(until_ms, Happening::Retire { node: copy });
    }

    pub(super) fn retire(&mut self, number: usize) {
        self.line("retire", format!("n{number}"));
        self.nodes[number].kill();
        self.nodes[number].retired = true;
        self.forget(number);
    }
}

/// What a failed sync loses: nothing, all, or some.
fn lost(stream: &mut Stream) -> u64 {
    match stream.below(4) {
        0 | 1 => 0,
        2 => u64::MAX,
        _ => u64::from(stream.bits()) << 32 | u64::from(stream.bits()),
    }
}
