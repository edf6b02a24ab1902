//! What discovery finds, and what is told to it.

use srcos_lanes::ids::Now;
use srcos_replication::dialer::Source;

use super::Daemon;
use crate::discovery::{self, Announcement, Candidate, Ports};
use crate::roaming;

impl Daemon {
    pub(super) fn handle_discovery(&mut self, event: discovery::Event) {
        let now = self.core.now();
        match event {
            discovery::Event::PeerSeen(candidate) => {
                let member = self.dial_candidate(&candidate, now);
                self.pairings.seen(now, &candidate);
                let before = self.candidates.heard(candidate.clone(), member);
                let before = before.map(|before| before.addrs).unwrap_or_default();
                for (link, _) in self.links.values() {
                    // Anybody on the network can say so: the peer is asked first. If that cannot be
                    // done now, pings ask it soon.
                    if candidate.tag.find([&link.device]).is_some()
                        && roaming::moved(&link.addr, &before, &candidate.addrs)
                    {
                        let _ = self.transport.probe(link.conn);
                    }
                }
            }
            discovery::Event::PeerLost(tag) => {
                self.candidates.lost(tag);
            }
            discovery::Event::Working => {
                tracing::info!("discovery on the local network works");
                self.core.network.discovery = true;
                self.core.network.discovery_why = None;
            }
            discovery::Event::NotWorking { why } => {
                tracing::warn!(why, "discovery on the local network does not work");
                self.core.network.discovery = false;
                self.core.network.discovery_why = Some(why);
            }
        }
    }

    /// Makes use of what a candidate says, if it is a member.
    pub(super) fn dial_candidate(&mut self, candidate: &Candidate, now: Now) -> bool {
        let members = self.core.engine.roster().members();
        let Some(device) = candidate.tag.find(members.keys()).copied() else { return false };
        for addr in &candidate.addrs {
            self.dialer.address(device, &addr.to_string(), Source::Discovery, now.mono);
        }
        true
    }

    /// Tells the local network where we are, and which invitation is open.
    pub(super) fn announce(&mut self) {
        let nameplate = self.pairings.nameplate();
        self.transport.set_pairing_open(self.pairings.is_open());
        let Some(discovery) = &self.discovery else { return };
        let ports = Ports::of(&self.listen);
        self.untold.announcement = discovery.announce(Announcement { ports, nameplate }).is_err();
    }

    /// Tells what could not be told before.
    pub(super) fn tell_again(&mut self) {
        if self.untold.announcement {
            self.announce();
        }
        if self.untold.members {
            self.tell_members();
        }
    }
}
