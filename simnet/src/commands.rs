//! What the commands do.

use std::cell::RefCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use srcos_lanes::bug::Bug;
use srcos_simnet::bite::{self, Again, Found, Row};
use srcos_simnet::faults::Fault;
use srcos_simnet::growth::{self, Cost};
use srcos_simnet::hostile::Trick;
use srcos_simnet::shrink::{Case, shrink as shrink_case};
use srcos_simnet::trace::Sink;
use srcos_simnet::world::{Report, Verdict};
use srcos_simnet::{explain as picture, scenarios};

/// The exit code of a run in which something panicked.
const EXIT_PANIC: u8 = 101;

type Done = Result<u8, String>;

thread_local! {
    /// What the last panic of this thread said. Panics that the world contains are no news.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic says for the result, instead of printing it as it comes.
pub(crate) fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| {
        PANIC.with_borrow_mut(|text| *text = panic.to_string());
    }));
}

/// The report of a run; the text of the panic when it panicked.
fn caught(case: &Case, sink: Option<Sink>) -> Result<Report, String> {
    let run = || case.run(sink);
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| PANIC.with_borrow(Clone::clone))
}

fn exit_code(report: &Result<Report, String>) -> u8 {
    report.as_ref().map_or(EXIT_PANIC, |report| report.verdict.exit_code())
}

fn result_json(case: &Case, report: &Result<Report, String>) -> serde_json::Value {
    let (seed, scenario) = (case.options.seed, &case.options.scenario);
    match report {
        Err(panic) => serde_json::json!({
            "seed": seed, "scenario": scenario, "result": "crash", "panic": panic,
        }),
        Ok(report) => serde_json::json!({
            "seed": seed,
            "scenario": scenario,
            "result": report.verdict.name(),
            "ticks": report.ticks,
            "events": report.events,
            "faults": report.faults,
            "acknowledged": report.acknowledged,
            "core": report.core,
            "converged_in_ms": report.converged_in_ms,
            "trace_hash": report.trace_hash,
        }),
    }
}

fn result_line(case: &Case, report: &Result<Report, String>) -> String {
    let (seed, scenario) = (case.options.seed, &case.options.scenario);
    let report = match report {
        Ok(report) => report,
        Err(panic) => return format!("seed {seed} {scenario}: crash | {panic}"),
    };
    let faults: u64 = report.faults.values().sum();
    let step = report.converged_in_ms.map_or("never".into(), |ms| format!("after {ms} ms"));
    format!(
        "seed {seed} {scenario}: {} | {} s, {} devices, {} events, {faults} faults, {} writes, {} in \
         step {step} | {}",
        report.verdict.name(),
        report.ticks / 1_000,
        case.options.all_devices(),
        report.events,
        report.acknowledged,
        report.core,
        report.trace_hash.get(..16).unwrap_or_default(),
    )
}

/// Why a run failed, for people.
fn why(report: &Result<Report, String>) -> Vec<String> {
    match report.as_ref().map(|report| &report.verdict) {
        Ok(Verdict::Liveness(waits)) => waits.iter().map(|w| format!("  waits: {w}")).collect(),
        Ok(Verdict::Correctness(violation)) => {
            vec![format!("  violated: {}: {}", violation.invariant, violation.what)]
        }
        Ok(Verdict::Pass) | Err(_) => Vec::new(),
    }
}

fn case(seed: u64, scenario: &str) -> Result<Case, String> {
    Case::draw(seed, scenario).ok_or_else(|| format!("no scenario {scenario}; see `simnet list`"))
}

