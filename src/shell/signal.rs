//! The signals that end a node, as something to wait for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::sys;

pub struct Signals(OwnedFd);

impl Signals {
    /// Before any thread is started: threads inherit that the signals do not interrupt them.
    pub fn catch() -> io::Result<Self> {
        sys::signalfd(&[libc::SIGTERM, libc::SIGINT]).map(Signals)
    }

    /// The next one's name, or none after `timeout`.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<&'static str>> {
        match sys::wait_readable(&self.0, timeout) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            // A signal that is not ours, or a debugger.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error),
        }
        match sys::next_signal(&self.0) {
            Ok(libc::SIGTERM) => Ok(Some("SIGTERM")),
            Ok(_) => Ok(Some("SIGINT")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
