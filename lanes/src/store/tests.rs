//! Tests of the store on real files: two stores stand for two devices, runs are handed over by hand.

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use super::*;
use crate::error::{ReceiveError, WriteError};
use crate::frontier::Tip;
use crate::ids::{MonoMillis, Now};
use crate::journal::EntryError;
use crate::object::Patch;
use crate::signature::Signer;
use crate::tables::RowState;

mod caught_up;
mod damaged;
mod expiry;
mod failing;
mod limits;
mod lives;
mod many;
mod misled;
mod older;
mod orders;
mod told;
mod typed;
mod work;

const MESH: MeshId = MeshId([9; 32]);

struct Device {
    dir: tempfile::TempDir,
    key: SigningKey,
    store: Option<Store>,
    wall: u64,
}

impl Device {
    fn new(n: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[n; 32]);
        let mut device = Self { dir, key, store: None, wall: 1_000 };
        let mut store = Store::create(&device.path(), &device.options(Some(0))).unwrap();
        store.set_mesh(MESH).unwrap();
        store.commit().unwrap();
        device.store = Some(store);
        device
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store.redb")
    }

    fn options(&self, opens_outside: Option<u64>) -> OpenOptions {
        OpenOptions { device: self.key.device(), opens_outside, random: 7 }
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn reopen(&mut self, opens_outside: Option<u64>) -> Result<(), StoreError> {
        self.store = Some(Store::open(&self.path(), &self.options(opens_outside))?);
        Ok(())
    }

    fn now(&self) -> Now {
        Now { mono: MonoMillis(self.wall), wall: WallMillis(self.wall) }
    }

    fn write(&mut self, lane: LaneId, ops: &[Op]) -> Result<Vec<Outcome>, WriteError> {
        self.wall += 1;
        let (now, key) = (self.now(), self.key.clone());
        let outcome = self.store().write(lane, ops, now, &key);
        self.store().commit().unwrap();
        outcome
    }

    fn put(&mut self, id: &str, body: Value) -> Result<Outcome, WriteError> {
        let op = put_op(id, body);
        self.write(LaneId::Normal, &[op]).map(|mut outcomes| outcomes.remove(0))
    }

    fn delete(&mut self, id: &str) -> Result<Vec<Outcome>, WriteError> {
        let action = Action::Delete { reason: "no longer wanted".into() };
        self.write(LaneId::Normal, &[Op { id: id.into(), action, if_heads: None }])
    }

    fn see(&mut self, lane: LaneId, id: &str) -> Visibility {
        let now = self.now().wall;
        self.store().reader().snapshot().unwrap().object(lane, id, now).unwrap()
    }

    fn body(&mut self, id: &str) -> Option<Value> {
        match self.see(LaneId::Normal, id) {
            Visibility::Shown(object) => Some(serde_json::from_str(&object.row.body).unwrap()),
            _ => None,
        }
    }

    /// Takes everything that another device has and this one lacks.
    fn pull(&mut self, from: &mut Self) {
        for lane in LaneId::BY_URGENCY {
            let theirs = from.store().frontier(lane);
            for author in theirs.0.keys() {
                let held = self.store().frontier(lane).seq(author);
                let snapshot = from.store().reader().snapshot().unwrap();
                let entries =
                    snapshot.entries(lane, author, held + 1, usize::MAX, usize::MAX).unwrap();
                let run = Run {
                    lane,
                    author: *author,
                    entries: entries.iter().map(Vec::as_slice).collect(),
                };
                let now = self.now().wall;
                self.store().receive(&run, &[MESH], now).unwrap();
            }
            let now = self.now().wall;
            self.store().advance(lane, now, usize::MAX).unwrap();
        }
        self.store().commit().unwrap();
    }
}

fn put_op(id: &str, body: Value) -> Op {
    let action = Action::Put(PutContent { body, ..PutContent::default() });
    Op { id: id.into(), action, if_heads: None }
}

fn put_class(id: &str, class: &str, body: Value) -> Op {
    let action =
        Action::Put(PutContent { body, class: Some(class.into()), ..PutContent::default() });
    Op { id: id.into(), action, if_heads: None }
}

