//! Real sockets on loopback.

use std::time::Duration;

use super::*;
use futures::AsyncWriteExt as _;
use tokio::time::timeout;

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const QUIC: Transports = Transports {
    quic: true,
    tcp: false,
};
const TCP: Transports = Transports {
    quic: false,
    tcp: true,
};

struct Node {
    transport: Transport,
    events: Events,
    key: DeviceKey,
}

impl Node {
    async fn start(seed: u8, transports: Transports) -> (Self, Vec<Multiaddr>) {
        Self::start_with(
            seed,
            &Config {
                transports,
                ..Config::default()
            },
        )
        .await
    }

    /// Listens on loopback with each transport.
    async fn start_with(seed: u8, config: &Config) -> (Self, Vec<Multiaddr>) {
        let key = DeviceKey::from_seed([seed; 32]);
        let (transport, events) = spawn(config, &key).unwrap();
        let mut node = Self {
            transport,
            events,
            key,
        };
        let mut addrs = Vec::new();
        if config.transports.quic {
            addrs.push(node.listen("/ip4/127.0.0.1/udp/0/quic-v1").await);
        }
        if config.transports.tcp {
            addrs.push(node.listen("/ip4/127.0.0.1/tcp/0").await);
        }
        (node, addrs)
    }

    async fn listen(&mut self, addr: &str) -> Multiaddr {
        self.transport.listen(addr.parse().unwrap()).unwrap();
        self.until(|event| match event {
            Event::Listening { addr } => Ok(addr),
            event => Err(event),
        })
        .await
    }

    async fn event(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("an event")
    }

    /// The first event that `pick` takes; others are dropped.
    async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Result<T, Event>) -> T {
        loop {
            if let Ok(picked) = pick(self.event().await) {
                return picked;
            }
        }
    }

    async fn connected(&mut self) -> Connected {
        self.until(|event| match event {
            Event::Connected(connected) => Ok(connected),
            Event::DialFailed { attempts, .. } => panic!("{attempts:?}"),
            event => Err(event),
        })
        .await
    }

    async fn frame(&mut self) -> Bytes {
        self.until(|event| match event {
            Event::Frame { bytes, .. } => Ok(bytes),
            Event::Disconnected { reason, .. } => panic!("{reason:?}"),
            event => Err(event),
        })
        .await
    }

    async fn disconnected(&mut self) -> DisconnectReason {
        self.until(|event| match event {
            Event::Disconnected { reason, .. } => Ok(reason),
            event => Err(event),
        })
        .await
    }

    async fn dial_failed(&mut self) -> Vec<Attempt> {
        self.until(|event| match event {
            Event::DialFailed { attempts, .. } => Ok(attempts),
            Event::Connected(connected) => panic!("{connected:?}"),
            event => Err(event),
        })
        .await
    }

    fn device(&self) -> DeviceId {
        self.key.device()
    }
}

/// Two nodes with an accepted link; the first has dialled.
async fn pair(transports: Transports) -> (Node, ConnId, Node, ConnId) {
    pair_with(&Config {
        transports,
        ..Config::default()
    })
    .await
}

async fn pair_with(config: &Config) -> (Node, ConnId, Node, ConnId) {
    let (mut a, _) = Node::start_with(1, config).await;
    let (mut b, addrs) = Node::start_with(2, config).await;
    a.transport.dial(b.device(), addrs).unwrap();
    let at_a = a.connected().await;
    let at_b = b.connected().await;
    assert_eq!((at_a.device, at_b.device), (b.device(), a.device()));
    assert!(at_a.outbound && !at_b.outbound);
    a.transport.accept(at_a.conn);
    b.transport.accept(at_b.conn);
    (a, at_a.conn, b, at_b.conn)
}

