//! Lanes over QUIC: one endpoint and one UDP socket for each worker, quinn-proto driven by hand.
//!
//! No task, no future, no clock: the worker calls `on_readable`, `on_timeout` and `flush` when its loop says so and
//! takes events out. It does not know frames, HELLO or membership; what a peer says on a lane is bytes here.
//! A flood on the port costs at most the budget of each `on_readable`, and strangers are held to a few handshakes.
//!
//! Always true: a connection that has something to send is in `dirty`, one that has something to read or to tell is
//! in `listed`, and an idle one is in neither, so it costs nothing until its next keep-alive.

mod deadlines;
pub mod identity;
mod lane;
mod tls;
mod udp;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::time::{Duration, Instant as StdInstant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, ConnectionError, ConnectionHandle, DatagramEvent, Endpoint, EndpointEvent, Incoming, Transmit,
};
use quinn_udp::RecvMeta;

use self::deadlines::Deadlines;
pub use self::identity::{Identity, IdentityError};
use self::lane::{Lane, Notice, Phase};
use self::udp::{Emptied, Inbox, Udp};
use crate::base::slab::{Key, Slab};
use crate::base::time::Instant;

/// The protocol that lanes speak, with its major version.
pub const ALPN: &[u8] = b"skein/1";
/// Closes a lane whose peer opened a stream too many or ended one that lasts as long as the lane.
pub const CLOSE_STREAM_MISUSED: u32 = 1;
/// Closes a handshake that took longer than `Options::handshake_timeout`.
pub const CLOSE_HANDSHAKE_TIMEOUT: u32 = 2;

/// What a datagram costs of `on_readable`'s budget beyond itself when it makes us compute a retry token ...
const RETRY_COST: usize = 3;
/// ... or begin a handshake.
const ACCEPT_COST: usize = 15;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneKey(pub Key);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LaneStream {
    Control,
    Publications,
}

