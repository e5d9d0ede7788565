//! Client frames to messages.
//!
//! Works in place on the bytes that one `recv` brought: frames are unmasked where they lie and a message that
//! arrived whole is lent from there. Only a partial frame or a fragmented message is carried over, in buffers
//! that exist only while there is something to carry.

use super::violation::Violation;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Checked UTF-8.
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The code, if one was sent, and the text behind it. Nothing follows.
    Close(Option<u16>, &'a str),
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message, all its fragments together.
    pub message_bytes_max: usize,
}

#[derive(Default, Debug)]
pub struct Decoder {}

impl Decoder {
    /// Calls `on_message` for each message that `bytes` completes, in order, until it answers `false` or the bytes
    /// are used up. After a violation or a close the decoder takes no more bytes.
    pub fn feed(
        &mut self,
        _bytes: &mut [u8],
        _limits: Limits,
        _on_message: impl FnMut(Message<'_>) -> bool,
    ) -> Result<(), Violation> {
        todo!()
    }

    /// Bytes held between calls.
    pub fn carried_bytes(&self) -> usize {
        0
    }
}
