//! The command line as clap reads it. Help is the text of the doc comments here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use srcos_lanes::lane::LaneId;
use srcos_schemas::objects::LeafType;

pub use super::capabilities::CapabilitiesCommand;
pub use super::contracts::ContractsCommand;
pub use super::control_plane::ControlPlaneCommand;
pub use super::events::args::EventsCommand;
pub use super::identity::IdentityCommand;
pub use super::incidents::IncidentsCommand;
pub use super::process::ProcessCommand;
pub use super::release::ReleaseCommand;
pub use super::services::ServicesCommand;

/// Keeps index lanes in step between your devices.
///
/// Each device runs a node; nodes find each other on the local network and exchange what changed,
/// lane by lane, under each lane's policy. Exit codes: 0 done and what was asked about holds; 1
/// done, but it does not hold (not found, not in sync, does not verify); 2 bad usage or input; 3 a
/// daemon or peer is needed and not there; 4 refused by policy; 5 store damaged or locked; 70 a bug.
#[derive(Parser, Debug)]
#[command(name = "srcos-node", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Where the node keeps its key and store [default: the platform's data directory]
    #[arg(long, global = true, env = "SRCOS_DATA_DIR", value_name = "DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Print one JSON document (or JSON lines) and nothing else on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log errors only, and show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// When to use colours (NO_COLOR is honoured)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Form of the log on standard error
    #[arg(long, global = true, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,
}

/// When to use colours.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Form of the log.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON document a line.
    Json,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a data directory: identity, store, and a mesh of one
    Init(InitArgs),
    /// Run the daemon until it is told to stop
    Run(RunArgs),
    /// Show the main job on this one machine, with two devices, and check every step of it
    Demo(DemoArgs),
    /// Show the node on one screen: device, mesh, peers, lanes, what is wrong and what to do
    Status,
    /// Show lanes: their state here and against each peer, or what each is for
    #[command(subcommand)]
    Lanes(LanesCommand),
    /// Create or replace an object; only what differs is written
    Put(PutArgs),
    /// Merge a JSON patch (RFC 7396) into an object's body
    Patch(PatchArgs),
    /// Show an object
    Get(GetArgs),
    /// List a lane's objects, by id
    List(ListArgs),
    /// Delete an object, here and on every device
    Delete(DeleteArgs),
    /// Follow changes as they are applied, one JSON line each
    Watch(WatchArgs),
    /// Put objects from a file of JSON lines
    Import(ImportArgs),
    /// Write a lane's objects to standard output
    Export(ExportArgs),
    /// Keep one object for each file of a folder
    Index(IndexArgs),
    /// Admit another device to the mesh, or join one
    #[command(subcommand)]
    Pair(PairCommand),
    /// Show the devices of the mesh, revoke or rename one
    Peers(PeersArgs),
    /// Cut all links to peers on purpose, or let them come back
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Show who wrote what, and check all signatures
    #[command(subcommand)]
    Provenance(ProvenanceCommand),
    /// Keep, check, fold and explain events
    #[command(subcommand)]
    Events(EventsCommand),
    /// Check service manifests, or show which service needs which capability
    #[command(subcommand)]
    Services(ServicesCommand),
    /// Check, observe and tell where processes come from
    #[command(subcommand)]
    Process(ProcessCommand),
    /// Check that a service and its launch speak of one product under one name
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Explain incident bundles, or make one from events
    #[command(subcommand)]
    Incidents(IncidentsCommand),
    /// Show the published contracts, and hold documents to them
    #[command(subcommand)]
    Contracts(ContractsCommand),
    /// Check all documents of a control plane together
    #[command(subcommand)]
    ControlPlane(ControlPlaneCommand),
    /// Check whether a service may be released
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Say whether a component may start now, and what records of networks and registries mean
    #[command(subcommand)]
    Capabilities(CapabilitiesCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder, which must exist
        dir: PathBuf,
    },
}

/// `init`.
#[derive(Args, Debug, Clone)]
pub struct InitArgs {
    /// Name of this device, for people [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
}

/// `run`.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Make the data directory first if there is none
    #[arg(long)]
    pub init: bool,
    /// Name of this device, with --init [default: the host's name]
    #[arg(long, requires = "init")]
    pub name: Option<String>,
    /// Address to listen on, as a multiaddress; may repeat [default: QUIC and TCP on all addresses]
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Address of a peer to dial, as a multiaddress; may repeat
    #[arg(long, value_name = "MULTIADDR")]
    pub peer: Vec<String>,
    /// Do not look for devices on the local network
    #[arg(long)]
    pub no_mdns: bool,
    /// Transports to use
    #[arg(long, value_delimiter = ',', default_value = "quic,tcp", value_name = "LIST")]
    pub transport: Vec<Transport>,
    /// Loopback address of the HTTP interface, or off
    #[arg(long, default_value = "127.0.0.1:8765", value_name = "ADDR|off")]
    pub http: HttpAddress,
}

