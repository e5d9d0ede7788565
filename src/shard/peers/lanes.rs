//! Lanes: from the handshake over HELLO to their peer, and down again.

use super::{Greeting, LaneEntry, REDIAL_MAX, REDIAL_MIN, gcd};
use crate::backplane::mesh::close;
use crate::backplane::mesh::handshake::{Hello, Refused};
use crate::backplane::mesh::lane::Lane;
use crate::base::id::{Generation, NodeId};
use crate::base::time::Now;
use crate::metrics::{DropReason, MeshRefusal};
use crate::shard::mail::Mail;
use crate::shard::outlet::{LaneKey, LaneStream};
use crate::shard::{LaneDown, LaneOpened, LaneStats, Shard};
use std::net::SocketAddr;

impl Shard {
    // ---- told by the shell

    /// Addresses that the seeds' names stand for just now. Worker 0 only.
    pub fn on_seeds(&mut self, now: Now, addresses: &[SocketAddr]) {
        if let Some(cluster) = &mut self.peers.cluster {
            cluster.on_seeds(now, addresses);
            self.pump_cluster(now);
        }
    }

    pub fn on_lane_up(&mut self, now: Now, lane: LaneKey, opened: LaneOpened) {
        let Some(hello) = &self.peers.hello else { return };
        let mut entry = LaneEntry {
            lane: Lane::new(self.options.lane_queue_bytes_max),
            incoming: Some(Box::default()),
            names: opened.names,
            remote: opened.remote,
            dialled: None,
            sought: None,
            token: opened.dial,
            greeting: Greeting::Awaited { until: now.mono + self.options.hello_timeout, bytes: Vec::new() },
            peer: None,
            writable_control: true,
            writable_publications: true,
            stats: LaneStats::default(),
        };
        if let Some(token) = opened.dial {
            // The dialler speaks first: only it knows which lane this is to be.
            let sought = self.peers.dialling.remove(&token);
            let index = sought.as_ref().map_or(0, |&(_, index)| index);
            entry.dialled = Some(index);
            entry.sought = sought.map(|(id, _)| id);
            say_hello(&mut entry, &hello.with_lane(index, opened.dial.unwrap_or_default()));
            self.peers.lanes_dirty = true;
        }
        self.peers.lanes.insert(lane, entry);
    }

    pub fn on_dial_failed(&mut self, now: Now, token: u64, why: &str) {
        if let Some((id, index)) = self.peers.dialling.remove(&token) {
            self.schedule_redial(now, &id, index);
        } else if let Some(cluster) = &mut self.peers.cluster {
            tracing::debug!(why, "a dial came to nothing");
            cluster.on_dial_failed(now, token, None);
            self.pump_cluster(now);
        }
    }

    pub fn on_lane_bytes(&mut self, now: Now, lane: LaneKey, stream: LaneStream, bytes: &[u8]) {
        let Some(entry) = self.peers.lanes.get_mut(&lane) else { return };
        if stream == LaneStream::Control
            && let Greeting::Awaited { bytes: gathered, .. } = &mut entry.greeting
        {
            gathered.extend_from_slice(bytes);
            self.on_greeting(now, lane);
            return;
        }
        if let Some((id, _, index)) = &entry.peer {
            self.counters.lane_mut(id, *index).bytes_in += bytes.len() as u64;
        }
        self.on_frames(now, lane, stream, bytes);
    }

    pub fn on_lane_datagram(&mut self, now: Now, lane: LaneKey, bytes: &[u8]) {
        let greeted = self.peers.lanes.get(&lane).is_some_and(|entry| entry.peer.is_some());
        match &mut self.peers.cluster {
            Some(cluster) if greeted => {
                cluster.on_datagram(now, lane.0, bytes);
                self.pump_cluster(now);
            }
            _ => self.counters.mesh_refused(MeshRefusal::Datagram),
        }
    }

    pub fn on_lane_writable(&mut self, _now: Now, lane: LaneKey) {
        if let Some(entry) = self.peers.lanes.get_mut(&lane) {
            entry.writable_control = true;
            entry.writable_publications = true;
            self.peers.lanes_dirty |= entry.lane.has_pending();
        }
    }

    pub fn on_lane_down(&mut self, now: Now, lane: LaneKey, why: LaneDown) {
        if self.peers.lanes.contains_key(&lane) {
            if let Some(entry) = self.peers.lanes.get(&lane)
                && let Some((id, _, index)) = &entry.peer
            {
                tracing::info!(peer = %id, lane = index, ?why, "lane down");
            }
            self.drop_lane(now, lane, &why);
            self.pump_cluster(now);
        }
    }

