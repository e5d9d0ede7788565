//! A flood of garbage on the mesh port does not slow WebSockets down.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use skein::shell::clock;

use crate::process::Process;

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
        // Free a moment ago.
        let mesh = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = mesh.to_string();
        let node = Process::start_after(
            &[&["cert", "ca"], &["cert", "node", "flooded"]],
            &[
                "--node.driver",
                driver,
                "--mesh.bundle",
                "flooded.pem",
                "--mesh.listen",
                &address,
                "--mesh.advertise",
                &address,
            ],
        );
        let mut stream = node.websocket();
        round_trips(&mut stream, 200);
        let calm = round_trips(&mut stream, 1000);

        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (ended, count) = (stop.clone(), sent.clone());
        let flood = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(mesh).unwrap();
            let mut garbage = [0xc3; 1200];
            while !ended.load(Ordering::Relaxed) {
                // The long header of ever another connection, which has to be looked at and mostly answered.
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
