//! What is announced about a device, and how it is read.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use mdns_sd::{ResolvedService, ServiceInfo};
use srcos_lanes::ids::DeviceId;

use super::{ADDRESSES_PER_CANDIDATE_MAX, Candidate, SERVICE_TYPE};

/// The version of the record's form.
const VERSION: &str = "1";

/// Digits of a nameplate that are believed at most.
const NAMEPLATE_DIGITS_MAX: usize = 9;

/// By which a device is recognised by those who know it: a salt, and a hash of it and the device id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    salt: [u8; 8],
    hash: [u8; 8],
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tag({}:{})", HEXLOWER.encode(&self.salt), HEXLOWER.encode(&self.hash))
    }
}

impl Tag {
    /// The tag of a device under a salt.
    pub fn new(salt: [u8; 8], device: &DeviceId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&salt);
        hasher.update(&device.0);
        let mut hash = [0; 8];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self { salt, hash }
    }

    /// Which of these devices it is, if any. The connection proves it; this only says whom to dial.
    pub fn find<'a>(
        &self,
        devices: impl IntoIterator<Item = &'a DeviceId>,
    ) -> Option<&'a DeviceId> {
        devices.into_iter().find(|device| Self::new(self.salt, device) == *self)
    }
}

/// The ports on which a device listens; the families differ where the system chose them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ports {
    /// QUIC over IPv4.
    pub quic4: Option<u16>,
    /// QUIC over IPv6.
    pub quic6: Option<u16>,
    /// TCP over IPv4.
    pub tcp4: Option<u16>,
    /// TCP over IPv6.
    pub tcp6: Option<u16>,
}

impl Ports {
    /// The ports of these listen addresses; of several alike, the first counts.
    pub fn of<'a>(addrs: impl IntoIterator<Item = &'a Multiaddr>) -> Self {
        let mut ports = Self::default();
        for addr in addrs {
            let parts: Vec<_> = addr.iter().collect();
            let (place, port) = match &parts[..] {
                [Protocol::Ip4(_), Protocol::Udp(port), Protocol::QuicV1, ..] => {
                    (&mut ports.quic4, port)
                }
                [Protocol::Ip6(_), Protocol::Udp(port), Protocol::QuicV1, ..] => {
                    (&mut ports.quic6, port)
                }
                [Protocol::Ip4(_), Protocol::Tcp(port), ..] => (&mut ports.tcp4, port),
                [Protocol::Ip6(_), Protocol::Tcp(port), ..] => (&mut ports.tcp6, port),
                _ => continue,
            };
            place.get_or_insert(*port);
        }
        ports
    }

    fn named(&self) -> [(&'static str, Option<u16>); 4] {
        [("q4", self.quic4), ("q6", self.quic6), ("t4", self.tcp4), ("t6", self.tcp6)]
    }

    pub(super) fn any(&self) -> bool {
        self.named().iter().any(|(_, port)| port.is_some())
    }
}

/// What a device tells about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Announcement {
    /// Where it listens. Without any port nothing is announced.
    pub ports: Ports,
    /// The digits that name an open invitation; anything but digits is not announced.
    pub nameplate: Option<String>,
}

/// The names of this process on the network, good for one start.
#[derive(Debug)]
pub(super) struct Identity {
    tag: Tag,
    instance: String,
}

impl Identity {
    pub(super) fn new(device: DeviceId, salt: [u8; 8], name: [u8; 8]) -> Self {
        Self { tag: Tag::new(salt, &device), instance: HEXLOWER.encode(&name) }
    }

    pub(super) fn fullname(&self) -> String {
        format!("{}.{SERVICE_TYPE}", self.instance)
    }

    /// The record to be registered.
    pub(super) fn service(&self, announcement: &Announcement) -> mdns_sd::Result<ServiceInfo> {
        let mut txt = vec![
            ("v".to_owned(), VERSION.to_owned()),
            ("s".to_owned(), HEXLOWER.encode(&self.tag.salt)),
            ("h".to_owned(), HEXLOWER.encode(&self.tag.hash)),
        ];
        let ports = announcement.ports.named();
        let ports = ports.into_iter().filter_map(|(name, port)| port.map(|port| (name, port)));
        txt.extend(ports.clone().map(|(name, port)| (name.to_owned(), port.to_string())));
        let nameplate = announcement.nameplate.as_ref().filter(|p| is_nameplate(p));
        txt.extend(nameplate.map(|nameplate| ("p".to_owned(), nameplate.clone())));
        // The SRV record wants a port; ours are in the text.
        let port = ports.map(|(_, port)| port).next().unwrap_or(0);
        let host = format!("{}.local.", self.instance);
        let service = ServiceInfo::new(SERVICE_TYPE, &self.instance, &host, "", port, &txt[..])?;
        let mut service = service.enable_addr_auto();
        // The name is random, so nobody else has it, and asking would cost most of a second.
        service.set_requires_probe(false);
        Ok(service)
    }
}

