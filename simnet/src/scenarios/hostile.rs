//! Stories about a member that breaks the rules: always the last one.

use std::collections::BTreeMap;

use serde_json::json;
use srcos_lanes::lane::LaneId::{Normal, Priority, Tombstone};
use srcos_lanes::store::DEVICE_JOURNALS_MAX;

use super::Scenario;
use crate::hostile::Trick;
use crate::invariants::Checked;
use crate::options::Topology;
use crate::world::World;

pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "hostile-member",
        "a member plays every trick but those that have a story of their own; the others agree in spite of it",
        4,
        hostile_member,
    )
    .shaped(|options| {
        // Its own journal has one history here, nobody is put out, and it means what it does: the other tricks have
        // stories of their own.
        let apart =
            [Trick::Smuggle, Trick::Accomplice, Trick::WithholdRun, Trick::ReorderRun];
        let others =
            Trick::ALL.into_iter().filter(|trick| !trick.is_steady() && !apart.contains(trick));
        options.tricks = others.map(|trick| (trick, 5)).collect();
    }),
    Scenario::new(
        "equivocating-member",
        "a member shows two histories; both are kept as evidence by those who see both",
        4,
        equivocating_member,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Equivocate, 1)])),
    Scenario::new(
        "forged-entry",
        "a member goes on with the journal of another, under its own signature: nobody takes it",
        3,
        forged_entry,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Forge, 1)])),
    Scenario::new(
        "altered-bodies",
        "a member hands on entries with other bodies than were signed: nobody takes them",
        3,
        altered_bodies,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Body, 3)])),
    Scenario::new(
        "withheld-entries",
        "a member leaves out frames: what was left out is asked for again",
        2,
        withheld_entries,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Withhold, 4)])),
    Scenario::new(
        "faulty-program",
        "the program of the one in the middle loses runs and swaps them; mended, it agrees with all over the links that it has",
        3,
        faulty_program,
    )
    .shaped(|options| {
        options.topology = Topology::Chain;
        options.by_fault_of = Some(1);
        options.tricks = Trick::FAULTS.into_iter().map(|trick| (trick, 4)).collect();
    }),
    Scenario::new(
        "larger-than-the-window",
        "a faulty program loses a run for which its link waits: what is held is asked for again over that link",
        2,
        larger_than_the_window,
    )
    .shaped(|options| {
        options.by_fault_of = Some(1);
        options.tricks = BTreeMap::from([(Trick::WithholdRun, 1)]);
    }),
    Scenario::new(
        "lost-and-put-out",
        "a faulty program loses a run, and its device is put out: what is built on that waits for ever, and is not called in step",
        3,
        lost_and_put_out,
    )
    .shaped(|options| {
        options.by_fault_of = Some(1);
        options.tricks = BTreeMap::from([(Trick::WithholdRun, 1)]);
    }),
    Scenario::new(
        "mesh-lost-but-for-a-thief",
        "all who keep the rules lose the mesh, one of them put out: it is begun anew, whatever the thief still knows",
        3,
        mesh_lost_but_for_a_thief,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Garbage, 1_000)])),
    Scenario::new(
        "smuggled-entries",
        "a member hands on what a device wrote after it was put out: nobody takes it",
        4,
        smuggled_entries,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Smuggle, 1)])),
    Scenario::new(
        "accomplice-unseen",
        "a stolen device takes in an accomplice, and is put out unheard: nobody knows the accomplice",
        4,
        accomplice_unseen,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Accomplice, 1)])),
    Scenario::new(
        "accomplice-believed",
        "some believe the accomplice of a stolen device until they hear that it was put out",
        4,
        accomplice_believed,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Accomplice, 1)])),
    Scenario::new(
        "journals-without-end",
        "a member begins hundreds of journals; stores stay small, and the others work on",
        4,
        journals_without_end,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::Journals, 1)])),
    Scenario::new(
        "far-lives",
        "a member signs far lives and far times of objects that all use, which go on being usable",
        4,
        far_lives,
    )
    .shaped(|options| options.tricks = BTreeMap::from([(Trick::FarLife, 1)])),
    Scenario::new(
        "many-faces",
        "a member shows each peer its own history; all learn of it, also one that joins late",
        5,
        many_faces,
    )
    .shaped(|options| {
        options.outsiders = 1;
        options.tricks = BTreeMap::from([(Trick::Faces, 1)]);
    }),
];

/// The member that breaks the rules, where there are four.
const THIEF: usize = 3;

