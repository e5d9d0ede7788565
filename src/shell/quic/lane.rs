//! One QUIC connection as the mesh sees it: a control stream both ways, a publication stream each way, datagrams.
//!
//! It stages what is written, so that many small writes become few large segments (quinn's send buffer walks its
//! segments one by one), and notes what may be read. Sockets, timers and the endpoint are its parent's.
//!
//! Always true: a lane holds at most `staged_bytes_max` unsent bytes per stream besides quinn's own window, and
//! at most one batch of `INBOX_BYTES` that was read but not yet handed up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, Dir, Event as Happening, ReadError, Side, StreamEvent, StreamId,
    VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;

use super::deadlines::Deadline;
use super::{CLOSE_STREAM_MISUSED, Down, LaneStream, tls};

/// Larger segments would hold quinn's send window until their last byte is acknowledged.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;
/// Writes from this size on skip the staging buffer when it is empty: they are a batch already.
const DIRECT_BYTES_MIN: usize = 2 * 1024;
/// What one visit takes from a stream before it goes on with the next.
const INBOX_BYTES: usize = 64 * 1024;

pub struct Lane {
    pub connection: Connection,
    /// None once the endpoint has forgotten the connection: its handle may then name another.
    pub handle: Option<ConnectionHandle>,
    pub remote: SocketAddr,
    pub phase: Phase,
    pub deadline: Deadline,
    /// Listed by the parent as having something to transmit.
    pub dirty: bool,
    /// Listed by the parent as having something to read or to say.
    pub listed: bool,
    /// Happened while still alive, to be told after the bytes that came before.
    pub lost: Option<Down>,
    control: Outgoing,
    publications: Outgoing,
    control_in: Incoming,
    publications_in: Incoming,
    datagrams_in: bool,
    inbox: VecDeque<(LaneStream, Bytes)>,
    staged_bytes_max: usize,
}

#[derive(PartialEq, Eq, Debug)]
pub enum Phase {
    /// Until the handshake is done, at the latest at this time.
    Dialing {
        token: u64,
        until: Instant,
    },
    Accepting {
        until: Instant,
    },
    Up,
    /// Nothing more is read, written or told.
    Closed,
}

#[derive(Default)]
struct Outgoing {
    /// None: not open yet. The acceptor's control stream opens with the dialer's first byte.
    stream: Option<StreamId>,
    staged: Vec<u8>,
    /// How much of `staged` quinn has taken.
    taken: usize,
    /// A write was cut short and nobody was told yet that there is room again.
    short: bool,
}

#[derive(Default)]
struct Incoming {
    stream: Option<StreamId>,
    readable: bool,
}

/// What a connection's own events amount to, for the parent.
pub enum Notice {
    Connected,
    Lost(ConnectionError),
    /// A second stream, or an end to one that lasts as long as the lane.
    StreamMisused,
}

impl Lane {
    pub fn new(
        connection: Connection,
        handle: ConnectionHandle,
        remote: SocketAddr,
        phase: Phase,
        staged_bytes_max: usize,
    ) -> Self {
        Lane {
            connection,
            handle: Some(handle),
            remote,
            phase,
            deadline: Deadline::default(),
            dirty: false,
            listed: false,
            lost: None,
            control: Outgoing::default(),
            publications: Outgoing::default(),
            control_in: Incoming::default(),
            publications_in: Incoming::default(),
            datagrams_in: false,
            inbox: VecDeque::new(),
            staged_bytes_max,
        }
    }

    /// When the parent must call, transmit timers and the end of the handshake's patience included.
    pub fn due(&mut self) -> Option<Instant> {
        let timer = self.connection.poll_timeout();
        match self.phase {
            Phase::Dialing { until, .. } | Phase::Accepting { until } => {
                Some(timer.map_or(until, |timer| timer.min(until)))
            }
            Phase::Up | Phase::Closed => timer,
        }
    }

