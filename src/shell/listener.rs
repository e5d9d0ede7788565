//! The ports of a node: one listener per worker on the same address, and the loop that lets clients in.
//!
//! A listener is waited for, then asked without blocking, so no accept is ever under way that could be dropped and lose a
//! socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as System, Type};

use super::http::Listener as Side;
use super::ready::{Ready, fairly};
use super::socket::{Socket, serve};
use super::sys::{self, Half};
use super::worker::Worker;
use crate::metrics::RefusalReason;

/// Connections that wait to be accepted, per worker. The kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Connections accepted at once, before readers and the flusher get their turn.
const ACCEPT_BOUND: usize = 64;
/// How long nobody is let in when there is no descriptor or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// A node that was restarted at once may meet its predecessor's sockets.
const BIND_TRIES_MAX: u32 = 30;
const BIND_PAUSE: Duration = Duration::from_millis(100);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Binds one socket for each worker. Port 0: the first is given a port, and the others share it.
pub fn bind(address: SocketAddr, workers: u16) -> io::Result<Vec<TcpListener>> {
    let mut tries = 0;
    let first = loop {
        match is_free(address).and_then(|()| bind_one(address)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES_MAX => {
                tries += 1;
                std::thread::park_timeout(BIND_PAUSE);
            }
            result => break result?,
        }
    };
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..workers {
        all.push(bind_one(address)?);
    }
    Ok(all)
}

/// Whether nobody listens there. Sockets that share a port are not told of each other, so that a second node on the same
/// address would take half of the first one's clients.
fn is_free(address: SocketAddr) -> io::Result<()> {
    let socket = System::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a predecessor may linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = System::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One worker's listeners, before it serves.
pub struct Doors {
    pub public: TcpListener,
    pub internal: Option<TcpListener>,
}

/// While it serves.
pub struct OpenDoors(Vec<RawFd>);

impl Doors {
    pub fn open(self, worker: &Rc<Worker>) -> io::Result<OpenDoors> {
        let mut open = OpenDoors(Vec::new());
        let internal = self.internal.map(|listener| (listener, Side::Internal));
        for (listener, side) in [(self.public, Side::Public)].into_iter().chain(internal) {
            open.0.push(listener.as_raw_fd());
            let ready = Ready::new(listener.try_clone()?.into())?;
            // It ends when the doors are closed.
            drop(monoio::spawn(welcome(worker.clone(), listener, ready, side)));
        }
        Ok(open)
    }
}

impl OpenDoors {
    /// Nobody is let in any more. The loops wake and end.
    pub fn close(self) {
        for listener in self.0 {
            if let Err(error) = sys::shutdown(listener, Half::Read) {
                tracing::warn!(%error, "a listener could not be closed");
            }
        }
    }
}

async fn welcome(worker: Rc<Worker>, listener: TcpListener, ready: Ready, side: Side) {
    let mut exhausted = false;
    loop {
        // A listener of our own can always be waited for; without it the node would be closed and say that it is open.
        fairly(&worker.breath, ready.readable()).await.expect("a listener can be waited for");
        for _ in 0..ACCEPT_BOUND {
            if worker.is_stopping() {
                return;
            }
            match listener.accept() {
                Ok((stream, peer)) => {
                    exhausted = false;
                    let_in(&worker, stream, peer, side);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The listener was shut down: see `close`.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return,
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    worker.count(|counters| counters.refused(RefusalReason::Descriptors));
                    if !std::mem::replace(&mut exhausted, true) {
                        tracing::error!(%error, "no connection can be accepted; trying on");
                    }
                    monoio::time::sleep(EXHAUSTED_PAUSE).await;
                    break;
                }
            }
        }
    }
}

fn let_in(worker: &Rc<Worker>, stream: std::net::TcpStream, peer: SocketAddr, side: Side) {
    let Some(seat) = worker.node.admit() else {
        worker.count(|counters| counters.refused(RefusalReason::ConnectionLimit));
        // Best effort: a fresh socket has room for it, and a client that is gone needs none.
        let _told = sys::send(stream.as_raw_fd(), FULL);
        return;
    };
    match Socket::new(stream.into()) {
        Ok(socket) => drop(monoio::spawn(serve(worker.clone(), socket, peer.ip(), side, seat))),
        Err(error) => {
            worker.count(|counters| counters.refused(RefusalReason::Descriptors));
            tracing::warn!(%error, "a connection could not be served");
        }
    }
}

/// Errors of one connection that was never seen (accept(2) lists them): the next one may be well.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}