#[derive(Debug)]
pub enum Event {
    /// The handshake is complete, and on the accepting side the peer's certificate is proved. A dialer may still be
    /// refused after this: only the peer's HELLO says that it is welcome.
    Up {
        lane: LaneKey,
        /// The DNS names in the peer's certificate.
        names: Vec<String>,
        /// The token of `dial`; none when the peer dialled.
        dial: Option<u64>,
        remote: SocketAddr,
    },
    DialFailed {
        dial: u64,
        why: String,
    },
    Bytes {
        lane: LaneKey,
        stream: LaneStream,
        /// Pins the memory of the datagrams that brought it: copy what is to be kept.
        bytes: Bytes,
    },
    Datagram {
        lane: LaneKey,
        bytes: Bytes,
    },
    /// A `write` was cut short; at least half of the lane's staging is free again.
    Writable {
        lane: LaneKey,
        stream: LaneStream,
    },
    /// The last event of a lane. Its key finds nothing from now on.
    Down {
        lane: LaneKey,
        why: Down,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Down {
    /// By the peer.
    Closed {
        code: u32,
        reason: String,
    },
    /// By `close`.
    Local,
    IdleTimeout,
    Transport(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum More {
    /// The socket was found empty.
    Drained,
    /// The budget ended first.
    Maybe,
}

#[derive(Clone, Copy, Default, Debug)]
pub struct LaneStats {
    pub rtt: Duration,
    pub mtu: u16,
    pub congestion_window: u64,
    pub lost_packets: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Accepted by `write` and not yet taken by the transport.
    pub staged_bytes: usize,
}

/// For /metrics: all since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    pub lanes_up: u64,
    pub received_datagrams: u64,
    /// Not QUIC, or of no connection that we know.
    pub dropped_datagrams: u64,
    /// Resets and version answers.
    pub stateless_answers: u64,
    pub retries: u64,
    /// Handshakes that were not begun because too many were under way, or too many lanes exist.
    pub refused_busy: u64,
    pub refused_no_certificate: u64,
    /// Of another CA, expired, or not proved.
    pub refused_certificate: u64,
    pub refused_alpn: u64,
    /// Took too long, broke off, broke the protocol.
    pub refused_other: u64,
    /// A dialer that did not accept our certificate, or gave up.
    pub refused_by_dialer: u64,
    pub send_errors: u64,
    pub receive_errors: u64,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub alpn: &'static [u8],
    pub idle_timeout: Duration,
    pub keep_alive: Duration,
    pub handshake_timeout: Duration,
    /// Assumed until measured. The default of 333 ms would send a lost first packet again only when the idle timeout
    /// is over.
    pub initial_rtt: Duration,
    /// How long the peer may hold back an acknowledgement, and after how many packets it may not.
    pub max_ack_delay: Duration,
    pub ack_every: u32,
    /// What fits every path that carries IPv6.
    pub initial_mtu: u16,
    /// How far discovery goes: jumbo frames where the path has them.
    pub mtu_max: u16,
    /// Peers are in one data centre or a few: begin with more than the internet's ten packets.
    pub initial_congestion_window: u64,
    pub stream_window: u32,
    pub lane_window: u32,
    pub send_window: u32,
    pub datagram_buffer: usize,
    /// For each stream of a lane.
    pub staged_bytes_max: usize,
    pub socket_bytes: usize,
    pub lanes_max: usize,
    /// Handshakes with peers that have proved nothing yet; one address may hold half of them.
    pub handshakes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            alpn: ALPN,
            idle_timeout: Duration::from_secs(1),
            keep_alive: Duration::from_millis(300),
            handshake_timeout: Duration::from_secs(3),
            initial_rtt: Duration::from_millis(50),
            max_ack_delay: Duration::from_millis(2),
            ack_every: 32,
            initial_mtu: 1232,
            mtu_max: 8952,
            initial_congestion_window: 64 * 1024,
            stream_window: 512 * 1024,
            lane_window: 1024 * 1024,
            send_window: 1024 * 1024,
            datagram_buffer: 64 * 1024,
            staged_bytes_max: 256 * 1024,
            socket_bytes: 4 * 1024 * 1024,
            lanes_max: 1024,
            handshakes_max: 64,
        }
    }
}

/// One worker's endpoint.
pub struct Quic {
    udp: Udp,
    inbox: Inbox,
    endpoint: Endpoint,
    dialer: ClientConfig,
    options: Options,
    clock: Clock,
    lanes: Slab<Lane>,
    by_handle: Vec<Option<Key>>,
    /// Lanes that the peer began and has not proved itself on.
    strangers: Vec<Key>,
    deadlines: Deadlines,
    dirty: VecDeque<Key>,
    /// Read from since the connection was last asked what it made of it.
    touched: Vec<Key>,
    listed: VecDeque<Key>,
    events: VecDeque<Event>,
    out: Vec<u8>,
    answer: Vec<u8>,
    /// `out` holds this, which the kernel had no room for.
    unsent: Option<Transmit>,
    counters: Counters,
}

impl Quic {
    /// Port 0 lets the kernel choose; an IPv6 address also takes IPv4 peers.
    pub fn bind(address: SocketAddr, identity: &Identity, options: Options, now: Instant) -> io::Result<Self> {
        let udp = Udp::bind(address, options.socket_bytes)?;
        let configs = tls::configs(identity, &options, udp.local().port())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let endpoint = Endpoint::new(configs.endpoint, Some(configs.server), !udp.may_fragment(), None);
        Ok(Quic {
            udp,
            inbox: Inbox::new(),
            endpoint,
            dialer: configs.client,
            options,
            clock: Clock::new(now),
            lanes: Slab::default(),
            by_handle: Vec::new(),
            strangers: Vec::new(),
            deadlines: Deadlines::default(),
            dirty: VecDeque::new(),
            touched: Vec::new(),
            listed: VecDeque::new(),
            events: VecDeque::new(),
            out: Vec::new(),
            answer: Vec::new(),
            unsent: None,
            counters: Counters::default(),
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.udp.local()
    }

    /// To wait on; owned by this.
    pub fn socket_fd(&self) -> RawFd {
        self.udp.fd()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Zeroes for a lane that is gone.
    pub fn stats(&self, lane: LaneKey) -> LaneStats {
        let Some(lane) = self.lanes.get(lane.0) else { return LaneStats::default() };
        let stats = lane.connection.stats();
        LaneStats {
            rtt: stats.path.rtt,
            mtu: stats.path.current_mtu,
            congestion_window: stats.path.cwnd,
            lost_packets: stats.path.lost_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            staged_bytes: lane.staged_bytes(),
        }
    }

    /// Lanes and handshakes that exist, those that are being closed included.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Ends in `Up` or `DialFailed` with this token.
    pub fn dial(&mut self, now: Instant, remote: SocketAddr, token: u64) {
        let now = self.clock.read(now);
        if self.lanes.len() >= self.options.lanes_max {
            let why = format!("this worker has {} lanes, the most that it may have", self.lanes.len());
            self.events.push_back(Event::DialFailed { dial: token, why });
            return;
        }
        let wire = self.udp.to_wire(remote);
        match self.endpoint.connect(now, self.dialer.clone(), wire, tls::SERVER_NAME) {
            Ok((handle, connection)) => {
                let phase = Phase::Dialing { token, until: now + self.options.handshake_timeout };
                let lane = Lane::new(connection, handle, remote, phase, self.options.staged_bytes_max);
                let key = self.insert(handle, lane);
                self.note(key);
                self.mark_dirty(key);
            }
            Err(error) => self.events.push_back(Event::DialFailed { dial: token, why: error.to_string() }),
        }
    }

    /// Bytes on their way in either direction may be lost. `Down::Local` follows.
    pub fn close(&mut self, now: Instant, lane: LaneKey, code: u32, reason: &str) {
        let now = self.clock.read(now);
        let LaneKey(key) = lane;
        let Some(found) = self.lanes.get_mut(key).filter(|lane| lane.phase == Phase::Up) else { return };
        // What was lost already keeps its own reason: the peer was first.
        let why = found.lost.take().unwrap_or(Down::Local);
        found.close(now, code, reason);
        self.events.push_back(Event::Down { lane, why });
        self.drive(now, key);
        self.mark_dirty(key);
    }

    /// Takes from 0 to all of the bytes, in order; `Writable` follows when it was not all. They leave at `flush`.
    pub fn write(&mut self, lane: LaneKey, stream: LaneStream, bytes: &[u8]) -> usize {
        let Some(found) = self.lanes.get_mut(lane.0).filter(|lane| lane.phase == Phase::Up) else { return 0 };
        let taken = found.write(stream, bytes);
        self.mark_dirty(lane.0);
        taken
    }

    /// False when the lane has no room for it, or it is longer than `datagram_bytes_max`.
    pub fn datagram(&mut self, lane: LaneKey, bytes: &[u8]) -> bool {
        let Some(found) = self.lanes.get_mut(lane.0).filter(|lane| lane.phase == Phase::Up) else { return false };
        let queued = found.connection.datagrams().send(Bytes::copy_from_slice(bytes), false).is_ok();
        self.mark_dirty(lane.0);
        queued
    }

    /// Grows with what path discovery finds; a good 1,180 bytes at first.
    pub fn datagram_bytes_max(&mut self, lane: LaneKey) -> usize {
        let Some(lane) = self.lanes.get_mut(lane.0) else { return 0 };
        lane.connection.datagrams().max_size().unwrap_or(0)
    }

    /// Reads until the socket is empty or the budget is spent. It may be overdrawn by what one system call brings:
    /// eight trains of datagrams.
    pub fn on_readable(&mut self, now: Instant, budget_datagrams: usize) -> More {
        let now = self.clock.read(now);
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut spent = 0;
        let more = loop {
            if spent >= budget_datagrams {
                break More::Maybe;
            }
            match inbox.fill(&self.udp, budget_datagrams - spent) {
                Ok(emptied) => {
                    for (meta, bytes) in inbox.trains() {
                        spent += self.on_train(now, meta, bytes);
                    }
                    if emptied == Emptied::Yes {
                        break More::Drained;
                    }
                }
                Err(_) => {
                    self.counters.receive_errors += 1;
                    spent += 1;
                }
            }
        };
        self.inbox = inbox;
        while let Some(key) = self.touched.pop() {
            self.drive(now, key);
        }
        self.settle();
        more
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| self.clock.write(due))
    }

    pub fn on_timeout(&mut self, now: Instant) {
        let now = self.clock.read(now);
        while let Some((due, key)) = self.deadlines.first() {
            if due > now {
                break;
            }
            let lane = self.lanes.get_mut(key).expect("a lane that is removed takes its deadline along");
            if self.deadlines.settle(key, &mut lane.deadline) {
                continue;
            }
            let late = match lane.phase {
                Phase::Dialing { until, .. } | Phase::Accepting { until } => until <= now,
                Phase::Up | Phase::Closed => false,
            };
            if late {
                self.abandon(now, key, CLOSE_HANDSHAKE_TIMEOUT, "the handshake took too long");
            } else {
                lane.connection.handle_timeout(now);
            }
            self.drive(now, key);
            self.mark_dirty(key);
        }
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let &key = self.listed.front()?;
            if let Some(event) = self.next_input(key) {
                // What was read makes credit for the peer.
                self.mark_dirty(key);
                return Some(event);
            }
            self.listed.pop_front();
            let Some(lane) = self.lanes.get_mut(key) else { continue };
            lane.listed = false;
            if let Some(why) = lane.lost.take() {
                lane.retire();
                self.events.push_back(Event::Down { lane: LaneKey(key), why });
                self.reap(key);
            }
        }
    }

    /// Sends all that may be sent now. Call it once in a turn, after the events were taken.
    pub fn flush(&mut self, now: Instant) {
        let now = self.clock.read(now);
        if let Some(transmit) = self.unsent.take()
            && !self.send(transmit)
        {
            return;
        }
        while let Some(&key) = self.dirty.front() {
            if !self.transmit(now, key) {
                break;
            }
            self.dirty.pop_front();
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.dirty = false;
            }
            self.drive(now, key);
            self.forget_stranger(key);
        }
        self.settle();
    }

