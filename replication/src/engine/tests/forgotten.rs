//! What is remembered of peers and is damaged: it is forgotten, and stops nothing.

use super::*;

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
