//! Everything that a client could want too much of, and what it is told.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Client, Encoding, Message, Node, PATH, SECRET_OPTION, Socket, eventually, token};

#[test]
fn channels_of_one_client_are_limited() {
    let node = Node::start(&["--client.insecure", "--client.channel_limit=3"]);
    for encoding in Encoding::BOTH {
        let mut client = node.connected(encoding);
        for channel in ["a", "b", "c"] {
            client.subscribe(channel);
        }
        assert_eq!(client.fail("subscribe", json!({ "channel": "d" })), 106);
        client.succeed("unsubscribe", json!({ "channel": "a" }));
        client.subscribe("d");
    }
}

#[test]
fn connections_of_one_user_are_limited() {
    let node = Node::start(&[
        SECRET_OPTION,
        "--client.user_connection_limit=2",
        "--client.allow_anonymous_connect_without_token",
    ]);
    let anna = token(json!({ "sub": "anna" }));
    let connect = |token: &str| {
        let mut client = node.client(Encoding::Json);
        client.connect(token);
        client
    };
    let (first, _second) = (connect(&anna), connect(&anna));
    let refused = || {
        let mut client = node.client(Encoding::Json);
        client.command("connect", json!({ "token": anna }));
        client.closed()
    };
    assert_eq!(refused(), (3504, "connection limit".to_owned()));
    let _another = connect(&token(json!({ "sub": "berta" })));
    let _nobody: Vec<Client> = (0..5).map(|_| connect("")).collect();
    // A place that is left can be taken.
    drop(first);
    eventually("a place is free", || node.metrics().get("skein_sessions") == 7);
    let _third = connect(&anna);
    assert_eq!(refused().0, 3504);
}

#[test]
fn connections_from_one_address_are_limited() {
    let node = Node::start(&["--client.insecure", "--client.address_connection_limit=2"]);
    let first = node.connected(Encoding::Json);
    let _second = node.connected(Encoding::Protobuf);
    let mut third = node.client(Encoding::Json);
    third.command("connect", json!({}));
    assert_eq!(third.closed(), (3504, "connection limit".to_owned()));
    first.leave();
    eventually("a place is free", || node.metrics().get("skein_sessions") == 1);
    let _fourth = node.connected(Encoding::Json);
}

#[test]
fn connections_of_the_node_are_limited() {
    let node = Node::start(&["--client.insecure", "--client.connection_limit=5", "--http_server.internal_port=0"]);
    let mut clients: Vec<Client> = (0..5).map(|_| node.connected(Encoding::Json)).collect();
    let mut sixth = node.http();
    assert_eq!(sixth.receive().status, 503);
    sixth.assert_ended();
    clients.pop();
    eventually("a place is free", || {
        let mut socket = Socket::open(node.address);
        socket.upgrade(PATH, "").status == 101
    });
}

#[test]
fn names_of_channels_are_limited() {
    let node = Node::start(&["--client.insecure", "--channel.max_length=10"]);
    let mut client = node.connected(Encoding::Json);
    client.subscribe("0123456789");
    assert_eq!(client.fail("subscribe", json!({ "channel": "0123456789x" })), 107);
}

