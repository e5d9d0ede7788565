//! When a socket's patience ends: an HTTP head that does not come, an idle keep-alive, a peer that does not hang up.
//!
//! One heap per worker and at most one entry per wait, instead of a timer per socket. The socket holds its deadline; an
//! entry only says when to look.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};

use super::socket::Socket;
use crate::base::time::Instant;

struct Entry {
    at: Instant,
    socket: Weak<Socket>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[derive(Default)]
pub struct Deadlines(BinaryHeap<Reverse<Entry>>);

impl Deadlines {
    pub fn set(&mut self, socket: &Rc<Socket>, at: Instant) {
        socket.deadline.set(Some(at));
        // An entry for an earlier time is there already and looks again: a busy keep-alive adds none.
        if socket.looked_at.get().is_none_or(|look| look > at) {
            self.push(socket, at);
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse(entry)| entry.at)
    }

    /// A socket whose deadline has passed. It has none any more.
    pub fn pop(&mut self, now: Instant) -> Option<Rc<Socket>> {
        while self.next().is_some_and(|at| at <= now) {
            let Some(Reverse(entry)) = self.0.pop() else { break };
            let Some(socket) = entry.socket.upgrade() else { continue };
            if socket.looked_at.get() == Some(entry.at) {
                socket.looked_at.set(None);
            }
            match socket.deadline.get() {
                None => {}
                Some(at) if at <= now => {
                    socket.deadline.set(None);
                    return Some(socket);
                }
                Some(at) if socket.looked_at.get().is_none_or(|look| look > at) => self.push(&socket, at),
                Some(_) => {}
            }
        }
        None
    }

    fn push(&mut self, socket: &Rc<Socket>, at: Instant) {
        socket.looked_at.set(Some(at));
        self.0.push(Reverse(Entry { at, socket: Rc::downgrade(socket) }));
    }
}
