//! A member that breaks the rules takes in an accomplice, and is put out.
//!
//! The admission is signed with the member's real key and told to the accomplice alone, which is a real
//! engine over a real store and shows it to whomever it meets. Whoever puts the member out without having heard of
//! it makes it void (ADR 0003).

use super::{Happening, World};
use crate::cluster::Node;
use crate::hostile::{Tamperer, Trick};
use crate::invariants::{Checked, unreadable};
use crate::scheduler::{Purpose, Stream};

impl World {
    /// Draws when the member takes in its accomplice, and when it is caught: at once, soon, or late.
    pub(super) fn plan_betrayal(&mut self) {
        let safety_ms = self.options.safety_ms;
        if safety_ms == 0 || !self.options.tricks.contains_key(&Trick::Accomplice) {
            return;
        }
        let mut stream = Stream::new(self.options.seed, "betrayal", 0);
        let at_ms = stream.between(safety_ms / 10, safety_ms * 8 / 10);
        let free_ms = stream.pick(&[0, 0, 1_000, 60_000, safety_ms / 10]);
        self.scheduler.at(at_ms, Happening::Betray);
        self.scheduler.at(at_ms + free_ms, Happening::Caught);
    }

    /// The member that breaks the rules takes in an accomplice, and tells nobody.
    pub(super) fn betray(&mut self) -> Checked {
        let Some(thief) = self.options.hostile() else { return Ok(()) };
        if self.calm {
            return Ok(());
        }
        let (seed, number, now_ms) = (self.options.seed, self.nodes.len(), self.now_ms());
        let mut node = Node::new(seed, number, self.options.clocks);
        node.start(now_ms).map_err(|failure| unreadable(number, &failure.0))?;
        let (device, now) = (node.device(), node.now(now_ms));
        let key = self.nodes[thief].key().clone();
        let Some(running) = &self.nodes[thief].running else { return Ok(()) };
        let roster = running.engine.roster();
        // One that was put out already, and heard of it, signs no admission that could be believed.
        let Ok(admission) = roster.admit(device, "accomplice", node.mesh(), now.wall, &key) else {
            return Ok(());
        };
        let known = roster.records_in_order().map(|record| record.0.clone());
        let records: Vec<Vec<u8>> = known.chain([admission.0]).collect();
        let mesh = roster.mesh();
        if let Some(joins) = &mut node.running {
            let joined = joins.engine.join(&mut joins.store, now, &records);
            let done = joined.is_ok().then(|| joins.engine.commit(&mut joins.store, now));
            if !matches!(done, Some(Ok(()))) {
                return Ok(());
            }
        }
        (node.home, node.joined) = (Some(mesh), true);
        node.tamperer = Some(Tamperer::new(node.key().clone(), mesh, [].into(), seed));
        self.fault("accomplice", &format!("n{number} taken in by n{thief}, unseen"));
        self.excuses.hostile.insert(device);
        self.excuses.accomplices.insert(device);
        self.excuses.late.insert(device);
        self.nodes.push(node);
        self.settle_soon(number);
        self.dial_all(number, 500);
        Ok(())
    }

    /// Some member puts out the one that breaks the rules.
    pub(super) fn catch(&mut self) -> Checked {
        let Some(thief) = self.options.hostile() else { return Ok(()) };
        let members: Vec<usize> = (0..self.nodes.len()).filter(|n| self.may_vouch(*n)).collect();
        if self.calm || members.is_empty() || self.excuses.accomplices.is_empty() {
            return Ok(());
        }
        let by = self.streams.of(Purpose::Betrayal, 0).pick(&members);
        self.revoke(by, thief)
    }

    /// What a person does when told that a device has too many journals: puts it out, which brings all
    /// together again (ADR 0018).
    pub(super) fn end_flood(&mut self) -> Checked {
        let Some(thief) = self.options.hostile() else { return Ok(()) };
        let device = self.nodes[thief].device();
        if !self.excuses.is_flooded() {
            return Ok(());
        }
        let members = (0..self.nodes.len()).filter(|number| self.may_vouch(*number));
        let rosters: Vec<_> = members
            .filter_map(|number| Some((number, self.nodes[number].running.as_ref()?)))
            .map(|(number, running)| (number, running.engine.roster()))
            .collect();
        if rosters.iter().any(|(_, roster)| roster.revoked().contains_key(&device)) {
            return Ok(());
        }
        let by = rosters.iter().find(|(_, roster)| roster.is_member(device));
        match by.map(|(number, _)| *number) {
            Some(by) => self.revoke(by, thief),
            None => Ok(()),
        }
    }
}
