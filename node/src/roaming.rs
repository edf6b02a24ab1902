//! When a link may be dead because an address changed, at this end or at the other.
//!
//! A link whose address is gone is silent for half a minute before it is found dead. But a host is
//! told at once when it loses an address, which is a reason to dial anew, and none to close: the link may
//! live on, and then is only replaced. A peer announces where it is now; but anybody may announce that
//! in its name, so it is a reason to ask the peer over the link, and to dial anew if no answer comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// The host in an address.
pub fn host(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The address of this host from which it reaches another at present, as the system routes. `None`
/// where it does not say: a link-local address of IPv6 means nothing without an interface.
pub fn source_towards(remote: &Multiaddr) -> Option<IpAddr> {
    let remote = host(remote)?;
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // To connect a UDP socket sends nothing: the system only picks a route.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((remote, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Whether a link to `remote` may be dead when this host loses an address. `source` is what
/// [`source_towards`] said when the link came up.
pub fn loses(remote: &Multiaddr, source: Option<IpAddr>, lost: &Multiaddr) -> bool {
    let (Some(remote), Some(lost)) = (host(remote), host(lost)) else { return false };
    match source {
        Some(source) => source == lost,
        None => remote.is_ipv4() == lost.is_ipv4() && !remote.is_loopback(),
    }
}

/// Whether a peer has announced the address of its link before, and does so no more.
pub fn moved(link: &Multiaddr, before: &[Multiaddr], now: &[Multiaddr]) -> bool {
    let Some(link) = host(link) else { return false };
    let names = |addrs: &[Multiaddr]| addrs.iter().any(|addr| host(addr) == Some(link));
    names(before) && !names(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn link_is_in_doubt_when_the_address_goes_from_which_it_was_made() {
        let remote = addr("/ip4/192.0.2.7/udp/4001/quic-v1");
        let source = Some("192.0.2.9".parse().unwrap());
        assert!(loses(&remote, source, &addr("/ip4/192.0.2.9/tcp/1")));
        assert!(!loses(&remote, source, &addr("/ip4/172.17.0.1/tcp/1")));
        // Where the system did not say, any of the family counts.
        assert!(loses(&remote, None, &addr("/ip4/172.17.0.1/tcp/1")));
        assert!(!loses(&remote, None, &addr("/ip6/fe80::1/tcp/1")));
        assert!(!loses(&addr("/ip4/127.0.0.1/tcp/1"), None, &addr("/ip4/172.17.0.1/tcp/1")));
    }

    #[test]
    fn route_to_loopback_begins_at_loopback() {
        let source = source_towards(&addr("/ip4/127.0.0.1/tcp/1"));
        assert_eq!(source, Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(source_towards(&addr("/dns4/example.org/tcp/1")), None);
    }

    #[test]
    fn peer_has_moved_when_it_no_longer_announces_where_its_link_leads() {
        let (old, new) = (addr("/ip4/192.0.2.7/tcp/1"), addr("/ip4/198.51.100.7/tcp/1"));
        let link = addr("/ip4/192.0.2.7/udp/4001/quic-v1");
        assert!(moved(&link, std::slice::from_ref(&old), std::slice::from_ref(&new)));
        assert!(!moved(&link, std::slice::from_ref(&old), &[old.clone(), new.clone()]));
        // Over a route that was never announced, nothing can be said.
        assert!(!moved(&link, &[], std::slice::from_ref(&new)));
    }
}