#[test]
fn default_listen_addresses_are_addresses() {
    assert_eq!(Transports::ALL.listen_anywhere().len(), 4);
    assert_eq!(TCP.listen_anywhere().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_go_both_ways_and_stay_whole_and_in_order() {
    for transports in [QUIC, TCP] {
        let (mut a, to_b, mut b, to_a) = pair(transports).await;
        let sizes = [
            0,
            1,
            3,
            4,
            65_531,
            65_532,
            65_533,
            70_000,
            1,
            40_000,
            0,
            FRAME_BYTES_MAX,
            5,
        ];
        let frame = |i: usize, size: usize| Bytes::from(vec![i as u8; size]);
        for (i, size) in sizes.into_iter().enumerate() {
            a.transport.try_send(to_b, frame(i, size)).unwrap();
            assert_eq!(b.frame().await, frame(i, size), "{transports:?}");
            b.transport.try_send(to_a, frame(i, size)).unwrap();
            assert_eq!(a.frame().await, frame(i, size), "{transports:?}");
        }
        for i in 0..500 {
            a.transport.try_send(to_b, frame(i, i)).unwrap();
        }
        for i in 0..500 {
            assert_eq!(b.frame().await, frame(i, i));
        }
        let traffic = a.transport.traffic(to_b).unwrap();
        assert!(traffic.bytes_out > FRAME_BYTES_MAX as u64 && traffic.bytes_in > 0);
    }
}

/// Sends `total` bytes while it takes as many, and gives both nodes back.
async fn saturate(mut node: Node, conn: ConnId, total: usize) -> Node {
    let frame = Bytes::from(vec![0x5a; 256 * 1024]);
    let (mut sent, mut got) = (0, 0);
    loop {
        while sent < total {
            match node.transport.try_send(conn, frame.clone()) {
                Ok(()) => sent += frame.len(),
                Err(SendError::Full(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if sent >= total && got >= total {
            break;
        }
        match node.event().await {
            Event::Frame { bytes, .. } => {
                assert_eq!(bytes, frame);
                got += bytes.len();
            }
            Event::Disconnected { reason, .. } => panic!("{reason:?} after {sent}, {got}"),
            _ => {}
        }
    }
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saturated_two_way_transfer_never_stalls() {
    const TOTAL: usize = 64 << 20;
    for transports in [QUIC, TCP] {
        let (a, to_b, b, to_a) = pair(transports).await;
        let b = tokio::spawn(saturate(b, to_a, TOTAL));
        let _a = saturate(a, to_b, TOTAL).await;
        b.await.unwrap();
    }
}

/// `cargo test -p srcos-node --release --lib transport -- --ignored --nocapture throughput`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for a release build"]
async fn throughput() {
    const TOTAL: usize = 512 << 20;
    for (name, transports) in [("quic", QUIC), ("tcp", TCP)] {
        let (mut a, to_b, mut b, to_a) = pair(transports).await;
        let frame = Bytes::from(vec![0x5a; 64 * 1024]);
        let started = std::time::Instant::now();
        let receiver = tokio::spawn(async move {
            let mut got = 0;
            while got < TOTAL {
                got += b.frame().await.len();
            }
            b
        });
        let mut sent = 0;
        while sent < TOTAL {
            match a.transport.try_send(to_b, frame.clone()) {
                Ok(()) => sent += frame.len(),
                Err(_) => {
                    a.until(|e| {
                        if matches!(e, Event::Writable { .. }) {
                            Ok(())
                        } else {
                            Err(e)
                        }
                    })
                    .await;
                }
            }
        }
        let mut b = receiver.await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let mut trips = Vec::new();
        for _ in 0..1000 {
            let started = std::time::Instant::now();
            a.transport
                .try_send(to_b, Bytes::from_static(&[1; 200]))
                .unwrap();
            b.frame().await;
            b.transport
                .try_send(to_a, Bytes::from_static(&[1; 200]))
                .unwrap();
            a.frame().await;
            trips.push(started.elapsed().as_micros());
        }
        trips.sort();
        eprintln!(
            "{name}: {:.0} MB/s one way; round trip of 200 bytes p50 {} us, p99 {} us",
            TOTAL as f64 / 1e6 / seconds,
            trips[500],
            trips[990]
        );
        let started = std::time::Instant::now();
        let b = tokio::spawn(saturate(b, to_a, TOTAL));
        saturate(a, to_b, TOTAL).await;
        b.await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        eprintln!(
            "{name}: {:.0} MB/s each way, both ways",
            TOTAL as f64 / 1e6 / seconds
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_dialling_at_once_settle_on_one_link() {
    for round in 0..20 {
        let (mut a, at_a) = Node::start(1, Transports::ALL).await;
        let (mut b, at_b) = Node::start(2, Transports::ALL).await;
        a.transport.dial(b.device(), at_b).unwrap();
        b.transport.dial(a.device(), at_a).unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (mut end_a, mut end_b) = (End::default(), End::default());
        loop {
            // Settled is what stays as it is, so quiet is what is waited for.
            let next = async {
                tokio::select! {
                    event = a.events.recv() => end_a.take(&a.transport, b"from a", event.unwrap()),
                    event = b.events.recv() => end_b.take(&b.transport, b"from b", event.unwrap()),
                }
            };
            if timeout(Duration::from_millis(300), next).await.is_err()
                && end_a.heard.is_some()
                && end_b.heard.is_some()
            {
                break;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{end_a:?} {end_b:?}"
            );
        }
        let (up_a, up_b) = (end_a.up.unwrap(), end_b.up.unwrap());
        assert_eq!(
            end_a.heard.unwrap(),
            (up_a.conn, Bytes::from_static(b"from b"))
        );
        assert_eq!(
            end_b.heard.unwrap(),
            (up_b.conn, Bytes::from_static(b"from a"))
        );
        assert_ne!(
            up_a.outbound, up_b.outbound,
            "round {round}: each kept its own"
        );
        assert_eq!(
            (
                lock(&a.transport.links).len(),
                lock(&b.transport.links).len()
            ),
            (1, 1)
        );
    }
}

/// What one end knows of its link. On each link that comes up it says one word.
#[derive(Debug, Default)]
struct End {
    up: Option<Connected>,
    heard: Option<(ConnId, Bytes)>,
}

impl End {
    fn take(&mut self, transport: &Transport, word: &'static [u8], event: Event) {
        match event {
            Event::Connected(connected) => {
                assert!(
                    self.up.is_none(),
                    "a second link before the end of the first"
                );
                transport.accept(connected.conn);
                // The link may have been superseded already.
                let _ = transport.try_send(connected.conn, Bytes::from_static(word));
                self.up = Some(connected);
            }
            Event::Disconnected { conn, .. } => {
                assert_eq!(self.up.take().map(|up| up.conn), Some(conn));
                self.heard = None;
            }
            Event::Frame { conn, bytes } => {
                assert_eq!(self.up.as_ref().map(|up| up.conn), Some(conn));
                self.heard = Some((conn, bytes));
            }
            Event::DialFailed { attempts, .. } => panic!("{attempts:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_dials_anew_replaces_its_old_link_in_order() {
    let (mut a, to_b, b, _) = pair(TCP).await;
    // The same device from another process, as after a crash that the peer has not noticed.
    let (b2, _) = Node::start(2, TCP).await;
    let addr = a.listen("/ip4/127.0.0.1/tcp/0").await;
    // B dialled nothing before, so wait until the link is older than a simultaneous dial can be.
    // The dialler of the first link is a; only age decides. Force it through a second dial by b2.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let replaced = loop {
        assert!(tokio::time::Instant::now() < deadline);
        b2.transport.dial(a.device(), vec![addr.clone()]).unwrap();
        let next = timeout(Duration::from_millis(500), a.events.recv()).await;
        if let Ok(Some(Event::Disconnected { conn, reason, .. })) = next {
            assert_eq!((conn, reason), (to_b, DisconnectReason::Superseded));
            break a.connected().await;
        }
    };
    assert_ne!(replaced.conn, to_b);
    assert!(!replaced.outbound);
    drop(b);
}

/// A peer that speaks libp2p but not our frames.
struct Rude {
    stream: libp2p::swarm::Stream,
}

/// Opens the sync stream by hand, and gives the raw stream.
async fn rude_stream(to: &Node, addr: &Multiaddr) -> Rude {
    use super::behaviour::{Gate, Purpose, Streams};
    use libp2p::swarm::SwarmEvent;
    let key = DeviceKey::from_seed([9; 32]).network();
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            Default::default(),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )
        .unwrap()
        .with_quic()
        .with_behaviour(|_| Streams::new(Arc::new(Gate::default())))
        .unwrap()
        .build();
    swarm.dial(addr.clone()).unwrap();
    let (sender, receiver) = oneshot::channel();
    let mut sender = Some(sender);
    let peer = crate::keys::peer_of_device(&to.device()).unwrap();
    tokio::spawn(async move {
        use futures::StreamExt as _;
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                    swarm
                        .behaviour_mut()
                        .open(peer, connection_id, Purpose::Sync);
                }
                SwarmEvent::Behaviour(event) => {
                    if let Some(sender) = sender.take() {
                        assert!(sender.send(event.outcome.unwrap()).is_ok());
                    }
                }
                SwarmEvent::ConnectionClosed { .. } => return,
                _ => {}
            }
        }
    });
    let stream = timeout(PATIENCE, receiver).await.unwrap().unwrap();
    Rude { stream }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_header_ends_the_link_before_anything_is_set_aside() {
    for transports in [QUIC, TCP] {
        let (mut node, addrs) = Node::start(1, transports).await;
        let mut rude = rude_stream(&node, &addrs[0]).await;
        rude.stream
            .write_all(&u32::MAX.to_be_bytes())
            .await
            .unwrap();
        rude.stream.flush().await.unwrap();
        let connected = node.connected().await;
        node.transport.accept(connected.conn);
        let reason = node.disconnected().await;
        assert_eq!(
            reason,
            DisconnectReason::FrameTooLarge {
                bytes: u64::from(u32::MAX)
            }
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_frames_or_the_end_of_the_link_but_no_harm() {
    let (mut node, addrs) = Node::start(1, TCP).await;
    for seed in 0..20_u8 {
        let mut rude = rude_stream(&node, &addrs[0]).await;
        let mut garbage: Vec<u8> = Vec::new();
        let mut hash = blake3::Hasher::new().update(&[seed]).finalize_xof();
        garbage.resize(10_000, 0);
        hash.fill(&mut garbage);
        // The node may end the link while we still write.
        let _ = rude.stream.write_all(&garbage).await;
        let _ = rude.stream.close().await;
        let connected = node.connected().await;
        node.transport.accept(connected.conn);
        let reason = node.disconnected().await;
        let expected = matches!(
            reason,
            DisconnectReason::FrameTooLarge { .. }
                | DisconnectReason::Network(_)
                | DisconnectReason::PeerClosed
        );
        assert!(expected, "{reason:?}");
    }
    // The node is as well as before.
    let (mut other, _) = Node::start(2, TCP).await;
    other.transport.dial(node.device(), addrs).unwrap();
    other.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_not_accepted_is_read_little_and_closed() {
    for transports in [QUIC, TCP] {
        let (mut node, addrs) = Node::start(1, transports).await;
        let mut rude = rude_stream(&node, &addrs[0]).await;
        let writer = tokio::spawn(async move {
            let frame = [&1000_u32.to_be_bytes()[..], &[0; 1000]].concat();
            while rude.stream.write_all(&frame).await.is_ok() {}
        });
        let connected = node.connected().await;
        let (mut frames, mut traffic) = (0, 0);
        let reason = loop {
            match node.event().await {
                Event::Frame { .. } => {
                    frames += 1;
                    let now = node.transport.traffic(connected.conn);
                    traffic = now.map_or(traffic, |t| t.bytes_in as usize);
                }
                Event::Disconnected { reason, .. } => break reason,
                _ => {}
            }
        };
        assert_eq!(reason, DisconnectReason::NotAccepted);
        assert!(
            (1..=UNACCEPTED_BYTES_MAX / 1004).contains(&frames),
            "{frames}"
        );
        assert!(traffic <= UNACCEPTED_BYTES_MAX, "{traffic}");
        timeout(PATIENCE, writer).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_link_is_read_past_the_allowance_of_a_stranger() {
    let (mut node, addrs) = Node::start(1, TCP).await;
    let mut rude = rude_stream(&node, &addrs[0]).await;
    let frame = [&(1_u32 << 20).to_be_bytes()[..], &[0; 1 << 20]].concat();
    let writer = tokio::spawn(async move {
        rude.stream.write_all(&frame).await.unwrap();
        rude.stream.flush().await.unwrap();
        rude
    });
    let connected = node.connected().await;
    node.transport.accept(connected.conn);
    assert_eq!(node.frame().await.len(), 1 << 20);
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn going_offline_cuts_refuses_and_can_be_undone() {
    for transports in [QUIC, TCP] {
        let (mut a, _, mut b, _) = pair(transports).await;
        b.transport.set_offline(true).unwrap();
        assert_eq!(b.disconnected().await, DisconnectReason::Offline);
        a.disconnected().await;
        // It dials nobody.
        b.transport
            .dial(a.device(), vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()])
            .unwrap();
        assert_eq!(b.dial_failed().await[0].kind, DialErrorKind::Offline);
        // It admits nobody.
        let addr = if transports.quic {
            b.listen("/ip4/127.0.0.1/udp/0/quic-v1").await
        } else {
            b.listen("/ip4/127.0.0.1/tcp/0").await
        };
        a.transport.dial(b.device(), vec![addr.clone()]).unwrap();
        let refused = tokio::select! {
            attempts = a.dial_failed() => attempts,
            connected = b.connected() => panic!("{connected:?}"),
        };
        assert_eq!(refused.len(), 1, "{refused:?}");
        b.transport.set_offline(false).unwrap();
        a.transport.dial(b.device(), vec![addr]).unwrap();
        a.connected().await;
        b.connected().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_read_fills_only_bounded_queues() {
    for transports in [QUIC, TCP] {
        let (mut a, to_b, mut b, _) = pair(transports).await;
        // The runtime of B takes no events, so B's budget, both windows, and A's queue fill up.
        let frame = Bytes::from(vec![1; 256 * 1024]);
        let mut sent = 0;
        let mut refusals_without_relief = 0;
        while refusals_without_relief < 10 {
            match a.transport.try_send(to_b, frame.clone()) {
                Ok(()) => {
                    sent += frame.len();
                    refusals_without_relief = 0;
                }
                Err(SendError::Full(_)) => {
                    let relief = timeout(Duration::from_millis(200), a.events.recv()).await;
                    if !matches!(relief, Ok(Some(Event::Writable { .. }))) {
                        refusals_without_relief += 1;
                    }
                }
                Err(error) => panic!("{error}"),
            }
            assert!(sent < 100 << 20, "nothing bounds it");
        }
        assert!(a.transport.traffic(to_b).unwrap().bytes_queued <= SEND_QUEUE_BYTES_MAX);
        // It is only held up: once B takes its events, all of it arrives.
        let mut got = 0;
        while got < sent {
            got += b.frame().await.len();
        }
        a.until(|e| {
            if matches!(e, Event::Writable { .. }) {
                Ok(())
            } else {
                Err(e)
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_link_outlives_the_idle_timeout() {
    for transports in [QUIC, TCP] {
        let idle_timeout = Duration::from_millis(100);
        let config = Config {
            transports,
            idle_timeout,
            ..Config::default()
        };
        let (mut a, to_b, mut b, _) = pair_with(&config).await;
        // Nothing but time can show it.
        let quiet = timeout(20 * idle_timeout, a.disconnected()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        a.transport
            .try_send(to_b, Bytes::from_static(b"still here"))
            .unwrap();
        assert_eq!(b.frame().await, "still here");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_device_at_an_address_is_named_and_the_other_addresses_still_tried() {
    let (mut a, _) = Node::start(1, TCP).await;
    let (b, wrong) = Node::start(2, TCP).await;
    let (c, right) = Node::start(3, TCP).await;
    a.transport.dial(c.device(), wrong.clone()).unwrap();
    let attempts = a.dial_failed().await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        (attempts[0].kind, &attempts[0].addr),
        (DialErrorKind::WrongPeer, &wrong[0])
    );
    assert!(
        attempts[0].error.contains(&b.device().short()),
        "{}",
        attempts[0].error
    );
    a.transport
        .dial(c.device(), [wrong, right].concat())
        .unwrap();
    assert_eq!(a.connected().await.device, c.device());
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_dials_say_why() {
    let (mut a, own) = Node::start(1, TCP).await;
    let device = DeviceKey::from_seed([7; 32]).device();
    // A port that was just free.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port())
        .parse()
        .unwrap();
    drop(socket);
    let quic: Multiaddr = "/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap();
    a.transport.dial(device, own).unwrap();
    assert_eq!(a.dial_failed().await[0].kind, DialErrorKind::OwnAddress);
    a.transport
        .dial(device, vec![closed.clone(), quic.clone()])
        .unwrap();
    let attempts = a.dial_failed().await;
    let kind = |addr| attempts.iter().find(|a| a.addr == addr).map(|a| a.kind);
    assert_eq!(kind(closed), Some(DialErrorKind::Refused), "{attempts:?}");
    assert_eq!(kind(quic), Some(DialErrorKind::Unsupported), "{attempts:?}");
    // Something listens, but it is no node.
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let web = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = socket.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    a.transport
        .dial(
            device,
            vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()],
        )
        .unwrap();
    assert_eq!(a.dial_failed().await[0].kind, DialErrorKind::Handshake);
    web.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_without_addresses_fails_at_once() {
    let (mut a, _) = Node::start(1, TCP).await;
    a.transport
        .dial(DeviceKey::from_seed([7; 32]).device(), Vec::new())
        .unwrap();
    assert!(a.dial_failed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_writes_out_what_was_queued() {
    for transports in [QUIC, TCP] {
        let (a, to_b, mut b, _) = pair(transports).await;
        let frame = Bytes::from(vec![3; 1 << 20]);
        a.transport.try_send(to_b, frame.clone()).unwrap();
        a.transport
            .try_send(to_b, Bytes::from_static(b"last words"))
            .unwrap();
        let started = std::time::Instant::now();
        a.transport.shutdown().await;
        assert!(started.elapsed() < GRACE * 2);
        assert_eq!(b.frame().await, frame);
        assert_eq!(b.frame().await, "last words");
        assert_eq!(
            b.disconnected().await,
            DisconnectReason::PeerClosed,
            "{transports:?}"
        );
        assert_eq!(
            a.transport.try_send(to_b, Bytes::new()),
            Err(SendError::Gone)
        );
        assert_eq!(a.transport.set_offline(true), Err(CommandError::Stopped));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_for_a_peer_that_never_reads() {
    let (a, to_b, _b, _) = pair(TCP).await;
    let frame = Bytes::from(vec![3; 1 << 20]);
    // Far more than the peer's budget and the windows hold.
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut a = a;
    loop {
        match a.transport.try_send(to_b, frame.clone()) {
            Ok(()) => {}
            Err(_)
                if timeout(Duration::from_secs(1), a.events.recv())
                    .await
                    .is_err() =>
            {
                break;
            }
            Err(_) => {}
        }
        assert!(std::time::Instant::now() < deadline);
    }
    let started = std::time::Instant::now();
    a.transport.shutdown().await;
    assert!(started.elapsed() < GRACE * 2, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnect_writes_out_what_was_queued_and_both_ends_hear() {
    let (mut a, to_b, mut b, _) = pair(QUIC).await;
    a.transport
        .try_send(to_b, Bytes::from_static(b"bye"))
        .unwrap();
    a.transport.disconnect(to_b);
    assert_eq!(b.frame().await, "bye");
    assert_eq!(a.disconnected().await, DisconnectReason::Local);
    assert_eq!(b.disconnected().await, DisconnectReason::PeerClosed);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_a_peer_are_learned() {
    let (a, _) = Node::start(1, TCP).await;
    let (mut b, addrs) = Node::start(2, TCP).await;
    let mut a = a;
    a.transport.dial(b.device(), addrs.clone()).unwrap();
    let told = a
        .until(|event| match event {
            Event::PeerAddresses { device, addrs, .. } => Ok((device, addrs)),
            event => Err(event),
        })
        .await;
    assert_eq!(told, (b.device(), addrs));
    // A new address is told while the link is up.
    let roamed = b.listen("/ip4/127.0.0.1/tcp/0").await;
    a.until(|event| match event {
        Event::PeerAddresses { addrs, .. } if addrs.contains(&roamed) => Ok(()),
        event => Err(event),
    })
    .await;
}

async fn pairing(node: &mut Node) -> Pairing {
    node.until(|event| match event {
        Event::Pairing(pairing) => Ok(pairing),
        Event::PairingFailed(attempt) => panic!("{attempt:?}"),
        event => Err(event),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_pair_only_while_pairing_is_open() {
    for transports in [QUIC, TCP] {
        let (mut a, _) = Node::start(1, transports).await;
        let (mut b, addrs) = Node::start(2, transports).await;
        a.transport.open_pairing(addrs[0].clone(), None).unwrap();
        let refused = a
            .until(|event| match event {
                Event::PairingFailed(attempt) => Ok(attempt),
                event => Err(event),
            })
            .await;
        assert_eq!(refused.kind, DialErrorKind::Unsupported, "{refused:?}");

        b.transport.set_pairing_open(true);
        a.transport
            .open_pairing(addrs[0].clone(), Some(b.device()))
            .unwrap();
        let (mut at_a, mut at_b) = (pairing(&mut a).await, pairing(&mut b).await);
        assert_eq!((at_a.device, at_b.device), (b.device(), a.device()));
        assert!(at_a.outbound && !at_b.outbound);
        at_a.writer.send(b"may I?").await.unwrap();
        assert_eq!(at_b.reader.recv().await.unwrap().unwrap(), "may I?");
        at_b.writer
            .send(&vec![1; PAIRING_FRAME_BYTES_MAX])
            .await
            .unwrap();
        at_b.writer.finish().await.unwrap();
        assert_eq!(
            at_a.reader.recv().await.unwrap().unwrap().len(),
            PAIRING_FRAME_BYTES_MAX
        );
        assert_eq!(at_a.reader.recv().await.unwrap(), None);
        let over = at_a
            .writer
            .send(&vec![1; PAIRING_FRAME_BYTES_MAX + 1])
            .await;
        assert!(matches!(over, Err(PairingError::TooLarge { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_and_a_link_of_one_device_live_side_by_side() {
    let (mut a, to_b, mut b, _) = pair(TCP).await;
    b.transport.set_pairing_open(true);
    let addr = b.listen("/ip4/127.0.0.1/tcp/0").await;
    a.transport.open_pairing(addr, None).unwrap();
    let (mut at_a, mut at_b) = (pairing(&mut a).await, pairing(&mut b).await);
    at_a.writer.send(b"again").await.unwrap();
    assert_eq!(at_b.reader.recv().await.unwrap().unwrap(), "again");
    a.transport
        .try_send(to_b, Bytes::from_static(b"link"))
        .unwrap();
    assert_eq!(b.frame().await, "link");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_few_but_members_always_get_in() {
    let (mut node, addrs) = Node::start(1, TCP).await;
    let member = Node::start(200, TCP).await.0;
    node.transport
        .set_members([member.device()].into())
        .unwrap();
    let mut strangers = Vec::new();
    for seed in 10..40 {
        let (stranger, _) = Node::start(seed, TCP).await;
        stranger
            .transport
            .dial(node.device(), addrs.clone())
            .unwrap();
        strangers.push(stranger);
    }
    for _ in 0..16 {
        node.connected().await;
    }
    member.transport.dial(node.device(), addrs).unwrap();
    let next = node.connected().await;
    assert_eq!(next.device, member.device());
}
