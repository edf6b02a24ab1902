//! Entries: what one commit adds to a journal, their bytes, their hashes, and what makes one valid.
//!
//! A journal is the chain of entries that one [`Author`] wrote in one lane. Each entry has a signed
//! header and, for every item that the header lists, a body. The header names each change by its
//! hash, so a body may be absent for a stated reason and the chain still verifies.
//!
//! Entry bytes, in a store and on the wire alike (integers big-endian):
//!
//! | bytes | what |
//! |---|---|
//! | 64 | ed25519 signature over the BLAKE3 hash of the header |
//! | 4 | length of the header |
//! | n | header: [`Header`], encoded with postcard |
//! | per item: 1 | state of the body: 0 here, 1 withheld, 2 purged, 3 missing |
//! | per item: 4 | length of the body, 0 when it is not here |
//! | per item: n | body: 4 bytes life, 2 bytes length of the id, the id, an Automerge change |

use serde::{Deserialize, Serialize};

use crate::canonical::is_canonical;
use crate::ids::{Author, ChangeHash, EntryHash, MeshId, ObjectKey, WallMillis};
use crate::lane::LaneId;
use crate::signature::{Signature, Signer, verify};
use srcos_schemas::objects::CLASS_BYTES_MAX;

/// The version of the header's encoding.
pub const HEADER_VERSION: u8 = 1;
/// Most changes in one entry, so that one entry never blocks a link or a commit for long.
pub const ENTRY_CHANGES_MAX: usize = 1_000;
/// Bytes of bodies after which a batch starts another entry. One change may be larger by itself.
pub const ENTRY_BODIES_BYTES_TARGET: usize = 1024 * 1024;
/// Most bytes of one entry: a body at its limit, flattened, with room for its header.
pub const ENTRY_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Most bytes of one body that this device writes, so that its entry stays below
/// [`ENTRY_BYTES_MAX`] with any header.
pub const BODY_BYTES_MAX: usize = ENTRY_BYTES_MAX - 512 * 1024;
/// Most entries of other journals that one entry may wait for: one for each journal of a large mesh.
pub const ENTRY_AFTER_MAX: usize = 1_024;
/// The last life that an id may have, so that there is always a number for the next check to compare.
pub const LIFE_MAX: u32 = u32::MAX - 1;
/// Longest object id that a person or program may choose, in bytes.
pub const OBJECT_ID_BYTES_MAX: usize = srcos_schemas::objects::ID_BYTES_MAX;
/// Longest object id in an entry of the tombstone lane: the node's own ids carry another id and some
/// words. In all other lanes it is [`OBJECT_ID_BYTES_MAX`].
pub const ENTRY_ID_BYTES_MAX: usize = OBJECT_ID_BYTES_MAX + 64;

/// The signed part of an entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// [`HEADER_VERSION`].
    pub version: u8,
    /// The mesh in which it was written.
    pub mesh: MeshId,
    /// Its lane.
    pub lane: LaneId,
    /// Who wrote it.
    pub author: Author,
    /// Its place in the journal: 1, 2, 3 ...
    pub seq: u64,
    /// The hash of the header before it, [`EntryHash::NONE`] for the first.
    pub prev: EntryHash,
    /// The author's wall clock.
    pub wall: WallMillis,
    /// Entries of other journals of this lane whose changes its own changes build on, and no more.
    pub after: Vec<After>,
    /// The data classes of its items, each once.
    pub classes: Vec<String>,
    /// What it changes.
    pub items: Vec<Item>,
}

/// An entry that must be applied first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct After {
    /// Whose journal.
    pub author: Author,
    /// Which entry of it.
    pub seq: u64,
}

/// One change to one object, as a header names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// Which life of which object.
    pub key: ObjectKey,
    /// The Automerge change hash, which covers the change's whole content.
    pub change: ChangeHash,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Index of the object's data class in [`Header::classes`].
    pub class: u8,
    /// The body may not leave the author's device without a grant.
    pub confined: bool,
}

/// Whether a body is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// Here.
    Here(&'a [u8]),
    /// Policy kept it where it was written.
    Withheld,
    /// Removed after a deletion or an expiry.
    Purged,
    /// Lost; it may be fetched again.
    Missing,
}

impl Body<'_> {
    fn state(&self) -> u8 {
        match self {
            Body::Here(_) => 0,
            Body::Withheld => 1,
            Body::Purged => 2,
            Body::Missing => 3,
        }
    }
}

/// The parts of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyParts<'a> {
    /// Which life of the object.
    pub life: u32,
    /// The object's id.
    pub id: &'a str,
    /// The Automerge change.
    pub change: &'a [u8],
}