/// How links are made.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
}

/// Where to serve HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAddress {
    /// Nowhere; the unix socket is always served.
    Off,
    /// On this address.
    At(SocketAddr),
}

impl std::str::FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address: SocketAddr =
            text.parse().map_err(|_| "must be an address such as 127.0.0.1:8765, or off")?;
        if !address.ip().is_loopback() {
            return Err("must be a loopback address such as 127.0.0.1 or [::1]".to_owned());
        }
        Ok(Self::At(address))
    }
}

/// Most objects that a demo makes up: their lines are put together in memory, about 90 bytes each.
pub const DEMO_OBJECTS_MAX: u64 = 1_000_000;

/// `demo`.
#[derive(Args, Debug, Clone)]
pub struct DemoArgs {
    /// Import this many made-up objects instead of indexing the folder's files
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=DEMO_OBJECTS_MAX))]
    pub objects: Option<u64>,
    /// Keep both data directories in this folder, which must not hold those of a demo already
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `lanes`.
#[derive(Subcommand, Debug)]
pub enum LanesCommand {
    /// Show the state of each lane here and against each peer; exit 1 unless all is in step
    Status {
        /// Only this lane
        lane: Option<LaneId>,
    },
    /// List the lanes and what each is for
    List,
    /// Show what a lane is for and how it treats what it holds
    Describe {
        /// The lane
        lane: LaneId,
    },
}

/// `put`.
#[derive(Args, Debug)]
pub struct PutArgs {
    /// The lane
    pub lane: LaneId,
    /// The object's id: 1 to 512 bytes
    pub id: String,
    /// The body as JSON, or - to read it from standard input
    #[arg(required_unless_present = "file", value_name = "JSON|-")]
    pub json_body: Option<String>,
    /// Read the body from this file
    #[arg(long, conflicts_with = "json_body")]
    pub file: Option<PathBuf>,
    /// What sort of record it is [default: as it is]
    #[arg(long)]
    pub kind: Option<String>,
    /// Its data class [default: as it is]
    #[arg(long)]
    pub class: Option<String>,
    /// A label; may repeat; all labels are replaced [default: as they are]
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Take edits of this string as a text, or of this integer as a counter, so that edits made
    /// apart all stay; plain ends it; may repeat [default: as it is]
    #[arg(long = "type", value_name = "/PATH=text|counter|plain", value_parser = leaf_type)]
    pub leaf_type: Vec<(String, Option<LeafType>)>,
    /// Time to live in seconds, in a lane whose objects expire
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u64>,
    /// Write only if the object has these heads now (as get shows them, separated by commas)
    #[arg(long, value_name = "HEADS", value_delimiter = ',', conflicts_with = "if_absent")]
    pub if_match: Vec<String>,
    /// Write only if the object does not exist
    #[arg(long)]
    pub if_absent: bool,
}

/// `patch`.
#[derive(Args, Debug)]
pub struct PatchArgs {
    /// The lane
    pub lane: LaneId,
    /// The object's id
    pub id: String,
    /// The patch of the body as JSON, or - to read it from standard input
    #[arg(value_name = "JSON|-", required_unless_present_any = ["leaf_type", "add"])]
    pub json_patch: Option<String>,
    /// Take edits of this string as a text, or of this integer as a counter; plain ends it; may repeat
    #[arg(long = "type", value_name = "/PATH=text|counter|plain", value_parser = leaf_type)]
    pub leaf_type: Vec<(String, Option<LeafType>)>,
    /// Add to this counter, whatever it stands at; may repeat
    #[arg(long, value_name = "/PATH=N", value_parser = addition)]
    pub add: Vec<(String, i64)>,
    /// Write only if the object has these heads now (as get shows them, separated by commas)
    #[arg(long, value_name = "HEADS", value_delimiter = ',')]
    pub if_match: Vec<String>,
}

/// `get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// The lane
    pub lane: LaneId,
    /// The object's id
    pub id: String,
    /// Show fields that hold several values, with their authors
    #[arg(long)]
    pub conflicts: bool,
    /// Show the changes that made the object
    #[arg(long)]
    pub history: bool,
}

/// `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// The lane
    pub lane: LaneId,
    /// Only ids that start so
    #[arg(long)]
    pub prefix: Option<String>,
    /// Only this kind
    #[arg(long)]
    pub kind: Option<String>,
    /// Only objects with this label; may repeat
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Most objects to list
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Go on after the page that showed this cursor
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
}

/// `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// The lane
    pub lane: LaneId,
    /// The object's id
    pub id: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Delete only if the object has these heads now (as get shows them, separated by commas)
    #[arg(long, value_name = "HEADS", value_delimiter = ',')]
    pub if_match: Vec<String>,
}

