//! One connection to one device: what it was told, what it said, and what it may still be sent.

mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, DeviceId, MonoMillis};
use srcos_lanes::lane::LaneId;

pub(crate) use self::window::Sent;
use self::window::Window;
use crate::engine::held::HeldLane;
use crate::engine::{
    ConnId, OWN_RECEIPT_DELAYS, RECEIPT_AUTHORS_MAX, RECEIPT_DELAY_MS, RECEIPT_DELAY_SLOW_MS,
    RELAY_AT_ONCE_MS, RELAY_DELAYS, RELAY_WAIT_MS_MAX,
};
use crate::wire::{Assembler, Hello, LaneReceipt, Message, frames, has_more};

/// Bytes of runs that a peer may send ahead of our commits: enough to keep a fast link busy, little
/// enough to hold for every peer at once.
pub(crate) const CREDIT_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of runs after which the peer is given credit for them: it learns from that how fast they pass.
pub(crate) const CREDIT_EVERY_BYTES: u32 = 16 * 1024;
/// Bytes of frames that wait for the link, besides one message, before no more runs are read and no
/// receipt is added.
pub(crate) const OUTBOX_BYTES_MAX: usize = 512 * 1024;
/// Bytes of frames that wait for the link before it is given up: what is sent besides runs (a whole
/// roster, receipts, one largest message) fits in.
pub(crate) const OUTBOX_BYTES_ABORT: usize = 32 * 1024 * 1024;

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

/// A journal that may have more for the peer. The order is the order of sending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pending {
    /// The rank of its lane.
    pub(crate) urgency: u8,
    /// It is another device's. Each first sends what it wrote itself, so that a peer that was away
    /// gets different things from all, and by then most need not be relayed any more.
    pub(crate) relayed: bool,
    pub(crate) lane: LaneId,
    pub(crate) author: Author,
}

/// Entries of another device that came a moment ago.
#[derive(Clone, Copy, Debug)]
struct Later {
    /// How far the journal was held then.
    held: u64,
    /// When they are relayed, if the peer does not hold them by then.
    at: MonoMillis,
}

/// What the peer was last told of a lane, by a receipt or by runs that it said it has.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) digest: [u8; 32],
    /// All that is held of the lane; `None` where a receipt names only a part of it.
    pub(crate) all: Option<Arc<LaneReceipt>>,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    pub(crate) device: DeviceId,
    /// The device whose session this is.
    own: DeviceId,
    pub(crate) phase: Phase,
    pub(crate) assembler: Assembler,
    /// Lanes that both sides share, in the order of urgency.
    pub(crate) lanes: BTreeSet<LaneId>,
    /// How far the peer has each journal, by its own words and by what we sent.
    pub(crate) sent: BTreeMap<(LaneId, Author), u64>,
    /// Journals that may have more for the peer, the first to be sent first.
    pub(crate) pending: BTreeSet<Pending>,
    /// Bytes of runs that we may still send; one message may take it below zero.
    pub(crate) credit: i64,
    /// Bytes of runs that the peer may still send.
    pub(crate) granted: i64,
    /// How much may be on its way to the peer.
    pub(crate) window: Window,
    /// Bytes of runs taken in since the last grant.
    pub(crate) consumed: u32,
    /// Entries that were relayed by others too, maybe, and wait for that.
    later: BTreeMap<(LaneId, Author), Later>,
    /// Devices whose entries the peer got from here alone, and until when that is taken for granted.
    pub(crate) only_here: BTreeMap<DeviceId, MonoMillis>,
    /// What the last receipt to the peer said of each lane.
    pub(crate) told: BTreeMap<LaneId, Told>,
    /// Up to where whole journals were sent in runs since then: the peer knows that we hold them.
    pub(crate) shown: BTreeMap<(LaneId, Author), Tip>,
    /// Lanes of which the last run since then did not complete what is held: the rest must be said.
    pub(crate) told_in_part: BTreeSet<LaneId>,
    /// When a receipt is due.
    pub(crate) receipt_at: Option<MonoMillis>,
    /// A receipt waits until the link takes more.
    pub(crate) owes_receipt: bool,
    /// The next receipt asks to send again.
    pub(crate) resets: bool,
    /// When the next digest is due.
    pub(crate) digest_at: MonoMillis,
    /// Not before this time is a repeat asked for again.
    pub(crate) reset_after: MonoMillis,
    /// Entries came that do not follow, too soon after the last request for a repeat: the next digest that
    /// differs asks.
    pub(crate) owes_reset: bool,
    /// Not before this time is a digest that differs answered again.
    pub(crate) digest_answered_until: MonoMillis,
    /// Digests that differed and were answered since the last entry from the peer.
    pub(crate) idle_digests: u32,
    /// The roster was sent to prove our membership; once is enough.
    pub(crate) proved: bool,
    /// Histories of forked journals that were shown to the peer, ours or the other.
    pub(crate) forks_shown: BTreeSet<(LaneId, Author, bool)>,
    /// Journals of which entries were refused; another roster may accept them. At most
    /// [`RECEIPT_AUTHORS_MAX`].
    refused: BTreeSet<(LaneId, Author)>,
    /// All shared lanes were in step when the peer last spoke.
    pub(crate) in_sync: bool,
    outbox: VecDeque<Vec<u8>>,
    outbox_bytes: usize,
    /// The last frame that was taken is a part of a message with more to come.
    in_message: bool,
    /// The link cannot take more for now.
    pub(crate) blocked: bool,
}

