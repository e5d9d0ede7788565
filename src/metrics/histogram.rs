//! A histogram of microseconds in powers of two. One observation is a shift and two additions.
//!
//! Always true: the count is the sum of the buckets, so the two cannot disagree.

/// Upper bounds 1, 2, 4 … 2^24 µs (16.8 s), and one bucket for what is longer.
pub const BOUNDED_BUCKETS: usize = 25;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    buckets: [u64; BOUNDED_BUCKETS + 1],
    sum_micros: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [0; BOUNDED_BUCKETS + 1], sum_micros: 0 }
    }
}

impl Histogram {
    pub fn observe(&mut self, micros: u64) {
        self.observe_many(micros, 1);
    }

    /// The same value `times` times: a batch whose members share a delay.
    pub fn observe_many(&mut self, micros: u64, times: u64) {
        self.buckets[bucket_of(micros)] += times;
        // A sum that wraps is a reset to whoever scrapes it, and takes 584,000 years of delay.
        self.sum_micros = self.sum_micros.wrapping_add(micros.wrapping_mul(times));
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum_micros = self.sum_micros.wrapping_add(other.sum_micros);
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    /// Upper bound in µs (`None`: no bound) and how many observations were at or below it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let mut below = 0;
        self.buckets.iter().enumerate().map(move |(i, n)| {
            below += n;
            ((i < BOUNDED_BUCKETS).then(|| 1 << i), below)
        })
    }

    /// The upper bound of the bucket that holds the given share (0 to 1) of observations; `None` when there are none
    /// or they lie beyond the last bound.
    pub fn quantile_micros(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let wanted = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        self.cumulative().find(|(_, below)| *below >= wanted).and_then(|(bound, _)| bound)
    }
}

fn bucket_of(micros: u64) -> usize {
    // The number of bits of `micros - 1` is the exponent of the smallest power of two that is not below `micros`.
    let exponent = u64::BITS - micros.saturating_sub(1).leading_zeros();
    (exponent as usize).min(BOUNDED_BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for exponent in 1..24 {
            let bound = 1u64 << exponent;
            assert_eq!(bucket_of(bound), exponent);
            assert_eq!(bucket_of(bound + 1), exponent + 1);
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(1), 0);
        assert_eq!(bucket_of((1 << 24) + 1), BOUNDED_BUCKETS);
        assert_eq!(bucket_of(u64::MAX), BOUNDED_BUCKETS);
    }

    #[test]
    fn quantiles_come_from_the_bucket_that_reaches_them() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_micros(0.5), None);
        histogram.observe_many(3, 99);
        histogram.observe(1000);
        assert_eq!(histogram.quantile_micros(0.5), Some(4));
        assert_eq!(histogram.quantile_micros(0.99), Some(4));
        assert_eq!(histogram.quantile_micros(1.0), Some(1024));
    }

    proptest! {
        #[test]
        fn every_observation_is_at_or_below_its_bound_and_above_half_of_it(micros in 2u64..=1 << 24) {
            let bound = 1u64 << bucket_of(micros);
            prop_assert!(micros <= bound);
            prop_assert!(micros > bound / 2);
        }

        #[test]
        fn merging_is_observing_everything_in_one(a in prop::collection::vec(0u64..1 << 30, 0..50),
                                                  b in prop::collection::vec(0u64..1 << 30, 0..50)) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|&v| histogram.observe(v));
                histogram
            };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged.count(), (a.len() + b.len()) as u64);
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}