    /// Opens this side's streams. The peer's limits allow them, or it is not one of ours.
    pub fn open(&mut self) -> Result<(), Notice> {
        if self.connection.side() == Side::Client {
            let control = self.connection.streams().open(Dir::Bi).ok_or(Notice::StreamMisused)?;
            self.open_control(control);
        }
        let publications = self.connection.streams().open(Dir::Uni).ok_or(Notice::StreamMisused)?;
        self.publications.stream = Some(publications);
        Ok(())
    }

    fn open_control(&mut self, stream: StreamId) {
        self.control.stream = Some(stream);
        self.control_in.stream = Some(stream);
        // Interest and acknowledgements must not wait behind a backlog of publications.
        self.connection.send_stream(stream).set_priority(1).expect("the stream was just opened");
    }

    pub fn names(&self) -> Vec<String> {
        let identity = self.connection.crypto_session().peer_identity();
        let chain = identity.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        chain.and_then(|chain| chain.first().map(tls::dns_names)).unwrap_or_default()
    }

    /// Takes the connection's events in, until one that the parent has to act on.
    pub fn poll(&mut self) -> Option<Notice> {
        while let Some(happening) = self.connection.poll() {
            match happening {
                Happening::Connected => return Some(Notice::Connected),
                Happening::ConnectionLost { reason } => return Some(Notice::Lost(reason)),
                Happening::DatagramReceived => self.datagrams_in = true,
                Happening::Stream(StreamEvent::Opened { dir }) => {
                    while let Some(stream) = self.connection.streams().accept(dir) {
                        match dir {
                            Dir::Bi if self.control_in.stream.is_none() => {
                                self.open_control(stream);
                                self.control_in.readable = true;
                            }
                            Dir::Uni if self.publications_in.stream.is_none() => {
                                self.publications_in = Incoming { stream: Some(stream), readable: true };
                            }
                            _ => return Some(Notice::StreamMisused),
                        }
                    }
                }
                Happening::Stream(StreamEvent::Readable { id }) => {
                    for incoming in [&mut self.control_in, &mut self.publications_in] {
                        incoming.readable |= incoming.stream == Some(id);
                    }
                }
                Happening::Stream(StreamEvent::Stopped { .. }) => return Some(Notice::StreamMisused),
                // We end no stream.
                Happening::Stream(StreamEvent::Finished { .. })
                // What is staged is offered again at each flush, and the lane is flushed after this.
                | Happening::Stream(StreamEvent::Writable { .. } | StreamEvent::Available { .. })
                | Happening::HandshakeDataReady
                | Happening::DatagramsUnblocked => {}
            }
        }
        None
    }

    pub fn has_input(&self) -> bool {
        self.phase == Phase::Up
            && (!self.inbox.is_empty()
                || self.datagrams_in
                || self.control_in.readable
                || self.publications_in.readable)
    }

    pub fn next_datagram(&mut self) -> Option<Bytes> {
        if !self.datagrams_in {
            return None;
        }
        let datagram = self.connection.datagrams().recv();
        self.datagrams_in = datagram.is_some();
        datagram
    }

    /// The next bytes, control first. They share the memory of the datagrams that brought them.
    pub fn next_bytes(&mut self) -> Result<Option<(LaneStream, Bytes)>, Notice> {
        if let Some(bytes) = self.inbox.pop_front() {
            return Ok(Some(bytes));
        }
        self.read(LaneStream::Control)?;
        if self.inbox.is_empty() {
            self.read(LaneStream::Publications)?;
        }
        Ok(self.inbox.pop_front())
    }

