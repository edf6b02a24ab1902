//! Two paired processes, one of which is killed again and again at moments drawn from a seed: what
//! was acknowledged is there, nothing needs mending by hand, and both converge.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::binary::eventually;
use crate::caller::Caller;
use crate::process::{ALONE, Node, converge, equal, pair_of, place};
use crate::support::SLOW_TESTS;

/// Kills in a slow run and in a fast one.
const KILLS: (u32, u32) = (200, 10);
/// Bounds of the time that a process lives between being ready and being killed.
const LIFE_MS: (u64, u64) = (5, 400);

/// What the writer was told is durable: object id and body.
type Acknowledged = Mutex<BTreeMap<String, Value>>;

/// A small generator of numbers, the same for the same seed everywhere.
struct Draws(u64);

impl Draws {
    fn between(&mut self, (from, to): (u64, u64)) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) % (to - from)
    }
}

fn kills() -> u32 {
    let slow = std::env::var_os(SLOW_TESTS).is_some_and(|value| !value.is_empty() && value != "0");
    if slow { KILLS.0 } else { KILLS.1 }
}

/// Puts one object after another, each waited for, as long as the test goes on. New ids and
/// replacements of old ones; the node may be away at any moment.
fn write(dir: &Path, prefix: &str, stop: &AtomicBool, acknowledged: &Acknowledged) {
    let mut caller: Option<Caller> = None;
    let mut n = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let id = format!("{prefix}-{:05}", if n % 3 == 2 { n / 2 } else { n });
        let body = json!({"n": n, "text": "what was acknowledged must be there"});
        let connected = match caller.take() {
            Some(caller) => Some(caller),
            None => Caller::unix(dir).ok(),
        };
        let Some(mut connected) = connected else {
            std::thread::park_timeout(Duration::from_millis(5));
            continue;
        };
        // Not acknowledged: it may be there or not, and what was there before must be.
        if let Ok(answer) = connected.put("normal", &id, &body) {
            assert_eq!(answer.status, 200, "{answer:?}");
            acknowledged.lock().expect("nobody panicked").insert(id, body);
            caller = Some(connected);
        }
        n += 1;
    }
}

/// Kills `victim` many times while the writer writes to `dir`, then holds both to what must be.
fn check(seed: u64, kill_the_writer: bool) {
    let place = place();
    let (a, mut b) = pair_of(place.path(), &ALONE);
    // The one that is killed looks for the other, which stays where it is.
    let peer = a.address();
    b.set_args(&[&ALONE[..], &["--peer", &peer]].concat());
    let writer_dir = if kill_the_writer { b.dir.clone() } else { a.dir.clone() };
    let other_dir = if kill_the_writer { a.dir.clone() } else { b.dir.clone() };
    let (acknowledged, beside) = (Acknowledged::default(), Acknowledged::default());
    let stop = AtomicBool::new(false);
    let mut draws = Draws(seed);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&writer_dir, "w", &stop, &acknowledged));
        // The other side writes too, so that entries arrive while the victim dies.
        let other = scope.spawn(|| write(&other_dir, "o", &stop, &beside));
        // Also when an assertion below ends the test, the writers end.
        let stopper = Stopper(&stop);
        for kill in 0..kills() {
            let life = Duration::from_millis(draws.between(LIFE_MS));
            // The moment of death is what is tested here: it is time that passes, not a wait for
            // anything.
            let (_hold, nothing) = std::sync::mpsc::channel::<()>();
            let _ = nothing.recv_timeout(life);
            b.kill();
            let said = b.try_run();
            assert!(said.is_ok(), "kill {kill} of seed {seed}: {said:?}");
            if kill % 10 == 0 {
                holds(&b, if kill_the_writer { &acknowledged } else { &beside });
            }
        }
        drop(stopper);
        writer.join().expect("the writer ends");
        other.join().expect("the other writer ends");
    });
    let (writer, other) = if kill_the_writer { (&b, &a) } else { (&a, &b) };
    holds(writer, &acknowledged);
    holds(other, &beside);
    converge(&[&a, &b], Duration::from_secs(120));
    holds(writer, &beside);
    holds(other, &acknowledged);
    equal(&[&a, &b]);
    a.verifies();
    b.verifies();
    b.cli(&["lanes", "status"]).is(0);
    // And it ends as cleanly as any other.
    b.stop();
    b.run();
    eventually("it is in step again", || b.in_step(&[a.device()]).then_some(()));
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// That everything acknowledged so far is there. An id that is being written again right now may
/// have its next body already.
#[track_caller]
fn holds(node: &Node, acknowledged: &Acknowledged) {
    let expected = acknowledged.lock().expect("nobody panicked").clone();
    let held: BTreeMap<String, Value> = node
        .export("normal")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an export is JSON lines"))
        .map(|object| {
            (object["id"].as_str().unwrap_or_default().to_owned(), object["body"].clone())
        })
        .collect();
    for (id, body) in &expected {
        let found = held.get(id).unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
        let newer = found["n"].as_u64() >= body["n"].as_u64();
        assert!(newer, "{id} was acknowledged as {body} and is {found}");
    }
}

#[test]
fn writer_that_is_killed_again_and_again_keeps_all_that_it_acknowledged() {
    check(0x5eed_0001, true);
}

#[test]
fn receiver_that_is_killed_again_and_again_converges_with_the_writer() {
    check(0x5eed_0002, false);
}
