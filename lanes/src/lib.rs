//! What a node knows.

pub mod frontier;
pub mod ids;
pub mod journal;
pub mod lane;
pub mod policy;
pub mod signature;
