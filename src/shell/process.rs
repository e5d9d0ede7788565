//! What a process does with its children and its terminal, beyond what the standard library wraps.
//!
//! A place for `unsafe`, for `app::demo` alone. Nothing here decides; errors go up as they came.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The child is killed when the calling thread ends, however that comes about: to be called in a thread that lives as
/// long as the process. It leads a process group of its own, so that a key at the terminal interrupts the parent only.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    command.process_group(0);
    let before_exec = move || {
        // SAFETY: plain values; both calls are async-signal-safe, as what runs between fork and exec must be.
        let (asked, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if asked < 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before it was asked for.
        if now.cast_unsigned() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: the closure allocates nothing, takes no lock and calls only what its own SAFETY comment says.
    unsafe { command.pre_exec(before_exec) };
}

/// Asks a child that was not waited for yet to stop.
pub fn terminate(child: &mut Child) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = libc::pid_t::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: plain values. The number still names our child, since nobody has waited for it.
    if unsafe { libc::kill(pid, libc::SIGTERM) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A terminal that gives each key at once and does not show it, until this is dropped. Signals by key stay.
pub struct KeyMode {
    terminal: OwnedFd,
    before: libc::termios,
}

impl KeyMode {
    /// Fails where there is no terminal.
    pub fn enter(terminal: impl AsFd) -> io::Result<KeyMode> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let mut before = std::mem::MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: the call fills the structure or fails, and zeroes are a valid value for it anyway.
        let before = unsafe {
            if libc::tcgetattr(terminal.as_raw_fd(), before.as_mut_ptr()) < 0 {
                return Err(io::Error::last_os_error());
            }
            before.assume_init()
        };
        let mut keys = before;
        keys.c_lflag &= !(libc::ICANON | libc::ECHO);
        set(&terminal, &keys)?;
        Ok(KeyMode { terminal, before })
    }
}

impl Drop for KeyMode {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring.
        let _ = set(&self.terminal, &self.before);
    }
}

fn set(terminal: &OwnedFd, mode: &libc::termios) -> io::Result<()> {
    // SAFETY: the structure is read during the call.
    match unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, mode) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    #[test]
    fn a_child_that_is_asked_to_stop_stops_and_is_not_asked_again() {
        let mut command = Command::new("sleep");
        die_with_parent(command.arg("60").stdin(Stdio::null()));
        let mut child = command.spawn().unwrap();
        terminate(&mut child).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        terminate(&mut child).unwrap();
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            die_with_parent(command.arg("60").stdin(Stdio::null()));
            command.spawn().unwrap()
        })
        .join()
        .unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn what_is_no_terminal_has_no_key_mode() {
        assert!(KeyMode::enter(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
