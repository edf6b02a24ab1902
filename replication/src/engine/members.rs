//! The roster as it grows: records taken in, kept and passed on, and what a revocation does at once.

use std::collections::BTreeSet;

use srcos_lanes::bug::{self, Bug};
use srcos_lanes::error::StoreError;
use srcos_lanes::ids::{DeviceId, Now};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use super::{Bound, ConnId, Engine, Event, JoinError, MeshError, REVOKED_TOLD_BYTES_MAX};
use crate::roster::{Inserted, JournalMark, MARKS_MAX, RosterError};
use crate::session::Session;
use crate::wire::{AbortReason, Message};

impl Engine {
    pub(super) fn add_own_record(
        &mut self,
        store: &mut Store,
        now: Now,
        record: &[u8],
    ) -> Result<(), MeshError> {
        self.roster.clone().insert(record)?;
        Ok(self.take_record(store, now, record)?)
    }

    /// Why this store cannot go to another mesh, if so: entries name others that they build on, and a
    /// mesh takes only those of its own members, and what a member wrote alone before it came.
    pub fn bound(&self, store: &Store) -> Option<Bound> {
        let own = self.device();
        let members = self.roster.members().len();
        if members > 1 && self.roster.is_member(own) {
            return Some(Bound::Member { members });
        }
        let journals = LaneId::ALL.into_iter().flat_map(|lane| store.journals(lane));
        let authors: BTreeSet<DeviceId> =
            journals.filter(|(_, row)| row.held > 0).map(|(author, _)| author.device).collect();
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
        for record in records {
            self.take_record(store, now, record)?;
        }
        let device = self.device();
        if self.roster.is_member(device) {
            return Ok(());
        }
        Err(RosterError::NotMember { device }.into())
    }

    /// Takes a record in, keeps it, passes it on, and acts on what it changes.
    pub(super) fn take_record(
        &mut self,
        store: &mut Store,
        now: Now,
        record: &[u8],
    ) -> Result<(), StoreError> {
        let revoked_before: Vec<DeviceId> = self.roster.revoked().keys().copied().collect();
        let new = match self.roster.insert(record) {
            Ok(Inserted::New(new)) => new,
            // What waits for its parents is sent again by a peer that has them.
            Ok(Inserted::Known | Inserted::Orphan(_)) | Err(_) => return Ok(()),
        };
        let mut fresh = Vec::new();
        for id in new {
            let Some((_, bytes)) = self.roster.record(id) else { continue };
            store.put_roster_record(&bytes.0)?;
            fresh.push(bytes.clone());
        }
        let mut retry = Vec::new();
        for session in self.sessions.values_mut().filter(|session| session.is_open()) {
            session.send(&Message::Roster(fresh.clone()));
            if std::mem::take(&mut session.refused_by_roster) {
                retry.push(session.conn);
            }
        }
        for conn in retry {
            self.send_receipt(store, now, conn, true, true);
        }
        for device in self.other_members().collect::<Vec<_>>() {
            self.peers.entry(device).or_default();
        }
        let newly: Vec<DeviceId> = self
            .roster
            .revoked()
            .keys()
            .copied()
            .filter(|device| !revoked_before.contains(device))
            .collect();
        for device in newly {
            if !bug::active(Bug::ServeRevoked) {
                self.cut_off(device);
            }
            self.witness(store, now, device)?;
        }
        self.events.push_back(Event::RosterChanged);
        Ok(())
    }

    /// Ends every connection to a device that is no longer a member.
    pub(super) fn cut_off(&mut self, device: DeviceId) {
        self.claims.forget(device);
        // What is queued for it was meant for a member.
        for (_, session) in self.closing.iter_mut().filter(|(_, s)| s.device == device) {
            session.forget_outbox();
        }
        let conns = self.sessions.values().filter(|session| session.device == device);
        for conn in conns.map(|session| session.conn).collect::<Vec<_>>() {
            self.sessions.get_mut(&conn).into_iter().for_each(Session::forget_outbox);
            self.turn_away(conn, &[]);
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

    /// Testifies to what is held of a revoked device beyond what its revocation names, so that
    /// nothing that was accepted in good faith is lost.
    pub(super) fn witness(
        &mut self,
        store: &mut Store,
        now: Now,
        device: DeviceId,
    ) -> Result<(), StoreError> {
        if device == self.device() || bug::active(Bug::NoWitness) {
            return Ok(());
        }
        let accepted = self.roster.accepted_frontier(device);
        let more: Vec<JournalMark> = journal_marks(store, device)
            .into_iter()
            .filter(|mark| {
                !accepted.iter().any(|known| {
                    known.lane == mark.lane
                        && known.incarnation == mark.incarnation
                        && known.seq >= mark.seq
                })
            })
            .collect();
        let Some(revocation) = self.roster.revoked().get(&device).map(|r| r.revocation) else {
            return Ok(());
        };
        for marks in more.chunks(MARKS_MAX) {
            match self.roster.witness(revocation, marks.to_vec(), now.wall, &*self.signer) {
                Ok(record) => self.take_record(store, now, &record.0)?,
                // A device that is itself no member any more has nothing to testify.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    pub(super) fn other_members(&self) -> impl Iterator<Item = DeviceId> + use<'_> {
        let own = self.device();
        self.roster.members().keys().copied().filter(move |device| *device != own)
    }
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
