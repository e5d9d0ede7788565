//! A turn of one shard without its sockets: publishes come in as WebSocket bytes, and the world takes every send for
//! granted. What is left is what user space adds to the kernel's sends, per delivery.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skein::auth::{self, Verifier};
use skein::base::hash::HashKey;
use skein::base::id::{NodeId, WorkerIndex};
use skein::base::rng::Rng;
use skein::base::time::Now;
use skein::protocol::Encoding;
use skein::rules::{self, Rules};
use skein::session::{self, Environment};
use skein::shard::mail::Mail;
use skein::shard::outlet::{Answer, ConnectionKey, Finish, LaneKey, LaneStream, Outgoing, Outlet, RequestKey, Unsent};
use skein::shard::{Opened, Options, Setup, Shard};

/// Looks at each slice as a send does, and keeps nothing.
struct Nowhere;

impl Outlet for Nowhere {
    fn send<'a, I, S>(&mut self, batch: I, _: &mut Vec<Unsent>)
    where
        I: Iterator<Item = Outgoing<'a, S>>,
        S: Iterator<Item = &'a [u8]>,
    {
        for outgoing in batch {
            for slice in outgoing.slices {
                black_box((outgoing.socket, slice.as_ptr(), slice.len()));
            }
        }
    }

    fn finish(&mut self, _: ConnectionKey, _: i32, _: Finish) {}
    fn mail(&mut self, _: WorkerIndex, _: Mail) -> Result<(), Mail> {
        Ok(())
    }
    fn lane_write(&mut self, _: LaneKey, _: LaneStream, bytes: &[u8]) -> usize {
        bytes.len()
    }
    fn lane_datagram(&mut self, _: LaneKey, _: &[u8]) {}
    fn lane_dial(&mut self, _: SocketAddr, _: u64) {}
    fn lane_close(&mut self, _: LaneKey, _: u32, _: &str) {}
    fn lanes_written(&mut self) {}
    fn answer(&mut self, _: RequestKey, _: Answer) {}
}

fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    frame.extend(mask);
    frame.extend(text.bytes().enumerate().map(|(place, byte)| byte ^ mask[place & 3]));
    frame
}

fn shard() -> Shard {
    Shard::new(Setup {
        worker: 0,
        workers: 1,
        node: NodeId::parse("bench").expect("a good name"),
        hash_key: HashKey::new([7; 16]),
        environment: Environment {
            options: session::Options::default(),
            rules: Rules::new(rules::Options::open()),
            verifier: Verifier::new(&auth::Options::default()),
        },
        options: Options::default(),
        mesh: None,
        echo: false,
        rng: Rng::seeded(1),
        now: Now::default(),
    })
}

fn join(shard: &mut Shard, socket: i32, channel: &str) -> ConnectionKey {
    let now = Now::default();
    let address = IpAddr::from([127, 0, 0, 1]);
    let opened = Opened { socket, address, encoding: Encoding::Json, frame_pings: false, response: b"" };
    let key = shard.on_open(now, opened);
    let hello = format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}");
    shard.on_bytes(now, key, &mut masked(&hello));
    shard.flush(now, &mut Nowhere);
    key
}

/// One publisher, many subscribers of one channel, so many publications in a turn.
fn one_channel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one channel, 1000 subscribers, publications per turn");
    for burst in [1, 8, 64] {
        let mut shard = shard();
        for socket in 0..1000 {
            join(&mut shard, socket, "room");
        }
        let publisher = join(&mut shard, 1000, "elsewhere");
        let payload = "x".repeat(128);
        let publish =
            masked(&format!("{{\"id\":3,\"publish\":{{\"channel\":\"room\",\"data\":{{\"p\":\"{payload}\"}}}}}}"));
        let turn: Vec<u8> = publish.repeat(burst);
        group.throughput(Throughput::Elements(1000 * burst as u64));
        group.bench_function(BenchmarkId::from_parameter(burst), |bencher| {
            bencher.iter(|| {
                let mut bytes = turn.clone();
                shard.on_bytes(Now::default(), publisher, &mut bytes);
                shard.flush(Now::default(), &mut Nowhere);
            });
        });
    }
    group.finish();
}

/// Many rooms of five, each member publishes: what a game server's turn looks like.
fn rooms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("200 rooms of 5, one publication each in a turn");
    let mut shard = shard();
    let mut first = Vec::new();
    for room in 0..200 {
        for seat in 0..5 {
            let key = join(&mut shard, room * 5 + seat, &format!("room-{room}"));
            if seat == 0 {
                first.push((key, room));
            }
        }
    }
    let payload = "x".repeat(128);
    let turns: Vec<(ConnectionKey, Vec<u8>)> = first
        .iter()
        .map(|&(key, room)| {
            let text =
                format!("{{\"id\":3,\"publish\":{{\"channel\":\"room-{room}\",\"data\":{{\"p\":\"{payload}\"}}}}}}");
            (key, masked(&text))
        })
        .collect();
    group.throughput(Throughput::Elements(1000));
    group.bench_function("turn", |bencher| {
        bencher.iter(|| {
            for (key, bytes) in &turns {
                shard.on_bytes(Now::default(), *key, &mut bytes.clone());
            }
            shard.flush(Now::default(), &mut Nowhere);
        });
    });
    group.finish();
}

criterion_group!(benches, one_channel, rooms);
criterion_main!(benches);
