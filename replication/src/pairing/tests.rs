//! What pairing promises two honest devices, one claim each, and how the tests drive it.

mod hostile;

use std::collections::VecDeque;

use ed25519_dalek::SigningKey;
use srcos_lanes::ids::{DeviceId, MeshId, MonoMillis, Now, WallMillis};
use srcos_lanes::signature::Signer;

use super::*;
use crate::roster::{Inserted, Roster};
use crate::ticket::Ticket;

const LAPTOP: u8 = 1;
const DESKTOP: u8 = 2;
const MALLORY: u8 = 66;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn id(number: u8) -> DeviceId {
    key(number).device()
}

fn at(ms: u64) -> Now {
    Now { mono: MonoMillis(1_000_000 + ms), wall: WallMillis(1_700_000_000_000 + ms) }
}

fn stream(device: u8) -> Stream {
    Stream { id: u64::from(device), device: id(device) }
}

/// The laptop, which invites into its mesh and admits whoever knows the secret.
struct Laptop {
    roster: Roster,
    inviter: Inviter,
    events: Vec<InviterEvent>,
}

impl Laptop {
    fn new() -> Self {
        let roster = Roster::found("laptop", [1; 16], at(0).wall, &key(LAPTOP)).unwrap();
        let addresses = vec!["/ip4/192.168.1.2/udp/4001/quic-v1".into()];
        let inviter =
            Inviter::open(at(0), id(LAPTOP), roster.mesh(), None, addresses, [11; 32]).unwrap();
        Self { roster, inviter, events: Vec::new() }
    }

    fn code(&self) -> Secret {
        Secret::Code(self.inviter.code().clone())
    }

    fn ticket(&self) -> Secret {
        Secret::Ticket(Box::new(self.inviter.ticket().clone()))
    }

    /// Takes one frame and answers; admits when asked to.
    fn hear(&mut self, now: Now, from: Stream, frame: &[u8]) -> Vec<Vec<u8>> {
        self.inviter.handle_frame(now, from, frame);
        while let Some(event) = self.inviter.poll_event() {
            if let InviterEvent::Admit { device, request, prior_mesh } = &event {
                if !self.roster.is_member(*device) {
                    let admission = self
                        .roster
                        .admit(*device, &request.name, *prior_mesh, now.wall, &key(LAPTOP))
                        .unwrap();
                    let inserted = self.roster.insert(&admission.0).unwrap();
                    assert!(matches!(inserted, Inserted::New(_)));
                }
                self.inviter.admitted(now, self.roster.records_in_order());
            }
            self.events.push(event);
        }
        self.said(from)
    }

    fn said(&mut self, to: Stream) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(transmit) = self.inviter.poll_transmit() {
            assert_eq!(transmit.stream, to);
            assert!(transmit.frame.len() <= FRAME_BYTES_MAX);
            frames.push(transmit.frame);
        }
        frames
    }

    fn joined(&self) -> bool {
        self.events.iter().any(|event| matches!(event, InviterEvent::Joined { .. }))
    }
}

/// The desktop, which joins and stores what it gets.
struct Desktop {
    joiner: Joiner,
    events: Vec<JoinerEvent>,
}

fn request(device: u8) -> JoinRequest {
    let own = Roster::found("desktop", [2; 16], at(0).wall, &key(device)).unwrap();
    JoinRequest {
        name: "desktop".into(),
        founding: Some(own.founding().clone()),
        addresses: vec!["/ip4/192.168.1.3/udp/4001/quic-v1".into()],
    }
}

impl Desktop {
    fn new(secret: &Secret) -> Self {
        Self::towards(LAPTOP, DESKTOP, secret)
    }

    fn towards(inviter: u8, me: u8, secret: &Secret) -> Self {
        let request = request(me);
        let joiner =
            Joiner::start(at(0), id(me), stream(inviter), secret, request, None, [me; 32]).unwrap();
        Self { joiner, events: Vec::new() }
    }

