//! The machine that is measured on: a network of its own, whose bytes can be counted, and how busy
//! it is.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Set for the program that has been started again in a network of its own.
const OWN_NETWORK: &str = "SRCOS_PEERS_NETWORK";
/// How long the machine is watched to see how busy others keep it.
const WATCH_TIME: Duration = Duration::from_millis(300);

/// Starts this program again in a network namespace of its own, so that what the loopback interface
/// counts is what two sides say to each other, and nothing else. Where that is not allowed, goes on
/// without: then the bytes are those of everybody on the loopback interface, and the report says so.
pub(crate) fn enter_own_network() -> anyhow::Result<()> {
    if std::env::var_os(OWN_NETWORK).is_some() {
        return Ok(());
    }
    let up = "ip link set lo up && exec \"$0\" \"$@\"";
    let ways: [&[&str]; 2] = [&["--net"], &["--net", "--map-root-user"]];
    for way in ways {
        let tried = Command::new("unshare")
            .args(way)
            .args(["sh", "-c", up, "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if tried.is_ok_and(|status| status.success()) {
            let me = std::env::current_exe().context("where am I?")?;
            let error = Command::new("unshare")
                .args(way)
                .args(["sh", "-c", up])
                .arg(me)
                .args(std::env::args_os().skip(1))
                .env(OWN_NETWORK, "own")
                .exec();
            return Err(error).context("cannot start again in a network of its own");
        }
    }
    eprintln!("note: no network namespace of its own here (unshare, ip): others' bytes count too");
    Ok(())
}

/// Whether the bytes that are counted are those of the two sides alone.
pub(crate) fn own_network() -> bool {
    std::env::var_os(OWN_NETWORK).is_some()
}

/// The hash of a program, as `sha256sum` says it.
pub(crate) fn sha256(program: &Path) -> String {
    let said = output("sha256sum", &[program.to_string_lossy().as_ref()]);
    said.split(' ').next().unwrap_or_default().to_owned()
}

/// Bytes of all packets that the loopback interface has carried, headers included.
pub(crate) fn loopback_bytes() -> anyhow::Result<f64> {
    let interfaces = std::fs::read_to_string("/proc/net/dev").context("no /proc/net/dev")?;
    let found = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let received = found.and_then(|counts| counts.split_whitespace().next()?.parse().ok());
    received.context("no loopback interface in /proc/net/dev")
}

/// The load averages, as the kernel writes them.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The share of the processors' time that is used now, while nothing of this run is at work: what
/// others use.
pub(crate) fn busy() -> anyhow::Result<f64> {
    let before = times()?;
    std::thread::sleep(WATCH_TIME);
    let after = times()?;
    let (all, idle) = (after.0 - before.0, after.1 - before.1);
    Ok(if all > 0.0 { 1.0 - idle / all } else { 0.0 })
}

/// All processor time so far, and of it the time in which nothing was to do.
fn times() -> anyhow::Result<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat").context("no /proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    ensure!(ticks.len() >= 5, "no times in /proc/stat");
    Ok((ticks.iter().take(8).sum(), ticks[3] + ticks[4]))
}

/// What a program says in one line.
pub(crate) fn output(program: &str, args: &[&str]) -> String {
    let here = env!("CARGO_MANIFEST_DIR");
    let said = Command::new(program).args(args).current_dir(here).output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
    said.unwrap_or_else(|_| "unknown".to_owned())
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    found.map_or("unknown", |(_, name)| name).to_owned()
}