fn hostile_member(world: &mut World) -> Checked {
    // Twelve rounds at least; some tricks need a frame of their kind at the right time, which may take more.
    for round in 0..60 {
        if round >= 12 && world.claim_all_played(THIEF).is_ok() {
            break;
        }
        for node in 0..4 {
            world.work(node, 2, round * 4 + node as u64)?;
        }
        world.pass(5_000)?;
    }
    world.claim_all_played(THIEF)?;
    world.come_to_rest()
}

fn equivocating_member(world: &mut World) -> Checked {
    // Only the second device is shown the other history, so it must hear of it before the first one.
    world.part(&[1, 3]);
    world.put(3, Normal, "two-faced", json!({ "to": "everyone" }))?;
    world.put(0, Normal, "honest", json!(1))?;
    // Not so long that a digest shows the member its own other history.
    world.pass(10_000)?;
    world.mend_network();
    world.part(&[1]);
    world.pass(60_000)?;
    world.mend_network();
    world.pass(60_000)?;
    let proofs = (0..3).filter(|node| world.has_proof_against(*node, 3)).count();
    world.claim(proofs > 0, "somebody keeps the proof of two histories")?;
    world.come_to_rest()
}

fn forged_entry(world: &mut World) -> Checked {
    world.part(&[0]);
    world.put(1, Normal, "note", json!(1))?;
    world.pass(5_000)?;
    // Now the first hears of the note from the third only.
    world.mend_network();
    world.part(&[1]);
    world.pass(60_000)?;
    world.claim(world.shows(0, Normal, "note") == Some(json!(1)), "the note is handed on")?;
    world.mend_network();
    world.put(1, Normal, "another", json!(2))?;
    world.pass(60_000)?;
    world.come_to_rest()
}

fn altered_bodies(world: &mut World) -> Checked {
    world.part(&[0]);
    for number in 0..8 {
        world.put(1, Normal, &format!("note/{number}"), json!(number))?;
        world.pass(1_000)?;
    }
    // Now the first hears of the notes from the third only.
    world.mend_network();
    world.part(&[1]);
    for number in 0..30 {
        if number >= 8 && world.has_played(2, Trick::Body) {
            break;
        }
        world.put(2, Normal, &format!("other/{number}"), json!(number))?;
        world.pass(20_000)?;
    }
    world.claim(world.has_played(2, Trick::Body), "bodies were altered")?;
    let shown =
        |world: &World, id: String, value| world.shows(0, Normal, &id) == Some(json!(value));
    let notes = (0..8).filter(|number| shown(world, format!("note/{number}"), *number)).count();
    world.claim(notes == 8, "what was signed comes over a later link")?;
    world.mend_network();
    world.come_to_rest()
}

fn withheld_entries(world: &mut World) -> Checked {
    for number in 0..20 {
        // There is nobody else from whom the other could have it.
        world.put(1, Normal, &format!("page/{number}"), json!(number))?;
        world.pass(1_000)?;
    }
    // Of what is left out last, no later entry tells.
    world.claim(world.shows(0, Normal, "page/10") == Some(json!(10)), "the gap was filled")?;
    world.come_to_rest()
}

fn faulty_program(world: &mut World) -> Checked {
    for salt in 0..4 {
        for node in 0..3 {
            world.work(node, 5, 3 * salt + node as u64)?;
        }
        world.pass(5_000)?;
    }
    world.claim_all_played(1)?;
    world.come_to_rest()
}

fn larger_than_the_window(world: &mut World) -> Checked {
    // Digits of a power of three, which hardly pack.
    let digits = (0..60_000).scan(1_u64, |power, _| {
        *power = power.wrapping_mul(3);
        Some(char::from(b'0' + (*power >> 59) as u8))
    });
    world.put(1, Normal, "large", json!(digits.collect::<String>()))?;
    world.pass(5_000)?;
    world.spare(1);
    world.put(1, Normal, "after", json!(1))?;
    world.pass(5_000)?;
    world.claim(world.shows(0, Normal, "after").is_none(), "the link waits for the lost one")?;
    world.come_to_rest()?;
    world.claim(world.shows(0, Normal, "after").is_some(), "it waits no more")?;
    world.claim(world.shows(0, Normal, "large").is_some(), "what was lost came")
}

