//! What pairing promises against damage, strangers and whoever stands in between.

use std::collections::VecDeque;

use proptest::prelude::*;
use srcos_lanes::ids::MeshId;

use super::*;
use crate::pairing::keys::{Agreement, Devices, Role, Transcript, password};
use crate::pairing::wire::{Frame, Offer, Sealed, VERSION, decode, encode};

#[test]
fn wrong_code_burns_the_invite_after_one_guess_and_tells_both_sides() {
    let mut laptop = Laptop::new();
    let right = laptop.inviter.code().to_string();
    let last = right.rsplit('-').next().unwrap();
    let other = if last == "zebra" { "yellow" } else { "zebra" };
    let wrong = right.replace(last, other).parse().unwrap();
    let mut desktop = Desktop::new(&Secret::Code(wrong));
    talk(&mut laptop, &mut desktop, plainly);
    assert_eq!(desktop.why_not(), Some(Refusal::WrongCode));
    assert_eq!(laptop.inviter.state(), InviteState::Burned { by: id(DESKTOP) });
    let burned = InviterEvent::Burned { device: id(DESKTOP), why: Refusal::WrongCode };
    assert!(laptop.events.contains(&burned));
    // Neither the right code nor the ticket is good for anything now.
    for secret in [laptop.code(), laptop.ticket()] {
        let mut desktop = Desktop::new(&secret);
        talk(&mut laptop, &mut desktop, plainly);
        assert_eq!(desktop.why_not(), Some(Refusal::Spent));
    }
    assert!(!laptop.roster.is_member(id(DESKTOP)));
}

#[test]
fn wrong_ticket_secret_burns_the_invite() {
    let mut laptop = Laptop::new();
    let mut ticket = laptop.inviter.ticket().clone();
    ticket.secret[31] ^= 1;
    let mut desktop = Desktop::new(&Secret::Ticket(Box::new(ticket)));
    talk(&mut laptop, &mut desktop, plainly);
    assert_eq!(desktop.why_not(), Some(Refusal::WrongCode));
    assert_eq!(laptop.inviter.state(), InviteState::Burned { by: id(DESKTOP) });
}

#[test]
fn wrong_number_costs_no_guess() {
    let mut laptop = Laptop::new();
    let right = laptop.inviter.code().clone();
    let words = right.to_string().split_once('-').unwrap().1.to_owned();
    let wrong = format!("{}-{words}", right.nameplate() + 1).parse().unwrap();
    let mut desktop = Desktop::new(&Secret::Code(wrong));
    talk(&mut laptop, &mut desktop, plainly);
    assert_eq!(desktop.why_not(), Some(Refusal::UnknownInvite));
    assert_eq!(laptop.inviter.state(), InviteState::Open);
}

/// Says hello from a number of devices, and returns them with the answers that they got.
fn hellos(laptop: &mut Laptop, devices: std::ops::Range<u8>) -> Vec<(u8, Desktop, Vec<u8>)> {
    let hello = |n: u8| {
        let mut desktop = Desktop::towards(LAPTOP, n, &laptop.code());
        let hello = desktop.said().remove(0);
        let answer = laptop.hear(at(0), stream(n), &hello).remove(0);
        (n, desktop, answer)
    };
    devices.map(hello).collect()
}