#[test]
fn a_message_above_its_size_ends_in_1009() {
    let node = Node::start(&["--client.insecure", "--websocket.message_size_limit=1000"]);
    for encoding in Encoding::BOTH {
        let mut client = node.connected(encoding);
        // Whole, in pieces, and announced only.
        client.socket.send_frame(0x82, &[b' '; 1001]);
        assert_eq!(client.close_code(), 1009);
        let mut client = node.connected(encoding);
        client.socket.send_frame(0x02, &[b' '; 600]);
        client.socket.send_frame(0x80, &[b' '; 600]);
        assert_eq!(client.close_code(), 1009);
        let mut client = node.connected(encoding);
        client.socket.send_bytes([0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
        assert_eq!(client.close_code(), 1009);
    }
    let mut client = node.connected(Encoding::Json);
    let request = json!({ "id": 5, "publish": { "channel": "room", "data": "" } }).to_string();
    let text = request.replace("\"\"", &format!("{:?}", "x".repeat(1000 - request.len())));
    assert_eq!(text.len(), 1000);
    client.socket.send(&Message::Text(text));
    assert_eq!(client.reply(5)["publish"], json!({}));
}

#[test]
fn json_that_nests_too_deep_ends_in_3501() {
    let node = Node::start(&["--client.insecure", "--client.json_depth_limit=10"]);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let publish = |depth| format!(r#"{{"id":5,"publish":{{"channel":"room","data":{}}}}}"#, nested(depth));
    let mut client = node.connected(Encoding::Json);
    // The command itself has two.
    client.socket.send(&Message::Text(publish(8)));
    assert_eq!(client.reply(5)["publish"], json!({}));
    client.socket.send(&Message::Text(publish(9)));
    assert_eq!(client.close_code(), 3501);
}

#[test]
fn json_of_a_million_levels_is_one_refusal_and_no_more() {
    let node = Node::start(&[
        "--client.insecure",
        "--websocket.message_size_limit=4000000",
        "--client.queue_max_size=8000000",
    ]);
    for opening in ["[", "{\"a\":", "[{\"a\":"] {
        let mut client = node.connected(Encoding::Json);
        let deep =
            format!(r#"{{"id":5,"publish":{{"channel":"room","data":{}"#, opening.repeat(1_000_000 / opening.len()));
        client.socket.send(&Message::Text(deep));
        assert_eq!(client.close_code(), 3501);
    }
    let mut client = node.connected(Encoding::Json);
    client.socket.send(&Message::Text("[".repeat(1_000_000)));
    assert_eq!(client.close_code(), 3501);
    // Protobuf clients may publish anything; what is too deep is no JSON to others.
    let mut other = node.connected(Encoding::Protobuf);
    other.subscribe("room");
    let hex = "5b".repeat(1_000_000);
    other.publish("room", json!({ "$hex": hex }));
    assert_eq!(other.publication("room")["data"], json!({ "$hex": hex }));
}

#[test]
fn commands_of_one_frame_are_limited() {
    let node = Node::start(&["--client.insecure", "--client.commands_per_frame_limit=10"]);
    for encoding in Encoding::BOTH {
        let command = |id: u64| json!({ "id": id, "unsubscribe": { "channel": "room" } });
        let mut client = node.connected(encoding);
        let commands: Vec<Value> = (100..110).map(command).collect();
        client.send(&commands);
        client.reply(100);
        let commands: Vec<Value> = (200..211).map(command).collect();
        client.send(&commands);
        assert_eq!(client.close_code(), 3501);
    }
}

#[test]
fn channels_of_one_broadcast_are_limited() {
    let node = Node::start(&["--client.insecure", "--http_api.key=k", "--http_api.channels_limit=2"]);
    let broadcast = |channels: Value| {
        let body = json!({ "channels": channels, "data": 1 }).to_string();
        node.http().post("/api/broadcast", "X-API-Key: k\r\n", &body).json()
    };
    assert!(broadcast(json!(["a", "b"]))["result"].is_object());
    assert_eq!(broadcast(json!(["a", "b", "c"]))["error"]["code"], 107);
}

#[test]
fn a_node_out_of_descriptors_says_so_and_recovers() {
    let node = Node::open();
    let limit = std::process::Command::new("prlimit")
        .args([&format!("--pid={}", node.pid()), &format!("--nofile={}", node.open_files() + 6)])
        .status();
    assert!(limit.expect("prlimit can be run").success());
    let held: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(node.address).expect("the kernel accepts")).collect();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(held);
    node.connected(Encoding::Json).subscribe("room");
    assert!(node.metrics().labelled("skein_refusals_total", "reason=\"descriptors\"") > 0);
}