impl Session {
    pub(crate) fn new(
        conn: ConnId,
        own: DeviceId,
        device: DeviceId,
        phase: Phase,
        now: MonoMillis,
    ) -> Self {
        Self {
            conn,
            device,
            own,
            phase,
            assembler: Assembler::default(),
            lanes: BTreeSet::new(),
            sent: BTreeMap::new(),
            pending: BTreeSet::new(),
            credit: 0,
            granted: i64::from(CREDIT_BYTES),
            window: Window::default(),
            consumed: 0,
            later: BTreeMap::new(),
            only_here: BTreeMap::new(),
            told: BTreeMap::new(),
            shown: BTreeMap::new(),
            told_in_part: BTreeSet::new(),
            receipt_at: None,
            owes_receipt: false,
            resets: false,
            digest_at: now,
            reset_after: MonoMillis(0),
            owes_reset: false,
            digest_answered_until: MonoMillis(0),
            idle_digests: 0,
            proved: false,
            forks_shown: BTreeSet::new(),
            refused: BTreeSet::new(),
            in_sync: false,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            in_message: false,
            blocked: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, message: &Message<'_>) -> Sent {
        let bytes = message.encode();
        let mut sent = Sent { message: bytes.len(), carried: 0 };
        for frame in frames(bytes) {
            sent.carried += frame.len();
            self.outbox_bytes += frame.len();
            self.outbox.push_back(frame);
        }
        sent
    }

    /// Whether more waits for the link than a peer that reads ever leaves.
    pub(crate) fn is_overfull(&self) -> bool {
        self.outbox_bytes > OUTBOX_BYTES_ABORT
    }

    /// Whether the link takes less than there is to say: neither runs nor receipts are added.
    pub(crate) fn is_full(&self) -> bool {
        self.blocked || self.outbox_bytes >= OUTBOX_BYTES_MAX
    }

    /// Drops what waits for the link.
    pub(crate) fn forget_outbox(&mut self) {
        self.outbox.clear();
        self.outbox_bytes = 0;
    }

    /// Whether the peer has got a part of a message only: nothing else can be said before its rest.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.in_message && self.outbox.is_empty()
    }

    /// Gives the peer credit for what was taken in of its runs.
    pub(crate) fn give_credit(&mut self) {
        let credit = std::mem::take(&mut self.consumed);
        if credit > 0 {
            self.granted += i64::from(credit);
            self.send(&Message::Credit(credit));
        }
    }

    /// Sees to it that a receipt is due soon.
    pub(crate) fn receipt_soon(&mut self, now: MonoMillis) {
        self.receipt_by(now.after_ms(self.receipt_delay_ms()));
    }

    /// Sees to it that a receipt is due, though later: the peer gets what was written here in a run.
    pub(crate) fn receipt_of_own(&mut self, now: MonoMillis) {
        self.receipt_by(now.after_ms(OWN_RECEIPT_DELAYS * self.receipt_delay_ms()));
    }

    fn receipt_by(&mut self, at: MonoMillis) {
        self.receipt_at = Some(self.receipt_at.map_or(at, |due| due.min(at)));
    }

    fn receipt_delay_ms(&self) -> u64 {
        if self.window.is_slow { RECEIPT_DELAY_SLOW_MS } else { RECEIPT_DELAY_MS }
    }

    /// Bytes of frames that wait for the link.
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// Whether a frame waits for the link.
    pub(crate) fn waits(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The next frame for the link.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.outbox.pop_front()?;
        self.outbox_bytes -= frame.len();
        self.in_message = has_more(&frame);
        Some(frame)
    }

    /// Whether another run may be read for the peer.
    pub(crate) fn wants_run(&mut self) -> bool {
        self.is_open()
            && !self.pending.is_empty()
            && self.credit > 0
            && !self.is_full()
            && self.window.has_room()
    }

    /// Notes that a journal may have more for the peer.
    pub(crate) fn note(&mut self, lane: LaneId, author: Author) {
        if self.lanes.contains(&lane) {
            let relayed = author.device != self.own;
            self.pending.insert(Pending { urgency: urgency(lane), relayed, lane, author });
        }
    }

