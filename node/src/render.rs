//! Documents in words and tables, for people. Text that came from elsewhere is shown with its
//! control characters made visible, so that a name cannot drive the terminal.

mod mesh;

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use srcos_schemas::lanes::{
    AbsentBodies, LaneDescription, LanePeer, LanePeerState, LaneState, LanesStatus, ReplicationMode,
};
use srcos_schemas::objects::{ListPage, ObjectDocument};
use srcos_schemas::status::{InitDocument, ReadyState, Severity, StatusDocument};

pub use self::mesh::{invite, join, join_step, peers, provenance_log, provenance_verify};

/// Widest preview of a body in a table, in characters.
const PREVIEW_CHARS_MAX: usize = 60;

/// The first eight digits of a device's id or a hash.
pub fn short(id: &str) -> String {
    plain(&id.chars().take(8).collect::<String>())
}

/// So many of something: "1 file", "2 files".
pub fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Text from elsewhere, harmless to a terminal.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_direction_mark(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same for text of several lines, such as indented JSON: JSON escapes some control characters and
/// not those above ASCII, which terminals obey too.
fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Marks that turn the direction of text around, with which a name can show as another, and those that
/// end a line.
fn is_direction_mark(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

fn table(header: &[&str], coloured: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    if coloured {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn cell(text: impl AsRef<str>, color: Option<Color>) -> Cell {
    let cell = Cell::new(plain(text.as_ref()));
    match color {
        Some(color) => cell.fg(color),
        None => cell,
    }
}

/// The name of a value of an enum, as its document has it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word.replace('_', " "),
        _ => String::new(),
    }
}

/// `init`.
pub fn init(made: &InitDocument) -> String {
    format!(
        "{} is device {} in a mesh of one\nkey and store are in {}\n\
         next: srcos-node run",
        plain(&made.name),
        short(&made.device),
        plain(&made.data_dir)
    )
}

/// `status`.
pub fn status(status: &StatusDocument, coloured: bool) -> String {
    let mut text = String::new();
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        text,
        "{} (device {}, mesh {}), srcos-node {}",
        plain(&status.name),
        short(&status.device),
        short(&status.mesh),
        plain(&status.version)
    );
    let state = match status.readiness.state {
        ReadyState::Healthy => "healthy",
        ReadyState::Degraded => "degraded",
        ReadyState::Unsafe => "unsafe",
        ReadyState::Uninitialised => "uninitialised",
        ReadyState::Unknown => "unknown",
    };
    let _ = writeln!(text, "{state}: {}", plain(&status.readiness.reason));
    match &status.daemon {
        Some(daemon) => {
            let _ = writeln!(
                text,
                "daemon {} since {}{}",
                daemon.pid,
                daemon.started_at,
                if daemon.offline { ", links cut on purpose" } else { "" }
            );
            for address in &daemon.listen {
                let _ = writeln!(text, "  listens on {}", plain(address));
            }
            let http = daemon.http.as_deref().unwrap_or("off");
            let _ = writeln!(text, "  http {}", plain(http));
        }
        None => text.push_str("no daemon runs; this is what the store says\n"),
    }
    let peers = status.peers;
    let _ = writeln!(
        text,
        "peers: {}, {} connected, {} in sync",
        count(peers.members, "member"),
        peers.connected,
        peers.in_sync
    );
    let mut lanes = table(&["lane", "status", "objects", "unapplied", "in sync with"], coloured);
    for lane in status.lanes.iter().filter(|lane| lane.status != LaneState::Dormant) {
        lanes.add_row([
            cell(&lane.name, None),
            cell(word(&lane.status), lane_color(lane.status)),
            cell(lane.live.to_string(), None),
            cell(lane.unapplied_entries.to_string(), None),
            cell(format!("{} of {}", lane.peers_in_sync, lane.peers), None),
        ]);
    }
    if lanes.row_count() > 0 {
        let _ = writeln!(text, "{lanes}");
    }
    for found in &status.diagnosis {
        let severity = match found.severity {
            Severity::Info => "note",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        };
        let _ = writeln!(text, "{severity}: {}", plain(&found.message));
        let _ = writeln!(text, "  try: {}", plain(&found.hint));
    }
    text
}

fn lane_color(state: LaneState) -> Option<Color> {
    match state {
        LaneState::Active => Some(Color::Green),
        LaneState::Dormant | LaneState::Retired => None,
        LaneState::Degraded | LaneState::Repairing => Some(Color::Yellow),
        LaneState::Unsafe => Some(Color::Red),
    }
}

fn mode(mode: ReplicationMode) -> &'static str {
    match mode {
        ReplicationMode::Replicated => "replicated",
        ReplicationMode::LocalOnly => "local only",
        ReplicationMode::Denied => "denied",
    }
}

