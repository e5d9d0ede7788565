//! Whole clusters of these machines in virtual time, over lanes and datagrams that misbehave, from one seed.
//!
//! The shard is played by a few lines: two ends of a lane have each other in view when each has acknowledged the other's
//! snapshot. HELLOs are checked as the shard checks them, and members lists pass through their frames.

use std::collections::BTreeMap;

use proptest::prelude::{ProptestConfig, any, proptest};

use super::*;
use crate::backplane::envelope::{self, Frame};

const TICK: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_secs(1);

/// What one end of a lane sends the other on its reliable, ordered stream.
#[derive(Clone, Debug)]
enum Message {
    Snapshot,
    SnapshotAck,
    MembersRequest,
    Members(Vec<u8>),
    Goodbye,
}

#[derive(Clone, Debug)]
enum What {
    /// The HELLO of a dial arrives.
    Dialled {
        from: usize,
        life: u64,
        token: u64,
        address: SocketAddr,
    },
    /// The answer to it.
    Answered {
        conn: u64,
        token: u64,
    },
    Refused {
        to: usize,
        life: u64,
        token: u64,
        why: Refused,
    },
    Message {
        conn: u64,
        end: usize,
        message: Message,
    },
    Datagram {
        conn: u64,
        end: usize,
        bytes: Vec<u8>,
    },
    Closed {
        conn: u64,
        end: usize,
        code: u32,
    },
}

#[derive(Clone, Debug)]
struct End {
    node: usize,
    life: u64,
    open: bool,
    /// `on_peer_up` was called.
    up: bool,
    token: Option<u64>,
    heard: Instant,
    /// The node's cluster calls this its lane.
    connected: bool,
    snapshot_waits: bool,
    snapshot: bool,
    acked: bool,
    /// Streams are ordered: nothing arrives before this.
    arrival: Instant,
}

struct Node {
    id: NodeId,
    address: SocketAddr,
    /// Others under which it can be dialled and which it does not advertise.
    aliases: Vec<SocketAddr>,
    life: u64,
    cluster: Option<Cluster>,
    deadline: Option<Instant>,
    paused: bool,
    /// By the shard's account.
    peers: BTreeMap<NodeId, u64>,
    in_view: BTreeSet<NodeId>,
    ready: Option<bool>,
    gone: Vec<(NodeId, Gone, Instant)>,
    fatal: bool,
}

struct Sim {
    now: Instant,
    tick: Instant,
    rng: Rng,
    nodes: Vec<Node>,
    conns: BTreeMap<u64, [End; 2]>,
    conns_made: u64,
    queue: BTreeMap<(Instant, u64), What>,
    queued: u64,
    cuts: BTreeSet<(usize, usize)>,
    datagram_loss: u64,
    latency_max: Duration,
    /// Nodes from this index on are far from those before it.
    far: Option<usize>,
    /// Nobody is cut off or killed, so the readiness rule holds without exception.
    calm: bool,
    trace: u64,
    duplicates: u64,
}

fn id(index: usize) -> NodeId {
    NodeId::parse(&format!("n{index:02}")).unwrap()
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7000))
}

impl Sim {
    fn new(seed: u64) -> Self {
        Sim {
            now: Instant::START,
            tick: Instant::START,
            rng: Rng::seeded(seed),
            nodes: Vec::new(),
            conns: BTreeMap::new(),
            conns_made: 0,
            queue: BTreeMap::new(),
            queued: 0,
            cuts: BTreeSet::new(),
            datagram_loss: 0,
            latency_max: Duration::from_millis(5),
            far: None,
            calm: true,
            trace: 0,
            duplicates: 0,
        }
    }

    fn now(&self) -> Now {
        Now::simulated(self.now)
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(100 + self.rng.below(self.latency_max.as_micros() as u64))
    }

