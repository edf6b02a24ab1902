//! The command line of the simulator.
#![expect(clippy::print_stdout, reason = "a command's output")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Parser, Subcommand};
use srcos_simnet::options::{Options, Scenario};
use srcos_simnet::simulation::{Report, Verdict, run};

/// The exit code of a run in which something panicked.
const EXIT_PANIC: u8 = 101;

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
        #[arg(long, default_value = "random", value_parser = scenario)]
        scenario: Scenario,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
        /// Print a line for each thing that happens
        #[arg(long)]
        trace: bool,
    },
    /// Runs many seeds; exits with the highest code of any run
    Sweep {
        /// From the first seed up to, not including, the second
        #[arg(long, value_name = "A..B", value_parser = seeds)]
        seeds: Seeds,
        /// The kind of run
        #[arg(long, default_value = "random", value_parser = scenario)]
        scenario: Scenario,
        /// Runs at the same time
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Lists the scenarios
    List,
}

/// A range of seeds.
#[derive(Clone, Copy)]
struct Seeds {
    from: u64,
    to: u64,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::from_name(name).ok_or_else(|| "no such scenario; see `simnet list`".to_owned())
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let parsed = text.split_once("..").and_then(|(from, to)| {
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from < to).then_some(Seeds { from, to })
    });
    parsed.ok_or_else(|| "seeds must be a range such as 0..100".to_owned())
}

/// The report of a run; `None` when it panicked.
fn caught(options: &Options, trace: bool) -> Option<Report> {
    let sink = || -> Option<srcos_simnet::trace::Sink> {
        trace.then(|| Box::new(|line: &str| println!("{line}")) as _)
    };
    catch_unwind(AssertUnwindSafe(|| run(options, sink()))).ok()
}

fn exit_code(report: Option<&Report>) -> u8 {
    report.map_or(EXIT_PANIC, |report| report.verdict.exit_code())
}

fn result_json(options: &Options, report: Option<&Report>) -> serde_json::Value {
    let seed = options.seed;
    let scenario = options.scenario.name();
    match report {
        None => serde_json::json!({"seed": seed, "scenario": scenario, "result": "crash"}),
        Some(report) => serde_json::json!({
            "seed": seed,
            "scenario": scenario,
            "result": report.verdict.name(),
            "ticks": report.ticks,
            "events": report.events,
            "faults": report.faults,
            "acknowledged": report.acknowledged,
            "converged_in_ms": report.converged_in_ms,
            "trace_hash": report.trace_hash,
        }),
    }
}

fn result_line(options: &Options, report: Option<&Report>) -> String {
    let (seed, scenario) = (options.seed, options.scenario.name());
    let Some(report) = report else {
        return format!("seed {seed} {scenario}: crash (a panic)");
    };
    let faults: u64 = report.faults.values().sum();
    let step = report.converged_in_ms.map_or("never".into(), |ms| format!("after {ms} ms"));
    format!(
        "seed {seed} {scenario}: {} | {} ms, {} events, {faults} faults, {} writes, in step {step} | {}",
        report.verdict.name(),
        report.ticks,
        report.events,
        report.acknowledged,
        report.trace_hash,
    )
}

/// Why a run failed, for people.
fn explain(report: &Report) -> Vec<String> {
    match &report.verdict {
        Verdict::Pass => Vec::new(),
        Verdict::Liveness(waits) => waits.iter().map(|wait| format!("  waits: {wait}")).collect(),
        Verdict::Correctness(violation) => {
            vec![format!("  violated: {}: {}", violation.invariant, violation.what)]
        }
    }
}

fn run_one(options: &Options, json: bool, trace: bool) -> u8 {
    if !json {
        println!("{options}");
    }
    let report = caught(options, trace);
    if json {
        println!("{}", result_json(options, report.as_ref()));
    } else {
        if let Some(report) = report.as_ref().filter(|report| report.verdict != Verdict::Pass) {
            report.last_lines.iter().for_each(|line| println!("{line}"));
            explain(report).iter().for_each(|line| println!("{line}"));
        }
        println!("{}", result_line(options, report.as_ref()));
    }
    exit_code(report.as_ref())
}

#[expect(
    clippy::disallowed_methods,
    reason = "each thread runs whole worlds; nothing within a world depends on their order"
)]
fn sweep(seeds: Seeds, scenario: Scenario, jobs: usize) -> u8 {
    let next = AtomicU64::new(seeds.from);
    let worst = Mutex::new((0u8, 0u64));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.to {
                        return;
                    }
                    let options = Options::draw(scenario, seed);
                    let report = caught(&options, false);
                    let code = exit_code(report.as_ref());
                    if code != 0 {
                        println!("{}", result_line(&options, report.as_ref()));
                        let why = report.as_ref().map(explain).unwrap_or_default();
                        why.iter().take(12).for_each(|line| println!("{line}"));
                        let mut worst =
                            worst.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        *worst = (worst.0.max(code), worst.1 + 1);
                    }
                }
            });
        }
    });
    let (code, failed) = worst.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("{} seeds of {}: {failed} failed", seeds.to - seeds.from, scenario.name());
    code
}

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run { seed, scenario, json, trace } => {
            run_one(&Options::draw(scenario, seed), json, trace)
        }
        Command::Sweep { seeds, scenario, jobs } => sweep(seeds, scenario, jobs),
        Command::List => {
            for scenario in Scenario::ALL {
                println!("{:<20} {}", scenario.name(), scenario.purpose());
            }
            0
        }
    };
    ExitCode::from(code)
}
