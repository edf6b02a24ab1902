//! Pairing as the daemon does it: streams of the transport on one side, the state machines of
//! inviter and joiner on the other.

mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use libp2p::Multiaddr;
use srcos_lanes::ids::{DeviceId, MonoMillis, Now};
use srcos_replication::dialer::Source;
use srcos_replication::engine::Bound;
use srcos_replication::pairing::{
    Code, Inviter, InviterEvent, JoinRequest, Joiner, JoinerEvent, Refusal, Secret, Stream,
};
use srcos_replication::roster::RecordBytes;
use srcos_replication::ticket::{ADDRESSES_MAX, Ticket};
use srcos_schemas::peers::{InviteDocument, InviteStatus, JoinDocument, JoinStatus, JoinedDevice};
use tokio::sync::mpsc;

use self::streams::Streams;
pub use self::streams::{FIRST_FRAME_MS_MAX, STREAMS_MAX};
use crate::api::{ApiError, ErrorKind};
use crate::core::{Core, names};
use crate::data_dir::internal;
use crate::diagnosis;
use crate::discovery::Candidate;
use crate::documents::time;
use crate::keys::random;
use crate::runtime::{bare, peer_device};
use crate::transport::{self, Attempt, DialErrorKind, Transport};

/// How long a joiner looks for the inviter, in milliseconds: devices announce themselves within
/// seconds, and a person waits.
pub const JOIN_MS_MAX: u64 = 60_000;
/// Addresses that one attempt to join tries, at most.
pub const JOIN_ADDRESSES_MAX: usize = 64;
/// Time after which the next address is tried as well, in milliseconds: on one network an answer takes
/// a few, and an address that leads nowhere takes many seconds to say so (RFC 8305 has the same figure).
pub const JOIN_STAGGER_MS: u64 = 250;
/// How long an invitation that somebody waits for stays open after the last word from who waits, in
/// milliseconds: they ask several times a second, and a busy machine may be slow.
pub const INVITE_WATCH_MS: u64 = 10_000;
/// Addresses that are tried at the same time, at most.
const JOIN_ATTEMPTS_MAX: usize = 8;
/// Time after which an address that led nowhere is tried again, in milliseconds: others may have taken
/// all places of the inviter, and a person waits.
pub const JOIN_AGAIN_MS: u64 = 1_000;

/// What a pairing stream brought.
#[derive(Debug)]
pub struct PairingInput {
    stream: Stream,
    /// `None` when it has ended.
    frame: Option<bytes::Bytes>,
}

/// The invitation that is open, and the attempt to join that is under way.
pub struct Pairings {
    transport: Transport,
    streams: Streams,
    invite: Option<Invite>,
    join: Option<Join>,
    /// Attempts to join so far, by which the next is numbered.
    joins: u64,
    learned: Vec<(DeviceId, Vec<(String, Source)>)>,
}

struct Invite {
    id: String,
    inviter: Inviter,
    status: InviteStatus,
    /// When it is taken back, unless who waits for it asks again.
    watched: Option<MonoMillis>,
    /// An exchange came to nothing already, and it was said.
    failed: bool,
}

impl Invite {
    fn cancel(&mut self) {
        if self.status == InviteStatus::Waiting {
            self.inviter.cancel();
            self.status = InviteStatus::Cancelled;
        }
    }

    /// When it is taken back because nobody waits for it any more.
    fn forsaken_at(&self) -> Option<MonoMillis> {
        self.watched.filter(|_| self.status == InviteStatus::Waiting)
    }
}

struct Join {
    id: String,
    /// Which attempt of this process it is: what comes late for another one is not taken for it.
    number: u64,
    secret: JoinSecret,
    status: JoinStatus,
    waiting: VecDeque<Multiaddr>,
    /// Addresses that led nowhere, and when each is tried again.
    again: VecDeque<(MonoMillis, Multiaddr)>,
    tried: BTreeSet<Multiaddr>,
    /// Addresses that are being tried now.
    opening: usize,
    /// When the next one may be tried beside them.
    next_attempt: MonoMillis,
    deadline: MonoMillis,
    /// A person said where the inviter is, or the ticket did: nobody else is looked for after it.
    told_where: bool,
    last_error: Option<String>,
    /// The exchange under way, and the address at which it is.
    joiner: Option<(Stream, Joiner, Multiaddr)>,
}