fn load(file: &Path) -> Result<Case, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn save(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn run_case(case: &Case, json: bool, trace: bool) -> u8 {
    if !json {
        println!("{}", case.options);
    }
    let sink = trace.then(|| -> Sink { Box::new(|line| println!("{line}")) });
    let report = caught(case, sink);
    if json {
        println!("{}", result_json(case, &report));
    } else {
        if let Ok(report) = &report
            && report.verdict != Verdict::Pass
            && !trace
        {
            report.last_lines.iter().for_each(|line| println!("{line}"));
        }
        why(&report).iter().for_each(|line| println!("{line}"));
        println!("{}", result_line(case, &report));
    }
    exit_code(&report)
}

pub(crate) fn run(seed: u64, scenario: &str, json: bool, trace: bool) -> Done {
    Ok(run_case(&case(seed, scenario)?, json, trace))
}

pub(crate) fn replay(file: &Path, json: bool, trace: bool) -> Done {
    Ok(run_case(&load(file)?, json, trace))
}

/// Does something for each number of a range, on several threads. Stops early when it says so.
#[expect(
    clippy::disallowed_methods,
    reason = "each thread runs whole worlds; nothing within a world depends on order or time"
)]
fn for_each_number(range: Range<u64>, jobs: Option<usize>, act: impl Fn(u64) -> bool + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(range.start);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..jobs.unwrap_or(cores).max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= range.end {
                        return;
                    }
                    if !act(number) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[derive(Default)]
struct Tally {
    code: u8,
    ran: u64,
    failed: u64,
    writes: u64,
}

#[expect(clippy::disallowed_methods, reason = "how long it took is told to people only")]
pub(crate) fn sweep(
    seeds: Range<u64>,
    scenario: &str,
    jobs: Option<usize>,
    keep_going: bool,
) -> Done {
    case(seeds.start, scenario)?;
    let tally = Mutex::new(Tally::default());
    let begin = Instant::now();
    for_each_number(seeds, jobs, |seed| {
        let Some(case) = Case::draw(seed, scenario) else { return false };
        let report = caught(&case, None);
        let code = exit_code(&report);
        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tally.code = tally.code.max(code);
        tally.ran += 1;
        tally.failed += u64::from(code != 0);
        tally.writes += report.as_ref().map_or(0, |report| report.acknowledged);
        if code != 0 {
            println!("{}", result_line(&case, &report));
            why(&report).iter().take(8).for_each(|line| println!("{line}"));
            println!("  simnet run --seed {seed} --scenario {scenario}");
        }
        code == 0 || keep_going
    });
    let seconds = begin.elapsed().as_secs_f64();
    let tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Tally { code, ran, failed, writes } = tally;
    let rate = ran as f64 / seconds;
    println!(
        "{ran} seeds of {scenario}, {failed} failed, {writes} writes, {seconds:.1} s, {rate:.1} seeds a second"
    );
    Ok(code)
}

pub(crate) fn shrink(seed: u64, out: &Path, tries: u64) -> Done {
    let case = case(seed, "random")?;
    let report = caught(&case, None);
    if exit_code(&report) == 0 {
        return Err(format!("seed {seed} does not fail"));
    }
    let fails = |case: &Case| {
        let other = caught(case, None);
        (exit_code(&other) == exit_code(&report)).then_some(()).filter(|()| {
            match (&other, &report) {
                (Ok(other), Ok(report)) => other.verdict.subject() == report.verdict.subject(),
                (other, report) => other.is_err() == report.is_err(),
            }
        })
    };
    let small = shrink_case(case, tries, |case| fails(case).is_some());
    let text = serde_json::to_string_pretty(&small).map_err(|error| error.to_string())?;
    save(out, &text)?;
    let report = caught(&small, None);
    println!("{}", result_line(&small, &report));
    why(&report).iter().take(8).for_each(|line| println!("{line}"));
    println!("{} steps are left: simnet replay {} --trace", small.plan.len(), out.display());
    Ok(exit_code(&report))
}

pub(crate) fn explain(
    seed: Option<u64>,
    file: Option<&Path>,
    scenario: &str,
    out: &Path,
    last_seconds: u64,
) -> Done {
    let case = match (seed, file) {
        (_, Some(file)) => load(file)?,
        (Some(seed), None) => case(seed, scenario)?,
        (None, None) => return Err("give a seed or a file".into()),
    };
    let (sink, lines) = picture::collector();
    let report = caught(&case, Some(sink));
    let lines = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let title = result_line(&case, &report);
    let reasons = why(&report);
    save(out, &picture::html(&title, &reasons, &case.options, &lines, last_seconds))?;
    println!("{title}");
    println!("written to {}", out.display());
    Ok(exit_code(&report))
}

pub(crate) fn growth(devices: &[usize], seed: u64) -> Done {
    if let Some(few) = devices.iter().find(|devices| **devices < 2) {
        return Err(format!("{few} devices make no mesh; 2 do"));
    }
    println!("{:>7} {:>9} {:>11} {:>9}", "devices", "frames", "bytes", "shown, ms");
    let mut costs = Vec::new();
    for devices in devices {
        let cost = growth::measure(*devices, seed).map_err(|violation| violation.what)?;
        let Cost { devices, frames, bytes, shown_ms } = cost;
        println!("{devices:>7} {frames:>9.1} {bytes:>11.0} {shown_ms:>9.1}");
        costs.push(cost);
    }
    if let [few, .., many] = costs[..]
        && few.devices != many.devices
    {
        let exponent = |of: fn(&Cost) -> f64| {
            growth::exponent((few.devices, of(&few)), (many.devices, of(&many)))
        };
        println!(
            "{:>7} {:>9.2} {:>11.2} {:>9.2}",
            "grows^",
            exponent(|cost| cost.frames),
            exponent(|cost| cost.bytes),
            exponent(|cost| cost.shown_ms),
        );
    }
    Ok(0)
}

pub(crate) fn list() -> Done {
    println!("scenarios:");
    println!("  {:<36} devices, links, faults and work all drawn from the seed", "random");
    for scenario in scenarios::all() {
        println!("  {:<36} {}", scenario.name, scenario.purpose);
    }
    println!("faults:");
    for fault in Fault::ALL {
        println!("  {:<16} {}", fault.name(), fault.why());
    }
    println!("tricks of a member that breaks the rules:");
    for trick in Trick::ALL {
        println!("  {:<16} {}", trick.name(), trick.why());
    }
    Ok(0)
}

pub(crate) fn bite(
    seeds: u64,
    bug: Option<&str>,
    write: Option<&Path>,
    check: Option<&Path>,
) -> Done {
    let chosen: Vec<Bug> =
        Bug::ALL.iter().copied().filter(|one| bug.is_none_or(|name| name == one.name())).collect();
    if chosen.is_empty() {
        return Err("no such bug".into());
    }
    if let Some(file) = check {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let rows = bite::read_table(&text);
        return on_each(&chosen, |bug| {
            let again = bite::again(bug, &rows, bite::confirm, |bug| bite::hunt(bug, seeds))?;
            match &again {
                Again::AsNamed => println!("{}: found", bug.name()),
                Again::Partly(lost) => {
                    let Found { scenario, seed, .. } = lost;
                    println!("{}: found, but no more by {scenario}, seed {seed}", bug.name());
                }
                Again::Elsewhere(row) => {
                    let name = bug.name();
                    println!(
                        "{name}: not by what the table names, but by {:?}",
                        row.found().next()
                    );
                }
                Again::Lost => println!("{}: not found any more", bug.name()),
            }
            Ok(again.is_found())
        })
        .map(|found| u8::from(found.contains(&false)));
    }
    let rows = on_each(&chosen, |bug| {
        let row = bite::hunt(bug, seeds)?;
        for Found { scenario, seed, broke } in row.found() {
            println!("{}: by {scenario}, seed {seed}: {broke}", bug.name());
        }
        Ok(row)
    })?;
    let table = bite::table(&rows);
    println!("{table}");
    if let Some(file) = write {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        save(file, &bite::put_table(&text, &table)?)?;
    }
    Ok(u8::from(!rows.iter().all(Row::is_found)))
}

/// What a step makes of each bug, in their order, done on all cores.
fn on_each<T: Send>(
    bugs: &[Bug],
    step: impl Fn(Bug) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let done = Mutex::new(Vec::new());
    for_each_number(0..bugs.len() as u64, None, |number| {
        let result = step(bugs[number as usize]);
        let fine = result.is_ok();
        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, result));
        fine
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
