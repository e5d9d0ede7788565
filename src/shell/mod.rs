//! (soon)

pub mod quic;
