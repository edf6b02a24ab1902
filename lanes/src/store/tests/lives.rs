//! Lives: which of an id is shown, whatever members sign, in whatever order it comes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::misled::{Signed, signed};
use super::*;
use crate::journal::LIFE_MAX;
use crate::object::{Content, EncodedChange, Object};

/// A member that signs what it likes.
struct Member {
    key: SigningKey,
    author: Author,
    journals: BTreeMap<LaneId, Vec<Vec<u8>>>,
}

impl Member {
    fn new(n: u8) -> Self {
        let key = SigningKey::from_bytes(&[n; 32]);
        let incarnation = crate::ids::Incarnation::first(7);
        let author = Author { device: key.device(), incarnation };
        Self { key, author, journals: BTreeMap::new() }
    }

    fn sign(&mut self, lane: LaneId, items: Vec<Signed<'_>>) {
        let journal = self.journals.remove(&lane).unwrap_or_default();
        let journal = signed(&self.key, self.author, lane, journal, &[items]);
        self.journals.insert(lane, journal);
    }

    /// An entry that creates a life of an object.
    fn create(&mut self, lane: LaneId, id: &str, life: u32, body: Value) {
        let change = creation(&self.author, body);
        self.sign(lane, vec![(id, life, &change)]);
    }

    /// An entry with what can never be part of an object.
    fn junk(&mut self, lane: LaneId, id: &str, life: u32) {
        let change = junk(&self.author, u64::from(life));
        self.sign(lane, vec![(id, life, &change)]);
    }

    /// An entry that deletes a life of an object.
    fn delete(&mut self, lane: LaneId, id: &str, life: u32) {
        let target = apply::TombstoneBody {
            lane: lane.name().into(),
            id: id.into(),
            life,
            reason: "unwanted".into(),
        };
        let change = creation(&self.author, serde_json::to_value(&target).unwrap());
        let name = apply::TombstoneBody::id_of(lane, id, life);
        self.sign(LaneId::Tombstone, vec![(&name, 1, &change)]);
    }

    fn hand(&self, to: &mut Device, lane: LaneId) {
        if let Some(entries) = self.journals.get(&lane) {
            to.take_of(lane, self.author, entries);
        }
    }
}

fn creation(author: &Author, body: Value) -> EncodedChange {
    Object::create(&Content::of(body).unwrap(), author.actor(), WallMillis(1))
}

/// A change that follows one which nobody has.
fn junk(author: &Author, n: u64) -> EncodedChange {
    let mut object = Object::new();
    let lost = [0xcc; 16];
    object.set(&Content::of(json!({"lost": n})).unwrap(), lost, WallMillis(1)).unwrap();
    let content = Content::of(json!({"junk": n})).unwrap();
    object.set(&content, author.actor(), WallMillis(1)).unwrap().unwrap()
}

fn shown_life(device: &mut Device, lane: LaneId, id: &str) -> Option<u32> {
    match device.see(lane, id) {
        Visibility::Shown(object) => Some(object.life),
        _ => None,
    }
}

fn listed(device: &mut Device, lane: LaneId) -> Vec<(String, u32)> {
    let query = Query { limit: 10, ..Query::default() };
    let snapshot = device.store().reader().snapshot().unwrap();
    let page = snapshot.list(lane, &query, WallMillis(5_000)).unwrap();
    page.objects.into_iter().map(|object| (object.id, object.life)).collect()
}

#[test]
fn a_far_life_hides_nothing_and_spends_no_lives() {
    for junk in [true, false] {
        let (mut a, mut m) = (Device::new(1), Member::new(2));
        a.put("x", json!({"mine": 1})).unwrap();
        if junk {
            m.junk(LaneId::Normal, "x", LIFE_MAX);
        } else {
            m.create(LaneId::Normal, "x", LIFE_MAX, json!("theirs"));
        }
        // Its deletion is no reason either.
        m.delete(LaneId::Normal, "x", LIFE_MAX);
        m.hand(&mut a, LaneId::Normal);
        let before = a.store().counts(LaneId::Normal);
        assert_eq!((before.live, before.quarantined), (1, 0));
        m.hand(&mut a, LaneId::Tombstone);
        assert_eq!(a.body("x"), Some(json!({"mine": 1})));
        assert_eq!(listed(&mut a, LaneId::Normal), [("x".into(), 1)]);
        assert_eq!(a.put("x", json!({"mine": 2})).unwrap().life, 1);
        a.delete("x").unwrap();
        assert!(matches!(a.see(LaneId::Normal, "x"), Visibility::Deleted { .. }));
        assert_eq!(a.put("x", json!({"mine": 3})).unwrap().life, 2);
        assert_eq!(a.body("x"), Some(json!({"mine": 3})));
        assert_eq!(a.store().counts(LaneId::Normal).live, 1);
    }
}

