//! A member that breaks the rules: a real engine whose frames are altered on their way out, through
//! the real codec and with its real key, so that what can be signed is signed.

mod faces;
mod ghost;

use std::collections::{BTreeMap, VecDeque};

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use srcos_lanes::frontier::{Frontier, Tip};
use srcos_lanes::ids::{Author, DeviceId, EntryHash, Incarnation, MeshId, WallMillis};
use srcos_lanes::journal::{Body, Entry, sign_header, write_entry};
use srcos_lanes::lane::LaneId;
use srcos_lanes::signature::Signer as _;
use srcos_replication::roster::RecordBytes;
use srcos_replication::wire::{Assembler, LaneReceipt, Message, Receipt, frames, has_more};

use crate::faults::kebab;
use crate::scheduler::Stream;
use crate::workload::owner;
use faces::Faces;
use ghost::{Chain, Named};

/// Frames that are kept to be sent again.
const RECORDED_MAX: usize = 200;
/// Frames of one flood.
const FLOOD_FRAMES: usize = 300;
/// Journals that are begun at once.
const JOURNALS_AT_ONCE: usize = 12;
/// Journals that are begun in all: more than any device takes of a member, and no more than are taken
/// of it once it is put out (ADR 0018), whoever of the others took which.
const JOURNALS_MAX: usize = 200;
/// Entries with far lives in one lane.
const FAR_ENTRIES_MAX: usize = 60;

/// Something that a member may do and must not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trick {
    /// A bit of a frame flips.
    BitFlip,
    /// A frame ends early.
    Truncate,
    /// A frame of an earlier time, perhaps of another connection, is sent again.
    Replay,
    /// A frame is sent after the one that follows it.
    Reorder,
    /// A frame is left out.
    Withhold,
    /// A run is left out, and nothing else.
    WithholdRun,
    /// A run is sent after the frame that follows it.
    ReorderRun,
    /// Random bytes.
    Garbage,
    /// An entry in another member's name, signed by itself.
    Forge,
    /// Entries of an author that nobody admitted, properly signed by it.
    Stranger,
    /// Some peers are shown another history of its own journal, properly signed.
    Equivocate,
    /// It claims to hold what nobody wrote, also of the receiver's own journal.
    FalseReceipt,
    /// Hundreds of small messages at once.
    Flood,
    /// A run whose last body is not the one that was signed, before the run itself.
    Body,
    /// Entries that a device wrote after it was put out.
    Smuggle,
    /// It takes in a device that nobody knows, without telling, and hands on what that one writes. Then
    /// somebody puts it out, mostly without having heard of that: `simnet/src/world/betrayal.rs`.
    Accomplice,
    /// It begins journals without end in one lane, with entries of objects that all use, and shows each
    /// peer other ones.
    Journals,
    /// It signs lives of such objects that are far ahead, deletions of them, and times that no clock
    /// shows.
    FarLife,
    /// Each peer is shown a history of its own of every journal, which all begin alike.
    Faces,
}

impl Trick {
    /// Every trick.
    pub const ALL: [Self; 19] = [
        Self::BitFlip,
        Self::Truncate,
        Self::Replay,
        Self::Reorder,
        Self::Withhold,
        Self::WithholdRun,
        Self::ReorderRun,
        Self::Garbage,
        Self::Forge,
        Self::Stranger,
        Self::Equivocate,
        Self::FalseReceipt,
        Self::Flood,
        Self::Body,
        Self::Smuggle,
        Self::Accomplice,
        Self::Journals,
        Self::FarLife,
        Self::Faces,
    ];

    /// What a member does by a fault of its program: with runs, which are asked for again. What else a link
    /// carries is said once, since links lose nothing.
    pub const FAULTS: [Self; 2] = [Self::WithholdRun, Self::ReorderRun];

    /// Its name in lists.
    pub fn name(self) -> String {
        kebab(&format!("{self:?}"))
    }

