//! What goes out next, and to whom.

use srcos_lanes::error::StoreError;
use srcos_lanes::store::Store;

use super::{ConnId, Engine};
use crate::session::Session;

impl Engine {
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
