//! Dials that fail, addresses, and going offline.

use super::proxy::Proxy;
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn going_offline_cuts_refuses_and_can_be_undone() {
    for transports in [QUIC, TCP] {
        let (mut a, _, mut b, _) = pair(transports).await;
        b.transport.set_offline(true).unwrap();
        assert_eq!(b.disconnected().await, DisconnectReason::Offline);
        a.disconnected().await;
        // It dials nobody.
        b.transport.dial(a.device(), vec!["/ip4/127.0.0.1/tcp/9".parse().unwrap()]).unwrap();
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
async fn another_device_at_an_address_is_named_and_the_other_addresses_still_tried() {
    let (mut a, _) = Node::start(1, TCP).await;
    let (b, wrong) = Node::start(2, TCP).await;
    let (c, right) = Node::start(3, TCP).await;
    a.transport.dial(c.device(), wrong.clone()).unwrap();
    let attempts = a.dial_failed().await;
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].kind, &attempts[0].addr), (DialErrorKind::WrongPeer, &wrong[0]));
    assert!(attempts[0].error.contains(&b.device().short()), "{}", attempts[0].error);
    a.transport.dial(c.device(), [wrong, right].concat()).unwrap();
    assert_eq!(a.connected().await.device, c.device());
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_dials_say_why() {
    let (mut a, own) = Node::start(1, TCP).await;
    let device = DeviceKey::from_seed([7; 32]).device();
    // A port that was just free.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed: Multiaddr =
        format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port()).parse().unwrap();
    drop(socket);
    let quic: Multiaddr = "/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap();
    a.transport.dial(device, own).unwrap();
    assert_eq!(a.dial_failed().await[0].kind, DialErrorKind::OwnAddress);
    a.transport.dial(device, vec![closed.clone(), quic.clone()]).unwrap();
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
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    a.transport.dial(device, vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()]).unwrap();
    assert_eq!(a.dial_failed().await[0].kind, DialErrorKind::Handshake);
    web.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_without_addresses_fails_at_once() {
    let (mut a, _) = Node::start(1, TCP).await;
    a.transport.dial(DeviceKey::from_seed([7; 32]).device(), Vec::new()).unwrap();
    assert!(a.dial_failed().await.is_empty());
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

/// Two nodes of which the first has the smaller id, so that of two dials at once its own counts; and a
/// wire from it to the other that holds up what is dialled over it.
async fn with_slow_way() -> (Node, Vec<Multiaddr>, Node, Proxy) {
    let (a, b) = (DeviceKey::from_seed([1; 32]), DeviceKey::from_seed([2; 32]));
    let (first, second) = if a.device() < b.device() { (1, 2) } else { (2, 1) };
    let (a, at_a) = Node::start(first, TCP).await;
    let (b, at_b) = Node::start(second, TCP).await;
    let slow = Proxy::to(&at_b[0]).await;
    slow.set_open(false);
    (a, at_a, b, slow)
}

/// Lets a node take every link that comes.
fn accepting(mut node: Node) {
    tokio::spawn(async move {
        while let Some(event) = node.events.recv().await {
            if let Event::Connected(connected) = event {
                node.transport.accept(connected.conn);
            }
        }
    });
}

/// That the dial which is held up makes a link that takes the place of one that is up.
async fn replaces(a: &mut Node, old: ConnId, slow: &Proxy) {
    slow.set_open(true);
    let ended = a.until(|event| match event {
        // Whichever end is the first to see the new link ends the old one.
        Event::Disconnected { conn, .. } => Ok(conn),
        Event::DialFailed { attempts, .. } => panic!("{attempts:?}"),
        event => Err(event),
    });
    assert_eq!(ended.await, old);
    assert!(a.connected().await.outbound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_under_way_makes_the_new_link_that_is_asked_for_meanwhile() {
    let (mut a, at_a, b, slow) = with_slow_way().await;
    // It was to make a link where there was none; the other end was quicker.
    a.transport.dial(b.device(), vec![slow.addr.clone()]).unwrap();
    b.transport.dial(a.device(), at_a).unwrap();
    let up = a.connected().await;
    assert!(!up.outbound);
    a.transport.accept(up.conn);
    let device = b.device();
    accepting(b);
    // Now that link is in doubt, and the dial under way is at all the addresses that are known.
    a.transport.dial_anew(device, vec![slow.addr.clone()]).unwrap();
    replaces(&mut a, up.conn, &slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_anew_under_way_makes_a_link_newer_than_one_that_came_meanwhile() {
    let (mut a, at_a, mut b, slow) = with_slow_way().await;
    b.transport.dial(a.device(), at_a.clone()).unwrap();
    let (first, at_b) = (a.connected().await, b.connected().await);
    a.transport.accept(first.conn);
    b.transport.accept(at_b.conn);
    a.transport.dial_anew(b.device(), vec![slow.addr.clone()]).unwrap();
    // The other end makes a new link too, and that one falls into doubt as well.
    b.transport.dial_anew(a.device(), at_a).unwrap();
    let device = b.device();
    accepting(b);
    let second = a.connected().await;
    assert!(!second.outbound && second.conn != first.conn);
    a.transport.accept(second.conn);
    a.transport.dial_anew(device, vec![slow.addr.clone()]).unwrap();
    replaces(&mut a, second.conn, &slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_right_after_the_end_of_a_link_makes_another() {
    let (mut a, _) = Node::start(1, TCP).await;
    let (mut b, addrs) = Node::start(2, TCP).await;
    for _ in 0..50 {
        a.transport.dial(b.device(), addrs.clone()).unwrap();
        let (at_a, at_b) = (a.connected().await, b.connected().await);
        a.transport.accept(at_a.conn);
        b.transport.accept(at_b.conn);
        b.transport.disconnect(at_b.conn);
        // Dialled as soon as it is told, whatever the transport still has to clear away.
        a.disconnected().await;
    }
}
