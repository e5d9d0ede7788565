//! Peers as one worker sees them: the lanes it owns, the flows of which it is one end, and on worker 0 the cluster's actions.
//!
//! A lane is greeted with HELLO, then matched to its peer. Its worker is a switch: frames for another worker of this node go
//! on by mail, and so do frames of a flow whose lane another worker owns. What to dial and whom to count as a
//! member is the cluster machine's to decide, on worker 0, which tells the others by mail.
//!
//! Always true: a flow has a session exactly while its lane is up and its worker knows; a lane that breaks any rule is
//! closed with a code and its flows count a gap; no worker ever waits for a peer.

mod cluster;
mod frames;
mod lanes;
mod turn;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::outlet::LaneKey;
use super::{LaneStats, MeshSetup};
use crate::backplane::envelope;
use crate::backplane::interest::Ticket;
use crate::backplane::mesh::cluster::{Cluster, PeerInfo};
use crate::backplane::mesh::flow::{Flow, Passage};
use crate::backplane::mesh::handshake::Hello;
use crate::backplane::mesh::lane::{Incoming, Lane};
use crate::base::hash::{ChannelHash, HashKey};
use crate::base::id::{Generation, NodeId, WorkerIndex};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Now};

pub use cluster::PeerView;
pub use turn::TurnPublications;

/// Lanes that were dialled and came to nothing are tried again after this, doubling.
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// A peer that said goodbye has this long to send what it had queued before: goodbye travels on the control stream and
/// overtakes publications.
const GOODBYE_GRACE: Duration = Duration::from_millis(100);
/// Dial tokens of the lanes above 0; the cluster machine counts from below.
const LANE_TOKENS: u64 = 1 << 63;

pub struct Peers {
    hello: Option<Hello>,
    cluster: Option<Cluster>,
    /// The cluster's actions are being carried out.
    pumping: bool,
    by_id: BTreeMap<NodeId, Peer>,
    lanes: BTreeMap<LaneKey, LaneEntry>,
    dialling: BTreeMap<u64, (NodeId, u16)>,
    next_token: u64,
    /// Lanes 0 whose peer has said goodbye, and when it is taken at its word.
    goodbyes: Vec<(Instant, LaneKey)>,
    /// On worker 0: which workers have all their flows with a peer in order.
    synced: BTreeMap<NodeId, (Generation, Vec<bool>)>,
    in_view: BTreeMap<NodeId, Generation>,

    dials: Vec<(SocketAddr, u64)>,
    datagrams: Vec<(LaneKey, Vec<u8>)>,
    closes: Vec<(LaneKey, u32, String)>,
    /// Another node lives under this node's name: the process has to stop.
    pub(super) fatal: Option<String>,
    scratch: Vec<u8>,
    /// A lane has bytes that were not offered since it last had room.
    lanes_dirty: bool,
}

pub struct Peer {
    info: PeerInfo,
    dial: bool,
    /// Declared down; kept to remember that a gap is open until it heals.
    down: bool,
    /// This worker's flows with it, by the peer's worker.
    flows: Vec<Flow>,
    flow_stride: u16,
    /// The turn's publications for each flow.
    pending: Vec<Vec<(u32, u64)>>,
    lanes: BTreeMap<u16, Slot>,
    synced_told: bool,
    /// Times that a gap opened or was told, in either direction; those that the peer told.
    pub gaps: u64,
    pub gap_publications: u64,
}

/// A lane of a peer that this worker owns.
#[derive(Default)]
struct Slot {
    up: Option<LaneKey>,
    dialling: bool,
    redial_at: Option<Instant>,
    backoff: Duration,
}

struct LaneEntry {
    lane: Lane,
    /// Away while its frames are being read.
    incoming: Option<Box<Incoming>>,
    names: Vec<String>,
    remote: SocketAddr,
    /// Which lane it is to be, when we dialled; the token of the dial.
    dialled: Option<u16>,
    /// Whom a lane above 0 was dialled for.
    sought: Option<NodeId>,
    token: Option<u64>,
    greeting: Greeting,
    peer: Option<(NodeId, Generation, u16)>,
    writable_control: bool,
    writable_publications: bool,
    pub stats: LaneStats,
}

enum Greeting {
    /// Until then HELLO has to be here.
    Awaited {
        until: Instant,
        bytes: Vec<u8>,
    },
    /// HELLO is here, its peer not yet: worker 0 has to say so by then.
    Unmatched {
        until: Instant,
        hello: Box<Hello>,
    },
    Done,
}

const fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Lanes of a pair of nodes, and the lane of the flow between two home workers.
const fn lane_of(workers: u16, peer_workers: u16, from: WorkerIndex, to: WorkerIndex) -> u16 {
    if peer_workers >= workers { to } else { from }
}

