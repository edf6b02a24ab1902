//! placeholder
pub mod discovery;
pub mod keys;
pub mod transport;
