//! Lanes between nodes, as QUIC would have them, and who can reach whom.
//!
//! A stream is reliable and in order until its lane dies; then each side has lost an arbitrary suffix. The two streams of
//! a lane know no order between them. Datagrams are lost, doubled and delayed. A side that hears nothing for a second
//! gives up, without a word. A tap on every stream reads the frames that pass, for `watch`.

use std::collections::{BTreeMap, VecDeque};

use skein::backplane::mesh::handshake::Hello;
use skein::base::rng::Rng;
use skein::shard::outlet::{LaneKey, LaneStream};

use crate::defect::{Defect, Forger};
use crate::plan::{MILLI, Plan, SECOND, between};
use crate::queue::{Event, Queue};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LaneId(pub u64);

/// 0 has dialled, 1 has accepted.
pub type Side = usize;

pub const IDLE: u64 = SECOND;
pub const TICK: u64 = 150 * MILLI;
pub const STREAMS: [LaneStream; 2] = [LaneStream::Control, LaneStream::Publications];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndState {
    Shaking,
    Up,
    /// For its own node, it is over.
    Gone,
}

pub struct End {
    pub node: usize,
    pub life: u32,
    pub worker: usize,
    pub key: LaneKey,
    pub state: EndState,
    pub heard: u64,
    /// What this side writes.
    pub streams: [Stream; 2],
}

#[derive(Default)]
pub struct Stream {
    flight: VecDeque<(u64, Vec<u8>)>,
    /// Written and not yet read by the other node.
    pub unread: usize,
    last: u64,
    scheduled: bool,
    wants_room: bool,
    /// Of what this side has written.
    pub tap: Tap,
    /// Of what the other node has read.
    pub read_tap: Tap,
}

/// Cuts a stream into frames, after the HELLO on the control stream.
#[derive(Default)]
pub struct Tap {
    bytes: Vec<u8>,
    greeted: bool,
}

impl Tap {
    /// The frames that are whole now; `true` for the HELLO.
    pub fn feed(&mut self, stream: LaneStream, bytes: &[u8]) -> Vec<(bool, Vec<u8>)> {
        self.bytes.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut at = 0;
        if stream == LaneStream::Control && !self.greeted {
            match Hello::parse(&self.bytes) {
                Ok(Some((_, length))) => {
                    self.greeted = true;
                    at = length;
                    frames.push((true, self.bytes[..length].to_vec()));
                }
                Ok(None) => return frames,
                Err(bad) => panic!("a node greets with what is no HELLO: {bad:?}"),
            }
        }
        while let Some(length) = self.bytes.get(at..at + 4) {
            let end = at + 4 + u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
            let Some(frame) = self.bytes.get(at..end) else { break };
            frames.push((false, frame.to_vec()));
            at = end;
        }
        self.bytes.drain(..at);
        frames
    }
}

pub struct Lane {
    pub ends: [End; 2],
    pub token: u64,
}

#[derive(Default)]
pub struct Net {
    pub lanes: BTreeMap<LaneId, Lane>,
    made: u64,
    /// Nothing passes from one node to another.
    cut: Vec<Vec<bool>>,
    /// Datagrams of a thousand that are lost, and how late the others may be.
    pub storm: bool,
    pub defect: Option<Defect>,
    forger: Forger,
}

pub fn place(stream: LaneStream) -> usize {
    match stream {
        LaneStream::Control => 0,
        LaneStream::Publications => 1,
    }
}

