//! What a seed decides before anything happens: nodes, workers, channels, bounds, and what may go wrong.
//!
//! Each run forbids a random part of all operations, so that rare orders of the others come up.

use std::time::Duration;

use skein::base::hash::HashKey;
use skein::base::rng::Rng;
use skein::session;
use skein::shard::Options;

pub const MICRO: u64 = 1_000;
pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

macro_rules! deeds {
    ($($name:ident $weight:literal $always:literal;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Deed { $($name,)* }

        impl Deed {
            /// Name, weight, and whether no run goes without it.
            const ALL: &[(Deed, u64, bool)] = &[$((Deed::$name, $weight, $always),)*];
        }
    };
}

deeds! {
    Connect 8 true;
    Subscribe 10 true;
    Publish 30 true;
    PublishMany 7 false;
    PublishOverHttp 12 true;
    Ask 2 false;
    Unsubscribe 5 false;
    Disconnect 4 false;
    Vanish 1 false;
    Stall 2 false;
    Dawdle 2 false;
    Crash 2 false;
    Start 4 true;
    Leave 1 false;
    Pause 1 false;
    Partition 1 false;
    CutOneWay 1 false;
    Heal 3 true;
    KillLane 3 false;
    Weather 1 false;
}

pub struct Plan {
    /// Workers of each node.
    pub workers: Vec<u16>,
    pub hash_bits: u32,
    pub channels: Vec<String>,
    pub clients: usize,
    /// Operations, and the mean time between two.
    pub operations: u32,
    pub pace: u64,
    deeds: Vec<(Deed, u64)>,

    /// Everybody knows everybody's address, or all know the first node's only.
    pub seeds_all: bool,
    pub mailbox_places: usize,
    pub socket_bytes: usize,
    pub lane_window: usize,
    pub latency: (u64, u64),
    pub turn_delay: (u64, u64),
    /// Of a thousand sends that have room: refused or cut short.
    pub short_permille: u64,
    /// Of a thousand datagrams, on a good day.
    pub datagram_loss: u64,
    pub payload_bytes_max: u64,
    pub options: Options,
    pub session: session::Options,
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

impl Plan {
    pub fn draw(rng: &mut Rng) -> Plan {
        let nodes = pick(rng, &[1, 1, 2, 2, 2, 3, 3, 3, 3, 4]);
        let many = rng.chance(1, 8);
        let channels = 1 + rng.below(12);
        let mut deeds: Vec<(Deed, u64)> = Vec::new();
        for &(deed, weight, always) in Deed::ALL {
            if always || rng.chance(1, 2) {
                deeds.push((deed, weight));
            }
        }
        let mailbox_places = pick(rng, &[2, 8, 64, 4096]);
        let options = Options {
            outbox_bytes_max: pick(rng, &[20_000, 100_000, 1024 * 1024]),
            turn_bytes_max: pick(rng, &[8_000, 1024 * 1024]),
            interest_linger: pick(rng, &[Duration::ZERO, Duration::from_millis(30), Duration::from_secs(2)]),
            lane_queue_bytes_max: pick(rng, &[8_000, 8_000, 100_000, 4 * 1024 * 1024]),
            mail_publications_max: pick(rng, &[4, 50, 8192]),
            ..Options::default()
        };
        let session = session::Options {
            ping_interval: pick(rng, &[Duration::ZERO, Duration::from_secs(2), Duration::from_secs(25)]),
            pong_timeout: pick(rng, &[Duration::from_millis(900), Duration::from_secs(8)]),
            ..session::Options::default()
        };
        let slow = pick(rng, &[200 * MICRO, MILLI, 8 * MILLI]);
        Plan {
            workers: (0..nodes).map(|_| 1 + rng.below(4) as u16).collect(),
            hash_bits: pick(rng, &[2, 4, 8, 8, 64]),
            channels: (0..channels)
                .map(|i| if rng.chance(1, 2) { format!("c{i}") } else { format!("told:{i}") })
                .collect(),
            clients: 2 + rng.below(10) as usize,
            operations: 60 + rng.below(if many { 600 } else { 140 }) as u32,
            pace: pick(rng, &[200 * MICRO, 5 * MILLI, 40 * MILLI, 40 * MILLI]),
            deeds,
            seeds_all: rng.chance(2, 3),
            mailbox_places,
            socket_bytes: pick(rng, &[1_000, 8_000, 200_000]),
            lane_window: pick(rng, &[1_000, 3_000, 64_000, 512 * 1024]),
            latency: (20 * MICRO, slow),
            turn_delay: (2 * MICRO, pick(rng, &[10 * MICRO, 200 * MICRO, 3 * MILLI])),
            short_permille: pick(rng, &[0, 0, 30, 300]),
            datagram_loss: pick(rng, &[0, 20, 150]),
            payload_bytes_max: pick(rng, &[40, 400, 3_000, 3_000]),
            options,
            session,
        }
    }

    /// A world in which nothing goes wrong by itself, for scenarios.
    pub fn quiet(workers: &[u16]) -> Plan {
        Plan {
            workers: workers.to_vec(),
            hash_bits: 64,
            channels: vec!["c0".to_owned(), "told:1".to_owned()],
            clients: 0,
            operations: 0,
            pace: MILLI,
            deeds: Vec::new(),
            seeds_all: true,
            mailbox_places: 4096,
            socket_bytes: 200_000,
            lane_window: 512 * 1024,
            latency: (50 * MICRO, 200 * MICRO),
            turn_delay: (2 * MICRO, 10 * MICRO),
            short_permille: 0,
            datagram_loss: 0,
            payload_bytes_max: 100,
            options: Options::default(),
            session: session::Options::default(),
        }
    }

    /// The next deed.
    pub fn deed(&self, rng: &mut Rng) -> Deed {
        let total = self.deeds.iter().map(|&(_, weight)| weight).sum();
        let mut at = rng.below(total);
        for &(deed, weight) in &self.deeds {
            if at < weight {
                return deed;
            }
            at -= weight;
        }
        unreachable!("below the sum of all weights")
    }

    pub fn key(&self) -> HashKey {
        HashKey::truncated([9; 16], self.hash_bits)
    }

    pub fn told(channel: &str) -> bool {
        channel.starts_with("told:")
    }
}

pub fn between(rng: &mut Rng, (low, high): (u64, u64)) -> u64 {
    low + rng.below(high.saturating_sub(low) + 1)
}
