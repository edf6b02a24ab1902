//! Receipts and digests: what each side holds, in its own words, and when that is equal.

use srcos_lanes::bug::{self, Bug};
use srcos_lanes::error::StoreError;
use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, MeshId, Now};
use srcos_lanes::journal::Entry;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use super::forks::{has_proof, note_forked};
use super::{ConnId, Engine, Event, RECEIPT_AUTHORS_MAX, RESET_EVERY_MS};
use crate::peers::{Contact, LaneState};
use crate::wire::{AbortReason, LaneReceipt, Message, Receipt};

impl Engine {
    pub(super) fn handle_receipt(
        &mut self,
        store: &mut Store,
        now: Now,
        conn: ConnId,
        receipt: Receipt,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let device = session.device;
        if !receipt.verify(self.roster.mesh(), device) {
            self.abort(conn, AbortReason::Protocol, "a receipt is not signed by its sender");
            return Ok(());
        }
        self.peers.entry(device).or_default().spoke_at = Some(now);
        let too_many = |said: &LaneReceipt| {
            said.held.0.len() > RECEIPT_AUTHORS_MAX || said.unapplied.len() > RECEIPT_AUTHORS_MAX
        };
        if receipt.reset && receipt.lanes.iter().any(|said| said.part) {
            self.abort(conn, AbortReason::Protocol, "a receipt asks for all and names a part");
            return Ok(());
        }
        if receipt.lanes.iter().any(too_many) {
            self.abort(conn, AbortReason::Protocol, "a receipt names more journals than any may");
            return Ok(());
        }
        if receipt.reset {
            session.window.forget_what_is_on_its_way();
        }
        let own = store.author();
        let mut overtaken = None;
        for said in receipt.lanes {
            let Some(lane) = LaneId::from_code(said.lane) else { continue };
            let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
            if !session.lanes.contains(&lane) {
                continue;
            }
            let ours = &self.held.lane(store, lane).receipt.held;
            if said.held.seq(&own) > ours.seq(&own) {
                overtaken = Some(lane);
            }
            if receipt.reset {
                session.begin_anew(lane);
            }
            for (author, tip) in &said.held.0 {
                // Of journals that we lack there is nothing to send.
                let Some(own) = ours.0.get(author) else { continue };
                session.has_said(lane, author, tip.seq);
                // Another entry in the same place: show ours, which proves that there are two.
                if (own.seq >= tip.seq || own.has_two_histories())
                    && forks(store, lane, author, tip)?
                {
                    session.sent.insert((lane, *author), tip.seq.saturating_sub(1));
                }
            }
            session.note_ahead(lane, ours, &self.taken_in);
            let peer = self.peers.entry(device).or_default();
            if said.part {
                if let Err(why) = peer.hear_part(lane, &said.held, &said.unapplied, now.wall) {
                    self.abort(conn, AbortReason::Protocol, why);
                    return Ok(());
                }
            } else {
                peer.hear(lane, &said.held, &said.unapplied, now.wall);
            }
            peer.compare(lane, ours, now.wall);
            note_forked(store, session, lane, ours, peer.says(lane).unwrap_or(&said.held));
            for (author, tip) in self.forked(store, conn, lane) {
                self.show_fork(store, conn, lane, author, tip)?;
            }
        }
        if let Some(lane) = overtaken {
            self.hear_claim(store, now, device, lane)?;
        }
        self.save_peers_soon(now.mono);
        self.tell_if_in_sync(store, conn);
        // The peer must hear what we hold, or it cannot know that we are equal.
        self.send_receipt(store, now, conn, false, false);
        Ok(())
    }

    pub(super) fn handle_digest(
        &mut self,
        store: &Store,
        now: Now,
        conn: ConnId,
        digest: [u8; 32],
    ) {
        if self.confirm_by_digest(store, now, conn, digest) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        // Digests are cheap to send, and a full receipt is not.
        if session.digest_answered_until <= now.mono {
            session.digest_answered_until = now.mono.after_ms(RESET_EVERY_MS);
            session.idle_digests = session.idle_digests.saturating_add(1);
            let owed = self.lost_on_its_way(store, conn);
            let Some(session) = self.sessions.get_mut(&conn) else { return };
            let reset = (session.owes_reset || owed) && session.reset_after <= now.mono;
            if reset {
                session.owes_reset = false;
                session.reset_after = now.mono.after_ms(RESET_EVERY_MS);
            }
            self.send_receipt(store, now, conn, true, reset);
        }
    }

    /// Whether the peer holds what it thinks it has sent, and which did not come. A link keeps the order: what
    /// was sent before a digest has come before it, so where the peer is ahead, something comes between two of
    /// them, or was lost. Where asking again did not help it is tried ever more seldom: with the second digest,
    /// the fourth, the eighth.
    fn lost_on_its_way(&mut self, store: &Store, conn: ConnId) -> bool {
        let Some(session) = self.sessions.get(&conn) else { return false };
        let Some(peer) = self.peers.get(&session.device) else { return false };
        let due = session.idle_digests >= 2 && session.idle_digests.is_power_of_two();
        due && !bug::active(Bug::IgnoreGap)
            && session.lanes.iter().any(|lane| {
                let ours = &self.held.lane(store, *lane).receipt.held;
                peer.says(*lane).is_some_and(|says| session.lacks(*lane, ours, says))
            })
    }

