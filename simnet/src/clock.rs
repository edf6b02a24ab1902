//! The two clocks of a device, neither of which shows the world's time.

use serde::{Deserialize, Serialize};
use srcos_lanes::ids::{MonoMillis, Now, WallMillis};

use crate::scheduler::Stream;

/// The wall clock at the start: 2025-01-01T00:00:00Z in milliseconds.
pub const WALL_START_MS: u64 = 1_735_689_600_000;

/// How far the clocks of a run may be off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClockShape {
    /// How far a wall clock is off at the start, either way, in milliseconds.
    pub skew_ms_max: u64,
    /// How much faster or slower a device's clocks run, in parts of a million.
    pub drift_ppm_max: u64,
    /// How far a wall clock swings, either way, in milliseconds: a bad time server, followed.
    pub swing_ms_max: u64,
}

/// The clocks of one device.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    mono_start_ms: u64,
    drift_ppm: i64,
    skew_ms: i64,
    swing_ms: u64,
    swing_period_ms: u64,
    /// Time that passed while the whole world slept.
    slept_ms: u64,
}

impl Clock {
    /// Clocks drawn within a shape.
    pub fn draw(shape: ClockShape, stream: &mut Stream) -> Self {
        let either = |stream: &mut Stream, max: u64| stream.between(0, 2 * max) as i64 - max as i64;
        Self {
            mono_start_ms: stream.below(1 << 40),
            drift_ppm: either(stream, shape.drift_ppm_max),
            skew_ms: either(stream, shape.skew_ms_max),
            swing_ms: stream.between(0, shape.swing_ms_max),
            swing_period_ms: stream.between(1_000, 1_200_000),
            slept_ms: 0,
        }
    }

    /// What both clocks show at a time of the world.
    pub fn now(&self, at_ms: u64) -> Now {
        let elapsed = self.elapsed(at_ms);
        let wall =
            (WALL_START_MS + elapsed).saturating_add_signed(self.skew_ms + self.swing(at_ms));
        Now { mono: MonoMillis(self.mono_start_ms + elapsed), wall: WallMillis(wall) }
    }

    /// The first time of the world at which the monotonic clock shows at least `due`.
    pub fn when(&self, due: MonoMillis) -> u64 {
        let wanted = due.0.saturating_sub(self.mono_start_ms + self.slept_ms);
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let mut at = (u128::from(wanted) * 1_000_000 / rate) as u64;
        // The division above may have rounded down.
        while self.elapsed(at) < wanted + self.slept_ms {
            at += 1;
        }
        at
    }

    /// The wall clock jumps; the monotonic one does not.
    pub fn jump(&mut self, ms: i64) {
        self.skew_ms = self.skew_ms.saturating_add(ms);
    }

    /// The world slept for this long.
    pub fn sleep(&mut self, ms: u64) {
        self.slept_ms += ms;
    }

    /// The wall clock is set right and stays so.
    pub fn steady(&mut self) {
        self.swing_ms = 0;
    }

    fn elapsed(&self, at_ms: u64) -> u64 {
        let drifted = i128::from(at_ms) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        self.slept_ms + drifted as u64
    }

    /// A triangle between `-swing_ms` and `swing_ms`.
    fn swing(&self, at_ms: u64) -> i64 {
        if self.swing_ms == 0 {
            return 0;
        }
        let half = (self.swing_period_ms / 2).max(1);
        let phase = at_ms % (2 * half);
        let up = if phase < half { phase } else { 2 * half - phase };
        (up * 2 * self.swing_ms / half) as i64 - self.swing_ms as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_clock_never_goes_back_and_its_timers_come_when_it_shows_them() {
        for seed in 0..50 {
            let shape =
                ClockShape { skew_ms_max: 9_000_000, drift_ppm_max: 50_000, swing_ms_max: 60_000 };
            let mut clock = Clock::draw(shape, &mut Stream::new(seed, "clock", 0));
            let mut before = 0;
            for at in (0..100_000).step_by(777) {
                if at % 5 == 0 {
                    clock.sleep(at);
                }
                let now = clock.now(at).mono.0;
                assert!(now >= before);
                before = now;
                let due = MonoMillis(now + at);
                let when = clock.when(due);
                assert!(clock.now(when).mono >= due);
                assert!(when == 0 || when <= at || clock.now(when - 1).mono < due);
            }
        }
    }

    #[test]
    fn swinging_wall_clock_stays_within_its_swing() {
        let shape = ClockShape { skew_ms_max: 0, drift_ppm_max: 0, swing_ms_max: 5_000 };
        let clock = Clock::draw(shape, &mut Stream::new(3, "clock", 0));
        for at in (0..3_000_000).step_by(991) {
            let off = clock.now(at).wall.0 as i64 - (WALL_START_MS + at) as i64;
            assert!(off.abs() <= 5_000, "{off}");
        }
    }
}
