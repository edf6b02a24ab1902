//! How long a change takes from one node to the other, one change at a time.

use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::http::Client;
use crate::pair::{LANE, Pair};
use crate::report::{Goal, Report};
use crate::stats::percentile;
use crate::workload;

/// Longest wait for one change to be seen.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A pair whose changes are timed.
pub(crate) struct Probe {
    objects: u64,
    at_a: Client,
    seen_at_b: Receiver<(String, Instant)>,
    samples: u64,
    /// Milliseconds from A's answer to B's event.
    committed: Vec<f64>,
    /// Milliseconds from the request to B's event.
    sent: Vec<f64>,
}

impl Probe {
    /// Starts to follow B. The follower's thread ends with the pair's processes.
    pub(crate) fn new(pair: &Pair, objects: u64) -> anyhow::Result<Self> {
        let (heard, seen_at_b) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let at_b = pair.b.client()?;
        std::thread::spawn(move || {
            // The receiver waits for it; if it gave up, there is nobody to tell.
            let following = move || ready.send(()).unwrap_or_default();
            let seen = |id: &str| heard.send((id.to_owned(), Instant::now())).is_ok();
            // When the stream ends, the channel does, and the probe says that nothing was seen.
            let _ = at_b.follow(LANE, following, seen);
        });
        is_ready.recv_timeout(CHANGE_TIMEOUT).context("B does not follow its changes")?;
        let at_a = pair.a.client()?;
        let (committed, sent) = (Vec::new(), Vec::new());
        Ok(Self { objects, at_a, seen_at_b, samples: 0, committed, sent })
    }

    /// Puts one object on A and waits until B shows it.
    pub(crate) fn sample(&mut self) -> anyhow::Result<()> {
        let id = workload::id("latency", self.samples);
        let body = workload::body(self.samples);
        self.samples += 1;
        let began = Instant::now();
        self.at_a.put(LANE, &id, &body)?;
        let acknowledged = Instant::now();
        loop {
            let seen = self.seen_at_b.recv_timeout(CHANGE_TIMEOUT);
            let (found, at) = seen.context("a change was not seen")?;
            if found != id {
                continue;
            }
            // B may be told before A's answer is read here; that counts as no time at all.
            let after = at.saturating_duration_since(acknowledged);
            self.committed.push(after.as_secs_f64() * 1e3);
            self.sent.push(at.duration_since(began).as_secs_f64() * 1e3);
            return Ok(());
        }
    }

    /// The median from A's answer to B's event, in milliseconds.
    pub(crate) fn p50(&self) -> f64 {
        percentile(&self.committed, 0.5)
    }

    /// What 99 of 100 changes did not exceed, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        percentile(&self.committed, 0.99)
    }

    /// How long the slowest one of so many takes, in milliseconds.
    pub(crate) fn distribution(&self) -> Vec<(f64, f64)> {
        let all = self.committed.len() as f64;
        let shares = [1.25, 2.0, 4.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 10_000.0];
        let seen = shares.into_iter().filter(|of| *of <= all);
        seen.map(|of| (of, percentile(&self.committed, 1.0 - 1.0 / of))).collect()
    }

    /// Reports percentiles.
    pub(crate) fn tell(&self, report: &mut Report) {
        let mut add = |what: &str, value, goal| {
            let what = format!("{what}, {} objects", self.objects);
            report.add("change_latency", what, value, "ms", goal);
        };
        add("committed on A to visible on B, p50", self.p50(), Some(Goal::Under(5.0)));
        add("committed on A to visible on B, p99", self.p99(), Some(Goal::Under(25.0)));
        add("put sent to visible on B, p50", percentile(&self.sent, 0.5), None);
        add("put sent to visible on B, p99", percentile(&self.sent, 0.99), None);
    }
}
