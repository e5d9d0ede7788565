//! A cluster of `skein serve` processes: started, watched, killed, and their logs shown when a test fails.

pub mod http;
pub mod isolated;
pub mod node;
pub mod status;
pub mod ws;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use node::Node;
pub use status::Status;
pub use ws::Ws;

/// For what has no deadline of its own: a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

static TURN: Mutex<()> = Mutex::new(());

/// Held by a test as long as it has processes. One that failed in its turn harms no other.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    scratch: Scratch,
    _turn: MutexGuard<'static, ()>,
}

/// What to start.
pub struct Plan {
    /// Of each node, and so how many there are.
    pub workers: Vec<u16>,
    /// Of every node.
    pub flags: Vec<String>,
    /// A loopback address for each node; all the same if false.
    pub own_addresses: bool,
}

impl Plan {
    pub fn nodes(count: usize) -> Plan {
        Plan { workers: vec![1; count], flags: Vec::new(), own_addresses: false }
    }

    pub fn flags(mut self, flags: &[&str]) -> Plan {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// Prepared, but not running.
    pub fn prepare(self) -> Cluster {
        let turn = turn();
        let scratch = Scratch::make();
        let ca = scratch.0.join("ca");
        skein(&["cert", "ca", "--ca", path(&ca)]);
        let mut ports = Ports::default();
        let mut places = Vec::new();
        for (index, &workers) in self.workers.iter().enumerate() {
            let last = if self.own_addresses { u8::try_from(index + 1).unwrap() } else { 1 };
            let address = Ipv4Addr::new(127, 0, 0, last).into();
            places.push((ports.tcp(address), ports.udp(address, workers), workers));
        }
        let all: Vec<String> = places.iter().map(|(_, mesh, _)| mesh.to_string()).collect();
        let nodes = places.into_iter().enumerate().map(|(index, (client, mesh, workers))| {
            let name = format!("n{}", index + 1);
            let bundle = scratch.0.join(format!("{name}.pem"));
            skein(&["cert", "node", &name, "--ca", path(&ca), "--out", path(&bundle)]);
            Node::prepare(node::Setup {
                name,
                client,
                mesh,
                workers,
                bundle,
                seeds: all.clone(),
                flags: self.flags.clone(),
                directory: scratch.0.clone(),
            })
        });
        let nodes = nodes.collect();
        Cluster { nodes, scratch, _turn: turn }
    }

    /// Running, and every node has all others in view.
    pub fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.together();
        cluster
    }
}

impl Cluster {
    pub fn directory(&self) -> &Path {
        &self.scratch.0
    }

    pub fn ca(&self) -> PathBuf {
        self.scratch.0.join("ca")
    }

    /// A bundle of this cluster's CA.
    pub fn bundle(&self, name: &str) -> PathBuf {
        let bundle = self.scratch.0.join(format!("extra-{name}.pem"));
        skein(&["cert", "node", name, "--ca", path(&self.ca()), "--out", path(&bundle)]);
        bundle
    }

    /// Waits until each running node is ready and has all other running ones in view, on all lanes, and says so.
    pub fn together(&self) -> Duration {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.is_running()).collect();
        eventually(PATIENCE, "all nodes have each other in view", || {
            running.iter().all(|node| {
                node.status().is_some_and(|status| {
                    status.ready
                        && running.iter().all(|other| {
                            other.name == node.name || status.in_view(&other.name) && status.lanes_up(other, node)
                        })
                })
            })
        })
    }
}

/// Shows what the nodes said, if the test failed.
impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("---- the end of {}'s log\n{}", node.name, node.log_end(60));
            }
        }
    }
}

/// A directory that goes when the test does.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn make() -> Scratch {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("skein-cluster-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary things");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is in the directory for temporary things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const BINARY: &str = env!("CARGO_BIN_EXE_skein");

/// Runs a command that must succeed, and gives what it printed.
pub fn skein(args: &[&str]) -> String {
    let output = std::process::Command::new(BINARY).args(args).output().expect("the binary starts");
    assert!(output.status.success(), "skein {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("our own paths are UTF-8")
}

/// Asks again and again, and says how long it took.
pub fn eventually(within: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// From the environment, so that a night may do more than a build.
pub fn count(variable: &str, default: usize) -> usize {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

/// Free ones below what the kernel gives to connections that go out.
#[derive(Default)]
struct Ports {
    taken: BTreeSet<u16>,
}

impl Ports {
    fn tcp(&mut self, address: IpAddr) -> SocketAddr {
        self.find(1, |port| TcpListener::bind((address, port)).is_ok(), address)
    }

    fn udp(&mut self, address: IpAddr, workers: u16) -> SocketAddr {
        self.find(workers, |port| UdpSocket::bind((address, port)).is_ok(), address)
    }

    fn find(&mut self, count: u16, is_free: impl Fn(u16) -> bool, address: IpAddr) -> SocketAddr {
        for _ in 0..1000 {
            let first = 12_000 + random() % 18_000;
            let range = first..first + count;
            if range.clone().all(|port| !self.taken.contains(&port) && is_free(port)) {
                self.taken.extend(range);
                return (address, first).into();
            }
        }
        panic!("no free ports");
    }
}

/// Another number for every process and call.
fn random() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    let hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.finish() as u16
}
