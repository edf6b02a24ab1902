//! What the roster promises, one claim each.

use ed25519_dalek::SigningKey;
use srcos_lanes::ids::{DeviceId, EntryHash, Incarnation, MeshId, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::signature::Signer;

use super::*;

const AT: WallMillis = WallMillis(1_700_000_000_000);

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn id(number: u8) -> DeviceId {
    key(number).device()
}

/// A mesh that device 1 founded.
fn mesh() -> Roster {
    Roster::found("one", [7; 16], AT, &key(1)).unwrap()
}

fn take(roster: &mut Roster, bytes: &RecordBytes) -> RecordId {
    match roster.insert(&bytes.0).unwrap() {
        Inserted::New(ids) => ids[0],
        other => panic!("{other:?}"),
    }
}

fn admit(roster: &mut Roster, by: u8, whom: u8) -> RecordId {
    let name = format!("device {whom}");
    let bytes = roster.admit(id(whom), &name, None, AT, &key(by)).unwrap();
    take(roster, &bytes)
}

fn revoke(roster: &mut Roster, by: u8, whom: u8) -> RecordId {
    revoke_with(roster, by, whom, Vec::new())
}

fn revoke_with(roster: &mut Roster, by: u8, whom: u8, frontier: Vec<JournalMark>) -> RecordId {
    let bytes = roster.revoke(id(whom), "lost", frontier, AT, &key(by)).unwrap();
    take(roster, &bytes)
}

/// Both hold what either held.
fn exchange(a: &mut Roster, b: &mut Roster) {
    let held = (a.clone(), b.clone());
    for (from, to) in [(held.0, &mut *b), (held.1, &mut *a)] {
        for bytes in from.missing_from(&to.heads()) {
            to.insert(&bytes.0).unwrap();
        }
    }
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.members(), b.members());
    assert_eq!(a.revoked(), b.revoked());
}

fn member_numbers(roster: &Roster) -> Vec<u8> {
    (1..=20).filter(|number| roster.is_member(id(*number))).collect()
}

fn mark(seq: u64, hash: u8) -> JournalMark {
    let hash = EntryHash([hash; 32]);
    JournalMark { lane: LaneId::Normal, incarnation: Incarnation(1), seq, hash }
}

fn verdict(roster: &Roster, whom: u8, seq: u64, hash: u8) -> Verdict {
    roster.accepts(id(whom), LaneId::Normal, Incarnation(1), seq, EntryHash([hash; 32]))
}

#[test]
fn founder_is_the_first_member() {
    let roster = mesh();
    assert_eq!(member_numbers(&roster), [1]);
    assert!(roster.is_founder(id(1)));
    assert_eq!(roster.members()[&id(1)].name, "one");
    assert_eq!(roster.members()[&id(1)].depth, 0);
    let (mesh, founder) = read_founding(&roster.founding().0).unwrap();
    assert_eq!((mesh, founder), (roster.mesh(), id(1)));
}

#[test]
fn members_admit_members() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    admit(&mut roster, 2, 3);
    assert_eq!(member_numbers(&roster), [1, 2, 3]);
    assert_eq!(roster.members()[&id(3)].depth, 2);
    assert_eq!(roster.members()[&id(3)].by, id(2));
}

#[test]
fn stranger_writes_nothing_into_the_roster() {
    let mut roster = mesh();
    let error = roster.admit(id(3), "x", None, AT, &key(2)).unwrap_err();
    assert_eq!(error, RosterError::NotAuthorised { device: id(2) });
    // One that was made all the same.
    let mut other = roster.clone();
    admit(&mut other, 1, 2);
    let act = Act::Admit { device: id(3), name: "x".into(), prior_mesh: None };
    let parents = roster.heads();
    let record = Record::new(Some(roster.mesh()), parents, id(2), AT, act);
    let (_, bytes) = record.seal(&key(2)).unwrap();
    assert_eq!(roster.insert(&bytes.0).unwrap_err(), RosterError::Stranger { by: id(2) });
    // Being admitted elsewhere, in what the record does not know, does not help.
    assert_eq!(other.insert(&bytes.0).unwrap_err(), RosterError::Stranger { by: id(2) });
}