/// `lanes status`.
pub fn lanes_status(status: &LanesStatus, coloured: bool) -> String {
    let header = [
        "lane",
        "status",
        "live",
        "hidden",
        "conflicts",
        "quarantined",
        "entries",
        "unapplied",
        "leaves",
    ];
    let mut lanes = table(&header, coloured);
    let mut peers =
        table(&["lane", "peer", "state", "lacks here", "lacks there", "seen"], coloured);
    for lane in &status.lanes {
        lanes.add_row([
            cell(&lane.name, None),
            cell(word(&lane.status), lane_color(lane.status)),
            cell(lane.objects.live.to_string(), None),
            cell(lane.objects.hidden.to_string(), None),
            cell(lane.objects.conflicted.to_string(), None),
            cell(lane.objects.quarantined.to_string(), None),
            cell(lane.journal.entries.to_string(), None),
            cell(lane.journal.unapplied_entries.to_string(), None),
            cell(mode(lane.replication.mode), None),
        ]);
        for peer in &lane.replication.peers {
            peers.add_row(peer_row(&lane.name, peer));
        }
    }
    let mut text = format!("device {}, {}\n{lanes}\n", short(&status.device), status.generated_at);
    for lane in &status.lanes {
        if let Some(absent) = lane.journal.absent_bodies.filter(|absent| absent.total() > 0) {
            let _ = writeln!(
                text,
                "{}: {}; what they change shows elsewhere only",
                lane.name,
                absent_bodies(&absent)
            );
        }
    }
    if peers.row_count() > 0 {
        let _ = writeln!(text, "{peers}");
    } else {
        text.push_str("no peers\n");
    }
    text
}

/// How many bodies are not here, and why.
fn absent_bodies(absent: &AbsentBodies) -> String {
    let reasons = [
        (absent.withheld, "withheld by their authors' devices"),
        (absent.purged, "purged"),
        (absent.missing, "missing"),
    ];
    let reasons: Vec<String> = reasons
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, why)| format!("{count} {why}"))
        .collect();
    format!("{} changes are not here ({})", absent.total(), reasons.join(", "))
}

fn peer_row(lane: &str, peer: &LanePeer) -> [Cell; 6] {
    let color = match peer.state {
        LanePeerState::InSync => Some(Color::Green),
        LanePeerState::Behind | LanePeerState::Ahead | LanePeerState::Diverged => {
            Some(Color::Yellow)
        }
        LanePeerState::Blocked => Some(Color::Red),
        LanePeerState::Unreachable | LanePeerState::Unknown => None,
    };
    let count =
        |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    [
        cell(lane, None),
        cell(format!("{} ({})", peer.name, short(&peer.device)), None),
        cell(word(&peer.state), color),
        cell(count(peer.missing_here), None),
        cell(count(peer.missing_there), None),
        cell(peer.confirmed_at.map_or_else(|| "never".to_owned(), |at| at.to_string()), None),
    ]
}

/// `lanes list`.
pub fn lane_list(lanes: &Vec<LaneDescription>, coloured: bool) -> String {
    let mut list = table(&["lane", "leaves", "for"], coloured);
    for lane in lanes {
        list.add_row([&*lane.name, mode(lane.replication), &*lane.purpose]);
    }
    list.to_string()
}

/// `lanes describe`.
pub fn lane_description(lane: &LaneDescription, _coloured: bool) -> String {
    let mut text = format!("{}: {}\n", lane.name, lane.purpose);
    let sla = &lane.sla;
    let rows = [
        ("leaves the device", lane.replication_words.clone()),
        ("found by search", lane.searchable.clone()),
        ("seen by agents", lane.agent_visible.clone()),
        ("kept", lane.retention.clone()),
        ("compacted", lane.compaction.clone()),
        ("purged", lane.purge.clone()),
        (
            "may be late by",
            format!("{} entries, or {} ms", sla.replay_lag_entries_max, sla.replay_lag_ms_max),
        ),
        ("sign of life every", format!("{} ms", sla.heartbeat_age_ms_max)),
    ];
    for (name, words) in rows {
        let _ = writeln!(text, "  {name:<20} {words}");
    }
    if let Some(ttl) = lane.ttl {
        let words = format!("{} s, at most {} s", ttl.default_ms / 1000, ttl.max_ms / 1000);
        let _ = writeln!(text, "  {:<20} {words}", "objects live for");
    }
    if lane.append_only {
        text.push_str("  an object, once written, is never changed\n");
    }
    if lane.node_writes_only {
        text.push_str("  only the node itself writes to it\n");
    }
    text
}

