//! What the cluster machine on worker 0 wants done, and what the other workers hear of it.

use super::{GOODBYE_GRACE, Greeting, Peer, REDIAL_MIN, lane_of};
use crate::backplane::envelope::{self, Frame};
use crate::backplane::mesh::close;
use crate::backplane::mesh::cluster::{Action, Gone, PeerInfo, PeerState};
use crate::backplane::mesh::handshake::Refused;
use crate::base::id::{Generation, NodeId, WorkerIndex};
use crate::base::time::Now;
use crate::limits::PEERS_MAX;
use crate::metrics::{self, DropReason, MeshRefusal};
use crate::shard::mail::Mail;
use crate::shard::outlet::LaneKey;
use crate::shard::peers::LANE_TOKENS;
use crate::shard::survey::{LaneStatus, MemberStatus, PeerFlows};
use crate::shard::{LaneDown, Shard};
use std::net::SocketAddr;

impl Shard {
    pub(in crate::shard) fn on_peers_deadline(&mut self, now: Now) {
        let Some(cluster) = &mut self.peers.cluster else {
            self.on_lane_deadlines(now);
            return;
        };
        if cluster.poll_deadline().is_some_and(|at| at <= now.mono) {
            cluster.on_deadline(now);
        }
        self.peers.goodbyes.retain(|&(at, lane)| {
            let over = at <= now.mono;
            if over {
                cluster.on_peer_lane_down(now, lane.0, true);
            }
            !over
        });
        self.on_lane_deadlines(now);
        self.pump_cluster(now);
    }

    fn on_lane_deadlines(&mut self, now: Now) {
        self.on_acknowledge_deadlines(now);
        let late: Vec<LaneKey> = self
            .peers
            .lanes
            .iter()
            .filter(|(_, entry)| match &entry.greeting {
                Greeting::Awaited { until, .. } | Greeting::Unmatched { until, .. } => *until <= now.mono,
                Greeting::Done => false,
            })
            .map(|(&key, _)| key)
            .collect();
        for key in late {
            self.refuse_lane(now, key, Refused::TooLate.code(), "no HELLO in time", MeshRefusal::Hello);
        }
        let due: Vec<(NodeId, u16)> = self
            .peers
            .by_id
            .iter()
            .flat_map(|(id, peer)| peer.lanes.iter().map(move |(&index, slot)| (id, index, slot)))
            .filter(|(_, _, slot)| slot.redial_at.is_some_and(|at| at <= now.mono))
            .map(|(id, index, _)| (id.clone(), index))
            .collect();
        for (id, index) in due {
            self.dial_lane(&id, index);
        }
    }

    fn dial_lane(&mut self, id: &NodeId, index: u16) {
        let Some(peer) = self.peers.by_id.get_mut(id) else { return };
        let port = peer.info.remote.port().saturating_add(index % peer.info.workers);
        let remote = SocketAddr::new(peer.info.remote.ip(), port);
        let slot = peer.lanes.get_mut(&index).expect("only lanes of this worker are dialled");
        slot.redial_at = None;
        slot.dialling = true;
        let token = self.peers.next_token;
        self.peers.next_token = LANE_TOKENS | (token + 1);
        self.peers.dialling.insert(token, (id.clone(), index));
        self.peers.dials.push((remote, token));
    }

    pub(in crate::shard) fn pump_cluster(&mut self, now: Now) {
        // What an action brings about comes after it: a peer's new life must not begin inside the end of its old one.
        if std::mem::replace(&mut self.peers.pumping, true) {
            return;
        }
        while let Some(action) = self.peers.cluster.as_mut().and_then(|cluster| cluster.poll_action()) {
            self.on_action(now, action);
        }
        self.peers.pumping = false;
    }