#[test]
fn revoked_device_is_out() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    revoke(&mut roster, 1, 2);
    assert_eq!(member_numbers(&roster), [1]);
    assert_eq!(roster.revoked()[&id(2)].reason, "lost");
    assert_eq!(roster.revoked()[&id(2)].name, "device 2");
    assert!(roster.admit(id(3), "x", None, AT, &key(2)).is_err());
}

#[test]
fn revoked_device_cannot_revoke_others_backdated() {
    let mut honest = mesh();
    admit(&mut honest, 1, 2);
    admit(&mut honest, 1, 3);
    let mut stolen = honest.clone();
    revoke(&mut honest, 1, 2);
    let void = revoke(&mut stolen, 2, 3);
    exchange(&mut honest, &mut stolen);
    assert_eq!(member_numbers(&honest), [1, 3]);
    assert!(!honest.counts(void));
}

#[test]
fn member_that_lost_its_store_is_taken_in_again_with_the_mesh_it_made_since() {
    let mut roster = mesh();
    let (first, second) = (MeshId([1; 32]), MeshId([2; 32]));
    let admission = roster.admit(id(2), "two", Some(first), AT, &key(1)).unwrap();
    take(&mut roster, &admission);
    for known in [None, Some(first), Some(roster.mesh())] {
        assert!(!roster.needs_admission(id(2), known), "{known:?}");
        assert!(roster.admit(id(2), "two", known, AT, &key(1)).is_err());
    }
    let seat = roster.members()[&id(2)].clone();
    let again = roster.admit(id(2), "two", Some(second), AT, &key(1)).unwrap();
    take(&mut roster, &again);
    assert_eq!(roster.allowed_meshes(id(2)), [roster.mesh(), first, second]);
    assert_eq!(roster.members()[&id(2)].depth, seat.depth);
    let revocation = revoke(&mut roster, 1, 2);
    assert!(roster.needs_admission(id(2), Some(second)), "{revocation:?}");
}

#[test]
fn revoked_device_cannot_admit_accomplices_backdated() {
    let mut honest = mesh();
    admit(&mut honest, 1, 2);
    let mut stolen = honest.clone();
    revoke(&mut honest, 1, 2);
    admit(&mut stolen, 2, 9);
    revoke(&mut stolen, 9, 1);
    exchange(&mut honest, &mut stolen);
    assert_eq!(member_numbers(&honest), [1]);
    assert_eq!(verdict(&honest, 9, 1, 1), Verdict::NotAdmitted);
}

#[test]
fn junior_may_revoke_a_senior_that_revokes_somebody_else() {
    let mut honest = mesh();
    admit(&mut honest, 1, 2);
    admit(&mut honest, 1, 3);
    let mut stolen = honest.clone();
    revoke(&mut honest, 2, 1);
    revoke(&mut stolen, 1, 3);
    exchange(&mut honest, &mut stolen);
    assert_eq!(member_numbers(&honest), [2, 3]);
}

#[test]
fn what_a_device_did_before_its_revocation_stands() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    admit(&mut roster, 2, 3);
    revoke(&mut roster, 3, 2);
    assert_eq!(member_numbers(&roster), [1, 3]);
}

#[test]
fn revocation_wins_over_concurrent_admission() {
    let mut a = mesh();
    admit(&mut a, 1, 2);
    admit(&mut a, 1, 3);
    revoke(&mut a, 1, 3);
    let mut b = a.clone();
    admit(&mut a, 1, 3);
    exchange(&mut a, &mut b);
    let mut c = b.clone();
    revoke(&mut a, 1, 3);
    revoke(&mut b, 2, 3);
    admit(&mut b, 2, 3);
    // `b` took the device in again knowing of its own revocation, but not of that in `a`.
    exchange(&mut a, &mut b);
    assert_eq!(member_numbers(&a), [1, 2]);
    exchange(&mut b, &mut c);
    assert_eq!(member_numbers(&c), [1, 2]);
}

