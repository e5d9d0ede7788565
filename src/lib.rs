//! Skein: a WebSocket gateway that is its own backplane. This is the map.
//!
//! ```text
//!             client ── socket ─┐                                      ┌─ UDP ── peer
//!   shell                       ▼                                      ▼
//!     sockets, threads,    readable, recv                        QUIC lanes
//!     clocks, io_uring          │                                      │
//!  ─────────────────────────────┼──────────────────────────────────────┼──────────────
//!   shard    bytes ▶ ws ▶ protocol ▶ session ▶ step      frames ▶ envelope ▶ flow
//!     one per worker            │                                      │
//!                               ▼                                      ▼
//!                    delivery: home worker ─ mail ─▶ workers, flows ─▶ lanes
//!                               │
//!                      hub: who follows it ─▶ outboxes ─▶ one send per socket and turn
//! ```
//!
//! Everything above the line is the shell; everything below it is sans-io: input in, actions out, time as a value.
//! `tests/sim` replaces the shell and runs whole clusters of shards in one thread. Modules stand in reading order,
//! and which may import which is a table in `ARCHITECTURE.md` that a test enforces.

pub mod base;
pub mod limits;
pub mod metrics;

pub mod api;
pub mod auth;
pub mod protocol;
pub mod rules;
pub mod ws;

pub mod backplane;
pub mod hub;
pub mod session;
pub mod shard;

pub mod app;
pub mod client;
pub mod config;
pub mod shell;