#[test]
fn put_writes_only_what_differs() {
    let mut a = Device::new(1);
    assert!(a.put("x", json!({"a": 1})).unwrap().changed);
    assert!(!a.put("x", json!({"a": 1})).unwrap().changed);
    assert!(a.put("x", json!({"a": 1.0})).unwrap().changed);
    assert_eq!(a.store().frontier(LaneId::Normal).seq(&a.store.as_ref().unwrap().author()), 2);
}

#[test]
fn edits_of_different_fields_apart_both_survive() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!({"deep": {"a": 1, "b": 1}})).unwrap();
    b.pull(&mut a);
    a.put("x", json!({"deep": {"a": 2, "b": 1}})).unwrap();
    b.put("x", json!({"deep": {"a": 1, "b": 2}})).unwrap();
    a.pull(&mut b);
    b.pull(&mut a);
    assert_eq!(a.body("x"), Some(json!({"deep": {"a": 2, "b": 2}})));
    assert_eq!(a.body("x"), b.body("x"));
    assert_eq!(a.see(LaneId::Normal, "x"), b.see(LaneId::Normal, "x"));
}

#[test]
fn same_id_created_apart_ends_with_the_union() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!({"from": {"a": 1}})).unwrap();
    b.put("x", json!({"from": {"b": 1}})).unwrap();
    a.pull(&mut b);
    b.pull(&mut a);
    assert_eq!(a.body("x"), Some(json!({"from": {"a": 1, "b": 1}})));
    assert_eq!(a.body("x"), b.body("x"));
}

#[test]
fn concurrent_edits_of_one_field_keep_both_values() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!({"f": 0})).unwrap();
    b.pull(&mut a);
    a.put("x", json!({"f": 1})).unwrap();
    b.put("x", json!({"f": 2})).unwrap();
    a.pull(&mut b);
    b.pull(&mut a);
    assert_eq!(a.see(LaneId::Normal, "x"), b.see(LaneId::Normal, "x"));
    let Visibility::Shown(object) = a.see(LaneId::Normal, "x") else { panic!("not shown") };
    let values: Vec<_> = object.row.conflicts[0].values.iter().map(|v| v.json.clone()).collect();
    assert_eq!(object.row.conflicts[0].path, "/body/f");
    assert!(values.contains(&"1".into()) && values.contains(&"2".into()));
    assert_eq!(a.store().counts(LaneId::Normal).conflicted, 1);
    // A later write settles it, there and here.
    a.put("x", json!({"f": 3})).unwrap();
    b.pull(&mut a);
    assert_eq!(b.body("x"), Some(json!({"f": 3})));
    assert_eq!(b.store().counts(LaneId::Normal).conflicted, 0);
}

#[test]
fn deleted_object_is_hidden_here_and_there_and_its_id_may_live_again() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    b.pull(&mut a);
    b.delete("x").unwrap();
    assert!(matches!(b.delete("x"), Err(WriteError::NotFound { .. })));
    a.pull(&mut b);
    for device in [&mut a, &mut b] {
        assert!(matches!(device.see(LaneId::Normal, "x"), Visibility::Deleted { .. }));
        assert_eq!(device.store().counts(LaneId::Normal).live, 0);
        assert_eq!(device.store().counts(LaneId::Normal).hidden, 1);
    }
    assert_eq!(a.put("x", json!(2)).unwrap().life, 2);
    b.pull(&mut a);
    assert_eq!(b.body("x"), Some(json!(2)));
}

#[test]
fn edit_made_during_a_deletion_does_not_bring_the_object_back() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    b.pull(&mut a);
    a.delete("x").unwrap();
    b.put("x", json!(2)).unwrap();
    b.pull(&mut a);
    a.pull(&mut b);
    assert_eq!((a.body("x"), b.body("x")), (None, None));
}

