//! Links in a world: dialling, arriving, breaking, and who learns of it when.

use srcos_replication::engine::ConnId;

use super::{Happening, World};
use crate::invariants::Checked;
use crate::network::LinkId;
use crate::scheduler::Purpose;

/// Time until a node dials again after the first failure, at most, in milliseconds.
const REDIAL_MS_FIRST: u64 = 500;
/// Time until a node dials again after many failures, at most, in milliseconds.
const REDIAL_MS_MAX: u64 = 30_000;
/// A link that lasted for this long was no failure, in milliseconds. Without this a device and its
/// copy, each of which takes the place of the other at every peer, would meet them all twice a second.
const LASTED_MS: u64 = 10_000;

impl World {
    /// Whether two nodes ever meet.
    pub(super) fn joins(&self, a: usize, b: usize) -> bool {
        // A copy is where its original is, and an accomplice where the one that took it in is.
        let taken_in =
            |number: usize| self.excuses.accomplices.contains(&self.nodes[number].device());
        let own = |number: usize| {
            let thief = if taken_in(number) { self.options.hostile() } else { None };
            self.nodes[number].copy_of.or(thief).unwrap_or(number)
        };
        let (first, second) = (own(a), own(b));
        if first == second {
            return taken_in(a) != taken_in(b);
        }
        if !self.nodes[first].joined || !self.nodes[second].joined {
            return false;
        }
        let core = self.core.contains(&a) && self.core.contains(&b);
        (self.bridged && core)
            || self.options.topology.joins(first, second, self.options.all_devices())
    }

    /// Whether a node ever dials another. As the shipped node does, it leaves alone whom it knows to be
    /// revoked; who was revoked goes on trying, whoever else would dial.
    fn dials(&self, node: usize, peer: usize) -> bool {
        let is_out = |number: usize| self.excuses.revoked.contains(&self.nodes[number].device());
        let (dialler, dialled) = (&self.nodes[node], self.nodes[peer].device());
        let roster = dialler.running.as_ref().map(|running| running.engine.roster());
        let knows = roster.is_some_and(|roster| roster.revoked().contains_key(&dialled));
        let tries = self.options.both_dial || node < peer || dialler.copy_of.is_some();
        self.joins(node, peer) && !knows && (tries || is_out(node))
    }

    pub(super) fn dial_all(&mut self, node: usize, within_ms: u64) {
        for peer in 0..self.nodes.len() {
            if self.dials(node, peer) {
                let delay = self.streams.of(Purpose::Dial, node).between(0, within_ms);
                self.dial_at(node, peer, delay);
            }
            // A node that waits to be dialled was missed while it was away.
            if self.dials(peer, node) && !self.dials(node, peer) {
                self.dial_soon(peer, node);
            }
        }
    }

    /// Plans a dial, unless one is planned that comes no later.
    pub(super) fn dial_at(&mut self, node: usize, peer: usize, delay_ms: u64) {
        let at_ms = self.now_ms() + delay_ms;
        let planned = self.dialling.get(&(node, peer));
        if planned.is_some_and(|planned| *planned >= self.now_ms() && *planned <= at_ms) {
            return;
        }
        self.dialling.insert((node, peer), at_ms);
        let run = self.nodes[node].run;
        self.scheduler.at(at_ms, Happening::Dial { node, peer, run });
    }

    /// A node dials again after a link is gone; from anew when the link had lasted.
    fn redial(&mut self, node: usize, peer: usize, since_ms: u64) {
        if self.now_ms() >= since_ms + LASTED_MS {
            self.dial_failures.remove(&(node, peer));
        }
        self.dial_soon(node, peer);
    }

    fn dial_soon(&mut self, node: usize, peer: usize) {
        if !self.dials(node, peer) {
            return;
        }
        let failures = self.dial_failures.entry((node, peer)).or_default();
        *failures = (*failures + 1).min(10);
        let most = (REDIAL_MS_FIRST << *failures).min(REDIAL_MS_MAX);
        let delay = self.streams.of(Purpose::Dial, node).between(20, most);
        self.dial_at(node, peer, delay);
    }

