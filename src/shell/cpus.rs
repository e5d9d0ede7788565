//! Which worker runs on which processor, within what the process was allowed when it started.

use std::io;

use super::sys;

/// The processors of this process, in order.
pub struct Cpus(Vec<usize>);

impl Cpus {
    pub fn allowed() -> io::Result<Self> {
        let cpus = sys::allowed_cpus()?;
        if cpus.is_empty() {
            return Err(io::Error::other("the affinity mask of this process is empty"));
        }
        Ok(Cpus(cpus))
    }

    /// How many workers to start when nobody says.
    pub fn workers(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX).min(crate::limits::WORKERS_MAX)
    }

    /// Where a worker runs. More workers than processors share them in turn.
    pub fn of(&self, worker: u16) -> usize {
        self.0[usize::from(worker) % self.0.len()]
    }

    pub fn are_enough_for(&self, workers: u16) -> bool {
        usize::from(workers) <= self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_workers_than_processors_share_them_in_turn() {
        let cpus = Cpus(vec![2, 5]);
        assert_eq!([0, 1, 2, 3].map(|worker| cpus.of(worker)), [2, 5, 2, 5]);
        assert!(cpus.are_enough_for(2));
        assert!(!cpus.are_enough_for(3));
        assert_eq!(cpus.workers(), 2);
    }
}
