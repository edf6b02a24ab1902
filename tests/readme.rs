//! The README's tour, run: each line as a person would type it, in a shell, against the built binary.
//! What is replaced is only what a person replaces too: the folder, the code that was shown, the port.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::binary::{Running, Said, binary, eventually, run};
use crate::process::place;
use crate::support::{read, root};

/// The folder that the tour uses.
const TOUR_FOLDER: &str = "/tmp/srcos-tour";
/// The code that the tour shows.
const TOUR_CODE: &str = "42-walnut-opera-tiger";
/// The port on which a node answers HTTP.
const TOUR_PORT: &str = "8765";

/// Longest time until the other device has been told, on a busy machine.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

/// What a line of the tour must print, besides ending with exit code 0. Such a line is typed again
/// until it does, as a person would while the other device is being told.
const SHOWS: [(&str, &[&str]); 11] = [
    ("laptop peers", &["laptop", "desktop"]),
    ("desktop get memory note/1", &["buy milk"]),
    ("desktop list memory --label topic=home", &["note/1"]),
    ("laptop get memory note/1 --history", &["true"]),
    ("desktop list normal --prefix docs/adr/", &["docs/adr/0001"]),
    ("laptop lanes status", &["normal", "desktop", "in sync"]),
    ("laptop get memory note/1 --conflicts", &["buy oat milk", "buy milk and bread"]),
    ("laptop provenance log normal docs/STORAGE.md", &["laptop"]),
    ("laptop provenance verify", &["normal", "memory"]),
    ("laptop status", &["laptop"]),
    ("curl", &["docs/STORAGE.md"]),
];

/// Lines of the fenced blocks of a kind, in order.
fn lines<'a>(text: &'a str, fence: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(kind) if !inside => {
                inside = kind.split(' ').take(2).collect::<Vec<_>>()
                    == fence.split(' ').collect::<Vec<_>>()
            }
            Some(_) => inside = false,
            None if inside && !line.trim().is_empty() => found.push(line),
            None => {}
        }
    }
    found
}

/// A shell that knows what the tour's first lines set up.
struct Shell {
    setup: String,
    port: String,
    daemons: Vec<Running>,
}

impl Shell {
    fn bash(&self, setup: &str, line: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(format!("set -e\n{setup}\n{line}")).current_dir(root());
        let path = std::env::var("PATH").unwrap_or_default();
        let folder = binary().parent().expect("a binary lies in a folder").display();
        bash.env("PATH", format!("{folder}:{path}")).env_remove("SRCOS_DATA_DIR");
        bash
    }

    fn run(&self, line: &str) -> Said {
        run(self.bash(&self.setup, line), b"")
    }

    /// A node in the background, once it says that it is ready.
    fn start(&mut self, line: &str, http: bool) {
        let http = if http { format!(" --http 127.0.0.1:{}", self.port) } else { String::new() };
        let line = line.replacen(" run ", &format!(" run{http} "), 1);
        // With exec no shell stands between us and the node: what ends is the node.
        let setup = self.setup.replace("{ srcos-node", "{ exec srcos-node");
        let mut bash = self.bash(&setup, &line);
        let child = bash.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = Running(child.expect("bash starts"));
        let stdout = child.0.stdout.take().expect("it is piped");
        let mut said = BufReader::new(stdout).lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains("ready")), "{line}: it never said that it is ready");
        self.daemons.push(child);
    }
}

#[test]
fn tour_in_the_readme_does_what_it_says() {
    let place = place();
    let folder = place.path().join("tour");
    let readme = read("README.md").replace(TOUR_FOLDER, folder.to_str().expect("it is text"));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = free.expect("a port is free").port().to_string();
    let mut shell = Shell { setup: String::new(), port, daemons: Vec::new() };
    let mut shown = 0;
    let mut invite = String::new();
    for line in lines(&readme, "sh tour") {
        if line.starts_with("cargo build") || line.starts_with("export PATH=") {
            // The binary was built by the tests, and `Shell::line` finds it.
            continue;
        }
        if line.contains("() {") {
            shell.setup.push_str(line);
            shell.setup.push('\n');
        } else if let Some(line) = line.strip_suffix(" &") {
            shell.start(line, !line.contains("--http"));
        } else if line.starts_with("kill ") {
            stop(&mut shell);
        } else if line.contains("pair invite") {
            invite = shell.run(line).is(0).out.clone();
        } else if line.contains("pair join") {
            join(&shell, line, &invite);
        } else {
            shown += usize::from(type_until_shown(&shell, line));
        }
        if line.contains("provenance verify") {
            shown += usize::from(curl(&shell, &readme));
        }
    }
    assert!(shell.daemons.is_empty(), "the tour does not end its nodes");
    assert_eq!(shown, SHOWS.len(), "a line of the tour that must show something is gone");
}

/// Runs a line, again and again if it must show something. Says whether it must.
fn type_until_shown(shell: &Shell, line: &str) -> bool {
    let Some((_, words)) =
        SHOWS.iter().find(|(shown, _)| line == *shown || line.split(' ').next() == Some(*shown))
    else {
        shell.run(line).is(0);
        return false;
    };
    let mut said = shell.run(line);
    let shows = |said: &Said| said.code == 0 && words.iter().all(|word| said.out.contains(word));
    let deadline = Instant::now() + SHOWN_WITHIN;
    while !shows(&said) {
        assert!(Instant::now() < deadline, "`{line}` does not show {words:?}: {said:?}");
        said = shell.run(line);
    }
    true
}

/// Joins with the code that was shown; where multicast does not work, with the ticket, as the tour says.
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see what was not shown"
)]
fn join(shell: &Shell, line: &str, invite: &str) {
    let is_code = |word: &&str| {
        let parts: Vec<&str> = word.split('-').collect();
        parts.len() == 4 && parts[0].chars().all(|c| c.is_ascii_digit())
    };
    let code = invite.split_whitespace().find(is_code);
    let code = code.unwrap_or_else(|| panic!("the invitation shows no code: {invite}"));
    assert!(line.contains(TOUR_CODE), "the tour shows another code: {line}");
    let said = shell.run(&line.replace(TOUR_CODE, code));
    if said.code == 3 && said.err.contains("not found on the local network") {
        eprintln!("skipped: pairing by code alone, since multicast does not work here: {said:?}");
        let ticket = invite.split_whitespace().find(|word| word.starts_with("srcos"));
        let ticket = ticket.unwrap_or_else(|| panic!("the invitation shows no ticket: {invite}"));
        shell.run(&line.replace(TOUR_CODE, ticket)).is(0);
    } else {
        said.is(0);
    }
}

/// The README's line with curl, which comes after the tour, while the node still runs.
#[expect(
    clippy::print_stderr,
    reason = "the person who runs the tests must see what was not shown"
)]
fn curl(shell: &Shell, readme: &str) -> bool {
    let all = lines(readme, "sh");
    let line = all.iter().find(|line| line.starts_with("curl ")).expect("the README shows curl");
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: the README's line with curl, which is not installed");
        return true;
    }
    type_until_shown(shell, &line.replace(TOUR_PORT, &shell.port))
}

/// `kill` as the tour says it: each node ends cleanly.
fn stop(shell: &mut Shell) {
    for mut node in shell.daemons.drain(..) {
        let pid = node.0.id().to_string();
        let kill = Command::new("bash").args(["-c", "kill \"$0\"", &pid]).status();
        assert!(kill.expect("bash runs").success(), "a node had ended before it was told to");
        let status = eventually("the node ends", || node.0.try_wait().ok().flatten());
        assert!(status.success(), "{status}");
    }
}
