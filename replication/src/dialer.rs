//! When to dial whom, and where: addresses that are hints, backoff with jitter, no I/O.
//!
//! An address is worth a dial at once when it is new; after failures the time between dials
//! doubles up to a bound. Addresses come from discovery, from the person, from earlier connections
//! and from the peer itself; none of them is trusted beyond being dialled.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::ids::{DeviceId, MonoMillis};

/// First time between two dials to a device, in milliseconds.
pub const BACKOFF_MS_MIN: u64 = 500;
/// Longest time between two dials to a device, in milliseconds: a device that comes back without
/// being discovered is found within this time.
pub const BACKOFF_MS_MAX: u64 = 30_000;
/// Addresses kept for one device: its interfaces, two families, two transports, and some history.
pub const ADDRESSES_MAX: usize = 16;
/// Failed dials after which an address that nobody confirmed since is forgotten.
pub const ADDRESS_FAILURES_MAX: u32 = 8;

/// Where an address came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// A person gave it: never forgotten.
    Person,
    /// Discovery on the local network.
    Discovery,
    /// The peer itself, or an earlier connection.
    Learned,
}

#[derive(Clone, Debug)]
struct Address {
    source: Source,
    failures: u32,
}

#[derive(Clone, Debug, Default)]
struct Target {
    addresses: BTreeMap<String, Address>,
    dialling: bool,
    connected: bool,
    failures: u32,
    next: MonoMillis,
}

/// The dial schedule of one node.
#[derive(Clone, Debug)]
pub struct Dialer {
    seed: [u8; 32],
    draws: u64,
    offline: bool,
    targets: BTreeMap<DeviceId, Target>,
}

impl Dialer {
    /// A schedule for nobody yet.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, draws: 0, offline: false, targets: BTreeMap::new() }
    }

    /// Dials these devices, and nobody else.
    pub fn set_members(&mut self, members: &BTreeSet<DeviceId>) {
        self.targets.retain(|device, _| members.contains(device));
        for device in members {
            self.targets.entry(*device).or_default();
        }
    }

    /// Dials nobody while offline.
    pub fn set_offline(&mut self, offline: bool, now: MonoMillis) {
        self.offline = offline;
        for target in self.targets.values_mut() {
            target.failures = 0;
            target.next = now;
        }
    }

    /// A device may be at an address.
    pub fn address(&mut self, device: DeviceId, address: &str, source: Source, now: MonoMillis) {
        let Some(target) = self.targets.get_mut(&device) else { return };
        if let Some(known) = target.addresses.get_mut(address) {
            known.source = known.source.min(source);
            // Discovery repeats itself; what it confirms is worth another try soon.
            if source == Source::Discovery && known.failures > 0 {
                known.failures = 0;
                target.next = target.next.min(now.after_ms(BACKOFF_MS_MIN));
            }
            return;
        }
        if target.addresses.len() >= ADDRESSES_MAX {
            let worst = target
                .addresses
                .iter()
                .filter(|(_, known)| known.source != Source::Person)
                .max_by_key(|(_, known)| (known.failures, known.source))
                .map(|(address, _)| address.clone());
            let Some(worst) = worst else { return };
            target.addresses.remove(&worst);
        }
        target.addresses.insert(address.to_owned(), Address { source, failures: 0 });
        target.failures = 0;
        target.next = now;
    }

    /// The addresses known of a device.
    pub fn addresses(&self, device: DeviceId) -> Vec<String> {
        let target = self.targets.get(&device);
        target.map(|target| target.addresses.keys().cloned().collect()).unwrap_or_default()
    }

    /// A connection is up. `address` is where it was dialled.
    pub fn connected(&mut self, device: DeviceId, address: Option<&str>) {
        let Some(target) = self.targets.get_mut(&device) else { return };
        target.connected = true;
        target.dialling = false;
        target.failures = 0;
        if let Some(known) = address.and_then(|address| target.addresses.get_mut(address)) {
            known.failures = 0;
        }
    }

    /// A connection is gone. It is dialled again at once, with some jitter, since both ends may.
    pub fn disconnected(&mut self, device: DeviceId, now: MonoMillis) {
        let jitter = self.draw(BACKOFF_MS_MIN);
        let Some(target) = self.targets.get_mut(&device) else { return };
        target.connected = false;
        target.dialling = false;
        target.failures += 1;
        target.next = now.after_ms(backoff(target.failures) / 2 + jitter);
    }

    /// A connection proved to work: the next failure starts from the shortest wait again.
    pub fn opened(&mut self, device: DeviceId) {
        if let Some(target) = self.targets.get_mut(&device) {
            target.failures = 0;
        }
    }

    /// No address of a dial led to the device.
    pub fn failed(&mut self, device: DeviceId, now: MonoMillis) {
        let wait =
            self.targets.get(&device).map_or(BACKOFF_MS_MIN, |target| backoff(target.failures));
        let jitter = self.draw(wait / 2);
        let Some(target) = self.targets.get_mut(&device) else { return };
        target.dialling = false;
        target.failures += 1;
        target.next = now.after_ms(wait - wait / 4 + jitter);
        for address in target.addresses.values_mut() {
            address.failures += 1;
        }
        target.addresses.retain(|_, address| {
            address.source == Source::Person || address.failures < ADDRESS_FAILURES_MAX
        });
    }

    /// The next dial that is due: the device and where to try.
    pub fn poll(&mut self, now: MonoMillis) -> Option<(DeviceId, Vec<String>)> {
        if self.offline {
            return None;
        }
        let due = self.targets.iter_mut().find(|(_, target)| target.is_due(now))?;
        due.1.dialling = true;
        Some((*due.0, due.1.addresses.keys().cloned().collect()))
    }

    /// When the next dial is due.
    pub fn poll_timeout(&self) -> Option<MonoMillis> {
        if self.offline {
            return None;
        }
        let waiting = self.targets.values().filter(|target| target.may_dial());
        waiting.map(|target| target.next).min()
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&self.draws.to_be_bytes());
        let bytes = hasher.finalize();
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes.as_bytes()[..8]);
        u64::from_be_bytes(eight) % below.max(1)
    }
}

