//! How a connection begins: the upgrade as real clients send it, and the connect command with what may stand beside it.

use serde_json::json;

use crate::support::{Client, Encoding, Http, Message, Node, PATH, Socket};

#[test]
fn connect_is_answered_with_who_one_is_and_how_pings_go() {
    let node = Node::open();
    let mut seen = Vec::new();
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        let result = client.succeed("connect", json!({ "name": "test", "version": "1", "flag": 3 }));
        let id = result["client"].as_str().expect("a client has an id").to_owned();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4", "a random UUID");
        assert!(result["version"].as_str().is_some_and(|version| version.starts_with("skein ")));
        assert_eq!((&result["ping"], &result["pong"]), (&json!(25), &json!(true)));
        assert!(result.get("expires").is_none() && result.get("ttl").is_none());
        seen.push(id);
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn the_encoding_is_chosen_by_subprotocol_or_by_query() {
    let node = Node::open();
    let offer = |names: &str| format!("Sec-WebSocket-Protocol: {names}\r\n");
    for (query, headers, encoding, echoed) in [
        ("", String::new(), Encoding::Json, None),
        ("", offer("centrifuge-json"), Encoding::Json, Some("centrifuge-json")),
        ("", offer("centrifuge-protobuf"), Encoding::Protobuf, Some("centrifuge-protobuf")),
        ("", offer("other, centrifuge-protobuf"), Encoding::Protobuf, Some("centrifuge-protobuf")),
        ("?format=protobuf", String::new(), Encoding::Protobuf, None),
        ("?cf_protocol=protobuf", String::new(), Encoding::Protobuf, None),
        // As the Python SDK sends it.
        ("", offer(""), Encoding::Json, None),
        // As the Go SDK's tests send it.
        ("?cf_protocol_version=v2&unknown", String::new(), Encoding::Json, None),
        // An offer that nobody has to take.
        ("", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n".into(), Encoding::Json, None),
    ] {
        let mut socket = node.socket();
        let response = socket.upgrade(&format!("{PATH}{query}"), &headers);
        assert_eq!(response.status, 101, "{query} {headers}");
        assert_eq!(response.header("sec-websocket-protocol"), echoed, "{query} {headers}");
        assert_eq!(response.header("sec-websocket-extensions"), None);
        let mut client = Client::over(socket, encoding);
        client.connect("");
        client.leave();
    }
}

#[test]
fn a_first_frame_may_hold_connect_and_all_subscriptions() {
    let node = Node::open();
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        let ids = client.commands([
            ("connect", json!({})),
            ("subscribe", json!({ "channel": "a", "flag": 1 })),
            ("subscribe", json!({ "channel": "b", "flag": 1 })),
            ("publish", json!({ "channel": "a", "data": 1 })),
        ]);
        // `reply` sees to it that they come in this order.
        for (id, method) in ids.into_iter().zip(["connect", "subscribe", "subscribe", "publish"]) {
            let reply = client.reply(id);
            assert!(reply[method].is_object(), "{reply}");
        }
        assert_eq!(client.publication("a")["data"], 1);
    }
}

#[test]
fn frames_may_come_with_the_upgrade_and_byte_by_byte() {
    let node = Node::open();
    let mut socket = node.socket();
    let mut bytes = crate::support::upgrade(PATH, "").into_bytes();
    bytes.extend(crate::support::frame(0x81, br#"{"id":1,"connect":{}}"#));
    for byte in bytes {
        socket.send_bytes([byte]);
    }
    assert_eq!(socket.response().status, 101);
    let Message::Text(reply) = socket.receive() else { panic!("not JSON") };
    assert!(reply.starts_with(r#"{"id":1,"connect":{"client":""#), "{reply}");
}

#[test]
fn a_trailing_newline_and_a_frame_of_the_other_kind_are_accepted() {
    let node = Node::open();
    let mut socket = Socket::connect(node.address, PATH, "");
    socket.send(&Message::Binary(b"{\"id\":1,\"connect\":{}}\n".to_vec()));
    let Message::Text(reply) = socket.receive() else { panic!("not JSON") };
    assert!(reply.contains("\"connect\""));
}

#[test]
fn whoever_asks_for_websocket_pings_gets_no_others() {
    let node = Node::start(&["--client.ping_interval=300ms", "--client.pong_timeout=200ms"]);
    let socket = Socket::connect(node.address, &format!("{PATH}?cf_ws_frame_ping_pong=true"), "");
    let mut client = Client::over(socket, Encoding::Json);
    let result = client.connect("");
    assert!(result.get("ping").is_none() && result.get("pong").is_none(), "{result}");
    for _ in 0..3 {
        let Message::Ping(payload) = client.socket.receive() else { panic!("no WebSocket ping") };
        client.socket.send(&Message::Pong(payload));
    }
}

#[test]
fn a_plain_get_is_told_that_a_websocket_is_spoken_here() {
    let node = Node::open();
    let response = Http::open(node.address).get(PATH);
    assert_eq!(response.status, 426);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert!(response.text().contains("WebSocket"));
}
