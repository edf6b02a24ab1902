//! From a connection to a conversation: hello, proof of membership, and the roster records that the peer lacks.

use std::collections::BTreeSet;

use srcos_lanes::bug::{self, Bug};
use srcos_lanes::error::StoreError;
use srcos_lanes::ids::Now;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::Store;

use super::members::in_messages;
use super::{ConnId, DIGEST_EVERY_MS, Engine, Event};
use crate::roster::{RecordBytes, RecordId};
use crate::session::{CREDIT_BYTES, Phase};
use crate::wire::{
    AbortReason, Hello, Message, PROOF_BYTES_MAX, PROTOCOL_VERSION, ROSTER_HEADS_MAX,
};

impl Engine {
    pub(super) fn say_hello(&mut self, store: &Store, conn: ConnId) {
        let Some(session) = self.sessions.get(&conn) else { return };
        let lanes: BTreeSet<LaneId> = LaneId::ALL
            .into_iter()
            .filter(|lane| {
                let allows = self.policy.lane(*lane, session.device).allows();
                allows || bug::active(Bug::OfferSecureLane)
            })
            .collect();
        let mut roster = self.roster.heads();
        roster.truncate(ROSTER_HEADS_MAX);
        let hello = Hello {
            version: PROTOCOL_VERSION,
            mesh: self.roster.mesh(),
            digest: self.held.digest(store, &lanes),
            lanes: lanes.into_iter().collect(),
            roster,
            credit: CREDIT_BYTES,
        };
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.send(&Message::Hello(hello));
        }
    }

    /// A stranger sends a roster that should show it is a member.
    pub(super) fn prove(
        &mut self,
        store: &mut Store,
        now: Now,
        conn: ConnId,
        records: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get(&conn) else { return Ok(()) };
        let device = session.device;
        // Tried on a copy: records from one who turns out to be no member are not kept.
        let mut tried = self.roster.clone();
        let readable = records.iter().all(|record| tried.insert(record).is_ok());
        if !readable || !tried.is_member(device) {
            if tried.revoked().contains_key(&device) {
                self.turn_away(conn, records);
            } else {
                self.abort(conn, AbortReason::NotAMember, "");
            }
            return Ok(());
        }
        self.take_records(store, now, records.iter().map(Vec::as_slice))?;
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let Phase::Stranger { deadline, hello } = &mut session.phase else { return Ok(()) };
        let (deadline, hello) = (*deadline, hello.take());
        session.phase = Phase::Greeting { deadline };
        self.say_hello(store, conn);
        match hello {
            Some(hello) => self.open(store, now, conn, hello),
            None => Ok(()),
        }
    }

    /// Both are members and said hello.
    pub(super) fn open(
        &mut self,
        store: &mut Store,
        now: Now,
        conn: ConnId,
        hello: Hello,
    ) -> Result<(), StoreError> {
        if hello.version != PROTOCOL_VERSION {
            let detail = format!("version {PROTOCOL_VERSION} is spoken here");
            self.abort(conn, AbortReason::Version, &detail);
            return Ok(());
        }
        if hello.mesh != self.roster.mesh() {
            self.abort(conn, AbortReason::OtherMesh, "");
            return Ok(());
        }
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let device = session.device;
        // The newest connection to a device is the one in use; an older one is stale or a double.
        let doubles: Vec<ConnId> = self
            .sessions
            .values()
            .filter(|other| other.device == device && other.conn != conn && other.is_open())
            .map(|other| other.conn)
            .collect();
        for double in doubles {
            self.abort(double, AbortReason::Replaced, "");
        }
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        session.phase = Phase::Open;
        session.credit = i64::from(hello.credit).min(i64::from(CREDIT_BYTES) * 4);
        session.digest_at = now.mono.after_ms(DIGEST_EVERY_MS);
        session.lanes = hello
            .lanes
            .iter()
            .copied()
            .filter(|lane| {
                let allows = self.policy.lane(*lane, device).allows();
                allows || bug::active(Bug::OfferSecureLane)
            })
            .collect();
        self.events.push_back(Event::Opened { conn, device });
        let known: Vec<_> = hello.roster;
        self.send_roster(conn, &known);
        let peer = self.peers.entry(device).or_default();
        peer.begin(now);
        if !self.confirm_by_digest(store, now, conn, hello.digest) {
            self.send_receipt(store, now, conn, true, false);
        }
        Ok(())
    }

    /// Shows a peer that this device is a member: with all records, or with the last of those on which its
    /// admission stands. In one message, since the peer decides on the first.
    pub(super) fn show_membership(&mut self, conn: ConnId) {
        let own = self.device();
        let mut records: Vec<RecordBytes> = self.roster.records_in_order().cloned().collect();
        let too_many = |records: &[RecordBytes]| {
            records.iter().map(|record| record.0.len()).sum::<usize>() > PROOF_BYTES_MAX
        };
        if too_many(&records)
            && let Some(member) = self.roster.members().get(&own)
        {
            records = self.roster.leading_to(member.admission).into_iter().cloned().collect();
        }
        let mut bytes = 0;
        let fits = |record: &&RecordBytes| {
            bytes += record.0.len();
            bytes <= PROOF_BYTES_MAX
        };
        let shown = records.iter().rev().take_while(fits).count();
        let shown = records.split_off(records.len() - shown);
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.send(&Message::Roster(shown));
        }
    }

    /// Sends the roster records that a peer with these heads lacks.
    pub(super) fn send_roster(&mut self, conn: ConnId, heads: &[RecordId]) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let lacking: Vec<_> = self.roster.missing_from(heads).into_iter().cloned().collect();
        for message in in_messages(&lacking) {
            session.send(&message);
        }
    }
}
