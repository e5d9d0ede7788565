//! What leaves for the sockets: the turn's arena, each connection's chain of segments into it, and the backlogs of
//! those whose socket is full.
//!
//! Bytes are written into the arena once and shared by every connection whose chain names them; a connection that
//! took everything holds nothing between turns. What a full socket did not take is copied out into a backlog (shared again
//! among those who miss the same bytes), and until the socket has room the backlog takes all that follows.
//!
//! Always true: a connection's bytes leave in the order of `append`; at most one send per socket and flush; a
//! backlog never exceeds its bound by more than one turn's chain, and its owner is then reported as slow.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;

use super::outlet::{ConnectionKey, Outgoing, Outlet, SendResult, Unsent};
use crate::base::hash::BuildIdentity;

const NONE: u32 = u32::MAX;

/// Slices of one send: the kernel takes at most 1024.
const SLICES_PER_SEND_MAX: usize = 512;

#[derive(Clone, Copy)]
struct Segment {
    start: u32,
    end: u32,
    next: u32,
}

/// 28 bytes, in an array of its own: fan-out walks these and nothing else of a connection.
#[derive(Clone, Copy)]
struct Outbox {
    /// The first segment lies here, since most turns bring just one.
    start: u32,
    end: u32,
    /// Further segments: first and last.
    next: u32,
    tail: u32,
    socket: i32,
    generation: u32,
    state: State,
    dirty: bool,
    /// Nothing may be appended any more; when all is sent the socket is half-closed.
    last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Vacant,
    Open,
    /// The socket is full: `backlogs` has an entry.
    Blocked,
    /// The socket has room again and the backlog goes first.
    Draining,
    /// The socket is dead: everything is dropped until the shell says goodbye.
    Dead,
}

#[derive(Default)]
struct Backlog {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

/// What one flush did.
#[derive(Default)]
pub struct Flushed {
    pub sends: u64,
    pub bytes: u64,
    pub short: u64,
    /// Connections whose backlog is above the bound.
    pub slow: Vec<ConnectionKey>,
    /// Connections marked as last that have nothing left to send.
    pub finished: Vec<(ConnectionKey, i32)>,
    pub backlog_bytes_high: u64,
}

pub struct Outboxes {
    arena: Vec<u8>,
    segments: Vec<Segment>,
    boxes: Vec<Outbox>,
    dirty: Vec<u32>,
    backlogs: HashMap<u64, Backlog, BuildIdentity>,
    backlog_bytes_max: usize,
    // Kept between flushes for their capacity.
    batch: Vec<u32>,
    unsent: Vec<Unsent>,
    shared: HashMap<u64, Bytes, BuildIdentity>,
}

impl Outboxes {
    pub fn new(backlog_bytes_max: usize) -> Self {
        Outboxes {
            arena: Vec::with_capacity(64 * 1024),
            segments: Vec::new(),
            boxes: Vec::new(),
            dirty: Vec::new(),
            backlogs: HashMap::default(),
            backlog_bytes_max,
            batch: Vec::new(),
            unsent: Vec::new(),
            shared: HashMap::default(),
        }
    }

    pub fn open(&mut self, connection: ConnectionKey, socket: i32) {
        let index = connection.index as usize;
        let vacant = Outbox {
            start: 0,
            end: 0,
            next: NONE,
            tail: NONE,
            socket: -1,
            generation: 0,
            state: State::Vacant,
            dirty: false,
            last: false,
        };
        if index >= self.boxes.len() {
            self.boxes.resize(index + 1, vacant);
        }
        assert!(self.boxes[index].state == State::Vacant, "an outbox is closed before its index is used again");
        // An index that was dirty when it closed is still listed: the mark must stay with the list.
        let dirty = self.boxes[index].dirty;
        self.boxes[index] = Outbox { socket, generation: connection.generation, state: State::Open, dirty, ..vacant };
    }

    /// Drops whatever is left. The socket is not touched any more.
    pub fn close(&mut self, connection: ConnectionKey) {
        let outbox = &mut self.boxes[connection.index as usize];
        assert_eq!(outbox.generation, connection.generation);
        outbox.state = State::Vacant;
        outbox.start = 0;
        outbox.end = 0;
        outbox.next = NONE;
        outbox.tail = NONE;
        outbox.last = false;
        self.backlogs.remove(&u64::from(connection.index));
    }

    /// Where new bytes are written; `append` then names them.
    pub fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// Writes bytes again that lie in the arena already, as joining pieces does.
    pub fn repeat(&mut self, range: Range<usize>) {
        self.arena.extend_from_within(range);
    }

    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Bytes of the arena, for those who encode from it.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.arena[range]
    }

