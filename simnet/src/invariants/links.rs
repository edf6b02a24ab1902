//! Whom a node calls connected it has a link to, and whom it has had a link to for long it calls connected.

use super::{Checked, violated};
use crate::cluster::Node;
use crate::network::Network;

/// The invariant's name.
pub const NAME: &str = "network.truth";

/// Time after which two devices on a link have greeted each other or let the link go: six times what an
/// engine gives for it, by clocks that drift.
const GREETING_MS_MAX: u64 = 60_000;

/// A look at whom a node calls connected.
pub fn on_look(now_ms: u64, number: usize, nodes: &[Node], network: &Network) -> Checked {
    let Some(running) = &nodes[number].running else { return Ok(()) };
    for (other, node) in nodes.iter().enumerate().filter(|(other, _)| *other != number) {
        let device = node.device();
        let called = running.engine.is_connected(device);
        // A copy of a device goes by its name.
        let linked =
            |peer: usize| nodes[peer].device() == device && network.is_linked(number, peer);
        if called && !(0..nodes.len()).any(linked) {
            return violated(NAME, format!("n{number} calls n{other} connected, without a link"));
        }
        let rested = |number: usize| {
            let node: &Node = &nodes[number];
            node.is_honest() && node.frozen_until_ms + GREETING_MS_MAX < now_ms
        };
        if !called && rested(number) && rested(other) {
            let since = network.linked_since(number, other);
            if since.is_some_and(|since| since + GREETING_MS_MAX < now_ms) {
                let what = format!("n{number} has had a link to n{other} for long, and denies it");
                return violated(NAME, what);
            }
        }
    }
    Ok(())
}
