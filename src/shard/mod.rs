//! Everything that one worker owns, and the order of its turn. It routes; it decides nothing about the protocol.
//!
//! The shell feeds it (`on_*`) with a bound on each source, then calls `flush` once, which sends dirty outboxes,
//! mail and lanes. No socket, no clock, no thread, no file: a whole cluster of these runs in one thread in virtual time.
//!
//! The files: `connection` (bytes to commands, commands to steps), `delivery` (a publication from its publisher to
//! outboxes, workers and lanes), `barrier` (a subscriber waits until everybody knows), `peers` (lanes, HELLO, flows, the
//! cluster's actions), `survey` (HTTP: publish, info, status, metrics), and what they stand on: `outboxes`, `replies`, `mail`,
//! `admission`.
//!
//! Always true: nothing leaves a shard but in `flush`; answers to a connection are never overtaken by later pushes.

mod admission;
mod barrier;
mod connection;
mod delivery;
pub mod mail;
mod outboxes;
pub mod outlet;
mod peers;
mod replies;
mod survey;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::api::ApiLimits;
use crate::backplane::interest::NodeInterest;
use crate::backplane::mesh::cluster::ClusterOptions;
use crate::base::hash::HashKey;
use crate::base::id::{NodeId, WorkerIndex};
use crate::base::rng::Rng;
use crate::base::slab::Slab;
use crate::base::time::{Instant, Now};
use crate::hub::Hub;
use crate::metrics::Counters;
use crate::protocol::{DecodeLimits, Encoding};
use crate::session::Environment;
use admission::Admissions;
use connection::Connection;
use delivery::Turn;
use mail::{Mail, Outgoing};
use outboxes::Outboxes;
use outlet::{ConnectionKey, Finish, Outlet};
use peers::{Peers, TurnPublications};
use replies::Replies;
use survey::{Answers, Surveys};

pub use peers::PeerView;
pub use survey::WorkerReport;

/// What a shard is made of.
pub struct Setup {
    pub worker: WorkerIndex,
    /// Workers of this node.
    pub workers: u16,
    pub node: NodeId,
    pub hash_key: HashKey,
    pub environment: Environment,
    pub options: Options,
    /// Without it the node runs alone.
    pub mesh: Option<MeshSetup>,
    /// Every message is sent back; nothing else happens. For measuring the codec.
    pub echo: bool,
    pub rng: Rng,
    pub now: Now,
}

pub struct MeshSetup {
    /// The same on every worker; the machine that uses it lives on worker 0.
    pub cluster: ClusterOptions,
    /// Shown by `cluster status`.
    pub client_address: String,
}

/// Bounds and times of a shard.
#[derive(Clone, Debug)]
pub struct Options {
    pub message_bytes_max: usize,
    pub decode: DecodeLimits,
    pub api: ApiLimits,
    /// Bytes that may wait for one slow client before it is closed with 3008.
    pub outbox_bytes_max: usize,
    /// Bytes written in one turn before a reader has to flush.
    pub turn_bytes_max: usize,
    /// How long a closed connection may take to read what is left.
    pub close_timeout: Duration,
    /// How long a channel without subscribers is kept wanted.
    pub interest_linger: Duration,
    /// Clients of one user, and of one address; 0: no limit.
    pub user_connections_max: u32,
    pub address_connections_max: u32,
    pub lane_queue_bytes_max: usize,
    /// A peer that has not acknowledged interest for so long is taken out of view.
    pub acknowledge_timeout: Duration,
    /// From a lane's handshake to its HELLO.
    pub hello_timeout: Duration,
    /// Publications that may wait for one other worker.
    pub mail_publications_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            message_bytes_max: 65_536,
            decode: DecodeLimits { json_depth_max: 64, commands_max: 512 },
            api: ApiLimits { json_depth_max: 64, channels_max: 10_000 },
            outbox_bytes_max: 1024 * 1024,
            turn_bytes_max: 1024 * 1024,
            close_timeout: Duration::from_secs(1),
            interest_linger: Duration::from_secs(2),
            user_connections_max: 0,
            address_connections_max: 0,
            lane_queue_bytes_max: 4 * 1024 * 1024,
            acknowledge_timeout: Duration::from_millis(500),
            hello_timeout: Duration::from_secs(2),
            mail_publications_max: 8192,
        }
    }
}

/// How long mail that met a full mailbox waits before it is tried again.
const MAIL_RETRY: Duration = Duration::from_millis(1);

pub struct Shard {
    worker: WorkerIndex,
    workers: u16,
    node: NodeId,
    hash_key: HashKey,
    environment: Environment,
    options: Options,
    echo: bool,
    rng: Rng,
    started: Now,

    connections: Slab<Connection>,
    outboxes: Outboxes,
    replies: Replies,
    /// When a connection has to be looked at. An entry may be stale: the connection's own deadline decides.
    alarms: BinaryHeap<Reverse<(Instant, ConnectionKey)>>,
    /// Connections to be ended for good in this flush.
    aborts: Vec<(ConnectionKey, i32)>,

