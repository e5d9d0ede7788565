//! (soon)

pub mod http;
