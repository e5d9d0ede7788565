//! The gateway from outside: the real binary on loopback ports, raw sockets and the official SDKs as its clients.
//!
//! One file per property that we want to be able to state; `support` has the node's handle and the clients. Each test
//! starts a node of its own on a port that the kernel picks. How a node is started is up to two variables, so that
//! the same properties are shown of every kind of node: `SKEIN_TEST_DRIVER` (`auto`, `io_uring`, `epoll`) and
//! `SKEIN_TEST_WORKERS`. With `SKEIN_SLOW=1` those that take long run longer.

#![expect(clippy::disallowed_methods, reason = "these tests are outside of the node: they live in real time")]

mod support;

mod affinity;
mod anonymous;
mod bad_input;
mod connecting;
mod drain;
mod errors;
mod handshake;
mod http_api;
mod keepalive;
mod leaks;
mod limits;
mod operations;
mod origins;
mod proxies;
mod publishing;
mod sdk;
mod slow_reader;
mod starting;
mod tokens;
