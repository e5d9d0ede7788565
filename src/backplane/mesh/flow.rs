//! One flow: what a home worker of this node and a home worker of a peer have with each other.
//!
//! Interest goes both ways over it: a snapshot when its lane comes up, then deltas, each with the next sequence number and
//! acknowledged cumulatively once the other home worker has applied it. A subscriber's ticket waits here for
//! the acknowledgement that covers its hash. The flow knows whether a publication may be sent, is of no interest, or would
//! be lost; it does not hold publications, and it knows no lane but as a session number.
//!
//! Always true: the peer is waited for exactly while `is_in_view`; sequence numbers start anew with each session;
//! the peer's interest is kept while the lane is down, so that what it misses can be counted.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashSet;

use crate::backplane::envelope::{self, Phase};
use crate::backplane::interest::Ticket;
use crate::base::hash::{BuildIdentity, ChannelHash};
use crate::base::id::WorkerIndex;
use crate::base::time::Instant;

/// Hashes in one interest frame.
const HASHES_PER_FRAME_MAX: usize = 16 * 1024;

const _: () = assert!(HASHES_PER_FRAME_MAX * 8 * 2 < crate::limits::MESH_FRAME_BYTES_MAX);

/// How many times longer than a change a part of a snapshot may take to be acknowledged. With the same time for both, two
/// busy nodes of a million channels would never again have each other in view.
const SNAPSHOT_PATIENCE: u32 = 10;

/// What to do with a publication of some channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    /// The peer has no subscriber.
    Unwanted,
    Send,
    /// The peer has (or had, when last heard of) subscribers, but cannot be reached: count a GAP.
    Gap,
}

/// An interest frame that breaks the order of sequence numbers: the lane is closed and starts anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfSequence;

/// A peer's interest, in parts that grow one after the other: one table would leave half of itself behind at each doubling,
/// and a million channels would cost twice what they need.
#[derive(Default)]
struct Hashes {
    parts: [HashSet<u64, BuildIdentity>; 16],
}

impl Hashes {
    fn part(&mut self, hash: u64) -> &mut HashSet<u64, BuildIdentity> {
        &mut self.parts[(hash >> 60) as usize]
    }

    fn contains(&self, hash: u64) -> bool {
        self.parts[(hash >> 60) as usize].contains(&hash)
    }

    fn insert(&mut self, hash: u64) {
        self.part(hash).insert(hash);
    }

    fn remove(&mut self, hash: u64) {
        let part = self.part(hash);
        part.remove(&hash);
        if part.capacity() > 4096 && part.len() * 8 < part.capacity() {
            part.shrink_to(part.len() * 2);
        }
    }

    fn len(&self) -> usize {
        self.parts.iter().map(HashSet::len).sum()
    }
}

pub struct Flow {
    from: WorkerIndex,
    to: WorkerIndex,
    session: Option<u64>,

    // The peer's interest.
    remote: Box<Hashes>,
    /// A snapshot that is coming in; `remote` stays as it was until it is complete.
    incoming: Option<Box<Hashes>>,
    /// The snapshot of this session is complete.
    remote_ready: bool,
    remote_sequence: u64,
    acknowledgement_due: bool,

    // Our own interest, as told to the peer.
    changes: Vec<(u64, bool)>,
    sequence: u64,
    acknowledged: u64,
    snapshot_sequence: u64,
    synced: bool,
    waiting: VecDeque<(u64, Ticket)>,
    unacknowledged_since: Option<Instant>,

    /// Both were in view of each other once and are not now.
    gap_open: bool,
}

impl Flow {
    pub fn new(from: WorkerIndex, to: WorkerIndex) -> Self {
        Flow {
            from,
            to,
            session: None,
            remote: Box::default(),
            incoming: None,
            remote_ready: false,
            remote_sequence: 0,
            acknowledgement_due: false,
            changes: Vec::new(),
            sequence: 0,
            acknowledged: 0,
            snapshot_sequence: 0,
            synced: false,
            waiting: VecDeque::new(),
            unacknowledged_since: None,
            gap_open: false,
        }
    }

