//! Devices of which nothing is taken in, whatever of theirs is held: they are no members, and never were.

use std::collections::BTreeSet;

use super::Store;
use crate::ids::DeviceId;
use crate::lane::LaneId;

impl Store {
    /// Says of which devices nothing is taken in from now on. What others built on their entries is
    /// applied without waiting for them, and frontiers leave out what is held of them. Returns whether
    /// this differs from what was said before. It is not kept over a restart.
    pub fn bar(&mut self, devices: BTreeSet<DeviceId>) -> bool {
        if devices == self.barred {
            return false;
        }
        for lane in LaneId::ALL {
            for device in &devices {
                self.parked.wake_device(lane, *device, |_| true);
            }
            *self.versions.entry(lane).or_default() += 1;
        }
        self.barred = devices;
        true
    }

    /// Whether nothing is taken in of this device.
    pub fn is_barred(&self, device: &DeviceId) -> bool {
        self.barred.contains(device)
    }
}