#[test]
fn tombstone_that_comes_before_its_object_hides_it() {
    let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    a.put("x", json!(1)).unwrap();
    b.pull(&mut a);
    b.delete("x").unwrap();
    // C hears of the deletion only, then of the object.
    let author = b.store().author();
    let entries = b
        .store()
        .reader()
        .snapshot()
        .unwrap()
        .entries(LaneId::Tombstone, &author, 1, 1, 1)
        .unwrap();
    let run =
        Run { lane: LaneId::Tombstone, author, entries: entries.iter().map(|e| &**e).collect() };
    c.store().receive(&run, &[MESH], WallMillis(5)).unwrap();
    c.store().commit().unwrap();
    assert!(matches!(c.see(LaneId::Normal, "x"), Visibility::Deleted { .. }));
    c.pull(&mut a);
    assert_eq!(c.body("x"), None);
    assert_eq!(c.put("x", json!(2)).unwrap().life, 2);
}

#[test]
fn refused_batch_changes_nothing() {
    let mut a = Device::new(1);
    a.put("x", json!(1)).unwrap();
    let ops = [put_op("x", json!(2)), put_op("y", json!(1)), put_op("", json!(1))];
    assert!(matches!(a.write(LaneId::Normal, &ops), Err(WriteError::Id(_))));
    assert_eq!((a.body("x"), a.body("y")), (Some(json!(1)), None));
    a.put("x", json!(3)).unwrap();
    assert_eq!(a.body("x"), Some(json!(3)));
}

#[test]
fn refused_batch_deletes_nothing() {
    let mut a = Device::new(1);
    a.put("x", json!(1)).unwrap();
    let action = Action::Delete { reason: "no".into() };
    let delete = Op { id: "x".into(), action, if_heads: None };
    assert!(a.write(LaneId::Normal, &[delete, put_op("", json!(1))]).is_err());
    // An earlier form recorded the deletion all the same; it hid the object as soon as it could.
    let outcome = a.put("x", json!(2)).unwrap();
    assert_eq!((outcome.life, a.body("x")), (1, Some(json!(2))));
    let mut b = Device::new(2);
    b.put("x", json!({"other": 3})).unwrap();
    b.delete("x").unwrap();
    let deleted = b.see(LaneId::Normal, "x");
    a.pull(&mut b);
    assert_eq!(a.see(LaneId::Normal, "x"), deleted);
    let create = put_op("y", json!(1));
    let action = Action::Delete { reason: "no".into() };
    let delete = Op { id: "y".into(), action, if_heads: None };
    assert!(a.write(LaneId::Normal, &[create, delete, put_op("", json!(1))]).is_err());
    assert_eq!(a.see(LaneId::Normal, "y"), Visibility::Absent);
    assert_eq!(a.put("y", json!(1)).unwrap().life, 1);
}

#[test]
fn deletions_made_apart_are_recorded_alike_everywhere() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    b.pull(&mut a);
    b.wall = 5_000;
    a.delete("x").unwrap();
    b.delete("x").unwrap();
    let first = a.see(LaneId::Normal, "x");
    b.pull(&mut a);
    a.pull(&mut b);
    assert_eq!((a.see(LaneId::Normal, "x"), b.see(LaneId::Normal, "x")), (first.clone(), first));
}

#[test]
fn change_that_no_entry_could_carry_is_refused_and_the_journal_goes_on() {
    let mut a = Device::new(1);
    let body = |key: &str| json!({ key.repeat(400_000): {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "5": 5, "6": 6, "7": 7} });
    a.put("x", body("a")).unwrap();
    let error = a.put("x", body("b")).unwrap_err();
    assert!(matches!(error, WriteError::ChangeTooLarge { .. }), "{error}");
    assert_eq!(a.body("x"), Some(body("a")));
    a.put("x", json!({"small": 1})).unwrap_or_else(|error| panic!("{error}"));
    let mut b = Device::new(2);
    b.pull(&mut a);
    assert_eq!(b.body("x"), Some(json!({"small": 1})));
}

#[test]
fn one_batch_may_touch_one_object_often() {
    let mut a = Device::new(1);
    let delete =
        Op { id: "x".into(), action: Action::Delete { reason: "again".into() }, if_heads: None };
    let ops =
        [put_op("x", json!({"a": 1})), put_op("x", json!({"a": 2})), delete, put_op("x", json!(3))];
    let outcomes = a.write(LaneId::Normal, &ops).unwrap();
    assert_eq!(outcomes.iter().map(|o| o.life).collect::<Vec<_>>(), [1, 1, 1, 2]);
    assert_eq!(a.body("x"), Some(json!(3)));
    let mut b = Device::new(2);
    b.pull(&mut a);
    assert_eq!(b.body("x"), Some(json!(3)));
}

