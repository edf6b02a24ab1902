//! The main job on one machine: two nodes of this very program, as processes of their own, find
//! each other, pair, keep lanes in step through a cut of the link, and say what was verified.
//!
//! Nothing is shown as done that was not looked at on both sides.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use srcos_lanes::lane::LaneId;
use srcos_schemas::lanes::{LanePeerState, LanesStatus};
use srcos_schemas::objects::{ContentDocument, ObjectDocument, PAGE_LIMIT_MAX};
use srcos_schemas::peers::{
    InviteDocument, InviteStatus, JoinDocument, JoinStatus, NetworkDocument, PeersDocument,
};
use srcos_schemas::provenance::ProvenanceVerify;
use srcos_schemas::status::{ReadyDocument, StatusDocument};

use crate::api::{ApiError, ErrorKind, ListQuery};
use crate::cli::args::DemoArgs;
use crate::client::{Client, encode};
use crate::data_dir::{check_length, internal};
use crate::{index, render};

/// The names of both devices, and of their data directories.
const LAPTOP: &str = "laptop";
const DESKTOP: &str = "desktop";

/// How long any one step may take before the demo fails.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the state of a node is asked for while something is awaited.
const POLL: Duration = Duration::from_millis(20);
/// How long discovery may take to prove that it works on this machine.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(8);

/// Runs the demo. Fails loudly when anything is not as it says.
pub fn demo(json: bool, args: &DemoArgs) -> Result<(), ApiError> {
    let tokio =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
    let folder = std::env::current_dir().map_err(internal)?;
    if args.objects.is_none() {
        check_folder(&folder)?;
    }
    let place = Place::new(args.keep.as_deref())?;
    let mut show = Show { json, checks: Vec::new(), started: Instant::now() };
    let result = tokio.block_on(play(&mut show, place.path(), &folder, args.objects));
    show.end(result)
}

/// A folder in which there is nothing to index shows nothing.
fn check_folder(folder: &Path) -> Result<(), ApiError> {
    let unusable = |message: String| {
        let hint = "go into a folder with files, or make objects up with --objects 1000";
        ApiError::new(ErrorKind::BadInput, "folder_unusable", message, hint)
    };
    if folder.to_str().is_none() {
        return Err(unusable(format!("the name of the folder {} is not UTF-8", folder.display())));
    }
    if index::walk(folder, "", &index::Rules::default(), &index::Scope::All).files.is_empty() {
        let message = "has no file that index would take (hidden and ignored ones are not)";
        return Err(unusable(format!("the folder {} {message}", folder.display())));
    }
    Ok(())
}