    fn push(&mut self, after: Duration, what: What) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), what);
    }

    fn add(&mut self) -> usize {
        let index = self.nodes.len();
        self.add_named(id(index))
    }

    fn add_named(&mut self, id: NodeId) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node {
            id,
            address: address(index),
            aliases: Vec::new(),
            life: 0,
            cluster: None,
            deadline: None,
            paused: false,
            peers: BTreeMap::new(),
            in_view: BTreeSet::new(),
            ready: None,
            gone: Vec::new(),
            fatal: false,
        });
        index
    }

    fn start(&mut self, index: usize, seeds: &[usize]) {
        let rng = self.rng.fork();
        let now = self.now();
        let node = &mut self.nodes[index];
        assert!(node.cluster.is_none());
        node.life += 1;
        node.peers.clear();
        node.in_view.clear();
        node.ready = None;
        node.paused = false;
        let options = ClusterOptions {
            id: node.id.clone(),
            generation: Generation(now.wall.0 + 1),
            advertise: vec![node.address],
            workers: 2,
            join_timeout: Duration::from_secs(4),
            alone: seeds.is_empty(),
        };
        let mut cluster = Cluster::new(options, rng, now);
        let seeds: Vec<SocketAddr> = seeds.iter().map(|&seed| self.nodes[seed].address).collect();
        cluster.on_seeds(now, &seeds);
        self.nodes[index].cluster = Some(cluster);
        self.drain(index);
    }

    fn kill(&mut self, index: usize) {
        self.calm = false;
        self.nodes[index].cluster = None;
        for ends in self.conns.values_mut() {
            for end in ends.iter_mut().filter(|end| end.node == index) {
                end.open = false;
            }
        }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn cut_both(&mut self, a: usize, b: usize) {
        self.calm = false;
        self.cuts.insert((a, b));
        self.cuts.insert((b, a));
    }

    fn is_alive(&self, index: usize, life: u64) -> bool {
        self.nodes[index].cluster.is_some() && self.nodes[index].life == life
    }

    fn act(&mut self, index: usize, act: impl FnOnce(&mut Cluster, Now)) {
        let now = self.now();
        if let Some(cluster) = &mut self.nodes[index].cluster {
            act(cluster, now);
            self.drain(index);
        }
    }

    fn hello(&self, index: usize, dial: u64) -> Hello {
        let node = &self.nodes[index];
        let options = &node.cluster.as_ref().unwrap().options;
        Hello {
            version_min: 1,
            version_max: 1,
            layout: 1,
            hash_key: 1,
            generation: options.generation,
            workers: options.workers,
            lane: 0,
            dial,
            id: node.id.clone(),
            addresses: options.advertise.clone(),
            client: String::new(),
        }
    }

    /// Carries out what a machine wants.
    fn drain(&mut self, index: usize) {
        while let Some(action) = self.nodes[index].cluster.as_mut().and_then(Cluster::poll_action) {
            self.note(index, &action);
            let life = self.nodes[index].life;
            match action {
                Action::Dial { token, address } => {
                    let mut after = self.latency() * 3;
                    let target = self.nodes.iter().position(|node| node.address == address);
                    if let (Some(far), Some(target)) = (self.far, target)
                        && (index < far) != (target < far)
                    {
                        after += Duration::from_millis(300);
                    }
                    self.push(after, What::Dialled { from: index, life, token, address });
                }
                Action::Datagram { lane, bytes } => self.send_datagram(index, lane, bytes),
                Action::RequestMembers { lane } => self.send(index, lane, Message::MembersRequest),
                Action::SendMembers { lane, members } => {
                    let mut frame = Vec::new();
                    envelope::encode_members(&members, &mut frame);
                    self.send(index, lane, Message::Members(frame));
                }
                Action::SendGoodbye { lane } => self.send(index, lane, Message::Goodbye),
                Action::CloseLane { lane, code, .. } => self.close(index, lane, code),
                Action::PeerConnected { peer, lane, .. } => {
                    let other = self.nodes[index].peers.insert(peer.id.clone(), lane);
                    if let Some(other) = other {
                        assert!(!self.end(index, other).open, "the lane before was closed or lost");
                    }
                    self.nodes[index].in_view.remove(&peer.id);
                    let end = self.end(index, lane);
                    end.connected = true;
                    let waits = std::mem::take(&mut end.snapshot_waits);
                    self.send(index, lane, Message::Snapshot);
                    if waits {
                        self.on_message(index, lane, Message::Snapshot);
                    }
                }
                Action::PeerGone { id, how, .. } => {
                    let lane = self.nodes[index].peers.remove(&id).expect("a peer goes once");
                    self.nodes[index].in_view.remove(&id);
                    if how != Gone::Left {
                        assert!(!self.end(index, lane).open, "no lane to a peer that is gone");
                    }
                    let now = self.now;
                    self.nodes[index].gone.push((id, how, now));
                }
                Action::Ready { alone } => {
                    assert_eq!(self.nodes[index].ready.replace(alone), None);
                    self.check_ready(index, alone);
                }
                Action::Log(transition) => assert!(!transition.to_string().is_empty()),
                Action::FatalDuplicate { .. } => {
                    self.nodes[index].fatal = true;
                    self.kill(index);
                }
            }
        }
        self.nodes[index].deadline = self.nodes[index].cluster.as_ref().and_then(Cluster::poll_deadline);
    }

    /// The trace: a run is its seed.
    fn note(&mut self, index: usize, action: &Action) {
        let text = format!("{:?} {index} {action:?}", self.now);
        if std::env::var_os("MESH_TRACE").is_some() && !matches!(action, Action::Datagram { .. }) {
            eprintln!("{:>9} us {} {action:?}", self.now.as_nanos() / 1000, self.nodes[index].id);
        }
        self.trace = self.trace.rotate_left(5) ^ crate::base::hash::HashKey::new([0; 16]).of(text.as_bytes());
    }

    fn check_ready(&self, index: usize, alone: bool) {
        if !self.calm || alone {
            return;
        }
        let node = &self.nodes[index];
        for other in self.nodes.iter().filter(|other| other.id != node.id && other.ready == Some(false)) {
            assert!(node.in_view.contains(&other.id), "{} is ready without {}", node.id, other.id);
            assert!(other.peers.contains_key(&node.id));
        }
    }

    fn end(&mut self, node: usize, lane: u64) -> &mut End {
        self.conns.get_mut(&lane).unwrap().iter_mut().find(|end| end.node == node).unwrap()
    }

    /// The end that this node sends to, if the lane carries anything at all.
    fn far_end(&self, node: usize, lane: u64) -> Option<usize> {
        let ends = &self.conns[&lane];
        let near = ends.iter().position(|end| end.node == node).unwrap();
        (ends[near].open && !self.is_cut(node, ends[1 - near].node)).then_some(1 - near)
    }

    fn send(&mut self, node: usize, lane: u64, message: Message) {
        let Some(end) = self.far_end(node, lane) else { return };
        let latency = self.latency();
        let arrival = &mut self.conns.get_mut(&lane).unwrap()[end].arrival;
        *arrival = (*arrival).max(self.now + latency);
        let after = arrival.since(self.now);
        self.push(after, What::Message { conn: lane, end, message });
    }

    fn send_datagram(&mut self, node: usize, lane: u64, bytes: Vec<u8>) {
        assert!(bytes.len() <= crate::limits::MESH_DATAGRAM_BYTES_MAX);
        let Some(end) = self.far_end(node, lane) else { return };
        let copies = 1 + u64::from(self.datagram_loss > 0 && self.rng.chance(1, 20));
        self.duplicates += copies - 1;
        for _ in 0..copies {
            if !self.rng.chance(self.datagram_loss, 100) {
                let after = self.latency() * 2;
                self.push(after, What::Datagram { conn: lane, end, bytes: bytes.clone() });
            }
        }
    }

    fn close(&mut self, node: usize, lane: u64, code: u32) {
        let far = self.far_end(node, lane);
        self.end(node, lane).open = false;
        if let Some(end) = far {
            let after = self.latency();
            self.push(after, What::Closed { conn: lane, end, code });
        }
    }

    fn on_message(&mut self, node: usize, lane: u64, message: Message) {
        let peer = self.conns[&lane].iter().find(|end| end.node != node).unwrap().node;
        let peer = self.nodes[peer].id.clone();
        match message {
            Message::Snapshot => {
                if !self.end(node, lane).connected {
                    self.end(node, lane).snapshot_waits = true;
                    return;
                }
                self.end(node, lane).snapshot = true;
                self.send(node, lane, Message::SnapshotAck);
                self.consider_view(node, lane, &peer);
            }
            Message::SnapshotAck => {
                self.end(node, lane).acked = true;
                self.consider_view(node, lane, &peer);
            }
            Message::MembersRequest => self.act(node, |cluster, now| cluster.on_members_request(now, &peer)),
            Message::Members(frame) => {
                let Ok((_, Frame::Members(members))) = envelope::decode(&frame) else { panic!("our own frame") };
                self.act(node, |cluster, now| cluster.on_members(now, &peer, &members));
            }
            Message::Goodbye => {
                self.end(node, lane).open = false;
                self.act(node, |cluster, now| cluster.on_peer_lane_down(now, lane, true));
            }
        }
    }

    fn consider_view(&mut self, node: usize, lane: u64, peer: &NodeId) {
        let end = self.end(node, lane);
        if end.snapshot && end.acked && self.nodes[node].peers.get(peer) == Some(&lane) {
            self.nodes[node].in_view.insert(peer.clone());
            self.act(node, |cluster, now| cluster.on_in_view(now, peer));
        }
    }

    fn lose(&mut self, node: usize, lane: u64, code: Option<u32>) {
        let (up, token) = {
            let end = self.end(node, lane);
            end.open = false;
            (end.up, end.token)
        };
        let view: Vec<NodeId> =
            self.nodes[node].peers.iter().filter(|(_, at)| **at == lane).map(|(id, _)| id.clone()).collect();
        for id in view {
            self.nodes[node].in_view.remove(&id);
        }
        match (up, token, code) {
            (false, Some(token), code) => {
                let why = code.and_then(|code| Refused::from_code(code.into()));
                self.act(node, |cluster, now| cluster.on_dial_failed(now, token, why));
            }
            (_, _, Some(code)) => self.act(node, |cluster, now| cluster.on_peer_closed_lane(now, lane, code)),
            _ => self.act(node, |cluster, now| cluster.on_peer_lane_down(now, lane, false)),
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Dialled { from, life, token, address } => {
                let lives_at = |node: &Node| node.address == address || node.aliases.contains(&address);
                let Some(to) = self.nodes.iter().position(lives_at) else { return };
                let reachable = !self.is_cut(from, to) && !self.is_cut(to, from);
                if !self.is_alive(from, life) || self.nodes[to].cluster.is_none() || !reachable || self.nodes[to].paused
                {
                    return;
                }
                let (theirs, ours) = (self.hello(from, token), self.hello(to, 0));
                if let Err(why) = theirs.check(&ours, &[theirs.id.as_str().to_owned()]) {
                    let after = self.latency();
                    return self.push(after, What::Refused { to: from, life, token, why });
                }
                self.conns_made += 1;
                let conn = self.conns_made;
                let end = |node: usize, life, token| End {
                    node,
                    life,
                    open: true,
                    up: false,
                    token,
                    heard: self.now,
                    connected: false,
                    snapshot_waits: false,
                    snapshot: false,
                    acked: false,
                    arrival: self.now,
                };
                let ends = [end(from, life, Some(token)), end(to, self.nodes[to].life, None)];
                self.conns.insert(conn, ends);
                let after = self.latency();
                self.push(after, What::Answered { conn, token });
                let remote = self.nodes[from].address;
                self.end(to, conn).up = true;
                self.act(to, |cluster, now| cluster.on_peer_up(now, &theirs, conn, remote, None));
            }
            What::Answered { conn, token } => {
                let [near, far] = self.conns[&conn].clone();
                // Nobody there to hear it, or the HELLO died with its sender.
                if !near.open || self.is_cut(far.node, near.node) || !self.is_alive(far.node, far.life) {
                    return;
                }
                let (hello, remote) = (self.hello(far.node, 0), self.nodes[far.node].address);
                self.end(near.node, conn).up = true;
                self.act(near.node, |cluster, now| cluster.on_peer_up(now, &hello, conn, remote, Some(token)));
            }
            What::Refused { to, life, token, why } => {
                if self.is_alive(to, life) {
                    self.act(to, |cluster, now| cluster.on_dial_failed(now, token, Some(why)));
                }
            }
            What::Message { conn, end, message } => {
                let [a, b] = &self.conns[&conn];
                let (near, far) = if end == 0 { (a, b) } else { (b, a) };
                if near.open && !self.is_cut(far.node, near.node) {
                    if !near.up {
                        // The stream is read after HELLO.
                        return self.push(Duration::from_millis(1), What::Message { conn, end, message });
                    }
                    self.on_message(near.node, conn, message);
                }
            }
            What::Datagram { conn, end, bytes } => {
                let near = &self.conns[&conn][end];
                if near.open {
                    let node = near.node;
                    self.act(node, |cluster, now| cluster.on_datagram(now, conn, &bytes));
                }
            }
            What::Closed { conn, end, code } => {
                let near = &self.conns[&conn][end];
                if near.open {
                    let node = near.node;
                    self.lose(node, conn, Some(code));
                }
            }
        }
    }

    /// Keep-alive and silence of all lanes.
    fn keep_alive(&mut self) {
        let now = self.now;
        let mut silent = Vec::new();
        for (&conn, ends) in &self.conns {
            for (near, far) in [(0, 1), (1, 0)] {
                let (near, far) = (&ends[near], &ends[far]);
                if !near.open || self.nodes[near.node].paused {
                    continue;
                }
                let heard = far.open && !self.nodes[far.node].paused && !self.is_cut(far.node, near.node);
                silent.push((conn, near.node, heard, near.heard));
            }
        }
        for (conn, node, heard, last) in silent {
            if heard {
                self.end(node, conn).heard = now;
            } else if now.since(last) > IDLE && self.end(node, conn).open {
                self.lose(node, conn, None);
            }
        }
        self.conns.retain(|_, ends| ends.iter().any(|end| end.open) || ends.iter().any(|end| end.connected));
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let deadline = |node: &Node| node.deadline.filter(|_| node.cluster.is_some() && !node.paused);
            let deadlines = self.nodes.iter().filter_map(deadline);
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let next = deadlines.chain(queued).chain([self.tick, end]).min().unwrap();
            self.now = self.now.max(next);
            if next == end {
                return;
            }
            if let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let what = entry.remove();
                let paused =
                    |end: usize, conn: &u64| self.conns.get(conn).is_some_and(|ends| self.nodes[ends[end].node].paused);
                match &what {
                    What::Message { conn, end, .. }
                    | What::Datagram { conn, end, .. }
                    | What::Closed { conn, end, .. }
                        if paused(*end, conn) =>
                    {
                        self.push(Duration::from_millis(20), what);
                    }
                    What::Message { conn, .. }
                    | What::Datagram { conn, .. }
                    | What::Closed { conn, .. }
                    | What::Answered { conn, .. }
                        if !self.conns.contains_key(conn) => {}
                    _ => self.happen(what),
                }
            } else if self.tick <= self.now {
                self.tick = self.now + TICK;
                self.keep_alive();
            } else {
                for index in 0..self.nodes.len() {
                    let due = deadline(&self.nodes[index]).is_some_and(|at| at <= self.now);
                    if due {
                        self.act(index, Cluster::on_deadline);
                        let next = self.nodes[index].cluster.as_ref().and_then(Cluster::poll_deadline);
                        assert!(next.is_none_or(|next| next > self.now), "a deadline is met by what is done at it");
                    }
                }
            }
        }
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].cluster.is_some()).collect()
    }

    /// Everybody alive has everybody alive in view, over exactly one lane, and gossip agrees.
    fn is_whole(&self) -> Result<(), String> {
        let alive = self.alive();
        for &a in &alive {
            let node = &self.nodes[a];
            let cluster = node.cluster.as_ref().unwrap();
            for &b in alive.iter().filter(|&&b| b != a) {
                let other = &self.nodes[b];
                if !node.in_view.contains(&other.id) {
                    return Err(format!("{} has {} not in view", node.id, other.id));
                }
                if node.peers.get(&other.id) != other.peers.get(&node.id) {
                    return Err(format!("{} and {} use different lanes", node.id, other.id));
                }
                let generation = other.cluster.as_ref().unwrap().options.generation;
                let status = cluster.peers().find(|status| *status.id == other.id).unwrap();
                if status.generation != generation || status.state != PeerState::Alive || !status.in_view {
                    return Err(format!("{} sees {status:?}", node.id));
                }
            }
            for id in node.peers.keys() {
                if !alive.iter().any(|&b| self.nodes[b].id == *id) {
                    return Err(format!("{} still has {id}", node.id));
                }
            }
        }
        let mut pairs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for ends in self.conns.values().filter(|ends| ends.iter().all(|end| end.open)) {
            *pairs.entry((ends[0].node.min(ends[1].node), ends[0].node.max(ends[1].node))).or_default() += 1;
        }
        match pairs.iter().find(|(_, count)| **count > 1) {
            Some((pair, count)) => Err(format!("{count} lanes between {pair:?}")),
            None => Ok(()),
        }
    }

    #[track_caller]
    fn check_whole(&self) {
        if let Err(why) = self.is_whole() {
            panic!("{why}");
        }
    }

    /// How long it takes until all is well.
    #[track_caller]
    fn heal(&mut self, within: Duration) -> Duration {
        let start = self.now;
        while let Err(why) = self.is_whole() {
            assert!(self.now.since(start) < within, "not whole in {within:?}: {why}");
            self.run(Duration::from_millis(20));
        }
        self.now.since(start)
    }

    fn all_ready(&self) -> bool {
        self.alive().iter().all(|&index| self.nodes[index].ready.is_some())
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A cluster that has come together: the first node alone, the others by it.
fn cluster(seed: u64, size: usize) -> Sim {
    let mut sim = Sim::new(seed);
    for _ in 0..size {
        sim.add();
    }
    sim.start(0, &[]);
    for index in 1..size {
        sim.start(index, &[0]);
    }
    sim.heal(secs(3));
    sim.run(Duration::from_millis(200));
    assert!(sim.all_ready());
    sim
}

#[test]
fn nodes_that_start_together_come_together_and_none_is_ready_too_early() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let size = 2 + seed as usize % 5;
        let all: Vec<usize> = (0..size).collect();
        for _ in 0..size {
            sim.add();
        }
        for index in 0..size {
            sim.start(index, &all);
            let pause = Duration::from_millis(sim.rng.below(30));
            sim.run(pause);
        }
        sim.run(secs(2));
        sim.check_whole();
        assert!(sim.all_ready(), "seed {seed}");
        assert!(sim.nodes.iter().all(|node| node.ready == Some(false)), "seed {seed}");
    }
}