#[test]
fn strangers_that_say_hello_and_no_more_keep_nobody_waiting() {
    let mut laptop = Laptop::new();
    let strangers = hellos(&mut laptop, 100..100 + UNPROVEN_MAX as u8 - 1);
    assert_eq!(strangers.len(), UNPROVEN_MAX - 1);
    let mut desktop = Desktop::new(&laptop.code());
    let hello = desktop.said().remove(0);
    let answer = laptop.hear(at(0), stream(DESKTOP), &hello).remove(0);
    let confirm = desktop.hear(at(0), &answer).remove(0);
    laptop.inviter.handle_frame(at(0), stream(DESKTOP), &confirm);
    assert_eq!(laptop.inviter.state(), InviteState::Used { by: id(DESKTOP) });
    assert_eq!(laptop.inviter.streams().collect::<Vec<_>>(), [stream(DESKTOP)]);
    // The strangers hear that it is over for them; the desktop goes on.
    let sent: Vec<_> = std::iter::from_fn(|| laptop.inviter.poll_transmit()).collect();
    for (n, mut stranger, answer) in strangers {
        let to = sent.iter().find(|transmit| transmit.stream == stream(n)).unwrap();
        assert!(to.last);
        stranger.hear(at(0), &answer);
        stranger.hear(at(0), &to.frame);
        assert_eq!(stranger.why_not(), Some(Refusal::Spent));
    }
    let mut frames: VecDeque<_> =
        sent.into_iter().filter(|transmit| transmit.stream == stream(DESKTOP)).collect();
    while let Some(transmit) = frames.pop_front() {
        for frame in desktop.hear(at(0), &transmit.frame) {
            let answers = laptop.hear(at(0), stream(DESKTOP), &frame);
            let to = |frame| Transmit { stream: stream(DESKTOP), frame, last: false };
            frames.extend(answers.into_iter().map(to));
        }
    }
    assert!(laptop.joined() && desktop.joined().is_some());
}

#[test]
fn of_many_that_said_hello_only_the_first_may_guess() {
    let mut laptop = Laptop::new();
    let right = laptop.code();
    let mut guessers = hellos(&mut laptop, 100..103);
    // The first one has another code: whatever proof it sends is wrong.
    let (n, _, _) = guessers.remove(0);
    laptop.inviter.handle_frame(at(0), stream(n), &encode(&Frame::Confirm { mac: [7; 32] }));
    assert_eq!(laptop.inviter.state(), InviteState::Burned { by: id(n) });
    assert_eq!(laptop.inviter.streams().count(), 0);
    while laptop.inviter.poll_transmit().is_some() {}
    for (n, mut other, answer) in guessers {
        let confirm = other.hear(at(0), &answer).remove(0);
        let refusal = laptop.hear(at(0), stream(n), &confirm).remove(0);
        other.hear(at(0), &refusal);
        assert!(other.why_not().is_some());
        assert!(!laptop.roster.is_member(id(n)));
    }
    let mut desktop = Desktop::new(&right);
    talk(&mut laptop, &mut desktop, plainly);
    assert_eq!(desktop.why_not(), Some(Refusal::Spent));
}

#[test]
fn those_that_may_guess_are_bounded_and_room_is_made_by_their_end() {
    let mut laptop = Laptop::new();
    let first = 100;
    let held = hellos(&mut laptop, first..first + UNPROVEN_MAX as u8);
    let mut desktop = Desktop::new(&laptop.code());
    talk(&mut laptop, &mut desktop, plainly);
    assert_eq!(desktop.why_not(), Some(Refusal::Busy));
    // Nothing was guessed yet, so the joiner may try again; and does when one of them has gone.
    let failed = |event: &JoinerEvent| matches!(event, JoinerEvent::Failed { guessed: false, .. });
    assert!(desktop.events.iter().any(failed), "{:?}", desktop.events);
    laptop.inviter.handle_disconnected(stream(first));
    let mut desktop = Desktop::new(&laptop.code());
    let hello = desktop.said().remove(0);
    let answer = laptop.hear(at(0), stream(DESKTOP), &hello).remove(0);
    assert!(matches!(decode(&answer), Ok(Frame::Answer { .. })));
    assert_eq!(held.len(), UNPROVEN_MAX);
    // All of them end with the invite.
    laptop.inviter.cancel();
    assert_eq!(laptop.inviter.streams().count(), 0);
    assert!(laptop.inviter.is_over());
}

