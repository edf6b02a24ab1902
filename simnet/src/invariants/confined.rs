//! No frame carries what policy denied to its receiver when it was sent.
//!
//! What may go where is decided here by a table of its own and the grants that the run made, and not by the
//! node's policy: that is among what is checked.

use std::collections::BTreeMap;

use srcos_lanes::ids::DeviceId;
use srcos_lanes::journal::{Body, Entry};
use srcos_lanes::lane::LaneId;
use srcos_lanes::policy::Grant;
use srcos_replication::roster::Roster;
use srcos_replication::wire::{Assembler, Message};

use super::{Checked, peers, violated};
use crate::workload::NEEDLE;

/// The invariant's name.
pub const NAME: &str = "policy.confined";

/// Classes that no member receives unless a grant names the class too.
const SECRETS: [&str; 2] = ["secret", "credential"];

/// Who may hear of a lane.
enum Reach {
    /// Every member.
    Members,
    /// Whom a grant names.
    Granted,
    /// Nobody.
    Nobody,
}

const fn reach(lane: LaneId) -> Reach {
    match lane {
        LaneId::Normal
        | LaneId::Priority
        | LaneId::Memory
        | LaneId::Policy
        | LaneId::Audit
        | LaneId::Tombstone
        | LaneId::Archive => Reach::Members,
        LaneId::Secure => Reach::Granted,
        LaneId::Ephemeral | LaneId::Repair | LaneId::Migration => Reach::Nobody,
    }
}

/// Whether every member hears of a lane.
pub fn is_shared(lane: LaneId) -> bool {
    matches!(reach(lane), Reach::Members)
}

/// Whether a device hears of a lane from one that made these grants.
pub fn may_hear(grants: &[Grant], lane: LaneId, to: DeviceId) -> bool {
    match reach(lane) {
        Reach::Members => true,
        Reach::Granted => grants.iter().any(|grant| (grant.lane, grant.to) == (lane, to)),
        Reach::Nobody => false,
    }
}

fn is_secret(class: &str) -> bool {
    SECRETS.iter().any(|secret| class.trim().to_lowercase() == *secret)
}

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
    /// What the sender opened to others.
    pub grants: &'s [Grant],
    /// The sender's roster.
    pub roster: &'s Roster,
}

impl Sending<'_> {
    /// Whether the receiver may hear of a lane.
    fn may_hear(&self, lane: LaneId) -> bool {
        may_hear(self.grants, lane, self.to)
    }

    /// Whether the receiver may have bodies of this secret class in a lane.
    fn may_have(&self, lane: LaneId, class: &str) -> bool {
        let names = |grant: &Grant| {
            (grant.lane, grant.to) == (lane, self.to) && grant.class.as_deref() == Some(class)
        };
        self.may_hear(lane) && self.grants.iter().any(names)
    }
}

impl Confined {
    /// A frame is about to be sent.
    pub fn on_frame(&mut self, sending: Sending<'_>, frame: &[u8]) -> Checked {
        let Sending { node, conn, .. } = sending;
        let mut secrets = LaneId::ALL.iter().flat_map(|lane| SECRETS.map(|of| (*lane, of)));
        let grants_secrets = secrets.any(|(lane, class)| sending.may_have(lane, class));
        let leaks = |bytes: &[u8]| {
            !grants_secrets && memchr::memmem::find(bytes, NEEDLE.as_bytes()).is_some()
        };
        if leaks(frame) {
            return violated(NAME, format!("a frame of n{node} holds a secret text"));
        }
        let assembler = self.assemblers.entry((node, conn)).or_default();
        let message = match assembler.push(frame) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => return violated(peers::NAME, format!("n{node} sent {}", error.0)),
        };
        // In a compressed frame a text is not seen.
        if leaks(&message) {
            return violated(NAME, format!("a message of n{node} holds a secret text"));
        }
        match Message::decode(&message) {
            Ok(Message::Run { lane, entries, .. }) => Self::on_run(sending, lane, &entries),
            Ok(Message::Receipt(receipt)) => {
                for said in &receipt.lanes {
                    let lane = LaneId::from_code(said.lane);
                    if !lane.is_some_and(|lane| sending.may_hear(lane)) {
                        let what = format!("n{node} told of lane {:?} in a receipt", lane);
                        return violated(NAME, what);
                    }
                }
                Self::member(sending)
            }
            Ok(Message::Hello(hello)) => {
                // Their names alone say something.
                match hello.lanes.iter().find(|lane| !sending.may_hear(**lane)) {
                    Some(lane) => violated(NAME, format!("n{node} offers lane {lane}")),
                    None => Ok(()),
                }
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
        let node = sending.node;
        Self::member(sending)?;
        if !sending.may_hear(lane) {
            return violated(NAME, format!("n{node} sent entries of lane {lane}"));
        }
        for bytes in entries {
            let Ok(entry) = Entry::read(bytes) else {
                return violated(peers::NAME, format!("n{node} sent a broken entry"));
            };
            for (item, body) in entry.header.items.iter().zip(&entry.bodies) {
                let class = entry.header.classes.get(usize::from(item.class));
                let class = class.map_or("", String::as_str);
                let confined = item.confined || is_secret(class);
                if confined && !sending.may_have(lane, class) && matches!(body, Body::Here(_)) {
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
