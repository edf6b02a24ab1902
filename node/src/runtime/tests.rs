//! What the daemon makes of announcements that anybody can send.

use srcos_lanes::ids::MonoMillis;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::data_dir::DataDir;
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
        // It keeps its end open, and says nothing.
        tokio::spawn(async move {
            while let Some(event) = at_other.recv().await {
                if let transport::Event::Connected(connected) = event {
                    other.accept(connected.conn);
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
                return Self { daemon, network, peer, wire, _dir: dir };
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