/// Where both data directories are: a temporary folder, or one that is kept.
enum Place {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Place {
    fn new(keep: Option<&Path>) -> Result<Self, ApiError> {
        let unusable = |error: std::io::Error| {
            let hint = "name another folder with --keep";
            ApiError::new(ErrorKind::BadInput, "folder_unusable", error.to_string(), hint)
        };
        match keep {
            None => Ok(Self::Temporary(tempfile::tempdir().map_err(unusable)?)),
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(unusable)?;
                let folder = folder.canonicalize().map_err(unusable)?;
                for name in [LAPTOP, DESKTOP] {
                    let dir = folder.join(name);
                    if dir.exists() {
                        let message = format!("{} is there already", dir.display());
                        let hint =
                            "a demo starts with new devices: name another folder with --keep";
                        let kind = ErrorKind::BadInput;
                        return Err(ApiError::new(kind, "folder_in_use", message, hint));
                    }
                    check_length(&dir)?;
                }
                Ok(Self::Kept(folder))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

/// What people see, and what was verified.
struct Show {
    json: bool,
    checks: Vec<Value>,
    started: Instant,
}

impl Show {
    fn say(&self, text: &str) {
        if !self.json {
            print_line(text);
        }
    }

    fn step(&self, text: &str) {
        self.say(&format!("\n== {text}"));
    }

    /// States what was looked at; ends the demo when it does not hold.
    fn check(&mut self, holds: bool, claim: &str, figures: &str) -> Result<(), ApiError> {
        self.checks.push(json!({"claim": claim, "holds": holds, "figures": figures}));
        let mark = if holds { "verified" } else { "FAILED  " };
        let figures = if figures.is_empty() { String::new() } else { format!(" ({figures})") };
        self.say(&format!("  {mark}  {claim}{figures}"));
        if holds { Ok(()) } else { Err(not_held(claim)) }
    }

    fn end(self, result: Result<(), ApiError>) -> Result<(), ApiError> {
        let seconds = self.started.elapsed().as_secs_f64();
        let verified = self.checks.iter().filter(|check| check["holds"] == true).count();
        if self.json {
            let document = json!({
                "passed": result.is_ok(),
                "verified": verified,
                "seconds": seconds,
                "checks": self.checks,
            });
            print_line(&document.to_string());
        } else if result.is_ok() {
            print_line(&format!("\nall of it holds: {verified} claims verified in {seconds:.1} s"));
        } else {
            print_line(&format!("\nthe demo FAILED after {verified} verified claims"));
        }
        result
    }
}

fn print_line(text: &str) {
    // Nobody may be reading; the demo's result is its exit code.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn not_held(claim: &str) -> ApiError {
    ApiError::new(
        ErrorKind::DoesNotHold,
        "demo_failed",
        format!("the demo could not verify that {claim}"),
        "run it again with --keep DIR and look at the logs in that folder",
    )
}

/// One of the two nodes, as a process.
struct Node {
    name: &'static str,
    dir: PathBuf,
    child: Child,
    client: Client,
    ready: ReadyDocument,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already, or must now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    async fn start(name: &'static str, place: &Path) -> Result<Self, ApiError> {
        let dir = place.join(name);
        let log = std::fs::File::create(place.join(format!("{name}.log"))).map_err(internal)?;
        let mut child = program()?
            .args(["--json", "--data-dir"])
            .arg(&dir)
            .args(["run", "--init", "--name", name, "--http", "off"])
            .args(["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(internal)?;
        let stdout = child.stdout.take().ok_or_else(|| ApiError::internal("no output"))?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(STEP_TIMEOUT, line)
            .await
            .map_err(|_| not_held(&format!("{name} becomes ready")))?
            .map_err(internal)?
            .map_err(internal)?;
        let ready: ReadyDocument = serde_json::from_str(&line)
            .map_err(|_| not_held(&format!("{name} starts; see {name}.log")))?;
        let client = Client::of_daemon(&dir).await?;
        let client = client.ok_or_else(|| not_held(&format!("{name} answers on its socket")))?;
        Ok(Self { name, dir, child, client, ready })
    }

    /// Runs a command line of this program against the node.
    async fn command(&self, args: &[&str]) -> Result<Value, ApiError> {
        let mut command = program()?;
        command.args(["--json", "--data-dir"]).arg(&self.dir).args(args);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.map_err(internal)?.map_err(internal)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(not_held(&format!(
                "`{}` succeeds on {}: {said}",
                args.join(" "),
                self.name
            )));
        }
        serde_json::from_slice(&output.stdout).map_err(internal)
    }

    async fn lanes(&self) -> Result<LanesStatus, ApiError> {
        self.client.get("/lanes").await
    }

    async fn put(&self, id: &str, class: Option<&str>, body: Value) -> Result<(), ApiError> {
        let content =
            ContentDocument { class: class.map(str::to_owned), body, ..ContentDocument::default() };
        self.client.put(LaneId::Normal, id, &content, None).await.map(drop)
    }

    async fn object(&self, id: &str) -> Result<ObjectDocument, ApiError> {
        self.client.get(&format!("/lanes/normal/objects/{}?conflicts=true", encode(id))).await
    }

    async fn body(&self, id: &str) -> Result<Value, ApiError> {
        Ok(self.object(id).await?.body)
    }

    /// Every shown object of a lane, in canonical form, as one hash, and how many there are.
    async fn digest(&self, lane: LaneId, except: &str) -> Result<(String, usize), ApiError> {
        let mut hasher = blake3::Hasher::new();
        let mut count = 0;
        let mut query = ListQuery {
            prefix: None,
            kind: None,
            labels: Default::default(),
            limit: PAGE_LIMIT_MAX,
            after: None,
        };
        loop {
            let page = self.client.list(lane, &query).await?;
            for object in page.objects.iter().filter(|object| object.id != except) {
                let text = serde_json::to_string(object).map_err(internal)?;
                hasher.update(text.as_bytes());
                count += 1;
            }
            query.after = page.next;
            if query.after.is_none() {
                return Ok((hasher.finalize().to_hex()[..16].to_owned(), count));
            }
        }
    }

    async fn in_sync(&self) -> Result<bool, ApiError> {
        let status = self.lanes().await?;
        let mut shared = status
            .lanes
            .iter()
            .flat_map(|lane| &lane.replication.peers)
            .filter(|peer| peer.state != LanePeerState::Blocked)
            .peekable();
        Ok(shared.peek().is_some() && shared.all(|peer| peer.state == LanePeerState::InSync))
    }

    async fn links(&self) -> Result<usize, ApiError> {
        let peers: PeersDocument = self.client.get("/peers").await?;
        Ok(peers.peers.iter().filter(|peer| peer.link.is_some()).count())
    }

    async fn offline(&self, offline: bool) -> Result<NetworkDocument, ApiError> {
        self.client.post("/admin/network", &json!({"offline": offline})).await
    }

    /// Asks the process to end, and waits for it.
    async fn stop(&mut self) -> Result<bool, ApiError> {
        let _: Value = self.client.post("/admin/shutdown", &json!({})).await?;
        let end = Instant::now() + STEP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().map_err(internal)? {
                return Ok(status.success());
            }
            if Instant::now() > end {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn program() -> Result<Command, ApiError> {
    let mut command = Command::new(std::env::current_exe().map_err(internal)?);
    command.env_remove("SRCOS_DATA_DIR");
    Ok(command)
}

/// Waits until something holds on the nodes, asking again and again.
async fn until<F: Future<Output = Result<bool, ApiError>>>(
    timeout: Duration,
    mut holds: impl FnMut() -> F,
) -> Result<Option<Duration>, ApiError> {
    let start = Instant::now();
    loop {
        if holds().await? {
            return Ok(Some(start.elapsed()));
        }
        if start.elapsed() > timeout {
            return Ok(None);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn took(time: Option<Duration>) -> String {
    match time {
        Some(time) => format!("{:.2} s", time.as_secs_f64()),
        None => format!("not within {} s", STEP_TIMEOUT.as_secs()),
    }
}

async fn play(
    show: &mut Show,
    place: &Path,
    folder: &Path,
    objects: Option<u64>,
) -> Result<(), ApiError> {
    show.step("two devices on this machine");
    let mut laptop = Node::start(LAPTOP, place).await?;
    let mut desktop = Node::start(DESKTOP, place).await?;
    show.say(&format!(
        "  laptop   {}  {}",
        render::short(&laptop.ready.device),
        laptop.ready.listen.join(" ")
    ));
    show.say(&format!(
        "  desktop  {}  {}",
        render::short(&desktop.ready.device),
        desktop.ready.listen.join(" ")
    ));

    pair(show, &laptop, &desktop).await?;
    fill(show, &laptop, place, folder, objects).await?;
    catch_up(show, &laptop, &desktop).await?;
    part_and_meet(show, &laptop, &desktop).await?;
    delete(show, &laptop, &desktop).await?;

    show.step("what each device says of its lanes");
    for node in [&laptop, &desktop] {
        let status = node.lanes().await?;
        show.say(&format!("{}:\n{}", node.name, render::lanes_status(&status, false)));
    }

    show.step("who wrote what");
    for node in [&laptop, &desktop] {
        let verified: ProvenanceVerify = node.client.get("/admin/provenance/verify").await?;
        let entries: u64 = verified.lanes.iter().map(|lane| lane.entries).sum();
        let signatures: u64 = verified.lanes.iter().map(|lane| lane.signatures).sum();
        let claim = format!("on {} every entry is chained and signed by its author", node.name);
        let figures = format!("{entries} entries, {signatures} signatures");
        show.check(verified.verified && entries > 0 && entries == signatures, &claim, &figures)?;
    }

    show.step("the end");
    for node in [&mut laptop, &mut desktop] {
        let clean = node.stop().await?;
        show.check(clean, &format!("{} stopped cleanly", node.name), "")?;
    }
    Ok(())
}

async fn pair(show: &mut Show, laptop: &Node, desktop: &Node) -> Result<(), ApiError> {
    show.step("pairing with a short code");
    let works = until(DISCOVERY_TIMEOUT, || async {
        let mut works = true;
        for node in [laptop, desktop] {
            let status: StatusDocument = node.client.get("/admin/status").await?;
            works &= status.daemon.is_some_and(|daemon| daemon.discovery);
        }
        Ok(works)
    });
    let by_discovery = works.await?.is_some();
    let invite: InviteDocument = laptop.client.post("/admin/pair/invites", &json!({})).await?;
    show.say(&format!("  laptop shows the code {}", invite.code));
    // Without multicast the code is looked for where laptop says that it listens.
    let addresses = if by_discovery { Vec::new() } else { laptop.ready.listen.clone() };
    let body = json!({"code": invite.code, "addrs": addresses});
    let join: JoinDocument = desktop.client.post("/admin/pair/joins", &body).await?;
    let path = format!("/admin/pair/joins/{}", encode(&join.id));
    let joined = until(STEP_TIMEOUT, || async {
        let join: JoinDocument = desktop.client.get(&path).await?;
        match join.status {
            JoinStatus::Joined { .. } => Ok(true),
            JoinStatus::Failed { error } => Err(ApiError::from(error)),
            _ => Ok(false),
        }
    })
    .await?;
    let how = if by_discovery {
        "found by multicast DNS"
    } else {
        "found by address: multicast DNS does not work on this machine"
    };
    show.check(
        joined.is_some(),
        "desktop joined with the code",
        &format!("{how}, {}", took(joined)),
    )?;
    let path = format!("/admin/pair/invites/{}", encode(&invite.id));
    let confirmed = until(STEP_TIMEOUT, || async {
        let status: InviteStatus = laptop.client.get(&path).await?;
        Ok(matches!(status, InviteStatus::Joined { .. }))
    })
    .await?;
    show.check(confirmed.is_some(), "laptop saw it join", &took(confirmed))?;
    let linked = until(STEP_TIMEOUT, || async {
        Ok(laptop.links().await? == 1 && desktop.links().await? == 1)
    })
    .await?;
    show.check(linked.is_some(), "they are linked", &took(linked))
}

/// Fills the normal lane of one device with real input.
async fn fill(
    show: &mut Show,
    laptop: &Node,
    place: &Path,
    folder: &Path,
    objects: Option<u64>,
) -> Result<(), ApiError> {
    let start = Instant::now();
    let what = match objects {
        None => {
            show.step(&format!("laptop indexes {}", folder.display()));
            let text = folder.to_str().ok_or_else(|| {
                ApiError::internal("the folder's name is not UTF-8; run the demo elsewhere")
            })?;
            laptop.command(&["index", text]).await?;
            format!("the files of {}", folder.display())
        }
        Some(objects) => {
            show.step(&format!("laptop imports {} that are made up", objects_words(objects)));
            let file = place.join("objects.jsonl");
            let mut lines = String::new();
            for n in 0..objects {
                let _ = writeln!(
                    lines,
                    r#"{{"id":"note/{n:08}","kind":"note","body":{{"n":{n},"title":"note {n}","done":false}}}}"#
                );
            }
            std::fs::write(&file, lines).map_err(internal)?;
            let text = file.to_str().ok_or_else(|| ApiError::internal("the path is not UTF-8"))?;
            laptop.command(&["import", "normal", text]).await?;
            "the made-up objects".to_owned()
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let status = laptop.lanes().await?;
    let live = live(&status);
    let enough = live >= objects.unwrap_or(1);
    let figures = format!("{} in {seconds:.2} s", objects_words(live));
    show.check(enough, &format!("laptop holds {what}"), &figures)
}

fn objects_words(number: u64) -> String {
    render::count(usize::try_from(number).unwrap_or(usize::MAX), "object")
}

fn live(status: &LanesStatus) -> u64 {
    status.lanes.iter().filter(|lane| lane.name == "normal").map(|lane| lane.objects.live).sum()
}

/// Both are in step by their own words, and object by object.
async fn equal(show: &mut Show, laptop: &Node, desktop: &Node, when: &str) -> Result<(), ApiError> {
    let synced =
        until(STEP_TIMEOUT, || async { Ok(laptop.in_sync().await? && desktop.in_sync().await?) })
            .await?;
    let claim = format!("{when}, each device has proof that the other holds the same");
    show.check(synced.is_some(), &claim, &took(synced))?;
    let here = laptop.digest(LaneId::Normal, "demo/secret").await?;
    let there = desktop.digest(LaneId::Normal, "demo/secret").await?;
    let claim = format!("{when}, every object is the same on both");
    let figures = format!("{}, digest {} = {}", objects_words(here.1 as u64), here.0, there.0);
    show.check(here == there && here.1 > 0, &claim, &figures)
}

async fn catch_up(show: &mut Show, laptop: &Node, desktop: &Node) -> Result<(), ApiError> {
    show.step("desktop catches up");
    equal(show, laptop, desktop, "after the first sync").await?;
    laptop.put("demo/secret", Some("secret"), json!({"pin": 1234})).await?;
    laptop
        .put("demo/shared", None, json!({"title": "a note", "by": "laptop", "tags": ["x"]}))
        .await?;
    equal(show, laptop, desktop, "after two more changes").await?;
    let hidden = desktop.object("demo/secret").await;
    let code = hidden.err().map(|error| error.code).unwrap_or_default();
    let claim = "the object of class secret did not leave laptop";
    show.check(code == "object_absent", claim, &format!("desktop answers {code}"))
}

async fn part_and_meet(show: &mut Show, laptop: &Node, desktop: &Node) -> Result<(), ApiError> {
    show.step("the link is cut, and both go on");
    for node in [laptop, desktop] {
        node.offline(true).await?;
    }
    let cut = until(STEP_TIMEOUT, || async {
        Ok(laptop.links().await? == 0 && desktop.links().await? == 0)
    })
    .await?;
    show.check(cut.is_some(), "there is no link between them", &took(cut))?;
    laptop
        .put(
            "demo/shared",
            None,
            json!({"title": "from laptop", "by": "laptop", "tags": ["x", "l"]}),
        )
        .await?;
    desktop
        .put(
            "demo/shared",
            None,
            json!({"title": "from desktop", "by": "laptop", "tags": ["d", "x"], "colour": "blue"}),
        )
        .await?;
    laptop.put("demo/only-laptop", None, json!({"n": 1})).await?;
    desktop.put("demo/only-desktop", None, json!({"n": 2})).await?;
    laptop.put("demo/same-id", None, json!({"deep": {"l": true}})).await?;
    desktop.put("demo/same-id", None, json!({"deep": {"d": true}})).await?;
    let apart = laptop.object("demo/only-desktop").await.is_err()
        && desktop.object("demo/only-laptop").await.is_err();
    show.check(apart, "each sees its own edits only", "6 edits, 3 on each")?;
    let claimed = laptop.in_sync().await? || desktop.in_sync().await?;
    show.check(!claimed, "neither claims to be in step", "both say unreachable")?;

    show.step("the link is back");
    for node in [laptop, desktop] {
        node.offline(false).await?;
    }
    equal(show, laptop, desktop, "after the cut").await?;
    let both = json!({"deep": {"d": true, "l": true}});
    let union =
        laptop.body("demo/same-id").await? == both && desktop.body("demo/same-id").await? == both;
    show.check(union, "an id created on both has the fields of both", &both.to_string())?;
    let shared = laptop.object("demo/shared").await?;
    let merged = shared.body["colour"] == "blue"
        && shared.body["tags"].as_array().is_some_and(|tags| {
            ["d", "l", "x"].iter().all(|tag| tags.contains(&json!(tag))) && tags.len() == 3
        });
    let claim = "edits of different fields and of one list all survive";
    show.check(merged, claim, &shared.body.to_string())?;
    let values: Vec<Value> = shared
        .conflicts
        .iter()
        .flatten()
        .filter(|conflict| conflict.path == "/body/title")
        .flat_map(|conflict| conflict.values.iter().map(|value| value.value.clone()))
        .collect();
    let kept = values.len() == 2
        && values.contains(&json!("from laptop"))
        && values.contains(&json!("from desktop"))
        && values.contains(&shared.body["title"]);
    let claim = "two edits of one field are both kept, one shown";
    show.check(kept, claim, &format!("title is {}", shared.body["title"]))
}

async fn delete(show: &mut Show, laptop: &Node, desktop: &Node) -> Result<(), ApiError> {
    show.step("a deletion");
    desktop.client.delete(LaneId::Normal, "demo/only-laptop", "no longer needed", None).await?;
    equal(show, laptop, desktop, "after the deletion").await?;
    let mut codes = Vec::new();
    for node in [laptop, desktop] {
        let gone = node.object("demo/only-laptop").await;
        codes.push(gone.err().map(|error| error.code).unwrap_or_default());
    }
    let claim = "the deleted object is hidden on both";
    show.check(codes == ["object_hidden", "object_hidden"], claim, &codes.join(", "))
}
