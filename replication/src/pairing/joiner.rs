//! The side that joins: one attempt with one secret.

use std::collections::VecDeque;

use srcos_lanes::ids::{DeviceId, MeshId, MonoMillis, Now};

use super::code::Code;
use super::keys::{Agreement, Channel, Devices, Keys, Role, Transcript, password};
use super::wire::{Frame, Offer, Sealed, VERSION, decode, encode};
use super::{FOUNDING_BYTES_MAX, JoinRequest, Refusal, STEP_MS_MAX, Stream, Transmit};
use crate::roster::{
    RECORDS_MAX, ROSTER_BYTES_MAX, RecordBytes, Roster, RosterError, check_name, read_founding,
};
use crate::ticket::{Ticket, addresses_are_sound};

/// Most bytes of a roster as it is sent: the records, and a length before each.
const PAYLOAD_BYTES_MAX: usize = ROSTER_BYTES_MAX + 5 * (RECORDS_MAX + 1);

/// Why an attempt to join was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The device's store belongs to a mesh, and the invite is not known to be of that one.
    #[error(
        "this device's store belongs to mesh {mesh}, which only a ticket of that very mesh can take \
         it back to: use one, or join another mesh from a new data directory"
    )]
    OtherMesh {
        /// The mesh to which it belongs.
        mesh: MeshId,
    },
    /// The device at the other end is not the one that the ticket names.
    #[error("the device that answered is {found}, the ticket is from {named}: check its addresses")]
    OtherInviter {
        /// Whom the ticket names.
        named: DeviceId,
        /// Who is there.
        found: DeviceId,
    },
    /// The device at the other end is this one.
    #[error("this device cannot join by its own invite: use the code on the other device")]
    OwnInvite,
    /// A name out of bounds.
    #[error("this device cannot join under its name")]
    Name(#[source] RosterError),
    /// Addresses out of bounds.
    #[error("this device cannot name its addresses: too many, or one is no address")]
    Addresses,
    /// A founding record that is not this device's own.
    #[error("the founding record of this device's mesh is not its own: verify its store")]
    Founding,
}

/// What the joiner knows of the invite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    /// The code that was read out.
    Code(Code),
    /// The ticket that was handed over.
    Ticket(Box<Ticket>),
}

/// What the owner of a [`Joiner`] should know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinerEvent {
    /// Both sides know the secret.
    Confirmed,
    /// The device is admitted. Store the records, then call [`Joiner::stored`].
    Joined {
        /// The mesh.
        mesh: MeshId,
        /// Its records, checked to be a sound roster in which this device is a member.
        records: Vec<RecordBytes>,
    },
    /// It came to nothing.
    Failed {
        /// Why.
        why: Refusal,
        /// Whether the other side said so.
        told: bool,
        /// Whether whoever is at the other end has had a guess at the secret. Then never try the same
        /// secret again by itself: that would be another one.
        guessed: bool,
    },
}

enum Step {
    Answer(Agreement, Box<Transcript>),
    Confirmed(Keys),
    Roster(Channel, Vec<u8>),
    Storing(Channel),
}

/// An attempt to join.
pub struct Joiner {
    me: DeviceId,
    stream: Stream,
    /// The mesh that must be joined, where a ticket names it.
    mesh: Option<MeshId>,
    request: JoinRequest,
    prior_mesh: Option<MeshId>,
    /// Nothing when it is over.
    step: Option<Step>,
    /// The proof of the secret has been sent.
    guessed: bool,
    due: Option<MonoMillis>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<JoinerEvent>,
}

impl std::fmt::Debug for Joiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joiner")
            .field("stream", &self.stream)
            .field("over", &self.is_over())
            .finish()
    }
}

