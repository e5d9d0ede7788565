//! Everything that one worker owns, and the order of its turn. It routes; it decides nothing about the protocol.
//!
//! The shell feeds it (`on_*`) with a bound on each source, then calls `flush` once, which sends dirty outboxes,
//! mail and lanes. No socket, no clock, no thread, no file: a whole cluster of these runs in one thread in virtual time.
//!
//! Always true: nothing leaves a shard but in `flush`.

pub mod mail;
pub mod outlet;

use std::net::{IpAddr, SocketAddr};

use crate::base::id::WorkerIndex;
use crate::base::time::{Instant, Now};
use crate::protocol::Encoding;
use mail::Mail;
use outlet::{ConnectionKey, LaneKey, LaneStream, Outlet, RequestKey};

pub struct Shard {}

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
    /// `POST /api/<method>`.
    Api { method: &'a str, body: &'a [u8], transport_errors: bool },
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
    // ---- sockets

    pub fn on_open(&mut self, _now: Now, _opened: Opened<'_>) -> ConnectionKey {
        todo!()
    }

    /// What one `recv` brought, at most `limits::READ_BYTES_MAX`. Ignored for a connection that is being closed.
    pub fn on_bytes(&mut self, _now: Now, _connection: ConnectionKey, _bytes: &mut [u8]) {
        todo!()
    }

    /// The socket has room again after a short send.
    pub fn on_writable(&mut self, _now: Now, _connection: ConnectionKey) {
        todo!()
    }

    /// The peer is gone (end of file, error, or after our own `Finish`). Afterwards the key finds nothing and the
    /// shell may close the socket at once.
    pub fn on_hangup(&mut self, _now: Now, _connection: ConnectionKey) {
        todo!()
    }

    // ---- HTTP

    pub fn on_request(&mut self, _now: Now, _key: RequestKey, _request: Request<'_>) {
        todo!()
    }

    // ---- other workers

    pub fn on_mail(&mut self, _now: Now, _from: WorkerIndex, _mail: Mail) {
        todo!()
    }

    // ---- peers

    /// Addresses that the seeds' names stand for just now. Worker 0 only.
    pub fn on_seeds(&mut self, _now: Now, _addresses: &[SocketAddr]) {
        todo!()
    }

    pub fn on_lane_up(&mut self, _now: Now, _lane: LaneKey, _opened: LaneOpened) {
        todo!()
    }

    pub fn on_dial_failed(&mut self, _now: Now, _token: u64, _why: &str) {
        todo!()
    }

    pub fn on_lane_bytes(&mut self, _now: Now, _lane: LaneKey, _stream: LaneStream, _bytes: &[u8]) {
        todo!()
    }

    pub fn on_lane_datagram(&mut self, _now: Now, _lane: LaneKey, _bytes: &[u8]) {
        todo!()
    }

    pub fn on_lane_writable(&mut self, _now: Now, _lane: LaneKey) {
        todo!()
    }

    pub fn on_lane_down(&mut self, _now: Now, _lane: LaneKey, _why: LaneDown) {
        todo!()
    }

    /// Told about once a second for each lane.
    pub fn on_lane_stats(&mut self, _lane: LaneKey, _stats: LaneStats) {
        todo!()
    }

    // ---- time

    pub fn poll_deadline(&self) -> Option<Instant> {
        todo!()
    }

    pub fn on_deadline(&mut self, _now: Now) {
        todo!()
    }

    // ---- the end

    /// The node stops: clients are closed with 3001, the mesh is left, and no connection is opened any more.
    pub fn on_shutdown(&mut self, _now: Now) {
        todo!()
    }

    /// Whether nothing is left to be sent after `on_shutdown`.
    pub fn is_drained(&self) -> bool {
        todo!()
    }

    // ---- the turn

    /// Whether the turn's pending bytes are above their bound, so that the caller flushes before it feeds more.
    pub fn is_full(&self) -> bool {
        todo!()
    }

    /// Whether there is anything to flush.
    pub fn is_dirty(&self) -> bool {
        todo!()
    }

    pub fn flush(&mut self, _now: Now, _outlet: &mut impl Outlet) {
        todo!()
    }

    /// Whether this node may serve clients: it has joined, or runs alone. Kept by every worker.
    pub fn is_ready(&self) -> bool {
        todo!()
    }

    // ---- figures that only the shell knows

    pub fn counters_mut(&mut self) -> &mut crate::metrics::Counters {
        todo!()
    }
}
