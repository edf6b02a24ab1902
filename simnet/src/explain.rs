//! A picture of a run: a lane for each device, time to the right, messages between the lanes, faults
//! and commits on them, and the moment at which something broke.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use crate::options::Options;
use crate::trace::Sink;

/// Lines of a trace as they come.
pub type Lines = Arc<Mutex<Vec<String>>>;

/// Most marks in one picture, so that a browser can show it.
const MARKS_MAX: usize = 20_000;
const LANE_PX: u64 = 60;
const LEFT_PX: f64 = 60.0;
const WIDTH_PX: f64 = 2_400.0;

/// A sink that keeps all lines.
pub fn collector() -> (Sink, Lines) {
    let lines = Lines::default();
    let keep = Arc::clone(&lines);
    let sink = move |line: &str| {
        keep.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line.to_owned());
    };
    (Box::new(sink), lines)
}

/// One line of a trace, read back.
struct Mark<'l> {
    at_ms: u64,
    what: &'l str,
    detail: &'l str,
}

impl<'l> Mark<'l> {
    fn read(line: &'l str) -> Option<Self> {
        let line = line.trim_start();
        let (at, rest) = line.split_once(' ')?;
        let (seconds, ms) = at.split_once('.')?;
        let at_ms = seconds.parse::<u64>().ok()? * 1_000 + ms.parse::<u64>().ok()?;
        let (what, detail) = match rest.find("  ") {
            Some(end) => (&rest[..end], rest[end..].trim_start()),
            None => rest.split_once(' ')?,
        };
        Some(Self { at_ms, what, detail })
    }

    /// The devices that the line names: the first is the one that it is about.
    fn nodes(&self) -> Vec<u64> {
        let words = self.detail.split(|letter: char| !letter.is_ascii_alphanumeric());
        words.filter_map(|word| word.strip_prefix('n')?.parse().ok()).collect()
    }

    fn colour(&self) -> &'static str {
        match self.what {
            "VIOLATION" => "#d00",
            "write" => "#07a",
            "event" if self.detail.contains("Applied") => "#0a0",
            "event" => "#999",
            "start" | "connect" | "calm" | "in step" | "core" | "pair" => "#555",
            "link gone" | "refused" => "#c80",
            _ => "#e40",
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The picture, as a page with SVG in it.
pub fn html(
    title: &str,
    why: &[String],
    options: &Options,
    lines: &[String],
    last_seconds: u64,
) -> String {
    let marks: Vec<Mark<'_>> = lines.iter().filter_map(|line| Mark::read(line)).collect();
    let end_ms = marks.last().map_or(0, |mark| mark.at_ms);
    let from_ms = end_ms.saturating_sub(last_seconds * 1_000);
    let shown: Vec<&Mark<'_>> = marks.iter().filter(|mark| mark.at_ms >= from_ms).collect();
    let shown = &shown[shown.len().saturating_sub(MARKS_MAX)..];
    let lanes = shown
        .iter()
        .flat_map(|mark| mark.nodes())
        .filter(|node| *node < 64)
        .max()
        .unwrap_or(0)
        .max(options.all_devices() as u64 - 1)
        + 1;
    let x = |at_ms: u64| {
        LEFT_PX + (at_ms - from_ms) as f64 / (end_ms - from_ms).max(1) as f64 * WIDTH_PX
    };
    let y = |node: u64| 40 + node * LANE_PX;
    let mut svg = String::new();
    for node in 0..lanes {
        let (at, right) = (y(node), LEFT_PX + WIDTH_PX);
        // Writing into a String has no way to fail.
        let _ = writeln!(
            svg,
            "<text x='8' y='{}'>n{node}</text><line x1='{LEFT_PX}' y1='{at}' x2='{right}' y2='{at}' \
             stroke='#ccc'/>",
            at + 5
        );
    }
    for mark in shown.iter().filter(|mark| mark.what != "frame") {
        let nodes = mark.nodes();
        let (at, colour) = (x(mark.at_ms), mark.colour());
        let tip = format!("{} ms {} {}", mark.at_ms, mark.what, mark.detail);
        let tip = escaped(&tip.chars().take(300).collect::<String>());
        let _ = match (mark.what, nodes.as_slice()) {
            ("arrive", [to, from, ..]) => writeln!(
                svg,
                "<line x1='{at:.1}' y1='{}' x2='{at:.1}' y2='{}' stroke='#9bd' \
                 stroke-width='1'><title>{tip}</title></line>",
                y(*from),
                y(*to)
            ),
            (_, [node, ..]) if *node < lanes => writeln!(
                svg,
                "<circle cx='{at:.1}' cy='{}' r='4' fill='{colour}'><title>{tip}</title></circle>",
                y(*node)
            ),
            _ => writeln!(
                svg,
                "<line x1='{at:.1}' y1='20' x2='{at:.1}' y2='{}' stroke='{colour}' \
                 stroke-dasharray='4'><title>{tip}</title></line>",
                y(lanes)
            ),
        };
    }
    let why: String = why.iter().map(|line| format!("<p>{}</p>", escaped(line))).collect();
    let height = y(lanes) + 20;
    let width = LEFT_PX + WIDTH_PX + 40.0;
    format!(
        "<!doctype html><meta charset='utf-8'><title>simnet</title><style>body{{font:14px \
         sans-serif}}</style><h1>{}</h1>{why}<p>{} to {end_ms} ms. Blue lines: frames that arrive. Dots: \
         writes (blue), commits (green), faults (orange), what broke (red). Point at a mark to read \
         it.</p><svg width='{width}' height='{height}'>{svg}</svg><pre>{}</pre>",
        escaped(title),
        from_ms,
        escaped(&options.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_has_a_lane_for_each_device_and_marks_what_broke() {
        let case = crate::shrink::Case::draw(1, "edit-through-a-partition").unwrap();
        let (sink, lines) = collector();
        case.run(Some(sink));
        let lines = lines.lock().unwrap();
        let page = html("title <1>", &["  violated".into()], &case.options, &lines, 10_000);
        assert!(page.contains(">n0<") && page.contains(">n1<") && page.contains("title &lt;1&gt;"));
        assert!(page.matches("stroke='#9bd'").count() > 10, "frames are drawn");
        assert!(page.matches("<circle").count() > 5, "commits are drawn");
    }
}
