//! (soon)
use super::handshake::{Hello, Refused};
use crate::backplane::envelope::Member;
use crate::base::id::{Generation, NodeId};
use crate::base::rng::Rng;
use crate::base::time::{Instant, Now};
use std::net::SocketAddr;
use std::time::Duration;

pub struct ClusterOptions {
    pub id: NodeId,
    pub generation: Generation,
    pub advertise: Vec<SocketAddr>,
    pub workers: u16,
    pub join_timeout: Duration,
    pub alone: bool,
}
#[derive(Clone, Debug)]
pub struct PeerInfo {
    pub id: NodeId,
    pub generation: Generation,
    pub workers: u16,
    pub addresses: Vec<SocketAddr>,
    pub remote: SocketAddr,
}
pub enum Gone {
    Down,
    Left,
    Replaced,
}
pub enum Action {
    Dial { token: u64, address: SocketAddr },
    Datagram { lane: u64, bytes: Vec<u8> },
    RequestMembers { lane: u64 },
    SendMembers { lane: u64, members: Vec<Member> },
    SendGoodbye { lane: u64 },
    CloseLane { lane: u64, code: u32, reason: String },
    PeerConnected { peer: PeerInfo, lane: u64, we_dial_the_rest: bool },
    PeerGone { id: NodeId, generation: Generation, how: Gone },
    Ready { alone: bool },
    Log { line: String },
    FatalDuplicate { sentence: String },
}
pub struct Cluster;
impl Cluster {
    pub fn new(_options: ClusterOptions, _rng: Rng, _now: Now) -> Self {
        Cluster
    }
    pub fn on_seeds(&mut self, _now: Now, _a: &[SocketAddr]) {}
    pub fn on_peer_up(&mut self, _now: Now, _h: &Hello, _lane: u64, _remote: SocketAddr, _dialled: bool) {}
    pub fn on_peer_lane_down(&mut self, _now: Now, _lane: u64, _goodbye: bool) {}
    pub fn on_dial_failed(&mut self, _now: Now, _token: u64, _why: Option<Refused>) {}
    pub fn on_in_view(&mut self, _now: Now, _peer: &NodeId) {}
    pub fn on_out_of_view(&mut self, _now: Now, _peer: &NodeId) {}
    pub fn on_members_request(&mut self, _now: Now, _peer: &NodeId) {}
    pub fn on_members(&mut self, _now: Now, _peer: &NodeId, _m: &[Member]) {}
    pub fn on_datagram(&mut self, _now: Now, _lane: u64, _b: &[u8]) {}
    pub fn on_goodbye(&mut self, _now: Now, _id: &NodeId, _g: Generation) {}
    pub fn peers(&self) -> impl Iterator<Item = Peer<'_>> {
        std::iter::empty()
    }
    pub fn on_leave(&mut self, _now: Now) {}
    pub fn poll_deadline(&self) -> Option<Instant> {
        None
    }
    pub fn on_deadline(&mut self, _now: Now) {}
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }
}

pub struct Peer<'a> {
    pub id: &'a NodeId,
    pub generation: Generation,
    pub state: State,
    pub addresses: &'a [SocketAddr],
    pub workers: u16,
    pub client: &'a str,
}
pub enum State {
    Alive,
}
impl State {
    pub fn name(&self) -> &'static str {
        "alive"
    }
}