impl<'a> BodyParts<'a> {
    /// Splits a body; `None` when it is cut short or its id is not UTF-8.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (life, rest) = body.split_first_chunk::<4>()?;
        let (id_len, rest) = rest.split_first_chunk::<2>()?;
        let (id, change) = rest.split_at_checked(usize::from(u16::from_be_bytes(*id_len)))?;
        let id = std::str::from_utf8(id).ok()?;
        Some(Self { life: u32::from_be_bytes(*life), id, change })
    }

    /// The body's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(6 + self.id.len() + self.change.len());
        body.extend_from_slice(&self.life.to_be_bytes());
        // Ids are at most ENTRY_ID_BYTES_MAX long, which fits 16 bits.
        body.extend_from_slice(&(self.id.len() as u16).to_be_bytes());
        body.extend_from_slice(self.id.as_bytes());
        body.extend_from_slice(self.change);
        body
    }
}

/// Why an entry is not valid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The bytes are no entry.
    #[error("entry cannot be decoded: {0}")]
    Malformed(&'static str),
    /// A later version wrote it.
    #[error("entry has header version {0}, this node reads {HEADER_VERSION}; update this node")]
    Version(u8),
    /// It names more or larger things than allowed.
    #[error("entry exceeds a limit: {what} is {found}, at most {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The signature is not the author's.
    #[error("signature of entry {seq} does not verify with its author's key")]
    Signature {
        /// The entry's place in its journal.
        seq: u64,
    },
    /// It does not continue the entry before it.
    #[error("entry {seq} does not follow the entry before it")]
    Chain {
        /// The entry's place in its journal.
        seq: u64,
    },
    /// A body is not what the header says.
    #[error("body {item} of entry {seq} does not match its header: {what}")]
    Body {
        /// The entry's place in its journal.
        seq: u64,
        /// Index of the item.
        item: usize,
        /// What differs.
        what: &'static str,
    },
}

impl Header {
    /// The canonical bytes, which are hashed and signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Encoding plain data into a Vec has no way to fail.
        postcard::to_stdvec(self).expect("a header encodes")
    }

    /// Reads a header and refuses bytes that it would not itself have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.first().is_some_and(|version| *version != HEADER_VERSION) {
            return Err(EntryError::Version(bytes[0]));
        }
        let header: Self =
            postcard::from_bytes(bytes).map_err(|_| EntryError::Malformed("the header"))?;
        if !is_canonical(&header, bytes) {
            return Err(EntryError::Malformed("the header is not canonical"));
        }
        header.check()?;
        Ok(header)
    }

    /// What any reader checks of it, and so its writer before it signs.
    pub(crate) fn check(&self) -> Result<(), EntryError> {
        let limit = |what, found, max| {
            if found > max { Err(EntryError::TooLarge { what, found, max }) } else { Ok(()) }
        };
        limit("number of items", self.items.len(), ENTRY_CHANGES_MAX)?;
        limit("number of entries waited for", self.after.len(), ENTRY_AFTER_MAX)?;
        limit("number of classes", self.classes.len(), 255)?;
        let longest = self.classes.iter().map(String::len).max().unwrap_or_default();
        limit("length in bytes of a class", longest, CLASS_BYTES_MAX)?;
        if self.items.is_empty() {
            return Err(EntryError::Malformed("it has no items"));
        }
        if self.seq == 0 || (self.seq == 1) != (self.prev == EntryHash::NONE) {
            return Err(EntryError::Malformed("its place in the journal is impossible"));
        }
        if self.items.iter().any(|item| usize::from(item.class) >= self.classes.len()) {
            return Err(EntryError::Malformed("an item's class is not listed"));
        }
        if self.after.iter().any(|after| after.author == self.author) {
            return Err(EntryError::Malformed("it waits for its own journal"));
        }
        Ok(())
    }
}

/// The hash by which an entry is known: BLAKE3 over its header's bytes.
pub fn hash_header(header: &[u8]) -> EntryHash {
    EntryHash(*blake3::hash(header).as_bytes())
}

/// The bytes over which an author signs an entry.
fn signing_bytes(hash: EntryHash) -> [u8; 46] {
    let mut bytes = [0; 46];
    bytes[..14].copy_from_slice(b"srcos entry 1\0");
    bytes[14..].copy_from_slice(&hash.0);
    bytes
}

/// An entry, read from its bytes.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The author's signature; see [`Entry::verify_signature`].
    pub signature: Signature,
    /// The bytes of the header.
    pub header_bytes: &'a [u8],
    /// The header.
    pub header: Header,
    /// The hash of the header.
    pub hash: EntryHash,
    /// One for each item.
    pub bodies: Vec<Body<'a>>,
}

