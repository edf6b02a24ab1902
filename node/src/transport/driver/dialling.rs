//! Dials, from the command to the established connection, and what is said when they fail.

use libp2p::Multiaddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use srcos_lanes::ids::DeviceId;
use tokio::time::Instant;

use super::{Conn, Dialling, Driver, Goal, Stage};
use crate::keys::peer_of_device;
use crate::transport::Event;
use crate::transport::dial::{Attempt, DialErrorKind, attempts, without_peer};

/// Addresses that one dial tries: a laptop with VPN and containers has about ten.
const DIAL_ADDRESSES_MAX: usize = 16;

/// Dials of one device under way at once: one at the addresses that were known, and a few at addresses
/// that were learned meanwhile.
const DIALS_PER_DEVICE_MAX: usize = 4;

impl Driver {
    /// Whether a dial that began at `anew`, or that is for a device without a link, is still of use.
    pub(super) fn needs_link(&self, device: DeviceId, anew: Option<Instant>) -> bool {
        let Some(current) = self.current.get(&device) else { return true };
        // Its end may have been handed up already.
        current.is_ending() || anew.is_some_and(|began| current.since < began)
    }

    pub(super) fn dial(&mut self, device: DeviceId, addrs: Vec<Multiaddr>, anew: bool) {
        let anew = anew.then(Instant::now);
        if !self.needs_link(device, anew) {
            return;
        }
        let mut addrs: Vec<_> = addrs.iter().map(without_peer).collect();
        addrs.sort();
        addrs.dedup();
        let mut under_way = 0;
        for dial in self.dials.values_mut().filter(|d| d.device == Some(device)) {
            under_way += 1;
            addrs.retain(|addr| !dial.addrs.contains(addr));
            if anew.is_some() {
                // Where it is to answer for this one, it must want what this one wants: a link that
                // is newer than any that has come up since it began.
                dial.goal = Goal::Sync(anew);
            }
        }
        if under_way > 0 && (addrs.is_empty() || under_way >= DIALS_PER_DEVICE_MAX) {
            // The dial under way answers for this one.
            return;
        }
        addrs.truncate(DIAL_ADDRESSES_MAX);
        self.start(Dialling {
            goal: Goal::Sync(anew),
            device: Some(device),
            addrs,
            failed: Vec::new(),
        });
    }

    pub(super) fn open_pairing(&mut self, attempt: u64, addr: Multiaddr, device: Option<DeviceId>) {
        let addrs = vec![without_peer(&addr)];
        self.start(Dialling { goal: Goal::Pairing(attempt), device, addrs, failed: Vec::new() });
    }

    pub(super) fn start(&mut self, mut dial: Dialling) {
        let opts = match dial.device {
            Some(device) => match peer_of_device(&device) {
                Some(peer) => DialOpts::peer_id(peer)
                    .condition(PeerCondition::Always)
                    .addresses(dial.addrs.clone())
                    .build(),
                None => {
                    let error = format!("{device} is not an ed25519 key");
                    dial.failed.extend(dial.addrs.iter().map(|addr| Attempt {
                        addr: addr.clone(),
                        kind: DialErrorKind::WrongPeer,
                        error: error.clone(),
                    }));
                    return self.dial_failed(dial);
                }
            },
            None => {
                let addr = dial.addrs.first().cloned().unwrap_or_else(Multiaddr::empty);
                DialOpts::unknown_peer_id().address(addr).build()
            }
        };
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.insert(connection, dial);
            }
            Err(error) => {
                dial.failed.extend(attempts(&error, &dial.addrs));
                self.dial_failed(dial);
            }
        }
    }

    pub(super) fn dial_failed(&mut self, dial: Dialling) {
        let Dialling { goal, device, addrs, mut failed } = dial;
        // libp2p leaves our own listen addresses out without a word.
        for addr in &addrs {
            if !failed.iter().any(|attempt| attempt.addr == *addr) {
                let own = self.swarm.listeners().any(|listens| without_peer(listens) == *addr);
                let (kind, error) = if own {
                    (DialErrorKind::OwnAddress, "this node itself listens there")
                } else {
                    (DialErrorKind::Other, "the address was not dialled")
                };
                failed.push(Attempt { addr: addr.clone(), kind, error: error.to_owned() });
            }
        }
        let event = match (goal, device) {
            (Goal::Sync(_), Some(device)) => Event::DialFailed { device, attempts: failed },
            (Goal::Pairing(attempt), _) => {
                let why = failed.into_iter().next().unwrap_or_else(|| Attempt {
                    addr: Multiaddr::empty(),
                    kind: DialErrorKind::Other,
                    error: "there was no address to dial".to_owned(),
                });
                Event::PairingFailed { attempt, why }
            }
            // A link is always dialled to a device.
            (Goal::Sync(_), None) => return,
        };
        self.held.push_back(event);
    }

    pub(super) fn on_dial_error(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(mut dial) = self.dials.remove(&connection) else {
            return;
        };
        let failed = attempts(error, &dial.addrs);
        dial.addrs.retain(|addr| !failed.iter().any(|attempt| attempt.addr == *addr));
        dial.failed.extend(failed);
        // Where an address now belongs to another device, libp2p gives up on the rest with it.
        let misled = matches!(error, DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. });
        let wanted = match (dial.goal, dial.device) {
            (Goal::Sync(anew), Some(device)) => self.needs_link(device, anew),
            _ => false,
        };
        if misled && wanted && !dial.addrs.is_empty() {
            self.start(dial);
        } else {
            self.dial_failed(dial);
        }
    }

    /// Closes a connection that has no link; if we dialled it, the dial has failed.
    pub(super) fn refuse(&mut self, connection: ConnectionId, kind: DialErrorKind, why: &str) {
        self.swarm.close_connection(connection);
        let Some(conn) = self.conns.get_mut(&connection) else {
            return;
        };
        let stage = std::mem::replace(&mut conn.stage, Stage::Closing);
        if let Stage::Opening { goal: Some(goal), .. } = stage
            && let Some(conn) = self.conns.get(&connection)
        {
            let conn = Conn { addr: conn.addr.clone(), stage: Stage::Closing, ..*conn };
            self.opening_failed(&conn, goal, kind, why);
        }
    }

    pub(super) fn opening_failed(
        &mut self,
        conn: &Conn,
        goal: Goal,
        kind: DialErrorKind,
        why: &str,
    ) {
        // The peer may have closed ours because its own connection to us was first.
        if let Goal::Sync(anew) = goal
            && !self.needs_link(conn.device, anew)
        {
            return;
        }
        let attempt = Attempt { addr: conn.addr.clone(), kind, error: why.to_owned() };
        self.dial_failed(Dialling {
            goal,
            device: Some(conn.device),
            addrs: Vec::new(),
            failed: vec![attempt],
        });
    }
}