enum JoinSecret {
    Code(Code),
    Ticket(Ticket),
}

impl Join {
    fn is_over(&self) -> bool {
        matches!(self.status, JoinStatus::Joined { .. } | JoinStatus::Failed { .. })
    }

    /// An address to try, once.
    fn add(&mut self, addr: &Multiaddr) {
        let addr = bare(addr);
        if self.tried.len() < JOIN_ADDRESSES_MAX && self.tried.insert(addr.clone()) {
            self.waiting.push_back(addr);
        }
    }

    fn fail(&mut self, code: &'static str, message: String, hint: &str) {
        let error = ApiError::new(ErrorKind::Unavailable, code, message, hint);
        self.status = JoinStatus::Failed { error: error.body() };
        self.joiner = None;
        self.opening = 0;
        self.waiting.clear();
        self.again.clear();
    }

    /// Tries an address again after a while.
    fn try_again(&mut self, now: Now, addr: Multiaddr) {
        self.again.push_back((now.mono.after_ms(JOIN_AGAIN_MS), addr));
    }

    /// Takes up the addresses whose time to be tried again has come.
    fn take_up(&mut self, now: Now) {
        // All wait for the same time, so they are in the order of their times.
        while self.again.front().is_some_and(|(due, _)| *due <= now.mono) {
            self.waiting.extend(self.again.pop_front().map(|(_, addr)| addr));
        }
    }

    /// Whether there is an address that could be tried, now or soon.
    fn may_try(&self) -> bool {
        self.joiner.is_none() && !self.waiting.is_empty() && self.opening < JOIN_ATTEMPTS_MAX
    }

    fn device(&self) -> Option<DeviceId> {
        match &self.secret {
            JoinSecret::Ticket(ticket) => Some(ticket.inviter),
            JoinSecret::Code(_) => None,
        }
    }

    fn matches(&self, candidate: &Candidate) -> bool {
        match &self.secret {
            JoinSecret::Code(code) => {
                candidate.nameplate.as_deref() == Some(code.nameplate().to_string().as_str())
            }
            JoinSecret::Ticket(ticket) => candidate.tag.find([&ticket.inviter]).is_some(),
        }
    }
}

impl Pairings {
    /// None yet. Must be called inside the tokio runtime.
    pub fn new(transport: Transport, inputs: mpsc::Sender<PairingInput>) -> Self {
        Self {
            transport,
            streams: Streams::new(inputs),
            invite: None,
            join: None,
            joins: 0,
            learned: Vec::new(),
        }
    }

    /// Whether strangers may open pairing streams.
    pub fn is_open(&self) -> bool {
        self.invite.as_ref().is_some_and(|invite| invite.status == InviteStatus::Waiting)
    }

    /// The public number of the open invitation.
    pub fn nameplate(&self) -> Option<String> {
        let open = self.invite.as_ref().filter(|_| self.is_open());
        open.map(|invite| invite.inviter.code().nameplate().to_string())
    }

    /// Opens an invitation; one that was open is withdrawn. One that is `watched` ends when nobody
    /// asks after it any more.
    pub fn invite(
        &mut self,
        core: &Core,
        now: Now,
        ttl_ms: Option<u64>,
        watched: bool,
        listen: Vec<String>,
    ) -> Result<InviteDocument, ApiError> {
        let seed = random().map_err(internal)?;
        let mesh = core.engine.roster().mesh();
        let me = core.key.device();
        if let Some(out) = diagnosis::of_membership(core.engine.roster(), me) {
            let message = format!("nobody can be invited from here: {}", out.message);
            return Err(ApiError::new(ErrorKind::Refused, "device_revoked", message, out.hint));
        }
        let addresses = useful(listen);
        let inviter = Inviter::open(now, me, mesh, ttl_ms, addresses, seed).map_err(|error| {
            let hint = "ask for 1 s to 1 h, or leave the time out";
            ApiError::new(ErrorKind::BadInput, "invite_refused", error.to_string(), hint)
        })?;
        let id = data_encoding::HEXLOWER.encode(&random::<8>().map_err(internal)?);
        let document = InviteDocument {
            id: id.clone(),
            code: inviter.code().to_string(),
            ticket: inviter.ticket().to_text(),
            expires_at: time(inviter.ticket().expires_at),
        };
        let watched = watched.then(|| now.mono.after_ms(INVITE_WATCH_MS));
        let (status, failed) = (InviteStatus::Waiting, false);
        self.invite = Some(Invite { id, inviter, status, watched, failed });
        Ok(document)
    }