    /// The kernel's buffer was full: call `flush` again when the socket is writable.
    pub fn wants_write(&self) -> bool {
        self.unsent.is_some()
    }

    fn on_train(&mut self, now: StdInstant, meta: &RecvMeta, bytes: &[u8]) -> usize {
        let stride = meta.stride.clamp(1, bytes.len().max(1));
        let mut rest = BytesMut::from(bytes);
        let mut spent = 0;
        loop {
            let datagram = rest.split_to(rest.len().min(stride));
            spent += 1 + self.on_datagram(now, meta, datagram);
            if rest.is_empty() {
                return spent;
            }
        }
    }

    /// What it cost beyond the datagram itself.
    fn on_datagram(&mut self, now: StdInstant, meta: &RecvMeta, datagram: BytesMut) -> usize {
        self.counters.received_datagrams += 1;
        let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
        self.answer.clear();
        match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut self.answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let key = self.by_handle[handle.0].expect("the endpoint knows only connections that are lanes");
                let lane = self.lanes.get_mut(key).expect("a lane that is removed takes its handle along");
                lane.connection.handle_event(event);
                if self.touched.last() != Some(&key) {
                    self.touched.push(key);
                }
                self.mark_dirty(key);
                0
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.on_incoming(now, incoming),
            Some(DatagramEvent::Response(transmit)) => {
                self.counters.stateless_answers += 1;
                self.answer(transmit);
                0
            }
            None => {
                self.counters.dropped_datagrams += 1;
                0
            }
        }
    }