    /// Why devices that keep the rules must survive it.
    pub const fn why(self) -> &'static str {
        match self {
            Self::BitFlip | Self::Truncate | Self::Garbage => {
                "a peer is a program on a machine like any other, and sends what it sends: the link ends, the node does not"
            }
            Self::Replay => {
                "what was true once is said again: nothing is taken twice, and nothing goes back"
            }
            Self::Reorder | Self::ReorderRun => {
                "order is the sender's promise, not the receiver's: what comes too early waits or is refused"
            }
            Self::Withhold | Self::WithholdRun => {
                "a gap is no end: what was left out is asked for again, from whoever has it"
            }
            Self::Forge => "one member must not write in the name of another",
            Self::Stranger => "nobody becomes an author by being heard",
            Self::Equivocate => {
                "who signs two histories is shown to have, and misleads nobody for good"
            }
            Self::FalseReceipt => {
                "what a peer says that it holds is its word: nothing is forgotten, or called in step, for it alone"
            }
            Self::Flood => "memory and time that a peer can take are bounded",
            Self::Body => "a signature covers bodies too: what was not signed is not taken",
            Self::Smuggle => "putting a device out ends what it can write, whoever carries it",
            Self::Accomplice => "who takes in others unseen takes them along when it is put out",
            Self::Journals => {
                "a member may begin journals; how many are kept is for the others to say"
            }
            Self::FarLife => {
                "numbers and times in what is signed are the signer's: none of them may hide what others wrote"
            }
            Self::Faces => {
                "many histories at once are still one proof each, and still no reason not to agree"
            }
        }
    }

    /// Whether it consists of runs whose headers are properly signed.
    const fn is_told(self) -> bool {
        matches!(
            self,
            Self::Body | Self::Smuggle | Self::Accomplice | Self::Journals | Self::FarLife
        )
    }

    /// Whether what it does to a frame is decided by the receiver, and not now and then.
    pub(crate) const fn is_steady(self) -> bool {
        matches!(self, Self::Equivocate | Self::Faces)
    }
}

/// What alters a member's frames.
pub struct Tamperer {
    key: SigningKey,
    stranger: SigningKey,
    mesh: MeshId,
    /// Each trick is played on one in so many frames.
    tricks: BTreeMap<Trick, u64>,
    stream: Stream,
    recorded: VecDeque<Vec<u8>>,
    /// Runs of devices that were put out, and of accomplices, each with its author.
    contraband: Vec<(DeviceId, Vec<u8>)>,
    /// A frame that waits for the one after it, by connection.
    waiting: BTreeMap<u64, Vec<u8>>,
    faces: Faces,
    /// The lane in which journals are begun, and how many were.
    journals: Option<(LaneId, usize)>,
    /// Journals with far lives.
    far: BTreeMap<LaneId, Chain>,
    /// How often each trick was played.
    pub played: BTreeMap<Trick, u64>,
    /// It plays no trick for now.
    resting: bool,
}

impl std::fmt::Debug for Tamperer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tamperer").field("tricks", &self.tricks).finish_non_exhaustive()
    }
}

/// The connection that a frame is for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The connection's number.
    pub conn: u64,
    /// The device at the other end.
    pub device: DeviceId,
    /// The number of its node.
    pub peer: usize,
}

impl Tamperer {
    /// For the member with this key.
    pub fn new(key: SigningKey, mesh: MeshId, tricks: BTreeMap<Trick, u64>, seed: u64) -> Self {
        let mut stream = Stream::new(seed, "tamperer", 0);
        Self {
            key,
            stranger: SigningKey::from_bytes(&stream.bytes()),
            mesh,
            tricks,
            stream,
            recorded: VecDeque::new(),
            contraband: Vec::new(),
            waiting: BTreeMap::new(),
            faces: Faces::default(),
            journals: None,
            far: BTreeMap::new(),
            played: BTreeMap::new(),
            resting: false,
        }
    }

    /// Whether it is a fault of its program alone.
    pub fn is_by_fault(&self) -> bool {
        self.tricks.keys().all(|trick| Trick::FAULTS.contains(trick)) && !self.tricks.is_empty()
    }

    /// Plays no trick any more. Who it is stays known.
    pub fn rest(&mut self) {
        self.resting = true;
    }

