//! The roster as it grows: records taken in, kept and passed on, and what a revocation does at once.

use std::collections::BTreeSet;

use srcos_lanes::bug::{self, Bug};
use srcos_lanes::error::StoreError;
use srcos_lanes::ids::{DeviceId, Now};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use super::{Bound, ConnId, Engine, Event, JoinError, MeshError, REVOKED_TOLD_BYTES_MAX};
use crate::roster::{Inserted, JournalMark, MARKS_MAX, RecordBytes, RosterError};
use crate::session::Session;
use crate::wire::{AbortReason, Message, ROSTER_BYTES_TARGET};

impl Engine {
    pub(super) fn add_own_record(
        &mut self,
        store: &mut Store,
        now: Now,
        record: &[u8],
    ) -> Result<(), MeshError> {
        self.roster.clone().insert(record)?;
        Ok(self.take_records(store, now, [record])?)
    }

    /// Why this store cannot go to another mesh, if so: entries name others that they build on, and a
    /// mesh takes only those of its own members, and what a member wrote alone before it came.
    pub fn bound(&self, store: &Store) -> Option<Bound> {
        let own = self.device();
        let members = self.roster.members().len();
        if members > 1 && self.roster.is_member(own) {
            return Some(Bound::Member { members });
        }
        let authors = authors(store);
        let devices = authors.iter().filter(|device| **device != own).count();
        if devices > 0 {
            return Some(Bound::Others { devices });
        }
        // Only its founder can prove to another mesh that this one was its own.
        (!authors.is_empty() && !self.roster.is_founder(own)).then_some(Bound::Own)
    }

    /// Takes in the records that admit this device to its own mesh again.
    pub(super) fn rejoin(
        &mut self,
        store: &mut Store,
        now: Now,
        records: &[Vec<u8>],
    ) -> Result<(), JoinError> {
        self.take_records(store, now, records.iter().map(Vec::as_slice))?;
        let device = self.device();
        if self.roster.is_member(device) {
            return Ok(());
        }
        Err(RosterError::NotMember { device }.into())
    }