    fn on_incoming(&mut self, now: StdInstant, incoming: Incoming) -> usize {
        let remote = canonical(incoming.remote_address());
        if !incoming.remote_address_validated() {
            self.counters.retries += 1;
            let transmit = self.endpoint.retry(incoming, &mut self.answer).expect("not validated means may retry");
            self.answer(transmit);
            return RETRY_COST;
        }
        if self.is_busy(remote.ip()) {
            // No answer: the dialer sends its packet again and may find room then.
            self.counters.refused_busy += 1;
            self.endpoint.ignore(incoming);
            return 0;
        }
        match self.endpoint.accept(incoming, now, &mut self.answer, None) {
            Ok((handle, connection)) => {
                let phase = Phase::Accepting { until: now + self.options.handshake_timeout };
                let lane = Lane::new(connection, handle, remote, phase, self.options.staged_bytes_max);
                let key = self.insert(handle, lane);
                self.strangers.push(key);
                self.touched.push(key);
                self.mark_dirty(key);
            }
            Err(error) => {
                self.count_refusal(&error.cause);
                if let Some(transmit) = error.response {
                    self.answer(transmit);
                }
            }
        }
        ACCEPT_COST
    }

    fn is_busy(&self, ip: IpAddr) -> bool {
        let max = self.options.handshakes_max;
        let of_address = |key: &&Key| self.lanes.get(**key).is_some_and(|lane| lane.remote.ip() == ip);
        self.lanes.len() >= self.options.lanes_max
            || self.strangers.len() >= max
            || self.strangers.iter().filter(of_address).count() >= max / 2
    }