    fn on_action(&mut self, now: Now, action: Action) {
        match action {
            Action::Dial { token, address } => self.peers.dials.push((address, token)),
            Action::Datagram { lane, bytes } => self.peers.datagrams.push((LaneKey(lane), bytes)),
            Action::RequestMembers { lane } => self.send_on_lane_zero(now, lane, envelope::encode_members_request),
            Action::SendMembers { lane, members } => {
                self.send_on_lane_zero(now, lane, |out| envelope::encode_members(&members, out));
            }
            Action::SendGoodbye { lane } => self.send_on_lane_zero(now, lane, envelope::encode_goodbye),
            Action::CloseLane { lane, code, reason } => {
                let key = LaneKey(lane);
                self.peers.close_lane(key, code, reason);
                self.drop_lane(now, key, &LaneDown::Local);
            }
            Action::PeerConnected { peer, lane, we_dial_the_rest } => {
                for worker in 0..self.workers {
                    self.post(now, worker, Mail::PeerUp { peer: peer.clone(), dial: we_dial_the_rest });
                }
                let key = LaneKey(lane);
                if let Some(entry) = self.peers.lanes.get_mut(&key) {
                    entry.peer = Some((peer.id.clone(), peer.generation, 0));
                    self.attach(now, &peer.id, 0, key);
                }
            }
            Action::PeerGone { id, generation, how } => {
                let forever = !matches!(how, Gone::Down);
                for worker in 0..self.workers {
                    self.post(now, worker, Mail::PeerGone { id: id.clone(), generation, forever });
                }
            }
            Action::Ready { alone: _ } => {
                self.start_reports(now);
                for worker in 0..self.workers {
                    self.post(now, worker, Mail::Ready);
                }
            }
            Action::Log(transition) if transition.is_warning() => tracing::warn!("{transition}"),
            Action::Log(transition) => tracing::info!("{transition}"),
            Action::FatalDuplicate { id, reason } => {
                self.peers.fatal = Some(format!("{reason}: give this node another name than {id}"));
            }
        }
    }

    fn send_on_lane_zero(&mut self, now: Now, lane: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        let key = LaneKey(lane);
        let Some(entry) = self.peers.lanes.get_mut(&key) else { return };
        let mut frames = Vec::new();
        encode(&mut frames);
        self.peers.lanes_dirty = true;
        if entry.lane.push_control(&frames).is_err() {
            let reason = "the peer does not read its control stream";
            self.refuse_lane(now, key, close::OVERFLOW, reason, MeshRefusal::Limit);
        }
    }

    pub(super) fn on_cluster_frame(&mut self, now: Now, id: &NodeId, generation: Generation, frame: &Frame<'_>) {
        let Some(cluster) = &mut self.peers.cluster else { return };
        match frame {
            Frame::MembersRequest => cluster.on_members_request(now, id),
            Frame::Members(members) => cluster.on_members(now, id, members),
            Frame::Goodbye => {
                let lane = self.peers.by_id.get(id).filter(|peer| peer.info.generation == generation);
                let lane = lane.and_then(|peer| peer.lanes.get(&0)).and_then(|slot| slot.up);
                if let Some(lane) = lane.filter(|lane| self.peers.goodbyes.iter().all(|(_, other)| other != lane)) {
                    self.peers.goodbyes.push((now.mono + GOODBYE_GRACE, lane));
                }
            }
            Frame::Report(report) => self.surveys.on_peer_report(now, id, generation, report),
            _ => unreachable!("only these concern the cluster"),
        }
        self.pump_cluster(now);
    }

    // ---- by mail from worker 0, worker 0 included