/// `get`.
pub fn object(object: &ObjectDocument, _coloured: bool) -> String {
    let mut text = format!(
        "{}/{}\nkind {}, class {}, life {}\nwritten {} by {}\n",
        object.lane,
        plain(&object.id),
        plain(&object.kind),
        plain(&object.class),
        object.life,
        object.updated_at,
        short(&object.author)
    );
    for (key, value) in &object.labels {
        let _ = writeln!(text, "label {}={}", plain(key), plain(value));
    }
    if let Some(expires_at) = object.expires_at {
        let _ = writeln!(text, "goes at {expires_at}");
    }
    let _ = writeln!(text, "heads {}", plain(&object.heads.join(",")));
    let _ = writeln!(text, "{}", plain_lines(&format!("{:#}", object.body)));
    for (pointer, kind) in &object.types {
        let _ = writeln!(text, "{} at {}", kind.name(), plain(&format!("/body{pointer}")));
    }
    for conflict in object.conflicts.iter().flatten() {
        let _ = writeln!(text, "conflict at {}:", plain(&conflict.path));
        for value in &conflict.values {
            let shown = if value.shown { "shown" } else { "     " };
            let json = plain(&value.value.to_string());
            let _ = writeln!(text, "  {shown} {json} by {}", short(&value.author));
        }
    }
    for change in object.history.iter().flatten() {
        let held = if change.held { "" } else { " (content not held)" };
        let _ = writeln!(
            text,
            "change {} at {} by {} (entry {}){held}",
            short(&change.change),
            change.at,
            short(&change.author),
            change.seq
        );
    }
    text
}

/// `list`.
pub fn list(page: &ListPage, coloured: bool) -> String {
    if page.objects.is_empty() {
        return "no objects".to_owned();
    }
    let mut list = table(&["id", "kind", "labels", "written", "by", "body"], coloured);
    for object in &page.objects {
        let labels: Vec<String> =
            object.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        list.add_row([
            plain(&object.id),
            plain(&object.kind),
            plain(&labels.join(" ")),
            object.updated_at.to_string(),
            short(&object.author),
            preview(&object.body),
        ]);
    }
    let mut text = format!("{list}\n");
    if let Some(next) = &page.next {
        let _ = writeln!(text, "there is more: --after {}", plain(next));
    }
    text
}

fn preview(body: &Value) -> String {
    let text = body.to_string();
    if text.chars().count() <= PREVIEW_CHARS_MAX {
        return plain(&text);
    }
    let start: String = text.chars().take(PREVIEW_CHARS_MAX - 3).collect();
    format!("{}...", plain(&start))
}

/// Shows that something is going on, on standard error.
pub fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Shows how far through a file something is, on standard error.
pub fn byte_bar(size: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(size).with_message(what);
    // Were the template wrong, the default bar would do.
    match ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Shows how many of something are done, on standard error.
pub fn count_bar(count: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(count).with_message(what);
    match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use srcos_schemas::objects::{ConflictDocument, ConflictValue, HistoryDocument};

    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d é"), "a\\u{1b}[2Jb\\nc\\u{202e}d é");
    }

    #[test]
    fn nothing_that_an_object_says_can_drive_the_terminal() {
        let evil = "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\r";
        let author = evil.to_owned();
        let value = ConflictValue { value: evil.into(), author: author.clone(), shown: true };
        let history = HistoryDocument {
            change: evil.into(),
            author: author.clone(),
            at: srcos_schemas::time::Timestamp(0),
            seq: 1,
            held: true,
        };
        let object_document = ObjectDocument {
            lane: "normal".into(),
            id: evil.into(),
            kind: evil.into(),
            class: evil.into(),
            labels: [(evil.to_owned(), evil.to_owned())].into(),
            body: serde_json::json!({evil: [evil]}),
            types: [(evil.to_owned(), srcos_schemas::objects::LeafType::Text)].into(),
            author,
            updated_at: srcos_schemas::time::Timestamp(0),
            life: 1,
            heads: vec![evil.into()],
            expires_at: None,
            conflicts: Some(vec![ConflictDocument { path: evil.into(), values: vec![value] }]),
            history: Some(vec![history]),
            automerge: None,
        };
        let page = ListPage { objects: vec![object_document.clone()], next: Some(evil.into()) };
        for text in [object(&object_document, false), list(&page, false)] {
            let bad = |c: char| c != '\n' && (c.is_control() || is_direction_mark(c));
            assert!(!text.contains(bad), "{text:?}");
        }
    }
}