    fn abandon(&mut self, now: StdInstant, key: Key, code: u32, why: &str) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        match lane.phase {
            Phase::Dialing { token, .. } => {
                self.events.push_back(Event::DialFailed { dial: token, why: why.to_owned() })
            }
            Phase::Accepting { .. } => self.counters.refused_other += 1,
            Phase::Up | Phase::Closed => unreachable!("only handshakes are abandoned"),
        }
        lane.close(now, code, why);
    }

    /// Lets a connection and the endpoint talk to each other and takes in what came of it.
    fn drive(&mut self, now: StdInstant, key: Key) {
        loop {
            let Some(lane) = self.lanes.get_mut(key) else { return };
            while let Some(event) = lane.connection.poll_endpoint_events() {
                let Some(handle) = lane.handle else { continue };
                if event.is_drained() {
                    lane.handle = None;
                    self.by_handle[handle.0] = None;
                }
                if let Some(answer) = self.endpoint.handle_event(handle, event) {
                    lane.connection.handle_event(answer);
                    if !std::mem::replace(&mut lane.dirty, true) {
                        self.dirty.push_back(key);
                    }
                }
            }
            match lane.poll() {
                Some(notice) => self.on_notice(now, key, notice),
                None => break,
            }
        }
        self.note(key);
    }

    fn on_notice(&mut self, now: StdInstant, key: Key, notice: Notice) {
        let lane = self.lanes.get_mut(key).expect("the caller holds a living lane");
        match (notice, &lane.phase) {
            (_, Phase::Closed) => {}
            (Notice::Connected, &Phase::Dialing { token, .. }) => self.on_up(now, key, Some(token)),
            (Notice::Connected, Phase::Accepting { .. }) => self.on_up(now, key, None),
            (Notice::Connected, Phase::Up) => unreachable!("a connection connects once"),
            (Notice::Lost(error), &Phase::Dialing { token, .. }) => {
                lane.retire();
                self.events.push_back(Event::DialFailed { dial: token, why: explain(&error) });
            }
            (Notice::Lost(error), Phase::Accepting { .. }) => {
                lane.retire();
                self.count_refusal(&error);
            }
            (Notice::Lost(error), Phase::Up) => {
                if lane.lost.is_none() {
                    lane.lost = Some(down(&error));
                }
            }
            (Notice::StreamMisused, Phase::Up) => self.on_misuse(now, key),
            // quinn ignores stream data until the handshake is done; if it did not, this would be the answer.
            (Notice::StreamMisused, _) => self.abandon(now, key, CLOSE_STREAM_MISUSED, "a stream before its time"),
        }
    }

    fn on_up(&mut self, now: StdInstant, key: Key, dial: Option<u64>) {
        let lane = self.lanes.get_mut(key).expect("the caller holds a living lane");
        lane.phase = Phase::Up;
        self.strangers.retain(|&stranger| stranger != key);
        self.counters.lanes_up += 1;
        let (names, remote) = (lane.names(), lane.remote);
        let opened = lane.open();
        self.events.push_back(Event::Up { lane: LaneKey(key), names, dial, remote });
        if opened.is_err() {
            self.on_misuse(now, key);
        }
    }

    fn on_misuse(&mut self, now: StdInstant, key: Key) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.close_misused(now);
        if lane.lost.is_none() {
            lane.lost = Some(Down::Transport("the peer opened or ended a stream that it must not".into()));
        }
        self.mark_dirty(key);
    }

    /// Notes when the lane wants to be woken and whether it has something for the worker.
    fn note(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let due = lane.due();
        self.deadlines.set(key, &mut lane.deadline, due);
        if !lane.listed && (lane.has_input() || lane.lost.is_some()) {
            lane.listed = true;
            self.listed.push_back(key);
        }
        self.reap(key);
    }

    fn next_input(&mut self, key: Key) -> Option<Event> {
        let lane = self.lanes.get_mut(key).filter(|lane| lane.phase == Phase::Up)?;
        if let Some(bytes) = lane.next_datagram() {
            return Some(Event::Datagram { lane: LaneKey(key), bytes });
        }
        match lane.next_bytes() {
            Ok(found) => found.map(|(stream, bytes)| Event::Bytes { lane: LaneKey(key), stream, bytes }),
            Err(_) => {
                self.on_misuse(self.clock.latest, key);
                None
            }
        }
    }

    /// False when the kernel has no room. Ends when the connection has nothing more that it may send.
    fn transmit(&mut self, now: StdInstant, key: Key) -> bool {
        let Some(lane) = self.lanes.get_mut(key) else { return true };
        for stream in [LaneStream::Control, LaneStream::Publications] {
            if lane.pump(stream) {
                self.events.push_back(Event::Writable { lane: LaneKey(key), stream });
            }
        }
        loop {
            let Some(lane) = self.lanes.get_mut(key) else { return true };
            let segments = self.udp.segments_max(lane.connection.current_mtu());
            self.out.clear();
            match lane.connection.poll_transmit(now, segments, &mut self.out) {
                Some(transmit) => {
                    if !self.send(transmit) {
                        return false;
                    }
                }
                None => return true,
            }
        }
    }

    /// Sends `out`, or keeps it and returns false.
    fn send(&mut self, transmit: Transmit) -> bool {
        match self.udp.send(&transmit, &self.out[..transmit.size]) {
            Ok(true) => true,
            Ok(false) => {
                self.unsent = Some(transmit);
                false
            }
            Err(error) => {
                // A probe that is larger than the interface allows is refused here, and that is its answer.
                if error.raw_os_error() != Some(libc::EMSGSIZE) {
                    self.counters.send_errors += 1;
                }
                true
            }
        }
    }

    /// Sends what the endpoint itself has to say. It is not worth waiting for room: the peer asks again.
    fn answer(&mut self, transmit: Transmit) {
        if !matches!(self.udp.send(&transmit, &self.answer[..transmit.size]), Ok(true)) {
            self.counters.send_errors += 1;
        }
    }

    fn insert(&mut self, handle: ConnectionHandle, lane: Lane) -> Key {
        let key = self.lanes.insert(lane);
        if self.by_handle.len() <= handle.0 {
            self.by_handle.resize(handle.0 + 1, None);
        }
        self.by_handle[handle.0] = Some(key);
        key
    }

    fn mark_dirty(&mut self, key: Key) {
        if let Some(lane) = self.lanes.get_mut(key)
            && !std::mem::replace(&mut lane.dirty, true)
        {
            self.dirty.push_back(key);
        }
    }

    /// A stranger that was refused, and told so, is forgotten at once. Lingering as QUIC asks would let it fill the
    /// few places that strangers have.
    fn forget_stranger(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.phase == Phase::Closed && !lane.dirty) else {
            return;
        };
        if let Some(at) = self.strangers.iter().position(|&stranger| stranger == key) {
            self.strangers.swap_remove(at);
            if let Some(handle) = lane.handle.take() {
                self.by_handle[handle.0] = None;
                self.endpoint.handle_event(handle, EndpointEvent::drained());
            }
            self.remove(key);
        }
    }

    /// Removes a lane that was told down and whose connection has ended.
    fn reap(&mut self, key: Key) {
        if self.lanes.get(key).is_some_and(|lane| lane.phase == Phase::Closed && lane.handle.is_none()) {
            self.strangers.retain(|&stranger| stranger != key);
            self.remove(key);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(mut lane) = self.lanes.remove(key) {
            self.deadlines.forget(key, &mut lane.deadline);
        }
    }

    /// Makes the first deadline a true one.
    fn settle(&mut self) {
        while let Some((_, key)) = self.deadlines.first() {
            let lane = self.lanes.get_mut(key).expect("a lane that is removed takes its deadline along");
            if !self.deadlines.settle(key, &mut lane.deadline) {
                break;
            }
        }
    }

    fn count_refusal(&mut self, error: &ConnectionError) {
        let counter = match error {
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(116) => &mut self.counters.refused_no_certificate,
                Some(120) => &mut self.counters.refused_alpn,
                Some(42..=46 | 48 | 51) => &mut self.counters.refused_certificate,
                _ => &mut self.counters.refused_other,
            },
            ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => {
                &mut self.counters.refused_by_dialer
            }
            _ => &mut self.counters.refused_other,
        };
        *counter += 1;
    }
}