#[test]
fn silent_stranger_does_not_hold_the_invite() {
    let mut laptop = Laptop::new();
    let mut silent = Desktop::towards(LAPTOP, 3, &laptop.code());
    let hello = silent.said().remove(0);
    laptop.hear(at(0), stream(3), &hello);
    laptop.inviter.handle_timeout(at(STEP_MS_MAX));
    laptop.said(stream(3));
    assert_eq!(laptop.inviter.state(), InviteState::Open);
    let mut desktop = Desktop::new(&laptop.code());
    talk(&mut laptop, &mut desktop, plainly);
    assert!(desktop.joined().is_some());
}

#[test]
fn repeated_frames_are_refused() {
    for repeated in 0..6 {
        let mut laptop = Laptop::new();
        let mut desktop = Desktop::new(&laptop.code());
        talk(&mut laptop, &mut desktop, |at, frame| {
            if at == repeated { vec![frame.clone(), frame] } else { vec![frame] }
        });
        let refused = desktop.why_not().is_some()
            || laptop.events.iter().any(|event| {
                matches!(
                    event,
                    InviterEvent::Failed { .. }
                        | InviterEvent::Burned { .. }
                        | InviterEvent::Unconfirmed { .. }
                )
            });
        // A second last piece of the roster is not even looked at.
        assert!(refused || (repeated == 5 && laptop.joined()), "frame {repeated}");
    }
}

#[test]
fn recorded_exchange_is_worth_nothing_later() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let frames = talk(&mut laptop, &mut desktop, plainly);
    // The same code again, which a person may well choose; but new randomness.
    let mut again = Laptop::new();
    again.inviter = {
        let mesh = again.roster.mesh();
        let first = laptop.inviter;
        let mut fresh = Inviter::open(at(0), id(LAPTOP), mesh, None, Vec::new(), [12; 32]).unwrap();
        fresh.set_code(first.code().clone());
        fresh
    };
    let mut answers = Vec::new();
    for (_, frame) in frames.iter().filter(|(from_joiner, _)| *from_joiner) {
        answers.extend(again.hear(at(0), stream(DESKTOP), frame));
    }
    assert_eq!(again.inviter.state(), InviteState::Burned { by: id(DESKTOP) });
    assert!(!again.roster.is_member(id(DESKTOP)));
}

#[test]
fn frames_in_any_wrong_order_are_refused() {
    let mut laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let script = talk(&mut laptop, &mut desktop, plainly);
    for upto in 0..script.len() {
        for (wrong, (_, frame)) in script.iter().enumerate() {
            if wrong == upto {
                continue;
            }
            let mut laptop = Laptop::new();
            let mut desktop = Desktop::new(&laptop.code());
            talk(&mut laptop, &mut desktop, |at, sent| {
                assert!(at > upto || sent == script[at].1, "the script is the same every time");
                if at == upto { vec![frame.clone()] } else { vec![sent] }
            });
            assert!(!laptop.joined(), "frame {wrong} instead of {upto}");
            let stored = desktop.joined().is_some();
            assert!(!stored || upto == 6, "frame {wrong} instead of {upto}");
        }
    }
}

#[test]
fn flipped_bit_anywhere_ends_in_a_refusal_and_never_in_a_wrong_mesh() {
    for which in 0..7 {
        let length = {
            let mut laptop = Laptop::new();
            let mut desktop = Desktop::new(&laptop.code());
            talk(&mut laptop, &mut desktop, plainly)[which].1.len()
        };
        for byte in 0..length {
            let mut laptop = Laptop::new();
            let mut desktop = Desktop::new(&laptop.code());
            talk(&mut laptop, &mut desktop, |at, mut frame| {
                if at == which {
                    frame[byte] ^= 1 << (byte % 8);
                }
                vec![frame]
            });
            assert!(!laptop.joined(), "frame {which} byte {byte}");
            let refused = laptop.events.iter().any(|event| {
                matches!(
                    event,
                    InviterEvent::Failed { .. }
                        | InviterEvent::Burned { .. }
                        | InviterEvent::Unconfirmed { .. }
                )
            });
            assert!(refused || desktop.why_not().is_some(), "frame {which} byte {byte}");
            match desktop.joined() {
                // Only the joiner's own last word was damaged.
                Some((mesh, _)) => assert!(which == 6 && mesh == laptop.roster.mesh()),
                None => assert!(which < 6),
            }
        }
    }
}