#[test]
fn two_pairs_that_are_far_from_each_other_do_not_become_two_clusters() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed);
        (0..4).for_each(|_| _ = sim.add());
        sim.far = Some(2);
        (0..4).for_each(|index| sim.start(index, &[0, 1, 2, 3]));
        sim.run(secs(2));
        // `check_ready` has asserted that none of them was ready without another that was.
        sim.check_whole();
        assert!(sim.all_ready());
    }
}

#[test]
fn two_nodes_that_join_at_once_through_a_third_know_each_other_before_both_are_ready() {
    for seed in 0..200 {
        let mut sim = cluster(seed, 1 + seed as usize % 3);
        let (a, b) = (sim.add(), sim.add());
        sim.latency_max = Duration::from_millis(1 + seed % 40);
        sim.start(a, &[0]);
        let pause = Duration::from_micros(sim.rng.below(20_000));
        sim.run(pause);
        sim.start(b, &[0]);
        // `check_ready` asserts the rule at the moment at which the second one becomes ready.
        sim.heal(secs(3));
        sim.run(secs(1));
        assert!(sim.all_ready(), "seed {seed}");
    }
}

#[test]
fn a_node_without_answer_starts_alone_and_is_found_later() {
    let mut sim = Sim::new(1);
    sim.add();
    sim.add();
    sim.start(0, &[1]);
    sim.run(Duration::from_millis(3900));
    assert_eq!(sim.nodes[0].ready, None);
    sim.run(Duration::from_millis(200));
    assert_eq!(sim.nodes[0].ready, Some(true));
    sim.run(secs(20));
    sim.start(1, &[]);
    sim.heal(secs(8));
}