    pub(in crate::shard) fn on_peer_mail(&mut self, now: Now, from: WorkerIndex, mail: Mail) {
        match mail {
            Mail::PeerUp { peer, dial } => self.on_peer_up(now, peer, dial),
            Mail::PeerGone { id, generation, forever } => self.on_peer_gone(now, &id, generation, forever),
            Mail::CloseLanes { id, generation, code, reason } => {
                self.on_close_lanes(now, &id, generation, code, reason)
            }
            Mail::LaneState { id, generation, lane, session, up } => {
                self.on_lane_state(now, &id, generation, lane, session, up);
            }
            Mail::LaneOut { session, from, to, stream, frames, hashes, .. } => {
                self.on_lane_out(now, session, from, to, stream, &frames, &hashes);
            }
            Mail::LaneIn { id, generation, session, frame, .. } => {
                if let Err(why) = self.on_frame(now, &id, generation, session, &frame) {
                    tracing::warn!(peer = %id, "a peer broke the rules: {why}");
                    for worker in 0..self.workers {
                        let (id, code) = (id.clone(), close::BAD_FRAME);
                        self.post(now, worker, Mail::CloseLanes { id, generation, code, reason: why });
                    }
                }
            }
            Mail::PeerSynced { id, generation, synced } => self.on_peer_synced(now, from, id, generation, synced),
            _ => unreachable!("only mail about peers comes here"),
        }
    }

    fn on_peer_up(&mut self, now: Now, info: PeerInfo, dial: bool) {
        if let Some(known) = self.peers.by_id.get_mut(&info.id) {
            if known.info.generation == info.generation && known.info.workers == info.workers {
                known.info = info.clone();
                known.dial = dial;
                known.down = false;
            } else {
                let (id, generation) = (info.id.clone(), known.info.generation);
                self.on_peer_gone(now, &id, generation, true);
            }
        }
        if !self.peers.by_id.contains_key(&info.id) {
            self.forget_one_if_full();
            let peer = Peer::new(info.clone(), dial, self.worker, self.workers);
            self.peers.by_id.insert(info.id.clone(), peer);
        }
        if dial {
            let indices: Vec<u16> = self.peers.by_id[&info.id]
                .lanes
                .iter()
                .filter(|(index, slot)| **index > 0 && slot.up.is_none() && !slot.dialling)
                .map(|(&index, _)| index)
                .collect();
            for index in indices {
                self.dial_lane(&info.id, index);
            }
        }
        let unmatched: Vec<LaneKey> = self
            .peers
            .lanes
            .iter()
            .filter(|(_, entry)| matches!(&entry.greeting, Greeting::Unmatched { hello, .. } if hello.id == info.id))
            .map(|(&key, _)| key)
            .collect();
        for key in unmatched {
            self.match_lane(now, key);
        }
    }

    /// Peers that are down are remembered for their open gaps, the oldest names not for ever.
    fn forget_one_if_full(&mut self) {
        if self.peers.by_id.len() < PEERS_MAX {
            return;
        }
        let down = self.peers.by_id.iter().find(|(_, peer)| peer.down).map(|(id, _)| id.clone());
        if let Some(id) = down {
            self.peers.by_id.remove(&id);
        }
    }

    fn on_peer_gone(&mut self, now: Now, id: &NodeId, generation: Generation, forever: bool) {
        if self.peers.by_id.get(id).is_none_or(|peer| peer.info.generation != generation) {
            return;
        }
        self.on_close_lanes(now, id, generation, close::DOWN, "this node was declared gone");
        let peer = self.peers.by_id.get_mut(id).expect("found above");
        peer.down = true;
        for slot in peer.lanes.values_mut() {
            slot.redial_at = None;
        }
        let theirs = peer.info.workers;
        let mut tickets = Vec::new();
        let mut gaps = Vec::new();
        let mut lost = Vec::new();
        for (flow, pending) in peer.flows.iter_mut().zip(&mut peer.pending) {
            if flow.is_synced() {
                lost.push(lane_of(self.workers, theirs, self.worker, flow.to()));
            }
            tickets.extend(flow.on_lane_down());
            self.counters.dropped(DropReason::LaneLost, pending.len() as u64);
            pending.clear();
            if flow.has_gap() {
                gaps.push(flow.to());
            }
            flow.forget();
        }
        peer.gaps += u64::from(!lost.is_empty());
        // The worker of a lane may not have told yet that it is down.
        for lane in lost {
            self.counters.gap(id, lane, metrics::Gap::View);
        }
        if forever {
            self.peers.by_id.remove(id);
            self.surveys.forget_peer(id);
        }
        self.on_tickets(now, tickets);
        for from in gaps {
            self.tell_gap(now, |hash| hash.home(theirs) == from);
        }
    }

