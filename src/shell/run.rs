//! A whole node in this process: its ports, its workers, and the thread that watches over them until a signal ends it.
//!
//! Everything that can fail fails before the first client is let in, and says what to do. Afterwards only the end is left:
//! workers stop in bounded time, and a second signal does not wait for them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::clock;
use super::cpus::Cpus;
use super::driver::{self, Choice, Driver};
use super::lanes::Lanes;
use super::listener::{self, Doors};
use super::node::{Node, Notice};
use super::quic::{self, Quic};
use super::seeds;
use super::send_ring::SendRing;
use super::sender::Sender;
use super::signal::Signals;
pub use super::socket::Hosting;
use super::sys;
use super::systemd::Systemd;
use super::wires::Wires;
use super::worker::Worker;
use crate::base::id::WorkerIndex;
use crate::base::time::{Instant, Now};
use crate::limits::WORKERS_MAX;
use crate::shard::Shard;

/// How often the state is looked at until the node is ready and while it stops, and how often in between.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_WHEN_READY: Duration = Duration::from_secs(1);
/// A signal so soon after the first is the same wish, told twice: a terminal, a wrapper and a supervisor all pass it on.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// What workers need beyond the time they may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// A worker that has not turned for so long is stuck: its beat comes every second.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// Descriptors besides those of clients.
const FILES_RESERVED: u64 = 256;

/// Of a node, as far as it concerns sockets and threads.
#[derive(Clone)]
pub struct Options {
    /// As many as processors are allowed, when none is given.
    pub workers: Option<u16>,
    /// Whether each worker keeps to one of them.
    pub pin: bool,
    pub driver: Choice,
    pub client: SocketAddr,
    /// Where API, health and metrics are served instead.
    pub internal: Option<SocketAddr>,
    /// Sockets of this node, the internal address included. None: as many as there are file descriptors for.
    pub connections_max: Option<usize>,
    pub hosting: Hosting,
    /// How long a stopping node tries to send what is left.
    pub shutdown_timeout: Duration,
    /// None: the node runs alone.
    pub mesh: Option<Mesh>,
}

impl Options {
    /// A node by itself, with what is best for most.
    pub fn alone(client: SocketAddr) -> Self {
        Options {
            workers: None,
            pin: true,
            driver: Choice::Auto,
            client,
            internal: None,
            connections_max: None,
            hosting: Hosting::default(),
            shutdown_timeout: Duration::from_secs(5),
            mesh: None,
        }
    }
}

#[derive(Clone)]
pub struct Mesh {
    /// Of worker 0; the others have the ports above it.
    pub address: SocketAddr,
    pub identity: quic::Identity,
    pub options: quic::Options,
    /// `host:port`, looked up again and again.
    pub seeds: Vec<String>,
}

/// Where a node listens, with the ports that the kernel chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    pub client: SocketAddr,
    pub internal: Option<SocketAddr>,
    pub mesh: Option<SocketAddr>,
    pub workers: u16,
    pub driver: Driver,
}

/// Why a node does not run.
#[derive(Debug)]
pub enum Error {
    Workers(u16),
    MeshPorts {
        base: SocketAddr,
        workers: u16,
    },
    Listen {
        what: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    Driver(io::Error),
    System {
        what: &'static str,
        source: io::Error,
    },
    Worker {
        index: WorkerIndex,
        source: io::Error,
    },
    /// It ran, and must not go on.
    Fatal(String),
    /// The workers did not stop in time.
    Stuck,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Workers(workers) => write!(f, "{workers} workers: a node has 1 to {WORKERS_MAX}"),
            Error::MeshPorts { base, workers } => {
                write!(f, "mesh address {base}: each of {workers} workers needs a port of its own above it")
            }
            Error::Listen { what, address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{what} address {address} is in use: stop who has it, or choose another")
            }
            Error::Listen { what, address, source } => write!(f, "cannot listen on {what} address {address}: {source}"),
            Error::Driver(source) => write!(f, "{source}"),
            Error::System { what, source } => write!(f, "{what}: {source}"),
            Error::Worker { index, source } => write!(f, "worker {index} does not start: {source}"),
            Error::Fatal(why) => f.write_str(why),
            Error::Stuck => f.write_str("the workers did not stop in time"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Listen { source, .. }
            | Error::Driver(source)
            | Error::System { source, .. }
            | Error::Worker { source, .. } => Some(source),
            Error::Workers(_) | Error::MeshPorts { .. } | Error::Fatal(_) | Error::Stuck => None,
        }
    }
}