    /// Told about once a second for each lane.
    pub fn on_lane_stats(&mut self, lane: LaneKey, stats: LaneStats) {
        if let Some(entry) = self.peers.lanes.get_mut(&lane) {
            entry.stats = stats;
        }
    }

    // ---- greeting

    fn on_greeting(&mut self, now: Now, lane: LaneKey) {
        let entry = self.peers.lanes.get_mut(&lane).expect("the caller has found it");
        let Greeting::Awaited { bytes, .. } = &mut entry.greeting else { return };
        let (hello, used) = match Hello::parse(bytes) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return,
            Err(error) => return self.refuse_hello(now, lane, None, Refused::from(error)),
        };
        let rest = bytes.split_off(used);
        // The dialler chose the lane; the other side only has to be able to be its end.
        let index = entry.dialled.unwrap_or(hello.lane);
        let ours = self.peers.hello.as_ref().expect("lanes exist only in a mesh").with_lane(index, 0);
        let mut checked = hello.check(&ours, &entry.names);
        let another = entry.sought.as_ref().is_some_and(|sought| *sought != hello.id);
        if checked.is_ok() && (another || index % self.workers != self.worker) {
            checked = Err(Refused::LaneOutOfRange);
        }
        if let Err(refused) = checked {
            return self.refuse_hello(now, lane, Some(&hello), refused);
        }
        if index == 0 {
            if entry.dialled.is_none() {
                say_hello(entry, &ours);
                self.peers.lanes_dirty = true;
            }
            entry.greeting = Greeting::Done;
            // Named at once, so that datagrams are taken; the cluster may still close it as one too many.
            entry.peer = Some((hello.id.clone(), hello.generation, 0));
            let (remote, dialled) = (entry.remote, entry.token);
            let cluster = self.peers.cluster.as_mut().expect("lane 0 ends on worker 0");
            cluster.on_peer_up(now, &hello, lane.0, remote, dialled);
            self.pump_cluster(now);
        } else {
            let until = now.mono + self.options.hello_timeout;
            entry.greeting = Greeting::Unmatched { until, hello: Box::new(hello) };
            self.match_lane(now, lane);
        }
        if !rest.is_empty() {
            self.on_frames(now, lane, LaneStream::Control, &rest);
        }
    }

    /// A lane above 0 finds its peer, if worker 0 has told of it already.
    pub(super) fn match_lane(&mut self, now: Now, lane: LaneKey) {
        let Some(entry) = self.peers.lanes.get_mut(&lane) else { return };
        let Greeting::Unmatched { hello, .. } = &entry.greeting else { return };
        let Some(peer) = self.peers.by_id.get(&hello.id) else { return };
        if peer.info.generation != hello.generation || peer.down {
            return;
        }
        let (id, generation, index) = (hello.id.clone(), hello.generation, hello.lane);
        if entry.dialled.is_none() {
            // Not before: the dialler takes our HELLO as leave to speak, and we listen only to whom we know.
            let ours = self.peers.hello.as_ref().expect("lanes exist only in a mesh").with_lane(index, 0);
            say_hello(entry, &ours);
            self.peers.lanes_dirty = true;
        }
        entry.greeting = Greeting::Done;
        entry.peer = Some((id.clone(), generation, index));
        self.attach(now, &id, index, lane);
    }

    /// The lane carries the peer's flows from now on.
    pub(super) fn attach(&mut self, now: Now, id: &NodeId, index: u16, lane: LaneKey) {
        let peer = self.peers.by_id.get_mut(id).expect("lanes are attached to peers that are known");
        let slot = peer.lanes.get_mut(&index).expect("HELLO was checked against the lanes of this worker");
        let replaced = slot.up.replace(lane);
        slot.redial_at = None;
        slot.dialling = false;
        slot.backoff = REDIAL_MIN;
        let (generation, theirs) = (peer.info.generation, peer.info.workers);
        if let Some(old) = replaced.filter(|&old| old != lane) {
            self.announce_lane(now, id, generation, theirs, index, old, false);
            self.peers.lanes.remove(&old);
            self.peers.close_lane(old, close::REPLACED, "another lane took its place");
        }
        self.counters.lane_mut(id, index).ups_total += 1;
        tracing::info!(peer = %id, lane = index, "lane up");
        self.announce_lane(now, id, generation, theirs, index, lane, true);
    }

    /// Tells the home workers of this node whose flows a lane carries that it is up or down.
    #[expect(clippy::too_many_arguments, reason = "what a lane is called takes this many words")]
    pub(super) fn announce_lane(
        &mut self,
        now: Now,
        id: &NodeId,
        generation: Generation,
        theirs: u16,
        lane: u16,
        key: LaneKey,
        up: bool,
    ) {
        let stride = gcd(self.workers, theirs);
        for home in 0..self.workers {
            let carries = if theirs >= self.workers { home % stride == lane % stride } else { home == lane };
            if carries {
                let mail = Mail::LaneState { id: id.clone(), generation, lane, session: key.0, up };
                self.post(now, home, mail);
            }
        }
    }

    fn refuse_hello(&mut self, now: Now, lane: LaneKey, hello: Option<&Hello>, refused: Refused) {
        let entry = self.peers.lanes.get(&lane).expect("the caller has found it");
        if refused != Refused::Myself {
            let peer = hello.map(|hello| hello.id.as_str()).unwrap_or_default();
            tracing::warn!(peer, remote = %entry.remote, "refused: {refused}");
        }
        let metric = match refused {
            Refused::NameNotInCertificate => MeshRefusal::Name,
            Refused::Duplicate => MeshRefusal::Generation,
            _ => MeshRefusal::Hello,
        };
        self.counters.mesh_refused(metric);
        self.peers.close_lane(lane, refused.code(), refused.sentence());
        self.drop_refused_lane(now, lane, &LaneDown::Local, Some(refused));
        self.pump_cluster(now);
    }

    pub(super) fn refuse_lane(&mut self, now: Now, lane: LaneKey, code: u32, reason: &str, metric: MeshRefusal) {
        self.counters.mesh_refused(metric);
        self.peers.close_lane(lane, code, reason);
        self.drop_lane(now, lane, &LaneDown::Local);
        self.pump_cluster(now);
    }

    /// Forgets a lane, whoever ended it.
    pub(super) fn drop_lane(&mut self, now: Now, lane: LaneKey, why: &LaneDown) {
        self.drop_refused_lane(now, lane, why, None);
    }

    fn drop_refused_lane(&mut self, now: Now, lane: LaneKey, why: &LaneDown, refused: Option<Refused>) {
        let Some(entry) = self.peers.lanes.remove(&lane) else { return };
        if entry.lane.queued_bytes() > 0 && entry.peer.is_some() {
            self.counters.dropped(DropReason::LaneLost, 1);
        }
        let zero = entry.dialled == Some(0) || entry.peer.as_ref().is_some_and(|(_, _, index)| *index == 0);
        if let Some((id, generation, index)) = &entry.peer
            && let Some(peer) = self.peers.by_id.get_mut(id)
            && peer.info.generation == *generation
            && let Some(slot) = peer.lanes.get_mut(index)
            && slot.up == Some(lane)
        {
            slot.up = None;
            let theirs = peer.info.workers;
            self.announce_lane(now, id, *generation, theirs, *index, lane, false);
            if *index > 0 {
                self.schedule_redial(now, id, *index);
            }
        } else if let (Some(id), Some(index)) = (&entry.sought, entry.dialled) {
            self.schedule_redial(now, id, index);
        }
        if zero && let Some(cluster) = &mut self.peers.cluster {
            match why {
                LaneDown::Peer { code, .. } if entry.peer.is_some() => cluster.on_peer_closed_lane(now, lane.0, *code),
                LaneDown::Peer { code, .. } => {
                    // It looked connected to us, but the other side, which has the last word, refused.
                    if let Some(token) = entry.token {
                        cluster.on_dial_failed(now, token, Refused::from_code(u64::from(*code)));
                    }
                }
                LaneDown::Local | LaneDown::Lost(_) if entry.peer.is_some() => {
                    cluster.on_peer_lane_down(now, lane.0, false);
                }
                LaneDown::Local | LaneDown::Lost(_) => {
                    if let Some(token) = entry.token {
                        cluster.on_dial_failed(now, token, refused);
                    }
                }
            }
        }
    }

    fn schedule_redial(&mut self, now: Now, id: &NodeId, index: u16) {
        let Some(peer) = self.peers.by_id.get_mut(id) else { return };
        let Some(slot) = peer.lanes.get_mut(&index) else { return };
        // Whatever follows: this attempt is over, and the next time the peer is up it is dialled again.
        slot.dialling = false;
        if peer.dial && !peer.down && slot.up.is_none() {
            slot.backoff = (slot.backoff * 2).clamp(REDIAL_MIN, REDIAL_MAX);
            slot.redial_at = Some(now.mono + slot.backoff);
        }
    }
}

fn say_hello(entry: &mut LaneEntry, hello: &Hello) {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    let sent = entry.lane.push_control(&bytes);
    assert!(sent.is_ok(), "an empty queue takes a HELLO");
}
