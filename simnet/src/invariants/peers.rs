//! Devices that keep the rules never accuse each other of breaking them.

use srcos_lanes::ids::DeviceId;
use srcos_replication::engine::Event;
use srcos_replication::wire::AbortReason;

use super::{Checked, Excuses, violated};
use crate::cluster::Node;

/// The invariant's name.
pub const NAME: &str = "journal.chain_intact";

/// A node's engine said something.
pub fn on_event(number: usize, nodes: &[Node], event: &Event, excuses: &Excuses) -> Checked {
    if justified(&nodes[number], number, event, excuses) {
        return Ok(());
    }
    violated(NAME, format!("n{number}: {event:?}"))
}

/// Whether the node is right to say so.
fn justified(node: &Node, number: usize, event: &Event, excuses: &Excuses) -> bool {
    let hostile = |device: DeviceId| excuses.hostile.contains(&device);
    let forked = |device: DeviceId| excuses.forks.contains(&device);
    match event {
        Event::Opened { .. }
        | Event::RosterChanged
        | Event::InSync { .. }
        | Event::Applied { .. } => true,
        Event::Equivocation { author, .. } => forked(author.device),
        Event::Unreadable { .. } => false,
        Event::Refused { from, author, code, .. } => {
            let device = author.device;
            hostile(*from)
                || match *code {
                    "journal_quarantined" => forked(device),
                    // Who relays is honest, and does not know what the other has.
                    "too_many_journals" => hostile(device),
                    "after_revocation"
                    | "journal_not_named_in_revocation"
                    | "not_the_entry_held_at_revocation" => excuses.revoked.contains(&device),
                    // Entries of a device that has just joined can overtake the word of it; those of
                    // one whose admission was void are refused for good.
                    "other_mesh" | "author_not_admitted" => {
                        excuses.late.contains(&device) || excuses.revoked.contains(&device)
                    }
                    _ => false,
                }
        }
        Event::IncarnationStarted { told_by } => {
            excuses.lost(number) || forked(node.device()) || hostile(*told_by)
        }
        Event::Close { device, reason, .. } => {
            hostile(*device)
                || match reason {
                    AbortReason::Replaced
                    | AbortReason::ShuttingDown
                    | AbortReason::HandshakeTimeout
                    | AbortReason::NotAMember => true,
                    AbortReason::Revoked => {
                        excuses.revoked.contains(device) || excuses.revoked.contains(&node.device())
                    }
                    AbortReason::PolicyChanged => {
                        let own = node.device();
                        excuses.regranted.contains(&(own, *device))
                            || excuses.regranted.contains(&(*device, own))
                    }
                    AbortReason::OtherMesh => {
                        excuses.late.contains(device) || excuses.late.contains(&node.device())
                    }
                    _ => false,
                }
        }
    }
}