fn is_nameplate(text: &str) -> bool {
    (1..=NAMEPLATE_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// A candidate from a record, or `None` if it is not of our form or leads nowhere.
pub(super) fn read(service: &ResolvedService, loopback: bool) -> Option<Candidate> {
    let text = |key| service.get_property_val_str(key);
    let hex = |key| HEXLOWER.decode(text(key)?.as_bytes()).ok()?.try_into().ok();
    let port = |key| text(key)?.parse().ok().filter(|port: &u16| *port != 0);
    if text("v") != Some(VERSION) {
        return None;
    }
    let tag = Tag { salt: hex("s")?, hash: hex("h")? };
    let ports = Ports { quic4: port("q4"), quic6: port("q6"), tcp4: port("t4"), tcp6: port("t6") };
    let ips = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
    let mut addrs = addresses(ips, ports, loopback);
    addrs.truncate(ADDRESSES_PER_CANDIDATE_MAX);
    if addrs.is_empty() {
        return None;
    }
    let nameplate = text("p").filter(|p| is_nameplate(p)).map(str::to_owned);
    Some(Candidate { tag, addrs, nameplate })
}

/// The addresses to dial, in a fixed order.
fn addresses(ips: impl Iterator<Item = IpAddr>, ports: Ports, loopback: bool) -> Vec<Multiaddr> {
    let mut ips: Vec<_> = ips.filter(|ip| is_reachable(ip, loopback)).collect();
    ips.sort();
    ips.dedup();
    let mut addrs = Vec::new();
    for ip in ips {
        let host = Multiaddr::from(ip);
        let (quic, tcp) =
            if ip.is_ipv4() { (ports.quic4, ports.tcp4) } else { (ports.quic6, ports.tcp6) };
        addrs.extend(quic.map(|p| host.clone().with(Protocol::Udp(p)).with(Protocol::QuicV1)));
        addrs.extend(tcp.map(|p| host.clone().with(Protocol::Tcp(p))));
    }
    addrs
}

/// Whether an address that a record names can be dialled at all.
///
/// Link-local IPv6 needs an interface beside the address, which libp2p's addresses cannot carry into a
/// dial. Loopback is believed only where it was asked for: elsewhere it would lead to ourselves.
fn is_reachable(ip: &IpAddr, loopback: bool) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || (ip.is_loopback() && !loopback) {
        return false;
    }
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(byte: u8) -> DeviceId {
        DeviceId([byte; 32])
    }

    #[test]
    fn a_record_reads_back_and_names_neither_device_nor_peer() {
        let identity = Identity::new(device(1), [2; 8], [3; 8]);
        let listens = ["/ip4/10.0.0.1/udp/7/quic-v1", "/ip6/fd00::1/tcp/8", "/ip4/10.0.0.1/udp/9"];
        let listens: Vec<Multiaddr> = listens.iter().map(|a| a.parse().unwrap()).collect();
        let ports = Ports::of(&listens);
        assert_eq!(ports, Ports { quic4: Some(7), tcp6: Some(8), ..Ports::default() });
        let announcement = Announcement { ports, nameplate: Some("42".to_owned()) };
        let service = identity.service(&announcement).unwrap();
        let mut resolved = service.as_resolved_service();
        assert!(!format!("{resolved:?}").contains(&device(1).to_string()[..16]));
        for ip in ["10.0.0.2", "fd00::2", "fe80::1", "127.0.0.1"] {
            resolved.addresses.insert(ip.parse::<IpAddr>().unwrap().into());
        }
        let candidate = read(&resolved, false).unwrap();
        assert_eq!(candidate.nameplate.as_deref(), Some("42"));
        let addrs: Vec<_> = candidate.addrs.iter().map(ToString::to_string).collect();
        assert_eq!(addrs, ["/ip4/10.0.0.2/udp/7/quic-v1", "/ip6/fd00::2/tcp/8"]);
        assert_eq!(candidate.tag.find(&[device(7), device(1)]), Some(&device(1)));
        assert_eq!(candidate.tag.find(&[device(7)]), None);
        assert_eq!(read(&resolved, true).unwrap().addrs.len(), 3);
    }

    #[test]
    fn another_start_has_another_tag() {
        assert_ne!(Tag::new([1; 8], &device(1)), Tag::new([2; 8], &device(1)));
    }

    proptest! {
        #[test]
        fn foreign_text_is_read_or_refused_but_never_panics(
            values in proptest::collection::vec("[ -~]{0,24}", 8),
            valid in any::<bool>(),
        ) {
            let keys = ["v", "s", "h", "q4", "q6", "t4", "t6", "p"];
            let mut txt: Vec<_> =
                keys.iter().zip(&values).map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            if valid {
                txt[0].1 = "1".to_owned();
                txt[1].1 = "0011223344556677".to_owned();
                txt[2].1 = "0011223344556677".to_owned();
            }
            let service =
                ServiceInfo::new(SERVICE_TYPE, "x", "x.local.", "10.0.0.1", 1, &txt[..]).unwrap();
            if let Some(candidate) = read(&service.as_resolved_service(), false) {
                prop_assert!(candidate.addrs.len() <= ADDRESSES_PER_CANDIDATE_MAX);
                prop_assert!(candidate.nameplate.is_none_or(|p| is_nameplate(&p)));
            }
        }
    }
}
