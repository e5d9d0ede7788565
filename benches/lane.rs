//! CPU of one publication that crosses from one node to another: both ends of a bare lane, against the three ends of
//! Redis Pub/Sub (publisher, broker, subscriber), plaintext. No frames are parsed on either side: this is the price of
//! the transport.
//!
//! Both carry the same payloads in the same batches, in turns, over loopback, as fast as they go with a bounded number
//! of batches on their way: a load that comes at a pace would measure how dear sleeping is on this machine. The CPU is
//! what the kernel's scheduler says that the threads ran.
//! `cargo bench --bench lane -- [rounds] [batches on their way] [mtu]`.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant as StdInstant};

use skein::app::cert::Authority;
use skein::base::id::NodeId;
use skein::base::time::Instant;
use skein::shell::quic::{Event, Identity, LaneKey, LaneStats, LaneStream, More, Options, Quic};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAYLOAD: usize = 256;
const BATCH: usize = 32;
const BATCHES: u64 = 12_000;
const EVENTS: u64 = BATCHES * BATCH as u64;
/// What a node puts before each publication on a lane, channel name included.
const ENVELOPE: usize = 40;
const CHANNEL: &str = "room:12345";

/// Nanoseconds of CPU by end.
#[derive(Clone, Copy)]
struct Cost {
    publisher: u64,
    broker: u64,
    subscriber: u64,
}

