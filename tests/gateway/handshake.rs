//! Requests that do not become a WebSocket: each gets one clear answer, and the connection its end.

use std::time::Duration;

use crate::support::{Http, Node, PATH, upgrade};

fn check(node: &Node, request: &str, status: u16) {
    let mut http = node.http();
    http.send(request);
    let response = http.receive();
    assert_eq!(response.status, status, "{request}");
    assert!(!response.body.is_empty(), "it says why: {request}");
}

#[test]
fn an_upgrade_that_is_none_is_refused_with_a_sentence() {
    let node = Node::open();
    let good = upgrade(PATH, "");
    let without =
        |line: &str| good.lines().filter(|other| *other != line).collect::<Vec<_>>().join("\r\n") + "\r\n\r\n";
    for (request, status) in [
        (good.replace("GET", "POST"), 405),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        (without("Upgrade: websocket"), 400),
        (without("Connection: Upgrade"), 400),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("ZSBub25jZQ==", ""), 400),
        (good.replace(PATH, "/elsewhere"), 404),
        (good.replace(PATH, &format!("http://a{PATH}")), 400),
        (upgrade(PATH, "Host: b\r\n"), 400),
        (upgrade(PATH, "Content-Length: 5\r\n"), 400),
        (upgrade(PATH, "Transfer-Encoding: chunked\r\n"), 400),
        (upgrade(PATH, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400),
    ] {
        check(&node, &request, status);
    }
    let refused = node.metrics();
    assert!(refused.get("skein_refusals_total") >= 12);
    assert_eq!(refused.get("skein_connections_total"), 0);
}

#[test]
fn requests_that_two_readers_could_cut_differently_are_refused() {
    let node = Node::start(&["--http_api.key=k", "--client.insecure"]);
    let smuggled = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\n";
    for request in [
        format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345{smuggled}"),
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: +5\r\n\r\n12345{smuggled}"),
        format!("{post}Content-Length: 5\r\n folded: 1\r\n\r\n12345{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n5;\n12345\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{smuggled}"),
        format!("POST /api/publish HTTP/1.0\r\nX-API-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
    ] {
        let mut http = node.http();
        http.send(&request);
        let response = http.receive();
        assert!((400..500).contains(&response.status), "{}: {request}", response.status);
        http.assert_ended();
    }
    // A body that nobody was to read is not taken for the next request.
    for request in [
        format!("GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("{}{smuggled}", upgrade(PATH, &format!("Content-Length: {}\r\n", smuggled.len()))),
    ] {
        let mut http = node.http();
        http.send(&request);
        http.receive();
        http.assert_ended();
    }
}

#[test]
fn a_head_that_comes_too_slowly_is_told_so_and_ended() {
    let node = Node::start(&["--http_server.handshake_timeout=1s"]);
    let files = node.open_files();
    let mut silent = node.http();
    let mut slow = node.http();
    for byte in "GET /connection/websocket HTTP/1.1\r\nHost: a\r\nX: ".bytes() {
        // It goes on for longer than it may.
        if slow.has_input() {
            break;
        }
        slow.send([byte]);
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(slow.receive().status, 408);
    slow.assert_ended();
    // Who says nothing at all is told nothing.
    silent.assert_ended();
    assert_eq!(node.metrics().labelled("skein_refusals_total", "reason=\"timeout\""), 1);
    drop((silent, slow));
    node.is_clean(files);
}

#[test]
fn a_body_that_comes_too_slowly_is_told_so_and_ended() {
    let node = Node::start(&["--http_server.handshake_timeout=1s", "--http_api.key=k", "--client.insecure"]);
    let mut http = node.http();
    http.send("POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\nContent-Length: 100\r\n\r\n{\"channel\"");
    assert_eq!(http.receive().status, 408);
    http.assert_ended();
}

#[test]
fn heads_and_bodies_above_their_size_are_refused() {
    let node = Node::start(&["--http_api.key=k", "--http_api.body_size_limit=1000", "--client.insecure"]);
    let large = "x".repeat(20_000);
    let mut http = node.http();
    http.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n"));
    assert_eq!(http.receive().status, 431);
    http.assert_ended();

    let many = "X: 1\r\n".repeat(100);
    check(&node, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431);

    let response = node.http().post("/api/publish", "X-API-Key: k\r\n", &large);
    assert_eq!(response.status, 413);
    let mut chunked = node.http();
    chunked.send("POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..5 {
        chunked.send(format!("fa\r\n{}\r\n", "y".repeat(250)));
    }
    assert_eq!(chunked.receive().status, 413);
}

#[test]
fn other_protocols_are_answered_in_http_and_ended() {
    let node = Node::open();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
    ] {
        let mut http = Http::open(node.address);
        http.send(garbage);
        let status = http.receive().status;
        assert!(status == 400 || status == 505, "{status} for {}", garbage.escape_ascii());
        http.assert_ended();
    }
}