    /// Takes records in, keeps and passes on those that are new, and acts on what they change. Who belongs
    /// is judged once for all of them: it may take long, and a message may bring thousands.
    pub(super) fn take_records<'a>(
        &mut self,
        store: &mut Store,
        now: Now,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), StoreError> {
        if !self.add_records(store, now, records)? {
            return Ok(());
        }
        // What this device testifies changes nothing of who belongs, and calls for no other testimony.
        let testimony = self.testimony(store, now);
        self.add_records(store, now, testimony.iter().map(|record| record.0.as_slice()))?;
        Ok(())
    }

    /// Whether any of the records was new.
    fn add_records<'a>(
        &mut self,
        store: &mut Store,
        now: Now,
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<bool, StoreError> {
        let members: BTreeSet<DeviceId> = self.roster.members().keys().copied().collect();
        let mut fresh = Vec::new();
        for record in records {
            // What waits for its parents is sent again by a peer that has them.
            let Ok(Inserted::New(new)) = self.roster.insert(record) else { continue };
            for id in new {
                let Some((_, bytes)) = self.roster.record(id) else { continue };
                store.put_roster_record(&bytes.0)?;
                fresh.push(bytes.clone());
            }
        }
        if fresh.is_empty() {
            return Ok(false);
        }
        if !bug::active(Bug::ServeRevoked) {
            self.cut_off(&members);
        }
        self.bar_void(store, now);
        let mut retry = Vec::new();
        let news: Vec<_> = in_messages(&fresh).collect();
        for session in self.sessions.values_mut().filter(|session| session.is_open()) {
            for message in &news {
                session.send(message);
            }
            if !bug::active(Bug::ForgetRefused) && session.forget_refused() {
                retry.push(session.conn);
            }
        }
        for conn in retry {
            self.send_receipt(store, now, conn, true, true);
        }
        for device in self.other_members().collect::<Vec<_>>() {
            self.peers.entry(device).or_default();
        }
        self.events.push_back(Event::RosterChanged);
        Ok(true)
    }

    /// Tells the store whose admission is void: nobody takes their entries, so nobody waits for them and
    /// nothing is said of them.
    pub(super) fn bar_void(&mut self, store: &mut Store, now: Now) {
        let mut void = self.roster.void();
        // What others hold of this device's own journals concerns it all the same.
        void.remove(&self.device());
        if !store.bar(void) {
            return;
        }
        self.waiting |= LaneId::ALL.into_iter().any(|lane| store.waits(lane));
        for session in self.sessions.values_mut().filter(|session| session.is_open()) {
            for lane in session.lanes.clone() {
                session.note_ahead(lane, &self.held.lane(store, lane).receipt.held, &self.taken_in);
            }
            // What runs named of it cannot be taken back in part.
            session.told.clear();
            session.receipt_soon(now.mono);
        }
    }

    /// Ends every connection to a device that was one of these members and is none any more: it was
    /// put out, or what admitted it is void.
    fn cut_off(&mut self, members: &BTreeSet<DeviceId>) {
        let now = self.roster.members();
        let gone: BTreeSet<DeviceId> =
            members.iter().copied().filter(|device| !now.contains_key(device)).collect();
        gone.iter().for_each(|device| self.claims.forget(*device));
        // What is queued for it was meant for a member.
        for (_, session) in self.closing.iter_mut().filter(|(_, s)| gone.contains(&s.device)) {
            session.forget_outbox();
        }
        let conns = self.sessions.values().filter(|session| gone.contains(&session.device));
        for conn in conns.map(|session| session.conn).collect::<Vec<_>>() {
            self.sessions.get_mut(&conn).into_iter().for_each(Session::forget_outbox);
            self.dismiss(conn);
        }
    }

    /// Ends a connection to a device that is no member.
    pub(super) fn dismiss(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.get(&conn) else { return };
        match self.roster.revoked().contains_key(&session.device) {
            true => self.turn_away(conn, &[]),
            false => self.abort(conn, AbortReason::NotAMember, ""),
        }
    }

    /// Ends a connection to a device that was put out, and shows it the record that says so, signed,
    /// with those before it, which were written while it was a member. Of what came later it hears
    /// nothing. `known` are records that it has.
    pub(super) fn turn_away(&mut self, conn: ConnId, known: &[Vec<u8>]) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        if let Some(gone) = self.roster.revoked().get(&session.device)
            && !session.is_cut_short()
        {
            let known: BTreeSet<&[u8]> = known.iter().map(Vec::as_slice).collect();
            let mut told = self.roster.leading_to(gone.revocation);
            told.retain(|record| !known.contains(record.0.as_slice()));
            let bytes: usize = told.iter().map(|record| record.0.len()).sum();
            if bytes <= REVOKED_TOLD_BYTES_MAX && !told.is_empty() {
                session.send(&Message::Roster(told.into_iter().cloned().collect()));
            }
        }
        self.abort(conn, AbortReason::Revoked, "");
    }

    /// Testimony to what is held of devices that were put out, beyond what their revocations and other
    /// witnesses name, so that nothing that was accepted in good faith is lost. It may become less what
    /// they name: a witness who is put out by somebody who did not hear him counts for nothing.
    fn testimony(&self, store: &Store, now: Now) -> Vec<RecordBytes> {
        let mut records = Vec::new();
        if bug::active(Bug::NoWitness) {
            return records;
        }
        let (own, writers) = (self.device(), authors(store));
        for (device, gone) in self.roster.revoked() {
            if *device == own || !writers.contains(device) {
                continue;
            }
            let accepted = self.roster.accepted_frontier(*device);
            let mut more = journal_marks(store, *device);
            more.retain(|mark| {
                !accepted.iter().any(|known| {
                    known.lane == mark.lane
                        && known.incarnation == mark.incarnation
                        && known.seq >= mark.seq
                })
            });
            for marks in more.chunks(MARKS_MAX) {
                // A device that is itself no member any more has nothing to testify.
                let signer = &*self.signer;
                let record = self.roster.witness(gone.revocation, marks.to_vec(), now.wall, signer);
                records.extend(record.ok());
            }
        }
        records
    }

    pub(super) fn other_members(&self) -> impl Iterator<Item = DeviceId> + use<'_> {
        let own = self.device();
        self.roster.members().keys().copied().filter(move |device| *device != own)
    }
}

/// Records as messages that bring them, parents first as they come.
pub(super) fn in_messages(records: &[RecordBytes]) -> impl Iterator<Item = Message<'static>> {
    let mut bytes = 0;
    let pieces = records.chunk_by(move |record, _| {
        bytes += record.0.len();
        let full = bytes >= ROSTER_BYTES_TARGET;
        if full {
            bytes = 0;
        }
        !full
    });
    pieces.map(|piece| Message::Roster(piece.to_vec()))
}

/// The devices of whose journals something is held.
fn authors(store: &Store) -> BTreeSet<DeviceId> {
    let journals = LaneId::ALL.into_iter().flat_map(|lane| store.journals(lane));
    journals.filter(|(_, row)| row.held > 0).map(|(author, _)| author.device).collect()
}

/// What is held of a device's journals.
pub(super) fn journal_marks(store: &Store, device: DeviceId) -> Vec<JournalMark> {
    let mut marks = Vec::new();
    for lane in LaneId::ALL {
        let journals =
            store.journals(lane).filter(|(author, row)| author.device == device && row.held > 0);
        marks.extend(journals.map(|(author, row)| JournalMark {
            lane,
            incarnation: author.incarnation,
            seq: row.held,
            hash: row.held_hash,
        }));
    }
    marks
}