impl Target {
    fn may_dial(&self) -> bool {
        !self.connected && !self.dialling && !self.addresses.is_empty()
    }

    fn is_due(&self, now: MonoMillis) -> bool {
        self.may_dial() && self.next <= now
    }
}

fn backoff(failures: u32) -> u64 {
    BACKOFF_MS_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([1; 32]);

    fn dialer() -> Dialer {
        let mut dialer = Dialer::new([5; 32]);
        dialer.set_members(&[PEER].into());
        dialer
    }

    #[test]
    fn new_address_is_dialled_at_once_and_failures_back_off_to_a_bound() {
        let mut dialer = dialer();
        assert_eq!(dialer.poll(MonoMillis(0)), None);
        dialer.address(PEER, "a", Source::Person, MonoMillis(5));
        let mut now = MonoMillis(5);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(dialer.poll(now), Some((PEER, vec!["a".to_owned()])));
            assert_eq!(dialer.poll(now), None, "one dial at a time");
            dialer.failed(PEER, now);
            let next = dialer.poll_timeout().unwrap();
            waits.push(next.0 - now.0);
            now = next;
        }
        assert!(waits[0] < 2 * BACKOFF_MS_MIN + 1, "{waits:?}");
        assert!(*waits.iter().max().unwrap() <= BACKOFF_MS_MAX + BACKOFF_MS_MAX / 4);
        assert!(*waits.last().unwrap() >= BACKOFF_MS_MAX / 2);
    }

    #[test]
    fn address_that_changed_is_dialled_without_waiting() {
        let mut dialer = dialer();
        dialer.address(PEER, "old", Source::Discovery, MonoMillis(0));
        for n in 0..6 {
            dialer.poll(MonoMillis(n * 100_000));
            dialer.failed(PEER, MonoMillis(n * 100_000));
        }
        dialer.address(PEER, "new", Source::Discovery, MonoMillis(500_001));
        let (_, addresses) = dialer.poll(MonoMillis(500_001)).unwrap();
        assert!(addresses.contains(&"new".to_owned()));
    }

    #[test]
    fn dead_address_is_forgotten_unless_a_person_gave_it() {
        let mut dialer = dialer();
        dialer.address(PEER, "given", Source::Person, MonoMillis(0));
        dialer.address(PEER, "found", Source::Learned, MonoMillis(0));
        for _ in 0..ADDRESS_FAILURES_MAX {
            dialer.failed(PEER, MonoMillis(0));
        }
        assert_eq!(dialer.addresses(PEER), ["given"]);
    }

    #[test]
    fn addresses_are_bounded_and_strangers_are_never_dialled() {
        let mut dialer = dialer();
        for n in 0..100 {
            dialer.address(PEER, &format!("a{n}"), Source::Discovery, MonoMillis(0));
        }
        assert_eq!(dialer.addresses(PEER).len(), ADDRESSES_MAX);
        let stranger = DeviceId([2; 32]);
        dialer.address(stranger, "x", Source::Discovery, MonoMillis(0));
        assert!(dialer.addresses(stranger).is_empty());
    }

    #[test]
    fn nobody_is_dialled_while_connected_or_offline() {
        let mut dialer = dialer();
        dialer.address(PEER, "a", Source::Person, MonoMillis(0));
        dialer.set_offline(true, MonoMillis(0));
        assert_eq!((dialer.poll(MonoMillis(9)), dialer.poll_timeout()), (None, None));
        dialer.set_offline(false, MonoMillis(9));
        dialer.connected(PEER, Some("a"));
        assert_eq!((dialer.poll(MonoMillis(9)), dialer.poll_timeout()), (None, None));
        dialer.disconnected(PEER, MonoMillis(10));
        assert!(dialer.poll(dialer.poll_timeout().unwrap()).is_some());
    }
}