    pub fn to(&self) -> WorkerIndex {
        self.to
    }

    pub fn session(&self) -> Option<u64> {
        self.session
    }

    /// The peer has acknowledged our snapshot: subscribers wait for it from now on.
    pub fn is_in_view(&self) -> bool {
        self.synced
    }

    /// Both directions are in order: what either publishes reaches the other.
    pub fn is_synced(&self) -> bool {
        self.synced && self.remote_ready
    }

    pub fn has_gap(&self) -> bool {
        self.gap_open
    }

    pub fn remote_interest(&self) -> usize {
        self.remote.len()
    }

    /// The lane is up under a new session. Appends the snapshot of `hashes` to the control stream.
    pub fn on_lane_up(&mut self, now: Instant, session: u64, hashes: impl Iterator<Item = u64>, control: &mut Vec<u8>) {
        assert!(self.session.is_none(), "a lane goes down before it comes up again");
        assert!(self.waiting.is_empty(), "nobody waits for a lane that is down");
        self.session = Some(session);
        self.remote_sequence = 0;
        self.changes.clear();
        self.sequence = 0;
        self.acknowledged = 0;
        let mut part = Vec::with_capacity(1024);
        for hash in hashes {
            part.push(hash);
            if part.len() == HASHES_PER_FRAME_MAX {
                self.sequence += 1;
                self.append_interest(Phase::SnapshotPart, &part, &[], control);
                part.clear();
            }
        }
        self.sequence += 1;
        self.append_interest(Phase::SnapshotEnd, &part, &[], control);
        self.snapshot_sequence = self.sequence;
        self.unacknowledged_since = Some(now);
    }

    fn append_interest(&self, phase: Phase, add: &[u64], remove: &[u64], control: &mut Vec<u8>) {
        let interest = envelope::Interest { sequence: self.sequence, phase, add, remove };
        envelope::encode_interest(self.from, self.to, &interest, control);
    }

    /// The lane is down. Nobody waits for this peer any more: the tickets that did are returned.
    pub fn on_lane_down(&mut self) -> Vec<Ticket> {
        self.session = None;
        if self.synced && self.remote_ready {
            self.gap_open = true;
        }
        self.synced = false;
        self.remote_ready = false;
        self.incoming = None;
        self.acknowledgement_due = false;
        self.unacknowledged_since = None;
        self.changes.clear();
        self.waiting.drain(..).map(|(_, ticket)| ticket).collect()
    }

    /// The peer is gone for good: what it wanted is forgotten. Returns whether a gap was open.
    pub fn forget(&mut self) -> bool {
        *self.remote = Hashes::default();
        std::mem::take(&mut self.gap_open)
    }

    /// This node wants a hash, or does not any more.
    pub fn on_wanted(&mut self, hash: ChannelHash, wanted: bool) {
        if self.session.is_some() {
            self.changes.push((hash.0, wanted));
        }
    }

    /// Whether the ticket has to wait for this peer. Called after `on_wanted` for its hash.
    pub fn wait(&mut self, ticket: Ticket) -> bool {
        if !self.synced {
            return false;
        }
        let required = self.sequence + u64::from(!self.changes.is_empty());
        if self.acknowledged >= required {
            return false;
        }
        self.waiting.push_back((required, ticket));
        true
    }

