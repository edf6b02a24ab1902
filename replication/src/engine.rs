//! The engine: one node's whole conversation with its peers, as a state machine without I/O.
//!
//! # How to drive it
//!
//! 1. Feed what happened: [`Engine::handle_connected`], [`Engine::handle_frame`],
//!    [`Engine::handle_disconnected`], [`Engine::handle_blocked`], [`Engine::handle_timeout`], and
//!    local work: [`Engine::write`], [`Engine::revoke`] and so on. Several may be fed in a row; the
//!    store gathers them in one turn.
//! 2. Call [`Engine::commit`]. It makes the turn durable. When it fails, the node must stop.
//! 3. Drain [`Engine::poll_event`] and [`Engine::poll_transmit`]. Nothing is returned while a turn is
//!    open: *durable before told* holds by construction.
//! 4. Sleep until [`Engine::poll_timeout`], or until something happens.
//!
//! Time only moves forward between calls. Connection ids are the caller's and never reused. The
//! link under a connection authenticates the device at the other end and keeps order.

mod claims;
mod forks;
mod handshake;
pub(crate) mod held;
mod members;
mod receipts;
mod runs;
mod transmit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use srcos_lanes::bug::{self, Bug};
use srcos_lanes::error::{StoreError, WriteError};
use srcos_lanes::ids::{Author, DeviceId, MeshId, MonoMillis, Now, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::ReplicationPolicy;
use srcos_lanes::signature::Signer;
use srcos_lanes::store::{Op, Outcome, Run, Store};

use crate::peers::{self, Contact, LanePeer, LaneView, Peer};
use crate::roster::{MARKS_MAX, Roster, RosterError};
use crate::session::{CREDIT_BYTES, CREDIT_EVERY_BYTES, Phase, Session};
use crate::wire::{AbortReason, Message, Receipt, is_packed};
use claims::Claims;
pub use claims::{CLAIM_JOURNALS_MAX, RENEW_WAIT_MS_MAX};
use held::Held;

pub use forks::FORKS_SHOWN_MAX;

/// Time for a peer to say hello or prove its membership, in milliseconds.
pub const HANDSHAKE_MS: u64 = 10_000;
/// Time for which receipts gather before one is sent, in milliseconds: one answers many runs.
pub const RECEIPT_DELAY_MS: u64 = 50;
/// The same on a slow link, which receipts must not fill.
pub const RECEIPT_DELAY_SLOW_MS: u64 = 250;
/// Receipt delays for which an entry of another device waits before it is relayed to a peer: one for the
/// peer to say that it has it from elsewhere, and one for that to come here.
pub const RELAY_DELAYS: u64 = 2;
/// Longest wait before an entry is relayed, in milliseconds, however late a peer gives credit.
pub const RELAY_WAIT_MS_MAX: u64 = 2_000;
/// Time for which what a device writes is relayed at once to a peer that had it from nobody else, in
/// milliseconds: a chain of devices is as fast as one link.
pub const RELAY_AT_ONCE_MS: u64 = 60_000;
/// Receipt delays after which a peer is told of what was written here, if by then it did not say that it
/// holds it: what it took in as a run, it knows.
pub const OWN_RECEIPT_DELAYS: u64 = 3;
/// Time between digests on a quiet connection, in milliseconds.
pub const DIGEST_EVERY_MS: u64 = 30_000;
/// Time after which a connected peer that said nothing of its lanes is not known to be in step any more,
/// in milliseconds: three digests are missing.
pub const SILENCE_MS_MAX: u64 = 3 * DIGEST_EVERY_MS;
/// Least time between two requests to send again, in milliseconds.
pub const RESET_EVERY_MS: u64 = 1_000;
/// Least time between two incarnations that one peer makes this device begin by its word alone, in
/// milliseconds: it may lie about what it holds of our journal. It doubles with each claim that is
/// not proven, up to [`RENEW_WAIT_MS_MAX`]. An entry that this device signed is proof, and is believed
/// at once.
pub const RENEW_EVERY_MS: u64 = 600_000;
/// Journals that a receipt names in one lane, at most: as many as a large mesh has. Where more are held
/// the latest of each device are named, and such a receipt of all lanes fits into one message.
pub const RECEIPT_AUTHORS_MAX: usize = 4_096;
/// Time for which what peers said may stay unwritten, in milliseconds.
pub const PEERS_SAVE_MS: u64 = 30_000;
/// Bytes of roster records that a revoked device is shown when it is turned away, at most: those of a
/// large household over years. Beyond that it is told in one word only, since it may come often.
pub const REVOKED_TOLD_BYTES_MAX: usize = 128 * 1024;
/// Waiting entries that one turn applies, at most, so that a turn stays short.
pub const ADVANCE_ENTRIES_MAX: usize = 256;
/// Expired objects that one turn removes, at most.
pub const EXPIRE_OBJECTS_MAX: usize = 256;
/// Events that wait to be polled, at most; beyond that the oldest refusals go.
pub const EVENTS_MAX: usize = 1_024;

/// A connection, named by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// Something that the caller should know or do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The peer is a member and said hello: the connection is worth keeping.
    Opened {
        /// The connection.
        conn: ConnId,
        /// The peer.
        device: DeviceId,
    },
    /// Close this connection, after what was queued for it.
    Close {
        /// The connection.
        conn: ConnId,
        /// The peer.
        device: DeviceId,
        /// Why.
        reason: AbortReason,
        /// More about it.
        detail: String,
        /// The peer decided it.
        by_peer: bool,
    },
    /// Entries were refused; nothing of them was kept.
    Refused {
        /// Who sent them.
        from: DeviceId,
        /// Their lane.
        lane: LaneId,
        /// Their author.
        author: Author,
        /// The stable code of the reason.
        code: &'static str,
        /// The reason in words.
        why: String,
    },
    /// An author signed two histories; its journal is quarantined and the proof is kept.
    Equivocation {
        /// The lane.
        lane: LaneId,
        /// The author.
        author: Author,
        /// The first place that differs.
        seq: u64,
    },
    /// Entries are damaged here, so they cannot be sent on. Told once of a journal.
    Unreadable {
        /// The lane.
        lane: LaneId,
        /// The author.
        author: Author,
        /// Where the damage is.
        why: String,
    },
    /// A peer held more of our own journal than we did: a new incarnation has started.
    IncarnationStarted {
        /// Who told us.
        told_by: DeviceId,
    },
    /// The members of the mesh changed.
    RosterChanged,
    /// All shared lanes of a peer were proven equal to ours.
    InSync {
        /// The peer.
        device: DeviceId,
    },
    /// Changes were applied: the feed reaches to here.
    Applied {
        /// Number of the next feed row.
        feed_next: u64,
    },
}