#[test]
fn a_node_that_is_its_own_seed_recognises_itself() {
    let mut sim = Sim::new(1);
    sim.add();
    sim.add();
    // Not under the address that it advertises, so that it has to dial to find out.
    sim.start(0, &[0]);
    let other: SocketAddr = "10.9.9.9:7000".parse().unwrap();
    sim.nodes[0].address = other;
    sim.act(0, |cluster, now| cluster.on_seeds(now, &[other]));
    sim.run(secs(10));
    let cluster = sim.nodes[0].cluster.as_ref().unwrap();
    assert_eq!(cluster.counters.dials, 1);
    assert_eq!(sim.nodes[0].ready, Some(true));
    // The address changes hands.
    sim.nodes[0].address = address(0);
    sim.nodes[1].address = other;
    sim.start(1, &[]);
    sim.act(0, |cluster, now| cluster.on_seeds(now, &[address(7), other]));
    sim.run(secs(1));
    assert!(sim.nodes[0].in_view.contains(&id(1)));
}

#[test]
fn a_killed_node_is_out_of_view_in_two_seconds_and_gone_soon_after() {
    for (seed, size) in [(1, 2), (2, 3), (3, 5), (4, 20)] {
        let mut sim = cluster(seed, size);
        sim.run(secs(5));
        let at = sim.now;
        sim.kill(1);
        sim.run(Duration::from_millis(1900));
        for &index in &sim.alive() {
            assert!(!sim.nodes[index].in_view.contains(&id(1)));
        }
        sim.run(Duration::from_millis(2000));
        for &index in &sim.alive() {
            let gone = &sim.nodes[index].gone;
            assert_eq!(gone.iter().map(|(id, how, _)| (id.clone(), *how)).collect::<Vec<_>>(), [(id(1), Gone::Down)]);
            assert!(gone[0].2.since(at) < Duration::from_millis(3000), "{:?} of {size}", gone[0].2.since(at));
        }
        sim.check_whole();
    }
}

