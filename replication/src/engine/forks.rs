//! Journals with two histories: given, as far as they are held here, to peers that do not hold them as far
//! as to where the two part, and the proof shown to peers that do.
//!
//! Receipts and digests name such a journal at 0. So all who know of it are told from those who do not,
//! and what others built on it waits for nobody.
//!
//! The proof is a run like any other, of headers and signatures without bodies: the first entry that differs
//! and those after it up to a signature that vouches for it. The peer finds it different from what it
//! holds, and keeps both, as if the author itself had shown it. So one device that sees both histories is
//! enough for all to learn that there are two.

use srcos_lanes::error::StoreError;
use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, DeviceId};
use srcos_lanes::journal::Entry;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use super::{ConnId, Engine};
use crate::roster::Verdict;
use crate::session::Session;
use crate::wire::{MESSAGE_BYTES_MAX, Message, RUN_ENTRIES_MAX};

/// Journals for which one receipt is answered with a proof, at most: a proof may be as long as a run, and
/// the rest is shown after the next receipt.
pub const FORKS_SHOWN_MAX: usize = 8;

impl Engine {
    /// The journals in what a peer says it holds of a lane, of which another history can be shown to it.
    pub(super) fn forked(&self, store: &Store, conn: ConnId, lane: LaneId) -> Vec<(Author, Tip)> {
        let Some(session) = self.sessions.get(&conn) else { return Vec::new() };
        let peer = self.peers.get(&session.device);
        let Some(held) = peer.and_then(|peer| peer.says(lane)) else { return Vec::new() };
        let unshown = |author: &Author| {
            [true, false].iter().any(|ours| !session.forks_shown.contains(&(lane, *author, *ours)))
        };
        // By what is held here: a peer may name thousands.
        let ours = store.journals(lane).map(|(author, _)| author);
        let theirs = ours.filter_map(|author| Some((author, *held.0.get(&author)?)));
        let forked = theirs.filter(|(author, tip)| has_proof(store, lane, author, tip));
        forked.filter(|(author, _)| unshown(author)).take(FORKS_SHOWN_MAX).collect()
    }

    /// Shows the journals that were just found to have two histories to everybody who holds one. A disk
    /// that fails at it fails the next read as well; what was found is kept, whatever comes of this.
    pub(super) fn spread_forks<'a>(
        &mut self,
        store: &Store,
        journals: impl IntoIterator<Item = &'a (LaneId, Author)>,
    ) {
        let forked =
            journals.into_iter().filter(|(lane, author)| store.fork_seq(*lane, author).is_some());
        for (lane, author) in forked.take(FORKS_SHOWN_MAX) {
            let open = self.sessions.values().filter(|session| session.is_open());
            let holders: Vec<_> = open
                .filter_map(|session| {
                    Some((session.conn, self.held_by(session.device, *lane, author)?))
                })
                .collect();
            for (conn, tip) in holders {
                let _ = self.show_fork(store, conn, *lane, *author, tip);
            }
        }
    }

    /// How far a peer holds a journal, by what it said on the present connection.
    fn held_by(&self, device: DeviceId, lane: LaneId, author: &Author) -> Option<Tip> {
        let peer = self.peers.get(&device).filter(|peer| peer.spoke_of.contains(&lane))?;
        peer.lanes.get(&lane)?.held.0.get(author).copied()
    }

    /// Shows one history, and each only once on a connection: first the one that the peer does not seem
    /// to have, and where it still holds the journal after that, the other.
    pub(super) fn show_fork(
        &mut self,
        store: &Store,
        conn: ConnId,
        lane: LaneId,
        author: Author,
        tip: Tip,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let unshown = |ours: &bool| !session.forks_shown.contains(&(lane, author, *ours));
        // What it does not hold yet, it cannot compare: the proof would be entries without bodies.
        if session.credit <= 0
            || !session.lanes.contains(&lane)
            || !has_proof(store, lane, &author, &tip)
        {
            return Ok(());
        }
        let both = [(lane, author, true), (lane, author, false)];
        let fork = match store.fork(lane, &author) {
            // What rotted proves nothing, and is not read again.
            Err(StoreError::Damaged { .. }) => {
                session.forks_shown.extend(both);
                return Ok(());
            }
            fork => fork?,
        };
        // Found in this turn, it is shown when that is durable.
        let Some(fork) = fork else { return Ok(()) };
        let at = tip.seq.saturating_sub(fork.seq);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let is_tip = |bytes: &[u8]| Entry::read(bytes).is_ok_and(|entry| entry.hash == tip.hash);
        let has = |history: &[Vec<u8>]| history.get(at).is_some_and(|bytes| is_tip(bytes));
        let own = match store.entries(lane, &author, tip.seq, 1, 1) {
            Err(StoreError::Damaged { .. }) => Vec::new(),
            own => own?,
        };
        let holds_ours = own.first().is_some_and(|bytes| is_tip(bytes));
        let order = if holds_ours { [false, true] } else { [true, false] };
        let next = order
            .into_iter()
            .map(|ours| (ours, if ours { &fork.held } else { &fork.other }))
            .find(|(ours, history)| unshown(ours) && !has(history));
        let Some((ours, history)) = next else {
            // It holds one and was shown the other: there is nothing left to look for.
            session.forks_shown.extend(both);
            return Ok(());
        };
        session.forks_shown.insert((lane, author, ours));
        let Some(Ok(last)) = history.last().map(|bytes| Entry::read(bytes)) else { return Ok(()) };
        // Whom the roster has put out, peers do not hear either, unless it only accuses: the other
        // history of what they hold to a mark.
        let incarnation = author.incarnation;
        let verdict =
            self.roster.accepts(author.device, lane, incarnation, last.header.seq, last.hash);
        let bytes: usize = history.iter().map(|entry| entry.len() + 4).sum();
        // It came as a run, with bodies, so it is no longer than a run may be.
        let accuses = verdict == Verdict::NotTheOneHeld && last.header.seq <= tip.seq;
        if !(verdict.is_accepted() || accuses)
            || history.len() > RUN_ENTRIES_MAX
            || bytes + 64 > MESSAGE_BYTES_MAX
        {
            return Ok(());
        }
        let entries = history.iter().map(Vec::as_slice).collect();
        let whole = session.knows_all(lane, self.held.lane(store, lane));
        let sent = session.send(&Message::Run { lane, author, whole, entries });
        session.credit -= sent.message as i64;
        session.window.sent(sent, self.told_time.mono);
        Ok(())
    }
}

/// Whether a peer that holds so much of a journal can be shown that it has two histories.
pub(super) fn has_proof(store: &Store, lane: LaneId, author: &Author, tip: &Tip) -> bool {
    store.fork_seq(lane, author).is_some_and(|seq| tip.seq >= seq)
}

/// Notes the journals of a lane that have two histories, of which a peer has not come to where they part:
/// it gets what is held here, on which others may have built, and then the proof.
pub(super) fn note_forked(
    store: &Store,
    session: &mut Session,
    lane: LaneId,
    ours: &Frontier,
    theirs: &Frontier,
) {
    for (author, _) in ours.0.iter().filter(|(_, tip)| tip.has_two_histories()) {
        let settled = |tip: &Tip| tip.has_two_histories() || has_proof(store, lane, author, tip);
        if !theirs.0.get(author).is_some_and(settled) {
            session.note(lane, *author);
        }
    }
}
