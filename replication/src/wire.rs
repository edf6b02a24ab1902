//! What two nodes say to each other, as bytes.
//!
//! A *message* is one [`Message`]. A *frame* is what the link carries: a first byte that says whether
//! it is a whole message (0), a part with more to come (1), the last part (2) or a whole run
//! compressed (3), then at most [`FRAME_BYTES_MAX`] bytes. The link is reliable, ordered, encrypted, and authenticated as one
//! device at each end. `docs/WIRE.md` describes the bytes.

mod packed;

use serde::{Deserialize, Serialize};
use srcos_lanes::frontier::Frontier;
use srcos_lanes::ids::{Author, DeviceId, Incarnation, MeshId, WallMillis};
use srcos_lanes::journal::ENTRY_BYTES_MAX;
use srcos_lanes::lane::LaneId;
use srcos_lanes::signature::{Signature, Signer, verify};

use crate::roster::{RecordBytes, RecordId};

/// The protocol version spoken.
pub const PROTOCOL_VERSION: u16 = 3;
/// Most payload of one frame, in bytes, so that no reader reserves more for one.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of one message: the largest entry with some room.
pub const MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + 64 * 1024;
/// Bytes after which a run of entries ends, so that an urgent one need not wait long.
pub const RUN_BYTES_TARGET: usize = 256 * 1024;
/// Most entries in one run: their signature is checked once, their headers each.
pub const RUN_ENTRIES_MAX: usize = 4_096;
/// Most bytes of roster records in one message.
pub const ROSTER_BYTES_TARGET: usize = 256 * 1024;
/// Most bytes of roster records with which a device shows that it is a member: with its hello they must
/// fit into what is read of a link before its device is known.
pub const PROOF_BYTES_MAX: usize = 192 * 1024;
/// Longest text that comes with an abort, in bytes.
pub const ABORT_DETAIL_BYTES_MAX: usize = 256;
/// Most roster heads in a hello: more means many devices wrote records apart.
pub const ROSTER_HEADS_MAX: usize = 64;

const WHOLE: u8 = 0;
const PART: u8 = 1;
const LAST: u8 = 2;
const PACKED: u8 = 3;

/// What a node says first to a member, and what it answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub version: u16,
    /// Its mesh.
    pub mesh: MeshId,
    /// Codes of the lanes that its policy shares with this peer.
    pub lanes: Vec<LaneId>,
    /// The heads of its roster.
    pub roster: Vec<RecordId>,
    /// The digest of what is held and applied of these lanes; see [`lanes_digest`].
    pub digest: [u8; 32],
    /// Bytes of runs that may be sent before more credit is given.
    pub credit: u32,
}

/// What a device holds durably and has applied, in its own words and signed by it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// When it was signed, by the device's clock. It may be sent to others later, while it is true.
    pub at: WallMillis,
    /// One for each lane that changed since the last receipt to this peer.
    pub lanes: Vec<LaneReceipt>,
    /// Send again from here: what was sent beyond was not kept.
    pub reset: bool,
    /// Ed25519, over the mesh and all that is above; see `docs/WIRE.md`.
    pub signature: Vec<u8>,
}

/// What a device holds of one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LaneReceipt {
    /// The lane's code, 0 only in a default value.
    pub lane: u8,
    /// How far each journal is held that is named.
    pub held: Frontier,
    /// Journals that are not applied as far as they are held, and how far they are: all of them.
    pub unapplied: Vec<(Author, u64)>,
    /// Only journals are named that changed since this conversation was last told of the lane. Else all
    /// that are held, or as many as a receipt may name.
    pub part: bool,
}

impl Receipt {
    /// A receipt signed by its device.
    pub fn new(
        mesh: MeshId,
        at: WallMillis,
        lanes: Vec<LaneReceipt>,
        reset: bool,
        signer: &dyn Signer,
    ) -> Self {
        let mut receipt = Self { at, lanes, reset, signature: Vec::new() };
        receipt.signature = signer.sign(&receipt.signing_bytes(mesh)).0.to_vec();
        receipt
    }

