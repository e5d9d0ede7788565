//! When which lane wants to be woken: one entry for each lane, ordered by time.
//!
//! Entries are lazy: a lane whose deadline moved back (each packet does that to its idle timer) keeps the earlier
//! entry until that surfaces. So an idle lane costs nothing and a busy one rarely touches the tree.
//!
//! Always true: `entry` of a lane is in the tree, and not later than the lane's true deadline.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::base::slab::Key;

#[derive(Default)]
pub struct Deadlines {
    tree: BTreeSet<(Instant, Key)>,
}

/// A lane's part of it.
#[derive(Default)]
pub struct Deadline {
    due: Option<Instant>,
    entry: Option<Instant>,
}

impl Deadlines {
    pub fn set(&mut self, key: Key, deadline: &mut Deadline, due: Option<Instant>) {
        deadline.due = due;
        let Some(due) = due else { return };
        if deadline.entry.is_none_or(|entry| due < entry) {
            self.forget(key, deadline);
            self.tree.insert((due, key));
            deadline.entry = Some(due);
        }
    }

    pub fn forget(&mut self, key: Key, deadline: &mut Deadline) {
        if let Some(entry) = deadline.entry.take() {
            self.tree.remove(&(entry, key));
        }
    }

    /// The earliest entry; its lane may turn out not to be due (see `settle`).
    pub fn first(&self) -> Option<(Instant, Key)> {
        self.tree.first().copied()
    }

    /// Moves the lane's entry to its true deadline. False when it was there already.
    pub fn settle(&mut self, key: Key, deadline: &mut Deadline) -> bool {
        if deadline.entry == deadline.due {
            return false;
        }
        self.forget(key, deadline);
        let due = deadline.due;
        self.set(key, deadline, due);
        true
    }
}
