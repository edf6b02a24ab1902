//! Two connections to one device become one link.

use srcos_replication::dialer::ANEW_AGE_MS_MIN;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_dialling_at_once_settle_on_one_link() {
    for round in 0..20 {
        let (mut a, at_a) = Node::start(1, Transports::ALL).await;
        let (mut b, at_b) = Node::start(2, Transports::ALL).await;
        a.transport.dial(b.device(), at_b).unwrap();
        b.transport.dial(a.device(), at_a).unwrap();
        settle(&mut a, &mut b, End::default(), End::default(), round).await;
    }
}

/// Lets both ends go on until each has heard the other's word on its link, and all is quiet.
async fn settle(a: &mut Node, b: &mut Node, mut end_a: End, mut end_b: End, round: usize) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
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

/// As when both hosts have moved to another network: the old link is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn both_ends_dialling_anew_at_once_settle_on_one_new_link() {
    let mut pairs = Vec::new();
    for _ in 0..6 {
        let (mut a, at_a) = Node::start(1, Transports::ALL).await;
        let (mut b, at_b) = Node::start(2, Transports::ALL).await;
        a.transport.dial(b.device(), at_b.clone()).unwrap();
        let (up_a, up_b) = (a.connected().await, b.connected().await);
        a.transport.accept(up_a.conn);
        b.transport.accept(up_b.conn);
        pairs.push((a, at_a, up_a, b, at_b, up_b));
    }
    // A younger link is taken for one of two dials at once, so only age decides.
    tokio::time::sleep(Duration::from_millis(ANEW_AGE_MS_MIN)).await;
    for (round, (mut a, at_a, up_a, mut b, at_b, up_b)) in pairs.into_iter().enumerate() {
        // A dial that asks for no new link makes none.
        a.transport.dial(b.device(), at_b.clone()).unwrap();
        a.transport.dial_anew(b.device(), at_b).unwrap();
        b.transport.dial_anew(a.device(), at_a).unwrap();
        let before = (up_a.conn, up_b.conn);
        let (end_a, end_b) = (End::on(up_a), End::on(up_b));
        settle(&mut a, &mut b, end_a, end_b, round).await;
        let kept = |node: &Node, conn| lock(&node.transport.links).contains_key(&conn);
        assert!(!kept(&a, before.0) && !kept(&b, before.1), "round {round}: the old link stayed");
    }
}

/// What one end knows of its link. On each link that comes up it says one word.
#[derive(Debug, Default)]
struct End {
    up: Option<Connected>,
    heard: Option<(ConnId, Bytes)>,
}

impl End {
    fn on(up: Connected) -> Self {
        Self { up: Some(up), heard: None }
    }

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
