//! One connection to one device: what it was told, what it said, and what it may still be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use srcos_lanes::frontier::Frontier;
use srcos_lanes::ids::{Author, DeviceId, MonoMillis};
use srcos_lanes::lane::LaneId;

use crate::engine::ConnId;
use crate::wire::{Assembler, Hello, Message, frames};

/// Bytes of runs that a peer may send ahead of our commits: enough to keep a fast link busy, little
/// enough to hold for every peer at once.
pub(crate) const CREDIT_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of frames that wait for the link, besides one message, before no more runs are read.
pub(crate) const OUTBOX_BYTES_MAX: usize = 512 * 1024;

/// How far the conversation is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The device is no member as far as we know; it may prove otherwise until the deadline.
    Stranger {
        /// When it is too late.
        deadline: MonoMillis,
        /// Its hello, kept until it is proven.
        hello: Option<Hello>,
    },
    /// We said hello and wait for the peer's.
    Greeting {
        /// When it is too late.
        deadline: MonoMillis,
    },
    /// Both said hello.
    Open,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    pub(crate) device: DeviceId,
    pub(crate) phase: Phase,
    pub(crate) assembler: Assembler,
    /// Lanes that both sides share, in the order of urgency.
    pub(crate) lanes: BTreeSet<LaneId>,
    /// How far the peer has each journal, by its own words and by what we sent.
    pub(crate) sent: BTreeMap<(LaneId, Author), u64>,
    /// Journals that may have more for the peer: rank of urgency, lane, author.
    pub(crate) pending: BTreeSet<(u8, LaneId, Author)>,
    /// Bytes of runs that we may still send; one message may take it below zero.
    pub(crate) credit: i64,
    /// Bytes of runs that the peer may still send.
    pub(crate) granted: i64,
    /// Bytes of runs taken in since the last grant.
    pub(crate) consumed: u32,
    /// Digest of what the last receipt to the peer said of each lane.
    pub(crate) told: BTreeMap<LaneId, [u8; 32]>,
    /// When a receipt is due.
    pub(crate) receipt_at: Option<MonoMillis>,
    /// When the next digest is due.
    pub(crate) digest_at: MonoMillis,
    /// Not before this time is a repeat asked for again.
    pub(crate) reset_after: MonoMillis,
    /// Entries were refused because of the roster as it was; another roster may accept them.
    pub(crate) refused_by_roster: bool,
    /// All shared lanes were in step when the peer last spoke.
    pub(crate) in_sync: bool,
    outbox: VecDeque<Vec<u8>>,
    outbox_bytes: usize,
    /// The link cannot take more for now.
    pub(crate) blocked: bool,
}

impl Session {
    pub(crate) fn new(conn: ConnId, device: DeviceId, phase: Phase, now: MonoMillis) -> Self {
        Self {
            conn,
            device,
            phase,
            assembler: Assembler::default(),
            lanes: BTreeSet::new(),
            sent: BTreeMap::new(),
            pending: BTreeSet::new(),
            credit: 0,
            granted: i64::from(CREDIT_BYTES),
            consumed: 0,
            told: BTreeMap::new(),
            receipt_at: None,
            digest_at: now,
            reset_after: MonoMillis(0),
            refused_by_roster: false,
            in_sync: false,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            blocked: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, message: &Message<'_>) {
        for frame in frames(message.encode()) {
            self.outbox_bytes += frame.len();
            self.outbox.push_back(frame);
        }
    }

    /// The next frame for the link.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.outbox.pop_front()?;
        self.outbox_bytes -= frame.len();
        Some(frame)
    }

    /// Whether another run may be read for the peer.
    pub(crate) fn wants_run(&self) -> bool {
        self.is_open()
            && self.credit > 0
            && self.outbox_bytes < OUTBOX_BYTES_MAX
            && !self.pending.is_empty()
    }

    /// Notes that a journal may have more for the peer.
    pub(crate) fn note(&mut self, lane: LaneId, author: Author) {
        if self.lanes.contains(&lane) {
            self.pending.insert((urgency(lane), lane, author));
        }
    }

    /// Notes the journals of a lane in which our frontier is ahead of the peer's.
    pub(crate) fn note_ahead(&mut self, lane: LaneId, ours: &Frontier) {
        for (author, tip) in &ours.0 {
            if tip.seq > self.sent.get(&(lane, *author)).copied().unwrap_or(0) {
                self.note(lane, *author);
            }
        }
    }
}

/// The rank of a lane among those that are sent: 0 is first.
pub(crate) fn urgency(lane: LaneId) -> u8 {
    // Every lane is in the list, and there are eleven.
    LaneId::BY_URGENCY.iter().position(|other| *other == lane).unwrap_or(0) as u8
}
