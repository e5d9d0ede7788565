//! What nodes have with each other: interest, envelopes, membership, lanes.
//!
//! Machines only: sockets and QUIC are the shell's, sessions the shard's.

mod compact;
pub mod envelope;
pub mod interest;
pub mod mesh;