    pub(super) fn dial(&mut self, node: usize, peer: usize) {
        let stopped = |number: usize| self.nodes[number].running.is_none();
        if stopped(node) || !self.dials(node, peer) || self.network.is_linked(node, peer) {
            return;
        }
        let asleep = self.nodes[peer].frozen_until_ms > self.now_ms();
        if stopped(peer) || asleep || !self.network.reaches(node, peer, self.now_ms()) {
            self.dial_soon(node, peer);
            return;
        }
        self.connect(node, peer);
    }

    /// Makes a link, whatever links there are.
    pub(super) fn connect(&mut self, node: usize, peer: usize) {
        let now_ms = self.now_ms();
        let link = self.network.connect(node, peer, now_ms);
        self.line("connect", format!("n{node} n{peer} {link:?}"));
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return };
        for (end, other) in [(ends[0], peer), (ends[1], node)] {
            let device = self.nodes[other].device();
            let now = self.nodes[end.node].now(now_ms);
            if let Some(running) = &mut self.nodes[end.node].running {
                running.engine.handle_connected(&running.store, now, end.conn, device);
            }
            self.settle_soon(end.node);
        }
    }

    pub(super) fn put_on_link(&mut self, link: LinkId, side: usize, frame: Vec<u8>) {
        let shape = self.options.links;
        let sender = self.network.link(link).map_or(0, |link| link.ends[side].node);
        let way = self.streams.of(Purpose::Way, sender);
        let latency = way.between(shape.latency_ms_min, shape.latency_ms_max);
        if let Some(at) = self.network.send(link, side, frame, self.now_ms(), latency) {
            self.scheduler.at(at, Happening::Arrive { link, from: side, crossed: false });
        }
    }

    pub(super) fn arrive(&mut self, link: LinkId, from: usize, crossed: bool) -> Checked {
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return Ok(()) };
        let (sender, receiver) = (ends[from], ends[1 - from]);
        let now_ms = self.now_ms();
        let stuck = self.network.stuck(link, from, now_ms);
        if let Some(until) = stuck.filter(|until| !crossed && *until > now_ms) {
            self.scheduler.at(until, Happening::Arrive { link, from, crossed });
            return Ok(());
        }
        // It lies in the buffers of a machine whose process stands still: the link matters no more.
        let thaws = self.nodes[receiver.node].frozen_until_ms;
        if thaws > now_ms {
            self.scheduler.at(thaws, Happening::Arrive { link, from, crossed: true });
            return Ok(());
        }
        let Some(frame) = self.network.arrive(link, from) else { return Ok(()) };
        let text = format!("n{} {:?} from n{}", receiver.node, receiver.conn, sender.node);
        self.line("arrive", &text);
        if self.network.has_room(link, from)
            && let Some(link) = self.network.link_mut(link)
            && std::mem::take(&mut link.blocked[from])
        {
            if let Some(running) = &mut self.nodes[sender.node].running {
                running.engine.handle_blocked(sender.conn, false);
            }
            self.settle_soon(sender.node);
        }
        self.report.on_heard(now_ms, receiver.node, self.nodes[sender.node].device());
        let handled = self.call(receiver.node, |running, now| {
            running.engine.handle_frame(&mut running.store, now, receiver.conn, &frame)
        });
        if let Some(Err(error)) = handled {
            return self.store_failed(receiver.node, &error);
        }
        self.settle_soon(receiver.node);
        Ok(())
    }

    /// A node's engine wants a connection closed.
    pub(super) fn close_link(&mut self, node: usize, conn: ConnId) {
        let Some((link, side)) = self.network.find(node, conn) else { return };
        let Some((ends, since_ms)) = self.network.link(link).map(|link| (link.ends, link.since_ms))
        else {
            return;
        };
        if let Some(at) = self.network.close(link, side, self.now_ms()) {
            self.scheduler.at(at, Happening::Learn { link, side: 1 - side });
        }
        self.redial(node, ends[1 - side].node, since_ms);
    }

    /// Breaks a link; each end learns of it in its time.
    pub(super) fn cut(&mut self, link: LinkId) {
        if !self.network.cut(link) {
            return;
        }
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return };
        for (side, end) in ends.iter().enumerate() {
            let notice = self.streams.of(Purpose::Notice, end.node);
            let delay = notice.between(0, self.options.detect_ms_max);
            self.scheduler.after(delay, Happening::Learn { link, side });
        }
    }

    /// A link stands still in a direction for a while; when that is long, both ends give it up.
    pub(super) fn stick(&mut self, link: LinkId, from: usize, until_ms: u64) {
        self.network.stick(link, from, until_ms);
        self.watch(link, until_ms);
    }

    /// A link on which nothing will pass until a time is taken for dead when it has stood still for long
    /// enough, also where one outage follows another.
    pub(super) fn watch(&mut self, link: LinkId, until_ms: u64) {
        let now_ms = self.now_ms();
        let since_ms = self.network.stand_still(link, now_ms, until_ms);
        let dead_ms = since_ms + self.options.dead_link_ms;
        if until_ms > dead_ms {
            self.scheduler.at(dead_ms.max(now_ms), Happening::GiveUp { link });
        }
    }

    /// Mends the network: what stood still arrives now, and who was frozen does what is due.
    pub(super) fn release(&mut self) {
        self.network.heal();
        for (link, from, frames) in self.network.queued() {
            (0..frames).for_each(|_| {
                self.scheduler.after(0, Happening::Arrive { link, from, crossed: false })
            });
        }
        for (link, side) in self.network.unaware() {
            self.scheduler.after(self.options.detect_ms_max, Happening::Learn { link, side });
        }
        self.settling.clear();
        self.dialling.clear();
        for number in 0..self.nodes.len() {
            self.settle_soon(number);
            self.dial_all(number, 500);
        }
    }

    pub(super) fn give_up(&mut self, link: LinkId) {
        let now_ms = self.now_ms();
        let Some(ends) = self.network.link(link).map(|link| link.ends) else { return };
        let frozen = ends.iter().any(|end| self.nodes[end.node].frozen_until_ms > now_ms);
        let stuck = (0..2).any(|from| self.network.stuck(link, from, now_ms).is_some());
        if frozen || stuck {
            self.line("given up", format!("{link:?}"));
            self.cut(link);
        }
    }

    pub(super) fn learn(&mut self, link: LinkId, side: usize) {
        let Some((ends, since_ms)) = self.network.link(link).map(|link| (link.ends, link.since_ms))
        else {
            return;
        };
        let end = ends[side];
        let thaws = self.nodes[end.node].frozen_until_ms;
        if thaws > self.now_ms() {
            self.scheduler.at(thaws, Happening::Learn { link, side });
            return;
        }
        if !self.network.learn(link, side) {
            return;
        }
        self.line("link gone", format!("n{} {:?}", end.node, end.conn));
        let now = self.nodes[end.node].now(self.now_ms());
        if let Some(running) = &mut self.nodes[end.node].running {
            running.engine.handle_disconnected(now, end.conn);
        }
        self.confined.on_closed(end.node, end.conn.0);
        self.settle_soon(end.node);
        self.redial(end.node, ends[1 - side].node, since_ms);
    }

    /// A node that is gone takes its end of a link along.
    pub(super) fn learn_own(&mut self, link: LinkId, side: usize) {
        let end = self.network.link(link).map(|link| link.ends[side]);
        self.network.learn(link, side);
        if let Some(end) = end {
            self.confined.on_closed(end.node, end.conn.0);
        }
    }

    pub(super) fn flap(&mut self, a: usize, b: usize, left: u64) {
        let between = |link: &crate::network::Link| {
            let nodes = link.ends.map(|end| end.node);
            nodes == [a, b] || nodes == [b, a]
        };
        let links: Vec<LinkId> =
            self.network.healthy().filter(|(_, link)| between(link)).map(|(id, _)| id).collect();
        for link in links {
            self.cut(link);
        }
        if left > 0 && !self.calm {
            let delay = self.streams.of(Purpose::Flap, a).between(100, 4_000);
            self.scheduler.after(delay, Happening::Flap { a, b, left: left - 1 });
        }
    }
}
