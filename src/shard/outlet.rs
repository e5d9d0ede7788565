//! What a shard asks of the world at the end of a turn. The shell is one world, the simulator another.
//!
//! Everything here happens inside `Shard::flush`: bytes are lent for the length of a call and never referenced after
//! it, and nothing here calls back into the shard. What comes of it (a short send, a lane that went down) is told
//! by the return value or later by an `on_*`.

use std::net::SocketAddr;

use super::mail::Mail;
use crate::base::id::WorkerIndex;
use crate::base::slab::Key;

/// A connection of this shard. The shell keeps it beside the socket.
pub type ConnectionKey = Key;

/// A lane as the shell numbers it; never used again for another lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneKey(pub u64);

/// A request over HTTP that waits for its answer, as the shell numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestKey(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneStream {
    Control,
    Publications,
}

/// Everything one socket gets in this turn: its slices, in order, in one send.
pub struct Outgoing<'a, I: Iterator<Item = &'a [u8]>> {
    pub connection: ConnectionKey,
    pub socket: i32,
    /// All slices together.
    pub bytes: usize,
    pub slices: I,
}

/// A send that did not take everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsent {
    /// Which of the batch, counted from zero in the order of the iterator.
    pub index: usize,
    pub result: SendResult,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendResult {
    /// The socket took this many bytes (perhaps none) and is full: the shell calls `on_writable` when it has room.
    Short(usize),
    /// The socket is dead. The shell will see the same on its reading side and call `on_hangup`.
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// No more bytes from us: FIN. The peer may still talk and is ignored until it hangs up.
    HalfClose,
    /// End it now, whatever is on its way.
    Abort,
}

/// The answer to a request over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

pub trait Outlet {
    /// At most one `Outgoing` per socket in a batch. Appends what was not fully taken to `unsent`. One with more slices than the
    /// kernel takes is sent as far as it goes and reported as `Short`.
    fn send<'a, I, S>(&mut self, batch: I, unsent: &mut Vec<Unsent>)
    where
        I: Iterator<Item = Outgoing<'a, S>>,
        S: Iterator<Item = &'a [u8]>;

    /// Called once per connection, after the send that carries its last bytes.
    fn finish(&mut self, connection: ConnectionKey, socket: i32, how: Finish);

    /// Gives the mail back when the other worker's mailbox is full. Order between the same two workers holds.
    fn mail(&mut self, to: WorkerIndex, mail: Mail) -> Result<(), Mail>;

    /// Bytes taken, perhaps none; when short, `on_lane_writable` follows once there is room.
    fn lane_write(&mut self, lane: LaneKey, stream: LaneStream, bytes: &[u8]) -> usize;

    /// May be lost, doubled and reordered.
    fn lane_datagram(&mut self, lane: LaneKey, bytes: &[u8]);

    /// Ends in `on_lane_up` or `on_dial_failed` with the same token.
    fn lane_dial(&mut self, remote: SocketAddr, token: u64);

    /// What was written before it may or may not arrive. Ends in `on_lane_down` here too.
    fn lane_close(&mut self, lane: LaneKey, code: u32, reason: &str);

    /// Mail and lane writes of this turn are all in: what wakes others may happen now, before the sends.
    fn lanes_written(&mut self);

    fn answer(&mut self, request: RequestKey, answer: Answer);
}
