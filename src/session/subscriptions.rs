//! The subscriptions of one session: a small table that is searched from the front.
//!
//! A session has few of them (its channel limit), so a walk over integers beats an index, and a session without any
//! holds no memory. What only a token brings sits behind a pointer that most subscriptions lack.
//!
//! Always true: no two entries have the same channel, and an index stays with its entry until `remove`.

use super::expiry::{Expiry, NEVER};
use super::{ChannelRef, SubscriptionIndex};
use crate::base::time::Instant;

#[derive(Debug)]
pub struct Subscription {
    pub channel: ChannelRef,
    /// Place in the hub's member list: kept for the shard, unused here.
    pub position: u32,
    /// The subscribe command, which is answered when the subscription goes live.
    id: u32,
    live: bool,
    pub(super) granted: Option<Box<Granted>>,
}

#[derive(Debug)]
pub(super) struct Granted {
    pub(super) expiry: Option<Expiry>,
    /// When the subscription is dropped unless it is refreshed.
    pub(super) over: Instant,
    pub(super) info: Box<[u8]>,
    pub(super) data: Box<[u8]>,
}

impl Subscription {
    /// Answered: publications may flow.
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// The id of the subscribe command that still waits for its answer.
    pub fn pending(&self) -> Option<u32> {
        (!self.live).then_some(self.id)
    }

    pub(super) fn info(&self) -> &[u8] {
        self.granted.as_ref().map_or(&[], |granted| &granted.info)
    }

    pub(super) fn data(&self) -> &[u8] {
        self.granted.as_ref().map_or(&[], |granted| &granted.data)
    }

    pub(super) fn expiry(&self) -> Option<Expiry> {
        self.granted.as_ref().and_then(|granted| granted.expiry)
    }

    fn over(&self) -> Instant {
        self.granted.as_ref().map_or(NEVER, |granted| granted.over)
    }
}

#[derive(Default)]
pub(super) struct Subscriptions {
    slots: Vec<Option<Subscription>>,
    len: u16,
}

/// Why an entry could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    Twice,
    Full,
}

impl Subscriptions {
    pub(super) const fn len(&self) -> u16 {
        self.len
    }

    pub(super) fn insert(
        &mut self,
        channel: ChannelRef,
        id: u32,
        granted: Option<Box<Granted>>,
    ) -> Result<SubscriptionIndex, Refused> {
        if self.find(channel).is_some() {
            return Err(Refused::Twice);
        }
        if self.len == SubscriptionIndex::MAX {
            return Err(Refused::Full);
        }
        let entry = Some(Subscription { channel, position: 0, id, live: false, granted });
        let free = match usize::from(self.len) == self.slots.len() {
            true => None,
            false => self.slots.iter().position(Option::is_none),
        };
        let index = match free {
            Some(index) => {
                self.slots[index] = entry;
                index
            }
            None => {
                // One at a time at first: most sessions have one or two for good.
                if self.slots.len() < 4 {
                    self.slots.reserve_exact(1);
                }
                self.slots.push(entry);
                self.slots.len() - 1
            }
        };
        self.len += 1;
        Ok(SubscriptionIndex::try_from(index).expect("there are never more slots than indices"))
    }

    pub(super) fn go_live(&mut self, index: SubscriptionIndex) -> Option<&mut Subscription> {
        let subscription = self.get_mut(index).filter(|subscription| !subscription.live)?;
        subscription.live = true;
        Some(subscription)
    }

    pub(super) fn remove(&mut self, index: SubscriptionIndex) -> Option<Subscription> {
        let subscription = self.slots.get_mut(usize::from(index))?.take()?;
        self.len -= 1;
        if self.len == 0 {
            self.slots = Vec::new();
        }
        Some(subscription)
    }

    pub(super) fn find(&self, channel: ChannelRef) -> Option<SubscriptionIndex> {
        self.iter().find(|(_, subscription)| subscription.channel == channel).map(|(index, _)| index)
    }

    pub(super) fn get(&self, index: SubscriptionIndex) -> Option<&Subscription> {
        self.slots.get(usize::from(index))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: SubscriptionIndex) -> Option<&mut Subscription> {
        self.slots.get_mut(usize::from(index))?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SubscriptionIndex, &Subscription)> {
        // Lossless: `insert` made an index of every place.
        let index = |at: usize| at as SubscriptionIndex;
        self.slots.iter().enumerate().filter_map(move |(at, slot)| Some((index(at), slot.as_ref()?)))
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// When the next one is over.
    pub(super) fn deadline(&self) -> Instant {
        self.iter().map(|(_, subscription)| subscription.over()).min().unwrap_or(NEVER)
    }

    /// One that is over, told once.
    pub(super) fn poll_over(&mut self, now: Instant) -> Option<SubscriptionIndex> {
        let (index, _) = self.iter().find(|(_, subscription)| subscription.over() <= now)?;
        if let Some(granted) = self.get_mut(index).and_then(|subscription| subscription.granted.as_mut()) {
            granted.over = NEVER;
        }
        Some(index)
    }
}
