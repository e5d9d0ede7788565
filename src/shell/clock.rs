//! The only place that asks the system what time it is.

use super::sys::{self, ClockId};
use crate::base::time::{Instant, Now, UnixMillis};

/// Both clocks.
pub fn now() -> Now {
    let wall = sys::clock(ClockId::Realtime);
    Now { mono: mono(), wall: UnixMillis(wall.as_millis() as u64) }
}

/// The monotonic clock alone. Its start is the machine's, so instants of all workers of a node compare.
pub fn mono() -> Instant {
    Instant::from_nanos(sys::clock(ClockId::Monotonic).as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let (a, b) = (now(), now());
        assert!(b.mono >= a.mono);
        assert!(a.wall.0 > 1_700_000_000_000);
    }
}