/// Runs a node until a signal ends it. Each worker makes its shard on its own thread, told its index and how many workers
/// there are; `on_listening` is called when all of them let clients in.
pub fn run<F>(options: Options, make_shard: F, on_listening: impl FnOnce(&Addresses)) -> Result<(), Error>
where
    F: Fn(WorkerIndex, u16, Now) -> Shard + Send + Sync + 'static,
{
    let system = |what| move |source| Error::System { what, source };
    let signals = Signals::catch().map_err(system("signals"))?;
    let systemd = Systemd::from_env();
    let cpus = Cpus::allowed().map_err(system("affinity mask"))?;
    let workers = options.workers.unwrap_or_else(|| cpus.workers());
    if !(1..=WORKERS_MAX).contains(&workers) {
        return Err(Error::Workers(workers));
    }
    if !cpus.are_enough_for(workers) {
        tracing::warn!(workers, cpus = cpus.workers(), "more workers than processors: they share them");
    }
    let connections_max = connections_max(options.connections_max);
    let driver = options.driver.decide().map_err(Error::Driver)?;
    let node = Arc::new(Node::new(workers, connections_max).map_err(system("mailboxes"))?);

    let ports = Ports::bind(&options, workers)?;
    let mesh = mesh_address(options.mesh.as_ref(), workers)?;
    let addresses = Addresses { mesh, driver, ..ports.addresses };
    let crew = Crew {
        node,
        driver,
        hosting: options.hosting,
        shutdown_timeout: options.shutdown_timeout,
        mesh: options.mesh,
        make_shard: Arc::new(make_shard),
    };
    let threads = crew.start(options.pin.then_some(&cpus), ports.doors)?;
    on_listening(&addresses);
    if let Some(mesh) = &crew.mesh {
        seeds::watch(mesh.seeds.clone(), crew.node.clone()).map_err(system("thread for seeds"))?;
    }
    watch(&crew.node, threads, options.shutdown_timeout + STOP_GRACE, &signals, &systemd)
}

/// As many as wished, or as the limit of open files allows: a client is better refused with a word than not accepted.
fn connections_max(wished: Option<usize>) -> usize {
    let limit = match sys::raise_file_limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            return wished.unwrap_or(usize::MAX);
        }
    };
    let possible = usize::try_from(limit.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
    match wished {
        Some(wished) if wished > possible => {
            tracing::warn!(wished, possible, "fewer connections than wished: the limit of open files is too low");
            possible
        }
        Some(wished) => wished,
        None => possible,
    }
}

fn mesh_address(mesh: Option<&Mesh>, workers: u16) -> Result<Option<SocketAddr>, Error> {
    let Some(base) = mesh.map(|mesh| mesh.address) else { return Ok(None) };
    // With a port of the kernel's choice the others could not be told from it.
    let is_told = base.port() != 0 || workers == 1;
    if !is_told || base.port().checked_add(workers - 1).is_none() {
        return Err(Error::MeshPorts { base, workers });
    }
    Ok(Some(base))
}

/// What is bound before any thread is started.
struct Ports {
    doors: Vec<Doors>,
    addresses: Addresses,
}

impl Ports {
    fn bind(options: &Options, workers: u16) -> Result<Self, Error> {
        let bind = |what, address, workers| {
            let listen = |source| Error::Listen { what, address, source };
            let listeners = listener::bind(address, workers).map_err(listen)?;
            let address = listeners[0].local_addr().map_err(listen)?;
            Ok((listeners, address))
        };
        let (public, client) = bind("client", options.client, workers)?;
        let internal = options.internal.map(|address| bind("internal", address, 1)).transpose()?;
        let addresses = Addresses {
            client,
            internal: internal.as_ref().map(|(_, address)| *address),
            mesh: None,
            workers,
            driver: Driver::Epoll,
        };
        // One worker is enough for operators and backends.
        let mut internal: Vec<TcpListener> = internal.map(|(listeners, _)| listeners).unwrap_or_default();
        let doors = public.into_iter().map(|public| Doors { public, internal: internal.pop() }).collect();
        Ok(Ports { doors, addresses })
    }
}

/// What every worker is made from.
struct Crew<F> {
    node: Arc<Node>,
    driver: Driver,
    hosting: Hosting,
    shutdown_timeout: Duration,
    mesh: Option<Mesh>,
    make_shard: Arc<F>,
}