    /// How far an invitation has come. Who asks is there, and waits for it.
    pub fn invite_status(&mut self, now: Now, id: &str) -> Result<InviteStatus, ApiError> {
        let invite = self.invite.as_mut().filter(|invite| invite.id == id);
        let invite = invite.ok_or_else(|| unknown("invitation", id))?;
        invite.watched = invite.watched.map(|_| now.mono.after_ms(INVITE_WATCH_MS));
        Ok(invite.status.clone())
    }

    /// Takes an invitation back.
    pub fn cancel(&mut self, id: &str) -> Result<InviteStatus, ApiError> {
        let invite = self.invite.as_mut().filter(|invite| invite.id == id);
        let invite = invite.ok_or_else(|| unknown("invitation", id))?;
        invite.cancel();
        Ok(invite.status.clone())
    }

    /// Starts to join. `seen` are the devices that announced themselves on the local network; nothing
    /// where nobody listens for them.
    pub fn join(
        &mut self,
        core: &Core,
        now: Now,
        text: &str,
        addrs: &[String],
        seen: Option<&[Candidate]>,
    ) -> Result<JoinDocument, ApiError> {
        if self.join.as_ref().is_some_and(|join| !join.is_over()) {
            return Err(ApiError::new(
                ErrorKind::Busy,
                "joining_already",
                "this device is joining already",
                "wait until that attempt has ended",
            ));
        }
        let secret = read_secret(text)?;
        // What the store holds has no place in another mesh; back into its own, only a ticket leads,
        // which says of which mesh it is.
        let mesh = core.engine.roster().mesh();
        let returns = matches!(&secret, JoinSecret::Ticket(ticket) if ticket.mesh == mesh);
        let bound = core.engine.bound(&core.store).filter(|_| !returns);
        if let Some(bound) = bound {
            return Err(bound_error(bound));
        }
        self.joins += 1;
        let mut join = Join {
            number: self.joins,
            id: data_encoding::HEXLOWER.encode(&random::<8>().map_err(internal)?),
            secret,
            status: JoinStatus::Searching,
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            tried: BTreeSet::new(),
            opening: 0,
            next_attempt: now.mono,
            deadline: now.mono.after_ms(JOIN_MS_MAX),
            told_where: !addrs.is_empty(),
            last_error: None,
            joiner: None,
        };
        for addr in addrs {
            let addr: Multiaddr = addr.parse().map_err(|error| {
                ApiError::new(
                    ErrorKind::BadInput,
                    "address_malformed",
                    format!("{addr:?} is no multiaddress: {error}"),
                    "write it like /ip4/192.0.2.7/udp/4001/quic-v1",
                )
            })?;
            join.add(&addr);
        }
        if let JoinSecret::Ticket(ticket) = &join.secret {
            let addresses: Vec<Multiaddr> =
                ticket.addresses.iter().filter_map(|addr| addr.parse().ok()).collect();
            join.told_where |= !addresses.is_empty();
            addresses.iter().for_each(|addr| join.add(addr));
        }
        for candidate in seen.into_iter().flatten() {
            if join.matches(candidate) {
                candidate.addrs.iter().for_each(|addr| join.add(addr));
            }
        }
        if seen.is_none() && join.waiting.is_empty() {
            return Err(ApiError::new(
                ErrorKind::BadInput,
                "inviter_nowhere_to_look",
                "this daemon looks for nobody on the local network (--no-mdns), and nothing says where \
                 the inviting device is",
                "give its address with --addr, or use a ticket, which names it",
            ));
        }
        let document = JoinDocument { id: join.id.clone(), status: join.status.clone() };
        self.join = Some(join);
        Ok(document)
    }