    fn hear(&mut self, now: Now, frame: &[u8]) -> Vec<Vec<u8>> {
        self.joiner.handle_frame(now, frame);
        while let Some(event) = self.joiner.poll_event() {
            if matches!(event, JoinerEvent::Joined { .. }) {
                self.joiner.stored();
            }
            self.events.push(event);
        }
        self.said()
    }

    fn said(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.joiner.poll_transmit()).map(|transmit| transmit.frame).collect()
    }

    fn joined(&self) -> Option<(MeshId, Vec<RecordBytes>)> {
        self.events.iter().find_map(|event| match event {
            JoinerEvent::Joined { mesh, records } => Some((*mesh, records.clone())),
            _ => None,
        })
    }

    fn why_not(&self) -> Option<Refusal> {
        self.events.iter().find_map(|event| match event {
            JoinerEvent::Failed { why, .. } => Some(*why),
            _ => None,
        })
    }
}

/// Lets both talk until they are silent. `meddle` gets every frame with its number, and gives what
/// arrives instead. Returns all frames as sent: from the joiner, or not.
fn talk(
    laptop: &mut Laptop,
    desktop: &mut Desktop,
    mut meddle: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>,
) -> Vec<(bool, Vec<u8>)> {
    let mut sent = Vec::new();
    let mut wire: VecDeque<(bool, Vec<u8>)> = VecDeque::new();
    wire.extend(desktop.said().into_iter().map(|frame| (true, frame)));
    while let Some((from_joiner, frame)) = wire.pop_front() {
        sent.push((from_joiner, frame.clone()));
        assert!(sent.len() < 200, "they never fall silent");
        for frame in meddle(sent.len() - 1, frame) {
            let answers = if from_joiner {
                laptop.hear(at(10), stream(DESKTOP), &frame)
            } else {
                desktop.hear(at(10), &frame)
            };
            wire.extend(answers.into_iter().map(|frame| (!from_joiner, frame)));
        }
    }
    sent
}

fn plainly(_: usize, frame: Vec<u8>) -> Vec<Vec<u8>> {
    vec![frame]
}

#[test]
fn right_code_joins() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let frames = talk(&mut laptop, &mut desktop, plainly);
    assert_eq!(frames.len(), 7);
    let (mesh, records) = desktop.joined().unwrap();
    assert_eq!(mesh, laptop.roster.mesh());
    let roster = Roster::from_records(&records).unwrap();
    assert_eq!(roster.digest(), laptop.roster.digest());
    assert!(roster.is_member(id(LAPTOP)) && roster.is_member(id(DESKTOP)));
    assert_eq!(roster.allowed_meshes(id(DESKTOP)).len(), 2);
    assert!(laptop.joined());
    assert!(laptop.inviter.is_over() && desktop.joiner.is_over());
    assert_eq!(laptop.inviter.state(), InviteState::Used { by: id(DESKTOP) });
}

#[test]
fn ticket_joins_by_the_text_that_is_handed_over() {
    let mut laptop = Laptop::new();
    let ticket: Ticket = laptop.inviter.ticket().to_text().parse().unwrap();
    let mut desktop = Desktop::new(&Secret::Ticket(Box::new(ticket)));
    talk(&mut laptop, &mut desktop, plainly);
    assert_eq!(desktop.joined().unwrap().0, laptop.roster.mesh());
    assert!(laptop.joined());
}

#[test]
fn inviter_says_joined_only_when_the_joiner_has_stored() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    // The last frame is lost, and the stream with it.
    talk(&mut laptop, &mut desktop, |at, frame| if at < 6 { vec![frame] } else { vec![] });
    assert!(desktop.joined().is_some() && !laptop.joined());
    laptop.inviter.handle_disconnected(stream(DESKTOP));
    let event = laptop.inviter.poll_event().unwrap();
    let (device, name, why) = (id(DESKTOP), "desktop".into(), Refusal::Disconnected);
    assert_eq!(event, InviterEvent::Unconfirmed { device, name, why });
    assert!(laptop.roster.is_member(id(DESKTOP)));
}

