//! Commands, run as from a shell over a node in memory: output, errors and exit codes.

use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory as _;
use serde_json::{Value, json};

use super::args::{DemoArgs, HttpAddress, RunArgs};
use super::*;
use crate::memory::MemoryNode;

struct InMemory(Arc<MemoryNode>);

impl Backend for InMemory {
    fn init(&self, data_dir: &Path, name: Option<&str>) -> Result<InitDocument, ApiError> {
        Ok(InitDocument {
            device: "ab".repeat(32),
            name: name.unwrap_or("host").to_owned(),
            mesh: "cd".repeat(32),
            data_dir: data_dir.display().to_string(),
        })
    }

    fn open(&self, data_dir: &Path) -> Result<Arc<dyn Node>, ApiError> {
        if data_dir.exists() {
            return Ok(self.0.clone());
        }
        let hint = "make one with: srcos-node init";
        Err(ApiError::new(ErrorKind::NotFound, "not_initialised", "no data directory", hint))
    }

    fn run(&self, _: &Path, _: &Globals, args: RunArgs) -> Result<(), ApiError> {
        assert_eq!(args.http, HttpAddress::Off);
        Err(ApiError::new(ErrorKind::StoreLocked, "store_locked", "another runs", "stop it"))
    }

    fn demo(&self, _: &Globals, _: DemoArgs) -> Result<(), ApiError> {
        Err(ApiError::internal("the demo is wrong"))
    }
}

struct Shell {
    backend: InMemory,
    dir: tempfile::TempDir,
}

struct Outcome {
    code: ExitCode,
    out: String,
    err: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    fn error(&self) -> Value {
        serde_json::from_str::<Value>(&self.err).unwrap()["error"].clone()
    }

    fn is(&self, code: u8) -> bool {
        // `ExitCode` can be compared only by how it prints.
        format!("{:?}", self.code) == format!("{:?}", ExitCode::from(code))
    }
}

