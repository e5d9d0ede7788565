//! What happened, as one number: two runs of one seed must agree on it. Printed line by line where somebody asks.

use std::collections::VecDeque;

/// Lines kept for a failure.
const KEPT: usize = 60;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// The number only.
    Hash,
    /// The last lines, for a failure.
    Tail,
    /// Every line, on stderr.
    Print,
}

pub struct Trace {
    hash: u64,
    events: u64,
    detail: Detail,
    tail: VecDeque<String>,
}

impl Trace {
    pub fn new(detail: Detail) -> Self {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, detail, tail: VecDeque::new() }
    }

    pub fn note(&mut self, now: u64, what: &'static str, numbers: &[u64], words: impl FnOnce() -> String) {
        self.events += 1;
        self.fold(now);
        self.fold(digest(what.as_bytes()));
        for &number in numbers {
            self.fold(number);
        }
        if self.detail != Detail::Hash {
            let at = now / 1000;
            let line = format!("{:>4}.{:06} {what} {numbers:?} {}", at / 1_000_000, at % 1_000_000, words());
            if self.detail == Detail::Print {
                eprintln!("{line}");
            } else {
                if self.tail.len() == KEPT {
                    self.tail.pop_front();
                }
                self.tail.push_back(line);
            }
        }
    }

    fn fold(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}

/// Bytes as a number.
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64 ^ 0x51_7c_c1_b7_27_22_0a_95;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(9);
    }
    hash
}
