//! Being told to stop: every wait ends with an error, so that processes and stores are cleaned up on
//! the way out as after any other failure, and what was measured is kept and called partial.
//!
//! As `benches/src/interrupt.rs`, by means of the runtime that is here anyway.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{SignalKind, signal};

static TOLD: AtomicBool = AtomicBool::new(false);

/// Takes note of signals from now on, where they would have ended this process at once.
pub(crate) fn listen() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        let listen = |kind| signal(kind).context("cannot listen to signals");
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        (listen(interrupt)?, listen(terminate)?, listen(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                TOLD.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}

/// Fails if this process was told to stop. Whoever waits or repeats something asks.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure!(!TOLD.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