#[test]
fn a_life_is_shown_once_all_before_it_are_deleted_and_the_feed_says_so() {
    let (mut b, mut m) = (Device::new(1), Member::new(2));
    m.create(LaneId::Normal, "x", 1, json!(1));
    m.create(LaneId::Normal, "x", 2, json!(2));
    m.create(LaneId::Normal, "x", 3, json!(3));
    m.hand(&mut b, LaneId::Normal);
    assert_eq!(b.body("x"), Some(json!(1)));
    assert_eq!(b.store().counts(LaneId::Normal).live, 1);
    // The second life is deleted before the first is known to be.
    m.delete(LaneId::Normal, "x", 2);
    m.hand(&mut b, LaneId::Tombstone);
    assert_eq!(b.body("x"), Some(json!(1)));
    assert_eq!(listed(&mut b, LaneId::Normal), [("x".into(), 1)]);
    let fed = b.store().feed_next();
    m.delete(LaneId::Normal, "x", 1);
    m.hand(&mut b, LaneId::Tombstone);
    assert_eq!(b.body("x"), Some(json!(3)));
    assert_eq!(listed(&mut b, LaneId::Normal), [("x".into(), 3)]);
    let counts = b.store().counts(LaneId::Normal);
    assert_eq!((counts.live, counts.hidden), (1, 2));
    let snapshot = b.store().reader().snapshot().unwrap();
    let feed = snapshot.feed(Some((fed - 1, u32::MAX)), 100, WallMillis(5_000)).unwrap();
    let of_x: Vec<_> = feed.iter().filter(|fed| fed.lane == LaneId::Normal).collect();
    let told: Vec<_> = of_x.iter().map(|fed| (fed.op, fed.life)).collect();
    assert_eq!(told, [(AppliedOp::Delete, 1), (AppliedOp::Put, 3)]);
    assert_eq!(of_x[1].object.as_ref().unwrap().row.body, "3");
}

/// What is told of the record of a deletion, but for the reason of a quarantine.
fn record(device: &mut Device, name: &str) -> (bool, String, Vec<crate::ids::ChangeHash>) {
    let Visibility::Shown(object) = device.see(LaneId::Tombstone, name) else { panic!("{name}") };
    (object.row.state == RowState::Live, object.row.body.clone(), object.heads())
}

#[test]
fn a_deletion_reaches_others_also_where_its_name_is_taken() {
    let name = "normal/1/x";
    for kind in 0..3 {
        let (mut a, mut b, mut m) = (Device::new(1), Device::new(2), Member::new(3));
        match kind {
            0 => m.create(LaneId::Tombstone, name, 1, json!("nothing")),
            1 => m.junk(LaneId::Tombstone, name, 1),
            _ => {
                let target = json!({"lane": "normal", "life": 7, "id": "z", "reason": ""});
                m.create(LaneId::Tombstone, name, 1, target);
            }
        }
        a.put("x", json!(1)).unwrap();
        m.hand(&mut a, LaneId::Tombstone);
        b.pull(&mut a);
        a.delete("x").unwrap();
        assert!(matches!(a.see(LaneId::Normal, "x"), Visibility::Deleted { .. }));
        b.pull(&mut a);
        let seen = b.see(LaneId::Normal, "x");
        assert!(matches!(seen, Visibility::Deleted { .. }), "{kind}: {seen:?}");
        assert_eq!(record(&mut a, name), record(&mut b, name), "{kind}");
        // What was there before comes last.
        let mut c = Device::new(4);
        let by_a = a.store().author();
        for lane in [LaneId::Normal, LaneId::Tombstone] {
            let snapshot = a.store().reader().snapshot().unwrap();
            let entries = snapshot.entries(lane, &by_a, 1, usize::MAX, usize::MAX).unwrap();
            c.take_of(lane, by_a, &entries);
        }
        m.hand(&mut c, LaneId::Tombstone);
        assert!(matches!(c.see(LaneId::Normal, "x"), Visibility::Deleted { .. }));
        assert_eq!(record(&mut a, name), record(&mut c, name), "{kind}");
    }
}

