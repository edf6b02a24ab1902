//! When to dial whom, and where: addresses that are hints, backoff with jitter, no I/O.
//!
//! An address is worth a dial at once when it is new; after failures the time between dials
//! doubles up to a bound. A device with a link is dialled only while the link is in doubt, because an
//! address changed at either end: then a new link is made beside the old one, and takes its place. So
//! nobody waits until the old one is found dead. Addresses come from discovery, from the person, from earlier connections
//! and from the peer itself; none of them is trusted beyond being dialled. Those that anybody may
//! invent take half of the places at most, and only they are forgotten when they lead nowhere: where
//! nobody announces, two devices that forgot each other's addresses in an outage would stay parted.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::ids::{DeviceId, MonoMillis};

/// First time between two dials to a device, in milliseconds.
pub const BACKOFF_MS_MIN: u64 = 500;
/// Longest time between two dials to a device, in milliseconds: a device that comes back without
/// being discovered is found within this time.
pub const BACKOFF_MS_MAX: u64 = 30_000;
/// Addresses kept for one device: its interfaces, two families, two transports, and some history.
pub const ADDRESSES_MAX: usize = 16;
/// Places of them that are left to what anybody on the local network may say: more than one record
/// brings for a device with one interface.
pub const HEARSAY_ADDRESSES: usize = ADDRESSES_MAX / 2;
/// Failed dials after which an address is forgotten that only the local network named.
pub const ADDRESS_FAILURES_MAX: u32 = 8;

/// Age in milliseconds before which a link is not dialled anew: until then the transport takes a second
/// connection for a dial from both ends at once, and may keep the first.
pub const ANEW_AGE_MS_MIN: u64 = 6_000;
/// Time in milliseconds after which what comes over a link in doubt shows that it works: what comes
/// sooner may have been on its way before.
pub const DOUBT_MS: u64 = 1_000;

/// Age in milliseconds at which the end of a link is no failure. A device and its copy take each
/// other's place at every peer; without this they would do so as fast as they can dial.
pub const LASTED_MS: u64 = 10_000;

/// Where an address came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// A person gave it: never forgotten.
    Person,
    /// Discovery on the local network.
    Discovery,
    /// It was kept from before: true until the device itself says otherwise.
    Learned,
    /// The device itself, over a link, names it as its own.
    Said,
    /// It led to the device once: more than what anybody on the network can say of an address.
    Proven,
}

#[derive(Clone, Debug, Default)]
struct Address {
    /// All that named it.
    sources: BTreeSet<Source>,
    failures: u32,
}

impl Address {
    fn is(&self, source: Source) -> bool {
        self.sources.contains(&source)
    }

    /// Only the local network names it, where anybody may.
    fn is_hearsay(&self) -> bool {
        self.sources.iter().all(|source| *source == Source::Discovery)
    }
}

/// An address that is worth keeping over a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lasting {
    /// The address.
    pub address: String,
    /// It led to the device, so it stays although the device does not name it.
    pub proven: bool,
}

#[derive(Clone, Debug, Default)]
struct Target {
    addresses: BTreeMap<String, Address>,
    dialling: bool,
    /// Addresses that were learned since the dial under way began.
    fresh: Vec<String>,
    link: Option<Link>,
    /// Links in a row that did not last.
    short_links: u32,
    failures: u32,
    next: MonoMillis,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    since: MonoMillis,
    doubted: Option<MonoMillis>,
}