impl Cost {
    fn total(self) -> u64 {
        self.publisher + self.broker + self.subscriber
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let rounds = numbers.next().unwrap_or(9) as usize;
    let in_flight_max = numbers.next().unwrap_or(8);
    let mtus = match numbers.next() {
        Some(mtu) => vec![u16::try_from(mtu).expect("an MTU")],
        None => vec![Options::default().mtu_max, 1452],
    };
    let redis = Redis::start();
    println!(
        "{rounds} rounds of {BATCHES} batches of {BATCH} publications of {PAYLOAD} B, {in_flight_max} batches on their way"
    );

    let mut lanes: Vec<Vec<Cost>> = vec![Vec::new(); mtus.len()];
    let mut brokers = Vec::new();
    let mut stats = vec![LaneStats::default(); mtus.len()];
    for _ in 0..rounds {
        for (i, &mtu_max) in mtus.iter().enumerate() {
            let (cost, of_lane) = lane(in_flight_max, Options { mtu_max, ..Options::default() });
            lanes[i].push(cost);
            stats[i] = of_lane;
        }
        if let Some(redis) = &redis {
            brokers.push(redis.round(in_flight_max));
        }
    }
    let baseline = (!brokers.is_empty()).then(|| report("Redis Pub/Sub", &brokers));
    for ((costs, stats), mtu) in lanes.iter().zip(stats).zip(mtus) {
        let median = report(&format!("lane, MTU to {mtu}"), costs);
        println!("    {stats:?}");
        match baseline {
            Some(baseline) => println!("    ratio to Redis {:.2} (goal 0.50)", median / baseline),
            None => println!("    redis-server not found: no ratio"),
        }
    }
}

fn report(name: &str, costs: &[Cost]) -> f64 {
    let per_event = |of: fn(&Cost) -> u64| {
        let mut all: Vec<f64> = costs.iter().map(|cost| of(cost) as f64 / EVENTS as f64).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let middle = |all: Vec<f64>| all[all.len() / 2];
    let total = per_event(|cost| cost.total());
    let (low, high) = (total[0], total[total.len() - 1]);
    let median = middle(total);
    println!(
        "{name}: median {median:.0} ns (spread {low:.0} to {high:.0}); publisher {:.0}, broker {:.0}, subscriber {:.0}",
        middle(per_event(|cost| cost.publisher)),
        middle(per_event(|cost| cost.broker)),
        middle(per_event(|cost| cost.subscriber)),
    );
    median
}

/// Waits until one of the descriptors is readable or the time has come; says of each whether it is.
fn wait<const N: usize>(fds: [RawFd; N], timeout: Duration) -> [bool; N] {
    let mut polls = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let timeout =
        libc::timespec { tv_sec: timeout.as_secs().min(1) as libc::time_t, tv_nsec: timeout.subsec_nanos().into() };
    // SAFETY: the structures outlive the call, and there are as many entries as is said.
    unsafe { libc::ppoll(polls.as_mut_ptr(), N as libc::nfds_t, &timeout, std::ptr::null()) };
    polls.map(|poll| poll.revents != 0)
}

/// What the calling thread ran so far.
fn thread_cpu() -> u64 {
    schedstat("/proc/thread-self/schedstat")
}

fn schedstat(path: &str) -> u64 {
    let text = fs::read_to_string(path).expect("/proc with scheduler statistics");
    text.split_whitespace().next().and_then(|ran| ran.parse().ok()).expect("nanoseconds")
}

/// A publisher's side: reads what came when something came, writes what it can of the bytes, and says how much.
trait Publisher {
    fn turn(&mut self, readable: bool, bytes: &[u8]) -> usize;
    fn fd(&self) -> RawFd;
    /// How long it may be left alone.
    fn patience(&self) -> Duration;
}

/// How far the subscriber is, in bytes, and how far it must be for the publisher to be woken.
struct Progress {
    received: AtomicU64,
    wake_at: AtomicU64,
    bell: UnixStream,
}

impl Progress {
    fn new() -> (Arc<Self>, UnixStream) {
        let (bell, ear) = UnixStream::pair().expect("two sockets");
        (Arc::new(Progress { received: AtomicU64::new(0), wake_at: AtomicU64::new(u64::MAX), bell }), ear)
    }

    fn tell(&self, received: u64) {
        self.received.store(received, Ordering::SeqCst);
        if received >= self.wake_at.load(Ordering::SeqCst) && self.wake_at.swap(u64::MAX, Ordering::SeqCst) != u64::MAX
        {
            (&self.bell).write_all(&[1]).expect("the publisher listens");
        }
    }
}

/// Sends all batches, each of which is `unit` bytes to the subscriber. When too many are on their way it sleeps until
/// half of them have come.
fn publish(
    in_flight_max: u64,
    batch: &[u8],
    unit: u64,
    (progress, mut ear): (&Progress, UnixStream),
    publisher: &mut impl Publisher,
) -> u64 {
    let before = thread_cpu();
    let mut wait_for = |publisher: &mut dyn Publisher, bytes: u64| {
        progress.wake_at.store(bytes, Ordering::SeqCst);
        while progress.received.load(Ordering::SeqCst) < bytes {
            let [readable, rung] = wait([publisher.fd(), ear.as_raw_fd()], publisher.patience());
            if rung {
                let _ = ear.read(&mut [0; 8]).expect("the subscriber lives");
            } else {
                publisher.turn(readable, &[]);
            }
        }
        progress.wake_at.store(u64::MAX, Ordering::SeqCst);
    };
    for number in 0..BATCHES {
        if number * unit >= progress.received.load(Ordering::SeqCst) + in_flight_max * unit {
            wait_for(publisher, (number - in_flight_max / 2) * unit);
        }
        let [readable] = wait([publisher.fd()], Duration::ZERO);
        let mut left = &batch[publisher.turn(readable, batch)..];
        while !left.is_empty() {
            let [readable] = wait([publisher.fd()], Duration::from_micros(200));
            left = &left[publisher.turn(readable, left)..];
        }
    }
    wait_for(publisher, BATCHES * unit);
    thread_cpu() - before
}

/// With a name, so that a profile can tell the ends apart.
fn spawn(name: &str, run: impl FnOnce() -> u64 + Send + 'static) -> thread::JoinHandle<u64> {
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread")
}

struct End {
    quic: Quic,
    anchor: StdInstant,
    lane: Option<LaneKey>,
    received: u64,
}

impl End {
    fn new(identity: &Identity, options: Options) -> Self {
        let quic = Quic::bind((Ipv4Addr::LOCALHOST, 0).into(), identity, options, Instant::START).expect("a socket");
        End { quic, anchor: StdInstant::now(), lane: None, received: 0 }
    }

    fn now(&self) -> Instant {
        Instant::START + self.anchor.elapsed()
    }

    fn wait_and_turn(&mut self) {
        let [readable] = wait([self.fd()], self.patience());
        self.turn(readable, &[]);
    }
}

impl Publisher for End {
    fn turn(&mut self, readable: bool, bytes: &[u8]) -> usize {
        let now = self.now();
        while readable && self.quic.on_readable(now, 1_000) == More::Maybe {}
        if self.quic.poll_timeout().is_some_and(|due| due <= now) {
            self.quic.on_timeout(now);
        }
        while let Some(event) = self.quic.poll_event() {
            match event {
                Event::Up { lane, .. } => self.lane = Some(lane),
                Event::Bytes { bytes, .. } => self.received += bytes.len() as u64,
                Event::Down { why, .. } => panic!("the lane went down: {why:?}"),
                _ => {}
            }
        }
        let taken = self.lane.map_or(0, |lane| self.quic.write(lane, LaneStream::Publications, bytes));
        self.quic.flush(now);
        taken
    }

    fn fd(&self) -> RawFd {
        self.quic.socket_fd()
    }

    fn patience(&self) -> Duration {
        self.quic.poll_timeout().map_or(Duration::from_millis(50), |due| due.since(self.now()))
    }
}

fn lane(in_flight_max: u64, options: Options) -> (Cost, LaneStats) {
    let authority = Authority::generate().expect("a CA");
    let identity = |name| {
        let bundle = authority.node(&NodeId::parse(name).expect("a name")).expect("a bundle");
        Identity::parse(&bundle).expect("an identity")
    };
    let (mut a, mut b) = (End::new(&identity("a"), options.clone()), End::new(&identity("b"), options));
    let target = b.quic.local_addr();
    let unit = (BATCH * (PAYLOAD + ENVELOPE)) as u64;
    let (progress, ear) = Progress::new();
    let (ready, is_ready) = mpsc::channel();
    let subscriber = {
        let progress = progress.clone();
        spawn("lane subscriber", move || {
            while b.lane.is_none() {
                b.wait_and_turn();
            }
            // Path discovery and the first acknowledgements are not the price of a publication.
            let settled = StdInstant::now() + Duration::from_millis(100);
            while StdInstant::now() < settled {
                b.wait_and_turn();
            }
            ready.send(()).expect("the other end listens");
            let before = thread_cpu();
            while b.received < BATCHES * unit {
                b.wait_and_turn();
                progress.tell(b.received);
            }
            thread_cpu() - before
        })
    };
    a.quic.dial(a.now(), target, 1);
    a.turn(false, &[]);
    while a.lane.is_none() || is_ready.try_recv().is_err() {
        a.wait_and_turn();
    }
    let key = a.lane.expect("up");
    let batch = vec![7; BATCH * (PAYLOAD + ENVELOPE)];
    let publisher = publish(in_flight_max, &batch, unit, (&progress, ear), &mut a);
    let stats = a.quic.stats(key);
    (Cost { publisher, broker: 0, subscriber: subscriber.join().expect("the subscriber") }, stats)
}

struct Redis {
    child: Child,
    address: SocketAddr,
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing more to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    /// None when there is no redis-server on this machine.
    fn start() -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?;
        let port = free.port().to_string();
        let arguments =
            ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--port", &port];
        let child = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn().ok()?;
        let redis = Redis { child, address: free };
        let deadline = StdInstant::now() + Duration::from_secs(5);
        while TcpStream::connect(free).is_err() {
            assert!(StdInstant::now() < deadline, "redis-server does not answer on {free}");
            thread::sleep(Duration::from_millis(20));
        }
        Some(redis)
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("redis-server listens");
        socket.set_nodelay(true).expect("a TCP socket");
        socket
    }

    fn cpu(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        tasks.flatten().map(|task| schedstat(&task.path().join("schedstat").to_string_lossy())).sum()
    }

    fn round(&self, in_flight_max: u64) -> Cost {
        let message = format!("*3\r\n$7\r\nmessage\r\n${}\r\n{CHANNEL}\r\n${PAYLOAD}\r\n", CHANNEL.len());
        let unit = (BATCH * (message.len() + PAYLOAD + 2)) as u64;
        let (progress, ear) = Progress::new();
        let told = progress.clone();
        let mut socket = self.connect();
        let subscribe = format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{CHANNEL}\r\n", CHANNEL.len());
        socket.write_all(subscribe.as_bytes()).expect("written");
        let mut buffer = vec![0; 256 * 1024];
        assert!(socket.read(&mut buffer).expect("an answer") > 0);
        socket.set_nonblocking(true).expect("a TCP socket");
        let subscriber = spawn("tcp subscriber", move || {
            let (before, mut received) = (thread_cpu(), 0);
            while received < BATCHES * unit {
                wait([socket.as_raw_fd()], Duration::from_millis(500));
                received += drain(&mut socket, &mut buffer);
                told.tell(received);
            }
            thread_cpu() - before
        });

        let socket = self.connect();
        socket.set_nonblocking(true).expect("a TCP socket");
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{CHANNEL}\r\n${PAYLOAD}\r\n", CHANNEL.len());
        let one = [head.as_bytes(), &[b'x'; PAYLOAD], b"\r\n"].concat();
        let batch = one.repeat(BATCH);
        let broker = self.cpu();
        let mut redis_publisher = RedisPublisher { socket, replies: vec![0; 64 * 1024] };
        let publisher = publish(in_flight_max, &batch, unit, (&progress, ear), &mut redis_publisher);
        let subscriber = subscriber.join().expect("the subscriber");
        let broker = self.cpu() - broker;
        // Not before: a socket that is closed with replies unread takes what Redis has not yet read along.
        drop(redis_publisher);
        Cost { publisher, broker, subscriber }
    }
}

struct RedisPublisher {
    socket: TcpStream,
    replies: Vec<u8>,
}

impl Publisher for RedisPublisher {
    fn turn(&mut self, readable: bool, bytes: &[u8]) -> usize {
        if readable {
            drain(&mut self.socket, &mut self.replies);
        }
        if bytes.is_empty() {
            return 0;
        }
        match self.socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            written => written.expect("redis-server listens"),
        }
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// One read when something is there; a second one would only learn that nothing is.
fn drain(socket: &mut TcpStream, buffer: &mut [u8]) -> u64 {
    match socket.read(buffer) {
        Ok(0) => panic!("redis-server hung up"),
        Ok(count) => count as u64,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}