    /// Compares a digest with our own; when equal, the peer holds and has applied what we have.
    pub(super) fn confirm_by_digest(
        &mut self,
        store: &Store,
        now: Now,
        conn: ConnId,
        digest: [u8; 32],
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&conn) else { return false };
        let peer = self.peers.entry(session.device).or_default();
        peer.spoke_at = Some(now);
        if self.held.digest(store, &session.lanes) != digest {
            return false;
        }
        // What did not follow has come since.
        session.owes_reset = false;
        session.idle_digests = 0;
        // That the peer can compare too is not known: its frontier may have moved since it wrote the
        // digest. So this tells it nothing yet, and what changes first is said to it in full.
        for lane in &session.lanes {
            let LaneReceipt { held, unapplied, .. } = &*self.held.lane(store, *lane).receipt;
            for (author, tip) in &held.0 {
                session.sent.insert((*lane, *author), tip.seq);
            }
            peer.hear(*lane, held, unapplied, now.wall);
            peer.compare(*lane, held, now.wall);
        }
        self.save_peers_soon(now.mono);
        self.tell_if_in_sync(store, conn);
        true
    }

    /// Sends what we hold of the lanes in which it differs from what the peer was last told, or of all:
    /// now, or once the link takes more.
    pub(super) fn send_receipt(
        &mut self,
        store: &Store,
        now: Now,
        conn: ConnId,
        all: bool,
        reset: bool,
    ) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        if !session.is_open() {
            return;
        }
        session.receipt_at = None;
        session.give_credit();
        if all {
            session.told.clear();
        }
        session.resets |= reset;
        // What is said later is newer, and takes the place of much that would wait.
        session.owes_receipt = session.is_full();
        if session.owes_receipt {
            return;
        }
        let reset = std::mem::take(&mut session.resets);
        let peer = self.peers.get(&session.device);
        let mut lanes = Vec::new();
        for lane in &session.lanes {
            let held = self.held.lane(store, *lane);
            let told = session.told.get(lane);
            let in_part = session.told_in_part.remove(lane) && held.is_named_whole();
            if !in_part && told.is_some_and(|told| told.digest == held.digest) {
                continue;
            }
            let shown = |author: &Author| session.shown.get(&(*lane, *author)).copied();
            let says = peer.and_then(|peer| peer.says(*lane));
            let has = |says: &Frontier, author: &Author, tip: &Tip| says.0.get(author) == Some(tip);
            let knows = told.zip(says).is_some_and(|(told, says)| {
                held.follows(told, |author| shown(author).filter(|tip| has(says, author, tip)))
            });
            if in_part || !knows {
                lanes.push(held.since(told));
            }
            session.told.insert(*lane, held.told());
            session.shown.retain(|(of, _), _| of != lane);
        }
        if lanes.is_empty() && !reset {
            return;
        }
        // All peers are told of a commit, mostly in the same words, if not in the same turn: signed once.
        let mesh = self.roster.mesh();
        let same = |(of, last): &&(MeshId, Receipt)| {
            (*of, last.reset) == (mesh, reset) && last.lanes == lanes
        };
        if let Some((_, last)) = self.signed_last.as_ref().filter(same) {
            session.send(&Message::Receipt(last.clone()));
            return;
        }
        let receipt = Receipt::new(mesh, now.wall, lanes, reset, &*self.signer);
        session.send(&Message::Receipt(receipt.clone()));
        self.signed_last = Some((mesh, receipt));
    }

    pub(super) fn tell_if_in_sync(&mut self, store: &Store, conn: ConnId) {
        let Some(session) = self.sessions.get(&conn) else { return };
        let Some(peer) = self.peers.get(&session.device) else { return };
        let mut lanes = session.lanes.iter();
        let in_sync = lanes.all(|lane| {
            let ours = &self.held.lane(store, *lane).receipt.held;
            peer.state(*lane, ours, Contact::Live).0 == LaneState::InSync
        });
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let before = std::mem::replace(&mut session.in_sync, in_sync);
        if in_sync && !before {
            let device = session.device;
            self.push_event(Event::InSync { device });
        }
    }
}

/// Whether a journal here has another entry in the place of a peer's tip, and no proof of it is kept that
/// can be shown instead.
fn forks(store: &Store, lane: LaneId, author: &Author, theirs: &Tip) -> Result<bool, StoreError> {
    let Some(row) = store.journal(lane, author) else { return Ok(false) };
    if theirs.has_two_histories() || (row.forked && has_proof(store, lane, author, theirs)) {
        return Ok(false);
    }
    if row.held <= theirs.seq {
        return Ok(row.held == theirs.seq && row.held_hash != theirs.hash);
    }
    let found = match store.entries(lane, author, theirs.seq, 1, 1) {
        // What rotted shows nothing, but the next one names it.
        Err(StoreError::Damaged { .. }) => {
            let next = match store.entries(lane, author, theirs.seq + 1, 1, 1) {
                Err(StoreError::Damaged { .. }) => Vec::new(),
                next => next?,
            };
            let next = next.first().and_then(|bytes| Entry::read(bytes).ok());
            return Ok(next.is_some_and(|next| next.header.prev != theirs.hash));
        }
        found => found?,
    };
    let found = found.first().and_then(|bytes| Entry::read(bytes).ok());
    Ok(found.is_some_and(|entry| entry.header.seq == theirs.seq && entry.hash != theirs.hash))
}
