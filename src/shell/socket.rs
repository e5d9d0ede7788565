//! One accepted socket: first requests over HTTP, then perhaps a WebSocket.
//!
//! A socket is a small task that waits until there is something to read. It holds no buffer while it waits, and its wait
//! is never given up: who wants it to end shuts the socket down, and the task reads the end. The part that speaks HTTP is
//! boxed, so that a WebSocket does not carry its size.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::http::{self, Call, Exchange, Listener, Network, Phase, Step, client_address};
use super::node::Seat;
use super::ready::Ready;
use super::sys::{self, Half};
use super::worker::{Received, Worker};
use crate::base::time::Instant;
use crate::limits::HTTP_HEAD_BYTES_MAX;
use crate::metrics::RefusalReason;
use crate::protocol::Encoding;
use crate::shard::outlet::{Answer, ConnectionKey};
use crate::shard::{Opened, Request};
use crate::ws::upgrade::{OriginRule, Subprotocol, Upgrade, response};

/// Bytes of one read while it is HTTP: whoever has proved nothing makes us hold little.
const HTTP_READ_BYTES_MAX: usize = HTTP_HEAD_BYTES_MAX;
/// How long a client may take to read our last answer and hang up.
const LINGER: Duration = Duration::from_secs(2);
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// How one worker serves HTTP.
#[derive(Clone)]
pub struct Hosting {
    pub http: http::Options,
    pub trusted_proxies: Vec<Network>,
    /// From the accept to the upgrade, and for each later request's head and body.
    pub handshake_timeout: Duration,
    /// Between two requests on one connection.
    pub idle_timeout: Duration,
    /// For the shard's answer and for the client to read it.
    pub answer_timeout: Duration,
}

impl Default for Hosting {
    /// Nothing but WebSockets at `/`, of the own origin.
    fn default() -> Self {
        Hosting {
            http: http::Options {
                websocket_path: "/".to_owned(),
                origins: OriginRule::default(),
                api_key: None,
                api_insecure: false,
                internal: false,
                address_header: None,
                body_bytes_max: 0,
                demo: None,
            },
            trusted_proxies: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            answer_timeout: Duration::from_secs(30),
        }
    }
}

pub struct Socket {
    ready: Ready,
    /// Set while it is a WebSocket.
    pub connection: Cell<Option<ConnectionKey>>,
    /// When its patience ends, and when `deadlines` looks next.
    pub deadline: Cell<Option<Instant>>,
    pub looked_at: Cell<Option<Instant>>,
    late: Cell<bool>,
    writing: Cell<bool>,
}

impl Socket {
    /// Only within a runtime.
    pub fn new(descriptor: OwnedFd) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Socket {
            ready: Ready::new(descriptor)?,
            connection: Cell::new(None),
            deadline: Cell::new(None),
            looked_at: Cell::new(None),
            late: Cell::new(false),
            writing: Cell::new(false),
        }))
    }

    pub fn descriptor(&self) -> RawFd {
        self.ready.descriptor()
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.ready.writable().await
    }

    /// Its deadline has passed.
    pub fn on_late(&self) {
        if self.connection.get().is_some() || self.writing.get() {
            self.abort();
        } else {
            // Its task wakes, sees that it is late, and may still tell the client.
            self.late.set(true);
            ignore_gone(sys::shutdown(self.descriptor(), Half::Read));
        }
    }

    /// Our last bytes were sent, and the peer may read them.
    pub fn half_close(&self) {
        ignore_gone(sys::shutdown(self.descriptor(), Half::Write));
    }

    /// Ends it now: whoever waits for it wakes, and nothing that is still on its way is kept.
    pub fn abort(&self) {
        ignore_gone(sys::reset_on_close(self.descriptor()));
        ignore_gone(sys::shutdown(self.descriptor(), Half::Both));
    }
}

/// Our wish to end a connection may meet a peer that already has: its reader learns of it anyway.
fn ignore_gone(result: io::Result<()>) {
    if let Err(error) = result
        && error.raw_os_error() != Some(libc::ENOTCONN)
    {
        tracing::debug!(%error, "a socket could not be shut down");
    }
}

