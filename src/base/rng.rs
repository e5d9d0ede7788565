//! Seeded randomness. A machine gets one of these; only the shell seeds it from the system.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

pub struct Rng(SmallRng);

impl Rng {
    pub fn seeded(seed: u64) -> Self {
        Rng(SmallRng::seed_from_u64(seed))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..bound`; zero for a bound of zero. The bias of a multiply-shift is below 2^-32 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// A generator whose stream does not follow from this one's later output.
    pub fn fork(&mut self) -> Rng {
        Rng::seeded(self.next_u64())
    }
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        self.0.fill_bytes(dst);
    }
}