#[test]
fn readmission_needs_the_revocation_in_its_past() {
    let mut a = mesh();
    admit(&mut a, 1, 2);
    let before = a.clone();
    let revocation = revoke(&mut a, 1, 2);
    // An admission on the heads from before the revocation.
    let act = Act::Admit { device: id(2), name: "again".into(), prior_mesh: None };
    let stale = Record::new(Some(a.mesh()), before.heads(), id(1), AT, act);
    let (_, bytes) = stale.seal(&key(1)).unwrap();
    take(&mut a, &bytes);
    assert_eq!(member_numbers(&a), [1]);
    let again = admit(&mut a, 1, 2);
    let past = a.places[&revocation];
    assert!(a.nodes[a.places[&again]].past.has(past));
    assert_eq!(member_numbers(&a), [1, 2]);
    assert!(a.revoked().is_empty());
    // It may write again.
    admit(&mut a, 2, 3);
    assert_eq!(member_numbers(&a), [1, 2, 3]);
}

#[test]
fn mutual_revocation_is_settled_by_depth_then_age() {
    for (senior, junior) in [(1, 2), (2, 3), (2, 4), (3, 4)] {
        let mut a = mesh();
        admit(&mut a, 1, 2);
        admit(&mut a, 1, 3);
        admit(&mut a, 3, 4);
        let mut b = a.clone();
        revoke(&mut a, senior, junior);
        revoke(&mut b, junior, senior);
        exchange(&mut a, &mut b);
        assert!(a.is_member(id(senior)), "{senior} over {junior}");
        assert!(!a.is_member(id(junior)), "{senior} over {junior}");
    }
}

#[test]
fn circle_of_revocations_leaves_the_most_senior_in() {
    let mut a = mesh();
    for number in 2..=5 {
        admit(&mut a, 1, number);
    }
    let (mut b, mut c) = (a.clone(), a.clone());
    revoke(&mut a, 3, 4);
    revoke(&mut b, 4, 5);
    revoke(&mut c, 5, 3);
    exchange(&mut a, &mut b);
    exchange(&mut b, &mut c);
    exchange(&mut c, &mut a);
    // 3 is believed: 4 is out, so 4 did not revoke 5, so 5 revoked 3. But that was the circle.
    assert_eq!(member_numbers(&a), [1, 2, 3, 5]);
}

#[test]
fn device_leaves_by_revoking_itself() {
    let mut roster = mesh();
    let error = roster.revoke(id(1), "bye", Vec::new(), AT, &key(1)).unwrap_err();
    assert_eq!(error, RosterError::LastMember { device: id(1) });
    admit(&mut roster, 1, 2);
    revoke(&mut roster, 1, 1);
    assert_eq!(member_numbers(&roster), [2]);
    assert_eq!(roster.founder(), id(1));
    admit(&mut roster, 2, 3);
    assert_eq!(member_numbers(&roster), [2, 3]);
}

#[test]
fn entries_of_members_are_accepted_and_of_strangers_refused() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    assert_eq!(verdict(&roster, 2, 1_000_000, 1), Verdict::Member);
    assert_eq!(verdict(&roster, 3, 1, 1), Verdict::NotAdmitted);
    assert!(!Verdict::NotAdmitted.is_accepted());
    assert_eq!(Verdict::NotAdmitted.code(), "author_not_admitted");
}

#[test]
fn of_a_revoked_device_only_what_was_held_is_accepted() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    revoke_with(&mut roster, 1, 2, vec![mark(10, 0xaa), mark(3, 0xbb)]);
    assert_eq!(verdict(&roster, 2, 9, 1), Verdict::HeldBeforeRevocation);
    assert_eq!(verdict(&roster, 2, 10, 0xaa), Verdict::HeldBeforeRevocation);
    assert_eq!(verdict(&roster, 2, 10, 0xab), Verdict::NotTheOneHeld);
    assert_eq!(verdict(&roster, 2, 11, 1), Verdict::AfterRevocation);
    let hash = EntryHash([0xaa; 32]);
    let other = roster.accepts(id(2), LaneId::Memory, Incarnation(1), 1, hash);
    assert_eq!(other, Verdict::JournalNotNamed);
    let clone = roster.accepts(id(2), LaneId::Normal, Incarnation(2), 1, hash);
    assert_eq!(clone, Verdict::JournalNotNamed);
}

