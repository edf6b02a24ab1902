//! What a node does with others, as pure state machines.
//!
//! This crate knows nothing of sockets, clocks, threads, async runtimes or operating system
//! randomness. Two runtimes drive it: the node, over libp2p, and the simulator.
//!
//! | for | see |
//! |---|---|
//! | driving a node's conversation with its peers | [`engine`] |
//! | what is known of each peer | [`peers`] |
//! | when to dial whom | [`dialer`] |
//! | the bytes on the wire | [`wire`] |
//! | who belongs to the mesh | [`roster`] |
//! | how a device joins | [`pairing`], [`ticket`] |

pub mod dialer;
pub mod engine;
pub mod pairing;
pub mod peers;
pub mod roster;
mod session;
pub mod ticket;
pub mod wire;
