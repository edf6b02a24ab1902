//! Ratios of the node to the others, in one run: what is aimed at, and what has moved since.

use std::fmt::Write as _;

use crate::peers::Peer;
use crate::report::{DISK, Figure, Report, shown};
use crate::runs::{AWAY_AT_A, AWAY_AT_B, AWAY_CHANGES};

/// A ratio that changed by more than this factor has moved: runs on one machine differ by less.
const MOVED: f64 = 1.5;

/// How a ratio should be.
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Bytes of the changes that both sides made while there was no link: as lines of JSON, which is
/// what the one who made them wrote.
fn away_bytes() -> f64 {
    let numbers = (AWAY_AT_A..AWAY_AT_A + AWAY_CHANGES).chain(AWAY_AT_B..AWAY_AT_B + AWAY_CHANGES);
    numbers.map(|number| crate::object(number).len() as f64).sum()
}

/// What is aimed at, and what came of it; and the ratios to the limits.
pub(crate) fn table(report: &Report) -> String {
    let node = |objects, figure| report.median(Peer::Srcos.name(), objects, figure);
    let of = |peer: Peer, objects, figure| report.median(peer.name(), objects, figure);
    let memory = |peer: Peer, objects| {
        let (a, b) = (Figure::MemoryAMb, Figure::MemoryBMb);
        Some(f64::max(of(peer, objects, a)?, of(peer, objects, b)?))
    };
    let over = |above: Option<f64>, below: Option<f64>| Some(above? / below?);
    let sync = Figure::FirstSyncS;
    let mut text =
        String::from("### Ratios\n\n| aim | wanted | measured | |\n|---|---:|---:|---|\n");
    let mut row = |what: &str, bound: &Bound, ratio: Option<f64>, end: Option<&str>| {
        let (wanted, met) = match bound {
            Bound::AtLeast(bound) => (format!(">= {bound}"), ratio.map(|ratio| ratio >= *bound)),
            Bound::AtMost(bound) => (format!("<= {bound}"), ratio.map(|ratio| ratio <= *bound)),
        };
        let met = match (met, end) {
            (Some(true), _) => "met",
            (Some(false), _) => "missed",
            (None, Some(end)) => end,
            (None, None) => "not measured",
        };
        let ratio = ratio.map_or_else(String::new, shown);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {what} | {wanted} | {ratio} | {met} |");
    };
    for (what, peer, objects, least) in [
        ("first sync of 100,000: times as fast as iroh-docs", Peer::IrohDocs, 100_000, 10.0),
        (
            "first sync of 100,000: times as fast as samod, one document",
            Peer::SamodOne,
            100_000,
            1.0,
        ),
        (
            "first sync of 1,000: times as fast as samod, a document per object",
            Peer::SamodMany,
            1_000,
            100.0,
        ),
    ] {
        let ratio = over(of(peer, objects, sync), node(objects, sync));
        row(what, &Bound::AtLeast(least), ratio, report.end_of(peer.name(), objects));
    }
    let put = Figure::PutP50Ms;
    let end = report.end_of(Peer::IrohDocs.name(), 10_000);
    for (what, figure) in [
        ("one change at 10,000, p50: the node's time to iroh-docs'", put),
        ("the same from A's answer that it is written", Figure::ChangeP50Ms),
    ] {
        let ratio = over(node(10_000, figure), of(Peer::IrohDocs, 10_000, figure));
        row(what, &Bound::AtMost(1.0), ratio, end);
    }
    let ratio = over(memory(Peer::Srcos, 100_000), memory(Peer::SamodOne, 100_000));
    let end = report.end_of(Peer::SamodOne.name(), 100_000);
    row(
        "memory at 100,000: the node's to that of samod, one document",
        &Bound::AtMost(0.25),
        ratio,
        end,
    );
    for objects in report.counts() {
        let ratio = over(node(objects, Figure::ReconnectBytes), Some(away_bytes()));
        let what = format!("reconnect with {objects}: bytes on the wire to bytes of the changes");
        row(&what, &Bound::AtMost(2.0), ratio, report.end_of(Peer::Srcos.name(), objects));
    }

    text += "\n| to the limits, with so many objects | ratio |\n|---|---:|\n";
    for objects in report.counts() {
        let disk = |figure| report.median(DISK, objects, figure);
        let network = |figure| of(Peer::Quic, objects, figure);
        // A change is committed twice, once on each side, and crosses the network once.
        let change = disk(put).zip(network(put)).map(|(commit, message)| 2.0 * commit + message);
        for (what, ratio) in [
            (
                "first sync / a bare QUIC stream of the same bytes",
                over(node(objects, sync), network(sync)),
            ),
            (
                "first sync / redb alone with the same bytes",
                over(node(objects, sync), disk(Figure::WriteS)),
            ),
            (
                "one change, p50 / two commits of redb and a QUIC message",
                over(node(objects, put), change),
            ),
        ] {
            if let Some(ratio) = ratio {
                let _ = writeln!(text, "| {what}, {objects} | {} |", shown(ratio));
            }
        }
    }

    text += "\nTimes as much as the node, medians; `-` where one of the two did not finish.\n";
    for objects in report.counts() {
        let figures = [sync, put, Figure::ReconnectS, Figure::ReconnectBytes, Figure::MemoryBMb];
        let _ = writeln!(
            text,
            "\n| {objects} objects | first sync | one change, p50 | reconnect | its bytes | memory of B |\n|---|---:|---:|---:|---:|---:|"
        );
        for name in report.names() {
            if name == Peer::Srcos.name() || name == DISK {
                continue;
            }
            let _ = write!(text, "| {name} |");
            for figure in figures {
                let ratio = over(report.median(name, objects, figure), node(objects, figure));
                let _ = write!(text, " {} |", ratio.map_or_else(|| "-".to_owned(), shown));
            }
            text += "\n";
        }
    }
    text
}

/// What has moved since a stored run, by ratios to the node, which the machine's speed is not in.
pub(crate) fn moved(stored: &Report, now: &Report) -> String {
    let mut text = format!("\nRatios to the node that changed by more than a factor of {MOVED}:\n");
    let none = text.len();
    let mut compared = 0;
    for objects in now.counts() {
        for name in now.names() {
            // Of few changes the slowest hundredth is one or two of them, and says nothing of ratios.
            let steady =
                |figure: &Figure| !matches!(figure, Figure::PutP99Ms | Figure::ChangeP99Ms);
            for figure in Figure::ALL.into_iter().filter(steady) {
                let ratio = |report: &Report| {
                    let node = report.median(Peer::Srcos.name(), objects, figure)?;
                    Some(report.median(name, objects, figure)? / node)
                };
                let (Some(then), Some(now)) = (ratio(stored), ratio(now)) else { continue };
                if name == Peer::Srcos.name() || !(then > 0.0 && now > 0.0) {
                    continue;
                }
                compared += 1;
                if f64::max(then / now, now / then) > MOVED {
                    let (then, now) = (shown(then), shown(now));
                    let figure = figure.name();
                    let _ = writeln!(
                        text,
                        "  {name}, {objects} objects, {figure}: {then} times the node's, now {now}"
                    );
                }
            }
        }
    }
    if text.len() == none {
        text += "  none\n";
    }
    let _ = writeln!(text, "{compared} ratios were compared.");
    text
}
