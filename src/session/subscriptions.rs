//! The subscriptions of one session: a small table that is searched from the front.
//!
//! A session has few of them, so a walk over integers beats an index, and a session without any holds no memory. One
//! that has many gets an index: a walk for each of its commands would cost the square of them, and the other clients of
//! the worker would pay. What only a token brings sits behind a pointer that most subscriptions lack.
//!
//! Always true: no two entries have the same channel, and a place stays with its entry until `remove`.

use std::collections::{BTreeMap, BTreeSet};

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

/// Entries from which on there is an index.
const MANY: usize = 64;

#[derive(Default)]
pub(super) struct Subscriptions {
    table: Table,
    len: u16,
}

/// As small as a vector: most sessions have no index.
enum Table {
    Few(Vec<Option<Subscription>>),
    /// From the `MANY`th place on, until the last entry has gone.
    Many(Box<Indexed>),
}

struct Indexed {
    slots: Vec<Option<Subscription>>,
    by_channel: BTreeMap<ChannelRef, SubscriptionIndex>,
    free: BTreeSet<SubscriptionIndex>,
}

impl Default for Table {
    fn default() -> Self {
        Table::Few(Vec::new())
    }
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
        let len = usize::from(self.len);
        let free = match &mut self.table {
            Table::Few(slots) if len < slots.len() => slots.iter().position(Option::is_none),
            Table::Few(_) => None,
            Table::Many(indexed) => indexed.free.pop_first().map(usize::from),
        };
        let slots = self.slots_mut();
        let place = match free {
            Some(place) => {
                slots[place] = entry;
                place
            }
            None => {
                // One at a time at first: most sessions have one or two for good.
                if slots.len() < 4 {
                    slots.reserve_exact(1);
                }
                slots.push(entry);
                slots.len() - 1
            }
        };
        self.len += 1;
        let place = SubscriptionIndex::try_from(place).expect("there are never more slots than places");
        match &mut self.table {
            Table::Many(indexed) => _ = indexed.by_channel.insert(channel, place),
            Table::Few(slots) if slots.len() == MANY => {
                let slots = std::mem::take(slots);
                self.table = Table::Many(Box::new(Indexed::of(slots)));
            }
            Table::Few(_) => {}
        }
        Ok(place)
    }

    pub(super) fn go_live(&mut self, index: SubscriptionIndex) -> Option<&mut Subscription> {
        let subscription = self.get_mut(index).filter(|subscription| !subscription.live)?;
        subscription.live = true;
        Some(subscription)
    }

    pub(super) fn remove(&mut self, index: SubscriptionIndex) -> Option<Subscription> {
        let subscription = self.slots_mut().get_mut(usize::from(index))?.take()?;
        self.len -= 1;
        if self.len == 0 {
            self.table = Table::default();
        } else if let Table::Many(indexed) = &mut self.table {
            indexed.by_channel.remove(&subscription.channel);
            indexed.free.insert(index);
        }
        Some(subscription)
    }

    pub(super) fn find(&self, channel: ChannelRef) -> Option<SubscriptionIndex> {
        match &self.table {
            Table::Few(_) => self.iter().find(|(_, subscription)| subscription.channel == channel).map(|(at, _)| at),
            Table::Many(indexed) => indexed.by_channel.get(&channel).copied(),
        }
    }

    fn slots(&self) -> &[Option<Subscription>] {
        match &self.table {
            Table::Few(slots) => slots,
            Table::Many(indexed) => &indexed.slots,
        }
    }

    fn slots_mut(&mut self) -> &mut Vec<Option<Subscription>> {
        match &mut self.table {
            Table::Few(slots) => slots,
            Table::Many(indexed) => &mut indexed.slots,
        }
    }

    pub(super) fn get(&self, index: SubscriptionIndex) -> Option<&Subscription> {
        self.slots().get(usize::from(index))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: SubscriptionIndex) -> Option<&mut Subscription> {
        self.slots_mut().get_mut(usize::from(index))?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SubscriptionIndex, &Subscription)> {
        // Lossless: `insert` made an index of every place.
        let index = |at: usize| at as SubscriptionIndex;
        self.slots().iter().enumerate().filter_map(move |(at, slot)| Some((index(at), slot.as_ref()?)))
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        match &self.table {
            Table::Few(slots) => slots.capacity(),
            Table::Many(indexed) => indexed.slots.capacity(),
        }
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

impl Indexed {
    /// Every place is taken.
    fn of(slots: Vec<Option<Subscription>>) -> Self {
        let entries = slots.iter().flatten().enumerate();
        let by_channel: BTreeMap<_, _> =
            entries.map(|(place, subscription)| (subscription.channel, place as SubscriptionIndex)).collect();
        assert_eq!(by_channel.len(), slots.len());
        Indexed { slots, by_channel, free: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn with_an_index_and_without_one_the_table_is_the_same() {
        let mut rng = Rng::seeded(5);
        for most in [3, MANY as u64 - 1, MANY as u64 + 1, 500] {
            let mut table = Subscriptions::default();
            let mut model = BTreeMap::new();
            for step in 0..4000 {
                // Grows, and shrinks to nothing again.
                let channel = ChannelRef(rng.below(most) as u32);
                let grows = rng.chance(if step % 1000 < 500 { 3 } else { 1 }, 4);
                match model.get(&channel) {
                    None if grows => {
                        let place = table.insert(channel, 1, None).unwrap();
                        assert_eq!(model.insert(channel, place), None);
                    }
                    Some(_) if grows => assert_eq!(table.insert(channel, 1, None), Err(Refused::Twice)),
                    Some(&place) => {
                        assert_eq!(table.remove(place).map(|gone| gone.channel), Some(channel));
                        model.remove(&channel);
                    }
                    None => assert_eq!(table.find(channel), None),
                }
                assert_eq!(usize::from(table.len()), model.len());
                assert!(model.iter().all(|(&channel, &place)| table.find(channel) == Some(place)));
                assert_eq!(table.iter().count(), model.len());
            }
            for &place in model.values() {
                table.remove(place);
            }
            assert_eq!((table.capacity(), matches!(table.table, Table::Few(_))), (0, true));
        }
    }
}
