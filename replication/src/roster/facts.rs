//! What a roster answers.

use srcos_lanes::ids::{DeviceId, WallMillis};

use super::record::RecordId;

/// What became of a record that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It is in the set now, and so are those that waited for it: all of them, parents first.
    New(Vec<RecordId>),
    /// It was in the set, or waits already.
    Known,
    /// It waits for these parents.
    Orphan(Vec<RecordId>),
}

/// A member of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// When it was admitted, by the clock of the one who admitted it.
    pub admitted_at: WallMillis,
    /// Who admitted it; the founder admitted itself.
    pub by: DeviceId,
    /// The record that admits it.
    pub admission: RecordId,
    /// Steps of admission from the founder.
    pub depth: u32,
}

/// A device that was put out and is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its last name.
    pub name: String,
    /// Who put it out; the device itself, if it left.
    pub by: DeviceId,
    /// When, by the clock of the one who put it out.
    pub at: WallMillis,
    /// Why, in that one's words.
    pub reason: String,
    /// The record that puts it out; of several, the one that knew most.
    pub revocation: RecordId,
}

/// Whether an entry is accepted from its author, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Accepted: its author is a member.
    Member,
    /// Accepted: its author was put out, but this much was held when it was.
    HeldBeforeRevocation,
    /// Refused: written after what was held when its author was put out.
    AfterRevocation,
    /// Refused: nobody held anything of this journal when its author was put out.
    JournalNotNamed,
    /// Refused: another entry was held in this place when its author was put out.
    NotTheOneHeld,
    /// Refused: nobody ever admitted the author, or the admission is void.
    NotAdmitted,
}

impl Verdict {
    /// Whether the entry is accepted.
    pub const fn is_accepted(self) -> bool {
        matches!(self, Self::Member | Self::HeldBeforeRevocation)
    }

    /// The reason as programs know it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Member => "author_is_member",
            Self::HeldBeforeRevocation => "held_before_revocation",
            Self::AfterRevocation => "after_revocation",
            Self::JournalNotNamed => "journal_not_named_in_revocation",
            Self::NotTheOneHeld => "not_the_entry_held_at_revocation",
            Self::NotAdmitted => "author_not_admitted",
        }
    }
}
