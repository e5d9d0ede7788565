//! Dials of seeds and peers: which are due, which run, and what their ends mean.
//!
//! Always true: no address is dialled twice at the same time, and none that we advertise ourselves.

use std::net::SocketAddr;
use std::time::Duration;

use super::peer::{Attempt, BACKOFF_FORLORN, BACKOFF_MIN, Peer, Redial, Seed};
use super::{Action, Cluster, Transition};
use crate::backplane::mesh::handshake::Refused;
use crate::base::id::NodeId;
use crate::base::time::Instant;

/// A dial that took longer has failed, whatever becomes of it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Marks the token of a dial that does not know whom it will meet: it never replaces a lane.
pub(super) const SPECULATIVE: u64 = 1 << 62;

impl Cluster {
    /// A seed is dialled while nobody with a lane is behind it, for whoever may live there by now.
    pub(super) fn is_seed_dialled(&self, seed: &Seed) -> bool {
        let owner = seed.owner.as_ref().and_then(|owner| self.peers.get(owner));
        owner.is_none_or(|peer| peer.lane.is_none())
    }

    pub(super) fn is_dialling(&self, address: SocketAddr) -> bool {
        let redials = self.seeds.values().map(|seed| &seed.redial).chain(self.peers.values().map(|peer| &peer.redial));
        redials.filter_map(Redial::running).any(|(_, running, _)| running == address)
    }

    pub(super) fn next_address(&self, peer: &Peer) -> Option<SocketAddr> {
        let usable = || peer.candidates().filter(|address| !self.options.advertise.contains(address));
        let count = usable().count();
        if count == 0 { None } else { usable().nth(peer.next_address % count) }
    }

    pub(super) fn start_dials(&mut self, now: Instant) {
        for address in self.seeds.keys().copied().collect::<Vec<_>>() {
            let seed = &self.seeds[&address];
            let due = matches!(seed.redial.attempt, Attempt::Resting { until } if until <= now);
            if due && self.is_seed_dialled(seed) && !self.is_dialling(address) {
                let speculative = if seed.owner.is_none() { SPECULATIVE } else { 0 };
                let attempt = self.dial(now, address, speculative);
                self.seeds.get_mut(&address).expect("just seen").redial.attempt = attempt;
            }
        }
        for id in self.peers.keys().cloned().collect::<Vec<_>>() {
            let peer = self.peer(&id);
            let due = matches!(peer.redial.attempt, Attempt::Resting { until } if until <= now);
            if due
                && peer.is_dialled()
                && let Some(address) = self.next_address(peer)
                && !self.is_dialling(address)
            {
                let attempt = self.dial(now, address, 0);
                let peer = self.peers.get_mut(&id).expect("just seen");
                peer.redial.attempt = attempt;
                peer.next_address = peer.next_address.wrapping_add(1);
            }
        }
    }

    pub(super) fn dial(&mut self, now: Instant, address: SocketAddr, speculative: u64) -> Attempt {
        self.counters.dials += 1;
        let token = self.counters.dials | speculative;
        self.actions.push_back(Action::Dial { token, address });
        Attempt::Running { token, address, until: now + DIAL_TIMEOUT }
    }

    /// Ends the attempt that a lane answers. The address, if it is the one where `id` was looked for.
    pub(super) fn dial_answered(&mut self, now: Instant, token: u64, id: &NodeId) -> Option<SocketAddr> {
        for (address, seed) in &mut self.seeds {
            if seed.redial.running().is_some_and(|(running, ..)| running == token) {
                seed.tried = true;
                seed.owner = Some(id.clone());
                seed.redial = Redial::at(now + BACKOFF_MIN);
                return Some(*address);
            }
        }
        let mut found = None;
        for (sought, peer) in &mut self.peers {
            if let Some((running, address, _)) = peer.redial.running()
                && running == token
            {
                if sought == id {
                    peer.redial.attempt = Attempt::Resting { until: now + BACKOFF_MIN };
                } else {
                    // Somebody else lives there now.
                    peer.redial.fail(now, &mut self.rng);
                }
                found = Some(address);
            }
        }
        found
    }

    pub(super) fn dial_failed(&mut self, now: Instant, token: u64, why: Option<Refused>) {
        let mut failed = None;
        for (address, seed) in &mut self.seeds {
            if seed.redial.running().is_some_and(|(running, ..)| running == token) {
                seed.tried = true;
                if why == Some(Refused::Redundant) {
                    // Whoever it is, we have a lane with it.
                    seed.redial.attempt = Attempt::Resting { until: now + BACKOFF_FORLORN };
                    return;
                }
                seed.redial.fail(now, &mut self.rng);
                failed = Some((*address, seed.redial.failures));
            }
        }
        for peer in self.peers.values_mut() {
            if let Some((running, address, _)) = peer.redial.running()
                && running == token
            {
                if why == Some(Refused::Redundant) {
                    // The lane that stays is up any moment, if it is not yet.
                    peer.redial.attempt = Attempt::Resting { until: now + BACKOFF_MIN };
                    return;
                }
                peer.refused = matches!(
                    why,
                    Some(
                        Refused::Version
                            | Refused::Layout
                            | Refused::HashKey
                            | Refused::NameNotInCertificate
                            | Refused::Myself
                    )
                );
                peer.redial.fail(now, &mut self.rng);
                failed = Some((address, peer.redial.failures));
            }
        }
        let Some((address, failures)) = failed else { return };
        self.counters.dials_failed += 1;
        let Some(why) = why else { return };
        // Once for each cause would be better still, but a wrong certificate must be seen, and again after a while.
        if failures % 32 == 1 {
            self.log(Transition::DialRefused { address, why });
        }
        match why {
            Refused::Myself => {
                self.seeds.remove(&address);
                self.ourselves.insert(address);
            }
            Refused::Duplicate => self.doubt_own_name(now),
            _ => {}
        }
    }
}
