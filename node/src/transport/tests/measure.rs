//! Throughput and latency on loopback: `cargo test -p srcos-node --release --lib -- --ignored --nocapture throughput`.

use super::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for a release build"]
#[allow(clippy::print_stderr)] // what it measures is all that it is for
async fn throughput() {
    const TOTAL: usize = 512 << 20;
    for (name, transports) in [("quic", QUIC), ("tcp", TCP)] {
        let (mut a, to_b, mut b, to_a) = pair(transports).await;
        let frame = Bytes::from(vec![0x5a; 64 * 1024]);
        let started = std::time::Instant::now();
        let receiver = tokio::spawn(async move {
            let mut got = 0;
            while got < TOTAL {
                got += b.frame().await.len();
            }
            b
        });
        let mut sent = 0;
        while sent < TOTAL {
            match a.transport.try_send(to_b, frame.clone()) {
                Ok(()) => sent += frame.len(),
                Err(_) => {
                    a.until(|e| if matches!(e, Event::Writable { .. }) { Ok(()) } else { Err(e) })
                        .await;
                }
            }
        }
        let mut b = receiver.await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let mut trips = Vec::new();
        for _ in 0..1000 {
            let started = std::time::Instant::now();
            a.transport.try_send(to_b, Bytes::from_static(&[1; 200])).unwrap();
            b.frame().await;
            b.transport.try_send(to_a, Bytes::from_static(&[1; 200])).unwrap();
            a.frame().await;
            trips.push(started.elapsed().as_micros());
        }
        trips.sort();
        eprintln!(
            "{name}: {:.0} MB/s one way; round trip of 200 bytes p50 {} us, p99 {} us",
            TOTAL as f64 / 1e6 / seconds,
            trips[500],
            trips[990]
        );
        let started = std::time::Instant::now();
        let b = tokio::spawn(saturate(b, to_a, TOTAL));
        saturate(a, to_b, TOTAL).await;
        b.await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{name}: {:.0} MB/s each way, both ways", TOTAL as f64 / 1e6 / seconds);
    }
}
