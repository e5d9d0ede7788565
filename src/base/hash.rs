//! The one keyed hash of the cluster: channel names to 64 bits.
//!
//! The same key on every node decides homes, lanes and interest. It is made with the cluster's CA and is secret,
//! so that no client can choose names that collide.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey {
    bytes: [u8; 16],
    /// Bits that channel hashes have.
    mask: u64,
}

impl HashKey {
    pub const fn new(bytes: [u8; 16]) -> Self {
        HashKey { bytes, mask: u64::MAX }
    }

    /// Channel hashes of so few bits that they collide, which whole ones never do where anybody could see it.
    pub const fn truncated(bytes: [u8; 16], bits: u32) -> Self {
        assert!(bits > 0 && bits <= u64::BITS);
        HashKey { bytes, mask: u64::MAX >> (u64::BITS - bits) }
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }

    pub fn channel(&self, name: &str) -> ChannelHash {
        ChannelHash(self.of(name.as_bytes()) & self.mask)
    }

    /// For other things that need a home in the node: a user, an address.
    pub fn of(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.bytes);
        hasher.write(bytes);
        hasher.finish()
    }

    /// What two nodes compare to see that they share the key, without showing it.
    pub fn fingerprint(&self) -> u64 {
        self.of(b"skein hash key fingerprint")
    }
}

/// Never shown: who knows the key can choose colliding names.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChannelHash(pub u64);

impl ChannelHash {
    /// The worker, among `workers`, that the channel calls home on its node.
    pub const fn home(self, workers: u16) -> u16 {
        (self.0 % workers as u64) as u16
    }
}

/// For maps whose keys are already keyed hashes.
#[derive(Clone, Copy, Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        // hashbrown takes its bucket from the low bits and its tag from the high ones. Both homes and lanes are
        // remainders of the same number, so all keys of one map may share low bits: mix once.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only for u64 keys");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

pub type BuildIdentity = std::hash::BuildHasherDefault<Identity>;
