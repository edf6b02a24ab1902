//! Peers that break the rules, and strangers in number.

use futures::AsyncWriteExt as _;

use super::*;

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
        .with_tcp(Default::default(), libp2p::noise::Config::new, libp2p::yamux::Config::default)
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
                    swarm.behaviour_mut().open(peer, connection_id, Purpose::Sync);
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
        rude.stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        rude.stream.flush().await.unwrap();
        let connected = node.connected().await;
        node.transport.accept(connected.conn);
        let reason = node.disconnected().await;
        assert_eq!(reason, DisconnectReason::FrameTooLarge { bytes: u64::from(u32::MAX) });
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
        assert!((1..=UNACCEPTED_BYTES_MAX / 1004).contains(&frames), "{frames}");
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
