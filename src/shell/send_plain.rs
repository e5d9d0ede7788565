//! Sending a turn's bytes with one system call per socket: where io_uring is not to be had, and for small batches.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use smallvec::SmallVec;

use super::sys;
use crate::shard::outlet::{Outgoing, SendResult};

/// Up to here, several slices are copied into one: cheaper than the kernel's walk over them. Measured on loopback TCP, copied
/// against gathered: 2 KiB in 8 slices 1.27 against 1.87 µs, 16 KiB in 8 slices 2.2 against 2.6 µs, 32 KiB 4.1 against 3.7.
pub const COPY_BYTES_MAX: usize = 16 * 1024;

/// The slices of one socket, in order.
pub type Gathered<'a> = SmallVec<[&'a [u8]; 32]>;

/// Sends what one socket gets. None when it took everything. `staging` is for copies, and empty between calls.
pub fn send<'a, S>(outgoing: Outgoing<'a, S>, staging: &mut Vec<u8>) -> Option<SendResult>
where
    S: Iterator<Item = &'a [u8]>,
{
    let slices: Gathered<'a> = outgoing.slices.collect();
    send_slices(outgoing.socket, &slices, outgoing.bytes, staging)
}

pub fn send_slices(socket: RawFd, slices: &[&[u8]], bytes: usize, staging: &mut Vec<u8>) -> Option<SendResult> {
    if let [one] = slices {
        return result(sys::send(socket, one), one.len());
    }
    if bytes <= COPY_BYTES_MAX {
        slices.iter().for_each(|slice| staging.extend_from_slice(slice));
        let outcome = sys::send(socket, staging);
        let want = staging.len();
        staging.clear();
        return result(outcome, want);
    }
    let mut sent = 0;
    for part in slices.chunks(sys::IOVECS_MAX) {
        let part: SmallVec<[IoSlice<'_>; 64]> = part.iter().map(|slice| IoSlice::new(slice)).collect();
        let want = part.iter().map(|slice| slice.len()).sum();
        match result(sys::send_slices(socket, &part), want) {
            None => sent += want,
            Some(SendResult::Short(took)) => return Some(SendResult::Short(sent + took)),
            Some(SendResult::Failed) => return Some(SendResult::Failed),
        }
    }
    None
}

/// What the outcome of a send that should have taken `want` bytes means.
fn result(outcome: io::Result<usize>, want: usize) -> Option<SendResult> {
    match outcome {
        Ok(took) if took == want => None,
        Ok(took) => Some(SendResult::Short(took)),
        Err(error) => Some(failure(error.raw_os_error().unwrap_or(0))),
    }
}

/// Whether a socket that refused everything is full or dead.
pub fn failure(errno: i32) -> SendResult {
    match errno {
        // No memory just now counts as full: it may pass, and if it does not, the outbox has its own bound.
        libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM => SendResult::Short(0),
        _ => SendResult::Failed,
    }
}