/// Mallory ends both streams with his own key and passes every frame on.
fn through_mallory(secret: impl Fn(&Laptop) -> Secret) {
    let mut laptop = Laptop::new();
    let secret = secret(&laptop);
    let mut desktop = Desktop::towards(MALLORY, DESKTOP, &secret);
    let mut to_laptop: VecDeque<_> = desktop.said().into();
    while let Some(frame) = to_laptop.pop_front() {
        for answer in laptop.hear(at(0), stream(MALLORY), &frame) {
            to_laptop.extend(desktop.hear(at(0), &answer));
        }
    }
    assert_eq!(desktop.why_not(), Some(Refusal::WrongCode));
    assert_eq!(laptop.inviter.state(), InviteState::Burned { by: id(MALLORY) });
    assert_eq!(laptop.roster.len(), 1);
}

#[test]
fn man_in_the_middle_with_his_own_key_gains_nothing() {
    through_mallory(Laptop::code);
    // With a ticket the joiner knows whom to expect, and does not even begin.
    let laptop = Laptop::new();
    let refused = Joiner::start(
        at(0),
        id(DESKTOP),
        stream(MALLORY),
        &laptop.ticket(),
        request(DESKTOP),
        None,
        [2; 32],
    );
    let error = JoinError::OtherInviter { named: id(LAPTOP), found: id(MALLORY) };
    assert_eq!(refused.unwrap_err(), error);
    // Even if Mallory had put himself into the ticket.
    through_mallory(|laptop| {
        let mut ticket = laptop.inviter.ticket().clone();
        ticket.inviter = id(MALLORY);
        Secret::Ticket(Box::new(ticket))
    });
}

#[test]
fn echoed_frames_do_not_confirm() {
    let laptop = Laptop::new();
    let mut desktop = Desktop::new(&laptop.code());
    let hello = desktop.said().remove(0);
    let Frame::Hello { share, .. } = decode(&hello).unwrap() else { panic!() };
    desktop.hear(at(0), &encode(&Frame::Answer { share }));
    assert_eq!(desktop.why_not(), Some(Refusal::Malformed));
}

