//! Objects that have a time to live, in the order in which a node does things.

use super::*;

#[test]
fn what_was_put_in_a_turn_that_is_still_open_expires_in_its_time() {
    let mut world = World::mesh(1);
    let now = world.clock();
    let put = PutContent { body: json!(1), ttl_ms: Some(5_000), ..PutContent::default() };
    let op = Op { id: "e".into(), action: Action::Put(put), if_heads: None };
    let Node { engine, store, .. } = &mut world.nodes[0];
    engine.write(store, now, LaneId::Ephemeral, &[op]).unwrap();
    // A node looks at the time before it commits.
    engine.handle_timeout(store, now).unwrap();
    world.settle(0);
    world.now += 5_000;
    let now = world.clock();
    let Node { engine, store, .. } = &mut world.nodes[0];
    assert!(engine.poll_timeout(now).is_some_and(|at| at <= now.mono));
    engine.handle_timeout(store, now).unwrap();
    world.settle(0);
    let snapshot = world.nodes[0].store.reader().snapshot().unwrap();
    let seen = snapshot.object(LaneId::Ephemeral, "e", now.wall).unwrap();
    assert_eq!(seen, Visibility::Absent, "its bodies are gone");
}
