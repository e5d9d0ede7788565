//! What worker 0 knows of the cluster: whom to dial, who is there, and when this node is ready.
//!
//! Two detectors feed it and are kept apart. Lanes tell who can be reached: losing one touches only the view. Gossip
//! tells who lives: only its Down, a goodbye, or a later life of the same name makes a peer gone. Lanes are numbers here;
//! the shard opens and closes them, compares HELLOs (`handshake`) and says when all flows with a peer are in sync.
//!
//! Joining: dial the seeds; ask each peer for its members, which it answers only once it has us in view; dial whoever
//! is new; ready when nobody is left. Two nodes that join at once through a third are known to it one after the
//! other, so the later one hears of the earlier one before it is ready.
//!
//! Always true: at most one lane 0 for each peer; at most `PEERS_MAX` peers are remembered; once ready, always ready.

mod action;
mod dials;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

pub use action::{Action, ClusterCounters, Gone, PeerInfo, PeerState, PeerStatus, Transition};
use dials::SPECULATIVE;
use peer::{Attempt, BACKOFF_MIN, FAILURES_MAX, Lane, Peer, Rank, Redial, Seed};

use super::close;
use super::handshake::{Hello, Refused};
use super::membership::{Event, Identity, Membership, State};
use crate::backplane::envelope::Member;
use crate::base::id::{Generation, NodeId};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Now};
use crate::limits::{NODE_ADDRESSES_MAX, PEERS_MAX};

/// What a node waits that has just heard of a peer and has the higher name: the other one dials.
const COURTESY: Duration = Duration::from_millis(150);
/// A lane that stood for so long is not one of two dials that crossed: who dials anew has lost it.
const CROSSING: Duration = Duration::from_secs(4);
/// How long gossip may call a peer dead whose lane still stands: it has not heard yet, and objects when it does.
const DOWN_GRACE: Duration = Duration::from_secs(3);
/// How often a peer with a lane is told of us while gossip does not think it alive.
const ANNOUNCE_PERIOD: Duration = Duration::from_millis(700);
/// How long others may say that our name is taken before we believe it: the old life may have died just now.
const DUPLICATE_PATIENCE: Duration = Duration::from_secs(4);
/// A peer that left is shown and remembered for so long.
const LEFT_REMEMBERED: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub id: NodeId,
    pub generation: Generation,
    /// Where others reach our lane 0.
    pub advertise: Vec<SocketAddr>,
    pub workers: u16,
    /// With no answer from any seed by then, this node is a cluster of one.
    pub join_timeout: Duration,
    /// There is nobody to wait for: no seeds, or no certificates. Others may still come.
    pub alone: bool,
}

pub struct Cluster {
    options: ClusterOptions,
    rng: Rng,
    membership: Membership,
    seeds: BTreeMap<SocketAddr, Seed>,
    /// Seed addresses that turned out to be ours.
    ourselves: BTreeSet<SocketAddr>,
    peers: BTreeMap<NodeId, Peer>,
    lanes: BTreeMap<u64, NodeId>,
    actions: VecDeque<Action>,
    ready: bool,
    leaving: bool,
    /// Until then a seed may answer; none when it is over.
    join_until: Option<Instant>,
    announce_at: Option<Instant>,
    duplicate_until: Option<Instant>,
    fatal: bool,
    counters: ClusterCounters,
}

impl Cluster {
    pub fn new(options: ClusterOptions, mut rng: Rng, now: Now) -> Self {
        let identity = Identity {
            id: options.id.clone(),
            generation: options.generation,
            renewal: 0,
            workers: options.workers,
            addresses: options.advertise.iter().copied().take(NODE_ADDRESSES_MAX).collect(),
        };
        let membership = Membership::new(identity, rng.fork());
        let mut cluster = Cluster {
            join_until: Some(now.mono + options.join_timeout),
            options,
            rng,
            membership,
            seeds: BTreeMap::new(),
            ourselves: BTreeSet::new(),
            peers: BTreeMap::new(),
            lanes: BTreeMap::new(),
            actions: VecDeque::new(),
            ready: false,
            leaving: false,
            announce_at: None,
            duplicate_until: None,
            fatal: false,
            counters: ClusterCounters::default(),
        };
        if cluster.options.alone {
            cluster.become_ready(true);
        }
        cluster
    }

    // ---- what happens