#[test]
fn admission_that_nobody_confirms_is_unconfirmed_in_bounded_time() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    talk(&mut laptop, &mut desktop, |at, frame| if at < 6 { vec![frame] } else { vec![] });
    let due = laptop.inviter.poll_timeout().unwrap();
    assert_eq!(due, at(10 + STEP_MS_MAX).mono);
    laptop.inviter.handle_timeout(at(10 + STEP_MS_MAX));
    let event = laptop.inviter.poll_event().unwrap();
    let why = Refusal::TimedOut;
    assert!(matches!(event, InviterEvent::Unconfirmed { why: heard, .. } if heard == why));
    assert_eq!(laptop.inviter.poll_timeout(), None);
}

#[test]
fn joiner_that_cannot_store_says_so() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let mut frames = desktop.said();
    while !desktop.events.iter().any(|event| matches!(event, JoinerEvent::Joined { .. })) {
        let answers: Vec<_> =
            frames.iter().flat_map(|f| laptop.hear(at(1), stream(DESKTOP), f)).collect();
        for answer in answers {
            desktop.joiner.handle_frame(at(1), &answer);
            desktop.events.extend(std::iter::from_fn(|| desktop.joiner.poll_event()));
        }
        frames = desktop.said();
    }
    desktop.joiner.cancel(Refusal::NotStored);
    for frame in desktop.said() {
        laptop.hear(at(2), stream(DESKTOP), &frame);
    }
    let why = Refusal::NotStored;
    let last = laptop.events.last().unwrap();
    assert!(matches!(last, InviterEvent::Unconfirmed { why: heard, .. } if *heard == why));
}

#[test]
fn expired_invite_is_refused_even_when_the_hello_came_in_time() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let hello = desktop.said().remove(0);
    // Said hello just in time.
    let in_time = at(INVITE_MS_DEFAULT - 1);
    let answer = laptop.hear(in_time, stream(DESKTOP), &hello).remove(0);
    let confirm = desktop.hear(at(1), &answer).remove(0);
    let refusals = laptop.hear(at(INVITE_MS_DEFAULT), stream(DESKTOP), &confirm);
    assert_eq!(laptop.inviter.state(), InviteState::Expired);
    desktop.hear(at(2), &refusals[0]);
    assert_eq!(desktop.why_not(), Some(Refusal::Expired));
    assert!(laptop.events.contains(&InviterEvent::Expired));
    // Comes too late altogether.
    let mut late = Desktop::new(&laptop.ticket());
    talk(&mut laptop, &mut late, plainly);
    assert_eq!(late.why_not(), Some(Refusal::Expired));
}

#[test]
fn invite_expires_while_the_machine_sleeps() {
    let mut laptop = Laptop::new();
    let mut late = Desktop::new(&laptop.ticket());
    let hello = late.said().remove(0);
    // Only the clock on the wall goes on.
    let awake = Now { wall: WallMillis(at(0).wall.0 + INVITE_MS_DEFAULT), ..at(1) };
    laptop.hear(awake, stream(DESKTOP), &hello);
    assert_eq!(laptop.inviter.state(), InviteState::Expired);
}

#[test]
fn invite_holds_for_an_hour_at_most() {
    let open =
        |lifetime| Inviter::open(at(0), id(LAPTOP), MeshId([0; 32]), lifetime, Vec::new(), [0; 32]);
    let invite = open(Some(INVITE_MS_MAX)).unwrap();
    assert_eq!(invite.poll_timeout(), Some(at(INVITE_MS_MAX).mono));
    for lifetime_ms in [0, INVITE_MS_MAX + 1] {
        let error = open(Some(lifetime_ms)).unwrap_err();
        assert_eq!(error, InviteError::Lifetime { lifetime_ms });
    }
}

