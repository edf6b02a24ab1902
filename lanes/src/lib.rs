//! What a node knows.

pub mod ids;
pub mod lane;
pub mod signature;
