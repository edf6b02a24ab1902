//! What follows when the members of the mesh change, or this device is turned away.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use srcos_lanes::ids::DeviceId;
use srcos_lanes::lane::LaneId;
use srcos_replication::dialer::Source;
use srcos_replication::roster::Roster;
use srcos_replication::wire::PROOF_BYTES_MAX;

use super::{Daemon, bare, peer_device};
use crate::data_dir::store_error;
use crate::diagnosis;
use crate::transport::UNACCEPTED_BYTES_MAX;

/// With its hello, which names 64 heads of 32 bytes, a proof of membership is read of a link before it is
/// accepted.
const _: () = assert!(PROOF_BYTES_MAX + 8 * 1024 <= UNACCEPTED_BYTES_MAX);

/// The name under which the store keeps where a peer may be: one address a line, with [`PROVEN`] behind
/// it where it led to the device.
const ADDRESSES: &str = "addresses-1";
const PROVEN: &str = " proven";

impl Daemon {
    /// Tells everyone below who belongs to the mesh.
    pub(super) fn members_changed(&mut self) {
        self.note_membership();
        let now = self.core.now();
        let members = self.other_members();
        self.core.network.refused_by.retain(|device| members.contains(device));
        let roster = self.core.engine.roster();
        self.core.network.errors.retain(|device, _| knows(roster, *device));
        self.dialer.set_members(&members);
        self.tell_members();
        for addr in self.peers.clone() {
            let address = bare(&addr).to_string();
            match peer_device(&addr) {
                Some(device) => self.dialer.address(device, &address, Source::Person, now.mono),
                // Whoever is there proves who it is; the others refuse the dial.
                None => members.iter().for_each(|device| {
                    self.dialer.address(*device, &address, Source::Person, now.mono);
                }),
            }
        }
        if let Ok(snapshot) = self.core.store.reader().snapshot() {
            for device in &members {
                let Ok(Some(bytes)) = snapshot.peer_fact(*device, ADDRESSES) else { continue };
                for line in String::from_utf8_lossy(&bytes).lines() {
                    let proven = line.strip_suffix(PROVEN);
                    let source = proven.map_or(Source::Learned, |_| Source::Proven);
                    self.dialer.address(*device, proven.unwrap_or(line), source, now.mono);
                }
            }
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.judge(|candidate| self.dial_candidate(candidate, now));
        self.candidates = candidates;
    }

    fn other_members(&self) -> BTreeSet<DeviceId> {
        let own = self.core.key.device();
        self.core.engine.roster().members().keys().copied().filter(|d| *d != own).collect()
    }

    /// Tells the network whom its limits on strangers do not concern, and discovery whom no flood may
    /// push out.
    pub(super) fn tell_members(&mut self) {
        let members = self.other_members();
        let told = self.transport.set_members(members.clone()).is_ok();
        let known = self.discovery.as_ref().is_none_or(|found| found.set_known(members).is_ok());
        self.untold.members = !(told && known);
    }

    /// Writes down where a peer with a link may be found after a restart, whichever end dialled: the
    /// end that restarts may then be the only one that can.
    pub(super) fn keep_addresses(&mut self, device: DeviceId) {
        if !self.core.network.links.contains_key(&device) {
            return;
        }
        let lasting = self.dialer.lasting_addresses(device).into_iter();
        let addresses: Vec<String> = lasting
            .map(|lasting| {
                format!("{}{}", lasting.address, if lasting.proven { PROVEN } else { "" })
            })
            .collect();
        if addresses.is_empty() || self.kept_addresses.get(&device) == Some(&addresses) {
            return;
        }
        let lines = addresses.join("\n");
        let kept = self.core.store.put_peer_fact(device, ADDRESSES, lines.as_bytes());
        self.note_failure(kept.map_err(store_error));
        self.kept_addresses.insert(device, addresses);
    }

    /// A peer turned this device away as revoked. Only a signed record makes that so; without one it is
    /// what that peer says.
    pub(super) fn refused(&mut self, device: DeviceId) {
        let roster = self.core.engine.roster();
        if roster.is_member(self.core.key.device()) && roster.is_member(device) {
            self.core.network.refused_by.insert(device);
        }
        self.note_error(device, "it refuses this device as revoked".to_owned());
    }

    /// Remembers what went wrong with a device that is shown among the peers. Of strangers nothing is
    /// kept: whoever reaches this node has as many keys as it likes.
    pub(super) fn note_error(&mut self, device: DeviceId, why: String) {
        if self.is_known(device) {
            self.core.network.errors.insert(device, why);
        }
    }

    /// Whether a device is shown among the peers: a member, or one that was.
    pub(super) fn is_known(&self, device: DeviceId) -> bool {
        knows(self.core.engine.roster(), device)
    }

    pub(super) fn note_membership(&self) {
        let out = diagnosis::of_membership(self.core.engine.roster(), self.core.key.device());
        let mut said = self.not_a_member.lock().unwrap_or_else(PoisonError::into_inner);
        *said = out.map(|found| found.message);
    }

    /// Remembers in which lanes a journal has two histories. That does not pass.
    pub(super) fn note_forks(&self) {
        let forked = |lane: &LaneId| self.core.store.journals(*lane).any(|(_, row)| row.forked);
        let forked: Vec<String> = LaneId::ALL
            .into_iter()
            .filter(forked)
            .map(|lane| diagnosis::of_fork(lane.name()).message)
            .collect();
        let mut said = self.forked.lock().unwrap_or_else(PoisonError::into_inner);
        *said = (!forked.is_empty()).then(|| forked.join("; "));
    }
}

fn knows(roster: &Roster, device: DeviceId) -> bool {
    roster.is_member(device) || roster.revoked().contains_key(&device)
}