    /// Whether `device` signed it in this mesh.
    pub fn verify(&self, mesh: MeshId, device: DeviceId) -> bool {
        let Ok(signature) = self.signature.as_slice().try_into() else { return false };
        verify(device, &self.signing_bytes(mesh), &Signature(signature))
    }

    fn signing_bytes(&self, mesh: MeshId) -> Vec<u8> {
        let mut bytes = b"srcos receipt 2\0".to_vec();
        bytes.extend_from_slice(&mesh.0);
        let unsigned = (self.at, &self.lanes, self.reset);
        // Encoding plain data into a Vec has no way to fail.
        bytes.extend(postcard::to_stdvec(&unsigned).expect("a receipt encodes"));
        bytes
    }
}

impl LaneReceipt {
    /// A digest of it: equal exactly when the same entries are held, and the same of them applied.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"srcos lane receipt 1\0");
        hasher.update(&[self.lane]);
        hasher.update(&self.held.digest());
        for (author, applied) in &self.unapplied {
            hasher.update(&author.device.0);
            hasher.update(&author.incarnation.0.to_be_bytes());
            hasher.update(&applied.to_be_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// A digest over several lanes: equal on two devices exactly when both hold the same entries of all
/// of them and have applied the same.
///
/// It is taken over the digests of their receipts, in the order of the lanes.
pub fn lanes_digest(lanes: impl IntoIterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"srcos lanes digest 1\0");
    for lane in lanes {
        hasher.update(&lane);
    }
    *hasher.finalize().as_bytes()
}

/// Why a node ends a connection. The numbers are part of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub enum AbortReason {
    /// A message could not be read, or came where it does not belong.
    Protocol = 1,
    /// The protocol version is not spoken here.
    Version = 2,
    /// The peer is not a member of the mesh.
    NotAMember = 3,
    /// The peer was a member and is revoked.
    Revoked = 4,
    /// The peer belongs to another mesh.
    OtherMesh = 5,
    /// The peer did not say hello, or prove its membership, in time.
    HandshakeTimeout = 6,
    /// The peer sent entries that are not valid.
    InvalidEntries = 7,
    /// The peer sent more than it had credit for.
    CreditExceeded = 8,
    /// The node stops.
    ShuttingDown = 9,
    /// The node's store failed.
    StoreFailed = 10,
    /// Another connection to the same device takes over.
    Replaced = 11,
    /// What may go to the peer has changed; a new connection is made under the new policy.
    PolicyChanged = 12,
    /// A reason that this version does not know.
    Unknown = 0,
}

impl AbortReason {
    const ALL: [Self; 12] = [
        Self::Protocol,
        Self::Version,
        Self::NotAMember,
        Self::Revoked,
        Self::OtherMesh,
        Self::HandshakeTimeout,
        Self::InvalidEntries,
        Self::CreditExceeded,
        Self::ShuttingDown,
        Self::StoreFailed,
        Self::Replaced,
        Self::PolicyChanged,
    ];

    /// The reason of a number.
    pub fn from_number(number: u16) -> Self {
        Self::ALL.into_iter().find(|reason| *reason as u16 == number).unwrap_or(Self::Unknown)
    }