    /// Notes a journal that has just become longer, up to `held`. What another device wrote the peer
    /// mostly gets from others as well: it waits for the peer to say so, but where nobody else was seen to.
    pub(crate) fn note_new(&mut self, lane: LaneId, author: Author, held: u64, now: MonoMillis) {
        let relayed = author.device != self.own;
        let pending = Pending { urgency: urgency(lane), relayed, lane, author };
        let at_once = !relayed
            || self.pending.contains(&pending)
            || self.only_here.get(&author.device).is_some_and(|until| now < *until);
        if at_once {
            self.note(lane, author);
        } else if self.lanes.contains(&lane) && self.has(lane, &author) < held {
            // Credit for little comes with a receipt: that is how long one takes, at the least.
            let delay_ms = self.receipt_delay_ms();
            let wait_ms = (RELAY_DELAYS * delay_ms).max(delay_ms + self.window.distance_ms());
            let wait_ms = wait_ms.min(RELAY_WAIT_MS_MAX);
            let at = now.after_ms(wait_ms);
            self.later.entry((lane, author)).or_insert(Later { held, at });
        }
    }

    /// When a relayed entry has waited long enough.
    pub(crate) fn relay_at(&self) -> Option<MonoMillis> {
        self.later.values().map(|later| later.at).min()
    }

    /// Notes what has waited long enough and the peer still lacks. `held` says how far a journal is held.
    pub(crate) fn relay_what_waited(
        &mut self,
        now: MonoMillis,
        held: impl Fn(LaneId, &Author) -> u64,
    ) {
        let (due, later) =
            std::mem::take(&mut self.later).into_iter().partition(|(_, later)| later.at <= now);
        self.later = later;
        let due: BTreeMap<(LaneId, Author), Later> = due;
        for ((lane, author), later) in due {
            let held = held(lane, &author);
            if self.has(lane, &author) < later.held {
                self.only_here.retain(|_, until| now < *until);
                self.only_here.insert(author.device, now.after_ms(RELAY_AT_ONCE_MS));
                self.note(lane, author);
            } else {
                // It is told by others. What has come since waits in its turn.
                self.note_new(lane, author, held, now);
            }
        }
    }

    /// The peer asks for all that it lacks of a lane: nothing waits, and what was sent counts for nothing.
    pub(crate) fn begin_anew(&mut self, lane: LaneId) {
        self.sent.retain(|(of, _), _| *of != lane);
        self.later.retain(|(of, _), _| *of != lane);
        self.shown.retain(|(of, _), _| *of != lane);
    }

    /// The peer says how far it has a journal.
    pub(crate) fn has_said(&mut self, lane: LaneId, author: &Author, seq: u64) {
        let sent = self.sent.entry((lane, *author)).or_insert(0);
        if seq > *sent {
            *sent = seq;
            // It has that from elsewhere.
            self.only_here.remove(&author.device);
        }
    }

    /// Notes that entries of a journal were refused.
    pub(crate) fn note_refused(&mut self, lane: LaneId, author: Author) {
        if self.refused.len() < RECEIPT_AUTHORS_MAX {
            self.refused.insert((lane, author));
        }
    }

    /// The roster has changed. Returns whether something was refused, which it may accept now.
    pub(crate) fn forget_refused(&mut self) -> bool {
        !std::mem::take(&mut self.refused).is_empty()
    }

    /// Whether the peer `says` that it holds more of a lane than `ours`, of a journal of which nothing was refused.
    pub(crate) fn lacks(&self, lane: LaneId, ours: &Frontier, says: &Frontier) -> bool {
        says.0.iter().any(|(author, theirs)| {
            let known = ours.0.get(author);
            theirs.seq > known.map_or(0, |tip| tip.seq)
                && !known.is_some_and(Tip::has_two_histories)
                && !self.refused.contains(&(lane, *author))
        })
    }

    /// Whether the peer, once it has read the runs that were sent, knows all that is held of a lane.
    pub(crate) fn knows_all(&mut self, lane: LaneId, held: &HeldLane) -> bool {
        let shown = |author: &Author| self.shown.get(&(lane, *author)).copied();
        let whole = self.told.get(&lane).is_some_and(|told| held.follows(told, shown));
        if whole {
            self.told_in_part.remove(&lane);
        } else {
            self.told_in_part.insert(lane);
        }
        whole
    }

    /// How far the peer has a journal, by its own words and by what was sent.
    fn has(&self, lane: LaneId, author: &Author) -> u64 {
        self.sent.get(&(lane, *author)).copied().unwrap_or(0)
    }

    /// Notes the journals of a lane in which our frontier is ahead of the peer's.
    /// Those are left out that `waits`: what has just come is noted with the commit.
    pub(crate) fn note_ahead(
        &mut self,
        lane: LaneId,
        ours: &Frontier,
        waits: &BTreeSet<(LaneId, Author)>,
    ) {
        for (author, tip) in &ours.0 {
            let key = (lane, *author);
            let waits = self.later.contains_key(&key) || waits.contains(&key);
            if tip.seq > self.has(lane, author) && !waits {
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
