//! One node: its shards, the mailboxes between them, and what the world has for each worker to read.
//!
//! Always true: what a worker reads comes in the order in which it arrived; a node that is paused reads nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use skein::auth::Verifier;
use skein::backplane::mesh::cluster::ClusterOptions;
use skein::base::id::{Generation, NodeId};
use skein::base::rng::Rng;
use skein::base::time::Now;
use skein::protocol::Encoding;
use skein::rules::{self, Namespace, Rules};
use skein::session::Environment;
use skein::shard::mail::Mail;
use skein::shard::outlet::{LaneKey, LaneStream, RequestKey};
use skein::shard::{LaneDown, LaneOpened, MeshSetup, Setup, Shard};

use crate::plan::Plan;

/// Lane 0 of every node.
const PORT: u16 = 7000;

pub enum Input {
    Open { conn: u64, encoding: Encoding, response: Vec<u8> },
    Bytes { conn: u64, bytes: Vec<u8> },
    Writable { conn: u64 },
    Hangup { conn: u64 },
    Request { key: RequestKey, ask: Ask },
    LaneUp { lane: LaneKey, opened: LaneOpened },
    DialFailed { token: u64 },
    LaneBytes { lane: LaneKey, stream: LaneStream, bytes: Vec<u8> },
    LaneDatagram { lane: LaneKey, bytes: Vec<u8> },
    LaneWritable { lane: LaneKey },
    LaneDown { lane: LaneKey, why: LaneDown },
    Seeds,
    Shutdown,
}

#[derive(Debug)]
pub enum Ask {
    Publish { body: Vec<u8> },
    Info,
    Status,
    Metrics,
    Ready,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Off,
    On,
    /// Told to stop at this time.
    Stopping {
        since: u64,
    },
}

pub struct Node {
    pub slot: usize,
    pub id: NodeId,
    pub workers: u16,
    pub state: State,
    pub life: u32,
    pub generation: Generation,
    pub paused: bool,
    /// When it last was paused and not, so that nobody expects punctuality of it.
    pub awake_since: u64,
    pub shards: Vec<Shard>,
    pub inputs: Vec<VecDeque<Input>>,
    /// By receiver, then sender.
    pub mail: Vec<Vec<VecDeque<Mail>>>,
    pub wake: Vec<Option<u64>>,
    /// Connection behind each descriptor, numbers used again as the kernel does.
    pub descriptors: Vec<Option<u64>>,
    /// Next lane number of each worker.
    pub lanes_made: Vec<u64>,
    pub lanes: BTreeMap<(usize, LaneKey), (crate::net::LaneId, crate::net::Side)>,
    pub requests_made: u64,
    /// What the counters of each worker said last, to see what was added.
    pub seen: Vec<Seen>,
}

#[derive(Clone, Default)]
pub struct Seen {
    /// Gaps counted, by the peer's slot.
    pub gaps: Vec<u64>,
    /// Of all peers.
    pub gaps_total: u64,
    pub local_drops: u64,
}

/// Of a node's worker. The second form leads to the same node, which does not advertise it.
pub fn address(slot: usize, alias: bool, worker: u16) -> SocketAddr {
    let ip = Ipv4Addr::new(10, u8::from(alias), 0, slot as u8 + 1);
    SocketAddr::new(IpAddr::V4(ip), PORT + worker)
}

/// Slot and worker behind an address.
pub fn resolve(address: SocketAddr) -> (usize, u16) {
    let IpAddr::V4(ip) = address.ip() else { panic!("all addresses here are IPv4: {address}") };
    let [ten, alias, zero, host] = ip.octets();
    assert!(ten == 10 && alias <= 1 && zero == 0 && host > 0, "nobody was told of {address}");
    assert!((PORT..PORT + 64).contains(&address.port()), "nobody was told of {address}");
    (usize::from(host) - 1, address.port() - PORT)
}

impl Node {
    pub fn new(slot: usize, workers: u16) -> Node {
        let name = ["ada", "bob", "cleo", "dan", "eve"][slot];
        Node {
            slot,
            id: NodeId::parse(name).expect("a valid name"),
            workers,
            state: State::Off,
            life: 0,
            generation: Generation(0),
            paused: false,
            awake_since: 0,
            shards: Vec::new(),
            inputs: Vec::new(),
            mail: Vec::new(),
            wake: Vec::new(),
            descriptors: Vec::new(),
            lanes_made: Vec::new(),
            lanes: BTreeMap::new(),
            requests_made: 0,
            seen: Vec::new(),
        }
    }

    pub fn start(&mut self, plan: &Plan, rng: &mut Rng, now: Now, nodes: usize) {
        assert_eq!(self.state, State::Off);
        let workers = usize::from(self.workers);
        self.state = State::On;
        self.life += 1;
        self.generation = Generation(now.wall.0.max(self.generation.0 + 1));
        self.paused = false;
        self.awake_since = now.mono.as_nanos();
        self.inputs = (0..workers).map(|_| VecDeque::new()).collect();
        self.mail = (0..workers).map(|_| (0..workers).map(|_| VecDeque::new()).collect()).collect();
        self.wake = vec![None; workers];
        self.descriptors = Vec::new();
        self.lanes_made = vec![0; workers];
        self.lanes = BTreeMap::new();
        self.seen = vec![Seen { gaps: vec![0; nodes], gaps_total: 0, local_drops: 0 }; workers];
        self.shards = (0..self.workers)
            .map(|worker| {
                let mesh = (nodes > 1).then(|| MeshSetup {
                    cluster: ClusterOptions {
                        id: self.id.clone(),
                        generation: self.generation,
                        advertise: vec![address(self.slot, false, 0)],
                        workers: self.workers,
                        join_timeout: std::time::Duration::from_secs(3),
                        alone: false,
                    },
                    client_address: String::new(),
                });
                Shard::new(Setup {
                    worker,
                    workers: self.workers,
                    node: self.id.clone(),
                    hash_key: plan.key(),
                    environment: environment(plan),
                    options: plan.options.clone(),
                    mesh,
                    echo: false,
                    rng: rng.fork(),
                    now,
                })
            })
            .collect();
    }

    /// Nothing of it is left. The name is.
    pub fn end(&mut self) {
        self.state = State::Off;
        self.paused = false;
        self.shards.clear();
        self.inputs.clear();
        self.mail.clear();
        self.wake.clear();
        self.descriptors.clear();
        self.lanes.clear();
    }

    pub fn is_on(&self) -> bool {
        self.state != State::Off
    }

    pub fn is_serving(&self) -> bool {
        self.state == State::On && self.shards.iter().all(Shard::is_ready)
    }

    pub fn is_drained(&self) -> bool {
        self.shards.iter().all(Shard::is_drained) && self.mail.iter().flatten().all(VecDeque::is_empty)
    }

    pub fn take_descriptor(&mut self, conn: u64) -> i32 {
        let free = self.descriptors.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.descriptors.push(None);
            self.descriptors.len() - 1
        });
        self.descriptors[at] = Some(conn);
        at as i32
    }

    pub fn has_work(&self, worker: usize) -> bool {
        !self.inputs[worker].is_empty()
            || self.mail[worker].iter().any(|queue| !queue.is_empty())
            || self.shards[worker].is_dirty()
    }
}

fn environment(plan: &Plan) -> Environment {
    let mut options = rules::Options::open();
    options.namespaces.push(("told".into(), Namespace { tell_gap: true, ..Namespace::default() }));
    Environment {
        options: plan.session.clone(),
        rules: Rules::new(options),
        verifier: Verifier::new(&skein::auth::Options::default()),
    }
}
