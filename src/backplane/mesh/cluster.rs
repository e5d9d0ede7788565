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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::close;
use super::handshake::{Hello, Refused};
use super::membership::{Event, Identity, Membership, State};
use crate::backplane::envelope::Member;
use crate::base::id::{Generation, NodeId};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Now};
use crate::limits::{NODE_ADDRESSES_MAX, PEERS_MAX};

/// A dial that took longer has failed, whatever becomes of it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// For peers that nobody has seen for long, so that a thousand retired names cost nothing.
const BACKOFF_FORLORN: Duration = Duration::from_secs(30);
const FORLORN_FAILURES: u32 = 100;
/// What a node waits that has just heard of a peer and has the higher name: the other one dials.
const COURTESY: Duration = Duration::from_millis(150);
/// Dials of a peer that may fail before a joining node goes on without it.
const FAILURES_MAX: u32 = 3;
/// A lane that stood for so long is not one of two dials that crossed: who dials anew has lost it.
const CROSSING: Duration = Duration::from_secs(4);
/// Marks the token of a dial that does not know whom it will meet: it never replaces a lane.
const SPECULATIVE: u64 = 1 << 62;
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

/// A peer whose HELLO was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    pub id: NodeId,
    pub generation: Generation,
    pub workers: u16,
    /// Where its lanes are dialled: as it advertises, or else where it was met.
    pub addresses: Vec<SocketAddr>,
    /// The other end of its lane 0.
    pub remote: SocketAddr,
    /// Its clients' address, for people to read.
    pub client: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Membership declared it dead.
    Down,
    /// It said goodbye.
    Left,
    /// A later life of the same name is here.
    Replaced,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open lane 0 to this address; answer with `on_peer_up` or `on_dial_failed`. Its HELLO carries the token.
    Dial {
        token: u64,
        address: SocketAddr,
    },
    Datagram {
        lane: u64,
        bytes: Vec<u8>,
    },
    RequestMembers {
        lane: u64,
    },
    SendMembers {
        lane: u64,
        members: Vec<Member>,
    },
    SendGoodbye {
        lane: u64,
    },
    /// This machine has forgotten the lane already.
    CloseLane {
        lane: u64,
        code: u32,
        reason: &'static str,
    },
    /// Comes again for each new lane 0, also without a `PeerGone` in between.
    PeerConnected {
        peer: PeerInfo,
        lane: u64,
        we_dial_the_rest: bool,
    },
    /// Once for each peer that was connected. Its lanes are to be closed.
    PeerGone {
        id: NodeId,
        generation: Generation,
        how: Gone,
    },
    /// Once.
    Ready {
        alone: bool,
    },
    Log(Transition),
    /// The name of this node is used by another one that lives: this process cannot be part of the cluster.
    FatalDuplicate {
        id: NodeId,
        reason: &'static str,
    },
}

/// What happened, for one log line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transition {
    PeerUp {
        id: NodeId,
        generation: Generation,
        remote: SocketAddr,
        dialled: bool,
    },
    LaneLost {
        id: NodeId,
    },
    PeerGone {
        id: NodeId,
        generation: Generation,
        how: Gone,
    },
    /// A peer whose lane stands is called dead by others.
    Doubted {
        id: NodeId,
    },
    /// We were called dead and came back.
    Rejoined,
    DialRefused {
        address: SocketAddr,
        why: Refused,
    },
    SecondLife {
        id: NodeId,
        refused: Generation,
        living: Generation,
    },
    Full {
        id: NodeId,
    },
    Ready {
        alone: bool,
        peers: usize,
    },
}