    /// How far joining has come.
    pub fn join_status(&self, id: &str) -> Result<JoinDocument, ApiError> {
        let join = self.join.as_ref().filter(|join| join.id == id);
        let join = join.ok_or_else(|| unknown("attempt to join", id))?;
        Ok(JoinDocument { id: join.id.clone(), status: join.status.clone() })
    }

    /// A device was discovered; it may be the one that we want to join.
    pub fn seen(&mut self, _now: Now, candidate: &Candidate) {
        if let Some(join) = self.join.as_mut().filter(|join| !join.is_over())
            && join.matches(candidate)
        {
            candidate.addrs.iter().for_each(|addr| join.add(addr));
        }
    }

    /// A pairing stream is open.
    pub fn opened(&mut self, core: &Core, now: Now, pairing: transport::Pairing) {
        let (attempt, addr) = (pairing.attempt, pairing.addr.clone());
        let (stream, closed) = self.streams.open(now, pairing, self.proven());
        if let (Some(closed), Some(invite)) = (closed, &mut self.invite) {
            invite.inviter.handle_disconnected(closed);
        }
        let Some(attempt) = attempt else { return };
        // The first stream is used; to open one costs the invite nothing.
        let wanted =
            |join: &&mut Join| join.number == attempt && !join.is_over() && join.joiner.is_none();
        let Some(join) = self.join.as_mut().filter(wanted) else {
            return self.streams.close(stream);
        };
        join.opening = join.opening.saturating_sub(1);
        join.status = JoinStatus::Connecting { address: addr.to_string() };
        let roster = core.engine.roster();
        let me = core.key.device();
        let request = JoinRequest {
            name: names(roster).get(&me).cloned().unwrap_or_else(|| me.short()),
            founding: roster.is_founder(me).then(|| roster.founding().clone()),
            addresses: useful(core.network.listen.iter().cloned().collect()),
        };
        let secret = match &join.secret {
            JoinSecret::Code(code) => Secret::Code(code.clone()),
            JoinSecret::Ticket(ticket) => Secret::Ticket(Box::new(ticket.clone())),
        };
        let bound = core.engine.bound(&core.store).map(|_| roster.mesh());
        let started = random().map_err(internal).and_then(|seed| {
            Joiner::start(now, me, stream, &secret, request, bound, seed).map_err(|error| {
                let hint = "use a new code from the other device";
                ApiError::new(ErrorKind::Refused, "join_refused", error.to_string(), hint)
            })
        });
        match started {
            Ok(joiner) => {
                join.status = JoinStatus::Authenticating;
                join.joiner = Some((stream, joiner, bare(&addr)));
            }
            Err(error) => join.fail("join_refused", error.message, &error.hint),
        }
    }

    /// A pairing stream that was asked for under a number could not be opened.
    pub fn not_opened(&mut self, now: Now, number: u64, attempt: &Attempt) {
        if let Some(join) = self.join.as_mut().filter(|join| join.number == number) {
            join.opening = join.opening.saturating_sub(1);
            join.next_attempt = now.mono;
            if join.is_over() || join.joiner.is_some() {
                return;
            }
            join.last_error = Some(format!("{}: {}", attempt.addr, attempt.error));
            if may_change(attempt.kind) && !attempt.addr.is_empty() {
                join.try_again(now, attempt.addr.clone());
            }
            // The right device, and its invitation is over: to wait would change nothing.
            let closed = attempt.kind == DialErrorKind::NotSpoken;
            if closed && join.told_where && join.waiting.is_empty() && join.opening == 0 {
                join.status = JoinStatus::Failed { error: invite_closed(attempt).body() };
            }
        }
    }

