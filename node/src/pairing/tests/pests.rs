//! Strangers who want to keep others from pairing: they take every place there is, and come again as
//! soon as they are sent away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use srcos_lanes::ids::WallMillis;

use super::*;

/// What a stranger does with its connection.
#[derive(Clone, Copy, Debug)]
enum Pest {
    /// Holds a link open on which it says nothing.
    Link,
    /// Holds a pairing stream open on which it says nothing.
    Silent,
    /// Says the hello of one who has the code, and nothing more.
    Hello,
}

/// Lets a stranger loose on a device, from an address of its own, for as long as the test lasts. It
/// counts how often it got in.
async fn let_loose(
    pest: Pest,
    from: &str,
    seed: u8,
    at: &Host,
    code: &str,
    got_in: &Arc<AtomicUsize>,
) {
    let key = DeviceKey::from_seed([seed; 32]);
    let (transport, mut events, _) = transport_at(&key, from).await;
    let (victim, addr, me) = (at.core.key.device(), at.addr.clone(), key.device());
    let (code, got_in) = (code.parse::<Code>().unwrap(), got_in.clone());
    let (ended, mut ends) = mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let come = || match pest {
            Pest::Link => transport.dial(victim, vec![addr.clone()]).unwrap(),
            Pest::Silent | Pest::Hello => transport.open_pairing(1, addr.clone(), None).unwrap(),
        };
        come();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = ends.recv() => {
                    come();
                    continue;
                }
            };
            match event {
                Some(Event::Connected(_)) => {
                    got_in.fetch_add(1, Ordering::Relaxed);
                }
                Some(Event::Pairing(mut pairing)) => {
                    got_in.fetch_add(1, Ordering::Relaxed);
                    if matches!(pest, Pest::Hello) {
                        // It may have been sent away already.
                        let _ = pairing.writer.send(&hello(me, pairing.device, &code)).await;
                    }
                    let ended = ended.clone();
                    tokio::spawn(async move {
                        while pairing.reader.recv().await.is_ok_and(|frame| frame.is_some()) {}
                        drop(pairing);
                        let _ = ended.send(()).await;
                    });
                }
                Some(
                    Event::Disconnected { .. }
                    | Event::DialFailed { .. }
                    | Event::PairingFailed { .. },
                ) => come(),
                Some(_) => {}
                None => return,
            }
        }
    });
}

/// The first frame of one who joins by this code.
fn hello(me: DeviceId, inviter: DeviceId, code: &Code) -> Vec<u8> {
    let now = Now { mono: MonoMillis(0), wall: WallMillis(0) };
    let stream = Stream { id: 0, device: inviter };
    let request = JoinRequest { name: "pest".into(), founding: None, addresses: Vec::new() };
    let secret = Secret::Code(code.clone());
    let mut joiner = Joiner::start(now, me, stream, &secret, request, None, [7; 32]).unwrap();
    joiner.poll_transmit().unwrap().frame
}

/// Lets strangers of each kind loose until they have taken every place several times over, then joins.
async fn joins_among(pests: &[(Pest, usize)], from: &str, to: &str) -> Duration {
    let mut laptop = Host::listening("laptop", to).await;
    let mut desktop = Host::listening("desktop", to).await;
    let invite = laptop.invite();
    let got_in = Arc::new(AtomicUsize::new(0));
    let mut seed = 100;
    for (pest, number) in pests {
        for _ in 0..*number {
            let_loose(*pest, from, seed, &laptop, &invite.code, &got_in).await;
            seed += 1;
        }
    }
    let busy = async {
        while got_in.load(Ordering::Relaxed) < 3 * STRANGERS_MAX {
            laptop.turn().await;
        }
    };
    timeout(PATIENCE, busy).await.expect("they take every place");
    let started = Instant::now();
    let addr = laptop.addr.clone();
    let id = desktop.join(&invite.code, &[&addr]);
    let status = until_over(&mut laptop, &mut desktop, &id).await;
    assert!(matches!(status, JoinStatus::Joined { .. }), "{status:?}");
    started.elapsed()
}

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const QUIC_ELSEWHERE: &str = "/ip4/127.0.0.2/udp/0/quic-v1";

/// Longest time for which a person should wait while others fight for every place.
const IN_TIME: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_hold_links_for_ever_keep_no_joiner_out() {
    let pests = [(Pest::Link, STRANGERS_MAX + 4)];
    let took = joins_among(&pests, QUIC_ELSEWHERE, QUIC).await;
    assert!(took < IN_TIME, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_begin_to_pair_for_ever_keep_no_joiner_out() {
    let pests = [(Pest::Hello, STREAMS_MAX + 2), (Pest::Silent, STREAMS_MAX + 2)];
    let took = joins_among(&pests, QUIC_ELSEWHERE, QUIC).await;
    assert!(took < IN_TIME, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_hold_links_at_the_joiners_own_address_only_delay_it() {
    // Here nothing tells the joiner from them but that it is the newest, and tries again.
    let pests = [(Pest::Link, STRANGERS_MAX + 4)];
    let took = joins_among(&pests, "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0").await;
    assert!(took < PATIENCE, "{took:?}");
}
