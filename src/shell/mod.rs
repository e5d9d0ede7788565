//! (soon)

pub mod http;
pub mod quic;
