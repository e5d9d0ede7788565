//! A flood of garbage on the mesh port does not slow WebSockets down.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use skein::shell::clock;

const SKEIN: &str = env!("CARGO_BIN_EXE_skein");

struct Node {
    child: Child,
    directory: PathBuf,
    client: u16,
    mesh: u16,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Best effort: the test's own verdict counts.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

impl Node {
    fn start(driver: &str) -> Node {
        let directory = std::env::temp_dir().join(format!("skein-flood-{}-{driver}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for arguments in [&["cert", "ca"][..], &["cert", "node", "flooded"]] {
            let made = Command::new(SKEIN).args(arguments).current_dir(&directory).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        // Free a moment ago.
        let client = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mesh = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(SKEIN)
            .args(["serve", "--node.workers", "1", "--node.driver", driver, "--http_server.address", "127.0.0.1"])
            .args(["--http_server.port", &client.to_string(), "--mesh.bundle", "flooded.pem"])
            .args(["--mesh.listen", &format!("127.0.0.1:{mesh}"), "--mesh.advertise", &format!("127.0.0.1:{mesh}")])
            .current_dir(&directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("run: ready"));
        // Its later lines go nowhere, and must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let node = Node { child, directory, client, mesh };
        assert!(ready, "it did not start");
        node
    }

    fn websocket(&self) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.client)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.client
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        stream
    }
}

/// Round trips of a ping and its pong, in order of length.
fn round_trips(stream: &mut TcpStream, times: usize) -> Vec<Duration> {
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let start = clock::mono();
            stream.write_all(&[0x89, 0x84, 0, 0, 0, 0, b'e', b'c', b'h', b'o']).unwrap();
            let mut pong = [0; 6];
            stream.read_exact(&mut pong).unwrap();
            assert_eq!(pong, *b"\x8a\x04echo");
            clock::mono().since(start)
        })
        .collect();
    took.sort();
    took
}

#[test]
fn a_flood_on_the_mesh_port_does_not_slow_a_websocket() {
    for driver in ["auto", "epoll"] {
        let node = Node::start(driver);
        let mut stream = node.websocket();
        round_trips(&mut stream, 200);
        let calm = round_trips(&mut stream, 1000);

        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (port, ended, count) = (node.mesh, stop.clone(), sent.clone());
        let flood = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(("127.0.0.1", port)).unwrap();
            let mut garbage = [0xc3; 1200];
            while !ended.load(Ordering::Relaxed) {
                // Now a first packet of QUIC, now none: both are looked at.
                let n = count.fetch_add(1, Ordering::Relaxed);
                garbage[1..9].copy_from_slice(&n.to_le_bytes());
                // A full buffer at the other end is what a flood is about.
                let _dropped = socket.send(&garbage);
            }
        });
        let flooded = round_trips(&mut stream, 1000);
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();

        let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
        eprintln!(
            "{driver}: p50 {:?}, p99 {:?}; under {} datagrams p50 {:?}, p99 {:?}",
            calm[500],
            p99(&calm),
            sent.load(Ordering::Relaxed),
            flooded[500],
            p99(&flooded)
        );
        assert!(sent.load(Ordering::Relaxed) > 1000, "it was no flood");
        // Wide, since this machine may be busy: a starved worker answers not at all, or after seconds.
        assert!(p99(&flooded) < Duration::from_millis(100) + 4 * p99(&calm));
    }
}
