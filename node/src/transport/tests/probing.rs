//! Asking a peer whether it is there.

use super::proxy::Proxy;
use super::*;

async fn probed(node: &mut Node) -> (ConnId, bool) {
    node.until(|event| match event {
        Event::Probed { conn, alive } => Ok((conn, alive)),
        Event::Disconnected { reason, .. } => panic!("{reason:?}"),
        event => Err(event),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_there_answers_either_end_at_once_and_the_link_goes_on() {
    for transports in [QUIC, TCP] {
        let (mut a, to_b, mut b, to_a) = pair(transports).await;
        let started = std::time::Instant::now();
        for _ in 0..20 {
            a.transport.probe(to_b).unwrap();
            assert_eq!(probed(&mut a).await, (to_b, true));
            b.transport.probe(to_a).unwrap();
            assert_eq!(probed(&mut b).await, (to_a, true));
        }
        assert!(started.elapsed() < 10 * PROBE_TIMEOUT, "{:?}", started.elapsed());
        a.transport.try_send(to_b, Bytes::from_static(b"after")).unwrap();
        assert_eq!(b.frame().await, "after");
        // Nobody is asked over a link that is not there.
        a.transport.probe(ConnId(99)).unwrap();
        a.transport.probe(to_b).unwrap();
        assert_eq!(probed(&mut a).await, (to_b, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_silent_is_found_so_in_time_and_its_link_is_not_ended_for_it() {
    let (mut a, _) = Node::start(1, TCP).await;
    let (mut b, addrs) = Node::start(2, TCP).await;
    let wire = Proxy::to(&addrs[0]).await;
    a.transport.dial(b.device(), vec![wire.addr.clone()]).unwrap();
    let (at_a, at_b) = (a.connected().await.conn, b.connected().await.conn);
    a.transport.accept(at_a);
    b.transport.accept(at_b);
    a.transport.probe(at_a).unwrap();
    assert_eq!(probed(&mut a).await, (at_a, true));
    wire.set_open(false);
    let started = std::time::Instant::now();
    a.transport.probe(at_a).unwrap();
    assert_eq!(probed(&mut a).await, (at_a, false));
    assert!(started.elapsed() >= PROBE_TIMEOUT / 2, "{:?}", started.elapsed());
    wire.set_open(true);
    b.transport.try_send(at_b, Bytes::from_static(b"here I am")).unwrap();
    assert_eq!(a.frame().await, "here I am");
    a.transport.probe(at_a).unwrap();
    assert_eq!(probed(&mut a).await, (at_a, true));
}
