//! Other histories of a member's own journals, one for each of its faces.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use srcos_lanes::ids::{EntryHash, MeshId, WallMillis};
use srcos_lanes::journal::{Entry, hash_header, sign_header, write_entry};
use srcos_lanes::signature::Signer as _;
use srcos_replication::wire::{Message, Receipt, frames};

use super::whole;

/// Entries with which all histories of a journal begin, where every peer is shown its own.
pub(super) const ALIKE_ENTRIES: u64 = 2;

/// What was shown otherwise than it is.
#[derive(Debug, Default)]
pub(super) struct Faces {
    /// For each own entry and each face that showed it otherwise, the hash of the other one.
    others: BTreeMap<(u64, EntryHash), EntryHash>,
}

impl Faces {
    /// A run of the member's own journal as this face shows it, if it does that otherwise: entries after
    /// the first so many have another time, and so another hash, properly signed.
    pub(super) fn shown(
        &mut self,
        key: &SigningKey,
        frame: &[u8],
        face: u64,
        alike: u64,
    ) -> Option<Vec<u8>> {
        let own = |message: Message<'_>| match message {
            Message::Run { lane, author, whole, entries } if author.device == key.device() => Some(
                (lane, author, whole, entries.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()),
            ),
            _ => None,
        };
        let (lane, author, is_whole, entries) = whole(frame, own)?;
        let mut shown = Vec::new();
        for bytes in &entries {
            let entry = Entry::read(bytes).ok()?;
            if entry.header.seq <= alike {
                shown.push(bytes.to_vec());
                continue;
            }
            let mut header = entry.header.clone();
            header.wall = WallMillis(header.wall.0 ^ face);
            header.prev = self.others.get(&(face, header.prev)).copied().unwrap_or(header.prev);
            let header = header.to_bytes();
            self.others.insert((face, entry.hash), hash_header(&header));
            shown.push(write_entry(&sign_header(&header, key), &header, &entry.bodies));
        }
        let entries: Vec<&[u8]> = shown.iter().map(Vec::as_slice).collect();
        frames(Message::Run { lane, author, whole: is_whole, entries }.encode()).pop()
    }

    /// A receipt that names the ends of the member's own journals as this face shows them, if it names
    /// any.
    pub(super) fn receipt(
        &self,
        key: &SigningKey,
        mesh: MeshId,
        frame: &[u8],
        face: u64,
    ) -> Option<Vec<u8>> {
        let receipt = |message: Message<'_>| match message {
            Message::Receipt(receipt) => Some(receipt),
            _ => None,
        };
        let mut receipt = whole(frame, receipt)?;
        let lanes = receipt.lanes.iter_mut();
        let held = lanes.flat_map(|lane| lane.held.0.iter_mut());
        let mut changed = false;
        for (_, tip) in held.filter(|(author, _)| author.device == key.device()) {
            if let Some(other) = self.others.get(&(face, tip.hash)) {
                tip.hash = *other;
                changed = true;
            }
        }
        let Receipt { at, lanes, reset, .. } = receipt;
        let told = || Message::Receipt(Receipt::new(mesh, at, lanes, reset, key));
        changed.then(|| frames(told().encode()).pop()).flatten()
    }
}
