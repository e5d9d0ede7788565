//! Whose address a client has where a proxy stands in between.

use serde_json::json;

use crate::support::{Client, Encoding, Node, PATH, Socket};

/// Whether a client with these headers is let in.
fn comes_in(node: &Node, headers: &str, held: &mut Vec<Client>) -> bool {
    let mut client = Client::over(Socket::connect(node.address, PATH, headers), Encoding::Json);
    client.command("connect", json!({}));
    let reply = client.socket.receive();
    held.push(client);
    matches!(reply, crate::support::Message::Text(text) if text.contains("\"connect\""))
}

#[test]
fn behind_a_trusted_proxy_each_client_has_its_own_address() {
    let node = Node::start(&[
        "--client.insecure",
        "--client.address_connection_limit=1",
        "--proxy.trusted=127.0.0.0/8,10.0.0.1",
    ]);
    let mut held = Vec::new();
    assert!(comes_in(&node, "X-Forwarded-For: 1.1.1.1\r\n", &mut held));
    assert!(comes_in(&node, "X-Forwarded-For: 1.1.1.2\r\n", &mut held));
    assert!(!comes_in(&node, "X-Forwarded-For: 1.1.1.1\r\n", &mut held));
    // What the client wrote itself stands further left, and is not believed.
    assert!(!comes_in(&node, "X-Forwarded-For: 9.9.9.9, 1.1.1.1\r\n", &mut held));
    // Over another trusted proxy.
    assert!(!comes_in(&node, "X-Forwarded-For: 1.1.1.2, 10.0.0.1\r\n", &mut held));
    assert!(comes_in(&node, "X-Forwarded-For: 1.1.1.3\r\nX-Forwarded-For: 10.0.0.1\r\n", &mut held));
    // Without the header it is the proxy itself.
    assert!(comes_in(&node, "", &mut held));
    assert!(!comes_in(&node, "", &mut held));
}

#[test]
fn a_header_from_anybody_else_is_not_believed() {
    let node = Node::start(&["--client.insecure", "--client.address_connection_limit=1", "--proxy.trusted=10.0.0.0/8"]);
    let mut held = Vec::new();
    assert!(comes_in(&node, "X-Forwarded-For: 1.1.1.1\r\n", &mut held));
    assert!(!comes_in(&node, "X-Forwarded-For: 1.1.1.2\r\n", &mut held));
}

#[test]
fn the_header_can_be_another() {
    let node = Node::start(&[
        "--client.insecure",
        "--client.address_connection_limit=1",
        "--proxy.trusted=127.0.0.1",
        "--proxy.header=X-Real-IP",
    ]);
    let mut held = Vec::new();
    assert!(comes_in(&node, "X-Real-IP: 1.1.1.1\r\nX-Forwarded-For: 5.5.5.5\r\n", &mut held));
    assert!(!comes_in(&node, "X-Real-IP: 1.1.1.1\r\nX-Forwarded-For: 6.6.6.6\r\n", &mut held));
}