#[test]
fn device_that_belongs_to_a_mesh_joins_no_other() {
    let laptop = Laptop::new();
    let start = |me, secret: &Secret, bound| {
        let request = request(me);
        Joiner::start(at(0), id(me), stream(LAPTOP), secret, request, bound, [2; 32])
    };
    let (code, ticket) = (laptop.code(), laptop.ticket());
    let (this, other) = (laptop.roster.mesh(), MeshId([7; 32]));
    for (secret, mesh) in [(&code, this), (&code, other), (&ticket, other)] {
        let error = start(DESKTOP, secret, Some(mesh)).unwrap_err();
        assert_eq!(error, JoinError::OtherMesh { mesh });
    }
    assert!(start(DESKTOP, &ticket, Some(this)).is_ok(), "it comes back");
    assert_eq!(start(LAPTOP, &code, None).unwrap_err(), JoinError::OwnInvite);
    assert!(start(DESKTOP, &code, None).is_ok());
}

#[test]
fn joiner_checks_what_it_says_of_itself() {
    let laptop = Laptop::new();
    let start = |request| {
        Joiner::start(at(0), id(DESKTOP), stream(LAPTOP), &laptop.code(), request, None, [2; 32])
            .unwrap_err()
    };
    let good = request(DESKTOP);
    let named = JoinRequest { name: "\n".into(), ..good.clone() };
    assert!(matches!(start(named), JoinError::Name(_)));
    let addressed = JoinRequest { addresses: vec!["x".into(); 17], ..good };
    assert_eq!(start(addressed), JoinError::Addresses);
    assert_eq!(start(request(3)), JoinError::Founding);
}

#[test]
fn large_roster_comes_in_pieces() {
    let mut laptop = Laptop::new();
    for number in 0..300_u32 {
        let name = format!("{number:064}");
        let at = WallMillis(u64::from(number));
        let bytes = laptop.roster.rename(id(LAPTOP), &name, at, &key(LAPTOP)).unwrap();
        laptop.roster.insert(&bytes.0).unwrap();
    }
    let mut desktop = Desktop::new(&laptop.code());
    let frames = talk(&mut laptop, &mut desktop, plainly);
    assert!(frames.len() == 8, "{} frames", frames.len());
    assert_eq!(desktop.joined().unwrap().1.len(), 302);
    assert!(laptop.joined());
}

#[test]
fn owner_may_refuse_and_cancel() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let hello = desktop.said().remove(0);
    laptop.hear(at(0), stream(DESKTOP), &hello);
    laptop.inviter.cancel();
    let refusal = laptop.said(stream(DESKTOP)).remove(0);
    desktop.hear(at(0), &refusal);
    assert_eq!(desktop.why_not(), Some(Refusal::Cancelled));
    assert_eq!(laptop.inviter.state(), InviteState::Cancelled);
    assert!(laptop.inviter.is_over());
}

#[test]
fn owner_who_declines_is_heard_and_the_invite_is_gone() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let mut frames = desktop.said();
    while desktop.why_not().is_none() {
        let mut answers = Vec::new();
        for frame in &frames {
            laptop.inviter.handle_frame(at(0), stream(DESKTOP), frame);
            laptop.events.extend(std::iter::from_fn(|| laptop.inviter.poll_event()));
            laptop.inviter.refuse(Refusal::NotAdmitted);
            answers.extend(laptop.said(stream(DESKTOP)));
        }
        frames = answers.iter().flat_map(|answer| desktop.hear(at(0), answer)).collect();
    }
    assert_eq!(desktop.why_not(), Some(Refusal::NotAdmitted));
    assert_eq!(laptop.inviter.state(), InviteState::Burned { by: id(DESKTOP) });
}

#[test]
fn every_refusal_has_its_number_and_a_hint() {
    for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(refusal.number()), at + 1);
        assert_eq!(Refusal::from_number(refusal.number()), refusal);
        assert!(!refusal.hint().is_empty());
    }
    assert_eq!(Refusal::from_number(200), Refusal::Other(200));
    assert_eq!(Refusal::from_number(0), Refusal::Other(0));
    assert_eq!(Refusal::Other(200).number(), 200);
}
