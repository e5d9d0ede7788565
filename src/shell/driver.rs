//! Which runtime a node's workers run on: io_uring where the kernel allows it, epoll elsewhere.
//!
//! Decided once per node before any worker starts, by building what a worker would build.

use std::fmt;
use std::future::Future;
use std::io;

use super::send_ring::SendRing;
use super::sys;

/// Entries of a worker's ring. Its memory counts against RLIMIT_MEMLOCK for unprivileged users.
const RING_ENTRIES: u32 = 1024;
/// A reap may bring news of very many sockets at once; what does not fit waits in the kernel.
const COMPLETION_ENTRIES: u32 = 4 * RING_ENTRIES;
/// Events of one `epoll_wait`.
const EPOLL_EVENTS: u32 = 1024;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Choice {
    #[default]
    Auto,
    Uring,
    Epoll,
}

/// What it will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    Uring,
    Epoll,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Uring => "io_uring",
            Driver::Epoll => "epoll",
        })
    }
}

impl Choice {
    /// Logs one line that says which driver and why. An error only when io_uring was asked for by name.
    pub fn decide(self) -> io::Result<Driver> {
        match self {
            Choice::Epoll => {
                tracing::info!("driver epoll, as asked");
                Ok(Driver::Epoll)
            }
            Choice::Uring => probe().map_err(explained).map(|()| {
                tracing::info!("driver io_uring, as asked");
                Driver::Uring
            }),
            Choice::Auto => match probe() {
                Ok(()) => {
                    tracing::info!("driver io_uring");
                    Ok(Driver::Uring)
                }
                Err(error) => {
                    tracing::warn!("driver epoll, because {}", explained(error));
                    Ok(Driver::Epoll)
                }
            },
        }
    }
}

/// Whether both rings of a worker can be had here.
fn probe() -> io::Result<()> {
    uring_builder().build(RING_ENTRIES)?;
    SendRing::new()?;
    Ok(())
}

/// The error with what it means for io_uring.
fn explained(error: io::Error) -> io::Error {
    let meaning = match error.raw_os_error() {
        Some(libc::ENOSYS) => "io_uring is not in this kernel or is forbidden here".to_owned(),
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here (a container's seccomp profile, or sysctl kernel.io_uring_disabled)".to_owned()
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old (6.1 or later is needed)".to_owned(),
        Some(libc::ENOMEM) => match sys::locked_memory_limit() {
            Some(limit) => format!(
                "io_uring got no memory: the limit of locked memory (RLIMIT_MEMLOCK, `ulimit -l`, LimitMEMLOCK=) is \
                 {} KiB; raise it to 8192 KiB and 1024 KiB per worker",
                limit / 1024
            ),
            None => "io_uring got no memory".to_owned(),
        },
        _ => "io_uring does not start".to_owned(),
    };
    io::Error::new(error.kind(), format!("{meaning} ({error})"))
}

fn uring_builder() -> io_uring06::Builder {
    let mut builder = io_uring06::IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(COMPLETION_ENTRIES);
    builder
}

/// Runs a future on a fresh runtime of this thread.
pub fn block_on<F: Future>(driver: Driver, future: F) -> io::Result<F::Output> {
    match driver {
        Driver::Uring => Ok(monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .uring_builder(uring_builder())
            .enable_timer()
            .build()
            .map_err(explained)?
            .block_on(future)),
        Driver::Epoll => Ok(monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .with_entries(EPOLL_EVENTS)
            .enable_timer()
            .build()?
            .block_on(future)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_by_name_is_what_runs() {
        for (choice, driver) in [(Choice::Epoll, Driver::Epoll), (Choice::Uring, Driver::Uring)] {
            let Ok(decided) = choice.decide() else {
                // Forbidden here: then it has to be refused, and nothing else is left to see.
                assert_eq!(choice, Choice::Uring);
                continue;
            };
            assert_eq!(decided, driver);
            let legacy = block_on(decided, async { monoio::utils::is_legacy() }).unwrap();
            assert_eq!(legacy, driver == Driver::Epoll);
        }
    }

    #[test]
    fn an_error_says_what_to_do() {
        let text = |errno| explained(io::Error::from_raw_os_error(errno)).to_string();
        assert!(text(libc::EPERM).contains("forbidden"));
        assert!(text(libc::EINVAL).contains("too old"));
        assert!(text(libc::ENOMEM).contains("memory"));
    }
}
