//! What the documents promise, held to the code: commands parse, files exist, limits have their values.

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser as _;
use srcos_node::cli::args::Cli;

use crate::support::{files, read, root};

/// Documents whose shell blocks name commands.
const WITH_COMMANDS: [&str; 3] = ["README.md", "docs/OPERATING.md", "docs/CONTROL_PLANE.md"];

/// By which names the tour calls the node: it makes a shell function for each device.
const PROGRAMS: [&str; 3] = ["srcos-node", "laptop", "desktop"];

/// The lines of fenced blocks whose info string begins with `sh`.
fn shell_lines(markdown: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut fence: Option<bool> = None;
    for line in markdown.lines() {
        match (line.trim_start().strip_prefix("```"), fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(info), None) => fence = Some(info.split_whitespace().next() == Some("sh")),
            (None, Some(true)) => lines.push(line),
            (None, _) => {}
        }
    }
    assert_eq!(fence, None, "a fenced block has no end");
    lines
}

/// The commands of a line as words. Knows quotes, comments, `;`, `&`, `&&`, `|` and redirections to a
/// file: all that the documents use.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' | '"' => {
                let quoted: String = letters.by_ref().take_while(|next| *next != letter).collect();
                word.get_or_insert_default().push_str(&quoted);
            }
            '#' if word.is_none() => break,
            ';' | '&' | '|' | '{' | '}' if word.is_none() => {
                commands.push(std::mem::take(&mut words));
            }
            ';' | '&' | '|' => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            ' ' => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
        .into_iter()
        .map(without_redirections)
        .filter(|words: &Vec<String>| !words.is_empty())
        .collect()
}

fn without_redirections(words: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word.ends_with('>') {
            words.next();
        } else if !word.contains('>') {
            kept.push(word);
        }
    }
    kept
}

/// The commands of the node in a document, as clap takes them.
fn node_commands(markdown: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    // Not the functions by which the tour calls the node; their bodies have no command.
    let lines = shell_lines(markdown).into_iter().filter(|line| !line.contains("() {"));
    for mut words in lines.flat_map(commands) {
        while words.first().is_some_and(|word| word.contains('=')) {
            words.remove(0);
        }
        let Some(program) = words.first() else { continue };
        if program == "cargo" && words.get(1).is_some_and(|word| word == "run") {
            let Some(dashes) = words.iter().position(|word| word == "--") else { continue };
            if words.iter().any(|word| word == "-p") {
                continue;
            }
            words.drain(..=dashes);
            words.insert(0, "srcos-node".to_owned());
            found.push(words);
        } else if PROGRAMS.contains(&program.as_str()) {
            found.push(words);
        }
    }
    found
}

#[test]
fn every_command_in_the_documents_is_one_that_the_node_takes() {
    for document in WITH_COMMANDS {
        let commands = node_commands(&read(document));
        assert!(commands.len() > 5, "{document} shows hardly any command");
        for words in commands {
            let taken = Cli::try_parse_from(&words);
            assert!(taken.is_ok(), "{document}: {}: {}", words.join(" "), taken.unwrap_err());
        }
    }
}

#[test]
fn reading_of_shell_lines_knows_what_the_documents_use() {
    let check = |line: &str, expected: &[&[&str]]| {
        assert_eq!(commands(line), expected, "{line}");
    };
    check("a b  'c d' # e", &[&["a", "b", "c d"]]);
    check("a '{\"b\": [1, 2]}' &", &[&["a", "{\"b\": [1, 2]}"]]);
    check("a 2>/tmp/log & b > c | d", &[&["a"], &["b"], &["d"]]);
    check("laptop() { srcos-node \"$@\"; }", &[&["laptop()"], &["srcos-node", "$@"]]);
    check("# all of it", &[]);
    assert_eq!(shell_lines("```sh tour\na\n```\nb\n```json\nc\n```\n```sh\nd\n```"), ["a", "d"]);
}

