//! The side that invites: one invite, one guess, one device that gets in.

use std::collections::{BTreeMap, VecDeque};

use srcos_lanes::ids::{DeviceId, MeshId, MonoMillis, Now, WallMillis};

use super::code::Code;
use super::keys::{Agreement, Channel, Devices, Keys, Random, Role, Transcript, password};
use super::wire::{Frame, Offer, PIECE_BYTES, Sealed, VERSION, decode, encode};
use super::{
    FOUNDING_BYTES_MAX, INVITE_MS_DEFAULT, INVITE_MS_MAX, JoinRequest, Refusal, STEP_MS_MAX,
    Stream, Transmit, UNPROVEN_MAX,
};
use crate::roster::{RecordBytes, check_name, read_founding};
use crate::ticket::{Ticket, TicketError, addresses_are_sound};

/// Why no invite was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// An invite that would hold for too long, or for no time.
    #[error("invite for {lifetime_ms} ms must hold between 1 and {INVITE_MS_MAX} ms")]
    Lifetime {
        /// What was asked for.
        lifetime_ms: u64,
    },
    /// Addresses that cannot be in a ticket.
    #[error("invite cannot name the addresses of this device")]
    Addresses(#[source] TicketError),
}

/// What an invite is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteState {
    /// Somebody may use it.
    Open,
    /// This device knew the secret.
    Used {
        /// Who.
        by: DeviceId,
    },
    /// This device guessed wrong, or broke off after guessing right: nobody may use it.
    Burned {
        /// Who.
        by: DeviceId,
    },
    /// Nobody used it in time.
    Expired,
    /// Its owner withdrew it.
    Cancelled,
}

/// What the owner of an [`Inviter`] should know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InviterEvent {
    /// A device has said hello.
    Started {
        /// Who.
        device: DeviceId,
    },
    /// A device knows the secret and asks to be admitted. Write its admission, store it, then call
    /// [`Inviter::admitted`] with all records; or [`Inviter::refuse`]. If the roster
    /// says that it needs no admission, because an earlier pairing was never confirmed, the records
    /// are enough.
    Admit {
        /// Who.
        device: DeviceId,
        /// What it says of itself, within bounds.
        request: JoinRequest,
        /// The mesh of one that it has proved to have founded.
        prior_mesh: Option<MeshId>,
    },
    /// The device holds the roster durably: done.
    Joined {
        /// Who.
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// The device was admitted and never said that it stored the roster. It is a member.
    Unconfirmed {
        /// Who.
        device: DeviceId,
        /// Its name.
        name: String,
        /// What was heard instead.
        why: Refusal,
    },
    /// The invite is burnt.
    Burned {
        /// By whom.
        device: DeviceId,
        /// How.
        why: Refusal,
    },
    /// An exchange came to nothing; the invite stays open.
    Failed {
        /// With whom.
        device: DeviceId,
        /// Why.
        why: Refusal,
    },
    /// The invite has expired.
    Expired,
}

enum Step {
    Request(Channel),
    Admission(Channel, JoinRequest),
    Stored(Channel, String),
}

struct Exchange {
    stream: Stream,
    due: MonoMillis,
    step: Step,
}

/// A device that said hello and has yet to show that it knows the secret.
struct Unproven {
    due: MonoMillis,
    keys: Keys,
}

/// An invite and the exchanges in which it may be used.
///
/// Any number of devices may say hello, up to a bound, and none keeps another waiting. But the first that
/// says what should prove its knowledge is the only one: right or wrong, the rest are refused.
pub struct Inviter {
    me: DeviceId,
    code: Code,
    ticket: Ticket,
    deadline: MonoMillis,
    expires_at: WallMillis,
    state: InviteState,
    random: Random,
    unproven: BTreeMap<Stream, Unproven>,
    /// With the one that knows the secret.
    exchange: Option<Exchange>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<InviterEvent>,
}

impl std::fmt::Debug for Inviter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stream = self.exchange.as_ref().map(|exchange| exchange.stream);
        f.debug_struct("Inviter").field("state", &self.state).field("exchange", &stream).finish()
    }
}