/// What an engine starts from.
pub struct EngineConfig {
    /// The device's key.
    pub signer: Box<dyn Signer + Send>,
    /// What may go to whom.
    pub policy: ReplicationPolicy,
    /// Seed of the engine's own random choices.
    pub seed: [u8; 32],
}

/// One node's conversation with its peers.
pub struct Engine {
    signer: Box<dyn Signer + Send>,
    policy: ReplicationPolicy,
    seed: [u8; 32],
    draws: u64,
    roster: Roster,
    peers: BTreeMap<DeviceId, Peer>,
    sessions: BTreeMap<ConnId, Session>,
    held: Held,
    /// Sessions that ended, with the last frames for their links.
    closing: VecDeque<(ConnId, Session)>,
    events: VecDeque<Event>,
    /// Journals that became longer in this turn, by what peers sent.
    taken_in: BTreeSet<(LaneId, Author)>,
    /// Journals of which a damaged entry was found.
    unreadable: BTreeSet<(LaneId, Author)>,
    /// The connection that the last frame was for.
    served_last: Option<ConnId>,
    waiting: bool,
    peers_save_at: Option<MonoMillis>,
    expiry_at: Option<WallMillis>,
    expiry_known: bool,
    feed_told: u64,
    claims: Claims,
    /// The receipt that was signed last, and for which mesh: others get the same.
    signed_last: Option<(MeshId, Receipt)>,
    /// The time that was told last: of a turn, when what follows from it is sent.
    told_time: Now,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("device", &self.signer.device())
            .field("roster", &self.roster)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

/// The engine cannot start from this store.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The roster in the store is not whole.
    #[error("the roster in the store cannot be read: {0}; restore a backup or pair anew")]
    Roster(#[from] RosterError),
}

/// A change of the mesh is refused.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// By the rules of the roster.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// By the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// This device does not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The records do not admit it.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// They cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds could not come along.
    #[error(transparent)]
    Bound(#[from] Bound),
}

/// Why a store cannot leave its mesh for another one: no device there would take what it holds, nor
/// anything that builds on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bound {
    /// This device is a member, and so are others.
    #[error("this device is in a mesh of {members} devices, and can be in one only")]
    Member {
        /// Members, this device among them.
        members: usize,
    },
    /// Other devices' journals are held.
    #[error("its store holds what {devices} other devices of its mesh wrote")]
    Others {
        /// How many devices.
        devices: usize,
    },
    /// Entries of this device name a mesh that it did not bring along.
    #[error("what this device wrote belongs to the mesh that it was in")]
    Own,
}

