//! What this node says of each lane in receipts and digests, kept until a journal of the lane changes:
//! it is asked for at every message, and changes only with writes and runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, DeviceId};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{DEVICE_JOURNALS_MAX, Store};

use super::RECEIPT_AUTHORS_MAX;
use crate::roster::{MARKS_MAX, RECORDS_MAX};
use crate::session::Told;
use crate::wire::{LaneReceipt, MESSAGE_BYTES_MAX, lanes_digest};

/// Bytes that one journal takes in a receipt, at most: device, incarnation, seq and hash, and the first
/// three again where it is not applied as far as it is held. Numbers of 64 bits take up to ten bytes.
const JOURNAL_BYTES_MAX: usize = (32 + 10 + 10 + 32) + (32 + 10 + 10);
/// Bytes that a receipt takes beside its journals, at most: the lengths of its lists and a signature.
const BARE_BYTES_MAX: usize = 256;
const _: () = assert!(
    BARE_BYTES_MAX + LaneId::ALL.len() * RECEIPT_AUTHORS_MAX * JOURNAL_BYTES_MAX
        <= MESSAGE_BYTES_MAX,
    "a receipt of all lanes fits into one message"
);
const _: () = assert!(
    LaneId::ALL.len() * DEVICE_JOURNALS_MAX <= MARKS_MAX,
    "a revocation names all that is kept of a device"
);
const _: () = assert!(RECORDS_MAX <= RECEIPT_AUTHORS_MAX, "each device has room for a journal");

/// One lane, at one state of the store.
pub(crate) struct HeldLane {
    version: u64,
    /// All that is held of it.
    pub(super) receipt: Arc<LaneReceipt>,
    /// What a receipt names of it, where that is not all.
    named: Option<LaneReceipt>,
    /// The digest of all that is held.
    pub(super) digest: [u8; 32],
}

impl HeldLane {
    /// What a receipt says of it: at most [`RECEIPT_AUTHORS_MAX`] journals.
    pub(super) fn named(&self) -> LaneReceipt {
        self.named.as_ref().unwrap_or(&self.receipt).clone()
    }

    /// What a receipt says of it to a peer that was told so much before: what changed since then, where
    /// the rest still stands.
    pub(super) fn since(&self, told: Option<&Told>) -> LaneReceipt {
        let (Some(Told { all: Some(before), .. }), None) = (told, &self.named) else {
            return self.named();
        };
        let LaneReceipt { lane, held, unapplied, .. } = &*self.receipt;
        if before.held.0.keys().any(|author| !held.0.contains_key(author)) {
            return self.named();
        }
        let changed = held.0.iter().filter(|(author, tip)| before.held.0.get(author) != Some(tip));
        let held = Frontier(changed.map(|(author, tip)| (*author, *tip)).collect());
        LaneReceipt { lane: *lane, held, unapplied: unapplied.clone(), part: true }
    }

    /// Whether a receipt names all of it.
    pub(super) fn is_named_whole(&self) -> bool {
        self.named.is_none()
    }

    /// What a peer knows once it was told.
    pub(super) fn told(&self) -> Told {
        let all = self.named.is_none().then(|| Arc::clone(&self.receipt));
        Told { digest: self.digest, all }
    }

    /// Whether all of this follows from what a peer was told before, and the journals that it was sent up
    /// to their tips since.
    pub(crate) fn follows(&self, told: &Told, shown: impl Fn(&Author) -> Option<Tip>) -> bool {
        let (Some(all), None) = (&told.all, &self.named) else { return false };
        let ours = &self.receipt;
        let known = |author: &Author, tip: &Tip| {
            all.held.0.get(author) == Some(tip) || shown(author) == Some(*tip)
        };
        all.unapplied == ours.unapplied
            && all.held.0.keys().all(|author| ours.held.0.contains_key(author))
            && ours.held.0.iter().all(|(author, tip)| known(author, tip))
    }
}

/// What this node holds of each lane.
#[derive(Default)]
pub(super) struct Held(BTreeMap<LaneId, HeldLane>);

impl Held {
    /// What is held of a lane now, and what of it is not applied yet.
    pub(super) fn lane(&mut self, store: &Store, lane: LaneId) -> &HeldLane {
        let version = store.lane_version(lane);
        let held = self.0.entry(lane).or_insert_with(|| read(store, lane, version));
        if held.version != version {
            *held = read(store, lane, version);
        }
        held
    }

    /// The digest of what is held of some lanes.
    pub(super) fn digest(&mut self, store: &Store, lanes: &BTreeSet<LaneId>) -> [u8; 32] {
        lanes_digest(lanes.iter().map(|lane| self.lane(store, *lane).digest))
    }
}

fn read(store: &Store, lane: LaneId, version: u64) -> HeldLane {
    let unapplied = store
        .journals(lane)
        .filter(|(_, row)| row.applied < row.held && !row.forked)
        .filter(|(author, _)| !store.is_barred(&author.device));
    let mut unapplied: Vec<_> = unapplied.map(|(author, row)| (author, row.applied)).collect();
    // The same on every device that holds the same.
    unapplied.sort_unstable();
    let held = store.frontier(lane);
    let receipt = LaneReceipt { lane: lane.code(), held, unapplied, part: false };
    let named = (receipt.held.0.len() > RECEIPT_AUTHORS_MAX).then(|| shortened(&receipt));
    HeldLane { version, digest: receipt.digest(), named, receipt: Arc::new(receipt) }
}

