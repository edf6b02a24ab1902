//! How much an object was given, and how much it may be.
//!
//! What one change may hold is in `chunk.rs`. An object grows by all changes that anybody made, also
//! apart, and each of them may be right by itself. So there is a bound on the sum. Whether it is
//! exceeded follows from the changes, and all devices that have them say the same; which of them
//! are beyond it depends on the order, so that nothing of such an object is shown.

use super::chunk::{Change, OPS_IN_LIFE_MAX};
use super::error::DocumentError;
use crate::ids::ChangeHash;

/// Operations of all changes of an object together, beyond which it shows nothing: memory and time
/// of whoever holds it. A writer stops at half of it, [`OPS_IN_LIFE_MAX`], so that it takes as much
/// again, written apart, before what honest devices wrote is not shown.
pub const OPS_IN_OBJECT_MAX: u64 = 2 * OPS_IN_LIFE_MAX;

/// Changes of an object whose hash begins with a zero byte, beyond which it shows nothing. One of
/// 256 does by chance. Automerge lists for each of them all those before it, so who makes hashes
/// on purpose makes a document whose memory grows with the square of their number: 8 MB for these.
/// A writer stops at half of it, after some 262,000 changes.
const RARE_MAX: u64 = 2_048;

/// How much an object was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Operations of all changes.
    ops: u64,
    /// Changes whose hash begins with a zero byte.
    rare: u64,
}

impl Size {
    /// With a change more.
    pub(super) fn with(self, hash: ChangeHash, change: &Change<'_>) -> Self {
        self.with_ops(hash, change.ops.len() as u64)
    }

    /// With a change of so many operations more.
    pub(super) fn with_ops(self, hash: ChangeHash, ops: u64) -> Self {
        Self { ops: self.ops + ops, rare: self.rare + u64::from(hash.0[0] == 0) }
    }

    /// Whether an object can hold so much.
    pub(super) fn check(self) -> Result<(), DocumentError> {
        match self.ops > OPS_IN_OBJECT_MAX || self.rare > RARE_MAX {
            true => Err(DocumentError::Full),
            false => Ok(()),
        }
    }

    /// Whether a writer may make it so much.
    pub(super) fn check_written(self) -> Result<(), DocumentError> {
        if self.ops > OPS_IN_LIFE_MAX {
            return Err(DocumentError::Spent { what: "operations", limit: OPS_IN_LIFE_MAX });
        }
        if self.rare > RARE_MAX / 2 {
            let limit = RARE_MAX / 2 * 256;
            return Err(DocumentError::Spent { what: "changes, or nearly so many,", limit });
        }
        Ok(())
    }
}
