//! Names of things: devices, meshes, lanes' journals, objects, and the two clocks.
//!
//! Every name is a newtype over bytes or a number, ordered by those bytes, so that collections
//! iterate alike on every device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {expected}, not {found:?}")]
pub struct ParseIdError {
    /// What was to be named.
    pub what: &'static str,
    /// The form that is accepted.
    pub expected: &'static str,
    /// The first characters of what was found.
    pub found: String,
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The first eight hexadecimal digits, for people; not unique.
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
                bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| ParseIdError {
                    what: $what,
                    expected: "64 hexadecimal digits",
                    found: text.chars().take(80).collect(),
                })
            }
        }
    };
}

bytes32! {
    /// A device: its ed25519 public key, which is also its libp2p identity and signs its entries.
    DeviceId, "a device"
}
bytes32! {
    /// A mesh: the BLAKE3 hash of the roster record with which it was founded.
    MeshId, "a mesh"
}
bytes32! {
    /// The BLAKE3 hash of an entry's header bytes.
    EntryHash, "an entry hash"
}
bytes32! {
    /// An Automerge change hash (SHA-256 of the change's content).
    ChangeHash, "a change hash"
}
bytes32! {
    /// One life of one object in one lane, as headers name it: see [`ObjectKey::new`].
    ObjectKey, "an object key"
}

impl EntryHash {
    /// What the first entry of a journal names as its predecessor.
    pub const NONE: Self = Self([0; 32]);
}

impl ObjectKey {
    /// The BLAKE3 hash of lane, life and object id.
    pub fn new(lane: crate::lane::LaneId, id: &str, life: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"srcos object key 1\0");
        hasher.update(&[lane.code()]);
        hasher.update(&life.to_be_bytes());
        hasher.update(id.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

/// The number of one unbroken run of a device's store; a restored or cloned store starts another.
///
/// The upper 32 bits count up, the lower 32 are random, so that two clones never choose alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

impl Incarnation {
    /// The first incarnation of a new store.
    pub fn first(random: u32) -> Self {
        Self(1 << 32 | u64::from(random))
    }

    /// The incarnation after this one.
    pub fn next(self, random: u32) -> Self {
        Self(((self.0 >> 32) + 1) << 32 | u64::from(random))
    }
}

/// Who writes a journal: a device in one of its incarnations. In each lane it has one journal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Author {
    /// The device that signs.
    pub device: DeviceId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

impl Author {
    /// The Automerge actor id under which this author makes changes: 16 bytes of a hash.
    ///
    /// A store restored under its old actor id makes Automerge refuse every later exchange, so the
    /// incarnation is part of it.
    pub fn actor(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"srcos actor 1\0");
        hasher.update(&self.device.0);
        hasher.update(&self.incarnation.0.to_be_bytes());
        let mut actor = [0; 16];
        actor.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        actor
    }
}

/// Wall clock time in milliseconds since 1970-01-01T00:00:00Z. For records, never for durations.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct WallMillis(pub u64);

/// Monotonic time in milliseconds since an arbitrary start. For durations, never for records.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug, Default,
)]
pub struct MonoMillis(pub u64);

impl MonoMillis {
    /// This time and `ms` milliseconds.
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Both clocks, read once for a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For timers.
    pub mono: MonoMillis,
    /// For records.
    pub wall: WallMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print() {
        let device = DeviceId([0xa7; 32]);
        assert_eq!(device.to_string().parse::<DeviceId>().unwrap(), device);
        let error = "xyz".parse::<DeviceId>().unwrap_err();
        assert_eq!(error.to_string(), "a device must be 64 hexadecimal digits, not \"xyz\"");
    }

    #[test]
    fn incarnations_count_up_whatever_the_random_part() {
        let first = Incarnation::first(u32::MAX);
        assert!(first.next(0) > first);
    }

    #[test]
    fn key_differs_by_lane_life_and_id() {
        use crate::lane::LaneId;
        let key = ObjectKey::new(LaneId::Normal, "a", 1);
        assert_ne!(key, ObjectKey::new(LaneId::Memory, "a", 1));
        assert_ne!(key, ObjectKey::new(LaneId::Normal, "a", 2));
        assert_ne!(key, ObjectKey::new(LaneId::Normal, "b", 1));
    }
}
