//! Whatever way a client goes, everything that it had goes with it.

use std::net::Shutdown;
use std::time::Duration;

use serde_json::json;

use crate::support::{Client, Encoding, Message, Node, PATH, SECRET_OPTION, Socket, eventually, slow, token};

#[test]
fn every_way_to_leave_gives_back_descriptor_user_and_subscriptions() {
    let node = Node::start(&[SECRET_OPTION, "--channel.without_namespace.allow_subscribe_for_client"]);
    let files = node.open_files();
    let leave: [fn(Client); 6] = [
        |client| client.leave(),
        // Without a word.
        |client| drop(client),
        // A reset.
        |client| {
            let socket = socket2::SockRef::from(&client.socket.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a socket takes options");
        },
        // Half-closed: nothing more comes from it, and that is the end.
        |mut client| {
            client.socket.stream.shutdown(Shutdown::Write).expect("it is open");
            client.socket.rest();
        },
        // In the middle of a frame.
        |mut client| client.socket.send_bytes([0x81, 0xfe, 0x01]),
        // Thrown out.
        |mut client| {
            client.send(&[]);
            assert_eq!(client.close_code(), 3501);
        },
    ];
    let user = token(json!({ "sub": "anna" }));
    for leave in leave {
        for encoding in Encoding::BOTH {
            let mut client = node.client(encoding);
            client.connect(&user);
            client.subscribe("room");
            client.subscribe("another");
            leave(client);
        }
    }
    node.is_clean(files);
    assert_eq!(node.metrics().get("skein_sessions_total"), 12);
}

#[test]
fn thousands_come_and_go_and_memory_comes_back() {
    let node = Node::open();
    let (files, count) = (node.open_files(), if slow() { 2_000 } else { 400 });
    let mut sizes = Vec::new();
    for _ in 0..8 {
        let clients: Vec<Client> = (0..count)
            .map(|n| {
                let mut client = node.client(Encoding::BOTH[n % 2]);
                client.commands([
                    ("connect", json!({})),
                    ("subscribe", json!({ "channel": "room" })),
                    ("subscribe", json!({ "channel": format!("own-{n}") })),
                ]);
                client
            })
            .collect();
        eventually("all are subscribed", || node.metrics().get("skein_subscriptions") == 2 * count as u64);
        let mut publisher = node.connected(Encoding::Json);
        publisher.publish("room", json!("x".repeat(100)));
        eventually("all have it", || node.metrics().get("skein_publications_out_total").is_multiple_of(count as u64));
        drop((clients, publisher));
        node.is_clean(files);
        sizes.push(node.resident_bytes());
    }
    // What is reused has been used after some rounds; the allocator takes memory by megabytes.
    let (settled, last) = (sizes[3], sizes[7]);
    assert!(last < settled + (4 << 20), "{sizes:?}");
}

#[test]
fn half_open_sockets_cost_a_time_and_no_more() {
    let node =
        Node::start(&["--client.insecure", "--http_server.handshake_timeout=1s", "--client.stale_close_delay=1s"]);
    let files = node.open_files();
    // Accepted and silent; in the middle of a request; upgraded and silent.
    let _silent: Vec<Socket> = (0..50).map(|_| Socket::open(node.address)).collect();
    let _partial: Vec<Socket> = (0..50)
        .map(|_| {
            let mut socket = Socket::open(node.address);
            socket.send_bytes("GET / HTTP/1.1\r\nHost");
            socket
        })
        .collect();
    let _upgraded: Vec<Socket> = (0..50).map(|_| Socket::connect(node.address, PATH, "")).collect();
    node.connected(Encoding::Json).leave();
    // None of them is ever closed from this side.
    node.is_clean(files);
}

#[test]
fn a_peer_that_does_not_hang_up_after_our_close_is_cut_off() {
    let node = Node::open();
    let files = node.open_files();
    let mut client = node.connected(Encoding::Json);
    client.send(&[]);
    assert_eq!(client.socket.rest().pop(), Some(Message::Close(3501, "bad request".into())));
    // The close is not answered and the socket stays open.
    node.is_clean(files);
    drop(client);
}
