//! Figures that users feel, measured on real processes over real sockets; and the store alone, to
//! see where their time goes. How to run and read them is in `benches/README.md`.

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement lets time pass on purpose: it watches idle nodes and asks them at intervals"
)]

mod figures;
mod http;
mod interrupt;
mod latency;
mod node;
mod pair;
mod plot;
mod report;
mod scale;
#[expect(dead_code, reason = "the comparison closes its directories one by one")]
mod scratch;
mod stats;
mod store;
mod workload;

use clap::{Parser, Subcommand};

/// Measures srcos-node.
#[derive(Parser)]
#[command(name = "srcos-benches", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the figures on two nodes of the release build; exit 1 if one could not be measured
    Figures(figures::Options),
    /// Measure how each cost grows with objects, edits, days away and devices; exit 1 if one could not be
    Scale(scale::Options),
    /// Measure the store alone: no network, no HTTP, one process
    Store(store::Options),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    interrupt::listen()?;
    let complete = match Cli::parse().command {
        Command::Figures(options) => figures::run(&options)?,
        Command::Scale(options) => scale::run(&options)?,
        Command::Store(options) => {
            store::run(&options)?;
            true
        }
    };
    Ok(if complete { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
}