    fn read(&mut self, from: LaneStream) -> Result<(), Notice> {
        let incoming = match from {
            LaneStream::Control => &mut self.control_in,
            LaneStream::Publications => &mut self.publications_in,
        };
        let Some(stream) = incoming.stream else { return Ok(()) };
        if !std::mem::take(&mut incoming.readable) {
            return Ok(());
        }
        let mut receiver = self.connection.recv_stream(stream);
        let mut chunks = receiver.read(true).map_err(|_| Notice::StreamMisused)?;
        let mut bytes = 0;
        let end = loop {
            if bytes >= INBOX_BYTES {
                incoming.readable = true;
                break Ok(());
            }
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    bytes += chunk.bytes.len();
                    self.inbox.push_back((from, chunk.bytes));
                }
                Ok(None) | Err(ReadError::Reset(_)) => break Err(Notice::StreamMisused),
                Err(ReadError::Blocked) => break Ok(()),
            }
        };
        // The parent marks a lane that was read from for a flush, whether or not there is credit to send.
        let _ = chunks.finalize();
        end
    }

    /// Copies as much as there is room for.
    pub fn write(&mut self, to: LaneStream, mut bytes: &[u8]) -> usize {
        let (connection, outgoing) = self.outgoing(to);
        let mut direct = 0;
        if outgoing.staged.is_empty() && bytes.len() >= DIRECT_BYTES_MIN {
            direct = offer(connection, outgoing.stream, bytes);
            bytes = &bytes[direct..];
        }
        let staged_bytes_max = self.staged_bytes_max;
        let outgoing = self.outgoing(to).1;
        let room = staged_bytes_max.saturating_sub(outgoing.staged.len() - outgoing.taken);
        let fits = bytes.len().min(room);
        outgoing.staged.extend_from_slice(&bytes[..fits]);
        outgoing.short |= fits < bytes.len();
        direct + fits
    }

    fn outgoing(&mut self, to: LaneStream) -> (&mut Connection, &mut Outgoing) {
        match to {
            LaneStream::Control => (&mut self.connection, &mut self.control),
            LaneStream::Publications => (&mut self.connection, &mut self.publications),
        }
    }

    /// Hands quinn what it takes of the staged bytes; true when a writer that was cut short should hear of it.
    pub fn pump(&mut self, to: LaneStream) -> bool {
        let staged_bytes_max = self.staged_bytes_max;
        let (connection, outgoing) = self.outgoing(to);
        outgoing.taken += offer(connection, outgoing.stream, &outgoing.staged[outgoing.taken..]);
        if outgoing.taken == outgoing.staged.len() {
            outgoing.taken = 0;
            if outgoing.staged.capacity() > SEGMENT_BYTES_MAX {
                outgoing.staged = Vec::new();
            } else {
                outgoing.staged.clear();
            }
        } else if outgoing.taken >= SEGMENT_BYTES_MAX {
            outgoing.staged.drain(..outgoing.taken);
            outgoing.taken = 0;
        }
        let half_empty = outgoing.staged.len() - outgoing.taken <= staged_bytes_max / 2;
        half_empty && std::mem::take(&mut outgoing.short)
    }

    pub fn staged_bytes(&self) -> usize {
        [&self.control, &self.publications].iter().map(|outgoing| outgoing.staged.len() - outgoing.taken).sum()
    }

    /// Ends the connection; only a close frame is still sent.
    pub fn close(&mut self, now: Instant, code: u32, reason: &str) {
        self.connection.close(now, VarInt::from_u32(code), Bytes::copy_from_slice(reason.as_bytes()));
        self.retire();
    }

    pub fn close_misused(&mut self, now: Instant) {
        self.connection.close(now, VarInt::from_u32(CLOSE_STREAM_MISUSED), Bytes::from_static(b"stream misused"));
    }

    /// Gives up what it holds.
    pub fn retire(&mut self) {
        self.phase = Phase::Closed;
        self.lost = None;
        self.inbox = VecDeque::new();
        self.control = Outgoing::default();
        self.publications = Outgoing::default();
    }
}

/// How many of the bytes quinn took. A stream that the peer stopped takes none; `poll` tells of it.
fn offer(connection: &mut Connection, stream: Option<StreamId>, bytes: &[u8]) -> usize {
    let Some(stream) = stream else { return 0 };
    let mut taken = 0;
    while taken < bytes.len() {
        let end = bytes.len().min(taken + SEGMENT_BYTES_MAX);
        match connection.send_stream(stream).write(&bytes[taken..end]) {
            Ok(count) => taken += count,
            Err(WriteError::Blocked | WriteError::Stopped(_) | WriteError::ClosedStream) => break,
        }
    }
    taken
}