    /// The addresses that the seeds resolve to, again after each time they are resolved.
    pub fn on_seeds(&mut self, now: Now, addresses: &[SocketAddr]) {
        let mut wanted: BTreeSet<SocketAddr> = addresses.iter().copied().take(PEERS_MAX).collect();
        wanted.retain(|address| !self.options.advertise.contains(address));
        let known = self.seeds.keys().chain(&self.ourselves);
        if known.collect::<BTreeSet<_>>() != wanted.iter().collect() {
            // Something moved, so what was ours may be another's by now.
            self.ourselves.clear();
        }
        self.seeds.retain(|address, _| wanted.contains(address));
        for address in wanted {
            if !self.ourselves.contains(&address) {
                let redial = Redial::at(now.mono);
                self.seeds.entry(address).or_insert(Seed { redial, tried: false, owner: None });
            }
        }
        self.settle(now.mono);
    }

    /// HELLO of a lane 0 is done both ways and was found good. `dialled`: the token of our dial.
    pub fn on_peer_up(&mut self, now: Now, hello: &Hello, lane: u64, remote: SocketAddr, dialled: Option<u64>) {
        let reached = dialled.and_then(|token| self.dial_answered(now.mono, token, &hello.id));
        match self.judge(now.mono, hello, remote, dialled) {
            Verdict::Take => self.attach(now.mono, hello, lane, remote, dialled, reached),
            Verdict::Refuse { code, reason } => self.actions.push_back(Action::CloseLane { lane, code, reason }),
        }
        self.settle(now.mono);
    }

    /// Lane 0 of a peer is gone, or (`goodbye`) is about to go as planned.
    pub fn on_peer_lane_down(&mut self, now: Now, lane: u64, goodbye: bool) {
        if let Some(id) = self.lanes.get(&lane).cloned() {
            self.lose_lane(now.mono, &id);
            if goodbye {
                self.peer_gone(now.mono, &id, Gone::Left);
            } else if self.peer(&id).down_since.is_some() {
                self.peer_gone(now.mono, &id, Gone::Down);
            } else {
                self.log(Transition::LaneLost { id });
            }
        }
        self.settle(now.mono);
    }

    /// As `on_peer_lane_down`, for a lane 0 that the peer closed with a code of `mesh::close` or of `Refused`.
    pub fn on_peer_closed_lane(&mut self, now: Now, lane: u64, code: u32) {
        if code == close::REPLACED {
            self.fatal_duplicate("a node with the same name was started later and took its place");
        }
        if Refused::from_code(code.into()) == Some(Refused::Duplicate) {
            self.doubt_own_name(now.mono);
        }
        self.on_peer_lane_down(now, lane, code == close::GOODBYE);
    }

    /// A dial came to nothing: refused by either side, or unanswered.
    pub fn on_dial_failed(&mut self, now: Now, token: u64, why: Option<Refused>) {
        self.dial_failed(now.mono, token, why);
        self.settle(now.mono);
    }