impl Transition {
    /// Whether an operator should look.
    pub const fn is_warning(&self) -> bool {
        match self {
            Transition::PeerUp { .. } | Transition::Rejoined => false,
            Transition::PeerGone { how, .. } => matches!(how, Gone::Down),
            Transition::Ready { alone, .. } => *alone,
            Transition::DialRefused { why, .. } => !matches!(why, Refused::Myself),
            Transition::LaneLost { .. }
            | Transition::Doubted { .. }
            | Transition::SecondLife { .. }
            | Transition::Full { .. } => true,
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transition::PeerUp { id, generation, remote, dialled } => {
                let how = if *dialled { "dialled" } else { "accepted" };
                write!(f, "peer {id} is up ({how}, at {remote}, generation {})", generation.0)
            }
            Transition::LaneLost { id } => write!(f, "the lane to peer {id} is lost"),
            Transition::PeerGone { id, how: Gone::Down, .. } => write!(f, "peer {id} is down"),
            Transition::PeerGone { id, how: Gone::Left, .. } => write!(f, "peer {id} has left"),
            Transition::PeerGone { id, how: Gone::Replaced, .. } => write!(f, "peer {id} was started again"),
            Transition::Doubted { id } => write!(f, "peer {id} is called dead by others, but its lane stands"),
            Transition::Rejoined => f.write_str("this node was called dead by others and is back"),
            Transition::DialRefused { address, why } => write!(f, "{address}: {why}"),
            Transition::SecondLife { id, refused, living } => write!(
                f,
                "a second node named {id} (generation {}) was refused: generation {} lives",
                refused.0, living.0
            ),
            Transition::Full { id } => write!(f, "peer {id} was refused: there are {PEERS_MAX} peers already"),
            Transition::Ready { alone: true, .. } => f.write_str("ready, alone: no other node has answered"),
            Transition::Ready { alone: false, peers } => write!(f, "ready, with {peers} peers in view"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// Heard of, but never met.
    Unmet,
    Alive,
    Suspect,
    Down,
    Left,
}

#[derive(Clone, Debug)]
pub struct PeerStatus<'a> {
    pub id: &'a NodeId,
    pub generation: Generation,
    pub state: PeerState,
    /// Its lane 0 stands.
    pub connected: bool,
    pub in_view: bool,
    pub addresses: &'a [SocketAddr],
    pub workers: u16,
    pub client: &'a str,
}

/// What only counters tell.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClusterCounters {
    pub dials: u64,
    pub dials_failed: u64,
    /// From a lane without a finished HELLO.
    pub datagrams_early: u64,
    pub datagrams_bad: u64,
    /// For a node without a lane.
    pub datagrams_unroutable: u64,
}

/// When to dial next.
#[derive(Clone, Debug)]
struct Redial {
    attempt: Attempt,
    backoff: Duration,
    failures: u32,
}

#[derive(Clone, Debug)]
enum Attempt {
    Resting { until: Instant },
    Running { token: u64, address: SocketAddr, until: Instant },
}

impl Redial {
    const fn at(until: Instant) -> Self {
        Redial { attempt: Attempt::Resting { until }, backoff: BACKOFF_MIN, failures: 0 }
    }

    fn fail(&mut self, now: Instant, rng: &mut Rng) {
        self.failures = self.failures.saturating_add(1);
        let jitter = Duration::from_nanos(rng.below(self.backoff.as_nanos() as u64 / 4));
        self.attempt = Attempt::Resting { until: now + (self.backoff - jitter) };
        let max = if self.failures > FORLORN_FAILURES { BACKOFF_FORLORN } else { BACKOFF_MAX };
        self.backoff = (self.backoff * 2).min(max);
    }

