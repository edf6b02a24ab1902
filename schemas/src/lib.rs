//! The outward documents of srcos-node: their Rust types, strict JSON and canonical JSON.
//!
//! Every document that leaves the node as JSON (on standard output, over HTTP, in a file) has its
//! type here, and no type from further inside is ever serialised to people directly: what is
//! promised to scripts stays in one crate. There is no I/O and no clock in it.
//!
//! - [`json`] reads JSON from outside strictly and writes it canonically.
//! - [`time`] is the one form in which times are shown.
//! - [`canonical`] writes the one text of a value from which hashes and derived ids are made.
//! - [`contracts`] knows the published documents and judges them: schema and rules.
//! - [`date_time`] reads the times of other tools.
//! - [`service`], [`capability`], [`launch`], [`incident`] and [`process`] are documents of the control
//!   plane; [`identity`] audits a service and its launch together, [`control_plane`] all of them.
//! - [`preflight`] and [`truth`] say what documents of the family [`authority`] mean, together and alone.
//! - [`event`] has events and what folds, redacts and explains them; [`explanation`],
//!   [`policy_observation`] and [`policy_decision`] what is said about decisions.
//! - [`objects`], [`lanes`], [`peers`], [`status`] and [`provenance`] are the documents.

pub mod authority;
pub mod canonical;
pub mod capability;
pub mod contracts;
pub mod control_plane;
pub mod date_time;
pub mod event;
pub mod evidence;
pub mod explanation;
pub mod identity;
pub mod incident;
mod iso_time;
pub mod json;
pub mod lanes;
pub mod launch;
pub mod merge;
pub mod objects;
pub mod peers;
pub mod policy_decision;
pub mod policy_file;
pub mod policy_observation;
pub mod preflight;
pub mod process;
pub mod provenance;
pub mod repair_plan;
pub mod scorecard;
pub mod service;
pub mod state_report;
pub mod status;
pub mod time;
pub mod trust_decision;
pub mod truth;
