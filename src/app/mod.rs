//! (soon)

pub mod cert;
