//! Who of the strangers has to go when there are too many: fair shares for those who come from
//! different places.
//!
//! Anybody on the network may hold connections open and open them anew when they are closed. So a
//! newcomer is not refused when all places are taken; one of those makes room who come from where most
//! come from. Whoever comes from one place alone, as a device that joins does, is then never sent away
//! for those who come from another.

use std::collections::BTreeMap;
use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::{PENDING_MAX, PENDING_PER_HOST_MAX, PENDING_PER_NET_MAX, STRANGERS_MAX};

/// The length of the part of an IPv6 address that names a network: below it a host takes as many
/// addresses as it likes.
const NET_BITS: u32 = 64;

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Origin(Option<IpAddr>);

impl Origin {
    /// The host in an address.
    pub fn of(addr: &Multiaddr) -> Self {
        Self(addr.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(ip.into()),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
            _ => None,
        }))
    }

    /// The network, of which one host may have every address. On IPv4 that is the host alone.
    fn net(self) -> Self {
        Self(self.0.map(|ip| match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(ip) => {
                let net = ip.to_bits() & (u128::MAX << (u128::BITS - NET_BITS));
                IpAddr::V6(net.into())
            }
        }))
    }
}

/// How many come from each place.
#[derive(Debug, Default)]
struct Crowd {
    nets: BTreeMap<Origin, usize>,
    hosts: BTreeMap<Origin, usize>,
}

impl Crowd {
    fn of(origins: impl Iterator<Item = Origin>) -> Self {
        let mut crowd = Self::default();
        for origin in origins {
            *crowd.nets.entry(origin.net()).or_default() += 1;
            *crowd.hosts.entry(origin).or_default() += 1;
        }
        crowd
    }

    /// How many come from the network, and how many from the host.
    fn from(&self, origin: Origin) -> (usize, usize) {
        let count =
            |of: &BTreeMap<Origin, usize>, origin| of.get(&origin).copied().unwrap_or_default();
        (count(&self.nets, origin.net()), count(&self.hosts, origin))
    }
}

/// Who makes room for a newcomer: of those from the network, and in it the host, from which most come,
/// the oldest. `held` names each by a number that grows, and says whether it may be sent away. `None` if
/// more come from where the newcomer does than from where anybody comes who may go.
pub fn makes_room<K: Ord + Copy>(
    held: impl Iterator<Item = (K, Origin, bool)> + Clone,
    newcomer: Origin,
) -> Option<K> {
    let origins = held.clone().map(|(_, origin, _)| origin);
    let crowd = Crowd::of(origins.chain([newcomer]));
    let fair = crowd.from(newcomer);
    held.filter(|(_, _, may_go)| *may_go)
        .map(|(key, origin, _)| (crowd.from(origin), key))
        .filter(|(from, _)| *from >= fair)
        .max_by_key(|(from, key)| (*from, std::cmp::Reverse(*key)))
        .map(|(_, key)| key)
}

/// One connection of a stranger.
#[derive(Debug)]
struct Stranger {
    peer: PeerId,
    origin: Origin,
    /// It takes part in a pairing.
    pairs: bool,
}

/// Established connections that are neither of members nor accepted.
#[derive(Debug, Default)]
pub(super) struct Strangers(BTreeMap<ConnectionId, Stranger>);

/// Too many connections of strangers are open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Strangers {
    /// Takes a connection in. Names the one that is to be closed for it, which is out already.
    pub(super) fn admit(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        origin: Origin,
    ) -> Result<Option<(PeerId, ConnectionId)>, Full> {
        let mut closed = None;
        if self.0.len() >= STRANGERS_MAX {
            let held = self.0.iter().map(|(id, held)| (*id, held.origin, !held.pairs));
            let oldest = makes_room(held, origin).ok_or(Full)?;
            closed = self.0.remove(&oldest).map(|gone| (gone.peer, oldest));
        }
        self.0.insert(connection, Stranger { peer, origin, pairs: false });
        Ok(closed)
    }

    /// The connection is no stranger's any more, or is gone.
    pub(super) fn remove(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// Says whether a connection takes part in a pairing, and so makes room for no other.
    pub(super) fn set_pairs(&mut self, connection: ConnectionId, pairs: bool) {
        if let Some(stranger) = self.0.get_mut(&connection) {
            stranger.pairs = pairs;
        }
    }

    #[cfg(test)]
    fn from(&self, origin: Origin) -> usize {
        self.0.values().filter(|held| held.origin == origin).count()
    }
}