impl Shell {
    fn new() -> Self {
        let backend = InMemory(Arc::new(MemoryNode::new()));
        Self { backend, dir: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Outcome {
        let dir = self.dir.path().to_str().unwrap();
        let all = ["srcos-node", "--data-dir", dir].into_iter().chain(arguments.iter().copied());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut input = input.as_bytes();
        let mut io = Io { input: &mut input, output: &mut out, errors: &mut err };
        let code = run(all, &self.backend, &mut io);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code, out: text(out), err: text(err) }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn arguments_are_defined_without_contradiction() {
    Cli::command().debug_assert();
}

#[test]
fn what_is_put_can_be_read_listed_patched_and_deleted() {
    let shell = Shell::new();
    let put = shell.run(&["--json", "put", "normal", "a/b", r#"{"n":1.0}"#, "--label", "k=v"], "");
    assert!(put.is(0), "{}", put.err);
    assert_eq!(put.json()["labels"], json!({"k": "v"}));
    let patched = shell.run(&["--json", "patch", "normal", "a/b", "-"], r#"{"m":2}"#);
    assert_eq!(patched.json()["body"], json!({"n": 1.0, "m": 2}));
    let listed = shell.run(&["--json", "list", "normal", "--label", "k=v"], "");
    assert_eq!(listed.json()["objects"].as_array().unwrap().len(), 1);
    let read = shell.run(&["get", "normal", "a/b"], "");
    assert!(
        read.out.starts_with("normal/a/b\nkind object, class internal, life 1\n"),
        "{}",
        read.out
    );
    let deleted = shell.run(&["delete", "normal", "a/b", "--reason", "done"], "");
    assert_eq!(deleted.out, "normal/a/b: deleted here; peers follow as they connect\n");
    for (lane, class, what) in
        [("secure", "internal", "lane secure"), ("normal", "secret", "class secret")]
    {
        assert!(shell.run(&["put", lane, "c", "1", "--class", class], "").is(0));
        let deleted = shell.run(&["delete", lane, "c", "--reason", "done"], "");
        assert_eq!(deleted.out, format!("{lane}/c: deleted; {what} does not leave this device\n"));
    }
    let gone = shell.run(&["--json", "get", "normal", "a/b"], "");
    assert!(gone.is(1));
    assert_eq!((gone.out.as_str(), &gone.error()["code"]), ("", &json!("object_absent")));
}

#[test]
fn exit_codes_tell_what_happened() {
    let shell = Shell::new();
    let cases: [(&[&str], u8); 16] = [
        (&["--help"], 0),
        (&["--version"], 0),
        (&["lanes", "list"], 0),
        (&["lanes", "status"], 0),
        (&["status"], 0),
        (&["completions", "bash"], 0),
        (&["get", "normal", "none"], 1),
        (&["provenance", "verify"], 1),
        (&["put", "normal", "a", "{"], 2),
        (&["put", "none", "a", "{}"], 2),
        (&["run", "--http", "0.0.0.0:80"], 2),
        (&["nonsense"], 2),
        (&["pair", "invite"], 3),
        (&["put", "tombstone", "a", "{}"], 4),
        (&["run", "--http", "off"], 5),
        (&["demo"], 70),
    ];
    for (arguments, code) in cases {
        let outcome = shell.run(arguments, "");
        assert!(outcome.is(code), "{arguments:?}: {:?} {}", outcome.code, outcome.err);
    }
    let elsewhere = shell.dir.path().join("none");
    let outcome = shell.run(&["--data-dir", elsewhere.to_str().unwrap(), "status"], "");
    assert!(outcome.is(2), "an option given twice is bad usage");
}

#[test]
fn bad_usage_is_a_document_where_documents_are_wanted() {
    let shell = Shell::new();
    let outcome = shell.run(&["--json", "get", "none", "a"], "");
    assert!(outcome.is(2));
    assert_eq!(outcome.error()["kind"], "bad_input");
    assert!(outcome.error()["message"].as_str().unwrap().contains("'none'"), "{}", outcome.err);
}

#[test]
fn json_that_is_wrong_is_named_with_its_place() {
    let shell = Shell::new();
    let outcome = shell.run(&["put", "normal", "a", "-"], "{\"a\": 1,\n \"a\": 2}");
    assert!(outcome.is(2));
    assert_eq!(
        outcome.err,
        "error: normal/a: not valid JSON: duplicate key \"a\" at line 2 column 2\n  \
         try: mend the JSON and try again\n"
    );
    let file = shell.file("big.json", &format!("\"{}\"", "x".repeat(1 << 20)));
    let outcome = shell.run(&["put", "normal", "a", "--file", &file], "");
    assert!(outcome.is(2));
    assert!(outcome.err.contains("1048578 bytes is over the limit of 1048576 bytes"));
    assert!(outcome.err.contains("keep large data in a file"), "{}", outcome.err);
    let outcome = shell.run(&["--json", "put", "normal", "a", "--file", &file], "");
    assert_eq!(outcome.error()["path"], *file);
    for command in [["put", "normal", "a", "{"], ["patch", "normal", "a", "{"]] {
        let outcome = shell.run(&[&["--json"], &command[..]].concat(), "");
        assert_eq!(outcome.error()["path"], "normal/a");
    }
    let outcome = shell.run(&["--json", "put", "tombstone", "a", "1"], "");
    assert_eq!(outcome.error()["path"], "tombstone/a");
}

#[test]
fn arguments_that_are_too_long_are_bad_input_and_name_the_limit() {
    let shell = Shell::new();
    assert!(shell.run(&["put", "normal", "a", "1"], "").is(0));
    let long = "x".repeat(120_000);
    let label = format!("k={long}");
    let cases: [(&[&str], &str); 9] = [
        (&["delete", "normal", "a", "--reason", &long], "1024"),
        (&["list", "normal", "--prefix", &long], "512"),
        (&["list", "normal", "--after", &long], "512"),
        (&["list", "normal", "--kind", &long], "64"),
        (&["list", "normal", "--label", &label], "1024"),
        (&["put", "normal", "a", "1", "--if-match", &long], "heads"),
        (&["get", "normal", &long], "512"),
        (&["provenance", "log", "normal", &long], "512"),
        (&["put", "normal", "a", "1", "--kind", &long], "64"),
    ];
    for (arguments, limit) in cases {
        let outcome = shell.run(&[&["--json"], arguments].concat(), "");
        assert!(outcome.is(2), "{:?} {:.300}", arguments[..2].to_vec(), outcome.err);
        let message = outcome.error()["message"].to_string();
        assert!(message.contains(limit) && message.len() < 300, "{message:.300}");
    }
    let many: Vec<String> = (0..9).map(|n| format!("k{n}=v")).collect();
    let many = many.iter().flat_map(|label| ["--label", label]);
    let many: Vec<&str> = ["list", "normal"].into_iter().chain(many).collect();
    assert!(shell.run(&many, "").is(2));
    assert!(shell.run(&["get", "normal", "a"], "").is(0));
}

#[test]
fn a_write_can_be_conditional() {
    let shell = Shell::new();
    let put = |arguments: &[&str]| {
        let all: Vec<&str> =
            ["--json", "put", "normal", "a", "1"].iter().chain(arguments).copied().collect();
        shell.run(&all, "")
    };
    let first = put(&["--if-absent"]);
    assert!(first.is(0), "{}", first.err);
    assert_eq!(put(&["--if-absent"]).error()["code"], "heads_differ");
    let heads = first.json()["heads"][0].as_str().unwrap().to_owned();
    assert!(put(&["--if-match", &heads]).is(0));
    assert!(put(&["--if-match", "00"]).is(1));
}

#[test]
fn an_import_applies_everything_or_nothing() {
    let shell = Shell::new();
    let mut lines: Vec<String> =
        (0..2500).map(|n| format!("{{\"id\":\"{n:05}\",\"body\":{{\"n\":{n}}}}}")).collect();
    let good = shell.file("good", &lines.join("\n"));
    lines[1234] = "{\"id\":\"x\",\"id\":\"y\",\"body\":1}".to_owned();
    lines[2000] = "{\"id\":\"\",\"body\":1}".to_owned();
    let bad = shell.file("bad", &lines.join("\n"));

    let refused = shell.run(&["--json", "import", "normal", &bad], "");
    assert!(refused.is(2));
    let warning = "warning: line 2001: an id must not be empty\n";
    let error = refused.err.strip_prefix(warning).unwrap();
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["error"]["path"], format!("{bad}:1235"));
    assert_eq!(
        error["error"]["message"],
        "line 1235: not valid JSON: duplicate key \"id\" at line 1 column 11 \
         (1 more line is wrong); nothing was imported"
    );
    assert!(shell.run(&["--json", "list", "normal"], "").json()["objects"][0].is_null());

    let skipped = shell.run(&["--json", "import", "memory", &bad, "--skip-invalid"], "");
    assert!(skipped.is(0));
    assert_eq!(
        skipped.json(),
        json!({"lane": "memory", "lines": 2498, "changed": 2498, "unchanged": 0, "skipped": 2})
    );
    assert!(skipped.err.contains("line 1235 is skipped"), "{}", skipped.err);

    let imported = shell.run(&["--json", "import", "normal", &good], "");
    assert_eq!(imported.json()["changed"], 2500);
    let exported = shell.run(&["export", "normal"], "");
    assert_eq!(exported.out.lines().count(), 2500);
    let again = shell.run(&["--json", "import", "normal", "-"], &exported.out);
    assert_eq!(again.json()["unchanged"], 2500, "{}", again.err);
}

#[test]
fn an_import_that_the_lane_refuses_names_the_line() {
    let shell = Shell::new();
    let refused =
        shell.run(&["--json", "import", "tombstone", "-"], "\n{\"id\":\"a\",\"body\":1}\n");
    assert!(refused.is(4));
    assert_eq!(
        refused.error()["message"],
        "line 2: only the node writes to this lane; nothing was imported"
    );
}

#[test]
fn a_line_over_the_limit_is_named_without_being_held() {
    let shell = Shell::new();
    let text = format!("{{\"id\":\"a\",\"body\":1}}\n{{\"x\":\"{}\"}}\n", "x".repeat(3 << 20));
    let refused = shell.run(&["--json", "import", "normal", "-"], &text);
    assert!(refused.is(2));
    let message = refused.error()["message"].to_string();
    assert!(message.contains("line 2: a line of 3145737 bytes is over the limit"), "{message}");
}

#[test]
fn indexing_writes_only_what_differs_and_deletes_only_what_vanished() {
    let shell = Shell::new();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.txt", "one");
    write("b.bin", "two");
    std::fs::create_dir(folder.path().join("d")).unwrap();
    write("d/c.json", "{}");
    let other = shell.run(&["put", "normal", "not-a-file", "1"], "");
    assert!(other.is(0));
    let path = folder.path().to_str().unwrap();
    let index = || shell.run(&["--json", "index", path], "").json();
    let counts = |files, unchanged, written, deleted| json!({"files": files, "unchanged": unchanged, "written": written, "deleted": deleted, "taken": 0, "failed": 0});
    assert_eq!(index(), counts(3, 0, 3, 0));
    assert_eq!(index(), counts(3, 3, 0, 0));
    let object = shell.run(&["--json", "get", "normal", "d/c.json"], "").json();
    assert_eq!(object["kind"], "file");
    assert_eq!(object["body"]["media_type"], "application/json");
    assert_eq!(object["body"]["blake3"], blake3::hash(b"{}").to_hex().to_string());

    write("a.txt", "changed");
    std::fs::remove_file(folder.path().join("b.bin")).unwrap();
    assert_eq!(index(), counts(2, 1, 1, 1));
    assert!(shell.run(&["get", "normal", "b.bin"], "").is(1));
    assert!(shell.run(&["get", "normal", "not-a-file"], "").is(0));

    // Another folder's files are another folder's.
    let second = tempfile::tempdir().unwrap();
    let path = second.path().to_str().unwrap();
    assert_eq!(shell.run(&["--json", "index", path], "").json(), counts(0, 0, 0, 0));
    assert!(shell.run(&["get", "normal", "a.txt"], "").is(0));
}

/// A folder with these files, each with its name as content.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
    folder
}

#[test]
fn indexing_under_another_prefix_deletes_nothing_of_what_was_made_before() {
    let shell = Shell::new();
    let folder = folder(&["a", "d/b"]);
    let path = folder.path().to_str().unwrap();
    for prefix in ["", "p/", "p"] {
        let summary = shell.run(&["--json", "index", path, "--prefix", prefix], "").json();
        assert_eq!((&summary["written"], &summary["deleted"]), (&json!(2), &json!(0)), "{prefix}");
    }
    for id in ["a", "p/a", "pa", "pd/b"] {
        assert!(shell.run(&["get", "normal", id], "").is(0), "{id}");
    }
    // Each is followed for itself.
    std::fs::remove_file(folder.path().join("a")).unwrap();
    let summary = shell.run(&["--json", "index", path, "--prefix", "p/"], "").json();
    assert_eq!((&summary["unchanged"], &summary["deleted"]), (&json!(1), &json!(1)));
    assert!(shell.run(&["get", "normal", "p/a"], "").is(1));
    assert!(shell.run(&["get", "normal", "a"], "").is(0));
}

#[test]
fn indexing_leaves_objects_alone_that_the_folder_did_not_make() {
    let shell = Shell::new();
    assert!(shell.run(&["put", "normal", "d/note", "1"], "").is(0));
    let names: Vec<String> = (0..100).map(|n| format!("f{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["d/note"]).collect();
    let (first, second) = (folder(&names), folder(&names));
    std::fs::write(second.path().join("g"), "only here").unwrap();
    let index = |folder: &tempfile::TempDir, more: &[&str]| {
        let path = folder.path().to_str().unwrap();
        shell.run(&[&["--json", "index", path][..], more].concat(), "")
    };
    let summary = index(&first, &[]).json();
    assert_eq!((&summary["written"], &summary["taken"]), (&json!(100), &json!(1)));
    let body = |id: &str| shell.run(&["--json", "get", "normal", id], "").json()["body"].clone();
    assert_eq!(body("d/note"), 1);

    std::fs::write(second.path().join("f07"), "something else").unwrap();
    let before = body("f07");
    // Many new files at once are looked up in another way than few.
    let said = index(&second, &[]);
    assert!(said.is(0), "{}", said.err);
    let summary = said.json();
    assert_eq!((&summary["written"], &summary["taken"]), (&json!(1), &json!(101)));
    assert_eq!(body("f07"), before);
    assert!(said.err.contains("f07 is left out") && said.err.contains("--prefix"), "{}", said.err);
    assert!(said.err.lines().count() < 30, "{}", said.err);
    assert!(index(&second, &["--strict"]).is(1));
    // And what the first made is not the second's to delete.
    std::fs::remove_file(second.path().join("f08")).unwrap();
    assert_eq!(index(&second, &[]).json()["deleted"], 0);
    let summary = index(&first, &[]).json();
    assert_eq!((&summary["unchanged"], &summary["taken"]), (&json!(100), &json!(1)));

    assert_eq!(index(&second, &["--prefix", "second/"]).json()["taken"], 0);
    let summary = index(&second, &["--take-over"]).json();
    assert_eq!((&summary["written"], &summary["taken"]), (&json!(100), &json!(0)));
    assert_ne!(body("f07"), before);
}

#[test]
fn indexing_passes_over_the_nodes_own_data_directory() {
    let folder = folder(&["a"]);
    let dir = tempfile::tempdir_in(folder.path()).unwrap();
    let shell = Shell { backend: InMemory(Arc::new(MemoryNode::new())), dir };
    let own = shell.dir.path().join("deep");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("journal"), "grows").unwrap();
    let path = folder.path().to_str().unwrap();
    let summary = shell.run(&["--json", "index", path, "--hidden"], "").json();
    assert_eq!((&summary["files"], &summary["written"]), (&json!(1), &json!(1)));
    for inside in [shell.dir.path(), &own] {
        let refused = shell.run(&["--json", "index", inside.to_str().unwrap()], "");
        assert!(refused.is(2), "{}", refused.err);
        assert_eq!(refused.error()["code"], "folder_of_the_node");
    }
}

#[test]
fn object_of_a_file_that_is_ignored_now_is_deleted_for_that_reason() {
    let shell = Shell::new();
    let folder = folder(&["a.o", "b"]);
    let path = folder.path().to_str().unwrap();
    assert_eq!(shell.run(&["--json", "index", path], "").json()["written"], 2);
    std::fs::write(folder.path().join(".ignore"), "*.o\n").unwrap();
    std::fs::remove_file(folder.path().join("b")).unwrap();
    assert_eq!(shell.run(&["--json", "index", path], "").json()["deleted"], 2);
    let reason = |id: &str| shell.backend.0.reason(id);
    assert_eq!(reason("a.o"), "its file is ignored or hidden now");
    assert_eq!(reason("b"), "its file has vanished");
}

#[test]
fn manual_pages_and_completions_are_made_from_the_same_text() {
    let shell = Shell::new();
    let folder = shell.dir.path().to_str().unwrap();
    assert!(shell.run(&["man", folder], "").is(0));
    let page = std::fs::read_to_string(shell.dir.path().join("srcos-node-index.1")).unwrap();
    assert!(page.contains("Keep one object for each file of a folder"));
    assert!(shell.run(&["completions", "zsh"], "").out.contains("provenance"));
}

#[test]
fn every_command_and_option_has_help() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} has no help");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path} {} has no help", argument.get_id());
        }
        command.get_subcommands().for_each(|command| check(command, &path));
    }
    check(&Cli::command(), "");
    let names: Vec<String> =
        Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    assert_eq!(
        names.join(" "),
        "init run demo status lanes put patch get list delete watch import export index pair peers \
         network provenance events services process identity incidents contracts control-plane release \
         capabilities completions man"
    );
}

