//! How many clients of each user (and of each address) this node has, kept on the key's home worker.
//!
//! A client is counted when its connect command is in order and until it is gone. Keys are keyed hashes, so nobody can
//! choose colliding ones.
//!
//! Always true: a key is listed exactly while its count is above zero.

use hashbrown::HashMap;

use crate::base::hash::BuildIdentity;

#[derive(Default)]
pub struct Admissions {
    counts: HashMap<u64, u32, BuildIdentity>,
    /// Keys of users among them, for the node's number of users.
    users: usize,
}

/// The lowest bit tells users from addresses.
pub const fn user_key(hash: u64) -> u64 {
    hash | 1
}

pub const fn address_key(hash: u64) -> u64 {
    hash & !1
}

const fn is_user(key: u64) -> bool {
    key & 1 == 1
}

/// The worker that counts a key. Not the lowest bit, which is spoken for.
pub const fn home(key: u64, workers: u16) -> u16 {
    ((key >> 1) % workers as u64) as u16
}

impl Admissions {
    /// `limit` 0: no limit.
    pub fn admit(&mut self, key: u64, limit: u32) -> bool {
        let count = self.counts.entry(key).or_insert(0);
        if limit > 0 && *count >= limit {
            return false;
        }
        *count += 1;
        if *count == 1 && is_user(key) {
            self.users += 1;
        }
        true
    }

    pub fn release(&mut self, key: u64) {
        let count = self.counts.get_mut(&key).expect("only what was admitted is released");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&key);
            if is_user(key) {
                self.users -= 1;
            }
        }
    }

    pub fn users(&self) -> usize {
        self.users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_refuses_until_somebody_leaves() {
        let mut admissions = Admissions::default();
        let key = user_key(10);
        assert!(admissions.admit(key, 2));
        assert!(admissions.admit(key, 2));
        assert!(!admissions.admit(key, 2));
        admissions.release(key);
        assert!(admissions.admit(key, 2));
        assert_eq!(admissions.users(), 1);
        admissions.release(key);
        admissions.release(key);
        assert_eq!(admissions.users(), 0);
    }
}
