//! How many bytes of runs may be on their way to a peer at once.
//!
//! The credit that a peer gives bounds what it must keep; this bounds how long an urgent change waits
//! behind what was sent before it, on a link of whatever speed and length. A long link and a slow one
//! both give credit late. They are told apart by two figures: the *rate* at which bytes are credited,
//! and the *distance*, the time that credit takes for a little that has nothing before it. What passes at
//! that rate in that time fills the link; what is sent beyond it stands in a queue.
//!
//! All bytes here are those that the link carries. Credit counts those of the messages, which may be
//! more: what is on its way is kept by both.

use std::collections::VecDeque;

use srcos_lanes::ids::MonoMillis;

use super::CREDIT_BYTES;
use crate::wire::RUN_BYTES_TARGET;

/// Least bytes of runs on their way at once, and as many when a connection starts: what a link of
/// 20 kB/s takes in under a second, and what a peer gives credit for without waiting.
pub(crate) const WINDOW_BYTES_MIN: u64 = 16 * 1024;
/// What may stand in the queue of a link beside what fills it, in milliseconds: an urgent change waits
/// as long, and a transfer does not stop for want of credit that is a little late.
pub(crate) const WINDOW_QUEUE_MS: u64 = 400;
/// Bytes in a second under which a link is slow, and receipts are sent less often.
pub(crate) const SLOW_BYTES_PER_S: u64 = 64 * 1024;
/// Bytes of the run by which the distance is measured: little enough to take no time of its own even on
/// a slow link. The time of a larger entry counts in.
const MEASURE_BYTES: usize = 1024;
/// Time in milliseconds over which a credit makes the distance worth measuring anew: below it, neither a
/// queue nor a way that has become longer matters.
const MEASURE_LATE_MS: u64 = 500;
/// Least time between two measures, in milliseconds: for one, the link runs dry.
const MEASURE_EVERY_MS: u64 = 20_000;

/// How long a message is that was queued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Its bytes, which credit counts.
    pub(crate) message: usize,
    /// Bytes of its frames, which the link carries.
    pub(crate) carried: usize,
}

/// The window of one connection.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: u64,
    sent: u64,
    acknowledged: u64,
    /// Runs on their way: bytes of the message, and of its frames.
    on_way: VecDeque<(u64, u64)>,
    /// Bytes that were credited of the first of them.
    credited: u64,
    /// A run whose credit is awaited.
    probe: Option<Probe>,
    /// More would have been sent, had the window been larger.
    was_full: bool,
    /// Bytes in a second that passed when the window was full, or more.
    rate: u64,
    /// The time that credit took for little, when that was measured last.
    distance_ms: u64,
    measured_at: MonoMillis,
    /// The next run waits until nothing is before it, and measures.
    measures: bool,
    /// Not even a full window made the link pass [`SLOW_BYTES_PER_S`].
    pub(crate) is_slow: bool,
}

#[derive(Debug)]
struct Probe {
    /// Bytes sent up to its end.
    end: u64,
    at: MonoMillis,
    /// Bytes that were acknowledged when it was sent.
    acknowledged: u64,
    /// Nothing was before it on its way: its credit tells the distance.
    measures: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            bytes: WINDOW_BYTES_MIN,
            sent: 0,
            acknowledged: 0,
            on_way: VecDeque::new(),
            credited: 0,
            probe: None,
            was_full: false,
            rate: 0,
            distance_ms: 0,
            measured_at: MonoMillis(0),
            measures: true,
            is_slow: false,
        }
    }
}

impl Window {
    pub(super) fn has_room(&mut self) -> bool {
        let on_way = self.sent - self.acknowledged;
        if self.measures {
            return on_way == 0;
        }
        let room = on_way < self.bytes;
        self.was_full |= !room;
        room
    }

    /// Bytes after which a run should end, so that a few fit in.
    pub(crate) fn run_bytes(&self) -> usize {
        if self.measures {
            return MEASURE_BYTES;
        }
        // The window is at most CREDIT_BYTES, which fits in any usize.
        RUN_BYTES_TARGET.min(self.bytes as usize / 4)
    }

    /// A run went out.
    pub(crate) fn sent(&mut self, run: Sent, now: MonoMillis) {
        self.sent += run.carried as u64;
        self.on_way.push_back((run.message as u64, run.carried as u64));
        let (end, acknowledged) = (self.sent, self.acknowledged);
        let measures = std::mem::take(&mut self.measures);
        self.probe.get_or_insert(Probe { end, at: now, acknowledged, measures });
    }

    /// How long credit took for little, in milliseconds, by the last measure; 0 before the first.
    pub(super) fn distance_ms(&self) -> u64 {
        self.distance_ms
    }