impl Peers {
    pub fn new(
        worker: WorkerIndex,
        workers: u16,
        node: &NodeId,
        hash_key: HashKey,
        setup: Option<MeshSetup>,
        rng: &mut Rng,
        now: Now,
    ) -> Self {
        let mut peers = Peers {
            hello: None,
            cluster: None,
            pumping: false,
            by_id: BTreeMap::new(),
            lanes: BTreeMap::new(),
            dialling: BTreeMap::new(),
            next_token: LANE_TOKENS,
            goodbyes: Vec::new(),
            synced: BTreeMap::new(),
            in_view: BTreeMap::new(),
            dials: Vec::new(),
            datagrams: Vec::new(),
            closes: Vec::new(),
            fatal: None,
            scratch: Vec::new(),
            lanes_dirty: false,
        };
        if let Some(setup) = setup {
            let options = setup.cluster;
            peers.hello = Some(Hello {
                version_min: Hello::VERSIONS.0,
                version_max: Hello::VERSIONS.1,
                layout: envelope::layout_hash(),
                hash_key: hash_key.fingerprint(),
                generation: options.generation,
                workers,
                lane: 0,
                dial: 0,
                id: node.clone(),
                addresses: options.advertise.clone(),
                client: setup.client_address,
            });
            if worker == 0 {
                peers.cluster = Some(Cluster::new(options, rng.fork(), now));
            }
        }
        peers
    }

    pub fn is_meshed(&self) -> bool {
        self.hello.is_some()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.by_id.values_mut()
    }

    /// Peers are told, with the end of the turn.
    pub fn on_wanted(&mut self, hash: ChannelHash, wanted: bool) {
        for peer in self.by_id.values_mut() {
            peer.flow_mut(hash).on_wanted(hash, wanted);
        }
    }

    /// How many peers in view have to acknowledge before the ticket's channel is confirmed.
    pub fn wait(&mut self, ticket: Ticket, hash: ChannelHash) -> u32 {
        self.by_id.values_mut().map(|peer| u32::from(peer.flow_mut(hash).wait(ticket))).sum()
    }

    pub fn has_pending(&self) -> bool {
        self.lanes.values().any(|entry| entry.lane.has_pending()) || !self.closes.is_empty()
    }

    /// Whether a flush would find something new to do. A lane without room waits for `on_lane_writable`.
    pub fn is_dirty(&self) -> bool {
        self.lanes_dirty
            || !self.dials.is_empty()
            || !self.datagrams.is_empty()
            || !self.closes.is_empty()
            || self.by_id.values().any(|peer| peer.flows.iter().any(Flow::is_dirty) || peer.has_publications())
    }

    pub fn poll_deadline(&self, acknowledge_timeout: Duration) -> Option<Instant> {
        let flows = self.by_id.values().flat_map(|peer| peer.flows.iter());
        let acknowledgements = flows.filter_map(|flow| flow.acknowledge_deadline(acknowledge_timeout)).min();
        let slots = self.by_id.values().flat_map(|peer| peer.lanes.values());
        let redials = slots.filter_map(|slot| slot.redial_at).min();
        let greetings = self.lanes.values().filter_map(|entry| match &entry.greeting {
            Greeting::Awaited { until, .. } | Greeting::Unmatched { until, .. } => Some(*until),
            Greeting::Done => None,
        });
        let cluster = self.cluster.as_ref().and_then(Cluster::poll_deadline);
        let goodbye = self.goodbyes.iter().map(|&(at, _)| at).min();
        [acknowledgements, redials, greetings.min(), cluster, goodbye].into_iter().flatten().min()
    }

    fn close_lane(&mut self, lane: LaneKey, code: u32, reason: impl Into<String>) {
        self.closes.push((lane, code, reason.into()));
    }
}

impl Peer {
    fn new(info: PeerInfo, dial: bool, worker: WorkerIndex, workers: u16) -> Self {
        let theirs = info.workers;
        let stride = gcd(workers, theirs);
        let flows: Vec<Flow> =
            (0..theirs).filter(|to| to % stride == worker % stride).map(|to| Flow::new(worker, to)).collect();
        let count = workers.max(theirs);
        let lanes = (0..count).filter(|lane| lane % workers == worker).map(|lane| (lane, Slot::default())).collect();
        Peer {
            info,
            dial,
            down: false,
            pending: flows.iter().map(|_| Vec::new()).collect(),
            flows,
            flow_stride: stride,
            lanes,
            synced_told: false,
            gaps: 0,
            gap_publications: 0,
        }
    }

    fn flow_place(&self, to: WorkerIndex) -> usize {
        usize::from(to / self.flow_stride)
    }

    fn flow_mut(&mut self, hash: ChannelHash) -> &mut Flow {
        let place = self.flow_place(hash.home(self.info.workers));
        &mut self.flows[place]
    }

    pub fn passage(&mut self, hash: ChannelHash) -> Passage {
        self.flow_mut(hash).passage(hash)
    }

    pub fn count_gap(&mut self) {
        self.gap_publications += 1;
    }

    pub fn push(&mut self, hash: ChannelHash, place: u32) {
        let flow = self.flow_place(hash.home(self.info.workers));
        self.pending[flow].push((place, hash.0));
    }

    fn has_publications(&self) -> bool {
        self.pending.iter().any(|pending| !pending.is_empty())
    }

    fn is_synced(&self) -> bool {
        self.flows.iter().all(Flow::is_synced)
    }

    pub fn has_gap(&self) -> bool {
        self.flows.iter().any(Flow::has_gap)
    }

    pub fn remote_interest(&self) -> usize {
        self.flows.iter().map(Flow::remote_interest).sum()
    }
}