    /// The frames that are sent instead of one.
    pub fn send(&mut self, to: Target, frame: Vec<u8>) -> Vec<Vec<u8>> {
        if self.recorded.len() >= RECORDED_MAX {
            self.recorded.pop_front();
        }
        self.recorded.push_back(frame.clone());
        // Before both have said hello a run ends the connection, and nobody looks at it.
        let greets = |message: Message<'_>| {
            matches!(message, Message::Hello(_) | Message::ProofNeeded | Message::Roster(_))
        };
        let greets = whole(&frame, |message| Some(greets(message))).unwrap_or(false);
        // What was held back goes after the frame that follows it; a program that keeps messages whole sends it
        // after the message.
        let late = match self.is_by_fault() && has_more(&frame) {
            true => None,
            false => self.waiting.remove(&to.conn),
        };
        let mut sent = vec![self.shown(to, frame)];
        for trick in self.tricks.keys().copied().collect::<Vec<_>>() {
            let every = self.tricks[&trick];
            let waits = trick.is_steady() || (greets && trick.is_told());
            if !waits && !self.resting && self.stream.below(every) == 0 {
                let before = sent.len();
                self.play(trick, to, &mut sent);
                let played = if Trick::FAULTS.contains(&trick) {
                    sent.len() < before
                } else {
                    !trick.is_told() || sent.len() > before
                };
                if played {
                    *self.played.entry(trick).or_default() += 1;
                }
            }
        }
        sent.extend(late);
        sent
    }

    fn play(&mut self, trick: Trick, to: Target, sent: &mut Vec<Vec<u8>>) {
        match trick {
            Trick::BitFlip => {
                if let Some(frame) = sent.last_mut().filter(|frame| !frame.is_empty()) {
                    let at = self.stream.index(frame.len());
                    frame[at] ^= 1 << self.stream.below(8);
                }
            }
            Trick::Truncate => {
                if let Some(frame) = sent.last_mut() {
                    frame.truncate(self.stream.index(frame.len() + 1));
                }
            }
            Trick::Replay => {
                let frame = self.recorded[self.stream.index(self.recorded.len())].clone();
                sent.push(frame);
            }
            Trick::Reorder => {
                if let Some(frame) = sent.pop() {
                    self.waiting.insert(to.conn, frame);
                }
            }
            Trick::Withhold => drop(sent.pop()),
            Trick::WithholdRun => {
                if sent.last().is_some_and(|frame| is_run(frame)) {
                    sent.clear();
                }
            }
            Trick::ReorderRun => {
                if sent.last().is_some_and(|frame| is_run(frame)) {
                    self.waiting.extend(sent.pop().map(|frame| (to.conn, frame)));
                }
            }

            Trick::Garbage => {
                let len = self.stream.between(1, 400) as usize;
                let mut frame: Vec<u8> = (0..len).map(|_| self.stream.bits() as u8).collect();
                frame[0] = self.stream.below(4) as u8;
                sent.push(frame);
            }
            Trick::Forge | Trick::Stranger => sent.extend(self.forged(trick)),
            Trick::FalseReceipt => sent.extend(self.false_receipt(to)),
            Trick::Body => {
                let altered = sent.first().and_then(|frame| self.other_body(frame));
                if let Some(altered) = altered {
                    sent.insert(0, altered);
                }
            }
            Trick::Flood => {
                for _ in 0..FLOOD_FRAMES {
                    let message = match self.stream.below(4) {
                        0 => Message::Digest(self.stream.bytes()),
                        1 => Message::Credit(self.stream.bits()),
                        2 => Message::Roster(vec![RecordBytes(self.stream.bytes::<64>().to_vec())]),
                        _ => Message::Roster(Vec::new()),
                    };
                    sent.extend(frames(message.encode()));
                }
            }
            Trick::Smuggle | Trick::Accomplice if !self.contraband.is_empty() => {
                let (author, run) = &self.contraband[self.stream.index(self.contraband.len())];
                // Its author would take it for a sign that it is held here.
                sent.extend((*author != to.device).then(|| run.clone()));
            }
            Trick::Journals => {
                for _ in 0..JOURNALS_AT_ONCE {
                    sent.extend(self.one_more_journal());
                }
            }
            Trick::FarLife => sent.extend(self.far_life()),
            Trick::Equivocate | Trick::Faces | Trick::Smuggle | Trick::Accomplice => {}
        }
    }

    /// An object of which this member has sent something, and that no device has for itself.
    fn object(&mut self) -> Option<Named> {
        let start = self.stream.index(self.recorded.len());
        let recorded = self.recorded.iter().skip(start).chain(self.recorded.iter().take(start));
        let named = |message: Message<'_>| {
            let Message::Run { lane, entries, .. } = message else { return None };
            let entry = Entry::read(entries.last()?).ok()?;
            let parts = entry.parts(0).filter(|parts| owner(parts.id).is_none())?;
            Some(Named { lane, id: parts.id.to_owned(), life: parts.life })
        };
        recorded.into_iter().find_map(|frame| whole(frame, named))
    }

    /// A journal of one entry, which begins with it.
    fn one_more_journal(&mut self) -> Vec<Vec<u8>> {
        let Some(object) = self.object() else { return Vec::new() };
        let (lane, begun) = self.journals.get_or_insert((object.lane, 0));
        if object.lane != *lane || *begun >= JOURNALS_MAX {
            return Vec::new();
        }
        *begun += 1;
        let (number, lane) = (*begun, *lane);
        let mut chain = Chain::new(&self.key, lane, &mut self.stream);
        let body = serde_json::json!({ "journal": number });
        chain.create(&self.key, self.mesh, (&object.id, object.life), body, number as u64);
        chain.frames()
    }

    /// A journal of far lives, with one more.
    fn far_life(&mut self) -> Vec<Vec<u8>> {
        let Some(object) = self.object() else { return Vec::new() };
        let (named, body, wall) = ghost::far(&object, &mut self.stream);
        let stream = &mut self.stream;
        let new = || Chain::new(&self.key, named.lane, stream);
        let chain = self.far.entry(named.lane).or_insert_with(new);
        if chain.len() < FAR_ENTRIES_MAX {
            chain.create(&self.key, self.mesh, (&named.id, named.life), body, wall);
        }
        chain.frames()
    }

    /// Hands it entries of a journal up to the newest, the last of which its device wrote after it was put out.
    pub fn take_contraband(&mut self, lane: LaneId, author: Author, entries: &[Vec<u8>]) {
        let entries = entries.iter().map(Vec::as_slice).collect();
        let run = frames(Message::Run { lane, author, whole: true, entries }.encode());
        if self.contraband.len() >= RECORDED_MAX || run.len() > 1 {
            return;
        }
        self.contraband.extend(run.into_iter().map(|run| (author.device, run)));
    }

    /// The frame as this peer is shown it: with another history, where that is the trick.
    fn shown(&mut self, to: Target, frame: Vec<u8>) -> Vec<u8> {
        let (trick, face, alike) = match () {
            () if self.tricks.contains_key(&Trick::Faces) => {
                (Trick::Faces, to.peer as u64 + 1, faces::ALIKE_ENTRIES)
            }
            () if self.tricks.contains_key(&Trick::Equivocate) && to.peer % 2 == 1 => {
                (Trick::Equivocate, 1, 0)
            }
            () => return frame,
        };
        let said = match trick {
            // Who is to believe a history must not be told of another.
            Trick::Faces => self.faces.receipt(&self.key, self.mesh, &frame, face),
            _ => None,
        };
        match said.or_else(|| self.faces.shown(&self.key, &frame, face, alike)) {
            Some(other) => {
                *self.played.entry(trick).or_default() += 1;
                other
            }
            None => frame,
        }
    }

    /// A run made from one that was sent: in another member's name, or in a stranger's.
    fn forged(&mut self, trick: Trick) -> Option<Vec<u8>> {
        let start = self.stream.index(self.recorded.len());
        let recorded = self.recorded.iter().skip(start).chain(self.recorded.iter().take(start));
        let last = |message: Message<'_>| match message {
            Message::Run { lane, author, entries, .. } => {
                Some((lane, author, entries.last()?.to_vec()))
            }
            _ => None,
        };
        let (lane, author, bytes) = recorded.into_iter().find_map(|frame| whole(frame, last))?;
        let entry = Entry::read(&bytes).ok()?;
        let mut header = entry.header.clone();
        let (author, key) = match trick {
            Trick::Stranger => {
                header.seq = 1;
                header.prev = EntryHash::NONE;
                let device = self.stranger.device();
                (Author { device, incarnation: Incarnation::first(1) }, &self.stranger)
            }
            _ => {
                header.seq += 1;
                header.prev = entry.hash;
                (author, &self.key)
            }
        };
        // What it signs in its own name would be a fork, which is another trick.
        if trick == Trick::Forge && author.device == self.key.device() {
            return None;
        }
        header.author = author;
        let header = header.to_bytes();
        let bytes = write_entry(&sign_header(&header, key), &header, &entry.bodies);
        let run = Message::Run { lane, author, whole: true, entries: vec![&bytes] };
        frames(run.encode()).pop()
    }

    /// The run in a frame with another last body, under the header that was signed.
    fn other_body(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let run = |message: Message<'_>| match message {
            Message::Run { lane, author, whole, entries } => Some((
                (lane, author, whole),
                entries.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>(),
            )),
            _ => None,
        };
        let ((lane, author, whole), mut entries) = whole(frame, run)?;
        let last = entries.pop()?;
        let entry = Entry::read(&last).ok()?;
        let mut bodies = entry.bodies.clone();
        let at = bodies.iter().rposition(|body| matches!(body, Body::Here(_)))?;
        let Body::Here(signed) = bodies[at] else { return None };
        let mut other = signed.to_vec();
        // Its end is within the change.
        *other.last_mut()? ^= 1 << self.stream.below(8);
        bodies[at] = Body::Here(&other);
        entries.push(write_entry(&entry.signature, entry.header_bytes, &bodies));
        let entries = entries.iter().map(Vec::as_slice).collect();
        frames(Message::Run { lane, author, whole, entries }.encode()).pop()
    }

    fn false_receipt(&mut self, to: Target) -> Option<Vec<u8>> {
        let lane = self.stream.pick(&[LaneId::Normal, LaneId::Archive, LaneId::Tombstone]);
        let device = if self.stream.percent(50) { to.device } else { self.stranger.device() };
        let of_device = |message: Message<'_>| match message {
            Message::Run { author, .. } if author.device == device => Some(author.incarnation),
            _ => None,
        };
        let incarnation = self.recorded.iter().find_map(|frame| whole(frame, of_device));
        let incarnation = incarnation.unwrap_or(Incarnation::first(1));
        let tip = Tip { seq: self.stream.between(1, 1_000), hash: EntryHash(self.stream.bytes()) };
        let held = Frontier([(Author { device, incarnation }, tip)].into());
        let part = self.stream.percent(50);
        let said = LaneReceipt { lane: lane.code(), held, part, ..LaneReceipt::default() };
        let at = WallMillis(self.stream.below(1 << 50));
        let reset = self.stream.percent(20);
        let receipt = Receipt::new(self.mesh, at, vec![said], reset, &self.key);
        frames(Message::Receipt(receipt).encode()).pop()
    }
}

/// Whether a frame is a whole run.
fn is_run(frame: &[u8]) -> bool {
    whole(frame, |message| Some(matches!(message, Message::Run { .. }))).unwrap_or(false)
}

/// What is wanted of the message in a frame, if it is a whole one.
fn whole<T>(frame: &[u8], wanted: impl FnOnce(Message<'_>) -> Option<T>) -> Option<T> {
    let message = Assembler::default().push(frame).ok()??;
    wanted(Message::decode(&message).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trick_has_a_name_of_its_own_and_a_reason() {
        let names: std::collections::BTreeSet<String> =
            Trick::ALL.iter().map(|trick| trick.name()).collect();
        assert_eq!(names.len(), Trick::ALL.len());
        assert!(names.contains("false-receipt"));
        assert!(Trick::ALL.iter().all(|trick| trick.why().len() > 20));
    }
}