/// As much of what is held as a receipt may name: the latest journals of each device, as many of each.
/// Who reads it takes the rest for not held, which may cost a repeat and never says that two are equal;
/// digests are of all.
fn shortened(all: &LaneReceipt) -> LaneReceipt {
    let mut devices: Vec<DeviceId> = all.held.0.keys().map(|author| author.device).collect();
    devices.dedup();
    let mut of_each = DEVICE_JOURNALS_MAX;
    let latest = |of_each: usize| {
        let journals =
            devices.iter().flat_map(move |of| all.held.of_device(*of).rev().take(of_each));
        journals.map(|(author, tip)| (*author, *tip))
    };
    while of_each > 1 && latest(of_each).count() > RECEIPT_AUTHORS_MAX {
        of_each /= 2;
    }
    // More devices than a roster has come with a store that was in another mesh.
    let held = Frontier(latest(of_each).take(RECEIPT_AUTHORS_MAX).collect());
    let unapplied = all.unapplied.iter().filter(|(author, _)| held.0.contains_key(author));
    LaneReceipt { lane: all.lane, unapplied: unapplied.copied().collect(), held, part: false }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use srcos_lanes::frontier::Tip;
    use srcos_lanes::ids::{Author, EntryHash, Incarnation, MeshId, WallMillis};

    use super::*;
    use crate::wire::{Message, Receipt};

    /// What a store may hold of a lane: journals of so many devices, so many of each.
    fn lane(code: u8, devices: usize, of_each: u64) -> LaneReceipt {
        let device = |n: usize| {
            let mut bytes = [255; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            DeviceId(bytes)
        };
        let author = |device, n| Author { device, incarnation: Incarnation(u64::MAX - n) };
        let authors = (0..devices).flat_map(|n| (0..of_each).map(move |m| author(device(n), m)));
        let tip = Tip { seq: u64::MAX, hash: EntryHash([255; 32]) };
        let held = Frontier(authors.map(|author| (author, tip)).collect());
        let unapplied = held.0.keys().map(|author| (*author, u64::MAX - 1)).collect();
        LaneReceipt { lane: code, held, unapplied, part: false }
    }

    #[test]
    fn largest_receipt_fits_into_a_message() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let lanes = LaneId::ALL.map(|of| lane(of.code(), RECEIPT_AUTHORS_MAX, 1)).to_vec();
        let receipt = Receipt::new(MeshId([1; 32]), WallMillis(u64::MAX), lanes, true, &key);
        let bytes = Message::Receipt(receipt).encode().len();
        assert!(bytes <= MESSAGE_BYTES_MAX, "{bytes} bytes");
        let most = BARE_BYTES_MAX + 11 * RECEIPT_AUTHORS_MAX * JOURNAL_BYTES_MAX;
        assert!(bytes <= most && bytes + BARE_BYTES_MAX > most, "{bytes} bytes of {most}");
    }

    #[test]
    fn receipt_names_no_more_journals_than_any_may_and_some_of_each_device() {
        let most = DEVICE_JOURNALS_MAX as u64;
        for (devices, of_each) in [(45, most), (200, most), (4_096, 3), (9_000, 1), (2, 5_000)] {
            let all = lane(1, devices, of_each);
            let named = shortened(&all);
            let known =
                named.held.0.iter().all(|(author, tip)| all.held.0.get(author) == Some(tip));
            assert!(known && named.held.0.len() <= RECEIPT_AUTHORS_MAX);
            let mut seen: Vec<_> = named.held.0.keys().map(|author| author.device).collect();
            seen.dedup();
            assert_eq!(seen.len(), devices.min(RECEIPT_AUTHORS_MAX), "{devices} of {of_each}");
            assert_eq!(named.unapplied.len(), named.held.0.len());
        }
    }

    #[test]
    fn part_names_what_changed_and_everything_is_named_where_a_journal_is_gone() {
        let held = |all: &LaneReceipt| HeldLane {
            version: 0,
            digest: all.digest(),
            named: None,
            receipt: Arc::new(all.clone()),
        };
        let before = lane(1, 3, 2);
        let told = held(&before).told();
        let mut after = before.clone();
        let first = *after.held.0.keys().next().unwrap();
        let tip = Tip { seq: u64::MAX, hash: EntryHash([1; 32]) };
        after.held.0.insert(first, tip);
        let part = held(&after).since(Some(&told));
        assert_eq!(part.held, Frontier([(first, tip)].into()));
        assert_eq!((part.part, part.unapplied), (true, before.unapplied.clone()));
        assert_eq!(held(&after).since(None), after);
        after.held.0.remove(&first);
        assert_eq!(held(&after).since(Some(&told)), after, "nobody can be told that it is gone");
    }
}