impl<'a> Entry<'a> {
    /// Reads entry bytes. Checks their form, not the signature, the chain or the bodies.
    pub fn read(bytes: &'a [u8]) -> Result<Self, EntryError> {
        const CUT: EntryError = EntryError::Malformed("it is cut short");
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge {
                what: "its length in bytes",
                found: bytes.len(),
                max: ENTRY_BYTES_MAX,
            });
        }
        let (signature, rest) = bytes.split_first_chunk::<64>().ok_or(CUT)?;
        let (header_len, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
        let (header_bytes, mut rest) =
            rest.split_at_checked(u32::from_be_bytes(*header_len) as usize).ok_or(CUT)?;
        let header = Header::from_bytes(header_bytes)?;
        let mut bodies = Vec::with_capacity(header.items.len());
        for item in &header.items {
            let (state, after) = rest.split_first_chunk::<5>().ok_or(CUT)?;
            let len = u32::from_be_bytes([state[1], state[2], state[3], state[4]]);
            let (body, after) = after.split_at_checked(len as usize).ok_or(CUT)?;
            rest = after;
            bodies.push(match state[0] {
                0 if len == item.body_len => Body::Here(body),
                1 if len == 0 => Body::Withheld,
                2 if len == 0 => Body::Purged,
                3 if len == 0 => Body::Missing,
                _ => return Err(EntryError::Malformed("the state or length of a body")),
            });
        }
        if !rest.is_empty() {
            return Err(EntryError::Malformed("bytes follow its end"));
        }
        Ok(Self {
            signature: Signature(*signature),
            header_bytes,
            hash: hash_header(header_bytes),
            header,
            bodies,
        })
    }

    /// The entry's bytes.
    pub fn write(&self) -> Vec<u8> {
        write_entry(&self.signature, self.header_bytes, &self.bodies)
    }

    /// Whether the author signed it.
    pub fn verify_signature(&self) -> bool {
        verify(self.header.author.device, &signing_bytes(self.hash), &self.signature)
    }

    /// Checks that every body that is here is the one that its item names.
    pub fn check_bodies(&self) -> Result<(), EntryError> {
        for (index, (item, body)) in self.header.items.iter().zip(&self.bodies).enumerate() {
            let Body::Here(body) = body else { continue };
            let wrong = |what| EntryError::Body { seq: self.header.seq, item: index, what };
            let parts = BodyParts::read(body).ok_or_else(|| wrong("it cannot be decoded"))?;
            // No one could change or delete what has a longer id than anyone may give.
            let id_bytes_max = match self.header.lane {
                LaneId::Tombstone => ENTRY_ID_BYTES_MAX,
                _ => OBJECT_ID_BYTES_MAX,
            };
            if parts.id.len() > id_bytes_max || check_id_text(parts.id).is_err() {
                return Err(wrong("its object id is not allowed"));
            }
            if parts.life == 0 || parts.life > LIFE_MAX {
                return Err(wrong("its life is not a number that lives have"));
            }
            if ObjectKey::new(self.header.lane, parts.id, parts.life) != item.key {
                return Err(wrong("its object key"));
            }
            if change_hash(parts.change) != Some(item.change) {
                return Err(wrong("its change hash"));
            }
        }
        Ok(())
    }

    /// The body parts of an item, when the body is here. Only after [`Entry::check_bodies`].
    pub fn parts(&self, item: usize) -> Option<BodyParts<'a>> {
        match self.bodies.get(item)? {
            Body::Here(body) => BodyParts::read(body),
            _ => None,
        }
    }
}

/// Writes entry bytes from their parts.
pub fn write_entry(signature: &Signature, header: &[u8], bodies: &[Body<'_>]) -> Vec<u8> {
    let bodies_len: usize = bodies
        .iter()
        .map(|body| 5 + if let Body::Here(bytes) = body { bytes.len() } else { 0 })
        .sum();
    let mut bytes = Vec::with_capacity(68 + header.len() + bodies_len);
    bytes.extend_from_slice(&signature.0);
    // Both lengths are far below 4 GiB: headers and bodies are bounded before they get here.
    bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
    bytes.extend_from_slice(header);
    for body in bodies {
        let here = if let Body::Here(bytes) = body { *bytes } else { &[] };
        bytes.push(body.state());
        bytes.extend_from_slice(&(here.len() as u32).to_be_bytes());
        bytes.extend_from_slice(here);
    }
    bytes
}

/// Signs a header.
pub fn sign_header(header: &[u8], signer: &dyn Signer) -> Signature {
    signer.sign(&signing_bytes(hash_header(header)))
}

/// The Automerge hash of an uncompressed change chunk: SHA-256 over its type, length and content
/// (Automerge binary format specification, "chunk hash"). `None` when the bytes are no such chunk.
pub fn change_hash(change: &[u8]) -> Option<ChangeHash> {
    use sha2::{Digest, Sha256};
    const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
    const CHANGE_CHUNK: u8 = 1;
    let rest = change.strip_prefix(&MAGIC)?;
    let (checksum, chunk) = rest.split_first_chunk::<4>()?;
    if *chunk.first()? != CHANGE_CHUNK {
        return None;
    }
    let hash: [u8; 32] = Sha256::digest(chunk).into();
    (hash[..4] == *checksum).then_some(ChangeHash(hash))
}

/// Why an object id is not allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdError {
    /// It has no characters.
    #[error("object id is empty; give it 1 to {OBJECT_ID_BYTES_MAX} bytes")]
    Empty,
    /// It is too long.
    #[error("object id has {0} bytes, at most {OBJECT_ID_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// It contains U+0000, which ends ids in the store.
    #[error("object id contains the character U+0000, which is not allowed")]
    Nul,
}

