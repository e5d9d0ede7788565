//! Standard output and the calendar, for commands that run once and end.

use std::io::{self, Write};

use super::exit::Failure;

/// Writes to standard output. A reader that has gone away (`skein config sample | head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Seconds since the Unix epoch; 0 where the clock is before it.
#[expect(clippy::disallowed_methods, reason = "no machine is told this: it dates a token on the command line")]
pub fn unix_secs() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
