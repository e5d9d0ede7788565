//! Pages of which origins may connect, or call an API that needs no key.

use crate::support::{Node, PATH, upgrade};

/// The status of an upgrade by a page of that origin. The request's host is `gateway.example`.
fn status(node: &Node, origin: &str) -> u16 {
    let mut socket = node.socket();
    let request = upgrade(PATH, &format!("Origin: {origin}\r\n")).replace("Host: a", "Host: gateway.example:8000");
    socket.send_bytes(request);
    socket.response().status
}

#[test]
fn a_page_of_another_origin_is_refused_by_default() {
    let node = Node::open();
    assert_eq!(status(&node, "http://gateway.example:8000"), 101);
    assert_eq!(status(&node, "http://GATEWAY.example:8000"), 101);
    for origin in ["http://evil.example", "http://gateway.example", "http://gateway.example:8000.evil.example", "null"]
    {
        assert_eq!(status(&node, origin), 403, "{origin}");
    }
    assert_eq!(node.metrics().labelled("skein_refusals_total", "reason=\"origin\""), 4);
}

#[test]
fn allowed_origins_are_let_in_and_stars_stand_for_any_text() {
    let node =
        Node::start(&["--client.insecure", "--client.allowed_origins=https://app.example,https://*.test.example"]);
    for (origin, expected) in [
        ("https://app.example", 101),
        ("https://APP.example", 101),
        ("https://a.b.test.example", 101),
        ("http://app.example", 403),
        ("https://app.example.evil", 403),
        ("https://test.example", 403),
    ] {
        assert_eq!(status(&node, origin), expected, "{origin}");
    }
    let any = Node::start(&["--client.insecure", "--client.allowed_origins=*"]);
    assert_eq!(status(&any, "https://anything.example"), 101);
}

#[test]
fn a_page_cannot_use_the_api_of_a_node_without_a_key() {
    let node = Node::start(&["--client.insecure", "--http_api.insecure"]);
    let body = r#"{"channel":"room","data":1}"#;
    assert_eq!(node.http().post("/api/publish", "", body).status, 200);
    assert_eq!(node.http().post("/api/publish", "Origin: http://evil.example\r\n", body).status, 403);
}