#[test]
fn tour_shows_the_whole_life_of_two_devices() {
    let commands = node_commands(&read("README.md"));
    let shown: BTreeSet<&str> =
        commands.iter().flat_map(|words| words.iter().map(String::as_str)).collect();
    for command in [
        "demo",
        "init",
        "run",
        "pair",
        "invite",
        "join",
        "put",
        "get",
        "list",
        "patch",
        "delete",
        "index",
        "lanes",
        "status",
        "--conflicts",
        "peers",
        "revoke",
    ] {
        assert!(shown.contains(command), "the tour does not show {command}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = files("docs", "md");
    documents.extend(["README.md".to_owned(), "CHANGELOG.md".to_owned()]);
    for document in documents {
        let folder = root().join(&document);
        let folder = folder.parent().expect("a file lies in a folder");
        for rest in read(&document).split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            assert!(folder.join(path).exists(), "{document} links to {target}, which is not there");
        }
    }
}

#[test]
fn code_map_names_files_that_exist() {
    let mut named = 0;
    for document in ["docs/ARCHITECTURE.md", "docs/STORAGE.md", "docs/WIRE.md"] {
        for word in read(document).split('`').skip(1).step_by(2) {
            let file = word.ends_with(".rs") || word.ends_with(".md") || word.ends_with(".toml");
            if file && word.contains('/') {
                named += 1;
                assert!(root().join(word).exists(), "{document} names {word}, which is not there");
            }
        }
    }
    assert!(named > 20, "the documents name only {named} files");
}

/// Documents list limits as `| NAME | value and unit | why |`; here each is looked up in the code by its
/// name, so that neither is changed without the other.
fn limits_of(document: &str) -> impl Fn(&str, u64) {
    let text = read(document);
    let rows: BTreeMap<String, String> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            Some((cells.next()?.trim_matches('`').to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    move |name, value| {
        let row = rows.get(name).unwrap_or_else(|| panic!("{document} does not list {name}"));
        assert_eq!(number(row), Some(value), "{document} says {row:?} of {name}");
    }
}

#[test]
fn limits_of_the_control_plane_are_those_of_the_code() {
    use srcos_node::{cli, observe};
    use srcos_schemas::incident::build as incident;

    let check = limits_of("docs/CONTROL_PLANE.md");
    check("cli::DOCUMENT_BYTES_MAX", cli::DOCUMENT_BYTES_MAX as u64);
    check("cli::EVENTS_BYTES_MAX", cli::EVENTS_BYTES_MAX as u64);
    check("observe::EXECUTABLE_BYTES_MAX", observe::EXECUTABLE_BYTES_MAX);
    check("incident::STORM_DENIALS_MIN", incident::STORM_DENIALS_MIN);
    check("incident::WAKES_MIN", incident::WAKES_MIN);
    check("incident::WINDOW_MS", incident::WINDOW_MS.unsigned_abs());
    check("incident::EVENTS_MAX", incident::EVENTS_MAX as u64);
}

#[test]
fn limits_in_the_documents_are_those_of_the_code() {
    use srcos_lanes::{journal, object, store};
    use srcos_node::{asked, client, discovery, events, http, transport};
    use srcos_replication::{dialer, engine, pairing, roster, ticket, wire};
    use srcos_schemas::event::coalesce;
    use srcos_schemas::{json, objects};

    let check = limits_of("docs/OPERATING.md");
    let seconds = |time: std::time::Duration| time.as_millis() as u64;

    check("json::BODY_BYTES_MAX", json::BODY_BYTES_MAX as u64);
    check("json::DEPTH_MAX", json::DEPTH_MAX as u64);
    check("events::EVENT_BYTES_MAX", events::EVENT_BYTES_MAX as u64);
    check("events::ids::SYNC_LINES", events::ids::SYNC_LINES);
    check("events::verify::FINDINGS_MAX", events::verify::FINDINGS_MAX as u64);
    check("coalesce::GROUPS_MAX", coalesce::GROUPS_MAX as u64);
    check("coalesce::SOURCES_MAX", coalesce::SOURCES_MAX as u64);
    check("coalesce::SAMPLES_MAX", coalesce::SAMPLES_MAX as u64);
    check("objects::ID_BYTES_MAX", objects::ID_BYTES_MAX as u64);
    check("store::REASON_BYTES_MAX", store::REASON_BYTES_MAX as u64);
    check("asked::LIST_LABELS_MAX", asked::LIST_LABELS_MAX as u64);
    check("asked::HEADS_MAX", asked::HEADS_MAX as u64);
    check("asked::ADDRESS_BYTES_MAX", asked::ADDRESS_BYTES_MAX as u64);
    check("client::SIGN_OF_LIFE_AFTER_MS", client::SIGN_OF_LIFE_AFTER_MS);
    check("client::SIGN_OF_LIFE_MS_MAX", client::SIGN_OF_LIFE_MS_MAX);
    check("client::STREAM_SILENCE_MS_MAX", client::STREAM_SILENCE_MS_MAX);
    check("http::CONNECTIONS_MAX", http::CONNECTIONS_MAX as u64);
    #[cfg(target_os = "linux")]
    check("data_dir::DIR_BYTES_MAX", srcos_node::data_dir::DIR_BYTES_MAX as u64);
    check("objects::BATCH_OPS_MAX", objects::BATCH_OPS_MAX as u64);
    check("objects::BATCH_BYTES_MAX", objects::BATCH_BYTES_MAX as u64);
    check("objects::PAGE_LIMIT_MAX", objects::PAGE_LIMIT_MAX as u64);
    check("objects::PAGE_BYTES_MAX", objects::PAGE_BYTES_MAX as u64);
    check("objects::KIND_BYTES_MAX", objects::KIND_BYTES_MAX as u64);
    check("objects::CLASS_BYTES_MAX", objects::CLASS_BYTES_MAX as u64);
    check("objects::LABELS_MAX", objects::LABELS_MAX as u64);
    check("objects::LABEL_KEY_BYTES_MAX", objects::LABEL_KEY_BYTES_MAX as u64);
    check("objects::LABEL_VALUE_BYTES_MAX", objects::LABEL_VALUE_BYTES_MAX as u64);
    check("objects::AUTOMERGE_BYTES_MAX", objects::AUTOMERGE_BYTES_MAX as u64);
    check("object::TEXT_EDITS_MAX", object::TEXT_EDITS_MAX as u64);
    check("object::FLAT_BYTES_MAX", object::FLAT_BYTES_MAX as u64);
    check("object::PLACES_MAX", object::PLACES_MAX as u64);
    check("object::CHANGE_BYTES_MAX", object::CHANGE_BYTES_MAX as u64);
    check("journal::ENTRY_CHANGES_MAX", journal::ENTRY_CHANGES_MAX as u64);
    check("journal::ENTRY_BODIES_BYTES_TARGET", journal::ENTRY_BODIES_BYTES_TARGET as u64);
    check("journal::ENTRY_BYTES_MAX", journal::ENTRY_BYTES_MAX as u64);
    check("journal::ENTRY_AFTER_MAX", journal::ENTRY_AFTER_MAX as u64);
    check("store::DEVICE_JOURNALS_MAX", store::DEVICE_JOURNALS_MAX as u64);
    check("store::REVOKED_JOURNALS_MAX", store::REVOKED_JOURNALS_MAX as u64);
    check("store::CACHE_BYTES", store::CACHE_BYTES as u64);
    check("store::LARGE_DOCUMENTS_BYTES_MAX", store::LARGE_DOCUMENTS_BYTES_MAX as u64);
    check("store::WORK_BYTES_TARGET", store::WORK_BYTES_TARGET as u64);
    check("store::VERIFY_TAIL_ENTRIES", store::VERIFY_TAIL_ENTRIES);
    check("wire::FRAME_BYTES_MAX", wire::FRAME_BYTES_MAX as u64);
    check("wire::MESSAGE_BYTES_MAX", wire::MESSAGE_BYTES_MAX as u64);
    check("wire::RUN_BYTES_TARGET", wire::RUN_BYTES_TARGET as u64);
    check("wire::RUN_ENTRIES_MAX", wire::RUN_ENTRIES_MAX as u64);
    check("engine::HANDSHAKE_MS", engine::HANDSHAKE_MS);
    check("engine::RECEIPT_DELAY_MS", engine::RECEIPT_DELAY_MS);
    check("engine::RECEIPT_DELAY_SLOW_MS", engine::RECEIPT_DELAY_SLOW_MS);
    check("engine::RELAY_DELAYS", engine::RELAY_DELAYS);
    check("engine::RELAY_WAIT_MS_MAX", engine::RELAY_WAIT_MS_MAX);
    check("engine::RELAY_AT_ONCE_MS", engine::RELAY_AT_ONCE_MS);
    check("engine::OWN_RECEIPT_DELAYS", engine::OWN_RECEIPT_DELAYS);
    check("engine::DIGEST_EVERY_MS", engine::DIGEST_EVERY_MS);
    check("engine::SILENCE_MS_MAX", engine::SILENCE_MS_MAX);
    check("engine::RENEW_EVERY_MS", engine::RENEW_EVERY_MS);
    check("engine::RENEW_WAIT_MS_MAX", engine::RENEW_WAIT_MS_MAX);
    check("engine::CLAIM_JOURNALS_MAX", engine::CLAIM_JOURNALS_MAX as u64);
    check("engine::RECEIPT_AUTHORS_MAX", engine::RECEIPT_AUTHORS_MAX as u64);
    check("engine::REVOKED_TOLD_BYTES_MAX", engine::REVOKED_TOLD_BYTES_MAX as u64);
    check("engine::FORKS_SHOWN_MAX", engine::FORKS_SHOWN_MAX as u64);
    check("engine::EVENTS_MAX", engine::EVENTS_MAX as u64);
    check("roster::RECORDS_MAX", roster::RECORDS_MAX as u64);
    check("roster::ROSTER_BYTES_MAX", roster::ROSTER_BYTES_MAX as u64);
    check("pairing::INVITE_MS_DEFAULT", pairing::INVITE_MS_DEFAULT);
    check("pairing::INVITE_MS_MAX", pairing::INVITE_MS_MAX);
    check("pairing::STEP_MS_MAX", pairing::STEP_MS_MAX);
    check("pairing::INVITE_WATCH_MS", srcos_node::pairing::INVITE_WATCH_MS);
    check("pairing::UNPROVEN_MAX", pairing::UNPROVEN_MAX as u64);
    check("pairing::FIRST_FRAME_MS_MAX", srcos_node::pairing::FIRST_FRAME_MS_MAX);
    check("pairing::STREAMS_MAX", srcos_node::pairing::STREAMS_MAX as u64);
    check("pairing::JOIN_AGAIN_MS", srcos_node::pairing::JOIN_AGAIN_MS);
    check("ticket::ADDRESSES_MAX", ticket::ADDRESSES_MAX as u64);
    check("dialer::BACKOFF_MS_MIN", dialer::BACKOFF_MS_MIN);
    check("dialer::BACKOFF_MS_MAX", dialer::BACKOFF_MS_MAX);
    check("dialer::ANEW_AGE_MS_MIN", dialer::ANEW_AGE_MS_MIN);
    check("dialer::ADDRESSES_MAX", dialer::ADDRESSES_MAX as u64);
    check("discovery::CANDIDATES_MAX", discovery::CANDIDATES_MAX as u64);
    check("transport::FRAME_BYTES_MAX", transport::FRAME_BYTES_MAX as u64);
    check("transport::SEND_QUEUE_BYTES_MAX", transport::SEND_QUEUE_BYTES_MAX as u64);
    check("transport::EVENTS_BYTES_MAX", transport::EVENTS_BYTES_MAX as u64);
    check("transport::UNACCEPTED_BYTES_MAX", transport::UNACCEPTED_BYTES_MAX as u64);
    check("transport::ACCEPT_TIMEOUT", seconds(transport::ACCEPT_TIMEOUT));
    check("transport::STRANGERS_MAX", transport::STRANGERS_MAX as u64);
    check("transport::PENDING_MAX", transport::PENDING_MAX as u64);
    check("transport::PENDING_PER_NET_MAX", transport::PENDING_PER_NET_MAX as u64);
    check("transport::PENDING_PER_HOST_MAX", transport::PENDING_PER_HOST_MAX as u64);
    check("transport::WRITE_TIMEOUT", seconds(transport::WRITE_TIMEOUT));
    check("transport::PAIRING_TIMEOUT", seconds(transport::PAIRING_TIMEOUT));
    check("transport::PING_INTERVAL", seconds(transport::PING_INTERVAL));
    check("transport::PROBE_TIMEOUT", seconds(transport::PROBE_TIMEOUT));
    check("transport::QUIC_IDLE_TIMEOUT", seconds(transport::QUIC_IDLE_TIMEOUT));
}

/// `4 MiB` in bytes, `30 s` in milliseconds, `1,000 entries` as they are; `6 MiB + 64 KiB` as a sum.
fn number(text: &str) -> Option<u64> {
    text.split(" + ").map(term).sum()
}

fn term(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_once(' ').unwrap_or((text, ""));
    let digits: u64 = digits.replace(',', "").parse().ok()?;
    let scale = match unit.split(' ').next()? {
        "MiB" => 1 << 20,
        "KiB" => 1 << 10,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => 1,
    };
    Some(digits * scale)
}