#[test]
fn a_planned_leave_is_seen_at_once_and_nobody_calls_after_who_left() {
    for seed in 0..10 {
        let mut sim = cluster(seed, 4);
        sim.act(2, Cluster::on_leave);
        sim.run(Duration::from_millis(50));
        sim.kill(2);
        for index in [0, 1, 3] {
            let gone: Vec<_> = sim.nodes[index].gone.iter().map(|(id, how, _)| (id.clone(), *how)).collect();
            assert_eq!(gone, [(id(2), Gone::Left)]);
        }
        let dials = |sim: &Sim| -> u64 {
            sim.alive().iter().map(|&index| sim.nodes[index].cluster.as_ref().unwrap().counters.dials).sum()
        };
        let before = dials(&sim);
        sim.run(secs(30));
        assert_eq!(dials(&sim), before);
        sim.check_whole();
        let status = sim.nodes[0].cluster.as_ref().unwrap().peers().find(|status| *status.id == id(2)).unwrap();
        assert_eq!(status.state, PeerState::Left);
        // It comes back as a new life.
        sim.start(2, &[0]);
        sim.heal(secs(3));
        sim.run(secs(600));
        sim.check_whole();
    }
}

#[test]
fn a_node_that_returns_under_its_name_replaces_its_old_life() {
    for seed in 0..30 {
        let mut sim = cluster(seed, 3);
        let down = Duration::from_millis(20 + 250 * (seed % 15));
        sim.kill(1);
        sim.run(down);
        sim.start(1, &[0, 2]);
        sim.heal(secs(4));
        sim.run(secs(6));
        sim.check_whole();
        assert!(sim.nodes[1].ready.is_some() && !sim.nodes[1].fatal);
        for index in [0, 2] {
            assert_eq!(sim.nodes[index].gone.len(), 1, "seed {seed}: {:?}", sim.nodes[index].gone);
        }
    }
}

