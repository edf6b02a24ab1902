//! The work that devices do: nested JSON put, patched, deleted and created again, by all at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use srcos_lanes::lane::LaneId;
use srcos_lanes::object::Patch;
use srcos_lanes::store::{Action, Op, PutContent};

use crate::scheduler::Stream;

/// What every secret text starts with; no frame may hold it.
pub const NEEDLE: &str = "needle-in-the-hay-";

/// Lanes that are written, the busier ones more often.
const LANES: [LaneId; 12] = [
    LaneId::Normal,
    LaneId::Normal,
    LaneId::Normal,
    LaneId::Normal,
    LaneId::Priority,
    LaneId::Priority,
    LaneId::Memory,
    LaneId::Policy,
    LaneId::Archive,
    LaneId::Audit,
    LaneId::Secure,
    LaneId::Ephemeral,
];

/// Length of a large text in bytes: several of them fill a frame.
const LARGE_BYTES_MAX: u64 = 150_000;

/// Draws what is written next.
#[derive(Debug)]
pub struct Workload {
    stream: Stream,
    ids: u64,
    large_percent: u64,
    secret_percent: u64,
    written: u64,
    /// Objects that were ever asked to be secret, or live in a lane that stays on its device.
    pub confined: BTreeSet<(LaneId, String)>,
    /// All objects that were ever written.
    pub known: BTreeSet<(LaneId, String)>,
}

/// A batch for one node.
#[derive(Clone, Debug)]
pub struct Work {
    /// The lane.
    pub lane: LaneId,
    /// What to do in it.
    pub ops: Vec<Op>,
}

impl Workload {
    /// Work for one run.
    pub fn new(seed: u64, ids: u64, large_percent: u64, secret_percent: u64) -> Self {
        Self {
            stream: Stream::new(seed, "workload", 0),
            ids,
            large_percent,
            secret_percent,
            written: 0,
            confined: BTreeSet::new(),
            known: BTreeSet::new(),
        }
    }

    /// The next batch.
    pub fn batch(&mut self) -> Work {
        let lane = self.stream.pick(&LANES);
        let ops = if self.stream.percent(15) { self.stream.between(2, 5) } else { 1 };
        Work { lane, ops: (0..ops).map(|_| self.op(lane)).collect() }
    }

    fn op(&mut self, lane: LaneId) -> Op {
        self.written += 1;
        let secret = self.secret_percent > 0 && self.stream.percent(self.secret_percent);
        // Some objects are open at one time and secret at another; the rest are never secret.
        let id = if secret || (self.secret_percent > 0 && self.stream.percent(5)) {
            format!("turning/{}", self.stream.below(2))
        } else if lane == LaneId::Audit {
            format!("event/{}", self.stream.below(40))
        } else {
            format!("object/{}", self.stream.below(self.ids))
        };
        self.known.insert((lane, id.clone()));
        if secret {
            self.confined.insert((lane, id.clone()));
        }
        let action = match self.stream.below(100) {
            _ if secret => self.secret(),
            0..50 => self.put(),
            50..80 => self.patch(),
            _ => Action::Delete { reason: "done with".into() },
        };
        Op { id, action, if_heads: None }
    }

    fn secret(&mut self) -> Action {
        let body = json!({ "secret": format!("{NEEDLE}{}", self.written) });
        let class = Some(self.stream.pick(&["secret", "credential"]).to_owned());
        if self.stream.percent(30) {
            Action::Patch(Patch { class, body: Some(body), ..Patch::default() })
        } else {
            Action::Put(PutContent { class, body, ..PutContent::default() })
        }
    }

    fn put(&mut self) -> Action {
        let mut labels = BTreeMap::new();
        for _ in 0..self.stream.below(3) {
            labels.insert(self.word(), self.word());
        }
        let kind = self.stream.percent(30).then(|| self.word());
        let labels = self.stream.percent(40).then_some(labels);
        Action::Put(PutContent { kind, labels, body: self.value(3), ..PutContent::default() })
    }

    fn patch(&mut self) -> Action {
        let mut labels = BTreeMap::new();
        if self.stream.percent(20) {
            let value = self.stream.percent(70).then(|| self.word());
            labels.insert(self.word(), value);
        }
        let body = Some(self.map(2));
        Action::Patch(Patch { labels, body, ..Patch::default() })
    }

    fn key(&mut self) -> String {
        self.stream.pick(&["a", "b", "c", "a/b", "ключ", "", "~"]).to_owned()
    }

    /// A kind, a label's key or value: these may not be empty.
    fn word(&mut self) -> String {
        self.stream.pick(&["red", "green", "blau", "зелёный"]).to_owned()
    }

    fn map(&mut self, depth: u64) -> Value {
        let mut map = Map::new();
        for _ in 0..self.stream.below(4) {
            map.insert(self.key(), self.value(depth));
        }
        Value::Object(map)
    }

    fn value(&mut self, depth: u64) -> Value {
        if self.stream.percent(self.large_percent) {
            let len = self.stream.between(1_000, LARGE_BYTES_MAX) as usize;
            // Random text, or it would be packed to nothing.
            let text: String =
                (0..len / 8).map(|_| format!("{:08x}", self.stream.bits())).collect();
            return Value::String(text);
        }
        match self.stream.below(if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => Value::Bool(self.stream.percent(50)),
            2 => json!(i64::from(self.stream.bits()) - (1 << 31)),
            3 => json!(f64::from(self.stream.bits()) / 8.0),
            4 => Value::String(format!("text {}", self.written)),
            5 => {
                let len = self.stream.below(5);
                Value::Array((0..len).map(|_| self.value(depth - 1)).collect())
            }
            _ => self.map(depth - 1),
        }
    }
}
