//! Real sockets on loopback.

mod abuse;
mod dialling;
mod measure;
mod pairing;
mod probing;
pub(crate) mod proxy;
mod settling;
mod strangers;

use std::time::Duration;

use super::*;
use tokio::time::timeout;

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const QUIC: Transports = Transports { quic: true, tcp: false };
const TCP: Transports = Transports { quic: false, tcp: true };

struct Node {
    transport: Transport,
    events: Events,
    key: DeviceKey,
}

impl Node {
    async fn start(seed: u8, transports: Transports) -> (Self, Vec<Multiaddr>) {
        Self::start_with(seed, &Config { transports, ..Config::default() }).await
    }

    /// Listens on loopback with each transport.
    async fn start_with(seed: u8, config: &Config) -> (Self, Vec<Multiaddr>) {
        Self::start_at("127.0.0.1", seed, config).await
    }

    /// The same at another address of loopback. Over QUIC its connections come from there.
    async fn start_at(host: &str, seed: u8, config: &Config) -> (Self, Vec<Multiaddr>) {
        let key = DeviceKey::from_seed([seed; 32]);
        let (transport, events) = spawn(config, &key).unwrap();
        let mut node = Self { transport, events, key };
        let mut addrs = Vec::new();
        if config.transports.quic {
            addrs.push(node.listen(&format!("/ip4/{host}/udp/0/quic-v1")).await);
        }
        if config.transports.tcp {
            addrs.push(node.listen(&format!("/ip4/{host}/tcp/0")).await);
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
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
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
    pair_with(&Config { transports, ..Config::default() }).await
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
        let sizes = [0, 1, 3, 4, 65_531, 65_532, 65_533, 70_000, 1, 40_000, 0, FRAME_BYTES_MAX, 5];
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
        a.until(|e| if matches!(e, Event::Writable { .. }) { Ok(()) } else { Err(e) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_link_outlives_the_idle_timeout() {
    for transports in [QUIC, TCP] {
        let idle_timeout = Duration::from_millis(100);
        let config = Config { transports, idle_timeout, ..Config::default() };
        let (mut a, to_b, mut b, _) = pair_with(&config).await;
        // Nothing but time can show it.
        let quiet = timeout(20 * idle_timeout, a.disconnected()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        a.transport.try_send(to_b, Bytes::from_static(b"still here")).unwrap();
        assert_eq!(b.frame().await, "still here");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_writes_out_what_was_queued() {
    for transports in [QUIC, TCP] {
        let (a, to_b, mut b, _) = pair(transports).await;
        let frame = Bytes::from(vec![3; SEND_QUEUE_BYTES_MAX / 2]);
        a.transport.try_send(to_b, frame.clone()).unwrap();
        a.transport.try_send(to_b, Bytes::from_static(b"last words")).unwrap();
        let started = std::time::Instant::now();
        a.transport.shutdown().await;
        assert!(started.elapsed() < GRACE * 2);
        assert_eq!(b.frame().await, frame);
        assert_eq!(b.frame().await, "last words");
        assert_eq!(b.disconnected().await, DisconnectReason::PeerClosed, "{transports:?}");
        assert_eq!(a.transport.try_send(to_b, Bytes::new()), Err(SendError::Gone));
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
            Err(_) if timeout(Duration::from_secs(1), a.events.recv()).await.is_err() => {
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
    a.transport.try_send(to_b, Bytes::from_static(b"bye")).unwrap();
    a.transport.disconnect(to_b);
    assert_eq!(b.frame().await, "bye");
    assert_eq!(a.disconnected().await, DisconnectReason::Local);
    assert_eq!(b.disconnected().await, DisconnectReason::PeerClosed);
}
