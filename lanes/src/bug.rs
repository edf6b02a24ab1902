//! Deliberate bugs, by which the simulator proves that its checkers bite.
//!
//! Only a build with `--cfg srcos_bug` has them, and none without debug assertions can be built with
//! it, so no release has them. In every other build [`active`] is the constant `false`, and the
//! compiler removes what depends on it. `docs/SIMULATION.md` says which run finds which bug.

#[cfg(all(srcos_bug, not(debug_assertions)))]
compile_error!("deliberate bugs must not be in a release: build with debug assertions");

macro_rules! bugs {
    ($($name:ident, $text:literal, $what:literal;)*) => {
        /// One deliberate bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug {
            $(#[doc = $what] $name,)*
        }

        impl Bug {
            /// Every bug.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What the node does wrong.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

bugs! {
    CommitWithoutSync, "commit-without-sync", "acknowledges a commit that was not synced";
    SkipSignature, "skip-signature", "takes a run without checking its signature";
    SkipBodies, "skip-bodies", "takes a run without checking its bodies against their headers";
    DropLastOfRun, "drop-last-of-run", "drops the last entry of a run of several";
    ForgetTombstones, "forget-tombstones", "forgets the record of deletions at a restart";
    ApplyEarly, "apply-early", "applies an entry before what it builds on is applied";
    WinnerByArrival, "winner-by-arrival", "names as the last author whose change arrived last";
    SendDeniedClass, "send-denied-class", "sends bodies of a class that policy denies";
    OfferSecureLane, "offer-secure-lane", "offers lanes that policy keeps on the device";
    GrantToAll, "grant-to-all", "opens to every member what was opened to one";
    KeepOffers, "keep-offers", "goes on as it was with those whom a new policy denies something";
    ShowHidden, "show-hidden", "shows a deleted object again when a late change to it arrives";
    LatestGrave, "latest-grave", "names as the one who deleted an object whoever is heard last";
    ReuseSequence, "reuse-sequence", "goes on in its old journal after a backup was put back";
    IgnoreRevocation, "ignore-revocation", "takes what a revoked device wrote afterwards";
    ServeRevoked, "serve-revoked", "goes on talking to a device that was revoked";
    NoWitness, "no-witness", "does not tell what it held of a revoked device";
    KeepSession, "keep-session", "goes on calling a device connected after the link to it is gone";
    OldDigest, "old-digest", "calls a peer in step because it was so at some time";
    IgnoreSilence, "ignore-silence", "calls a peer in step however long it has said nothing";
    ForgetRefused, "forget-refused", "does not ask again for what an older roster refused";
    IgnoreGap, "ignore-gap", "does not ask again for entries that were left out";
    IgnoreFork, "ignore-fork", "does not compare a second history with the one it holds";
    LoseJournalRow, "lose-journal-row", "commits only one of several journals that grew";
    TrustRead, "trust-read", "takes what it reads after a failed sync for what is on the disk";
    TrustRecord, "trust-record", "takes the last commit for whole without looking whether its pages are there";
    SkipSeal, "skip-seal", "reads a value whose seal is broken";
}

/// Whether a bug is switched on in this thread.
#[cfg(not(srcos_bug))]
pub const fn active(_: Bug) -> bool {
    false
}

#[cfg(srcos_bug)]
mod selected {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        /// The bug that is on. A world runs in one thread, so each thread can try another.
        static SELECTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether a bug is switched on in this thread.
    pub fn active(bug: Bug) -> bool {
        SELECTED.get() == Some(bug)
    }

    /// Switches one bug on in this thread, or all off.
    pub fn select(bug: Option<Bug>) {
        SELECTED.set(bug);
    }
}

#[cfg(srcos_bug)]
pub use selected::{active, select};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own_and_none_is_on() {
        let names: std::collections::BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        assert!(Bug::ALL.iter().all(|bug| !active(*bug)));
    }
}
