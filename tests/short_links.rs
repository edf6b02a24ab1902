//! A peer whose links never last is not dialled in a tight loop.

use std::time::{Duration, Instant};

use srcos_node::data_dir::DataDir;
use srcos_node::transport::{self, Config, Event};
use srcos_replication::dialer::BACKOFF_MS_MIN;

use crate::process::{ALONE, pair_of, place};

/// Links that are waited for. The waits between them double: with the shortest each time, they would all
/// be there after two seconds or so.
const LINKS: u32 = 5;

#[test]
fn link_that_does_not_last_is_dialled_later_each_time() {
    let place = place();
    let (mut a, mut b) = pair_of(place.path(), &ALONE);
    b.stop();
    a.stop();
    let (key, store) = DataDir::new(&b.dir).open().expect("the node has ended");
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    tokio.block_on(async {
        // The member's key and its network, and nothing else: each link is closed as soon as it is up.
        let (network, mut events) = transport::spawn(&Config::default(), &key).expect("it starts");
        network.listen("/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("an address")).expect("taken");
        let mut came = Vec::new();
        let patience = tokio::time::timeout(Duration::from_secs(120), async {
            while let Some(event) = events.recv().await {
                match event {
                    Event::Listening { addr } => {
                        a.set_args(&[&ALONE[..], &["--peer", &addr.to_string()]].concat());
                        tokio::task::block_in_place(|| a.run());
                    }
                    Event::Connected(connected) => {
                        came.push(Instant::now());
                        network.disconnect(connected.conn);
                        if came.len() as u32 >= LINKS {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        patience.await.expect("it is dialled again and again");
        // Half of each doubled time is jitter's: 500, 1,000, 2,000 and 4,000 ms at least.
        let least: u64 = (1..LINKS).map(|n| (BACKOFF_MS_MIN << n) / 2).sum();
        let took = came[came.len() - 1] - came[0];
        assert!(took >= Duration::from_millis(least), "{took:?} for {LINKS} links");
    });
    store.close().expect("it closes");
}
