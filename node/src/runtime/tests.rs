//! What the daemon makes of announcements that anybody can send.

use srcos_lanes::ids::MonoMillis;
use srcos_replication::engine::{ConnId, Event};
use srcos_replication::wire::{AbortReason, Assembler, Message};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::data_dir::DataDir;
use crate::discovery::Tag;
use crate::keys::DeviceKey;
use crate::transport::tests::proxy::Proxy;
use crate::transport::{Config, Transports};

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn network(key: &DeviceKey) -> (Transport, Events, Multiaddr) {
    let config = Config { transports: Transports { quic: false, tcp: true }, ..Config::default() };
    let (transport, mut events) = transport::spawn(&config, key).unwrap();
    transport.listen("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let Some(transport::Event::Listening { addr }) = events.recv().await {
            return (transport, events, addr);
        }
    }
}

/// A daemon with a link to a member, over a wire that can be stopped.
struct Linked {
    daemon: Daemon,
    network: Events,
    peer: DeviceId,
    wire: Proxy,
    /// Frames that reach the peer; it ends with the link.
    at_peer: mpsc::UnboundedReceiver<Bytes>,
    _dir: TempDir,
}

impl Linked {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let data = DataDir::new(&dir.path().join("laptop"));
        data.init(Some("laptop")).unwrap();
        let mut core = Core::open(Clock::start(), &DataDir::new(data.path())).unwrap();
        let (transport, network_events, addr) = network(&core.key).await;
        let key = DeviceKey::from_seed([77; 32]);
        let (other, mut at_other, other_addr) = network(&key).await;
        let now = core.now();
        core.engine.admit(&mut core.store, now, key.device(), "desktop", None).unwrap();
        core.commit().unwrap();
        let parts = Parts {
            core,
            transport,
            network: network_events,
            discovery: None,
            peers: Vec::new(),
            listen: vec![addr],
        };
        let (mut daemon, mut network, ..) = Daemon::new(parts).unwrap();
        daemon.members_changed();
        let wire = Proxy::to(&other_addr).await;
        let peer = key.device();
        daemon.transport.dial(peer, vec![wire.addr.clone()]).unwrap();
        let (frames, at_peer) = mpsc::unbounded_channel();
        // It keeps its end open, and says nothing.
        tokio::spawn(async move {
            while let Some(event) = at_other.recv().await {
                match event {
                    transport::Event::Connected(connected) => other.accept(connected.conn),
                    transport::Event::Frame { bytes, .. } => frames.send(bytes).unwrap(),
                    transport::Event::Disconnected { .. } => return,
                    _ => {}
                }
            }
        });
        loop {
            let event = timeout(PATIENCE, network.recv()).await.unwrap().unwrap();
            let up = match &event {
                transport::Event::Connected(connected) => Some(connected.conn),
                _ => None,
            };
            daemon.handle_network(event);
            if let Some(conn) = up {
                daemon.transport.accept(conn);
                return Self { daemon, network, peer, wire, at_peer, _dir: dir };
            }
        }
    }

    /// Someone announces, in the peer's name, that it is at an address.
    fn announced(&mut self, addr: &str) {
        let candidate = Candidate {
            tag: Tag::new([1; 8], &self.peer),
            addrs: vec![addr.parse().unwrap()],
            nameplate: None,
        };
        self.daemon.handle_discovery(discovery::Event::PeerSeen(candidate));
    }

    /// Takes what the network reports, until the peer has been asked whether it is there.
    async fn asked(&mut self) -> bool {
        loop {
            let event = timeout(PATIENCE, self.network.recv()).await.unwrap().unwrap();
            let answer = match &event {
                transport::Event::Probed { alive, .. } => Some(*alive),
                transport::Event::Disconnected { reason, .. } => panic!("{reason:?}"),
                _ => None,
            };
            self.daemon.handle_network(event);
            if let Some(alive) = answer {
                return alive;
            }
        }
    }

    /// The dial that would be due an hour from now, if the daemon slept till then.
    fn dial_due(&mut self) -> Option<Dial> {
        let later = MonoMillis(self.daemon.core.now().mono.0 + 3_600_000);
        self.daemon.dialer.poll(later)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_lives_is_not_replaced_for_what_is_announced_in_its_peers_name() {
    let mut linked = Linked::new().await;
    for _ in 0..5 {
        linked.announced("/ip4/127.0.0.1/tcp/1");
        linked.announced("/ip4/192.0.2.9/tcp/1");
        assert!(linked.asked().await, "the peer is there, and says so");
        assert_eq!(linked.dial_due(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_dead_is_replaced_when_its_peer_is_announced_elsewhere() {
    let mut linked = Linked::new().await;
    linked.announced("/ip4/127.0.0.1/tcp/1");
    linked.wire.set_open(false);
    linked.announced("/ip4/192.0.2.9/tcp/1");
    assert!(!linked.asked().await);
    let dial = linked.dial_due().expect("it is dialled anew");
    assert!(dial.anew && dial.device == linked.peer, "{dial:?}");
    assert!(dial.addresses.contains(&"/ip4/192.0.2.9/tcp/1".to_owned()), "{dial:?}");
}

fn stranger(n: u16) -> DeviceId {
    let mut bytes = [9; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    DeviceId(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_come_and_go_leave_nothing_behind() {
    let mut linked = Linked::new().await;
    for n in 0..100 {
        linked.daemon.handle_network(transport::Event::Disconnected {
            conn: LinkId(1_000 + u64::from(n)),
            device: stranger(n),
            reason: transport::DisconnectReason::PeerClosed,
        });
        linked.daemon.handle_engine(Event::Close {
            conn: ConnId(1_000 + u64::from(n)),
            device: stranger(n),
            reason: AbortReason::Protocol,
            detail: "no hello".into(),
            by_peer: false,
        });
    }
    assert!(linked.daemon.core.network.errors.is_empty());
    // Of a member it is said, until it is none any more.
    linked.daemon.handle_engine(Event::Close {
        conn: ConnId(2_000),
        device: linked.peer,
        reason: AbortReason::Protocol,
        detail: "no hello".into(),
        by_peer: false,
    });
    assert_eq!(linked.daemon.core.network.errors.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_announcements_is_bounded_and_pushes_out_no_member() {
    let mut linked = Linked::new().await;
    linked.announced("/ip4/192.0.2.9/tcp/1");
    for n in 0..1_000 {
        linked.daemon.handle_discovery(discovery::Event::PeerSeen(Candidate {
            tag: Tag::new([1; 8], &stranger(n)),
            addrs: Vec::new(),
            nameplate: None,
        }));
    }
    let candidates: Vec<Tag> = linked.daemon.candidates.iter().map(|found| found.tag).collect();
    assert_eq!(candidates.len(), discovery::CANDIDATES_MAX);
    let of = |device| candidates.contains(&Tag::new([1; 8], &device));
    assert!(of(linked.peer) && of(stranger(999)) && !of(stranger(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_write_that_failed_nothing_wakes_the_loop_by_itself() {
    let mut linked = Linked::new().await;
    let Daemon { core, dialer, .. } = &mut linked.daemon;
    let now = core.now();
    core.engine.admit(&mut core.store, now, stranger(1), "phone", None).unwrap();
    dialer.set_members(&[stranger(1)].into());
    dialer.address(
        stranger(1),
        "/ip4/192.0.2.9/tcp/1",
        srcos_replication::dialer::Source::Person,
        now.mono,
    );
    let damaged = ApiError::internal("a row cannot be read");
    linked.daemon.note_failure(Err(damaged));
    let soon = now.mono.after_ms(FAILED_AGAIN_MS);
    let next = linked.daemon.next_timeout().map(tokio::time::Instant::into_std);
    assert!(next >= Some(linked.daemon.core.clock.instant(soon)), "it would spin");
    linked.daemon.write_failed = true;
    linked.daemon.settle(Vec::new());
    assert_eq!(linked.daemon.next_timeout(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sync_is_not_said_of_a_link_that_is_gone() {
    let mut linked = Linked::new().await;
    linked.daemon.core.network.errors.insert(linked.peer, "link closed".to_owned());
    // Connected, greeted and superseded, all within one turn.
    linked.daemon.handle_engine(Event::Opened { conn: ConnId(9_999), device: linked.peer });
    let network = &linked.daemon.core.network;
    assert!(!network.links.contains_key(&linked.peer));
    assert!(!network.counters.contains_key(&("srcos_links_opened_total", String::new())));
    assert_eq!(network.errors[&linked.peer], "link closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_link_ends_is_told_before_it_ends() {
    for _ in 0..5 {
        let mut linked = Linked::new().await;
        let bytes = Bytes::from_static(b"no message at all");
        let conn = *linked.daemon.links.keys().next().unwrap();
        linked.daemon.handle_network(transport::Event::Frame { conn, bytes });
        linked.daemon.settle(Vec::new());
        let mut assembler = Assembler::default();
        let mut told = None;
        while let Some(frame) = timeout(PATIENCE, linked.at_peer.recv()).await.unwrap() {
            if let Some(message) = assembler.push(&frame).unwrap()
                && let Message::Abort { reason, .. } = Message::decode(&message).unwrap()
            {
                told = Some(reason);
            }
        }
        assert_eq!(told, Some(AbortReason::Protocol), "the link ended without a word");
    }
}
