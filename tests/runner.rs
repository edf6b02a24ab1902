//! Tests that need more than one crate, in one binary. `architecture` checks that no module is
//! forgotten here.

mod architecture;
mod binary;
mod caller;
mod documents;
mod fuzz_seeds;
mod process;
mod support;
mod two_nodes;
