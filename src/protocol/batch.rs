//! Several commands in one frame, several replies in one frame.

use super::binary::wire::Reader;
use super::{BadFrame, Command, DecodeLimits, Encoding, Push, Reply, binary, json};

/// The commands of one frame, in order. After an `Err` it yields nothing more.
pub struct Commands<'a> {
    rest: Rest<'a>,
    limits: DecodeLimits,
    decoded: u32,
}

enum Rest<'a> {
    /// Lines without the newline of the last one.
    Lines(&'a str),
    Messages(Reader<'a>),
    Bad(BadFrame),
    End,
}

/// `frame` is one WebSocket message. Text and binary are not told apart: the encoding was chosen at the upgrade.
pub fn decode<'a>(encoding: Encoding, frame: &'a [u8], limits: DecodeLimits) -> Commands<'a> {
    let rest = match encoding {
        Encoding::Json => match simdutf8::basic::from_utf8(frame) {
            Err(_) => Rest::Bad(BadFrame::NotUtf8),
            Ok(text) => match text.strip_suffix('\n').unwrap_or(text) {
                "" => Rest::Bad(BadFrame::Empty),
                lines => Rest::Lines(lines),
            },
        },
        Encoding::Protobuf if frame.is_empty() => Rest::Bad(BadFrame::Empty),
        Encoding::Protobuf => Rest::Messages(Reader::new(frame)),
    };
    Commands { rest, limits, decoded: 0 }
}

impl<'a> Commands<'a> {
    /// What was not decoded yet, as bytes of a frame of its own.
    pub fn rest(&self) -> &'a [u8] {
        match &self.rest {
            Rest::Lines(lines) => lines.as_bytes(),
            Rest::Messages(reader) => reader.rest(),
            Rest::Bad(_) | Rest::End => &[],
        }
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, BadFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoded == self.limits.commands_max && matches!(self.rest, Rest::Lines(_) | Rest::Messages(_)) {
            self.rest = Rest::Bad(BadFrame::TooManyCommands);
        }
        let command = match &mut self.rest {
            Rest::End => return None,
            Rest::Bad(bad) => Err(*bad),
            Rest::Lines(lines) => {
                let line = match lines.split_once('\n') {
                    Some((line, others)) => {
                        *lines = others;
                        line
                    }
                    None => {
                        let last = *lines;
                        self.rest = Rest::End;
                        last
                    }
                };
                json::decode::command(line, self.limits.json_depth_max)
            }
            Rest::Messages(reader) => {
                let message = reader.delimited();
                if reader.is_empty() {
                    self.rest = Rest::End;
                }
                message.and_then(binary::decode::command)
            }
        };
        self.decoded += 1;
        if command.is_err() {
            self.rest = Rest::End;
        }
        Some(command)
    }
}

/// Appends one message (JSON: no newline; Protobuf: with its length before it). `id` zero is for pushes.
pub fn encode_reply(encoding: Encoding, id: u32, reply: &Reply<'_>, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json::encode::reply(id, reply, out),
        Encoding::Protobuf => binary::encode::reply(id, reply, out),
    }
}

/// Appends one message. `channel` is empty for `Push::Message` and `Push::Disconnect`.
pub fn encode_push(encoding: Encoding, channel: &str, push: &Push<'_>, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => json::encode::push(channel, push, out),
        Encoding::Protobuf => binary::encode::push(channel, push, out),
    }
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
