//! How a node treats sockets that are not as they should be, on both drivers.

use std::io::{Read, Write};
use std::time::Duration;

use skein::shell::clock;

use crate::process::Process;

const DRIVERS: [&str; 2] = ["auto", "epoll"];

fn to_the_end(stream: &mut impl Read) -> String {
    let mut text = Vec::new();
    // A reset is an end, too.
    let _reset = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn who_does_not_speak_or_too_slowly_is_closed_in_time_and_told_why() {
    for driver in DRIVERS {
        let node = Process::start(&["--node.driver", driver, "--http_server.handshake_timeout", "1s"]);
        let before = node.open_files();
        let start = clock::mono();
        let mut silent: Vec<_> = (0..20).map(|_| node.connect()).collect();
        let mut halted = node.connect();
        halted.write_all(b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\n").unwrap();
        let mut dripping = node.connect();
        let mut drops = 0;
        while clock::mono().since(start) < Duration::from_secs(10) && dripping.write_all(b"G").is_ok() {
            drops += 1;
            std::thread::park_timeout(Duration::from_millis(100));
        }
        assert!((5..60).contains(&drops), "each byte does not buy more time: {drops}");
        assert!(to_the_end(&mut halted).starts_with("HTTP/1.1 408 "));
        for stream in &mut silent {
            assert_eq!(to_the_end(stream), "");
        }
        let took = clock::mono().since(start);
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(15), "{took:?}");
        drop((silent, halted, dripping));
        let start = clock::mono();
        while node.open_files() > before {
            assert!(clock::mono().since(start) < Duration::from_secs(10), "sockets are left");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn above_the_limit_a_connection_is_refused_with_a_word_and_places_are_given_back() {
    for driver in DRIVERS {
        let node = Process::start(&["--node.driver", driver, "--client.connection_limit", "3"]);
        let mut inside: Vec<_> = (0..3).map(|_| node.websocket()).collect();
        let mut outside = node.connect();
        assert!(to_the_end(&mut outside).starts_with("HTTP/1.1 503 "));
        inside.pop();
        let start = clock::mono();
        loop {
            let mut again = node.connect();
            again.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            if to_the_end(&mut again).starts_with("HTTP/1.1 200 ") {
                break;
            }
            assert!(clock::mono().since(start) < Duration::from_secs(10), "the place was not given back");
        }
    }
}

#[test]
fn a_stopping_node_says_so_and_ends_in_bounded_time_whatever_its_clients_do() {
    for driver in DRIVERS {
        let mut node = Process::start(&["--node.driver", driver]);
        let mut clients: Vec<_> = (0..20).map(|_| node.websocket()).collect();
        // One that sends half a request, and one that says nothing at all.
        let mut half = node.connect();
        half.write_all(b"GET / HT").unwrap();
        let _silent = node.connect();
        node.terminate();
        let mut close = [0; 4];
        for client in &mut clients[..10] {
            client.read_exact(&mut close).unwrap();
            assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 3001));
        }
        // Nobody hangs up, and half of them never read.
        let status = node.ended_within(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_port_that_another_node_has_is_one_clear_sentence() {
    let first = Process::start(&[]);
    let port = first.port.to_string();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_skein"))
        .args(["serve", "--node.workers", "1", "--http_server.address", "127.0.0.1", "--http_server.port", &port])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains(&format!("client address 127.0.0.1:{port} is in use")), "{told}");
}
