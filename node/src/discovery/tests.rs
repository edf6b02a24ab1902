//! Two instances on this machine, over real multicast.

use std::collections::BTreeSet;

use super::*;

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn device(byte: u8) -> DeviceId {
    DeviceId([byte; 32])
}

fn announcement(quic: u16, nameplate: Option<&str>) -> Announcement {
    let ports = Ports { quic4: Some(quic), tcp6: Some(quic), ..Ports::default() };
    Announcement { ports, nameplate: nameplate.map(str::to_owned) }
}

/// Two that announce, or `None`, said loudly, where this machine carries no multicast.
async fn two(port: u16) -> Option<[(Discovery, mpsc::Receiver<Event>); 2]> {
    let config = Config { loopback: true, port };
    let mut a = spawn(config.clone(), device(1)).unwrap();
    let b = spawn(config, device(2)).unwrap();
    a.0.announce(announcement(1001, None)).unwrap();
    b.0.announce(announcement(1002, None)).unwrap();
    match timeout(PATIENCE, a.1.recv()).await.unwrap().unwrap() {
        Event::NotWorking { why } => {
            let word = format!("SKIPPED: multicast does not work on this machine: {why}\n");
            std::io::Write::write_all(&mut std::io::stderr(), word.as_bytes()).unwrap();
            None
        }
        _ => Some([a, b]),
    }
}

async fn seen(
    events: &mut mpsc::Receiver<Event>,
    mut wanted: impl FnMut(&Candidate) -> bool,
) -> Candidate {
    loop {
        match timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            Event::PeerSeen(candidate) if wanted(&candidate) => return candidate,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_find_each_other_follow_changes_and_hear_goodbye() {
    let Some([(a, mut at_a), (b, mut at_b)]) = two(15_353).await else {
        return;
    };
    let known: BTreeSet<_> = [device(1), device(2)].into();
    let is = |candidate: &Candidate, n| candidate.tag.find(&known) == Some(&device(n));
    let b_seen = seen(&mut at_a, |candidate| is(candidate, 2)).await;
    let ports: BTreeSet<_> = b_seen.addrs.iter().map(ToString::to_string).collect();
    assert!(ports.iter().any(|addr| addr.ends_with("/udp/1002/quic-v1")), "{ports:?}");
    assert_eq!(b_seen.nameplate, None);
    seen(&mut at_b, |candidate| is(candidate, 1)).await;

    // An invitation opens, and the port changes.
    b.announce(announcement(1003, Some("17"))).unwrap();
    let invites = |candidate: &Candidate| {
        is(candidate, 2)
            && candidate.nameplate.as_deref() == Some("17")
            && candidate.addrs.iter().any(|addr| addr.to_string().contains("/udp/1003/"))
    };
    seen(&mut at_a, invites).await;

    b.shutdown().await;
    loop {
        if let Event::PeerLost(tag) = timeout(PATIENCE, at_a.recv()).await.unwrap().unwrap() {
            assert_eq!(tag, b_seen.tag);
            break;
        }
    }
    a.shutdown().await;
    assert_eq!(a.announce(Announcement::default()), Err(NotTaken));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_loopback_no_loopback_address_is_announced() {
    let config = Config { loopback: false, port: 15_354 };
    let (a, mut at_a) = spawn(config.clone(), device(1)).unwrap();
    let (b, _at_b) = spawn(config, device(2)).unwrap();
    a.announce(announcement(1001, None)).unwrap();
    b.announce(announcement(1002, None)).unwrap();
    // With a network card they find each other there; without, discovery says that it cannot work.
    loop {
        match timeout(PATIENCE, at_a.recv()).await.unwrap().unwrap() {
            Event::PeerSeen(candidate) => {
                assert!(candidate.addrs.iter().all(|addr| !addr.to_string().contains("/127.")));
                assert!(candidate.addrs.iter().all(|addr| !addr.to_string().contains("/::1/")));
                break;
            }
            Event::NotWorking { why } => {
                assert!(why.contains("multicast"), "{why}");
                break;
            }
            _ => {}
        }
    }
}

/// A node that listens on this machine only must not tell other machines, nor lead anyone astray.
#[tokio::test(flavor = "multi_thread")]
async fn loopback_announces_loopback_addresses_only() {
    let Some([(_a, mut at_a), (b, _at_b)]) = two(15_355).await else {
        return;
    };
    b.announce(announcement(1003, None)).unwrap();
    let candidate = seen(&mut at_a, |_| true).await;
    for addr in &candidate.addrs {
        let addr = addr.to_string();
        assert!(addr.starts_with("/ip4/127.") || addr.starts_with("/ip6/::1/"), "{addr}");
    }
}