    /// All lanes of this worker to the peer.
    fn on_close_lanes(&mut self, now: Now, id: &NodeId, generation: Generation, code: u32, reason: &str) {
        let lanes: Vec<LaneKey> = self
            .peers
            .lanes
            .iter()
            .filter(|(_, entry)| entry.peer.as_ref().is_some_and(|(other, life, _)| other == id && *life == generation))
            .map(|(&key, _)| key)
            .collect();
        for key in lanes {
            self.peers.close_lane(key, code, reason);
            self.drop_lane(now, key, &LaneDown::Local);
        }
        if self.worker == 0 {
            self.pump_cluster(now);
        }
    }

    fn on_peer_synced(&mut self, now: Now, from: WorkerIndex, id: NodeId, generation: Generation, synced: bool) {
        let workers = usize::from(self.workers);
        let entry = self.peers.synced.entry(id.clone()).or_insert_with(|| (generation, vec![false; workers]));
        if entry.0 != generation {
            if entry.0 > generation {
                return;
            }
            *entry = (generation, vec![false; workers]);
        }
        entry.1[usize::from(from)] = synced;
        let all = entry.1.iter().all(|&synced| synced);
        let was = self.peers.in_view.get(&id) == Some(&generation);
        let Some(cluster) = &mut self.peers.cluster else { return };
        if all && !was {
            tracing::info!(peer = %id, "in view on all lanes");
            self.peers.in_view.insert(id.clone(), generation);
            cluster.on_in_view(now, &id);
        } else if !all && was {
            self.peers.in_view.remove(&id);
            cluster.on_out_of_view(now, &id);
        }
        if !entry.1.contains(&true) {
            self.peers.synced.remove(&id);
        }
        self.pump_cluster(now);
    }

    // ---- the end

    pub(in crate::shard) fn leave_mesh(&mut self, now: Now) {
        if let Some(cluster) = &mut self.peers.cluster {
            cluster.on_leave(now);
            self.pump_cluster(now);
        }
        for peer in self.peers.by_id.values_mut() {
            peer.dial = false;
            for slot in peer.lanes.values_mut() {
                slot.redial_at = None;
                slot.backoff = REDIAL_MIN;
            }
        }
    }

    pub(in crate::shard) fn send_to_all_on_lane_zero(&mut self, now: Now, frame: &[u8]) {
        let lanes: Vec<u64> = self
            .peers
            .lanes
            .iter()
            .filter(|(_, entry)| entry.peer.as_ref().is_some_and(|(_, _, index)| *index == 0))
            .map(|(key, _)| key.0)
            .collect();
        for lane in lanes {
            self.send_on_lane_zero(now, lane, |out| out.extend_from_slice(frame));
        }
    }

    /// The life of this node; 0 when it runs alone.
    pub(in crate::shard) fn generation(&self) -> Generation {
        self.peers.hello.as_ref().map_or(Generation(0), |hello| hello.generation)
    }

    // ---- what others are shown

    pub(in crate::shard) fn lane_statuses(&self) -> Vec<LaneStatus> {
        let mut statuses = Vec::new();
        for (id, peer) in self.peers.by_id.iter().filter(|(_, peer)| !peer.down) {
            for (&lane, slot) in &peer.lanes {
                let entry = slot.up.and_then(|key| self.peers.lanes.get(&key));
                statuses.push(LaneStatus {
                    peer: id.to_string(),
                    lane,
                    worker: self.worker,
                    up: entry.is_some(),
                    rtt_micros: entry.map_or(0, |entry| entry.stats.rtt_micros),
                    lost_packets: entry.map_or(0, |entry| entry.stats.lost_packets),
                    queued_bytes: entry.map_or(0, |entry| entry.lane.queued_bytes() as u64),
                    queued_bytes_high: entry.map_or(0, |entry| entry.lane.queue_bytes_high() as u64),
                });
            }
        }
        statuses
    }

