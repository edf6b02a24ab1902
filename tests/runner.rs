//! Tests that need more than one crate, in one binary. `architecture` checks that no module is
//! forgotten here.

mod architecture;
mod documents;
mod fuzz_seeds;
mod support;
