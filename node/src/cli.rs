//! The command line: reads arguments, finds the node, does what was asked, and ends with the exit
//! code that scripts rely on.

pub mod args;
pub mod capabilities;
pub mod contracts;
pub mod control_plane;
pub mod events;
mod hints;
pub mod identity;
pub mod incidents;
pub(crate) mod membership;
mod objects;
pub mod process;
mod reading;
pub mod release;
pub mod services;
mod state;
mod stored;
mod transfer;

use std::io::{IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser as _};
use serde::Serialize;
use srcos_schemas::status::InitDocument;

pub use self::reading::DOCUMENT_BYTES_MAX;
pub use self::stored::EVENTS_BYTES_MAX;

use self::hints::Hints;

use self::args::{Cli, Color, Command, DemoArgs, Globals, InitArgs, LogFormat, RunArgs};
use crate::api::{ApiError, ErrorKind, Node};
use crate::client::Client;
use crate::contain::{contained, install_hook};
use crate::error::NodeError;
use crate::render;

/// What the command line needs of the rest of the node.
pub trait Backend: Sync {
    /// Makes a data directory. One that is in use already is an error and stays as it is.
    fn init(&self, data_dir: &Path, name: Option<&str>) -> Result<InitDocument, ApiError>;

    /// Opens the store of a data directory without a daemon, creating and repairing nothing. A
    /// directory without a store is an [`ErrorKind::NotFound`] with code `not_initialised`.
    fn open(&self, data_dir: &Path) -> Result<Arc<dyn Node>, ApiError>;

    /// Runs the daemon until it is told to stop.
    fn run(&self, data_dir: &Path, globals: &Globals, args: RunArgs) -> Result<(), ApiError>;

    /// Shows the main job on this machine.
    fn demo(&self, globals: &Globals, args: DemoArgs) -> Result<(), ApiError>;
}

/// Where a command reads from and writes to.
pub struct Io<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output.
    pub output: &'a mut dyn Write,
    /// Standard error.
    pub errors: &'a mut dyn Write,
}

/// The whole program: arguments from the process, result as its exit code.
pub fn main(backend: &dyn Backend) -> ExitCode {
    install_hook();
    let (mut input, mut output, mut errors) =
        (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut io = Io { input: &mut input, output: &mut output, errors: &mut errors };
    run(std::env::args_os(), backend, &mut io)
}

/// The program with its arguments and its surroundings given.
pub fn run(
    arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString>>,
    backend: &dyn Backend,
    io: &mut Io<'_>,
) -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = arguments.into_iter().map(Into::into).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse_usage(&error, json, io),
    };
    start_log(&cli);
    let json = cli.globals.json;
    let hints = Hints::of(&cli.globals);
    match dispatch(cli, backend, io) {
        Ok(()) => match io.output.flush() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => NodeError::output(&error).report(json, io.errors),
        },
        Err(error) => {
            // What was printed so far belongs before the error; its own loss changes nothing.
            let _ = io.output.flush();
            hints.complete_error(error).report(json, io.errors)
        }
    }
}

/// Help and version are answers; everything else that clap refuses is bad usage.
fn refuse_usage(error: &clap::Error, json: bool, io: &mut Io<'_>) -> ExitCode {
    if !error.use_stderr() {
        return match write!(io.output, "{}", error.render()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => NodeError::output(&error).report(json, io.errors),
        };
    }
    let text = error.render().to_string();
    if json {
        // What is missing is listed below the first line, and usage comes after an empty one.
        let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
        let message = lines.collect::<Vec<_>>().join(" ");
        let message = message.trim_start_matches("error: ").to_owned();
        return NodeError::usage("usage", message, "see srcos-node --help").report(true, io.errors);
    }
    // Where not even standard error can be written, the exit code still tells.
    let _ = write!(io.errors, "{text}");
    ExitCode::from(ErrorKind::BadInput.exit_code())
}

