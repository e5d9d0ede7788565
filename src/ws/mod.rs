//! RFC 6455 without sockets: bytes to messages, messages to bytes, the upgrade.
//!
//! It knows neither commands nor sessions. Extensions are not negotiated yet; RSV bits are refused.

pub mod close;
pub mod decoder;
pub mod encoder;
mod frame;
mod mask;
mod request;
pub mod upgrade;
pub mod violation;
