//! Tests that need more than one crate, in one binary. `architecture` checks that no module is
//! forgotten here.

mod advice;
mod architecture;
mod away;
mod bad_input;
mod binary;
mod caller;
mod conformance;
mod contracts;
mod control_plane;
mod diagnosis;
mod documents;
mod events;
mod export_automerge;
mod fuzz_seeds;
mod http_api;
mod kill_nine;
mod membership;
mod process;
mod readme;
mod short_links;
mod sim_scenarios;
mod sim_seeds;
mod stopping;
mod support;
mod two_hosts;
mod two_nodes;
