//! Events: what happened on a node, in a form that people and other programs can act on.
//!
//! - [`model`] has the strict event and its parts, [`vocabulary`] the words that its members take, and
//!   [`legacy`] the wider form that older programs write.
//! - [`build`] makes events that cannot be invalid; [`rules`] says what a schema cannot.
//! - [`coalesce`] folds repeats into one event, [`storm`] makes a storm record of that.
//! - [`privacy`] shows an event to a reader of a given clearance; [`narrative`] gives words to codes.
//! - [`when`] reads the times that other programs write.

pub mod build;
pub mod coalesce;
pub mod legacy;
pub mod model;
pub mod narrative;
pub mod privacy;
pub mod rules;
pub mod storm;
pub mod vocabulary;
pub mod when;
