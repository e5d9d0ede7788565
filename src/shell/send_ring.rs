//! The raw io_uring of one worker through which a turn's bytes leave: one submission for many sockets.
//!
//! Used synchronously: entries are pushed, submitted and accounted for within one call, so the kernel never holds an
//! address after it. Success leaves no completion; only failures and short sends are told.
//!
//! One of the shell's places for `unsafe` (the other is `sys`). Always true between calls: the submission queue and the
//! completion queue are empty, and no entry in the kernel names a socket or a buffer.

use std::io;

use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, squeue, types};

use super::send_plain::{self, COPY_BYTES_MAX, Gathered};
use super::sys::IOVECS_MAX;
use crate::shard::outlet::{ConnectionKey, Outgoing, SendResult};

/// Entries per submission. The ring's memory counts against RLIMIT_MEMLOCK for unprivileged users, and a longer
/// batch gains nothing any more.
const ENTRIES: usize = 1024;
/// Slices of all messages of one submission together.
const IOVECS: usize = 16 * 1024;
/// Bytes that are copied together for one submission: few enough to be in the cache still when the kernel reads them.
/// Allocated by the first that needs a copy.
const STAGING_BYTES: usize = 256 * 1024;
/// Longer messages do not go through the ring, whose lengths are 32 bits.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// How often a submission that the kernel refused for want of memory is tried again at once.
const SUBMIT_TRIES_MAX: usize = 16;

// MSG_WAITALL makes a short send a failure, so that it is told in spite of SKIP_SUCCESS. MSG_DONTWAIT keeps the
// kernel from finishing it later on its own.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

const _: () = assert!(IOVECS >= IOVECS_MAX);
const _: () = assert!(STAGING_BYTES >= COPY_BYTES_MAX);

/// A send that did not take everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Which of the batch.
    pub index: usize,
    pub connection: ConnectionKey,
    pub socket: i32,
    pub result: SendResult,
}

pub struct SendRing {
    /// None after the kernel refused a submission for good.
    ring: Option<IoUring>,
    /// What each pending entry was about: itself, as if it had failed without taking a byte.
    pending: Vec<(Told, usize)>,
    /// These three never grow while entries are pending: the kernel is given addresses into them.
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::msghdr>,
    staging: Vec<u8>,
    /// For what leaves without the ring.
    plain: Vec<u8>,
}