#[test]
fn the_feed_tells_a_deletion_whatever_its_record_says_by_now() {
    let (mut a, mut b, mut m) = (Device::new(1), Device::new(2), Member::new(3));
    a.put("x", json!(1)).unwrap();
    b.pull(&mut a);
    a.delete("x").unwrap();
    let name = "normal/1/x";
    let document = a.store().reader().snapshot().unwrap().document(LaneId::Tombstone, name, 1);
    let content = Content::of(json!("nothing was deleted")).unwrap();
    let change = document.unwrap().unwrap().set(&content, m.author.actor(), WallMillis(9));
    m.sign(LaneId::Tombstone, vec![(name, 1, &change.unwrap().unwrap())]);
    b.pull(&mut a);
    m.hand(&mut b, LaneId::Tombstone);
    assert_eq!(record(&mut b, name).1, "\"nothing was deleted\"");
    let feed = b.store().reader().snapshot().unwrap().feed(None, 100, WallMillis(5_000)).unwrap();
    let told: Vec<_> = feed.iter().filter(|fed| fed.op == AppliedOp::Delete).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].lane, told[0].id.as_str(), told[0].life), (LaneId::Normal, "x", 1));
}

#[test]
fn a_life_is_told_of_after_the_deletion_that_showed_it_also_where_that_took_more_calls() {
    let (mut b, mut m) = (Device::new(1), Member::new(2));
    m.create(LaneId::Normal, "x", 1, json!(1));
    m.create(LaneId::Normal, "x", 2, json!(2));
    m.hand(&mut b, LaneId::Normal);
    // One entry deletes the first life and more.
    let names = ["x", "y", "z"].map(|id| apply::TombstoneBody::id_of(LaneId::Normal, id, 1));
    let changes = ["x", "y", "z"].map(|id| {
        let (lane, reason) = (LaneId::Normal.name().into(), String::new());
        let target = apply::TombstoneBody { lane, id: id.into(), life: 1, reason };
        creation(&m.author, serde_json::to_value(&target).unwrap())
    });
    let items = names.iter().zip(&changes).map(|(name, change)| (name.as_str(), 1, change));
    m.sign(LaneId::Tombstone, items.collect());
    b.store().work_target = 1;
    m.hand(&mut b, LaneId::Tombstone);
    assert_eq!(b.body("x"), Some(json!(2)));
    let feed = b.store().reader().snapshot().unwrap().feed(None, 100, WallMillis(5_000)).unwrap();
    let of_x = feed.iter().filter(|fed| fed.lane == LaneId::Normal && fed.id == "x");
    let told: Vec<_> = of_x.map(|fed| (fed.op, fed.life, fed.object.is_some())).collect();
    assert!(told.contains(&(AppliedOp::Delete, 1, false)), "{told:?}");
    assert_eq!(told.last(), Some(&(AppliedOp::Put, 2, true)), "{told:?}");
}

