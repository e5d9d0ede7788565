//! What is remembered of one peer and of one seed, and when each is dialled next.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::id::{Generation, NodeId};
use crate::base::rng::Rng;
use crate::base::time::Instant;

pub const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// For peers that nobody has seen for long, so that a thousand retired names cost nothing.
pub const BACKOFF_FORLORN: Duration = Duration::from_secs(30);
const FORLORN_FAILURES: u32 = 100;
/// Dials of a peer that may fail before a joining node goes on without it.
pub const FAILURES_MAX: u32 = 3;

/// When to dial next.
#[derive(Clone, Debug)]
pub struct Redial {
    pub attempt: Attempt,
    pub backoff: Duration,
    pub failures: u32,
}

#[derive(Clone, Debug)]
pub enum Attempt {
    Resting { until: Instant },
    Running { token: u64, address: SocketAddr, until: Instant },
}

impl Redial {
    pub const fn at(until: Instant) -> Self {
        Redial { attempt: Attempt::Resting { until }, backoff: BACKOFF_MIN, failures: 0 }
    }

    pub fn fail(&mut self, now: Instant, rng: &mut Rng) {
        self.failures = self.failures.saturating_add(1);
        let jitter = Duration::from_nanos(rng.below(self.backoff.as_nanos() as u64 / 4));
        self.attempt = Attempt::Resting { until: now + (self.backoff - jitter) };
        let max = if self.failures > FORLORN_FAILURES { BACKOFF_FORLORN } else { BACKOFF_MAX };
        self.backoff = (self.backoff * 2).min(max);
    }

    pub const fn running(&self) -> Option<(u64, SocketAddr, Instant)> {
        match self.attempt {
            Attempt::Running { token, address, until } => Some((token, address, until)),
            Attempt::Resting { .. } => None,
        }
    }
}

pub struct Seed {
    pub redial: Redial,
    /// One attempt is over, well or not.
    pub tried: bool,
    /// Who answered there.
    pub owner: Option<NodeId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lane {
    pub key: u64,
    pub remote: SocketAddr,
    /// Of two lanes that crossed the greater stays: both ends compute the same.
    pub rank: Rank,
    pub since: Instant,
}

/// A dial by the node with the lower name beats one by the other; of one node's dials the later one stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    pub by_lower_name: bool,
    pub dial: u64,
}

pub struct Peer {
    pub generation: Generation,
    pub workers: u16,
    pub addresses: Vec<SocketAddr>,
    /// Where a dial of ours reached it last.
    pub reached: Option<SocketAddr>,
    pub client: String,
    pub lane: Option<Lane>,
    pub in_view: bool,
    /// Its member list came over the present lane.
    pub listed: bool,
    /// It asked for ours, and is not in view yet.
    pub wants_members: bool,
    /// The shard has been told of it, and not of its end.
    pub connected: bool,
    /// Gossip calls this life alive, or suspects it at most.
    pub acknowledged: bool,
    /// Gossip calls this life dead since.
    pub down_since: Option<Instant>,
    pub left_since: Option<Instant>,
    /// Our HELLOs do not agree; waiting for it is of no use.
    pub refused: bool,
    pub redial: Redial,
    /// Which of its addresses is dialled next.
    pub next_address: usize,
}

impl Peer {
    pub fn new(generation: Generation, workers: u16, addresses: &[SocketAddr], redial: Redial) -> Self {
        Peer {
            generation,
            workers,
            addresses: addresses.to_vec(),
            reached: None,
            client: String::new(),
            lane: None,
            in_view: false,
            listed: false,
            wants_members: false,
            connected: false,
            acknowledged: false,
            down_since: None,
            left_since: None,
            refused: false,
            redial,
            next_address: 0,
        }
    }

    pub const fn is_living(&self) -> bool {
        self.down_since.is_none() && self.left_since.is_none()
    }

    /// Whether a joining node waits for it.
    pub const fn is_awaited(&self) -> bool {
        if self.in_view && self.listed {
            return false;
        }
        self.lane.is_some() || (self.is_living() && !self.refused && self.redial.failures < FAILURES_MAX)
    }

    pub const fn is_dialled(&self) -> bool {
        self.lane.is_none() && self.left_since.is_none()
    }

    /// Where to try, the proven address first.
    pub fn candidates(&self) -> impl Iterator<Item = SocketAddr> {
        let others = self.addresses.iter().copied().filter(|&address| Some(address) != self.reached);
        self.reached.into_iter().chain(others)
    }

    /// As told to others.
    pub fn told_addresses(&self) -> Vec<SocketAddr> {
        if !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        self.reached.or(self.lane.map(|lane| lane.remote)).into_iter().collect()
    }
}
