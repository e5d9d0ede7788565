//! Loopback ports for the demo's nodes, kept while the demo runs.
//!
//! A node's port must not go to somebody else while the node is dead. So each port is held by a TCP socket that is bound
//! and never listens: such a socket takes no connection, and nodes listen beside it because both say SO_REUSEPORT and
//! SO_REUSEADDR. The
//! UDP ports are held by the TCP sockets of the same numbers, which is a sign to other demos only; a bound UDP socket
//! would take its share of the datagrams.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Socket, Type};

/// Where official clients look first, and where nodes expect each other.
const CLIENT_FIRST: u16 = 8000;
const MESH_FIRST: u16 = 7800;
/// Below what the kernel gives to connections that go out.
const MESH_ANYWHERE: std::ops::Range<u16> = 12_000..30_000;
const TRIES: u32 = 500;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefer {
    /// The usual ports or those behind them: easy to type.
    Usual,
    /// Any free ones, so that many demos can start at once.
    Any,
}

pub struct Ports {
    pub clients: Vec<u16>,
    /// For each node the first of its UDP ports.
    pub meshes: Vec<u16>,
    held: Vec<Socket>,
}

/// `random` gives a number below its argument.
pub fn take(nodes: u16, workers: u16, prefer: Prefer, mut random: impl FnMut(u64) -> u64) -> io::Result<Ports> {
    let mut ports = Ports { clients: Vec::new(), meshes: Vec::new(), held: Vec::new() };
    let mut next = CLIENT_FIRST;
    while ports.clients.len() < usize::from(nodes) {
        let asked = if prefer == Prefer::Any { 0 } else { next };
        match hold(asked) {
            Ok((socket, port)) => {
                ports.clients.push(port);
                ports.held.push(socket);
            }
            Err(error) if asked == 0 || next == u16::MAX => return Err(error),
            Err(_) => {}
        }
        next = next.saturating_add(1);
    }
    let mut first = MESH_FIRST;
    for _ in 0..TRIES {
        if ports.meshes.len() == usize::from(nodes) {
            break;
        }
        if prefer == Prefer::Any {
            let span = u64::from(MESH_ANYWHERE.end - MESH_ANYWHERE.start - workers);
            first = MESH_ANYWHERE.start + u16::try_from(random(span)).expect("below the span");
        }
        let range = first..first.saturating_add(workers);
        if let Ok(mut sockets) = range.map(hold_udp).collect::<io::Result<Vec<Socket>>>() {
            ports.meshes.push(first);
            ports.held.append(&mut sockets);
        }
        first = first.saturating_add(workers);
    }
    if ports.meshes.len() < usize::from(nodes) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    Ok(ports)
}

fn hold(port: u16) -> io::Result<(Socket, u16)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let bind = |socket: &Socket| socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into());
    // Without SO_REUSEPORT nobody else may have it, not even one who says SO_REUSEPORT; the second socket says it, and
    // takes the number over.
    bind(&socket)?;
    let port = bound(&socket)?;
    drop(socket);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    // A node first sees whether somebody listens on its port. One who is bound and does not listen is no obstacle when
    // both say this.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok((socket, port))
}

fn hold_udp(port: u16) -> io::Result<Socket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

fn bound(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?.as_socket();
    Ok(address.map_or(0, |address| address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use std::net::TcpStream;

    #[test]
    fn two_demos_get_different_ports_and_nodes_can_listen_on_theirs() {
        let mut rng = Rng::seeded(std::process::id().into());
        let a = take(3, 4, Prefer::Any, |below| rng.below(below)).unwrap();
        let b = take(3, 4, Prefer::Any, |below| rng.below(below)).unwrap();
        let mut clients = [a.clients.clone(), b.clients.clone()].concat();
        let mut meshes: Vec<u16> = a.meshes.iter().chain(&b.meshes).flat_map(|&first| first..first + 4).collect();
        let (client_count, mesh_count) = (clients.len(), meshes.len());
        clients.sort_unstable();
        clients.dedup();
        meshes.sort_unstable();
        meshes.dedup();
        assert_eq!((clients.len(), meshes.len()), (client_count, mesh_count));

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, a.clients[0]));
        assert!(TcpStream::connect(address).is_err(), "a port that is only held takes no connection");
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_port(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(8).unwrap();
        for _ in 0..20 {
            let _client = TcpStream::connect(address).expect("every connection goes to the listener");
            listener.accept().unwrap();
        }
        UdpSocket::bind((Ipv4Addr::LOCALHOST, a.meshes[0])).unwrap();
    }

    #[test]
    fn a_port_that_somebody_else_holds_is_passed_over() {
        let usual = take(2, 1, Prefer::Usual, |_| 0).unwrap();
        let more = take(2, 1, Prefer::Usual, |_| 0).unwrap();
        assert!(more.clients.iter().all(|port| !usual.clients.contains(port)));
        assert!(more.meshes.iter().all(|port| !usual.meshes.contains(port)));
    }
}