#[test]
fn witness_extends_what_is_accepted_of_a_revoked_device() {
    let mut a = mesh();
    admit(&mut a, 1, 2);
    admit(&mut a, 1, 3);
    let revocation = revoke_with(&mut a, 1, 2, vec![mark(10, 0xaa)]);
    assert_eq!(verdict(&a, 2, 20, 0xcc), Verdict::AfterRevocation);
    let bytes = a.witness(revocation, vec![mark(20, 0xcc)], AT, &key(3)).unwrap();
    take(&mut a, &bytes);
    assert_eq!(verdict(&a, 2, 20, 0xcc), Verdict::HeldBeforeRevocation);
    assert_eq!(verdict(&a, 2, 20, 0xcd), Verdict::NotTheOneHeld);
    assert_eq!(verdict(&a, 2, 21, 1), Verdict::AfterRevocation);
    assert_eq!(a.accepted_frontier(id(2)), [mark(20, 0xcc)]);
    // A witness that leaves later leaves its testimony behind: what was accepted stays so.
    revoke(&mut a, 3, 3);
    assert_eq!(verdict(&a, 2, 20, 0xcc), Verdict::HeldBeforeRevocation);
}

#[test]
fn revoked_device_and_its_like_are_no_witnesses() {
    let mut a = mesh();
    admit(&mut a, 1, 2);
    admit(&mut a, 1, 3);
    let before = a.clone();
    let revocation = revoke_with(&mut a, 1, 2, vec![mark(10, 0xaa)]);
    let act = Act::Witness { revocation, frontier: vec![mark(99, 9)] };
    let record = Record::new(Some(a.mesh()), a.heads(), id(2), AT, act.clone());
    let (_, own) = record.seal(&key(2)).unwrap();
    let other = {
        let mut b = a.clone();
        let bytes = b.witness(revocation, vec![mark(99, 9)], AT, &key(3)).unwrap();
        take(&mut b, &bytes);
        bytes
    };
    take(&mut a, &own);
    assert_eq!(verdict(&a, 2, 99, 9), Verdict::AfterRevocation);
    // The other one was put out by somebody who did not know of its testimony.
    let mut c = before;
    revoke(&mut c, 1, 3);
    exchange(&mut a, &mut c);
    take(&mut a, &other);
    assert_eq!(verdict(&a, 2, 99, 9), Verdict::AfterRevocation);
}

#[test]
fn device_brings_its_mesh_of_one_along() {
    let mut roster = mesh();
    let own = Roster::found("two", [2; 16], AT, &key(2)).unwrap();
    let bytes = roster.admit(id(2), "two", Some(own.mesh()), AT, &key(1)).unwrap();
    take(&mut roster, &bytes);
    assert_eq!(roster.allowed_meshes(id(2)), [roster.mesh(), own.mesh()]);
    assert_eq!(roster.allowed_meshes(id(1)), [roster.mesh()]);
    // What it wrote there before it was put out is still to be read.
    revoke(&mut roster, 1, 2);
    assert_eq!(roster.allowed_meshes(id(2)), [roster.mesh(), own.mesh()]);
}

#[test]
fn newcomer_that_was_put_out_keeps_the_mesh_it_brought_when_its_admission_turns_out_void() {
    let mut a = mesh();
    for device in [2, 3] {
        admit(&mut a, 1, device);
    }
    let mut b = a.clone();
    let own = Roster::found("four", [4; 16], AT, &key(4)).unwrap();
    let bytes = a.admit(id(4), "four", Some(own.mesh()), AT, &key(2)).unwrap();
    take(&mut a, &bytes);
    let before = a.clone();
    revoke_with(&mut a, 3, 4, vec![mark(5, 9)]);
    // Its sponsor is put out by somebody who heard of none of that.
    revoke(&mut b, 1, 2);
    let mut c = b.clone();
    exchange(&mut a, &mut b);
    assert!(!a.is_member(id(4)));
    assert_eq!(verdict(&a, 4, 5, 9), Verdict::HeldBeforeRevocation);
    assert_eq!(a.allowed_meshes(id(4)), [a.mesh(), own.mesh()]);
    // Where nobody put it out, nothing of it is accepted, and no mesh is its own.
    let mut void = before;
    exchange(&mut void, &mut c);
    assert_eq!(verdict(&void, 4, 5, 9), Verdict::NotAdmitted);
    assert_eq!(void.allowed_meshes(id(4)), [void.mesh()]);
}