impl Net {
    pub fn new(nodes: usize, defect: Option<Defect>) -> Net {
        Net { cut: vec![vec![false; nodes]; nodes], defect, ..Net::default() }
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from][to]
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut[from][to] = from != to;
    }

    pub fn any_cut(&self) -> bool {
        self.cut.iter().flatten().any(|&cut| cut)
    }

    /// What was held back comes within a retransmission's time.
    pub fn heal(&mut self, now: u64, from: usize, to: usize, queue: &mut Queue, rng: &mut Rng) {
        self.cut[from][to] = false;
        for (&id, lane) in &mut self.lanes {
            for side in 0..2 {
                if lane.ends[side].node != from || lane.ends[1 - side].node != to {
                    continue;
                }
                for stream in STREAMS {
                    let way = &mut lane.ends[side].streams[place(stream)];
                    if !way.flight.is_empty() && !way.scheduled {
                        way.scheduled = true;
                        queue.put(
                            now + between(rng, (0, 200 * MILLI)),
                            Event::Arrival { lane: id, to: 1 - side, stream },
                        );
                    }
                }
            }
        }
    }

    pub fn make(&mut self, lane: Lane) -> LaneId {
        self.made += 1;
        let id = LaneId(self.made);
        self.lanes.insert(id, lane);
        id
    }

    /// Takes as much as the window has room for.
    #[expect(clippy::too_many_arguments, reason = "one call of the outlet, and the world around it")]
    pub fn write(
        &mut self,
        now: u64,
        id: LaneId,
        side: Side,
        stream: LaneStream,
        bytes: &[u8],
        plan: &Plan,
        queue: &mut Queue,
        rng: &mut Rng,
    ) -> (usize, Vec<(bool, Vec<u8>)>) {
        let defect = self.defect;
        let Some(lane) = self.lanes.get_mut(&id) else { return (bytes.len(), Vec::new()) };
        let end = &mut lane.ends[side];
        if end.state != EndState::Up {
            // Whoever writes does not know it yet.
            return (bytes.len(), Vec::new());
        }
        let way = &mut end.streams[place(stream)];
        let room = plan.lane_window.saturating_sub(way.unread);
        // A planted defect acts on whole frames.
        let taken = if defect.is_some() && room > 0 { bytes.len() } else { bytes.len().min(room) };
        if taken < bytes.len() {
            way.wants_room = true;
        }
        if taken == 0 {
            return (0, Vec::new());
        }
        way.unread += taken;
        let frames = way.tap.feed(stream, &bytes[..taken]);
        let Some(defect) = defect else {
            send(way, now, bytes[..taken].to_vec(), plan, rng);
            self.schedule(now, id, side, stream, queue);
            return (taken, frames);
        };
        let mut answers = Vec::new();
        for (_, frame) in &frames {
            let fate = self.forger.fate(defect, id, side, frame.clone(), rng);
            for (delay, frame) in fate.sent {
                way.last = way.last.max(now + delay + between(rng, plan.latency));
                way.flight.push_back((way.last, frame));
            }
            answers.extend(fate.answered);
        }
        for answer in answers {
            let back = &mut lane.ends[1 - side].streams[place(LaneStream::Control)];
            back.last = back.last.max(now + between(rng, plan.latency));
            back.flight.push_back((back.last, answer));
        }
        self.schedule(now, id, side, stream, queue);
        self.schedule(now, id, 1 - side, LaneStream::Control, queue);
        (taken, frames)
    }

    fn schedule(&mut self, now: u64, id: LaneId, side: Side, stream: LaneStream, queue: &mut Queue) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let blocked = self.cut[lane.ends[side].node][lane.ends[1 - side].node];
        let way = &mut lane.ends[side].streams[place(stream)];
        if let Some(&(at, _)) = way.flight.front()
            && !way.scheduled
            && !blocked
        {
            way.scheduled = true;
            queue.put(at.max(now), Event::Arrival { lane: id, to: 1 - side, stream });
        }
    }

    /// What has arrived at a side by now, in one piece or several.
    pub fn arrive(&mut self, now: u64, id: LaneId, to: Side, stream: LaneStream, queue: &mut Queue) -> Vec<Vec<u8>> {
        let Some(lane) = self.lanes.get_mut(&id) else { return Vec::new() };
        let [from_node, to_node] = [lane.ends[1 - to].node, lane.ends[to].node];
        let gone = lane.ends[to].state == EndState::Gone;
        // What comes before the handshake is over waits for it.
        let shaking = lane.ends[to].state == EndState::Shaking;
        let way = &mut lane.ends[1 - to].streams[place(stream)];
        way.scheduled = false;
        if shaking {
            return Vec::new();
        }
        if gone {
            way.flight.clear();
            return Vec::new();
        }
        if self.cut[from_node][to_node] {
            return Vec::new();
        }
        let mut arrived = Vec::new();
        while way.flight.front().is_some_and(|&(at, _)| at <= now) {
            arrived.extend(way.flight.pop_front().map(|(_, bytes)| bytes));
        }
        // A healed path delivers what is overdue at once, later pieces at their time.
        self.schedule(now, id, 1 - to, stream, queue);
        arrived
    }

    /// The node has read bytes: there is room again on the way that brought them. Whether the writer has to be told.
    pub fn consumed(
        &mut self,
        id: LaneId,
        by: Side,
        stream: LaneStream,
        bytes: &[u8],
        window: usize,
    ) -> (bool, Vec<(bool, Vec<u8>)>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return (false, Vec::new()) };
        let way = &mut lane.ends[1 - by].streams[place(stream)];
        way.unread = way.unread.saturating_sub(bytes.len());
        let frames = if stream == LaneStream::Control { way.read_tap.feed(stream, bytes) } else { Vec::new() };
        let tell = way.wants_room && way.unread * 2 <= window;
        if tell {
            way.wants_room = false;
        }
        (tell, frames)
    }

    /// One side is over. What it had written and is still under way arrives in part; what was coming to it is lost.
    /// The time by which the last of it is there.
    pub fn end_side(&mut self, now: u64, id: LaneId, side: Side, rng: &mut Rng) -> u64 {
        let Some(lane) = self.lanes.get_mut(&id) else { return now };
        lane.ends[side].state = EndState::Gone;
        let mut last = now;
        for way in &mut lane.ends[side].streams {
            let keep = rng.below(way.flight.len() as u64 + 1) as usize;
            way.flight.truncate(keep);
            last = last.max(way.flight.back().map_or(now, |&(at, _)| at));
        }
        for way in &mut lane.ends[1 - side].streams {
            way.flight.clear();
        }
        if lane.ends.iter().all(|end| end.state == EndState::Gone) {
            self.lanes.remove(&id);
        }
        last
    }
}

fn send(way: &mut Stream, now: u64, bytes: Vec<u8>, plan: &Plan, rng: &mut Rng) {
    // Half of the time in two pieces, so that frames are cut anywhere.
    let cut = if rng.chance(1, 2) { rng.below(bytes.len() as u64) as usize } else { 0 };
    let mut bytes = bytes;
    let rest = bytes.split_off(cut);
    for piece in [bytes, rest] {
        if !piece.is_empty() {
            way.last = way.last.max(now + between(rng, plan.latency));
            way.flight.push_back((way.last, piece));
        }
    }
}
