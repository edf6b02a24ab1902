//! The work that devices do: nested JSON put, patched, deleted and created again, by all at once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use srcos_lanes::lane::LaneId;
use srcos_lanes::object::Patch;
use srcos_lanes::store::{Action, Op, PutContent};

use crate::options::Options;
use crate::scheduler::Stream;

/// What every secret text starts with; no frame may hold it.
pub const NEEDLE: &str = "needle-in-the-hay-";

/// Lanes that are written, the busier ones more often.
const LANES: [LaneId; 13] = [
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
    LaneId::Ephemeral,
];

/// Length of a large text in bytes: several of them fill a frame.
const LARGE_BYTES_MAX: u64 = 150_000;

/// What a workload is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mix {
    /// How many batches of a hundred have 2 to 5 operations; the rest have one.
    pub batches_percent: u64,
    /// How many operations of a hundred change a part of an object.
    pub patches_percent: u64,
    /// How many of a hundred delete one. The rest put one whole.
    pub deletes_percent: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { batches_percent: 15, patches_percent: 30, deletes_percent: 20 }
    }
}

enum Kind {
    Put,
    Patch,
    Delete,
}

impl Mix {
    fn draw(self, stream: &mut Stream) -> Kind {
        let patches_to = 100 - self.deletes_percent;
        let puts_to = patches_to - self.patches_percent;
        match stream.below(100) {
            drawn if drawn < puts_to => Kind::Put,
            drawn if drawn < patches_to => Kind::Patch,
            _ => Kind::Delete,
        }
    }
}

/// Draws what is written next, and remembers what there may be.
#[derive(Debug)]
pub struct Workload {
    ids: u64,
    large_permille: u64,
    secret_percent: u64,
    mix: Mix,
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

/// The device that alone writes an object, if its id says so.
pub fn owner(id: &str) -> Option<usize> {
    id.strip_prefix("own/")?.split('/').next()?.parse().ok()
}

impl Workload {
    /// Work for one run.
    pub fn new(options: &Options) -> Self {
        Self {
            ids: options.ids,
            large_permille: options.large_permille,
            secret_percent: options.secret_percent,
            mix: options.mix,
            written: 0,
            confined: BTreeSet::new(),
            known: BTreeSet::new(),
        }
    }

    /// The next batch, of so many operations, for a device.
    pub fn batch(&mut self, stream: &mut Stream, node: usize, ops: u64) -> Work {
        let lane = stream.pick(&LANES);
        Work { lane, ops: (0..ops).map(|_| self.op(stream, lane, node)).collect() }
    }

    /// Notes what a batch may bring about. Called for every batch that is tried.
    pub fn note(&mut self, work: &Work) {
        for op in &work.ops {
            self.known.insert((work.lane, op.id.clone()));
            let class = match &op.action {
                Action::Put(put) => put.class.as_deref(),
                Action::Patch(patch) => patch.class.as_deref(),
                Action::Delete { .. } => None,
            };
            if class.is_some_and(srcos_lanes::policy::is_confined) {
                self.confined.insert((work.lane, op.id.clone()));
            }
        }
    }

    fn op(&mut self, stream: &mut Stream, lane: LaneId, node: usize) -> Op {
        self.written += 1;
        let secret = self.secret_percent > 0 && stream.percent(self.secret_percent);
        // Some objects are open at one time and secret at another; the rest are never secret. Some
        // are written by one device alone, so that what they must say in the end is known.
        let id = if secret || (self.secret_percent > 0 && stream.percent(5)) {
            format!("turning/{}", stream.below(2))
        } else if lane == LaneId::Audit {
            format!("event/{}", stream.below(40))
        } else if stream.percent(30) {
            format!("own/{node}/{}", stream.below(3))
        } else {
            format!("object/{}", stream.below(self.ids))
        };
        let action = if secret {
            self.secret(stream)
        } else if owner(&id).is_some() {
            match self.mix.draw(stream) {
                Kind::Put => self.own(stream, lane),
                Kind::Patch => self.own_patch(stream),
                Kind::Delete => Action::Delete { reason: "done with".into() },
            }
        } else {
            match self.mix.draw(stream) {
                Kind::Put => self.put(stream, lane),
                Kind::Patch => self.patch(stream),
                Kind::Delete => Action::Delete { reason: "done with".into() },
            }
        };
        Op { id, action, if_heads: None }
    }