    const fn running(&self) -> Option<(u64, SocketAddr, Instant)> {
        match self.attempt {
            Attempt::Running { token, address, until } => Some((token, address, until)),
            Attempt::Resting { .. } => None,
        }
    }
}

struct Seed {
    redial: Redial,
    /// One attempt is over, well or not.
    tried: bool,
    /// Who answered there.
    owner: Option<NodeId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lane {
    key: u64,
    remote: SocketAddr,
    /// Of two lanes that crossed the greater stays: both ends compute the same.
    rank: Rank,
    since: Instant,
}

/// A dial by the node with the lower name beats one by the other; of one node's dials the later one stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    by_lower_name: bool,
    dial: u64,
}

struct Peer {
    generation: Generation,
    workers: u16,
    addresses: Vec<SocketAddr>,
    /// Where a dial of ours reached it last.
    reached: Option<SocketAddr>,
    client: String,
    lane: Option<Lane>,
    in_view: bool,
    /// Its member list came over the present lane.
    listed: bool,
    /// It asked for ours, and is not in view yet.
    wants_members: bool,
    /// The shard has been told of it, and not of its end.
    connected: bool,
    /// Gossip calls this life alive, or suspects it at most.
    acknowledged: bool,
    /// Gossip calls this life dead since.
    down_since: Option<Instant>,
    left_since: Option<Instant>,
    /// Our HELLOs do not agree; waiting for it is of no use.
    refused: bool,
    redial: Redial,
    /// Which of its addresses is dialled next.
    next_address: usize,
}

impl Peer {
    fn new(generation: Generation, workers: u16, addresses: &[SocketAddr], redial: Redial) -> Self {
        Peer {
            generation,
            workers,
            addresses: addresses.to_vec(),
            reached: None,
            client: String::new(),
            lane: None,
            in_view: false,
            listed: false,
            wants_members: false,
            connected: false,
            acknowledged: false,
            down_since: None,
            left_since: None,
            refused: false,
            redial,
            next_address: 0,
        }
    }

    const fn is_living(&self) -> bool {
        self.down_since.is_none() && self.left_since.is_none()
    }

    /// Whether a joining node waits for it.
    const fn is_awaited(&self) -> bool {
        if self.in_view && self.listed {
            return false;
        }
        self.lane.is_some() || (self.is_living() && !self.refused && self.redial.failures < FAILURES_MAX)
    }

    const fn is_dialled(&self) -> bool {
        self.lane.is_none() && self.left_since.is_none()
    }

    /// Where to try, the proven address first.
    fn candidates(&self) -> impl Iterator<Item = SocketAddr> {
        let others = self.addresses.iter().copied().filter(|&address| Some(address) != self.reached);
        self.reached.into_iter().chain(others)
    }

    /// As told to others.
    fn told_addresses(&self) -> Vec<SocketAddr> {
        if !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        self.reached.or(self.lane.map(|lane| lane.remote)).into_iter().collect()
    }
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
            Event::Rejoined => {
                self.log(Transition::Rejoined);
                let connected: Vec<Identity> = self.lanes.values().map(|id| self.identity(id)).collect();
                for identity in connected {
                    self.membership.announce(now, &identity);
                }
            }
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

    // ---- dials

    /// A seed is dialled while nobody with a lane is behind it, for whoever may live there by now.
    fn is_seed_dialled(&self, seed: &Seed) -> bool {
        let owner = seed.owner.as_ref().and_then(|owner| self.peers.get(owner));
        owner.is_none_or(|peer| peer.lane.is_none())
    }

    fn is_dialling(&self, address: SocketAddr) -> bool {
        let redials = self.seeds.values().map(|seed| &seed.redial).chain(self.peers.values().map(|peer| &peer.redial));
        redials.filter_map(Redial::running).any(|(_, running, _)| running == address)
    }

    fn next_address(&self, peer: &Peer) -> Option<SocketAddr> {
        let usable = || peer.candidates().filter(|address| !self.options.advertise.contains(address));
        let count = usable().count();
        if count == 0 { None } else { usable().nth(peer.next_address % count) }
    }

