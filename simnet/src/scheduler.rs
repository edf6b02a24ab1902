//! Time and chance: virtual clocks, the queue of what happens next, and seeded random streams.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The queue of events, ordered by time and then by the order in which they were added.
#[derive(Debug)]
pub struct Scheduler<E> {
    now_ms: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), E>,
}

impl<E> Default for Scheduler<E> {
    fn default() -> Self {
        Self { now_ms: 0, sequence: 0, queue: BTreeMap::new() }
    }
}

impl<E> Scheduler<E> {
    /// Virtual milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Adds an event at a time; one in the past happens now.
    pub fn at(&mut self, at_ms: u64, event: E) {
        self.sequence += 1;
        self.queue.insert((at_ms.max(self.now_ms), self.sequence), event);
    }

    /// Adds an event after some milliseconds.
    pub fn after(&mut self, delay_ms: u64, event: E) {
        self.at(self.now_ms.saturating_add(delay_ms), event);
    }

    /// The next event; moves the clock to its time.
    pub fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.now_ms = at;
        Some(event)
    }

    /// When the next event is due.
    pub fn next_at(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Moves the clock on to a time before which nothing is due.
    pub fn advance_to(&mut self, at_ms: u64) {
        self.now_ms = self.now_ms.max(at_ms);
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing will happen any more.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// One stream of random choices. Its choices depend on seed, purpose and index alone, so a change
/// in how one part draws does not disturb the others.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of a purpose, such as one node's disk.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"srcos simnet stream 1\0");
        hasher.update(&seed.to_be_bytes());
        hasher.update(&index.to_be_bytes());
        hasher.update(purpose.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The upper half of a wide product is evenly spread, but for a bias that no test can see.
        ((u128::from(self.0.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// A number of `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// An index into something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True this often in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these. There must be at least one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Random bits.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Random text of so many bytes, or a few less: it does not get shorter by being compressed.
    pub fn text(&mut self, len: usize) -> String {
        let mut text = String::with_capacity(len);
        for _ in 0..len / 8 {
            let bits = self.bits();
            let digits = (0..8).rev().map(|digit| bits >> (4 * digit) & 15);
            text.extend(digits.filter_map(|digit| char::from_digit(digit, 16)));
        }
        text
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// What a world draws for as it goes on. Each has a stream for each device, so that what is added for one
/// moves nothing of the others, and nothing of another purpose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// When a node's turn ends.
    Turn,
    /// How long a frame of a node is on its way.
    Way,
    /// When a node dials.
    Dial,
    /// When a node learns that a link is gone.
    Notice,
    /// How long a node is gone.
    Outage,
    /// What a power failure leaves on a node's disk.
    Power,
    /// When a node's link breaks again.
    Flap,
    /// Whose store is verified in the end.
    Verify,
    /// Who puts out a member that breaks the rules.
    Betrayal,
    /// What a device writes besides what is planned.
    Burst,
}

/// The streams of a world, each made when it is first drawn from.
#[derive(Debug)]
pub struct Streams {
    seed: u64,
    made: BTreeMap<(Purpose, usize), Stream>,
}

impl Streams {
    /// The streams of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, made: BTreeMap::new() }
    }

    /// The stream of a purpose for a device.
    pub fn of(&mut self, purpose: Purpose, node: usize) -> &mut Stream {
        let made = self.made.entry((purpose, node));
        made.or_insert_with(|| Stream::new(self.seed, &format!("{purpose:?}"), node as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_then_of_their_adding() {
        let mut scheduler = Scheduler::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            scheduler.at(at, event);
        }
        let order: String = std::iter::from_fn(|| scheduler.pop()).collect();
        assert_eq!(order, "abcd");
        assert_eq!(scheduler.now_ms(), 5);
        scheduler.at(1, 'e');
        assert_eq!((scheduler.pop(), scheduler.now_ms()), (Some('e'), 5));
    }

    #[test]
    fn streams_repeat_and_do_not_disturb_each_other() {
        let draw = |purpose, index| Stream::new(7, purpose, index).bytes::<16>();
        assert_eq!(draw("disk", 1), draw("disk", 1));
        assert_ne!(draw("disk", 1), draw("disk", 2));
        assert_ne!(draw("disk", 1), draw("network", 1));
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_both_ends() {
        let mut stream = Stream::new(1, "test", 0);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[stream.between(3, 7) as usize - 3] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
