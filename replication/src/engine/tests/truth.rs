//! Nothing is said that was not proven, and a proof is believed.

use super::*;

impl World {
    fn state_at(&self, node: usize, peer: usize, now: Now) -> LaneState {
        let node = &self.nodes[node];
        let peers = node.engine.lane_peers_at(&node.store, LaneId::Normal, now);
        let device = self.device(peer);
        peers.iter().find(|peer| peer.device == device).unwrap().state
    }
}

#[test]
fn peer_that_falls_silent_is_in_step_no_longer_and_is_again_when_it_speaks() {
    let mut world = World::mesh(2);
    world.put(0, "x", json!(1));
    world.connect(0, 1);
    world.run();
    // Digests go on: in step for as long as they do.
    for _ in 0..10 {
        world.now += DIGEST_EVERY_MS;
        world.timeouts();
        world.run();
        assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
    }
    // The link stays up, and nothing comes over it.
    let (heard, link) = (world.clock(), world.links.remove(0));
    let later =
        |ms| Now { mono: MonoMillis(heard.mono.0 + ms), wall: WallMillis(heard.wall.0 + ms) };
    assert_eq!(world.state_at(0, 1, later(SILENCE_MS_MAX - 1)), LaneState::InSync);
    assert_eq!(world.state_at(0, 1, later(SILENCE_MS_MAX)), LaneState::Unknown);
    // Nor does it while this machine sleeps, when one clock stands still.
    let asleep = Now { mono: heard.mono, ..later(SILENCE_MS_MAX) };
    assert_eq!(world.state_at(0, 1, asleep), LaneState::Unknown);
    let peers = world.nodes[0].engine.lane_peers_at(
        &world.nodes[0].store,
        LaneId::Normal,
        later(SILENCE_MS_MAX),
    );
    assert!(peers[0].confirmed_at.is_some(), "the last proof is told all the same");

    world.links.push(link);
    world.now += 2 * SILENCE_MS_MAX;
    world.timeouts();
    world.run();
    assert_eq!(world.state(0, LaneId::Normal, 1), LaneState::InSync);
}