    fn start_dials(&mut self, now: Instant) {
        for address in self.seeds.keys().copied().collect::<Vec<_>>() {
            let seed = &self.seeds[&address];
            let due = matches!(seed.redial.attempt, Attempt::Resting { until } if until <= now);
            if due && self.is_seed_dialled(seed) && !self.is_dialling(address) {
                let speculative = if seed.owner.is_none() { SPECULATIVE } else { 0 };
                let attempt = self.dial(now, address, speculative);
                self.seeds.get_mut(&address).expect("just seen").redial.attempt = attempt;
            }
        }
        for id in self.peers.keys().cloned().collect::<Vec<_>>() {
            let peer = self.peer(&id);
            let due = matches!(peer.redial.attempt, Attempt::Resting { until } if until <= now);
            if due
                && peer.is_dialled()
                && let Some(address) = self.next_address(peer)
                && !self.is_dialling(address)
            {
                let attempt = self.dial(now, address, 0);
                let peer = self.peers.get_mut(&id).expect("just seen");
                peer.redial.attempt = attempt;
                peer.next_address = peer.next_address.wrapping_add(1);
            }
        }
    }

    fn dial(&mut self, now: Instant, address: SocketAddr, speculative: u64) -> Attempt {
        self.counters.dials += 1;
        let token = self.counters.dials | speculative;
        self.actions.push_back(Action::Dial { token, address });
        Attempt::Running { token, address, until: now + DIAL_TIMEOUT }
    }

    /// Ends the attempt that a lane answers. The address, if it is the one where `id` was looked for.
    fn dial_answered(&mut self, now: Instant, token: u64, id: &NodeId) -> Option<SocketAddr> {
        for (address, seed) in &mut self.seeds {
            if seed.redial.running().is_some_and(|(running, ..)| running == token) {
                seed.tried = true;
                seed.owner = Some(id.clone());
                seed.redial = Redial::at(now + BACKOFF_MIN);
                return Some(*address);
            }
        }
        let mut found = None;
        for (sought, peer) in &mut self.peers {
            if let Some((running, address, _)) = peer.redial.running()
                && running == token
            {
                if sought == id {
                    peer.redial.attempt = Attempt::Resting { until: now + BACKOFF_MIN };
                } else {
                    // Somebody else lives there now.
                    peer.redial.fail(now, &mut self.rng);
                }
                found = Some(address);
            }
        }
        found
    }

    fn dial_failed(&mut self, now: Instant, token: u64, why: Option<Refused>) {
        let mut failed = None;
        for (address, seed) in &mut self.seeds {
            if seed.redial.running().is_some_and(|(running, ..)| running == token) {
                seed.tried = true;
                if why == Some(Refused::Redundant) {
                    // Whoever it is, we have a lane with it.
                    seed.redial.attempt = Attempt::Resting { until: now + BACKOFF_FORLORN };
                    return;
                }
                seed.redial.fail(now, &mut self.rng);
                failed = Some((*address, seed.redial.failures));
            }
        }
        for peer in self.peers.values_mut() {
            if let Some((running, address, _)) = peer.redial.running()
                && running == token
            {
                if why == Some(Refused::Redundant) {
                    // The lane that stays is up any moment, if it is not yet.
                    peer.redial.attempt = Attempt::Resting { until: now + BACKOFF_MIN };
                    return;
                }
                peer.refused = matches!(
                    why,
                    Some(
                        Refused::Version
                            | Refused::Layout
                            | Refused::HashKey
                            | Refused::NameNotInCertificate
                            | Refused::Myself
                    )
                );
                peer.redial.fail(now, &mut self.rng);
                failed = Some((address, peer.redial.failures));
            }
        }
        let Some((address, failures)) = failed else { return };
        self.counters.dials_failed += 1;
        let Some(why) = why else { return };
        // Once for each cause would be better still, but a wrong certificate must be seen, and again after a while.
        if failures % 32 == 1 {
            self.log(Transition::DialRefused { address, why });
        }
        match why {
            Refused::Myself => {
                self.seeds.remove(&address);
                self.ourselves.insert(address);
            }
            Refused::Duplicate => self.doubt_own_name(now),
            _ => {}
        }
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

#[cfg(test)]
mod tests;
