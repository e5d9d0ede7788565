//! Several commands in one frame, several replies in one frame.

use super::{BadFrame, Command, DecodeLimits, Encoding, Push, Reply};

/// The commands of one frame, in order. After an `Err` it yields nothing more.
pub struct Commands<'a> {
    _frame: &'a [u8],
}

/// `frame` is one WebSocket message. Text and binary are not told apart: the encoding was chosen at the upgrade.
pub fn decode<'a>(_encoding: Encoding, frame: &'a [u8], _limits: DecodeLimits) -> Commands<'a> {
    Commands { _frame: frame }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, BadFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

/// Appends one message (JSON: no newline; Protobuf: with its length before it). `id` zero is for pushes.
pub fn encode_reply(_encoding: Encoding, _id: u32, _reply: &Reply<'_>, _out: &mut Vec<u8>) {
    todo!()
}

/// Appends one message. `channel` is empty for `Push::Message` and `Push::Disconnect`.
pub fn encode_push(_encoding: Encoding, _channel: &str, _push: &Push<'_>, _out: &mut Vec<u8>) {
    todo!()
}

/// The server's ping: `{}` or one zero byte.
pub const fn ping(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Json => b"{}",
        Encoding::Protobuf => b"\0",
    }
}

/// What stands between two messages of one frame.
pub const fn separator(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Json => b"\n",
        Encoding::Protobuf => b"",
    }
}
