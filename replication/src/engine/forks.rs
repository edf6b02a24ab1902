//! The proof that a journal has two histories, shown to peers that hold one of them and have not heard
//! of the other.
//!
//! It is a run like any other, of headers and signatures without bodies: the first entry that differs
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
use crate::wire::{MESSAGE_BYTES_MAX, Message, RUN_ENTRIES_MAX};

/// Journals for which one receipt is answered with a proof, at most: each proof is looked for among all
/// that are kept, and the rest is shown after the next receipt.
pub const FORKS_SHOWN_MAX: usize = 8;

impl Engine {
    /// The journals in what a peer says it holds of a lane, of which another history can be shown to it.
    pub(super) fn forked(
        &self,
        store: &Store,
        conn: ConnId,
        lane: LaneId,
        held: &Frontier,
    ) -> Vec<(Author, Tip)> {
        let Some(session) = self.sessions.get(&conn) else { return Vec::new() };
        let forked = |author: &Author| store.journal(lane, author).is_some_and(|row| row.forked);
        let unshown = |author: &Author| {
            [true, false].iter().any(|ours| !session.forks_shown.contains(&(lane, *author, *ours)))
        };
        let forked = held.0.iter().filter(|(author, _)| forked(author) && unshown(author));
        forked.take(FORKS_SHOWN_MAX).map(|(author, tip)| (*author, *tip)).collect()
    }

    /// Shows the journals that were just found to have two histories to everybody who holds one.
    pub(super) fn spread_forks<'a>(
        &mut self,
        store: &Store,
        journals: impl IntoIterator<Item = &'a (LaneId, Author)>,
    ) -> Result<(), StoreError> {
        let forked = journals
            .into_iter()
            .filter(|(lane, author)| store.journal(*lane, author).is_some_and(|row| row.forked));
        for (lane, author) in forked.take(FORKS_SHOWN_MAX) {
            let open = self.sessions.values().filter(|session| session.is_open());
            let holders: Vec<_> = open
                .filter_map(|session| {
                    Some((session.conn, self.held_by(session.device, *lane, author)?))
                })
                .collect();
            for (conn, tip) in holders {
                self.show_fork(store, conn, *lane, *author, tip)?;
            }
        }
        Ok(())
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
        if session.credit <= 0 || !session.lanes.contains(&lane) {
            return Ok(());
        }
        let snapshot = store.reader().snapshot()?;
        let Some(fork) = snapshot.fork(lane, &author)? else { return Ok(()) };
        // What it does not hold yet, it cannot compare: the proof would be entries without bodies.
        let Some(at) = tip.seq.checked_sub(fork.seq) else { return Ok(()) };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let is_tip = |bytes: &[u8]| Entry::read(bytes).is_ok_and(|entry| entry.hash == tip.hash);
        let has = |history: &[Vec<u8>]| history.get(at).is_some_and(|bytes| is_tip(bytes));
        let holds_ours = snapshot.entry(lane, &author, tip.seq)?.is_some_and(|b| is_tip(&b));
        let order = if holds_ours { [false, true] } else { [true, false] };
        let next = order
            .into_iter()
            .map(|ours| (ours, if ours { &fork.held } else { &fork.other }))
            .find(|(ours, history)| unshown(ours) && !has(history));
        let Some((ours, history)) = next else { return Ok(()) };
        session.forks_shown.insert((lane, author, ours));
        let Some(Ok(last)) = history.last().map(|bytes| Entry::read(bytes)) else { return Ok(()) };
        // Whom the roster has put out, peers do not hear either.
        let incarnation = author.incarnation;
        let verdict =
            self.roster.accepts(author.device, lane, incarnation, last.header.seq, last.hash);
        let bytes: usize = history.iter().map(|entry| entry.len() + 4).sum();
        // It came as a run, with bodies, so it is no longer than a run may be.
        if !verdict.is_accepted()
            || history.len() > RUN_ENTRIES_MAX
            || bytes + 64 > MESSAGE_BYTES_MAX
        {
            return Ok(());
        }
        let entries = history.iter().map(Vec::as_slice).collect();
        let len = session.send(&Message::Run { lane, author, entries });
        session.credit -= len as i64;
        session.window.sent(len, self.told_time.mono);
        Ok(())
    }
}
