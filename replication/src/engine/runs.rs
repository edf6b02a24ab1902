//! Runs of entries: taken in, applied when their time has come, and read for a peer that lacks them.

use srcos_lanes::bug::{self, Bug};
use srcos_lanes::error::{ReceiveError, StoreError};
use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, DeviceId, Now};
use srcos_lanes::journal::{Body, Entry};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::ReplicationPolicy;
use srcos_lanes::store::{DEVICE_JOURNALS_MAX, Run, Store};

use super::{ADVANCE_ENTRIES_MAX, ConnId, Engine, Event, RESET_EVERY_MS};
use crate::roster::{Roster, Verdict};
use crate::session::Pending;
use crate::wire::{AbortReason, Message, RUN_ENTRIES_MAX};

impl Engine {
    pub(super) fn handle_run(
        &mut self,
        store: &mut Store,
        now: Now,
        conn: ConnId,
        run: &Run<'_>,
        whole: bool,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let device = session.device;
        if !session.lanes.contains(&run.lane) {
            self.abort(conn, AbortReason::Protocol, "a lane that is not shared");
            return Ok(());
        }
        // Form and signature are checked below; here only whether its author may write at all.
        let Some(Ok(last)) = run.entries.last().map(|bytes| Entry::read(bytes)) else {
            self.abort(conn, AbortReason::InvalidEntries, "an entry cannot be decoded");
            return Ok(());
        };
        let (seq, hash) = (last.header.seq, last.hash);
        // It holds that, whether it is taken in here or not.
        let peer = self.peers.entry(device).or_default();
        peer.hear_run(run.lane, run.author, Tip { seq, hash }, whole, now.wall);
        let verdict =
            self.roster.accepts(run.author.device, run.lane, run.author.incarnation, seq, hash);
        let ignored = bug::active(Bug::IgnoreRevocation) && verdict != Verdict::NotAdmitted;
        // Of a journal that is held so far, another history brings nothing in: it can only be the proof
        // that there are two.
        let held = store.journal(run.lane, &run.author).map_or(0, |row| row.held);
        let accuses = verdict == Verdict::NotTheOneHeld && seq <= held;
        if !verdict.is_accepted() && !accuses && !ignored {
            session.note_refused(run.lane, run.author);
            let why = format!("entry {seq} is not accepted from its author");
            self.refuse(device, run, verdict.code(), why);
            return Ok(());
        }
        let meshes = self.roster.allowed_meshes(run.author.device);
        let received = match verdict {
            Verdict::HeldBeforeRevocation | Verdict::NotTheOneHeld => {
                store.receive_of_revoked(run, &meshes, now.wall)
            }
            _ => store.receive(run, &meshes, now.wall),
        };
        match received {
            Ok(received) => {
                let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
                let sent = session.sent.entry((run.lane, run.author)).or_insert(0);
                *sent = (*sent).max(received.last);
                if received.entries > 0 {
                    session.idle_digests = 0;
                }
                if received.entries > 0 && run.author.device == self.device() {
                    self.take_back(store, device, run.author)?;
                }
                if received.entries > 0 {
                    self.taken_in.insert((run.lane, run.author));
                } else if self.peers.entry(device).or_default().says(run.lane).is_some() {
                    let ours = &self.held.lane(store, run.lane).receipt.held;
                    self.peers.entry(device).or_default().compare(run.lane, ours, now.wall);
                    self.tell_if_in_sync(store, conn);
                }
                self.waiting |= received.entries > 0 && store.waits(run.lane);
                if self.waiting {
                    self.advance(store, now)?;
                }
                Ok(())
            }
            Err(ReceiveError::Store(error)) => Err(error),
            Err(error) => {
                self.handle_receive_error(store, now, conn, run, &error);
                if matches!(error, ReceiveError::Equivocation { .. })
                    && run.author.device == self.device()
                {
                    self.take_back(store, device, run.author)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn handle_receive_error(
        &mut self,
        store: &Store,
        now: Now,
        conn: ConnId,
        run: &Run<'_>,
        error: &ReceiveError,
    ) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let device = session.device;
        match error {
            // Of another history, the sender shows where it parts from the tip that it is told.
            ReceiveError::Gap { .. } | ReceiveError::OtherHistory { .. } => {
                if bug::active(Bug::IgnoreGap) {
                    return;
                }
                session.owes_reset = session.reset_after > now.mono;
                if !session.owes_reset {
                    session.reset_after = now.mono.after_ms(RESET_EVERY_MS);
                    self.send_receipt(store, now, conn, true, true);
                }
            }
            ReceiveError::Equivocation { seq } => {
                let (lane, author, seq) = (run.lane, run.author, *seq);
                self.push_event(Event::Equivocation { lane, author, seq });
                // What waited for that journal waits no more.
                self.waiting |= store.waits(lane);
            }
            ReceiveError::Quarantined => {
                session.note_refused(run.lane, run.author);
                self.refuse(device, run, "journal_quarantined", error.to_string());
            }
            ReceiveError::TooManyJournals { .. } => {
                // Nothing is asked for again, but once its author is revoked.
                session.note_refused(run.lane, run.author);
                self.refuse(device, run, "too_many_journals", error.to_string());
            }
            ReceiveError::OtherMesh { .. } => {
                session.note_refused(run.lane, run.author);
                self.refuse(device, run, "other_mesh", error.to_string());
            }
            _ => {
                self.refuse(device, run, "invalid_entries", error.to_string());
                self.abort(conn, AbortReason::InvalidEntries, &error.to_string());
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        from: DeviceId,
        run: &Run<'_>,
        code: &'static str,
        why: String,
    ) {
        self.push_event(Event::Refused { from, lane: run.lane, author: run.author, code, why });
    }

    pub(super) fn advance(&mut self, store: &mut Store, now: Now) -> Result<(), StoreError> {
        let mut left = ADVANCE_ENTRIES_MAX;
        let mut more = false;
        // A lane with much to do keeps no other waiting: each call works on a bounded part of it.
        for lane in LaneId::BY_URGENCY {
            let advanced = store.advance(lane, now.wall, left)?;
            left = left.saturating_sub(advanced.entries);
            more |= advanced.more;
        }
        // What waits else, waits for entries that have yet to come.
        self.waiting = more;
        Ok(())
    }

    /// Reads the most urgent run that a peer lacks and queues it.
    pub(super) fn read_run(&mut self, store: &Store, conn: ConnId) -> Result<(), StoreError> {
        while let Some(session) = self.sessions.get_mut(&conn)
            && let Some(&pending) = session.pending.first()
        {
            match self.read_pending(store, conn, pending) {
                Ok(true) => break,
                Ok(false) => {}
                // What rotted cannot be sent, and all else can.
                Err(error @ StoreError::Damaged { .. }) => {
                    let Pending { lane, author, .. } = pending;
                    if self.unreadable.insert((lane, author)) {
                        let why = error.to_string();
                        self.push_event(Event::Unreadable { lane, author, why });
                    }
                }
                Err(error) => return Err(error),
            }
            self.sessions.get_mut(&conn).map(|session| session.pending.remove(&pending));
        }
        Ok(())
    }

    /// Reads a run of a journal and queues it, if there is one to be sent.
    fn read_pending(
        &mut self,
        store: &Store,
        conn: ConnId,
        pending: Pending,
    ) -> Result<bool, StoreError> {
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(false) };
        let Pending { lane, author, .. } = pending;
        let said = self.peers.get(&session.device).and_then(|peer| peer.lanes.get(&lane));
        let has = session.sent.get(&(lane, author)).copied();
        let has = has.unwrap_or_else(|| said.map_or(0, |view| view.held.seq(&author)));
        let from = has.saturating_add(1);
        let to = sendable(&self.roster, store, lane, &author);
        let knows_better =
            |held: &Frontier| held.0.get(&author).is_some_and(Tip::has_two_histories);
        let unwanted = |held: &Frontier| knows_better(held) || refuses(&self.roster, held, &author);
        if from > to || said.is_some_and(|view| unwanted(&view.held)) {
            return Ok(false);
        }
        let mut entries =
            store.entries(lane, &author, from, session.window.run_bytes(), RUN_ENTRIES_MAX)?;
        entries.truncate(usize::try_from(to - from + 1).unwrap_or(usize::MAX));
        // A run must end with a signature that holds. What this incarnation wrote has one each, and so has
        // the last that is held of a journal: that is how it came. Entries before it that came under its
        // signature were not checked singly, also our own of before a loss, so the end moves back to one
        // that verifies; only where there is none, on to the next. That never leads beyond the run in which
        // they came.
        let row = store.journal(lane, &author);
        let held = row.map_or(0, |row| row.held);
        let own = author == store.author();
        let verifies = |seq: u64, bytes: &[u8]| {
            own || seq == held || Entry::read(bytes).is_ok_and(|entry| entry.verify_signature())
        };
        match entries.iter().enumerate().rposition(|(at, e)| verifies(from + at as u64, e)) {
            Some(end) => entries.truncate(end + 1),
            None => {
                let end = |entries: &[Vec<u8>]| from + entries.len() as u64 - 1;
                while entries.last().is_some_and(|bytes| !verifies(end(&entries), bytes)) {
                    let next = from + entries.len() as u64;
                    let next = store.entries(lane, &author, next, 1, 1)?;
                    if from + entries.len() as u64 > to
                        || next.is_empty()
                        || entries.len() >= RUN_ENTRIES_MAX
                    {
                        return Ok(false);
                    }
                    entries.extend(next);
                }
            }
        }
        if entries.is_empty() {
            return Ok(false);
        }
        let last = from + entries.len() as u64 - 1;
        let policy = &self.policy;
        let allowed: Vec<Vec<u8>> =
            entries.into_iter().map(|bytes| confine(policy, bytes, session.device)).collect();
        if let Some(row) = row.filter(|row| row.held == last && !row.forked) {
            session.shown.insert((lane, author), Tip { seq: last, hash: row.held_hash });
        }
        let whole = session.knows_all(lane, self.held.lane(store, lane));
        let entries = allowed.iter().map(Vec::as_slice).collect();
        let sent = session.send(&Message::Run { lane, author, whole, entries });
        session.credit -= sent.message as i64;
        session.window.sent(sent, self.told_time.mono);
        session.sent.insert((lane, author), last);
        if last >= to {
            session.pending.remove(&pending);
        }
        Ok(true)
    }
}

/// Whether a peer that holds this would refuse a journal of a member: it has as many of that device as
/// anybody takes.
fn refuses(roster: &Roster, held: &Frontier, author: &Author) -> bool {
    roster.is_member(author.device)
        && !held.0.contains_key(author)
        && held.of_device(author.device).count() >= DEVICE_JOURNALS_MAX
}

/// How far a journal may be sent: what is held, for a revoked author what is accepted of it.
fn sendable(roster: &Roster, store: &Store, lane: LaneId, author: &Author) -> u64 {
    let held = match store.journal(lane, author) {
        Some(row) => row.held,
        None => return 0,
    };
    if roster.is_member(author.device) {
        return held;
    }
    let accepted = roster.accepted_frontier(author.device);
    let mark =
        accepted.iter().find(|mark| mark.lane == lane && mark.incarnation == author.incarnation);
    mark.map_or(0, |mark| mark.seq.min(held))
}

/// The entry as a device may have it: bodies that policy denies are withheld.
fn confine(policy: &ReplicationPolicy, bytes: Vec<u8>, to: DeviceId) -> Vec<u8> {
    let Ok(mut entry) = Entry::read(&bytes) else { return bytes };
    let lane = entry.header.lane;
    let mut withheld = false;
    for (item, body) in entry.header.items.iter().zip(&mut entry.bodies) {
        let class = entry.header.classes.get(usize::from(item.class)).map_or("", String::as_str);
        let asks = !bug::active(Bug::SendDeniedClass);
        if asks
            && matches!(body, Body::Here(_))
            && !policy.body(lane, class, item.confined, to).allows()
        {
            *body = Body::Withheld;
            withheld = true;
        }
    }
    if withheld { entry.write() } else { bytes }
}
