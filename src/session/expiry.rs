//! When a token's grant ends: the arithmetic between its calendar seconds, the `ttl` that a client is told, and the
//! moment at which we act.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::time::{Instant, Now, UnixMillis};

/// Later ends are brought forward to here, as the reference does; a `ttl` then fits every client's timers.
pub(super) const TTL_SECS_MAX: u64 = 365 * 24 * 60 * 60;

/// Later than any moment that is ever reached.
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The grant had ended before it was used: error 110.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Past;

/// Seconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expiry(NonZeroU64);

impl Expiry {
    pub(super) fn new(secs: u64) -> Option<Self> {
        NonZeroU64::new(secs).map(Expiry)
    }

    /// Of a grant that is taken up now.
    pub(super) fn granted(expires_at: Option<u64>, now: UnixMillis) -> Result<Option<Self>, Past> {
        let now = now.as_secs();
        match expires_at {
            Some(secs) if secs <= now => Err(Past),
            Some(secs) => Ok(Expiry::new(secs.min(now.saturating_add(TTL_SECS_MAX)))),
            None => Ok(None),
        }
    }

    pub(super) const fn secs(self) -> u64 {
        self.0.get()
    }

    /// What the client is told. At least 1: an absent `ttl` beside `expires` would be no answer.
    pub(super) fn ttl(self, now: UnixMillis) -> u32 {
        let secs = self.secs().saturating_sub(now.as_secs()).clamp(1, TTL_SECS_MAX);
        u32::try_from(secs).expect("365 days are fewer than 2^32 seconds")
    }

    /// The moment at which the client's grace is over. Fixed by the clocks as they stand now: a wall clock that jumps
    /// later ends nothing early.
    pub(super) fn over(self, now: Now, grace: Duration) -> Instant {
        let left = self.secs().saturating_mul(1000).saturating_sub(now.wall.0);
        now.mono + Duration::from_millis(left) + grace
    }
}
