//! What is published arrives: whole, once, in order, in each subscriber's own encoding.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Encoding, Message, Node, SECRET_OPTION, token};

fn subscriber(node: &Node, encoding: Encoding, channel: &str) -> Client {
    let mut client = node.connected(encoding);
    client.subscribe(channel);
    client
}

#[test]
fn a_publication_reaches_every_subscriber_in_its_own_encoding() {
    let node = Node::open();
    for from in Encoding::BOTH {
        let mut subscribers: Vec<Client> = (0..10).map(|n| subscriber(&node, Encoding::BOTH[n % 2], "room")).collect();
        let mut elsewhere = subscriber(&node, from, "another");
        let mut publisher = node.connected(from);
        let data = json!({ "text": "ä\n\u{0}\u{1F600}", "numbers": [0, -1, 1.5e300, 12_345_678_901_234_u64], "nothing": null });
        publisher.publish("room", data.clone());
        for client in &mut subscribers {
            let publication = client.publication("room");
            assert_eq!(publication["data"], data);
            assert_eq!(publication["info"]["client"].as_str().map(str::len), Some(36));
            assert!(publication.get("offset").is_none(), "a channel that keeps nothing has no offsets");
        }
        for client in &mut subscribers {
            client.hears_nothing_for(Duration::from_millis(20));
        }
        elsewhere.hears_nothing_for(Duration::from_millis(20));
        publisher.hears_nothing_for(Duration::from_millis(20));
    }
}

#[test]
fn publishers_hear_themselves_where_they_are_subscribed_and_are_named() {
    let node = Node::start(&[
        SECRET_OPTION,
        "--channel.without_namespace.allow_subscribe_for_client",
        "--channel.without_namespace.allow_publish_for_client",
    ]);
    for encoding in Encoding::BOTH {
        let mut client = node.client(encoding);
        let connected = client.connect(&token(json!({ "sub": "anna", "info": { "seat": 7 } })));
        let room = token(json!({ "sub": "anna", "channel": "room", "info": { "role": "host" }, "data": [1] }));
        let subscribed = client.succeed("subscribe", json!({ "channel": "room", "token": room }));
        assert_eq!(subscribed["data"], json!([1]));
        client.publish("room", json!("hello"));
        let info = &client.publication("room")["info"];
        assert_eq!(info["user"], "anna");
        assert_eq!(info["client"], connected["client"]);
        assert_eq!(info["conn_info"], json!({ "seat": 7 }));
        assert_eq!(info["chan_info"], json!({ "role": "host" }));
    }
}

#[test]
fn what_one_client_publishes_stays_in_order() {
    const COUNT: usize = 5_000;
    let node = Node::open();
    let mut subscribers = Encoding::BOTH.map(|encoding| subscriber(&node, encoding, "room"));
    let mut publisher = node.connected(Encoding::Json);
    for n in 0..COUNT {
        publisher.send(&[json!({ "id": 100 + n, "publish": { "channel": "room", "data": n } })]);
    }
    for client in &mut subscribers {
        for n in 0..COUNT {
            assert_eq!(client.publication("room")["data"], n);
        }
    }
    for n in 0..COUNT {
        assert_eq!(publisher.reply(100 + n as u64)["publish"], json!({}));
    }
    let metrics = node.metrics();
    assert_eq!(metrics.labelled("skein_publications_in_total", "source=\"client\""), COUNT as u64);
    assert_eq!(metrics.get("skein_publications_out_total"), 2 * COUNT as u64);
    assert!(metrics.get("skein_sends_total") < 2 * COUNT as u64, "under load many leave in one send");
}

#[test]
fn many_publications_in_one_frame_are_answered_each() {
    let node = Node::open();
    for encoding in Encoding::BOTH {
        let mut client = subscriber(&node, encoding, "room");
        let commands: Vec<Value> =
            (1000..1100).map(|id| json!({ "id": id, "publish": { "channel": "room", "data": id } })).collect();
        client.send(&commands);
        for id in 1000..1100 {
            assert_eq!(client.reply(id)["publish"], json!({}));
            assert_eq!(client.publication("room")["data"], id);
        }
    }
}

#[test]
fn after_the_answer_to_unsubscribe_nothing_comes_any_more() {
    let node = Node::open();
    for encoding in Encoding::BOTH {
        let mut client = subscriber(&node, encoding, "room");
        let mut witness = subscriber(&node, encoding, "room");
        client.succeed("unsubscribe", json!({ "channel": "room" }));
        witness.publish("room", json!(1));
        witness.publication("room");
        client.hears_nothing_for(Duration::from_millis(50));
        client.subscribe("room");
        witness.publish("room", json!(2));
        assert_eq!(client.publication("room")["data"], 2);
    }
}

#[test]
fn raw_newlines_in_a_payload_do_not_break_frames() {
    let node = Node::start(&["--http_api.key=k"]);
    let mut client = subscriber(&node, Encoding::Json, "room");
    let mut publisher = node.connected(Encoding::Json);
    // White space between tokens, raw: only the line's own end must not be taken for one.
    let body = "{\"channel\":\"room\",\"data\":{\r\n \"a\": [1,\n2]\n}}";
    assert_eq!(node.http().post("/api/publish", "X-API-Key: k\r\n", body).status, 200);
    assert_eq!(client.publication("room")["data"], json!({ "a": [1, 2] }));
    publisher.socket.send(&Message::Text("{\"id\":9,\"publish\":{\"channel\":\"room\",\"data\":\t[ 1 ]}}\n".into()));
    assert_eq!(publisher.reply(9)["publish"], json!({}));
    assert_eq!(client.publication("room")["data"], json!([1]));
}

#[test]
fn binary_data_reaches_protobuf_clients_and_ends_json_clients() {
    let node = Node::open();
    let mut binary = subscriber(&node, Encoding::Protobuf, "room");
    let mut text = subscriber(&node, Encoding::Json, "room");
    let mut publisher = node.connected(Encoding::Protobuf);
    publisher.publish("room", json!({ "$hex": "00ff80" }));
    assert_eq!(binary.publication("room")["data"], json!({ "$hex": "00ff80" }));
    assert_eq!(text.closed(), (3506, "inappropriate protocol".to_owned()));
    assert_eq!(node.metrics().labelled("skein_drops_total", "reason=\"not_json\""), 1);
}

#[test]
fn a_payload_as_large_as_a_message_may_be_arrives() {
    let node = Node::open();
    let mut client = subscriber(&node, Encoding::Json, "room");
    let text = "x".repeat(65_000);
    client.publish("room", json!(text));
    assert_eq!(client.publication("room")["data"], text);
}
