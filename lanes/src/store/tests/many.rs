//! A member that begins journals without end: what its incarnations cost it, and what others.

use super::misled::journal;
use super::*;
use crate::object::{Content, Object};

/// What mallory signs: one object in a journal of its own, for each of so many incarnations.
const JOURNALS: u64 = 1_100;

fn mallory() -> SigningKey {
    SigningKey::from_bytes(&[66; 32])
}

fn author(n: u64) -> Author {
    Author { device: mallory().device(), incarnation: Incarnation(n) }
}

/// The only entry of one of mallory's journals.
fn entry(n: u64) -> Vec<u8> {
    let content = Content::of(json!({ "n": n })).unwrap();
    let change = Object::create(&content, author(n).actor(), WallMillis(n));
    journal(&mallory(), author(n), &format!("m{n}"), &[change], Vec::new()).remove(0)
}

impl Device {
    fn offer(&mut self, author: Author, entry: &[u8]) -> Result<Received, ReceiveError> {
        let run = Run { lane: LaneId::Normal, author, entries: vec![entry] };
        self.store().receive(&run, &[MESH], WallMillis(9))
    }

    fn offer_all(&mut self, which: impl Iterator<Item = u64>) -> Vec<ReceiveError> {
        which.filter_map(|n| self.offer(author(n), &entry(n)).err()).collect()
    }

    /// Applies what is ready.
    fn advance(&mut self) {
        self.store().advance(LaneId::Normal, WallMillis(9), usize::MAX).unwrap();
        self.store().commit().unwrap();
    }

    fn quarantined(&mut self, id: &str) -> bool {
        matches!(self.see(LaneId::Normal, id), Visibility::Shown(object)
            if matches!(object.row.state, RowState::Quarantined(_)))
    }

    /// What a device writes into an object of one of mallory's journals, and into one of its own.
    fn build_on(&mut self, n: u64) -> (Author, Vec<u8>) {
        self.offer(author(n), &entry(n)).unwrap();
        self.advance();
        let ops = [put_op(&format!("m{n}"), json!({ "n": n, "by": "h" })), put_op("own", json!(1))];
        self.write(LaneId::Normal, &ops).unwrap();
        let by = self.store().author();
        let snapshot = self.store().reader().snapshot().unwrap();
        (by, snapshot.entry(LaneId::Normal, &by, 1).unwrap().unwrap())
    }
}

#[test]
fn journals_of_one_device_are_taken_up_to_the_bound_and_refused_beyond_it() {
    let (mut b, mut c) = (Device::new(2), Device::new(3));
    let refused = b.offer_all(0..JOURNALS);
    c.offer_all((0..JOURNALS).rev());
    assert_eq!(refused.len(), JOURNALS as usize - DEVICE_JOURNALS_MAX);
    assert!(refused.iter().all(|error| matches!(error, ReceiveError::TooManyJournals { .. })));
    for device in [&mut b, &mut c] {
        device.advance();
        let held = device.store().frontier(LaneId::Normal);
        assert_eq!(held.0.len(), DEVICE_JOURNALS_MAX);
        // What is held goes on, and what others write is taken.
        let first = *held.0.keys().next().unwrap();
        assert_eq!(device.offer(first, &entry(first.incarnation.0)).unwrap().entries, 0);
    }
    assert_ne!(b.store().frontier(LaneId::Normal), c.store().frontier(LaneId::Normal));
    c.put("own", json!(1)).unwrap();
    let by_c = c.store().author();
    let snapshot = c.store().reader().snapshot().unwrap();
    let own = snapshot.entry(LaneId::Normal, &by_c, 1).unwrap().unwrap();
    b.offer(by_c, &own).unwrap();
    b.advance();
    assert_eq!(b.body("own"), Some(json!(1)));
    // A restart forgets nothing of it.
    b.store.take().unwrap().close().unwrap();
    b.reopen(Some(1)).unwrap();
    let refused = b.offer(author(JOURNALS - 1), &entry(JOURNALS - 1));
    assert!(matches!(refused, Err(ReceiveError::TooManyJournals { max: 93, .. })), "{refused:?}");
}

/// Who relays could else accuse a member of what it never signed.
#[test]
fn journal_beyond_the_bound_without_a_signature_accuses_its_sender() {
    let mut b = Device::new(2);
    b.offer_all(0..DEVICE_JOURNALS_MAX as u64);
    let mut forged = entry(500);
    forged[3] ^= 1;
    let refused = b.offer(author(500), &forged);
    assert!(matches!(refused, Err(ReceiveError::Entry(_))), "{refused:?}");
}

/// A gap makes a device ask for what is before it, and what comes then would be refused again.
#[test]
fn what_follows_in_a_refused_journal_is_refused_and_no_gap() {
    let mut b = Device::new(2);
    b.offer_all(0..DEVICE_JOURNALS_MAX as u64);
    let changes = [1, 2].map(|n| {
        let content = Content::of(json!({ "n": n })).unwrap();
        Object::create(&content, author(500).actor(), WallMillis(n))
    });
    let entries = journal(&mallory(), author(500), "x", &changes, Vec::new());
    let refused = b.offer(author(500), &entries[1]);
    assert!(matches!(refused, Err(ReceiveError::TooManyJournals { .. })), "{refused:?}");
}

#[test]
fn nobody_waits_for_a_journal_that_is_refused_for_their_number() {
    let last = JOURNALS - 1;
    let mut h = Device::new(4);
    let (by_h, built) = h.build_on(last);
    let bound = DEVICE_JOURNALS_MAX as u64;
    // It came when the journal might still have come, and when it no longer could.
    let (mut early, mut late) = (Device::new(2), Device::new(3));
    early.offer_all(0..bound - 1);
    early.offer(by_h, &built).unwrap();
    early.advance();
    assert_eq!(early.body("own"), None, "it waits for the journal");
    early.offer_all(bound - 1..bound);
    late.offer_all(0..bound);
    late.offer(by_h, &built).unwrap();
    for device in [&mut early, &mut late] {
        device.advance();
        assert_eq!(device.store().journal(LaneId::Normal, &by_h).unwrap().applied, 1);
        assert_eq!(device.body("own"), Some(json!(1)));
        // What builds on what is not here is left out, in that one object.
        assert!(device.quarantined(&format!("m{last}")));
        assert!(!device.quarantined("m0"));
    }
}

/// When the device is revoked, what any member held of it is taken by all, and all is well again.
#[test]
fn what_was_left_out_for_a_refused_journal_is_taken_in_once_its_device_is_revoked() {
    let last = JOURNALS - 1;
    let mut h = Device::new(4);
    let (by_h, built) = h.build_on(last);
    let mut b = Device::new(2);
    b.offer_all(0..JOURNALS - 1);
    b.offer(by_h, &built).unwrap();
    b.advance();
    assert!(b.quarantined(&format!("m{last}")));
    let held = entry(last);
    let run = Run { lane: LaneId::Normal, author: author(last), entries: vec![&held] };
    b.store().receive_of_revoked(&run, &[MESH], WallMillis(9)).unwrap();
    b.advance();
    assert!(!b.quarantined(&format!("m{last}")));
    assert_eq!(b.body(&format!("m{last}")), Some(json!({ "n": last, "by": "h" })));
}