    /// A pairing stream brought something.
    pub fn handle(&mut self, now: Now, input: PairingInput) {
        let PairingInput { stream, frame } = input;
        // What comes over a stream that was closed here has nobody to answer it.
        if frame.is_some() && !self.streams.is_open(stream) {
            return;
        }
        if frame.is_none() {
            self.streams.close(stream);
        }
        if let Some(join) = &mut self.join
            && let Some((of, joiner, _)) = &mut join.joiner
            && *of == stream
        {
            match &frame {
                Some(frame) => joiner.handle_frame(now, frame),
                None => joiner.handle_disconnected(),
            }
            return;
        }
        if let Some(invite) = &mut self.invite {
            match &frame {
                Some(frame) => invite.inviter.handle_frame(now, stream, frame),
                None => invite.inviter.handle_disconnected(stream),
            }
            if invite.inviter.streams().any(|of| of == stream) {
                self.streams.keep(stream);
            }
        }
    }

    /// Moves everything on: timeouts, admissions, frames, the next address.
    pub fn step(&mut self, core: &mut Core, now: Now) -> Result<(), ApiError> {
        self.step_invite(core, now)?;
        self.step_join(core, now)?;
        self.streams.close_idle(now, &self.in_use());
        Ok(())
    }

    /// The streams over which an exchange goes on.
    fn in_use(&self) -> Vec<Stream> {
        let inviting = self.invite.as_ref().map(|invite| invite.inviter.streams());
        let joining = self.join.as_ref().filter(|join| !join.is_over());
        let joining = joining.and_then(|join| Some(join.joiner.as_ref()?.0));
        inviting.into_iter().flatten().chain(joining).collect()
    }

    /// The stream to the device that has shown that it knows the secret of the invitation.
    fn proven(&self) -> Option<Stream> {
        self.invite.as_ref()?.inviter.proven()
    }

    /// Addresses that devices told while pairing.
    pub fn take_addresses(&mut self) -> Vec<(DeviceId, Vec<(String, Source)>)> {
        std::mem::take(&mut self.learned)
    }

    /// When [`Pairings::step`] is due next.
    pub fn poll_timeout(&self) -> Option<MonoMillis> {
        let invite = self.invite.as_ref().filter(|_| self.is_open());
        let join = self.join.as_ref().filter(|join| !join.is_over());
        let joiner = join.and_then(|join| join.joiner.as_ref()?.1.poll_timeout());
        let due = [
            invite.and_then(|invite| invite.inviter.poll_timeout()),
            invite.and_then(Invite::forsaken_at),
            join.map(|join| join.deadline),
            join.filter(|join| join.may_try()).map(|join| join.next_attempt),
            join.and_then(|join| join.again.front()).map(|(due, _)| *due),
            joiner,
            self.streams.poll_timeout(&self.in_use()),
        ];
        due.into_iter().flatten().min()
    }

    fn step_invite(&mut self, core: &mut Core, now: Now) -> Result<(), ApiError> {
        let Some(invite) = &mut self.invite else { return Ok(()) };
        if invite.forsaken_at().is_some_and(|at| at <= now.mono) {
            tracing::info!("nobody waits for the invitation any more: it is taken back");
            invite.cancel();
        }
        invite.inviter.handle_timeout(now);
        while let Some(event) = invite.inviter.poll_event() {
            tracing::debug!(?event, "pairing");
            match event {
                InviterEvent::Admit { device, request, prior_mesh } => {
                    if !core.engine.roster().needs_admission(device, prior_mesh) {
                        // Durable before told: this turn may have brought records.
                        core.commit()?;
                        let records = records(core);
                        invite.inviter.admitted(now, &records);
                        continue;
                    }
                    let admitted =
                        core.engine.admit(&mut core.store, now, device, &request.name, prior_mesh);
                    match admitted {
                        Ok(()) => {
                            // Durable before told.
                            core.commit()?;
                            let said = request.addresses.iter();
                            let said = said.map(|addr| (addr.clone(), Source::Said)).collect();
                            self.learned.push((device, said));
                            let records = records(core);
                            invite.inviter.admitted(now, &records);
                        }
                        Err(error) => {
                            tracing::warn!(%device, %error, "a device could not be admitted");
                            invite.inviter.refuse(Refusal::NotAdmitted);
                        }
                    }
                }
                InviterEvent::Joined { device, name } => {
                    let device = device.to_string();
                    invite.status = InviteStatus::Joined { joined: JoinedDevice { device, name } };
                }
                InviterEvent::Unconfirmed { device, name, why } => {
                    invite.status = InviteStatus::Failed {
                        reason: format!(
                            "{name} ({}) was admitted but did not confirm it: {why}",
                            device.short()
                        ),
                    };
                }
                InviterEvent::Burned { device, why } => {
                    invite.status = InviteStatus::Failed {
                        reason: format!("device {} tried a wrong code: {why}", device.short()),
                    };
                }
                InviterEvent::Expired => invite.status = InviteStatus::Expired,
                // Once, lest a stranger who begins again and again fill the log.
                InviterEvent::Failed { device, why } if !invite.failed => {
                    invite.failed = true;
                    tracing::warn!(%device, %why, "a pairing came to nothing; the invite stays open");
                }
                InviterEvent::Failed { .. } => {}
                InviterEvent::Started { .. } => {}
            }
        }
        let mut transmits = Vec::new();
        while let Some(transmit) = invite.inviter.poll_transmit() {
            transmits.push(transmit);
        }
        transmits.into_iter().for_each(|transmit| self.streams.send(transmit));
        Ok(())
    }