/// A joiner that knows the secret and then says what it likes.
fn after_confirming(laptop: &mut Laptop, bodies: &[Vec<u8>]) -> Refusal {
    let devices = Devices { inviter: id(LAPTOP), joiner: id(DESKTOP) };
    let password = password("ticket", &laptop.inviter.ticket().secret);
    let (agreement, share) = Agreement::start(Role::Joiner, devices, &password, [5; 32]);
    let hello = encode(&Frame::Hello { version: VERSION, offer: Offer::Ticket, share });
    let answer = laptop.hear(at(0), stream(DESKTOP), &hello).remove(0);
    let Frame::Answer { share } = decode(&answer).unwrap() else { panic!() };
    let mut transcript = Transcript::new(devices);
    transcript.add(&hello);
    transcript.add(&answer);
    let keys = agreement.finish(&share, &transcript).unwrap();
    let mac = keys.confirmation(Role::Joiner);
    laptop.hear(at(0), stream(DESKTOP), &encode(&Frame::Confirm { mac }));
    let mut channel = keys.channel(Role::Joiner);
    let mut heard = Vec::new();
    for body in bodies {
        let mac = channel.seal(body);
        let frame = encode(&Frame::Sealed { body: body.clone(), mac });
        heard = laptop.hear(at(0), stream(DESKTOP), &frame);
    }
    match decode(heard.last().unwrap()) {
        Ok(Frame::Refused { reason }) => Refusal::from_number(reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn inviter_checks_the_request_of_one_who_knows_the_secret() {
    let asks = |request| encode(&Sealed::Request(request));
    let good = request(DESKTOP);
    let oversized = RecordBytes(vec![0; FOUNDING_BYTES_MAX + 1]);
    for bad in [
        request(3),
        JoinRequest { name: String::new(), ..good.clone() },
        JoinRequest { addresses: vec!["a b".into()], ..good.clone() },
        JoinRequest { founding: Some(oversized), ..good.clone() },
        JoinRequest { founding: Some(RecordBytes(vec![1, 2, 3])), ..good.clone() },
    ] {
        let mut laptop = Laptop::new();
        assert_eq!(after_confirming(&mut laptop, &[asks(bad)]), Refusal::InvalidRequest);
        assert!(!laptop.roster.is_member(id(DESKTOP)));
        assert_eq!(laptop.inviter.state(), InviteState::Burned { by: id(DESKTOP) });
    }
    let mut laptop = Laptop::new();
    let stored = encode(&Sealed::Stored);
    assert_eq!(after_confirming(&mut laptop, &[stored]), Refusal::OutOfOrder);
    let mut laptop = Laptop::new();
    let twice = [asks(good.clone()), asks(good)];
    assert_eq!(after_confirming(&mut laptop, &twice), Refusal::OutOfOrder);
    assert!(matches!(laptop.events.last(), Some(InviterEvent::Unconfirmed { .. })));
}

/// Takes the exchange to where the inviter is asked to admit; then `answer` says what it sends.
fn admitted_with(secret: &Secret, laptop: &mut Laptop, records: &Roster) -> Option<Refusal> {
    let mut desktop = Desktop::new(secret);
    let mut frames = desktop.said();
    while !frames.is_empty() {
        for frame in std::mem::take(&mut frames) {
            laptop.inviter.handle_frame(at(0), stream(DESKTOP), &frame);
            while let Some(event) = laptop.inviter.poll_event() {
                if matches!(event, InviterEvent::Admit { .. }) {
                    laptop.inviter.admitted(at(0), records.records_in_order());
                }
            }
            for answer in laptop.said(stream(DESKTOP)) {
                frames.extend(desktop.hear(at(0), &answer));
            }
        }
    }
    assert_eq!(desktop.why_not().is_none(), desktop.joined().is_some());
    desktop.why_not()
}

#[test]
fn joiner_checks_the_roster_that_it_is_given() {
    let mut laptop = Laptop::new();
    let own = read_own_mesh();
    let admit = |roster: &mut Roster, prior| {
        let bytes = roster.admit(id(DESKTOP), "desktop", prior, at(0).wall, &key(LAPTOP)).unwrap();
        roster.insert(&bytes.0).unwrap();
    };
    // Not admitted at all.
    let roster = laptop.roster.clone();
    let secret = laptop.code();
    let why = admitted_with(&secret, &mut laptop, &roster);
    assert_eq!(why, Some(Refusal::NotMember));
    // Admitted without what it brings.
    let mut laptop = Laptop::new();
    let mut roster = laptop.roster.clone();
    admit(&mut roster, None);
    let why = admitted_with(&secret, &mut laptop, &roster);
    assert_eq!(why, Some(Refusal::NotMember));
    // Admitted to another mesh than the ticket names; a code names none.
    let mut other = Roster::found("laptop", [99; 16], at(0).wall, &key(LAPTOP)).unwrap();
    admit(&mut other, Some(own));
    let mut laptop = Laptop::new();
    let ticket = laptop.ticket();
    assert_eq!(admitted_with(&ticket, &mut laptop, &other), Some(Refusal::WrongMesh));
    let mut laptop = Laptop::new();
    assert_eq!(admitted_with(&secret, &mut laptop, &other), None);
}

fn read_own_mesh() -> MeshId {
    crate::roster::read_founding(&request(DESKTOP).founding.unwrap().0).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_at_any_step_are_survived(
        upto in 0_usize..7,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut laptop = Laptop::new();
        let mut desktop = Desktop::new(&laptop.code());
        talk(&mut laptop, &mut desktop, |at, frame| {
            if at == upto { vec![bytes.clone()] } else { vec![frame] }
        });
        prop_assert!(!laptop.joined());
    }
}
