//! No frame carries what policy denied to its receiver when it was sent.

use std::collections::BTreeMap;

use srcos_lanes::ids::DeviceId;
use srcos_lanes::journal::{Body, Entry};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::{CONFINED_CLASSES, ReplicationPolicy, is_confined};
use srcos_replication::roster::Roster;
use srcos_replication::wire::{Assembler, Message};

use super::{Checked, peers, violated};
use crate::workload::NEEDLE;

/// The invariant's name.
pub const NAME: &str = "policy.confined";

/// The oracle of entitlement.
#[derive(Debug, Default)]
pub struct Confined {
    assemblers: BTreeMap<(usize, u64), Assembler>,
}

/// Who sends, to whom, and what the sender knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'s> {
    /// The node.
    pub node: usize,
    /// Its connection.
    pub conn: u64,
    /// The device at the other end.
    pub to: DeviceId,
    /// The sender's policy.
    pub policy: &'s ReplicationPolicy,
    /// The sender's roster.
    pub roster: &'s Roster,
}

impl Confined {
    /// A frame is about to be sent.
    pub fn on_frame(&mut self, sending: Sending<'_>, frame: &[u8]) -> Checked {
        let Sending { node, conn, .. } = sending;
        let opens = |(lane, class): (LaneId, &str)| {
            sending.policy.body(lane, class, true, sending.to).allows()
        };
        let mut classes =
            LaneId::ALL.iter().flat_map(|lane| CONFINED_CLASSES.map(|of| (*lane, of)));
        let grants_secrets = classes.any(opens);
        let is_secret = |bytes: &[u8]| {
            !grants_secrets && memchr::memmem::find(bytes, NEEDLE.as_bytes()).is_some()
        };
        if is_secret(frame) {
            return violated(NAME, format!("a frame of n{node} holds a secret text"));
        }
        let assembler = self.assemblers.entry((node, conn)).or_default();
        let message = match assembler.push(frame) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => return violated(peers::NAME, format!("n{node} sent {}", error.0)),
        };
        // In a compressed frame a text is not seen.
        if is_secret(&message) {
            return violated(NAME, format!("a message of n{node} holds a secret text"));
        }
        match Message::decode(&message) {
            Ok(Message::Run { lane, entries, .. }) => Self::on_run(sending, lane, &entries),
            Ok(Message::Receipt(receipt)) => {
                for said in &receipt.lanes {
                    let lane = LaneId::from_code(said.lane);
                    if !lane.is_some_and(|lane| sending.policy.lane(lane, sending.to).allows()) {
                        let what = format!("n{node} told of lane {:?} in a receipt", lane);
                        return violated(NAME, what);
                    }
                }
                Self::member(sending)
            }
            Ok(Message::Digest(_)) => Self::member(sending),
            Ok(_) => Ok(()),
            Err(error) => violated(peers::NAME, format!("n{node} sent {}", error.0)),
        }
    }

    /// Nothing of a lane is told to one who is no member.
    fn member(sending: Sending<'_>) -> Checked {
        if sending.roster.is_member(sending.to) {
            return Ok(());
        }
        let (node, to) = (sending.node, sending.to.short());
        violated(NAME, format!("n{node} speaks of lanes to {to}, which is no member to it"))
    }

    fn on_run(sending: Sending<'_>, lane: LaneId, entries: &[&[u8]]) -> Checked {
        let Sending { node, to, policy, .. } = sending;
        Self::member(sending)?;
        if !policy.lane(lane, to).allows() {
            return violated(NAME, format!("n{node} sent entries of lane {lane}"));
        }
        for bytes in entries {
            let Ok(entry) = Entry::read(bytes) else {
                return violated(peers::NAME, format!("n{node} sent a broken entry"));
            };
            for (item, body) in entry.header.items.iter().zip(&entry.bodies) {
                let class = entry.header.classes.get(usize::from(item.class));
                let class = class.map_or("", String::as_str);
                let confined = item.confined || is_confined(class);
                let denied = confined && !policy.body(lane, class, true, to).allows();
                if denied && matches!(body, Body::Here(_)) {
                    let seq = entry.header.seq;
                    let what = format!("n{node} sent a confined body in entry {seq} of {lane}");
                    return violated(NAME, what);
                }
            }
        }
        Ok(())
    }

    /// A connection is gone.
    pub fn on_closed(&mut self, node: usize, conn: u64) {
        self.assemblers.remove(&(node, conn));
    }
}