    fn step_join(&mut self, core: &mut Core, now: Now) -> Result<(), ApiError> {
        let Some(join) = self.join.as_mut().filter(|join| !join.is_over()) else { return Ok(()) };
        let mut transmits = Vec::new();
        let (mut again, mut over) = (None, None);
        join.take_up(now);
        if let Some((stream, joiner, addr)) = &mut join.joiner {
            let inviter = stream.device;
            joiner.handle_timeout(now);
            while let Some(event) = joiner.poll_event() {
                match event {
                    JoinerEvent::Confirmed => join.status = JoinStatus::Receiving,
                    JoinerEvent::Joined { mesh, records } => {
                        let records: Vec<Vec<u8>> = records.into_iter().map(|r| r.0).collect();
                        if let Err(error) = core.engine.join(&mut core.store, now, &records) {
                            joiner.cancel(Refusal::NotStored);
                            join.status = failed("join_failed", &error.to_string());
                            continue;
                        }
                        // Durable before told.
                        core.commit()?;
                        joiner.stored();
                        let names = names(core.engine.roster());
                        join.status = JoinStatus::Joined {
                            mesh: mesh.to_string(),
                            admitted_by: JoinedDevice {
                                device: inviter.to_string(),
                                name: names.get(&inviter).cloned().unwrap_or_default(),
                            },
                        };
                        // It proved there who it is. Of the others it is not known.
                        let tried = join.tried.iter().filter(|tried| **tried != *addr);
                        let mut found: Vec<(String, Source)> =
                            tried.map(|tried| (tried.to_string(), Source::Learned)).collect();
                        found.push((bare(addr).to_string(), Source::Proven));
                        self.learned.push((inviter, found));
                    }
                    // Others took its place, or the link broke, before anybody could guess.
                    JoinerEvent::Failed {
                        why: why @ (Refusal::Busy | Refusal::Disconnected | Refusal::TimedOut),
                        guessed: false,
                        ..
                    } => {
                        join.last_error = Some(format!("{addr}: {why}"));
                        again = Some((*stream, addr.clone()));
                    }
                    JoinerEvent::Failed { why, told, .. } => {
                        let by = if told { " (said the other device)" } else { "" };
                        let error = ApiError::new(
                            ErrorKind::Refused,
                            "join_refused",
                            format!("joining came to nothing: {why}{by}"),
                            why.hint(),
                        );
                        join.status = JoinStatus::Failed { error: error.body() };
                    }
                }
            }
            while let Some(transmit) = joiner.poll_transmit() {
                transmits.push(transmit);
            }
        } else if join.may_try() && join.next_attempt <= now.mono {
            if let Some(addr) = join.waiting.pop_front() {
                let device = join.device().or_else(|| peer_device(&addr));
                join.status = JoinStatus::Connecting { address: addr.to_string() };
                match self.transport.open_pairing(join.number, addr.clone(), device) {
                    Ok(()) => {
                        join.opening += 1;
                        join.next_attempt = now.mono.after_ms(JOIN_STAGGER_MS);
                    }
                    Err(error) => {
                        join.last_error = Some(error.to_string());
                        join.try_again(now, addr);
                    }
                }
            }
        } else if join.opening == 0 && join.waiting.is_empty() {
            join.status = JoinStatus::Searching;
        }
        if let Some((stream, addr)) = again {
            join.joiner = None;
            join.status = JoinStatus::Searching;
            join.try_again(now, addr);
            over = Some(stream);
        }
        if !join.is_over() && join.deadline <= now.mono {
            let seen = join.last_error.clone();
            let message = match seen {
                Some(error) => format!("the inviting device could not be reached; last: {error}"),
                None => "the inviting device was not found on the local network".to_owned(),
            };
            join.fail(
                "inviter_not_found",
                message,
                "check that both are on one network, or give its address with --addr, or use the \
                 ticket",
            );
        }
        transmits.into_iter().for_each(|transmit| self.streams.send(transmit));
        over.into_iter().for_each(|stream| self.streams.close(stream));
        Ok(())
    }
}

