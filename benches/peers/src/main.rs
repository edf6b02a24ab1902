//! The node and what users would use instead, side by side: the same work, on real processes, over
//! real sockets, with durable stores, in one run on one machine. How to run it and how to read what
//! it says is in `benches/README.md`.

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement lets time pass on purpose: it gives peers time to settle"
)]

mod aims;
mod document;
mod interrupt;
mod limits;
mod machine;
mod peers;
mod process;
mod report;
mod runs;
mod side;

// Shared with the benchmarks of the node alone.
#[expect(dead_code, reason = "the node alone is asked for more")]
#[path = "../../src/http.rs"]
mod http;
#[expect(dead_code, reason = "the node alone is asked for more")]
#[path = "../../src/node.rs"]
mod node;
#[path = "../../src/plot.rs"]
mod plot;
#[path = "../../src/scratch.rs"]
mod scratch;
#[cfg_attr(not(test), expect(dead_code, reason = "growth is measured there"))]
#[path = "../../src/stats.rs"]
mod stats;
#[cfg_attr(not(test), expect(dead_code, reason = "objects are written from any number here"))]
#[path = "../../src/workload.rs"]
mod workload;

use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

/// Compares srcos-node with its peers.
#[derive(Parser)]
#[command(name = "srcos-peers", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: runs::Options,
}

#[derive(Subcommand)]
enum Command {
    /// One device of one peer, driven over standard input and output
    #[command(hide = true)]
    Side(side::Start),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Side(start)) => side::serve(&start).map(|()| true),
        None => run(&cli.options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &runs::Options) -> anyhow::Result<bool> {
    machine::enter_own_network()?;
    interrupt::listen()?;
    runs::run(options)
}

/// The runtime of a side, as `#[tokio::main]` makes it.
fn runtime() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start a runtime")
}

/// Writes objects as lines of JSON.
fn write_objects(file: &Path, numbers: Range<u64>) -> anyhow::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(file)?);
    for number in numbers {
        writeln!(file, "{}", object(number))?;
    }
    Ok(file.flush()?)
}

/// An object as a line of JSON.
fn object(number: u64) -> String {
    let (id, body) = (workload::id("bench", number), workload::body(number));
    serde_json::json!({"id": id, "kind": "file", "body": body}).to_string()
}
