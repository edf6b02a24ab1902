//! Two connections to one device become one link.

use super::*;

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
            assert!(tokio::time::Instant::now() < deadline, "{end_a:?} {end_b:?}");
        }
        let (up_a, up_b) = (end_a.up.unwrap(), end_b.up.unwrap());
        assert_eq!(end_a.heard.unwrap(), (up_a.conn, Bytes::from_static(b"from b")));
        assert_eq!(end_b.heard.unwrap(), (up_b.conn, Bytes::from_static(b"from a")));
        assert_ne!(up_a.outbound, up_b.outbound, "round {round}: each kept its own");
        assert_eq!((lock(&a.transport.links).len(), lock(&b.transport.links).len()), (1, 1));
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
                assert!(self.up.is_none(), "a second link before the end of the first");
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
