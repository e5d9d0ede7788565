//! The lanes of one worker, in the shard's words: what it asks of them goes to QUIC, and what comes of it is an event.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::quic::{self, More, Quic};
use crate::base::slab::Key;
use crate::base::time::{Instant, Now};
use crate::metrics::MeshRefusal;
use crate::shard::outlet::{LaneKey, LaneStream};
use crate::shard::{LaneDown, LaneOpened, LaneStats, Shard};

/// Datagrams taken at once, before readers and the flusher get their turn. A flood on the mesh port costs a turn this
/// much and no more.
const DATAGRAM_BOUND: usize = 64;

/// None: the node runs alone.
#[derive(Default)]
pub struct Lanes {
    quic: Option<Quic>,
    /// Those that are up, to be measured.
    up: BTreeSet<LaneKey>,
    /// What was counted when it was told last.
    told: quic::Counters,
}

/// Something that has to be told to the shard.
pub struct Happening(quic::Event);

impl Lanes {
    pub fn new(quic: Quic) -> Self {
        Lanes { quic: Some(quic), ..Lanes::default() }
    }

    pub fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        self.quic.as_ref().map(Quic::socket_fd)
    }

    // ---- what the shard asks for

    pub fn write(&mut self, lane: LaneKey, stream: LaneStream, bytes: &[u8]) -> usize {
        self.quic.as_mut().map_or(0, |quic| quic.write(inward(lane), stream_inward(stream), bytes))
    }

    pub fn datagram(&mut self, lane: LaneKey, bytes: &[u8]) {
        if let Some(quic) = &mut self.quic {
            // One that finds no room is lost, as datagrams may be.
            let _lost = !quic.datagram(inward(lane), bytes);
        }
    }

    pub fn dial(&mut self, now: Instant, remote: SocketAddr, token: u64) {
        if let Some(quic) = &mut self.quic {
            quic.dial(now, remote, token);
        }
    }

    pub fn close(&mut self, now: Instant, lane: LaneKey, code: u32, reason: &str) {
        if let Some(quic) = &mut self.quic {
            quic.close(now, inward(lane), code, reason);
        }
    }

    // ---- what the worker's loop asks for

    /// Whether there may be more to read.
    pub fn on_readable(&mut self, now: Instant) -> bool {
        self.quic.as_mut().is_some_and(|quic| quic.on_readable(now, DATAGRAM_BOUND) == More::Maybe)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.quic.as_ref()?.poll_timeout()
    }

    pub fn on_timeout(&mut self, now: Instant) {
        if let Some(quic) = &mut self.quic {
            quic.on_timeout(now);
        }
    }

    pub fn flush(&mut self, now: Instant) {
        if let Some(quic) = &mut self.quic {
            quic.flush(now);
        }
    }

    pub fn wants_write(&self) -> bool {
        self.quic.as_ref().is_some_and(Quic::wants_write)
    }

    pub fn poll_happening(&mut self) -> Option<Happening> {
        let event = self.quic.as_mut()?.poll_event()?;
        match &event {
            quic::Event::Up { lane, .. } => {
                self.up.insert(outward(*lane));
            }
            quic::Event::Down { lane, .. } => {
                self.up.remove(&outward(*lane));
            }
            _ => {}
        }
        Some(Happening(event))
    }

    pub fn stats(&self) -> impl Iterator<Item = (LaneKey, LaneStats)> + '_ {
        self.quic.iter().flat_map(|quic| {
            self.up.iter().map(|&lane| {
                let stats = quic.stats(inward(lane));
                let rtt_micros = stats.rtt.as_micros() as u64;
                (lane, LaneStats { rtt_micros, lost_packets: stats.lost_packets })
            })
        })
    }
}

impl Lanes {
    /// What was turned away below the shard since this was asked last.
    pub fn refusals(&mut self) -> [(MeshRefusal, u64); 3] {
        let counted = self.quic.as_ref().map(|quic| *quic.counters()).unwrap_or_default();
        let told = std::mem::replace(&mut self.told, counted);
        let handshakes = |counters: &quic::Counters| {
            counters.refused_no_certificate
                + counters.refused_certificate
                + counters.refused_alpn
                + counters.refused_by_dialer
                + counters.refused_other
        };
        [
            (MeshRefusal::Handshake, handshakes(&counted) - handshakes(&told)),
            (MeshRefusal::Datagram, counted.dropped_datagrams - told.dropped_datagrams),
            (MeshRefusal::Limit, counted.refused_busy - told.refused_busy),
        ]
    }
}

impl Happening {
    pub fn tell(self, shard: &mut Shard, now: Now) {
        match self.0 {
            quic::Event::Up { lane, names, dial, remote } => {
                shard.on_lane_up(now, outward(lane), LaneOpened { names, dial, remote });
            }
            quic::Event::DialFailed { dial, why } => shard.on_dial_failed(now, dial, &why),
            quic::Event::Bytes { lane, stream, bytes } => {
                shard.on_lane_bytes(now, outward(lane), stream_outward(stream), &bytes);
            }
            quic::Event::Datagram { lane, bytes } => shard.on_lane_datagram(now, outward(lane), &bytes),
            quic::Event::Writable { lane, .. } => shard.on_lane_writable(now, outward(lane)),
            quic::Event::Down { lane, why } => shard.on_lane_down(now, outward(lane), down(why)),
        }
    }
}

fn outward(lane: quic::LaneKey) -> LaneKey {
    LaneKey(lane.0.as_u64())
}

fn inward(lane: LaneKey) -> quic::LaneKey {
    quic::LaneKey(Key::from_u64(lane.0))
}

fn stream_outward(stream: quic::LaneStream) -> LaneStream {
    match stream {
        quic::LaneStream::Control => LaneStream::Control,
        quic::LaneStream::Publications => LaneStream::Publications,
    }
}

fn stream_inward(stream: LaneStream) -> quic::LaneStream {
    match stream {
        LaneStream::Control => quic::LaneStream::Control,
        LaneStream::Publications => quic::LaneStream::Publications,
    }
}

fn down(why: quic::Down) -> LaneDown {
    match why {
        quic::Down::Closed { code, reason } => LaneDown::Peer { code, reason },
        quic::Down::Local => LaneDown::Local,
        quic::Down::IdleTimeout => LaneDown::Lost("silence".to_owned()),
        quic::Down::Transport(why) => LaneDown::Lost(why),
    }
}
