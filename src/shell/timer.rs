//! One deadline per worker, to the microsecond: QUIC's timers are finer than the runtime's milliseconds.
//!
//! It is armed only for a time earlier than the one it stands at, so it may fire when nothing is due; whoever waits asks
//! again what is next.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::ready::Ready;
use super::sys;
use crate::base::time::Instant;

pub struct Timer {
    descriptor: OwnedFd,
    ready: Ready,
    armed: Cell<Option<Instant>>,
}

impl Timer {
    /// Only within a runtime.
    pub fn new() -> io::Result<Self> {
        let descriptor = sys::timerfd()?;
        Ok(Timer { ready: Ready::new(descriptor.try_clone()?)?, descriptor, armed: Cell::new(None) })
    }

    /// Fires at that time or earlier.
    pub fn at_latest(&self, at: Instant) {
        if self.armed.get().is_some_and(|armed| armed <= at) {
            return;
        }
        // It cannot fail with a descriptor of our own and a time in range; a timer that does not fire would be a
        // node that looks alive and is not.
        sys::timerfd_arm(&self.descriptor, Duration::from_nanos(at.as_nanos())).expect("the timer takes a time");
        self.armed.set(Some(at));
    }

    /// Waits until it fires. Afterwards it is unarmed.
    pub async fn fired(&self) -> io::Result<()> {
        self.ready.readable().await?;
        let mut expirations = [0; 8];
        match sys::read(&self.descriptor, &mut expirations) {
            Ok(_) => self.armed.set(None),
            // Armed anew for later between the wait's end and now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
