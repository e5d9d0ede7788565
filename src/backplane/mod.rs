//! What carries publications between nodes: the mesh of our own, and what all backplanes share.
//!
//! Sans-io machines and codecs only. It knows neither sessions nor sockets nor QUIC; the shard feeds it frames and
//! datagrams and carries out what it asks.

pub mod compact;
pub mod envelope;
pub mod mesh;
