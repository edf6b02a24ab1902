//! What a node knows.

pub mod ids;
pub mod lane;
pub mod object;
pub mod signature;