#[test]
fn a_node_that_returns_elsewhere_is_taken_once_its_old_life_is_silent() {
    for seed in 0..30 {
        let mut sim = cluster(seed, 3);
        sim.run(secs(1 + seed));
        sim.kill(1);
        sim.run(Duration::from_millis(20 + 100 * (seed % 15)));
        sim.nodes[1].address = address(9);
        sim.start(1, &[0, 2]);
        sim.heal(secs(4));
        sim.run(secs(6));
        sim.check_whole();
        assert!(sim.nodes[1].ready.is_some() && !sim.nodes[1].fatal);
        for index in [0, 2] {
            assert_eq!(sim.nodes[index].gone.len(), 1, "seed {seed}: {:?}", sim.nodes[index].gone);
        }
    }
}

#[test]
fn a_node_with_two_addresses_among_the_seeds_keeps_one_lane() {
    for seed in 0..20 {
        let mut sim = cluster(seed, 2);
        let alias: SocketAddr = "10.7.7.7:7000".parse().unwrap();
        sim.nodes[0].aliases.push(alias);
        let node = sim.add();
        sim.start(node, &[0]);
        sim.act(node, |cluster, now| cluster.on_seeds(now, &[address(0), alias]));
        sim.heal(secs(2));
        let lane = sim.nodes[node].peers[&id(0)];
        // Much later the name resolves to one more, and the lane stays as it is.
        sim.run(secs(10));
        let more: SocketAddr = "10.7.7.8:7000".parse().unwrap();
        sim.nodes[0].aliases.push(more);
        sim.act(node, |cluster, now| cluster.on_seeds(now, &[address(0), alias, more]));
        sim.run(secs(10));
        sim.check_whole();
        assert_eq!(sim.nodes[node].peers[&id(0)], lane);
        assert_eq!(sim.nodes[node].cluster.as_ref().unwrap().counters.dials_failed, 0);
    }
}

#[test]
fn a_peer_that_lost_its_lane_unseen_gets_a_new_one_at_once() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        (0..2).for_each(|_| _ = sim.add());
        // Whoever dialled first, and whoever notices.
        let dialler = seed as usize % 2;
        sim.start(1 - dialler, &[]);
        sim.start(dialler, &[1 - dialler]);
        sim.run(secs(10));
        sim.check_whole();
        let lane = sim.nodes[0].peers[&id(1)];
        sim.lose(seed as usize / 2 % 2, lane, None);
        let took = sim.heal(secs(2));
        assert!(took < Duration::from_millis(350), "{took:?}");
    }
}

#[test]
fn a_second_live_node_under_the_same_name_is_refused_and_the_first_goes_on() {
    for seed in 0..10 {
        let mut sim = cluster(seed, 3);
        let twin = sim.add_named(id(1));
        sim.start(twin, &[0, 2]);
        sim.run(secs(6));
        assert!(sim.nodes[twin].fatal, "seed {seed}");
        assert_eq!(sim.nodes[twin].ready, None);
        assert!(sim.nodes[1].cluster.is_some() && !sim.nodes[1].fatal);
        sim.heal(secs(2));
        assert!(sim.nodes[0].gone.is_empty());
    }
}

#[test]
fn split_halves_that_heal_find_each_other_by_themselves() {
    for seed in 0..20 {
        let mut sim = cluster(seed, 2 + seed as usize % 4);
        let size = sim.nodes.len();
        for a in 0..size / 2 {
            for b in size / 2..size {
                sim.cut_both(a, b);
            }
        }
        let apart = secs(3 + sim.rng.below(40));
        sim.run(apart);
        assert!(sim.nodes[0].gone.iter().all(|(_, how, _)| *how == Gone::Down));
        assert_eq!(sim.nodes[0].gone.len(), size - size / 2);
        sim.cuts.clear();
        sim.heal(secs(12));
        sim.run(secs(10));
        sim.check_whole();
    }
}

#[test]
fn halves_without_seeds_find_each_other_too() {
    let mut sim = cluster(9, 4);
    for index in 0..4 {
        sim.act(index, |cluster, now| cluster.on_seeds(now, &[]));
    }
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        sim.cut_both(a, b);
    }
    sim.run(secs(400));
    sim.cuts.clear();
    sim.heal(secs(12));
}

