//! The only place with sockets, threads, clocks and the runtime: it feeds shards and carries out what they ask for.

pub mod clock;
pub mod cpus;
mod deadlines;
pub mod driver;
pub mod event;
pub mod http;
mod lanes;
pub mod listener;
pub mod mailbox;
mod node;
pub mod process;
pub mod quic;
pub mod ready;
mod requests;
pub mod run;
pub mod seeds;
pub mod send_plain;
pub mod send_ring;
pub mod sender;
pub mod signal;
mod sleep;
mod socket;
pub mod sys;
pub mod systemd;
pub mod timer;
mod wires;
mod worker;