    /// Puts a range of the arena at the end of a connection's chain.
    #[inline]
    pub fn append(&mut self, index: u32, range: Range<u32>) {
        let outbox = &mut self.boxes[index as usize];
        if outbox.last || matches!(outbox.state, State::Vacant | State::Dead) {
            return;
        }
        if !outbox.dirty {
            outbox.dirty = true;
            self.dirty.push(index);
        }
        if outbox.start == outbox.end {
            outbox.start = range.start;
            outbox.end = range.end;
            return;
        }
        if outbox.tail == NONE {
            if outbox.end == range.start {
                outbox.end = range.end;
                return;
            }
        } else {
            let tail = &mut self.segments[outbox.tail as usize];
            if tail.end == range.start {
                tail.end = range.end;
                return;
            }
        }
        let place = u32::try_from(self.segments.len()).expect("a turn has fewer than 2^32 segments");
        self.segments.push(Segment { start: range.start, end: range.end, next: NONE });
        match outbox.tail {
            NONE => outbox.next = place,
            tail => self.segments[tail as usize].next = place,
        }
        outbox.tail = place;
    }

    /// Nothing is appended after this; what is there is sent, then the connection is reported as finished.
    pub fn end(&mut self, connection: ConnectionKey) {
        let outbox = &mut self.boxes[connection.index as usize];
        if outbox.state == State::Vacant || outbox.generation != connection.generation {
            return;
        }
        outbox.last = true;
        if !outbox.dirty {
            outbox.dirty = true;
            self.dirty.push(connection.index);
        }
    }

    /// Drops what has not been passed to the socket yet, at a frame's border: of the backlog only the piece that the
    /// socket has begun stays, since half a frame would garble what follows it.
    pub fn drop_unsent(&mut self, connection: ConnectionKey) {
        let outbox = &mut self.boxes[connection.index as usize];
        outbox.start = 0;
        outbox.end = 0;
        outbox.next = NONE;
        outbox.tail = NONE;
        if let Some(backlog) = self.backlogs.get_mut(&u64::from(connection.index)) {
            backlog.chunks.truncate(1);
            backlog.bytes = backlog.chunks.iter().map(Bytes::len).sum();
        }
    }

