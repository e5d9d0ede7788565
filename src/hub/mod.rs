//! The subscription table of one worker: which connections follow which channel.
//!
//! It knows neither sockets nor encodings nor other workers. Members stand in groups, and all members of a group get
//! the same bytes, so that fan-out is a walk over integers. Beside the members a channel has the state of this
//! worker's interest (asked of the channel's home worker, confirmed, lingering) and whoever waits for it.
//!
//! Always true: a channel exists exactly while it has members, waiters, or interest that was not yet given back.

use hashbrown::HashTable;

use crate::base::hash::ChannelHash;
use crate::base::time::Instant;

/// Index of a channel in its hub.
pub type ChannelIndex = u32;

/// Members of a group get the same bytes.
pub const GROUPS: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    pub connection: u32,
    pub subscription: u16,
}

/// Someone who may join once the interest is confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    pub connection: crate::base::slab::Key,
    pub subscription: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    None,
    /// The home worker was asked and has not answered.
    Asked,
    Confirmed,
}

pub struct Channel {
    pub name: Box<str>,
    pub hash: ChannelHash,
    pub interest: Interest,
    pub waiters: Vec<Waiter>,
    groups: [Vec<Member>; GROUPS],
    /// When nobody follows it any more, it is given back at this time.
    lingers_until: Option<Instant>,
    /// Publications of this turn that are not in the members' outboxes yet: places in the turn's list.
    pub pending: Vec<u32>,
}

impl Channel {
    pub fn group(&self, group: usize) -> &[Member] {
        &self.groups[group]
    }

