//! What this node wants of its peers, kept on each channel's home worker.
//!
//! Workers ask for channels by name. Peers are told hashes, counted: two names with one hash are one interest to a
//! peer, and a collision costs a frame, never a publication, because receivers match full names. A worker's request
//! is confirmed only when every peer in view has acknowledged the hash; which peers those are, and what they
//! acknowledged, is the flows' business: this table holds how many acknowledgements a channel still waits for.
//!
//! Always true: a hash is counted once for each name that some worker wants; a channel is confirmed exactly when it
//! waits for nothing; a worker is told of a confirmation once for each time that it asked.

use hashbrown::{HashMap, HashTable};

use crate::base::hash::{BuildIdentity, ChannelHash};
use crate::base::id::WorkerIndex;

/// Workers of a node, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WorkerSet(u128);

const _: () = assert!(crate::limits::WORKERS_MAX as u32 <= u128::BITS);

impl WorkerSet {
    pub fn insert(&mut self, worker: WorkerIndex) -> bool {
        let bit = 1 << worker;
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    pub fn remove(&mut self, worker: WorkerIndex) -> bool {
        let bit = 1 << worker;
        let old = self.0 & bit != 0;
        self.0 &= !bit;
        old
    }

    pub fn contains(self, worker: WorkerIndex) -> bool {
        self.0 & 1 << worker != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = WorkerIndex> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            if bits == 0 {
                return None;
            }
            let worker = bits.trailing_zeros();
            bits &= bits - 1;
            Some(worker as WorkerIndex)
        })
    }
}

/// A channel that waits for acknowledgements, as the flows name it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    index: u32,
    /// A place is used again; the number is not.
    number: u64,
}

struct Wanted {
    name: Box<str>,
    hash: ChannelHash,
    workers: WorkerSet,
    /// Workers that asked and were not told yet.
    asking: WorkerSet,
    /// Acknowledgements that are still out.
    missing: u32,
    number: u64,
}

/// What follows from a worker's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Every peer in view knows the hash: the worker may be told at once.
    Confirmed,
    /// Others asked before and their acknowledgements are out: this one is told with them.
    Waiting,
    /// The flows have to be asked: `wait` tells how many acknowledgements are out. `new`: peers do not know the hash yet.
    Ask { ticket: Ticket, new: bool },
}

#[derive(Default)]
pub struct NodeInterest {
    wanted: Vec<Option<Wanted>>,
    free: Vec<u32>,
    by_name: HashTable<u32>,
    /// How many wanted names have the hash.
    hashes: HashMap<u64, u32, BuildIdentity>,
    numbers: u64,
}

