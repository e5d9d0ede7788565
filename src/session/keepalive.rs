//! Pings and the pongs that must follow. We ask, the client answers; one question at a time.
//!
//! Always true: while a pong is awaited no ping is sent.

use std::time::Duration;

use super::Options;
use super::expiry::NEVER;
use crate::base::rng::Rng;
use crate::base::time::Instant;

pub(super) struct Keepalive {
    /// The next ping, or the end of patience while `asked`.
    at: Instant,
    asked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    Ping,
    NoPong,
}

impl Keepalive {
    pub(super) const fn silent() -> Self {
        Keepalive { at: NEVER, asked: false }
    }

    /// The first ping comes at a random moment in the second half of an interval: clients who came together after a
    /// node's death are not all pinged at once.
    pub(super) fn start(&mut self, now: Instant, options: &Options, rng: &mut Rng) {
        if options.ping_interval.is_zero() {
            return;
        }
        let half = options.ping_interval / 2;
        let random = rng.below(u64::try_from(half.as_nanos()).unwrap_or(u64::MAX));
        self.at = now + half + Duration::from_nanos(random);
    }

    /// False when nobody asked.
    pub(super) fn on_pong(&mut self, options: &Options) -> bool {
        if !self.asked {
            return false;
        }
        self.asked = false;
        // Counted from the ping, so that a client's slowness does not stretch the interval that it was promised.
        self.at = self.at - options.pong_timeout + options.ping_interval;
        true
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.at
    }

    pub(super) fn on_deadline(&mut self, now: Instant, options: &Options) -> Due {
        if now < self.at {
            return Due::Nothing;
        }
        if self.asked {
            return Due::NoPong;
        }
        self.asked = options.expects_pong();
        self.at = now + if self.asked { options.pong_timeout } else { options.ping_interval };
        Due::Ping
    }
}
