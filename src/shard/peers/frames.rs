//! Frames between home workers: in from the lanes, out to them, over this node's other workers where that is the way.

use std::ops::ControlFlow;

use super::{LaneEntry, Peer, lane_of};
use crate::backplane::envelope::{self, Frame, Gap, Kind};
use crate::backplane::mesh::close;
use crate::base::hash::ChannelHash;
use crate::base::id::{Generation, NodeId, WorkerIndex};
use crate::base::time::Now;
use crate::metrics::{self, DropReason, MeshRefusal, Source};
use crate::shard::Shard;
use crate::shard::mail::Mail;
use crate::shard::outlet::{LaneKey, LaneStream, Outlet};

impl Shard {
    // ---- in

    pub(super) fn on_frames(&mut self, now: Now, key: LaneKey, stream: LaneStream, bytes: &[u8]) {
        let Some(entry) = self.peers.lanes.get_mut(&key) else { return };
        // Taken out while it lends its frames, so that they can be acted upon.
        let mut incoming = entry.incoming.take().expect("frames of one lane are not read from within each other");
        let mut refused = None;
        let on_frame = |frame: &[u8]| match self.on_lane_frame(now, key, frame) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                refused = Some(why);
                ControlFlow::Break(())
            }
        };
        let fed = match stream {
            LaneStream::Control => incoming.on_control(bytes, on_frame),
            LaneStream::Publications => incoming.on_publications(bytes, on_frame),
        };
        // It may have gone down over what it said.
        let Some(entry) = self.peers.lanes.get_mut(&key) else { return };
        entry.incoming = Some(incoming);
        let why = refused.or_else(|| fed.err().map(|bad| bad.sentence()));
        if let Some(why) = why {
            tracing::warn!(lane = key.0, "a peer broke the rules: {why}");
            self.refuse_lane(now, key, close::BAD_FRAME, why, MeshRefusal::Frame);
        }
    }

    /// On the lane's worker: a frame for this worker is read, one for another goes on.
    fn on_lane_frame(&mut self, now: Now, key: LaneKey, frame: &[u8]) -> Result<(), &'static str> {
        let Some(LaneEntry { peer: Some((id, generation, _)), .. }) = self.peers.lanes.get(&key) else {
            // A peer may speak before worker 0 has told who it is; nothing is lost, since it repeats all in its snapshot
            // only after our own HELLO. Whoever does it nevertheless is closed.
            return Err("it spoke before it was known");
        };
        let (id, generation) = (id.clone(), *generation);
        let header = envelope::decode_header(frame).map_err(|bad| bad.sentence())?;
        if header.to >= self.workers {
            return Err("a frame is for a worker that this node does not have");
        }
        if header.to == self.worker {
            return self.on_frame(now, &id, generation, key.0, frame);
        }
        let publications = header.kind == Kind::Publications;
        let mail = Mail::LaneIn { id, generation, session: key.0, publications, frame: frame.to_vec() };
        if !publications {
            self.outgoing.control(header.to, mail);
        } else if let Err(Mail::LaneIn { id, .. }) = self.outgoing.publication(header.to, mail) {
            self.counters.dropped(DropReason::LaneMailboxFull, 1);
            let mut gap = Vec::new();
            let told = Gap { whole_flow: true, hashes: &[], dropped: 1 };
            envelope::encode_gap(header.from, header.to, &told, &mut gap);
            let mail = Mail::LaneIn { id, generation, session: key.0, publications: false, frame: gap };
            self.outgoing.control(header.to, mail);
        }
        Ok(())
    }

    /// A frame for this worker as home worker.
    pub(super) fn on_frame(
        &mut self,
        now: Now,
        id: &NodeId,
        generation: Generation,
        session: u64,
        frame: &[u8],
    ) -> Result<(), &'static str> {
        let (header, frame) = envelope::decode(frame).map_err(|bad| bad.sentence())?;
        match frame {
            Frame::MembersRequest | Frame::Members(_) | Frame::Goodbye | Frame::Report(_) => {
                self.on_cluster_frame(now, id, generation, &frame);
                return Ok(());
            }
            Frame::Publications(_) | Frame::Gap { .. } | Frame::Interest { .. } | Frame::InterestAck { .. } => {}
        }
        let Some(peer) = self.peers.by_id.get_mut(id) else { return Ok(()) };
        if peer.info.generation != generation || header.from >= peer.info.workers {
            return Ok(());
        }
        if header.from % peer.flow_stride != self.worker % peer.flow_stride {
            return Err("a frame is of a flow that cannot be");
        }
        let place = peer.flow_place(header.from);
        let flow = &mut peer.flows[place];
        if flow.session() != Some(session) {
            // Of a lane that this worker was told is down: its GAP is counted.
            return Ok(());
        }
        match frame {
            Frame::Publications(batch) => {
                for publication in batch.iter() {
                    if publication.hash.home(self.workers) != self.worker {
                        return Err("a publication is not at home here");
                    }
                    self.counters.published(Source::Peer);
                    self.deliver_on_node(&publication);
                }
            }
            Frame::Gap { whole_flow, hashes, dropped } => {
                peer.gaps += 1;
                peer.gap_publications += dropped;
                let (theirs, from) = (peer.info.workers, header.from);
                let lane = lane_of(self.workers, theirs, self.worker, from);
                self.counters.gap(id, lane, metrics::Gap::In);
                let hashes: Vec<u64> = hashes.iter().collect();
                self.tell_gap(now, |hash| hash.home(theirs) == from && (whole_flow || hashes.contains(&hash.0)));
            }
            Frame::Interest { sequence, phase, add, remove } => {
                flow.on_interest(now.mono, sequence, phase, add.iter(), remove.iter())
                    .map_err(|_| "interest is out of sequence")?;
                self.update_synced(now, id);
            }
            Frame::InterestAck { sequence } => {
                let tickets =
                    flow.on_acknowledged(now.mono, sequence).map_err(|_| "an acknowledgement is out of sequence")?;
                self.on_tickets(now, tickets);
                self.update_synced(now, id);
            }
            Frame::MembersRequest | Frame::Members(_) | Frame::Goodbye | Frame::Report(_) => {}
        }
        Ok(())
    }

    /// Tells worker 0 when all flows of this worker with a peer are in order, or not any more.
    fn update_synced(&mut self, now: Now, id: &NodeId) {
        let Some(peer) = self.peers.by_id.get_mut(id) else { return };
        let theirs = peer.info.workers;
        let healed: Vec<WorkerIndex> =
            peer.flows.iter_mut().filter_map(|flow| flow.take_healed().then_some(flow.to())).collect();
        let synced = peer.is_synced();
        if synced != peer.synced_told {
            peer.synced_told = synced;
            let mail = Mail::PeerSynced { id: id.clone(), generation: peer.info.generation, synced };
            self.post(now, 0, mail);
        }
        for from in healed {
            self.tell_gap(now, |hash| hash.home(theirs) == from);
        }
    }

    // ---- the lane of a flow comes and goes

    pub(super) fn on_lane_state(
        &mut self,
        now: Now,
        id: &NodeId,
        generation: Generation,
        lane: u16,
        session: u64,
        up: bool,
    ) {
        let Some(peer) = self.peers.by_id.get_mut(id) else { return };
        if peer.info.generation != generation {
            return;
        }
        let theirs = peer.info.workers;
        let mut tickets = Vec::new();
        let mut snapshots = Vec::new();
        let mut lost = false;
        for (flow, pending) in peer.flows.iter_mut().zip(&mut peer.pending) {
            let to = flow.to();
            if lane_of(self.workers, theirs, self.worker, to) != lane {
                continue;
            }
            if flow.session().is_some() && (up || flow.session() == Some(session)) {
                lost |= flow.is_synced();
                tickets.extend(flow.on_lane_down());
                // They were let through on the strength of the old session; to the new one they are unasked.
                self.counters.dropped(DropReason::LaneLost, pending.len() as u64);
                peer.gap_publications += pending.len() as u64;
                pending.clear();
            }
            if up {
                let mut control = Vec::new();
                let hashes = self.interest.hashes().filter(|&hash| ChannelHash(hash).home(theirs) == to);
                flow.on_lane_up(now.mono, session, hashes, &mut control);
                snapshots.push((to, control));
            }
        }
        if lost {
            peer.gaps += 1;
            self.counters.views_lost += 1;
            self.counters.gap(id, lane, metrics::Gap::View);
            tracing::warn!(peer = %id, lane, "out of view: a gap is open until it is back");
        }
        for (to, control) in snapshots {
            self.send_control(now, id, to, session, control);
        }
        self.update_synced(now, id);
        self.on_tickets(now, tickets);
    }

    // ---- out

    /// Control frames of a flow, by way of its lane's worker.
    fn send_control(&mut self, now: Now, id: &NodeId, to: WorkerIndex, session: u64, frames: Vec<u8>) {
        let Some(peer) = self.peers.by_id.get(id) else { return };
        let lane = lane_of(self.workers, peer.info.workers, self.worker, to);
        let owner = lane % self.workers;
        let mail = Mail::LaneOut {
            id: id.clone(),
            session,
            from: self.worker,
            to,
            stream: LaneStream::Control,
            frames,
            hashes: Vec::new(),
        };
        self.post(now, owner, mail);
    }

    /// On the lane's worker: frames of a flow join the lane's queue.
    #[expect(clippy::too_many_arguments, reason = "the fields of one kind of mail")]
    pub(super) fn on_lane_out(
        &mut self,
        now: Now,
        session: u64,
        from: WorkerIndex,
        to: WorkerIndex,
        stream: LaneStream,
        frames: &[u8],
        hashes: &[u64],
    ) {
        let key = LaneKey(session);
        let Some(entry) = self.peers.lanes.get_mut(&key) else {
            if stream == LaneStream::Publications {
                self.counters.dropped(DropReason::LaneLost, hashes.len() as u64);
            }
            return;
        };
        self.peers.lanes_dirty = true;
        match stream {
            LaneStream::Control => {
                if entry.lane.push_control(frames).is_err() {
                    let reason = "the peer does not read its control stream";
                    self.refuse_lane(now, key, close::OVERFLOW, reason, MeshRefusal::Limit);
                }
            }
            LaneStream::Publications => {
                if !entry.lane.push_publications(from, to, frames, hashes.iter().copied()) {
                    self.counters.dropped(DropReason::LaneFull, hashes.len() as u64);
                    if let Some((id, _, index)) = &entry.peer
                        && let Some(peer) = self.peers.by_id.get_mut(id)
                    {
                        peer.gaps += 1;
                        peer.gap_publications += hashes.len() as u64;
                        self.counters.gap(id, *index, metrics::Gap::Out);
                    }
                }
                let high = entry.lane.queue_bytes_high() as u64;
                self.counters.lane_queue_bytes_high = self.counters.lane_queue_bytes_high.max(high);
            }
        }
    }

    /// Everything for peers leaves: what the turn changed in interest, its publications, then the lanes' queues.
    pub(in crate::shard) fn flush_peers(&mut self, now: Now, outlet: &mut impl Outlet) {
        self.flush_flows(now);
        self.turn_publications.clear();
        if std::mem::take(&mut self.peers.lanes_dirty) {
            for (&key, entry) in &mut self.peers.lanes {
                let LaneEntry { lane, peer, writable_control, writable_publications, .. } = entry;
                let cell = std::cell::RefCell::new((&mut *outlet, 0));
                let write = |stream, writable: &mut bool, bytes: &[u8]| {
                    if !*writable {
                        return 0;
                    }
                    let (outlet, written) = &mut *cell.borrow_mut();
                    let taken = outlet.lane_write(key, stream, bytes);
                    *writable = taken == bytes.len();
                    *written += taken as u64;
                    taken
                };
                lane.flush(
                    |bytes| write(LaneStream::Control, writable_control, bytes),
                    |bytes| write(LaneStream::Publications, writable_publications, bytes),
                );
                if let (Some((id, _, index)), (_, written @ 1..)) = (&*peer, cell.into_inner()) {
                    self.counters.lane_mut(id, *index).bytes_out += written;
                }
            }
        }
        for (lane, bytes) in self.peers.datagrams.drain(..) {
            outlet.lane_datagram(lane, &bytes);
        }
        for (remote, token) in self.peers.dials.drain(..) {
            outlet.lane_dial(remote, token);
        }
        for (lane, code, reason) in self.peers.closes.drain(..) {
            outlet.lane_close(lane, code, &reason);
        }
    }

    fn flush_flows(&mut self, now: Now) {
        let mut scratch = std::mem::take(&mut self.peers.scratch);
        let ids: smallvec::SmallVec<[NodeId; 8]> = self
            .peers
            .by_id
            .iter()
            .filter(|(_, peer)| peer.has_publications() || peer.flows.iter().any(|flow| flow.is_dirty()))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            let flows = self.peers.by_id[&id].flows.len();
            for place in 0..flows {
                // A lane that cannot take its control frames is closed, which may be the end of its peer.
                let Some(peer) = self.peers.by_id.get_mut(&id) else { break };
                let flow = &mut peer.flows[place];
                let to = flow.to();
                let Some(session) = flow.session() else {
                    assert!(peer.pending[place].is_empty(), "what is pending is let through by a session");
                    continue;
                };
                if flow.is_dirty() {
                    let mut control = Vec::new();
                    flow.flush(now.mono, &mut control);
                    self.send_control(now, &id, to, session, control);
                }
                let Some(peer) = self.peers.by_id.get_mut(&id) else { break };
                if peer.pending[place].is_empty() {
                    continue;
                }
                let mut pending = std::mem::take(&mut peer.pending[place]);
                scratch.clear();
                self.turn_publications.encode(self.worker, to, &pending, &self.outboxes, &mut scratch);
                let hashes: Vec<u64> = pending.iter().map(|&(_, hash)| hash).collect();
                self.send_publications(now, &id, to, session, &scratch, hashes);
                pending.clear();
                if let Some(peer) = self.peers.by_id.get_mut(&id) {
                    peer.pending[place] = pending;
                }
            }
        }
        self.peers.scratch = scratch;
    }

    fn send_publications(
        &mut self,
        now: Now,
        id: &NodeId,
        to: WorkerIndex,
        session: u64,
        frames: &[u8],
        hashes: Vec<u64>,
    ) {
        let lane = lane_of(self.workers, self.peers.by_id[id].info.workers, self.worker, to);
        let owner = lane % self.workers;
        let stream = LaneStream::Publications;
        if owner == self.worker {
            self.on_lane_out(now, session, self.worker, to, stream, frames, &hashes);
            return;
        }
        let frames = frames.to_vec();
        let mail = Mail::LaneOut { id: id.clone(), session, from: self.worker, to, stream, frames, hashes };
        if let Err(Mail::LaneOut { hashes, .. }) = self.outgoing.publication(owner, mail) {
            self.counters.dropped(DropReason::LaneMailboxFull, hashes.len() as u64);
            let peer = self.peers.by_id.get_mut(id).expect("nothing removes peers here");
            peer.gaps += 1;
            peer.gap_publications += hashes.len() as u64;
            self.counters.gap(id, lane, metrics::Gap::Out);
            let mut gap = Vec::new();
            let told = Gap { whole_flow: true, hashes: &[], dropped: hashes.len() as u64 };
            envelope::encode_gap(self.worker, to, &told, &mut gap);
            self.send_control(now, id, to, session, gap);
        }
    }

    /// Peers that have not acknowledged in time are taken out of view: all their lanes are closed.
    pub(super) fn on_acknowledge_deadlines(&mut self, now: Now) {
        let timeout = self.options.acknowledge_timeout;
        let late = |peer: &Peer| {
            peer.flows.iter().any(|flow| flow.acknowledge_deadline(timeout).is_some_and(|at| at <= now.mono))
        };
        let late: Vec<(NodeId, Generation)> = self
            .peers
            .by_id
            .iter()
            .filter(|(_, peer)| late(peer))
            .map(|(id, peer)| (id.clone(), peer.info.generation))
            .collect();
        for (id, generation) in late {
            tracing::warn!(peer = %id, "it does not acknowledge interest: its lanes are closed");
            for worker in 0..self.workers {
                let mail = Mail::CloseLanes {
                    id: id.clone(),
                    generation,
                    code: close::OUT_OF_VIEW,
                    reason: "interest was not acknowledged in time",
                };
                self.post(now, worker, mail);
            }
            // Those whose lane another worker owns stop waiting at once, not when its mail comes.
            // On worker 0 the close may have ended it altogether.
            let Some(peer) = self.peers.by_id.get(&id).filter(|peer| peer.info.generation == generation) else {
                continue;
            };
            let sessions: Vec<(u16, u64)> = peer
                .flows
                .iter()
                .filter_map(|flow| {
                    let lane = lane_of(self.workers, peer.info.workers, self.worker, flow.to());
                    flow.session().map(|session| (lane, session))
                })
                .collect();
            for (lane, session) in sessions {
                self.on_lane_state(now, &id, generation, lane, session, false);
            }
        }
    }
}
