//! The command line of the simulator.
#![expect(clippy::print_stdout, reason = "a command's output")]

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs devices in a simulated world; a seed always gives the same run
#[derive(Parser)]
#[command(name = "simnet", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed; exits with 0 pass, 3 liveness, 4 correctness, 101 panic
    Run {
        /// What all choices are drawn from
        #[arg(long)]
        seed: u64,
        /// The kind of run; see `simnet list`
        #[arg(long, default_value = "random")]
        scenario: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
        /// Print a line for each thing that happens
        #[arg(long)]
        trace: bool,
    },
    /// Runs many seeds; stops at the first that fails and prints how to replay it
    Sweep {
        /// From the first seed up to, not including, the second
        #[arg(long, value_name = "A..B", value_parser = seeds)]
        seeds: Seeds,
        /// The kind of run
        #[arg(long, default_value = "random")]
        scenario: String,
        /// Runs at the same time; all cores when left out
        #[arg(long)]
        jobs: Option<usize>,
        /// Go on after a failure, and exit with the highest code of any run
        #[arg(long)]
        keep_going: bool,
    },
    /// Makes a failing seed smaller and writes what is left into a file for `replay`
    Shrink {
        /// The failing seed
        #[arg(long)]
        seed: u64,
        /// Where to write what is left
        #[arg(long)]
        out: PathBuf,
        /// Runs to try, at most
        #[arg(long, default_value_t = 300)]
        tries: u64,
    },
    /// Runs what `shrink` has left
    Replay {
        /// The file
        file: PathBuf,
        /// Print a line for each thing that happens
        #[arg(long)]
        trace: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Draws a timeline: lanes of devices, messages, faults, commits, what broke
    Explain {
        /// The seed; or give a file
        #[arg(long, required_unless_present = "file")]
        seed: Option<u64>,
        /// What `shrink` has left
        #[arg(long, conflicts_with = "seed")]
        file: Option<PathBuf>,
        /// The kind of run
        #[arg(long, default_value = "random")]
        scenario: String,
        /// Where to write the picture, as HTML with SVG in it
        #[arg(long)]
        out: PathBuf,
        /// Seconds of virtual time to show, up to the end
        #[arg(long, default_value_t = 120)]
        last_seconds: u64,
    },
    /// Measures what a change costs a mesh, by the number of its devices
    Growth {
        /// Devices, all connected with all, one line each
        #[arg(long, value_delimiter = ',', default_values_t = [2, 4, 8, 16, 32])]
        devices: Vec<usize>,
        /// What all choices are drawn from
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Lists the scenarios, and the kinds of faults with the reason why each must be survivable
    List,
    /// Finds deliberate bugs: needs a build with `--cfg srcos_bug`; see docs/SIMULATION.md
    Bite {
        /// Seeds to try for each bug, at most
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// This bug only
        #[arg(long)]
        bug: Option<String>,
        /// Write the table into this document, between its markers
        #[arg(long)]
        write: Option<PathBuf>,
        /// Only run again what this document's table names: each must find its bug still
        #[arg(long, conflicts_with = "write")]
        check: Option<PathBuf>,
    },
}

/// A range of seeds.
#[derive(Clone, Copy)]
struct Seeds {
    from: u64,
    to: u64,
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| {
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from < to).then_some(Seeds { from, to })
    });
    parsed.ok_or_else(|| "seeds must be a range such as 0..100".to_owned())
}

fn main() -> ExitCode {
    commands::keep_panics_quiet();
    let done = match Cli::parse().command {
        Command::Run { seed, scenario, json, trace } => commands::run(seed, &scenario, json, trace),
        Command::Sweep { seeds, scenario, jobs, keep_going } => {
            commands::sweep(seeds.from..seeds.to, &scenario, jobs, keep_going)
        }
        Command::Shrink { seed, out, tries } => commands::shrink(seed, &out, tries),
        Command::Replay { file, trace, json } => commands::replay(&file, json, trace),
        Command::Explain { seed, file, scenario, out, last_seconds } => {
            commands::explain(seed, file.as_deref(), &scenario, &out, last_seconds)
        }
        Command::Growth { devices, seed } => commands::growth(&devices, seed),
        Command::List => commands::list(),
        Command::Bite { seeds, bug, write, check } => {
            commands::bite(seeds, bug.as_deref(), write.as_deref(), check.as_deref())
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(2)
        }
    }
}