    hub: Hub,
    turn: Turn,
    /// The turn's publications that some peer gets.
    turn_publications: TurnPublications,
    /// Connections that cannot be given what was published.
    inappropriate: Vec<ConnectionKey>,
    /// This worker as home worker.
    interest: NodeInterest,
    admissions: Admissions,
    outgoing: Outgoing,
    peers: Peers,

    surveys: Surveys,
    answers: Answers,
    counters: Counters,
    ready: bool,
    stopping: bool,
    mail_retry: Option<Instant>,
}

/// A socket whose upgrade request was accepted.
pub struct Opened<'a> {
    pub socket: i32,
    /// The client's address, from a trusted proxy's header where there is one.
    pub address: IpAddr,
    pub encoding: Encoding,
    /// The client asked for native WebSocket pings instead of the protocol's own.
    pub frame_pings: bool,
    /// The 101 response, sent before anything else.
    pub response: &'a [u8],
}

/// A request over HTTP. Authentication is done.
pub enum Request<'a> {
    /// `POST /api/<method>`; an empty method: it is named in the body.
    Api {
        method: &'a str,
        body: &'a [u8],
        transport_errors: bool,
    },
    Metrics,
    Ready,
    /// `cluster status`, as JSON.
    Status,
}

/// A lane whose TLS handshake is complete.
pub struct LaneOpened {
    /// DNS names in the peer's verified certificate.
    pub names: Vec<String>,
    /// The token of our dial; none when the peer dialled.
    pub dial: Option<u64>,
    pub remote: SocketAddr,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneDown {
    /// The peer closed it, with its code.
    Peer { code: u32, reason: String },
    /// We closed it.
    Local,
    /// Silence, or the transport's own trouble.
    Lost(String),
}

/// What the quality of a lane is, for `cluster status` and the metrics.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct LaneStats {
    pub rtt_micros: u64,
    pub lost_packets: u64,
}

impl Shard {
    pub fn new(setup: Setup) -> Self {
        assert!(setup.worker < setup.workers);
        assert!(setup.workers <= crate::limits::WORKERS_MAX);
        let mut rng = setup.rng;
        let peers =
            Peers::new(setup.worker, setup.workers, &setup.node, setup.hash_key, setup.mesh, &mut rng, setup.now);
        let mut shard = Shard {
            worker: setup.worker,
            workers: setup.workers,
            node: setup.node,
            hash_key: setup.hash_key,
            environment: setup.environment,
            outboxes: Outboxes::new(setup.options.outbox_bytes_max),
            outgoing: Outgoing::new(setup.workers, setup.options.mail_publications_max),
            options: setup.options,
            echo: setup.echo,
            rng,
            started: setup.now,
            connections: Slab::default(),
            replies: Replies::default(),
            alarms: BinaryHeap::new(),
            aborts: Vec::new(),
            hub: Hub::default(),
            turn: Turn::default(),
            turn_publications: TurnPublications::default(),
            inappropriate: Vec::new(),
            interest: NodeInterest::default(),
            admissions: Admissions::default(),
            ready: !peers.is_meshed(),
            peers,
            surveys: Surveys::default(),
            answers: Answers::default(),
            counters: Counters::default(),
            stopping: false,
            mail_retry: None,
        };
        // A node without seeds is ready from its first moment, and nothing else may ever happen to it.
        shard.pump_cluster(setup.now);
        shard
    }

    // ---- other workers

    pub fn on_mail(&mut self, now: Now, from: WorkerIndex, mail: Mail) {
        match mail {
            Mail::Publish { publication, origin } => {
                publication.lend(|publication| self.publish_at_home(publication));
                self.post(now, from, Mail::Published { origin, outcome: Ok(()) });
            }
            Mail::Deliver(parcel) => parcel.lend(|publication| self.deliver(publication)),
            Mail::Published { origin, outcome } => self.on_published(origin, outcome),
            Mail::Ask { channel, hash } => self.on_asked(now, from, &channel, hash),
            Mail::GiveBack { channel, hash } => self.on_given_back(from, &channel, hash),
            Mail::Confirmed { channel, hash } => self.on_confirmed(now, &channel, hash),
            Mail::Gap { channels } => self.on_gap(now, &channels),
            Mail::Admit { connection, key, limit } => {
                let admitted = self.admissions.admit(key, limit);
                self.post(now, from, Mail::Admitted { connection, key, admitted });
            }
            Mail::Admitted { connection, key, admitted } => self.on_admitted(now, connection, key, admitted),
            Mail::Release { key } => self.admissions.release(key),
            Mail::Ready => self.ready = true,
            Mail::Survey { number } => {
                let report = Box::new(self.report(now));
                self.post(now, from, Mail::Surveyed { number, report });
            }
            Mail::Surveyed { number, report } => self.on_surveyed(now, number, *report),
            Mail::PeerUp { .. }
            | Mail::PeerGone { .. }
            | Mail::CloseLanes { .. }
            | Mail::LaneState { .. }
            | Mail::LaneOut { .. }
            | Mail::LaneIn { .. }
            | Mail::PeerSynced { .. } => self.on_peer_mail(now, from, mail),
        }
    }