/// `watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Only this lane
    pub lane: Option<LaneId>,
    /// Start after the change that showed this cursor; 0 for the beginning [default: now]
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// End after this many changes
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The lane
    pub lane: LaneId,
    /// The file, or - for standard input: {"id","kind"?,"class"?,"labels"?,"body"} on each line
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Pass over lines that are wrong, listing them, instead of applying nothing
    #[arg(long)]
    pub skip_invalid: bool,
}

/// `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The lane
    pub lane: LaneId,
    /// The form
    #[arg(long, default_value = "jsonl")]
    pub format: ExportFormat,
}

/// Forms of an export.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON document a line, as import takes it
    Jsonl,
    /// The same, each with its history: "automerge" holds the object's Automerge document, as that
    /// saves it, in base64. Its root has kind, class, labels, and body: a flat map whose keys are
    /// JSON pointers; an empty byte string stands for an object. docs/OPERATING.md tells it whole
    Automerge,
}

/// `index`.
#[derive(Args, Debug, Clone)]
pub struct IndexArgs {
    /// The folder
    pub path: PathBuf,
    /// The lane
    #[arg(long, default_value = "normal")]
    pub lane: LaneId,
    /// Stay, and follow what changes in the folder
    #[arg(long)]
    pub watch: bool,
    /// Put this before each path to make the object's id; keeps folders apart in one lane. With
    /// another prefix the objects made under the one before stay
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prefix: String,
    /// Write also over objects that this folder did not make on this device, under this prefix;
    /// without it their files are left out, and counted
    #[arg(long)]
    pub take_over: bool,
    /// The folder is empty on purpose: delete the objects of all its files. Without it a folder that
    /// is empty counts as a disk that is not mounted
    #[arg(long)]
    pub emptied: bool,
    /// Take hidden files too (never the inside of .git)
    #[arg(long)]
    pub hidden: bool,
    /// Exit 1 if any file was left out or could not be indexed, instead of only listing it
    #[arg(long)]
    pub strict: bool,
}

/// `pair`.
#[derive(Subcommand, Debug)]
pub enum PairCommand {
    /// Show a code with which one device can join, and wait until it has
    Invite {
        /// How long the code holds, in seconds [default: set by the node]
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        /// Return once the code is shown
        #[arg(long)]
        no_wait: bool,
    },
    /// Join the mesh of the device that showed this code or ticket
    Join {
        /// The code or the ticket
        code: String,
        /// Where to look for that device, as a multiaddress; may repeat
        #[arg(long, value_name = "MULTIADDR")]
        addr: Vec<String>,
    },
}

/// `peers`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PeersArgs {
    /// What to do; shows all devices if nothing.
    #[command(subcommand)]
    pub command: Option<PeersCommand>,
}

/// What to do with a device.
#[derive(Subcommand, Debug)]
pub enum PeersCommand {
    /// End a device's membership, everywhere
    Revoke {
        /// The device: its id, its name, or the unique start of either
        device: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// It is this device itself that leaves the mesh
        #[arg(long)]
        leave: bool,
    },
    /// Give a device another name
    Rename {
        /// The device: its id, its name, or the unique start of either
        device: String,
        /// The new name
        name: String,
    },
}

/// `network`.
#[derive(Subcommand, Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkCommand {
    /// Cut all links and keep them cut, over restarts too
    Offline,
    /// Let the links come back
    Online,
}

/// `provenance`.
#[derive(Subcommand, Debug)]
pub enum ProvenanceCommand {
    /// Show who wrote an object, change by change
    Log {
        /// The lane
        lane: LaneId,
        /// The object's id
        id: String,
    },
    /// Check every chain, signature and body; exit 1 if anything is wrong
    Verify {
        /// Only this lane
        lane: Option<LaneId>,
    },
}

fn leaf_type(text: &str) -> Result<(String, Option<LeafType>), String> {
    let wrong = || "must have the form /PATH=text, /PATH=counter or /PATH=plain".to_owned();
    // A pointer may contain an equals sign; a type does not.
    let (pointer, name) = text.rsplit_once('=').ok_or_else(wrong)?;
    let kind = match name {
        "plain" => None,
        name => Some(LeafType::from_name(name).ok_or_else(wrong)?),
    };
    Ok((pointer.to_owned(), kind))
}

fn addition(text: &str) -> Result<(String, i64), String> {
    let (pointer, number) =
        text.rsplit_once('=').ok_or_else(|| "must have the form /PATH=N".to_owned())?;
    let number = number.parse().map_err(|_| format!("{number:?} is no integer"))?;
    Ok((pointer.to_owned(), number))
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must have the form KEY=VALUE".to_owned()),
    }
}