impl Inviter {
    /// Opens an invite into `mesh` by the device `me`. It holds for [`INVITE_MS_DEFAULT`] if nothing
    /// else is said. `seed` is random, secret and never used twice.
    pub fn open(
        now: Now,
        me: DeviceId,
        mesh: MeshId,
        lifetime_ms: Option<u64>,
        addresses: Vec<String>,
        seed: [u8; 32],
    ) -> Result<Self, InviteError> {
        let lifetime_ms = lifetime_ms.unwrap_or(INVITE_MS_DEFAULT);
        if lifetime_ms == 0 || lifetime_ms > INVITE_MS_MAX {
            return Err(InviteError::Lifetime { lifetime_ms });
        }
        let mut random = Random::new(seed);
        let code = Code::choose(random.draw());
        let expires_at = WallMillis(now.wall.0.saturating_add(lifetime_ms));
        let ticket = Ticket::new(mesh, me, random.draw(), expires_at, addresses)
            .map_err(InviteError::Addresses)?;
        Ok(Self {
            me,
            code,
            ticket,
            deadline: now.mono.after_ms(lifetime_ms),
            expires_at,
            state: InviteState::Open,
            random,
            unproven: BTreeMap::new(),
            exchange: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn set_code(&mut self, code: Code) {
        self.code = code;
    }

    /// The code to read out.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// The ticket to hand over; using either spends both.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// What the invite is good for.
    pub fn state(&self) -> InviteState {
        self.state
    }

    /// Whether nothing more can come of it.
    pub fn is_over(&self) -> bool {
        self.state != InviteState::Open && self.exchange.is_none()
    }

    /// The stream to the device that has shown that it knows the secret.
    pub fn proven(&self) -> Option<Stream> {
        self.exchange.as_ref().map(|exchange| exchange.stream)
    }

    /// The streams over which an exchange goes on.
    pub fn streams(&self) -> impl Iterator<Item = Stream> + use<'_> {
        self.unproven.keys().copied().chain(self.proven())
    }

    /// Takes a frame that came over a stream, of this exchange or of one that is to begin.
    pub fn handle_frame(&mut self, now: Now, stream: Stream, bytes: &[u8]) {
        self.handle_timeout(now);
        if let Some(unproven) = self.unproven.remove(&stream) {
            return self.prove(now, stream, &unproven.keys, bytes);
        }
        let Some(exchange) = self.exchange.take_if(|exchange| exchange.stream == stream) else {
            return self.begin(now, stream, bytes);
        };
        let step = exchange.step;
        let frame = decode(bytes);
        if let Ok(Frame::Refused { reason }) = frame {
            return self.fail(stream, step, Refusal::from_number(reason), false);
        }
        match (step, frame) {
            (Step::Request(mut channel), Ok(Frame::Sealed { body, mac })) => {
                match open_request(&mut channel, &body, &mac, stream.device) {
                    Ok((request, prior_mesh)) => {
                        let device = stream.device;
                        let step = Step::Admission(channel, request.clone());
                        self.wait(now, stream, step);
                        self.events.push_back(InviterEvent::Admit { device, request, prior_mesh });
                    }
                    Err(why) => self.fail(stream, Step::Request(channel), why, true),
                }
            }
            (Step::Stored(mut channel, name), Ok(Frame::Sealed { body, mac })) => {
                let why = if !channel.accept(&body, &mac) {
                    Refusal::Tampered
                } else if decode(&body) == Ok(Sealed::Stored) {
                    let device = stream.device;
                    return self.events.push_back(InviterEvent::Joined { device, name });
                } else {
                    Refusal::OutOfOrder
                };
                self.fail(stream, Step::Stored(channel, name), why, true);
            }
            (step, Ok(_)) => self.fail(stream, step, Refusal::OutOfOrder, true),
            (step, Err(why)) => self.fail(stream, step, why, true),
        }
    }

    fn begin(&mut self, now: Now, stream: Stream, bytes: &[u8]) {
        let (version, offer, share) = match decode(bytes) {
            Ok(Frame::Hello { version, offer, share }) => (version, offer, share),
            // Nothing is going on over that stream that could be refused.
            Ok(Frame::Refused { .. }) => return,
            Ok(_) => return self.refuse_stream(stream, Refusal::OutOfOrder),
            Err(why) => return self.refuse_stream(stream, why),
        };
        if version != VERSION {
            return self.refuse_stream(stream, Refusal::Unsupported);
        }
        let password = match offer {
            Offer::Code { nameplate } if nameplate != self.code.nameplate() => {
                return self.refuse_stream(stream, Refusal::UnknownInvite);
            }
            Offer::Code { .. } => password("code", &self.code.password()),
            Offer::Ticket => password("ticket", &self.ticket.secret),
        };
        match self.state {
            InviteState::Open => {}
            InviteState::Expired => return self.refuse_stream(stream, Refusal::Expired),
            InviteState::Cancelled => return self.refuse_stream(stream, Refusal::Cancelled),
            InviteState::Used { .. } | InviteState::Burned { .. } => {
                return self.refuse_stream(stream, Refusal::Spent);
            }
        }
        if self.unproven.len() >= UNPROVEN_MAX {
            return self.refuse_stream(stream, Refusal::Busy);
        }
        if stream.device == self.me {
            return self.refuse_stream(stream, Refusal::InvalidRequest);
        }
        let devices = Devices { inviter: self.me, joiner: stream.device };
        let seed = self.random.draw();
        let (agreement, own_share) = Agreement::start(Role::Inviter, devices, &password, seed);
        let answer = Frame::Answer { share: own_share };
        let mut transcript = Transcript::new(devices);
        transcript.add(bytes);
        transcript.add(&encode(&answer));
        let Some(keys) = agreement.finish(&share, &transcript) else {
            return self.refuse_stream(stream, Refusal::Malformed);
        };
        self.send(stream, &answer, false);
        self.unproven.insert(stream, Unproven { due: now.mono.after_ms(STEP_MS_MAX), keys });
        self.events.push_back(InviterEvent::Started { device: stream.device });
    }

    /// Takes the frame that should show that the joiner knows the secret: the one guess.
    fn prove(&mut self, now: Now, stream: Stream, keys: &Keys, bytes: &[u8]) {
        match decode(bytes) {
            Ok(Frame::Confirm { mac }) if keys.confirms(Role::Joiner, &mac) => {
                self.state = InviteState::Used { by: stream.device };
                self.refuse_unproven(Refusal::Spent);
                let mac = keys.confirmation(Role::Inviter);
                self.send(stream, &Frame::Confirmed { mac }, false);
                self.wait(now, stream, Step::Request(keys.channel(Role::Inviter)));
            }
            Ok(Frame::Confirm { .. }) => {
                self.refuse_stream(stream, Refusal::WrongCode);
                self.burn(stream.device, Refusal::WrongCode);
            }
            // Before its confirmation a joiner has learned nothing and guessed nothing.
            Ok(Frame::Refused { reason }) => {
                let why = Refusal::from_number(reason);
                self.events.push_back(InviterEvent::Failed { device: stream.device, why });
            }
            Ok(_) => self.fail_unproven(stream, Refusal::OutOfOrder),
            Err(why) => self.fail_unproven(stream, why),
        }
    }

    fn fail_unproven(&mut self, stream: Stream, why: Refusal) {
        self.refuse_stream(stream, why);
        self.events.push_back(InviterEvent::Failed { device: stream.device, why });
    }

    /// Ends what was begun by those who have guessed nothing: the invite is good for nobody any more.
    fn refuse_unproven(&mut self, why: Refusal) {
        for stream in std::mem::take(&mut self.unproven).into_keys() {
            self.refuse_stream(stream, why);
        }
    }

    fn burn(&mut self, device: DeviceId, why: Refusal) {
        self.state = InviteState::Burned { by: device };
        self.refuse_unproven(Refusal::Spent);
        self.events.push_back(InviterEvent::Burned { device, why });
    }

    /// The device was admitted, durably: sends it all records. Without an exchange that waits for
    /// this, nothing happens, and the admission stands.
    pub fn admitted<'a>(&mut self, now: Now, records: impl IntoIterator<Item = &'a RecordBytes>) {
        let waits = |exchange: &mut Exchange| matches!(exchange.step, Step::Admission(..));
        let Some(Exchange { stream, step, .. }) = self.exchange.take_if(waits) else {
            return;
        };
        let Step::Admission(mut channel, request) = step else {
            return;
        };
        let payload = encode(&records.into_iter().collect::<Vec<_>>());
        let mut pieces = payload.chunks(PIECE_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let sealed = Sealed::Roster { piece: piece.to_vec(), last: pieces.peek().is_none() };
            let body = encode(&sealed);
            let mac = channel.seal(&body);
            self.send(stream, &Frame::Sealed { body, mac }, false);
        }
        self.wait(now, stream, Step::Stored(channel, request.name));
    }

    /// The device is not admitted, for this reason.
    pub fn refuse(&mut self, why: Refusal) {
        let waits = |exchange: &mut Exchange| matches!(exchange.step, Step::Admission(..));
        if let Some(exchange) = self.exchange.take_if(waits) {
            self.fail(exchange.stream, exchange.step, why, true);
        }
    }

    /// Withdraws the invite. An exchange in progress is ended.
    pub fn cancel(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            self.fail(exchange.stream, exchange.step, Refusal::Cancelled, true);
        }
        self.refuse_unproven(Refusal::Cancelled);
        if self.state == InviteState::Open {
            self.state = InviteState::Cancelled;
        }
    }