/// Inbound connections that have yet to prove who they are. They cannot be taken back, so a newcomer is
/// refused when too many come from where it comes from.
#[derive(Debug, Default)]
pub(super) struct Pending(BTreeMap<ConnectionId, (bool, Origin)>);

impl Pending {
    /// Takes a connection in, if there is room for it.
    pub(super) fn admit(&mut self, connection: ConnectionId, from: &Multiaddr) -> Result<(), Full> {
        // Who sends over UDP may lie about where he is until the handshake is over. So he keeps nobody
        // out who comes over TCP.
        let udp = from.iter().any(|part| matches!(part, Protocol::Udp(_)));
        let origin = Origin::of(from);
        let alike = || self.0.values().filter(move |(of, _)| *of == udp).map(|(_, origin)| *origin);
        let (net, host) = Crowd::of(alike()).from(origin);
        if alike().count() >= PENDING_MAX
            || net >= PENDING_PER_NET_MAX
            || host >= PENDING_PER_HOST_MAX
        {
            return Err(Full);
        }
        self.0.insert(connection, (udp, origin));
        Ok(())
    }

    /// The connection is established, or is gone.
    pub(super) fn remove(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn from(text: &str) -> Origin {
        Origin::of(&addr(text))
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn origin_is_the_host_and_its_network_what_a_host_may_have_all_of() {
        assert_eq!(from("/ip4/10.0.0.1/tcp/1"), from("/ip4/10.0.0.1/udp/2/quic-v1"));
        assert_eq!(from("/ip4/10.0.0.1/tcp/1"), from("/ip6/::ffff:10.0.0.1/tcp/1"));
        assert_ne!(from("/ip4/10.0.0.1/tcp/1").net(), from("/ip4/10.0.0.2/tcp/1").net());
        let (one, other) = (from("/ip6/fd00::1/tcp/1"), from("/ip6/fd00::2/tcp/1"));
        assert_ne!(one, other);
        assert_eq!(one.net(), other.net());
        assert_ne!(one.net(), from("/ip6/fd00:0:0:1::1/tcp/1").net());
    }

    #[test]
    fn the_oldest_makes_room_where_all_come_from_one_place() {
        let mut strangers = Strangers::default();
        let (peer, here) = (PeerId::random(), from("/ip4/10.0.0.1/tcp/1"));
        for n in 0..STRANGERS_MAX {
            assert_eq!(strangers.admit(id(n), peer, here), Ok(None));
        }
        strangers.set_pairs(id(0), true);
        assert_eq!(strangers.admit(id(90), peer, here), Ok(Some((peer, id(1)))));
        strangers.set_pairs(id(0), false);
        assert_eq!(strangers.admit(id(91), peer, here), Ok(Some((peer, id(0)))));
    }

    #[test]
    fn who_comes_from_where_fewer_come_stays() {
        let mut strangers = Strangers::default();
        let peer = PeerId::random();
        let joiner = from("/ip4/10.0.0.2/tcp/1");
        for n in 0..STRANGERS_MAX {
            strangers.admit(id(n), peer, from("/ip4/10.0.0.1/tcp/1")).unwrap();
        }
        strangers.admit(id(100), peer, joiner).unwrap();
        for n in 200..1_000 {
            // From one address of IPv4, and from as many of IPv6 as one likes.
            let from = match n % 2 {
                0 => from("/ip4/10.0.0.1/tcp/1"),
                _ => from(&format!("/ip6/fd00::{n:x}/tcp/1")),
            };
            let closed = strangers.admit(id(n), peer, from).unwrap();
            assert!(closed.is_some_and(|(_, closed)| closed != id(100)), "{closed:?}");
        }
        // In one network, who has one address stays before who has one address many times.
        let mut strangers = Strangers::default();
        strangers.admit(id(0), peer, from("/ip6/fd00::1/tcp/1")).unwrap();
        for n in 1..100 {
            strangers.admit(id(n), peer, from("/ip6/fd00::2/tcp/1")).unwrap();
        }
        assert_eq!(strangers.from(from("/ip6/fd00::1/tcp/1")), 1);
    }

    #[test]
    fn who_takes_part_in_a_pairing_gives_his_place_to_nobody() {
        let mut strangers = Strangers::default();
        let (peer, here) = (PeerId::random(), from("/ip4/10.0.0.1/tcp/1"));
        for n in 0..STRANGERS_MAX {
            strangers.admit(id(n), peer, here).unwrap();
            strangers.set_pairs(id(n), true);
        }
        assert_eq!(strangers.admit(id(90), peer, here), Err(Full));
        assert_eq!(strangers.admit(id(90), peer, from("/ip4/10.0.0.2/tcp/1")), Err(Full));
        // Nor are those sent away for him who come from where fewer come.
        let mut strangers = Strangers::default();
        for n in 0..STRANGERS_MAX / 2 {
            strangers.admit(id(n), peer, here).unwrap();
            strangers.set_pairs(id(n), true);
        }
        for n in STRANGERS_MAX / 2..STRANGERS_MAX {
            strangers.admit(id(n), peer, from(&format!("/ip4/10.0.1.{n}/tcp/1"))).unwrap();
        }
        assert_eq!(strangers.admit(id(90), peer, here), Err(Full));
    }

    #[test]
    fn connections_without_a_proof_are_bounded_by_host_by_network_and_in_all() {
        let mut pending = Pending::default();
        let mut fill = |addr_of: &dyn Fn(usize) -> String, first: usize| {
            let took = |n: &usize| pending.admit(id(first + n), &addr(&addr_of(*n))).is_ok();
            (0..200).filter(took).count()
        };
        assert_eq!(fill(&|_| "/ip4/10.0.0.1/tcp/1".into(), 0), PENDING_PER_HOST_MAX);
        assert_eq!(fill(&|n| format!("/ip6/fd00::{n:x}/tcp/1"), 1_000), PENDING_PER_NET_MAX);
        let rest = PENDING_MAX - PENDING_PER_HOST_MAX - PENDING_PER_NET_MAX;
        assert_eq!(fill(&|n| format!("/ip4/10.1.0.{n}/tcp/1"), 2_000), rest);
        // Who lies about where he is, over UDP, takes no place of those who come over TCP.
        assert_eq!(fill(&|n| format!("/ip4/10.2.0.{n}/udp/1/quic-v1"), 3_000), PENDING_MAX);
        (0..5_000).for_each(|n| pending.remove(id(n)));
        assert!(pending.0.is_empty());
    }

    proptest! {
        #[test]
        fn places_are_bounded_and_nobody_goes_for_one_from_where_more_come(
            comers in prop::collection::vec((0..6_u8, any::<bool>()), 1..200),
        ) {
            let mut strangers = Strangers::default();
            let peer = PeerId::random();
            for (n, (host, pairs)) in comers.into_iter().enumerate() {
                let origin = from(&format!("/ip4/10.0.0.{host}/tcp/1"));
                let before: BTreeMap<_, _> =
                    strangers.0.iter().map(|(id, held)| (*id, held.origin)).collect();
                let count = |of| before.values().filter(|origin| **origin == of).count();
                if let Ok(Some((_, closed))) = strangers.admit(id(n), peer, origin) {
                    let of = before[&closed];
                    prop_assert!(of == origin || count(of) > count(origin));
                }
                strangers.set_pairs(id(n), pairs);
                prop_assert!(strangers.0.len() <= STRANGERS_MAX);
            }
        }
    }
}