    fn own(&mut self, stream: &mut Stream, lane: LaneId) -> Action {
        let body = json!({ "number": self.written, "more": self.value(stream, 1) });
        let ttl_ms = ttl(stream, lane);
        Action::Put(PutContent { body, ttl_ms, ..PutContent::default() })
    }

    fn own_patch(&mut self, stream: &mut Stream) -> Action {
        let mut body = self.map(stream, 2);
        if stream.percent(50) {
            body["more"] = self.value(stream, 2);
        }
        Action::Patch(Patch { body: Some(body), ..Patch::default() })
    }

    fn secret(&mut self, stream: &mut Stream) -> Action {
        let body = json!({ "secret": format!("{NEEDLE}{}", self.written) });
        let class = Some(stream.pick(&["secret", "credential"]).to_owned());
        if stream.percent(30) {
            Action::Patch(Patch { class, body: Some(body), ..Patch::default() })
        } else {
            Action::Put(PutContent { class, body, ..PutContent::default() })
        }
    }

    fn put(&mut self, stream: &mut Stream, lane: LaneId) -> Action {
        let mut labels = BTreeMap::new();
        for _ in 0..stream.below(3) {
            labels.insert(word(stream), word(stream));
        }
        let kind = stream.percent(30).then(|| word(stream));
        let class = stream.percent(15).then(|| stream.pick(&["public", "personal"]).to_owned());
        let labels = stream.percent(40).then_some(labels);
        let body = self.value(stream, 3);
        let ttl_ms = ttl(stream, lane);
        Action::Put(PutContent { kind, class, labels, body, ttl_ms, ..PutContent::default() })
    }

    fn patch(&mut self, stream: &mut Stream) -> Action {
        let mut labels = BTreeMap::new();
        if stream.percent(20) {
            let value = stream.percent(70).then(|| word(stream));
            labels.insert(word(stream), value);
        }
        let body = Some(self.map(stream, 2));
        Action::Patch(Patch { labels, body, ..Patch::default() })
    }

    fn map(&mut self, stream: &mut Stream, depth: u64) -> Value {
        let mut map = Map::new();
        for _ in 0..stream.below(4) {
            map.insert(key(stream), self.value(stream, depth));
        }
        Value::Object(map)
    }

    fn value(&mut self, stream: &mut Stream, depth: u64) -> Value {
        if self.large_permille > 0 && stream.below(1_000) < self.large_permille {
            let len = stream.between(1_000, LARGE_BYTES_MAX) as usize;
            return Value::String(stream.text(len));
        }
        match stream.below(if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => Value::Bool(stream.percent(50)),
            2 => json!(i64::from(stream.bits()) - (1 << 31)),
            3 => json!(f64::from(stream.bits()) / 8.0),
            4 => Value::String(format!("text {}", self.written)),
            5 => {
                let len = stream.below(5);
                Value::Array((0..len).map(|_| self.value(stream, depth - 1)).collect())
            }
            _ => self.map(stream, depth - 1),
        }
    }
}

/// A time to live, where objects have one.
fn ttl(stream: &mut Stream, lane: LaneId) -> Option<u64> {
    let definition = lane.definition().ttl?;
    stream.percent(70).then(|| stream.between(1_000, definition.max_ms / 20))
}

fn key(stream: &mut Stream) -> String {
    stream.pick(&["a", "b", "c", "a/b", "ключ", "", "~"]).to_owned()
}

/// A kind, a label's key or value: these may not be empty.
fn word(stream: &mut Stream) -> String {
    stream.pick(&["red", "green", "blau", "зелёный"]).to_owned()
}
