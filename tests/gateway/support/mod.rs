//! What every test of the gateway needs: a running node, and clients that speak as the test tells them to.
//!
//! Nothing here shares code with the product: a mistake in its codecs must not be made twice.

mod binary;
mod client;
mod http;
mod node;
mod socket;
mod token;

use std::time::{Duration, Instant};

pub use client::{Client, Encoding, PATH};
pub use http::{Http, Response, post};
pub use jsonwebtoken::Algorithm;
pub use node::{Ended, Node};
pub use socket::{Message, Socket, frame, upgrade};
pub use token::{SECRET, SECRET_OPTION, in_seconds, signed, token};

/// Longer than anything takes on a busy machine. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Until `holds`, looked at again and again.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the long variants of tests are asked for.
pub fn slow() -> bool {
    std::env::var_os("SKEIN_SLOW").is_some_and(|value| value == "1")
}
