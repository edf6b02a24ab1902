//! placeholder
pub mod keys;
pub mod transport;