/// Time as the machines have it, and as quinn wants it: both counted from the same moment.
struct Clock {
    start: Instant,
    anchor: StdInstant,
    /// quinn's pacer minds when time goes back.
    latest: StdInstant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the anchor only has to be some value; it is never read as a time")]
    fn new(start: Instant) -> Self {
        let anchor = StdInstant::now();
        Clock { start, anchor, latest: anchor }
    }

    fn read(&mut self, now: Instant) -> StdInstant {
        self.latest = self.latest.max(self.anchor + now.since(self.start));
        self.latest
    }

    fn write(&self, at: StdInstant) -> Instant {
        self.start + at.saturating_duration_since(self.anchor)
    }
}

/// An IPv4 peer of an IPv6 socket, under the address that people know.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The TLS alert in a transport error code (RFC 9001, section 4.8).
fn alert(code: quinn_proto::TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then_some(code as u8)
}

fn down(error: &ConnectionError) -> Down {
    match error {
        ConnectionError::ApplicationClosed(close) => Down::Closed {
            code: u32::try_from(u64::from(close.error_code)).unwrap_or(u32::MAX),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::TimedOut => Down::IdleTimeout,
        error => Down::Transport(explain(error)),
    }
}

fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(error) if alert(error.code).is_some() => {
            format!("the peer did not prove that it belongs to this cluster: {}", error.reason)
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(116) => "the peer asks for a certificate and was shown none".into(),
            Some(120) => "the peer speaks another major version of the lanes' protocol".into(),
            Some(42..=46 | 48 | 51) => {
                "the peer does not accept this node's certificate: is it of the same CA, and not expired?".into()
            }
            _ => format!("the peer broke off: {close}"),
        },
        ConnectionError::Reset => "the peer has forgotten this lane: it was restarted".into(),
        ConnectionError::TimedOut => "no answer".into(),
        error => error.to_string(),
    }
}
