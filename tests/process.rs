//! Nodes as processes of the built binary, each with its data directory, ended with the test.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Running, Said, binary, cli, cli_with, eventually, eventually_within};
use crate::caller::Caller;

/// Longest time until a node is ready, also on a busy machine and after a crash.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time until a node that was told to stop has ended: its own bound, and some.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Arguments of a node that is found by address alone and listens on loopback with QUIC.
pub(crate) const ALONE: [&str; 5] =
    ["--no-mdns", "--http", "off", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
/// The same with TCP only.
pub(crate) const ALONE_TCP: [&str; 7] =
    ["--no-mdns", "--http", "off", "--transport", "tcp", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// Where the data directories of one test lie.
pub(crate) fn place() -> TempDir {
    tempfile::tempdir().expect("there is a folder for temporary files")
}

/// One node: its data directory, how it is run, and its process while it runs.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    name: String,
    args: Vec<String>,
    namespace: Option<String>,
    process: Option<Running>,
    ready: Value,
}

impl Node {
    /// A new node that runs.
    #[track_caller]
    pub(crate) fn start(place: &Path, name: &str, args: &[&str]) -> Self {
        Self::start_in(None, place, name, args)
    }

    /// A new node that runs in a network namespace.
    #[track_caller]
    pub(crate) fn start_in(
        namespace: Option<&str>,
        place: &Path,
        name: &str,
        args: &[&str],
    ) -> Self {
        let mut node = Self {
            dir: place.join(name),
            name: name.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            namespace: namespace.map(str::to_owned),
            process: None,
            ready: Value::Null,
        };
        cli(&node.dir, &["init", "--name", name]).is(0);
        node.run();
        node
    }

    /// Starts it on what it has, and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        if let Err(said) = self.try_run() {
            panic!("{} did not start: {said:?}; log:\n{}", self.name, self.log());
        }
    }

    /// Starts it; says how it ended if it did not become ready.
    #[track_caller]
    pub(crate) fn try_run(&mut self) -> Result<(), Said> {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let mut command = match &self.namespace {
            None => Command::new(binary()),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(binary());
                command
            }
        };
        command.args(["--json", "--data-dir"]).arg(&self.dir).arg("run").args(&self.args);
        command.env_remove("RUST_LOG").env_remove("SRCOS_DATA_DIR");
        let log = OpenOptions::new().create(true).append(true).open(self.log_file());
        let log = log.expect("the log can be written");
        let start = log.metadata().expect("it is a file").len();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = Running(command.spawn().expect("the binary starts"));
        let stdout = process.0.stdout.take().expect("it is piped");
        let (told, telling) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // The test may have given up; then nobody listens.
            let _ = told.send(lines.next());
            lines.for_each(drop);
        });
        let line = telling.recv_timeout(READY_TIMEOUT).unwrap_or_else(|error| {
            panic!("{} was not ready within {READY_TIMEOUT:?} ({error})", self.name)
        });
        let Some(line) = line else {
            let status = process.0.wait().expect("a child can be waited for");
            let bytes = std::fs::read(self.log_file()).expect("the log can be read");
            let err = String::from_utf8_lossy(&bytes[start as usize..]).into_owned();
            return Err(Said { code: status.code().unwrap_or(-1), out: String::new(), err });
        };
        self.ready = serde_json::from_str(&line).expect("the ready line is JSON");
        assert_eq!(self.ready["ready"], true, "{line}");
        self.process = Some(process);
        Ok(())
    }

    /// Runs it with other arguments from now on.
    pub(crate) fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Its id.
    pub(crate) fn device(&self) -> &str {
        self.ready["device"].as_str().expect("the ready line names the device")
    }

    /// The first address that it listens on.
    pub(crate) fn address(&self) -> String {
        self.ready["listen"][0].as_str().expect("the ready line names addresses").to_owned()
    }

    /// All addresses that it listens on.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let status = self.cli(&["network", "online"]).json();
        let listen = status["listen"].as_array().expect("listen is a list");
        listen.iter().filter_map(|address| address.as_str().map(str::to_owned)).collect()
    }

    /// Where it serves HTTP over TCP.
    pub(crate) fn http(&self) -> std::net::SocketAddr {
        let http = self.ready["http"].as_str().expect("the ready line names the HTTP address");
        http.parse().expect("it is an address")
    }

    /// Runs a command on its data directory.
    #[track_caller]
    pub(crate) fn cli(&self, args: &[&str]) -> Said {
        cli(&self.dir, args)
    }

    /// Runs a command with something on standard input.
    #[track_caller]
    pub(crate) fn cli_with(&self, args: &[&str], input: &[u8]) -> Said {
        cli_with(&self.dir, args, input)
    }

    /// A connection to its socket.
    pub(crate) fn caller(&self) -> Caller {
        Caller::unix(&self.dir).expect("a node that runs takes connections")
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.0.kill().expect("a child can be killed");
        process.0.wait().expect("a child can be waited for");
    }

    /// Tells it to stop.
    pub(crate) fn terminate(&self) {
        let pid = self.process.as_ref().expect("it runs").0.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(status.success(), "the process takes signals");
    }

    /// Waits until it has ended, and returns its exit code.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> i32 {
        let mut process = self.process.take().expect("it runs");
        let what = format!("{} ends; log:\n{}", self.name, self.log());
        let status = eventually_within(STOP_TIMEOUT, &what, || process.0.try_wait().ok().flatten());
        status.code().unwrap_or(-1)
    }

    /// Tells it to stop and expects a clean end.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.terminate();
        let code = self.ended();
        assert_eq!(code, 0, "{}", self.log());
    }

    /// Puts an object and expects that it is taken.
    #[track_caller]
    pub(crate) fn put(&self, lane: &str, id: &str, body: &Value) {
        let answer = self.caller().put(lane, id, body).expect("the node answers");
        answer.is(200);
    }

    /// The body of an object, or nothing where it is not shown.
    #[track_caller]
    pub(crate) fn body(&self, lane: &str, id: &str) -> Option<Value> {
        let answer = self.caller().get(&format!("/lanes/{lane}/objects/{id}"));
        match answer.status {
            200 => Some(answer.json()["body"].clone()),
            404 => None,
            _ => panic!("{answer:?}"),
        }
    }

    /// Waits until an object is shown with this body.
    #[track_caller]
    pub(crate) fn shows(&self, lane: &str, id: &str, body: &Value) {
        let what = format!("{} shows {lane}/{id} as {body}\n{}", self.name, self.log());
        eventually(&what, || (self.body(lane, id).as_ref() == Some(body)).then_some(()));
    }

    /// Waits until an object is not shown.
    #[track_caller]
    pub(crate) fn hides(&self, lane: &str, id: &str) {
        let what = format!("{} hides {lane}/{id}\n{}", self.name, self.log());
        eventually(&what, || self.body(lane, id).is_none().then_some(()));
    }

    /// How many objects of a lane are shown.
    pub(crate) fn live(&self, lane: &str) -> u64 {
        let lane = self.caller().get(&format!("/lanes/{lane}")).is(200).json();
        lane["lanes"][0]["objects"]["live"].as_u64().expect("it is a count")
    }

    /// Whether a lane, or every lane that replicates, is in step with each of these peers.
    pub(crate) fn in_step(&self, peers: &[&str]) -> bool {
        let status = self.caller().get("/lanes").is(200).json();
        let lanes = status["lanes"].as_array().expect("lanes is a list");
        let shared = lanes.iter().filter(|lane| lane["replication"]["mode"] == "replicated");
        let mut looked_at = 0;
        for lane in shared {
            let known = lane["replication"]["peers"].as_array().expect("peers is a list");
            for peer in peers {
                let Some(found) = known.iter().find(|known| known["device"] == **peer) else {
                    return false;
                };
                if found["state"] != "in_sync" {
                    return false;
                }
                looked_at += 1;
            }
        }
        looked_at > 0
    }

    /// The whole content of a lane.
    #[track_caller]
    pub(crate) fn export(&self, lane: &str) -> String {
        self.cli(&["export", lane]).is(0).out.clone()
    }

    /// Whether every chain, signature and body is as it should be.
    #[track_caller]
    pub(crate) fn verifies(&self) {
        let verified = self.cli(&["provenance", "verify"]).json();
        assert_eq!(verified["verified"], true, "{verified}");
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.with_file_name(format!("{}.log", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process = None;
        let log = self.log();
        // A panic that nobody noticed is a failure of whatever test brought it about.
        if (log.contains("panicked at") || log.contains("a fault in the program"))
            && !std::thread::panicking()
        {
            panic!("{} panicked:\n{log}", self.name);
        }
    }
}

/// Opens an invitation; returns it as shown.
#[track_caller]
pub(crate) fn invite(inviter: &Node) -> Value {
    inviter.cli(&["pair", "invite", "--no-wait"]).json()
}

/// Pairs two nodes by code and address.
#[track_caller]
pub(crate) fn pair(inviter: &Node, joiner: &Node) {
    let invite = invite(inviter);
    let code = invite["code"].as_str().expect("an invitation has a code");
    let joined = joiner.cli(&["pair", "join", code, "--addr", &inviter.address()]).json();
    assert_eq!(joined["state"], "joined", "{joined}");
    assert_eq!(joined["admitted_by"]["device"], inviter.device());
}

/// Two nodes on loopback that are paired and in step.
#[track_caller]
pub(crate) fn pair_of(place: &Path, args: &[&str]) -> (Node, Node) {
    let a = Node::start(place, "laptop", args);
    let b = Node::start(place, "desktop", args);
    pair(&a, &b);
    converge(&[&a, &b], Duration::from_secs(60));
    (a, b)
}

/// Waits until each pair of neighbours is in step both ways. Nobody may write meanwhile.
#[track_caller]
pub(crate) fn converge(nodes: &[&Node], timeout: Duration) {
    let logs = || nodes.iter().map(|node| node.log()).collect::<Vec<_>>().join("\n--\n");
    let in_step = |two: &[&Node]| match two {
        [a, b] => a.in_step(&[b.device()]) && b.in_step(&[a.device()]),
        _ => true,
    };
    // Twice: what the last pair had to exchange may only then show the first that it lacks it.
    for _ in 0..2 {
        let all = || nodes.windows(2).all(in_step).then_some(());
        eventually_within(timeout, &format!("all are in step\n{}", logs()), all);
    }
}

/// That nodes show the same in every lane that replicates.
#[track_caller]
pub(crate) fn equal(nodes: &[&Node]) {
    for lane in ["normal", "priority", "memory", "policy", "audit"] {
        let first = nodes[0].export(lane);
        for other in &nodes[1..] {
            let other_export = other.export(lane);
            if first != other_export {
                let differs = first.lines().zip(other_export.lines()).find(|(a, b)| a != b);
                panic!(
                    "{} and {} differ in lane {lane}: {} and {} objects; {differs:?}",
                    nodes[0].name,
                    other.name,
                    first.lines().count(),
                    other_export.lines().count(),
                );
            }
        }
    }
}

/// Lines as `import` takes them.
pub(crate) fn import_lines(prefix: &str, count: usize) -> String {
    let line = |n: usize| {
        let text = "forty characters or so of ordinary text";
        let body = json!({"n": n, "title": format!("note {n}"), "text": text});
        json!({"id": format!("{prefix}{n:06}"), "kind": "note", "body": body}).to_string() + "\n"
    };
    (0..count).map(line).collect()
}

/// Starts a command on a node's data directory without waiting for its end.
pub(crate) fn spawn(node: &Node, args: &[&str], out: &Path) -> Running {
    let out = File::create(out).expect("the output can be made");
    let mut command = Command::new(binary());
    command.arg("--json").arg("--data-dir").arg(&node.dir).args(args);
    command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null());
    Running(command.spawn().expect("the binary starts"))
}