#[test]
fn compare_and_set_refuses_a_stale_caller() {
    let mut a = Device::new(1);
    a.put("x", json!(1)).unwrap();
    let Visibility::Shown(object) = a.see(LaneId::Normal, "x") else { panic!("not shown") };
    a.put("x", json!(2)).unwrap();
    let stale = Op { if_heads: Some(object.heads()), ..put_op("x", json!(3)) };
    assert!(matches!(a.write(LaneId::Normal, &[stale]), Err(WriteError::Stale { .. })));
    let absent = Op { if_heads: Some(vec![]), ..put_op("x", json!(3)) };
    assert!(matches!(a.write(LaneId::Normal, &[absent]), Err(WriteError::Stale { .. })));
    assert_eq!(a.body("x"), Some(json!(2)));
}

#[test]
fn patch_changes_parts_and_null_removes() {
    let mut a = Device::new(1);
    a.put("x", json!({"a": 1, "b": {"c": 2}})).unwrap();
    let patch = Patch { body: Some(json!({"a": null, "b": {"d": 3}})), ..Patch::default() };
    let op = Op { id: "x".into(), action: Action::Patch(patch), if_heads: None };
    a.write(LaneId::Normal, std::slice::from_ref(&op)).unwrap();
    assert_eq!(a.body("x"), Some(json!({"b": {"c": 2, "d": 3}})));
    let missing = Op { id: "none".into(), ..op };
    assert!(matches!(a.write(LaneId::Normal, &[missing]), Err(WriteError::NotFound { .. })));
}

#[test]
fn audit_only_grows_and_tombstones_are_the_nodes_own() {
    let mut a = Device::new(1);
    a.write(LaneId::Audit, &[put_op("x", json!(1))]).unwrap();
    assert!(matches!(
        a.write(LaneId::Audit, &[put_op("x", json!(2))]),
        Err(WriteError::AppendOnly { .. })
    ));
    assert!(matches!(
        a.write(LaneId::Tombstone, &[put_op("x", json!(2))]),
        Err(WriteError::NodeOnly(_))
    ));
}

#[test]
fn secret_object_is_marked_confined_and_cannot_be_loosened() {
    let mut a = Device::new(1);
    a.write(LaneId::Normal, &[put_class("x", "secret", json!(1))]).unwrap();
    let author = a.store().author();
    let bytes =
        a.store().reader().snapshot().unwrap().entry(LaneId::Normal, &author, 1).unwrap().unwrap();
    let entry = crate::journal::Entry::read(&bytes).unwrap();
    assert!(entry.header.items[0].confined);
    assert_eq!(entry.header.classes, ["secret"]);
    assert!(matches!(
        a.write(LaneId::Normal, &[put_class("x", "internal", json!(1))]),
        Err(WriteError::ClassLoosened { .. })
    ));
}

#[test]
fn object_of_many_changes_is_rebuilt_after_a_restart() {
    let mut a = Device::new(1);
    for n in 0..60 {
        a.put("x", json!({"n": n})).unwrap();
    }
    a.store.take().unwrap().close().unwrap();
    a.reopen(Some(1)).unwrap_or_else(|error| panic!("{error}"));
    a.put("x", json!({"n": 1, "m": 2})).unwrap();
    let mut b = Device::new(2);
    b.pull(&mut a);
    assert_eq!(b.body("x"), Some(json!({"n": 1, "m": 2})));
    let snapshot = b.store().reader().snapshot().unwrap();
    let history = snapshot.history(LaneId::Normal, "x", 1, 100).unwrap();
    assert_eq!(history.len(), 61);
    assert!(history.iter().all(|change| change.verified));
    assert!(snapshot.document(LaneId::Normal, "x", 1).unwrap().is_some());
}