    /// The stream has ended.
    pub fn handle_disconnected(&mut self, stream: Stream) {
        self.transmits.retain(|transmit| transmit.stream != stream);
        if self.unproven.remove(&stream).is_some() {
            let (device, why) = (stream.device, Refusal::Disconnected);
            self.events.push_back(InviterEvent::Failed { device, why });
        }
        if let Some(exchange) = self.exchange.take_if(|exchange| exchange.stream == stream) {
            self.fail(stream, exchange.step, Refusal::Disconnected, false);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        // By either clock: the one stands still in a machine that sleeps, the other may be put back.
        let late = now.mono >= self.deadline || now.wall >= self.expires_at;
        if self.state == InviteState::Open && late {
            self.state = InviteState::Expired;
            // Who has not confirmed when the invite expires is too late as well.
            self.refuse_unproven(Refusal::Expired);
            self.events.push_back(InviterEvent::Expired);
        }
        let over = self.unproven.iter().filter(|(_, unproven)| now.mono >= unproven.due);
        for stream in over.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.unproven.remove(&stream);
            self.fail_unproven(stream, Refusal::TimedOut);
        }
        if let Some(exchange) = self.exchange.take_if(|exchange| now.mono >= exchange.due) {
            self.fail(exchange.stream, exchange.step, Refusal::TimedOut, true);
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<InviterEvent> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<MonoMillis> {
        let invite = (self.state == InviteState::Open).then_some(self.deadline);
        let unproven = self.unproven.values().map(|unproven| unproven.due);
        let exchange = self.exchange.as_ref().map(|exchange| exchange.due);
        invite.into_iter().chain(unproven).chain(exchange).min()
    }

    fn wait(&mut self, now: Now, stream: Stream, step: Step) {
        self.exchange = Some(Exchange { stream, due: now.mono.after_ms(STEP_MS_MAX), step });
    }

    fn send(&mut self, stream: Stream, frame: &Frame, last: bool) {
        self.transmits.push_back(Transmit { stream, frame: encode(frame), last });
    }

    fn refuse_stream(&mut self, stream: Stream, why: Refusal) {
        self.send(stream, &Frame::Refused { reason: why.number() }, true);
    }

    /// Ends the exchange in the step that it had reached.
    fn fail(&mut self, stream: Stream, step: Step, why: Refusal, tell: bool) {
        if tell {
            self.refuse_stream(stream, why);
        }
        let device = stream.device;
        match step {
            Step::Request(_) | Step::Admission(..) => self.burn(device, why),
            Step::Stored(_, name) => {
                self.events.push_back(InviterEvent::Unconfirmed { device, name, why });
            }
        }
    }
}

/// Reads a request to join, and checks all that it says.
fn open_request(
    channel: &mut Channel,
    body: &[u8],
    mac: &[u8; 32],
    device: DeviceId,
) -> Result<(JoinRequest, Option<MeshId>), Refusal> {
    if !channel.accept(body, mac) {
        return Err(Refusal::Tampered);
    }
    let Sealed::Request(request) = decode(body)? else {
        return Err(Refusal::OutOfOrder);
    };
    if check_name(&request.name).is_err() || !addresses_are_sound(&request.addresses) {
        return Err(Refusal::InvalidRequest);
    }
    let Some(founding) = &request.founding else {
        return Ok((request, None));
    };
    if founding.0.len() > FOUNDING_BYTES_MAX {
        return Err(Refusal::InvalidRequest);
    }
    match read_founding(&founding.0) {
        Ok((mesh, founder)) if founder == device => Ok((request, Some(mesh))),
        Ok(_) | Err(_) => Err(Refusal::InvalidRequest),
    }
}