#[test]
fn a_one_way_cut_costs_the_view_and_heals() {
    for seed in 0..20 {
        let mut sim = cluster(seed, 3);
        sim.calm = false;
        sim.cuts.insert((0, 1));
        sim.run(secs(4));
        assert!(!sim.nodes[0].in_view.contains(&id(1)));
        assert!(!sim.nodes[1].in_view.contains(&id(0)));
        // The third node speaks for both, so nobody is called dead.
        assert!(sim.nodes.iter().all(|node| node.gone.is_empty()), "seed {seed}");
        sim.cuts.clear();
        sim.heal(secs(10));
    }
}

#[test]
fn a_node_that_was_stopped_for_a_while_comes_back_in_the_same_life() {
    for seed in 0..20 {
        let mut sim = cluster(seed, 2 + seed as usize % 3);
        sim.calm = false;
        sim.nodes[1].paused = true;
        sim.run(secs(5));
        assert!(sim.nodes[0].gone.iter().any(|(gone, how, _)| *gone == id(1) && *how == Gone::Down));
        sim.nodes[1].paused = false;
        sim.heal(secs(10));
        sim.run(secs(10));
        sim.check_whole();
    }
}

#[test]
fn lost_doubled_and_reordered_gossip_unsettles_nobody() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed);
        sim.datagram_loss = 10;
        sim.latency_max = Duration::from_millis(15);
        for _ in 0..5 {
            sim.add();
        }
        for index in 0..5 {
            sim.start(index, &[0, 1, 2, 3, 4]);
        }
        sim.heal(secs(5));
        sim.run(secs(60));
        assert!(sim.duplicates > 0);
        let gone: usize = sim.nodes.iter().map(|node| node.gone.len()).sum();
        assert_eq!(gone, 0, "seed {seed}");
        sim.check_whole();
    }
}

#[test]
fn a_large_cluster_comes_together_and_sees_a_death() {
    let mut sim = Sim::new(3);
    for _ in 0..50 {
        sim.add();
    }
    sim.start(0, &[]);
    for index in 1..50 {
        sim.start(index, &[0]);
    }
    sim.heal(secs(8));
    let at = sim.now;
    sim.kill(49);
    sim.run(Duration::from_millis(2800));
    for &index in &sim.alive() {
        assert!(sim.nodes[index].gone.iter().all(|(gone, _, when)| *gone == id(49) && when.since(at) < secs(3)));
        assert_eq!(sim.nodes[index].gone.len(), 1);
    }
}

#[test]
fn no_more_peers_are_remembered_than_the_bound_and_the_dead_make_room() {
    let mut sim = cluster(1, 2);
    let member = |index: usize| Member {
        id: NodeId::parse(&format!("heard-{index}")).unwrap(),
        generation: Generation(1),
        workers: 1,
        addresses: vec![SocketAddr::from(([10, 1, (index / 250) as u8, (index % 250) as u8], 7000))],
    };
    let many: Vec<Member> = (0..PEERS_MAX + 50).map(member).collect();
    sim.act(0, |cluster, now| cluster.on_members(now, &id(1), &many));
    assert_eq!(sim.nodes[0].cluster.as_ref().unwrap().peers().count(), PEERS_MAX);
    // Nobody is there: the names that cannot be reached give way to one that can.
    sim.run(secs(20));
    let node = sim.add();
    sim.start(node, &[0]);
    sim.run(secs(2));
    assert!(sim.nodes[0].in_view.contains(&id(node)));
    assert!(sim.nodes[0].in_view.contains(&id(1)));
    assert!(sim.nodes[0].cluster.as_ref().unwrap().peers().count() <= PEERS_MAX);
}

#[test]
fn a_joining_node_goes_on_without_a_member_that_nobody_can_reach() {
    let mut sim = cluster(1, 2);
    let ghost = Member {
        id: NodeId::parse("ghost").unwrap(),
        generation: Generation(1),
        workers: 1,
        addresses: vec!["10.1.1.1:7000".parse().unwrap()],
    };
    sim.act(0, |cluster, now| cluster.on_members(now, &id(1), &[ghost]));
    let node = sim.add();
    sim.start(node, &[0]);
    sim.run(secs(5));
    assert_eq!(sim.nodes[node].ready, None);
    sim.run(secs(4));
    assert_eq!(sim.nodes[node].ready, Some(false));
}

/// A machine whose lane 1 leads to a peer `n01`, and what it wanted done for that.
fn met() -> (Cluster, Vec<Action>) {
    let mut sim = Sim::new(1);
    let (a, b) = (sim.add(), sim.add());
    sim.start(a, &[]);
    sim.start(b, &[]);
    let hello = sim.hello(b, 7);
    let mut cluster = sim.nodes[a].cluster.take().unwrap();
    cluster.on_peer_up(sim.now(), &hello, 1, address(b), None);
    let actions = actions(&mut cluster);
    (cluster, actions)
}

fn actions(cluster: &mut Cluster) -> Vec<Action> {
    std::iter::from_fn(|| cluster.poll_action())
        .filter(|action| !matches!(action, Action::Log(_) | Action::Datagram { .. }))
        .collect()
}

fn at(duration: Duration) -> Now {
    Now::simulated(Instant::START + duration)
}

