//! Requests over HTTP that wait for the shard's answer.

use std::task::Waker;

use crate::base::slab::{Key, Slab};
use crate::shard::outlet::{Answer, RequestKey};

enum Waiting {
    Asked(Option<Waker>),
    Answered(Answer),
}

#[derive(Default)]
pub struct Requests(Slab<Waiting>);

impl Requests {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ask(&mut self) -> RequestKey {
        RequestKey(self.0.insert(Waiting::Asked(None)).as_u64())
    }

    /// For a request that nobody waits for any more, nothing happens.
    pub fn answer(&mut self, key: RequestKey, answer: Answer) {
        let Some(waiting) = self.0.get_mut(Key::from_u64(key.0)) else { return };
        if let Waiting::Asked(Some(waker)) = std::mem::replace(waiting, Waiting::Answered(answer)) {
            waker.wake();
        }
    }

    /// The answer, once; before it is there, the waker is kept.
    pub fn poll(&mut self, key: RequestKey, waker: &Waker) -> Option<Answer> {
        let key = Key::from_u64(key.0);
        match self.0.get_mut(key) {
            Some(Waiting::Asked(waiting)) => {
                *waiting = Some(waker.clone());
                None
            }
            Some(Waiting::Answered(_)) => match self.0.remove(key) {
                Some(Waiting::Answered(answer)) => Some(answer),
                _ => unreachable!("just seen"),
            },
            None => unreachable!("polled after its answer was taken"),
        }
    }
}
