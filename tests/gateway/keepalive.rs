//! Clients that say nothing: before they connect, and after.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Encoding, Message, Node};

#[test]
fn who_does_not_connect_ends_in_3502() {
    let node = Node::start(&["--client.stale_close_delay=1s"]);
    for encoding in Encoding::BOTH {
        let begin = Instant::now();
        let mut client = node.client(encoding);
        // Pings of its own keep nobody who says nothing.
        client.socket.send(&Message::Ping(b"are you there".to_vec()));
        assert_eq!(client.socket.receive(), Message::Pong(b"are you there".to_vec()));
        assert_eq!(client.closed(), (3502, "stale".to_owned()));
        assert!(begin.elapsed() > Duration::from_millis(900));
    }
}

#[test]
fn who_does_not_answer_a_ping_ends_in_3012() {
    let node = Node::start(&["--client.ping_interval=1s", "--client.pong_timeout=300ms"]);
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        let result = client.connect("");
        assert_eq!((&result["ping"], &result["pong"]), (&json!(1), &json!(true)));
        assert_eq!(client.closed(), (3012, "no pong".to_owned()));
    }
}

#[test]
fn who_answers_pings_stays() {
    let node = Node::start(&["--client.ping_interval=200ms", "--client.pong_timeout=150ms"]);
    let mut clients = Encoding::BOTH.map(|encoding| node.connected(encoding));
    for _ in 0..3 {
        for client in &mut clients {
            client.hears_pings(client.pings + 1);
        }
    }
}

#[test]
fn other_messages_are_no_pong() {
    let node = Node::start(&["--client.ping_interval=1s", "--client.pong_timeout=500ms"]);
    let mut client = node.connected(Encoding::Json);
    client.answers_pings = false;
    client.hears_pings(1);
    client.subscribe("room");
    assert_eq!(client.close_code(), 3012);
}

#[test]
fn without_a_pong_timeout_no_pong_is_asked_for() {
    let node = Node::start(&["--client.ping_interval=200ms", "--client.pong_timeout=0s"]);
    let mut client = node.client(Encoding::Protobuf);
    let result = client.connect("");
    assert_eq!(result["ping"], 1);
    assert!(result.get("pong").is_none());
    client.answers_pings = false;
    client.hears_pings(3);
}

#[test]
fn without_an_interval_there_are_no_pings() {
    let node = Node::start(&["--client.ping_interval=0s"]);
    let mut client = node.client(Encoding::Json);
    let result = client.connect("");
    assert!(result.get("ping").is_none() && result.get("pong").is_none());
}