#[test]
fn entry_waits_for_what_it_builds_on() {
    let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    a.put("x", json!({"a": 1})).unwrap();
    b.pull(&mut a);
    b.put("x", json!({"a": 1, "b": 1})).unwrap();
    let hand = |from: &mut Device, to: &mut Device| {
        let author = from.store().author();
        let snapshot = from.store().reader().snapshot().unwrap();
        let entries = snapshot.entries(LaneId::Normal, &author, 1, 1, 1).unwrap();
        let run =
            Run { lane: LaneId::Normal, author, entries: entries.iter().map(|e| &**e).collect() };
        let received = to.store().receive(&run, &[MESH], WallMillis(50)).unwrap();
        to.store().advance(LaneId::Normal, WallMillis(50), 10).unwrap();
        to.store().commit().unwrap();
        received
    };
    assert_eq!(hand(&mut b, &mut c).waiting, 1);
    assert_eq!(c.body("x"), None);
    let author = b.store().author();
    assert_eq!(c.store().journal(LaneId::Normal, &author).unwrap().applied, 0);
    assert_eq!(hand(&mut a, &mut c).waiting, 0);
    assert_eq!(c.body("x"), Some(json!({"a": 1, "b": 1})));
}

#[test]
fn replayed_and_overlapping_runs_change_nothing() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    for n in 0..5 {
        a.put("x", json!({"n": n})).unwrap();
    }
    b.pull(&mut a);
    let before = b.see(LaneId::Normal, "x");
    let author = a.store().author();
    let entries = a
        .store()
        .reader()
        .snapshot()
        .unwrap()
        .entries(LaneId::Normal, &author, 2, usize::MAX, 99)
        .unwrap();
    let run = Run { lane: LaneId::Normal, author, entries: entries.iter().map(|e| &**e).collect() };
    let received = b.store().receive(&run, &[MESH], WallMillis(9)).unwrap();
    assert_eq!((received.entries, received.last), (0, 5));
    assert_eq!(b.see(LaneId::Normal, "x"), before);
}

#[test]
fn bad_runs_are_refused_and_leave_the_store_as_it_was() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    for n in 0..3 {
        a.put("x", json!({"n": n})).unwrap();
    }
    let author = a.store().author();
    let entries = a
        .store()
        .reader()
        .snapshot()
        .unwrap()
        .entries(LaneId::Normal, &author, 1, usize::MAX, 99)
        .unwrap();
    let mut receive = |lane, author, entries: &[Vec<u8>], mesh| {
        let run = Run { lane, author, entries: entries.iter().map(|e| &**e).collect() };
        let result = b.store().receive(&run, &[mesh], WallMillis(9));
        b.store().commit().unwrap();
        assert_eq!(b.store().frontier(LaneId::Normal), Frontier::default());
        result.unwrap_err()
    };
    let normal = LaneId::Normal;
    assert!(matches!(
        receive(normal, author, &entries, MeshId([1; 32])),
        ReceiveError::OtherMesh { .. }
    ));
    assert!(matches!(
        receive(LaneId::Memory, author, &entries, MESH),
        ReceiveError::OtherJournal { .. }
    ));
    assert!(matches!(receive(normal, author, &entries[1..], MESH), ReceiveError::Gap { .. }));
    let reordered = [entries[1].clone(), entries[0].clone()];
    assert!(matches!(receive(normal, author, &reordered, MESH), ReceiveError::Entry(_)));
    let mut unsigned = entries.clone();
    unsigned[2][5] ^= 1;
    assert!(matches!(receive(normal, author, &unsigned, MESH), ReceiveError::Entry(_)));
    let mut flipped = entries.clone();
    let last = flipped[1].len() - 3;
    flipped[1][last] ^= 1;
    assert!(matches!(receive(normal, author, &flipped, MESH), ReceiveError::Entry(_)));
}

/// A clone that wrote a second and a third entry of its own, and who holds the second of the original.
fn parted() -> (Device, Device) {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put("x", json!(1)).unwrap();
    let copy = a.dir.path().join("copy.redb");
    a.store.take().unwrap().close().unwrap();
    std::fs::copy(a.path(), &copy).unwrap();
    a.reopen(Some(1)).unwrap();
    a.put("x", json!(2)).unwrap();
    b.pull(&mut a);
    // The clone says that nothing happened since.
    a.store = Some(Store::open(&copy, &a.options(Some(1))).unwrap());
    a.put("x", json!(3)).unwrap();
    a.put("x", json!(4)).unwrap();
    (a, b)
}

