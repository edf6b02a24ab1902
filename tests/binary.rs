//! The built binary, and one run of a command of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::root;

/// Longest time that one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// Time between two looks at something that another process brings about.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The node's binary, built once with the profile and into the target folder of this test binary.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

fn build() -> PathBuf {
    // TARGET/PROFILE/deps/runner-HASH
    let exe = std::env::current_exe().expect("a test knows its own path");
    let profile = exe.ancestors().nth(2).expect("tests lie two folders below the target folder");
    let target = profile.parent().expect("a profile lies in the target folder");
    let name = profile.file_name().and_then(|name| name.to_str()).expect("profiles are text");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "-p", "srcos-node", "--bin", "srcos-node", "--target-dir"])
        .arg(target)
        .args(["--profile", if name == "debug" { "dev" } else { name }])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root());
    // What cargo tells this test of its own package is news to build scripts that look at it: they
    // would compile C again, each time.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    let output = cargo.output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the node cannot be built: {errors}");
    // Cargo says where it put it: a build for another target has a folder of its own.
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages
        .filter(|message| message["target"]["name"] == "srcos-node")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    built.expect("cargo names the binary that it built")
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// The one JSON document that a command which succeeded printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.is(0);
        self.document()
    }

    /// The one JSON document that a command printed.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON documents that a command printed, one a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).expect("each line is JSON");
        self.out.lines().map(parse).collect()
    }

    /// That the command ended so.
    #[track_caller]
    pub(crate) fn is(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// That the command failed so: exit code, error code, and an error that helps, with no trace of
    /// a panic.
    #[track_caller]
    pub(crate) fn refused(&self, exit: i32, code: &str) -> Value {
        assert!(!self.err.contains("panicked at"), "{self:?}");
        assert_eq!(self.code, exit, "{self:?}");
        let last = self.err.lines().last().unwrap_or_default();
        let document: Value = serde_json::from_str(last).unwrap_or_else(|error| {
            panic!("standard error ends with an error document ({error}): {self:?}")
        });
        let error = &document["error"];
        assert_eq!(error["code"], code, "{self:?}");
        for field in ["kind", "message", "hint"] {
            assert!(
                error[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {self:?}"
            );
        }
        assert!(self.out.is_empty(), "an error prints nothing on standard output: {self:?}");
        error.clone()
    }
}

/// Runs a command with `--json` on a data directory.
#[track_caller]
pub(crate) fn cli(dir: &Path, args: &[&str]) -> Said {
    cli_with(dir, args, b"")
}

/// The same with something on standard input.
#[track_caller]
pub(crate) fn cli_with(dir: &Path, args: &[&str], input: &[u8]) -> Said {
    let mut command = Command::new(binary());
    command.arg("--json").arg("--data-dir").arg(dir).args(args);
    run(command, input)
}

/// Runs a command to its end, and kills it if that does not come.
#[track_caller]
pub(crate) fn run(mut command: Command, input: &[u8]) -> Said {
    command.env_remove("RUST_LOG").env_remove("SRCOS_DATA_DIR");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut running = Running(command.spawn().unwrap_or_else(|error| panic!("{what}: {error}")));
    let child = &mut running.0;
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    std::thread::scope(|scope| {
        let out = scope.spawn(move || read_all(&mut stdout));
        let err = scope.spawn(move || read_all(&mut stderr));
        scope.spawn(move || {
            // A command that wants no input closes it.
            let _ = stdin.write_all(input);
        });
        let status = eventually_within(COMMAND_TIMEOUT, &what, || child.try_wait().ok().flatten());
        let said = Said {
            code: status.code().unwrap_or(-1),
            out: out.join().expect("reading does not panic"),
            err: err.join().expect("reading does not panic"),
        };
        assert!(!said.err.contains("panicked at"), "{what}: {said:?}");
        said
    })
}

fn read_all(source: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    // What was read until the pipe broke is what there is.
    let _ = source.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A child process that ends with the test, however that ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until there is something, and fails when there is nothing in time.
#[track_caller]
pub(crate) fn eventually_within<T>(
    timeout: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {timeout:?}: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Looks for as long as a step between processes may take on a busy machine.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(60), what, look)
}
