//! What follows from a commit: who is told, what goes out next, and to whom.

use std::collections::BTreeSet;

use srcos_lanes::error::StoreError;
use srcos_lanes::ids::Now;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use super::{ConnId, Engine, Event};
use crate::session::Session;
use crate::wire::AbortReason;

impl Engine {
    /// Makes the turn durable, then queues what follows from it.
    pub fn commit(&mut self, store: &mut Store, now: Now) -> Result<(), StoreError> {
        let committed = store.commit()?;
        self.taken_in.clear();
        self.told_time = now;
        if committed.feed_next > self.feed_told {
            self.feed_told = committed.feed_next;
            self.events.push_back(Event::Applied { feed_next: committed.feed_next });
        }
        let deaf = self.sessions.values().filter(|session| session.is_overfull());
        for conn in deaf.map(|session| session.conn).collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&conn) {
                session.forget_outbox();
            }
            self.abort(conn, AbortReason::Protocol, "it does not read what it is sent");
        }
        if !committed.journals.is_empty() {
            let own = store.device();
            for session in self.sessions.values_mut().filter(|session| session.is_open()) {
                let (mut written, mut soon) = (false, false);
                for (lane, author) in &committed.journals {
                    let shared = session.lanes.contains(lane);
                    written |= shared;
                    // What the peer is not sent in a run, or cannot add to what it was told, it is told.
                    soon |= shared && (author.device != own || !session.told.contains_key(lane));
                    let held = store.journal(*lane, author).map_or(0, |row| row.held);
                    session.note_new(*lane, *author, held, now.mono);
                }
                if soon {
                    session.receipt_soon(now.mono);
                } else if written {
                    session.receipt_of_own(now.mono);
                }
            }
            self.spread_forks(store, &committed.journals);
        }
        self.compare_what_changed(store, now, committed.journals.iter().map(|(lane, _)| *lane));
        Ok(())
    }

    /// With what was just taken in, peers may be in step by what they said before.
    fn compare_what_changed(
        &mut self,
        store: &Store,
        now: Now,
        lanes: impl Iterator<Item = LaneId>,
    ) {
        let lanes: BTreeSet<LaneId> = lanes.collect();
        if lanes.is_empty() {
            return;
        }
        let open = self.sessions.values().filter(|session| session.is_open());
        for conn in open.map(|session| session.conn).collect::<Vec<_>>() {
            let Some(session) = self.sessions.get(&conn) else { continue };
            let Some(peer) = self.peers.get_mut(&session.device) else { continue };
            for lane in session.lanes.intersection(&lanes) {
                if peer.says(*lane).is_some() && !peer.is_silent(now) {
                    peer.compare(*lane, &self.held.lane(store, *lane).receipt.held, now.wall);
                }
            }
            self.tell_if_in_sync(store, conn);
        }
        self.save_peers_soon(now.mono);
    }

    /// The next frame to send, and on which connection. `None` while a turn is open, and after a
    /// failed write.
    pub fn poll_transmit(
        &mut self,
        store: &Store,
    ) -> Result<Option<(ConnId, Vec<u8>)>, StoreError> {
        if store.in_turn() || store.is_latched() {
            return Ok(None);
        }
        while let Some((conn, session)) = self.closing.front_mut() {
            if let Some(frame) = session.pop() {
                return Ok(Some((*conn, frame)));
            }
            self.closing.pop_front();
        }
        let mut sessions = self.sessions.values_mut().filter(|session| !session.blocked);
        if !sessions.any(|session| session.waits() || session.owes_receipt || session.wants_run()) {
            return Ok(None);
        }
        // Peers take turns: the one served last comes last.
        let mut conns: Vec<ConnId> = self.sessions.keys().copied().collect();
        let served = conns.partition_point(|conn| Some(*conn) <= self.served_last);
        conns.rotate_left(served);
        for conn in conns {
            let Some(session) = self.sessions.get_mut(&conn) else { continue };
            if session.blocked {
                continue;
            }
            if session.owes_receipt && !session.is_full() {
                self.send_receipt(store, self.told_time, conn, false, false);
            }
            if self.sessions.get_mut(&conn).is_some_and(Session::wants_run) {
                self.read_run(store, conn)?;
            }
            if let Some(session) = self.sessions.get_mut(&conn)
                && let Some(frame) = session.pop()
            {
                self.served_last = Some(conn);
                return Ok(Some((conn, frame)));
            }
        }
        Ok(None)
    }
}
