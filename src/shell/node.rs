//! What the workers of one node share: mail, notices, the count of connections, and how each of them is.
//!
//! Nothing here is on the path of a publication but the mailboxes.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::queue::SegQueue;

use super::mailbox::Mailboxes;
use crate::base::id::WorkerIndex;
use crate::shard::mail::Mail;

/// What a worker is told by a thread that is none: rare, and never about a publication.
#[derive(Debug)]
pub enum Notice {
    Shutdown,
    /// What the seeds' names stand for just now.
    Seeds(Vec<SocketAddr>),
}

pub struct Node {
    pub mail: Mailboxes<Mail>,
    notices: Vec<SegQueue<Notice>>,
    connections: AtomicUsize,
    connections_max: usize,
    ready: AtomicBool,
    /// Why this node must not go on.
    fatal: OnceLock<String>,
    /// Workers that have nothing left to send after a shutdown.
    drained: AtomicUsize,
    /// Grows as long as the worker turns.
    beats: Vec<AtomicU64>,
}

impl Node {
    pub fn new(workers: u16, connections_max: usize) -> io::Result<Self> {
        Ok(Node {
            mail: Mailboxes::new(workers)?,
            notices: (0..workers).map(|_| SegQueue::new()).collect(),
            connections: AtomicUsize::new(0),
            connections_max,
            ready: AtomicBool::new(false),
            fatal: OnceLock::new(),
            drained: AtomicUsize::new(0),
            beats: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    pub fn workers(&self) -> u16 {
        self.mail.workers()
    }

    // ---- notices

    pub fn notify(&self, worker: WorkerIndex, notice: Notice) {
        self.notices[usize::from(worker)].push(notice);
        self.mail.bell(worker).ring();
    }

    pub fn notify_all(&self, mut notice: impl FnMut() -> Notice) {
        (0..self.workers()).for_each(|worker| self.notify(worker, notice()));
    }

    pub fn next_notice(&self, worker: WorkerIndex) -> Option<Notice> {
        self.notices[usize::from(worker)].pop()
    }

    /// Whether nothing waits for a worker, so that it may sleep.
    pub fn has_nothing_for(&self, worker: WorkerIndex) -> bool {
        self.mail.is_empty(worker) && self.notices[usize::from(worker)].is_empty()
    }

    // ---- connections

    /// A place for one more socket, or none when the node has as many as it may.
    pub fn admit(self: &Arc<Self>) -> Option<Seat> {
        // Relaxed: a bound, not a lock. Two workers that come at once may both be refused the last place.
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat(self.clone()))
    }

    // ---- states

    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// The node must not go on. The first reason counts.
    pub fn fail(&self, why: &str) {
        self.fatal.get_or_init(|| why.to_owned());
    }

    pub fn failure(&self) -> Option<&str> {
        self.fatal.get().map(String::as_str)
    }

    pub fn add_drained(&self) {
        self.drained.fetch_add(1, Ordering::Relaxed);
    }

    pub fn are_all_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed) == usize::from(self.workers())
    }

    pub fn beat(&self, worker: WorkerIndex) {
        self.beats[usize::from(worker)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn beats(&self) -> Vec<u64> {
        self.beats.iter().map(|beat| beat.load(Ordering::Relaxed)).collect()
    }
}

/// One socket's place in the node's bound of connections.
pub struct Seat(Arc<Node>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_no_more_connections_than_it_may() {
        let node = Arc::new(Node::new(1, 2).unwrap());
        let first = node.admit().unwrap();
        let _second = node.admit().unwrap();
        assert!(node.admit().is_none());
        drop(first);
        assert!(node.admit().is_some());
    }
}
