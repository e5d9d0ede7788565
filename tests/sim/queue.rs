//! What will happen, in order of time. Events of one time come in the order in which they were put in.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::net::{LaneId, Side};
use skein::shard::outlet::LaneStream;

#[derive(Debug)]
pub enum Event {
    Start {
        node: usize,
    },
    /// A worker's turn, if it was not moved to an earlier time.
    Turn {
        node: usize,
        life: u32,
        worker: usize,
    },
    Resume {
        node: usize,
        life: u32,
    },
    /// Bytes of a client reach the server; none: it has closed its end.
    Upload {
        conn: u64,
        bytes: Option<Vec<u8>>,
    },
    /// A full or refusing socket has room again.
    Room {
        conn: u64,
    },
    ClientReads {
        conn: u64,
    },
    /// The client's end learns that the connection is dead.
    ClientReset {
        conn: u64,
    },
    ClientWakes {
        client: usize,
    },
    Dialled {
        lane: LaneId,
    },
    /// Acceptor and dialler learn of the lane by themselves.
    LaneUp {
        lane: LaneId,
        side: Side,
    },
    DialFails {
        node: usize,
        life: u32,
        worker: usize,
        token: u64,
    },
    /// The first bytes under way to a side are due.
    Arrival {
        lane: LaneId,
        to: Side,
        stream: LaneStream,
    },
    Datagram {
        lane: LaneId,
        to: Side,
        bytes: Vec<u8>,
    },
    /// A side that had no room for what it wanted to write has.
    LaneRoom {
        lane: LaneId,
        side: Side,
    },
    /// The other side's close is here.
    LaneClosed {
        lane: LaneId,
        side: Side,
        code: u32,
        reason: String,
    },
    LaneDies {
        lane: LaneId,
        side: Side,
    },
    /// Keep-alives and their absence.
    LaneTick {
        lane: LaneId,
    },
    Heal {
        from: usize,
        to: usize,
    },
    WeatherEnds,
    Deed,
    /// Promises that are due are looked at.
    Look,
}

struct Entry {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Entry>,
    number: u64,
}

impl Queue {
    pub fn put(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.heap.push(Entry { at, number: self.number, event });
    }

    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.at)
    }

    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}
