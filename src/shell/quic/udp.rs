//! The UDP socket of a worker: bound, sized, read in batches (recvmmsg, GRO) and written in trains (GSO).
//!
//! It knows addresses and bytes, no QUIC. Nothing here blocks.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Once;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

/// What one `recv` may bring: this many trains of datagrams of up to 64 KiB each.
const TRAINS: usize = 8;
const TRAIN_BYTES_MAX: usize = 64 * 1024;
/// The payload of one send, segmented or not, must fit an IPv4 packet.
pub const SEND_BYTES_MAX: usize = 65_000;

pub struct Udp {
    socket: Socket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Udp {
    pub fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.set_recv_buffer_size(buffer_bytes)?;
        socket.set_send_buffer_size(buffer_bytes)?;
        warn_if_clamped(&socket, buffer_bytes)?;
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))?;
        Ok(Udp { socket, state, local })
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// How many datagrams of `mtu` bytes one send may carry.
    pub fn segments_max(&self, mtu: u16) -> usize {
        self.state.max_gso_segments().min(SEND_BYTES_MAX / usize::from(mtu)).max(1)
    }

    /// An address in the form that this socket speaks: an IPv6 socket reaches IPv4 by mapped addresses.
    pub fn to_wire(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.local.is_ipv6() => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            _ => address,
        }
    }

    /// `Ok(false)`: the kernel's buffer is full, try again when the socket is writable.
    pub fn send(&self, transmit: &quinn_proto::Transmit, bytes: &[u8]) -> io::Result<bool> {
        let transmit = Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: bytes,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.try_send((&self.socket).into(), &transmit) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The buffers that a worker reads into, one set for all its lanes.
pub struct Inbox {
    bytes: Vec<u8>,
    metas: [RecvMeta; TRAINS],
    filled: usize,
}

/// Empty, as a stand-in while the real one is being read from.
impl Default for Inbox {
    fn default() -> Self {
        Inbox { bytes: Vec::new(), metas: [RecvMeta::default(); TRAINS], filled: 0 }
    }
}

impl Inbox {
    pub fn new() -> Self {
        Inbox { bytes: vec![0; TRAINS * TRAIN_BYTES_MAX], ..Inbox::default() }
    }

    /// Reads at most `trains`. Says whether the socket was found empty.
    pub fn fill(&mut self, udp: &Udp, trains: usize) -> io::Result<Emptied> {
        self.filled = 0;
        let asked = trains.clamp(1, TRAINS);
        let mut chunks = self.bytes.chunks_exact_mut(TRAIN_BYTES_MAX);
        let mut slices: [IoSliceMut<'_>; TRAINS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("one chunk for each train")));
        match udp.state.recv((&udp.socket).into(), &mut slices[..asked], &mut self.metas[..asked]) {
            Ok(filled) => {
                self.filled = filled;
                Ok(if filled < asked { Emptied::Yes } else { Emptied::Unknown })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Emptied::Yes),
            Err(error) => Err(error),
        }
    }

    pub fn trains(&self) -> impl Iterator<Item = (&RecvMeta, &[u8])> {
        let chunks = self.bytes.chunks_exact(TRAIN_BYTES_MAX);
        self.metas[..self.filled].iter().zip(chunks).map(|(meta, chunk)| (meta, &chunk[..meta.len.min(chunk.len())]))
    }
}

#[derive(PartialEq, Eq, Debug)]
pub enum Emptied {
    Yes,
    Unknown,
}

/// Linux reports twice what it granted.
fn warn_if_clamped(socket: &Socket, wanted: usize) -> io::Result<()> {
    static ONCE: Once = Once::new();
    let (receive, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    if receive < wanted || send < wanted {
        ONCE.call_once(|| {
            tracing::warn!(
                wanted,
                receive,
                send,
                "the kernel allows smaller UDP buffers than lanes want; bursts between nodes may be lost and sent \
                 again: set net.core.rmem_max and net.core.wmem_max to {wanted}"
            );
        });
    }
    Ok(())
}