fn check_id_text(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.contains('\0') { Err(IdError::Nul) } else { Ok(()) }
}

/// Whether a person or program may give an object this id.
pub fn check_id(id: &str) -> Result<(), IdError> {
    check_id_text(id)?;
    if id.len() > OBJECT_ID_BYTES_MAX { Err(IdError::TooLong(id.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{DeviceId, Incarnation};

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn header() -> Header {
        Header {
            version: HEADER_VERSION,
            mesh: MeshId([1; 32]),
            lane: LaneId::Normal,
            author: Author { device: key().device(), incarnation: Incarnation::first(9) },
            seq: 2,
            prev: EntryHash([3; 32]),
            wall: WallMillis(1_700_000_000_000),
            after: vec![After {
                author: Author { device: DeviceId([5; 32]), incarnation: Incarnation::first(1) },
                seq: 7,
            }],
            classes: vec!["internal".into()],
            items: vec![Item {
                key: ObjectKey::new(LaneId::Normal, "id", 1),
                change: ChangeHash([4; 32]),
                body_len: 11,
                class: 0,
                confined: false,
            }],
        }
    }

    fn entry_bytes() -> Vec<u8> {
        let header = header().to_bytes();
        let body = BodyParts { life: 1, id: "id", change: b"abc" }.write();
        write_entry(&sign_header(&header, &key()), &header, &[Body::Here(&body)])
    }

    #[test]
    fn entry_reads_back_what_was_written() {
        let bytes = entry_bytes();
        let entry = Entry::read(&bytes).unwrap();
        assert!(entry.verify_signature());
        assert_eq!(entry.header, header());
        assert_eq!(entry.write(), bytes);
        assert_eq!(entry.parts(0).unwrap().id, "id");
    }

    #[test]
    fn absent_body_leaves_hash_and_signature_valid() {
        let bytes = entry_bytes();
        let mut entry = Entry::read(&bytes).unwrap();
        entry.bodies[0] = Body::Withheld;
        let without = entry.write();
        let read = Entry::read(&without).unwrap();
        assert_eq!(read.hash, entry.hash);
        assert!(read.verify_signature());
        assert_eq!(read.bodies, [Body::Withheld]);
    }

    #[test]
    fn body_that_is_not_the_named_one_is_refused() {
        let bytes = entry_bytes();
        let error = Entry::read(&bytes).unwrap().check_bodies().unwrap_err();
        assert!(matches!(error, EntryError::Body { what: "its change hash", .. }), "{error}");
    }

    #[test]
    fn the_name_of_a_class_is_bounded() {
        let mut header = header();
        header.classes = vec!["c".repeat(CLASS_BYTES_MAX)];
        header.check().unwrap();
        header.classes[0].push('c');
        let refused = Header::from_bytes(&header.to_bytes()).unwrap_err();
        assert!(matches!(refused, EntryError::TooLarge { .. }), "{refused}");
    }

    #[test]
    fn ids_are_bounded() {
        assert_eq!(check_id(""), Err(IdError::Empty));
        assert_eq!(check_id(&"x".repeat(513)), Err(IdError::TooLong(513)));
        assert_eq!(check_id("a\0b"), Err(IdError::Nul));
        assert_eq!(check_id(&"x".repeat(512)), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Entry::read(&bytes);
        }

        #[test]
        fn flipped_bit_never_passes_every_check(at in 0usize..1_000, bit in 0u8..8) {
            let mut bytes = entry_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let whole = Entry::read(&bytes)
                .is_ok_and(|entry| entry.verify_signature() && entry.check_bodies().is_ok());
            prop_assert!(!whole);
        }

        #[test]
        fn cut_entry_is_refused(len in 0usize..1_000) {
            let bytes = entry_bytes();
            prop_assert!(Entry::read(&bytes[..len % bytes.len()]).is_err());
        }
    }
}
