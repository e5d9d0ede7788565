//! System calls that the standard library does not wrap, each behind a safe function of plain values.
//!
//! One of the shell's places for `unsafe` (the other is `send_ring`). Nothing here keeps a pointer after it returns,
//! and nothing decides: errors go up as they came.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Turns the `-1` of a system call into its error.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn checked_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

// ---- clocks

#[derive(Clone, Copy)]
pub enum ClockId {
    Monotonic,
    Realtime,
}

/// Time of a clock since its own start.
pub fn clock(id: ClockId) -> Duration {
    let id = match id {
        ClockId::Monotonic => libc::CLOCK_MONOTONIC,
        ClockId::Realtime => libc::CLOCK_REALTIME,
    };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result and lives through the call.
    let result = unsafe { libc::clock_gettime(id, &mut time) };
    assert_eq!(result, 0, "both clocks exist on every Linux");
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}

// ---- sockets

/// What is there now, without waiting: `WouldBlock` when there is nothing.
pub fn recv(socket: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into a slice that is ours for the length of the call.
    checked_size(unsafe { libc::recv(socket, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
}

/// What the socket takes now, without waiting.
pub fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel only reads the slice, and only during the call.
    checked_size(unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// As `send`, from several slices in order. At most `IOVECS_MAX` of them.
pub fn send_slices(socket: RawFd, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: all fields of msghdr may be zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` promises the layout of `iovec`.
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len() as _;
    // SAFETY: the header and what it points to are only read, and only during the call.
    checked_size(unsafe { libc::sendmsg(socket, &header, flags) })
}

/// The most slices that one message takes.
pub const IOVECS_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// FIN: the peer reads the end.
    Write,
    /// Both: whoever waits for this socket wakes.
    Both,
    /// A listener's way to be woken.
    Read,
}

pub fn shutdown(socket: RawFd, half: Half) -> io::Result<()> {
    let how = match half {
        Half::Write => libc::SHUT_WR,
        Half::Both => libc::SHUT_RDWR,
        Half::Read => libc::SHUT_RD,
    };
    // SAFETY: plain values.
    checked(unsafe { libc::shutdown(socket, how) }).map(drop)
}

/// Makes the close of the socket a reset that drops what is still to be sent, instead of a farewell in the
/// background that keeps the send buffer.
pub fn reset_on_close(socket: RawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value is a `linger`, read during the call.
    checked(unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    })
    .map(drop)
}

// ---- things to wait for

/// A counter that makes its descriptor readable while it is not zero.
pub fn eventfd(initial: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain values; the new descriptor is ours alone.
    unsafe { Ok(OwnedFd::from_raw_fd(checked(libc::eventfd(initial, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?)) }
}

/// A timer on the monotonic clock, unarmed.
pub fn timerfd() -> io::Result<OwnedFd> {
    // SAFETY: plain values; the new descriptor is ours alone.
    unsafe {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        Ok(OwnedFd::from_raw_fd(checked(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?))
    }
}

/// Readable at that time of the monotonic clock, once.
pub fn timerfd_arm(timer: &OwnedFd, at: Duration) -> io::Result<()> {
    // Zero would disarm it.
    let at = at.max(Duration::from_nanos(1));
    let spec = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec { tv_sec: at.as_secs() as libc::time_t, tv_nsec: at.subsec_nanos().into() },
    };
    // SAFETY: `spec` is read during the call; no old value is asked for.
    checked(unsafe { libc::timerfd_settime(timer.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &spec, std::ptr::null_mut()) })
        .map(drop)
}

/// From anything that is not a socket.
pub fn read(descriptor: &OwnedFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into a slice that is ours for the length of the call.
    checked_size(unsafe { libc::read(descriptor.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) })
}

/// Waits for one descriptor, at most for `timeout`. Whether it is readable.
pub fn wait_readable(descriptor: &OwnedFd, timeout: Option<Duration>) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = timeout.map_or(-1, |t| libc::c_int::try_from(t.as_millis()).unwrap_or(libc::c_int::MAX));
    // SAFETY: one entry, ours for the length of the call.
    Ok(checked(unsafe { libc::poll(&mut poll, 1, millis) })? > 0)
}

// ---- signals

/// Blocks the signals in this thread and those it starts, and gives a descriptor that tells of them instead.
pub fn signalfd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    // SAFETY: a signal set may be zero before `sigemptyset` makes it one; all pointers are to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        checked(libc::sigemptyset(&mut set))?;
        for &signal in signals {
            checked(libc::sigaddset(&mut set, signal))?;
        }
        match libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        Ok(OwnedFd::from_raw_fd(checked(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?))
    }
}

/// The signal that a `signalfd` tells of next.
pub fn next_signal(descriptor: &OwnedFd) -> io::Result<libc::c_int> {
    let mut info = std::mem::MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    // SAFETY: the kernel writes at most the size of the structure into it.
    let read = checked_size(unsafe {
        libc::read(descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size_of::<libc::signalfd_siginfo>())
    })?;
    if read != size_of::<libc::signalfd_siginfo>() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: written whole, and zeroes are a valid value anyway.
    let info = unsafe { info.assume_init() };
    Ok(info.ssi_signo as libc::c_int)
}

// ---- the process and its threads

/// A second descriptor for the same thing.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain values; the new descriptor is ours alone.
    unsafe { Ok(OwnedFd::from_raw_fd(checked(libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0))?)) }
}

/// Ends the process as `kill -9` does.
pub fn die() -> ! {
    // SAFETY: plain values.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    std::process::abort()
}

/// Indices of the processors that this thread may run on.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a set of processors may be zero; the kernel writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        checked(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set))?;
        set
    };
    // SAFETY: the index is below the size of the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Binds the calling thread to one processor.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the index is below the size of the set, which is read during the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        checked(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)).map(drop)
    }
}

/// Raises the limit of open files to its hard maximum and gives it.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is written and read during the calls.
    unsafe {
        checked(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            checked(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
        }
    }
    Ok(limit.rlim_cur)
}

/// The limit of memory that may be locked, in bytes; none when it is unlimited.
pub fn locked_memory_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is written during the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_thread_pins_itself_within_what_it_inherited() {
        std::thread::spawn(|| {
            let allowed = allowed_cpus().unwrap();
            let last = *allowed.last().unwrap();
            pin_to(last).unwrap();
            assert_eq!(allowed_cpus().unwrap(), vec![last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn several_slices_leave_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let sent = send_slices(a.as_raw_fd(), &[io::IoSlice::new(b"one "), io::IoSlice::new(b"two")]).unwrap();
        assert_eq!(sent, 7);
        let mut got = [0; 16];
        assert_eq!(recv(b.as_raw_fd(), &mut got).unwrap(), 7);
        assert_eq!(&got[..7], b"one two");
        assert_eq!(recv(b.as_raw_fd(), &mut got).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_timer_fires_once_at_its_time() {
        let timer = timerfd().unwrap();
        assert!(!wait_readable(&timer, Some(Duration::ZERO)).unwrap());
        let at = clock(ClockId::Monotonic) + Duration::from_millis(5);
        timerfd_arm(&timer, at).unwrap();
        assert!(wait_readable(&timer, Some(Duration::from_secs(5))).unwrap());
        assert!(clock(ClockId::Monotonic) >= at);
    }
}
