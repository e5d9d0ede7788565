//! What operators ask a node: is it alive, is it ready, what has it done.

use serde_json::json;

use crate::support::{Encoding, Http, Node};

#[test]
fn health_readiness_and_metrics_are_served() {
    let node = Node::open();
    let mut http = node.http();
    assert_eq!(http.get("/health").status, 200);
    assert_eq!(http.get("/ready").status, 200);
    let metrics = http.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(http.get("/nowhere").status, 404);
    http.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n");
    http.send("DELETE /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // The answer to HEAD says the length of a body that does not come.
    let mut text = String::new();
    std::io::Read::read_to_string(&mut http.stream, &mut text).expect("it ends");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("\r\n\r\nHTTP/1.1 405 "), "{text}");
}

#[test]
fn metrics_tell_what_happened() {
    let node = Node::open();
    let mut client = node.connected(Encoding::Json);
    client.subscribe("room");
    let mut other = node.connected(Encoding::Protobuf);
    other.subscribe("room");
    other.subscribe("another");
    client.publish("room", json!(1));
    client.publication("room");
    other.publication("room");
    client.fail("presence", json!({ "channel": "room" }));

    let metrics = node.metrics();
    for (name, value) in [
        ("skein_ready", 1),
        ("skein_connections", 2),
        ("skein_connections_total", 2),
        ("skein_sessions", 2),
        ("skein_subscriptions", 3),
        ("skein_channels", 2),
        ("skein_publications_in_total", 1),
        ("skein_publications_out_total", 2),
        ("skein_commands_total", 7),
        ("skein_command_errors_total", 1),
        ("skein_frames_in_total", 7),
        ("skein_receive_to_send_seconds_count", 2),
        ("skein_members", 1),
    ] {
        assert_eq!(metrics.get(name), value, "{name}");
    }
    assert!(metrics.get("skein_sends_total") >= 7);
    assert!(metrics.get("skein_bytes_in_total") > 100);
    assert!(metrics.get("skein_bytes_out_total") > 100);
    assert!(metrics.get("skein_turn_seconds_count") > 0);
}

#[test]
fn an_internal_address_takes_everything_that_is_not_for_clients() {
    let node = Node::start(&["--client.insecure", "--http_api.key=k", "--http_server.internal_port=0"]);
    let internal = node.internal.expect("it was asked for");
    assert_ne!(internal, node.address);
    let publish = r#"{"channel":"room","data":1}"#;
    for path in ["/health", "/ready", "/metrics", "/cluster"] {
        assert_eq!(Http::open(internal).get(path).status, 200, "{path}");
        assert_eq!(node.http().get(path).status, 404, "{path}");
    }
    assert_eq!(Http::open(internal).post("/api/publish", "X-API-Key: k\r\n", publish).status, 200);
    assert_eq!(node.http().post("/api/publish", "X-API-Key: k\r\n", publish).status, 404);
    assert_eq!(Http::open(internal).get("/connection/websocket").status, 404);
    node.connected(Encoding::Json);
}

#[test]
fn the_path_of_websockets_can_be_another() {
    let node = Node::start(&["--client.insecure", "--websocket.handler_prefix=/ws"]);
    assert_eq!(node.socket().upgrade("/ws", "").status, 101);
    assert_eq!(node.socket().upgrade("/connection/websocket", "").status, 404);
}
