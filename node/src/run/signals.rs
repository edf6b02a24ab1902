//! The signals that end the daemon in order.
//!
//! They are taken from the first moment, before the store is opened: a signal that comes while it opens
//! (which takes a while after a crash) is kept, and the store is closed cleanly as soon as it is open.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The number of the signal that a terminal sends when it goes.
const SIGHUP: u32 = 1;

/// Takes SIGTERM, SIGINT and SIGHUP from here on; the first of them cancels the token that is returned.
///
/// SIGHUP is left alone where whoever started the process had it ignored, as `nohup` does.
///
/// # Panics
/// If called outside a tokio runtime.
pub(super) fn taken() -> io::Result<CancellationToken> {
    let told = CancellationToken::new();
    let hangup = (!is_ignored(SIGHUP)).then_some(("SIGHUP", SignalKind::hangup()));
    let kinds = [("SIGTERM", SignalKind::terminate()), ("SIGINT", SignalKind::interrupt())];
    for (name, kind) in kinds.into_iter().chain(hangup) {
        // Only the waiting is left to the task: from this line on the signal does not end the process.
        let mut signals = signal(kind)?;
        let told = told.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::info!(signal = name, "told to stop");
                told.cancel();
            }
        });
    }
    Ok(told)
}

/// Whether the process was started with a signal ignored. Where the system does not say, it was not.
fn is_ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_ignored_signals_is_read() {
        // Rust ignores SIGPIPE in every program, and SIGKILL can never be ignored.
        assert!(is_ignored(13));
        assert!(!is_ignored(9));
    }
}