    /// Control mail to any worker, this one included.
    fn post(&mut self, now: Now, to: WorkerIndex, mail: Mail) {
        if to == self.worker {
            self.on_mail(now, to, mail);
        } else {
            self.outgoing.control(to, mail);
        }
    }

    // ---- time

    pub fn poll_deadline(&self) -> Option<Instant> {
        let alarm = self.alarms.peek().map(|&Reverse((at, _))| at);
        let own = [
            alarm,
            self.hub.poll_deadline(),
            self.peers.poll_deadline(self.options.acknowledge_timeout),
            self.surveys.poll_deadline(),
            self.mail_retry,
        ];
        own.into_iter().flatten().min()
    }

    pub fn on_deadline(&mut self, now: Now) {
        if self.mail_retry.is_some_and(|at| at <= now.mono) {
            self.mail_retry = None;
        }
        while let Some(&Reverse((at, connection))) = self.alarms.peek() {
            if at > now.mono {
                break;
            }
            self.alarms.pop();
            self.on_alarm(now, at, connection);
        }
        while let Some(channel) = self.hub.poll_expired(now.mono) {
            if channel.interest == crate::hub::Interest::Confirmed {
                let home = channel.hash.home(self.workers);
                self.post(now, home, Mail::GiveBack { channel: channel.name, hash: channel.hash });
            }
        }
        self.on_peers_deadline(now);
        self.on_surveys_deadline(now);
    }

    // ---- the end

    /// The node stops: clients are closed with 3001, the mesh is left, and no connection is opened any more.
    pub fn on_shutdown(&mut self, now: Now) {
        self.stopping = true;
        self.ready = false;
        for connection in self.connections.keys() {
            self.disconnect(now, connection, crate::protocol::Disconnect::Shutdown);
        }
        self.leave_mesh(now);
    }

    /// Whether nothing is left to be sent after `on_shutdown`.
    pub fn is_drained(&self) -> bool {
        self.stopping && self.connections.is_empty() && self.outgoing.is_empty() && !self.peers.has_pending()
    }

    // ---- the turn

    /// Whether the turn's pending bytes are above their bound, so that the caller flushes before it feeds more.
    pub fn is_full(&self) -> bool {
        self.outboxes.arena_bytes() >= self.options.turn_bytes_max
    }

    /// Whether there is anything to flush that a flush just now would not have taken.
    pub fn is_dirty(&self) -> bool {
        self.outboxes.is_dirty()
            || self.replies.is_open()
            || !self.turn.is_empty()
            || !self.aborts.is_empty()
            || (self.outgoing.is_dirty() && self.mail_retry.is_none())
            || self.peers.is_dirty()
            || !self.answers.is_empty()
    }

    /// Everything that the turn has brought about leaves. Other nodes and workers first: they have the longer way.
    pub fn flush(&mut self, now: Now, outlet: &mut impl Outlet) {
        self.close_inappropriate(now);
        self.settle_all();
        self.flush_peers(now, outlet);
        self.outgoing.flush(|to, mail| outlet.mail(to, mail));
        self.mail_retry = self.outgoing.is_stuck().then(|| now.mono + MAIL_RETRY);
        self.counters.mailbox_high = self.counters.mailbox_high.max(self.outgoing.high() as u64);
        outlet.lanes_written();

        let flushed = self.outboxes.flush(outlet);
        self.turn.clear();
        self.counters.sends += flushed.sends;
        self.counters.sends_short += flushed.short;
        self.counters.bytes_out += flushed.bytes;
        self.counters.outbox_bytes_high = self.counters.outbox_bytes_high.max(flushed.backlog_bytes_high);
        for (connection, socket) in flushed.finished {
            self.on_finished(now, connection);
            outlet.finish(connection, socket, Finish::HalfClose);
        }
        for (connection, socket) in std::mem::take(&mut self.aborts) {
            // Its socket may be another's by now.
            if self.connections.get(connection).is_some() {
                outlet.finish(connection, socket, Finish::Abort);
            }
        }
        for connection in flushed.slow {
            self.on_slow(now, connection);
        }
        self.answers.flush(outlet);
    }

    /// Whether this node may serve clients: it has joined, or runs alone. Kept by every worker.
    pub fn is_ready(&self) -> bool {
        self.ready && !self.stopping
    }

    // ---- figures that only the shell knows

    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    // ---- for whoever watches from outside

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Channel hashes that this worker, as home worker, tells the peers.
    pub fn wanted_hashes(&self) -> usize {
        self.interest.hashes().count()
    }

    /// Channels that this worker's hub knows, lingering ones included.
    pub fn hub_channels(&self) -> usize {
        self.hub.channels()
    }

    /// Bytes that wait for full sockets, and connections that they wait for.
    pub fn backlog(&self) -> (usize, usize) {
        (self.outboxes.backlog_bytes(), self.outboxes.blocked())
    }
}
