//! The node as a program; see the library for where to look.

use std::process::ExitCode;

fn main() -> ExitCode {
    srcos_node::cli::main(&srcos_node::run::Real)
}
