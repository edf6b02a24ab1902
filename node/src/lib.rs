//! The node: daemon, command line and local HTTP over one store.
//!
//! The faces ([`cli`], [`http`]) know nothing of engine, store or transport; they speak to
//! [`api::Node`].

pub mod api;
pub mod asked;
pub mod cli;
pub mod client;
pub mod contain;
pub mod core;
pub mod data_dir;
pub mod demo;
pub mod diagnosis;
pub mod discovery;
pub mod documents;
pub mod error;
pub mod events;
pub mod http;
pub mod index;
pub mod keys;
pub mod observe;
pub mod pairing;
pub mod render;
pub mod roaming;
pub mod run;
pub mod runtime;
pub mod served;
pub mod transport;

#[cfg(test)]
mod memory;
