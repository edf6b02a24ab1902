//! What a member signs beside its engine: journals of its own that its store does not hold, each begun
//! with an incarnation that nobody permitted.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use srcos_lanes::ids::{Author, EntryHash, Incarnation, MeshId, ObjectKey, WallMillis};
use srcos_lanes::journal::{
    Body, BodyParts, HEADER_VERSION, Header, Item, LIFE_MAX, hash_header, sign_header, write_entry,
};
use srcos_lanes::lane::LaneId;
use srcos_lanes::object::{Content, Object};
use srcos_lanes::signature::Signer as _;
use srcos_replication::wire::{Message, frames};

use crate::scheduler::Stream;

/// Times that no clock shows: the first, those at which a signed number of 64 bits ends in milliseconds
/// and in seconds, and the last.
const FAR_TIMES: [u64; 4] = [0, i64::MAX as u64, i64::MAX as u64 / 1_000, u64::MAX];

/// One life of an object that somebody writes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Named {
    pub(super) lane: LaneId,
    pub(super) id: String,
    pub(super) life: u32,
}

/// A journal that its author's store does not hold.
#[derive(Debug)]
pub(super) struct Chain {
    lane: LaneId,
    author: Author,
    entries: Vec<Vec<u8>>,
    tip: EntryHash,
    /// What its author has created: an honest author creates a life once.
    created: BTreeSet<(String, u32)>,
}

impl Chain {
    /// An empty one.
    pub(super) fn new(key: &SigningKey, lane: LaneId, stream: &mut Stream) -> Self {
        let incarnation = Incarnation(u64::from_be_bytes(stream.bytes()));
        Self {
            lane,
            author: Author { device: key.device(), incarnation },
            entries: Vec::new(),
            tip: EntryHash::NONE,
            created: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds an entry that creates one life of an object, at a time that it says.
    pub(super) fn create(
        &mut self,
        key: &SigningKey,
        mesh: MeshId,
        (id, life): (&str, u32),
        body: Value,
        wall: u64,
    ) {
        let Ok(content) = Content::of(body) else { return };
        if !self.created.insert((id.to_owned(), life)) {
            return;
        }
        // Of a change a time that has no sign is refused, which would be another trick.
        let at = WallMillis(wall.min(i64::MAX as u64));
        let change = Object::create(&content, self.author.actor(), at);
        let body = BodyParts { life, id, change: &change.bytes }.write();
        let header = Header {
            version: HEADER_VERSION,
            mesh,
            lane: self.lane,
            author: self.author,
            seq: self.entries.len() as u64 + 1,
            prev: self.tip,
            wall: WallMillis(wall),
            after: Vec::new(),
            classes: vec![content.class().to_owned()],
            items: vec![Item {
                key: ObjectKey::new(self.lane, id, life),
                change: change.hash,
                body_len: body.len() as u32,
                class: 0,
                confined: false,
            }],
        }
        .to_bytes();
        self.tip = hash_header(&header);
        self.entries.push(write_entry(&sign_header(&header, key), &header, &[Body::Here(&body)]));
    }

    /// All of it, as frames: who has a part of it takes the rest.
    pub(super) fn frames(&self) -> Vec<Vec<u8>> {
        let entries = self.entries.iter().map(Vec::as_slice).collect();
        let (lane, author) = (self.lane, self.author);
        frames(Message::Run { lane, author, whole: true, entries }.encode())
    }
}

/// A far life of an object, or its deletion, and a far time: the lane, id, life and body of an entry, and
/// when it says that it was written.
pub(super) fn far(object: &Named, stream: &mut Stream) -> (Named, Value, u64) {
    let Named { lane, id, life } = object.clone();
    let ahead = stream.pick(&[0, 1, 2, 1_000, LIFE_MAX - 1, LIFE_MAX]);
    let life = life.saturating_add(ahead).min(LIFE_MAX);
    let wall = stream.pick(&FAR_TIMES);
    // The life that is shown is for its users to delete.
    if ahead == 0 || lane == LaneId::Tombstone || stream.percent(60) {
        return (Named { lane, id, life }, json!({ "far": life }), wall);
    }
    let body = json!({ "lane": lane.to_string(), "id": id, "life": life, "reason": "far" });
    let grave = Named { lane: LaneId::Tombstone, id: format!("{lane}/{life}/{id}"), life: 1 };
    (grave, body, wall)
}
