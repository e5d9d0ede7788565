//! Time as a value. Machines are told what time it is; only `shell::clock` asks the system.
//!
//! `Instant` is nanoseconds since an arbitrary start (the process, or a simulation), so tests and the simulator
//! make their own. `Now` carries the wall clock beside it, because tokens expire by the calendar.

use std::ops::{Add, Sub};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(u64);

impl Instant {
    pub const START: Instant = Instant(0);

    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Zero when `earlier` is in fact later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(nanos))
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

/// Both clocks, read together once per wake-up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Now {
    pub mono: Instant,
    pub wall: UnixMillis,
}

impl Now {
    /// For tests and simulations: a wall clock that starts at a fixed day and moves with the monotonic one.
    pub const fn simulated(mono: Instant) -> Self {
        Now { mono, wall: UnixMillis(1_790_000_000_000 + mono.as_nanos() / 1_000_000) }
    }
}