impl<F> Crew<F>
where
    F: Fn(WorkerIndex, u16, Now) -> Shard + Send + Sync + 'static,
{
    /// Gives the threads when all workers let clients in.
    fn start(&self, cpus: Option<&Cpus>, doors: Vec<Doors>) -> Result<Vec<JoinHandle<()>>, Error> {
        let (started, starts) = mpsc::channel::<(WorkerIndex, io::Result<()>)>();
        let mut threads = Vec::new();
        for (index, doors) in (0..).zip(doors) {
            let (crew, started, cpu) = (self.clone(), started.clone(), cpus.map(|cpus| cpus.of(index)));
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let thread = thread.spawn(move || {
                if let Some(cpu) = cpu
                    && let Err(error) = sys::pin_to(cpu)
                {
                    tracing::warn!(worker = index, cpu, %error, "not pinned");
                }
                let tell = started.clone();
                let result = driver::block_on(crew.driver, async move {
                    let worker = crew.worker(index)?;
                    worker.run(doors, crew.shutdown_timeout, || report(&tell, index, Ok(()))).await
                });
                // Both are before the start was told: a worker that serves ends well or takes the process along.
                if let Err(error) = result.and_then(|result| result) {
                    report(&started, index, Err(error));
                }
            });
            threads.push(thread.map_err(|source| Error::Worker { index, source })?);
        }
        drop(started);
        for _ in 0..threads.len() {
            match starts.recv() {
                Ok((_, Ok(()))) => {}
                Ok((index, Err(source))) => return Err(Error::Worker { index, source }),
                Err(mpsc::RecvError) => unreachable!("each worker reports before it ends"),
            }
        }
        Ok(threads)
    }

    /// On its thread, within its runtime.
    fn worker(&self, index: WorkerIndex) -> io::Result<std::rc::Rc<Worker>> {
        let now = clock::now();
        let sender = match self.driver {
            Driver::Uring => Sender::with_ring(SendRing::new()?),
            Driver::Epoll => Sender::default(),
        };
        let lanes = match &self.mesh {
            Some(mesh) => {
                let address = SocketAddr::new(mesh.address.ip(), mesh.address.port() + index);
                let quic = Quic::bind(address, &mesh.identity, mesh.options.clone(), now.mono);
                Lanes::new(
                    quic.map_err(|error| io::Error::new(error.kind(), format!("mesh address {address}: {error}")))?,
                )
            }
            None => Lanes::default(),
        };
        let workers = self.node.workers();
        let shard = (self.make_shard)(index, workers, now);
        Worker::new(index, self.node.clone(), self.hosting.clone(), shard, Wires::new(sender, lanes, workers))
    }
}

impl<F> Clone for Crew<F> {
    fn clone(&self) -> Self {
        Crew {
            node: self.node.clone(),
            driver: self.driver,
            hosting: self.hosting.clone(),
            shutdown_timeout: self.shutdown_timeout,
            mesh: self.mesh.clone(),
            make_shard: self.make_shard.clone(),
        }
    }
}

fn report(to: &mpsc::Sender<(WorkerIndex, io::Result<()>)>, index: WorkerIndex, result: io::Result<()>) {
    // Nobody listens any more when another worker has failed: the process ends anyway.
    let _unheard = to.send((index, result));
}

/// Until the node has stopped.
fn watch(
    node: &Node,
    threads: Vec<JoinHandle<()>>,
    stop_max: Duration,
    signals: &Signals,
    systemd: &Systemd,
) -> Result<(), Error> {
    let mut pulse = Pulse::new(node);
    let mut ready = false;
    let mut stopping: Option<Instant> = None;
    loop {
        let look = if ready && stopping.is_none() { LOOK_WHEN_READY } else { LOOK };
        let timeout = systemd.watchdog_interval().map_or(look, |interval| interval.min(look));
        let signal = signals.wait(Some(timeout)).map_err(|source| Error::System { what: "signals", source })?;
        let why = signal.or_else(|| node.failure());
        match (why, stopping) {
            (Some(why), None) => {
                tracing::info!(why, "stopping");
                systemd.stopping();
                node.notify_all(|| Notice::Shutdown);
                stopping = Some(clock::mono());
            }
            (Some(_), Some(since)) if signal.is_some() && clock::mono().since(since) > SAME_SIGNAL => {
                tracing::warn!(signal, "stopped at once");
                break;
            }
            (_, Some(since)) if clock::mono().since(since) > stop_max => return Err(Error::Stuck),
            _ => {}
        }
        if stopping.is_some() && threads.iter().all(JoinHandle::is_finished) {
            tracing::info!("stopped");
            break;
        }
        if !ready && node.is_ready() {
            ready = true;
            tracing::info!("ready");
            systemd.ready();
        }
        if ready && systemd.watchdog_interval().is_some() && pulse.is_felt(node) {
            systemd.alive();
        }
    }
    node.failure().map_or(Ok(()), |why| Err(Error::Fatal(why.to_owned())))
}

/// Whether every worker turns.
struct Pulse(Vec<(u64, Instant)>);

impl Pulse {
    fn new(node: &Node) -> Self {
        let now = clock::mono();
        Pulse(node.beats().into_iter().map(|beat| (beat, now)).collect())
    }

    fn is_felt(&mut self, node: &Node) -> bool {
        let now = clock::mono();
        for (last, beat) in self.0.iter_mut().zip(node.beats()) {
            if last.0 != beat {
                *last = (beat, now);
            }
        }
        self.0.iter().all(|(_, at)| now.since(*at) < STUCK_AFTER)
    }
}
