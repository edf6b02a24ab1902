//! Being told to stop: what runs ends with an error, so that nodes and directories are cleaned up
//! on the way out as after any other failure, and what was measured is kept and called partial.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static TOLD: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes note of signals from now on, where they would have ended this process at once. A second one
/// does.
pub(crate) fn listen() -> anyhow::Result<()> {
    let told = Arc::clone(TOLD.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let again = signal_hook::flag::register_conditional_default(signal, Arc::clone(&told));
        let first = signal_hook::flag::register(signal, Arc::clone(&told));
        again.and(first).context("cannot listen to signals")?;
    }
    Ok(())
}

/// Whether this process was told to stop.
pub(crate) fn is_told() -> bool {
    TOLD.get().is_some_and(|told| told.load(Ordering::Relaxed))
}

/// Waits; fails as soon as this process is told to stop.
pub(crate) fn wait(time: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while let Some(left) = time.checked_sub(began.elapsed()) {
        check()?;
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    check()
}

/// Fails if this process was told to stop. Whoever waits or repeats something asks.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure!(!is_told(), "interrupted");
    Ok(())
}
