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

/// A machine at some moment, as a virtual one is kept: the file of its store, its count of opens, and what
/// the engine in its memory makes of the word of peers.
struct Snapshot {
    file: Vec<u8>,
    opens: u64,
    claims: Claims,
}

impl World {
    fn snapshot(&self, node: usize) -> Snapshot {
        let node = &self.nodes[node];
        let files = std::fs::read_dir(node._dir.path()).unwrap().map(|file| file.unwrap().path());
        let newest = files.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap();
        Snapshot {
            file: std::fs::read(newest).unwrap(),
            opens: node.store.opens().unwrap(),
            claims: node.engine.claims.clone(),
        }
    }

    /// The machine is as it was; the others, and time, are not.
    fn put_back(&mut self, node: usize, old: &Snapshot) {
        self.cut_all();
        let node = &mut self.nodes[node];
        let path = node._dir.path().join(format!("put-back-{}.redb", self.now));
        std::fs::write(&path, &old.file).unwrap();
        // What is kept outside was put back as well: the store has no way to know.
        let opens_outside = Some(old.opens);
        let options = OpenOptions { device: node.key.device(), opens_outside, random: 99 };
        node.store = Store::open(&path, &options).unwrap();
        let config = EngineConfig {
            signer: Box::new(node.key.clone()),
            policy: ReplicationPolicy::default(),
            seed: [78; 32],
        };
        node.engine = Engine::new(config, &mut node.store).unwrap();
        node.engine.claims = old.claims.clone();
    }

    fn incarnations(&self, node: usize) -> usize {
        let started = |event: &&Event| matches!(event, Event::IncarnationStarted { .. });
        self.nodes[node].events.iter().filter(started).count()
    }
}

/// A peer whose word was proven by what it then sent is believed at once the next time.
#[test]
fn machine_that_is_put_back_again_within_minutes_believes_the_peer_that_was_right() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run();
    for round in 1..=3 {
        world.put(0, "kept", json!({ "round": round }));
        let old = world.snapshot(0);
        for n in 0..5 {
            world.put(0, &format!("x{round}-{n}"), json!({ "n": n }));
        }
        world.run();
        let author = world.nodes[0].store.author();
        world.put_back(0, &old);
        assert_eq!(world.nodes[0].store.author(), author, "the store cannot know");
        world.connect(0, 1);
        world.run();
        assert_eq!(world.incarnations(0), round);
        world.put(0, "after", json!({ "round": round }));
        world.run();
        assert_eq!(world.body(1, LaneId::Normal, "after"), Some(json!({ "round": round })));
        world.assert_equal();
        let forked = world.nodes[1].store.journals(LaneId::Normal).any(|(_, row)| row.forked);
        assert!(!forked, "round {round}");
    }
    assert!(world.now < RENEW_EVERY_MS);
}

/// An entry with this device's own signature is proof, even from one whose word is doubted.
#[test]
fn own_signature_on_a_lost_entry_is_believed_whoever_shows_it_and_whenever() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run();
    let mut old = world.snapshot(0);
    // The peer's word was spent on something else a moment ago.
    let (peer, now) = (world.device(1), world.clock());
    old.claims.doubt(peer, 1, now.mono.after_ms(RENEW_EVERY_MS));
    world.put(0, "x", json!(1));
    world.put(0, "y", json!(2));
    world.run();
    let author = world.nodes[0].store.author();
    world.put_back(0, &old);
    assert_eq!(world.nodes[0].store.author(), author, "the store cannot know");
    world.connect(0, 1);
    world.run();
    assert_ne!(world.nodes[0].store.author(), author);
    // What it said before that, it has not shown.
    assert_eq!(world.nodes[0].engine.claims.unproven(peer), 1);
    assert_eq!(world.body(0, LaneId::Normal, "y"), Some(json!(2)));
    world.put(0, "z", json!(3));
    world.run();
    assert_eq!(world.body(1, LaneId::Normal, "z"), Some(json!(3)));
    world.assert_equal();
}

/// A key that counts how often it is asked for.
struct Counting(SigningKey, std::sync::Arc<std::sync::atomic::AtomicU32>);

impl Signer for Counting {
    fn device(&self) -> DeviceId {
        self.0.device()
    }

    fn sign(&self, message: &[u8]) -> srcos_lanes::signature::Signature {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Signer::sign(&self.0, message)
    }
}

#[test]
fn what_several_peers_are_told_in_the_same_words_is_signed_once() {
    let mut world = World::mesh(4);
    for other in 1..4 {
        world.connect(0, other);
    }
    world.run();
    let count = std::sync::Arc::default();
    let key = world.nodes[0].key.clone();
    world.nodes[0].engine.signer = Box::new(Counting(key, std::sync::Arc::clone(&count)));
    world.put(0, "x", json!(1));
    assert_eq!(count.swap(0, std::sync::atomic::Ordering::Relaxed), 1, "the entry");
    world.run();
    assert_eq!(count.swap(0, std::sync::atomic::Ordering::Relaxed), 1, "three receipts");
    for other in 1..4 {
        assert_eq!(world.state(0, LaneId::Normal, other), LaneState::InSync);
        assert_eq!(world.state(other, LaneId::Normal, 0), LaneState::InSync);
    }
}

/// Found in review: an orderly end left the time at which the connection began.
#[test]
fn peer_was_last_seen_when_its_connection_ended_however_that_was() {
    type End = fn(&mut World);
    let ends: [(&str, End); 3] = [
        ("a link that is gone", |world| world.cut_all()),
        ("a peer that stops", |world| {
            let node = &mut world.nodes[1];
            node.engine.shut_down(&mut node.store).unwrap();
        }),
        ("a peer that breaks the protocol", |world| {
            let (now, conn) = (world.clock(), world.links[0].ends[0].1);
            let node = &mut world.nodes[0];
            node.engine.handle_frame(&mut node.store, now, conn, &[9]).unwrap();
        }),
    ];
    for (what, end) in ends {
        let mut world = World::mesh(2);
        world.connect(0, 1);
        world.run();
        for _ in 0..3 {
            world.now += DIGEST_EVERY_MS;
            world.timeouts();
            world.run();
        }
        let last = world.clock().wall;
        end(&mut world);
        world.step();
        world.step();
        for (node, peer) in [(0, 1), (1, 0)] {
            let seen = world.nodes[node].engine.seen_at(world.device(peer));
            assert_eq!(seen, Some(last), "{what}, n{node}");
        }
        // And it is remembered.
        world.now += PEERS_SAVE_MS;
        world.timeouts();
        world.settle(0);
        let snapshot = world.nodes[0].store.reader().snapshot().unwrap();
        let kept = crate::peers::remembered_seen_at(&snapshot, world.device(1)).unwrap();
        assert_eq!(kept, Some(last), "{what}");
    }
}