impl SendRing {
    /// On the thread that will use it: the ring takes submissions from no other.
    pub fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
        Ok(SendRing {
            ring: Some(builder.build(ENTRIES as u32)?),
            pending: Vec::with_capacity(ENTRIES),
            iovecs: Vec::with_capacity(IOVECS),
            headers: Vec::with_capacity(ENTRIES),
            staging: Vec::new(),
            plain: Vec::new(),
        })
    }

    /// Whether the kernel refused a submission for good. What is sent then goes by plain calls.
    pub fn is_broken(&self) -> bool {
        self.ring.is_none()
    }

    /// At most one `Outgoing` per socket. Tells in no certain order what was not fully taken.
    pub fn send<'a, S>(&mut self, batch: impl Iterator<Item = Outgoing<'a, S>>, mut tell: impl FnMut(Told))
    where
        S: Iterator<Item = &'a [u8]>,
    {
        // A panic of the iterator in an earlier call would have left entries with stale addresses.
        assert!(self.pending.is_empty(), "an earlier batch was abandoned half-way");
        for (index, outgoing) in batch.enumerate() {
            let Outgoing { connection, socket, bytes, mut slices } = outgoing;
            let told = Told { index, connection, socket, result: SendResult::Short(0) };
            let Some(first) = slices.next() else { continue };
            let Some(second) = slices.next() else {
                self.push_one(told, first, &mut tell);
                continue;
            };
            let mut gathered = Gathered::new();
            gathered.push(first);
            gathered.push(second);
            gathered.extend(slices);
            if bytes <= COPY_BYTES_MAX {
                self.push_copy(told, &gathered, &mut tell);
            } else if gathered.len() <= IOVECS_MAX && bytes <= MESSAGE_BYTES_MAX {
                self.push_message(told, &gathered, &mut tell);
            } else {
                self.send_plain(told, &gathered, &mut tell);
            }
        }
        self.submit(&mut tell);
    }

    fn push_one(&mut self, told: Told, bytes: &[u8], tell: &mut impl FnMut(Told)) {
        if bytes.len() > MESSAGE_BYTES_MAX || self.ring.is_none() {
            self.send_plain(told, &[bytes], tell);
            return;
        }
        self.make_room(0, 0, tell);
        self.push(told, bytes.len(), send_entry(told.socket, bytes), tell);
    }

    fn push_copy(&mut self, told: Told, slices: &[&[u8]], tell: &mut impl FnMut(Told)) {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if bytes > COPY_BYTES_MAX || self.ring.is_none() {
            self.send_plain(told, slices, tell);
            return;
        }
        self.make_room(0, bytes, tell);
        let start = self.staging.len();
        slices.iter().for_each(|slice| self.staging.extend_from_slice(slice));
        let entry = send_entry(told.socket, &self.staging[start..]);
        self.push(told, bytes, entry, tell);
    }

    fn push_message(&mut self, told: Told, slices: &[&[u8]], tell: &mut impl FnMut(Told)) {
        if self.ring.is_none() {
            self.send_plain(told, slices, tell);
            return;
        }
        self.make_room(slices.len(), 0, tell);
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        let start = self.iovecs.len();
        self.iovecs.extend(
            slices.iter().map(|slice| libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() }),
        );
        // SAFETY: all fields of msghdr may be zero.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = self.iovecs[start..].as_mut_ptr();
        header.msg_iovlen = slices.len() as _;
        self.headers.push(header);
        let header = self.headers.last().expect("just pushed");
        let entry = opcode::SendMsg::new(types::Fd(told.socket), header).flags(FLAGS as u32).build();
        self.push(told, bytes, entry, tell);
    }

    fn send_plain(&mut self, told: Told, slices: &[&[u8]], tell: &mut impl FnMut(Told)) {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if let Some(result) = send_plain::send_slices(told.socket, slices, bytes, &mut self.plain) {
            tell(Told { result, ..told });
        }
    }

    /// Submits what is pending when one more entry with that many slices and copied bytes would not fit beside it.
    fn make_room(&mut self, iovecs: usize, copied: usize, tell: &mut impl FnMut(Told)) {
        let full = self.pending.len() == ENTRIES
            || self.iovecs.len() + iovecs > IOVECS
            || self.staging.len() + copied > STAGING_BYTES;
        if full {
            self.submit(tell);
        }
        if copied > 0 && self.staging.capacity() < STAGING_BYTES {
            // Nothing points into it yet: it is filled for the first time.
            assert!(self.staging.is_empty());
            self.staging.reserve_exact(STAGING_BYTES);
        }
    }

    fn push(&mut self, told: Told, bytes: usize, entry: squeue::Entry, tell: &mut impl FnMut(Told)) {
        let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(self.pending.len() as u64);
        let Some(ring) = &mut self.ring else {
            // Making room broke it.
            tell(told);
            return;
        };
        // SAFETY: the entry's addresses lead to the caller's slices, which `send` borrows until it has submitted, or
        // into `iovecs`, `headers` and `staging`, which `make_room` keeps from growing. `submit` runs before `send`
        // returns, and as all sends are MSG_DONTWAIT the kernel is done with every address when it returns.
        let pushed = unsafe { ring.submission().push(&entry) };
        assert!(pushed.is_ok(), "as many entries as the ring has places");
        self.pending.push((told, bytes));
    }

    /// Hands all pending entries to the kernel and tells of those that did not take everything.
    fn submit(&mut self, tell: &mut impl FnMut(Told)) {
        let Some(ring) = &mut self.ring else { return };
        if self.pending.is_empty() {
            return;
        }
        let mut tries = 0;
        let refused = loop {
            let result = ring.submit();
            if ring.submission().is_empty() {
                break None;
            }
            tries += 1;
            match result {
                Err(error) if !is_temporary(&error) => break Some(error),
                Err(error) if tries == SUBMIT_TRIES_MAX => break Some(error),
                // A part of it was taken, or a signal came between.
                _ => {}
            }
        };
        for completion in ring.completion() {
            let (told, bytes) = self.pending[completion.user_data() as usize];
            let result = match completion.result() {
                errno if errno < 0 => send_plain::failure(-errno),
                took if took as usize == bytes => continue,
                took => SendResult::Short(took as usize),
            };
            tell(Told { result, ..told });
        }
        if let Some(error) = refused {
            // What the kernel did not take is still the caller's: told as not sent, and never submitted.
            let left = ring.submission().len();
            tracing::error!(%error, left, "the send ring refuses submissions; this worker goes on with plain sends");
            let first_left = self.pending.len() - left;
            self.pending[first_left..].iter().for_each(|&(told, _)| tell(told));
            self.ring = None;
        }
        self.pending.clear();
        self.iovecs.clear();
        self.headers.clear();
        self.staging.clear();
    }
}

fn send_entry(socket: i32, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(types::Fd(socket), bytes.as_ptr(), bytes.len() as u32).flags(FLAGS).build()
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
}
