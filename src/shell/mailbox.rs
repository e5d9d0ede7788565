//! Mail between the workers of a node: one bounded queue per pair of workers, and a bell per worker.
//!
//! A worker that sleeps waits for its bell. Whoever posts rings it only when its worker says that it is asleep, so a busy
//! worker costs its senders one fence and one load (`sleep` has the protocol, and its proof).
//!
//! Always true: mail between the same two workers keeps its order, and mail that was posted is either seen by the worker
//! before it sleeps or rings its bell.

use std::io;

use crossbeam::queue::ArrayQueue;

use super::sleep::Sleep;
use super::sys;
use crate::base::id::WorkerIndex;

/// Places of all queues to one worker together, shared among its senders.
const PLACES_TO_ONE_WORKER: usize = 32 * 1024;
/// Places of one queue, whatever the number of workers.
const PLACES_MIN: usize = 256;
const PLACES_MAX: usize = 4096;

const _: () = assert!(PLACES_MIN * crate::limits::WORKERS_MAX as usize <= PLACES_TO_ONE_WORKER);

/// Wakes one worker. Shared with everyone who posts to it.
pub struct Bell {
    sleep: Sleep,
    wire: std::fs::File,
}

impl Bell {
    fn new() -> io::Result<Self> {
        Ok(Bell { sleep: Sleep::default(), wire: sys::eventfd(0)?.into() })
    }

    /// After something was posted for the worker.
    pub fn ring(&self) {
        if self.sleep.must_ring() {
            self.strike();
        }
    }

    fn strike(&self) {
        use std::io::Write;
        match (&self.wire).write(&1u64.to_ne_bytes()) {
            Ok(_) => {}
            // The counter is at its maximum: it rings already.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("an eventfd takes a number: {error}"),
        }
    }

    /// For the worker to wait on.
    pub fn descriptor(&self) -> io::Result<std::os::fd::OwnedFd> {
        self.wire.try_clone().map(Into::into)
    }

    /// Whether the worker may wait for `descriptor` now; otherwise there is something to do.
    pub fn try_sleep(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.sleep.try_sleep(is_empty)
    }

    /// When `descriptor` has become readable.
    pub fn wake_up(&self) {
        use std::io::Read;
        self.sleep.wake_up();
        match (&self.wire).read(&mut [0; 8]) {
            Ok(_) => {}
            // Nobody had rung: a false alarm of the readiness.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("an eventfd gives its number: {error}"),
        }
    }
}

/// The mail of a whole node.
pub struct Mailboxes<T> {
    /// By receiver, then sender. None from a worker to itself.
    queues: Vec<Vec<Option<ArrayQueue<T>>>>,
    bells: Vec<Bell>,
}

impl<T> Mailboxes<T> {
    pub fn new(workers: u16) -> io::Result<Self> {
        let places = (PLACES_TO_ONE_WORKER / usize::from(workers)).clamp(PLACES_MIN, PLACES_MAX);
        let queues = (0..workers)
            .map(|to| (0..workers).map(|from| (from != to).then(|| ArrayQueue::new(places))).collect())
            .collect();
        let bells = (0..workers).map(|_| Bell::new()).collect::<io::Result<_>>()?;
        Ok(Mailboxes { queues, bells })
    }

    pub fn workers(&self) -> u16 {
        self.bells.len() as u16
    }

    pub fn bell(&self, of: WorkerIndex) -> &Bell {
        &self.bells[usize::from(of)]
    }

    /// Gives it back when the queue is full. The caller rings the bell when it has posted all it has.
    pub fn post(&self, from: WorkerIndex, to: WorkerIndex, mail: T) -> Result<(), T> {
        let queue = self.queues[usize::from(to)][usize::from(from)].as_ref();
        queue.expect("a shard sends no mail to itself").push(mail)
    }

    /// Takes up to `bound` pieces for one worker, fairly among the senders. Whether more is left.
    pub fn collect(&self, to: WorkerIndex, bound: usize, mut take: impl FnMut(WorkerIndex, T)) -> bool {
        let queues = &self.queues[usize::from(to)];
        let share = (bound / queues.len()).max(1);
        let mut more = false;
        for (from, queue) in queues.iter().enumerate() {
            let Some(queue) = queue else { continue };
            for _ in 0..share {
                match queue.pop() {
                    Some(mail) => take(from as WorkerIndex, mail),
                    None => break,
                }
            }
            more |= !queue.is_empty();
        }
        more
    }

    pub fn is_empty(&self, to: WorkerIndex) -> bool {
        self.queues[usize::from(to)].iter().flatten().all(|queue| queue.is_empty())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_full_mailbox_gives_the_mail_back() {
        let mail = Mailboxes::new(2).unwrap();
        let mut posted = 0u32;
        while mail.post(0, 1, posted).is_ok() {
            posted += 1;
        }
        assert_eq!(posted as usize, PLACES_MAX);
        assert_eq!(mail.post(0, 1, 77), Err(77));
        let mut got = Vec::new();
        assert!(mail.collect(1, 10, |from, n| got.push((from, n))));
        assert_eq!(got, (0..5).map(|n| (0, n)).collect::<Vec<_>>());
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const ROUNDS: u32 = 20_000;
        let mail = Arc::new(Mailboxes::new(3).unwrap());
        let senders: Vec<_> = [1, 2]
            .into_iter()
            .map(|from| {
                let mail = mail.clone();
                std::thread::spawn(move || {
                    for n in 0..ROUNDS {
                        while mail.post(from, 0, n).is_err() {
                            std::thread::yield_now();
                        }
                        mail.bell(0).ring();
                    }
                })
            })
            .collect();
        let bell = mail.bell(0).descriptor().unwrap();
        let mut next = [0; 3];
        while next[1] + next[2] < 2 * ROUNDS {
            mail.collect(0, 64, |from, n| {
                assert_eq!(next[usize::from(from)], n);
                next[usize::from(from)] += 1;
            });
            if mail.bell(0).try_sleep(|| mail.is_empty(0)) {
                if next[1] + next[2] < 2 * ROUNDS {
                    assert!(sys::wait_readable(&bell, Some(Duration::from_secs(20))).unwrap(), "slept on mail");
                }
                mail.bell(0).wake_up();
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }
}