    /// The stable code by which people and programs know the reason.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Protocol => "protocol_violation",
            Self::Version => "protocol_version_unknown",
            Self::NotAMember => "not_a_member",
            Self::Revoked => "revoked",
            Self::OtherMesh => "other_mesh",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::InvalidEntries => "invalid_entries",
            Self::CreditExceeded => "credit_exceeded",
            Self::ShuttingDown => "shutting_down",
            Self::StoreFailed => "store_failed",
            Self::Replaced => "replaced_by_another_connection",
            Self::PolicyChanged => "policy_changed",
            Self::Unknown => "unknown_reason",
        }
    }
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Opens the conversation among members.
    Hello(Hello),
    /// "I do not know you as a member": the other side may answer with its roster. Tells nothing.
    ProofNeeded,
    /// Roster records, parents first.
    Roster(Vec<RecordBytes>),
    /// What the sender holds.
    Receipt(Receipt),
    /// Consecutive entries of one journal.
    Run {
        /// The lane.
        lane: LaneId,
        /// Whose journal.
        author: Author,
        /// With what the sender said of the lane before, and the runs since, this is all that it holds
        /// and has applied.
        whole: bool,
        /// Entry bytes, at least one.
        entries: Vec<&'a [u8]>,
    },
    /// So many more bytes of runs may be sent.
    Credit(u32),
    /// The digest of the shared lanes' frontiers; the answer to one that differs is a receipt.
    Digest([u8; 32]),
    /// The sender ends the connection.
    Abort {
        /// Why.
        reason: AbortReason,
        /// More about it, for people.
        detail: String,
    },
}

/// Bytes that are no message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer sent bytes that are no message: {0}")]
pub struct WireError(pub &'static str);

mod tag {
    pub(super) const HELLO: u8 = 1;
    pub(super) const PROOF_NEEDED: u8 = 2;
    pub(super) const ROSTER: u8 = 3;
    pub(super) const RECEIPT: u8 = 4;
    pub(super) const RUN: u8 = 5;
    pub(super) const CREDIT: u8 = 6;
    pub(super) const DIGEST: u8 = 7;
    pub(super) const ABORT: u8 = 8;
}

impl<'a> Message<'a> {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => tagged(tag::HELLO, hello),
            Self::ProofNeeded => vec![tag::PROOF_NEEDED],
            Self::Roster(records) => tagged(tag::ROSTER, records),
            Self::Receipt(receipt) => tagged(tag::RECEIPT, receipt),
            Self::Run { lane, author, whole, entries } => {
                let len: usize = entries.iter().map(|entry| entry.len() + 4).sum();
                let mut bytes = Vec::with_capacity(43 + len);
                bytes.extend_from_slice(&[tag::RUN, lane.code()]);
                bytes.extend_from_slice(&author.device.0);
                bytes.extend_from_slice(&author.incarnation.0.to_be_bytes());
                bytes.push(u8::from(*whole));
                for entry in entries {
                    // Entries are bounded by ENTRY_BYTES_MAX, far below 4 GiB.
                    bytes.extend_from_slice(&(entry.len() as u32).to_be_bytes());
                    bytes.extend_from_slice(entry);
                }
                bytes
            }
            Self::Credit(credit) => tagged(tag::CREDIT, credit),
            Self::Digest(digest) => tagged(tag::DIGEST, digest),
            Self::Abort { reason, detail } => {
                let mut end = detail.len().min(ABORT_DETAIL_BYTES_MAX);
                while !detail.is_char_boundary(end) {
                    end -= 1;
                }
                tagged(tag::ABORT, &(*reason as u16, &detail[..end]))
            }
        }
    }

    /// Reads a message. What is inside is checked for form only.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (tag, rest) = bytes.split_first().ok_or(WireError("it is empty"))?;
        match *tag {
            tag::HELLO => {
                let hello: Hello = untagged(rest)?;
                if hello.roster.len() > ROSTER_HEADS_MAX || hello.lanes.len() > LaneId::ALL.len() {
                    return Err(WireError("a hello lists too much"));
                }
                Ok(Self::Hello(hello))
            }
            tag::PROOF_NEEDED if rest.is_empty() => Ok(Self::ProofNeeded),
            tag::ROSTER => Ok(Self::Roster(untagged(rest)?)),
            tag::RECEIPT => {
                let receipt: Receipt = untagged(rest)?;
                if receipt.lanes.len() > LaneId::ALL.len() {
                    return Err(WireError("a receipt names a lane twice"));
                }
                Ok(Self::Receipt(receipt))
            }
            tag::RUN => decode_run(rest),
            tag::CREDIT => Ok(Self::Credit(untagged(rest)?)),
            tag::DIGEST => Ok(Self::Digest(untagged(rest)?)),
            tag::ABORT => {
                let (number, detail): (u16, String) = untagged(rest)?;
                if detail.len() > ABORT_DETAIL_BYTES_MAX {
                    return Err(WireError("an abort says too much"));
                }
                Ok(Self::Abort { reason: AbortReason::from_number(number), detail })
            }
            _ => Err(WireError("its kind is not known")),
        }
    }
}

