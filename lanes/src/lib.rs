//! What a node knows: lanes, objects, journals, tombstones, and the store that keeps them.
//!
//! This crate knows nothing of clocks, sockets, threads, async runtimes or randomness: they come as
//! arguments. It knows nothing of peers either: what is exchanged with whom is decided in
//! `srcos-replication`, on top of [`policy`].
//!
//! Where to look:
//!
//! | for | see |
//! |---|---|
//! | the eleven lanes and their promises | [`lane`] |
//! | what may leave the device | [`policy`] |
//! | an object as an Automerge document | [`object`] |
//! | signed entries and their bytes | [`journal`] |
//! | how far journals are held, and what two devices differ by | [`frontier`] |
//! | the store: writing, receiving, applying, reading, verifying | [`store`] |
//! | every table with its bytes | [`tables`] |
//! | what may be written in one form only | [`canonical`] |
//! | deliberate bugs, in no release | [`bug`] |
//!
//! Invariants:
//!
//! - What [`store::Store::commit`] returned for survives a crash at any later moment.
//! - Every journal is gapless, linked by hashes, and vouched for by its author's signature.
//! - An entry is applied only after the entries that its changes build on.
//! - A life of an object that a tombstone names is never shown again; its id may live again.
//! - Reads show committed rows and never load a document.

pub mod bug;
pub mod canonical;
pub mod error;
pub mod frontier;
pub mod ids;
pub mod journal;
pub mod lane;
pub mod object;
pub mod policy;
pub mod signature;
pub mod store;
pub mod tables;
