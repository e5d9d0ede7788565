//! The peer-to-peer mesh, from the first bytes of a lane to the knowledge of the whole cluster.
//!
//! `handshake` is what two nodes say first, `membership` wraps the gossip, `cluster` decides whom to dial, who is
//! there and when this node is ready. Lanes and flows of publications lie beside them; none of them knows sockets.

pub mod cluster;
pub mod flow;
pub mod handshake;
pub mod lane;
pub mod membership;

/// Why a lane that had its HELLO is closed: QUIC application codes. Refusals (`handshake::Refused`) begin at 16.
pub mod close {
    /// The node leaves as planned.
    pub const GOODBYE: u32 = 1;
    /// Both nodes dialled, or one of them twice: another lane stays.
    pub const REDUNDANT: u32 = super::handshake::Refused::Redundant.code();
    /// A newer life of the same node is here.
    pub const REPLACED: u32 = 3;
    /// The peer did not answer for its interest in time and was taken out of view.
    pub const OUT_OF_VIEW: u32 = 4;
    /// The peer sent what is not a frame.
    pub const BAD_FRAME: u32 = 5;
    /// There are `limits::PEERS_MAX` peers already.
    pub const FULL: u32 = 6;
    /// Membership says that the peer is down, while its lane still stood.
    pub const DOWN: u32 = 7;
    /// The peer does not read its control stream.
    pub const OVERFLOW: u32 = 8;
}
