//! What the cluster machine wants done, what it tells, and what it shows of its peers.

use std::fmt;
use std::net::SocketAddr;

use crate::backplane::envelope::Member;
use crate::backplane::mesh::handshake::Refused;
use crate::base::id::{Generation, NodeId};
use crate::limits::PEERS_MAX;

/// A peer whose HELLO was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    pub id: NodeId,
    pub generation: Generation,
    pub workers: u16,
    /// Where its lanes are dialled: as it advertises, or else where it was met.
    pub addresses: Vec<SocketAddr>,
    /// The other end of its lane 0.
    pub remote: SocketAddr,
    /// Its clients' address, for people to read.
    pub client: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Membership declared it dead.
    Down,
    /// It said goodbye.
    Left,
    /// A later life of the same name is here.
    Replaced,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open lane 0 to this address; answer with `on_peer_up` or `on_dial_failed`. Its HELLO carries the token.
    Dial {
        token: u64,
        address: SocketAddr,
    },
    Datagram {
        lane: u64,
        bytes: Vec<u8>,
    },
    RequestMembers {
        lane: u64,
    },
    SendMembers {
        lane: u64,
        members: Vec<Member>,
    },
    SendGoodbye {
        lane: u64,
    },
    /// This machine has forgotten the lane already.
    CloseLane {
        lane: u64,
        code: u32,
        reason: &'static str,
    },
    /// Comes again for each new lane 0, also without a `PeerGone` in between.
    PeerConnected {
        peer: PeerInfo,
        lane: u64,
        we_dial_the_rest: bool,
    },
    /// Once for each peer that was connected. Its lanes are to be closed.
    PeerGone {
        id: NodeId,
        generation: Generation,
        how: Gone,
    },
    /// Once.
    Ready {
        alone: bool,
    },
    Log(Transition),
    /// The name of this node is used by another one that lives: this process cannot be part of the cluster.
    FatalDuplicate {
        id: NodeId,
        reason: &'static str,
    },
}

/// What happened, for one log line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transition {
    PeerUp {
        id: NodeId,
        generation: Generation,
        remote: SocketAddr,
        dialled: bool,
    },
    LaneLost {
        id: NodeId,
    },
    PeerGone {
        id: NodeId,
        generation: Generation,
        how: Gone,
    },
    /// A peer whose lane stands is called dead by others.
    Doubted {
        id: NodeId,
    },
    /// We were called dead and came back.
    Rejoined,
    DialRefused {
        address: SocketAddr,
        why: Refused,
    },
    SecondLife {
        id: NodeId,
        refused: Generation,
        living: Generation,
    },
    Full {
        id: NodeId,
    },
    Ready {
        alone: bool,
        peers: usize,
    },
}

impl Transition {
    /// Whether an operator should look.
    pub const fn is_warning(&self) -> bool {
        match self {
            Transition::PeerUp { .. } | Transition::Rejoined => false,
            Transition::PeerGone { how, .. } => matches!(how, Gone::Down),
            Transition::Ready { alone, .. } => *alone,
            Transition::DialRefused { why, .. } => !matches!(why, Refused::Myself),
            Transition::LaneLost { .. }
            | Transition::Doubted { .. }
            | Transition::SecondLife { .. }
            | Transition::Full { .. } => true,
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transition::PeerUp { id, generation, remote, dialled } => {
                let how = if *dialled { "dialled" } else { "accepted" };
                write!(f, "peer {id} is up ({how}, at {remote}, generation {})", generation.0)
            }
            Transition::LaneLost { id } => write!(f, "the lane to peer {id} is lost"),
            Transition::PeerGone { id, how: Gone::Down, .. } => write!(f, "peer {id} is down"),
            Transition::PeerGone { id, how: Gone::Left, .. } => write!(f, "peer {id} has left"),
            Transition::PeerGone { id, how: Gone::Replaced, .. } => write!(f, "peer {id} was started again"),
            Transition::Doubted { id } => write!(f, "peer {id} is called dead by others, but its lane stands"),
            Transition::Rejoined => f.write_str("this node was called dead by others and is back"),
            Transition::DialRefused { address, why } => write!(f, "{address}: {why}"),
            Transition::SecondLife { id, refused, living } => write!(
                f,
                "a second node named {id} (generation {}) was refused: generation {} lives",
                refused.0, living.0
            ),
            Transition::Full { id } => write!(f, "peer {id} was refused: there are {PEERS_MAX} peers already"),
            Transition::Ready { alone: true, .. } => f.write_str("ready, alone: no other node has answered"),
            Transition::Ready { alone: false, peers } => write!(f, "ready, with {peers} peers in view"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// Heard of, but never met.
    Unmet,
    Alive,
    Suspect,
    Down,
    Left,
}

#[derive(Clone, Debug)]
pub struct PeerStatus<'a> {
    pub id: &'a NodeId,
    pub generation: Generation,
    pub state: PeerState,
    /// Its lane 0 stands.
    pub connected: bool,
    pub in_view: bool,
    pub addresses: &'a [SocketAddr],
    pub workers: u16,
    pub client: &'a str,
}

/// What only counters tell.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClusterCounters {
    pub dials: u64,
    pub dials_failed: u64,
    /// From a lane without a finished HELLO.
    pub datagrams_early: u64,
    pub datagrams_bad: u64,
    /// For a node without a lane.
    pub datagrams_unroutable: u64,
}