    /// The peer asks for all anew: what it did not credit by now may never have come, and holds up nothing. Credit
    /// that comes for it all the same counts for what is sent next, which makes the window larger by that once.
    pub(crate) fn forget_what_is_on_its_way(&mut self) {
        self.acknowledged = self.sent;
        self.on_way.clear();
        (self.credited, self.probe) = (0, None);
    }

    /// The peer gave credit for bytes of messages that it took in.
    pub(crate) fn acknowledged(&mut self, bytes: u32, now: MonoMillis) {
        self.credited += u64::from(bytes);
        while let Some((message, carried)) = self.on_way.front()
            && *message <= self.credited
        {
            self.credited -= message;
            self.acknowledged += carried;
            self.on_way.pop_front();
        }
        if self.on_way.is_empty() {
            self.credited = 0;
        }
        let Some(probe) = self.probe.take_if(|probe| probe.end <= self.acknowledged) else {
            return;
        };
        let took_ms = now.0.saturating_sub(probe.at.0).max(1);
        if probe.measures {
            (self.distance_ms, self.measured_at) = (took_ms, now);
            return;
        }
        let passed = self.acknowledged - probe.acknowledged;
        let rate = passed.saturating_mul(1000) / took_ms;
        if !std::mem::take(&mut self.was_full) {
            // There was little to send: the link may be faster than that, and not slower.
            self.rate = self.rate.max(rate);
            return;
        }
        // A credit or two may be late by chance; one that is very late says how fast the link is now.
        let very_late = took_ms > self.distance_ms + 2 * WINDOW_QUEUE_MS;
        self.rate = if very_late { rate } else { rate.max(self.rate - self.rate / 8) };
        self.is_slow = self.rate < SLOW_BYTES_PER_S;
        let doubled = self.bytes * 2;
        let bytes = if took_ms < self.distance_ms + WINDOW_QUEUE_MS / 2 {
            // Hardly anything stood in a queue: the link is not full yet.
            doubled
        } else {
            let fits = self.rate.saturating_mul(self.distance_ms + WINDOW_QUEUE_MS) / 1000;
            fits.min(doubled)
        };
        self.bytes = bytes.clamp(WINDOW_BYTES_MIN, u64::from(CREDIT_BYTES));
        self.measures =
            took_ms > MEASURE_LATE_MS && now >= self.measured_at.after_ms(MEASURE_EVERY_MS);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::engine::RECEIPT_DELAY_MS;
    use crate::session::CREDIT_EVERY_BYTES;

    /// A link and the peer at its end, which gives credit as the engine does: at once for many bytes,
    /// with the next receipt for few.
    struct Link {
        bytes_per_ms: u64,
        latency_ms: u64,
        window: Window,
        /// Bytes of a message for each that the link carries.
        packed: usize,
        free_at: u64,
        /// Runs on their way: bytes, and when the peer has taken them in.
        way: VecDeque<(usize, u64)>,
        /// Bytes that the peer has taken in, and when its receipt is due.
        taken: (u32, u64),
        /// Credits on their way back.
        credits: VecDeque<(u32, u64)>,
    }

    impl Link {
        fn new(bytes_per_ms: u64, latency_ms: u64) -> Self {
            Self {
                bytes_per_ms,
                latency_ms,
                window: Window::default(),
                packed: 1,
                free_at: 0,
                way: VecDeque::new(),
                taken: (0, u64::MAX),
                credits: VecDeque::new(),
            }
        }

        /// Sends as much as there is room for, in each millisecond of a time. Returns the bytes that were
        /// credited, and the longest that one then stood in the queue.
        fn saturate(&mut self, time: std::ops::Range<u64>) -> (u64, u64) {
            let (mut passed, mut longest) = (0, 0);
            for now in time {
                while let Some((bytes, _)) = self.way.pop_front_if(|(_, at)| *at <= now) {
                    self.taken.0 += bytes as u32;
                    self.taken.1 = self.taken.1.min(now + RECEIPT_DELAY_MS);
                }
                if self.taken.0 >= CREDIT_EVERY_BYTES || self.taken.1 <= now {
                    self.credits.push_back((self.taken.0, now + self.latency_ms));
                    self.taken = (0, u64::MAX);
                }
                while let Some((bytes, _)) = self.credits.pop_front_if(|(_, at)| *at <= now) {
                    self.window.acknowledged(bytes, MonoMillis(now));
                    passed += u64::from(bytes);
                }
                while self.window.has_room() {
                    let message = self.window.run_bytes();
                    let carried = message / self.packed;
                    self.window.sent(Sent { message, carried }, MonoMillis(now));
                    self.free_at = self.free_at.max(now) + carried as u64 / self.bytes_per_ms;
                    self.way.push_back((message, self.free_at + self.latency_ms));
                    longest = longest.max(self.free_at - now);
                }
            }
            (passed, longest)
        }
    }

    /// The share in percent of what a link could carry in ten seconds, after as many to find out, and the
    /// longest that anything stood in its queue.
    fn settled(bytes_per_ms: u64, latency_ms: u64) -> (u64, u64) {
        let mut link = Link::new(bytes_per_ms, latency_ms);
        link.saturate(0..10_000);
        let (passed, longest_ms) = link.saturate(10_000..20_000);
        (passed * 100 / (bytes_per_ms * 10_000), longest_ms)
    }

    #[test]
    fn what_never_arrived_holds_up_nothing_once_the_peer_asks_anew() {
        let mut window = Window::default();
        let lost = Sent { message: 100_000, carried: 100_000 };
        window.sent(lost, MonoMillis(0));
        assert!(!window.has_room());
        window.forget_what_is_on_its_way();
        assert!(window.has_room());
        // The next run is counted from there.
        let next = Sent { message: 1_000, carried: 1_000 };
        window.sent(next, MonoMillis(10));
        window.acknowledged(1_000, MonoMillis(20));
        assert_eq!(window.sent, window.acknowledged);
    }

    #[test]
    fn slow_link_is_kept_busy_without_a_long_queue() {
        for (bytes_per_ms, latency_ms) in
            [(20, 20), (20, 100), (20, 300), (100, 50), (100, 300), (1_000, 5), (1_000, 300)]
        {
            let (percent, longest_ms) = settled(bytes_per_ms, latency_ms);
            let link =
                format!("{bytes_per_ms} kB/s, {latency_ms} ms: {percent} %, {longest_ms} ms");
            assert!(percent >= 90, "{link}");
            assert!(longest_ms <= 1_100, "{link}");
        }
    }

    #[test]
    fn fast_link_gets_a_window_that_fills_it() {
        for (bytes_per_ms, latency_ms) in [(10_000, 1), (50_000, 5), (100_000, 1)] {
            let (percent, _) = settled(bytes_per_ms, latency_ms);
            assert!(percent >= 80, "{percent} % at {bytes_per_ms}");
        }
    }

    /// A round trip of 600 ms, as over a satellite: late credit does not mean a slow link.
    #[test]
    fn long_fat_link_is_not_taken_for_a_slow_one() {
        let mut link = Link::new(10_000, 300);
        link.saturate(0..10_000);
        assert!(!link.window.is_slow);
        // As much as credit lets be on its way is what such a link can be given.
        let (passed, longest_ms) = link.saturate(10_000..20_000);
        assert!(passed >= 9 * u64::from(CREDIT_BYTES) * 10_000 / 600 / 10, "{passed}");
        assert!(longest_ms <= 600, "{longest_ms}");
    }

    #[test]
    fn link_that_becomes_slow_is_given_less_and_one_that_becomes_long_is_not() {
        let mut link = Link::new(10_000, 5);
        link.saturate(0..5_000);
        link.bytes_per_ms = 20;
        // What was on its way, for 300 ms of the fast link, takes the slow one minutes.
        link.saturate(5_000..300_000);
        let (passed, longest_ms) = link.saturate(300_000..320_000);
        assert!(longest_ms <= 1_600 && passed >= 20 * 20_000 * 9 / 10, "{longest_ms} {passed}");
        assert!(link.window.is_slow);

        let mut link = Link::new(1_000, 5);
        link.saturate(0..5_000);
        link.latency_ms = 400;
        link.saturate(5_000..60_000);
        let (passed, longest_ms) = link.saturate(60_000..70_000);
        assert!(passed >= 1_000 * 10_000 / 2, "{passed}");
        assert!(longest_ms <= 1_600 && !link.window.is_slow, "{longest_ms}");
    }

    /// What was learned while runs compressed well holds for those that do not.
    #[test]
    fn slow_link_stays_slow_whatever_runs_compress_to() {
        let mut link = Link::new(20, 20);
        link.packed = 8;
        link.saturate(0..20_000);
        assert!(link.window.is_slow);
        link.packed = 1;
        let (_, longest_ms) = link.saturate(20_000..40_000);
        assert!(longest_ms <= 1_600, "{longest_ms} ms");
    }

    #[test]
    fn little_to_send_says_nothing_of_a_link() {
        let mut window = Window::default();
        for turn in 0..100 {
            let at = turn * 1_000;
            window.sent(Sent { message: 200, carried: 200 }, MonoMillis(at));
            assert!(window.has_room());
            window.acknowledged(200, MonoMillis(at + 60));
        }
        assert!(!window.is_slow);
        assert_eq!(window.bytes, WINDOW_BYTES_MIN);
    }

    #[test]
    fn credit_for_more_than_was_sent_counts_for_no_more() {
        let mut window = Window::default();
        window.acknowledged(u32::MAX, MonoMillis(1));
        window.sent(Sent { message: 1_000_000, carried: 1_000_000 }, MonoMillis(1));
        assert!(!window.has_room());
    }
}