#[test]
fn two_signed_histories_of_one_journal_are_kept_as_evidence() {
    let (mut a, mut b) = parted();
    let author = a.store().author();
    let entries = a
        .store()
        .reader()
        .snapshot()
        .unwrap()
        .entries(LaneId::Normal, &author, 2, usize::MAX, 99)
        .unwrap();
    let run = Run { lane: LaneId::Normal, author, entries: entries.iter().map(|e| &**e).collect() };
    let result = b.store().receive(&run, &[MESH], WallMillis(9));
    assert!(matches!(result, Err(ReceiveError::Equivocation { seq: 2 })), "{result:?}");
    b.store().commit().unwrap();
    assert_eq!(b.store().reader().snapshot().unwrap().evidence_len().unwrap(), 1);
    let result = b.store().receive(&run, &[MESH], WallMillis(9));
    assert!(matches!(result, Err(ReceiveError::Quarantined)), "{result:?}");
    assert_eq!(b.body("x"), Some(json!(2)));
    for _ in 0..2 {
        let told = b.store().frontier(LaneId::Normal);
        assert_eq!(told.0.get(&author), Some(&Tip::TWO_HISTORIES));
        let snapshot = b.store().reader().snapshot().unwrap();
        assert_eq!(snapshot.frontier(LaneId::Normal).unwrap(), told);
        assert_eq!(b.store().fork_seq(LaneId::Normal, &author), Some(2));
        let proof = b.store().fork(LaneId::Normal, &author).unwrap().unwrap();
        assert_eq!((proof.seq, proof.held.len(), proof.other.len()), (2, 1, 1));
        assert_eq!(b.store().fork_seq(LaneId::Memory, &author), None);
        drop(snapshot);
        b.store.take().unwrap().close().unwrap();
        b.reopen(None).unwrap();
    }
}

#[test]
fn a_signed_run_that_follows_another_entry_is_told_from_an_invalid_one() {
    let (mut a, mut b) = parted();
    let author = a.store().author();
    let snapshot = a.store().reader().snapshot().unwrap();
    // What comes begins behind the place at which the two part.
    let mut entry = snapshot.entry(LaneId::Normal, &author, 3).unwrap().unwrap();
    let mut receive = |entry: &[u8]| {
        let run = Run { lane: LaneId::Normal, author, entries: vec![entry] };
        b.store().receive(&run, &[MESH], WallMillis(9)).unwrap_err()
    };
    let refused = receive(&entry);
    assert!(matches!(refused, ReceiveError::OtherHistory { seq: 3 }), "{refused:?}");
    entry[0] ^= 1;
    let refused = receive(&entry);
    assert!(matches!(refused, ReceiveError::Entry(EntryError::Signature { .. })), "{refused:?}");
    assert_eq!(b.store().reader().snapshot().unwrap().evidence_len().unwrap(), 0);
}

#[test]
fn restored_store_starts_another_incarnation() {
    let mut a = Device::new(1);
    let first = a.store().author();
    a.put("x", json!(1)).unwrap();
    a.store.take().unwrap().close().unwrap();
    let backup = std::fs::read(a.path()).unwrap();
    a.reopen(Some(1)).unwrap();
    assert_eq!(a.store().author(), first);
    a.put("x", json!(2)).unwrap();
    a.store.take().unwrap().close().unwrap();
    std::fs::write(a.path(), backup).unwrap();
    a.reopen(Some(2)).unwrap();
    assert!(a.store().author().incarnation > first.incarnation);
    assert_eq!(a.put("x", json!(3)).unwrap().life, 1);
    assert_eq!(a.body("x"), Some(json!(3)));
}

