//! Answers to one connection, gathered so that several share a WebSocket frame.
//!
//! They lie here from the first answer until another connection is answered, a channel is settled or the turn ends:
//! the shard commits before any of these, so an answer is never overtaken by what came after it.

use super::outboxes::Outboxes;
use super::outlet::ConnectionKey;
use crate::limits::MESSAGES_PER_FRAME_MAX;
use crate::protocol::{self, Encoding};
use crate::ws::encoder::{self, Opcode};

#[derive(Default)]
pub struct Replies {
    open: Option<(ConnectionKey, Encoding)>,
    bytes: Vec<u8>,
    count: usize,
}

impl Replies {
    /// The buffer to which one message is to be appended.
    /// Returns how many frames had to leave for that.
    pub fn begin(
        &mut self,
        connection: ConnectionKey,
        encoding: Encoding,
        outboxes: &mut Outboxes,
    ) -> (&mut Vec<u8>, u64) {
        let other = self.open.is_some_and(|(open, _)| open != connection);
        let frames = if other || self.count == MESSAGES_PER_FRAME_MAX { self.commit(outboxes) } else { 0 };
        self.open = Some((connection, encoding));
        if self.count > 0 {
            self.bytes.extend_from_slice(protocol::batch::separator(encoding));
        }
        self.count += 1;
        (&mut self.bytes, frames)
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Puts what was gathered into the connection's outbox as one frame. Returns the number of frames, 0 or 1.
    pub fn commit(&mut self, outboxes: &mut Outboxes) -> u64 {
        let Some((connection, encoding)) = self.open.take() else { return 0 };
        self.count = 0;
        let arena = outboxes.arena();
        let start = arena.len() as u32;
        encoder::frame(opcode(encoding), &self.bytes, arena);
        let end = arena.len() as u32;
        self.bytes.clear();
        outboxes.append(connection.index, start..end);
        1
    }
}

pub const fn opcode(encoding: Encoding) -> Opcode {
    match encoding {
        Encoding::Json => Opcode::Text,
        Encoding::Protobuf => Opcode::Binary,
    }
}