#[test]
fn a_peer_is_told_of_the_members_only_once_it_is_in_view() {
    let (mut cluster, wanted) = met();
    assert!(matches!(
        &wanted[..],
        [Action::PeerConnected { lane: 1, we_dial_the_rest: true, .. }, Action::RequestMembers { lane: 1 }]
    ));
    cluster.on_members_request(at(TICK), &id(1));
    assert_eq!(actions(&mut cluster), []);
    cluster.on_in_view(at(TICK), &id(1));
    assert_eq!(actions(&mut cluster), [Action::SendMembers { lane: 1, members: vec![] }]);
    // Asked again, it answers again.
    cluster.on_members_request(at(TICK), &id(1));
    assert_eq!(actions(&mut cluster), [Action::SendMembers { lane: 1, members: vec![] }]);
    cluster.on_out_of_view(at(TICK), &id(1));
    cluster.on_members_request(at(TICK), &id(1));
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn a_peer_that_is_called_dead_keeps_its_lane_until_it_had_time_to_object() {
    let (mut cluster, _) = met();
    cluster.on_in_view(at(TICK), &id(1));
    let mut now = TICK;
    while cluster.peers().next().unwrap().state != PeerState::Down {
        now = cluster.poll_deadline().unwrap().since(Instant::START);
        cluster.on_deadline(at(now));
    }
    assert_eq!(actions(&mut cluster), []);
    let doubted = now;
    while now < doubted + DOWN_GRACE {
        assert_eq!(actions(&mut cluster), []);
        now = cluster.poll_deadline().unwrap().since(Instant::START);
        cluster.on_deadline(at(now));
    }
    let ended = actions(&mut cluster);
    assert!(matches!(ended[0], Action::CloseLane { lane: 1, code: close::DOWN, .. }), "{ended:?}");
    assert!(matches!(ended[1], Action::PeerGone { how: Gone::Down, .. }), "{ended:?}");
}

#[test]
fn a_node_that_leaves_says_goodbye_and_lets_nobody_in() {
    let (mut cluster, _) = met();
    cluster.on_leave(at(TICK));
    assert_eq!(actions(&mut cluster), [Action::SendGoodbye { lane: 1 }]);
    assert_eq!(cluster.poll_deadline(), None);
    let mut sim = Sim::new(1);
    (0..3).for_each(|_| _ = sim.add());
    sim.start(2, &[]);
    let hello = sim.hello(2, 1);
    cluster.on_peer_up(at(TICK), &hello, 2, address(2), None);
    assert!(matches!(actions(&mut cluster)[..], [Action::CloseLane { lane: 2, code: close::GOODBYE, .. }]));
    cluster.on_peer_lane_down(at(TICK), 1, false);
    cluster.on_seeds(at(TICK), &[address(3)]);
    assert_eq!(actions(&mut cluster), []);
}

#[test]
fn gossip_on_a_lane_without_hello_is_dropped_and_counted() {
    let mut sim = cluster(1, 2);
    sim.act(0, |cluster, now| cluster.on_datagram(now, 999, b"anything"));
    let lane = sim.nodes[0].peers[&id(1)];
    sim.act(0, |cluster, now| cluster.on_datagram(now, lane, b"anything"));
    let counters = sim.nodes[0].cluster.as_ref().unwrap().counters();
    assert_eq!((counters.datagrams_early, counters.datagrams_bad), (1, 1));
}

#[test]
fn after_any_night_a_healed_cluster_is_whole() {
    let seeds = std::env::var("MESH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        night(seed);
    }
}

/// Kills, restarts, leaves, cuts, pauses and loss at random; then peace.
fn night(seed: u64) -> u64 {
    let size = 2 + seed as usize % 5;
    let mut sim = cluster(1000 + seed, size);
    let all: Vec<usize> = (0..size).collect();
    sim.datagram_loss = sim.rng.below(20);
    sim.latency_max = Duration::from_millis(1 + sim.rng.below(60));
    let mut moves = 0;
    for _ in 0..12 {
        let (a, b) = (sim.rng.below(size as u64) as usize, sim.rng.below(size as u64) as usize);
        sim.calm = false;
        match sim.rng.below(7) {
            0 => sim.kill(a),
            1 => {
                sim.act(a, Cluster::on_leave);
                sim.run(Duration::from_millis(30));
                sim.kill(a);
            }
            2 => sim.cut_both(a, b),
            3 => {
                sim.cuts.insert((a, b));
            }
            4 => sim.cuts.clear(),
            5 => sim.nodes[a].paused = !sim.nodes[a].paused,
            _ if sim.nodes[a].cluster.is_none() => {
                if sim.rng.chance(1, 3) {
                    moves += 1;
                    sim.nodes[a].address = address(100 + moves);
                }
                sim.start(a, &all);
            }
            _ => {}
        }
        let pause = Duration::from_millis(sim.rng.below(4000));
        sim.run(pause);
    }
    sim.cuts.clear();
    sim.datagram_loss = 0;
    sim.latency_max = Duration::from_millis(5);
    for index in 0..size {
        sim.nodes[index].paused = false;
        if sim.nodes[index].cluster.is_none() {
            assert!(!sim.nodes[index].fatal, "seed {seed}: nobody's name was taken");
            sim.start(index, &all);
        }
    }
    sim.heal(secs(20));
    sim.run(secs(5));
    if let Err(why) = sim.is_whole() {
        panic!("seed {seed}: {why}");
    }
    assert!(sim.all_ready(), "seed {seed}");
    sim.trace
}

#[test]
fn the_same_seed_twice_gives_the_same_run() {
    assert_eq!(night(5), night(5));
    assert_ne!(night(5), night(6));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_datagram_from_a_peer_is_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut sim = cluster(1, 2);
        let lane = sim.nodes[0].peers[&id(1)];
        sim.act(0, |cluster, now| cluster.on_datagram(now, lane, &bytes));
    }
}