#[test]
fn later_name_wins() {
    let mut a = mesh();
    admit(&mut a, 1, 2);
    let late = WallMillis(AT.0 + 1_000_000);
    let bytes = a.rename(id(2), "far future", late, &key(2)).unwrap();
    take(&mut a, &bytes);
    // Later in the set, whatever the clock says.
    let bytes = a.rename(id(2), "desktop", AT, &key(1)).unwrap();
    take(&mut a, &bytes);
    assert_eq!(a.members()[&id(2)].name, "desktop");
}

#[test]
fn record_waits_for_its_parents_and_brings_those_that_wait_for_it() {
    let mut a = mesh();
    let mut b = a.clone();
    let first = admit(&mut a, 1, 2);
    let second = admit(&mut a, 2, 3);
    let bytes = |id| a.record(id).unwrap().1.0.clone();
    assert_eq!(b.insert(&bytes(second)).unwrap(), Inserted::Orphan(vec![first]));
    assert_eq!(b.insert(&bytes(second)).unwrap(), Inserted::Known);
    assert_eq!(member_numbers(&b), [1]);
    assert_eq!(b.insert(&bytes(first)).unwrap(), Inserted::New(vec![first, second]));
    assert_eq!(b.insert(&bytes(first)).unwrap(), Inserted::Known);
    assert_eq!(b.digest(), a.digest());
}

#[test]
fn orphans_are_bounded() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    let orphan = |number: u16| {
        let mut parent = [0; 32];
        parent[..2].copy_from_slice(&number.to_be_bytes());
        let act = Act::Rename { device: id(2), name: "x".into() };
        let parents = vec![RecordId(parent)];
        Record::new(Some(roster.mesh()), parents, id(1), AT, act).seal(&key(1)).unwrap().1
    };
    let orphans: Vec<_> = (0..=ORPHANS_MAX as u16).map(orphan).collect();
    for bytes in &orphans[..ORPHANS_MAX] {
        assert!(matches!(roster.insert(&bytes.0).unwrap(), Inserted::Orphan(_)));
    }
    let error = roster.insert(&orphans[ORPHANS_MAX].0).unwrap_err();
    assert_eq!(error, RosterError::OrphansFull);
}

#[test]
fn records_of_another_mesh_are_refused() {
    let mut roster = mesh();
    let mut other = Roster::found("one", [8; 16], AT, &key(1)).unwrap();
    assert_ne!(roster.mesh(), other.mesh());
    admit(&mut other, 1, 2);
    for bytes in other.records_in_order() {
        let error = roster.insert(&bytes.0).unwrap_err();
        assert_eq!(error, RosterError::OtherMesh { mesh: roster.mesh() });
    }
}

#[test]
fn roster_reads_back_from_its_records_only_when_they_are_all_there() {
    let mut roster = mesh();
    for number in 2..=6 {
        admit(&mut roster, number - 1, number);
    }
    let records: Vec<_> = roster.records_in_order().cloned().collect();
    let read = Roster::from_records(records.iter().rev()).unwrap();
    assert_eq!(read.digest(), roster.digest());
    assert_eq!(read.members(), roster.members());
    let error = Roster::from_records(records[..3].iter().chain(&records[4..])).unwrap_err();
    assert_eq!(error, RosterError::Incomplete { missing: 1 });
    let error = Roster::from_records(&records[1..]).unwrap_err();
    assert_eq!(error, RosterError::Foundings { found: 0 });
    let other = Roster::found("one", [8; 16], AT, &key(1)).unwrap();
    let error = Roster::from_records(records.iter().chain([other.founding()])).unwrap_err();
    assert_eq!(error, RosterError::Foundings { found: 2 });
}