fn decode_run(bytes: &[u8]) -> Result<Message<'_>, WireError> {
    const CUT: WireError = WireError("a run is cut short");
    let (lane, rest) = bytes.split_first().ok_or(CUT)?;
    let lane = LaneId::from_code(*lane).ok_or(WireError("a run's lane is not known"))?;
    let (device, rest) = rest.split_first_chunk::<32>().ok_or(CUT)?;
    let (incarnation, rest) = rest.split_first_chunk::<8>().ok_or(CUT)?;
    let (whole, mut rest) = match rest.split_first().ok_or(CUT)? {
        (0, rest) => (false, rest),
        (1, rest) => (true, rest),
        _ => return Err(WireError("a run says neither that it is whole nor that it is not")),
    };
    let incarnation = Incarnation(u64::from_be_bytes(*incarnation));
    let author = Author { device: DeviceId(*device), incarnation };
    let mut entries = Vec::new();
    while !rest.is_empty() {
        if entries.len() >= RUN_ENTRIES_MAX {
            return Err(WireError("a run has too many entries"));
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        let (entry, after) =
            after.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or(CUT)?;
        entries.push(entry);
        rest = after;
    }
    if entries.is_empty() {
        return Err(WireError("a run has no entries"));
    }
    Ok(Message::Run { lane, author, whole, entries })
}

fn tagged<T: Serialize>(tag: u8, value: &T) -> Vec<u8> {
    // Encoding plain data into a Vec has no way to fail.
    postcard::to_extend(value, vec![tag]).expect("a message encodes")
}

fn untagged<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(WireError("bytes follow its end")),
        Err(_) => Err(WireError("it cannot be decoded")),
    }
}

/// Whether a frame is a part of a message with more to come.
pub fn has_more(frame: &[u8]) -> bool {
    frame.first() == Some(&PART)
}

/// Whether a frame is a compressed run.
pub(crate) fn is_packed(frame: &[u8]) -> bool {
    frame.first() == Some(&PACKED)
}

/// Bytes that a frame takes of whoever reads it: those of its message, where it is compressed.
pub fn bytes_when_read(frame: &[u8]) -> usize {
    let claimed = match frame.split_first() {
        Some((&PACKED, payload)) => packed::claimed(payload).map(|(len, _)| len + 1),
        _ => None,
    };
    claimed.unwrap_or(0).min(MESSAGE_BYTES_MAX).max(frame.len())
}

/// Cuts a message into frames, or compresses it into one.
pub fn frames(message: Vec<u8>) -> Vec<Vec<u8>> {
    if let Some(frame) = packed::pack(&message) {
        return vec![frame];
    }
    if message.len() <= FRAME_BYTES_MAX {
        let mut frame = Vec::with_capacity(message.len() + 1);
        frame.push(WHOLE);
        frame.extend_from_slice(&message);
        return vec![frame];
    }
    let parts = message.chunks(FRAME_BYTES_MAX);
    let last = parts.len() - 1;
    parts
        .enumerate()
        .map(|(index, part)| {
            let mut frame = Vec::with_capacity(part.len() + 1);
            frame.push(if index == last { LAST } else { PART });
            frame.extend_from_slice(part);
            frame
        })
        .collect()
}

/// Puts the frames of one link together again.
#[derive(Debug, Default)]
pub struct Assembler {
    partial: Vec<u8>,
}

