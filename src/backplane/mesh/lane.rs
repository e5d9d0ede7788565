//! One lane at the worker that owns it: bytes in to frames, frames out to bytes, each with its bound.
//!
//! It knows neither QUIC nor interest. Control frames are never dropped: their queue is bounded by the state that they
//! describe, and a peer that lets it grow beyond any such state is closed. Publications have a bounded queue, and
//! what does not fit is dropped for this peer alone and told as a GAP in the same stream, in its place.
//!
//! Always true: frames of one stream leave in the order of `push_*`; after a gap no publication is queued before
//! the GAP frame is.

use crate::backplane::envelope::{self, BadFrame, Gap, Splitter};
use crate::base::id::WorkerIndex;
use std::ops::ControlFlow;

/// Far above any snapshot that a node can have to tell: 16 million channels.
const CONTROL_BYTES_MAX: usize = 192 * 1024 * 1024;

/// Hashes that a GAP names; with more it is told of the whole flow.
const GAP_HASHES_MAX: usize = 64;

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    sent: usize,
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn pending(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn advance(&mut self, taken: usize) {
        self.sent += taken;
        assert!(self.sent <= self.bytes.len(), "no more is taken than was offered");
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(256 * 1024);
            self.sent = 0;
        } else if self.sent > 256 * 1024 && self.sent * 2 > self.bytes.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// Publications that were dropped and not told yet, for one flow.
struct Dropped {
    from: WorkerIndex,
    to: WorkerIndex,
    whole_flow: bool,
    hashes: Vec<u64>,
    count: u64,
}

/// The bytes that come in, cut into frames. Apart from `Lane`, so that a frame that is lent can be answered.
#[derive(Default)]
pub struct Incoming {
    control: Splitter,
    publications: Splitter,
}

impl Incoming {
    pub fn on_control(&mut self, bytes: &[u8], on_frame: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), BadFrame> {
        self.control.feed(bytes, on_frame)
    }

    pub fn on_publications(
        &mut self,
        bytes: &[u8],
        on_frame: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), BadFrame> {
        self.publications.feed(bytes, on_frame)
    }
}

/// What goes out.
pub struct Lane {
    control: Queue,
    publications: Queue,
    queue_bytes_max: usize,
    dropped: Vec<Dropped>,
    queue_bytes_high: usize,
}

/// The peer does not read its control stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlOverflow;

impl Lane {
    pub fn new(queue_bytes_max: usize) -> Self {
        Lane {
            control: Queue::default(),
            publications: Queue::default(),
            queue_bytes_max,
            dropped: Vec::new(),
            queue_bytes_high: 0,
        }
    }

    pub fn push_control(&mut self, frames: &[u8]) -> Result<(), ControlOverflow> {
        if self.control.len() + frames.len() > CONTROL_BYTES_MAX {
            return Err(ControlOverflow);
        }
        self.control.bytes.extend_from_slice(frames);
        Ok(())
    }

    /// Queues whole publication frames of one flow, which carry the given hashes. False: no room, so they are
    /// dropped and the peer is told as soon as there is.
    pub fn push_publications(
        &mut self,
        from: WorkerIndex,
        to: WorkerIndex,
        frames: &[u8],
        hashes: impl Iterator<Item = u64>,
    ) -> bool {
        self.tell_gaps();
        if self.dropped.is_empty() && self.publications.len() + frames.len() <= self.queue_bytes_max {
            self.publications.bytes.extend_from_slice(frames);
            self.queue_bytes_high = self.queue_bytes_high.max(self.publications.len());
            return true;
        }
        let at = match self.dropped.iter().position(|dropped| (dropped.from, dropped.to) == (from, to)) {
            Some(at) => at,
            None => {
                self.dropped.push(Dropped { from, to, whole_flow: false, hashes: Vec::new(), count: 0 });
                self.dropped.len() - 1
            }
        };
        let dropped = &mut self.dropped[at];
        for hash in hashes {
            dropped.count += 1;
            if !dropped.whole_flow && !dropped.hashes.contains(&hash) {
                dropped.whole_flow = dropped.hashes.len() == GAP_HASHES_MAX;
                if !dropped.whole_flow {
                    dropped.hashes.push(hash);
                }
            }
        }
        false
    }

    /// Puts the GAP frames into the stream once half of the queue is free again, so that they are not followed at once
    /// by the next drop.
    fn tell_gaps(&mut self) {
        if self.dropped.is_empty() || self.publications.len() * 2 > self.queue_bytes_max {
            return;
        }
        for dropped in self.dropped.drain(..) {
            let hashes: &[u64] = if dropped.whole_flow { &[] } else { &dropped.hashes };
            let gap = Gap { whole_flow: dropped.whole_flow, hashes, dropped: dropped.count };
            envelope::encode_gap(dropped.from, dropped.to, &gap, &mut self.publications.bytes);
        }
    }

    pub fn has_pending(&self) -> bool {
        self.control.len() > 0 || self.publications.len() > 0 || !self.dropped.is_empty()
    }

    /// Offers what is queued, control first. `write` returns how much was taken.
    pub fn flush(
        &mut self,
        mut write_control: impl FnMut(&[u8]) -> usize,
        mut write_publications: impl FnMut(&[u8]) -> usize,
    ) {
        if self.control.len() > 0 {
            let taken = write_control(self.control.pending());
            self.control.advance(taken);
        }
        self.tell_gaps();
        self.write_publications(&mut write_publications);
        if !self.dropped.is_empty() {
            // There is room only now, and perhaps nothing else to send for a long time.
            self.tell_gaps();
            self.write_publications(&mut write_publications);
        }
    }

    fn write_publications(&mut self, mut write: impl FnMut(&[u8]) -> usize) {
        if self.publications.len() > 0 {
            let taken = write(self.publications.pending());
            self.publications.advance(taken);
        }
    }

    pub fn queued_bytes(&self) -> usize {
        self.control.len() + self.publications.len()
    }

    pub fn queue_bytes_high(&self) -> usize {
        self.queue_bytes_high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::envelope::{Frame, decode};

    #[test]
    fn a_gap_is_told_as_soon_as_there_is_room_even_if_nothing_follows() {
        let mut lane = Lane::new(1000);
        assert!(lane.push_publications(0, 1, &[7; 900], [1].into_iter()));
        assert!(!lane.push_publications(0, 1, &[7; 900], [2].into_iter()));
        let mut sent = Vec::new();
        lane.flush(
            |_| 0,
            |bytes| {
                sent.extend_from_slice(bytes);
                bytes.len()
            },
        );
        assert!(!lane.has_pending());
        let (header, Frame::Gap { whole_flow, hashes, dropped }) = decode(&sent[900..]).unwrap() else { panic!() };
        assert_eq!((header.from, header.to, whole_flow, dropped), (0, 1, false, 1));
        assert_eq!(hashes.iter().collect::<Vec<_>>(), [2]);
    }
}