/// Serves one accepted socket to its end.
pub fn serve(
    worker: Rc<Worker>,
    socket: Rc<Socket>,
    peer: IpAddr,
    side: Listener,
    seat: Seat,
) -> impl Future<Output = ()> {
    // Boxed here, so that the task holds its address and not its size.
    let speaking = Box::pin(speak_http(worker.clone(), socket.clone(), peer, side));
    async move {
        if let Some(connection) = speaking.await {
            listen(&worker, &socket, connection).await;
            worker.detach(connection);
        }
        drop(seat);
    }
}

/// Feeds the shard with what a WebSocket brings until it is gone.
async fn listen(worker: &Rc<Worker>, socket: &Rc<Socket>, connection: ConnectionKey) {
    loop {
        // As `ready::fairly`, but without a second copy of the wait in the task.
        let mut wait = pin!(socket.ready.readable());
        let mut waited = false;
        let result = poll_fn(|cx| {
            let poll = wait.as_mut().poll(cx);
            waited |= poll.is_pending();
            poll
        })
        .await;
        if result.is_err() || worker.receive(socket, connection) == Received::Gone {
            return;
        }
        if !waited {
            worker.breath.take().await;
        }
    }
}

/// Serves requests until one becomes a WebSocket, or the connection ends.
async fn speak_http(worker: Rc<Worker>, socket: Rc<Socket>, peer: IpAddr, side: Listener) -> Option<ConnectionKey> {
    let hosting = worker.hosting.clone();
    let mut exchange = Exchange::new(side);
    let mut phase = Phase::Head;
    // The first request has its time from the accept on, so that a socket that says nothing is not kept.
    worker.set_deadline(&socket, hosting.handshake_timeout);
    loop {
        if worker.is_stopping() {
            exchange.on_shutdown();
        }
        match exchange.poll(&hosting.http) {
            Step::Read => {
                // The patience of a phase begins with it and does not grow with every byte. The head's first byte and the
                // wait before the first request count to the head.
                let now = exchange.phase();
                if now != phase && !(now == Phase::Idle && phase == Phase::Head) {
                    let patience = if now == Phase::Idle { hosting.idle_timeout } else { hosting.handshake_timeout };
                    worker.set_deadline(&socket, patience);
                    phase = now;
                }
                let received = socket.read(&worker, |bytes| exchange.on_bytes(bytes)).await;
                if socket.late.take() {
                    exchange.on_timeout();
                } else if received == Received::Gone {
                    return None;
                }
            }
            Step::Write(bytes, refusal) => {
                if let Some(refusal) = refusal {
                    worker.count(|counters| counters.refused(refusal));
                }
                worker.set_deadline(&socket, hosting.answer_timeout);
                phase = Phase::Answer;
                if !socket.write(&bytes).await {
                    return None;
                }
            }
            Step::Call(call, body) => {
                worker.count(|counters| counters.http_requests += 1);
                worker.set_deadline(&socket, hosting.answer_timeout);
                phase = Phase::Answer;
                let answer = carry_out(&worker, call, &body).await;
                exchange.on_answer(answer.status, answer.content_type, &answer.body);
            }
            Step::Upgrade(upgrade, address) => {
                if !worker.may_open() {
                    worker.count(|counters| counters.refused(RefusalReason::Unavailable));
                    if socket.write(UNAVAILABLE).await {
                        linger(&worker, &socket).await;
                    }
                    return None;
                }
                let address = client_address(peer, address.as_deref(), &hosting.trusted_proxies);
                return Some(open(&worker, &socket, &upgrade, address, exchange.into_rest()));
            }
            Step::Close => {
                linger(&worker, &socket).await;
                return None;
            }
        }
    }
}

async fn carry_out(worker: &Rc<Worker>, call: Call, body: &[u8]) -> Answer {
    let request = match &call {
        Call::Api { method, transport_errors } => Request::Api { method, body, transport_errors: *transport_errors },
        Call::ApiEnveloped { transport_errors } => {
            Request::Api { method: "", body, transport_errors: *transport_errors }
        }
        Call::Ready => Request::Ready,
        Call::Metrics => Request::Metrics,
        Call::Cluster => Request::Status,
        Call::Kill => sys::die(),
    };
    let key = worker.ask();
    worker.with(|shard, now| shard.on_request(now, key, request));
    worker.answer(key).await
}