fn start_log(cli: &Cli) {
    use tracing_subscriber::EnvFilter;
    let Globals { verbose, quiet, color, log_format, .. } = &cli.globals;
    let level = match (quiet, verbose, &cli.command) {
        (true, _, _) => "error",
        (false, 0, Command::Run(_)) => "warn,srcos_node=info",
        (false, 0, _) => "warn",
        (false, 1, _) => "info,srcos_node=debug,srcos_replication=debug,srcos_lanes=debug",
        (false, _, _) => "debug,srcos_node=trace,srcos_replication=trace,srcos_lanes=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Told where? A log on a full disk must not end the node by a panic of eprintln.
        .log_internal_errors(false)
        .with_ansi(is_coloured(*color, std::io::stderr().is_terminal()));
    // Started already where several commands run in one process.
    let _ = match log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

fn is_coloured(color: Color, terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

fn dispatch(cli: Cli, backend: &dyn Backend, io: &mut Io<'_>) -> Result<(), NodeError> {
    let Cli { globals, command } = cli;
    match command {
        Command::Init(InitArgs { name }) => {
            let made = backend.init(&data_dir(&globals)?, name.as_deref())?;
            if globals.json {
                return json_line(io, &made);
            }
            let text = Hints::of(&globals).complete(&render::init(&made));
            writeln!(io.output, "{text}").map_err(|error| NodeError::output(&error))
        }
        Command::Run(args) => {
            let dir = data_dir(&globals)?;
            Ok(contained(|| backend.run(&dir, &globals, args))?)
        }
        Command::Demo(args) => Ok(backend.demo(&globals, args)?),
        Command::Lanes(args::LanesCommand::List) => state::lanes_list(&globals, io),
        Command::Lanes(args::LanesCommand::Describe { lane }) => {
            show(&globals, io, &crate::api::describe(lane), render::lane_description)
        }
        Command::Events(command) => events::run(&globals, io, command),
        Command::Services(command) => services::run(&globals, io, command),
        Command::Process(command) => process::run(&globals, io, command),
        Command::Identity(command) => identity::run(&globals, io, command),
        Command::Incidents(command) => incidents::run(&globals, io, command),
        Command::Contracts(command) => contracts::run(&globals, io, command),
        Command::ControlPlane(command) => control_plane::run(&globals, io, command),
        Command::Release(command) => release::run(&globals, io, command),
        Command::Capabilities(command) => capabilities::run(&globals, io, command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "srcos-node", &mut script);
            io.output.write_all(&script).map_err(|error| NodeError::output(&error))
        }
        Command::Man { dir } => clap_mangen::generate_to(Cli::command(), &dir)
            .map_err(|error| NodeError::file(&dir, &error)),
        command => {
            // Two threads: one to do the command's own work, one to talk to the node meanwhile.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(|error| ApiError::internal(format!("no runtime: {error}")))?;
            runtime.block_on(ask_node(globals, command, backend, io))
        }
    }
}

async fn ask_node(
    globals: Globals,
    command: Command,
    backend: &dyn Backend,
    io: &mut Io<'_>,
) -> Result<(), NodeError> {
    let dir = data_dir(&globals)?;
    let client = connect(&dir, backend).await?;
    let mut session = Session { globals, client, io };
    let session = &mut session;
    match command {
        Command::Status => state::status(session).await,
        Command::Lanes(args::LanesCommand::Status { lane }) => {
            state::lanes_status(session, lane).await
        }
        Command::Put(args) => objects::put(session, args).await,
        Command::Patch(args) => objects::patch(session, args).await,
        Command::Get(args) => objects::get(session, args).await,
        Command::List(args) => objects::list(session, args).await,
        Command::Delete(args) => objects::delete(session, args).await,
        Command::Watch(args) => objects::watch(session, args).await,
        Command::Import(args) => transfer::import(session, args).await,
        Command::Export(args) => transfer::export(session, args).await,
        Command::Index(args) => crate::index::run(session, args).await,
        Command::Pair(command) => membership::pair(session, command).await,
        Command::Peers(args) => membership::peers(session, args).await,
        Command::Network(command) => membership::network(session, command).await,
        Command::Provenance(command) => state::provenance(session, command).await,
        Command::Init(_)
        | Command::Run(_)
        | Command::Demo(_)
        | Command::Lanes(_)
        | Command::Events(_)
        | Command::Services(_)
        | Command::Process(_)
        | Command::Identity(_)
        | Command::Incidents(_)
        | Command::Contracts(_)
        | Command::ControlPlane(_)
        | Command::Release(_)
        | Command::Capabilities(_)
        | Command::Completions { .. }
        | Command::Man { .. } => Err(ApiError::internal("a command took the wrong way").into()),
    }
}

/// The daemon of a data directory, or its store opened here where none runs.
pub async fn connect(data_dir: &Path, backend: &dyn Backend) -> Result<Client, ApiError> {
    if let Some(client) = Client::of_daemon(data_dir).await? {
        return Ok(client);
    }
    Ok(Client::direct(contained(|| backend.open(data_dir))?))
}

/// The data directory that the options name.
pub fn data_dir(globals: &Globals) -> Result<PathBuf, ApiError> {
    if let Some(dir) = &globals.data_dir {
        return Ok(dir.clone());
    }
    directories::ProjectDirs::from("", "", "srcos-node")
        .map(|dirs| dirs.data_dir().to_owned())
        .ok_or_else(|| {
            ApiError::new(
                ErrorKind::BadInput,
                "no_data_dir",
                "this user has no home directory, so there is no default data directory",
                "name one with --data-dir DIR or SRCOS_DATA_DIR",
            )
        })
}

/// What a command that talks to a node works with.
pub(crate) struct Session<'a, 'b> {
    pub(crate) globals: Globals,
    pub(crate) client: Client,
    pub(crate) io: &'a mut Io<'b>,
}

impl Session<'_, '_> {
    /// Shows a document: as JSON where asked for, in words otherwise.
    pub(crate) fn show<T: Serialize>(
        &mut self,
        document: &T,
        words: fn(&T, bool) -> String,
    ) -> Result<(), NodeError> {
        show(&self.globals, self.io, document, words)
    }

    /// Prints a document on one line.
    pub(crate) fn json_line<T: Serialize>(&mut self, document: &T) -> Result<(), NodeError> {
        json_line(self.io, document)
    }

    /// Prints a sentence. What it quotes cannot drive the terminal.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), NodeError> {
        writeln!(self.io.output, "{}", render::plain(text))
            .map_err(|error| NodeError::output(&error))
    }

    /// Prints a warning on standard error. What it quotes cannot drive the terminal.
    pub(crate) fn warn(&mut self, text: &str) {
        // A warning that cannot be written must not end the work that it is about.
        let _ = writeln!(self.io.errors, "warning: {}", render::plain(text));
    }

    /// Says on standard error how far something is, unless asked for quiet or for JSON.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.globals.json && !self.globals.quiet {
            // As for a warning.
            let _ = writeln!(self.io.errors, "{text}");
        }
    }

    /// Whether to show progress: to people who watch, and who did not ask for quiet.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.globals.json && !self.globals.quiet && std::io::stderr().is_terminal()
    }
}

fn show<T: Serialize>(
    globals: &Globals,
    io: &mut Io<'_>,
    document: &T,
    words: fn(&T, bool) -> String,
) -> Result<(), NodeError> {
    if globals.json {
        return json_line(io, document);
    }
    let coloured = is_coloured(globals.color, std::io::stdout().is_terminal());
    let text = words(document, coloured);
    writeln!(io.output, "{}", text.trim_end()).map_err(|error| NodeError::output(&error))
}

fn json_line<T: Serialize>(io: &mut Io<'_>, document: &T) -> Result<(), NodeError> {
    let line = serde_json::to_string(document)
        .map_err(|error| ApiError::internal(format!("a document cannot be written: {error}")))?;
    writeln!(io.output, "{line}")
        .and_then(|()| io.output.flush())
        .map_err(|error| NodeError::output(&error))
}

#[cfg(test)]
mod tests;