fn bucket(hash: ChannelHash) -> u64 {
    hash.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

impl NodeInterest {
    fn find(&self, name: &str, hash: ChannelHash) -> Option<u32> {
        let same = |&index: &u32| {
            self.wanted[index as usize].as_ref().is_some_and(|wanted| wanted.hash == hash && *wanted.name == *name)
        };
        self.by_name.find(bucket(hash), same).copied()
    }

    /// The workers of this node that want the channel.
    pub fn workers(&self, name: &str, hash: ChannelHash) -> WorkerSet {
        match self.find(name, hash) {
            Some(index) => self.wanted[index as usize].as_ref().map(|wanted| wanted.workers).unwrap_or_default(),
            None => WorkerSet::default(),
        }
    }

    pub fn ask(&mut self, worker: WorkerIndex, name: &str, hash: ChannelHash) -> Asked {
        if let Some(index) = self.find(name, hash) {
            let wanted = self.wanted[index as usize].as_mut().expect("found channels exist");
            wanted.workers.insert(worker);
            if wanted.missing > 0 {
                wanted.asking.insert(worker);
                return Asked::Waiting;
            }
            return Asked::Confirmed;
        }
        self.numbers += 1;
        let mut wanted = Wanted {
            name: name.into(),
            hash,
            workers: WorkerSet::default(),
            asking: WorkerSet::default(),
            missing: 0,
            number: self.numbers,
        };
        wanted.workers.insert(worker);
        wanted.asking.insert(worker);
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.wanted.push(None);
                u32::try_from(self.wanted.len() - 1).expect("fewer than 2^32 channels")
            }
        };
        self.wanted[index as usize] = Some(wanted);
        let table = &self.wanted;
        self.by_name.insert_unique(bucket(hash), index, |&other| {
            bucket(table[other as usize].as_ref().expect("listed channels exist").hash)
        });
        let count = self.hashes.entry(hash.0).or_insert(0);
        *count += 1;
        Asked::Ask { ticket: Ticket { index, number: self.numbers }, new: *count == 1 }
    }

    /// How many acknowledgements the channel of a ticket waits for. With none it is confirmed now.
    pub fn wait(&mut self, ticket: Ticket, missing: u32) -> Option<(&str, WorkerSet)> {
        let wanted = self.wanted[ticket.index as usize].as_mut().expect("a ticket that was just given has its channel");
        assert_eq!(wanted.number, ticket.number);
        wanted.missing = missing;
        if missing > 0 {
            return None;
        }
        let workers = std::mem::take(&mut wanted.asking);
        Some((&wanted.name, workers))
    }

    /// One acknowledgement came, or its peer left the view. Returns whom to tell when it was the last.
    /// A ticket whose channel is not wanted any more is ignored.
    pub fn on_acknowledged(&mut self, ticket: Ticket) -> Option<(&str, ChannelHash, WorkerSet)> {
        let wanted = self.wanted.get_mut(ticket.index as usize)?.as_mut()?;
        if wanted.number != ticket.number {
            return None;
        }
        assert!(wanted.missing > 0, "no more acknowledgements come than were waited for");
        wanted.missing -= 1;
        if wanted.missing > 0 {
            return None;
        }
        let workers = std::mem::take(&mut wanted.asking);
        Some((&wanted.name, wanted.hash, workers))
    }

    /// A worker gives a channel back. Returns the hash when no name with it is wanted any more.
    pub fn give_back(&mut self, worker: WorkerIndex, name: &str, hash: ChannelHash) -> Option<ChannelHash> {
        let index = self.find(name, hash)?;
        let wanted = self.wanted[index as usize].as_mut().expect("found channels exist");
        wanted.workers.remove(worker);
        wanted.asking.remove(worker);
        if !wanted.workers.is_empty() {
            return None;
        }
        if let Ok(entry) = self.by_name.find_entry(bucket(hash), |&other| other == index) {
            entry.remove();
        }
        self.wanted[index as usize] = None;
        self.free.push(index);
        let count = self.hashes.get_mut(&hash.0).expect("a wanted name has its hash counted");
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.hashes.remove(&hash.0);
        Some(hash)
    }

    /// Everything that peers have to know.
    pub fn hashes(&self) -> impl Iterator<Item = u64> {
        self.hashes.keys().copied()
    }

    pub fn wants(&self, hash: ChannelHash) -> bool {
        self.hashes.contains_key(&hash.0)
    }

    /// Names and workers of all wanted channels whose hash the filter takes.
    pub fn matching(
        &self,
        filter: impl Fn(ChannelHash) -> bool,
    ) -> impl Iterator<Item = (&str, ChannelHash, WorkerSet)> {
        self.wanted
            .iter()
            .flatten()
            .filter(move |wanted| filter(wanted.hash))
            .map(|wanted| (&*wanted.name, wanted.hash, wanted.workers))
    }

    pub fn channels(&self) -> usize {
        self.by_name.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: ChannelHash = ChannelHash(5);

    fn ticket(asked: Asked) -> (Ticket, bool) {
        match asked {
            Asked::Ask { ticket, new } => (ticket, new),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_worker_is_told_when_the_last_acknowledgement_is_in() {
        let mut interest = NodeInterest::default();
        let (t, new) = ticket(interest.ask(0, "c", H));
        assert!(new);
        assert!(interest.wait(t, 2).is_none());
        assert_eq!(interest.ask(1, "c", H), Asked::Waiting);
        assert!(interest.on_acknowledged(t).is_none());
        let (name, hash, workers) = interest.on_acknowledged(t).unwrap();
        assert_eq!((name, hash), ("c", H));
        assert_eq!(workers.iter().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(interest.ask(2, "c", H), Asked::Confirmed);
        assert_eq!(interest.workers("c", H).iter().count(), 3);
    }

    #[test]
    fn names_that_collide_are_one_interest_to_the_peers() {
        let mut interest = NodeInterest::default();
        assert!(ticket(interest.ask(0, "a", H)).1);
        assert!(!ticket(interest.ask(0, "b", H)).1);
        assert_eq!(interest.give_back(0, "a", H), None);
        assert!(interest.wants(H));
        assert_eq!(interest.give_back(0, "b", H), Some(H));
        assert_eq!(interest.hashes().count(), 0);
    }

    #[test]
    fn an_acknowledgement_for_a_channel_given_back_is_ignored() {
        let mut interest = NodeInterest::default();
        let (old, _) = ticket(interest.ask(0, "a", H));
        assert!(interest.wait(old, 1).is_none());
        interest.give_back(0, "a", H);
        let (new, _) = ticket(interest.ask(0, "a", H));
        assert!(interest.wait(new, 1).is_none());
        assert!(interest.on_acknowledged(old).is_none());
        assert!(interest.on_acknowledged(new).is_some());
    }
}
