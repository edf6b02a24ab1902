//! Strangers in number, who hold connections open and open them anew.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A stranger that opens a link whenever it has none, until it is dropped.
struct Pest(tokio::task::JoinHandle<()>);

impl Pest {
    async fn start(
        host: &str,
        seed: u8,
        at: &Node,
        addr: &Multiaddr,
        opened: &Arc<AtomicUsize>,
    ) -> Self {
        let config = Config { transports: QUIC, ..Config::default() };
        let (mut pest, _) = Node::start_at(host, seed, &config).await;
        let (device, addrs, opened) = (at.device(), vec![addr.clone()], opened.clone());
        Self(tokio::spawn(async move {
            pest.transport.dial(device, addrs.clone()).unwrap();
            while let Some(event) = pest.events.recv().await {
                match event {
                    Event::Connected(_) => {
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                    Event::Disconnected { .. } | Event::DialFailed { .. } => {
                        pest.transport.dial(device, addrs.clone()).unwrap();
                    }
                    _ => {}
                }
            }
        }))
    }
}

impl Drop for Pest {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Links that are up at the node, as the next events change them.
fn count(up: &mut BTreeSet<ConnId>, event: &Event) {
    match event {
        Event::Connected(connected) => {
            up.insert(connected.conn);
        }
        Event::Disconnected { conn, .. } => {
            up.remove(conn);
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_few_but_the_next_one_and_members_always_get_in() {
    let (mut node, addrs) = Node::start(1, TCP).await;
    let member = Node::start(200, TCP).await.0;
    node.transport.set_members([member.device()].into()).unwrap();
    let mut strangers = Vec::new();
    let mut up = BTreeSet::new();
    for seed in 10..40 {
        let (stranger, _) = Node::start(seed, TCP).await;
        stranger.transport.dial(node.device(), addrs.clone()).unwrap();
        let device = stranger.device();
        strangers.push(stranger);
        loop {
            let event = node.event().await;
            count(&mut up, &event);
            if matches!(&event, Event::Connected(connected) if connected.device == device) {
                break;
            }
        }
    }
    while up.len() > STRANGERS_MAX {
        let event = node.event().await;
        count(&mut up, &event);
    }
    member.transport.dial(node.device(), addrs).unwrap();
    let at_node = node
        .until(|event| match event {
            Event::Connected(connected) => Ok(connected),
            event => Err(event),
        })
        .await;
    assert_eq!(at_node.device, member.device());
}

/// More strangers than there are places, all from another address than the joiner's: each that is sent
/// away comes again at once, for as long as the test lasts.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_come_again_for_ever_take_no_place_from_who_comes_from_elsewhere() {
    let (mut node, addrs) = Node::start(1, QUIC).await;
    node.transport.set_pairing_open(true);
    let opened = Arc::new(AtomicUsize::new(0));
    let mut pests = Vec::new();
    for seed in 100..100 + STRANGERS_MAX as u8 + 4 {
        pests.push(Pest::start("127.0.0.2", seed, &node, &addrs[0], &opened).await);
    }
    let mut pairing = None;
    let mut joiner = None;
    let mut after = 0;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "{after}, {pairing:?}, {opened:?}");
        match node.event().await {
            Event::Connected(connected) => {
                assert!(connected.addr.to_string().contains("/127.0.0.2/"), "{connected:?}");
                after += usize::from(pairing.is_some());
            }
            Event::Pairing(opened) => pairing = Some(opened),
            _ => {}
        }
        // All places are taken and fought for: now somebody wants to join.
        if joiner.is_none() && opened.load(Ordering::Relaxed) > 2 * STRANGERS_MAX {
            let (mut comes, _) = Node::start(2, QUIC).await;
            comes.transport.open_pairing(1, addrs[0].clone(), None).unwrap();
            joiner = Some(tokio::spawn(async move {
                let pairing = comes.until(|event| match event {
                    Event::Pairing(pairing) => Ok(pairing),
                    Event::PairingFailed { why, .. } => panic!("{why:?}"),
                    event => Err(event),
                });
                let pairing = pairing.await;
                (pairing, comes)
            }));
        }
        // Its stream outlives as many who come later as would have every place several times over.
        if after > 4 * STRANGERS_MAX {
            break;
        }
    }
    let (mut at_joiner, _comes) = joiner.unwrap().await.unwrap();
    let mut at_node = pairing.unwrap();
    assert_eq!(at_node.device, DeviceKey::from_seed([2; 32]).device());
    at_joiner.writer.send(b"may I?").await.unwrap();
    assert_eq!(at_node.reader.recv().await.unwrap().unwrap(), "may I?");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_never_prove_anything_keep_nobody_out_who_comes_from_elsewhere() {
    let (mut node, addrs) = Node::start(1, Transports::ALL).await;
    let port = addrs[1].iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], port.unwrap()));
    let mut held = Vec::new();
    for _ in 0..PENDING_MAX + 8 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        held.push(socket.connect(to).await.unwrap());
    }
    // It listens nowhere: else it would dial from its own port, which one of the sockets may have.
    let key = DeviceKey::from_seed([2; 32]);
    let (transport, events) =
        spawn(&Config { transports: TCP, ..Config::default() }, &key).unwrap();
    let mut other = Node { transport, events, key };
    let started = std::time::Instant::now();
    other.transport.dial(node.device(), vec![addrs[1].clone()]).unwrap();
    other.connected().await;
    node.connected().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}: it waited", started.elapsed());
    assert!(held.len() > PENDING_MAX);
}