#[test]
fn ephemeral_object_dies_with_its_time_and_leaves_no_bytes() {
    let mut a = Device::new(1);
    let put = |ttl_ms| Op {
        id: "e".into(),
        action: Action::Put(PutContent {
            body: json!("a very recognisable phrase"),
            ttl_ms,
            ..PutContent::default()
        }),
        if_heads: None,
    };
    assert!(matches!(a.write(LaneId::Normal, &[put(Some(5))]), Err(WriteError::TimeToLive { .. })));
    assert!(matches!(
        a.write(LaneId::Ephemeral, &[put(Some(u64::MAX))]),
        Err(WriteError::TimeToLive { .. })
    ));
    a.write(LaneId::Ephemeral, &[put(Some(1_000))]).unwrap();
    let due = a.store().next_expiry().unwrap().unwrap();
    assert!(matches!(a.see(LaneId::Ephemeral, "e"), Visibility::Shown(_)));
    a.wall = due.0;
    assert_eq!(a.see(LaneId::Ephemeral, "e"), Visibility::Expired);
    assert_eq!(a.store().expire(due, 10).unwrap(), 1);
    a.store().commit().unwrap();
    assert_eq!(a.see(LaneId::Ephemeral, "e"), Visibility::Absent);
    assert_eq!(a.store().counts(LaneId::Ephemeral).live, 0);
    let facts = a.store().reader().snapshot().unwrap().verify_lane(LaneId::Ephemeral).unwrap();
    assert_eq!((facts.journals[0].absent.total(), &facts.journals[0].damage), (1, &None));
    assert_eq!(a.store().counts(LaneId::Ephemeral).absent, Some(facts.journals[0].absent));
    let feed = a.store().reader().snapshot().unwrap().feed(None, 10, due).unwrap();
    assert_eq!(feed.last().unwrap().op, AppliedOp::Expire);
}

#[test]
fn feed_gives_each_applied_change_once_and_resumes() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    let ops: Vec<_> = (0..5).map(|n| put_op(&format!("o{n}"), json!(n))).collect();
    a.write(LaneId::Normal, &ops).unwrap();
    a.delete("o3").unwrap();
    b.pull(&mut a);
    let snapshot = b.store().reader().snapshot().unwrap();
    let all = snapshot.feed(None, 100, WallMillis(0)).unwrap();
    let deletes: Vec<_> = all.iter().filter(|c| c.op == AppliedOp::Delete).collect();
    assert_eq!(deletes.len(), 1);
    assert_eq!((deletes[0].lane, deletes[0].id.as_str()), (LaneId::Normal, "o3"));
    assert_eq!(all.len(), 5 + 2);
    for (index, change) in all.iter().enumerate() {
        let rest = snapshot.feed(Some(change.cursor), 100, WallMillis(0)).unwrap();
        assert_eq!(rest, all[index + 1..]);
        // Five were written by one entry: no more of it is read than is wanted.
        let next = snapshot.feed(Some(change.cursor), 1, WallMillis(0)).unwrap();
        assert!(next.len() <= 2 && all[index + 1..].starts_with(&next), "{next:?}");
        assert_eq!(next.is_empty(), index + 1 == all.len());
    }
}

#[test]
fn list_pages_through_prefix_kind_and_label() {
    let mut a = Device::new(1);
    let ops: Vec<_> = (0..25)
        .map(|n| {
            let put = PutContent {
                kind: Some(if n % 2 == 0 { "even" } else { "odd" }.into()),
                labels: Some([("third".to_owned(), (n % 3).to_string())].into()),
                body: json!(n),
                ..PutContent::default()
            };
            Op { id: format!("p/{n:02}"), action: Action::Put(put), if_heads: None }
        })
        .collect();
    a.write(LaneId::Normal, &ops).unwrap();
    a.put("q", json!(0)).unwrap();
    a.delete("p/04").unwrap();
    let snapshot = a.store().reader().snapshot().unwrap();
    let ids = |query: &Query| {
        let mut query = query.clone();
        let mut ids = Vec::new();
        loop {
            let page = snapshot.list(LaneId::Normal, &query, WallMillis(0)).unwrap();
            assert!(page.objects.len() <= query.limit);
            ids.extend(page.objects.into_iter().map(|object| object.id));
            query.after = page.next;
            if query.after.is_none() {
                return ids;
            }
        }
    };
    let prefix = Query { prefix: "p/".into(), limit: 7, ..Query::default() };
    let expected: Vec<_> = (0..25).filter(|n| *n != 4).map(|n| format!("p/{n:02}")).collect();
    assert_eq!(ids(&prefix), expected);
    let labels = [("third".to_owned(), "1".to_owned())].into();
    let both = Query { kind: Some("even".into()), labels, limit: 2, ..prefix };
    assert_eq!(ids(&both), ["p/10", "p/16", "p/22"]);
}

