//! What a node does with others, as state machines without clock, randomness or socket.

pub mod pairing;
pub mod roster;
pub mod ticket;
