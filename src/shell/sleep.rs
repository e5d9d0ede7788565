//! The protocol by which one sleeper and many posters agree on who has to ring.
//!
//! It knows neither what is posted nor how a bell rings. Loom tries all its interleavings (`tests`): a wake-up that is lost
//! is a deadlock there.
//!
//! Always true: what was posted before `must_ring` is either seen by the sleeper's last look, or somebody rings.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

pub struct Sleep {
    asleep: AtomicBool,
}

impl Default for Sleep {
    fn default() -> Self {
        Sleep { asleep: AtomicBool::new(false) }
    }
}

impl Sleep {
    /// The sleeper's side: whether it may sleep now. `is_empty` looks at everything that may wake it.
    pub fn try_sleep(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        // Either the poster's load sees this store, or the look below sees what was posted: the fences of both sides
        // stand in one order, and whichever comes second sees what the other did before its own.
        fence(Ordering::SeqCst);
        if is_empty() {
            return true;
        }
        self.asleep.store(false, Ordering::Relaxed);
        false
    }

    /// The sleeper's side, after its bell has rung.
    pub fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The poster's side, after it has posted: whether it has to ring. Then it must, whatever else happens.
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        if !self.asleep.load(Ordering::Relaxed) {
            return false;
        }
        // Spares other posters the ring. Two may ring at once, or one for a sleep that has ended meanwhile: that wakes
        // the sleeper for nothing, and nothing else. An exchange would be dearer and prevent only the first.
        self.asleep.store(false, Ordering::Relaxed);
        true
    }
}

/// Run by `tools/loom`, which holds nothing but this file.
#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    /// A queue with no more ordering than a queue has to have: what crossbeam adds must not hide a missing fence.
    struct Places([AtomicUsize; 2]);

    impl Places {
        fn new() -> Self {
            Places([AtomicUsize::new(0), AtomicUsize::new(0)])
        }

        fn is_empty(&self) -> bool {
            self.0.iter().all(|place| place.load(Ordering::Acquire) == 0)
        }

        /// No read-modify-write: loom would order it more freely than the language does.
        fn take(&self) -> usize {
            let full = self.0.iter().filter(|place| place.load(Ordering::Acquire) == 1);
            full.map(|place| place.store(0, Ordering::Relaxed)).count()
        }
    }

    /// Posters and one sleeper who waits for a ring that, if it never comes, is a deadlock.
    fn check(posters: usize, preemptions_max: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(preemptions_max);
        model.check(move || {
            let sleep = Arc::new(Sleep::default());
            let places = Arc::new(Places::new());
            let rung = Arc::new(loom::sync::Notify::new());
            let threads: Vec<_> = (0..posters)
                .map(|poster| {
                    let (sleep, places, rung) = (sleep.clone(), places.clone(), rung.clone());
                    thread::spawn(move || {
                        places.0[poster].store(1, Ordering::Release);
                        if sleep.must_ring() {
                            rung.notify();
                        }
                    })
                })
                .collect();
            let mut taken = 0;
            loop {
                taken += places.take();
                if taken == posters {
                    break;
                }
                if sleep.try_sleep(|| places.is_empty()) {
                    rung.wait();
                    sleep.wake_up();
                }
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn mail_is_seen_or_rings_the_bell() {
        check(1, 10);
    }

    #[test]
    fn two_posters_do_not_leave_the_ring_to_each_other() {
        check(2, 2);
    }
}