impl Engine {
    /// An engine over a store that has a mesh.
    pub fn new(config: EngineConfig, store: &mut Store) -> Result<Self, StartError> {
        let snapshot = store.reader().snapshot()?;
        let roster = Roster::from_records(snapshot.roster_records()?)?;
        let mut engine = Self {
            signer: config.signer,
            policy: config.policy,
            seed: config.seed,
            draws: 0,
            roster,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            held: Held::default(),
            closing: VecDeque::new(),
            events: VecDeque::new(),
            taken_in: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            served_last: None,
            waiting: false,
            peers_save_at: None,
            expiry_at: None,
            expiry_known: false,
            feed_told: store.feed_next(),
            claims: Claims::default(),
            signed_last: None,
            told_time: Now { mono: MonoMillis(0), wall: WallMillis(0) },
        };
        for device in engine.other_members().collect::<Vec<_>>() {
            let peer = Peer::load(&snapshot, device)?;
            engine.peers.insert(device, peer);
            engine.claims.load(&snapshot, device)?;
        }
        engine.bar_void(store, engine.told_time);
        engine.waiting = LaneId::ALL.into_iter().any(|lane| store.waits(lane));
        Ok(engine)
    }

    /// The roster.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The policy in force.
    pub fn policy(&self) -> &ReplicationPolicy {
        &self.policy
    }

    /// The device whose node this is.
    pub fn device(&self) -> DeviceId {
        self.signer.device()
    }

    /// Whether a device has a connection on which both said hello.
    pub fn is_connected(&self, device: DeviceId) -> bool {
        self.sessions.values().any(|session| session.device == device && session.is_open())
    }

    /// Bytes of frames that wait until the link of a connection takes them.
    pub fn queued_bytes(&self, conn: ConnId) -> usize {
        self.sessions.get(&conn).map_or(0, Session::outbox_bytes)
    }

    /// When a device was last connected, by our clock.
    pub fn seen_at(&self, device: DeviceId) -> Option<WallMillis> {
        self.peers.get(&device)?.seen_at
    }

    /// How each other member stands to us in a lane, at the time that the engine was told last.
    pub fn lane_peers(&self, store: &Store, lane: LaneId) -> Vec<LanePeer> {
        self.lane_peers_at(store, lane, self.told_time)
    }

    /// How each other member stands to us in a lane, now.
    pub fn lane_peers_at(&self, store: &Store, lane: LaneId, now: Now) -> Vec<LanePeer> {
        let ours = store.frontier(lane);
        let known = self.peers.iter().filter(|(device, _)| self.roster.is_member(**device));
        known
            .map(|(device, peer)| {
                let contact = match self.is_connected(*device) {
                    false => Contact::None,
                    true if peer.is_silent(now) => Contact::Silent,
                    true => Contact::Live,
                };
                peer.stands(*device, lane, &ours, &self.policy, contact)
            })
            .collect()
    }

    // ---- what the world did ----

    /// A connection to an authenticated device is up.
    pub fn handle_connected(&mut self, store: &Store, now: Now, conn: ConnId, device: DeviceId) {
        let deadline = now.mono.after_ms(HANDSHAKE_MS);
        if device == self.device() {
            self.events.push_back(Event::Close {
                conn,
                device,
                reason: AbortReason::NotAMember,
                detail: "this is the node itself".into(),
                by_peer: false,
            });
            return;
        }
        let phase = if self.roster.is_member(device) {
            Phase::Greeting { deadline }
        } else {
            Phase::Stranger { deadline, hello: None }
        };
        let greets = matches!(phase, Phase::Greeting { .. });
        self.sessions.insert(conn, Session::new(conn, self.device(), device, phase, now.mono));
        if greets {
            self.say_hello(store, conn);
        }
    }

    /// A connection is gone.
    pub fn handle_disconnected(&mut self, now: Now, conn: ConnId) {
        self.told_time = now;
        if !bug::active(Bug::KeepSession) {
            self.end(conn);
        }
    }