#[test]
fn damaged_locked_foreign_and_newer_files_are_told_apart() {
    let mut a = Device::new(1);
    for n in 0..200 {
        a.put(&format!("o{n}"), json!({"n": n})).unwrap();
    }
    assert!(matches!(Store::open(&a.path(), &a.options(Some(1))), Err(StoreError::Locked)));
    assert!(matches!(Reader::open(&a.path()), Err(StoreError::Locked)));
    a.store.take().unwrap().close().unwrap();
    let good = std::fs::read(a.path()).unwrap();
    let other = OpenOptions { device: DeviceId([4; 32]), ..a.options(Some(1)) };
    assert!(matches!(Store::open(&a.path(), &other), Err(StoreError::OtherDevice { .. })));
    let missing = a.dir.path().join("none.redb");
    assert!(matches!(Store::open(&missing, &other), Err(StoreError::Absent(_))));
    assert!(!missing.exists());
    std::fs::write(a.path(), &good[..good.len() / 2]).unwrap();
    assert!(a.reopen(Some(1)).is_err());
    std::fs::write(a.path(), b"").unwrap();
    assert!(matches!(a.reopen(Some(1)), Err(StoreError::Damaged { .. })));
    std::fs::write(a.path(), &good).unwrap();
    a.reopen(Some(1)).unwrap();
    a.store().put_meta(tables::meta::VERSION, &99u32.to_be_bytes()).unwrap();
    a.store.take().unwrap().close().unwrap();
    assert!(matches!(a.reopen(Some(2)), Err(StoreError::Newer { found: 99, .. })));
}

#[test]
fn flipped_byte_in_a_row_is_found_where_it_is() {
    let mut a = Device::new(1);
    a.put("x", json!({"phrase": "correct horse battery"})).unwrap();
    a.store.take().unwrap().close().unwrap();
    let mut bytes = std::fs::read(a.path()).unwrap();
    let needle = b"correct horse battery";
    let places: Vec<_> =
        (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(a.path(), &bytes).unwrap();
    a.reopen(Some(1)).unwrap();
    let now = a.now().wall;
    let snapshot = a.store().reader().snapshot().unwrap();
    let read = snapshot.object(LaneId::Normal, "x", now);
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    let facts = snapshot.verify_lane(LaneId::Normal).unwrap();
    assert_eq!(facts.journals[0].damage.as_ref().unwrap().seq, 1);
}

#[test]
fn tombstone_that_names_nothing_possible_hides_nothing_and_harms_nothing() {
    let mut a = Device::new(1);
    a.write(LaneId::Audit, &[put_op("kept", json!(1))]).unwrap();
    let (author, wall) = (a.store().author(), a.now().wall);
    for (lane, id, life) in [
        ("audit", "kept", 1),
        ("normal", "a\0b", 1),
        ("normal", "x", u32::MAX),
        ("nowhere", "x", 1),
    ] {
        let target = apply::TombstoneBody {
            lane: lane.into(),
            id: id.into(),
            life,
            reason: "malice".into(),
        };
        a.store()
            .with_turn(|store, turn| {
                let mut open = Open::new(turn)?;
                let mut overlay = overlay::Overlay::default();
                store.entomb(turn, &mut open, &mut overlay, &target, author, wall)?;
                store.flush(&mut open, overlay)
            })
            .unwrap();
    }
    a.store().commit().unwrap();
    assert!(matches!(a.see(LaneId::Audit, "kept"), Visibility::Shown(_)));
    assert_eq!(a.put("x", json!(1)).unwrap().life, 1);
}