impl Assembler {
    /// Takes a frame; returns the message that it completes.
    pub fn push(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        let (kind, payload) = frame.split_first().ok_or(WireError("a frame is empty"))?;
        if payload.len() > FRAME_BYTES_MAX {
            return Err(WireError("a frame is too large"));
        }
        match *kind {
            WHOLE if self.partial.is_empty() => Ok(Some(payload.to_vec())),
            PACKED if self.partial.is_empty() => packed::unpack(payload).map(Some),
            PART | LAST if self.partial.len() + payload.len() <= MESSAGE_BYTES_MAX => {
                self.partial.extend_from_slice(payload);
                Ok((*kind == LAST).then(|| std::mem::take(&mut self.partial)))
            }
            PART | LAST => Err(WireError("a message is too large")),
            _ => Err(WireError("a frame does not belong here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;

    fn messages() -> Vec<Vec<u8>> {
        let key = SigningKey::from_bytes(&[1; 32]);
        let author = Author { device: key.device(), incarnation: Incarnation::first(4) };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            mesh: MeshId([1; 32]),
            lanes: vec![LaneId::Normal, LaneId::Archive],
            roster: vec![RecordId([2; 32])],
            digest: [3; 32],
            credit: 9,
        };
        let lanes = vec![LaneReceipt {
            lane: 1,
            unapplied: vec![(author, 3)],
            part: true,
            ..Default::default()
        }];
        let receipt = Receipt::new(MeshId([1; 32]), WallMillis(7), lanes, true, &key);
        assert!(receipt.verify(MeshId([1; 32]), key.device()));
        assert!(!receipt.verify(MeshId([2; 32]), key.device()));
        [
            Message::Hello(hello),
            Message::ProofNeeded,
            Message::Roster(vec![RecordBytes(vec![1, 2, 3])]),
            Message::Receipt(receipt),
            Message::Run {
                lane: LaneId::Normal,
                author,
                whole: true,
                entries: vec![b"one", b"two"],
            },
            Message::Credit(1_000_000),
            Message::Digest([8; 32]),
            Message::Abort { reason: AbortReason::Revoked, detail: "gone".into() },
        ]
        .into_iter()
        .map(|message| {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
            bytes
        })
        .collect()
    }

    #[test]
    fn messages_read_back_what_was_written() {
        assert_eq!(messages().len(), 8);
    }

    #[test]
    fn reasons_keep_their_numbers() {
        for reason in AbortReason::ALL {
            assert_eq!(AbortReason::from_number(reason as u16), reason);
        }
        assert_eq!(AbortReason::from_number(999), AbortReason::Unknown);
    }

    #[test]
    fn large_message_is_cut_and_put_together() {
        let message: Vec<u8> = (0..3 * FRAME_BYTES_MAX + 5).map(|n| n as u8).collect();
        let mut assembler = Assembler::default();
        let frames = frames(message.clone());
        assert_eq!(frames.len(), 4);
        let mut whole = None;
        for frame in frames {
            assert!(whole.is_none());
            whole = assembler.push(&frame).unwrap();
        }
        assert_eq!(whole, Some(message));
    }

    #[test]
    fn endless_message_is_refused_at_the_limit() {
        let mut assembler = Assembler::default();
        let mut part = vec![0; FRAME_BYTES_MAX + 1];
        part[0] = PART;
        let refused = (0..100).find_map(|_| assembler.push(&part).err());
        assert_eq!(refused, Some(WireError("a message is too large")));
    }

    fn run(lane: LaneId, entry: &[u8]) -> Vec<u8> {
        let device = SigningKey::from_bytes(&[1; 32]).device();
        let author = Author { device, incarnation: Incarnation::first(4) };
        Message::Run { lane, author, whole: false, entries: vec![entry] }.encode()
    }

    #[test]
    fn run_is_compressed_where_that_is_shorter_and_not_in_the_secure_lane() {
        let alike = b"the same words, ".repeat(200);
        let noise: Vec<u8> =
            (0..100u32).flat_map(|n| *blake3::hash(&n.to_be_bytes()).as_bytes()).collect();
        for (lane, entry, packed) in [
            (LaneId::Normal, &alike[..], true),
            (LaneId::Secure, &alike[..], false),
            (LaneId::Normal, &noise[..], false),
            (LaneId::Normal, &alike[..64], false),
        ] {
            let message = run(lane, entry);
            let frames = frames(message.clone());
            let [frame] = &frames[..] else { panic!("{} frames", frames.len()) };
            assert_eq!(frame[0] == PACKED, packed, "{lane}");
            assert!(frame.len() <= message.len() + 1 && (!packed || frame.len() < 300));
            assert_eq!(bytes_when_read(frame), if packed { message.len() } else { frame.len() });
            assert_eq!(Assembler::default().push(frame), Ok(Some(message)));
        }
    }

    #[test]
    fn receipt_that_names_more_lanes_than_there_are_is_refused() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let said = LaneReceipt { lane: 1, ..LaneReceipt::default() };
        let receipt = |lanes: usize| {
            let lanes = vec![said.clone(); lanes];
            Message::Receipt(Receipt::new(MeshId([1; 32]), WallMillis(7), lanes, false, &key))
                .encode()
        };
        assert!(Message::decode(&receipt(LaneId::ALL.len())).is_ok());
        assert!(Message::decode(&receipt(LaneId::ALL.len() + 1)).is_err());
    }

    #[test]
    fn largest_run_that_compresses_well_goes_in_one_frame_and_other_ones_in_parts() {
        let entry = vec![7; ENTRY_BYTES_MAX];
        assert_eq!(frames(run(LaneId::Normal, &entry)).len(), 1);
        assert_eq!(frames(run(LaneId::Secure, &entry)).len(), 7);
    }

    #[test]
    fn compressed_frame_that_lies_about_its_length_is_refused_before_it_is_read() {
        let good = frames(run(LaneId::Normal, &[7; 100_000])).swap_remove(0);
        let lies = |claimed: u32| {
            let mut frame = good.clone();
            frame[1..5].copy_from_slice(&claimed.to_be_bytes());
            assert!(bytes_when_read(&frame) <= MESSAGE_BYTES_MAX);
            Assembler::default().push(&frame).unwrap_err().0
        };
        let other = "a compressed frame cannot be read";
        for (claimed, why) in [
            (u32::MAX, "a message is too large"),
            (MESSAGE_BYTES_MAX as u32, "a message is too large"),
            (MESSAGE_BYTES_MAX as u32 - 1, "a compressed frame claims more than it can hold"),
            (100_100, "a compressed frame claims another length than it has"),
            (100, other),
            (0, other),
        ] {
            assert_eq!(lies(claimed), why, "{claimed}");
        }
        assert!(Assembler::default().push(&good[..3]).is_err());
        assert!(Assembler::default().push(&good[..good.len() - 1]).is_err());
        // Not in the middle of another message.
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(&[PART, 1]), Ok(None));
        assert!(assembler.push(&good).is_err());
    }

    proptest! {
        #[test]
        fn no_frame_makes_reading_panic(mut frame in proptest::collection::vec(any::<u8>(), 1..300)) {
            frame[0] %= 4;
            let _ = Assembler::default().push(&frame);
            let claims = [&[PACKED, 0, 0, frame[0], 0][..], &frame].concat();
            let _ = Assembler::default().push(&claims);
        }

        #[test]
        fn damaged_compressed_frame_never_panics(at in any::<usize>(), byte in any::<u8>()) {
            let mut frame = frames(run(LaneId::Normal, &b"the same words, ".repeat(200))).swap_remove(0);
            let at = at % frame.len();
            frame[at] = byte;
            let _ = Assembler::default().push(&frame);
            let _ = Assembler::default().push(&frame[..at]);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn damaged_message_never_panics(which in 0usize..8, at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = messages().swap_remove(which);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&bytes[..at]);
        }
    }
}