    pub fn members(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    fn is_followed(&self) -> bool {
        !self.waiters.is_empty() || self.groups.iter().any(|group| !group.is_empty())
    }
}

#[derive(Default)]
pub struct Hub {
    channels: Vec<Option<Channel>>,
    free: Vec<ChannelIndex>,
    by_name: HashTable<ChannelIndex>,
    /// Channels that nobody follows, oldest first. An entry may be stale: the channel's own time decides.
    lingering: std::collections::VecDeque<(Instant, ChannelIndex)>,
    members: usize,
}

fn bucket(hash: ChannelHash) -> u64 {
    // The homes and lanes of channels are remainders of the same number: mix, so that the low bits differ.
    hash.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

impl Hub {
    pub fn find(&self, name: &str, hash: ChannelHash) -> Option<ChannelIndex> {
        let same = |&index: &ChannelIndex| {
            self.channels[index as usize].as_ref().is_some_and(|channel| channel.hash == hash && *channel.name == *name)
        };
        self.by_name.find(bucket(hash), same).copied()
    }

    /// Finds the channel or makes it.
    pub fn enter(&mut self, name: &str, hash: ChannelHash) -> ChannelIndex {
        if let Some(index) = self.find(name, hash) {
            return index;
        }
        let channel = Channel {
            name: name.into(),
            hash,
            interest: Interest::None,
            waiters: Vec::new(),
            groups: Default::default(),
            lingers_until: None,
            pending: Vec::new(),
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.channels.push(None);
                u32::try_from(self.channels.len() - 1).expect("fewer than 2^32 channels")
            }
        };
        self.channels[index as usize] = Some(channel);
        let channels = &self.channels;
        self.by_name.insert_unique(bucket(hash), index, |&other| {
            bucket(channels[other as usize].as_ref().expect("listed channels exist").hash)
        });
        index
    }

    pub fn channel(&self, index: ChannelIndex) -> &Channel {
        self.channels[index as usize].as_ref().expect("a channel index lives as long as its channel")
    }

    pub fn channel_mut(&mut self, index: ChannelIndex) -> &mut Channel {
        self.channels[index as usize].as_mut().expect("a channel index lives as long as its channel")
    }

    /// Returns the member's position in its group, which changes only as `leave` tells.
    pub fn join(&mut self, index: ChannelIndex, group: usize, member: Member) -> u32 {
        let channel = self.channel_mut(index);
        channel.lingers_until = None;
        channel.groups[group].push(member);
        let position = channel.groups[group].len() - 1;
        self.members += 1;
        u32::try_from(position).expect("fewer than 2^32 members")
    }

    /// Removes the member at `position`. Returns the member that stands there now, if it had to move.
    pub fn leave(&mut self, index: ChannelIndex, group: usize, position: u32) -> Option<Member> {
        let members = &mut self.channel_mut(index).groups[group];
        members.swap_remove(position as usize);
        let moved = members.get(position as usize).copied();
        // A crowd that left should not be paid for by the one who stays.
        if members.capacity() > 64 && members.len() * 4 < members.capacity() {
            members.shrink_to(members.len() * 2);
        }
        self.members -= 1;
        moved
    }

    /// Tells that somebody may have left. If nobody follows the channel any more it lingers until `until`.
    pub fn release(&mut self, index: ChannelIndex, until: Instant) {
        let channel = self.channel_mut(index);
        if channel.is_followed() || channel.lingers_until.is_some() {
            return;
        }
        channel.lingers_until = Some(until);
        self.lingering.push_back((until, index));
    }

    /// A waiter came: the channel is followed again.
    pub fn wait(&mut self, index: ChannelIndex, waiter: Waiter) {
        let channel = self.channel_mut(index);
        channel.lingers_until = None;
        channel.waiters.push(waiter);
    }

    pub fn poll_deadline(&self) -> Option<Instant> {
        self.lingering.front().map(|&(until, _)| until)
    }

    /// The next channel whose time is over, removed. The caller gives its interest back.
    /// One whose interest was asked and not answered stays until it was.
    pub fn poll_expired(&mut self, now: Instant) -> Option<Channel> {
        while let Some(&(until, index)) = self.lingering.front() {
            if until > now {
                return None;
            }
            self.lingering.pop_front();
            let Some(channel) = &self.channels[index as usize] else { continue };
            if channel.lingers_until != Some(until) {
                continue;
            }
            if channel.interest == Interest::Asked {
                let later = now + std::time::Duration::from_millis(500);
                self.channel_mut(index).lingers_until = Some(later);
                self.lingering.push_back((later, index));
                continue;
            }
            return Some(self.remove(index));
        }
        None
    }

    fn remove(&mut self, index: ChannelIndex) -> Channel {
        let channel = self.channels[index as usize].take().expect("only a living channel is removed");
        assert!(channel.pending.is_empty(), "a channel is settled before its last member leaves");
        match self.by_name.find_entry(bucket(channel.hash), |&other| other == index) {
            Ok(entry) => {
                entry.remove();
            }
            Err(_) => unreachable!("every channel is listed by its name"),
        }
        self.free.push(index);
        channel
    }

    pub fn iter(&self) -> impl Iterator<Item = (ChannelIndex, &Channel)> {
        self.channels
            .iter()
            .enumerate()
            .filter_map(|(index, channel)| channel.as_ref().map(|channel| (index as ChannelIndex, channel)))
    }

    /// Channels with members or waiters, or still lingering.
    pub fn channels(&self) -> usize {
        self.by_name.len()
    }

    pub fn subscriptions(&self) -> usize {
        self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashKey;
    use crate::base::rng::Rng;
    use std::time::Duration;

    const LINGER: Duration = Duration::from_secs(1);

    fn hash(name: &str) -> ChannelHash {
        HashKey::new([7; 16]).channel(name)
    }

    #[test]
    fn positions_are_two_way_through_any_joins_and_leaves() {
        let mut rng = Rng::seeded(3);
        let mut hub = Hub::default();
        let index = hub.enter("c", hash("c"));
        // What the sessions believe: connection → (group, position).
        let mut believed: std::collections::BTreeMap<u32, (usize, u32)> = Default::default();
        for step in 0..2000u32 {
            if believed.is_empty() || rng.chance(1, 2) {
                let group = rng.below(2) as usize;
                let position = hub.join(index, group, Member { connection: step, subscription: 0 });
                believed.insert(step, (group, position));
            } else {
                let pick = rng.below(believed.len() as u64) as usize;
                let (&connection, &(group, position)) = believed.iter().nth(pick).unwrap();
                believed.remove(&connection);
                if let Some(moved) = hub.leave(index, group, position) {
                    believed.get_mut(&moved.connection).unwrap().1 = position;
                }
            }
            assert_eq!(hub.subscriptions(), believed.len());
            for (&connection, &(group, position)) in &believed {
                assert_eq!(hub.channel(index).group(group)[position as usize].connection, connection);
            }
        }
    }

    #[test]
    fn a_channel_that_nobody_follows_is_given_back_after_its_linger() {
        let mut hub = Hub::default();
        let index = hub.enter("c", hash("c"));
        hub.channel_mut(index).interest = Interest::Confirmed;
        let position = hub.join(index, 0, Member { connection: 1, subscription: 0 });
        hub.leave(index, 0, position);
        hub.release(index, Instant::START + LINGER);
        assert!(hub.poll_expired(Instant::START).is_none());
        assert_eq!(hub.find("c", hash("c")), Some(index));
        let channel = hub.poll_expired(Instant::START + LINGER).unwrap();
        assert_eq!(&*channel.name, "c");
        assert_eq!(hub.find("c", hash("c")), None);
        assert_eq!(hub.channels(), 0);
    }

    #[test]
    fn who_comes_back_during_the_linger_keeps_the_interest() {
        let mut hub = Hub::default();
        let index = hub.enter("c", hash("c"));
        hub.channel_mut(index).interest = Interest::Confirmed;
        hub.release(index, Instant::START + LINGER);
        hub.join(index, 0, Member { connection: 1, subscription: 0 });
        assert!(hub.poll_expired(Instant::START + LINGER + LINGER).is_none());
        assert_eq!(hub.find("c", hash("c")), Some(index));
    }

    #[test]
    fn interest_that_was_asked_is_answered_before_it_is_given_back() {
        let mut hub = Hub::default();
        let index = hub.enter("c", hash("c"));
        hub.channel_mut(index).interest = Interest::Asked;
        hub.release(index, Instant::START);
        assert!(hub.poll_expired(Instant::START + LINGER).is_none());
        hub.channel_mut(index).interest = Interest::Confirmed;
        assert!(hub.poll_expired(Instant::START + LINGER + LINGER).is_some());
    }
}