    pub fn writable(&mut self, connection: ConnectionKey) {
        let outbox = &mut self.boxes[connection.index as usize];
        if outbox.generation != connection.generation || outbox.state != State::Blocked {
            return;
        }
        outbox.state = State::Draining;
        if !outbox.dirty {
            outbox.dirty = true;
            self.dirty.push(connection.index);
        }
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Bytes waiting for full sockets.
    pub fn backlog_bytes(&self) -> usize {
        self.backlogs.values().map(|backlog| backlog.bytes).sum()
    }

    pub fn blocked(&self) -> usize {
        self.backlogs.len()
    }

    /// Sends what every dirty connection has, each in one send, and empties the arena.
    pub fn flush(&mut self, outlet: &mut impl Outlet) -> Flushed {
        let mut flushed = Flushed::default();
        let mut dirty = std::mem::take(&mut self.dirty);
        self.batch.clear();
        for &index in &dirty {
            let outbox = &mut self.boxes[index as usize];
            outbox.dirty = false;
            match outbox.state {
                State::Open if outbox.start != outbox.end => self.batch.push(index),
                State::Open if outbox.last => flushed.finished.push((key(index, outbox), outbox.socket)),
                State::Draining => self.batch.push(index),
                State::Blocked => self.keep(index, 0, &mut flushed),
                State::Open | State::Vacant | State::Dead => {}
            }
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        unsent.clear();
        {
            let (boxes, segments, arena, backlogs) = (&self.boxes, &self.segments, &self.arena, &self.backlogs);
            let bytes_out = &mut flushed.bytes;
            let outgoing = self.batch.iter().map(|&index| {
                let outbox = &boxes[index as usize];
                let slices = slices(outbox, segments, arena, backlogs.get(&u64::from(index)));
                let bytes = slices.clone().map(<[u8]>::len).sum();
                *bytes_out += bytes as u64;
                Outgoing { connection: key(index, outbox), socket: outbox.socket, bytes, slices }
            });
            outlet.send(outgoing, &mut unsent);
        }
        flushed.sends = self.batch.len() as u64;
        let batch = std::mem::take(&mut self.batch);
        let mut failures = unsent.iter().peekable();
        // The completions may come in any order; the batch is walked in its own.
        let sorted = unsent.is_sorted_by_key(|unsent| unsent.index);
        let mut by_index: Vec<Unsent>;
        if !sorted {
            by_index = unsent.clone();
            by_index.sort_by_key(|unsent| unsent.index);
            failures = by_index.iter().peekable();
        }
        for (place, &index) in batch.iter().enumerate() {
            let failure = failures.next_if(|unsent| unsent.index == place);
            match failure.map(|unsent| unsent.result) {
                None => self.on_sent(index, &mut flushed),
                Some(SendResult::Short(taken)) => {
                    flushed.short += 1;
                    self.keep(index, taken, &mut flushed);
                }
                Some(SendResult::Failed) => {
                    self.boxes[index as usize].state = State::Dead;
                    self.clear_chain(index);
                    self.backlogs.remove(&u64::from(index));
                }
            }
        }
        self.batch = batch;
        self.unsent = unsent;
        self.shared.clear();
        dirty.clear();
        // A draining connection that sent its share but has more was marked dirty again meanwhile.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.arena.clear();
        self.segments.clear();
        // One burst must not be paid for in memory for ever.
        self.arena.shrink_to(1024 * 1024);
        self.segments.shrink_to(64 * 1024);
        flushed
    }

    /// Everything of this flush's share was taken.
    fn on_sent(&mut self, index: u32, flushed: &mut Flushed) {
        if self.boxes[index as usize].state == State::Draining {
            let backlog = self.backlogs.get_mut(&u64::from(index)).expect("a draining outbox has a backlog");
            let with_chain = sends_chain(backlog.chunks.len());
            let taken = backlog.chunks.len().min(SLICES_PER_SEND_MAX);
            backlog.bytes -= backlog.chunks.drain(..taken).map(|chunk| chunk.len()).sum::<usize>();
            if !with_chain {
                self.keep_chain(index, 0, flushed);
            }
            if self.backlogs[&u64::from(index)].chunks.is_empty() {
                self.backlogs.remove(&u64::from(index));
                self.boxes[index as usize].state = State::Open;
            } else {
                self.boxes[index as usize].dirty = true;
                self.dirty.push(index);
                return;
            }
        }
        self.clear_chain(index);
        let outbox = &self.boxes[index as usize];
        if outbox.last {
            flushed.finished.push((key(index, outbox), outbox.socket));
        }
    }

    /// The socket took `taken` bytes of backlog and chain: the rest becomes the backlog.
    fn keep(&mut self, index: u32, mut taken: usize, flushed: &mut Flushed) {
        let backlog = self.backlogs.entry(u64::from(index)).or_default();
        while taken > 0
            && let Some(front) = backlog.chunks.front_mut()
        {
            let cut = taken.min(front.len());
            taken -= cut;
            backlog.bytes -= cut;
            if cut == front.len() {
                backlog.chunks.pop_front();
            } else {
                bytes::Buf::advance(front, cut);
            }
        }
        self.keep_chain(index, taken, flushed);
        self.boxes[index as usize].state = State::Blocked;
    }

    /// Moves the chain, less its first `taken` bytes, into the backlog.
    fn keep_chain(&mut self, index: u32, mut taken: usize, flushed: &mut Flushed) {
        let outbox = self.boxes[index as usize];
        let backlog = self.backlogs.entry(u64::from(index)).or_default();
        for (start, end) in chain(&outbox, &self.segments) {
            let bytes = (end - start) as usize;
            if taken >= bytes {
                taken -= bytes;
                continue;
            }
            let whole = self
                .shared
                .entry(u64::from(start) << 32 | u64::from(end))
                .or_insert_with(|| Bytes::copy_from_slice(&self.arena[start as usize..end as usize]));
            backlog.bytes += bytes - taken;
            backlog.chunks.push_back(whole.slice(taken..));
            taken = 0;
        }
        assert_eq!(taken, 0, "a socket takes no more than it was given");
        flushed.backlog_bytes_high = flushed.backlog_bytes_high.max(backlog.bytes as u64);
        let slow = backlog.bytes > self.backlog_bytes_max;
        self.clear_chain(index);
        let outbox = &self.boxes[index as usize];
        if slow && !outbox.last {
            flushed.slow.push(key(index, outbox));
        }
    }

    fn clear_chain(&mut self, index: u32) {
        let outbox = &mut self.boxes[index as usize];
        outbox.start = 0;
        outbox.end = 0;
        outbox.next = NONE;
        outbox.tail = NONE;
    }
}

/// Whether the chain rides along with a backlog of so many chunks in one send.
const fn sends_chain(backlog_chunks: usize) -> bool {
    backlog_chunks < SLICES_PER_SEND_MAX
}

fn key(index: u32, outbox: &Outbox) -> ConnectionKey {
    ConnectionKey { index, generation: outbox.generation }
}

fn chain(outbox: &Outbox, segments: &[Segment]) -> impl Iterator<Item = (u32, u32)> + Clone {
    let first = (outbox.start != outbox.end).then_some((outbox.start, outbox.end));
    let mut at = outbox.next;
    let rest = std::iter::from_fn(move || {
        let segment = segments.get(at as usize)?;
        at = segment.next;
        Some((segment.start, segment.end))
    });
    first.into_iter().chain(rest)
}

/// What one send of this connection carries.
fn slices<'a>(
    outbox: &Outbox,
    segments: &'a [Segment],
    arena: &'a [u8],
    backlog: Option<&'a Backlog>,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    let chunks = backlog.map(|backlog| &backlog.chunks);
    let with_chain = chunks.is_none_or(|chunks| sends_chain(chunks.len()));
    let own = chain(outbox, segments).map(move |(start, end)| &arena[start as usize..end as usize]);
    let limit = if with_chain { usize::MAX } else { 0 };
    let kept = chunks.into_iter().flatten().take(SLICES_PER_SEND_MAX).map(|chunk| &chunk[..]);
    kept.chain(own.take(limit))
}
