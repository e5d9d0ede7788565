//! Waiting for a descriptor with the worker's runtime, on either driver, and giving way to others.
//!
//! Nothing here reads or writes: who waits does its own non-blocking call afterwards, so a dropped wait loses nothing.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::task::Poll;

use super::sys;

/// Any descriptor that can be polled: an eventfd, a timer, a listener, a UDP socket.
///
/// monoio has no type for them, and waiting is the same for all: its `UdpSocket` is only the handle.
pub struct Ready(monoio::net::udp::UdpSocket);

impl Ready {
    /// Only within a runtime.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        monoio::net::udp::UdpSocket::from_std(std::net::UdpSocket::from(descriptor)).map(Ready)
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Not relaxed: the epoll driver remembers an edge until somebody has seen that it is stale.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable(false).await
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.0.writable(false).await
    }
}

/// Lets everything that is ready run, and the kernel be asked for news, before the caller goes on.
///
/// A task that wakes itself would go to the front of monoio's queue, and while the queue is not empty the io_uring
/// driver reaps nothing (`tests/runtime` pins both), so giving way means waiting for something that is always ready.
pub struct Breath(Option<Ready>);

impl Breath {
    /// Only within a runtime.
    pub fn new() -> io::Result<Self> {
        if monoio::utils::is_legacy() {
            // There, readiness is remembered and waiting for it would not wait.
            return Ok(Breath(None));
        }
        Ok(Breath(Some(Ready::new(sys::eventfd(1)?)?)))
    }

    pub async fn take(&self) {
        match &self.0 {
            Some(always) => {
                if always.readable().await.is_err() {
                    to_the_back().await;
                }
            }
            None => to_the_back().await,
        }
    }
}

/// To the back of the run queue: a new task is put there, and so is who it wakes. The epoll driver asks the kernel
/// once each time it has been through its queue.
async fn to_the_back() {
    let mut asked = false;
    poll_fn(|cx| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        let waker = cx.waker().clone();
        // Its result is nothing; the waker is all.
        drop(monoio::spawn(async move { waker.wake() }));
        Poll::Pending
    })
    .await;
}

/// Waits as `wait` does, and gives way when there was nothing to wait for, so that one busy descriptor does not
/// keep the others from their turn.
pub async fn fairly<T>(breath: &Breath, wait: impl Future<Output = T>) -> T {
    let mut wait = pin!(wait);
    let mut waited = false;
    let result = poll_fn(|cx| {
        let poll = wait.as_mut().poll(cx);
        waited |= poll.is_pending();
        poll
    })
    .await;
    if !waited {
        breath.take().await;
    }
    result
}
