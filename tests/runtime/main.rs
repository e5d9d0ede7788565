//! What we assume of the runtime and of the kernel, so that an upgrade that changes it is noticed here and not in the
//! field. Each is tried on both drivers; where io_uring is forbidden, on epoll alone.

mod flood;
mod order;
mod process;
mod serving;
mod sockets;
mod waking;

use std::future::Future;

use skein::shell::driver::{self, Choice, Driver};

/// Runs a check on a fresh runtime of each driver, as a worker would have it.
fn on_each_driver<F: Future<Output = ()>>(check: impl Fn(Driver) -> F) {
    for choice in [Choice::Epoll, Choice::Uring] {
        match choice.decide() {
            Ok(driver) => driver::block_on(driver, check(driver)).unwrap(),
            Err(error) => eprintln!("not checked: {error}"),
        }
    }
}
