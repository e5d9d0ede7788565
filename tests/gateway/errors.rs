//! Each error of a reply in its situation, and the connection that lives on after it.

use serde_json::{Value, json};

use crate::support::{Encoding, Node};

/// The error that the command gets, in both encodings, from a node that is open to all.
fn check(method: &str, request: Value, code: u64) {
    let node = Node::start(&["--client.insecure"]);
    for encoding in Encoding::BOTH {
        let mut client = node.connected(encoding);
        assert_eq!(client.fail(method, request.clone()), code, "{encoding:?} {method} {request}");
        client.subscribe("still-here");
    }
    let told = node.metrics().labelled("skein_command_errors_total", &format!("code=\"{code}\""));
    assert_eq!(told, 2, "each is counted");
}

#[test]
fn an_unknown_namespace_is_error_102_whatever_the_command() {
    let node = Node::start(&["--client.insecure"]);
    let mut client = node.connected(Encoding::Json);
    for method in ["subscribe", "publish", "presence", "presence_stats", "history", "sub_refresh"] {
        let request = json!({ "channel": "none:room", "data": 1, "token": "x" });
        let code = client.fail(method, request);
        assert_eq!(code, 102, "{method}");
    }
}

#[test]
fn subscribing_twice_is_error_105() {
    let node = Node::start(&["--client.insecure"]);
    for encoding in Encoding::BOTH {
        let mut client = node.connected(encoding);
        client.subscribe("room");
        assert_eq!(client.fail("subscribe", json!({ "channel": "room" })), 105);
        // In one frame, too, where the first may still be on its way.
        let both = ("subscribe", json!({ "channel": "another" }));
        let [first, second] = client.commands([both.clone(), both]);
        assert!(client.reply(first).get("error").is_none());
        assert_eq!(client.reply(second)["error"]["code"], 105);
    }
}

#[test]
fn names_that_are_too_long_empty_or_not_ascii_are_error_107() {
    check("subscribe", json!({ "channel": "n".repeat(256) }), 107);
    check("subscribe", json!({ "channel": "raum-ü" }), 107);
    check("subscribe", json!({}), 107);
    check("publish", json!({ "channel": "n".repeat(256), "data": 1 }), 107);
}

#[test]
fn a_publication_without_data_is_error_107() {
    check("publish", json!({ "channel": "room" }), 107);
}

#[test]
fn what_is_not_built_is_error_108_and_never_a_success() {
    check("presence", json!({ "channel": "room" }), 108);
    check("presence_stats", json!({ "channel": "room" }), 108);
    check("history", json!({ "channel": "room", "limit": 1 }), 108);
    check("rpc", json!({ "method": "m", "data": {} }), 108);
    check("subscribe", json!({ "channel": "room", "type": 1 }), 108);
    check("publish", json!({ "channel": "room", "data": 1, "type": 1 }), 108);
}

#[test]
fn wishes_that_only_add_something_are_left_ungranted() {
    let node = Node::start(&["--client.insecure"]);
    for encoding in Encoding::BOTH {
        let mut client = node.connected(encoding);
        let result = client.succeed(
            "subscribe",
            json!({
                "channel": "room", "positioned": true, "recoverable": true, "join_leave": true, "delta": "fossil", "flag": 1,
            }),
        );
        assert_eq!(result, json!({}), "nothing of it is granted, and nothing else said");
    }
}

#[test]
fn whoever_insists_on_recovery_gets_error_112() {
    check("subscribe", json!({ "channel": "room", "recover": true, "offset": 5, "epoch": "x", "flag": 2 }), 112);
}

#[test]
fn a_refresh_of_what_one_is_not_subscribed_to_is_error_103() {
    check("sub_refresh", json!({ "channel": "room", "token": "x" }), 103);
}

#[test]
fn unsubscribing_what_was_never_subscribed_is_a_success() {
    let node = Node::start(&["--client.insecure"]);
    let mut client = node.connected(Encoding::Json);
    client.succeed("unsubscribe", json!({ "channel": "room" }));
}

#[test]
fn send_has_nobody_to_take_it_and_ends_in_3508() {
    let node = Node::start(&["--client.insecure"]);
    for encoding in Encoding::BOTH {
        let mut client = node.connected(encoding);
        client.send(&[json!({ "send": { "data": 1 } })]);
        assert_eq!(client.closed(), (3508, "not available".to_owned()));
    }
}

#[test]
fn what_breaks_the_protocol_ends_in_3501() {
    let node = Node::start(&["--client.insecure"]);
    let connect = json!({ "id": 9, "connect": {} });
    for encoding in Encoding::BOTH {
        for commands in [
            // Before connect.
            vec![json!({ "id": 1, "subscribe": { "channel": "room" } })],
            vec![json!({ "id": 1, "ping": {} })],
            // Twice.
            vec![connect.clone(), connect.clone()],
            // A pong that nobody asked for, before and after connect.
            vec![json!({})],
            vec![connect.clone(), json!({})],
            vec![connect.clone(), json!({ "id": 1, "ping": {} })],
            // No method, and no id.
            vec![connect.clone(), json!({ "id": 2 })],
            vec![connect.clone(), json!({ "subscribe": { "channel": "room" } })],
            // Nothing at all.
            vec![],
        ] {
            let mut client = node.client(encoding);
            client.send(&commands);
            assert_eq!(client.closed(), (3501, "bad request".to_owned()), "{encoding:?} {commands:?}");
        }
    }
    assert_eq!(node.metrics().labelled("skein_disconnects_total", "code=\"3501\""), 18);
}

#[test]
fn nothing_that_follows_a_misuse_is_carried_out() {
    let node = Node::start(&["--client.insecure"]);
    let mut witness = node.connected(Encoding::Json);
    witness.subscribe("room");
    let mut client = node.connected(Encoding::Json);
    client.send(&[json!({ "id": 9 }), json!({ "id": 10, "publish": { "channel": "room", "data": 1 } })]);
    assert_eq!(client.close_code(), 3501);
    witness.publish("room", json!("mine"));
    assert_eq!(witness.publication("room")["data"], "mine");
}