    /// Whether a frame of the peer was in sequence. The acknowledgement leaves with the next flush.
    pub fn on_interest(
        &mut self,
        now: Instant,
        sequence: u64,
        phase: Phase,
        add: impl Iterator<Item = u64>,
        remove: impl Iterator<Item = u64>,
    ) -> Result<(), OutOfSequence> {
        if sequence != self.remote_sequence + 1 {
            return Err(OutOfSequence);
        }
        let in_snapshot = !self.remote_ready;
        match phase {
            Phase::SnapshotPart | Phase::SnapshotEnd if in_snapshot => {
                let incoming = self.incoming.get_or_insert_default();
                add.for_each(|hash| incoming.insert(hash));
                // Its acknowledgement of ours stands in line behind the rest of its own.
                if let Some(since) = &mut self.unacknowledged_since {
                    *since = now;
                }
                if phase == Phase::SnapshotEnd {
                    self.remote = self.incoming.take().unwrap_or_default();
                    self.remote_ready = true;
                }
            }
            Phase::Delta if !in_snapshot => {
                add.for_each(|hash| self.remote.insert(hash));
                remove.for_each(|hash| self.remote.remove(hash));
            }
            _ => return Err(OutOfSequence),
        }
        self.remote_sequence = sequence;
        self.acknowledgement_due = true;
        Ok(())
    }

    /// The peer has applied everything up to `sequence`. Returns the tickets that waited for it.
    pub fn on_acknowledged(&mut self, now: Instant, sequence: u64) -> Result<Vec<Ticket>, OutOfSequence> {
        if sequence > self.sequence || sequence < self.acknowledged {
            return Err(OutOfSequence);
        }
        self.acknowledged = sequence;
        if sequence >= self.snapshot_sequence {
            self.synced = true;
        }
        self.unacknowledged_since = (self.acknowledged < self.sequence).then_some(now);
        let mut tickets = Vec::new();
        while let Some(&(required, ticket)) = self.waiting.front()
            && required <= sequence
        {
            self.waiting.pop_front();
            tickets.push(ticket);
        }
        Ok(tickets)
    }

    /// The gap is over once both are synced again. True once, for whoever has to be told.
    pub fn take_healed(&mut self) -> bool {
        let healed = self.gap_open && self.is_synced();
        if healed {
            self.gap_open = false;
        }
        healed
    }

    /// When the peer has to have acknowledged, or sent more of its snapshot, if anything is out. Of a peer that is not in
    /// view the snapshot is out, which may be long, and nobody waits for it.
    pub fn acknowledge_deadline(&self, timeout: Duration) -> Option<Instant> {
        let timeout = if self.synced { timeout } else { timeout * SNAPSHOT_PATIENCE };
        self.unacknowledged_since.map(|since| since + timeout)
    }

    pub fn passage(&self, hash: ChannelHash) -> Passage {
        if !self.remote.contains(hash.0) {
            return Passage::Unwanted;
        }
        if self.session.is_some() && self.remote_ready { Passage::Send } else { Passage::Gap }
    }

    pub fn is_dirty(&self) -> bool {
        self.session.is_some() && (self.acknowledgement_due || !self.changes.is_empty())
    }

    /// Appends what the turn changed to the control stream.
    pub fn flush(&mut self, now: Instant, control: &mut Vec<u8>) {
        if self.session.is_none() {
            return;
        }
        if !self.changes.is_empty() {
            // The last word on each hash counts.
            let mut changes = std::mem::take(&mut self.changes);
            changes.reverse();
            changes.sort_by_key(|&(hash, _)| hash);
            changes.dedup_by_key(|&mut (hash, _)| hash);
            // Tickets of this turn wait for the next number; where it takes several frames, for the last of them.
            let frames = changes.chunks(HASHES_PER_FRAME_MAX).count() as u64;
            for (required, _) in self.waiting.iter_mut().rev().take_while(|(required, _)| *required > self.sequence) {
                *required = self.sequence + frames;
            }
            for part in changes.chunks(HASHES_PER_FRAME_MAX) {
                let add: Vec<u64> = part.iter().filter(|change| change.1).map(|change| change.0).collect();
                let remove: Vec<u64> = part.iter().filter(|change| !change.1).map(|change| change.0).collect();
                self.sequence += 1;
                self.append_interest(Phase::Delta, &add, &remove, control);
            }
            self.unacknowledged_since.get_or_insert(now);
        }
        if std::mem::take(&mut self.acknowledgement_due) {
            envelope::encode_interest_ack(self.from, self.to, self.remote_sequence, control);
        }
    }
}
