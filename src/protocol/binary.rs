//! Protobuf, length-delimited.
//!
//! `wire` is the encoding itself, field by field; `decode` turns one message into a command, `encode` appends one message
//! with its length before it. Written by hand because everything is borrowed on the way in and nothing is allocated on the
//! way out; the client's side, where neither matters, uses `prost`, and the two are tested against each other.

pub(super) mod decode;
pub(super) mod encode;
pub(super) mod wire;