/// A dial that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dial {
    /// Whom to dial.
    pub device: DeviceId,
    /// Where to try.
    pub addresses: Vec<String>,
    /// There is a link, which is in doubt: the new one is to take its place.
    pub anew: bool,
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
            target.short_links = 0;
            target.next = now;
        }
    }

    /// A device may be at an address.
    pub fn address(&mut self, device: DeviceId, address: &str, source: Source, now: MonoMillis) {
        let Some(target) = self.targets.get_mut(&device) else { return };
        if let Some(known) = target.addresses.get_mut(address) {
            known.sources.insert(source);
            // Discovery repeats itself; what it confirms is worth another try soon.
            if source == Source::Discovery && known.failures > 0 {
                known.failures = 0;
                target.next = target.next.min(now.after_ms(BACKOFF_MS_MIN));
            }
            return;
        }
        if target.addresses.len() >= ADDRESSES_MAX {
            let Some(worst) = target.worst() else { return };
            target.addresses.remove(&worst);
        }
        let known = Address { sources: [source].into(), failures: 0 };
        target.addresses.insert(address.to_owned(), known);
        if target.dialling && target.fresh.len() < ADDRESSES_MAX {
            target.fresh.push(address.to_owned());
        }
        target.failures = 0;
        target.next = target.not_before(now);
    }

    /// A device says over a link where it listens, and that is all: what it named before and does not
    /// name now is forgotten, unless it led there or somebody else names it too.
    pub fn said(&mut self, device: DeviceId, addresses: &[String], now: MonoMillis) {
        if let Some(target) = self.targets.get_mut(&device) {
            target.addresses.retain(|address, known| {
                if !addresses.contains(address) {
                    known.sources.remove(&Source::Said);
                    known.sources.remove(&Source::Learned);
                }
                !known.sources.is_empty()
            });
        }
        for address in addresses {
            self.address(device, address, Source::Said, now);
        }
    }

    /// The addresses known of a device.
    pub fn addresses(&self, device: DeviceId) -> Vec<String> {
        let target = self.targets.get(&device);
        target.map(|target| target.addresses.keys().cloned().collect()).unwrap_or_default()
    }

    /// Where a device may still be after a restart: what it said itself, and what led to it. What the
    /// local network announces is announced again.
    pub fn lasting_addresses(&self, device: DeviceId) -> Vec<Lasting> {
        let Some(target) = self.targets.get(&device) else { return Vec::new() };
        let lasting = target.addresses.iter().filter_map(|(address, known)| {
            let proven = known.is(Source::Proven);
            let lasts = proven || known.is(Source::Said) || known.is(Source::Learned);
            lasts.then(|| Lasting { address: address.clone(), proven })
        });
        lasting.collect()
    }

    /// A connection is up. `address` is where it was dialled.
    pub fn connected(&mut self, device: DeviceId, address: Option<&str>, now: MonoMillis) {
        let Some(target) = self.targets.get_mut(&device) else { return };
        target.link = Some(Link { since: now, doubted: None });
        target.dialling = false;
        target.failures = 0;
        if let Some(known) = address.and_then(|address| target.addresses.get_mut(address)) {
            known.failures = 0;
            known.sources.insert(Source::Proven);
        }
    }

    /// A connection is gone. It is dialled again at once, with some jitter, since both ends may; later
    /// each time where connections do not last.
    pub fn disconnected(&mut self, device: DeviceId, now: MonoMillis) {
        let jitter = self.draw(BACKOFF_MS_MIN);
        let Some(target) = self.targets.get_mut(&device) else { return };
        let link = target.link.take();
        let lasted = link.is_some_and(|link| link.since.after_ms(LASTED_MS) <= now);
        target.short_links = if lasted { 0 } else { target.short_links.saturating_add(1) };
        target.dialling = false;
        target.failures = target.short_links.max(1);
        target.next = now.after_ms(backoff(target.failures) / 2 + jitter);
    }

    /// The link to a device may be dead, since an address changed.
    pub fn doubt(&mut self, device: DeviceId, now: MonoMillis) {
        let Some(target) = self.targets.get_mut(&device) else { return };
        if let Some(link) = &mut target.link {
            link.doubted = Some(now);
            target.failures = 0;
            target.next = target.not_before(now);
        }
    }

    /// Something came over the link to a device.
    pub fn heard(&mut self, device: DeviceId, now: MonoMillis) {
        let Some(target) = self.targets.get_mut(&device) else { return };
        if let Some(link) = &mut target.link {
            link.doubted = link.doubted.filter(|at| now < at.after_ms(DOUBT_MS));
        }
    }

    /// A connection proved to work: the next failure starts from the shortest wait again.
    pub fn opened(&mut self, device: DeviceId) {
        if let Some(target) = self.targets.get_mut(&device) {
            target.failures = 0;
        }
    }

    /// None of these addresses led to the device. They may be fewer than were dialled, where it was
    /// not for the address.
    pub fn failed(&mut self, device: DeviceId, addresses: &[String], now: MonoMillis) {
        let wait =
            self.targets.get(&device).map_or(BACKOFF_MS_MIN, |target| backoff(target.failures));
        let jitter = self.draw(wait / 2);
        let Some(target) = self.targets.get_mut(&device) else { return };
        target.dialling = false;
        target.failures += 1;
        target.next = now.after_ms(wait - wait / 4 + jitter);
        for address in addresses {
            let Some(known) = target.addresses.get_mut(address) else { continue };
            known.failures = known.failures.saturating_add(1);
            if known.is_hearsay() && known.failures >= ADDRESS_FAILURES_MAX {
                target.addresses.remove(address);
            }
        }
    }

    /// The next dial that is due.
    pub fn poll(&mut self, now: MonoMillis) -> Option<Dial> {
        if self.offline {
            return None;
        }
        let may = |target: &Target| target.is_due(now) || target.has_fresh();
        let (device, target) = self.targets.iter_mut().find(|(_, target)| may(target))?;
        let fresh = std::mem::take(&mut target.fresh);
        // Beside a dial under way, only what is new: an address that leads nowhere takes its time.
        let addresses =
            if target.dialling { fresh } else { target.addresses.keys().cloned().collect() };
        target.dialling = true;
        Some(Dial { device: *device, addresses, anew: target.link.is_some() })
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
    /// The address that makes room for another: hearsay, unless there is too little of it, for a device
    /// that has moved is found by it. What leads nowhere goes first.
    fn worst(&self) -> Option<String> {
        let hearsay = self.addresses.values().filter(|known| known.is_hearsay()).count();
        let of_hearsay = hearsay >= HEARSAY_ADDRESSES;
        let (worst, _) =
            self.addresses.iter().filter(|(_, known)| !known.is(Source::Person)).max_by_key(
                |(_, known)| {
                    let of_kind = known.is_hearsay() == of_hearsay;
                    (of_kind, known.failures, !known.is(Source::Said), !known.is(Source::Proven))
                },
            )?;
        Some(worst.clone())
    }

    fn wants_link(&self) -> bool {
        self.link.is_none_or(|link| link.doubted.is_some())
    }

    fn may_dial(&self) -> bool {
        self.wants_link() && !self.dialling && !self.addresses.is_empty()
    }

    fn has_fresh(&self) -> bool {
        self.wants_link() && self.dialling && !self.fresh.is_empty()
    }

    /// `now`, or when the link is old enough to be dialled anew.
    fn not_before(&self, now: MonoMillis) -> MonoMillis {
        self.link.map_or(now, |link| link.since.after_ms(ANEW_AGE_MS_MIN).max(now))
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

    fn dial(addresses: &[&str], anew: bool) -> Option<Dial> {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        Some(Dial { device: PEER, addresses, anew })
    }

    #[test]
    fn new_address_is_dialled_at_once_and_failures_back_off_to_a_bound() {
        let mut dialer = dialer();
        assert_eq!(dialer.poll(MonoMillis(0)), None);
        dialer.address(PEER, "a", Source::Person, MonoMillis(5));
        let mut now = MonoMillis(5);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(dialer.poll(now), dial(&["a"], false));
            assert_eq!(dialer.poll(now), None, "one dial at a time");
            dialer.failed(PEER, &[], now);
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
            dialer.failed(PEER, &["old".to_owned()], MonoMillis(n * 100_000));
        }
        dialer.address(PEER, "new", Source::Discovery, MonoMillis(500_001));
        assert_eq!(dialer.poll(MonoMillis(500_001)), dial(&["new", "old"], false));
    }

    #[test]
    fn new_address_does_not_wait_for_a_dial_of_old_ones() {
        let mut dialer = dialer();
        dialer.address(PEER, "old", Source::Discovery, MonoMillis(0));
        assert_eq!(dialer.poll(MonoMillis(0)), dial(&["old"], false));
        dialer.address(PEER, "new", Source::Discovery, MonoMillis(1));
        assert_eq!(dialer.poll(MonoMillis(1)), dial(&["new"], false));
        assert_eq!(dialer.poll(MonoMillis(1)), None);
        dialer.connected(PEER, Some("new"), MonoMillis(2));
        dialer.address(PEER, "newer", Source::Discovery, MonoMillis(3));
        assert_eq!(dialer.poll(MonoMillis(9_000)), None, "it is connected");
    }

    #[test]
    fn link_in_doubt_is_dialled_anew_until_it_is_replaced_or_heard_of() {
        let mut dialer = dialer();
        dialer.doubt(PEER, MonoMillis(0));
        dialer.address(PEER, "a", Source::Discovery, MonoMillis(0));
        dialer.poll(MonoMillis(0)).unwrap();
        dialer.connected(PEER, Some("a"), MonoMillis(100));
        dialer.doubt(PEER, MonoMillis(200));
        let due = dialer.poll_timeout().unwrap();
        assert_eq!(due, MonoMillis(100 + ANEW_AGE_MS_MIN), "a young link may be one of two dials");
        assert_eq!(dialer.poll(due), dial(&["a"], true));
        dialer.failed(PEER, &[], due);
        let again = dialer.poll_timeout().unwrap();
        assert!(again > due, "a failed dial is tried again, after a while");
        assert_eq!(dialer.poll(again), dial(&["a"], true));
        // A new address is tried beside it, and leads there.
        dialer.address(PEER, "b", Source::Discovery, again);
        assert_eq!(dialer.poll(again), dial(&["b"], true));
        dialer.disconnected(PEER, again);
        dialer.connected(PEER, Some("b"), again);
        assert_eq!(dialer.poll_timeout(), None);
        // What was on its way proves nothing; what comes later does.
        let doubted = again.after_ms(60_000);
        dialer.doubt(PEER, doubted);
        dialer.heard(PEER, doubted.after_ms(DOUBT_MS - 1));
        assert_eq!(dialer.poll_timeout(), Some(doubted));
        dialer.heard(PEER, doubted.after_ms(DOUBT_MS));
        assert_eq!(dialer.poll_timeout(), None);
    }

    #[test]
    fn links_that_do_not_last_are_dialled_later_each_time() {
        let mut dialer = dialer();
        dialer.address(PEER, "a", Source::Person, MonoMillis(0));
        let mut now = MonoMillis(0);
        let mut wait_after = |dialer: &mut Dialer, lasted_ms: u64| {
            assert_eq!(dialer.poll(now), dial(&["a"], false));
            dialer.connected(PEER, Some("a"), now);
            dialer.opened(PEER);
            now = now.after_ms(lasted_ms);
            dialer.disconnected(PEER, now);
            let wait = dialer.poll_timeout().unwrap().0 - now.0;
            now = now.after_ms(wait);
            wait
        };
        let waits: Vec<u64> = (0..12).map(|_| wait_after(&mut dialer, 100)).collect();
        assert!(waits[0] <= 2 * BACKOFF_MS_MIN, "{waits:?}");
        assert!(*waits.last().unwrap() >= BACKOFF_MS_MAX / 2, "{waits:?}");
        // One that lasted begins anew.
        assert!(wait_after(&mut dialer, LASTED_MS) <= 2 * BACKOFF_MS_MIN);
    }

    const SOURCES: [(&str, Source); 6] = [
        ("given", Source::Person),
        ("given and proven", Source::Person),
        ("heard", Source::Discovery),
        ("heard and proven", Source::Discovery),
        ("kept", Source::Learned),
        ("said", Source::Said),
    ];

    fn dialer_that_knows() -> Dialer {
        let mut dialer = dialer();
        for (name, source) in SOURCES {
            dialer.address(PEER, name, source, MonoMillis(0));
        }
        dialer.connected(PEER, Some("given and proven"), MonoMillis(1));
        dialer.connected(PEER, Some("heard and proven"), MonoMillis(2));
        dialer
    }

    #[test]
    fn an_outage_makes_nothing_forgotten_but_what_anybody_may_have_said() {
        let mut dialer = dialer_that_knows();
        let all = SOURCES.map(|(name, _)| name.to_owned());
        dialer.disconnected(PEER, MonoMillis(3));
        for _ in 0..ADDRESS_FAILURES_MAX * 10 {
            let due = dialer.poll_timeout().unwrap();
            dialer.poll(due).unwrap();
            dialer.failed(PEER, &all, due);
        }
        let left: Vec<&str> =
            SOURCES.iter().map(|(name, _)| *name).filter(|name| *name != "heard").collect();
        assert_eq!(dialer.addresses(PEER), left);
    }

    #[test]
    fn only_addresses_that_were_dialled_have_failed() {
        let mut dialer = dialer();
        dialer.address(PEER, "heard", Source::Discovery, MonoMillis(0));
        for _ in 0..ADDRESS_FAILURES_MAX {
            dialer.failed(PEER, &["another".to_owned()], MonoMillis(0));
        }
        assert_eq!(dialer.addresses(PEER), ["heard"]);
    }

    #[test]
    fn what_a_device_said_and_what_led_to_it_lasts() {
        let mut dialer = dialer_that_knows();
        // That it is announced too makes it no less what the device said.
        dialer.address(PEER, "said", Source::Discovery, MonoMillis(3));
        let lasting = dialer.lasting_addresses(PEER).into_iter();
        let lasting: Vec<_> = lasting.map(|lasting| (lasting.address, lasting.proven)).collect();
        let proven = [("given and proven", true), ("heard and proven", true)];
        let others = [("kept", false), ("said", false)];
        let wanted = proven.into_iter().chain(others);
        let wanted: Vec<_> = wanted.map(|(name, proven)| (name.to_owned(), proven)).collect();
        assert_eq!(lasting, wanted);
    }

    #[test]
    fn what_a_device_says_no_more_is_forgotten_unless_something_else_speaks_for_it() {
        let mut dialer = dialer_that_knows();
        dialer.said(PEER, &["new".to_owned()], MonoMillis(3));
        let left = ["given", "given and proven", "heard", "heard and proven", "new"];
        assert_eq!(dialer.addresses(PEER), left);
        // Over any number of restarts of the peer, each with other ports.
        for n in 0..100 {
            let said: Vec<String> = (0..12).map(|i| format!("{n}-{i}")).collect();
            dialer.said(PEER, &said, MonoMillis(4));
            let known = dialer.addresses(PEER);
            assert!(said.iter().all(|address| known.contains(address)), "{known:?}");
            // One of them leads there each time; what once did makes room for what is said now.
            dialer.connected(PEER, Some(&said[0]), MonoMillis(4));
        }
        assert!(dialer.addresses(PEER).contains(&"given".to_owned()));
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
    fn invented_addresses_do_not_push_out_the_one_that_led_to_the_device() {
        let mut dialer = dialer();
        dialer.address(PEER, "true", Source::Learned, MonoMillis(0));
        dialer.connected(PEER, Some("true"), MonoMillis(0));
        for n in 0..100 {
            dialer.address(PEER, &format!("a{n}"), Source::Discovery, MonoMillis(0));
        }
        assert!(dialer.addresses(PEER).contains(&"true".to_owned()));
        // Nor in an outage.
        dialer.disconnected(PEER, MonoMillis(1));
        dialer.failed(PEER, &["true".to_owned()], MonoMillis(1));
        for n in 100..200 {
            dialer.address(PEER, &format!("a{n}"), Source::Discovery, MonoMillis(2));
        }
        assert!(dialer.addresses(PEER).contains(&"true".to_owned()));
    }

    #[test]
    fn addresses_that_were_kept_leave_room_for_where_the_device_is_now() {
        let mut dialer = dialer();
        for n in 0..100 {
            dialer.address(PEER, &format!("kept {n}"), Source::Learned, MonoMillis(0));
        }
        let now: Vec<String> = (0..HEARSAY_ADDRESSES).map(|n| format!("now {n}")).collect();
        for address in &now {
            dialer.address(PEER, address, Source::Discovery, MonoMillis(1));
        }
        let known = dialer.addresses(PEER);
        assert!(now.iter().all(|address| known.contains(address)), "{known:?}");
        assert_eq!(known.len(), ADDRESSES_MAX);
    }

    #[test]
    fn nobody_is_dialled_while_connected_or_offline() {
        let mut dialer = dialer();
        dialer.address(PEER, "a", Source::Person, MonoMillis(0));
        dialer.set_offline(true, MonoMillis(0));
        assert_eq!((dialer.poll(MonoMillis(9)), dialer.poll_timeout()), (None, None));
        dialer.set_offline(false, MonoMillis(9));
        dialer.connected(PEER, Some("a"), MonoMillis(9));
        assert_eq!((dialer.poll(MonoMillis(9)), dialer.poll_timeout()), (None, None));
        dialer.disconnected(PEER, MonoMillis(10));
        assert!(dialer.poll(dialer.poll_timeout().unwrap()).is_some());
    }
}
