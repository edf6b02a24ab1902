//! The pairing stream.

use super::*;

async fn pairing(node: &mut Node) -> Pairing {
    node.until(|event| match event {
        Event::Pairing(pairing) => Ok(pairing),
        Event::PairingFailed { why, .. } => panic!("{why:?}"),
        event => Err(event),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_pair_only_while_pairing_is_open() {
    for transports in [QUIC, TCP] {
        let (mut a, _) = Node::start(1, transports).await;
        let (mut b, addrs) = Node::start(2, transports).await;
        a.transport.open_pairing(7, addrs[0].clone(), None).unwrap();
        let refused = a
            .until(|event| match event {
                Event::PairingFailed { attempt, why } => {
                    assert_eq!(attempt, 7);
                    Ok(why)
                }
                event => Err(event),
            })
            .await;
        assert_eq!(refused.kind, DialErrorKind::NotSpoken, "{refused:?}");

        b.transport.set_pairing_open(true);
        a.transport.open_pairing(8, addrs[0].clone(), Some(b.device())).unwrap();
        let (mut at_a, mut at_b) = (pairing(&mut a).await, pairing(&mut b).await);
        assert_eq!((at_a.device, at_b.device), (b.device(), a.device()));
        assert_eq!((at_a.attempt, at_b.attempt), (Some(8), None));
        at_a.writer.send(b"may I?").await.unwrap();
        assert_eq!(at_b.reader.recv().await.unwrap().unwrap(), "may I?");
        at_b.writer.send(&vec![1; PAIRING_FRAME_BYTES_MAX]).await.unwrap();
        at_b.writer.finish().await.unwrap();
        assert_eq!(at_a.reader.recv().await.unwrap().unwrap().len(), PAIRING_FRAME_BYTES_MAX);
        assert_eq!(at_a.reader.recv().await.unwrap(), None);
        let over = at_a.writer.send(&vec![1; PAIRING_FRAME_BYTES_MAX + 1]).await;
        assert!(matches!(over, Err(PairingError::TooLarge { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairing_and_a_link_of_one_device_live_side_by_side() {
    let (mut a, to_b, mut b, _) = pair(TCP).await;
    b.transport.set_pairing_open(true);
    let addr = b.listen("/ip4/127.0.0.1/tcp/0").await;
    a.transport.open_pairing(9, addr, None).unwrap();
    let (mut at_a, mut at_b) = (pairing(&mut a).await, pairing(&mut b).await);
    at_a.writer.send(b"again").await.unwrap();
    assert_eq!(at_b.reader.recv().await.unwrap().unwrap(), "again");
    a.transport.try_send(to_b, Bytes::from_static(b"link")).unwrap();
    assert_eq!(b.frame().await, "link");
}