#[test]
fn lives_of_one_id_cost_a_list_no_page() {
    let (mut b, mut m) = (Device::new(1), Member::new(2));
    let change = creation(&m.author, json!(1));
    for lives in 0..3 {
        m.sign(LaneId::Normal, (1..=900).map(|n| ("x", 2 + n + lives * 900, &change)).collect());
    }
    m.hand(&mut b, LaneId::Normal);
    b.put("w", json!(1)).unwrap();
    b.put("x", json!(1)).unwrap();
    b.put("y", json!(1)).unwrap();
    let all = [("w".into(), 1), ("x".into(), 1), ("y".into(), 1)];
    assert_eq!(listed(&mut b, LaneId::Normal), all);
    assert_eq!(b.store().counts(LaneId::Normal).live, 3);
    let snapshot = b.store().reader().snapshot().unwrap();
    let mut query = Query { limit: 1, ..Query::default() };
    let mut ids = Vec::new();
    loop {
        let page = snapshot.list(LaneId::Normal, &query, WallMillis(5_000)).unwrap();
        ids.extend(page.objects.into_iter().map(|object| object.id));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(ids, ["w", "x", "y"]);
}

#[test]
fn a_record_that_is_written_once_is_neither_hidden_nor_changed() {
    let (mut a, mut m) = (Device::new(1), Member::new(2));
    a.write(LaneId::Audit, &[put_op("x", json!({"mine": 1}))]).unwrap();
    m.create(LaneId::Audit, "x", 2, json!("another life"));
    m.delete(LaneId::Audit, "x", 1);
    // A change that follows the record's first.
    let snapshot = a.store().reader().snapshot().unwrap();
    let mut object = snapshot.document(LaneId::Audit, "x", 1).unwrap().unwrap();
    let content = Content::of(json!({"mine": "forged"})).unwrap();
    let forged = object.set(&content, m.author.actor(), WallMillis(9)).unwrap().unwrap();
    m.sign(LaneId::Audit, vec![("x", 1, &forged)]);
    let by_a = a.store().author();
    let entries = snapshot.entries(LaneId::Audit, &by_a, 1, usize::MAX, 9).unwrap();
    let mut rows = Vec::new();
    for first in [true, false] {
        let mut c = Device::new(3);
        if first {
            c.take_of(LaneId::Audit, by_a, &entries);
        }
        m.hand(&mut c, LaneId::Tombstone);
        m.hand(&mut c, LaneId::Audit);
        if !first {
            c.take_of(LaneId::Audit, by_a, &entries);
        }
        let Visibility::Shown(object) = c.see(LaneId::Audit, "x") else { panic!("not shown") };
        assert_eq!((object.life, object.row.body.as_str()), (1, r#"{"mine":1}"#));
        assert_eq!((object.author, object.row.changes), (by_a.device, 1));
        // That somebody tried is seen.
        assert!(matches!(object.row.state, RowState::Quarantined(_)));
        assert_eq!(listed(&mut c, LaneId::Audit), [("x".into(), 1)]);
        let feed = c.store().reader().snapshot().unwrap().feed(None, 99, WallMillis(9)).unwrap();
        assert!(feed.iter().all(|fed| fed.op != AppliedOp::Delete), "nothing was deleted");
        rows.push((object.row.heads.iter().map(|head| head.hash).collect::<Vec<_>>(), object.life));
    }
    assert_eq!(rows[0], rows[1]);
}

#[test]
fn nobody_elses_deletion_reaches_a_lane_that_stays_on_its_device() {
    let (mut a, mut m) = (Device::new(1), Member::new(2));
    let lanes = [LaneId::Ephemeral, LaneId::Migration, LaneId::Repair];
    for lane in lanes {
        a.write(lane, &[put_op("x", json!(1))]).unwrap();
        m.delete(lane, "x", 1);
        m.delete(lane, "x", LIFE_MAX);
    }
    m.hand(&mut a, LaneId::Tombstone);
    for lane in lanes {
        assert_eq!(shown_life(&mut a, lane, "x"), Some(1), "{lane}");
        let action = Action::Delete { reason: "my own".into() };
        a.write(lane, &[Op { id: "x".into(), action, if_heads: None }]).unwrap();
        assert_eq!(a.write(lane, &[put_op("x", json!(2))]).unwrap()[0].life, 2, "{lane}");
        assert_eq!(shown_life(&mut a, lane, "x"), Some(2), "{lane}");
    }
}

#[test]
fn a_life_that_expired_is_followed_by_the_next() {
    let mut a = Device::new(1);
    let put = |ttl| {
        let put = PutContent { body: json!(1), ttl_ms: Some(ttl), ..PutContent::default() };
        Op { id: "x".into(), action: Action::Put(put), if_heads: None }
    };
    a.write(LaneId::Ephemeral, &[put(10)]).unwrap();
    a.wall += 100;
    assert_eq!(a.see(LaneId::Ephemeral, "x"), Visibility::Expired);
    assert_eq!(a.write(LaneId::Ephemeral, &[put(1_000)]).unwrap()[0].life, 2);
    assert_eq!(shown_life(&mut a, LaneId::Ephemeral, "x"), Some(2));
    assert_eq!(listed(&mut a, LaneId::Ephemeral), [], "by then it has expired too");
    let now = a.now().wall;
    assert_eq!(a.store().expire(now, 10).unwrap(), 1);
    a.store().commit().unwrap();
    assert_eq!(shown_life(&mut a, LaneId::Ephemeral, "x"), Some(2));
    assert_eq!(a.store().counts(LaneId::Ephemeral).live, 1);
}

/// What a member signs about the one id.
#[derive(Debug, Clone, Copy)]
enum Act {
    Create(u32),
    Junk(u32),
    Follow(u32),
    Delete(u32),
}

fn act() -> impl Strategy<Value = (usize, Act)> {
    let life = prop::sample::select(vec![1, 1, 2, 2, 3, 4, LIFE_MAX]);
    let kind = 0..6_u8;
    (0..3_usize, kind, life).prop_map(|(who, kind, life)| {
        let act = match kind {
            0 | 1 => Act::Create(life),
            2 => Act::Junk(life),
            3 => Act::Follow(life),
            _ => Act::Delete(life),
        };
        (who, act)
    })
}

type Told = (Option<(u32, String, String, DeviceId, bool, BTreeSet<crate::ids::ChangeHash>)>, bool);

/// What a device says of the id, but for the reason of a quarantine, which is its own.
fn told(device: &mut Device, lane: LaneId) -> (Told, CountsRow, Vec<(String, u32)>) {
    let seen = device.see(lane, "x");
    let deleted = matches!(seen, Visibility::Deleted { .. });
    let shown = match seen {
        Visibility::Shown(object) => {
            let quarantined = matches!(object.row.state, RowState::Quarantined(_));
            let heads = object.heads().into_iter().collect();
            let row = object.row;
            Some((object.life, row.body, row.class, object.author, quarantined, heads))
        }
        _ => None,
    };
    ((shown, deleted), device.store().counts(lane), listed(device, lane))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_journals_shows_the_same_life_of_an_id(
        lane in prop::sample::select(vec![LaneId::Normal, LaneId::Audit]),
        acts in prop::collection::vec(act(), 0..14),
        orders in prop::collection::vec(
            prop::collection::vec((0..3_usize, any::<bool>(), 1..4_usize), 0..14), 3),
    ) {
        let mut members = [2, 3, 4].map(Member::new);
        // What any member has signed of a life, for others to follow.
        let mut objects: BTreeMap<u32, Object> = BTreeMap::new();
        for (n, (who, act)) in acts.iter().enumerate() {
            let member = &mut members[*who];
            match *act {
                Act::Create(life) => {
                    let change = creation(&member.author, json!({"n": n, "by": who}));
                    let object = objects.entry(life).or_default();
                    let _ = object.apply(&change.bytes, change.hash, member.author.actor());
                    member.sign(lane, vec![("x", life, &change)]);
                }
                Act::Follow(life) => {
                    let object = objects.entry(life).or_default();
                    let content = Content::of(json!({"n": n, "by": who})).unwrap();
                    let change = object.set(&content, member.author.actor(), WallMillis(1));
                    if let Some(change) = change.unwrap() {
                        member.sign(lane, vec![("x", life, &change)]);
                    }
                }
                Act::Junk(life) => member.junk(lane, "x", life),
                Act::Delete(life) => member.delete(lane, "x", life),
            }
        }
        let mut results = Vec::new();
        for (order, work_target) in orders.iter().zip([WORK_BYTES_TARGET, 1, 10_000]) {
            let mut device = Device::new(9);
            device.store().work_target = work_target;
            let mut next: BTreeMap<(usize, LaneId), usize> = BTreeMap::new();
            let rest = (0..3).flat_map(|who| [(who, false, 99), (who, true, 99)]);
            for (who, graves, count) in order.iter().copied().chain(rest) {
                let lane = if graves { LaneId::Tombstone } else { lane };
                let Some(journal) = members[who].journals.get(&lane) else { continue };
                let from = next.entry((who, lane)).or_default();
                let to = (*from + count).min(journal.len());
                if *from < to {
                    device.take_of(lane, members[who].author, &journal[*from..to]);
                    *from = to;
                }
            }
            results.push(told(&mut device, lane));
        }
        for result in &results[1..] {
            prop_assert_eq!(result, &results[0]);
        }
    }
}
