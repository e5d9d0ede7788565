//! SIGTERM: clients are told to go elsewhere, what waits is sent, and the process ends with 0 in bounded time.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Encoding, Http, Message, Node, PATH, Socket};

#[test]
fn clients_are_closed_with_3001_and_the_node_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::open();
        let mut clients: Vec<_> = (0..20).map(|n| node.connected(Encoding::BOTH[n % 2])).collect();
        let mut unconnected = node.client(Encoding::Json);
        let begin = Instant::now();
        node.signal(signal);
        for client in clients.iter_mut().chain([&mut unconnected]) {
            assert_eq!(client.closed(), (3001, "shutdown".to_owned()));
        }
        let status = node.ended_within(Duration::from_secs(10)).expect("it ends");
        assert_eq!(status.code(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert!(TcpStream::connect(node.address).is_err(), "nobody listens any more");
    }
}

#[test]
fn what_was_published_before_the_signal_arrives_before_the_close() {
    let mut node = Node::open();
    let mut subscriber = node.connected(Encoding::Json);
    subscriber.subscribe("room");
    let mut publisher = node.connected(Encoding::Json);
    for n in 0..200 {
        publisher.publish("room", json!(n));
    }
    node.signal("TERM");
    for n in 0..200 {
        assert_eq!(subscriber.publication("room")["data"], n);
    }
    assert_eq!(subscriber.close_code(), 3001);
    assert_eq!(node.ended_within(Duration::from_secs(10)).expect("it ends").code(), Some(0));
}

#[test]
fn a_stuck_reader_does_not_hold_the_end_up() {
    let mut node = Node::start(&["--client.insecure", "--shutdown.timeout=1s", "--client.queue_max_size=64MiB"]);
    let mut stuck = node.connected(Encoding::Json);
    stuck.subscribe("room");
    let mut publisher = node.connected(Encoding::Json);
    let text = "x".repeat(60_000);
    while node.metrics().get("skein_outbox_bytes_high") < 4 << 20 {
        publisher.publish("room", json!(text));
    }
    let mut other = node.connected(Encoding::Protobuf);
    let begin = Instant::now();
    node.signal("TERM");
    assert_eq!(other.close_code(), 3001);
    let status = node.ended_within(Duration::from_secs(20)).expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    drop(stuck);
}

#[test]
fn sockets_that_say_nothing_do_not_hold_the_end_up() {
    let mut node = Node::start(&["--client.insecure", "--shutdown.timeout=2s"]);
    let _silent = Socket::open(node.address);
    let mut partial = Http::open(node.address);
    partial.send("GET / HTTP/1.1\r\nHo");
    // Does not answer the close frame, and does not hang up.
    let mut rude = Socket::connect(node.address, PATH, "");
    let mut kept = Http::open(node.address);
    assert_eq!(kept.get("/health").status, 200);
    let begin = Instant::now();
    node.signal("TERM");
    assert_eq!(rude.rest().pop(), Some(Message::Close(3001, "shutdown".into())));
    kept.assert_ended();
    assert_eq!(node.ended_within(Duration::from_secs(20)).expect("it ends").code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut node = Node::start(&["--client.insecure", "--shutdown.timeout=60s", "--client.queue_max_size=64MiB"]);
    let mut stuck = node.connected(Encoding::Json);
    stuck.subscribe("room");
    let mut publisher = node.connected(Encoding::Json);
    let text = "x".repeat(60_000);
    while node.metrics().get("skein_outbox_bytes_high") < 4 << 20 {
        publisher.publish("room", json!(text));
    }
    node.signal("TERM");
    assert_eq!(publisher.close_code(), 3001);
    assert!(node.ended_within(Duration::from_millis(500)).is_none(), "it waits for the stuck one");
    node.signal("TERM");
    assert!(node.ended_within(Duration::from_secs(5)).is_some());
}

#[test]
fn a_killed_node_leaves_its_port_free() {
    let node = Node::open();
    let address = node.address;
    let _client = node.connected(Encoding::Json);
    drop(node);
    let node = Node::try_start_at(address.port(), &[]).expect("the port is free");
    node.connected(Encoding::Json);
}