#[test]
fn output_that_nobody_reads_ends_the_command_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let shell = Shell::new();
    let mut errors = Vec::new();
    let mut io = Io { input: &mut std::io::empty(), output: &mut Closed, errors: &mut errors };
    let code = run(["srcos-node", "lanes", "list"], &shell.backend, &mut io);
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    assert!(errors.is_empty());
}

#[test]
fn with_a_daemon_commands_speak_to_it_through_its_socket() {
    use crate::http::{Access, bind_unix, router, serve_unix};
    use tokio_util::sync::CancellationToken;

    let shell = Shell::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancellationToken::new();
    let app = router(Arc::new(MemoryNode::new()), Access::Local, stop.clone());
    let file = runtime.block_on(async {
        let (listener, file) = bind_unix(shell.dir.path()).unwrap();
        tokio::spawn(serve_unix(listener, app, stop.clone()));
        file
    });
    let lines: String = (0..3000).map(|n| format!("{{\"id\":\"{n}\",\"body\":{n}}}\n")).collect();
    let imported = shell.run(&["--json", "import", "normal", "-"], &lines);
    assert_eq!(imported.json()["changed"], 3000, "{}", imported.err);
    // Without the daemon the same command would look into the store of the test's backend.
    assert!(
        shell.backend.0.get(srcos_lanes::lane::LaneId::Normal, "1", Default::default()).is_err()
    );
    let watched = shell.run(&["watch", "normal", "--after", "1000", "--count", "2000"], "");
    let ids: Vec<String> = watched
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, (1000..3000).map(|n| n.to_string()).collect::<Vec<_>>());

    let invited = shell.run(&["--json", "pair", "invite"], "");
    assert!(invited.is(0), "{}", invited.err);
    let lines: Vec<Value> =
        invited.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["code"], "7-alpha");
    assert_eq!(lines[1], json!({"joined": {"device": "ef".repeat(32), "name": "desktop"}}));
    stop.cancel();
    drop(file);
}