    /// The link of a connection cannot take more frames, or can again.
    pub fn handle_blocked(&mut self, conn: ConnId, blocked: bool) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.blocked = blocked;
        }
    }

    /// A frame came.
    pub fn handle_frame(
        &mut self,
        store: &mut Store,
        now: Now,
        conn: ConnId,
        frame: &[u8],
    ) -> Result<(), StoreError> {
        self.told_time = now;
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        if is_packed(frame) && !session.is_open() {
            self.abort(conn, AbortReason::Protocol, "a run came before both said hello");
            return Ok(());
        }
        let message = match session.assembler.push(frame) {
            Ok(None) => return Ok(()),
            Ok(Some(message)) => message,
            Err(error) => {
                self.abort(conn, AbortReason::Protocol, error.0);
                return Ok(());
            }
        };
        match Message::decode(&message) {
            Ok(decoded) => self.handle_message(store, now, conn, decoded, message.len()),
            Err(error) => {
                self.abort(conn, AbortReason::Protocol, error.0);
                Ok(())
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, store: &mut Store, now: Now) -> Result<(), StoreError> {
        self.told_time = now;
        let conns: Vec<ConnId> = self.sessions.keys().copied().collect();
        for conn in conns {
            self.session_timeout(store, now, conn);
        }
        if self.waiting {
            self.advance(store, now)?;
        }
        if !self.expiry_known {
            self.expiry_at = store.next_expiry()?;
            self.expiry_known = true;
        }
        if self.expiry_at.is_some_and(|at| at <= now.wall) {
            store.expire(now.wall, EXPIRE_OBJECTS_MAX)?;
            self.expiry_known = false;
        }
        if self.peers_save_at.is_some_and(|at| at <= now.mono) {
            self.save_peers(store)?;
        }
        Ok(())
    }

    // ---- local work ----

    /// Performs operations on a lane; see [`Store::write`].
    pub fn write(
        &mut self,
        store: &mut Store,
        now: Now,
        lane: LaneId,
        ops: &[Op],
    ) -> Result<Vec<Outcome>, WriteError> {
        // What is added to a journal with two histories reaches nobody.
        if store.journal(lane, &store.author()).is_some_and(|row| row.forked) {
            self.renew(store, self.device())?;
        }
        let outcomes = store.write(lane, ops, now, &*self.signer)?;
        if lane.definition().ttl.is_some() {
            self.expiry_known = false;
        }
        // A peer's entry may have waited for one of ours.
        self.waiting |= store.waits(lane);
        Ok(outcomes)
    }

    /// Admits a device to the mesh.
    pub fn admit(
        &mut self,
        store: &mut Store,
        now: Now,
        device: DeviceId,
        name: &str,
        prior_mesh: Option<MeshId>,
    ) -> Result<(), MeshError> {
        let record = self.roster.admit(device, name, prior_mesh, now.wall, &*self.signer)?;
        self.add_own_record(store, now, &record.0)
    }

    /// Puts a device out of the mesh: what it wrote up to what is held here stays, no more is taken.
    pub fn revoke(
        &mut self,
        store: &mut Store,
        now: Now,
        device: DeviceId,
        reason: &str,
    ) -> Result<(), MeshError> {
        // What one record cannot name is testified to next.
        let mut marks = members::journal_marks(store, device);
        marks.truncate(MARKS_MAX);
        let record = self.roster.revoke(device, reason, marks, now.wall, &*self.signer)?;
        self.add_own_record(store, now, &record.0)
    }

    /// Names a device anew.
    pub fn rename(
        &mut self,
        store: &mut Store,
        now: Now,
        device: DeviceId,
        name: &str,
    ) -> Result<(), MeshError> {
        let record = self.roster.rename(device, name, now.wall, &*self.signer)?;
        self.add_own_record(store, now, &record.0)
    }

    /// Moves to another mesh, whose records admit this device, and ends all connections. Into its own
    /// mesh it comes back with the records that take it in again.
    pub fn join(
        &mut self,
        store: &mut Store,
        now: Now,
        records: &[Vec<u8>],
    ) -> Result<(), JoinError> {
        let roster = Roster::from_records(records)?;
        if roster.mesh() == self.roster.mesh() {
            return self.rejoin(store, now, records);
        }
        if let Some(bound) = self.bound(store) {
            return Err(bound.into());
        }
        store.set_mesh(roster.mesh())?;
        store.replace_roster(records)?;
        self.roster = roster;
        self.bar_void(store, now);
        for conn in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.abort(conn, AbortReason::OtherMesh, "this device joined another mesh");
        }
        self.peers = self.other_members().map(|device| (device, Peer::default())).collect();
        self.events.push_back(Event::RosterChanged);
        Ok(())
    }

    /// Tells every peer that the node stops.
    pub fn shut_down(&mut self, store: &mut Store) -> Result<(), StoreError> {
        for conn in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.abort(conn, AbortReason::ShuttingDown, "");
        }
        // The times of the last proofs too.
        self.peers.values_mut().for_each(|peer| peer.unsaved = true);
        self.save_peers(store)
    }

    /// Puts another policy in force, at once and without a restart. Every connection to a device for which
    /// it decides otherwise ends: what was queued on it was read under the old policy and is dropped, and the
    /// caller, who is told by [`Event::Close`], connects again. What was polled before is on its way.
    pub fn set_policy(&mut self, policy: ReplicationPolicy) {
        let before = std::mem::replace(&mut self.policy, policy);
        if bug::active(Bug::KeepOffers) {
            return;
        }
        let changed = |device| !self.policy.treats_alike(&before, device);
        for (_, session) in self.closing.iter_mut().filter(|(_, s)| changed(s.device)) {
            session.forget_outbox();
        }
        let conns = self.sessions.values().filter(|session| changed(session.device));
        for conn in conns.map(|session| session.conn).collect::<Vec<_>>() {
            self.sessions.get_mut(&conn).into_iter().for_each(Session::forget_outbox);
            self.abort(conn, AbortReason::PolicyChanged, "");
        }
    }

    // ---- what the caller must do ----

    /// When [`Engine::handle_timeout`] is due next. Wall clock times are given as if the clocks
    /// moved alike from `now` on.
    pub fn poll_timeout(&self, now: Now) -> Option<MonoMillis> {
        let mut next = self.peers_save_at;
        let mut consider = |at: MonoMillis| next = Some(next.map_or(at, |next| next.min(at)));
        if self.waiting || !self.expiry_known {
            consider(now.mono);
        }
        if let Some(at) = self.expiry_at.filter(|_| self.expiry_known) {
            consider(now.mono.after_ms(at.0.saturating_sub(now.wall.0)));
        }
        for session in self.sessions.values() {
            match &session.phase {
                Phase::Stranger { deadline, .. } | Phase::Greeting { deadline } => {
                    consider(*deadline);
                }
                Phase::Open => {
                    consider(session.digest_at);
                    session.receipt_at.into_iter().for_each(&mut consider);
                    session.relay_at().into_iter().for_each(&mut consider);
                }
            }
        }
        next
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // ---- the rest ----

    fn handle_message(
        &mut self,
        store: &mut Store,
        now: Now,
        conn: ConnId,
        message: Message<'_>,
        len: usize,
    ) -> Result<(), StoreError> {
        let Some(session) = self.sessions.get_mut(&conn) else { return Ok(()) };
        let device = session.device;
        match (&mut session.phase, message) {
            (_, Message::Abort { reason, detail }) => {
                self.end(conn);
                self.events.push_back(Event::Close { conn, device, reason, detail, by_peer: true });
            }
            (Phase::Stranger { hello, .. }, Message::Hello(theirs)) if hello.is_none() => {
                *hello = Some(theirs);
                session.send(&Message::ProofNeeded);
            }
            (Phase::Stranger { .. }, Message::Roster(records)) => {
                let records: Vec<_> = records.into_iter().map(|record| record.0).collect();
                self.prove(store, now, conn, &records)?;
            }
            // Neither knows the other: there is nothing to say.
            (Phase::Stranger { .. }, Message::ProofNeeded) => {}
            (Phase::Greeting { .. }, Message::ProofNeeded) if !session.proved => {
                session.proved = true;
                self.show_membership(conn);
            }
            (Phase::Greeting { .. }, Message::Hello(hello)) => {
                self.open(store, now, conn, hello)?;
            }
            (Phase::Greeting { .. } | Phase::Open, Message::Roster(records)) => {
                let records = records.iter().map(|record| record.0.as_slice());
                self.take_records(store, now, records)?;
            }
            (Phase::Open, Message::Receipt(receipt)) => {
                self.handle_receipt(store, now, conn, receipt)?;
            }
            (Phase::Open, Message::Run { lane, author, whole, entries }) => {
                session.granted -= len as i64;
                if session.granted < -(crate::wire::MESSAGE_BYTES_MAX as i64) {
                    self.abort(conn, AbortReason::CreditExceeded, "");
                    return Ok(());
                }
                session.consumed = session.consumed.saturating_add(len as u32);
                if session.consumed >= CREDIT_EVERY_BYTES {
                    session.give_credit();
                } else {
                    session.receipt_soon(now.mono);
                }
                let run = Run { lane, author, entries };
                self.handle_run(store, now, conn, &run, whole)?;
            }
            (Phase::Open, Message::Credit(credit)) => {
                // A peer that gives more than it takes harms itself only, up to this bound.
                let most = i64::from(CREDIT_BYTES) * 4;
                session.credit = (session.credit + i64::from(credit)).min(most);
                session.window.acknowledged(credit, now.mono);
            }
            (Phase::Open, Message::Digest(digest)) => {
                self.handle_digest(store, now, conn, digest);
            }
            _ => self.abort(conn, AbortReason::Protocol, "a message came where it does not belong"),
        }
        Ok(())
    }

    fn session_timeout(&mut self, store: &Store, now: Now, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        match &session.phase {
            Phase::Stranger { deadline, .. } if *deadline <= now.mono => self.dismiss(conn),
            Phase::Greeting { deadline } if *deadline <= now.mono => {
                self.abort(conn, AbortReason::HandshakeTimeout, "");
            }
            Phase::Open => {
                if session.receipt_at.is_some_and(|at| at <= now.mono) {
                    self.send_receipt(store, now, conn, false, false);
                }
                let Some(session) = self.sessions.get_mut(&conn) else { return };
                session.relay_what_waited(now.mono, |lane, author| {
                    store.journal(lane, author).map_or(0, |row| row.held)
                });
                if session.digest_at <= now.mono {
                    session.digest_at = now.mono.after_ms(DIGEST_EVERY_MS);
                    // Where it is equal the peer takes it for what was said: so what is due is said first.
                    if session.receipt_at.is_some() {
                        self.send_receipt(store, now, conn, false, false);
                    }
                    let Some(session) = self.sessions.get_mut(&conn) else { return };
                    let digest = self.held.digest(store, &session.lanes);
                    session.send(&Message::Digest(digest));
                }
            }
            _ => {}
        }
    }

    /// A connection is over: its device was seen until now.
    fn end(&mut self, conn: ConnId) -> Option<Session> {
        let session = self.sessions.remove(&conn)?;
        if let Some(peer) = self.peers.get_mut(&session.device)
            && session.is_open()
        {
            peer.seen_at = Some(self.told_time.wall);
            peer.unsaved = true;
            self.save_peers_soon(self.told_time.mono);
        }
        Some(session)
    }

    /// Ends a connection: tells the peer why, and the caller to close it.
    fn abort(&mut self, conn: ConnId, reason: AbortReason, detail: &str) {
        let Some(mut session) = self.end(conn) else { return };
        if !session.is_cut_short() {
            session.send(&Message::Abort { reason, detail: detail.to_owned() });
        }
        let device = session.device;
        // The frame travels with the event: nothing else may follow it.
        self.closing.push_back((conn, session));
        self.events.push_back(Event::Close {
            conn,
            device,
            reason,
            detail: detail.to_owned(),
            by_peer: false,
        });
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            let old = self
                .events
                .iter()
                .position(|event| matches!(event, Event::Refused { .. } | Event::InSync { .. }));
            match old {
                Some(old) => drop(self.events.remove(old)),
                None => return,
            }
        }
        self.events.push_back(event);
    }

    fn save_peers_soon(&mut self, now: MonoMillis) {
        if self.peers.values().all(|peer| !peer.unsaved) {
            return;
        }
        self.peers_save_at.get_or_insert(now.after_ms(PEERS_SAVE_MS));
    }

    fn save_peers(&mut self, store: &mut Store) -> Result<(), StoreError> {
        self.peers_save_at = None;
        for (device, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.unsaved) {
            let views: (Option<WallMillis>, &BTreeMap<LaneId, LaneView>) =
                (peer.seen_at, &peer.lanes);
            // Encoding plain data into a Vec has no way to fail.
            let bytes = postcard::to_stdvec(&views).expect("views encode");
            store.put_peer_fact(*device, peers::FACT, &bytes)?;
            peer.unsaved = false;
        }
        Ok(())
    }

    /// The next random number.
    fn draw(&mut self) -> u32 {
        self.draws += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&self.draws.to_be_bytes());
        let bytes = hasher.finalize();
        let mut four = [0; 4];
        four.copy_from_slice(&bytes.as_bytes()[..4]);
        u32::from_be_bytes(four)
    }
}

#[cfg(test)]
mod tests;