    /// Counters of peers that are no more are forgotten, but not those of a peer that was started again.
    pub(in crate::shard) fn forget_counters(&mut self) {
        let Shard { peers, counters, .. } = self;
        counters.keep_peers(|id| peers.by_id.contains_key(id));
    }

    pub(in crate::shard) fn peer_flows(&self) -> Vec<PeerFlows> {
        self.peers
            .by_id
            .iter()
            .map(|(id, peer)| PeerFlows {
                peer: id.to_string(),
                worker: self.worker,
                synced: peer.is_synced(),
                gap_open: peer.has_gap(),
                gaps: peer.gaps,
                gap_publications: peer.gap_publications,
                interest: peer.remote_interest(),
            })
            .collect()
    }

    pub(in crate::shard) fn member_statuses(&self, now: Now) -> Vec<MemberStatus> {
        let Some(cluster) = &self.peers.cluster else { return Vec::new() };
        cluster
            .peers()
            .map(|member| MemberStatus {
                name: member.id.to_string(),
                generation: member.generation.0,
                state: state_name(member.state),
                in_view: self.peers.in_view.get(member.id) == Some(&member.generation),
                addresses: member.addresses.iter().map(ToString::to_string).collect(),
                workers: member.workers,
                client: member.client.to_owned(),
                told: self.told_by(now, member.id, member.generation),
            })
            .collect()
    }

    /// Why the process must not go on, if so.
    pub fn fatal(&self) -> Option<&str> {
        self.peers.fatal.as_deref()
    }

    pub(in crate::shard) fn in_view(&self) -> impl Iterator<Item = &NodeId> {
        self.peers.in_view.keys()
    }

    /// Whether a life of a peer is in view on all lanes. Worker 0 knows.
    pub fn has_in_view(&self, id: &NodeId, generation: Generation) -> bool {
        self.peers.in_view.get(id) == Some(&generation)
    }

    /// This worker's flow with a worker of a peer's life: whether it is in order in both directions, and whether a gap
    /// is open.
    pub fn flow_view(&self, id: &NodeId, generation: Generation, to: WorkerIndex) -> Option<(bool, bool)> {
        let peer = self.peers.by_id.get(id).filter(|peer| peer.info.generation == generation)?;
        let flow = peer.flows.iter().find(|flow| flow.to() == to)?;
        Some((flow.is_synced(), flow.has_gap()))
    }

    /// This worker's part in what the node has with a peer.
    pub fn peer_views(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.peers.by_id.iter().map(|(id, peer)| PeerView {
            id,
            generation: peer.info.generation,
            synced: peer.is_synced(),
            gap_open: peer.has_gap(),
            remote_interest: peer.remote_interest(),
            queued_bytes: peer
                .lanes
                .values()
                .filter_map(|slot| self.peers.lanes.get(&slot.up?))
                .map(|entry| entry.lane.queued_bytes())
                .sum(),
        })
    }
}

/// What a worker has with a peer, for whoever watches the shard from outside.
#[derive(Clone, Copy, Debug)]
pub struct PeerView<'a> {
    pub id: &'a NodeId,
    pub generation: Generation,
    /// All flows of this worker are in order in both directions.
    pub synced: bool,
    /// Publications may have been lost since it opened.
    pub gap_open: bool,
    /// Channel hashes that the peer wants of this worker.
    pub remote_interest: usize,
    /// In the lanes that this worker owns.
    pub queued_bytes: usize,
}

const fn state_name(state: PeerState) -> &'static str {
    match state {
        PeerState::Unmet => "unmet",
        PeerState::Alive => "alive",
        PeerState::Suspect => "suspect",
        PeerState::Down => "down",
        PeerState::Left => "left",
    }
}