#[test]
fn damaged_record_is_refused_wherever_the_damage_is() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    let bytes = roster.revoke(id(2), "lost", vec![mark(10, 0xaa)], AT, &key(1)).unwrap().0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(roster.insert(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(roster.insert(&bytes[..length]).is_err(), "length {length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(roster.insert(&longer).is_err());
    assert_eq!(member_numbers(&roster), [1, 2]);
    assert_eq!(roster.len(), 2);
}

#[test]
fn signature_of_another_member_is_refused() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    let act = Act::Revoke { device: id(1), reason: String::new(), frontier: Vec::new() };
    let record = Record::new(Some(roster.mesh()), roster.heads(), id(1), AT, act);
    let (_, bytes) = record.seal(&key(2)).unwrap();
    let error = roster.insert(&bytes.0).unwrap_err();
    assert!(matches!(error, RosterError::WrongSignature { by, .. } if by == id(1)));
}

#[test]
fn record_that_is_held_is_known_in_its_very_bytes_only() {
    let mut roster = mesh();
    let bytes = roster.admit(id(2), "n2", None, AT, &key(1)).unwrap().0;
    assert!(matches!(roster.insert(&bytes), Ok(Inserted::New(_))));
    assert!(matches!(roster.insert(&bytes), Ok(Inserted::Known)));
    // Under a signature that does not hold it is refused, although the rest is held.
    let mut forged = bytes.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(roster.insert(&forged), Err(RosterError::WrongSignature { .. })));
    // So it is with one that waits for its parents.
    let mut other = roster.clone();
    let parent = roster.admit(id(3), "n3", None, AT, &key(1)).unwrap().0;
    roster.insert(&parent).unwrap();
    let child = roster.admit(id(4), "n4", None, AT, &key(1)).unwrap().0;
    assert!(matches!(other.insert(&child), Ok(Inserted::Orphan(_))));
    assert!(matches!(other.insert(&child), Ok(Inserted::Known)));
    let mut forged = child;
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(other.insert(&forged), Err(RosterError::WrongSignature { .. })));
}

#[test]
fn names_reasons_and_frontiers_have_bounds() {
    let roster = mesh();
    for name in ["", "a\nb", "\u{7f}", &"x".repeat(65)] {
        let error = roster.admit(id(2), name, None, AT, &key(1)).unwrap_err();
        assert!(matches!(error, RosterError::Name { .. }), "{name:?}");
    }
    assert!(roster.admit(id(2), &"ü".repeat(32), None, AT, &key(1)).is_ok());
    let mut roster = roster;
    admit(&mut roster, 1, 2);
    let error = roster.revoke(id(2), &"x".repeat(513), Vec::new(), AT, &key(1)).unwrap_err();
    assert_eq!(error, RosterError::Reason { bytes: 513 });
    let many = |count: u64| {
        (0..count).map(|n| JournalMark { incarnation: Incarnation(n), ..mark(1, 1) }).collect()
    };
    let error = roster.revoke(id(2), "x", many(1025), AT, &key(1)).unwrap_err();
    assert_eq!(error, RosterError::Frontier { marks: 1025 });
    assert!(roster.revoke(id(2), "x", many(1024), AT, &key(1)).is_ok());
}

#[test]
fn peer_is_sent_what_it_lacks_and_no_more() {
    let mut a = mesh();
    let mut b = a.clone();
    admit(&mut a, 1, 2);
    let heads = b.heads();
    assert_eq!(a.missing_from(&heads).len(), 1);
    assert!(b.missing_from(&a.heads()).len() == 1, "unknown heads tell nothing");
    exchange(&mut a, &mut b);
    assert!(a.missing_from(&b.heads()).is_empty());
    assert_eq!(a.missing_from(&[]).len(), 2);
}

#[test]
fn more_heads_than_parents_do_not_stop_a_revocation() {
    let mut roster = mesh();
    admit(&mut roster, 1, 2);
    admit(&mut roster, 1, 3);
    let heads = roster.heads();
    for number in 0..PARENTS_MAX + 40 {
        let act = Act::Rename { device: id(2), name: format!("name {number}") };
        let record = Record::new(Some(roster.mesh()), heads.clone(), id(2), AT, act);
        let (_, bytes) = record.seal(&key(2)).unwrap();
        take(&mut roster, &bytes);
    }
    assert!(roster.heads().len() > PARENTS_MAX);
    revoke(&mut roster, 3, 2);
    assert_eq!(member_numbers(&roster), [1, 3]);
    admit(&mut roster, 1, 2);
    assert_eq!(member_numbers(&roster), [1, 2, 3]);
}

#[test]
fn mesh_id_is_the_hash_of_the_founding_record() {
    let roster = mesh();
    let bytes = &roster.founding().0;
    let body = &bytes[..bytes.len() - 64];
    assert_eq!(roster.mesh(), MeshId(*blake3::hash(body).as_bytes()));
}
