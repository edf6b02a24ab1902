//! Policy that changes while devices are connected.

use srcos_lanes::policy::Grant;

use super::*;

impl World {
    /// A node opens the secure lane to these, and to nobody else, from now on.
    fn open_secure(&mut self, node: usize, to: &[usize]) {
        let grant =
            |other: &usize| Grant { lane: LaneId::Secure, class: None, to: self.device(*other) };
        let policy = ReplicationPolicy::with_grants(to.iter().map(grant));
        self.nodes[node].engine.set_policy(policy);
    }

    /// Links that an engine wanted closed are gone, and all that have none connect.
    fn connect_anew(&mut self) {
        let closed = |world: &Self, (node, conn): (usize, ConnId)| {
            world.nodes[node].engine.queued_bytes(conn) == 0
                && world.nodes[node]
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::Close { conn: of, .. } if *of == conn))
        };
        let now = self.clock();
        let links = std::mem::take(&mut self.links);
        let (gone, left): (Vec<_>, Vec<_>) =
            links.into_iter().partition(|link| link.ends.iter().any(|end| closed(self, *end)));
        self.links = left;
        for link in gone {
            for (node, conn) in link.ends {
                self.nodes[node].engine.handle_disconnected(now, conn);
            }
            self.connect(link.ends[0].0, link.ends[1].0);
        }
    }

    fn secret_of(&self, node: usize) -> Option<Value> {
        self.body(node, LaneId::Secure, "key")
    }
}

/// How often a node said that a connection ends since policy changed.
fn closes(world: &World, node: usize) -> usize {
    let by_policy = |event: &&Event| {
        matches!(event, Event::Close { reason: AbortReason::PolicyChanged, by_peer: false, .. })
    };
    world.nodes[node].events.iter().filter(by_policy).count()
}

#[test]
fn lane_that_is_opened_while_connected_goes_over_without_a_restart() {
    let mut world = World::mesh(3);
    world.write(0, LaneId::Secure, "key", PutContent { body: json!(1), ..PutContent::default() });
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.connect(a, b);
    }
    world.run();
    assert_eq!(world.secret_of(1), None);
    world.open_secure(0, &[1]);
    world.open_secure(1, &[0]);
    world.run();
    // Of the one with whom nothing changed the connection stays.
    assert_eq!((closes(&world, 0), closes(&world, 1), closes(&world, 2)), (1, 1, 0));
    assert!(world.nodes[0].engine.is_connected(world.device(2)));
    world.connect_anew();
    world.run();
    assert_eq!(world.secret_of(1), Some(json!(1)));
    assert_eq!(world.secret_of(2), None, "it was opened to another");
}

#[test]
fn what_was_queued_before_a_lane_was_closed_is_not_sent() {
    let mut world = World::mesh(2);
    world.open_secure(0, &[1]);
    world.open_secure(1, &[0]);
    world.connect(0, 1);
    world.run();
    // Its link takes nothing for now, so what is queued waits.
    let conn = world.links[0].ends[0].1;
    world.write(0, LaneId::Secure, "key", PutContent { body: json!(1), ..PutContent::default() });
    world.nodes[0].engine.handle_blocked(conn, true);
    world.write(0, LaneId::Secure, "key", PutContent { body: json!(2), ..PutContent::default() });
    world.put(0, "open", json!(1));
    world.open_secure(0, &[]);
    world.nodes[0].engine.handle_blocked(conn, false);
    world.run();
    assert_ne!(world.secret_of(1), Some(json!(2)), "it went after it was denied");
    world.connect_anew();
    world.run();
    assert_ne!(world.secret_of(1), Some(json!(2)), "it went after it was denied");
    assert_eq!(world.body(1, LaneId::Normal, "open"), Some(json!(1)), "all else goes on");
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
}

#[test]
fn rest_of_a_message_that_policy_cuts_short_is_not_sent() {
    let mut world = World::mesh(2);
    world.open_secure(0, &[1]);
    world.open_secure(1, &[0]);
    world.connect(0, 1);
    world.run();
    let (now, conn) = (world.clock(), world.links[0].ends[0].1);
    let body = json!("x".repeat(2 * crate::wire::FRAME_BYTES_MAX));
    let action = Action::Put(PutContent { body, ..PutContent::default() });
    let op = Op { id: "key".into(), action, if_heads: None };
    let node = &mut world.nodes[0];
    node.engine.write(&mut node.store, now, LaneId::Secure, &[op]).unwrap();
    node.engine.commit(&mut node.store, now).unwrap();
    let (_, first) = node.engine.poll_transmit(&node.store).unwrap().unwrap();
    assert!(crate::wire::has_more(&first) && node.engine.queued_bytes(conn) > 0);
    world.links[0].queues[1].push_back(first);
    world.open_secure(0, &[]);
    let node = &mut world.nodes[0];
    // Not even the reason: the peer would take it for the rest.
    assert!(node.engine.poll_transmit(&node.store).unwrap().is_none(), "more of it is sent");
    world.run();
    world.connect_anew();
    world.run();
    assert_eq!((closes(&world, 0), world.secret_of(1)), (1, None));
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
}

#[test]
fn same_policy_again_changes_nothing() {
    let mut world = World::mesh(2);
    world.open_secure(0, &[1]);
    world.connect(0, 1);
    world.run();
    world.open_secure(0, &[1]);
    world.run();
    assert_eq!(closes(&world, 0), 0);
    assert!(world.nodes[0].engine.is_connected(world.device(1)));
}
