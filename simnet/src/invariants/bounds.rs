//! Frames, what waits for links, events, timers and journals stay below their limits, whatever a peer
//! sends.

use std::collections::BTreeMap;

use srcos_lanes::ids::DeviceId;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{DEVICE_JOURNALS_MAX, REVOKED_JOURNALS_MAX};
use srcos_replication::engine::EVENTS_MAX;
use srcos_replication::wire::FRAME_BYTES_MAX;

use super::{Checked, violated};
use crate::cluster::Running;

/// The invariant's name.
pub const NAME: &str = "bounds.held";

/// Timeouts in a row that are due again at once, before it counts as a busy loop: a node that
/// applies 256 entries at each still catches up with 100,000.
const DUE_AT_ONCE_MAX: u64 = 400;
/// Frames that a node sends after one input, at most: a receipt and what a flood makes it answer.
const FRAMES_AT_ONCE_MAX: usize = 3_000;
/// Frames that all nodes send between two looks while nothing is written, at most: more is a loop of
/// answers to answers.
const FRAMES_WHEN_QUIET_MAX: u64 = 20_000;

/// A look at how many journals a node holds of a device.
pub fn on_journals(node: usize, running: &Running, of: DeviceId) -> Checked {
    let most = match running.engine.roster().revoked().contains_key(&of) {
        true => REVOKED_JOURNALS_MAX,
        false => DEVICE_JOURNALS_MAX,
    };
    for lane in LaneId::ALL {
        let held = running.store.device_journals(lane, of);
        if held > most {
            let of = of.short();
            return violated(NAME, format!("n{node} holds {held} journals of {of} in {lane}"));
        }
    }
    Ok(())
}

/// Bytes that a node keeps for a link at most: the half megabyte after which it cuts no more runs, a message
/// that was cut just before with the largest entries that are written here, and what is said besides.
pub const QUEUED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A look at how many bytes wait for a link of a node.
pub fn on_queue(node: usize, bytes: usize) -> Checked {
    if bytes > QUEUED_BYTES_MAX {
        return violated(NAME, format!("n{node} keeps {bytes} bytes for a link"));
    }
    Ok(())
}

/// What each node did lately.
#[derive(Debug, Default)]
pub struct Bounds {
    due_at_once: BTreeMap<usize, u64>,
    quiet_frames: u64,
}

impl Bounds {
    /// A frame was sent.
    pub fn on_frame(&mut self, node: usize, frame: &[u8], at_once: usize) -> Checked {
        self.quiet_frames += 1;
        if frame.len() > FRAME_BYTES_MAX + 1 {
            return violated(NAME, format!("n{node} sent a frame of {} bytes", frame.len()));
        }
        if at_once > FRAMES_AT_ONCE_MAX {
            return violated(NAME, format!("n{node} sent {at_once} frames at once"));
        }
        Ok(())
    }

    /// Something was written or went wrong.
    pub fn on_step(&mut self) {
        self.quiet_frames = 0;
    }

    /// Ten seconds have passed.
    pub fn on_look(&mut self) -> Checked {
        let frames = std::mem::take(&mut self.quiet_frames);
        if frames > FRAMES_WHEN_QUIET_MAX {
            return violated(NAME, format!("{frames} frames in ten seconds without a reason"));
        }
        Ok(())
    }

    /// A node's events were drained.
    pub fn on_events(&self, node: usize, events: usize) -> Checked {
        // Each drain follows a handful of inputs, so as many events as may wait are too many.
        if events > EVENTS_MAX {
            return violated(NAME, format!("n{node} had {events} events waiting"));
        }
        Ok(())
    }

    /// A node said when it wants to be woken.
    pub fn on_timer(&mut self, node: usize, due_at_once: bool) -> Checked {
        let row = self.due_at_once.entry(node).or_default();
        *row = if due_at_once { *row + 1 } else { 0 };
        if *row > DUE_AT_ONCE_MAX {
            return violated(NAME, format!("n{node} wants to be woken {row} times at once"));
        }
        Ok(())
    }
}
