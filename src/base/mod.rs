//! Ground floor: time as a value, seeded randomness, ids, a slab with generations. Knows nothing of the domain.

pub mod hash;
pub mod id;
pub mod rng;
pub mod slab;
pub mod time;
