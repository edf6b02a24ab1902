//! Journals whose next entry waits for an entry of another journal, found by what they wait for.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Author, DeviceId, Incarnation};
use crate::lane::LaneId;

/// What is parked, and for what. Each journal waits for one entry at a time.
#[derive(Default)]
pub(super) struct Parked {
    waits: BTreeMap<(LaneId, u32), (Author, u64)>,
    /// The same, by what is waited for.
    waited: BTreeSet<(LaneId, Author, u64, u32)>,
}

impl Parked {
    /// Whether a journal's next entry is known to wait.
    pub(super) fn has(&self, lane: LaneId, number: u32) -> bool {
        self.waits.contains_key(&(lane, number))
    }

    /// Notes that the next entry of a journal waits for this entry.
    pub(super) fn park(&mut self, lane: LaneId, number: u32, author: Author, seq: u64) {
        if let Some((author, seq)) = self.waits.insert((lane, number), (author, seq)) {
            self.waited.remove(&(lane, author, seq, number));
        }
        self.waited.insert((lane, author, seq, number));
    }

    /// Who waits for an entry of this journal, up to this one, waits no more.
    pub(super) fn wake(&mut self, lane: LaneId, author: Author, seq: u64) {
        self.wake_those((lane, author, 0, 0), (lane, author, seq, u32::MAX), |_| true);
    }

    /// Who waits for such journals of a device waits no more.
    pub(super) fn wake_device(
        &mut self,
        lane: LaneId,
        device: DeviceId,
        such: impl Fn(&Author) -> bool,
    ) {
        let author = |n| Author { device, incarnation: Incarnation(n) };
        let last = (lane, author(u64::MAX), u64::MAX, u32::MAX);
        self.wake_those((lane, author(0), 0, 0), last, such);
    }

    fn wake_those(
        &mut self,
        first: (LaneId, Author, u64, u32),
        last: (LaneId, Author, u64, u32),
        such: impl Fn(&Author) -> bool,
    ) {
        let awake = self.waited.range(first..=last).filter(|(_, author, _, _)| such(author));
        for key in awake.copied().collect::<Vec<_>>() {
            self.waited.remove(&key);
            self.waits.remove(&(key.0, key.3));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author(n: u64) -> Author {
        Author { device: DeviceId([(n / 2) as u8; 32]), incarnation: Incarnation(n % 2) }
    }

    proptest! {
        /// As a list that is looked through each time would have it.
        #[test]
        fn those_who_are_woken_are_those_who_waited_for_it(
            steps in prop::collection::vec((0..4_u8, 0..6_u32, 0..6_u64, 0..4_u64), 1..60),
        ) {
            let lane = LaneId::Normal;
            let (mut parked, mut model) = (Parked::default(), BTreeMap::new());
            for (what, number, of, seq) in steps {
                match what {
                    0 => {
                        parked.wake(lane, author(of), seq);
                        model.retain(|_, (waited, at)| *waited != author(of) || *at > seq);
                    }
                    1 => {
                        let such = |author: &Author| author.incarnation.0 == 1;
                        parked.wake_device(lane, author(of).device, such);
                        model.retain(|_, (waited, _): &mut (Author, u64)| {
                            waited.device != author(of).device || !such(waited)
                        });
                    }
                    _ => {
                        parked.park(lane, number, author(of), seq);
                        model.insert((lane, number), (author(of), seq));
                    }
                }
                prop_assert_eq!(&parked.waits, &model);
                let waited: BTreeSet<_> =
                    model.iter().map(|((lane, n), (of, seq))| (*lane, *of, *seq, *n)).collect();
                prop_assert_eq!(&parked.waited, &waited);
            }
        }
    }
}
