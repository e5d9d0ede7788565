//! The server API over HTTP, as a backend uses it.

use serde_json::{Value, json};

use crate::support::{Encoding, Node, post};

const KEY: &str = "X-API-Key: secret\r\n";

fn node() -> Node {
    Node::start(&["--client.insecure", "--http_api.key=secret"])
}

fn call(node: &Node, method: &str, body: Value) -> Value {
    let response = node.http().post(&format!("/api/{method}"), KEY, &body.to_string());
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()
}

#[test]
fn publish_reaches_subscribers_in_both_encodings() {
    let node = node();
    let mut clients = Encoding::BOTH.map(|encoding| node.connected(encoding));
    for client in &mut clients {
        client.subscribe("room");
    }
    for data in [json!({ "a": [1, null] }), json!(null), json!("text"), json!(0)] {
        assert_eq!(call(&node, "publish", json!({ "channel": "room", "data": data })), json!({ "result": {} }));
        for client in &mut clients {
            let publication = client.publication("room");
            assert_eq!(publication["data"], data);
            assert!(publication.get("info").is_none(), "nobody in particular published it");
        }
    }
    call(&node, "publish", json!({ "channel": "room", "b64data": "eyJiIjoyfQ==", "tags": { "k": "v" } }));
    for client in &mut clients {
        let publication = client.publication("room");
        assert_eq!((&publication["data"], &publication["tags"]), (&json!({ "b": 2 }), &json!({ "k": "v" })));
    }
    assert_eq!(node.metrics().labelled("skein_publications_in_total", "source=\"api\""), 5);
}

#[test]
fn broadcast_answers_for_each_channel() {
    let node = node();
    let mut client = node.connected(Encoding::Json);
    client.subscribe("a");
    client.subscribe("b");
    let answer = call(&node, "broadcast", json!({ "channels": ["a", "none:x", "b", ""], "data": 7 }));
    let responses = answer["result"]["responses"].as_array().expect("responses");
    assert_eq!(responses.len(), 4);
    assert_eq!((&responses[0], &responses[2]), (&json!({ "result": {} }), &json!({ "result": {} })));
    assert_eq!(responses[1]["error"]["code"], 102);
    assert_eq!(responses[3]["error"]["code"], 107);
    assert_eq!(client.publication("a")["data"], 7);
    assert_eq!(client.publication("b")["data"], 7);
}

#[test]
fn info_counts_what_is_there() {
    let node = node();
    let mut client = node.connected(Encoding::Json);
    client.subscribe("a");
    client.subscribe("b");
    let answer = call(&node, "info", json!({}));
    let nodes = answer["result"]["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 1);
    assert_eq!(
        (&nodes[0]["num_clients"], &nodes[0]["num_subs"], &nodes[0]["num_channels"]),
        (&json!(1), &json!(2), &json!(2))
    );
    assert!(nodes[0]["name"].is_string() && nodes[0]["uid"].is_string() && nodes[0]["version"].is_string());
}

#[test]
fn without_the_key_the_answer_is_401_and_empty() {
    let node = node();
    let body = r#"{"channel":"room","data":1}"#;
    for headers in ["", "X-API-Key: wrong\r\n", "X-API-Key:\r\n", "Authorization: Bearer secret\r\n"] {
        let response = node.http().post("/api/publish", headers, body);
        assert_eq!((response.status, response.body.len()), (401, 0), "{headers}");
    }
    for (path, headers) in [
        ("/api/publish", KEY),
        ("/api/publish", "Authorization: apikey secret\r\n"),
        ("/api/publish?api_key=secret", ""),
    ] {
        assert_eq!(node.http().post(path, headers, body).status, 200, "{path} {headers}");
    }
    assert_eq!(node.metrics().labelled("skein_refusals_total", "reason=\"unauthorized\""), 4);
    // A node that was given no key lets nobody in, but an open one is for trying things out.
    let keyless = Node::start(&["--client.insecure"]);
    assert_eq!(keyless.http().post("/api/publish", "", body).status, 401);
}

#[test]
fn mistakes_of_the_backend_have_their_codes() {
    let node = node();
    for (method, body, code) in [
        ("publish", json!({ "data": 1 }), 107),
        ("publish", json!({ "channel": "room" }), 107),
        ("publish", json!({ "channel": "none:room", "data": 1 }), 102),
        ("publish", json!({ "channel": "n".repeat(256), "data": 1 }), 107),
        ("publish", json!({ "channel": "room", "b64data": "%" }), 107),
        ("publish", json!({ "channel": "room", "data": 1, "idempotency_key": "x" }), 108),
        ("broadcast", json!({ "data": 1 }), 107),
        ("history", json!({ "channel": "room" }), 108),
        ("disconnect", json!({ "user": "anna" }), 108),
    ] {
        let error = call(&node, method, body.clone());
        assert_eq!(error["error"]["code"], code, "{method} {body}");
        let strict = format!("{KEY}X-Centrifugo-Error-Mode: transport\r\n");
        let response = node.http().post(&format!("/api/{method}"), &strict, &body.to_string());
        assert_eq!(response.status, if code == 102 { 404 } else { 400 }, "{method} {body}");
    }
    assert_eq!(node.http().post("/api/publish", KEY, "{").status, 400);
    assert_eq!(node.http().post("/api/publish", KEY, "[]").status, 400);
    assert_eq!(node.http().post("/api/nonsense", KEY, "{}").status, 404);
    let mut http = node.http();
    http.send(format!("GET /api/publish HTTP/1.1\r\nHost: a\r\n{KEY}\r\n"));
    let response = http.receive();
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
}

#[test]
fn one_connection_carries_many_requests_also_sent_at_once() {
    let node = node();
    let mut client = node.connected(Encoding::Json);
    client.subscribe("room");
    let mut http = node.http();
    for n in 0..50 {
        let body = json!({ "channel": "room", "data": n }).to_string();
        assert_eq!(http.post("/api/publish", KEY, &body).status, 200);
        assert_eq!(client.publication("room")["data"], n);
    }
    let request = |n: usize| post("/api/publish", KEY, &json!({ "channel": "room", "data": n }).to_string());
    let pipelined: String = (0..50).map(request).collect();
    http.send(pipelined + "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for n in 0..50 {
        assert_eq!(http.receive().json(), json!({ "result": {} }));
        assert_eq!(client.publication("room")["data"], n);
    }
    let last = http.receive();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    http.assert_ended();
}

#[test]
fn bodies_may_come_in_chunks_and_after_100_continue() {
    let node = node();
    let body = r#"{"channel":"room","data":1}"#;
    let head = format!("POST /api/publish HTTP/1.1\r\nHost: a\r\n{KEY}");
    let mut http = node.http();
    http.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\n{}\r\n", &body[..5]));
    http.send(format!("{:x}\r\n{}\r\n0\r\nTrailer: 1\r\n\r\n", body.len() - 5, &body[5..]));
    assert_eq!(http.receive().status, 200);
    http.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()));
    assert_eq!(http.receive().status, 100);
    http.send(body);
    assert_eq!(http.receive().status, 200);
}

#[test]
fn the_older_form_with_the_method_in_the_body_works() {
    let node = node();
    let body = r#"{"method":"publish","params":{"channel":"room","data":1}}"#;
    assert_eq!(node.http().post("/api", KEY, body).json(), json!({ "result": {} }));
}