/// Why a device cannot join another mesh than its own.
fn bound_error(bound: Bound) -> ApiError {
    let code = match bound {
        Bound::Member { .. } => "already_in_a_mesh",
        Bound::Others { .. } | Bound::Own => "store_of_another_mesh",
    };
    let hint = "for another mesh use a new data directory (--data-dir), and carry objects over with \
                export and import; to come back into its own mesh use a ticket from there, not a code";
    ApiError::new(ErrorKind::Refused, code, format!("this device cannot join: {bound}"), hint)
}

/// Whether an address that led nowhere may lead to the inviter a little later.
fn may_change(why: DialErrorKind) -> bool {
    match why {
        DialErrorKind::WrongPeer
        | DialErrorKind::OwnAddress
        | DialErrorKind::Unsupported
        | DialErrorKind::NotSpoken => false,
        DialErrorKind::Refused
        | DialErrorKind::Timeout
        | DialErrorKind::Unreachable
        | DialErrorKind::Handshake
        | DialErrorKind::Offline
        | DialErrorKind::Limit
        | DialErrorKind::Other => true,
    }
}

fn failed(code: &'static str, message: &str) -> JoinStatus {
    let hint = "make a new invite and try again";
    let error = ApiError::new(ErrorKind::Internal, code, message, hint);
    JoinStatus::Failed { error: error.body() }
}

fn invite_closed(attempt: &Attempt) -> ApiError {
    ApiError::new(
        ErrorKind::Refused,
        "invite_closed",
        format!(
            "the device at {} has no open invitation: the code was used, was tried wrong once, or \
             has expired",
            attempt.addr
        ),
        "make a new code on the other device with: srcos-node pair invite",
    )
}

fn records(core: &Core) -> Vec<RecordBytes> {
    core.engine.roster().records_in_order().cloned().collect()
}

fn unknown(what: &str, id: &str) -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        "pairing_unknown",
        format!("there is no {what} {id:?}; the daemon keeps the latest only"),
        "start another one",
    )
}

fn read_secret(text: &str) -> Result<JoinSecret, ApiError> {
    let bad = |message: String| {
        let hint = "type the code as it is shown on the other device, like 42-word-word-word";
        ApiError::new(ErrorKind::BadInput, "code_malformed", message, hint)
    };
    if text.trim_start().to_ascii_lowercase().starts_with(srcos_replication::ticket::TICKET_PREFIX)
    {
        let ticket = text.trim().parse::<Ticket>().map_err(|error| bad(error.to_string()))?;
        return Ok(JoinSecret::Ticket(ticket));
    }
    text.parse::<Code>().map(JoinSecret::Code).map_err(|error| bad(error.to_string()))
}

/// The addresses that are worth telling: those of the network before loopback, few enough.
fn useful(listen: Vec<String>) -> Vec<String> {
    let is_local = |addr: &String| addr.contains("/127.0.0.1/") || addr.contains("/::1/");
    let (local, mut network): (Vec<_>, Vec<_>) = listen.into_iter().partition(is_local);
    network.extend(local);
    network.truncate(ADDRESSES_MAX);
    network
}
