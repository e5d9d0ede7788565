//! JSON: one object a message, messages parted by one newline.
//!
//! `decode` turns one line into a command, `encode` appends one message, `payload` answers whether bytes may be embedded
//! as `data`. Framing and the number of commands belong to `batch`.
//!
//! Always true: nothing here recurses with the input, and payloads pass through byte for byte, but for raw newlines.

pub(super) mod decode;
pub(super) mod encode;
mod payload;

pub use payload::validate_json;