fn lost_and_put_out(world: &mut World) -> Checked {
    world.put(1, Normal, "note", json!(1))?;
    world.pass(5_000)?;
    // With another journal, no later entry tells of the gap in the one before.
    world.lose_count(1);
    world.pass(60_000)?;
    world.claim(world.shows(0, Normal, "note").is_none(), "it was lost again")?;
    world.spare(1);
    world.put(1, Normal, "note", json!(2))?;
    world.pass(5_000)?;
    world.claim(world.incarnations(0, 1, Normal) == 1, "the others hold what was written later")?;
    world.claim(world.shows(0, Normal, "note").is_none(), "it waits for what was lost")?;
    world.put_out(0, 1)?;
    world.come_to_rest()?;
    world.claim(!world.says_in_step(0, 2, Normal), "who waits for ever does not say in step")
}

fn mesh_lost_but_for_a_thief(world: &mut World) -> Checked {
    world.put(0, Normal, "note", json!(1))?;
    world.pass(5_000)?;
    // The thief does not hear of it, and is all that is left of the mesh.
    world.part(&[2]);
    world.put_out(0, 1)?;
    world.pass(5_000)?;
    world.wipe(1);
    world.wipe(0);
    world.come_to_rest()?;
    world.claim(world.happened("mesh lost") == 1, "it is begun anew")?;
    world.claim(!world.takes_for_member(0, 1), "who was put out is not in the new one")
}

