//! A row that rotted on disk: what it holds is lost, and nothing else stops.

use redb::ReadableTable;
use srcos_lanes::journal::Entry;
use srcos_lanes::tables;

use super::*;

impl World {
    /// The node stops, a bit of each such row flips, and it starts again.
    pub(super) fn damage(
        &mut self,
        node: usize,
        table: tables::Bytes,
        such: impl Fn(&[u8]) -> bool,
    ) {
        self.cut_all();
        let node = &mut self.nodes[node];
        let dir = node._dir.path();
        let opens_outside = Some(node.store.opens().unwrap());
        let options = OpenOptions { device: node.key.device(), opens_outside, random: 99 };
        let none = Store::create(&dir.join("none.redb"), &options).unwrap();
        std::mem::replace(&mut node.store, none).close().unwrap();
        let db = redb::Database::open(dir.join("store.redb")).unwrap();
        let turn = db.begin_write().unwrap();
        let mut rows = turn.open_table(table).unwrap();
        let all: Vec<(Vec<u8>, Vec<u8>)> = rows
            .iter()
            .unwrap()
            .map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
            .collect::<Result<_, _>>()
            .unwrap();
        let mut flipped = 0;
        for (key, mut value) in all {
            if such(tables::unseal(table, &key, &value).unwrap()) {
                value[0] ^= 1;
                rows.insert(key.as_slice(), value.as_slice()).unwrap();
                flipped += 1;
            }
        }
        assert!(flipped > 0);
        drop(rows);
        turn.commit().unwrap();
        drop(db);
        node.store = Store::open(&dir.join("store.redb"), &options).unwrap();
        let config = EngineConfig {
            signer: Box::new(node.key.clone()),
            policy: ReplicationPolicy::default(),
            seed: [79; 32],
        };
        node.engine = Engine::new(config, &mut node.store).unwrap();
    }

    fn damage_entry(&mut self, node: usize, of: usize, seq: u64) {
        let device = self.device(of);
        self.damage(node, tables::ENTRIES, |bytes| {
            let header = Entry::read(bytes).unwrap().header;
            (header.lane, header.author.device, header.seq) == (LaneId::Normal, device, seq)
        });
    }
}

#[test]
fn an_entry_that_rotted_keeps_back_its_journal_alone_and_is_told_of_once() {
    let mut world = World::mesh(3);
    for n in 0..5 {
        world.put(0, &format!("x{n}"), json!(n));
    }
    let content = PutContent { body: json!(1), ..PutContent::default() };
    // After the damaged one in the order of sending.
    world.write(0, LaneId::Archive, "late", content);
    world.put(1, "other", json!(1));
    world.damage_entry(0, 0, 3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.run();
    for node in 1..3 {
        assert_eq!(world.body(node, LaneId::Normal, "x1"), Some(json!(1)));
        assert_eq!(world.body(node, LaneId::Normal, "x2"), None);
        assert_eq!(world.body(node, LaneId::Archive, "late"), Some(json!(1)));
        assert_eq!(world.body(node, LaneId::Normal, "other"), Some(json!(1)));
    }
    // New ones make it try again, and say no more.
    world.put(0, "x5", json!(5));
    world.run();
    let unreadable = |event: &&Event| matches!(event, Event::Unreadable { .. });
    assert_eq!(world.nodes[0].events.iter().filter(unreadable).count(), 1);
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::Ahead);
    assert_eq!(world.state(1, LaneId::Normal, 0), LaneState::Behind);
}

#[test]
fn a_receipt_that_ends_at_a_damaged_entry_is_heard_to_its_end() {
    let mut world = World::mesh(3);
    world.put(0, "x", json!(1));
    world.put(0, "x", json!(2));
    world.connect(0, 1);
    world.run();
    world.cut_all();
    world.put(0, "x", json!(3));
    world.damage_entry(0, 0, 2);
    world.connect(0, 1);
    world.run();
    assert_eq!(world.body(1, LaneId::Normal, "x"), Some(json!(3)));
    world.assert_equal_of(&[0, 1]);
}

impl World {
    fn assert_equal_of(&self, nodes: &[usize]) {
        let held = |node: usize| self.nodes[node].store.frontier(LaneId::Normal);
        assert!(nodes.iter().all(|node| held(*node) == held(nodes[0])));
    }
}

#[test]
fn a_damaged_memory_of_a_peer_is_forgotten_and_the_engine_starts() {
    let mut world = World::mesh(2);
    let device = world.device(1);
    let phrase = b"a very recognisable phrase";
    for fact in [crate::peers::FACT, "claims-1"] {
        world.nodes[0].store.put_peer_fact(device, fact, phrase).unwrap();
    }
    let Node { key, _dir: dir, store, .. } = world.nodes.remove(0);
    store.close().unwrap();
    let path = dir.path().join("store.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let found = |at: &usize| bytes[*at..].starts_with(phrase);
    let places: Vec<_> = (0..bytes.len() - phrase.len()).filter(found).collect();
    assert!(places.len() >= 2);
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
    let options = OpenOptions { device: key.device(), opens_outside: Some(1), random: 1 };
    let mut store = Store::open(&path, &options).unwrap();
    let snapshot = store.reader().snapshot().unwrap();
    assert!(snapshot.peer_fact(device, crate::peers::FACT).is_err(), "it is damaged");
    let policy = ReplicationPolicy::default();
    let signer = Box::new(key.clone());
    let engine = Engine::new(EngineConfig { signer, policy, seed: [1; 32] }, &mut store).unwrap();
    assert!(engine.roster().is_member(device));
}