fn open(
    worker: &Rc<Worker>,
    socket: &Rc<Socket>,
    upgrade: &Upgrade,
    address: IpAddr,
    mut rest: Vec<u8>,
) -> ConnectionKey {
    let mut head = Vec::with_capacity(256);
    response(upgrade, &mut head);
    let connection = worker.with(|shard, now| {
        let opened = Opened {
            socket: socket.descriptor(),
            address,
            encoding: match upgrade.encoding {
                Subprotocol::Json => Encoding::Json,
                Subprotocol::Protobuf => Encoding::Protobuf,
            },
            frame_pings: upgrade.frame_ping_pong,
            response: &head,
        };
        shard.on_open(now, opened)
    });
    worker.attach(connection, socket);
    if !rest.is_empty() {
        worker.with(|shard, now| shard.on_bytes(now, connection, &mut rest));
    }
    connection
}

/// Half-closes, and waits for the client to do the same: a close with unread bytes would be a reset, and the client
/// might not see our last answer.
async fn linger(worker: &Rc<Worker>, socket: &Rc<Socket>) {
    socket.half_close();
    worker.set_deadline(socket, LINGER);
    while socket.read(worker, |_| {}).await != Received::Gone {}
}

impl Socket {
    /// Waits for bytes and lends them.
    async fn read(&self, worker: &Worker, take: impl FnOnce(&[u8])) -> Received {
        if super::ready::fairly(&worker.breath, self.ready.readable()).await.is_err() {
            return Received::Gone;
        }
        worker.lend_received(self, HTTP_READ_BYTES_MAX, take)
    }

    /// Sends all of it. Whether it could.
    async fn write(&self, mut bytes: &[u8]) -> bool {
        self.writing.set(true);
        while !bytes.is_empty() {
            match sys::send(self.descriptor(), bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.writable().await.is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.writing.set(false);
        bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{self, Verifier};
    use crate::base::hash::HashKey;
    use crate::base::id::NodeId;
    use crate::base::rng::Rng;
    use crate::rules::{self, Rules};
    use crate::session::{self, Environment};
    use crate::shard::{self, Setup, Shard};
    use crate::shell::driver::{self, Driver};
    use crate::shell::lanes::Lanes;
    use crate::shell::node::Node;
    use crate::shell::sender::Sender;
    use crate::shell::wires::Wires;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn worker() -> Rc<Worker> {
        let shard = Shard::new(Setup {
            worker: 0,
            workers: 1,
            node: NodeId::parse("test").unwrap(),
            hash_key: HashKey::new([0; 16]),
            environment: Environment {
                options: session::Options::default(),
                rules: Rules::new(rules::Options::default()),
                verifier: Verifier::new(&auth::Options::default()),
            },
            options: shard::Options::default(),
            mesh: None,
            echo: true,
            rng: Rng::seeded(1),
            now: crate::shell::clock::now(),
        });
        let wires = Wires::new(Sender::default(), Lanes::default(), 1);
        Worker::new(0, Arc::new(Node::new(1, 10).unwrap()), Hosting::default(), shard, wires).unwrap()
    }

    /// A node holds one of each per client, and most clients are idle.
    #[test]
    fn an_idle_websocket_costs_the_shell_little() {
        driver::block_on(Driver::Epoll, async {
            let worker = worker();
            let (near, _far) = UnixStream::pair().unwrap();
            let socket = Socket::new(near.into()).unwrap();
            let seat = worker.node.admit().unwrap();
            let task = serve(worker.clone(), socket, IpAddr::from([127, 0, 0, 1]), Listener::Public, seat);
            let (task, socket) = (size_of_val(&task), size_of::<Socket>());
            eprintln!("task {task} bytes, socket {socket} bytes");
            assert!(task <= 320);
            assert!(socket <= 96);
        })
        .unwrap();
    }
}