impl Joiner {
    /// Begins to join over a stream to the inviter. `bound` is the mesh that the store of the device
    /// `me` cannot leave, if so. `seed` is random, secret and never used twice.
    pub fn start(
        now: Now,
        me: DeviceId,
        stream: Stream,
        secret: &Secret,
        request: JoinRequest,
        bound: Option<MeshId>,
        seed: [u8; 32],
    ) -> Result<Self, JoinError> {
        // A code does not say of which mesh it is, and an admission by the wrong one would stand.
        if let Some(mesh) = bound
            && !matches!(secret, Secret::Ticket(ticket) if ticket.mesh == mesh)
        {
            return Err(JoinError::OtherMesh { mesh });
        }
        if stream.device == me {
            return Err(JoinError::OwnInvite);
        }
        check_name(&request.name).map_err(JoinError::Name)?;
        if !addresses_are_sound(&request.addresses) {
            return Err(JoinError::Addresses);
        }
        let prior_mesh = match &request.founding {
            None => None,
            Some(founding) => match read_founding(&founding.0) {
                Ok((mesh, founder)) if founder == me && founding.0.len() <= FOUNDING_BYTES_MAX => {
                    Some(mesh)
                }
                Ok(_) | Err(_) => return Err(JoinError::Founding),
            },
        };
        let (offer, password, mesh) = match secret {
            Secret::Code(code) => {
                let offer = Offer::Code { nameplate: code.nameplate() };
                (offer, password("code", &code.password()), None)
            }
            Secret::Ticket(ticket) if ticket.inviter != stream.device => {
                let (named, found) = (ticket.inviter, stream.device);
                return Err(JoinError::OtherInviter { named, found });
            }
            // Whether it has expired, only the inviter's clock can say.
            Secret::Ticket(ticket) => {
                (Offer::Ticket, password("ticket", &ticket.secret), Some(ticket.mesh))
            }
        };
        let devices = Devices { inviter: stream.device, joiner: me };
        let (agreement, share) = Agreement::start(Role::Joiner, devices, &password, seed);
        let hello = Frame::Hello { version: VERSION, offer, share };
        let mut transcript = Transcript::new(devices);
        transcript.add(&encode(&hello));
        let mut joiner = Self {
            me,
            stream,
            mesh,
            request,
            prior_mesh,
            step: None,
            guessed: false,
            due: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        joiner.send(&hello, false);
        joiner.wait(now, Step::Answer(agreement, Box::new(transcript)));
        Ok(joiner)
    }

    /// Whether nothing more will come of it.
    pub fn is_over(&self) -> bool {
        self.step.is_none()
    }

    /// Takes a frame from the inviter.
    pub fn handle_frame(&mut self, now: Now, bytes: &[u8]) {
        self.handle_timeout(now);
        // The inviter has said all that it has to say, and the admission stands.
        let listens = |step: &mut Step| !matches!(step, Step::Storing(_));
        let Some(step) = self.step.take_if(listens) else {
            return;
        };
        let frame = decode(bytes);
        if let Ok(Frame::Refused { reason }) = frame {
            return self.fail(Refusal::from_number(reason), true);
        }
        match (step, frame) {
            (Step::Answer(agreement, mut transcript), Ok(Frame::Answer { share })) => {
                transcript.add(bytes);
                let Some(keys) = agreement.finish(&share, &transcript) else {
                    return self.fail(Refusal::Malformed, false);
                };
                self.guessed = true;
                self.send(&Frame::Confirm { mac: keys.confirmation(Role::Joiner) }, false);
                self.wait(now, Step::Confirmed(keys));
            }
            (Step::Confirmed(keys), Ok(Frame::Confirmed { mac })) => {
                if !keys.confirms(Role::Inviter, &mac) {
                    return self.fail(Refusal::WrongCode, false);
                }
                let mut channel = keys.channel(Role::Joiner);
                self.send_sealed(&mut channel, &Sealed::Request(self.request.clone()), false);
                self.events.push_back(JoinerEvent::Confirmed);
                self.wait(now, Step::Roster(channel, Vec::new()));
            }
            (Step::Roster(channel, held), Ok(Frame::Sealed { body, mac })) => {
                self.take_roster(now, channel, held, &body, &mac);
            }
            (_, Ok(_)) => self.fail(Refusal::OutOfOrder, false),
            (_, Err(why)) => self.fail(why, false),
        }
    }

    fn take_roster(
        &mut self,
        now: Now,
        mut channel: Channel,
        mut held: Vec<u8>,
        body: &[u8],
        mac: &[u8; 32],
    ) {
        if !channel.accept(body, mac) {
            return self.fail(Refusal::Tampered, false);
        }
        let (piece, last) = match decode(body) {
            Ok(Sealed::Roster { piece, last }) => (piece, last),
            Ok(_) => return self.fail(Refusal::OutOfOrder, false),
            Err(why) => return self.fail(why, false),
        };
        held.extend_from_slice(&piece);
        if held.len() > PAYLOAD_BYTES_MAX || (piece.is_empty() && !last) {
            return self.fail(Refusal::InvalidRoster, false);
        }
        if !last {
            return self.wait(now, Step::Roster(channel, held));
        }
        match self.check_roster(&held) {
            Ok((mesh, records)) => {
                self.events.push_back(JoinerEvent::Joined { mesh, records });
                // How long storing takes is the owner's affair.
                self.step = Some(Step::Storing(channel));
                self.due = None;
            }
            Err(why) => self.fail(why, false),
        }
    }

    fn check_roster(&self, payload: &[u8]) -> Result<(MeshId, Vec<RecordBytes>), Refusal> {
        let records: Vec<RecordBytes> =
            postcard::from_bytes(payload).map_err(|_| Refusal::InvalidRoster)?;
        let roster = Roster::from_records(&records).map_err(|_| Refusal::InvalidRoster)?;
        if self.mesh.is_some_and(|mesh| mesh != roster.mesh()) {
            return Err(Refusal::WrongMesh);
        }
        let both = roster.is_member(self.me) && roster.is_member(self.stream.device);
        let meshes = roster.allowed_meshes(self.me);
        if !both || !self.prior_mesh.is_none_or(|mesh| meshes.contains(&mesh)) {
            return Err(Refusal::NotMember);
        }
        // Parents first, whatever order they were sent in.
        Ok((roster.mesh(), roster.records_in_order().cloned().collect()))
    }

    /// The records are stored durably: tells the inviter.
    pub fn stored(&mut self) {
        let storing = |step: &mut Step| matches!(step, Step::Storing(_));
        if let Some(Step::Storing(mut channel)) = self.step.take_if(storing) {
            self.send_sealed(&mut channel, &Sealed::Stored, true);
        }
    }

    /// Gives up, for instance because the records could not be stored.
    pub fn cancel(&mut self, why: Refusal) {
        if self.step.take().is_some() {
            self.fail(why, false);
        }
    }

    /// The stream has ended. Records that are being stored stay: the device is admitted.
    pub fn handle_disconnected(&mut self) {
        self.transmits.clear();
        match self.step.take() {
            None | Some(Step::Storing(_)) => {}
            Some(_) => self.fail(Refusal::Disconnected, true),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.due.is_some_and(|due| now.mono >= due) && self.step.take().is_some() {
            self.fail(Refusal::TimedOut, false);
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<JoinerEvent> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<MonoMillis> {
        self.due
    }

    fn wait(&mut self, now: Now, step: Step) {
        self.step = Some(step);
        self.due = Some(now.mono.after_ms(STEP_MS_MAX));
    }

    fn send(&mut self, frame: &Frame, last: bool) {
        let stream = self.stream;
        self.transmits.push_back(Transmit { stream, frame: encode(frame), last });
    }

    fn send_sealed(&mut self, channel: &mut Channel, sealed: &Sealed, last: bool) {
        let body = encode(sealed);
        let mac = channel.seal(&body);
        self.send(&Frame::Sealed { body, mac }, last);
    }

    /// Ends the attempt. `told`: the other side knows already, or cannot be told.
    fn fail(&mut self, why: Refusal, told: bool) {
        self.step = None;
        self.due = None;
        if !told {
            self.send(&Frame::Refused { reason: why.number() }, true);
        }
        self.events.push_back(JoinerEvent::Failed { why, told, guessed: self.guessed });
    }
}