    /// All flows with the peer are in sync, in both directions.
    pub fn on_in_view(&mut self, now: Now, id: &NodeId) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.lane.is_some()
        {
            peer.in_view = true;
            peer.redial.failures = 0;
            peer.redial.backoff = BACKOFF_MIN;
            self.duplicate_until = None;
            if std::mem::take(&mut peer.wants_members) {
                self.send_members(id);
            }
        }
        self.settle(now.mono);
    }

    pub fn on_out_of_view(&mut self, now: Now, id: &NodeId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.in_view = false;
        }
        self.settle(now.mono);
    }

    /// A peer wants to know whom we know. It is told as soon as it is in view, and not before.
    pub fn on_members_request(&mut self, now: Now, id: &NodeId) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.lane.is_some()
        {
            if peer.in_view {
                self.send_members(id);
            } else {
                peer.wants_members = true;
            }
        }
        self.settle(now.mono);
    }

    pub fn on_members(&mut self, now: Now, id: &NodeId, members: &[Member]) {
        if let Some(peer) = self.peers.get_mut(id)
            && peer.lane.is_some()
        {
            peer.listed = true;
            for member in members {
                self.hear_of(now.mono, &member.id, member.generation, member.workers, &member.addresses);
            }
        }
        self.settle(now.mono);
    }

    /// Gossip. On a lane that is not a peer's lane 0, or not yet, it is dropped and counted.
    pub fn on_datagram(&mut self, now: Now, lane: u64, bytes: &[u8]) {
        if self.leaving {
            // Hearing of its own death would bring it back.
            return;
        }
        match self.lanes.get(&lane) {
            Some(id) => {
                let taken = self.membership.on_datagram(now.mono, id, bytes);
                self.counters.datagrams_bad += u64::from(taken.is_err());
            }
            None => self.counters.datagrams_early += 1,
        }
        self.settle(now.mono);
    }

    /// A planned leave: everybody is told. Nobody is dialled or let in afterwards.
    pub fn on_leave(&mut self, now: Now) {
        if self.leaving {
            return;
        }
        self.membership.leave(now.mono);
        self.route_gossip(now.mono);
        self.leaving = true;
        for &lane in self.lanes.keys() {
            self.actions.push_back(Action::SendGoodbye { lane });
        }
    }

    pub fn poll_deadline(&self) -> Option<Instant> {
        if self.leaving {
            return None;
        }
        let due = |wanted: bool, redial: &Redial, next: &dyn Fn() -> Option<SocketAddr>| match redial.attempt {
            Attempt::Running { until, .. } => Some(until),
            Attempt::Resting { until } => (wanted && !self.is_dialling(next()?)).then_some(until),
        };
        let seeds = self.seeds.iter();
        let seeds = seeds.filter_map(|(at, seed)| due(self.is_seed_dialled(seed), &seed.redial, &|| Some(*at)));
        let peers = self.peers.values();
        let peers = peers.filter_map(|peer| due(peer.is_dialled(), &peer.redial, &|| self.next_address(peer)));
        let doubts = self.peers.values().filter(|peer| peer.lane.is_some());
        let doubts = doubts.filter_map(|peer| Some(peer.down_since? + DOWN_GRACE));
        [self.join_until, self.announce_at, self.duplicate_until, self.membership.poll_deadline()]
            .into_iter()
            .flatten()
            .chain(seeds)
            .chain(peers)
            .chain(doubts)
            .min()
    }

    pub fn on_deadline(&mut self, now: Now) {
        let now = now.mono;
        if self.leaving {
            return;
        }
        self.membership.on_deadline(now);
        let running = self.seeds.values().map(|seed| &seed.redial).chain(self.peers.values().map(|peer| &peer.redial));
        let over = running.filter_map(Redial::running).filter(|&(.., until)| until <= now);
        for (token, ..) in over.collect::<Vec<_>>() {
            self.dial_failed(now, token, None);
        }
        let doubted = |peer: &Peer| peer.lane.is_some() && peer.down_since.is_some_and(|at| at + DOWN_GRACE <= now);
        let doubted = self.peers.iter().filter(|(_, peer)| doubted(peer)).map(|(id, _)| id.clone());
        for id in doubted.collect::<Vec<_>>() {
            self.close_lane(now, &id, close::DOWN, "membership says that this node is down");
            self.peer_gone(now, &id, Gone::Down);
        }
        if self.duplicate_until.is_some_and(|until| until <= now) {
            self.duplicate_until = None;
            self.fatal_duplicate("other nodes know a live node with the same name");
        }
        if self.join_until.is_some_and(|until| until <= now) {
            self.join_until = None;
        }
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce_at = None;
            let unconvinced: Vec<Identity> = self.unconvinced().map(|id| self.identity(id)).collect();
            for identity in unconvinced {
                self.membership.announce(now, &identity);
            }
        }
        self.peers
            .retain(|_, peer| peer.lane.is_some() || peer.left_since.is_none_or(|since| now < since + LEFT_REMEMBERED));
        self.settle(now);
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    // ---- what is known

    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    pub fn peers(&self) -> impl Iterator<Item = PeerStatus<'_>> {
        self.peers.iter().map(|(id, peer)| {
            let state = match self.membership.state(id, peer.generation) {
                _ if peer.left_since.is_some() => PeerState::Left,
                // Gossip forgets to clear a suspicion that it had no time to act on; the lane knows better.
                Some(State::Suspect) if !peer.in_view => PeerState::Suspect,
                Some(State::Alive | State::Suspect) => PeerState::Alive,
                Some(State::Down) => PeerState::Down,
                None if peer.lane.is_some() => PeerState::Alive,
                None => PeerState::Unmet,
            };
            PeerStatus {
                id,
                generation: peer.generation,
                state,
                connected: peer.lane.is_some(),
                in_view: peer.in_view,
                addresses: &peer.addresses,
                workers: peer.workers,
                client: &peer.client,
            }
        })
    }

    pub const fn counters(&self) -> ClusterCounters {
        self.counters
    }

    // ---- lanes

    /// Whether a lane with this HELLO is taken, beside whatever there is of that name.
    fn judge(&mut self, now: Instant, hello: &Hello, remote: SocketAddr, dialled: Option<u64>) -> Verdict {
        const DUPLICATE: Verdict =
            Verdict::Refuse { code: Refused::Duplicate.code(), reason: Refused::Duplicate.sentence() };
        if self.leaving {
            return Verdict::Refuse { code: close::GOODBYE, reason: "this node is leaving" };
        }
        assert!(hello.id != self.options.id, "a HELLO under our own name is refused when it is checked");
        let Some(peer) = self.peers.get(&hello.id) else {
            if self.make_room() {
                return Verdict::Take;
            }
            self.log(Transition::Full { id: hello.id.clone() });
            return Verdict::Refuse { code: close::FULL, reason: "this node has as many peers as it can have" };
        };
        let living = peer.generation;
        if hello.generation < living {
            self.log(Transition::SecondLife { id: hello.id.clone(), refused: hello.generation, living });
            return DUPLICATE;
        }
        let Some(lane) = peer.lane else { return Verdict::Take };
        if hello.generation > living {
            // A process that was killed and started again comes from the same place, and its old lane has not timed
            // out yet. From another place it is a second node, as long as the first one is heard.
            let same_place = lane.remote == remote || hello.addresses.iter().any(|one| peer.addresses.contains(one));
            if same_place {
                return Verdict::Take;
            }
            self.log(Transition::SecondLife { id: hello.id.clone(), refused: hello.generation, living });
            return DUPLICATE;
        }
        let speculative = dialled.unwrap_or(hello.dial) & SPECULATIVE != 0;
        let lost = now.since(lane.since) > CROSSING;
        if !speculative && (lost || self.rank(hello, dialled) > lane.rank) {
            return Verdict::Take;
        }
        Verdict::Refuse { code: close::REDUNDANT, reason: "another lane of the same pair stays" }
    }

    fn rank(&self, hello: &Hello, dialled: Option<u64>) -> Rank {
        match dialled {
            Some(dial) => Rank { by_lower_name: self.options.id < hello.id, dial: dial & !SPECULATIVE },
            None => Rank { by_lower_name: hello.id < self.options.id, dial: hello.dial & !SPECULATIVE },
        }
    }

    fn attach(
        &mut self,
        now: Instant,
        hello: &Hello,
        lane: u64,
        remote: SocketAddr,
        dialled: Option<u64>,
        reached: Option<SocketAddr>,
    ) {
        let id = hello.id.clone();
        let rank = self.rank(hello, dialled);
        self.new_life(now, &id, hello.generation, hello.workers, &hello.addresses);
        self.close_lane(now, &id, close::REDUNDANT, "another lane of the same pair stays");
        let addresses = hello.addresses.clone();
        let peer = self.peers.get_mut(&id).expect("a life was just noted");
        peer.lane = Some(Lane { key: lane, remote, rank, since: now });
        peer.addresses = addresses;
        peer.reached = reached.or(peer.reached);
        peer.client.clone_from(&hello.client);
        peer.connected = true;
        peer.left_since = None;
        peer.refused = false;
        // Who was declared dead has to object first; `down_since` starts its time to do so.
        peer.down_since = peer.down_since.map(|_| now);
        for address in peer.candidates() {
            if let Some(seed) = self.seeds.get_mut(&address) {
                seed.owner = Some(id.clone());
            }
        }
        let info = PeerInfo {
            id: id.clone(),
            generation: peer.generation,
            workers: peer.workers,
            addresses: peer.told_addresses(),
            remote,
            client: peer.client.clone(),
        };
        self.lanes.insert(lane, id.clone());
        self.log(Transition::PeerUp {
            id: id.clone(),
            generation: hello.generation,
            remote,
            dialled: dialled.is_some(),
        });
        let we_dial_the_rest = self.options.id < id;
        self.actions.push_back(Action::PeerConnected { peer: info, lane, we_dial_the_rest });
        self.actions.push_back(Action::RequestMembers { lane });
        let identity = self.identity(&id);
        self.membership.on_met(now, &identity);
    }

    /// The lane is no longer the peer's, whoever ended it. The peer is dialled again, and so are the seeds it stood for.
    fn lose_lane(&mut self, now: Instant, id: &NodeId) {
        let courtesy = if self.options.id < *id { Duration::ZERO } else { COURTESY };
        let until = now + courtesy + Duration::from_millis(self.rng.below(100));
        let Some(peer) = self.peers.get_mut(id) else { return };
        let Some(lane) = peer.lane.take() else { return };
        self.lanes.remove(&lane.key);
        let in_view = std::mem::take(&mut peer.in_view);
        peer.listed = false;
        peer.wants_members = false;
        let seeds = self.seeds.values_mut().filter(|seed| seed.owner.as_ref() == Some(id)).map(|seed| &mut seed.redial);
        for redial in seeds.chain([&mut peer.redial]).filter(|redial| redial.running().is_none()) {
            if in_view {
                redial.attempt = Attempt::Resting { until };
            } else {
                // It did not last: not a success that a joining node could wait for again and again.
                redial.fail(now, &mut self.rng);
            }
        }
    }

    fn close_lane(&mut self, now: Instant, id: &NodeId, code: u32, reason: &'static str) {
        if let Some(lane) = self.peers.get(id).and_then(|peer| peer.lane) {
            self.actions.push_back(Action::CloseLane { lane: lane.key, code, reason });
            self.lose_lane(now, id);
        }
    }

    // ---- lives

    /// Someone told of a node.
    fn hear_of(&mut self, now: Instant, id: &NodeId, generation: Generation, workers: u16, addresses: &[SocketAddr]) {
        if *id == self.options.id {
            return;
        }
        // With a lane the word of the peer itself counts: HELLO, or gossip.
        let news = match self.peers.get(id) {
            Some(peer) => peer.lane.is_none(),
            None => self.make_room(),
        };
        if news {
            self.new_life(now, id, generation, workers, addresses);
        }
    }

    /// Notes a life of a name, unless it is known or over.
    fn new_life(&mut self, now: Instant, id: &NodeId, generation: Generation, workers: u16, addresses: &[SocketAddr]) {
        if self.peers.get(id).is_some_and(|peer| peer.generation >= generation) {
            return;
        }
        self.close_lane(now, id, close::REPLACED, "a later life of this node is here");
        self.peer_gone(now, id, Gone::Replaced);
        let wait = if self.options.id < *id { Duration::ZERO } else { COURTESY };
        let mut redial = Redial::at(now + wait);
        if let Some(running) = self.peers.get(id).map(|old| old.redial.attempt.clone())
            && matches!(running, Attempt::Running { .. })
        {
            redial.attempt = running;
        }
        let mut peer = Peer::new(generation, workers, addresses, redial);
        match self.membership.state(id, generation) {
            Some(State::Alive | State::Suspect) => peer.acknowledged = true,
            Some(State::Down) => peer.down_since = Some(now),
            None => {}
        }
        self.peers.insert(id.clone(), peer);
    }

    /// Room for one more name, if need be in place of one that is no more.
    fn make_room(&mut self) -> bool {
        if self.peers.len() < PEERS_MAX {
            return true;
        }
        let over = self.peers.iter().filter(|(_, peer)| peer.lane.is_none() && !peer.connected);
        let over = over.filter(|(_, peer)| !peer.is_living() || peer.redial.failures >= FAILURES_MAX);
        let over = over.map(|(id, peer)| (peer.left_since.or(peer.down_since), id.clone())).min();
        over.is_some_and(|(_, id)| self.peers.remove(&id).is_some())
    }

    /// Tells the shard, if it knew the peer, and takes note.
    fn peer_gone(&mut self, now: Instant, id: &NodeId, how: Gone) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let generation = peer.generation;
        if how == Gone::Left {
            peer.left_since = Some(now);
        }
        if std::mem::take(&mut peer.connected) {
            self.actions.push_back(Action::PeerGone { id: id.clone(), generation, how });
            self.log(Transition::PeerGone { id: id.clone(), generation, how });
        }
        if how == Gone::Left {
            self.membership.on_goodbye(now, id, generation);
        }
    }

    fn on_gossip(&mut self, now: Instant, event: Event) {
        match event {
            Event::Up(identity) | Event::Replaced { new: identity, .. } => {
                if self.peers.contains_key(&identity.id) || self.make_room() {
                    let Identity { id, generation, workers, addresses, .. } = &identity;
                    self.new_life(now, id, *generation, *workers, addresses);
                }
                let alive = self.membership.state(&identity.id, identity.generation) != Some(State::Down);
                if let Some(peer) = self.peers.get_mut(&identity.id)
                    && peer.generation == identity.generation
                    && alive
                {
                    peer.acknowledged = true;
                    peer.down_since = None;
                }
            }
            Event::Down(identity) => {
                let Some(peer) = self.peers.get_mut(&identity.id) else { return };
                if peer.generation != identity.generation || peer.left_since.is_some() {
                    return;
                }
                peer.acknowledged = false;
                peer.down_since.get_or_insert(now);
                if peer.lane.is_none() {
                    self.peer_gone(now, &identity.id, Gone::Down);
                } else {
                    self.log(Transition::Doubted { id: identity.id });
                }
            }
            Event::Rejoined => self.log(Transition::Rejoined),
            Event::Superseded(_) => {
                self.fatal_duplicate("a node with the same name was started later and is part of the cluster");
            }
        }
    }

    /// Peers with a lane that gossip does not know as living: one of us has to object, and for that to hear of it.
    fn unconvinced(&self) -> impl Iterator<Item = &NodeId> {
        self.lanes.values().filter(|id| !self.peer(id).acknowledged)
    }

    fn identity(&self, id: &NodeId) -> Identity {
        let peer = self.peer(id);
        Identity {
            id: id.clone(),
            generation: peer.generation,
            renewal: 0,
            workers: peer.workers,
            addresses: peer.told_addresses().into(),
        }
    }

    /// For ids that come from our own tables.
    fn peer(&self, id: &NodeId) -> &Peer {
        self.peers.get(id).expect("lanes belong to peers that are known")
    }

    fn send_members(&mut self, to: &NodeId) {
        let Some(lane) = self.peer(to).lane else { return };
        let known = self.peers.iter().filter(|(id, peer)| *id != to && (peer.lane.is_some() || peer.is_living()));
        let members = known.map(|(id, peer)| Member {
            id: id.clone(),
            generation: peer.generation,
            workers: peer.workers,
            addresses: peer.told_addresses(),
        });
        let members = members.collect();
        self.actions.push_back(Action::SendMembers { lane: lane.key, members });
    }

    // ---- ourselves

    /// A node that is not part of the cluster yet believes others in the end; one that is knows better.
    fn doubt_own_name(&mut self, now: Instant) {
        if !self.ready && self.duplicate_until.is_none() {
            self.duplicate_until = Some(now + DUPLICATE_PATIENCE);
        }
    }

    fn fatal_duplicate(&mut self, reason: &'static str) {
        if !std::mem::replace(&mut self.fatal, true) {
            self.actions.push_back(Action::FatalDuplicate { id: self.options.id.clone(), reason });
        }
    }

    fn become_ready(&mut self, alone: bool) {
        self.ready = true;
        self.join_until = None;
        let peers = self.peers.values().filter(|peer| peer.in_view).count();
        self.actions.push_back(Action::Ready { alone });
        self.log(Transition::Ready { alone, peers });
    }

    fn consider_ready(&mut self) {
        if self.ready || self.duplicate_until.is_some() || self.fatal {
            return;
        }
        // Each seed is tried once: else two pairs that start at the same time could be ready as two clusters.
        let seeds_tried = self.seeds.values().all(|seed| seed.tried || !self.is_seed_dialled(seed));
        if self.peers.values().any(Peer::is_awaited) || !(seeds_tried || self.join_until.is_none()) {
            return;
        }
        if self.peers.values().any(|peer| peer.in_view) {
            self.become_ready(false);
        } else if self.join_until.is_none() {
            self.become_ready(true);
        }
    }

    fn log(&mut self, transition: Transition) {
        self.actions.push_back(Action::Log(transition));
    }

    // ---- after every input

    fn settle(&mut self, now: Instant) {
        if self.leaving {
            return;
        }
        self.route_gossip(now);
        self.start_dials(now);
        if self.announce_at.is_none() && self.unconvinced().next().is_some() {
            self.announce_at = Some(now + ANNOUNCE_PERIOD);
        }
        self.consider_ready();
    }

    /// Gossip's news and datagrams, until it has no more of either.
    fn route_gossip(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.membership.poll_event() {
                self.on_gossip(now, event);
            } else if let Some((to, bytes)) = self.membership.poll_send() {
                let peer = self.peers.get(&to.id).filter(|peer| peer.generation == to.generation);
                match peer.and_then(|peer| peer.lane) {
                    Some(lane) => self.actions.push_back(Action::Datagram { lane: lane.key, bytes }),
                    None => self.counters.datagrams_unroutable += 1,
                }
            } else {
                return;
            }
        }
    }
}

enum Verdict {
    Take,
    Refuse { code: u32, reason: &'static str },
}
