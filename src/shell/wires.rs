//! The world as a shard sees it at the end of a turn: what it asks for is done at once, or noted for after the flush.

use std::net::SocketAddr;

use super::lanes::Lanes;
use super::node::Node;
use super::requests::Requests;
use super::sender::Sender;
use crate::base::id::WorkerIndex;
use crate::base::time::Instant;
use crate::shard::mail::Mail;
use crate::shard::outlet::{Answer, ConnectionKey, Finish, LaneKey, LaneStream, Outgoing, Outlet, RequestKey, Unsent};

/// Everything of a worker that a flush touches besides the shard.
pub struct Wires {
    pub sender: Sender,
    pub lanes: Lanes,
    pub requests: Requests,
    pub finished: Vec<(ConnectionKey, Finish)>,
    /// Workers that got mail in this flush.
    posted: Vec<bool>,
}

impl Wires {
    pub fn new(sender: Sender, lanes: Lanes, workers: u16) -> Self {
        Wires {
            sender,
            lanes,
            requests: Requests::default(),
            finished: Vec::new(),
            posted: vec![false; usize::from(workers)],
        }
    }

    /// Wakes the workers that got mail, each once however much it got.
    fn ring_bells(&mut self, node: &Node) {
        for (to, posted) in self.posted.iter_mut().enumerate() {
            if std::mem::take(posted) {
                node.mail.bell(to as WorkerIndex).ring();
            }
        }
    }
}

/// The wires for the length of one flush.
pub struct Flushing<'f> {
    pub wires: &'f mut Wires,
    pub node: &'f Node,
    pub from: WorkerIndex,
    pub now: Instant,
}

impl Outlet for Flushing<'_> {
    fn send<'a, I, S>(&mut self, batch: I, unsent: &mut Vec<Unsent>)
    where
        I: Iterator<Item = Outgoing<'a, S>>,
        S: Iterator<Item = &'a [u8]>,
    {
        self.wires.sender.send(batch, unsent);
    }

    fn finish(&mut self, connection: ConnectionKey, _socket: i32, how: Finish) {
        self.wires.finished.push((connection, how));
    }

    fn mail(&mut self, to: WorkerIndex, mail: Mail) -> Result<(), Mail> {
        self.node.mail.post(self.from, to, mail)?;
        self.wires.posted[usize::from(to)] = true;
        Ok(())
    }

    fn lane_write(&mut self, lane: LaneKey, stream: LaneStream, bytes: &[u8]) -> usize {
        self.wires.lanes.write(lane, stream, bytes)
    }

    fn lane_datagram(&mut self, lane: LaneKey, bytes: &[u8]) {
        self.wires.lanes.datagram(lane, bytes);
    }

    fn lane_dial(&mut self, remote: SocketAddr, token: u64) {
        self.wires.lanes.dial(self.now, remote, token);
    }

    fn lane_close(&mut self, lane: LaneKey, code: u32, reason: &str) {
        self.wires.lanes.close(self.now, lane, code, reason);
    }

    fn lanes_written(&mut self) {
        self.wires.ring_bells(self.node);
        self.wires.lanes.flush(self.now);
    }

    fn answer(&mut self, request: RequestKey, answer: Answer) {
        self.wires.requests.answer(request, answer);
    }
}