fn smuggled_entries(world: &mut World) -> Checked {
    world.put(2, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.part(&[2]);
    world.put_out(0, 2)?;
    world.pass(5_000)?;
    world.put(2, Normal, "after", json!(2))?;
    world.smuggle(2, Normal);
    world.put(3, Normal, "harmless", json!(3))?;
    world.pass(60_000)?;
    world.claim(world.shows(0, Normal, "harmless").is_some(), "the member is heard")?;
    world.claim(world.shows(0, Normal, "after").is_none(), "what was smuggled in is not taken")?;
    world.come_to_rest()
}

fn accomplice_unseen(world: &mut World) -> Checked {
    world.put(THIEF, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    let accomplice = world.take_in_unseen()?;
    // Only the thief knows it yet.
    world.part(&[THIEF, accomplice]);
    world.put(accomplice, Normal, "theirs", json!(1))?;
    world.pass(5_000)?;
    world.claim(world.shows(THIEF, Normal, "theirs").is_some(), "the thief has it")?;
    world.put_out(0, THIEF)?;
    world.pass(5_000)?;
    world.mend_network();
    world.put(THIEF, Normal, "later", json!(2))?;
    world.put(1, Normal, "honest", json!(3))?;
    world.pass(60_000)?;
    nobody_knows(world, accomplice)?;
    for node in 0..THIEF {
        world
            .claim(world.shows(node, Normal, "before").is_some(), "what was taken before stays")?;
        world.claim(world.shows(node, Normal, "theirs").is_none(), "nothing of it is taken")?;
        world.claim(world.shows(node, Normal, "later").is_none(), "nor of the thief, any more")?;
    }
    world.claim(world.shows(accomplice, Normal, "honest").is_none(), "it is told nothing")?;
    world.come_to_rest()
}

fn accomplice_believed(world: &mut World) -> Checked {
    world.pass(5_000)?;
    let accomplice = world.take_in_unseen()?;
    world.part(&[0]);
    world.pass(5_000)?;
    world.claim(world.takes_for_member(1, accomplice), "who has not heard of it believes it")?;
    world.put(accomplice, Normal, "theirs", json!({ "a": 1 }))?;
    world.pass(5_000)?;
    let taken = world.shows(1, Normal, "theirs") == Some(json!({ "a": 1 }));
    world.claim(taken, "who believes it takes what it wrote")?;
    world.put(1, Normal, "theirs", json!({ "a": 1, "b": 2 }))?;
    world.put(1, Normal, "own", json!(1))?;
    world.pass(5_000)?;
    world.put_out(0, THIEF)?;
    world.pass(5_000)?;
    world.mend_network();
    world.pass(60_000)?;
    nobody_knows(world, accomplice)?;
    world.put(2, Normal, "honest", json!(3))?;
    world.pass(60_000)?;
    world.come_to_rest()?;
    nobody_knows(world, accomplice)?;
    world.claim(world.shows(accomplice, Normal, "honest").is_none(), "it is told nothing more")?;
    let kept = |node| world.shows(node, Normal, "theirs");
    world.claim(kept(1).is_some() && kept(1) == kept(2), "who believed it keeps what it took")?;
    for (node, holds) in [(0, false), (1, true), (2, true)] {
        let held = world.incarnations(node, accomplice, Normal) > 0;
        world.claim(held == holds, &format!("n{node} holds entries of it: {held}"))?;
    }
    world.claim(world.shows(0, Normal, "own") == Some(json!(1)), "nobody waits for the rest")
}

/// Nobody who keeps the rules takes the accomplice for a member.
fn nobody_knows(world: &World, accomplice: usize) -> Checked {
    let known = (0..THIEF).any(|node| world.takes_for_member(node, accomplice));
    world.claim(!known, "nobody takes it for a member")
}

fn journals_without_end(world: &mut World) -> Checked {
    for round in 0..16 {
        world.put(THIEF, Normal, &format!("page/{}", round % 4), json!({ "round": round }))?;
        world.put(round % 3, Normal, &format!("page/{}", round % 4), json!({ "by": round }))?;
        world.pass(2_000)?;
    }
    let held = |world: &World, node| world.incarnations(node, THIEF, Normal);
    for node in 0..THIEF {
        let found = held(world, node);
        world.claim(found == DEVICE_JOURNALS_MAX, &format!("n{node} took {found} journals"))?;
    }
    world.put(1, Normal, "honest", json!(1))?;
    world.put(2, Priority, "honest", json!(2))?;
    world.pass(60_000)?;
    for (node, other) in [(0, 1), (1, 2), (2, 0)] {
        world.claim(world.shows(node, Normal, "honest").is_some(), "the honest journals go on")?;
        world.claim(world.says_in_step(node, other, Priority), "so do the other lanes")?;
    }
    // To put it out brings together what each took.
    world.come_to_rest()?;
    let all = held(world, 0);
    world.claim(all > DEVICE_JOURNALS_MAX, &format!("{all} journals in all"))
}

fn far_lives(world: &mut World) -> Checked {
    world.put(THIEF, Normal, "shared/0", json!({ "by": "the member" }))?;
    world.pass(5_000)?;
    for round in 0..20_usize {
        let id = format!("shared/{}", round % 3);
        let body = json!({ "round": round });
        world.put(round % 3, Normal, &id, body.clone())?;
        world.put(THIEF, Normal, &id, json!({ "by": "the member", "round": round }))?;
        world.pass(3_000)?;
        if world.shows(round % 3, Normal, &id).is_some() {
            world.delete(round % 3, Normal, &id)?;
        }
        world.put((round + 1) % 3, Normal, &id, body)?;
        world.pass(3_000)?;
    }
    for node in 0..THIEF {
        // One journal is its engine's own.
        let far = world.incarnations(node, THIEF, Normal) > 1;
        let graves = world.incarnations(node, THIEF, Tombstone) > 0;
        world.claim(far && graves, &format!("n{node} took far lives and their deletions"))?;
    }
    // It may write to the life that is shown, as any member. Where it cannot, what is put is what is shown.
    world.part(&[THIEF]);
    world.pass(5_000)?;
    for number in 0..3 {
        let (id, body) = (format!("shared/{number}"), json!({ "last": number }));
        if number > 0 {
            world.delete(number, Normal, &id)?;
        }
        world.put(number, Normal, &id, body.clone())?;
        world.pass(3_000)?;
        for node in 0..THIEF {
            let shown = world.shows(node, Normal, &id);
            world.claim(shown == Some(body.clone()), &format!("n{node} shows {shown:?}"))?;
        }
    }
    world.come_to_rest()
}

fn many_faces(world: &mut World) -> Checked {
    let (faces, late) = (4, 5);
    // Journals begin alike.
    for number in 0..2 {
        world.put(faces, Normal, &format!("page/{number}"), json!(number))?;
    }
    world.pass(5_000)?;
    for number in 0..4 {
        let claimed = (0..faces).any(|node| world.has_proof_against(node, faces));
        world.claim(!claimed || number > 0, "there is nothing to be seen yet")?;
        world.put(faces, Normal, &format!("page/{number}"), json!({ "again": number }))?;
        world.put(number, Normal, &format!("page/{number}"), json!({ "honest": number }))?;
        world.pass(5_000)?;
    }
    world.take_in(0, late)?;
    world.put(late, Normal, "late", json!(1))?;
    world.pass(120_000)?;
    world.come_to_rest()?;
    for node in (0..=late).filter(|node| *node != faces) {
        let what = format!("n{node} knows of two histories");
        world.claim(world.has_proof_against(node, faces), &what)?;
        world.claim(world.shows(node, Normal, "late").is_some(), "honest journals go on")?;
        for other in (0..=late).filter(|other| *other != faces && *other != node) {
            let what = format!("n{node} is in step with n{other}");
            world.claim(world.says_in_step(node, other, Normal), &what)?;
        }
    }
    Ok(())
}
